"""Packs rows into columns as they go over the wire: NumPy alone, in the client's own thread.

A column has one type in a message. Rows that differ in their columns, or in what a column holds,
go in messages of their own, so that a missing column is never taken for a missing value and one bad
row never spoils the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tidegauge._core import DataError
from tidegauge.server.batches import MAX_CELLS
from tidegauge.server.row import KINDS, Kind, Row
from tidegauge.v1 import batch_pb2 as wire

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAT = np.iinfo(np.int64).min
_NUMBERS = frozenset(("bool", "integer", "float"))
_NULL = type(None)


def pack_rows(
    rows: Sequence[Row], refuse: Callable[[Row, str], None]
) -> Iterator[wire.ColumnBatch]:
    """Pack rows; those that cannot be packed are handed to `refuse` with the reason.

    >>> rows = [{"id": 1, "plan": "a"}, {"id": 2, "plan": None}, {"id": 3}]
    >>> [batch.row_count for batch in pack_rows(rows, refuse=print)]
    [2, 1]
    """
    for names, alike in _by(rows, _names):
        most = max(1, MAX_CELLS // len(names))  # of one message
        for start in range(0, len(alike), most):
            yield from _pack(names, alike[start : start + most], refuse)


def _names(row: Row) -> tuple[str, ...]:
    return tuple(row)


def _by(
    rows: Sequence[Row], key: Callable[[Row], tuple[Any, ...]]
) -> Iterator[tuple[tuple[Any, ...], list[Row]]]:
    """Rows of one key at a time, in the order in which the keys came."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    yield from groups.items()


def _pack(
    names: tuple[str, ...], rows: list[Row], refuse: Callable[[Row, str], None]
) -> Iterator[wire.ColumnBatch]:
    """Pack rows of the same columns."""
    values: Sequence[Sequence[Any]]
    if len(names) == 1:
        values = [[row[names[0]] for row in rows]]
    else:
        values = list(zip(*map(itemgetter(*names), rows), strict=True))
    try:
        batch = wire.ColumnBatch(row_count=len(rows))
        for name, column in zip(names, values, strict=True):
            batch.columns.append(pack_column(name, column))
        yield batch
    except (DataError, TypeError, ValueError, OverflowError) as error:
        if len(rows) == 1:
            refuse(rows[0], str(error))
            return
        groups = [alike for _, alike in _by(rows, _kinds)]
        if len(groups) == 1:
            middle = len(rows) // 2
            groups = [rows[:middle], rows[middle:]]
        for group in groups:
            yield from _pack(names, group, refuse)


def _kinds(row: Row) -> tuple[Any, ...]:
    """What each value of a row is; numbers are alike, vectors are of one length."""
    kinds = (KINDS[type(value)] for value in row.values())
    return tuple(
        ("vector", len(value)) if kind == "vector" else "number" if kind in _NUMBERS else kind
        for kind, value in zip(kinds, row.values(), strict=True)
    )


def pack_column(name: str, values: Sequence[Any]) -> wire.Column:
    r"""Pack the values of a column: one kind of them, and None where there is no value.

    Integers and floats together are floats; a column of None alone is one of floats.

    Raises
    ------
    DataError
        When the values are of several kinds, or do not fit into a type of the wire.

    >>> column = pack_column("age", [31, None, 45])
    >>> np.frombuffer(column.data, np.int64).tolist(), column.validity
    ([31, 0, 45], b'\x05')
    """
    types = set(map(type, values))
    missing = _NULL in types
    kinds = {KINDS[one] for one in types if one is not _NULL}
    if len(kinds) > 1 and not kinds <= _NUMBERS:
        raise DataError(f"column {name!r} holds {' and '.join(sorted(kinds))}")
    kind = next((one for one in ("float", "integer") if one in kinds), None) or min(
        kinds, default="float"
    )
    present = None
    if missing:
        present = np.fromiter((value is not None for value in values), np.bool_, len(values))
    column = _PACKERS[cast("Kind", kind)](name, values, types)
    column.name = name
    if kind == "time":  # NaT, too, is no value
        known = np.frombuffer(column.data, np.int64) != _NAT
        if not known.all():
            present = known if present is None else present & known
    if present is not None:
        column.validity = np.packbits(present, bitorder="little").tobytes()
    return column


