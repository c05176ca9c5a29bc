"""Recorded traffic once more: sent to a server in the order, and at the pace, of its own time.

A prediction goes out at its timestamp, its label when it became known. What comes back says how
fast the server was, and whether it counted everything: the account of the model is asked for before
and after.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from threading import Event
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidegauge._core import SchemaError
from tidegauge.ingest import as_table
from tidegauge.schema import Schema
from tidegauge.server.client import Client, ClientStats, address_of
from tidegauge.server.transport import Address
from tidegauge.server.waiting import Request
from tidegauge.v1 import admin_pb2, admin_pb2_grpc, query_pb2, query_pb2_grpc
from tidegauge.window import SECOND

TICK = 0.1  # seconds of real time whose events are sent together, where there is a pace
WARM_UP = 0.1
BATCH_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Step:
    """What is sent together: predictions, the labels that became known by then, and when."""

    due: float  # seconds after the first
    predictions: pa.Table
    labels: pa.Table


@dataclass(frozen=True, slots=True)
class Recording:
    """Predictions and labels, each in the order of its own time."""

    predictions: pa.Table
    labels: pa.Table
    prediction_times: NDArray[np.int64]  # microseconds
    label_times: NDArray[np.int64]

    def steps(self, batch_rows: int) -> Iterator[Step]:
        """So many predictions at a time, each time with the labels known before the next ones."""
        n = self.predictions.num_rows
        stops = np.minimum(np.arange(batch_rows, n + batch_rows, batch_rows), n)
        ends = np.append(self.prediction_times[stops[:-1]], np.iinfo(np.int64).max)
        yield from self._cut(stops, np.searchsorted(self.label_times, ends), np.zeros(len(stops)))

    def paced_steps(self, speed: float) -> Iterator[Step]:
        """Whatever falls into one tick, `speed` times as fast as it was."""
        first = min(int(times[0]) for times in self._times if len(times))
        last = max(int(times[-1]) for times in self._times if len(times))
        width = max(int(TICK * speed * SECOND), 1)
        ends = np.arange(first + width, last + width + 1, width)
        stops = [np.searchsorted(times, ends) for times in self._times]
        used = np.diff(stops[0] + stops[1], prepend=0) > 0
        due = (ends - first) / SECOND / speed
        yield from self._cut(stops[0][used], stops[1][used], due[used])

    @property
    def _times(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self.prediction_times, self.label_times

    def _cut(
        self, predictions: NDArray[Any], labels: NDArray[Any], due: NDArray[np.float64]
    ) -> Iterator[Step]:
        p0 = l0 = 0
        for p1, l1, at in zip(predictions.tolist(), labels.tolist(), due.tolist(), strict=True):
            yield Step(at, self.predictions.slice(p0, p1 - p0), self.labels.slice(l0, l1 - l0))
            p0, l0 = p1, l1


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay found.

    Parameters
    ----------
    predictions, labels
        Rows that were sent, those of the warm-up included.
    seconds, rows_per_second
        From the end of the warm-up to the last acknowledgement, and what was acknowledged in it.
    requests
        Acknowledged in that time.
    latency_ms
        From sending a request to its acknowledgement, when its rows are on the server's disk:
        "p50", "p90", "p99", "max"; of the requests after the warm-up.
    behind
        Seconds by which the latest step left after its time; 0 without a pace.
    client
        What the client says of its rows.
    account
        By what the account of the model has grown on the server.
    lost, extra
        Rows that were sent and not counted; rows counted that were not sent here.
    """

    predictions: int
    labels: int
    seconds: float
    rows_per_second: float
    requests: int
    latency_ms: Mapping[str, float]
    behind: float
    client: ClientStats
    account: Mapping[str, int]
    lost: int
    extra: int

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)


