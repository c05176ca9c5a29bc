"""The client: what is logged arrives once, or is counted as lost, whatever happens on the way."""

from __future__ import annotations

import asyncio
import http.client
import logging
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from time import monotonic

import grpc
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingest_door import Door, Fault
from served import Caller, config, outcomes, predictions, reference_file, server_process

import tidegauge as tg
from tidegauge.server import client as client_module
from tidegauge.server import sender as sender_module
from tidegauge.server.batches import unpack
from tidegauge.server.client import Client
from tidegauge.server.config import ModelConfig
from tidegauge.server.packing import pack_rows
from tidegauge.server.serve import Server
from tidegauge.server.spill import Spill

AWAY = Fault("UNAVAILABLE")
SOON = 30.0  # seconds that a test waits for what takes none


@contextmanager
def listening(door: Door) -> Iterator[Door]:
    server = door.open(port=door.port)
    try:
        yield door
    finally:
        server.stop(0).wait()


@pytest.fixture
def door() -> Iterator[Door]:
    with listening(Door()) as one:
        yield one


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between attempts that a test can wait for."""
    monkeypatch.setattr(sender_module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(sender_module, "LONGEST_PAUSE", 0.01)


def nobody() -> str:
    """A place at which nobody listens."""
    return "localhost:1"


# --- what arrives ------------------------------------------------------------------------------


def test_rows_arrive_as_they_were_logged(door):
    moment = datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    row = {
        "id": uuid.UUID(int=7),
        "text": "naïve",
        "flag": np.bool_(True),
        "count": 3,
        "wide": 2**63,
        "score": np.float32(0.25),
        "when": moment,
        "then": np.datetime64("2024-05-01T09:00:00.000001"),
        "raw": b"\x00\xff",
        "vector": np.array([1.0, 2.0]),
        "nothing": None,
    }
    with Client(door.target, model="m", version="v3") as client:
        assert client.log(row) == 1
        row["vector"][:] = 0  # copies were made
        row["text"] = "changed"
        assert client.label({"id": "7", "late": True}) == 1
        assert client.flush(SOON)
        assert client.stats().balanced
    (request,) = door.requests("predictions")
    assert (request.model, request.model_version) == ("m", "v3")
    (arrived,) = door.rows("predictions")
    assert arrived == {
        "id": str(uuid.UUID(int=7)),
        "text": "naïve",
        "flag": True,
        "count": 3,
        "wide": 2**63,
        "score": 0.25,
        "when": moment,
        "then": datetime(2024, 5, 1, 9, microsecond=1, tzinfo=UTC),
        "raw": b"\x00\xff",
        "vector": [1.0, 2.0],
        "nothing": None,
    }
    assert door.rows("outcomes") == [{"id": "7", "late": True}]


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.datetimes(
        min_value=datetime(1970, 1, 1),
        max_value=datetime(2200, 1, 1),
        timezones=st.just(UTC),
    ),
    st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=3).map(
        lambda members: np.array(members, np.float32)
    ),
)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), values, min_size=1), min_size=1))
def test_packed_rows_are_the_rows_in_some_order(rows):
    """Each row is read back with its columns and values; a message has one type a column."""
    refused: list[dict[str, object]] = []
    batches = list(pack_rows(rows, lambda row, why: refused.append(dict(row))))
    assert not refused
    back = [row for batch in batches for row in unpack(batch).to_pylist()]

    def plain(row):  # what is in one column with a float is read back as a float
        for name, value in row.items():
            if isinstance(value, bool | int | float):
                yield name, float(value)
            else:
                yield name, tuple(value) if isinstance(value, list | np.ndarray) else value

    def counted(rows):
        return Counter(frozenset(plain(row)) for row in rows)

    assert counted(back) == counted(rows)


def test_columns_that_are_missing_are_not_values_that_are_missing():
    rows = [{"id": 1, "x": None}, {"id": 2}, {"id": 3, "x": 0.5}]
    found = [unpack(batch).to_pylist() for batch in pack_rows(rows, pytest.fail)]
    assert found == [[{"id": 1, "x": None}, {"id": 3, "x": 0.5}], [{"id": 2}]]


def test_one_bad_row_does_not_spoil_the_others(door, caplog):
    with Client(door.target, model="m") as client:
        for i in range(10):
            client.log({"id": i, "x": 2**80 if i == 4 else i})
        assert client.flush(SOON)
        stats = client.stats()
    assert sorted(row["id"] for row in door.rows("predictions")) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert (stats.delivered, stats.refused, stats.balanced) == (9, 1, True)
    assert "beyond 64 bits" in caplog.text


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"id": 1, "x": object()}, "column 'x': a object cannot be sent"),
        (
            {"id": 1, "when": datetime(2024, 5, 1)},
            "column 'when': the time 2024-05-01T00:00:00 has",
        ),
        ({"id": 1, "v": [[1.0], [2.0]]}, "column 'v': a vector of one dimension"),
        ({"id": 1, "v": ["a"]}, "column 'v': not a vector of floats"),
        ({}, "a row without columns"),
        (17, "got int; a table is wanted"),
    ],
)
def test_what_cannot_be_sent_is_refused_at_once(row, problem):
    client = Client(nobody(), model="m")
    with pytest.raises(tg.DataError, match=problem.replace("(", r"\(")):
        client.log(row)
    assert client.stats().offered == 0
    assert client.close()


def test_tables_are_cut_and_arrive(door, monkeypatch):
    monkeypatch.setattr(client_module, "TABLE_BYTES", 10_000)
    n = 5_000
    columns = {"id": np.arange(n), "plan": np.array(["a", "b"])[np.arange(n) % 2]}
    with Client(door.target, model="m", timestamp="time") as client:
        assert client.log(columns) == n
        assert client.log(pa.table(columns)) == n
        assert client.label({"id": [1, 2], "late": [True, None]}) == 2
        assert client.flush(SOON)
    batches = door.batches("predictions")
    assert len(batches) > 10
    assert max(batch.nbytes for batch in batches) < 20_000
    arrived = pa.Table.from_batches(batches)
    assert sorted(arrived["id"].to_pylist()) == sorted([*range(n), *range(n)])
    assert set(arrived.filter(pa.compute.equal(arrived["id"], 3))["plan"].to_pylist()) == {"b"}
    assert arrived["time"].null_count == 0
    assert [(row["id"], row["late"]) for row in door.rows("outcomes")] == [(1, True), (2, None)]


def test_large_rows_go_in_smaller_requests(door):
    with Client(door.target, model="m") as client:
        for i in range(40):
            client.log({"id": i, "text": "x" * 100_000} if i % 2 else {"id": i})
        assert client.flush(SOON)
    sizes = [request.ByteSize() for request in door.requests("predictions")]
    assert len(sizes) > 1
    assert max(sizes) <= sender_module.MAX_MESSAGE
    assert sorted(row["id"] for row in door.rows("predictions")) == list(range(40))


def test_many_wide_rows_go_in_several_messages():
    row = dict.fromkeys(map(str, range(1_100)))
    found = [unpack(batch).num_rows for batch in pack_rows([row] * 1_000, pytest.fail)]
    assert len(found) > 1
    assert sum(found) == 1_000


def test_tables_of_uneven_rows_go_in_small_requests(door):
    """The mean of their rows says little of the first ones, or of a dictionary that all share."""
    n = 60_000
    uneven = pa.table({"id": np.arange(n), "text": ["x" * 100_000] * 20 + ["y"] * (n - 20)})
    texts = pa.DictionaryArray.from_arrays(np.arange(n), [f"{i:030}" for i in range(n)])
    shared = pa.table({"id": np.arange(n, 2 * n), "text": texts})
    with Client(door.target, model="m") as client:
        assert client.log(uneven) == client.log(shared) == n
        assert client.flush(SOON)
    requests = door.requests("predictions")
    assert max(request.ByteSize() for request in requests) <= sender_module.MAX_MESSAGE
    assert len(requests) < 50
    ids = pa.chunked_array([batch["id"] for batch in door.batches("predictions")])
    assert np.array_equal(np.sort(ids.to_numpy()), np.arange(2 * n))


def test_the_time_of_the_call_is_filled_in(door):
    before = datetime.now(UTC)
    with Client(door.target, model="m", timestamp="time") as client:
        client.log({"id": 1})
        client.log({"id": 2, "time": before})
        assert client.flush(SOON)
    times = {row["id"]: row["time"] for row in door.rows("predictions")}
    assert times[2] == before <= times[1] <= datetime.now(UTC)


def test_requests_are_full_or_old(door):
    with Client(door.target, model="m", batch_rows=100, linger=3600) as client:
        for i in range(200):
            client.log({"id": i})
        while client.stats().delivered < 100:  # nothing but their number sends them
            pass
        client.label({"id": 1, "late": True})
    with Client(door.target, model="m", linger=0.01) as client:
        client.log({"id": 200})
        while client.stats().delivered < 1:  # nothing but their age sends them
            pass
    assert len(door.rows("predictions")) == 201
    assert len(door.rows("outcomes")) == 1


# --- what does not -----------------------------------------------------------------------------


def test_a_request_is_sent_again_with_its_id_and_bytes(door, impatient):
    door.faults += [
        AWAY,
        Fault("DEADLINE_EXCEEDED"),
        Fault("ABORTED"),
        Fault("UNAVAILABLE", kept=True),
    ]
    with Client(door.target, model="m") as client:
        for i in range(10):
            client.log({"id": i})
        assert client.flush(SOON)
        stats = client.stats()
    bodies = {(r.request_id, r.columns.SerializeToString()) for _, r, _ in door.calls}
    assert len(door.calls) == 5
    assert len(bodies) == 1
    assert sorted(row["id"] for row in door.rows("predictions")) == list(range(10))
    assert (stats.delivered, stats.retries, stats.replayed) == (10, 4, 1)


def test_back_pressure_is_obeyed(door):
    door.faults.append(Fault("RESOURCE_EXHAUSTED", retry_after=0.3))
    with Client(door.target, model="m", linger=0) as client:
        start = monotonic()
        client.log({"id": 1})
        assert client.flush(SOON)
        assert monotonic() - start >= 0.3
        assert client.stats().delivered == 1


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "PERMISSION_DENIED"])
def test_what_is_refused_is_never_sent_again(door, code, caplog):
    door.faults += [Fault(code), Fault(code)]
    with Client(door.target, model="m") as client:
        for _ in range(2):
            client.log({"id": 1})
            client.log({"id": 2})
            assert client.flush(SOON)
        client.log({"id": 3})
        assert client.flush(SOON)
        stats = client.stats()
    assert (stats.refused, stats.delivered, stats.retries, stats.balanced) == (4, 1, 0, True)
    assert door.dropped["refused"] == 4  # the next request tells
    assert len(door.calls) == 3
    refusals = [record for record in caplog.records if code in record.getMessage()]
    assert len(refusals) == 1


def test_rows_without_room_are_dropped_and_the_server_is_told(impatient, caplog):
    door = Door()
    with listening(door):
        door.always = AWAY
        client = Client(door.target, model="m", max_rows=5, linger=3600)
        taken = sum(client.log({"id": i}) for i in range(8))
        assert taken == 5
        assert client.stats().queue_full == 3
        small = Client(door.target, model="m", max_bytes=10_000)
        assert small.log({"id": np.arange(1_000), "text": ["x" * 100] * 1_000}) == 0
        assert small.stats().queue_full == 1_000
        door.always = None
        assert client.flush(SOON)
        client.log({"id": 9})
        assert client.close()
        assert small.close()
    assert door.dropped["queue_full"] == 3
    assert client.stats().balanced
    assert len(door.rows("predictions")) == 6


def test_what_waits_for_too_long_is_dropped_and_the_server_is_told(impatient):
    door = Door()
    with listening(door):
        door.always = AWAY
        with Client(door.target, model="m", time_to_live=0.05, linger=0) as client:
            client.log({"id": 1})
            client.label({"id": 1, "late": True})
            assert client.flush(SOON)
            assert client.stats().expired == 2
            door.always = None
            client.log({"id": 2})
            assert client.flush(SOON)
            assert client.stats().balanced
    assert door.dropped["expired"] == 2
    assert [row["id"] for row in door.rows("predictions")] == [2]


def test_what_was_told_is_told_once_when_the_reply_is_lost(door, impatient):
    door.faults += [Fault("INVALID_ARGUMENT"), Fault("UNAVAILABLE", kept=True), AWAY]
    with Client(door.target, model="m") as client:
        for i in range(4):
            client.log({"id": i})
            assert client.flush(SOON)
    assert door.dropped["refused"] == 1


def test_a_caller_may_wait_for_room(door, impatient):
    door.always = AWAY
    client = Client(
        door.target, model="m", on_full="block", block_timeout=0.01, max_rows=5, linger=3600
    )
    assert [client.log({"id": i}) for i in range(6)] == [1, 1, 1, 1, 1, 0]
    door.always = None
    assert client.close()
    patient = Client(door.target, model="m", on_full="block", max_bytes=100_000, linger=0)
    for i in range(3_000):
        assert patient.log({"id": i, "text": "x" * 100})
    assert patient.close()
    assert patient.stats().delivered == 3_000


def test_outcomes_keep_their_order(door, impatient):
    """The later of two labels for one id is the one that holds."""
    door.faults += [AWAY, Fault("UNAVAILABLE", kept=True), AWAY]
    chance = random.Random(0)
    door.before = lambda: threading.Event().wait(chance.random() / 1000)
    with Client(door.target, model="m", batch_rows=10, linger=0) as client:
        for i in range(1_000):
            client.label({"id": 1, "late": i})
            client.log({"id": i})
        assert client.flush(SOON)
    assert [row["late"] for row in door.rows("outcomes")] == list(range(1_000))
    assert sorted(row["id"] for row in door.rows("predictions")) == list(range(1_000))


def test_a_server_that_comes_back_gets_everything(impatient):
    door = Door()
    with listening(door):
        client = Client(door.target, model="m", batch_rows=10)
        client.log({"id": 0})
        assert client.flush(SOON)
    for i in range(1, 500):
        client.log({"id": i})
    assert not client.flush(0.05)
    with listening(door):
        assert client.flush(SOON)
        stats = client.stats()
        assert client.close()
    assert sorted(row["id"] for row in door.rows("predictions")) == list(range(500))
    assert (stats.delivered, stats.balanced, stats.bytes) == (500, True, 0)


def test_after_the_end_rows_are_counted(door):
    client = Client(door.target, model="m")
    client.log({"id": 1})
    assert client.close()
    assert client.close()
    assert client.log({"id": 2}) == client.label({"id": [2, 3], "late": [True, False]}) == 0
    stats = client.stats()
    assert (stats.late, stats.delivered, stats.balanced) == (3, 1, True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    models = {"flights": ModelConfig(reference_file(tmp_path))}
    with Server(config(tmp_path, models=models)) as running:
        yield running


def test_faulty_rows_are_found_and_the_others_are_counted(server, caplog):
    """A score beyond 1 makes the server refuse a request; it is halved until the row is alone."""
    faulty = {17, 18, 555, 1_999}
    with Client(f"localhost:{server.port}", model="flights") as client:
        for row in predictions(2_000).to_pylist():
            client.log(row | {"score": 7.0} if row["id"] in faulty else row)
        for i in range(20):
            client.label({"id": i, "late": "perhaps" if i == 4 else 1})
        assert client.flush(SOON)
        stats = client.stats()
    account = Caller(f"127.0.0.1:{server.port}").account()
    assert account["predictions"] == 2_000 - len(faulty)
    assert account["labels"] == 19
    assert (stats.refused, stats.delivered) == (len(faulty) + 1, 2_015)
    assert stats.balanced
    assert len([r for r in caplog.records if "refuses events" in r.getMessage()]) == 1


def test_an_id_that_is_too_long_is_found_and_the_others_are_counted(server):
    with Client(f"localhost:{server.port}", model="flights") as client:
        for row in predictions(100).to_pylist():
            client.log(row | {"id": "x" * 300 if row["id"] == 17 else str(row["id"])})
        assert client.flush(SOON)
        stats = client.stats()
    assert Caller(f"127.0.0.1:{server.port}").account()["predictions"] == 99
    assert (stats.refused, stats.delivered, stats.balanced) == (1, 99, True)


def test_a_column_that_is_wrong_for_every_row_is_not_halved(server):
    with Client(f"localhost:{server.port}", model="flights") as client:
        for i in range(10):
            client.log({"id": i, "x" * 300: 1})
        assert client.flush(SOON)
        stats = client.stats()
    assert (stats.refused, stats.delivered, stats.balanced) == (10, 0, True)
    assert sum(server.desk.refused.values()) == 1


def test_a_service_that_is_wrong_altogether_is_not_halved_for_ever(server, monkeypatch):
    monkeypatch.setattr(sender_module, "SPLITS", 5)
    with Client(f"localhost:{server.port}", model="flights") as client:
        for at in range(10):
            rows = predictions(100, first=100 * at)
            client.log(rows.set_column(4, "score", pa.array(np.full(100, 7.0))))
        assert client.flush(SOON)
        stats = client.stats()
    assert (stats.refused, stats.delivered, stats.balanced) == (1_000, 0, True)
    assert sum(server.desk.refused.values()) <= 10 + 2 * 5


def test_a_server_that_is_killed_counts_everything_once(impatient, tmp_path):
    """The real one: what it had acknowledged is there, what it had not is sent again."""
    with ExitStack() as servers:
        server = servers.enter_context(server_process(tmp_path))
        client = Client(f"localhost:{server.port}", model="flights", batch_rows=50, linger=0.001)
        for at in range(4):
            for row in predictions(500, first=500 * at).to_pylist():
                client.log(row)
            client.label(outcomes(500, first=500 * at))
            if at % 2:
                server.kill()
                again = server_process(tmp_path, f"--listen=127.0.0.1:{server.port}")
                server = servers.enter_context(again)
        assert client.flush(SOON)
        account = server.caller().account()
        assert client.close()
    stats = client.stats()
    assert (stats.delivered, stats.dropped, stats.balanced) == (4_000, 0, True)
    assert (account["predictions"], account["duplicate_predictions"]) == (2_000, 0)
    assert (account["labels"], account["duplicate"]) == (2_000, 0)


# --- the spill ---------------------------------------------------------------------------------


def test_a_spill_keeps_what_memory_cannot(impatient, tmp_path):
    door = Door()
    with listening(door):
        door.always = AWAY
        client = Client(
            door.target,
            model="m",
            on_full="spill",
            spill=tmp_path,
            max_bytes=400_000,
            batch_rows=100,
            time_to_live=0.01,
        )
        for i in range(5_000):
            assert client.log({"id": i, "text": "x" * 100})
            client.label({"id": 1, "late": i})
            while client.stats().bytes > 300_000:  # until the thread has had its turn
                threading.Event().wait(0.001)
        client.flush(0.1)
        assert client.stats().bytes <= 400_000
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) > 300_000
        door.always = None
        assert client.flush(SOON)
        assert client.stats().delivered == 10_000
        assert client.close()
    assert sorted(row["id"] for row in door.rows("predictions")) == list(range(5_000))
    assert [row["late"] for row in door.rows("outcomes")] == list(range(5_000))
    assert list(tmp_path.iterdir()) == []


def test_the_next_process_sends_what_one_has_left(impatient, tmp_path):
    first = Client(nobody(), model="m", on_full="spill", spill=tmp_path)
    for i in range(2_500):
        first.log({"id": i})
    assert not first.close(timeout=0)
    assert first.stats().waiting == 2_500
    with (
        listening(Door()) as door,
        Client(door.target, model="m", on_full="spill", spill=tmp_path) as second,
    ):
        second.log({"id": 2_500})
        assert second.flush(SOON)
        stats = second.stats()
        second.close()
    assert (stats.offered, stats.delivered) == (2_501, 2_501)
    assert sorted(row["id"] for row in door.rows("predictions")) == list(range(2_501))
    assert list(tmp_path.iterdir()) == []


def test_files_of_a_spill_go_while_more_is_read(door, tmp_path):
    """What is read of it is not deleted before it is kept: so little is read ahead."""
    left = Spill(tmp_path, max_bytes=1 << 20, segment_bytes=1)
    cutter = sender_module.Cutter("m", "")
    for i in range(20):
        (batch,) = pack_rows([{"id": i}], pytest.fail)
        (request,) = cutter.cut("predictions", batch, 0.0)
        assert left.append(sender_module.LETTER["predictions"] + request.body)
    left.close()
    more = threading.Event()
    door.before = lambda: more.wait(SOON)
    with Client(door.target, model="m", on_full="spill", spill=tmp_path) as client:
        client.log({"id": 20})
        while len(client._sender._in_flight) < sender_module.IN_FLIGHT:
            threading.Event().wait(0.001)
        assert client.stats().waiting <= 1 + sender_module.HELD_FILES + 1
        assert len(list(tmp_path.iterdir())) == 20
        more.set()
        assert client.flush(SOON)
        while client.stats().delivered < 21:
            threading.Event().wait(0.001)
        assert client.stats().balanced
    assert sorted(row["id"] for row in door.rows("predictions")) == list(range(21))
    assert list(tmp_path.iterdir()) == []


def test_nobody_waits_for_what_a_closed_client_has_spilled(tmp_path):
    client = Client(nobody(), model="m", on_full="spill", spill=tmp_path)
    client.log({"id": 1})
    assert not client.close(timeout=0)
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(client.flush()), daemon=True)
    waiting.start()
    waiting.join(SOON)
    assert found == [False]


def test_a_spill_that_is_full_drops(impatient, tmp_path):
    with Client(
        nobody(), model="m", on_full="spill", spill=tmp_path, spill_bytes=20_000, max_bytes=30_000
    ) as client:
        for i in range(3_000):
            client.log({"id": i, "text": "x" * 50})
            if i % 100 == 0:
                client.flush(0.001)
        client.flush(0.05)
        stats = client.stats()
        assert stats.queue_full > 0
        assert stats.balanced
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20_000
        client.close(timeout=0)


records = st.lists(st.binary(min_size=1, max_size=50), max_size=20)


@given(records, st.integers(0, 2000), st.integers(0, 7))
def test_a_damaged_spill_gives_whole_records_or_none(written, place, bit):
    """Whatever is flipped or torn: what is read was written, in order."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spill = Spill(folder, max_bytes=1 << 20, segment_bytes=200)
        for record in written:
            assert spill.append(record)
        spill.close()
        files = sorted(folder.iterdir())
        if files:
            victim = files[place % len(files)]
            data = bytearray(victim.read_bytes())
            data[place % len(data)] ^= 1 << bit
            victim.write_bytes(data)
        again = Spill(folder, max_bytes=1 << 20)
        read = list(iter(again.take, None))
        again.close()
        left = deque(written)
        for record in read:
            assert record in left
        assert len(read) >= len(written) - 200 // 9


