"""What features do in windows, and what moved predictions and losses."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import ndcg_score

import tidegauge as tg
from tidegauge import figures
from tidegauge.attribution import ndcg
from tidegauge.explain.exchange import Exchange, Exchanger, Meetings, Pool, coalitions
from tidegauge.explain.kernel import ModelError
from tidegauge.shift import LABELS, LOSSES, Odds, causes_of, loss_of, smooth_features
from tidegauge.values import METRIC_TABLE

HOUR = 3_600_000_000
START = np.datetime64("2024-05-01T00:00", "us")
RANDOM = np.random.default_rng(3)
W, V = RANDOM.normal(size=(20, 16)) / 3, RANDOM.normal(size=16)


def curved(x: Any) -> Any:
    """A small network in plain sums: each row's answer is the same in any company."""
    hidden = np.zeros((len(x), 16))
    for column in range(x.shape[1]):
        hidden += x[:, [column]] * W[column]
    hidden = np.tanh(hidden)
    total = np.zeros(len(x))
    for unit in range(16):
        total += hidden[:, unit] * V[unit]
    return total


def normal(n: int, width: int, seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=(n, width))


def exchanged(
    predict: Any, after: Any, before: Any, *, n_designs: int = 1, seed: int = 0
) -> Exchange:
    """Let two matrices meet."""
    names = tuple(map(str, range(after.shape[1])))
    table = pa.table(dict(zip(names, np.concatenate([after, before]).T, strict=True)))
    exchanger = Exchanger(
        lambda rows: predict(rows)[:, None],
        Pool(table, names, "numpy"),
        np.arange(len(names)),
        seed,
    )
    return exchanger.exchange(
        np.arange(len(after)),
        len(after) + np.arange(len(before)),
        lambda answers, _: answers,
        n_designs=n_designs,
    )


def means(exchange: Exchange) -> Any:
    return exchange.mean(exchange.values)[:, 0]


def importance(exchange: Exchange) -> Any:
    return np.sqrt(np.maximum(exchange.mean(exchange.squares())[:, 0], 0))


# -- meetings -------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 3))
def test_every_row_weighs_the_same(n: int, m: int, seed: int) -> None:
    meetings = Meetings.draw(n, m, seed, 0)
    np.testing.assert_allclose(np.bincount(meetings.own, meetings.weights, n), 1 / n)
    np.testing.assert_allclose(np.bincount(meetings.other, meetings.weights, m), 1 / m)
    assert max(n, m) <= len(meetings.own) < n + m


@given(st.integers(1, 18), st.integers(2, 30), st.integers(2, 30), st.integers(1, 3))
def test_parts_add_up_to_the_difference_of_the_means(
    width: int, n: int, m: int, n_designs: int
) -> None:
    after, before = normal(n, width, 1) + 1, normal(m, width, 2)
    exchange = exchanged(curved, after, before, n_designs=n_designs)
    change = curved(after).mean() - curved(before).mean()
    assert means(exchange).sum() == pytest.approx(change, abs=1e-9)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_many_designs_come_to_the_definition(width: int) -> None:
    after, before = normal(4, width, 1) + 1, normal(3, width, 2)
    worth = reference.exchange_worth(
        lambda row: float(curved(np.array([row]))[0]), after.tolist(), before.tolist()
    )
    exchange = exchanged(curved, after, before, n_designs=200)
    wanted = reference.shapley_values(worth, width)
    np.testing.assert_allclose(means(exchange), wanted, atol=0.02)


def test_drawn_coalitions_are_unbiased() -> None:
    """Seven players are drawn, not enumerated: the mean over many shuffles is the truth."""
    after, before = normal(1, 7, 1) + 1, normal(1, 7, 2)
    assert len(coalitions(7, 0)[0]) == 32
    worth = reference.exchange_worth(
        lambda row: float(curved(np.array([row]))[0]), after.tolist(), before.tolist()
    )
    wanted = np.array(reference.shapley_values(worth, 7))
    designs = np.stack(exchanged(curved, after, before, n_designs=250).values)[:, 0, :, 0]
    error = designs.std(axis=0) / np.sqrt(len(designs))
    assert (np.abs(designs.mean(axis=0) - wanted) < 4 * error + 1e-9).all()
    assert (error < 0.02 * np.abs(wanted).max()).all()


