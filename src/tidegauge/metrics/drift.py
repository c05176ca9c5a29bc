"""Drift: how far the current distribution has moved from the reference.

p is the share of the reference in a bin, q that of the current rows. Every metric carries a noise
floor: what it comes to on average when nothing has changed, for these sample sizes and bins.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, log, pi, sqrt
from typing import Literal, TypeAlias

import numpy as np

from tidegauge.metrics.inputs import Bins, FeatureTests, Fine, FloatArray, IntArray, ratio
from tidegauge.metrics.registry import metric
from tidegauge.metrics.significance import chi_square_tail, kolmogorov_tail, n_rejected

Smoothing: TypeAlias = Callable[[IntArray, FloatArray], FloatArray]

MEAN_OF_HALF_NORMAL = sqrt(2 / pi)
MEAN_SQUARE_OF_KOLMOGOROV = pi**2 / 12
MEAN_OF_KOLMOGOROV = sqrt(pi / 2) * log(2)  # 0.8687
DENSITY_OF_KOLMOGOROV = 1.17  # on average
TINY = float(np.finfo(np.float64).tiny)
STEP_OF_WALK = 0.5826  # by how much a random walk's maximum falls short, in steps' deviations


# Shares of bins without rows: every convention's own rule. Bins empty on both sides take no part.


def _added(extra: float) -> Smoothing:
    """Add `extra` rows to every bin."""

    def smooth(counts: IntArray, occupied: FloatArray) -> FloatArray:
        padded = counts + extra * occupied
        return ratio(padded, padded.sum(axis=-1, keepdims=True))

    return smooth


def _shares(counts: IntArray) -> FloatArray:
    return ratio(counts, counts.sum(axis=-1, keepdims=True))


def _evidently(counts: IntArray, occupied: FloatArray) -> FloatArray:
    """Replace zeros by 0.0001, or by a millionth of the smallest share when that is smaller."""
    shares = _shares(counts)
    smallest = np.min(shares, axis=-1, keepdims=True, where=shares > 0, initial=inf)
    return np.where(shares == 0, np.where(smallest <= 1e-4, smallest / 1e6, 1e-4), shares)


SMOOTHING: dict[str, Smoothing] = {
    "tidegauge": _added(0.5),
    "fiddler": _added(1.0),
    "evidently": _evidently,
    "whylabs": lambda counts, occupied: np.clip(_shares(counts), 1e-7, 1),
    "popmon": lambda counts, occupied: np.asarray(counts + 1e-5, dtype=np.float64),
    "deepchecks": lambda counts, occupied: np.maximum(_shares(counts), 0.01),
    "frouros": lambda counts, occupied: np.maximum(_shares(counts), TINY),
}


def _compared(reference: Bins, current: Bins, convention: str) -> tuple[Bins, Bins]:
    """Bins that take part: only Tidegauge counts missing values as a bin of their own."""
    if convention == "tidegauge":
        return reference, current
    return reference.present, current.present


def _smoothed(reference: Bins, current: Bins, convention: str) -> tuple[FloatArray, FloatArray]:
    """Positive shares of both sides, NaN where either is empty, and 1 in bins without rows."""
    if convention not in SMOOTHING:
        raise ValueError(f"convention {convention!r} is not one of {sorted(SMOOTHING)}")
    before, after = _compared(reference, current, convention)
    occupied = (before.counts + after.counts) > 0
    known = np.where((before.n > 0) & (after.n > 0), 1.0, np.nan)[..., None]
    smooth = SMOOTHING[convention]
    p = np.where(occupied, smooth(before.counts, occupied.astype(float)), 1) * known
    q = np.where(occupied, smooth(after.counts, occupied.astype(float)), 1) * known
    return p, q


# Noise floors.


def _sampling(reference: Bins | Fine, current: Bins | Fine) -> FloatArray:
    """Variance of a difference of two shares, but for the factor p (1 - p): 1/n + 1/m."""
    return ratio(1.0, reference.n) + ratio(1.0, current.n)


def _freedom(reference: Bins, current: Bins) -> FloatArray:
    """Degrees of freedom: bins with a row on either side, less one."""
    occupied: FloatArray = np.count_nonzero(reference.counts + current.counts, axis=-1) - 1.0
    return np.maximum(occupied, 0)


def _mean_of_chi(degrees: FloatArray) -> FloatArray:
    """Mean of the root of a chi-square variable, to 1 %."""
    some = np.maximum(degrees, 1)
    return np.where(degrees > 0, np.sqrt(some - 0.5 + 1 / (8 * some)), 0)


def _noise_psi(reference: Bins, current: Bins, *, convention: str = "tidegauge") -> FloatArray:
    before, after = _compared(reference, current, convention)
    degrees, sampling = _freedom(before, after), _sampling(before, after)
    if convention == "popmon":  # raw counts: traffic alone moves it
        n, m = before.n + 0.0 * sampling, after.n + 0.0 * sampling
        return (m - n) * np.log(m / n) + degrees * sampling * (n + m) / 2
    return degrees * sampling


def _noise_kl(reference: Bins, current: Bins, *, convention: str = "tidegauge") -> FloatArray:
    return _noise_psi(reference, current, convention=convention) / 2


def _noise_of_root(reference: Bins, current: Bins, scale: float) -> FloatArray:
    """Mean of the root of a divergence that comes to `scale` * PSI when the change is small."""
    spread = np.sqrt(scale * _sampling(reference, current))
    return spread * _mean_of_chi(_freedom(reference, current))


def _noise_jensen_shannon_distance(
    reference: Bins, current: Bins, *, convention: str = "tidegauge"
) -> FloatArray:
    scale = 1 / (8 * LOG_OF_BASE[convention])
    return _noise_of_root(*_compared(reference, current, convention), scale)


def _noise_jensen_shannon_divergence(
    reference: Bins, current: Bins, *, convention: str = "tidegauge"
) -> FloatArray:
    before, after = _compared(reference, current, convention)
    noise = _freedom(before, after) * _sampling(before, after) / (8 * log(2))
    if convention != "tfdv":
        return noise
    missing = (reference.shares[..., -1] + current.shares[..., -1]) / 2
    return noise * (1 - missing) + missing


def _noise_hellinger(reference: Bins, current: Bins) -> FloatArray:
    return _noise_of_root(reference, current, 1 / 8)


def _deviations(reference: Bins) -> FloatArray:
    """Spread of one row's presence in each bin, sqrt(p (1 - p))."""
    return np.sqrt(reference.shares * (1 - reference.shares))


