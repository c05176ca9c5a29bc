"""Derived columns: counted like columns that were there, whatever happens to function and data."""

from __future__ import annotations

import importlib
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tidegauge as tg
from tidegauge.derived import Function
from tidegauge.layout import Layout

N = 400
NUMBERS = st.one_of(
    st.none(), st.floats(-50, 50), st.sampled_from([float("nan"), float("inf"), -float("inf"), 0.0])
)
TEXTS = st.one_of(st.none(), st.sampled_from(["", "ab1", "cd2", "née", "a\nb", "x" * 40]))
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, TEXTS), max_size=30)


def table_of(rows: list[tuple[float | None, float | None, str | None]]) -> pa.Table:
    return pa.table(
        {
            "a": pa.array([row[0] for row in rows], pa.float64()),
            "b": pa.array([row[1] for row in rows], pa.float64()),
            "c": pa.array([row[2] for row in rows], pa.string()),
        }
    )


def known(n: int = N) -> pa.Table:
    random = np.random.default_rng(7)
    return pa.table(
        {
            "a": random.normal(size=n),
            "b": random.gamma(2.0, size=n),
            "c": random.choice(["ab1", "cd2", "née"], n),
        }
    )


def initials(texts: np.ndarray) -> np.ndarray:
    return np.array([None if text is None else text[:1] for text in texts], dtype=object)


SCHEMA = tg.Schema(
    features={
        "a": tg.numeric(),
        "ratio": tg.derived(lambda a, b: a / b, ["a", "b"]),
        "positive": tg.derived(lambda a: a > 0, ["a"]),
        "initial": tg.derived(initials, ["c"]),
        "ordered": tg.derived(lambda a, b: a <= b, ["a", "b"], kind="rule"),
        "coded": tg.matches("c", "[a-z]+[0-9]"),
    }
)
DERIVED = ("ratio", "positive", "initial", "ordered", "coded")


def by_hand(table: pa.Table) -> pa.Table:
    """The derived columns, a value at a time, by their definition in plain Python."""
    made: dict[str, list[object]] = {name: [] for name in DERIVED}
    for row in table.to_pylist():
        a, b, c = (row[name] for name in "abc")
        x, y = (np.float64(np.nan if value is None else value) for value in (a, b))
        with np.errstate(all="ignore"):
            made["ratio"].append(float(x / y))
        made["positive"].append(bool(x > 0))
        made["initial"].append(None if c is None else c[:1])
        missing = bool(np.isnan(x) or np.isnan(y))
        made["ordered"].append(None if missing else bool(x <= y))
        stem, digit = (c or "")[:-1], (c or "")[-1:]
        letters = bool(stem) and all("a" <= letter <= "z" for letter in stem)
        made["coded"].append(None if c is None else letters and digit in list("0123456789"))
    types = [pa.float64(), pa.bool_(), pa.string(), pa.bool_(), pa.bool_()]
    columns = {
        name: pa.array(values, kind, from_pandas=False)
        for (name, values), kind in zip(made.items(), types, strict=True)
    }
    return pa.table({"a": table["a"], **columns})


PLAIN = tg.Schema(
    features={
        "a": tg.numeric(),
        "ratio": tg.numeric(),
        "positive": tg.categorical(),
        "initial": tg.categorical(),
        "ordered": tg.Column("rule"),
        "coded": tg.Column("rule"),
    }
)
REFERENCE = tg.Reference.fit(known(), SCHEMA)
BY_HAND = tg.Reference.fit(by_hand(known()), PLAIN)


def counted(monitor: tg.Monitor) -> dict[str, np.ndarray]:
    """Everything that was counted."""
    return monitor.state()[1]


def same(left: tg.Monitor, right: tg.Monitor) -> bool:
    ours, theirs = counted(left), counted(right)
    return ours.keys() == theirs.keys() and all(
        np.array_equal(ours[name], theirs[name], equal_nan=ours[name].dtype.kind == "f")
        for name in ours
    )


def values(monitor: tg.Monitor, metric: str) -> dict[str, float | None]:
    rows = monitor.metrics(metric).to_pylist()
    return {row["column"]: row["value"] for row in rows}


def logged(*batches: object, reference: tg.Reference = REFERENCE) -> tg.Monitor:
    monitor = tg.Monitor(reference)
    for batch in batches:
        monitor.log(batch)
    return monitor


