"""Nanoseconds per value of `Monitor.log`, next to peers and to what the machine can read.

    python benchmarks/bench_log.py [--rows 5000000] [--runs 5]

Every number is the median of several runs, data in memory, by the clock on the wall and by that of
the processor, which other work on the machine stretches less. Before anything is timed the
counts are compared: ours with NumPy's, and each peer's with ours. A peer that is not installed is
left out; one whose counts differ stops the program.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # peers run on one core, as the first rows do

import numpy as np
import pyarrow as pa
from data import CARDINALITIES, FLOATS, drift_job
from numpy.typing import NDArray

import tidegauge as tg

Counts = NDArray[np.int64]
Times = tuple[float, float]  # wall, processor; seconds
PEER_ROWS = 1_000_000  # peers take ten times as long; a value costs them the same at any length


def main() -> None:
    """Assert, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    print_machine()
    reference = list(drift_job("reference", options.rows // 10))
    current = list(drift_job("current", options.rows))
    print(f"\n{options.rows:,} rows in batches of {current[0].num_rows:,}, {options.runs} runs\n")
    edges = check_answers(reference, current)

    print_row("job", "ns/value", "of CPU", "seconds")
    for name, batches in jobs(current).items():
        fitted = fit(select(reference, batches[0].schema.names))
        n_values = sum(batch.num_rows * batch.num_columns for batch in batches)
        for threads in (1, 2):
            times = median(lambda: log(fitted, batches, threads), options.runs)  # noqa: B023
            print_times(f"{name}, {threads} thread{'s' * (threads > 1)}", times, n_values)

    sample = [batch.slice(0, PEER_ROWS) for batch in current[:1]]
    columns = {name: sample[0][name].to_numpy() for name in FLOATS}
    n_values = sum(map(len, columns.values()))
    print()
    print_row("one pass over the 20 float64 columns, one core", "ns/value", "of CPU", "seconds")
    for name, answer in peers(columns, edges).items():
        print_times(name, median(answer, options.runs), n_values)


def jobs(current: Sequence[pa.RecordBatch]) -> dict[str, list[pa.RecordBatch]]:
    """What is logged: everything, and each kind of column alone."""
    floats = select(current, FLOATS)
    narrow = pa.schema([(name, pa.float32()) for name in FLOATS])
    return {
        "20 float64 + 4 dictionary": list(current),
        "20 float64": floats,
        "20 float32": [batch.cast(narrow) for batch in floats],
        "4 dictionary": select(current, CARDINALITIES),
    }


def select(batches: Sequence[pa.RecordBatch], names: Sequence[str]) -> list[pa.RecordBatch]:
    """The same rows, these columns."""
    return [batch.select(list(names)) for batch in batches]


def fit(batches: Sequence[pa.RecordBatch]) -> tg.Reference:
    """A reference over all columns; nothing but features."""
    return tg.Reference.fit(batches, tg.Schema(features=batches[0].schema.names))


def log(reference: tg.Reference, batches: Sequence[pa.RecordBatch], threads: int) -> tg.Monitor:
    """The job itself: a new monitor that counts every batch."""
    monitor = tg.Monitor(reference, threads=threads)
    for batch in batches:
        monitor.log(batch)
    return monitor


def check_answers(
    reference: Sequence[pa.RecordBatch], current: Sequence[pa.RecordBatch]
) -> dict[str, NDArray[np.float64]]:
    """Assert that one and two threads count what NumPy counts; the edges of each float column."""
    fitted = fit(reference)
    table = pa.Table.from_batches(current)
    edges = {}
    for threads in (1, 2):
        for drawn in log(fitted, current, threads).report().distributions:
            column = table[drawn.column]
            if drawn.edges is not None:
                edges[drawn.column] = drawn.edges
                expected = count_sorted(column.to_numpy(), drawn.edges)
            else:
                expected = count_labels(column, drawn.labels or ())
            np.testing.assert_array_equal(drawn.current, expected, err_msg=drawn.column)
    return edges


def count_sorted(values: NDArray[np.float64], edges: NDArray[np.float64]) -> Counts:
    """The hand-written script: a binary search per value; the outer bins are open."""
    inner = np.searchsorted(edges[1:-1], values[~np.isnan(values)], side="right")
    return np.bincount(inner, minlength=len(edges) - 1)


def count_labels(column: pa.ChunkedArray, labels: Sequence[str]) -> Counts:
    """Rows of each label; the last label takes the rest."""
    counted = {pair["values"].as_py(): pair["counts"].as_py() for pair in column.value_counts()}
    total = sum(count for value, count in counted.items() if value is not None)
    named = [counted.get(label, 0) for label in labels[:-1]]
    return np.array([*named, total - sum(named)])


def peers(
    columns: dict[str, NDArray[np.float64]], edges: dict[str, NDArray[np.float64]]
) -> dict[str, Callable[[], object]]:
    """Functions that each take one pass over the columns, after a look at what they count."""
    found: dict[str, Callable[[], object]] = {
        "read: numpy sum": lambda: [values.sum() for values in columns.values()],
    }
    present = {name: values[~np.isnan(values)] for name, values in columns.items()}

    def numpy_uniform() -> list[Counts]:
        return [np.histogram(values, 50)[0] for values in present.values()]

    def numpy_sorted() -> list[Counts]:
        return [count_sorted(values, edges[name]) for name, values in columns.items()]

    assert [counts.sum() for counts in numpy_uniform()] == [len(v) for v in present.values()]
    found["numpy.histogram, 50 uniform bins, NaN removed before"] = numpy_uniform
    found["numpy searchsorted + bincount, the report's bins"] = numpy_sorted
    expected = numpy_sorted()

    for make in (boost_peer, polars_peer, duckdb_peer):
        try:
            name, answer = make(columns, edges)
        except ImportError:
            continue
        for counts, wanted in zip(answer(), expected, strict=True):
            np.testing.assert_array_equal(counts, wanted, err_msg=name)
        found[name] = answer
    return found


Peer = tuple[str, Callable[[], list[Counts]]]


def boost_peer(
    columns: dict[str, NDArray[np.float64]], edges: dict[str, NDArray[np.float64]]
) -> Peer:
    """boost-histogram, variable bins; NaN falls into its overflow bin, so the last edge is inf."""
    import boost_histogram as bh

    def answer() -> list[Counts]:
        counted = []
        for name, values in columns.items():
            axis = bh.axis.Variable([-np.inf, *edges[name][1:-1], np.inf])
            counted.append(bh.Histogram(axis, storage=bh.storage.Int64()).fill(values).view())
        return counted

    return "boost-histogram, the report's bins", answer


def polars_peer(
    columns: dict[str, NDArray[np.float64]], edges: dict[str, NDArray[np.float64]]
) -> Peer:
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

    return "polars cut + value_counts, the report's bins", answer


def duckdb_peer(
    columns: dict[str, NDArray[np.float64]], edges: dict[str, NDArray[np.float64]]
) -> Peer:
    """DuckDB, a native table; its bins are closed above, so the edges move down by one double."""
    import duckdb

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

    return "DuckDB histogram, the report's bins", answer


def median(job: Callable[[], object], runs: int) -> Times:
    """Median wall and processor time after one run that warms up."""
    job()
    walls, processors = [], []
    for _ in range(runs):
        wall, processor = time.perf_counter(), time.process_time()
        job()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return statistics.median(walls), statistics.median(processors)


def print_times(title: str, times: Times, n_values: int) -> None:
    """Nanoseconds per value by either clock, and seconds of wall time."""
    wall, processor = (f"{seconds / n_values * 1e9:.2f}" for seconds in times)
    print_row(title, wall, processor, f"{times[0]:.3f}")


def print_row(*cells: str) -> None:
    """One line of the table."""
    print(f"{cells[0]:58}" + "".join(f"{cell:>10}" for cell in cells[1:]))


def print_machine() -> None:
    """What the numbers were measured on and with."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")
    installed = {name: version(name) for name in ("numpy", "boost-histogram", "polars", "duckdb")}
    print(f"{model or platform.processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(
        f"instructions: {tg._core.instruction_set()}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {number}" for name, number in installed.items() if number)
    )


def version(package: str) -> str:
    """Version of an installed package, or nothing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
