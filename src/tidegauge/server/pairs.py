"""Halves of events that wait for each other, bounded in number, in bytes and in time."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

Content = TypeVar("Content")
Key = tuple[str, str]
"""Model and id of the event."""


@dataclass(frozen=True, slots=True)
class Half(Generic[Content]):
    """One half of an event: what, how large, and when it came, in seconds."""

    content: Content
    n_bytes: int
    came: float


class Pairs(Generic[Content]):
    """Waiting halves. The oldest goes when there are too many, or when it has waited too long.

    Parameters
    ----------
    limit
        Halves that may wait; so many pairs are remembered too, so that a half that is sent again
        does not wait for nothing.
    limit_bytes
        Bytes that may wait.
    within
        Seconds that a half may wait, and a pair is remembered.

    >>> pairs = Pairs(limit=2, limit_bytes=100, within=60)
    >>> pairs.wait(("m", "1"), Half("request", 1, came=0.0))
    >>> pairs.meet(("m", "1"), 1.0).content, pairs.has_met(("m", "1")), len(pairs)
    ('request', True, 0)
    """

    def __init__(self, *, limit: int, limit_bytes: int, within: float) -> None:
        self.limit = limit
        self.limit_bytes = limit_bytes
        self.within = within
        self.n_bytes = 0
        self._waiting: OrderedDict[Key, Half[Content]] = OrderedDict()
        self._met: OrderedDict[Key, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def waiting(self, key: Key) -> Half[Content] | None:
        """Half that waits under a key, if one does."""
        return self._waiting.get(key)

    def has_met(self, key: Key) -> bool:
        """Whether both halves have come, as far as is remembered."""
        return key in self._met

    def wait(self, key: Key, half: Half[Content]) -> None:
        """Let a half wait under a key that is free."""
        self._waiting[key] = half
        self.n_bytes += half.n_bytes

    def meet(self, key: Key, now: float) -> Half[Content]:
        """Take the half that waits, as the other one has come."""
        self._met[key] = now
        return self.take(key)

    def part(self, key: Key, half: Half[Content] | None) -> None:
        """Undo a meeting; a half that had waited waits again, before all others."""
        self._met.pop(key, None)
        if half is not None:
            self.wait(key, half)
            self._waiting.move_to_end(key, last=False)

    def take(self, key: Key) -> Half[Content]:
        """Take the half that waits under a key."""
        half = self._waiting.pop(key)
        self.n_bytes -= half.n_bytes
        return half

    def drop(self, now: float) -> list[tuple[Key, Half[Content]]]:
        """Let go what is too much or has waited too long, the oldest first."""
        while self._met and (
            len(self._met) > self.limit or next(iter(self._met.values())) < now - self.within
        ):
            self._met.popitem(last=False)
        dropped = []
        while self._waiting:
            key, oldest = next(iter(self._waiting.items()))
            over = len(self._waiting) > self.limit or self.n_bytes > self.limit_bytes
            if not over and oldest.came >= now - self.within:
                break
            dropped.append((key, self.take(key)))
        return dropped
