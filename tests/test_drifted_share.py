"""How many features have drifted: the tests behind it, false alarms on quiet days, power."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import tidegauge as tg
from tidegauge.metrics.drift import evidence
from tidegauge.metrics.inputs import Bins, Fine
from tidegauge.metrics.significance import LEAST_WINDOWS, Quiet, n_rejected, student_tail

DAY = np.timedelta64(1, "D").astype("timedelta64[us]")
ROWS = 400  # a day


def test_student_tail_is_that_of_scipy() -> None:
    t, degrees = np.meshgrid(np.linspace(-9, 40, 300), [1, 2, 3, 4, 5, 9, 10, 23, 46, 126, 127])
    exact = stats.t.sf(t, degrees)
    np.testing.assert_allclose(student_tail(t, degrees), exact, rtol=1e-5, atol=1e-14)
    assert student_tail(np.array(np.inf), np.array(9)) == 0


@given(
    st.lists(st.floats(0, 1) | st.just(np.nan), min_size=1, max_size=30),
    st.sampled_from(["bh", "by"]),
    st.sampled_from([0.01, 0.05, 0.3]),
)
def test_rejections_are_those_of_scipy(p_values, method, q) -> None:
    known = [p for p in p_values if not np.isnan(p)]
    adjusted = stats.false_discovery_control(known, method=method) if known else np.empty(0)
    near = np.abs(adjusted - q) < 1e-12  # decided by rounding
    found = n_rejected(np.array(p_values), q, method)
    assert (adjusted[~near] < q).sum() <= found <= (adjusted <= q).sum() + near.sum()


def test_evidence_is_about_one_without_change() -> None:
    rng = np.random.default_rng(0)
    p = np.full(300, 1 / 300)
    before, after = rng.multinomial(4000, p, 3000), rng.multinomial(900, p, 3000)
    edges = np.arange(301.0)
    for sides in ((Fine(before, edges), Fine(after, edges)), (Bins(before), Bins(after))):
        statistic, size, p_value = evidence(*sides)
        assert statistic.mean() == pytest.approx(1, rel=0.1)  # bins hide a little of a gap
        assert size[0] == pytest.approx(4000 * 900 / 4900)
        assert (p_value < 0.05).mean() == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("parts", [(1,), (1, 0.25, 0.1), (1,) * 3, (1,) * 9])
@pytest.mark.parametrize("windows", [LEAST_WINDOWS, 30, 100])
def test_quiet_windows_rarely_stand_out(parts, windows) -> None:
    """Sums of squares of normal variables, from one to many: at 1 in 1,000 at most twice that."""
    rng = np.random.default_rng(0)

    def quiet(*shape: int) -> np.ndarray:
        return sum(3 * part * rng.normal(size=shape) ** 2 for part in parts)

    size = np.full(windows, 50.0)
    for_all = [Quiet.of(quiet(windows), size) for _ in range(300)]
    p = np.concatenate([each.p_value(quiet(400), size[0]) for each in for_all])
    assert (p < 0.05).mean() < 1.3 * 0.05
    assert (p < 0.001).mean() < 2.2 * 0.001


def test_windows_of_another_size_are_judged_by_their_own() -> None:
    rng = np.random.default_rng(0)
    rows = np.repeat([100, 1000], 20)
    days = rng.normal(0, 0.2, 40)
    statistic = 1 + rows * days**2
    few, many = (Quiet.of(statistic, rows) for _ in range(2))
    assert few.p_value(np.array(9.0), np.array(100.0)) < many.p_value(
        np.array(9.0), np.array(1000.0)
    )


def test_too_few_windows_say_nothing() -> None:
    one = Quiet.of(np.ones(LEAST_WINDOWS - 1), np.ones(LEAST_WINDOWS - 1))
    assert np.isnan(one.p_value(np.array(9.0), np.array(1.0)))
    alike = Quiet.of(np.ones(LEAST_WINDOWS), np.ones(LEAST_WINDOWS))
    assert alike.p_value(np.array([0.5, 1.0, 1.1]), np.array(1.0)).tolist() == [1, 1, 0]


def traffic(
    rng: np.random.Generator, days: int, *, day_effect: float = 0.0, memory: float = 0.0
) -> dict[str, Any]:
    """Forty features, half of them categorical, whose days differ among themselves."""
    day = np.arange(days * ROWS) // ROWS
    columns: dict[str, Any] = {"time": np.datetime64("2024-01-01", "us") + day * DAY}
    for k in range(40):
        effect = rng.normal(size=days)
        for i in range(1, days):
            effect[i] = memory * effect[i - 1] + np.sqrt(1 - memory**2) * effect[i]
        x = rng.normal(size=len(day)) + day_effect * effect[day]
        columns[f"x{k}"] = x if k % 2 else np.array(["a", "b", "c"])[np.digitize(x, [-0.5, 0.7])]
    return columns


def split(columns: dict[str, Any], day: int) -> tuple[dict[str, Any], dict[str, Any]]:
    cut = day * ROWS
    return ({k: v[:cut] for k, v in columns.items()}, {k: v[cut:] for k, v in columns.items()})


def drifted(before: dict[str, Any], after: dict[str, Any], **options: Any) -> np.ndarray:
    """Number of features by day."""
    features = [name for name in before if name != "time"]
    reference = tg.Reference.fit(before, tg.Schema(features=features, timestamp="time"))
    monitor = tg.Monitor(reference, window="1d")
    monitor.log(after)
    table = monitor.metrics(tg.metrics.get("drifted_share", **options))
    assert set(table["column"].to_pylist()) == {None}
    assert set(table["n"].to_pylist()) == {len(features)}
    return table["value"].to_numpy() * len(features)


@pytest.mark.parametrize(
    ("day_effect", "memory", "alarms", "alarms_by_rows"),
    [(0.0, 0.0, (0, 0.06), (0, 0.08)), (0.3, 0.0, (0, 0.15), (1, 1)), (0.3, 0.5, (0, 0.2), (1, 1))],
)
def test_false_alarms_of_quiet_days(day_effect, memory, alarms, alarms_by_rows) -> None:
    """Days on which any of 40 features is said to have drifted; nominally 5 %."""
    rng = np.random.default_rng(0)
    parts = [split(traffic(rng, 60, day_effect=day_effect, memory=memory), 30) for _ in range(5)]
    for null, (least, most) in (("windows", alarms), ("rows", alarms_by_rows)):
        found = np.concatenate([drifted(*part, null=null) for part in parts])
        assert least <= (found > 0).mean() <= most, null
        if null == "windows":
            assert found.mean() / 40 < 0.0075
            stricter = np.concatenate([drifted(*part, method="by") for part in parts])
            assert (stricter > 0).mean() <= max(0.05, (found > 0).mean() / 2)


@pytest.mark.parametrize(("day_effect", "shift"), [(0.0, 0.3), (0.3, 2.0)])
def test_power(day_effect, shift) -> None:
    """Four of forty features move by so many deviations of a row: all are found, few others."""
    rng = np.random.default_rng(1)
    before, after = split(traffic(rng, 50, day_effect=day_effect), 40)
    for name in ("x1", "x3", "x5", "x7"):
        after[name] = after[name] + shift
    found = drifted(before, after)
    assert (found >= 4).mean() >= 0.9
    assert found.mean() < 4.5


def test_short_references_fall_back_to_rows() -> None:
    before, after = split(traffic(np.random.default_rng(2), 12, day_effect=0.3), 8)
    np.testing.assert_array_equal(drifted(before, after), drifted(before, after, null="rows"))
    assert (drifted(before, after) > 4).all()


def test_one_window_over_everything_is_tested_by_rows() -> None:
    rng = np.random.default_rng(3)
    before = {"a": rng.normal(size=900), "b": rng.normal(size=900), "c": ["u", "v"] * 450}
    after = {**before, "a": before["a"] + 1}
    found = tg.compare(before, after, metrics="drifted_share").to_arrow().to_pylist()
    assert [(row["value"], row["n"], row["column"]) for row in found] == [(1 / 3, 3, None)]


def test_every_segment_has_quiet_windows_of_its_own() -> None:
    """Days move one segment, and leave the other alone."""
    rng = np.random.default_rng(4)
    before, after = (
        {
            "time": np.datetime64("2024-01-01", "us") + (np.arange(40 * 500) // 500) * DAY,
            "x": rng.normal(size=20_000)
            + np.repeat(rng.normal(size=40), 500) * (np.arange(20_000) % 2),
            "side": np.where(np.arange(20_000) % 2, "moving", "still"),
        }
        for _ in range(2)
    )
    after["x"] = after["x"] + 0.4
    schema = tg.Schema(features=["x"], segments=["side"], timestamp="time")
    monitor = tg.Monitor(tg.Reference.fit(before, schema), window="1d")
    monitor.log(after)
    table = monitor.metrics("drifted_share").to_pandas().groupby("segment", observed=True)
    share = table["value"].mean()
    assert share["side=still"] > 0.95
    assert share["side=moving"] < 0.2


def test_what_cannot_be_tested_has_a_status() -> None:
    schema = tg.Schema(features={"when": tg.timestamp()})
    times = np.datetime64("2024-01-01", "us") + np.arange(9) * DAY
    found = tg.compare({"when": times}, {"when": times}, schema, metrics="drifted_share")
    (row,) = found.to_arrow().to_pylist()
    assert (row["value"], row["n"], row["status"]) == (None, 0, "no data")


def test_a_merged_reference_looks_at_its_windows_anew() -> None:
    rng = np.random.default_rng(5)
    parts = split(traffic(rng, 24, day_effect=0.3), 12)
    schema = tg.Schema(features=[f"x{k}" for k in range(40)], timestamp="time")
    first = tg.Reference.fit(parts[0], schema)
    second = tg.Reference.fit(parts[1], schema, like=first)
    whole = tg.Reference.fit(
        {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}, schema, like=first
    )
    second.merge(first)
    for reference in (whole, second):
        monitor = tg.Monitor(reference, window="1d")
        monitor.log(parts[0])
        reference.shares = monitor.metrics("drifted_share")["value"]  # type: ignore[attr-defined]
    assert whole.shares.equals(second.shares)  # type: ignore[attr-defined]
