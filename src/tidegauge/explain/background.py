"""The rows that stand for "not known": all of them, or a weighted few that resemble them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tidegauge._core import DataError
from tidegauge.explain.inputs import columns_of, frame_of, matrix_of

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """Rows with weights that add up to 1.

    >>> Background.of(np.zeros((4, 2))).weights.tolist()
    [0.25, 0.25, 0.25, 0.25]
    """

    rows: Any
    weights: FloatArray

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.weights)

    @classmethod
    def of(cls, rows: Any) -> Background:
        """Return rows of equal weight; a background as it is."""
        if isinstance(rows, Background):
            return rows
        n = n_rows(rows)
        if n == 0:
            raise DataError("the background has no rows")
        return cls(rows, np.full(n, 1 / n))


def n_rows(table: Any) -> int:
    """Number of rows of an array or table.

    >>> n_rows(np.zeros((4, 2)))
    4
    """
    held = getattr(table, "num_rows", None)
    if held is not None:
        return int(held)
    return len(table)


def summarize(
    rows: Any,
    n: int = 100,
    *,
    method: Literal["kmeans", "stratified"] = "kmeans",
    model: Any = None,
    seed: int = 0,
) -> Background:
    """Few rows with weights that stand for many: the background of an explainer.

    Every chosen row is one of those given, so types, categories and combinations stay real.

    Parameters
    ----------
    rows
        Array or table.
    n
        How many to choose.
    method
        "kmeans": the row nearest to the centre of each cluster, of standardised columns, which must
        be numbers; its weight is the cluster's share. "stratified": rows sorted by `model`'s
        prediction (its first output), or at random without one, cut into n parts and one drawn from
        each.
    model
        Function of rows to predictions, for "stratified".
    seed
        Decides every draw.

    >>> summary = summarize(np.arange(10.0)[:, None], 2)
    >>> len(summary), float(summary.weights.sum())
    (2, 1.0)
    """
    total = n_rows(rows)
    if total == 0 or n < 1:
        raise DataError(f"{n} rows out of {total} cannot be chosen")
    if n >= total:
        return Background.of(rows)
    random = np.random.Generator(np.random.Philox(seed))
    if method == "kmeans":
        matrix = matrix_of(rows, columns_of(rows, None), np.dtype(np.float64))
        chosen, weights = _cluster(matrix, n, random)
    elif method == "stratified":
        key = random.random(total)
        if model is not None:
            predictions = np.asarray(model(rows), dtype=np.float64).reshape(total, -1)[:, 0]
            order = np.lexsort((key, predictions))
        else:
            order = np.argsort(key)
        edges = np.linspace(0, total, n + 1).round().astype(np.int64)
        sizes = np.diff(edges)
        chosen = order[edges[:-1] + (random.random(n) * sizes).astype(np.int64)]
        weights = sizes / total
    else:
        raise ValueError(f"method {method!r} is unknown; allowed: 'kmeans', 'stratified'")
    frame = frame_of(rows)
    taken = frame.take_rows(frame.select(rows, columns_of(rows, None)), chosen) if frame else None
    return Background(np.asarray(rows)[chosen] if taken is None else taken, weights)


def _cluster(
    matrix: FloatArray, n: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], FloatArray]:
    """Lloyd's algorithm from k-means++ seeds; returns medoids and shares of non-empty clusters."""
    if not np.isfinite(matrix).all():
        raise DataError("k-means wants finite numbers; use method='stratified'")
    spread = matrix.std(axis=0)
    points = (matrix - matrix.mean(axis=0)) / np.where(spread > 0, spread, 1)
    centres = points[[int(random.integers(len(points)))]]
    nearest = np.full(len(points), np.inf)
    while len(centres) < n:
        nearest = np.minimum(nearest, ((points - centres[-1]) ** 2).sum(axis=1))
        total = nearest.cumsum()
        if total[-1] == 0:
            break
        place = int(np.searchsorted(total, random.random() * total[-1], side="right"))
        centres = np.vstack([centres, points[min(place, len(points) - 1)]])
    for _ in range(50):
        owner = _nearest_centre(points, centres)
        sizes = np.bincount(owner, minlength=len(centres))
        moved = centres.copy()
        for column in range(points.shape[1]):
            sums = np.bincount(owner, points[:, column], minlength=len(centres))
            moved[:, column] = np.where(sizes > 0, sums / np.maximum(sizes, 1), centres[:, column])
        if np.array_equal(moved, centres):
            break
        centres = moved
    owner = _nearest_centre(points, centres)
    distance = ((points - centres[owner]) ** 2).sum(axis=1)
    first = np.lexsort((distance, owner))
    owners, starts, sizes = np.unique(owner[first], return_index=True, return_counts=True)
    del owners
    return first[starts], sizes / len(points)


def _nearest_centre(points: FloatArray, centres: FloatArray) -> NDArray[np.int64]:
    owner = np.zeros(len(points), np.int64)
    best = np.full(len(points), np.inf)
    for place, centre in enumerate(centres):
        distance = ((points - centre) ** 2).sum(axis=1)
        owner[distance < best] = place
        best = np.minimum(best, distance)
    return owner