def _noise_total_variation(reference: Bins, current: Bins) -> FloatArray:
    spread = _deviations(reference).sum(axis=-1) * np.sqrt(_sampling(reference, current))
    return np.asarray(MEAN_OF_HALF_NORMAL / 2 * spread)


def _noise_l_infinity(reference: Bins, current: Bins) -> FloatArray:
    """Mean of the largest of independent |normal| variables, by integrating its tail."""
    deviations = _deviations(reference)
    widest = deviations.max(axis=-1)
    heights, step = np.linspace(0, 4.5, 46, retstep=True)
    scaled = widest[..., None] / np.where(deviations == 0, 1e-300, deviations)
    below = np.ones((*widest.shape, heights.size))
    for k in range(deviations.shape[-1]):
        below *= _inside(heights * np.minimum(scaled[..., k, None], 1e6))
    mean = (1 - below).sum(axis=-1) * step - step / 2
    return np.asarray(widest * mean * np.sqrt(_sampling(reference, current)))


def _inside(x: FloatArray) -> FloatArray:
    """Probability that |normal| < x, to 2e-4 (tanh form of the error function)."""
    return np.tanh(x * (0.7978846 + 0.0356774 * x * x))


def _half_variance(reference: Fine) -> FloatArray:
    """sqrt(F (1 - F)) after each fine bin but the last."""
    cdf = reference.cdf[..., :-1]
    return np.sqrt(cdf * (1 - cdf))


