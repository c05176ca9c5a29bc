"""Limits of values: what they are, and how often they fire where nothing has changed."""

from __future__ import annotations

import numpy as np
import pytest

import tidegauge as tg
from tidegauge.alerts import rules
from tidegauge.alerts.series import Name, Series

HOUR = rules.HOUR


def series(values, *, metric="accuracy", n=1000, m=10_000, floor=np.nan, error=np.nan, step=HOUR):
    values = np.atleast_2d(np.asarray(values, dtype=float))
    shape = values.shape
    names = tuple(Name("m", "", "all", f"c{k}", metric) for k in range(shape[0]))
    full = [np.broadcast_to(each, shape) for each in (n, m, floor, error, np.nan)]
    return Series(names, rules.MONDAY + np.arange(shape[1]) * step, values, *full)


def fires(limits, values):
    return float(((values > limits.high) | (values < limits.low)).mean())


@pytest.mark.parametrize("windows", [5, 10, 30])
def test_limits_from_few_windows_fire_as_often_as_they_say(windows: int) -> None:
    random = np.random.default_rng(0)
    seen, now = random.normal(size=(20_000, windows)), random.normal(size=(20_000, 1))
    limits = rules.reference_windows(series(now), series(seen), 0.005)
    assert fires(limits, now) == pytest.approx(0.01, abs=0.002)
    three = np.abs(now[:, 0] - seen.mean(axis=1)) > 3 * seen.std(axis=1)
    assert windows == 30 or three.mean() > 0.02  # what three standard deviations would do


def test_limits_follow_the_size_of_the_window() -> None:
    random = np.random.default_rng(1)
    seen = 0.9 + 0.01 * random.normal(size=(1, 40))
    large, small = (
        rules.reference_windows(series([[0.9]], error=e), series(seen, error=0.001), 0.01)
        for e in (0.001, 0.1)
    )
    assert small.high[0, 0] - small.low[0, 0] > 5 * (large.high[0, 0] - large.low[0, 0])


def psi_of(random, n, m, bins, size):
    """PSI of windows of the reference's own population, with k and floor."""
    p = np.full(bins, 1 / bins)
    a = (random.multinomial(n, p, size) + 0.5) / (n + bins / 2)
    b = (random.multinomial(m, p, size) + 0.5) / (m + bins / 2)
    k = 1 / n + 1 / m
    return ((a - b) * np.log(a / b)).sum(axis=-1), (bins - 1) * k


def test_independent_rows_fire_as_often_as_the_chi_square_says() -> None:
    values, floor = psi_of(np.random.default_rng(2), 1000, 10_000, 10, (4000, 1))
    now = series(values, metric="psi", floor=floor)
    limits = rules.effect_size(now, now, 0.01, delta=0.0)
    assert fires(limits, values) == pytest.approx(0.01, abs=0.005)
    assert (limits.p_high < 0.01).mean() == pytest.approx(fires(limits, values))


def test_a_small_effect_in_a_large_window_is_no_news() -> None:
    large = series([[0.004, 0.03]], metric="psi", n=50_000, floor=9 * (1 / 50_000 + 1 / 10_000))
    limits = rules.effect_size(large, large, 0.01)
    assert (large.values > limits.high).tolist() == [[False, True]]
    chance = rules.effect_size(large, large, 0.01, delta=0.0)
    assert (large.values > chance.high).tolist() == [[True, True]]


def test_traffic_that_is_not_independent_is_measured_against_itself() -> None:
    random = np.random.default_rng(3)
    floor = 9 * (1 / 900 + 1 / 40_000)
    seen = floor * random.gamma(2.0, 5.0, size=(2000, 46))
    now = floor * random.gamma(2.0, 5.0, size=(2000, 1))
    current, usual = (
        series(now, metric="psi", n=900, m=40_000, floor=floor),
        series(seen, metric="psi", n=900, m=40_000, floor=floor),
    )
    limits = rules.drift_null(current, usual, 0.01)
    assert fires(limits, now) < 0.03
    assert (now > 0.1).mean() > 0.3
    assert fires(rules.effect_size(current, usual, 0.01, delta=0.0), now) > 0.9
    quiet = series(seen * 0.02, metric="psi", n=900, m=40_000, floor=floor)
    least = rules.effect_size(current, usual, 0.01, delta=0.0).high
    assert (rules.drift_null(current, quiet, 0.01).high >= least).all()


