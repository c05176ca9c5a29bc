"""Linear operators from differences of coalition pairs to Shapley values.

For a game v of M players, pair k is a coalition S and its complement, t its signs (1 for players in
S, -1 for others) and d = (v(S) - v(complement)) / 2. Only the odd Walsh coefficients c_T of v reach
d, and the values are phi_i = sum over odd T with i in T of 2 c_T / |T|. Every operator here gives
values that add up to delta = v(all) - v(nobody), and depends on no row, so it is made once for all
of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from tidegauge import _core

FloatArray = NDArray[np.float64]

N_PROBES = (
    32  # contrasts that measure a row's amplitude; its error bar is good to 1 in sqrt(2 N_PROBES)
)
MOST_ROUNDS = 8  # of exchanges between groups
BLOCK = 256  # rows of the system to which the groups' effects are added at once
TYPICAL_WEIGHT = 4  # contrasts that the amplitude of other rows counts for
LARGEST_RATIO = 0.9
LARGEST_SCALE, SMALLEST_SCALE = 5.0, 0.05


@dataclass(frozen=True, slots=True)
class Operator:
    """What turns the differences of one row into its values, all players and outputs alike."""

    signs: FloatArray  # [pairs, players]
    weights: FloatArray  # [pairs + 1, players + probes]; the last row is for delta
    covariance: FloatArray  # [players, players] of the error, for a row of amplitude 1
    variance: (
        FloatArray  # [players] of the error, for a row of amplitude 1 and the misfit of the prior
    )
    residual_weights: FloatArray | None  # [pairs, players], where residuals tell the error instead

    @property
    def n_players(self) -> int:
        """Number of players."""
        return int(self.signs.shape[1])


@dataclass(frozen=True, slots=True)
class Split:
    """How the background is split: pair k meets group k modulo the number of groups."""

    starts: NDArray[np.int64]  # [groups + 1] rows of the background before each group
    shares: FloatArray  # [groups] weight of each group in the whole background
    spreads: (
        FloatArray  # [groups] variance of a group's mean around the whole's, for row variance 1
    )
    weights: FloatArray  # [rows] of each row in its own group

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(self.shares)


@dataclass(frozen=True, slots=True)
class Noise:
    """What a few rows showed of the model; variances are relative to that of its interactions."""

    scales: FloatArray  # [players] how much each matters, mean 1
    player_variance: (
        FloatArray  # [players] of the main effects that one background row has by itself
    )
    pair_variance: float  # of a pair for one background row, beyond the main effects
    offsets: FloatArray  # [outputs, background, players] mean main effects of each background row
    misfit: float = 1.0  # of errors to what the prior expects of them
    amplitudes: FloatArray | None = None  # [outputs] variance of the interactions, over rows
    kinship: FloatArray | None = None  # [2, background, background] how pairs err together, by half

    @classmethod
    def unknown(cls, n_players: int) -> Noise:
        """Return what is assumed when there was nothing to learn from."""
        return cls(np.ones(n_players), np.zeros(n_players), 0.0, np.zeros((1, 1, n_players)))


def signs_of(masks: NDArray[np.uint64], n_players: int) -> FloatArray:
    """Return 1 for players in the coalition, -1 for the others.

    >>> signs_of(np.array([[0b101]], dtype=np.uint64), 3).tolist()
    [[1.0, -1.0, 1.0]]
    """
    little = np.ascontiguousarray(masks.astype("<u8")).view(np.uint8)
    bits = np.unpackbits(little, axis=1, bitorder="little")[:, :n_players]
    return np.where(bits == 1, 1.0, -1.0)


def split_background(weights: FloatArray, n_groups: int) -> Split:
    """Split rows into groups of nearly equal number.

    >>> split_background(np.full(4, 0.25), 2).spreads
    array([0.25, 0.25])
    """
    starts = np.linspace(0, len(weights), n_groups + 1).round().astype(np.int64)
    sizes = np.diff(starts)
    shares = np.add.reduceat(weights, starts[:-1])
    own = weights / np.repeat(shares, sizes)
    square = np.add.reduceat((own - weights) ** 2 - weights**2, starts[:-1])
    return Split(starts, shares, square + np.sum(weights**2), own)


def balance_groups(kinship: FloatArray, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order rows so that groups of these sizes resemble the whole: their errors cancel inside each.

    kinship[rows, rows] are products of the rows' errors, which add up to nothing over all rows.
    Rows change places in pairs as long as that makes the sum of squared errors of the groups
    smaller.

    >>> balance_groups(np.outer([1, 1, -1, -1], [1, 1, -1, -1]) * 1.0, np.array([2, 2])).tolist()
    [1, 2, 0, 3]
    """
    owner = np.repeat(np.arange(len(sizes)), sizes)
    weights = 1.0 / sizes**2
    own = np.einsum("ii->i", kinship)
    sums = np.stack([kinship[owner == group].sum(axis=0) for group in range(len(sizes))])
    rows = np.arange(len(owner))
    for _ in range(MOST_ROUNDS):
        moved = False
        for row in rows:
            here, apart = owner[row], own[row] + own - 2 * kinship[row]
            there = weights[owner] * (2 * (sums[owner, row] - sums[owner, rows]) + apart)
            gain = there + weights[here] * (2 * (sums[here] - sums[here, row]) + apart)
            gain[owner == here] = 0
            other = int(np.argmin(gain))
            if gain[other] < -1e-12 * own.sum():
                change = kinship[other] - kinship[row]
                sums[here] += change
                sums[owner[other]] -= change
                owner[row], owner[other] = owner[other], here
                moved = True
        if not moved:
            break
    return np.argsort(owner, kind="stable")


