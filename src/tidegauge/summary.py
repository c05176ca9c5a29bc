"""A metric table in a page's worth of numbers: what moved, where, and by how much.

Everything here reads the table and nothing else. A table may hold values by window, values of the
whole time (rows without a window), or both. Where it has no values of the whole time, they are the
means over the windows weighted by rows, so a rate is exactly the rate of all the rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidegauge.values import METRIC_TABLE

if TYPE_CHECKING:
    from tidegauge.metrics.registry import Metric

FloatArray: TypeAlias = NDArray[np.float64]
Instants: TypeAlias = NDArray[np.datetime64]

ALL = "all"
LEADING = ("psi", "jensen_shannon_distance", "kolmogorov_smirnov", "hellinger_distance")
HEADLINES = (
    "roc_auc",
    "average_precision",
    "log_loss",
    "expected_calibration_error",
    "precision",
    "recall",
    "macro_f1",
    "accuracy",
    "rmse",
    "mae",
    "r2",
    "mean_error",
    "f1",
    "brier_score",
)
COUNTS = {
    "label_count",
    "true_positives",
    "false_positives",
    "false_negatives",
    "true_negatives",
}  # amounts, of which a mean over windows says nothing
OF_FEATURES = {"drifted_share"}  # their n counts features, not rows
PARTS = {"null_rate", "nan_rate", "sentinel_rate", "any_violation_rate"}  # said by other checks


@dataclass(frozen=True, slots=True)
class Grid:
    """One metric as matrices `[row, window]`; NaN where it is undefined."""

    names: tuple[str | None, ...]
    starts: Instants
    value: FloatArray
    lower: FloatArray
    upper: FloatArray
    floor: FloatArray
    reference: FloatArray
    share: FloatArray
    n: FloatArray

    def over_time(self, what: FloatArray) -> FloatArray:
        """Mean of each row over the windows, weighted by their rows.

        >>> import pyarrow as pa
        >>> grid(tidy(pa.table({"metric": [], "value": []})), by="metric").value.shape
        (0, 0)
        """
        weight = np.where(np.isnan(what), 0.0, np.maximum(self.n, 1.0))
        return _ratio((weight * np.nan_to_num(what)).sum(axis=1), weight.sum(axis=1))


@dataclass(frozen=True, slots=True)
class Line:
    """One value by window, and where it peaked."""

    values: FloatArray
    n: FloatArray
    peak: float
    peak_start: np.datetime64


@dataclass(frozen=True, slots=True)
class Drift:
    """How far one column has moved, beside what it would show with no change."""

    column: str
    metric: str
    value: float
    floor: float
    companions: Mapping[str, float]
    line: Line

    @property
    def excess(self) -> float:
        """Value above the noise floor."""
        return self.value - (0.0 if np.isnan(self.floor) else self.floor)

    @property
    def ratio(self) -> float:
        """Value in noise floors."""
        return _in_floors(self.value, self.floor)


@dataclass(frozen=True, slots=True)
class Check:
    """One integrity check of one column (None: of the traffic), beside the reference."""

    column: str | None
    metric: str
    value: float
    reference: float
    line: Line

    @property
    def excess(self) -> float:
        """Value above the reference's."""
        return self.value - (0.0 if np.isnan(self.reference) else self.reference)


@dataclass(frozen=True, slots=True)
class Score:
    """One performance metric over the whole time, beside the reference."""

    metric: str
    value: float
    lower: float
    upper: float
    reference: float
    share: float
    n: int
    line: Line


@dataclass(frozen=True, slots=True)
class Own:
    """One value of a user's metric over the whole time; without a column it is of the model."""

    metric: str
    column: str | None
    value: float
    floor: float
    reference: float


@dataclass(frozen=True, slots=True)
class Gap:
    """One fairness metric of a protected attribute, or of one group, over the whole time."""

    metric: str
    value: float
    lower: float
    upper: float
    floor: float


@dataclass(frozen=True, slots=True)
class Segment:
    """The column that moved most in one segment, and how good the predictions were there."""

    name: str
    n: int
    column: str | None
    value: float
    floor: float
    performance: float
    reference: float
    share: float

    @property
    def excess(self) -> float:
        """Drift above the noise floor; minus infinity where there is none to rank by."""
        above = self.value - np.nan_to_num(self.floor)
        return -np.inf if np.isnan(above) else float(above)

    @property
    def ratio(self) -> float:
        """Value in noise floors."""
        return _in_floors(self.value, self.floor)


