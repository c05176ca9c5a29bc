"""Integrity: whether the data are what the schema says, counted value by value."""

from __future__ import annotations

from math import inf

import numpy as np
import numpy.typing as npt

from tidegauge.metrics.inputs import ColumnCounts, Fine, FloatArray, IntArray, Traffic, ratio
from tidegauge.metrics.registry import metric
from tidegauge.metrics.results import Proportion

NUMBERS = ("numeric", "timestamp")


def _share(successes: IntArray, counts: ColumnCounts | Traffic) -> Proportion:
    return Proportion(successes, counts.rows)


@metric("missing_rate", worse="higher", bounds=(0, 1))
def missing_rate(current: ColumnCounts) -> Proportion:
    """Share of the rows without a value, whatever the reason.

    (null + NaN + declared sentinels + rows whose batch lacked the column) / rows. Range 0 to 1.
    Undefined without rows.

    >>> float(missing_rate(ColumnCounts(rows=10, null=1, sentinel=2)).value)
    0.3
    """
    return _share(current.missing, current)


@metric("null_rate", worse="higher", bounds=(0, 1))
def null_rate(current: ColumnCounts) -> Proportion:
    """Share of the rows that are null.

    null / rows. Range 0 to 1. Undefined without rows.

    >>> float(null_rate(ColumnCounts(rows=10, null=1)).value)
    0.1
    """
    return _share(current.null, current)


@metric("nan_rate", worse="higher", bounds=(0, 1), kinds=("numeric",))
def nan_rate(current: ColumnCounts) -> Proportion:
    """Share of the rows that are not a number.

    NaN / rows. Range 0 to 1. Undefined without rows.

    >>> float(nan_rate(ColumnCounts(rows=10, nan=1)).value)
    0.1
    """
    return _share(current.nan, current)


@metric("sentinel_rate", worse="higher", bounds=(0, 1))
def sentinel_rate(current: ColumnCounts) -> Proportion:
    """Share of the rows that hold a value declared to mean "missing", such as -999.

    sentinel / rows. Range 0 to 1. Undefined without rows.

    >>> float(sentinel_rate(ColumnCounts(rows=10, sentinel=1)).value)
    0.1
    """
    return _share(current.sentinel, current)


@metric("absent_rate", worse="higher", bounds=(0, 1))
def absent_rate(current: ColumnCounts) -> Proportion:
    """Share of the rows that came in batches without the column: 1 when it has vanished.

    absent / rows. Range 0 to 1. Undefined without rows.

    >>> float(absent_rate(ColumnCounts(rows=10, absent=10)).value)
    1.0
    """
    return _share(current.absent, current)


@metric("infinite_rate", worse="higher", bounds=(0, 1), kinds=("numeric",))
def infinite_rate(current: ColumnCounts) -> Proportion:
    """Share of the rows that are infinite, of either sign.

    (+inf + -inf) / rows. Range 0 to 1. Undefined without rows.

    >>> float(infinite_rate(ColumnCounts(rows=10, positive_infinity=1)).value)
    0.1
    """
    return _share(current.infinite, current)


@metric("type_violation_rate", worse="higher", bounds=(0, 1))
def type_violation_rate(current: ColumnCounts) -> Proportion:
    """Share of the rows whose value is not of the declared type.

    invalid / rows. Range 0 to 1. Undefined without rows.

    >>> float(type_violation_rate(ColumnCounts(rows=10, invalid=1)).value)
    0.1
    """
    return _share(current.invalid, current)


@metric("out_of_range_rate", worse="higher", bounds=(0, 1), kinds=NUMBERS)
def out_of_range_rate(current: ColumnCounts) -> Proportion:
    """Share of the rows outside the column's limits, declared or learnt from the reference.

    (below + above) / rows, finite values only. Range 0 to 1. Undefined without rows.

    >>> float(out_of_range_rate(ColumnCounts(rows=10, below=1, above=2)).value)
    0.3
    """
    return _share(current.below + current.above, current)