def balance_gain(kinship: FloatArray, sizes: NDArray[np.int64]) -> float:
    """Variance of balanced groups over that of random ones, from one half's groups on the other.

    kinship[2, rows, rows]

    >>> halves = np.stack([np.outer([1, 1, -1, -1], [1, 1, -1, -1]) * 1.0] * 2)
    >>> balance_gain(halves, np.array([2, 2]))
    0.0
    """
    n = len(kinship[0])
    starts = np.append(0, np.cumsum(sizes)[:-1])
    found = expected = 0.0
    for learnt, tried in (kinship, kinship[::-1]):
        order = balance_groups(learnt, sizes)
        inside = np.add.reduceat(tried[order][:, order], starts, axis=0)
        inside = np.add.reduceat(inside, starts, axis=1)
        found += float((np.einsum("ii->i", inside) / sizes**2).sum())
        mean = np.einsum("ii->", tried) / n
        expected += float((mean * (n - sizes) / (sizes * max(n - 1, 1))).sum())
    return min(max(found / expected, 0.0), 1.0) if expected > 0 else 1.0


def enumeration_operator(signs: FloatArray) -> Operator:
    """Shapley's own formula, for every pair there is: exact."""
    n_players = signs.shape[1]
    sizes = (signs > 0).sum(axis=1)
    marginal = np.array([1 / (n_players * comb(n_players - 1, s)) for s in range(n_players)])
    inside = signs > 0
    weights = np.where(inside, 2 * marginal[sizes - 1, None], -2 * marginal[sizes, None])
    delta = np.full((1, n_players), 1 / n_players)
    return Operator(
        signs,
        np.vstack([weights, delta]),
        np.zeros((n_players, n_players)),
        np.zeros(n_players),
        None,
    )


def regression_operator(signs: FloatArray, weights: FloatArray, shares: FloatArray) -> Operator:
    """Paired weighted least squares, unbiased when the labels of the players are shuffled by row.

    The weights of the sizes are adjusted until g_s = 1 for each size s, where g_s is the mean
    coefficient of the members of drawn coalitions of that size, relative to Shapley's; then the
    mean over shuffles is exact.
    """
    n_players = signs.shape[1]
    inside = signs > 0
    sizes = inside.sum(axis=1)
    rows = np.where(2 * sizes == n_players, 1.0, 2.0) / n_players
    weights = weights.copy()
    for _ in range(60):
        solution, share, covariance = _least_squares(signs, weights)
        found = np.bincount(sizes, (solution * inside).sum(axis=1)) / n_players
        wanted = np.bincount(sizes, rows) / np.maximum(np.bincount(sizes), 1)
        ratio = found[sizes] / wanted[sizes]
        if np.all(shares == 1) or np.abs(ratio - 1).max() < 1e-13:
            break
        weights = weights / ratio
    missing = 1 - shares
    scale = len(signs) / max(len(signs) - n_players, 1)
    residual_weights = solution**2 * (missing * scale)[:, None]
    values = np.vstack([solution, share])
    return Operator(signs, values, covariance, np.einsum("ii->i", covariance), residual_weights)


