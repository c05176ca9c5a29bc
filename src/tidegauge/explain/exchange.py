"""What changes a model's mean answer from one sample of rows to another, split over players.

The game: v(S) is the mean answer when the players in S have the values of rows of one sample, and
the others those of rows of another one, each drawn for itself. Its Shapley values are the means of
those of single rows against the other sample, and add up to the difference of both means. A mean
needs few evaluations of each row, where a row's own values need many: every row meets about one of
the others, in few coalitions, with the labels of the players shuffled anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidegauge import _core
from tidegauge._core import DataError
from tidegauge.explain.estimator import n_all_pairs
from tidegauge.explain.inputs import ArrowFrame, Frame, PandasFrame, PolarsFrame, matrix_of
from tidegauge.explain.operators import (
    FloatArray,
    enumeration_operator,
    product,
    regression_operator,
    signs_of,
)

IntArray = NDArray[np.int64]

FRAMES: dict[str, Callable[[], Frame]] = {
    "pandas": PandasFrame,
    "polars": PolarsFrame,
    "arrow": ArrowFrame,
}
FEWEST_PAIRS = 32  # of coalitions, where there are so many
TILE_BYTES = 1 << 22  # of masked rows that the model is handed at once
MEETING_STREAM, LABEL_STREAM = 1 << 60, 1 << 61


class Pool:
    """Rows of all samples below each other, as the model wants them.

    Parameters
    ----------
    table
        The rows.
    columns
        Columns that the model is handed, in order.
    frame
        "numpy" for a matrix of doubles, or the library of the table.

    >>> Pool(pa.table({"x": [1, 2]}), ("x",), "numpy").take(np.array([[1], [0]])).tolist()
    [[2.0], [1.0]]
    """

    def __init__(self, table: pa.Table, columns: tuple[str, ...], frame: str) -> None:
        self.columns = columns
        self._frame: Frame | None = None
        self._n_rows = int(table.num_rows)
        if frame == "numpy":
            self._content: Any = matrix_of(table, columns, np.dtype(np.float64))
            return
        self._frame = FRAMES[frame]()
        own: Any = table.select(list(columns)).combine_chunks()
        if frame == "pandas":
            own = own.to_pandas()
        elif frame == "polars":
            import polars as pl

            own = pl.from_arrow(own)
        self._content = self._frame.pool(self._frame.slice(own, 0, 0), own)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._n_rows

    def take(self, rows: IntArray) -> Any:
        """Return new rows, of which each column has a row of its own: rows[n, columns]."""
        if self._frame is None:
            return np.take_along_axis(self._content, rows, axis=0)
        return self._frame.take(self._content, list(np.ascontiguousarray(rows.T)))


@dataclass(frozen=True, slots=True)
class Meetings:
    """Which rows of two samples meet: every row weighs the same in all, however many there are."""

    own: IntArray  # [meetings] rows of the sample that is explained
    other: IntArray  # [meetings] rows that it is compared with
    weights: FloatArray  # [meetings], adding up to 1

    @classmethod
    def draw(cls, n_own: int, n_other: int, seed: int, stream: int) -> Meetings:
        """Lay both samples along one line, the other one shuffled; rows that overlap meet.

        >>> Meetings.draw(2, 3, 0, 0).weights.round(3).tolist()
        [0.333, 0.167, 0.167, 0.333]
        """
        ends = np.union1d(np.arange(1, n_own + 1) * n_other, np.arange(1, n_other + 1) * n_own)
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        order = _core.shuffle_labels(np.array([MEETING_STREAM + stream], np.uint64), n_other, seed)
        return cls(
            starts // n_other,
            order[0].astype(np.int64)[starts // n_own],
            (ends - starts) / (n_own * n_other),
        )


@dataclass(frozen=True, slots=True)
class Influence:
    """How much each row moves a weighted mean over meetings, and what its variance is.

    Rows are independent, meetings are not: the variance is that of both samples' rows less what is
    counted in both (Cameron, Gelbach and Miller, 2011).
    """

    own: FloatArray  # [rows, ...]
    other: FloatArray
    both: FloatArray  # [...] squares of the meetings

    @property
    def variance(self) -> FloatArray:
        """Variance of the mean; NaN where a sample has a single row."""
        return variance_of([self.own, self.other], self.both)


def variance_of(samples: Sequence[FloatArray], both: FloatArray | float = 0.0) -> FloatArray:
    """Variance of a statistic from the influence of each row of independent samples."""
    parts = np.stack([_squares(each) for each in samples])
    found: FloatArray = np.maximum(parts.sum(axis=0) - both, parts.max(axis=0))
    return found


def _squares(influence: FloatArray) -> FloatArray:
    n = len(influence)
    if n < 2:
        return np.full(influence.shape[1:], np.nan)
    found: FloatArray = (influence**2).sum(axis=0) * (n / (n - 1))
    return found


@dataclass(frozen=True, slots=True)
class Exchange:
    """What each player adds at every meeting, in several designs drawn apart."""

    n_own: int
    n_other: int
    meetings: tuple[Meetings, ...]  # [designs]
    values: tuple[FloatArray, ...]  # [designs] of [meetings, players, targets]
    starts: tuple[FloatArray, ...]  # [designs] of [meetings, targets]: of the other row, unchanged

    def mean(self, values: Sequence[FloatArray]) -> FloatArray:
        """Weighted mean over the meetings of all designs."""
        each = [
            np.tensordot(meetings.weights, value, axes=1)
            for meetings, value in zip(self.meetings, values, strict=True)
        ]
        found: FloatArray = np.mean(each, axis=0)
        return found

    def influence(self, values: Sequence[FloatArray]) -> Influence:
        """Return the influence of each row on such a mean."""
        centre, shape = self.mean(values), values[0].shape[1:]
        own, other = np.zeros((self.n_own, *shape)), np.zeros((self.n_other, *shape))
        both = np.zeros(shape)
        for meetings, value in zip(self.meetings, values, strict=True):
            weights = meetings.weights.reshape(-1, *[1] * len(shape)) / len(values)
            moved = weights * (value - centre)
            np.add.at(own, meetings.own, moved)
            np.add.at(other, meetings.other, moved)
            both += (moved**2).sum(axis=0)
        return Influence(own, other, both)

    def by_row(self) -> FloatArray:
        """Mean over the meetings of each row, [designs, rows, players, targets]."""
        found = np.zeros((len(self.values), self.n_own, *self.values[0].shape[1:]))
        for design, (meetings, value) in enumerate(zip(self.meetings, self.values, strict=True)):
            weights = self.n_own * meetings.weights[:, None, None]
            np.add.at(found[design], meetings.own, weights * value)
        return found

    def squares(self) -> list[FloatArray]:
        """Values times those of the same row in the other designs: their mean is free of noise.

        The mean square of estimates is too large by their variance. Estimates of two designs err
        independently, so the mean of their products is that of the squares of what they estimate.
        """
        rows = self.by_row()
        others = (rows.sum(axis=0) - rows) / (len(rows) - 1)
        return [
            value * other[meetings.own]
            for meetings, value, other in zip(self.meetings, self.values, others, strict=True)
        ]


class Exchanger:
    """A model, its players and the coalitions that are asked of every meeting.

    Parameters
    ----------
    answer
        Function of rows, as the pool makes them, to [n, outputs].
    pool
        All rows.
    players
        Player of each column.
    seed
        Decides every draw.
    """

    def __init__(
        self, answer: Callable[[Any], FloatArray], pool: Pool, players: IntArray, seed: int
    ) -> None:
        self._answer = answer
        self._pool = pool
        self._players = players
        self._seed = seed
        self.n_players = int(players.max(initial=-1)) + 1
        self._inside, self._weights = coalitions(self.n_players, seed)

    @property
    def n_evaluations(self) -> int:
        """Rows that the model answers for each meeting."""
        return 2 * len(self._inside)

    @cached_property
    def answers(self) -> FloatArray:
        """Answers for the rows of the pool as they are, [rows, outputs]."""
        found = []
        step = max(1, TILE_BYTES // (8 * len(self._players)))
        for start in range(0, len(self._pool), step):
            rows = np.arange(start, min(start + step, len(self._pool)))
            spread = np.repeat(rows[:, None], len(self._players), axis=1)
            found.append(self._answer(self._pool.take(spread)))
        return np.concatenate(found) if found else np.empty((0, 1))

    def exchange(
        self,
        own: IntArray,
        other: IntArray,
        observe: Callable[[FloatArray, IntArray], FloatArray],
        *,
        n_designs: int,
        stream: int = 0,
    ) -> Exchange:
        """Let rows of two samples meet.

        Parameters
        ----------
        own, other
            Rows of the pool: those that are explained, and those that they are compared with.
        observe
            What is split: from answers and the places in `own` that they belong to, to
            [n, targets].
        n_designs
            How often every row meets others.
        stream
            Another stream, other draws.
        """
        designs = [
            self._design(own, other, observe, (stream << 8) + design) for design in range(n_designs)
        ]
        meetings, values, starts = zip(*designs, strict=True)
        return Exchange(len(own), len(other), meetings, values, starts)

    def _design(
        self,
        own: IntArray,
        other: IntArray,
        observe: Callable[[FloatArray, IntArray], FloatArray],
        stream: int,
    ) -> tuple[Meetings, FloatArray, FloatArray]:
        meetings = Meetings.draw(len(own), len(other), self._seed, stream)
        n, n_pairs = len(meetings.own), len(self._inside)
        streams = LABEL_STREAM + (stream << 40) + np.arange(n, dtype=np.uint64)
        labels = _core.shuffle_labels(streams.astype(np.uint64), self.n_players, self._seed)
        pairs = np.stack([own[meetings.own], other[meetings.other]])
        ends, starts = (observe(self.answers[rows], meetings.own) for rows in pairs)
        deltas = ends - starts
        values = np.empty((n, self.n_players, deltas.shape[1]))
        step = max(1, TILE_BYTES // (16 * max(n_pairs, 1) * len(self._players)))
        for first in range(0, n, step):
            tile = slice(first, min(first + step, n))
            every = deltas[tile][:, :, None]
            if n_pairs:
                places = meetings.own[tile]
                found = self._differences(pairs[:, tile], labels[tile], places, observe)
                every = np.concatenate([found, every], axis=2)
            found = product(every.reshape(-1, n_pairs + 1), self._weights)
            found = found.reshape(*every.shape[:2], self.n_players)
            spot = labels[tile][:, None, :].astype(np.int64)
            values[tile] = np.take_along_axis(found, spot, axis=2).swapaxes(1, 2)
        return meetings, values, starts

    def _differences(
        self,
        pairs: IntArray,
        labels: NDArray[np.int32],
        places: IntArray,
        observe: Callable[[FloatArray, IntArray], FloatArray],
    ) -> FloatArray:
        """Half the differences of coalitions and their complements, [meetings, targets, pairs].

        pairs[2, meetings]: the rows that meet, of which the first has the place among its own.
        """
        n_pairs = len(self._inside)
        known = self._inside[:, labels[:, self._players]]  # [pairs, meetings, columns]
        mine, theirs = pairs[:, :, None]
        rows = np.stack([np.where(known, mine, theirs), np.where(known, theirs, mine)])
        answers = self._answer(self._pool.take(rows.reshape(-1, len(self._players))))
        if not np.isfinite(answers).all():
            bad = int((~np.isfinite(answers)).any(axis=1).sum())
            raise DataError(
                f"the model's answer is not finite for {bad} of {len(answers)} rows that mix the "
                "values of two rows; let it answer for every combination"
            )
        asked = np.tile(places, 2 * n_pairs)
        seen = observe(answers, asked).reshape(2, n_pairs, len(places), -1)
        return np.ascontiguousarray(np.moveaxis((seen[0] - seen[1]) / 2, 0, 2))


def coalitions(n_players: int, seed: int) -> tuple[NDArray[np.bool_], FloatArray]:
    """Return who is inside each coalition, and the operator from differences to values.

    All of them where they are few, and then exact; otherwise a design that is unbiased over labels.

    >>> [part.shape for part in coalitions(20, 0)]
    [(32, 20), (33, 20)]
    """
    every = n_all_pairs(n_players)
    if every == 0:
        return np.zeros((0, n_players), bool), np.ones((1, n_players))
    n_pairs = min(every, max(FEWEST_PAIRS, -(-3 * n_players // 2)))
    masks, weights, shares = _core.draw_design(n_players, n_pairs, seed, 0)
    signs = signs_of(masks, n_players)
    if n_pairs == every:
        operator = enumeration_operator(signs)
    else:
        operator = regression_operator(signs, weights, shares)
    return signs > 0, np.ascontiguousarray(operator.weights)
