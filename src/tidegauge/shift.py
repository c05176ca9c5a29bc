"""What moved a model's mean prediction, or its loss, between two windows of traffic.

A change is split over the features so that the parts add up. That of a loss has a part for the mix
of labels, and is told apart into other rows and other labels for the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidegauge._core import DataError
from tidegauge.attribution import (
    EXPLAIN_STREAM,
    MAX_ROWS,
    REFERENCE_STREAM,
    Bench,
    Model,
    check_rows,
)
from tidegauge.comparison import Comparison
from tidegauge.explain.exchange import Exchange, variance_of
from tidegauge.metrics.results import Z
from tidegauge.sample import encoded

__all__ = ["LOSSES", "Causes", "Part", "Shift"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Loss = Callable[[FloatArray, FloatArray], FloatArray]

LABELS = "(labels)"  # the part of a loss that no feature has
LOSS_DESIGNS = 8  # a loss falls by more than it changes, so that its parts are the noisier
MIN_ROWS = 100  # with labels, to tell a change of the rows from a change of their labels
MIN_SHARE = 0.05  # of the rows that must be left once they are weighted


# -- losses ---------------------------------------------------------------------------------------


def _log_loss(answers: FloatArray, labels: FloatArray) -> FloatArray:
    if answers.shape[1] > 2:
        chosen = np.take_along_axis(answers, labels.astype(np.int64)[:, None], axis=1)[:, 0]
    else:
        chosen = np.where(labels == 1, answers[:, -1], 1 - answers[:, -1])
    return -np.log(np.clip(chosen, 1e-12, 1))


def _brier_score(answers: FloatArray, labels: FloatArray) -> FloatArray:
    if answers.shape[1] > 2:
        hit = labels[:, None] == np.arange(answers.shape[1])
        return np.asarray(((answers - hit) ** 2).sum(axis=1))
    return (answers[:, -1] - labels) ** 2


def _squared_error(answers: FloatArray, labels: FloatArray) -> FloatArray:
    return (answers[:, -1] - labels) ** 2


def _absolute_error(answers: FloatArray, labels: FloatArray) -> FloatArray:
    return np.abs(answers[:, -1] - labels)


LOSSES: dict[str, Loss] = {
    "log_loss": _log_loss,
    "brier_score": _brier_score,
    "squared_error": _squared_error,
    "absolute_error": _absolute_error,
}


def loss_of(loss: str | Loss) -> tuple[str, Loss]:
    """Name and function of a loss.

    >>> loss_of("squared_error")[0]
    'squared_error'
    """
    if callable(loss):
        return getattr(loss, "__name__", "loss"), loss
    if loss not in LOSSES:
        raise ValueError(
            f"loss {loss!r} is unknown; allowed: {', '.join(LOSSES)}, or a function of answers "
            "[n, outputs] and labels [n] to losses [n]"
        )
    return loss, LOSSES[loss]


# -- shifts ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a change, with its 95 % interval.

    >>> Part("age", 0.25, 0.2, 0.3).value
    0.25
    """

    name: str
    value: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Causes:
    """How much of a change of loss comes from other rows, and how much from other labels for them.

    Both add up to the change. Each sample is weighted to resemble the other, by how well a
    regression tells their rows apart; the more they differ, the fewer rows count.

    >>> causes = Causes(Part("covariate", 0.1, 0.0, 0.2), Part("concept", 0.0, -0.1, 0.1), 80, 60)
    >>> causes.after
    60
    """

    covariate: Part
    concept: Part
    before: float  # effective rows, once weighted
    after: float