def _noise_kolmogorov_smirnov(reference: Fine, current: Fine) -> FloatArray:
    """Mean of the largest |Brownian bridge|, seen only where a bin ends."""
    shares = ratio(reference.counts, reference.n[..., None])
    continuous = MEAN_OF_KOLMOGOROV - STEP_OF_WALK * (shares * np.sqrt(shares)).sum(axis=-1)
    one_step = MEAN_OF_HALF_NORMAL * _half_variance(reference).max(axis=-1, initial=0)
    largest = np.where(one_step > 0, np.maximum(continuous, one_step), one_step)
    return np.asarray(largest * np.sqrt(_sampling(reference, current)))


def _noise_wasserstein(reference: Fine, current: Fine) -> FloatArray:
    spread = np.einsum("...f,...f->...", _half_variance(reference), reference.gaps)
    return np.asarray(MEAN_OF_HALF_NORMAL * spread * np.sqrt(_sampling(reference, current)))


def _noise_normalized_wasserstein(
    reference: Fine, current: Fine, *, convention: str = "tidegauge"
) -> FloatArray:
    return ratio(_noise_wasserstein(reference, current), _scale(reference, convention))


def _noise_p_value(reference: Bins, current: Bins) -> FloatArray:
    """Half: a p-value is uniform when nothing has changed."""
    return 0.5 + 0 * _sampling(reference, current)


def _noise_kolmogorov_p_value(reference: Fine, current: Fine) -> FloatArray:
    """Half, and more by as much as the bins hide of the gap."""
    seen = _noise_kolmogorov_smirnov(reference, current) / np.sqrt(_sampling(reference, current))
    return np.minimum(0.5 + DENSITY_OF_KOLMOGOROV * (MEAN_OF_KOLMOGOROV - seen), 1)


# Metrics over coarse bins.


@metric("psi", worse="higher", bounds=(0, inf), noise=_noise_psi)
def psi(
    reference: Bins,
    current: Bins,
    *,
    convention: Literal[
        "tidegauge", "fiddler", "evidently", "whylabs", "popmon", "deepchecks", "frouros"
    ] = "tidegauge",
) -> FloatArray:
    """How far the shares of the bins have moved, in nats (population stability index).

    Sum over bins of (q - p) ln(q / p). Tidegauge adds half a row to every bin that is occupied on
    either side and counts missing values as a bin; the other conventions compare present values,
    each with its own rule for empty bins: fiddler adds one row, evidently replaces zeros by
    0.0001, whylabs clips shares to [1e-7, 1], popmon adds 1e-5 to raw counts and never normalises,
    deepchecks floors shares at 0.01, frouros at 2.2e-308. Range 0 to infinity; 0 means identical;
    below 0.1 is commonly read as stable. Noise floor (B - 1)(1/n + 1/m). Undefined when either
    side is empty.

    >>> round(float(psi(Bins([50, 50, 0]), Bins([30, 70, 0]))), 3)
    0.166
    """
    p, q = _smoothed(reference, current, convention)
    value: FloatArray = ((q - p) * np.log(q / p)).sum(axis=-1)
    return value


@metric("kl_divergence", worse="higher", bounds=(0, inf), noise=_noise_kl)
def kl_divergence(
    reference: Bins,
    current: Bins,
    *,
    convention: Literal["tidegauge", "evidently"] = "tidegauge",
) -> FloatArray:
    """Cost of coding the reference with the current shares, in nats (Kullback-Leibler).

    Sum over bins of p ln(p / q), empty bins as in `psi`. Range 0 to infinity; 0 means identical.
    Undefined when either side is empty.

    >>> round(float(kl_divergence(Bins([50, 50, 0]), Bins([30, 70, 0]))), 3)
    0.085
    """
    p, q = _smoothed(reference, current, convention)
    value: FloatArray = (p * np.log(p / q)).sum(axis=-1)
    return np.maximum(value, 0)


