"""The join of predictions and labels: any life of a monitor is that of a dictionary, to the bit."""

from __future__ import annotations

import signal
import threading
from copy import deepcopy
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from slow_monitor import SlowMonitor

import tidegauge as tg
from tidegauge import _core, archive
from tidegauge import monitor as monitor_module

HOUR = 3_600_000_000
START = 1_700_000_000_000_000 // HOUR * HOUR
STEP = HOUR // 2
DAY = 24 * HOUR
PROBE = START + 60 * STEP
COUNTS = ("row_count", "true_positives", "false_positives", "false_negatives", "true_negatives")

SCHEMA = tg.Schema(
    task="binary",
    prediction_id="id",
    timestamp="t",
    model_version="v",
    features={"x": tg.numeric()},
    prediction_score="p",
    label="y",
    segments=["g"],
)


def reference_of(schema: tg.Schema) -> tg.Reference:
    n = 40
    return tg.Reference.fit(
        {
            "id": np.arange(n),
            "t": (START + STEP * np.arange(n)).astype("datetime64[us]"),
            "v": ["one"] * n,
            "x": np.arange(n) / n,
            "p": np.arange(n) / n,
            "y": np.arange(n) % 2,
            "g": np.array(["a", "b"])[np.arange(n) % 2],
        },
        schema,
    )


REFERENCE = reference_of(SCHEMA)

keys = st.integers(0, 7)
moments = st.one_of(st.integers(0, 40), st.integers(0, 260))  # within the lateness, and beyond it
scores = st.sampled_from([0.0, 0.1, 0.4999, 0.5, 0.9, 1.0])
predictions = st.tuples(
    keys, st.sampled_from(["one", "two", "three"]), moments, st.sampled_from("abc"), scores
)
labels = st.tuples(keys, st.sampled_from([0, 1, None]), moments)


