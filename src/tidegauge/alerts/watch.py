"""From values beyond their limits to alerts that don't cry wolf.

A `Check` says which metric is watched and by which rule; a `Watch` judges each window once it has
closed and carries every series through ok, pending, firing and recovering. A single exceedance is
no alert unless it is extreme; a value has to come well back before an alert ends; windows without
data or with too few rows are states of their own and never values. A watch is saved and goes on
where it stood.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidegauge import metrics as registry
from tidegauge._core import DataError
from tidegauge.alerts import rules
from tidegauge.alerts.lord import Lord
from tidegauge.alerts.rules import Limits
from tidegauge.alerts.series import FloatArray, IntArray, Name, Series
from tidegauge.metrics.registry import Direction
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
FALSE_SHARE = 0.05  # of discoveries, at most, whatever the budget
SILENT = WEEK  # without data, after which an alert is over
NEVER = -(1 << 62)  # before all time
ALERTING = ("firing", "recovering")
FORMAT = 1  # of a watch's state

BoolArray = npt.NDArray[np.bool_]


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
    effect
        The smallest deviation from the usual value that is worth an alert. A window in which not
        even that would lie beyond the limits has too few rows, if more rows would change it.
    delay
        How long after its end a window is judged, such as "2h", so that labels can arrive.
    confirm
        (N, M): an alert fires when N of the last M windows lie beyond the limits.
    clear
        Clean windows after which an alert ends; one is clean when the value lies within
        `hysteresis` of the way from the limit to the middle.
    hysteresis
        Share of the limit that a value must come back to, 0 to 1.
    budget
        False alerts a week that are put up with, over all series of the check: what is beyond its
        limits in one window counts only as far as the procedure lets it.
    procedure
        "bh" tests the series of each window together (Benjamini and Hochberg), at the window's
        share of the budget; "lord" all series and windows as one endless stream (LORD++), of whose
        discoveries at most 5 % are false: stricter, and for series that say new things each window.

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
    effect: float | None = None
    delay: str | None = None
    confirm: tuple[int, int] = (2, 3)
    clear: int = 3
    hysteresis: float = 0.8
    budget: float | None = None
    procedure: Literal["bh", "lord"] = "bh"

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
        if self.direction not in (None, *get_args(Direction)):
            raise ValueError(
                f"direction is {', '.join(get_args(Direction))} or None, got {self.direction!r}"
            )
        for role in ("columns", "segments"):
            if isinstance(getattr(self, role), str):
                raise TypeError(f"{role} is a tuple of names, got {getattr(self, role)!r}")
        for role in ("warning", "critical"):
            level = getattr(self, role)
            if level is not None and not (0 < level < 1 if rule.chance else np.isfinite(level)):
                wanted = "a chance between 0 and 1" if rule.chance else "a number"
                raise ValueError(f"{role} of rule {self.rule!r} is {wanted}, got {level}")
        if self.budget is not None and not self.budget > 0:
            raise ValueError(f"budget is a number of alerts a week above 0, got {self.budget}")
        if self.procedure not in ("bh", "lord"):
            raise ValueError(f"procedure is 'bh' or 'lord', got {self.procedure!r}")
        if self.effect is not None and not self.effect > 0:
            raise ValueError(f"effect is a deviation greater than 0, got {self.effect}")
        if self.delay is not None:
            parse_duration(self.delay, role="delay")
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
        >>> Check(metric="missing_rate", rule="seasonal", direction="lower").name
        'missing_rate by seasonal, lower'
        """
        side = "" if self.direction is None else f", {self.direction}"
        return f"{self.metric} by {self.rule}{side}"

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
    extreme: BoolArray  # [K, T]: one window is enough
    clean: BoolArray  # [K, T]: well within the limits
    low: FloatArray
    high: FloatArray


Procedure = Callable[[FloatArray], BoolArray]  # chances [K, T] -> which of them may count


