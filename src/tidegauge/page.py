"""The report as one HTML page: whole without a network, and holding bins, never rows.

Tables and small histograms are HTML and SVG, there before any script runs. The large figures are
drawn by the one copy of plotly.js in the page when they scroll into view, in the reader's light or
dark scheme. Every string from outside is escaped where it enters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidegauge import figures, summary
from tidegauge.figures import number, short
from tidegauge.summary import Check, Drift, FloatArray, Gap, Own, Score
from tidegauge.values import Account, Distribution

if TYPE_CHECKING:
    from tidegauge.report import Report

ROWS, MORE_ROWS = 40, 2000  # of the drift table: with histograms, and in the list below it
SEGMENTS, CHECKED, LINES, PAIRS = 60, 60, 6, 9
COMPANIONS = ("jensen_shannon_distance", "kolmogorov_smirnov")


@dataclass(slots=True)
class Reading:
    """What several sections need of a report, read from its table once."""

    report: Report
    table: pa.Table
    windows: summary.Instants
    rows: FloatArray
    drifts: list[Drift]
    checks: list[Check]
    scores: list[Score]
    own: list[Own]
    fairness: Mapping[str, list[Gap]]
    pairs: Mapping[str, Distribution]
    plots: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, report: Report) -> Reading:
        """Read a report's table."""
        table = summary.tidy(report.table)
        windows, rows = summary.rows_by_window(table)
        present = summary.names(table, "metric")
        return cls(
            report=report,
            table=table,
            windows=windows,
            rows=rows,
            drifts=summary.drift_ranking(
                table, companions=[name for name in COMPANIONS if name in present]
            ),
            checks=summary.integrity(table),
            scores=summary.performance(table),
            own=summary.own(table),
            fairness=summary.fairness(table),
            pairs={pair.column: pair for pair in report.distributions},
        )

    @property
    def n_columns(self) -> int:
        """Columns with values; attributes and groups of people are none."""
        return len({*summary.names(self.table, "column")} - {*self.fairness})

    @property
    def averaged(self) -> bool:
        """Whether values of the whole time are means over windows."""
        return self.timed and not summary.has_total(self.table)

    @property
    def timed(self) -> bool:
        """Whether there is more than one window to draw over time."""
        return len(self.windows) > 1

    def plot(self, figure: Any) -> str:
        """Keep a figure for the script and return the place where it will stand."""
        document = json.loads(figure.to_json(validate=False))
        document["layout"].pop("template", None)
        self.plots.append(document)
        height = document["layout"].get("height", 270)
        return (
            f'<div class="plot" data-plot="{len(self.plots) - 1}" style="height:{height}px"></div>'
        )


def page(report: Report) -> str:
    """Render a report as one offline HTML document."""
    reading = Reading.of(report)
    parts: list[tuple[str, str, Callable[[Reading], str]]] = [
        ("account", "Account", _account),
        ("drift", "Drift", _drift),
        ("integrity", "Integrity", _integrity),
        ("missing", "Missing values", _missing),
        ("performance", "Performance", _performance),
        ("fairness", "Fairness", _fairness),
        ("own", "Own metrics", _own),
        ("over-time", "Drift over time", _drift_over_time),
        ("segments", "Segments", _segments),
        ("distributions", "Distributions", _distributions),
        ("settings", "Settings", _settings),
    ]
    written = [(place, title, write(reading)) for place, title, write in parts]
    links = "".join(f'<a href="#{place}">{title}</a>' for place, title, body in written if body)
    sections = "".join(
        f'<section id="{place}"><h2>{title}</h2>{body}</section>'
        for place, title, body in written
        if body
    )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(report.title)}</title><style>{_STYLE}{_PAGE_STYLE}</style></head>"
        f'<body><main class="tidegauge">{_header(reading)}<nav>{links}</nav>{sections}</main>'
        f'<script type="application/json" id="plots">{_json(reading.plots)}</script>'
        f'<script type="application/json" id="templates">{_json(figures.TEMPLATES)}</script>'
        f"<script>{figures.plotly_source()}</script><script>{_SCRIPT}</script></body></html>"
    )


def fragment(report: Report, *, rows: int = 12) -> str:
    """Render the top of a report for a notebook cell: tables and small histograms, no script."""
    reading = Reading.of(report)
    parts = [
        f"<style>{_STYLE}</style>",
        f'<div class="tidegauge"><h3>{escape(report.title)}</h3>{_verdict(reading)}',
        _drift_table(reading, reading.drifts[:rows]) if reading.drifts else "",
        _more(len(reading.drifts) - rows, "columns"),
        _integrity_table(reading, rows) if reading.checks else "",
        _score_table(reading.scores[:rows]) if reading.scores else "",
        _own(replace(reading, own=reading.own[:rows])),
        "</div>",
    ]
    return "".join(parts)


