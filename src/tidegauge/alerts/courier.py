"""The courier carries messages from the outbox to one sink, on a thread of its own.

Messages wait in the store, so nothing is lost with a process and nobody waits for a sink. What does
not arrive is tried again, later each time; what is refused is given up at once, and what has not
arrived after a day too. A message may arrive twice, where a process dies before noting it.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tidegauge.alerts.incidents import Message
from tidegauge.alerts.sinks import Refused, Repeating, Sink, Undelivered

if TYPE_CHECKING:
    from tidegauge.store import Store, Waiting

FIRST, LONGEST = 1.0, 300.0  # seconds until a message is tried again
GIVE_UP = timedelta(days=1)
CLAIM = timedelta(minutes=2)  # for which a message is one courier's
IDLE = 30.0  # seconds after which the outbox is looked at, though nobody has called

_log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


class Courier:
    """Carries the messages of one sink.

    Parameters
    ----------
    store
        Whose outbox.
    sink
        Where to.
    per_minute
        Messages a minute, at most; the others wait.
    clock
        The time, for tests.
    """

    def __init__(
        self,
        store: Store,
        sink: Sink,
        *,
        per_minute: int = 30,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self.store, self.sink, self.per_minute, self.clock = store, sink, per_minute, clock
        self._sent: deque[datetime] = deque(maxlen=per_minute)
        self._repeated: datetime | None = None
        self._called, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to carry."""
        name = f"tidegauge-{self.sink.name}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self) -> None:
        """Say that there is something to carry."""
        self._called.set()

    def close(self, timeout: float = 5.0) -> None:
        """Send what is due and stop; what cannot be sent in time waits for the next process."""
        self._closing.set()
        self._called.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        failures = 0
        while True:
            closing = self._closing.is_set()
            self._called.clear()
            try:
                wait = self.round()
                failures = 0
            except Exception:  # the store may be away for longer than its patience
                _log.exception("messages to %s cannot be carried now", self.sink.name)
                failures += 1
                wait = _later(failures)
            if closing:
                return
            self._called.wait(wait)

    def round(self) -> float:
        """Send what is due; seconds until there may be more."""
        now = self.clock()
        for waiting in self.store.waiting(self.sink.name, now=now):
            room = self._room()
            if room > 0:
                return room
            self._carry(waiting)
        self._repeat()
        every = self.sink.every if isinstance(self.sink, Repeating) else IDLE
        return min(every, IDLE, FIRST if self._more() else IDLE)

    def _more(self) -> bool:
        """Whether anything waits that will be due soon."""
        soon = self.clock() + timedelta(seconds=IDLE)
        return bool(self.store.waiting(self.sink.name, now=soon, limit=1))

    def _room(self) -> float:
        """Seconds until one more may be sent."""
        if len(self._sent) < self.per_minute:
            return 0.0
        return 60.0 - (self.clock() - self._sent[0]).total_seconds()

    def _carry(self, waiting: Waiting) -> None:
        now, name = self.clock(), self.sink.name
        if not self.store.claim(name, waiting, until=now + CLAIM):
            return
        self._sent.append(now)
        what = f"message {waiting.number} of {waiting.incident} to {name}"
        try:
            self.sink.send(Message.from_dict(waiting.message))
        except Refused as error:
            _log.error("%s is refused: %s", what, error)
            self.store.settle(name, waiting, error=str(error))
        except Exception as error:  # a sink that fails in its own way fails alone
            said = str(error) if isinstance(error, Undelivered) else type(error).__name__
            asked = error.wait if isinstance(error, Undelivered) else None
            wait = timedelta(seconds=max(_later(waiting.attempts + 1), min(asked or 0.0, 3600.0)))
            if now + wait - waiting.created_at > GIVE_UP:
                _log.error("%s is given up after %d tries: %s", what, waiting.attempts + 1, said)
                self.store.settle(name, waiting, error=said)
            else:
                _log.warning("%s: %s; again in %.0f s", what, said, wait.total_seconds())
                self.store.settle(name, waiting, error=said, again=now + wait)
        else:
            self.store.settle(name, waiting)

    def _repeat(self) -> None:
        """Say what is open again, where the sink wants to hear it."""
        if not isinstance(self.sink, Repeating):
            return
        now = self.clock()
        if self._repeated and (now - self._repeated).total_seconds() < self.sink.every:
            return
        self._repeated = now
        messages = [Message.from_dict(each) for each in self.store.incidents()]
        if not messages:
            return
        try:
            self.sink.repeat(messages)
        except (Undelivered, Refused) as error:
            _log.warning("%d open incidents to %s: %s", len(messages), self.sink.name, error)


def _later(attempts: int) -> float:
    """Seconds until the next try: twice as long each time, five minutes at most, never in step."""
    return random.uniform(0.5, 1.0) * min(FIRST * 2.0 ** min(attempts, 20), LONGEST)
