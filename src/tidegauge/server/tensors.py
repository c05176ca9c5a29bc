"""Payloads of the Open Inference Protocol, version 2, as columns of a model's traffic.

A tensor of shape [n, k] is k columns of n rows; a name for each says which column of the traffic it
is. Values stay Python lists until a batch is written, since most payloads hold a single row.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tidegauge.server.batches import MAX_CELLS, MAX_COLUMNS, MAX_VECTOR
from tidegauge.server.cloudevents import is_unicode
from tidegauge.server.config import Names
from tidegauge.server.refused import invalid

_FLOATS = {"FP16": pa.float32(), "FP32": pa.float32(), "FP64": pa.float64()}
_INTEGERS = {
    f"{sign}INT{bits}": getattr(pa, f"{sign.lower()}int{bits}")()
    for sign in ("", "U")
    for bits in (8, 16, 32, 64)
}
TYPES = {"BOOL": pa.bool_(), **_INTEGERS, **_FLOATS, "BYTES": pa.string()}
_RAW = {name: np.dtype(type_.to_pandas_dtype()) for name, type_ in TYPES.items() if name != "BYTES"}
_RAW["FP16"] = np.dtype(np.float16)
_BOUNDS = {name: np.iinfo(_RAW[name]) for name in _INTEGERS}
_BEYOND = {"FP16": 65520.0, "FP32": 2.0**128 - 2.0**103}  # what rounds to infinity


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns of one length: name to Arrow type and values.

    >>> Rows(2, {"x": (pa.int64(), [1, 2])}).to_batch().to_pydict()
    {'x': [1, 2]}
    """

    n: int
    columns: dict[str, tuple[pa.DataType, list[Any]]]

    @property
    def shape(self) -> tuple[tuple[str, pa.DataType], ...]:
        """Names and types; rows of one shape can be put into one batch."""
        return tuple((name, type_) for name, (type_, _) in sorted(self.columns.items()))

    def to_batch(self) -> pa.RecordBatch:
        """Make an Arrow batch of them."""
        arrays = [pa.array(values, type_) for type_, values in self.columns.values()]
        return pa.RecordBatch.from_arrays(arrays, names=list(self.columns))


def joined(parts: Sequence[Rows]) -> Rows:
    """Put rows of one shape below each other.

    >>> one = Rows(1, {"x": (pa.int64(), [1])})
    >>> joined([one, one]).columns["x"][1]
    [1, 1]
    """
    if len(parts) == 1:
        return parts[0]
    columns = {
        name: (type_, [value for part in parts for value in part.columns[name][1]])
        for name, (type_, _) in parts[0].columns.items()
    }
    return Rows(sum(part.n for part in parts), columns)


def read_tensors(
    payload: Mapping[str, Any], side: str, *, names: Mapping[str, Names], known: Collection[str]
) -> Rows:
    """Read the tensors of a payload that are columns of the traffic.

    Parameters
    ----------
    payload
        An inference request or response, parsed.
    side
        "inputs" or "outputs".
    names
        Tensor to what its columns are.
    known
        Columns of the traffic. A tensor that `names` leaves out is the column of its own name if it
        has one, and column i of it is "name.i"; what is not among these is passed over.

    Raises
    ------
    Refused
        When a tensor is not what it says, none is known, or they differ in rows.

    >>> payload = {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP64",
    ...                        "data": [1.0, 2.0, 3.0, 4.0]}]}
    >>> rows = read_tensors(payload, "inputs", names={"x": ("a", "b")}, known=["a", "b"])
    >>> rows.to_batch().to_pydict()
    {'a': [1.0, 3.0], 'b': [2.0, 4.0]}
    """
    tensors = payload.get(side)
    if not isinstance(tensors, list) or not tensors:
        raise invalid(side, "a list of tensors is wanted")
    raw = payload.get(f"raw_{side[:-1]}_contents")
    if raw is not None and (not isinstance(raw, list) or len(raw) != len(tensors)):
        raise invalid(
            f"raw_{side[:-1]}_contents", f"wanted are {len(tensors)}, one for each tensor"
        )
    known = dict.fromkeys(known)
    columns: dict[str, tuple[pa.DataType, list[Any]]] = {}
    n: int | None = None
    for place, tensor in enumerate(tensors):
        where = f"{side}[{place}]"
        name, rows, width = _head(tensor, where)
        wanted = _wanted(name, width, names, known, where)
        if not wanted:
            continue
        n = rows if n is None else n
        if rows != n:
            raise invalid(f"{where}.shape", f"has {rows} rows, the tensors before it have {n}")
        datatype = tensor.get("datatype")
        if not isinstance(datatype, str) or datatype not in TYPES:
            raise invalid(f"{where}.datatype", f"got {datatype!r}; allowed: {', '.join(TYPES)}")
        if raw is not None:
            field = f"raw_{side[:-1]}_contents[{place}]"
            values = _raw_values(raw[place], datatype, rows * width, field)
        else:
            values = _values(tensor.get("data"), datatype, rows * width, f"{where}.data")
        for column, found in _columns(wanted, TYPES[datatype], values, width, where):
            if column in columns:
                raise invalid(where, f"column {column!r} comes from two tensors")
            columns[column] = found
            if len(columns) > MAX_COLUMNS or len(columns) * n > MAX_CELLS:
                raise invalid(side, f"more than {MAX_COLUMNS} columns or {MAX_CELLS} values")
    if n is None:
        came = ", ".join(repr(str(tensor.get("name"))[:80]) for tensor in tensors[:10])
        allowed = ", ".join([*names, *known][:20])
        raise invalid(side, f"no tensor is known; came: {came}; known: {allowed}")
    return Rows(n, columns)