def _pack_float(name: str, values: Sequence[Any], types: set[type]) -> wire.Column:
    wide = np.array(values, np.float64)  # None becomes NaN
    return wire.Column(type=wire.DATA_TYPE_FLOAT64, data=wide.tobytes())


def _pack_integer(name: str, values: Sequence[Any], types: set[type]) -> wire.Column:
    whole = values if types == {int} else [0 if value is None else int(value) for value in values]
    if max(whole) <= np.iinfo(np.int64).max and min(whole) >= _NAT:
        data: NDArray[Any] = np.array(whole, np.int64)
        return wire.Column(type=wire.DATA_TYPE_INT64, data=data.tobytes())
    if min(whole) < 0 or max(whole) > np.iinfo(np.uint64).max:
        raise DataError(f"column {name!r}: integers beyond 64 bits; send longer ids as text")
    return wire.Column(type=wire.DATA_TYPE_UINT64, data=np.array(whole, np.uint64).tobytes())


def _pack_bool(name: str, values: Sequence[Any], types: set[type]) -> wire.Column:
    bits = np.fromiter(map(bool, values), np.bool_, len(values))
    data = np.packbits(bits, bitorder="little").tobytes()
    return wire.Column(type=wire.DATA_TYPE_BOOL, data=data)


def _pack_text(name: str, values: Sequence[Any], types: set[type]) -> wire.Column:
    texts = values if types == {str} else ["" if v is None else str(v) for v in values]
    joined = "".join(texts)
    if joined.isascii():
        return _pack_bytes(name, [joined.encode()], types, lengths=list(map(len, texts)))
    # Half a surrogate pair has no UTF-8; it is written out, so that two ids never become one.
    return _pack_bytes(name, [text.encode("utf-8", "backslashreplace") for text in texts], types)


def _pack_bytes(
    name: str, values: Sequence[Any], types: set[type], *, lengths: list[int] | None = None
) -> wire.Column:
    parts = [b"" if value is None else value for value in values]
    ends = np.cumsum(lengths or list(map(len, parts)), dtype=np.int64)
    if len(ends) and ends[-1] > np.iinfo(np.int32).max:
        raise DataError(f"column {name!r}: {ends[-1]:,} bytes of text in one message")
    offsets = np.zeros(len(ends) + 1, np.int32)
    offsets[1:] = ends
    kind = wire.DATA_TYPE_BINARY if types & {bytes, np.bytes_} else wire.DATA_TYPE_STRING
    return wire.Column(type=kind, data=b"".join(parts), offsets=offsets.tobytes())


def _pack_time(name: str, values: Sequence[Any], types: set[type]) -> wire.Column:
    moments = np.fromiter(map(_microseconds, values), np.int64, len(values))
    return wire.Column(type=wire.DATA_TYPE_TIMESTAMP, data=moments.tobytes())


def _microseconds(moment: datetime | np.datetime64 | None) -> int:
    """Microseconds since 1970, UTC; the smallest number where there is none."""
    if moment is None:
        return _NAT
    if isinstance(moment, np.datetime64):
        return int(moment.astype("datetime64[us]").astype(np.int64))
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _pack_vector(name: str, values: Sequence[Any], types: set[type]) -> wire.Column:
    widths = {len(value) for value in values if value is not None}
    if len(widths) > 1:
        raise DataError(f"column {name!r}: vectors of {' and '.join(map(str, sorted(widths)))}")
    width = widths.pop()
    empty = np.zeros(width, np.float32)
    data = b"".join((empty if value is None else value).tobytes() for value in values)
    return wire.Column(type=wire.DATA_TYPE_VECTOR, data=data, width=width)


_PACKERS: dict[Kind, Callable[[str, Sequence[Any], set[type]], wire.Column]] = {
    "float": _pack_float,
    "integer": _pack_integer,
    "bool": _pack_bool,
    "text": _pack_text,
    "bytes": _pack_bytes,
    "time": _pack_time,
    "vector": _pack_vector,
}
