"""The records that cross every boundary: tables, bins to draw, account of events."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["METRIC_TABLE", "SLICE_TABLE", "TRANSITIONS", "Account", "Distribution"]

_WORD = pa.dictionary(pa.int32(), pa.string())
_INSTANT = pa.timestamp("us", tz="UTC")

METRIC_TABLE: pa.Schema = pa.schema(
    [
        ("model", _WORD),
        ("version", _WORD),
        ("window_start", _INSTANT),
        ("window_end", _INSTANT),
        ("segment", _WORD),
        ("column", _WORD),
        ("metric", _WORD),
        ("value", pa.float64()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("noise_floor", pa.float64()),
        ("reference_value", pa.float64()),
        ("n", pa.int64()),
        ("n_reference", pa.int64()),
        ("label_share", pa.float64()),
        ("status", _WORD),
    ]
)
"""One row per window, version, segment, column and metric.

The window is null when there is no time, the column is null for metrics of the whole model, and an
undefined number is null, never NaN; `status` then says why: "no data", "no labels", "no reference",
"undefined", or "not kept": that time is no longer kept in windows as narrow as were asked for.
"""

SLICE_TABLE: pa.Schema = pa.schema(
    [
        ("version", _WORD),
        ("window_start", _INSTANT),
        ("window_end", _INSTANT),
        ("segment", _WORD),
        ("column", _WORD),
        ("metric", _WORD),
        ("value", pa.float64()),
        ("baseline", pa.float64()),
        ("effect", pa.float64()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("contribution", pa.float64()),
        ("explained", pa.float64()),
        ("n", pa.int64()),
        ("n_baseline", pa.int64()),
        ("p_value", pa.float64()),
        ("q_value", pa.float64()),
        ("found", pa.bool_()),
    ]
)
"""One row per slice that was tested: those found first, then by what they contribute.

`effect` is value - baseline, with its 95 % interval where one is known. `contribution` is the part
of the whole's own move that would be gone without the slice, and `explained` the same as a share of
that move. `q_value` is the smallest rate of false discoveries at which the slice would be found.
"""

TRANSITIONS: pa.Schema = pa.schema(
    [
        ("fingerprint", pa.string()),
        ("check", pa.string()),
        ("model", pa.string()),
        ("version", pa.string()),
        ("segment", pa.string()),
        ("column", pa.string()),
        ("metric", pa.string()),
        ("window_start", _INSTANT),
        ("window_end", _INSTANT),
        ("before", pa.string()),
        ("after", pa.string()),
        ("severity", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("n", pa.int64()),
        ("late", pa.bool_()),
    ]
)
"""One row a change of state of an alert, and with `late` one a verdict that late data changed.

A fingerprint is one check of one series. A late row says what the verdict would be now; it changes
no state, and the first verdict stays in the history.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """The bins of one column, reference beside current: everything a picture of it needs.

    Parameters
    ----------
    column
        Name of the column.
    kind
        "numeric" and "timestamp" (microseconds, UTC) have `edges`; "categorical" has `labels`.
    labels
        The categories of the bins, the rare ones pooled in a last "(other)".
    edges
        Finite, increasing; one more than there are bins.
    reference, current
        Rows (or their weight) per bin.
    reference_missing, current_missing
        Rows without a value: null, NaN or declared as missing.

    Examples
    --------
    >>> import numpy as np
    >>> pair = Distribution("carrier", "categorical", ("UA", "(other)"), None,
    ...                     np.array([60, 40]), np.array([30, 70]), 0, 5)
    >>> dict(zip(pair.labels, (pair.current / pair.current.sum()).tolist()))
    {'UA': 0.3, '(other)': 0.7}
    """

    column: str
    kind: Literal["numeric", "categorical", "timestamp"]
    labels: tuple[str, ...] | None
    edges: NDArray[np.float64] | None
    reference: NDArray[np.int64]
    current: NDArray[np.int64]
    reference_missing: int
    current_missing: int


@dataclass(frozen=True, slots=True)
class Account:
    """Where every event went; nothing is lost and nothing counted twice.

    predictions = pending + matched + expired + forgotten, and
    labels = matched_labels + early + late + duplicate + corrected + orphan + missing +
    forgotten_labels, where those forgotten were taken out by `Monitor.forget`; a label that had
    been matched stays counted as such.

    >>> account = Account(predictions=3, pending=1, matched=2, labels=3, matched_labels=2, orphan=1)
    >>> account.balanced
    True
    """

    predictions: int = 0
    pending: int = 0
    matched: int = 0
    expired: int = 0
    forgotten: int = 0
    duplicate_predictions: int = 0
    labels: int = 0
    matched_labels: int = 0
    early: int = 0
    late: int = 0
    duplicate: int = 0
    corrected: int = 0
    orphan: int = 0
    missing: int = 0
    forgotten_labels: int = 0

    @property
    def balanced(self) -> bool:
        """Whether both sums hold; always true of an account that a monitor gives."""
        labels = self.matched_labels + self.early + self.late + self.duplicate
        labels += self.corrected + self.orphan + self.missing + self.forgotten_labels
        predictions = self.pending + self.matched + self.expired + self.forgotten
        return (self.predictions, self.labels) == (predictions, labels)

    def to_dict(self) -> dict[str, int]:
        """Return the counts by name, in the order of the sums."""
        return asdict(self)
