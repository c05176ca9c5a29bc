"""Labels on their way: how long they take, and how many should be here by now."""

from __future__ import annotations

from math import inf

import numpy as np

from tidegauge.metrics.inputs import FloatArray, IntArray, LabelDelays, Maturity, ratio
from tidegauge.metrics.registry import metric


@metric("expected_label_share", worse="lower", bounds=(0, 1))
def expected_label_share(current: Maturity) -> FloatArray:
    """How mature the labels are: the share of those that will come that should be here by now.

    Mean over the predictions of the share of labels that take no longer than the prediction is old,
    as the labels of all windows have it; windows that are young themselves count only for the
    delays that they are old enough to have seen. Near 1 the performance of the window is final; a
    `label_share` well below it means that labels are missing. Range 0 to 1. Undefined without
    predictions, and before a window is older than some of its labels took.

    >>> float(expected_label_share(Maturity(predictions=10, expected=4.0)))
    0.4
    """
    return ratio(current.expected, current.predictions)


@metric("label_delay", worse="higher", bounds=(0, inf))
def label_delay(current: LabelDelays, *, level: float = 0.5) -> FloatArray:
    """How long labels took, in seconds: the delay that half of them did not exceed.

    With the option `level` the delay that another share did not exceed. Delays are counted in
    bins of half an octave and taken to lie evenly within one, so a value is within 21 % of the
    truth from one second on. A window that is young has only the quick ones of its labels yet.
    Range: 0 to the lateness of the monitor. Undefined without labels.

    >>> delays = LabelDelays([0, 10, 30], edges=[0.0, 60.0, 120.0, 180.0])
    >>> float(label_delay(delays)), float(label_delay(delays, level=0.25))
    (140.0, 120.0)
    """
    cumulative = np.cumsum(current.counts, axis=-1)
    wanted = level * cumulative[..., -1:]
    place = np.argmax((cumulative >= wanted) & (current.counts > 0), axis=-1)[..., None]

    def at(array: FloatArray | IntArray) -> FloatArray:
        chosen = np.take_along_axis(np.broadcast_to(array, cumulative.shape), place, -1)
        return chosen[..., 0].astype(np.float64)

    counts = at(current.counts)
    into = ratio(wanted[..., 0] - (at(cumulative) - counts), counts)
    low, high = at(current.edges[:-1]), at(current.edges[1:])
    return np.asarray(low + into * (high - low))