@dataclass(frozen=True, slots=True, repr=False)
class Shift:
    """Why a mean differs between two samples of rows.

    Parameters
    ----------
    what
        "prediction", or the name of the loss.
    before, after
        The means: their difference is that of `change`, and the sum of `parts`.
    change
        after - before.
    parts
        What each feature has added, the largest first; of a loss also "(labels)": what another mix
        of labels does even to a model that sees no feature.
    n_before, n_after
        Rows behind them.
    causes
        Of a loss: how much of the change comes from other rows, and how much from other labels for
        the same rows; None where they cannot be told apart.
    note
        Why they cannot.

    >>> Shift("prediction", 0.5, 0.75, Part("change", 0.25, 0.2, 0.3),
    ...       (Part("age", 0.25, 0.2, 0.3),), 100, 100)
    mean prediction 0.5 -> 0.75: +0.25 [0.2, 0.3], of 100 and 100 rows
    age                              +0.25  [+0.2, +0.3]
    """

    what: str
    before: float
    after: float
    change: Part
    parts: tuple[Part, ...]
    n_before: int
    n_after: int
    causes: Causes | None = None
    note: str = ""

    @property
    def _told(self) -> tuple[Part, ...]:
        return () if self.causes is None else (self.causes.covariate, self.causes.concept)

    def to_arrow(self) -> pa.Table:
        """Return one row per part: kind ("feature", "labels", "cause", "change"), name, values."""
        kinds = [
            *(("labels" if p.name == LABELS else "feature", p) for p in self.parts),
            *(("cause", p) for p in self._told),
            ("change", self.change),
        ]
        rows = [
            {"kind": kind, "name": p.name, "value": p.value, "lower": p.lower, "upper": p.upper}
            for kind, p in kinds
        ]
        numbers = [(name, pa.float64()) for name in ("value", "lower", "upper")]
        schema = pa.schema([("kind", pa.string()), ("name", pa.string()), *numbers])
        return pa.Table.from_pylist(rows, schema=schema)

    def to_pandas(self) -> Any:
        """Return the same as a pandas data frame; needs `tidegauge[pandas]`."""
        return self.to_arrow().to_pandas()

    def __repr__(self) -> str:
        change = self.change
        lines = [
            f"mean {self.what} {self.before:.4g} -> {self.after:.4g}: {change.value:+.4g} "
            f"[{change.lower:.4g}, {change.upper:.4g}], of {self.n_before:,} and "
            f"{self.n_after:,} rows"
        ]
        lines += [
            f"{part.name[:30]:<31}{part.value:>+7.3g}  [{part.lower:+.3g}, {part.upper:+.3g}]"
            for part in (*self.parts, *self._told)
        ]
        return "\n".join([*lines, *([self.note] if self.note else [])])


def explain_shift(
    comparisons: tuple[Comparison | None, Comparison],
    model: Model,
    *,
    loss: tuple[str, Loss] | None = None,
    max_rows: int = MAX_ROWS,
    max_evaluations: int | None = None,
    seed: int = 0,
) -> Shift:
    """Split the change of the mean prediction, or of a loss, between two single windows.

    The first is the reference where it is None.
    """
    check_rows(max_rows)
    first, second = comparisons
    samples = [
        (first or second).sampled(of_reference=first is None),
        second.sampled(of_reference=False),
    ]
    bench = Bench.of(samples, model, seed)
    n_designs = bench.n_designs(max_evaluations, 1, 1 if loss is None else LOSS_DESIGNS)
    before, after = (bench.usable(sample, 0) for sample in (0, 1))
    if loss is not None:
        before, after = (rows[~np.isnan(bench.labels[rows])] for rows in (before, after))
    before, after = before[:max_rows], after[:max_rows]
    for side, rows in (("before", before), ("after", after)):
        if len(rows) < 2:
            labelled = " with labels" if loss is not None else ""
            raise DataError(
                f"there are {len(rows)} sampled rows{labelled} {side}; at least 2 are needed"
            )
    if loss is None:
        return _prediction_shift(bench, before, after, n_designs)
    sides = [losses(loss[1], bench.answers[rows], bench.labels[rows]) for rows in (before, after)]
    shift = _loss_shift(bench, before, after, loss, n_designs)
    if min(len(before), len(after)) < MIN_ROWS:
        return replace(shift, note=f"covariate and concept need {MIN_ROWS} labelled rows a side")
    rows = bench.rows.take(np.concatenate([before, after]))
    features = smooth_features(*encoded(rows, second.reference.layout))
    found = causes_of(sides, Odds.fit(features, len(before)))
    return replace(shift, note=found) if isinstance(found, str) else replace(shift, causes=found)


