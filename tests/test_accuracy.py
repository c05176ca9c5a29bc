"""The bounds of docs/accuracy.md, against exact values: scipy's distances, NumPy's quantiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import tidegauge as tg
from tidegauge.grid import CROWDED, Grid, fit_grid

LEVELS = (0.0, 0.01, 0.25, 0.5, 0.9, 1.0)
METRICS = ("kolmogorov_smirnov", "wasserstein_distance", "largest_bin_share")
BINS = (1024, 4096)

SHAPES = {
    "normal": lambda rng, n: rng.normal(3, 2, n),
    "lognormal": lambda rng, n: rng.lognormal(0, 2, n),
    "pareto": lambda rng, n: 1 + rng.pareto(1.1, n),
    "cauchy": lambda rng, n: rng.standard_cauchy(n),
    "two peaks": lambda rng, n: np.where(rng.random(n) < 0.5, 0.001, 50) * rng.normal(9, 1, n),
    "zeros": lambda rng, n: np.where(rng.random(n) < 0.4, 0.0, rng.lognormal(0, 2, n)),
    "atoms": lambda rng, n: np.where(
        rng.random(n) < 0.5, rng.choice([0, 0.1, 9.99], n), rng.random(n)
    ),
    "cents": lambda rng, n: np.round(rng.gamma(3, 5, n), 2),
    "counts": lambda rng, n: rng.poisson(20, n).astype(float),
    "large counts": lambda rng, n: np.floor(rng.lognormal(8, 2, n)),
    "constant": lambda rng, n: np.full(n, 0.1),
    "far": lambda rng, n: np.where(rng.random(n) < 0.01, 1e6, rng.random(n)),
}
UNEVEN = {"far": 0.15, "atoms": 0.05}  # heavy values move as one: half a bin is all of the error


class Binned:
    """Values of metrics by name, and how far the middle of its fine bin may be from a value."""

    def __init__(self, before: np.ndarray, after: np.ndarray, bins: int) -> None:
        reference = tg.Reference.fit({"x": before}, tg.Schema(features=["x"]), bins=bins)
        quantiles = [tg.metrics.get("quantile", level=level) for level in LEVELS]
        table = tg.compare(reference, {"x": after}, metrics=[*METRICS, *quantiles]).to_arrow()
        rows = {row["metric"]: row for row in table.to_pylist()}
        self.value = {name: row["value"] for name, row in rows.items()}
        self.quantiles = [self.value[metric.label] for metric in quantiles]
        share = rows["largest_bin_share"]
        self.short = max(share["value"], share["reference_value"])
        counted = reference.layout.columns["x"]
        self.inner = counted.fine_map[1][1:-1]
        both = np.concatenate([before, after])
        low, high = both.min(), both.max()
        width = np.append(np.clip(self.inner, low, None), high) - np.append(
            low, np.clip(self.inner, None, high)
        )
        self.reach = width / 2
        self.reach[[0, -1]] *= 2
        if counted.holds_integers:  # their middle is the whole number below
            self.reach *= 2 if (both % 1).any() else 0

    def reach_of(self, values: np.ndarray) -> np.ndarray:
        return self.reach[np.searchsorted(self.inner, values, side="right")]


@pytest.mark.parametrize("bins", BINS)
@given(
    shapes=st.lists(st.sampled_from(sorted(SHAPES)), min_size=2, max_size=2),
    sizes=st.lists(st.integers(1, 700), min_size=2, max_size=2),
    change=st.tuples(st.sampled_from([1.0, 1.05, 0.5, -1.0, 30.0]), st.floats(-20, 20)),
    seed=st.integers(0, 2**32),
)
def test_errors_keep_within_their_bounds(bins, shapes, sizes, change, seed) -> None:
    rng = np.random.default_rng(seed)
    before, after = (SHAPES[shape](rng, n) for shape, n in zip(shapes, sizes, strict=True))
    after = after * change[0] + np.round(change[1], seed % 3)
    found = Binned(before, after, bins)
    rounding = 1e-9

    exact = stats.ks_2samp(before, after).statistic
    assert found.value["kolmogorov_smirnov"] <= exact + rounding
    assert exact <= found.value["kolmogorov_smirnov"] + found.short + rounding

    exact = stats.wasserstein_distance(before, after)
    bound = found.reach_of(before).mean() + found.reach_of(after).mean()
    assert abs(found.value["wasserstein_distance"] - exact) <= bound + rounding * max(exact, 1)

    for level, quantile in zip(LEVELS, found.quantiles, strict=True):
        exact = np.quantile(after, level, method="inverted_cdf")
        assert abs(quantile - exact) <= found.reach_of(exact) + rounding * max(abs(exact), 1)


@pytest.mark.parametrize("bins", BINS)
@pytest.mark.parametrize("name", SHAPES)
def test_typical_errors_are_far_smaller(name, bins) -> None:
    """Large samples, the second 5 % larger."""
    rng = np.random.default_rng(1)
    before, after = SHAPES[name](rng, 50_000), 1.05 * SHAPES[name](rng, 100_000)
    after = np.floor(after) if "counts" in name else after
    found = Binned(before, after, bins)
    exact = stats.ks_2samp(before, after).statistic
    assert exact - found.value["kolmogorov_smirnov"] <= 2e-3
    distance = stats.wasserstein_distance(before, after)
    assert found.value["wasserstein_distance"] == pytest.approx(
        distance, rel=UNEVEN.get(name, 0.01)
    )


@pytest.mark.parametrize("name", ["pareto", "cauchy"])
def test_a_value_far_beyond_the_reach_is_where_it_is(name) -> None:
    rng = np.random.default_rng(0)
    before, after = SHAPES[name](rng, 2000), SHAPES[name](rng, 1000)
    for far in ([1e12], [-1e12, 1e13]):
        found = Binned(before, np.append(after, far), 1024)
        exact = stats.wasserstein_distance(before, np.append(after, far))
        assert found.value["wasserstein_distance"] == pytest.approx(exact, rel=1e-6)


def bin_of(grid: Grid, value: float) -> tuple[float, float]:
    """The fine bin of a value: its smallest double, and that of the next."""
    edges = grid.bins().lower_edges()
    place = np.searchsorted(edges, value, side="right")
    return edges[place - 1], edges[place]


@pytest.mark.parametrize("bins", BINS)
def test_a_heavy_value_among_others_has_its_own_bin(bins) -> None:
    rng = np.random.default_rng(0)
    heavy = np.array([0.0, 0.125, 1.0, 2.5, 9.99, 99.99])
    sample = np.concatenate([rng.exponential(20, 30_000), np.repeat(heavy, 1500)])
    zeros = np.where(rng.random(9000) < 0.4, 0.0, rng.lognormal(0, 2, 9000))
    for values, atoms in ((sample, heavy), (zeros, [0.0]), (zeros - 7, [-7.0])):
        grid = fit_grid(values, tg.numeric(), bins)
        for atom in atoms:
            assert bin_of(grid, atom) == (atom, np.nextafter(atom, np.inf))


def test_a_value_alone_in_its_bin_costs_no_cut() -> None:
    rng = np.random.default_rng(0)
    grid = fit_grid(np.round(rng.normal(37, 0.6, 9000), 1), tg.numeric(), 1024)
    assert len(grid.cuts) == 4  # infinities, and the limits


@pytest.mark.parametrize("bins", BINS)
def test_crowded_values_are_parted_by_their_quantiles(bins) -> None:
    rng = np.random.default_rng(0)
    peaks = SHAPES["two peaks"](rng, 40_000)
    many = rng.choice(rng.normal(0, 1e-3, 30), 40_000)  # thirty atoms, and one value far away
    for values in (peaks, np.append(many, [1e3] * 4000)):
        for column, crowded in ((tg.numeric(grid="linear"), True), (tg.numeric(), False)):
            grid = fit_grid(values, column, bins)
            edges = grid.bins().lower_edges()
            assert grid.kind == ("linear" if crowded else "edges")
            assert (np.diff(edges) > 0).all() or crowded
            slots, counts = np.unique(grid.bins().encode(values), return_counts=True)
            several = [len(np.unique(values[grid.bins().encode(values) == s])) > 1 for s in slots]
            assert (counts[several].max(initial=0) > CROWDED / bins * len(values)) == crowded
    for values in (np.arange(9.0), rng.normal(size=9000), rng.lognormal(0, 2, 9000)):
        assert fit_grid(values, tg.numeric(), bins).kind != "edges"
