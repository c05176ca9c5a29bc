"""The desk: takes requests of every door, counts them, writes them down, and only then replies.

One thread takes whatever waits, counts it, commits it in one transaction and replies. Counting
comes before the commit since it decides whether a request is sound; should the commit fail, memory
is ahead of the disk, and the monitors are built anew from the journal before more is taken.
"""

from __future__ import annotations

import io
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import google_crc32c
import numpy as np
import pyarrow as pa
from google.protobuf.message import DecodeError

from tidegauge import archive
from tidegauge._core import Batch, DataError, PackedBatch, SchemaError, join_packed
from tidegauge.failpoint import failpoint
from tidegauge.history import History, Rules
from tidegauge.journal import (
    COLUMNS,
    DOCUMENT,
    FORGET,
    MODEL,
    NO_MARKS,
    OUTCOMES,
    PREDICTIONS,
    STREAM,
    Damaged,
    Journal,
    JournalError,
    NoRoom,
    Record,
    Reply,
    StateFile,
)
from tidegauge.monitor import Monitor
from tidegauge.reference import Reference
from tidegauge.server import batches
from tidegauge.server.refused import Code, Refused, invalid
from tidegauge.v1 import admin_pb2, batch_pb2
from tidegauge.window import parse_duration

log = logging.getLogger(__name__)

MARKS = 0  # kind of an order that is no request
MAX_GROUP = 64  # requests in one transaction
MAX_GROUP_BYTES = 16 << 20
MAX_REQUEST_ID = 64  # characters
MAX_MODEL_NAME = 128
REQUEST_BYTES = 2048  # that a waiting request takes beside its body
PAUSE = 0.25  # seconds between attempts to write again after a failure
RETRY_AFTER = 0.5  # seconds that a refused caller is asked to wait

Table: TypeAlias = "pa.RecordBatch | pa.Table"
Rows: TypeAlias = "PackedBatch | pa.RecordBatch | pa.Table"  # what is counted
Counts: TypeAlias = tuple[int, int, int]  # rows taken, duplicates, rejected


@dataclass(eq=False, slots=True)
class Watched:
    """A model and what has been counted of it."""

    monitor: Monitor
    dropped: int = 0  # rows that clients say they let go
    changes: int = 0  # how often something was counted
    schema_toml: str = ""
    fingerprint: int = 0
    _frozen: tuple[int, Monitor] | None = None
    _asking: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def frozen(self) -> Iterator[Monitor]:
        """What has been counted so far, for one to ask at a time; counting goes on meanwhile."""
        with self._asking:
            changes = self.changes
            if self._frozen is None or self._frozen[0] != changes:
                self._frozen = None  # not both at once
                self._frozen = (changes, self.monitor.snapshot())
            yield self._frozen[1]

    @property
    def pane(self) -> int:
        """Width of the windows, microseconds."""
        return parse_duration(self.monitor.window, role="window")

    def __post_init__(self) -> None:
        self.schema_toml = self.monitor.schema.to_toml()
        self.fingerprint = fingerprint(self.schema_toml)


