"""Explanations against the definition of the Shapley value, and what must not change them."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

import tidegauge as tg
from tidegauge.explain import estimator, operators
from tidegauge.explain.kernel import Attribution

RANDOM = np.random.default_rng(7)
W = RANDOM.normal(size=(24, 12))
V = RANDOM.normal(size=12)


def curved(x: Any) -> Any:
    """A small network in plain sums: each row's answer is the same in any company."""
    hidden = np.zeros((len(x), 12))
    for column in range(x.shape[1]):
        hidden += x[:, [column]] * W[column]
    hidden = np.tanh(hidden)
    total = np.zeros(len(x))
    for unit in range(12):
        total += hidden[:, unit] * V[unit]
    return total


def probability(x: Any) -> Any:
    return 1 / (1 + np.exp(-curved(x)))


def rows_of(n: int, width: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(n, width))


def defined(predict: Any, row: Any, background: Any, **options: Any) -> list[float]:
    players = options.pop("players", [[c] for c in range(len(row))])
    worth = reference.coalition_worth(
        lambda one: float(predict(np.array([one]))[0]),
        row.tolist(),
        background.tolist(),
        players,
        **options,
    )
    return reference.shapley_values(worth, len(players))


def relative(found: Any, wanted: Any) -> float:
    return float(np.sqrt(((found - wanted) ** 2).sum() / (wanted**2).sum()))


# --- the definition -----------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2, 3, 5, 7])
def test_few_players_are_exact(width: int) -> None:
    background, row = rows_of(4, width), rows_of(1, width, 1)
    found = tg.KernelExplainer(curved, background).attribute(row)
    assert found.method == "enumeration"
    np.testing.assert_allclose(found.values[0], defined(curved, row[0], background), atol=1e-13)
    assert (found.standard_errors == 0).all()
    assert found.evaluations[0] == (2**width - 2) * 4 + 1


def test_links_weights_and_groups_follow_the_definition() -> None:
    background, row = rows_of(3, 6), rows_of(1, 6, 1)
    weights = [0.5, 0.3, 0.2]
    players = [[0, 3], [1], [2], [4, 5]]
    explainer = tg.KernelExplainer(
        probability,
        tg.explain.Background(background, np.array(weights)),
        groups={"pair": ["0", "3"], "tail": ["4", "5"]},
        link="logit",
    )
    wanted = defined(
        probability,
        row[0],
        background,
        players=players,
        weights=weights,
        link=lambda p: math.log(p / (1 - p)),
    )
    np.testing.assert_allclose(explainer.attribute(row).values[0], wanted, atol=1e-12)
    assert explainer.feature_names == ["pair", "1", "2", "tail"]


def test_eleven_players_are_exact_by_default() -> None:
    background, rows = rows_of(20, 11), rows_of(2, 11, 1)
    default = tg.KernelExplainer(curved, background).attribute(rows)
    regression = tg.KernelExplainer(curved, background, method="wls").attribute(rows, 10**6)
    assert default.method == regression.method == "enumeration"
    np.testing.assert_allclose(
        default.values.sum(axis=1) + default.base_values, curved(rows), atol=1e-12
    )


@pytest.mark.parametrize("method", ["sinh", "wls"])
def test_estimates_meet_the_definition_within_their_error(method: Any) -> None:
    background, rows = rows_of(30, 11), rows_of(20, 11, 1)
    exact = tg.KernelExplainer(curved, background).attribute(rows).values
    wide = rows_of(30, 11), rows  # the same game, other budgets
    explainer = tg.KernelExplainer(curved, wide[0], method=method)
    small = explainer.attribute(rows, 3_000)
    large = explainer.attribute(rows, 24_000)
    assert small.method == large.method == method
    assert relative(large.values, exact) < 0.5 * relative(small.values, exact) < 0.1
    for found in (small, large):
        missed = np.abs(found.values - exact)
        assert (missed < 1.96 * found.standard_errors).mean() > 0.88  # 220 values, many of them kin
        assert (missed < 4.5 * found.standard_errors).all()


# --- properties ---------------------------------------------------------------------------------