def test_two_processes_do_not_read_one_spill(tmp_path):
    one = Spill(tmp_path, max_bytes=1000)
    one.append(b"mine")
    other = Spill(tmp_path, max_bytes=1000)
    assert other.take() is None
    assert one.take() == b"mine"
    assert one.take() is None
    one.forget()
    assert list(tmp_path.iterdir()) == []
    one.close()
    other.close()


# --- threads, signals, coroutines --------------------------------------------------------------


def test_many_threads_log_at_once(door):
    client = Client(door.target, model="m", batch_rows=50)

    def work(at):
        for i in range(500):
            client.log({"id": at * 1000 + i})
            if i % 100 == 0:
                client.flush(SOON)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.close()
    stats = client.stats()
    assert (stats.offered, stats.delivered, stats.balanced) == (4_000, 4_000, True)
    ids = Counter(row["id"] for row in door.rows("predictions"))
    assert len(ids) == 4_000
    assert set(ids.values()) == {1}


def test_a_signal_may_log_while_a_row_is_logged(door):
    client = Client(door.target, model="m")
    heard = 0

    def hear(number, frame):
        nonlocal heard
        heard += 1
        client.log({"id": -heard})

    before = signal.signal(signal.SIGALRM, hear)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        logged = 0
        while heard < 50:
            client.log({"id": logged})
            logged += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert client.close(SOON)
    assert client.stats().delivered == logged + heard


