"""What was measured, to read, to draw, to keep: one value with a face for every place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tidegauge.values import Account, Distribution

if TYPE_CHECKING:
    from os import PathLike

    from plotly.graph_objects import Figure

__all__ = ["Report"]


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
        from tidegauge import page

        text = page.page(self)
        if path is None:
            return text
        Path(path).write_text(text, encoding="utf-8")
        return None

    def plot(self) -> Figure:
        """Draw how far each column has moved beside its noise floor; needs `tidegauge[plots]`."""
        from tidegauge import figures

        return figures.drift_ranking(self.table)

    def __repr__(self) -> str:
        from tidegauge import page, terminal

        return "\n".join(terminal.lines(page.Reading.of(self)))

    def _repr_html_(self) -> str:
        from tidegauge import page

        return page.fragment(self)
