"""CloudEvents over HTTP: one in headers and body, one as JSON, or a batch as JSON."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from tidegauge.server.refused import Refused, invalid

VERSIONS = ("1.0", "0.3")
MAX_EVENTS = 10_000  # in one batch
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


@dataclass(frozen=True, slots=True)
class Event:
    """An event: its attributes, all of them text, and its data, parsed.

    >>> event = Event({"type": "t", "time": "2024-05-01T00:00:00Z"}, {})
    >>> event.time
    datetime.datetime(2024, 5, 1, 0, 0, tzinfo=datetime.timezone.utc)
    """

    attributes: dict[str, str]
    data: Any

    @property
    def type(self) -> str:
        """What happened."""
        return self.attributes["type"]

    @property
    def time(self) -> datetime | None:
        """When it happened, if that was said."""
        text = self.attributes.get("time")
        return None if text is None else read_time(text, "ce-time")


def read_time(text: Any, field: str) -> datetime:
    """Read an instant; it must say its distance from UTC.

    >>> read_time("2024-05-01T02:00:00+02:00", "time").hour
    0
    """
    try:
        instant = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise invalid(field, f"got {str(text)[:40]!r}; a time of RFC 3339 is wanted") from None
    if instant.tzinfo is None:
        raise invalid(field, f"got {text!r}, which does not say its distance from UTC")
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise invalid(field, f"got {text!r}, which is out of range") from None


def is_unicode(text: str) -> bool:
    r"""Whether a text can be written as UTF-8: JSON can hold halves of surrogate pairs.

    >>> is_unicode("\u00e9"), is_unicode("\ud800")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_events(headers: Iterable[tuple[str, str]], body: bytes) -> list[Event | Refused]:
    """Read the events of a request; what is wrong with one says nothing of the others.

    Parameters
    ----------
    headers
        Of the request, names in lower case.
    body
        Of the request.

    Raises
    ------
    Refused
        When the request as a whole cannot be read.

    >>> headers = [("ce-specversion", "1.0"), ("ce-type", "t"), ("ce-id", "7"),
    ...            ("content-type", "application/json")]
    >>> read_events(headers, b'{"x": 1}')[0].data
    {'x': 1}
    """
    found = dict(headers)
    content = found.get("content-type", "").partition(";")[0].strip().lower()
    if content == BATCH:
        entries = parsed(body, "body")
        if not isinstance(entries, list) or len(entries) > MAX_EVENTS:
            raise invalid("body", f"a list of up to {MAX_EVENTS} events is wanted")
        return [_attempt(entry, f"events[{i}]") for i, entry in enumerate(entries)]
    if content == STRUCTURED:
        return [_structured(parsed(body, "body"), "event")]
    attributes = {
        name[3:]: unquote(value) for name, value in found.items() if name.startswith("ce-")
    }
    if not attributes:
        raise invalid(
            "content-type",
            f"got {content!r} without headers ce-…; a CloudEvent is wanted: in headers and body, "
            f"as {STRUCTURED} or as {BATCH}",
            reason="NOT_A_CLOUDEVENT",
        )
    if content not in ("", "application/json") and not content.endswith("+json"):
        raise invalid("content-type", f"the data is {content!r}; JSON is wanted")
    _check(attributes, "ce-")
    return [Event(attributes, parsed(body, "body"))]


def _attempt(entry: Any, where: str) -> Event | Refused:
    try:
        return _structured(entry, where)
    except Refused as refusal:
        return refusal


def _structured(entry: Any, where: str) -> Event:
    if not isinstance(entry, Mapping):
        raise invalid(where, "a CloudEvent is wanted, an object")
    attributes: dict[str, str] = {}
    for name, value in entry.items():
        if name in ("data", "data_base64") or value is None:
            continue
        if not isinstance(value, str | int):
            raise invalid(
                f"{where}.{name[:40]}", "an attribute is a text, a number or a truth value"
            )
        attributes[name] = value if isinstance(value, str) else json.dumps(value)
    _check(attributes, f"{where}.")
    content = attributes.get("datacontenttype", "application/json").partition(";")[0].strip()
    if content != "application/json" and not content.endswith("+json"):
        raise invalid(f"{where}.datacontenttype", f"the data is {content!r}; JSON is wanted")
    if "data_base64" in entry:
        try:
            data = base64.b64decode(entry["data_base64"], validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise invalid(f"{where}.data_base64", "base64 is wanted") from None
        return Event(attributes, parsed(data, f"{where}.data_base64"))
    return Event(attributes, entry.get("data"))


def _check(attributes: Mapping[str, str], where: str) -> None:
    version = attributes.get("specversion")
    if version not in VERSIONS:
        raise invalid(
            f"{where}specversion", f"got {str(version)[:40]!r}; allowed: {', '.join(VERSIONS)}"
        )
    for name, value in attributes.items():
        if not is_unicode(name + value):
            raise invalid(f"{where}{name!a}", "is not Unicode")
    if not attributes.get("type"):
        raise invalid(f"{where}type", "is missing; it says what happened")


def parsed(data: bytes, field: str) -> Any:
    """Read JSON.

    >>> parsed(b'{"x": 1}', "data")
    {'x': 1}
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        text = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
        raise invalid(field, f"is not JSON: {text}", reason="NOT_JSON") from None
