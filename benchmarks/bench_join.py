"""Nanoseconds an event of the join of predictions with delayed labels, next to peers and memory.

    python benchmarks/bench_join.py [--quick] [--only limit pending batches bulk] [--rows] [--runs]

The job: predictions over 24 hours, labels for 80 % of them after an exponential delay of two hours
on average, hourly windows by 8 segments; for each cell the confusion counts at 0.5, AUC from 1,000
score bins, log loss. `batches` sends the events in the order of their time, 100,000 at once, and
asks for the metrics after every one; `bulk` sends everything at once and asks once. `pending` fills
the monitor and labels some of what waits. Every number is CPU time of one thread, the median of the
runs. Before a time is printed the answer is compared with NumPy's; a peer whose answer differs
stops the program. The dict gets a tenth of the rows: an event costs it the same.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

os.environ["POLARS_MAX_THREADS"] = "1"
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

import tidegauge as tg

HOUR = 3_600_000_000
START = 1_700_000_000_000_000 // HOUR * HOUR
HOURS = 24
SEGMENTS = 8
BINS = 1000
BATCH = 100_000
LATENESS = 24 * HOUR
SHAPE = (HOURS, SEGMENTS, BINS, 2)

Counts = NDArray[np.int64]


# The job.


@dataclass(frozen=True)
class Job:
    """Predictions in the order of their time, labels in the order of theirs."""

    predictions: pa.Table  # id, t, g, p
    labels: pa.Table  # id, y, t
    of_label: NDArray[np.int64]  # prediction of each label

    @property
    def n_events(self) -> int:
        return self.predictions.num_rows + self.labels.num_rows

    def batches(self) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Events in the order of their time, predictions and labels of each batch."""
        times = [
            table["t"].cast(pa.int64()).to_numpy() for table in (self.predictions, self.labels)
        ]
        order = np.argsort(np.concatenate(times), kind="stable")
        is_label = order >= len(times[0])
        p = y = 0
        for start in range(0, len(order), BATCH):
            n_labels = int(np.count_nonzero(is_label[start : start + BATCH]))
            n = len(is_label[start : start + BATCH]) - n_labels
            yield self.predictions.slice(p, n), self.labels.slice(y, n_labels)
            p, y = p + n, y + n_labels


def make_job(n: int, ids: str, seed: int = 0) -> Job:
    """Draw the events; `ids` are "uint64" or "uuid"."""
    random = np.random.default_rng(seed)
    times = START + np.sort(random.integers(0, HOURS * HOUR, n))
    score = random.random(n)
    delay = random.exponential(2 * HOUR, n).astype(np.int64)
    labelled = np.flatnonzero(random.random(n) < 0.8)
    labelled = labelled[np.argsort(times[labelled] + delay[labelled], kind="stable")]
    truth = (random.random(n) < score).astype(np.int8)
    keys = uuids(random, n) if ids == "uuid" else spread_ids(random.permutation(n))
    names = pa.array([f"s{i}" for i in range(SEGMENTS)])
    segments = pa.DictionaryArray.from_arrays(
        random.integers(0, SEGMENTS, n).astype(np.int8), names
    )
    stamp = pa.timestamp("us", "UTC")
    return Job(
        pa.table({"id": keys, "t": pa.array(times, stamp), "g": segments, "p": score}),
        pa.table(
            {
                "id": keys.take(pa.array(labelled)),
                "y": truth[labelled],
                "t": pa.array(times[labelled] + delay[labelled], stamp),
            }
        ),
        labelled,
    )