def _prediction_shift(bench: Bench, before: IntArray, after: IntArray, n_designs: int) -> Shift:
    model = bench.model
    exchange = bench.exchanger.exchange(
        after,
        before,
        lambda answers, _: model.chosen(answers),
        n_designs=n_designs,
        stream=EXPLAIN_STREAM,
    )
    values = [each[:, :, 0] for each in exchange.values]
    errors = np.sqrt(exchange.influence(values).variance)
    means = [model.chosen(bench.answers[rows])[:, 0] for rows in (before, after)]
    parts = _parts(model.players[0], exchange.mean(values), errors)
    return _shift("prediction", means, parts)


def _loss_shift(
    bench: Bench, before: IntArray, after: IntArray, loss: tuple[str, Loss], n_designs: int
) -> Shift:
    """Both samples against the rows before, each row with its own label in every coalition."""
    name, function = loss

    def side(rows: IntArray, stream: int) -> Exchange:
        labels = bench.labels[rows]

        def observe(answers: FloatArray, places: IntArray) -> FloatArray:
            return losses(function, answers, labels[places])[:, None]

        return bench.exchanger.exchange(rows, before, observe, n_designs=n_designs, stream=stream)

    now, then = side(after, EXPLAIN_STREAM), side(before, REFERENCE_STREAM)

    def split(pick: Callable[[Exchange], list[FloatArray]]) -> tuple[FloatArray, FloatArray]:
        """Difference of a mean and its standard error: rows before play three parts."""
        current, usual = (each.influence(pick(each)) for each in (now, then))
        variance = variance_of(
            [current.own, current.other - usual.own - usual.other], current.both + usual.both
        )
        return now.mean(pick(now)) - then.mean(pick(then)), np.sqrt(variance)

    values, errors = split(lambda each: [value[:, :, 0] for value in each.values])
    base, base_error = split(lambda each: list(each.starts))
    means = [losses(function, bench.answers[rows], bench.labels[rows]) for rows in (before, after)]
    names = (*bench.model.players[0], LABELS)
    return _shift(
        name, means, _parts(names, np.append(values, base), np.append(errors, base_error))
    )


def _shift(what: str, sides: list[FloatArray], parts: tuple[Part, ...]) -> Shift:
    before, after = sides
    error = sqrt(sum(float(each.var(ddof=1)) / len(each) for each in sides))
    old, new = float(before.mean()), float(after.mean())
    change = _part("change", new - old, error)
    return Shift(what, old, new, change, parts, len(before), len(after))


def losses(function: Loss, answers: FloatArray, labels: FloatArray) -> FloatArray:
    """Loss of each row, checked."""
    if not len(labels):
        return np.empty(0)
    found = np.asarray(function(answers, labels), dtype=np.float64)
    if found.shape != labels.shape:
        raise ValueError(
            f"the loss gave shape {found.shape} for {len(labels)} rows; ({len(labels)},) is wanted"
        )
    if not np.isfinite(found).all():
        raise DataError(f"the loss is not finite for {int((~np.isfinite(found)).sum())} rows")
    return found


def _part(name: str, value: float, error: float) -> Part:
    return Part(name, float(value), float(value - Z * error), float(value + Z * error))


def _parts(names: Sequence[str], values: FloatArray, errors: FloatArray) -> tuple[Part, ...]:
    order = np.argsort(-np.abs(values), kind="stable")
    return tuple(_part(names[place], values[place], errors[place]) for place in order)


# -- other rows, or other labels for the same rows ------------------------------------------------


