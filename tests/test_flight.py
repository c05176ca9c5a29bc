"""The bulk lane, through its own port: what it counts, refuses and outlives."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pytest
from google.rpc import error_details_pb2, status_pb2
from pyarrow import flight
from served import certificate, config, outcomes, predictions, reference_file

import tidegauge as tg
from tidegauge.journal import JournalError
from tidegauge.server.config import ConfigError, Flight, ModelConfig, Tls, Token
from tidegauge.server.security import new_token
from tidegauge.server.serve import Server
from tidegauge.v1 import ingest_pb2


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reference_file(tmp_path_factory.mktemp("reference"))


@contextmanager
def serving(directory: Path, reference: Path, **tables: Any) -> Iterator[Server]:
    """A server with a bulk lane."""
    given = {"models": {"flights": ModelConfig(reference)}, "flight": Flight("127.0.0.1:0")}
    with Server(config(directory, **{**given, **tables})) as running:
        yield running


@pytest.fixture
def server(tmp_path: Path, reference: Path) -> Iterator[Server]:
    with serving(tmp_path, reference) as running:
        yield running


def account(server: Server) -> Mapping[str, int]:
    return server.desk.models["flights"].monitor.account.to_dict()


class Lane:
    """A stream to the server."""

    def __init__(
        self, server: Server, schema: pa.Schema, *path: str, token: str = "", **options: Any
    ) -> None:
        self.client = flight.FlightClient(f"grpc://127.0.0.1:{server.doors['flight'].port}")
        headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        descriptor = flight.FlightDescriptor.for_path(*(path or ("flights", "predictions", "p")))
        called = flight.FlightCallOptions(headers=headers, timeout=30, **options)
        self.writer, self.reader = self.client.do_put(descriptor, schema, called)

    def __enter__(self) -> Lane:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        try:
            self.writer.close()
        finally:
            self.client.close()

    def put(self, batch: pa.RecordBatch, name: str = "") -> None:
        if name:
            self.writer.write_with_metadata(batch, name.encode())
        else:
            self.writer.write_batch(batch)

    def answer(self) -> ingest_pb2.StreamWriteResponse:
        return ingest_pb2.StreamWriteResponse.FromString(self.reader.read().to_pybytes())


def reason(response: ingest_pb2.StreamWriteResponse) -> str:
    """Why a batch was refused."""
    status = status_pb2.Status.FromString(response.error)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason


def test_batches_are_counted_as_a_monitor_counts_them(server: Server, reference: Path) -> None:
    monitor = tg.Monitor(tg.Reference.load(reference), model="flights")
    with Lane(server, predictions(1).schema) as lane:
        for first in range(0, 30_000, 1000):  # more than may wait at once
            rows = predictions(1000, first=first)
            lane.put(rows)
            monitor.log(rows)
            if first >= 10_000:
                assert lane.answer().outcome.accepted == 1000
        lane.writer.done_writing()
        assert [lane.answer().request_id for _ in range(10)] == [f"p-{i}" for i in range(20, 30)]
    with Lane(server, outcomes(1).schema, "flights", "outcomes", "o") as lane:
        labels = outcomes(5000)
        lane.put(labels)
        monitor.label(labels)
        assert lane.answer().outcome.accepted == 5000
    assert account(server) == monitor.account.to_dict()
    found = server.desk.models["flights"].monitor.metrics()
    assert found.equals(monitor.metrics())


def test_one_answer_comes_before_the_next_batch_is_sent(server: Server) -> None:
    with Lane(server, predictions(1).schema) as lane:
        for first in range(3):
            lane.put(predictions(1, first=first))
            assert lane.answer().outcome.accepted == 1


def test_a_batch_that_is_sent_again_counts_once(server: Server) -> None:
    rows = predictions(100)
    for replayed in (False, True):
        with Lane(server, rows.schema) as lane:
            lane.put(rows, "load of Tuesday")
            answer = lane.answer()
            assert (answer.request_id, answer.replayed) == ("load of Tuesday", replayed)
            assert answer.outcome.accepted == 100
    with Lane(server, rows.schema) as lane:
        lane.put(predictions(100, first=7), "load of Tuesday")
        assert reason(lane.answer()) == "REQUEST_ID_REUSED"
    assert account(server)["predictions"] == 100


def test_batches_outlive_the_server(tmp_path: Path, reference: Path) -> None:
    with serving(tmp_path, reference) as server, Lane(server, predictions(1).schema) as lane:
        lane.put(predictions(1000))
        assert lane.answer().outcome.accepted == 1000
        before = account(server)
        lane.writer.done_writing()
    with serving(tmp_path, reference) as server:
        assert account(server) == before


def test_a_refused_batch_does_not_end_the_stream(server: Server) -> None:
    rows = predictions(10)
    wrong = rows.set_column(rows.schema.get_field_index("score"), "score", pa.array([7.0] * 10))
    with Lane(server, rows.schema) as lane:
        lane.put(wrong)
        lane.put(rows)
        assert reason(lane.answer()) == "INVALID_ROWS"
        assert lane.answer().outcome.accepted == 10
    assert account(server)["predictions"] == 10


def test_a_journal_that_cannot_be_written_is_told(server: Server) -> None:
    with Lane(server, predictions(1).schema) as lane:
        server.desk.trouble = JournalError("DISK_FULL", "no space")
        lane.put(predictions(10))
        assert reason(lane.answer()) == "DISK_FULL"
        server.desk.trouble = None
        lane.put(predictions(10), "p-0")
        assert lane.answer().outcome.accepted == 10


def broken(server: Server, schema: pa.Schema, *path: str, token: str = "") -> str:
    """How a stream ends that is refused as a whole."""
    with pytest.raises((pa.ArrowException, flight.FlightError)) as caught:
        Lane(server, schema, *path, token=token).end()
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (("flights",), "INVALID"),
        (("flights", "labels", "p"), "INVALID"),
        (("flights", "predictions", "p", "v1", "more"), "INVALID"),
        (("none", "predictions", "p"), "UNKNOWN_MODEL"),
    ],
)
def test_a_stream_that_leads_nowhere_is_refused(
    server: Server, path: tuple[str, ...], expected: str
) -> None:
    assert expected in broken(server, predictions(1).schema, *path)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([{"a": 1}]),
        pa.array([[1, 2]]),
        pa.array([1], pa.decimal128(5)),
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16], pa.binary(16))),
        pa.array(["a"]).dictionary_encode().cast(pa.dictionary(pa.int32(), pa.binary())),
    ],
    ids=lambda column: str(column.type),
)
def test_columns_that_cannot_be_counted_are_refused(server: Server, column: pa.Array) -> None:
    assert "x" in broken(server, pa.schema({"x": column.type}))


def test_a_broken_batch_is_refused(server: Server) -> None:
    """Offsets that fall, and a code beyond its dictionary."""
    offsets = pa.py_buffer(np.array([0, 900, 3], np.int32).tobytes())
    text = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"abc")])
    codes = pa.DictionaryArray.from_arrays(pa.array([0, 900], pa.int32()), ["a"], safe=False)
    for values in (text, codes):
        batch = pa.record_batch({"plan": values})
        with Lane(server, batch.schema) as lane:
            lane.put(batch)
            assert reason(lane.answer()) == "INVALID_COLUMN"


def test_a_batch_that_is_too_large_is_refused(tmp_path: Path, reference: Path) -> None:
    lane_of = Flight("127.0.0.1:0", batch="64KiB")
    with (
        serving(tmp_path, reference, flight=lane_of) as server,
        Lane(server, predictions(1).schema) as lane,
    ):
        lane.put(predictions(10_000))
        assert reason(lane.answer()) == "TOO_LARGE"


def test_tokens_are_those_of_the_other_doors(tmp_path: Path, reference: Path) -> None:
    text, digest = new_token()
    other, other_digest = new_token()
    tokens = (
        Token("loader", digest, {"flights": ("write",)}),
        Token("reader", other_digest, {"flights": ("read",)}),
    )
    with serving(tmp_path, reference, tokens=tokens) as server:
        schema = predictions(1).schema
        assert "TOKEN_WANTED" in broken(server, schema)
        assert "SCOPE_MISSING" in broken(server, schema, token=other)
        with Lane(server, schema, token=text) as lane:
            lane.put(predictions(10))
            assert lane.answer().outcome.accepted == 10


def test_only_those_with_a_certificate_come_in(tmp_path: Path, reference: Path) -> None:
    chain, key = certificate(tmp_path)
    rows = predictions(10)
    path = flight.FlightDescriptor.for_path("flights", "predictions", "p")
    with serving(tmp_path, reference, tls=Tls(chain, key, chain)) as server:
        target = f"grpc+tls://localhost:{server.doors['flight'].port}"
        pem = chain.read_bytes()
        with flight.FlightClient(
            target, tls_root_certs=pem, cert_chain=pem, private_key=key.read_bytes()
        ) as client:
            writer, reader = client.do_put(path, rows.schema)
            writer.write_batch(rows)
            answer = ingest_pb2.StreamWriteResponse.FromString(reader.read().to_pybytes())
            assert answer.outcome.accepted == 10
            writer.close()
        options = flight.FlightCallOptions(timeout=10)
        with (
            flight.FlightClient(target, tls_root_certs=pem) as stranger,
            pytest.raises((flight.FlightError, pa.ArrowException)),
        ):
            stranger.do_put(path, rows.schema, options)[0].close()


def test_a_lane_for_everybody_is_not_opened(tmp_path: Path, reference: Path) -> None:
    models = {"flights": ModelConfig(reference)}
    given = config(tmp_path, models=models, flight=Flight("0.0.0.0:0"))
    with pytest.raises(ConfigError, match="can be reached from elsewhere"):
        Server(given)


def test_no_more_streams_than_are_allowed(tmp_path: Path, reference: Path) -> None:
    with (
        serving(tmp_path, reference, flight=Flight("127.0.0.1:0", streams=1)) as server,
        Lane(server, predictions(1).schema) as lane,
    ):
        lane.put(predictions(1))
        lane.answer()
        assert "TOO_MANY_STREAMS" in broken(server, predictions(1).schema)


def test_a_stream_that_cannot_begin_leaves_its_place(
    tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == "tidegauge-lane":
            raise RuntimeError("can't start new thread")
        start(thread)

    with serving(tmp_path, reference, flight=Flight("127.0.0.1:0", streams=1)) as server:
        monkeypatch.setattr(threading.Thread, "start", fail)
        assert "start new thread" in broken(server, predictions(1).schema)
        monkeypatch.undo()
        with Lane(server, predictions(1).schema) as lane:
            lane.put(predictions(1))
            assert lane.answer().outcome.accepted == 1


# --- what pyarrow would not send ------------------------------------------------------------------


def field(number: int, content: bytes) -> bytes:
    """A field of a protobuf message that holds bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def flight_data(batch: pa.RecordBatch) -> list[list[bytes]]:
    """Header and body of each message of a stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    messages = pa.ipc.MessageReader.open_stream(sink.getvalue())
    return [
        [message.metadata.to_pybytes(), message.body.to_pybytes() if message.body else b""]
        for message in messages
    ]


def test_damaged_messages_are_refused_and_the_server_lives(server: Server) -> None:
    """Bytes flipped in headers and bodies, sent without pyarrow's help."""
    path = b"".join(field(3, part) for part in (b"flights", b"predictions", b"fuzz"))
    descriptor = field(1, b"\x08\x01" + path)
    sound = flight_data(predictions(20))
    random = np.random.default_rng(7)
    channel = grpc.insecure_channel(f"127.0.0.1:{server.doors['flight'].port}")
    put = channel.stream_stream("/arrow.flight.protocol.FlightService/DoPut")
    taken = refused = 0
    for _ in range(150):
        messages = [[bytearray(part) for part in message] for message in sound]
        for _ in range(int(random.integers(1, 4))):
            parts = [part for message in messages for part in message if part]
            part = parts[random.integers(len(parts))]
            part[random.integers(len(part))] = random.integers(256)
        sent = [
            (descriptor if place == 0 else b"") + field(2, bytes(header)) + field(1000, bytes(body))
            for place, (header, body) in enumerate(messages)
        ]
        try:
            answers = list(put(iter(sent), timeout=20))
        except grpc.RpcError:
            refused += 1
        else:
            taken += len(answers)
    channel.close()
    assert taken
    assert refused
    with Lane(server, predictions(1).schema) as lane:
        lane.put(predictions(5, first=10_000))
        assert lane.answer().outcome.accepted == 5
