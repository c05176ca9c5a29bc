"""Whether a change is more than chance, in NumPy alone: tails, quiet windows, many tests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from tidegauge.metrics.inputs import FloatArray, IntArray

MANY = 500  # degrees of freedom from which Student's t is taken as one
LEAST_WINDOWS = 10  # from which the reference's own windows say how far a quiet one strays

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def chi_square_tail(statistic: FloatArray, degrees: FloatArray) -> FloatArray:
    """Probability that a chi-square variable with so many degrees of freedom is larger.

    For whole degrees the incomplete gamma function is a finite sum of positive terms:
    Q(a + 1, x) = Q(a, x) + x**a exp(-x) / gamma(a + 1), from Q(1, x) or Q(1/2, x) upwards.

    >>> round(float(chi_square_tail(np.array(3.84), np.array(1))), 4)
    0.05
    """
    x, freedom = np.broadcast_arrays(np.asarray(statistic) / 2, np.asarray(degrees))
    odd = freedom % 2 == 1
    tail = np.where(odd, _erfc(np.sqrt(x)), np.exp(-x))
    log_x = np.log(np.where(x > 0, x, 1))
    for step in range(1, int(freedom.max(initial=0) / 2 + 1)):
        power = np.where(odd, step - 0.5, step)
        log_gamma = np.where(odd, math.lgamma(step + 0.5), math.lgamma(step + 1))
        term = np.where(x > 0, np.exp(power * log_x - x - log_gamma), 0)
        tail = tail + np.where(power < freedom / 2, term, 0)
    known = np.where(np.isnan(x), np.nan, 1.0)
    return np.asarray(np.where(freedom > 0, np.minimum(tail, 1), known))


def kolmogorov_tail(scaled: FloatArray) -> FloatArray:
    """Probability that the largest |Brownian bridge| is larger; two series that meet at 1.

    >>> round(float(kolmogorov_tail(np.array(1.358))), 3)
    0.05
    """
    x = np.maximum(np.asarray(scaled, dtype=np.float64)[..., None], 1e-3)
    k = np.arange(1, 6)
    large = 2 * ((-1.0) ** (k - 1) * np.exp(-2 * (k * x) ** 2)).sum(axis=-1)
    odd = 2 * k - 1
    small = (np.sqrt(2 * np.pi) / x * np.exp(-((odd * np.pi / x) ** 2) / 8)).sum(axis=-1)
    return np.asarray(np.where(x[..., 0] < 1, 1 - small, large))


def normal_tail(score: FloatArray) -> FloatArray:
    """Probability that a standard normal variable is larger.

    >>> round(float(normal_tail(np.array(1.645))), 3)
    0.05
    """
    return np.asarray(_erfc(np.asarray(score) / math.sqrt(2)) / 2)


def student_tail(t: FloatArray, degrees: FloatArray | IntArray) -> FloatArray:
    """Probability that Student's t with so many whole degrees of freedom is larger.

    With theta = atan(t / sqrt(degrees)) it is a finite sum of powers of cos(theta)**2.

    >>> round(float(student_tail(np.array(2.262), np.array(9))), 4)
    0.025
    """
    t, freedom = np.broadcast_arrays(np.asarray(t, dtype=np.float64), np.asarray(degrees))
    odd = freedom % 2 == 1
    theta = np.arctan(np.abs(t) / np.sqrt(np.maximum(freedom, 1)))
    cos, sin = np.cos(theta), np.sin(theta)
    term = np.where(odd, cos, 1.0)
    total = np.where(odd & (freedom < 2), 0.0, term)
    for step in range(1, int(freedom.max(initial=0) / 2)):
        top = np.where(odd, 2 * step, 2 * step - 1)
        term = term * cos * cos * top / (top + 1)
        total = total + np.where(top + 2 < freedom, term, 0)
    inside = np.where(odd, 2 / np.pi * (theta + sin * total), sin * total)
    beyond = np.maximum(1 - inside, 0) / 2
    return np.asarray(np.where(freedom > 0, np.where(t < 0, 1 - beyond, beyond), np.nan))


def student_limit(degrees: IntArray) -> FloatArray:
    """Half of a 95 % interval, in standard errors, for Student's t with so many degrees of freedom.

    >>> student_limit(np.array([1, 9, 10_000])).round(3)
    array([12.706,  2.262,  1.965])
    """
    return np.asarray(_student_limits()[np.minimum(degrees, MANY)])


@cache
def _student_limits() -> FloatArray:
    """Limits for 0 to MANY degrees of freedom."""
    degrees = np.arange(MANY + 1)
    low, high = np.full(degrees.shape, 1.9), np.full(degrees.shape, 13.0)
    for _ in range(60):
        middle = (low + high) / 2
        beyond = student_tail(middle, degrees) > 0.025
        low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
    return high


@dataclass(frozen=True, slots=True)
class Quiet:
    """How a test statistic moved over the reference's own windows, in which nothing had changed.

    The statistic is about 1 where rows are independent. Where days differ among themselves it is
    more, and grows with the rows of a window. Fourth roots of what is left have a tail no heavier
    than the normal one, whether it is a sum of many parts or mostly the square of one.
    """

    windows: IntArray
    size: FloatArray  # n m / (n + m), mean over the windows
    level: FloatArray  # mean of the statistic
    root: FloatArray  # mean of the fourth root of statistic / expected
    spread: FloatArray  # its standard deviation

    @classmethod
    def of(cls, statistic: FloatArray, size: FloatArray) -> Quiet:
        """Summary of windows, [W] each; those without a statistic are left out.

        >>> int(Quiet.of(np.array([0.5, 1.5, np.nan]), np.array([9.0, 9.0, 0.0])).windows)
        2
        """
        known = ~np.isnan(statistic)
        statistic, size = statistic[known], size[known]
        n = np.asarray(len(statistic))
        if n < 2:
            return cls(n, *(np.asarray(np.nan),) * 4)
        level, mean_size = np.asarray(statistic.mean()), np.asarray(size.mean())
        roots = (statistic / _expected(level, mean_size, size)) ** 0.25
        return cls(n, mean_size, level, np.asarray(roots.mean()), np.asarray(roots.std(ddof=1)))

    def p_value(self, statistic: FloatArray, size: FloatArray) -> FloatArray:
        """Probability of so large a statistic in a quiet window; NaN when too few are known."""
        root = (statistic / _expected(self.level, self.size, size)) ** 0.25
        scale = self.spread * np.sqrt(1 + 1 / np.maximum(self.windows, 1))
        beyond = root - self.root
        certain = np.where(beyond > 0, np.inf, -np.inf)  # where quiet windows are all alike
        t = np.where(scale > 0, beyond / np.where(scale > 0, scale, 1), certain)
        known = (self.windows >= LEAST_WINDOWS) & ~np.isnan(statistic)
        return np.where(known, student_tail(t, self.windows - 1), np.nan)


def _expected(level: FloatArray, usual_size: FloatArray, size: FloatArray) -> FloatArray:
    """Mean of the statistic in a quiet window of some size: what days add grows with its rows."""
    added = np.maximum(level - 1, 0) * (size / usual_size - 1)
    return np.asarray(np.maximum(level + added, 1e-12))


def n_rejected(p_values: FloatArray, q: float, method: str) -> IntArray:
    """How many of the tests on the last axis are rejected at a false-discovery rate of q.

    The largest j for which the j-th smallest p-value is at most q j / K (Benjamini and Hochberg,
    "bh"), or a harmonic sum stricter, for tests that depend on each other in any way (Benjamini and
    Yekutieli, "by"). NaN is no test.

    >>> n_rejected(np.array([0.001, 0.02, 0.9, np.nan]), 0.05, "bh")
    array(2)
    """
    return np.asarray(np.count_nonzero(q_values(p_values, method) <= q, axis=-1))


def q_values(p_values: FloatArray, method: str = "bh") -> FloatArray:
    """Smallest false-discovery rate at which each of the tests on the last axis is rejected.

    >>> q_values(np.array([0.02, 0.001, 0.9, np.nan])).round(3)
    array([0.03 , 0.003, 0.9  ,   nan])
    """
    order = np.argsort(p_values, axis=-1, kind="stable")  # NaN last
    ranks = np.arange(1, p_values.shape[-1] + 1)
    n = np.count_nonzero(~np.isnan(p_values), axis=-1)[..., None]
    stricter = np.cumsum(np.append(0.0, 1 / ranks))[n] if method == "by" else 1.0
    steps = np.take_along_axis(p_values, order, axis=-1) * n * stricter / ranks
    least = np.fmin.accumulate(steps[..., ::-1], axis=-1)[..., ::-1]
    least = np.where(np.isnan(steps), np.nan, least)
    found = np.empty_like(least)
    np.put_along_axis(found, order, least, axis=-1)
    return found