# --- sections ------------------------------------------------------------------------------------


def _header(reading: Reading) -> str:
    table = reading.table
    tiles = [
        ("rows", _amount(reading.rows.sum())),
        ("windows", f"{len(reading.windows):,}" if reading.timed else ""),
        ("columns", f"{reading.n_columns:,}"),
        ("segments", _several(name for name in summary.names(table, "segment") if name != "all")),
        ("versions", _several(summary.names(table, "version"))),
        ("labels arrived", percent(reading.scores[0].share) if reading.scores else ""),
    ]
    cells = "".join(
        f"<div><b>{value}</b><span>{name}</span></div>" for name, value in tiles if value
    )
    models = [name for name in summary.names(table, "model") if name != reading.report.title]
    when = " · ".join(filter(None, [*models, period(reading.windows)]))
    return (
        f'<header><p class="brand">{_LOGO}Tidegauge report</p>'
        f'<h1>{escape(reading.report.title)}</h1><p class="period">{escape(when)}</p>'
        f'{_verdict(reading)}<div class="tiles">{cells}</div>{_traffic(reading)}</header>'
    )


def _verdict(reading: Reading) -> str:
    return f'<p class="verdict">{escape(" ".join(facts(reading)))}</p>'


def facts(reading: Reading) -> list[str]:
    """Say in sentences what the table shows, counting and never judging."""
    sentences = []
    known = [drift for drift in reading.drifts if not np.isnan(drift.value)]
    if known:
        top, n = known[0], len(known)
        twice, tenfold = (sum(drift.ratio > k for drift in known) for k in (2, 10))
        sentences.append(
            f"{twice:,} of {count(n, 'column')} {'is' if twice == 1 else 'are'} above twice "
            f"{'its' if twice == 1 else 'their'} noise floor in {short(top.metric)}, "
            f"{tenfold:,} above ten times{_marked(reading, known)}; the furthest is "
            f"{_clip(top.column, 40)} at {number(top.value)}, against a floor of "
            f"{number(top.floor)}."
        )
    elif reading.drifts:
        sentences.append("No column has a drift value.")
    sentences += _drifted_fact(reading.table)
    if not reading.table.num_rows:
        sentences.append("The metric table is empty.")
    failing = len({check.column for check in reading.checks if check.column is not None})
    if failing:
        sentences.append(
            f"{count(failing, 'column')} {'fails' if failing == 1 else 'fail'} an integrity "
            "check more often than on the reference."
        )
    if reading.scores:
        sentences.append(_performance_fact(reading.scores))
    return sentences + _estimate_facts(reading.table)


def _estimate_facts(table: pa.Table) -> list[str]:
    """What estimated values rest on, and what they cannot see."""
    if not any(name.startswith("estimated_") for name in summary.names(table, "metric")):
        return []
    whole = summary.select(table, metric="backtested_windows", segment=summary.ALL)
    found = summary.grid(summary.by_window(whole), by="metric").value
    known = found[np.isfinite(found)]
    facts = []
    if len(known):
        least, most = int(known.min()), int(known.max())
        n = f"{least:,} to {count(most, 'earlier window')}" if least < most else ""
        facts.append(
            f"Bands of estimates rest on {n or count(most, 'earlier window')} whose labels are in"
            f"{'; with fewer than three they say little' if least < 3 else ''}."
        )
    by = map(str, summary.names(table, "status"))
    others = sorted(each.removeprefix("ok, by ") for each in by if each.startswith("ok, by "))
    if others:
        named = " and ".join(name.replace("_", " ") for name in others)
        facts.append(f"In some windows accuracy is estimated by {named}, off least before.")
    return [
        *facts,
        "No estimate without labels can see that a score has come to mean something else "
        "(concept drift).",
    ]


def _drifted_fact(table: pa.Table) -> list[str]:
    """How many features have drifted at once, and in how many windows."""
    whole = summary.select(table, metric="drifted_share", segment=summary.ALL)
    found = summary.grid(summary.by_window(whole), by="metric")
    known = np.isfinite(found.value).any(axis=0)
    if not known.any():
        return []
    share, n = found.value[0][known], found.n[0][known]
    peak = int(np.argmax(share * n))
    most = f"{share[peak] * n[peak]:,.0f} of {count(int(n[peak]), 'feature')}"
    level = "at a false-discovery rate of 5 %"
    if len(share) == 1:
        return [f"{most} differ by more than independent rows would, {level}."]
    return [
        f"In {np.count_nonzero(share):,} of {count(len(share), 'window')} features have drifted "
        f"{level}, at most {most} at once."
    ]


