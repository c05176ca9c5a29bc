"""Arrow in every type and layout is read as plain Python reads it."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

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
    chunked,
    failing_reader,
    tables,
)

import tidegauge as tg
from tidegauge import Distribution, _core

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
        texts = dict(enumerate(vocabulary.texts))
        read = [texts.get(code) for batch in codes for code in batch.tolist()]
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


def sip_hash(
    text: bytes, secret: tuple[int, int], rounds: tuple[int, int], length: int | None = None
) -> tuple[int, int]:
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

    n = len(text) if length is None else length
    padded = text + bytes(7 - len(text) % 8) + bytes([n & 255])
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
        assert (high, low) == (second, first)


def keys_of(ids: list[str] | list[bytes]) -> list[tuple[int, int]]:
    batch = read_stream(pa.table({"id": pa.array(ids)}))
    return [tuple(key) for key in _core.read_keys(batch, "id", 0, len(ids), SECRET).tolist()]


@given(st.uuids(), st.booleans())
def test_a_uuid_is_its_sixteen_bytes(uuid: UUID, upper: bool) -> None:
    text = str(uuid).upper() if upper else str(uuid)
    first, second = sip_hash(uuid.bytes, SECRET, (1, 3), length=36)
    assert keys_of([text]) == keys_of([text.encode()]) == [(second, first)]
    # Neither the bytes themselves nor anything else that reads alike is taken for it.
    others = [uuid.bytes, uuid.hex.encode(), f"{{{uuid}}}".encode(), uuid.urn.encode()]
    assert len({*keys_of(others), (second, first)}) == 5


@given(st.uuids(), st.integers(0, 35), st.characters(codec="ascii"))
def test_what_is_nearly_a_uuid_is_hashed_as_text(uuid: UUID, place: int, mark: str) -> None:
    text = str(uuid)[:place] + mark + str(uuid)[place + 1 :]
    canonical = re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text)
    first, second = sip_hash(text.encode(), SECRET, (1, 3))
    assert (keys_of([text]) == [(second, first)]) == (canonical is None)


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


# --- the whole way: compare, fit, log -----------------------------------------------------------


def bins_of(report: tg.Report) -> dict[str, Distribution]:
    """Bins to draw, by column."""
    return {drawn.column: drawn for drawn in report.distributions}


def shares_of(table: pa.Table, column: str | None = "x") -> dict[str, float | None]:
    """Value of each metric of a column in a table of one window."""
    rows = [row for row in table.to_pylist() if row["column"] == column]
    return {row["metric"]: row["value"] for row in rows}


def watch(schema: tg.Schema, reference: Any, *batches: Any) -> tg.Monitor:
    """A monitor that has logged these batches."""
    monitor = tg.Monitor(tg.Reference.fit(reference, schema), threads=1)
    for batch in batches:
        monitor.log(batch)
    return monitor


def count_numbers(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """Finite values by bin; the outermost bins are open."""
    counts = [0] * (len(edges) - 1)
    for value in values:
        if math.isfinite(value):
            counts[bisect_right(edges[1:-1], value)] += 1
    return counts


@given(
    tables({"x": [*NUMBERS, *NUMBER_DICTIONARIES]}),
    tables({"x": [*NUMBERS, *NUMBER_DICTIONARIES]}, min_rows=1),
)
def test_numbers_are_counted_as_python_counts_them(before: pa.Table, now: pa.Table) -> None:
    """The reference's type does not bind the traffic's: 3 is 3 in any width."""
    check_numbers(before, now)


EXTREMES: list[list[float]] = [
    [1.7e308, 0.0, 1.0, math.inf, -math.inf],
    [-1e300, 1e300, math.inf],
    [1.7e308, math.inf],
    [5e-324, 0.0, -5e-324, 1e-310],
    [1e300, 1e-300, -math.inf],
    [math.inf, math.nan, -math.inf],
    [2.0**53, 2.0**60, -(2.0**63)],
    [-0.0, 0.0],
]


@pytest.mark.parametrize("values", EXTREMES, ids=str)
@pytest.mark.parametrize("repeats", [1, 50])
def test_numbers_of_any_size_are_counted(values: list[float], repeats: int) -> None:
    """As few values and as many: atoms, grids and limits differ."""
    table = pa.table({"x": values * repeats})
    for before in (table, table.slice(0, 1), table.slice(1)):
        check_numbers(before, table)


def check_numbers(before: pa.Table, now: pa.Table) -> None:
    """Whatever the report says of column x is what plain Python counts."""
    schema = tg.Schema(features={"x": tg.numeric()})
    report = watch(schema, StreamOnly(before), StreamOnly(now)).report()
    raw = now["x"].to_pylist()
    values = [float(value) for value in raw if value is not None]
    finite = [value for value in values if math.isfinite(value)]
    known = [float(value) for value in before["x"].to_pylist() if value is not None]
    known = [value for value in known if math.isfinite(value)] or [-math.inf, math.inf]
    outside = [value for value in finite if not min(known) <= value <= max(known)]

    found = shares_of(report.to_arrow())
    assert found["null_rate"] == pytest.approx(raw.count(None) / len(raw))
    assert found["nan_rate"] == pytest.approx(sum(map(math.isnan, values)) / len(raw))
    assert found["infinite_rate"] == pytest.approx(sum(map(math.isinf, values)) / len(raw))
    assert found["out_of_range_rate"] == pytest.approx(len(outside) / len(raw))
    assert found["type_violation_rate"] == found["absent_rate"] == 0
    assert found["minimum"] == min(finite, default=None)
    assert found["maximum"] == max(finite, default=None)
    assert shares_of(report.to_arrow(), None)["row_count"] == len(raw)
    drawn = bins_of(report)["x"]
    assert drawn.current.tolist() == count_numbers(values, drawn.edges.tolist())
    assert drawn.current_missing == len(raw) - len(values) + sum(map(math.isnan, values))


@given(tables({"x": CATEGORIES}), tables({"x": CATEGORIES}, min_rows=1))
def test_categories_are_counted_as_python_counts_them(before: pa.Table, now: pa.Table) -> None:
    schema = tg.Schema(features={"x": tg.categorical()})
    report = watch(schema, StreamOnly(before), StreamOnly(now)).report()
    texts = [as_text(value) for value in now["x"].to_pylist()]
    known = {as_text(value) for value in before["x"].to_pylist()} - {None}
    present = [text for text in texts if text is not None]

    found = shares_of(report.to_arrow())
    assert found["null_rate"] == pytest.approx(texts.count(None) / len(texts))
    unseen = sum(text not in known for text in present)
    assert found["unseen_rate"] == pytest.approx(unseen / len(texts))
    drawn = bins_of(report)["x"]
    labels, counts = list(drawn.labels or ()), drawn.current.tolist()
    if len(labels) > len(known):  # the last one pools the rest
        labels, rest = labels[:-1], counts.pop()
        assert rest == unseen
    assert dict(zip(labels, counts, strict=True)) == {text: present.count(text) for text in known}


@given(tables({"x": TIMES}), tables({"x": TIMES}, min_rows=1))
def test_times_are_counted_as_python_counts_them(before: pa.Table, now: pa.Table) -> None:
    schema = tg.Schema(features={"x": tg.timestamp()})
    report = watch(schema, StreamOnly(before), StreamOnly(now)).report()
    ticks = now["x"].drop_null().cast(pa.int64()).to_pylist()
    moments = [value * TICKS["us"] // TICKS[now["x"].type.unit] for value in ticks]

    found = shares_of(report.to_arrow())
    assert found["null_rate"] == pytest.approx(now["x"].null_count / now.num_rows)
    assert found["type_violation_rate"] == 0
    drawn = bins_of(report)["x"]
    assert drawn.current.tolist() == count_numbers(moments, drawn.edges.tolist())


MIXED = {"number": [pa.float64(), pa.int32()], "category": CATEGORIES, "moment": TIMES}
MIXED_SCHEMA = tg.Schema(
    features={"number": tg.numeric(), "category": tg.categorical(), "moment": tg.timestamp()},
    segments=["category"],
)


@given(tables(MIXED, min_rows=1), st.data())
def test_layout_order_and_splits_change_nothing(table: pa.Table, data: st.DataObject) -> None:
    whole = watch(MIXED_SCHEMA, table, table).metrics()
    cut = data.draw(st.integers(0, table.num_rows))
    order = data.draw(st.permutations(range(table.num_rows)))
    shuffled = pa.concat_tables([table.slice(row, 1) for row in order])
    layouts = {
        "other chunks": [data.draw(chunked(table))],
        "two batches": [table.slice(0, cut), table.slice(cut)],
        "arrays at an offset": [ArrayOnly(batch) for batch in table.to_batches()],
        "another order": [shuffled],
        "a stream": [table.to_reader()],
    }
    for name, batches in layouts.items():
        assert watch(MIXED_SCHEMA, table, *batches).metrics().equals(whole), name


@given(tables(MIXED, min_rows=1), tables(MIXED))
def test_an_empty_batch_changes_nothing(table: pa.Table, other: pa.Table) -> None:
    monitor = watch(MIXED_SCHEMA, table, table)
    before = monitor.metrics()
    assert monitor.log(other.slice(0, 0)) == 0
    assert monitor.metrics().equals(before)


PLAIN = pa.table(
    {
        "id": pa.array(range(60), pa.uint32()),
        "number": pa.array([None if i % 7 == 0 else i * 0.37 for i in range(60)]),
        "whole": pa.array(range(60), pa.int64()),
        "flag": [i % 3 == 0 for i in range(60)],
        "text": ["abc"[i % 3] if i % 11 else None for i in range(60)],
        "moment": pa.array([i * 3_600_000_000 for i in range(60)], pa.timestamp("us", "UTC")),
    }
)


def as_polars(table: pa.Table) -> Any:
    import polars as pl

    return pl.from_arrow(table)


def as_pandas(table: pa.Table) -> Any:
    return table.to_pandas(types_mapper=None)


def as_duckdb(table: pa.Table) -> Any:
    import duckdb

    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    return connection.from_arrow(table)


def as_arrays(table: pa.Table) -> dict[str, Any]:
    columns = {name: table[name].to_pylist() for name in table.column_names}
    missing = [math.nan if value is None else value for value in columns["number"]]
    moments = table["moment"].cast(pa.timestamp("us")).to_numpy()
    return {
        "id": np.array(columns["id"], np.uint32),
        "number": np.array(missing),
        "whole": np.array(columns["whole"], ">i8").astype(np.int64),
        "flag": np.array(columns["flag"]),
        "text": np.array(columns["text"], object),
        "moment": moments,
    }


PRODUCERS: dict[str, Any] = {
    "pyarrow table": lambda table: table,
    "pyarrow batch": lambda table: table.to_batches()[0],
    "pyarrow reader": pa.Table.to_reader,
    "polars": as_polars,
    "pandas": as_pandas,
    "duckdb": as_duckdb,
    "dict of arrays": as_arrays,
    "dict of lists": pa.Table.to_pydict,
    "stream only": StreamOnly,
    "array only": lambda table: ArrayOnly(table.to_batches()[0]),
}


def without_null_or_nan(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table; pandas and NumPy say "missing" by NaN where Arrow has a null."""
    return [row for row in table.to_pylist() if row["metric"] not in ("null_rate", "nan_rate")]


