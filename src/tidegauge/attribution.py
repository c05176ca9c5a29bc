"""What the features of a model do in windows of traffic: how much they matter, and how that drifts.

Computed from sampled rows and the model function. Rows of a window meet rows of the reference, so
all values say what a feature adds to the predictions for the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidegauge._core import DataError
from tidegauge.comparison import Comparison, Sampled
from tidegauge.explain.exchange import (
    FRAMES,
    Exchange,
    Exchanger,
    Pool,
)
from tidegauge.explain.kernel import ModelError
from tidegauge.explain.models import as_function
from tidegauge.explain.players import players_of
from tidegauge.metrics.results import Z
from tidegauge.sample import united
from tidegauge.schema import Schema
from tidegauge.values import METRIC_TABLE

__all__ = ["Importance", "Model", "ndcg"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MAX_ROWS = 1_000  # of either side
DRIFT = "jensen_shannon_distance"  # of the columns, in the list of causes
RELABELLINGS = 50  # from which the noise floors are
EXPLAIN_STREAM, REFERENCE_STREAM, RELABEL_STREAM = 1, 2, 3


# -- the model ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A model as it is asked about sampled rows.

    Parameters
    ----------
    function
        What `KernelExplainer` takes: a function of rows, an object that predicts, an ONNX file.
    columns
        Columns that it is handed, in order.
    groups
        Name of a group to the columns that are one player.
    frame
        "numpy", "pandas", "polars" or "arrow": what it is handed.
    output
        Which of its outputs is explained.

    >>> Model.of(lambda x: x[:, 0], Schema(features=["x"])).columns
    ('x',)
    """

    function: Callable[[Any], Any]
    columns: tuple[str, ...]
    groups: Mapping[str, Sequence[str]] | None = None
    frame: str = "numpy"
    output: int | None = None

    @classmethod
    def of(
        cls,
        model: Any,
        schema: Schema,
        *,
        features: Sequence[str] | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        frame: Literal["numpy", "pandas", "polars", "arrow"] | None = None,
        output: int | None = None,
    ) -> Model:
        """Take what the schema says for what is not given."""
        known = schema.declared
        columns = tuple(known) if features is None else tuple(features)
        for name in columns:
            if name not in schema.columns:
                raise ValueError(f"unknown feature {name!r}; there are: {', '.join(known)}")
        if not columns:
            raise ValueError("the schema has no features; name them by features=[...]")
        if frame is None:
            kinds = [known[name] for name in columns if name in known]
            numbers = len(kinds) == len(columns) and all(
                kind is None or kind.kind == "numeric" for kind in kinds
            )
            frame = "numpy" if numbers else "pandas"
        if frame not in ("numpy", *FRAMES):
            raise ValueError(f"frame {frame!r} is unknown; allowed: numpy, {', '.join(FRAMES)}")
        return cls(as_function(model), columns, groups, frame, output)

    @property
    def players(self) -> tuple[tuple[str, ...], IntArray]:
        """Names of the players, and the player of each column."""
        players = players_of(self.columns, self.groups)
        owner = np.zeros(len(self.columns), np.int64)
        for place, player in enumerate(players):
            owner[list(player.columns)] = place
        return tuple(player.name for player in players), owner

    def answer(self, rows: Any) -> FloatArray:
        """Ask the model: [n, outputs]."""
        n = len(rows) if not isinstance(rows, pa.Table) else rows.num_rows
        try:
            found = np.asarray(self.function(rows))
        except Exception as error:
            raise ModelError(f"the model failed on {n} rows: {error}", (0, n), None) from error
        if found.ndim not in (1, 2) or len(found) != n:
            raise ValueError(
                f"the model gave shape {found.shape} for {n} rows; ({n},) or ({n}, outputs) is "
                "wanted"
            )
        if found.dtype.kind not in "biuf":
            raise TypeError(f"the model gave {found.dtype}, numbers are wanted")
        return found.reshape(n, -1).astype(np.float64)

    def chosen(self, answers: FloatArray) -> FloatArray:
        """The output that is explained, [n, 1]: the only one, or the second of two."""
        width = answers.shape[1]
        output = self.output
        if output is None and width > 2:
            raise ValueError(f"the model has {width} outputs; choose one by output=0..{width - 1}")
        if output is not None and not 0 <= output < width:
            raise ValueError(f"output {output} is not among the model's {width}")
        place = width - 1 if output is None else output
        return answers[:, place : place + 1]