LOG_OF_BASE = {"tidegauge": log(2), "nannyml": log(2), "evidently": 1.0, "whylabs": 1.0}


def _to_mixture(p: FloatArray, q: FloatArray) -> FloatArray:
    """Jensen-Shannon divergence of two rows of shares, in nats."""
    mixture = np.where(p + q == 0, 1, (p + q) / 2)
    terms = p * np.log(np.where(p == 0, 1, p / mixture))
    terms += q * np.log(np.where(q == 0, 1, q / mixture))
    return np.asarray(np.maximum(terms.sum(axis=-1) / 2, 0))


@metric(
    "jensen_shannon_distance", worse="higher", bounds=(0, 1), noise=_noise_jensen_shannon_distance
)
def jensen_shannon_distance(
    reference: Bins,
    current: Bins,
    *,
    convention: Literal["tidegauge", "nannyml", "evidently", "whylabs"] = "tidegauge",
) -> FloatArray:
    """How unlike the two distributions are: 0 means identical, 1 means nothing in common.

    Root of the mean Kullback-Leibler divergence of p and q to their mixture, base 2; evidently and
    whylabs use nats, where the largest value is 0.8326. Tidegauge counts missing values as a bin,
    the peers do not. Range 0 to 1. Undefined when either side is empty.

    >>> float(jensen_shannon_distance(Bins([5, 0, 0]), Bins([0, 9, 0])))
    1.0
    """
    before, after = _compared(reference, current, convention)
    nats = _to_mixture(before.shares, after.shares)
    return np.asarray(np.sqrt(np.minimum(nats / LOG_OF_BASE[convention], 1)))


@metric(
    "jensen_shannon_divergence",
    worse="higher",
    bounds=(0, 1),
    noise=_noise_jensen_shannon_divergence,
)
def jensen_shannon_divergence(
    reference: Bins, current: Bins, *, convention: Literal["tidegauge", "tfdv"] = "tidegauge"
) -> FloatArray:
    """How unlike the two distributions are, in bits: the square of the distance.

    Mean Kullback-Leibler divergence of p and q to their mixture, base 2. Under tfdv a missing value
    never matches another one. Range 0 to 1. Undefined when either side is empty.

    >>> float(jensen_shannon_divergence(Bins([5, 0, 0]), Bins([0, 9, 0])))
    1.0
    """
    p, q = reference.shares, current.shares
    if convention == "tfdv":
        unmatched = (p[..., -1] + q[..., -1]) / 2
        nats = _to_mixture(p[..., :-1], q[..., :-1])
        return np.asarray(np.minimum(nats / log(2) + unmatched, 1))
    return np.asarray(np.minimum(_to_mixture(p, q) / log(2), 1))


@metric("hellinger_distance", worse="higher", bounds=(0, 1), noise=_noise_hellinger)
def hellinger_distance(reference: Bins, current: Bins) -> FloatArray:
    """How unlike the two distributions are, with weight on the rare bins.

    sqrt(1/2 * sum of (sqrt(p) - sqrt(q))**2). Range 0 to 1; 0 means identical, 1 nothing in common.
    Undefined when either side is empty.

    >>> round(float(hellinger_distance(Bins([50, 50, 0]), Bins([30, 70, 0]))), 3)
    0.145
    """
    gap = np.sqrt(reference.shares) - np.sqrt(current.shares)
    return np.asarray(np.minimum(np.sqrt((gap * gap).sum(axis=-1) / 2), 1))


@metric("total_variation", worse="higher", bounds=(0, 1), noise=_noise_total_variation)
def total_variation(reference: Bins, current: Bins) -> FloatArray:
    """Share of the rows that would have to change bins to undo the drift.

    1/2 * sum of |q - p|. Range 0 to 1. Undefined when either side is empty.

    >>> round(float(total_variation(Bins([50, 50, 0]), Bins([30, 70, 0]))), 3)
    0.2
    """
    value: FloatArray = np.abs(current.shares - reference.shares).sum(axis=-1) / 2
    return np.minimum(value, 1)


