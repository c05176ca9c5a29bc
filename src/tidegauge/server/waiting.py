"""What waits in a client: rows and packed requests, bounded by bytes and rows, and their account.

Callers put in and the sender takes out, under one lock that is held for a few instructions. It may
be taken again by the thread that has it, as by a signal handler that logs.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Literal, TypeAlias

OnFull: TypeAlias = Literal["drop_newest", "block", "spill"]
Cause: TypeAlias = Literal["queue_full", "expired", "refused"]
Lane: TypeAlias = Literal["predictions", "outcomes"]
LANES: tuple[Lane, ...] = ("predictions", "outcomes")


@dataclass(frozen=True, slots=True)
class Limits:
    """When rows are sent, how much may wait, and for how long; seconds, rows and bytes."""

    batch_rows: int
    linger: float
    max_rows: int
    max_bytes: int
    time_to_live: float
    on_full: OnFull
    block_timeout: float | None


@dataclass(slots=True, eq=False)
class Request:
    """Rows as they are sent, the same bytes each time."""

    lane: Lane
    id: str
    body: bytes
    rows: int
    born: float  # monotonic, when the first of its rows came
    number: int = 0  # in the order in which they were cut
    first_sent: float = 0.0
    last_sent: float = 0.0
    dropped: dict[Cause, int] | None = None  # what it tells the server, settled when first sent


@dataclass(slots=True)
class Counts:
    """What became of the rows that were offered."""

    offered: int = 0
    delivered: int = 0
    duplicates: int = 0
    rejected: int = 0
    requests: int = 0
    retries: int = 0
    replayed: int = 0
    dropped: dict[Cause, int] = field(
        default_factory=lambda: {"queue_full": 0, "expired": 0, "refused": 0}
    )


@dataclass(slots=True)
class Pile:
    """Rows of one kind that nobody has packed yet."""

    lane: Lane
    rows: list[dict[str, Any]] = field(default_factory=list)
    bytes: int = 0
    since: float = 0.0  # when the first of them came


class Waiting:
    """Rows and requests between callers and the sender."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)  # there is room, or a flush is through
        self.mailbox: queue.SimpleQueue[Any] = queue.SimpleQueue()  # what wakes the sender
        self.piles = {lane: Pile(lane) for lane in LANES}
        self.packed: deque[Request] = deque()
        self.taken = 0  # rows that the sender has, until it is known what became of them
        self.bytes = 0  # of all rows and requests in memory
        self.counts = Counts()
        self.untold: dict[Cause, int] = dict.fromkeys(self.counts.dropped, 0)
        self.flushes = 0  # asked for
        self.flushed = 0  # through

    def put(self, pile: Pile, row: dict[str, Any], size: int) -> int:
        """Add a row; how many rows of its kind wait now, 0 if there is no room for it."""
        limits = self.limits
        with self.lock:
            self.counts.offered += 1
            if len(pile.rows) >= limits.max_rows or self.bytes + size > limits.max_bytes:
                blocks = limits.on_full == "block"
                if not (blocks and self._wait_for_room(size, pile)):
                    self.drop("queue_full", 1)
                    return 0
            rows = pile.rows
            rows.append(row)
            pile.bytes += size
            self.bytes += size
            if len(rows) == 1:
                pile.since = monotonic()
            return len(rows)

    def put_packed(self, requests: Iterable[Request]) -> int:
        """Add packed tables, one after another; the rows for which there was room."""
        limits = self.limits
        taken = 0
        for request in requests:
            size = len(request.body)
            with self.lock:
                self.counts.offered += request.rows
                if self.bytes + size > limits.max_bytes:
                    drops = limits.on_full == "drop_newest"
                    if drops or not self._wait_for_room(size):
                        self.drop("queue_full", request.rows)
                        continue
                self.packed.append(request)
                self.bytes += size
                taken += request.rows
            self.mailbox.put(None)
        return taken

    def _wait_for_room(self, size: int, pile: Pile | None = None) -> bool:
        limits = self.limits

        def room() -> bool:
            rows = 0 if pile is None else len(pile.rows)
            return rows < limits.max_rows and self.bytes + size <= limits.max_bytes

        return size <= limits.max_bytes and self.changed.wait_for(room, limits.block_timeout)

    def drop(self, cause: Cause, rows: int) -> None:
        """Count rows that are gone, here and for the server; with the lock."""
        self.counts.dropped[cause] += rows
        self.untold[cause] += rows

    def tell(self) -> dict[Cause, int]:
        """Take what the server has not been told of."""
        with self.lock:
            told, self.untold = self.untold, dict.fromkeys(self.untold, 0)
        return told

    @property
    def rows(self) -> int:
        """Rows whose end is not known, wherever they are; with the lock."""
        piled = sum(len(pile.rows) for pile in self.piles.values())
        return piled + sum(request.rows for request in self.packed) + self.taken
