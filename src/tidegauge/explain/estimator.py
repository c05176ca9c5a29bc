"""How a budget is spent: coalitions, the background rows they meet, operators that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tidegauge import _core
from tidegauge.explain.coalitions import Coalitions
from tidegauge.explain.operators import (
    LARGEST_SCALE,
    N_PROBES,
    SMALLEST_SCALE,
    TYPICAL_WEIGHT,
    FloatArray,
    Noise,
    Operator,
    Split,
    balance_gain,
    balance_groups,
    enumeration_operator,
    interaction_operator,
    interaction_ratios,
    null_projection,
    product,
    regression_operator,
    signs_of,
    split_background,
)

Method = Literal["sinh", "wls", "enumeration"]
N_DESIGNS = 4  # drawn apart; a row's values choose, so that errors of many rows average out
ENOUGH_PAIRS = 900  # from here more rows of the background do as much as more pairs;
ENOUGH_A_PLAYER = 20  # with many players from here
MANY_PAIRS = 1_000  # with so many, each meets the whole background
ENUMERATED_PLAYERS = 11  # up to here every coalition is evaluated unless a budget is given
CALIBRATION_ROWS, CALIBRATION_PAIRS = 8, 256
BALANCED_ROWS = 512  # of the background; larger ones are split at random
CALIBRATION_STREAM, SHUFFLE_STREAM, PROBE_STREAM = 1 << 8, 1 << 62, 1 << 63


@dataclass(frozen=True, slots=True)
class Budget:
    """What one explained row may cost."""

    method: Method
    n_pairs: int
    n_groups: int  # of the background


def n_all_pairs(n_players: int) -> int:
    """Number of pairs {S, complement} without nobody and everybody.

    >>> n_all_pairs(4)
    7
    """
    return int(2 ** max(n_players - 1, 0)) - 1


def plan_budget(
    n_players: int,
    n_background: int,
    evaluations: int | None,
    *,
    whole: bool,
    wanted: Literal["auto", "sinh", "wls"] = "auto",
    most_pairs: int = 2_500,
) -> Budget:
    """Choose pairs and groups for a number of evaluations a row.

    `whole` asks for the whole background for each coalition, as a link other than the identity
    does.

    Raises
    ------
    ValueError
        When the evaluations are too few to tell the players apart; it names the number needed.

    >>> plan_budget(20, 100, 16_384, whole=False)
    Budget(method='sinh', n_pairs=819, n_groups=10)
    """
    every = n_all_pairs(n_players)
    if evaluations is None:
        evaluations = max(16_384, 1_024 * n_background if whole else 0)
        if n_players <= ENUMERATED_PLAYERS:
            evaluations = max(evaluations, 2 * every * n_background)
    if evaluations >= 2 * every * n_background:
        return Budget("enumeration", every, 1)
    fewest = min(2 * n_players, every)
    smallest = n_background if whole else 1
    needed = 2 * fewest * smallest
    if evaluations < needed:
        raise ValueError(
            f"{evaluations:,} evaluations a row are too few for {n_players} players and "
            f"{n_background} background rows; at least {needed:,} are needed"
        )
    enough = min(max(ENOUGH_PAIRS, ENOUGH_A_PLAYER * n_players), most_pairs)
    members = max(smallest, -(-evaluations // (2 * enough)))
    if evaluations // (2 * n_background) >= MANY_PAIRS:
        members = n_background
    members = min(max(members, evaluations // (2 * every)), n_background)
    members = min(members, evaluations // (2 * fewest))
    n_groups = -(-n_background // members)
    members = -(-n_background // n_groups)
    n_pairs = min(evaluations // (2 * members), every)
    if wanted == "wls":
        return Budget("wls", n_pairs, n_groups)
    return Budget("sinh", min(n_pairs, most_pairs), n_groups)


@dataclass(slots=True)
class Estimator:
    """Designs and operators of one budget; an operator is made when the first row needs it."""

    n_players: int
    budget: Budget
    background_weights: FloatArray
    noise: Noise
    seed: int
    make_coalitions: Callable[[NDArray[np.uint64], Split, NDArray[np.int64]], Coalitions]
    order: NDArray[np.int64] = field(init=False)  # of the background's rows, group by group
    split: Split = field(init=False)
    coalitions: Coalitions | None = field(init=False, default=None)
    n_designs: int = field(init=False, default=1)
    _designs: list[tuple[NDArray[np.uint64], FloatArray, FloatArray]] = field(init=False)
    _operators: dict[int, Operator] = field(init=False, default_factory=dict)
    _constants: dict[int, FloatArray] = field(init=False, default_factory=dict)
    _without: dict[tuple[int, bytes], tuple[FloatArray, FloatArray]] = field(
        init=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        """Draw the designs."""
        self._split()
        self._designs = []
        if self.budget.n_pairs == 0:
            return
        self.n_designs = N_DESIGNS if self.budget.method == "sinh" else 1
        self._designs = [
            _core.draw_design(self.n_players, self.budget.n_pairs, self.seed, stream)
            for stream in range(self.n_designs)
        ]
        masks = np.stack([masks for masks, _, _ in self._designs])
        self.coalitions = self.make_coalitions(masks, self.split, self.order)

    def _split(self) -> None:
        """Split the background into groups that resemble each other."""
        weights, n_groups = self.background_weights, self.budget.n_groups
        self.order = np.arange(len(weights))
        kinship = self.noise.kinship
        if n_groups > 1 and kinship is not None:
            sizes = np.diff(split_background(weights, n_groups).starts)
            self.order = balance_groups(kinship.sum(axis=0), sizes)
            left = balance_gain(kinship, sizes)
            self.noise = replace(
                self.noise,
                pair_variance=self.noise.pair_variance * left,
                offsets=self.noise.offsets[:, self.order],
            )
        self.split = split_background(weights[self.order], n_groups)

    @property
    def method(self) -> Method:
        """Which operator turns differences into values."""
        return self.budget.method

    @property
    def n_pairs(self) -> int:
        """Pairs a row."""
        return self.budget.n_pairs

    def designs_of(self, keys: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Return the design of each row, by its values."""
        return (keys % np.uint64(self.n_designs)).astype(np.int32)

    def labels_of(self, keys: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Return the label of each player of each row; regression knows no players apart."""
        if self.method == "wls":
            return _core.shuffle_labels(keys, self.n_players, self.seed)
        return np.tile(np.arange(self.n_players, dtype=np.int32), (len(keys), 1))

    def operator(self, design: int) -> Operator:
        """Return the operator of a design."""
        if design not in self._operators:
            self._operators[design] = self._make(design)
        return self._operators[design]

    def constants(self, design: int) -> FloatArray:
        """Return what the offsets of the background's groups add, [outputs, players + probes]."""
        if design not in self._constants:
            operator = self.operator(design)
            offsets = (
                self.noise.offsets * self.split.weights[:, None]
                if self.split.n_groups > 1
                else None
            )
            if offsets is None:
                found = np.zeros((1, operator.weights.shape[1]))
            else:
                grouped = np.add.reduceat(offsets, self.split.starts[:-1], axis=1)
                pairs = np.arange(self.n_pairs) % self.split.n_groups
                shift = -0.5 * (operator.signs * grouped[:, pairs]).sum(axis=2)
                found = product(shift, operator.weights[:-1])
            self._constants[design] = found
        return self._constants[design]

    def amplitude(self, contrasts: FloatArray) -> FloatArray:
        """Variance of the interactions of rows, from their contrasts and a little from other rows.

        contrasts[rows, outputs, probes] -> [rows, outputs]
        """
        own: FloatArray = (contrasts**2).sum(axis=2) / max(contrasts.shape[2], 1)
        if self.noise.amplitudes is None:
            return own
        known = min(contrasts.shape[2], self.n_pairs + 1 - self.n_players)
        typical = TYPICAL_WEIGHT * self.noise.amplitudes
        mixed: FloatArray = (known * own + typical) / (known + TYPICAL_WEIGHT)
        return mixed

    def without(self, design: int, null: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
        """Return how values move, and the share of variance left, without null players."""
        key = (design, null.tobytes())
        if key not in self._without:
            covariance = self.operator(design).covariance
            projection = null_projection(covariance, null)
            before = np.einsum("ii->i", covariance)
            moved = np.einsum("ij,ij->j", projection, covariance[null])
            kept = np.clip(1 - moved / np.where(before > 0, before, 1), 0, 1)
            self._without[key] = projection, np.where(null, 0.0, kept)
        return self._without[key]

    def _make(self, design: int) -> Operator:
        if not self._designs:  # one player has it all, none has nothing
            none = np.zeros((0, self.n_players))
            share = np.ones((1, self.n_players))
            return Operator(
                none,
                share,
                np.zeros((self.n_players, self.n_players)),
                np.zeros(self.n_players),
                None,
            )
        masks, weights, shares = self._designs[design]
        signs = signs_of(masks, self.n_players)
        if self.method == "enumeration":
            return enumeration_operator(signs)
        if self.method == "wls":
            return regression_operator(signs, weights, shares)
        probes = random_signs(self.seed, PROBE_STREAM + design, (self.n_pairs + 1, N_PROBES))
        return interaction_operator(signs, self.split, self.noise, probes)


def random_signs(seed: int, stream: int, shape: tuple[int, int]) -> FloatArray:
    """Return -1 and 1, drawn for a stream.

    >>> random_signs(0, 0, (1, 4)).tolist()
    [[-1.0, 1.0, -1.0, 1.0]]
    """
    n_draws = -(-shape[0] * shape[1] // 128)
    words = np.array([_core.philox(seed, stream, draw) for draw in range(n_draws)], dtype="<u4")
    bits = np.unpackbits(words.view(np.uint8).ravel(), bitorder="little")
    return np.where(bits[: shape[0] * shape[1]].reshape(shape) == 1, -1.0, 1.0)


@dataclass(frozen=True, slots=True)
class CalibrationDesign:
    """The pairs from which the noise is learnt."""

    masks: NDArray[np.uint64]
    signs: FloatArray
    weights: FloatArray
    shares: FloatArray

    @classmethod
    def draw(cls, n_players: int, seed: int) -> CalibrationDesign:
        """Draw the pairs, apart from those that explain."""
        n_pairs = min(n_all_pairs(n_players), max(CALIBRATION_PAIRS, 2 * n_players))
        masks, weights, shares = _core.draw_design(n_players, n_pairs, seed, CALIBRATION_STREAM)
        return cls(masks, signs_of(masks, n_players), weights, shares)


def learn_noise(
    design: CalibrationDesign,
    rows: Iterable[tuple[FloatArray, FloatArray]],
    weights: FloatArray,
    seed: int,
) -> Noise:
    """Learn scales, offsets and variances from what some rows' pairs gave for each background row.

    rows: differences[outputs, background, pairs] and deltas[outputs, background] of each row.
    """
    n_pairs, n_players = design.signs.shape
    first_pass = regression_operator(design.signs, design.weights, design.shares).weights
    half = np.ascontiguousarray(design.signs.T) / 2
    means: list[FloatArray] = []
    gaps, pair_variances = [], []
    n_background = len(weights)
    n_kin = n_background if n_background <= BALANCED_ROWS else 0
    kinship = np.zeros((2, n_kin, n_kin))
    for differences, deltas in rows:
        every = np.concatenate([differences, deltas[:, :, None]], axis=2)
        mean = (weights[:, None] * every).sum(axis=1)
        value = product(mean, first_pass)
        gap = np.stack([product(one, first_pass) for one in every]) - value[:, None]
        square = []
        for own, middle, moved in zip(differences, mean[:, :-1], gap, strict=True):
            left = own - middle - product(moved, half)
            square.append((weights * (left**2).sum(axis=1)).sum())
            if n_kin:
                left *= weights[:, None]
                kinship[len(means) % 2] += product(left, np.ascontiguousarray(left.T))
        means.append(mean)
        gaps.append(gap)
        pair_variances.append(np.array(square) / max(n_pairs + 1 - n_players, 1))
    if not means:
        return Noise.unknown(n_players)
    mean, gap = np.stack(means), np.stack(gaps)
    offsets = gap.mean(axis=0)
    values = product(mean.reshape(-1, n_pairs + 1), first_pass)
    scales = np.sqrt((values**2).mean(axis=0))
    scales = scales / scales.mean() if scales.any() else np.ones(n_players)
    scales = np.clip(scales, SMALLEST_SCALE, LARGEST_SCALE)

    if n_kin:
        for row, apart in enumerate(gap - offsets):
            for own in weights[:, None] * apart:
                kinship[row % 2] += n_pairs / 4 * product(own, np.ascontiguousarray(own.T))

    unbiased = 1 / max(1 - np.sum(weights**2), 1e-3)
    pair_variance = np.mean(pair_variances, axis=0).sum() * unbiased
    spread = ((gap - offsets) ** 2).sum(axis=(0, 1)) / max(len(gap) - 1, 1)
    player_variance = (weights[:, None] * spread).sum(axis=0) * unbiased
    amplitudes, misfit = _amplitudes(design, scales, mean, seed)
    floor = 1e-8 * (mean**2).mean(axis=(0, 2)).sum()
    amplitude = max(float(amplitudes.mean(axis=0).sum()), float(floor), 1e-300)
    return Noise(
        scales,
        player_variance / amplitude,
        pair_variance / amplitude,
        offsets,
        misfit,
        amplitudes.mean(axis=0),
        kinship
        if len(means) > 1 and len(kinship) and kinship.sum(axis=0).trace() > floor
        else None,
    )


def _amplitudes(
    design: CalibrationDesign, scales: FloatArray, mean: FloatArray, seed: int
) -> tuple[FloatArray, float]:
    """Variance of the interactions of each row and output, and how far the prior misjudges errors.

    The misfit compares values from either half of the pairs: their squared difference over what the
    prior expects of it. It is 1 where the prior is right, and more where interactions are not
    independent.
    """
    n_rows, n_outputs, width = mean.shape
    n_players = len(scales)
    flat = mean.reshape(-1, width)
    whole = split_background(np.ones(1), 1)
    noise = replace(Noise.unknown(n_players), scales=scales)

    def operator(pairs: slice, stream: int) -> Operator:
        signs = design.signs[pairs]
        probes = random_signs(seed, PROBE_STREAM + stream, (len(signs) + 1, 4 * N_PROBES))
        return interaction_operator(signs, whole, noise, probes)

    every = operator(slice(None), CALIBRATION_STREAM)
    contrasts = product(flat, every.weights)[:, n_players:]
    amplitudes = (contrasts**2).mean(axis=1)
    half = (width - 1) // 2
    misfit = 1.0
    if half > 2 * n_players and amplitudes.any():
        first = operator(slice(half), CALIBRATION_STREAM + 1).weights[:, :n_players]
        second = operator(slice(half, None), CALIBRATION_STREAM + 2).weights[:, :n_players]
        apart = np.concatenate([first[:-1], -second[:-1], first[-1:] - second[-1:]])
        found = (product(flat, apart) ** 2).sum(axis=1)
        apart[-1] *= 2  # the prior is about half of delta
        signs = np.vstack([design.signs, np.ones((1, n_players))])
        prior = _core.odd_covariance(signs, interaction_ratios(scales))
        prior += np.tril(prior, -1).T - np.triu(prior, 1)
        expected = (apart * product(prior, apart)).sum()
        misfit = float(np.sqrt(max(found.sum() / (amplitudes.sum() * expected), 1.0)))
    return amplitudes.reshape(n_rows, n_outputs), misfit