@pytest.mark.parametrize("producer", PRODUCERS.values(), ids=PRODUCERS)
def test_every_producer_gives_the_same_answer(producer: Any, engine: str) -> None:
    schema = tg.Schema(
        prediction_id="id",
        timestamp="moment",
        features=["number", "whole", "flag", "text"],
        segments=["text", "flag"],
    )
    reference = tg.Reference.fit(PLAIN, schema)
    wanted, found = (tg.Monitor(reference, window="1d", device=engine) for _ in range(2))
    wanted.log(PLAIN)
    found.log(producer(PLAIN))
    assert without_null_or_nan(found.metrics()) == without_null_or_nan(wanted.metrics())
    assert found.account == wanted.account


@pytest.mark.parametrize("producer", PRODUCERS.values(), ids=PRODUCERS)
def test_a_reference_fits_and_compares_from_every_producer(producer: Any) -> None:
    report = tg.compare(producer(PLAIN), producer(PLAIN))
    rows = report.to_arrow().to_pylist()
    assert {row["value"] for row in rows if row["metric"] == "psi"} == {0.0}
    assert {row["n"] for row in rows if row["metric"] == "missing_rate"} == {60}
    assert tg.Schema.infer(producer(PLAIN)).features.keys() == set(PLAIN.column_names)