@given(
    width=st.integers(2, 16),
    n_background=st.integers(1, 12),
    evaluations=st.integers(64, 4_000),
    seed=st.integers(0, 5),
)
@settings(max_examples=25)
def test_values_add_up_and_equal_players_share(
    width: int, n_background: int, evaluations: int, seed: int
) -> None:
    def twins(x: Any) -> Any:
        return np.tanh(x[:, 0] + x[:, 1]) * (1 + x[:, -1])

    background, rows = rows_of(n_background, width, seed), rows_of(3, width, seed + 9)
    rows[:, 1] = rows[:, 0]
    background[:, 1] = background[:, 0]
    found = tg.KernelExplainer(twins, background, seed=seed).attribute(rows, evaluations)
    gap = found.values.sum(axis=1) + found.base_values - twins(rows)
    np.testing.assert_allclose(gap, 0, atol=1e-8)
    if width > 8:  # enough pairs to know the error
        apart = np.abs(found.values[:, 0] - found.values[:, 1])
        bar = np.hypot(found.standard_errors[:, 0], found.standard_errors[:, 1])
        assert (apart <= 6 * bar + 1e-7).all()


@given(seed=st.integers(0, 9), evaluations=st.sampled_from([200, 1_500, 9_000]))
@settings(max_examples=8)
def test_linear_models_are_exact_at_any_budget(seed: int, evaluations: int) -> None:
    slopes = np.random.default_rng(seed).normal(size=14)
    background, rows = rows_of(10, 14, seed), rows_of(4, 14, seed + 1)
    wanted = slopes * (rows - background.mean(axis=0))
    for method in ("sinh", "wls") if evaluations > 600 else ("sinh",):
        explainer = tg.KernelExplainer(lambda x: x @ slopes, background, method=method)
        found = explainer.attribute(rows, evaluations)
        np.testing.assert_allclose(found.values, wanted, atol=1e-6)


def test_unused_and_constant_features_get_nothing() -> None:
    background, rows = rows_of(10, 14), rows_of(6, 14, 1)
    background[:, 3] = rows[:, 3] = 2.5  # never differs
    background[:, 5] = 1.0
    rows[:3, 5] = 1.0  # differs in some rows
    background[:, 6] = rows[:, 6] = np.nan
    used = [0, 1, 2, 3, 4, 5]
    found = tg.KernelExplainer(lambda x: curved(x[:, used]), background).attribute(rows, 4_000)
    assert found.method == "sinh"
    assert (found.values[:, [3, 6]] == 0).all()
    assert (found.standard_errors[:, [3, 6]] == 0).all()
    assert (found.values[:3, 5] == 0).all()
    assert (found.values[3:, 5] != 0).all()
    unused = np.abs(found.values[:, 7:])
    assert (unused <= 4.5 * found.standard_errors[:, 7:] + 1e-9).all()
    gap = found.values.sum(axis=1) + found.base_values - curved(rows[:, used])
    np.testing.assert_allclose(gap, 0, atol=1e-9)


def test_constant_models_get_nothing() -> None:
    found = tg.KernelExplainer(lambda x: np.full(len(x), 3.0), rows_of(5, 14)).attribute(
        rows_of(2, 14), 2_000
    )
    np.testing.assert_allclose(found.values, 0, atol=1e-14)  # a mean of threes rounds
    np.testing.assert_allclose(found.standard_errors, 0, atol=1e-14)
    np.testing.assert_allclose(found.base_values, 3)


