"""Models of what becomes of one prediction, from its features: its loss, or its chance.

Where scores alone do not say how good a prediction is, features may: a regression has no scores at
all. Such a model is fitted on the labelled rows of a reference and asked for every prediction as it
is logged; what it says is summed like a score's chance.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidegauge._core import Batch, SchemaError, find_codes, read_numbers
from tidegauge.calibration import Calibrator

if TYPE_CHECKING:
    from tidegauge.layout import CountedColumn

FloatArray = NDArray[np.float64]

FOLDS = 5
LARGEST_LOSS = 1e70  # sums of its squares must stay below 2**512
LOSS_TREES = {"objective": "regression", "num_leaves": 31, "learning_rate": 0.1}
CHANCE_TREES = {
    "objective": "binary",
    "num_leaves": 8,
    "learning_rate": 0.06,
    "lambda_l2": 5.0,
}
SETTINGS = {"seed": 0, "deterministic": True, "force_row_wise": True, "verbosity": -1}
ROUNDS = {"regression": 100, "binary": 80}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class EventModel:
    """Gradient-boosted trees over features, as text.

    For a regression: the absolute and the squared error to expect of each prediction (direct loss
    estimation). For a binary task: the chance of a positive, from features and calibrated score.
    """

    features: tuple[str, ...]
    trees: tuple[str, ...]  # LightGBM's text format
    before: Calibrator | None = None  # score -> chance that the trees start from
    after: Calibrator | None = None  # what they say -> chance

    @property
    def n_values(self) -> int:
        """Numbers it says about a row."""
        return len(self.trees)

    @cached_property
    def _boosters(self) -> list[Any]:
        lightgbm = _lightgbm()
        return [lightgbm.Booster(model_str=text) for text in self.trees]

    def __call__(
        self,
        batch: Batch,
        columns: Mapping[str, CountedColumn],
        rows: tuple[int, int],
        values: FloatArray,
    ) -> FloatArray:
        """What it says of rows [start, stop), [n, n_values]; NaN where the model has no answer.

        `values` are scores or predicted values, [n].
        """
        if rows[0] == rows[1]:
            return np.empty((0, self.n_values))
        table = np.column_stack([_features(batch, columns, self.features, *rows), values])
        if self.before is None or self.after is None:
            said = [np.clip(trees.predict(table), 0, LARGEST_LOSS) for trees in self._boosters]
            return np.column_stack(said)
        start = _logit(self.before(values))
        raw = self._boosters[0].predict(table, raw_score=True)
        return self.after(_chance(raw + start))[:, None]

    @classmethod
    def fit(
        cls,
        task: str,
        columns: Mapping[str, CountedColumn],
        rows: Sequence[tuple[Batch, int, int]],
        values: FloatArray,
        labels: FloatArray,
    ) -> EventModel | None:
        """Fit one on labelled rows; None where features say no more than the score does."""
        names = tuple(
            name for name, each in columns.items() if each.column.kind in ("numeric", "categorical")
        )
        known = ~np.isnan(labels) & ~np.isnan(values)
        if known.sum() < 2 * FOLDS:
            raise SchemaError(
                'estimator="features" is fitted on labelled rows of the reference, and there are '
                f"{int(known.sum())}"
            )
        table = np.concatenate([_features(batch, columns, names, *span) for batch, *span in rows])
        table = np.column_stack([table, values])[known]
        categories = [k for k, name in enumerate(names) if columns[name].categories is not None]
        values, labels = values[known], labels[known]
        if task == "regression":
            error = values - labels
            losses = (np.abs(error), error**2)
            return cls(names, tuple(_trees(table, loss, categories) for loss in losses))
        return _fit_chance(names, table, values, labels, categories)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {
            "features": list(self.features),
            "trees": list(self.trees),
            "calibrators": [
                None if each is None else each.to_dict() for each in (self.before, self.after)
            ],
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> EventModel:
        """Read a model back."""
        before, after = (
            None if each is None else Calibrator.from_dict(each) for each in stored["calibrators"]
        )
        return cls(tuple(stored["features"]), tuple(stored["trees"]), before, after)


def _fit_chance(
    names: tuple[str, ...],
    table: FloatArray,
    scores: FloatArray,
    labels: FloatArray,
    categories: list[int],
) -> EventModel | None:
    before = Calibrator.fit(scores, labels)
    start = _logit(before(scores))
    fold = np.random.default_rng(0).permutation(len(labels)) % FOLDS
    left_out = np.empty(len(labels))
    for each in range(FOLDS):
        inside = fold != each
        text = _trees(table[inside], labels[inside], categories, start=start[inside])
        trees = _lightgbm().Booster(model_str=text)
        left_out[~inside] = trees.predict(table[~inside], raw_score=True) + start[~inside]
    chances = _chance(left_out)
    after = Calibrator.fit(chances, labels)
    if _log_loss(after(chances), labels) >= _log_loss(before(scores), labels):
        _log.warning("features say no more than the score; estimates are made from scores alone")
        return None
    return EventModel(names, (_trees(table, labels, categories, start=start),), before, after)


def _trees(
    table: FloatArray,
    target: FloatArray,
    categories: list[int],
    *,
    start: FloatArray | None = None,
) -> str:
    lightgbm = _lightgbm()
    settings = LOSS_TREES if start is None else CHANCE_TREES
    data = lightgbm.Dataset(
        table, target, init_score=start, categorical_feature=categories, params=SETTINGS
    )
    rounds = ROUNDS[settings["objective"]]  # type: ignore[index]
    text: str = lightgbm.train({**settings, **SETTINGS}, data, rounds).model_to_string()
    return text


def _features(
    batch: Batch, columns: Mapping[str, CountedColumn], names: Sequence[str], start: int, stop: int
) -> FloatArray:
    """Features as numbers, categories as their codes, NaN where missing, [n, n_features]."""
    n = stop - start
    table = np.full((n, len(names)), np.nan)
    for place, name in enumerate(names):
        kind = batch.kind(name)
        known = columns[name].categories
        if known is None and kind in ("bool", "integer", "float"):
            values = read_numbers(batch, name, start, stop)
            values[np.isin(values, columns[name].column.missing)] = np.nan
            table[:, place] = values
        elif known is not None and kind in ("bool", "integer", "float", "text"):
            codes = find_codes(batch, name, known, start, stop)
            table[:, place] = np.where(codes < 0, np.nan, codes)
    return table


def _logit(chances: FloatArray) -> FloatArray:
    inside = np.clip(chances, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(inside / (1 - inside)))


def _chance(raw: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-raw)))


def _log_loss(chances: FloatArray, labels: FloatArray) -> float:
    inside = np.clip(chances, 1e-6, 1 - 1e-6)
    return float(-np.mean(np.log(np.where(labels == 1, inside, 1 - inside))))


def _lightgbm() -> Any:
    try:
        import lightgbm  # noqa: PLC0415
    except ImportError:
        raise SchemaError(
            'estimator="features" needs LightGBM: pip install "tidegauge[estimate]"'
        ) from None
    return lightgbm
