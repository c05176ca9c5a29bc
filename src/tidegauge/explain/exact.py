"""Models whose Shapley values are known without sampling: linear ones and ensembles of trees."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegauge.explain.background import Background
from tidegauge.explain.models import extra

logger = logging.getLogger(__name__)

FloatArray = NDArray[np.float64]

TREES = {
    "sklearn": ("DecisionTree", "ExtraTree", "RandomForest", "GradientBoosting", "HistGradient"),
    "lightgbm": ("Booster", "LGBM"),
    "xgboost": ("Booster", "XGB"),
}


@dataclass(frozen=True, slots=True)
class ExactPath:
    """A way to the values that evaluates no coalition."""

    method: str
    explain: Callable[[FloatArray], FloatArray]  # rows[n, columns] -> values[n, columns, outputs]


def find_exact(
    model: Any, background: Background, matrix: FloatArray, base: FloatArray
) -> ExactPath | None:
    """Return the exact path of a model object or of its bound method, None where there is none.

    Only paths whose values add up to the model's own predictions for the background are taken.
    """
    owner = getattr(model, "__self__", model)
    name = getattr(model, "__name__", None) if owner is not model else None
    name = name or ("predict_proba" if hasattr(owner, "predict_proba") else "predict")
    for find in (_linear, _trees):
        try:
            path = find(owner, name, background, matrix)
        except Exception as error:  # of another library, about its own model
            logger.info("no exact path for %s: %s", type(owner).__name__, error)
            continue
        if path is None:
            continue
        wanted = _predictions(owner, name, matrix[:8]) - base
        found = path.explain(matrix[:8]).sum(axis=1)
        scale = max(float(np.abs(wanted).max()), 1e-12)
        if found.shape == wanted.shape and np.abs(found - wanted).max() <= 1e-5 * scale:
            return path
        logger.info("exact values of %s do not add up to %s", type(owner).__name__, name)
    return None


def _predictions(owner: Any, name: str, matrix: FloatArray) -> FloatArray:
    found = np.asarray(getattr(owner, name)(matrix), dtype=np.float64)
    return found.reshape(len(matrix), -1)


def _linear(owner: Any, name: str, background: Background, matrix: FloatArray) -> ExactPath | None:
    """phi_i = w_i (x_i - mean of the background), of a regression or of a classifier's margin."""
    coefficients = getattr(owner, "coef_", None)
    if coefficients is None or not hasattr(owner, "intercept_"):
        return None
    if name not in ("predict", "decision_function") or (
        name == "predict" and hasattr(owner, "classes_")
    ):
        return None
    slopes = np.atleast_2d(np.asarray(coefficients, dtype=np.float64))
    if slopes.shape[1] != matrix.shape[1]:
        return None
    mean = (background.weights[:, None] * matrix).sum(axis=0)
    return ExactPath("linear", lambda rows: (rows - mean)[:, :, None] * slopes.T[None])


def _trees(owner: Any, name: str, background: Background, matrix: FloatArray) -> ExactPath | None:
    library = type(owner).__module__.partition(".")[0]
    if not type(owner).__name__.startswith(TREES.get(library, ())):
        return None
    if np.ptp(background.weights) > 1e-12 * background.weights.max():
        raise ValueError("trees want a background of equal weights")
    if name not in ("predict", "predict_proba", "decision_function"):
        return None
    if name == "predict" and hasattr(owner, "classes_"):
        return None
    shap = extra("shap")
    # Margins, or the probabilities of a forest. Those of boosted trees shap only rescales from
    # margins.
    explainer = shap.TreeExplainer(
        owner,
        shap.maskers.Independent(matrix, max_samples=len(matrix)),
        feature_perturbation="interventional",
        model_output="raw",
    )
    return ExactPath("tree", _of_trees(explainer))


def _of_trees(explainer: Any) -> Callable[[FloatArray], FloatArray]:
    def explain(rows: FloatArray) -> FloatArray:
        found = np.asarray(explainer.shap_values(rows, check_additivity=False), dtype=np.float64)
        return found[:, :, None] if found.ndim == 2 else found

    return explain
