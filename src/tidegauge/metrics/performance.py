"""Live performance: what the labels that have arrived say about the predictions.

Binary metrics of a decision take `threshold=`: None keeps the decision the model took, a number
decides again from the score bins, at the bin edge nearest to it. "TP" is a row decided 1 that is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np

from tidegauge.metrics.inputs import (
    BinaryOutcomes,
    FloatArray,
    IntArray,
    MulticlassOutcomes,
    Outcomes,
    RegressionOutcomes,
    ratio,
)
from tidegauge.metrics.registry import metric
from tidegauge.metrics.results import Estimate, PerClass, Proportion, mean


@metric("label_count", worse="lower", bounds=(0, inf), scale="total")
def label_count(current: Outcomes) -> FloatArray:
    """How many rows have both a prediction and a label.

    Number of labelled rows. Range 0 to infinity. Never undefined.

    >>> float(label_count(BinaryOutcomes.from_confusion(tp=4, fp=1, fn=2, tn=3)))
    10.0
    """
    return np.asarray(current.labelled_rows, dtype=np.float64)


# Binary classification: the confusion counts.


@dataclass(frozen=True, slots=True)
class Confusion:
    """Four counts, as floats so that products cannot overflow."""

    tp: FloatArray
    fp: FloatArray
    fn: FloatArray
    tn: FloatArray

    @property
    def sensitivity(self) -> Proportion:
        """Share of the positives that were decided 1."""
        return Proportion(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> Proportion:
        """Share of the negatives that were decided 0."""
        return Proportion(self.tn, self.tn + self.fp)

    @property
    def precision(self) -> Proportion:
        """Share of the rows decided 1 that are positive."""
        return Proportion(self.tp, self.tp + self.fp)

    @property
    def total(self) -> FloatArray:
        """All rows counted."""
        return self.tp + self.fp + self.fn + self.tn


def confusion(outcomes: BinaryOutcomes, threshold: float | None = None) -> Confusion:
    """Confusion counts of the model's own decisions, or of a threshold on the score.

    >>> confusion(BinaryOutcomes.from_confusion(tp=4, fp=1, fn=2, tn=3)).tp
    array(4.)
    """
    fn, tp = _split(outcomes.positives, outcomes.edges, threshold)
    tn, fp = _split(outcomes.negatives, outcomes.edges, threshold)
    return Confusion(tp=tp, fp=fp, fn=fn, tn=tn)


def _split(
    counts: IntArray, edges: FloatArray, threshold: float | None
) -> tuple[FloatArray, FloatArray]:
    """Rows decided 0 and rows decided 1."""
    if threshold is None:
        decided = counts.sum(axis=-1)
        zero, one = decided[..., 0], decided[..., 1]
    elif edges.size == 2:  # no scores: there is nothing to decide from
        zero = one = np.full(counts.shape[:-2], np.nan)
    else:
        first = int(np.abs(edges - threshold).argmin())
        scored = counts.sum(axis=-2)
        zero, one = scored[..., :first].sum(axis=-1), scored[..., first:].sum(axis=-1)
    return np.asarray(zero, dtype=np.float64), np.asarray(one, dtype=np.float64)


@metric("true_positives", worse="either", bounds=(0, inf), scale="total")
def true_positives(current: BinaryOutcomes, *, threshold: float | None = None) -> FloatArray:
    """Rows decided 1 that are 1.

    TP. Range 0 to infinity. Undefined without labels.

    >>> float(true_positives(BinaryOutcomes.from_confusion(tp=4, fp=1, fn=2, tn=3)))
    4.0
    """
    return confusion(current, threshold).tp * current.rows_per_count


@metric("false_positives", worse="higher", bounds=(0, inf), scale="total")
def false_positives(current: BinaryOutcomes, *, threshold: float | None = None) -> FloatArray:
    """Rows decided 1 that are 0.

    FP. Range 0 to infinity. Undefined without labels.

    >>> float(false_positives(BinaryOutcomes.from_confusion(tp=4, fp=1, fn=2, tn=3)))
    1.0
    """
    return confusion(current, threshold).fp * current.rows_per_count


@metric("false_negatives", worse="higher", bounds=(0, inf), scale="total")
def false_negatives(current: BinaryOutcomes, *, threshold: float | None = None) -> FloatArray:
    """Rows decided 0 that are 1.

    FN. Range 0 to infinity. Undefined without labels.

    >>> float(false_negatives(BinaryOutcomes.from_confusion(tp=4, fp=1, fn=2, tn=3)))
    2.0
    """
    return confusion(current, threshold).fn * current.rows_per_count


@metric("true_negatives", worse="either", bounds=(0, inf), scale="total")
def true_negatives(current: BinaryOutcomes, *, threshold: float | None = None) -> FloatArray:
    """Rows decided 0 that are 0.

    TN. Range 0 to infinity. Undefined without labels.

    >>> float(true_negatives(BinaryOutcomes.from_confusion(tp=4, fp=1, fn=2, tn=3)))
    3.0
    """
    return confusion(current, threshold).tn * current.rows_per_count


@metric("accuracy", worse="lower", bounds=(0, 1))
def accuracy(current: BinaryOutcomes, *, threshold: float | None = None) -> Proportion:
    """Share of the decisions that were right.

    (TP + TN) / all. Range 0 to 1. Undefined without labels.

    >>> float(accuracy(BinaryOutcomes.from_confusion(tp=4, fp=1, fn=2, tn=3)).value)
    0.7
    """
    counts = confusion(current, threshold)
    return Proportion(counts.tp + counts.tn, counts.total)


@metric("precision", worse="lower", bounds=(0, 1))
def precision(current: BinaryOutcomes, *, threshold: float | None = None) -> Proportion:
    """Share of the rows decided 1 that are 1.

    TP / (TP + FP). Range 0 to 1. Undefined when nothing was decided 1.

    >>> float(precision(BinaryOutcomes.from_confusion(tp=4, fp=1, fn=2, tn=3)).value)
    0.8
    """
    return confusion(current, threshold).precision


@metric("recall", worse="lower", bounds=(0, 1))
def recall(current: BinaryOutcomes, *, threshold: float | None = None) -> Proportion:
    """Share of the positives that were decided 1 (sensitivity, true positive rate).

    TP / (TP + FN). Range 0 to 1. Undefined without positives.

    >>> float(recall(BinaryOutcomes.from_confusion(tp=3, fp=1, fn=1, tn=3)).value)
    0.75
    """
    return confusion(current, threshold).sensitivity


@metric("specificity", worse="lower", bounds=(0, 1))
def specificity(current: BinaryOutcomes, *, threshold: float | None = None) -> Proportion:
    """Share of the negatives that were decided 0 (true negative rate).

    TN / (TN + FP). Range 0 to 1. Undefined without negatives.

    >>> float(specificity(BinaryOutcomes.from_confusion(tp=4, fp=1, fn=2, tn=3)).value)
    0.75
    """
    return confusion(current, threshold).specificity


@metric("false_positive_rate", worse="higher", bounds=(0, 1))
def false_positive_rate(current: BinaryOutcomes, *, threshold: float | None = None) -> Proportion:
    """Share of the negatives that were decided 1: false alarms.

    FP / (FP + TN). Range 0 to 1. Undefined without negatives.

    >>> float(false_positive_rate(BinaryOutcomes.from_confusion(tp=4, fp=1, fn=2, tn=3)).value)
    0.25
    """
    counts = confusion(current, threshold)
    return Proportion(counts.fp, counts.fp + counts.tn)


@metric("false_negative_rate", worse="higher", bounds=(0, 1))
def false_negative_rate(current: BinaryOutcomes, *, threshold: float | None = None) -> Proportion:
    """Share of the positives that were decided 0: misses.

    FN / (FN + TP). Range 0 to 1. Undefined without positives.

    >>> float(false_negative_rate(BinaryOutcomes.from_confusion(tp=3, fp=1, fn=1, tn=3)).value)
    0.25
    """
    counts = confusion(current, threshold)
    return Proportion(counts.fn, counts.fn + counts.tp)


@metric("negative_predictive_value", worse="lower", bounds=(0, 1))
def negative_predictive_value(
    current: BinaryOutcomes, *, threshold: float | None = None
) -> Proportion:
    """Share of the rows decided 0 that are 0.

    TN / (TN + FN). Range 0 to 1. Undefined when nothing was decided 0.

    >>> outcomes = BinaryOutcomes.from_confusion(tp=4, fp=1, fn=2, tn=3)
    >>> float(negative_predictive_value(outcomes).value)
    0.6
    """
    counts = confusion(current, threshold)
    return Proportion(counts.tn, counts.tn + counts.fn)


@metric("f1", worse="lower", bounds=(0, 1))
def f1(current: BinaryOutcomes, *, threshold: float | None = None) -> Estimate:
    """Harmonic mean of precision and recall.

    2 TP / (2 TP + FP + FN). Range 0 to 1. Undefined when there are neither positives nor rows
    decided 1.

    >>> round(float(f1(BinaryOutcomes.from_confusion(tp=4, fp=1, fn=2, tn=3)).value), 3)
    0.727
    """
    counts = confusion(current, threshold)
    return _f1(counts.tp, counts.tp + counts.fp + counts.fn)


def _f1(hits: FloatArray, relevant: FloatArray) -> Estimate:
    """F1 = 2 J / (1 + J) of the share J of hits; its error by the delta method."""
    share = ratio(hits, relevant)
    error = np.sqrt(ratio(share * (1 - share), relevant))
    return Estimate(2 * share / (1 + share), error * 2 / (1 + share) ** 2)


@metric("f_beta", worse="lower", bounds=(0, 1))
def f_beta(
    current: BinaryOutcomes, *, beta: float = 2.0, threshold: float | None = None
) -> FloatArray:
    """Mean of precision and recall in which recall weighs beta**2 times as much.

    (1 + b2) TP / ((1 + b2) TP + b2 FN + FP), b2 = beta**2. Range 0 to 1. Undefined when there are
    neither positives nor rows decided 1.

    >>> round(float(f_beta(BinaryOutcomes.from_confusion(tp=4, fp=1, fn=2, tn=3))), 3)
    0.69
    """
    counts = confusion(current, threshold)
    hits = (1 + beta**2) * counts.tp
    return ratio(hits, hits + beta**2 * counts.fn + counts.fp)


@metric("balanced_accuracy", worse="lower", bounds=(0, 1))
def balanced_accuracy(current: BinaryOutcomes, *, threshold: float | None = None) -> Estimate:
    """Mean of the shares of positives and of negatives that were decided right.

    (recall + specificity) / 2. Range 0 to 1; 0.5 is chance. Undefined without both classes.

    >>> float(balanced_accuracy(BinaryOutcomes.from_confusion(tp=3, fp=1, fn=1, tn=3)).value)
    0.75
    """
    counts = confusion(current, threshold)
    rates = counts.sensitivity, counts.specificity
    variance = sum(ratio(rate.value * (1 - rate.value), rate.trials) for rate in rates)
    return Estimate((rates[0].value + rates[1].value) / 2, np.sqrt(variance) / 2)


@metric("geometric_mean", worse="lower", bounds=(0, 1))
def geometric_mean(
    current: BinaryOutcomes,
    *,
    convention: Literal["tidegauge", "fiddler"] = "tidegauge",
    threshold: float | None = None,
) -> FloatArray:
    """Geometric mean of recall and specificity: low as soon as one class is neglected.

    sqrt(recall * specificity); fiddler: sqrt(precision * recall). Range 0 to 1. Undefined without
    both classes (fiddler: without positives or rows decided 1).

    >>> float(geometric_mean(BinaryOutcomes.from_confusion(tp=3, fp=1, fn=1, tn=3)))
    0.75
    """
    counts = confusion(current, threshold)
    other = counts.precision if convention == "fiddler" else counts.specificity
    return np.asarray(np.sqrt(counts.sensitivity.value * other.value))


@metric("matthews_correlation", worse="lower", bounds=(-1, 1))
def matthews_correlation(current: BinaryOutcomes, *, threshold: float | None = None) -> FloatArray:
    """Correlation of decision and label.

    (TP TN - FP FN) / sqrt((TP + FP)(TP + FN)(TN + FP)(TN + FN)). Range -1 to 1; 0 is chance.
    Undefined when all labels or all decisions are the same.

    >>> float(matthews_correlation(BinaryOutcomes.from_confusion(tp=3, fp=1, fn=1, tn=3)))
    0.5
    """
    c = confusion(current, threshold)
    labels = np.sqrt(c.tp + c.fn) * np.sqrt(c.tn + c.fp)
    decisions = np.sqrt(c.tp + c.fp) * np.sqrt(c.tn + c.fn)
    return np.clip(ratio(c.tp * c.tn - c.fp * c.fn, labels * decisions), -1, 1)


@metric("cohen_kappa", worse="lower", bounds=(-1, 1))
def cohen_kappa(current: BinaryOutcomes, *, threshold: float | None = None) -> FloatArray:
    """Agreement of decision and label beyond what their frequencies give by chance.

    (po - pe) / (1 - pe), po the share of right decisions, pe that expected of independent ones.
    Range -1 to 1; 0 is chance. Undefined when all labels and decisions are one class.

    >>> float(cohen_kappa(BinaryOutcomes.from_confusion(tp=3, fp=1, fn=1, tn=3)))
    0.5
    """
    c = confusion(current, threshold)
    chance = (c.tp + c.fn) * (c.tp + c.fp) + (c.tn + c.fp) * (c.tn + c.fn)
    return _kappa(c.tp + c.tn, ratio(chance, c.total), c.total)


def _kappa(agreed: FloatArray, chance: FloatArray, total: FloatArray) -> FloatArray:
    return ratio(agreed - chance, total - chance)


@metric("prevalence", worse="either", bounds=(0, 1))
def prevalence(current: BinaryOutcomes) -> Proportion:
    """Share of the labels that are positive.

    (TP + FN) / all. Range 0 to 1. Undefined without labels.

    >>> float(prevalence(BinaryOutcomes.from_confusion(tp=4, fp=1, fn=2, tn=3)).value)
    0.6
    """
    counts = confusion(current)
    return Proportion(counts.tp + counts.fn, counts.total)


@metric("predicted_positive_rate", worse="either", bounds=(0, 1))
def predicted_positive_rate(
    current: BinaryOutcomes, *, threshold: float | None = None
) -> Proportion:
    """Share of the labelled rows that were decided 1.

    (TP + FP) / all. Range 0 to 1. Undefined without labels.

    >>> float(predicted_positive_rate(BinaryOutcomes.from_confusion(tp=4, fp=1, fn=2, tn=3)).value)
    0.5
    """
    counts = confusion(current, threshold)
    return Proportion(counts.tp + counts.fp, counts.total)


# Binary classification: the scores.


def by_score(counts: IntArray) -> FloatArray:
    """Rows in each score bin, whatever was decided; NaN where there are no scores."""
    scored = counts.sum(axis=-2)
    return np.asarray(scored * (1.0 if counts.shape[-1] > 1 else np.nan), dtype=np.float64)


def _scored(outcomes: BinaryOutcomes) -> FloatArray:
    scored = outcomes.positives.sum(axis=(-2, -1)) + outcomes.negatives.sum(axis=(-2, -1))
    return np.asarray(scored * (1.0 if outcomes.positives.shape[-1] > 1 else np.nan))


def _dot(a: FloatArray, b: FloatArray) -> FloatArray:
    """Sum of the products along the bins, without an array of them."""
    return np.asarray(np.einsum("...b,...b->...", a, b))


def roc_area(positives: FloatArray, negatives: FloatArray) -> Estimate:
    """Area under the ROC curve from score bins, with DeLong's standard error."""
    n_positive, n_negative = positives.sum(axis=-1), negatives.sum(axis=-1)
    p, n = ratio(positives, n_positive[..., None]), ratio(negatives, n_negative[..., None])
    beaten = np.cumsum(n, axis=-1) - n / 2  # share of the negatives below a positive of this bin
    losing = np.cumsum(p, axis=-1) - p / 2
    weighted = p * beaten
    area = weighted.sum(axis=-1)
    of_positives = np.maximum(_dot(weighted, beaten) - area**2, 0)
    of_negatives = np.maximum(_dot(n * losing, losing) - (1 - area) ** 2, 0)
    variance = ratio(of_positives, n_positive) + ratio(of_negatives, n_negative)
    return Estimate(np.clip(area, 0, 1), np.sqrt(variance))