@metric("unseen_rate", worse="higher", bounds=(0, 1), kinds=("categorical",))
def unseen_rate(current: ColumnCounts) -> Proportion:
    """Share of the rows in a category that the reference does not know.

    unseen / rows. Range 0 to 1. Undefined without rows.

    >>> float(unseen_rate(ColumnCounts(rows=10, unseen=1)).value)
    0.1
    """
    return _share(current.unseen, current)


@metric("violation_rate", worse="higher", bounds=(0, 1), kinds=("rule",))
def violation_rate(current: ColumnCounts) -> Proportion:
    """Share of the judged rows where the rule does not hold.

    broken / (rows - missing - invalid): rows without a value are not judged. Range 0 to 1.
    Undefined where no row is judged.

    >>> float(violation_rate(ColumnCounts(rows=10, null=2, broken=2)).value)
    0.25
    """
    return Proportion(current.broken, current.rows - current.missing - current.invalid)


@metric("any_violation_rate", worse="higher", bounds=(0, 1))
def any_violation_rate(reference: ColumnCounts, current: ColumnCounts) -> Proportion:
    """Share of the rows that break the column's schema in any way.

    (invalid + absent + infinite + out of range + unseen + broken rules) / rows; null, NaN and
    sentinels count too where the reference had no missing value at all. Range 0 to 1. Undefined
    without rows, or without a reference.

    >>> clean = ColumnCounts(rows=100)
    >>> float(any_violation_rate(clean, ColumnCounts(rows=10, null=1, unseen=1)).value)
    0.2
    """
    broken = current.invalid + current.absent + current.infinite
    outside = current.below + current.above + current.unseen + current.broken
    missing = current.null + current.nan + current.sentinel
    unexpected = np.where(reference.missing == 0, missing, 0)
    judged = np.where(reference.rows > 0, current.rows, 0)
    return Proportion(broken + outside + unexpected, judged)


@metric("constant", worse="higher", bounds=(0, 1))
def constant(reference: ColumnCounts, current: ColumnCounts) -> FloatArray:
    """Whether the column has become constant: 1 if so, 0 if it varies or never did.

    1 where the current values fall into one fine bin or category and, for numbers, their minimum is
    their maximum, while the reference had several. Range 0 to 1. Undefined where either side has
    no value, and where all values are categories unknown to the reference.

    >>> varied = ColumnCounts(rows=10, distinct=5)
    >>> float(constant(varied, ColumnCounts(rows=10, distinct=1)))
    1.0
    """
    was, now = _is_constant(reference), _is_constant(current)
    known = (reference.distinct > 0) & (current.distinct > 0)
    known &= ~(now & (current.unseen > 0))  # values that are unknown may be many
    return np.where(known, np.where(now & ~was, 1.0, 0.0), np.nan)


def _is_constant(counts: ColumnCounts) -> npt.NDArray[np.bool_]:
    varies = counts.minimum < counts.maximum  # false for categories, which have neither
    return np.asarray((counts.distinct == 1) & ~varies)


@metric("distinct_count", worse="either", bounds=(0, inf))
def distinct_count(current: ColumnCounts) -> FloatArray:
    """How many different values there are, as far as the bins can tell.

    Number of non-empty categories or fine bins: values that share a fine bin count once. Range 0 to
    infinity. Undefined without rows.

    >>> float(distinct_count(ColumnCounts(rows=10, distinct=5)))
    5.0
    """
    return np.where(current.rows > 0, current.distinct, np.nan)


@metric("minimum", worse="either", bounds=(-inf, inf), kinds=NUMBERS)
def minimum(current: ColumnCounts) -> FloatArray:
    """Smallest finite value, in the column's own unit (timestamps: microseconds since 1970, UTC).

    min(x). Range: any number. Undefined without a finite value.

    >>> float(minimum(ColumnCounts(rows=2, minimum=[-1.5], maximum=[2.0]))[0])
    -1.5
    """
    return np.asarray(current.minimum)