def test_a_foreign_type_is_counted_and_not_refused() -> None:
    monitor = watch(tg.Schema(features={"x": tg.numeric()}), {"x": [1.0, 2.0]}, {"x": ["1", None]})
    found = shares_of(monitor.metrics())
    assert (found["type_violation_rate"], found["null_rate"]) == (0.5, 0.5)


# --- bad input -----------------------------------------------------------------------------------

BINARY = tg.Schema(
    task="binary",
    prediction_id="id",
    timestamp="time",
    model_version="version",
    features={"x": tg.numeric(), "c": tg.categorical()},
    prediction_score="score",
    label="label",
    weight="weight",
    segments=["c"],
)


def traffic(n: int = 50, **replaced: Any) -> dict[str, Any]:
    """Good traffic, with some columns replaced; None takes one away."""
    columns: dict[str, Any] = {
        "id": pa.array(range(n), pa.int64()),
        "time": pa.array([i * 1_000_000 for i in range(n)], pa.timestamp("us", "UTC")),
        "version": pa.array(["v1"] * n),
        "x": pa.array([float(i) for i in range(n)]),
        "c": pa.array(["ab"[i % 2] for i in range(n)]),
        "score": pa.array([i / n for i in range(n)]),
        "weight": pa.array([1.0] * n),
        "label": pa.array([i % 2 for i in range(n)]),
    }
    return {name: column for name, column in {**columns, **replaced}.items() if column is not None}


