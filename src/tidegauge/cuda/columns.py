"""Columns that a device counts: how their values are stored, where they lie, what codes mean."""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidegauge._core import (
    SPECIALS,
    Batch,
    DataError,
    DeviceArray,
    dictionary_slots,
    drain_device_stream,
)
from tidegauge.cuda.device import Bytes, Device, DeviceView, Memory
from tidegauge.ingest import as_batch
from tidegauge.layout import INVALID, SENTINEL, CountedColumn

CUDA_MEMORY = (2, 13)  # kDLCUDA and ARROW_DEVICE_CUDA; memory managed between host and device
LONGEST_TABLE = 1 << 20  # whole numbers between the smallest and the largest category


@dataclass(frozen=True, slots=True)
class Storage:
    """How values are stored: their C++ type, what they are, and what a tick of a time lasts."""

    value: str
    family: str  # "bool", "integer", "float", "time" or "code"
    multiply: int = 1
    divide: int = 1
    packed: bool = False  # eight booleans a byte

    @property
    def n_bytes(self) -> int:
        """Bytes a value, 0 for packed booleans."""
        return 0 if self.packed else _WIDTHS[self.value]

    @property
    def options(self) -> tuple[str, ...]:
        """What the kernel is compiled with."""
        return (f"-DVALUE={self.value}", *(["-DPACKED_BITS"] if self.packed else []))


_WIDTHS = {"i8": 1, "u8": 1, "i16": 2, "u16": 2, "i32": 4, "u32": 4, "i64": 8, "u64": 8}
_WIDTHS |= {"Half": 2, "f32": 4, "f64": 8}
_INTEGERS = {f"{u}int{b}": f"{u or 'i'}{b}" for u in ("", "u") for b in (8, 16, 32, 64)}
_FLOATS = {"float16": "Half", "float32": "f32", "float64": "f64"}
_TICKS = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}
_ARROW_NAMES = {
    "halffloat": "float16",
    "float": "float32",
    "double": "float64",
    "date32[day]": "date32",
    "date64[ms]": "date64",
}


def storage_of(type_: str) -> Storage | None:
    """Storage of a type as a batch writes it; None for what no kernel reads.

    >>> storage_of("timestamp[ms]")
    Storage(value='i64', family='time', multiply=1000, divide=1, packed=False)
    """
    if type_ == "bool":
        return Storage("u8", "bool", packed=True)
    if type_ in _INTEGERS:
        return Storage(_INTEGERS[type_], "integer")
    if type_ in _FLOATS:
        return Storage(_FLOATS[type_], "float")
    if found := re.match(r"timestamp\[(\w+)", type_):
        return Storage("i64", "time", *_TICKS[found[1]])
    if type_ in ("date32", "date64"):
        return Storage("i32", "time", 86_400_000_000) if type_ == "date32" else _DATE64
    if found := re.match(r"dictionary<(\w+)", type_):
        return Storage(_INTEGERS[found[1]], "code") if found[1] in _INTEGERS else None
    return None


_DATE64 = Storage("i64", "time", 1_000)


def is_counted(counted: CountedColumn, storage: Storage | None) -> bool:
    """Whether a kernel counts such values in such a column; the core counts all others."""
    if storage is None:
        return False
    content = counted.task[0]
    if content == "numbers":
        return storage.family in ("bool", "integer", "float")
    if content == "times":
        return storage.family == "time"
    if content != "categories":
        return False
    whole = storage.family in ("bool", "integer")
    return storage.family == "code" or (whole and integer_table(counted, storage) is not None)


@dataclass(frozen=True, slots=True)
class CodeTable:
    """Slot of each code: that of `lowest` + i is slots[i], and `outside` that of any other."""

    slots: NDArray[np.uint16]
    lowest: int = 0
    outside: int = INVALID
    memory: Memory | None = None  # of the slots on the device

    def upload(self, device: Device) -> CodeTable:
        """Return the table with its slots on the device."""
        return replace(self, memory=upload(device, self.slots))


