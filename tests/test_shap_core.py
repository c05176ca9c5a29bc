"""What explanations are made of, in the core and beside it: designs, masks, operators, groups.

These tests import no other library, so they run on the build that stops at undefined steps too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from tidegauge import _core
from tidegauge.explain import operators
from tidegauge.explain.coalitions import HostCoalitions


def test_random_words_are_those_of_philox() -> None:
    """Known answers of Random123."""
    assert _core.philox(0, 0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = 2**64 - 1
    assert _core.philox(ones, ones, ones) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@pytest.mark.parametrize(
    ("n_players", "n_pairs"), [(2, 1), (6, 31), (6, 20), (20, 500), (130, 400)]
)
def test_designs_hold_distinct_pairs_and_enumerate_complete_sizes(
    n_players: int, n_pairs: int
) -> None:
    masks, weights, shares = _core.draw_design(n_players, n_pairs, 1, 0)
    signs = operators.signs_of(masks, n_players)
    assert len(masks) == n_pairs
    both = np.concatenate([signs, -signs])
    assert len(np.unique(both, axis=0)) == 2 * n_pairs
    sizes = (signs > 0).sum(axis=1)
    assert sizes.max() <= n_players // 2
    for size in np.unique(sizes):
        halves = 2 if 2 * size == n_players else 1
        drawn = (sizes == size).sum() / (math.comb(n_players, int(size)) / halves)
        np.testing.assert_allclose(shares[sizes == size], drawn, rtol=1e-12)
    if n_pairs == 2 ** (n_players - 1) - 1:
        assert (shares == 1).all()
        assert weights.sum() == pytest.approx(1)


def test_the_prior_is_what_it_says() -> None:
    """Closed forms against sums over all odd sets of three and five players."""
    from itertools import combinations

    n_players = 6
    ratios = np.random.default_rng(0).uniform(0.05, 0.6, n_players)
    masks, _, _ = _core.draw_design(n_players, 31, 0, 0)
    signs = operators.signs_of(masks, n_players)
    system, cross = np.zeros((31, 31)), np.zeros((31, n_players))
    values = np.zeros((n_players, n_players))
    for size in (3, 5):
        for members in combinations(range(n_players), size):
            chosen = list(members)
            variance, effect = np.prod(ratios[chosen]), np.prod(signs[:, chosen], axis=1)
            system += variance * np.outer(effect, effect)
            cross[:, chosen] += 2 / size * variance * effect[:, None]
            values[np.ix_(chosen, chosen)] += 4 / size**2 * variance
    np.testing.assert_allclose(
        np.tril(_core.odd_covariance(signs, ratios)), np.tril(system), atol=1e-13
    )
    np.testing.assert_allclose(operators.main_covariance(signs, ratios), cross, atol=1e-13)
    np.testing.assert_allclose(operators.value_covariance(ratios), values, atol=1e-13)


@pytest.mark.parametrize("n", [1, 63, 64, 150])
def test_factors_solve(n: int) -> None:
    random = np.random.default_rng(n)
    square = random.normal(size=(n, n))
    matrix = square @ square.T + n * np.eye(n)
    factor, sides = matrix.copy(), random.normal(size=(n, 3))
    assert _core.factorise(factor)
    solved = _core.solve(factor, _core.solve(factor, sides, upper=False), upper=True)
    np.testing.assert_allclose(matrix @ solved, sides, atol=1e-10)
    assert not _core.factorise(-np.eye(n))


def test_dropping_null_players_equals_regression_without_them() -> None:
    random = np.random.default_rng(0)
    masks, weights, shares = _core.draw_design(8, 40, 0, 0)
    signs = operators.signs_of(masks, 8)
    complete = np.ones_like(shares)  # weights as they are
    operator = operators.regression_operator(signs, weights, complete)
    differences, delta = random.normal(size=40), 1.3
    values = np.append(differences, delta) @ operator.weights
    null = np.zeros(8, bool)
    null[[2, 5]] = True
    projected = values - values[null] @ operators.null_projection(operator.covariance, null)
    rest = operators.regression_operator(
        np.ascontiguousarray(signs[:, ~null]), weights, complete
    ).weights
    np.testing.assert_allclose(projected[~null], np.append(differences, delta) @ rest, atol=1e-12)
    np.testing.assert_allclose(projected[null], 0, atol=1e-12)


def test_shuffled_regression_is_unbiased_over_rows() -> None:
    """One game asked under many labellings: the mean is the Shapley value."""
    n_players, n_rows = 7, 4_000
    worth = np.random.default_rng(0).normal(size=128)
    exact = reference.shapley_values(
        lambda members: worth[sum(1 << player for player in members)], n_players
    )
    masks, weights, shares = _core.draw_design(n_players, 20, 0, 0)
    signs = operators.signs_of(masks, n_players)
    operator = operators.regression_operator(signs, weights, shares)
    labels = _core.shuffle_labels(np.arange(n_rows, dtype=np.uint64), n_players, 5)
    found = np.empty((n_rows, n_players))
    for row, label in enumerate(labels):
        inside = ((signs[:, label] > 0) << np.arange(n_players)).sum(axis=1)
        differences = (worth[inside] - worth[127 ^ inside]) / 2
        every = np.append(differences, worth[127] - worth[0])
        found[row] = (every @ operator.weights)[label]
    deviation = found.std(axis=0) / math.sqrt(n_rows)
    assert (np.abs(found.mean(axis=0) - exact) < 4.5 * deviation).all()


@given(n=st.integers(2, 40), n_groups=st.integers(2, 8), seed=st.integers(0, 99))
def test_balanced_groups_are_groups_that_resemble_the_whole(
    n: int, n_groups: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    n_groups = min(n, n_groups)
    errors = random.normal(size=(2, n, 3)) @ random.normal(size=(3, 12))
    errors -= errors.mean(axis=1, keepdims=True)
    kinship = errors @ errors.swapaxes(1, 2)
    starts = operators.split_background(np.full(n, 1 / n), n_groups).starts

    def apart(order: Any) -> float:
        groups = np.split(errors.sum(axis=0)[order], starts[1:-1])
        return float(sum((group.mean(axis=0) ** 2).sum() for group in groups))

    summed = errors.sum(axis=0) @ errors.sum(axis=0).T
    order = operators.balance_groups(summed, np.diff(starts))
    assert sorted(order) == list(range(n))
    assert apart(order) <= apart(np.arange(n)) * (1 + 1e-9)
    assert 0 <= operators.balance_gain(kinship, np.diff(starts)) <= 1


@given(
    width=st.integers(1, 70),
    split=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 99),
)
def test_masks_choose_values_and_answers_become_differences(
    width: int, split: tuple[int, int], shape: tuple[int, int, int], dtype: Any, seed: int
) -> None:
    """Against the same in plain Python, tile by tile."""
    (n_rows, n_outputs, n_designs), n_background = shape, split[0]
    random = np.random.default_rng(seed)
    n_pairs = int(random.integers(1, 12))
    masks = random.integers(0, 1 << 63, (n_designs, n_pairs, -(-width // 64)), dtype=np.uint64)
    groups = operators.split_background(random.dirichlet(np.ones(n_background)), min(split))
    rows, background = (
        random.normal(size=(n, width)).astype(dtype) for n in (n_rows, n_background)
    )
    word = np.dtype(np.uint32 if dtype == np.float32 else np.uint64)
    pairs = HostCoalitions.of(masks, groups, background.view(word))
    designs = random.integers(0, n_designs, n_rows, dtype=np.int32)
    labels = random.permuted(np.tile(np.arange(width, dtype=np.int32), (n_rows, 1)), axis=1)
    found = pairs.differences(n_rows, n_outputs)
    signs = np.stack([operators.signs_of(one, width) for one in masks])
    for first, last in ((0, n_pairs // 2), (n_pairs // 2, n_pairs)):
        masked = np.empty((n_rows * pairs.n_inputs((first, last)), width), dtype)
        pairs.fill(
            (first, last), rows.view(word), masked.view(word), designs=designs, labels=labels
        )
        answers = random.normal(size=(len(masked), n_outputs)).astype(dtype)
        pairs.reduce((first, last), answers, "identity", found)
        at = 0
        for row in range(n_rows):
            for pair in range(first, last):
                group = slice(*groups.starts[pair % groups.n_groups :][:2])
                inside = signs[designs[row], pair][labels[row]] > 0
                own, others, n = rows[row], background[group], group.stop - group.start
                np.testing.assert_array_equal(masked[at : at + n], np.where(inside, own, others))
                np.testing.assert_array_equal(
                    masked[at + n : at + 2 * n], np.where(inside, others, own)
                )
                means = groups.weights[group] @ answers[at : at + 2 * n].reshape(2, n, n_outputs)
                np.testing.assert_allclose(
                    found[row, :, pair], (means[0] - means[1]) / 2, atol=1e-12
                )
                at += 2 * n
        assert at == len(masked)


@given(p=st.floats(1e-12, 1 - 1e-12))
def test_log_odds_are_good_to_their_last_places(p: float) -> None:
    split = operators.split_background(np.ones(1), 1)
    pairs = HostCoalitions.of(np.ones((1, 1, 1), np.uint64), split, np.zeros((1, 2), np.uint64))
    found = pairs.differences(1, 1)
    pairs.reduce((0, 1), np.array([[p], [0.5]]), "logit", found)
    assert found[0, 0, 0] == pytest.approx(math.log(p / (1 - p)) / 2, rel=4e-16, abs=1e-300)


@pytest.mark.parametrize(("p", "wanted"), [(np.nan, np.nan), (2.0, 27.6), (-1.0, -27.6)])
def test_log_odds_of_no_probability(p: float, wanted: float) -> None:
    split = operators.split_background(np.ones(1), 1)
    pairs = HostCoalitions.of(np.ones((1, 1, 1), np.uint64), split, np.zeros((1, 2), np.uint64))
    found = pairs.differences(1, 1)
    pairs.reduce((0, 1), np.array([[p], [0.5]]), "logit", found)
    np.testing.assert_allclose(found[0, 0, 0], wanted / 2, atol=0.1)
