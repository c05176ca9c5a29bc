"""The pictures draw what the table says, for every table."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from metric_tables import HOSTILE, categorical_pair, metric_table, numeric_pair, traffic

from tidegauge import figures
from tidegauge.values import METRIC_TABLE, Distribution

DAY = datetime(2013, 4, 1, tzinfo=UTC)


def by_day(values: list[float | None], **keys: Any) -> pa.Table:
    return metric_table(
        [
            {
                "metric": "psi",
                "column": "age",
                "window_start": DAY + timedelta(days=day),
                "window_end": DAY + timedelta(days=day + 1),
                "value": value,
                "noise_floor": None if value is None else 0.01,
                **keys,
            }
            for day, value in enumerate(values)
        ]
    )


def trace(figure: Any, name: str) -> Any:
    return next(part for part in figure.data if part.name == name)


def lines_at(figure: Any) -> list[float]:
    return [shape.y0 for shape in figure.layout.shapes]


# --- distributions -------------------------------------------------------------------------------


def test_a_distribution_draws_the_shares_of_its_own_bins() -> None:
    pair = Distribution(
        "age", "numeric", None, np.arange(4.0), np.array([1, 2, 1]), np.array([0, 0, 8]), 0, 0
    )
    drawn = figures.distribution(pair)
    assert list(trace(drawn, "reference")["y"]) == [0.25, 0.5, 0.25, 0.25]  # last step held
    assert list(trace(drawn, "current")["y"]) == [0, 0, 1, 1]
    assert list(trace(drawn, "current")["x"]) == [0, 1, 2, 3]


def test_categories_stay_beside_their_own_counts() -> None:
    labels = ("2013-01-01", "10", "9", "(other)")  # would be dates and numbers if left to guess
    pair = Distribution(
        "code", "categorical", labels, None, np.array([4, 3, 2, 1]), np.array([1, 1, 1, 7]), 0, 0
    )
    drawn = figures.distribution(pair)
    assert drawn.layout.xaxis.ticktext == labels
    assert list(drawn.layout.xaxis.tickvals) == [0, 1, 2, 3]
    np.testing.assert_allclose(trace(drawn, "reference")["y"], [0.4, 0.3, 0.2, 0.1])
    np.testing.assert_allclose(trace(drawn, "current")["y"], [0.1, 0.1, 0.1, 0.7])
    assert list(trace(drawn, "current")["customdata"]) == list(labels)


def test_missing_values_are_said_in_words() -> None:
    pair = Distribution(
        "age", "numeric", None, np.arange(3.0), np.array([4, 5]), np.array([10, 20]), 1, 10
    )
    assert figures.distribution(pair).layout.xaxis.title.text == "missing 10 % → 25 %"


def test_bins_of_very_different_widths_are_drawn_equally_wide() -> None:
    edges = np.array([0.0, 1.0, 10.0, 100.0, 1e6])
    counts = np.array([1, 1, 1, 1])
    drawn = figures.distribution(Distribution("v", "numeric", None, edges, counts, counts, 0, 0))
    assert list(trace(drawn, "current")["x"]) == [0, 1, 2, 3, 4]
    assert drawn.layout.xaxis.ticktext == ("0", "1", "10", "100", "1e6")


def test_timestamps_are_drawn_as_dates() -> None:
    edges = np.array(["2013-01-01", "2013-01-02", "2013-01-03"], "datetime64[us]").astype(float)
    counts = np.array([3, 4])
    drawn = figures.distribution(Distribution("t", "timestamp", None, edges, counts, counts, 0, 0))
    assert trace(drawn, "current")["x"][0] == "2013-01-01T00:00"
    assert drawn.layout.xaxis.type == "date"


@pytest.mark.parametrize("kind", ["numeric", "categorical"])
def test_a_distribution_without_rows_is_a_figure(kind: str) -> None:
    empty = np.zeros(0, np.int64)
    edges, labels = (np.zeros(1), None) if kind == "numeric" else (None, ())
    drawn = figures.distribution(Distribution("v", kind, labels, edges, empty, empty, 0, 0))
    assert len(drawn.data) == 2


# --- over time -----------------------------------------------------------------------------------


def test_a_metric_keeps_its_gaps_and_its_floor() -> None:
    drawn = figures.metric_over_time(by_day([0.02, None, 0.03, 0.05]), "psi", "age")
    values = trace(drawn, "PSI")["y"]
    np.testing.assert_array_equal(values, [0.02, np.nan, 0.03, 0.05])
    floor = trace(drawn, "noise floor")
    assert None in floor["y"]  # two areas, none across the gap
    assert {y for y in floor["y"] if y is not None} == {0.0, 0.01}
    assert drawn.layout.title.text == "PSI of age"


def test_the_threshold_of_the_caller_is_drawn_and_replaces_the_customary_lines() -> None:
    table = by_day([0.05, 0.15, 0.3])
    assert lines_at(figures.metric_over_time(table, "psi", "age")) == [0.1, 0.2]
    assert lines_at(figures.metric_over_time(table, "psi", "age", threshold=0.25)) == [0.25]


def test_customary_lines_do_not_flatten_small_values() -> None:
    drawn = figures.metric_over_time(by_day([0.001, 0.002, 0.001]), "psi", "age")
    assert lines_at(drawn) == []
    assert drawn.layout.yaxis.range[1] < 0.02


def test_other_metrics_have_no_customary_line() -> None:
    table = by_day([0.5, 0.6], metric="kolmogorov_smirnov")
    assert lines_at(figures.metric_over_time(table, "kolmogorov_smirnov", "age")) == []


def test_nearly_empty_windows_do_not_set_the_scale() -> None:
    table = by_day([0.02, 0.03, 0.02, 0.03])
    table = pa.concat_tables(
        [
            table,
            metric_table(
                [
                    {
                        "metric": "psi",
                        "column": "age",
                        "window_start": DAY + timedelta(days=4),
                        "window_end": DAY + timedelta(days=5),
                        "value": 9.0,
                        "noise_floor": 8.0,
                        "n": 1,
                    }
                ]
            ),
        ]
    )
    drawn = figures.metric_over_time(table, "psi", "age")
    assert drawn.layout.yaxis.range[1] < 0.1
    assert max(trace(drawn, "PSI")["y"]) == 9.0


def test_versions_are_lines_of_their_own() -> None:
    table = pa.concat_tables([by_day([0.1, 0.2], version="a"), by_day([0.3, 0.4], version="b")])
    drawn = figures.metric_over_time(table, "psi", "age")
    np.testing.assert_allclose(trace(drawn, "a")["y"], [0.1, 0.2])
    np.testing.assert_allclose(trace(drawn, "b")["y"], [0.3, 0.4])
    assert trace(drawn, "a")["line"]["color"] != trace(drawn, "b")["line"]["color"]


def test_segments_are_told_apart() -> None:
    table = pa.concat_tables([by_day([0.1]), by_day([0.7], segment="origin=EWR")])
    drawn = figures.metric_over_time(table, "psi", "age", segment="origin=EWR")
    assert list(trace(drawn, "PSI")["y"]) == [0.7]
    assert "origin=EWR" in drawn.layout.title.text


def test_values_of_the_whole_time_are_no_window() -> None:
    whole = by_day([0.9], window_start=DAY, window_end=DAY + timedelta(days=3))
    drawn = figures.metric_over_time(
        pa.concat_tables([by_day([0.1, 0.2, 0.3]), whole]), "psi", "age"
    )
    np.testing.assert_allclose(trace(drawn, "PSI")["y"], [0.1, 0.2, 0.3])


def test_one_window_is_a_point_with_its_interval() -> None:
    table = metric_table([{"metric": "f1", "value": 0.5, "lower": 0.4, "upper": 0.7}])
    point = trace(figures.metric_over_time(table, "f1"), "F1")
    assert list(point["x"]) == ["whole period"]
    np.testing.assert_allclose(point["error_y"]["array"], [0.2])
    np.testing.assert_allclose(point["error_y"]["arrayminus"], [0.1])


def test_an_unknown_metric_is_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"'psy' is not in the table, which has \['psi'\]"):
        figures.metric_over_time(by_day([0.1]), "psy", "age")


def test_performance_shows_values_intervals_and_arrived_labels() -> None:
    drawn = figures.performance(traffic(windows=10))
    names = {part.name for part in drawn.data}
    assert {"95 % interval", "reference", "v1"} <= names
    np.testing.assert_allclose(drawn.data[-1].y, [0.98] * 8 + [0.08] * 2)
    titles = [note.text for note in drawn.layout.annotations]
    assert titles[0] == "ROC AUC"
    assert "label count" not in titles


def test_performance_of_chosen_metrics() -> None:
    drawn = figures.performance(traffic(windows=5), metrics=["accuracy"])
    titles = [note.text for note in drawn.layout.annotations]
    assert titles == ["accuracy", "share of labels that arrived"]
    with pytest.raises(ValueError, match="'accurasy' is not in the table"):
        figures.performance(traffic(windows=5), metrics=["accurasy"])


# --- over columns --------------------------------------------------------------------------------


def test_the_ranking_is_by_what_exceeds_the_noise_floor() -> None:
    rows = [("a", 0.30, 0.29), ("b", 0.10, 0.01), ("c", 0.05, 0.01)]
    table = metric_table(
        [{"metric": "psi", "column": c, "value": v, "noise_floor": f} for c, v, f in rows]
    )
    drawn = figures.drift_ranking(table)
    assert drawn.layout.yaxis.ticktext == ("b", "c", "a")
    assert list(trace(drawn, "value")["x"]) == [0.10, 0.05, 0.30]
    assert list(trace(drawn, "noise floor")["x"]) == [0.01, 0.01, 0.29]
    assert figures.drift_ranking(table, top=1).layout.yaxis.ticktext == ("b",)


def test_the_map_shows_columns_that_miss_values_the_worst_first() -> None:
    rows = [
        {
            "metric": "missing_rate",
            "column": column,
            "value": value * (1 + day),
            "reference_value": 0.0,
            "window_start": DAY + timedelta(days=day),
            "window_end": DAY + timedelta(days=day + 1),
        }
        for column, value in (("none", 0.0), ("some", 0.1), ("most", 0.4))
        for day in range(2)
    ]
    drawn = figures.missing_map(metric_table(rows))
    assert drawn.layout.yaxis.ticktext == ("most", "some")
    np.testing.assert_allclose(drawn.data[0].z, [[0.4, 0.8], [0.1, 0.2]])
    assert len(figures.missing_map(metric_table(rows), top=1).data[0].z) == 1


def test_without_time_the_map_stands_beside_the_reference() -> None:
    table = metric_table(
        [{"metric": "missing_rate", "column": "a", "value": 0.3, "reference_value": 0.1}]
    )
    drawn = figures.missing_map(table)
    assert list(trace(drawn, "current")["x"]) == [0.3]
    assert list(trace(drawn, "reference")["x"]) == [0.1]


# --- every table ---------------------------------------------------------------------------------

TABLES = {
    "empty": METRIC_TABLE.empty_table(),
    "no value": by_day([None, None]),
    "one row": metric_table([{"metric": "psi", "column": "age", "value": 0.2}]),
    "no labels": traffic(windows=4, labels=False),
    "empty windows": traffic(windows=4, empty_windows=(0, 1, 2, 3)),
    "no time": traffic(windows=0),
    "hostile": traffic(windows=3, columns=HOSTILE, segments=("all", *HOSTILE)),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_table_has_its_pictures(name: str) -> None:
    table = TABLES[name]
    column = next((c for c in table["column"].to_pylist() if c is not None), None)
    for drawn in (
        figures.drift_ranking(table),
        figures.performance(table),
        figures.metric_over_time(table, "psi", column),
    ):
        assert "NaN" not in drawn.to_json()
    if table.num_rows and "missing_rate" in table["metric"].to_pylist():
        assert "NaN" not in figures.missing_map(table).to_json()


def test_where_there_is_nothing_to_draw_the_picture_says_so() -> None:
    for drawn in (
        figures.drift_ranking(TABLES["no value"]),
        figures.metric_over_time(TABLES["no value"], "psi", "age"),
        figures.performance(TABLES["no labels"]),
        figures.missing_map(TABLES["empty"]),
    ):
        assert drawn.layout.annotations[0].text.startswith(("no ",))


def test_names_are_never_markup() -> None:
    table = TABLES["hostile"]
    pairs = [categorical_pair(HOSTILE[1], HOSTILE), numeric_pair(HOSTILE[0])]
    drawn = [
        figures.drift_ranking(table),
        figures.missing_map(table),
        figures.metric_over_time(table, "psi", HOSTILE[2], segment=HOSTILE[0]),
        *map(figures.distribution, pairs),
    ]
    text = "".join(figure.to_json() for figure in drawn)
    for tag in ("<script", "<img", "<b>", "\\u003cscript", "\\u003cimg", "\\u003cb\\u003e"):
        assert tag not in text
    assert "&lt;" in text
    templates = [part.hovertemplate or "" for figure in drawn for part in figure.data]
    assert not any("alert" in template or "%{y} $" in template for template in templates)


def test_plotly_is_asked_for_by_name_when_it_is_missing() -> None:
    code = (
        "import sys; sys.modules['plotly'] = None\n"
        "from tidegauge import figures\n"
        "from tidegauge.values import METRIC_TABLE\n"
        "for draw in (figures.drift_ranking, figures.performance):\n"
        "    try: draw(METRIC_TABLE.empty_table())\n"
        "    except ModuleNotFoundError as error:\n"
        "        assert 'pip install \"tidegauge[plots]\"' in str(error), error\n"
        "    else: raise SystemExit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
