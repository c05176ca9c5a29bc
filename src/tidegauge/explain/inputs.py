"""What a model is handed: masked copies of rows, as the array or kind of table that it knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidegauge._core import DataError, keys_of_rows
from tidegauge.explain.coalitions import Coalitions, HostCoalitions
from tidegauge.explain.operators import Split

CHUNK_BYTES = 2 << 20  # of rows that are prepared at once
NULL = np.uint64(0x7FF8_0000_0000_0001)  # identity of a null and of every NaN


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows, ready to be masked."""

    bits: NDArray[np.uint64]  # [rows, columns] equal where, and only where, values are equal
    keys: NDArray[np.uint64]  # [rows] of the row's values, wherever it stands
    content: Any  # what the inputs made of the rows

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows and pairs that one call of the model answers, and the labels of the players."""

    rows: NDArray[np.int64]
    pairs: tuple[int, int]
    designs: NDArray[np.int32]  # [rows]
    labels: NDArray[np.int32]  # [rows, players]


class HostInputs:
    """What is the same for every kind of input that lies on the host."""

    alone = (
        1_000  # evaluations from which a row has calls of its own: no neighbour touches its bits
    )

    def view(self, answer: Any) -> NDArray[Any]:
        """Return the model's answer as an array."""
        return np.asarray(answer)

    def numbers(self, answer: NDArray[Any]) -> NDArray[Any]:
        """Return an answer as [n, outputs] of float64 or float32."""
        kept = answer.dtype if answer.dtype == np.float32 else np.dtype(np.float64)
        return np.ascontiguousarray(answer.reshape(len(answer), -1), dtype=kept)

    def fetch(self, answers: NDArray[Any], first: int = 0) -> NDArray[np.float64]:
        """Return answers from a row on as float64 of the host."""
        return answers[first:].astype(np.float64)

    def fetch_later(self, answers: NDArray[Any], first: int) -> Callable[[], NDArray[np.float64]]:
        """Return how to fetch them once they are wanted; here they are copied at once."""
        found = self.fetch(answers, first)
        return lambda: found