def test_coroutines_wait_without_holding_others_up(door):
    async def serve():
        async with Client(door.target, model="m") as client:
            client.log({"id": 1})
            assert await client.aflush(SOON)
            assert client.stats().delivered == 1
            client.log({"id": 2})
        return client.stats()

    assert asyncio.run(serve()).delivered == 2


def test_an_error_that_nobody_knows_does_not_end_the_thread(door, monkeypatch, caplog):
    monkeypatch.setattr(sender_module, "LONGEST_PAUSE", 0.01)
    whole = sender_module.verdict
    failed = []

    def fail_once(call):
        if not failed:
            failed.append(call)
            raise RuntimeError("nobody knows")
        return whole(call)

    monkeypatch.setattr(sender_module, "verdict", fail_once)
    with Client(door.target, model="m") as client:
        client.log({"id": 1})
        assert client.flush(SOON)
        assert client.stats().delivered == 1
    assert "goes on" in caplog.text


def test_rows_that_an_unknown_error_meets_are_counted(door, monkeypatch, caplog):
    client = Client(door.target, model="m", batch_rows=10)
    whole = sender_module.Cutter.cut

    def fail_for_labels(self, lane, batch, born):
        if lane == "outcomes":
            raise RuntimeError("nobody knows")
        return whole(self, lane, batch, born)

    monkeypatch.setattr(sender_module.Cutter, "cut", fail_for_labels)
    for i in range(25):
        client.log({"id": i})
        client.label({"id": i, "late": 2**80 if i == 3 else i})
    assert client.close(SOON)
    stats = client.stats()
    assert (stats.delivered, stats.refused, stats.balanced) == (25, 25, True)
    assert "nobody knows" in caplog.text


