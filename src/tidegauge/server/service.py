"""The services of tidegauge.v1: one method per rpc, each a few lines to and from the desk."""

from __future__ import annotations

import functools
import json
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import grpc
import pyarrow as pa
from google.protobuf import any_pb2, duration_pb2, timestamp_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from pyarrow import ipc

from tidegauge.journal import COLUMNS, FORGET, OUTCOMES, PREDICTIONS, STREAM, JournalError
from tidegauge.monitor import compare
from tidegauge.server import batches
from tidegauge.server.desk import Answer, Desk, Watched
from tidegauge.server.refused import Refused, invalid, no_stream
from tidegauge.server.security import Gate
from tidegauge.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    ingest_pb2,
    ingest_pb2_grpc,
    query_pb2,
    query_pb2_grpc,
)

log = logging.getLogger(__name__)

DOMAIN = "tidegauge"
VERSION = version("tidegauge")
PART = 1 << 20  # bytes of an answer that are sent at once
MAX_LISTENERS = 32  # calls of StreamEvents at once
HEARTBEAT = 5.0  # seconds after which a listener is looked after without news
FOREVER = 1 << 62
WINDOW = 64  # requests of one stream that may wait for their replies
Request = TypeVar("Request")
Response = TypeVar("Response")
# Of a stream: what came of a request, what broke the stream, or its end.
_Entry: TypeAlias = "tuple[str, Future[Answer] | Refused] | Exception | None"


# -- how a refusal looks on the wire ---------------------------------------------------------------


def status_of(refusal: Refused) -> status_pb2.Status:
    """Write a refusal as google.rpc.Status, with its details.

    >>> status_of(invalid("model", "is empty")).code == code_pb2.INVALID_ARGUMENT
    True
    """
    status = status_pb2.Status(code=code_pb2.Code.Value(refusal.code), message=str(refusal))
    details: list[Any] = [
        error_details_pb2.ErrorInfo(reason=refusal.reason, domain=DOMAIN, metadata=refusal.metadata)
    ]
    if refusal.fields:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=field, description=problem)
                    for field, problem in refusal.fields
                ]
            )
        )
    if refusal.retry_after is not None:
        delay = duration_pb2.Duration(
            seconds=int(refusal.retry_after), nanos=int(refusal.retry_after % 1 * 1e9)
        )
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def refusal_of(error: BaseException) -> Refused:
    """Say what a caller is told of an error; one that is not meant for callers is logged."""
    if isinstance(error, Refused):
        return error
    log.error("a call failed", exc_info=error)
    return Refused("INTERNAL", "INTERNAL", f"the server failed: {type(error).__name__}")


def _abort(context: grpc.ServicerContext, error: Exception) -> None:
    context.abort_with_status(rpc_status.to_status(status_of(refusal_of(error))))


def _rpc(
    method: Callable[[Any, Request, Any], Response],
) -> Callable[[Any, Request, Any], Response]:
    """Turn what a method raises into a status."""

    @functools.wraps(method)
    def call(self: Any, request: Request, context: Any) -> Response:
        try:
            return method(self, request, context)
        except Exception as error:
            _abort(context, error)
            raise  # not reached: abort raises

    return call


def _streaming_rpc(
    method: Callable[[Any, Request, Any], Iterator[Response]],
) -> Callable[[Any, Request, Any], Iterator[Response]]:
    """Turn what a method of many answers raises into a status."""

    @functools.wraps(method)
    def call(self: Any, request: Request, context: Any) -> Iterator[Response]:
        try:
            yield from method(self, request, context)
        except Exception as error:
            if not context.is_active():
                return
            _abort(context, error)

    return call


def _authorization(context: grpc.ServicerContext) -> str:
    for key, value in context.invocation_metadata():
        if key == "authorization":
            return str(value)
    return ""


# -- events in -------------------------------------------------------------------------------------


