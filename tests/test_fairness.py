"""Groups of protected attributes: counted live, and compared as Fairlearn and AIF360 do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from aif360.sklearn import metrics as aif360
from fairlearn import metrics as fairlearn

import tidegauge as tg
from tidegauge.metrics import fairness
from tidegauge.metrics.fairness import Rates, difference, expected_gap, quotient, selection
from tidegauge.metrics.inputs import GroupDecisions, GroupOutcomes
from tidegauge.metrics.results import value_of

FAIRLEARN = (
    "demographic_parity_difference",
    "demographic_parity_ratio",
    "equal_opportunity_difference",
    "equal_opportunity_ratio",
    "equalized_odds_difference",
    "equalized_odds_ratio",
)
START = np.datetime64("2024-05-01", "us")


def people(n: int = 4000, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    sex = random.choice(["F", "M"], n)
    race = random.choice(["a", "b", "c", "rare"], n, p=[0.5, 0.3, 0.198, 0.002])
    score = np.clip(random.beta(2, 2, n) - 0.1 * (sex == "F"), 0, 1)
    return {
        "id": np.arange(n),
        "time": START + np.arange(n) * np.timedelta64(20, "s"),
        "score": score,
        "label": (random.random(n) < score).astype(int),
        "sex": sex,
        "race": race,
    }


def schema(**roles: object) -> tg.Schema:
    roles = {"prediction_score": "score", **roles}
    return tg.Schema(
        task="binary",
        prediction_id="id",
        timestamp="time",
        label="label",
        protected=["sex", ("sex", "race")],
        **roles,
    )


def watched(rows: dict[str, np.ndarray], **roles: object) -> tg.Monitor:
    monitor = tg.Monitor(tg.Reference.fit(rows, schema(**roles)), window="1d")
    monitor.log({name: column for name, column in rows.items() if name != "label"})
    return monitor


def by_column(monitor: tg.Monitor, metric: str, **options: object) -> dict[str, dict[str, object]]:
    asked = tg.metrics.get(metric, **options)
    return {row["column"]: row for row in monitor.metrics(asked, window="all").to_pylist()}


def outcomes(rows: dict[str, np.ndarray], names: tuple[str, ...], groups: np.ndarray):
    decision = rows["score"] >= 0.5

    def count(decided: int, label: int) -> list[int]:
        chosen = (decision == decided) & (rows["label"] == label)
        return [int((chosen & (groups == name)).sum()) for name in names]

    return GroupOutcomes.from_confusion(
        names, tp=count(1, 1), fp=count(1, 0), fn=count(0, 1), tn=count(0, 0)
    )


@pytest.mark.parametrize("method", ["between_groups", "to_overall"])
@pytest.mark.parametrize("name", FAIRLEARN)
def test_values_are_those_of_fairlearn(name: str, method: str) -> None:
    for seed in range(5):
        rows = people(500, seed)
        groups = np.where(rows["race"] == "rare", "c", rows["race"])
        ours = getattr(fairness, name)(
            outcomes(rows, ("a", "b", "c"), groups), method=method, minimum=0
        )
        theirs = getattr(fairlearn, name)(
            rows["label"], rows["score"] >= 0.5, sensitive_features=groups, method=method
        )
        assert value_of(ours) == pytest.approx(theirs)


def against_privileged(name: str, groups: GroupOutcomes) -> float:
    """Value of the group that stands beside the privileged one."""
    return float(value_of(getattr(fairness, name)(groups, against="b", minimum=0))[0])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("statistical_parity_difference", aif360.statistical_parity_difference),
        ("disparate_impact", aif360.disparate_impact_ratio),
        ("average_odds_difference", aif360.average_odds_difference),
        ("average_predictive_value_difference", aif360.average_predictive_value_difference),
    ],
)
def test_a_group_stands_beside_the_privileged_one_as_in_aif360(ours: str, theirs) -> None:
    for seed in range(5):
        rows = people(500, seed)
        groups = np.where(rows["race"] == "b", "b", "a")
        decision = (rows["score"] >= 0.5).astype(int)
        found = against_privileged(ours, outcomes(rows, ("a", "b"), groups))
        expected = theirs(rows["label"], decision, prot_attr=groups, priv_group="b")
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("alpha", [0.5, 1, 2])
def test_entropies_are_those_of_aif360(alpha: float) -> None:
    rows = people(500)
    groups = np.where(rows["race"] == "rare", "c", rows["race"])
    decision = (rows["score"] >= 0.5).astype(int)
    counts = outcomes(rows, ("a", "b", "c"), groups)
    assert fairness.generalized_entropy_index(counts, alpha=alpha) == pytest.approx(
        aif360.generalized_entropy_error(rows["label"], decision, alpha=alpha)
    )
    found = fairness.between_group_entropy_index(counts, alpha=alpha, minimum=0)
    assert found == pytest.approx(
        aif360.between_group_generalized_entropy_error(
            rows["label"], decision, prot_attr=groups, alpha=alpha
        )
    )


@pytest.mark.parametrize("concentration", [0.5, 1.0])
def test_differential_fairness_is_the_smoothed_one_of_aif360(concentration: float) -> None:
    rows = people(500)
    groups = np.where(rows["race"] == "rare", "c", rows["race"])
    counts = outcomes(rows, ("a", "b", "c"), groups)
    found = fairness.differential_fairness(counts, concentration=concentration, minimum=0)
    expected = aif360.smoothed_edf(  # theirs is shared out between the two decisions
        rows["label"],
        (rows["score"] >= 0.5).astype(int),
        prot_attr=groups,
        concentration=2 * concentration,
    )
    assert found == pytest.approx(expected)


def test_decisions_are_compared_before_any_label_has_arrived() -> None:
    rows = people()
    monitor = watched(rows)
    selected = [(rows["score"] >= 0.5)[rows["sex"] == sex].mean() for sex in ("F", "M")]
    gap = by_column(monitor, "demographic_parity_difference")["sex"]
    assert gap["value"] == pytest.approx(selected[1] - selected[0])
    assert gap["lower"] < gap["value"] < gap["upper"]
    assert gap["n"] == 4000
    assert gap["label_share"] is None
    waiting = by_column(monitor, "equal_opportunity_difference")["sex"]
    assert (waiting["value"], waiting["status"], waiting["label_share"]) == (None, "no labels", 0.0)


def test_outcomes_follow_the_labels_and_stand_beside_the_reference() -> None:
    rows = people()
    monitor = watched(rows)
    half = slice(0, 2000)
    monitor.label({name: rows[name][half] for name in ("id", "label", "time")})
    found = by_column(monitor, "equal_opportunity_difference")["sex"]
    labelled = {name: column[half] for name, column in rows.items()}
    expected = fairness.equal_opportunity_difference(
        outcomes(labelled, ("F", "M"), labelled["sex"])
    )
    usual = fairness.equal_opportunity_difference(outcomes(rows, ("F", "M"), rows["sex"]))
    assert found["value"] == pytest.approx(float(expected.value))
    assert found["reference_value"] == pytest.approx(float(usual.value))
    assert (found["n"], found["n_reference"], found["label_share"]) == (2000, 4000, 0.5)


def test_each_group_has_a_row_and_small_ones_are_pooled() -> None:
    rows = people()
    monitor = watched(rows)
    impact = by_column(monitor, "disparate_impact", minimum=30)
    rare = [name for name in impact if "race=rare" in name]
    assert [impact[name]["status"] for name in rare] == ["no data"] * len(rare)
    pooled = impact["sex & race=(other)"]
    assert pooled["n"] == int((rows["race"] == "rare").sum())
    group = (rows["sex"] == "F") & (rows["race"] == "a")
    decided = rows["score"] >= 0.5
    row = impact["sex=F & race=a"]
    assert row["value"] == pytest.approx(decided[group].mean() / decided[~group].mean())
    assert row["n"] == int(group.sum())


@pytest.mark.parametrize("decision", ["number", "boolean", "text"])
def test_a_column_of_decisions_says_what_the_scores_say(decision: str) -> None:
    rows = people(1000)
    favourable = rows["score"] >= 0.5
    roles: dict[str, object] = {"prediction": "decision", "prediction_score": None}
    rows["decision"] = favourable if decision == "boolean" else favourable.astype(int)
    if decision == "text":
        rows["decision"] = np.where(favourable, "yes", "no")
        rows["label"] = np.where(rows["label"] == 1, "yes", "no")
        roles["positive"] = "yes"
    scored = by_column(watched(people(1000)), "disparate_impact")
    decided = by_column(watched(rows, **roles), "disparate_impact")
    assert {k: r["value"] for k, r in decided.items()} == {k: r["value"] for k, r in scored.items()}


def test_windows_versions_and_merges_keep_their_groups() -> None:
    rows = people(12_000)
    reference = tg.Reference.fit(rows, schema())
    parts = [tg.Monitor(reference, window="1d") for _ in range(2)]
    whole = tg.Monitor(reference, window="1d")
    for place in range(2):
        part = {name: column[place::2] for name, column in rows.items()}
        parts[place].log(part)
        whole.log(part)
    parts[0].merge(parts[1])
    table = whole.metrics(tg.metrics.names("fairness"))
    assert table.equals(parts[0].metrics(tg.metrics.names("fairness")))
    starts = table.filter(pa_equal(table, "demographic_parity_ratio"))["window_start"]
    assert len(starts.unique()) == 3


def pa_equal(table, metric: str):
    import pyarrow.compute as pc

    return pc.equal(table["metric"].cast("string"), metric)


def test_fairness_is_there_only_where_it_is_asked_for() -> None:
    monitor = watched(people(500))
    assert not set(monitor.metrics("psi")["metric"].to_pylist()) - {"psi"}
    every = monitor.metrics()["metric"].to_pylist()
    assert set(tg.metrics.names("fairness")) <= set(every)
    chosen = monitor.metrics("group_benefit", columns="sex")["column"].to_pylist()
    assert set(chosen) == {"sex=F", "sex=M", "sex=(other)"}
    assert monitor.metrics("group_benefit", segments="sex=F").num_rows == 0


def test_a_model_without_protected_attributes_is_told() -> None:
    rows = people(100)
    plain = tg.Schema(task="binary", prediction_score="score", label="label")
    monitor = tg.Monitor(tg.Reference.fit(rows, plain))
    monitor.log(rows)
    with pytest.raises(ValueError, match=r"protected=\[...\]"):
        monitor.metrics("disparate_impact")
    assert "disparate_impact" not in monitor.metrics()["metric"].to_pylist()


def test_the_gap_to_expect_is_the_average_of_groups_treated_alike() -> None:
    random = np.random.default_rng(1)
    for sizes in ([200, 300], [50, 400, 1000, 80], [100] * 12):
        trials = np.array(sizes, dtype=float)
        hits = random.binomial(trials.astype(int), 0.3, size=(4000, len(sizes))).astype(float)
        measured = np.ptp(hits / trials, axis=1).mean()
        assert expected_gap(Rates(0.3 * trials, trials)) == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize(("n_groups", "size", "rate"), [(2, 200, 0.05), (6, 200, 0.3)])
def test_the_interval_rule_stays_quiet_where_the_four_fifths_rule_does_not(
    n_groups: int, size: int, rate: float
) -> None:
    random = np.random.default_rng(2)
    decided = np.full((2000, n_groups), float(size))
    selected = random.binomial(size, rate, size=decided.shape).astype(float)
    groups = GroupDecisions(tuple("abcdef"[:n_groups]), decided, selected)
    on_points = value_of(fairness.demographic_parity_ratio(groups)) < 0.8
    upper = fairness.disparate_impact(groups).result.upper
    by_interval = (np.where(np.isnan(upper), 1.0, upper) < 0.8).any(axis=-1)
    assert on_points.mean() > 0.5
    assert by_interval.mean() < 0.01


@pytest.mark.parametrize(("size", "rate"), [(30, 0.1), (100, 0.1), (200, 0.4)])
def test_intervals_cover(size: int, rate: float) -> None:
    random = np.random.default_rng(3)
    small = Rates(random.binomial(size, rate, 4000).astype(float), np.full(4000, float(size)))
    large = Rates(random.binomial(10 * size, rate, 4000).astype(float), np.full(4000, 10.0 * size))
    z = np.array(1.959963984540054)
    for bracket, truth in ((difference(small, large, z), 0.0), (quotient(small, large, z), 1.0)):
        inside = (bracket.lower <= truth) & (truth <= bracket.upper)
        assert 0.93 < inside.mean() < 0.985


def test_one_group_alone_is_no_comparison() -> None:
    groups = GroupDecisions(("a",), np.array([50.0]), np.array([20.0]))
    assert math.isnan(value_of(fairness.demographic_parity_difference(groups)))
    assert math.isnan(expected_gap(selection(groups)))
