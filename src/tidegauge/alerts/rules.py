"""What is too much: rules that give limits to metric values, all series and windows at once.

A rule is one decorated function of the series, the same series over the reference's own windows,
and a level. It judges nothing: it says between which limits a value is unremarkable, and how
improbable the value is where it can tell.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tidegauge.alerts.series import FloatArray, IntArray, Series
from tidegauge.window import DAY, HOUR, MONDAY, WEEK

FEWEST_WINDOWS = 5  # of the reference, for limits learnt from them


@dataclass(frozen=True)
class Limits:
    """Between what a value is unremarkable, [K, T] each; NaN where the rule cannot say.

    `p_high` and `p_low` are the chances of a value as high, or as low, without any change; NaN for
    rules that are not about chance.
    """

    low: FloatArray
    high: FloatArray
    p_low: FloatArray
    p_high: FloatArray


F = TypeVar("F", bound=Callable[..., Limits])


@dataclass(frozen=True, slots=True)
class Rule:
    """A named function that gives limits, and whether its level is a chance."""

    name: str
    function: Callable[..., Limits]
    chance: bool

    @property
    def options(self) -> Mapping[str, Any]:
        """Options it takes, with their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


_RULES: dict[str, Rule] = {}


def rule(name: str, *, chance: bool) -> Callable[[F], F]:
    """Register a function as the rule `name`.

    Parameters
    ----------
    name
        What checks, the command line and messages call it.
    chance
        Whether the level is a chance; otherwise it is in a unit of the rule's own.

    Raises
    ------
    ValueError
        When there is such a rule already.
    """

    def register(function: F) -> F:
        if name in _RULES:
            raise ValueError(
                f"rule {name!r} is already defined by {_RULES[name].function.__module__}"
            )
        _RULES[name] = Rule(name, function, chance)
        return function

    return register


def names() -> tuple[str, ...]:
    """Names of all rules.

    >>> names()[:2]
    ('constant', 'relative')
    """
    return tuple(_RULES)


def get(name: str) -> Rule:
    """Rule by name.

    Raises
    ------
    ValueError
        When there is none; the message lists what there is.

    >>> dict(get("effect_size").options)
    {'delta': 0.02}
    """
    if name not in _RULES:
        close = difflib.get_close_matches(name, _RULES, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(_RULES)}"
        raise ValueError(f"unknown rule {name!r}; {hint}")
    return _RULES[name]


def _fixed(low: FloatArray, high: FloatArray) -> Limits:
    """Limits of a rule that is not about chance."""
    unknown = np.full(high.shape, np.nan)
    return Limits(low, high, unknown, unknown)


@rule("constant", chance=False)
def constant(series: Series, baseline: Series, level: float) -> Limits:
    """A fixed value, `level`, above which, or below which, a value is too much."""
    limit = np.full(series.values.shape, float(level))
    return _fixed(limit, limit)


@rule("relative", chance=False)
def relative(series: Series, baseline: Series, level: float) -> Limits:
    """The value of the reference, give or take the share `level` of it."""
    room = np.abs(series.usual) * level
    return _fixed(series.usual - room, series.usual + room)


@rule("change", chance=False)
def change(series: Series, baseline: Series, level: float) -> Limits:
    """The value of the window before, give or take the share `level` of it."""
    before = _before(series.values)
    room = np.abs(before) * level
    return _fixed(before - room, before + room)


@rule("reference_windows", chance=True)
def reference_windows(series: Series, baseline: Series, level: float) -> Limits:
    """Mean of the reference's own windows, give or take a t quantile at chance `level`.

    The variance of a new value is the spread between windows, beyond what their size explains, plus
    the squared standard error at the present window's size. With few windows the limits are wide,
    as they should be; three standard deviations of five windows would fire one time in fourteen.
    """
    enough, mean, between, n = _spread(baseline)
    error = np.where(np.isnan(series.error), 0.0, series.error)
    scale = np.sqrt(between[:, None] * (1 + 1 / np.maximum(n, 1))[:, None] + error**2)
    scale = np.where(enough[:, None], scale, np.nan)
    return _around(
        mean[:, None], scale, level, series.values, freedom=np.maximum(n - 1, 1)[:, None]
    )


