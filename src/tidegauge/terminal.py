"""A report as plain text: what a terminal shows of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import wrap
from typing import TYPE_CHECKING
from unicodedata import category, east_asian_width

import numpy as np

from tidegauge import figures, page, summary
from tidegauge.figures import number

if TYPE_CHECKING:
    from tidegauge.values import Distribution

WIDTH, SHOWN, NAME, SPARK = 100, 12, 26, 12  # of the text: columns, lines a table, name, picture
UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
BLOCKS = "▁▂▃▄▅▆▇█"


def lines(reading: page.Reading) -> Iterator[str]:
    """Write for a terminal: the facts, what moved, what failed and how good it was."""
    segments = [name for name in summary.names(reading.table, "segment") if name != summary.ALL]
    sizes = [
        page.count(reading.rows.sum(), "row"),
        page.count(len(reading.windows), "window") if reading.timed else "",
        page.count(reading.n_columns, "column"),
        page.count(len(segments), "segment") if segments else "",
        page.period(reading.windows),
    ]
    yield _fit(reading.report.title, WIDTH).rstrip()
    yield ", ".join(filter(None, sizes))
    for fact in page.facts(reading):
        yield from wrap(_plain(fact), 90)
    yield from _drift_lines(reading)
    yield from _check_lines(reading)
    yield from _score_lines(reading)
    yield from _gap_lines(reading)
    yield from _own_lines(reading)


def _drift_lines(reading: page.Reading) -> Iterator[str]:
    if not reading.drifts:
        return
    first = reading.drifts[0]
    pictured = any(drift.column in reading.pairs for drift in reading.drifts[:SHOWN])
    heads = [figures.short(first.metric), "floor", "x floor", *map(figures.short, first.companions)]
    yield ""
    yield _row("column", heads, f"{'reference':<{SPARK}} > current" if pictured else "")
    for drift in reading.drifts[:SHOWN]:
        pair = reading.pairs.get(drift.column)
        numbers = [drift.value, drift.floor, drift.ratio, *drift.companions.values()]
        yield _row(drift.column, map(number, numbers), _spark_pair(pair) if pair else "")
    yield from _more(len(reading.drifts), "columns")


def _check_lines(reading: page.Reading) -> Iterator[str]:
    if not reading.checks:
        return
    yield ""
    yield _row("integrity", ["current", "reference"], "check", 10)
    for check in reading.checks[:SHOWN]:
        rates = [page.percent(check.value), page.percent(check.reference)]
        yield _row(check.column or "(whole traffic)", rates, check.metric, 10)
    yield from _more(len(reading.checks), "checks")


def _score_lines(reading: page.Reading) -> Iterator[str]:
    if not reading.scores:
        return
    yield ""
    bracketed = any(not np.isnan(score.lower) for score in reading.scores)
    heads = ["value", "reference", "labels"]
    yield _row("performance", heads, "interval" * bracketed, 10)
    for score in reading.scores[:SHOWN]:
        known = not np.isnan(score.lower)
        bracket = f"[{number(score.lower)}, {number(score.upper)}]" if known else ""
        values = [number(score.value), number(score.reference), page.percent(score.share)]
        yield _row(score.metric, values, bracket, 10)
    yield from _more(len(reading.scores), "metrics")


def _gap_lines(reading: page.Reading) -> Iterator[str]:
    gaps = [(name, gap) for name, gaps in reading.fairness.items() for gap in gaps]
    gaps = [(name, gap) for name, gap in gaps if not np.isnan(gap.value)]
    if not gaps:
        return
    yield ""
    yield _row("fairness", ["value", "floor", "lower", "upper"], "metric", 9)
    for name, gap in gaps[:SHOWN]:
        yield _row(name, map(number, (gap.value, gap.floor, gap.lower, gap.upper)), gap.metric, 9)
    yield from _more(len(gaps), "values")


def _own_lines(reading: page.Reading) -> Iterator[str]:
    if not reading.own:
        return
    yield ""
    yield _row("own metrics", ["value", "floor", "reference"], "metric", 10)
    for own in reading.own[:SHOWN]:
        numbers = map(number, (own.value, own.floor, own.reference))
        yield _row(own.column or "(whole traffic)", numbers, own.metric, 10)
    yield from _more(len(reading.own), "values")


def _row(name: str, numbers: Iterable[str], end: str, width: int = 8) -> str:
    cells = "".join(f" {_fit(cell, width).rstrip():>{width}}" for cell in numbers)
    return _fit(f"{_fit(name, NAME)}{cells}  {_plain(end)}".rstrip(), WIDTH).rstrip()


def _more(total: int, what: str) -> Iterator[str]:
    if total > SHOWN:
        yield f"and {total - SHOWN:,} more {what}"


def _spark_pair(pair: Distribution) -> str:
    sides = [
        page.bars(pair.reference, pair.reference_missing, SPARK)[:-1],
        page.bars(pair.current, pair.current_missing, SPARK)[:-1],
    ]
    top = max(side.max(initial=0) for side in sides) or 1.0
    reference, current = (
        "".join(BLOCKS[round(7 * height)] if height > 0 else " " for height in side / top)
        for side in sides
    )
    return f"{reference:<{SPARK}} > {current}"


def _plain(text: str) -> str:
    """Replace what would move a terminal's cursor or paint it."""
    return "".join("\N{REPLACEMENT CHARACTER}" if category(c) in UNSEEN else c for c in text)


def _fit(text: str, width: int) -> str:
    """Pad or clip to a width on the screen, where some characters take two places."""
    shown, used = "", 0
    text = _plain(text)
    for place, letter in enumerate(text):
        size = 0 if category(letter) in {"Mn", "Me"} else 1 + (east_asian_width(letter) in "WF")
        if used + size > width - (place < len(text) - 1):
            return f"{shown}…" + " " * (width - used - 1)
        shown, used = shown + letter, used + size
    return shown + " " * (width - used)
