"""Performance against scikit-learn on continuous scores, and the properties it must have."""

from __future__ import annotations

import dataclasses

import metric_inputs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from tidegauge import metrics
from tidegauge.metrics import performance
from tidegauge.metrics.inputs import (
    BinaryOutcomes,
    MulticlassOutcomes,
    RegressionOutcomes,
)
from tidegauge.metrics.results import value_of


def score_binary(name: str, outcomes: BinaryOutcomes, **options: object) -> float:
    return float(value_of(metrics.get(name).function_for("binary")(outcomes, **options)))


def score_multiclass(name: str, outcomes: MulticlassOutcomes, **options: object) -> float:
    return float(value_of(metrics.get(name).function_for("multiclass")(outcomes, **options)))


def binary_rows(prevalence: float, size: int = 20_000) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(11)
    label = (random.random(size) < prevalence).astype(int)
    logit = np.log(prevalence / (1 - prevalence)) + random.normal(1.5 * label, 1.2)
    score = 1 / (1 + np.exp(-logit))
    return score, (score >= 0.5).astype(int), label


@pytest.fixture(scope="module", params=[0.4, 0.01], ids=["common", "rare"])
def binary(request: pytest.FixtureRequest) -> tuple[BinaryOutcomes, np.ndarray, np.ndarray]:
    score, decision, label = binary_rows(request.param)
    rows = list(zip(score.tolist(), decision.tolist(), label.tolist(), strict=True))
    return metric_inputs.binary(rows), score, label


DECISIONS = {
    "accuracy": sk.accuracy_score,
    "precision": sk.precision_score,
    "recall": sk.recall_score,
    "specificity": lambda y, d: sk.recall_score(y, d, pos_label=0),
    "negative_predictive_value": lambda y, d: sk.precision_score(y, d, pos_label=0),
    "f1": sk.f1_score,
    "f_beta": lambda y, d: sk.fbeta_score(y, d, beta=2),
    "balanced_accuracy": sk.balanced_accuracy_score,
    "matthews_correlation": sk.matthews_corrcoef,
    "cohen_kappa": sk.cohen_kappa_score,
}


@pytest.mark.parametrize("threshold", [None, 0.1, 0.02])
@pytest.mark.parametrize("name", DECISIONS)
def test_decisions_agree_with_sklearn(binary, name, threshold) -> None:
    outcomes, score, label = binary
    cut = metric_inputs.SCORE_EDGES[np.abs(metric_inputs.SCORE_EDGES - (threshold or 0.5)).argmin()]
    decision = (score >= cut).astype(int)
    if not decision.any():
        return
    ours = score_binary(name, outcomes, threshold=threshold)
    assert ours == pytest.approx(DECISIONS[name](label, decision), rel=1e-12)


def test_confusion_counts_agree_with_sklearn(binary) -> None:
    outcomes, score, label = binary
    tn, fp, fn, tp = sk.confusion_matrix(label, score >= 0.5).ravel()
    names = "true_negatives", "false_positives", "false_negatives", "true_positives"
    assert [score_binary(name, outcomes) for name in names] == [tn, fp, fn, tp]


def test_scores_agree_with_sklearn(binary) -> None:
    outcomes, score, label = binary
    # rows of one score bin count as ties: with 200 positives that is 3 % of the standard error
    few = label.sum() < 1000
    assert score_binary("roc_auc", outcomes) == pytest.approx(
        sk.roc_auc_score(label, score), abs=5e-4 if few else 1e-5
    )
    assert score_binary("average_precision", outcomes) == pytest.approx(
        sk.average_precision_score(label, score), abs=1e-3
    )
    assert score_binary("log_loss", outcomes) == pytest.approx(sk.log_loss(label, score), rel=1e-12)
    assert score_binary("brier_score", outcomes) == pytest.approx(
        sk.brier_score_loss(label, score), rel=1e-12
    )


def test_the_error_of_the_auc_is_delongs(binary) -> None:
    outcomes, score, label = binary
    ranks, own = stats.rankdata(score), np.empty(score.size)
    for value in (0, 1):
        own[label == value] = stats.rankdata(score[label == value])
    others = np.where(label == 1, (label == 0).sum(), (label == 1).sum())
    placements = (ranks - own) / others
    variance = sum(
        placements[label == value].var(ddof=1) / (label == value).sum() for value in (0, 1)
    )
    ours = metrics.get("roc_auc").function_for("binary")(outcomes).standard_error
    assert ours == pytest.approx(np.sqrt(variance), rel=0.01)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(2)
    tp, fp, fn, tn = random.multinomial(300, [0.3, 0.15, 0.1, 0.45], size=4000).T
    outcomes = BinaryOutcomes(
        labelled=np.full(4000, 300),
        labelled_rows=np.full(4000, 300),
        positives=np.stack([fn, tp], axis=-1)[..., None],
        negatives=np.stack([tn, fp], axis=-1)[..., None],
        edges=np.array([0.0, 1.0]),
    )
    truth = {
        "accuracy": 0.75,
        "precision": 0.3 / 0.45,
        "recall": 0.75,
        "f1": 0.6 / 0.85,
        "balanced_accuracy": (0.75 + 0.75) / 2,
    }
    for name, value in truth.items():
        result = metrics.get(name).function_for("binary")(outcomes)
        lower, upper = result.interval()
        assert np.mean((lower <= value) & (value <= upper)) == pytest.approx(0.95, abs=0.015), name