class IngestService(ingest_pb2_grpc.IngestServiceServicer):
    """Takes events."""

    def __init__(self, desk: Desk, gate: Gate, max_streams: int) -> None:
        self._desk = desk
        self._gate = gate
        self._streams = threading.BoundedSemaphore(max_streams)

    @_rpc
    def WritePredictions(
        self, request: ingest_pb2.WritePredictionsRequest, context: grpc.ServicerContext
    ) -> ingest_pb2.WritePredictionsResponse:
        """Add predictions."""
        answer = self.write(PREDICTIONS, request, _authorization(context)).result()
        return written(ingest_pb2.WritePredictionsResponse, answer)

    @_rpc
    def WriteOutcomes(
        self, request: ingest_pb2.WriteOutcomesRequest, context: grpc.ServicerContext
    ) -> ingest_pb2.WriteOutcomesResponse:
        """Add outcomes."""
        answer = self.write(OUTCOMES, request, _authorization(context)).result()
        return written(ingest_pb2.WriteOutcomesResponse, answer)

    def write(self, kind: int, request: Any, authorization: str) -> Future[Answer]:
        """Hand a request of either write rpc to the desk."""
        self._gate.check(authorization, "write", request.model)
        which = request.WhichOneof("body")
        if which is None:
            raise invalid("body", "is missing; send `columns` or `arrow_stream`")
        columns = which == "columns"
        dropped = request.dropped
        return self._desk.write(
            kind,
            request.model,
            request.request_id,
            encoding=COLUMNS if columns else STREAM,
            body=request.columns.SerializeToString() if columns else request.arrow_stream,
            version=request.model_version if kind == PREDICTIONS else "",
            schema_fingerprint=request.schema_fingerprint,
            dropped=dropped.queue_full + dropped.expired + dropped.refused,
        )

    @_streaming_rpc
    def StreamWrite(
        self,
        request_iterator: Iterator[ingest_pb2.StreamWriteRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[ingest_pb2.StreamWriteResponse]:
        """Add both over one stream; replies in the order of the requests."""
        if not self._streams.acquire(blocking=False):
            raise no_stream()
        answers: queue.Queue[_Entry] = queue.Queue(WINDOW)
        gone = threading.Event()
        context.add_callback(gone.set)
        reader = threading.Thread(
            target=self._read_stream,
            args=(request_iterator, _authorization(context), answers, gone),
            name="tidegauge-stream",
            daemon=True,
        )
        try:
            reader.start()
            while (entry := answers.get()) is not None:
                if isinstance(entry, Exception):
                    raise entry
                yield stream_response(*entry)
        finally:
            gone.set()
            with answers.mutex:  # a reader that waits for room goes on, and sees that we are gone
                answers.queue.clear()
                answers.not_full.notify_all()
            self._streams.release()

    def _read_stream(
        self,
        requests: Iterator[ingest_pb2.StreamWriteRequest],
        authorization: str,
        answers: queue.Queue[_Entry],
        gone: threading.Event,
    ) -> None:
        """Hand the requests of a stream to the desk as they come."""
        end: Exception | None = None
        try:
            for request in requests:
                if gone.is_set():
                    break
                which = request.WhichOneof("request")
                body = request.predictions if which == "predictions" else request.outcomes
                kind = PREDICTIONS if which == "predictions" else OUTCOMES
                try:
                    entry: Future[Answer] | Refused = self.write(kind, body, authorization)
                except Refused as refusal:
                    entry = refusal
                answers.put((body.request_id, entry))
        except grpc.RpcError:
            pass  # the client is gone; what it has sent is counted, what it has not is its own
        except Exception as error:
            end = error
        finally:
            answers.put(end)


def written(response: Callable[..., Response], answer: Answer) -> Response:
    """Write the response of either write rpc."""
    return response(outcome=_outcome(answer), replayed=answer.replayed, server_version=VERSION)


def _outcome(answer: Answer) -> ingest_pb2.Outcome:
    return ingest_pb2.Outcome(
        accepted=answer.accepted, duplicates=answer.duplicates, rejected=answer.rejected
    )


def stream_response(
    request_id: str, entry: Future[Answer] | Refused
) -> ingest_pb2.StreamWriteResponse:
    """Write what came of one request of a stream."""
    try:
        if isinstance(entry, Refused):
            raise entry
        answer = entry.result()
    except Refused as refusal:
        return ingest_pb2.StreamWriteResponse(
            request_id=request_id, error=status_of(refusal).SerializeToString()
        )
    return ingest_pb2.StreamWriteResponse(
        request_id=request_id, outcome=_outcome(answer), replayed=answer.replayed
    )


# -- answers out -----------------------------------------------------------------------------------


class QueryService(query_pb2_grpc.QueryServiceServicer):
    """Reads."""

    def __init__(
        self, desk: Desk, gate: Gate, onnx: Mapping[str, Path] = MappingProxyType({})
    ) -> None:
        self._desk = desk
        self._gate = gate
        self._onnx = onnx
        self._listeners = threading.BoundedSemaphore(MAX_LISTENERS)

    def _model(self, name: str, context: grpc.ServicerContext) -> Watched:
        self._gate.check(_authorization(context), "read", name)
        return self._desk.model(name)

    @_streaming_rpc
    def GetMetrics(
        self, request: query_pb2.GetMetricsRequest, context: grpc.ServicerContext
    ) -> Iterator[query_pb2.GetMetricsResponse]:
        """Compute metrics of windows."""
        with self._model(request.model, context).frozen() as monitor, _asked("metrics"):
            table = monitor.metrics(
                list(request.metrics) or None,
                columns=list(request.columns) or None,
                window=request.window or None,
                step=request.step or None,
            )
        for part in _parts(table):
            yield query_pb2.GetMetricsResponse(arrow_stream=part)

    @_rpc
    def ListWindows(
        self, request: query_pb2.ListWindowsRequest, context: grpc.ServicerContext
    ) -> query_pb2.ListWindowsResponse:
        """List the windows that are kept."""
        with self._model(request.model, context).frozen() as monitor:
            return query_pb2.ListWindowsResponse(windows=windows_of(monitor))

    @_rpc
    def Explain(
        self, request: query_pb2.ExplainRequest, context: grpc.ServicerContext
    ) -> query_pb2.ExplainResponse:
        """Measure what each feature does in every window, by the model's ONNX file."""
        watched = self._model(request.model, context)
        path = self._onnx.get(request.model)
        if path is None:
            raise Refused(
                "FAILED_PRECONDITION",
                "NO_MODEL_FILE",
                f"the server cannot call model {request.model!r}; name its file by "
                f"`onnx` under [models.{request.model}]",
            )
        with watched.frozen() as monitor, _asked("model"):
            found = monitor.explain(str(path), window=request.window or None)
        return query_pb2.ExplainResponse(arrow_stream=b"".join(_parts(found.to_arrow())))

    @_rpc
    def Compare(
        self, request: query_pb2.CompareRequest, context: grpc.ServicerContext
    ) -> query_pb2.CompareResponse:
        """Compare two tables; neither is kept."""
        which = request.WhichOneof("reference")
        if which is None:
            raise invalid("reference", "is missing; send `model` or `reference_columns`")
        before: Any
        if which == "model":
            before = self._model(request.model, context).monitor.reference
        else:
            self._gate.check(_authorization(context), "read", "*")
            before = batches.unpack(request.reference_columns)
        with _asked("current"):
            found = compare(before, batches.unpack(request.current)).to_arrow()
        return query_pb2.CompareResponse(arrow_stream=b"".join(_parts(found)))

    @_streaming_rpc
    def StreamEvents(
        self, request: query_pb2.StreamEventsRequest, context: grpc.ServicerContext
    ) -> Iterator[query_pb2.StreamEventsResponse]:
        """Tell of windows as they close: each once, again only around a cursor."""
        caller = _authorization(context)
        if request.model:
            self._model(request.model, context)
        seen = _cursor_of(request.cursor)
        if not self._listeners.acquire(blocking=False):
            raise no_stream()
        changed = threading.Event()
        context.add_callback(changed.set)
        self._desk.listen(changed.set)
        try:
            begun = bool(request.cursor)
            while context.is_active() and not self._desk.draining:
                changed.clear()
                for name in [request.model] if request.model else sorted(self._desk.models):
                    if not self._gate.allows(caller, "read", name):
                        continue
                    watched = self._desk.model(name)
                    mark = watched.monitor.watermark
                    if mark is None:
                        continue
                    now = int(mark.timestamp() * 1e6)
                    last = seen.setdefault(name, -FOREVER if begun else now)
                    if now // watched.pane > last // watched.pane:
                        yield from self._closed(name, watched, seen)
                begun = True  # a model that comes later is told of from its first window on
                changed.wait(HEARTBEAT)
        finally:
            self._desk.unlisten(changed.set)
            self._listeners.release()

    @staticmethod
    def _closed(
        name: str, watched: Watched, seen: dict[str, int]
    ) -> Iterator[query_pb2.StreamEventsResponse]:
        """Windows of a model that have closed since the cursor; it moves behind each end."""
        with watched.frozen() as monitor:
            closed = [each for each in windows_of(monitor) if each.closed]
        ends = [each.end.ToMicroseconds() for each in closed]
        fresh = [(end, each) for end, each in zip(ends, closed, strict=True) if end > seen[name]]
        fresh.sort(key=lambda entry: entry[0])
        for at, (end, window) in enumerate(fresh):
            if at + 1 == len(fresh) or fresh[at + 1][0] > end:  # of all versions
                seen[name] = end
            yield query_pb2.StreamEventsResponse(
                cursor=json.dumps(seen), model=name, window_closed=window
            )

    @_rpc
    def GetAccount(
        self, request: query_pb2.GetAccountRequest, context: grpc.ServicerContext
    ) -> query_pb2.GetAccountResponse:
        """Say where every event went."""
        watched = self._model(request.model, context)
        refused = {
            reason: count
            for (model, reason), count in list(self._desk.refused.items())
            if model == request.model
        }
        return query_pb2.GetAccountResponse(
            events=watched.monitor.account.to_dict(),
            dropped_by_clients=watched.dropped,
            refused_requests=refused,
            watermark=_timestamp(watched.monitor.watermark),
            quarantined_requests=self._desk.journal.n_quarantined,
        )


@contextmanager
def _asked(field: str) -> Iterator[None]:
    """Pass on what the library says of a question that it cannot answer."""
    try:
        yield
    except (ValueError, KeyError) as error:
        raise invalid(field, str(error.args[0] if error.args else error)) from None


def _cursor_of(text: str) -> dict[str, int]:
    """End of the last window told of, by model."""
    if not text:
        return {}
    try:
        found = json.loads(text)
        return {str(name): int(end) for name, end in found.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise invalid("cursor", "is none that this server has given") from None


def windows_of(monitor: Any) -> list[query_pb2.Window]:
    """Windows of a monitor, oldest first."""
    mark = monitor.watermark
    return [
        query_pb2.Window(
            version=row["version"] or "",
            start=_timestamp(row["window_start"]),
            end=_timestamp(row["window_end"]),
            rows=row["rows"],
            labels=row["labels"],
            closed=mark is not None and row["window_end"] is not None and row["window_end"] <= mark,
        )
        for row in monitor.windows().to_pylist()
    ]


def _timestamp(moment: datetime | None) -> timestamp_pb2.Timestamp | None:
    if moment is None:
        return None
    made = timestamp_pb2.Timestamp()
    made.FromDatetime(moment)
    return made


def _parts(table: pa.Table) -> Iterator[bytes]:
    """An Arrow IPC stream of a table, in parts."""
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.unify_dictionaries())
    data = sink.getvalue()
    for start in range(0, data.size, PART):
        yield data.slice(start, min(PART, data.size - start)).to_pybytes()


# -- set-up ----------------------------------------------------------------------------------------


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """Sets up what is watched."""

    def __init__(self, desk: Desk, gate: Gate) -> None:
        self._desk = desk
        self._gate = gate

    @_rpc
    def PutModel(
        self, request: admin_pb2.PutModelRequest, context: grpc.ServicerContext
    ) -> admin_pb2.PutModelResponse:
        """Add a model."""
        self._gate.check(_authorization(context), "admin", request.name)
        self._desk.put_model(request).result()
        return admin_pb2.PutModelResponse(model=_model_of(request.name, self._desk))

    @_rpc
    def ListModels(
        self, request: admin_pb2.ListModelsRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ListModelsResponse:
        """List the models that the caller may read or write to."""
        caller = _authorization(context)
        names = [
            name
            for name in sorted(self._desk.models)
            if any(self._gate.allows(caller, scope, name) for scope in ("read", "write"))
        ]
        return admin_pb2.ListModelsResponse(models=[_model_of(name, self._desk) for name in names])

    @_rpc
    def DeletePredictions(
        self, request: admin_pb2.DeletePredictionsRequest, context: grpc.ServicerContext
    ) -> admin_pb2.DeletePredictionsResponse:
        """Take predictions out by their ids."""
        self._gate.check(_authorization(context), "admin", request.model)
        if bool(request.ids) == bool(request.integer_ids):
            raise invalid("ids", "are wanted, as text or as integers, not both")
        ids = (
            pa.array(request.ids, pa.string())
            if request.ids
            else pa.array(request.integer_ids, pa.int64())
        )
        name = self._desk.model(request.model).monitor.schema.prediction_id
        if name is None:
            raise Refused(
                "FAILED_PRECONDITION", "NO_IDS", f"model {request.model!r} has no prediction ids"
            )
        rows = pa.record_batch({name: ids})
        body = batches.pack(rows).SerializeToString()
        answer = self._desk.write(
            FORGET, request.model, request.request_id, encoding=COLUMNS, body=body, rows=rows
        ).result()
        return admin_pb2.DeletePredictionsResponse(
            forgotten=answer.accepted, replayed=answer.replayed
        )

    @_rpc
    def Checkpoint(
        self, request: admin_pb2.CheckpointRequest, context: grpc.ServicerContext
    ) -> admin_pb2.CheckpointResponse:
        """Store the state now."""
        self._gate.check(_authorization(context), "admin", "*")
        try:
            return admin_pb2.CheckpointResponse(sequence=self._desk.checkpoint())
        except JournalError as error:
            raise Refused("UNAVAILABLE", error.reason, str(error), retry_after=1.0) from None


def _model_of(name: str, desk: Desk) -> admin_pb2.Model:
    watched = desk.model(name)
    monitor = watched.monitor
    return admin_pb2.Model(
        name=name,
        schema_toml=watched.schema_toml,
        schema_fingerprint=watched.fingerprint,
        window=monitor.window,
        lateness=monitor.lateness,
        retention={width: age or "" for width, age in (monitor.retention or {}).items()},
        sample_rows=monitor.sample_rows,
    )
