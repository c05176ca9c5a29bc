"""Estimated performance: what the predictions are worth before their labels have come.

A calibrated score is the chance that a row is positive. Summed by decision and score bin, chances
say what the confusion counts are expected to be (CBPE, confidence-based performance estimation).
Two options are common to all metrics here:

- `labels`: "none" estimates from scores alone. "difference" corrects that by how labelled rows
  turned out, within strata of decision and score, so that labels need not arrive at random; with
  all labels in it is the realised value, and its interval has no width. "blend" weighs both by
  their errors.
- `band`: "backtested" is about a 90 % interval, from the errors of earlier windows whose labels
  are in, of the reference and of the traffic. "sampling" is three sampling errors to either side,
  as NannyML has them.

The noise floor is the mean absolute error over these earlier windows. `estimator`, of the accuracy
of a binary task, says what it is estimated by; "best" lets earlier windows choose.

No estimate without labels can see that the same score has come to mean something else (concept
drift): the calibrator is that of the reference. Earlier errors and arriving labels can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, TypeAlias

import numpy as np

from tidegauge.metrics.confidence import (
    above_threshold,
    moved_with_confidence,
    with_raw_scores,
)
from tidegauge.metrics.inputs import (
    BinaryEstimates,
    BinaryOutcomes,
    Estimates,
    FloatArray,
    IntArray,
    MulticlassEstimates,
    MulticlassOutcomes,
    Outcomes,
    RegressionEstimates,
    RegressionOutcomes,
    ratio,
)
from tidegauge.metrics.performance import (
    Confusion,
    confusion,
    macro_f1,
    macro_precision,
    macro_recall,
    multiclass_accuracy,
    precision_area,
    roc_area,
)
from tidegauge.metrics.registry import get, metric, names
from tidegauge.metrics.results import Bracket, Result, Z, value_of
from tidegauge.metrics.significance import student_limit

Labels: TypeAlias = Literal["none", "difference", "blend"]
Band: TypeAlias = Literal["backtested", "sampling"]
Estimator: TypeAlias = Literal["best", "calibrated", "average_confidence", "atc", "doc"]
_Cells: TypeAlias = tuple[Any, Any, Any, Any]  # TP, FN, decided 1 and 0

STRATA = 5  # of each decision, with as many predictions each as score bins allow
SAMPLING_ERRORS = 3  # to either side, NannyML's band
MATURE = 0.95  # share of labels from which a window's errors count
CHOSEN_FROM = 3  # earlier windows from which one estimator is preferred to another
WINDOWS = "backtested_windows"
ESTIMATOR = "estimator"  # the option that says by what something is estimated
STEP = 1e-100  # of a complex derivative, which loses no digit
SMALLEST = 2.220446049250313e-16  # scores are kept this far from 0 and 1 in logarithms


# What is expected, and how far off that may be.


@dataclass(frozen=True, slots=True)
class _Expected:
    """A value from scores alone and one corrected by labels, each with its variance."""

    value: FloatArray
    variance: FloatArray  # of the labels, the chances being right
    corrected: FloatArray
    corrected_variance: FloatArray  # NaN without labels


def _unlabelled(value: FloatArray, variance: FloatArray) -> _Expected:
    """What scores alone say, for those who do not ask for labels."""
    nothing = np.full_like(value, np.nan)
    return _Expected(value, variance, nothing, nothing)


def _past_variance(current: Estimates, variance: FloatArray) -> FloatArray:
    """Mean squared error to expect by earlier windows; the binomial one counts as two of them."""
    return np.asarray((2 * variance + current.past_squared) / (2 + current.past_windows))


def _bracket(
    expected: _Expected,
    current: Estimates,
    sampling: FloatArray,
    *,
    labels: Labels,
    band: Band,
) -> Bracket:
    """Value and limits, as the options have them."""
    tau = _past_variance(current, expected.variance)
    limit = student_limit(current.past_windows + 1)
    own = np.where(np.isnan(expected.corrected), np.nan, expected.corrected_variance)
    trust = np.where(np.isnan(own), 0.0, np.where(tau + own > 0, ratio(tau, tau + own), 1.0))
    if labels == "difference":
        trust = np.where(np.isnan(own), 0.0, 1.0)
    if labels == "none":
        trust = np.zeros_like(trust)
    between = expected.value + trust * (expected.corrected - expected.value)
    value = np.where(trust == 1, expected.corrected, np.where(trust == 0, expected.value, between))
    if band == "sampling":
        half = SAMPLING_ERRORS * sampling
    elif labels == "difference":
        half = np.where(trust == 1, Z * np.sqrt(own), limit * np.sqrt(tau))
    else:  # the variance of a mean of two weighted by their inverse variances
        half = limit * np.sqrt((1 - trust) * tau)
    return Bracket(value, value - half, value + half)


def past_error(reference: Outcomes, current: Estimates, **_: str) -> FloatArray:
    """Mean absolute error of the estimate over earlier windows whose labels are in.

    >>> nothing = BinaryEstimates(rows=[[0], [0]], chances=[[0.0], [0.0]], edges=[0.0, 1.0])
    >>> float(past_error(BinaryOutcomes.from_confusion(tp=1, fp=0, fn=0, tn=0), nothing))
    nan
    """
    return ratio(current.past_absolute, current.past_windows)


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors of estimates in windows whose labels are in: how many, their squares, their sizes."""

    windows: IntArray
    squared: FloatArray
    absolute: FloatArray

    @classmethod
    def of(cls, error: FloatArray) -> Errors:
        """Errors by window; NaN where nothing is known."""
        known = ~np.isnan(error)
        error = np.where(known, error, 0.0)
        return cls(known.astype(np.int64), error**2, np.abs(error))

    @classmethod
    def none(cls) -> Errors:
        """No window."""
        return cls(np.zeros((), np.int64), np.zeros(()), np.zeros(()))

    @classmethod
    def joined(cls, parts: Sequence[Errors]) -> Errors:
        """Windows of several, one after another."""
        each = [(part.windows, part.squared, part.absolute) for part in parts]
        return cls(*(np.concatenate(column) for column in zip(*each, strict=True)))

    def only(self, start: int, n: int) -> Errors:
        """So many windows from one on."""
        part = slice(start, start + n)
        return Errors(self.windows[part], self.squared[part], self.absolute[part])

    @property
    def total(self) -> Errors:
        """All windows together."""
        return Errors(self.windows.sum(), self.squared.sum(), self.absolute.sum())

    def before(self, start: IntArray, end: IntArray, series: IntArray) -> Errors:
        """Sums over the windows of the same series that end before each of them starts, [R]."""
        sums = np.zeros((3, len(start)))
        each = np.stack([self.windows, self.squared, self.absolute])
        for code in np.unique(series):
            own = np.flatnonzero(series == code)
            by_end = own[np.argsort(end[own], kind="stable")]
            upto = np.concatenate([np.zeros((3, 1)), np.cumsum(each[:, by_end], axis=1)], axis=1)
            sums[:, own] = upto[:, np.searchsorted(end[by_end], start[own], side="right")]
        return Errors(sums[0].astype(np.int64), sums[1], sums[2])


