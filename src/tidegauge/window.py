"""Windows in event time: cells of sums, named, merged, and added up to any multiple of a pane."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tidegauge._core import (
    CHANCE_UNITS,
    DELAY_BINS,
    NEVER,
    NO_DELAY,
    SPECIALS,
    UNSEEN,
    Batch,
    Cells,
    DataError,
    Filler,
    JoinedRows,
    PairIndex,
    Vocabulary,
    add_arrivals,
    add_estimates,
    add_outcomes,
    intern_codes,
)
from tidegauge.derived import Derivation, derive, told
from tidegauge.engine import Engine, Rows
from tidegauge.ingest import Predictions, spread
from tidegauge.layout import (
    EXPECTED_LOSSES,
    EXPECTED_SUMS,
    LOSS_SUMS,
    PAIR_SUMS,
    REGRESSION_SUMS,
    TENTHS,
    TRAFFIC_SLOTS,
    WEIGHT_UNITS,
    CountedColumn,
    Layout,
)
from tidegauge.maturity import expected_share, shares_by_age
from tidegauge.metrics.evaluate import Keys
from tidegauge.metrics.inputs import (
    BinaryEstimates,
    BinaryOutcomes,
    ColumnCounts,
    Estimates,
    LabelDelays,
    Maturity,
    MulticlassEstimates,
    MulticlassOutcomes,
    Outcomes,
    PairedDecisions,
    PairedValues,
    RegressionEstimates,
    RegressionOutcomes,
    Traffic,
)

SegmentKey = tuple[int, int, tuple[int, ...]]  # version, set of columns, code of each value
IntArray = NDArray[np.int64]
IndexArray = NDArray[np.int32]
FloatArray = NDArray[np.float64]

MISSING_SEGMENT = "(missing)"
OTHER_SEGMENT = "(other)"
MAX_SEGMENT_VALUES = 10_000  # of one column, and versions
MAX_SEGMENTS = 100_000  # of all sets and versions
MAX_GROUPS = 1_000_000  # combinations of version and segment values
MAX_NEW_COLUMNS = 1000
MAX_EMPTY_WINDOWS = 10_000  # of one version
NO_VERSION = ""
NO_TRAFFIC = -1  # in the place of a block: rows that were counted before

_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
SECOND = 1_000_000  # microseconds
HOUR = 3600 * SECOND
DAY = 24 * HOUR
WEEK = 7 * DAY
MONDAY = 4 * DAY  # 1970-01-05: weeks begin on a Monday
_NO_MAP: IndexArray = np.empty(0, dtype=np.int32)
_MISSING, _OTHER = range(2)  # codes of MISSING_SEGMENT and OTHER_SEGMENT in every vocabulary

_log = logging.getLogger(__name__)


def parse_duration(text: str, *, role: str) -> int:
    """Microseconds of a duration such as "15min", "1h", "1d" or "2w".

    Raises
    ------
    ValueError
        When the text is not a positive number and one of the units.

    >>> parse_duration("15min", role="window")
    900000000
    """
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz") if isinstance(text, str) else ""
    unit = text[len(digits) :] if isinstance(text, str) else ""
    if not digits.isdigit() or int(digits) < 1 or unit not in _UNITS:
        raise ValueError(
            f"{role} is a whole number and a unit ({', '.join(_UNITS)}) such as '1h' or '1d', "
            f"got {text!r}"
        )
    return int(digits) * _UNITS[unit] * SECOND


@dataclass(frozen=True, slots=True)
class Retention:
    """How long panes of which width are kept; what has grown too old becomes part of wider panes.

    Time up to `ages[k]` behind the watermark is kept in panes of `widths[k]`, finest first; what is
    older than the last age is forgotten. An age of None is for ever. All in microseconds.
    """

    widths: tuple[int, ...]
    ages: tuple[int | None, ...]

    @classmethod
    def parse(cls, retention: Mapping[str, str | None]) -> Retention:
        """Read widths and ages, such as {"1min": "6h", "1h": "7d", "1d": "400d"}.

        Raises
        ------
        ValueError
            When widths do not divide one another and a day, or ages do not grow with them.

        >>> Retention.parse({"1h": "7d", "1d": None}).widths
        (3600000000, 86400000000)
        """
        if not isinstance(retention, Mapping) or not retention:
            raise ValueError(
                f"retention says how long each width is kept, such as {_EXAMPLE}; got {retention!r}"
            )
        read = sorted(
            (parse_duration(width, role="a width of retention"), width, age)
            for width, age in retention.items()
        )
        for (fine, fine_text, _), (wide, wide_text, _) in pairwise(read):
            if wide % fine or wide == fine:
                raise ValueError(
                    f"each width of retention divides the next: {fine_text!r} does not divide "
                    f"{wide_text!r}; choose them as in {_EXAMPLE}"
                )
        ages: list[int | None] = []
        for place, (_, text, age) in enumerate(read):
            if age is None and place < len(read) - 1:
                raise ValueError(f"only the widest panes may be kept for ever, not {text!r}")
            kept = None if age is None else parse_duration(age, role=f"retention of {text!r}")
            if kept is not None and ages and kept <= (ages[-1] or 0):
                raise ValueError(
                    f"wider panes are kept for longer, as in {_EXAMPLE}; {text!r} is not"
                )
            ages.append(kept)
        for width, text, _ in read:
            check_pane(width, text)
        return cls(tuple(width for width, _, _ in read), tuple(ages))

    def bounds(self, watermark: int) -> IntArray:
        """Time before which panes of each width have become part of the next, or are forgotten.

        A bound is a multiple of the widths on both of its sides, so no pane lies across one.
        """
        bounds = []
        for wider, age in zip((*self.widths[1:], self.widths[-1]), self.ages, strict=True):
            if age is None or watermark == NEVER:
                bounds.append(NEVER)
            else:
                bounds.append(max((watermark - age) // wider * wider, NEVER))
        return np.array(bounds, dtype=np.int64)


_EXAMPLE = '{"1min": "6h", "1h": "7d", "1d": "400d"}'


def check_pane(width: int, text: str) -> None:
    """Reject a width of panes that does not add up to days.

    Raises
    ------
    ValueError
        When the width is under a minute, over a day, or does not divide a day.
    """
    if not 60 * SECOND <= width <= DAY or DAY % width:
        raise ValueError(
            f"window {text!r} must divide a day, from '1min' to '1d'; "
            "ask metrics(window=...) for more"
        )


@dataclass(frozen=True, slots=True)
class Span:
    """How panes add up to windows: the width of a window and the step from one to the next.

    A width of None is one window over everything; "1mo" is a calendar month, "pane" leaves every
    pane as wide as it is kept.
    """

    width: int | None
    step: int | None
    special: Literal["", "1mo", "pane"] = ""

    @classmethod
    def parse(cls, window: str | None, step: str | None, pane: int) -> Span:
        """Read a window and a step, both multiples of a pane; no window means panes as kept.

        Raises
        ------
        ValueError
            When a duration is not one, or not a multiple of the pane.
        """
        if window in ("all", "1mo") or (window is None and step is None):
            if step is not None:
                raise ValueError(f"a window of {window!r} takes no step")
            return cls(None, None, "" if window == "all" else "1mo" if window else "pane")
        width = pane if window is None else parse_duration(window, role="window")
        stride = width if step is None else parse_duration(step, role="step")
        for role, value in (("window", width), ("step", stride)):
            if pane == 0 or value % pane:
                raise ValueError(
                    f"{role} {window if role == 'window' else step!r} is not a multiple of the "
                    f"{pane // SECOND} s that traffic is kept in; choose a multiple, "
                    "'1mo' or 'all'"
                )
        if width % stride:
            raise ValueError(
                f"the window must be a multiple of the step, got {window!r} and {step!r}"
            )
        return cls(width, stride)

    @property
    def everything(self) -> bool:
        """Whether it is a single window."""
        return self.width is None and not self.special

    def starts(self, panes: IntArray, widths: IntArray) -> list[tuple[IntArray, IntArray]]:
        """For each way a pane belongs to a window: start and end of that window, [n_panes] each."""
        if self.special == "1mo":
            months = panes.astype("datetime64[us]").astype("datetime64[M]")
            ends = (months + 1).astype("datetime64[us]").astype(np.int64)
            return [(months.astype("datetime64[us]").astype(np.int64), ends)]
        if self.special == "pane":
            return [(panes, panes + widths)]
        if self.width is None or self.step is None:
            return [(np.zeros_like(panes), np.zeros_like(panes))]
        latest = (panes - self._origin) // self.step * self.step + self._origin
        return [
            (latest - k * self.step, latest - k * self.step + self.width)
            for k in range(self.width // self.step)
        ]

    @property
    def _origin(self) -> int:
        """A start of a window: weeks begin on a Monday."""
        return MONDAY if self.step is not None and self.step % (WEEK) == 0 else 0

    def divides(self, width: int) -> bool:
        """Whether windows are made of whole panes of a width."""
        return self.step is None or self.step % width == 0

    def stride(self, width: int) -> int:
        """Distance that leaves out no window where panes have a width."""
        if self.special == "1mo":
            return DAY
        return self.step if self.step is not None and self.divides(width) else width


AS_KEPT = Span(None, None, "pane")
EVERYTHING = Span(None, None)


@dataclass(frozen=True, slots=True)
class LabelClock:
    """What tells how long labels take, and whether versions are held against a champion."""

    now: int | None  # microseconds; None where predictions or labels have no time
    edges: IntArray  # between the bins of delays, microseconds
    pairs: type | None  # what pairs with the champion are, where one is named

    @property
    def inputs(self) -> set[type]:
        """What metrics may ask for."""
        timed: list[type] = [] if self.now is None else [Maturity, LabelDelays]
        return {*timed, *([] if self.pairs is None else [self.pairs])}


# Columns of JoinedRows that hold nothing.
NO_ROWS: dict[str, NDArray[Any]] = {
    "values": np.empty(0),
    "pair_values": np.empty(0),
    "champions": np.empty(0, np.int16),
    **{
        f"{kind}{name}": np.empty(0, dtype)
        for kind in ("", "pair_", "arrival_")
        for name, dtype in (
            ("times", np.int64),
            ("known", np.int64),
            ("labels", np.float64),
            ("weights", np.float64),
            ("groups", np.int32),
            ("decisions", np.int16),
            ("signs", np.int8),
            ("delays", np.uint8),
        )
    },
}


@dataclass
class WindowTable:
    """Cells (pane, version, segment) by sums: the whole state of what was counted.

    Parameters
    ----------
    layout
        Columns and blocks.
    pane
        Width of the smallest window, in microseconds; 0 keeps no time.
    retention
        How long panes are kept, and how wide; for ever and as they are unless given.
    max_segments
        Segments told apart, of all sets and versions; what is beyond counts as "(other)".
    """

    layout: Layout
    pane: int
    retention: Retention | None = None
    max_segments: int = MAX_SEGMENTS
    cells: Cells = field(init=False)
    versions: Vocabulary = field(init=False)
    values: dict[str, Vocabulary] = field(init=False)  # of each segment column
    new_columns: dict[str, int] = field(init=False)  # rows that came with an unknown column
    dropped: IntArray = field(init=False)  # TRAFFIC_SLOTS of what is kept no longer

    def __post_init__(self) -> None:
        self.retention = self.retention or Retention((self.pane,), (None,))
        self.cells = Cells(self.layout.n_slots, self.layout.n_sums)
        self.versions = Vocabulary([MISSING_SEGMENT, OTHER_SEGMENT], MAX_SEGMENT_VALUES)
        self.values = {
            name: Vocabulary([MISSING_SEGMENT, OTHER_SEGMENT], MAX_SEGMENT_VALUES)
            for name in self.layout.schema.segment_columns
        }
        self.new_columns = {}
        self._told: set[tuple[str, type[Exception]]] = set()  # failures of derivations
        self.dropped = np.zeros(len(TRAFFIC_SLOTS), dtype=np.int64)
        self._bounds = self.retention.bounds(NEVER)
        self.n_rolls = 0  # how often the cells were numbered anew
        self._has_expired = False  # whether something older than the last bound was counted
        n_columns = len(self.layout.schema.segment_columns)
        self._pairs = [PairIndex(MAX_GROUPS, _OTHER) for _ in range(n_columns)]
        self._groups: list[tuple[int, ...]] = []  # (version, code of each segment column)
        self._segments: dict[SegmentKey, int] = {}
        self._is_pooled: list[bool] = []  # whether a segment is, or has, "(other)"
        self._pools = False  # whether any value or segment had to be pooled
        self._n_unused = 0  # segments that have no cell any more
        self._sets = self.layout.schema.segment_sets
        self._segments_of_group = np.empty((0, len(self._sets)), dtype=np.int64)
        self._pooled_of_group = np.empty((0, len(self._sets)), dtype=bool)
        self.versions_of_groups: IndexArray = np.empty(0, dtype=np.int32)

    # -- counting ------------------------------------------------------------------------------

    def groups(self, batch: Batch, start: int, stop: int) -> IndexArray:
        """Group of each row, its version and segment values; a single one where all agree."""
        schema = self.layout.schema
        if schema.model_version is None:
            groups = np.full(1, self.versions.add(NO_VERSION), dtype=np.int32)
        else:
            groups = self._codes(batch, schema.model_version, self.versions, start, stop)
        if schema.segment_columns:
            groups = spread(groups, stop - start)
        for index, name in zip(self._pairs, schema.segment_columns, strict=True):
            groups = index.intern(groups, self._codes(batch, name, self.values[name], start, stop))
        self._name_groups()
        return groups

    def _codes(
        self, batch: Batch, name: str, vocabulary: Vocabulary, start: int, stop: int
    ) -> IndexArray:
        if batch.kind(name) in ("absent", "null"):
            return np.full(stop - start, _MISSING, dtype=np.int32)
        codes = intern_codes(batch, name, vocabulary, start, stop)
        if (codes < 0).any():
            if (codes == UNSEEN).any():
                self._note_pooled()
            codes[codes == UNSEEN] = _OTHER
            codes[codes < 0] = _MISSING
        return codes

    def _name_groups(self) -> None:
        """Give every group met for the first time its segments, one of each set."""
        if self._n_groups == len(self._groups):
            return
        if any(len(index) >= MAX_GROUPS for index in self._pairs):
            self._note_pooled()
        columns = self.layout.schema.segment_columns
        table, pooled = [], []
        for number in range(len(self._groups), self._n_groups):
            group = self._path(number)
            codes = dict(zip(columns, group[1:], strict=True))
            keys = [
                (group[0], place, tuple(codes[name] for name in names))
                for place, names in enumerate(self._sets)
            ]
            table.append([self._segment(key) for key in keys])
            inside = [self._is_pooled[segment] for segment in table[-1]]
            pooled.append([any(inside), *inside[1:]])
            self._groups.append(group)
        shape = (-1, len(self._sets))
        new = np.array(table, dtype=np.int64).reshape(shape)
        self._segments_of_group = np.concatenate([self._segments_of_group, new])
        self._pooled_of_group = np.concatenate(
            [self._pooled_of_group, np.array(pooled, dtype=bool).reshape(shape)]
        )
        versions = np.array([group[0] for group in self._groups[-len(table) :]], dtype=np.int32)
        self.versions_of_groups = np.append(self.versions_of_groups, versions)

    def _segment(self, key: SegmentKey) -> int:
        """Segment of a key, made when new; that of "(other)" where there are too many."""
        found = self._segments.get(key)
        if found is not None:
            return found
        version, number, codes = key
        if codes and len(self._segments) - self._n_unused >= self.max_segments:
            self._note_pooled()
            key = (version, number, (_OTHER,) * len(codes))
        segment = self._segments.setdefault(key, len(self._segments))
        if segment == len(self._is_pooled):
            self._is_pooled.append(_OTHER in (version, *key[2]))
        return segment

    def _note_pooled(self) -> None:
        if not self._pools:
            self._pools = True
            _log.warning(
                "there are more than %d segments, or %d values of a segment's column; further ones "
                "count as %s",
                self.max_segments,
                MAX_SEGMENT_VALUES,
                OTHER_SEGMENT,
            )

    @property
    def _n_groups(self) -> int:
        return len(self._pairs[-1] if self._pairs else self.versions)

    def _path(self, group: int) -> tuple[int, ...]:
        """Version and code of each segment column of a group."""
        codes: list[int] = []
        for index in reversed(self._pairs):
            group, code = index[group]
            codes.append(code)
        return (group, *reversed(codes))

    def add_empty_cell(self) -> None:
        """Make the cell of a whole traffic that had no rows, so that it can be asked for."""
        segments = np.array(self.add_names([(NO_VERSION, 0, ())]), dtype=np.int64).reshape(1, 1)
        self.cells.locate(np.zeros(1, np.int64), np.zeros(1, np.int32), segments, self._panes)

    def locate(self, times: IntArray, groups: IndexArray) -> IndexArray:
        """Cells of rows, [n_sets, n], or [n_sets, 1] where one time and one group stand for all."""
        n = max(len(times), len(groups))
        times, groups = spread(times, n), spread(groups, n)
        if n:
            self._note_expired(int(times.min()))
        return self.cells.locate(times, groups, self._segments_of_group, self._panes)

    def _note_expired(self, earliest: int) -> None:
        """Remember that cells were made that the next roll is to count as dropped."""
        if self._bounds[-1] != NEVER and earliest < self._bounds[-1]:
            self._has_expired = True

    @property
    def _panes(self) -> IntArray:
        """Widths above their bounds, as the core takes them."""
        assert self.retention is not None
        return np.array([self.retention.widths, self._bounds], dtype=np.int64)

    def advance(self, watermark: int) -> None:
        """Roll panes up into wider ones, and forget the oldest, as the retention says."""
        assert self.retention is not None
        self._roll(self.retention.bounds(watermark))

    def _roll(self, bounds: IntArray) -> None:
        bounds = np.maximum(self._bounds, bounds)
        if (bounds == self._bounds).all() and not self._has_expired:
            return
        self._bounds = bounds
        keys = self.cells.keys()
        overall = np.array([number == 0 for _, number, _ in self._segments], dtype=bool)
        lost = np.flatnonzero((keys[:, 0] < bounds[-1]) & overall[keys[:, 1]]).astype(np.int32)
        block, width = self.layout.traffic_block, len(TRAFFIC_SLOTS)
        self.dropped += self.cells.counts(block, lost, np.zeros_like(lost), 1, _NO_MAP, width)[0]
        self.cells.roll(self._panes)
        self.n_rolls += 1
        if len(lost):
            self._n_unused = len(self._segments) - len(np.unique(self.cells.keys()[:, 1]))
        self._has_expired = False

    def strata_of(self, cells: IndexArray) -> list[tuple[int, str]]:
        """Start of the pane and version of cells."""
        versions, segments = self.versions.texts, list(self._segments)
        return [
            (int(pane), versions[segments[segment][0]])
            for pane, segment in self.cells.keys()[cells].tolist()
        ]

    def pane_of(self, times: IntArray) -> IntArray:
        """Start of the pane that points of time are kept in; NEVER where they are forgotten."""
        if self.pane == 0:
            return times
        widths = self._widths(times)
        return np.where(times < self._bounds[-1], NEVER, times // widths * widths)

    def labels_of(self, batch: Batch) -> list[list[str]]:
        """For each set of columns, the label of the segment that each row belongs to."""
        texts: dict[str, list[str]] = {}
        for name in self.layout.schema.segment_columns:
            known = Vocabulary([MISSING_SEGMENT, OTHER_SEGMENT], batch.n_rows + 2)
            codes = self._codes(batch, name, known, 0, batch.n_rows)
            texts[name] = [known.texts[code] for code in np.broadcast_to(codes, batch.n_rows)]
        return [
            [
                self._label(number, values)
                for values in zip(*(texts[name] for name in names), strict=True)
            ]
            if names
            else ["all"] * batch.n_rows
            for number, names in enumerate(self._sets)
        ]

    def count(
        self,
        batch: Rows,
        rows: tuple[int, int],
        cells: IndexArray,
        accepted: NDArray[np.bool_] | None,
        *,
        groups: IndexArray,
        derived: Batch | None,
        engine: Engine,
    ) -> None:
        """Count rows [start, stop) of a batch into their cells, all columns and the traffic.

        `derived` holds what was made of these rows alone.
        """
        known = set(self.layout.schema.columns)
        unknown = [name for name in batch.names if name not in known]
        n_rows = rows[1] - rows[0]
        n_accepted = n_rows if accepted is None else int(accepted.sum())
        for name in unknown:
            self._note_column(name, n_accepted)
        kept = cells
        if accepted is not None and n_accepted < n_rows:
            self._add_traffic("duplicates", cells[:, ~accepted])
            kept = np.where(accepted, cells, np.int32(-1))
            cells, groups = cells[:, accepted], groups[accepted]
        each = n_accepted if cells.shape[1] == 1 else 1
        if unknown:
            self._add_traffic("new_columns", cells, each)
        if self._pools:
            pooled = self._pooled_of_group[spread(groups, cells.shape[1])].T
            self._add_traffic("pooled", cells[pooled], each)
        kept = np.ascontiguousarray(kept)
        engine.fill(self.cells, batch, rows, kept, self.layout)
        if derived is not None:
            made = Filler(derived, [column.task for column in self.layout.derived])
            self.cells.fill(made, 0, n_rows, kept, NO_TRAFFIC, engine.threads)

    def derive(self, batch: Batch, rows: tuple[int, int], *, threads: int) -> Batch | None:
        """Make the derived columns of rows [start, stop); what fails is told once and invalid."""
        if not self.layout.derivations:
            return None
        return derive(self.layout.derivations, batch, *rows, failed=self._tell, threads=threads)

    def _tell(self, name: str, derivation: Derivation, error: Exception) -> None:
        key = (name, type(error))
        if key not in self._told:
            self._told.add(key)
            _log.warning("%s; its rows count as invalid", told(name, derivation, error))

    def _note_column(self, name: str, n: int) -> None:
        room = name in self.new_columns or len(self.new_columns) < MAX_NEW_COLUMNS
        key = name if room else OTHER_SEGMENT
        self.new_columns[key] = self.new_columns.get(key, 0) + n

    def _add_traffic(self, slot: str, cells: IndexArray, each: int = 1) -> None:
        """Add to a slot of some cells, each of which stands for so many rows."""
        counts = np.bincount(cells.ravel()) * each
        where = np.flatnonzero(counts).astype(np.int32)
        slots = np.full(len(where), TRAFFIC_SLOTS.index(slot), dtype=np.int32)
        self.cells.add_entries(self.layout.traffic_block, where, slots, counts[where])

    def add_outcomes(self, outcomes: JoinedRows) -> None:
        """Count labelled predictions, as a join gives them, into their cells."""
        task = self.layout.schema.task
        if task is not None and len(outcomes):
            self._note_expired(outcomes.earliest)
            places = (self._segments_of_group, self._panes)
            add_outcomes(self.cells, task, self.layout.outcome_blocks, places, outcomes)
            if self.layout.estimates:
                add_estimates(self.cells, self.layout.estimate_blocks, places, outcomes, "labelled")

    def add_events(self, rows: JoinedRows) -> None:
        """Count rows of the past and, unlike `add_outcomes`, the predictions among them."""
        if len(rows):
            self.add_outcomes(rows)
            places = (self._segments_of_group, self._panes)
            add_arrivals(self.cells, self.layout.traffic_block, places, rows)

    def add_labelled(self, rows: Predictions, groups: IndexArray) -> None:
        """Count predictions that came with their label."""
        if rows.labels is not None:
            self.add_outcomes(_joined(rows, groups, ~np.isnan(rows.labels)))

    def add_predicted(
        self, rows: Predictions, groups: IndexArray, accepted: NDArray[np.bool_]
    ) -> None:
        """Count what accepted predictions are expected to turn out as."""
        if self.layout.estimates and accepted.any():
            places = (self._segments_of_group, self._panes)
            joined = _joined(rows, groups, accepted)
            add_estimates(self.cells, self.layout.estimate_blocks, places, joined, "predicted")

    # -- state ---------------------------------------------------------------------------------

    def names(self) -> list[tuple[str, int, tuple[str, ...]]]:
        """(version, set of columns, value of each) of every segment."""
        versions = self.versions.texts
        texts = {name: vocabulary.texts for name, vocabulary in self.values.items()}
        sets = self._sets
        return [
            (
                versions[version],
                number,
                tuple(texts[name][code] for name, code in zip(sets[number], codes, strict=True)),
            )
            for version, number, codes in self._segments
        ]

    def add_names(self, names: Sequence[tuple[str, int, Sequence[str]]]) -> list[int]:
        """Segments of such names, made when new."""
        sets = self._sets
        segments = []
        for version, number, values in names:
            if not 0 <= number < len(sets) or len(values) != len(sets[number]):
                raise DataError("a stored segment does not fit the schema")
            codes = []
            for column, value in zip(sets[number], values, strict=True):
                codes.append(_code_of(self.values[column], value))
            segments.append(self._segment((_code_of(self.versions, version), number, tuple(codes))))
        return segments

    def group_names(self) -> list[list[str]]:
        """Version and segment values of every group."""
        texts = [
            self.versions.texts,
            *(self.values[n].texts for n in self.layout.schema.segment_columns),
        ]
        return [[t[code] for t, code in zip(texts, group, strict=True)] for group in self._groups]

    def add_groups(self, names: Sequence[Sequence[str]]) -> IndexArray:
        """Groups of such names, made when new."""
        columns = self.layout.schema.segment_columns
        n = len(names)
        groups = np.array([_code_of(self.versions, row[0]) for row in names], dtype=np.int32)
        for k, (index, name) in enumerate(zip(self._pairs, columns, strict=True)):
            codes = np.array(
                [_code_of(self.values[name], row[k + 1]) for row in names], dtype=np.int32
            )
            groups = index.intern(groups, codes)
        if n:
            self._name_groups()
        return groups

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Header and arrays that hold everything counted, the same whatever order it came in."""
        names = self.names()
        keys = self.cells.keys()
        used = sorted({names[segment] for segment in np.unique(keys[:, 1]).tolist()})
        place_of = {name: place for place, name in enumerate(used)}
        rank = np.array([place_of.get(name, -1) for name in names], dtype=np.int64)
        segments = rank[keys[:, 1]] if len(keys) else np.empty(0, dtype=np.int64)
        order = np.lexsort((segments, keys[:, 0]))
        place = np.empty(len(keys), dtype=np.int32)
        place[order] = np.arange(len(keys), dtype=np.int32)
        segments = segments[order]
        arrays: dict[str, NDArray[Any]] = {"panes": keys[order, 0], "segments": segments}
        for block in range(len(self.layout.n_slots)):
            cells, slots, counts = self.cells.entries(block)
            cells = place[cells]
            by_place = np.lexsort((slots, cells))
            arrays[f"cells_{block}"] = cells[by_place]
            arrays[f"slots_{block}"] = slots[by_place].astype(np.uint16)
            arrays[f"counts_{block}"] = counts[by_place]
            everything = np.arange(len(keys), dtype=np.int32)
            extremes = self.cells.extremes(block, everything, everything, len(keys))
            arrays[f"extremes_{block}"] = extremes[order]
        arrays["limbs"] = self.cells.limbs()[order]
        header = {
            "pane": self.pane,
            "bounds": self._bounds.tolist(),
            "dropped": self.dropped.tolist(),
            "names": used,
            "new_columns": dict(sorted(self.new_columns.items())),
        }
        return header, arrays

    def sums_between(self, start: int, end: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """State of the panes that begin in a stretch of time, and of nothing else."""
        header, arrays = self.state()
        kept = (arrays["panes"] >= start) & (arrays["panes"] < end)
        place = np.cumsum(kept, dtype=np.int32) - 1
        some = {name: arrays[name][kept] for name in ("panes", "segments", "limbs")}
        for block in range(len(self.layout.n_slots)):
            own = kept[arrays[f"cells_{block}"]]
            some[f"cells_{block}"] = place[arrays[f"cells_{block}"][own]]
            some[f"slots_{block}"] = arrays[f"slots_{block}"][own]
            some[f"counts_{block}"] = arrays[f"counts_{block}"][own]
            some[f"extremes_{block}"] = arrays[f"extremes_{block}"][kept]
        return {**header, "dropped": [0] * len(self.dropped), "new_columns": {}}, some

    def add_state(
        self,
        header: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]],
        slot_maps: Mapping[int, NDArray[np.int32]] | None = None,
    ) -> None:
        """Add such a state; `slot_maps` says where the slots of a block have moved to."""
        segments = np.array(self.add_names(header["names"]), dtype=np.int64)
        n = len(arrays["panes"])
        stored = arrays["segments"]
        if n and not (stored.min() >= 0 and stored.max() < len(segments)):
            raise DataError("the stored cells are damaged: unknown segments")
        table = segments.reshape(-1, 1)
        places = stored.astype(np.int32)
        self._roll(np.array(header["bounds"], dtype=np.int64))
        self.dropped += np.array(header["dropped"], dtype=np.int64)
        if n:
            self._note_expired(int(arrays["panes"].min()))
        cells = self.cells.locate(arrays["panes"], places, table, self._panes)[0]
        for block in range(len(self.layout.n_slots)):
            slots = arrays[f"slots_{block}"].astype(np.int32)
            if slot_maps and block in slot_maps:
                slots = slot_maps[block][slots]
            where = cells[arrays[f"cells_{block}"]]
            self.cells.add_entries(block, where, slots, arrays[f"counts_{block}"])
            self.cells.add_extremes(block, cells, np.ascontiguousarray(arrays[f"extremes_{block}"]))
        self.cells.add_limbs(cells, np.ascontiguousarray(arrays["limbs"]))
        for name, rows_seen in header["new_columns"].items():
            self._note_column(name, rows_seen)

    # -- reading -------------------------------------------------------------------------------

    def read(
        self,
        span: Span,
        *,
        segments: str | Sequence[str] | None = None,
        versions: Sequence[str] | None = None,
        by_version: bool = True,
        until: int | None = None,
    ) -> tuple[Keys, WindowSums]:
        """Sum cells into windows: the key of each row and the sums behind it.

        With `until`, panes that begin later are left out, and cells without predictions.
        """
        names = self.names()
        labels = [self._label(number, values) for _, number, values in names]
        keys = self.cells.keys()
        wanted = _chosen("segment", segments, sorted(set(labels)))
        wanted_versions = _chosen("version", versions, sorted({name[0] for name in names}))
        keep = np.array(
            [
                (wanted is None or label in wanted)
                and (wanted_versions is None or name[0] in wanted_versions)
                for label, name in zip(labels, names, strict=True)
            ],
            dtype=bool,
        )
        chosen = np.flatnonzero(keep[keys[:, 1]]) if len(keys) else np.empty(0, dtype=np.int64)
        if until is not None:
            chosen = chosen[keys[chosen, 0] <= until].astype(np.int32)
            places = np.arange(len(chosen), dtype=np.int32)
            block, width = self.layout.traffic_block, len(TRAFFIC_SLOTS)
            counts = self.cells.counts(block, chosen, places, len(chosen), _NO_MAP, width)
            chosen = chosen[counts[:, 0] > 0].astype(np.int64)
        all_labels = _ordered(labels)
        all_versions = sorted({name[0] for name in names}) if by_version else [NO_VERSION]
        label_place = {label: place for place, label in enumerate(all_labels)}
        label_of = np.array([label_place[label] for label in labels], dtype=np.int64)
        version_place = {version: place for place, version in enumerate(all_versions)}
        version_of = np.array(
            [version_place[name[0]] if by_version else 0 for name in names], dtype=np.int64
        )
        panes, segment = keys[chosen, 0], keys[chosen, 1]
        version, label = version_of[segment], label_of[segment]
        empty, of_version = self._between(span, panes[label == 0], version[label == 0])
        panes, version = np.append(panes, empty), np.append(version, of_version)
        label = np.append(label, np.zeros_like(empty))
        cells = np.append(chosen, np.full(len(empty), -1))
        limit = self._finest_for(span)
        rows = [
            np.stack([starts, ends, version[own], label[own], cells[own]], axis=1)
            for own, part in ((panes >= limit, span), (panes < limit, AS_KEPT))
            for starts, ends in part.starts(panes[own], self._widths(panes[own]))
        ]
        table = np.concatenate(rows)
        unique, targets = _distinct(table[:, :4])
        filled = table[:, 4] >= 0
        sums = WindowSums(
            self,
            table[filled, 4].astype(np.int32),
            targets[filled].astype(np.int32),
            len(unique),
        )
        start, end = unique[:, 0], unique[:, 1]
        if self.dropped.any():
            limit = max(limit, int(self._bounds[-1]))
        is_kept = start >= limit
        if span.everything:
            is_kept = np.ones(len(start), dtype=bool)
            if self.pane and len(chosen):
                start = np.full(len(unique), panes.min())
                end = np.full(len(unique), (panes + self._widths(panes)).max())
        return (
            Keys(
                window_start=None if self.pane == 0 else start,
                window_end=None if self.pane == 0 else end,
                version=unique[:, 2].astype(np.int32),
                versions=tuple(all_versions),
                segment=unique[:, 3].astype(np.int32),
                segments=tuple(all_labels),
                is_kept=is_kept,
            ),
            sums,
        )

    def ends_of(self, cells: IndexArray) -> tuple[IntArray, IntArray]:
        """Start and end of the panes of cells."""
        panes: IntArray = self.cells.keys()[cells, 0]
        return panes, panes + self._widths(panes)

    def label_delays(self) -> tuple[IndexArray, IntArray]:
        """Cells of the whole traffic, all versions, and their labels by delay, [n, DELAY_BINS]."""
        overall = np.array([number == 0 for _, number, _ in self._segments], dtype=bool)
        keys = self.cells.keys()
        cells: IndexArray = np.flatnonzero(overall[keys[:, 1]]).astype(np.int32)
        if self.layout.schema.task is None:
            return cells, np.zeros((len(cells), DELAY_BINS), dtype=np.int64)
        places = np.arange(len(cells), dtype=np.int32)
        block = self.layout.delay_block
        return cells, self.cells.counts(block, cells, places, len(cells), _NO_MAP, DELAY_BINS)

    def label_shares(self, clock: LabelClock) -> FloatArray:
        """Share of the labels that have come by each age of the clock's edges."""
        assert clock.now is not None
        cells, counts = self.label_delays()
        return shares_by_age(self.ends_of(cells)[1], counts, clock.edges, clock.now)

    def segment_labels(self, columns: tuple[str, ...]) -> list[str]:
        """Labels of the segments that have been met of a set of columns."""
        place = self._sets.index(columns)
        found = {
            self._label(number, values) for _, number, values in self.names() if number == place
        }
        return sorted(found)

    def _widths(self, panes: IntArray) -> IntArray:
        """Width that each pane is kept in."""
        assert self.retention is not None
        levels = (panes[:, None] < self._bounds[:-1]).sum(axis=1)
        widths: IntArray = np.array(self.retention.widths, dtype=np.int64)[levels]
        return widths

    def _finest_for(self, span: Span) -> int:
        """Time before which panes are too wide for a span; the smallest number where none is."""
        assert self.retention is not None
        for width, bound in zip(self.retention.widths[1:], self._bounds[:-1], strict=True):
            if not span.divides(width):
                return int(bound)
        return NEVER

    def _between(
        self, span: Span, panes: IntArray, versions: IntArray
    ) -> tuple[IntArray, IntArray]:
        """A pane of every window between the first and the last one of each version; its version.

        Of the latest MAX_EMPTY_WINDOWS, so that a single old event cannot ask for millions.
        """
        found: list[IntArray] = []
        codes: list[IntArray] = []
        for version in np.unique(versions) if self.pane and not span.everything else ():
            own = panes[versions == version]
            first, high = int(own.min()), int(own.max()) + 1
            room = MAX_EMPTY_WINDOWS
            assert self.retention is not None
            for width, bound in zip(
                self.retention.widths, [*self._bounds[:-1], NEVER], strict=True
            ):
                low = max(first, int(bound))
                stride = span.stride(width)
                if high > low and room:
                    low = max(low, high - room * stride)
                    pane = np.arange(low // stride * stride, high, stride)[-room:]
                    pane = np.maximum(pane, low)
                    room -= len(pane)
                    found.append(pane)
                    codes.append(np.full(len(pane), version))
                high = min(high, low)
        empty = np.empty(0, dtype=np.int64)
        return np.concatenate([empty, *found]), np.concatenate([empty, *codes])

    def _label(self, number: int, values: Sequence[str]) -> str:
        columns = self._sets[number]
        pairs = zip(columns, values, strict=True)
        return " & ".join(f"{column}={_quoted(value)}" for column, value in pairs) or "all"


def _joined(rows: Predictions, groups: IndexArray, chosen: NDArray[np.bool_]) -> JoinedRows:
    """Chosen rows as the core takes them; a label that is not known is 0."""
    n = len(chosen)
    all_of_them = bool(chosen.all())

    def taken(array: NDArray[Any]) -> NDArray[Any]:
        each = spread(array, n)
        return each if all_of_them else each[chosen]

    values = rows.values.reshape(n, -1)
    n_chosen = int(np.count_nonzero(chosen))
    times = taken(rows.times)
    columns: dict[str, NDArray[Any]] = {
        "times": times,
        "known": times,
        "groups": taken(groups),
        "decisions": taken(rows.decisions).astype(np.int16),
        "values": (values if all_of_them else values[chosen]).ravel(),
        "weights": taken(rows.weights) if len(rows.weights) else np.ones(n_chosen),
        "labels": np.zeros(n_chosen) if rows.labels is None else taken(rows.labels),
        "signs": np.ones(n_chosen, dtype=np.int8),
        "delays": np.full(n_chosen, NO_DELAY, dtype=np.uint8),
    }
    return JoinedRows(NO_ROWS | columns, weighted=len(rows.weights) > 0)


def _code_of(vocabulary: Vocabulary, text: str) -> int:
    """Code of a text, that of "(other)" where there is no room for it."""
    code = vocabulary.add(text)
    return code if code != UNSEEN else _OTHER


def _chosen(role: str, given: str | Sequence[str] | None, known: Sequence[str]) -> set[str] | None:
    if given is None:
        return None
    wanted = {given} if isinstance(given, str) else set(given)
    if missing := wanted - set(known) - {"all"}:
        shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
        raise ValueError(f"unknown {role} {sorted(missing)[0]!r}; known: {shown or 'none yet'}")
    return wanted


def _distinct(rows: IntArray) -> tuple[IntArray, IntArray]:
    """Distinct rows of (start, end, version, label) in order, and the place of each row."""
    _, starts = np.unique(rows[:, 0], return_inverse=True)
    ends, end = np.unique(rows[:, 1], return_inverse=True)
    _, code = np.unique(starts * len(ends) + end, return_inverse=True)
    for column in rows[:, 2:].T:
        code = code * (column.max(initial=0) + 1) + column
    _, first, place = np.unique(code, return_index=True, return_inverse=True)
    return rows[first], place


def _quoted(value: str) -> str:
    """Text of a value in the name of a segment, in quotes where it could be taken for more."""
    return json.dumps(value) if any(mark in value for mark in (" & ", "=", '"')) else value


def _ordered(labels: Sequence[str]) -> list[str]:
    """Distinct labels, the whole traffic first, then by number of columns and name."""
    return sorted(set(labels), key=lambda label: (label != "all", label.count(" & "), label))


@dataclass(frozen=True)
class WindowSums:
    """The sums of some rows of windows; what a metric may ask for is read when it asks."""

    table: WindowTable
    chosen: IndexArray  # cells
    rows: IndexArray  # row that each of them adds into
    n_rows: int
    detail: Literal["counts", "sums", "scores"] = "scores"  # of outcomes: decisions, losses, scores

    def only(self, rows: IntArray) -> WindowSums:
        """Some of the rows, each once, in the order given."""
        place = np.full(self.n_rows, -1, dtype=np.int32)
        place[rows] = np.arange(len(rows), dtype=np.int32)
        target = place[self.rows]
        inside = target >= 0
        return replace(self, chosen=self.chosen[inside], rows=target[inside], n_rows=len(rows))

    @property
    def _layout(self) -> Layout:
        return self.table.layout

    def slots(self, block: int, map_: IndexArray = _NO_MAP, width: int | None = None) -> IntArray:
        """Counts of a block, [n_rows, width]."""
        full = self._layout.n_slots[block] if width is None else width
        return self.table.cells.counts(block, self.chosen, self.rows, self.n_rows, map_, full)

    def extremes(self, block: int) -> FloatArray:
        """Smallest and largest finite value, [n_rows, 2]."""
        return self.table.cells.extremes(block, self.chosen, self.rows, self.n_rows)

    @cached_property
    def sums(self) -> FloatArray:
        """Exact sums, [n_rows, n_sums]; NaN where only counts are wanted."""
        if self.detail == "counts" and self._layout.schema.task != "regression":
            return np.full((self.n_rows, self._layout.n_sums), np.nan)
        return self.table.cells.sums(self.chosen, self.rows, self.n_rows)

    @cached_property
    def _traffic(self) -> IntArray:
        return self.slots(self._layout.traffic_block)

    def traffic(self) -> Traffic:
        """Rows, duplicates, rows with unknown columns, rows in "(other)"."""
        rows, duplicates, new_columns, _, _, pooled, _ = self._traffic.T
        return Traffic(rows=rows, duplicates=duplicates, new_columns=new_columns, pooled=pooled)

    def delays(self, clock: LabelClock) -> LabelDelays:
        """How long labels took."""
        return LabelDelays(self.slots(self._layout.delay_block), clock.edges / SECOND)

    def maturity(self, clock: LabelClock) -> Maturity:
        """Labels that should have come by the age of the panes."""
        assert clock.now is not None
        keys = np.stack([self.rows, *self.table.ends_of(self.chosen)], axis=1)
        panes, place = np.unique(
            keys, axis=0, return_inverse=True
        )  # the order of cells never shows
        places = place.ravel().astype(np.int32)
        each = replace(self, rows=places, n_rows=len(panes))
        row, starts, ends = panes.T
        ages = clock.now - (starts + np.minimum(ends, clock.now)) / 2
        shares = expected_share(np.maximum(ages, 0), clock.edges, self.table.label_shares(clock))
        due = shares * each.slots(self._layout.traffic_block)[:, 0]
        expected = np.bincount(row, weights=due, minlength=self.n_rows).astype(np.float64)
        return Maturity(predictions=self._traffic[:, 0], expected=expected)

    def pairs(self) -> PairedDecisions | PairedValues:
        """Labelled rows that the champion has predicted too."""
        layout = self._layout
        right = self.slots(layout.delay_block + 1).reshape(self.n_rows, 2, 2)
        common = {"labelled_rows": self._traffic[:, 6], "right": right}
        loss, loss_squared, other, other_squared = self.sums[:, -len(PAIR_SUMS) :].T
        if layout.schema.task == "regression":
            return PairedValues(
                **common,
                absolute=loss,
                absolute_squared=loss_squared,
                squared=other,
                squared_squared=other_squared,
            )
        unknown = np.nan if layout.n_score_bins == 1 else 0.0
        return PairedDecisions(
            **common,
            log_loss=loss + unknown,
            log_loss_squared=loss_squared + unknown,
            brier=other + unknown,
            brier_squared=other_squared + unknown,
        )

    def label_share(self) -> FloatArray:
        """Share of the predictions whose label has arrived; NaN where there are none."""
        rows = self._traffic[:, 0]
        share: FloatArray = self._traffic[:, 3] / np.where(rows == 0, np.nan, rows)
        return share

    def column_counts(
        self, counted: CountedColumn, outside: tuple[slice, slice] | None
    ) -> ColumnCounts:
        """What the values of a column were; `outside`: slots beyond the limits of numbers."""
        slots = self.slots(counted.block, width=counted.n_slots)
        missing, nan, sentinel, invalid, absent = slots[:, :SPECIALS].T
        common = {
            "rows": slots.sum(axis=1),
            "null": missing,
            "nan": nan,
            "sentinel": sentinel,
            "invalid": invalid,
            "absent": absent,
        }
        ordered = slots[:, SPECIALS:]
        if outside is None:
            broken = ordered[:, 1] if counted.column.kind == "rule" else np.zeros_like(missing)
            return ColumnCounts(
                **common,
                unseen=ordered[:, 0],
                broken=broken,
                distinct=np.count_nonzero(ordered, axis=1),
            )
        below, above = outside
        extremes = self.extremes(counted.block)
        extremes[~np.isfinite(extremes)] = np.nan
        return ColumnCounts(
            **common,
            below=slots[:, below].sum(axis=1),
            above=slots[:, above].sum(axis=1),
            negative_infinity=ordered[:, 0],
            positive_infinity=ordered[:, -1],
            distinct=np.count_nonzero(ordered, axis=1),
            minimum=extremes[:, 0],
            maximum=extremes[:, 1],
        )

    def outcomes(self) -> Outcomes | None:
        """Sums over labelled rows, by task."""
        task = self._layout.schema.task
        if task is None:
            return None
        return _OUTCOMES[task](self)

    def _common(self) -> dict[str, Any]:
        rows, _, _, labelled, unscored, *_ = self._traffic.T
        return {"predictions": rows, "labelled_rows": labelled - unscored}

    @cached_property
    def _cuts(self) -> FloatArray:
        """Inner edges of the score bins; at most one where scores are not wanted."""
        inner = self._layout.score_edges
        middle = len(inner) // 2
        return inner if self.detail == "scores" else inner[middle : middle + 1]

    @property
    def _score_edges(self) -> FloatArray:
        """Edges of the score bins; a score of exactly 1 has the last one to itself."""
        last = np.nextafter(1.0, 2.0) if len(self._cuts) else 1.0
        return np.concatenate([[0.0], self._cuts, [last]])

    def _by_score(self, block: int, n_before: int) -> IntArray:
        """Counts of a block that ends in score bins, [n_rows, n_before, S]."""
        n_bins = len(self._cuts) + 1
        map_ = _NO_MAP
        if n_bins < self._layout.n_score_bins:
            bins = np.searchsorted(self._cuts, [0.0, *self._layout.score_edges], side="right")
            map_ = (np.arange(n_before)[:, None] * n_bins + bins).ravel().astype(np.int32)
        counts = self.slots(block, map_, n_before * n_bins)
        return counts.reshape(self.n_rows, n_before, n_bins)

    @property
    def _tenths(self) -> FloatArray:
        """Sum of the scores, or of the top ones, in each tenth of [0, 1], [n_rows, TENTHS]."""
        return self.sums[:, len(LOSS_SUMS) : len(LOSS_SUMS) + TENTHS]

    def _binary(self) -> BinaryOutcomes:
        joint = self._by_score(self._layout.outcome_block, 4)
        joint = joint.reshape(self.n_rows, 2, 2, joint.shape[-1])
        losses = dict(zip(LOSS_SUMS, self.sums.T, strict=False))
        return BinaryOutcomes(
            **self._common(),
            labelled=joint.sum(axis=(1, 2, 3)),
            negatives=joint[:, 0],
            positives=joint[:, 1],
            edges=self._score_edges,
            confidence=self._tenths,
            unscored=self._traffic[:, 4],
            **losses,
        )

    def estimates(self) -> Estimates | None:
        """What predictions are expected to turn out as, by task; None where nothing says so."""
        task = self._layout.schema.task
        if not self._layout.estimates or task not in _ESTIMATES:
            return None
        return _ESTIMATES[task](replace(self, detail="scores"))

    def _chances(self, block: int) -> FloatArray:
        """Counts of a block of chances, in the units of the other counts."""
        weighted = self._layout.schema.weight is not None
        unit = WEIGHT_UNITS / CHANCE_UNITS if weighted else 1 / CHANCE_UNITS
        chances: FloatArray = self.slots(block) * np.float64(unit)
        return chances

    def _estimated_rows(self, counted: IntArray) -> IntArray:
        """Rows behind counts, [n_rows]; with weights every row that had any."""
        if self._layout.schema.weight is None:
            return counted
        return np.where(counted > 0, self._traffic[:, 0], 0)

    def _binary_estimates(self) -> BinaryEstimates:
        outcomes = self._binary()
        shape = outcomes.positives.shape
        first = self._layout.estimate_block
        rows = self.slots(first).reshape(shape)
        losses = dict(zip(EXPECTED_LOSSES, self._chances(first + 3).T, strict=True))
        return BinaryEstimates(
            estimated_rows=self._estimated_rows(rows.sum(axis=(1, 2))),
            rows=rows,
            chances=self._chances(first + 1).reshape(shape),
            edges=outcomes.edges,
            positives=outcomes.positives,
            negatives=outcomes.negatives,
            labelled_chances=self._chances(first + 2).reshape(shape),
            known_log_loss=outcomes.log_loss,
            known_brier=outcomes.brier,
            **losses,
        )

    def _multiclass_estimates(self) -> MulticlassEstimates:
        outcomes = self._multiclass()
        first, n = self._layout.estimate_block, len(self._layout.classes)
        by_score = [self.slots(first + 3 + 2 * k) for k in range(n)]
        losses = dict(zip(EXPECTED_LOSSES, self._chances(first + 2).T, strict=True))
        return MulticlassEstimates(
            estimated_rows=self._estimated_rows(by_score[0].sum(axis=1)),
            chances=self._chances(first).reshape(-1, n, n),
            labelled_chances=self._chances(first + 1).reshape(-1, n, n),
            confusion=outcomes.confusion,
            score_rows=np.stack(by_score, axis=1),
            score_chances=np.stack([self._chances(first + 4 + 2 * k) for k in range(n)], axis=1),
            known_log_loss=outcomes.log_loss,
            known_brier=outcomes.brier,
            **losses,
        )

    def _regression_estimates(self) -> RegressionEstimates:
        expected = self.sums[:, len(REGRESSION_SUMS) :].T
        sums = dict(zip(EXPECTED_SUMS, expected, strict=False))
        rows = sums.pop("rows")
        estimated = self._estimated_rows(np.rint(rows).astype(np.int64))
        return RegressionEstimates(estimated_rows=estimated, rows=rows, **sums)

    def _multiclass(self) -> MulticlassOutcomes:
        first = self._layout.outcome_block
        classes = self._layout.classes
        n = len(classes)
        confusion = self.slots(first).reshape(self.n_rows, n, n)
        tenths = self.slots(first + 2).reshape(self.n_rows, TENTHS, 2)
        scores = [self._by_score(first + 3 + k, 2) for k in range(n)]
        losses = dict(zip(LOSS_SUMS, self.sums.T, strict=False))
        return MulticlassOutcomes(
            **self._common(),
            labelled=confusion.sum(axis=(1, 2)),
            confusion=confusion,
            classes=classes,
            ranks=self.slots(first + 1),
            scores=np.stack(scores, axis=1),
            edges=self._score_edges,
            top_confidence=self._tenths,
            top_counts=tenths.sum(axis=2),
            top_correct=tenths[:, :, 1],
            **losses,
        )

    def _regression(self) -> RegressionOutcomes:
        sums = dict(zip(REGRESSION_SUMS, self.sums.T, strict=False))
        count = np.rint(sums.pop("count")).astype(np.int64)
        return RegressionOutcomes(
            **self._common(), labelled=count, center=self._layout.label_center, **sums
        )


_OUTCOMES: dict[str, Callable[[WindowSums], Outcomes]] = {
    "binary": WindowSums._binary,
    "multiclass": WindowSums._multiclass,
    "regression": WindowSums._regression,
}

_ESTIMATES: dict[str, Callable[[WindowSums], Estimates]] = {
    "binary": WindowSums._binary_estimates,
    "multiclass": WindowSums._multiclass_estimates,
    "regression": WindowSums._regression_estimates,
}
