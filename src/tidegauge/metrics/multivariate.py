"""Multivariate drift: changes between columns, which no column shows by itself.

Computed from samples of whole rows, for the model and not for a column, and only when asked for by
name: a classifier is trained for every value.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, sqrt

import numpy as np

from tidegauge.metrics.inputs import FloatArray, IntArray, RowSamples, ratio
from tidegauge.metrics.registry import metric
from tidegauge.metrics.results import Estimate

MIN_ROWS = 50  # of either side
FOLDS = 5
SEEN_TWICE = 2  # rows i and j weigh in when i is held out and j not, and again the other way round
CATEGORIES_AT_MOST = 254  # that the classifier tells apart; rarer ones are one


def _every(
    compute: Callable[[RowSamples, RowSamples], tuple[float, float]],
    reference: RowSamples,
    current: RowSamples,
) -> Estimate:
    """Value and standard error of each sample; NaN where either side has too few rows."""
    shape = np.broadcast_shapes(reference.numbers.shape, current.numbers.shape)
    results = np.full((*shape, 2), np.nan)
    before, after = reference.spread(shape), current.spread(shape)
    for place in np.ndindex(shape):
        sides = before.at(place), after.at(place)
        if min(len(side.numbers.item()) for side in sides) >= MIN_ROWS:
            results[place] = compute(*sides)
    return Estimate(results[..., 0], results[..., 1])


def _no_skill(reference: RowSamples, current: RowSamples, *, seed: int = 0) -> FloatArray:
    """Half of the pairs are in the right order by chance."""
    return np.where(np.minimum(reference.n, current.n) >= MIN_ROWS, 0.5, np.nan)


@metric("domain_classifier_auc", worse="higher", bounds=(0, 1), noise=_no_skill)
def domain_classifier_auc(reference: RowSamples, current: RowSamples, *, seed: int = 0) -> Estimate:
    """How well a classifier tells rows of the window from rows of the reference.

    The share of pairs of a current and a reference row that gradient boosted trees order rightly by
    their features, for rows they were not trained on: the mean over 5 folds of the area under the
    ROC curve. The interval is DeLong's, which takes the scores as they are and knows ties, with
    twice his variance: every row that is held out has also trained the trees of the other folds.
    Range 0 to 1: 0.5 when nothing tells them apart, 1 when everything does. Undefined with fewer
    than 50 sampled rows on either side. Needs scikit-learn: `tidegauge[multivariate]`.

    Lopez-Paz and Oquab (2017), Revisiting Classifier Two-Sample Tests; DeLong and others (1988).

    >>> random = np.random.default_rng(0)
    >>> x, noise = random.normal(size=(2, 200))
    >>> apart = RowSamples.of(np.stack([x, noise], axis=1))
    >>> alike = RowSamples.of(np.stack([x, x], axis=1))
    >>> bool(domain_classifier_auc(apart, alike).value > 0.8)
    True
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise ModuleNotFoundError(
            "domain_classifier_auc needs scikit-learn, an extra: "
            'pip install "tidegauge[multivariate]"'
        ) from None
    # Threads that wait for each other take longer than so few rows do.
    with threadpool_limits(1):
        return _every(
            lambda before, after: _cross_validated(before, after, seed), reference, current
        )


