"""Tail probabilities of tests, in NumPy alone."""

from __future__ import annotations

import math

import numpy as np

from tidegauge.metrics.inputs import FloatArray

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
