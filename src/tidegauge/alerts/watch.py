"""From values beyond their limits to alerts that don't cry wolf.

A `Check` says which metric is watched and by which rule; a `Watch` judges each window once it has
closed and carries every series through ok, pending, firing and recovering. A single exceedance is
no alert unless it is extreme; a value has to come well back before an alert ends; windows without
data or with too few rows are states of their own and never values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegauge import metrics as registry
from tidegauge.alerts import rules
from tidegauge.alerts.rules import Limits
from tidegauge.alerts.series import FloatArray, IntArray, Name, Series
from tidegauge.metrics.significance import q_values
from tidegauge.monitor import Monitor
from tidegauge.reference import Reference
from tidegauge.values import TRANSITIONS
from tidegauge.window import WEEK, parse_duration

State = Literal["ok", "pending", "firing", "recovering", "no data", "too few rows"]

OK, WARNING, CRITICAL = 0, 1, 2
NO_DATA, TOO_FEW = -1, -2
SEVERITIES = {
    OK: "ok",
    WARNING: "warning",
    CRITICAL: "critical",
    NO_DATA: "no data",
    TOO_FEW: "too few rows",
}
EXTREME = 0.1  # of the chance at a level: so improbable that one window is enough


@dataclass(frozen=True, kw_only=True)
class Check:
    """What is watched, against which limits, and when it becomes an alert.

    Parameters
    ----------
    metric
        Name or label of a metric.
    rule
        Name of the rule that gives the limits.
    warning, critical
        Levels of the rule: chances for rules about chance, otherwise in the rule's own unit.
    options
        Options of the rule.
    columns, segments
        Which to watch; all unless given.
    direction
        Side on which a value is bad news; what the metric declares unless given.
    minimum
        Rows that a window needs to be judged.
    confirm
        (N, M): an alert fires when N of the last M windows lie beyond the limits.
    clear
        Clean windows after which an alert ends; one is clean when the value lies within
        `hysteresis` of the way from the limit to the middle.
    hysteresis
        Share of the limit that a value must come back to, 0 to 1.
    budget
        False alerts a week that are put up with, over all series of the check: what is beyond its
        limits in one window counts only as far as Benjamini and Hochberg's procedure lets it.

    >>> Check(metric="psi").side
    'higher'
    """

    metric: str
    rule: str = "drift_null"
    warning: float | None = 0.01
    critical: float | None = 0.0001
    options: Mapping[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] | None = None
    segments: tuple[str, ...] | None = None
    direction: Literal["higher", "lower", "either"] | None = None
    minimum: int = 1
    confirm: tuple[int, int] = (2, 3)
    clear: int = 3
    hysteresis: float = 0.8
    budget: float | None = None

    def __post_init__(self) -> None:
        registry.get(self.metric)
        rule = rules.get(self.rule)
        known = rule.options
        for name in self.options:
            if name not in known:
                raise ValueError(
                    f"rule {self.rule!r} has no option {name!r}; it has {sorted(known) or 'none'}"
                )
        if self.warning is None and self.critical is None:
            raise ValueError(f"check of {self.metric!r}: a warning or a critical level is wanted")
        if self.budget is not None and not rule.chance:
            raise ValueError(
                f"rule {self.rule!r} is not about chance, so false alerts cannot be budgeted; "
                f"those that are: {', '.join(n for n in rules.names() if rules.get(n).chance)}"
            )
        hits, of = self.confirm
        if not 1 <= hits <= of:
            raise ValueError(f"confirm is (N, M) with 1 <= N <= M, got {self.confirm}")
        if self.clear < 1 or not 0 < self.hysteresis <= 1:
            raise ValueError(
                f"clear is 1 or more and hysteresis in (0, 1], got {self.clear} and "
                f"{self.hysteresis}"
            )

    @property
    def name(self) -> str:
        """Name of the check in tables and messages.

        >>> Check(metric="psi").name
        'psi by drift_null'
        """
        return f"{self.metric} by {self.rule}"

    @property
    def side(self) -> Literal["higher", "lower", "either"]:
        """Side on which a value is bad news."""
        return self.direction or registry.get(self.metric).worse

    def watches(self, name: Name) -> bool:
        """Whether a series is one of this check's."""
        return (
            name.metric == registry.get(self.metric).label
            and (self.columns is None or name.column in self.columns)
            and (self.segments is None or name.segment in self.segments)
        )


@dataclass(frozen=True)
class Verdicts:
    """What was found of K series in T windows, and the limits of the lowest severity."""

    severity: npt.NDArray[np.int8]  # [K, T]: OK, WARNING, CRITICAL, NO_DATA, TOO_FEW
    extreme: npt.NDArray[np.bool_]  # [K, T]: one window is enough
    clean: npt.NDArray[np.bool_]  # [K, T]: well within the limits
    low: FloatArray
    high: FloatArray