@rule("drift_null", chance=True)
def drift_null(series: Series, baseline: Series, level: float) -> Limits:
    """How far the reference's own windows move, at chance `level`: for drift metrics.

    Real traffic is not independent, so a window differs from the reference by more than its noise
    floor. A gamma distribution is fitted by moments to value / floor of the reference's windows;
    its quantile times the present floor is the limit, never under that of independent rows.
    """
    gamma = _stats().gamma
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = baseline.values / baseline.floor
    known = np.isfinite(ratios)
    n = known.sum(axis=1)
    mean = _mean(ratios, known)
    variance = _mean((ratios - mean[:, None]) ** 2, known) * n / np.maximum(n - 1, 1)
    enough = (n >= FEWEST_WINDOWS) & (mean > 0) & (variance > 0)
    mean, variance = np.where(enough, mean, 1.0), np.where(enough, variance, 1.0)
    shape, scale = mean**2 / variance, variance / mean
    moved = series.values / series.floor
    high = series.floor * gamma.isf(level, shape, scale=scale)[:, None]
    p = gamma.sf(moved, shape[:, None], scale=scale[:, None])
    iid = effect_size(series, baseline, level, delta=0.0)
    high = np.fmax(high, iid.high)
    keep = enough[:, None] & np.isfinite(series.floor)
    high, p = np.where(keep, high, np.nan), np.where(keep, np.fmax(p, iid.p_high), np.nan)
    return Limits(np.full(high.shape, np.nan), high, np.full(p.shape, np.nan), p)


@rule("effect_size", chance=True)
def effect_size(series: Series, baseline: Series, level: float, *, delta: float = 0.02) -> Limits:
    """The highest PSI, at chance `level`, of a population that has moved by no more than `delta`.

    With k = 1/n + 1/n_reference, PSI of B bins is about k times a chi-square of B - 1 degrees of
    freedom and non-centrality delta / k; the floor is (B - 1) k. One rule for windows of every
    size: significance is not size, and a window of millions is quiet about less than `delta`.
    """
    is_psi = [name.metric.partition("(")[0] == "psi" for name in series.names]
    psi = np.array(is_psi, dtype=bool)[:, None]
    stats = _stats()
    with np.errstate(divide="ignore", invalid="ignore"):
        k = 1 / series.n + 1 / series.n_reference
        freedom = np.maximum(np.rint(series.floor / k), 1)
    known = psi & np.isfinite(k) & np.isfinite(freedom)
    k, freedom = np.where(known, k, 1.0), np.where(known, freedom, 1.0)
    null = stats.ncx2(freedom, delta / k) if delta > 0 else stats.chi2(freedom)
    high = np.where(known, k * null.isf(level), np.nan)
    p = np.where(known, null.sf(series.values / k), np.nan)
    return Limits(np.full(high.shape, np.nan), high, np.full(p.shape, np.nan), p)


@rule("seasonal", chance=True)
def seasonal(series: Series, baseline: Series, level: float) -> Limits:
    """The usual value at this hour of the week, give or take its spread, at chance `level`.

    The median of all windows, then of the hour of the day, then of the hour of the week, each
    shrunk to the one before as far as chance could have moved it; the spread is 1.4826 times the
    median distance from it, more where a slot has few windows. Needs three weeks for hours of the
    week and three days for hours of the day.
    """
    expected, spread = _season(series, baseline)
    error = np.where(np.isnan(series.error), 0.0, series.error)
    return _around(expected, np.sqrt(spread[:, None] ** 2 + error**2), level, series.values)


@rule("trend", chance=True)
def trend(series: Series, baseline: Series, level: float, *, memory: float = 0.1) -> Limits:
    """The level that the series has moved to lately, give or take its spread, at chance `level`.

    An exponential mean of the values less their season, which takes in `memory` of each new value
    and stands still while values are beyond the limits, so that a sudden fault is not learnt.
    """
    expected, spread = _season(series, baseline)
    error = np.where(np.isnan(series.error), 0.0, series.error)
    scale = np.sqrt(spread[:, None] ** 2 + error**2)
    room = scale * _stats().norm.isf(level / 2)
    drifted = series.values - expected
    moved = np.zeros(len(drifted))
    center = np.empty_like(drifted)
    for t in range(drifted.shape[1]):
        center[:, t] = moved
        step = drifted[:, t] - moved
        inside = np.abs(step) <= room[:, t]  # never true of a NaN
        moved = np.where(inside, moved + memory * np.where(inside, step, 0.0), moved)
    return _around(expected + center, scale, level, series.values)


@rule("cusum", chance=False)
def cusum(series: Series, baseline: Series, level: float, *, slack: float = 0.5) -> Limits:
    """What would carry the sum of small deviations in one direction over `level`: slow change.

    S = max(0, S + z - slack) from the deviations z of the values from the reference's windows, in
    standard deviations; the limits are the values that would bring S over `level` in this window.
    A level of 5 fires about once in 930 independent windows.
    """
    enough, mean, between, _ = _spread(baseline)
    error = np.where(np.isnan(series.error), 0.0, series.error)
    scale = np.sqrt(between[:, None] + error**2)
    scale = np.where(enough[:, None] & (scale > 0), scale, np.nan)
    z = np.nan_to_num((series.values - mean[:, None]) / scale)
    above, below = np.zeros(len(z)), np.zeros(len(z))
    high, low = np.empty_like(z), np.empty_like(z)
    for t in range(z.shape[1]):
        high[:, t] = level + slack - above
        low[:, t] = -(level + slack - below)
        above = np.maximum(0, above + z[:, t] - slack)
        below = np.maximum(0, below - z[:, t] - slack)
    return _fixed(mean[:, None] + low * scale, mean[:, None] + high * scale)