def tidy(table: pa.Table) -> pa.Table:
    """Give a metric table the columns, types and shared dictionaries that the rest relies on.

    >>> import pyarrow as pa
    >>> tidy(pa.table({"metric": ["psi"], "value": [0.1]})).schema.equals(METRIC_TABLE)
    True
    """
    if table.schema.names != METRIC_TABLE.names:
        table = pa.table(
            {
                field.name: table[field.name]
                if field.name in table.schema.names
                else pa.nulls(len(table), field.type)
                for field in METRIC_TABLE
            }
        )
    if table.schema != METRIC_TABLE:
        table = table.cast(METRIC_TABLE)
    return table.unify_dictionaries()


def select(table: pa.Table, **wanted: str | Collection[str] | None) -> pa.Table:
    """Rows with the wanted keys: a name, one of several names, or None for no name.

    >>> import pyarrow as pa
    >>> table = tidy(pa.table({"metric": ["psi", "f1"], "column": ["age", None]}))
    >>> select(table, column=None)["metric"].to_pylist()
    ['f1']
    """
    if not table.num_rows or not wanted:
        return table
    return table.filter(reduce(pc.and_, (_has(table[key], name) for key, name in wanted.items())))


def names(table: pa.Table, key: str) -> list[str]:
    """Distinct values of a key column, in order of appearance, null left out."""
    return [name for name in table[key].unique().to_pylist() if name is not None]


def starts(table: pa.Table) -> Instants:
    """Find where the windows start, in order; one NaT when the table knows no time."""
    found: Instants = np.unique(_instants(table["window_start"].unique()))
    known = found[~np.isnat(found)]
    return known if len(known) else found


def by_window(table: pa.Table) -> pa.Table:
    """Rows of the windows that make up the whole time, or all rows when there is one window."""
    return _half(table, pc.invert(_whole_time(table)))


def in_total(table: pa.Table) -> pa.Table:
    """Rows of the whole time, or all of them when the table only has parts of it."""
    return _half(table, _whole_time(table))


def has_total(table: pa.Table) -> bool:
    """Whether the whole traffic has a row of the whole time, or of no time at all."""
    return bool(pc.any(_whole_time(select(table, segment=ALL))).as_py())


def with_total(windows: pa.Table, total: pa.Table) -> pa.Table:
    """Windows, and the total of them from the first start to the last end, in one table.

    The whole traffic's total is left out where there is but one window, which it would repeat.
    """
    if pc.count_distinct(windows["window_end"]).as_py() <= 1:
        total = total.filter(pc.not_equal(total["segment"].cast(pa.string()), ALL))
    bounds = {
        "window_start": pc.min(windows["window_start"]),
        "window_end": pc.max(windows["window_end"]),
    }
    for name, moment in bounds.items():
        place = total.schema.get_field_index(name)
        total = total.set_column(place, total.schema.field(name), pa.repeat(moment, len(total)))
    return pa.concat_tables([windows, total]).unify_dictionaries()


def usual(n: FloatArray) -> NDArray[np.bool_]:
    """Which windows hold at least a tenth of the usual number of rows.

    >>> usual(np.array([3.0, 100.0, 0.0, 90.0]))
    array([False,  True, False,  True])
    """
    some = n[n > 0]
    return (n > 0) & (n >= 0.1 * np.median(some)) if len(some) else n > 0


def grid(table: pa.Table, *, by: str, windows: Instants | None = None) -> Grid:
    """Lay the rows of one metric out by a key and by window, versions pooled."""
    windows = starts(table) if windows is None else windows
    rows, found = _positions(table[by])
    columns = np.searchsorted(windows, _instants(table["window_start"]))
    shape = (len(found), len(windows))
    cell = rows * shape[1] + columns
    n = np.nan_to_num(_floats(table["n"]))

    def mean(name: str) -> FloatArray:
        values = _floats(table[name])
        weight = np.where(np.isnan(values), 0.0, np.maximum(n, 1.0))
        total = _sums(cell, weight * np.nan_to_num(values), shape[0] * shape[1])
        return _ratio(total, _sums(cell, weight, shape[0] * shape[1])).reshape(shape)

    return Grid(
        names=tuple(found),
        starts=windows,
        value=mean("value"),
        lower=mean("lower"),
        upper=mean("upper"),
        floor=mean("noise_floor"),
        reference=mean("reference_value"),
        share=mean("label_share"),
        n=_sums(cell, n, shape[0] * shape[1]).reshape(shape),
    )


