"""The compiled front: the write rpcs for callers who send a row at a time, many calls a turn."""

from __future__ import annotations

import atexit
import threading
from concurrent.futures import Future
from functools import partial
from importlib import import_module
from typing import Any

from google.protobuf.message import DecodeError

from tidegauge.journal import OUTCOMES, PREDICTIONS
from tidegauge.server.config import Config, ConfigError, seconds_of, size_of
from tidegauge.server.desk import RETRY_AFTER, Answer
from tidegauge.server.refused import Refused, invalid
from tidegauge.server.security import check_plain, read_pem
from tidegauge.server.service import IngestService, refusal_of, status_of, written
from tidegauge.v1 import ingest_pb2

SERVICE = "/tidegauge.v1.IngestService"
ROUTES: tuple[tuple[str, int, Any, Any], ...] = (
    (
        f"{SERVICE}/WritePredictions",
        PREDICTIONS,
        ingest_pb2.WritePredictionsRequest,
        ingest_pb2.WritePredictionsResponse,
    ),
    (
        f"{SERVICE}/WriteOutcomes",
        OUTCOMES,
        ingest_pb2.WriteOutcomesRequest,
        ingest_pb2.WriteOutcomesResponse,
    ),
)
TURN = 256  # calls that are taken at once
PATIENCE = 100  # milliseconds


class Front:
    """A port for WritePredictions and WriteOutcomes alone, in front of the same service.

    Parameters
    ----------
    config
        What the server is told; `config.front` says where to listen.
    ingest
        The service that takes the requests.

    Raises
    ------
    ConfigError
        When the package was built without it, or it cannot listen.
    """

    def __init__(self, config: Config, ingest: IngestService) -> None:
        try:
            core = import_module("tidegauge._front")
        except ImportError as error:
            raise ConfigError(
                f"[front] the compiled front cannot be loaded ({error}); it is built with the "
                "package where gRPC's C++ headers are, Debian's libgrpc++-dev say"
            ) from None
        self._core = core
        self._ingest = ingest
        self._stopped = threading.Event()
        options = self._options(config)
        try:
            self._front = core.Front(options)
        except ValueError as error:
            raise ConfigError(f"[front] {error}") from None
        self.port: int = self._front.port
        self._taker = threading.Thread(target=self._run, name="tidegauge-front", daemon=True)
        self._taker.start()
        atexit.register(self.stop, 0.0)  # no thread waits in the core when the interpreter ends

    def _options(self, config: Config) -> Any:
        assert config.front is not None
        options = self._core.FrontOptions()
        options.address = config.front.address
        options.methods = [name for name, *_ in ROUTES]
        options.message_bytes = size_of(config.listen.message)
        options.waiting_bytes = size_of(config.front.waiting)
        options.keepalive_ms = int(seconds_of(config.listen.keepalive) * 1000)
        options.connection_age_ms = int(seconds_of(config.listen.connection_age) * 1000)
        options.busy = self._refusal(
            Refused(
                "RESOURCE_EXHAUSTED",
                "BACK_PRESSURE",
                "more requests wait than may; send this one again later",
                retry_after=RETRY_AFTER,
            )
        )
        if config.tls is None:
            check_plain(options.address, insecure=config.listen.insecure)
        else:
            options.certificate, options.key, authority = read_pem(config.tls)
            options.client_authority = authority or b""
        return options

    def _refusal(self, error: BaseException) -> Any:
        status = status_of(refusal_of(error))
        return self._core.Refusal(status.code, status.message, status.SerializeToString())

    def _run(self) -> None:
        while not self._stopped.is_set():
            for call in self._front.take(TURN, PATIENCE):
                self._answer(*call)

    def _answer(self, call: int, route: int, authorization: bytes, body: bytes) -> None:
        _, kind, request, response = ROUTES[route]
        try:
            try:
                asked = request.FromString(body)
            except DecodeError as error:
                raise invalid("message", f"is no {request.DESCRIPTOR.name}: {error}") from None
            answer = self._ingest.write(kind, asked, authorization.decode("latin-1"))
        except Exception as error:
            self._front.refuse(call, self._refusal(error))
            return
        answer.add_done_callback(partial(self._reply, call, response))

    def _reply(self, call: int, response: Any, answer: Future[Answer]) -> None:
        if (error := answer.exception()) is not None:
            self._front.refuse(call, self._refusal(error))
        else:
            self._front.reply(call, written(response, answer.result()).SerializeToString())

    def stop(self, grace: float) -> None:
        """Take no new calls; let the open ones end within so many seconds."""
        atexit.unregister(self.stop)
        self._front.stop(int(grace * 1000))
        self._stopped.set()
        self._taker.join()
