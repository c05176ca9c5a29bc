"""The same answers from other tools.

Libraries that live beside ours are called in this process. Tools with pins of their own get an
environment each under build/peers, and this file is the program that runs in it:

    build/peers/<name>/bin/python benchmarks/peers.py <name> <folder>

reads reference.parquet and current.parquet there, and prints what it found and how long it took.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Columns = dict[str, Floats]
Peer = tuple[str, Callable[[], list[Counts]]]


# In this process: one coarse histogram of every column, NaN left out.


def count_sorted(values: Floats, edges: Floats) -> Counts:
    """The hand-written script: a binary search per value; the outer bins are open."""
    inner = np.searchsorted(edges[1:-1], values[~np.isnan(values)], side="right")
    return np.bincount(inner, minlength=len(edges) - 1)


def numpy_sorted(columns: Columns, edges: Columns) -> Peer:
    """NumPy, any edges."""

    def answer() -> list[Counts]:
        return [count_sorted(values, edges[name]) for name, values in columns.items()]

    return "NumPy searchsorted + bincount", answer


def numpy_uniform(columns: Columns, edges: Columns) -> Peer:
    """NumPy, equal widths over the range of all values; NaN removed before the clock starts."""
    present = {name: values[~np.isnan(values)] for name, values in columns.items()}

    def answer() -> list[Counts]:
        return [np.histogram(values, 50)[0] for values in present.values()]

    return "NumPy histogram, 50 equal widths, no NaN", answer


def boost(columns: Columns, edges: Columns) -> Peer:
    """boost-histogram, any edges; NaN falls into its overflow bin, so the last edge is inf."""
    import boost_histogram as bh

    def answer() -> list[Counts]:
        counted = []
        for name, values in columns.items():
            axis = bh.axis.Variable([-np.inf, *edges[name][1:-1], np.inf])
            counted.append(bh.Histogram(axis, storage=bh.storage.Int64()).fill(values).view())
        return counted

    return "boost-histogram Variable", answer


def boost_uniform(columns: Columns, edges: Columns) -> Peer:
    """boost-histogram, equal widths."""
    import boost_histogram as bh

    ranges = {name: (np.nanmin(values), np.nanmax(values)) for name, values in columns.items()}

    def answer() -> list[Counts]:
        counted = []
        for name, values in columns.items():
            axis = bh.axis.Regular(50, *ranges[name])
            counted.append(bh.Histogram(axis, storage=bh.storage.Int64()).fill(values).view())
        return counted

    return "boost-histogram Regular, 50 equal widths", answer


def polars(columns: Columns, edges: Columns) -> Peer:
    """polars cut + value_counts; NaN made null before, since cut would give it the last bin."""
    import polars as pl

    series = {name: pl.Series(name, values).fill_nan(None) for name, values in columns.items()}

    def answer() -> list[Counts]:
        counted = []
        for name, values in series.items():
            inner = edges[name][1:-1]
            bins = values.cut(inner, left_closed=True).to_physical().drop_nulls().value_counts()
            counts = np.zeros(len(inner) + 1, np.int64)
            counts[bins[name].to_numpy()] = bins["count"].to_numpy()
            counted.append(counts)
        return counted

    return "polars cut + value_counts", answer


def duckdb(columns: Columns, edges: Columns) -> Peer:
    """DuckDB, a native table; its bins are closed above, so the edges move down by one double."""
    import duckdb
    import pyarrow as pa

    connection = duckdb.connect(config={"threads": 1})
    table = pa.table({name: pa.array(v, mask=np.isnan(v)) for name, v in columns.items()})
    connection.register("arrow_table", table)
    connection.execute("create table rows as select * from arrow_table")
    uppers = {name: np.nextafter(edges[name][1:-1], -np.inf).tolist() for name in columns}
    query = ", ".join(f"histogram({name}, {[*uppers[name], 1.7e308]})" for name in columns)

    def answer() -> list[Counts]:
        row = connection.execute(f"select {query} from rows").fetchone()
        assert row is not None
        return [
            np.array(list(counted.values())[: len(edges[name]) - 1])
            for name, counted in zip(columns, row, strict=True)
        ]

    return "DuckDB histogram", answer


SAME_BINS = (numpy_sorted, boost, polars, duckdb)
EQUAL_WIDTHS = (numpy_uniform, boost_uniform)


# In environments of their own: whole tools, from a table to drift values.

Drift = dict[str, float]  # by column
PINS = {
    "nannyml": ["nannyml==0.13.1", "pandas<3", "statsmodels", "pyarrow"],
    "evidently": ["evidently==0.7.23", "pandas<3", "pyarrow"],
    "whylogs": ["whylogs==1.6.4", "numpy<2", "pyarrow<20", "pandas<3"],
}
TITLES = {
    "nannyml": "NannyML, Jensen-Shannon + KS + Wasserstein",
    "evidently": "Evidently, preset with Wasserstein",
    "whylogs": "whylogs, profile",
}
INSTALL_SECONDS, RUN_SECONDS = 900, 600


def nannyml(reference: Any, current: Any, numbers: list[str]) -> Callable[[], Drift]:
    """Univariate drift in one chunk; answers with its KS distances."""
    import nannyml as nml

    calculator = nml.UnivariateDriftCalculator(
        column_names=list(current.columns),
        continuous_methods=["jensen_shannon", "kolmogorov_smirnov", "wasserstein"],
        categorical_methods=["jensen_shannon", "chi2"],
        chunk_number=1,
    ).fit(reference)

    def answer() -> Drift:
        found = calculator.calculate(current).filter(period="analysis").to_df()
        return {name: float(found[name, "kolmogorov_smirnov", "value"].iloc[0]) for name in numbers}

    return answer


def evidently(reference: Any, current: Any, numbers: list[str]) -> Callable[[], Drift]:
    """The drift preset; answers with its normed Wasserstein distances."""
    from evidently import Report
    from evidently.presets import DataDriftPreset

    report = Report([DataDriftPreset(num_method="wasserstein", cat_method="jensenshannon")])

    def answer() -> Drift:
        found = json.loads(report.run(current, reference).json())["metrics"]
        return {
            each["config"]["column"]: float(each["value"])
            for each in found
            if each.get("config", {}).get("column") in numbers
        }

    return answer


def whylogs(reference: Any, current: Any, numbers: list[str]) -> Callable[[], Drift]:
    """A profile; answers with the largest value of each column. It takes None for no text."""
    import whylogs as why

    texts = [column for column in current if column not in numbers]
    current = current.astype(dict.fromkeys(texts, object))
    current[texts] = current[texts].where(current[texts].notna(), None)

    def answer() -> Drift:
        profile = why.log(current).view()
        summary = profile.to_pandas()
        return {name: float(summary["distribution/max"][name]) for name in numbers}

    return answer


def run_apart(name: str, folder: Path, root: Path) -> dict[str, Any] | str:
    """What a peer answered and how long it took, or one line that says why there is no answer."""
    python = root / "build" / "peers" / name / "bin" / "python"
    try:
        if not (python.parent / "ready").exists():
            _call([sys.executable, "-m", "venv", "--clear", str(python.parent.parent)], 300)
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _call([*pip, *PINS[name]], INSTALL_SECONDS)
            (python.parent / "ready").touch()
        output = _call([str(python), __file__, name, str(folder)], RUN_SECONDS)
    except subprocess.TimeoutExpired as error:
        return f"not within {error.timeout:.0f} s: {' '.join(map(str, error.cmd[1:5]))}"
    except subprocess.CalledProcessError as error:
        lines = [line for line in (error.stderr or "").splitlines() if line.strip()]
        return lines[-1][:160] if lines else f"exit status {error.returncode}"
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer


def _call(command: list[str], seconds: float) -> str:
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds)
    return run.stdout


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _main(name: str, folder: Path) -> None:
    import pandas as pd

    sides = [pd.read_parquet(folder / f"{side}.parquet") for side in ("reference", "current")]
    numbers = [column for column in sides[1] if sides[1][column].dtype == np.float64]
    answer = {"nannyml": nannyml, "evidently": evidently, "whylogs": whylogs}[name](*sides, numbers)
    before = _peak()
    first = answer()  # lazy imports, thread pools
    start = time.process_time()
    found = answer()
    seconds = time.process_time() - start
    assert found == first
    report = {"seconds": seconds, "megabytes": _peak() - before, "answer": found}
    print(json.dumps(report))


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]))