def precision_area(positives: FloatArray, negatives: FloatArray) -> FloatArray:
    """Mean over the positives of the precision at their score, bins taken from the top."""
    hits = np.cumsum(positives[..., ::-1], axis=-1)
    decided = hits + np.cumsum(negatives[..., ::-1], axis=-1)
    precisions = hits / np.where(decided == 0, 1, decided)
    total = (positives[..., ::-1] * precisions).sum(axis=-1)
    return np.minimum(ratio(total, hits[..., -1]), 1)


@metric("roc_auc", worse="lower", bounds=(0, 1))
def roc_auc(current: BinaryOutcomes) -> Estimate:
    """Probability that a positive scores above a negative, ties counting half.

    Sum over score bins of p (N(below) + n / 2), p and n the shares of positives and negatives;
    interval by DeLong. Rows of one score bin count as ties, which moves the value by a few percent
    of its standard error at most. Range 0 to 1; 0.5 is chance. Undefined without both classes or
    scores.

    >>> float(roc_auc(BinaryOutcomes(
    ...     edges=[0, 0.5, 1], positives=[[1, 0], [0, 3]], negatives=[[2, 0], [0, 2]])).value)
    0.625
    """
    return roc_area(by_score(current.positives), by_score(current.negatives))


@metric("average_precision", worse="lower", bounds=(0, 1))
def average_precision(current: BinaryOutcomes) -> FloatArray:
    """Area under the precision-recall curve: precision averaged over the positives.

    Sum over score bins, from the top, of (share of the positives) * TP / (TP + FP) down to the bin.
    Range 0 to 1; the prevalence is chance. Undefined without positives or scores.

    >>> round(float(average_precision(BinaryOutcomes(
    ...     edges=[0, 0.5, 1], positives=[[1, 0], [0, 3]], negatives=[[2, 0], [0, 2]]))), 3)
    0.575
    """
    return precision_area(by_score(current.positives), by_score(current.negatives))