def test_linear_models_have_a_closed_form() -> None:
    slopes = np.array([2.0, -1.0, 0.5, 0.0, 3.0, 1.0, 1.0, -2.0])
    after, before = normal(90, 8, 1) + 1, normal(60, 8, 2)
    exchange = exchanged(lambda x: x @ slopes, after, before, n_designs=2)
    wanted = slopes * (after.mean(axis=0) - before.mean(axis=0))
    np.testing.assert_allclose(means(exchange), wanted, atol=1e-9)


# -- importance -----------------------------------------------------------------------------------


def test_importance_is_unbiased_where_the_naive_one_is_not() -> None:
    after, before = normal(500, 20, 1) + 0.3, normal(500, 20, 2)
    truth = tg.KernelExplainer(curved, before).attribute(after[:100], 16_384).values
    exchange = exchanged(curved, after, before, n_designs=2)
    naive = np.sqrt((exchange.by_row().mean(axis=0)[:, :, 0] ** 2).mean(axis=0))
    wanted = np.sqrt((truth**2).mean(axis=0))
    assert np.linalg.norm(importance(exchange) / wanted - 1) / np.sqrt(20) < 0.12
    assert np.linalg.norm(naive / wanted - 1) / np.sqrt(20) > 0.3
    assert importance(exchange).sum() == pytest.approx(wanted.sum(), rel=0.05)
    assert naive.sum() > 1.2 * wanted.sum()


@pytest.mark.parametrize(("n", "m"), [(60, 60), (40, 150), (150, 40)])
def test_intervals_cover(n: int, m: int) -> None:
    """Rows of either side are drawn anew: 95 % intervals hold the truth nearly as often."""
    slopes = np.array([1.0, -0.5, 0.2])

    def predict(x: Any) -> Any:
        return x @ slopes + x[:, 0] * x[:, 1]

    shift = np.array([0.5, 0.3, 0.0])
    wanted = slopes * shift + np.array([0.5, 0.5, 0.0]) * shift[0] * shift[1]
    # phi_0 = (x_0 - b_0) (1 + (x_1 + b_1) / 2), of which the mean over b is x_0 (1 + x_1 / 2)
    x = normal(200_000, 3, 9) + shift
    squares = np.stack(
        [
            (x[:, 0] + x[:, 0] * x[:, 1] / 2) ** 2,
            (-0.5 * x[:, 1] + x[:, 0] * x[:, 1] / 2) ** 2,
            (0.2 * x[:, 2]) ** 2,
        ]
    ).mean(axis=1)
    covered = np.zeros((2, 3))
    for seed in range(150):
        after, before = normal(n, 3, 1000 + seed) + shift, normal(m, 3, 5000 + seed)
        exchange = exchanged(predict, after, before, n_designs=2, seed=seed)
        for row, (values, truth) in enumerate(
            ((list(exchange.values), wanted), (exchange.squares(), squares))
        ):
            error = np.sqrt(exchange.influence(values).variance)[:, 0]
            covered[row] += np.abs(exchange.mean(values)[:, 0] - truth) < 1.96 * error
    assert (covered[0] / 150 > 0.88).all()
    assert (covered[1] / 150 > 0.8).all()  # squares are skewed, and rows few


@given(st.lists(st.floats(0, 10), min_size=1, max_size=9), st.data())
def test_ndcg_is_the_definition(relevance: list[float], data: st.DataObject) -> None:
    scores = data.draw(
        st.lists(st.integers(0, 50), min_size=len(relevance), max_size=len(relevance), unique=True)
    )
    found = ndcg(np.array(relevance), np.array(scores, dtype=float))
    wanted = reference.ndcg(relevance, scores)
    assert found == pytest.approx(wanted, nan_ok=True)
    if len(relevance) > 1 and sum(relevance) > 0:
        assert found == pytest.approx(ndcg_score([relevance], [scores]))