def _cross_validated(before: RowSamples, after: RowSamples, seed: int) -> tuple[float, float]:
    """Mean area under the curve of held-out rows, and its standard error."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold

    sides = (before, after)
    numbers = np.concatenate([side.numbers.item() for side in sides])
    categories = _common_first(*(side.categories.item() for side in sides))
    rows = np.concatenate([numbers, categories], axis=1)
    is_current = np.repeat([0, 1], [len(side.numbers.item()) for side in sides])
    areas, variances = [], []
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(rows, is_current):
        trees = HistGradientBoostingClassifier(
            max_iter=50,
            max_leaf_nodes=15,
            early_stopping=False,
            categorical_features=np.arange(rows.shape[1]) >= numbers.shape[1],
            random_state=seed,
        )
        trees.fit(rows[train], is_current[train])
        scores = trees.decision_function(rows[test])
        truth = is_current[test] == 1
        area, variance = area_under_curve(scores[truth], scores[~truth])
        areas.append(area)
        variances.append(variance)
    return float(np.mean(areas)), sqrt(SEEN_TWICE * sum(variances)) / FOLDS


def area_under_curve(positives: FloatArray, negatives: FloatArray) -> tuple[float, float]:
    """Share of the pairs in the right order, ties half, and DeLong's variance of it.

    >>> area_under_curve(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    (0.875, 0.03125)
    """
    placed = []
    for scores, others in ((positives, negatives), (-negatives, -positives)):
        ordered = np.sort(others)
        left, right = (np.searchsorted(ordered, scores, side) for side in ("left", "right"))
        placed.append((left + right) / (2 * len(others)))
    variance = sum(float(each.var(ddof=1)) / len(each) for each in placed)
    return float(placed[0].mean()), variance


def _common_first(before: IntArray, after: IntArray) -> FloatArray:
    """Categories as small numbers by falling frequency, NaN where missing, both sides stacked."""
    stacked = np.concatenate([before, after])
    columns = np.full(stacked.shape, np.nan)
    for column, codes in enumerate(stacked.T):
        known, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
        counts = np.where(known < 0, -1, counts)  # missing comes last
        rank = np.empty(len(known))
        rank[np.argsort(-counts, kind="stable")] = np.arange(len(known))
        ranks = np.minimum(rank[inverse], CATEGORIES_AT_MOST - 1)
        columns[:, column] = np.where(codes < 0, np.nan, ranks)
    return columns


def _held_out(reference: RowSamples, current: RowSamples, *, explained: float = 0.65) -> FloatArray:
    """Error of the reference's rows that the directions were not learnt from."""

    def own_error(before: RowSamples, after: RowSamples) -> tuple[float, float]:
        rows = _encoded(before, before)
        return _mean_error(rows[::2], rows[1::2], explained)

    return _every(own_error, reference, current).value


@metric("reconstruction_error", worse="higher", bounds=(0, inf), noise=_held_out)
def reconstruction_error(
    reference: RowSamples, current: RowSamples, *, explained: float = 0.65
) -> Estimate:
    """How far rows lie from the directions in which the reference's rows vary, on average.

    Numbers are standardised, categories replaced by their share of the reference and standardised
    too, missing numbers by the mean; principal components that explain 65 % of the variance are
    learnt from every second row of the reference sample; the value is the mean Euclidean distance
    between a row and its projection. Its noise floor is the value of the reference's other rows.
    Range 0 to infinity; lower than the floor is a change too. Undefined with fewer than 50 sampled
    rows on either side.

    The definition is that of NannyML's data reconstruction drift.

    >>> random = np.random.default_rng(0)
    >>> x, y = random.normal(size=(2, 200))
    >>> along, across = (RowSamples.of(np.stack([x, x + s * y], axis=1)) for s in (0.1, 1))
    >>> before, after = (reconstruction_error(along, each).value for each in (along, across))
    >>> bool(after > 5 * before)
    True
    """

    def error(before: RowSamples, after: RowSamples) -> tuple[float, float]:
        return _mean_error(_encoded(before, before)[::2], _encoded(before, after), explained)

    return _every(error, reference, current)


def _encoded(reference: RowSamples, rows: RowSamples) -> FloatArray:
    """Rows as numbers: categories by their share of the reference."""
    before, codes = reference.categories.item(), rows.categories.item()
    columns = [rows.numbers.item()]
    for known, column in zip(before.T, codes.T, strict=True):
        values, counts = np.unique(known, return_counts=True)
        place = np.minimum(np.searchsorted(values, column), len(values) - 1)
        share = np.where(values[place] == column, counts[place] / len(known), 0.0)
        columns.append(share[:, None])
    return np.concatenate(columns, axis=1)


def _mean_error(learnt: FloatArray, rows: FloatArray, explained: float) -> tuple[float, float]:
    """Mean distance of rows from their projection, and its standard error."""
    known = np.isfinite(learnt)
    mean = ratio(np.where(known, learnt, 0).sum(axis=0), known.sum(axis=0))
    mean = np.where(np.isnan(mean), 0, mean)
    deviation = np.where(known, learnt, mean).std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)

    def standardised(values: FloatArray) -> FloatArray:
        return np.asarray((np.where(np.isfinite(values), values, mean) - mean) / deviation)

    centre = standardised(learnt)
    variances, directions = np.linalg.eigh(centre.T @ centre)
    shares = np.cumsum(variances[::-1]) / max(float(variances.sum()), 1e-300)
    kept = int(np.searchsorted(shares, explained, side="right")) + 1
    plane = directions[:, ::-1][:, :kept]
    moved = standardised(rows)
    errors = np.linalg.norm(moved - moved @ plane @ plane.T, axis=1)
    return float(errors.mean()), float(errors.std(ddof=1)) / sqrt(len(errors))