@metric("log_loss", worse="higher", bounds=(0, inf))
def log_loss(current: BinaryOutcomes) -> Estimate:
    """Mean surprise at the labels, in nats (cross-entropy).

    Mean of -ln(score of what happened). Range 0 to infinity. Undefined without scored labels.

    >>> outcomes = BinaryOutcomes(edges=[0, 0.5, 1], positives=[[0, 0], [0, 2]],
    ...     negatives=[[0, 0], [0, 0]], log_loss=np.array(1.0), log_loss_squared=np.array(0.5))
    >>> float(log_loss(outcomes).value)
    0.5
    """
    return mean(current.log_loss, current.log_loss_squared, _scored(current))


@metric("brier_score", worse="higher", bounds=(0, 1))
def brier_score(current: BinaryOutcomes) -> Estimate:
    """Mean squared distance of the score from the label.

    Mean of (score - label)**2. Range 0 to 1. Undefined without scored labels.

    >>> outcomes = BinaryOutcomes(edges=[0, 0.5, 1], positives=[[0, 0], [0, 2]],
    ...     negatives=[[0, 0], [0, 0]], brier=np.array(0.5), brier_squared=np.array(0.125))
    >>> float(brier_score(outcomes).value)
    0.25
    """
    return mean(current.brier, current.brier_squared, _scored(current))


