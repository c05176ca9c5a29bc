"""Servers for tests: one in this process, one in a process of its own, and traffic for both."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa

import tidegauge as tg
from tidegauge.server import batches
from tidegauge.server.config import Config, Listen, Storage
from tidegauge.v1 import (
    admin_pb2_grpc,
    ingest_pb2,
    ingest_pb2_grpc,
    query_pb2,
    query_pb2_grpc,
)

HOUR = 3_600_000_000
START = 1_700_000_000_000_000 // HOUR * HOUR
SCHEMA = tg.Schema(
    task="binary",
    features=["age", "plan"],
    prediction_id="id",
    timestamp="time",
    model_version="version",
    prediction_score="score",
    label="late",
)


def predictions(n: int, *, first: int = 0, version: str | None = "v1") -> pa.RecordBatch:
    """Rows of ids `first` and on; a thousand an hour. What a row holds follows from its id."""
    ids = np.arange(first, first + n)
    columns = {
        "id": pa.array(ids, pa.int64()),
        "time": pa.array(START + ids * (HOUR // 1000), pa.timestamp("us", tz="UTC")),
        "age": pa.array((ids * 37 % 83).astype(np.float32)),
        "plan": pa.DictionaryArray.from_arrays(
            pa.array((ids % 3).astype(np.int32)), ["basic", "plus", "pro"]
        ),
        "score": pa.array((ids * 53 % 101) / 101),
    }
    if version is not None:
        columns["version"] = pa.array([version] * n)
    return pa.record_batch(columns)


def outcomes(n: int, *, first: int = 0) -> pa.RecordBatch:
    """Labels of the same ids, half an hour later."""
    ids = np.arange(first, first + n)
    moments = START + ids * (HOUR // 1000) + HOUR // 2
    return pa.record_batch(
        {
            "id": pa.array(ids),
            "late": pa.array((ids * 53 % 101 > 60).astype(int)),
            "time": pa.array(moments, pa.timestamp("us", tz="UTC")),
        }
    )


def reference_file(directory: Path) -> Path:
    """A fitted reference."""
    path = directory / "reference.tide"
    if not path.exists():
        rows = predictions(3000)
        labels = outcomes(3000)["late"]
        table = pa.Table.from_batches([rows]).append_column("late", labels)
        tg.Reference.fit(table, SCHEMA, bins=64).save(path)
    return path


def config(directory: Path, **tables: Any) -> Config:
    """A small configuration on a free port; tables take the place of its own."""
    storage = Storage(directory / "data", journal="256MiB", min_free="0", durability="process")
    return Config(**{"listen": Listen("127.0.0.1:0"), "storage": storage, **tables})


class Caller:
    """Stubs of one connection."""

    def __init__(self, target: str | grpc.Channel, token: str | None = None) -> None:
        self.channel = grpc.insecure_channel(target) if isinstance(target, str) else target
        self.ingest = ingest_pb2_grpc.IngestServiceStub(self.channel)
        self.query = query_pb2_grpc.QueryServiceStub(self.channel)
        self.admin = admin_pb2_grpc.AdminServiceStub(self.channel)
        self.metadata = [("authorization", f"Bearer {token}")] if token else []

    def log(self, rows: pa.RecordBatch, **fields: Any) -> Any:
        """Write predictions as packed columns."""
        request = write_predictions(rows, **fields)
        return self.ingest.WritePredictions(request, metadata=self.metadata, timeout=30)

    def label(self, rows: pa.RecordBatch, **fields: Any) -> Any:
        """Write outcomes as packed columns."""
        request = write_outcomes(rows, **fields)
        return self.ingest.WriteOutcomes(request, metadata=self.metadata, timeout=30)

    def account(self, model: str = "flights") -> Mapping[str, int]:
        """What became of every event."""
        request = query_pb2.GetAccountRequest(model=model)
        return dict(self.query.GetAccount(request, metadata=self.metadata, timeout=30).events)

    def metrics(self, *names: str, model: str = "flights", **asked: Any) -> pa.Table:
        """Metrics as a table."""
        request = query_pb2.GetMetricsRequest(model=model, metrics=names, **asked)
        parts = self.query.GetMetrics(request, metadata=self.metadata, timeout=60)
        data = b"".join(part.arrow_stream for part in parts)
        return pa.ipc.open_stream(data).read_all()


def write_predictions(rows: pa.RecordBatch, **fields: Any) -> ingest_pb2.WritePredictionsRequest:
    """Request with packed columns."""
    named = {"model": "flights", "request_id": str(uuid.uuid4()), **fields}
    return ingest_pb2.WritePredictionsRequest(columns=batches.pack(rows), **named)


def write_outcomes(rows: pa.RecordBatch, **fields: Any) -> ingest_pb2.WriteOutcomesRequest:
    """Request with packed columns."""
    named = {"model": "flights", "request_id": str(uuid.uuid4()), **fields}
    return ingest_pb2.WriteOutcomesRequest(columns=batches.pack(rows), **named)


class ServerProcess:
    """`tidegauge serve` in a process of its own."""

    def __init__(self, directory: Path, *flags: str, env: Mapping[str, str] | None = None) -> None:
        source = str(Path(tg.__file__).parent.parent)
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tidegauge.cli",
                "serve",
                "--listen=127.0.0.1:0",
                f"--directory={directory / 'data'}",
                f"--model=flights={reference_file(directory)}",
                *flags,
            ],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": source, **(env or {})},
        )
        self.said: list[str] = []
        self.port = self._wait()

    def _wait(self) -> int:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if line.startswith("tidegauge: listening on port "):
                return int(line.split()[-1])
        self.wait()
        raise RuntimeError("".join(self.said))

    def caller(self) -> Caller:
        """A connection to it."""
        return Caller(f"127.0.0.1:{self.port}")

    def stop(self) -> int:
        """Ask it to stop; its exit code."""
        self.process.terminate()
        return self.wait()

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        """Wait for its end; its exit code."""
        _, said = self.process.communicate(timeout=60)
        self.said.append(said)
        return self.process.returncode


@contextmanager
def server_process(directory: Path, *flags: str, **settings: Any) -> Iterator[ServerProcess]:
    """Such a process, killed at the end if it still runs."""
    server = ServerProcess(directory, *flags, **settings)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate of this machine that is its own authority, and its key."""
    paths = directory / "certificate.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-out", str(paths[0]), "-keyout", str(paths[1])]
    subprocess.run(command, check=True, capture_output=True)
    return paths


def until(happened: Any, *, limit: float = 20.0) -> None:
    """Wait for what another thread or process does."""
    end = time.monotonic() + limit
    while not happened():
        if time.monotonic() > end:
            raise AssertionError("it did not happen in time")
        time.sleep(0.01)