def _head(tensor: Any, where: str) -> tuple[str, int, int]:
    """Name, rows and columns of a tensor."""
    if not isinstance(tensor, Mapping):
        raise invalid(where, "a tensor with name, shape, datatype and data is wanted")
    name, shape = tensor.get("name"), tensor.get("shape")
    if not isinstance(name, str):
        raise invalid(f"{where}.name", "a text is wanted")
    # Texts are how the JSON of protobuf writes 64 bits.
    sizes = (
        [int(s) if isinstance(s, str) and s.isdecimal() and len(s) < 20 else s for s in shape]
        if isinstance(shape, list)
        else []
    )
    if not sizes or not all(type(size) is int and 0 <= size <= MAX_CELLS for size in sizes):
        raise invalid(
            f"{where}.shape", f"got {str(shape)[:80]}; wanted is [rows, …], each a number"
        )
    width = math.prod(sizes[1:])
    if sizes[0] * width > MAX_CELLS:
        raise invalid(f"{where}.shape", f"{sizes[0] * width} values; allowed are {MAX_CELLS}")
    return name, sizes[0], width


def _wanted(
    name: str, width: int, names: Mapping[str, Names], known: Collection[str], where: str
) -> Names:
    """What the columns of a tensor are; empty where it is passed over."""
    if name not in names:
        if width == 1 and name in known:
            return name
        prefix = f"{name}."
        if not any(column.startswith(prefix) for column in known):
            return ""
        own = tuple(f"{name}.{i}" if f"{name}.{i}" in known else "" for i in range(width))
        return own if any(own) else ""
    wanted = names[name]
    if not isinstance(wanted, str) and len(wanted) != width:
        raise invalid(
            f"{where}.shape", f"tensor {name!r} has {width} columns; {len(wanted)} have names"
        )
    return wanted


def _columns(
    wanted: Names, type_: pa.DataType, values: list[Any], width: int, where: str
) -> list[tuple[str, tuple[pa.DataType, list[Any]]]]:
    if isinstance(wanted, tuple):
        return [(name, (type_, values[i::width])) for i, name in enumerate(wanted) if name]
    if width == 1:
        return [(wanted, (type_, values))]
    if not pa.types.is_floating(type_) or not 1 <= width <= MAX_VECTOR:
        raise invalid(
            where,
            f"{width} columns as one: vectors have 1 to {MAX_VECTOR} floats; name the columns",
        )
    vectors = [values[start : start + width] for start in range(0, len(values), width)]
    return [(wanted, (pa.list_(pa.float32(), width), vectors))]


def _values(data: Any, datatype: str, n: int, where: str) -> list[Any]:
    """Check and flatten the values of a tensor; each is of the type it is said to be."""
    if not isinstance(data, list):
        raise invalid(where, "a list of values is wanted")
    values: list[Any] = data
    while values and isinstance(values[0], list):
        if not all(isinstance(part, list) for part in values):
            raise invalid(where, "lists and values are mixed")
        values = [value for part in values for value in part]
        if len(values) > MAX_CELLS:
            raise invalid(where, f"more than {MAX_CELLS} values")
    if len(values) != n:
        raise invalid(where, f"{len(values)} values; the shape says {n}")
    if datatype in _FLOATS:
        return _floats(values, datatype, where)
    if datatype == "BOOL":
        sound = all(type(value) is bool for value in values)
    elif datatype == "BYTES":
        sound = all(type(value) is str for value in values) and is_unicode("".join(values))
    else:
        bounds = _BOUNDS[datatype]
        sound = all(type(value) is int for value in values)
        sound = sound and (not n or (bounds.min <= min(values) and max(values) <= bounds.max))
    if not sound:
        raise invalid(where, f"holds values that are not {datatype}")
    return values


def _floats(data: list[Any], datatype: str, where: str) -> list[float]:
    """Floats as they are, infinite ones too, and integers as floats; none that is too large."""
    try:
        if all(type(value) in (float, int) for value in data):
            values = [float(value) for value in data]
            largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
            if largest < _BEYOND.get(datatype, math.inf):
                return values
    except OverflowError:  # an integer beyond the doubles
        pass
    raise invalid(where, f"holds values that are not {datatype}")


def _raw_values(data: Any, datatype: str, n: int, where: str) -> list[Any]:
    """Read values as the machine had them, little-endian, in base64."""
    try:
        content = base64.b64decode(data, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise invalid(where, "base64 is wanted") from None
    if datatype == "BYTES":
        return _raw_texts(content, n, where)
    dtype = _RAW[datatype].newbyteorder("<")
    if len(content) != n * dtype.itemsize:
        raise invalid(where, f"{len(content)} bytes; {n} values of {datatype} are wanted")
    if datatype == "BOOL":
        return [bool(value) for value in content]
    values: list[Any] = np.frombuffer(content, dtype).tolist()
    return values


def _raw_texts(content: bytes, n: int, where: str) -> list[str]:
    """Read texts, each after its length in four bytes."""
    texts: list[str] = []
    place = 0
    try:
        while place < len(content):
            length = struct.unpack_from("<I", content, place)[0]
            text = content[place + 4 : place + 4 + length]
            if len(text) < length:
                raise invalid(where, "ends within a text")
            texts.append(text.decode())
            place += 4 + length
    except (struct.error, UnicodeDecodeError):
        raise invalid(
            where, "texts of UTF-8, each after its length in four bytes, are wanted"
        ) from None
    if len(texts) != n:
        raise invalid(where, f"{len(texts)} texts; the shape says {n}")
    return texts