class Lives(RuleBasedStateMachine):
    """Two monitors and two dictionaries live through the same events, and are merged at times."""

    always_kept = 8
    most_slices = 5
    capacity = 1000
    champion: str | None = "one"
    ids: Any = staticmethod(lambda key: key)

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(monitor_module, "ALWAYS_KEPT", self.always_kept)
        self.patch.setattr(monitor_module, "MOST_SLICES", self.most_slices)
        self.fast = [self.new_monitor() for _ in range(2)]
        self.slow = [self.new_slow() for _ in range(2)]
        # What was known at PROBE: a copy of the slow side, None until the watermark passes it.
        self.then: list[SlowMonitor | None] = [None, None]
        self.is_merged = [False, False]

    def before(self, who: int, moment: int | None) -> None:
        """Keep a copy of what was known, if an event of this moment is the first after PROBE."""
        mark = self.slow[who].watermark
        if self.then[who] is None and (moment or 0) > PROBE and (mark is None or mark <= PROBE):
            self.then[who] = deepcopy(self.slow[who])

    def teardown(self) -> None:
        self.patch.undo()

    def new_monitor(self) -> tg.Monitor:
        return tg.Monitor(
            REFERENCE,
            window="6h",
            lateness="24h",
            max_pending=self.capacity,
            champion=self.champion,
            history="1000d",
        )

    def new_slow(self) -> SlowMonitor:
        return SlowMonitor(
            DAY, self.always_kept, self.most_slices, self.capacity, champion=self.champion
        )

    @rule(who=st.integers(0, 1), batch=st.lists(predictions, min_size=1, max_size=8))
    def log(self, who: int, batch: list[tuple[int, str, int, str, float]]) -> None:
        key, version, moment, segment, score = zip(*batch, strict=True)
        before = len(self.slow[who].rows)
        for each in batch:
            self.before(who, START + STEP * each[2])
            self.slow[who].log(each[0], each[1], START + STEP * each[2], *each[3:])
        counted = self.fast[who].log(
            {
                "id": [self.ids(each) for each in key],
                "v": list(version),
                "t": (START + STEP * np.array(moment)).astype("datetime64[us]"),
                "x": np.zeros(len(batch)),
                "g": list(segment),
                "p": np.array(score),
            }
        )
        assert counted == len(self.slow[who].rows) - before

    @rule(
        who=st.integers(0, 1), batch=st.lists(labels, min_size=1, max_size=8), timed=st.booleans()
    )
    def label(self, who: int, batch: list[tuple[int, int | None, int]], timed: bool) -> None:
        for key, label, moment in batch:
            self.before(who, START + STEP * moment if timed else None)
            self.slow[who].label(key, label, START + STEP * moment if timed else None)
        columns: dict[str, Any] = {
            "id": [self.ids(each[0]) for each in batch],
            "y": pa.array([each[1] for each in batch], pa.int8()),
        }
        if timed:
            moments_ = START + STEP * np.array([each[2] for each in batch])
            columns["t"] = moments_.astype("datetime64[us]")
        assert self.fast[who].label(columns) == len(batch)

    @rule(who=st.integers(0, 1), asked=st.lists(keys, min_size=1, max_size=3))
    def forget(self, who: int, asked: list[int]) -> None:
        before = self.slow[who].count["forgotten"]
        self.slow[who].forget(asked)
        n = self.fast[who].forget([self.ids(key) for key in asked])
        assert n == self.slow[who].count["forgotten"] - before

    @rule(who=st.integers(0, 1), moment=st.integers(0, 300))
    def advance(self, who: int, moment: int) -> None:
        self.before(who, START + STEP * moment)
        self.slow[who].advance(START + STEP * moment)
        self.fast[who].advance(
            np.datetime64(START + STEP * moment, "us").astype(object).replace(tzinfo=UTC)
        )

    @precondition(lambda self: self.capacity >= 1000)  # who is left out depends on the order
    @rule(who=st.integers(0, 1))
    def merge(self, who: int) -> None:
        self.fast[who].merge(self.fast[1 - who])
        self.slow[who].merge(self.slow[1 - who])
        self.fast[1 - who] = self.new_monitor()
        self.slow[1 - who] = self.new_slow()
        self.is_merged[who], self.is_merged[1 - who] = True, False
        self.then[1 - who] = None

    @rule(who=st.integers(0, 1))
    def save_and_load(self, who: int) -> None:
        with TemporaryDirectory() as folder:
            self.fast[who].save(Path(folder) / "monitor.tide")
            loaded = tg.Monitor.load(Path(folder) / "monitor.tide")
        assert alike(loaded, self.fast[who])
        self.fast[who] = loaded

    @invariant()
    def accounts_are_equal(self) -> None:
        for fast, slow in zip(self.fast, self.slow, strict=True):
            account = fast.account
            assert account.balanced
            assert {name: n for name, n in account.to_dict().items() if n} == slow.account()
            assert fast.label_delays["labels"].to_pylist() == slow.delays()

    @invariant()
    def what_was_known_is_still_told(self) -> None:
        for who in range(2):
            if self.is_merged[who]:  # then two were known, each without the other's duplicates
                continue
            then = self.then[who] or self.slow[who]
            moment = np.datetime64(PROBE, "us").astype(object).replace(tzinfo=UTC)
            told = self.fast[who].metrics([*COUNTS[1:], "pair_count"], known_at=moment)
            pairs = then.pairs(6 * HOUR, 0.5)
            wanted = {
                key: (*cell[1:], pairs.get(key, [0])[0], sum(cell[1:]) / cell[0])
                for key, cell in then.confusion(6 * HOUR, 0.5).items()
            }
            assert cells_of(told, "label_share") == wanted

    @invariant()
    def metrics_are_equal(self) -> None:
        for fast, slow in zip(self.fast, self.slow, strict=True):
            assert confusion_of(fast) == slow.confusion(6 * HOUR, 0.5)
            assert pairs_of(fast) == slow.pairs(6 * HOUR, 0.5)


def alike(a: tg.Monitor, b: tg.Monitor) -> bool:
    (header, arrays), (other_header, other_arrays) = a.state(), b.state()
    return header == other_header and all(
        arrays[name].tobytes() == other_arrays[name].tobytes() for name in arrays | other_arrays
    )


def cells_of(table: pa.Table, last: str) -> dict[tuple[int, str, str], tuple[float, ...]]:
    """Values of the metrics by window, version and segment; cells without predictions left out."""
    found: dict[tuple[int, str, str], list[float]] = {}
    for row in table.to_pylist():
        if row[last] is not None:
            start = int(row["window_start"].timestamp()) * 1_000_000
            cell = found.setdefault((start, row["version"], row["segment"]), [row[last]])
            cell.insert(-1, row["value"] or 0)
    return {key: tuple(cell) for key, cell in found.items()}