@metric("expected_calibration_error", worse="higher", bounds=(0, 1))
def expected_calibration_error(current: BinaryOutcomes) -> FloatArray:
    """How far scores and frequencies lie apart, averaged over ten equal tenths of the score.

    Sum over tenths of |positives - sum of the scores| / rows. Range 0 to 1. Undefined without
    scored labels.

    >>> confidence = np.array([0.0, 0, 0, 0, 0, 0, 0, 1.5, 0, 0])
    >>> outcomes = BinaryOutcomes(edges=[0, 0.5, 1], positives=[[0, 0], [0, 2]],
    ...     negatives=[[0, 0], [0, 0]], confidence=confidence)
    >>> float(expected_calibration_error(outcomes))
    0.25
    """
    observed = by_tenth(by_score(current.positives), current.edges)
    return ratio(np.abs(observed - current.confidence).sum(axis=-1), _scored(current))


def by_tenth(counts: IntArray | FloatArray, edges: FloatArray) -> FloatArray:
    """Counts of score bins, [..., S], added up to tenths of the score, [..., 10].

    >>> by_tenth(np.array([3, 4]), np.array([0.0, 0.5, 1.0]))
    array([0., 0., 3., 0., 0., 0., 0., 4., 0., 0.])
    """
    middles = (edges[:-1] + edges[1:]) / 2
    starts = np.searchsorted(middles, np.linspace(0, 1, 11))
    upto = np.pad(
        np.cumsum(counts, axis=-1, dtype=np.float64), [(0, 0)] * (counts.ndim - 1) + [(1, 0)]
    )
    tenths: FloatArray = upto[..., starts[1:]] - upto[..., starts[:-1]]
    return tenths