def integer_table(counted: CountedColumn, storage: Storage) -> CodeTable | None:
    """Slots of whole numbers and booleans as categories; None when they lie too far apart."""
    assert counted.categories is not None
    if storage.family == "bool":
        numbers = {"false": 0, "true": 1}
    else:
        low, high = _limits(storage.value)
        texts = [*counted.sentinels.texts, *counted.categories.texts]
        found = {text: int(text) for text in texts if re.fullmatch(r"0|-?[1-9]\d{0,19}", text)}
        numbers = {text: number for text, number in found.items() if low <= number <= high}
    known = {numbers[t]: SENTINEL for t in counted.sentinels.texts if t in numbers}
    for code, text in enumerate(counted.categories.texts):
        if text in numbers:
            known[numbers[text]] = SPECIALS + 1 + code
    lowest = min(known, default=0)
    length = max(known, default=-1) - lowest + 1
    if length > LONGEST_TABLE:
        return None
    slots = np.full(length, SPECIALS, dtype=np.uint16)
    for number, slot in known.items():
        slots[number - lowest] = slot
    signed = lowest - (1 << 64) if lowest >= 1 << 63 else lowest
    return CodeTable(slots, signed, SPECIALS)


def _limits(value: str) -> tuple[int, int]:
    bits = 8 * _WIDTHS[value]
    return (0, (1 << bits) - 1) if value[0] == "u" else (-(1 << bits - 1), (1 << bits - 1) - 1)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of a column that lie together on the device."""

    first_row: int
    n_rows: int
    values: int
    value_bit: int = 0
    validity: int = 0
    validity_bit: int = 0
    source: int = 0  # the record batch it comes from
    table: CodeTable | None = None  # of codes


@dataclass(frozen=True, slots=True)
class DeviceColumn:
    """A column that lies on the device."""

    storage: Storage
    chunks: list[Chunk]
    owner: object  # keeps the memory

    def between(self, start: int, stop: int) -> list[Chunk]:
        """Chunks with rows in [start, stop)."""
        first = bisect_right(self.chunks, start, key=lambda chunk: chunk.first_row + chunk.n_rows)
        after = bisect_left(self.chunks, stop, key=lambda chunk: chunk.first_row)
        return self.chunks[first:after]


@dataclass(frozen=True, slots=True)
class StagedColumn:
    """A column of the host's batch, which goes to the device piece by piece."""

    storage: Storage
    tables: list[CodeTable | None]  # of each chunk


# -- arrays of a mapping ---------------------------------------------------------------------------


def lies_on_device(values: object) -> bool:
    """Whether an array is in the memory of a CUDA device."""
    if hasattr(values, "__cuda_array_interface__"):
        return True
    where = getattr(values, "__dlpack_device__", None)
    return where is not None and int(where()[0]) in CUDA_MEMORY


def view_array(name: str, values: object, device: Device) -> DeviceView:
    """View a device array.

    Raises
    ------
    DataError
        When it cannot be viewed or lies on another device.
    """
    try:
        view = device.view(values)
    except (BufferError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"column {name!r}: the device array cannot be read ({error})") from None
    check_device(name, view.device_id, device)
    return view


def array_column(name: str, view: DeviceView) -> DeviceColumn:
    """Take an array as a column.

    Raises
    ------
    DataError
        When it has more than one dimension or holds no numbers.
    """
    if len(view.shape) != 1:
        raise DataError(f"column {name!r}: one dimension is wanted, got shape {view.shape}")
    dtype = view.dtype
    kinds = {"i": "integer", "u": "integer", "f": "float", "b": "bool"}
    type_ = "uint8" if dtype.kind == "b" else dtype.name
    known = storage_of(type_) if dtype.kind in kinds and dtype.isnative else None
    if known is None:
        raise DataError(
            f"column {name!r}: a device array holds booleans, integers or floats of 16, 32 or 64 "
            f"bits, got {dtype.name}; cast it before logging"
        )
    storage = Storage(known.value, kinds[dtype.kind])
    if view.address % storage.n_bytes:
        raise DataError(f"column {name!r}: its values are not aligned; give a copy of it")
    chunk = Chunk(0, view.shape[0], view.address)
    return DeviceColumn(storage, [chunk], view.owner)


def check_device(name: str, found: int, device: Device) -> None:
    """Refuse memory of another device."""
    if found != device.device_id:
        raise DataError(
            f"column {name!r}: lies on cuda:{found}, but the monitor counts on "
            f"cuda:{device.device_id}; move it there, or make the monitor on that device"
        )