# --- watching a function -----------------------------------------------------------------------


def test_watched_functions_are_logged(door):
    with Client(door.target, model="m") as client:

        @client.watch(prediction="score", prediction_id="id")
        def predict(row):
            return row["x"] / 2

        @client.watch()
        async def decide(row):
            return {"score": row["x"] / 4}

        @client.watch(prediction="score", prediction_id="id")
        def predict_all(table):
            return table["x"].to_numpy() / 8

        assert predict({"x": 1.0}) == 0.5
        assert predict(row={"id": "a", "x": 1.0}) == 0.5
        assert asyncio.run(decide({"id": "b", "x": 1.0})) == {"score": 0.25}
        assert predict_all(pa.table({"x": [1.0, 2.0]})).tolist() == [0.125, 0.25]
        assert predict.__name__ == "predict"
        assert client.flush(SOON)
    rows = door.rows("predictions")
    assert sorted(row["score"] for row in rows) == [0.125, 0.25, 0.25, 0.5, 0.5]
    assert {"a", "b"} < {row["id"] for row in rows}
    assert len({row["id"] for row in rows}) == 5


def test_a_watched_function_fails_only_by_itself(door, caplog):
    with Client(door.target, model="m") as client:

        @client.watch(prediction="score")
        def predict(row):
            return 1 / row["x"]

        assert predict({"x": 2, "what": object()}) == 0.5  # cannot be logged: said, not raised
        assert predict({"x": 4, "what": object()}) == 0.25
        with pytest.raises(ZeroDivisionError):
            predict({"x": 0})
        assert client.stats().offered == 0
    assert len([r for r in caplog.records if "could not be logged" in r.getMessage()]) == 1