def causes_of(sides: list[FloatArray], odds: Odds) -> Causes | str:
    """Tell other rows from other labels for the same rows, or say why that cannot be done.

    sides: losses before and after. With the losses before carried over to rows as they are after,
    and those after to rows as they were before, other rows are what changes with the rows while the
    labels stay, and other labels what changes with the labels while the rows stay; each is the mean
    of two differences, so that they add up.
    """
    n = len(sides[0])
    weights = odds.values[:n], 1 / odds.values[n:]
    # A row counts for what it resembles of the other side: few do where all weights are small.
    sizes = [float(min(w.sum() ** 2 / (w**2).sum(), w.sum())) for w in weights]
    for size, side in zip(sizes, sides, strict=True):
        if size < max(MIN_ROWS / 2, MIN_SHARE * len(side)):
            return (
                f"the rows are too different to tell covariate from concept: weighted, "
                f"{len(side):,} of them count as {size:.0f}"
            )
    slopes = odds.slopes[:n], -odds.slopes[n:]
    means, carried, plain, moved, by_odds = [], [], [], [], []
    for side, weight, slope in zip(sides, weights, slopes, strict=True):
        shares = weight / weight.sum()
        means.append(float(side.mean()))
        carried.append(float(shares @ side))
        plain.append((side - means[-1]) / len(side))
        moved.append(shares * (side - carried[-1]))
        by_odds.append(odds.influence @ (moved[-1] @ slope))
    there, back = carried  # losses before on rows after, losses after on rows before
    signs = np.repeat([-1.0, 1.0], [len(side) for side in sides])
    own, weighted = np.concatenate(plain) * signs, np.concatenate(moved) * -signs
    weighted += by_odds[0] - by_odds[1]

    def part(name: str, value: float, influence: FloatArray) -> Part:
        variance = variance_of([influence[:n], influence[n:]])
        return _part(name, value / 2, sqrt(variance) / 2)

    (before, after) = means
    return Causes(
        part("covariate", (there - before) + (after - back), own + weighted),
        part("concept", (back - before) + (after - there), own - weighted),
        *sizes,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Odds:
    """How much likelier each row is after than before, as a logistic regression says.

    Of the place and the spread of every column: weights want smooth odds, and few coefficients,
    whose own errors go into the intervals.
    """

    values: FloatArray  # [rows], density after over density before
    slopes: FloatArray  # [rows, coefficients] of their logarithm by the coefficients
    influence: FloatArray  # [rows, coefficients] of each row on the coefficients

    @classmethod
    def fit(cls, features: FloatArray, n_before: int) -> Odds:
        """Newton's method with a ridge of 1; steps are halved until they improve."""
        rows = np.column_stack([np.ones(len(features)), features])
        truth = (np.arange(len(rows)) >= n_before).astype(np.float64)
        ridge = np.full(rows.shape[1], 1.0)
        ridge[0] = 1e-9

        def misfit(at: FloatArray) -> float:
            scores = rows @ at
            return float((np.logaddexp(0, scores) - truth * scores).sum() + ridge @ at**2 / 2)

        at, best = np.zeros(rows.shape[1]), np.inf
        while True:
            share = 1 / (1 + np.exp(-np.clip(rows @ at, -700, 700)))
            curvature = (rows * (share * (1 - share))[:, None]).T @ rows + np.diag(ridge)
            step = np.linalg.solve(curvature, rows.T @ (truth - share) - ridge * at)
            now = misfit(at)
            if best - now < 1e-9 * len(rows):
                break
            best = now
            while misfit(at + step) > now and np.abs(step).max() > 1e-12:
                step /= 2
            at += step
        influence = np.linalg.solve(curvature, (rows * (truth - share)[:, None]).T).T
        odds = np.exp(np.clip(rows @ at, -700, 700)) * n_before / (len(rows) - n_before)
        return cls(odds, rows, influence)


def smooth_features(numbers: FloatArray, codes: IntArray) -> FloatArray:
    """Of each number its standard score, within 4, and its square; of all whether it is missing.

    Of categories, whether it is this one, for the 20 most frequent.

    >>> smooth_features(np.array([[1.0], [3.0]]), np.array([[0], [-1]])).tolist()
    [[-1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0]]
    """
    missing = np.isnan(numbers)
    known = np.maximum((~missing).sum(axis=0), 1)
    filled = np.where(missing, 0, numbers)
    centre = filled.sum(axis=0) / known
    apart = np.where(missing, 0, numbers - centre)
    spread = np.sqrt((apart**2).sum(axis=0) / known)
    scores = np.clip(apart / np.where(spread > 0, spread, 1), -4, 4)
    parts = [scores, scores**2, missing[:, missing.any(axis=0)]]
    for column in codes.T:
        values, counts = np.unique(column, return_counts=True)
        frequent = values[np.argsort(-counts, kind="stable")][:20]
        parts.append(column[:, None] == frequent)
    return np.concatenate(parts, axis=1, dtype=np.float64)
