"""Metric tables and bins made up for the tests of pictures and reports: pleasant and hostile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tidegauge.values import METRIC_TABLE, Distribution

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    '"quoted" & <b>bold</b>',
    "%{y} $a^b$ {x}",
    "line\nbreak \x1b[31mred \u2028 end",
    "列名称が長い" * 9,
    "",
)
DRIFT = ("psi", "jensen_shannon_distance", "kolmogorov_smirnov")
INTEGRITY = ("missing_rate", "unseen_rate", "out_of_range_rate")
PERFORMANCE = ("roc_auc", "average_precision", "log_loss", "expected_calibration_error")
PERFORMANCE += ("precision", "recall", "accuracy", "label_count")


def metric_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A table from a few rows, what they leave out being null."""
    filled = [{"segment": "all", "status": "ok", "n": 100} | dict(row) for row in rows]
    columns = {name: [row.get(name) for row in filled] for name in METRIC_TABLE.names}
    plain = pa.table(
        {
            field.name: pa.array(
                columns[field.name],
                field.type.value_type if pa.types.is_dictionary(field.type) else field.type,
            )
            for field in METRIC_TABLE
        }
    )
    return plain.cast(METRIC_TABLE)


def traffic(
    *,
    columns: Sequence[str] = ("dewp", "carrier", "temp", "distance", "hour"),
    windows: int = 30,
    segments: Sequence[str] = ("all",),
    labels: bool = True,
    empty_windows: Sequence[int] = (),
    drift: Sequence[str] = DRIFT,
    rows: int = 1000,
    seed: int = 0,
) -> pa.Table:
    """Every metric of every column, segment and daily window; `windows=0` knows no time."""
    random = np.random.default_rng(seed)
    times = max(windows, 1)
    blocks = []
    scores = PERFORMANCE if labels else ()
    for metrics, names in ((drift, columns), (INTEGRITY, columns), (scores, (None,))):
        shape = (len(metrics), len(segments), len(names), times)
        if 0 in shape:
            continue
        metric, segment, column, window = (axis.ravel() for axis in np.indices(shape))
        size = len(metric)
        n = (rows * (1 + 0.3 * np.sin(window * 0.9)) / (1 + 3 * segment)).astype(np.int64)
        empty = np.isin(window, np.asarray(empty_windows, dtype=np.int64))
        n[empty] = 0
        noise = random.gamma(9.0, 1 / 9.0, size)
        strength = np.array([1 / (1 + i) for i in range(len(names))])[column]
        season = (
            (1 - np.cos(2 * np.pi * window / max(times, 20))) / 2 if windows else np.full(size, 0.6)
        )
        floor = reference = lower = upper = share = np.full(size, np.nan)
        if metrics is drift:
            floor = 9 / np.maximum(n, 1)
            value = floor * noise + 0.5 * strength * season * (1 - 0.2 * metric)
        elif metrics is INTEGRITY:
            reference = np.where(column % 2 == 0, 0.01, 0.0) * (metric != 1)
            value = np.minimum(reference * noise + 0.2 * (column == 1) * (season > 0.5), 1)
            lower, upper = np.maximum(value - 0.01, 0), np.minimum(value + 0.01, 1)
        else:
            reference = np.array([0.75, 0.5, 0.45, 0.02, 0.6, 0.4, 0.8, 900])[metric]
            value = reference * (1 - 0.08 * season + 0.02 * random.normal(size=size))
            lower, upper = value - 0.03, value + 0.03
            share = 0.98 - 0.9 * (window > max(times - 3, 3))
            n = (n * share).astype(np.int64)
        value = np.where(empty, np.nan, value)
        start = np.datetime64("2013-04-01", "us") + window.astype("timedelta64[D]")
        instants = [start, start + np.timedelta64(1, "D")] if windows else [None, None]
        blocks.append(
            pa.table(
                [
                    _words(np.zeros(size), ("flights",)),
                    _words(np.zeros(size), ("v1",)),
                    *(
                        pa.nulls(size, pa.timestamp("us", "UTC"))
                        if instant is None
                        else pa.array(instant, pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
                        for instant in instants
                    ),
                    _words(segment, segments),
                    pa.nulls(size, METRIC_TABLE.field("column").type)
                    if names == (None,)
                    else _words(column, names),
                    _words(metric, metrics),
                    *(
                        pa.array(item, pa.float64(), mask=np.isnan(item) | empty)
                        for item in (value, lower, upper, floor, reference)
                    ),
                    pa.array(n),
                    pa.array(np.full(size, 50_000)),
                    pa.array(share, pa.float64(), mask=np.isnan(share)),
                    _words(empty, ("ok", "no data")),
                ],
                schema=METRIC_TABLE,
            )
        )
    return pa.concat_tables(blocks) if blocks else METRIC_TABLE.empty_table()


def _words(codes: np.ndarray, words: Sequence[Any]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(
        pa.array(codes.astype(np.int32)), pa.array(list(words), pa.string())
    )


def numeric_pair(column: str, *, shift: float = 0.8, missing: int = 0) -> Distribution:
    """A normal reference beside a shifted current, in 40 bins."""
    edges = np.linspace(-4, 5, 41)
    middle = (edges[1:] + edges[:-1]) / 2
    counts = [
        (10_000 * np.exp(-((middle - centre) ** 2) / 2) * (edges[1] - edges[0])).astype(np.int64)
        for centre in (0.0, shift)
    ]
    return Distribution(column, "numeric", None, edges, counts[0], counts[1], 40, missing)


def categorical_pair(column: str, labels: Sequence[str] = tuple("ABCDEFGH")) -> Distribution:
    """Categories in falling order beside the same ones in another."""
    reference = np.arange(len(labels), 0, -1) * 100
    current = np.roll(reference, 2) * 3
    return Distribution(column, "categorical", tuple(labels), None, reference, current, 0, 0)
