"""The metric table: every value in its place, whatever the blocks it was computed in."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime
from typing import Any

import metric_inputs
import numpy as np
import pyarrow as pa
import pytest

from tidegauge import metrics
from tidegauge.metrics import evaluate as module
from tidegauge.metrics.evaluate import Keys, evaluate
from tidegauge.metrics.inputs import (
    ESTIMATES,
    TASKS,
    Bins,
    ColumnCounts,
    Estimates,
    FeatureTests,
    Fine,
    FloatArray,
    IntArray,
    Outcomes,
    Traffic,
)
from tidegauge.metrics.results import PerClass, value_of
from tidegauge.values import METRIC_TABLE

ROWS = 6
KINDS = {
    "distance": "numeric",
    "carrier": "categorical",
    "hour": "numeric",
    "departs": "timestamp",
    "origin": "categorical",
    "wind": "numeric",
}
HOUR = 3_600_000_000
KEYS = Keys(
    window_start=np.arange(ROWS) // 2 * HOUR,
    window_end=(np.arange(ROWS) // 2 + 1) * HOUR,
    version=np.array([0, 1, 0, 1, 0, -1], dtype=np.int32),
    versions=("v1", "v2"),
    segment=np.array([0, 1, 0, 1, 0, 1], dtype=np.int32),
    segments=("all", "origin=EWR"),
)


class Cells:
    """Random sums of a few cells, kept one case at a time."""

    def __init__(self, seed: int, task: str | None, empty: tuple[int, ...] = ()) -> None:
        self.task = task
        self.cases: dict[tuple[type, str], list] = {}
        random = np.random.default_rng(seed)
        kinds = [(kind, column) for column in KINDS for kind in (Bins, Fine, ColumnCounts)]
        kinds += [(Traffic, ""), *([(TASKS[task], "")] if task else [])]
        kinds += [(ESTIMATES[task], "")] if task in ESTIMATES else []
        for kind, column in kinds:
            self.cases[kind, column] = [
                metric_inputs.BUILD[kind](
                    metric_inputs.nothing(kind)
                    if row in empty
                    else metric_inputs.plain(kind, random)
                )
                for row in range(ROWS)
            ]

    def stacked(self, kind: type, column: str = ""):
        return metric_inputs.stack(self.cases[kind, column], (ROWS,))

    def bins(self, column: str) -> IntArray:
        return self.stacked(Bins, column).counts

    def fine(self, column: str) -> Fine:
        assert KINDS[column] != "categorical"
        return self.stacked(Fine, column)

    def column_counts(self, column: str) -> ColumnCounts:
        return self.stacked(ColumnCounts, column)

    def traffic(self) -> Traffic:
        return self.stacked(Traffic)

    def joined(self) -> dict[type, Any]:
        return {}

    def outcomes(self) -> Outcomes | None:
        return self.stacked(TASKS[self.task]) if self.task else None

    def estimates(self) -> Estimates | None:
        return self.stacked(ESTIMATES[self.task]) if self.task in ESTIMATES else None

    def label_share(self) -> FloatArray:
        return np.linspace(0, 1, ROWS)


def feature_tests(current: Cells, reference: Cells) -> list[FeatureTests]:
    """One test of every feature, by row; no windows of the reference are known."""
    tested = {"numeric": Fine, "categorical": Bins}
    features = [(tested[kind], column) for column, kind in KINDS.items() if kind in tested]
    return [
        metric_inputs.feature_tests(
            [
                (metrics.drift.evidence(reference.cases[key][r], current.cases[key][r])[2], np.nan)
                for key in features
            ]
        )
        for r in range(ROWS)
    ]


def table(current: Cells, reference: Cells, task: str | None, **options) -> pa.Table:
    return evaluate(KEYS, current, reference, kinds=KINDS, task=task, model="flights", **options)


def series(values: pa.Table, metric: str, column: str | None = None) -> list[dict]:
    rows = values.to_pylist()
    return [row for row in rows if row["metric"] == metric and row["column"] == column]


def equal(left: float | None, right: float) -> bool:
    return (left is None and math.isnan(right)) or left == pytest.approx(right, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("task", [None, *TASKS])
def test_every_value_is_that_of_its_function(task) -> None:
    current, reference = Cells(1, task), Cells(2, task)
    values = table(current, reference, task)
    current.cases[FeatureTests, ""] = feature_tests(current, reference)
    reference.cases[FeatureTests, ""] = [metric_inputs.feature_tests([])] * ROWS
    assert values.schema.equals(METRIC_TABLE)
    values.validate(full=True)
    rows = {(r["metric"], r["column"]): [] for r in values.to_pylist()}
    for row in values.to_pylist():
        rows[row["metric"], row["column"]].append(row)
    seen = 0
    for target in dict.fromkeys((None, task, *KINDS)):
        kind_of_target = KINDS.get(target, target)
        column = target if target in KINDS else ""
        for name in metrics.usual():
            form = metrics.get(name).form_for(kind_of_target)
            if form is None:
                continue
            for r in range(ROWS):
                inputs = {}
                for side, cells in (("reference", reference), ("current", current)):
                    wanted = form.inputs.get(side, form.inputs["current"])
                    found = [t for t in wanted if (t, column) in cells.cases]
                    inputs[side] = cells.cases[found[0], column][r]
                usual = reference.cases[found[0], column][r]
                if "reference" not in form.inputs:
                    del inputs["reference"]
                result = form.function(**inputs)
                if isinstance(result, PerClass):
                    for k, each in enumerate(value_of(result)):
                        assert equal(rows[name, f"label={'abc'[k]}"][r]["value"], each)
                        seen += 1
                    continue
                row = rows[name, column or None][r]
                seen += 1
                assert equal(row["value"], float(value_of(result))), (name, column, r)
                assert row["n"] == inputs["current"].n
                assert row["n_reference"] == usual.n
                assert row["status"] == ("undefined" if row["value"] is None else "ok")
                if hasattr(result, "interval"):
                    lower, upper = np.clip(result.interval(), *form.bounds)
                    assert equal(row["lower"], lower)
                    assert equal(row["upper"], upper)
                if form.scale == "total":
                    assert row["reference_value"] is None
                elif "reference" in inputs:
                    noise = form.noise(**inputs) if form.noise else math.nan
                    assert equal(row["noise_floor"], float(noise))
                    known = math.nan
                    if form.estimated:
                        known = value_of(form.function(inputs["reference"], usual))
                    assert equal(row["reference_value"], float(known))
                else:
                    assert row["noise_floor"] is None
                    assert equal(row["reference_value"], float(value_of(form.function(usual))))
                share = current.label_share()[r] if form.tasks else math.nan
                assert equal(row["label_share"], share)
    assert seen == values.num_rows


def test_rows_say_what_they_are_about() -> None:
    values = table(Cells(1, "binary"), Cells(2, "binary"), "binary", metrics=["psi", "f1"])
    rows = series(values, "psi", "wind")
    assert [row["segment"] for row in rows] == ["all", "origin=EWR"] * 3
    assert [row["version"] for row in rows] == ["v1", "v2", "v1", "v2", "v1", None]
    assert {row["model"] for row in rows} == {"flights"}
    assert rows[2]["window_start"] == datetime(1970, 1, 1, 1, tzinfo=UTC)
    assert rows[2]["window_end"] == datetime(1970, 1, 1, 2, tzinfo=UTC)
    columns = dict.fromkeys(row["column"] for row in values.to_pylist())
    assert list(columns) == [*KINDS, None]  # in the order given, then the model as a whole


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("size", [1, 200, 3_000])
def test_the_size_of_blocks_is_of_no_account(task, size, monkeypatch) -> None:
    current, reference = Cells(1, task), Cells(2, task)
    whole = table(current, reference, task)
    monkeypatch.setattr(module, "BLOCK_BYTES", size)
    parts = table(current, reference, task)
    for name in METRIC_TABLE.names:
        if pa.types.is_floating(METRIC_TABLE.field(name).type):
            # reductions may pair terms differently in another memory layout
            left, right = (t[name].to_numpy() for t in (whole, parts))
            np.testing.assert_allclose(right, left, rtol=1e-12, atol=1e-12)
        else:
            assert parts[name].to_pylist() == whole[name].to_pylist()


class Repeated(Cells):
    """The same reference for every row, given once."""

    n_rows = 1

    def stacked(self, kind: type, column: str = ""):
        one = self.cases[kind, column][0]
        arrays = {
            field.name: np.repeat(value[None], self.n_rows, axis=0)
            for field in dataclasses.fields(one)
            if isinstance(value := getattr(one, field.name), np.ndarray)
            and field.name not in ("edges", "center")
        }
        return dataclasses.replace(one, **arrays)


class Copied(Repeated):
    n_rows = ROWS


@pytest.mark.parametrize("size", [200, 1 << 22])
@pytest.mark.parametrize("task", TASKS)
def test_a_reference_need_not_be_repeated(task, size, monkeypatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", size)
    current = Cells(1, task)
    short, long = (table(current, kind(2, task), task) for kind in (Repeated, Copied))
    for name in ("value", "noise_floor", "reference_value"):
        left, right = (t[name].to_numpy() for t in (short, long))
        np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-12)
    assert short["n_reference"].equals(long["n_reference"])


def test_the_status_says_why_there_is_no_value() -> None:
    current = Cells(1, "binary", empty=(1,))
    (outcomes,) = [cases for (kind, _), cases in current.cases.items() if kind is TASKS["binary"]]
    waiting = metric_inputs.binary([])
    outcomes[2] = dataclasses.replace(waiting, predictions=np.asarray(7))
    values = table(current, Cells(2, "binary", empty=(3,)), "binary")

    def statuses(metric: str, column: str | None = None) -> list[str]:
        return [row["status"] for row in series(values, metric, column)]

    assert statuses("accuracy") == ["ok", "no data", "no labels", "ok", "ok", "ok"]
    assert statuses("psi", "wind") == ["ok", "no data", "ok", "no reference", "ok", "ok"]
    assert statuses("missing_rate", "wind") == ["ok", "no data", "ok", "ok", "ok", "ok"]
    assert statuses("row_count") == ["ok"] * ROWS
    assert series(values, "row_count")[1]["value"] == 0
    gap = series(values, "missing_rate", "wind")[3]
    assert gap["reference_value"] is None
    assert gap["n_reference"] == 0
    assert series(values, "row_count")[3]["reference_value"] is None  # not 0: there is none
    for name in ("value", "lower", "upper", "noise_floor", "reference_value", "label_share"):
        assert not np.isnan(values[name].drop_null().to_numpy()).any()


def test_options_make_a_metric_of_their_own() -> None:
    chosen = [
        "psi",
        "psi(convention=fiddler)",
        metrics.get("precision", threshold=0.25),
        metrics.get("precision"),
    ]
    current, reference = Cells(1, "binary"), Cells(2, "binary")
    values = table(current, reference, "binary", metrics=chosen)
    names = set(values["metric"].to_pylist())
    assert names == {"psi", "psi(convention=fiddler)", "precision", "precision(threshold=0.25)"}
    (fiddler, *_) = series(values, "psi(convention=fiddler)", "hour")
    sides = (cells.cases[Bins, "hour"][0] for cells in (reference, current))
    assert equal(fiddler["value"], float(metrics.drift.psi(*sides, convention="fiddler")))


def test_a_metric_that_nothing_serves_is_an_error() -> None:
    current, reference = Cells(1, None), Cells(2, None)
    with pytest.raises(ValueError, match="'mae' is for regression; this model has only"):
        table(current, reference, None, metrics=["psi", "mae"])
    with pytest.raises(ValueError, match=r"'mae' is for regression; .* binary"):
        table(Cells(1, "binary"), Cells(2, "binary"), "binary", metrics=["mae"])


def test_without_time_and_without_rows_the_table_keeps_its_shape() -> None:
    nowhere = Keys(None, None, np.zeros(ROWS, np.int32), ("",), np.zeros(ROWS, np.int32), ("all",))
    current, reference = Cells(1, None), Cells(2, None)
    values = evaluate(nowhere, current, reference, kinds=KINDS, task=None, model="m")
    assert values["window_start"].null_count == values.num_rows
    nothing = evaluate(
        KEYS, current, reference, kinds={"wind": "numeric"}, task=None, model="m", metrics=["psi"]
    )
    assert nothing.num_rows == ROWS
    without = evaluate(
        KEYS, current, reference, kinds={}, task=None, model="m", metrics=["row_count"]
    )
    assert without.schema.equals(METRIC_TABLE)
    assert set(without["metric"].to_pylist()) == {"row_count"}


def test_no_cells_at_all() -> None:
    class Nothing(Cells):
        def stacked(self, kind: type, column: str = ""):
            return metrics_of_no_rows(super().stacked(kind, column))

        def label_share(self) -> FloatArray:
            return np.zeros(0)

    def metrics_of_no_rows(each):
        arrays = {
            field.name: value[:0]
            for field in dataclasses.fields(each)
            if isinstance(value := getattr(each, field.name), np.ndarray)
            and field.name not in ("edges", "center")
        }
        return dataclasses.replace(each, **arrays)

    none = np.zeros(0, np.int32)
    keys = Keys(np.zeros(0, np.int64), np.zeros(0, np.int64), none, (), none, ())
    for task in (None, *TASKS):
        cells = Nothing(1, task)
        values = evaluate(keys, cells, cells, kinds=KINDS, task=task, model="m")
        assert values.num_rows == 0
        assert values.schema.equals(METRIC_TABLE)
