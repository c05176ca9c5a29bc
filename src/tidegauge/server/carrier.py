"""Carries rows that nobody waits for: patiently, in order, and around the faulty ones."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from tidegauge.journal import STREAM
from tidegauge.server import batches
from tidegauge.server.desk import RETRY_AFTER, Desk
from tidegauge.server.refused import Refused

log = logging.getLogger(__name__)

Marks = Mapping[bytes, bytes | None]


class Stopped(Exception):
    """The server stops; what has been written is marked."""


class Carrier:
    """Takes rows to a desk.

    Parameters
    ----------
    desk
        Where rows are counted and written down.
    model, kind, version
        Of the rows.
    stop
        Set when the server stops.
    """

    def __init__(
        self, desk: Desk, *, model: str, kind: int, version: str, stop: threading.Event
    ) -> None:
        self.desk = desk
        self.model = model
        self.kind = kind
        self.version = version
        self._stop = stop
        self.dropped = 0  # rows let go that the desk does not know of yet

    def carry(
        self,
        rows: pa.RecordBatch,
        cuts: Sequence[int],
        marks: Callable[[int], Marks],
    ) -> list[tuple[int, Refused]]:
        """Write rows, each transaction with a mark of how far it is.

        Parameters
        ----------
        rows
            The rows.
        cuts
            Where they may be cut to find a faulty part: the ends of all parts, the last one that
            of the rows.
        marks
            What is to be kept once the parts before one are written.

        Returns
        -------
        list
            Numbers of the parts that were refused, with the reasons.

        Raises
        ------
        Stopped
            When the server stops before all is written.
        """
        refused: list[tuple[int, Refused]] = []
        waiting = [(0, len(cuts))]
        while waiting:
            first, last = waiting.pop()
            start = cuts[first - 1] if first else 0
            part = rows.slice(start, cuts[last - 1] - start)
            try:
                self._write(part, marks(last))
            except Refused as refusal:
                if last - first > 1:
                    middle = (first + last) // 2
                    waiting += [(middle, last), (first, middle)]
                    continue
                refused.append((first, refusal))
                self.dropped += part.num_rows
        if refused and refused[-1][0] == len(cuts) - 1:
            self.mark(marks(len(cuts)))
        return refused

    def mark(self, marks: Marks) -> None:
        """Keep marks without rows."""
        self._patiently(lambda: self.desk.mark(marks).result())

    def _write(self, rows: pa.RecordBatch, marks: Marks) -> None:
        body, rows = batches.rewritten(rows)
        request_id = uuid.uuid4().hex  # for every attempt: one that failed may be on the disk

        def write() -> None:
            self.desk.write(
                self.kind,
                self.model,
                request_id,
                encoding=STREAM,
                body=body,
                rows=rows,
                version=self.version,
                dropped=self.dropped,
                marks=marks,
            ).result()

        self._patiently(write)
        self.dropped = 0

    def _patiently(self, write: Callable[[], object]) -> None:
        """Try again for as long as the desk can take nothing."""
        while True:
            try:
                write()
                return
            except Refused as refusal:
                if not refusal.passing:
                    raise
                pause = refusal.retry_after or RETRY_AFTER
                if refusal.reason == "DRAINING" or self._stop.wait(pause):
                    raise Stopped from None
