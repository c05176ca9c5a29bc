"""Events over HTTP: what they say, whom they meet, and that an acknowledged one is kept."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import certificate, config, until

import tidegauge as tg
from tidegauge.journal import JournalError
from tidegauge.server import batches
from tidegauge.server.cloudevents import Event, read_events
from tidegauge.server.config import (
    ConfigError,
    Events,
    Http,
    ModelConfig,
    Source,
    Tls,
    Token,
    load_config,
)
from tidegauge.server.inference import Reader
from tidegauge.server.pairs import Half, Pairs
from tidegauge.server.records import read_records
from tidegauge.server.refused import Refused
from tidegauge.server.security import new_token
from tidegauge.server.serve import Server
from tidegauge.server.tensors import TYPES, read_tensors

REQUEST = "org.kubeflow.serving.inference.request"
RESPONSE = "org.kubeflow.serving.inference.response"
SCHEMA = tg.Schema(
    task="binary",
    features={"distance": tg.numeric(), "carrier": tg.categorical()},
    prediction_id="id",
    timestamp="time",
    prediction_score="p_late",
    label="late",
)
SOURCE = Source(
    inputs={"features": ("distance", "")},
    outputs={"probabilities": ("", "p_late")},
)

# --- tensors ------------------------------------------------------------------------------------

NUMBERS = {
    "BOOL": st.booleans(),
    "FP64": st.floats(allow_nan=False) | st.integers(-(2**53), 2**53),
    "FP32": st.floats(width=32, allow_nan=False),
    "FP16": st.floats(width=16, allow_nan=False),
    "BYTES": st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    **{
        f"INT{bits}": st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        for bits in (8, 16, 32, 64)
    },
    **{f"UINT{bits}": st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
RAW = {"BOOL": "?", "FP16": "e", "FP32": "f", "FP64": "d"}
RAW |= {f"INT{bits}": code for bits, code in ((8, "b"), (16, "h"), (32, "i"), (64, "q"))}
RAW |= {f"U{name}": code.upper() for name, code in RAW.items() if name.startswith("INT")}


def raw(datatype: str, values: list[Any]) -> str:
    """The values as a machine would send them."""
    if datatype == "BYTES":
        texts = [text.encode() for text in values]
        content = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    else:
        content = b"".join(struct.pack(f"<{RAW[datatype]}", value) for value in values)
    return base64.b64encode(content).decode()


@st.composite
def payloads(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any], dict[str, list[Any]]]:
    """A request, the names of its columns, and what they hold, found value by value."""
    n = draw(st.integers(0, 4))
    as_raw = draw(st.booleans())
    tensors, contents, names = [], [], {}
    expected: dict[str, list[Any]] = {}
    for place in range(draw(st.integers(1, 3))):
        datatype = draw(st.sampled_from(sorted(TYPES)))
        shape = [n, *draw(st.lists(st.integers(1, 3), max_size=2))]
        width = int(np.prod(shape[1:]))
        values = draw(st.lists(NUMBERS[datatype], min_size=n * width, max_size=n * width))
        tensor = {"name": f"t{place}", "shape": shape, "datatype": datatype}
        columns = [f"c{place}.{i}" if draw(st.booleans()) else "" for i in range(width)]
        columns[0] = f"c{place}.0"
        names[tensor["name"]] = tuple(columns) if width > 1 or draw(st.booleans()) else columns[0]
        for i, column in enumerate(columns):
            if column:
                expected[column] = [values[row * width + i] for row in range(n)]
        contents.append(raw(datatype, values))
        if not as_raw:
            nested = draw(st.booleans()) and n > 0
            tensor["data"] = np.array(values, object).reshape(shape).tolist() if nested else values
        tensors.append(tensor)
    payload: dict[str, Any] = {"inputs": tensors}
    if as_raw:
        payload["raw_input_contents"] = contents
    return payload, names, expected


@given(payloads())
def test_tensors_are_the_columns_that_they_say(case):
    payload, names, expected = case
    payload = json.loads(json.dumps(payload))
    rows = read_tensors(payload, "inputs", names=names, known=[])
    assert rows.to_batch().to_pydict() == expected
    assert batches.unpack(batches.pack(rows.to_batch())).to_pydict() == expected


def test_tensors_without_names_are_the_columns_of_their_own():
    payload = {
        "inputs": [
            {"name": "distance", "shape": [1], "datatype": "FP64", "data": [2]},
            {"name": "x", "shape": [1, 3], "datatype": "INT8", "data": [1, 2, 3]},
            {"name": "unknown", "shape": [7], "datatype": "FP64", "data": "not even read"},
        ]
    }
    rows = read_tensors(payload, "inputs", names={}, known=["distance", "x.0", "x.2"])
    assert rows.to_batch().to_pydict() == {"distance": [2.0], "x.0": [1], "x.2": [3]}


def test_a_tensor_of_one_name_and_many_columns_is_a_vector():
    tensor = {"name": "e", "shape": [2, 2], "datatype": "FP64", "data": [1, 2, 3, 4]}
    rows = read_tensors({"inputs": [tensor]}, "inputs", names={"e": "embedding"}, known=[])
    assert rows.columns["embedding"] == (pa.list_(pa.float32(), 2), [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"shape": [2]}, "inputs[0].data"),
        ({"shape": []}, "inputs[0].shape"),
        ({"shape": [-1]}, "inputs[0].shape"),
        ({"shape": [1 << 30, 1 << 30]}, "inputs[0].shape"),
        ({"shape": [True]}, "inputs[0].shape"),
        ({"shape": ["9" * 5000]}, "inputs[0].shape"),
        ({"datatype": "FP8"}, "inputs[0].datatype"),
        ({"datatype": ["FP32"]}, "inputs[0].datatype"),
        ({"datatype": "INT8", "data": [300]}, "inputs[0].data"),
        ({"datatype": "INT8", "data": [1.5]}, "inputs[0].data"),
        ({"datatype": "INT8", "data": [True]}, "inputs[0].data"),
        ({"datatype": "FP32", "data": [1e39]}, "inputs[0].data"),
        ({"datatype": "FP64", "data": [10**400]}, "inputs[0].data"),
        ({"datatype": "FP64", "data": [None]}, "inputs[0].data"),
        ({"datatype": "BYTES", "data": ["\ud800"]}, "inputs[0].data"),
        ({"data": {}}, "inputs[0].data"),
        ({"data": [[1.0], 2.0]}, "inputs[0].data"),
        ({"name": 3}, "inputs[0].name"),
        ({"name": "other"}, "inputs"),
    ],
)
def test_a_wrong_tensor_is_named(change, field):
    tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0], **change}
    with pytest.raises(Refused) as caught:
        read_tensors({"inputs": [tensor]}, "inputs", names={}, known=["x"])
    assert caught.value.fields[0][0] == field
    assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("datatype", "content"),
    [
        ("FP32", "AAAA"),
        ("FP32", "no base64!"),
        ("FP32", 7),
        ("BYTES", base64.b64encode(b"\x05\0\0\0abc").decode()),
        ("BYTES", base64.b64encode(b"\x01\0\0\0\xff").decode()),
        ("BYTES", base64.b64encode(b"\x01\0").decode()),
        ("BYTES", ""),
    ],
)
def test_wrong_raw_contents_are_named(datatype, content):
    payload = {
        "inputs": [{"name": "x", "shape": [1], "datatype": datatype}],
        "raw_input_contents": [content],
    }
    with pytest.raises(Refused):
        read_tensors(payload, "inputs", names={}, known=["x"])


# --- CloudEvents --------------------------------------------------------------------------------


def headers(attributes: dict[str, str]) -> list[tuple[str, str]]:
    """Attributes as binary mode has them."""
    named = [(f"ce-{name}", value) for name, value in attributes.items()]
    return [*named, ("content-type", "application/json; charset=utf-8")]


ATTRIBUTES = {
    "specversion": "1.0",
    "id": "7",
    "source": "s",
    "type": "t",
    "time": "2024-05-01T00:00Z",
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(JSON)
def test_the_three_modes_say_the_same(data):
    whole = json.dumps({**ATTRIBUTES, "data": data}).encode()
    coded = {**ATTRIBUTES, "data_base64": base64.b64encode(json.dumps(data).encode()).decode()}
    sent = [
        (headers(ATTRIBUTES), json.dumps(data).encode()),
        ([("content-type", "application/cloudevents+json")], whole),
        ([("content-type", "application/cloudevents+json")], json.dumps(coded).encode()),
        ([("content-type", "application/cloudevents-batch+json")], b"[" + whole + b"]"),
    ]
    assert [read_events(*each) for each in sent] == [[Event(ATTRIBUTES, data)]] * 4


def test_attributes_in_headers_are_decoded():
    given_ = [("ce-specversion", "1.0"), ("ce-type", "%C3%A9"), ("ce-id", "7")]
    assert read_events(given_, b"1")[0].type == "é"


def test_one_wrong_event_of_a_batch_leaves_the_others():
    batch = [{**ATTRIBUTES, "data": 1}, {"specversion": "9"}, 3, {**ATTRIBUTES, "data": 2}]
    kind = [("content-type", "application/cloudevents-batch+json")]
    found = read_events(kind, json.dumps(batch).encode())
    assert [isinstance(event, Event) for event in found] == [True, False, False, True]
    assert found[1].fields[0][0] == "events[1].specversion"


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        ([("content-type", "application/json")], b"{}"),
        (headers({"specversion": "1.0", "type": "t"}), b"{"),
        (headers({"specversion": "1.0", "type": "t"}), b"[" * 100_000),
        (headers({"specversion": "1.0"}), b"{}"),
        ([*headers(ATTRIBUTES), ("content-type", "text/plain")], b"{}"),
        ([("content-type", "application/cloudevents+json")], b"[]"),
        ([("content-type", "application/cloudevents-batch+json")], b"{}"),
        ([], b"\xff"),
    ],
)
def test_what_is_no_event_is_refused(sent, body):
    with pytest.raises(Refused):
        read_events(sent, body)


# --- pairs --------------------------------------------------------------------------------------


class SlowPairs:
    """Halves in a list, the oldest first."""

    def __init__(self, limit: int, limit_bytes: int, within: float) -> None:
        self.waiting: list[tuple[str, Half[int]]] = []
        self.limits = limit, limit_bytes, within

    def drop(self, now: float) -> list[str]:
        limit, limit_bytes, within = self.limits
        dropped = []
        while self.waiting and (
            len(self.waiting) > limit
            or sum(half.n_bytes for _, half in self.waiting) > limit_bytes
            or self.waiting[0][1].came < now - within
        ):
            dropped.append(self.waiting.pop(0)[0])
        return dropped


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 40), st.integers(0, 20)), max_size=60
    )
)
def test_pairs_keep_the_newest_within_their_limits(steps):
    pairs: Pairs[int] = Pairs(limit=4, limit_bytes=100, within=50)
    slow = SlowPairs(4, 100, 50)
    now = 0.0
    for key, n_bytes, pause in steps:
        now += pause
        half = Half(len(slow.waiting), n_bytes, now)
        other = next((entry for entry in slow.waiting if entry[0] == key), None)
        assert pairs.waiting(("m", key)) == (other and other[1])
        if other is None:
            pairs.wait(("m", key), half)
            slow.waiting.append((key, half))
        else:
            assert pairs.meet(("m", key), now) == other[1]
            slow.waiting.remove(other)
            assert pairs.has_met(("m", key))
        if pause % 2:
            assert [key for (_, key), _ in pairs.drop(now)] == slow.drop(now)
        assert len(pairs) == len(slow.waiting)
        assert pairs.n_bytes == sum(half.n_bytes for _, half in slow.waiting)


def test_a_parted_pair_waits_as_before():
    pairs: Pairs[str] = Pairs(limit=10, limit_bytes=100, within=50)
    for place, name in enumerate("abc"):
        pairs.wait(("m", name), Half(name, 1, float(place)))
    half = pairs.meet(("m", "a"), 5.0)
    pairs.part(("m", "a"), half)
    assert not pairs.has_met(("m", "a"))
    assert [key for (_, key), _ in pairs.drop(50.5)] == ["a"]


# --- what an event says -------------------------------------------------------------------------


def reader(**sources: Source) -> Reader:
    """A reader of one model, flights."""

    def schema_of(model: str) -> tg.Schema:
        if model != "flights":
            raise Refused("NOT_FOUND", "UNKNOWN_MODEL", "no such model")
        return SCHEMA

    return Reader(schema_of, sources or {"flights": SOURCE})


def request_event(id_: str, distance: float = 3.0, **more: Any) -> Event:
    """What a logger sends before the model has answered."""
    tensor = {"name": "features", "shape": [1, 2], "datatype": "FP64", "data": [distance, 0.0]}
    attributes = {"specversion": "1.0", "type": REQUEST, "id": id_, "source": "kserve"}
    attributes |= {"inferenceservicename": "flights", "time": "2024-05-01T00:00:00Z"}
    return Event(attributes, {"inputs": [tensor], **more})


def response_event(id_: str, score: float = 0.75, **more: Any) -> Event:
    """What a logger sends after the model has answered."""
    tensor = {"name": "probabilities", "shape": [1, 2], "datatype": "FP64"}
    event = request_event(id_)
    data = {"outputs": [{**tensor, "data": [1 - score, score]}], **more}
    return Event({**event.attributes, "type": RESPONSE}, data)


def test_two_halves_make_a_prediction():
    read = reader()
    inputs, outputs = read.read(request_event("7")), read.read(response_event("7"))
    assert (inputs.side, outputs.side, inputs.key) == ("inputs", "outputs", "7")
    rows = read.whole(inputs, outputs).rows.to_batch().to_pylist()
    assert [(row["id"], row["distance"], row["p_late"]) for row in rows] == [("7", 3.0, 0.75)]
    assert rows[0]["time"].isoformat() == "2024-05-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("sent", "answered", "expected"),
    [
        ({}, {}, "7"),
        ({"id": "a"}, {}, "a"),
        ({"id": "a"}, {"id": "b"}, "b"),
        ({}, {"id": "b"}, "b"),
    ],
)
def test_the_id_is_the_one_that_the_caller_sees(sent, answered, expected):
    read = reader()
    halves = read.read(request_event("7", **sent)), read.read(response_event("7", **answered))
    assert read.whole(*halves).rows.columns["id"][1] == [expected]


def test_seldon_joins_by_its_request_id():
    event = request_event("1")
    attributes = {**event.attributes, "type": "io.seldon.serving.inference.request"}
    assert reader().read(Event({**attributes, "requestid": "r"}, event.data)).key == "r"


def test_rows_of_one_request_get_an_id_each():
    tensor = {"name": "distance", "shape": [3], "datatype": "FP64", "data": [1, 2, 3]}
    scores = {"name": "p_late", "shape": [3, 1], "datatype": "FP32", "data": [0.5, 0.25, 0.75]}
    read = reader(flights=Source())
    inputs = read.read(Event(request_event("7").attributes, {"inputs": [tensor]}))
    outputs = read.read(Event(response_event("7").attributes, {"outputs": [scores]}))
    rows = read.whole(inputs, outputs).rows
    assert rows.columns["id"][1] == ["7/0", "7/1", "7/2"]
    assert rows.columns["p_late"][1] == [0.5, 0.25, 0.75]


def test_an_event_without_any_id_is_refused():
    event = request_event("7")
    attributes = {name: value for name, value in event.attributes.items() if name != "id"}
    with pytest.raises(Refused, match="no label could be joined"):
        reader().read(Event(attributes, event.data))
    assert reader().read(Event(attributes, {**event.data, "id": "x"})).key == "x"


def test_services_and_namespaces_are_told_apart():
    read = reader(flights=Source(service="fl", namespace="prod"))
    event = Event({"inferenceservicename": "fl", "namespace": "prod"}, None)
    assert read.model_of(event) == "flights"
    assert read.model_of(Event({"inferenceservicename": "fl", "namespace": "x"}, None)) == "fl"
    assert read.model_of(Event({"model": "flights"}, None)) == "flights"
    with pytest.raises(Refused):
        read.model_of(Event({}, None))


def test_a_label_is_two_words_of_json():
    event = Event({"type": "tidegauge.outcomes", "model": "flights"}, {"id": "7", "label": 1})
    said = reader().read(event)
    assert said.kind == "outcomes"
    assert said.rows.to_batch().to_pydict() == {"id": ["7"], "late": [1]}


@pytest.mark.parametrize(
    "data", [{"id": "7"}, {"label": 1}, {"x": 1}, [], 3, [3], {"id": {}, "label": 1}]
)
def test_half_a_label_is_refused(data):
    with pytest.raises(Refused):
        reader().read(Event({"type": "tidegauge.outcomes", "model": "flights"}, data))


def test_rows_as_json_are_typed_by_the_schema():
    entries = [
        {"id": 1, "distance": 3, "p_late": 1, "carrier": "AA", "time": "2024-05-01T00:00Z", "z": 0},
        {"id": 2, "distance": None, "carrier": None},
    ]
    batch = read_records(entries, SCHEMA, "data").to_batch()
    types = dict(zip(batch.schema.names, map(str, batch.schema.types), strict=True))
    assert types == {
        "distance": "double",
        "carrier": "string",
        "id": "int64",
        "time": "timestamp[us, tz=UTC]",
        "p_late": "double",
    }
    assert batch["p_late"].to_pylist() == [1.0, None]


@given(JSON, st.sampled_from([REQUEST, RESPONSE, "tidegauge.predictions", "tidegauge.outcomes"]))
def test_any_json_is_read_or_refused(data, kind):
    attributes = {**ATTRIBUTES, "type": kind, "model": "flights"}
    check_read(Event(attributes, data))


@given(st.data())
def test_a_changed_payload_is_read_or_refused(data):
    """Any value of a sound event becomes any other."""
    event = data.draw(st.sampled_from([request_event("1"), response_event("1")]))
    payload = json.loads(json.dumps(event.data))
    place: Any = payload
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(list(keys)))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = place[key]
    check_read(Event(event.attributes, payload))


def check_read(event: Event) -> None:
    """Rows that can be packed, or a refusal that names a field."""
    refused = None
    try:
        said = reader().read(event)
    except Refused as refusal:
        refused = refusal
    if refused is None:
        batches.pack(said.rows.to_batch())
    else:
        assert refused.fields


# --- through the port -----------------------------------------------------------------------------

OPEN: list[HTTPConnection] = []


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference for SCHEMA."""
    path = tmp_path_factory.mktemp("reference") / "flights.tide"
    n = 500
    table = {
        "distance": np.arange(n) % 50 / 2,
        "carrier": np.array(["AA", "UA"])[np.arange(n) % 2],
        "id": np.arange(n).astype(str),
        "time": np.datetime64("2024-04-01", "us") + np.arange(n) * np.timedelta64(1, "h"),
        "p_late": np.arange(n) % 100 / 100,
        "late": np.arange(n) % 3 == 0,
    }
    tg.Reference.fit(table, SCHEMA, bins=64).save(path)
    return path


