"""What traffic is compared with: bins, categories and sums of a reference, fitted once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import IO, Any, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidegauge import archive
from tidegauge._core import SPECIALS, Batch, DataError, SchemaError, Vocabulary
from tidegauge.derived import ArrayFunction, derive, refuse
from tidegauge.engine import CpuEngine, resolve_threads
from tidegauge.ingest import as_batch, as_table, first_texts, read_predictions, tiles
from tidegauge.layout import MAX_CATEGORIES, CountedColumn, Estimator, Layout, fit_layout
from tidegauge.metrics.estimated import Errors
from tidegauge.metrics.significance import Quiet
from tidegauge.sample import (
    WHOLE,
    Drawn,
    RowSample,
    check_sample_rows,
    new_sample,
    restored_sample,
    same_size,
)
from tidegauge.schema import NO_FUNCTIONS, Schema
from tidegauge.window import (
    MAX_SEGMENTS,
    IndexArray,
    Retention,
    Span,
    WindowSums,
    WindowTable,
    parse_duration,
)

COARSE_BINS = 10
MAX_WINDOWS = 128  # of the reference, from which to tell how far a quiet one strays
FIT_ROWS = 1 << 20  # of the tables that bins are chosen from, at least


class Reference:
    """Bins, categories and sums of the traffic that everything else is compared with.

    Made by `Reference.fit`; the raw data is never needed again. It keeps the sums of every pane, so
    that the spread of the reference's own windows is known.

    Parameters
    ----------
    layout
        Columns and their bins.
    table
        Sums by pane and segment.
    secret
        Key of the hash of prediction ids; the monitors of a reference share it, so that they merge.
    sample
        Some of the rows, where they are kept.

    >>> from tidegauge import Schema
    >>> Reference.fit({"plan": ["a", "b", "a"]}, Schema(features=["plan"]))
    <Reference: rows 3, columns 1>
    """

    def __init__(
        self,
        layout: Layout,
        table: WindowTable,
        secret: tuple[int, int],
        sample: RowSample | None = None,
    ) -> None:
        self.layout = layout
        self.table = table
        self.secret = secret
        self.sample = sample
        self._coarse: dict[str, tuple[IndexArray, int]] = {}
        self._outside: dict[str, tuple[slice, slice]] = {}
        self._windows: dict[tuple[int, str], WindowSums] = {}
        self.quiet: dict[tuple[str, str, int], Quiet] = {}  # by column, segment and width
        self.errors: dict[tuple[str, str, int], Errors] = {}  # by metric, segment and width
        self._in_use = False

    @classmethod
    def fit(
        cls,
        table: object,
        schema: Schema,
        *,
        bins: int = 1024,
        pane: str = "1h",
        like: Reference | None = None,
        threads: int | None = None,
        sample_rows: int = 0,
        estimator: Estimator = "scores",
    ) -> Reference:
        """Learn bins and sums from a table, or from an iterable of tables too big to hold at once.

        Parameters
        ----------
        table
            Any object with the Arrow PyCapsule protocol, a dict of arrays, or an iterable of such.
        schema
            Roles of the columns. Kinds that are not declared are inferred from the first tables.
        bins
            Fine bins of a numeric column, 16 to 4096; heavy tails get up to four times as many.
        pane
            Width of the windows that the reference is kept in; has no effect without timestamps.
        like
            Another reference whose bins are taken over, so that the two can be merged.
        threads
            Threads for the row work; one a core, 8 at most, unless given.
        sample_rows
            Rows to keep, whole and as they are, for metrics that compare rows; none unless given.
            They are stored with the reference, without ids, and with their labels as numbers.
        estimator
            What performance is estimated by before labels come, where the table has labels:
            "scores", or "features" too, by gradient-boosted trees that are asked for every row;
            a regression, which has no scores, is estimated by features alone.

        Returns
        -------
        Reference
            Bins are chosen from the first tables, a million rows or all there are; categories and
            limits grow with every table.

        Raises
        ------
        SchemaError, DataError
            When a column is missing or cannot be read as its role demands.

        >>> import numpy as np
        >>> reference = Reference.fit({"age": np.arange(100)}, Schema(features=["age"]))
        >>> reference.n_rows
        100
        """
        if not isinstance(schema, Schema):
            raise SchemaError(f"a tg.Schema is wanted, got {type(schema).__name__}")
        if not isinstance(bins, int) or not 16 <= bins <= 4096:
            raise SchemaError(f"bins must lie between 16 and 4096, got {bins!r}")
        if estimator not in get_args(Estimator):
            known = ", ".join(get_args(Estimator))
            raise SchemaError(f"estimator {estimator!r}; allowed: {known}")
        width = parse_duration(pane, role="pane")
        batches = _batches(table, sampled=check_sample_rows(sample_rows) > 0)
        first = _first(batches)
        tables = [batch for batch, _ in first]
        if like is not None:
            _check_alike(schema, like.schema)
            layout = Layout.from_dict(like.layout.to_dict(), schema.functions)
        else:
            layout = fit_layout(tables, schema, bins, estimator)
        moment = layout.schema.timestamp
        timed = moment is not None and tables[0].kind(moment) != "absent"
        secret = like.secret if like else _new_secret()
        sample = new_sample(sample_rows, layout.schema)
        reference = cls(layout, WindowTable(layout, width if timed else 0), secret, sample)
        engine = CpuEngine(resolve_threads(threads))
        for batch, rows in chain(first, batches):
            labels = reference._count(batch, engine)
            if sample is not None and rows is not None:
                one_cell = np.zeros(batch.n_rows, dtype=np.int32)
                sample.add(rows, one_cell, lambda _: [WHOLE], labels=labels)
        return reference

    def _count(self, batch: Batch, engine: CpuEngine) -> NDArray[np.float64]:
        """Count a batch; the label of each row, NaN where not known."""
        layout = self.layout
        whole = engine.open(batch, layout)
        self._grow_categories(batch, layout.given)
        timestamp = layout.schema.timestamp if self.table.pane else None
        read = [
            (rows, read_predictions(batch, layout, *rows, secret=None, timestamp=timestamp))
            for rows in tiles(batch, layout.schema)
        ]
        for rows, predictions in read:
            derived = None
            if layout.derivations:
                derived = derive(
                    layout.derivations, batch, *rows, failed=refuse, threads=engine.threads
                )
                self._grow_categories(derived, layout.derived)
            groups = self.table.groups(batch, *rows)
            cells = self.table.locate(predictions.times, groups)
            self.table.count(
                whole, rows, cells, None, groups=groups, derived=derived, engine=engine
            )
            everything = np.ones(rows[1] - rows[0], dtype=bool)
            self.table.add_predicted(predictions, groups, everything)
            self.table.add_labelled(predictions, groups)
        self._forget()
        labels = np.full(batch.n_rows, np.nan)
        for (start, stop), predictions in read:
            if predictions.labels is not None:
                labels[start:stop] = predictions.labels
        return labels

    def _forget(self) -> None:
        """Drop what was derived from the sums before they changed."""
        for derived in (self._coarse, self._outside, self._windows, self.quiet, self.errors):
            derived.clear()

    def _grow_categories(self, batch: Batch, columns: Sequence[CountedColumn]) -> None:
        for counted in columns:
            if counted.categories is None or counted.column.categories is not None:
                continue
            if counted.column.kind == "rule":
                continue
            known = set(counted.categories.texts) | set(map(str, counted.column.missing))
            for text in first_texts([batch], counted.name, MAX_CATEGORIES):
                if text not in known:
                    counted.categories.add(text)
            self.table.cells.widen(counted.block, counted.n_slots)

    def __repr__(self) -> str:
        return f"<Reference: rows {self.n_rows:,}, columns {len(self.layout.columns)}>"

    @property
    def schema(self) -> Schema:
        """Roles of the columns, every kind settled."""
        return self.layout.schema

    @property
    def n_rows(self) -> int:
        """Rows it was fitted on."""
        cells, slots, counts = self.table.cells.entries(self.layout.traffic_block)
        overall = {i for i, name in enumerate(self.table.names()) if name[1] == 0}
        keys = self.table.cells.keys()
        inside = np.array([int(segment) in overall for segment in keys[:, 1]], dtype=bool)
        return int(counts[(slots == 0) & inside[cells]].sum()) if len(cells) else 0

    @cached_property
    def drawn(self) -> Drawn | None:
        """Rows that are kept, where any are."""
        return None if self.sample is None else self.sample.drawn()

    def merge(self, other: Reference) -> None:
        """Add the sums of a reference with the same bins, fitted elsewhere on other rows.

        Raises
        ------
        SchemaError
            When the bins differ (fit the other one with `like=`), or a monitor uses this one.

        >>> import numpy as np
        >>> first = Reference.fit({"age": np.arange(60)}, Schema(features=["age"]))
        >>> first.merge(Reference.fit({"age": np.arange(40)}, first.schema, like=first))
        >>> first.n_rows
        100
        """
        if other is self:
            raise SchemaError("a reference cannot be merged into itself")
        if self._in_use:
            raise SchemaError("a monitor compares with this reference already; merge before that")
        if _bins_of(self.layout) != _bins_of(other.layout) or self.table.pane != other.table.pane:
            raise SchemaError(
                "the references differ in schema, bins or pane; fit one with like= the other"
            )
        if not same_size(self.sample, other.sample):
            raise SchemaError("the references differ in sample_rows; fit them alike")
        maps: dict[int, NDArray[np.int32]] = {}
        for name, counted in self.layout.columns.items():
            theirs = other.layout.columns[name].categories
            if counted.categories is None or theirs is None:
                continue
            codes = [counted.categories.add(text) for text in theirs.texts]
            moved = [SPECIALS if code < 0 else SPECIALS + 1 + code for code in codes]
            maps[counted.block] = np.array([*range(SPECIALS + 1), *moved], dtype=np.int32)
            self.table.cells.widen(counted.block, counted.n_slots)
        self.table.add_state(*other.table.state(), slot_maps=maps)
        if self.sample is not None and other.sample is not None:
            self.sample.add_state(*other.sample.state())
            self.__dict__.pop("drawn", None)
        self._forget()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one file."""
        header, arrays = self.state()
        archive.write(path, "reference", header, arrays)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | IO[bytes],
        *,
        derived: Mapping[str, ArrayFunction] = NO_FUNCTIONS,
    ) -> Reference:
        """Read such a file.

        Parameters
        ----------
        path
            What `save` wrote, or a file open on it.
        derived
            Functions of the features that are derived by one, by name: files do not hold them.

        Raises
        ------
        DataError
            When the file is damaged, of another kind, or of a later format.
        SchemaError
            When it wants other functions than those given.
        """
        header, arrays = archive.read(path, "reference")
        with archive.restoring(path if isinstance(path, str | os.PathLike) else "the file"):
            return cls.from_state(header, arrays, derived)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Header and arrays of the file."""
        table, arrays = self.table.state()
        header = {
            "layout": self.layout.to_dict(),
            "table": table,
            "secret": list(self.secret),
        }
        if self.sample is not None:
            header["sample"], rows = self.sample.state()
            arrays |= {f"sample.{name}": array for name, array in rows.items()}
        return header, arrays

    @classmethod
    def from_state(
        cls,
        header: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]],
        functions: Mapping[str, ArrayFunction],
    ) -> Reference:
        """Restore such a state, with the functions that its features are derived by."""
        layout = Layout.from_dict(header["layout"], functions)
        table = WindowTable(layout, header["table"]["pane"])
        table.add_state(header["table"], arrays)
        sample = restored_sample(layout.schema, header.get("sample"), arrays)
        return cls(layout, table, (header["secret"][0], header["secret"][1]), sample)

    def new_table(
        self, pane: int, retention: Retention | None = None, max_segments: int = MAX_SEGMENTS
    ) -> WindowTable:
        """Empty table for traffic to compare; its categories no longer follow the reference's."""
        self._in_use = True
        columns = {
            name: counted
            if counted.categories is None
            else replace(counted, categories=Vocabulary(counted.categories.texts, MAX_CATEGORIES))
            for name, counted in self.layout.columns.items()
        }
        layout = replace(self.layout, columns=columns)
        return WindowTable(layout, pane, retention, max_segments)

    def windows(self, width: int, segment: str) -> WindowSums | None:
        """Sums of its own windows of a width, spread over its time where there are many of them.

        None when its panes do not add up to such windows.
        """
        if not self.table.pane or not width or width % self.table.pane:
            return None
        key = (width, segment)
        if key not in self._windows:
            span = Span(width, width)
            _, sums = self.table.read(span, segments=segment, by_version=False)
            kept = np.unique(np.linspace(0, sums.n_rows - 1, MAX_WINDOWS).astype(np.int32))
            inside = np.isin(sums.rows, kept)
            rows = np.searchsorted(kept, sums.rows[inside]).astype(np.int32)
            self._windows[key] = replace(
                sums, chosen=sums.chosen[inside], rows=rows, n_rows=len(kept)
            )
        return self._windows[key]

    def coarse(self, counted: CountedColumn) -> tuple[IndexArray, int]:
        """Slot to coarse bin, and the number of coarse bins; the last one takes missing values.

        Categories are bins as they stand, "other" after them. Numbers are cut at the deciles of the
        reference, snapped to fine bins; declared edges are kept.
        """
        if counted.name not in self._coarse:
            if counted.grid is None:
                n = counted.n_slots - SPECIALS
                map_ = np.full(counted.n_slots, n, dtype=np.int32)
                map_[SPECIALS] = n - 1
                map_[SPECIALS + 1 :] = np.arange(n - 1)
                self._coarse[counted.name] = (map_, n + 1)
            else:
                self._coarse[counted.name] = self._deciles(counted)
        return self._coarse[counted.name]

    def outside(self, counted: CountedColumn) -> tuple[slice, slice]:
        """Slots of finite values below and above the limits: declared ones, or the reference's own.

        Limits that grew after the bins were chosen are snapped outwards to a fine bin.
        """
        if counted.name not in self._outside:
            self._outside[counted.name] = self._beyond_limits(counted)
        return self._outside[counted.name]

    def _beyond_limits(self, counted: CountedColumn) -> tuple[slice, slice]:
        assert counted.grid is not None
        assert counted.bins is not None
        cells = np.arange(len(self.table.cells), dtype=np.int32)
        low, high = self.table.cells.extremes(counted.block, cells, np.zeros_like(cells), 1)[0]
        if (
            counted.column.limits is not None
            or not low <= high
            or (low, high) == counted.grid.limits
        ):
            return counted.outside
        ends = counted.bins.encode(np.array([low, high])).astype(int)
        return slice(SPECIALS + 1, ends[0]), slice(ends[1] + 1, counted.n_slots - 1)

    def _deciles(self, counted: CountedColumn) -> tuple[IndexArray, int]:
        edges = counted.lower_edges
        if counted.column.edges is not None:
            bin_of = np.searchsorted(np.array(counted.column.edges), edges, side="right")
        else:
            cells = np.arange(len(self.table.cells), dtype=np.int32)
            rows, no_map = np.zeros_like(cells), np.empty(0, np.int32)
            slots = self.table.cells.counts(counted.block, cells, rows, 1, no_map, counted.n_slots)
            bin_of = _equal_shares(slots[0, SPECIALS:])
        n = int(bin_of.max()) + 1
        map_ = np.full(counted.n_slots, n, dtype=np.int32)
        map_[SPECIALS:] = bin_of
        return map_, n + 1


