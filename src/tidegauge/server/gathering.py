"""Events of many callers, gathered into few batches: what comes while one is written is the next.

The first of two halves is kept by the journal until the other one has come, and struck out by the
transaction that takes the pair. So a half that was acknowledged is as safe as rows are.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegauge.journal import COLUMNS, KINDS
from tidegauge.server import batches
from tidegauge.server.cloudevents import Event
from tidegauge.server.desk import RETRY_AFTER, Desk
from tidegauge.server.inference import Reader, Said
from tidegauge.server.pairs import Half, Key, Pairs
from tidegauge.server.refused import Refused
from tidegauge.server.tensors import Rows, joined

log = logging.getLogger(__name__)

PREFIX = b"events\0"  # of the marks that waiting halves are
MAX_ROWS = 10_000  # in one batch, unless a single event has more
OFFER_BYTES, VALUE_BYTES = 2048, 64  # that an event takes in memory, about


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of an event: rows that are counted, or that it waits for its other half.

    >>> Taken(1).waits
    False
    """

    rows: int
    waits: bool = False


@dataclass(eq=False, slots=True)
class Offer:
    """An event on its way, and the future that its sender waits for."""

    event: Event
    said: Said
    n_bytes: int
    came: float
    answer: asyncio.Future[Taken]

    @property
    def key(self) -> Key:
        """Under which its half waits."""
        return self.said.model, self.said.key

    def settle(self, taken: Taken | Refused) -> None:
        """Let the sender know."""
        if self.answer.done():
            return
        if isinstance(taken, Refused):
            self.answer.set_exception(taken)
            self.answer.exception()  # a sender that is gone does not look
        else:
            self.answer.set_result(taken)


@dataclass(eq=False, slots=True)
class _Whole:
    """Rows to be written, and the offers that they come from."""

    said: Said
    offers: list[Offer]
    key: Key | None = None  # of a pair
    met: Half[Said] | None = None  # the half of it that had waited


@dataclass(eq=False, slots=True)
class _Part:
    """What one request holds, under one id however often it is tried: it may be on the disk."""

    wholes: list[_Whole]
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def offers(self) -> list[Offer]:
        return [offer for whole in self.wholes for offer in whole.offers]


@dataclass(eq=False, slots=True)
class _Plan:
    """What one round writes."""

    wholes: dict[tuple[Any, ...], list[_Whole]] = field(default_factory=lambda: defaultdict(list))
    pairs: dict[Key, _Whole] = field(default_factory=dict)
    halves: dict[Key, list[Offer]] = field(default_factory=dict)

    def add(self, whole: _Whole) -> None:
        said = whole.said
        self.wholes[said.model, said.kind, said.rows.shape].append(whole)


