"""The fine bins of a numeric column, chosen once from the values of the reference."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegauge._core import MAX_CUTS, NumericBins, SchemaError, upper_half
from tidegauge.column import Column

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LARGEST = float(np.finfo(np.float64).max)
SAMPLE = 2_000_000  # values that a grid is chosen from
REACH = 8.0  # spreads that a grid of equal steps goes on beyond the reference
HEAVY_REACH = 64.0  # times the extremes of a heavy tail
HEAVY_TAIL = 20.0  # largest value over median from which a positive column counts as heavy-tailed
LIGHT_TAIL = 16.0  # range over standard deviation up to which a column counts as light-tailed
ATOM_SHARE = 0.02  # a value this frequent is taken out of a fine bin that holds others too,
LONE_ATOM_SHARE = 0.1  # and one that fills a decile even out of one that it has to itself so far
CROWDED = 64  # times an even share of the rows in one fine bin: quantiles take over
MAX_INTEGERS = 1 << 15


@dataclass(frozen=True, slots=True)
class Grid:
    """A monotone map from value to fine bin; see csrc/histogram/bins.hpp for the arithmetic.

    `kind` is "linear", "log", "symlog" or "edges"; cuts split a bin at exactly their value.
    """

    kind: str
    cuts: tuple[float, ...]
    limits: tuple[float, float]
    origin: float = 0.0
    scale: float = 1.0
    shift: int = 0
    base: int = 0
    n_cells: int = 0

    def bins(self, missing: tuple[float, ...] = ()) -> NumericBins:
        """Compiled form of the grid."""
        if self.kind == "edges":
            bins = NumericBins.edges(self.cuts)
        else:
            numbers = {
                "origin": self.origin,
                "scale": self.scale,
                "shift": self.shift,
                "base": self.base,
                "n_cells": self.n_cells,
            }
            bins = NumericBins.grid(self.kind, numbers, self.cuts)
        bins.sentinels = [float(value) for value in missing]
        return bins

    def to_dict(self) -> dict[str, Any]:
        """Return the grid as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Grid:
        """Read a grid back."""
        values = {**stored, "cuts": tuple(stored["cuts"]), "limits": tuple(stored["limits"])}
        return cls(**values)


def edge_grid(edges: FloatArray, limits: tuple[float, float] | None = None) -> Grid:
    """Bins with exactly these inner edges.

    >>> edge_grid(np.array([0.0, 1.0])).kind
    'edges'
    """
    chosen = limits if limits is not None else (-LARGEST, LARGEST)
    cuts = np.unique(np.concatenate([edges, _limit_cuts(chosen)]))
    return Grid("edges", tuple(cuts.tolist()), chosen)


