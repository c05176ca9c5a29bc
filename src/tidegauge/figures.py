"""Every picture, as a Plotly figure: the notebook, the report and the live page share them.

A picture shows bins and metric values as they are; it computes nothing on rows and judges nothing.
Plotly is the extra `tidegauge[plots]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidegauge import summary
from tidegauge.summary import FloatArray, Grid, Instants
from tidegauge.values import Distribution

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = [
    "contributions",
    "distribution",
    "drift_ranking",
    "metric_over_time",
    "missing_map",
    "performance",
]

REFERENCE, CURRENT, LIMIT = "#8d97a5", "#2f80d0", "#d9622b"
SERIES = (CURRENT, "#e39a2d", "#1f9e7a", "#c2619c", "#7d74d6", "#56b4e9")  # told apart by all eyes
NOISE = "rgba(141,151,165,0.22)"
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
SHORT = {
    "psi": "PSI",
    "jensen_shannon_distance": "JS",
    "kolmogorov_smirnov": "KS",
    "hellinger_distance": "Hellinger",
    "roc_auc": "ROC AUC",
    "f1": "F1",
    "macro_f1": "macro F1",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
}
CUSTOMARY = {"psi": (0.1, 0.2)}  # the common reading of the field, drawn where none is given
MANY = 90  # windows from which points are drawn as a bare line


def _template(ink: str, quiet: str, line: str, paper: str, low: str) -> dict[str, Any]:
    axis = {
        "gridcolor": line,
        "linecolor": line,
        "zerolinecolor": line,
        "tickcolor": line,
        "tickfont": {"color": quiet, "size": 11},
        "title": {"font": {"color": quiet, "size": 12}},
        "automargin": True,
        "zeroline": False,
    }
    return {
        "layout": {
            "font": {"family": FONT, "color": ink, "size": 12},
            "paper_bgcolor": paper,
            "plot_bgcolor": paper,
            "colorway": list(SERIES),
            "title": {"x": 0, "xref": "paper", "xanchor": "left", "font": {"size": 14}},
            "margin": {"l": 48, "r": 16, "t": 44, "b": 36},
            "xaxis": {**axis, "showgrid": False, "showline": True},
            "yaxis": {**axis, "nticks": 5},
            "legend": {
                "orientation": "h",
                "x": 1,
                "xanchor": "right",
                "y": 1.02,
                "yanchor": "bottom",
                "font": {"color": quiet, "size": 11},
                "bgcolor": "rgba(0,0,0,0)",
            },
            "hoverlabel": {"font": {"family": FONT, "size": 12}},
            "annotationdefaults": {"font": {"color": quiet, "size": 11}, "showarrow": False},
            "coloraxis": {"colorscale": [[0, low], [0.35, "#7fb2e5"], [1, "#1d5fa8"]]},
        }
    }


TEMPLATES = {
    "light": _template("#1c2733", "#5c6875", "#e3e7ec", "#ffffff", "#eef3f8"),
    "dark": _template("#e4e9ef", "#98a4b1", "#2c353f", "#171c22", "#222a33"),
}
TEMPLATES["dark"]["layout"]["coloraxis"]["colorscale"][1:] = [[0.35, "#2c6cae"], [1, "#a9d1fb"]]


def distribution(pair: Distribution) -> Figure:
    """Draw one column's reference and current bins over each other, as shares of their rows.

    Parameters
    ----------
    pair
        The bins. Where the widths of numeric bins differ a lot, bins are drawn equally wide.

    Examples
    --------
    >>> import numpy as np
    >>> pair = Distribution("age", "numeric", None, np.linspace(0, 90, 4),
    ...                     np.array([1, 2, 1]), np.array([0, 1, 3]), 0, 2)
    >>> distribution(pair).layout.title.text
    'age'
    """
    bins, axis = _bins(pair)
    shares = [_shares(pair.reference), _shares(pair.current)]
    names, colours = ("reference", "current"), (REFERENCE, CURRENT)
    if pair.edges is None:
        traces = [
            {
                "type": "bar",
                "x": bins,
                "y": share,
                "name": name,
                "marker": {"color": colour, "line": {"width": 0}},
                "customdata": [_text(label, 60) for label in pair.labels or ()],
                "hovertemplate": "%{customdata}: %{y:.2%}",
            }
            for share, name, colour in zip(shares, names, colours, strict=True)
        ]
    else:
        traces = [
            {
                "type": "scatter",
                "x": bins,
                "y": np.append(share, share[-1:]),
                "name": name,
                "mode": "lines",
                "line": {"shape": "hv", "color": colour, "width": width},
                "fill": "tozeroy",
                "fillcolor": fill,
                "hovertemplate": "%{y:.2%}",
            }
            for share, name, colour, width, fill in zip(
                shares, names, colours, (1, 2), (NOISE, "rgba(47,128,208,0.14)"), strict=True
            )
        ]
    missing = [
        100 * _part(pair.reference_missing, pair.reference),
        100 * _part(pair.current_missing, pair.current),
    ]
    figure = _figure(traces, title=pair.column, height=250)
    figure.update_layout(
        xaxis=axis,
        yaxis={"tickformat": ".2~%", "rangemode": "tozero"},
        hovermode="x unified",
        bargap=0.25,
        bargroupgap=0,
    )
    if any(missing):
        text = f"missing {number(missing[0])} % → {number(missing[1])} %"
        figure.update_xaxes(title={"text": text, "standoff": 8})
    return figure


def metric_over_time(
    table: pa.Table,
    metric: str,
    column: str | None = None,
    segment: str = summary.ALL,
    threshold: float | None = None,
) -> Figure:
    """Draw one metric by window, with its noise floor, interval, reference and threshold.

    Parameters
    ----------
    table
        A metric table.
    metric, column, segment
        Which rows of it; no column for a metric of the whole model.
    threshold
        Where to draw the limit. Without one, PSI near 0.1 gets the lines that the field commonly
        reads as a moderate and a major move; they bind nothing.
    """
    rows = summary.select(_known(table, metric), metric=metric, column=column, segment=segment)
    rows = summary.by_window(rows)
    windows = summary.starts(rows)
    versions = summary.names(rows, "version")
    traces: list[dict[str, Any]] = []
    limits = [] if threshold is None else [threshold]
    for version, colour in zip(versions or [""], _colours(len(versions)), strict=True):
        part = summary.select(rows, version=version) if version else rows
        drawn = summary.grid(part, by="metric", windows=windows)
        if drawn.names:
            limits += _extent(drawn, 0)
            traces += _lines(drawn, 0, colour=colour, name=version or short(metric))
    title = short(metric) if column is None else f"{short(metric)} of {column}"
    figure = _figure(traces, title=title if segment == summary.ALL else f"{title}, {segment}")
    figure.update_layout(hovermode="x unified")
    _time_axis(figure, windows)
    values = _finite([trace["y"] for trace in traces if trace["mode"] != "none"])
    if not len(values):
        return _say(figure, "no value in this table")
    figure.update_yaxes(range=_scale(limits))
    if threshold is not None:
        _limit(figure, threshold, f"threshold {threshold:g}", LIMIT, "dash")
    else:
        lines = [line for line in CUSTOMARY.get(metric, ()) if values.max() > 0.6 * line]
        named = " and ".join(f"{line:g}" for line in lines)
        for line in lines:  # close together: one label serves both
            _limit(figure, line, f"customary {named}" * (line == lines[-1]), REFERENCE, "dot")
    return figure


def missing_map(table: pa.Table, *, top: int = 40) -> Figure:
    """Draw the share of missing values: columns down, windows across; or beside the reference.

    Parameters
    ----------
    table
        A metric table with `missing_rate`.
    top
        How many columns to draw: those that differ most from the reference.
    """
    rows = summary.select(_known(table, "missing_rate"), metric="missing_rate", segment="all")
    rows = summary.by_window(rows)
    found = summary.grid(rows.filter(rows["column"].is_valid()), by="column")
    gap = np.abs(found.value - np.nan_to_num(found.reference))
    gap = np.where(np.isnan(gap), 0, gap).max(axis=1, initial=0)
    worst = np.nan_to_num(found.value).max(axis=1, initial=0)
    order = [i for i in np.lexsort((-worst, -gap)) if worst[i] > 0 or gap[i] > 0][:top]
    names = [_text(found.names[i], 28) for i in order]
    labels = {"tickvals": list(range(len(order))), "ticktext": names, "nticks": None}
    if len(found.starts) > 1:
        trace = {
            "type": "heatmap",
            "x": _times(found.starts),
            "y": list(range(len(order))),
            "z": np.round(found.value[order], 5),
            "coloraxis": "coloraxis",
            "ygap": 1,
            "customdata": [[name] * len(found.starts) for name in names],
            "hovertemplate": "%{customdata}<br>%{x}<br>missing %{z:.2%}<extra></extra>",
            "hoverongaps": False,
        }
        most = float(worst.max(initial=0)) or 1.0
        figure = _figure([trace], title="", height=70 + 20 * max(len(order), 4))
        figure.update_layout(
            yaxis={**labels, "autorange": "reversed", "showgrid": False},
            coloraxis={
                "cmin": 0,
                "cmax": most,
                "colorbar": {
                    "thickness": 8,
                    "outlinewidth": 0,
                    "tickvals": [0, most],
                    "ticktext": ["0 %", f"{number(100 * most)} %"],
                },
            },
        )
    else:
        before, now = found.reference[order].ravel(), found.value[order].ravel()
        figure = _figure(
            _dumbbells(before, now, ("reference", "current")),
            title="",
            height=80 + 22 * max(len(order), 2),
        )
        figure.update_layout(
            yaxis={**labels, "autorange": "reversed", "showgrid": False},
            xaxis={"tickformat": ".2~%", "rangemode": "tozero", "showgrid": True},
        )
    return figure if order else _say(figure, "no value is missing")


def drift_ranking(table: pa.Table, *, metric: str | None = None, top: int = 30) -> Figure:
    """Draw how far each column has moved beside its noise floor, the furthest on top.

    Parameters
    ----------
    table
        A metric table.
    metric
        Drift metric; PSI unless given, or what the table has.
    top
        How many columns to draw.
    """
    ranking = summary.drift_ranking(summary.tidy(table), metric=metric)[:top]
    floors = np.array([drift.floor for drift in ranking])
    values = np.array([drift.value for drift in ranking])
    figure = _figure(
        _dumbbells(floors, values, ("noise floor", "value")),
        title=f"{short(ranking[0].metric)} by column" if ranking else "",
        height=90 + 22 * max(len(ranking), 2),
    )
    names = [_text(drift.column, 28) for drift in ranking]
    figure.update_layout(
        yaxis={
            "tickvals": list(range(len(names))),
            "ticktext": names,
            "autorange": "reversed",
            "showgrid": False,
        },
        xaxis={"showgrid": True, "type": "log", "dtick": 1, "exponentformat": "power"},
    )
    return figure if len(_finite([values])) else _say(figure, "no value in this table")


def contributions(table: pa.Table, *, title: str = "", top: int = 30) -> Figure:
    """Draw the parts of a change with their intervals, the largest on top.

    Parameters
    ----------
    table
        What `Shift.to_arrow` gives.
    title
        Heading.
    top
        How many features to draw.

    Examples
    --------
    >>> parts = pa.table({"kind": ["feature"], "name": ["age"], "value": [0.2],
    ...                   "lower": [0.1], "upper": [0.3]})
    >>> contributions(parts).layout.yaxis.ticktext
    ('age',)
    """
    rows = [row for row in table.to_pylist() if row["kind"] != "change"]
    causes = [row for row in rows if row["kind"] == "cause"]
    shown = [row for row in rows if row["kind"] != "cause"][:top] + causes
    value, lower, upper = (
        np.array([row[name] for row in shown], dtype=np.float64)
        for name in ("value", "lower", "upper")
    )
    names = [_text(row["name"], 28) for row in shown]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": value,
        "y": list(range(len(shown))),
        "marker": {
            "color": [LIMIT if row["kind"] == "cause" else CURRENT for row in shown],
            "line": {"width": 0},
        },
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": upper - value,
            "arrayminus": value - lower,
            "thickness": 1.2,
            "color": REFERENCE,
        },
        "hovertemplate": "%{x:+.4g}<extra></extra>",
    }
    figure = _figure([bars], title=title, height=90 + 22 * max(len(shown), 2))
    figure.update_layout(
        yaxis={
            "tickvals": list(range(len(names))),
            "ticktext": names,
            "autorange": "reversed",
            "showgrid": False,
        },
        xaxis={"showgrid": True, "zeroline": True},
        showlegend=False,
    )
    return figure if shown else _say(figure, "no part in this table")


def performance(table: pa.Table, *, metrics: Sequence[str] | None = None) -> Figure:
    """Draw live performance by window, with intervals, and the share of labels that has arrived.

    Parameters
    ----------
    table
        A metric table.
    metrics
        Which ones; unless given, the six that people ask for first among those in the table.
    """
    _graph_objects()
    from plotly.subplots import make_subplots

    table = summary.tidy(table)
    rows = summary.select(table, segment=summary.ALL, column=None)
    rows = summary.by_window(rows.filter(rows["label_share"].is_valid()))
    chosen = list(metrics or [score.metric for score in summary.performance(table)][:6])
    if not chosen:
        return _say(_figure([], title=""), "no metric in this table waits for labels")
    for metric in chosen:
        _known(rows, metric)
    windows = summary.starts(rows)
    lines = -(-len(chosen) // 2)
    figure = make_subplots(
        rows=lines + 1,
        cols=2,
        specs=[[{}, {}] if 2 * i + 1 < len(chosen) else [{}, None] for i in range(lines)]
        + [[{"colspan": 2}, None]],
        row_heights=[1.0] * lines + [0.55],
        subplot_titles=[
            *(_text(short(metric), 40) for metric in chosen),
            "share of labels that arrived",
        ],
        vertical_spacing=0.36 / (lines + 1),
        horizontal_spacing=0.08,
    )
    versions = summary.names(rows, "version")
    limits: dict[str, list[float]] = {metric: [] for metric in chosen}
    share: FloatArray = np.zeros(0)
    for version, colour in zip(versions or [""], _colours(len(versions)), strict=True):
        part = summary.select(rows, version=version) if version else rows
        found = summary.grid(part, by="metric", windows=windows)
        for place, metric in enumerate(chosen):
            if metric in found.names:
                i = found.names.index(metric)
                share = found.share[i]
                limits[metric] += _extent(found, i)
                for trace in _lines(found, i, colour=colour, name=version or "value"):
                    trace["showlegend"] = place == 0 and trace["showlegend"]
                    figure.add_trace(trace, row=place // 2 + 1, col=place % 2 + 1)
        figure.add_trace(
            {
                "type": "bar" if len(windows) == 1 else "scatter",
                "x": _times(windows),
                "y": share,
                "name": version or "labels",
                "showlegend": False,
                "hovertemplate": "%{y:.1%}",
                **(
                    {"marker": {"color": colour}, "width": 0.2}
                    if len(windows) == 1
                    else {
                        "mode": "lines",
                        "line": {"color": colour, "width": 1},
                        "fill": "tozeroy",
                        "fillcolor": _pale(colour),
                    }
                ),
            },
            row=lines + 1,
            col=1,
        )
    figure.update_layout(
        template=TEMPLATES["light"], height=120 + 190 * lines + 60, hovermode="x unified"
    )
    figure.update_layout(legend={"y": 1 + 34 / (190 * lines + 80)})
    for place, note in enumerate(figure.layout.annotations):
        left = place % 2 if place < len(chosen) else 0
        note.update(x=0.54 * left, xanchor="left", font={"size": 13})
    for place, metric in enumerate(chosen):
        figure.update_yaxes(range=_scale(limits[metric]), row=place // 2 + 1, col=place % 2 + 1)
    figure.update_yaxes(tickformat=".2~%", range=[0, 1.05], nticks=3, row=lines + 1, col=1)
    _time_axis(figure, windows)
    return figure


def plotly_source() -> str:
    """Return the plotly.js that came with Plotly, to be inlined in a page."""
    _graph_objects()
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def short(metric: str) -> str:
    """Name a metric as people say it.

    >>> short("psi"), short("log_loss")
    ('PSI', 'log loss')
    """
    return SHORT.get(metric, metric.replace("_", " "))


def number(value: float) -> str:
    """Write a number in three figures, and an unknown one as a dash.

    >>> number(0.12345), number(1234567.0), number(float("nan")), number(0.0000123)
    ('0.123', '1.23e6', '-', '1.23e-5')
    """
    if np.isnan(value):
        return "-"
    if np.isinf(value):
        return "∞" if value > 0 else "-∞"
    if 1000 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def _graph_objects() -> Any:
    try:
        from plotly import graph_objects
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'figures need Plotly, an extra: pip install "tidegauge[plots]"'
        ) from error
    return graph_objects


def _figure(traces: Sequence[dict[str, Any]], *, title: str, height: int = 270) -> Figure:
    heading = {"text": _text(title, 60), "yref": "container", "y": 1, "yanchor": "top"}
    layout = {
        "template": TEMPLATES["light"],
        "height": height,
        "margin": {"t": 44 if title else 26},
        "title": heading | {"pad": {"t": 10}},
    }
    return _graph_objects().Figure(data=list(traces), layout=layout)


def _text(name: str | None, width: int) -> str:
    """Make a name safe where Plotly would read markup, and short enough for its place."""
    words = "" if name is None else name
    return escape(words if len(words) <= width else words[: width - 1] + "…", quote=False)


def _known(table: pa.Table, metric: str) -> pa.Table:
    table = summary.tidy(table)
    known = summary.names(table, "metric")
    if table.num_rows and metric not in known:
        raise ValueError(f"metric {metric!r} is not in the table, which has {sorted(known)}")
    return table


def _bins(pair: Distribution) -> tuple[Any, dict[str, Any]]:
    """Where the bins stand, and the axis they stand on."""
    if pair.edges is None:
        labels = [_text(label, 14) for label in pair.labels or ()]
        places = list(range(len(labels)))
        return places, {
            "tickvals": places,
            "ticktext": labels,
            "tickangle": -35 if len("".join(labels)) > 24 else 0,
        }
    if pair.kind == "timestamp":
        return _times(pair.edges.astype("datetime64[us]")), {"type": "date"}
    widths = np.diff(pair.edges)
    if len(widths) and widths.max() < 8 * np.median(widths):
        return pair.edges, {"type": "linear"}
    ticks = np.linspace(0, len(widths), min(5, len(pair.edges)), dtype=int)
    return np.arange(len(pair.edges)), {
        "type": "linear",
        "tickvals": ticks,
        "ticktext": [number(float(edge)) for edge in pair.edges[ticks]],
    }


def _shares(counts: NDArray[np.int64]) -> FloatArray:
    shares: FloatArray = counts / max(counts.sum(), 1)
    return shares


def _part(count: int, others: NDArray[np.int64]) -> float:
    return float(count / max(count + int(others.sum()), 1))


def _lines(found: Grid, row: int, *, colour: str, name: str) -> list[dict[str, Any]]:
    """Noise floor, interval, reference and value of one row of a grid, back to front."""
    times, value = _times(found.starts), found.value[row]
    floor, reference = found.floor[row], found.reference[row]
    lower, upper = found.lower[row], found.upper[row]
    single = len(found.starts) == 1
    traces: list[dict[str, Any]] = []
    if np.isfinite(floor).any():
        traces.append(_area(times, np.zeros_like(floor), floor, NOISE, "noise floor"))
    if np.isfinite(lower).any() and not single:
        traces.append(_area(times, lower, upper, _pale(colour), "95 % interval"))
    if np.isfinite(reference).any():
        traces.append(
            {
                "type": "scatter",
                "x": times,
                "y": reference,
                "mode": "markers" if single else "lines",
                "name": "reference",
                "line": {"color": REFERENCE, "width": 1.2, "dash": "dot"},
                "marker": {"color": REFERENCE, "size": 9, "symbol": "line-ew-open"},
                "showlegend": True,
                "hovertemplate": "%{y:.4g}",
            }
        )
    alone = single or len(found.starts) < MANY
    traces.append(
        {
            "type": "scatter",
            "x": times,
            "y": value,
            "mode": "markers" if single else "lines+markers" if alone else "lines",
            "name": _text(name, 30),
            "line": {"color": colour, "width": 1.6},
            "marker": {"color": colour, "size": 9 if single else 4},
            "connectgaps": False,
            "showlegend": True,
            "hovertemplate": "%{y:.4g}",
            **(
                {
                    "error_y": {
                        "type": "data",
                        "symmetric": False,
                        "array": upper - value,
                        "arrayminus": value - lower,
                        "thickness": 1.2,
                    }
                }
                if single and np.isfinite(lower).any()
                else {}
            ),
        }
    )
    return traces


def _extent(found: Grid, row: int) -> list[float]:
    """Least and greatest of what is drawn, windows with few rows left out."""
    seen = summary.usual(found.n[row])
    parts = [found.value, found.lower, found.upper, found.floor, found.reference]
    drawn = _finite([part[row][seen] for part in parts])
    ends = [float(drawn.min()), float(drawn.max())] if len(drawn) else []
    return [0.0, *ends] if np.isfinite(found.floor[row]).any() else ends


def _scale(limits: Sequence[float]) -> list[float] | None:
    """Range of an axis around what is drawn, from zero where zero is near; None: all of it."""
    if not limits:
        return None
    low, high = min(limits), max(limits)
    pad = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return [0.0 if 0 <= low < 0.4 * high else low - pad, high + pad]


def _area(
    times: list[str], lower: FloatArray, upper: FloatArray, colour: str, name: str
) -> dict[str, Any]:
    """Fill between two lines, one polygon for each run of windows without a gap."""
    x: list[str | None] = []
    y: list[float | None] = []
    for first, last in _runs(np.isfinite(lower) & np.isfinite(upper)):
        x += [*times[first:last], *times[first:last][::-1], None]
        y += [*upper[first:last].tolist(), *lower[first:last][::-1].tolist(), None]
    return {
        "type": "scatter",
        "x": x[:-1],
        "y": y[:-1],
        "mode": "none",
        "fill": "toself",
        "fillcolor": colour,
        "name": name,
        "showlegend": True,
        "hoverinfo": "skip",
    }


def _runs(known: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    changes = np.flatnonzero(np.diff(np.concatenate([[0], known.astype(np.int8), [0]])))
    yield from zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True)


def _dumbbells(start: FloatArray, stop: FloatArray, names: tuple[str, str]) -> list[dict[str, Any]]:
    """Draw a grey dot, a blue dot and the way between them, one pair a line."""
    places = list(range(len(start)))
    ways = [item for a, b in zip(start, stop, strict=True) for item in (a, b, None)]
    return [
        {
            "type": "scatter",
            "x": ways,
            "y": [item for place in places for item in (place, place, None)],
            "mode": "lines",
            "line": {"color": "rgba(47,128,208,0.45)", "width": 3},
            "showlegend": False,
            "hoverinfo": "skip",
        },
        *(
            {
                "type": "scatter",
                "x": values,
                "y": places,
                "mode": "markers",
                "name": name,
                "cliponaxis": False,
                "marker": {"color": colour, "size": 9},
                "hovertemplate": f"{name} %{{x:.4g}}<extra></extra>",
            }
            for values, name, colour in zip((start, stop), names, (REFERENCE, CURRENT), strict=True)
        ),
    ]


def _colours(n: int) -> list[str]:
    return [SERIES[i % len(SERIES)] for i in range(max(n, 1))]


def _pale(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"


def _times(instants: Instants) -> list[str]:
    """Write starts as Plotly reads them; the one window of a timeless table has a name instead."""
    if len(instants) == 1 and np.isnat(instants[0]):
        return ["whole period"]
    return np.datetime_as_string(instants, unit="m").tolist() if len(instants) else []


def _time_axis(figure: Figure, windows: Instants) -> None:
    if len(windows) == 1:
        figure.update_xaxes(type="category")
    else:
        figure.update_xaxes(type="date", hoverformat="%-d %b %Y %H:%M UTC")


def _limit(figure: Figure, y: float, text: str, colour: str, dash: str) -> None:
    figure.add_hline(
        y=y,
        line={"color": colour, "width": 1.2, "dash": dash},
        annotation={"text": text, "font": {"color": colour, "size": 10}},
        annotation_position="top left",
    )


def _say(figure: Figure, text: str) -> Figure:
    figure.add_annotation(text=text, x=0.5, y=0.5, xref="paper", yref="paper", font={"size": 13})
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


def _finite(values: Sequence[Any]) -> FloatArray:
    joined: FloatArray = np.concatenate(
        [np.zeros(0), *(np.asarray(part, dtype=np.float64) for part in values)]
    )
    finite: FloatArray = joined[np.isfinite(joined)]
    return finite