def _least_squares(
    signs: FloatArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    weighted = signs * weights[:, None]
    inverse = _inverse(product(signs.T, weighted) / 4)
    ones = inverse.sum(axis=1)
    share = ones / ones.sum()
    free = product(weighted / 2, inverse)
    solution = free - free.sum(axis=1)[:, None] * share
    return solution, share[None, :], inverse - np.outer(ones, share)


def interaction_operator(
    signs: FloatArray, split: Split, noise: Noise, probes: FloatArray
) -> Operator:
    """Best linear estimate under a prior on the odd interactions: the default.

    Interactions of three players and more are independent, of variance prod_{i in T} r_i; main
    effects are unknown. Their covariance over pairs has a closed form (a hyperbolic sine), to which
    the noise of a split background adds. Generalised least squares then gives values and the
    covariance of their error. probes[pairs + 1, n]: random signs, from which contrasts are made
    that hold no main effect.
    """
    n_pairs, n_players = signs.shape
    ratios = interaction_ratios(noise.scales)
    every = np.vstack([signs, np.ones((1, n_players))])
    system = _core.odd_covariance(every, ratios)
    cross = main_covariance(every, ratios)
    prior = value_covariance(ratios)

    groups = np.arange(n_pairs) % split.n_groups
    total = noise.player_variance.sum()
    effects = np.diag(noise.player_variance)
    if total > 0:  # they are known to add up to nothing
        effects -= np.outer(noise.player_variance, noise.player_variance) / total
    moved = product(every, effects)
    for group, spread in enumerate(split.spreads):
        members = slice(group, n_pairs, split.n_groups)
        for first in range(group, n_pairs, BLOCK * split.n_groups) if spread > 0 else ():
            block = slice(first, min(first + BLOCK * split.n_groups, n_pairs), split.n_groups)
            system[block, members] += spread / 4 * product(moved[block], every[members].T)
    spreads = split.spreads[groups]
    cross[:-1] += (split.shares[groups] * spreads / 2)[:, None] * moved[:-1]
    prior += (split.shares**2 * split.spreads).sum() * effects
    diagonal = np.einsum("ii->i", system)
    jitter = np.full(n_pairs + 1, 1e-8 * diagonal.mean())
    jitter[:-1] += noise.pair_variance * spreads
    jitter[-1] *= 1e-4
    diagonal += jitter
    if not _core.factorise(system):
        raise ArithmeticError("the covariance of the coalitions is not positive definite")

    sides = _core.solve(system, np.hstack([every, cross, probes]), upper=False)
    main, crossed, contrasts = np.split(sides, [n_players, 2 * n_players], axis=1)
    inverse = _inverse(product(main.T, main))
    gap = 2 * np.eye(n_players) - product(crossed.T, main)
    lifted = product(inverse, gap.T)
    contrasts = contrasts - product(main, product(inverse, product(main.T, contrasts)))
    norms = np.sqrt((contrasts**2).sum(axis=0))
    contrasts = contrasts / np.where(norms > 0, norms, 1)
    values = crossed + product(main, lifted)
    weights = _core.solve(system, np.hstack([values, contrasts]), upper=True)
    weights[-1] /= 2  # the pair of everybody and nobody has the difference delta / 2
    excess = weights[:, :n_players].sum(axis=1)
    excess[-1] -= 1  # of rounding: values add up to delta
    weights[:, :n_players] -= excess[:, None] / n_players
    error = prior - product(crossed.T, crossed) + product(gap, lifted)
    error = (error + error.T) / 2

    by_noise = np.zeros(n_players)
    for group, spread in enumerate(split.spreads):
        members = slice(group, n_pairs, split.n_groups)
        used = weights[members, :n_players]
        met = product(every[members].T, used) / 2
        left = split.shares[group] * np.eye(n_players) - met
        by_noise += spread * (left * product(effects, left)).sum(axis=0)
        by_noise += spread * noise.pair_variance * (used**2).sum(axis=0)
    by_prior = np.maximum(np.einsum("ii->i", error) - by_noise, 0)
    return Operator(signs, weights, error, by_noise + noise.misfit**2 * by_prior, None)


def interaction_ratios(scales: FloatArray) -> FloatArray:
    """Return r: the more players, the less an interaction of many of them is expected to matter.

    >>> interaction_ratios(np.ones(20)).round(3)[:2]
    array([0.061, 0.061])
    """
    n = len(scales)
    triples, quintuples = comb(n, 3), comb(n, 5)
    rho = np.sqrt(min(0.05 * triples / quintuples, 0.25)) if quintuples else 0.5
    return np.minimum(rho * scales, LARGEST_RATIO)


def main_covariance(signs: FloatArray, ratios: FloatArray) -> FloatArray:
    """Covariance of pairs with values, [pairs, players], exact by Gauss-Legendre quadrature."""
    n_players = len(ratios)
    nodes, weights = np.polynomial.legendre.leggauss(min(n_players // 2 + 1, 16))
    slopes = signs * ratios
    total = np.zeros_like(slopes)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        plus, minus = 1 + node * slopes, 1 - node * slopes
        total += weight * (np.prod(plus, axis=1)[:, None] / plus)
        total += weight * (np.prod(minus, axis=1)[:, None] / minus)
    return slopes * (total - 2)


def value_covariance(ratios: FloatArray) -> FloatArray:
    """Covariance of the parts of the values that come from interactions, [players, players].

    Entry (i, j) is the sum over odd T that hold both, |T| >= 3, of (2 / |T|)^2 prod_{l in T} r_l,
    from the elementary symmetric polynomials of the other ratios.
    """
    n_players = len(ratios)
    degree = min(n_players, 21)  # they fall like 1 / degree!, the ratios being about 1 / n
    symmetric = np.zeros(degree + 1)
    symmetric[0] = 1
    for ratio in ratios:
        symmetric[1:] += ratio * symmetric[:-1]
    one_out = np.ones((n_players, degree + 1))
    for d in range(1, degree + 1):
        one_out[:, d] = symmetric[d] - ratios * one_out[:, d - 1]
    two_out, total = np.ones((n_players, n_players)), np.zeros((n_players, n_players))
    diagonal = np.zeros(n_players)
    for d in range(1, degree + 1):
        if d % 2 == 1 and d >= 3:
            diagonal += 4 / d**2 * ratios * one_out[:, d - 1]
        # two_out holds degree d - 1
        if d % 2 == 0 and d + 1 <= degree:
            total += 4 / (d + 1) ** 2 * np.outer(ratios, ratios) * two_out
        two_out = one_out[:, d][:, None] - ratios * two_out
    np.fill_diagonal(total, diagonal)
    return total


def null_projection(covariance: FloatArray, null: NDArray[np.bool_]) -> FloatArray:
    """Return P[null, players]: values - values[null] @ P is the estimate when they have none."""
    inside = covariance[np.ix_(null, null)]
    pseudo = np.asarray(np.linalg.pinv(inside, rcond=1e-10, hermitian=True), np.float64)
    return product(pseudo, covariance[null])


def product(left: FloatArray, right: FloatArray) -> FloatArray:
    """Multiply in one order: a library's threads would decide the last bits."""
    return _core.multiply_rows(np.ascontiguousarray(left), np.ascontiguousarray(right))


def _inverse(matrix: FloatArray) -> FloatArray:
    factor = matrix.copy()
    if not _core.factorise(factor):
        raise ArithmeticError("the coalitions do not tell the players apart")
    eye = np.eye(len(matrix))
    return _core.solve(factor, _core.solve(factor, eye, upper=False), upper=True)
