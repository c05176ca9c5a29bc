"""From sums to the metric table: every metric once for all windows, segments and columns.

Columns with equal shapes are stacked, a block at a time that fits the processor's cache, so one
array operation serves many columns and memory stays bounded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegauge.metrics.drift import evidence
from tidegauge.metrics.estimated import CHOSEN_FROM, Estimator
from tidegauge.metrics.inputs import (
    ESTIMATES,
    OTHER_GROUP,
    Bins,
    ColumnCounts,
    Estimates,
    FeatureTests,
    Fine,
    FloatArray,
    GroupDecisions,
    GroupEstimates,
    GroupOutcomes,
    IntArray,
    LabelDelays,
    Maturity,
    Outcomes,
    PairedDecisions,
    PairedValues,
    RowSamples,
    Traffic,
    ratio,
)
from tidegauge.metrics.registry import JOINED, PROTECTED, Form, Metric, get, usual
from tidegauge.metrics.results import PerClass, PerGroup, Result, value_of
from tidegauge.metrics.significance import Quiet
from tidegauge.values import METRIC_TABLE

BLOCK_BYTES = 1 << 22  # of counts stacked at a time; temporaries take a few times as much

OTHERWISE = get_args(Estimator)[2:]  # what a value may be estimated by instead of the usual
STATUSES = (
    *("ok", "no data", "no labels", "no reference", "undefined", "not kept"),
    *(f"ok, by {estimator}" for estimator in OTHERWISE),
)
_OK, _NO_DATA, _NO_LABELS, _NO_REFERENCE, _UNDEFINED, _NOT_KEPT, _BY_OTHER = range(7)
_TESTED: dict[str, type] = {"numeric": Fine, "categorical": Bins}
_VALUE, _LOWER, _UPPER, _NOISE, _REFERENCE = range(5)
_CHAMPION = "whose champion is named by Monitor(champion=...)"
_DELAYED = "labels that come later; the schema must name `prediction_id`, `timestamp` and `label`"
_JOINED_BY = {
    Maturity: _DELAYED,
    LabelDelays: _DELAYED,
    PairedDecisions: f"pairs of decisions: for a classification {_CHAMPION}",
    PairedValues: f"pairs of values: for a regression {_CHAMPION}",
}

Inputs: TypeAlias = dict[type, Any]  # input type -> the input, arrays [C, R, ...] or [C, 1, ...]


@dataclass(frozen=True, slots=True)
class Keys:
    """Which window, version and segment each of the R rows of the sums belongs to."""

    window_start: IntArray | None  # [R], microseconds since 1970, UTC
    window_end: IntArray | None
    version: npt.NDArray[np.int32]  # [R], index into `versions`
    versions: tuple[str, ...]
    segment: npt.NDArray[np.int32]  # [R], index into `segments`
    segments: tuple[str, ...]
    is_kept: npt.NDArray[np.bool_] | None = None  # [R], False: not kept as finely as was asked


class Sums(Protocol):
    """The sums of R cells, as the metrics ask for them.

    Arrays may have a single row that serves all R, which saves the work of repeating a reference.
    """

    def bins(self, column: str) -> IntArray:
        """Coarse bins, [R, B]; the last one counts missing values."""

    def fine(self, column: str) -> Fine:
        """Fine bins, counts [R, F] and edges [F + 1]; numeric columns and timestamps only."""

    def column_counts(self, column: str) -> ColumnCounts:
        """Count what the values were, [R] each."""

    def traffic(self) -> Traffic:
        """Count what arrived, [R] each."""

    def outcomes(self) -> Outcomes | None:
        """Labelled rows, [R, ...] each; None for a model without a task."""

    def estimates(self) -> Estimates | None:
        """What predictions are expected to turn out as, [R, ...] each; None where nothing says."""

    def joined(self) -> Inputs:
        """What is known because predictions and labels have ids, [R, ...] each, by type."""

    def samples(self) -> RowSamples:
        """Sampled rows, [R]; asked for only by metrics that need them."""

    def label_share(self) -> FloatArray:
        """Share of the predictions whose label has arrived, [R]."""


class Past(NamedTuple):
    """How estimates of a metric came out in earlier windows, [R] each; see `metrics.estimated`."""

    past_windows: IntArray
    past_squared: FloatArray
    past_absolute: FloatArray
    live_windows: IntArray  # of these, the windows of the traffic: no estimator was fitted on them
    live_squared: FloatArray
    live_absolute: FloatArray

    def live(self, cells: slice) -> FloatArray:
        """Mean absolute error in windows of the traffic and its standard error, [2, 1, cells].

        NaN where too few are known.
        """
        windows = self.live_windows[None, cells]
        n = np.where(windows >= CHOSEN_FROM, windows, 0)
        mean = ratio(self.live_absolute[None, cells], n)
        spread = np.maximum(ratio(self.live_squared[None, cells], n) - mean**2, 0)
        return np.stack([mean, np.sqrt(ratio(spread, n))])

    def sums(self, cells: slice) -> dict[str, npt.NDArray[Any]]:
        """What estimates hold of it, for some cells of a model."""
        return {
            "past_windows": self.past_windows[None, cells],
            "past_squared": self.past_squared[None, cells],
            "past_absolute": self.past_absolute[None, cells],
        }


class Groups(NamedTuple):
    """The groups of an attribute: what labels say of them, and what they are expected to say."""

    outcomes: GroupOutcomes
    estimates: GroupEstimates | None
    past: Mapping[str, Past] = MappingProxyType({})  # by the label of an estimated metric

    @property
    def inputs(self) -> Inputs:
        """What metrics may ask for."""
        known: Inputs = {GroupOutcomes: self.outcomes, GroupDecisions: self.outcomes.decisions}
        return known | ({} if self.estimates is None else {GroupEstimates: self.estimates})


Backtest: TypeAlias = Callable[["_Asked"], Past | None]


class _Asked(NamedTuple):
    """A metric, and the form of it that serves the inputs at hand."""

    label: str
    form: Form
    options: dict[str, Any]
    tried: tuple[_Asked, ...] = ()  # what the best is chosen from, where there is a choice

    def compute(self, **inputs: Any) -> Result:
        """Call the function with the chosen options."""
        try:
            return self.form.function(**inputs, **self.options)
        except Exception as error:
            error.add_note(f"raised by metric {self.label!r}")
            raise

    def noise(self, **inputs: Any) -> FloatArray | float:
        """Value to expect without any change; NaN where the metric does not say."""
        return self.form.noise(**inputs, **self.options) if self.form.noise else np.nan


def _asked(metric: Metric, form: Form) -> _Asked:
    options = {name: value for name, value in metric.chosen.items() if name in form.options}
    tried = metric.tried(form.tasks[0]) if form.tasks else (metric,)
    return _Asked(
        metric.label,
        form,
        options,
        tuple(_asked(each, form) for each in tried) if len(tried) > 1 else (),
    )


class _Part(NamedTuple):
    """Inputs of one column, or of the whole model, arrays [R, ...] or [1, ...]."""

    column: str | None
    current: Inputs
    reference: Inputs


class _Block(NamedTuple):
    """Results of M metrics for C columns in R cells."""

    columns: tuple[str | None, ...]
    asked: tuple[_Asked, ...]
    values: FloatArray  # [5, C, M, R]: value, lower, upper, noise floor, reference value
    n: IntArray  # [2, C, M, R]: current, reference
    status: npt.NDArray[np.int8]  # [C, M, R]
    evidence: FloatArray  # [3, C, R] where columns are tested: statistic, size, p-value by rows


class _Piece(NamedTuple):
    """The part of a block that belongs to one column."""

    column: str | None
    asked: tuple[_Asked, ...]
    values: FloatArray  # [5, M, R]
    n: IntArray
    status: npt.NDArray[np.int8]


def evaluate(
    keys: Keys,
    current: Sums,
    reference: Sums,
    *,
    kinds: Mapping[str, str],
    task: str | None,
    model: str,
    metrics: Sequence[str | Metric] | None = None,
    features: Collection[str] | None = None,
    quiet: Callable[[str], Quiet] | None = None,
    alike: IntArray | None = None,
    backtest: Backtest | None = None,
) -> pa.Table:
    """Compute metrics from sums, as a tidy table: traffic, columns in their order, performance.

    Parameters
    ----------
    keys
        What the R rows of the sums stand for.
    current, reference
        Sums of the cells, and of the reference each is compared with, row by row; a reference row
        of zeros says there is none.
    kinds
        Columns to look at: name -> "numeric", "categorical", "timestamp" or "rule".
    task
        "binary", "multiclass", "regression", or None: no performance.
    model
        Name of the model, for the table.
    metrics
        Names, labels or `Metric` objects; unless given every metric that applies, but for those
        that need sampled rows.
    features
        Columns that metrics over all features are about; all unless given.
    quiet
        Gives a column's windows of the reference to hold its test against, [R] or [1]; where None,
        rows are taken for independent.
    alike
        Rows with the same number are compared with the same row of the reference, [R].
    backtest
        Gives the errors of an estimate in windows before each row; none are known where None.
    """
    asked = usual() if metrics is None else metrics
    chosen = [m if isinstance(m, Metric) else get(m) for m in asked]
    serving: dict[str | type | None, tuple[_Asked, ...]] = {
        target: tuple(_asked(m, form) for m in chosen if (form := m.form_for(target)))
        for target in dict.fromkeys((None, *kinds.values(), task))
    }
    joined = current.joined()
    serving |= {
        kind: tuple(
            _asked(m, form) for m in chosen if (form := m.form_for(JOINED)) and kind in form.needs
        )
        for kind in joined
    }
    if metrics:
        _check_served(chosen, serving)
    rows = keys.segment.size
    needed = {need for each in serving[None] for need in each.form.needs}
    traffic = _Part(None, *(_arrived(sums, needed) for sums in (current, reference)))
    by_label = serving[task] if task else ()
    outcomes = _Part(None, *(_of_model(sums, by_label) for sums in (current, reference)))
    if not any(type(each) in ESTIMATES.values() for each in outcomes.current.values()):
        if metrics and (unserved := [each.label for each in by_label if each.form.estimated]):
            raise ValueError(
                f"metric {unserved[0]!r} needs a reference that was fitted on scores with labels"
            )
        by_label = tuple(each for each in by_label if not each.form.estimated)
    tested = any(FeatureTests in asked.form.needs for asked in serving[None])
    blocks = list(_column_blocks(kinds, serving, current, reference, rows, tested=tested))
    columns = _pieces(blocks)
    if tested:
        asked_of = kinds if features is None else features
        traffic.current[FeatureTests] = _feature_tests(blocks, asked_of, quiet, rows)
    position: dict[str | None, int] = {column: place for place, column in enumerate(kinds)}
    pieces = [
        *_pieces(_model_blocks(traffic, serving[None], rows)),
        *sorted(columns, key=lambda piece: position[piece.column]),
        *_pieces(_model_blocks(outcomes, by_label, rows, alike, backtest)),
        *_pieces(
            _measured([_Part(None, {kind: each}, {})], serving[kind], rows)
            for kind, each in joined.items()
            if serving[kind]
        ),
    ]
    return _table(keys, pieces, current.label_share(), model)


def evaluate_groups(
    keys: Keys,
    current: Mapping[str, Groups],
    reference: Mapping[str, Groups],
    *,
    model: str,
    metrics: Sequence[Metric],
) -> pa.Table:
    """Compute fairness metrics of protected attributes, as a tidy table.

    Parameters
    ----------
    keys
        What the R rows of the counts stand for.
    current, reference
        Groups by attribute, [R, G] each; both sides name the same groups. The column of a metric is
        the attribute, or the group where a metric has a value for each.
    model
        Name of the model, for the table.
    metrics
        Metrics to compute; those that are not about groups are left out.
    """
    asked = tuple(_asked(m, form) for m in metrics if (form := m.form_for(PROTECTED)))
    blocks = [
        block
        for name, groups in current.items()
        for block in _group_blocks(name, groups, reference[name], asked)
    ]
    known = next(iter(current.values())).outcomes
    return _table(keys, _pieces(blocks), ratio(known.n, known.predictions), model)


def _check_served(
    chosen: Sequence[Metric], serving: Mapping[str | type | None, tuple[_Asked, ...]]
) -> None:
    served = {asked.label for group in serving.values() for asked in group}
    for metric in chosen:
        if metric.label not in served:
            if JOINED in metric.forms[0].kinds:
                raise ValueError(f"metric {metric.name!r} is of {_JOINED_BY[metric.needs[0]]}")
            wanted = sorted({t for form in metric.forms for t in form.tasks or form.kinds})
            there = sorted(target for target in serving if isinstance(target, str))
            raise ValueError(
                f"metric {metric.name!r} is for {' or '.join(wanted)}; this model has only "
                f"{' and '.join(there) or 'traffic'}"
            )


# Inputs: fetched a column at a time, then stacked to [C, R, ...].


def _arrived(sums: Sums, needed: set[type]) -> Inputs:
    inputs: Inputs = {Traffic: sums.traffic()}
    if RowSamples in needed:
        inputs[RowSamples] = sums.samples()
    return inputs


def _of_model(sums: Sums, asked: tuple[_Asked, ...]) -> Inputs:
    """Outcomes and estimates, where a metric reads them."""
    outcomes = sums.outcomes() if asked else None
    estimates = sums.estimates() if any(each.form.estimated for each in asked) else None
    return {type(each): each for each in (outcomes, estimates) if each is not None}


def _of_column(sums: Sums, column: str, needed: frozenset[type]) -> Inputs:
    inputs: Inputs = {}
    if Bins in needed:
        inputs[Bins] = Bins(sums.bins(column))
    if Fine in needed:
        inputs[Fine] = sums.fine(column)
    if ColumnCounts in needed:
        inputs[ColumnCounts] = sums.column_counts(column)
    return inputs


def _stacked(inputs: Sequence[Inputs]) -> Inputs:
    """One set of inputs for many columns."""
    return {kind: _stack([each[kind] for each in inputs]) for kind in inputs[0]}


def _stack(parts: Sequence[Any]) -> Any:
    """One input of many columns: arrays [R, ...] become [C, R, ...], fine edges [C, 1, F + 1]."""
    first = parts[0]
    arrays = {}
    for name, array in _arrays(first):
        if name != "edges" and len(parts) == 1:
            arrays[name] = array[None]  # no copy of what a model alone has
        elif name != "edges":
            arrays[name] = np.stack([getattr(part, name) for part in parts])
        elif isinstance(first, Fine):
            arrays[name] = np.stack([part.edges for part in parts])[:, None]
        else:
            arrays[name] = array
    return replace(first, **arrays)


def _arrays(each: Any) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Fields that are arrays with at least one dimension."""
    for field in fields(each):
        value = getattr(each, field.name)
        if isinstance(value, np.ndarray) and value.ndim:
            yield field.name, value