@pytest.mark.parametrize("evaluations", [400, 6_000])
@pytest.mark.parametrize("method", ["sinh", "wls"])
def test_bits_do_not_depend_on_batch_order_or_tile(
    method: Any, evaluations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    background, rows = rows_of(5, 14), rows_of(11, 14, 1)
    explainer = tg.KernelExplainer(curved, background, method=method, seed=3)
    whole = explainer.attribute(rows, evaluations)
    parts = [explainer.attribute(rows[at : at + 4], evaluations) for at in range(0, 11, 4)]
    np.testing.assert_array_equal(whole.values, np.concatenate([part.values for part in parts]))
    order = np.random.default_rng(0).permutation(11)
    again = tg.KernelExplainer(curved, background, method=method, seed=3)
    turned = again.attribute(rows[order], evaluations)
    np.testing.assert_array_equal(whole.values[order], turned.values)
    np.testing.assert_array_equal(whole.standard_errors[order], turned.standard_errors)
    monkeypatch.setattr("tidegauge.explain.kernel.TILE_BYTES", 1 << 15)
    tiled = tg.KernelExplainer(curved, background, method=method, seed=3)
    np.testing.assert_array_equal(whole.values, tiled.attribute(rows, evaluations).values)
    other = tg.KernelExplainer(curved, background, method=method, seed=4)
    assert (other.attribute(rows, evaluations).values != whole.values).any()


# --- tables ---------------------------------------------------------------------------------------


def mixed(n: int = 60) -> pd.DataFrame:
    random = np.random.default_rng(5)
    return pd.DataFrame(
        {
            "x": random.normal(size=n),
            "count": random.integers(0, 5, n),
            "kind": pd.Categorical(random.choice(list("abc"), n)),
            "city": random.choice(["u", "v"], n),
            "when": pd.date_range("2024", periods=n),
            "flag": random.random(n) > 0.5,
            "maybe": pd.array([None, 1] * (n // 2), dtype="Int64"),
        }
    )


def of_frame(frame: pd.DataFrame) -> Any:
    gain = frame["x"] * frame["count"] + 2.0 * (frame["kind"] == "a")
    gain += frame["x"] * (frame["city"] == "u") + frame["flag"]
    return (gain + frame["maybe"].fillna(5).astype(float)).to_numpy(float)


def of_polars(frame: pl.DataFrame) -> Any:
    gain = pl.col("x") * pl.col("count") + 2.0 * (pl.col("kind").cast(pl.String) == "a")
    gain = gain + pl.col("x") * (pl.col("city") == "u") + pl.col("flag")
    return frame.select((gain + pl.col("maybe").fill_null(5)).alias("y"))["y"].to_numpy()


@pytest.mark.parametrize("evaluations", [None, 500])
def test_tables_keep_their_types_and_agree(evaluations: int | None) -> None:
    frame = mixed()
    kinds = []

    def watched(given: pd.DataFrame) -> Any:
        kinds.append(dict(given.dtypes))
        return of_frame(given)

    pandas = tg.KernelExplainer(watched, frame[:40]).attribute(frame[40:], evaluations)
    assert all(kind == dict(frame.dtypes) for kind in kinds)
    gap = pandas.values.sum(axis=1) + pandas.base_values - of_frame(frame[40:])
    np.testing.assert_allclose(gap, 0, atol=1e-9)
    polars = pl.from_pandas(frame)
    arrow = pa.Table.from_pandas(frame)
    for model, background, rows in (
        (of_polars, polars[:40], polars[40:]),
        (lambda table: of_frame(table.to_pandas()), arrow[:40], arrow[40:]),
        (of_frame, frame[:40], arrow[40:]),
        (of_frame, frame[:40], polars[40:]),
        (of_frame, frame[:40], frame[40:].sample(frac=1, random_state=0).sort_index()),
    ):
        found = tg.KernelExplainer(model, background).attribute(rows, evaluations)
        # the libraries round differently, and this game's interactions are only rounding
        np.testing.assert_allclose(found.values, pandas.values, atol=1e-6)


def test_columns_are_found_by_name_and_groups_move_together() -> None:
    frame = mixed()
    explainer = tg.KernelExplainer(
        of_frame, frame[:10], features=list(frame.columns), groups={"place": ["kind", "city"]}
    )
    rows = frame[40:43].assign(label=1.0)[["label", *reversed(frame.columns)]]
    explanation = explainer(rows)
    assert explanation.feature_names == ["x", "count", "place", "when", "flag", "maybe"]
    assert explanation.data[0][0] == frame["x"][40]
    straight = tg.KernelExplainer(of_frame, frame[:10], groups={"place": ["city", "kind"]})
    np.testing.assert_array_equal(straight(frame[40:43]).values, explanation.values)


def test_numbers_of_a_table_reach_an_array_model() -> None:
    background, rows = rows_of(5, 3), rows_of(2, 3, 1)
    explainer = tg.KernelExplainer(curved, background, features=["a", "b", "c"])
    table = pa.table({"c": rows[:, 2], "a": rows[:, 0], "b": rows[:, 1], "id": [1, 2]})
    np.testing.assert_array_equal(
        explainer.attribute(table).values, explainer.attribute(rows).values
    )


# --- models ---------------------------------------------------------------------------------------


def test_several_outputs_are_explained_at_once() -> None:
    background, rows = rows_of(6, 13), rows_of(3, 13, 1)
    both = tg.KernelExplainer(
        lambda x: np.stack([probability(x), 1 - probability(x), curved(x)], axis=1), background
    ).attribute(rows, 8_000)
    assert both.values.shape == (3, 13, 3)
    assert both.base_values.shape == (3, 3)
    np.testing.assert_allclose(both.values[:, :, 0], -both.values[:, :, 1], atol=1e-12)
    exact = tg.KernelExplainer(curved, background).attribute(rows, 10**6).values
    assert relative(both.values[:, :, 2], exact) < 0.06


def test_float32_models_are_asked_in_float32() -> None:
    kinds = set()

    def watched(x: Any) -> Any:
        kinds.add(x.dtype)
        return curved(x).astype(np.float32)

    background, rows = (part.astype(np.float32) for part in (rows_of(6, 13), rows_of(3, 13, 1)))
    single = tg.KernelExplainer(watched, background, dtype="float32").attribute(rows, 4_000)
    double = tg.KernelExplainer(curved, background, dtype="float64").attribute(rows, 4_000)
    assert kinds == {np.dtype(np.float32)}
    assert relative(single.values, double.values) < 1e-3


def test_a_row_stops_at_its_target() -> None:
    background, rows = rows_of(20, 14), rows_of(12, 14, 1)
    explainer = tg.KernelExplainer(curved, background)
    full = explainer.attribute(rows, 16_384)
    target = 3 * float(np.median(full.standard_errors))
    found = explainer.attribute(rows, 16_384, standard_error=target)
    assert found.evaluations.mean() < full.evaluations.mean()
    stopped = found.evaluations < full.evaluations
    assert (found.standard_errors[stopped] <= target).all()
    alone = explainer.attribute(rows[5:6], 16_384, standard_error=target)
    np.testing.assert_array_equal(alone.values[0], found.values[5])


def test_shap_explains_as_we_do() -> None:
    import shap

    background, rows = rows_of(20, 11), rows_of(3, 11, 1)
    ours = tg.KernelExplainer(curved, background).attribute(rows)
    theirs = shap.KernelExplainer(curved, background).shap_values(
        rows, nsamples=2**11, l1_reg=False, silent=True
    )
    np.testing.assert_allclose(ours.values, theirs, atol=1e-8)


def models() -> list[tuple[Any, str]]:
    import lightgbm
    import xgboost
    from sklearn import ensemble, linear_model

    rows = rows_of(300, 9)
    target = rows[:, 0] * rows[:, 1] + rows[:, 2] + rows[:, 3] ** 2
    found: list[tuple[Any, str]] = []
    for model, method in (
        (linear_model.Ridge(), "linear"),
        (ensemble.RandomForestRegressor(5, max_depth=4), "tree"),
        (ensemble.GradientBoostingRegressor(n_estimators=20), "tree"),
        (ensemble.HistGradientBoostingRegressor(max_iter=20), "tree"),
        (lightgbm.LGBMRegressor(n_estimators=20, n_jobs=1, verbose=-1), "tree"),
        (xgboost.XGBRegressor(n_estimators=20, n_jobs=1), "tree"),
    ):
        found.append((model.fit(rows, target), method))
    label = target > np.median(target)
    forest = ensemble.RandomForestClassifier(5, max_depth=4).fit(rows, label)
    boosted = ensemble.GradientBoostingClassifier(n_estimators=20).fit(rows, label)
    logistic = linear_model.LogisticRegression().fit(rows, label)
    found += [(forest, "tree"), (logistic.decision_function, "linear")]
    found += [(boosted.decision_function, "tree"), (boosted, "enumeration")]
    found += [(boosted.predict_proba, "enumeration"), (logistic, "enumeration")]
    return found


@pytest.mark.filterwarnings("ignore")  # of other libraries, about feature names
def test_exact_paths_are_taken_where_they_are_exact() -> None:
    background, rows = rows_of(20, 9, 1), rows_of(2, 9, 2)
    for model, method in models():
        explained = tg.KernelExplainer(model, background).attribute(rows)
        sampled = tg.KernelExplainer(model, background, exact="never").attribute(rows)
        assert explained.method == method, model
        assert sampled.method == "enumeration"
        scale = np.abs(sampled.values).max()
        np.testing.assert_allclose(explained.values, sampled.values, atol=1e-5 * scale)
    grouped = tg.KernelExplainer(models()[1][0], background, groups={"g": ["0", "1"]})
    assert grouped.attribute(rows).method == "enumeration"


def test_onnx_files_are_models(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    weights = W[:6].astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("ReduceSum", ["t", "axis"], ["y"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
        [
            helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.ravel()),
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        ],
    )
    opsets = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(tmp_path / "net.onnx"))
    background, rows = rows_of(5, 6), rows_of(2, 6, 1)
    found = tg.KernelExplainer(tmp_path / "net.onnx", background, dtype="float32").attribute(rows)
    wanted = tg.KernelExplainer(lambda x: np.tanh(x @ W[:6]).sum(axis=1), background)
    np.testing.assert_allclose(found.values, wanted.attribute(rows).values, atol=1e-5)
    with pytest.raises(FileNotFoundError, match=r"nothing\.onnx"):
        tg.KernelExplainer(tmp_path / "nothing.onnx", background)


# --- what shap makes of it ------------------------------------------------------------------------


def test_plots_of_shap_take_it() -> None:
    import matplotlib as mpl
    import shap

    mpl.use("Agg")
    explanation = tg.KernelExplainer(curved, rows_of(5, 4))(rows_of(8, 4, 1))
    assert isinstance(explanation, shap.Explanation)
    assert explanation.standard_errors.shape == explanation.values.shape
    assert explanation[2].standard_errors.shape == (4,)
    assert explanation[2].method == "enumeration"
    for draw, shown in (
        (shap.plots.bar, explanation),
        (shap.plots.beeswarm, explanation),
        (shap.plots.heatmap, explanation),
        (shap.plots.waterfall, explanation[0]),
    ):
        draw(shown, show=False)
        mpl.pyplot.close("all")


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: x.sum(), r"gave shape \(\) for 5 rows"),
        (lambda x: np.zeros((len(x), 2, 2)), r"gave shape \(5, 2, 2\)"),
        (lambda x: np.zeros(len(x) + 1), r"gave shape \(6,\) for 5 rows"),
        (lambda x: np.array(["a"] * len(x)), "numbers are wanted"),
        (lambda x: np.negative(x, out=x)[:, 0], "changes its input"),
        (lambda x: x[:, 99], "index 99"),
    ],
)
def test_a_bad_model_is_told(model: Any, message: str) -> None:
    with pytest.raises(tg.explain.ModelError, match=message):
        tg.KernelExplainer(model, rows_of(5, 3))(rows_of(2, 3))


