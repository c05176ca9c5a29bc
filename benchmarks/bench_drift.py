"""What counting for drift and integrity costs, next to peers and to a plain read, as one table.

    python benchmarks/bench_drift.py [--quick] [--only PART ...] [--rows 5000000] [--runs 5]

Every number is the median of several runs, data in memory: by the clock on the wall, and by that of
the processor, which other work on the machine stretches less. Counts are compared before anything
is timed: ours with NumPy's, each peer's with ours. A peer that cannot be had is named with the
reason; one whose answer differs stops the program.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # peers run on one core, as the first rows do

import numpy as np
import peers
import pyarrow as pa
import pyarrow.parquet as pq
from data import CARDINALITIES, CHUNK, FLOATS, NORMAL, drift_job, wide_job, with_segments
from numpy.typing import NDArray

import tidegauge as tg

ROOT = Path(__file__).parents[1]
Batches = list[pa.RecordBatch]
Times = tuple[float, float]  # wall, processor; seconds
PEER_ROWS = 1_000_000  # peers take long; a value costs them the same at any length
APART_ROWS = 100_000  # whole tools take longer
VALUES = 20_000_000  # of the tables with many columns
HEADS = ("job", "rows", "ns a value", "of the processor", "M rows a second", "more memory, MiB")


def main() -> None:
    """Assert, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a million rows, three runs")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    if options.quick:
        options.rows, options.runs = 1_000_000, 3
    print_machine()
    job = Job(options)
    check_answers(job.reference, job.current)
    print_row(*HEADS)
    print_row("---", *(["--:"] * (len(HEADS) - 1)))
    for part in options.only:
        PARTS[part](job)


