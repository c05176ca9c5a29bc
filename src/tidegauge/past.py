"""What was known before: the events of late, kept so that they can be taken back for a question."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegauge._core import NEVER, JoinedRows
from tidegauge.window import NO_ROWS, IndexArray, WindowTable

ROWS_TOGETHER = 4096  # of small calls
MAX_BYTES = 1 << 30
GROUPS = ("groups", "pair_groups", "arrival_groups")  # columns of JoinedRows


class Past:
    """Rows that predictions and labels have added of late, each with the watermark it came at.

    Sums are exact, so a moment's state is the present one less the rows that came later. Rows are
    kept for `length` microseconds of event time, and those before dropped a block at a time; beyond
    `MAX_BYTES` the oldest go sooner.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.blocks: deque[JoinedRows] = deque()
        self.n_bytes = 0  # memory held
        self.since = NEVER  # everything that came after it is here

    def keep(self, rows: JoinedRows, watermark: int) -> None:
        """Remember what an event has added."""
        size = len(rows)
        if size and self.blocks and size + len(self.blocks[-1]) <= ROWS_TOGETHER:
            self.n_bytes -= self.blocks[-1].n_bytes
            self.blocks[-1].extend(rows)
            self.n_bytes += self.blocks[-1].n_bytes
        elif size:
            self._append(rows)
        if watermark != NEVER:
            self._drop(watermark)

    def _append(self, rows: JoinedRows) -> None:
        self.blocks.append(rows)
        self.n_bytes += rows.n_bytes

    def _drop(self, watermark: int) -> None:
        while self.blocks:
            first = self.blocks[0]
            if first.latest_known >= watermark - self.length and self.n_bytes <= MAX_BYTES:
                return
            self.since = max(self.since, first.latest_known)
            self.n_bytes -= first.n_bytes
            self.blocks.popleft()

    def earliest(self, watermark: int) -> int:
        """First moment that can be asked about; NEVER where everything is here."""
        if self.since == NEVER:
            return NEVER
        return max(self.since, watermark - self.length)

    @contextmanager
    def known_at(self, moment: int, table: WindowTable) -> Iterator[None]:
        """Take what came after a moment out of a table, and put it back in the end."""
        later = [block for block in self.blocks if block.latest_known > moment]
        for block in later:
            table.add_events(block.after(moment, -1))
        try:
            yield
        finally:
            for block in later:
                table.add_events(block.after(moment, 1))

    # -- state ---------------------------------------------------------------------------------

    def merge(self, other: Past, groups: IndexArray) -> None:
        """Take over what another one remembers, whose group g is groups[g] here."""
        for block in other.blocks:
            columns = block.columns()
            for name in GROUPS:
                columns[name] = groups[columns[name]]
            self._append(JoinedRows(columns, weighted=block.weighted))
        self.blocks = deque(sorted(self.blocks, key=lambda block: block.latest_known))
        self.since = max(self.since, other.since)

    def state(self, ranks: IndexArray) -> dict[str, NDArray[Any]]:
        """Everything as arrays, in which group g is ranks[g]."""
        columns = [NO_ROWS, *(block.columns() for block in self.blocks)]
        arrays = {name: np.concatenate([each[name] for each in columns]) for name in NO_ROWS}
        for name in GROUPS:
            arrays[name] = ranks[arrays[name]].astype(np.int32)
        return arrays | {"since": np.array([self.since], dtype=np.int64)}

    def restore(self, arrays: Mapping[str, NDArray[Any]], *, weighted: bool) -> None:
        """Read such a state back."""
        self.since = int(arrays["since"][0])
        columns = {name: np.ascontiguousarray(arrays[name]) for name in NO_ROWS}
        rows = JoinedRows(columns, weighted=weighted)
        if len(rows):
            self._append(rows)
