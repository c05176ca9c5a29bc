"""Drift against SciPy, against the peers' published rules, and against its own properties."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats
from scipy.spatial.distance import jensenshannon

from tidegauge import metrics
from tidegauge.metrics import drift
from tidegauge.metrics.inputs import Bins, Fine
from tidegauge.metrics.significance import chi_square_tail, kolmogorov_tail

counts = st.lists(st.integers(0, 500), min_size=3, max_size=12)
pairs = (
    st.integers(3, 12)
    .flatmap(
        lambda size: st.tuples(*[st.lists(st.integers(0, 500), min_size=size, max_size=size)] * 2)
    )
    .filter(lambda pair: all(sum(side) for side in pair))
)

BEFORE = Bins([120, 0, 30, 450, 400, 7])
AFTER = Bins([80, 40, 0, 200, 180, 3])

# Half of the rows move from the second bin to the third; nothing is missing. Each peer's published
# rule then has a closed form, twice (share moved) * ln(ratio of the shares).
HALF_MOVED = Bins([50, 50, 0, 0]), Bins([50, 0, 50, 0])
PSI = {
    "tidegauge": 2 * 50 / 101.5 * log(50.5 / 0.5),
    "fiddler": 2 * 50 / 103 * log(51 / 1),
    "evidently": 2 * (0.5 - 0.0001) * log(0.5 / 0.0001),
    "whylabs": 2 * (0.5 - 1e-7) * log(0.5 / 1e-7),
    "popmon": 2 * 50 * log((50 + 1e-5) / 1e-5),
    "deepchecks": 2 * (0.5 - 0.01) * log(0.5 / 0.01),
    "frouros": 2 * 0.5 * (log(0.5) + 1022 * log(2)),  # the smallest normal double is 2**-1022
}


def test_every_convention_has_a_golden_value() -> None:
    assert tuple(PSI) == metrics.get("psi").forms[0].choices["convention"]


@pytest.mark.parametrize(("convention", "value"), PSI.items())
def test_psi_by_every_convention(convention, value) -> None:
    assert drift.psi(*HALF_MOVED, convention=convention) == pytest.approx(value, rel=1e-12)
    slow = reference.psi(BEFORE.counts.tolist(), AFTER.counts.tolist(), convention)
    assert drift.psi(BEFORE, AFTER, convention=convention) == pytest.approx(slow, rel=1e-12)


def test_jensen_shannon_by_every_convention() -> None:
    """Half of the mass has nothing in common: half a bit."""
    golden = {
        "tidegauge": sqrt(0.5),
        "nannyml": sqrt(0.5),
        "evidently": sqrt(0.5 * log(2)),
        "whylabs": sqrt(0.5 * log(2)),
    }
    assert tuple(golden) == metrics.get("jensen_shannon_distance").forms[0].choices["convention"]
    for convention, value in golden.items():
        ours = drift.jensen_shannon_distance(*HALF_MOVED, convention=convention)
        assert ours == pytest.approx(value, rel=1e-12)


def test_only_tidegauge_counts_missing_values_as_a_bin() -> None:
    before, after = Bins([50, 50, 0]), Bins([25, 25, 50])
    assert drift.psi(before, after) > 1
    assert drift.jensen_shannon_distance(before, after) > 0.5
    for convention in ("fiddler", "evidently", "whylabs", "deepchecks", "frouros"):
        assert drift.psi(before, after, convention=convention) == 0
    assert drift.jensen_shannon_distance(before, after, convention="nannyml") == 0


def test_popmon_grows_with_traffic_alone_and_its_floor_says_so() -> None:
    twice = Bins([240, 0, 60, 900, 800, 14])
    assert drift.psi(BEFORE, twice, convention="popmon") > 600
    floor = drift._noise_psi(BEFORE, twice, convention="popmon")
    assert floor == pytest.approx(drift.psi(BEFORE, twice, convention="popmon"), rel=0.02)
    assert drift.psi(BEFORE, twice) < 1e-3


def test_evidently_fills_below_a_small_smallest_share() -> None:
    before, after = Bins([1, 99_999, 0, 0]), Bins([50, 49, 1, 0])
    slow = reference.psi([1, 99_999, 0, 0], [50, 49, 1, 0], "evidently")
    filler = 1e-5 / 1e6
    assert drift.psi(before, after, convention="evidently") == pytest.approx(slow, rel=1e-12)
    assert slow > 0.01 * np.log(0.01 / filler)


@given(pairs)
def test_jensen_shannon_is_that_of_scipy(pair) -> None:
    before, after = map(Bins, pair)
    for convention, base in (("tidegauge", 2), ("nannyml", 2), ("evidently", None)):
        p, q = pair if convention == "tidegauge" else (pair[0][:-1], pair[1][:-1])
        if not sum(p) or not sum(q):
            continue
        ours = drift.jensen_shannon_distance(before, after, convention=convention)
        # the square agrees to rounding; its root magnifies rounding near zero
        assert ours**2 == pytest.approx(jensenshannon(p, q, base) ** 2, abs=1e-12)
    evidently = drift.jensen_shannon_distance(before, after, convention="evidently")
    whylabs = drift.jensen_shannon_distance(before, after, convention="whylabs")
    np.testing.assert_equal(evidently, whylabs)


def test_a_missing_value_never_matches_another_under_tfdv() -> None:
    same = Bins([60, 20, 20])
    assert drift.jensen_shannon_divergence(same, same) == 0
    assert drift.jensen_shannon_divergence(same, same, convention="tfdv") == pytest.approx(0.2)


@given(pairs)
def test_chi_square_is_that_of_scipy(pair) -> None:
    table = np.array(pair)
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return
    result = stats.chi2_contingency(table, correction=False)
    before, after = map(Bins, pair)
    assert drift.chi_square(before, after) == pytest.approx(result.statistic, rel=1e-9, abs=1e-9)
    ours = drift.chi_square_p_value(before, after)
    assert ours == pytest.approx(result.pvalue, rel=1e-9, abs=1e-300)


def test_tails_are_those_of_scipy() -> None:
    x, degrees = np.meshgrid(np.geomspace(1e-6, 900, 300), [1, 2, 3, 4, 7, 10, 51, 200])
    np.testing.assert_allclose(
        chi_square_tail(x, degrees), stats.chi2.sf(x, degrees), rtol=2e-11, atol=1e-300
    )
    scaled = np.linspace(0, 6, 1201)
    np.testing.assert_allclose(
        kolmogorov_tail(scaled), special.kolmogorov(scaled), rtol=1e-8, atol=1e-15
    )


@pytest.fixture(scope="module")
def samples() -> list[np.ndarray]:
    random = np.random.default_rng(3)
    return [random.normal(0, 1, 4000), random.normal(0.2, 1.3, 2500)]


@pytest.fixture(scope="module")
def fine(samples) -> list[Fine]:
    edges = np.linspace(min(map(np.min, samples)), max(map(np.max, samples)) + 1e-9, 1025)
    return [Fine(np.histogram(sample, edges)[0], edges) for sample in samples]


def test_kolmogorov_smirnov_is_that_of_scipy(samples, fine) -> None:
    exact = stats.ks_2samp(*samples)
    one_bin = max((side.counts / side.n).max() for side in fine)
    assert 0 <= exact.statistic - drift.kolmogorov_smirnov(*fine) <= one_bin
    middles = [np.repeat(side.middles, side.counts) for side in fine]
    binned = stats.ks_2samp(*middles).statistic
    assert drift.kolmogorov_smirnov(*fine) == pytest.approx(binned, rel=1e-12)
    tail = special.kolmogorov(binned * np.sqrt(4000 * 2500 / 6500))
    assert drift.kolmogorov_smirnov_p_value(*fine) == pytest.approx(tail, rel=1e-8)


def test_wasserstein_is_that_of_scipy(samples, fine) -> None:
    exact = stats.wasserstein_distance(*samples)
    assert drift.wasserstein_distance(*fine) == pytest.approx(exact, rel=0.004)
    binned = stats.wasserstein_distance(
        fine[0].middles, fine[1].middles, fine[0].counts, fine[1].counts
    )
    assert drift.wasserstein_distance(*fine) == pytest.approx(binned, rel=1e-12)
    scaled = drift.normalized_wasserstein_distance(*fine)
    assert scaled == pytest.approx(exact / samples[0].std(), rel=0.004)


def test_a_constant_reference_has_no_unit_to_measure_in() -> None:
    edges = [0.0, 1.0, 2.0]
    before, after = Fine([5, 0], edges), Fine([0, 5], edges)
    assert drift.wasserstein_distance(before, after) == 1
    assert np.isnan(drift.normalized_wasserstein_distance(before, after))
    evidently = drift.normalized_wasserstein_distance(before, after, convention="evidently")
    assert evidently == pytest.approx(1000)


SYMMETRIC = [
    drift.psi,
    drift.jensen_shannon_distance,
    drift.jensen_shannon_divergence,
    drift.hellinger_distance,
    drift.total_variation,
    drift.l_infinity,
    drift.chi_square,
    drift.chi_square_p_value,
]


@given(pairs, st.randoms(use_true_random=False))
def test_order_of_bins_and_of_sides_is_of_no_account(pair, random) -> None:
    order = list(range(len(pair[0]) - 1))
    random.shuffle(order)
    shuffled = [[*(side[i] for i in order), side[-1]] for side in pair]
    for function in SYMMETRIC:
        value = function(Bins(pair[0]), Bins(pair[1]))
        # the root in a distance magnifies rounding near zero
        assert function(Bins(pair[1]), Bins(pair[0])) == pytest.approx(value, rel=1e-9, abs=1e-7)
        moved = function(Bins(shuffled[0]), Bins(shuffled[1]))
        assert moved == pytest.approx(value, rel=1e-9, abs=1e-7)


@given(pairs, st.integers(2, 50))
def test_shares_alone_matter_to_the_distances(pair, factor) -> None:
    before, after = map(Bins, pair)
    larger = Bins([factor * count for count in pair[1]])
    for function in SYMMETRIC[1:6]:
        value = function(before, after)
        assert function(before, larger) == pytest.approx(value, rel=1e-9, abs=1e-7)


@given(pairs)
def test_known_inequalities_hold(pair) -> None:
    before, after = map(Bins, pair)
    variation = drift.total_variation(before, after)
    hellinger = drift.hellinger_distance(before, after)
    divergence = drift.jensen_shannon_divergence(before, after)
    slack = 1e-9
    assert drift.l_infinity(before, after) <= 2 * variation + slack
    assert hellinger**2 <= variation + slack
    assert variation <= np.sqrt(2) * hellinger + slack
    assert divergence <= variation + slack
    assert drift.kl_divergence(before, after) + drift.kl_divergence(after, before) == (
        pytest.approx(drift.psi(before, after), rel=1e-9, abs=1e-9)
    )


@given(st.lists(st.integers(0, 300), min_size=5, max_size=5), st.integers(1, 4))
def test_wasserstein_measures_a_shift_exactly(shape, shift) -> None:
    if not sum(shape):
        return
    edges = np.arange(10.0)
    before = Fine([*shape, 0, 0, 0, 0], edges)
    after = Fine(np.roll([*shape, 0, 0, 0, 0], shift), edges)
    assert drift.wasserstein_distance(before, after) == pytest.approx(shift, rel=1e-12)


@given(counts)
def test_an_empty_side_is_undefined(side) -> None:
    empty = Bins([0] * len(side))
    for function in (*SYMMETRIC, drift.kl_divergence):
        assert np.isnan(function(Bins(side), empty))
        assert np.isnan(function(empty, Bins(side)))