def uuids(random: np.random.Generator, n: int) -> pa.Array:
    """Random UUIDs in their canonical form."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    text = np.full((n, 36), ord("-"), np.uint8)
    places = [i for i in range(36) if i not in (8, 13, 18, 23)]
    text[:, places] = digits[random.integers(0, 16, (n, 32), dtype=np.uint8)]
    offsets = (36 * np.arange(n + 1)).astype(np.int32 if 36 * n < 2**31 else np.int64)
    kind = pa.StringArray if offsets.dtype == np.int32 else pa.LargeStringArray
    return kind.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(text.tobytes()))


# The answer, from counts by (hour, segment, score bin, label) and the sums of log loss.


@dataclass
class Answer:
    """Confusion counts, AUC and mean log loss of every cell."""

    confusion: Counts  # [hour, segment, label, decision]
    auc: NDArray[np.float64]
    log_loss: NDArray[np.float64]

    @classmethod
    def of(cls, counts: Counts, losses: NDArray[np.float64]) -> Answer:
        confusion = np.stack(
            [counts[:, :, : BINS // 2].sum(axis=2), counts[:, :, BINS // 2 :].sum(axis=2)], axis=-1
        )
        negatives, positives = counts[..., 0].astype(float), counts[..., 1].astype(float)
        below = np.cumsum(negatives, axis=-1) - negatives / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            auc = (positives * below).sum(axis=-1)
            auc /= positives.sum(axis=-1) * negatives.sum(axis=-1)
            return cls(confusion, auc, losses / counts.sum(axis=(2, 3)))

    def check(self, other: Answer) -> None:
        assert np.array_equal(self.confusion, other.confusion)
        assert np.allclose(self.log_loss, other.log_loss, rtol=1e-9, equal_nan=True)
        # Other score bins move the AUC by less than this.
        many = self.confusion.sum(axis=(2, 3)) > 500
        assert np.abs(self.auc - other.auc)[many].max(initial=0) < 2e-3


def expected(job: Job) -> Answer:
    """NumPy's answer; it is told which prediction a label belongs to."""
    predictions = job.predictions.take(pa.array(job.of_label))
    times = predictions["t"].cast(pa.int64()).to_numpy()
    score, truth = predictions["p"].to_numpy(), job.labels["y"].to_numpy()
    timely = job.labels["t"].cast(pa.int64()).to_numpy() - times <= LATENESS
    segment = predictions["g"].combine_chunks().indices.to_numpy()
    cells = (
        (times - START) // HOUR,
        segment,
        np.minimum((score * BINS).astype(np.int64), BINS - 1),
        truth,
    )
    counts = np.zeros(SHAPE, dtype=np.int64)
    np.add.at(counts, tuple(each[timely] for each in cells), 1)
    losses = np.zeros(SHAPE[:2])
    loss = -np.log(np.where(truth == 1, score, 1 - score))
    np.add.at(losses, (cells[0][timely], cells[1][timely]), loss[timely])
    return Answer.of(counts, losses)


# Who does it: `log` and `label` take tables, `answer` gives the metrics.


class Joiner(Protocol):
    def log(self, predictions: pa.Table) -> None: ...

    def label(self, labels: pa.Table) -> None: ...

    def refresh(self) -> Any: ...

    def answer(self) -> Answer: ...


class Ours:
    """`Monitor.log`, `Monitor.label` and `Monitor.metrics`."""

    METRICS = ("true_positives", "false_positives", "false_negatives", "true_negatives")

    def __init__(self, job: Job) -> None:
        self.monitor = tg.Monitor(
            reference_of(job), window="1h", lateness="24h", threads=1, max_pending=10**9
        )

    def log(self, predictions: pa.Table) -> None:
        self.monitor.log(predictions)

    def label(self, labels: pa.Table) -> None:
        self.monitor.label(labels)

    def refresh(self) -> pa.Table:
        return self.monitor.metrics(["accuracy", "roc_auc", "log_loss"])

    def answer(self) -> Answer:
        confusion = np.zeros((HOURS, SEGMENTS, 2, 2), dtype=np.int64)
        auc, loss = (np.full((HOURS, SEGMENTS), np.nan) for _ in range(2))
        place = dict(zip(self.METRICS, ((1, 1), (0, 1), (1, 0), (0, 0)), strict=True))
        table = self.monitor.metrics([*self.METRICS, "roc_auc", "log_loss"])
        for row in table.to_pylist():
            if row["segment"] == "all" or row["value"] is None:
                continue
            hour = (int(row["window_start"].timestamp()) * 1_000_000 - START) // HOUR
            cell = (hour, int(row["segment"].removeprefix("g=s")))
            if row["metric"] in place:
                confusion[cell][place[row["metric"]]] = int(row["value"])
            else:
                (auc if row["metric"] == "roc_auc" else loss)[cell] = row["value"]
        return Answer(confusion, auc, loss)


