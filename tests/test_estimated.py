"""Estimated performance: against NannyML, against the labels, and however the rows are split."""

from __future__ import annotations

import operator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.isotonic import IsotonicRegression

import tidegauge as tg
from tidegauge import comparison
from tidegauge._core import fit_isotonic
from tidegauge.calibration import Calibrator
from tidegauge.ingest import as_batch
from tidegauge.metrics import BinaryEstimates, BinaryOutcomes
from tidegauge.metrics.estimated import Errors, estimated_log_loss
from tidegauge.metrics.inputs import FloatArray

GOLDEN = np.load(Path(__file__).parent / "golden" / "nannyml.npz")
DAY = np.timedelta64(1, "D")
START = np.datetime64("2024-03-01", "us")
NAMES = [name for name in tg.metrics.names("estimated") if "binary" in tg.metrics.get(name).tasks]


def golden(prefix: str) -> dict[str, np.ndarray]:
    return {name: GOLDEN[f"{prefix}.{name}"] for name in ("metrics", "answers")}


def traffic(n: int, *, seed: int = 0, days: int = 4) -> dict[str, np.ndarray]:
    """Scores that are too high by a power, on some days."""
    random = np.random.default_rng(seed)
    score = random.beta(1.5, 3, n).round(4)
    return {
        "id": np.arange(n) + 1_000_000 * seed,
        "time": START + np.sort(random.integers(0, days * 86_400, n)) * np.timedelta64(1, "s"),
        "where": random.choice(["a", "b", "c"], n),
        "score": score,
        "label": (random.random(n) < score**1.4).astype(int),
    }


SCHEMA = tg.Schema(
    task="binary",
    prediction_id="id",
    timestamp="time",
    prediction_score="score",
    label="label",
    segments=["where"],
)


@pytest.fixture(scope="module")
def reference() -> tg.Reference:
    return tg.Reference.fit(traffic(20_000, seed=1, days=20), SCHEMA)


def unlabelled(table: dict[str, np.ndarray], rows: slice = slice(None)) -> dict[str, np.ndarray]:
    return {name: values[rows] for name, values in table.items() if name != "label"}


def values_of(monitor: tg.Monitor, metrics: list[object], **choice: object) -> np.ndarray:
    table = monitor.metrics(metrics, **choice)  # type: ignore[arg-type]
    columns = [table[name].to_numpy() for name in ("value", "lower", "upper")]
    return np.stack(columns, axis=1)


# --- the calibrator ----------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=60))
def test_isotonic_regression_is_that_of_scikit_learn(rows) -> None:
    score, label = np.array(sorted(rows), dtype=float).T.copy()
    knots, chances = fit_isotonic(score, label, np.ones(len(label)))
    between = np.linspace(-1, 21, 45)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(score, label)
    ours = Calibrator(knots, chances, isotonic=True)
    assert_allclose(ours(between), theirs.predict(between), rtol=1e-12, atol=1e-12)
    assert (np.diff(ours(between)) >= 0).all()
    assert_array_equal(ours(np.array([np.nan])), [np.nan])


def test_scores_that_are_chances_are_left_as_they_are() -> None:
    random = np.random.default_rng(0)
    score = random.random(50_000)
    noisy = (random.random(50_000) < score).astype(float)
    fitted = Calibrator.fit(score, (random.random(50_000) < score**2).astype(float))
    assert fitted.isotonic
    assert_allclose(fitted(np.array([0.3, 0.9])), [0.09, 0.81], atol=0.02)
    assert not Calibrator.fit(score, (score > 0.4).astype(float)).isotonic  # separated
    assert not Calibrator.fit(score, np.ones(50_000)).isotonic  # one class
    assert np.abs(Calibrator.fit(score, noisy)(score) - score).mean() < 0.01


# --- against NannyML ---------------------------------------------------------------------------