def confusion_of(monitor: tg.Monitor) -> dict[tuple[int, str, str], tuple[int, ...]]:
    found: dict[tuple[int, str, str], dict[str, int]] = {}
    for row in monitor.metrics(list(COUNTS)).to_pylist():
        start = int(row["window_start"].timestamp()) * 1_000_000
        cell = found.setdefault((start, row["version"], row["segment"]), {})
        cell[row["metric"]] = int(row["value"] or 0)
    cells = {key: tuple(cell[name] for name in COUNTS) for key, cell in found.items()}
    return {key: cell for key, cell in cells.items() if any(cell)}  # others hold duplicates alone


PAIRS = (
    "pair_count",
    "challenger_alone_right",
    "champion_alone_right",
    "paired_brier_score_difference",
)


def pairs_of(monitor: tg.Monitor) -> dict[tuple[int, str, str], list[Any]]:
    found: dict[tuple[int, str, str], list[Any]] = {}
    for row in monitor.metrics(list(PAIRS)).to_pylist():
        if row["n"]:
            start = int(row["window_start"].timestamp()) * 1_000_000
            found.setdefault((start, row["version"], row["segment"]), []).append(row["value"])
    # Sums are exact and rounded once; the mean of the slow side is rounded where losses are made.
    return {
        key: [*cell[:3], pytest.approx(cell[3], abs=1e-15, rel=1e-15)]
        for key, cell in found.items()
    }


class TestLives(Lives.TestCase):
    settings = settings(max_examples=60, stateful_step_count=20)


class CrowdedLives(Lives):
    capacity = 5


class TestCrowdedLives(CrowdedLives.TestCase):
    settings = settings(max_examples=30, stateful_step_count=20)


class UuidLives(Lives):
    """Predictions and labels spell the same ids in both cases."""

    ids: Any = staticmethod(
        lambda key: (
            str(UUID(int=key << 64 | 0xABCDEF)).upper()
            if np.random.default_rng(key).random() < 0.5
            else str(UUID(int=key << 64 | 0xABCDEF))
        )
    )


class TestUuidLives(UuidLives.TestCase):
    settings = settings(max_examples=20, stateful_step_count=15)


# The table of ids.


def new_join(**options: Any) -> _core.Join:
    given_ = {
        "lateness": DAY,
        "n_values": 1,
        "capacity": 10**9,
        "always_kept": 1 << 20,
        "most_slices": 4096,
        "ids": "integer",
        "task": "binary",
        "weights": False,
        "champion": -1,
        "arrivals": False,
    }
    return _core.Join({**given_, **options})


def log_keys(join: _core.Join, keys_: np.ndarray, times: np.ndarray | None = None) -> int:
    n = len(keys_)
    accepted, _ = join.log(
        {
            "keys": keys_,
            "times": np.zeros(n, np.int64) if times is None else times,
            "groups": np.zeros(n, np.int32),
            "group_versions": np.zeros(1, np.int32),
            "decisions": np.zeros(n, np.int32),
            "values": np.zeros(n),
            "weights": np.empty(0),
        }
    )
    return int(accepted.sum())


def read_keys(ids: np.ndarray) -> np.ndarray:
    table = pa.table({"id": ids})
    batch = _core.Batch.from_stream(table.__arrow_c_stream__())
    return _core.read_keys(batch, "id", 0, len(ids), (3, 5))


@pytest.mark.parametrize("kind", ["random", "sequential", "high bits"])
def test_no_id_is_lost_while_the_table_grows(kind: str) -> None:
    n = 300_000
    ids = np.random.default_rng(0).permutation(n).astype(np.uint64)
    if kind == "sequential":
        ids = np.arange(n, dtype=np.uint64)
    if kind == "high bits":
        ids <<= np.uint64(40)
    join, keys_ = new_join(), read_keys(ids)
    for start in range(0, n, 50_000):
        assert log_keys(join, keys_[start : start + 50_000]) == 50_000
    assert log_keys(join, keys_) == 0
    assert len(join.label(keys_, np.ones(n), np.zeros(n, np.int64))) == n
    assert dict(zip(FIELDS, join.account(), strict=True))["matched"] == n
    assert (
        len(join.label(read_keys(ids + np.uint64(n << 40)), np.ones(n), np.zeros(n, np.int64))) == 0
    )
    assert join.n_bytes / n < 2 * 32  # both the predictions and as many labels that wait


def test_a_waiting_prediction_takes_little_memory() -> None:
    n = 1_000_000
    join = new_join()
    times = np.sort(np.random.default_rng(0).integers(0, DAY, n))
    log_keys(join, read_keys(np.arange(n, dtype=np.uint64)), times)
    assert join.n_bytes / n < 34  # 32 from 4 million on; slices that have just begun weigh in


