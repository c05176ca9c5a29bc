"""The report: one offline page, safe from names, small for any table, and true to the numbers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from metric_tables import HOSTILE, categorical_pair, metric_table, numeric_pair, traffic

import tidegauge as tg
from tidegauge import summary
from tidegauge.figures import number
from tidegauge.report import Report
from tidegauge.values import METRIC_TABLE, Account

ACCOUNT = Account(
    predictions=100,
    pending=20,
    matched=70,
    expired=10,
    labels=80,
    matched_labels=70,
    late=5,
    orphan=4,
    corrected=1,
)
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """What a browser would make of a page: its elements, its text, its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        {"script": self.scripts, "style": self.styles}.get(inside, self.text).append(data)

    @property
    def titles(self) -> list[str]:
        """Headings of the sections, by their anchors."""
        return [attrs["id"] or "" for tag, attrs in self.elements if tag == "section"]

    @property
    def words(self) -> str:
        """All that is read."""
        return re.sub(r"\s+", " ", " ".join(self.text))

    def data(self, place: str) -> Any:
        """The JSON that stands in a script element."""
        kinds = [attrs for tag, attrs in self.elements if tag == "script"]
        return json.loads(self.scripts[[attrs.get("id") for attrs in kinds].index(place)])


def report(**options: Any) -> Report:
    table = traffic(**{"windows": 12, "segments": ("all", "origin=EWR", "origin=JFK")} | options)
    pairs = (numeric_pair("dewp"), categorical_pair("carrier"), numeric_pair("temp", missing=900))
    return Report("flights of 2013", table, pairs, ACCOUNT, {"window": "1d"})


def page(value: Report) -> Page:
    text = value.to_html()
    assert text is not None
    return Page(text)


# --- the page ------------------------------------------------------------------------------------


def test_the_page_tells_its_story_in_order() -> None:
    assert page(report()).titles == [
        "account",
        "drift",
        "integrity",
        "missing",
        "performance",
        "over-time",
        "segments",
        "distributions",
        "settings",
    ]