def _in_cells(inputs: Inputs, cells: slice) -> Inputs:
    """Take the inputs of some cells; an array with a single row serves them all."""
    return {kind: _take(each, cells) for kind, each in inputs.items()}


def _take(each: Any, cells: slice | IntArray) -> Any:
    arrays = {
        name: array[:, cells]
        for name, array in _arrays(each)
        if name != "edges" and array.shape[1] > 1
    }
    return replace(each, **arrays)


def _shapes(inputs: Inputs) -> tuple[Any, ...]:
    return tuple(each.counts.shape for each in inputs.values() if hasattr(each, "counts"))


def _bytes(inputs: Inputs) -> int:
    """Size of the largest array."""
    return max(array.nbytes for each in inputs.values() for _, array in _arrays(each))


# Blocks: the metrics of some columns in all cells.


def _column_blocks(
    kinds: Mapping[str, str],
    serving: Mapping[str | type | None, tuple[_Asked, ...]],
    current: Sums,
    reference: Sums,
    rows: int,
    *,
    tested: bool,
) -> Iterator[_Block]:
    """Measure columns of one kind and shape together, as soon as they fill a block."""
    waiting: dict[Any, list[_Part]] = defaultdict(list)
    tests = _TESTED if tested else {}
    needs: dict[str, frozenset[type]] = {}
    for kind in set(kinds.values()):
        asked = {need for each in serving[kind] for need in each.form.needs}
        needs[kind] = frozenset(asked | {tests[kind]} if kind in tests else asked)
    for column, kind in kinds.items():
        if not needs[kind]:
            continue
        inputs = (_of_column(sums, column, needs[kind]) for sums in (current, reference))
        part = _Part(column, *inputs)
        group = waiting[kind, _shapes(part.current), _shapes(part.reference)]
        group.append(part)
        if len(group) * _bytes(part.current) >= BLOCK_BYTES:
            yield _measured(group, serving[kind], rows, tested=tests.get(kind))
            group.clear()
    for (kind, *_), group in waiting.items():
        if group:
            yield _measured(group, serving[kind], rows, tested=tests.get(kind))


