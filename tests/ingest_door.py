"""An ingest service in this process that keeps what it is sent, and fails as it is told to."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import pyarrow as pa
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from tidegauge.server.batches import unpack
from tidegauge.v1 import ingest_pb2 as wire
from tidegauge.v1 import ingest_pb2_grpc


@dataclass(frozen=True)
class Fault:
    """One answer that is not the expected one."""

    code: str
    retry_after: float | None = None
    kept: bool = False  # the rows are kept and the reply is lost


def status_of(fault: Fault) -> Any:
    status = status_pb2.Status(code=code_pb2.Code.Value(fault.code), message="as the test wants")
    if fault.retry_after is not None:
        info = error_details_pb2.RetryInfo()
        info.retry_delay.FromNanoseconds(int(fault.retry_after * 1e9))
        detail = any_pb2.Any()
        detail.Pack(info)
        status.details.append(detail)
    return rpc_status.to_status(status)


@dataclass
class Door(ingest_pb2_grpc.IngestServiceServicer):
    """Keeps each request once, by its id; `faults` are answered first, in order."""

    faults: deque[Fault] = field(default_factory=deque)
    always: Fault | None = None
    before: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.calls: list[tuple[str, Any, dict[str, str]]] = []  # lane, request, metadata
        self.kept: dict[str, tuple[str, Any]] = {}
        self.dropped: Counter[str] = Counter()
        self.port = 0

    def WritePredictions(self, request, context):
        return self.write("predictions", request, context, wire.WritePredictionsResponse)

    def WriteOutcomes(self, request, context):
        return self.write("outcomes", request, context, wire.WriteOutcomesResponse)

    def write(self, lane, request, context, reply):
        self.before()
        with self.lock:
            self.calls.append((lane, request, dict(context.invocation_metadata())))
            fault = self.faults.popleft() if self.faults else self.always
            replayed = request.request_id in self.kept
            if fault is None or fault.kept:
                if replayed:
                    assert self.kept[request.request_id][1].columns == request.columns
                else:
                    self.kept[request.request_id] = (lane, request)
                    for name in ("queue_full", "expired", "refused"):
                        self.dropped[name] += getattr(request.dropped, name)
        if fault is not None:
            context.abort_with_status(status_of(fault))
        outcome = wire.Outcome(accepted=request.columns.row_count)
        return reply(outcome=outcome, replayed=replayed)

    def requests(self, lane: str) -> list[Any]:
        """Requests that were kept, in the order in which they came."""
        with self.lock:
            return [request for kind, request in self.kept.values() if kind == lane]

    def batches(self, lane: str) -> list[pa.RecordBatch]:
        return [unpack(request.columns) for request in self.requests(lane)]

    def rows(self, lane: str) -> list[dict[str, Any]]:
        return [row for batch in self.batches(lane) for row in batch.to_pylist()]

    def open(self, *, port: int = 0, credentials: Any = None) -> Any:
        """Start to listen; `stop` the server that is returned."""
        server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        ingest_pb2_grpc.add_IngestServiceServicer_to_server(self, server)
        place = f"localhost:{port}"
        if credentials is None:
            self.port = server.add_insecure_port(place)
        else:
            self.port = server.add_secure_port(place, credentials)
        server.start()
        return server

    @property
    def target(self) -> str:
        return f"localhost:{self.port}"
