"""What a metric may ask for: counts and sums with any leading dimensions that broadcast.

A function's annotations name the inputs it needs. `...` below stands for windows, segments,
columns, or nothing at all; every metric treats those dimensions alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
Counts: TypeAlias = FloatArray | IntArray | list[int]

_NONE: Any = 0  # becomes an array, as every number given to the classes below
_UNKNOWN: Any = np.nan

OTHER_GROUP = "(other)"


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> FloatArray:
    """Quotient that is NaN, without a warning, where the denominator is zero.

    >>> ratio([1, 0], [2, 0])
    array([0.5, nan])
    """
    divisor = np.asarray(denominator)
    quotient: FloatArray = np.asarray(numerator) / np.where(divisor == 0, np.nan, divisor)
    return quotient


def cell_arrays(inputs: object) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Fields of an input that have a row for each cell; edges are shared by all.

    >>> [name for name, _ in cell_arrays(Fine([[1, 3]], [0.0, 1.0, 2.0]))]
    ['counts']
    """
    for each in fields(inputs):  # type: ignore[arg-type]
        value = getattr(inputs, each.name)
        if isinstance(value, np.ndarray) and value.ndim and each.name != "edges":
            yield each.name, value


def taken(array: npt.NDArray[Any], index: IntArray) -> npt.NDArray[Any]:
    """Rows of an array; zeros where the index is negative.

    >>> taken(np.array([5, 6]), np.array([1, -1]))
    array([6, 0])
    """
    if not len(array):
        return np.zeros((len(index), *array.shape[1:]), dtype=array.dtype)
    rows = array[index]
    rows[index < 0] = 0
    return rows


def _accept_lists(inputs: object) -> None:
    """Turn lists and numbers into arrays, so that small examples stay readable."""
    for name, value in vars(inputs).items():
        if not isinstance(value, np.ndarray) and isinstance(value, list | int | float):
            object.__setattr__(inputs, name, np.asarray(value))


@dataclass(frozen=True)
class Bins:
    """Coarse bins of one column: reference deciles or categories, and last of all missing values.

    Bins that are empty on both sides never change a metric, so stacks may be padded with zeros.

    >>> Bins([1, 3, 0]).shares
    array([0.25, 0.75, 0.  ])
    """

    counts: IntArray  # [..., B]

    def __post_init__(self) -> None:
        _accept_lists(self)

    @cached_property
    def n(self) -> IntArray:
        """Rows counted, missing values included."""
        total: IntArray = self.counts.sum(axis=-1)
        return total

    @cached_property
    def shares(self) -> FloatArray:
        """Share of the rows in each bin; NaN where there are none."""
        return ratio(self.counts, self.n[..., None])

    @cached_property
    def present(self) -> Bins:
        """The same bins without the missing one."""
        return Bins(self.counts[..., :-1])


@dataclass(frozen=True)
class Fine:
    """Ordered fine bins of a numeric column; finite values only. Both sides share the edges.

    >>> Fine([1, 3], [0.0, 1.0, 2.0]).cdf
    array([0.25, 1.  ])
    """

    counts: IntArray  # [..., F]
    edges: FloatArray  # [..., F + 1]

    def __post_init__(self) -> None:
        _accept_lists(self)

    @cached_property
    def n(self) -> IntArray:
        """Finite values counted."""
        return self.cumulative[..., -1]

    @cached_property
    def cumulative(self) -> IntArray:
        """Values up to the upper edge of each bin."""
        return np.cumsum(self.counts, axis=-1)

    @cached_property
    def cdf(self) -> FloatArray:
        """Share of the values up to the upper edge of each bin; NaN where there are none."""
        return ratio(self.cumulative, self.n[..., None])

    def gap(self, reference: Fine) -> FloatArray:
        """|F - G| after each bin; remembered, since several metrics start from it."""
        known: tuple[Fine, FloatArray] | None = self.__dict__.get("_gap")
        if known is None or known[0] is not reference:
            gap = self.cdf - reference.cdf
            known = (reference, np.abs(gap, out=gap))
            self.__dict__["_gap"] = known
        return known[1]

    @cached_property
    def middles(self) -> FloatArray:
        """Where the mass of each bin is taken to lie."""
        middles: FloatArray = self.edges[..., :-1] + np.diff(self.edges, axis=-1) / 2
        return middles

    @cached_property
    def gaps(self) -> FloatArray:
        """Distance from the middle of each bin to the middle of the next, [..., F - 1]."""
        return np.diff(self.middles, axis=-1)


