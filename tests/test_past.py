"""Metrics as they were known: those of a monitor that had seen no more, to the bit."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pairs import HOUR, START, TASKS, moments, monitor_of, predicted, truth

import tidegauge as tg
from tidegauge import past as module


def instant(hours: float) -> datetime:
    moment: datetime = moments(hours).astype(object)
    return moment.replace(tzinfo=UTC)


def events(task: str, n: int, seed: int) -> list[tuple[float, str, dict[str, Any]]]:
    """Calls of a row each, in the order of their arrival: (watermark after it, kind, rows)."""
    rng = np.random.default_rng(seed)
    calls: list[tuple[float, str, dict[str, Any]]] = []
    tables = {v: predicted(v, n, k) for k, v in enumerate("abc", 1)}
    labels = [truth(task, n, each) for each in (9, 10)]
    at = np.sort(rng.uniform(0, 12, n)).round(2)
    for i in range(n):
        for version, table in tables.items():
            hour = max(0.0, at[i] - rng.choice([0.0, 2.0], p=[0.8, 0.2]))  # some out of order
            row = {name: values[i : i + 1] for name, values in table.items()}
            calls.append((at[i], "log", row | {"t": moments([hour]), "v": np.array([version])}))
        for y in labels[: rng.integers(0, 3)]:  # none, one, or one and its correction
            came = at[i] + rng.exponential(3)
            row = {"id": np.array([i]), "y": y[i : i + 1], "t": moments([came])}
            calls.append((came, "label", row))
        if rng.random() < 0.1:
            calls.append((at[i] + rng.uniform(0, 6), "forget", {"id": np.array([i])}))
    calls.sort(key=lambda call: call[0])
    mark, ordered = 0.0, []
    for _, kind, rows in calls:
        if kind != "forget":
            mark = max(mark, (int(rows["t"].astype(np.int64)[0]) - START) / HOUR)
        ordered.append((mark, kind, rows))
    return ordered


def play(monitor: tg.Monitor, calls: list[tuple[float, str, dict[str, Any]]]) -> None:
    for _, kind, rows in calls:
        if kind == "forget":
            monitor.forget(rows["id"])
        else:
            getattr(monitor, kind)(rows)


def with_traffic(table: pa.Table) -> list[dict[str, Any]]:
    """Rows of cells that had predictions by then, in an order of their own."""
    rows = [row for row in table.to_pylist() if row["label_share"] is not None]
    return sorted(rows, key=lambda row: [str(row[k]) for k in KEY])


KEY = ("window_start", "version", "segment", "metric", "column")


@settings(max_examples=25)
@given(
    task=st.sampled_from(list(TASKS)),
    seed=st.integers(0, 1000),
    hour=st.sampled_from([0.5, 3.0, 7.25, 12.0, 40.0]),
    window=st.sampled_from([None, "3h", "all"]),
)
def test_it_is_what_a_monitor_says_that_has_seen_no_more(
    task: str, seed: int, hour: float, window: str | None
) -> None:
    calls = events(task, 25, seed)
    monitor, twin = (monitor_of(task, history="100d") for _ in range(2))
    play(monitor, calls)
    play(twin, [call for call in calls if call[0] <= hour])
    assert monitor.watermark is not None
    twin.advance(min(instant(hour), monitor.watermark))  # time that nobody has seen is not known
    before = monitor.state()[1]
    told = monitor.metrics(known_at=instant(hour), window=window)
    known = (
        twin.metrics(told["metric"].unique().to_pylist(), window=window) if told.num_rows else told
    )
    assert with_traffic(told) == with_traffic(known)
    after = monitor.state()[1]
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


def test_rows_of_one_call_are_known_each_at_its_time(tmp_path: Path) -> None:
    """A day of labels in one file is not all known at its end; nor does storing lose when."""
    n = 60
    monitor = monitor_of("binary", history="100d")
    monitor.log(predicted("a", n, 1) | {"t": moments(np.arange(n) / 60)})
    came = 1 + np.arange(n) / 60
    monitor.label({"id": np.arange(n), "y": truth("binary", n), "t": moments(came)})
    monitor.save(tmp_path / "monitor.tide")
    for each in (monitor, tg.Monitor.load(tmp_path / "monitor.tide")):
        for hour in (0.25, 1.5, 2.0):
            rows = each.metrics("accuracy", segments="all", window="all", known_at=instant(hour))
            (row,) = rows.to_pylist()
            predictions = int((np.arange(n) / 60 <= hour).sum())
            assert row["n"] == (came <= hour).sum()
            assert row["label_share"] == row["n"] / predictions


def test_two_monitors_know_together_what_each_did() -> None:
    y = truth("binary", 40)
    one, two = (monitor_of("binary", history="100d") for _ in range(2))
    for monitor, ids, came in ((two, np.arange(20), 5), (one, np.arange(20, 40), 7)):
        rows = predicted("a", 40, 1)
        monitor.log({name: values[ids] for name, values in rows.items()})
        monitor.label({"id": ids, "y": y[ids], "t": np.full(20, moments(came))})
    one.merge(two)
    counts = [
        one.metrics("label_count", segments="all", window="all", known_at=instant(hour))
        for hour in (4, 6, 8)
    ]
    assert [each["value"].to_pylist() for each in counts] == [[0.0], [20.0], [40.0]]


def test_the_past_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_TOGETHER", 1)
    monitor = monitor_of("binary", history="6h")
    for hour in range(24):
        rows = predicted("a", 24, 1)
        own = {name: values[hour : hour + 1] for name, values in rows.items()}
        monitor.log(own | {"t": moments([hour])})
    assert monitor._past is not None
    assert len(monitor._past.blocks) == 7  # from 17:00 to 23:00
    assert monitor.metrics("accuracy", known_at=instant(17)).num_rows
    with pytest.raises(ValueError, match=r"kept from 2023-11-15T15:00.*a longer history"):
        monitor.metrics("accuracy", known_at=instant(16))
    held = monitor._past.n_bytes
    assert 7 * 40 < held < 7 * 1000
    monkeypatch.setattr(module, "MAX_BYTES", held // 2)
    monitor.log(predicted("b", 1, 1) | {"t": moments([23])})
    assert monitor._past.n_bytes <= held // 2
    with pytest.raises(ValueError, match="a longer history"):
        monitor.metrics("accuracy", known_at=instant(17))


def test_mistakes_are_answered_with_what_to_do() -> None:
    monitor = monitor_of("binary", history="6h")
    monitor.log(predicted("a", 24, 1))
    with pytest.raises(ValueError, match="'missing_rate' cannot be told as known"):
        monitor.metrics("missing_rate", known_at=instant(1))
    with pytest.raises(ValueError, match="needs a zone"):
        monitor.metrics(known_at=datetime(2024, 1, 1))
    with pytest.raises(ValueError, match='history="48h"'):
        monitor_of("binary").metrics(known_at=instant(1))
    with pytest.raises(tg.SchemaError, match="history"):
        monitor.merge(monitor_of("binary"))
    plain = tg.Schema(task="binary", prediction_score="p", label="y", features=["x"])
    reference = tg.Reference.fit(predicted("a", 9, 1) | {"y": truth("binary", 9)}, plain)
    with pytest.raises(tg.SchemaError, match="history is of labels that come later"):
        tg.Monitor(reference, history="1d")
