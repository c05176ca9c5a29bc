"""Calibrators: what a score has meant in the reference, fitted by isotonic regression."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegauge._core import calibrate, fit_isotonic

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SPLITS = 10  # of the reference, on which calibrated scores must do better than raw ones
TEST_SHARE = 0.1
ERROR_BINS = 10
SEPARATED = 0.999  # ROC AUC from which there is nothing left to calibrate
SEED = 42


@dataclass(frozen=True, eq=False)
class Calibrator:
    """A monotone function from score to chance, straight between knots and constant beyond.

    `isotonic` says whether it was fitted; otherwise scores are taken for chances as they are.
    """

    scores: FloatArray  # [K], ascending
    chances: FloatArray  # [K], ascending
    isotonic: bool

    @classmethod
    def identity(cls) -> Calibrator:
        """Take scores for chances.

        >>> Calibrator.identity()(np.array([0.3]))
        array([0.3])
        """
        ends = np.array([0.0, 1.0])
        return cls(ends, ends, isotonic=False)

    @classmethod
    def fit(cls, scores: FloatArray, labels: FloatArray) -> Calibrator:
        """Fit one where it helps, in any order of rows.

        It helps when, over ten random splits that keep the share of positives, the expected
        calibration error of rows that were left out falls. NannyML's rule.

        >>> scores = np.linspace(0, 1, 1000)
        >>> Calibrator.fit(scores, (scores > 0.8).astype(float)).isotonic
        False
        >>> Calibrator.fit(scores, (np.arange(1000) % 10 < 3).astype(float)).isotonic
        True
        """
        if not _is_needed(scores, labels):
            return cls.identity()
        order = np.argsort(scores, kind="stable")
        weights = np.ones(len(labels))
        return cls(*fit_isotonic(scores[order], labels[order], weights), isotonic=True)

    def __call__(self, scores: FloatArray) -> FloatArray:
        """Chance that each score stands for; NaN where it is NaN."""
        return np.where(np.isnan(scores), np.nan, calibrate(scores, self.scores, self.chances))

    def to_dict(self) -> dict[str, Any]:
        """Return the knots as JSON-ready values."""
        return {
            "scores": self.scores.tolist(),
            "chances": self.chances.tolist(),
            "isotonic": self.isotonic,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Calibrator:
        """Read them back."""
        scores, chances = (np.array(stored[name], dtype=np.float64) for name in _KNOTS)
        ascending = all((np.diff(each) >= 0).all() for each in (scores, chances))
        if not len(scores) or len(scores) != len(chances) or not ascending:
            raise ValueError("the stored calibrator is damaged")
        return cls(scores, chances, isotonic=bool(stored["isotonic"]))


_KNOTS = ("scores", "chances")


def _is_needed(scores: FloatArray, labels: FloatArray) -> bool:
    """Whether isotonic regression lowers the calibration error of rows that it has not seen."""
    positives = int(labels.sum())
    fewest = min(positives, len(labels) - positives)
    order = np.argsort(scores, kind="stable")
    if fewest < 2 or _roc_auc(scores[order], labels[order]) > SEPARATED:
        return False
    left_out = []
    for test in _test_rows(labels):
        is_inside = np.ones(len(labels), dtype=bool)
        is_inside[test] = False
        inside = order[is_inside[order]]
        knots, chances = fit_isotonic(scores[inside], labels[inside], np.ones(len(inside)))
        left_out.append((labels[test], scores[test], calibrate(scores[test], knots, chances)))
    truth, raw, calibrated = (np.concatenate(each) for each in zip(*left_out, strict=True))
    if len(truth) < 2 * 2:
        return False
    return calibration_error(truth, raw) > calibration_error(truth, calibrated)


def _test_rows(labels: FloatArray) -> Iterator[IntArray]:
    """Random tenths of the rows that keep the share of positives.

    The draws are those of scikit-learn's StratifiedShuffleSplit, so that the same scores are
    calibrated here as in NannyML; the stream of RandomState is fixed for ever.
    """
    random = np.random.RandomState(SEED)
    n_test = math.ceil(TEST_SHARE * len(labels))
    classes = [np.flatnonzero(labels == label) for label in (0, 1)]
    counts = np.array([len(rows) for rows in classes])
    for _ in range(SPLITS):
        n_inside = _allotted(counts, len(labels) - n_test, random)
        n_outside = _allotted(counts - n_inside, n_test, random)
        test = []
        for rows, skipped, n in zip(classes, n_inside, n_outside, strict=True):
            test.append(rows[random.permutation(len(rows))][skipped : skipped + n])
        random.permutation(int(n_inside.sum()))  # the rows inside, whose order is of no account
        yield random.permutation(np.concatenate(test))


def _allotted(counts: IntArray, n: int, random: np.random.RandomState) -> IntArray:
    """Share n draws out in proportion to counts; what is left goes to the largest remainders."""
    exact = counts / counts.sum() * n
    whole = np.floor(exact)
    left, remainder = int(n - whole.sum()), exact - whole
    for value in np.unique(remainder)[::-1]:
        if left <= 0:
            break
        alike = np.flatnonzero(remainder == value)
        chosen = random.choice(alike, size=min(len(alike), left), replace=False)
        whole[chosen] += 1
        left -= len(chosen)
    allotted: IntArray = whole.astype(np.int64)
    return allotted


def _roc_auc(scores: FloatArray, labels: FloatArray) -> float:
    """Chance that a positive scores higher than a negative; scores ascend."""
    _, start, rows = np.unique(scores, return_index=True, return_counts=True)
    positives = np.add.reduceat(labels, start)
    negatives = rows - positives
    below = np.cumsum(negatives) - negatives / 2
    return float((positives * below).sum() / (positives.sum() * negatives.sum()))


def calibration_error(labels: FloatArray, chances: FloatArray) -> float:
    """Mean distance of chance and share of positives over bins of equally many rows.

    >>> calibration_error(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 0.0, 1.0, 1.0]))
    0.0
    """
    order = np.argsort(chances)
    n_bins = ERROR_BINS if len(order) > 2 * ERROR_BINS else len(order) // 2
    edges = np.arange(n_bins) * (len(order) // n_bins)
    gaps = np.add.reduceat((chances - labels)[order], edges)
    return float(np.abs(gaps).sum() / len(order))


def fit_calibrators(
    labels: FloatArray, scores: Sequence[FloatArray], classes: int
) -> tuple[Calibrator, ...]:
    """Calibrator of a binary score, or of the score of each class; none without labelled rows.

    `labels` are 0 and 1, or places of the class; rows without label or score are left out.
    """
    known = ~np.isnan(labels)
    for score in scores:
        known &= ~np.isnan(score)
    if not known.any() or not scores:
        return ()
    truth = labels[known]
    ones = [truth] if not classes else [(truth == k).astype(np.float64) for k in range(classes)]
    return tuple(Calibrator.fit(score[known], one) for score, one in zip(scores, ones, strict=True))