class ArrayInputs(HostInputs):
    """Rows and background as matrices; one buffer is filled again for each call."""

    def __init__(
        self,
        background: NDArray[Any],
        order: NDArray[np.int64],
        columns: Sequence[str],
        players: NDArray[np.int32],
    ) -> None:
        self.columns = tuple(columns)
        self.dtype = background.dtype
        self._word = np.dtype(np.uint32 if self.dtype.itemsize == 4 else np.uint64)
        self._background = np.ascontiguousarray(background[order])
        self._players = players
        self._buffer = np.empty((0, len(self.columns)), self.dtype)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row that the model is handed."""
        return self.dtype.itemsize * len(self.columns)

    def background(self) -> NDArray[Any]:
        """Return the background as the model wants it."""
        return self._background.copy()

    def background_chunk(self) -> Chunk:
        """Return the background as rows that can be masked."""
        return self._chunk(self._background)

    def coalitions(
        self, masks: NDArray[np.uint64], split: Split, order: NDArray[np.int64]
    ) -> Coalitions:
        """Return pairs that mask such inputs, with the background in this order."""
        return HostCoalitions.of(masks, split, self._background[order].view(self._word))

    def copy(self, given: Any) -> Any:
        """Keep what the model is handed."""
        return given.copy()

    def same(self, given: Any, before: Any) -> bool:
        """Whether the model has left its input alone."""
        return np.array_equal(given.view(self._word), before.view(self._word))

    def columns_of_rows(self, rows: Any, n: int) -> list[NDArray[Any]]:
        """Return the values of the first n rows, by column."""
        return list(_matrix(rows, self.columns, "rows")[:n].T)

    def chunks(self, rows: Any) -> list[Chunk]:
        """Check rows and prepare them, some at a time."""
        matrix = _matrix(rows, self.columns, "rows")
        step = max(1, min(4096, CHUNK_BYTES // max(8 * len(self.columns), 1)))
        return [self._chunk(matrix[start : start + step]) for start in range(0, len(matrix), step)]

    def _chunk(self, matrix: NDArray[Any]) -> Chunk:
        content = np.ascontiguousarray(matrix, dtype=self.dtype)
        bits = _number_bits(content)
        return Chunk(bits, keys_of_rows(bits), content)

    def background_bits(self) -> NDArray[np.uint64]:
        """Return the identities of the background's values."""
        return _number_bits(self._background)

    def labels_of_columns(self, labels: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the label of each column of each row, from those of the players."""
        return np.ascontiguousarray(labels[:, self._players])

    def masked(
        self, coalitions: Coalitions | None, chunk: Chunk, selection: Selection
    ) -> NDArray[Any]:
        """Return masked rows; the rows themselves follow where the selection starts at pair 0."""
        rows = chunk.content[selection.rows]
        n_masked = len(rows) * (coalitions.n_inputs(selection.pairs) if coalitions else 0)
        n_inputs = n_masked + (len(rows) if selection.pairs[0] == 0 else 0)
        if len(self._buffer) < n_inputs:
            self._buffer = np.empty((n_inputs, len(self.columns)), self.dtype)
        buffer = self._buffer[:n_inputs]
        if coalitions:
            coalitions.fill(
                selection.pairs,
                rows.view(self._word),
                buffer[:n_masked].view(self._word),
                designs=selection.designs,
                labels=self.labels_of_columns(selection.labels),
            )
        buffer[n_masked:] = rows[: n_inputs - n_masked]
        return buffer


class FrameInputs(HostInputs):
    """Rows and background as a table of any column types; each column is taken by row number.

    A masked row is a choice, for each player, between a row of the background and the row itself,
    so the library of the table copies its own columns and no type is ever changed.
    """

    def __init__(
        self,
        frame: Frame,
        background: Any,
        order: NDArray[np.int64],
        columns: Sequence[str],
        players: NDArray[np.int32],
    ) -> None:
        self.columns = tuple(columns)
        self._frame = frame
        self._background = frame.take_rows(frame.select(background, self.columns), order)
        self._players = players
        self._n_players = int(players.max(initial=-1)) + 1

    @property
    def row_bytes(self) -> int:
        """Bytes of a row that the model is handed, with the choices behind it."""
        return 8 * (len(self.columns) + 2 * self._n_players)

    def background(self) -> Any:
        """Return the background as the model wants it."""
        return self._background

    def background_chunk(self) -> Chunk:
        """Return the background as rows that can be masked."""
        return self._chunk(self._background)

    def coalitions(
        self, masks: NDArray[np.uint64], split: Split, order: NDArray[np.int64]
    ) -> Coalitions:
        """Return pairs that mask row numbers, with the background in this order."""
        others = np.repeat(order[:, None], self._n_players, axis=1)
        return HostCoalitions.of(masks, split, others.view(np.uint64))

    def copy(self, given: Any) -> Any:
        """Keep what the model is handed; only pandas can be changed."""
        return given.copy() if self._frame.kind == "pandas" else given

    def same(self, given: Any, before: Any) -> bool:
        """Whether the model has left its input alone."""
        return bool(given.equals(before))

    def columns_of_rows(self, rows: Any, n: int) -> list[NDArray[Any]]:
        """Return the values of the first n rows, by column."""
        frame = frame_of(rows)
        if frame is None:
            return list(_matrix(rows, self.columns, "rows")[:n].T)
        table = frame.to_arrow(frame.slice(frame.select(rows, self.columns), 0, n))
        return [_objects(column) for column in table.columns]

    def background_bits(self) -> NDArray[np.uint64]:
        """Return the identities of the background's values."""
        return _table_bits(self._frame.to_arrow(self._background))

    def chunks(self, rows: Any) -> list[Chunk]:
        """Check rows and prepare them, some at a time."""
        frame = frame_of(rows)
        if frame is None:
            columns = dict(zip(self.columns, _matrix(rows, self.columns, "rows").T, strict=True))
            table: Any = pa.table(columns)
        else:
            table = frame.select(rows, self.columns)
            table = table if frame.kind == self._frame.kind else frame.to_arrow(table)
        own = self._frame.like(table, self._background)
        n, step = len(own), 4096
        return [
            self._chunk(self._frame.slice(own, at, min(at + step, n))) for at in range(0, n, step)
        ]

    def _chunk(self, table: Any) -> Chunk:
        bits = _table_bits(self._frame.to_arrow(table))
        return Chunk(bits, keys_of_rows(bits), self._frame.pool(self._background, table))

    def masked(self, coalitions: Coalitions | None, chunk: Chunk, selection: Selection) -> Any:
        """Return masked rows; the rows themselves follow where the selection starts at pair 0."""
        n_background, n_rows = len(self._background), len(selection.rows)
        own = np.repeat(selection.rows[:, None] + n_background, self._n_players, axis=1)
        n_masked = n_rows * (coalitions.n_inputs(selection.pairs) if coalitions else 0)
        n_plain = n_rows if selection.pairs[0] == 0 else 0
        chosen = np.empty((n_masked + n_plain, self._n_players), np.int64)
        if coalitions:
            coalitions.fill(
                selection.pairs,
                own.view(np.uint64),
                chosen[:n_masked].view(np.uint64),
                designs=selection.designs,
                labels=selection.labels,
            )
        chosen[n_masked:] = own[:n_plain]
        by_player = np.ascontiguousarray(chosen.T)
        return self._frame.take(chunk.content, [by_player[player] for player in self._players])


# --- tables ---------------------------------------------------------------------------------------


class Frame(Protocol):
    """The few things that are asked of a library of tables."""

    kind: str

    def select(self, table: Any, columns: tuple[str, ...]) -> Any:
        """Return these columns, in order, with rows numbered from 0."""

    def slice(self, table: Any, start: int, stop: int) -> Any:
        """Return rows [start, stop)."""

    def take_rows(self, table: Any, rows: NDArray[np.int64]) -> Any:
        """Return rows by number."""

    def to_arrow(self, table: Any) -> pa.Table:
        """Return the table as an Arrow table."""

    def like(self, table: Any, model: Any) -> Any:
        """Return the table with the column types of another."""

    def pool(self, background: Any, rows: Any) -> Any:
        """Return background and rows below each other."""

    def take(self, pool: Any, rows: list[NDArray[np.int64]]) -> Any:
        """Return a table of the pool's rows, numbered for each column apart."""


class PandasFrame:
    """pandas.DataFrame; extension types and categories are kept."""

    kind = "pandas"

    def select(self, table: Any, columns: tuple[str, ...]) -> Any:
        """Return these columns, in order, with rows numbered from 0."""
        _demand_columns([str(name) for name in table.columns], columns)
        table = table.set_axis([str(name) for name in table.columns], axis=1)
        return table[list(columns)].reset_index(drop=True)

    def slice(self, table: Any, start: int, stop: int) -> Any:
        """Return rows [start, stop)."""
        return table.iloc[start:stop].reset_index(drop=True)

    def take_rows(self, table: Any, rows: NDArray[np.int64]) -> Any:
        """Return rows by number."""
        return table.take(rows).reset_index(drop=True)

    def to_arrow(self, table: Any) -> pa.Table:
        """Return the table as an Arrow table."""
        columns = {name: pa.Array.from_pandas(table[name]) for name in table.columns}
        return pa.table(columns)

    def like(self, table: Any, model: Any) -> Any:
        """Return the table with the column types of another."""
        if isinstance(table, pa.Table):
            table = table.to_pandas()
        columns = {}
        for name, wanted in model.dtypes.items():
            column = table[name]
            if column.dtype != wanted:
                known = getattr(wanted, "categories", None)
                if known is not None:
                    lost = column[column.notna() & ~column.isin(known)]
                    if len(lost):
                        raise DataError(
                            f"column {name!r}: {lost.iloc[0]!r} is no category of the background; "
                            "give the background a type that holds it"
                        )
                try:
                    column = column.astype(wanted)
                except (TypeError, ValueError) as error:
                    raise DataError(f"column {name!r}: cannot become {wanted} ({error})") from None
            columns[name] = column
        return type(model)(columns, copy=False)

    def pool(self, background: Any, rows: Any) -> Any:
        """Return background and rows below each other."""
        from pandas import concat

        return {name: concat([background[name], rows[name]]).array for name in background.columns}

    def take(self, pool: Any, rows: list[NDArray[np.int64]]) -> Any:
        """Return a table of the pool's rows, numbered for each column apart."""
        from pandas import DataFrame

        taken = zip(pool.items(), rows, strict=True)
        return DataFrame(
            {name: column.take(chosen) for (name, column), chosen in taken}, copy=False
        )


class PolarsFrame:
    """polars.DataFrame."""

    kind = "polars"

    def select(self, table: Any, columns: tuple[str, ...]) -> Any:
        """Return these columns, in order, with rows numbered from 0."""
        _demand_columns(table.columns, columns)
        return table.select(columns)

    def slice(self, table: Any, start: int, stop: int) -> Any:
        """Return rows [start, stop)."""
        return table[start:stop]

    def take_rows(self, table: Any, rows: NDArray[np.int64]) -> Any:
        """Return rows by number."""
        return table[rows]

    def to_arrow(self, table: Any) -> pa.Table:
        """Return the table as an Arrow table."""
        return table.to_arrow()

    def like(self, table: Any, model: Any) -> Any:
        """Return the table with the column types of another."""
        import polars as pl

        if isinstance(table, pa.Table):
            table = pl.from_arrow(table)
        try:
            return table.cast(dict(model.schema), strict=True)
        except pl.exceptions.PolarsError as error:
            raise DataError(f"rows cannot become what the background is: {error}") from None

    def pool(self, background: Any, rows: Any) -> Any:
        """Return background and rows below each other."""
        import polars as pl

        return pl.concat([background, rows], rechunk=True)

    def take(self, pool: Any, rows: list[NDArray[np.int64]]) -> Any:
        """Return a table of the pool's rows, numbered for each column apart."""
        import polars as pl

        taken = zip(pool.iter_columns(), rows, strict=True)
        return pl.DataFrame([column.gather(chosen) for column, chosen in taken])


class ArrowFrame:
    """pyarrow.Table and everything that speaks its protocol."""

    kind = "arrow"

    def select(self, table: Any, columns: tuple[str, ...]) -> Any:
        """Return these columns, in order, with rows numbered from 0."""
        table = pa.table(table)
        _demand_columns(table.column_names, columns)
        return table.select(list(columns)).combine_chunks()

    def slice(self, table: Any, start: int, stop: int) -> Any:
        """Return rows [start, stop)."""
        return table.slice(start, stop - start)

    def take_rows(self, table: Any, rows: NDArray[np.int64]) -> Any:
        """Return rows by number."""
        return table.take(pa.array(rows))

    def to_arrow(self, table: Any) -> pa.Table:
        """Return the table as an Arrow table."""
        return table

    def like(self, table: Any, model: Any) -> Any:
        """Return the table with the column types of another."""
        columns = {}
        for field in model.schema:
            try:
                columns[field.name] = table.column(field.name).cast(field.type)
            except (pa.ArrowException, ValueError) as error:
                raise DataError(
                    f"column {field.name!r}: cannot become {field.type} ({error})"
                ) from None
        return pa.table(columns)

    def pool(self, background: Any, rows: Any) -> Any:
        """Return background and rows below each other."""
        return pa.concat_tables([background, rows]).unify_dictionaries().combine_chunks()

    def take(self, pool: Any, rows: list[NDArray[np.int64]]) -> Any:
        """Return a table of the pool's rows, numbered for each column apart."""
        taken = zip(pool.column_names, pool.columns, rows, strict=True)
        return pa.table({name: column.take(pa.array(chosen)) for name, column, chosen in taken})


def frame_of(table: Any) -> Frame | None:
    """Return how a table is handled, None for arrays.

    >>> frame_of(pa.table({"x": [1]})).kind
    'arrow'
    """
    library = type(table).__module__.partition(".")[0]
    if library == "pandas" and hasattr(table, "columns"):
        return PandasFrame()
    if library == "polars" and hasattr(table, "columns"):
        return PolarsFrame()
    if hasattr(table, "__arrow_c_stream__") or isinstance(table, pa.RecordBatch):
        return ArrowFrame()
    return None


def columns_of(table: Any, features: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the columns that the model is handed: those asked for, or all.

    >>> columns_of(np.zeros((2, 3)), None)
    ('0', '1', '2')
    """
    names: Sequence[Any]
    if frame_of(table) is None:
        width = np.shape(table)[1] if np.ndim(table) == 2 else 0
        names = features if features is not None else [str(place) for place in range(width)]
        if len(names) != width:
            raise DataError(f"background has {width} columns, features name {len(names)}")
    else:
        held = getattr(table, "column_names", None) or table.columns
        names = features if features is not None else list(held)
    found = tuple(map(str, names))
    if len(set(found)) < len(found):
        raise DataError(
            f"column names occur twice: {sorted({n for n in found if found.count(n) > 1})}"
        )
    return found


def matrix_of(table: Any, columns: tuple[str, ...], dtype: np.dtype[Any] | None) -> NDArray[Any]:
    """Return a background as a matrix of float64 or float32."""
    matrix = _matrix(table, columns, "background")
    kept = matrix.dtype if matrix.dtype == np.float32 else np.dtype(np.float64)
    return np.ascontiguousarray(matrix, dtype=dtype or kept)


def _matrix(rows: Any, columns: tuple[str, ...], what: str) -> NDArray[Any]:
    frame = frame_of(rows)
    if frame is not None or isinstance(rows, Mapping):
        table = frame.to_arrow(frame.select(rows, columns)) if frame else pa.table(rows)
        _demand_columns(table.column_names, columns)
        try:
            arrays = [table.column(name).to_numpy().astype(np.float64) for name in columns]
        except (TypeError, ValueError) as error:
            raise DataError(f"{what}: not every column holds numbers ({error})") from None
        return np.column_stack(arrays) if arrays else np.empty((table.num_rows, 0))
    matrix = np.asarray(rows)
    if matrix.dtype.kind not in "biuf":
        raise DataError(
            f"{what}: an array of numbers is wanted, got {matrix.dtype}; "
            "give mixed columns as a DataFrame or an Arrow table"
        )
    if matrix.ndim == 1 and matrix.size == 0:
        return np.empty((0, len(columns)))
    if matrix.ndim != 2 or matrix.shape[1] != len(columns):
        raise DataError(
            f"{what}: shape {matrix.shape}, wanted (rows, {len(columns)}) for the columns "
            f"{_shortened(columns)}"
        )
    return matrix


def _demand_columns(held: Sequence[str], columns: tuple[str, ...]) -> None:
    missing = [name for name in columns if name not in set(held)]
    if missing:
        raise DataError(f"columns {_shortened(missing)} are missing; there are {_shortened(held)}")


def _shortened(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:12]))
    return shown if len(names) <= 12 else f"{shown} and {len(names) - 12} more"


def _number_bits(matrix: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the bits of doubles: both zeros are one, and every NaN is one."""
    numbers = matrix.astype(np.float64) + 0.0
    bits = numbers.view(np.uint64)
    bits[np.isnan(numbers)] = NULL
    return bits


def _table_bits(table: pa.Table) -> NDArray[np.uint64]:
    bits = np.empty((table.num_rows, table.num_columns), np.uint64)
    for place, column in enumerate(table.columns):
        bits[:, place] = _column_bits(column)
    return bits


def _column_bits(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _number_bits(column.cast(pa.float64(), safe=False).to_numpy())
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    if pa.types.is_nested(column.type):
        texts = {text: _hash(text) for text in map(repr, column.to_pylist())}
        return np.array([texts[repr(value)] for value in column.to_pylist()], np.uint64)
    coded = column.combine_chunks().dictionary_encode()
    coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
    hashes = np.array([_hash(str(value)) for value in coded.dictionary.to_pylist()], np.uint64)
    codes = coded.indices.fill_null(len(hashes)).to_numpy(zero_copy_only=False)
    bits: NDArray[np.uint64] = np.append(hashes, NULL)[codes]
    return bits


def _objects(column: pa.ChunkedArray) -> NDArray[Any]:
    values = np.empty(len(column), object)
    values[:] = column.to_pylist()
    return values


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