# -- counts -----------------------------------------------------------------------------------


@given(ROWS)
def test_derived_columns_are_counted_as_if_they_had_been_there(rows) -> None:
    table = table_of(rows)
    ours, theirs = logged(table), logged(by_hand(table), reference=BY_HAND)
    assert same(ours, theirs)
    assert ours.metrics().equals(theirs.metrics())


def test_the_reference_of_derived_columns_is_that_of_columns_which_were_there() -> None:
    for name, column in REFERENCE.layout.columns.items():
        other = BY_HAND.layout.columns[name]
        assert (column.block, column.grid) == (other.block, other.grid)
        if column.categories is not None and other.categories is not None:
            assert column.categories.texts == other.categories.texts
    assert all(
        np.array_equal(array, BY_HAND.state()[1][name])
        for name, array in REFERENCE.state()[1].items()
    )


@given(ROWS, st.integers(0, 30), st.integers(0, 3))
def test_neither_splits_nor_slices_nor_chunks_change_a_count(rows, cut, skip) -> None:
    table = table_of(rows)
    whole = logged(table)
    assert same(whole, logged(table.slice(0, cut), table.slice(cut)))
    padded = pa.concat_tables([known(skip), table]) if skip else table
    assert same(whole, logged(padded.slice(skip)))
    coded = table.set_column(2, "c", table["c"].dictionary_encode())
    assert same(whole, logged(coded))


def test_threads_and_tiles_change_no_count(monkeypatch) -> None:
    table = known(5_000)
    whole = logged(table)
    monkeypatch.setattr("tidegauge.ingest.TILE", 700)
    tiled = tg.Monitor(REFERENCE, threads=3)
    tiled.log(table)
    assert same(whole, tiled)
    split = tg.Reference.fit([table.slice(0, 1234), table.slice(1234)], SCHEMA)
    assert all(
        np.array_equal(array, split.state()[1][name])
        for name, array in tg.Reference.fit(table, SCHEMA).state()[1].items()
    )


def test_a_function_sees_a_tile_at_a_time(monkeypatch) -> None:
    monkeypatch.setattr("tidegauge.ingest.TILE", 100)
    sizes: list[int] = []

    def noted(a: np.ndarray) -> np.ndarray:
        sizes.append(len(a))
        return a

    reference = tg.Reference.fit(known(), tg.Schema(features={"x": tg.derived(noted, ["a"])}))
    sizes.clear()
    logged(known(250), reference=reference)
    assert sizes == [100, 100, 50]


@pytest.mark.parametrize("n", [0, 1])
def test_few_rows_are_enough(n) -> None:
    reference = tg.Reference.fit(known(n), SCHEMA)
    assert reference.n_rows == n
    monitor = logged(known(n), known(3), reference=reference)
    assert monitor.metrics("row_count")["value"].to_pylist() == [n + 3]


def test_duplicates_are_left_out_of_derived_columns_and_rows_are_counted_once() -> None:
    schema = replace(SCHEMA, prediction_id="id")
    table = known(50).append_column("id", pa.array(range(50)))
    monitor = logged(table, table, reference=tg.Reference.fit(table, schema))
    rows = monitor.metrics(["row_count", "duplicate_rate", "missing_rate"]).to_pylist()
    found = {(row["metric"], row["column"]): (row["value"], row["n"]) for row in rows}
    assert found["row_count", None][0] == 50
    assert found["duplicate_rate", None][0] == 0.5
    assert found["missing_rate", "ratio"][1] == 50


def test_segments_split_derived_columns_too() -> None:
    schema = replace(SCHEMA, segments=["c"])
    monitor = logged(known(), reference=tg.Reference.fit(known(), schema))
    table = monitor.metrics("violation_rate", columns="ordered").to_pylist()
    overall, *parts = [(row["value"], row["n"]) for row in table]
    assert sum(value * n for value, n in parts) / N == pytest.approx(overall[0])


# -- rules ------------------------------------------------------------------------------------


@given(ROWS)
def test_violation_rate_is_the_share_of_judged_rows_that_break_the_rule(rows) -> None:
    table = table_of(rows)
    if not rows:
        return
    monitor = logged(table)
    for name in ("ordered", "coded"):
        held = [value for value in by_hand(table)[name].to_pylist() if value is not None]
        found = values(monitor, "violation_rate")[name]
        assert found == (pytest.approx(held.count(False) / len(held)) if held else None)


