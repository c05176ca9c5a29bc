"""How far distances from fine bins are from the exact ones: python benchmarks/accuracy.py.

    python benchmarks/accuracy.py [--rows 500000] [--seeds 3]

Every case is a reference and current data; exact values are those of scipy on all of the rows. The
table gives the worst over several seeds and changes, as markdown. The program stops where a bound
that docs/accuracy.md states is broken.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

import tidegauge as tg

Values = NDArray[np.float64]
Random = np.random.Generator
LEVELS = (0.01, 0.1, 0.5, 0.9, 0.99)
BINS = (1024, 4096)


def normal(random: Random, n: int) -> Values:
    return random.normal(0, 1, n)


def lognormal(random: Random, n: int) -> Values:
    return random.lognormal(0, 2, n)


def pareto(random: Random, n: int) -> Values:
    return 1 + random.pareto(1.1, n)


def cauchy(random: Random, n: int) -> Values:
    return random.standard_cauchy(n)


def bimodal(random: Random, n: int) -> Values:
    narrow = random.random(n) < 0.5
    return np.where(narrow, random.normal(-5, 0.02, n), random.normal(50, 10, n))


def zero_inflated(random: Random, n: int) -> Values:
    return np.where(random.random(n) < 0.4, 0.0, random.lognormal(0, 2, n))


def five_atoms(random: Random, n: int) -> Values:
    common = np.array([0.0, 0.1, 1.0, 9.99, 99.99])[random.integers(0, 5, n)]
    return np.where(random.random(n) < 0.5, common, random.exponential(20, n))


def cents(random: Random, n: int) -> Values:
    return np.round(random.gamma(3, 5, n), 2)


def tenths(random: Random, n: int) -> Values:
    return np.round(random.normal(37, 0.6, n), 1)


def poisson(random: Random, n: int) -> Values:
    return random.poisson(20, n).astype(np.float64)


def large_counts(random: Random, n: int) -> Values:
    return np.floor(random.lognormal(8, 2, n))


def far_spike(random: Random, n: int) -> Values:
    return np.where(random.random(n) < 0.001, 1e6 + random.random(n), random.random(n))


Draw = Callable[[Random, int], Values]
SHAPES: dict[str, Draw] = {
    "normal": normal,
    "lognormal, sigma 2": lognormal,
    "Pareto, exponent 1.1": pareto,
    "Cauchy": cauchy,
    "two peaks, widths 1 to 500": bimodal,
    "40 % zeros, rest lognormal": zero_inflated,
    "five values share half": five_atoms,
    "prices in cents": cents,
    "temperatures in tenths": tenths,
    "Poisson": poisson,
    "whole numbers, heavy tail": large_counts,
    "0.1 % a million away": far_spike,
}
CHANGES: dict[str, Callable[[Values], Values]] = {
    "5 % larger": lambda values: values * 1.05,
    "moved": lambda values: values + 0.1 * (np.quantile(values, 0.9) - np.quantile(values, 0.1)),
    "half": lambda values: values / 2,
}
METRICS = ("kolmogorov_smirnov", "wasserstein_distance", "largest_bin_share")
WHOLE = {"Poisson", "whole numbers, heavy tail"}


@dataclass
class Errors:
    """The worst that was met, and the bound of the first one."""

    ks: float = 0.0  # by how much it falls short
    ks_bound: float = 0.0  # largest share of a fine bin, where the worst was met
    wasserstein: float = 0.0  # relative
    wasserstein_bound: float = 0.0
    quantile: float = 0.0  # of the value, or of the interquartile range where that is larger

    def add(self, before: Values, after: Values, reference: tg.Reference) -> None:
        """Compare one pair of samples; stop where a bound is broken."""
        quantiles = [tg.metrics.get("quantile", level=level) for level in LEVELS]
        table = tg.compare(reference, {"x": after}, metrics=[*METRICS, *quantiles]).to_arrow()
        rows = {row["metric"]: row for row in table.to_pylist()}
        ks, distance = (rows[name]["value"] for name in METRICS[:2])
        bound = max(rows["largest_bin_share"][key] for key in ("value", "reference_value"))
        short = stats.ks_2samp(before, after).statistic - ks
        assert -1e-9 <= short <= bound + 1e-9, (short, bound)
        if short >= self.ks:
            self.ks, self.ks_bound = short, bound

        reach = Reach.of(before, after, reference)
        exact = stats.wasserstein_distance(before, after)
        bound = reach.at(before).mean() + reach.at(after).mean()
        error = abs(distance - exact)
        assert error <= bound + 1e-9 * exact, (error, bound)
        if error / exact >= self.wasserstein:
            self.wasserstein, self.wasserstein_bound = error / exact, bound / exact

        spread = np.diff(np.quantile(after, [0.25, 0.75]))[0]
        for metric, level in zip(quantiles, LEVELS, strict=True):
            exact = np.quantile(after, level, method="inverted_cdf")
            error = abs(rows[metric.label]["value"] - exact)
            assert error <= reach.at(exact) + 1e-9 * abs(exact), (level, error)
            self.quantile = max(self.quantile, error / max(abs(exact), spread))


@dataclass
class Reach:
    """How far the middle of its fine bin may be from a value: half a bin, or a whole open end."""

    inner: Values
    reach: Values

    @classmethod
    def of(cls, before: Values, after: Values, reference: tg.Reference) -> Reach:
        """Reach of every fine bin; the open ends close at the extremes of both sides."""
        counted = reference.layout.columns["x"]
        inner = counted.fine_map[1][1:-1]
        low, high = (end(end(before), end(after)) for end in (min, max))
        lower = np.append(low, np.clip(inner, None, high))
        reach = (np.append(np.clip(inner, low, None), high) - lower) / 2
        reach[[0, -1]] *= 2
        if counted.holds_integers:
            reach *= 0  # every value here is a whole number, the middle of its bin
        return cls(inner, reach)

    def at(self, values: Values) -> Values:
        """Reach of the fine bins of some values."""
        return self.reach[np.searchsorted(self.inner, values, side="right")]


def main() -> None:
    """Draw, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print(f"{options.rows:,} rows against {options.rows // 5:,}, {options.seeds} seeds, ", end="")
    print(f"changes: {', '.join(CHANGES)}\n")
    print(
        "| data | bins | KS short by | at most | Wasserstein off by | at most | quantiles off by |"
    )
    print("| --- | --: | --: | --: | --: | --: | --: |")
    for name, draw in SHAPES.items():
        for bins in BINS:
            print(f"| {name} | {bins:,} | {line(worst(name, draw, bins, options))} |", flush=True)


def worst(name: str, draw: Draw, bins: int, options: argparse.Namespace) -> Errors:
    """The worst over seeds and changes."""
    errors = Errors()
    for seed in range(options.seeds):
        random = np.random.default_rng(seed)
        before = draw(random, options.rows // 5)
        reference = tg.Reference.fit({"x": before}, tg.Schema(features=["x"]), bins=bins)
        for change in CHANGES.values():
            after = change(draw(random, options.rows))
            errors.add(before, np.floor(after) if name in WHOLE else after, reference)
    return errors


def line(errors: Errors) -> str:
    """Cells of the table."""
    cells = [f"{errors.ks:.1e}", f"{errors.ks_bound:.1e}"]
    shares = (errors.wasserstein, errors.wasserstein_bound, errors.quantile)
    return " | ".join(cells + [f"{100 * share:.2g} %" for share in shares])


if __name__ == "__main__":
    main()