@dataclass(frozen=True, kw_only=True)
class ColumnCounts:
    """What the values of one column were; each row is counted under at most one of the names."""

    rows: IntArray  # all rows of the cell
    null: IntArray = _NONE
    nan: IntArray = _NONE
    sentinel: IntArray = _NONE  # a value declared to mean "missing"
    invalid: IntArray = _NONE  # not of the declared type
    absent: IntArray = _NONE  # the batch did not have the column
    below: IntArray = _NONE  # finite, under the limits
    above: IntArray = _NONE  # finite, over the limits
    unseen: IntArray = _NONE  # a category the reference does not know
    broken: IntArray = _NONE  # a rule that does not hold
    positive_infinity: IntArray = _NONE
    negative_infinity: IntArray = _NONE
    distinct: IntArray = _NONE  # fine bins or categories that hold a value
    minimum: FloatArray = _UNKNOWN
    maximum: FloatArray = _UNKNOWN

    def __post_init__(self) -> None:
        _accept_lists(self)

    @property
    def n(self) -> IntArray:
        """Rows counted."""
        return self.rows

    @property
    def infinite(self) -> IntArray:
        """Rows with an infinite value of either sign."""
        return self.positive_infinity + self.negative_infinity

    @property
    def missing(self) -> IntArray:
        """Rows without a value, whatever the reason."""
        return self.null + self.nan + self.sentinel + self.absent


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What arrived, before any column is looked at."""

    rows: IntArray  # accepted
    duplicates: IntArray = _NONE  # rejected: the id had been seen
    new_columns: IntArray = _NONE  # accepted, with columns the schema does not know
    pooled: IntArray = _NONE  # accepted, with a version or segment that counts as "(other)"

    def __post_init__(self) -> None:
        _accept_lists(self)

    @property
    def n(self) -> IntArray:
        """Rows accepted."""
        return self.rows


@dataclass(frozen=True)
class FeatureTests:
    """How surprising each of K features is, features on the last axis; NaN where there is no test.

    >>> FeatureTests([0.2, 0.001], [0.5, np.nan]).beside_windows
    array([0.5  , 0.001])
    """

    by_rows: FloatArray  # [..., K]: p-value if rows were independent
    by_windows: FloatArray  # [..., K]: p-value beside the reference's own windows

    def __post_init__(self) -> None:
        _accept_lists(self)

    @property
    def n(self) -> IntArray:
        """Features that could be tested."""
        tested: IntArray = np.asarray(np.count_nonzero(~np.isnan(self.by_rows), axis=-1))
        return tested

    @property
    def beside_windows(self) -> FloatArray:
        """The larger of both p-values; that of rows where the reference has too few windows."""
        known = ~np.isnan(self.by_windows)
        return np.where(known, np.maximum(self.by_rows, self.by_windows), self.by_rows)


@dataclass(frozen=True)
class RowSamples:
    """Sampled rows, the features of each as numbers and as codes of categories.

    Both are arrays of matrices, one a window: what differs in length does not stack.

    >>> RowSamples.of(np.zeros((3, 2))).n
    array(3)
    """

    numbers: npt.NDArray[np.object_]  # [...] of [n, P], NaN where missing
    categories: npt.NDArray[np.object_]  # [...] of [n, Q], negative where missing

    @classmethod
    def of(cls, numbers: FloatArray, categories: IntArray | None = None) -> RowSamples:
        """One sample."""
        if categories is None:
            categories = np.zeros((len(numbers), 0), dtype=np.int64)
        return cls(matrices([numbers]), matrices([categories])).at(0)

    @property
    def n(self) -> IntArray:
        """Rows sampled."""
        return np.asarray(np.vectorize(len, otypes=[np.int64])(self.numbers))

    def at(self, place: int | tuple[int, ...]) -> RowSamples:
        """The sample at one place, without leading dimensions."""
        own = (array[place] for array in (self.numbers, self.categories))
        return RowSamples(*(matrices([matrix]).reshape(()) for matrix in own))

    def spread(self, shape: tuple[int, ...]) -> RowSamples:
        """The samples broadcast to a shape."""
        both = (self.numbers, self.categories)
        return RowSamples(*(np.broadcast_to(array, shape) for array in both))


def matrices(each: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.object_]:
    """Array of matrices, one a window."""
    out = np.empty(len(each), dtype=object)
    for place, matrix in enumerate(each):
        out[place] = matrix
    return out


@dataclass(frozen=True, kw_only=True)
class Maturity:
    """How many labels ought to have come by now, judged by how long others took."""

    predictions: IntArray
    expected: FloatArray = _UNKNOWN  # predictions, each times the share of labels due at its age

    def __post_init__(self) -> None:
        _accept_lists(self)

    @property
    def n(self) -> IntArray:
        """Predictions."""
        return self.predictions


@dataclass(frozen=True)
class LabelDelays:
    """How long labels took, by bins of their delay; all rows share the edges.

    >>> LabelDelays([1, 3], edges=[0.0, 1.0, 2.0]).n
    array(4)
    """

    counts: IntArray  # [..., B]
    edges: FloatArray  # [B + 1], seconds

    def __post_init__(self) -> None:
        _accept_lists(self)

    @property
    def n(self) -> IntArray:
        """Labels whose delay is known."""
        return np.asarray(self.counts.sum(axis=-1))


@dataclass(frozen=True, kw_only=True)
class _Labelled:
    """What the outcomes of every task have in common.

    With a weight column `labelled` and all other counts are in units of weight * 2**20, and sums
    are multiplied alike; `labelled_rows` alone stays a number of rows.
    """

    predictions: IntArray = _NONE
    labelled: IntArray = _NONE
    labelled_rows: IntArray = _NONE

    def __post_init__(self) -> None:
        _accept_lists(self)

    @property
    def n(self) -> IntArray:
        """Labelled rows."""
        return self.labelled_rows

    @property
    def rows_per_count(self) -> FloatArray:
        """What one unit of the counts is worth in rows: 1 without weights."""
        return ratio(self.labelled_rows, self.labelled)


@dataclass(frozen=True, kw_only=True)
class BinaryOutcomes(_Labelled):
    """Labelled rows by truth, decision and score bin. One score bin means: there are no scores."""

    positives: IntArray  # [..., 2, S]: decision 0 or 1, score bins in ascending order
    negatives: IntArray  # [..., 2, S]
    edges: FloatArray  # [S + 1], from 0 to 1
    log_loss: FloatArray = _UNKNOWN
    log_loss_squared: FloatArray = _UNKNOWN
    brier: FloatArray = _UNKNOWN
    brier_squared: FloatArray = _UNKNOWN
    confidence: FloatArray = _UNKNOWN  # [..., 10]: sum of the scores in each tenth of [0, 1]
    unscored: IntArray = _NONE  # labelled rows without a score: in none of the bins

    @classmethod
    def from_confusion(cls, *, tp: int, fp: int, fn: int, tn: int) -> BinaryOutcomes:
        """Outcomes of four counts, without scores.

        >>> BinaryOutcomes.from_confusion(tp=4, fp=1, fn=2, tn=3).n
        array(10)
        """
        total = np.asarray(tp + fp + fn + tn)
        return cls(
            predictions=total,
            labelled=total,
            labelled_rows=total,
            positives=np.array([[fn], [tp]]),
            negatives=np.array([[tn], [fp]]),
            edges=np.array([0.0, 1.0]),
        )


@dataclass(frozen=True, kw_only=True)
class MulticlassOutcomes(_Labelled):
    """Labelled rows by true and predicted class, and by the score of every class."""

    confusion: IntArray | FloatArray  # [..., K, K]: true class, predicted class
    classes: tuple[str, ...] = ()
    # [..., K]: rank of the true class by score, 0 = top
    ranks: IntArray = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    # [..., K, 2, S]: class, is it the true one, score bin
    scores: IntArray = field(default_factory=lambda: np.zeros((1, 2, 1), dtype=np.int64))
    edges: FloatArray = _UNKNOWN  # [S + 1]
    log_loss: FloatArray = _UNKNOWN
    log_loss_squared: FloatArray = _UNKNOWN
    brier: FloatArray = _UNKNOWN
    brier_squared: FloatArray = _UNKNOWN
    top_confidence: FloatArray = _UNKNOWN  # [..., 10]: sum of the top score in each of its tenths
    top_counts: IntArray = _NONE  # [..., 10]
    top_correct: IntArray = _NONE  # [..., 10]


@dataclass(frozen=True, kw_only=True)
class RegressionOutcomes(_Labelled):
    """Sums over labelled rows; error = prediction - label."""

    error: FloatArray = _UNKNOWN
    absolute: FloatArray = _UNKNOWN
    squared: FloatArray = _UNKNOWN
    quartic: FloatArray = _UNKNOWN
    label: FloatArray = _UNKNOWN  # of label - center
    label_squared: FloatArray = _UNKNOWN  # of (label - center) ** 2
    absolute_label: FloatArray = _UNKNOWN
    percentage: FloatArray = _UNKNOWN  # |error| / max(|label|, eps)
    log_squared: FloatArray = _UNKNOWN  # (log1p(label) - log1p(prediction)) ** 2
    symmetric: FloatArray = _UNKNOWN  # 2 |error| / (|label| + |prediction|)
    center: float = 0.0


@dataclass(frozen=True, kw_only=True)
class _Estimated:
    """What the estimates of every task have in common: how they came out in earlier windows.

    Errors are estimate - realised, of windows whose labels are in; the metric is the one asked for.
    """

    estimated_rows: IntArray = _NONE  # rows with a decision and scores
    past_windows: IntArray = _NONE
    past_squared: FloatArray = _NONE  # sum of the squared errors
    past_absolute: FloatArray = _NONE

    def __post_init__(self) -> None:
        _accept_lists(self)

    @property
    def n(self) -> IntArray:
        """Rows with an estimate."""
        return self.estimated_rows


@dataclass(frozen=True, kw_only=True)
class BinaryEstimates(_Estimated):
    """Predictions by decision and score bin, the positives expected among them, and known ones."""

    rows: IntArray  # [..., 2, S]: decision 0 or 1, score bins in ascending order
    chances: FloatArray  # [..., 2, S]: sum of the calibrated scores
    edges: FloatArray  # [S + 1], from 0 to 1
    positives: IntArray = _NONE  # [..., 2, S]: labelled rows that are 1
    negatives: IntArray = _NONE
    labelled_chances: FloatArray = _NONE  # [..., 2, S]: sum of the calibrated scores of these
    log_loss: FloatArray = _UNKNOWN  # expected of all rows
    brier: FloatArray = _UNKNOWN
    labelled_log_loss: FloatArray = _UNKNOWN  # expected of labelled rows
    labelled_brier: FloatArray = _UNKNOWN
    known_log_loss: FloatArray = _UNKNOWN  # what labelled rows turned out to have
    known_brier: FloatArray = _UNKNOWN

    @property
    def labelled(self) -> IntArray:
        """Labelled rows, [..., 2, S]."""
        return np.asarray(self.positives + self.negatives)

    @property
    def rows_per_count(self) -> FloatArray:
        """What one unit of the counts is worth in rows: 1 without weights."""
        return ratio(self.n, self.rows.sum(axis=(-2, -1)))


@dataclass(frozen=True, kw_only=True)
class MulticlassEstimates(_Estimated):
    """Predictions by decided class and the truth expected of them; those that are known; scores."""

    chances: FloatArray  # [..., K, K]: expected true class, decided class
    labelled_chances: FloatArray = _NONE  # the same of labelled rows
    confusion: IntArray | FloatArray = _NONE  # [..., K, K]: true, decided class of labelled rows
    score_rows: IntArray = _NONE  # [..., K, S]: all rows by their score of each class
    score_chances: FloatArray = _NONE  # [..., K, S]: sum of that class's chance
    log_loss: FloatArray = _UNKNOWN  # as in BinaryEstimates
    brier: FloatArray = _UNKNOWN
    labelled_log_loss: FloatArray = _UNKNOWN
    labelled_brier: FloatArray = _UNKNOWN
    known_log_loss: FloatArray = _UNKNOWN
    known_brier: FloatArray = _UNKNOWN

    @property
    def decided(self) -> FloatArray:
        """Rows by decided class, [..., K]: chances of a row add up to one, but for rounding."""
        return np.asarray(np.rint(self.chances.sum(axis=-2)))

    @property
    def rows_per_count(self) -> FloatArray:
        """What one unit of the counts is worth in rows: 1 without weights."""
        return ratio(self.n, self.decided.sum(axis=-1))


@dataclass(frozen=True, kw_only=True)
class RegressionEstimates(_Estimated):
    """Sums of the errors that a model expects of predictions, and of those that are known."""

    rows: FloatArray  # rows, or their weights
    absolute: FloatArray  # expected of all rows
    squared: FloatArray
    labelled: FloatArray = _NONE  # rows with a label
    labelled_absolute: FloatArray = _NONE  # expected of these
    labelled_squared: FloatArray = _NONE
    known_absolute: FloatArray = _NONE  # what they turned out to have
    known_squared: FloatArray = _NONE
    off_absolute: FloatArray = _NONE  # squared distance of the two
    off_squared: FloatArray = _NONE

    @property
    def rows_per_count(self) -> FloatArray:
        """What one unit of the counts is worth in rows: 1 without weights."""
        return ratio(self.n, self.rows)


@dataclass(frozen=True)
class GroupDecisions:
    """Decisions on the groups of a protected attribute, groups on the last axis; needs no labels.

    >>> GroupDecisions(names=("F", "M"), decided=[10, 20], selected=[2, 8]).n
    np.int64(30)
    """

    names: tuple[str, ...]  # of the G groups
    decided: FloatArray  # [..., G]: rows with a decision
    selected: FloatArray  # [..., G]: decided 1

    def __post_init__(self) -> None:
        _accept_lists(self)

    @property
    def n(self) -> FloatArray:
        """Rows with a decision, all groups."""
        total: FloatArray = self.decided.sum(axis=-1)
        return total

    @property
    def counts(self) -> list[FloatArray]:
        """Every array of groups, in the order in which the class takes them."""
        arrays = [getattr(self, each.name) for each in fields(self) if each.name != "names"]
        return [array for array in arrays if array.ndim >= self.decided.ndim > 0]

    def pooled(self, minimum: int) -> Self:
        """Put the groups with fewer than `minimum` decisions together, as one more at the end.

        >>> groups = GroupDecisions(names=("a", "b", "c"), decided=[50, 9, 8], selected=[5, 1, 2])
        >>> groups.pooled(10).decided
        array([50,  0,  0, 17])
        """
        small = self.decided < minimum
        axis = small.ndim - 1

        def pool(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
            rare = small if counts.ndim == small.ndim else small[..., None]
            other = np.where(rare, counts, 0).sum(axis=axis, keepdims=True)
            return np.concatenate([np.where(rare, 0, counts), other], axis=axis)

        counted = {each.name: getattr(self, each.name) for each in fields(self)}
        of_groups = {name: a for name, a in counted.items() if name != "names"}
        arrays = {name: pool(a) for name, a in of_groups.items() if np.ndim(a) > axis}
        return replace(self, names=(*self.names, OTHER_GROUP), **arrays)


@dataclass(frozen=True)
class GroupOutcomes(GroupDecisions):
    """Decisions on the groups of a protected attribute, and what the labels say of them."""

    tp: FloatArray  # [..., G]
    fp: FloatArray
    fn: FloatArray
    tn: FloatArray
    # [..., G, 10]: labelled rows by tenth of the score, positives among them, sum of their scores
    scored: FloatArray = _NONE
    positive: FloatArray = _NONE
    score_sum: FloatArray = _NONE

    @classmethod
    def from_confusion(
        cls, names: tuple[str, ...], *, tp: Counts, fp: Counts, fn: Counts, tn: Counts
    ) -> GroupOutcomes:
        """Outcomes of four counts a group, all rows labelled.

        >>> GroupOutcomes.from_confusion(("F", "M"), tp=[1, 2], fp=[0, 1], fn=[1, 1], tn=[2, 2]).n
        np.float64(10.0)
        """
        counts = [np.asarray(each, dtype=np.float64) for each in (tp, fp, fn, tn)]
        selected = counts[0] + counts[1]
        decided = selected + counts[2] + counts[3]
        return cls(names, decided, selected, *counts)

    @property
    def decisions(self) -> GroupDecisions:
        """What is known without labels."""
        return GroupDecisions(names=self.names, decided=self.decided, selected=self.selected)

    @property
    def predictions(self) -> FloatArray:
        """Rows with a decision, all groups."""
        return self.decisions.n

    @property
    def n(self) -> FloatArray:
        """Labelled rows with a decision, all groups."""
        total: FloatArray = (self.tp + self.fp + self.fn + self.tn).sum(axis=-1)
        return total


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Labelled rows that the champion and a challenger have predicted under one id.

    With a weight column counts are in units of weight * 2**20, and sums are multiplied alike.
    """

    labelled_rows: IntArray
    right: IntArray  # [..., 2, 2]: champion right, challenger right; of values: no less close

    def __post_init__(self) -> None:
        _accept_lists(self)

    @property
    def n(self) -> IntArray:
        """Pairs."""
        return self.labelled_rows

    @property
    def labelled(self) -> IntArray:
        """Pairs, in units of weight."""
        total: IntArray = self.right.sum(axis=(-2, -1))
        return total

    @property
    def rows_per_count(self) -> FloatArray:
        """What one unit of the counts is worth in rows: 1 without weights."""
        return ratio(self.labelled_rows, self.labelled)


