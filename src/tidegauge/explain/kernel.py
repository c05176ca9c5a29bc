"""Kernel SHAP for batches: what each feature adds to a prediction, for any model function."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from tidegauge import _core
from tidegauge._core import DataError
from tidegauge.explain import exact as exact_paths
from tidegauge.explain.background import Background
from tidegauge.explain.device_inputs import DeviceInputs, choose_device, on_host
from tidegauge.explain.estimator import (
    CALIBRATION_ROWS,
    SHUFFLE_STREAM,
    CalibrationDesign,
    Estimator,
    learn_noise,
    plan_budget,
)
from tidegauge.explain.evaluation import UNKNOWN, Evaluator, Failure, Fitted, Part, linked
from tidegauge.explain.inputs import (
    ArrayInputs,
    Chunk,
    FrameInputs,
    Selection,
    columns_of,
    frame_of,
    matrix_of,
)
from tidegauge.explain.models import as_function, extra
from tidegauge.explain.operators import FloatArray, Noise, split_background
from tidegauge.explain.players import players_of
from tidegauge.explain.progress import progress_bar

logger = logging.getLogger(__name__)

LINKS = ("identity", "logit")
HOST_BYTES, DEVICE_BYTES = 64 << 20, 256 << 20  # own memory, unless a parameter says otherwise
TILE_BYTES = 2 << 20  # of the input of one call: few calls, and it stays in the cache
STAGES = (16, 4, 1)  # with a target: the budget is tried at a sixteenth, a quarter and whole


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """Shapley values of some rows, with what is known of their error.

    `values` and `standard_errors` are [rows, players], or [rows, players, outputs] of a model with
    several; base and prediction, on the scale of the link, are their sum: base +
    values.sum(axis=1).
    """

    values: FloatArray
    standard_errors: FloatArray
    base_values: FloatArray
    evaluations: NDArray[np.int64]  # rows that the model was handed for each row
    method: str
    n_failed: int  # rows without values, because the model gave something that is not finite
    seconds: float


class ModelError(RuntimeError):
    """The model failed on some rows; `partial` holds the explanation of all rows before them.

    `rows` is the range of rows that the failing call was about.
    """

    def __init__(self, message: str, rows: tuple[int, int], partial: Any) -> None:
        super().__init__(message)
        self.rows = rows
        self.partial = partial


class KernelExplainer:
    """What each feature of a row adds to its prediction, for any model function, in batches.

    The Shapley values of the game v(S) = link(mean over background rows b of model(x_S, b_rest)):
    the features in S are the row's, the others those of a background row. They add up to the
    prediction less the mean prediction of the background.

    Few players are enumerated and exact. Otherwise pairs of a coalition and its complement are
    drawn once, for all rows, and one linear operator turns their differences into values and error
    bars. The background is split over the pairs when the budget is small. Nothing depends on which
    rows come together: equal rows have equal values, and a seed gives the same bits for any batch,
    tile and order of rows, as long as the model answers a row without regard to its neighbours.

    Parameters
    ----------
    model
        A function of rows to predictions, [n] or [n, outputs]; an object with predict_proba or
        predict; the path of an ONNX file.
    background
        Rows that stand for "not known", a hundred or so, or what `tidegauge.explain.summarize`
        makes of more. Their kind is what the model is handed: an array (float64, or float32),
        pandas, polars or Arrow, with the columns' types.
    features
        Names of an array's columns; of a table, the columns that the model wants, in order.
    groups
        Name of a group to the columns that are one player; the other columns are players of their
        own.
    link
        "identity": values add up on the scale of the model. "logit": of probabilities, to log odds;
        each coalition then needs the whole background.
    method
        "sinh": generalised least squares under a prior on interactions. "wls": paired weighted
        least squares over the whole background, unbiased over many rows. "auto": the former. Both
        give way to enumeration where the budget allows.
    exact
        "auto": linear models and ensembles of trees are explained in closed form when the object
        itself, or its bound method, is handed over. "never": by evaluation always.
    dtype
        "float32" evaluates the model in single precision; for arrays alone.
    device
        Where rows are masked and answers reduced, chosen here and now. "cuda": on CuPy's current
        device; the model is handed CuPy arrays (torch and others take them by DLPack), an ONNX file
        runs there too. "auto": there when the background lies there, or the model is an ONNX file
        that onnxruntime can run there. Values are the same bits wherever the model answers alike.
    seed
        Decides every draw.
    max_bytes
        Memory beyond the model's own and the rows': 64 MiB of the host's, and 256 MiB of a
        device's, unless given.

    Examples
    --------
    >>> background = np.zeros((1, 3))
    >>> explainer = KernelExplainer(lambda x: x[:, 0] * x[:, 1] + x[:, 2], background)
    >>> explanation = explainer(np.array([[1.0, 2.0, 3.0]]))
    >>> explanation.values.round(9).tolist(), explanation.method
    ([[1.0, 1.0, 3.0]], 'enumeration')
    """

    def __init__(
        self,
        model: Any,
        background: Any,
        *,
        features: Sequence[str] | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        link: Literal["identity", "logit"] = "identity",
        method: Literal["auto", "sinh", "wls"] = "auto",
        exact: Literal["auto", "never"] = "auto",
        dtype: Literal["float32", "float64"] | None = None,
        device: Literal["cpu", "cuda", "auto"] = "auto",
        seed: int = 0,
        max_bytes: int | None = None,
    ) -> None:
        _allowed("link", link, LINKS)
        _allowed("method", method, ("auto", "sinh", "wls"))
        _allowed("exact", exact, ("auto", "never"))
        _allowed("dtype", dtype, (None, "float32", "float64"))
        if not 0 <= seed < 1 << 32:
            raise ValueError(f"seed is a number from 0 to {(1 << 32) - 1}, got {seed}")
        self._device = choose_device(device, background, model)
        self.device = "cpu" if self._device is None else "cuda"
        self.link: Literal["identity", "logit"] = link
        self.method = method
        self.exact = exact
        self.seed = seed
        self.max_bytes = max_bytes
        background = Background.of(background)
        rows = on_host(background.rows, self._device, "background")
        self.background = Background(rows, background.weights)
        self.columns = columns_of(self.background.rows, features)
        self.players = players_of(self.columns, groups)
        self.model = as_function(model, self._device)
        self._object = model
        self._dtype = None if dtype is None else np.dtype(dtype)
        self._fitted: Fitted | None = None
        self._noise: Noise | None = None
        self._estimators: dict[int | None, Estimator] = {}

    @property
    def feature_names(self) -> list[str]:
        """Names of the players: columns and groups."""
        return [player.name for player in self.players]

    @property
    def expected_value(self) -> Any:
        """Mean prediction of the background, on the scale of the link."""
        with self._active():
            fitted = self._fit()
        return fitted.base if fitted.n_axes else float(fitted.base[0])

    def fit(self, rows: Any) -> KernelExplainer:
        """Learn the model's noise and scales from these rows instead of from the background.

        Eight of them are used; they should look like the traffic that will be explained.
        """
        rows = on_host(rows, self._device, "rows")
        with self._active():
            chunks = self._fit().inputs.chunks(rows)
            if not chunks:
                raise DataError("fit wants at least one row")
            self._noise = self._learn(chunks[0])
        self._estimators.clear()
        return self

    def __call__(
        self,
        rows: Any,
        max_evaluations: int | None = None,
        *,
        standard_error: float | None = None,
        progress: Literal["auto", "never"] = "auto",
    ) -> Any:
        """Explain rows.

        Parameters
        ----------
        rows
            What the model is asked about; columns are found by name where they have names.
        max_evaluations
            Rows that the model may be handed for each row explained. None: 16,384, or 1,024
            coalitions of the whole background with a link; with up to 11 players, all coalitions.
        standard_error
            Stop earlier at rows whose standard errors are all below this, in units of the
            prediction.
        progress
            "auto" shows a bar on a terminal once the work takes longer than two seconds.

        Returns
        -------
        shap.Explanation
            With `standard_errors` (also as error_std), `method`, `evaluations` a row and
            `n_failed`, the rows that have NaN for values because the model gave something that is
            not finite.

        Raises
        ------
        ModelError
            When the model fails on some rows; its `partial` holds the rows before them.
        """
        rows = on_host(rows, self._device, "rows")
        try:
            found = self.attribute(
                rows, max_evaluations, standard_error=standard_error, progress=progress
            )
        except ModelError as error:
            if error.partial is not None:
                error.partial = self._explanation(rows, error.partial)
            raise
        return self._explanation(rows, found)

    def attribute(
        self,
        rows: Any,
        max_evaluations: int | None = None,
        *,
        standard_error: float | None = None,
        progress: Literal["auto", "never"] = "auto",
    ) -> Attribution:
        """Explain rows as plain arrays; what `__call__` wraps, without a need for shap."""
        rows = on_host(rows, self._device, "rows")
        with self._active():
            return self._attribute(rows, max_evaluations, standard_error, progress)

    def _attribute(
        self,
        rows: Any,
        max_evaluations: int | None,
        standard_error: float | None,
        progress: Literal["auto", "never"],
    ) -> Attribution:
        start = time.perf_counter()
        fitted = self._fit()
        chunks = fitted.inputs.chunks(rows)
        exact = self._exact_path()
        parts: list[Part] = []
        if exact is None:
            budgets = self._stages(max_evaluations, standard_error)
            fitted.watch = True
            block_bytes = (self.max_bytes or HOST_BYTES) // 64
            evaluator = Evaluator(fitted, self.players, self.link, self._tile_rows(), block_bytes)
        total = sum(map(len, chunks))
        with progress_bar(total, progress) as advance:
            done = 0
            for chunk in chunks:
                if exact is not None:
                    parts.append(self._explain_exactly(exact, chunk))
                    advance(len(chunk))
                    continue
                try:
                    for part in evaluator.explain(chunk, budgets, standard_error, advance):
                        parts.append(part)
                        done += len(part.values)
                except Failure as failure:
                    partial = self._joined(parts, exact, budgets, start) if done else None
                    rows = done, done + failure.n_rows
                    raise ModelError(
                        f"rows [{rows[0]}, {rows[1]}): {failure}; {done} rows were finished",
                        rows,
                        partial,
                    ) from failure.__cause__
        return self._joined(parts, exact, budgets if exact is None else [], start)

    def _active(self) -> AbstractContextManager[None]:
        """While entered, calls go to the explainer's device."""
        return nullcontext() if self._device is None else self._device.active()

    # --- once ---------------------------------------------------------------------------------

    def _fit(self) -> Fitted:
        """Ask the model about the background."""
        if self._fitted is not None:
            return self._fitted
        n = len(self.background)
        order = _core.shuffle_labels(np.array([SHUFFLE_STREAM], np.uint64), n, self.seed)[0]
        order = order.astype(np.int64)
        players = np.zeros(len(self.columns), np.int32)
        for place, player in enumerate(self.players):
            players[list(player.columns)] = place
        frame = frame_of(self.background.rows)
        inputs: ArrayInputs | FrameInputs | DeviceInputs
        if frame is None:
            matrix = matrix_of(self.background.rows, self.columns, self._dtype)
            inputs = ArrayInputs(matrix, order, self.columns, players)
            if self._device is not None:
                inputs = DeviceInputs(self._device, inputs)
        elif self._dtype is not None:
            raise ValueError("dtype is for arrays; a table's columns keep their types")
        else:
            inputs = FrameInputs(frame, self.background.rows, order, self.columns, players)
        fitted = Fitted(self.model, inputs, self.background.weights[order])
        try:
            given = inputs.background()
            outputs = inputs.fetch(fitted.ask(given, n))
        except Exception as error:
            kind = f"{type(given).__module__.partition('.')[0]}.{type(given).__name__}"
            raise ModelError(
                f"the model failed on the background, a {kind}: {error}", (0, 0), None
            ) from error
        if not np.isfinite(outputs).all():
            bad = int((~np.isfinite(outputs)).any(axis=1).sum())
            raise DataError(f"the model's output is not finite for {bad} of {n} background rows")
        base = (fitted.weights[:, None] * outputs).sum(axis=0)
        fitted.outputs = outputs
        fitted.base = linked(base, self.link)
        bits = inputs.background_bits()
        fitted.first, fitted.is_constant = bits[0], (bits == bits[0]).all(axis=0)
        self._fitted = fitted
        return fitted

    def _exact_path(self) -> exact_paths.ExactPath | None:
        fitted = self._fit()
        if self.exact == "never" or self.link != "identity" or self._dtype == np.float32:
            return None
        if isinstance(self._object, str | Path) or isinstance(fitted.inputs, FrameInputs):
            return None
        if fitted.exact is UNKNOWN:
            matrix = matrix_of(self.background.rows, self.columns, np.dtype(np.float64))
            found = exact_paths.find_exact(self._object, self.background, matrix, fitted.base)
            grouped = any(len(player.columns) > 1 for player in self.players)
            fitted.exact = None if found and grouped and found.method != "linear" else found
            if fitted.exact is not None:
                logger.info("explained exactly, as %s", fitted.exact.method)
        return cast("exact_paths.ExactPath | None", fitted.exact)

    def _estimator(self, evaluations: int | None) -> Estimator:
        if evaluations not in self._estimators:
            n_players, n = len(self.players), len(self.background)
            budget = plan_budget(
                n_players,
                n,
                evaluations,
                whole=self.link != "identity" or self.method == "wls",
                wanted=self.method,
                most_pairs=_most_pairs(self.max_bytes or HOST_BYTES, n_players),
            )
            if budget.method == "sinh" and self._noise is None:
                self._noise = self._learn(None)
            noise = self._noise or Noise.unknown(n_players)
            fitted = self._fit()
            self._estimators[evaluations] = Estimator(
                n_players, budget, fitted.weights, noise, self.seed, fitted.inputs.coalitions
            )
        return self._estimators[evaluations]

    def _stages(self, evaluations: int | None, target: float | None) -> list[Estimator]:
        last = self._estimator(evaluations)
        if target is None or last.method == "enumeration":
            return [last]
        if target <= 0:
            raise ValueError(f"standard_error is a positive number, got {target}")
        most = last.n_pairs * 2 * -(-len(self.background) // last.budget.n_groups)
        stages = []
        for share in STAGES[:-1]:
            try:
                stages.append(self._estimator(most // share))
            except ValueError:
                continue  # too few for the players
        return [*stages, last]

    def _learn(self, chunk: Chunk | None) -> Noise:
        """Evaluate some rows with each background row apart."""
        fitted, n_players = self._fit(), len(self.players)
        if chunk is None:
            chunk = fitted.inputs.background_chunk()
        if len(fitted.weights) < 2:
            return Noise.unknown(n_players)
        design = CalibrationDesign.draw(n_players, self.seed)
        n = len(fitted.weights)
        whole = split_background(fitted.weights, 1)
        coalitions = fitted.inputs.coalitions(design.masks[None], whole, np.arange(n))
        step = max(1, self._tile_rows() // (2 * n))
        n_pairs, n_outputs = len(design.signs), fitted.outputs.shape[1]
        labels = np.arange(n_players, dtype=np.int32)[None]

        def differences() -> Iterator[tuple[FloatArray, FloatArray]]:
            for row in range(min(CALIBRATION_ROWS, len(chunk))):
                found = np.empty((n_outputs, n, n_pairs))
                own = np.empty((1, n_outputs))
                for first in range(0, n_pairs, step):
                    pairs = (first, min(first + step, n_pairs))
                    selection = Selection(np.array([row]), pairs, np.zeros(1, np.int32), labels)
                    given = fitted.inputs.masked(coalitions, chunk, selection)
                    n_masked = coalitions.n_inputs(pairs)
                    answers = fitted.inputs.fetch(fitted.ask(given, n_masked + (first == 0)))
                    sides = answers[:n_masked].reshape(-1, 2, n, n_outputs)
                    found[:, :, slice(*pairs)] = 0.5 * (sides[:, 0] - sides[:, 1]).T
                    if first == 0:
                        own = answers[n_masked:]
                deltas = (own - fitted.outputs).T
                if np.isfinite(found).all() and np.isfinite(deltas).all():
                    yield found, np.ascontiguousarray(deltas)

        return learn_noise(design, differences(), fitted.weights, self.seed)

    def _tile_rows(self) -> int:
        """Rows that one call of the model is handed."""
        inputs = self._fit().inputs
        if isinstance(inputs, DeviceInputs):
            room = (self.max_bytes or DEVICE_BYTES) // 2
        else:
            room = min(TILE_BYTES, (self.max_bytes or HOST_BYTES) // 16)
        return max(256, room // max(inputs.row_bytes, 1))

    # --- rows ---------------------------------------------------------------------------------

    def _explain_exactly(self, path: exact_paths.ExactPath, chunk: Chunk) -> Part:
        by_column = path.explain(np.asarray(chunk.content, dtype=np.float64))
        values = np.stack(
            [by_column[:, list(player.columns)].sum(axis=1) for player in self.players], axis=1
        )
        failed = ~np.isfinite(values).all(axis=(1, 2))
        values[failed] = np.nan
        return Part(
            values, np.where(np.isnan(values), np.nan, 0.0), np.zeros(len(chunk), np.int64), failed
        )

    # --- results ------------------------------------------------------------------------------

    def _joined(
        self,
        parts: list[Part],
        exact: exact_paths.ExactPath | None,
        stages: list[Estimator],
        start: float,
    ) -> Attribution:
        fitted = self._fit()
        shape = (0, len(self.players), fitted.outputs.shape[1])
        values = np.concatenate([np.empty(shape), *[part.values for part in parts]])
        errors = np.concatenate([np.empty(shape), *[part.errors for part in parts]])
        base = np.tile(fitted.base, (len(values), 1))
        if not fitted.n_axes:
            values, errors, base = values[:, :, 0], errors[:, :, 0], base[:, 0]
        return Attribution(
            values=values,
            standard_errors=errors,
            base_values=base,
            evaluations=np.concatenate(
                [np.empty(0, np.int64), *[part.evaluations.astype(np.int64) for part in parts]]
            ),
            method=exact.method if exact is not None else stages[-1].method,
            n_failed=int(sum(part.failed.sum() for part in parts)),
            seconds=time.perf_counter() - start,
        )

    def _explanation(self, rows: Any, found: Attribution) -> Any:
        n = len(found.values)
        data = np.empty((n, len(self.players)), object)
        columns = self._fit().inputs.columns_of_rows(rows, n)
        for place, player in enumerate(self.players):
            if len(player.columns) == 1:
                data[:, place] = columns[player.columns[0]]
            else:
                data[:, place] = np.nan
        with suppress(TypeError, ValueError):  # text and the like stay as they are
            data = data.astype(np.float64)
        return explanation_of(found, data, self.feature_names)


# --- small parts ----------------------------------------------------------------------------------


def _allowed(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} {value!r} is unknown; allowed: {', '.join(map(repr, allowed))}")


def _most_pairs(max_bytes: int, n_players: int) -> int:
    """Pairs whose operator can be made in a memory: a matrix of them, and a few of their width."""
    room = (max_bytes - max_bytes // 8) / 8
    width = 6 * (2 * n_players + 32)
    return int((np.sqrt(width**2 + 4 * room) - width) / 2)


@cache
def _explanation_class() -> type:
    class Explanation(extra("shap").Explanation):  # type: ignore[misc]
        """Explanation of shap, with what is known of its error."""

        method = ""
        n_failed = 0
        evaluations: NDArray[np.int64] | None = None

        def __getitem__(self, item: Any) -> Any:
            found = super().__getitem__(item)
            found.__class__ = type(self)  # shap makes its own
            found.method = self.method
            return found

        @property
        def standard_errors(self) -> Any:
            """Standard error of each value."""
            return self.error_std

    return Explanation


def explanation_of(found: Attribution, data: Any, names: list[str]) -> Any:
    """Wrap an attribution for the plots of shap."""
    explanation = _explanation_class()(
        found.values,
        base_values=found.base_values,
        data=data,
        feature_names=names,
        error_std=found.standard_errors,
        compute_time=found.seconds,
    )
    explanation.method = found.method
    explanation.n_failed = found.n_failed
    explanation.evaluations = found.evaluations
    return explanation