def test_memory_of_what_waits_is_told() -> None:
    monitor = tg.Monitor(reference_of(replace(SCHEMA, segments=(), model_version=None)))
    n, empty = 200_000, monitor.n_bytes_waiting
    times = (START + np.sort(np.random.default_rng(0).integers(0, DAY, n))).astype("datetime64[us]")
    rows = {"id": np.arange(n), "t": times, "x": np.zeros(n), "p": np.full(n, 0.7)}
    monitor.log(rows)
    held = monitor.n_bytes_waiting
    assert 23 * n < held - empty < 48 * n  # a row alone takes 23
    assert monitor.forget(np.arange(n)) == n
    monitor.log(rows)
    assert monitor.n_bytes_waiting < 1.1 * held  # recycled


def test_memory_is_recycled_while_time_goes_on() -> None:
    join = new_join(always_kept=0, lateness=HOUR)
    n, highest = 20_000, []
    for hour in range(60):
        ids = np.arange(hour * n, (hour + 1) * n, dtype=np.uint64)
        times = np.linspace(hour * HOUR, (hour + 1) * HOUR - 1, n).astype(np.int64)
        assert log_keys(join, read_keys(ids), times) == n
        highest.append(join.n_bytes)
    assert max(highest) <= 1.5 * highest[4]
    account = dict(zip(FIELDS, join.account(), strict=True))
    assert account["predictions"] == 60 * n
    assert (
        account["expired"] == 59 * n - 1
    )  # the first of the last hour but one is exactly an hour old
    assert account["pending"] == n + 1


def test_sparse_traffic_takes_little_memory_too() -> None:
    join = new_join(lateness=60_000_000)
    n = 100_000
    times = np.arange(n) * 60_000_000  # each prediction in a slice of its own
    assert log_keys(join, read_keys(np.arange(n)), times) == n
    account = dict(zip(FIELDS, join.account(), strict=True))
    assert (account["pending"], account["expired"]) == (2, n - 2)
    assert len(join.save(np.zeros(1, np.int32))["times"]) == 4096 + 1  # room is made before a row
    assert join.n_bytes < 8 << 20


def test_one_id_of_a_thousand_versions() -> None:
    schema = replace(SCHEMA, segments=())
    monitor = tg.Monitor(reference_of(schema))
    n = 4000
    row = {"t": np.full(n, START).astype("datetime64[us]"), "x": np.zeros(n), "p": np.full(n, 0.7)}
    versions = [f"v{i}" for i in range(n)]
    assert monitor.log({**row, "id": np.full(n, 7), "v": versions}) == n
    assert monitor.log({**row, "id": np.full(n, 7), "v": versions}) == 0
    monitor.label({"id": [7], "y": [1]})
    assert (monitor.account.matched, monitor.account.matched_labels) == (n, 1)
    assert monitor.forget([7]) == n


FIELDS = tuple(tg.values.Account().to_dict())


def test_integers_are_told_apart_exactly() -> None:
    signed = np.array([0, 1, -1, -(2**63), 2**63 - 1, -2, -(2**62)])
    unsigned = np.array([2**63, 2**64 - 1, 2**64 - 2, 2**63 + 1, 3 * 2**62], np.uint64)
    join = new_join()
    assert log_keys(join, read_keys(signed)) == len(signed)
    assert log_keys(join, read_keys(unsigned)) == len(unsigned)
    assert log_keys(join, np.concatenate([read_keys(signed), read_keys(unsigned)])) == 0
    saved = join.save(np.zeros(1, np.int32))
    again = new_join()
    again.load(saved, np.zeros(1, np.int32))
    assert all(
        np.array_equal(saved[name], again.save(np.zeros(1, np.int32))[name], equal_nan=True)
        for name in saved
    )


def test_the_bins_of_delays() -> None:
    edges = _core.delay_edges()
    assert edges[:4] == [1_000_000, 1_414_213, 2_000_000, 2_828_427]
    assert edges[-1] == 2**25 * 1_000_000
    assert edges == sorted(set(edges))
    join = new_join(lateness=400 * DAY)
    moments_ = np.array([-5, 0, *(edge - 1 for edge in edges), *edges, edges[-1] + HOUR])
    n = len(moments_)
    keys_ = read_keys(np.arange(n))
    log_keys(join, keys_)
    found = join.label(keys_, np.ones(n), moments_)
    # Below a second three: the one just under the first edge too. Then two a bin.
    assert np.bincount(found.columns()["delays"]).tolist() == [3, *[2] * (len(edges) - 1), 2]


