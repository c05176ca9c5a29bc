"""NannyML's estimates of two tables; the program that runs in its environment, under build/peers.

    build/peers/nannyml/bin/python benchmarks/peer_estimates.py <folder>

reads reference.parquet, current.parquet and asked.json there (kind, chunk, columns, metrics), and
prints value and both confidence limits of every metric in every chunk.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

FIELDS = ("value", "lower_confidence_boundary", "upper_confidence_boundary")


def main(folder: Path) -> None:
    """Answer what is asked in a folder."""
    import nannyml as nml
    import pandas as pd

    asked = json.loads((folder / "asked.json").read_text())
    sides = [pd.read_parquet(folder / f"{side}.parquet") for side in ("reference", "current")]
    kind = {"cbpe": nml.CBPE, "dle": nml.DLE}[asked["kind"]]
    estimator = kind(metrics=asked["metrics"], chunk_size=asked["chunk"], **asked["columns"])
    table = estimator.fit(sides[0]).estimate(sides[1]).filter(period="analysis").to_df()
    answer = {
        name: {field: table[name, field].tolist() for field in FIELDS} for name in asked["metrics"]
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