@contextmanager
def serving(directory: Path, reference: Path, **tables: Any) -> Iterator[Server]:
    """A server with an HTTP door."""
    given_ = {
        "models": {"flights": ModelConfig(reference)},
        "http": Http("127.0.0.1:0"),
        "events": Events(models={"flights": SOURCE}),
        **tables,
    }
    with Server(config(directory, **given_)) as running:
        yield running


@pytest.fixture
def server(tmp_path: Path, reference: Path) -> Iterator[Server]:
    """One with the settings that it has unless told otherwise."""
    with serving(tmp_path, reference) as running:
        yield running


def account(server: Server) -> Mapping[str, int]:
    """What became of the events of the model."""
    return server.desk.models["flights"].monitor.account.to_dict()


@pytest.fixture(autouse=True)
def connections() -> Iterator[None]:
    """Close what a test has opened."""
    yield
    while OPEN:
        OPEN.pop().close()


def connect(port: int | None) -> HTTPConnection:
    """A connection that the end of the test closes."""
    OPEN.append(HTTPConnection("127.0.0.1", port, timeout=20))
    return OPEN[-1]


class Sender:
    """A connection to the door that stays open, as a logger's does."""

    def __init__(self, server: Server, **more: str) -> None:
        self.connection = connect(server.doors["http"].port)
        self.more = more

    def post(self, body: bytes, named: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        """Status and answer."""
        self.connection.request("POST", "/v1/events", body, {**named, **self.more})
        response = self.connection.getresponse()
        self.headers = dict(response.getheaders())
        return response.status, json.loads(response.read())

    def send(self, event: Event) -> tuple[int, dict[str, Any]]:
        """Send an event in binary mode."""
        return self.post(json.dumps(event.data).encode(), dict(headers(event.attributes)))

    def send_all(self, events: Sequence[Event]) -> tuple[int, dict[str, Any]]:
        """Send events in a batch."""
        entries = [{**event.attributes, "data": event.data} for event in events]
        body = json.dumps(entries).encode()
        return self.post(body, {"content-type": "application/cloudevents-batch+json"})


def outcome(id_: str, label: int) -> Event:
    """A label."""
    attributes = {"specversion": "1.0", "type": "tidegauge.outcomes", "id": f"label of {id_}"}
    return Event({**attributes, "model": "flights"}, {"id": id_, "label": label})


def test_halves_meet_and_labels_join(server: Server) -> None:
    sender = Sender(server)
    assert sender.send(request_event("1")) == (
        202,
        {"accepted": 0, "waiting": 1, "refused": [], "n_refused": 0},
    )
    assert account(server)["predictions"] == 0
    assert sender.send(response_event("1"))[0] == 200
    assert sender.send(response_event("2"))[0] == 202  # the other way round
    assert sender.send(request_event("2"))[1]["accepted"] == 1
    assert sender.send(outcome("1", 1))[1]["accepted"] == 1
    found = account(server)
    assert (found["predictions"], found["matched"], found["pending"]) == (2, 1, 1)
    assert not server.desk.journal.marks(b"events")


def test_a_batch_is_paired_within_and_across(server: Server) -> None:
    sender = Sender(server)
    events = [request_event(str(i)) for i in range(50)] + [
        response_event(str(i)) for i in range(49)
    ]
    wrong = Event({**events[0].attributes, "type": "nonsense"}, {})
    status, answer = sender.send_all([*events, wrong])
    assert (status, answer["accepted"], answer["waiting"], answer["n_refused"]) == (202, 49, 1, 1)
    assert answer["refused"][0]["event"] == 99
    assert sender.send(response_event("49"))[1]["accepted"] == 1
    assert account(server)["predictions"] == 50


def test_a_half_that_comes_again_counts_once(server: Server) -> None:
    sender = Sender(server)
    for event in (request_event("1"), request_event("1"), response_event("1"), response_event("1")):
        assert sender.send(event)[0] in (200, 202)
    assert sender.send(request_event("1"))[1] == {
        "accepted": 0,
        "waiting": 0,
        "refused": [],
        "n_refused": 0,
    }
    assert account(server)["predictions"] == 1
    assert server.doors["http"].gathering.counts["repeated"] == 3


def test_waiting_halves_outlive_the_server(tmp_path: Path, reference: Path) -> None:
    with serving(tmp_path, reference) as server:
        assert Sender(server).send(request_event("1", distance=7.0))[0] == 202
    with serving(tmp_path, reference) as server:
        assert len(server.doors["http"].gathering.pairs) == 1
        assert Sender(server).send(response_event("1"))[0] == 200
        assert account(server)["predictions"] == 1
    with serving(tmp_path, reference) as server:
        assert len(server.doors["http"].gathering.pairs) == 0
        assert account(server)["predictions"] == 1


def test_halves_that_wait_too_long_are_counted_as_dropped(tmp_path: Path, reference: Path) -> None:
    events = Events(models={"flights": SOURCE}, waiting=2)
    with serving(tmp_path, reference, events=events) as server:
        sender = Sender(server)
        for i in range(5):
            assert sender.send(request_event(str(i)))[0] == 202
        gathering = server.doors["http"].gathering
        assert (len(gathering.pairs), gathering.counts["expired"]) == (2, 3)
        assert sender.send(response_event("4"))[0] == 200
        assert server.desk.models["flights"].dropped == 3
        assert sender.send(response_event("0"))[0] == 202  # its request is gone
        names = server.desk.journal.marks(b"events").keys()
        assert names == {b"events\0flights\x003", b"events\0flights\x000"}


def test_one_faulty_event_does_not_take_others_with_it(server: Server) -> None:
    """A score that is no probability is found when rows are counted, together with others."""
    sender = Sender(server)
    events = [request_event(str(i)) for i in range(20)]
    events += [response_event(str(i), score=7.0 if i in (3, 11) else 0.5) for i in range(20)]
    status, answer = sender.send_all(events)
    assert (status, answer["accepted"], answer["n_refused"]) == (200, 18, 4)
    assert {each["event"] for each in answer["refused"]} == {3, 11, 23, 31}
    assert account(server)["predictions"] == 18
    status, answer = sender.send_all([request_event("x"), response_event("x", score=2.0)])
    assert (status, answer["reason"]) == (400, "INVALID_ROWS")


@pytest.mark.parametrize(
    ("event", "status", "field"),
    [
        (Event({**request_event("1").attributes, "type": "x"}, {}), 400, "ce-type"),
        (Event({**request_event("1").attributes, "model": "none"}, {}), 404, "model"),
        (Event({**request_event("1").attributes, "specversion": "2"}, {}), 400, "ce-specversion"),
        (Event({**request_event("1").attributes, "time": "noon"}, {"inputs": []}), 400, "inputs"),
        (Event(request_event("1").attributes, {"inputs": [{}]}), 400, "inputs[0].name"),
        (outcome("1", {}), 400, "data.late"),
    ],
)
def test_a_problem_names_its_field(server: Server, event: Event, status: int, field: str) -> None:
    sender = Sender(server)
    found, problem = sender.send(event)
    assert (found, problem["status"], problem["fields"][0]["field"]) == (status, status, field)
    assert sender.headers["content-type"] == "application/problem+json"


def test_answers_do_not_wait_for_the_caller(server: Server) -> None:
    """Only then does asyncio set TCP_NODELAY; without it every answer takes 40 ms more."""
    assert server.doors["http"]._socket.proto == socket.IPPROTO_TCP


def test_what_is_too_large_is_refused_before_it_is_read(server: Server) -> None:
    size = (4 << 20) + 1
    status, problem = Sender(server).post(b"x" * size, headers_of(request_event("1")))
    assert (status, problem["reason"]) == (413, "TOO_LARGE")

    def parts() -> Iterator[bytes]:
        for _ in range(5):
            yield b"x" * (1 << 20)

    connection = connect(server.doors["http"].port)
    try:
        connection.request("POST", "/v1/events", parts(), encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # it had read enough
    status, problem = Sender(server).post(b"{}", {"content-type": "text/csv"})
    assert (status, problem["reason"]) == (415, "NOT_A_CLOUDEVENT")


def headers_of(event: Event) -> dict[str, str]:
    """Headers of an event in binary mode."""
    return dict(headers(event.attributes))


def test_tokens_are_those_of_the_other_doors(tmp_path: Path, reference: Path) -> None:
    text, digest = new_token()
    other, other_digest = new_token()
    tokens = (
        Token("kserve", digest, {"flights": ("write",)}),
        Token("reader", other_digest, {"flights": ("read",)}),
    )
    with serving(tmp_path, reference, tokens=tokens) as server:
        status, problem = Sender(server).send(request_event("1"))
        assert (status, problem["reason"]) == (401, "TOKEN_WANTED")
        assert Sender(server, authorization=f"Bearer {other}").send(request_event("1"))[0] == 403
        sender = Sender(server, authorization=f"Bearer {text}")
        assert sender.send(request_event("1"))[0] == 202
        assert text not in json.dumps(problem)


def test_only_those_with_a_certificate_come_in(tmp_path: Path, reference: Path) -> None:
    chain, key = certificate(tmp_path)
    event = request_event("1")
    body = json.dumps(event.data)
    with serving(tmp_path, reference, tls=Tls(chain, key, chain)) as server:
        context = ssl.create_default_context(cafile=str(chain))
        port = server.doors["http"].port
        stranger = HTTPSConnection("localhost", port, context=context, timeout=20)
        with closing(stranger), pytest.raises(OSError):  # noqa: PT011, PT012 - at either step
            stranger.request("POST", "/v1/events", body, headers_of(event))
            stranger.getresponse()
        context.load_cert_chain(chain, key)
        known = HTTPSConnection("localhost", port, context=context, timeout=20)
        with closing(known):
            known.request("POST", "/v1/events", body, headers_of(event))
            response = known.getresponse()
            assert (response.status, response.read()[:1]) == (202, b"{")


def test_doors_beyond_this_machine_want_certificates(tmp_path: Path, reference: Path) -> None:
    models = {"flights": ModelConfig(reference)}
    with pytest.raises(ConfigError, match="can be reached from elsewhere"):
        Server(config(tmp_path, models=models, http=Http("0.0.0.0:0")))
    wrong = Events(models={"flights": Source(outputs={"y": ("p_early",)})})
    given_ = config(tmp_path, models=models, http=Http("127.0.0.1:0"), events=wrong)
    with pytest.raises(ConfigError, match="names column 'p_early'"):
        Server(given_)


def test_a_full_queue_asks_to_come_again(tmp_path: Path, reference: Path) -> None:
    events = Events(models={"flights": SOURCE}, queue="3000")
    with serving(tmp_path, reference, events=events) as server:
        sender = Sender(server)
        assert sender.send(request_event("1"))[0] == 202
        status, problem = sender.send_all([request_event("2"), request_event("3")])
        assert (status, problem["reason"]) == (429, "BACK_PRESSURE")
        assert int(sender.headers["retry-after"]) >= 1


def test_a_journal_that_cannot_be_written_is_told_and_nothing_is_lost(server: Server) -> None:
    sender = Sender(server)
    assert sender.send(request_event("1"))[0] == 202
    server.desk.trouble = JournalError("DISK_FULL", "no space")
    assert sender.send(response_event("1"))[0] == 429
    assert sender.send(request_event("2"))[0] == 429
    server.desk.trouble = None
    assert sender.send(response_event("1"))[1]["accepted"] == 1
    assert sender.send(response_event("2"))[0] == 202


def test_an_impatient_sender_is_answered_before_anything_is_written(
    tmp_path: Path, reference: Path
) -> None:
    events = Events(models={"flights": SOURCE}, acknowledge="received")
    with serving(tmp_path, reference, events=events) as server:
        sender = Sender(server)
        server.desk.trouble = JournalError("DISK_FULL", "no space")
        assert sender.send(request_event("1"))[0] == 202
        assert sender.send(response_event("1"))[0] == 202
        server.desk.trouble = None
        until(lambda: account(server)["predictions"] == 1)


def test_what_is_tried_again_counts_once(
    tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt that failed may be on the disk: the next one has its id."""
    events = Events(models={"flights": SOURCE}, acknowledge="received")
    with serving(tmp_path, reference, events=events) as server:
        ids: list[str] = []
        write = server.desk.write

        def lose(kind: int, model: str, request_id: str, **settings: Any) -> Any:
            ids.append(request_id)
            answer = write(kind, model, request_id, **settings)
            if len(ids) < 3:
                answer.result()
                raise Refused("UNAVAILABLE", "RECOVERING", "it is", retry_after=0.01)
            return answer

        monkeypatch.setattr(server.desk, "write", lose)
        sender = Sender(server)
        assert sender.send(request_event("1"))[0] == 202
        assert sender.send(response_event("1"))[0] == 202
        until(lambda: len(ids) == 3)
        assert sender.send(outcome("1", 1))[0] == 202
        until(lambda: account(server)["labels"] == 1)
        assert len(set(ids)) == 2
        found = account(server)
        assert (found["predictions"], found["duplicate_predictions"]) == (1, 0)
        gathering = server.doors["http"].gathering
        assert (len(gathering.pairs), gathering.counts["repeated"]) == (0, 0)
        until(lambda: not gathering._queued)
    with serving(tmp_path, reference, events=events) as server:
        assert account(server) == found


def test_what_is_too_large_for_the_server_is_cut(tmp_path: Path, reference: Path) -> None:
    attributes = {**ATTRIBUTES, "type": "tidegauge.predictions", "model": "flights"}
    row = {"distance": 1.0, "p_late": 0.5, "time": "2024-05-01T00:00:00Z"}
    rows = [[row | {"id": 50 * i + k} for k in range(50)] for i in range(20)]
    with serving(tmp_path, reference) as server:
        server.desk.in_flight_bytes = 16_384
        status, answer = Sender(server).send_all([Event(attributes, each) for each in rows])
        assert (status, answer["accepted"], answer["n_refused"]) == (200, 1000, 0)
        large = [row | {"id": k} for k in range(1000, 3000)]
        status, problem = Sender(server).send(Event(attributes, large))
        assert (status, problem["reason"]) == (413, "TOO_LARGE")
        assert account(server)["predictions"] == 1000


def test_many_senders_at_once(server: Server) -> None:
    def send(first: int) -> list[int]:
        sender = Sender(server)
        events = [
            make(str(i))
            for i in range(first, first + 25)
            for make in (request_event, response_event)
        ]
        return [sender.send(event)[0] for event in events]

    with ThreadPoolExecutor(8) as pool:
        answers = [status for found in pool.map(send, range(0, 200, 25)) for status in found]
    assert answers == [202, 200] * 200
    assert account(server)["predictions"] == 200


@contextmanager
def http_process(written: Path, failpoint: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`tidegauge serve` in a process that dies at a named point, and the port of its HTTP door."""
    environment = {"PYTHONPATH": str(Path(tg.__file__).parent.parent)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tidegauge.cli", "serve", f"--config={written}"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment, "TIDEGAUGE_FAILPOINT": failpoint},
    )
    with process:
        assert process.stderr is not None
        said = iter(process.stderr)
        line = next(line for line in said if line.startswith("tidegauge: http on port "))
        yield process, int(line.split()[-1])
        process.kill()


def test_acknowledged_halves_survive_the_death_of_the_server(
    tmp_path: Path, reference: Path
) -> None:
    """Killed at any moment, sent again what was not acknowledged: every pair counts once."""
    written = tmp_path / "tidegauge.toml"
    written.write_text(
        f"""
        [listen]
        address = "127.0.0.1:0"
        [storage]
        directory = "data"
        journal = "256MiB"
        min_free = "0"
        durability = "process"
        [http]
        address = "127.0.0.1:0"
        [models.flights]
        reference = "{reference}"
        [events.models.flights]
        inputs = {{ features = ["distance", ""] }}
        outputs = {{ probabilities = ["", "p_late"] }}
        """
    )
    config_ = load_config(written)
    assert config_.events.models["flights"] == SOURCE
    waiting = [make(str(i)) for i in range(60) for make in (request_event, response_event)]
    for deaths in (1, 2):
        with http_process(written, f"commit_after_sync:{30 * deaths}") as (process, port):
            connection = connect(port)
            try:
                while waiting:
                    event = waiting[0]
                    body = json.dumps(event.data)
                    connection.request("POST", "/v1/events", body, headers_of(event))
                    assert connection.getresponse().read()
                    waiting.pop(0)
            except (OSError, HTTPException):
                pass
            process.wait(timeout=20)
        assert waiting
    with Server(config_) as server:
        sender = Sender(server)
        for event in waiting:
            assert sender.send(event)[0] in (200, 202)
        found = account(server)
        assert found["predictions"] == 60
