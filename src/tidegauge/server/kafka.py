"""The Kafka door: a consumer whose offsets are written with the rows, and read from there."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_STORED,
    Consumer,
    KafkaException,
    TopicPartition,
)
from google.protobuf.message import DecodeError

from tidegauge.journal import OUTCOMES, PREDICTIONS, JournalError
from tidegauge.schema import Schema
from tidegauge.server import batches
from tidegauge.server.batches import MAX_CELLS
from tidegauge.server.carrier import Carrier, Marks, Stopped
from tidegauge.server.cloudevents import parsed
from tidegauge.server.config import ConfigError, Format, Kafka
from tidegauge.server.desk import Desk
from tidegauge.server.records import read_records
from tidegauge.server.refused import Refused, invalid
from tidegauge.server.tensors import Rows, joined
from tidegauge.v1 import ingest_pb2

log = logging.getLogger(__name__)

MESSAGES = 2000  # taken from the consumer at once
WAIT = 0.2  # seconds for the first of them
MAX_ROWS = 1 << 16  # written at once
AGAIN = 5.0  # seconds until a consumer that failed is made anew

Decoded: TypeAlias = "Rows | pa.RecordBatch"


@dataclass(frozen=True, slots=True)
class Item:
    """A message that was read: its offset, and its rows."""

    offset: int
    rows: Decoded

    @property
    def n(self) -> int:
        """Rows of it."""
        rows = self.rows
        return rows.n if isinstance(rows, Rows) else int(rows.num_rows)

    @property
    def shape(self) -> Any:
        """Messages of one shape can be put into one batch."""
        return self.rows.shape if isinstance(self.rows, Rows) else self.rows.schema


class KafkaDoor:
    """Reads topics, in a thread of its own, from its construction to `close`.

    Parameters
    ----------
    desk
        Where rows go.
    name
        Of the door's table in the configuration.
    topics
        Which topics of which brokers, and how their messages are written.
    """

    port: int | None = None

    def __init__(self, desk: Desk, name: str, topics: Kafka) -> None:
        self.counts: Counter[str] = Counter()  # "messages" and "rows" taken, messages "refused"
        self._desk = desk
        self._topics = topics
        self._prefix = f"kafka\0{name}\0".encode()
        self._stop = threading.Event()
        self._kinds = {topics.predictions: PREDICTIONS, topics.outcomes: OUTCOMES}
        self._kinds.pop("", None)
        self._carriers = {
            topic: Carrier(
                desk,
                model=topics.model,
                kind=kind,
                version=topics.version if kind == PREDICTIONS else "",
                stop=self._stop,
            )
            for topic, kind in self._kinds.items()
        }
        try:
            consumer = self._open()
        except (KafkaException, ValueError) as error:
            raise ConfigError(f"[kafka.{name}] {error}") from None
        self._thread = threading.Thread(
            target=self._run, args=(consumer,), name=f"tidegauge-{name}", daemon=True
        )
        self._thread.start()

    # -- the consumer ------------------------------------------------------------------------------

    def _open(self) -> Any:
        topics = self._topics
        consumer = Consumer(
            {
                **topics.options,
                "bootstrap.servers": topics.servers,
                "group.id": topics.group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": topics.start,
            },
            logger=log,
        )
        if topics.partitions:
            chosen = [TopicPartition(t, p) for t in self._kinds for p in topics.partitions]
            consumer.assign(self._placed(chosen, otherwise=_FIRST[topics.start]))
        else:
            consumer.subscribe(list(self._kinds), on_assign=self._assign)
        return consumer

    def _assign(self, consumer: Any, partitions: list[Any]) -> None:
        """Begin where the journal says, whatever the broker remembers."""
        consumer.assign(self._placed(partitions, otherwise=OFFSET_STORED))

    def _placed(self, partitions: Iterable[Any], *, otherwise: int) -> list[Any]:
        marks = self._desk.journal.marks(self._prefix)
        placed = []
        for each in partitions:
            mark = marks.get(self._mark(each.topic, each.partition))
            offset = otherwise if mark is None else int(mark)
            placed.append(TopicPartition(each.topic, each.partition, offset))
        return placed

    def _mark(self, topic: str, partition: int) -> bytes:
        return self._prefix + f"{topic}\0{partition}".encode()

    def _run(self, consumer: Any) -> None:
        while True:
            try:
                self._consume(consumer)
            except Stopped:
                return
            except Exception:
                log.exception("the consumer failed and is made anew")
            finally:
                consumer.close()
            while True:
                if self._stop.wait(AGAIN):
                    return
                try:
                    consumer = self._open()
                    break
                except (JournalError, KafkaException) as error:
                    log.error("the consumer cannot be made: %s", error)

    def _consume(self, consumer: Any) -> None:
        while not self._stop.is_set():
            by_partition: dict[tuple[str, int], list[Any]] = {}
            for message in consumer.consume(MESSAGES, WAIT):
                if (error := message.error()) is not None:
                    if error.fatal():
                        raise KafkaException(error)
                    log.warning("a broker says: %s", error)
                    continue
                key = message.topic(), message.partition()
                by_partition.setdefault(key, []).append(message)
            for (topic, partition), messages in by_partition.items():
                self.take(topic, partition, messages)
            if by_partition:
                self._tell(consumer, by_partition)
        raise Stopped

    def _tell(self, consumer: Any, read: Mapping[tuple[str, int], list[Any]]) -> None:
        """Tell the brokers how far it is, for those who watch the lag or take a partition over."""
        places = [
            TopicPartition(topic, partition, messages[-1].offset() + 1)
            for (topic, partition), messages in read.items()
        ]
        try:
            consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            log.warning("the brokers do not know how far topics are read: %s", error)

    # -- messages ----------------------------------------------------------------------------------

    def take(self, topic: str, partition: int, messages: list[Any]) -> None:
        """Write messages of one partition, in their order."""
        mark = self._mark(topic, partition)
        carrier = self._carriers[topic]
        schema = self._desk.model(self._topics.model).monitor.schema
        items: list[Item] = []
        for message in messages:
            try:
                items.append(Item(message.offset(), self._decode(topic, message.value(), schema)))
            except Refused as refusal:
                carrier.dropped += 1
                self._desk.refused[self._topics.model, refusal.reason] += 1
                self._set_aside(topic, partition, message.offset(), refusal)
        last = -1
        for run in _runs(items):

            def marks(end: int, run: list[Item] = run) -> Marks:
                return {mark: str(run[end - 1].offset + 1).encode()}

            rows, cuts = _together(run)
            refused = carrier.carry(rows, cuts, marks)
            for place, why in refused:
                self._set_aside(topic, partition, run[place].offset, why)
            self.counts["messages"] += len(run) - len(refused)
            self.counts["rows"] += rows.num_rows - sum(run[place].n for place, _ in refused)
            last = run[-1].offset
        if last < messages[-1].offset():
            carrier.mark({mark: str(messages[-1].offset() + 1).encode()})

    def _decode(self, topic: str, value: bytes | None, schema: Schema) -> Decoded:
        kind = self._kinds[topic]
        rows = _DECODERS[self._topics.format](value or b"", kind, schema)
        if isinstance(rows, pa.RecordBatch):
            batches.check_ids(rows, schema.prediction_id)
        return rows

    def _set_aside(self, topic: str, partition: int, offset: int, refusal: Refused) -> None:
        """A message that will never be taken stops nobody; the log says where it lies."""
        self.counts["refused"] += 1
        log.warning("%s [%d] offset %d is refused: %s", topic, partition, offset, refusal)

    def close(self) -> None:
        """Read no more, and return once the messages at hand are written."""
        self._stop.set()
        self._thread.join()


_FIRST = {"earliest": OFFSET_BEGINNING, "latest": OFFSET_END}


def _runs(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Messages of one shape that follow each other, few enough rows for one batch."""
    run: list[Item] = []
    n = 0
    for item in items:
        if not item.n:
            continue
        most = min(MAX_ROWS, MAX_CELLS // max(1, len(item.shape)))
        if run and (item.shape != run[-1].shape or n + item.n > most):
            yield run
            run, n = [], 0
        run.append(item)
        n += item.n
    if run:
        yield run


def _together(run: list[Item]) -> tuple[pa.RecordBatch, list[int]]:
    """The rows of a run, and where each message ends."""
    cuts: list[int] = []
    for item in run:
        cuts.append((cuts[-1] if cuts else 0) + item.n)
    rows = [item.rows for item in run if isinstance(item.rows, Rows)]
    if rows:
        return joined(rows).to_batch(), cuts
    return pa.concat_batches([item.rows for item in run]), cuts


# -- what a message holds ----------------------------------------------------------------------


def _json_rows(value: bytes, kind: int, schema: Schema) -> Decoded:
    return read_records(parsed(value, "value"), schema, "value", short=kind == OUTCOMES)


def _arrow_rows(value: bytes, kind: int, schema: Schema) -> Decoded:
    table = batches.read_stream(value).combine_chunks()
    found = table.to_batches()
    return found[0] if found else pa.RecordBatch.from_pylist([], table.schema)


def _protobuf_rows(value: bytes, kind: int, schema: Schema) -> Decoded:
    wanted: Any = ingest_pb2.WriteOutcomesRequest
    if kind == PREDICTIONS:
        wanted = ingest_pb2.WritePredictionsRequest
    try:
        request = wanted.FromString(value)
    except DecodeError:
        raise invalid("value", f"is no {wanted.DESCRIPTOR.name}", reason="NOT_PROTOBUF") from None
    which = request.WhichOneof("body")
    if which is None:
        raise invalid("body", "is missing; send `columns` or `arrow_stream`")
    rows: Any = (
        batches.unpack(request.columns)
        if which == "columns"
        else _arrow_rows(request.arrow_stream, kind, schema)
    )
    if kind == PREDICTIONS:
        rows = batches.with_version(rows, schema.model_version, request.model_version)
    return rows


_DECODERS: dict[Format, Any] = {
    "json": _json_rows,
    "arrow": _arrow_rows,
    "protobuf": _protobuf_rows,
}
