"""Where the row work runs: chosen once, at construction, never in silence."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tidegauge import ingest
from tidegauge._core import Batch, Cells, Filler
from tidegauge.layout import Layout

DEVICES = ("cpu", "cuda", "auto")


class DeviceError(RuntimeError):
    """A device that is asked for cannot be used, or has failed."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A batch as an engine holds it: what the host reads and counts, and what a device counts.

    A column may be in both; one that the schema does not know is in neither.
    """

    host: Batch
    n_rows: int
    names: Sequence[str]
    filler: Filler  # of the columns that the host counts
    device: Mapping[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """What counts rows. Every engine gives the same counts."""

    @property
    def name(self) -> str:
        """Device, as users write it."""

    @property
    def threads(self) -> int:
        """Threads for what the host counts."""

    @property
    def tile_rows(self) -> int:
        """Rows whose roles are in memory at once."""

    def on_host(self, data: object) -> object:
        """Return the same table with every column on the host."""

    def open(self, data: object, layout: Layout) -> Rows:
        """Take in a batch; what can fail fails here, before anything is counted."""

    def check(self) -> None:
        """Raise DeviceError when an earlier call failed half-way, so that no answer is wrong."""

    def fill(
        self,
        cells: Cells,
        rows: Rows,
        span: tuple[int, int],
        where: NDArray[np.int32],
        layout: Layout,
    ) -> None:
        """Count rows [start, stop) into cells: every column but derived ones, and the rows.

        where[n_sets, n], or [n_sets, 1] where one cell stands for all rows; -1 leaves a row out.
        """


@dataclass(frozen=True, slots=True)
class CpuEngine:
    """The compiled core on a few threads."""

    threads: int
    name: str = "cpu"

    @property
    def tile_rows(self) -> int:
        """As many as stay small beside the batch."""
        return ingest.TILE

    def on_host(self, data: object) -> object:
        """Return it as it is."""
        return data

    def open(self, data: object, layout: Layout) -> Rows:
        """View a batch where it lies."""
        batch = ingest.as_batch(data)
        filler = Filler(batch, [column.task for column in layout.given])
        return Rows(batch, batch.n_rows, batch.names, filler)

    def check(self) -> None:
        """Do nothing: the core cannot fail once it counts."""

    def fill(
        self,
        cells: Cells,
        rows: Rows,
        span: tuple[int, int],
        where: NDArray[np.int32],
        layout: Layout,
    ) -> None:
        """Count the columns of the filler, and the rows themselves."""
        cells.fill(rows.filler, *span, where, layout.traffic_block, self.threads)


def open_engine(device: str, threads: int | None) -> Engine:
    """Return the engine of a device; "auto" takes CUDA where a device can be used.

    Raises
    ------
    ValueError
        When there is no such device.
    DeviceError
        When CUDA is asked for and cannot be used; the message says what is missing.

    >>> open_engine("cpu", 2).name
    'cpu'
    """
    from tidegauge import cuda

    if device not in DEVICES:
        raise ValueError(f"unknown device {device!r}; allowed: {', '.join(DEVICES)}")
    host = CpuEngine(resolve_threads(threads))
    if device == "cpu":
        return host
    try:
        return cuda.open_engine(host)
    except DeviceError:
        if device == "auto":
            return host
        raise


def resolve_threads(threads: int | None) -> int:
    """Return the number of threads: as asked, or one a core that this process may use, 8 at most.

    >>> resolve_threads(2)
    2
    """
    if threads is None:
        return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    if threads < 1:
        raise ValueError(f"threads is a positive number or None, got {threads}")
    return threads
