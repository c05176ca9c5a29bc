"""Rows evaluated: what the model answers for their coalitions, and the values that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tidegauge.explain.coalitions import Link
from tidegauge.explain.device_inputs import DeviceInputs
from tidegauge.explain.estimator import Estimator
from tidegauge.explain.inputs import ArrayInputs, Chunk, FrameInputs, Selection
from tidegauge.explain.operators import FloatArray, product
from tidegauge.explain.players import Player

BLOCK_ROWS = 64  # whose values are worked out together: operators are long, and Python is slow
UNKNOWN = object()


@dataclass(frozen=True, slots=True)
class Part:
    """Values of some rows."""

    values: FloatArray  # [rows, players, outputs]
    errors: FloatArray
    evaluations: NDArray[np.int64]
    failed: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.values)

    def put(self, places: NDArray[np.int64], other: Part) -> None:
        """Put better answers for some rows in their places."""
        self.values[places], self.errors[places] = other.values, other.errors
        self.evaluations[places] += other.evaluations
        self.failed[places] = other.failed

    def first(self, n: int) -> Part:
        """Return the first rows."""
        return Part(self.values[:n], self.errors[:n], self.evaluations[:n], self.failed[:n])


class Failure(Exception):
    """The model failed on `n_rows` rows; `done` holds those that were asked about before."""

    def __init__(self, message: str, n_rows: int, done: Part) -> None:
        super().__init__(message)
        self.n_rows = n_rows
        self.done = done


@dataclass(slots=True)
class Fitted:
    """The background, the model and what it gives for the background."""

    model: Callable[[Any], Any]
    inputs: ArrayInputs | FrameInputs | DeviceInputs
    weights: FloatArray  # of the background's rows, in the order of the inputs
    outputs: FloatArray = field(init=False)  # [background, outputs]
    base: FloatArray = field(init=False)  # [outputs], on the scale of the link
    n_axes: int | None = field(init=False, default=None)  # of outputs beside the rows
    first: NDArray[np.uint64] = field(init=False)  # bits of the first background row
    is_constant: NDArray[np.bool_] = field(init=False)  # columns that never differ from it
    exact: object = field(init=False, default=UNKNOWN)
    watch: bool = field(init=False, default=True)  # whether the next call's input is compared

    def ask(self, given: Any, n: int) -> Any:
        """Call the model and check its answer: [n, outputs] of float64 or float32."""
        before = self.inputs.copy(given) if self.watch else None
        answer = self.inputs.view(self.model(given))
        if self.watch and not self.inputs.same(given, before):
            raise ValueError("the model changes its input; it should work on a copy")
        self.watch = False
        n_axes = len(answer.shape) - 1
        width = self.outputs.shape[1:] if self.n_axes is not None else answer.shape[1:] or (1,)
        if (
            n_axes not in (0, 1)
            or answer.shape[0] != n
            or self.n_axes not in (None, n_axes)
            or (n_axes == 1 and answer.shape[1:] != width)
        ):
            raise ValueError(
                f"the model gave shape {answer.shape} for {n} rows; "
                f"({n},) or ({n}, outputs) is wanted, the same each time"
            )
        if answer.dtype.kind not in "biuf":
            raise TypeError(f"the model gave {answer.dtype}, numbers are wanted")
        self.n_axes = n_axes
        return self.inputs.numbers(answer)


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Asks the model about coalitions of rows and turns its answers into values."""

    fitted: Fitted
    players: tuple[Player, ...]
    link: Link
    tile_rows: int  # that one call of the model is handed
    block_bytes: int  # of differences that wait for an operator

    def explain(
        self,
        chunk: Chunk,
        stages: list[Estimator],
        target: float | None,
        advance: Callable[[int], None],
    ) -> Iterator[Part]:
        """Explain rows in order, a block at a time; later stages take those above the target.

        When the model fails, the rows before the failure come first.
        """
        step = min(self._rows_a_block(stage) for stage in stages)
        for start in range(0, len(chunk), step):
            at = np.arange(start, min(start + step, len(chunk)))
            try:
                part = self._evaluate(chunk, at, stages[0], advance)
            except Failure as failure:
                yield failure.done
                raise
            for stage in stages[1:]:
                above = (part.errors > cast("float", target)).any(axis=(1, 2))
                again = np.flatnonzero(above)
                if not len(again):
                    break
                try:
                    part.put(again, self._evaluate(chunk, at[again], stage, lambda _: None))
                except Failure as failure:
                    n_done = len(failure.done)
                    part.put(again[:n_done], failure.done)
                    yield part.first(int(again[n_done]))
                    raise
            yield part

    def _rows_a_call(self, estimator: Estimator) -> int:
        n_pairs, coalitions = estimator.n_pairs, estimator.coalitions
        n_inputs = coalitions.n_inputs((0, n_pairs)) if coalitions else 0
        alone = n_inputs >= self.fitted.inputs.alone
        return 1 if alone else max(1, self.tile_rows // (n_inputs + 1))

    def _rows_a_block(self, estimator: Estimator) -> int:
        """As many calls as have that many rows and differences."""
        call = self._rows_a_call(estimator)
        row_bytes = 8 * max(estimator.n_pairs, 1) * int(self.fitted.outputs.shape[1])
        return call * max(1, min(BLOCK_ROWS, self.block_bytes // row_bytes) // call)

    def _evaluate(
        self,
        chunk: Chunk,
        at: NDArray[np.int64],
        estimator: Estimator,
        advance: Callable[[int], None],
    ) -> Part:
        """Ask the model about rows, some in each call, and work out their values together."""
        coalitions = estimator.coalitions
        n_outputs, call = self.fitted.outputs.shape[1], self._rows_a_call(estimator)
        found = coalitions.differences(len(at), n_outputs) if coalitions else None
        own: list[Callable[[], FloatArray]] = []  # answers for the rows as they are

        def done(n: int) -> Part:
            answers = [np.empty((0, n_outputs)), *[fetch() for fetch in own]]
            part = coalitions.part(found, slice(0, n)) if coalitions else None
            return self._part(chunk, at[:n], estimator, part, np.concatenate(answers))

        for start in range(0, len(at), call):
            rows = slice(start, min(start + call, len(at)))
            try:
                part = coalitions.part(found, rows) if coalitions else None
                own.append(self._ask(chunk, at[rows], estimator, part))
            except Exception as error:
                raise Failure(str(error), rows.stop - start, done(start)) from error
            advance(rows.stop - start)
        try:
            return done(len(at))
        except Exception as error:  # which a device tells late
            nothing = self._part(chunk, at[:0], estimator, None, np.empty((0, n_outputs)))
            raise Failure(str(error), len(at), nothing) from error

    def _ask(
        self, chunk: Chunk, at: NDArray[np.int64], estimator: Estimator, found: Any
    ) -> Callable[[], FloatArray]:
        """Fill in differences of rows; return how to fetch the answers for the rows as they are."""
        coalitions, n_pairs = estimator.coalitions, estimator.n_pairs
        keys, n = chunk.keys[at], len(at)
        designs, labels = estimator.designs_of(keys), estimator.labels_of(keys)
        step = max(n_pairs, 1)
        if coalitions and n == 1:
            biggest = int(np.diff(estimator.split.starts).max())
            step = max(1, (self.tile_rows - 1) // (2 * biggest))
        own: Callable[[], FloatArray]
        for first in range(0, max(n_pairs, 1), step):
            pairs = (first, min(first + step, n_pairs))
            given = self.fitted.inputs.masked(
                coalitions, chunk, Selection(at, pairs, designs, labels)
            )
            n_masked = n * coalitions.n_inputs(pairs) if coalitions else 0
            answers = self.fitted.ask(given, n_masked + (n if first == 0 else 0))
            if coalitions:
                coalitions.reduce(pairs, answers, self.link, found)
            if first == 0:
                own = self.fitted.inputs.fetch_later(answers, n_masked)
        return own

    def _part(
        self,
        chunk: Chunk,
        at: NDArray[np.int64],
        estimator: Estimator,
        differences: Any,
        answers: FloatArray,
    ) -> Part:
        """Apply the operator of each row's design to the differences of its pairs and its own."""
        coalitions, n_players = estimator.coalitions, len(self.players)
        keys, n = chunk.keys[at], len(at)
        designs, labels = estimator.designs_of(keys), estimator.labels_of(keys)
        operators = [estimator.operator(design) for design in range(estimator.n_designs)]
        deltas = linked(answers, self.link) - self.fitted.base
        last = np.stack([operator.weights[-1] for operator in operators])[designs]
        every = deltas[:, :, None] * last[:, None]
        if coalitions and n:
            weights = [operator.weights[:-1] for operator in operators]
            every = coalitions.multiply(differences, weights, designs) + every
        failed = ~np.isfinite(every).all(axis=(1, 2))

        constants = np.stack([estimator.constants(d) for d in range(estimator.n_designs)])
        every += constants[designs]
        phi = np.ascontiguousarray(every[:, :, :n_players])
        residual_weights = operators[0].residual_weights
        if residual_weights is not None and coalitions and n:
            flat = coalitions.fetch(differences).reshape(-1, estimator.n_pairs)
            fit = product(phi.reshape(-1, n_players), operators[0].signs.T / 2)
            square = product((flat - fit) ** 2, residual_weights).reshape(phi.shape)
        else:
            variance = np.stack([operator.variance for operator in operators])[designs]
            square = estimator.amplitude(every[:, :, n_players:])[:, :, None] * variance[:, None]
        self._drop_nulls(chunk, at, estimator, phi, square)
        spot = labels[:, None, :].astype(np.int64)
        values = np.take_along_axis(phi, spot, axis=2).swapaxes(1, 2)
        errors = np.sqrt(np.take_along_axis(square, spot, axis=2)).swapaxes(1, 2)
        values[failed], errors[failed] = np.nan, np.nan
        evaluations = 1 + (coalitions.n_inputs((0, estimator.n_pairs)) if coalitions else 0)
        return Part(values, errors, np.full(n, evaluations), failed)

    def _drop_nulls(
        self,
        chunk: Chunk,
        at: NDArray[np.int64],
        estimator: Estimator,
        phi: FloatArray,
        square: FloatArray,
    ) -> None:
        """Condition values on players that equal the whole background having none.

        phi and square are [rows, outputs, players], by the labels of each row.
        """
        same = (chunk.bits[at] == self.fitted.first) & self.fitted.is_constant
        rows = np.flatnonzero(same.any(axis=1))
        if not len(rows):
            return
        keys = chunk.keys[at[rows]]
        null = np.column_stack(
            [same[rows][:, list(player.columns)].all(axis=1) for player in self.players]
        )
        labelled = np.empty_like(null)
        np.put_along_axis(labelled, estimator.labels_of(keys).astype(np.int64), null, axis=1)
        for row, design, nulls in zip(rows, estimator.designs_of(keys), labelled, strict=True):
            if nulls.any():
                projection, kept = estimator.without(int(design), nulls)
                phi[row] -= product(np.ascontiguousarray(phi[row][:, nulls]), projection)
                phi[row][:, nulls] = 0
                square[row] *= kept


def linked(mean: FloatArray, link: Link) -> FloatArray:
    """Return means on the scale of the link.

    >>> linked(np.array([0.5]), "logit")
    array([0.])
    """
    if link == "identity":
        return mean
    p = np.clip(mean, 1e-12, 1 - 1e-12)
    return np.log(p / (1 - p))
