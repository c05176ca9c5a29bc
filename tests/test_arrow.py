"""Arrow in every type and layout is read as plain Python reads it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    CATEGORIES,
    DICTIONARIES,
    INTEGERS,
    NUMBERS,
    TEXTS,
    TICKS,
    TIMES,
    ArrayOnly,
    StreamOnly,
    failing_reader,
    tables,
)

from tidegauge import _core

NUMBER_DICTIONARIES = [type_ for type_ in DICTIONARIES if type_.value_type == pa.int64()]
SECRET = (0x0706050403020100, 0x0F0E0D0C0B0A0908)


def read_stream(table: Any) -> _core.Batch:
    """The batch of a stream."""
    return _core.Batch.from_stream(StreamOnly(table).__arrow_c_stream__())


def read_both_ways(table: pa.Table) -> list[list[_core.Batch]]:
    """The table as one stream, and as its single arrays, each with an offset."""
    arrays = [ArrayOnly(batch).__arrow_c_array__() for batch in table.to_batches()]
    return [[read_stream(table)], [_core.Batch.from_array(*pair) for pair in arrays]]


def as_text(value: Any) -> str | None:
    """The category of a value."""
    return str(value).lower() if isinstance(value, bool) else value if value is None else str(value)


# --- readers -----------------------------------------------------------------------------------


@given(tables({"x": [*NUMBERS, *NUMBER_DICTIONARIES]}))
def test_numbers_are_read_as_python_reads_them(table: pa.Table) -> None:
    expected = [math.nan if value is None else float(value) for value in table["x"].to_pylist()]
    for batches in read_both_ways(table):
        read = [_core.read_numbers(batch, "x", 0, batch.n_rows) for batch in batches]
        np.testing.assert_array_equal(np.concatenate([*read, []]), expected)


@given(tables({"x": TIMES}, min_rows=1))
def test_times_are_read_as_utc_microseconds_rounded_down(table: pa.Table) -> None:
    ticks = table["x"].drop_null().cast(pa.int64()).to_pylist()
    expected = [value * TICKS["us"] // TICKS[table["x"].type.unit] for value in ticks]
    for batches in read_both_ways(table.filter(pa.compute.is_valid(table["x"]))):
        read = [_core.read_times(batch, "x", 0, batch.n_rows) for batch in batches]
        assert np.concatenate([*read, np.array([], np.int64)]).tolist() == expected


@pytest.mark.parametrize("type_", [pa.date32(), pa.date64()], ids=str)
def test_dates_are_midnights(type_: pa.DataType) -> None:
    batch = read_stream(pa.table({"x": pa.array([date(1969, 12, 31), date(2013, 1, 1)], type_)}))
    midnights = [datetime(1969, 12, 31, tzinfo=UTC), datetime(2013, 1, 1, tzinfo=UTC)]
    expected = [int(midnight.timestamp()) * TICKS["us"] for midnight in midnights]
    assert _core.read_times(batch, "x", 0, 2).tolist() == expected


@pytest.mark.parametrize("type_", [pa.binary(), pa.large_binary(), pa.binary(2)], ids=str)
def test_bytes_are_keys_like_the_text_they_spell(type_: pa.DataType) -> None:
    batch = read_stream(pa.table({"x": pa.array([b"ab", b"cd"], type_), "text": ["ab", "cd"]}))
    keys = [_core.read_keys(batch, name, 0, 2, SECRET) for name in ("x", "text")]
    assert np.array_equal(*keys)


@given(tables({"x": CATEGORIES}))
def test_categories_are_read_as_python_prints_them(table: pa.Table) -> None:
    for batches in read_both_ways(table):
        vocabulary = _core.Vocabulary([], limit=1000)
        codes = [_core.intern_codes(batch, "x", vocabulary, 0, batch.n_rows) for batch in batches]
        texts = [*vocabulary.texts, None]  # code -1 is null
        read = [texts[code] for batch in codes for code in batch]
        assert read == [as_text(value) for value in table["x"].to_pylist()]


@given(tables({"x": [*TEXTS, *INTEGERS, *DICTIONARIES]}))
def test_keys_are_equal_where_ids_are_and_only_there(table: pa.Table) -> None:
    table = table.filter(
        pa.array([value is not None for value in table["x"].to_pylist()], pa.bool_())
    )
    for batches in read_both_ways(table):
        read = [_core.read_keys(batch, "x", 0, batch.n_rows, SECRET) for batch in batches]
        keys = [tuple(key) for batch in read for key in batch.tolist()]
        pairs = set(zip(keys, table["x"].to_pylist(), strict=True))
        assert len(pairs) == len(set(keys)) == len(set(table["x"].to_pylist()))


@given(tables({"x": NUMBERS}, min_rows=1), st.data())
def test_any_range_of_rows_is_read_alone(table: pa.Table, data: st.DataObject) -> None:
    batch = read_stream(table)
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, table.num_rows)] * 2)))
    whole = _core.read_numbers(batch, "x", 0, table.num_rows)
    np.testing.assert_array_equal(_core.read_numbers(batch, "x", start, stop), whole[start:stop])


def sip_hash(text: bytes, secret: tuple[int, int], rounds: tuple[int, int]) -> tuple[int, int]:
    """SipHash with 128 bits of output, as its paper and its authors' code define it."""
    mask = 2**64 - 1
    constants = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
    v = [constant ^ secret[i % 2] for i, constant in enumerate(constants)]
    v[1] ^= 0xEE

    def add(i: int, j: int, turn: int) -> None:
        v[i] = (v[i] + v[j]) & mask
        v[j] = ((v[j] << turn | v[j] >> (64 - turn)) & mask) ^ v[i]

    def mix(n_rounds: int) -> int:
        for _ in range(n_rounds):
            add(0, 1, 13)
            v[0] = v[0] << 32 & mask | v[0] >> 32
            add(2, 3, 16)
            add(0, 3, 21)
            add(2, 1, 17)
            v[2] = v[2] << 32 & mask | v[2] >> 32
        return v[0] ^ v[1] ^ v[2] ^ v[3]

    padded = text + bytes(7 - len(text) % 8) + bytes([len(text) & 255])
    for start in range(0, len(padded), 8):
        word = int.from_bytes(padded[start : start + 8], "little")
        v[3] ^= word
        mix(rounds[0])
        v[0] ^= word
    v[2] ^= 0xEE
    first = mix(rounds[1])
    v[1] ^= 0xDD
    return first, mix(rounds[1])