def registered(metric: str) -> Metric | None:
    """Find a metric in the registry; None for one that this process does not know."""
    from tidegauge import metrics  # noqa: PLC0415 - the registry is big, and only pages ask

    try:
        return metrics.get(metric)
    except ValueError:
        return None


def rows_by_window(table: pa.Table) -> tuple[Instants, FloatArray]:
    """Rows of the whole traffic in each window, as the metrics counted them."""
    of_rows = [name for name in names(table, "metric") if name.partition("(")[0] not in OF_FEATURES]
    whole = select(by_window(table), segment=ALL, metric=of_rows)
    whole = whole.select(["version", "window_start", "n"])
    windows = starts(whole)
    most = whole.group_by(["version", "window_start"]).aggregate([("n", "max")])
    columns = np.searchsorted(windows, _instants(most["window_start"]))
    return windows, _sums(columns, np.nan_to_num(_floats(most["n_max"])), len(windows))


def leading_drift(table: pa.Table) -> str | None:
    """Choose the drift metric to rank by: PSI if it is there, else one with a noise floor."""
    floors = names(table.filter(table["noise_floor"].is_valid()), "metric")
    known = [
        name for name in names(table, "metric") if _is(name, "drift") and _is(name, "higher")
    ] or floors
    return next((name for name in (*LEADING, *known) if name in known), None)


def drift_ranking(
    table: pa.Table, *, metric: str | None = None, companions: Sequence[str] = ()
) -> list[Drift]:
    """Columns by how far they have moved above their noise floor, the furthest first.

    >>> import pyarrow as pa
    >>> table = pa.table({"metric": ["psi", "psi"], "column": ["a", "b"], "segment": ["all", "all"],
    ...                   "value": [0.1, 0.3], "noise_floor": [0.01, 0.02], "n": [100, 100]})
    >>> [(drift.column, round(drift.ratio)) for drift in drift_ranking(tidy(table))]
    [('b', 15), ('a', 10)]
    """
    whole = select(table, segment=ALL)
    metric = metric or leading_drift(whole)
    if metric is None:
        return []

    def total(name: str) -> Grid:
        rows = in_total(select(whole, metric=name))
        return grid(rows.filter(rows["column"].is_valid()), by="column")

    found = total(metric)
    means = {}
    for name in companions:
        other = total(name)
        means[name] = dict(zip(other.names, other.over_time(other.value).tolist(), strict=True))
    values, floors = found.over_time(found.value), found.over_time(found.floor)
    lines = _lines(select(whole, metric=metric), starts(by_window(whole)))
    ranking = [
        Drift(
            column=str(column),
            metric=metric,
            value=float(values[i]),
            floor=float(floors[i]),
            companions={name: mean.get(column, np.nan) for name, mean in means.items()},
            line=lines[column],
        )
        for i, column in enumerate(found.names)
    ]
    return sorted(ranking, key=lambda d: (np.isnan(d.excess), -np.nan_to_num(d.excess)))


def integrity(table: pa.Table) -> list[Check]:
    """Integrity checks that found more than the reference, the largest excess first."""
    whole = select(table, segment=ALL)
    windows = starts(by_window(whole))
    checks: list[Check] = []
    for metric in names(whole, "metric"):
        if metric in PARTS or not (_is(metric, "integrity") and _is(metric, "higher")):
            continue
        rows = select(whole, metric=metric)
        found, lines = grid(in_total(rows), by="column"), _lines(rows, windows)
        values, references = found.over_time(found.value), found.over_time(found.reference)
        above = _above_reference(found)
        checks += [
            Check(column, metric, float(values[i]), float(references[i]), lines[column])
            for i, column in enumerate(found.names)
            if above[i] and values[i] > np.nan_to_num(references[i])
        ]
    return sorted(checks, key=lambda check: -check.excess)