@dataclass(frozen=True)
class Bench:
    """Rows of two samples in one pool, and what the model says of each."""

    model: Model
    exchanger: Exchanger
    labels: FloatArray  # [rows], NaN where not known
    rows: pa.Table
    places: tuple[list[IntArray], ...]  # [samples] of the rows of each window

    @classmethod
    def of(cls, samples: Sequence[Sampled], model: Model, seed: int) -> Bench:
        """Lay the rows that any window has below each other, sample by sample."""
        if not 0 <= seed < 1 << 32:
            raise ValueError(f"seed is a number from 0 to {(1 << 32) - 1}, got {seed}")
        tables, labels, places, n = [], [], [], 0
        for sample in samples:
            used = np.unique(np.concatenate([np.empty(0, np.int64), *sample.places]))
            tables.append(sample.drawn.rows.take(used))
            labels.append(sample.drawn.labels[used])
            places.append([np.searchsorted(used, each) + n for each in sample.places])
            n += len(used)
        rows = united(tables)
        for name in model.columns:
            if name not in rows.column_names:
                raise DataError(f"column {name!r} is in no sampled row; the model wants it")
        pool = Pool(rows, model.columns, model.frame)
        exchanger = Exchanger(model.answer, pool, model.players[1], seed)
        return cls(model, exchanger, np.concatenate(labels), rows, tuple(places))

    @property
    def answers(self) -> FloatArray:
        """What the model says of each row, [rows, outputs]."""
        return self.exchanger.answers

    def usable(self, sample: int, window: int) -> IntArray:
        """Rows of a window for which the model has an answer."""
        rows = self.places[sample][window]
        return rows[np.isfinite(self.answers[rows]).all(axis=1)]

    def n_designs(self, max_evaluations: int | None, fewest: int, usual: int) -> int:
        """How often every row can meet others."""
        own = max(self.exchanger.n_evaluations, 1)
        if max_evaluations is None:
            return usual
        if max_evaluations < fewest * own:
            raise ValueError(
                f"{max_evaluations:,} evaluations a row are too few for "
                f"{self.exchanger.n_players} features; at least {fewest * own:,} are needed"
            )
        return max_evaluations // own


def check_rows(max_rows: int) -> None:
    """Reject a number of rows that says nothing.

    >>> check_rows(1000)
    """
    if max_rows < 2:
        raise ValueError(f"max_rows is 2 at least, got {max_rows}")


# -- importance -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Importance:
    """What the features did in every window: values as a metric table, and a list of causes.

    Parameters
    ----------
    table
        As `METRIC_TABLE`. Of every feature `shap_importance`, the root of its mean squared SHAP
        value, in units of the prediction; `shap_mean`, the mean one: what the feature adds to the
        mean prediction beside the reference; `shap_kolmogorov_smirnov` and
        `shap_wasserstein_distance`, how far its values have moved from the reference's; and
        `drift_impact`. Of the model `attribution_ndcg`, how well the reference's ranking of the
        features still holds, 1 at best.
    causes
        One row per window, version, segment and feature, the likeliest cause of trouble first:
        `impact` is the feature's share of the importance times the drift of its column beyond the
        noise.

    >>> Importance(METRIC_TABLE.empty_table(), pa.table({"column": []}))
    no window has sampled rows
    """

    table: pa.Table
    causes: pa.Table

    def to_arrow(self) -> pa.Table:
        """Return the metric table."""
        return self.table

    def to_pandas(self) -> Any:
        """Return the metric table as a pandas data frame; needs `tidegauge[pandas]`."""
        return self.table.to_pandas()

    def __repr__(self) -> str:
        if not self.causes.num_rows:
            return "no window has sampled rows"
        last = self.causes.to_pylist()[-1]
        keys = ("version", "window_start", "segment")
        own = [row for row in self.causes.to_pylist() if all(row[k] == last[k] for k in keys)]
        start = last["window_start"]
        when = "all time" if start is None else f"from {start:%Y-%m-%d %H:%M}"
        lines = [f"{self.table['model'][0]}, {last['segment']}, {when}"]
        lines.append(f"{'feature':<28}{'importance':>12}{'mean':>12}{'drift':>9}{'impact':>9}")
        for row in own[:20]:
            numbers = (row[k] for k in ("importance", "mean", "drift", "impact"))
            cells = ["-" if x is None else f"{x:.3g}" for x in numbers]
            lines.append(
                f"{row['column'][:27]:<28}{cells[0]:>12}{cells[1]:>12}{cells[2]:>9}{cells[3]:>9}"
            )
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Own:
    """What one sample showed of the features."""

    exchange: Exchange
    importance: FloatArray  # [players]
    lower: FloatArray
    upper: FloatArray

    @classmethod
    def of(cls, exchange: Exchange) -> _Own:
        squares = [each[:, :, 0] for each in exchange.squares()]
        mean = exchange.mean(squares)
        half = Z * np.sqrt(exchange.influence(squares).variance)
        value, lower, upper = (np.sqrt(np.maximum(x, 0)) for x in (mean, mean - half, mean + half))
        return cls(exchange, value, lower, upper)