# Forgetting.


def history(schema: tg.Schema, n: int = 60) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    columns: dict[str, Any] = {
        "id": np.arange(n),
        "t": (START + STEP * np.arange(n)).astype("datetime64[us]"),
        "x": rng.normal(size=n),
        "w": np.round(rng.random(n), 3),
    }
    if schema.task == "regression":
        return {**columns, "p": rng.normal(size=n), "y": rng.normal(size=n)}
    if schema.task == "multiclass":
        score = rng.dirichlet([1, 1, 1], n)
        labels_ = np.array(["a", "b", "c"])[rng.integers(0, 3, n)]
        return {**columns, **dict(zip("abc", score.T, strict=True)), "y": labels_}
    return {**columns, "p": rng.random(n), "y": rng.integers(0, 2, n)}


COMMON: dict[str, Any] = {
    "prediction_id": "id",
    "timestamp": "t",
    "features": ["x"],
    "label": "y",
    "weight": "w",
}
TASKS = {
    "binary": tg.Schema(task="binary", prediction_score="p", **COMMON),
    "multiclass": tg.Schema(
        task="multiclass", prediction_score={"a": "a", "b": "b", "c": "c"}, **COMMON
    ),
    "regression": tg.Schema(task="regression", prediction="p", **COMMON),
}


def without_labels(columns: dict[str, Any]) -> dict[str, Any]:
    return {name: values for name, values in columns.items() if name != "y"}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("ids", ["integer", "text"])
def test_what_labels_added_is_taken_back_to_the_bit(task: str, ids: str) -> None:
    columns = history(TASKS[task])
    if ids == "text":
        columns["id"] = np.array([f"order {i}" for i in columns["id"]])
    reference = tg.Reference.fit(columns, TASKS[task])
    monitor, never = tg.Monitor(reference), tg.Monitor(reference)
    for each in (monitor, never):
        each.log(without_labels(columns))
    monitor.label({"id": columns["id"], "y": columns["y"]})
    assert monitor.forget(pa.array(columns["id"])) == 60
    assert monitor.account.balanced
    assert (monitor.account.forgotten, monitor.account.matched) == (60, 0)
    assert sum(monitor.label_delays["labels"].to_pylist()) == 0
    ours, theirs = monitor.state()[1], never.state()[1]
    for name in (name for name in ours if name.startswith("table.")):
        assert np.array_equal(ours[name], theirs[name]), name


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("ids", ["integer", "text"])
def test_every_kind_of_join_is_stored(task: str, ids: str, tmp_path: Path) -> None:
    columns = history(TASKS[task])
    if ids == "text":
        columns["id"] = np.array([f"order {i}" for i in columns["id"]])
    reference = tg.Reference.fit(columns, TASKS[task])
    through, stopped = tg.Monitor(reference), tg.Monitor(reference)
    for each in (through, stopped):
        each.log(without_labels(columns))
        each.label({"id": columns["id"][:30], "y": columns["y"][:30]})
    stopped.save(tmp_path / "monitor.tide")
    resumed = tg.Monitor.load(tmp_path / "monitor.tide")
    for each in (through, resumed):
        each.label({"id": columns["id"][::-1], "y": columns["y"]})
    assert alike(through, resumed)
    assert resumed.account.corrected > 0


def test_forgotten_ids_are_as_if_they_had_never_come() -> None:
    columns = history(TASKS["binary"])
    monitor = tg.Monitor(tg.Reference.fit(columns, TASKS["binary"]))
    assert monitor.forget([1, 2]) == 0
    monitor.log(without_labels(columns))
    monitor.label({"id": [3, 1000], "y": [1, 1]})
    assert monitor.forget([3, 4, 4, 1000]) == 2
    account = monitor.account
    assert (account.forgotten, account.forgotten_labels, account.early) == (2, 1, 0)
    monitor.label({"id": [3], "y": [1]})
    assert monitor.account.early == 1
    assert monitor.log({name: values[3:5] for name, values in without_labels(columns).items()}) == 2
    assert monitor.account.matched == 1
    assert monitor.account.balanced
    nulls = pa.array([1, None], pa.int64())
    for bad, message in ((nulls, "row 1 has no id"), (["a"], "ids are of kind text")):
        with pytest.raises(tg.DataError, match=message):
            monitor.forget(bad)
    timeless = tg.Schema(task="binary", prediction_score="p", label="y")
    with pytest.raises(tg.SchemaError, match="prediction_id"):
        tg.Monitor(tg.Reference.fit(columns, timeless)).forget([1])


