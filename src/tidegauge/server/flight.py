"""The bulk lane: Arrow Flight DoPut, a long stream of batches, each told of once it is kept."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import flight

from tidegauge.journal import KINDS, PREDICTIONS, STREAM
from tidegauge.server import batches
from tidegauge.server.config import Config, ConfigError, seconds_of, size_of
from tidegauge.server.desk import Answer, Desk
from tidegauge.server.refused import Refused, invalid, no_stream
from tidegauge.server.security import Gate, check_plain, is_loopback, read_pem
from tidegauge.server.service import status_of, stream_response

log = logging.getLogger(__name__)

WINDOW = 16  # batches of a stream that may wait for their acknowledgement
_ERRORS = {
    "UNAUTHENTICATED": flight.FlightUnauthenticatedError,
    "PERMISSION_DENIED": flight.FlightUnauthorizedError,
    "UNAVAILABLE": flight.FlightUnavailableError,
    "RESOURCE_EXHAUSTED": flight.FlightUnavailableError,
}
Entry = tuple[str, Future[Answer] | Refused]


@dataclass(frozen=True, slots=True)
class Stream:
    """What the path of a stream's descriptor says.

    >>> Stream.of([b"flights", b"outcomes", b"load 7"]).request_id(2)
    'load 7-2'
    """

    model: str
    kind: int
    prefix: str
    version: str

    @classmethod
    def of(cls, path: list[bytes]) -> Stream:
        """Read it: model, kind, prefix of the request ids and, if it is to be, the version."""
        try:
            model, kind, prefix, *version = [part.decode() for part in path]
        except (UnicodeDecodeError, ValueError):
            model, kind, prefix, version = "", "", "", []
        if kind not in KINDS or len(version) > 1:
            raise invalid(
                "descriptor",
                "a path is wanted: the model, 'predictions' or 'outcomes', what the request ids "
                "begin with and, for predictions, the version of rows that name none",
            )
        return cls(model, KINDS[kind], prefix, version[0] if version else "")

    def request_id(self, place: int) -> str:
        """Name of a batch that brings none itself."""
        return f"{self.prefix}-{place}"


class _Caller(flight.ServerMiddleware):  # type: ignore[misc]
    """What a caller says of itself."""

    def __init__(self, authorization: str) -> None:
        super().__init__()
        self.authorization = authorization


class _Callers(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """Lets nobody in who is unknown: no byte of the stream has been read yet."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    def start_call(self, _: Any, headers: dict[str, list[str]]) -> _Caller:
        found = [values for name, values in headers.items() if name.lower() == "authorization"]
        authorization = str(found[0][0]) if found else ""
        with _told():
            self._gate.allows(authorization, "write", "*")
        return _Caller(authorization)


@contextmanager
def _told() -> Iterator[None]:
    """Tell a refusal as an error of Flight, its google.rpc.Status beside it."""
    try:
        yield
    except Refused as refusal:
        made = _ERRORS.get(refusal.code, flight.FlightServerError)
        status = status_of(refusal).SerializeToString()
        raise made(f"{refusal.reason}: {refusal}", status) from None