# -- a monitor ------------------------------------------------------------------------------------

NAMES = ("a", "b", "c", "d", "e")
SLOPES = np.array([2.0, 1.0, 0.5, 0.0, -1.0])
SCHEMA = tg.Schema(
    task="regression",
    features=list(NAMES),
    prediction_id="id",
    timestamp="time",
    prediction="predicted",
    label="truth",
    segments=["side"],
)


def linear(x: Any) -> Any:
    return x @ SLOPES


def traffic(
    n: int,
    *,
    seed: int,
    shift: Any = 0.0,
    scale: Any = 1.0,
    bias: float = 0.0,
    hour: int = 0,
    first: int = 0,
) -> pa.Table:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 5)) * scale + shift
    return pa.table(
        {
            "id": np.arange(first, first + n),
            "time": START + (hour * HOUR + random.integers(0, HOUR, n)).astype("timedelta64[us]"),
            "side": random.choice(["left", "right"], n),
            **dict(zip(NAMES, x.T, strict=True)),
            "predicted": linear(x),
            "truth": linear(x) + bias + random.normal(size=n),
        }
    )


def unlabelled(table: pa.Table) -> pa.Table:
    return table.drop_columns(["truth"])


REFERENCE = tg.Reference.fit(traffic(800, seed=1), SCHEMA, sample_rows=400)
QUIET = traffic(600, seed=2, first=0)
MOVED = traffic(
    600,
    seed=3,
    shift=np.array([0, 1.0, 0, 0, 0]),
    scale=np.array([1, 3, 1, 1, 1]),
    hour=1,
    first=600,
)


def monitored(*batches: pa.Table, size: int = 300, **settings: Any) -> tg.Monitor:
    monitor = tg.Monitor(REFERENCE, sample_rows=size, **settings)
    for batch in batches:
        monitor.log(batch)
    return monitor


MONITOR = monitored(QUIET, MOVED)


def values(table: pa.Table, metric: str) -> dict[Any, dict[str, Any]]:
    """Rows of a metric by hour and column."""
    found = {}
    for row in table.to_pylist():
        if row["metric"] == metric:
            hour = (
                row["window_start"] - START.astype(datetime).replace(tzinfo=UTC)
            ).seconds // 3600
            found[hour, row["column"]] = row
    return found


def test_a_window_is_explained_beside_the_reference() -> None:
    found = MONITOR.explain(linear)
    table = found.to_arrow()
    assert table.schema == METRIC_TABLE
    assert set(table["status"].to_pylist()) == {"ok"}
    every = values(table, "shap_importance")
    assert len(every) == 10
    for (hour, name), row in every.items():
        spread = 3 if (hour, name) == (1, "b") else 1
        off = 1 if (hour, name) == (1, "b") else 0
        slope = abs(SLOPES[NAMES.index(name)])
        assert row["value"] == pytest.approx(slope * np.hypot(spread, off), rel=0.2, abs=0.05)
        assert row["reference_value"] == pytest.approx(slope, rel=0.2, abs=0.05)
        assert row["lower"] <= row["value"] <= row["upper"]
        assert (row["n"], row["n_reference"]) == (300, 400)
    mean = values(table, "shap_mean")
    sampled = MONITOR.sample()
    rows = np.column_stack([sampled[name] for name in NAMES])
    before = np.column_stack([REFERENCE.drawn.rows[name] for name in NAMES])  # type: ignore[union-attr]
    starts = np.unique(sampled["window_start"].to_numpy())
    for hour, start in enumerate(starts):
        own = rows[sampled["window_start"].to_numpy() == start]
        for place, name in enumerate(NAMES):
            wanted = SLOPES[place] * (own[:, place].mean() - before[:, place].mean())
            assert mean[hour, name]["value"] == pytest.approx(wanted, abs=1e-9)
    assert found.to_pandas().shape == (len(table), len(METRIC_TABLE))