@metric("l_infinity", worse="higher", bounds=(0, 1), noise=_noise_l_infinity)
def l_infinity(reference: Bins, current: Bins) -> FloatArray:
    """Largest change of any one bin's share.

    max |q - p|. Range 0 to 1. Undefined when either side is empty.

    >>> round(float(l_infinity(Bins([50, 30, 20]), Bins([35, 35, 30]))), 3)
    0.15
    """
    value: FloatArray = np.abs(current.shares - reference.shares).max(axis=-1)
    return value


def _noise_chi_square(reference: Bins, current: Bins) -> FloatArray:
    return _freedom(reference, current) + 0 * _sampling(reference, current)


@metric("chi_square", worse="higher", bounds=(0, inf), noise=_noise_chi_square)
def chi_square(reference: Bins, current: Bins) -> FloatArray:
    """Evidence against equal shares: Pearson's statistic of the two-row contingency table.

    n m * sum of (q - p)**2 / (reference count + current count). It grows with the sample size:
    compare it with its noise floor, the B - 1 degrees of freedom. Range 0 to infinity. Undefined
    when either side is empty.

    >>> round(float(chi_square(Bins([50, 50, 0]), Bins([30, 70, 0]))), 3)
    8.333
    """
    pooled = reference.counts + current.counts
    gap = current.shares - reference.shares
    weighted = (gap * gap / np.where(pooled == 0, 1, pooled)).sum(axis=-1)
    return np.asarray(weighted * reference.n * current.n)


@metric("chi_square_p_value", worse="lower", bounds=(0, 1), noise=_noise_p_value)
def chi_square_p_value(reference: Bins, current: Bins) -> FloatArray:
    """Probability of so large a chi-square statistic if nothing had changed.

    Tail of the chi-square distribution with B - 1 degrees of freedom, B the bins occupied on either
    side; it takes rows for independent, which real traffic is not. Range 0 to 1. Undefined when
    either side is empty.

    >>> round(float(chi_square_p_value(Bins([50, 50, 0]), Bins([30, 70, 0]))), 4)
    0.0039
    """
    return chi_square_tail(chi_square(reference, current), _freedom(reference, current))


# Metrics over fine bins.


@metric("kolmogorov_smirnov", worse="higher", bounds=(0, 1), noise=_noise_kolmogorov_smirnov)
def kolmogorov_smirnov(reference: Fine, current: Fine) -> FloatArray:
    """Largest gap between the two cumulative distributions.

    max |F(x) - G(x)| over the ends of the fine bins, short of the exact value by at most one fine
    bin's share. Range 0 to 1. Undefined when either side has no finite value.

    >>> edges = [0.0, 1.0, 2.0, 3.0]
    >>> float(kolmogorov_smirnov(Fine([2, 2, 0], edges), Fine([1, 1, 2], edges)))
    0.5
    """
    value: FloatArray = current.gap(reference).max(axis=-1)
    return value


@metric("kolmogorov_smirnov_p_value", worse="lower", bounds=(0, 1), noise=_noise_kolmogorov_p_value)
def kolmogorov_smirnov_p_value(reference: Fine, current: Fine) -> FloatArray:
    """Probability of so large a Kolmogorov-Smirnov gap if nothing had changed.

    Tail of Kolmogorov's distribution at D * sqrt(n m / (n + m)): right for large continuous
    samples, cautious for few distinct values; it takes rows for independent. Range 0 to 1.
    Undefined when either side has no finite value.

    >>> edges = [0.0, 1.0, 2.0]
    >>> round(float(kolmogorov_smirnov_p_value(Fine([50, 50], edges), Fine([30, 70], edges))), 4)
    0.0366
    """
    gap = kolmogorov_smirnov(reference, current)
    return kolmogorov_tail(gap / np.sqrt(_sampling(reference, current)))