def test_finished_rows_survive_a_failure() -> None:
    rows = rows_of(9, 14, 1)

    def failing(x: Any) -> Any:
        if (x == rows[5]).all(axis=1).any():
            raise RuntimeError("no such airport")
        return curved(x)

    explainer = tg.KernelExplainer(failing, rows_of(5, 14))
    with pytest.raises(tg.explain.ModelError, match=r"rows \[5, 6\).*airport.*5 rows") as caught:
        explainer(rows, 4_000)
    assert caught.value.rows == (5, 6)
    np.testing.assert_array_equal(caught.value.partial.values, explainer(rows[:5], 4_000).values)
    with pytest.raises(tg.explain.ModelError) as caught:
        explainer(rows[5:], 4_000)
    assert caught.value.partial is None


@pytest.mark.parametrize("evaluations", [300, 4_000])
def test_rows_without_finite_answers_touch_no_others(evaluations: int) -> None:
    rows = rows_of(7, 14, 1)
    rows[4, 0] = 100

    def broken(x: Any) -> Any:
        return np.where(x[:, 0] > 50, np.inf, curved(x))

    background = rows_of(5, 14)
    found = tg.KernelExplainer(broken, background).attribute(rows, evaluations)
    assert found.n_failed == 1
    assert np.isnan(found.values[4]).all()
    wanted = tg.KernelExplainer(curved, background).attribute(rows, evaluations)
    others = np.arange(7) != 4
    np.testing.assert_array_equal(found.values[others], wanted.values[others])
    background[2, 0] = 100
    with pytest.raises(tg.DataError, match="1 of 5 background rows"):
        tg.KernelExplainer(broken, background).attribute(rows)