def test_a_planted_shift_is_found_and_quiet_columns_are_not() -> None:
    found = MONITOR.explain(linear)
    table = found.to_arrow()
    for metric in ("shap_kolmogorov_smirnov", "shap_wasserstein_distance"):
        for (hour, name), row in values(table, metric).items():
            beyond = row["value"] / row["noise_floor"] if row["noise_floor"] else 0
            # ids are hashed with a key of the process, so other rows are sampled each time
            assert beyond > 4 if (hour, name) == (1, "b") else beyond < 3
    kept = values(table, "attribution_ndcg")
    assert kept[0, None]["value"] == pytest.approx(1, abs=0.01)
    assert kept[1, None]["value"] < kept[1, None]["noise_floor"] - 0.01
    causes = found.causes.to_pylist()
    first = [row for row in causes if row["rank"] == 1][1]
    assert first["column"] == "b"
    assert first["impact"] == values(table, "drift_impact")[1, "b"]["value"]
    quiet = [row["impact"] for row in causes if row["column"] != "b"]
    assert first["impact"] > 10 * max(quiet)
    assert repr(found).splitlines()[2].startswith("b ")


def test_distances_are_those_of_two_samples() -> None:
    """One feature and as many rows on both sides: each row meets one other, once a design."""
    schema = tg.Schema(features=["x"])
    random = np.random.default_rng(0)
    before, after = random.normal(size=100), random.normal(size=100) + 1
    monitor = tg.Monitor(tg.Reference.fit({"x": before}, schema, sample_rows=100), sample_rows=100)
    monitor.log({"x": after})
    table = monitor.explain(lambda x: x[:, 0], max_evaluations=400).to_arrow()
    found = dict(zip(table["metric"].to_pylist(), table["value"].to_pylist(), strict=True))
    assert found["shap_mean"] == pytest.approx(after.mean() - before.mean(), abs=1e-12)
    # x - b: both of the differences are those of a normal variable of twice the variance.
    assert found["shap_kolmogorov_smirnov"] == pytest.approx(
        2 * stats.norm.cdf(0.5 / np.sqrt(2)) - 1, abs=0.12
    )
    assert found["shap_wasserstein_distance"] == pytest.approx(1, abs=0.3)


def test_segments_are_compared_with_their_own_reference() -> None:
    table = MONITOR.explain(linear, segments=["side=left"], window="all").to_arrow()
    assert set(table["segment"].to_pylist()) == {"side=left"}
    assert 100 < table["n_reference"][0].as_py() < 300
    unknown = monitored(
        QUIET.set_column(QUIET.column_names.index("side"), "side", pa.array(["up"] * 600))
    ).explain(linear, segments=["side=up"])
    assert set(unknown.to_arrow()["status"].to_pylist()) == {"no reference"}
    assert set(unknown.to_arrow()["value"].to_pylist()) == {None}


def test_batches_tiles_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = MONITOR.explain(curved, seed=4).to_arrow()
    parts = [QUIET.slice(0, 100), MOVED, QUIET.slice(100)]
    assert monitored(*parts, threads=3).explain(curved, seed=4).to_arrow().equals(whole)
    monkeypatch.setattr("tidegauge.explain.exchange.TILE_BYTES", 5_000)
    assert MONITOR.explain(curved, seed=4).to_arrow().equals(whole)
    assert not MONITOR.explain(curved, seed=5).to_arrow().equals(whole)