def fetch_array(view: DeviceView, device: Device) -> NDArray[Any]:
    """Copy a device array to the host."""
    n_bytes = math.prod(view.shape) * view.dtype.itemsize
    return fetch(device, view.address, n_bytes).view(view.dtype).reshape(view.shape)


def fetch(device: Device, address: int, n_bytes: int) -> Bytes:
    """Copy bytes to the host, and wait for them."""
    target = np.empty(n_bytes, dtype=np.uint8)
    if n_bytes:
        stream = device.current_stream()
        device.download(target, address, stream)
        device.finish(device.record(stream))
    return target


def upload(device: Device, values: NDArray[Any]) -> Memory:
    """Copy an array to the device, and wait for it."""
    source = np.ascontiguousarray(values).view(np.uint8).ravel()
    memory = device.allocate(source.nbytes)
    if source.nbytes:
        stream = device.current_stream()
        device.upload(memory.address, source, stream)
        device.finish(device.record(stream))
    return memory


# -- tables by the Arrow C device interface -------------------------------------------------------


class _Schema:
    """A schema that is known as a capsule."""

    def __init__(self, capsule: object) -> None:
        self._capsule = capsule

    def __arrow_c_schema__(self) -> object:
        return self._capsule


@dataclass(frozen=True, slots=True)
class ArrowTable:
    """The record batches of a table on a device; nothing of it has been read."""

    schema: pa.Schema
    batches: list[DeviceArray]

    @property
    def n_rows(self) -> int:
        """Rows of all batches."""
        return sum(batch.tree["length"] for batch in self.batches)


def read_table(data: object, device: Device) -> ArrowTable | None:
    """Take over a table that lies on a device; None when it lies on the host.

    Raises
    ------
    DataError
        When it lies on another device, or has rows that are null as a whole.
    """
    if isinstance(data, pa.Table | pa.RecordBatch | pa.RecordBatchReader | Batch | Mapping):
        return None
    if hasattr(data, "__arrow_c_device_array__"):
        capsule, array = data.__arrow_c_device_array__()
        batches = [DeviceArray(array)]
        device_type = batches[0].device_type
    elif hasattr(data, "__arrow_c_device_stream__"):
        stream = data.__arrow_c_device_stream__()
        device_type, capsule, batches = drain_device_stream(stream)
    else:
        return None
    if device_type not in CUDA_MEMORY:
        return None
    schema = pa.schema(_Schema(capsule))
    stream = device.current_stream()
    for batch in batches:
        check_device(schema.names[0] if schema.names else "", batch.device_id, device)
        if batch.tree["null_count"] > 0:
            raise DataError("some rows are null as a whole; give null columns instead")
        if batch.sync_event:
            device.wait_foreign(stream, batch.sync_event)
    if len(set(schema.names)) < len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise DataError(f"column {twice!r} appears twice; rename one of them")
    return ArrowTable(schema, batches)


def arrow_column(table: ArrowTable, name: str) -> DeviceColumn | None:
    """View a column of the table; None when its type is one that no kernel reads."""
    number = table.schema.names.index(name)
    storage = storage_of(type_name(table.schema.types[number]))
    if storage is None:
        return None
    chunks, first_row = [], 0
    for source, batch in enumerate(table.batches):
        rows, tree = batch.tree, batch.tree["children"][number]
        offset, n_rows = rows["offset"] + tree["offset"], rows["length"]
        validity, values = tree["buffers"][:2]
        if n_rows:
            at = values + offset * storage.n_bytes
            bit = offset if storage.packed else 0
            known = validity if tree["null_count"] != 0 else 0
            chunks.append(Chunk(first_row, n_rows, at, bit, known, offset, source))
        first_row += n_rows
    return DeviceColumn(storage, chunks, table)


def type_name(type_: pa.DataType) -> str:
    """Name of an Arrow type, as a batch writes it."""
    if pa.types.is_dictionary(type_):
        return f"dictionary<{type_name(type_.index_type)}, {type_name(type_.value_type)}>"
    return _ARROW_NAMES.get(str(type_), str(type_))


def fetch_column(table: ArrowTable, name: str, device: Device) -> pa.ChunkedArray:
    """Copy a column of the table to the host."""
    number = table.schema.names.index(name)
    type_ = table.schema.types[number]
    arrays = []
    for batch in table.batches:
        rows, tree = batch.tree, batch.tree["children"][number]
        span = (rows["offset"] + tree["offset"], rows["length"])
        arrays.append(_fetch_rows(name, tree, type_, span, device))
    return pa.chunked_array(arrays, type_)


