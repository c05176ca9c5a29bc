"""Rows as JSON objects, for callers that have nothing but a way to send text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tidegauge.schema import Schema
from tidegauge.server.batches import MAX_CELLS, MAX_VECTOR
from tidegauge.server.cloudevents import is_unicode, read_time
from tidegauge.server.refused import invalid
from tidegauge.server.tensors import Rows

TIME = pa.timestamp("us", tz="UTC")


def read_records(entries: Any, schema: Schema, field: str, *, short: bool = False) -> Rows:
    """Read an object, or a list of them, as rows.

    Parameters
    ----------
    entries
        Objects of column name to number, truth value, text, null, or list of numbers; times are
        texts of RFC 3339. What is not in the schema is passed over.
    schema
        Of the model.
    field
        Where they stand, for errors.
    short
        Whether "id", "label" and "time" stand for the columns with these roles.

    Raises
    ------
    Refused
        When a value is nothing that a column can hold, or a column has values of two types.

    >>> schema = Schema(features=["age"], prediction_id="person")
    >>> read_records({"person": 7, "age": 31}, schema, "data").to_batch().to_pydict()
    {'age': [31], 'person': [7]}
    """
    records = entries if isinstance(entries, list) else [entries]
    if not records or not all(isinstance(record, Mapping) for record in records):
        raise invalid(field, "an object of column to value is wanted, or a list of them")
    roles = {"id": schema.prediction_id, "label": schema.label, "time": schema.timestamp}
    columns = dict.fromkeys(schema.columns)
    values: dict[str, list[Any]] = {}
    for place, record in enumerate(records):
        for name, value in record.items():
            column = (roles.get(name) or name) if short else name
            if column not in columns:
                continue
            found = values.setdefault(column, [])
            if len(found) > place:
                raise invalid(f"{field}[{place}].{name}", f"gives column {column!r} twice")
            found += [None] * (place - len(found))
            found.append(value)
    if not values:
        came = ", ".join(str(name)[:80] for name in list(records[0])[:10])
        raise invalid(field, f"no column is known; came: {came}; known: {', '.join(columns)}")
    if len(records) * len(values) > MAX_CELLS:
        raise invalid(field, f"more than {MAX_CELLS} values")
    typed = {}
    for name in columns:  # in the schema's order, so that rows of one shape are found alike
        if name in values:
            found = values[name] + [None] * (len(records) - len(values[name]))
            typed[name] = _typed(
                found, f"{field}.{name}", time=name in schema.times, real=name in schema.reals
            )
    return Rows(len(records), typed)


def _typed(
    values: list[Any], where: str, *, time: bool, real: bool
) -> tuple[pa.DataType, list[Any]]:
    kinds = {type(value) for value in values if value is not None}
    if time and kinds <= {str}:
        return TIME, [None if value is None else read_time(value, where) for value in values]
    if not kinds:
        return pa.float64() if real else pa.string(), values
    if kinds == {bool}:
        return pa.bool_(), values
    if kinds == {str}:
        return pa.string(), _texts(values, where)
    if kinds == {int} and not real:
        if all(value is None or -(1 << 63) <= value < 1 << 63 for value in values):
            return pa.int64(), values
    elif kinds <= {int, float}:
        return pa.float64(), [None if value is None else _real(value, where) for value in values]
    elif kinds == {list}:
        return _vectors(values, where)
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise invalid(where, f"holds values of {names}; numbers, truth values or texts are wanted")


def _real(value: float, where: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise invalid(where, "holds an integer that is too large") from None


def _texts(values: list[str | None], where: str) -> list[Any]:
    if not is_unicode("".join(value for value in values if value is not None)):
        raise invalid(where, "holds a text that is not Unicode")
    return values


def _vectors(values: list[Any], where: str) -> tuple[pa.DataType, list[Any]]:
    widths = {len(value) for value in values if value is not None}
    width = widths.pop()
    if widths or not 1 <= width <= MAX_VECTOR:
        raise invalid(where, f"vectors of one length from 1 to {MAX_VECTOR} are wanted")
    members = {type(member) for value in values if value is not None for member in value}
    if not members <= {int, float}:
        raise invalid(where, "vectors of numbers are wanted")
    rows = [None if row is None else [_real(member, where) for member in row] for row in values]
    return pa.list_(pa.float32(), width), rows