def test_a_rule_without_a_judged_row_is_undefined() -> None:
    monitor = logged(table_of([(None, 1.0, None)]))
    row = monitor.metrics("violation_rate", columns="ordered").to_pylist()[0]
    assert (row["value"], row["status"]) == (None, "undefined")
    assert values(monitor, "missing_rate")["ordered"] == 1


@pytest.mark.parametrize(
    ("pattern", "text", "holds"),
    [
        ("a|b", "ab", False),
        ("a|b", "b", True),
        ("", "", True),
        ("(?i)abc", "ABC", True),
        ("a.c", "a\nc", False),
        ("[0-9]+", "12\n", False),
        (r"\p{L}+", "née", True),
        ("(a*)*b", "a" * 5_000, False),
    ],
)
def test_a_pattern_describes_the_whole_text(pattern, text, holds) -> None:
    schema = tg.Schema(features={"rule": tg.matches("c", pattern)})
    monitor = logged({"c": [text]}, reference=tg.Reference.fit({"c": [text]}, schema))
    assert values(monitor, "violation_rate")["rule"] == (0 if holds else 1)


@pytest.mark.parametrize("pattern", ["(", "a)(b", "[a", "(?=a)b", r"(a)\1", None, 3])
def test_an_invalid_pattern_is_named(pattern) -> None:
    with pytest.raises(tg.SchemaError, match="is not a regular expression") as raised:
        tg.matches("c", pattern)
    assert repr(pattern) in str(raised.value)


def test_numbers_and_booleans_are_matched_as_they_are_written() -> None:
    table = {"number": [1, 20], "flag": [True, False]}
    schema = tg.Schema(
        features={"short": tg.matches("number", "."), "yes": tg.matches("flag", "true")}
    )
    monitor = logged(table, reference=tg.Reference.fit(table, schema))
    assert values(monitor, "violation_rate") == {"short": 0.5, "yes": 0.5}


def test_a_rule_counts_as_a_violation_of_its_column() -> None:
    monitor = logged(table_of([(1.0, 0.0, "ab1"), (0.0, 1.0, "ab1")]))
    assert values(monitor, "any_violation_rate")["ordered"] == 0.5


# -- what functions are given and may return --------------------------------------------------


def given_to(table: object, columns: list[str]) -> list[np.ndarray]:
    """Arrays that a function gets."""
    seen: list[np.ndarray] = []

    def keep(*arrays: np.ndarray) -> np.ndarray:
        seen[:] = arrays
        return np.zeros(len(arrays[0]))

    tg.Reference.fit(table, tg.Schema(features={"x": tg.derived(keep, columns)}))
    return seen


def test_functions_get_plain_arrays() -> None:
    moments = [np.datetime64("2024-05-01T12:00", "ns"), np.datetime64("NaT", "ns")]
    table = pa.table(
        {
            "whole": pa.array([1, None], pa.int32()),
            "flag": pa.array([None, True]),
            "text": pa.array(["é", None]),
            "coded": pa.array(["b", None]).dictionary_encode(),
            "time": pa.array(np.array(moments)),
            "nothing": pa.nulls(2),
        }
    )
    whole, flag, text, coded, time, nothing = given_to(table, table.column_names)
    np.testing.assert_array_equal(whole, [1.0, np.nan])
    np.testing.assert_array_equal(flag, [np.nan, 1.0])
    assert (text.tolist(), coded.tolist()) == (["é", None], ["b", None])
    assert text.dtype == coded.dtype == object
    np.testing.assert_array_equal(time, np.array(moments, "datetime64[us]"))
    assert time.dtype == "datetime64[us]"
    assert np.isnan(nothing).all()