def test_the_page_is_whole_without_a_network() -> None:
    whole = page(report())
    for tag, attrs in whole.elements:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base"}
        assert "src" not in attrs
        assert (attrs.get("href") or "#").startswith("#")
        assert not any(name.startswith("on") for name in attrs)
    assert not any("url(" in style or "@import" in style for style in whole.styles)
    policy = next(a["content"] for t, a in whole.elements if "content" in a and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert sum("plotly.js v" in script for script in whole.scripts) == 1
    ours = [script for script in whole.scripts if "plotly.js v" not in script]
    assert not any("http" in script for script in ours)


def test_the_page_is_written_or_returned(tmp_path: Path) -> None:
    path = tmp_path / "drift.html"
    assert report().to_html(path) is None
    assert path.read_text(encoding="utf-8") == report().to_html()


def test_the_page_follows_the_scheme_of_its_reader() -> None:
    whole = page(report())
    assert any("prefers-color-scheme:dark" in style for style in whole.styles)
    assert set(whole.data("templates")) == {"light", "dark"}
    assert all("template" not in plot["layout"] for plot in whole.data("plots"))


def test_every_picture_has_its_place() -> None:
    whole = page(report())
    places = [int(attrs["data-plot"] or 0) for _, attrs in whole.elements if "data-plot" in attrs]
    assert places == list(range(len(whole.data("plots"))))
    assert len(places) == 1 + 1 + 5 + 3  # missing, performance, drift of 5 columns, 3 pairs


def test_names_are_text_wherever_they_stand() -> None:
    table = traffic(windows=4, columns=HOSTILE, segments=("all", *HOSTILE), drift=("psi",))
    words = {"psi": "psi<script>alert(3)</script>", "roc_auc": "roc<img src=x>"}
    metrics = table.set_column(
        table.schema.get_field_index("metric"),
        "metric",
        pa.array([words.get(name, name) for name in table["metric"].to_pylist()]),
    )
    bins = (numeric_pair(HOSTILE[0]), categorical_pair(HOSTILE[1], HOSTILE))
    value = Report(HOSTILE[0], metrics, bins, ACCOUNT, {HOSTILE[1]: HOSTILE[2]}, {"psi": 0.1})
    whole = page(value)
    assert "img" not in {tag for tag, _ in whole.elements}
    assert sum(tag == "script" for tag, _ in whole.elements) == 4
    assert HOSTILE[0] in whole.words
    for script in whole.scripts:
        if "plotly.js v" not in script:
            assert "<img" not in script
            assert "<script" not in script
    notebook = Page(value._repr_html_())
    assert not {"img", "script"} & {tag for tag, _ in notebook.elements}


@pytest.mark.parametrize(
    ("options", "absent"),
    [
        ({"windows": 0}, {"over-time"}),
        ({"labels": False}, {"performance"}),
        ({"segments": ("all",)}, {"segments"}),
        ({"windows": 0, "labels": False, "segments": ("all",)}, {"performance", "segments"}),
        ({"drift": ()}, {"drift", "over-time"}),
    ],
)
def test_sections_without_content_are_left_out(options: Any, absent: set[str]) -> None:
    assert not absent & set(page(report(**options)).titles)


@pytest.mark.parametrize(
    "table",
    [
        METRIC_TABLE.empty_table(),
        metric_table([{"metric": "psi", "column": "a"}]),
        metric_table([{"metric": "psi", "column": "a", "value": 0.1, "status": "ok"}]),
        metric_table([{"metric": "roc_auc", "label_share": 0.0, "n": 0, "status": "no labels"}]),
        metric_table([{"metric": "made_up_by_a_user", "column": "a", "value": 2.0}]),
        traffic(windows=3, empty_windows=(0, 1, 2)),
        traffic(windows=1),
    ],
    ids=["empty", "null", "one row", "no labels", "unknown metric", "empty windows", "one window"],
)
def test_every_table_makes_a_report(table: pa.Table) -> None:
    value = Report("any", table)
    assert page(value).words
    assert Page(value._repr_html_()).words
    assert "any" in repr(value)
    assert "nan" not in repr(value)


def test_labels_that_never_came_are_said() -> None:
    table = metric_table([{"metric": "roc_auc", "label_share": 0.0, "n": 0, "status": "no labels"}])
    assert "no labels have arrived" in page(Report("any", table)).words


# --- the size of the page ------------------------------------------------------------------------


def test_a_thousand_columns_stay_small_and_quick() -> None:
    columns = [f"a_feature_with_a_long_name_{i:04d}" for i in range(1000)]
    pairs = tuple(numeric_pair(column) for column in columns)
    value = Report("wide", traffic(columns=columns, windows=24), pairs)
    began = time.perf_counter()
    text = value.to_html()
    assert time.perf_counter() - began < 20  # about one second on an idle core
    assert text is not None
    assert len(text.encode()) < 6_000_000
    assert all(column in text for column in columns)
    assert len(repr(value)) < 10_000


def test_a_year_of_many_segments_stays_small_and_quick() -> None:
    segments = ["all", *(f"carrier={i}" for i in range(54))]
    table = traffic(windows=275, segments=segments)
    assert table.num_rows > 500_000
    began = time.perf_counter()
    text = Report("long", table).to_html()
    assert time.perf_counter() - began < 20  # about one second on an idle core
    assert text is not None
    assert len(text.encode()) < 6_000_000


# --- the numbers ---------------------------------------------------------------------------------


def drifting() -> pa.Table:
    rows = [("a", 0.30, 0.29), ("b", 0.15, 0.01), ("c", 0.05, 0.02), ("d", None, None)]
    return metric_table(
        [
            {"metric": metric, "column": c, "value": v, "noise_floor": f}
            for c, v, f in rows
            for metric in ("psi", "kolmogorov_smirnov")
        ]
    )


def test_the_facts_are_counted_and_not_judged() -> None:
    words = " ".join(repr(Report("any", drifting())).split())
    assert (
        "2 of 3 columns are above twice their noise floor in PSI, 1 above ten times, "
        "2 above the customary 0.1 and 1 above 0.2; "
        "the furthest is b at 0.15, against a floor of 0.01."
    ) in words


def test_a_threshold_takes_the_place_of_the_customary_marks() -> None:
    words = " ".join(repr(Report("any", drifting(), thresholds={"psi": 0.25})).split())
    assert "1 above the threshold 0.25;" in words
    assert "customary" not in words


def test_rows_are_sorted_by_what_exceeds_the_noise_floor() -> None:
    drifts = summary.drift_ranking(drifting(), companions=["kolmogorov_smirnov"])
    assert [drift.column for drift in drifts] == ["b", "c", "a", "d"]
    assert drifts[0].companions == {"kolmogorov_smirnov": 0.15}
    assert drifts[0].ratio == pytest.approx(15)


def daily(metric: str, values: list[tuple[float | None, int]], **keys: Any) -> pa.Table:
    first = datetime(2013, 4, 1, tzinfo=UTC)
    return metric_table(
        [
            {
                "metric": metric,
                "window_start": first + timedelta(days=day),
                "window_end": first + timedelta(days=day + 1),
                "value": value,
                "n": n,
                **keys,
            }
            for day, (value, n) in enumerate(values)
        ]
    )


def test_several_windows_are_averaged_by_their_rows() -> None:
    table = daily("psi", [(0.1, 100), (None, 0), (0.4, 300)], column="a", noise_floor=0.01)
    drift = summary.drift_ranking(table)[0]
    assert drift.value == pytest.approx((0.1 * 100 + 0.4 * 300) / 400)
    assert drift.line.peak == 0.4
    assert str(drift.line.peak_start.astype("datetime64[D]")) == "2013-04-03"


def test_values_of_the_whole_time_are_taken_where_there_are_some() -> None:
    windows = daily("psi", [(0.1, 100), (0.4, 300)], column="a", noise_floor=0.01)
    first = datetime(2013, 4, 1, tzinfo=UTC)
    for span in (
        {"window_start": first, "window_end": first + timedelta(days=2)},
        {"window_start": None, "window_end": None},
    ):
        whole = metric_table(
            [{"metric": "psi", "column": "a", "value": 0.05, "noise_floor": 0.001, "n": 400} | span]
        )
        drift = summary.drift_ranking(pa.concat_tables([windows, whole]).unify_dictionaries())[0]
        assert (drift.value, drift.floor) == (0.05, 0.001)
        assert drift.line.values.tolist() == [0.1, 0.4]


def test_the_share_of_labels_counts_windows_without_any() -> None:
    scores = pa.concat_tables(
        [
            daily("accuracy", [(0.5, 80)], label_share=0.8),
            daily("accuracy", [(None, 0), (None, 0)], label_share=0.0).slice(1),
            daily("row_count", [(100.0, 100), (100.0, 100)]),
        ]
    ).unify_dictionaries()
    score = summary.performance(scores)[0]
    assert (score.n, score.value) == (80, 0.5)
    assert score.share == pytest.approx(0.4)


def test_checks_are_listed_when_they_exceed_the_reference() -> None:
    rows = [
        ("worse", 0.30, 0.20, 0.10),
        ("better", 0.05, 0.04, 0.10),
        ("the same", 0.11, 0.09, 0.10),
    ]
    table = metric_table(
        [
            {
                "metric": "missing_rate",
                "column": column,
                "value": value,
                "lower": lower,
                "upper": 1.0,
                "reference_value": reference,
            }
            for column, value, lower, reference in rows
        ]
    )
    assert [check.column for check in summary.integrity(table)] == ["worse"]
    text = repr(Report("any", table))
    assert re.search(r"worse +30 % +10 % +missing_rate", text)
    assert "1 column fails an integrity check more often than on the reference" in text


def test_segments_name_the_column_that_moved_most_in_them() -> None:
    rows = [("s=1", "a", 0.1), ("s=1", "b", 0.3), ("s=2", "a", 0.5), ("s=2", "b", 0.2)]
    table = metric_table(
        [
            {"metric": "psi", "segment": s, "column": c, "value": v, "noise_floor": 0.01, "n": 50}
            for s, c, v in rows
        ]
        + [{"metric": "f1", "segment": "s=2", "value": 0.7, "label_share": 0.5, "n": 25}]
    )
    found = summary.segments(table, headline="f1")
    assert [(part.name, part.column, part.value) for part in found] == [
        ("s=2", "a", 0.5),
        ("s=1", "b", 0.3),
    ]
    assert (found[0].performance, found[0].share, found[0].n) == (0.7, 0.5, 50)


def test_fairness_shows_attributes_and_their_groups() -> None:
    random = np.random.default_rng(0)
    n = 2_000
    sex = random.choice(["F", "<i>M", "rare"], n, p=[0.5, 0.495, 0.005])
    people = {"score": np.where(sex == "F", 0.6, 1) * random.random(n), "sex": sex}
    schema = tg.Schema(task="binary", prediction_score="score", protected=["sex"])
    monitor = tg.Monitor(tg.Reference.fit(people, schema))
    monitor.log(people)
    found = monitor.report(title="People")
    wanted = {
        (row["column"], row["metric"]): row for row in monitor.metrics(columns="sex").to_pylist()
    }
    text = " ".join(page(found).text)
    gap = wanted["sex", "demographic_parity_difference"]
    for row, name in [
        (gap, "value"),
        (gap, "noise_floor"),
        (wanted["sex=F", "disparate_impact"], "lower"),
    ]:
        assert number(row[name]) in text
    assert "sex=<i>M" in text
    assert "equal opportunity" not in text  # no label has come
    lines = str(found).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("fairness"))
    assert lines[at + 1].split() == [
        "sex",
        *(number(gap[name]) for name in ("value", "noise_floor", "lower", "upper")),
        "demographic_parity_difference",
    ]
    assert "2,000 rows, 1 column," in lines[1]


