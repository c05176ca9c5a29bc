"""Tables from strangers: packed columns and Arrow streams, checked before anything touches them.

Buffers are viewed, not copied. What comes out is flat, of types that the core can count, and valid
to the last offset, whatever came in.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from tidegauge._core import DataError, PackedBatch
from tidegauge.server.refused import Refused, invalid
from tidegauge.v1 import batch_pb2 as wire

MAX_CELLS = 1 << 20
MAX_COLUMNS = 4096
MAX_DICTIONARY = 65_536
MAX_ID_BYTES = 256
MAX_NAME_BYTES = 256
MAX_VECTOR = 16_384
MAX_BATCHES = 256  # in one stream

_FIXED: dict[int, tuple[pa.DataType, int]] = {
    wire.DATA_TYPE_INT8: (pa.int8(), 1),
    wire.DATA_TYPE_INT16: (pa.int16(), 2),
    wire.DATA_TYPE_INT32: (pa.int32(), 4),
    wire.DATA_TYPE_INT64: (pa.int64(), 8),
    wire.DATA_TYPE_UINT8: (pa.uint8(), 1),
    wire.DATA_TYPE_UINT16: (pa.uint16(), 2),
    wire.DATA_TYPE_UINT32: (pa.uint32(), 4),
    wire.DATA_TYPE_UINT64: (pa.uint64(), 8),
    wire.DATA_TYPE_FLOAT16: (pa.float16(), 2),
    wire.DATA_TYPE_FLOAT32: (pa.float32(), 4),
    wire.DATA_TYPE_FLOAT64: (pa.float64(), 8),
    wire.DATA_TYPE_TIMESTAMP: (pa.timestamp("us", tz="UTC"), 8),
}
_TEXT = {wire.DATA_TYPE_STRING: pa.string(), wire.DATA_TYPE_BINARY: pa.binary()}
_CODES = {str(type_): code for code, (type_, _) in _FIXED.items()}


# -- packed columns --------------------------------------------------------------------------------


def unpack(batch: wire.ColumnBatch) -> pa.RecordBatch:
    """Make a record batch of packed columns, without copying their values.

    Raises
    ------
    Refused
        When a column is not what it says it is; names the column, its rows and what is allowed.

    >>> batch = wire.ColumnBatch(row_count=2)
    >>> _ = batch.columns.add(name="x", type=wire.DATA_TYPE_INT16, data=bytes([1, 0, 2, 0]))
    >>> unpack(batch).to_pydict()
    {'x': [1, 2]}
    """
    n = batch.row_count
    columns = batch.columns
    _check_shape(n, len(columns), "columns")
    arrays, names = [], []
    for column in columns:
        try:
            arrays.append(_unpack_column(column, n))
        except (pa.ArrowException, ValueError) as error:
            raise _column(column.name, f"{n} rows of broken values: {error}") from None
        names.append(column.name)
    _check_names(names)
    return pa.RecordBatch.from_arrays(arrays, names=names)


def _unpack_column(column: wire.Column, n: int) -> pa.Array:
    name, kind, data = column.name, column.type, column.data
    bits = (n + 7) // 8
    validity = None
    if given := column.validity:
        _check_length(name, "validity", len(given), bits, n)
        validity = pa.py_buffer(given)
    if kind in _FIXED:
        type_, width = _FIXED[kind]
        _check_length(name, "data", len(data), n * width, n)
        return pa.Array.from_buffers(type_, n, [validity, pa.py_buffer(data)])
    if kind == wire.DATA_TYPE_BOOL:
        _check_length(name, "data", len(data), bits, n)
        return pa.Array.from_buffers(pa.bool_(), n, [validity, pa.py_buffer(data)])
    if kind in _TEXT:
        offsets = column.offsets
        _check_length(name, "offsets", len(offsets), 4 * (n + 1), n)
        buffers = [validity, pa.py_buffer(offsets), pa.py_buffer(data)]
        return _valid(name, lambda: pa.Array.from_buffers(_TEXT[kind], n, buffers))
    if kind == wire.DATA_TYPE_CATEGORY:
        if len(column.dictionary) > MAX_DICTIONARY:
            raise _column(
                name,
                f"{len(column.dictionary)} entries in the dictionary; allowed "
                f"are {MAX_DICTIONARY}, send it as DATA_TYPE_STRING",
            )
        _check_length(name, "data", len(data), 4 * n, n)
        codes = pa.Array.from_buffers(pa.int32(), n, [validity, pa.py_buffer(data)])
        entries = pa.array(column.dictionary, pa.string())
        return _valid(name, lambda: pa.DictionaryArray.from_arrays(codes, entries, safe=False))
    if kind == wire.DATA_TYPE_VECTOR:
        width = column.width
        if not 1 <= width <= MAX_VECTOR:
            raise _column(name, f"vectors of {width} members; allowed are 1 to {MAX_VECTOR}")
        _check_length(name, "data", len(data), 4 * n * width, n)
        members = pa.Array.from_buffers(pa.float32(), n * width, [None, pa.py_buffer(data)])
        lists = pa.list_(pa.float32(), width)
        return pa.Array.from_buffers(lists, n, [validity], children=[members])
    known = ", ".join(wire.DataType.keys()[1:])
    raise _column(name, f"type {kind} cannot be counted; allowed are: {known}")


def _check_length(name: str, part: str, came: int, wanted: int, n: int) -> None:
    if came != wanted:
        raise _column(name, f"{part} has {came} bytes; {n} rows need exactly {wanted}")


def pack(batch: pa.RecordBatch) -> wire.ColumnBatch:
    """Pack a record batch: `unpack` gives the same values back.

    >>> unpack(pack(pa.record_batch({"plan": ["a", None]}))).to_pydict()
    {'plan': ['a', None]}
    """
    packed = wire.ColumnBatch(row_count=batch.num_rows)
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        packed.columns.append(_pack_column(name, values))
    return packed


def _pack_column(name: str, values: pa.Array) -> wire.Column:
    type_ = values.type
    dictionary: list[str] = []
    width = 0
    kind: int
    if pa.types.is_timestamp(type_):
        try:
            values = values.cast(pa.timestamp("us", tz="UTC"))
        except pa.ArrowInvalid as error:
            raise _column(name, f"{error}; microseconds are sent, cast it to them") from None
    if values.offset:
        values = pa.concat_arrays([values])  # buffers of a slice begin before its first value
        if values.offset:
            values = values.take(pa.array(np.arange(len(values))))
    buffers = values.buffers()
    n = len(values)
    validity = b"" if buffers[0] is None else _bytes(buffers[0], (n + 7) // 8)
    offsets = b""
    if pa.types.is_dictionary(type_):
        codes = values.indices.cast(pa.int32())
        kind, data = wire.DATA_TYPE_CATEGORY, _bytes(codes.buffers()[1], 4 * n)
        dictionary = values.dictionary.cast(pa.string()).to_pylist()
    elif pa.types.is_large_string(type_) or pa.types.is_large_binary(type_):
        small = pa.string() if pa.types.is_large_string(type_) else pa.binary()
        return _pack_column(name, values.cast(small))
    elif type_ in (pa.string(), pa.binary()):
        kind = wire.DATA_TYPE_STRING if type_ == pa.string() else wire.DATA_TYPE_BINARY
        offsets = _bytes(buffers[1], 4 * (n + 1)) or bytes(4)
        end = struct.unpack_from("<i", offsets, 4 * n)[0]
        data = _bytes(buffers[2], end)
    elif pa.types.is_fixed_size_list(type_):
        kind, width = wire.DATA_TYPE_VECTOR, type_.list_size
        if n_null := values.flatten().null_count:
            raise _column(name, f"{n_null} members of vectors are null; make such a vector null")
        members = values.values.cast(pa.float32())
        data = _bytes(members.buffers()[1], 4 * n * width)
    elif pa.types.is_boolean(type_):
        kind, data = wire.DATA_TYPE_BOOL, _bytes(buffers[1], (n + 7) // 8)
    elif (code := _CODES.get(str(values.type))) is not None:
        kind, data = code, _bytes(buffers[1], n * _FIXED[code][1])
    else:
        raise invalid("columns", f"column {name!r} of type {type_} cannot be packed")
    return wire.Column(
        name=name,
        type=kind,  # type: ignore[arg-type]
        data=data,
        offsets=offsets,
        validity=validity,
        dictionary=dictionary,
        width=width,
    )


def _bytes(buffer: pa.Buffer | None, n: int) -> bytes:
    return b"" if buffer is None or n == 0 else buffer.slice(0, n).to_pybytes()


def read_packed(body: bytes) -> PackedBatch:
    """Read and check packed columns by the core: what is counted, and faster than `unpack`.

    >>> read_packed(pack(pa.record_batch({"x": [1, 2]})).SerializeToString()).n_rows
    2
    """
    try:
        return PackedBatch(body)
    except DataError as error:
        text = str(error)
        name = text.partition("column '")[2].partition("': ")[0]
        problem = text.partition(": ")[2]
        field = f"columns[{name!r}]" if name else "columns"
        raise Refused(
            "INVALID_ARGUMENT", "INVALID_COLUMN", text, fields=[(field, problem)]
        ) from None


# -- Arrow streams ---------------------------------------------------------------------------------


def read_stream(stream: bytes) -> pa.Table:
    """Read an Arrow IPC stream, without copying its values.

    Its schema is checked before any batch is read, the metadata of each message before its body.

    Raises
    ------
    Refused
        When it is damaged, compressed, nested, or holds extension types or dictionary deltas.

    >>> table = pa.table({"x": [1, 2]})
    >>> sink = pa.BufferOutputStream()
    >>> with ipc.new_stream(sink, table.schema) as writer:
    ...     writer.write_table(table)
    >>> read_stream(sink.getvalue().to_pybytes()).num_rows
    2
    """
    whole = pa.py_buffer(stream)
    try:
        schema = _check_messages(whole)
        check_schema(schema)
        batches: list[pa.RecordBatch] = []
        with ipc.open_stream(whole) as reader:
            rows = 0
            for batch in reader:
                rows += batch.num_rows
                _check_shape(rows, len(schema), "arrow_stream")
                if len(batches) == MAX_BATCHES:
                    raise invalid("arrow_stream", f"more than {MAX_BATCHES} batches")
                batches.append(check_batch(batch))
        return pa.Table.from_batches(batches, schema)
    except (pa.ArrowException, struct.error, OSError, ValueError, OverflowError) as error:
        text = str(error).split("\n")[0]
        raise invalid("arrow_stream", f"is damaged: {text}", reason="BROKEN_STREAM") from None


def _check_messages(stream: pa.Buffer) -> pa.Schema:
    """Check the metadata of every message; the schema, which is the first one."""
    schema = None
    for message in ipc.MessageReader.open_stream(stream):
        if schema is None:
            if message.type != "schema":
                raise invalid("arrow_stream", f"begins with a {message.type}, not with a schema")
            schema = ipc.read_schema(message)
        elif message.type in ("record batch", "dictionary"):
            _check_metadata(message.metadata.to_pybytes(), message.type)
        else:
            raise invalid("arrow_stream", f"holds a {message.type}; allowed are batches")
    if schema is None:
        raise invalid("arrow_stream", "is empty; a schema and a batch are wanted")
    return schema


def _check_metadata(metadata: bytes, kind: str) -> None:
    """Refuse compression and deltas, by the flatbuffer of the message."""
    header = _Table.root(metadata).table(2)
    if kind == "dictionary":
        if header.flag(2):
            raise invalid("arrow_stream", "holds a dictionary delta; send whole dictionaries")
        header = header.table(1)
    if header.has(3):
        raise invalid("arrow_stream", "is compressed; write it with compression=None")


class _Table:
    """A table of a flatbuffer; what points outside raises struct.error."""

    def __init__(self, data: bytes, place: int) -> None:
        self._data = data
        self._place = place
        self._vtable = place - self._read("<i", place)
        self._size = self._read("<H", self._vtable)

    def _read(self, form: str, place: int) -> int:
        if place < 0:
            raise struct.error("an offset points before the message")
        value: int = struct.unpack_from(form, self._data, place)[0]
        return value

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def _field(self, number: int) -> int:
        slot = 4 + 2 * number
        return self._read("<H", self._vtable + slot) if slot < self._size else 0

    def has(self, number: int) -> bool:
        return self._field(number) != 0

    def flag(self, number: int) -> bool:
        offset = self._field(number)
        return bool(offset and self._read("<B", self._place + offset))

    def table(self, number: int) -> _Table:
        offset = self._field(number)
        if not offset:
            raise struct.error("a message without a header")
        place = self._place + offset
        return _Table(self._data, place + self._read("<I", place))


# -- what both share -------------------------------------------------------------------------------


def check_schema(schema: pa.Schema) -> None:
    """Refuse columns that are nested, extended, or of a type that cannot be counted.

    >>> check_schema(pa.schema({"x": pa.struct({"y": pa.int8()})}))
    Traceback (most recent call last):
    tidegauge.server.refused.Refused: column 'x': struct<y: int8> cannot be counted; allowed are ...
    """
    _check_shape(0, len(schema), "arrow_stream")
    _check_names(schema.names)
    for field in schema:
        metadata = field.metadata or {}
        if b"ARROW:extension:name" in metadata or isinstance(field.type, pa.BaseExtensionType):
            raise _column(field.name, "has an extension type; send its storage as it is")
        if not _allowed(field.type):
            raise _column(
                field.name,
                f"{field.type} cannot be counted; allowed are booleans, integers, floats, text, "
                "bytes, timestamps, dates, dictionaries of text and fixed-size lists of floats",
            )


def _allowed(type_: pa.DataType) -> bool:
    kinds = pa.types
    if kinds.is_dictionary(type_):
        texts = kinds.is_string(type_.value_type) or kinds.is_large_string(type_.value_type)
        return bool(texts and kinds.is_integer(type_.index_type))
    if kinds.is_fixed_size_list(type_):
        return bool(kinds.is_floating(type_.value_type) and 1 <= type_.list_size <= MAX_VECTOR)
    tests = (
        kinds.is_boolean,
        kinds.is_integer,
        kinds.is_floating,
        kinds.is_string,
        kinds.is_large_string,
        kinds.is_binary,
        kinds.is_large_binary,
        kinds.is_timestamp,
        kinds.is_date,
        kinds.is_null,
    )
    return any(test(type_) for test in tests)


def check_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Check every offset, code and text of a batch, and where it lies; its schema has been."""
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        for buffer in values.buffers():
            if buffer is not None and buffer.address % 8:
                raise _column(name, "its buffers are not aligned to eight bytes")
    return check_rows(batch)


