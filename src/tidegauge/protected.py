"""The groups of protected attributes: sums by segment, side by side for the fairness metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tidegauge._core import SPECIALS
from tidegauge.layout import Layout
from tidegauge.metrics import Metric
from tidegauge.metrics.evaluate import Keys, evaluate_groups
from tidegauge.metrics.inputs import BinaryOutcomes, FloatArray, GroupOutcomes, IntArray
from tidegauge.metrics.performance import by_tenth
from tidegauge.reference import Reference
from tidegauge.window import Span, WindowSums, WindowTable

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
    for name in names:
        here = _read(table, span, sets[name], versions=versions)
        there = _read(reference.table, Span(None, None), sets[name])
        current[name], usual[name] = _side_by_side(here.groups, there.groups)
    return evaluate_groups(here.keys, current, usual, model=model, metrics=metrics)


@dataclass(frozen=True)
class _Sheet:
    """An attribute in W windows: counts of every group that was met, [W, G]."""

    keys: Keys
    groups: GroupOutcomes


def _side_by_side(
    current: GroupOutcomes, usual: GroupOutcomes
) -> tuple[GroupOutcomes, GroupOutcomes]:
    """Both sides with the same groups; the reference, as a whole, beside every window."""
    names = tuple(sorted({*current.names, *usual.names}))
    n = len(current.decided)
    whole = [each.sum(axis=0, keepdims=True) for each in _arranged(usual, names)]
    return (
        GroupOutcomes(names, *_arranged(current, names)),
        GroupOutcomes(names, *(np.broadcast_to(each, (n, *each.shape[1:])) for each in whole)),
    )


def _arranged(groups: GroupOutcomes, names: tuple[str, ...]) -> list[FloatArray]:
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
    *,
    versions: Sequence[str] | None = None,
) -> _Sheet:
    """Sum the cells of an attribute's groups by window and version."""
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
    groups = GroupOutcomes(names, *map(spread, _counts(sums)))
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
