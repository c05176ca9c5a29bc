"""A server from its configuration: journal, desk, services, health; started, drained, stopped."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import grpc
import pyarrow as pa
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tidegauge.history import Rules
from tidegauge.journal import Journal
from tidegauge.server.config import Config, ConfigError, seconds_of, size_of
from tidegauge.server.config import History as HistoryConfig
from tidegauge.server.desk import Desk, fingerprint
from tidegauge.server.doors import open_doors
from tidegauge.server.front import Front
from tidegauge.server.security import Gate, credentials
from tidegauge.server.service import AdminService, IngestService, QueryService
from tidegauge.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    ingest_pb2,
    ingest_pb2_grpc,
    query_pb2,
    query_pb2_grpc,
)

log = logging.getLogger(__name__)

WORKERS = 128  # threads for calls that are not streams; one that waits costs a few kilobytes
SWITCH = 0.0005  # seconds that a thread may keep the interpreter while others wait
SERVICES = {
    "tidegauge.v1.IngestService": ingest_pb2,
    "tidegauge.v1.QueryService": query_pb2,
    "tidegauge.v1.AdminService": admin_pb2,
}


class Server:
    """Listens from its construction on until `stop`.

    Parameters
    ----------
    config
        What it is told. Port 0 takes a free one; `port` says which.

    Raises
    ------
    ConfigError
        When it cannot be so.
    JournalError
        When the directory cannot be used.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from tidegauge.server.config import Listen, Storage
    >>> storage = Storage(Path(tempfile.mkdtemp()), journal="64MiB", min_free="0")
    >>> with Server(Config(Listen("127.0.0.1:0"), storage)) as server:
    ...     server.port > 0
    True
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        listen, storage = config.listen, config.storage
        secret = credentials(config)
        journal = Journal(
            storage.directory,
            limit=size_of(storage.journal),
            min_free=size_of(storage.min_free),
            durability=storage.durability,
        )
        self.desk = Desk(
            journal,
            in_flight_bytes=size_of(storage.in_flight),
            checkpoint_bytes=size_of(storage.checkpoint),
        )
        pa.array([""])  # makes pyarrow look for pandas now, rather than in the first request
        self._stopped = threading.Event()
        self._stopping = threading.Lock()
        self.front: Front | None = None
        try:
            self._put_models()
            self._gate = Gate(config.tokens)
            self._ingest = IngestService(self.desk, self._gate, listen.streams)
            if config.history.enabled:
                self.desk.open_history(storage.directory / "history", rules_of(config.history))
            self._health = health.HealthServicer()
            self._server = self._make_server()
            self.port = self._listen(secret)
            if config.front is not None:
                self.front = Front(config, self._ingest)
            self.doors = open_doors(self.desk, self._gate, config)
        except BaseException:
            if self.front is not None:
                self.front.stop(0.0)
            self.desk.close()
            raise
        self.desk.listen(self._tell_health)
        self._serving: bool | None = None
        self._tell_health()
        self._keeper = threading.Thread(target=self._keep, name="tidegauge-keeper", daemon=True)
        self._keeper.start()
        self._server.start()
        log.info("listening on %s (port %d)", listen.address, self.port)

    def _put_models(self) -> None:
        """Add the models of the configuration that are not there yet."""
        for name, model in self.config.models.items():
            try:
                reference = model.reference.read_bytes()
            except OSError as error:
                raise ConfigError(f"[models.{name}] {model.reference}: {error.strerror}") from None
            if (watched := self.desk.models.get(name)) is None:
                asked = admin_pb2.PutModelRequest(
                    name=name,
                    reference=reference,
                    window=model.window or "",
                    lateness=model.lateness,
                    retention=model.retention,
                    sample_rows=model.sample_rows,
                )
                self.desk.put_model(asked).result()
                continue
            monitor = self.desk.read_reference(reference)
            if fingerprint(monitor.schema.to_toml()) != watched.fingerprint or (
                monitor.secret != watched.monitor.reference.secret
            ):
                raise ConfigError(
                    f"[models.{name}] {model.reference} is another reference than the one that "
                    "its events were counted with; give the new one a name of its own"
                )

    def _make_server(self) -> Any:
        listen = self.config.listen
        beat = int(seconds_of(listen.keepalive) * 1000)
        age = int(seconds_of(listen.connection_age) * 1000)
        size = size_of(listen.message)
        server = grpc.server(
            ThreadPoolExecutor(WORKERS + listen.streams, thread_name_prefix="tidegauge-rpc"),
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", size),
                ("grpc.max_send_message_length", size),
                ("grpc.keepalive_time_ms", beat),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
                ("grpc.max_connection_age_ms", age),
                ("grpc.max_connection_age_grace_ms", 30_000),
                ("grpc.max_concurrent_streams", 256),
            ],
        )
        ingest_pb2_grpc.add_IngestServiceServicer_to_server(self._ingest, server)
        onnx = {name: model.onnx for name, model in self.config.models.items() if model.onnx}
        query_pb2_grpc.add_QueryServiceServicer_to_server(
            QueryService(self.desk, self._gate, onnx), server
        )
        admin_pb2_grpc.add_AdminServiceServicer_to_server(
            AdminService(self.desk, self._gate), server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if listen.reflection:
            names = [*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME]
            reflection.enable_server_reflection(names, server)
        return server

    def _listen(self, secret: grpc.ServerCredentials | None) -> int:
        """Take the port; which one it is."""
        address = self.config.listen.address
        try:
            if secret is None:
                return int(self._server.add_insecure_port(address))
            return int(self._server.add_secure_port(address, secret))
        except RuntimeError as error:
            raise ConfigError(f"{address} cannot be listened on: {error}") from None

    def _tell_health(self) -> None:
        """Let the health service say whether requests are taken."""
        serving = self.desk.trouble is None and not self.desk.draining
        if serving == self._serving:
            return
        self._serving = serving
        states = health_pb2.HealthCheckResponse
        for name in ("", *SERVICES):
            reads = name.endswith("QueryService") and not self.desk.draining
            state = states.SERVING if serving or reads else states.NOT_SERVING
            self._health.set(name, state)

    def _keep(self) -> None:
        """What is due every second."""
        every = seconds_of(self.config.history.every)
        sealed, rows = time.monotonic(), self.desk.n_rows
        while not self._stopped.wait(1.0):
            try:
                if self.config.storage.durability == "process":
                    self.desk.journal.sync()
                many = self.desk.n_rows - rows >= self.config.history.rows
                if self.desk.history and (many or time.monotonic() - sealed >= every):
                    sealed, rows = time.monotonic(), self.desk.n_rows
                    self.desk.seal()
            except Exception:  # what is due must not end what keeps it
                log.exception("what is due failed; it is tried again")

    def stop(self) -> None:
        """Take nothing new, reply to everything taken, store the state, close the journal."""
        with self._stopping:
            if self._stopped.is_set():
                return
            for door in self.doors.values():
                door.close()
            self.desk.drain()
            self._tell_health()
            grace = seconds_of(self.config.listen.grace)
            stopping = self._server.stop(grace)
            if self.front is not None:
                self.front.stop(grace)
            stopping.wait()
            self._stopped.set()
            self._keeper.join()
            self.desk.close()
            log.info("stopped")

    def wait(self) -> None:
        """Return once the server has stopped."""
        self._stopped.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def rules_of(history: HistoryConfig) -> Rules:
    """Rules of the history, as the configuration has them."""
    keep_for, keep_bytes = history.keep_for, history.keep_bytes
    return Rules(
        rows=history.rows,
        keep_for=None if keep_for is None else seconds_of(keep_for),
        keep_bytes=None if keep_bytes is None else size_of(keep_bytes),
    )


def serve(config: Config) -> None:
    """Run a server until SIGTERM or SIGINT, then drain it."""
    sys.setswitchinterval(SWITCH)
    # Python's own handler runs between its steps, and one that comes just before the thread waits
    # would wake nobody. The byte is written as the signal comes.
    asked, teller = socket.socketpair()
    teller.setblocking(False)
    signal.set_wakeup_fd(teller.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    with Server(config) as server:
        for name, door in server.doors.items():
            if door.port is not None:
                sys.stderr.write(f"tidegauge: {name} on port {door.port}\n")
        sys.stderr.write(f"tidegauge: listening on port {server.port}\n")
        sys.stderr.flush()
        asked.recv(1)
        log.info("asked to stop")
