"""Challengers beside the champion: sums over the ids that both have predicted, and label delays."""

from __future__ import annotations

from datetime import UTC, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tidegauge as tg
from tidegauge.maturity import edges_within, expected_share, shares_by_age

HOUR = 3_600_000_000
START = 1_700_000_000_000_000 // HOUR * HOUR

COMMON: dict[str, Any] = {
    "prediction_id": "id",
    "timestamp": "t",
    "model_version": "v",
    "features": ["x"],
    "label": "y",
}
TASKS = {
    "binary": tg.Schema(task="binary", prediction_score="p", segments=["g"], **COMMON),
    "weighted": tg.Schema(task="binary", prediction_score="p", weight="w", **COMMON),
    "decided": tg.Schema(task="binary", prediction="d", **COMMON),
    "multiclass": tg.Schema(
        task="multiclass", prediction_score={"a": "pa", "b": "pb", "c": "pc"}, **COMMON
    ),
    "regression": tg.Schema(task="regression", prediction="p", **COMMON),
}
APART = {  # what the difference of the two versions is made of
    "binary": ("accuracy", "log_loss", "brier_score"),
    "weighted": ("accuracy", "log_loss", "brier_score"),
    "decided": ("accuracy",),
    "multiclass": ("accuracy", "log_loss", "brier_score"),
    "regression": ("mae", "mse"),
}


def moments(hours: Any) -> Any:
    return (START + (np.asarray(hours) * HOUR).astype(np.int64)).astype("datetime64[us]")


def predicted(version: str, n: int, seed: int) -> dict[str, Any]:
    """Rows under the same ids, times and segments whatever the seed."""
    common, own = np.random.default_rng(0), np.random.default_rng(seed)
    p = own.dirichlet(np.ones(3), n)
    return {
        "id": np.arange(n),
        "t": moments(common.integers(0, 3, n)),
        "v": np.array([version] * n),
        "x": np.zeros(n),
        "g": common.choice(["k", "l"], n),
        "w": common.random(n),
        "p": own.random(n),
        "d": own.integers(0, 2, n),
        **dict(zip(("pa", "pb", "pc"), p.T, strict=True)),
    }


def truth(task: str, n: int, seed: int = 9) -> Any:
    rng = np.random.default_rng(seed)
    if task == "multiclass":
        return rng.choice(["a", "b", "c"], n)
    return rng.normal(size=n) if task == "regression" else rng.integers(0, 2, n)


@cache
def reference_of(task: str) -> tg.Reference:
    return tg.Reference.fit(predicted("a", 60, 1) | {"y": truth(task, 60)}, TASKS[task])


def monitor_of(task: str, champion: str | None = "a", **settings_: Any) -> tg.Monitor:
    return tg.Monitor(reference_of(task), champion=champion, **settings_)


@pytest.mark.parametrize("task", TASKS)
def test_a_difference_is_that_of_the_two_versions(task: str) -> None:
    n = 200
    monitor = monitor_of(task)
    for version, seed in (("a", 1), ("b", 2), ("c", 3)):
        monitor.log(predicted(version, n, seed))
    monitor.label({"id": np.arange(n), "y": truth(task, n), "t": np.full(n, moments(5))})
    found = [
        {(row["version"], row["window_start"], row["metric"]): row for row in table.to_pylist()}
        for table in (
            monitor.metrics(list(APART[task]), segments="all"),
            monitor.metrics(segments="all"),
        )
    ]
    apart, together = found
    for (version, window, name), row in together.items():
        bare = name.removeprefix("paired_").removesuffix("_difference")
        if bare != name and bare in APART[task] and version != "a":
            one, two = (apart[each, window, bare]["value"] for each in ("a", version))
            assert row["value"] == pytest.approx(two - one, abs=1e-9)
            assert row["lower"] < row["value"] < row["upper"]
            assert row["n"] == together[version, window, "pair_count"]["value"]
        elif name == "pair_count":
            assert (row["value"] == 0) == (version == "a")
    assert sum(row["value"] for key, row in together.items() if key[2] == "pair_count") == 2 * n


@pytest.mark.parametrize("task", TASKS)
def test_nothing_is_left_of_what_was_taken_back(task: str, tmp_path: Path) -> None:
    """Corrections, deletions and a merge of what both sides have seen leave exact sums."""
    n = 40
    plain, corrected, forgetful, half, rest = (monitor_of(task) for _ in range(5))
    for monitor in (plain, corrected, forgetful, half, rest):
        for version, seed in (("a", 1), ("b", 2)):
            monitor.log(predicted(version, n, seed))
    y, late = truth(task, n), np.full(n, moments(5))
    corrected.label({"id": np.arange(n), "y": truth(task, n, seed=10), "t": late})
    for monitor in (plain, corrected, forgetful):
        monitor.label({"id": np.arange(n), "y": y, "t": late})
    half.label({"id": np.arange(n)[:20], "y": y[:20], "t": late[:20]})
    rest.label({"id": np.arange(n)[10:], "y": y[10:], "t": late[10:]})
    rest.save(tmp_path / "monitor.tide")
    half.merge(tg.Monitor.load(tmp_path / "monitor.tide"))
    blocks = plain._table.layout.delay_block, plain._table.layout.delay_block + 1
    names = [f"table.{part}_{block}" for part in ("slots", "counts") for block in blocks]
    names.append("table.limbs")
    wanted = plain.state()[1]
    for monitor in (corrected, half):
        assert all(np.array_equal(monitor.state()[1][name], wanted[name]) for name in names)
    assert forgetful.forget(np.arange(n)) == 2 * n
    assert not forgetful.state()[1]["table.limbs"].any()
    assert len(forgetful.state()[1][names[-2]]) == 0