def judge(
    check: Check, series: Series, baseline: Series, procedure: Procedure | None = None
) -> Verdicts:
    """Judge every window of every series by one check.

    Where the check has a budget, `procedure` says which chances may count; unless given, the one
    that the check names, begun with the first window.
    """
    rule = rules.get(check.rule)
    sides = 2 if check.side == "either" and rule.chance else 1
    levels = [
        (code, level / sides)
        for code, level in ((WARNING, check.warning), (CRITICAL, check.critical))
        if level is not None
    ]

    def limits_at(level: float, of: Series) -> Limits:
        return rule.function(of, baseline, level, **check.options)

    found = [(code, limits_at(level, series)) for code, level in levels]
    lowest, widest = levels[0][1], found[0][1]
    low, high = _sided(check.side, widest)
    p = _least_chance(check.side, widest)
    counts = np.ones(series.values.shape, dtype=bool)
    if check.budget is not None:
        counts = (procedure or begin(check, series.width))(sides * p)
    severity = np.zeros(series.values.shape, dtype=np.int8)
    for code, limits in found:
        lower, upper = _sided(check.side, limits)
        severity[counts & ((series.values < lower) | (series.values > upper))] = code
    extreme = (severity > OK) & (p < EXTREME * lowest)
    middle = np.nan_to_num((widest.low + widest.high) / 2)
    clean = (severity == OK) & ~(
        (series.values > middle + check.hysteresis * (high - middle))
        | (series.values < middle + check.hysteresis * (low - middle))
    )
    if check.effect is not None:
        large = _of_any_size(series)
        seen_by_more = _within_reach(check, large, limits_at(lowest, large))
        severity[seen_by_more & ~_within_reach(check, series, widest)] = TOO_FEW
    severity[series.n < check.minimum] = TOO_FEW
    severity[(series.n == 0) | ~np.isfinite(series.values)] = NO_DATA
    return Verdicts(severity, extreme, clean & (severity == OK), low, high)


def _of_any_size(series: Series) -> Series:
    """The same series in windows of so many rows that their own number no longer matters."""
    with np.errstate(divide="ignore", invalid="ignore"):
        left = (1 / series.n_reference) / (1 / series.n + 1 / series.n_reference)
    return replace(
        series,
        n=np.full(series.n.shape, np.iinfo(np.int64).max),
        floor=series.floor * left,
        error=series.error * 0,
    )


def _within_reach(check: Check, series: Series, limits: Limits) -> BoolArray:
    """Whether the effect would lie beyond the limits, on a side that is bad news: [K, T]."""
    assert check.effect is not None
    low, high = _sided(check.side, limits)
    usual = np.where(np.isfinite(limits.low), (limits.low + limits.high) / 2, series.floor)
    reached: BoolArray = (usual + check.effect > high) | (usual - check.effect < low)
    return reached


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


def begin(check: Check, width: int) -> Procedure:
    """Start a check's procedure, for windows of some width."""
    assert check.budget is not None
    if check.procedure == "lord":
        lord = stream(check)
        return lambda p: p <= np.stack([lord.test(each) for each in p.T], axis=1)
    # Of the windows in a week, each may spend its share of the false alerts.
    rate = min(FALSE_SHARE, check.budget * (width or WEEK) / WEEK)
    return lambda p: rate >= q_values(p.T).T


def stream(check: Check) -> Lord:
    """Begin a check's stream of tests; of nothing but noise, hardly any would ever be found."""
    assert check.budget is not None
    return Lord(rate=min(FALSE_SHARE, check.budget))


# States.


@dataclass(slots=True)
class Standing:
    """Where a series stands, and since when."""

    state: State = "ok"
    severity: int = OK
    since: int = 0  # start of the window in which the state began, microseconds
    recent: tuple[bool, ...] = ()  # whether the last windows were beyond the limits
    clean: int = 0  # clean windows in a row
    heard: int = 0  # start of the last window with data


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
    alerting = standing.state in ALERTING
    if step.severity < OK:  # nothing was learnt: what fires goes on firing, for a while
        state: State = "no data" if step.severity == NO_DATA else "too few rows"
        waits = alerting and step.start - standing.heard < SILENT
        return standing if waits else _moved(standing, state, OK, step.start)
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
    after.recent, after.clean, after.heard = recent, clean, step.start
    return after