@metric("wasserstein_distance", worse="higher", bounds=(0, inf), noise=_noise_wasserstein)
def wasserstein_distance(reference: Fine, current: Fine) -> FloatArray:
    """How far the values have moved on average, in the column's own unit.

    Integral of |F(x) - G(x)|, the mass of a fine bin lying at its middle. Range 0 to infinity.
    Undefined when either side has no finite value.

    >>> edges = [0.0, 1.0, 2.0, 3.0]
    >>> float(wasserstein_distance(Fine([2, 2, 0], edges), Fine([0, 2, 2], edges)))
    1.0
    """
    gap = current.gap(reference)[..., :-1]
    return np.asarray(np.einsum("...f,...f->...", gap, current.gaps))


@metric(
    "normalized_wasserstein_distance",
    worse="higher",
    bounds=(0, inf),
    noise=_noise_normalized_wasserstein,
)
def normalized_wasserstein_distance(
    reference: Fine, current: Fine, *, convention: Literal["tidegauge", "evidently"] = "tidegauge"
) -> FloatArray:
    """How far the values have moved on average, in standard deviations of the reference.

    Wasserstein distance / std(reference); evidently divides by max(std(reference), 0.001). Range 0
    to infinity. Undefined when either side has no finite value, or the reference is constant.

    >>> edges = [0.0, 1.0, 2.0, 3.0]
    >>> float(normalized_wasserstein_distance(Fine([2, 2, 0], edges), Fine([0, 2, 2], edges)))
    2.0
    """
    return ratio(wasserstein_distance(reference, current), _scale(reference, convention))


def _scale(reference: Fine, convention: str) -> FloatArray:
    shares = ratio(reference.counts, reference.n[..., None])
    centre = np.einsum("...f,...f->...", shares, reference.middles)[..., None]
    variance = np.einsum("...f,...f->...", shares, (reference.middles - centre) ** 2)
    return np.asarray(np.maximum(np.sqrt(variance), 0.001 if convention == "evidently" else 0))


# All features together.


def evidence(
    reference: Bins | Fine, current: Bins | Fine
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Test of one feature: statistic, n m / (n + m), and p-value if rows were independent.

    The statistic is the square of the Kolmogorov-Smirnov distance for numbers and chi-square for
    categories, either in units of its mean when nothing has changed.
    """
    size = 1 / _sampling(reference, current)
    if isinstance(current, Fine) and isinstance(reference, Fine):
        gap = kolmogorov_smirnov(reference, current)
        statistic = gap * gap * size / MEAN_SQUARE_OF_KOLMOGOROV
        return statistic, size, kolmogorov_tail(gap * np.sqrt(size))
    assert isinstance(current, Bins)
    assert isinstance(reference, Bins)
    freedom = _freedom(reference, current)
    statistic = chi_square(reference, current)
    return statistic / np.maximum(freedom, 1), size, chi_square_tail(statistic, freedom)


@metric("drifted_share", worse="higher", bounds=(0, 1))
def drifted_share(
    current: FeatureTests,
    *,
    q: float = 0.05,
    method: Literal["bh", "by"] = "bh",
    null: Literal["windows", "rows"] = "windows",
) -> FloatArray:
    """Share of the features that have drifted, with a bound on the false discoveries among them.

    Every numeric feature is tested by Kolmogorov-Smirnov, every categorical one by chi-square, and
    of K tests the j with the smallest p-values count, j the largest for which the j-th is at most
    q j / K: on average no more than q of them are false (bh, Benjamini and Hochberg; by, Benjamini
    and Yekutieli, holds for features that depend on each other in any way). Real rows are not
    independent and most quiet days would be found guilty, so a window must also stand out among the
    reference's own windows of its width (null windows); with fewer than ten of those, independent
    rows are all there is to compare with (null rows). Range 0 to 1; times n, the features tested,
    it is their number. Undefined where none could be tested.

    >>> float(drifted_share(FeatureTests([0.001, 0.02, 0.6, 0.9], [0.004, 0.3, 0.7, 0.2])))
    0.25
    """
    p_values = current.beside_windows if null == "windows" else current.by_rows
    return ratio(n_rejected(p_values, q, method), current.n)
