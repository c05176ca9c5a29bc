"""A bounded sample of rows for each stratum (a pane of a model version), the same however it came.

Every row has a priority of 64 bits, and a stratum keeps the rows with the smallest ones. So what is
kept depends on the rows alone, not on batches, threads or order, and the sample of two monitors'
rows together is the smallest of both samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidegauge._core import (
    NEVER,
    UNSEEN,
    Batch,
    DataError,
    SchemaError,
    find_codes,
    read_numbers,
    select_rows,
)
from tidegauge.derived import derive
from tidegauge.embedding import Embedding
from tidegauge.ingest import as_batch
from tidegauge.layout import CountedColumn, Layout
from tidegauge.schema import Schema

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
KeyArray = NDArray[np.uint64]

Stratum: TypeAlias = tuple[int, str]  # start of a pane, version

WHOLE: Stratum = (0, "")  # the one stratum of a reference
OPEN = np.uint64(2**64 - 1)  # limit of a stratum that has room
MAX_SAMPLE_ROWS = 1_000_000
NO_KEYS: KeyArray = np.empty((0, 2), dtype=np.uint64)
_VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
_READABLE = ("null", "bool", "integer", "float", "text", "time", "vector")


class RowSample:
    """The rows of every stratum with the smallest priorities, `size` at most of each.

    A stratum is a pane and a version. The priority of a row is the lower half of its key, the keyed
    hash of its id. Rows without ids get a hash of their number, so two such samples that are merged
    hold rows of equal numbers.

    Parameters
    ----------
    size
        Rows kept of a stratum. As many again, or 1024, may wait to be sorted in, and what one tile
        brings.
    columns
        Columns kept of each row.

    >>> sample = RowSample(2, ("x",))
    >>> table = pa.table({"x": range(100)})
    >>> one_cell = np.zeros(100, dtype=np.int32)
    >>> sample.add(table, one_cell, lambda cells: [(0, "v1")], labels=np.full(100, np.nan))
    >>> sample.drawn().rows.num_rows
    2
    """

    def __init__(self, size: int, columns: Sequence[str]) -> None:
        self.size = size
        self.columns = tuple(columns)
        self._n_met = 0  # rows offered without keys
        self._names: dict[Stratum, int] = {}
        self._limits = np.empty(0, dtype=np.uint64)  # a row with a larger priority has no chance
        self._kept = _Part.empty(columns)
        self._waiting: list[_Part] = []
        self._stratum_of_cell: IntArray = np.empty(0, dtype=np.int64)  # -1 where not known
        self._limit_of_cell: NDArray[np.uint64] = np.empty(0, dtype=np.uint64)

    # -- rows in -------------------------------------------------------------------------------

    def add(
        self,
        table: pa.Table,
        cells: NDArray[np.int32],
        strata_of: Callable[[NDArray[np.int32]], Sequence[Stratum]],
        *,
        keys: KeyArray = NO_KEYS,
        labels: NDArray[np.float64],
    ) -> None:
        """Offer rows.

        Parameters
        ----------
        table
            The rows.
        cells
            Cell of each, negative for a row that takes no part.
        strata_of
            Names the strata of cells; asked once for each cell.
        keys
            Key of each row; none where there are no ids.
        labels
            Label of each row, NaN where not known.
        """
        room = int(cells.max(initial=-1)) + 1 - len(self._stratum_of_cell)
        if room > 0:
            self._stratum_of_cell = np.append(self._stratum_of_cell, np.full(room, -1))
            self._limit_of_cell = np.append(self._limit_of_cell, np.full(room, OPEN))
        rows, priorities = select_rows(cells, keys, self._n_met, self._limit_of_cell)
        if not len(keys):
            self._n_met += len(cells)
        if not len(rows):
            return
        strata = self._strata(cells[rows], strata_of)
        chosen = self._chosen(strata, priorities)
        rows, priorities, strata = rows[chosen], priorities[chosen], strata[chosen]
        if len(rows):
            self._waiting.append(
                _Part(
                    strata,
                    priorities,
                    keys[rows] if len(keys) else np.zeros((len(rows), 2), dtype=np.uint64),
                    labels[rows],
                    self._taken(table, rows),
                    hashed=bool(len(keys)),
                )
            )
            self._limit(self._waiting[-1])
        if sum(len(each.strata) for each in self._waiting) > max(self.size, 1024):
            self._sort_in()
        known = self._stratum_of_cell >= 0
        self._limit_of_cell[known] = self._limits[self._stratum_of_cell[known]]

    def _strata(
        self,
        cells: NDArray[np.int32],
        strata_of: Callable[[NDArray[np.int32]], Sequence[Stratum]],
    ) -> IntArray:
        """Stratum of cells; one met for the first time is asked for."""
        met = np.flatnonzero(np.bincount(cells)).astype(np.int32)
        new = met[self._stratum_of_cell[met] < 0]
        if len(new):
            self._stratum_of_cell[new] = self._numbers(strata_of(new))
        return self._stratum_of_cell[cells]

    def _numbers(self, names: Sequence[Stratum]) -> IntArray:
        """Numbers of strata, given when new."""
        numbers = [self._names.setdefault(name, len(self._names)) for name in names]
        room = len(self._names) - len(self._limits)
        self._limits = np.append(self._limits, np.full(room, OPEN))
        return np.array(numbers, dtype=np.int64)

    def _chosen(self, strata: IntArray, priorities: NDArray[np.uint64]) -> IntArray:
        """Rows that may belong to the sample, by stratum and priority, `size` at most of each.

        Where a stratum has room all of its rows may. Many are cut first at a priority that leaves
        enough of them nearly always, and not at all where it does not.
        """
        rows = np.flatnonzero(priorities <= self._limits[strata])
        if len(rows) > 4 * self.size:
            strata, priorities = strata[rows], priorities[rows]
            n = np.bincount(strata, minlength=len(self._limits))
            likely = self.size + 8 * self.size**0.5 + 16
            cut = self._limits * np.minimum(likely / np.maximum(n, 1), 1)
            low = priorities <= cut[strata]
            found = np.bincount(strata[low], minlength=len(n))
            low |= (found < np.minimum(n, self.size))[strata]
            rows, strata, priorities = rows[low], strata[low], priorities[low]
        else:
            strata, priorities = strata[rows], priorities[rows]
        order = np.lexsort((priorities, strata))
        return rows[order[_ranks(strata[order]) < self.size]]

    def _taken(self, table: pa.Table, rows: IntArray) -> pa.Table:
        taken = _owned({n: table.column(n) for n in self.columns if n in table.column_names}, rows)
        return taken if taken.num_columns else _nulls(self.columns[0], len(rows))

    def _limit(self, part: _Part) -> None:
        """Lower the limits of strata of which a sorted part alone holds `size` rows."""
        full = _ranks(part.strata) == self.size - 1
        where = part.strata[full]
        self._limits[where] = np.minimum(self._limits[where], part.priorities[full])

    def _sort_in(self) -> None:
        if not self._waiting:
            return
        kept = _Part.joined([self._kept, *self._waiting])
        order = np.lexsort((kept.priorities, kept.strata))
        order = order[~kept.repeated(order)]
        self._kept = kept.take(order[_ranks(kept.strata[order]) < self.size])
        self._waiting = []
        self._limit(self._kept)

    def attach(self, keys: KeyArray, labels: NDArray[np.float64]) -> None:
        """Give sampled rows the labels that have come for their keys, the last one where several.

        A label that comes before its row is not kept for it.
        """
        known = ~np.isnan(labels)
        within = known & (keys[:, 1] <= self._limits.max(initial=np.uint64(0)))
        keys, labels = keys[within], labels[within]
        if not len(keys):
            return
        for part in (self._kept, *self._waiting):
            low = np.isin(keys[:, 1], part.keys[:, 1]) if part.hashed else np.zeros(0, dtype=bool)
            if not low.any():
                continue
            last = dict(zip(map(tuple, keys[low].tolist()), labels[low].tolist(), strict=True))
            near = np.flatnonzero(np.isin(part.keys[:, 1], keys[low, 1]))
            for row, key in zip(near.tolist(), part.keys[near].tolist(), strict=True):
                part.labels[row] = last.get(tuple(key), part.labels[row])

    def forget(self, keys: KeyArray) -> None:
        """Drop the rows of these keys; no other rows take their place, so the sample stays fair."""
        self._sort_in()
        kept = self._kept
        near = np.flatnonzero(np.isin(kept.keys[:, 1], keys[:, 1]))
        gone = set(map(tuple, keys.tolist()))
        drop = [row for row in near.tolist() if tuple(kept.keys[row].tolist()) in gone]
        if drop:
            self._kept = kept.take(np.delete(np.arange(len(kept.strata)), drop))

    def forget_cells(self) -> None:
        """Ask anew for the strata of cells: their numbers have changed."""
        self._stratum_of_cell = self._stratum_of_cell[:0]
        self._limit_of_cell = self._limit_of_cell[:0]

    def roll(self, pane_of: Callable[[IntArray], IntArray]) -> None:
        """Move rows to the panes that theirs have become part of; NEVER forgets them."""
        names = list(self._names)
        panes = np.array([pane for pane, _ in names], dtype=np.int64)
        wider = pane_of(panes)
        if (wider == panes).all():
            return
        kept = _Part.joined([self._kept, *self._waiting])
        kept = kept.take(np.flatnonzero(wider[kept.strata] != NEVER))
        self._names, self._limits = {}, np.empty(0, dtype=np.uint64)
        moved = [(int(pane), version) for pane, (_, version) in zip(wider, names, strict=True)]
        used = np.unique(kept.strata)
        number = np.full(len(names), -1)
        number[used] = self._numbers([moved[place] for place in used.tolist()])
        kept.strata = number[kept.strata]
        self._kept, self._waiting = _Part.empty(self.columns), [kept]
        self._sort_in()
        self.forget_cells()

    # -- rows out ------------------------------------------------------------------------------

    def drawn(self) -> Drawn:
        """The rows kept, and what is known of them."""
        self._sort_in()
        kept = self._kept
        names = list(self._names)
        panes = np.array([pane for pane, _ in names], dtype=np.int64)
        versions = np.array([version for _, version in names], dtype=object)
        return Drawn(
            self.size,
            panes[kept.strata],
            versions[kept.strata],
            kept.priorities,
            kept.keys,
            kept.labels,
            kept.rows,
        )

    @property
    def n_bytes(self) -> int:
        """Memory that the rows take."""
        return sum(
            part.rows.nbytes + 40 * len(part.strata) for part in (self._kept, *self._waiting)
        )

    # -- state ---------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Header and arrays that hold the rows, the same whatever order they came in."""
        self._sort_in()
        names = list(self._names)
        used = np.unique(self._kept.strata)
        ordered = sorted(names[place] for place in used.tolist())
        place_of = {name: place for place, name in enumerate(ordered)}
        place = np.array([place_of.get(name, -1) for name in names], dtype=np.int64)
        strata = place[self._kept.strata]
        kept = self._kept.take(np.lexsort((self._kept.priorities, strata)))
        sink = pa.BufferOutputStream()
        table = kept.rows.combine_chunks()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        header = {
            "size": self.size,
            "strata": [list(name) for name in ordered],
            "met": self._n_met,
            "hashed": kept.hashed,
        }
        return header, {
            "strata": place[kept.strata],
            "priorities": kept.priorities,
            "keys": kept.keys,
            "labels": kept.labels,
            "rows": np.frombuffer(sink.getvalue(), dtype=np.uint8),
        }

    def add_state(self, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Merge such a state."""
        try:
            rows = pa.ipc.open_stream(arrays["rows"].tobytes()).read_all()
            rows.validate(full=True)
        except pa.ArrowException as error:
            raise DataError(f"the stored sample is damaged ({error})") from None
        strata, n = arrays["strata"], rows.num_rows
        shapes = [arrays[name].shape for name in ("strata", "priorities", "keys", "labels")]
        names = [(int(pane), str(version)) for pane, version in header["strata"]]
        if shapes != [(n,), (n,), (n, 2), (n,)] or not (
            ((strata >= 0) & (strata < len(names))).all()
        ):
            raise DataError("the stored sample is damaged (its rows and strata differ)")
        self._n_met += int(header["met"])
        part = _Part(
            self._numbers(names)[strata],
            arrays["priorities"].astype(np.uint64),
            arrays["keys"].astype(np.uint64),
            arrays["labels"].astype(np.float64),
            rows,
            hashed=bool(header["hashed"]),
        )
        self._waiting.append(part)
        self._sort_in()


@dataclass(frozen=True)
class Drawn:
    """Rows of a sample, by stratum and ascending priority, and what is known of them."""

    size: int
    panes: IntArray
    versions: NDArray[np.object_]
    priorities: NDArray[np.uint64]
    keys: KeyArray  # hashes of the ids, zeros where there are none
    labels: NDArray[np.float64]  # NaN where none has come
    rows: pa.Table

    def within(
        self, start: int | None, end: int | None, version: str | None, inside: NDArray[np.bool_]
    ) -> IntArray:
        """Rows of a window that are `inside` a segment: of its sample, the smallest priorities.

        No start and no version are all of them.
        """
        chosen = np.ones(len(self.panes), dtype=bool)
        if start is not None and end is not None:
            chosen &= (self.panes >= start) & (self.panes < end)
        if version is not None:
            chosen &= self.versions == version
        rows = np.flatnonzero(chosen)
        rows = rows[np.argsort(self.priorities[rows], kind="stable")][: self.size]
        return rows[inside[rows]]


def check_sample_rows(n: int) -> int:
    """Return a number of rows to sample, or reject it.

    >>> check_sample_rows(5000)
    5000
    """
    if not isinstance(n, int) or not 0 <= n <= MAX_SAMPLE_ROWS:
        raise SchemaError(f"sample_rows lies between 0 and {MAX_SAMPLE_ROWS:,}, got {n!r}")
    return n


def new_sample(n: int, schema: Schema) -> RowSample | None:
    """Empty sample for the rows of a schema; none where none are wanted."""
    return RowSample(n, sampled_columns(schema)) if check_sample_rows(n) else None


def restored_sample(
    schema: Schema, header: Mapping[str, Any] | None, arrays: Mapping[str, NDArray[Any]]
) -> RowSample | None:
    """Sample as it was stored, its arrays under names that begin with "sample."."""
    if header is None:
        return None
    sample = RowSample(check_sample_rows(header["size"]), sampled_columns(schema))
    own = {name.removeprefix("sample."): array for name, array in arrays.items()}
    sample.add_state(header, own)
    return sample


def same_size(first: RowSample | None, second: RowSample | None) -> bool:
    """Whether two samples can be merged."""
    return (first and first.size) == (second and second.size)


def sampled_columns(schema: Schema) -> tuple[str, ...]:
    """Columns kept of a row: all that the schema knows but its id and its label.

    >>> sampled_columns(Schema(features=["age"], prediction_id="id"))
    ('age',)
    """
    apart = (schema.prediction_id, schema.label)
    return tuple(name for name in schema.columns if name not in apart)


def encoded(rows: pa.Table, layout: Layout) -> tuple[FloatArray, IntArray]:
    """Features of rows as numbers, NaN where missing, and as codes of categories, -1 where missing.

    Vectors are their coordinates along the directions that their embedding has learnt. Times are
    left out: they always move.
    """
    batch = as_batch(rows)
    n = batch.n_rows
    derived = derive(layout.derivations, batch, 0, n, failed=lambda *_: None)
    numbers, codes = [np.empty((n, 0))], [np.empty((n, 0), dtype=np.int64)]
    for name in layout.schema.counted_features:
        counted = layout.columns[name]
        source = derived if name in layout.schema.makers else batch
        if counted.column.kind == "numeric":
            numbers.append(_numbers(source, counted)[:, None])
        elif counted.categories is not None:
            codes.append(_codes(source, counted)[:, None])
    for each in layout.derivations.values():
        if isinstance(each, Embedding):
            numbers.append(each.coordinates(batch))
    return np.concatenate(numbers, axis=1), np.concatenate(codes, axis=1)


def _numbers(batch: Batch, counted: CountedColumn) -> FloatArray:
    if batch.kind(counted.name) not in ("bool", "integer", "float"):
        return np.full(batch.n_rows, np.nan)
    values = read_numbers(batch, counted.name, 0, batch.n_rows)
    values[np.isin(values, counted.column.missing)] = np.nan
    return values


def _codes(batch: Batch, counted: CountedColumn) -> IntArray:
    """Codes of the reference's categories; one more for all others."""
    assert counted.categories is not None
    if batch.kind(counted.name) not in ("bool", "integer", "float", "text"):
        return np.full(batch.n_rows, -1)
    found = find_codes(batch, counted.name, counted.categories, 0, batch.n_rows)
    codes = np.where(found == UNSEEN, len(counted.categories), np.where(found < 0, -1, found))
    return codes.astype(np.int64)


class _Part:
    """Some rows with what is known of them."""

    def __init__(
        self,
        strata: IntArray,
        priorities: NDArray[np.uint64],
        keys: KeyArray,
        labels: NDArray[np.float64],
        rows: pa.Table,
        *,
        hashed: bool,
    ) -> None:
        self.strata = strata
        self.priorities = priorities
        self.keys = keys
        self.labels = labels
        self.rows = rows
        self.hashed = hashed  # whether the keys are of ids

    @classmethod
    def empty(cls, columns: Sequence[str]) -> _Part:
        nothing = pa.table({name: pa.nulls(0) for name in columns})
        no_numbers = np.empty(0, dtype=np.uint64)
        return cls(np.empty(0, np.int64), no_numbers, NO_KEYS, np.empty(0), nothing, hashed=False)

    @classmethod
    def joined(cls, parts: Sequence[_Part]) -> _Part:
        return cls(
            np.concatenate([part.strata for part in parts]),
            np.concatenate([part.priorities for part in parts]),
            np.concatenate([part.keys for part in parts]),
            np.concatenate([part.labels for part in parts]),
            united([part.rows for part in parts]),
            hashed=any(part.hashed for part in parts),
        )

    def take(self, order: IntArray) -> _Part:
        return _Part(
            self.strata[order],
            self.priorities[order],
            self.keys[order],
            self.labels[order],
            self.rows.take(order),
            hashed=self.hashed,
        )

    def repeated(self, order: IntArray) -> NDArray[np.bool_]:
        """Which rows, in an order by stratum and priority, have the key of the one before."""
        repeats = np.zeros(len(order), dtype=bool)
        if self.hashed and len(order):
            strata, keys = self.strata[order], self.keys[order]
            repeats[1:] = (strata[1:] == strata[:-1]) & (keys[1:] == keys[:-1]).all(axis=1)
        return repeats


def _ranks(groups: NDArray[Any]) -> IntArray:
    """Place of each entry within its run of equal groups."""
    place = np.arange(len(groups))
    begins = np.ones(len(groups), dtype=bool)
    begins[1:] = groups[1:] != groups[:-1]
    return place - np.maximum.accumulate(np.where(begins, place, 0))


def _owned(columns: Mapping[str, pa.ChunkedArray], rows: IntArray) -> pa.Table:
    """Rows that hold on to no buffer of their batch: dictionaries and views become plain values.

    Columns of types that cannot be counted are left out.
    """
    batch = as_batch(pa.table(columns)) if columns else None
    taken = {}
    for name, column in columns.items():
        if batch is None or batch.kind(name) not in _READABLE:
            continue
        plain = _VIEWS.get(column.type)
        if plain is not None:  # views cannot be taken
            parts = [chunk for row in rows.tolist() for chunk in column.slice(row, 1).chunks]
            taken[name] = pa.chunked_array(parts, column.type).cast(plain).combine_chunks()
        elif pa.types.is_dictionary(column.type):
            parts = [_decoded(chunk) for chunk in column.take(rows).chunks]
            taken[name] = pa.chunked_array(parts, column.type.value_type)
        else:
            taken[name] = column.take(rows)
    return pa.table(taken)


def _decoded(chunk: pa.DictionaryArray) -> pa.Array:
    """Values by their indices; one outside the dictionary, from a broken producer, is null."""
    indices = chunk.indices.to_numpy(zero_copy_only=False)
    known = ~np.isnan(indices) if indices.dtype.kind == "f" else np.ones(len(indices), dtype=bool)
    known &= (indices >= 0) & (indices < len(chunk.dictionary))
    safe = np.where(known, indices, 0).astype(np.int64)
    return chunk.dictionary.take(pa.array(safe, mask=~known))


def united(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables below each other; columns that one of them lacks are null there.

    A column of types that have nothing in common becomes text.

    >>> united([pa.table({"x": [1]}), pa.table({"x": ["a"]})])["x"].to_pylist()
    ['1', 'a']
    """
    names = dict.fromkeys(name for table in tables for name in table.column_names)
    columns = {}
    for name in names:
        parts = [
            table.select([name]) if name in table.column_names else _nulls(name, table.num_rows)
            for table in tables
        ]
        try:
            whole = pa.concat_tables(parts, promote_options="permissive")
        except (pa.ArrowTypeError, pa.ArrowInvalid):
            whole = pa.concat_tables([_as_text(part) for part in parts])
        columns[name] = whole.column(0)
    return pa.table(columns)


def _nulls(name: str, n: int) -> pa.Table:
    return pa.table({name: pa.nulls(n)})


def _as_text(table: pa.Table) -> pa.Table:
    texts = [None if value is None else str(value) for value in table.column(0).to_pylist()]
    return pa.table({table.column_names[0]: pa.array(texts, pa.string())})