def fingerprint(schema_toml: str) -> int:
    """Number that stands for a schema.

    >>> fingerprint("[features.age]") == fingerprint("[features.age]")
    True
    """
    return int.from_bytes(sha256(schema_toml.encode()).digest()[:8], "little")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request: the rows taken, and whether it had come before."""

    accepted: int
    duplicates: int
    rejected: int
    replayed: bool = False


@dataclass(eq=False, slots=True)
class _Order:
    """A request on its way through the desk."""

    record: Record
    rows: Any
    crc: int
    marks: Mapping[bytes, bytes | None] = field(default_factory=dict)
    answer: Future[Answer] = field(default_factory=Future)
    counts: Counts = (0, 0, 0)
    followers: list[_Order] = field(default_factory=list)
    n_bytes: int = field(init=False)  # that it takes while it waits

    def __post_init__(self) -> None:
        self.n_bytes = _size_of(self.record.body, self.marks)

    @property
    def key(self) -> tuple[str, str]:
        return self.record.model, self.record.request_id


class Desk:
    """Monitors behind a journal.

    Parameters
    ----------
    journal
        Where requests are written down. The desk takes it over, and closes it.
    in_flight_bytes
        Bytes of requests that may wait at once; more are refused for the moment.
    checkpoint_bytes
        Bytes of requests after which the state is stored, so that a start has less to replay.
    threads
        Threads for the row work of one batch.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        in_flight_bytes: int = 256 << 20,
        checkpoint_bytes: int = 512 << 20,
        threads: int = 1,
    ) -> None:
        self.journal = journal
        self.in_flight_bytes = in_flight_bytes
        self.checkpoint_bytes = checkpoint_bytes
        self.threads = threads
        self.models: dict[str, Watched] = {}  # for everyone to read; never changed, but replaced
        self._counting: dict[str, Watched] = {}  # the writer's: not committed yet, or being rebuilt
        self.refused: Counter[tuple[str, str]] = Counter()  # (model, reason) since the start
        self.trouble: JournalError | None = None  # why nothing is taken
        self.history: History | None = None
        self.n_rows = 0  # taken since the start
        self._waiting: deque[_Order] = deque()
        self._in_flight = 0
        self._change = threading.Condition()
        self._draining = False
        self._turn = threading.RLock()  # held while a group is counted and written
        self._ahead = False  # whether memory holds counts that the disk may not
        self._since_checkpoint = 0
        self._listeners: list[Callable[[], None]] = []
        self._writer = threading.Thread(target=self._run, name="tidegauge-writer", daemon=True)
        try:
            self._recover()
        except BaseException:
            journal.close()
            raise
        self._writer.start()

    # -- the entrance ------------------------------------------------------------------------------

    def write(
        self,
        kind: int,
        model: str,
        request_id: str,
        *,
        encoding: int,
        body: bytes,
        rows: Table | None = None,
        version: str = "",
        schema_fingerprint: int = 0,
        dropped: int = 0,
        marks: Mapping[bytes, bytes | None] = NO_MARKS,
    ) -> Future[Answer]:
        """Take a request: count it, write it down, answer.

        Parameters
        ----------
        kind
            PREDICTIONS, OUTCOMES or FORGET of `tidegauge.journal`.
        model
            Name of a model that is watched.
        request_id
            Names the request for ever; sent again, it is answered again and not counted.
        encoding
            Of the body: COLUMNS, a serialized ColumnBatch, or STREAM, an Arrow IPC stream.
        body
            The rows, verbatim.
        rows
            The same rows, already read and checked; read from the body unless given.
        version
            Version of the model, for rows that name none.
        schema_fingerprint
            Of the schema that the caller wrote for; 0 if it does not mind.
        dropped
            Rows that the caller let go before it could send them.
        marks
            What the door keeps in the transaction of the request, as `Journal.commit` has it.

        Returns
        -------
        Future
            An `Answer` once the request is on the disk, or `Refused`.

        Raises
        ------
        Refused
            When the request cannot even be taken.
        """
        try:
            watched = self.model(model)
            _check_request_id(request_id)
            if schema_fingerprint not in (0, watched.fingerprint):
                raise Refused(
                    "FAILED_PRECONDITION",
                    "SCHEMA_CHANGED",
                    f"the schema of model {model!r} is {watched.fingerprint}, the request was "
                    f"written for {schema_fingerprint}; ask ListModels for the schema",
                    metadata={"schema_fingerprint": str(watched.fingerprint)},
                )
            size = _size_of(body, marks)
            self._reserve(size)
            try:
                table = self._checked(watched, kind, encoding, body, version, rows)
                now = time.time_ns() // 1000
                record = Record(kind, encoding, model, version, request_id, now, dropped, body)
                order = _Order(record, table, google_crc32c.value(body), marks)
            except BaseException:
                self._release(size)
                raise
        except Refused as refusal:
            self.refused[model if model in self.models else "", refusal.reason] += 1
            raise
        self._enqueue(order)
        return order.answer

    def mark(self, marks: Mapping[bytes, bytes | None]) -> Future[Answer]:
        """Keep marks without a request; answered once they are on the disk."""
        order = _Order(Record(MARKS, 0, "", "", "", 0, 0, b""), None, 0, marks)
        self._reserve(order.n_bytes)
        self._enqueue(order)
        return order.answer

    @staticmethod
    def _checked(  # noqa: PLR0917 - what a request is made of
        watched: Watched,
        kind: int,
        encoding: int,
        body: bytes,
        version: str = "",
        rows: Table | None = None,
    ) -> Rows:
        """Rows of a body as they are counted; tables where whole rows are to be sampled."""
        schema = watched.monitor.schema
        if (
            rows is None
            and encoding == COLUMNS
            and not watched.monitor.sample_rows
            and kind != FORGET
        ):
            found: Rows = batches.read_packed(body)
        else:
            found = decode(encoding, body) if rows is None else rows
        batches.check_ids(found, schema.prediction_id)
        return batches.with_version(
            found, schema.model_version if kind == PREDICTIONS else None, version
        )

    def put_model(self, asked: admin_pb2.PutModelRequest) -> Future[Answer]:
        """Add a model."""
        _check_model_name(asked.name)
        monitor = self._new_monitor(asked)
        body = asked.SerializeToString(deterministic=True)
        now = time.time_ns() // 1000
        record = Record(MODEL, DOCUMENT, asked.name, "", "", now, 0, body)
        order = _Order(record, monitor, google_crc32c.value(body))
        self._reserve(order.n_bytes)
        self._enqueue(order)
        return order.answer

    def _new_monitor(self, asked: admin_pb2.PutModelRequest) -> Monitor:
        retention = {width: age or None for width, age in asked.retention.items()}
        try:
            return Monitor(
                self.read_reference(asked.reference),
                window=asked.window or None,
                lateness=asked.lateness or "48h",
                retention=retention or None,
                model=asked.name,
                threads=self.threads,
                sample_rows=asked.sample_rows,
            )
        except (SchemaError, ValueError) as error:
            raise invalid("model", str(error)) from None

    @staticmethod
    def read_reference(data: bytes) -> Reference:
        """Read the bytes of a reference file."""
        try:
            return Reference.load(io.BytesIO(data))
        except (DataError, SchemaError) as error:
            raise invalid("reference", str(error)) from None

    def model(self, name: str) -> Watched:
        """Find a model that is watched.

        Raises
        ------
        Refused
            When there is none of this name.
        """
        try:
            return self.models[name]
        except KeyError:
            shown = ", ".join(sorted(self.models)[:20]) or "none yet"
            raise Refused(
                "NOT_FOUND",
                "UNKNOWN_MODEL",
                f"there is no model {name[:MAX_MODEL_NAME]!r}; there are: {shown}",
                fields=[("model", "names no model of this server")],
            ) from None

    def _reserve(self, size: int) -> None:
        if size > self.in_flight_bytes:
            raise Refused(
                "RESOURCE_EXHAUSTED",
                "TOO_LARGE",
                f"a request of {size} bytes is more than may wait at all, {self.in_flight_bytes}; "
                "send less at once, or raise in_flight of [storage]",
            )
        with self._change:
            if self._draining:
                raise Refused("UNAVAILABLE", "DRAINING", "the server is stopping; try another")
            if self.trouble is not None:
                raise unavailable(self.trouble)
            if self._in_flight + size > self.in_flight_bytes:
                raise Refused(
                    "RESOURCE_EXHAUSTED",
                    "BACK_PRESSURE",
                    f"{self._in_flight} bytes of requests wait, {self.in_flight_bytes} may; send "
                    "this one again later",
                    retry_after=RETRY_AFTER,
                )
            self._in_flight += size

    def _release(self, size: int) -> None:
        with self._change:
            self._in_flight -= size

    def _enqueue(self, order: _Order) -> None:
        order.answer.set_running_or_notify_cancel()
        with self._change:
            self._waiting.append(order)
            self._change.notify_all()

    # -- the writer --------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._draining)
                group = self._take()
            if not group:
                return
            self._serve(group)

    def _take(self) -> list[_Order]:
        group: list[_Order] = []
        size = 0
        while self._waiting and len(group) < MAX_GROUP and size < MAX_GROUP_BYTES:
            group.append(self._waiting.popleft())
            size += group[-1].n_bytes
        return group

    def _serve(self, group: Sequence[_Order]) -> None:
        size = sum(order.n_bytes for order in group)
        written: list[_Order] = []
        try:
            with self._turn:
                fresh = self._without_repeats(group)
                if fresh:
                    self.journal.check_room(size)
                    self._ahead = True
                    counted = self._count(fresh)
                    self._commit(counted)
                    self._ahead = False
                    written = counted
        except NoRoom as error:  # found before anything was counted
            self._fail(group, unavailable(error))
            self._mend(error, rebuild=False)
        except JournalError as error:
            self._fail(group, unavailable(error))
            self._mend(error, rebuild=True)
        except Exception as error:
            log.exception("a group of %d requests failed; building the monitors anew", len(group))
            self._fail(group, _unexpected(error, len(group)))
            again = JournalError("RECOVERING", "the server is recovering from an error")
            self._mend(again, rebuild=True)
        finally:
            self._release(size)
        if not written:
            return
        failpoint("reply")
        for order in written:
            order.answer.set_result(Answer(*order.counts))
            for follower in order.followers:
                follower.answer.set_result(Answer(*order.counts, replayed=True))
        if self._since_checkpoint >= self.checkpoint_bytes:
            self._try_checkpoint()
        self._tell()

    def _try_checkpoint(self) -> None:
        """Store the state; a failure changes nothing but the time that the next start takes."""
        try:
            self.checkpoint()
        except JournalError as error:
            self._since_checkpoint = 0
            log.error("the state could not be stored: %s", error)

    def _without_repeats(self, group: Sequence[_Order]) -> list[_Order]:
        """Answer requests that have come before; those that come twice follow the first one."""
        fresh: dict[tuple[str, str], _Order] = {}
        nameless = []
        for order in group:
            if not order.record.request_id:
                nameless.append(order)
                continue
            first = fresh.get(order.key)
            known = None if first else self.journal.find(*order.key)
            if first is None and known is None:
                fresh[order.key] = order
            elif known is not None and known.is_of(order.crc, len(order.record.body)):
                counts = known.accepted, known.duplicates, known.rejected
                order.answer.set_result(Answer(*counts, replayed=True))
            elif first is not None and (first.crc, first.n_bytes) == (order.crc, order.n_bytes):
                first.followers.append(order)
            else:
                self._refuse(order, _other_body(order.record.request_id))
        return [*nameless, *fresh.values()]

    def _refuse(self, order: _Order, refusal: Refused) -> None:
        self.refused[order.record.model, refusal.reason] += 1
        order.answer.set_exception(refusal)
        for follower in order.followers:
            follower.answer.set_exception(refusal)

    def _fail(self, group: Sequence[_Order], refusal: Refused) -> None:
        for order in group:
            if not order.answer.done():
                self.refused[order.record.model, refusal.reason] += 1
                order.answer.set_exception(refusal)

    def _count(self, orders: Sequence[_Order]) -> list[_Order]:
        """Count requests, those of one kind together; those that were taken, in the order counted.

        Within a group nobody has had a reply yet, so predictions go before outcomes. Requests that
        name or forget stay where they are.
        """
        done: list[_Order] = []
        stage = 0
        stages: dict[int, tuple[int, str, int]] = {}
        for order in orders:
            apart = order.record.kind in (MODEL, FORGET)
            stage += apart
            stages[id(order)] = (stage, order.record.model, order.record.kind)
            stage += apart
        for run in _runs(sorted(orders, key=lambda order: stages[id(order)])):
            for order, outcome in zip(run, self._count_run(run), strict=True):
                if isinstance(outcome, Refused):
                    self._refuse(order, outcome)
                else:
                    order.counts = outcome
                    done.append(order)
        return done

    def _count_run(self, run: Sequence[_Order]) -> Sequence[Counts | Refused]:
        """Count requests of one model, kind and shape: together, and one by one if that fails."""
        kind, name = run[0].record.kind, run[0].record.model
        if kind == MODEL:
            return [self._add_model(order) for order in run]
        if kind == MARKS:
            return [(0, 0, 0) for _ in run]
        watched = self._counting[name]
        watched.dropped += sum(order.record.dropped for order in run)
        if kind == PREDICTIONS and len(run) > 1:
            try:
                return _count_together(watched.monitor, [order.rows for order in run])
            except (DataError, SchemaError):
                pass  # nothing was counted; each for itself, so that only the faulty one fails
        counted: list[Counts | Refused] = []
        for order in run:
            try:
                counted.append(_COUNT[kind](watched.monitor, order.rows))
            except (DataError, SchemaError) as error:
                watched.dropped -= order.record.dropped
                counted.append(_refused_rows(error, order.rows))
        return counted

    def _add_model(self, order: _Order) -> Counts | Refused:
        before = self._counting.get(order.record.model)
        if before is not None and _has_counted(before.monitor):
            return Refused(
                "FAILED_PRECONDITION",
                "MODEL_IN_USE",
                f"model {order.record.model!r} has counted events already; its reference stays. "
                "Add the new one under another name",
            )
        self._counting = {**self._counting, order.record.model: Watched(order.rows)}
        return 1, 0, 0

    def _commit(self, orders: Sequence[_Order]) -> None:
        if not orders:
            return
        group = []
        marks: dict[bytes, bytes | None] = {}
        for order in orders:
            marks |= order.marks
        requests = [order for order in orders if order.record.kind != MARKS]
        for sequence, order in enumerate(requests, self.journal.sequence + 1):
            record = order.record
            sums = (*order.counts, record.received)
            group.append((record, Reply(sequence, order.crc, len(record.body), *sums)))
        failpoint("commit_before")
        self.journal.commit(group, marks)
        self._since_checkpoint += sum(order.n_bytes for order in orders)
        self.models = self._counting
        for name in {order.record.model for order in requests}:
            self.models[name].changes += 1
        self.n_rows += sum(order.counts[0] for order in orders)

    # -- from the disk to memory -------------------------------------------------------------------

    def _mend(self, error: JournalError, *, rebuild: bool) -> None:
        """Take nothing until writing works again; where memory is ahead of the disk, rebuild it."""
        log.error("%s: %s; nothing is taken until it can be written", error.reason, error)
        with self._change:
            self.trouble = error
        self._tell()
        while not self._draining:
            with self._change:
                waiting = list(self._waiting)
                self._waiting.clear()
            self._fail(waiting, unavailable(error))
            self._release(sum(order.n_bytes for order in waiting))
            try:
                if rebuild:
                    with self._turn:
                        self.journal.reopen()
                        self._recover()
                    rebuild = False
                if self._since_checkpoint:
                    self.checkpoint()
                self.journal.check_room(0)
                self.journal.probe()
            except JournalError as again:
                error = again
                with self._change:
                    self.trouble = again
                    self._change.wait_for(lambda: self._draining, PAUSE)
                continue
            with self._change:
                self.trouble = None
            log.warning("requests can be written again")
            self._tell()
            return

    def _recover(self) -> None:
        """Build the monitors from the stored state and the records after it."""
        began = time.monotonic()
        models: dict[str, Watched] = {}
        after = 0
        try:
            stored = self.journal.read_state()
        except Damaged as error:
            raise JournalError("JOURNAL_DAMAGED", f"{self.journal.directory}: {error}") from None
        if stored is not None:
            about, data = stored
            models = self._restore(about, data)
            after = int(about["sequence"])
        self._counting = models
        run: list[_Order] = []
        n = size = 0
        for _, record in self.journal.records(after):
            if record is None:
                continue
            order = self._reread(record)
            n += 1
            size += order.n_bytes
            alone = record.kind in (MODEL, FORGET)
            if run and (alone or not _alike(run[-1], order) or len(run) == MAX_GROUP):
                self._replay(run)
                run = []
            run.append(order)
            if alone:  # what follows may be read by what it says
                self._replay(run)
                run = []
        self._replay(run)
        self.models = self._counting
        self._ahead = False
        self._since_checkpoint = size
        if n or stored:
            log.info(
                "%d models; %d requests replayed in %.2f s",
                len(self.models),
                n,
                time.monotonic() - began,
            )

    def _reread(self, record: Record) -> _Order:
        try:
            if record.kind == MODEL:
                asked = admin_pb2.PutModelRequest.FromString(record.body)
                return _Order(record, self._new_monitor(asked), 0)
            if (watched := self._counting.get(record.model)) is None:
                raise JournalError(
                    "JOURNAL_FAILED",
                    f"request {record.request_id!r} is of model {record.model!r}, and the record "
                    "that added the model is damaged; start from the last copy of the directory",
                )
            rows = self._checked(watched, record.kind, record.encoding, record.body, record.version)
        except Refused as refusal:
            raise _no_longer(record, refusal) from None
        return _Order(record, rows, 0)

    def _replay(self, run: Sequence[_Order]) -> None:
        if not run:
            return
        for order, outcome in zip(run, self._count_run(run), strict=True):
            if isinstance(outcome, Refused):
                raise _no_longer(order.record, outcome)

    # -- the state ---------------------------------------------------------------------------------

    def checkpoint(self) -> int:
        """Store the state, so that a start replays less; number of the last record in it.

        Raises
        ------
        JournalError
            When it cannot be written, or memory is ahead of the disk after a failure.
        """
        with self._turn:
            if self._ahead:
                raise JournalError("RECOVERING", "the server is recovering from an error")
            sequence = self.journal.sequence
            models = [
                (name, watched.dropped, watched.monitor.state())
                for name, watched in sorted(self.models.items())
            ]
            about: dict[str, Any] = {"sequence": sequence, "models": []}

            def write(file: StateFile) -> None:
                for name, dropped, (header, arrays) in models:
                    start = file.n_bytes
                    archive.dump(cast("IO[bytes]", file), "monitor", header, arrays, save=np.savez)
                    entry = {"name": name, "dropped": dropped, "bytes": file.n_bytes - start}
                    about["models"].append(entry)

            self.journal.write_state(about, write)
            self._since_checkpoint = 0
        self.trim()
        return sequence

    def trim(self) -> None:
        """Delete records that neither a start nor the history needs any longer."""
        until = self.journal.checkpointed
        if self.history is not None:
            until = min(until, self.journal.sealed)
        self.journal.delete_records(until)

    def open_history(self, directory: Path, rules: Rules) -> None:
        """Keep what is accepted as Parquet files too."""
        self.history = History(
            self.journal,
            directory,
            rules,
            read=self._read_record,
            schema_of=lambda name: self.models[name].monitor.schema,
        )

    def seal(self) -> int:
        """Bring everything committed into history files and let old ones go; rows sealed."""
        if self.history is None:
            return 0
        rows = 0
        while found := self.history.seal():
            rows += found
        self.history.expire()
        self.trim()
        return rows

    def _read_record(self, record: Record) -> pa.Table:
        rows = decode(record.encoding, record.body)
        if record.kind == PREDICTIONS:
            schema = self.models[record.model].monitor.schema
            rows = batches.with_version(rows, schema.model_version, record.version)
        return rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])

    def _restore(self, about: Mapping[str, Any], data: bytes) -> dict[str, Watched]:
        models = {}
        place = 0
        for entry in about["models"]:
            part = io.BytesIO(data[place : place + entry["bytes"]])
            place += entry["bytes"]
            header, arrays = archive.read(part, "monitor")
            monitor = Monitor.from_state(header, arrays, threads=self.threads)
            models[entry["name"]] = Watched(monitor, entry["dropped"])
        return models

    # -- the end -----------------------------------------------------------------------------------

    def listen(self, listener: Callable[[], None]) -> None:
        """Call a function after every group and whenever the desk stops or starts to take."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        """Call it no more."""
        self._listeners.remove(listener)

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()

    @property
    def draining(self) -> bool:
        """Whether the desk takes nothing new any more."""
        return self._draining

    def drain(self) -> None:
        """Take nothing new."""
        with self._change:
            self._draining = True
            self._change.notify_all()

    def close(self) -> None:
        """Write down everything that waits, store the state, close the journal."""
        self.drain()
        self._writer.join()
        try:
            if self.trouble is None and self._since_checkpoint:
                self.checkpoint()
        finally:
            self.journal.close()


def _size_of(body: bytes, marks: Mapping[bytes, bytes | None]) -> int:
    """Bytes that a request takes while it waits."""
    kept = sum(len(name) + len(value or b"") for name, value in marks.items())
    return len(body) + kept + REQUEST_BYTES


def decode(encoding: int, body: bytes) -> Table:
    """Read a body.

    >>> body = batches.pack(pa.record_batch({"x": [1]})).SerializeToString()
    >>> from tidegauge.journal import COLUMNS
    >>> decode(COLUMNS, body).num_rows
    1
    """
    if encoding == STREAM:
        return batches.read_stream(body)
    try:
        return batches.unpack(batch_pb2.ColumnBatch.FromString(body))
    except DecodeError as error:
        raise invalid("columns", f"is no ColumnBatch: {error}") from None


def unavailable(error: JournalError) -> Refused:
    """Say why nothing is taken, and that it may be sent again."""
    full = error.reason in ("DISK_FULL", "JOURNAL_FULL")
    code: Code = "RESOURCE_EXHAUSTED" if full else "UNAVAILABLE"
    return Refused(code, error.reason, str(error), retry_after=RETRY_AFTER)


def _no_longer(record: Record, refusal: Refused) -> JournalError:
    return JournalError(
        "JOURNAL_FAILED",
        f"request {record.request_id!r} of model {record.model!r} was accepted once and is not any "
        f"more: {refusal}",
    )


def _unexpected(error: Exception, n: int) -> Refused:
    if n == 1:
        return Refused("INTERNAL", "INTERNAL", f"the server failed: {type(error).__name__}")
    text = "the server failed on one of the requests that came together"
    return Refused("UNAVAILABLE", "RECOVERING", text, retry_after=RETRY_AFTER)


def _other_body(request_id: str) -> Refused:
    problem = f"{request_id!r} named another batch before; make one id a batch"
    return Refused(
        "ALREADY_EXISTS",
        "REQUEST_ID_REUSED",
        f"request_id: {problem}",
        fields=[("request_id", problem)],
    )


def _refused_rows(error: Exception, rows: Any) -> Refused:
    n = n_rows_of(rows)
    text = str(error)
    column = text.partition("'")[2].partition("'")[0] if text.startswith("column ") else ""
    return Refused(
        "INVALID_ARGUMENT",
        "INVALID_ROWS",
        f"{text} (request of {n} rows; none was counted)",
        fields=[(f"columns[{column!r}]" if column else "columns", text)],
    )


def _check_request_id(request_id: str) -> None:
    if not request_id or len(request_id) > MAX_REQUEST_ID or not request_id.isprintable():
        raise invalid(
            "request_id",
            f"{request_id[:80]!r} is no name of a batch; 1 to {MAX_REQUEST_ID} printable "
            "characters are, such as a UUID",
        )
    if len(request_id.encode()) > 4 * MAX_REQUEST_ID:
        raise invalid("request_id", "is too long")


def _check_model_name(name: str) -> None:
    plain = name.isascii() and name.replace("_", "a").replace("-", "a").replace(".", "a").isalnum()
    if not plain or len(name) > MAX_MODEL_NAME:
        raise invalid(
            "name",
            f"{name[:80]!r} is no name of a model; 1 to {MAX_MODEL_NAME} letters, digits, dots, "
            "dashes and underscores are",
        )


def _alike(first: _Order, second: _Order) -> bool:
    """Whether two requests can be counted in one call."""
    one, two = first.record, second.record
    if (one.kind, one.model) != (two.kind, two.model) or one.kind not in (PREDICTIONS, OUTCOMES):
        return False
    packed = [isinstance(each.rows, PackedBatch) for each in (first, second)]
    if packed[0] != packed[1]:
        return False
    if packed[0]:
        return bool(first.rows.same_shape(second.rows))
    return bool(first.rows.schema.equals(second.rows.schema))


def _has_counted(monitor: Monitor) -> bool:
    return bool(monitor.windows().num_rows or monitor.account.labels)


def _runs(orders: Sequence[_Order]) -> list[list[_Order]]:
    runs: list[list[_Order]] = []
    for order in orders:
        if runs and _alike(runs[-1][-1], order):
            runs[-1].append(order)
        else:
            runs.append([order])
    return runs


def _joined(parts: Sequence[Rows]) -> Batch | pa.Table:
    """Rows of one shape as one table, without a copy."""
    if isinstance(parts[0], PackedBatch):
        return join_packed(list(parts))
    batches_ = [
        batch
        for part in parts
        for batch in (part.to_batches() if isinstance(part, pa.Table) else [part])
    ]
    return pa.Table.from_batches(batches_, parts[0].schema)


def n_rows_of(rows: Rows) -> int:
    """Rows of a request."""
    return rows.n_rows if isinstance(rows, PackedBatch) else int(rows.num_rows)


def _count_together(monitor: Monitor, parts: Sequence[Rows]) -> list[Counts]:
    taken = monitor.log_rows(_joined(parts))
    ends = np.cumsum([n_rows_of(part) for part in parts])
    found = np.split(taken, ends[:-1])
    return [(len(part), len(part) - int(np.count_nonzero(part)), 0) for part in found]


def _count_predictions(monitor: Monitor, rows: Rows) -> Counts:
    return _count_together(monitor, [rows])[0]


def _count_outcomes(monitor: Monitor, rows: Rows) -> Counts:
    before = monitor.account
    n = monitor.label(_joined([rows]))
    after = monitor.account
    rejected = after.missing - before.missing + after.late - before.late
    return n, after.duplicate - before.duplicate, rejected


def _count_forgotten(monitor: Monitor, rows: Table) -> Counts:
    return monitor.forget(rows.column(0)), 0, 0


_COUNT: dict[int, Callable[[Monitor, Any], Counts]] = {
    PREDICTIONS: _count_predictions,
    OUTCOMES: _count_outcomes,
    FORGET: _count_forgotten,
}
