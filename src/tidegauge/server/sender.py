"""The client's other half: one thread that packs what waits, sends it and hears what became of it.

A request has its id and its bytes from the moment it is cut, so sending it again counts nothing
twice. Whatever leaves without an answer is counted by its cause, and the next request tells the
server. Predictions go several at a time; outcomes go one after another, since the later of two
labels of one id is the one that holds.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from queue import Empty
from time import monotonic
from typing import Any
from uuid import uuid4

import pyarrow as pa

from tidegauge.server.batches import pack, unpack
from tidegauge.server.packing import pack_rows
from tidegauge.server.refused import Refused
from tidegauge.server.row import Row
from tidegauge.server.spill import Spill
from tidegauge.server.transport import REQUESTS, Address, Failed, Kept, Transport, tail, verdict
from tidegauge.server.waiting import LANES, Cause, Lane, Pile, Request, Waiting
from tidegauge.v1 import batch_pb2

logger = logging.getLogger("tidegauge.client")

MAX_MESSAGE = 1 << 20  # bytes of a request, unless a single row is larger
IN_FLIGHT = 4
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0  # seconds; a pause is anything up to it, at random
CALL_SECONDS = 30.0
HELD_FILES = 2  # of a spill that may be read to their end before more is taken from it
SPLITS = 64  # requests that may be halved in a row, before the next ones are refused as a whole
LETTER = {lane: lane[0].encode() for lane in LANES}  # of a request on disk


class Cutter:
    """Cuts packed columns into requests for one model."""

    def __init__(self, model: str, version: str) -> None:
        self._model = model
        self._version = version

    def cut(self, lane: Lane, batch: batch_pb2.ColumnBatch, born: float) -> Iterator[Request]:
        """Requests of a batch, none larger than MAX_MESSAGE unless it is a single row."""
        request = REQUESTS[lane](model=self._model, request_id=uuid4().hex, columns=batch)
        if lane == "predictions":
            request.model_version = self._version
        body = request.SerializeToString()
        if len(body) <= MAX_MESSAGE or batch.row_count == 1:
            yield Request(lane, request.request_id, body, batch.row_count, born)
            return
        for half in halves(batch):
            yield from self.cut(lane, half, born)


def halves(batch: batch_pb2.ColumnBatch) -> list[batch_pb2.ColumnBatch]:
    """The first and the second half of the rows of a batch, each with its own dictionaries."""
    rows = unpack(batch)
    middle = rows.num_rows // 2
    return [pack(_own(rows.slice(0, middle))), pack(_own(rows.slice(middle)))]


def _own(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Rows whose dictionaries hold what they use: a half is smaller than the whole."""
    columns = [
        column.dictionary_decode().dictionary_encode()
        if pa.types.is_dictionary(column.type)
        else column
        for column in rows.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names)


