"""The HTTP door: CloudEvents of inference loggers, and rows as JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tidegauge.server.cloudevents import Event, read_events
from tidegauge.server.config import Config, ConfigError, Source, seconds_of, size_of
from tidegauge.server.desk import Desk
from tidegauge.server.gathering import Gathering, Taken
from tidegauge.server.inference import Reader
from tidegauge.server.refused import Refused
from tidegauge.server.security import Gate, check_plain

log = logging.getLogger(__name__)

BODY_SECONDS = 30.0  # that a request may take to come in
STATUS = {
    "INVALID_ARGUMENT": HTTPStatus.BAD_REQUEST,
    "NOT_FOUND": HTTPStatus.NOT_FOUND,
    "ALREADY_EXISTS": HTTPStatus.CONFLICT,
    "FAILED_PRECONDITION": HTTPStatus.CONFLICT,
    "RESOURCE_EXHAUSTED": HTTPStatus.TOO_MANY_REQUESTS,
    "UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
    "UNAUTHENTICATED": HTTPStatus.UNAUTHORIZED,
    "PERMISSION_DENIED": HTTPStatus.FORBIDDEN,
}
REASONS = {
    "TOO_LARGE": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "NOT_A_CLOUDEVENT": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "TOO_SLOW": HTTPStatus.REQUEST_TIMEOUT,
}


def problem_of(refusal: Refused) -> Response:
    """Write a refusal as a problem of RFC 9457.

    >>> from tidegauge.server.refused import invalid
    >>> problem_of(invalid("data", "is empty")).status_code
    400
    """
    inner = HTTPStatus.INTERNAL_SERVER_ERROR
    status = REASONS.get(refusal.reason) or STATUS.get(refusal.code, inner)
    body = {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "detail": str(refusal),
        "reason": refusal.reason,
        "fields": [{"field": field, "problem": problem} for field, problem in refusal.fields],
        **refusal.metadata,
    }
    headers = {}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(max(1, round(refusal.retry_after)))
    if status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return Response(json.dumps(body), int(status), headers, "application/problem+json")


def _answer(results: list[Taken | Refused]) -> Response:
    """One status for all events of a request; those that were refused are listed."""
    refused = [(i, result) for i, result in enumerate(results) if isinstance(result, Refused)]
    if refused and (len(refused) == len(results) or refused[0][1].retry_after is not None):
        later = [refusal for _, refusal in refused if refusal.retry_after is not None]
        return problem_of(later[0] if later else refused[0][1])
    taken = [result for result in results if isinstance(result, Taken)]
    waiting = sum(result.waits for result in taken)
    body = {
        "accepted": sum(result.rows for result in taken),
        "waiting": waiting,
        "refused": [
            {"event": i, "reason": refusal.reason, "detail": str(refusal)}
            for i, refusal in refused[:10]
        ],
        "n_refused": len(refused),
    }
    status = HTTPStatus.ACCEPTED if waiting else HTTPStatus.OK
    return Response(json.dumps(body), status, media_type="application/json")


class EventDoor:
    """Listens for events from its construction on until `close`, in a thread of its own.

    Parameters
    ----------
    desk
        Where events go.
    gate
        Who may send them.
    config
        Its `[http]` and `[events]` say where and how.

    Raises
    ------
    ConfigError
        When it cannot listen there.
    """

    def __init__(self, desk: Desk, gate: Gate, config: Config) -> None:
        http = config.http
        assert http is not None
        self._desk = desk
        self._gate = gate
        events = config.events
        self._durable = events.acknowledge == "durable"
        self._message = size_of(config.listen.message)
        self._reader = Reader(lambda model: desk.model(model).monitor.schema, events.models)
        _check_sources(desk, events.models)
        self.gathering = Gathering(
            desk,
            self._reader,
            limit=events.waiting,
            limit_bytes=size_of(events.waiting_bytes),
            within=seconds_of(events.within),
            queue_bytes=size_of(events.queue),
            now=time.time,
        )
        self._socket = _listen(http.address, config)
        self.port: int | None = self._socket.getsockname()[1]
        tls = config.tls
        authority = tls.client_authority if tls else None
        self._server = uvicorn.Server(
            uvicorn.Config(
                Starlette(routes=[Route("/v1/events", self._post, methods=["POST"])]),
                ssl_certfile=tls.certificate if tls else None,
                ssl_keyfile=tls.key if tls else None,
                ssl_ca_certs=str(authority) if authority else None,
                ssl_cert_reqs=ssl.CERT_REQUIRED if authority else ssl.CERT_NONE,
                limit_concurrency=http.connections,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=int(seconds_of(config.listen.grace)),
                http="httptools",
                lifespan="off",
                ws="none",
                server_header=False,
                access_log=False,
                log_config=None,
            )
        )
        self._thread = threading.Thread(target=self._run, name="tidegauge-events", daemon=True)
        self._thread.start()
        log.info("events are taken on %s (port %d)", http.address, self.port)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        writing = asyncio.create_task(self.gathering.run(patient=not self._durable))
        with self._socket:  # uvicorn leaves it open where it is stopped before it has begun
            await self._server.serve(sockets=[self._socket])
        self.gathering.close()
        await writing

    async def _post(self, request: Request) -> Response:
        try:
            authorization = request.headers.get("authorization", "")
            self._gate.allows(authorization, "write", "*")  # whoever is unknown sends nothing
            events = read_events(request.headers.items(), await self._body(request))
            return _answer(await self._take(events, authorization))
        except Refused as refusal:
            return problem_of(refusal)

    async def _body(self, request: Request) -> bytes:
        length = request.headers.get("content-length", "0")
        parts: list[bytes] = []
        size = int(length) if length.isdecimal() else 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                if size <= self._message:
                    size = 0
                    async for part in request.stream():
                        parts.append(part)
                        size += len(part)
                        if size > self._message:
                            break
        except TimeoutError:
            raise Refused(
                "INVALID_ARGUMENT", "TOO_SLOW", f"the body took more than {BODY_SECONDS:.0f} s"
            ) from None
        if size > self._message:
            raise Refused(
                "RESOURCE_EXHAUSTED",
                "TOO_LARGE",
                f"the body has more than {self._message} bytes; send fewer events at once",
            )
        return b"".join(parts)

    async def _take(
        self, events: Sequence[Event | Refused], authorization: str
    ) -> list[Taken | Refused]:
        """Offer events, and wait for them where a reply means that they are kept."""
        results: list[Taken | Refused] = []
        offers: list[tuple[int, asyncio.Future[Taken]]] = []
        for place, event in enumerate(events):
            try:
                if isinstance(event, Refused):
                    raise event
                model = self._reader.model_of(event)
                self._gate.check(authorization, "write", model)
                said = self._reader.read(event)
                offers.append((place, self.gathering.offer(event, said)))
                results.append(Taken(0, waits=True))
            except Refused as refusal:
                self._desk.refused["", refusal.reason] += 1
                results.append(refusal)
        if self._durable:
            for place, offer in offers:
                try:
                    results[place] = await offer
                except Refused as refusal:
                    results[place] = refusal
        return results

    def close(self) -> None:
        """Take nothing new, reply to everything taken."""
        self._server.should_exit = True
        self._thread.join()


def _check_sources(desk: Desk, sources: Mapping[str, Source]) -> None:
    for model, source in sources.items():
        watched = desk.models.get(model)
        known = watched.monitor.schema.columns if watched else source.columns
        if wrong := [name for name in source.columns if name and name not in known]:
            raise ConfigError(
                f"[events.models.{model}] names column {wrong[0]!r}; the schema has: "
                + ", ".join(known)
            )


def _listen(address: str, config: Config) -> socket.socket:
    if config.tls is None:
        check_plain(address, insecure=config.listen.insecure)
    host, _, port = address.rpartition(":")
    try:
        family, kind, _, _, place = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM
        )[0]
        # asyncio sends without delay only where a socket names its protocol.
        listening = socket.socket(family, kind, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(place)
            listening.listen(1024)
        except BaseException:
            listening.close()
            raise
        return listening
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(f"[http] {address} cannot be listened on: {error}") from None