def judge(check: Check, series: Series, baseline: Series) -> Verdicts:
    """Judge every window of every series by one check."""
    rule = rules.get(check.rule)
    sides = 2 if check.side == "either" and rule.chance else 1
    found = [
        (code, level / sides, rule.function(series, baseline, level / sides, **check.options))
        for code, level in ((WARNING, check.warning), (CRITICAL, check.critical))
        if level is not None
    ]
    _, level, widest = found[0]
    low, high = _sided(check.side, widest)
    p = _least_chance(check.side, widest)
    counts = np.ones(series.values.shape, dtype=bool)
    if check.budget is not None:
        counts = _within_budget(check.budget, series.starts, sides * p)
    severity = np.zeros(series.values.shape, dtype=np.int8)
    for code, _, limits in found:
        lower, upper = _sided(check.side, limits)
        severity[counts & ((series.values < lower) | (series.values > upper))] = code
    extreme = (severity > OK) & (p < EXTREME * level)
    middle = np.nan_to_num((widest.low + widest.high) / 2)
    clean = (severity == OK) & ~(
        (series.values > middle + check.hysteresis * (high - middle))
        | (series.values < middle + check.hysteresis * (low - middle))
    )
    severity[series.n < check.minimum] = TOO_FEW
    severity[(series.n == 0) | ~np.isfinite(series.values)] = NO_DATA
    return Verdicts(severity, extreme, clean & (severity == OK), low, high)


def _sided(side: str, limits: Limits) -> tuple[FloatArray, FloatArray]:
    """Low and high limit on the sides that are bad news."""
    nothing = np.full(limits.high.shape, np.nan)
    return (
        nothing if side == "higher" else limits.low,
        nothing if side == "lower" else limits.high,
    )


def _least_chance(side: str, limits: Limits) -> FloatArray:
    """Chance of a value as far out, on the sides that are bad news; NaN where not known."""
    if side == "either":
        return np.fmin(limits.p_low, limits.p_high)
    return limits.p_high if side == "higher" else limits.p_low


def _within_budget(budget: float, starts: IntArray, p: FloatArray) -> npt.NDArray[np.bool_]:
    """Which of the series may count in each window, Benjamini and Hochberg: [K, T].

    Of the windows in a week, each may spend its share of the false alerts, a rate of 0.05 at most.
    """
    width = int(np.median(np.diff(starts))) if len(starts) > 1 else WEEK
    rate = min(0.05, budget * width / WEEK)
    return np.asarray(rate >= q_values(p.T).T)


# States.


@dataclass(slots=True)
class Standing:
    """Where a series stands, and since when."""

    state: State = "ok"
    severity: int = OK
    since: int = 0  # start of the window in which the state began, microseconds
    recent: tuple[bool, ...] = ()  # whether the last windows were beyond the limits
    clean: int = 0  # clean windows in a row


class Step(NamedTuple):
    """One window of one series, judged."""

    start: int
    severity: int
    extreme: bool
    clean: bool


def advance(check: Check, standing: Standing, step: Step) -> Standing:
    """Carry a series over one more window.

    >>> check = Check(metric="psi", confirm=(2, 2))
    >>> one = advance(check, Standing(), Step(0, WARNING, extreme=False, clean=False))
    >>> one.state, advance(check, one, Step(1, WARNING, extreme=False, clean=False)).state
    ('pending', 'firing')
    """
    alerting = standing.state in ("firing", "recovering")
    if step.severity < OK:  # nothing was learnt: what fires goes on firing
        state: State = "no data" if step.severity == NO_DATA else "too few rows"
        return standing if alerting else _moved(standing, state, OK, step.start)
    hits, of = check.confirm
    recent = (*standing.recent, step.severity > OK)[-of:]
    clean = standing.clean + 1 if step.clean else 0
    severity = max(step.severity, standing.severity if alerting and step.severity else OK)
    if alerting and clean >= check.clear:
        after = _moved(standing, "ok", OK, step.start)
        recent = ()
    elif step.severity > OK and (alerting or step.extreme or sum(recent) >= hits):
        after = _moved(standing, "firing", severity, step.start)
    elif alerting:
        after = _moved(standing, "recovering", standing.severity, step.start)
    else:
        after = _moved(standing, "pending" if any(recent) else "ok", OK, step.start)
    after.recent, after.clean = recent, clean
    return after


