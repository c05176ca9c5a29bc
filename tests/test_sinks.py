"""Sinks against receivers that answer, fail, dawdle or are gone; what the courier makes of it."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pytest

from tidegauge.alerts import courier as courier_module
from tidegauge.alerts import sinks
from tidegauge.alerts.courier import Courier
from tidegauge.alerts.incidents import Message, sample
from tidegauge.alerts.sinks import (
    Alertmanager,
    Apprise,
    Log,
    Refused,
    Repeating,
    Sink,
    Undelivered,
    Webhook,
    verify,
)
from tidegauge.store import Entry, Store
from tidegauge.values import TRANSITIONS

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class Receiver:
    """A server of HTTP that keeps what it gets and answers as told."""

    def __init__(self) -> None:
        self.status, self.headers = 200, {}
        self.answer: Callable[[BaseHTTPRequestHandler], None] | None = None
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((self.path, dict(self.headers), body))
                if receiver.answer:
                    receiver.answer(self)
                    return
                self.send_response(receiver.status)
                for key, value in receiver.headers.items():
                    self.send_header(key, value)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/token-in-path"

    @property
    def documents(self) -> list:
        return [json.loads(body) for _, _, body in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.01,))
    thread.start()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()
    thread.join()


# --- webhook -------------------------------------------------------------------------------------


def test_a_webhook_gets_the_message_signed(receiver: Receiver) -> None:
    hook = Webhook(receiver.url, secret="s3cret", headers={"Authorization": "Bearer t0ken"})
    hook.send(sample())
    ((path, headers, body),) = receiver.got
    assert path == "/hook/token-in-path"
    assert Message.from_dict(json.loads(body)) == sample()
    assert headers["Authorization"] == "Bearer t0ken"
    assert headers["Content-Type"] == "application/json"
    assert headers[sinks.DELIVERY] == f"{sample().incident}/1"
    assert verify("s3cret", body, headers)
    assert not verify("other", body, headers)
    assert not verify("s3cret", body + b" ", headers)
    assert not verify("s3cret", body, headers, now=time.time() + 301)
    assert not verify("s3cret", body, {**headers, sinks.STAMP: "1"}, now=1)
    assert not verify("s3cret", body, {})


def test_a_template_stays_a_document_whatever_the_data_say(receiver: Receiver) -> None:
    hook = Webhook(receiver.url, template={"blocks": [{"text": "$title", "n": 1}], "$x": "$$5"})
    message = sample()
    hostile = message.root.__class__(
        **{**vars(message.root), "column": '"} , $model {0.__class__}'}
    )
    hook.send(message.__class__(**{**vars(message), "root": hostile}))
    (found,) = receiver.documents
    assert '"} , $model {0.__class__}' in found["blocks"][0]["text"]
    assert found["$x"] == "$5"


@pytest.mark.parametrize(
    ("template", "said"),
    [({"text": "$heading"}, "known: title"), ("costs $ 5", "a dollar sign is")],
)
def test_a_wrong_template_is_found_when_it_is_written(template: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Webhook("http://localhost/", template=template)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_receiver_in_trouble_is_tried_again(receiver: Receiver, status: int) -> None:
    receiver.status, receiver.headers = status, {"Retry-After": "17"}
    with pytest.raises(Undelivered, match=str(status)) as caught:
        Webhook(receiver.url).send(sample())
    assert caught.value.wait == 17.0


@pytest.mark.parametrize("status", [301, 400, 401, 404, 410])
def test_a_receiver_that_refuses_is_not(receiver: Receiver, status: int) -> None:
    receiver.status, receiver.headers = status, {"Location": "http://elsewhere.invalid/"}
    with pytest.raises(Refused, match=str(status)):
        Webhook(receiver.url).send(sample())
    assert len(receiver.got) == 1


def test_a_slow_receiver_is_left_in_time(receiver: Receiver) -> None:
    done = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        """A byte now and then: never idle for as long as the timeout."""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        try:
            while not done.wait(0.05):
                handler.wfile.write(b"X-Slow: 1\r\n")
                handler.wfile.flush()
        except OSError:
            pass

    receiver.answer = drip
    started = time.monotonic()
    with pytest.raises(Undelivered, match=r"no answer in 0\.3 s"):
        Webhook(receiver.url, timeout=0.3).send(sample())
    done.set()
    assert time.monotonic() - started < 5


def test_a_receiver_that_hangs_or_is_gone(receiver: Receiver) -> None:
    done = threading.Event()
    receiver.answer = lambda _: done.wait(20)
    with pytest.raises(Undelivered):
        Webhook(receiver.url, timeout=0.2).send(sample())
    done.set()
    receiver.answer = lambda handler: handler.connection.shutdown(socket.SHUT_RDWR)
    with pytest.raises(Undelivered):
        Webhook(receiver.url).send(sample())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/"
    with pytest.raises(Undelivered, match="ConnectionRefusedError"):
        Webhook(closed).send(sample())


def test_no_secret_is_told(receiver: Receiver) -> None:
    hook = Webhook(receiver.url + "?key=hidden", secret="s3cret", headers={"X": "t0ken"})
    receiver.status = 500
    with pytest.raises(Undelivered) as caught:
        hook.send(sample())
    for text in (repr(hook), str(caught.value), repr(Alertmanager(receiver.url))):
        assert not any(word in text for word in ("token-in-path", "hidden", "s3cret", "t0ken"))
        assert "127.0.0.1" in text
    with pytest.raises(ValueError, match="belong into the headers") as wrong:
        Webhook("https://me:hunter2@host/")
    assert "hunter2" not in str(wrong.value)


@pytest.mark.parametrize("url", ["ftp://host/", "localhost:80", "http:///path"])
def test_a_url_is_http(url: str) -> None:
    with pytest.raises(ValueError, match="begins with http"):
        Webhook(url)


def test_certificates_are_verified(receiver: Receiver, tmp_path) -> None:
    import subprocess

    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    receiver.server.socket = context.wrap_socket(receiver.server.socket, server_side=True)
    with pytest.raises(Undelivered, match="certificate cannot be verified"):
        Webhook(receiver.url.replace("http:", "https:")).send(sample())
    assert receiver.got == []


# --- the others ----------------------------------------------------------------------------------


def test_alertmanager_is_told_what_fires_for_how_long_and_what_is_over(receiver: Receiver) -> None:
    manager = Alertmanager(receiver.url, labels={"team": "flights"}, every=30)
    manager.send(sample())
    manager.repeat([sample(), sample("worse")])
    manager.send(sample("resolved"))
    assert {path for path, _, _ in receiver.got} == {"/hook/token-in-path/api/v2/alerts"}
    (first,), again, (over,) = receiver.documents
    assert first["labels"] == {
        "alertname": "psi",
        "check": "psi by drift_null",
        "model": "flights",
        "segment": "all",
        "column": "distance",
        "severity": "critical",
        "fingerprint": sample().root.fingerprint,
        "team": "flights",
    }
    assert all(isinstance(value, str) for value in first["labels"].values())
    assert first["annotations"]["summary"] == sample().title
    assert first["startsAt"] == "2026-05-01T10:00:00+00:00"
    left = datetime.fromisoformat(first["endsAt"]) - datetime.now(UTC)
    assert timedelta(seconds=80) < left <= timedelta(seconds=90)
    assert len(again) == 2
    assert over["labels"] == first["labels"]
    assert datetime.fromisoformat(over["endsAt"]) <= datetime.now(UTC)
    assert isinstance(manager, Repeating)
    assert not isinstance(Log(), Repeating)


def test_the_log_has_a_level_for_each(caplog) -> None:
    with caplog.at_level(logging.INFO, logger="tidegauge.alerts"):
        for kind in ("firing", "resolved"):
            Log().send(sample(kind))
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.INFO]
    assert "psi of distance" in caplog.text


def test_apprise_notifies_and_says_when_it_could_not(receiver: Receiver) -> None:
    place = receiver.url.replace("http://", "json://")
    service = Apprise([place], title="$severity $model", text="$fingerprint")
    service.send(sample())
    (document,) = receiver.documents
    assert document["title"] == "critical flights"
    assert document["message"] == sample().root.fingerprint
    assert document["type"] == "failure"
    receiver.status = 500
    with pytest.raises(Undelivered) as caught:
        service.send(sample("resolved"))
    assert "token" not in str(caught.value)
    assert receiver.documents[-1]["type"] == "success"
    with pytest.raises(ValueError, match="no service of the kind 'nothing'") as wrong:
        Apprise(["nothing://user:hunter2@host"])
    assert "hunter2" not in str(wrong.value)


@pytest.mark.parametrize(
    "make",
    [
        Log,
        lambda: Webhook("http://h/"),
        lambda: Alertmanager("http://h/"),
        lambda: Apprise(["json://h"]),
    ],
)
def test_a_sink_has_a_name_and_sends(make) -> None:
    assert isinstance(make(), Sink)


# --- the courier ---------------------------------------------------------------------------------


class Told:
    """A sink that raises what it is told to, then keeps the rest."""

    def __init__(self, *errors: Exception, name: str = "told") -> None:
        self.name, self.errors, self.numbers = name, list(errors), []

    def send(self, message: Message) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.numbers.append(message.number)


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


def put(store: Store, *numbers: int, sink: str = "told", incident: str | None = None) -> None:
    """One message an entry; of an incident each unless it is named."""
    saved = store.state("alerts")
    before = saved[0] if saved else None
    messages = [
        {**sample().to_dict(), "number": n, "incident": incident or f"i{n}"} for n in numbers
    ]
    entry = Entry(
        name="alerts",
        writer=f"w{numbers}{sink}",
        before=before,
        state={},
        values=[],
        changes=TRANSITIONS.empty_table(),
        messages=messages,
        sinks=[sink],
        incidents={each["incident"]: each for each in messages},
    )
    assert store.record(entry, now=NOON)


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as store:
        yield store


def states(store: Store) -> list[tuple[int, str, int]]:
    return [(m["number"], m["state"], m["attempts"]) for m in store.messages()]


def test_what_does_not_arrive_is_tried_again_ever_later(store: Store) -> None:
    clock, sink = Clock(), Told(*[Undelivered("no")] * 4)
    courier = Courier(store, sink, clock=clock)
    put(store, 1)
    tries = []
    for second in range(40):
        clock.now = NOON + second * SECOND
        before = len(sink.errors), len(sink.numbers)
        courier.round()
        if (len(sink.errors), len(sink.numbers)) != before:
            tries.append(second)
    assert states(store) == [(1, "sent", 5)]
    gaps = [later - earlier for earlier, later in pairwise(tries)]
    most = [2, 4, 8, 16]  # half of it at least, and a round comes every second
    assert all(top / 2 <= gap <= top + 1 for gap, top in zip(gaps, most, strict=True))


def test_a_receiver_that_says_when_is_not_asked_before(store: Store) -> None:
    clock, sink = Clock(), Told(Undelivered("busy", wait=100.0))
    courier = Courier(store, sink, clock=clock)
    put(store, 1)
    courier.round()
    clock.now = NOON + 99 * SECOND
    courier.round()
    assert sink.numbers == []
    clock.now = NOON + 100 * SECOND
    courier.round()
    assert sink.numbers == [1]


def test_what_is_refused_is_given_up_and_the_next_is_sent(store: Store, caplog) -> None:
    clock, sink = Clock(), Told(Refused("404"))
    put(store, 1, 2, incident="one")
    courier = Courier(store, sink, clock=clock)
    courier.round()
    courier.round()
    assert sink.numbers == [2]
    assert states(store) == [(1, "failed", 1), (2, "sent", 1)]
    assert "is refused: 404" in caplog.text


def test_after_a_day_a_message_is_no_news(store: Store) -> None:
    clock, sink = Clock(), Told(*[ValueError("secret")] * 99)
    put(store, 1)
    courier = Courier(store, sink, clock=clock)
    courier.round()
    clock.now = NOON + timedelta(days=1)
    courier.round()
    assert states(store) == [(1, "failed", 2)]
    assert store.messages()[0]["error"] == "ValueError"  # not what a sink of whoever's says


def test_no_more_than_so_many_a_minute(store: Store) -> None:
    clock, sink = Clock(), Told()
    courier = Courier(store, sink, per_minute=3, clock=clock)
    put(store, *range(1, 8))
    wait = courier.round()
    assert (sink.numbers, wait) == ([1, 2, 3], 60.0)
    clock.now = NOON + 59 * SECOND
    assert courier.round() == 1.0
    clock.now = NOON + 61 * SECOND
    courier.round()
    assert sink.numbers == [1, 2, 3, 4, 5, 6]


def test_what_is_open_is_said_again(store: Store, receiver: Receiver) -> None:
    clock = Clock()
    manager = Alertmanager(receiver.url, every=30)
    courier = Courier(store, manager, clock=clock)
    put(store, 1, sink="alertmanager")
    for second in range(0, 100, 10):
        clock.now = NOON + second * SECOND
        courier.round()
    assert len(receiver.got) == 1 + 4
    receiver.status = 503
    clock.now += 60 * SECOND
    courier.round()  # no error: it is said again anyhow


@contextmanager
def running(store: Store, *sinks_: Sink) -> Iterator[list[Courier]]:
    couriers = [Courier(store, sink) for sink in sinks_]
    for each in couriers:
        each.start()
    yield couriers
    for each in couriers:
        each.close()


def test_one_sink_that_hangs_holds_up_no_other(store: Store) -> None:
    free = threading.Event()

    class Hanging(Told):
        def send(self, message: Message) -> None:
            free.wait(30)
            super().send(message)

    slow, quick = Hanging(name="slow"), Told(name="quick")
    with running(store, slow, quick) as couriers:
        put(store, 1, sink="slow")
        put(store, 2, sink="quick")
        for each in couriers:
            each.call()
        give_up = time.monotonic() + 20
        while not quick.numbers and time.monotonic() < give_up:
            time.sleep(0.01)
        assert (slow.numbers, quick.numbers) == ([], [2])
        free.set()
    assert slow.numbers == [1]


def test_a_store_that_is_away_does_not_end_the_courier(store: Store, monkeypatch, caplog) -> None:
    monkeypatch.setattr(courier_module, "FIRST", 0.01)
    sink, away = Told(), threading.Event()
    away.set()
    waiting = store.waiting

    def sometimes(*arguments, **options):
        if away.is_set():
            away.clear()
            raise OSError("gone")
        return waiting(*arguments, **options)

    monkeypatch.setattr(store, "waiting", sometimes)
    put(store, 1)
    with running(store, sink):
        give_up = time.monotonic() + 20
        while not sink.numbers and time.monotonic() < give_up:
            time.sleep(0.01)
    assert sink.numbers == [1]
    assert "cannot be carried now" in caplog.text