def is_backtested(name: str) -> bool:
    """Whether an estimate has a metric of labels to be held against; a user's own may have none.

    >>> is_backtested("estimated_accuracy"), is_backtested("accuracy")
    (True, False)
    """
    if name == WINDOWS:
        return True
    return name.startswith("estimated_") and name.removeprefix("estimated_") in names()


def errors_of(
    label: str, task: str, estimates: Estimates, outcomes: Outcomes, reference: Outcomes
) -> Errors:
    """Errors of a metric's estimate before labels, by window; nothing where labels are due."""
    estimated = get(label)
    form = estimated.form_for(task)
    assert form is not None
    by = {name: value for name, value in estimated.chosen.items() if name == ESTIMATOR}
    by = by if ESTIMATOR in form.options else {}  # all else as it is before labels
    guess = truth = np.zeros(np.shape(estimates.n))
    if estimated.name != WINDOWS:
        realised = get(estimated.name.removeprefix("estimated_")).function_for(task)
        guess = value_of(form.function(reference=reference, current=estimates, **by))
        truth = value_of(realised(current=outcomes))
    share = ratio(outcomes.labelled_rows, estimates.n)
    error = np.where(share >= MATURE, guess - truth, np.nan)
    if estimated.forms[0].scale == "total":
        error = ratio(error, estimates.n)
    return Errors.of(error)


@metric(WINDOWS, worse="lower", bounds=(0, inf), scale="total", family="labels")
def backtested_windows(
    current: BinaryEstimates | MulticlassEstimates | RegressionEstimates,
) -> FloatArray:
    """How many earlier windows, with their labels in, the back-tested bands of estimates rest on.

    Windows of the same width and segment: those of the reference, and those of the traffic that
    ended before. Range 0 to infinity; with fewer than three a band says little. Undefined without
    predictions.

    >>> nothing = BinaryEstimates(estimated_rows=4, rows=[[0], [4]], chances=0.0, edges=[0.0, 1.0],
    ...                           past_windows=12)
    >>> float(backtested_windows(nothing))
    12.0
    """
    known = np.where(current.n > 0, 1.0, np.nan)
    return np.asarray(current.past_windows * known)


# Binary: correction by labels, within strata.


@dataclass(frozen=True, slots=True)
class _Corrected:
    """Positives by decision and bin as labels correct them, and the variance of their sums."""

    chances: FloatArray  # [..., 2, S]
    variance: FloatArray  # [..., 2]: of the positives of each decision, in strata with labels
    blind: FloatArray  # [..., 2]: binomial variance in strata without
    labelled: FloatArray  # [...]: share of the rows


def _stratum_of(rows: IntArray) -> IntArray:
    """Stratum of each score bin, [..., 2, S]: as many rows of a decision in each as bins allow."""
    upto = np.cumsum(rows, axis=-1) - rows / 2
    share = ratio(upto, rows.sum(axis=-1)[..., None])
    stratum: IntArray = np.clip(np.nan_to_num(share) * STRATA, 0, STRATA - 1).astype(np.int64)
    return stratum


def _by_stratum(values: FloatArray | IntArray, stratum: IntArray) -> FloatArray:
    """Sums over strata, [..., 2, S] -> [..., 2, STRATA]."""
    shape = stratum.shape[:-1]
    n = int(np.prod(shape, dtype=np.int64))
    place = np.arange(n)[:, None] * STRATA + stratum.reshape(n, -1)
    spread = np.broadcast_to(values, stratum.shape).ravel()
    sums: FloatArray = np.bincount(place.ravel(), spread, n * STRATA).astype(np.float64)
    return sums.reshape(*shape, STRATA)


def _corrected(current: BinaryEstimates) -> _Corrected:
    """Add to what is expected of waiting rows the mean error of labelled ones of their stratum."""
    rows, chances = current.rows, current.chances
    positives, labelled = current.positives, current.labelled
    expected = current.labelled_chances
    stratum = _stratum_of(rows)
    n_all, n = _by_stratum(rows, stratum), _by_stratum(labelled, stratum)
    off = np.nan_to_num(ratio(_by_stratum(positives - expected, stratum), n))
    waiting = np.maximum(rows - labelled, 0)
    moved = chances - expected + waiting * np.take_along_axis(off, stratum, axis=-1)
    binomial = _binomial(current)
    blind = _by_stratum(binomial, stratum)
    mean_binomial = np.nan_to_num(ratio(blind, n_all))
    squares = (
        positives - 2 * positives * ratio(expected, labelled) + expected * ratio(expected, labelled)
    )
    around = np.maximum(_by_stratum(np.nan_to_num(squares), stratum) - n * off**2, 0)
    spread = ratio(around + mean_binomial, n)  # one row more, of the variance expected
    has_labels = n > 0
    variance = np.where(has_labels, (n_all - n) * ratio(n_all, n) * spread, 0.0)
    total = rows.sum(axis=(-2, -1))
    return _Corrected(
        positives + np.clip(moved, 0, waiting),
        variance.sum(axis=-1),
        np.where(has_labels, 0.0, blind).sum(axis=-1),
        ratio(_all_bins(labelled, current), total),
    )


