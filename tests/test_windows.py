"""Windows: rolled up and forgotten by event time, never wrong about what is no longer kept."""

from __future__ import annotations

import json
import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tidegauge as tg
from tidegauge.window import Retention

MINUTE = 60_000_000
HOUR, DAY = 60 * MINUTE, 24 * 60 * MINUTE
START = 1_700_000_000_000_000 // DAY * DAY
RULE = {"1min": "3h", "1h": "2d", "1d": "9d"}

SCHEMA = tg.Schema(
    task="binary",
    prediction_id="id",
    timestamp="t",
    features={"x": tg.numeric(), "g": tg.categorical(categories=["a", "b"])},
    prediction_score="p",
    label="y",
    segments=["g"],
)


def traffic(n: int, seed: int = 0, days: int = 8) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    p = np.round(rng.random(n), 3)
    return {
        "id": np.arange(n) + 1_000_000 * seed,
        "t": (START + np.sort(rng.integers(0, days * DAY, n))).astype("datetime64[us]"),
        "x": rng.normal(size=n),
        "g": rng.choice(["a", "b", "c"], n),
        "p": p,
        "y": (rng.random(n) < p).astype(int),
    }


@pytest.fixture(scope="module")
def reference() -> tg.Reference:
    return tg.Reference.fit(traffic(2000), SCHEMA)


def rows(columns: dict[str, Any], chosen: Any) -> dict[str, Any]:
    return {name: values[chosen] for name, values in columns.items()}


def predictions(columns: dict[str, Any], chosen: Any = slice(None)) -> dict[str, Any]:
    return {name: values[chosen] for name, values in columns.items() if name != "y"}


def labels(columns: dict[str, Any], chosen: Any = slice(None), delay: int = HOUR) -> dict[str, Any]:
    moments = columns["t"] + np.timedelta64(delay, "us")
    return {"id": columns["id"][chosen], "y": columns["y"][chosen], "t": moments[chosen]}


def monitor_of(reference: tg.Reference, **settings: Any) -> tg.Monitor:
    return tg.Monitor(reference, lateness="48h", **{"retention": RULE, **settings})


def filled(monitor: tg.Monitor, columns: dict[str, Any]) -> tg.Monitor:
    monitor.log(predictions(columns))
    monitor.label(labels(columns))
    return monitor


def same_state(a: tg.Monitor, b: tg.Monitor) -> bool:
    (header, arrays), (other_header, other_arrays) = a.state(), b.state()
    equal = json.dumps(header) == json.dumps(other_header) and arrays.keys() == other_arrays.keys()
    return equal and all(arrays[name].tobytes() == other_arrays[name].tobytes() for name in arrays)


def same_sums(a: tg.Monitor, b: tg.Monitor) -> bool:
    """Whether the cells hold the same, bit for bit."""
    mine, theirs = a.state()[1], b.state()[1]
    names = [name for name in mine if name.startswith("table.")]
    return all(mine[name].tobytes() == theirs[name].tobytes() for name in names)


def moment(microseconds: int) -> Any:
    return (
        np.datetime64(microseconds, "us").astype(object).replace(tzinfo=__import__("datetime").UTC)
    )


def told(monitor: tg.Monitor, window: str) -> pa.Table:
    """Metrics but those that depend on how finely the ages of predictions and windows are known."""
    table = monitor.metrics(window=window)
    for name in ("expected_label_share", "backtested_windows"):
        table = table.filter(pc.not_equal(table["metric"], name))
    return table


# Rolling up.