def test_weights_change_no_ratio_and_narrow_no_interval() -> None:
    """Counts come in units of weight * 2**20, `labelled_rows` in rows."""
    score, decision, label = binary_rows(0.4, 500)
    rows = list(zip(score.tolist(), decision.tolist(), label.tolist(), strict=True))
    plain = metric_inputs.binary(rows)
    unit = 3 * 2**20
    scaled = {
        field.name: getattr(plain, field.name) * unit
        for field in dataclasses.fields(plain)
        if field.name not in ("edges", "labelled_rows", "predictions")
    }
    weighted = dataclasses.replace(plain, **scaled)
    for name in metrics.names("performance"):
        form = metrics.get(name).form_for("binary")
        if form is None:
            continue
        before, after = form.function(plain), form.function(weighted)
        np.testing.assert_allclose(value_of(after), value_of(before), rtol=1e-12, err_msg=name)
        if hasattr(before, "interval"):
            np.testing.assert_allclose(
                after.interval(weighted.rows_per_count),
                before.interval(plain.rows_per_count),
                rtol=1e-9,
                err_msg=name,
            )


def test_without_scores_only_decisions_are_measured() -> None:
    outcomes = BinaryOutcomes.from_confusion(tp=4, fp=1, fn=2, tn=3)
    for name in ("roc_auc", "average_precision", "log_loss", "brier_score"):
        assert np.isnan(score_binary(name, outcomes))
    assert np.isnan(score_binary("expected_calibration_error", outcomes))
    assert np.isnan(score_binary("accuracy", outcomes, threshold=0.3))
    assert score_binary("accuracy", outcomes) == 0.7


def test_undefined_ratios_are_nan_not_zero() -> None:
    never = BinaryOutcomes.from_confusion(tp=0, fp=0, fn=2, tn=3)
    assert np.isnan(score_binary("precision", never))
    assert score_binary("recall", never) == 0
    assert score_binary("f1", never) == 0
    assert np.isnan(score_binary("matthews_correlation", never))
    one_class = BinaryOutcomes.from_confusion(tp=0, fp=1, fn=0, tn=3)
    assert np.isnan(score_binary("recall", one_class))
    assert np.isnan(score_binary("balanced_accuracy", one_class))
    fiddler = score_binary("geometric_mean", never, convention="fiddler")
    assert np.isnan(fiddler)


def test_huge_counts_do_not_overflow() -> None:
    big = 2**20 * 10**9
    outcomes = BinaryOutcomes.from_confusion(tp=3 * big, fp=big, fn=big, tn=3 * big)
    assert score_binary("matthews_correlation", outcomes) == pytest.approx(0.5)
    assert score_binary("cohen_kappa", outcomes) == pytest.approx(0.5)


outcome_rows = st.lists(
    st.tuples(st.floats(0.001, 0.999), st.integers(0, 1), st.integers(0, 1)),
    min_size=1,
    max_size=60,
)


@given(outcome_rows)
def test_a_threshold_only_moves_rows_between_decisions(rows) -> None:
    outcomes = metric_inputs.binary(rows)
    labels = sum(label for _, _, label in rows)
    earlier = len(rows)
    for threshold in (0.0, 0.25, 0.5, 0.75, 1.0):
        counts = performance.confusion(outcomes, threshold)
        assert counts.total == len(rows)
        assert counts.tp + counts.fn == labels
        assert counts.tp + counts.fp <= earlier
        earlier = counts.tp + counts.fp
    assert performance.confusion(outcomes, 0.0).tp == labels
    assert performance.confusion(outcomes, 1.0).tp == 0


@given(outcome_rows)
def test_auc_turns_around_with_the_labels(rows) -> None:
    outcomes = metric_inputs.binary(rows)
    swapped = dataclasses.replace(
        outcomes, positives=outcomes.negatives, negatives=outcomes.positives
    )
    auc, other = score_binary("roc_auc", outcomes), score_binary("roc_auc", swapped)
    assert (np.isnan(auc) and np.isnan(other)) or auc + other == pytest.approx(1)