@metric("maximum", worse="either", bounds=(-inf, inf), kinds=NUMBERS)
def maximum(current: ColumnCounts) -> FloatArray:
    """Largest finite value, in the column's own unit (timestamps: microseconds since 1970, UTC).

    max(x). Range: any number. Undefined without a finite value.

    >>> float(maximum(ColumnCounts(rows=2, minimum=[-1.5], maximum=[2.0]))[0])
    2.0
    """
    return np.asarray(current.maximum)


@metric("quantile", worse="either", bounds=(-inf, inf))
def quantile(current: Fine, *, level: float = 0.5) -> FloatArray:
    """Value that a share `level` of the finite values does not exceed: the median by default.

    Middle of the first fine bin up to which ceil(level * n) values have been counted, so off by
    half a bin at most. Range: any number. Undefined without a finite value, or for a level outside
    0 to 1.

    >>> float(quantile(Fine([1, 2, 1], [0.0, 1.0, 2.0, 3.0])))
    1.5
    """
    rank = np.maximum(np.ceil(level * current.n), 1)[..., None]
    first = np.argmax(current.cumulative >= rank, axis=-1)[..., None]
    middles = np.broadcast_to(current.middles, (*first.shape[:-1], current.middles.shape[-1]))
    known = (current.n > 0) & (0 <= level <= 1)
    return np.where(known, np.take_along_axis(middles, first, axis=-1)[..., 0], np.nan)


@metric("largest_bin_share", worse="higher", bounds=(0, 1))
def largest_bin_share(current: Fine) -> FloatArray:
    """Share of the finite values in the fullest fine bin, whose values cannot be told apart.

    max(count) / n over the bins that more than one number falls into. The exact Kolmogorov-Smirnov
    distance exceeds `kolmogorov_smirnov` by no more than the larger of this value and its reference
    value. Range 0 to 1. Undefined without a finite value.

    >>> float(largest_bin_share(Fine([1, 3], [0.0, 1.0, 2.0])))
    0.75
    """
    wide = current.edges[..., 1:] > np.nextafter(current.edges[..., :-1], inf)
    return ratio((current.counts * wide).max(axis=-1), current.n)


@metric("row_count", worse="either", bounds=(0, inf), scale="total")
def row_count(current: Traffic) -> FloatArray:
    """Volume of the traffic: rows accepted.

    Number of rows. Range 0 to infinity. Never undefined.

    >>> float(row_count(Traffic(rows=10)))
    10.0
    """
    return np.asarray(current.rows, dtype=np.float64)


@metric("duplicate_rate", worse="higher", bounds=(0, 1))
def duplicate_rate(current: Traffic) -> Proportion:
    """Share of the rows that were rejected because their id had been seen.

    duplicates / (rows + duplicates). Range 0 to 1. Undefined when nothing arrived.

    >>> float(duplicate_rate(Traffic(rows=9, duplicates=1)).value)
    0.1
    """
    return Proportion(current.duplicates, current.rows + current.duplicates)


@metric("new_column_rate", worse="higher", bounds=(0, 1))
def new_column_rate(current: Traffic) -> Proportion:
    """Share of the rows that came with columns the schema does not know.

    new_columns / rows. Range 0 to 1. Undefined without rows.

    >>> float(new_column_rate(Traffic(rows=10, new_columns=5)).value)
    0.5
    """
    return _share(current.new_columns, current)


@metric("pooled_rate", worse="higher", bounds=(0, 1))
def pooled_rate(current: Traffic) -> Proportion:
    """Share of the rows whose version or segment counts as "(other)", as there are too many.

    pooled / rows. Range 0 to 1. Undefined without rows.

    >>> float(pooled_rate(Traffic(rows=10, pooled=2)).value)
    0.2
    """
    return _share(current.pooled, current)