def _moved(standing: Standing, state: State, severity: int, start: int) -> Standing:
    same = (state, severity) == (standing.state, standing.severity)
    since = standing.since if same else start
    return Standing(state, severity, since, standing.recent, standing.clean, standing.heard)


def fingerprint(check: str, name: Name) -> str:
    """Identity of an alert: of one check of one series there is never more than one.

    >>> fingerprint("psi by drift_null", Name("flights", "v2", "all", "distance", "psi"))
    'f91fc813bd0578c2'
    """
    return hashlib.sha256(json.dumps([check, *name]).encode()).hexdigest()[:16]


@dataclass
class Judged:
    """How far a check has got, and what it found, so that what late data change is seen."""

    names: tuple[Name, ...] = ()
    starts: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    severity: npt.NDArray[np.int8] = field(default_factory=lambda: np.empty((0, 0), dtype=np.int8))
    levels: FloatArray | None = None  # of LORD++, [K, T]
    met: set[Name] = field(default_factory=set)  # series that have had a value
    through: int | None = None  # start of the last window judged
    lord: Lord | None = None

    def arranged(self, series: Series) -> tuple[npt.NDArray[np.int8], FloatArray]:
        """Severities and levels by the names and windows of a series; no data where there is none.

        Windows that are no longer kept fall out.
        """
        shape = series.values.shape
        severity, levels = np.full(shape, NO_DATA, dtype=np.int8), np.full(shape, np.nan)
        place = {name: k for k, name in enumerate(self.names)}
        rows = np.array([place.get(name, -1) for name in series.names], dtype=np.int64)
        _, there, here = np.intersect1d(self.starts, series.starts, return_indices=True)
        known = np.flatnonzero(rows >= 0)
        severity[np.ix_(known, here)] = self.severity[np.ix_(rows[known], there)]
        if self.levels is not None:
            levels[np.ix_(known, here)] = self.levels[np.ix_(rows[known], there)]
        return severity, levels

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "names": [list(name) for name in self.names],
            "starts": _packed(self.starts),
            "severity": _packed(self.severity),
            "levels": None if self.levels is None else _packed(self.levels),
            "met": sorted(k for k, name in enumerate(self.names) if name in self.met),
            "through": self.through,
            "lord": self.lord and self.lord.to_dict(),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Judged:
        """Read such a document."""
        names = tuple(Name(*name) for name in stored["names"])
        return cls(
            names=names,
            starts=_unpacked(stored["starts"]),
            severity=_unpacked(stored["severity"]),
            levels=None if stored["levels"] is None else _unpacked(stored["levels"]),
            met={names[k] for k in stored["met"]},
            through=stored["through"],
            lord=Lord(**stored["lord"]) if stored["lord"] else None,
        )


class Found(NamedTuple):
    """What one check found: the changes of state, and the values they were found in."""

    changes: pa.Table  # as `values.TRANSITIONS`
    values: pa.Table  # as `values.METRIC_TABLE`: windows judged now, or whose verdict changed


