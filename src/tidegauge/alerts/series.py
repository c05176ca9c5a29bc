"""Metric values as series: what a rule judges, K series by T windows, with their baselines."""

from __future__ import annotations

from dataclasses import dataclass
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

    @classmethod
    def from_table(cls, table: pa.Table, *, like: Series | None = None) -> Series:
        """Arrange a metric table; with `like`, by its names.

        A baseline has no versions: with `like`, its values stand for every version. Windows that
        are not kept as finely as was asked are left out.
        """
        table = table.filter(pc.not_equal(table["status"].cast(pa.string()), "not kept"))
        keys = ["model", "version", "segment", "column", "metric"]
        columns = [table[key].cast(pa.string()).to_pylist() for key in keys]
        found = [Name(*parts) for parts in zip(*columns, strict=True)]
        if like is not None:
            found = [name._replace(model="", version="") for name in found]
        distinct = list(dict.fromkeys(found))
        place = {name: k for k, name in enumerate(distinct)}
        rows = np.array([place[name] for name in found], dtype=np.int64)
        opened = table["window_start"]
        instants = (
            np.zeros(len(rows), dtype=np.int64)
            if opened.null_count
            else opened.cast(pa.int64()).to_numpy()
        )
        starts, windows = np.unique(instants, return_inverse=True)

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
        )
        return series if like is None else series.named(like.names)

    def at(self, places: list[int]) -> Series:
        """Some of the series."""
        taken = {field: getattr(self, field)[places] for field in _EMPTY}
        return Series(tuple(self.names[place] for place in places), self.starts, **taken)

    def named(self, names: tuple[Name, ...]) -> Series:
        """Arrange the series by other names, whatever their model and version."""
        place = {name: k for k, name in enumerate(self.names)}
        chosen = [place.get(name._replace(model="", version=""), -1) for name in names]
        index = np.array(chosen, dtype=np.int64)
        absent = (index < 0)[:, None]
        taken = {
            field: np.where(absent, empty, getattr(self, field)[index])
            for field, empty in _EMPTY.items()
        }
        return Series(names, self.starts, **taken)


_EMPTY: dict[str, Any] = {
    "values": np.nan,
    "n": 0,
    "n_reference": 0,
    "floor": np.nan,
    "error": np.nan,
    "usual": np.nan,
}