def performance(table: pa.Table) -> list[Score]:
    """Metrics of the whole traffic that wait for labels, those people ask for first on top."""
    rows = select(table, segment=ALL, column=None)
    rows = rows.filter(rows["label_share"].is_valid())
    if not rows.num_rows:
        return []
    found = grid(in_total(rows), by="metric")
    lines = _lines(rows, starts(by_window(rows)), by="metric")
    single = len(found.starts) == 1
    means = {
        name: found.over_time(getattr(found, name))
        for name in ("value", "lower", "upper", "reference")
    }
    shares = _arrived(found, *rows_by_window(table))
    scores = [
        Score(
            metric=str(metric),
            value=float(means["value"][i]),
            lower=float(means["lower"][i]) if single else float("nan"),
            upper=float(means["upper"][i]) if single else float("nan"),
            reference=float(means["reference"][i]),
            share=float(shares[i]),
            n=int(found.n[i].sum()),
            line=lines[metric],
        )
        for i, metric in enumerate(found.names)
        if metric not in COUNTS
        and not (_is(str(metric), "labels") or _is(str(metric), "comparison"))
    ]
    order = {name: place for place, name in enumerate(HEADLINES)}
    return sorted(scores, key=lambda score: order.get(score.metric, len(order)))


def own(table: pa.Table) -> list[Own]:
    """Values of the user's own metrics for the whole traffic, in the order of the table."""
    whole = select(table, segment=ALL)
    values: list[Own] = []
    for metric in names(whole, "metric"):
        known = registered(metric)
        if known is None or not known.own:
            continue
        found = grid(in_total(select(whole, metric=metric)), by="column")
        over = [found.over_time(each) for each in (found.value, found.floor, found.reference)]
        values += [
            Own(metric, column, *(float(each[i]) for each in over))
            for i, column in enumerate(found.names)
        ]
    return values


def fairness(table: pa.Table) -> dict[str, list[Gap]]:
    """Fairness metrics by protected attribute and by group, in the order of the table."""
    whole = select(table, segment=ALL)
    gaps: dict[str, list[Gap]] = {}
    for metric in names(whole, "metric"):
        known = registered(metric)
        if known is None or not known.of_groups:
            continue
        found = grid(in_total(select(whole, metric=metric)), by="column")
        single = len(found.starts) == 1
        ends = (found.lower, found.upper) if single else (np.full_like(found.value, np.nan),) * 2
        over = [found.over_time(each) for each in (found.value, *ends, found.floor)]
        if np.isnan(over[0]).all():
            continue  # one that waits for labels, say
        for i, column in enumerate(found.names):
            gaps.setdefault(str(column), []).append(Gap(metric, *(float(x[i]) for x in over)))
    return gaps


def segments(table: pa.Table, *, headline: str | None = None) -> list[Segment]:
    """Segments by the drift of the column that moved most in them, the furthest first."""
    metric = leading_drift(table)
    table = in_total(table)
    drift = _pooled(select(table, metric=metric or ()), ["segment", "column"])
    scores = _pooled(select(table, metric=headline or (), column=None), ["segment"])
    score = {row["segment"]: row for row in scores}
    rows: dict[str, int] = {}
    for row in drift or scores:
        rows[row["segment"]] = max(row["n"], rows.get(row["segment"], 0))
    worst: dict[str, Segment] = {}
    for row in drift or scores:
        name = row["segment"]
        mine = score.get(name, {})
        candidate = Segment(
            name=name,
            n=rows[name],
            column=row.get("column") if np.isfinite(row["value"]) else None,
            value=row["value"] if drift else np.nan,
            floor=row["noise_floor"],
            performance=mine.get("value", np.nan),
            reference=mine.get("reference_value", np.nan),
            share=mine["n"] / max(rows[name], 1) if mine and drift else np.nan,
        )
        if name not in worst or candidate.excess > worst[name].excess:
            worst[name] = candidate
    apart = [segment for name, segment in worst.items() if name != ALL]
    return sorted(apart, key=lambda segment: -segment.excess)


def _lines(rows: pa.Table, windows: Instants, *, by: str = "column") -> dict[str | None, Line]:
    found = grid(by_window(rows), by=by, windows=windows)
    ordered = np.where(np.isnan(found.value), -np.inf, found.value)
    return {
        name: Line(
            values=found.value[i],
            n=found.n[i],
            peak=float(found.value[i, peak]),
            peak_start=windows[peak],
        )
        for i, (name, peak) in enumerate(zip(found.names, ordered.argmax(axis=1), strict=True))
    }