def test_tables_categories_and_groups() -> None:
    """A model of pandas data with text, whose group of columns is one player."""
    schema = tg.Schema(features={"x": tg.numeric(), "y": tg.numeric(), "kind": tg.categorical()})

    def rows(n: int, seed: int, often: float) -> dict[str, Any]:
        random = np.random.default_rng(seed)
        kind = np.where(random.random(n) < often, "yes", "no")
        return {"x": random.normal(size=n), "y": random.normal(size=n), "kind": kind}

    def predict(frame: Any) -> Any:
        assert list(frame.columns) == ["x", "y", "kind"]
        return np.asarray(frame["x"] + 2 * (frame["kind"] == "yes"), dtype=float)

    reference_rows = rows(200, 0, 0.2)
    monitor = tg.Monitor(tg.Reference.fit(reference_rows, schema, sample_rows=200), sample_rows=200)
    monitor.log(rows(200, 1, 0.7))
    shift = monitor.explain_shift(predict, groups={"numbers": ["x", "y"]})
    assert [part.name for part in shift.parts] == ["kind", "numbers"]
    assert shift.parts[0].value == pytest.approx(1, abs=0.25)
    for frame in ("polars", "arrow"):

        def other(table: Any) -> Any:
            return predict(table.to_pandas())

        again = monitor.explain_shift(other, groups={"numbers": ["x", "y"]}, frame=frame)
        assert again == shift
    with pytest.raises(tg.DataError, match="not every column holds numbers"):
        monitor.explain_shift(predict, frame="numpy")


# -- shifts ---------------------------------------------------------------------------------------

HOURS = [datetime(2024, 5, 1, hour, tzinfo=UTC) for hour in (0, 1)]


def test_what_moved_the_prediction_adds_up() -> None:
    shift = MONITOR.explain_shift(curved)
    sampled = MONITOR.sample()
    last = sampled["window_start"].to_numpy() == START + np.timedelta64(1, "h")
    rows = np.column_stack([sampled[name] for name in NAMES])[last]
    assert shift.after == pytest.approx(curved(rows).mean(), abs=1e-12)
    assert sum(part.value for part in shift.parts) == pytest.approx(shift.change.value, abs=1e-9)
    assert shift.change.value == shift.after - shift.before
    assert shift == MONITOR.explain_shift(curved, after=HOURS[1])
    table = shift.to_arrow()
    assert table["kind"].to_pylist() == ["feature"] * 5 + ["change"]
    assert repr(shift).startswith("mean prediction ")


def test_two_windows_are_compared_with_each_other() -> None:
    there = MONITOR.explain_shift(linear, before=HOURS[0], after=HOURS[1])
    back = MONITOR.explain_shift(linear, before=HOURS[1], after=HOURS[0])
    assert there.change.value == -back.change.value
    assert there.before == back.after
    sampled = MONITOR.sample()
    late = sampled["window_start"].to_numpy() == START + np.timedelta64(1, "h")
    for part in there.parts:
        column = sampled[part.name].to_numpy()
        wanted = SLOPES[NAMES.index(part.name)] * (column[late].mean() - column[~late].mean())
        assert part.value == pytest.approx(wanted, abs=1e-9)
        assert part.lower <= part.value <= part.upper
    same = MONITOR.explain_shift(linear, before=HOURS[0], after=HOURS[0])
    assert abs(same.change.value) < 1e-12
    assert all(abs(part.value) < 1e-9 for part in same.parts)


def test_what_moved_the_loss_comes_to_the_definition() -> None:
    random = np.random.default_rng(5)
    schema = tg.Schema(task="regression", features=["x", "y"], prediction="p", label="t")

    def rows(n: int, shift: float) -> dict[str, Any]:
        x, y = random.normal(size=(2, n)) + shift
        return {"x": x, "y": y, "p": x, "t": x * y + shift}

    def predict(table: Any) -> Any:
        return np.tanh(table[:, 0]) * table[:, 1]

    before, after = rows(6, 0.0), rows(5, 1.0)
    monitor = tg.Monitor(tg.Reference.fit(before, schema, sample_rows=10), sample_rows=10)
    monitor.log(after)
    shift = monitor.explain_shift(predict, loss="squared_error", max_evaluations=600)
    pairs = [
        [([x, y], t) for x, y, t in zip(each["x"], each["y"], each["t"], strict=True)]
        for each in (before, after)
    ]

    def loss(row: Any, label: float) -> float:
        return (float(predict(np.array([row]))[0]) - label) ** 2

    wanted = dict(zip(("x", "y", LABELS), reference.loss_shift(loss, *pairs), strict=True))
    assert sum(part.value for part in shift.parts) == pytest.approx(shift.change.value, abs=1e-9)
    for part in shift.parts:
        assert part.value == pytest.approx(wanted[part.name], abs=0.3 * max(wanted.values()))
    assert shift.causes is None
    assert "100 labelled rows" in shift.note