def with_last(value: Any, type_: pa.DataType | None = None, *, n: int = 50, first: Any = 0) -> Any:
    """A column whose last row is the bad one."""
    return pa.array([first] * (n - 1) + [value], type_)


FAR = datetime(2200, 1, 1, tzinfo=UTC)
NOW = datetime(2013, 1, 1, tzinfo=UTC)
UTC_TIME = pa.timestamp("us", "UTC")
MANY = 300_000  # more than is read at once: the bad row comes after good ones were read

BAD_PREDICTIONS: dict[str, tuple[Any, str]] = {
    "no id": (traffic(id=None), "'id'"),
    "a null id": (traffic(id=with_last(None)), "'id'.*row 49"),
    "a float id": (traffic(id=with_last(0.5)), "'id'.*double|'id'.*float64"),
    "no time": (traffic(time=None), "'time'"),
    "a null time": (traffic(time=with_last(None, pa.timestamp("us"))), "'time'.*row 49"),
    "text as time": (traffic(time=with_last("b", first="a")), "'time'"),
    "a time far ahead": (traffic(time=with_last(FAR, UTC_TIME, first=NOW)), "'time'"),
    "a time beyond 64 bits": (traffic(time=with_last(2**61, pa.timestamp("s"))), "'time'.*row 49"),
    "a score above 1": (traffic(score=with_last(1.5)), "'score'.*row 49.*1.5"),
    "an infinite score": (traffic(score=with_last(math.inf)), "'score'.*row 49"),
    "text as score": (traffic(score=with_last("b", first="a")), "'score'"),
    "no score": (traffic(score=None), "'score'"),
    "a label that is no class": (traffic(label=with_last(2)), "'label'.*row 49"),
    "a negative weight": (traffic(weight=with_last(-1.0)), "'weight'.*row 49"),
    "a null weight": (traffic(weight=with_last(None, pa.float64())), "'weight'.*row 49"),
    "no version": (traffic(version=None), "'version'"),
    "a nested version": (traffic(version=pa.array([["v1"]] * 50)), "'version'"),
    "a nested segment": (traffic(c=pa.array([["a"]] * 50)), "'c'"),
    "columns of two lengths": (traffic(x=[1.0]), "length"),
    "no table": (17, "int"),
    "an array": (pa.array([1, 2]), "table"),
    "a stream that fails": (failing_reader(pa.table(traffic())), "the disk went away"),
    "a bad row late": (traffic(MANY, score=with_last(7.0, n=MANY)), f"'score'.*row {MANY - 1}"),
}
BAD_LABELS: dict[str, tuple[Any, str]] = {
    "no id": ({"label": [1]}, "'id'"),
    "no label": ({"id": [1]}, "'label'"),
    "a null id": ({"id": [1, None], "label": [1, 1]}, "'id'.*row 1"),
    "an id of another kind": ({"id": [0.5], "label": [1]}, "'id'"),
    "a label that is no class": ({"id": [1, 2], "label": [1, 5]}, "'label'.*row 1"),
    "text as label": ({"id": [1], "label": ["yes"]}, "'label'"),
    "text as time": ({"id": [1], "label": [1], "time": ["now"]}, "'time'"),
    "a bad row late": (
        {"id": np.arange(MANY), "label": with_last(2, n=MANY)},
        f"'label'.*row {MANY - 1}",
    ),
}