def score_grid(threshold: float, scores: FloatArray) -> Grid:
    """Bins of a score: equal steps, equal steps of the logit, and quantiles of the reference.

    Rare positives crowd near 0, and some models use a narrow band alone; equal steps would lose the
    order there that ROC AUC needs.

    >>> score_grid(0.5, np.array([0.71, 0.7101, 0.7102])).kind
    'edges'
    """
    logits = 1 / (1 + np.exp(-np.linspace(-16, 16, 500)))
    sample = scores[:: max(1, len(scores) // SAMPLE)]
    sample = sample[(sample >= 0) & (sample <= 1)]
    levels = np.linspace(0, 1, 1001)
    quantiles = np.quantile(sample, levels, method="lower") if len(sample) else np.empty(0)
    inner = np.unique(np.concatenate([np.arange(501) / 500, logits, [threshold], quantiles]))
    return edge_grid(inner, (0.0, 1.0))


def fit_grid(values: FloatArray, column: Column, n_bins: int) -> Grid:
    """Choose the fine bins of a column from values of the reference.

    Whole numbers of a moderate range get a bin each. Light tails get equal steps, positive heavy
    tails steps that grow with the value, and other heavy tails steps that grow from the median on
    both sides. Where that would crowd the values into few bins, quantiles of the reference are
    edges too. All reach far past the reference, with open ends.

    >>> fit_grid(np.array([1.0, 2.0, 5.5]), Column("numeric"), 1024).kind
    'linear'
    """
    sample = values[:: max(1, len(values) // SAMPLE)]
    sample = sample[np.isfinite(sample)]
    if column.missing:
        sample = sample[~np.isin(sample, np.array(column.missing, dtype=np.float64))]
    finite = values[
        np.isfinite(values) & ~np.isin(values, np.array(column.missing, dtype=np.float64))
    ]
    learned = (float(finite.min()), float(finite.max())) if len(finite) else (-LARGEST, LARGEST)
    low, high = column.limits or learned
    limits = (max(low, -LARGEST), min(high, LARGEST))  # infinities have bins of their own
    if column.edges is not None:
        return edge_grid(np.array(column.edges), limits)
    if not len(sample):
        sample = np.zeros(1)
    with np.errstate(over="ignore", invalid="ignore"):  # values may reach the ends of the doubles
        kind = column.grid or _kind(sample, n_bins)
        numbers = _FITS[kind](sample, n_bins)
    cuts = _limit_cuts(limits)
    if kind == "integer":
        return Grid("linear", tuple(cuts.tolist()), limits, **numbers)
    grid = Grid(kind, tuple(cuts.tolist()), limits, **numbers)
    values, counts = np.unique(sample, return_counts=True)
    atoms = _atoms(values, counts, grid)[: (MAX_CUTS - len(cuts)) // 2]
    cuts = np.unique(np.concatenate([cuts, *map(_apart, atoms)]))
    grid = replace(grid, cuts=tuple(cuts.tolist()))
    if column.grid is None and _largest_crowd(values, counts, grid) > CROWDED / n_bins:
        return _quantile_grid(sample, grid, n_bins)
    return grid


def _limit_cuts(limits: tuple[float, float]) -> FloatArray:
    """Cuts that set apart infinities and what lies outside the limits."""
    above = math.nextafter(limits[1], math.inf)
    return np.unique(np.array([-LARGEST, limits[0], above, math.inf]))


def _kind(sample: FloatArray, n_bins: int) -> str:
    low, high = sample.min(), sample.max()
    span, deviation = high - low, sample.std()
    whole = bool((sample == np.trunc(sample)).all()) and max(abs(low), abs(high)) < 2**52
    if whole and span < 3 * n_bins:
        return "integer"
    if low > 0 and high / HEAVY_TAIL > np.median(sample):
        return "log"
    if span <= LIGHT_TAIL * deviation and max(abs(low), abs(high)) < LARGEST / 8:
        return "linear"
    return "symlog"


def _atoms(values: FloatArray, counts: IntArray, grid: Grid) -> FloatArray:
    """Values that many rows share, and among others in a fine bin, the most frequent first."""
    slots = grid.bins().encode(values)
    least = np.where(np.bincount(slots)[slots] > 1, ATOM_SHARE, LONE_ATOM_SHARE)
    chosen = np.flatnonzero((counts > 1) & (counts >= least * counts.sum()))
    return values[chosen[np.argsort(-counts[chosen], kind="stable")]]


def _apart(value: float) -> FloatArray:
    """Cuts that give one value a bin of its own."""
    return np.array([value, np.nextafter(value, np.inf)])


def _largest_crowd(values: FloatArray, counts: IntArray, grid: Grid) -> float:
    """Largest share of the rows in a fine bin of several values."""
    slots = grid.bins().encode(values)
    crowds = np.bincount(slots, weights=counts)[np.bincount(slots) > 1]
    return float(crowds.max(initial=0) / counts.sum())


def _quantile_grid(sample: FloatArray, grid: Grid, n_bins: int) -> Grid:
    """Edges of a grid, and with them quantiles of the sample; those that repeat stand apart."""
    edges = grid.bins().lower_edges()
    levels = np.linspace(0, 1, n_bins // 2 + 1)
    quantiles, repeats = np.unique(np.quantile(sample, levels, method="lower"), return_counts=True)
    atoms = map(_apart, quantiles[repeats > 1])
    inner = np.concatenate([edges[np.isfinite(edges)], quantiles, *atoms])
    return edge_grid(inner, grid.limits)


def _fit_integer(sample: FloatArray, n_bins: int) -> dict[str, Any]:
    low, high = sample.min(), sample.max()
    if high - low >= MAX_INTEGERS:
        raise SchemaError(
            f"whole numbers from {low:g} to {high:g} are too many for a bin each, {MAX_INTEGERS} "
            "at most; choose another grid"
        )
    n_cells = n_bins
    while n_cells < high - low + 1:
        n_cells *= 2
    origin = math.floor(low - (n_cells - (high - low + 1)) / 2)
    return {"origin": float(origin), "scale": 1.0, "n_cells": n_cells}


def _fit_linear(sample: FloatArray, n_bins: int) -> dict[str, Any]:
    low, high = sample.min(), sample.max()
    spread = float(sample.std()) or max(abs(float(low)), 1.0) / 64
    spread = min(spread, LARGEST / 64)
    first = max(float(low) - REACH * spread, -LARGEST / 4)
    last = min(float(high) + REACH * spread, LARGEST / 4)
    return {"origin": first, "scale": n_bins / (last - first), "n_cells": n_bins}


def _fit_log(sample: FloatArray, n_bins: int) -> dict[str, Any]:
    positive = sample[sample > 0]
    low = float(positive.min()) if len(positive) else 1.0
    high = float(positive.max()) if len(positive) else 1.0
    first = upper_half(max(low / HEAVY_REACH, 1e-300))  # both zeros lie below
    last = upper_half(min(high * HEAVY_REACH, LARGEST / 4))
    shift = _shift(first, last, 4 * n_bins)
    return {
        "shift": shift,
        "base": first >> shift,
        "n_cells": _n_steps(first, last, shift),
    }


def _fit_symlog(sample: FloatArray, n_bins: int) -> dict[str, Any]:
    origin = float(np.median(sample / 2) * 2)
    distance = np.minimum(np.abs(sample - origin), LARGEST / 1024)
    away = distance[distance > 0]
    scale = max(float(np.quantile(away, 0.25)), 1e-300) if len(away) else 1.0
    first = upper_half(scale)
    last = upper_half(min(float(distance.max()) * HEAVY_REACH + scale, LARGEST / 4))
    shift = _shift(first, last, 2 * n_bins)
    half = _n_steps(first, last, shift)
    return {
        "origin": origin,
        "scale": scale,
        "shift": shift,
        "base": first >> shift,
        "n_cells": 2 * half,
    }


def _n_steps(first: int, last: int, shift: int) -> int:
    """Steps from first to last; infinity is always a step further."""
    return min((last >> shift) + 1, upper_half(math.inf) >> shift) - (first >> shift)


def _shift(first: int, last: int, n_cells: int) -> int:
    """Fewest bits to drop so that no more than n_cells steps lie between two floats."""
    shift = 0
    while (last >> shift) - (first >> shift) + 1 > n_cells:
        shift += 1
    return shift


_FITS = {"integer": _fit_integer, "linear": _fit_linear, "log": _fit_log, "symlog": _fit_symlog}