def _above_reference(found: Grid) -> NDArray[np.bool_]:
    """Whether the lower limit, or a value without one, exceeds the reference in some window."""
    least = np.where(np.isnan(found.lower), found.value, found.lower)
    above: NDArray[np.bool_] = np.any(least > np.nan_to_num(found.reference), axis=1)
    return above


def _arrived(found: Grid, windows: Instants, traffic: FloatArray) -> FloatArray:
    """Share of labels over all windows; one without labels counts with its whole traffic."""
    if len(found.starts) == 1:
        return found.share[:, 0]
    predictions = _ratio(found.n, found.share)
    if np.array_equal(found.starts, windows):
        predictions = np.where(np.isnan(predictions), traffic, predictions)
    return _ratio(found.n.sum(axis=1), np.nansum(predictions, axis=1))


def _in_floors(value: float, floor: float) -> float:
    """Ratio of the two: infinite above a floor of zero, NaN where either is unknown."""
    if np.isnan(value) or np.isnan(floor):
        return float("nan")
    if floor == 0:
        return float("inf") if value > 0 else 1.0
    return value / floor


def _whole_time(table: pa.Table) -> pa.Array:
    """Which rows have a window around all the others, or none."""
    start, end = table["window_start"], table["window_end"]
    first, last = pc.min(start), pc.max(end)
    around = pc.and_(pc.equal(start, first), pc.equal(end, last))
    return pc.fill_null(around, True)


def _half(table: pa.Table, mine: pa.ChunkedArray) -> pa.Table:
    return table.filter(mine) if pc.any(mine).as_py() else table


def _is(metric: str, what: str) -> bool:
    known = registered(metric)
    return known is not None and what in (known.family, known.worse)


def _pooled(table: pa.Table, keys: list[str]) -> list[dict[str, Any]]:
    means = ("value", "noise_floor", "reference_value")
    n = pc.cast(pc.fill_null(table["n"], 0), pa.float64())
    columns = {key: table[key] for key in keys} | {"n": n}
    for name in means:
        weight = pc.multiply(pc.max_element_wise(n, 1.0), pc.cast(table[name].is_valid(), "double"))
        columns |= {
            name: pc.multiply(weight, pc.fill_null(table[name], 0.0)),
            f"{name}_weight": weight,
        }
    sums = [(name, "sum") for name in columns if name not in keys]
    pooled = pa.table(columns).group_by(keys).aggregate(sums).to_pylist()
    return [
        {key: row[key] for key in keys}
        | {"n": int(row["n_sum"])}
        | {
            name: row[f"{name}_sum"] / weight if (weight := row[f"{name}_weight_sum"]) else np.nan
            for name in means
        }
        for row in pooled
    ]


def _has(keys: pa.ChunkedArray, wanted: str | Collection[str] | None) -> pa.ChunkedArray:
    if wanted is None:
        return keys.is_null()
    codes = pa.chunked_array([chunk.indices for chunk in keys.chunks], pa.int32())
    asked = pa.array([wanted] if isinstance(wanted, str) else list(wanted), pa.string())
    known = pc.index_in(asked, value_set=keys.chunk(0).dictionary).drop_null()
    return pc.is_in(codes, value_set=known)


def _positions(keys: pa.ChunkedArray) -> tuple[NDArray[np.int64], list[str | None]]:
    """Place of each row's key among the distinct keys, and those; null is a key like any other."""
    if not len(keys):
        return np.zeros(0, np.int64), []
    words = [*keys.chunk(0).dictionary.to_pylist(), None]
    codes = np.concatenate(
        [chunk.indices.fill_null(len(words) - 1).to_numpy() for chunk in keys.chunks]
    )
    used, places = np.unique(codes, return_inverse=True)
    return places.astype(np.int64), [words[code] for code in used]


def _instants(column: pa.ChunkedArray | pa.Array) -> Instants:
    return np.asarray(column.cast(pa.timestamp("us"))).astype("datetime64[us]")


def _floats(column: pa.ChunkedArray) -> FloatArray:
    return np.asarray(column.cast(pa.float64()), dtype=np.float64)


def _sums(cell: NDArray[np.int64], values: FloatArray, size: int) -> FloatArray:
    return np.bincount(cell, values, minlength=size).astype(np.float64)


def _ratio(total: FloatArray, weight: FloatArray) -> FloatArray:
    share: FloatArray = np.full(np.shape(total), np.nan)
    np.divide(total, weight, out=share, where=weight > 0)
    return share
