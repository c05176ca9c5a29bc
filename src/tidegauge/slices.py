"""Slices: the segments that account for a loss or a drift, with false discoveries held down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import numpy as np
import pyarrow as pa

from tidegauge.comparison import Comparison, Side, kinds_of
from tidegauge.metrics import Metric
from tidegauge.metrics.drift import chi_square_p_value
from tidegauge.metrics.evaluate import instants, words
from tidegauge.metrics.inputs import TASKS, Bins, Fine, cell_arrays, ratio, taken
from tidegauge.metrics.registry import Direction, Form
from tidegauge.metrics.results import Estimate, Proportion, Result, Z, newcombe, value_of
from tidegauge.metrics.significance import normal_tail, q_values
from tidegauge.values import SLICE_TABLE
from tidegauge.window import FloatArray, IntArray, WindowSums

__all__ = ["Against", "find_slices"]

Against = Literal["reference", "rest"]
Record = TypeVar("Record")

COUNTS_AT_ONCE = 1 << 23


class _Test(NamedTuple):
    """Slices against their baselines, [R] each."""

    value: FloatArray
    baseline: FloatArray
    lower: FloatArray  # of value - baseline
    upper: FloatArray
    n: FloatArray
    n_baseline: FloatArray
    p: FloatArray
    contribution: FloatArray
    total: FloatArray  # what contributions are a part of


def find_slices(
    comparison: Comparison,
    metric: Metric,
    columns: Sequence[str | None],
    *,
    against: Against = "reference",
    q: float = 0.1,
    minimum: int = 100,
    max_pairs: int = 10_000,
) -> pa.Table:
    """Test every segment of a comparison, and sort by what each contributes.

    Parameters
    ----------
    comparison
        Windows, versions and segments, the whole traffic among them.
    metric
        A share or mean with an interval, or a distance from the reference.
    columns
        Columns that the metric looks at; a None for a metric of the whole model.
    against
        "reference": the same segment there. "rest": the traffic of the window outside the segment.
    q
        Share of false discoveries among the slices found, at most, on average.
    minimum
        Rows on either side below which a slice is not tested.
    max_pairs
        Slices of several columns that are tested at most, those with the most rows.
    """
    if against not in get_args(Against):
        raise ValueError(f"against is 'reference' or 'rest', got {against!r}")
    if not 0 < q < 1 or minimum < 1:
        raise ValueError(f"q lies between 0 and 1 and minimum is at least 1, got {q}, {minimum}")
    rows, whole = _candidates(comparison, minimum, max_pairs)
    layout = comparison.sums.table.layout
    kinds = kinds_of(layout)
    parts = []
    for column in columns:
        form = metric.form_for(layout.schema.task if column is None else kinds[column])
        form = form or metric.form_for(None)
        assert form is not None
        scan = _Scan(comparison, metric, form, column, against)
        parts.append((column, scan.tested(rows, whole, minimum)))
    return _table(comparison, metric, parts, q)


def _candidates(comparison: Comparison, minimum: int, max_pairs: int) -> tuple[IntArray, IntArray]:
    """Rows to test, and for each the row of the whole traffic that it is a part of."""
    keys, table = comparison.keys, comparison.sums.table
    starts = np.zeros(len(keys.segment)) if keys.window_start is None else keys.window_start
    windows = np.stack([starts, keys.version], axis=1)
    _, window = np.unique(windows, axis=0, return_inverse=True)
    is_whole = np.array([name == "all" for name in keys.segments], dtype=bool)[keys.segment]
    of_window = np.full(int(window.max(initial=-1)) + 1, -1)
    of_window[window[is_whole]] = np.flatnonzero(is_whole)
    n = comparison.sums.traffic().rows
    wanted = ~is_whole & (n >= minimum) & (of_window[window] >= 0)
    if keys.is_kept is not None:
        wanted &= keys.is_kept
    sets = [names for names in table.layout.schema.segment_sets if len(names) > 1]
    pairs = {label for names in sets for label in table.segment_labels(names)}
    is_pair = np.array([name in pairs for name in keys.segments], dtype=bool)[keys.segment]
    by_size = np.flatnonzero(wanted & is_pair)
    by_size = by_size[np.argsort(-n[by_size], kind="stable")]
    wanted[by_size[max_pairs:]] = False
    rows = np.flatnonzero(wanted)
    return rows, of_window[window[rows]]


@dataclass(frozen=True)
class _Scan:
    """What is looked for, and where its numbers are read."""

    comparison: Comparison
    metric: Metric
    form: Form
    column: str | None
    against: Against

    def tested(self, rows: IntArray, whole: IntArray, minimum: int) -> tuple[IntArray, _Test]:
        """Test rows in chunks; those with too few rows on either side are left out."""
        scan = self._checked(np.unique(whole))
        step = max(1, COUNTS_AT_ONCE // scan._width)
        tests = [scan._test(rows[:0], whole[:0])]
        tests += [
            scan._test(rows[start : start + step], whole[start : start + step])
            for start in range(0, len(rows), step)
        ]
        test = _Test(*map(np.concatenate, zip(*tests, strict=True)))
        enough = (test.n >= minimum) & (test.n_baseline >= minimum) & ~np.isnan(test.p)
        return rows[enough], _Test(*(each[enough] for each in test))

    @property
    def _kind(self) -> type:
        """Input of the metric."""
        task = TASKS.get(self.comparison.sums.table.layout.schema.task or "")
        kinds = self.form.inputs["current"]
        return task if task is not None and task in kinds else kinds[0]

    @property
    def _width(self) -> int:
        """Numbers read for a row."""
        layout = self.comparison.sums.table.layout
        counted = None if self.column is None else self.comparison.counted(self.column)
        if counted is not None:
            return counted.n_slots
        if self.comparison.sums.detail == "scores":
            return sum(layout.n_slots[layout.outcome_block :])
        return 26 * layout.n_sums + 64

    def _checked(self, whole: IntArray) -> _Scan:
        """Return the scan, reading no more of the outcomes than changes the value of the whole."""
        sums, usual = self.comparison.sums.only(whole), self.comparison.reference_sums
        exact = self._measure(self._read(sums), self._reference(self.comparison.index[whole]))
        if not self._is_drift and not isinstance(exact, Proportion | Estimate):
            raise ValueError(
                f"metric {self.metric.name!r} has no error of its own, so slices cannot be tested; "
                "choose a share or a mean such as 'accuracy', 'log_loss', 'mae' or "
                "'missing_rate', or a distance such as 'psi'"
            )
        if self._kind not in TASKS.values():
            return self
        for detail in ("counts", "sums"):
            less = self._measure(self._read(replace(sums, detail=detail)), None)
            if np.array_equal(value_of(less), value_of(exact), equal_nan=True):
                comparison = replace(
                    self.comparison,
                    sums=replace(self.comparison.sums, detail=detail),
                    reference_sums=replace(usual, detail=detail),
                )
                return replace(self, comparison=comparison)
        return self

    @property
    def _is_drift(self) -> bool:
        """Whether the metric is a distance from the reference, with a noise floor."""
        return self.form.noise is not None

    @property
    def _options(self) -> dict[str, Any]:
        chosen = self.metric.chosen
        return {name: value for name, value in chosen.items() if name in self.form.options}

    def _read(self, sums: WindowSums, kind: type | None = None) -> Any:
        """One input of the metric, a row for each row of the sums."""
        kind = kind or self._kind
        side = Side(self.comparison, sums, None)
        if kind in TASKS.values():
            return sums.outcomes()
        if self.column is None:
            return side.traffic()
        if kind is Bins:
            return Bins(side.bins(self.column))
        return side.fine(self.column) if kind is Fine else side.column_counts(self.column)

    def _reference(self, index: IntArray, kind: type | None = None) -> Any:
        """Rows of the reference, zeros where it has no such segment."""
        known, place = np.unique(index[index >= 0], return_inverse=True)
        chosen = np.full(len(index), -1, dtype=np.int64)
        chosen[index >= 0] = place
        return _rows(self._read(self.comparison.reference_sums.only(known), kind), chosen)

    def _measure(self, current: Any, reference: Any) -> Result:
        """Value of the metric for every row."""
        inputs = {"current": current}
        if "reference" in self.form.inputs:
            inputs["reference"] = reference
        with np.errstate(over="ignore", invalid="ignore"):
            return self.form.function(**inputs, **self._options)

    def _test(self, rows: IntArray, whole: IntArray) -> _Test:
        """Compare rows of the sums with their baselines."""
        sums, index = self.comparison.sums, self.comparison.index
        wholes, of_whole = np.unique(whole, return_inverse=True)
        current = self._read(sums.only(rows))
        everything = _rows(self._read(sums.only(wholes)), of_whole)
        rest = _less(everything, current)
        usual, usual_of_all = self._reference(index[rows]), self._reference(index[whole])
        usual_of_rest = _less(usual_of_all, usual)
        result, without = self._measure(current, usual), self._measure(rest, usual_of_rest)
        total = value_of(self._measure(everything, usual_of_all))
        if self._is_drift:
            floor = self.form.noise(current=current, reference=usual, **self._options)  # type: ignore[misc]
            bins = self._read(sums.only(rows), Bins), self._reference(index[rows], Bins)
            unknown = np.full(len(rows), np.nan)
            return _Test(
                value=value_of(result),
                baseline=np.broadcast_to(floor, len(rows)),
                lower=unknown,
                upper=unknown,
                n=current.n,
                n_baseline=usual.n,
                p=chi_square_p_value(bins[1], bins[0]),
                contribution=total - value_of(without),
                total=total,
            )
        if self.against == "rest":
            test = _two_samples(result, current, without, rest, worse=self.form.worse)
            contribution = total - value_of(without)
            return test._replace(contribution=contribution, total=np.full_like(total, np.nan))
        before = self._measure(usual, usual)
        test = _two_samples(result, current, before, usual, worse=self.form.worse)
        total = total - value_of(self._measure(usual_of_all, usual_of_all))
        moved = value_of(without) - value_of(self._measure(usual_of_rest, usual_of_rest))
        return test._replace(contribution=total - moved, total=total)


def _two_samples(
    first: Result, current: Any, second: Result, baseline: Any, *, worse: Direction
) -> _Test:
    """Difference of two shares or means, its interval and the probability of as bad a one.

    Shares: the signed root of the likelihood ratio, and Newcombe's interval. Means: the normal.
    """
    sizes = [np.asarray(getattr(each, "rows_per_count", 1.0)) for each in (current, baseline)]
    n, n_baseline = current.n, baseline.n
    value, other = value_of(first), value_of(second)
    limits = [
        each.interval(size)  # type: ignore[union-attr]
        for each, size in zip((first, second), sizes, strict=True)
    ]
    effect = value - other
    lower, upper = newcombe(value, limits[0], other, limits[1])
    if isinstance(first, Proportion) and isinstance(second, Proportion):
        n, n_baseline = first.trials * sizes[0], second.trials * sizes[1]
        together = ratio(value * n + other * n_baseline, n + n_baseline)
        surprise = n * _divergence(value, together) + n_baseline * _divergence(other, together)
        score = np.sign(effect) * np.sqrt(2 * np.maximum(surprise, 0))
    else:
        score = ratio(effect, np.hypot(*((high - low) / 2 / Z for low, high in limits)))
    tail = normal_tail(-score if worse == "lower" else score)
    return _Test(
        value=value,
        baseline=other,
        lower=lower,
        upper=upper,
        n=np.nan_to_num(n),
        n_baseline=np.nan_to_num(n_baseline),
        p=2 * normal_tail(np.abs(score)) if worse == "either" else tail,
        contribution=effect,
        total=effect,
    )


def _divergence(share: FloatArray, other: FloatArray) -> FloatArray:
    """Kullback-Leibler divergence of two coins, in nats."""
    sides = ((share, other), (1 - share, 1 - other))
    return sum(p * np.log(np.where(p > 0, ratio(p, r), 1)) for p, r in sides)  # type: ignore[return-value]


def _rows(record: Record, index: IntArray) -> Record:
    """Some rows of an input; zeros where the index is negative."""
    arrays = {name: taken(array, index) for name, array in cell_arrays(record)}
    return replace(record, **arrays)  # type: ignore[type-var]


def _less(whole: Record, part: Record) -> Record:
    """Input of the rows of the whole that are not in the part."""
    arrays = {name: array - getattr(part, name) for name, array in cell_arrays(whole)}
    return replace(whole, **arrays)  # type: ignore[type-var]


def _table(
    comparison: Comparison,
    metric: Metric,
    parts: Sequence[tuple[str | None, tuple[IntArray, _Test]]],
    q: float,
) -> pa.Table:
    keys = comparison.keys
    rows = np.concatenate([rows for _, (rows, _) in parts])
    test = _Test(*map(np.concatenate, zip(*(test for _, (_, test) in parts), strict=True)))
    names = [column for column, _ in parts]
    column = np.repeat(np.arange(len(parts)), [len(rows) for _, (rows, _) in parts])
    q_value = q_values(test.p)
    found = q_value <= q
    worst = {"lower": -test.contribution, "higher": test.contribution}.get(
        metric.worse, np.abs(test.contribution)
    )
    order = np.lexsort((test.p, -np.nan_to_num(worst), ~found))
    rows, column = rows[order], column[order]
    numbers = {
        "value": test.value,
        "baseline": test.baseline,
        "effect": test.value - test.baseline,
        "lower": test.lower,
        "upper": test.upper,
        "contribution": test.contribution,
        "explained": ratio(test.contribution, test.total),
        "p_value": test.p,
        "q_value": q_value,
    }
    data = {
        "version": words(keys.version[rows], keys.versions),
        "window_start": instants(keys.window_start, rows),
        "window_end": instants(keys.window_end, rows),
        "segment": words(keys.segment[rows], keys.segments),
        "column": words(column if names != [None] else np.full(len(rows), -1), names),
        "metric": words(np.zeros(len(rows), dtype=np.int32), (metric.label,)),
        **{name: pa.array(values[order], from_pandas=True) for name, values in numbers.items()},
        "n": pa.array(np.rint(test.n[order]).astype(np.int64)),
        "n_baseline": pa.array(np.rint(test.n_baseline[order]).astype(np.int64)),
        "found": pa.array(found[order]),
    }
    return pa.table({name: data[name] for name in SLICE_TABLE.names}, schema=SLICE_TABLE)