class Gathering:
    """Takes what events say to a desk.

    Parameters
    ----------
    desk
        Where rows are counted and written down.
    reader
        Of the events, also of those that waited when the server stopped.
    limit, limit_bytes, within
        Of the waiting halves, as `Pairs` has them.
    queue_bytes
        Bytes of events that may wait to be written; more are refused for the moment.
    now
        Tells the time, in seconds since 1970.
    """

    def __init__(
        self,
        desk: Desk,
        reader: Reader,
        *,
        limit: int,
        limit_bytes: int,
        within: float,
        queue_bytes: int,
        now: Callable[[], float],
    ) -> None:
        self.desk = desk
        self.queue_bytes = queue_bytes
        self.pairs: Pairs[Said] = Pairs(limit=limit, limit_bytes=limit_bytes, within=within)
        self.counts: Counter[str] = Counter()  # halves "expired", "refused" or "repeated"
        self._reader = reader
        self._now = now
        self._queue: list[Offer] = []
        self._queued = 0
        self._failed: list[_Part] = []  # to be tried again
        self._some = asyncio.Event()
        self._closing = False
        self._dropped: Counter[str] = Counter()  # rows by model that the desk does not know of yet
        self._stale: set[bytes] = set()  # marks that the next write strikes out
        self._load()

    def _load(self) -> None:
        """Let those halves wait that waited when the server stopped."""
        found = []
        for mark, value in self.desk.journal.marks(PREFIX).items():
            model, _, id_ = mark[len(PREFIX) :].decode().partition("\0")
            stored = json.loads(value)
            try:
                said = self._reader.read(Event(stored["attributes"], stored["data"]))
            except Refused as refusal:
                log.warning("a waiting event of model %r is let go: %s", model, refusal)
                self._let_go((model, id_), 1, "refused")
                continue
            found.append(((model, id_), Half(said, bytes_of(said), stored["came"])))
        for key, half in sorted(found, key=lambda entry: entry[1].came):
            self.pairs.wait(key, half)

    def offer(self, event: Event, said: Said) -> asyncio.Future[Taken]:
        """Take an event and what it says; a future of what comes of it.

        Raises
        ------
        Refused
            When too much waits.
        """
        n_bytes = bytes_of(said)
        if self._queued + n_bytes > self.queue_bytes:
            raise Refused(
                "RESOURCE_EXHAUSTED",
                "BACK_PRESSURE",
                f"{self._queued} bytes of events wait, {self.queue_bytes} may; send it again later",
                retry_after=RETRY_AFTER,
            )
        self._queued += n_bytes
        answer: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self._queue.append(Offer(event, said, n_bytes, self._now(), answer))
        self._some.set()
        return answer

    async def run(self, *, patient: bool) -> None:
        """Write until closed. A patient one tries again what the desk cannot take now."""
        offers: list[Offer] = []  # taken, and not settled
        while self._queue or self._failed or not self._closing:
            await self._some.wait()
            self._some.clear()
            fresh, self._queue = self._queue, []
            offers += fresh
            refusal = await self.write(fresh)
            if refusal is not None and (self._closing or not patient):
                self._give_up()
                for offer in offers:
                    offer.settle(refusal)
            self._queued -= sum(offer.n_bytes for offer in offers if offer.answer.done())
            offers = [offer for offer in offers if not offer.answer.done()]
            if refusal is not None and patient and not self._closing:
                again = {offer for part in self._failed for offer in part.offers}
                self._queue = [offer for offer in offers if offer not in again] + self._queue
                offers = [offer for offer in offers if offer in again]
                self._some.set()
                await asyncio.sleep(refusal.retry_after or RETRY_AFTER)

    def _give_up(self) -> None:
        """Try no more what failed; halves that had waited wait again."""
        for part in self._failed:
            for whole in part.wholes:
                if whole.key is not None:
                    self.pairs.part(whole.key, whole.met)
        self._failed = []

    def close(self) -> None:
        """Let `run` return once everything that was taken is written, or was tried."""
        self._closing = True
        self._some.set()

    # -- one round ---------------------------------------------------------------------------------

    async def write(self, offers: Iterable[Offer]) -> Refused | None:
        """Write offers and settle them, save those that the desk cannot take now: why it cannot."""
        plan = self._plan(offers)
        trouble: list[Refused] = []
        parts, self._failed = self._failed, []
        parts += [part for group in plan.wholes.values() for part in _parts(group)]
        writes = [self._write_rows(part, trouble) for part in parts]
        if plan.halves or self._stale:
            writes.append(self._write_halves(plan.halves, trouble))
        await asyncio.gather(*writes)
        return trouble[0] if trouble else None

    def _plan(self, offers: Iterable[Offer]) -> _Plan:
        plan = _Plan()
        for offer in offers:
            if not offer.said.rows.n:
                offer.settle(Taken(0))
            elif offer.said.side is None:
                plan.add(_Whole(offer.said, [offer]))
            elif self.pairs.has_met(offer.key):
                self._repeat(
                    offer, plan.pairs[offer.key].offers if offer.key in plan.pairs else None
                )
            elif (other := self.pairs.waiting(offer.key)) is None:
                half = Half(offer.said, offer.n_bytes, offer.came)
                self.pairs.wait(offer.key, half)
                plan.halves[offer.key] = [offer]
            elif other.content.side == offer.said.side:
                self._repeat(offer, plan.halves.get(offer.key), waits=True)
            else:
                self._pair(plan, offer)
        for key, half in self.pairs.drop(self._now()):
            self._let_go(key, half.content.rows.n, "expired")
            for offer in plan.halves.pop(key, []):
                offer.settle(_too_many())
        return plan

    def _repeat(self, offer: Offer, same: list[Offer] | None, *, waits: bool = False) -> None:
        """A half that came before; its sender hears what that one hears, now if it is written."""
        self.counts["repeated"] += 1
        if same is None:
            offer.settle(Taken(0, waits))
        else:
            same.append(offer)

    def _pair(self, plan: _Plan, offer: Offer) -> None:
        met = self.pairs.meet(offer.key, offer.came)
        early = plan.halves.pop(offer.key, None)
        partners = [offer, *(early or [])]
        inputs, outputs = met.content, offer.said
        if offer.said.side == "inputs":
            inputs, outputs = outputs, inputs
        try:
            said = self._reader.whole(inputs, outputs)
        except Refused as refusal:
            self._let_go(offer.key, inputs.rows.n, "refused")
            for partner in partners:
                partner.settle(refusal)
            return
        plan.pairs[offer.key] = _Whole(said, partners, offer.key, None if early else met)
        plan.add(plan.pairs[offer.key])

    def _let_go(self, key: Key, n: int, why: str) -> None:
        """A half of n rows that will be part of no pair."""
        self.counts[why] += 1
        self._dropped[key[0]] += n
        self._stale.add(mark_of(key))

    async def _write_rows(self, part: _Part, trouble: list[Refused]) -> None:
        wholes = part.wholes
        rows = joined([whole.said.rows for whole in wholes])
        try:
            await self._send(part, rows)
        except Refused as refusal:
            if refusal.passing:
                trouble.append(refusal)
                self._failed.append(part)
            elif len(wholes) > 1:  # one of them is at fault: find it, count the others
                middle = len(wholes) // 2
                await self._write_rows(_Part(wholes[:middle]), trouble)
                await self._write_rows(_Part(wholes[middle:]), trouble)
            else:
                whole = wholes[0]
                if whole.key is not None and refusal.code == "INTERNAL":  # no fault of the pair
                    self.pairs.part(whole.key, whole.met)
                elif whole.key is not None:
                    self._let_go(whole.key, rows.n, "refused")
                for offer in whole.offers:
                    offer.settle(refusal)
            return
        for whole in wholes:
            whole.offers[0].settle(Taken(whole.said.rows.n))
            for offer in whole.offers[1:]:
                offer.settle(Taken(0))

    async def _send(self, part: _Part, rows: Rows) -> None:
        said = part.wholes[0].said
        marks = [mark_of(whole.key) for whole in part.wholes if whole.key and whole.met]
        batch = rows.to_batch()
        dropped = self._dropped.pop(said.model, 0)
        try:
            written = self.desk.write(
                KINDS[said.kind],
                said.model,
                part.id,
                encoding=COLUMNS,
                body=batches.pack(batch).SerializeToString(),
                rows=batch,
                dropped=dropped,
                marks=dict.fromkeys(marks),
            )
            await asyncio.wrap_future(written)
        except Refused:
            self._dropped[said.model] += dropped
            raise

    async def _write_halves(
        self, halves: Mapping[Key, list[Offer]], trouble: list[Refused]
    ) -> None:
        struck = set(self._stale)
        marks: dict[bytes, bytes | None] = dict.fromkeys(struck)
        for key, offers in halves.items():
            event = offers[0].event
            kept = {"attributes": event.attributes, "data": event.data, "came": offers[0].came}
            marks[mark_of(key)] = json.dumps(kept, separators=(",", ":")).encode()
        try:
            await asyncio.wrap_future(self.desk.mark(marks))
        except Refused as refusal:
            if not refusal.passing and len(halves) > 1:  # too much at once
                kept_apart = list(halves.items())
                middle = len(kept_apart) // 2
                await self._write_halves(dict(kept_apart[:middle]), trouble)
                await self._write_halves(dict(kept_apart[middle:]), trouble)
                return
            for key, offers in halves.items():
                self.pairs.take(key)
                if not refusal.passing:
                    for offer in offers:
                        offer.settle(refusal)
            if refusal.passing:
                trouble.append(refusal)
            return
        self._stale -= struck
        for offers in halves.values():
            for offer in offers:
                offer.settle(Taken(0, waits=True))


def bytes_of(said: Said) -> int:
    """Memory that an event takes, about.

    >>> bytes_of(Said("m", "predictions", Rows(0, {})))
    2048
    """
    return OFFER_BYTES + VALUE_BYTES * said.rows.n * len(said.rows.columns)


def mark_of(key: Key) -> bytes:
    r"""Name under which the journal keeps a half.

    >>> mark_of(("flights", "7"))
    b'events\x00flights\x007'
    """
    return PREFIX + f"{key[0]}\0{key[1]}".encode()


def _parts(wholes: Iterable[_Whole]) -> Iterator[_Part]:
    """Few enough rows for one batch each."""
    part: list[_Whole] = []
    n = 0
    for whole in wholes:
        if part and n + whole.said.rows.n > MAX_ROWS:
            yield _Part(part)
            part, n = [], 0
        part.append(whole)
        n += whole.said.rows.n
    yield _Part(part)


def _too_many() -> Refused:
    return Refused(
        "RESOURCE_EXHAUSTED",
        "TOO_MANY_HALVES",
        "too many events wait for their other half; let the logger send both, or raise the limits",
    )