# Multiclass classification.


def _per_class(outcomes: MulticlassOutcomes) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Right, predicted and true rows of every class, each [..., K]."""
    counts = np.asarray(outcomes.confusion, dtype=np.float64)
    return np.einsum("...kk->...k", counts), counts.sum(axis=-2), counts.sum(axis=-1)


def _over_classes(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted mean over the classes, an undefined class counting as 0."""
    known = np.where(np.isnan(values), 0, values)
    return ratio((known * weights).sum(axis=-1), weights.sum(axis=-1))


@metric("accuracy", worse="lower", bounds=(0, 1))
def multiclass_accuracy(current: MulticlassOutcomes) -> Proportion:
    """Share of the rows predicted as the class they are.

    Trace of the confusion matrix / all. Range 0 to 1. Undefined without labels.

    >>> float(multiclass_accuracy(MulticlassOutcomes(confusion=[[2, 1], [0, 1]])).value)
    0.75
    """
    right, _, true = _per_class(current)
    return Proportion(right.sum(axis=-1), true.sum(axis=-1))


@metric("balanced_accuracy", worse="lower", bounds=(0, 1))
def multiclass_balanced_accuracy(current: MulticlassOutcomes) -> FloatArray:
    """Mean recall of the classes that occur among the labels.

    Mean over classes of right / true. Range 0 to 1. Undefined without labels.

    >>> float(multiclass_balanced_accuracy(MulticlassOutcomes(confusion=[[1, 1], [0, 1]])))
    0.75
    """
    right, _, true = _per_class(current)
    return _over_classes(ratio(right, true), np.asarray(true > 0, dtype=np.float64))


@metric("precision", worse="lower", bounds=(0, 1))
def class_precision(current: MulticlassOutcomes) -> PerClass:
    """Share of the rows predicted as a class that are of it, for every class.

    right / predicted. Range 0 to 1. Undefined for a class that was never predicted.

    >>> class_precision(MulticlassOutcomes(confusion=[[1, 1], [0, 1]])).result.value
    array([1. , 0.5])
    """
    right, predicted, _ = _per_class(current)
    return PerClass(Proportion(right, predicted))


@metric("recall", worse="lower", bounds=(0, 1))
def class_recall(current: MulticlassOutcomes) -> PerClass:
    """Share of the rows of a class that were predicted as it, for every class.

    right / true. Range 0 to 1. Undefined for a class without labels.

    >>> class_recall(MulticlassOutcomes(confusion=[[1, 1], [0, 1]])).result.value
    array([0.5, 1. ])
    """
    right, _, true = _per_class(current)
    return PerClass(Proportion(right, true))


@metric("f1", worse="lower", bounds=(0, 1))
def class_f1(current: MulticlassOutcomes) -> PerClass:
    """Harmonic mean of precision and recall, for every class.

    2 right / (predicted + true). Range 0 to 1. Undefined for a class that does not occur.

    >>> class_f1(MulticlassOutcomes(confusion=[[2, 0], [0, 1]])).result.value
    array([1., 1.])
    """
    right, predicted, true = _per_class(current)
    return PerClass(_f1(right, predicted + true - right))


def _occurs(outcomes: MulticlassOutcomes) -> FloatArray:
    """1 for the classes among the labels or the predictions, 0 for the others."""
    _, predicted, true = _per_class(outcomes)
    return np.asarray((predicted + true) > 0, dtype=np.float64)


def _precisions(outcomes: MulticlassOutcomes) -> FloatArray:
    right, predicted, _ = _per_class(outcomes)
    return ratio(right, predicted)


def _recalls(outcomes: MulticlassOutcomes) -> FloatArray:
    right, _, true = _per_class(outcomes)
    return ratio(right, true)


def _f1s(outcomes: MulticlassOutcomes) -> FloatArray:
    right, predicted, true = _per_class(outcomes)
    return ratio(2 * right, predicted + true)