# --- who may be spoken to ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "settings", "problem"),
    [
        ("example.org:7433", {}, "another machine"),
        ("grpc://10.0.0.1:7433", {}, "another machine"),
        ("http://localhost:7433", {}, "target is host:port"),
        ("localhost", {"certificate": "a.pem"}, "go together"),
        ("localhost", {"on_full": "wait"}, "'drop_newest', 'block', 'spill', got 'wait'"),
        ("localhost", {"on_full": "spill"}, "go together"),
        ("localhost", {"max_rows": 0}, "1 or more"),
        ("localhost", {"model": ""}, "name of a model"),
    ],
)
def test_wrong_settings_are_refused(target, settings, problem):
    with pytest.raises(ValueError, match=problem):
        Client(target, **{"model": "m", **settings})


@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("localhost", "grpc://localhost:7433"),
        ("127.0.0.1:80", "grpc://127.0.0.1:80"),
        ("grpc://[::1]:80", "grpc://[::1]:80"),
        ("[::1]", "grpc://[::1]:7433"),
        ("unix:/tmp/tidegauge", "grpc://unix:/tmp/tidegauge"),
        ("grpcs://example.org", "grpcs://example.org:7433"),
    ],
)
def test_places_are_read(target, place):
    client = Client(target, model="m", token="secret")
    assert repr(client.address) == place
    assert "secret" not in repr(client) + repr(client.address) + str(vars(client))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("certificate")
    key, chain = folder / "key.pem", folder / "chain.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 "
    make += (
        "-subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out chain.pem"
    )
    subprocess.run(make.split(), cwd=folder, check=True, capture_output=True)
    return chain, key


