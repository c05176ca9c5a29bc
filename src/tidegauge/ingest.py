"""Reads the roles of a batch into plain arrays; what cannot be read is rejected before counting."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidegauge._core import (
    INVALID,
    MISSING,
    NAN,
    NEVER,
    UNSEEN,
    Batch,
    DataError,
    Vocabulary,
    find_codes,
    intern_codes,
    read_instants,
    read_keys,
    read_numbers,
    read_times,
)

if TYPE_CHECKING:
    from tidegauge.layout import Layout
    from tidegauge.schema import Schema

TILE = 1 << 16  # rows whose roles are in memory at once: 100 bytes a row, more with many scores
LARGEST_VALUE = 1e35  # of a regression: weighted fourth powers must stay below 2**512
LARGEST_WEIGHT = 4096.0
EARLIEST = int(np.datetime64("0001-01-01", "us").astype(np.int64))
_NAMELESS = ("time", "vector", "other")  # types whose values have no name as a category
AHEAD = 366 * 86_400 * 1_000_000  # how far ahead of the clock a timestamp may lie, microseconds


def as_batch(data: object) -> Batch:
    """View any tabular object as a batch, without copying its values.

    Accepts whatever speaks the Arrow PyCapsule protocol (pyarrow, polars, pandas, DuckDB, …) and
    mappings of column name to NumPy array or sequence.

    Raises
    ------
    DataError
        When the object is not tabular, or the columns of a mapping differ in length.

    >>> as_batch({"x": np.arange(3)}).n_rows
    3
    """
    if isinstance(data, Batch):
        return data
    if isinstance(data, Mapping):
        data = _table(data)
    if hasattr(data, "__arrow_c_array__"):
        return Batch.from_array(*data.__arrow_c_array__())
    if hasattr(data, "__arrow_c_stream__"):
        return Batch.from_stream(data.__arrow_c_stream__())
    raise _no_table(data)


def as_table(data: object) -> pa.Table:
    """View a tabular object as an Arrow table, so that rows can be taken from it.

    >>> as_table({"x": np.arange(3)}).num_rows
    3
    """
    if isinstance(data, Batch):
        raise DataError("rows are sampled from tables; give the table itself")
    if isinstance(data, Mapping):
        return _table(data)
    if not (hasattr(data, "__arrow_c_array__") or hasattr(data, "__arrow_c_stream__")):
        raise _no_table(data)
    return pa.table(data)


def _no_table(data: object) -> DataError:
    return DataError(
        f"got {type(data).__name__}; a table is wanted: an object with __arrow_c_stream__ "
        "(pyarrow, polars, pandas 2.2 or later, DuckDB) or a dict of column name to array"
    )


def _table(columns: Mapping[str, Any]) -> pa.Table:
    arrays = {}
    for name, values in columns.items():
        if not isinstance(name, str):
            raise DataError(f"column names are text, got {name!r}")
        if isinstance(values, np.ndarray) and values.ndim != 1:
            arrays[name] = _vectors(name, values)
            continue
        if hasattr(values, "__cuda_array_interface__"):
            raise DataError(
                f"column {name!r}: lies on a CUDA device; use device='cuda', or copy it to the host"
            )
        fixed = isinstance(values, np.ndarray) and values.dtype.kind in "US"
        readable = values.astype(object) if fixed else values
        try:
            ready = hasattr(readable, "__arrow_c_array__")
            arrays[name] = readable if ready else pa.array(readable)
        except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
            came = f"a {type(values).__name__}"
            if isinstance(values, np.ndarray):
                came = f"an array of {values.dtype}"
            raise DataError(
                f"column {name!r}: {came} cannot be read as one type ({error}); give numbers, "
                "booleans, text or times, as an Arrow array or in a NumPy dtype of 8 to 64 bits"
            ) from None
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"columns differ in length: {lengths}")
    return pa.table(arrays)


def _vectors(name: str, values: NDArray[Any]) -> pa.FixedSizeListArray:
    """Rows of a matrix of floats as lists, without a copy where they lie one after another."""
    floats = values.dtype.kind == "f" and values.dtype.itemsize <= 8
    if values.ndim != 2 or not floats or not values.shape[1]:
        raise DataError(
            f"column {name!r}: one dimension is wanted, or a matrix of float16, float32 or "
            f"float64 with a vector a row, got shape {values.shape} of {values.dtype}"
        )
    members = pa.array(np.ascontiguousarray(values).ravel())
    return pa.FixedSizeListArray.from_arrays(members, values.shape[1])


class _Sized(Protocol):
    @property
    def n_rows(self) -> int: ...


def tiles(
    batch: _Sized, schema: Schema | None = None, n_rows: int | None = None
) -> Iterator[tuple[int, int]]:
    """Row ranges of a batch that are read at once; all rows where features stand as they came."""
    alike = schema is not None and not any(_row_roles(schema))
    size = batch.n_rows if alike else n_rows or TILE
    for start in range(0, batch.n_rows, max(size, 1)):
        yield start, min(start + size, batch.n_rows)


def _row_roles(schema: Schema) -> tuple[object, ...]:
    """Everything for which arrays are made of the rows."""
    return (
        schema.task,
        schema.timestamp,
        schema.prediction_id,
        schema.model_version,
        schema.weight,
        schema.label,
        schema.segment_columns,
        schema.derivations,
    )


def spread(values: NDArray[Any], n: int) -> NDArray[Any]:
    """One entry a row, where a single one stands for all of them."""
    return values if len(values) == n else np.repeat(values, n)


def numbers_of(batches: Sequence[Batch], name: str, *, times: bool = False) -> NDArray[np.float64]:
    """All values of a column as doubles, NaN where missing; those of another type are left out."""
    read = read_instants if times else read_numbers
    wanted = ("time",) if times else ("bool", "integer", "float")
    parts = [read(batch, name, 0, batch.n_rows) for batch in batches if batch.kind(name) in wanted]
    return np.concatenate(parts) if parts else np.empty(0)


def first_texts(batches: Sequence[Batch], name: str, limit: int) -> list[str]:
    """Distinct values of a column as texts, in the order met, `limit` at most."""
    vocabulary = Vocabulary([], limit)
    for batch in batches:
        if batch.kind(name) in ("bool", "integer", "float", "text"):
            for start, stop in tiles(batch):
                intern_codes(batch, name, vocabulary, start, stop)
    return vocabulary.texts


@dataclass(frozen=True, slots=True)
class Predictions:
    """The roles of some predictions, one entry a row, or a single one where all rows are alike."""

    times: NDArray[np.int64]  # microseconds, a single 0 where the schema has no timestamp
    keys: NDArray[np.uint64] | None  # [n, 2]
    decisions: NDArray[np.int32]  # -1 where there is none, a single one where there are none at all
    values: NDArray[np.float64]  # [n * n_values]
    weights: NDArray[np.float64]  # empty where every row weighs 1
    labels: NDArray[np.float64] | None  # NaN where not known yet


@dataclass(frozen=True, slots=True)
class Labels:
    """The roles of some outcomes, one entry a row."""

    keys: NDArray[np.uint64]
    labels: NDArray[np.float64]
    times: NDArray[np.int64]


def read_predictions(
    batch: Batch,
    layout: Layout,
    start: int,
    stop: int,
    *,
    secret: tuple[int, int] | None,
    timestamp: str | None,
) -> Predictions:
    """Read the roles of rows [start, stop); ids need their secret, times a named column."""
    schema = layout.schema
    _check_groups(batch, schema)
    times = np.zeros(1, dtype=np.int64)
    if timestamp is not None:
        times = _read_event_times(batch, timestamp, start, stop)
    keys = None
    if secret is not None and schema.prediction_id is not None:
        require(batch, schema.prediction_id, "prediction_id")
        keys = read_keys(batch, schema.prediction_id, start, stop, secret)
    decisions, values = _read_decisions(batch, layout, start, stop)
    if layout.event_model is not None:
        said = layout.event_model(batch, layout.columns, (start, stop), values)
        values = np.column_stack([values, said]).ravel()
    weights = np.empty(0)
    if schema.weight is not None:
        require(batch, schema.weight, "weight")
        weights = read_numbers(batch, schema.weight, start, stop)
        _reject(
            schema.weight,
            start,
            ~((weights >= 0) & (weights <= LARGEST_WEIGHT)),
            weights,
            f"a weight lies in [0, {LARGEST_WEIGHT:g}]",
        )
    labels = None
    if schema.label is not None and batch.kind(schema.label) not in ("absent", "empty", "null"):
        labels = _read_labels(batch, layout, start, stop)
    return Predictions(times, keys, decisions, values, weights, labels)


def _check_groups(batch: Batch, schema: Schema) -> None:
    """Reject versions and segments of a type that has no names."""
    for name in (schema.model_version, *schema.segment_columns):
        if name is not None and batch.kind(name) in _NAMELESS:
            raise DataError(
                f"column {name!r}: versions and segments are text, numbers or booleans, got "
                f"{batch.types[batch.names.index(name)]}"
            )


def read_labels(
    batch: Batch, layout: Layout, start: int, stop: int, *, secret: tuple[int, int]
) -> Labels:
    """Read the roles of outcomes in rows [start, stop)."""
    schema = layout.schema
    assert schema.prediction_id is not None
    assert schema.label is not None
    require(batch, schema.prediction_id, "prediction_id")
    require(batch, schema.label, "label")
    keys = read_keys(batch, schema.prediction_id, start, stop, secret)
    labels = _read_labels(batch, layout, start, stop)
    if schema.timestamp is not None and batch.kind(schema.timestamp) != "absent":
        times = _read_event_times(batch, schema.timestamp, start, stop)
    else:
        times = np.full(stop - start, NEVER, dtype=np.int64)
    return Labels(keys, labels, times)


def _read_event_times(batch: Batch, name: str, start: int, stop: int) -> NDArray[np.int64]:
    require(batch, name, "timestamp")
    times = read_times(batch, name, start, stop)
    if len(times) and int(times.max()) > time.time_ns() // 1000 + AHEAD:
        row = start + int(times.argmax())
        moment = np.datetime64(int(times.max()), "us")
        raise DataError(
            f"column {name!r}: row {row} lies at {moment} UTC, more than a year ahead of the "
            "clock; one such event would close every window before it. Check unit and zone"
        )
    if len(times) and int(times.min()) < EARLIEST:
        row = start + int(times.argmin())
        raise DataError(f"column {name!r}: row {row} lies before the year 1. Check unit and zone")
    return times


def _read_decisions(
    batch: Batch, layout: Layout, start: int, stop: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Decided class (or -1) and scores or predicted value of each row."""
    schema = layout.schema
    n = stop - start
    scores = []
    for name in schema.score_columns:
        require(batch, name, "prediction_score")
        score = read_numbers(batch, name, start, stop)
        _reject(name, start, (score < 0) | (score > 1), score, "a score lies in [0, 1]")
        scores.append(score)
    if schema.prediction is not None:
        require(batch, schema.prediction, "prediction")
    if schema.task is None:
        return np.full(1, -1, dtype=np.int32), np.empty(0)
    if schema.task == "regression":
        assert schema.prediction is not None
        predicted = read_numbers(batch, schema.prediction, start, stop)
        predicted[~np.isfinite(predicted)] = np.nan
        _reject(schema.prediction, start, np.abs(predicted) > LARGEST_VALUE, predicted, _IN_RANGE)
        return np.full(1, -1, dtype=np.int32), predicted
    values = np.stack(scores, axis=1).ravel() if scores else np.full(n, np.nan)
    if schema.prediction is not None:
        decided = _read_classes(batch, schema.prediction, layout, start, stop)
        return np.where(np.isnan(decided), -1, decided).astype(np.int32), values
    table = values.reshape(n, layout.n_scores)
    scored = ~np.isnan(table).any(axis=1)
    if schema.task == "binary":
        chosen = table[:, 0] >= schema.threshold
    else:
        chosen = np.where(scored[:, None], table, 0.0).argmax(axis=1)
    return np.where(scored, chosen, -1).astype(np.int32), values