class Sender:
    """Sends what waits, in a thread of its own while it is started."""

    def __init__(
        self, waiting: Waiting, address: Address, cutter: Cutter, spill: Spill | None
    ) -> None:
        self._waiting = waiting
        self._address = address
        self.cutter = cutter
        self._spill = spill
        self._limits = waiting.limits
        self._thread: threading.Thread | None = None
        self._halt = False
        self._transport: Transport | None = None
        self._outbox: dict[Lane, deque[Request]] = {lane: deque() for lane in LANES}
        self._on_disk: deque[Request] = deque()  # without their bytes
        self._from_disk: set[int] = set()  # numbers of those read back, until they are settled
        self._in_flight: dict[str, tuple[Request, Any]] = {}
        self._outstanding: dict[int, int] = {}  # requests by number, the smallest number first
        self._number = 0
        self._piles: deque[Pile] = deque()  # taken, to be packed
        self._asked = 0  # flushes for which everything has been taken,
        self._marked = 0  # and cut
        self._marks: deque[tuple[int, int]] = deque()  # a flush, and the last number it waits for
        self._failures = 0  # rounds in which the server took nothing
        self._failed_at = 0.0
        self._resume_at = 0.0
        self._splits = SPLITS
        self._said: set[str] = set()
        self.on_kept: Callable[[Request, float], None] | None = None  # a request, and its seconds

    # -- the thread --------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; a channel is opened when there is something to send."""
        self._halt = False
        self._thread = threading.Thread(target=self._run, name="tidegauge-client", daemon=True)
        self._thread.start()

    def pause(self) -> None:
        """Stop the thread and close the channel; what was in flight will be sent again."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._halt = True
            self._waiting.mailbox.put(None)
            thread.join()

    def _run(self) -> None:
        while not self._halt:
            try:
                self._step()
            except Exception:  # the thread must outlive whatever one batch may do to it
                logger.exception("the sender goes on after an error that it does not know")
                self._resume_at = monotonic() + LONGEST_PAUSE
        self._retreat()

    def _step(self) -> None:
        now = monotonic()
        if not self._piles:
            self._take(now)
        self._cut()
        self._expire(now)
        self._send(now)
        self._tell_flushed()
        try:
            self._read(self._waiting.mailbox.get(timeout=self._rest(now)))
            while True:
                self._read(self._waiting.mailbox.get_nowait())
        except Empty:
            pass

    def _rest(self, now: float) -> float | None:
        """Seconds until something is due by itself that was not at `now`."""
        if self._piles:
            return 0.0
        due = []
        with self._waiting.lock:
            for pile in self._waiting.piles.values():
                if pile.rows:
                    due.append(pile.since + self._limits.linger)
        if self._spill is None:
            lives = self._limits.time_to_live
            due += [outbox[0].born + lives for outbox in self._outbox.values() if outbox]
        if self._resume_at > now:
            due.append(self._resume_at)
        return max(min(due) - monotonic(), 0.0) if due else None

    def _read(self, message: tuple[Request, Any] | None) -> None:
        if message is not None:
            self._settle(*message)

    def _retreat(self) -> None:
        """Take back what is in flight and close the channel."""
        for _, call in list(self._in_flight.values()):
            call.cancel()
        while self._in_flight:
            self._read(self._waiting.mailbox.get())
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    # -- from rows to requests ---------------------------------------------------------------------

    def _take(self, now: float) -> None:
        """Take what is due: full batches, old ones, everything where a flush is asked for."""
        waiting, limits = self._waiting, self._limits
        with waiting.lock:
            flush = waiting.flushes > self._asked
            for pile in waiting.piles.values():
                old = pile.since + limits.linger <= now
                if pile.rows and (flush or old or len(pile.rows) >= limits.batch_rows):
                    self._piles.append(replace(pile))
                    waiting.taken += len(pile.rows)
                    pile.rows, pile.bytes = [], 0
            packed = list(waiting.packed)
            waiting.packed.clear()
            waiting.taken += sum(request.rows for request in packed)
            self._asked = waiting.flushes
        for request in packed:
            self._queue(request)

    def _cut(self) -> None:
        """Make requests of one batch of what was taken; what is in flight does not wait for all."""
        if self._piles:
            pile = self._piles[0]
            n = self._limits.batch_rows
            part, pile.rows = pile.rows[:n], pile.rows[n:]
            size = pile.bytes * len(part) // (len(part) + len(pile.rows))
            pile.bytes -= size
            if not pile.rows:
                self._piles.popleft()
            made = self._pack(pile, part)
            with self._waiting.lock:
                self._waiting.bytes += made - size
                self._waiting.changed.notify_all()
        if not self._piles and self._asked > self._marked:
            self._marked = self._asked
            self._marks.append((self._asked, self._number))
        if self._spill is not None:
            self._move_to_disk(self._spill)

    def _pack(self, pile: Pile, rows: list[dict[str, Any]]) -> int:
        """Queue requests of some rows; their bytes."""
        made = 0
        left = len(rows)

        def refuse(row: Row, why: str) -> None:
            nonlocal left
            left -= 1
            self._refuse(why)

        try:
            for batch in pack_rows(rows, refuse):
                for request in self.cutter.cut(pile.lane, batch, pile.since):
                    self._queue(request)
                    made += len(request.body)
                left -= batch.row_count
        except Exception:
            logger.exception("%d rows are dropped by an error that is not known", left)
            with self._waiting.lock:
                self._waiting.taken -= left
                self._waiting.drop("refused", left)
        return made

    def _refuse(self, why: str) -> None:
        """Count a row that has no form on the wire."""
        with self._waiting.lock:
            self._waiting.taken -= 1
            self._waiting.drop("refused", 1)
        self._say_once("refused", f"rows are dropped that cannot be packed: {why}")

    def _queue(self, request: Request) -> None:
        self._number += 1
        request.number = self._number
        self._outstanding[request.number] = 1
        self._outbox[request.lane].append(request)

    # -- disk --------------------------------------------------------------------------------------

    def _move_to_disk(self, spill: Spill) -> None:
        """Write down the newest requests while they take more than half of the memory."""
        room = self._limits.max_bytes // 2
        waiting = [request for outbox in self._outbox.values() for request in outbox]
        waiting.sort(key=lambda request: request.number)
        # What came after the first on disk goes behind it; what came before would be too late.
        first = next((r.number for r in self._on_disk), None)
        for request in waiting:
            room -= len(request.body)
            stays = room >= 0 if first is None else request.number < first
            if stays or request.number in self._from_disk or request.last_sent:
                continue
            self._outbox[request.lane].remove(request)
            self._spill_one(spill, request)
            first = first or request.number

    def _spill_one(self, spill: Spill, request: Request) -> None:
        size = len(request.body)
        if spill.append(LETTER[request.lane] + request.body):
            request.body = b""
            self._on_disk.append(request)
            with self._waiting.lock:
                self._waiting.bytes -= size
                self._waiting.changed.notify_all()
        else:
            self._give_up(request, "queue_full")
            self._say_once("queue_full", "events are dropped: memory and the spill are full")

    def _read_back(self, spill: Spill) -> None:
        """Take the oldest requests from disk while little is in memory.

        And while few files are held for them, which are only deleted when all of them are settled.
        """
        if not self._from_disk:
            spill.forget()
        room = self._limits.max_bytes // 4
        room -= sum(len(request.body) for outbox in self._outbox.values() for request in outbox)
        room = min(room, self._limits.max_bytes - self._waiting.bytes)
        while room > 0 and spill.n_held < HELD_FILES:
            record = spill.take()
            if record is None:
                for lost in self._on_disk:
                    self._say_once("spill", f"the spill of {self._address} is damaged")
                    self._give_up(lost, "expired")
                self._on_disk.clear()
                break
            room -= len(record)
            self._requeue(record)
        if not self._from_disk:
            spill.forget()

    def _requeue(self, record: bytes) -> None:
        """Queue a request of our own again, or one that an earlier process left behind."""
        lane: Lane = "predictions" if record[:1] == LETTER["predictions"] else "outcomes"
        body = record[1:]
        read = REQUESTS[lane].FromString(body)
        waiting = self._waiting
        if self._on_disk and self._on_disk[0].id == read.request_id:
            request = self._on_disk.popleft()
            request.body = body
            self._outbox[lane].append(request)
        else:
            request = Request(lane, read.request_id, body, read.columns.row_count, monotonic())
            with waiting.lock:
                waiting.counts.offered += request.rows
                waiting.taken += request.rows
            self._queue(request)
        self._from_disk.add(request.number)
        with waiting.lock:
            waiting.bytes += len(body)

    # -- from requests to answers ------------------------------------------------------------------

    def _send(self, now: float) -> None:
        if self._spill is not None:
            self._read_back(self._spill)
        if now < self._resume_at:
            return
        room = 1 if self._failures else IN_FLIGHT
        while len(self._in_flight) < room and (request := self._next()) is not None:
            self._begin(request, now)

    def _next(self) -> Request | None:
        outcomes, predictions = self._outbox["outcomes"], self._outbox["predictions"]
        sent = any(request.lane == "outcomes" for request, _ in self._in_flight.values())
        if outcomes and not sent:
            return outcomes.popleft()
        return predictions.popleft() if predictions else None

    def _begin(self, request: Request, now: float) -> None:
        if self._transport is None:
            self._transport = Transport(self._address)
        if request.dropped is None:  # fixed from here on: the server counts it once
            request.dropped = self._waiting.tell()
            request.first_sent = now
        else:
            with self._waiting.lock:
                self._waiting.counts.retries += 1
        request.last_sent = now
        mailbox = self._waiting.mailbox
        try:
            call = self._transport.start(
                request.lane,
                request.body + tail(request.lane, request.dropped),
                timeout=CALL_SECONDS,
                done=lambda call: mailbox.put((request, call)),
            )
        except BaseException:
            self._outbox[request.lane].appendleft(request)
            raise
        self._in_flight[request.id] = (request, call)

    def _settle(self, request: Request, call: Any) -> None:
        del self._in_flight[request.id]
        now = monotonic()
        try:
            answer = verdict(call)
        except BaseException:
            self._outbox[request.lane].appendleft(request)
            raise
        match answer:
            case Kept() as kept:
                self._keep(request, kept, now)
            case Failed(reason="INVALID_ROWS" | "INVALID_COLUMN") as failed if self._may_split(
                request
            ):
                self._split(request, failed)
            case Failed(again=False) as failed:
                self._accept_refusal(request, failed)
            case failed:
                self._outbox[request.lane].appendleft(request)
                if not self._halt:
                    self._hold(request, failed, now)

    def _keep(self, request: Request, kept: Kept, now: float) -> None:
        with self._waiting.lock:
            counts = self._waiting.counts
            counts.delivered += request.rows
            counts.duplicates += kept.duplicates
            counts.rejected += kept.rejected
            counts.requests += 1
            counts.replayed += kept.replayed
        self._splits = min(self._splits + 1, SPLITS)
        self._leave(request)
        if self._failures:
            logger.info("%r takes events again", self._address)
        self._failures, self._resume_at = 0, 0.0
        self._said.discard("away")
        if self.on_kept is not None:
            self.on_kept(request, now - request.first_sent)

    def _may_split(self, request: Request) -> bool:
        """Whether to look for the faulty rows of a request; one on disk stays one."""
        return request.rows > 1 and self._splits > 0 and request.number not in self._from_disk

    def _accept_refusal(self, request: Request, failed: Failed) -> None:
        self._give_up(request, "refused")
        self._say_once("refused", f"the server refuses events: {failed.why}")

    def _split(self, request: Request, failed: Failed) -> None:
        """Send two halves instead of a request that was refused for some of its rows."""
        whole = REQUESTS[request.lane].FromString(request.body)
        try:
            parts = halves(whole.columns)
        except Refused:  # a column is at fault, whatever its rows are
            self._accept_refusal(request, failed)
            return
        self._splits -= 1
        outbox = self._outbox[request.lane]
        size = -len(request.body)
        for half in reversed(parts):
            whole.request_id = uuid4().hex
            whole.columns.CopyFrom(half)
            body = whole.SerializeToString()
            size += len(body)
            outbox.appendleft(
                replace(request, id=whole.request_id, body=body, rows=half.row_count, dropped=None)
            )
        self._outstanding[request.number] += 1
        with self._waiting.lock:
            self._waiting.bytes += size
            self._tell_again(request)

    def _tell_again(self, request: Request) -> None:
        """What a refused request has told is not known to the server; with the lock."""
        for told, rows in (request.dropped or {}).items():
            self._waiting.untold[told] += rows

    def _hold(self, request: Request, failed: Failed, now: float) -> None:
        """Wait before anything is sent again: longer each time, or for as long as we are told."""
        self._say_once("away", f"{self._address!r} takes no events, they wait: {failed.why}")
        if request.last_sent < self._failed_at:  # one of several that failed at once
            return
        self._failures += 1
        self._failed_at = now
        if failed.after is not None:
            pause = failed.after * random.uniform(1.0, 1.25)
        else:
            longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 30))
            pause = random.uniform(0.0, longest)
        self._resume_at = now + pause

    def _expire(self, now: float) -> None:
        """Give up what has waited for too long, unless it can wait on disk."""
        if self._spill is not None:
            return
        for outbox in self._outbox.values():
            while outbox and outbox[0].born + self._limits.time_to_live < now:
                self._give_up(outbox.popleft(), "expired")
                self._say_once("expired", "events are dropped that waited for too long")

    def _give_up(self, request: Request, cause: Cause) -> None:
        with self._waiting.lock:
            self._waiting.drop(cause, request.rows)
            self._tell_again(request)
        self._leave(request)

    def _leave(self, request: Request) -> None:
        """Let a request go whose end is known."""
        self._outstanding[request.number] -= 1
        if not self._outstanding[request.number]:
            del self._outstanding[request.number]
            self._from_disk.discard(request.number)
        with self._waiting.lock:
            self._waiting.taken -= request.rows
            self._waiting.bytes -= len(request.body)
            self._waiting.changed.notify_all()

    def _tell_flushed(self) -> None:
        oldest = next(iter(self._outstanding), self._number + 1)
        while self._marks and self._marks[0][1] < oldest:
            with self._waiting.lock:
                self._waiting.flushed, _ = self._marks.popleft()
                self._waiting.changed.notify_all()

    def _say_once(self, about: str, message: str) -> None:
        if about not in self._said:
            self._said.add(about)
            logger.warning(message)

    # -- the end -----------------------------------------------------------------------------------

    def abandon(self) -> int:
        """Write what is left to disk, or count it as expired; rows that are lost. After `pause`."""
        self._take(float("inf"))
        self._cut()
        while self._piles:
            self._cut()
        lost = 0
        left = [request for outbox in self._outbox.values() for request in outbox]
        for request in sorted(left, key=lambda request: request.number):
            self._outbox[request.lane].remove(request)
            if self._spill is not None:
                if request.number not in self._from_disk:
                    self._spill_one(self._spill, request)
            else:
                lost += request.rows
                self._give_up(request, "expired")
        if self._spill is not None:
            self._spill.close()
        return lost
