"""Calls of the two write rpcs, and what their answers mean."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from google.rpc import error_details_pb2, status_pb2

from tidegauge.server.waiting import Cause, Lane
from tidegauge.v1 import ingest_pb2 as wire

REQUESTS: Mapping[Lane, Any] = {
    "predictions": wire.WritePredictionsRequest,
    "outcomes": wire.WriteOutcomesRequest,
}
_METHODS: Mapping[Lane, str] = {"predictions": "WritePredictions", "outcomes": "WriteOutcomes"}
ANSWER_SECONDS = 10.0
_DETAILS = "grpc-status-details-bin"
_TRANSIENT = frozenset(
    (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
    )
)
_OPTIONS = (
    ("grpc.enable_retries", 0),  # the sender has its own, with the same request id
    ("grpc.use_local_subchannel_pool", 1),  # a closed channel leaves no connection behind
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is, and how it and we prove who we are."""

    target: str
    tls: bool = False
    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    token: str | None = None

    def __repr__(self) -> str:
        return f"{'grpcs' if self.tls else 'grpc'}://{self.target}"

    def open(self) -> Any:
        """Open a channel."""
        if not self.tls:
            return grpc.insecure_channel(self.target, options=_OPTIONS)
        credentials = grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)
        return grpc.secure_channel(self.target, credentials, options=_OPTIONS)

    def ask(self, stub: Callable[[Any], Any], rpc: str, request: Any) -> Any:
        """Call one rpc over a channel of its own and wait for the answer.

        Raises
        ------
        ConnectionError
            When there is none.
        """
        channel = self.open()
        try:
            call = getattr(stub(channel), rpc)
            return call(request, metadata=self.metadata, timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            raise ConnectionError(
                f"{self!r} does not answer {rpc}: {error.code().name}, {error.details()}"
            ) from None
        finally:
            channel.close()

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Who we are, for each call."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)


@dataclass(frozen=True, slots=True)
class Kept:
    """The rows are on the server's disk."""

    duplicates: int
    rejected: int
    replayed: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """The rows are not known to be kept; `again` says whether the same request may help."""

    again: bool
    why: str
    after: float | None = None  # seconds, where the server says when
    reason: str = ""  # one word for programs


Verdict: TypeAlias = Kept | Failed


class Transport:
    """A channel to the server."""

    def __init__(self, address: Address) -> None:
        self._channel = address.open()
        self._metadata = address.metadata
        service = wire.DESCRIPTOR.services_by_name["IngestService"]
        self._calls = {
            lane: self._channel.unary_unary(
                f"/{service.full_name}/{method}",
                response_deserializer=getattr(wire, f"{method}Response").FromString,
            )
            for lane, method in _METHODS.items()
        }

    def start(self, lane: Lane, body: bytes, *, timeout: float, done: Callable[[Any], None]) -> Any:
        """Begin a call; `done` is called with it, in a thread of gRPC, when it has ended."""
        call = self._calls[lane].future(body, timeout=timeout, metadata=self._metadata)
        call.add_done_callback(done)
        return call

    def close(self) -> None:
        """End every call and leave nothing behind."""
        self._channel.close()


def tail(lane: Lane, dropped: Mapping[Cause, int]) -> bytes:
    """What is said of a request as it is sent: appended to its bytes, which stay as they are."""
    request = REQUESTS[lane]()
    request.sent_at.FromNanoseconds(time.time_ns())
    if any(dropped.values()):
        for cause, rows in dropped.items():
            setattr(request.dropped, cause, rows)
    said: bytes = request.SerializeToString()
    return said


def verdict(call: Any) -> Verdict:
    """Read the answer to a call that has ended.

    Back-pressure is RESOURCE_EXHAUSTED that says when to try again; without that it means that the
    message is too large for ever.
    """
    code = call.code()
    if code is grpc.StatusCode.OK:
        reply = call.result()
        outcome = reply.outcome
        return Kept(outcome.duplicates, outcome.rejected, reply.replayed)
    why = f"{code.name}: {call.details()}"
    after, reason = _details(call)
    again = code in _TRANSIENT or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and after is not None)
    return Failed(again, why, after, reason)


def _details(call: Any) -> tuple[float | None, str]:
    """Seconds of the RetryInfo and reason of the ErrorInfo among the details of an error."""
    after, reason = None, ""
    retry, about = error_details_pb2.RetryInfo(), error_details_pb2.ErrorInfo()
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS:
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(retry):
                    after = float(retry.retry_delay.ToNanoseconds()) / 1e9
                elif detail.Unpack(about):
                    reason = str(about.reason)
    return after, reason