def test_inputs_are_the_functions_own() -> None:
    def spoil(a: np.ndarray) -> np.ndarray:
        a[:] = 0
        return a

    table = {"a": np.arange(1.0, 5.0)}
    schema = tg.Schema(features={"a": None, "zero": tg.derived(spoil, ["a"])})
    tg.Reference.fit(table, schema)
    assert table["a"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("returned", "kind"),
    [
        (np.array([1, 2], np.int8), "numeric"),
        (np.array([1, 2], np.float16), "numeric"),
        ([1.0, 2.0], "numeric"),
        (np.array([True, False]), "categorical"),
        (np.array(["a", "b"]), "categorical"),
        (np.array(["a", np.nan], dtype=object), "categorical"),
        (pa.array(["a", None]), "categorical"),
        (pa.chunked_array([["a"], ["b"]]), "categorical"),
        (np.array(["2024-01-01", "NaT"], "datetime64[h]"), "timestamp"),
        (np.array([None, None]), "numeric"),
    ],
    ids=str,
)
def test_the_kind_is_that_of_what_a_function_returns(returned, kind) -> None:
    schema = tg.Schema(features={"x": tg.derived(lambda a: returned, ["a"])})
    reference = tg.Reference.fit({"a": [1.0, 2.0]}, schema)
    column = reference.schema.counted_features["x"]
    assert column is not None
    assert column.kind == kind
    monitor = logged({"a": [1.0, 2.0]}, reference=reference)
    assert values(monitor, "type_violation_rate") == {"x": 0}


BAD = [
    (lambda a: a[:1], "one value for each of 2 rows is wanted, got shape \\(1,\\)"),
    (lambda a: np.stack([a, a]), "got shape \\(2, 2\\)"),
    (lambda a: 1.0, "got shape \\(\\)"),
    (lambda a: pa.array([1.0]), "one value for each of 2 rows is wanted, got 1"),
    (lambda a: a * 1j, "complex128"),
    (lambda a: a.astype("timedelta64[s]"), "duration"),
    (lambda a: [[1], [2]], "shape"),
    (lambda a: np.array([{}, "a"], dtype=object), "dtype object cannot be counted"),
    (lambda a: 1 / 0, "raised ZeroDivisionError: division by zero"),
    (lambda a, b: a, "raised TypeError"),
]


@pytest.mark.parametrize(("function", "message"), BAD)
@pytest.mark.parametrize("kind", [None, "numeric", "categorical", "rule"])
def test_a_function_that_fails_is_an_error_at_fit_and_invalid_afterwards(
    function, message, kind, caplog
) -> None:
    def healthy(a: np.ndarray) -> np.ndarray:
        return a > 0 if kind == "rule" else a

    table = {"a": np.array([1.0, 2.0])}
    with pytest.raises(tg.SchemaError, match=f"feature 'x', derived from a: .*{message}"):
        tg.Reference.fit(table, tg.Schema(features={"x": tg.derived(function, ["a"], kind=kind)}))
    schema = tg.Schema(features={"a": None, "x": tg.derived(healthy, ["a"], kind=kind)})
    reference = tg.Reference.fit(table, schema)
    stored, arrays = reference.state()
    broken = tg.Reference.from_state(stored, arrays, {"x": function})
    with caplog.at_level(logging.WARNING):
        monitor = logged(table, table, reference=broken)
    assert values(monitor, "type_violation_rate") == {"a": 0, "x": 1}
    assert values(monitor, "row_count") == {None: 4}
    (record,) = caplog.records
    assert "feature 'x', derived from a" in record.getMessage()


def test_a_result_of_another_kind_is_an_error(caplog) -> None:
    for kind, function in [
        ("numeric", lambda a: a.astype(str)),
        ("timestamp", lambda a: a),
        ("categorical", lambda a: a.astype("datetime64[us]")),
        ("rule", lambda a: a),
        ("rule", lambda a: a.astype(str)),
    ]:
        feature = tg.derived(function, ["a"], kind=kind)
        with pytest.raises(tg.SchemaError, match=f"are not {kind}; allowed: "):
            tg.Reference.fit({"a": [1.0, 2.0]}, tg.Schema(features={"x": feature}))


