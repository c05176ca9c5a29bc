"""Kernel SHAP beside shap and shapiq: error against rows per CPU second, on one thread.

python benchmarks/bench_shap.py [--rows 24] [--peers] [--wide]
"""

from __future__ import annotations

import argparse
import logging
import os
import time
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402 - after the threads

import tidegauge as tg  # noqa: E402

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
BUDGETS = (1_024, 2_048, 4_096, 8_192, 16_384, 20_480, 51_200, 204_800)
TRUTH_PAIRS = 131_072  # of 524,287: the truth's own error is printed


def table(n: int, width: int, seed: int) -> Any:
    random = np.random.default_rng(seed)
    mix = np.eye(width) + 0.3 * np.random.default_rng(99).normal(size=(width, width)) / width**0.5
    return random.normal(size=(n, width)) @ mix


def target(x: Any) -> Any:
    y = x[:, 0] * x[:, 1] + np.sin(2 * x[:, 2]) + np.maximum(x[:, 3], x[:, 4])
    return y + x[:, 5:12] @ np.linspace(-1, 1, 7) + 0.5 * x[:, 12] ** 2


def network(width: int, kind: Any = np.float64) -> Callable[[Any], Any]:
    """A fitted 20-64-1 network with a probability at its end, in plain NumPy."""
    from sklearn.neural_network import MLPClassifier

    rows = table(4_000, width, 1)
    fit = MLPClassifier((64,), max_iter=60, random_state=0).fit(rows, target(rows) > 0)
    first, last = (weights.astype(kind) for weights in fit.coefs_)
    bias, end = fit.intercepts_[0].astype(kind), kind(fit.intercepts_[1][0])

    def predict(x: Any) -> Any:
        hidden = np.maximum(x @ first + bias, kind(0))
        return 1 / (1 + np.exp(-(hidden @ last[:, 0] + end)))

    return predict


def logistic(width: int, kind: Any = np.float64) -> Callable[[Any], Any]:
    from sklearn.linear_model import LogisticRegression

    rows = table(4_000, width, 1)
    fit = LogisticRegression().fit(rows, target(rows) > 0)
    slopes, end = fit.coef_[0].astype(kind), kind(fit.intercept_[0])
    return lambda x: 1 / (1 + np.exp(-(x @ slopes + end)))


def trees(width: int) -> Any:
    from lightgbm import LGBMRegressor

    rows = table(4_000, width, 1)
    fit = LGBMRegressor(n_estimators=200, num_leaves=31, n_jobs=1, verbose=-1)
    return fit.fit(rows, target(rows))


def relative(found: Any, wanted: Any) -> float:
    return float(np.sqrt(((found - wanted) ** 2).sum() / (wanted**2).sum()))


class Clock:
    """A model that knows how long it was at work."""

    def __init__(self, model: Callable[[Any], Any]) -> None:
        self.model, self.seconds = model, 0.0

    def __call__(self, x: Any) -> Any:
        start = time.process_time()
        answer = self.model(x)
        self.seconds += time.process_time() - start
        return answer


def timed(work: Callable[[], Any], clock: Clock) -> tuple[Any, float, float]:
    clock.seconds = 0.0
    start = time.process_time()
    found = work()
    seconds = time.process_time() - start
    return found, seconds, clock.seconds / seconds


def line(name: str, speed: float, share: float, error: float, more: str = "") -> None:
    print(f"  {name:<34} {speed:9.1f} {share:8.0%} {error:8.4f}  {more}", flush=True)


def of_shap(clock: Clock, background: Any, rows: Any, seed: int) -> Any:
    import shap

    np.random.seed(seed)  # noqa: NPY002 - shap has no other
    explainer = shap.KernelExplainer(clock, background)
    return explainer.shap_values(rows, nsamples=2048, l1_reg=False, silent=True)