def _feature_tests(
    blocks: Sequence[_Block],
    features: Collection[str],
    quiet: Callable[[str], Quiet] | None,
    rows: int,
) -> FeatureTests:
    """Tests of all features, [R, K]."""
    found = {
        column: block.evidence[:, c]
        for block in blocks
        if block.evidence.size
        for c, column in enumerate(block.columns)
        if column in features
    }
    if not found:
        return FeatureTests(*np.empty((2, rows, 0)))
    statistic, size, by_rows = np.stack(list(found.values()), axis=-1)
    if quiet is None:
        return FeatureTests(by_rows, np.full_like(by_rows, np.nan))
    beside = [quiet(column) for column in found if column is not None]
    parts = ([getattr(each, field.name) for each in beside] for field in fields(Quiet))
    together = Quiet(*(np.stack(part, axis=-1) for part in parts))
    return FeatureTests(by_rows, together.p_value(statistic, size))


def _model_blocks(
    part: _Part,
    asked: tuple[_Asked, ...],
    rows: int,
    alike: IntArray | None = None,
    backtest: Backtest | None = None,
) -> Iterator[_Block]:
    """Measure what has no column; results per class get "label=<class>" for a column."""
    whole = tuple(each for each in asked if not each.form.per_class)
    per_class = tuple(each for each in asked if each.form.per_class)
    if part.current and whole:
        yield _measured([part], whole, rows, alike=alike, backtest=backtest)
    if part.current and per_class:
        names = next(each.classes for each in part.current.values())
        classes = tuple(f"label={name}" for name in names)
        yield _measured([part], per_class, rows, columns=classes, alike=alike, backtest=backtest)