def reference_of(job: Job) -> tg.Reference:
    schema = tg.Schema(
        task="binary",
        prediction_id="id",
        timestamp="t",
        features={},
        prediction_score="p",
        label="y",
        segments=["g"],
    )
    rows = job.predictions.slice(0, 10_000)
    return tg.Reference.fit(rows.append_column("y", pa.array(np.arange(rows.num_rows) % 2)), schema)


class Counting:
    """What the peers share: counts that the metrics are worked out from."""

    def __init__(self, job: Job) -> None:
        self.counts = np.zeros(SHAPE, dtype=np.int64)
        self.losses = np.zeros(SHAPE[:2])

    def refresh(self) -> Answer:
        return Answer.of(self.counts, self.losses)

    def answer(self) -> Answer:
        return self.refresh()

    def add(self, cells: tuple[Any, ...], counts: Any, losses: Any) -> None:
        """Add grouped rows: hour, segment, bin, label; their number and sum of losses."""
        cells = tuple(np.asarray(each).astype(np.int64) for each in cells)
        np.add.at(self.counts, cells, np.asarray(counts).astype(np.int64))
        np.add.at(self.losses, cells[:2], np.asarray(losses))


class Dict(Counting):
    """A Python dict of what waits, and loops."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.waiting: dict[Any, tuple[int, int, float]] = {}

    def log(self, predictions: pa.Table) -> None:
        times = predictions["t"].cast(pa.int64()).to_pylist()
        segments = predictions["g"].combine_chunks().indices.to_pylist()
        scores = predictions["p"].to_pylist()
        waiting = self.waiting
        for key, time_, segment, score in zip(
            predictions["id"].to_pylist(), times, segments, scores, strict=True
        ):
            if key not in waiting:
                waiting[key] = (time_, segment, score)

    def label(self, labels: pa.Table) -> None:
        times = labels["t"].cast(pa.int64()).to_pylist()
        rows = zip(labels["id"].to_pylist(), labels["y"].to_pylist(), times, strict=True)
        found = []
        for key, truth, came in rows:
            entry = self.waiting.pop(key, None)
            if entry is not None and came - entry[0] <= LATENESS:
                found.append((*entry, truth))
        if not found:
            return
        time_, segment, score, truth_ = (np.array(each) for each in zip(*found, strict=True))
        bins = np.minimum((score * BINS).astype(np.int64), BINS - 1)
        loss = -np.log(np.where(truth_ == 1, score, 1 - score))
        self.add(((time_ - START) // HOUR, segment, bins, truth_), np.ones(len(found)), loss)


class Polars(Counting):
    """A frame of what was predicted; each batch of labels is joined with it."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.predictions: pl.DataFrame | None = None

    def log(self, predictions: pa.Table) -> None:
        codes = predictions["g"].combine_chunks().indices
        plain = predictions.drop_columns(["g"]).append_column("segment", codes)
        part = pl.from_arrow(plain).with_columns(
            hour=(pl.col("t").dt.epoch("us") - START) // HOUR,
            bin=(pl.col("p") * BINS).cast(pl.Int64).clip(0, BINS - 1),
        )
        part = part.select("id", "t", "hour", "segment", "bin", "p")
        self.predictions = (
            part if self.predictions is None else pl.concat([self.predictions, part], rechunk=False)
        )

    def label(self, labels: pa.Table) -> None:
        found = pl.from_arrow(labels).rename({"t": "came"}).join(self.predictions, on="id")
        found = found.filter((pl.col("came") - pl.col("t")).dt.total_microseconds() <= LATENESS)
        right = pl.when(pl.col("y") == 1).then(pl.col("p")).otherwise(1 - pl.col("p"))
        grouped = found.group_by("hour", "segment", "bin", "y").agg(
            n=pl.len(), loss=(-right.log()).sum()
        )
        cells = tuple(grouped[name].to_numpy() for name in ("hour", "segment", "bin", "y"))
        self.add(cells, grouped["n"].to_numpy(), grouped["loss"].to_numpy())


