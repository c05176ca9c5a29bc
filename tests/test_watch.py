"""Alerts: one window is not enough, an end takes a return, and nothing is judged twice."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

import tidegauge as tg
from tidegauge.alerts.series import Name, Series
from tidegauge.alerts.watch import (
    CRITICAL,
    NO_DATA,
    OK,
    TOO_FEW,
    WARNING,
    Check,
    Standing,
    Step,
    Watch,
    advance,
    judge,
)

HOUR = 3_600_000_000
START = np.datetime64("2024-05-01", "us")


def series(values, *, metric="psi", n=1000, floor=0.01) -> Series:
    values = np.atleast_2d(np.asarray(values, dtype=float))
    names = tuple(Name("m", "", "all", f"c{k}", metric) for k in range(len(values)))
    full = [np.broadcast_to(each, values.shape) for each in (n, 10_000, floor, np.nan, np.nan)]
    return Series(names, np.arange(values.shape[1]) * HOUR, values, *full, width=HOUR)


def states(check: Check, severities, *, extreme=False) -> list[str]:
    standing, found = Standing(), []
    for start, severity in enumerate(severities):
        standing = advance(check, standing, Step(start, severity, extreme, severity == OK))
        found.append(standing.state)
    return found


def test_one_window_beyond_the_limits_is_no_alert() -> None:
    check = Check(metric="psi", confirm=(2, 3), clear=3)
    assert states(check, [OK, WARNING, OK, OK, OK]) == ["ok", "pending", "pending", "pending", "ok"]
    assert states(check, [WARNING, OK, WARNING]) == ["pending", "pending", "firing"]
    assert states(check, [CRITICAL], extreme=True) == ["firing"]


def test_an_alert_ends_after_clean_windows_and_comes_back_if_need_be() -> None:
    check = Check(metric="psi", confirm=(1, 1), clear=2)
    assert states(check, [WARNING, OK, WARNING, OK, OK, OK]) == [
        "firing",
        "recovering",
        "firing",
        "recovering",
        "ok",
        "ok",
    ]


def test_silence_is_a_state_and_does_not_end_an_alert() -> None:
    check = Check(metric="psi", confirm=(1, 1), clear=1)
    assert states(check, [NO_DATA, TOO_FEW, OK]) == ["no data", "too few rows", "ok"]
    assert states(check, [WARNING, NO_DATA, NO_DATA, OK]) == ["firing", "firing", "firing", "ok"]


def test_a_value_has_to_come_well_back() -> None:
    now = series([[0.3, 0.19, 0.15]])
    verdicts = judge(Check(metric="psi", rule="constant", warning=0.2, critical=None), now, now)
    assert verdicts.severity.tolist() == [[WARNING, OK, OK]]
    strict = Check(metric="psi", rule="effect_size", hysteresis=0.8)
    limit = judge(strict, now, now).high[0, 0]
    close = judge(strict, series([[0.9 * limit, 0.7 * limit]]), now)
    assert close.severity.tolist() == [[OK, OK]]
    assert close.clean.tolist() == [[False, True]]


def test_levels_sides_and_sizes() -> None:
    now = series([[0.5, 0.15, 0.05, np.nan]], n=np.array([[1000, 1000, 20, 0]]))
    check = Check(metric="psi", rule="constant", warning=0.1, critical=0.3, minimum=100)
    assert judge(check, now, now).severity.tolist() == [[CRITICAL, WARNING, TOO_FEW, NO_DATA]]
    falling = Check(metric="accuracy", rule="constant", warning=0.9, critical=0.8)
    found = judge(falling, series([[0.95, 0.85, 0.7]], metric="accuracy"), now)
    assert found.severity.tolist() == [[OK, WARNING, CRITICAL]]


def test_a_budget_keeps_a_thousand_quiet_features_quiet() -> None:
    random = np.random.default_rng(0)
    seen, now = random.normal(size=(1000, 60)), random.normal(size=(1000, 168))
    now[:20, 50:] += 6
    usual, current = series(seen, metric="mae"), series(now, metric="mae")
    free = Check(metric="mae", rule="reference_windows", warning=0.01, critical=None)
    kept = Check(metric="mae", rule="reference_windows", warning=0.01, critical=None, budget=1.0)
    assert (judge(free, current, usual).severity[20:] == WARNING).sum() > 1000
    frugal = judge(kept, current, usual).severity
    assert (frugal[20:] == WARNING).sum() < 60
    assert (frugal[:20, 50:] == WARNING).mean() > 0.9


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"metric": "psy"}, "unknown metric"),
        ({"metric": "psi", "rule": "drift"}, "unknown rule"),
        (
            {"metric": "psi", "rule": "effect_size", "options": {"d": 1}},
            r"has no option 'd'.*delta",
        ),
        ({"metric": "psi", "warning": None, "critical": None}, "a warning or a critical level"),
        ({"metric": "psi", "confirm": (3, 2)}, "1 <= N <= M"),
        ({"metric": "psi", "rule": "constant", "budget": 1.0}, "not about chance"),
        ({"metric": "psi", "hysteresis": 0.0}, "hysteresis"),
        ({"metric": "psi", "procedure": "holm"}, "'bh' or 'lord'"),
        ({"metric": "psi", "effect": 0.0}, "greater than 0"),
        ({"metric": "psi", "delay": "soon"}, "delay is a whole number and a unit"),
        ({"metric": "psi", "direction": "up"}, "higher, lower, either or None, got 'up'"),
        ({"metric": "psi", "warning": 2.0}, "warning of rule 'drift_null' is a chance"),
        ({"metric": "psi", "critical": np.nan}, "critical of rule 'drift_null' is a chance"),
        ({"metric": "psi", "rule": "constant", "warning": np.inf}, "is a number, got inf"),
        ({"metric": "psi", "budget": -1.0}, "budget is a number of alerts a week above 0"),
        ({"metric": "psi", "columns": "age"}, "columns is a tuple of names, got 'age'"),
    ],
)
def test_a_wrong_check_is_answered_with_what_is_allowed(wrong, said) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        Check(**wrong)


def traffic(hours: slice, shift: float = 0.0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(hours.start)
    n = 200 * (hours.stop - hours.start)
    time = START + hours.start * np.timedelta64(1, "h") + np.arange(n) * np.timedelta64(18, "s")
    return {"x": random.normal(size=n) + shift, "time": time}


def watched() -> tg.Monitor:
    schema = tg.Schema(features=["x"], timestamp="time")
    return tg.Monitor(tg.Reference.fit(traffic(slice(0, 48)), schema), window="1h")


def test_windows_are_judged_once_and_when_they_have_closed() -> None:
    monitor, watch = watched(), Watch([Check(metric="psi")])
    assert watch.update(monitor).num_rows == 0
    monitor.log(traffic(slice(100, 110)))
    assert watch.update(monitor).num_rows == 0
    monitor.log(traffic(slice(110, 113), shift=2.0))
    found = watch.update(monitor).to_pylist()
    assert [(row["before"], row["after"]) for row in found] == [("ok", "firing")]
    assert found[0]["column"] == "x"
    assert found[0]["value"] > found[0]["high"]
    assert watch.update(monitor).num_rows == 0
    ((key, standing),) = watch.open
    assert (key[1].column, standing.state, standing.severity) == ("x", "firing", CRITICAL)
    monitor.log(traffic(slice(113, 120)))
    after = [row["after"] for row in watch.update(monitor).to_pylist()]
    assert after == ["recovering", "ok"]
    assert watch.open == []


def test_in_small_steps_as_in_one() -> None:
    parts = [traffic(slice(100, 105)), traffic(slice(105, 108), 2.0), traffic(slice(108, 116))]
    whole, stepwise = watched(), watched()
    one, many = Watch([Check(metric="psi")]), Watch([Check(metric="psi")])
    steps = []
    for part in parts:
        whole.log(part)
        stepwise.log(part)
        steps += many.update(stepwise).to_pylist()
    assert one.update(whole).to_pylist() == steps


def test_late_data_is_noted_and_the_first_verdict_stands() -> None:
    monitor, watch = watched(), Watch([Check(metric="psi")])
    monitor.log(traffic(slice(100, 106)))
    watch.update(monitor)
    monitor.log(traffic(slice(102, 103), shift=8.0))
    noted = watch.update(monitor).to_pylist()
    assert [(row["before"], row["after"], row["severity"]) for row in noted] == [
        ("ok", "ok", "critical")
    ]
    assert watch.update(monitor).num_rows == 0
    assert watch.open == []


def test_windows_that_are_rolled_up_are_not_judged_again() -> None:
    schema = tg.Schema(features=["x"], timestamp="time")
    reference = tg.Reference.fit(traffic(slice(0, 48)), schema)
    aging = tg.Monitor(reference, retention={"1h": "24h", "1d": "30d"}, lateness="2h")
    lasting = tg.Monitor(reference, window="1h", lateness="2h")
    watches, found = [Watch([Check(metric="psi")]) for _ in range(2)], [[], []]
    for hour in range(96, 200):
        for place, monitor in enumerate((aging, lasting)):
            monitor.log(traffic(slice(hour, hour + 1), shift=2.0 * (hour in (110, 111))))
            found[place] += watches[place].update(monitor).to_pylist()
    assert found[0] == found[1]
    assert any(row["after"] == "firing" for row in found[0])


def test_an_effect_too_small_for_the_rows_is_not_called_well() -> None:
    now = series([[0.01, 0.01]], n=np.array([[50_000, 60]]), floor=np.array([[0.001, 0.15]]))
    check = Check(metric="psi", rule="effect_size", effect=0.05)
    assert judge(check, now, now).severity.tolist() == [[OK, TOO_FEW]]
    blunt = replace(check, effect=0.5)
    assert judge(blunt, now, now).severity.tolist() == [[OK, OK]]
    random = np.random.default_rng(0)
    seen = series(0.9 + 0.02 * random.normal(size=(1, 60)), metric="accuracy")
    noisy = replace(series([[0.9, 0.9]], metric="accuracy"), error=np.array([[0.001, 0.2]]))
    fine = Check(metric="accuracy", rule="reference_windows", effect=0.1)
    assert judge(fine, noisy, seen).severity.tolist() == [[OK, TOO_FEW]]
    # No number of rows would show so little beside how far windows stray: not for want of rows.
    assert judge(replace(fine, effect=0.001), noisy, seen).severity.tolist() == [[OK, OK]]


def test_a_stream_of_tests_is_one_however_it_is_cut_and_restarted() -> None:
    random = np.random.default_rng(3)
    seen, now = random.normal(size=(40, 60)), random.normal(size=(40, 30))
    now[:4, 10:] += 7
    usual, whole = series(seen, metric="mae"), series(now, metric="mae")
    check = Check(
        metric="mae", rule="reference_windows", critical=None, budget=1.0, procedure="lord"
    )
    one = Watch([check])
    expected = one.carry(check, whole, usual).to_pylist()
    fired = {row["column"] for row in expected if row["after"] == "firing"}
    assert fired > {"c0", "c1", "c2"}
    assert len(fired) <= 5  # of the discoveries one in twenty may be false
    watch, found = Watch([check]), []
    for end in (3, 11, 12, 20, 30):
        state = json.loads(json.dumps(watch.state()))
        watch = Watch([check])
        watch.restore(state)
        found += watch.carry(check, series(now[:, :end], metric="mae"), usual).to_pylist()
    assert found == expected
    assert watch.open == one.open
    frugal = judge(check, whole, usual).severity
    assert (frugal[:4, 10:] == WARNING).mean() > 0.9
    assert (frugal[4:] == WARNING).sum() <= 2


def test_a_watch_goes_on_where_it_stood() -> None:
    checks = [Check(metric="psi"), Check(metric="row_count", rule="reference_windows")]
    parts = [traffic(slice(100, 105)), traffic(slice(105, 108), 2.0), traffic(slice(108, 111))]
    late = traffic(slice(102, 103), shift=8.0)
    whole, broken = watched(), watched()
    lasting, restarted = Watch(checks), Watch(checks)
    for part in (*parts, late, traffic(slice(111, 118))):
        whole.log(part)
        broken.log(part)
        expected = lasting.update(whole)
        state = json.loads(json.dumps(restarted.state()))
        restarted = Watch(checks)
        restarted.restore(state)
        assert restarted.update(broken).equals(expected)
        assert restarted.open == lasting.open
    with pytest.raises(tg.DataError, match="format 2"):
        restarted.restore({**state, "format": 2})


def test_an_alert_of_which_nothing_is_heard_is_over_after_a_week() -> None:
    check = Check(metric="psi", confirm=(1, 1))
    standing = advance(check, Standing(), Step(0, WARNING, extreme=False, clean=False))
    later = Step(100 * HOUR, NO_DATA, extreme=False, clean=False)
    assert advance(check, standing, later).state == "firing"
    assert advance(check, standing, later._replace(start=168 * HOUR)).state == "no data"


def test_the_alert_of_a_series_that_is_kept_no_longer_ends() -> None:
    check = Check(metric="psi", rule="constant", warning=0.2, critical=None, confirm=(1, 1))
    watch = Watch([check])
    both = series([[0.1, 0.5], [0.1, 0.1]])
    watch.carry(check, both, both)
    assert len(watch.open) == 1
    rest = replace(both.at([1]), starts=both.starts + HOUR)
    ended = watch.carry(check, rest, rest).to_pylist()
    assert [(row["column"], row["before"], row["after"]) for row in ended] == [
        ("c0", "firing", "no data")
    ]
    assert watch.open == []


def test_a_series_begins_with_its_first_value() -> None:
    check = Check(metric="psi", rule="constant", warning=0.2, critical=None)
    now = series([[np.nan, np.nan, 0.1, np.nan]], n=np.array([[0, 0, 500, 0]]))
    found = Watch([check]).carry(check, now, now).to_pylist()
    assert [(row["before"], row["after"]) for row in found] == [("ok", "no data")]
    assert found[0]["window_start"] == datetime.fromtimestamp(3 * 3600, UTC)


def test_one_metric_may_be_watched_on_both_sides_apart() -> None:
    both = [
        Check(metric="row_count", rule="change", warning=0.5, critical=None, direction=side)
        for side in ("higher", "lower")
    ]
    Watch(both)
    with pytest.raises(ValueError, match="direction of its own"):
        Watch([both[0], both[0]])


def test_a_delay_waits_for_the_labels() -> None:
    monitor = watched()
    monitor.log(traffic(slice(100, 102), shift=3.0))
    monitor.log(traffic(slice(102, 104), shift=3.0))
    assert Watch([Check(metric="psi", delay="1d")]).update(monitor).num_rows == 0
    assert Watch([Check(metric="psi", delay="1h")]).update(monitor).num_rows == 1


def test_a_backtest_says_what_would_have_fired_and_which_level_would_not() -> None:
    monitor = watched()
    for hour in range(100, 140):
        monitor.log(traffic(slice(hour, hour + 1), shift=0.4 * (hour in (110, 111, 112, 125))))
    loud = Check(metric="psi", warning=0.2, critical=None, confirm=(1, 1))
    found = tg.alerts.backtest(loud, monitor)
    assert found.series == 1
    assert found.weeks == pytest.approx(40 / 168)
    assert found.alerts >= 2
    level = tg.alerts.suggest_level(loud, monitor, alerts_per_week=2 / found.weeks)
    quiet = replace(loud, warning=level)
    assert tg.alerts.backtest(quiet, monitor).alerts <= 2
    assert tg.alerts.backtest(replace(loud, warning=2 * level), monitor).alerts >= 2
    fixed = Check(metric="psi", rule="constant", warning=1, critical=None, confirm=(1, 1))
    limit = tg.alerts.suggest_level(fixed, monitor, alerts_per_week=0)
    assert limit == pytest.approx(max(monitor.metrics("psi")["value"].to_pylist()), rel=1e-6)


def test_a_backtest_without_windows_says_so() -> None:
    with pytest.raises(ValueError, match="no windows"):
        tg.alerts.suggest_level(Check(metric="psi"), watched(), alerts_per_week=1)