def test_a_season_is_expected() -> None:
    random = np.random.default_rng(4)
    hours = np.arange(4 * 168)
    rhythm = 10 + 3 * np.sin(hours / 24 * 2 * np.pi) + 2 * (hours // 24 % 7 >= 5)
    seen = series([rhythm + 0.1 * random.normal(size=hours.size)])
    now = series([rhythm[:168] + 0.1 * random.normal(size=168)])
    limits = rules.seasonal(now, seen, 0.001)
    assert fires(limits, now.values) < 0.03
    night = now.values.copy()
    night[0, 18] = 10  # an ordinary value at the wrong hour
    assert night[0, 18] > limits.high[0, 18]
    flat = rules.reference_windows(now, seen, 0.001)
    assert not night[0, 18] > flat.high[0, 18]


def test_a_level_that_creeps_is_followed_and_a_jump_is_not_learnt() -> None:
    random = np.random.default_rng(5)
    seen = series(random.normal(size=(1, 60)))
    creeping = 0.1 * np.arange(100) + random.normal(size=100)
    assert fires(rules.trend(series(creeping), seen, 0.001), creeping) < 0.05
    jumped = np.concatenate([random.normal(size=20), 12 + random.normal(size=40)])
    found = rules.trend(series(jumped), seen, 0.001)
    assert (jumped[20:] > found.high[0, 20:]).all()


def test_slow_change_adds_up() -> None:
    random = np.random.default_rng(6)
    seen = series(random.normal(size=(400, 2000)))
    quiet = random.normal(size=(400, 300))
    slow = quiet + 0.8
    still = rules.cusum(series(quiet), seen, 5.0)
    moved = rules.cusum(series(slow), seen, 5.0)
    assert ((quiet > still.high).any(axis=1)).mean() < 0.45
    assert ((slow > moved.high)[:, :40].any(axis=1)).mean() > 0.9
    single = rules.reference_windows(series(slow), seen, 0.0005)
    assert ((slow > single.high)[:, :15].any(axis=1)).mean() < 0.2


def test_fixed_limits() -> None:
    now = series([[1.0, 1.05, np.nan, 2.0]])
    assert (rules.constant(now, now, 1.5).high == 1.5).all()
    before = rules.change(now, now, 0.1)
    np.testing.assert_allclose(before.high[0], [np.nan, 1.1, 1.155, 1.155])


@pytest.mark.parametrize("name", rules.names())
def test_what_is_not_known_has_no_limits(name: str) -> None:
    now = series(np.full((2, 3), np.nan), metric="psi")
    level = 0.01 if rules.get(name).chance else 5.0
    limits = rules.get(name).function(now, series(np.empty((2, 0)), metric="psi"), level)
    assert all(each.shape == (2, 3) for each in vars(limits).values())
    assert np.isnan(limits.p_high).all()
    if name not in ("constant", "effect_size"):
        assert np.isnan(limits.high).all()


def test_an_unknown_rule_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="did you mean constant"):
        rules.get("constnat")


def test_series_of_a_monitor_stand_beside_those_of_its_reference() -> None:
    random = np.random.default_rng(7)
    n = 24 * 200
    time = np.datetime64("2024-05-01", "us") + np.arange(n) * np.timedelta64(18, "s")
    rows = {"x": random.normal(size=n), "time": time}
    reference = tg.Reference.fit(rows, tg.Schema(features=["x"], timestamp="time"))
    monitor = tg.Monitor(reference, window="1h")
    monitor.log({"x": rows["x"] + 1, "time": time})
    now = Series.from_table(monitor.metrics(["psi", "missing_rate"]))
    usual = Series.from_table(monitor.baseline(["psi", "missing_rate"]), like=now)
    assert now.names == usual.names
    assert now.values.shape == usual.values.shape == (len(now.names), 24)
    limits = rules.drift_null(now, usual, 0.001)
    place = [name.metric for name in now.names].index("psi")
    assert (now.values[place] > limits.high[place]).all()
    assert not (usual.values[place] > limits.high[place]).any()