@metric("macro_precision", worse="lower", bounds=(0, 1))
def macro_precision(current: MulticlassOutcomes) -> FloatArray:
    """Precision averaged over the classes, every class counting alike.

    Mean of right / predicted over the classes that occur; a class
    never predicted counts as 0. Range 0 to 1. Undefined without labels.

    >>> round(float(macro_precision(MulticlassOutcomes(confusion=[[1, 1], [0, 2]]))), 3)
    0.833
    """
    return _over_classes(_precisions(current), _occurs(current))


@metric("macro_recall", worse="lower", bounds=(0, 1))
def macro_recall(current: MulticlassOutcomes) -> FloatArray:
    """Recall averaged over the classes, every class counting alike.

    Mean of right / true over the classes that occur; a class
    without labels counts as 0. Range 0 to 1. Undefined without labels.

    >>> round(float(macro_recall(MulticlassOutcomes(confusion=[[1, 1], [0, 2]]))), 3)
    0.75
    """
    return _over_classes(_recalls(current), _occurs(current))


@metric("macro_f1", worse="lower", bounds=(0, 1))
def macro_f1(current: MulticlassOutcomes) -> FloatArray:
    """F1 averaged over the classes, every class counting alike.

    Mean of 2 right / (predicted + true) over the classes that occur; a class
    without either counts as 0. Range 0 to 1. Undefined without labels.

    >>> round(float(macro_f1(MulticlassOutcomes(confusion=[[1, 1], [0, 2]]))), 3)
    0.733
    """
    return _over_classes(_f1s(current), _occurs(current))


@metric("weighted_precision", worse="lower", bounds=(0, 1))
def weighted_precision(current: MulticlassOutcomes) -> FloatArray:
    """Precision averaged over the classes, classes weighing by their labels.

    Mean of right / predicted with the shares of the labels as weights; a class
    never predicted counts as 0. Range 0 to 1. Undefined without labels.

    >>> round(float(weighted_precision(MulticlassOutcomes(confusion=[[1, 1], [0, 2]]))), 3)
    0.833
    """
    return _over_classes(_precisions(current), _per_class(current)[2])


@metric("weighted_recall", worse="lower", bounds=(0, 1))
def weighted_recall(current: MulticlassOutcomes) -> FloatArray:
    """Recall averaged over the classes, classes weighing by their labels.

    Mean of right / true with the shares of the labels as weights; a class
    without labels counts as 0. Range 0 to 1. Undefined without labels.

    >>> round(float(weighted_recall(MulticlassOutcomes(confusion=[[1, 1], [0, 2]]))), 3)
    0.75
    """
    return _over_classes(_recalls(current), _per_class(current)[2])


@metric("weighted_f1", worse="lower", bounds=(0, 1))
def weighted_f1(current: MulticlassOutcomes) -> FloatArray:
    """F1 averaged over the classes, classes weighing by their labels.

    Mean of 2 right / (predicted + true) with the shares of the labels as weights; a class
    without either counts as 0. Range 0 to 1. Undefined without labels.

    >>> round(float(weighted_f1(MulticlassOutcomes(confusion=[[1, 1], [0, 2]]))), 3)
    0.733
    """
    return _over_classes(_f1s(current), _per_class(current)[2])


@metric("top_k_accuracy", worse="lower", bounds=(0, 1))
def top_k_accuracy(current: MulticlassOutcomes, *, k: int = 2) -> Proportion:
    """Share of the rows whose class is among the k with the highest scores.

    Rows with rank < k / rows with scores. Range 0 to 1. Undefined without scored labels.

    >>> outcomes = MulticlassOutcomes(confusion=[[0]], ranks=[5, 3, 2])
    >>> float(top_k_accuracy(outcomes).value)
    0.8
    """
    return Proportion(current.ranks[..., :k].sum(axis=-1), current.ranks.sum(axis=-1))


def _one_against_rest(outcomes: MulticlassOutcomes) -> tuple[FloatArray, FloatArray]:
    """Score bins of the rows of each class and of the others, both [..., K, S]."""
    scores = np.asarray(outcomes.scores, dtype=np.float64)
    known = 1.0 if scores.shape[-1] > 1 else np.nan
    return scores[..., 1, :] * known, scores[..., 0, :] * known


def _over_defined(values: FloatArray) -> FloatArray:
    """Mean over the classes for which there is a value."""
    return _over_classes(values, np.asarray(~np.isnan(values), dtype=np.float64))


def _ranked(outcomes: MulticlassOutcomes) -> FloatArray:
    """Labelled rows with scores."""
    return np.asarray(outcomes.ranks.sum(axis=-1))


@metric("roc_auc", worse="lower", bounds=(0, 1))
def multiclass_roc_auc(current: MulticlassOutcomes) -> FloatArray:
    """Area under the ROC curve of each class against the rest, averaged over the classes.

    Mean over the classes that have both kinds of row. Range 0 to 1; 0.5 is chance. Undefined
    without two classes among the labels, or without scores.

    >>> outcomes = MulticlassOutcomes(confusion=[[1, 0], [0, 1]],
    ...     scores=[[[1, 0], [0, 1]], [[1, 0], [0, 1]]])
    >>> float(multiclass_roc_auc(outcomes))
    1.0
    """
    return _over_defined(roc_area(*_one_against_rest(current)).value)


