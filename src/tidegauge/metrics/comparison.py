"""Champion and challengers: versions on the very same predictions, from sums alone.

Values stand in the rows of the challenger. Every difference is challenger - champion, over the
labelled rows that both have predicted under one id. What varies from row to row but is the same for
both drops out, so the intervals are narrow.
"""

from __future__ import annotations

from math import inf

import numpy as np

from tidegauge.metrics.inputs import FloatArray, PairedDecisions, PairedValues
from tidegauge.metrics.registry import metric
from tidegauge.metrics.results import Estimate, Proportion, mean


@metric("pair_count", worse="lower", bounds=(0, inf), scale="total")
def pair_count(current: PairedDecisions | PairedValues) -> FloatArray:
    """How many labelled rows both versions have predicted.

    Number of pairs. Range 0 to infinity. Never undefined.

    >>> float(pair_count(PairedDecisions.from_counts(both=6, champion=1, challenger=2, neither=1)))
    10.0
    """
    return np.asarray(current.labelled_rows, dtype=np.float64)


@metric("champion_alone_right", worse="higher", bounds=(0, inf), scale="total")
def champion_alone_right(current: PairedDecisions) -> FloatArray:
    """Rows that the champion decided right and the challenger wrong.

    McNemar's b. Range 0 to infinity. Undefined without pairs.

    >>> pairs = PairedDecisions.from_counts(both=6, champion=1, challenger=2, neither=1)
    >>> float(champion_alone_right(pairs))
    1.0
    """
    return current.right[..., 1, 0] * current.rows_per_count


@metric("challenger_alone_right", worse="lower", bounds=(0, inf), scale="total")
def challenger_alone_right(current: PairedDecisions) -> FloatArray:
    """Rows that the challenger decided right and the champion wrong.

    McNemar's c. Range 0 to infinity. Undefined without pairs.

    >>> pairs = PairedDecisions.from_counts(both=6, champion=1, challenger=2, neither=1)
    >>> float(challenger_alone_right(pairs))
    2.0
    """
    return current.right[..., 0, 1] * current.rows_per_count


@metric("paired_accuracy_difference", worse="lower", bounds=(-1, 1))
def paired_accuracy_difference(current: PairedDecisions) -> Estimate:
    """By how much the challenger is more often right.

    (c - b) / n, c and b the rows that one alone got right; the interval is that of a paired
    difference. Range -1 to 1. Undefined without pairs.

    >>> pairs = PairedDecisions.from_counts(both=6, champion=1, challenger=2, neither=1)
    >>> float(paired_accuracy_difference(pairs).value)
    0.1
    """
    champion, challenger = current.right[..., 1, 0], current.right[..., 0, 1]
    return mean(
        np.asarray(challenger - champion), np.asarray(challenger + champion), current.labelled
    )


@metric("paired_log_loss_difference", worse="higher", bounds=(-inf, inf))
def paired_log_loss_difference(current: PairedDecisions) -> Estimate:
    """By how much the challenger's log loss is higher.

    Mean of the differences of -log(p) of the true class. Range: any number; below 0 the challenger
    is better. Undefined without pairs and without scores.

    >>> pairs = PairedDecisions(
    ...     labelled_rows=2, right=[[0, 0], [0, 2]], log_loss=-0.5, log_loss_squared=0.13
    ... )
    >>> float(paired_log_loss_difference(pairs).value)
    -0.25
    """
    return mean(current.log_loss, current.log_loss_squared, current.labelled)


@metric("paired_brier_score_difference", worse="higher", bounds=(-2, 2))
def paired_brier_score_difference(current: PairedDecisions) -> Estimate:
    """By how much the challenger's Brier score is higher.

    Mean of the differences of squared errors of the scores. Range -2 to 2; below 0 the challenger
    is better. Undefined without pairs and without scores.

    >>> pairs = PairedDecisions(
    ...     labelled_rows=2, right=[[0, 0], [0, 2]], brier=-0.5, brier_squared=0.13
    ... )
    >>> float(paired_brier_score_difference(pairs).value)
    -0.25
    """
    return mean(current.brier, current.brier_squared, current.labelled)


@metric("challenger_closer_rate", worse="lower", bounds=(0, 1))
def challenger_closer_rate(current: PairedValues) -> Proportion:
    """Share of the rows that differ for which the challenger's value was closer.

    c / (b + c), ties left out. Range 0 to 1; 0.5 is even. Undefined where all are ties.

    >>> pairs = PairedValues(labelled_rows=4, right=[[0, 2], [1, 1]])
    >>> round(float(challenger_closer_rate(pairs).value), 3)
    0.667
    """
    champion, challenger = current.right[..., 1, 0], current.right[..., 0, 1]
    return Proportion(challenger, champion + challenger)


@metric("paired_mae_difference", worse="higher", bounds=(-inf, inf))
def paired_mae_difference(current: PairedValues) -> Estimate:
    """By how much the challenger's mean absolute error is higher.

    Mean of |e2| - |e1|. Range: any number; below 0 the challenger is better. Undefined without
    pairs.

    >>> pairs = PairedValues(
    ...     labelled_rows=2, right=[[0, 2], [0, 0]], absolute=-3.0, absolute_squared=5.0
    ... )
    >>> float(paired_mae_difference(pairs).value)
    -1.5
    """
    return mean(current.absolute, current.absolute_squared, current.labelled)


@metric("paired_mse_difference", worse="higher", bounds=(-inf, inf))
def paired_mse_difference(current: PairedValues) -> Estimate:
    """By how much the challenger's mean squared error is higher.

    Mean of e2**2 - e1**2. Range: any number; below 0 the challenger is better. Undefined without
    pairs.

    >>> pairs = PairedValues(
    ...     labelled_rows=2, right=[[0, 2], [0, 0]], squared=-3.0, squared_squared=5.0
    ... )
    >>> float(paired_mse_difference(pairs).value)
    -1.5
    """
    return mean(current.squared, current.squared_squared, current.labelled)