def test_tls_and_tokens(certificate):
    chain, key = certificate
    door = Door()
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), chain.read_bytes())], chain.read_bytes(), require_client_auth=True
    )
    server = door.open(credentials=credentials)
    try:
        with Client(
            door.target, model="m", token="secret", ca=chain, certificate=chain, key=key
        ) as client:
            client.log({"id": 1})
            assert client.flush(SOON)
            assert client.stats().delivered == 1
        with Client(f"grpcs://{door.target}", model="m", token="secret") as stranger:
            stranger.log({"id": 2})
            assert not stranger.flush(0.5)
            stranger.close(timeout=0)
    finally:
        server.stop(0).wait()
    assert [metadata["authorization"] for _, _, metadata in door.calls] == ["Bearer secret"]


# --- processes ---------------------------------------------------------------------------------


def run(script: str, *arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **settings,
    )


def test_a_process_sends_the_rest_when_it_ends(door):
    script = """if True:
        import sys, tidegauge as tg
        client = tg.Client(sys.argv[1], model="m", linger=3600)
        for i in range(100):
            client.log({"id": i})
    """
    ended = run(script, door.target)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(door.rows("predictions")) == 100


def test_a_process_says_in_one_line_what_it_could_not_send():
    script = """if True:
        import sys, tidegauge as tg
        from tidegauge.server import client as module
        module.AT_EXIT = 0.1
        client = tg.Client(sys.argv[1], model="m")
        for i in range(100):
            client.log({"id": i})
    """
    ended = run(script, nobody())
    assert ended.returncode == 0
    lines = ended.stderr.splitlines()
    assert lines[-1] == "100 rows were not delivered to grpc://localhost:1"
    assert len(lines) <= 2  # the other says that nobody answers