def test_a_loss_that_other_rows_raise_is_told_from_other_labels() -> None:
    """The model is wrong where b is large; or the labels have moved, whatever the rows."""

    def wrong(x: Any) -> Any:
        return linear(x) + np.maximum(x[:, 1] - 0.5, 0)

    moved = traffic(900, seed=4, shift=np.array([0, 0.7, 0, 0, 0]), hour=1, first=600)
    rows = monitored(QUIET, moved, size=600).explain_shift(wrong, loss="squared_error")
    biased = traffic(900, seed=4, bias=1.0, hour=1, first=600)
    labels = monitored(QUIET, biased, size=600).explain_shift(linear, loss="squared_error")
    for shift in (rows, labels):
        assert shift.causes is not None
        both = shift.causes.covariate.value + shift.causes.concept.value
        assert both == pytest.approx(shift.change.value, abs=1e-9)
        parts = sum(part.value for part in shift.parts)
        assert parts == pytest.approx(shift.change.value, abs=1e-9)
        assert 100 < shift.causes.before <= 400
    assert rows.causes is not None
    assert labels.causes is not None
    assert rows.causes.covariate.lower > 0
    assert rows.causes.concept.lower < 0 < rows.causes.concept.upper
    assert labels.causes.concept.lower > 0.5
    assert abs(labels.causes.covariate.value) < 0.2 * labels.causes.concept.value


def test_a_feature_that_is_broken_accounts_for_the_loss() -> None:
    """A column is filled with nonsense: the labels stay, and its part is the whole change."""
    broken = traffic(900, seed=4, hour=1, first=600)
    nonsense = pa.array(np.random.default_rng(1).normal(size=900))
    broken = broken.set_column(broken.column_names.index("a"), "a", nonsense)
    shift = monitored(QUIET, broken, size=600).explain_shift(linear, loss="squared_error")
    assert shift.parts[0].name == "a"
    assert shift.parts[0].lower > 4  # of 8 = 2 * 2^2, were the sample endless
    for part in shift.parts[1:]:
        assert abs(part.value) < 0.5 * shift.parts[0].value


def test_the_parts_are_drawn_with_their_intervals() -> None:
    shift = monitored(QUIET).explain_shift(linear, loss="squared_error")
    assert shift.causes is not None
    figure = figures.contributions(shift.to_arrow(), top=2)
    (bars,) = figure.data
    names = [part.name for part in shift.parts[:2]]
    assert figure.layout.yaxis.ticktext == (*names, "covariate", "concept")
    drawn = [*shift.parts[:2], shift.causes.covariate, shift.causes.concept]
    np.testing.assert_allclose(bars.x, [part.value for part in drawn])
    np.testing.assert_allclose(bars.x - bars.error_x.arrayminus, [part.lower for part in drawn])
    np.testing.assert_allclose(bars.x + bars.error_x.array, [part.upper for part in drawn])
    nothing = figures.contributions(shift.to_arrow().slice(0, 0))
    assert nothing.layout.annotations[0].text == "no part in this table"