def dictionary_tables(
    table: ArrowTable, counted: CountedColumn, column: DeviceColumn, device: Device
) -> DeviceColumn:
    """Give every chunk of a column of codes the slots of its dictionary's entries."""
    number = table.schema.names.index(counted.name)
    type_ = table.schema.types[number]
    met: dict[tuple[Any, ...], CodeTable] = {}
    chunks = []
    for chunk in column.chunks:
        tree = table.batches[chunk.source].tree["children"][number]["dictionary"]
        key = (*tree["buffers"], tree["offset"], tree["length"])
        if key not in met:
            span = (tree["offset"], tree["length"])
            entries = _fetch_rows(counted.name, tree, type_.value_type, span, device)
            codes = pa.array([], type_.index_type)
            coded = pa.DictionaryArray.from_arrays(codes, entries, safe=False)
            batch = as_batch(pa.RecordBatch.from_arrays([coded], names=[counted.name]))
            met[key] = chunk_table(batch, counted, 0).upload(device)
        chunks.append(replace(chunk, table=met[key]))
    return replace(column, chunks=chunks)


def chunk_table(batch: Batch, counted: CountedColumn, chunk: int) -> CodeTable:
    """Slots of the entries of a chunk's dictionary."""
    assert counted.categories is not None
    slots = dictionary_slots(batch, counted.name, chunk, counted.categories, counted.sentinels)
    return CodeTable(slots)


def _fetch_rows(
    name: str, tree: Mapping[str, Any], type_: pa.DataType, span: tuple[int, int], device: Device
) -> pa.Array:
    """Rows [offset, offset + length) of an array, from a whole byte of its bitmap on."""
    offset, length = span
    spare = offset % 8
    base, n = offset - spare, length + spare
    buffers = tree["buffers"]

    def bits(address: int) -> pa.Buffer:
        return pa.py_buffer(fetch(device, address + base // 8, (n + 7) // 8))

    if pa.types.is_null(type_):
        return pa.nulls(length)
    validity = bits(buffers[0]) if buffers[0] and tree["null_count"] != 0 else None
    if pa.types.is_dictionary(type_):
        indices = _fetch_rows(name, {**tree, "dictionary": None}, type_.index_type, span, device)
        entries = tree["dictionary"]
        inside = (entries["offset"], entries["length"])
        values = _fetch_rows(name, entries, type_.value_type, inside, device)
        return pa.DictionaryArray.from_arrays(indices, values, ordered=type_.ordered, safe=False)
    if pa.types.is_fixed_size_list(type_):
        members, width = tree["children"][0], type_.list_size
        inside = (members["offset"] + base * width, n * width)
        values = _fetch_rows(name, members, type_.value_type, inside, device)
        return pa.Array.from_buffers(type_, length, [validity], offset=spare, children=[values])
    if pa.types.is_boolean(type_):
        kept = [validity, bits(buffers[1])]
    elif pa.types.is_primitive(type_):
        width = type_.bit_width // 8
        kept = [validity, pa.py_buffer(fetch(device, buffers[1] + base * width, n * width))]
    elif type_ in (pa.string(), pa.binary(), pa.large_string(), pa.large_binary()):
        wide = np.dtype("i8" if type_ in (pa.large_string(), pa.large_binary()) else "i4")
        width = wide.itemsize
        offsets: NDArray[Any] = fetch(device, buffers[1] + base * width, (n + 1) * width).view(wide)
        first, last = (int(offsets[0]), int(offsets[-1])) if length else (0, 0)
        if not 0 <= first <= last:
            raise DataError(f"column {name!r}: broken Arrow array, its text offsets decrease")
        characters = fetch(device, buffers[2] + first, last - first)
        kept = [
            validity,
            pa.py_buffer(offsets - offsets.dtype.type(first)),
            pa.py_buffer(characters),
        ]
    else:
        raise DataError(
            f"column {name!r}: {type_} cannot be copied from a device; cast it there, text to "
            "string"
        )
    return pa.Array.from_buffers(type_, length, kept, offset=spare)