def _moved(standing: Standing, state: State, severity: int, start: int) -> Standing:
    same = (state, severity) == (standing.state, standing.severity)
    since = standing.since if same else start
    return Standing(state, severity, since, standing.recent, standing.clean)


Fingerprint = tuple[str, Name]


@dataclass
class Watch:
    """Checks over a monitor, the state of every series, and the history of its changes.

    Each window is judged once, when it has closed; what late data changes afterwards is noted in
    the history, while the first verdict stands.

    Parameters
    ----------
    checks
        What is watched.
    delay
        How long after its end a window is judged, such as "2h", so that labels can arrive.

    >>> watch = Watch([Check(metric="psi")])
    >>> watch.open
    []
    """

    checks: Sequence[Check]
    delay: str | None = None

    def __post_init__(self) -> None:
        named = [check.name for check in self.checks]
        if len(set(named)) < len(named):
            raise ValueError(f"each check has a metric and rule of its own, got {named}")
        self._delay = 0 if self.delay is None else parse_duration(self.delay, role="delay")
        self._standing: dict[Fingerprint, Standing] = {}
        self._noted: dict[Fingerprint, dict[int, int]] = {}  # severity by window, as last found
        self._reference: Reference | None = None  # that the baselines are of
        self._baselines: dict[str, pa.Table] = {}

    @property
    def open(self) -> list[tuple[Fingerprint, Standing]]:
        """Alerts that fire or recover, one a series and check, the most severe first."""
        alerting = [
            (key, standing)
            for key, standing in self._standing.items()
            if standing.state in ("firing", "recovering")
        ]
        return sorted(alerting, key=lambda each: (-each[1].severity, each[1].since))

    def update(self, monitor: Monitor) -> pa.Table:
        """Judge the windows that have closed since the last call.

        Returns
        -------
        pyarrow.Table
            The changes of state, as `TRANSITIONS`, in the order of their windows.
        """
        mark = monitor.watermark
        if mark is None:
            return TRANSITIONS.empty_table()
        now = int(np.datetime64(mark.replace(tzinfo=None), "us").astype(np.int64))
        found = []
        for check in self.checks:
            table = monitor.metrics(check.metric, window=monitor.window)
            ends = table["window_end"].cast(pa.int64()).to_numpy()
            series = Series.from_table(table.filter(pa.array(ends + self._delay <= now)))
            baseline = Series.from_table(self._baseline(check, monitor), like=series)
            found.append(self.carry(check, series, baseline))
        return pa.concat_tables(found).sort_by("window_start")

    def _baseline(self, check: Check, monitor: Monitor) -> pa.Table:
        """Return the metric over the reference's own windows, worked out once."""
        if self._reference is not monitor.reference:
            self._reference, self._baselines = monitor.reference, {}
        if check.name not in self._baselines:
            self._baselines[check.name] = monitor.baseline(check.metric)
        return self._baselines[check.name]

    def carry(self, check: Check, series: Series, baseline: Series) -> pa.Table:
        """Carry series over their windows by one check; the changes, as `TRANSITIONS`."""
        changes = list(self._carry(check, series, judge(check, series, baseline)))
        return pa.Table.from_pylist(changes, schema=TRANSITIONS).sort_by("window_start")

    def _carry(self, check: Check, series: Series, verdicts: Verdicts) -> Iterator[dict[str, Any]]:
        """Carry every series over the windows that are new; note what changed in the others."""
        starts = series.starts.tolist()
        for k, name in enumerate(series.names):
            if not check.watches(name):
                continue
            key = (check.name, name)
            noted = self._noted.get(key, {})
            last = max(noted, default=None)
            for t, start in enumerate(starts):
                severity = int(verdicts.severity[k, t])
                before = after = self._standing.get(key, Standing())
                if last is None or start > last:
                    facts = verdicts.extreme[k, t], verdicts.clean[k, t]
                    after = advance(check, before, Step(start, severity, *map(bool, facts)))
                    self._standing[key] = after
                    news = (after.state, after.severity) != (before.state, before.severity)
                else:
                    news = noted.get(start) != severity  # late data: noted, the verdict stands
                if news:
                    yield {
                        **dict(zip(name._fields, name, strict=True)),
                        "check": check.name,
                        "window_start": start,
                        "before": before.state,
                        "after": after.state,
                        "severity": SEVERITIES[severity],
                        "value": _known(series.values[k, t]),
                        "low": _known(verdicts.low[k, t]),
                        "high": _known(verdicts.high[k, t]),
                        "n": int(series.n[k, t]),
                    }
            found = dict(zip(starts, verdicts.severity[k].tolist(), strict=True))
            self._noted[key] = found or noted


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