# Versions of files, kinds of ids, interrupts, threads.


def test_files_of_another_format_are_refused(tmp_path: Path) -> None:
    monitor = tg.Monitor(REFERENCE)
    header, arrays = monitor.state()
    path = tmp_path / "monitor.tide"
    archive.write(path, "monitor", header, arrays)
    assert archive.read(path, "monitor")[0]["format"] == 4
    older = {**archive.FORMATS, "monitor": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "FORMATS", older)
        archive.write(path, "monitor", header, arrays)
    with pytest.raises(tg.DataError, match="written in format 1, this version reads 4"):
        tg.Monitor.load(path)


@pytest.mark.parametrize("damage", ["groups", "label_delays", "times", "keys", "values"])
def test_damaged_joins_are_refused(damage: str, tmp_path: Path) -> None:
    columns = history(TASKS["binary"])
    monitor = tg.Monitor(tg.Reference.fit(columns, TASKS["binary"]))
    monitor.log(without_labels(columns))
    header, arrays = monitor.state()
    stored = arrays[f"join.{damage}"]
    if damage == "values":
        arrays["join.values"] = stored[:-1]
    else:
        stored.ravel()[0] = {"groups": 99, "label_delays": 200, "times": 2**63 - 5, "keys": 9}[
            damage
        ]
    archive.write(tmp_path / "monitor.tide", "monitor", header, arrays)
    with pytest.raises(tg.DataError, match="damaged"):
        tg.Monitor.load(tmp_path / "monitor.tide")


def test_monitors_of_other_ids_are_not_merged() -> None:
    columns = history(TASKS["binary"])
    reference = tg.Reference.fit(columns, TASKS["binary"])
    first, second, third = (tg.Monitor(reference) for _ in range(3))
    first.log(without_labels(columns))
    second.log({**without_labels(columns), "id": columns["id"].astype(str)})
    with pytest.raises(tg.SchemaError, match="of kind integer, those of the other of kind text"):
        first.merge(second)
    third.merge(second)
    third.label({"id": columns["id"].astype(str), "y": columns["y"]})
    assert third.account.matched == 60


def test_an_interrupt_waits_until_the_batch_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = history(TASKS["binary"])
    monitor = tg.Monitor(tg.Reference.fit(columns, TASKS["binary"]))
    counted = monitor._table.count

    def interrupt(*args: Any, **kwargs: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        counted(*args, **kwargs)

    monkeypatch.setattr(monitor._table, "count", interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job may ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            monitor.log(columns)
    finally:
        signal.signal(signal.SIGINT, before)
    assert monitor.account.matched == 60
    assert monitor.metrics("row_count", window="all")["n"].to_pylist() == [60]


def test_events_of_many_threads_meet() -> None:
    columns = history(TASKS["binary"], 4000)
    reference = tg.Reference.fit(columns, TASKS["binary"])
    together, apart = tg.Monitor(reference, lateness="100d"), tg.Monitor(reference, lateness="100d")
    pieces = [slice(low, low + 50) for low in range(0, 4000, 50)]
    labelled = {name: columns[name] for name in ("id", "y", "t")}

    def send(monitor: tg.Monitor, mine: list[slice], method: str) -> None:
        table = without_labels(columns) if method == "log" else labelled
        for piece in mine:
            getattr(monitor, method)({name: values[piece] for name, values in table.items()})
            _ = monitor.account

    send(apart, pieces, "log")
    send(apart, pieces, "label")
    work = [(pieces[k::2], method) for k in range(2) for method in ("log", "label")]
    threads = [threading.Thread(target=send, args=(together, *each)) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together.account.matched == apart.account.matched == 4000
    assert together.metrics().equals(apart.metrics())


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=30))
def test_slices_of_time_never_show(times: list[int]) -> None:
    """Predictions at any two moments, a microsecond before and after the edge of a slice too."""
    width = 1 << 32
    edges = np.array([base + d for t in times for base in [t * width] for d in (-1, 0, 1)])
    join = new_join(always_kept=0, lateness=10_000 * DAY)
    keys_ = read_keys(np.arange(len(edges)))
    assert log_keys(join, keys_, edges) == len(edges)
    assert np.array_equal(np.sort(join.save(np.zeros(1, np.int32))["times"]), np.sort(edges))