class FlightDoor(flight.FlightServerBase):  # type: ignore[misc]
    """Listens for streams of batches from its construction on until `close`.

    Parameters
    ----------
    desk
        Where batches go.
    gate
        Who may send them.
    config
        Its `[flight]` says where and how.

    Raises
    ------
    ConfigError
        When it cannot listen there, or everybody could.
    """

    def __init__(self, desk: Desk, gate: Gate, config: Config) -> None:
        lane, tls = config.flight, config.tls
        assert lane is not None
        certificates: list[tuple[bytes, bytes]] = []
        authority: bytes | None = None
        if tls is None:
            check_plain(lane.address, insecure=config.listen.insecure)
        else:
            certificate, key, authority = read_pem(tls)
            certificates = [(certificate, key)]
        if not (is_loopback(lane.address) or config.tokens or authority):
            raise ConfigError(
                f"[flight] {lane.address} can be reached from elsewhere: configure [[tokens]] or "
                "[tls] client_authority, as the lane reads a batch before it can judge its size"
            )
        self._desk = desk
        self._gate = gate
        self._batch_bytes = size_of(lane.batch)
        self._streams = threading.BoundedSemaphore(lane.streams)
        self._grace = seconds_of(config.listen.grace)
        scheme = "grpc+tls" if tls else "grpc"
        try:
            super().__init__(
                f"{scheme}://{lane.address}",
                tls_certificates=certificates,
                verify_client=authority is not None,
                root_certificates=authority,
                middleware={"caller": _Callers(gate)},
            )
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"[flight] {lane.address} cannot be listened on: {error}") from None
        log.info("the bulk lane is on %s (port %d)", lane.address, self.port)

    def do_put(
        self,
        context: Any,
        descriptor: Any,
        reader: Any,
        writer: Any,
    ) -> None:
        """Take a stream; a batch that is refused does not end it."""
        with _told():
            stream = Stream.of(descriptor.path or [])
            caller = context.get_middleware("caller")
            self._gate.check(caller.authorization, "write", stream.model)
            self._desk.model(stream.model)
            batches.check_schema(reader.schema)
            if not self._streams.acquire(blocking=False):
                raise no_stream()
        try:
            self._take(stream, reader, writer)
        finally:
            self._streams.release()

    def _take(self, stream: Stream, reader: Any, writer: Any) -> None:
        entries: queue.Queue[Entry | None] = queue.Queue(WINDOW)
        acknowledging = threading.Thread(
            target=_acknowledge, args=(entries, writer), name="tidegauge-lane", daemon=True
        )
        acknowledging.start()
        try:
            for place, chunk in enumerate(_chunks(reader)):
                name = chunk.app_metadata
                request_id = name.to_pybytes().decode() if name else stream.request_id(place)
                entries.put((request_id, self._write(stream, request_id, chunk.data)))
        except (pa.ArrowException, UnicodeDecodeError) as error:
            with _told():
                text = str(error).split("\n")[0]
                raise invalid("stream", f"is damaged: {text}", reason="BROKEN_STREAM") from None
        finally:
            entries.put(None)
            acknowledging.join()

    def _write(
        self, stream: Stream, request_id: str, batch: pa.RecordBatch
    ) -> Future[Answer] | Refused:
        try:
            size = batch.get_total_buffer_size()  # nbytes trusts offsets that nobody has checked
            if size > self._batch_bytes:
                raise Refused(
                    "RESOURCE_EXHAUSTED",
                    "TOO_LARGE",
                    f"a batch of {size} bytes; allowed are {self._batch_bytes}",
                )
            body, rows = batches.rewritten(batch)
            return self._desk.write(
                stream.kind,
                stream.model,
                request_id,
                encoding=STREAM,
                body=body,
                rows=rows,
                version=stream.version if stream.kind == PREDICTIONS else "",
            )
        except Refused as refusal:
            return refusal

    def close(self) -> None:
        """Take nothing new; streams that are open get the time of `[listen] grace` to end."""
        closing = threading.Thread(target=self.shutdown, name="tidegauge-lane-end", daemon=True)
        closing.start()
        closing.join(self._grace)


def _chunks(reader: Any) -> Iterator[Any]:
    while True:
        try:
            chunk = reader.read_chunk()
        except StopIteration:
            return
        yield chunk


def _acknowledge(entries: queue.Queue[Entry | None], writer: Any) -> None:
    """Tell what came of each batch, in their order; of none any more once the caller is gone."""
    there = True
    while (entry := entries.get()) is not None:
        response = stream_response(*entry)
        try:
            if there:
                writer.write(pa.py_buffer(response.SerializeToString()))
        except (pa.ArrowException, OSError):
            there = False