def _marked(reading: Reading, drifts: Sequence[Drift]) -> str:
    """How many are above the given threshold, or the marks that the field is used to."""

    def above(mark: float) -> str:
        return f"{sum(drift.value > mark for drift in drifts):,} above"

    metric = drifts[0].metric
    given = reading.report.thresholds.get(metric)
    if given is not None:
        return f", {above(given)} the threshold {given:g}"
    marks = figures.CUSTOMARY.get(metric, ())
    counts = " and ".join(f"{above(mark)} {mark:g}" for mark in marks)
    return f", {counts.replace('above', 'above the customary', 1)}" if counts else ""


def _performance_fact(scores: Sequence[Score]) -> str:
    score = scores[0]
    if np.isnan(score.value):
        return "No performance yet: no labels have arrived."
    before = (
        "" if np.isnan(score.reference) else f"; on the reference it was {number(score.reference)}"
    )
    return (
        f"{short(score.metric)} is {number(score.value)} over {count(score.n, 'labelled row')}"
        f"{before}."
    )


def _traffic(reading: Reading) -> str:
    if not reading.timed:
        return ""
    rows, top = reading.rows, reading.rows.max(initial=1)
    step = 1000 / len(rows)
    bars = "".join(
        f"M{i * step:.1f} 60v{-56 * row / top:.1f}h{step * 0.86:.1f}V60z"
        for i, row in enumerate(rows)
        if row
    )
    ends = [_day(reading.windows[0]), _day(reading.windows[-1])]
    return (
        f'<figure class="traffic"><svg viewBox="0 0 1000 60" preserveAspectRatio="none" role="img" '
        f'aria-label="rows by window"><path class="c" d="{bars}"/></svg><figcaption>'
        f"<span>{ends[0]}</span><span>rows by window, at most {top:,.0f}</span>"
        f"<span>{ends[1]}</span></figcaption></figure>"
    )


def _account(reading: Reading) -> str:
    account = reading.report.account
    if account is None:
        return ""
    predictions = [("matched", 0), ("pending", 5), ("expired", 6), ("forgotten", 4)]
    labels = [
        ("matched_labels", 0),
        ("early", 5),
        ("corrected", 4),
        ("late", 1),
        ("orphan", 3),
        ("duplicate", 6),
        ("missing", 7),
        ("forgotten_labels", 4),
    ]
    note = (
        f"A further {count(account.duplicate_predictions, 'prediction')} came twice and "
        "counted once."
        if account.duplicate_predictions
        else ""
    )
    return (
        '<p class="note">Every prediction waits for its label, has met it, or has waited too long; '
        f"every label is accounted for. {note}</p>"
        + _stack("predictions", account.predictions, account, predictions)
        + _stack("labels", account.labels, account, labels)
    )


def _stack(name: str, total: int, account: Account, parts: Sequence[tuple[str, int]]) -> str:
    counts = account.to_dict()
    shown = [(part, tone, counts[part]) for part, tone in parts if counts[part]]
    bar = "".join(
        f'<i class="t{tone}" style="flex:{count / max(total, 1):.5f}"></i>'
        for _, tone, count in shown
    )
    key = "".join(
        f'<span><i class="t{tone}"></i>{part.removesuffix("_labels")} <b>{count:,}</b> '
        f"{percent(count / max(total, 1))}</span>"
        for part, tone, count in shown
    )
    return (
        f'<div class="stack"><p><b>{total:,}</b> {name}</p><div class="bar">{bar}</div>'
        f'<div class="key">{key}</div></div>'
    )


def _drift(reading: Reading) -> str:
    if not reading.drifts:
        return ""
    metric = _label(reading.drifts[0].metric)
    mean = "Values are means over the windows, weighted by rows. " if reading.averaged else ""
    rest = reading.drifts[ROWS : ROWS + MORE_ROWS]
    below = "".join(
        f"<tr><td>{_name(d.column)}</td><td>{number(d.value)}</td><td>{number(d.floor)}</td></tr>"
        for d in rest
    )
    more = (
        f"<details><summary>{count(len(reading.drifts) - ROWS, 'column')} that moved less"
        "</summary>"
        f'<table class="plain"><thead><tr><th>column</th><th>{metric}</th><th>noise floor</th></tr>'
        f"</thead><tbody>{below}</tbody></table>"
        f"{_more(len(reading.drifts) - ROWS - MORE_ROWS, 'columns')}</details>"
        if rest
        else ""
    )
    return (
        f'<p class="note">Sorted by {metric} above its noise floor, which is what these numbers of '
        f"rows and bins would show with no change. {mean}The bar apart on the right of a histogram "
        f"is its missing values.</p>{_drift_table(reading, reading.drifts[:ROWS])}{more}"
    )