def test_missing_values_pass_through() -> None:
    background, rows = rows_of(5, 14), rows_of(3, 14, 1)
    rows[0, 2] = background[1, 4] = np.nan
    filled = lambda x: curved(np.where(np.isnan(x), -1.0, x))  # noqa: E731
    found = tg.KernelExplainer(filled, background).attribute(rows, 4_000)
    np.testing.assert_allclose(
        found.values.sum(axis=1) + found.base_values, filled(rows), atol=1e-9
    )


def test_bad_arguments_are_told() -> None:
    background = rows_of(5, 14)
    explainer = tg.KernelExplainer(curved, background)
    with pytest.raises(ValueError, match="at least 56 are needed"):
        explainer(rows_of(1, 14), 55)
    assert explainer.attribute(rows_of(1, 14), 56).evaluations[0] == 57
    with pytest.raises(tg.DataError, match=r"shape \(2, 3\), wanted \(rows, 14\)"):
        explainer(rows_of(2, 3))
    with pytest.raises(tg.DataError, match="no rows"):
        tg.KernelExplainer(curved, background[:0])
    with pytest.raises(tg.DataError, match="missing"):
        tg.KernelExplainer(of_frame, mixed())(mixed().drop(columns="city"))
    rows = mixed().astype({"kind": str})
    rows.loc[3, "kind"] = "z"
    with pytest.raises(tg.DataError, match=r"'z' is no category"):
        tg.KernelExplainer(of_frame, mixed())(rows)
    with pytest.raises(tg.DataError, match="DataFrame or an Arrow table"):
        explainer(np.array([["a"] * 14]))
    with pytest.raises(ValueError, match="column 'x' is unknown"):
        tg.KernelExplainer(curved, background, groups={"g": ["x"]})
    with pytest.raises(ValueError, match="in group 'a' and 'b'"):
        tg.KernelExplainer(curved, background, groups={"a": ["1"], "b": ["1"]})
    with pytest.raises(ValueError, match="link 'probit'"):
        tg.KernelExplainer(curved, background, link="probit")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got int"):
        tg.KernelExplainer(3, background)