def test_odds_come_to_the_ratio_of_densities() -> None:
    """Two normal variables of different means and spreads: their log odds are a parabola."""
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(size=20_000), 0.5 + 0.8 * random.normal(size=10_000)])
    missing = np.where(random.random(30_000) < 0.1, np.nan, x)
    codes = (random.random(30_000) < 0.3).astype(np.int64)
    odds = Odds.fit(smooth_features(missing[:, None], codes[:, None]), 20_000).values
    inside = ~np.isnan(missing) & (np.abs(x) < 2)
    wanted = stats.norm.pdf(x, 0.5, 0.8) / stats.norm.pdf(x)
    assert np.abs(np.log(odds / wanted))[inside].max() < 0.15
    assert np.abs(np.log(odds))[np.isnan(missing)].max() < 0.15


def test_the_causes_of_a_loss_cover_the_truth() -> None:
    """The errors of the odds are in the intervals, not those of the losses alone."""

    def loss(x: Any, bias: float, noise: Any) -> Any:
        return (0.5 * x**2 + bias + noise) ** 2

    # Of x ~ N(0, 1) before and N(0.4, 1) after, and a bias of 0 before and 0.5 after.
    wanted = {"covariate": 0.288, "concept": 0.790}
    covered = dict.fromkeys(wanted, 0)
    for seed in range(120):
        random = np.random.default_rng(seed)
        x, noise = random.normal(size=(2, 600))
        x[300:] += 0.4
        odds = Odds.fit(smooth_features(x[:, None], np.zeros((600, 0), np.int64)), 300)
        sides = [loss(x[:300], 0, noise[:300]), loss(x[300:], 0.5, noise[300:])]
        causes = causes_of(sides, odds)
        assert not isinstance(causes, str)
        both = causes.covariate.value + causes.concept.value
        assert both == pytest.approx(sides[1].mean() - sides[0].mean(), abs=1e-9)
        for part in (causes.covariate, causes.concept):
            covered[part.name] += part.lower < wanted[part.name] < part.upper
    assert min(covered.values()) > 0.88 * 120


def test_samples_without_overlap_are_not_told_apart() -> None:
    far = traffic(600, seed=4, shift=np.array([0, 9.0, 0, 0, 0]), hour=1, first=600)
    shift = monitored(QUIET, far).explain_shift(linear, loss="squared_error")
    assert shift.causes is None
    assert "too different" in shift.note
    assert shift.note in repr(shift)


def test_causes_are_weighted_means() -> None:
    """Two kinds of rows in known shares: the weights are exact, and so are the parts."""
    before = np.repeat([1.0, 2.0], [150, 50])  # losses of both kinds
    after = np.repeat([1.5, 2.0], [100, 100])
    odds = np.concatenate([np.repeat([2 / 3, 2], [150, 50]), np.repeat([2 / 3, 2], [100, 100])])
    fixed = np.zeros((400, 1))
    causes = causes_of([before, after], Odds(odds, fixed, fixed))
    assert not isinstance(causes, str)
    old, new, there, back = 1.25, 1.75, 1.5, 1.625
    assert causes.covariate.value == pytest.approx(((there - old) + (new - back)) / 2)
    assert causes.concept.value == pytest.approx(((back - old) + (new - there)) / 2)
    assert causes.before == pytest.approx(200**2 / (150 * 4 / 9 + 50 * 4))


def test_losses_of_every_task() -> None:
    binary = np.array([0.2, 0.9])
    for answers in (binary[:, None], np.stack([1 - binary, binary], axis=1)):
        found = LOSSES["log_loss"](answers, np.array([0.0, 1.0]))
        np.testing.assert_allclose(found, [-np.log(0.8), -np.log(0.9)])
        brier = LOSSES["brier_score"](answers, np.array([0.0, 1.0]))
        np.testing.assert_allclose(brier, [0.04, 0.01])
    many = np.array([[0.2, 0.3, 0.5]])
    assert LOSSES["log_loss"](many, np.array([1.0])) == pytest.approx(-np.log(0.3))
    assert LOSSES["brier_score"](many, np.array([2.0])) == pytest.approx(0.04 + 0.09 + 0.25)
    assert LOSSES["absolute_error"](np.array([[2.0]]), np.array([5.0])) == 3
    assert loss_of(LOSSES["log_loss"])[0] == "_log_loss"