def explain_windows(
    comparison: Comparison,
    model: Model,
    drift: pa.Table,
    *,
    name: str,
    max_rows: int = MAX_ROWS,
    max_evaluations: int | None = None,
    seed: int = 0,
) -> Importance:
    """Importance of the features in each window of a comparison, beside the reference's."""
    check_rows(max_rows)
    samples = [comparison.sampled(of_reference=side) for side in (True, False)]
    bench = Bench.of(samples, model, seed)
    n_designs = bench.n_designs(max_evaluations, 2, 2)
    players = model.players[0]
    keys, found = comparison.keys, _Rows(name)
    moved = _drifts(drift)
    usual: dict[int, _Own] = {}

    def own(rows: IntArray, other: IntArray, stream: int) -> _Own:
        def observe(answers: FloatArray, _: IntArray) -> FloatArray:
            return model.chosen(answers)

        return _Own.of(
            bench.exchanger.exchange(rows, other, observe, n_designs=n_designs, stream=stream)
        )

    for row in range(len(keys.segment)):
        segment = int(keys.segment[row])
        before, after = (bench.usable(sample, row)[:max_rows] for sample in (0, 1))
        window = found.window(comparison, row, len(after), len(before))
        if window.status != "ok":
            window.add_nothing(players)
            continue
        if segment not in usual:
            usual[segment] = own(before, before, REFERENCE_STREAM)
        current = own(after, before, EXPLAIN_STREAM)
        _tell(window, players, current, usual[segment], seed)
        window.add_causes(players, current, usual[segment], moved)
    return Importance(found.table(), found.causes())


def _tell(window: _Window, players: tuple[str, ...], current: _Own, usual: _Own, seed: int) -> None:
    """Add the metrics of a window."""
    exchange = current.exchange
    values = [each[:, :, 0] for each in exchange.values]
    mean = exchange.mean(values)
    half = Z * np.sqrt(exchange.influence(values).variance)
    relabel = _Relabelled.of(usual.exchange, exchange, seed)
    largest, moved, floors = relabel.distances()
    kept, kept_floor = relabel.ranking(usual.importance, current.importance)
    for place, player in enumerate(players):
        window.add(
            "shap_importance",
            player,
            current.importance[place],
            limits=(current.lower[place], current.upper[place]),
            usual=usual.importance[place],
        )
        limits = (mean[place] - half[place], mean[place] + half[place])
        window.add("shap_mean", player, mean[place], limits=limits, usual=0.0)
        distances = (largest[place], moved[place])
        for metric, distance, floor in zip(DISTANCES, distances, floors[:, place], strict=True):
            window.add(metric, player, distance, floor=floor)
    window.add("attribution_ndcg", None, kept, floor=kept_floor, usual=1.0)


DISTANCES = ("shap_kolmogorov_smirnov", "shap_wasserstein_distance")
FEATURE_METRICS = ("shap_importance", "shap_mean", *DISTANCES)