@dataclass(frozen=True, kw_only=True)
class PairedDecisions(Pairs):
    """Decisions of two versions on the same rows; sums are of challenger - champion.

    Without scores there are no losses: their sums are NaN.
    """

    log_loss: FloatArray = _UNKNOWN
    log_loss_squared: FloatArray = _UNKNOWN
    brier: FloatArray = _UNKNOWN
    brier_squared: FloatArray = _UNKNOWN

    @classmethod
    def from_counts(
        cls, *, both: int, champion: int, challenger: int, neither: int
    ) -> PairedDecisions:
        """Pairs by who was right, without scores.

        >>> PairedDecisions.from_counts(both=6, champion=1, challenger=2, neither=1).n
        array(10)
        """
        total = both + champion + challenger + neither
        return cls(
            labelled_rows=np.asarray(total),
            right=np.array([[neither, challenger], [champion, both]]),
        )


@dataclass(frozen=True, kw_only=True)
class PairedValues(Pairs):
    """Values of two versions for the same rows; sums are of challenger - champion."""

    absolute: FloatArray = _UNKNOWN
    absolute_squared: FloatArray = _UNKNOWN
    squared: FloatArray = _UNKNOWN
    squared_squared: FloatArray = _UNKNOWN


@dataclass(frozen=True)
class GroupEstimates(GroupDecisions):
    """Decisions on the groups of a protected attribute, and what is expected of their labels.

    Chances within a group follow its own labels in the reference where these say something else
    than those of all. Errors of earlier windows are those of the metric that is asked for.
    """

    tp: FloatArray  # [..., G]: expected
    fp: FloatArray
    fn: FloatArray
    tn: FloatArray
    past_windows: IntArray = _NONE  # [...]
    past_squared: FloatArray = _NONE
    past_absolute: FloatArray = _NONE

    @classmethod
    def from_confusion(
        cls, names: tuple[str, ...], *, tp: Counts, fp: Counts, fn: Counts, tn: Counts
    ) -> GroupEstimates:
        """Estimates of four expected counts a group.

        >>> GroupEstimates.from_confusion(("F",), tp=[1], fp=[0], fn=[1], tn=[2]).n
        np.float64(4.0)
        """
        made = GroupOutcomes.from_confusion(names, tp=tp, fp=fp, fn=fn, tn=tn)
        return cls(names, made.decided, made.selected, made.tp, made.fp, made.fn, made.tn)

    @property
    def outcomes(self) -> GroupOutcomes:
        """The same counts as if labels had shown them."""
        return GroupOutcomes(
            self.names, self.decided, self.selected, self.tp, self.fp, self.fn, self.tn
        )

    @property
    def predictions(self) -> FloatArray:
        """Rows with a decision, all groups."""
        total: FloatArray = self.decided.sum(axis=-1)
        return total

    @property
    def n(self) -> FloatArray:
        """Rows with an estimate, all groups."""
        total: FloatArray = np.rint((self.tp + self.fp + self.fn + self.tn).sum(axis=-1))
        return total


Outcomes: TypeAlias = BinaryOutcomes | MulticlassOutcomes | RegressionOutcomes
Estimates: TypeAlias = BinaryEstimates | MulticlassEstimates | RegressionEstimates

COLUMN_INPUTS: tuple[type, ...] = (Bins, Fine, ColumnCounts)
MODEL_INPUTS: tuple[type, ...] = (Traffic, FeatureTests, RowSamples)
GROUP_INPUTS: tuple[type, ...] = (GroupDecisions, GroupOutcomes, GroupEstimates)
JOINED_INPUTS: tuple[type, ...] = (Maturity, LabelDelays, PairedDecisions, PairedValues)

PAIRS: dict[str, type] = {
    "binary": PairedDecisions,
    "multiclass": PairedDecisions,
    "regression": PairedValues,
}

TASKS: dict[str, type] = {
    "binary": BinaryOutcomes,
    "multiclass": MulticlassOutcomes,
    "regression": RegressionOutcomes,
}
ESTIMATES: dict[str, type] = {
    "binary": BinaryEstimates,
    "multiclass": MulticlassEstimates,
    "regression": RegressionEstimates,
}  # what needs no labels but those there are