def _read_labels(batch: Batch, layout: Layout, start: int, stop: int) -> NDArray[np.float64]:
    """Labels as numbers: 0 or 1, the index of the class, or the value; NaN where not known."""
    name = layout.schema.label
    assert name is not None
    if layout.schema.task != "regression":
        return _read_classes(batch, name, layout, start, stop)
    labels = read_numbers(batch, name, start, stop)
    labels[~np.isfinite(labels)] = np.nan
    _reject(name, start, np.abs(labels) > LARGEST_VALUE, labels, _IN_RANGE)
    return labels


_IN_RANGE = f"a value lies within ±{LARGEST_VALUE:g}"


def _read_classes(
    batch: Batch, name: str, layout: Layout, start: int, stop: int
) -> NDArray[np.float64]:
    """Classes of a label or decision column as numbers, NaN where null."""
    schema = layout.schema
    kind = batch.kind(name)
    if kind in ("null", "empty"):
        return np.full(stop - start, np.nan)
    if kind in _NAMELESS:
        raise DataError(
            f"column {name!r}: classes are numbers, text or booleans, got "
            f"{batch.types[batch.names.index(name)]}"
        )
    if schema.task == "binary" and schema.positive is None:
        if kind == "text":
            raise DataError(
                f"column {name!r}: classes are 0 and 1 or booleans, got text; name the positive "
                "one by Schema(positive=...)"
            )
        classes = read_numbers(batch, name, start, stop)
        bad = ~(np.isnan(classes) | (classes == 0) | (classes == 1))
        _reject(name, start, bad, classes, "a class is 0 or 1")
        return classes
    known = [schema.positive] if schema.task == "binary" else layout.classes
    codes = find_codes(
        batch, name, Vocabulary([str(text) for text in known], len(known)), start, stop
    )
    if (codes == INVALID).any():
        raise DataError(f"column {name!r}: broken Arrow array, an index is outside its dictionary")
    classes = codes.astype(np.float64)
    classes[(codes == MISSING) | (codes == NAN)] = np.nan
    if schema.task == "binary":
        return np.where(codes == 0, 1.0, np.where(codes == UNSEEN, 0.0, classes))
    if (codes == UNSEEN).any():
        row = start + int((codes == UNSEEN).argmax())
        raise DataError(
            f"column {name!r}: row {row} holds a class that the reference does not know; known: "
            f"{', '.join(known)}"  # type: ignore[arg-type]
        )
    return classes


def require(batch: Batch, name: str, role: str) -> None:
    """Reject a batch without the column of a role."""
    if batch.kind(name) == "absent":
        raise DataError(
            f"column {name!r}: the schema names it as `{role}`, but the batch has only: "
            f"{', '.join(batch.names)}"
        )


def _reject(
    name: str, start: int, bad: NDArray[np.bool_], values: NDArray[np.float64], allowed: str
) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"column {name!r}: row {start + row} holds {values[row]:g}; {allowed} "
            f"({int(bad.sum())} such rows)"
        )