def _drift_table(reading: Reading, drifts: Sequence[Drift]) -> str:
    companions = list(drifts[0].companions)
    pictured = any(drift.column in reading.pairs for drift in drifts)
    heads = [
        "<th>column</th>",
        "<th>reference</th><th>current</th>" if pictured else "",
        f'<th class="n">{_label(drifts[0].metric)}</th><th class="n">noise floor</th>',
        '<th class="n">&times; floor</th>',
        *(f'<th class="n">{_label(name)}</th>' for name in companions),
        "<th>over time</th>" if reading.timed else "",
    ]
    most = max((drift.value for drift in drifts if drift.value > 0), default=1.0)
    rows = []
    for drift in drifts:
        pair = reading.pairs.get(drift.column)
        width = 0.0 if np.isnan(drift.value) else 100 * max(drift.value, 0) / most
        rows.append(
            f"<tr><td>{_name(drift.column)}</td>"
            + ("".join(f"<td>{svg}</td>" for svg in _histograms(pair)) if pictured else "")
            + f'<td class="n v" style="--w:{width:.1f}%">{number(drift.value)}</td>'
            f'<td class="n q">{number(drift.floor)}</td>'
            f'<td class="n">{_times_floor(drift.ratio)}</td>'
            + "".join(f'<td class="n">{number(drift.companions[name])}</td>' for name in companions)
            + (f"<td>{_line(drift, reading.windows)}</td>" if reading.timed else "")
            + "</tr>"
        )
    return _table(heads, rows)


def _integrity(reading: Reading) -> str:
    if not reading.checks:
        looked = any(
            (known := summary.registered(name)) is not None and known.family == "integrity"
            for name in summary.names(reading.table, "metric")
        )
        none = "No check found more than on the reference."
        return f'<p class="note">{none}</p>' if looked else ""
    some = " in some window" * reading.averaged
    return (
        '<p class="note">Share of rows that fail each check, and below it the reference\'s share; '
        f"only what exceeds the reference beyond its 95 % interval{some}, the largest excess "
        f"first.</p>{_integrity_table(reading, CHECKED)}"
    )


def _integrity_table(reading: Reading, limit: int) -> str:
    by_column: dict[str | None, dict[str, Check]] = {}
    for check in reading.checks:
        by_column.setdefault(check.column, {})[check.metric] = check
    metrics = list(dict.fromkeys(check.metric for check in reading.checks))
    heads = [
        "<th>column</th>",
        *(f'<th class="n">{escape(_words(metric))}</th>' for metric in metrics),
        "<th>worst window</th>" if reading.timed else "",
    ]
    rows = []
    for column, checks in list(by_column.items())[:limit]:
        name = _name(column) if column is not None else "<em>whole traffic</em>"
        cells = "".join(_check_cell(checks.get(metric)) for metric in metrics)
        worst = max(checks.values(), key=lambda check: check.line.peak)
        when = f'<td class="q">{percent(worst.line.peak)} on {_day(worst.line.peak_start)}</td>'
        rows.append(f"<tr><td>{name}</td>{cells}{when if reading.timed else ''}</tr>")
    return _table(heads, rows) + _more(len(by_column) - limit, "columns")


def _check_cell(check: Check | None) -> str:
    if check is None:
        return '<td class="n q">·</td>'
    before = "" if np.isnan(check.reference) else f"<small>{percent(check.reference)}</small>"
    heat = min(100, 100 * check.excess**0.5)
    return f'<td class="n h" style="--h:{heat:.0f}%">{percent(check.value)}{before}</td>'


def _missing(reading: Reading) -> str:
    rates = summary.select(reading.table, metric="missing_rate", segment=summary.ALL)
    found = np.nan_to_num(np.asarray(rates["value"], dtype=np.float64))
    if not found.any():
        return ""
    return (
        '<p class="note">Share of missing values: null, NaN or declared as missing. Only columns '
        f"that miss some.</p>{reading.plot(figures.missing_map(rates))}"
    )


def _performance(reading: Reading) -> str:
    if not reading.scores:
        return ""
    if all(np.isnan(score.value) for score in reading.scores):
        return '<p class="note">No labels have arrived, so there is no performance to show.</p>'
    rows = summary.select(reading.table, segment=summary.ALL, column=None)
    figure = reading.plot(figures.performance(rows)) if reading.timed else ""
    note = "Values with their 95 % interval. " * (not reading.averaged)
    note += "Values are means over the windows, weighted by labelled rows. " * reading.averaged
    note += (
        "The charts show each window, its 95 % interval and the reference as a dotted line; a "
        "window whose labels are still arriving may yet change. Windows with less than a tenth of "
        "the usual rows neither set the scale nor count as lowest or highest."
    ) * reading.timed
    return f'<p class="note">{note}</p>{figure}{_score_table(reading.scores)}'