def rewritten(batch: pa.RecordBatch) -> tuple[bytes, pa.RecordBatch]:
    """Check a batch that may lie anywhere, write it; the stream, and the batch as it lies there.

    >>> body, batch = rewritten(pa.record_batch({"x": [1, 2]}))
    >>> read_stream(body).to_pydict() == batch.to_pydict()
    True
    """
    _check_shape(batch.num_rows, batch.num_columns, "batch")
    body = stream_of([check_rows(batch)], batch.schema)
    with ipc.open_stream(pa.py_buffer(body)) as reader:
        return body, reader.read_next_batch()


def check_rows(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Check every offset, code and text of a batch whose schema has been checked."""
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        _check_values(name, values)
        if pa.types.is_dictionary(values.type) and len(values.dictionary) > MAX_DICTIONARY:
            raise _column(
                name,
                f"{len(values.dictionary)} entries in the dictionary; allowed are "
                f"{MAX_DICTIONARY}, send it as text",
            )
    return batch


def check_ids(rows: PackedBatch | pa.RecordBatch | pa.Table, column: str | None) -> None:
    """Refuse ids that are longer than MAX_ID_BYTES."""
    if isinstance(rows, PackedBatch):
        if column is not None:
            _check_id_length(column, rows.longest_text(column))
        return
    if column is None or column not in rows.schema.names:
        return
    values = rows.column(column)
    for chunk in values.chunks if isinstance(values, pa.ChunkedArray) else [values]:
        plain = chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
        _check_id_length(column, _longest(plain))


def _check_id_length(column: str, longest: int) -> None:
    if longest > MAX_ID_BYTES:
        raise _column(
            column, f"an id of {longest} bytes; ids have up to {MAX_ID_BYTES}, hash longer ones"
        )


def _longest(values: pa.Array) -> int:
    type_ = values.type
    wide = pa.types.is_large_string(type_) or pa.types.is_large_binary(type_)
    if not (wide or pa.types.is_string(type_) or pa.types.is_binary(type_)) or not len(values):
        return 0
    offsets = np.frombuffer(values.buffers()[1], np.int64 if wide else np.int32)
    own = offsets[values.offset : values.offset + len(values) + 1]
    return int(np.diff(own).max())


def with_version(
    rows: PackedBatch | pa.RecordBatch | pa.Table, column: str | None, version: str
) -> PackedBatch | pa.RecordBatch | pa.Table:
    """Name the version of rows that name none themselves.

    >>> with_version(pa.record_batch({"x": [1, 2]}), "version", "v3").to_pydict()["version"]
    ['v3', 'v3']
    """
    if not version:
        return rows
    if column is None:
        raise invalid(
            "model_version", f"{version!r} was given, but the schema names no `model_version`"
        )
    if isinstance(rows, PackedBatch):
        if column not in rows.names:
            rows.add_constant(column, version)
        return rows
    if column in rows.schema.names:
        return rows
    codes = pa.array(np.zeros(rows.num_rows, dtype=np.int32))
    return rows.append_column(column, pa.DictionaryArray.from_arrays(codes, pa.array([version])))


def _check_shape(n: int, n_columns: int, field: str) -> None:
    if n_columns > MAX_COLUMNS:
        raise invalid(field, f"{n_columns} columns; allowed are {MAX_COLUMNS}")
    if n * max(n_columns, 1) > MAX_CELLS:
        raise invalid(
            field,
            f"{n} rows of {n_columns} columns are {n * n_columns} values; allowed are {MAX_CELLS} "
            "in one request, send fewer rows",
        )


def _check_names(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _column(twice, "is there twice; each name once")
    for name in names:
        if not 1 <= len(name.encode()) <= MAX_NAME_BYTES:
            raise _column(name[:40], f"a name is UTF-8 text of 1 to {MAX_NAME_BYTES} bytes")


def _valid(name: str, make: Callable[[], pa.Array]) -> pa.Array:
    try:
        values = make()  # looks at the last offset already
    except (pa.ArrowException, ValueError) as error:
        raise _column(name, f"broken values: {error}") from None
    _check_values(name, values)
    return values


def _check_values(name: str, values: pa.Array) -> None:
    try:
        values.validate(full=True)
    except (pa.ArrowException, ValueError) as error:
        raise _column(name, f"{len(values)} rows of broken values: {error}") from None


def _column(name: str, problem: str) -> Refused:
    return Refused(
        "INVALID_ARGUMENT",
        "INVALID_COLUMN",
        f"column {name!r}: {problem}",
        fields=[(f"columns[{name!r}]", problem)],
    )


def stream_of(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> bytes:
    """Write an Arrow IPC stream: what `read_stream` reads.

    >>> batch = pa.record_batch({"x": [1, 2]})
    >>> read_stream(stream_of([batch], batch.schema)).to_pydict()
    {'x': [1, 2]}
    """
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data