class Job:
    """The common job: reference and current data, and how often to run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.quick, self.rows, self.runs = options.quick, options.rows, options.runs
        self.reference = list(drift_job("reference", self.rows // 10))
        self.current = list(drift_job("current", self.rows))

    def time(self, title: str, reference: Batches, current: Batches, **roles: object) -> None:
        """Log with one thread and with two."""
        fitted = fit(reference, **roles)
        columns = len(fitted.schema.declared)
        n_rows = sum(batch.num_rows for batch in current)
        for threads in (1, 2):
            times = median(lambda: log(fitted, current, threads), self.runs)  # noqa: B023
            name = f"{title}, {threads} thread{'s' * (threads > 1)}"
            print_times(name, times, n_rows, columns)


# Ours.


def kinds(job: Job) -> None:
    """Everything, and each kind of column alone."""
    floats, narrow = FLOATS, pa.schema([(name, pa.float32()) for name in FLOATS])
    texts = pa.schema([(name, pa.string()) for name in CARDINALITIES])
    chosen: dict[str, Callable[[Batches], Batches]] = {
        "20 float64 + 4 dictionary": lambda batches: batches,
        "20 float64": lambda batches: select(batches, floats),
        "20 float32": lambda batches: [b.cast(narrow) for b in select(batches, floats)],
        "4 dictionary": lambda batches: select(batches, CARDINALITIES),
        "4 string": lambda batches: [b.cast(texts) for b in select(batches[:2], CARDINALITIES)],
    }
    for title, choose in chosen.items():
        job.time(title, choose(job.reference), choose(job.current))


def edges(job: Job) -> None:
    """Edges that a user insists on."""
    reference, current = (select(side, NORMAL) for side in (job.reference, job.current))
    for n_bins in (10, 64, 1024):
        given = {name: quantile_edges(reference[0][name].to_numpy(), n_bins) for name in NORMAL}
        features = {name: tg.numeric(edges=inner) for name, inner in given.items()}
        title = f"10 float64, {n_bins:,} bins with exact edges"
        job.time(title, reference, current, features=features)


def segments(job: Job) -> None:
    """Sets of segments, each a cell for every row."""
    for sets in ((), ("s0",), ("s0", "s1", "s2", "s3", *PAIRS)):
        reference, current = (
            [with_segments(batch) for batch in select(side, FLOATS)]
            for side in (job.reference, job.current)
        )
        title = f"20 float64, {len(sets)} segment set{'s' * (len(sets) != 1)} of 4 to 16 values"
        job.time(title, reference, current, features=list(FLOATS), segments=list(sets))


PAIRS = (("s0", "s1"), ("s1", "s2"), ("s2", "s3"), ("s0", "s3"))


def rows(job: Job) -> None:
    """From few rows to many, made and dropped a chunk at a time, so that memory is no limit."""
    fitted = fit(job.reference)
    columns = len(FLOATS) + len(CARDINALITIES)
    for n_rows in (10**5, 10**6, *(() if job.quick else (10**7, 10**8))):
        monitor, wall, processor = tg.Monitor(fitted, threads=1), 0.0, 0.0
        for batch in drift_job("current", n_rows):
            start = time.perf_counter(), time.process_time()
            monitor.log(batch)
            wall, processor = (
                wall + time.perf_counter() - start[0],
                processor + time.process_time() - start[1],
            )
        more = peak_of_rows(n_rows, "log") - peak_of_rows(n_rows, "read")
        print_times("24 columns, 1 thread, once", (wall, processor), n_rows, columns, more)


def columns(job: Job) -> None:
    """From few columns to many, the same number of values."""
    for n_columns in (10, 100, 1000, *(() if job.quick else (10_000,))):
        reference, current = (
            [wide_job(part, VALUES // (10 if job.quick else 1) // n_columns, n_columns)]
            for part in ("reference", "current")
        )
        job.time(f"{n_columns:,} float64 columns", reference, current)


# The limit, and peers.


def limit(job: Job) -> None:
    """Read every value once: what the memory allows one core."""
    arrays = [batch[name].to_numpy() for batch in job.current for name in FLOATS]
    n_rows = sum(batch.num_rows for batch in job.current)
    times = median(lambda: [array.sum() for array in arrays], job.runs)
    print_times("limit: NumPy sum of 20 float64", times, n_rows, len(FLOATS))


def libraries(job: Job) -> None:
    """One coarse histogram of the 20 float64 columns by libraries that can be called from here."""
    sample = job.current[0].slice(0, PEER_ROWS)
    values = {name: sample[name].to_numpy() for name in FLOATS}
    known = [
        (np.count_nonzero(~np.isnan(column)), np.count_nonzero(column == np.nanmax(column)))
        for column in values.values()
    ]
    for n_bins in (10, 64):
        edges = {
            name: np.concatenate([[-np.inf], quantile_edges(column, n_bins), [np.inf]])
            for name, column in values.items()
        }
        expected = peers.numpy_sorted(values, edges)[1]()
        made = [make for make in peers.SAME_BINS if n_bins == 10 or make is not peers.polars]
        for make in (*made, *(peers.EQUAL_WIDTHS if n_bins == 10 else ())):
            try:
                title, answer = make(values, edges)
            except ImportError as error:
                print_row(f"{make.__name__}: {error}", *([""] * (len(HEADS) - 1)))
                continue
            counted = answer()
            if make in peers.SAME_BINS:
                title += f", {n_bins} quantile bins"
                for counts, wanted in zip(counted, expected, strict=True):
                    np.testing.assert_array_equal(counts, wanted, err_msg=title)
            else:  # the largest value may count as beyond the last bin
                for counts, (present, largest) in zip(counted, known, strict=True):
                    assert present - largest <= counts.sum() <= present, title
            print_times(title, median(answer, job.runs), sample.num_rows, len(FLOATS))


def tools(job: Job) -> None:
    """Whole tools, from a table to drift values, in environments of their own."""
    n_rows = APART_ROWS // (4 if job.quick else 1)
    reference, current = (
        [side[0].slice(0, n)] for side, n in ((job.reference, n_rows // 10), (job.current, n_rows))
    )
    fitted = fit(reference)
    measured = log(fitted, current, 1).metrics(list(tg.metrics.names("drift"))).to_pylist()
    ours = {(row["metric"], row["column"]): row["value"] for row in measured}
    with TemporaryDirectory() as folder:
        for side, batches in (("reference", reference), ("current", current)):
            pq.write_table(pa.Table.from_batches(batches), Path(folder) / f"{side}.parquet")
        for name, title in peers.TITLES.items():
            found = peers.run_apart(name, Path(folder), ROOT)
            if isinstance(found, str):
                print_row(f"{title}: {found}", *([""] * (len(HEADS) - 1)))
                continue
            check_drift(name, found["answer"], ours, current[0])
            times = found["seconds"], found["seconds"]
            print_times(title, times, n_rows, current[0].num_columns, found["megabytes"])
    times = median(lambda: log(fitted, current, 1).metrics(), job.runs)
    print_times("ours, log and all metrics, the same rows", times, n_rows, current[0].num_columns)


def check_drift(
    name: str, answer: dict[str, float], ours: dict[tuple[str, str], float], rows: pa.RecordBatch
) -> None:
    """Hold what a tool answered against our own values."""
    for column, value in answer.items():
        if name == "nannyml":  # exact up to 10,000 rows of reference
            assert abs(value - ours["kolmogorov_smirnov", column]) < 5e-3, (column, value)
        elif name == "evidently":
            wanted = ours["normalized_wasserstein_distance", column]
            assert abs(value - wanted) < 0.02 * max(wanted, 0.1), (column, value, wanted)
        else:
            assert value == np.nanmax(rows[column].to_numpy()), (column, value)
    assert len(answer) == len(FLOATS), sorted(answer)


PARTS = {
    part.__name__: part for part in (kinds, edges, segments, rows, columns, limit, libraries, tools)
}


# What all of them need.


def select(batches: Sequence[pa.RecordBatch], names: Sequence[str]) -> Batches:
    """The same rows, these columns."""
    return [batch.select(list(names)) for batch in batches]


def fit(batches: Batches, **roles: object) -> tg.Reference:
    """A reference over all columns; nothing but features unless other roles are given."""
    named = {"features": batches[0].schema.names, **roles}
    return tg.Reference.fit(batches, tg.Schema(**named))  # type: ignore[arg-type]


def log(reference: tg.Reference, batches: Batches, threads: int) -> tg.Monitor:
    """The job itself: a new monitor that counts every batch."""
    monitor = tg.Monitor(reference, threads=threads)
    for batch in batches:
        monitor.log(batch)
    return monitor


def quantile_edges(values: NDArray[np.float64], n_bins: int) -> NDArray[np.float64]:
    """Inner edges of bins with equal shares."""
    levels = np.arange(1, n_bins) / n_bins
    return np.unique(np.nanquantile(values, levels))


def check_answers(reference: Batches, current: Batches) -> None:
    """Assert that one and two threads count what NumPy counts."""
    fitted = fit(reference)
    table = pa.Table.from_batches(current)
    for threads in (1, 2):
        for drawn in log(fitted, current, threads).report().distributions:
            column = table[drawn.column]
            if drawn.edges is not None:
                expected = peers.count_sorted(column.to_numpy(), drawn.edges)
            else:
                expected = count_labels(column, drawn.labels or ())
            np.testing.assert_array_equal(drawn.current, expected, err_msg=drawn.column)


def count_labels(column: pa.ChunkedArray, labels: Sequence[str]) -> NDArray[np.int64]:
    """Rows of each label; the last label takes the rest."""
    counted = {pair["values"].as_py(): pair["counts"].as_py() for pair in column.value_counts()}
    total = sum(count for value, count in counted.items() if value is not None)
    named = [counted.get(label, 0) for label in labels[:-1]]
    return np.array([*named, total - sum(named)])


def peak_of_rows(n_rows: int, what: str) -> float:
    """Peak memory, in MiB, of a process that makes the rows and reads or logs them."""
    command = [sys.executable, __file__, "--peak", what, str(n_rows)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(run.stdout)


def print_peak(what: str, n_rows: int) -> None:
    """The process behind `peak_of_rows`; a few chunks are enough, every later one is like them."""
    monitor = tg.Monitor(fit(list(drift_job("reference", CHUNK // 10))), threads=1)
    for batch in few(drift_job("current", n_rows)):
        if what == "log":
            monitor.log(batch)
        else:
            batch.validate()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def few(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The first batches."""
    for _, batch in zip(range(5), batches, strict=False):
        yield batch


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


def print_times(
    title: str, times: Times, n_rows: int, n_columns: int, more: float | None = None
) -> None:
    """A line of the table."""
    wall, processor = (f"{seconds / n_rows / n_columns * 1e9:,.2f}" for seconds in times)
    memory = "" if more is None else f"{max(more, 0):,.0f}"
    print_row(title, f"{n_rows:,}", wall, processor, f"{n_rows / times[0] / 1e6:,.2f}", memory)


def print_row(*cells: str) -> None:
    """One line of a markdown table."""
    print(f"| {' | '.join(cells)} |", flush=True)


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
        + "\n"
    )


def version(package: str) -> str:
    """Version of an installed package, or nothing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print_peak(sys.argv[2], int(sys.argv[3]))
    else:
        main()