def _score_table(scores: Sequence[Score]) -> str:
    bracketed = any(not np.isnan(score.lower) for score in scores)
    ranged = any(np.isfinite(score.line.values).sum() > 1 for score in scores)
    heads = [
        '<th>metric</th><th class="n">value</th>',
        '<th class="n">interval</th>' if bracketed else "",
        '<th class="n">reference</th>',
        '<th class="n">lowest window</th><th class="n">highest window</th>' if ranged else "",
        '<th class="n">labelled rows</th><th class="n">labels arrived</th>',
    ]
    rows = []
    for score in scores:
        known = score.line.values[np.isfinite(score.line.values) & summary.usual(score.line.n)]
        ends = (known.min(), known.max()) if len(known) else (np.nan, np.nan)
        limits = f"[{number(score.lower)}, {number(score.upper)}]"
        bracket = "" if np.isnan(score.lower) else limits
        rows.append(
            f'<tr><td>{_name(short(score.metric))}</td><td class="n">{number(score.value)}</td>'
            + (f'<td class="n q">{bracket}</td>' if bracketed else "")
            + f'<td class="n q">{number(score.reference)}</td>'
            + ("".join(f'<td class="n q">{number(end)}</td>' for end in ends) if ranged else "")
            + f'<td class="n q">{score.n:,}</td><td class="n q">{percent(score.share)}</td></tr>'
        )
    return _table(heads, rows)


def _fairness(reading: Reading) -> str:
    """Two tables: of the attributes, with a column each, and of their groups, with a row each."""
    if not reading.fairness:
        return ""
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, gaps in reading.fairness.items():
        if not all(np.isnan(gap.value) for gap in gaps):
            alike.setdefault(tuple(gap.metric for gap in gaps), []).append(name)
    mean = " Values are means over the windows, weighted by rows." if reading.averaged else ""
    tables = []
    for metrics, names in alike.items():
        shown = names[:SEGMENTS]
        cells = [[_gap(gap) for gap in reading.fairness[name]] for name in shown]
        rows, heads = [_name(name) for name in shown], [escape(_words(m)) for m in metrics]
        if len(heads) > len(rows):
            rows, heads = heads, rows
            cells = [list(column) for column in zip(*cells, strict=True)]
        tables.append(
            _table(
                ["<th></th>", *(f'<th class="n">{head}</th>' for head in heads)],
                [
                    f"<tr><td>{row}</td>{''.join(line)}</tr>"
                    for row, line in zip(rows, cells, strict=True)
                ],
            )
            + _more(len(names) - SEGMENTS, "groups")
        )
    return (
        '<p class="note">Protected attributes, then their groups against the rest of the people. '
        "Below a value its interval, for all pairs or groups at once, and the gap that chance "
        f"alone would give to groups of these sizes.{mean}</p>{''.join(tables)}"
    )


def _gap(gap: Gap) -> str:
    known = "" if np.isnan(gap.lower) else f"[{number(gap.lower)}, {number(gap.upper)}]"
    chance = "" if np.isnan(gap.floor) else f"chance {number(gap.floor)}"
    below = "".join(f"<small>{each}</small>" for each in (known, chance) if each)
    return f'<td class="n">{number(gap.value)}{below}</td>'


def _own(reading: Reading) -> str:
    heads = [
        "<th>metric</th><th>column</th>",
        '<th class="n">value</th><th class="n">noise floor</th><th class="n">reference</th>',
    ]
    rows = []
    for own in reading.own[:MORE_ROWS]:
        column = _name(own.column) if own.column is not None else "<em>whole traffic</em>"
        numbers = "".join(
            f'<td class="n">{number(each)}</td>' for each in (own.value, own.floor, own.reference)
        )
        rows.append(f"<tr><td>{_name(own.metric)}</td><td>{column}</td>{numbers}</tr>")
    return _table(heads, rows) if rows else ""


def _drift_over_time(reading: Reading) -> str:
    top = [drift for drift in reading.drifts if np.isfinite(drift.value)][:LINES]
    if not (reading.timed and top):
        return ""
    metric = top[0].metric
    rows = summary.select(reading.table, metric=metric, segment=summary.ALL)
    limit = reading.report.thresholds.get(metric)
    drawn = "".join(
        reading.plot(figures.metric_over_time(rows, metric, drift.column, threshold=limit))
        for drift in top
    )
    return (
        f'<p class="note">{_label(metric)} of the columns that moved most; the grey area is the '
        f'noise floor of each window.</p><div class="two">{drawn}</div>'
    )