# -- what cannot be answered ----------------------------------------------------------------------


def test_a_constant_model_has_no_importance() -> None:
    table = MONITOR.explain(lambda x: np.ones(len(x))).to_arrow()
    assert {v["value"] for v in values(table, "shap_importance").values()} == {0.0}
    assert {v["status"] for v in values(table, "attribution_ndcg").values()} == {"undefined"}
    shift = MONITOR.explain_shift(lambda x: np.ones(len(x)))
    assert all(part.value == 0 for part in shift.parts)


def test_rows_without_an_answer_are_left_out() -> None:
    def partly(x: Any) -> Any:
        return np.where(x[:, 0] > 1.5, np.nan, x[:, 1])

    with pytest.raises(tg.DataError, match="rows that mix the values"):
        MONITOR.explain(lambda x: np.where(x[:, 0] * x[:, 1] > 4, np.nan, x[:, 1]))
    table = MONITOR.explain(partly).to_arrow()
    assert max(table["n"].to_pylist()) < 300


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"features": ["a", "z"]}, "unknown feature 'z'"),
        ({"segments": ["side=up"]}, "unknown segment 'side=up'"),
        ({"versions": ["v9"]}, "unknown version 'v9'"),
        ({"frame": "duck"}, "frame 'duck' is unknown"),
        ({"groups": {"g": ["z"]}}, "column 'z' is unknown"),
        ({"output": 2}, "output 2 is not among"),
        ({"max_evaluations": 10}, "at least 60 are needed"),
        ({"max_rows": 1}, "max_rows is 2 at least"),
        ({"seed": -1}, "seed is a number from 0"),
    ],
)
def test_wrong_requests_say_what_is_allowed(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MONITOR.explain(linear, **wrong)


def test_wrong_models_and_windows() -> None:
    with pytest.raises(ValueError, match="3 outputs; choose one"):
        MONITOR.explain(lambda x: x[:, :3])
    with pytest.raises(ValueError, match=r"gave shape \(1,\)"):
        MONITOR.explain(lambda _: np.zeros(1))
    with pytest.raises(TypeError, match="numbers are wanted"):
        MONITOR.explain(lambda x: np.array(["a"] * len(x)))
    with pytest.raises(ModelError, match="the model failed"):
        MONITOR.explain(lambda _: 1 / 0)
    with pytest.raises(ValueError, match="no window starts at 2030"):
        MONITOR.explain_shift(linear, after=datetime(2030, 1, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="needs a zone"):
        MONITOR.explain_shift(linear, after=datetime(2024, 5, 1))
    with pytest.raises(ValueError, match="loss 'hinge' is unknown"):
        MONITOR.explain_shift(linear, loss="hinge")
    with pytest.raises(ValueError, match="the loss gave shape"):
        MONITOR.explain_shift(linear, loss=lambda _, labels: labels[:1])


def test_without_rows_labels_or_traffic() -> None:
    with pytest.raises(ValueError, match="none are kept"):
        tg.Monitor(REFERENCE).explain(linear)
    unsampled = tg.Reference.fit(traffic(100, seed=1), SCHEMA)
    with pytest.raises(ValueError, match="none are kept"):
        tg.Monitor(unsampled, sample_rows=10).explain(linear)
    empty = monitored().explain(linear)
    assert repr(empty) == "no window has sampled rows"
    with pytest.raises(ValueError, match="no traffic"):
        monitored().explain_shift(linear)
    silent = monitored(unlabelled(QUIET))
    with pytest.raises(tg.DataError, match="0 sampled rows with labels after"):
        silent.explain_shift(linear, loss="squared_error")
    silent.label(QUIET.select(["id", "truth"]))
    assert silent.explain_shift(linear, loss="squared_error").n_after == 300
