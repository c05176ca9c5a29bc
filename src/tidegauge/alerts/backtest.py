"""What a check would have done over the windows that a monitor holds, and the level to ask for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from tidegauge.alerts import rules
from tidegauge.alerts.series import Series
from tidegauge.alerts.watch import ALERTING, Check, Watch
from tidegauge.monitor import Monitor
from tidegauge.window import WEEK

STEPS = 40  # of the bisection


@dataclass(frozen=True)
class Backtest:
    """A check carried over recorded windows.

    Parameters
    ----------
    transitions
        Every change of state, as `values.TRANSITIONS`.
    series
        Number of series that were watched.
    weeks
        Time that the windows cover, in weeks.
    """

    transitions: pa.Table
    series: int
    weeks: float

    @property
    def alerts(self) -> int:
        """Alerts that would have fired."""
        return len(self.episodes)

    @property
    def episodes(self) -> list[dict[str, Any]]:
        """Each alert from its beginning to its end, in the order of their beginnings.

        A row of `transitions` as it began, with `began`, `ended` (None where it has not) and the
        highest severity on the way.
        """
        found: list[dict[str, Any]] = []
        open_: dict[str, dict[str, Any]] = {}
        for row in self.transitions.to_pylist():
            one = open_.get(row["fingerprint"])
            if one is None and row["after"] == "firing":
                one = {**row, "began": row["window_start"], "ended": None}
                open_[row["fingerprint"]] = one
                found.append(one)
            elif one is not None and row["after"] not in ALERTING:
                one["ended"] = row["window_start"]
                del open_[row["fingerprint"]]
            elif one is not None and row["severity"] == "critical":
                one["severity"] = "critical"
        return found

    @property
    def alerts_per_week(self) -> float:
        """Alerts a week over all series; NaN where the windows cover no time."""
        return self.alerts / self.weeks if self.weeks else float("nan")


def backtest(check: Check, monitor: Monitor) -> Backtest:
    """Run a check over every window that a monitor holds, as if it had been there from the start.

    Limits that are learnt come from the reference's own windows, which the monitor's windows are no
    part of; so nothing is judged by what came after it.
    """
    series, baseline = _recorded(check, monitor)
    return _run(check, series, baseline)


def suggest_level(check: Check, monitor: Monitor, *, alerts_per_week: float) -> float:
    """The tightest warning level at which a check would have fired so seldom.

    Found by bisection between levels that fire always and never; meant for windows in which nothing
    was wrong, where every alert is a false one.

    Raises
    ------
    ValueError
        When no level fires so seldom, or there are no windows to try it on.
    """
    series, baseline = _recorded(check, monitor)
    if not series.names or len(series.starts) < 2:
        raise ValueError("there are no windows to try the check on; log some traffic first")
    chance = rules.get(check.rule).chance
    quiet, loud = (-300.0, np.log10(0.5)) if chance else (12.0, -12.0)  # exponents of ten
    if _rate(check, quiet, series, baseline) > alerts_per_week:
        raise ValueError(
            f"even at a level of {10**quiet:g} the check fires more often than {alerts_per_week:g} "
            "times a week; the windows hold what no limit explains away"
        )
    for _ in range(STEPS):
        middle = (quiet + loud) / 2
        if _rate(check, middle, series, baseline) > alerts_per_week:
            loud = middle
        else:
            quiet = middle
    return float(10**quiet)


def _rate(check: Check, exponent: float, series: Series, baseline: Series) -> float:
    tried = replace(check, warning=10**exponent, critical=None)
    return _run(tried, series, baseline).alerts_per_week


def _recorded(check: Check, monitor: Monitor) -> tuple[Series, Series]:
    window = None if monitor.schema.timestamp is None else monitor.window
    series = Series.from_table(monitor.metrics(check.metric, window=window))
    chosen = [k for k, name in enumerate(series.names) if check.watches(name)]
    series = series.at(chosen)
    return series, Series.from_table(monitor.baseline(check.metric), like=series)


def _run(check: Check, series: Series, baseline: Series) -> Backtest:
    transitions = Watch([check]).carry(check, series, baseline)
    starts = series.starts
    covered = (starts[-1] - starts[0] + series.width) / WEEK if len(starts) else 0.0
    return Backtest(transitions, len(series.names), float(covered))
