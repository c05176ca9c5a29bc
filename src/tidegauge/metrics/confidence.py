"""Accuracy from how sure a model is of its decisions: what others estimate it by, from score bins.

The confidence of a row is the score of what was decided: s where that is 1, 1 - s where it is 0. A
score is taken for the middle of its bin, which is off by half its width, 0.001 at most.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tidegauge.metrics.inputs import BinaryEstimates, BinaryOutcomes, FloatArray, IntArray, ratio


def with_raw_scores(current: BinaryEstimates) -> BinaryEstimates:
    """Take scores for chances as they are: accuracy is then the average confidence.

    >>> estimates = BinaryEstimates(rows=[[6, 0], [0, 4]], chances=0.0, edges=[0.0, 0.5, 1.0])
    >>> with_raw_scores(estimates).chances.tolist()
    [[1.5, 0.0], [0.0, 3.0]]
    """
    middle = _middles(current.edges)
    labelled = np.broadcast_to(current.labelled, current.rows.shape)
    return replace(current, chances=current.rows * middle, labelled_chances=labelled * middle)


def above_threshold(reference: BinaryOutcomes, current: BinaryEstimates) -> FloatArray:
    """Share of the rows as sure as the surest of the reference, as many there as were right (ATC).

    A bin at the threshold counts in part, in the same part on both sides.

    >>> past = BinaryOutcomes(positives=[[1, 0], [0, 3]], negatives=[[3, 0], [0, 1]],
    ...                       edges=[0.0, 0.4, 1.0])
    >>> estimates = BinaryEstimates(rows=[[5, 0], [0, 5]], chances=0.0, edges=[0.0, 0.4, 1.0])
    >>> float(above_threshold(past, estimates))
    0.75

    Source: Garg et al. (2022), average thresholded confidence.
    """
    order = np.argsort(-_confidence(reference.edges).ravel(), kind="stable")
    before, now = (
        np.asarray(each, dtype=np.float64).reshape(*each.shape[:-2], -1)[..., order]
        for each in (_labelled(reference), current.rows)
    )
    right = _right(reference).sum(axis=(-2, -1))[..., None]
    over = np.clip(right - (np.cumsum(before, axis=-1) - before), 0, before)
    met = before > 0
    # bins that the reference never met count where surer ones counted in full
    counts = np.where(met, ratio(over, before), right > np.cumsum(before, axis=-1))
    known = np.where(before.sum(axis=-1) > 0, 1.0, np.nan)
    return ratio((counts * now).sum(axis=-1), now.sum(axis=-1)) * known


def moved_with_confidence(reference: BinaryOutcomes, current: BinaryEstimates) -> FloatArray:
    """Accuracy of the reference, moved as its windows move with their confidence (DoC).

    The slope is that of a regression over random windows of the reference's rows, whose limit is
    the covariance of right and confidence over the variance of confidence.

    >>> past = BinaryOutcomes(positives=[[1, 0], [0, 3]], negatives=[[3, 0], [0, 1]],
    ...                       edges=[0.0, 0.4, 1.0])
    >>> estimates = BinaryEstimates(rows=[[5, 0], [0, 5]], chances=0.0, edges=[0.0, 0.4, 1.0])
    >>> float(moved_with_confidence(past, estimates))
    0.75

    Source: Guillory et al. (2021), difference of confidences.
    """
    confidence = _confidence(reference.edges)
    rows, right = _labelled(reference), _right(reference)
    n = rows.sum(axis=(-2, -1))

    def mean(weights: FloatArray | IntArray, values: FloatArray) -> FloatArray:
        return ratio((weights * values).sum(axis=(-2, -1)), n)

    usual, accuracy = mean(rows, confidence), mean(right, np.ones(1))
    spread = mean(rows, confidence**2) - usual**2
    slope = np.nan_to_num(ratio(mean(right, confidence) - accuracy * usual, spread))
    total = current.rows.sum(axis=(-2, -1))
    sure = ratio((current.rows * confidence).sum(axis=(-2, -1)), total)
    return np.asarray(np.clip(accuracy + slope * (sure - usual), 0, 1))


def _middles(edges: FloatArray) -> FloatArray:
    return np.asarray((edges[:-1] + edges[1:]) / 2)


def _confidence(edges: FloatArray) -> FloatArray:
    """Of rows by decision and score bin, [2, S]."""
    middle = _middles(edges)
    return np.stack([1 - middle, middle])


def _labelled(outcomes: BinaryOutcomes) -> IntArray:
    return np.asarray(outcomes.positives + outcomes.negatives)


def _right(outcomes: BinaryOutcomes) -> IntArray:
    """Rows decided as their label says, by decision and score bin."""
    return np.stack([outcomes.negatives[..., 0, :], outcomes.positives[..., 1, :]], axis=-2)