def _segments(reading: Reading) -> str:
    headline = reading.scores[0].metric if reading.scores else None
    segments = summary.segments(reading.table, headline=headline)
    if not segments:
        return ""
    drifting = bool(reading.drifts)
    metric = _label(reading.drifts[0].metric) if drifting else ""
    heads = [
        '<th>segment</th><th class="n">rows</th>',
        f'<th>column that moved most</th><th class="n">{metric}</th><th class="n">noise floor</th>'
        '<th class="n">&times; floor</th>'
        if drifting
        else "",
        f'<th class="n">{_label(headline)}</th><th class="n">reference</th>'
        '<th class="n">labels arrived</th>'
        if headline
        else "",
    ]
    shown = segments[:SEGMENTS]
    most = max((segment.value for segment in shown if segment.value > 0), default=1.0)
    rows = []
    for segment in shown:
        width = 100 * max(np.nan_to_num(segment.value), 0) / most
        rows.append(
            f'<tr><td>{_name(segment.name)}</td><td class="n q">{segment.n:,}</td>'
            + (
                f"<td>{_name(segment.column or '-')}</td>"
                f'<td class="n v" style="--w:{width:.1f}%">{number(segment.value)}</td>'
                f'<td class="n q">{number(segment.floor)}</td>'
                f'<td class="n">{_times_floor(segment.ratio)}</td>'
                if drifting
                else ""
            )
            + (
                f'<td class="n">{number(segment.performance)}</td>'
                f'<td class="n q">{number(segment.reference)}</td>'
                f'<td class="n q">{percent(segment.share)}</td>'
                if headline
                else ""
            )
            + "</tr>"
        )
    return (
        '<p class="note">Each segment against its own reference: the column furthest above its '
        "noise floor there, and the performance.</p>"
        + _table(heads, rows)
        + _more(len(segments) - SEGMENTS, "segments")
    )


def _distributions(reading: Reading) -> str:
    ranked = [reading.pairs[d.column] for d in reading.drifts if d.column in reading.pairs]
    pairs = (ranked or list(reading.pairs.values()))[:PAIRS]
    if not pairs:
        return ""
    drawn = "".join(reading.plot(figures.distribution(pair)) for pair in pairs)
    return (
        '<p class="note">Reference in grey, current in blue, as shares of the rows that have a '
        f'value; the columns that moved most.</p><div class="three">{drawn}</div>'
    )


def _settings(reading: Reading) -> str:
    used = dict(reading.report.settings)
    used |= {"metrics": ", ".join(summary.names(reading.table, "metric"))}
    lines = "".join(
        f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>"
        for name, value in used.items()
        if str(value)
    )
    return f"<dl>{lines}</dl>" if lines else ""


# --- small parts ---------------------------------------------------------------------------------