@settings(max_examples=5)  # each compares thousands of values
@given(seed=st.integers(0, 9), cuts=st.lists(st.integers(0, 400), max_size=5))
def test_rolled_up_is_counted_wide_from_the_start(
    reference: tg.Reference, seed: int, cuts: list[int]
) -> None:
    columns = traffic(400, seed)
    fine = monitor_of(reference, retention={"1min": "3h", "1h": "2d", "1d": None})
    wide = tg.Monitor(reference, window="1d", lateness="48h")
    edges = [0, *sorted(cuts), 400]
    for low, high in pairwise(edges):
        filled(fine, rows(columns, slice(low, high)))
    filled(wide, columns)
    assert told(fine, "1d").equals(told(wide, "1d"))
    # One window over everything ends with the last pane, and how far estimates may be off is learnt
    # from windows of the reference that are as wide.
    apart = ["window_start", "window_end", "lower", "upper", "noise_floor"]
    assert told(fine, "all").drop(apart).equals(told(wide, "all").drop(apart))
    assert not same_sums(fine, wide)
    for monitor in (fine, wide):
        monitor.advance(moment(START + 10 * DAY + 1))  # the last pane is older than two days now
    assert same_sums(fine, wide)


@settings(max_examples=5)  # each compares thousands of values
@given(seed=st.integers(0, 9), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_neither_batches_nor_order_show(
    reference: tg.Reference, seed: int, cuts: list[int]
) -> None:
    columns = traffic(300, seed, days=20)  # the first ten days are forgotten on the way
    whole, parts = monitor_of(reference), monitor_of(reference)
    filled(whole, columns)
    order = np.random.default_rng(seed).permutation(300)
    edges = [0, *sorted(cuts), 300]
    for low, high in pairwise(edges):
        parts.log(predictions(columns, order[low:high]))
    for low, high in pairwise(edges):
        parts.label(labels(columns, order[low:high]))
    assert same_sums(whole, parts)
    assert whole.dropped == parts.dropped
    assert whole.dropped["rows"] > 0
    assert whole.metrics().equals(parts.metrics())


def test_monitors_that_are_not_equally_far_merge(reference: tg.Reference) -> None:
    columns = traffic(600, 3, days=14)
    whole = filled(monitor_of(reference), columns)
    for behind_first in (True, False):
        behind = filled(monitor_of(reference), rows(columns, slice(0, 300)))
        ahead = filled(monitor_of(reference), rows(columns, slice(300, 600)))
        first, second = (behind, ahead) if behind_first else (ahead, behind)
        first.merge(second)
        assert same_state(first, whole)


def test_a_stored_monitor_goes_on(reference: tg.Reference, tmp_path: Path) -> None:
    columns = traffic(500, 4, days=14)
    through = filled(monitor_of(reference), columns)
    stopped = filled(monitor_of(reference), rows(columns, slice(0, 300)))
    stopped.save(tmp_path / "monitor.tide")
    resumed = tg.Monitor.load(tmp_path / "monitor.tide")
    assert same_state(stopped, resumed)
    filled(resumed, rows(columns, slice(300, 500)))
    assert same_state(through, resumed)
    with pytest.raises(tg.SchemaError, match="retention"):
        resumed.merge(tg.Monitor(reference, window="1min", lateness="48h"))


def test_a_label_adds_to_the_window_that_its_prediction_has_become_part_of(
    reference: tg.Reference,
) -> None:
    columns = traffic(200, 5, days=1)
    monitor = monitor_of(reference)
    monitor.log(predictions(columns))
    monitor.advance(moment(START + 3 * DAY + 1))
    monitor.label(labels(columns))
    found = monitor.metrics("label_count", segments="all").to_pylist()
    assert [(row["window_start"], row["value"]) for row in found] == [(moment(START), 200.0)]


def test_what_is_forgotten_is_counted(reference: tg.Reference) -> None:
    columns = traffic(400, 6, days=1)
    monitor = filled(monitor_of(reference), columns)
    before = monitor.n_bytes
    monitor.advance(moment(START + 12 * DAY))
    assert monitor.dropped == {"rows": 400, "labelled": 400}
    assert monitor.metrics().num_rows == 0
    assert monitor.n_bytes < before / 20
    late = traffic(50, 7, days=1)
    assert monitor.log(predictions(late)) == 50
    assert monitor.dropped == {"rows": 450, "labelled": 400}
    assert monitor.account.predictions == 450


def test_memory_stays_bounded_however_long_traffic_runs(reference: tg.Reference) -> None:
    monitor = tg.Monitor(reference, retention={"1min": "1h", "1h": "1d"}, lateness="1h")
    columns = traffic(600, 8, days=1)
    sizes = []
    for day in range(12):
        moved = columns | {"t": columns["t"] + np.timedelta64(day, "D")}
        moved["id"] = columns["id"] + 1000 * day
        filled(monitor, moved)
        sizes.append(monitor.n_bytes)
    assert max(sizes[2:]) < 1.3 * sizes[1]


# What is asked for, and what is kept.


def test_windows_narrower_than_what_is_kept_say_so(reference: tg.Reference) -> None:
    columns = traffic(4000, 9, days=7)
    monitor = filled(monitor_of(reference), columns)
    exact = filled(tg.Monitor(reference, window="1min", lateness="48h"), columns)
    kept_hourly = START + 4 * DAY  # the watermark is an hour into the eighth day
    for window, step in (("1h", None), ("6h", None), ("6h", "1h"), ("36h", None)):
        found = monitor.metrics("row_count", segments="all", window=window, step=step)
        known = {
            (row["window_start"], row["window_end"]): row
            for row in exact.metrics(
                "row_count", segments="all", window=window, step=step
            ).to_pylist()
        }
        statuses = set()
        for row in found.to_pylist():
            statuses.add(row["status"])
            if row["status"] == "not kept":
                assert row["value"] is None
                assert row["window_start"] < moment(kept_hourly + DAY)
            else:
                assert row == known[row["window_start"], row["window_end"]]
                assert row["window_start"] >= moment(kept_hourly)
        assert statuses == {"ok", "not kept"}
    assert set(monitor.metrics("row_count", window="2d")["status"].to_pylist()) == {"ok"}


def test_windows_are_as_wide_as_they_are_kept_unless_asked(reference: tg.Reference) -> None:
    columns = traffic(4000, 10, days=7)
    monitor = filled(monitor_of(reference), columns)
    found = monitor.metrics("row_count", segments="all")
    widths = {
        (row["window_end"] - row["window_start"]).total_seconds() for row in found.to_pylist()
    }
    assert widths == {60, 3600, 86_400}
    assert pc.sum(found["value"]).as_py() == 4000
    assert found["window_start"].to_pylist()[1:] == found["window_end"].to_pylist()[:-1]


def test_a_window_that_has_lost_a_part_says_so(reference: tg.Reference) -> None:
    columns = traffic(900, 11, days=40)
    monitor = filled(monitor_of(reference), columns)
    found = monitor.metrics("row_count", segments="all", window="1mo").to_pylist()
    assert [row["status"] for row in found] == ["not kept"]
    whole = monitor.metrics("row_count", segments="all", window="all").to_pylist()
    assert whole[0]["value"] == 900 - monitor.dropped["rows"]
    assert whole[0]["status"] == "ok"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "retention says how long"),
        ({"2h": "7d", "3h": "9d"}, "'2h' does not divide '3h'"),
        ({"1h": "7d", "1d": "7d"}, "wider panes are kept for longer"),
        ({"1h": None, "1d": "7d"}, "only the widest panes may be kept for ever"),
        ({"1h": "1d"}, "labels may come 48h after"),
        ({"1h": "soon"}, "retention of '1h' is a whole number"),
        ({"2d": "7d"}, "must divide a day"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(
    reference: tg.Reference, rule: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tg.Monitor(reference, retention=rule, lateness="48h")


def test_retention_needs_its_window_and_a_time(reference: tg.Reference) -> None:
    with pytest.raises(ValueError, match="not the smallest width"):
        tg.Monitor(reference, window="1h", retention=RULE)
    timeless = tg.Reference.fit({"x": [1.0]}, tg.Schema(features=["x"]))
    with pytest.raises(ValueError, match="must name a `timestamp`"):
        tg.Monitor(timeless, retention=RULE)
    assert tg.Monitor(reference, retention=RULE).window == "1min"
    assert tg.Monitor(reference).window == "1h"


@given(
    watermarks=st.lists(st.integers(-(10**17), 10**17), min_size=2, max_size=2).map(sorted),
    time=st.integers(-(10**17), 10**17),
)
def test_bounds_only_move_on_and_no_pane_lies_across_one(watermarks: list[int], time: int) -> None:
    rule = Retention.parse(RULE)
    before, after = (rule.bounds(watermark) for watermark in watermarks)
    assert (before <= after).all()
    assert (np.diff(after) <= 0).all()
    for bound, width in zip(after, [*rule.widths[1:], rule.widths[-1]], strict=True):
        assert bound % width == 0


# Windows without traffic.


def test_windows_without_traffic_are_there(reference: tg.Reference) -> None:
    columns = traffic(500, 12, days=1)
    quiet = (columns["t"] - np.datetime64(START, "us")).astype(np.int64) // HOUR
    columns = rows(columns, (quiet < 5) | (quiet >= 9))
    monitor = filled(tg.Monitor(reference, window="1h", lateness="48h"), columns)
    found = monitor.metrics(["row_count", "accuracy"], segments="all").to_pylist()
    silent = {row["window_start"] for row in found if row["n"] == 0}
    assert silent == {moment(START + hour * HOUR) for hour in range(5, 9)}
    assert {row["status"] for row in found if row["n"] == 0 and row["metric"] == "accuracy"} == {
        "no data"
    }
    assert len(found) == 2 * 24
    months = monitor.metrics("row_count", segments="all", window="1mo")
    assert months.num_rows == 1


def test_one_old_event_does_not_ask_for_millions_of_windows(reference: tg.Reference) -> None:
    monitor = tg.Monitor(reference, window="1min")
    columns = traffic(2, 13)
    columns["t"] = np.array(["1970-01-01", "2024-01-01"], "datetime64[us]")
    monitor.log(predictions(columns))
    assert (
        monitor.metrics("row_count", segments="all").num_rows == 10_001
    )  # and the old event's own


# Bounds on segments.


def test_segments_beyond_the_cap_are_pooled_and_counted(
    reference: tg.Reference, caplog: pytest.LogCaptureFixture
) -> None:
    schema = tg.Schema(features=["x"], model_version="v", segments=["a", ("a", "b")], timestamp="t")
    n = 400
    rng = np.random.default_rng(0)
    table = {
        "x": np.zeros(n),
        "v": rng.choice(["1", "2"], n),
        "a": rng.integers(0, 20, n),
        "b": rng.integers(0, 20, n),
        "t": (START + np.arange(n) * MINUTE).astype("datetime64[us]"),
    }
    fitted = tg.Reference.fit(rows(table, slice(0, 1)), schema)
    monitor = tg.Monitor(fitted, max_segments=50)
    with caplog.at_level(logging.WARNING, logger="tidegauge.window"):
        monitor.log(table)
    assert "(other)" in caplog.text
    found = monitor.metrics(["row_count", "pooled_rate"], window="all")
    names = set(zip(found["version"].to_pylist(), found["segment"].to_pylist(), strict=True))
    assert len(names) <= 50 + 2 * 2  # an "(other)" of each version and set
    by_set = {
        mark: sum(
            row["value"]
            for row in found.to_pylist()
            if row["metric"] == "row_count" and row["segment"].count("=") == mark
        )
        for mark in (0, 1, 2)
    }
    assert by_set == {0: n, 1: n, 2: n}
    rates = {
        row["segment"]: row["value"]
        for row in found.to_pylist()
        if row["metric"] == "pooled_rate" and row["version"] == "1"
    }
    assert 0 < rates["all"] < 1
    assert rates["a=(other) & b=(other)"] == 1
    assert {rate for name, rate in rates.items() if "(other)" not in name} == {0.0, rates["all"]}
    parts = tg.Monitor(fitted, max_segments=50)
    for low in range(0, n, 7):
        parts.log(rows(table, slice(low, low + 7)))
    assert parts.metrics().equals(monitor.metrics())


def test_segments_that_have_left_make_room(reference: tg.Reference) -> None:
    monitor = tg.Monitor(reference, retention={"1h": "3d"}, lateness="1h", max_segments=3)
    for day, names in enumerate([["k", "l"], ["m", "n"], ["k", "l"]]):
        columns = traffic(40, day, days=1)
        columns["t"] = columns["t"] + np.timedelta64(10 * day, "D")
        columns["g"] = np.array(names * 20)
        monitor.advance(moment(START + 10 * day * DAY))
        monitor.log(predictions(columns))
        found = set(monitor.metrics("row_count", segments=None)["segment"].to_pylist())
        assert found == {"all", *(f"g={name}" for name in names)}


# Labels of every task.

CLASSES = ["p", "q", "r"]


def labelled_traffic(task: str, weighted: bool, n: int = 120) -> tuple[tg.Schema, dict[str, Any]]:
    """Traffic with everything that its task can have, scores that are missing now and then too."""
    rng = np.random.default_rng(14)
    columns = {
        "id": np.arange(n),
        "t": (START + np.sort(rng.integers(0, 3 * DAY, n))).astype("datetime64[us]"),
        "x": rng.normal(size=n),
    }
    roles: dict[str, Any] = {"label": "y", "features": ["x"], "segments": ["s"]}
    columns["s"] = rng.choice(["k", "l"], n)
    if weighted:
        roles["weight"] = "w"
        columns["w"] = rng.gamma(1.0, size=n)
    if task == "binary":
        roles["prediction_score"] = "p"
        columns["p"] = np.where(rng.random(n) < 0.1, np.nan, rng.random(n))
        columns["y"] = rng.integers(0, 2, n)
    elif task == "multiclass":
        roles["prediction_score"] = {name: f"p_{name}" for name in CLASSES}
        for name, p in zip(CLASSES, rng.dirichlet(np.ones(3), n).T, strict=True):
            columns[f"p_{name}"] = np.where(rng.random(n) < 0.1, np.nan, p)
        columns["y"] = rng.choice(CLASSES, n)
    else:
        roles["prediction"] = "p"
        columns["p"] = np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n) * 1e3)
        columns["y"] = rng.normal(size=n) * 1e-3
    schema = tg.Schema(task=task, prediction_id="id", timestamp="t", **roles)  # type: ignore[arg-type]
    return schema, columns


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_repeated_labels_correct_and_leave_no_trace(task: str, weighted: bool) -> None:
    schema, columns = labelled_traffic(task, weighted)
    fitted = tg.Reference.fit(columns, schema)
    rng = np.random.default_rng(15)
    order = rng.permutation(len(columns["id"]))
    wrong = rows(columns, order) | {"y": columns["y"][rng.permutation(len(order))]}
    right, corrected = (monitor_of(fitted) for _ in range(2))
    for monitor in (right, corrected):
        monitor.log(predictions(columns))
    corrected.label(labels(wrong))
    corrected.label(labels(wrong, slice(0, 50)))  # says the same again
    corrected.advance(moment(START + 5 * DAY))  # some are rolled up before they are corrected
    right.label(labels(columns))
    corrected.label(labels(columns))
    right.advance(moment(START + 5 * DAY))
    assert same_sums(right, corrected)
    assert corrected.account.corrected == (wrong["y"] != columns["y"][order]).sum()
    assert corrected.account.duplicate >= 50
    assert right.metrics(window="1d").equals(corrected.metrics(window="1d"))
