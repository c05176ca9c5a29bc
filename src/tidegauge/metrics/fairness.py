"""Fairness: how differently the groups of a protected attribute are treated.

All metrics are functions of counts per group. A gap between the extremes of many groups grows by
chance alone, so it carries as noise floor the gap to expect of groups that are treated alike, and
its interval is widened for the number of pairs; a value of one group is set against the other
groups, with an interval widened for the number of groups. Groups with fewer than `minimum`
decisions are pooled into "(other)".

Estimated gaps carry, as other estimates, an interval of about 90 % from the errors of earlier
windows whose labels are in; with `band="sampling"` that of the counts, if labels came as expected.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from statistics import NormalDist
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from tidegauge.metrics.inputs import (
    FloatArray,
    GroupDecisions,
    GroupEstimates,
    GroupOutcomes,
    ratio,
)
from tidegauge.metrics.registry import metric
from tidegauge.metrics.results import Bracket, PerGroup, Z, newcombe, wilson
from tidegauge.metrics.significance import student_limit

Method: TypeAlias = Literal["between_groups", "to_overall"]
Band: TypeAlias = Literal["backtested", "sampling"]

MINIMUM = 30  # decisions of a group that stands by itself


@dataclass(frozen=True, slots=True)
class Rates:
    """A share of each group: `hits` of `trials`, both [..., G]."""

    hits: FloatArray
    trials: FloatArray

    @property
    def share(self) -> FloatArray:
        """Share in each group; NaN in a group without trials."""
        return ratio(self.hits, self.trials)

    @property
    def total(self) -> Rates:
        """All groups together, [..., 1]."""
        return Rates(self.hits.sum(axis=-1, keepdims=True), self.trials.sum(axis=-1, keepdims=True))

    @property
    def rest(self) -> Rates:
        """For each group, all the others together."""
        total = self.total
        return Rates(total.hits - self.hits, total.trials - self.trials)

    @property
    def n_present(self) -> npt.NDArray[np.int64]:
        """Number of groups with trials, [...]."""
        return np.asarray((self.trials > 0).sum(axis=-1))

    def at(self, group: npt.NDArray[np.int64]) -> Rates:
        """One group of each row: [...] -> [..., 1]."""
        index = group[..., None]
        return Rates(
            np.take_along_axis(self.hits, index, axis=-1),
            np.take_along_axis(self.trials, index, axis=-1),
        )

    @property
    def extremes(self) -> tuple[Rates, Rates]:
        """The groups with the lowest and with the highest share, [..., 1] each."""
        share = self.share
        known = ~np.isnan(share)
        lowest = np.where(known, share, inf).argmin(axis=-1)
        highest = np.where(known, share, -inf).argmax(axis=-1)
        return self.at(lowest), self.at(highest)


def selection(groups: GroupDecisions) -> Rates:
    """Decided 1, of all decisions; needs no labels."""
    return Rates(groups.selected, groups.decided)


def sensitivity(groups: GroupOutcomes) -> Rates:
    """Decided 1, of the positives."""
    return Rates(groups.tp, groups.tp + groups.fn)


def fall_out(groups: GroupOutcomes) -> Rates:
    """Decided 1, of the negatives."""
    return Rates(groups.fp, groups.fp + groups.tn)


def precision(groups: GroupOutcomes) -> Rates:
    """Positive, of those decided 1."""
    return Rates(groups.tp, groups.tp + groups.fp)


def omission(groups: GroupOutcomes) -> Rates:
    """Positive, of those decided 0."""
    return Rates(groups.fn, groups.fn + groups.tn)


def correct(groups: GroupOutcomes) -> Rates:
    """Decided as the label says, of all labelled."""
    return Rates(groups.tp + groups.tn, groups.tp + groups.fp + groups.fn + groups.tn)


# Intervals of two shares.


def z_for(comparisons: npt.NDArray[np.int64]) -> FloatArray:
    """Half of a 95 % interval that holds for so many comparisons at once (Bonferroni).

    >>> z_for(np.array([1, 10])).round(2)
    array([1.96, 2.81])
    """
    quantile = NormalDist().inv_cdf
    distinct, place = np.unique(comparisons, return_inverse=True)
    known = np.array([quantile(1 - 0.025 / max(int(count), 1)) for count in distinct])
    return known[place].reshape(comparisons.shape)


def difference(high: Rates, low: Rates, z: FloatArray) -> Bracket:
    """Share of `high` less that of `low`, with Newcombe's limits.

    >>> gap = difference(Rates(np.array(56), np.array(70)), Rates(np.array(48), np.array(80)), 1.96)
    >>> gap.value.round(4), gap.lower.round(4), gap.upper.round(4)
    (np.float64(0.2), np.float64(0.0524), np.float64(0.3339))
    """
    p, q = high.share, low.share
    around_p, around_q = (wilson(rates.share, rates.trials, z) for rates in (high, low))
    return Bracket(p - q, *newcombe(p, around_p, q, around_q))


def quotient(low: Rates, high: Rates, z: FloatArray) -> Bracket:
    """Share of `low` over that of `high`, with the limits of its logarithm, halves added.

    >>> fraction = quotient(Rates(np.array(20), np.array(100)), Rates(np.array(40), np.array(100)),
    ...                     1.96)
    >>> fraction.value, fraction.lower.round(3), fraction.upper.round(3)
    (np.float64(0.5), np.float64(0.322), np.float64(0.797))
    """
    a, n, b, m = (each + 0.5 for each in (low.hits, low.trials, high.hits, high.trials))
    centre, error = np.log(a / n) - np.log(b / m), np.sqrt(1 / a - 1 / n + 1 / b - 1 / m)
    known = (low.trials > 0) & (high.trials > 0)
    limits = [np.where(known, np.exp(centre + side * z * error), np.nan) for side in (-1, 1)]
    return Bracket(ratio(low.share, high.share), *limits)


# From the extremes of the groups to one value for the attribute.


def _gap(rates: Rates, method: Method) -> Bracket:
    """Distance between the extreme groups, or the largest distance of a group from all."""
    present = rates.n_present
    if method == "between_groups":
        low, high = rates.extremes
        gap = difference(high, low, z_for(present * (present - 1) // 2)[..., None])
    else:
        distance = np.abs(rates.share - rates.total.share)
        farthest = rates.at(np.where(np.isnan(distance), -inf, distance).argmax(axis=-1))
        gap = difference(farthest, rates.total, z_for(present)[..., None])
        flip = gap.value < 0
        gap = Bracket(
            np.abs(gap.value),
            np.where(flip, -gap.upper, gap.lower),
            np.where(flip, -gap.lower, gap.upper),
        )
    return _squeezed(gap, present > 1, least=0.0)


def _fraction(rates: Rates, method: Method) -> Bracket:
    """Lowest share over the highest, or the least of a share over that of all and its inverse."""
    present = rates.n_present
    if method == "between_groups":
        low, high = rates.extremes
        fraction = quotient(low, high, z_for(present * (present - 1) // 2)[..., None])
    else:
        z = z_for(present)[..., None]
        below, above = quotient(rates, rates.total, z), quotient(rates.total, rates, z)
        worst = _chosen(~(below.value > above.value), below, above)
        place = np.where(np.isnan(worst.value), inf, worst.value).argmin(axis=-1)[..., None]
        fraction = Bracket(*(np.take_along_axis(each, place, axis=-1) for each in _parts(worst)))
    return _squeezed(fraction, present > 1, most=1.0)


def _parts(bracket: Bracket) -> tuple[FloatArray, FloatArray, FloatArray]:
    return bracket.value, bracket.lower, bracket.upper


def _chosen(first: npt.NDArray[np.bool_], one: Bracket, other: Bracket) -> Bracket:
    """One bracket where `first` says so, else the other."""
    return Bracket(
        *(np.where(first, a, b) for a, b in zip(_parts(one), _parts(other), strict=True))
    )


def _squeezed(
    bracket: Bracket, known: npt.NDArray[np.bool_], *, least: float = -inf, most: float = inf
) -> Bracket:
    """Drop the axis of the groups; NaN where fewer than two of them are there."""
    value, lower, upper = (np.where(known, each[..., 0], np.nan) for each in _parts(bracket))
    return Bracket(value, np.maximum(lower, least), np.minimum(upper, most))


# What a gap would be without any difference.

_STEPS = np.linspace(-8.0, 8.0, 1601)
_NORMAL = np.array([NormalDist().cdf(step) for step in _STEPS])


def expected_gap(rates: Rates) -> FloatArray:
    """Mean distance between the extreme groups when all of them have the pooled share.

    Shares are taken as normal with the variance of their own number of trials; the mean of the
    range of independent variables is the integral of 1 - prod F - prod (1 - F).

    >>> expected_gap(Rates(np.array([50.0, 50.0]), np.array([100.0, 100.0]))).round(4)
    np.float64(0.0564)
    """
    share = rates.total.share
    spread = np.sqrt(share * (1 - share) * ratio(1.0, rates.trials))
    widest = np.nanmax(np.where(np.isnan(spread), 0.0, spread), axis=-1, keepdims=True)
    steps = _STEPS[::4]
    inside = np.zeros(spread.shape[:-1])
    below = np.ones((*inside.shape, steps.size))
    above = np.ones_like(below)
    for group in range(spread.shape[-1]):
        scaled = steps * ratio(widest, spread[..., group, None])
        known = ~np.isnan(scaled)
        normal = np.interp(np.where(known, scaled, 0.0), _STEPS, _NORMAL)
        below *= np.where(known, normal, 1.0)
        above *= np.where(known, 1 - normal, 1.0)
    area = (1 - below - above).sum(axis=-1) * (steps[1] - steps[0]) * widest[..., 0]
    return np.asarray(np.where(rates.n_present > 1, area, np.nan))


def _chance(rates: Callable[[GroupOutcomes], Rates]) -> Callable[..., FloatArray]:
    """Noise floor of a gap between groups."""

    def noise(
        current: GroupOutcomes, *, method: Method = "between_groups", minimum: int = MINIMUM
    ) -> FloatArray:
        return expected_gap(rates(current.pooled(minimum)))

    return noise


# Gaps between the extreme groups, one value for the attribute.


@metric("demographic_parity_difference", worse="higher", bounds=(0, 1), noise=_chance(selection))
def demographic_parity_difference(
    current: GroupDecisions, *, method: Method = "between_groups", minimum: int = MINIMUM
) -> Bracket:
    """How far apart the shares of favourable decisions lie among the groups.

    max - min of the selection rate, P(decision = 1); with method "to_overall" the largest distance
    from the rate of all groups together. Range 0 to 1, 0 means parity. Needs no labels. Undefined
    with fewer than two groups. The interval is Newcombe's for the extreme pair, widened for all
    pairs.

    >>> two = GroupDecisions(names=("F", "M"), decided=[100, 200], selected=[20, 80])
    >>> demographic_parity_difference(two).value.round(3)
    np.float64(0.2)

    Source: Fairlearn, `demographic_parity_difference`; Newcombe (1998).
    """
    return _gap(selection(current.pooled(minimum)), method)


@metric("demographic_parity_ratio", worse="lower", bounds=(0, 1))
def demographic_parity_ratio(
    current: GroupDecisions, *, method: Method = "between_groups", minimum: int = MINIMUM
) -> Bracket:
    """The lowest share of favourable decisions among the groups over the highest.

    min / max of the selection rate; with method "to_overall" the least of rate over overall rate
    and its inverse. Range 0 to 1, 1 means parity; 0.8 is the four-fifths rule. Needs no labels.
    Undefined with fewer than two groups, or where nothing is selected.

    >>> two = GroupDecisions(names=("F", "M"), decided=[100, 200], selected=[20, 80])
    >>> demographic_parity_ratio(two).value.round(3)
    np.float64(0.5)

    Source: Fairlearn, `demographic_parity_ratio`.
    """
    return _fraction(selection(current.pooled(minimum)), method)


@metric("equal_opportunity_difference", worse="higher", bounds=(0, 1), noise=_chance(sensitivity))
def equal_opportunity_difference(
    current: GroupOutcomes, *, method: Method = "between_groups", minimum: int = MINIMUM
) -> Bracket:
    """How far apart the groups lie in the share of their positives that is found.

    max - min of the true positive rate, TP / (TP + FN). Range 0 to 1, 0 means equal opportunity.
    Undefined with fewer than two groups with positives.

    >>> two = GroupOutcomes.from_confusion(
    ...     ("F", "M"), tp=[30, 40], fn=[10, 10], fp=[20, 10], tn=[30, 30]
    ... )
    >>> equal_opportunity_difference(two).value.round(3)
    np.float64(0.05)

    Source: Hardt, Price, Srebro (2016); Fairlearn, `equal_opportunity_difference`.
    """
    return _gap(sensitivity(current.pooled(minimum)), method)


@metric("equal_opportunity_ratio", worse="lower", bounds=(0, 1))
def equal_opportunity_ratio(
    current: GroupOutcomes, *, method: Method = "between_groups", minimum: int = MINIMUM
) -> Bracket:
    """The lowest true positive rate among the groups over the highest.

    min / max of TP / (TP + FN). Range 0 to 1, 1 means equal opportunity. Undefined with fewer than
    two groups with positives, or where none is found.

    >>> two = GroupOutcomes.from_confusion(
    ...     ("F", "M"), tp=[30, 40], fn=[10, 10], fp=[20, 10], tn=[30, 30]
    ... )
    >>> equal_opportunity_ratio(two).value.round(4)
    np.float64(0.9375)

    Source: Fairlearn, `equal_opportunity_ratio`.
    """
    return _fraction(sensitivity(current.pooled(minimum)), method)


@metric("equalized_odds_difference", worse="higher", bounds=(0, 1))
def equalized_odds_difference(
    current: GroupOutcomes,
    *,
    agg: Literal["worst_case", "mean"] = "worst_case",
    method: Method = "between_groups",
    minimum: int = MINIMUM,
) -> FloatArray:
    """How far apart the groups lie in true positive and false positive rates.

    The larger of the gaps in TP / (TP + FN) and FP / (FP + TN); with agg "mean" their mean. Range 0
    to 1, 0 means equalized odds. Undefined unless both gaps are known.

    >>> two = GroupOutcomes.from_confusion(
    ...     ("F", "M"), tp=[30, 40], fn=[10, 10], fp=[20, 10], tn=[30, 30]
    ... )
    >>> equalized_odds_difference(two).round(3)
    np.float64(0.15)

    Source: Fairlearn, `equalized_odds_difference`.
    """
    groups = current.pooled(minimum)
    gaps = [_gap(rates(groups), method).value for rates in (sensitivity, fall_out)]
    combine = np.maximum if agg == "worst_case" else _middle
    return np.asarray(combine(*gaps))[()]


@metric("equalized_odds_ratio", worse="lower", bounds=(0, 1))
def equalized_odds_ratio(
    current: GroupOutcomes,
    *,
    agg: Literal["worst_case", "mean"] = "worst_case",
    method: Method = "between_groups",
    minimum: int = MINIMUM,
) -> FloatArray:
    """The smaller of the ratios of true positive and false positive rates among the groups.

    min over both rates of lowest / highest; with agg "mean" their mean. Range 0 to 1, 1 means
    equalized odds. Undefined unless both ratios are known.

    >>> two = GroupOutcomes.from_confusion(
    ...     ("F", "M"), tp=[30, 40], fn=[10, 10], fp=[20, 10], tn=[30, 30]
    ... )
    >>> equalized_odds_ratio(two).round(3)
    np.float64(0.625)

    Source: Fairlearn, `equalized_odds_ratio`.
    """
    groups = current.pooled(minimum)
    ratios = [_fraction(rates(groups), method).value for rates in (sensitivity, fall_out)]
    combine = np.minimum if agg == "worst_case" else _middle
    return np.asarray(combine(*ratios))[()]


def _middle(one: FloatArray, other: FloatArray) -> FloatArray:
    return np.asarray((one + other) / 2)


@metric("predictive_parity_difference", worse="higher", bounds=(0, 1), noise=_chance(precision))
def predictive_parity_difference(
    current: GroupOutcomes, *, method: Method = "between_groups", minimum: int = MINIMUM
) -> Bracket:
    """How far apart the groups lie in how often a favourable decision is right.

    max - min of the precision, TP / (TP + FP). Range 0 to 1, 0 means predictive parity. Undefined
    with fewer than two groups that have labelled rows decided 1.

    >>> two = GroupOutcomes.from_confusion(
    ...     ("F", "M"), tp=[30, 40], fn=[10, 10], fp=[20, 10], tn=[30, 30]
    ... )
    >>> predictive_parity_difference(two).value.round(3)
    np.float64(0.2)

    Source: Chouldechova (2017).
    """
    return _gap(precision(current.pooled(minimum)), method)


@metric("accuracy_difference", worse="higher", bounds=(0, 1), noise=_chance(correct))
def accuracy_difference(
    current: GroupOutcomes, *, method: Method = "between_groups", minimum: int = MINIMUM
) -> Bracket:
    """How far apart the groups lie in the share of decisions that are right.

    max - min of (TP + TN) / n. Range 0 to 1, 0 means the same accuracy. Undefined with fewer than
    two groups with labels.

    >>> two = GroupOutcomes.from_confusion(
    ...     ("F", "M"), tp=[30, 40], fn=[10, 10], fp=[20, 10], tn=[30, 30]
    ... )
    >>> accuracy_difference(two).value.round(3)
    np.float64(0.111)

    Source: Fairlearn, `MetricFrame.difference` of the accuracy.
    """
    return _gap(correct(current.pooled(minimum)), method)


@metric("differential_fairness", worse="higher", bounds=(0, inf))
def differential_fairness(
    current: GroupDecisions, *, concentration: float = 1.0, minimum: int = MINIMUM
) -> FloatArray:
    """The largest log ratio, between any two groups, of the chances of either decision.

    max over pairs of |ln p_i - ln p_j| and |ln (1 - p_i) - ln (1 - p_j)|, with p = (selected + a) /
    (decided + 2 a) and a = `concentration`. Range 0 to infinity, 0 means parity; meant for
    intersections of attributes. Needs no labels. Undefined with fewer than two groups.

    >>> two = GroupDecisions(names=("F", "M"), decided=[98, 198], selected=[19, 79])
    >>> differential_fairness(two).round(3)
    np.float64(0.693)

    Source: Foulds, Islam, Keya, Pan (2020), smoothed empirical form.
    """
    rates = selection(current.pooled(minimum))
    share = ratio(rates.hits + concentration, rates.trials + 2 * concentration)
    logs = np.log(np.stack([share, 1 - share]))
    present = rates.trials > 0
    highest = np.where(present, logs, -inf).max(axis=-1)
    lowest = np.where(present, logs, inf).min(axis=-1)
    widest: FloatArray = np.where(rates.n_present > 1, highest - lowest, np.nan).max(axis=0)
    return widest


@metric("generalized_entropy_index", worse="higher", bounds=(0, inf))
def generalized_entropy_index(current: GroupOutcomes, *, alpha: float = 2.0) -> FloatArray:
    """How unequally benefit is spread over all labelled people, within groups and between them.

    Benefit b = decision - label + 1 is 0, 1 or 2; with mean m the index is mean((b / m) ** alpha -
    1) / (alpha (alpha - 1)), for alpha 1 the Theil index mean((b / m) ln(b / m)). Range 0 to
    infinity, 0 means the same benefit for all. Undefined without labels, or where nobody has any.

    >>> two = GroupOutcomes.from_confusion(
    ...     ("F", "M"), tp=[30, 40], fn=[10, 10], fp=[20, 10], tn=[30, 30]
    ... )
    >>> generalized_entropy_index(two).round(4)
    np.float64(0.1233)

    Source: Speicher et al. (2018); AIF360, `generalized_entropy_index`.
    """
    counts = [
        np.asarray(each).sum(axis=-1) for each in (current.fn, current.tp + current.tn, current.fp)
    ]
    return _entropy(np.arange(3.0), np.stack(counts, axis=-1), alpha)


@metric("between_group_entropy_index", worse="higher", bounds=(0, inf))
def between_group_entropy_index(
    current: GroupOutcomes, *, alpha: float = 2.0, minimum: int = MINIMUM
) -> FloatArray:
    """The part of the generalized entropy that remains when each person has the group's mean.

    As `generalized_entropy_index`, with every benefit replaced by the mean benefit of its group.
    Range 0 to infinity, 0 means that the groups have the same mean benefit. Undefined without
    labels.

    >>> two = GroupOutcomes.from_confusion(
    ...     ("F", "M"), tp=[30, 40], fn=[10, 10], fp=[20, 10], tn=[30, 30]
    ... )
    >>> between_group_entropy_index(two).round(4)
    np.float64(0.0014)

    Source: Speicher et al. (2018); AIF360, `between_group_generalized_entropy_index`.
    """
    groups = current.pooled(minimum)
    labelled = correct(groups).trials
    benefit = ratio(groups.tp + groups.tn + 2 * groups.fp, labelled)
    return _entropy(np.where(labelled > 0, benefit, 0.0), labelled, alpha)


def _entropy(benefit: FloatArray, counts: FloatArray, alpha: float) -> FloatArray:
    """Generalized entropy of benefits[..., K] that `counts`[..., K] people have."""
    n = counts.sum(axis=-1)
    relative = ratio(benefit, ratio((benefit * counts).sum(axis=-1), n)[..., None])
    if alpha == 1:
        terms = relative * np.log(np.where(relative > 0, relative, 1.0))
    elif alpha == 0:
        terms = -np.log(np.where(relative > 0, relative, np.nan))
    else:
        terms = (relative**alpha - 1) / (alpha * (alpha - 1))
    return ratio((np.where(counts > 0, terms, 0.0) * counts).sum(axis=-1), n)


# Every group beside the others, one value a group.


def _others(rates: Rates, groups: GroupDecisions, against: str) -> Rates:
    """What each group is compared with: the rest, all, the largest, or a group by its name."""
    names = groups.names
    if against == "rest":
        return rates.rest
    if against == "overall":
        return rates.total
    if against == "largest":
        return rates.at(groups.decided.argmax(axis=-1))
    if against in names:
        place = np.full(rates.hits.shape[:-1], names.index(against), dtype=np.int64)
        return rates.at(place)
    nothing = np.zeros_like(rates.hits)
    return Rates(nothing, nothing)


@metric("disparate_impact", worse="lower", bounds=(0, inf))
def disparate_impact(
    current: GroupDecisions, *, against: str = "rest", minimum: int = MINIMUM
) -> PerGroup:
    """How likely a favourable decision is for a group, over how likely it is for the others.

    Selection rate of the group over that of `against`: "rest", "overall", "largest", or the name of
    a group. Range 0 to infinity, 1 means parity. Needs no labels. Undefined for an empty group, or
    where nobody else is selected. An upper limit under 0.8 says that the four-fifths rule is broken
    by more than chance; the interval holds for all groups at once.

    >>> two = GroupDecisions(names=("F", "M"), decided=[100, 200], selected=[20, 80])
    >>> disparate_impact(two).result.value[:2]
    array([0.5, 2. ])

    Source: AIF360, `disparate_impact`; Katz et al. (1978) for the interval.
    """
    groups = current.pooled(minimum)
    rates = selection(groups)
    z = z_for(rates.n_present)[..., None]
    return PerGroup(quotient(rates, _others(rates, groups, against), z), rates.trials)


@metric("statistical_parity_difference", worse="either", bounds=(-1, 1))
def statistical_parity_difference(
    current: GroupDecisions, *, against: str = "rest", minimum: int = MINIMUM
) -> PerGroup:
    """How much more often a group gets a favourable decision than the others.

    Selection rate of the group less that of `against`: "rest", "overall", "largest", or the name of
    a group. Range -1 to 1, 0 means parity. Needs no labels. Undefined for an empty group.

    >>> two = GroupDecisions(names=("F", "M"), decided=[100, 200], selected=[20, 80])
    >>> statistical_parity_difference(two).result.value[:2]
    array([-0.2,  0.2])

    Source: AIF360, `statistical_parity_difference`; Newcombe (1998) for the interval.
    """
    groups = current.pooled(minimum)
    rates = selection(groups)
    z = z_for(rates.n_present)[..., None]
    return PerGroup(difference(rates, _others(rates, groups, against), z), rates.trials)


@metric("average_odds_difference", worse="either", bounds=(-1, 1))
def average_odds_difference(
    current: GroupOutcomes, *, against: str = "rest", minimum: int = MINIMUM
) -> PerGroup:
    """How much higher the error-free and the mistaken favourable rates of a group are, on average.

    Mean of the differences in TP / (TP + FN) and FP / (FP + TN) between the group and `against`:
    "rest", "overall", "largest", or the name of a group. Range -1 to 1, 0 means equal odds.
    Undefined for a group without positives or negatives.

    >>> two = GroupOutcomes.from_confusion(
    ...     ("F", "M"), tp=[30, 40], fn=[10, 10], fp=[20, 10], tn=[30, 30]
    ... )
    >>> average_odds_difference(two).result[:2].round(3)
    array([ 0.05, -0.05])

    Source: AIF360, `average_odds_difference`.
    """
    groups = current.pooled(minimum)
    odds = [sensitivity(groups), fall_out(groups)]
    gaps = [rates.share - _others(rates, groups, against).share for rates in odds]
    return PerGroup(_middle(*gaps), correct(groups).trials)


@metric("average_predictive_value_difference", worse="either", bounds=(-1, 1))
def average_predictive_value_difference(
    current: GroupOutcomes, *, against: str = "rest", minimum: int = MINIMUM
) -> PerGroup:
    """How much more often the label of a group is positive at the same decision, on average.

    Mean of the differences in TP / (TP + FP) and FN / (FN + TN) between the group and `against`.
    Range -1 to 1, 0 means that decisions mean the same in all groups. Undefined for a group without
    labelled rows of both decisions.

    >>> two = GroupOutcomes.from_confusion(
    ...     ("F", "M"), tp=[30, 40], fn=[10, 10], fp=[20, 10], tn=[30, 30]
    ... )
    >>> average_predictive_value_difference(two).result[:2].round(3)
    array([-0.1,  0.1])

    Source: AIF360, `average_predictive_value_difference`.
    """
    groups = current.pooled(minimum)
    values = [precision(groups), omission(groups)]
    gaps = [rates.share - _others(rates, groups, against).share for rates in values]
    return PerGroup(_middle(*gaps), correct(groups).trials)


@metric("group_benefit", worse="either", bounds=(0, inf))
def group_benefit(current: GroupOutcomes, *, minimum: int = MINIMUM) -> PerGroup:
    """How many favourable decisions a group gets for each of its positives.

    (TP + FP) / (TP + FN). Range 0 to infinity; 1 means as many as there are positives. Undefined
    for a group without positives.

    >>> two = GroupOutcomes.from_confusion(
    ...     ("F", "M"), tp=[30, 40], fn=[10, 10], fp=[20, 10], tn=[30, 30]
    ... )
    >>> group_benefit(two).result[:2]
    array([1.25, 1.  ])
    """
    groups = current.pooled(minimum)
    benefit = ratio(groups.tp + groups.fp, groups.tp + groups.fn)
    return PerGroup(benefit, correct(groups).trials)


@metric("group_calibration_error", worse="higher", bounds=(0, 1))
def group_calibration_error(current: GroupOutcomes, *, minimum: int = MINIMUM) -> PerGroup:
    """How far the scores of a group lie from how often its labels are positive.

    Sum over tenths of the score of |positives - sum of the scores| / rows, within the group. Range
    0 to 1, 0 means calibrated. Undefined for a group without scored labels. A small group is never
    at 0.

    >>> confusion = {"tp": [18], "fp": [2], "fn": [4], "tn": [16]}
    >>> one = GroupOutcomes(
    ...     names=("F",), decided=[40], selected=[20], **confusion,
    ...     scored=[[20, 20]], positive=[[4, 18]], score_sum=[[4, 16]],
    ... )
    >>> group_calibration_error(one).result[:1]
    array([0.05])

    Source: expected calibration error, Naeini et al. (2015), within groups.
    """
    groups = current.pooled(minimum)
    if groups.scored.ndim == 0:
        return PerGroup(np.full(groups.decided.shape, np.nan), np.zeros(groups.decided.shape))
    scored = groups.scored.sum(axis=-1)
    return PerGroup(ratio(np.abs(groups.score_sum - groups.positive).sum(axis=-1), scored), scored)


# Before labels: the same of expected counts, by what scores mean within each group.


def _past_error(current: GroupEstimates, **_: object) -> FloatArray:
    """Mean absolute error of the estimated gap over earlier windows whose labels are in."""
    return ratio(current.past_absolute, current.past_windows)


def _banded(gap: Bracket, current: GroupEstimates, band: Band) -> Bracket:
    """Take limits from earlier errors, to which what chance does counts as two more windows."""
    if band == "sampling":
        return gap
    chance = ((gap.upper - gap.lower) / (2 * Z)) ** 2
    squared = (2 * chance + current.past_squared) / (2 + current.past_windows)
    half = student_limit(current.past_windows + 1) * np.sqrt(squared)
    return Bracket(gap.value, gap.value - half, gap.value + half)


@metric("estimated_equal_opportunity_difference", worse="higher", bounds=(0, 1), noise=_past_error)
def estimated_equal_opportunity_difference(
    current: GroupEstimates,
    *,
    method: Method = "between_groups",
    minimum: int = MINIMUM,
    band: Band = "backtested",
) -> Bracket:
    """How far apart the groups are expected to lie in how often a positive is decided 1.

    As `equal_opportunity_difference`, of expected counts. Range 0 to 1. Undefined with fewer than
    two groups in which positives are expected.

    >>> two = GroupEstimates.from_confusion(
    ...     ("F", "M"), tp=[30, 40], fn=[10, 10], fp=[20, 10], tn=[30, 30]
    ... )
    >>> estimated_equal_opportunity_difference(two).value.round(3)
    np.float64(0.05)
    """
    gap = equal_opportunity_difference(current.outcomes, method=method, minimum=minimum)
    return _banded(gap, current, band)


@metric("estimated_equalized_odds_difference", worse="higher", bounds=(0, 1), noise=_past_error)
def estimated_equalized_odds_difference(
    current: GroupEstimates,
    *,
    agg: Literal["worst_case", "mean"] = "worst_case",
    method: Method = "between_groups",
    minimum: int = MINIMUM,
    band: Band = "backtested",
) -> Bracket:
    """How far apart the groups are expected to lie in true and false positive rates.

    As `equalized_odds_difference`, of expected counts. Range 0 to 1. Undefined unless both gaps
    are known.

    >>> two = GroupEstimates.from_confusion(
    ...     ("F", "M"), tp=[30, 40], fn=[10, 10], fp=[20, 10], tn=[30, 30]
    ... )
    >>> estimated_equalized_odds_difference(two).value.round(3)
    np.float64(0.15)
    """
    groups = current.outcomes
    value = equalized_odds_difference(groups, agg=agg, method=method, minimum=minimum)
    pooled = groups.pooled(minimum)
    gaps = [_gap(rates(pooled), method) for rates in (sensitivity, fall_out)]
    half = np.maximum(*(gap.upper - gap.lower for gap in gaps)) / 2
    known = value + 0 * half
    return _banded(Bracket(known, known - half, known + half), current, band)


@metric("estimated_predictive_parity_difference", worse="higher", bounds=(0, 1), noise=_past_error)
def estimated_predictive_parity_difference(
    current: GroupEstimates,
    *,
    method: Method = "between_groups",
    minimum: int = MINIMUM,
    band: Band = "backtested",
) -> Bracket:
    """How far apart the groups are expected to lie in how often a favourable decision is right.

    As `predictive_parity_difference`, of expected counts. Range 0 to 1. Undefined with fewer than
    two groups that have rows decided 1.

    >>> two = GroupEstimates.from_confusion(
    ...     ("F", "M"), tp=[30, 40], fn=[10, 10], fp=[20, 10], tn=[30, 30]
    ... )
    >>> estimated_predictive_parity_difference(two).value.round(3)
    np.float64(0.2)
    """
    gap = predictive_parity_difference(current.outcomes, method=method, minimum=minimum)
    return _banded(gap, current, band)


@metric("estimated_accuracy_difference", worse="higher", bounds=(0, 1), noise=_past_error)
def estimated_accuracy_difference(
    current: GroupEstimates,
    *,
    method: Method = "between_groups",
    minimum: int = MINIMUM,
    band: Band = "backtested",
) -> Bracket:
    """How far apart the groups are expected to lie in the share of decisions that are right.

    As `accuracy_difference`, of expected counts. Range 0 to 1. Undefined with fewer than two
    groups.

    >>> two = GroupEstimates.from_confusion(
    ...     ("F", "M"), tp=[30, 40], fn=[10, 10], fp=[20, 10], tn=[30, 30]
    ... )
    >>> estimated_accuracy_difference(two).value.round(3)
    np.float64(0.111)
    """
    gap = accuracy_difference(current.outcomes, method=method, minimum=minimum)
    return _banded(gap, current, band)


@metric("estimated_average_odds_difference", worse="either", bounds=(-1, 1))
def estimated_average_odds_difference(
    current: GroupEstimates, *, against: str = "rest", minimum: int = MINIMUM
) -> PerGroup:
    """How much higher a group's true and false positive rates are expected to be, on average.

    As `average_odds_difference`, of expected counts. Range -1 to 1. Undefined for a group without
    expected positives or negatives.

    >>> two = GroupEstimates.from_confusion(
    ...     ("F", "M"), tp=[30, 40], fn=[10, 10], fp=[20, 10], tn=[30, 30]
    ... )
    >>> estimated_average_odds_difference(two).result[:2].round(3)
    array([ 0.05, -0.05])
    """
    return average_odds_difference(current.outcomes, against=against, minimum=minimum)
