"""Sinks tell people: the log, a webhook, Alertmanager, and through Apprise everything else.

A sink sends one message and returns, or raises what says whether to try again. It knows nothing of
queues, retries and limits: those are the courier's.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from string import Template
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from tidegauge.alerts.incidents import Message, sample

ANSWER = 4096  # bytes of a receiver's answer that are read
SIGNATURE, STAMP, DELIVERY = (
    "Tidegauge-Signature",
    "Tidegauge-Timestamp",
    "Tidegauge-Delivery",
)
RETRIED = {408, 425, 429}  # and everything from 500
TOLERANCE = 300.0  # seconds between the sending of a message and its arrival

_log = logging.getLogger("tidegauge.alerts")


class Undelivered(Exception):
    """A message did not arrive; it is tried again, after `wait` seconds where that is known."""

    def __init__(self, reason: str, *, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Refused(Exception):
    """A message will never be taken: wrong address, wrong token, wrong form."""


@runtime_checkable
class Sink(Protocol):
    """Where messages go: a name of its own, and a way to send one."""

    @property
    def name(self) -> str:
        """What the outbox calls it; not to change while messages wait."""

    def send(self, message: Message) -> None:
        """Send one message, or raise `Undelivered` or `Refused`."""


@runtime_checkable
class Repeating(Sink, Protocol):
    """A sink to which what is open is said again and again, or it takes it for over."""

    @property
    def every(self) -> float:
        """Seconds between one time and the next."""

    def repeat(self, messages: Sequence[Message]) -> None:
        """Say what is open: the latest message of every incident."""


@dataclass(frozen=True)
class Log:
    """Messages as lines of the log `tidegauge.alerts`.

    >>> Log().send(sample())
    """

    name: str = "log"

    def send(self, message: Message) -> None:
        """Write one line, at the level of its severity."""
        levels = {"critical": logging.ERROR, "warning": logging.WARNING}
        over = message.kind == "resolved"
        level = logging.INFO if over else levels.get(message.severity, logging.INFO)
        _log.log(level, "%s (%s)", message.title, message.root.fingerprint)


@dataclass(frozen=True)
class Webhook:
    r"""Messages as JSON to a URL, signed where there is a secret.

    Parameters
    ----------
    url
        Where to; https is verified.
    secret
        Key of the signature that `verify` checks.
    template
        A document in place of the message's own, such as {"text": "$title\n$text"} for Slack,
        Mattermost or Teams; see `fill`.
    headers
        Further headers, such as a bearer token.
    timeout
        Seconds for everything, from the connection to the end of the answer.
    name
        What the outbox calls it.

    >>> Webhook("https://chat.example.com/hook", template={"text": "$title"})
    Webhook(name='webhook', host='https://chat.example.com')
    """

    url: str
    secret: str | None = None
    template: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 10.0
    name: str = "webhook"

    def __post_init__(self) -> None:
        _check_url(self.url)
        fill(self.template, sample())

    def __repr__(self) -> str:
        return f"Webhook(name={self.name!r}, host={_host(self.url)!r})"

    def send(self, message: Message) -> None:
        """Post one message."""
        document = message.to_dict() if self.template is None else fill(self.template, message)
        body = json.dumps(document).encode()
        headers = {**self.headers, DELIVERY: f"{message.incident}/{message.number}"}
        if self.secret is not None:
            stamp = str(int(time.time()))
            headers |= {STAMP: stamp, SIGNATURE: sign(self.secret, stamp, body)}
        post(self.url, body, headers=headers, timeout=self.timeout)


def sign(secret: str, stamp: str, body: bytes) -> str:
    """Signature of a message: HMAC-SHA256 over its time, a dot and its body.

    >>> sign("secret", "1700000000", b"{}")[:12]
    'v1=b8569b787'
    """
    digest = hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256)
    return f"v1={digest.hexdigest()}"


def verify(
    secret: str, body: bytes, headers: Mapping[str, str], *, now: float | None = None
) -> bool:
    """Whether a message was sent by who knows the secret, and lately: for the receiving side.

    What is older than `TOLERANCE` seconds may have been recorded and sent once more.

    >>> stamp = "1700000000"
    >>> headers = {STAMP: stamp, SIGNATURE: sign("secret", stamp, b"{}")}
    >>> verify("secret", b"{}", headers, now=1700000100), verify("other", b"{}", headers)
    (True, False)
    """
    known = {key.lower(): value for key, value in headers.items()}
    stamp, given = known.get(STAMP.lower(), ""), known.get(SIGNATURE.lower(), "")
    if not stamp.isascii() or not stamp.isdigit():
        return False
    fresh = abs((time.time() if now is None else now) - int(stamp)) <= TOLERANCE
    return hmac.compare_digest(sign(secret, stamp, body).encode(), given.encode()) and fresh


@dataclass(frozen=True)
class Alertmanager:
    """Incidents as alerts of a Prometheus Alertmanager (API version 2).

    Labels identify an alert, annotations describe it. What is open is said again `every` so many
    seconds and ends three times as late, so that a restart or a lost message does not make it end
    and begin anew. An alert that has become worse is another one, by its label `severity`; the one
    before ends by itself.

    Parameters
    ----------
    url
        Base URL, such as "http://alertmanager:9093".
    labels
        Further labels, for routing.
    headers, timeout, name
        As of `Webhook`.

    >>> Alertmanager("http://localhost:9093")
    Alertmanager(name='alertmanager', host='http://localhost:9093')
    """

    url: str
    labels: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    every: float = 60.0
    timeout: float = 10.0
    name: str = "alertmanager"

    def __post_init__(self) -> None:
        _check_url(self.url)

    def __repr__(self) -> str:
        return f"Alertmanager(name={self.name!r}, host={_host(self.url)!r})"

    def send(self, message: Message) -> None:
        """Say that an alert fires, or is over."""
        self._post([message], datetime.now(UTC))

    def repeat(self, messages: Sequence[Message]) -> None:
        """Say again what fires."""
        self._post(messages, datetime.now(UTC))

    def _post(self, messages: Sequence[Message], now: datetime) -> None:
        body = json.dumps([self._alert(message, now) for message in messages]).encode()
        url = self.url.rstrip("/") + "/api/v2/alerts"
        post(url, body, headers=self.headers, timeout=self.timeout)

    def _alert(self, message: Message, now: datetime) -> dict[str, Any]:
        """Describe one incident as an alert."""
        root = message.root
        over = message.kind == "resolved"
        identity = {
            "alertname": root.metric,
            "check": root.check,
            "model": message.model,
            "version": message.version,
            "segment": message.segment,
            "column": root.column or "",
            "severity": message.severity,
            "fingerprint": root.fingerprint,
        }
        ends = now if over else now + timedelta(seconds=3 * self.every)
        return {
            "labels": {**self.labels, **{k: v for k, v in identity.items() if v}},
            "annotations": {"summary": message.title, "description": message.text},
            "startsAt": message.since.isoformat(),
            "endsAt": ends.isoformat(),
        }


@dataclass(frozen=True)
class Apprise:
    """Messages to any service that Apprise knows: Slack, PagerDuty, Teams, mail and many others.

    Parameters
    ----------
    urls
        Apprise's URLs, such as "mailto://user:password@example.com" or "slack://...".
    title, text
        Templates of the two parts of a message; see `fill`.
    name
        What the outbox calls it.

    >>> Apprise(["json://localhost"])
    Apprise(name='apprise', services=1)
    """

    urls: Sequence[str]
    title: str = "$title"
    text: str = "$text"
    name: str = "apprise"

    def __post_init__(self) -> None:
        fill([self.title, self.text], sample())
        self._service()

    def __repr__(self) -> str:
        return f"Apprise(name={self.name!r}, services={len(self.urls)})"

    def _service(self) -> Any:
        try:
            import apprise
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "notifications need Apprise: pip install 'tidegauge[notify]'"
            ) from None
        service = apprise.Apprise()
        for url in self.urls:
            if not service.add(url):  # Apprise's own log says no secrets; neither do we
                raise ValueError(f"Apprise knows no service of the kind {url.partition(':')[0]!r}")
        return service

    def send(self, message: Message) -> None:
        """Notify every service."""
        kinds = {"resolved": "success", "critical": "failure", "warning": "warning"}
        kind = kinds["resolved" if message.kind == "resolved" else message.severity]
        title, text = fill([self.title, self.text], message)
        if not self._service().notify(title=title, body=text, notify_type=kind):
            raise Undelivered("a service did not take it; Apprise's log says which")


def fill(template: Any, message: Message) -> Any:
    """Put a message's words into a template: into every text of a document, so that it stays one.

    Known are $title, $text, $kind, $severity, $model, $version, $segment, $column, $metric, $check,
    $value, $low, $high, $n, $since, $until, $fingerprint, $incident and $more, the number of other
    alerts. A dollar sign is $$.

    Raises
    ------
    ValueError
        When a template asks for another word.

    >>> fill({"text": "$severity: $column"}, sample())
    {'text': 'critical: distance'}
    """
    if isinstance(template, Mapping):
        return {key: fill(value, message) for key, value in template.items()}
    if isinstance(template, list | tuple):
        return [fill(value, message) for value in template]
    if not isinstance(template, str):
        return template
    words = _words(message)
    try:
        return Template(template).substitute(words)
    except KeyError as unknown:
        raise ValueError(
            f"a template asks for ${unknown.args[0]}; known: {', '.join(words)}"
        ) from None
    except ValueError as error:
        raise ValueError(f"a template cannot be read: {error}; a dollar sign is $$") from None


def _words(message: Message) -> dict[str, str]:
    root = message.root
    numbers = {name: getattr(root, name) for name in ("value", "low", "high")}
    return {
        "title": message.title,
        "text": message.text,
        **{name: getattr(message, name) for name in ("kind", "severity", "model", "version")},
        "segment": message.segment,
        "column": root.column or "",
        "metric": root.metric,
        "check": root.check,
        **{name: "" if each is None else f"{each:.6g}" for name, each in numbers.items()},
        "n": str(root.n),
        "since": message.since.isoformat(),
        "until": message.until.isoformat(),
        "fingerprint": root.fingerprint,
        "incident": message.incident,
        "more": str(len(message.more)),
    }


# HTTP.


def post(url: str, body: bytes, *, headers: Mapping[str, str], timeout: float) -> None:
    """Post JSON; everything, answer included, within `timeout` seconds. Redirects are refused.

    Raises
    ------
    Undelivered
        When the receiver cannot be reached, is slow, or says that it cannot now.
    Refused
        When it says that it never will.
    """
    where = _host(url)  # the rest of a URL may be a secret
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    give_up = time.monotonic() + timeout
    connection = _connection(parts.scheme, parts.hostname or "", parts.port, timeout)
    late = threading.Event()

    def stop() -> None:
        late.set()
        with suppress(OSError, AttributeError):  # a socket's own timeout starts anew with a byte
            connection.sock.shutdown(socket.SHUT_RDWR)

    try:
        connection.connect()
        clock = threading.Timer(max(give_up - time.monotonic(), 0.0), stop)
        clock.daemon = True
        clock.start()
        try:
            kind = {"Content-Type": "application/json", "User-Agent": "tidegauge"}
            connection.request("POST", path, body, {**kind, **headers})
            answer = connection.getresponse()
            status, wait = answer.status, _seconds(answer.headers.get("Retry-After"))
            answer.read(ANSWER)
        finally:
            clock.cancel()
        if late.is_set():  # half an answer can look like a whole one
            raise TimeoutError
    except (OSError, HTTPException) as error:
        said = f"no answer in {timeout:g} s" if late.is_set() else type(error).__name__
        if isinstance(error, ssl.SSLCertVerificationError):
            said = f"its certificate cannot be verified: {error.verify_message}"
        raise Undelivered(f"{where}: {said}") from None
    finally:
        connection.close()
    if 200 <= status < 300:
        return
    if status in RETRIED or status >= 500:
        raise Undelivered(f"{where} answered {status}", wait=wait)
    raise Refused(f"{where} answered {status}")


def _connection(scheme: str, host: str, port: int | None, timeout: float) -> HTTPConnection:
    if scheme == "https":
        context = ssl.create_default_context()
        return HTTPSConnection(host, port, timeout=timeout, context=context)
    return HTTPConnection(host, port, timeout=timeout)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"a URL begins with http:// or https:// and a host, got {_host(url)!r}")
    if parts.username or parts.password:
        raise ValueError("a user and password belong into the headers, not into the URL")


def _host(url: str) -> str:
    """Scheme and host, all that is told of a URL."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}"


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds; a date is not waited for."""
    return float(text) if text is not None and text.isdigit() else None