@metric("average_precision", worse="lower", bounds=(0, 1))
def multiclass_average_precision(current: MulticlassOutcomes) -> FloatArray:
    """Average precision of each class against the rest, averaged over the classes.

    Mean over the classes that occur among the labels. Range 0 to 1. Undefined without scored
    labels.

    >>> outcomes = MulticlassOutcomes(confusion=[[1, 0], [0, 1]],
    ...     scores=[[[1, 0], [0, 1]], [[1, 0], [0, 1]]])
    >>> float(multiclass_average_precision(outcomes))
    1.0
    """
    return _over_defined(precision_area(*_one_against_rest(current)))


@metric("log_loss", worse="higher", bounds=(0, inf))
def multiclass_log_loss(current: MulticlassOutcomes) -> Estimate:
    """Mean surprise at the true class, in nats (cross-entropy).

    Mean of -ln(score of the true class). Range 0 to infinity. Undefined without scored labels.

    >>> outcomes = MulticlassOutcomes(confusion=[[2]], ranks=[2],
    ...     log_loss=np.array(1.0), log_loss_squared=np.array(0.5))
    >>> float(multiclass_log_loss(outcomes).value)
    0.5
    """
    return mean(current.log_loss, current.log_loss_squared, _ranked(current))


@metric("brier_score", worse="higher", bounds=(0, 2))
def multiclass_brier_score(current: MulticlassOutcomes) -> Estimate:
    """Mean squared distance of the scores from the truth, summed over the classes.

    Mean of sum over classes of (score - is it the class)**2. Range 0 to 2. Undefined without scored
    labels.

    >>> outcomes = MulticlassOutcomes(confusion=[[2]], ranks=[2],
    ...     brier=np.array(1.0), brier_squared=np.array(0.5))
    >>> float(multiclass_brier_score(outcomes).value)
    0.5
    """
    return mean(current.brier, current.brier_squared, _ranked(current))


@metric("expected_calibration_error", worse="higher", bounds=(0, 1))
def multiclass_expected_calibration_error(current: MulticlassOutcomes) -> FloatArray:
    """How far the top score and its hit rate lie apart, averaged over ten tenths of the score.

    Sum over tenths of |hits - sum of the top scores| / rows. Range 0 to 1. Undefined without
    scored labels.

    >>> outcomes = MulticlassOutcomes(confusion=[[2]], top_counts=[0, 2], top_correct=[0, 1],
    ...     top_confidence=np.array([0, 1.5]))
    >>> float(multiclass_expected_calibration_error(outcomes))
    0.25
    """
    gap = np.abs(current.top_correct - current.top_confidence)
    return ratio(gap.sum(axis=-1), current.top_counts.sum(axis=-1))


@metric("matthews_correlation", worse="lower", bounds=(-1, 1))
def multiclass_matthews_correlation(current: MulticlassOutcomes) -> FloatArray:
    """Correlation of predicted and true class.

    (c s - sum p t) / sqrt((s**2 - sum p**2)(s**2 - sum t**2)), c right rows of s, p and t the rows
    predicted as and of each class. Range -1 to 1; 0 is chance. Undefined when all labels or all
    predictions are one class.

    >>> outcomes = MulticlassOutcomes(confusion=[[3, 1], [1, 3]])
    >>> round(float(multiclass_matthews_correlation(outcomes)), 3)
    0.5
    """
    right, predicted, true = _per_class(current)
    total = true.sum(axis=-1)
    together = right.sum(axis=-1) * total - (predicted * true).sum(axis=-1)
    spread = [np.sqrt(total**2 - (side**2).sum(axis=-1)) for side in (predicted, true)]
    return np.clip(ratio(together, spread[0] * spread[1]), -1, 1)


@metric("cohen_kappa", worse="lower", bounds=(-1, 1))
def multiclass_cohen_kappa(current: MulticlassOutcomes) -> FloatArray:
    """Agreement of predicted and true class beyond what their frequencies give by chance.

    (po - pe) / (1 - pe), po the share of right rows, pe that expected of independent predictions.
    Range -1 to 1; 0 is chance. Undefined when all labels and predictions are one class.

    >>> float(multiclass_cohen_kappa(MulticlassOutcomes(confusion=[[3, 1], [1, 3]])))
    0.5
    """
    right, predicted, true = _per_class(current)
    total = true.sum(axis=-1)
    chance = ratio((predicted * true).sum(axis=-1), total)
    return _kappa(right.sum(axis=-1), chance, total)


# Regression; an error is prediction - label.


@metric("mae", worse="higher", bounds=(0, inf))
def mae(current: RegressionOutcomes) -> Estimate:
    """Mean absolute error, in the label's unit.

    Mean of |error|. Range 0 to infinity. Undefined without labels.

    >>> outcomes = RegressionOutcomes(labelled=2, absolute=[3.0], squared=[5.0])
    >>> float(mae(outcomes).value[0])
    1.5
    """
    return mean(current.absolute, current.squared, np.asarray(current.labelled))


