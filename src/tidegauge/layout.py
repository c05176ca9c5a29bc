"""Where each column's counts stand in a row of the matrix of sums."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tidegauge._core import (
    DELAY_BINS,
    SPECIALS,
    Batch,
    NumericBins,
    SchemaError,
    Vocabulary,
)
from tidegauge.calibration import Calibrator, fit_calibrators
from tidegauge.column import RULE_TEXTS, Column
from tidegauge.derived import ArrayFunction, Derivation, derive, fit_derivations, refuse
from tidegauge.event_model import EventModel
from tidegauge.grid import LARGEST, FloatArray, Grid, fit_grid, score_grid
from tidegauge.ingest import first_texts, numbers_of, read_predictions, tiles
from tidegauge.schema import Schema

IntArray = NDArray[np.int64]
Estimator: TypeAlias = Literal["scores", "features"]

MISSING, NAN, SENTINEL, INVALID, ABSENT = range(SPECIALS)
TRAFFIC_SLOTS = ("rows", "duplicates", "new_columns", "labelled", "unscored", "pooled", "paired")
LOSS_SUMS = ("log_loss", "log_loss_squared", "brier", "brier_squared")
TENTHS = 10
EXPECTED_LOSSES = ("log_loss", "brier", "labelled_log_loss", "labelled_brier")
REGRESSION_SUMS = (
    "error",
    "absolute",
    "squared",
    "quartic",
    "label",
    "label_squared",
    "absolute_label",
    "percentage",
    "log_squared",
    "symmetric",
    "count",
)
PAIR_SUMS = ("loss", "loss_squared", "other", "other_squared")
PAIR_SLOTS = 4  # right are neither, the challenger, the champion, both
WEIGHT_UNITS = 1 << 20
EXPECTED_SUMS = (
    "rows",
    "absolute",
    "squared",
    "labelled",
    "labelled_absolute",
    "labelled_squared",
    "known_absolute",
    "known_squared",
    "off_absolute",
    "off_squared",
)
MAX_CATEGORIES = 10_000
MAX_CLASSES = 250


@dataclass(frozen=True)
class CountedColumn:
    """One column, its bins and its block of counts.

    Numeric and timestamp columns have a `grid`, categorical ones `categories`, which may grow at
    their end while a reference is fitted.
    """

    name: str
    column: Column
    block: int
    grid: Grid | None = None
    categories: Vocabulary | None = None

    @cached_property
    def bins(self) -> NumericBins | None:
        """Compiled bins of a numeric column."""
        if self.grid is None:
            return None
        return self.grid.bins(tuple(float(value) for value in self.column.missing))

    @cached_property
    def sentinels(self) -> Vocabulary:
        """Texts that mean missing."""
        return Vocabulary([str(value) for value in self.column.missing], MAX_CATEGORIES)

    @property
    def n_slots(self) -> int:
        """Width of the block."""
        if self.bins is not None:
            return self.bins.n_slots
        assert self.categories is not None
        return SPECIALS + 1 + len(self.categories)

    @property
    def task(self) -> tuple[Any, ...]:
        """What the core needs to count the column."""
        if self.bins is not None:
            content = "times" if self.column.kind == "timestamp" else "numbers"
            return (content, self.name, self.block, self.bins)
        return ("categories", self.name, self.block, self.categories, self.sentinels)

    @cached_property
    def lower_edges(self) -> FloatArray:
        """Smallest value of each ordered bin; the first bin holds -inf, the last +inf."""
        assert self.bins is not None
        return self.bins.lower_edges()

    @cached_property
    def reachable(self) -> NDArray[np.bool_]:
        """Ordered finite bins that some value falls into, [n_bins - 2]."""
        edges = self.lower_edges
        reachable: NDArray[np.bool_] = edges[1:-1] < edges[2:]
        return reachable

    @cached_property
    def fine_map(self) -> tuple[NDArray[np.int32], FloatArray]:
        """Slot to finite fine bin (the last takes the rest), and the edges of these bins."""
        starts = self.reachable.copy()
        if self.holds_integers:  # a limit may split the bin of a number; here it is one again
            lower = self.lower_edges[1:-1]
            starts[1:] &= np.round(lower[1:]) != np.round(lower[:-1])
        n_fine = int(starts.sum())
        slots = np.full(self.n_slots, n_fine, dtype=np.int32)
        slots[SPECIALS + 1 : -1] = np.maximum(np.cumsum(starts) - 1, 0)
        edges = np.append(self.lower_edges[1:-1][starts], LARGEST)
        return slots, edges

    @property
    def holds_integers(self) -> bool:
        """Whether bins of width one begin at whole numbers."""
        grid = self.grid
        return grid is not None and (grid.kind, grid.scale) == ("linear", 1.0)

    @cached_property
    def outside(self) -> tuple[slice, slice]:
        """Slots of finite values below and above the limits."""
        assert self.grid is not None
        assert self.bins is not None
        low, high = self.grid.limits
        ends = self.bins.encode(np.array([low, math.nextafter(high, math.inf)]))
        return slice(SPECIALS + 1, int(ends[0])), slice(int(ends[1]), self.n_slots - 1)


@dataclass(frozen=True)
class Layout:
    """The blocks of a row: columns, traffic, what the task's outcomes need, what estimates need.

    `classes` are those of a multiclass task; `label_center` is subtracted from the labels of a
    regression before they are squared; `calibrators`, of the score or of each class's, are what
    performance is estimated by, none where the reference has no labels; `event_model` says more
    of a row than its scores, where one was asked for.
    """

    schema: Schema
    columns: dict[str, CountedColumn]
    n_bins: int
    classes: tuple[str, ...] = ()
    label: CountedColumn | None = None
    label_center: float = 0.0
    calibrators: tuple[Calibrator, ...] = ()
    event_model: EventModel | None = None

    @property
    def derivations(self) -> dict[str, Derivation]:
        """What makes the derived columns out of a batch."""
        return self.schema.derivations

    @cached_property
    def derived(self) -> tuple[CountedColumn, ...]:
        """Columns that derivations make."""
        makers = self.schema.makers
        return tuple(counted for name, counted in self.columns.items() if name in makers)

    @cached_property
    def given(self) -> tuple[CountedColumn, ...]:
        """Columns that a batch brings itself."""
        makers = self.schema.makers
        return tuple(counted for name, counted in self.columns.items() if name not in makers)

    @property
    def traffic_block(self) -> int:
        """Block of TRAFFIC_SLOTS."""
        return len(self.columns)

    @property
    def outcome_block(self) -> int:
        """First block of outcomes."""
        return len(self.columns) + 1

    @cached_property
    def score_edges(self) -> FloatArray:
        """Inner edges of the score bins; none where the model gives no scores."""
        if self.schema.task == "regression" or not self.schema.score_columns:
            return np.empty(0)
        grid = self.columns[self.schema.score_columns[0]].grid
        assert grid is not None
        cuts = np.array(grid.cuts)  # as stored: another machine may round a logit differently
        return cuts[(cuts > 0) & (cuts <= 1)]

    @property
    def n_score_bins(self) -> int:
        """Bins of a score."""
        return len(self.score_edges) + 1

    @property
    def n_slots(self) -> list[int]:
        """Width of every block."""
        widths = [column.n_slots for column in self.columns.values()] + [len(TRAFFIC_SLOTS)]
        if self.schema.task == "binary":
            widths.append(4 * self.n_score_bins)
        if self.schema.task == "multiclass":
            n = len(self.classes)
            widths += [n * n, n, 2 * TENTHS, *([2 * self.n_score_bins] * n)]
        if self.label is not None:
            widths.append(self.label.n_slots)
        if self.schema.task is not None:
            widths += [DELAY_BINS, PAIR_SLOTS]
        return widths + self._estimate_slots

    @property
    def estimate_block(self) -> int:
        """First block of estimates."""
        return len(self.n_slots) - len(self._estimate_slots)

    @property
    def _estimate_slots(self) -> list[int]:
        """Widths of the blocks that csrc/estimate/estimates.hpp fills."""
        if not self.calibrators:
            return []
        n, bins = len(self.classes), self.n_score_bins
        if self.schema.task == "binary":
            return [*([2 * bins] * 3), len(EXPECTED_LOSSES)]
        return [n * n, n * n, len(EXPECTED_LOSSES), *([bins, bins] * n)]

    @property
    def delay_block(self) -> int:
        """Block of the delays of labels; that of pairs of versions follows."""
        return self.estimate_block - 2

    @property
    def n_sums(self) -> int:
        """Exact sums of a cell."""
        if self.schema.task is None:
            return 0
        if self.schema.task == "regression":
            expected = len(EXPECTED_SUMS) if self.event_model else 0
            return len(REGRESSION_SUMS) + len(PAIR_SUMS) + expected
        return len(LOSS_SUMS) + TENTHS + len(PAIR_SUMS)

    @property
    def n_values(self) -> int:
        """Scores or values kept with a prediction that waits for its label."""
        return self.n_scores + (self.event_model.n_values if self.event_model else 0)

    @property
    def n_scores(self) -> int:
        """Scores or values that a batch brings of each row."""
        return max(1, len(self.schema.score_columns))

    @property
    def estimates(self) -> bool:
        """Whether performance is estimated."""
        return bool(self.calibrators) or self.event_model is not None

    @property
    def outcome_blocks(self) -> dict[str, Any]:
        """What the core needs to count outcomes."""
        return {
            "traffic": self.traffic_block,
            "delays": self.delay_block,
            "pairs": self.delay_block + 1,
            "first": self.outcome_block,
            "pair_sum": self.n_sums - len(PAIR_SUMS),
            "n_classes": len(self.classes),
            "score_edges": self.score_edges,
            "label_center": self.label_center,
            "label_bins": None if self.label is None else self.label.bins,
        }

    @cached_property
    def estimate_blocks(self) -> dict[str, Any]:
        """What the core needs to count estimates."""
        return {
            "task": self.schema.task,
            "traffic": self.traffic_block,
            "first": self.estimate_block if self.calibrators else len(REGRESSION_SUMS),
            "n_classes": len(self.classes),
            "source": 1 if self.event_model else 0,
            "score_edges": self.score_edges,
            "calibrators": [(each.scores, each.chances) for each in self.calibrators],
        }

    def accepts(self, decisions: NDArray[np.int32], *labels: FloatArray) -> bool:
        """Whether stored decisions and labels are ones that the outcome blocks have slots for."""
        if self.schema.task in (None, "regression"):
            return True
        n = len(self.classes) or 2
        known = [np.isnan(each) | ((each >= 0) & (each < n) & (each % 1 == 0)) for each in labels]
        return bool(((decisions >= -1) & (decisions < n)).all()) and all(k.all() for k in known)

    def to_dict(self) -> dict[str, Any]:
        """Return the layout as JSON-ready values."""
        return {
            "schema": self.schema.to_toml(),
            "learned": {name: each.learned() for name, each in self.derivations.items()},
            "n_bins": self.n_bins,
            "classes": list(self.classes),
            "label_center": self.label_center,
            "label_grid": self.label.grid.to_dict() if self.label and self.label.grid else None,
            "calibrators": [each.to_dict() for each in self.calibrators],
            "event_model": self.event_model.to_dict() if self.event_model else None,
            "columns": {
                name: {
                    "grid": counted.grid.to_dict() if counted.grid else None,
                    "categories": counted.categories.texts if counted.categories else None,
                }
                for name, counted in self.columns.items()
            },
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], functions: Mapping[str, ArrayFunction]) -> Layout:
        """Read a layout back, with the functions that its features are derived by."""
        schema = Schema.from_toml(stored["schema"], derived=functions)
        schema = schema.with_derivations(
            {
                name: each.with_learned(stored["learned"][name])
                for name, each in schema.derivations.items()
            }
        )
        declared = counted_columns(schema)
        columns = {}
        for block, (name, parts) in enumerate(stored["columns"].items()):
            grid = Grid.from_dict(parts["grid"]) if parts["grid"] else None
            texts = parts["categories"]
            categories = Vocabulary(texts, MAX_CATEGORIES) if texts is not None else None
            columns[name] = CountedColumn(name, declared[name], block, grid, categories)
        layout = cls(
            schema,
            columns,
            stored["n_bins"],
            tuple(stored["classes"]),
            label_center=stored["label_center"],
            calibrators=tuple(Calibrator.from_dict(each) for each in stored["calibrators"]),
            event_model=stored["event_model"] and EventModel.from_dict(stored["event_model"]),
        )
        if stored["label_grid"]:
            layout = _with_label(layout, Grid.from_dict(stored["label_grid"]))
        return layout


def counted_columns(schema: Schema) -> dict[str, Column]:
    """Every column with counts of its own: features, then scores and predictions."""
    features = schema.counted_features
    columns = {name: column or Column("numeric") for name, column in features.items()}
    for name in schema.score_columns:
        columns[name] = Column("numeric", limits=(0.0, 1.0))
    if schema.prediction is not None:
        kind = "numeric" if schema.task == "regression" else "categorical"
        columns[schema.prediction] = Column(kind)  # type: ignore[arg-type]
    return columns


def fit_layout(
    batches: Sequence[Batch], schema: Schema, n_bins: int, estimator: Estimator = "scores"
) -> Layout:
    """Choose bins, and what estimates are made by, from the first rows of a reference."""
    schema = schema.with_kinds(batches)
    schema = schema.with_derivations(fit_derivations(schema.derivations, batches))
    columns: dict[str, CountedColumn] = {}
    for block, (name, column, source) in enumerate(_sources(schema, batches)):
        if column.kind in ("categorical", "rule"):
            texts = column.categories
            if texts is None:
                texts = tuple(_categories(source, name, column))
            columns[name] = CountedColumn(
                name, column, block, categories=Vocabulary(list(texts), MAX_CATEGORIES)
            )
        elif name in schema.score_columns:
            columns[name] = CountedColumn(
                name, column, block, score_grid(schema.threshold, numbers_of(source, name))
            )
        else:
            values = numbers_of(source, name, times=column.kind == "timestamp")
            columns[name] = CountedColumn(name, column, block, _grid(name, values, column, n_bins))
    layout = Layout(schema, columns, n_bins)
    if schema.task == "multiclass":
        layout = replace(layout, classes=_classes(batches, schema))
    if schema.task == "regression":
        label = schema.label
        values = numbers_of(batches, label) if label is not None else np.empty(0)
        values = values[np.isfinite(values)]
        layout = replace(layout, label_center=float(values.mean()) if len(values) else 0.0)
        layout = _with_label(layout, fit_grid(values, Column("numeric"), n_bins))
    return _with_estimator(batches, layout, estimator)


def _with_estimator(batches: Sequence[Batch], layout: Layout, estimator: Estimator) -> Layout:
    """Fit what estimates are made by on the labelled rows among the first."""
    task = layout.schema.task
    wanted = estimator == "features"
    if wanted and task not in ("binary", "regression"):
        raise SchemaError(f'estimator="features" is for binary and regression tasks, not {task}')
    scored = task == "regression" or bool(layout.schema.score_columns)
    if task is None or layout.schema.label is None or not scored:
        if wanted:
            raise SchemaError('estimator="features" wants a label and, if binary, a score')
        return layout
    spans, labels, values = [], [np.empty(0)], [np.empty((0, layout.n_scores))]
    for batch in batches:
        for start, stop in tiles(batch):
            rows = read_predictions(batch, layout, start, stop, secret=None, timestamp=None)
            if rows.labels is not None:
                spans.append((batch, start, stop))
                labels.append(rows.labels)
                values.append(rows.values.reshape(stop - start, layout.n_scores))
    truth, each = np.concatenate(labels), np.concatenate(values)
    if wanted:
        columns = {
            counted.name: counted
            for counted in layout.given
            if counted.name in layout.schema.counted_features
        }
        model = EventModel.fit(task, columns, spans, each[:, 0].copy(), truth)
        if model is not None:
            identity = (Calibrator.identity(),) if task == "binary" else ()
            return replace(layout, event_model=model, calibrators=identity)
    if task == "regression":
        return layout
    return replace(layout, calibrators=fit_calibrators(truth, list(each.T), len(layout.classes)))


def _sources(
    schema: Schema, batches: Sequence[Batch]
) -> Iterator[tuple[str, Column, Sequence[Batch]]]:
    """Every counted column with the batches that hold it; derived ones are made one at a time."""
    makers = schema.makers
    made: tuple[str | None, Sequence[Batch]] = (None, batches)
    for output, column in counted_columns(schema).items():
        name = makers.get(output)
        if name != made[0]:
            made = (name, batches if name is None else _derived(schema, name, batches))
        yield output, column, made[1]


def _derived(schema: Schema, name: str, batches: Sequence[Batch]) -> list[Batch]:
    chosen = {name: schema.derivations[name]}
    pieces = ((batch, *tile) for batch in batches for tile in tiles(batch))
    return [derive(chosen, *piece, failed=refuse) for piece in pieces]


def _grid(name: str, values: FloatArray, column: Column, n_bins: int) -> Grid:
    try:
        return fit_grid(values, column, n_bins)
    except SchemaError as error:
        raise SchemaError(f"column {name!r}: {error}") from None


def _with_label(layout: Layout, grid: Grid) -> Layout:
    name = layout.schema.label or "label"
    label = CountedColumn(name, Column("numeric"), layout.outcome_block, grid)
    return replace(layout, label=label)


def _categories(batches: Sequence[Batch], name: str, column: Column) -> list[str]:
    if column.kind == "rule":
        return list(RULE_TEXTS)
    texts = first_texts(batches, name, MAX_CATEGORIES)
    return [text for text in sorted(texts) if text not in set(map(str, column.missing))]


def _classes(batches: Sequence[Batch], schema: Schema) -> tuple[str, ...]:
    if isinstance(schema.prediction_score, Mapping):
        classes = tuple(schema.prediction_score)
    else:
        named = [name for name in (schema.label, schema.prediction) if name is not None]
        found = [first_texts(batches, name, MAX_CLASSES + 1) for name in named]
        classes = tuple(sorted({text for texts in found for text in texts}))
    if len(classes) > MAX_CLASSES:
        raise SchemaError(f"more than {MAX_CLASSES} classes; group the rare ones")
    return classes
