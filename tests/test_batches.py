"""Tables from strangers: what is sent is read back, what is broken is refused, nothing crashes."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import ipc
from served import predictions, reference_file

import tidegauge as tg
from tidegauge._core import DataError, PackedBatch, join_packed
from tidegauge.server import batches
from tidegauge.server.refused import Refused
from tidegauge.v1 import batch_pb2 as wire

TYPES = [
    pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(),
    pa.uint32(), pa.uint64(), pa.float32(), pa.float64(), pa.string(), pa.binary(),
]  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> pa.RecordBatch:
    n = draw(st.integers(0, 20))
    columns = {}
    for i, type_ in enumerate(draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=6))):
        values = {
            "bool": st.booleans(),
            "string": st.text(max_size=9),
            "binary": st.binary(max_size=9),
        }.get(str(type_), st.integers(0, 100))
        columns[f"c{i}"] = pa.array(
            draw(st.lists(st.none() | values, min_size=n, max_size=n)), type_
        )
    texts = draw(st.lists(st.none() | st.sampled_from(["a", "β", ""]), min_size=n, max_size=n))
    columns["category"] = pa.array(texts, pa.string()).dictionary_encode()
    columns["time"] = pa.array(range(n), pa.timestamp("us", tz="UTC"))
    vectors = np.arange(3 * n, dtype=np.float32)
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors), 3)
    return pa.record_batch(columns)


@given(tables(), st.integers(0, 5))
def test_what_is_packed_is_unpacked(batch: pa.RecordBatch, skipped: int) -> None:
    for rows in (batch, batch.slice(min(skipped, batch.num_rows))):
        packed = batches.pack(rows)
        assert batches.unpack(packed).to_pydict() == rows.to_pydict()
        core = PackedBatch(packed.SerializeToString())
        assert (core.n_rows, core.names) == (rows.num_rows, rows.schema.names)


@given(tables())
def test_streams_are_read_back(batch: pa.RecordBatch) -> None:
    stream = batches.stream_of([batch, batch.slice(1)], batch.schema)
    read = batches.read_stream(stream)
    assert read.equals(pa.Table.from_batches([batch, batch.slice(1)]))


def test_the_core_counts_packed_columns_as_it_counts_arrow(tmp_path) -> None:
    reference = tg.Reference.load(reference_file(tmp_path))
    rows = [predictions(50, first=50 * i, version=None) for i in range(4)]
    plain, packed = (tg.Monitor(reference, model="m") for _ in range(2))
    parts = []
    for each in rows:
        plain.log(batches.with_version(each, "version", "v3"))
        part = batches.read_packed(batches.pack(each).SerializeToString())
        parts.append(batches.with_version(part, "version", "v3"))
    joined = join_packed(parts)
    assert packed.log(joined) == joined.n_rows == 200
    assert packed.metrics().equals(plain.metrics())


def test_batches_of_several_shapes_are_not_joined() -> None:
    parts = [
        PackedBatch(batches.pack(pa.record_batch({name: [1]})).SerializeToString())
        for name in ("x", "y")
    ]
    assert not parts[0].same_shape(parts[1])
    with pytest.raises(DataError, match="several shapes"):
        join_packed(parts)
    with pytest.raises(DataError, match="no batch"):
        join_packed([])


def column(**fields: object) -> wire.ColumnBatch:
    named = {"name": "x", "type": wire.DATA_TYPE_INT32, **fields}
    return wire.ColumnBatch(row_count=2, columns=[wire.Column(**named)])


OFFSETS = np.array([0, 1, 2], dtype="<i4").tobytes()
BROKEN = {
    "short data": (column(data=b"1234"), "4 bytes; 2 rows need exactly 8"),
    "long data": (column(data=bytes(12)), "12 bytes; 2 rows need exactly 8"),
    "short validity": (column(data=bytes(8), validity=b"12"), "validity has 2 bytes"),
    "no type": (column(type=0, data=bytes(8)), "cannot be counted"),
    "unknown type": (column(type=99, data=bytes(8)), "cannot be counted"),
    "falling offsets": (
        column(
            type=wire.DATA_TYPE_STRING,
            data=b"ab",
            offsets=np.array([0, 2, 1], dtype="<i4").tobytes(),
        ),
        "(?i)offset",
    ),
    "offsets past the data": (
        column(
            type=wire.DATA_TYPE_STRING,
            data=b"ab",
            offsets=np.array([0, 1, 9], dtype="<i4").tobytes(),
        ),
        "(?i)offset",
    ),
    "negative offsets": (
        column(
            type=wire.DATA_TYPE_BINARY,
            data=b"ab",
            offsets=np.array([-4, 0, 1], dtype="<i4").tobytes(),
        ),
        "(?i)offset",
    ),
    "not UTF-8": (column(type=wire.DATA_TYPE_STRING, data=b"\xc3(", offsets=OFFSETS), "UTF"),
    "no offsets": (column(type=wire.DATA_TYPE_STRING, data=b"ab"), "offsets has 0 bytes"),
    "a code beyond": (
        column(
            type=wire.DATA_TYPE_CATEGORY,
            data=np.array([0, 1], dtype="<i4").tobytes(),
            dictionary=["a"],
        ),
        "ictionary",
    ),
    "a negative code": (
        column(
            type=wire.DATA_TYPE_CATEGORY,
            data=np.array([0, -1], dtype="<i4").tobytes(),
            dictionary=["a"],
        ),
        "ictionary",
    ),
    "no width": (column(type=wire.DATA_TYPE_VECTOR, data=b""), "vectors of 0 members"),
    "wide vectors": (column(type=wire.DATA_TYPE_VECTOR, width=1 << 31), "vectors of 2147483648"),
    "no name": (column(name="", data=bytes(8)), "name"),
    "a long name": (column(name="x" * 300, data=bytes(8)), "name"),
    "a name long in bytes": (column(name="é" * 200, data=bytes(8)), "256 bytes"),
    "a name twice": (
        wire.ColumnBatch(row_count=0, columns=[*column().columns, *column().columns]),
        "twice",
    ),
    "too many cells": (wire.ColumnBatch(row_count=(1 << 32) - 1), "send fewer rows"),
    "too many columns": (
        wire.ColumnBatch(columns=[wire.Column(name=f"c{i}") for i in range(4097)]),
        "4096|4097",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_columns_are_refused_by_both_readers(name: str) -> None:
    batch, said = BROKEN[name]
    for read in (batches.unpack, lambda batch: batches.read_packed(batch.SerializeToString())):
        with pytest.raises(Refused, match=said) as caught:
            read(batch)
        assert caught.value.code == "INVALID_ARGUMENT"
        assert caught.value.fields


def test_broken_bytes_of_columns_never_crash() -> None:
    draw = random.Random(0)
    honest = batches.pack(predictions(5)).SerializeToString()
    read = refused = 0
    for _ in range(3000):
        bytes_ = bytearray(honest)
        for _ in range(draw.randint(1, 4)):
            bytes_[draw.randrange(len(bytes_))] = draw.randrange(256)
        try:
            core = batches.read_packed(bytes(bytes_[: draw.randint(0, 2 * len(bytes_))]))
        except Refused:
            refused += 1
            continue
        read += 1
        batch = join_packed([core])
        assert batch.n_rows == core.n_rows
        assert [batch.kind(name) for name in batch.names].count("absent") == 0
    assert read > 100
    assert refused > 100


def test_broken_streams_never_crash() -> None:
    draw = random.Random(1)
    rows = predictions(20)
    honest = batches.stream_of([rows], rows.schema)
    read = refused = 0
    for _ in range(1500):
        bytes_ = bytearray(honest)
        for _ in range(draw.randint(1, 3)):
            bytes_[draw.randrange(len(bytes_))] ^= 1 << draw.randrange(8)
        try:
            table = batches.read_stream(bytes(bytes_))
            read += sum(len(str(chunk)) > 0 for chunk in table.itercolumns()) > 0
        except Refused:
            refused += 1
    assert read > 100
    assert refused > 100


def stream(table: pa.Table, **options: object) -> bytes:
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, table.schema, options=ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def test_streams_that_are_not_flat_and_plain_are_refused() -> None:
    plain = pa.table({"x": pa.array(range(1000))})
    for codec in ("lz4", "zstd"):
        with pytest.raises(Refused, match="compressed"):
            batches.read_stream(stream(plain, compression=codec))
    for nested in ([[1]], [{"a": 1}]):
        with pytest.raises(Refused, match=r"column 'x': .*cannot be counted; allowed are"):
            batches.read_stream(stream(pa.table({"x": nested})))
    field = pa.field("x", pa.int8(), metadata={"ARROW:extension:name": "mine"})
    with pytest.raises(Refused, match="extension type"):
        batches.read_stream(stream(pa.table([pa.array([1], pa.int8())], schema=pa.schema([field]))))
    sink = pa.BufferOutputStream()
    options = ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    words = [pa.array(each).dictionary_encode() for each in (["a"], ["a", "b"])]
    first = pa.record_batch({"x": words[0]})
    with ipc.new_stream(sink, first.schema, options=options) as writer:
        writer.write_batch(first)
        writer.write_batch(pa.record_batch({"x": words[1]}))
    with pytest.raises(Refused, match="delta"):
        batches.read_stream(sink.getvalue().to_pybytes())
    sink = pa.BufferOutputStream()
    with ipc.new_file(sink, plain.schema) as file:
        file.write_table(plain)
    for data in (sink.getvalue().to_pybytes(), b"", b"hello", stream(plain)[:200]):
        with pytest.raises(Refused):
            batches.read_stream(data)


def test_limits_of_dictionaries_and_ids() -> None:
    words = pa.array([str(i) for i in range(65_537)])
    many = pa.record_batch({"x": words.dictionary_encode()})
    with pytest.raises(Refused, match="65537 entries"):
        batches.read_stream(batches.stream_of([many], many.schema))
    for read in (batches.unpack, lambda batch: batches.read_packed(batch.SerializeToString())):
        with pytest.raises(Refused, match="65537 entries"):
            read(batches.pack(many))
    long = pa.record_batch({"id": ["x" * 257, "y"]})
    coded = pa.record_batch({"id": pa.array(["x" * 257, "y"]).dictionary_encode()})
    for rows in (long, coded, batches.read_packed(batches.pack(long).SerializeToString())):
        with pytest.raises(Refused, match="an id of 257 bytes"):
            batches.check_ids(rows, "id")
    batches.check_ids(long.slice(1), "id")
    batches.check_ids(long, "name")


def test_a_version_needs_a_column_of_the_schema() -> None:
    with pytest.raises(Refused, match="names no `model_version`"):
        batches.with_version(pa.record_batch({"x": [1]}), None, "v1")


def test_what_the_wire_cannot_hold_is_not_packed() -> None:
    fine = pa.array([1_000, 2_000], pa.timestamp("ns"))
    batch = pa.record_batch({"t": fine})
    assert batches.unpack(batches.pack(batch))["t"].cast(pa.int64()).to_pylist() == [1, 2]
    finer = pa.record_batch({"t": pa.array([1_001, None], pa.timestamp("ns"))})
    with pytest.raises(Refused, match=r"column 't': .*microseconds"):
        batches.pack(finer)
    vectors = pa.list_(pa.float32(), 2)
    whole = pa.record_batch({"v": pa.array([[1, 2], None, [3, 4]], vectors)})
    assert batches.unpack(batches.pack(whole)).to_pydict() == whole.to_pydict()
    for first in (0, 1):
        holes = pa.record_batch({"v": pa.array([[1, 2], None, [3, None]], vectors)}).slice(first)
        with pytest.raises(Refused, match="column 'v': 1 members"):
            batches.pack(holes)
