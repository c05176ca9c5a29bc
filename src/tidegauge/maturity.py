"""How complete labels are: the share that has come by an age, from windows that are young still."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tidegauge._core import delay_edges

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


def edges_within(lateness: int) -> IntArray:
    """Edges of the bins of delays, microseconds; a label that counts takes the lateness at most."""
    edges = np.minimum([0, *delay_edges(), np.iinfo(np.int64).max], lateness)
    edges[-1] = lateness
    return edges


def shares_by_age(ends: IntArray, counts: IntArray, edges: IntArray, now: int) -> FloatArray:
    """Share of the labels that have come by each edge; NaN before any bin was seen to its end.

    Panes end at `ends` [P] and have `counts` [P, B] labels in bins of delay between `edges`
    [B + 1]. A pane says nothing of delays longer than its age, so counting the delays seen so far
    would find labels to be quick merely because traffic is young. Here each bin is judged by the
    panes that are old enough to have seen all of it: of their labels up to its end, which part came
    in it (Lagakos, Barraj and De Gruttola, Biometrika 75, 1988). Shares are of what comes within
    the longest delay that any pane is old enough to have seen.

    >>> counts = np.array([[80, 20], [80, 0]])  # the second pane has not seen the second hour
    >>> shares_by_age(np.array([0, 1]), counts, np.array([0, 1, 2]), now=2).round(2)
    array([0. , 0.8, 1. ])
    """
    is_seen = ends[:, None] + edges[1:] <= now
    within = (counts * is_seen).sum(axis=0)
    up_to = (np.cumsum(counts, axis=1) * is_seen).sum(axis=0)
    if not up_to.any():
        return np.full(len(edges), np.nan)
    before = 1 - within / np.maximum(up_to, 1)  # of the labels up to the end of a bin
    shares: FloatArray = np.append(np.cumprod(before[::-1])[::-1], 1.0)
    return shares


def expected_share(ages: FloatArray, edges: IntArray, shares: FloatArray) -> FloatArray:
    """Share of the labels to expect at some ages, linear within a bin."""
    last = int(np.argmax(edges == edges[-1])) + 1  # bins beyond the lateness are empty
    known: FloatArray = np.interp(ages, edges[:last], np.append(shares[: last - 1], 1.0))
    return np.where(np.isnan(shares[0]), np.nan, known)
