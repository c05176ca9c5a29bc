"""The groups of protected attributes: sums by segment, side by side for the fairness metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from tidegauge._core import SPECIALS, fit_isotonic
from tidegauge.calibration import Calibrator
from tidegauge.layout import Layout
from tidegauge.metrics import Metric, get
from tidegauge.metrics.estimated import MATURE, Errors, is_backtested
from tidegauge.metrics.evaluate import Groups, Keys, Past, evaluate_groups
from tidegauge.metrics.inputs import (
    BinaryEstimates,
    BinaryOutcomes,
    FloatArray,
    GroupEstimates,
    GroupOutcomes,
    IntArray,
    ratio,
)
from tidegauge.metrics.performance import by_tenth
from tidegauge.metrics.results import value_of
from tidegauge.reference import Reference
from tidegauge.window import EVERYTHING, Span, WindowSums, WindowTable

Counted: TypeAlias = GroupOutcomes | GroupEstimates
GROUP_LABELS = 500  # of the reference, from which a group may have a calibrator of its own
POSITIVE = {"1", "true"}  # decisions that are favourable where the schema names no `positive`


def attributes(layout: Layout) -> dict[str, tuple[str, ...]]:
    """Protected attributes and intersections by name; none where decisions are not binary."""
    if layout.schema.task != "binary":
        return {}
    sets = [(each,) if isinstance(each, str) else tuple(each) for each in layout.schema.protected]
    return {" & ".join(columns): columns for columns in sets}


def fairness_table(
    reference: Reference,
    table: WindowTable,
    span: Span,
    *,
    names: Sequence[str],
    model: str,
    metrics: Sequence[Metric],
    versions: Sequence[str] | None = None,
) -> pa.Table:
    """Compute fairness metrics of some attributes for every window and version of a table."""
    sets = attributes(table.layout)
    current, usual = {}, {}
    estimated = [metric for metric in metrics if metric.estimated]
    for name in names:
        own = _group_chances(reference.table, sets[name]) if estimated else None
        here = _read(table, span, sets[name], own, versions=versions)
        there = _read(reference.table, EVERYTHING, sets[name], own)
        both = _side_by_side(here.groups, there.groups)
        past = {
            metric.label: _past(metric, reference, here, (name, sets[name]), own)
            for metric in estimated
            if own is not None and here.groups.estimates is not None and _is_gap(metric)
        }
        current[name], usual[name] = both[0]._replace(past=past), both[1]
    return evaluate_groups(here.keys, current, usual, model=model, metrics=metrics)


@dataclass(frozen=True)
class _Sheet:
    """An attribute in W windows: counts of every group that was met, [W, G]."""

    keys: Keys
    groups: Groups


def _is_gap(metric: Metric) -> bool:
    """Whether an estimate has one value for the attribute, and a metric to be held against."""
    return is_backtested(metric.name) and not metric.forms[0].per_group


def _past(
    metric: Metric,
    reference: Reference,
    here: _Sheet,
    attribute: tuple[str, tuple[str, ...]],
    own: Mapping[str, Calibrator] | None,
) -> Past:
    """Errors of an estimated gap in the reference's windows, and in earlier ones of the traffic."""
    keys, name = here.keys, attribute[0]
    nothing = np.zeros(len(keys.segment), dtype=np.int64)
    starts = nothing if keys.window_start is None else keys.window_start
    ends = nothing + 1 if keys.window_end is None else keys.window_end
    widths = nothing if keys.window_start is None else ends - starts
    distinct, row = np.unique(widths, return_inverse=True)
    known = []
    for width in distinct.tolist():
        key = (metric.label, name, width)
        if key not in reference.errors:
            pane, found = reference.table.pane, Errors.none()
            if pane and width and width % pane == 0:
                windows = _read(reference.table, Span(width, width), attribute[1], own)
                found = _errors(metric, windows.groups).total
            reference.errors[key] = found
        known.append(reference.errors[key])
    before = _errors(metric, here.groups).before(starts, ends, keys.version.astype(np.int64))
    of_traffic = [getattr(before, each.name) for each in fields(Errors)]
    of_reference = [np.array([getattr(e, f.name) for e in known])[row] for f in fields(Errors)]
    sums = [past + live for past, live in zip(of_reference, of_traffic, strict=True)]
    return Past(*sums, *of_traffic)