def test_the_account_is_shown_with_every_part() -> None:
    words = page(report()).words
    for part in ("matched 70", "pending 20", "expired 10", "late 5", "orphan 4", "corrected 1"):
        assert part in words
    assert "account" not in page(Report("any", drifting())).titles


# --- text ----------------------------------------------------------------------------------------


def test_the_text_fits_a_terminal_and_moves_no_cursor() -> None:
    table = traffic(windows=5, columns=HOSTILE, segments=("all", *HOSTILE))
    bins = tuple(numeric_pair(name) for name in HOSTILE)
    text = repr(Report(HOSTILE[4], table, bins))
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "\x1b" not in text
    assert "\u2028" not in text


def test_the_text_shows_both_distributions() -> None:
    line = next(line for line in repr(report()).splitlines() if line.startswith("dewp"))
    before, current = line.split(" > ")
    reference = before[-12:]
    assert "█" in reference
    assert reference.strip() != current.strip()
    assert reference.index("█") < current.index("█")


def test_the_notebook_gets_tables_without_scripts() -> None:
    notebook = Page(report()._repr_html_())
    assert {"table", "svg", "style"} <= {tag for tag, _ in notebook.elements}
    assert not notebook.scripts
    assert len(report()._repr_html_()) < 60_000


def test_the_table_comes_back_as_it_is() -> None:
    value = report()
    assert value.to_arrow() is value.table
    frame = value.to_pandas()
    assert list(frame.columns) == METRIC_TABLE.names
    assert len(frame) == value.table.num_rows
    assert value.plot().layout.title.text == "PSI by column"


@pytest.mark.parametrize(
    ("module", "call", "extra"),
    [
        ("plotly", "to_html", "plots"),
        ("plotly", "plot", "plots"),
        ("pandas", "to_pandas", "pandas"),
    ],
)
def test_a_missing_extra_is_named(module: str, call: str, extra: str) -> None:
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name.split('.')[0] == {module!r}: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from tidegauge.report import Report\n"
        "from tidegauge.values import METRIC_TABLE\n"
        "report = Report('any', METRIC_TABLE.empty_table())\n"
        "assert repr(report) and report._repr_html_()\n"
        f"try: report.{call}()\n"
        "except ModuleNotFoundError as error:\n"
        f"    assert 'pip install \"tidegauge[{extra}]\"' in str(error), error\n"
        "else: raise SystemExit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