def test_a_column_of_another_type_than_in_the_reference_is_invalid(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        monitor = logged({"a": ["1", "2"], "b": [1.0, 2.0], "c": [1, 2]})
    rates = values(monitor, "type_violation_rate")
    assert {name: rates[name] for name in DERIVED} == {
        "ratio": 1,
        "positive": 1,
        "initial": 1,
        "ordered": 1,
        "coded": 0,
    }
    messages = [record.getMessage() for record in caplog.records]
    assert any("column 'a' held numbers in the reference, and now texts" in m for m in messages)


def test_absent_and_empty_inputs_are_absent_and_missing(caplog) -> None:
    monitor = logged({"a": [1.0, 2.0]})
    absent = values(monitor, "absent_rate")
    assert absent == {"a": 0, "positive": 0, **dict.fromkeys(set(DERIVED) - {"positive"}, 1)}
    assert values(logged({"other": [1.0]}), "absent_rate") == {"a": 1, **dict.fromkeys(DERIVED, 1)}
    nulls = pa.table({"a": pa.nulls(3), "b": pa.nulls(3), "c": pa.nulls(3)})
    missing = values(logged(nulls), "missing_rate")
    assert missing == {"a": 1, "ratio": 1, "positive": 0, "initial": 1, "ordered": 1, "coded": 1}
    assert not caplog.records


def test_infinities_have_their_own_bins() -> None:
    monitor = logged({"a": [1.0, -1.0, 0.0], "b": [0.0, 0.0, 0.0]})
    assert values(monitor, "infinite_rate")["ratio"] == pytest.approx(2 / 3)
    assert values(monitor, "nan_rate")["ratio"] == pytest.approx(1 / 3)


def test_more_can_be_declared_of_a_derived_column() -> None:
    square = tg.derived(lambda a: a * a, ["a"], kind=tg.numeric(limits=(0, 1), missing=[4]))
    schema = tg.Schema(features={"x": square})
    monitor = logged({"a": [2.0, 3.0]}, reference=tg.Reference.fit({"a": [0.0, 1.0]}, schema))
    assert values(monitor, "sentinel_rate") == {"x": 0.5}
    assert values(monitor, "out_of_range_rate") == {"x": 0.5}


# -- numba ------------------------------------------------------------------------------------


def quotient(a: float, b: float) -> float:
    if b > 1:
        return a / b
    return -1.0


def quotients(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.where(b > 1, a / b, -1.0)


def test_compiled_functions_count_like_numpys() -> None:
    numba = pytest.importorskip("numba")
    table = pa.concat_tables([known(), table_of([(None, 2.0, None), (1.0, None, None)])])
    expected = tg.Reference.fit(table, tg.Schema(features={"x": tg.derived(quotients, ["a", "b"])}))
    for function, engine in [
        (quotient, "numba"),
        (lambda a, b: a / b if b > 1 else -1.0, "numba"),
        (numba.njit(quotient), None),
        (numba.vectorize(quotient), None),
        (numba.vectorize(["float64(float64, float64)"])(quotient), None),
        (numba.njit(lambda a, b: np.where(b > 1, a / b, -1.0)), "numpy"),
    ]:
        feature = tg.derived(function, ["a", "b"], engine=engine)
        found = tg.Reference.fit(table, tg.Schema(features={"x": feature}))
        assert found.layout.columns["x"].grid == expected.layout.columns["x"].grid
        assert np.array_equal(found.state()[1]["counts_0"], expected.state()[1]["counts_0"])


def test_compiled_rules_and_quotients_of_zero() -> None:
    pytest.importorskip("numba")
    schema = tg.Schema(
        features={
            "rule": tg.derived(lambda a, b: a <= b, ["a", "b"], kind="rule", engine="numba"),
            "ratio": tg.derived(lambda a, b: a / b, ["a", "b"], engine="numba"),
        }
    )
    table = {"a": [1.0, 1.0, None], "b": [0.0, 2.0, 1.0]}
    monitor = logged(table, reference=tg.Reference.fit(table, schema))
    assert values(monitor, "violation_rate")["rule"] == 0.5
    assert values(monitor, "infinite_rate")["ratio"] == pytest.approx(1 / 3)


def test_machine_code_is_kept_for_modules_alone(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_quotients.py").write_text("def double(a):\n    return 2 * a\n")
    module = importlib.import_module("own_quotients")
    pasted = tmp_path / "cell.py"
    pasted.write_text("pasted = lambda a: 2 * a")
    for _ in range(2):  # what was kept must be found again
        names = {"__name__": "nowhere"}
        exec(compile(pasted.read_text(), str(pasted), "exec"), names)
        for function in (module.double, names["pasted"]):
            feature = tg.derived(function, ["a"], engine="numba")
            tg.Reference.fit(known(), tg.Schema(features={"x": feature}))
        module = importlib.reload(module)
    kept = {path.name.split(".")[0] for path in tmp_path.rglob("*.nbi")}
    assert kept == {"own_quotients"}


def test_what_cannot_be_compiled_is_an_error_at_fit(monkeypatch) -> None:
    pytest.importorskip("numba")
    feature = tg.derived(lambda c: c, ["c"], engine="numba")
    with pytest.raises(tg.SchemaError, match="engine 'numba' takes columns of numbers; 'c' holds"):
        tg.Reference.fit(known(), tg.Schema(features={"x": feature}))
    feature = tg.derived(lambda a: object(), ["a"], engine="numba")
    with pytest.raises(tg.SchemaError, match="feature 'x', derived from a: raised TypingError"):
        tg.Reference.fit(known(), tg.Schema(features={"x": feature}))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(tg.SchemaError, match=r"pip install 'tidegauge\[numba\]'"):
        tg.derived(quotient, ["a", "b"], engine="numba")


# -- schemas ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            {"x": tg.derived(abs, ["y"]), "y": tg.derived(abs, ["a"])},
            "'y', which is derived itself",
        ),
        ({"x": tg.derived(abs, ["x"])}, "'x', which is derived itself"),
        ({"time": tg.derived(abs, ["a"])}, "column of the traffic with a role"),
        ({"group": tg.derived(abs, ["a"])}, "column of the traffic with a role"),
    ],
)
def test_names_that_collide_are_an_error_of_the_schema(features, message) -> None:
    with pytest.raises(tg.SchemaError, match=message):
        tg.Schema(features=features, timestamp="time", segments=["group"])


