"""What an event says of a model: rows that are whole, or one half of an inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa

from tidegauge.schema import Schema
from tidegauge.server.batches import MAX_ID_BYTES
from tidegauge.server.cloudevents import Event, is_unicode
from tidegauge.server.config import Source
from tidegauge.server.records import TIME, read_records
from tidegauge.server.refused import invalid
from tidegauge.server.tensors import Rows, read_tensors

Kind = Literal["predictions", "outcomes"]
Side = Literal["inputs", "outputs"]
SIDES: dict[str, Side] = {
    "org.kubeflow.serving.inference.request": "inputs",
    "org.kubeflow.serving.inference.response": "outputs",
    "io.seldon.serving.inference.request": "inputs",
    "io.seldon.serving.inference.response": "outputs",
}
OWN: dict[str, Kind] = {"tidegauge.predictions": "predictions", "tidegauge.outcomes": "outcomes"}


@dataclass(frozen=True, slots=True)
class Said:
    """What an event says.

    `side` and `key` are set for a half alone. An `id`, `time` and `version` belong to all rows.
    """

    model: str
    kind: Kind
    rows: Rows
    side: Side | None = None
    key: str = ""
    id: str = ""
    time: datetime | None = None
    version: str = ""


class Reader:
    """Reads events of models.

    Parameters
    ----------
    schema_of
        Finds the schema of a model, or raises Refused.
    sources
        By model, where inference events are to be read otherwise than by the schema's own names.

    >>> schema = Schema(features=["x"], prediction_id="id")
    >>> reader = Reader(lambda model: schema, {})
    >>> event = Event({"type": "tidegauge.predictions", "model": "m"}, {"id": "a", "x": 2})
    >>> reader.read(event).rows.n
    1
    """

    def __init__(self, schema_of: Callable[[str], Schema], sources: Mapping[str, Source]) -> None:
        self._schema_of = schema_of
        self._sources = sources
        self._models: dict[tuple[str, str], str] = {}
        for model, source in sources.items():
            service = source.service or model
            self._models[service, source.namespace] = model

    def model_of(self, event: Event) -> str:
        """Name of the model that an event is about.

        Raises
        ------
        Refused
            When it names none.
        """
        attributes = event.attributes
        if model := attributes.get("model"):
            return model
        service = attributes.get("inferenceservicename", "")
        namespace = attributes.get("namespace", "")
        found = self._models.get((service, namespace)) or self._models.get((service, ""))
        if not (found or service):
            raise invalid(
                "ce-model", "is missing, and so is ce-inferenceservicename; one names the model"
            )
        return found or service

    def read(self, event: Event) -> Said:
        """Read an event.

        Raises
        ------
        Refused
            When its type is unknown, or its data not what it should be.
        """
        model = self.model_of(event)
        schema = self._schema_of(model)
        if kind := OWN.get(event.type):
            rows = read_records(event.data, schema, "data", short=kind == "outcomes")
            return _own(event, model, kind, rows, schema)
        if (side := SIDES.get(event.type)) is None:
            raise invalid(
                "ce-type", f"got {event.type[:80]!r}; allowed: {', '.join([*OWN, *SIDES])}"
            )
        data = event.data
        if not isinstance(data, Mapping):
            raise invalid("data", "an inference request or response is wanted, an object")
        source = self._sources.get(model, Source())
        if schema.task is None and side == "outputs":  # nobody asked what the model says
            return Said(model, "predictions", Rows(0, {}))
        rows = read_tensors(data, side, names=getattr(source, side), known=schema.columns)
        key = event.attributes.get("requestid") or event.attributes.get("id") or _text(data, "id")
        if not key:
            raise invalid("ce-id", "is missing, and the data has no `id`: no label could be joined")
        if len(key.encode()) > MAX_ID_BYTES:
            raise invalid("ce-id", f"has more than {MAX_ID_BYTES} bytes")
        version = _text(data, "model_version") or event.attributes.get("endpoint", "")
        said = Said(model, "predictions", rows, side, key, _text(data, "id"), event.time, version)
        return said if schema.task is not None else self.whole(said, None)

    def whole(self, inputs: Said, outputs: Said | None) -> Said:
        """Put both halves of an inference together.

        Where no tensor is the id, the time or the version, the id is that of the response, of the
        request or of the event, followed by "/0", "/1", … if there are several rows; the time is
        that of the request; the version is that of the response, or the endpoint.

        Raises
        ------
        Refused
            When they do not fit, or there is no version and the schema wants one.
        """
        schema = self._schema_of(inputs.model)
        n = inputs.rows.n
        columns = dict(inputs.rows.columns)
        if outputs is not None:
            if outputs.rows.n != n:
                raise invalid(
                    "data", f"the request has {n} rows, its response has {outputs.rows.n}"
                )
            if both := columns.keys() & outputs.rows.columns:
                raise invalid("data", f"column {min(both)!r} is in request and response")
            columns |= outputs.rows.columns
        parts = [part for part in (outputs, inputs) if part is not None]
        name = schema.prediction_id
        if name is not None and name not in columns:
            id_ = next((part.id for part in parts if part.id), inputs.key)
            ids = [id_] if n == 1 else [f"{id_}/{row}" for row in range(n)]
            columns[name] = pa.string(), ids
        if schema.timestamp is not None and schema.timestamp not in columns:
            times = [part.time for part in reversed(parts) if part.time is not None]
            columns[schema.timestamp] = TIME, [times[0] if times else datetime.now(UTC)] * n
        if (wanted := schema.model_version) is not None and wanted not in columns:
            version = next((part.version for part in parts if part.version), "")
            if not version:
                raise invalid(
                    "data.model_version", "is missing, and so is ce-endpoint; one is the version"
                )
            columns[wanted] = pa.string(), [version] * n
        return Said(inputs.model, "predictions", Rows(n, columns))


def _own(event: Event, model: str, kind: Kind, rows: Rows, schema: Schema) -> Said:
    """Rows of one of our types; the event's own id and time stand for what is not there."""
    columns = rows.columns
    name, time = schema.prediction_id, schema.timestamp
    if kind == "predictions" and name is not None and name not in columns:
        id_ = event.attributes.get("id")
        if not id_ or rows.n > 1:
            raise invalid(f"data.{name}", "is missing: no label could be joined")
        columns[name] = pa.string(), [id_]
    if kind == "outcomes" and (name not in columns or schema.label not in columns):
        missing = "id" if name not in columns else "label"
        raise invalid(f"data.{missing}", "is missing; an outcome has an id and a label")
    if time is not None and time not in columns and event.time is not None:
        columns[time] = TIME, [event.time] * rows.n
    return Said(model, kind, rows)


def _text(data: Mapping[str, Any], name: str) -> str:
    """Text of a field; empty where there is none."""
    found = data.get(name)
    if found is None:
        return ""
    if not isinstance(found, str) or not is_unicode(found) or len(found.encode()) > MAX_ID_BYTES:
        raise invalid(f"data.{name}", f"a text of up to {MAX_ID_BYTES} bytes is wanted")
    return found