@pytest.mark.parametrize("empty", [np.empty((0, 14)), np.empty((0, 14), np.float32)])
def test_no_rows_give_no_values(empty: Any) -> None:
    explainer = tg.KernelExplainer(curved, rows_of(5, 14))
    assert explainer(empty).values.shape == (0, 14)
    several = tg.KernelExplainer(lambda x: x[:, :2], rows_of(5, 14))
    assert several(empty).values.shape == (0, 14, 2)


# --- budgets --------------------------------------------------------------------------------------


@given(
    n_players=st.integers(2, 80),
    n_background=st.integers(1, 300),
    evaluations=st.integers(1, 400_000),
    whole=st.booleans(),
)
def test_budgets_are_kept(n_players: int, n_background: int, evaluations: int, whole: bool) -> None:
    try:
        budget = estimator.plan_budget(n_players, n_background, evaluations, whole=whole)
    except ValueError:
        smallest = n_background if whole else 1
        assert evaluations < 2 * smallest * min(2 * n_players, 2 ** (n_players - 1) - 1)
        return
    split = operators.split_background(np.full(n_background, 1 / n_background), budget.n_groups)
    assert 2 * budget.n_pairs * np.diff(split.starts).max() <= evaluations
    assert np.diff(split.starts).min() >= 1
    assert not (whole and budget.n_groups > 1)


def test_memory_is_bounded() -> None:
    """The model allocates next to nothing, so the peak is ours."""
    background, rows = rows_of(100, 30), rows_of(40, 30, 1)
    for most in (64 << 20, 16 << 20):
        explainer = tg.KernelExplainer(lambda x: x[:, 0] * x[:, 1], background, max_bytes=most)
        tracemalloc.start()
        explainer.attribute(rows, 204_800)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < most


def test_summaries_are_real_rows_with_all_the_weight() -> None:
    rows = np.concatenate([rows_of(300, 2), rows_of(100, 2, 1) + 20])
    for method in ("kmeans", "stratified"):
        summary = tg.explain.summarize(rows, 20, method=method, model=curved)
        assert summary.weights.sum() == pytest.approx(1)
        assert {tuple(row) for row in summary.rows} <= {tuple(row) for row in rows}
    clusters = tg.explain.summarize(rows, 2)
    assert sorted(clusters.weights.tolist()) == [0.25, 0.75]
    frame = tg.explain.summarize(mixed(), 6, method="stratified")
    found = tg.KernelExplainer(of_frame, frame).attribute(mixed()[:2])
    assert isinstance(found, Attribution)
    wanted = float((frame.weights * of_frame(frame.rows)).sum())
    assert found.base_values[0] == pytest.approx(wanted)
    with pytest.raises(tg.DataError, match="stratified"):
        tg.explain.summarize(np.array([[np.nan], [1.0], [2.0]]), 2)


def test_balanced_groups_make_errors_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    background, rows = rows_of(60, 12), rows_of(20, 12, 1)
    exact = tg.KernelExplainer(curved, background).attribute(rows, 10**6)
    assert exact.method == "enumeration"
    errors = []
    for most in (estimator.BALANCED_ROWS, 0):
        monkeypatch.setattr(estimator, "BALANCED_ROWS", most)
        explainers = [tg.KernelExplainer(curved, background, seed=seed) for seed in range(3)]
        found = [explainer.attribute(rows, 24_000).values for explainer in explainers]
        errors.append(np.mean([relative(one, exact.values) for one in found]))
    assert errors[0] < 0.9 * errors[1]