def test_features_may_share_inputs_with_other_roles() -> None:
    hour = tg.derived(lambda time: time.astype("datetime64[h]").astype(int) % 24, ["time"])
    schema = tg.Schema(features={"a": None, "hour": hour}, timestamp="time")
    time = np.datetime64("2024-05-01", "us") + np.arange(48) * np.timedelta64(1, "h")
    reference = tg.Reference.fit({"a": np.arange(48.0), "time": time}, schema)
    monitor = logged({"a": [1.0], "time": time[:1]}, reference=reference)
    assert dict(monitor.new_columns) == {}
    assert reference.schema.columns == ("a", "time")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tg.derived(3, ["a"]), "a function is wanted, got 3"),
        (lambda: tg.derived(abs, "a"), "columns is a list of values, got 'a'"),
        (lambda: tg.derived(abs, []), "columns are the names"),
        (lambda: tg.derived(abs, [1]), "columns are the names"),
        (lambda: tg.derived(abs, ["a"], kind="text"), "unknown kind 'text'; allowed: numeric"),
        (lambda: tg.derived(abs, ["a"], kind=3), "kind is one of numeric"),
        (lambda: tg.derived(abs, ["a"], engine="gpu"), "unknown engine 'gpu'; allowed: numpy"),
        (lambda: tg.matches(["a"], "b"), "one column is matched"),
    ],
)
def test_declarations_that_make_no_sense_are_refused(make, message) -> None:
    with pytest.raises(tg.SchemaError, match=message):
        make()


def test_an_unknown_input_and_a_taken_name_are_errors_at_fit() -> None:
    with pytest.raises(tg.SchemaError, match="derived from column 'z', which is not in the table"):
        tg.Reference.fit(known(), tg.Schema(features={"x": tg.derived(abs, ["z"])}))
    with pytest.raises(tg.SchemaError, match="derives 'c', but the table has such a column"):
        tg.Reference.fit(known(), tg.Schema(features={"c": tg.derived(abs, ["a"])}))


def test_a_column_named_like_a_derived_one_is_new() -> None:
    monitor = logged(known(3).append_column("ratio", pa.array([1.0, 2.0, 3.0])))
    assert dict(monitor.new_columns) == {"ratio": 3}
    assert same_column(monitor, logged(known(3)), "ratio")


def same_column(left: tg.Monitor, right: tg.Monitor, column: str) -> bool:
    tables = [each.metrics(columns=column).to_pylist() for each in (left, right)]
    return [r for r in tables[0] if r["column"]] == [r for r in tables[1] if r["column"]]


# -- files ------------------------------------------------------------------------------------


