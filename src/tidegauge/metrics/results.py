"""What a metric may return: a plain array, or a value that knows its own 95 % interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tidegauge.metrics.inputs import FloatArray, ratio

Z = 1.959963984540054  # half of a normal 95 % interval, in standard errors


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share of trials, with Wilson's interval.

    >>> lower, upper = Proportion(np.array(8), np.array(10)).interval()
    >>> round(float(lower), 3), round(float(upper), 3)
    (0.49, 0.943)
    """

    successes: npt.NDArray[Any]
    trials: npt.NDArray[Any]

    @property
    def value(self) -> FloatArray:
        """Share of the trials that succeeded; NaN without trials."""
        return ratio(self.successes, self.trials)

    def interval(self, rows_per_count: FloatArray | float = 1.0) -> tuple[FloatArray, FloatArray]:
        """Lower and upper limit; `rows_per_count` turns weighted trials into rows."""
        return wilson(self.value, self.trials * rows_per_count, Z)


def wilson(
    share: FloatArray, trials: npt.NDArray[Any], z: FloatArray | float
) -> tuple[FloatArray, FloatArray]:
    """Wilson's limits of a share, `z` standard errors to either side; NaN without trials."""
    noise = z**2 * ratio(1.0, trials)
    centre = (share + noise / 2) / (1 + noise)
    half = np.sqrt(noise * share * (1 - share) + noise**2 / 4) / (1 + noise)
    return np.asarray(np.maximum(centre - half, 0)), np.asarray(np.minimum(centre + half, 1))


Interval: TypeAlias = tuple[FloatArray, FloatArray]


def newcombe(
    first: FloatArray, around_first: Interval, second: FloatArray, around_second: Interval
) -> Interval:
    """Limits of first - second, from the limits of both, which need not be symmetric.

    Source: R. Newcombe, Statistics in Medicine 17 (1998), method 10.
    """
    below = np.hypot(first - around_first[0], around_second[1] - second)
    above = np.hypot(around_first[1] - first, second - around_second[0])
    return first - second - below, first - second + above


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its standard error, and the normal interval."""

    value: FloatArray
    standard_error: FloatArray

    def interval(self, rows_per_count: FloatArray | float = 1.0) -> tuple[FloatArray, FloatArray]:
        """Lower and upper limit; `rows_per_count` turns weighted counts into rows."""
        half = Z * self.standard_error / np.sqrt(rows_per_count)
        return self.value - half, self.value + half


def mean(total: FloatArray, total_squared: FloatArray, n: npt.NDArray[Any]) -> Estimate:
    """Mean of `n` values from their sum and their sum of squares.

    >>> float(mean(np.array(10.0), np.array(60.0), np.array(2)).value)
    5.0
    """
    value = ratio(total, n)
    variance = np.maximum(ratio(total_squared, n) - value**2, 0)
    return Estimate(value, np.sqrt(ratio(variance, n)))


@dataclass(frozen=True, slots=True)
class Bracket:
    """A value with limits of its own, such as those of a ratio."""

    value: FloatArray
    lower: FloatArray
    upper: FloatArray

    def interval(self, rows_per_count: FloatArray | float = 1.0) -> tuple[FloatArray, FloatArray]:
        """Lower and upper limit, as they were made: from rows."""
        return self.lower, self.upper


@dataclass(frozen=True, slots=True)
class PerClass:
    """One result for every class, on the last axis."""

    result: FloatArray | Proportion | Estimate


@dataclass(frozen=True, slots=True)
class PerGroup:
    """One result for every group of a protected attribute, on the last axis, from `n` rows each."""

    result: FloatArray | Bracket
    n: FloatArray


Result: TypeAlias = FloatArray | Proportion | Estimate | Bracket | PerClass | PerGroup


def value_of(result: Result) -> FloatArray:
    """Bare value of any result."""
    if isinstance(result, PerClass | PerGroup):
        return value_of(result.result)
    return result.value if isinstance(result, Proportion | Estimate | Bracket) else result