def _equal_shares(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Group ordered bins into COARSE_BINS of nearly equal counts.

    Few values keep a bin each, and one more takes whatever the reference never had.
    """
    occupied = np.flatnonzero(counts)
    if len(occupied) <= COARSE_BINS:
        apart = np.full(len(counts), len(occupied), dtype=np.int64)
        apart[occupied] = np.arange(len(occupied))
        return apart
    below = np.concatenate([[0], np.cumsum(counts)])[:-1]  # rows before each bin
    total = counts.sum()
    targets = total * np.arange(1, COARSE_BINS) / COARSE_BINS
    after = np.searchsorted(below, targets)
    nearer = np.where(
        (after < len(below))
        & (after > 0)
        & (
            np.abs(below[np.minimum(after, len(below) - 1)] - targets)
            > np.abs(below[after - 1] - targets)
        ),
        after - 1,
        np.minimum(after, len(below) - 1),
    )
    starts = np.zeros(len(counts), dtype=np.int64)
    starts[nearer[nearer > 0]] = 1
    return np.cumsum(starts)


def _check_alike(schema: Schema, other: Schema) -> None:
    names = [replace(each, features=list(each.declared)) for each in (schema, other)]
    same = names[0] == names[1] and schema.derivations.keys() == other.derivations.keys()
    for name, derivation in schema.derivations.items() if same else ():
        theirs = other.derivations[name].to_dict()
        same &= all(theirs.get(key) == value for key, value in derivation.to_dict().items())
    if not same:
        raise SchemaError("the schema is not that of the reference given as like=")


def _new_secret() -> tuple[int, int]:
    return int.from_bytes(os.urandom(8)), int.from_bytes(os.urandom(8))


Given = tuple[Batch, pa.Table | None]  # a table, twice where its rows are sampled


def _first(batches: Iterator[Given]) -> list[Given]:
    """As many tables as bins are chosen from."""
    first: list[Given] = []
    for batch in batches:
        first.append(batch)
        if sum(each.n_rows for each, _ in first) >= FIT_ROWS:
            break
    if not first:
        raise DataError("the reference holds no table; give at least one, even if it has no rows")
    return first


def _batches(table: object, *, sampled: bool) -> Iterator[Given]:
    tabular = hasattr(table, "__arrow_c_stream__") or hasattr(table, "__arrow_c_array__")
    if tabular or isinstance(table, Mapping | Batch | str) or not isinstance(table, Iterable):
        table = [table]
    for part in table:
        rows = as_table(part) if sampled else None
        yield as_batch(part if rows is None else rows), rows


def _bins_of(layout: Layout) -> dict[str, Any]:
    """What two references must share to be merged: all of the layout but the categories."""
    stored = layout.to_dict()
    stored["columns"] = {name: parts["grid"] for name, parts in stored["columns"].items()}
    return stored