def record(
    traffic: object,
    schema: Schema,
    *,
    labels: object | None = None,
    label_time: str | None = None,
) -> Recording:
    """Take traffic apart into predictions and labels, each in the order of its time.

    Parameters
    ----------
    traffic
        Table of predictions, which may hold their labels.
    schema
        Roles of its columns.
    labels
        Table of labels, where the traffic does not hold them.
    label_time
        Column that says when a label became known; that of the prediction unless given.

    >>> schema = Schema(task="binary", prediction_id="id", timestamp="time", label="late",
    ...                 prediction_score="p")
    >>> seconds = np.array([0, 1, 2], "datetime64[s]")
    >>> taken = record({"id": [1, 2, 3], "time": seconds, "p": [.1, .2, .3],
    ...                 "late": [True, None, False], "landed": seconds[::-1]},
    ...                schema, label_time="landed")
    >>> taken.labels.to_pydict()["id"], taken.predictions.column_names
    ([3, 1], ['id', 'time', 'p'])
    """
    table = as_table(traffic)
    source = table if labels is None else as_table(labels)
    time = schema.timestamp
    for name in filter(None, (time, schema.prediction_id)):
        _require(table, name)
    outcomes = pa.table({})
    if schema.label is not None and schema.prediction_id is not None:
        when = label_time or time
        for name in filter(None, (schema.prediction_id, schema.label, when)):
            _require(source, name)
        known = source.filter(pc.is_valid(source[schema.label]))
        columns = {name: known[name] for name in (schema.prediction_id, schema.label)}
        if time is not None:
            columns[time] = known[when]
        outcomes = pa.table(columns)
        later = {schema.label} | ({label_time} - {time} if labels is None else set())
        table = table.drop_columns([name for name in table.schema.names if name in later])
    predictions, prediction_times = _in_order(table, time)
    outcomes, label_times = _in_order(outcomes, time)
    return Recording(predictions, outcomes, prediction_times, label_times)


def _require(table: pa.Table, name: str) -> None:
    if name not in table.column_names:
        raise SchemaError(
            f"column {name!r} is not there; there are: {', '.join(table.schema.names)}"
        )


def _in_order(table: pa.Table, time: str | None) -> tuple[pa.Table, NDArray[np.int64]]:
    """The rows by time, those of one time as they are; and their times."""
    if time is None or time not in table.column_names:
        return table, np.zeros(table.num_rows, np.int64)
    moments = _microseconds(time, table[time])
    order = np.argsort(moments, kind="stable")
    if (order[1:] < order[:-1]).any():
        table, moments = table.take(order), moments[order]
    return table.combine_chunks(), moments


def _microseconds(name: str, times: pa.ChunkedArray) -> NDArray[np.int64]:
    """Times since 1970, as a monitor reads them."""
    if not (pa.types.is_timestamp(times.type) or pa.types.is_date(times.type)):
        raise SchemaError(f"column {name!r} holds {times.type}; a replay goes by timestamps")
    if times.null_count:
        raise SchemaError(f"column {name!r} has {times.null_count} rows without a time")
    zone = times.type.tz if pa.types.is_timestamp(times.type) else None
    moments = times.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64()).to_numpy()
    return np.asarray(moments, dtype=np.int64)


