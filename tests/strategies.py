"""Hostile Arrow: the same values in every type and layout that the format allows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

INTEGERS = (
    pa.int8(),
    pa.int16(),
    pa.int32(),
    pa.int64(),
    pa.uint8(),
    pa.uint16(),
    pa.uint32(),
    pa.uint64(),
)
FLOATS = (pa.float16(), pa.float32(), pa.float64())
NUMBERS = (*INTEGERS, *FLOATS, pa.bool_())
TEXTS = (pa.utf8(), pa.large_utf8(), pa.string_view())
ZONES = (None, "UTC", "America/New_York", "+05:30")
TIMES = tuple(pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in ZONES)
DICTIONARIES = tuple(
    pa.dictionary(index, value)
    for index in INTEGERS
    for value in (pa.utf8(), pa.large_utf8(), pa.int64())
)
CATEGORIES = (*TEXTS, *DICTIONARIES, *INTEGERS, pa.bool_())

TICKS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}  # a second
YEAR_1900, YEAR_2200 = -2_208_988_800, 7_258_118_400  # seconds; all units can hold them
GARBAGE = 0xA5  # what lies under nulls, before offsets and after ends


def elements(type_: pa.DataType) -> st.SearchStrategy[Any]:
    """Values that are not null: plain ones and the ones that break things."""
    if pa.types.is_boolean(type_):
        return st.booleans()
    if pa.types.is_integer(type_):
        limits = np.iinfo(type_.to_pandas_dtype())
        edge = [limits.min, limits.max, 0, 1, max(-1, limits.min), 100]
        return st.sampled_from(edge) | st.integers(int(limits.min), int(limits.max))
    if pa.types.is_floating(type_):
        edge = [math.nan, math.inf, -math.inf, -0.0, 0.0, 1.5, -2.0]
        return st.sampled_from(edge) | st.floats(width=type_.bit_width)
    if pa.types.is_timestamp(type_):
        ticks = TICKS[type_.unit]
        return st.integers(YEAR_1900 * ticks, YEAR_2200 * ticks) | st.sampled_from([0, -1, 1])
    edge = ["", "a", "b", "3", "null", "(other)", "exactly 12 b", "longer than twelve bytes", "æ—🜁"]
    return st.sampled_from(edge) | st.text(max_size=16)


def fixed_width_array(type_: pa.DataType, values: list[Any], front: int, back: int) -> pa.Array:
    """The values with garbage around them and under their nulls, then sliced back to size."""
    dtype = np.dtype(np.int64 if pa.types.is_timestamp(type_) else type_.to_pandas_dtype())
    n = front + len(values) + back
    valid = np.zeros(n, bool)
    if pa.types.is_boolean(type_):
        bits = np.ones(n, bool)
    else:
        bits = np.frombuffer(bytes([GARBAGE]) * (n * dtype.itemsize), dtype).copy()
    for row, value in enumerate(values, start=front):
        valid[row] = value is not None
        if value is not None:
            bits[row] = value
    data = np.packbits(bits, bitorder="little") if pa.types.is_boolean(type_) else bits
    validity = None
    if None in values or front or back:
        validity = pa.py_buffer(np.packbits(valid, bitorder="little").tobytes())
    array = pa.Array.from_buffers(type_, n, [validity, pa.py_buffer(data.tobytes())])
    return array.slice(front, len(values))


def text_array(type_: pa.DataType, values: list[Any], front: int, back: int) -> pa.Array:
    """The values between other texts, sliced back to size."""
    padded = ["before"] * front + values + ["after, and out of line"] * back
    return pa.array(padded, type_).slice(front, len(values))


@st.composite
def dictionary_array(draw: st.DrawFn, type_: pa.DictionaryType, values: list[Any]) -> pa.Array:
    """The values through a dictionary with nulls, duplicates, unused entries and another order."""
    distinct = list(dict.fromkeys(values))
    entries = draw(st.permutations(distinct + distinct[: draw(st.integers(0, 3))]))
    spellings = {
        value: [i for i, entry in enumerate(entries) if entry == value] for value in distinct
    }
    indices = [
        None if value is None and draw(st.booleans()) else draw(st.sampled_from(spellings[value]))
        for value in values
    ]
    front, back = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    entries = entries or [None]
    return pa.DictionaryArray.from_arrays(
        fixed_width_array(type_.index_type, indices, front, back),
        array_of(type_.value_type, entries, draw(st.integers(0, 9)), 1),
    )


def array_of(type_: pa.DataType, values: list[Any], front: int, back: int) -> pa.Array:
    """A plain (not dictionary-encoded) array of these values at this offset."""
    is_text = pa.types.is_string(type_) or pa.types.is_large_string(type_)
    if is_text or pa.types.is_string_view(type_):
        return text_array(type_, values, front, back)
    return fixed_width_array(type_, values, front, back)


@st.composite
def arrays(draw: st.DrawFn, type_: pa.DataType, size: int, *, nulls: bool = True) -> pa.Array:
    """One array of a type: few distinct values, any nulls, any offset."""
    value_type = type_.value_type if pa.types.is_dictionary(type_) else type_
    pool = draw(st.lists(elements(value_type), min_size=1, max_size=8))
    if nulls:
        pool += [None] * draw(st.sampled_from([0, 1, 20]))
    values = draw(st.lists(st.sampled_from(pool), min_size=size, max_size=size))
    if nulls and draw(st.integers(0, 9)) == 0:
        values = [None] * size
    if pa.types.is_dictionary(type_):
        return draw(dictionary_array(type_, values))
    return array_of(type_, values, draw(st.integers(0, 9)), draw(st.integers(0, 9)))


@st.composite
def vector_arrays(draw: st.DrawFn, rows: list[list[float | None] | None], width: int) -> pa.Array:
    """Lists of floats: fixed in size where all rows have `width` members, else with offsets.

    Garbage lies before and after the lists, in the members of null rows and under null members.
    """
    type_ = draw(st.sampled_from(FLOATS))
    front, back = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    hidden = draw(st.integers(0, 5))  # members before the first list
    fixed = all(row is None or len(row) == width for row in rows) and draw(st.booleans())
    sizes = [width if row is None else len(row) for row in rows]
    sizes = [width] * front + sizes + [width] * back
    members: list[float | None] = [7.0] * (width * front)
    for row in rows:
        members += [math.nan] * width if row is None else row
    members += [math.inf] * (width * back)
    valid = np.array([*[True] * front, *[row is not None for row in rows], *[True] * back])
    whole = bool(valid.all())
    validity = None if whole else pa.py_buffer(np.packbits(valid, bitorder="little").tobytes())
    values = fixed_width_array(type_, members, hidden, back)
    if fixed:
        list_type: pa.DataType = pa.list_(type_, width)
        buffers = [validity]
    else:
        large = draw(st.booleans())
        list_type = pa.large_list(type_) if large else pa.list_(type_)
        offsets = np.cumsum([0, *sizes]).astype(np.int64 if large else np.int32)
        buffers = [validity, pa.py_buffer(offsets.tobytes())]
    array = pa.Array.from_buffers(list_type, len(sizes), buffers, children=[values])
    return array.slice(front, len(rows))


@st.composite
def chunked(draw: st.DrawFn, table: pa.Table) -> pa.Table:
    """The same rows in other chunks, empty ones too, at the front, inside and at the end."""
    cuts = sorted(draw(st.lists(st.integers(0, table.num_rows), max_size=5)))
    bounds = [0, *cuts, table.num_rows]
    pieces = [table.slice(a, b - a) for a, b in pairwise(bounds)]
    batches = [batch for piece in pieces for batch in [*piece.to_batches(), *empty_batch(piece)]]
    return pa.Table.from_batches(batches, table.schema)


def empty_batch(table: pa.Table) -> list[pa.RecordBatch]:
    """A batch without rows, when the table has none; Arrow would drop the piece otherwise."""
    if table.num_rows:
        return []
    columns = [pa.array([], field.type) for field in table.schema]
    return [pa.RecordBatch.from_arrays(columns, schema=table.schema)]


@st.composite
def tables(
    draw: st.DrawFn,
    types: Mapping[str, Iterable[pa.DataType]],
    *,
    min_rows: int = 0,
    max_rows: int = 40,
) -> pa.Table:
    """A chunked table; each column has one of its types, in hostile layouts that vary by piece."""
    chosen = {name: draw(st.sampled_from(list(allowed))) for name, allowed in types.items()}
    cut, stop = sorted(draw(st.tuples(*[st.integers(min_rows, max_rows)] * 2)))
    pieces = [
        pa.table({name: draw(arrays(type_, size)) for name, type_ in chosen.items()})
        for size in (cut, stop - cut)
    ]
    return draw(chunked(pa.concat_tables(pieces)))


class StreamOnly:
    """A producer of which nothing is known but `__arrow_c_stream__`."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


class ArrayOnly:
    """A producer of which nothing is known but `__arrow_c_array__`; its struct has an offset."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        struct = batch.to_struct_array()
        self._struct = pa.concat_arrays([struct[:1], struct]).slice(min(1, len(struct)))

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        return self._struct.__arrow_c_array__(requested_schema)


def failing_reader(table: pa.Table) -> pa.RecordBatchReader:
    """A stream that gives the table's batches and then fails."""

    def batches() -> Iterable[pa.RecordBatch]:
        yield from table.to_batches()
        raise OSError("the disk went away")

    return pa.RecordBatchReader.from_batches(table.schema, batches())
