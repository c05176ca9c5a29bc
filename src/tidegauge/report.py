"""What was measured, to read, to draw, to keep: one value with a face for every place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any
from unicodedata import category, east_asian_width

import numpy as np
import pyarrow as pa

from tidegauge import figures, page, summary
from tidegauge.figures import number
from tidegauge.values import Account, Distribution

if TYPE_CHECKING:
    from os import PathLike

    from plotly.graph_objects import Figure

__all__ = ["Report"]

WIDTH, SHOWN, NAME, SPARK = 100, 12, 26, 12  # of the text: columns, lines a table, name, picture
UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Report:
    """A metric table with the bins to draw: readable as it stands, and as one HTML file.

    Parameters
    ----------
    title
        Heading of the page.
    table
        Tidy metric table: one row per window, version, segment, column and metric.
    distributions
        Bins of the columns, reference beside current.
    account
        Where every prediction and label went; none when nothing was joined.
    settings
        What the values were computed with, shown at the end of the page.
    thresholds
        Limits to draw, by metric. A report draws them and judges nothing.

    Examples
    --------
    >>> import pyarrow as pa
    >>> table = pa.table({"metric": ["psi"], "segment": ["all"], "column": ["age"],
    ...                   "value": [0.3], "noise_floor": [0.01], "n": [500]})
    >>> Report("credit", table)
    credit
    500 rows, 1 column
    1 of 1 column is above twice its noise floor in PSI, 1 above ten times, 1 above the
    customary 0.1 and 1 above 0.2; the furthest is age at 0.3, against a floor of 0.01.
    <BLANKLINE>
    column                          PSI    floor  x floor
    age                             0.3     0.01       30
    """

    title: str
    table: pa.Table
    distributions: tuple[Distribution, ...] = ()
    account: Account | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def to_arrow(self) -> pa.Table:
        """Return the tidy metric table."""
        return self.table

    def to_pandas(self) -> Any:
        """Return the metric table as a pandas data frame; needs `tidegauge[pandas]`."""
        try:
            import pandas as pd  # noqa: F401
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                'a data frame needs pandas, an extra: pip install "tidegauge[pandas]"'
            ) from error
        return self.table.to_pandas()

    def to_html(self, path: str | PathLike[str] | None = None) -> str | None:
        """Write the report as one offline HTML file, or return it; needs `tidegauge[plots]`."""
        text = page.page(self)
        if path is None:
            return text
        Path(path).write_text(text, encoding="utf-8")
        return None

    def plot(self) -> Figure:
        """Draw how far each column has moved beside its noise floor; needs `tidegauge[plots]`."""
        return figures.drift_ranking(self.table)

    def __repr__(self) -> str:
        return "\n".join(_lines(page.Reading.of(self)))

    def _repr_html_(self) -> str:
        return page.fragment(self)


def _lines(reading: page.Reading) -> Iterator[str]:
    """Write for a terminal: the facts, what moved, what failed and how good it was."""
    segments = [name for name in summary.names(reading.table, "segment") if name != summary.ALL]
    sizes = [
        page.count(reading.rows.sum(), "row"),
        page.count(len(reading.windows), "window") if reading.timed else "",
        page.count(len(summary.names(reading.table, "column")), "column"),
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