def test_nothing_of_grpc_is_there_before_the_first_event():
    script = """if True:
        import sys, threading, tidegauge as tg
        assert "grpc" not in sys.modules
        client = tg.Client("localhost:1", model="m")
        assert threading.active_count() == 1
        assert client._sender is None
        assert "tidegauge.server.sender" not in sys.modules
    """
    ended = run(script)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_forks_under_load(door):
    """Thirty children of a process that logs all the time; each sends its own rows."""
    client = Client(door.target, model="m", linger=0.001, batch_rows=20)
    stop = threading.Event()
    logged = 0

    def load():
        nonlocal logged
        while not stop.is_set():
            client.log({"id": logged})
            logged += 1
            if logged % 100 == 0:
                stop.wait(0.001)

    def child(at):
        assert client.stats().offered == 0
        for i in range(10):
            client.log({"id": -(at * 100 + i + 1)})

    thread = threading.Thread(target=load)
    thread.start()
    fork = multiprocessing.get_context("fork")
    ends = []
    for at in range(30):
        process = fork.Process(target=child, args=(at,))
        process.start()
        process.join(SOON)
        ends.append(process.exitcode)
        process.kill()
    stop.set()
    thread.join()
    assert client.close(SOON)
    assert ends == [0] * 30
    ids = Counter(row["id"] for row in door.rows("predictions"))
    assert set(ids.values()) == {1}
    assert {i for i in ids if i < 0} == {-(at * 100 + i + 1) for at in range(30) for i in range(10)}
    assert sum(1 for i in ids if i >= 0) == logged
    assert client.stats().balanced


