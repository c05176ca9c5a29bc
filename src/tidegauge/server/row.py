"""One row as a caller gives it: what it may hold, what it weighs, a copy that stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypeAlias
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from tidegauge._core import DataError

Kind: TypeAlias = Literal["bool", "integer", "float", "text", "bytes", "time", "vector", "null"]
Row: TypeAlias = Mapping[str, Any]

KINDS: dict[type, Kind] = {
    type(None): "null",
    bool: "bool",
    np.bool_: "bool",
    int: "integer",
    float: "float",
    **dict.fromkeys((np.int8, np.int16, np.int32, np.int64, np.intc, np.longlong), "integer"),
    **dict.fromkeys((np.uint8, np.uint16, np.uint32, np.uint64, np.ulonglong), "integer"),
    **dict.fromkeys((np.float16, np.float32, np.float64), "float"),
    str: "text",
    np.str_: "text",
    UUID: "text",
    bytes: "bytes",
    np.bytes_: "bytes",
    datetime: "time",
    np.datetime64: "time",
    np.ndarray: "vector",
    list: "vector",
    tuple: "vector",
}
PLAIN = frozenset(
    kind for kind, name in KINDS.items() if name in ("null", "bool", "integer", "float")
)
"""Types of one small size whose values nobody can change."""

ROW_BYTES = 64  # a row's place in the queue
VALUE_BYTES = 32  # a number, or an empty text


def is_row(data: Mapping[str, Any]) -> bool:
    """Whether a mapping is one row, rather than columns: any of its values is a single one.

    >>> is_row({"id": 7, "vector": [0.1, 0.2]}), is_row({"id": [7, 8], "x": [0.1, 0.2]})
    (True, False)
    """
    return any(KINDS.get(type(value), "vector") != "vector" for value in data.values())


def weigh(row: Row) -> int:
    """Bytes of the texts of a row; -1 if `examine` has to look closer.

    >>> weigh({"id": "a17", "x": 0.5}), weigh({"id": "a17", "x": [0.5, 0.1]})
    (3, -1)
    """
    size = 0
    for value in row.values():
        kind = type(value)
        if kind is float or kind is int:
            continue
        if kind is str:
            size += len(value)
        elif kind not in PLAIN and not (kind is datetime and value.tzinfo is not None):
            return -1
    return size


def examine(row: dict[str, Any]) -> int:
    """Bytes of the texts and vectors of a row; vectors become copies.

    Raises
    ------
    DataError
        When a value cannot be sent; names the column.

    >>> examine({"id": "a17", "x": [0.5, 0.1]})
    11
    """
    size = 0
    for name, value in row.items():
        kind = KINDS.get(type(value))
        if kind is None:
            raise DataError(
                f"column {name!r}: a {type(value).__name__} cannot be sent; a row holds numbers, "
                "booleans, text, bytes, datetimes with a zone, vectors of floats, or None"
            )
        if kind == "vector":
            row[name] = vector = as_vector(name, value)
            size += vector.nbytes
        elif kind in ("text", "bytes"):
            size += len(str(value) if isinstance(value, UUID) else value)
        elif isinstance(value, datetime) and value.tzinfo is None:
            raise DataError(
                f"column {name!r}: the time {value.isoformat()} has no zone; give one, as in "
                "datetime.now(UTC), or a numpy.datetime64, which counts as UTC"
            )
    return size


def as_vector(name: str, value: object) -> NDArray[np.float32]:
    """Copy a vector as the wire has it."""
    try:
        vector: NDArray[np.float32] = np.array(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"column {name!r}: not a vector of floats ({error})") from None
    if vector.ndim != 1 or not len(vector):
        raise DataError(
            f"column {name!r}: a vector of one dimension is wanted, got shape {vector.shape}"
        )
    return vector