def _around(
    center: FloatArray,
    scale: FloatArray,
    level: float,
    values: FloatArray,
    *,
    freedom: npt.NDArray[Any] | float = np.inf,
) -> Limits:
    """Limits of a normal or t distributed value, chance `level` on each side."""
    t = _stats().t
    scale = np.where(scale > 0, scale, np.nan)
    room = scale * t.isf(level, freedom)
    z = (values - center) / scale
    return Limits(center - room, center + room, t.cdf(z, freedom), t.sf(z, freedom))


def _spread(baseline: Series) -> tuple[npt.NDArray[np.bool_], FloatArray, FloatArray, IntArray]:
    """Whether there are windows enough, their mean, variance beyond their errors, number: [K]."""
    known = np.isfinite(baseline.values)
    n = known.sum(axis=1)
    mean = _mean(baseline.values, known)
    variance = _mean((baseline.values - mean[:, None]) ** 2, known) * n / np.maximum(n - 1, 1)
    errors = np.where(np.isnan(baseline.error), 0.0, baseline.error)
    between = np.maximum(variance - _mean(errors**2, known), 0.0)
    return n >= FEWEST_WINDOWS, mean, between, n


def _season(series: Series, baseline: Series) -> tuple[FloatArray, FloatArray]:
    """Expected value of each window, [K, T], and the spread around it, [K]."""
    days = int(np.ptp(baseline.starts)) // DAY if baseline.starts.size else 0
    cycles = [(DAY, 3), (WEEK, 20)]  # width, and the days that it takes to know one
    middle = _median(baseline.values)[:, None]
    rest = baseline.values - middle
    expected = np.broadcast_to(middle, series.values.shape).copy()
    n = np.isfinite(baseline.values).sum(axis=1)
    n_slots = 1
    for cycle in [width for width, needed in cycles if days >= needed]:
        here = (series.starts - MONDAY) % cycle // HOUR
        there = (baseline.starts - MONDAY) % cycle // HOUR
        for slot, step in _slots(rest, there):
            expected[:, here == slot] += step
            rest[:, there == slot] -= step
        n_slots = len(np.unique(there))
    # Medians of few windows follow them: the rest looks smaller, and a new window lies further off.
    each = np.maximum(n / n_slots, 1.5)
    spread = 1.4826 * _median(np.abs(rest)) * np.sqrt((1 + np.pi / 2 / each) / (1 - 1 / each))
    enough = n >= FEWEST_WINDOWS
    return np.where(enough[:, None], expected, np.nan), np.where(enough, spread, np.nan)


def _slots(values: FloatArray, slot: IntArray) -> list[tuple[int, FloatArray]]:
    """How far each slot lies from 0, [K, 1], shrunk as far as its windows could do so by chance."""
    members = [values[:, slot == each] for each in np.unique(slot)]
    middles = np.stack([_median(each) for each in members], axis=1)
    n = np.stack([np.isfinite(each).sum(axis=1) for each in members], axis=1)
    apart = np.concatenate(
        [np.abs(each - middles[:, [k]]) for k, each in enumerate(members)], axis=1
    )
    chance = (1.4826 * _median(apart))[:, None] ** 2 / np.maximum(n, 1)
    known = n > 0
    middles = np.where(known, middles, 0.0)
    between = np.maximum(_mean(middles**2 - chance, known), 0.0)[:, None]
    weight = between / np.where(between + chance > 0, between + chance, 1.0)
    steps = np.where(known, weight * middles, 0.0)
    return [(int(each), steps[:, [k]]) for k, each in enumerate(np.unique(slot))]


def _before(values: FloatArray) -> FloatArray:
    """The last known value before each window, [K, T]."""
    last = np.full(len(values), np.nan)
    before = np.empty_like(values)
    for t in range(values.shape[1]):
        before[:, t] = last
        last = np.where(np.isnan(values[:, t]), last, values[:, t])
    return before


def _mean(values: FloatArray, known: npt.NDArray[np.bool_]) -> FloatArray:
    total: FloatArray = np.where(known, values, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return total


def _median(values: FloatArray) -> FloatArray:
    """Median along the windows, NaN where there are none."""
    if not values.shape[1]:
        return np.full(len(values), np.nan)
    empty = np.isfinite(values).sum(axis=1) == 0
    median: FloatArray = np.nanmedian(np.where(empty[:, None], 0.0, values), axis=1)
    median[empty] = np.nan
    return median


def _stats() -> Any:
    try:
        from scipy import stats  # noqa: PLC0415
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "rules about chance need SciPy: pip install 'tidegauge[alerts]'"
        ) from None
    return stats