@pytest.fixture(scope="module")
def multiclass() -> tuple[MulticlassOutcomes, np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(4)
    true = random.choice(3, size=6000, p=[0.6, 0.3, 0.1])
    logits = random.normal(size=(6000, 3)) + 1.3 * np.eye(3)[true]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predicted = scores.argmax(axis=1)
    rows = list(zip(map(tuple, scores.tolist()), predicted.tolist(), true.tolist(), strict=True))
    return metric_inputs.multiclass(rows), scores, predicted, true


def test_multiclass_agrees_with_sklearn(multiclass) -> None:
    outcomes, scores, predicted, true = multiclass
    exact = {
        "accuracy": sk.accuracy_score(true, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(true, predicted),
        "matthews_correlation": sk.matthews_corrcoef(true, predicted),
        "cohen_kappa": sk.cohen_kappa_score(true, predicted),
        "log_loss": sk.log_loss(true, scores),
        "brier_score": ((scores - np.eye(3)[true]) ** 2).sum(axis=1).mean(),
        "top_k_accuracy": sk.top_k_accuracy_score(true, scores, k=2),
    }
    for average in ("macro", "weighted"):
        exact[f"{average}_precision"] = sk.precision_score(true, predicted, average=average)
        exact[f"{average}_recall"] = sk.recall_score(true, predicted, average=average)
        exact[f"{average}_f1"] = sk.f1_score(true, predicted, average=average)
    for name, value in exact.items():
        assert score_multiclass(name, outcomes) == pytest.approx(value, rel=1e-12), name
    auc = sk.roc_auc_score(true, scores, multi_class="ovr", average="macro")
    assert score_multiclass("roc_auc", outcomes) == pytest.approx(auc, abs=1e-5)
    precision = sk.average_precision_score(np.eye(3)[true], scores, average="macro")
    assert score_multiclass("average_precision", outcomes) == pytest.approx(precision, abs=1e-3)


def test_classes_agree_with_sklearn(multiclass) -> None:
    outcomes, _, predicted, true = multiclass
    precision, recall, f1, _ = sk.precision_recall_fscore_support(true, predicted)
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        ours = value_of(metrics.get(name).function_for("multiclass")(outcomes))
        np.testing.assert_allclose(ours, values, rtol=1e-12)


def test_a_class_that_never_occurs_changes_no_average(multiclass) -> None:
    outcomes, *_ = multiclass
    wider = MulticlassOutcomes(
        confusion=np.pad(outcomes.confusion, (0, 1)),
        scores=np.pad(outcomes.scores, ((0, 1), (0, 0), (0, 0))),
        ranks=np.pad(outcomes.ranks, (0, 1)),
        edges=outcomes.edges,
    )
    for name in metrics.names("performance"):
        form = metrics.get(name).form_for("multiclass")
        if form is None or form.per_class or not name.startswith(("macro", "weighted", "roc")):
            continue
        before, after = score_multiclass(name, outcomes), score_multiclass(name, wider)
        assert after == pytest.approx(before, rel=1e-12), name


@pytest.fixture(scope="module")
def regression() -> tuple[RegressionOutcomes, np.ndarray, np.ndarray]:
    random = np.random.default_rng(9)
    label = random.gamma(2.0, 10.0, size=5000)
    prediction = np.abs(label + random.normal(1.0, 4.0, size=5000))
    rows = list(zip(prediction.tolist(), label.tolist(), strict=True))
    return metric_inputs.regression(rows), prediction, label


REGRESSIONS = {
    "mae": sk.mean_absolute_error,
    "mse": sk.mean_squared_error,
    "rmse": sk.root_mean_squared_error,
    "mape": sk.mean_absolute_percentage_error,
    "rmsle": sk.root_mean_squared_log_error,
    "r2": sk.r2_score,
    "explained_variance": sk.explained_variance_score,
    "mean_error": lambda y, p: (p - y).mean(),
    "wape": lambda y, p: np.abs(p - y).sum() / np.abs(y).sum(),
}


@pytest.mark.parametrize("name", REGRESSIONS)
def test_regression_agrees_with_sklearn(regression, name) -> None:
    outcomes, prediction, label = regression
    ours = value_of(metrics.get(name).function_for("regression")(outcomes))
    assert ours == pytest.approx(REGRESSIONS[name](label, prediction), rel=1e-10)


def test_intervals_of_means_are_those_of_the_rows(regression) -> None:
    outcomes, prediction, label = regression
    for name, losses in (("mae", np.abs(prediction - label)), ("mse", (prediction - label) ** 2)):
        result = metrics.get(name).function_for("regression")(outcomes)
        expected = losses.std() / np.sqrt(losses.size)
        assert result.standard_error == pytest.approx(expected, rel=1e-9)


def test_equal_labels_leave_no_variance_to_explain() -> None:
    outcomes = metric_inputs.regression([(1.0, 3.0), (2.0, 3.0)])
    assert np.isnan(performance.r2(outcomes))
    assert np.isnan(performance.explained_variance(outcomes))
    assert performance.mae(outcomes).value == 1.5


def test_perfect_predictions() -> None:
    outcomes = metric_inputs.regression([(1.0, 1.0), (3.0, 3.0)])
    assert performance.rmse(outcomes).interval() == (0, 0)
    assert performance.r2(outcomes) == 1
