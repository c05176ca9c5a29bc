"""The monitor: every event accounted for, the same answer in any order, batches or threads."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

import tidegauge as tg
from tidegauge import archive

pytestmark = pytest.mark.usefixtures("engine")

HOUR = 3_600_000_000
START = 1_700_000_000_000_000 // HOUR * HOUR

SCHEMA = tg.Schema(
    task="binary",
    prediction_id="id",
    timestamp="t",
    features={"x": tg.numeric(), "g": tg.categorical(categories=["a", "b"])},
    prediction_score="p",
    label="y",
    segments=["g"],
)

VERSIONED = tg.Schema(
    task="binary",
    prediction_id="id",
    timestamp="t",
    model_version="v",
    features=["x"],
    prediction_score="p",
    label="y",
)


def traffic(n: int, seed: int = 0, days: int = 2) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    p = np.round(1 / (1 + np.exp(-x)), 3)
    moments = START + np.sort(rng.integers(0, days * 24 * HOUR, n))
    return {
        "id": np.arange(n) + 1000 * seed,
        "t": moments.astype("datetime64[us]"),
        "x": x,
        "g": rng.choice(["a", "b", "c"], n),
        "p": p,
        "y": (rng.random(n) < p).astype(int),
    }


@pytest.fixture(scope="module")
def reference() -> tg.Reference:
    return tg.Reference.fit(traffic(2000), SCHEMA)


def without(columns: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: values for name, values in columns.items() if name not in names}


def rows(columns: dict[str, Any], chosen: Any) -> dict[str, Any]:
    return {name: values[chosen] for name, values in columns.items()}


def labels_of(columns: dict[str, Any], delay: int = HOUR) -> dict[str, Any]:
    moments = columns["t"] + np.timedelta64(delay, "us")
    return {"id": columns["id"], "y": columns["y"], "t": moments}


def same_state(a: tg.Monitor, b: tg.Monitor) -> bool:
    (header, arrays), (other_header, other_arrays) = a.state(), b.state()
    equal = json.dumps(header) == json.dumps(other_header) and arrays.keys() == other_arrays.keys()
    return equal and all(arrays[name].tobytes() == other_arrays[name].tobytes() for name in arrays)


def value(table: pa.Table, metric: str, column: str | None = None, segment: str = "all") -> Any:
    found = [
        row
        for row in table.to_pylist()
        if (row["metric"], row["column"], row["segment"]) == (metric, column, segment)
    ]
    assert len(found) == 1, found
    return found[0]


# The same bits.


@settings(max_examples=25)
@given(seed=st.integers(0, 5), cuts=st.lists(st.integers(0, 400), max_size=6))
def test_splitting_changes_nothing(reference: tg.Reference, seed: int, cuts: list[int]) -> None:
    columns = traffic(400, seed)
    whole, parts = (tg.Monitor(reference, threads=t) for t in (1, 2))
    whole.log(without(columns, "y"))
    whole.label(labels_of(columns))
    edges = [0, *sorted(cuts), 400]
    for low, high in pairwise(edges):
        parts.log(rows(without(columns, "y"), slice(low, high)))
    for low, high in pairwise(edges):
        parts.label(rows(labels_of(columns), slice(low, high)))
    assert same_state(whole, parts)


@settings(max_examples=15)
@given(seed=st.integers(0, 5))
def test_order_changes_no_metric(reference: tg.Reference, seed: int) -> None:
    columns = traffic(300, seed)
    order = np.random.default_rng(seed).permutation(300)
    ordered, shuffled = tg.Monitor(reference), tg.Monitor(reference)
    ordered.log(without(columns, "y"))
    ordered.label(labels_of(columns))
    shuffled.label(rows(labels_of(columns), order))
    shuffled.log(rows(without(columns, "y"), order))
    assert ordered.metrics().equals(shuffled.metrics())


def test_threads_change_nothing(reference: tg.Reference) -> None:
    columns = traffic(300_000, 3)
    one, many = tg.Monitor(reference, threads=1), tg.Monitor(reference, threads=7)
    for monitor in (one, many):
        monitor.log(columns)
    assert same_state(one, many)


def test_merge_equals_one_monitor(reference: tg.Reference) -> None:
    columns = traffic(900, 4)
    odd = np.arange(900) % 2 == 1
    whole, first, second = (tg.Monitor(reference) for _ in range(3))
    whole.log(without(columns, "y"))
    whole.label(labels_of(columns))
    first.log(rows(without(columns, "y"), odd))
    second.log(rows(without(columns, "y"), ~odd))
    # Labels reach the wrong monitor too, and find their prediction when the two merge.
    half = np.arange(900) < 450
    first.label(rows(labels_of(columns), half))
    second.label(rows(labels_of(columns), ~half))
    first.merge(second)
    assert first.account.matched == whole.account.matched == 900
    assert first.metrics().equals(whole.metrics())


def test_merge_takes_back_what_both_have_labelled(reference: tg.Reference) -> None:
    columns = traffic(50, 18)
    first, second = tg.Monitor(reference), tg.Monitor(reference)
    for monitor in (first, second):
        monitor.log(without(columns, "y"))
    first.label(labels_of(columns))
    second.label(rows(labels_of(columns), slice(0, 20)))
    first.merge(second)
    account = first.account
    assert account.balanced
    assert (account.predictions, account.matched) == (50, 50)
    assert account.duplicate_predictions == 50
    assert value(first.metrics(window="all", segments="all"), "label_count")["value"] == 50


def test_merge_needs_the_same_reference(reference: tg.Reference) -> None:
    other = tg.Monitor(tg.Reference.fit(traffic(100), SCHEMA))
    with pytest.raises(tg.SchemaError, match="same reference"):
        tg.Monitor(reference).merge(other)
    with pytest.raises(tg.SchemaError, match="same reference, window"):
        tg.Monitor(reference).merge(tg.Monitor(reference, window="1d"))


def test_saved_monitor_goes_on_where_it_stopped(reference: tg.Reference, tmp_path: Path) -> None:
    columns = traffic(500, 5)
    through, stopped = tg.Monitor(reference), tg.Monitor(reference)
    for monitor in (through, stopped):
        monitor.log(rows(without(columns, "y"), slice(0, 300)))
        monitor.label(rows(labels_of(columns), slice(100, 400)))
    stopped.save(tmp_path / "monitor.tide")
    resumed = tg.Monitor.load(tmp_path / "monitor.tide")
    assert same_state(stopped, resumed)
    for monitor in (through, resumed):
        monitor.log(rows(without(columns, "y"), slice(300, 500)))
        monitor.label(labels_of(columns))
    assert through.account == resumed.account
    assert through.metrics().equals(resumed.metrics())


def test_calls_from_many_threads_lose_nothing(reference: tg.Reference) -> None:
    monitor = tg.Monitor(reference)
    parts = [traffic(2000, seed) for seed in range(1, 5)]
    for k, part in enumerate(parts):
        part["id"] = np.arange(2000) + 10_000 * k

    def work(part: dict[str, Any]) -> None:
        for low in range(0, 2000, 100):
            chosen = slice(low, low + 100)
            monitor.log(rows(without(part, "y"), chosen))
            monitor.label(rows(labels_of(part), chosen))

    threads = [threading.Thread(target=work, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert monitor.account.matched == 8000
    assert monitor.account.balanced


# Answers.


def test_performance_agrees_with_sklearn(reference: tg.Reference) -> None:
    columns = traffic(3000, 7)
    monitor = tg.Monitor(reference, window="1d")
    monitor.log(columns)
    table = monitor.metrics(window="all", segments="all")
    truth, score = columns["y"], columns["p"]
    decided = score >= 0.5
    exact = {
        "accuracy": sk.accuracy_score(truth, decided),
        "precision": sk.precision_score(truth, decided),
        "recall": sk.recall_score(truth, decided),
        "f1": sk.f1_score(truth, decided),
        "log_loss": sk.log_loss(truth, score),
        "brier_score": sk.brier_score_loss(truth, score),
    }
    for name, expected in exact.items():
        assert value(table, name)["value"] == pytest.approx(expected, rel=1e-12), name
    assert value(table, "roc_auc")["value"] == pytest.approx(
        sk.roc_auc_score(truth, score),
        abs=1e-4,  # two scores share a bin
    )
    assert value(table, "accuracy")["label_share"] == 1.0
    moved = monitor.metrics("recall", window="all", segments="all", threshold=0.3)
    assert value(moved, "recall(threshold=0.3)")["value"] == pytest.approx(
        sk.recall_score(truth, score >= 0.3)
    )


def test_multiclass_agrees_with_sklearn() -> None:
    rng = np.random.default_rng(0)
    raw = rng.dirichlet([1, 1, 1], 2000)
    truth = np.array([rng.choice(["x", "y", "z"], p=row) for row in raw])
    table = {"sx": raw[:, 0], "sy": raw[:, 1], "sz": raw[:, 2], "label": truth}
    schema = tg.Schema(
        task="multiclass",
        prediction_score={"x": "sx", "y": "sy", "z": "sz"},
        label="label",
    )
    monitor = tg.Monitor(tg.Reference.fit(table, schema))
    monitor.log(table)
    found = monitor.metrics()
    decided = np.array(["x", "y", "z"])[raw.argmax(axis=1)]
    assert value(found, "accuracy")["value"] == pytest.approx(sk.accuracy_score(truth, decided))
    assert value(found, "macro_f1")["value"] == pytest.approx(
        sk.f1_score(truth, decided, average="macro")
    )
    assert value(found, "log_loss")["value"] == pytest.approx(sk.log_loss(truth, raw))
    with pytest.raises(tg.DataError, match="does not know; known: x, y, z"):
        monitor.log({**table, "label": np.where(truth == "x", "w", truth)})


def test_regression_agrees_with_sklearn() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(1e6, 1, 1000)
    predicted = truth + rng.normal(0, 0.3, 1000)
    table = {"y": truth, "yhat": predicted}
    schema = tg.Schema(task="regression", prediction="yhat", label="y")
    monitor = tg.Monitor(tg.Reference.fit(table, schema))
    monitor.log(table)
    found = monitor.metrics()
    for name, expected in {
        "mae": sk.mean_absolute_error(truth, predicted),
        "mse": sk.mean_squared_error(truth, predicted),
        "r2": sk.r2_score(truth, predicted),
        "mape": sk.mean_absolute_percentage_error(truth, predicted),
    }.items():
        assert value(found, name)["value"] == pytest.approx(expected, rel=1e-10), name


def test_weights_count_as_in_sklearn() -> None:
    rng = np.random.default_rng(0)
    score = np.round(rng.random(800), 3)
    truth = (rng.random(800) < score).astype(int)
    weight = np.round(rng.random(800) * 3, 2)
    table = {"p": score, "y": truth, "w": weight}
    schema = tg.Schema(task="binary", prediction_score="p", label="y", weight="w")
    monitor = tg.Monitor(tg.Reference.fit(table, schema))
    monitor.log(table)
    found = monitor.metrics()
    expected = sk.accuracy_score(truth, score >= 0.5, sample_weight=weight)
    assert value(found, "accuracy")["value"] == pytest.approx(expected, rel=1e-6)
    assert value(found, "accuracy")["n"] == 800
    assert value(found, "log_loss")["value"] == pytest.approx(
        sk.log_loss(truth, score, sample_weight=weight), rel=1e-6
    )


def test_text_labels_need_the_positive_one() -> None:
    table = {"p": [0.2, 0.9, 0.7], "y": ["no", "yes", None]}
    with pytest.raises(tg.DataError, match="positive="):
        tg.Reference.fit(table, tg.Schema(task="binary", prediction_score="p", label="y"))
    schema = tg.Schema(task="binary", prediction_score="p", label="y", positive="yes")
    monitor = tg.Monitor(tg.Reference.fit(table, schema))
    monitor.log(table)
    accuracy = value(monitor.metrics("accuracy"), "accuracy")
    assert (accuracy["value"], accuracy["n"]) == (1.0, 2)


def test_versions_are_watched_apart(reference: tg.Reference) -> None:
    del reference
    columns = {**traffic(600, 8), "v": np.where(np.arange(600) % 3 == 0, "champion", "challenger")}
    monitor = tg.Monitor(tg.Reference.fit(columns, VERSIONED))
    monitor.log(without(columns, "y"))
    # The same ids scored by the other version join the same labels.
    other = np.where(columns["v"] == "champion", "challenger", "champion")
    assert monitor.log({**without(columns, "y"), "v": other}) == 600
    assert monitor.log(without(columns, "y")) == 0
    monitor.label(labels_of(columns))
    account = monitor.account
    assert (account.predictions, account.matched, account.matched_labels) == (1200, 1200, 600)
    assert account.duplicate_predictions == 600
    table = monitor.metrics("accuracy", window="all")
    counts = {row["version"]: row["n"] for row in table.to_pylist()}
    assert counts == {"champion": 600, "challenger": 600}
    chosen = monitor.metrics("accuracy", window="all", versions=["champion"])
    assert chosen["version"].to_pylist() == ["champion"]


def test_duplicates_are_an_integrity_matter(reference: tg.Reference) -> None:
    columns = without(traffic(100, 9), "y")
    monitor = tg.Monitor(reference)
    assert monitor.log(columns) == 100
    assert monitor.log(columns) == 0
    table = monitor.metrics(["duplicate_rate", "row_count"], window="all", segments="all")
    assert value(table, "duplicate_rate")["value"] == 0.5
    assert value(table, "row_count")["value"] == 100


def test_vanished_new_and_broken_columns_are_counted(reference: tg.Reference) -> None:
    columns = without(traffic(100, 10), "y", "x")
    monitor = tg.Monitor(reference)
    monitor.log({**columns, "surprise": np.zeros(100)})
    table = monitor.metrics(window="all", segments="all")
    assert value(table, "absent_rate", "x")["value"] == 1.0
    assert value(table, "new_column_rate")["value"] == 1.0
    assert monitor.new_columns == {"surprise": 100}
    monitor.log({**columns, "id": columns["id"] + 500, "x": ["text"] * 100})
    table = monitor.metrics(window="all", segments="all")
    assert value(table, "type_violation_rate", "x")["value"] == 0.5


def test_sliding_windows_are_sums_of_panes(reference: tg.Reference) -> None:
    columns = traffic(500, 11)
    monitor = tg.Monitor(reference, window="1h")
    monitor.log(columns)
    table = monitor.metrics("row_count", segments="all", window="6h", step="2h")
    moments = columns["t"].astype(np.int64)
    for row in table.to_pylist():
        start = int(row["window_start"].timestamp()) * 1_000_000
        inside = (moments >= start) & (moments < start + 6 * HOUR)
        assert row["value"] == inside.sum()
    assert sum(row["value"] for row in table.to_pylist()) == 3 * 500


@pytest.mark.parametrize("window", ["1h", "1d", "7d", "1mo", "all"])
def test_a_report_counts_every_row_once(reference: tg.Reference, window: str) -> None:
    monitor = tg.Monitor(reference)
    monitor.log(traffic(900, 17, days=20))
    report = monitor.report(window=window)
    assert "\n900 rows" in repr(report)
    assert "over 900 labelled rows" in repr(report)


def test_a_watermark_can_be_moved(reference: tg.Reference) -> None:
    monitor = tg.Monitor(reference, lateness="24h")
    assert monitor.watermark is None
    monitor.log(without(traffic(10, 12, days=1), "y"))
    assert monitor.account.pending == 10
    monitor.advance(datetime(2024, 1, 1, tzinfo=UTC))
    assert (monitor.account.pending, monitor.account.expired) == (0, 10)
    with pytest.raises(ValueError, match="zone"):
        monitor.advance(datetime(2024, 1, 1))


def test_more_than_fits_expires_on_arrival(reference: tg.Reference) -> None:
    monitor = tg.Monitor(reference, max_pending=60)
    columns = traffic(100, 13, days=1)
    assert monitor.log(without(columns, "y")) == 100
    monitor.label(labels_of(columns))
    account = monitor.account
    assert account.balanced
    assert (account.matched, account.expired) == (60, 40)


# Ordinary bad days.


def test_empty_batches_and_no_traffic(reference: tg.Reference) -> None:
    monitor = tg.Monitor(reference)
    assert monitor.metrics().num_rows == 0
    assert monitor.log(rows(traffic(10), slice(0, 0))) == 0
    assert monitor.label(rows(labels_of(traffic(10)), slice(0, 0))) == 0
    assert monitor.metrics().num_rows == 0
    assert monitor.report().to_arrow().num_rows == 0


BAD = {
    "null id": ({"id": pa.array([1, None], pa.int64())}, "column 'id': row 1 has no id"),
    "float id": ({"id": [1.5, 2.5]}, "column 'id': ids are integers, text or bytes, got float64"),
    "null time": (
        {"t": pa.array([START, None], pa.timestamp("us"))},
        "column 't': row 1 has no timestamp",
    ),
    "text time": ({"t": ["2024", "2025"]}, "column 't': timestamps are wanted, got utf8"),
    "far time": (
        {"t": np.array(["2024-01-01", "2190-01-01"], "datetime64[us]")},
        "column 't': row 1 lies at 2190",
    ),
    "score": ({"p": [0.5, 1.5]}, "column 'p': row 1 holds 1.5; a score lies in"),
    "text score": ({"p": ["a", "b"]}, "column 'p': numbers are wanted, got utf8"),
    "label": ({"y": [0, 7]}, "column 'y': row 1 holds 7; a class is 0 or 1"),
    "no score": ({"p": None}, "column 'p': the schema names it as `prediction_score`"),
    "no id": ({"id": None}, "column 'id': the schema names it as `prediction_id`"),
    "lengths": ({"x": [1.0]}, "columns differ in length"),
    "mixed": ({"x": [1.0, "a"]}, "column 'x': a list cannot be read as one type"),
    "complex": ({"x": np.ones(2) * 1j}, "column 'x': an array of complex128 cannot be read"),
    "swapped": ({"x": np.ones(2, np.dtype("f8").newbyteorder())}, "column 'x': an array of "),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_named_and_nothing_is_counted(reference: tg.Reference, name: str) -> None:
    change, message = BAD[name]
    good = rows(traffic(2, 14), slice(0, 2))
    monitor = tg.Monitor(reference)
    monitor.log(traffic(50, 15))
    twin = tg.Monitor(reference)
    twin.log(traffic(50, 15))
    bad = {k: v for k, v in {**good, **change}.items() if v is not None}
    with pytest.raises(tg.DataError, match=message.replace("(", "\\(")):
        monitor.log(bad)
    assert same_state(monitor, twin)
    monitor.log(good)
    twin.log(good)
    assert same_state(monitor, twin)


def test_a_bad_row_far_down_a_large_batch_rejects_all_of_it(reference: tg.Reference) -> None:
    columns = traffic(600_000, 16)
    columns["p"][-1] = 2.0
    monitor, twin = tg.Monitor(reference), tg.Monitor(reference)
    with pytest.raises(tg.DataError, match="row 599999 holds 2"):
        monitor.log(columns)
    assert same_state(monitor, twin)


@pytest.mark.parametrize("given_value", [3, "text", [1, 2], None])
def test_what_is_no_table_is_refused(reference: tg.Reference, given_value: object) -> None:
    with pytest.raises(tg.DataError, match="a table is wanted"):
        tg.Monitor(reference).log(given_value)


def test_names_are_checked_against_what_is_known(reference: tg.Reference) -> None:
    monitor = tg.Monitor(reference)
    monitor.log(traffic(10))
    with pytest.raises(ValueError, match="unknown column 'z'; counted are: x, g, p, y"):
        monitor.metrics(columns="z")
    with pytest.raises(ValueError, match="unknown segment 'g=z'; known: all, g=a"):
        monitor.metrics(segments="g=z")
    with pytest.raises(ValueError, match="psi"):
        monitor.metrics("psl")
    for window in ("90s", "1.5h", "0h", "", "1y"):
        with pytest.raises(ValueError, match="window"):
            monitor.metrics(window=window)
    for window in ("7h", "2d", "30s"):
        with pytest.raises(ValueError, match="must divide a day"):
            tg.Monitor(reference, window=window)
    with pytest.raises(ValueError, match="allowed: cpu, cuda, auto"):
        tg.Monitor(reference, device="gpu")


def test_labels_need_an_id() -> None:
    table = {"p": [0.1, 0.9], "y": [0, 1]}
    schema = tg.Schema(task="binary", prediction_score="p", label="y")
    monitor = tg.Monitor(tg.Reference.fit(table, schema))
    with pytest.raises(tg.SchemaError, match="prediction_id"):
        monitor.label(table)


# Long lives and odd corners.


def test_a_full_join_makes_room_again(reference: tg.Reference) -> None:
    monitor = tg.Monitor(reference, lateness="1h", max_pending=100)
    for day in range(5):
        columns = traffic(100, 20, days=1)
        columns["id"] = np.arange(100) + 1000 * day
        columns["t"] = columns["t"] + np.timedelta64(3 * day, "D")
        monitor.log(without(columns, "y"))
        monitor.label(labels_of(columns, delay=0))
        monitor.label({"id": columns["id"] + 500_000_000, "y": columns["y"]})  # unknown ids
    account = monitor.account
    assert account.balanced
    assert (account.predictions, account.matched) == (500, 500)
    assert account.early + account.orphan == 500


def test_a_row_without_a_decision_or_score_counts_nowhere() -> None:
    table = {
        "p": [0.9, 0.1, None, 0.8],
        "d": pa.array([1, 0, 1, None], pa.int8()),
        "y": [1, 0, 1, 0],
    }
    schema = tg.Schema(task="binary", prediction_score="p", prediction="d", label="y")
    monitor = tg.Monitor(tg.Reference.fit(table, schema))
    monitor.log(table)
    found = monitor.metrics()
    assert value(found, "true_positives")["value"] == 1
    assert value(found, "accuracy")["n"] == 2
    assert value(found, "accuracy")["label_share"] == 1.0
    assert value(found, "log_loss")["value"] == pytest.approx(-np.log(0.9))


def test_more_versions_and_segments_than_fit_are_pooled() -> None:
    n = 10_050
    schema = tg.Schema(features=["x"], model_version="v", segments=["g"])
    reference = tg.Reference.fit({"x": [1.0]}, schema)
    names = [f"v{i}" for i in range(n)]
    monitor, other = tg.Monitor(reference), tg.Monitor(reference)
    monitor.log({"x": np.zeros(n), "v": names, "g": ["a"] * n})
    other.log({"x": np.zeros(n), "v": ["one"] * n, "g": names})
    for each in (monitor, other):
        rows_seen = each.metrics("row_count", segments="all")["value"].to_pylist()
        assert sum(rows_seen) == n
    segments = other.metrics("row_count")["segment"].to_pylist()
    assert "g=(other)" in segments
    other.merge(monitor)
    assert sum(other.metrics("row_count", segments="all")["value"].to_pylist()) == 2 * n


def test_segments_that_look_alike_stay_apart() -> None:
    schema = tg.Schema(segments=["a", ("a", "b")], features=["x"])
    table = {"x": [1.0, 2.0], "a": ["1 & b=2", "1"], "b": ["3", "2"]}
    monitor = tg.Monitor(tg.Reference.fit(table, schema))
    monitor.log(table)
    counts = monitor.metrics("row_count")
    assert all(number == 1 for number in counts["value"].to_pylist()[1:])


def test_bytes_that_are_no_text_are_shown_as_replaced() -> None:
    schema = tg.Schema(features=["x"], segments=["g"])
    table = pa.table({"x": [1.0, 1.0], "g": pa.array([b"\xff\xfe", b"ok"], pa.binary())})
    monitor = tg.Monitor(tg.Reference.fit(table, schema))
    monitor.log(table)
    assert "g=\ufffd\ufffd" in monitor.metrics("row_count")["segment"].to_pylist()


def test_a_report_draws_all_versions() -> None:
    schema = tg.Schema(features=["x"], model_version="v")
    table = {"x": np.arange(100.0), "v": ["a"] * 10 + ["b"] * 90}
    monitor = tg.Monitor(tg.Reference.fit(table, schema))
    monitor.log(table)
    assert monitor.report().distributions[0].current.sum() == 100
    assert tg.compare(table, table, schema).distributions[0].current.sum() == 100


def test_merge_hands_a_label_to_the_other_version() -> None:
    columns = {**traffic(2, 21), "v": ["a", "b"]}
    columns["id"] = np.array([7, 7])
    reference = tg.Reference.fit(columns, VERSIONED)
    first, second = tg.Monitor(reference), tg.Monitor(reference)
    first.log(rows(without(columns, "y", "v"), [0]) | {"v": ["a"]})
    second.log(rows(without(columns, "y", "v"), [1]) | {"v": ["b"]})
    first.label({"id": [7], "y": [1]})
    first.merge(second)
    assert (first.account.matched, first.account.pending) == (2, 0)
    assert first.account.balanced


def test_a_reference_in_use_does_not_change(reference: tg.Reference) -> None:
    schema = tg.Schema(features=["c"])
    mine = tg.Reference.fit({"c": ["a", "b"]}, schema)
    tg.Monitor(mine)
    with pytest.raises(tg.SchemaError, match="merge before"):
        mine.merge(tg.Reference.fit({"c": ["z"]}, schema, like=mine))
    with pytest.raises(tg.SchemaError, match="into itself"):
        reference.merge(reference)
    with pytest.raises(tg.SchemaError, match="like="):
        tg.Reference.fit({"c": ["z"], "d": ["y"]}, tg.Schema(features=["c", "d"]), like=mine)


def test_infinite_limits_leave_infinities_apart() -> None:
    schema = tg.Schema(features={"x": tg.numeric(limits=(-np.inf, 5.0))})
    report = tg.compare({"x": [1.0, 2.0]}, {"x": [-np.inf, np.inf, 1.0, 9.0]}, schema)
    found = {row["metric"]: row["value"] for row in report.to_arrow().to_pylist()}
    assert found["infinite_rate"] == 0.5
    assert found["out_of_range_rate"] == 0.25


def test_times_before_the_calendar_are_refused(reference: tg.Reference) -> None:
    columns = without(traffic(2, 22), "y")
    columns["t"] = np.array([-(2**63) + 5, START], "int64").view("datetime64[us]")
    with pytest.raises(tg.DataError, match="column 't': row 0 lies before the year 1"):
        tg.Monitor(reference).log(columns)


def test_a_stored_monitor_with_unknown_classes_is_refused(
    reference: tg.Reference, tmp_path: Path
) -> None:
    monitor = tg.Monitor(reference)
    monitor.log(without(traffic(5, 23), "y"))
    header, arrays = monitor.state()
    arrays["join.decisions"] = np.full(5, 10**6, np.int32)
    archive.write(tmp_path / "m", "monitor", header, arrays)
    with pytest.raises(tg.DataError, match="unknown classes"):
        tg.Monitor.load(tmp_path / "m")


def test_ids_of_another_kind_are_refused(reference: tg.Reference) -> None:
    monitor = tg.Monitor(reference)
    columns = traffic(5, 24)
    monitor.log(without(columns, "y"))
    with pytest.raises(tg.DataError, match="ids are of kind text, those before were of kind integ"):
        monitor.label({"id": columns["id"].astype(str), "y": columns["y"]})
    assert monitor.account.labels == 0
    monitor.label(labels_of(columns))
    assert monitor.account.matched == 5