def test_schemas_go_through_toml_but_for_their_functions() -> None:
    text = SCHEMA.to_toml()
    assert tg.Schema.from_toml(text, derived=SCHEMA.functions) == SCHEMA
    settled = REFERENCE.schema
    assert tg.Schema.from_toml(settled.to_toml(), derived=settled.functions).to_toml() == (
        settled.to_toml()
    )
    with pytest.raises(tg.SchemaError, match=r"never stored: 'ratio' \(of a, b\), 'positive'"):
        tg.Schema.from_toml(text)
    functions = {**SCHEMA.functions, "coded": abs}
    with pytest.raises(tg.SchemaError, match="no feature 'coded' is derived by a function"):
        tg.Schema.from_toml(text, derived=functions)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('derived = "magic"', "feature 'x': unknown `derived` 'magic'; allowed: function, matches"),
        ('derived = "matches"\npattern = "a"', "feature 'x': one column in `inputs` and a"),
        ('derived = "matches"\ninputs = ["a"]', "feature 'x': one column in `inputs` and a"),
        ('derived = "matches"\ninputs = ["a"]\npattern = "("', "not a regular expression"),
        ('derived = "matches"\ninputs = ["a"]\npattern = 3', "not a regular expression"),
        ('derived = "function"\ninputs = "a"', "`inputs` is a list of column names, got 'a'"),
        (
            'derived = "function"\ninputs = ["a"]\nkind = "numeric"\nwidth = 3',
            "unknown key 'width'",
        ),
    ],
)
def test_damaged_declarations_are_errors(entry, message) -> None:
    functions = {"x": abs} if '"function"' in entry else {}
    with pytest.raises(tg.SchemaError, match=message):
        tg.Schema.from_toml(f"[features.x]\n{entry}\n", derived=functions)


def test_saved_references_and_monitors_want_their_functions_back(tmp_path: Path) -> None:
    path = tmp_path / "file.tide"
    monitor = logged(known(100))
    for thing in (REFERENCE, monitor):
        thing.save(path)
        with pytest.raises(tg.SchemaError, match="never stored: 'ratio'"):
            type(thing).load(path)
        with pytest.raises(tg.SchemaError, match="no feature 'ration' is derived"):
            type(thing).load(path, derived={**SCHEMA.functions, "ration": abs})
    loaded = tg.Monitor.load(path, derived=SCHEMA.functions)
    assert same(loaded, monitor)
    for each in (loaded, monitor):
        each.log(table_of([(1.0, 2.0, "ab1"), (None, None, None)]))
    assert same(loaded, monitor)


def test_a_file_holds_nothing_executable(tmp_path: Path) -> None:
    REFERENCE.save(tmp_path / "r.tide")
    header, arrays = REFERENCE.state()
    assert "lambda" not in str(header)
    assert all(array.dtype.kind in "iuf" for array in arrays.values())


def test_readings_are_kept_for_columns_that_come_empty() -> None:
    header, arrays = REFERENCE.state()
    loaded = tg.Reference.from_state(header, arrays, SCHEMA.functions)
    function = loaded.schema.derivations["initial"]
    assert isinstance(function, Function)
    assert function.readings == ("texts",)
    nulls = pa.table({"c": pa.nulls(2)})
    assert values(logged(nulls, reference=loaded), "missing_rate")["initial"] == 1


def test_references_and_monitors_merge() -> None:
    table = known(1_000)
    first, second = table.slice(0, 600), table.slice(600)
    whole = tg.Reference.fit(first, SCHEMA)
    part = tg.Reference.fit(second, SCHEMA, like=whole)
    whole.merge(part)
    both = tg.Reference.fit([first, second], SCHEMA)
    assert whole.n_rows == both.n_rows == 1_000
    left, right, once = logged(first), logged(second), logged(table)
    left.merge(right)
    assert same(left, once)


def test_references_that_derive_otherwise_do_not_merge() -> None:
    other = {**SCHEMA.derivations, "coded": tg.matches("c", "[a-z]+")}
    with pytest.raises(tg.SchemaError, match="not that of the reference given as like="):
        tg.Reference.fit(known(), SCHEMA.with_derivations(other), like=REFERENCE)
    apart = tg.Reference.fit(known(), SCHEMA.with_derivations(other))
    with pytest.raises(tg.SchemaError, match="differ in schema"):
        tg.Reference.fit(known(), SCHEMA).merge(apart)


def test_layouts_of_many_columns_tell_derived_from_given() -> None:
    layout: Layout = REFERENCE.layout
    assert [column.name for column in layout.given] == ["a"]
    assert [column.name for column in layout.derived] == list(DERIVED)


def test_compare_counts_derived_columns() -> None:
    report = tg.compare(known(), known(50), SCHEMA, metrics=["psi", "violation_rate"])
    rows = report.to_arrow().to_pylist()
    assert {row["column"] for row in rows} == {"a", *DERIVED}
    assert "violation_rate" in str(report) or report.to_html