def test_pairs_are_made_whoever_comes_last() -> None:
    n = 30
    y = {"id": np.arange(n), "y": truth("binary", n), "t": np.full(n, moments(5))}
    rows = {v: predicted(v, n, seed) for v, seed in (("a", 1), ("b", 2), ("c", 3))}
    states = []
    for order in (["a", "b", "c", "y"], ["y", "c", "b", "a"], ["b", "y", "a", "c"]):
        monitor = monitor_of("binary")
        for step in order:
            _ = monitor.label(y) if step == "y" else monitor.log(rows[step])
        block = monitor._table.layout.delay_block + 1
        table, arrays = monitor._table.state()
        states.append(
            [table["names"], arrays["limbs"].tolist(), arrays[f"counts_{block}"].tolist()]
        )
    assert states[0] == states[1] == states[2]


def test_a_champion_needs_ids_versions_and_labels() -> None:
    monitor = monitor_of("binary", champion=None)
    monitor.log(predicted("a", 5, 1))
    with pytest.raises(ValueError, match="champion is named by Monitor"):
        monitor.metrics("paired_accuracy_difference")
    plain = tg.Schema(task="binary", prediction_score="p", label="y", features=["x"])
    reference = tg.Reference.fit(predicted("a", 9, 1) | {"y": truth("binary", 9)}, plain)
    with pytest.raises(tg.SchemaError, match="`prediction_id`, `model_version`"):
        tg.Monitor(reference, champion="a")
    monitor = tg.Monitor(reference)
    monitor.log(predicted("a", 5, 1))
    with pytest.raises(ValueError, match="must name `prediction_id`, `timestamp` and `label`"):
        monitor.metrics("label_delay")
    with pytest.raises(tg.SchemaError, match="champion"):
        monitor_of("binary").merge(monitor_of("binary", champion="b"))


# Label delays and maturity.

delays = st.lists(st.floats(0, 9 * HOUR), min_size=1, max_size=60)


@settings(max_examples=50)
@given(delays)
def test_once_all_is_old_shares_are_those_of_the_delays(seconds: list[float]) -> None:
    edges = edges_within(10 * HOUR)
    counts = np.histogram(seconds, np.unique(edges))[0]
    counts = np.pad(counts, (0, len(edges) - 1 - len(counts)))[None]
    shares = shares_by_age(np.zeros(1, np.int64), counts, edges, 10 * HOUR)
    assert shares == pytest.approx(np.append(0, np.cumsum(counts)) / counts.sum(), abs=1e-12)
    assert expected_share(np.array([20.0 * HOUR]), edges, shares) == 1.0


def test_young_traffic_does_not_make_labels_look_quick() -> None:
    """Labels take 4 h on average, windows of an hour began 24 h ago; only 1 in 6 is complete."""
    rng = np.random.default_rng(4)
    n, now, edges = 200_000, 24 * HOUR, edges_within(48 * HOUR)
    times = rng.uniform(0, now, n)
    took = rng.exponential(4 * HOUR, n)
    came = times + took <= now
    pane, bins = (times // HOUR).astype(int), np.searchsorted(edges, took, side="right") - 1
    counts = np.zeros((24, len(edges) - 1), np.int64)
    np.add.at(counts, (pane[came], bins[came]), 1)
    shares = shares_by_age((np.arange(24) + 1) * HOUR, counts, edges, now)
    ages = np.array([1, 2, 4, 8, 16]) * HOUR
    known = expected_share(ages.astype(float), edges, shares)
    assert known == pytest.approx(1 - np.exp(-ages / (4 * HOUR)), abs=0.02)
    naive = [(took[came] <= age).mean() for age in ages]
    assert naive[2] - known[2] > 0.05  # what counting the delays so far would say


def test_the_share_expected_and_the_share_here_agree() -> None:
    """Exponential delays of 2 h on average; windows from the last one to one a day ago."""
    rng = np.random.default_rng(5)
    n, hours = 20_000, 24
    monitor = monitor_of("binary", champion=None)
    at, took = rng.uniform(0, hours, n), rng.exponential(2, n)
    rows = predicted("a", n, 1) | {"t": moments(at)}
    monitor.log(rows)
    here = np.flatnonzero(at + took <= hours)
    monitor.label({"id": here, "y": truth("binary", n)[here], "t": moments((at + took)[here])})
    monitor.advance((moments(hours)).astype(object).replace(tzinfo=UTC))
    table = monitor.metrics(["expected_label_share", "label_delay", "accuracy"], segments="all")
    by_metric: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        by_metric.setdefault(row["metric"], []).append(row)
    for expected, accuracy in zip(
        by_metric["expected_label_share"], by_metric["accuracy"], strict=True
    ):
        assert expected["value"] == pytest.approx(accuracy["label_share"], abs=0.04)
        assert expected["label_share"] == accuracy["label_share"]
    halves = [row["value"] for row in by_metric["label_delay"]]
    assert halves[0] == pytest.approx(2 * 3600 * np.log(2), rel=0.1)
    assert halves[-1] < 3600 < halves[0]
    assert sum(row["n"] for row in by_metric["label_delay"]) == len(here)
    monitor.advance((moments(hours)).astype(object).replace(tzinfo=UTC) + timedelta(days=3))
    table = monitor.metrics("expected_label_share", window="all", segments="all")
    assert table["value"].to_pylist() == [1.0]
