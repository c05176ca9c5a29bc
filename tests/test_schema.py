"""The schema: inferred, written, read, and every mistake named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tidegauge as tg

names = st.text(min_size=1, max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False)
columns = st.one_of(
    st.none(),
    st.builds(tg.numeric, missing=st.lists(numbers, max_size=2)),
    st.builds(tg.numeric, edges=st.lists(numbers, min_size=1, max_size=4, unique=True).map(sorted)),
    st.tuples(numbers, numbers).map(lambda pair: tg.numeric(limits=(min(pair), max(pair)))),
    st.builds(tg.categorical, missing=st.lists(names, max_size=2)),
    st.lists(names, max_size=3, unique=True).map(lambda found: tg.categorical(categories=found)),
    st.just(tg.timestamp()),
)


@given(
    features=st.dictionaries(names, columns, max_size=5),
    segment=names,
    pair=st.tuples(names, names),
    threshold=st.floats(0, 1),
)
def test_toml_round_trip(features: Any, segment: str, pair: Any, threshold: float) -> None:
    roles = [f"{role} {'!' * 20}" for role in ("id", "time", "score", "label")]
    schema = tg.Schema(
        task="binary",
        features=features,
        prediction_id=roles[0],
        timestamp=roles[1],
        prediction_score=roles[2],
        label=roles[3],
        threshold=threshold,
        segments=[segment, pair],
    )
    assert tg.Schema.from_toml(schema.to_toml()) == schema


def test_multiclass_scores_in_toml() -> None:
    schema = tg.Schema(task="multiclass", prediction_score={"a b": "p.1", 'c"': "p2"}, label="y")
    assert tg.Schema.from_toml(schema.to_toml()) == schema


def test_kinds_follow_the_types() -> None:
    table = pa.table(
        {
            "whole": pa.array([1, 2], pa.int8()),
            "real": pa.array([1.0, 2.0], pa.float32()),
            "text": pa.array(["a", "b"]),
            "coded": pa.array(["a", "b"]).dictionary_encode(),
            "flag": pa.array([True, False]),
            "moment": pa.array([1, 2], pa.timestamp("s", "Asia/Tokyo")),
            "nothing": pa.nulls(2),
            "nested": pa.array([[1], [2]]),
            "y": pa.array([0, 1]),
            "p": pa.array([0.5, 0.6]),
        }
    )
    schema = tg.Schema.infer(table, task="binary", label="y", prediction_score="p")
    kinds = {name: column.kind for name, column in schema.declared.items() if column}
    assert kinds == {
        "whole": "numeric",
        "real": "numeric",
        "text": "categorical",
        "coded": "categorical",
        "flag": "categorical",
        "moment": "timestamp",
        "nothing": "numeric",
    }


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({"task": "ranking"}, "unknown task 'ranking'; allowed: binary, multiclass, regression"),
        ({"task": "binary"}, "needs `prediction_score` or `prediction`"),
        ({"task": "regression"}, "needs `prediction`"),
        ({"task": "regression", "prediction": "a", "prediction_score": "b"}, "no `prediction_sc"),
        ({"task": "binary", "prediction_score": {"a": "b"}}, "one `prediction_score` column"),
        ({"task": "multiclass", "prediction_score": "p"}, "prediction_score={class: column}"),
        ({"label": "y"}, "need a task"),
        ({"task": "binary", "prediction_score": "p", "label": "p"}, "column 'p' is given as"),
        ({"features": "age"}, "features is a list or a mapping"),
        ({"features": {"age": "numeric"}}, "feature 'age': got 'numeric'; use tg.numeric"),
        ({"segments": "origin"}, "segments is a list"),
        ({"segments": [3]}, "segments is a list"),
        ({"task": "binary", "prediction_score": "p", "threshold": 2}, "threshold is a score"),
    ],
)
def test_mistakes_are_named(roles: Any, message: str) -> None:
    with pytest.raises(tg.SchemaError, match=message):
        tg.Schema(**roles)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task = ", "not valid TOML"),
        ("colour = 1", "unknown role 'colour'; allowed: "),
        ("[features.x]\nlimits = [0, 1]", "feature 'x': `kind` is missing"),
        ('[features.x]\nkind = "float"', "unknown kind 'float'; allowed: numeric"),
        ('[features.x]\nkind = "numeric"\nsize = 2', "unknown key 'size'; allowed: "),
    ],
)
def test_mistakes_in_toml_are_named(text: str, message: str) -> None:
    with pytest.raises(tg.SchemaError, match=message):
        tg.Schema.from_toml(text)


@pytest.mark.parametrize("edges", [[], [1.0, 1.0], [2.0, 1.0], [0.0, np.inf], [np.nan]])
def test_edges_must_ascend(edges: Any) -> None:
    with pytest.raises(tg.SchemaError, match="finite and ascending"):
        tg.numeric(edges=edges)


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: tg.numeric(edges=range(50_001)), "edges are 50,000 at most, got 50,001"),
        (lambda: tg.categorical(categories=range(50_001)), "categories are 50,000 at most"),
        (lambda: tg.numeric(edges="123"), "edges is a list of values, got '123'"),  # type: ignore[arg-type]
    ],
)
def test_lists_that_no_column_can_hold_are_refused(
    declare: Callable[[], tg.Column], message: str
) -> None:
    with pytest.raises(tg.SchemaError, match=message):
        declare()


def test_as_many_edges_as_may_be_declared_count_beside_limits() -> None:
    edges = np.arange(50_000.0)
    column = tg.numeric(edges=edges, limits=(-0.5, 1e6))  # type: ignore[arg-type]
    reference = tg.Reference.fit({"x": edges}, tg.Schema(features={"x": column}))
    found = tg.compare(reference, {"x": edges}, metrics="largest_bin_share").to_arrow()
    assert found["value"].to_pylist() == [pytest.approx(1 / 50_000)]


def test_limits_must_be_ordered() -> None:
    with pytest.raises(tg.SchemaError, match="limits"):
        tg.numeric(limits=(1, 0))


def test_unknown_roles_of_infer_are_named() -> None:
    with pytest.raises(tg.SchemaError, match="unknown role 'target'; allowed: task, features"):
        tg.Schema.infer({"x": [1]}, target="x")