@pytest.fixture
def busy_monitor() -> tg.Monitor:
    """A monitor in the middle of its work: matched, pending and early events, two segments."""
    monitor = tg.Monitor(tg.Reference.fit(traffic(), BINARY), window="1d")
    monitor.log(traffic(label=None))
    monitor.label({"id": [1, 2, 3, 900], "label": [1, 0, None, 1]})
    return monitor


def state_of(monitor: tg.Monitor, folder: Path) -> bytes:
    """The monitor as it would be saved."""
    monitor.save(folder / "state")
    return (folder / "state").read_bytes()


@pytest.mark.parametrize(("batch", "message"), BAD_PREDICTIONS.values(), ids=BAD_PREDICTIONS)
def test_a_refused_batch_leaves_no_trace(
    busy_monitor: tg.Monitor, batch: Any, message: str, tmp_path: Path
) -> None:
    before = state_of(busy_monitor, tmp_path)
    with pytest.raises((tg.DataError, tg.SchemaError), match=message):
        busy_monitor.log(batch)
    assert state_of(busy_monitor, tmp_path) == before


@pytest.mark.parametrize(("batch", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_refused_labels_leave_no_trace(
    busy_monitor: tg.Monitor, batch: Any, message: str, tmp_path: Path
) -> None:
    before = state_of(busy_monitor, tmp_path)
    with pytest.raises((tg.DataError, tg.SchemaError), match=message):
        busy_monitor.label(batch)
    assert state_of(busy_monitor, tmp_path) == before


def test_a_good_batch_does_leave_a_trace(busy_monitor: tg.Monitor, tmp_path: Path) -> None:
    """Otherwise the two tests above could not fail."""
    before = state_of(busy_monitor, tmp_path)
    assert state_of(busy_monitor, tmp_path) == before
    busy_monitor.label({"id": [4], "label": [1]})
    assert state_of(busy_monitor, tmp_path) != before


@pytest.mark.parametrize("name", ["no score", "text as score", "a label that is no class"])
def test_a_reference_refuses_what_it_cannot_use(name: str) -> None:
    batch, message = BAD_PREDICTIONS[name]
    with pytest.raises((tg.DataError, tg.SchemaError), match=message):
        tg.Reference.fit(batch, BINARY)