class DuckDB(Counting):
    """A table of what was predicted; each batch of labels is joined with it."""

    QUERY = f"""
        SELECT hour, segment, bin, y, count(*) AS n,
               sum(-ln(CASE WHEN y = 1 THEN p ELSE 1 - p END)) AS loss
        FROM batch JOIN predictions USING (id)
        WHERE epoch_us(batch.t) - predictions.t <= {LATENESS} GROUP BY ALL"""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.connection = duckdb.connect(config={"threads": 1})
        kind = "UBIGINT" if pa.types.is_uint64(job.predictions["id"].type) else "UUID"
        self.connection.execute(
            f"CREATE TABLE predictions (id {kind}, t BIGINT, hour INT, segment INT, "
            "bin INT, p DOUBLE)"
        )
        self.key = "id" if kind == "UBIGINT" else "id::UUID AS id"

    def log(self, predictions: pa.Table) -> None:
        segments = predictions["g"].combine_chunks().indices
        batch = predictions.drop_columns(["g"]).append_column("segment", segments)
        self.connection.register("made", batch)
        self.connection.execute(
            f"""INSERT INTO predictions SELECT {self.key}, epoch_us(t),
                (epoch_us(t) - {START}) // {HOUR}, segment,
                least(floor(p * {BINS})::INT, {BINS - 1}), p FROM made"""
        )

    def label(self, labels: pa.Table) -> None:
        self.connection.register("arrived", labels)
        self.connection.execute(
            f"CREATE OR REPLACE TEMP VIEW batch AS SELECT {self.key}, y, t FROM arrived"
        )
        found = self.connection.execute(self.QUERY).fetchnumpy()
        cells = tuple(found[name] for name in ("hour", "segment", "bin", "y"))
        self.add(cells, found["n"], found["loss"])


