"""Metric values as series: what a rule judges, K series by T windows, with their baselines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidegauge.metrics.results import Z

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Name(NamedTuple):
    """What a series is of."""

    model: str
    version: str
    segment: str
    column: str | None
    metric: str


@dataclass(frozen=True)
class Series:
    """Values of K series in T windows; NaN where a window has no value.

    `floor` is the value to expect without change, `error` the standard error; NaN where unknown.
    """

    names: tuple[Name, ...]
    starts: IntArray  # [T], microseconds since 1970, UTC, ascending
    values: FloatArray  # [K, T]
    n: IntArray  # [K, T]; 0 in a window that the series does not have
    n_reference: IntArray  # [K, T]
    floor: FloatArray  # [K, T]
    error: FloatArray  # [K, T]
    usual: FloatArray  # [K, T]: value in the reference
    width: int = 0  # of a window, microseconds; 0 where there is one window over everything

    @classmethod
    def from_table(cls, table: pa.Table, *, like: Series | None = None) -> Series:
        """Arrange a metric table; with `like`, by its names.

        A baseline has no versions: with `like`, its values stand for every version. Windows that
        are not kept as finely as was asked are left out.
        """
        table = table.filter(pc.not_equal(table["status"].cast(pa.string()), "not kept"))
        distinct, rows = _names(table, Name._fields if like is None else Name._fields[2:])
        opened, closed = _instants(table["window_start"]), _instants(table["window_end"])
        starts, windows = np.unique(opened, return_inverse=True)

        def spread(values: npt.NDArray[np.float64], empty: float = np.nan) -> FloatArray:
            arranged = np.full((len(distinct), len(starts)), empty)
            arranged[rows, windows] = values
            return arranged

        def numbers(column: str) -> FloatArray:
            return np.asarray(table[column].to_numpy(zero_copy_only=False), dtype=np.float64)

        series = cls(
            names=tuple(distinct),
            starts=starts,
            values=spread(numbers("value")),
            n=spread(numbers("n"), 0).astype(np.int64),
            n_reference=spread(numbers("n_reference"), 0).astype(np.int64),
            floor=spread(numbers("noise_floor")),
            error=spread((numbers("upper") - numbers("lower")) / (2 * Z)),
            usual=spread(numbers("reference_value")),
            width=int(np.median(closed - opened)) if len(rows) else 0,
        )
        return series if like is None else series.named(like.names)

    def at(self, places: list[int]) -> Series:
        """Some of the series."""
        taken: dict[str, Any] = {field: getattr(self, field)[places] for field in _EMPTY}
        return replace(self, names=tuple(self.names[place] for place in places), **taken)

    def named(self, names: tuple[Name, ...]) -> Series:
        """Arrange the series by other names, whatever their model and version."""
        place = {name: k for k, name in enumerate(self.names)}
        chosen = [place.get(name._replace(model="", version=""), -1) for name in names]
        row = (1, len(self.starts))
        taken: dict[str, Any] = {
            # An absent series is the last row, which is empty.
            field: np.concatenate([getattr(self, field), np.full(row, empty)])[chosen]
            for field, empty in _EMPTY.items()
        }
        return replace(self, names=names, **taken)


_EMPTY: dict[str, Any] = {
    "values": np.nan,
    "n": 0,
    "n_reference": 0,
    "floor": np.nan,
    "error": np.nan,
    "usual": np.nan,
}


def _names(table: pa.Table, keys: tuple[str, ...]) -> tuple[list[Name], IntArray]:
    """Names of the series in the order in which they are met, and which one each row is of."""
    rows = np.zeros(table.num_rows, dtype=np.int64)
    first = np.empty(0, dtype=np.int64)
    words = [table[key].cast(pa.string()).combine_chunks().dictionary_encode() for key in keys]
    for word in words:
        code = word.indices.fill_null(len(word.dictionary)).to_numpy(zero_copy_only=False)
        # Numbered anew at every step, so that the product cannot overflow.
        rows = rows * (len(word.dictionary) + 1) + code
        _, first, rows = np.unique(rows, return_index=True, return_inverse=True)
    met = np.argsort(first)
    place = np.empty(len(met), dtype=np.int64)
    place[met] = np.arange(len(met))
    parts = [word.take(pa.array(first[met])).to_pylist() for word in words]
    given = [dict(zip(keys, each, strict=True)) for each in zip(*parts, strict=True)]
    return [Name(**{"model": "", "version": ""} | each) for each in given], place[rows]


def _instants(column: pa.ChunkedArray) -> IntArray:
    """Microseconds; 0 where there is no time."""
    return np.asarray(column.cast(pa.int64()).fill_null(0).to_numpy(), dtype=np.int64)