@metric("unsupported_share", worse="higher", bounds=(0, 1), family="labels")
def unsupported_share(current: BinaryEstimates) -> FloatArray:
    """Share of the predictions that labels say nothing about: those in strata without any label.

    Strata are the fifths of each decision's rows by score. There an estimate that labels correct
    (`labels="difference"` or `"blend"`) stays as it was. Range 0 to 1; 1 before the first label.
    Undefined without scored predictions.

    >>> float(unsupported_share(EXAMPLE[1]))
    1.0
    """
    stratum = _stratum_of(current.rows)
    rows = _by_stratum(current.rows, stratum)
    blind = np.where(_by_stratum(current.labelled, stratum) > 0, 0.0, rows)
    return ratio(blind.sum(axis=(-2, -1)), rows.sum(axis=(-2, -1)))


def _all_bins(values: FloatArray | IntArray, current: BinaryEstimates) -> FloatArray:
    """Sum over decisions and bins; 0 where there are no labels at all."""
    return np.asarray(np.broadcast_to(values, current.rows.shape).sum(axis=(-2, -1)))


def _binomial(current: BinaryEstimates) -> FloatArray:
    """Variance of the positives in each bin, if each is one by its chance, [..., 2, S]."""
    chances = np.asarray(current.chances, dtype=np.float64)
    return np.maximum(chances - np.nan_to_num(ratio(chances**2, current.rows)), 0)


# Binary: confusion counts.


@dataclass(frozen=True, slots=True)
class _Measure:
    """A function of the confusion counts, and what one row adds to it in the reference."""

    of: Callable[[Any, Any, Any, Any], Any]  # of TP, FN, decided 1, decided 0
    row: Callable[[Confusion], tuple[FloatArray, FloatArray]]  # variance, share of the rows


def _share(
    hits: FloatArray, trials: FloatArray, total: FloatArray
) -> tuple[FloatArray, FloatArray]:
    share = ratio(hits, trials)
    return share * (1 - share), ratio(trials, total)


def _row_of_f1(c: Confusion) -> tuple[FloatArray, FloatArray]:
    relevant = c.tp + c.fp + c.fn
    variance, share = _share(c.tp, relevant, c.total)
    return variance * ratio(relevant, c.tp + (c.fp + c.fn) / 2) ** 2, share


_ACCURACY = _Measure(
    lambda tp, fn, ones, zeros: ratio(tp + zeros - fn, ones + zeros),
    lambda c: _share(c.tp + c.tn, c.total, c.total),
)
_PRECISION = _Measure(
    lambda tp, fn, ones, zeros: ratio(tp, ones),
    lambda c: _share(c.tp, c.tp + c.fp, c.total),
)
_RECALL = _Measure(
    lambda tp, fn, ones, zeros: ratio(tp, tp + fn),
    lambda c: _share(c.tp, c.tp + c.fn, c.total),
)
_SPECIFICITY = _Measure(
    lambda tp, fn, ones, zeros: ratio(zeros - fn, zeros - fn + ones - tp),
    lambda c: _share(c.tn, c.tn + c.fp, c.total),
)
_F1 = _Measure(lambda tp, fn, ones, zeros: ratio(2 * tp, tp + fn + ones), _row_of_f1)
_TP = _Measure(
    lambda tp, fn, ones, zeros: ratio(tp, ones + zeros), lambda c: _share(c.tp, c.total, c.total)
)
_FP = _Measure(
    lambda tp, fn, ones, zeros: ratio(ones - tp, ones + zeros),
    lambda c: _share(c.fp, c.total, c.total),
)
_FN = _Measure(
    lambda tp, fn, ones, zeros: ratio(fn, ones + zeros), lambda c: _share(c.fn, c.total, c.total)
)
_TN = _Measure(
    lambda tp, fn, ones, zeros: ratio(zeros - fn, ones + zeros),
    lambda c: _share(c.tn, c.total, c.total),
)


def _cells(chances: FloatArray, rows: IntArray) -> _Cells:
    fn, tp = np.moveaxis(np.asarray(chances.sum(axis=-1), dtype=np.float64), -1, 0)
    zeros, ones = np.moveaxis(np.asarray(rows.sum(axis=-1), dtype=np.float64), -1, 0)
    return tp, fn, ones, zeros


def _slopes(measure: _Measure, cells: _Cells) -> FloatArray:
    """Derivatives by the positives decided 0 and 1, squared, [..., 2]."""
    tp, fn, ones, zeros = cells
    with np.errstate(invalid="ignore"):  # undefined measures
        by_fn = measure.of(tp, fn + 1j * STEP, ones, zeros).imag / STEP
        by_tp = measure.of(tp + 1j * STEP, fn, ones, zeros).imag / STEP
    return np.stack([by_fn, by_tp], axis=-1) ** 2


def _of_cells(
    measure: _Measure,
    reference: BinaryOutcomes,
    current: BinaryEstimates,
    *,
    labels: Labels,
    band: Band,
    guess: FloatArray | None = None,
) -> Bracket:
    """Estimate a function of the confusion counts; errors by the delta method.

    Where a `guess` is given, it is the value before labels; labels correct the counts all the same.
    """
    per_row = current.rows_per_count
    cells = _cells(current.chances, current.rows)
    value = measure.of(*cells) if guess is None else guess
    slopes = _slopes(measure, cells)
    variance = ratio((slopes * _binomial(current).sum(axis=-1)).sum(axis=-1), per_row)
    spread, share = measure.row(confusion(reference))
    sampling = np.sqrt(ratio(spread, share * current.n))
    if labels == "none":
        alone = _unlabelled(value, variance)
        return _bracket(alone, current, sampling, labels=labels, band=band)
    corrected = _corrected(current)
    better = _cells(corrected.chances, current.rows)
    at = _slopes(measure, better)
    excess = ratio(_past_variance(current, variance), variance)  # of errors over binomial ones
    blind = (at * corrected.blind).sum(axis=-1) * np.maximum(np.nan_to_num(excess, nan=1.0), 1.0)
    own = ratio((at * corrected.variance).sum(axis=-1) + blind, per_row)
    own = np.where(corrected.labelled > 0, own, np.nan)
    expected = _Expected(value, variance, measure.of(*better), own)
    return _bracket(expected, current, sampling, labels=labels, band=band)