def census(side: str) -> dict[str, np.ndarray]:
    names = ("score", "decision") + (("label",) if side == "reference" else ())
    table = {name: GOLDEN[f"census.{side}.{name}"] for name in names}
    return table | {"time": START + np.arange(len(table["score"])) // 3000 * DAY}  # a chunk a day


def test_binary_estimates_are_those_of_nannyml() -> None:
    schema = tg.Schema(
        task="binary",
        timestamp="time",
        prediction_score="score",
        prediction="decision",
        label="label",
    )
    reference = tg.Reference.fit(census("reference"), schema)
    assert reference.layout.calibrators[0].isotonic
    monitor = tg.Monitor(reference, window="1d")
    monitor.log(census("analysis"))
    answers = golden("census")
    for place, name in enumerate(answers["metrics"]):
        ours = f"estimated_{name}" + ("s" if str(name).endswith("tive") else "")
        found = values_of(monitor, [tg.metrics.get(ours, band="sampling")])
        value, error = answers["answers"][:, place].T
        near = {"roc_auc": 1e-6, "average_precision": 1e-3}.get(str(name), 1e-9)
        assert_allclose(found[:, 0] / value, 1, atol=near)
        if name == "average_precision":  # theirs are resampled, ours a formula
            assert_allclose((found[:, 2] - found[:, 0]) / 3, error, rtol=0.6)
            continue
        half = np.minimum(value + 3 * error, tg.metrics.get(ours).bounds[1]) - value
        assert_allclose(found[:, 2] - found[:, 0], half, rtol=2e-3 if name == "roc_auc" else 1e-6)


def credit(side: str) -> dict[str, np.ndarray]:
    classes = GOLDEN["credit.classes"]
    scores = GOLDEN[f"credit.{side}.scores"] / 100
    table = {f"p_{name}": scores[:, k].copy() for k, name in enumerate(classes)}
    names = ("decision", "label") if side == "reference" else ("decision",)
    table |= {name: classes[GOLDEN[f"credit.{side}.{name}"]] for name in names}
    return table | {"time": START + np.arange(len(scores)) // 3000 * DAY}


def credit_monitor() -> tg.Monitor:
    schema = tg.Schema(
        task="multiclass",
        timestamp="time",
        prediction_score={name: f"p_{name}" for name in sorted(GOLDEN["credit.classes"].tolist())},
        prediction="decision",
        label="label",
    )
    return tg.Monitor(tg.Reference.fit(credit("reference"), schema), window="1d")


def test_multiclass_estimates_are_those_of_nannyml() -> None:
    monitor = credit_monitor()
    monitor.log(credit("analysis"))
    answers = golden("credit")
    for place, name in enumerate(answers["metrics"]):
        if name in ("specificity", "roc_auc"):  # not one of ours; scores of two decimals tie
            continue
        ours = "estimated_accuracy" if name == "accuracy" else f"estimated_macro_{name}"
        found = values_of(monitor, [tg.metrics.get(ours, band="sampling")])
        value, error = answers["answers"][:, place].T
        assert_allclose(found[:, 0], value, atol=1e-9)
        assert_allclose(found[:, 2] - found[:, 0], 3 * error, rtol=1e-6)
    # Theirs counts equal scores one after another, in whatever order a sort left them; ours counts
    # them as equal. Scores of two decimals are often equal.
    auc = values_of(monitor, ["estimated_roc_auc"])[:, 0]
    theirs = answers["answers"][:, list(answers["metrics"]).index("roc_auc"), 0]
    calibrators = monitor.reference.layout.calibrators
    table = credit("analysis")
    names = [f"p_{name}" for name in sorted(GOLDEN["credit.classes"].tolist())]
    chances = np.stack(
        [each(table[name]) for each, name in zip(calibrators, names, strict=True)], axis=1
    )
    chances /= chances.sum(axis=1, keepdims=True)
    for chunk in range(len(auc)):
        rows = slice(3000 * chunk, 3000 * (chunk + 1))
        areas = [_areas(table[name][rows], chances[rows, k]) for k, name in enumerate(names)]
        lowest, tied, highest = np.mean(areas, axis=0)
        assert auc[chunk] == pytest.approx(tied, abs=1e-6)
        assert lowest - 1e-6 < theirs[chunk] < highest + 1e-6


def _areas(score: FloatArray, chance: FloatArray) -> tuple[float, float, float]:
    """Expected ROC AUC if ties fell badly, counted as ties, and if they fell well."""
    found = []
    for order in (np.lexsort([chance, -score]), np.lexsort([-chance, -score])):
        wins = np.cumsum(chance[order]) - chance[order] / 2
        found.append((wins * (1 - chance[order])).sum())
    values = np.unique(score)[::-1]
    positives = np.array([chance[score == value].sum() for value in values])
    negatives = np.array([(1 - chance[score == value]).sum() for value in values])
    tied = ((np.cumsum(positives) - positives / 2) * negatives).sum()
    whole = chance.sum() * (1 - chance).sum()
    return found[0] / whole, tied / whole, found[1] / whole


@pytest.mark.parametrize("labels", ["difference", "blend"])
def test_multiclass_estimates_end_at_what_was_realised(labels) -> None:
    monitor = credit_monitor()
    monitor.log(credit("reference"))  # with their labels
    names = ["accuracy", "macro_precision", "macro_recall", "macro_f1", "log_loss", "brier_score"]
    chosen = [tg.metrics.get(f"estimated_{name}", labels=labels) for name in names]
    assert_allclose(values_of(monitor, chosen)[:, 0], values_of(monitor, names)[:, 0], rtol=1e-12)


# --- with labels -------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["difference", "blend"])
@pytest.mark.parametrize("name", NAMES)
def test_with_all_labels_it_is_what_was_realised(reference, name, labels) -> None:
    table = traffic(4_000, seed=2)
    monitor = tg.Monitor(reference, window="1d", lateness="30d")
    monitor.log(unlabelled(table))
    monitor.label({"id": table["id"], "label": table["label"]})
    estimated = values_of(monitor, [tg.metrics.get(name, labels=labels)])
    realised = values_of(monitor, [name.removeprefix("estimated_")])
    for column in range(3):  # value, lower and upper: the interval has no width
        assert_allclose(estimated[:, column], realised[:, 0], rtol=1e-12)


def test_without_labels_the_blend_is_the_estimate(reference) -> None:
    monitor = tg.Monitor(reference, window="1d")
    monitor.log(unlabelled(traffic(2_000, seed=3)))
    for name in NAMES:
        alone = values_of(monitor, [name])
        for labels in ("difference", "blend"):
            assert_array_equal(values_of(monitor, [tg.metrics.get(name, labels=labels)]), alone)


def test_labels_that_arrive_by_outcome_do_not_mislead_the_correction() -> None:
    """Positives are known at once and negatives late, within each score at the same rate."""
    random = np.random.default_rng(5)
    n = 60_000
    score = random.random(n)
    label = (random.random(n) < score).astype(int)
    schema = tg.Schema(task="binary", prediction_id="id", prediction_score="score", label="label")
    table = {"id": np.arange(n), "score": score, "label": label}
    monitor = tg.Monitor(tg.Reference.fit(table, schema))
    monitor.log(unlabelled(table))
    early = random.random(n) < np.where(score > 0.5, 0.6, 0.05)  # high scores are followed up
    monitor.label({"id": table["id"][early], "label": label[early]})
    truth = ((score >= 0.5) == label).mean()
    arrived = values_of(monitor, ["recall"])[0, 0]
    recall = label[score >= 0.5].sum() / label.sum()
    corrected = values_of(monitor, [tg.metrics.get("estimated_recall", labels="difference")])[0]
    assert abs(arrived - recall) > 0.1
    assert abs(corrected[0] - recall) < 0.01
    assert corrected[1] < recall < corrected[2]
    accuracy = values_of(monitor, [tg.metrics.get("estimated_accuracy", labels="blend")])[0]
    assert accuracy[1] < truth < accuracy[2]


def test_a_replaced_label_is_taken_back(reference) -> None:
    table = traffic(1_000, seed=4)
    once, twice = (tg.Monitor(reference, window="1d", lateness="30d") for _ in range(2))
    for monitor in (once, twice):
        monitor.log(unlabelled(table))
    some = slice(0, 600)
    twice.label({"id": table["id"][some], "label": 1 - table["label"][some]})
    for monitor in (once, twice):
        monitor.label({"id": table["id"][some], "label": table["label"][some]})
    chosen = [tg.metrics.get(name, labels="difference") for name in NAMES]
    assert_array_equal(values_of(once, chosen), values_of(twice, chosen))


# --- sums --------------------------------------------------------------------------------------


def test_splits_threads_order_and_merges_leave_no_trace(reference) -> None:
    table = traffic(3_000, seed=6)
    whole = tg.Monitor(reference, window="1d", lateness="30d", threads=1)
    whole.log(unlabelled(table))
    whole.label({"id": table["id"][::2], "label": table["label"][::2]})
    parts = [tg.Monitor(reference, window="1d", lateness="30d", threads=2) for _ in range(2)]
    random = np.random.default_rng(0)
    order = random.permutation(3_000)
    for piece in np.array_split(order, 7):
        parts[piece[0] % 2].log({name: each[piece] for name, each in unlabelled(table).items()})
    late = order[order % 2 == 0]
    parts[0].label({"id": table["id"][late], "label": table["label"][late]})
    parts[0].merge(parts[1])
    chosen = [*NAMES, *(tg.metrics.get(name, labels="blend") for name in NAMES)]
    assert_array_equal(values_of(parts[0], chosen), values_of(whole, chosen))


def test_they_survive_a_file(reference, tmp_path) -> None:
    monitor = tg.Monitor(reference, window="1d", lateness="30d")
    table = traffic(2_000, seed=7)
    monitor.log(unlabelled(table))
    monitor.save(tmp_path / "monitor.tide")
    again = tg.Monitor.load(tmp_path / "monitor.tide")
    for each in (monitor, again):
        each.label({"id": table["id"][:900], "label": table["label"][:900]})
    chosen = [tg.metrics.get(name, labels="blend") for name in NAMES]
    assert_array_equal(values_of(again, chosen), values_of(monitor, chosen))
    calibrators = [each.reference.layout.calibrators[0] for each in (monitor, again)]
    assert_array_equal(calibrators[0].scores, calibrators[1].scores)


def test_weights_count_rows_so_many_times() -> None:
    table = traffic(1_500, seed=8)
    weight = np.random.default_rng(0).integers(1, 4, 1_500)
    repeated = {name: np.repeat(each, weight) for name, each in table.items()}
    found = []
    for rows, column in ((table | {"weight": weight}, "weight"), (repeated, None)):
        schema = tg.Schema(
            task="binary",
            timestamp="time",
            prediction_score="score",
            label="label",
            weight=column,
        )
        reference = tg.Reference.fit(repeated | {"weight": np.ones(weight.sum())}, schema)
        monitor = tg.Monitor(reference, window="1d")
        monitor.log(rows)
        rates = [name for name in NAMES if not name.endswith("tives")]
        found.append(values_of(monitor, rates)[:, 0])
    assert_allclose(*found, rtol=1e-6)


def test_earlier_errors_are_those_of_windows_that_had_ended() -> None:
    errors = Errors(np.array([1, 1, 0, 1]), np.array([1.0, 4.0, 0, 9.0]), np.array([1.0, 2, 0, 3]))
    start, end = np.array([0, 10, 20, 5]), np.array([10, 20, 30, 15])
    before = errors.before(start, end, np.array([0, 0, 0, 1]))
    assert_array_equal(before.windows, [0, 1, 2, 0])
    assert_array_equal(before.absolute, [0, 1, 3, 0])


def test_labels_that_came_sharpen_the_band_of_later_windows(reference) -> None:
    table = traffic(8_000, seed=9, days=8)
    monitor = tg.Monitor(reference, window="1d", lateness="30d")
    monitor.log(unlabelled(table))
    wrong = table["label"].copy()
    first = table["time"] < START + 4 * DAY
    wrong[first] = (np.random.default_rng(1).random(first.sum()) < 0.5).astype(int)  # has changed
    before = values_of(monitor, ["estimated_accuracy"], segments="all")
    monitor.label({"id": table["id"][first], "label": wrong[first]})
    after = values_of(monitor, ["estimated_accuracy"], segments="all")
    width = [each[:, 2] - each[:, 1] for each in (before, after)]
    assert width[1][0] == width[0][0]  # nothing had ended before it
    assert (width[1][4:] > 2 * width[0][4:]).all()


@pytest.mark.parametrize("at_once", [1, 7, 30])
def test_windows_that_are_worked_out_apart_know_of_each_other(
    reference, monkeypatch, at_once
) -> None:
    table = traffic(4_000, seed=3, days=12)
    monitor = tg.Monitor(reference, window="1d", lateness="30d")
    monitor.log(unlabelled(table))
    monitor.label({"id": table["id"], "label": table["label"]})
    whole = monitor.metrics().to_pylist()
    monkeypatch.setattr(comparison, "ROWS_AT_ONCE", at_once)
    parts = monitor.metrics().to_pylist()
    key = operator.itemgetter("version", "window_start", "segment", "column", "metric")
    assert sorted(map(repr, parts)) == sorted(map(repr, whole))
    assert len({key(row) for row in parts}) == len(parts)


def test_a_metric_of_ones_own_over_chances_has_no_past(reference) -> None:
    @tg.metrics.metric("expected_positives", worse="either", bounds=(0, np.inf))
    def expected_positives(current: BinaryEstimates) -> FloatArray:
        """Rows that are expected to be 1."""
        return current.chances.sum(axis=(-2, -1))

    try:
        monitor = tg.Monitor(reference, window="1d")
        monitor.log(unlabelled(traffic(500)))
        found = monitor.metrics("expected_positives", segments="all").to_pylist()
    finally:
        tg.metrics.remove("expected_positives")
    assert len(found) == 4
    assert all(0 < row["value"] < row["n"] or row["n"] == 0 for row in found)


def test_a_corrected_loss_is_not_negative() -> None:
    """Expected losses far above the known ones of the few that have a label."""
    current = BinaryEstimates(
        estimated_rows=np.array(10), rows=[[5, 5], [0, 0]],
        chances=[[2.0, 3.0], [0.0, 0.0]], edges=[0.0, 0.5, 1.0],
        positives=[[1, 1], [0, 0]], negatives=[[0, 0], [0, 0]],
        labelled_chances=[[0.4, 0.6], [0.0, 0.0]],
        log_loss=np.array(2.0), labelled_log_loss=np.array(4.0), known_log_loss=np.array(0.1),
    )  # fmt: skip
    nothing = BinaryOutcomes.from_confusion(tp=1, fp=0, fn=0, tn=0)
    found = estimated_log_loss(nothing, current, labels="difference")
    assert found.value >= 0


def test_without_labels_in_the_reference_there_is_nothing_to_estimate_by() -> None:
    schema = tg.Schema(task="binary", prediction_id="id", prediction_score="score", label="label")
    table = unlabelled(traffic(100))
    monitor = tg.Monitor(tg.Reference.fit(table, schema))
    monitor.log(table)
    with pytest.raises(ValueError, match="fitted on scores with labels"):
        monitor.metrics("estimated_accuracy")
    assert not any("estimated" in name for name in monitor.metrics()["metric"].to_pylist())


# --- models of features ------------------------------------------------------------------------


def prices(n: int, seed: int) -> dict[str, np.ndarray]:
    """Predictions that are further off for old things, and more old things in later tables."""
    random = np.random.default_rng(seed)
    age = random.gamma(2.0 + seed, 2.0, n)
    value = random.normal(100, 20, n)
    return {
        "id": np.arange(n),
        "age": age,
        "kind": random.choice(["a", "b"], n),
        "predicted": value,
        "paid": value + random.normal(0, 1, n) * (1 + age),
    }


PRICE = tg.Schema(
    task="regression",
    prediction_id="id",
    features=["age", "kind"],
    prediction="predicted",
    label="paid",
)
ERRORS = ["mae", "mse", "rmse"]


@pytest.fixture(scope="module")
def priced() -> tg.Reference:
    return tg.Reference.fit(prices(6_000, 0), PRICE, estimator="features")


def test_losses_are_those_of_the_trees_and_follow_the_features(priced, tmp_path) -> None:
    table = prices(4_000, 1)
    monitor = tg.Monitor(priced)
    monitor.log({name: each for name, each in table.items() if name != "paid"})
    model = priced.layout.event_model
    batch = as_batch(table)
    said = model(batch, priced.layout.columns, (0, 4_000), table["predicted"])
    values = values_of(monitor, [f"estimated_{name}" for name in ERRORS])
    mean = said.mean(axis=0)
    assert_allclose(values[:, 0], [mean[0], mean[1], np.sqrt(mean[1])], rtol=1e-12)
    truth = np.abs(table["predicted"] - table["paid"]).mean()
    usual = np.abs(prices(6_000, 0)["predicted"] - prices(6_000, 0)["paid"]).mean()
    assert abs(values[0, 0] - truth) < 0.1 * abs(usual - truth)
    priced.save(tmp_path / "reference.tide")
    again = tg.Monitor(tg.Reference.load(tmp_path / "reference.tide"))
    again.log({name: each for name, each in table.items() if name != "paid"})
    assert_array_equal(values_of(again, [f"estimated_{name}" for name in ERRORS]), values)


@pytest.mark.parametrize("labels", ["difference", "blend"])
def test_losses_end_at_what_was_realised(priced, labels) -> None:
    table = prices(2_000, 1)
    monitor = tg.Monitor(priced)
    monitor.log({name: each for name, each in table.items() if name != "paid"})
    for part in (slice(0, 300), slice(300, 2_000)):
        monitor.label({"id": table["id"][part], "paid": table["paid"][part]})
    chosen = [tg.metrics.get(f"estimated_{name}", labels=labels) for name in ERRORS]
    realised = values_of(monitor, ERRORS)[:, 0]
    for column in values_of(monitor, chosen).T:
        assert_allclose(column, realised, rtol=1e-12)


def test_features_see_what_scores_do_not() -> None:
    """The score ignores a column that the label depends on, and whose mix then changes."""
    random = np.random.default_rng(2)

    def people(n: int, share: float) -> dict[str, np.ndarray]:
        group = np.where(random.random(n) < share, "new", "old")
        score = random.beta(2, 2, n)
        chance = np.where(group == "new", 0.4 * score, score)
        return {
            "id": np.arange(n),
            "group": group,
            "score": score,
            "label": (random.random(n) < chance).astype(int),
        }

    schema = tg.Schema(
        task="binary",
        prediction_id="id",
        features=["group"],
        prediction_score="score",
        label="label",
    )
    past, now = people(8_000, 0.2), people(8_000, 0.8)
    off = {}
    for estimator in ("scores", "features"):
        monitor = tg.Monitor(tg.Reference.fit(past, schema, estimator=estimator))
        monitor.log(unlabelled(now))
        found = values_of(monitor, ["estimated_accuracy"])[0, 0]
        off[estimator] = abs(found - ((now["score"] >= 0.5) == now["label"]).mean())
        monitor.label({"id": now["id"], "label": now["label"]})
        blend = tg.metrics.get("estimated_accuracy", labels="blend")
        assert values_of(monitor, [blend])[0, 0] == values_of(monitor, ["accuracy"])[0, 0]
    assert off["features"] < 0.02 < off["scores"]


def test_values_that_stand_for_none_are_none_to_the_trees() -> None:
    schema = replace(PRICE, features={"age": tg.numeric(missing=[-1]), "kind": tg.categorical()})
    table, found = prices(2_000, 0), []
    table["age"][::5] = np.nan
    for nothing in (np.nan, -1.0):
        told = {**table, "age": np.where(np.isnan(table["age"]), nothing, table["age"])}
        monitor = tg.Monitor(tg.Reference.fit(told, schema, estimator="features"))
        monitor.log({name: each for name, each in told.items() if name != "paid"})
        found.append(monitor.metrics(["estimated_mae"]).column("value").to_pylist())
    assert found[0] == found[1]


def test_an_estimator_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="allowed: scores, features"):
        tg.Reference.fit(prices(100, 0), PRICE, estimator="trees")  # type: ignore[arg-type]
    without = {name: each for name, each in prices(100, 0).items() if name != "paid"}
    with pytest.raises(ValueError, match="labelled rows"):
        tg.Reference.fit(without, PRICE, estimator="features")
    with pytest.raises(ValueError, match="wants a label"):
        tg.Reference.fit(without, replace(PRICE, label=None), estimator="features")
    like = tg.Reference.fit(prices(100, 0), PRICE)
    with pytest.raises(ValueError, match="allowed: scores, features"):
        tg.Reference.fit(prices(100, 1), PRICE, like=like, estimator="x")  # type: ignore[arg-type]


# --- groups ------------------------------------------------------------------------------------


def test_gaps_between_groups_before_labels_are_those_of_chances_within_groups() -> None:
    """What a score means differs between the groups; only a calibrator of each group knows."""
    random = np.random.default_rng(3)
    n = 30_000
    score = random.beta(2, 2, n)
    sex = random.choice(["F", "M"], n)
    chance = np.where(sex == "F", score**2, score**0.5)
    table = {
        "id": np.arange(n),
        "score": score,
        "sex": sex,
        "label": (random.random(n) < chance).astype(int),
    }
    schema = tg.Schema(
        task="binary",
        prediction_id="id",
        prediction_score="score",
        label="label",
        protected=["sex"],
    )
    monitor = tg.Monitor(tg.Reference.fit(table, schema))
    monitor.log(unlabelled(table))
    names = [
        "equal_opportunity_difference",
        "predictive_parity_difference",
        "accuracy_difference",
        "equalized_odds_difference",
    ]
    estimated = [monitor.metrics(f"estimated_{name}").to_pylist()[0] for name in names]
    monitor.label({"id": table["id"], "label": table["label"]})
    for row, name in zip(estimated, names, strict=True):
        realised = monitor.metrics(name).to_pylist()[0]
        assert row["value"] == pytest.approx(realised["value"], abs=0.01)
        assert row["status"] == "ok"
        assert row["label_share"] == 0.0
        assert row["n"] == n


def test_bands_of_gaps_are_made_of_earlier_gaps() -> None:
    """What a score means for one of the groups changes in the traffic, which labels then show."""

    def people(n: int, days: int, seed: int, power: float) -> dict[str, np.ndarray]:
        random = np.random.default_rng(seed)
        score, sex = random.beta(2, 2, n), random.choice(["F", "M"], n)
        chance = np.where(sex == "F", score**power, score)
        return {
            "id": np.arange(n) + 1_000_000 * seed,
            "time": START + np.arange(n) * days // n * DAY,
            "score": score,
            "sex": sex,
            "label": (random.random(n) < chance).astype(int),
        }

    schema = replace(SCHEMA, segments=[], protected=["sex"])
    past, now = people(20_000, 10, 1, 1.0), people(20_000, 10, 2, 2.5)
    now["time"] += 20 * DAY
    monitor = tg.Monitor(tg.Reference.fit(past, schema), window="1d", lateness="90d")
    monitor.log(unlabelled(now))
    names = ("equal_opportunity", "equalized_odds", "predictive_parity", "accuracy")

    def told(**options: str) -> list[dict[str, np.ndarray]]:
        asked = [tg.metrics.get(f"estimated_{name}_difference", **options) for name in names]
        tables = [monitor.metrics(each) for each in asked]
        columns = ("value", "lower", "upper", "noise_floor")
        return [{name: table[name].to_numpy() for name in columns} for table in tables]

    before, sampling = told(), told(band="sampling")
    early = now["time"] < START + 28 * DAY
    monitor.label({"id": now["id"][early], "label": now["label"][early]})
    for name, first, after, counts in zip(names, before, told(), sampling, strict=True):
        truth = monitor.metrics(f"{name}_difference")["value"].to_numpy()[:8]
        assert_array_equal(first["value"], after["value"])
        assert_array_equal(first["value"], counts["value"])
        error = np.abs(truth - first["value"][:8])
        assert (first["noise_floor"] < 0.1).all()  # of the ten windows of the reference
        expected = (10 * first["noise_floor"][8] + error.sum()) / 18
        assert after["noise_floor"][8] == pytest.approx(expected)
        assert after["lower"][0] == first["lower"][0]  # nothing had ended before it


# --- choice ------------------------------------------------------------------------------------


def test_what_was_off_least_before_is_taken_and_named(reference) -> None:
    """Labels turn out as raw scores say, and not as those of the reference were calibrated."""
    table = traffic(24_000, seed=12, days=12)
    table["label"] = (np.random.default_rng(0).random(24_000) < table["score"]).astype(int)
    monitor = tg.Monitor(reference, window="1d", lateness="60d")
    monitor.log(unlabelled(table))
    names = ("calibrated", "average_confidence", "atc", "doc")
    each = {name: tg.metrics.get("estimated_accuracy", estimator=name) for name in names}

    def rows(metric: object) -> list[dict[str, object]]:
        return monitor.metrics(metric, segments="all").to_pylist()  # type: ignore[arg-type]

    assert {row["status"] for row in rows("estimated_accuracy")} == {"ok"}
    first = table["time"] < START + 8 * DAY
    monitor.label({"id": table["id"][first], "label": table["label"][first]})
    chosen = rows("estimated_accuracy")
    apart = {name: rows(metric) for name, metric in each.items()}
    assert {row["status"] for row in chosen[:3]} == {"ok"}  # fewer than three windows to judge by
    assert chosen[-1]["status"] == "ok, by average_confidence"
    for place, row in enumerate(chosen):
        best = row["status"].removeprefix("ok, by ").replace("ok", "calibrated")
        for column in ("value", "lower", "upper", "noise_floor", "n"):
            assert row[column] == apart[best][place][column]
    half = tg.metrics.get("estimated_accuracy", labels="blend")
    assert rows(half)[0]["value"] == rows("accuracy")[0]["value"]


def test_average_confidence_atc_and_doc_are_those_of_single_rows(reference) -> None:
    past, table = traffic(20_000, seed=1, days=20), traffic(6_000, seed=13, days=1)
    monitor = tg.Monitor(reference, window="1d")
    monitor.log(unlabelled(table))
    before, now = (np.maximum(each["score"], 1 - each["score"]) for each in (past, table))
    right = ((past["score"] >= 0.5) == past["label"]).astype(float)
    slope = np.cov(right, before)[0, 1] / before.var(ddof=1)
    expected = {
        "average_confidence": now.mean(),
        "atc": (now >= np.quantile(before, 1 - right.mean())).mean(),
        "doc": right.mean() + slope * (now.mean() - before.mean()),
    }
    for name, value in expected.items():
        metric = tg.metrics.get("estimated_accuracy", estimator=name)
        found = values_of(monitor, [metric], segments="all")
        assert found[0, 0] == pytest.approx(value, abs=2e-3)
        assert found[0, 1] < value < found[0, 2]


def test_reports_say_what_bands_rest_on_and_what_estimates_cannot_see(reference) -> None:
    table = traffic(8_000, seed=14, days=8)
    monitor = tg.Monitor(reference, window="1d", lateness="60d")
    monitor.log(unlabelled(table))
    assert "rest on 20 earlier windows whose labels are in" in _flat(monitor)
    first = table["time"] < START + 2 * DAY
    monitor.label({"id": table["id"][first], "label": table["label"][first]})
    for text in (_flat(monitor), monitor.report().to_html()):
        assert "rest on 20 to 22 earlier windows whose labels are in" in text
        assert "No estimate without labels can see" in text
    assert "estimate" not in " ".join(repr(monitor.report(metrics="psi")).split())


def _flat(monitor: tg.Monitor) -> str:
    return " ".join(repr(monitor.report()).split())