def peers(clock: Clock, background: Any, rows: Any, truth: Any) -> None:
    import shap

    masker = shap.maskers.Independent(background, max_samples=len(background))
    permutation = shap.PermutationExplainer(clock, masker, seed=0)
    sampling = shap.SamplingExplainer(clock, background)
    calls = {
        "shap Permutation, default": lambda: permutation(rows, silent=True).values,
        "shap Sampling, default": lambda: sampling.shap_values(rows, silent=True),
    }
    try:
        import shapiq

        def estimator() -> Any:
            found = []
            for row in rows:
                imputer = shapiq.MarginalImputer(
                    clock, background, x=row, sample_size=len(background), normalize=True
                )
                game = shapiq.KernelSHAP(imputer.n_players, pairing_trick=True, random_state=0)
                found.append(game.approximate(2048, imputer).get_n_order_values(1))
            return np.array(found)

        calls["shapiq KernelSHAP 2048, paired"] = estimator
    except ImportError:
        print("  shapiq is not installed")
    for name, call in calls.items():
        found, seconds, share = timed(call, clock)
        error = relative(found, truth)
        assert error < 0.5, f"{name} gives another answer"
        line(name, len(rows) / seconds, share, error)


def compare(name: str, models: tuple[Any, Any], truth: Any, options: argparse.Namespace) -> None:
    width = truth.shape[1]
    background, rows = table(100, width, 2), table(len(truth), width, 3)
    clock = Clock(models[0])
    print(f"{name}: {width} features, background 100, {len(rows)} rows")
    print(f"  {'':<34} {'rows/CPU s':>9} {'in model':>8} {'error':>8}")
    found, seconds, share = timed(lambda: of_shap(clock, background, rows, 0), clock)
    theirs, speed = relative(found, truth), len(rows) / seconds
    line("shap Kernel 2048, l1_reg=False", speed, share, theirs, "204,801 evaluations")
    if options.peers:
        peers(clock, background, rows, truth)
    equal = None
    for budget in BUDGETS:
        explainer = tg.KernelExplainer(clock, background, exact="never")
        start = time.process_time()
        explainer.attribute(rows, budget)  # fits, and makes the operators
        ready = time.process_time() - start
        tracemalloc.start()
        explainer.attribute(rows[:2], budget)
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        found, seconds, share = timed(lambda e=explainer, b=budget: e.attribute(rows, b), clock)
        error = relative(found.values, truth)
        inside = (np.abs(found.values - truth) < 1.96 * found.standard_errors).mean()
        more = f"{len(rows) / seconds / speed:5.1f}x, 95 % covers {inside:.1%}, "
        more += f"once {ready - seconds:.2f} s, {peak:.0f} MiB"
        line(f"ours {budget:,}", len(rows) / seconds, share, error, more)
        if equal is None and error <= theirs:
            equal = budget
    if equal is not None and models[1] is not None:
        single = Clock(models[1])
        explainer = tg.KernelExplainer(single, background, exact="never", dtype="float32")
        explainer.attribute(rows, equal)
        found, seconds, share = timed(lambda: explainer.attribute(rows, equal), single)
        line(
            f"ours {equal:,}, float32",
            len(rows) / seconds,
            share,
            relative(found.values, truth),
            f"{len(rows) / seconds / speed:5.1f}x",
        )
    print(f"  equal error from {equal:,} evaluations on\n" if equal else "  never equal\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--peers", action="store_true", help="Permutation, Sampling and shapiq too")
    parser.add_argument("--wide", action="store_true", help="60 features too")
    parser.add_argument("--models", default="network,logistic,lightgbm")
    options = parser.parse_args()
    import platform

    import shap

    print(
        f"{platform.processor() or platform.machine()}, load {os.getloadavg()[0]:.1f}, one thread"
    )
    print(f"numpy {np.__version__}, shap {shap.__version__}\n")
    chosen = options.models.split(",")
    for name, make in (("network", network), ("logistic", logistic)):
        if name not in chosen:
            continue
        background, rows = table(100, 20, 2), table(options.rows, 20, 3)
        model = make(20)
        found = tg.KernelExplainer(model, background, method="wls", seed=9).attribute(
            rows, 2 * TRUTH_PAIRS * 100
        )
        own = np.sqrt((found.standard_errors**2).sum() / (found.values**2).sum())
        print(f"truth from {TRUTH_PAIRS:,} pairs; its own relative error is about {own:.5f}")
        compare(name, (model, make(20, np.float32)), found.values, options)
    for width in (20, 60) if options.wide else (20,):
        if "lightgbm" not in chosen:
            continue
        model = trees(width)
        background, rows = table(100, width, 2), table(max(4, options.rows // 2), width, 3)
        exact = tg.KernelExplainer(model, background).attribute(rows)
        assert exact.method == "tree"
        booster = model.booster_
        compare(
            "lightgbm",
            (lambda x, b=booster: b.predict(x, num_threads=1), None),
            exact.values,
            options,
        )


if __name__ == "__main__":
    main()