EXAMPLE = (  # a reference without rows, and sixteen predictions, six of them in the lower score bin
    BinaryOutcomes.from_confusion(tp=0, fp=0, fn=0, tn=0),
    BinaryEstimates(
        estimated_rows=np.array(16),
        rows=np.array([[6, 2], [0, 8]]),
        chances=np.array([[0.6, 1.0], [0.0, 6.0]]),
        edges=np.array([0.0, 0.5, 1.0]),
        log_loss=np.array(8.0),
        brier=np.array(2.4),
    ),
)


@metric("estimated_accuracy", worse="lower", bounds=(0, 1), noise=past_error)
def estimated_accuracy(
    reference: BinaryOutcomes,
    current: BinaryEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
    estimator: Estimator = "best",
) -> Bracket:
    """Share of the decisions that are expected to be right.

    (TP + TN) / all, of expected counts. Range 0 to 1. Undefined without scored predictions. Of
    `estimator`, "calibrated" counts calibrated scores (CBPE), "average_confidence" raw ones; "atc"
    is the share of rows surer than as many of the reference as were right, "doc" the reference's
    accuracy moved with the mean confidence. "best" is calibrated scores, until labels of three or
    more earlier windows of the traffic are in and say that another one was off by less, on average
    and by more than a standard error; `status` then names it.

    >>> float(estimated_accuracy(*EXAMPLE).value)
    0.775

    Source: CBPE; NannyML for the formula and the sampling band.
    """
    guess = None
    if estimator == "average_confidence":
        current = with_raw_scores(current)
    elif estimator == "atc":
        guess = above_threshold(reference, current)
    elif estimator == "doc":
        guess = moved_with_confidence(reference, current)
    return _of_cells(_ACCURACY, reference, current, labels=labels, band=band, guess=guess)