@dataclass
class Watch:
    """Checks over a monitor, the state of every series, and the history of its changes.

    Each window is judged once, when it has closed; what late data changes afterwards is noted in
    the history, while the first verdict stands.

    Parameters
    ----------
    checks
        What is watched.

    >>> watch = Watch([Check(metric="psi")])
    >>> watch.open
    []
    """

    checks: Sequence[Check]

    def __post_init__(self) -> None:
        named = [check.name for check in self.checks]
        if len(set(named)) < len(named):
            raise ValueError(f"each check has a metric, rule and direction of its own, got {named}")
        self._standing: dict[tuple[str, Name], Standing] = {}  # of series that are not plainly ok
        self._judged = {check.name: Judged() for check in self.checks}
        self._reference: Reference | None = None  # that the baselines are of
        self._baselines: dict[str, pa.Table] = {}

    @property
    def open(self) -> list[tuple[tuple[str, Name], Standing]]:
        """Alerts that fire or recover, one a series and check, the most severe first."""
        alerting = [each for each in self._standing.items() if each[1].state in ALERTING]
        return sorted(alerting, key=lambda each: (-each[1].severity, each[1].since))

    def standing(self, check: str, name: Name) -> Standing:
        """Where a series stands."""
        return self._standing.get((check, name), Standing())

    def update(self, monitor: Monitor) -> pa.Table:
        """Judge the windows that have closed since the last call.

        Returns
        -------
        pyarrow.Table
            The changes of state, as `TRANSITIONS`, in the order of their windows.
        """
        return in_order([found.changes for found in self.steps(monitor)])

    def steps(self, monitor: Monitor) -> Iterator[Found]:
        """Judge the windows that have closed since the last call, check by check."""
        mark = monitor.watermark
        if mark is None:
            return
        now = int(np.datetime64(mark.replace(tzinfo=None), "us").astype(np.int64))
        wanted = list(dict.fromkeys(check.metric for check in self.checks))
        whole = monitor.metrics(wanted, window=monitor.window)  # all of one moment
        metrics = whole["metric"].cast(pa.string())
        ends = whole["window_end"].cast(pa.int64()).to_numpy()
        for check in self.checks:
            delay = 0 if check.delay is None else parse_duration(check.delay, role="delay")
            own = pc.equal(metrics, registry.get(check.metric).label)
            table = whole.filter(pc.and_(own, pa.chunked_array([ends + delay <= now])))
            series = Series.from_table(table)
            series = series.at([k for k, each in enumerate(series.names) if check.watches(each)])
            baseline = Series.from_table(self._baseline(check, monitor), like=series)
            through = self._judged[check.name].through
            changes = self.carry(check, series, baseline)
            late = changes.filter(changes["late"])["window_start"]
            opened = table["window_start"]
            new = pc.greater(opened.cast(pa.int64()), NEVER if through is None else through)
            yield Found(changes, table.filter(pc.or_(new, pc.is_in(opened, late.combine_chunks()))))

    def _baseline(self, check: Check, monitor: Monitor) -> pa.Table:
        """Return the metric over the reference's own windows, worked out once."""
        if self._reference is not monitor.reference:
            self._reference, self._baselines = monitor.reference, {}
        if check.metric not in self._baselines:
            self._baselines[check.metric] = monitor.baseline(check.metric)
        return self._baselines[check.metric]

    def carry(self, check: Check, series: Series, baseline: Series) -> pa.Table:
        """Carry a check's series over their windows; the changes, as `TRANSITIONS`.

        Windows after the last one judged are judged; what is different now in the others is noted.
        """
        if not series.starts.size:
            return TRANSITIONS.empty_table()
        judged = self._judged[check.name]
        before, levels = judged.arranged(series)
        new = series.starts > (NEVER if judged.through is None else judged.through)
        lord = judged.lord
        procedure: Procedure | None = None
        if check.budget is not None and check.procedure == "lord":
            lord = lord or stream(check)

            def procedure(p: FloatArray) -> BoolArray:
                for t in np.flatnonzero(new):
                    levels[:, t] = lord.test(p[:, t])
                return p <= levels

        verdicts = judge(check, series, baseline, procedure)
        rows = [
            self._row(check, series, verdicts, k, t, late=True)
            for k, t in np.argwhere((verdicts.severity != before) & ~new).tolist()
        ]
        met = np.array([name in judged.met for name in series.names], dtype=bool)
        for t in np.flatnonzero(new).tolist():
            met |= verdicts.severity[:, t] != NO_DATA
            rows += self._step(check, series, verdicts, t, met)
        rows += self._end(check, series)
        self._judged[check.name] = Judged(
            names=series.names,
            starts=series.starts,
            severity=verdicts.severity,
            levels=levels if lord else None,
            met={name for name, known in zip(series.names, met, strict=True) if known},
            through=max(int(series.starts[-1]), judged.through or NEVER),
            lord=lord,
        )
        return in_order([pa.Table.from_pylist(rows, schema=TRANSITIONS)])

    def _step(
        self, check: Check, series: Series, verdicts: Verdicts, t: int, met: BoolArray
    ) -> Iterator[dict[str, Any]]:
        """Carry a check's series over one window: those that are there and not plainly ok."""
        start = int(series.starts[t])
        known = [(check.name, name) in self._standing for name in series.names]
        stands = np.array(known, dtype=bool)
        for k in np.flatnonzero(met & (stands | (verdicts.severity[:, t] != OK))).tolist():
            name, severity = series.names[k], int(verdicts.severity[k, t])
            key = (check.name, name)
            before = self._standing.get(key, Standing())
            facts = bool(verdicts.extreme[k, t]), bool(verdicts.clean[k, t])
            after = advance(check, before, Step(start, severity, *facts))
            if after.state == "ok" and not any(after.recent):
                self._standing.pop(key, None)
            else:
                self._standing[key] = after
            if (after.state, after.severity) != (before.state, before.severity):
                yield {
                    **self._row(check, series, verdicts, k, t, late=False),
                    "before": before.state,
                    "after": after.state,
                }

    def _row(
        self, check: Check, series: Series, verdicts: Verdicts, k: int, t: int, *, late: bool
    ) -> dict[str, Any]:
        """Describe the verdict on one window of one series; the state is as it stands."""
        name, start = series.names[k], int(series.starts[t])
        state = self.standing(check.name, name).state
        return {
            "fingerprint": fingerprint(check.name, name),
            "check": check.name,
            **name._asdict(),
            "window_start": start,
            "window_end": start + series.width,
            "before": state,
            "after": state,
            "severity": SEVERITIES[int(verdicts.severity[k, t])],
            "value": _known(series.values[k, t]),
            "low": _known(verdicts.low[k, t]),
            "high": _known(verdicts.high[k, t]),
            "n": int(series.n[k, t]),
            "late": late,
        }

    def _end(self, check: Check, series: Series) -> Iterator[dict[str, Any]]:
        """End the alerts of series that are kept no longer."""
        gone = {key for key in self._standing if key[0] == check.name} - {
            (check.name, name) for name in series.names
        }
        for key in sorted(gone, key=str):
            before = self._standing.pop(key).state
            if before in ALERTING:
                start = int(series.starts[-1])
                yield {
                    "fingerprint": fingerprint(*key),
                    "check": check.name,
                    **key[1]._asdict(),
                    "window_start": start,
                    "window_end": start + series.width,
                    "before": before,
                    "after": "no data",
                    "severity": SEVERITIES[NO_DATA],
                    "n": 0,
                    "late": False,
                }

    def state(self) -> dict[str, Any]:
        """Everything the watch knows, for JSON; `restore` goes on from there."""
        return {
            "format": FORMAT,
            "standing": [
                [check, list(name), asdict(each)] for (check, name), each in self._standing.items()
            ],
            "judged": {name: each.to_dict() for name, each in self._judged.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another watch stood; checks that it did not have begin anew.

        Raises
        ------
        DataError
            When the state was written by a later version.
        """
        if state.get("format") != FORMAT:
            raise DataError(f"a watch of format {state.get('format')}, this version reads {FORMAT}")
        self._standing = {
            (check, Name(*name)): Standing(**each | {"recent": tuple(each["recent"])})
            for check, name, each in state["standing"]
            if check in self._judged
        }
        for name in self._judged:
            stored = state["judged"].get(name)
            self._judged[name] = Judged.from_dict(stored) if stored else Judged()


def in_order(tables: Sequence[pa.Table]) -> pa.Table:
    """Changes in the order of their windows."""
    order = ["window_start", "late", "check", "version", "segment", "column"]
    whole = pa.concat_tables([TRANSITIONS.empty_table(), *tables])
    return whole.sort_by([(key, "ascending") for key in order])


def _packed(array: npt.NDArray[Any]) -> list[Any]:
    data = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 1)).decode()
    return [array.dtype.str, list(array.shape), data]


def _unpacked(stored: Sequence[Any]) -> npt.NDArray[Any]:
    kind, shape, data = stored
    return np.frombuffer(zlib.decompress(base64.b64decode(data)), np.dtype(kind)).reshape(shape)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