def test_a_fork_of_the_system_begins_anew(door):
    """As `fork` of C: no hook of Python runs in the child."""
    client = Client(door.target, model="m")
    client.log({"id": 1})
    assert client.flush(SOON)
    client._pid = 0  # as it looks from the child
    assert client.log({"id": 2}) == 1
    assert client.stats().offered == 1
    assert client.flush(SOON)
    assert client.close()
    assert sorted(row["id"] for row in door.rows("predictions")) == [1, 2]


GUNICORN = """
import os, tidegauge as tg
client = tg.Client(os.environ["DOOR"], model="m", linger=0.01)
client.log({"id": "at import"})
client.flush(30)

def app(environ, start_response):
    client.log({"id": environ["QUERY_STRING"], "pid": os.getpid()})
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""


def test_gunicorn_forks_after_the_import(door, tmp_path):
    (tmp_path / "service.py").write_text(GUNICORN)
    path = tmp_path / "socket"
    source = str(Path(tg.__file__).parent.parent)
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "--preload", "--workers=2"),
            *("--log-level=error", f"--bind=unix:{path}", "service:app"),
        ],
        cwd=tmp_path,
        env={**os.environ, "DOOR": door.target, "PYTHONPATH": source},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for at in range(40):
            while not path.exists():
                assert server.poll() is None, server.stderr.read()
                threading.Event().wait(0.02)
            connection = http.client.HTTPConnection("localhost")
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(path))
            connection.request("GET", f"/?{at}")
            assert connection.getresponse().read() == b"ok"
            connection.close()
    finally:
        server.terminate()
        _, errors = server.communicate(timeout=SOON)
    assert errors == ""
    ids = Counter(row["id"] for row in door.rows("predictions"))
    assert ids == Counter(["at import", *map(str, range(40))])


def test_the_logger_is_the_client_s():
    assert client_module.logger is sender_module.logger is logging.getLogger("tidegauge.client")