@metric("estimated_precision", worse="lower", bounds=(0, 1), noise=past_error)
def estimated_precision(
    reference: BinaryOutcomes,
    current: BinaryEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Share of the rows decided 1 that are expected to be 1.

    TP / (TP + FP), of expected counts. Range 0 to 1. Undefined when nothing is decided 1.

    >>> float(estimated_precision(*EXAMPLE).value)
    0.75

    Source: CBPE; NannyML for the formula and the sampling band.
    """
    return _of_cells(_PRECISION, reference, current, labels=labels, band=band)


@metric("estimated_recall", worse="lower", bounds=(0, 1), noise=past_error)
def estimated_recall(
    reference: BinaryOutcomes,
    current: BinaryEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Share of the positives that are expected to be decided 1.

    TP / (TP + FN), of expected counts. Range 0 to 1. Undefined when no positive is expected.

    >>> round(float(estimated_recall(*EXAMPLE).value), 3)
    0.789

    Source: CBPE; NannyML for the formula and the sampling band.
    """
    return _of_cells(_RECALL, reference, current, labels=labels, band=band)


@metric("estimated_specificity", worse="lower", bounds=(0, 1), noise=past_error)
def estimated_specificity(
    reference: BinaryOutcomes,
    current: BinaryEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Share of the negatives that are expected to be decided 0.

    TN / (TN + FP), of expected counts. Range 0 to 1. Undefined when no negative is expected.

    >>> round(float(estimated_specificity(*EXAMPLE).value), 3)
    0.762

    Source: CBPE; NannyML for the formula and the sampling band.
    """
    return _of_cells(_SPECIFICITY, reference, current, labels=labels, band=band)


@metric("estimated_f1", worse="lower", bounds=(0, 1), noise=past_error)
def estimated_f1(
    reference: BinaryOutcomes,
    current: BinaryEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Harmonic mean of expected precision and recall.

    2 TP / (2 TP + FP + FN), of expected counts. Range 0 to 1. Undefined when there are neither
    positives to expect nor rows decided 1.

    >>> round(float(estimated_f1(*EXAMPLE).value), 3)
    0.769

    Source: CBPE; NannyML for the formula and the sampling band.
    """
    return _of_cells(_F1, reference, current, labels=labels, band=band)


def _total(
    measure: _Measure,
    reference: BinaryOutcomes,
    current: BinaryEstimates,
    *,
    labels: Labels,
    band: Band,
) -> Bracket:
    """Rows of a cell: its share of the predictions times their number."""
    share = _of_cells(measure, reference, current, labels=labels, band=band)
    return Bracket(*(each * current.n for each in (share.value, share.lower, share.upper)))


@metric("estimated_true_positives", worse="either", bounds=(0, inf), scale="total")
def estimated_true_positives(
    reference: BinaryOutcomes,
    current: BinaryEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Rows decided 1 that are expected to be 1.

    Sum of the chances over rows decided 1. Range 0 to infinity. Undefined without scored
    predictions.

    >>> float(estimated_true_positives(*EXAMPLE).value)
    6.0
    """
    return _total(_TP, reference, current, labels=labels, band=band)


@metric("estimated_false_positives", worse="higher", bounds=(0, inf), scale="total")
def estimated_false_positives(
    reference: BinaryOutcomes,
    current: BinaryEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Rows decided 1 that are expected to be 0.

    Sum of 1 - chance over rows decided 1. Range 0 to infinity. Undefined without scored
    predictions.

    >>> float(estimated_false_positives(*EXAMPLE).value)
    2.0
    """
    return _total(_FP, reference, current, labels=labels, band=band)


@metric("estimated_false_negatives", worse="higher", bounds=(0, inf), scale="total")
def estimated_false_negatives(
    reference: BinaryOutcomes,
    current: BinaryEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Rows decided 0 that are expected to be 1.

    Sum of the chances over rows decided 0. Range 0 to infinity. Undefined without scored
    predictions.

    >>> float(estimated_false_negatives(*EXAMPLE).value)
    1.6
    """
    return _total(_FN, reference, current, labels=labels, band=band)


@metric("estimated_true_negatives", worse="either", bounds=(0, inf), scale="total")
def estimated_true_negatives(
    reference: BinaryOutcomes,
    current: BinaryEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Rows decided 0 that are expected to be 0.

    Sum of 1 - chance over rows decided 0. Range 0 to infinity. Undefined without scored
    predictions.

    >>> float(estimated_true_negatives(*EXAMPLE).value)
    6.4
    """
    return _total(_TN, reference, current, labels=labels, band=band)


# Binary: the scores.


def _of_curve(
    area: Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]],
    current: BinaryEstimates,
    sampling: FloatArray,
    *,
    labels: Labels,
    band: Band,
) -> Bracket:
    """Estimate an area under a curve; `area` gives it and its variance from score bins."""
    per_row = current.rows_per_count
    rows = np.asarray(current.rows, dtype=np.float64).sum(axis=-2)
    known = 1.0 if rows.shape[-1] > 1 else np.nan
    positives = current.chances.sum(axis=-2) * known
    value, variance = area(positives, rows - positives)
    if labels == "none":
        alone = _unlabelled(value, ratio(variance, per_row))
        return _bracket(alone, current, sampling, labels=labels, band=band)
    corrected = _corrected(current)
    better = corrected.chances.sum(axis=-2) * known
    closer, own = area(better, np.maximum(rows - better, 0))
    own = own * ratio(1 - corrected.labelled, corrected.labelled)
    expected = _Expected(value, ratio(variance, per_row), closer, ratio(own, per_row))
    return _bracket(expected, current, sampling, labels=labels, band=band)


def _roc(positives: FloatArray, negatives: FloatArray) -> tuple[FloatArray, FloatArray]:
    area = roc_area(positives, negatives)
    return area.value, area.standard_error**2


def _precision_recall(
    positives: FloatArray, negatives: FloatArray
) -> tuple[FloatArray, FloatArray]:
    area = precision_area(positives, negatives)
    return area, ratio(area * (1 - area), positives.sum(axis=-1))


def _rank_error(reference: BinaryOutcomes, n: IntArray) -> FloatArray:
    """Sampling error of ROC AUC from how the rarer class of the reference ranks in the other."""
    sides = [
        np.asarray(each, np.float64).sum(axis=-2)
        for each in (reference.positives, reference.negatives)
    ]
    totals = [each.sum(axis=-1) for each in sides]
    spread = []
    for own, other in (sides, sides[::-1]):
        share = ratio(other, other.sum(axis=-1)[..., None])
        beaten = np.cumsum(share, axis=-1) - share / 2
        weight = ratio(own, own.sum(axis=-1)[..., None])
        mean = (weight * beaten).sum(axis=-1)
        spread.append(np.maximum((weight * beaten**2).sum(axis=-1) - mean**2, 0))
    rarer = np.where(totals[0] <= totals[1], spread[0], spread[1])
    share = ratio(np.minimum(*totals), totals[0] + totals[1])
    return np.sqrt(ratio(rarer, share * n))


@metric("estimated_roc_auc", worse="lower", bounds=(0, 1), noise=past_error)
def estimated_roc_auc(
    reference: BinaryOutcomes,
    current: BinaryEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Probability with which a positive is expected to score above a negative.

    As `roc_auc`, of expected positives and negatives in each score bin. Range 0 to 1; 0.5 is
    chance. Undefined without scores.

    >>> round(float(estimated_roc_auc(*EXAMPLE).value), 3)
    0.782

    Source: CBPE; NannyML for the sampling band.
    """
    sampling = _rank_error(reference, current.n)
    return _of_curve(_roc, current, sampling, labels=labels, band=band)


@metric("estimated_average_precision", worse="lower", bounds=(0, 1), noise=past_error)
def estimated_average_precision(
    reference: BinaryOutcomes,
    current: BinaryEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Expected area under the precision-recall curve.

    As `average_precision`, of expected positives and negatives in each score bin. Range 0 to 1; the
    share of positives is chance. Undefined without scores.

    >>> round(float(estimated_average_precision(*EXAMPLE).value), 3)
    0.682

    Source: CBPE; Boyd, Eng, Page (2013) for the error that both bands start from.
    """
    positives, negatives = (
        np.asarray(each, dtype=np.float64).sum(axis=-2)
        for each in (reference.positives, reference.negatives)
    )
    variance = _precision_recall(positives, negatives)[1]
    rows = (positives + negatives).sum(axis=-1)
    sampling = np.sqrt(ratio(variance * rows, current.n))
    return _of_curve(_precision_recall, current, sampling, labels=labels, band=band)


def _with_labels(
    losses: tuple[FloatArray, FloatArray, FloatArray], total: FloatArray, n: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean loss of all rows where those with labels have the known one, the others a moved one.

    From the expected sums (all, labelled) and the known one. Also by how much a labelled row is off
    on average, and the rows that wait.
    """
    of_all, of_labelled, known = losses
    off = np.nan_to_num(ratio(known - of_labelled, n))
    waiting = np.maximum(total - n, 0)
    moved = of_all - np.nan_to_num(of_labelled) + waiting * off
    corrected = np.nan_to_num(known) + np.maximum(moved, 0)  # a loss is not negative
    return ratio(corrected, total), off, waiting


def _of_losses(
    losses: tuple[FloatArray, FloatArray, FloatArray],
    leverage: FloatArray,
    current: BinaryEstimates,
    sampling: FloatArray,
    *,
    labels: Labels,
    band: Band,
) -> Bracket:
    """Estimate a mean loss, from its expected sums (all, labelled) and the known one.

    `leverage` is how much the loss of a row in each score bin differs between its two labels.
    """
    of_all = losses[0]
    per_row = current.rows_per_count
    total = np.asarray(current.rows.sum(axis=(-2, -1)), dtype=np.float64)
    n = _all_bins(current.labelled, current)
    binomial = (_binomial(current) * leverage**2).sum(axis=(-2, -1))
    corrected, off, waiting = _with_labels(losses, total, n)
    own, positives = current.labelled_chances, current.positives
    squares = (
        positives
        - 2 * positives * ratio(own, current.labelled)
        + own * ratio(own, current.labelled)
    )
    around = _all_bins(np.nan_to_num(squares * leverage**2), current) - n * off**2
    spread = ratio(np.maximum(around, 0) + ratio(binomial, total), n)
    expected = _Expected(
        ratio(of_all, total),
        ratio(binomial, total**2 * per_row),
        corrected,
        ratio(waiting * spread, total * n * per_row),
    )
    return _bracket(expected, current, sampling, labels=labels, band=band)


def _spread(
    total: FloatArray, squares: FloatArray, reference: BinaryOutcomes, n: IntArray
) -> FloatArray:
    """Sampling error of a mean over n rows, from the spread of the reference's labelled rows."""
    rows = (reference.positives + reference.negatives).sum(axis=(-2, -1))
    variance = ratio(squares, rows) - ratio(total, rows) ** 2
    return np.sqrt(ratio(np.maximum(variance, 0), n))


def _middles(edges: FloatArray) -> FloatArray:
    return np.clip((edges[:-1] + edges[1:]) / 2, SMALLEST, 1 - SMALLEST)


@metric("estimated_log_loss", worse="higher", bounds=(0, inf), noise=past_error)
def estimated_log_loss(
    reference: BinaryOutcomes,
    current: BinaryEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Mean surprise to expect at the labels, in nats.

    Mean of -(c ln s + (1 - c) ln(1 - s)), c the chance and s the score. Range 0 to infinity.
    Undefined without scored predictions.

    >>> float(estimated_log_loss(*EXAMPLE).value)
    0.5
    """
    middle = _middles(current.edges)
    return _of_losses(
        (current.log_loss, current.labelled_log_loss, current.known_log_loss),
        np.log(middle / (1 - middle)),
        current,
        _spread(reference.log_loss, reference.log_loss_squared, reference, current.n),
        labels=labels,
        band=band,
    )


@metric("estimated_brier_score", worse="higher", bounds=(0, 1), noise=past_error)
def estimated_brier_score(
    reference: BinaryOutcomes,
    current: BinaryEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Mean squared distance to expect between score and label.

    Mean of c (1 - s)**2 + (1 - c) s**2, c the chance and s the score. Range 0 to 1. Undefined
    without scored predictions.

    >>> float(estimated_brier_score(*EXAMPLE).value)
    0.15
    """
    return _of_losses(
        (current.brier, current.labelled_brier, current.known_brier),
        1 - 2 * _middles(current.edges),
        current,
        _spread(reference.brier, reference.brier_squared, reference, current.n),
        labels=labels,
        band=band,
    )


# Multiclass: each class against the rest.

CLASS_EXAMPLE = (  # a reference without rows, and ten predictions
    MulticlassOutcomes(confusion=np.zeros((2, 2), np.int64)),
    MulticlassEstimates(
        estimated_rows=np.array(10),
        chances=np.array([[5.0, 1.0], [1.0, 3.0]]),
        score_rows=np.array([[4, 6], [6, 4]]),
        score_chances=np.array([[1.0, 5.0], [1.0, 3.0]]),
        log_loss=np.array(5.0),
        brier=np.array(3.0),
    ),
)


def _of_matrix(
    measure: Callable[[MulticlassOutcomes], Result],
    slopes: Callable[[FloatArray], FloatArray],
    current: MulticlassEstimates,
    sampling: FloatArray,
    *,
    labels: Labels,
    band: Band,
) -> Bracket:
    """Estimate a realised metric of the confusion matrix; corrected within decided classes.

    `slopes` are its derivatives by each count.
    """
    per_row = current.rows_per_count
    value = value_of(measure(MulticlassOutcomes(confusion=current.chances)))
    spread = _of_columns(current.chances, slopes(current.chances))
    variance = ratio(spread.sum(axis=-1), per_row)
    decided = current.decided
    if labels == "none":
        alone = _unlabelled(value, variance)
        return _bracket(alone, current, sampling, labels=labels, band=band)
    known = np.asarray(np.broadcast_to(current.confusion, current.chances.shape))
    n = known.sum(axis=-2)
    has_labels = n > 0
    waiting = np.maximum(decided - n, 0)
    off = np.nan_to_num(ratio(known - current.labelled_chances, n[..., None, :]))
    moved = current.chances - current.labelled_chances + waiting[..., None, :] * off
    better = known + np.clip(moved, 0, waiting[..., None, :])
    corrected = value_of(measure(MulticlassOutcomes(confusion=better)))
    left = _of_columns(better, slopes(better))
    excess = ratio(_past_variance(current, variance), variance)
    blind = left * np.maximum(np.nan_to_num(excess, nan=1.0), 1.0)[..., None]
    own = np.where(has_labels, left * np.nan_to_num(ratio(waiting, n)), blind).sum(axis=-1)
    own = np.where(n.sum(axis=-1) > 0, ratio(own, per_row), np.nan)
    expected = _Expected(value, variance, corrected, own)
    return _bracket(expected, current, sampling, labels=labels, band=band)


def _of_columns(counts: FloatArray, slopes: FloatArray) -> FloatArray:
    """Variance that the truth of the rows of each decided class adds, if it is drawn for each."""
    mean = ratio((counts * slopes).sum(axis=-2), counts.sum(axis=-2))
    around = (counts * slopes**2).sum(axis=-2) - np.nan_to_num(mean) ** 2 * counts.sum(axis=-2)
    return np.asarray(np.maximum(around, 0))


def _accuracy_slopes(counts: FloatArray) -> FloatArray:
    total = counts.sum(axis=(-2, -1))
    return ratio(np.broadcast_to(np.eye(counts.shape[-1]), counts.shape), total[..., None, None])


def _parts_of(
    counts: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Right, decided and true rows of each class; the share of each in the mean; the diagonal."""
    right = np.einsum("...kk->...k", counts)
    decided, true = counts.sum(axis=-2), counts.sum(axis=-1)
    occurs = ((decided + true) > 0) * 1.0
    share = ratio(occurs, occurs.sum(axis=-1)[..., None])
    return right, decided, true, share, np.eye(counts.shape[-1])


def _precision_slopes(counts: FloatArray) -> FloatArray:
    _, decided, _, weight, diagonal = _parts_of(counts)
    return np.asarray(np.nan_to_num(ratio(weight, decided))[..., None] * diagonal)


def _recall_slopes(counts: FloatArray) -> FloatArray:
    right, _, true, weight, diagonal = _parts_of(counts)
    share = np.nan_to_num(ratio(right, true))
    slope = np.nan_to_num(ratio(weight, true))[..., None]
    return np.asarray(slope * (diagonal - share[..., None]))


def _f1_slopes(counts: FloatArray) -> FloatArray:
    right, decided, true, weight, diagonal = _parts_of(counts)
    share = np.nan_to_num(ratio(2 * right, decided + true))
    slope = np.nan_to_num(ratio(weight, decided + true))[..., None]
    return np.asarray(slope * (2 * diagonal - share[..., None]))


def _class_error(
    reference: MulticlassOutcomes,
    row: Callable[[Confusion], tuple[FloatArray, FloatArray]],
    n: IntArray,
) -> FloatArray:
    """Sampling error of a mean over classes, from that of each against the rest."""
    counts = np.asarray(reference.confusion, dtype=np.float64)
    right = np.einsum("...kk->...k", counts)
    fp, fn = counts.sum(axis=-2) - right, counts.sum(axis=-1) - right
    rest = counts.sum(axis=(-2, -1))[..., None] - right - fp - fn
    variance, share = row(Confusion(right, fp, fn, rest))
    errors = ratio(variance, share * n[..., None])
    return np.asarray(np.sqrt(errors.sum(axis=-1)) / counts.shape[-1])


@metric("estimated_accuracy", worse="lower", bounds=(0, 1), noise=past_error)
def estimated_multiclass_accuracy(
    reference: MulticlassOutcomes,
    current: MulticlassEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Share of the rows that are expected to be of the class decided.

    Trace of the expected confusion matrix / all. Range 0 to 1. Undefined without scored
    predictions.

    >>> float(estimated_multiclass_accuracy(*CLASS_EXAMPLE).value)
    0.8

    Source: CBPE; NannyML for the formula and the sampling band.
    """
    counts = np.asarray(reference.confusion, dtype=np.float64)
    right = np.einsum("...kk->...", counts)
    variance, share = _share(right, counts.sum(axis=(-2, -1)), counts.sum(axis=(-2, -1)))
    sampling = np.sqrt(ratio(variance, share * current.n))
    return _of_matrix(
        multiclass_accuracy, _accuracy_slopes, current, sampling, labels=labels, band=band
    )


@metric("estimated_macro_precision", worse="lower", bounds=(0, 1), noise=past_error)
def estimated_macro_precision(
    reference: MulticlassOutcomes,
    current: MulticlassEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Expected precision averaged over the classes, every class counting alike.

    As `macro_precision`, of the expected confusion matrix. Range 0 to 1. Undefined without scored
    predictions.

    >>> round(float(estimated_macro_precision(*CLASS_EXAMPLE).value), 3)
    0.792

    Source: CBPE; NannyML for the formula and the sampling band.
    """
    sampling = _class_error(reference, _PRECISION.row, current.n)
    return _of_matrix(
        macro_precision, _precision_slopes, current, sampling, labels=labels, band=band
    )


@metric("estimated_macro_recall", worse="lower", bounds=(0, 1), noise=past_error)
def estimated_macro_recall(
    reference: MulticlassOutcomes,
    current: MulticlassEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Expected recall averaged over the classes, every class counting alike.

    As `macro_recall`, of the expected confusion matrix. Range 0 to 1. Undefined without scored
    predictions.

    >>> round(float(estimated_macro_recall(*CLASS_EXAMPLE).value), 3)
    0.792

    Source: CBPE; NannyML for the formula and the sampling band.
    """
    sampling = _class_error(reference, _RECALL.row, current.n)
    return _of_matrix(macro_recall, _recall_slopes, current, sampling, labels=labels, band=band)


@metric("estimated_macro_f1", worse="lower", bounds=(0, 1), noise=past_error)
def estimated_macro_f1(
    reference: MulticlassOutcomes,
    current: MulticlassEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Expected F1 averaged over the classes, every class counting alike.

    As `macro_f1`, of the expected confusion matrix. Range 0 to 1. Undefined without scored
    predictions.

    >>> round(float(estimated_macro_f1(*CLASS_EXAMPLE).value), 3)
    0.792

    Source: CBPE; NannyML for the formula and the sampling band.
    """
    sampling = _class_error(
        reference, lambda c: _share(c.tp, c.tp + c.fp + c.fn, c.total), current.n
    )
    return _of_matrix(macro_f1, _f1_slopes, current, sampling, labels=labels, band=band)


@metric("estimated_roc_auc", worse="lower", bounds=(0, 1), noise=past_error)
def estimated_multiclass_roc_auc(
    reference: MulticlassOutcomes, current: MulticlassEstimates
) -> Bracket:
    """Expected area under the ROC curve of each class against the rest, averaged over the classes.

    As `roc_auc`, of expected rows in each score bin; labels do not correct it. Range 0 to 1; 0.5 is
    chance. Undefined without scores.

    >>> round(float(estimated_multiclass_roc_auc(*CLASS_EXAMPLE).value), 3)
    0.792

    Source: CBPE.
    """
    chances = np.asarray(current.score_chances, dtype=np.float64)
    area = roc_area(chances, np.maximum(current.score_rows - chances, 0))
    known = ~np.isnan(area.value)
    n = known.sum(axis=-1)
    value = ratio(np.nan_to_num(area.value).sum(axis=-1), n)
    # as if the classes' errors were one: what they share is not known
    variance = ratio(np.nan_to_num(area.standard_error**2).sum(axis=-1), n * current.rows_per_count)
    alone = _unlabelled(value, variance)
    return _bracket(alone, current, alone.corrected, labels="none", band="backtested")


def _of_class_losses(
    losses: tuple[FloatArray, FloatArray, FloatArray],
    spread: tuple[FloatArray, FloatArray],
    reference: MulticlassOutcomes,
    current: MulticlassEstimates,
    *,
    labels: Labels,
    band: Band,
) -> Bracket:
    """Estimate a mean loss, from its expected sums (all, labelled), the known one, and the spread.

    `spread` holds the loss and its square, summed over the labelled rows of the reference.
    """
    of_all = losses[0]
    total = current.decided.sum(axis=-1)
    known_rows = np.asarray(np.broadcast_to(current.confusion, current.chances.shape))
    n = known_rows.sum(axis=(-2, -1))
    rows = reference.confusion.sum(axis=(-2, -1))
    variance = np.maximum(ratio(spread[1], rows) - ratio(spread[0], rows) ** 2, 0)
    corrected, _, waiting = _with_labels(losses, total, n)
    expected = _Expected(
        ratio(of_all, total),
        ratio(variance, current.n),
        corrected,
        ratio(waiting * variance, total * n * current.rows_per_count),
    )
    sampling = np.sqrt(expected.variance)
    return _bracket(expected, current, sampling, labels=labels, band=band)


@metric("estimated_log_loss", worse="higher", bounds=(0, inf), noise=past_error)
def estimated_multiclass_log_loss(
    reference: MulticlassOutcomes,
    current: MulticlassEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Mean surprise to expect at the true class, in nats.

    Mean of -sum over classes of chance * ln(score). Range 0 to infinity. Undefined without scored
    predictions.

    >>> float(estimated_multiclass_log_loss(*CLASS_EXAMPLE).value)
    0.5
    """
    return _of_class_losses(
        (current.log_loss, current.labelled_log_loss, current.known_log_loss),
        (reference.log_loss, reference.log_loss_squared),
        reference,
        current,
        labels=labels,
        band=band,
    )


@metric("estimated_brier_score", worse="higher", bounds=(0, 2), noise=past_error)
def estimated_multiclass_brier_score(
    reference: MulticlassOutcomes,
    current: MulticlassEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Mean squared distance to expect between the scores and the true class.

    Mean over rows of the sum over classes of score**2, + 1 - 2 * sum of chance * score. Range 0 to
    2. Undefined without scored predictions.

    >>> float(estimated_multiclass_brier_score(*CLASS_EXAMPLE).value)
    0.3
    """
    return _of_class_losses(
        (current.brier, current.labelled_brier, current.known_brier),
        (reference.brier, reference.brier_squared),
        reference,
        current,
        labels=labels,
        band=band,
    )


# Regression: losses that a model of the features expects.

LOSS_EXAMPLE = (  # a reference without rows, and four predictions
    RegressionOutcomes(),
    RegressionEstimates(
        estimated_rows=np.array(4),
        rows=np.array(4.0),
        absolute=np.array(6.0),
        squared=np.array(16.0),
    ),
)


def _of_errors(
    sums: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    variance: FloatArray,
    current: RegressionEstimates,
) -> _Expected:
    """Mean of a loss, from its sums (expected of all and labelled rows, known, distance).

    `variance` is that of a row's loss in the reference.
    """
    of_all, of_labelled, known, distance = sums
    total, n = current.rows, current.labelled
    corrected, off, waiting = _with_labels((of_all, of_labelled, known), total, n)
    around = np.maximum(distance - n * off**2, 0)
    spread = ratio(around + np.nan_to_num(variance), n)  # one row more, of the reference's variance
    return _Expected(
        ratio(of_all, total),
        ratio(variance, current.n),
        corrected,
        ratio(waiting * spread, total * n * current.rows_per_count),
    )


def _variance(squares: FloatArray, total: FloatArray, reference: RegressionOutcomes) -> FloatArray:
    spread = ratio(squares, reference.labelled) - ratio(total, reference.labelled) ** 2
    return np.asarray(np.maximum(spread, 0))


def _absolute(reference: RegressionOutcomes, current: RegressionEstimates) -> _Expected:
    return _of_errors(
        (
            current.absolute,
            current.labelled_absolute,
            current.known_absolute,
            current.off_absolute,
        ),
        _variance(reference.squared, reference.absolute, reference),
        current,
    )


def _squared(reference: RegressionOutcomes, current: RegressionEstimates) -> _Expected:
    return _of_errors(
        (current.squared, current.labelled_squared, current.known_squared, current.off_squared),
        _variance(reference.quartic, reference.squared, reference),
        current,
    )


@metric("estimated_mae", worse="higher", bounds=(0, inf), noise=past_error)
def estimated_mae(
    reference: RegressionOutcomes,
    current: RegressionEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Mean absolute error to expect.

    Mean of what trees say of |prediction - label|, from features and prediction. Range 0 to
    infinity. Undefined without predictions.

    >>> float(estimated_mae(*LOSS_EXAMPLE).value)
    1.5

    Source: direct loss estimation; NannyML for the sampling band.
    """
    expected = _absolute(reference, current)
    sampling = np.sqrt(expected.variance)
    return _bracket(expected, current, sampling, labels=labels, band=band)


@metric("estimated_mse", worse="higher", bounds=(0, inf), noise=past_error)
def estimated_mse(
    reference: RegressionOutcomes,
    current: RegressionEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Mean squared error to expect.

    Mean of what trees say of (prediction - label)**2, from features and prediction. Range 0 to
    infinity. Undefined without predictions.

    >>> float(estimated_mse(*LOSS_EXAMPLE).value)
    4.0

    Source: direct loss estimation; NannyML for the sampling band.
    """
    expected = _squared(reference, current)
    sampling = np.sqrt(expected.variance)
    return _bracket(expected, current, sampling, labels=labels, band=band)


@metric("estimated_rmse", worse="higher", bounds=(0, inf), noise=past_error)
def estimated_rmse(
    reference: RegressionOutcomes,
    current: RegressionEstimates,
    *,
    labels: Labels = "none",
    band: Band = "backtested",
) -> Bracket:
    """Root of the mean squared error to expect.

    Root of `estimated_mse`; its error by the delta method. Range 0 to infinity. Undefined without
    predictions.

    >>> float(estimated_rmse(*LOSS_EXAMPLE).value)
    2.0

    Source: direct loss estimation; NannyML for the sampling band.
    """
    mean = _squared(reference, current)
    roots = [np.sqrt(np.maximum(each, 0)) for each in (mean.value, mean.corrected)]
    variances = [
        ratio(variance, 4 * value)
        for variance, value in (
            (mean.variance, mean.value),
            (mean.corrected_variance, mean.corrected),
        )
    ]
    expected = _Expected(roots[0], variances[0], roots[1], variances[1])
    sampling = np.sqrt(expected.variance)
    return _bracket(expected, current, sampling, labels=labels, band=band)