def _errors(metric: Metric, groups: Groups) -> Errors:
    """Errors of an estimated gap before labels, by window; nothing where labels are due."""
    realised = get(metric.name.removeprefix("estimated_"))
    options = {name: value for name, value in metric.chosen.items() if name in realised.options}
    sides = (metric.forms[0], groups.estimates), (realised.forms[0], groups.outcomes)
    guess, truth = (value_of(form.function(current=each, **options)) for form, each in sides)
    share = ratio(groups.outcomes.n, groups.outcomes.predictions)
    return Errors.of(np.where(share >= MATURE, guess - truth, np.nan))


def _side_by_side(current: Groups, usual: Groups) -> tuple[Groups, Groups]:
    """Both sides with the same groups; the reference, as a whole, beside every window."""
    names = tuple(sorted({*current.outcomes.names, *usual.outcomes.names}))
    n = len(current.outcomes.decided)

    def beside(here: Counted, there: Counted) -> tuple[Any, Any]:
        whole = [each.sum(axis=0, keepdims=True) for each in _arranged(there, names)]
        repeated = (np.broadcast_to(each, (n, *each.shape[1:])) for each in whole)
        kind: Any = type(here)
        return kind(names, *_arranged(here, names)), kind(names, *repeated)

    outcomes = beside(current.outcomes, usual.outcomes)
    estimates: tuple[Any, Any] = (None, None)
    if current.estimates is not None and usual.estimates is not None:
        estimates = beside(current.estimates, usual.estimates)
    return Groups(outcomes[0], estimates[0]), Groups(outcomes[1], estimates[1])


def _arranged(groups: Counted, names: tuple[str, ...]) -> list[FloatArray]:
    """Counts in another order of the groups, zeros for those that were not met."""
    place = [names.index(name) for name in groups.names]
    arranged = []
    for counts in groups.counts:
        table = np.zeros((len(counts), len(names), *counts.shape[2:]))
        table[:, place] = counts
        arranged.append(table)
    return arranged


def _read(
    table: WindowTable,
    span: Span,
    columns: tuple[str, ...],
    own: Mapping[str, Calibrator] | None,
    *,
    versions: Sequence[str] | None = None,
) -> _Sheet:
    """Sum the cells of an attribute's groups by window and version.

    `own` holds the calibrators of groups that have one of their own.
    """
    wanted = table.segment_labels(columns)
    keys, sums = table.read(span, segments=wanted, versions=versions)
    times = np.zeros((2, keys.segment.size), dtype=np.int64)
    if keys.window_start is not None and keys.window_end is not None:
        times = np.stack([keys.window_start, keys.window_end])
    is_kept = np.ones(keys.segment.size) if keys.is_kept is None else keys.is_kept
    rows = np.stack([*times, keys.version, is_kept], axis=1)
    windows, window = np.unique(rows, axis=0, return_inverse=True)
    segments, group = np.unique(keys.segment, return_inverse=True)
    window = window.ravel()

    def spread(counts: FloatArray) -> FloatArray:
        table = np.zeros((len(windows), len(segments), *counts.shape[1:]))
        table[window, group] = counts
        return table

    names = tuple(keys.segments[code] for code in segments)
    outcomes = GroupOutcomes(names, *map(spread, _counts(sums)))
    expected = _expected(sums, keys, own)
    estimates = None
    if expected is not None:
        decided, selected, *counts = map(spread, expected)
        tp, fp, fn, tn = counts
        estimates = GroupEstimates(names, decided, selected, tp, fp, fn, tn)
    groups = Groups(outcomes, estimates)
    timed = keys.window_start is not None
    return _Sheet(
        Keys(
            window_start=windows[:, 0] if timed else None,
            window_end=windows[:, 1] if timed else None,
            version=windows[:, 2].astype(np.int32),
            versions=keys.versions,
            segment=np.zeros(len(windows), dtype=np.int32),
            segments=("all",),
            is_kept=windows[:, 3].astype(bool),
        ),
        groups,
    )


def _counts(sums: WindowSums) -> list[FloatArray]:
    """Counts of `GroupOutcomes` for every row of the sums, in rows of traffic."""
    outcomes = sums.outcomes()
    assert isinstance(outcomes, BinaryOutcomes)
    rows = np.nan_to_num(outcomes.rows_per_count)
    fn, tp = (outcomes.positives.sum(axis=-1) * rows[:, None]).T
    tn, fp = (outcomes.negatives.sum(axis=-1) * rows[:, None]).T
    positive = by_tenth(outcomes.positives.sum(axis=-2), outcomes.edges)
    negative = by_tenth(outcomes.negatives.sum(axis=-2), outcomes.edges)
    tenths = [positive + negative, positive, outcomes.confidence]
    return [*_decisions(sums), tp, fp, fn, tn, *(each * rows[:, None] for each in tenths)]