class Pandas(Counting):
    """One merge of everything."""

    def log(self, predictions: pa.Table) -> None:
        self.predictions = pd.DataFrame(
            {
                "id": predictions["id"].to_pandas(),
                "t": predictions["t"].cast(pa.int64()).to_numpy(),
                "segment": predictions["g"].combine_chunks().indices.to_numpy(),
                "p": predictions["p"].to_numpy(),
            }
        )

    def label(self, labels: pa.Table) -> None:
        came = pd.DataFrame(
            {
                "id": labels["id"].to_pandas(),
                "y": labels["y"].to_numpy(),
                "came": labels["t"].cast(pa.int64()).to_numpy(),
            }
        )
        found = came.merge(self.predictions, on="id")
        found = found[found["came"] - found["t"] <= LATENESS]
        self.add_rows(found["t"], found["segment"], found["p"], found["y"])

    def add_rows(self, times: Any, segments: Any, scores: Any, truths: Any) -> None:
        """Group joined rows, in NumPy."""
        times, segments, scores, truths = map(np.asarray, (times, segments, scores, truths))
        bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
        code = np.ravel_multi_index(((times - START) // HOUR, segments, bins, truths), SHAPE)
        self.counts += np.bincount(code, minlength=self.counts.size).reshape(SHAPE)
        loss = -np.log(np.where(truths == 1, scores, 1 - scores))
        cell = ((times - START) // HOUR) * SEGMENTS + segments
        self.losses += np.bincount(cell, loss, HOURS * SEGMENTS).reshape(SHAPE[:2])


class Arrow(Pandas):
    """One `Table.join` of everything."""

    def log(self, predictions: pa.Table) -> None:
        segments = predictions["g"].combine_chunks().indices
        times = predictions["t"].cast(pa.int64())
        self.table = pa.table(
            {"id": predictions["id"], "t": times, "segment": segments, "p": predictions["p"]}
        )

    def label(self, labels: pa.Table) -> None:
        came = pa.table(
            {"id": labels["id"], "y": labels["y"], "came": labels["t"].cast(pa.int64())}
        )
        found = came.join(self.table, "id", join_type="inner", use_threads=False)
        found = found.filter(pc.less_equal(pc.subtract(found["came"], found["t"]), LATENESS))
        self.add_rows(*(found[name].to_numpy() for name in ("t", "segment", "p", "y")))


# Measuring.


@dataclass
class Times:
    """CPU seconds of each batch."""

    batches: list[float]

    @property
    def total(self) -> float:
        return sum(self.batches)


def in_batches(make: Callable[[Job], Joiner], job: Job) -> tuple[Joiner, Times]:
    joiner, seconds = make(job), []
    for predictions, labels in list(job.batches()):
        start = time.process_time()
        if predictions.num_rows:
            joiner.log(predictions)
        if labels.num_rows:
            joiner.label(labels)
        joiner.refresh()
        seconds.append(time.process_time() - start)
    return joiner, Times(seconds)


def in_bulk(make: Callable[[Job], Joiner], job: Job) -> tuple[Joiner, Times]:
    joiner = make(job)
    start = time.process_time()
    joiner.log(job.predictions)
    joiner.label(job.labels)
    joiner.refresh()
    return joiner, Times([time.process_time() - start])


def measure(
    name: str,
    run: Callable[[Callable[[Job], Joiner], Job], tuple[Joiner, Times]],
    make: Callable[[Job], Joiner],
    job: Job,
    runs: int,
) -> None:
    """Run, compare the answer, print one row."""
    truth, kept = expected(job), []
    for _ in range(runs):
        joiner, times = run(make, job)
        truth.check(joiner.answer())
        kept.append(times)
    each = statistics.median(times.total for times in kept) / job.n_events * 1e9
    row = f"{name:26}{job.predictions.num_rows:>12,}{each:>12,.0f}"
    if len(kept[0].batches) > 1:
        batches = 1e3 * np.median([times.batches for times in kept], axis=0)
        row += f"{np.median(batches):>12.1f}{np.quantile(batches, 0.99):>10.1f}"
    print(row, flush=True)


def bench_batches(rows: int, runs: int) -> None:
    sizes = {Ours: 1, DuckDB: 1, Polars: 1, Dict: 10}
    for ids in ("uint64", "uuid"):
        print(f"\nbatches of {BATCH:,} events, metrics after each, {ids} ids")
        print(f"{'':26}{'predictions':>12}{'ns/event':>12}{'ms p50':>12}{'ms p99':>10}")
        for make, share in sizes.items():
            measure(make.__name__, in_batches, make, make_job(rows // share, ids), runs)


def bench_bulk(rows: int, runs: int) -> None:
    sizes = {Ours: 1, Polars: 1, DuckDB: 1, Pandas: 2, Arrow: 2, Dict: 10}
    for ids in ("uint64", "uuid"):
        print(f"\neverything at once, {ids} ids")
        print(f"{'':26}{'predictions':>12}{'ns/event':>12}")
        for make, share in sizes.items():
            measure(make.__name__, in_bulk, make, make_job(rows // share, ids), runs)


def bench_pending(sizes: list[int]) -> None:
    """Fill a monitor, then label some of what waits, in batches."""
    print("\npredictions that wait, uint64 ids: nothing but Monitor.log, then Monitor.label")
    heads = ("bytes each", "log ns", "ms p50", "ms p99", "label ns", "ms p50", "ms p99")
    print(f"{'':14}" + "".join(f"{head:>12}" for head in heads))
    for n in sizes:
        random = np.random.default_rng(1)
        joiner = Ours(make_job(20_000, "uint64"))
        logged, labelled = [], []
        truth = pa.array(np.ones(BATCH, np.int8))
        stamp = pa.timestamp("us", "UTC")
        names = pa.array([f"s{i}" for i in range(SEGMENTS)])
        for start in range(0, n, BATCH):
            at = START + (np.arange(start, start + BATCH) * (HOURS * HOUR / n)).astype(np.int64)
            codes = random.integers(0, SEGMENTS, BATCH).astype(np.int8)
            batch = pa.table(
                {
                    "id": spread_ids(np.arange(start, start + BATCH)),
                    "t": pa.array(at, stamp),
                    "g": pa.DictionaryArray.from_arrays(codes, names),
                    "p": random.random(BATCH),
                }
            )
            clock = time.process_time()
            joiner.log(batch)
            logged.append(time.process_time() - clock)
        waiting = joiner.monitor.n_bytes_waiting / n
        for _ in range(min(n, 5_000_000) // BATCH):
            chosen = random.integers(0, n, BATCH)
            at = START + (chosen * (HOURS * HOUR / n)).astype(np.int64)
            batch = pa.table({"id": spread_ids(chosen), "y": truth, "t": pa.array(at, stamp)})
            clock = time.process_time()
            joiner.label(batch)
            labelled.append(time.process_time() - clock)
        assert joiner.monitor.account.predictions == n // BATCH * BATCH
        assert joiner.monitor.account.balanced
        assert joiner.monitor.account.orphan + joiner.monitor.account.early == 0
        row = f"{n:>14,}{waiting:>12.1f}"
        for seconds in (logged, labelled):
            row += f"{np.mean(seconds) / BATCH * 1e9:>12.0f}{np.median(seconds) * 1e3:>12.1f}"
            row += f"{np.quantile(seconds, 0.99) * 1e3:>12.1f}"
        print(row, flush=True)


def spread_ids(numbers: NDArray[np.int64]) -> pa.Array:
    """Ids that have no order: the numbers times an odd constant."""
    return pa.array(numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def bench_limit(sizes: list[int]) -> None:
    """Random loads of cache lines, by a few lines of C."""
    folder = Path(__file__).parent.parent / "build"
    folder.mkdir(exist_ok=True)
    library = folder / "random_access.so"
    source = Path(__file__).with_name("random_access.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", source, "-o", library], check=True)
    code = ctypes.CDLL(str(library))
    pointer = ctypes.c_void_p
    code.chase.argtypes, code.chase.restype = [pointer, ctypes.c_size_t], ctypes.c_uint64
    code.fetch.argtypes, code.fetch.restype = [pointer, pointer, ctypes.c_size_t], ctypes.c_uint64
    print("\nrandom loads of 64-byte lines, ns each")
    print(f"{'':14}{'one by one':>12}{'fetched 32 ahead':>20}")
    for size in sizes:
        n = size // 64
        cycle = np.random.default_rng(0).permutation(n).astype(np.uint32)
        lines = np.zeros((n, 8), dtype=np.uint64)
        lines[cycle, 0] = np.roll(cycle, -1)  # one cycle through all lines
        steps = 2_000_000
        order = np.resize(cycle, steps)
        clocks = [time.process_time()]
        code.chase(lines.ctypes.data, steps)
        clocks.append(time.process_time())
        code.fetch(lines.ctypes.data, order.ctypes.data, steps)
        clocks.append(time.process_time())
        seconds = np.diff(clocks) / steps * 1e9
        print(f"{size >> 20:>10,} MiB{seconds[0]:>12.0f}{seconds[1]:>20.1f}", flush=True)


def main() -> None:
    """Choose the parts, print the machine, measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, one run")
    parts = ("limit", "pending", "batches", "bulk")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--rows", type=int, help="predictions of the job; 10 million unless quick")
    parser.add_argument("--runs", type=int, help="3 unless quick")
    options = parser.parse_args()
    rows = options.rows or (1_000_000 if options.quick else 10_000_000)
    runs = options.runs or (1 if options.quick else 3)
    pa.set_cpu_count(1)
    packages = ("numpy", "pyarrow", "polars", "duckdb", "pandas")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {versions}"
    )
    if "limit" in options.only:
        bench_limit([64 << 20, 512 << 20] if options.quick else [64 << 20, 512 << 20, 3 << 30])
    if "pending" in options.only:
        large = [] if options.quick else [30_000_000, 100_000_000]
        bench_pending([1_000_000, 3_000_000 if options.quick else 10_000_000, *large])
    if "batches" in options.only:
        bench_batches(rows, runs)
    if "bulk" in options.only:
        bench_bulk(rows, runs)


if __name__ == "__main__":
    main()