def test_text_ids_are_hashed_as_published() -> None:
    """State files hold these keys, so the hash is fixed for good."""
    published = bytes.fromhex("a3817f04ba25a8e66df67214c7550293")  # 2-4, nothing hashed
    assert b"".join(x.to_bytes(8, "little") for x in sip_hash(b"", SECRET, (2, 4))) == published

    texts = ["", "a", "exactly8", "exactly 16 bytes", "a UUID has 36 characters, and dashes", "æ"]
    keys = _core.read_keys(read_stream(pa.table({"id": texts})), "id", 0, len(texts), SECRET)
    for text, (high, low) in zip(texts, keys.tolist(), strict=True):
        first, second = sip_hash(text.encode(), SECRET, (1, 3))
        assert (high, low) == (second | 1 << 63, first)


# --- what is not a table, or a broken one --------------------------------------------------------


REFUSED: dict[str, tuple[Any, str]] = {
    "an array": (pa.chunked_array([[1, 2]]), "a table is wanted, got .* int64"),
    "a name twice": (pa.table([[1], [2]], names=["x", "x"]), "column 'x' appears twice"),
    "a failing stream": (failing_reader(pa.table({"x": [1]})), "the disk went away"),
}


@pytest.mark.parametrize(("source", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_table_is_refused(source: Any, message: str) -> None:
    with pytest.raises(_core.DataError, match=message):
        read_stream(source)


def test_null_rows_are_refused() -> None:
    rows = pa.StructArray.from_arrays([pa.array([1, 2])], ["x"], mask=pa.array([False, True]))
    with pytest.raises(_core.DataError, match="row 1 is null as a whole"):
        _core.Batch.from_array(*rows.__arrow_c_array__())


WRONG: dict[str, tuple[Any, str, str]] = {
    "text as number": (_core.read_numbers, "utf8", ["a"]),
    "list as number": (_core.read_numbers, "list", [[1.0]]),
    "integer as time": (_core.read_times, "int64", [1]),
    "text as time": (_core.read_times, "utf8", ["2013-01-01"]),
    "time beyond 64 bits": (_core.read_times, "64-bit", pa.array([2**62], pa.timestamp("s"))),
    "no time": (_core.read_times, "row 1 has no timestamp", pa.array([0, None], pa.timestamp("s"))),
}


@pytest.mark.parametrize(("read", "message", "values"), WRONG.values(), ids=WRONG)
def test_a_wrong_type_is_named(read: Any, message: str, values: Sequence[Any]) -> None:
    batch = read_stream(pa.table({"x": values}))
    with pytest.raises(_core.DataError, match=f"column 'x'.*{message}"):
        read(batch, "x", 0, batch.n_rows)


@pytest.mark.parametrize("values", [[1.5], [[1]], [1, None]], ids=str)
def test_ids_are_integers_or_text_and_never_missing(values: list[Any]) -> None:
    batch = read_stream(pa.table({"x": values}))
    with pytest.raises(_core.DataError, match=r"column 'x'.* id"):
        _core.read_keys(batch, "x", 0, batch.n_rows, SECRET)


def test_a_used_or_foreign_capsule_is_refused() -> None:
    table = pa.table({"x": [1, 2]})
    stream = table.__arrow_c_stream__()
    _core.Batch.from_stream(stream)
    with pytest.raises(ValueError, match="already"):
        _core.Batch.from_stream(stream)
    pair = table.to_batches()[0].__arrow_c_array__()
    _core.Batch.from_array(*pair)
    with pytest.raises(ValueError, match="already"):
        _core.Batch.from_array(*pair)
    with pytest.raises(ValueError, match="arrow_array_stream"):
        _core.Batch.from_stream(table.schema.__arrow_c_schema__())
