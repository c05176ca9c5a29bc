"""The compiled front: the same service for single calls, taken many at a time."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from served import Caller, config, outcomes, predictions, reference_file, until, write_predictions

from tidegauge.journal import JournalError
from tidegauge.server import serve
from tidegauge.server.config import Config, ConfigError, Listen, ModelConfig, Token, config_of
from tidegauge.server.config import Front as FrontConfig
from tidegauge.server.security import new_token
from tidegauge.server.serve import Server

built = pytest.mark.skipif(
    importlib.util.find_spec("tidegauge._front") is None,
    reason="the front is built where gRPC's C++ headers are (Debian: libgrpc++-dev)",
)


def fronted(directory: Path, **tables: object) -> Config:
    models = {"flights": ModelConfig(reference_file(directory))}
    front = FrontConfig("127.0.0.1:0")
    return config(directory, **{"models": models, "front": front, **tables})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(fronted(tmp_path)) as one:
        yield one


def front_of(server: Server, token: str | None = None) -> Caller:
    assert server.front is not None
    return Caller(f"127.0.0.1:{server.front.port}", token)


def reason(error: grpc.RpcError) -> str:
    """Reason word of a refusal, which its details carry."""
    for detail in rpc_status.from_call(error).details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    raise AssertionError("no ErrorInfo")


@built
def test_rows_sent_one_by_one_are_counted_as_by_the_other_port(
    server: Server, tmp_path: Path
) -> None:
    rows, labels = predictions(120), outcomes(120)
    front = front_of(server)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: front.log(rows.slice(i, 1)), range(120)))
        replies = list(pool.map(lambda i: front.label(labels.slice(i, 1)), range(120)))
    assert all(reply.outcome.accepted == 1 and not reply.replayed for reply in replies)
    other = tmp_path / "other"
    other.mkdir()
    with Server(fronted(other)) as second:
        whole = Caller(f"127.0.0.1:{second.port}")
        whole.log(rows)
        whole.label(labels)
        here = Caller(f"127.0.0.1:{server.port}")
        assert here.account() == whole.account()
        assert here.metrics().equals(whole.metrics())


@built
def test_a_call_that_comes_again_is_answered_again_by_either_port(server: Server) -> None:
    front, other = front_of(server), Caller(f"127.0.0.1:{server.port}")
    rows = predictions(5)
    assert not front.log(rows, request_id="once").replayed
    again = other.log(rows, request_id="once")
    assert again.replayed
    assert again.outcome.accepted == 5
    with pytest.raises(grpc.RpcError) as refused:
        front.log(predictions(6), request_id="once")
    assert refused.value.code() == grpc.StatusCode.ALREADY_EXISTS
    assert reason(refused.value) == "REQUEST_ID_REUSED"


@built
def test_refusals_carry_the_same_details(server: Server) -> None:
    front, other = front_of(server), Caller(f"127.0.0.1:{server.port}")
    for fields in [{"model": "nobody"}, {"request_id": ""}, {"schema_fingerprint": 7}]:
        said = []
        for caller in (front, other):
            with pytest.raises(grpc.RpcError) as refused:
                caller.log(predictions(3), **fields)
            said.append(rpc_status.from_call(refused.value))
        assert said[0] == said[1]
    for message in (b"\xff\xff\xff", b""):
        call = front.channel.unary_unary("/tidegauge.v1.IngestService/WritePredictions")
        with pytest.raises(grpc.RpcError) as refused:
            call(message, timeout=10)
        assert refused.value.code() in (
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.NOT_FOUND,  # an empty message names no model
        )


@built
def test_the_port_knows_the_write_calls_alone(server: Server) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        front_of(server).account()
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


@built
def test_tokens_are_wanted_as_everywhere(tmp_path: Path) -> None:
    text, digest = new_token()
    tokens = (Token("ci", digest, {"flights": ("write",)}),)
    with Server(fronted(tmp_path, tokens=tokens)) as server:
        assert front_of(server, text).log(predictions(2)).outcome.accepted == 2
        with pytest.raises(grpc.RpcError) as refused:
            front_of(server).log(predictions(2))
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


@built
def test_too_large_messages_and_too_many_waiting_ones_are_refused(tmp_path: Path) -> None:
    front = FrontConfig("127.0.0.1:0", waiting="4KiB")
    settings = fronted(tmp_path, front=front)
    settings = replace(settings, listen=replace(settings.listen, message="64KiB"))
    with Server(settings) as server:
        caller = front_of(server)
        with pytest.raises(grpc.RpcError) as refused:
            caller.log(predictions(10_000))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.RpcError) as refused:
            caller.log(predictions(200))  # alone more than may wait
        assert reason(refused.value) == "BACK_PRESSURE"
        assert caller.log(predictions(1)).outcome.accepted == 1


@built
def test_clients_that_leave_do_no_harm(server: Server) -> None:
    front = front_of(server)
    calls = [
        front.ingest.WritePredictions.future(write_predictions(predictions(1, first=i)))
        for i in range(50)
    ]
    for call in calls[::2]:
        call.cancel()
    kept = sum(call.result().outcome.accepted for call in calls[1::2])
    assert kept == 25
    until(lambda: server.desk._in_flight == 0)
    assert 25 <= Caller(f"127.0.0.1:{server.port}").account()["predictions"] <= 50


@built
def test_what_was_taken_is_answered_when_the_server_stops(tmp_path: Path) -> None:
    with Server(fronted(tmp_path)) as server:
        front = front_of(server)
        calls = [
            front.ingest.WritePredictions.future(write_predictions(predictions(1, first=i)))
            for i in range(300)
        ]
        calls[0].result()
        server.stop()
        kept = sum(call.exception() is None for call in calls)
    with Server(fronted(tmp_path)) as again:
        assert Caller(f"127.0.0.1:{again.port}").account()["predictions"] == kept


def test_a_package_without_it_says_what_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tidegauge._front", None)
    with pytest.raises(ConfigError, match=r"\[front\] .* libgrpc\+\+-dev"):
        Server(fronted(tmp_path))


@built
@pytest.mark.parametrize(
    ("address", "words"),
    [("0.0.0.0:0", "insecure"), ("unix:/nowhere/socket", "cannot be listened on")],
)
def test_an_address_that_cannot_be_is_refused(tmp_path: Path, address: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Server(fronted(tmp_path, front=FrontConfig(address)))


@built
def test_a_server_that_cannot_start_says_why_and_lets_everything_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise JournalError("JOURNAL_FAILED", "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(serve, "open_doors", fail)
        with pytest.raises(JournalError, match="Input/output error"):
            Server(fronted(tmp_path))
    assert not [each for each in threading.enumerate() if each.name == "tidegauge-front"]
    Server(fronted(tmp_path)).stop()


def test_a_port_that_is_taken_is_named(server: Server, tmp_path: Path) -> None:
    address = f"127.0.0.1:{server.port}"
    (tmp_path / "other").mkdir()
    other = fronted(tmp_path / "other", listen=Listen(address), front=None)
    with pytest.raises(ConfigError, match=f"{address} cannot be listened on"):
        Server(other)


def test_the_table_names_its_address() -> None:
    assert config_of('[front]\naddress = "[::1]:7434"').front == FrontConfig("[::1]:7434")
    with pytest.raises(ConfigError, match=r"\[front\] needs 'address'"):
        config_of("[front]")
    for table, address in [("front", "127.0.0.1:99999"), ("listen", "7433"), ("front", ":1")]:
        with pytest.raises(ConfigError, match=rf"\[{table}\] address is HOST:PORT"):
            config_of(f'[{table}]\naddress = "{address}"')