@dataclass(frozen=True, slots=True)
class _Relabelled:
    """Statistics of two samples, and their means when rows change sides at random.

    With no change a row may as well have come from the other side: the mean over such exchanges is
    what noise alone makes of the statistic, at these sample sizes.
    """

    sides: FloatArray  # [1 + relabellings, rows] of -1/n for rows before, 1/n for rows after
    exchanges: tuple[Exchange, Exchange]

    @classmethod
    def of(cls, before: Exchange, after: Exchange, seed: int) -> _Relabelled:
        n, m = before.n_own, after.n_own
        signs = np.concatenate([np.full(n, -1 / n), np.full(m, 1 / m)])
        random = np.random.Generator(np.random.Philox(key=[seed, RELABEL_STREAM]))
        sides = [signs, *(random.permutation(signs) for _ in range(RELABELLINGS))]
        return cls(np.stack(sides), (before, after))

    def distances(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Kolmogorov-Smirnov and Wasserstein distance of each player, and both floors."""
        before, after = self.exchanges
        rows, shares, values = [], [], []
        for exchange, shift in ((before, 0), (after, before.n_own)):
            for meetings, value in zip(exchange.meetings, exchange.values, strict=True):
                rows.append(meetings.own + shift)
                shares.append(meetings.weights * exchange.n_own / len(exchange.values))
                values.append(value[:, :, 0])
        row, share = np.concatenate(rows), np.concatenate(shares)
        every = np.concatenate(values)
        every[np.abs(every) < 1e-9 * np.abs(every).max(initial=0)] = 0  # what rounding leaves
        found = np.empty((2, len(self.sides), every.shape[1]))
        for player, column in enumerate(every.T):
            order = np.argsort(column, kind="stable")
            gaps = np.diff(column[order])
            below = np.cumsum(self.sides[:, row[order]] * share[order], axis=1)
            apart = np.abs(below[:, :-1][:, gaps > 0])
            found[0, :, player] = apart.max(axis=1, initial=0)
            found[1, :, player] = apart @ gaps[gaps > 0]
        return found[0, 0], found[1, 0], found[:, 1:].mean(axis=1)

    def ranking(self, before: FloatArray, after: FloatArray) -> tuple[float, float]:
        """NDCG of the ranking after by the importance before, and its floor."""
        squares = []
        for exchange in self.exchanges:
            products = np.zeros((exchange.n_own, len(before)))
            for meetings, each in zip(exchange.meetings, exchange.squares(), strict=True):
                weights = exchange.n_own * meetings.weights[:, None] / len(exchange.meetings)
                np.add.at(products, meetings.own, weights * each[:, :, 0])
            squares.append(products)
        rows = np.concatenate(squares)
        noise = []
        for side in self.sides[1:]:
            sums = [
                np.sqrt(np.maximum(np.abs(side[chosen]) @ rows[chosen], 0))
                for chosen in (side < 0, side > 0)
            ]
            noise.append(ndcg(*sums))
        return ndcg(before, after), float(np.mean(noise))


def ndcg(relevance: FloatArray, scores: FloatArray) -> float:
    """How well a ranking by scores puts what is relevant first: 1 at best, NaN where nothing is.

    The sum of relevance over log2(1 + rank), as a share of that of the best ranking. Equal scores
    stand in the order given.

    >>> round(ndcg(np.array([3.0, 2.0, 1.0]), np.array([1.0, 2.0, 3.0])), 3)
    0.79
    """
    discounts = 1 / np.log2(np.arange(2, len(relevance) + 2))
    best = float(np.sort(relevance)[::-1] @ discounts)
    if best == 0:
        return float("nan")
    return float(relevance[np.argsort(-scores, kind="stable")] @ discounts) / best


def _drifts(table: pa.Table) -> dict[tuple[Any, ...], tuple[float | None, float | None]]:
    """Drift and noise floor of columns by window, version, segment and column."""
    return {
        (row["window_start"], row["version"], row["segment"], row["column"]): (
            row["value"],
            row["noise_floor"],
        )
        for row in table.to_pylist()
    }


class _Rows:
    """The metric table and the causes, while they grow."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.metrics: list[dict[str, Any]] = []
        self.ranked: list[dict[str, Any]] = []

    def window(self, comparison: Comparison, row: int, n: int, n_reference: int) -> _Window:
        keys = comparison.keys
        start, end = (
            None if each is None else int(each[row])
            for each in (keys.window_start, keys.window_end)
        )
        lost = keys.is_kept is not None and not keys.is_kept[row]
        status = (
            "not kept" if lost else "no data" if n == 0 else "ok" if n_reference else "no reference"
        )
        key = {
            "version": keys.versions[keys.version[row]],
            "window_start": start,
            "window_end": end,
            "segment": keys.segments[keys.segment[row]],
        }
        return _Window(self, key, n, n_reference, status)

    def table(self) -> pa.Table:
        return pa.Table.from_pylist(self.metrics, schema=METRIC_TABLE)

    def causes(self) -> pa.Table:
        return pa.Table.from_pylist(self.ranked, schema=CAUSES)


CAUSES = pa.schema(
    [
        *(METRIC_TABLE.field(name) for name in ("version", "window_start", "window_end")),
        METRIC_TABLE.field("segment"),
        ("rank", pa.int64()),
        METRIC_TABLE.field("column"),
        *((name, pa.float64()) for name in ("impact", "importance", "reference_importance")),
        *((name, pa.float64()) for name in ("mean", "drift", "drift_floor")),
    ]
)


@dataclass(frozen=True, slots=True)
class _Window:
    """Rows of the tables that belong to one window, version and segment."""

    rows: _Rows
    key: dict[str, Any]
    n: int
    n_reference: int
    status: str

    def add(
        self,
        metric: str,
        column: str | None,
        value: float,
        *,
        limits: tuple[float, float] = (np.nan, np.nan),
        floor: float = np.nan,
        usual: float = np.nan,
    ) -> None:
        numbers = {
            "value": value,
            "lower": limits[0],
            "upper": limits[1],
            "noise_floor": floor,
            "reference_value": usual,
        }
        undefined = self.status == "ok" and not np.isfinite(value)
        self.rows.metrics.append(
            {
                "model": self.rows.name,
                **self.key,
                "column": column,
                "metric": metric,
                **{k: float(x) if np.isfinite(x) else None for k, x in numbers.items()},
                "n": self.n,
                "n_reference": self.n_reference,
                "label_share": None,
                "status": "undefined" if undefined else self.status,
            }
        )

    def add_nothing(self, players: Sequence[str]) -> None:
        for player in players:
            for metric in (*FEATURE_METRICS, "drift_impact"):
                self.add(metric, player, np.nan)
        self.add("attribution_ndcg", None, np.nan)

    def add_causes(
        self,
        players: Sequence[str],
        current: _Own,
        usual: _Own,
        moved: Mapping[tuple[Any, ...], tuple[float | None, float | None]],
    ) -> None:
        """Rank the features by importance times drift."""
        shares = [each / max(each.sum(), 1e-300) for each in (current.importance, usual.importance)]
        share = np.maximum(*shares)
        mean = current.exchange.mean([each[:, :, 0] for each in current.exchange.values])
        start = self.key["window_start"]
        when = None if start is None else _instant(start)
        found: list[dict[str, Any]] = []
        for place, player in enumerate(players):
            key = (when, self.key["version"], self.key["segment"], player)
            drift, floor = moved.get(key, (None, None))
            beyond = None if drift is None else max(drift - (floor or 0.0), 0.0)
            impact = None if beyond is None else float(share[place]) * beyond
            self.add("drift_impact", player, np.nan if impact is None else impact)
            found.append(
                {
                    "column": player,
                    "impact": impact,
                    "importance": float(current.importance[place]),
                    "reference_importance": float(usual.importance[place]),
                    "mean": float(mean[place]),
                    "drift": drift,
                    "drift_floor": floor,
                }
            )
        found.sort(key=lambda cause: (-(cause["impact"] or 0.0), -cause["importance"]))
        for rank, cause in enumerate(found, 1):
            self.rows.ranked.append({**self.key, "rank": rank, **cause})


def _instant(microseconds: int) -> Any:
    return pa.scalar(microseconds, METRIC_TABLE.field("window_start").type).as_py()