def _expected(
    sums: WindowSums, keys: Keys, own: Mapping[str, Calibrator] | None
) -> list[FloatArray] | None:
    """Counts of `GroupEstimates` for every row of the sums; None where nothing is estimated."""
    estimates = None if own is None else sums.estimates()
    if own is None or estimates is None:
        return None
    assert isinstance(estimates, BinaryEstimates)
    chances = np.array(estimates.chances)
    for code, name in enumerate(keys.segments):
        if name in own:
            inside = keys.segment == code
            chances[inside] = estimates.rows[inside] * own[name](_middles(estimates.edges))
    per_row = np.nan_to_num(estimates.rows_per_count)[:, None]
    fn, tp = (chances.sum(axis=-1) * per_row).T
    zeros, ones = (estimates.rows.sum(axis=-1) * per_row).T
    return [*_decisions(sums), tp, ones - tp, fn, zeros - fn]


def _middles(edges: FloatArray) -> FloatArray:
    return np.asarray((edges[:-1] + edges[1:]) / 2)


def _group_chances(table: WindowTable, columns: tuple[str, ...]) -> dict[str, Calibrator]:
    """Calibrators of the groups whose labels in the reference say something else than all labels.

    A group has its own when it has GROUP_LABELS or more, and when its calibration error lies two
    standard errors above what it would be by chance.
    """
    keys, sums = table.read(EVERYTHING, segments=table.segment_labels(columns), by_version=False)
    estimates = sums.estimates()
    if estimates is None:
        return {}
    assert isinstance(estimates, BinaryEstimates)
    rows = estimates.labelled.sum(axis=-2) * 1.0
    positives = estimates.positives.sum(axis=-2) * 1.0
    chances = estimates.labelled_chances.sum(axis=-2)
    weight = np.nan_to_num(estimates.rows_per_count)
    found = {}
    for row, code in enumerate(keys.segment):
        n = rows[row].sum() * weight[row]
        if n < GROUP_LABELS or not _strays(rows[row], positives[row], chances[row]):
            continue
        met = rows[row] > 0
        scores = _middles(estimates.edges)[met]
        shares = positives[row][met] / rows[row][met]
        knots = fit_isotonic(scores, shares, rows[row][met])
        found[keys.segments[code]] = Calibrator(*knots, isotonic=True)
    return found


def _strays(rows: FloatArray, positives: FloatArray, chances: FloatArray) -> bool:
    """Whether positives lie further from chances, over tenths of the rows, than chance explains."""
    upto = np.cumsum(rows) - rows / 2
    tenth = np.minimum((upto / rows.sum() * 10).astype(int), 9)
    binomial = chances - np.divide(chances**2, rows, out=np.zeros_like(rows), where=rows > 0)
    gap, variance = (np.bincount(tenth, each, 10) for each in (positives - chances, binomial))
    usual = np.sqrt(2 / np.pi * variance).sum()  # of |x|, x normal
    spread = np.sqrt((1 - 2 / np.pi) * variance.sum())
    return bool(np.abs(gap).sum() > usual + 2 * spread)


def _decisions(sums: WindowSums) -> tuple[IntArray, IntArray]:
    """Rows with a decision, and those decided 1, whether labelled or not."""
    layout = sums.table.layout
    schema = layout.schema
    if schema.prediction is None:
        counted = layout.columns[schema.score_columns[0]]
        assert counted.bins is not None
        slots = sums.slots(counted.block)
        first = int(counted.bins.encode(np.array([schema.threshold]))[0])
        return slots[:, SPECIALS:].sum(axis=1), slots[:, first:].sum(axis=1)
    counted = layout.columns[schema.prediction]
    assert counted.categories is not None
    slots = sums.slots(counted.block)[:, SPECIALS:]  # unseen, then the categories
    favourable = {schema.positive} if schema.positive is not None else POSITIVE
    chosen = [text in favourable for text in counted.categories.texts]
    unseen = not any(chosen)  # the reference was never decided 1: what is new is
    return slots.sum(axis=1), slots[:, np.array([unseen, *chosen])].sum(axis=1)