def speed_of(text: str) -> float | None:
    """Read a speed: "max" is as fast as the server acknowledges, "60x" an hour in a minute.

    >>> speed_of("60x"), speed_of("max")
    (60.0, None)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)x", text)
    if text != "max" and (found is None or float(found[1]) <= 0):
        raise ValueError(f"speed is 'max', or a number and an x such as '60x', got {text!r}")
    return None if found is None else float(found[1])


@dataclass(frozen=True, slots=True)
class Watcher:
    """What a replay asks the server about the model."""

    address: Address
    model: str

    def schema(self) -> Schema:
        """Schema of the model."""
        stub = admin_pb2_grpc.AdminServiceStub
        reply = self.address.ask(stub, "ListModels", admin_pb2.ListModelsRequest())
        for entry in reply.models:
            if entry.name == self.model:
                return Schema.from_toml(entry.schema_toml)
        known = ", ".join(entry.name for entry in reply.models) or "none"
        raise SchemaError(f"the server has no model {self.model!r}; it has: {known}")

    def account(self) -> dict[str, int]:
        """The account of the model, now."""
        stub = query_pb2_grpc.QueryServiceStub
        request = query_pb2.GetAccountRequest(model=self.model)
        return dict(self.address.ask(stub, "GetAccount", request).events)


def replay(
    traffic: object,
    target: str,
    *,
    model: str,
    schema: Schema | None = None,
    labels: object | None = None,
    label_time: str | None = None,
    speed: str = "max",
    warm_up: float = WARM_UP,
    batch_rows: int = BATCH_ROWS,
    token: str | None = None,
    ca: str | None = None,
    tell: Callable[[int], None] = lambda _: None,
) -> Replay:
    """Send recorded traffic to a server, as it happened.

    Parameters
    ----------
    traffic
        Table of predictions, which may hold their labels.
    target
        Where the server is, as for `Client`.
    model
        Name of the model there.
    schema
        Roles of the columns; those of the model on the server unless given.
    labels
        Table of labels, where the traffic does not hold them.
    label_time
        Column that says when a label became known; that of the prediction unless given.
    speed
        "max", or "1x", "60x", ...: how much faster than it was.
    warm_up
        Share of the traffic that is sent before anything is measured.
    batch_rows
        Predictions in a request, without a pace.
    token, ca
        As for `Client`.
    tell
        Called with the number of rows after each step.
    """
    pace = speed_of(speed)
    if not 0 <= warm_up < 1:
        raise ValueError(f"warm_up is a share in [0, 1), got {warm_up}")
    watcher = Watcher(address_of(target, token=token, ca=ca), model)
    recording = record(traffic, schema or watcher.schema(), labels=labels, label_time=label_time)
    if not recording.predictions.num_rows:
        raise SchemaError("there is no traffic: the table has no rows")
    if pace is not None and not recording.prediction_times.any():
        raise SchemaError("a pace goes by event time: the schema must name a `timestamp`")
    steps = recording.steps(batch_rows) if pace is None else recording.paced_steps(pace)
    before = watcher.account()
    kept: list[tuple[int, float]] = []

    def note(request: Request, seconds: float) -> None:
        kept.append((request.rows, seconds))

    total = recording.predictions.num_rows + recording.labels.num_rows
    with Client(
        target, model=model, token=token, ca=ca, on_full="block", block_timeout=None
    ) as client:
        client.observe(note)
        behind, warm = _send(client, steps, int(total * warm_up), tell, kept)
        client.flush()
        seconds = perf_counter() - warm
        stats = client.stats()
    after = watcher.account()
    grown = {name: count - before.get(name, 0) for name, count in after.items()}
    counted = grown["predictions"] + grown["duplicate_predictions"] + grown["labels"]
    latencies = np.array([latency for _, latency in kept]) * 1e3
    rows = sum(n for n, _ in kept)
    return Replay(
        predictions=recording.predictions.num_rows,
        labels=recording.labels.num_rows,
        seconds=seconds,
        rows_per_second=rows / seconds,
        requests=len(kept),
        latency_ms=_percentiles(latencies),
        behind=behind if pace is not None else 0.0,
        client=stats,
        account=grown,
        lost=max(total - counted, 0),
        extra=max(counted - total, 0),
    )


def _send(
    client: Client,
    steps: Iterator[Step],
    warm_up: int,
    tell: Callable[[int], None],
    kept: list[tuple[int, float]],
) -> tuple[float, float]:
    """Send step by step; by how much the latest was late, and when the warm-up was over."""
    started = warm = perf_counter()
    clock = Event()
    sent, behind, warming = 0, 0.0, warm_up > 0
    for step in steps:
        early = started + step.due - perf_counter()
        if early > 0:
            clock.wait(early)
        behind = max(behind, perf_counter() - started - step.due)
        client.log(step.predictions)
        if step.labels.num_rows:
            client.label(step.labels)
        sent += step.predictions.num_rows + step.labels.num_rows
        tell(sent)
        if warming and sent >= warm_up:
            client.flush()
            kept.clear()
            warm, warming = perf_counter(), False
    return behind, warm


def _percentiles(milliseconds: NDArray[np.float64]) -> dict[str, float]:
    if not len(milliseconds):
        return {}
    p50, p90, p99 = np.percentile(milliseconds, [50, 90, 99]).tolist()
    return {"p50": p50, "p90": p90, "p99": p99, "max": float(milliseconds.max())}