@metric("mse", worse="higher", bounds=(0, inf))
def mse(current: RegressionOutcomes) -> Estimate:
    """Mean squared error, in the label's unit squared.

    Mean of error**2. Range 0 to infinity. Undefined without labels.

    >>> outcomes = RegressionOutcomes(labelled=2, squared=[5.0], quartic=[17.0])
    >>> float(mse(outcomes).value[0])
    2.5
    """
    return mean(current.squared, current.quartic, np.asarray(current.labelled))


@metric("rmse", worse="higher", bounds=(0, inf))
def rmse(current: RegressionOutcomes) -> Estimate:
    """Root of the mean squared error, in the label's unit: large errors weigh more.

    sqrt(mean of error**2); its error by the delta method. Range 0 to infinity. Undefined without
    labels.

    >>> outcomes = RegressionOutcomes(labelled=2, squared=[8.0], quartic=[32.0])
    >>> float(rmse(outcomes).value[0])
    2.0
    """
    squared = mse(current)
    root = np.sqrt(squared.value)
    return Estimate(root, np.where(root == 0, 0, ratio(squared.standard_error, 2 * root)))


@metric("mean_error", worse="either", bounds=(-inf, inf))
def mean_error(current: RegressionOutcomes) -> Estimate:
    """Mean error: above 0 the predictions are too high, below 0 too low.

    Mean of prediction - label. Range: any number. Undefined without labels.

    >>> outcomes = RegressionOutcomes(labelled=2, error=[-1.0], squared=[5.0])
    >>> float(mean_error(outcomes).value[0])
    -0.5
    """
    return mean(current.error, current.squared, np.asarray(current.labelled))


@metric("mape", worse="higher", bounds=(0, inf))
def mape(current: RegressionOutcomes) -> FloatArray:
    """Mean absolute error as a share of the label.

    Mean of |error| / max(|label|, eps), eps = 2.2e-16: labels of 0 make it huge. Range 0 to
    infinity. Undefined without labels.

    >>> float(mape(RegressionOutcomes(labelled=2, percentage=[0.5]))[0])
    0.25
    """
    return ratio(current.percentage, current.labelled)


@metric("wape", worse="higher", bounds=(0, inf))
def wape(current: RegressionOutcomes) -> FloatArray:
    """Absolute error as a share of all labels taken together.

    Sum of |error| / sum of |label|. Range 0 to infinity. Undefined when every label is 0.

    >>> float(wape(RegressionOutcomes(labelled=2, absolute=[3.0], absolute_label=[12.0]))[0])
    0.25
    """
    return ratio(current.absolute, current.absolute_label)


@metric("smape", worse="higher", bounds=(0, 2))
def smape(current: RegressionOutcomes) -> FloatArray:
    """Mean absolute error as a share of the mean of |label| and |prediction|.

    Mean of 2 |error| / (|label| + |prediction|), 0 where both are 0. Range 0 to 2. Undefined
    without labels.

    >>> float(smape(RegressionOutcomes(labelled=2, symmetric=[0.5]))[0])
    0.25
    """
    return ratio(current.symmetric, current.labelled)


@metric("rmsle", worse="higher", bounds=(0, inf))
def rmsle(current: RegressionOutcomes) -> FloatArray:
    """Root mean squared error of the logarithms: how far off the ratio is.

    sqrt(mean of (ln(1 + prediction) - ln(1 + label))**2). Range 0 to infinity. Undefined without
    labels, or where a label or a prediction is -1 or less.

    >>> float(rmsle(RegressionOutcomes(labelled=2, log_squared=[0.5]))[0])
    0.5
    """
    return np.asarray(np.sqrt(ratio(current.log_squared, current.labelled)))


def _label_variation(outcomes: RegressionOutcomes) -> FloatArray:
    """Sum of squared deviations of the labels from their mean."""
    shift = ratio(np.asarray(outcomes.label) ** 2, outcomes.labelled)
    return np.maximum(outcomes.label_squared - shift, 0)


@metric("r2", worse="lower", bounds=(-inf, 1))
def r2(current: RegressionOutcomes) -> FloatArray:
    """Share of the labels' variance that the predictions explain; below 0, worse than their mean.

    1 - sum of error**2 / sum of (label - mean label)**2. Range minus infinity to 1. Undefined
    without labels, or when all labels are equal.

    >>> outcomes = RegressionOutcomes(labelled=2, squared=[1.0], label=[3.0], label_squared=[8.5])
    >>> float(r2(outcomes)[0])
    0.75
    """
    return 1 - ratio(current.squared, _label_variation(current))


@metric("explained_variance", worse="lower", bounds=(-inf, 1))
def explained_variance(current: RegressionOutcomes) -> FloatArray:
    """Share of the labels' variance that the predictions explain, a constant error forgiven.

    1 - var(error) / var(label). Range minus infinity to 1. Undefined without labels, or when all
    labels are equal.

    >>> outcomes = RegressionOutcomes(labelled=2, error=[2.0], squared=[3.0], label=[3.0],
    ...     label_squared=[8.5])
    >>> float(explained_variance(outcomes)[0])
    0.75
    """
    shift = ratio(np.asarray(current.error) ** 2, current.labelled)
    return 1 - ratio(np.maximum(current.squared - shift, 0), _label_variation(current))