def _group_blocks(
    attribute: str, current: Groups, reference: Groups, asked: tuple[_Asked, ...]
) -> Iterator[_Block]:
    """Measure an attribute, then each of its groups under the name of the group."""
    if current.estimates is None:
        asked = tuple(each for each in asked if not each.form.estimated)
    whole = tuple(each for each in asked if not each.form.per_group)
    per_group = tuple(each for each in asked if each.form.per_group)
    part, rows = _Part(attribute, current.inputs, reference.inputs), len(current.outcomes.decided)
    if whole:
        known = current.past
        yield _measured([part], whole, rows, backtest=lambda each: known.get(each.label))
    if per_group:
        columns = (*current.outcomes.names, f"{attribute}={OTHER_GROUP}")
        yield _measured([part], per_group, rows, columns=columns)


def _measured(
    group: Sequence[_Part],
    asked: tuple[_Asked, ...],
    rows: int,
    *,
    columns: tuple[str | None, ...] = (),
    tested: type | None = None,
    alike: IntArray | None = None,
    backtest: Backtest | None = None,
) -> _Block:
    """Evaluate metrics for a group of columns, so many cells at a time that memory is bounded."""
    named = columns or tuple(part.column for part in group)
    shape = (len(named), len(asked), rows)
    block = _Block(
        columns=named,
        asked=asked,
        values=np.full((5, *shape), np.nan),
        n=np.zeros((2, *shape), dtype=np.int64),
        status=np.zeros(shape, dtype=np.int8),
        evidence=np.full((3 if tested else 0, len(named), rows), np.nan),
    )
    past = [_past_of(each, backtest) for each in asked]
    current = _stacked([part.current for part in group])
    reference = _stacked([part.reference for part in group])
    step = max(1, len(group) * BLOCK_BYTES * rows // max(_bytes(current), 1))
    with np.errstate(over="ignore", invalid="ignore"):  # values may reach the ends of the doubles
        for start in range(0, rows, step):
            cells = slice(start, start + step)
            sides = _in_cells(reference, cells), _in_cells(current, cells)
            near = None if alike is None else alike[cells]
            _fill(block, cells, *sides, past=past, alike=near)
            if tested:
                block.evidence[..., cells] = evidence(*(side[tested] for side in sides))
    return block


def _fill(
    block: _Block,
    cells: slice,
    reference: Inputs,
    current: Inputs,
    *,
    past: Sequence[Sequence[Past | None]],
    alike: IntArray | None = None,
) -> None:
    """Evaluate all metrics of a block in some of its cells."""
    otherwise = np.zeros(block.status[..., cells].shape, dtype=np.int8)
    sides = {"current": current, "reference": reference}
    for m, asked in enumerate(block.asked):
        form = asked.form
        place = _last_first if form.per_class or form.per_group else _as_is
        inputs = {side: _pick(sides[side], kinds) for side, kinds in form.inputs.items()}
        baseline = _pick(reference, form.inputs["current"])
        tried = [_with_past(inputs, each, cells) for each in past[m]]
        values, n = block.values[:, :, m, cells], block.n[:, :, m, cells]
        result = (asked.tried or (asked,))[0].compute(**tried[0])
        value = place(np.asarray(value_of(result)))
        if value.shape != values[_VALUE].shape:
            raise ValueError(
                f"metric {asked.label!r} gave an array of shape {value.shape} where "
                f"{values[_VALUE].shape} was wanted; it keeps every dimension but the last of its "
                "counts, which stand for columns and windows"
            )
        values[_VALUE] = value
        n[0] = place(result.n) if isinstance(result, PerGroup) else inputs["current"].n
        if limits := _interval(result, tried[0]["current"]):
            values[_LOWER] = np.clip(place(limits[0]), *form.bounds)
            values[_UPPER] = np.clip(place(limits[1]), *form.bounds)
        if baseline is not None:
            n[1] = baseline.n
        if "reference" in inputs or form.noise:
            values[_NOISE] = asked.noise(**tried[0])
        if asked.tried:
            otherwise[:, m] = _choose(
                values, asked, tried, [each and each.live(cells) for each in past[m]]
            )
        own = form.estimated or "reference" not in inputs
        if own and baseline is not None and form.scale == "rate":
            beside = {"reference": inputs["reference"]} if "reference" in inputs else {}
            usual = place(_usual(asked, baseline, alike, beside))
            values[_REFERENCE] = np.where(n[1] > 0, usual, np.nan)
    status = _status(block, cells, current)
    chosen = (status == _OK) & (otherwise > 0)
    block.status[..., cells] = np.where(chosen, _BY_OTHER - 1 + otherwise, status)


def _past_of(asked: _Asked, backtest: Backtest | None) -> list[Past | None]:
    """Earlier errors of a metric, or of each of its estimators."""
    each = asked.tried or (asked,)
    return [backtest(one) if backtest and one.form.estimated else None for one in each]


def _with_past(inputs: Mapping[str, Any], past: Past | None, cells: slice) -> dict[str, Any]:
    if past is None:
        return dict(inputs)
    return {**inputs, "current": replace(inputs["current"], **past.sums(cells))}


def _choose(
    values: FloatArray,
    asked: _Asked,
    tried: Sequence[Mapping[str, Any]],
    errors: Sequence[FloatArray | None],
) -> npt.NDArray[np.int8]:
    """Put the estimator that was off least in place of the first: its place among all, [1, R].

    `errors` are those in windows of the traffic. The first stays unless another was off by less
    than it by a standard error, and where fewer than CHOSEN_FROM windows are known.
    """
    chosen = np.zeros(values.shape[1:], dtype=np.int8)
    if errors[0] is None:
        return chosen
    least = errors[0][0] - errors[0][1]
    for place, (each, inputs, error) in enumerate(zip(asked.tried, tried, errors, strict=True)):
        if not place or error is None or not (better := error[0] < least).any():
            continue
        least = np.where(better, error[0], least)
        noise = np.asarray(each.noise(**inputs))
        result = each.compute(**inputs)
        limits = _interval(result, inputs["current"])
        assert limits is not None
        found = (value_of(result), *(np.clip(limit, *each.form.bounds) for limit in limits), noise)
        for row, own in zip((_VALUE, _LOWER, _UPPER, _NOISE), found, strict=True):
            values[row] = np.where(better, own, values[row])
        chosen[np.broadcast_to(better, chosen.shape)] = place
    return chosen


def _usual(
    asked: _Asked, baseline: Any, alike: IntArray | None, beside: Mapping[str, Any]
) -> FloatArray:
    """Value of the reference in each row; of rows that are alike only the first is worked out."""
    if alike is None:
        return np.asarray(value_of(asked.compute(**beside, current=baseline)))
    _, first, row = np.unique(alike, return_index=True, return_inverse=True)
    inputs = {name: _take(each, first) for name, each in {**beside, "current": baseline}.items()}
    value = np.asarray(value_of(asked.compute(**inputs)))
    return value[:, row] if value.shape[1] > 1 else value


def _pick(inputs: Inputs, kinds: tuple[type, ...]) -> Any:
    """Choose the input that is of an accepted type."""
    return next((inputs[kind] for kind in kinds if kind in inputs), None)


def _as_is(array: FloatArray) -> FloatArray:
    return array


def _last_first(array: FloatArray) -> FloatArray:
    """Put classes or groups in the place of columns: [1, R, K] -> [K, R]."""
    return np.moveaxis(array, -1, 0)[:, 0]


def _interval(result: Result, inputs: Any) -> tuple[FloatArray, FloatArray] | None:
    rows_per_count = getattr(inputs, "rows_per_count", np.ones(1))
    if isinstance(result, PerClass | PerGroup):
        result, rows_per_count = result.result, rows_per_count[..., None]
    return None if isinstance(result, np.ndarray) else result.interval(rows_per_count)


def _status(block: _Block, cells: slice, current: Inputs) -> npt.NDArray[np.int8]:
    """Say why a value is undefined: [C, M, R]."""
    predictions = next(
        (each.predictions for each in current.values() if hasattr(each, "predictions")), None
    )
    waiting = False if predictions is None else (predictions > 0)[:, None]
    compared = np.array(["reference" in each.form.inputs for each in block.asked], dtype=bool)[
        :, None
    ]
    labelled = np.array([each.form.label_based for each in block.asked], dtype=bool)[:, None]
    n, n_reference = block.n[..., cells]
    reasons = {
        _OK: ~np.isnan(block.values[_VALUE, ..., cells]),
        _NO_LABELS: (n == 0) & waiting & labelled,
        _NO_DATA: n == 0,
        _NO_REFERENCE: compared & (n_reference == 0),
    }
    return np.select(list(reasons.values()), list(reasons), _UNDEFINED).astype(np.int8)


# The table.


def _pieces(blocks: Iterable[_Block]) -> list[_Piece]:
    return [
        _Piece(column, block.asked, block.values[:, c], block.n[:, c], block.status[c])
        for block in blocks
        for c, column in enumerate(block.columns)
    ]


def _table(keys: Keys, pieces: Sequence[_Piece], label_share: FloatArray, model: str) -> pa.Table:
    rows = keys.segment.size
    series = [(piece.column, each) for piece in pieces for each in piece.asked]
    row = np.tile(np.arange(rows), len(series))
    values = np.concatenate([np.empty((5, 0)), *(p.values.reshape(5, -1) for p in pieces)], axis=1)
    n = np.concatenate([np.empty((2, 0), int), *(p.n.reshape(2, -1) for p in pieces)], axis=1)
    status = np.concatenate([np.empty(0, int), *(p.status.ravel() for p in pieces)])
    if keys.is_kept is not None and not keys.is_kept.all():
        lost = ~keys.is_kept[row]
        values[:, lost], status[lost] = np.nan, _NOT_KEPT
    with_share = [each.form.label_based or each.form.estimated for _, each in series]
    labelled = np.repeat(with_share, rows)
    data = {
        "model": words(np.zeros(row.size, dtype=np.int32), (model,)),
        "version": words(keys.version[row], keys.versions),
        "window_start": instants(keys.window_start, row),
        "window_end": instants(keys.window_end, row),
        "segment": words(keys.segment[row], keys.segments),
        "column": _coded([column for column, _ in series], rows),
        "metric": _coded([each.label for _, each in series], rows),
        "value": _numbers(values[_VALUE]),
        "lower": _numbers(values[_LOWER]),
        "upper": _numbers(values[_UPPER]),
        "noise_floor": _numbers(values[_NOISE]),
        "reference_value": _numbers(values[_REFERENCE]),
        "n": pa.array(n[0]),
        "n_reference": pa.array(n[1]),
        "label_share": _numbers(np.where(labelled, label_share[row], np.nan)),
        "status": words(status, STATUSES),
    }
    return pa.table(data, schema=METRIC_TABLE)


def _numbers(values: FloatArray) -> pa.Array:
    """Numbers, null where they are NaN."""
    return pa.array(values, from_pandas=True)


def words(codes: npt.NDArray[Any], known: Sequence[str | None]) -> pa.Array:
    """Words by their codes, null where the code is negative."""
    indices = pa.array(codes.astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(known, pa.string()))


def _coded(named: Sequence[str | None], repeats: int) -> pa.Array:
    """Words, each repeated, as a dictionary array."""
    distinct = [word for word in dict.fromkeys(named) if word is not None]
    code = {word: place for place, word in enumerate(distinct)} | {None: -1}
    return words(np.repeat([code[word] for word in named], repeats), distinct)


def instants(microseconds: IntArray | None, row: IntArray) -> pa.Array:
    """Points in time of some rows, null where there is no time."""
    if microseconds is None:
        return pa.nulls(row.size, METRIC_TABLE.field("window_start").type)
    return pa.array(microseconds[row].view("datetime64[us]")).cast(
        METRIC_TABLE.field("window_start").type
    )
