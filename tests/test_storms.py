"""A server in bad company: idle and slow connections, dying clients, more than it can take."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from served import (
    Caller,
    ServerProcess,
    config,
    predictions,
    reference_file,
    server_process,
    until,
    write_predictions,
)

from tidegauge.server import desk as desk_module
from tidegauge.server.config import ModelConfig
from tidegauge.server.serve import Server
from tidegauge.v1 import ingest_pb2

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ROWS = 20


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with server_process(tmp_path_factory.mktemp("storms")) as one:
        yield one


def connections(n: int, port: int, stack: ExitStack) -> list[socket.socket]:
    """So many open connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2 * n:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * n), hard))
    return [
        stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        for _ in range(n)
    ]


def test_a_thousand_connections_that_say_nothing_are_borne(running: ServerProcess) -> None:
    caller = running.caller()
    caller.log(predictions(ROWS))
    with ExitStack() as stack:
        connections(1000, running.port, stack)
        assert caller.log(predictions(ROWS)).outcome.accepted == ROWS
        assert running.caller().log(predictions(ROWS)).outcome.accepted == ROWS


def test_slow_and_broken_speakers_hold_up_nobody(running: ServerProcess) -> None:
    caller = running.caller()
    with ExitStack() as stack:
        slow = connections(100, running.port, stack)
        for at in range(len(PREFACE)):
            for each in slow[:50]:
                each.send(PREFACE[at : at + 1])
        for each in slow[50:75]:
            each.sendall(b"GET / HTTP/1.1\r\n\r\n")
        for each in slow[75:]:
            each.sendall(PREFACE + os.urandom(4096))
        assert caller.log(predictions(ROWS)).outcome.accepted == ROWS


def stream_for_ever(port: int, ready: object) -> None:
    """A client that streams until somebody ends it."""
    caller = Caller(f"127.0.0.1:{port}")

    def requests() -> Iterator[ingest_pb2.StreamWriteRequest]:
        number = 0
        while True:
            rows = predictions(ROWS, first=1_000_000 + number * ROWS)
            yield ingest_pb2.StreamWriteRequest(predictions=write_predictions(rows))
            number += 1

    for number, reply in enumerate(caller.ingest.StreamWrite(requests())):
        assert reply.outcome.accepted == ROWS
        if number == 20:
            ready.set()  # type: ignore[attr-defined]


def test_a_client_that_dies_in_its_stream_leaves_whole_requests(running: ServerProcess) -> None:
    caller = running.caller()
    before = caller.account()["predictions"]
    start = multiprocessing.get_context("spawn")
    ready = start.Event()
    client = start.Process(target=stream_for_ever, args=(running.port, ready))
    client.start()
    assert ready.wait(60)
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)
    client.join()
    counts: list[int] = []

    def settled() -> bool:
        counts.append(caller.account()["predictions"])
        time.sleep(0.2)
        return len(counts) > 1 and counts[-1] == counts[-2]

    until(settled)
    assert counts[-1] - before >= 21 * ROWS
    assert (counts[-1] - before) % ROWS == 0
    assert caller.log(predictions(ROWS)).outcome.accepted == ROWS


def test_under_overload_what_is_accepted_and_refused_is_what_was_offered(tmp_path: Path) -> None:
    models = {"flights": ModelConfig(reference_file(tmp_path))}
    size = write_predictions(predictions(ROWS)).ByteSize() + desk_module.REQUEST_BYTES
    came: Counter[str] = Counter()
    with Server(config(tmp_path, models=models)) as server:
        server.desk.in_flight_bytes = 3 * size

        def offer(number: int) -> None:
            caller = Caller(f"127.0.0.1:{server.port}")
            for at in range(40):
                try:
                    caller.log(predictions(ROWS, first=(number * 40 + at) * ROWS))
                    came["accepted"] += 1
                except grpc.RpcError as error:
                    details = rpc_status.from_call(error).details
                    retry = error_details_pb2.RetryInfo()
                    if any(detail.Unpack(retry) for detail in details):
                        came["refused"] += 1

        with ThreadPoolExecutor(12) as pool:
            list(pool.map(offer, range(12)))
        with pytest.raises(grpc.RpcError) as whale:  # no wait would help this one
            Caller(f"127.0.0.1:{server.port}").log(predictions(10 * ROWS))
        assert not any(
            detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
            for detail in rpc_status.from_call(whale.value).details
        )
        account = Caller(f"127.0.0.1:{server.port}").account()
        refused = server.desk.refused["flights", "BACK_PRESSURE"]
    assert came["refused"] > 0, "it was no overload"
    assert came["accepted"] + came["refused"] == 12 * 40
    assert account["predictions"] == came["accepted"] * ROWS
    assert refused == came["refused"]


def test_a_stop_under_load_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    acknowledged: list[int] = []
    sent: list[int] = []
    numbers = iter(range(1_000_000))
    lock = threading.Lock()
    over = threading.Event()
    with server_process(tmp_path) as server:

        def write(_: int) -> None:
            caller = server.caller()
            while not over.is_set():
                with lock:
                    number = next(numbers)
                    sent.append(number)
                try:
                    caller.log(predictions(ROWS, first=number * ROWS), request_id=f"n{number}")
                except grpc.RpcError:
                    return
                acknowledged.append(number)

        with ThreadPoolExecutor(6) as pool:
            writers = pool.map(write, range(6))
            try:
                until(lambda: len(acknowledged) > 60)
                began = time.monotonic()
                assert server.stop() == 0
                assert time.monotonic() - began < 20
            finally:
                over.set()
            list(writers)
    with server_process(tmp_path) as again:
        caller = again.caller()
        kept = caller.account()["predictions"]
        assert len(acknowledged) * ROWS <= kept <= len(sent) * ROWS
        replayed = 0
        for number in sent:  # whoever had no reply sends it again
            rows = predictions(ROWS, first=number * ROWS)
            replayed += caller.log(rows, request_id=f"n{number}").replayed
        assert replayed * ROWS == kept
        assert caller.account()["predictions"] == len(sent) * ROWS


@pytest.mark.parametrize("hours", [-25, -1, 1, 23])
def test_a_clock_that_jumps_changes_no_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    models = {"flights": ModelConfig(reference_file(tmp_path))}
    with Server(config(tmp_path, models=models)) as server:
        caller = Caller(f"127.0.0.1:{server.port}")
        caller.log(predictions(ROWS), request_id="before")
        real = time.time_ns
        monkeypatch.setattr(desk_module.time, "time_ns", lambda: real() + hours * 3600 * 10**9)
        assert caller.log(predictions(ROWS), request_id="before").replayed
        assert not caller.log(predictions(ROWS, first=ROWS), request_id="after").replayed
        monkeypatch.undo()
        assert caller.log(predictions(ROWS, first=ROWS), request_id="after").replayed
        before = caller.account()
    with Server(config(tmp_path, models=models)) as server:
        assert Caller(f"127.0.0.1:{server.port}").account() == before
