"""Traffic beside its reference: the sums that metrics ask for, row by row, and bins to draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidegauge import metrics as registry
from tidegauge._core import SPECIALS
from tidegauge.grid import LARGEST
from tidegauge.ingest import as_batch
from tidegauge.layout import (
    ABSENT,
    MISSING,
    NAN,
    SENTINEL,
    WEIGHT_UNITS,
    CountedColumn,
    Layout,
)
from tidegauge.metrics import Metric
from tidegauge.metrics.drift import evidence
from tidegauge.metrics.estimated import Errors, errors_of, is_backtested
from tidegauge.metrics.evaluate import Keys, Past, evaluate
from tidegauge.metrics.inputs import (
    Bins,
    ColumnCounts,
    Estimates,
    Fine,
    Outcomes,
    RowSamples,
    Traffic,
    cell_arrays,
    matrices,
    taken,
)
from tidegauge.metrics.significance import Quiet
from tidegauge.reference import Reference
from tidegauge.sample import Drawn, encoded
from tidegauge.values import METRIC_TABLE, Distribution
from tidegauge.window import (
    EVERYTHING,
    NO_VERSION,
    FloatArray,
    IndexArray,
    IntArray,
    LabelClock,
    Span,
    WindowSums,
    WindowTable,
)

Record = TypeVar("Record")

_INSTANT = METRIC_TABLE.field("window_start").type
ROWS_AT_ONCE = 4096
BINS_AT_ONCE = 64
DISPLAY_BINS = 40
DISPLAY_CATEGORIES = 20


@dataclass(frozen=True, slots=True)
class Sampled:
    """Sampled rows, and the places among them of the rows of each window, as they were drawn."""

    drawn: Drawn
    places: list[IntArray]


@dataclass(frozen=True)
class Comparison:
    """Rows of windows, and for each the row of the reference it is compared with.

    `index[r]` is the row of `reference_sums` for row r, -1 where the reference has no such segment.
    """

    reference: Reference
    keys: Keys
    sums: WindowSums
    reference_sums: WindowSums
    index: IntArray
    drawn: Drawn | None = None  # sampled rows of the traffic
    labels: LabelClock | None = None  # where predictions and labels have ids
    _occupied: dict[str, tuple[IndexArray, FloatArray]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        reference: Reference,
        keys: Keys,
        sums: WindowSums,
        drawn: Drawn | None = None,
        labels: LabelClock | None = None,
    ) -> Comparison:
        """Compare rows with the whole reference of the same segment."""
        reference_keys, reference_sums = reference.table.read(EVERYTHING, by_version=False)
        names = [reference_keys.segments[code] for code in reference_keys.segment]
        place = {name: row for row, name in enumerate(names)}
        of_segment = np.array([place.get(name, -1) for name in keys.segments], dtype=np.int64)
        index = of_segment[keys.segment] if len(of_segment) else np.empty(0, dtype=np.int64)
        return cls(reference, keys, sums, reference_sums, index, drawn, labels)

    def table(
        self,
        *,
        model: str,
        metrics: list[Metric] | None = None,
        columns: list[str] | None = None,
    ) -> pa.Table:
        """Compute metrics of every row, a bounded number of rows at a time."""
        layout = self.sums.table.layout
        kinds = kinds_of(layout)
        if columns is not None:
            kinds = {name: kinds[name] for name in columns}
        parts = [
            evaluate(
                part.keys,
                Side(part, part.sums, None),
                Side(part, part.reference_sums, part.index),
                kinds=kinds,
                task=layout.schema.task,
                model=model,
                metrics=metrics,
                features=layout.schema.counted_features,
                quiet=part.quiet,
                alike=part.index,
                backtest=backtest,
            )
            for part, backtest in zip(self._parts(), self._backtests(metrics), strict=True)
        ]
        return pa.concat_tables(parts).unify_dictionaries() if parts else METRIC_TABLE.empty_table()

    def _parts(self) -> list[Comparison]:
        n = self.sums.n_rows
        if n <= ROWS_AT_ONCE:
            return [self] if n else []
        starts = range(0, n, ROWS_AT_ONCE)
        return [self._only(slice(start, min(start + ROWS_AT_ONCE, n))) for start in starts]

    def _only(self, rows: slice) -> Comparison:
        """Some of the rows."""
        opens, closes = self.keys.window_start, self.keys.window_end
        keys = replace(
            self.keys,
            window_start=None if opens is None else opens[rows],
            window_end=None if closes is None else closes[rows],
            version=self.keys.version[rows],
            segment=self.keys.segment[rows],
            is_kept=None if self.keys.is_kept is None else self.keys.is_kept[rows],
        )
        sums = self.sums.only(np.arange(rows.start, rows.stop))
        return replace(self, keys=keys, sums=sums, index=self.index[rows], _occupied={})

    def window_from(self, start: int | None) -> Comparison:
        """Return the one window that starts then, in microseconds; the latest unless given.

        Raises
        ------
        ValueError
            When there is none.
        """
        starts = self.keys.window_start
        if not self.sums.n_rows:
            raise ValueError("there is no traffic to explain")
        if starts is None:
            if start is not None:
                raise ValueError("there is one window without time; leave its start out")
            return self._only(slice(0, 1))
        found = np.flatnonzero(starts == (starts.max() if start is None else start))
        if not len(found):
            ends = np.array([starts.min(), starts.max()], "datetime64[us]")
            given = np.datetime64(start, "us")
            raise ValueError(
                f"no window starts at {given}Z; the first starts at {ends[0]}Z, the last at "
                f"{ends[1]}Z"
            )
        return self._only(slice(int(found[0]), int(found[0]) + 1))

    def samples(self, *, of_reference: bool) -> RowSamples:
        """Sampled rows of every window, or of the reference in the same segment."""
        sampled = self.sampled(of_reference=of_reference)
        numbers, codes = encoded(sampled.drawn.rows, self.sums.table.layout)
        return RowSamples(
            matrices([numbers[each] for each in sampled.places]),
            matrices([codes[each] for each in sampled.places]),
        )

    def sampled(self, *, of_reference: bool) -> Sampled:
        """Sampled rows, and which of them belong to each window, or to its segment's reference."""
        drawn = self.reference.drawn if of_reference else self.drawn
        if drawn is None:
            raise ValueError(
                "this is computed from sampled rows, and none are kept; ask for them by "
                "Reference.fit(..., sample_rows=5000) and Monitor(..., sample_rows=5000)"
            )
        return Sampled(drawn, self._drawn(drawn, by_window=not of_reference))

    def _drawn(self, drawn: Drawn, *, by_window: bool) -> list[IntArray]:
        """Which rows of a sample belong to each row of the sums, smallest priorities first."""
        keys = self.keys
        labels = [np.array(each) for each in self.sums.table.labels_of(as_batch(drawn.rows))]
        inside = {name: np.any([each == name for each in labels], axis=0) for name in keys.segments}
        by_version = by_window and keys.versions != (NO_VERSION,)
        timed = by_window and keys.window_start is not None
        return [
            drawn.within(
                int(keys.window_start[row]) if timed else None,  # type: ignore[index]
                int(keys.window_end[row]) if timed else None,  # type: ignore[index]
                keys.versions[keys.version[row]] if by_version else None,
                inside[keys.segments[keys.segment[row]]],
            )
            for row in range(len(keys.segment))
        ]

    def drawn_rows(self) -> pa.Table:
        """Sampled rows of the traffic, each once a window, by window and version."""
        drawn, keys = self.drawn, self.keys
        assert drawn is not None
        chosen: dict[tuple[int, int], list[IntArray]] = {}
        starts = np.zeros(len(keys.segment), np.int64)
        if keys.window_start is not None:
            starts = keys.window_start
        for row, places in enumerate(self._drawn(drawn, by_window=True)):
            chosen.setdefault((int(starts[row]), int(keys.version[row])), []).append(places)
        parts = {of: np.unique(np.concatenate(chosen[of])) for of in sorted(chosen)}
        sizes = [len(part) for part in parts.values()]
        rows = np.concatenate([np.empty(0, np.int64), *parts.values()])
        of_window = np.repeat([start for start, _ in parts], sizes).astype("datetime64[us]")
        untimed = np.full(len(rows), keys.window_start is None)
        columns = {"window_start": pa.array(of_window, mask=untimed).cast(_INSTANT)}
        if self.reference.schema.prediction_id is not None:
            hashes = pa.py_buffer(np.ascontiguousarray(drawn.keys[rows]).tobytes())
            columns["key"] = pa.Array.from_buffers(pa.binary(16), len(rows), [None, hashes])
        taken = drawn.rows.take(rows)
        columns |= dict(zip(taken.column_names, taken.columns, strict=True))
        if self.reference.schema.label is not None:
            columns["label"] = pa.array(drawn.labels[rows], from_pandas=True)
        return pa.table(columns)

    def counted(self, column: str) -> CountedColumn | None:
        """Column with bins of its own; None for a label that is counted by its outcomes."""
        layout = self.sums.table.layout
        if layout.label is not None and column == layout.schema.label:
            return layout.label
        return layout.columns.get(column)

    def edges(self, counted: CountedColumn) -> FloatArray:
        """Edges of the finite fine bins, such that the middle of a bin is where its mass lies.

        Whole numbers lie in the middle of their bins; the open ends reach as far as puts their
        middle where their values are.
        """
        return self._placed(counted, self._extremes(counted))

    def occupied(self, counted: CountedColumn) -> tuple[IndexArray, FloatArray]:
        """Slot to fine bin (the last takes the rest) and edges, for the fine bins that hold rows.

        Empty bins at the ends cost time and change no metric. Some stay, so that many columns come
        to the same number of bins and can be stacked.
        """
        if counted.name not in self._occupied:
            map_, edges = counted.fine_map
            n_fine, extremes = len(edges) - 1, self._extremes(counted)
            known = extremes[np.isfinite(extremes).all(axis=1)]
            first, last = 0, 0
            if len(known):
                ends = [known[:, 0].min(), known[:, 1].max()]
                first, last = np.searchsorted(edges[1:-1], ends, side="right").tolist()
            width = min(-(-(last - first + 1) // BINS_AT_ONCE) * BINS_AT_ONCE, n_fine)
            first = min(first, n_fine - width)
            shifted = map_ - np.int32(first)
            shifted[(shifted < 0) | (shifted > width)] = width
            self._occupied.clear()  # the other side asks next
            self._occupied[counted.name] = (
                shifted,
                self._placed(counted, extremes)[first : first + width + 1],
            )
        return self._occupied[counted.name]

    @cached_property
    def _like(self) -> tuple[list[tuple[str, int, int]], IntArray]:
        """Segment, width and reference row of rows that are alike, and which of these a row is."""
        opens, closes = self.keys.window_start, self.keys.window_end
        widths = np.zeros_like(self.index) if opens is None or closes is None else closes - opens
        pairs = np.stack([self.keys.segment, widths], axis=1)
        alike, first, rows = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
        names = [(self.keys.segments[code], width) for code, width in alike.tolist()]
        places = self.index[first].tolist()
        return [(*name, row) for name, row in zip(names, places, strict=True)], rows.ravel()

    def quiet(self, column: str) -> Quiet:
        """How the test of a feature comes out in the reference's own windows, [R] or [1]."""
        counted = self.counted(column)
        assert counted is not None
        alike, rows = self._like
        each = []
        for segment, width, row in alike:
            key = (column, segment, width)
            if key not in self.reference.quiet:
                self.reference.quiet[key] = self._quiet(counted, segment, width, row)
            each.append(self.reference.quiet[key])
        of_row = rows if len(each) > 1 else slice(None)
        parts = ([getattr(one, item.name) for one in each] for item in fields(Quiet))
        return Quiet(*(np.array(part)[of_row] for part in parts))

    def _quiet(self, counted: CountedColumn, segment: str, width: int, row: int) -> Quiet:
        """Compare every window of the reference with all of its others."""
        windows = self.reference.windows(width, segment) if row >= 0 else None
        if windows is None:
            return Quiet.of(np.empty(0), np.empty(0))
        map_, n_bins = self.reference.coarse(counted)
        edges = None
        if counted.grid is not None:
            map_, edges = counted.fine_map
            n_bins = len(edges)
        total = self.reference_sums.slots(counted.block, map_, n_bins)[row]
        within = windows.slots(counted.block, map_, n_bins)
        sides = (total - within, within)
        reference, current = (
            Bins(counts) if edges is None else Fine(counts[:, :-1], edges) for counts in sides
        )
        statistic, size, _ = evidence(reference, current)
        return Quiet.of(statistic, size)

    def _backtests(self, metrics: list[Metric] | None) -> list[Callable[[Any], Past | None]]:
        """For each part, what was wrong with an estimate before; earlier windows of all parts."""
        earlier = self._earlier(metrics)
        return [
            partial(part._past, {label: each.only(start, ROWS_AT_ONCE) for label, each in earlier})
            for start, part in zip(
                range(0, self.sums.n_rows, ROWS_AT_ONCE), self._parts(), strict=True
            )
        ]

    def _earlier(self, metrics: list[Metric] | None) -> list[tuple[str, Errors]]:
        """Errors of estimates in windows of the same series before each row, by metric."""
        layout = self.sums.table.layout
        task = layout.schema.task
        asked = [
            tried
            for each in (map(registry.get, registry.usual()) if metrics is None else metrics)
            if each.estimated and is_backtested(each.name) and each.form_for(task)
            for tried in each.tried(task)
        ]
        if not (asked and layout.estimates and task and self.sums.n_rows):
            return []
        parts = []
        for part in self._parts():
            sides = Side(part, part.sums, None), Side(part, part.reference_sums, part.index)
            (outcomes, usual), estimates = [each.outcomes() for each in sides], sides[0].estimates()
            assert outcomes is not None
            assert usual is not None
            assert estimates is not None
            labels = [each.label for each in asked]
            parts.append([errors_of(each, task, estimates, outcomes, usual) for each in labels])
        keys = self.keys
        nothing = np.zeros_like(keys.segment, dtype=np.int64)
        starts = nothing if keys.window_start is None else keys.window_start
        ends = nothing + 1 if keys.window_end is None else keys.window_end
        series = keys.version * np.int64(len(keys.segments)) + keys.segment
        whole = [Errors.joined(each) for each in zip(*parts, strict=True)]
        return [
            (metric.label, errors.before(starts, ends, series))
            for metric, errors in zip(asked, whole, strict=True)
        ]

    def _past(self, earlier: Mapping[str, Errors], asked: Any) -> Past | None:
        """Errors of an estimate in the reference's windows, and in earlier ones of the traffic.

        Windows of the same width, segment and version count, if nearly all of their labels are in.
        """
        if asked.label not in earlier:
            return None
        alike, rows = self._like
        known = []
        for segment, width, row in alike:
            key = (asked.label, segment, width)
            if key not in self.reference.errors:
                windows = self.reference.windows(width, segment) if row >= 0 else None
                found = None if windows is None else self._errors(asked, windows, row).total
                self.reference.errors[key] = Errors.none() if found is None else found
            known.append(self.reference.errors[key])
        of_reference = [
            np.array([getattr(each, f.name) for each in known])[rows] for f in fields(Errors)
        ]
        before = earlier[asked.label]
        both = zip(of_reference, (getattr(before, f.name) for f in fields(Errors)), strict=True)
        sums = [of_reference + earlier for of_reference, earlier in both]
        windows, squared, absolute = sums
        of_traffic = (before.windows, before.squared, before.absolute)
        return Past(windows, squared, absolute, *of_traffic)

    def _errors(self, asked: Any, sums: WindowSums, row: int) -> Errors:
        """Errors of an estimate in windows of a row of the reference."""
        outcomes, estimates = sums.outcomes(), sums.estimates()
        usual = Side(self, self.reference_sums, np.array([row])).outcomes()
        task = sums.table.layout.schema.task
        assert outcomes is not None
        assert estimates is not None
        assert usual is not None
        assert task is not None
        return errors_of(asked.label, task, estimates, outcomes, usual)

    def _extremes(self, counted: CountedColumn) -> FloatArray:
        sides = (self.sums, self.reference_sums)
        return np.concatenate([side.extremes(counted.block) for side in sides])

    def _placed(self, counted: CountedColumn, extremes: FloatArray) -> FloatArray:
        map_, edges = counted.fine_map
        edges, n_fine = edges.copy(), len(edges) - 1
        known = np.isfinite(extremes).all(axis=1)
        lows, highs = extremes[known].T
        if not len(lows):
            lows, highs = edges[1:2], edges[-2:-1]
        if n_fine == 1:
            low = float(lows.min())
            return np.array([low, max(float(highs.max()), math.nextafter(low, math.inf))])
        first, last = edges[1], edges[-2]
        edges[0], edges[-1] = math.nextafter(first, -math.inf), math.nextafter(last, math.inf)
        if lows.min() < first or highs.max() >= last:
            end_of = np.where(map_ == 0, 0, np.where(map_ == n_fine - 1, 1, 2)).astype(np.int32)
            sides = (self.sums, self.reference_sums)
            ends = np.concatenate([side.slots(counted.block, end_of, 3) for side in sides])[known]
            edges[0] = -_open_edge(-first, -highs, -lows, ends[:, 0])
            edges[-1] = _open_edge(last, lows, highs, ends[:, 1])
        edges = np.clip(edges, -LARGEST, LARGEST)
        return edges - 0.5 if counted.holds_integers else edges


def _open_edge(start: float, nearest: FloatArray, farthest: FloatArray, counts: IntArray) -> float:
    """Outer edge of the open end from `start` on, whose middle is where its values lie on average.

    A row's only value there is its farthest one; several lie between that and the nearest.
    """
    beyond = counts > 0
    if not beyond.any():
        return math.nextafter(start, math.inf)
    with np.errstate(over="ignore"):  # values that lie further apart than a double can say
        several = (np.maximum(nearest, start) + farthest) / 2
        middles = np.where(counts == 1, farthest, several)[beyond]
        center = float(np.average(middles, weights=counts[beyond]))
        return max(2 * center - start, math.nextafter(start, math.inf))


def kinds_of(layout: Layout) -> dict[str, str]:
    """Columns that have a distribution, and their kinds; the label last."""
    kinds: dict[str, str] = {name: c.column.kind for name, c in layout.columns.items()}
    if layout.schema.label is not None:
        kinds[layout.schema.label] = "numeric" if layout.label is not None else "categorical"
    return kinds


@dataclass(frozen=True)
class Side:
    """One side of a comparison, as the metrics read it."""

    comparison: Comparison
    sums: WindowSums
    index: IntArray | None  # row of the sums for each row of the comparison; None: as they stand

    @cached_property
    def _same(self) -> int | None:
        """Row of the sums that serves all rows of the comparison, if there is one."""
        index = self.index
        return int(index[0]) if index is not None and len(set(index.tolist())) == 1 else None

    def _take(self, array: NDArray[Any]) -> NDArray[Any]:
        """Rows of the comparison, or one for all, from rows of the sums; zeros where none is."""
        index = self.index
        if index is None:
            return array
        if self._same is not None and self._same >= 0:
            return array[self._same : self._same + 1]
        return taken(array, index)

    def _take_all(self, record: Record) -> Record:
        if self.index is None:
            return record
        arrays = {name: self._take(array) for name, array in cell_arrays(record)}
        return replace(record, **arrays)  # type: ignore[type-var]

    def bins(self, column: str) -> IntArray:
        """Coarse bins, missing values last."""
        counted = self.comparison.counted(column)
        if counted is None:
            counts = self._label_counts()
            return self._take(np.concatenate([counts, np.zeros_like(counts[:, :1])], axis=1))
        map_, width = self.comparison.reference.coarse(counted)
        return self._take(self._rows(counted, self.sums.slots(counted.block, map_, width)))

    def fine(self, column: str) -> Fine:
        """Finite fine bins."""
        counted = self.comparison.counted(column)
        assert counted is not None
        map_, edges = self.comparison.occupied(counted)
        counts = self.sums.slots(counted.block, map_, len(edges))[:, :-1]
        return Fine(self._take(self._rows(counted, counts)), edges)

    def column_counts(self, column: str) -> ColumnCounts:
        """What the values were."""
        counted = self.comparison.counted(column)
        if counted is None:
            counts = self._label_counts()
            known = ColumnCounts(rows=counts.sum(axis=1), distinct=(counts > 0).sum(axis=1))
            return self._take_all(known)
        outside = None
        if counted.grid is not None:
            outside = self.comparison.reference.outside(counted)
        return self._take_all(self.sums.column_counts(counted, outside))

    def traffic(self) -> Traffic:
        """What arrived."""
        return self._take_all(self.sums.traffic())

    def samples(self) -> RowSamples:
        """Sampled rows."""
        return self.comparison.samples(of_reference=self.index is not None)

    def outcomes(self) -> Outcomes | None:
        """Labelled rows."""
        outcomes = self.sums.outcomes()
        return None if outcomes is None else self._take_all(outcomes)

    def joined(self) -> dict[type, Any]:
        """What is known of the traffic by ids: a reference has labels from the start."""
        clock = self.comparison.labels
        if clock is None or self.index is not None:
            return {}
        found: list[Any] = (
            [] if clock.now is None else [self.sums.maturity(clock), self.sums.delays(clock)]
        )
        if clock.pairs is not None:
            found.append(self.sums.pairs())
        return {type(each): each for each in found}

    def estimates(self) -> Estimates | None:
        """What predictions are expected to turn out as."""
        estimates = self.sums.estimates()
        return None if estimates is None else self._take_all(estimates)

    def label_share(self) -> FloatArray:
        """Share of the labels that have arrived."""
        return self._take(self.sums.label_share())

    def _label_counts(self) -> IntArray:
        """Labels by class, in rows, [n_rows, n_classes]."""
        layout = self.sums.table.layout
        counts = self.sums.slots(layout.outcome_block)
        n = max(2, len(layout.classes))
        shape = (self.sums.n_rows, n, counts.shape[1] // n)
        by_class: IntArray = counts.reshape(shape).sum(axis=2)
        return by_class // WEIGHT_UNITS if layout.schema.weight is not None else by_class

    def _rows(self, counted: CountedColumn, counts: IntArray) -> IntArray:
        """Counts in rows: labels alone are counted by weight."""
        layout = self.sums.table.layout
        weighted = layout.schema.weight is not None and counted is layout.label
        return counts // WEIGHT_UNITS if weighted else counts


def chosen_metrics(
    names: str | Metric | list[str | Metric] | None, threshold: float | None
) -> list[Metric] | None:
    """Metrics asked for, with the threshold where one is given and they take it."""
    if names is None and threshold is None:
        return None
    asked = registry.usual() if names is None else names
    if isinstance(asked, str | Metric):
        asked = [asked]
    chosen = [each if isinstance(each, Metric) else registry.get(each) for each in asked]
    if threshold is None:
        return chosen
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is a score in [0, 1], got {threshold}")
    return [
        registry.get(each.name, **{**each.chosen, "threshold": threshold})
        if any("threshold" in form.options for form in each.forms)
        else each
        for each in chosen
    ]


def known_metrics(
    chosen: list[Metric] | None, task: str | None, labels: LabelClock | None
) -> list[Metric]:
    """Metrics that can be told as known before: those of labels, but for groups.

    Raises
    ------
    ValueError
        When another one is asked for.
    """
    for metric in chosen or ():
        if not metric.label_based or metric.of_groups:
            raise ValueError(
                f"metric {metric.name!r} cannot be told as known at another time: that is kept of "
                "labels alone; leave known_at out, or ask for metrics of performance, labels and "
                "pairs"
            )
    if chosen is not None:
        return chosen
    joined = labels.inputs if labels is not None else set()
    usual = [registry.get(name) for name in registry.usual()]
    return [
        metric
        for metric in usual
        if metric.label_based
        and not metric.of_groups
        and (task in metric.tasks or joined & set(metric.needs))
    ]


def distributions(comparison: Comparison, columns: list[str]) -> tuple[Distribution, ...]:
    """Bins to draw: the first row of the comparison beside its reference."""
    drawn = []
    for name in columns:
        counted = comparison.counted(name)
        if not comparison.sums.n_rows:
            continue
        if counted is None:
            drawn.append(_labels(comparison, name))
            continue
        current = comparison.sums.slots(counted.block)[0]
        row = int(comparison.index[0])
        reference = (
            comparison.reference_sums.slots(counted.block)[row]
            if row >= 0
            else np.zeros_like(current)
        )
        missing = [MISSING, NAN, SENTINEL, ABSENT]
        common = {
            "reference_missing": int(reference[missing].sum()),
            "current_missing": int(current[missing].sum()),
        }
        if counted.grid is None:
            drawn.append(_categories(counted, reference, current, common))
        else:
            edges = comparison.edges(counted)
            pair = [_finite(counted, slots) for slots in (reference, current)]
            drawn.append(_numbers(counted, edges, pair, common))
    return tuple(drawn)


def _labels(comparison: Comparison, name: str) -> Distribution:
    """Labels by class."""
    sides = (
        Side(comparison, comparison.reference_sums, comparison.index),
        Side(comparison, comparison.sums, None),
    )
    reference, current = (side.bins(name)[0, :-1] for side in sides)
    classes = comparison.sums.table.layout.classes or ("0", "1")
    return Distribution(name, "categorical", classes, None, reference, current, 0, 0)


def _finite(counted: CountedColumn, slots: IntArray) -> IntArray:
    map_, edges = counted.fine_map
    counts = np.zeros(len(edges), dtype=np.int64)
    np.add.at(counts, map_, slots)
    return counts[:-1]


def _categories(
    counted: CountedColumn, reference: IntArray, current: IntArray, common: dict[str, int]
) -> Distribution:
    assert counted.categories is not None
    texts = counted.categories.texts
    pair = np.stack([reference, current])[:, SPECIALS + 1 :]
    order = np.argsort(
        -(pair / np.maximum(pair.sum(axis=1, keepdims=True), 1)).sum(axis=0), kind="stable"
    )
    shown, rest = order[:DISPLAY_CATEGORIES], order[DISPLAY_CATEGORIES:]
    other = np.stack([reference, current])[:, SPECIALS] + pair[:, rest].sum(axis=1)
    labels = [texts[i] for i in shown]
    counts = np.concatenate([pair[:, shown], other[:, None]], axis=1)
    if not other.any():
        counts = counts[:, :-1]
    else:
        labels.append("(other)" if "(other)" not in labels else "(all other)")
    return Distribution(
        counted.name, "categorical", tuple(labels), None, counts[0], counts[1], **common
    )


def _numbers(
    counted: CountedColumn, edges: FloatArray, pair: list[IntArray], common: dict[str, int]
) -> Distribution:
    shares = sum(counts / max(counts.sum(), 1) for counts in pair)
    cumulative = np.cumsum(shares) / max(float(np.sum(shares)), 1e-300)
    ends = np.searchsorted(cumulative, [0.001, 0.999])
    first, last = (min(int(end), len(edges) - 2) for end in ends)
    if last - first < 1.5 * DISPLAY_BINS:
        cuts = np.arange(first, last + 2)
    elif counted.grid is not None and counted.grid.kind in ("log", "symlog"):
        cuts = np.unique(np.linspace(first, last + 1, DISPLAY_BINS + 1).astype(np.int64))
    else:
        wanted = np.linspace(edges[first], edges[last + 1], DISPLAY_BINS + 1)
        cuts = np.unique(np.clip(np.searchsorted(edges, wanted), first, last + 1))
    starts = cuts[:-1]
    drawn = [np.add.reduceat(counts, starts)[: len(starts)] for counts in pair]
    # What lies beyond the picture belongs to its outermost bins.
    for picture, counts in zip(drawn, pair, strict=True):
        picture[-1] = counts[starts[-1] :].sum()
        picture[0] += counts[:first].sum()
    kind = "timestamp" if counted.column.kind == "timestamp" else "numeric"
    return Distribution(
        counted.name,
        kind,  # type: ignore[arg-type]
        None,
        edges[cuts],
        drawn[0],
        drawn[1],
        **common,
    )


def window_comparison(
    reference: Reference,
    table: WindowTable,
    span: Span,
    *,
    drawn: Drawn | None = None,
    labels: LabelClock | None = None,
    **choice: Any,
) -> Comparison:
    """Compare the windows of a table with the reference."""
    keys, sums = table.read(span, **choice)
    return Comparison.of(reference, keys, sums, drawn, labels)