def _table(heads: Iterable[str], rows: Iterable[str]) -> str:
    return (
        f'<div class="scroll"><table><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _histograms(pair: Distribution | None) -> tuple[str, str]:
    """Two small histograms on one scale; a missing share stands apart on the right."""
    if pair is None:
        return ("", "")
    sides = [
        bars(pair.reference, pair.reference_missing, 24),
        bars(pair.current, pair.current_missing, 24),
    ]
    missing = pair.reference_missing + pair.current_missing > 0
    top = max(side.max(initial=0) for side in sides) or 1.0
    reference, current = (
        _histogram(side / top, missing, tone) for side, tone in zip(sides, "rc", strict=True)
    )
    return reference, current


def bars(counts: NDArray[np.int64], missing: int, most: int) -> FloatArray:
    """Shares of bins pooled until they fit a small picture; the missing share comes last."""
    if len(counts) > most:
        counts = np.add.reduceat(counts, np.arange(0, len(counts), -(-len(counts) // most)))
    shares: FloatArray = np.append(counts, missing) / max(int(counts.sum()) + missing, 1)
    return shares


def _histogram(heights: FloatArray, missing: bool, tone: str) -> str:
    values, last = heights[:-1], heights[-1]
    step = (208 if missing else 230) / max(len(values), 1)
    bar = max(step - 2, step * 0.7)
    path = "".join(
        f"M{i * step:.0f} 60v-{max(58 * height, 1):.0f}h{bar:.0f}V60z"
        for i, height in enumerate(values)
        if height > 0
    )
    gap = f'<path class="m" d="M216 60v-{58 * last:.0f}h14V60z"/>' if last > 0 else ""
    return (
        f'<svg class="hist" viewBox="0 0 230 61" preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="{tone}" d="{path}"/>{gap}<path class="b" d="M0 60.5h230"/></svg>'
    )


def _line(drift: Drift, windows: summary.Instants) -> str:
    """One line over the windows, broken where no value is; long ones are thinned by maxima."""
    values = drift.line.values
    if len(values) > 120:
        edges = np.arange(0, len(values), -(-len(values) // 120))
        values = np.fmax.reduceat(values, edges)
    if not np.isfinite(values).any():
        return ""
    top = max(float(np.nanmax(values)), 1e-300)
    step = 220 / max(len(values) - 1, 1)
    path, pen = "", "M"
    for i, value in enumerate(values):
        if np.isnan(value):
            pen = "M"
            continue
        path += f"{pen}{i * step:.0f} {54 - 50 * max(value, 0) / top:.0f}"
        pen = "L"
    title = f"peak {number(drift.line.peak)} on {_day(drift.line.peak_start)}"
    return f'<svg class="line" viewBox="0 0 220 56"><title>{title}</title><path d="{path}"/></svg>'


def _name(name: str) -> str:
    short = _clip(name, 36) or "(no name)"
    title = "" if short == name else f' title="{escape(name[:400])}"'
    return f'<span class="name"{title}>{escape(short)}</span>'


def _clip(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"


def _label(metric: str) -> str:
    return escape(short(metric))


def _words(metric: str) -> str:
    return metric.removesuffix("_rate").replace("_", " ")


def percent(share: float) -> str:
    """Write a share in per cent, in three figures.

    >>> percent(0.12345), percent(1e-9), percent(0.0)
    ('12.3 %', '1e-7 %', '0 %')
    """
    return "-" if np.isnan(share) else f"{number(100 * share)} %"


def _times_floor(ratio: float) -> str:
    return "-" if np.isnan(ratio) else "∞" if np.isinf(ratio) else f"{number(ratio)}&times;"


def count(n: float, noun: str) -> str:
    """Count things in words.

    >>> count(1, "row"), count(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{n:,.0f} {noun}{'' if n == 1 else 's'}"


def _amount(n: float) -> str:
    for size, letter in ((1e9, " G"), (1e6, " M")):
        if n >= 10 * size:
            return f"{n / size:,.1f}{letter}"
    return f"{n:,.0f}"


def _several(names: Iterable[str]) -> str:
    n = len(list(names))
    return f"{n:,}" if n > 1 else ""


def _more(n: int, what: str) -> str:
    return f'<p class="note">and {n:,} more {what}.</p>' if n > 0 else ""


def _day(instant: np.datetime64) -> str:
    if np.isnat(instant):
        return "-"
    moment = instant.astype("datetime64[s]").item()
    clock = "" if (moment.hour, moment.minute) == (0, 0) else f" {moment:%H:%M}"
    return f"{moment.day} {moment:%b %Y}{clock}"


def period(windows: summary.Instants) -> str:
    """Say from which window to which, in UTC; nothing when there is no time."""
    if not len(windows) or np.isnat(windows[0]):
        return ""
    first, last = _day(windows[0]), _day(windows[-1])
    return f"{first} UTC" if first == last else f"{first} to {last} UTC"


def _json(value: Any) -> str:
    """Write JSON that cannot end the script element it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"
)
_LOGO = (
    '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M5 2v20M5 4h4M5 8h3M5 12h4M5 16h3'
    'M5 20h4"/>'
    '<path class="w" d="M11 14c2-3 4-3 6 0s4 3 6 0"/></svg>'
)
_STYLE = """
.tidegauge{--ink:#1c2733;--quiet:#5c6875;--line:#e3e7ec;--paper:#fff;--ground:#f4f6f8;--blue:#2f80d0;
--grey:#a3acb8;--warm:#d9622b;--heat:217,98,43;color:var(--ink);line-height:1.5;
font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
@media(prefers-color-scheme:dark){.tidegauge{--ink:#e4e9ef;--quiet:#98a4b1;--line:#2c353f;
--paper:#171c22;--ground:#0f1317;--blue:#4a98e6;--grey:#77828f;--warm:#e8803f;
--heat:232,128,63}}
.tidegauge .scroll{overflow-x:auto}
.tidegauge table{border-collapse:collapse;width:100%;font-size:13px;background:none}
.tidegauge th{font-weight:500;color:var(--quiet);text-align:left;padding:6px 10px;font-size:12px;
border-bottom:1px solid var(--line);white-space:nowrap;background:none}
.tidegauge td{padding:5px 10px;border-bottom:1px solid var(--line);text-align:left;
vertical-align:middle;background:none;color:var(--ink)}
.tidegauge tbody tr:last-child td{border-bottom:0}
.tidegauge .n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.tidegauge .q,.tidegauge small{color:var(--quiet)}
.tidegauge small{display:block;font-size:11px;line-height:1.2}
.tidegauge .v{background:linear-gradient(var(--blue),var(--blue)) no-repeat calc(100% - 10px)
calc(100% - 4px)/calc(var(--w)*.84) 3px;min-width:84px}
.tidegauge .h{background:color-mix(in srgb,rgb(var(--heat)) calc(var(--h)*.6),transparent)}
.tidegauge .name{white-space:nowrap;font-weight:500}
.tidegauge .note{color:var(--quiet);margin:0 0 12px;max-width:78ch}
.tidegauge .verdict{font-size:17px;line-height:1.55;margin:14px 0 20px;max-width:78ch}
.tidegauge svg.hist{width:116px;height:30px;display:block}
.tidegauge svg.line{width:110px;height:28px;display:block}
.tidegauge svg .r{fill:var(--grey)}.tidegauge svg .c{fill:var(--blue)}
.tidegauge svg .m{fill:var(--warm)}
.tidegauge svg .b{stroke:var(--line);fill:none}
.tidegauge svg.line path{fill:none;stroke:var(--blue);stroke-width:2.4;stroke-linejoin:round;
stroke-linecap:round}
"""
_PAGE_STYLE = """
html{background:#f4f6f8}body{margin:0}
@media(prefers-color-scheme:dark){html{background:#0f1317}}
main{max-width:1120px;margin:0 auto;padding:28px 20px 60px}
header,section{background:var(--paper);border:1px solid var(--line);border-radius:12px;
padding:24px 28px;margin-bottom:18px}
.brand{display:flex;align-items:center;gap:8px;color:var(--quiet);font-size:13px;margin:0 0 10px}
.brand svg{width:20px;height:20px;fill:none;stroke:var(--quiet);stroke-width:1.6;
stroke-linecap:round}
.brand .w{stroke:var(--blue);stroke-width:2.2}
h1{font-size:28px;line-height:1.2;font-weight:650;letter-spacing:-.01em;margin:0;
overflow-wrap:anywhere}
h2{font-size:18px;font-weight:650;margin:0 0 6px}
.period{color:var(--quiet);margin:4px 0 0;overflow-wrap:anywhere}.verdict{overflow-wrap:anywhere}
.tiles{display:flex;flex-wrap:wrap;gap:10px 44px;margin:0 0 22px}
.tiles b{display:block;font-size:24px;font-weight:600;line-height:1.2;
font-variant-numeric:tabular-nums}
.tiles:last-child{margin:0}.tiles span{color:var(--quiet);font-size:12px}
.traffic{margin:0}.traffic svg{display:block;width:100%;height:60px;
border-bottom:1px solid var(--line)}
.traffic .c{opacity:.75}
.traffic figcaption{display:flex;justify-content:space-between;color:var(--quiet);font-size:12px;
padding-top:4px}
nav{display:flex;flex-wrap:wrap;gap:4px 20px;margin:0 28px 18px;font-size:13px}
nav a{color:var(--quiet);text-decoration:none}
nav a:hover{color:var(--ink);text-decoration:underline}
.stack{margin-top:16px}.stack p{margin:0 0 4px}.stack p b{font-variant-numeric:tabular-nums}
.bar{display:flex;gap:2px;height:14px;border-radius:4px;overflow:hidden;background:var(--line)}
.bar i{min-width:2px}
.key{display:flex;flex-wrap:wrap;gap:2px 20px;font-size:12px;color:var(--quiet);margin-top:6px;
font-variant-numeric:tabular-nums}
.key b{color:var(--ink);font-weight:600}
.key i{display:inline-block;width:9px;height:9px;border-radius:2px;margin-right:6px}
.t0{background:#2f80d0}.t1{background:#e39a2d}.t3{background:#c2619c}.t4{background:#7d74d6}
.t5{background:#86bdf0}.t6{background:var(--grey)}.t7{background:var(--quiet)}
.two,.three{display:grid;grid-template-columns:repeat(auto-fill,minmax(460px,1fr));gap:10px 20px}
.three{grid-template-columns:repeat(auto-fill,minmax(310px,1fr))}
@media(max-width:560px){.two,.three{grid-template-columns:1fr}header,section{padding:18px 16px}}
.plot{min-width:0}.two .plot,.three .plot{overflow:hidden}
details{margin-top:12px}summary{cursor:pointer;color:var(--quiet)}
.plain td:not(:first-child),.plain th:not(:first-child){text-align:right;
font-variant-numeric:tabular-nums}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 24px;margin:8px 0 0}
dt{color:var(--quiet)}dd{margin:0;overflow-wrap:anywhere}
@media print{section{break-inside:avoid-page}nav{display:none}}
"""
_SCRIPT = """
const read = id => JSON.parse(document.getElementById(id).textContent);
const plots = read("plots"), templates = read("templates");
const dark = matchMedia("(prefers-color-scheme: dark)");
const draw = place => {
  const {data, layout} = plots[place.dataset.plot];
  place.drawn = true;
  Plotly.react(place, data, {...layout, template: templates[dark.matches ? "dark" : "light"]},
    {responsive: true, displayModeBar: false});
};
const places = [...document.querySelectorAll(".plot")];
const watch = new IntersectionObserver(seen => seen.forEach(entry => {
  if (entry.isIntersecting && !entry.target.drawn) draw(entry.target);
}), {rootMargin: "600px"});
places.forEach(place => watch.observe(place));
dark.addEventListener("change", () => places.filter(place => place.drawn).forEach(draw));
addEventListener("beforeprint", () => places.filter(place => !place.drawn).forEach(draw));
"""
