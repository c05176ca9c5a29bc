"""Write what NannyML estimates on its own data, for the tests to hold ours against.

Runs in the environment of that peer, from the root of the project:

    build/peers/nannyml/bin/python benchmarks/golden_estimates.py tests/golden/nannyml.npz

The first few thousand rows of the census data and of a synthetic multiclass task, whose scores have
two decimals, lie in the file beside the answers.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

BINARY = ["accuracy", "precision", "recall", "specificity", "f1", "roc_auc", "confusion_matrix"]
CELLS = ["true_positive", "false_positive", "false_negative", "true_negative"]
FIELDS = ["value", "sampling_error"]
CLASSES = ["prepaid_card", "highstreet_card", "upmarket_card"]
MULTICLASS = ["accuracy", "precision", "recall", "specificity", "f1", "roc_auc"]
CHUNK = 3000
ROWS = 9000


def answers(estimated: Any, names: list[str]) -> np.ndarray:
    """Value and sampling error of each metric in each chunk of the analysis, [chunk, metric, 2]."""
    table = estimated.filter(period="analysis").to_df()
    return np.stack([table[name][FIELDS].to_numpy(dtype=np.float64) for name in names], axis=1)


def estimate(nml: Any, tables: tuple[Any, Any], metrics: list[str], **columns: Any) -> Any:
    """Fit on the first table and estimate the second, in chunks of equal size."""
    calculator = nml.CBPE(metrics=metrics, chunk_size=CHUNK, **columns)
    return calculator.fit(tables[0]).estimate(tables[1])


def census(nml: Any) -> dict[str, np.ndarray]:
    """Rows (score, decision, label) of both tables, and the answers."""
    reference, analysis, _ = nml.load_us_census_ma_employment_data()
    sides = reference.head(ROWS), analysis.head(2 * CHUNK)
    columns = {"y_pred_proba": "predicted_probability", "y_pred": "prediction"}
    found = estimate(
        nml,
        sides,
        [*BINARY, "average_precision"],
        y_true="employed",
        problem_type="classification_binary",
        **columns,
    )
    names = [*BINARY[:-1], *CELLS, "average_precision"]
    given = {
        f"census.{side}.{name}": table[column].to_numpy()
        for side, table in zip(("reference", "analysis"), sides, strict=True)
        for name, column in (("score", "predicted_probability"), ("decision", "prediction"))
    }
    return {
        **given,
        "census.reference.label": sides[0]["employed"].to_numpy(),
        "census.metrics": np.array(names),
        "census.answers": answers(found, names),
    }


def credit(nml: Any) -> dict[str, np.ndarray]:
    """Rows (three scores in hundredths, decision, label) of a multiclass task, and the answers."""
    reference, analysis, _ = nml.load_synthetic_multiclass_classification_dataset()
    sides = reference.head(ROWS), analysis.tail(2 * CHUNK)
    scores = {name: f"y_pred_proba_{name}" for name in CLASSES}
    found = estimate(
        nml,
        sides,
        MULTICLASS,
        y_true="y_true",
        y_pred="y_pred",
        y_pred_proba=scores,
        problem_type="classification_multiclass",
    )
    code = {name: place for place, name in enumerate(CLASSES)}
    given = {}
    for side, table in zip(("reference", "analysis"), sides, strict=True):
        hundredths = np.rint(100 * table[list(scores.values())].to_numpy()).astype(np.int8)
        assert (hundredths / 100 == table[list(scores.values())].to_numpy()).all()
        given[f"credit.{side}.scores"] = hundredths
        given[f"credit.{side}.decision"] = table["y_pred"].map(code).to_numpy(np.int8)
    return {
        **given,
        "credit.classes": np.array(CLASSES),
        "credit.reference.label": sides[0]["y_true"].map(code).to_numpy(np.int8),
        "credit.metrics": np.array(MULTICLASS),
        "credit.answers": answers(found, MULTICLASS),
    }


def main(path: str) -> None:
    """Write all of it to one file."""
    import nannyml as nml

    provenance = f"nannyml {nml.__version__}, its own data sets, chunks of {CHUNK} rows"
    np.savez_compressed(path, provenance=np.array(provenance), **census(nml), **credit(nml))


if __name__ == "__main__":
    main(*sys.argv[1:])
