"""Counts rows on a device: what goes there, in which pieces, and how the counts come back."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidegauge._core import (
    COLUMN_BYTES,
    Batch,
    Cells,
    DataError,
    Filler,
    StagePlan,
    add_counts,
    bins_tables,
    device_columns,
)
from tidegauge.cuda.columns import (
    ArrowTable,
    Chunk,
    CodeTable,
    DeviceColumn,
    StagedColumn,
    Storage,
    array_column,
    arrow_column,
    chunk_table,
    dictionary_tables,
    fetch_array,
    fetch_column,
    integer_table,
    is_counted,
    lies_on_device,
    read_table,
    storage_of,
    upload,
    view_array,
)
from tidegauge.cuda.device import Bytes, Device, Memory, OutOfDeviceMemoryError
from tidegauge.engine import CpuEngine, DeviceError, Rows
from tidegauge.ingest import as_batch
from tidegauge.layout import ABSENT, CountedColumn, Layout

KERNEL = "window/fill.cu"
OPTIONS = ("--std=c++17", "--fmad=false")
MIB = 1 << 20
MOST_COUNTERS = 11_264  # of 32 bits: what 48 KiB of shared memory hold beside the extremes
FEW_COUNTERS = 7_168  # so that several blocks share a multiprocessor
BLOCKS_A_PROCESSOR = 32  # enough that the last ones to finish hold nobody up
MOST_BLOCKS = 2**31 - 1

_PIECE = np.dtype([("begin", "i8"), ("end", "i8"), ("column", "i4"), ("stretch", "i4")])


@dataclass(frozen=True, slots=True)
class Limits:
    """How much memory the engine takes, and the rows of a stretch, which one block counts.

    Less memory is taken, down to what one row needs, when the device has no room for it.
    """

    count_bytes: int = 64 * MIB
    lane_bytes: int = 32 * MIB
    stretch_rows: tuple[int, int] = (8_192, 131_072)


@dataclass(slots=True)
class Lane:
    """A stream with staging memory of its own, so that copies run beside the other's kernels."""

    stream: Any
    pinned: Bytes
    memory: Memory
    done: Any = None  # event after which the staging memory may be written again


@dataclass(frozen=True, slots=True)
class Task:
    """A column that the device counts, and its place in the row of counts of a cell."""

    counted: CountedColumn
    column: DeviceColumn | StagedColumn
    first_slot: int
    number: int  # among the columns with extremes; -1 where it has none


@dataclass(frozen=True, slots=True)
class Work:
    """Columns whose counts fit together, and the cells that rows [start, stop) lie in."""

    tasks: list[Task]
    start: int
    stop: int
    present: NDArray[np.int32]  # cells
    local: NDArray[np.int32]  # [n_sets, n] place of each row's cell among these, -1 for none

    @property
    def n_slots(self) -> int:
        """Counts of a cell."""
        return sum(task.counted.n_slots for task in self.tasks)

    @property
    def n_numbers(self) -> int:
        """Columns with extremes."""
        return sum(task.number >= 0 for task in self.tasks)


@dataclass(frozen=True, slots=True)
class Stage:
    """Rows [start, stop) that go to the device in one copy, and where each part of it begins."""

    start: int
    stop: int
    stretch: int  # rows that a block counts
    plan: StagePlan | None  # of columns of the host
    parts: dict[str, int]
    n_bytes: int


class CudaEngine:
    """Counts on a CUDA device; what no kernel counts is left to the host's engine.

    Text, lists, dictionaries of numbers and whole numbers that are categories more than a million
    apart are counted by the host, after a copy where they lie on the device.
    """

    name = "cuda"
    tile_rows = 1 << 22  # the device counts them faster than the host says so

    def __init__(self, device: Device, host: CpuEngine, limits: Limits | None = None) -> None:
        self._device = device
        self._host = host
        self._limits = limits or Limits()
        self._layout: Layout | None = None
        self._tables: dict[tuple[str, str], Any] = {}  # of the layout, on the device
        self._lanes: list[Lane] = []
        self._counts: Memory | None = None
        self._count_bytes = 0
        self._results: Bytes = np.empty(0, dtype=np.uint8)
        self._failure: str | None = None

    @property
    def threads(self) -> int:
        """Threads for what the host counts, and for staging."""
        return self._host.threads

    # -- taking in -----------------------------------------------------------------------------

    def on_host(self, data: object) -> object:
        """Copy what lies on the device."""
        device = self._device
        with device.active():
            table = read_table(data, device)
            if table is not None:
                names = table.schema.names
                return pa.table({name: fetch_column(table, name, device) for name in names})
            if not isinstance(data, Mapping):
                return data
            return {
                name: fetch_array(view_array(name, values, device), device)
                if lies_on_device(values)
                else values
                for name, values in data.items()
            }

    def open(self, data: object, layout: Layout) -> Rows:
        """Take in a batch; memory, kernels and tables are made ready here."""
        self.check()
        with self._device.active():
            try:
                if layout is not self._layout:
                    self._layout, self._tables = layout, {}
                rows = self._open(data, layout)
                if rows.device:
                    self._reserve(rows, layout)
            except OutOfDeviceMemoryError as error:
                raise DeviceError(
                    f"the device has too little free memory, even for one row at a time ({error}); "
                    "free some, or use device='cpu'"
                ) from None
        return rows

    def _open(self, data: object, layout: Layout) -> Rows:
        table = read_table(data, self._device)
        if table is not None:
            return self._open_table(table, layout)
        if isinstance(data, Mapping) and any(map(lies_on_device, data.values())):
            return self._open_mapping(data, layout)
        batch = as_batch(data)
        device = self._staged(batch, layout)
        return _rows(batch, layout, batch.n_rows, batch.names, device)

    def _open_mapping(self, data: Mapping[Any, Any], layout: Layout) -> Rows:
        host: dict[str, Any] = {}
        device: dict[str, Any] = {}
        lengths: dict[str, int] = {}
        roles = layout.schema.role_columns
        for name, values in data.items():
            if not isinstance(name, str):
                raise DataError(f"column names are text, got {name!r}")
            if not lies_on_device(values):
                host[name] = values
                continue
            if name not in layout.schema.columns:
                lengths[name] = len(values)
                continue
            view = view_array(name, values, self._device)
            counted = layout.columns.get(name)
            if counted is not None:
                column = array_column(name, view)
                if is_counted(counted, column.storage):
                    device[name] = self._with_tables(counted, column)
            lengths[name] = view.shape[0] if view.shape else 0
            if name not in device or name in roles:
                host[name] = fetch_array(view, self._device)
        batch = as_batch(host)
        lengths |= dict.fromkeys(host, batch.n_rows)
        if len(set(lengths.values())) > 1:
            raise DataError(f"columns differ in length: {lengths}")
        device |= self._staged(batch, layout, apart=set(device))
        return _rows(batch, layout, next(iter(lengths.values())), list(data), device)

    def _open_table(self, table: ArrowTable, layout: Layout) -> Rows:
        host: dict[str, Any] = {}
        device: dict[str, Any] = {}
        for name in table.schema.names:
            if name not in layout.schema.columns:
                continue
            column = arrow_column(table, name)
            counted = layout.columns.get(name)
            if column is not None and counted is not None and is_counted(counted, column.storage):
                if column.storage.family == "code":
                    device[name] = dictionary_tables(table, counted, column, self._device)
                else:
                    device[name] = self._with_tables(counted, column)
            if name not in device or name in layout.schema.role_columns:
                host[name] = fetch_column(table, name, self._device)
        batch = as_batch(pa.table(host))
        return _rows(batch, layout, table.n_rows, table.schema.names, device)

    def _staged(
        self, batch: Batch, layout: Layout, apart: Container[str] = ()
    ) -> dict[str, StagedColumn]:
        """Columns of a host batch that the device counts."""
        columns = {}
        for name, type_ in zip(batch.names, batch.types, strict=True):
            counted, storage = layout.columns.get(name), storage_of(type_)
            if counted is None or name in apart or not batch.n_rows:
                continue
            if storage is None or not is_counted(counted, storage):
                continue
            tables: list[CodeTable | None] = [None] * batch.n_chunks
            if storage.family == "code":
                tables = [
                    chunk_table(batch, counted, chunk).upload(self._device)
                    for chunk in range(batch.n_chunks)
                ]
            elif counted.categories is not None:
                tables = [self._integer_table(counted, storage)] * batch.n_chunks
            columns[name] = StagedColumn(storage, tables)
        return columns

    def _with_tables(self, counted: CountedColumn, column: DeviceColumn) -> DeviceColumn:
        if counted.categories is None:
            return column
        table = self._integer_table(counted, column.storage)
        return replace(column, chunks=[replace(chunk, table=table) for chunk in column.chunks])

    def _integer_table(self, counted: CountedColumn, storage: Storage) -> CodeTable:
        key = (counted.name, storage.family + storage.value)
        if key not in self._tables:
            table = integer_table(counted, storage)
            assert table is not None
            self._tables[key] = table.upload(self._device)
        found: CodeTable = self._tables[key]
        return found

    def _bins(self, counted: CountedColumn) -> dict[str, Any]:
        """Addresses of the lists that belong to the bins of a column."""
        key = (counted.name, "bins")
        if key not in self._tables:
            assert counted.bins is not None
            edges, guide, sentinels = bins_tables(counted.bins)
            lists: dict[str, NDArray[Any]] = {"edges": edges, "guide": guide}
            lists["sentinels"] = sentinels
            self._tables[key] = {
                name: upload(self._device, values) if len(values) else None
                for name, values in lists.items()
            }
        return {name: m.address if m else 0 for name, m in self._tables[key].items()}

    def _reserve(self, rows: Rows, layout: Layout) -> None:
        """Get memory and kernels ready, so that counting cannot fail for want of them."""
        for name, column in rows.device.items():
            self._kernel(column.storage)
            if layout.columns[name].bins is not None:
                self._bins(layout.columns[name])
        n_sets = len(layout.schema.segment_sets)
        widest = max(layout.n_slots) + 2
        least_counts, least_lane = 8 * n_sets * widest, 4_096 + 1_024 * (len(rows.device) + n_sets)
        if self._count_bytes < least_counts:
            self._counts = None
            n_bytes = max(self._limits.count_bytes, least_counts)
            self._counts, self._count_bytes = self._allocate(n_bytes, least_counts)
            self._results = self._device.pinned(self._count_bytes)
        if not self._lanes or len(self._lanes[0].pinned) < least_lane:
            self._lanes = []
            lanes = []
            n_bytes = max(self._limits.lane_bytes, least_lane)
            for _ in range(2):
                memory, n_bytes = self._allocate(n_bytes, least_lane)
                lanes.append(Lane(self._device.new_stream(), self._device.pinned(n_bytes), memory))
            self._lanes = lanes

    def _allocate(self, n_bytes: int, least: int) -> tuple[Memory, int]:
        """Take device memory, half as much whenever there is no room."""
        while True:
            try:
                return self._device.allocate(n_bytes), n_bytes
            except OutOfDeviceMemoryError:
                if n_bytes == least:
                    raise
                n_bytes = max(n_bytes // 2, least)

    def _kernel(self, storage: Storage) -> Any:
        return self._device.compile(KERNEL, (*OPTIONS, *storage.options))

    # -- counting ------------------------------------------------------------------------------

    def fill(
        self,
        cells: Cells,
        rows: Rows,
        span: tuple[int, int],
        where: NDArray[np.int32],
        layout: Layout,
    ) -> None:
        """Count the columns on the device, then what is left to the host."""
        spread = np.broadcast_to(where, (where.shape[0], span[1] - span[0]))
        present, n_rows = _rows_by_cell(spread)
        try:
            with self._device.active():
                for work in self._works(rows, layout, span[0], spread, present):
                    self._count(cells, rows, work)
        except Exception as error:
            self._failure = " ".join(str(error).split()) or type(error).__name__
            self.check()
        if any(column.name in rows.host.names for column in _apart(layout, rows.device)):
            self._host.fill(cells, rows, span, where, layout)
        else:
            slots = np.zeros(len(present), dtype=np.int32)
            cells.add_entries(layout.traffic_block, present, slots, n_rows)
        for column in _apart(layout, rows.device):
            if column.name not in rows.names:
                slots = np.full(len(present), ABSENT, dtype=np.int32)
                cells.add_entries(column.block, present, slots, n_rows)

    def check(self) -> None:
        """Refuse to go on after a failure in the middle of a call."""
        if self._failure is not None:
            raise DeviceError(
                f"the device failed while it counted ({self._failure}); the counts of that call "
                "are incomplete: load the last saved state in a new process"
            )

    def _works(
        self,
        rows: Rows,
        layout: Layout,
        start: int,
        where: NDArray[np.int32],
        present: NDArray[np.int32],
    ) -> Iterator[Work]:
        """Split rows until the counts of one column fit, then columns until those of all do."""
        if not rows.device or not len(present):
            return
        n = where.shape[1]
        widest = max(layout.columns[name].n_slots for name in rows.device) + 2
        if 8 * widest * len(present) > self._count_bytes:
            for lo, hi in ((0, n // 2), (n // 2, n)):
                half = where[:, lo:hi]
                found, _ = _rows_by_cell(half)
                yield from self._works(rows, layout, start + lo, half, found)
            return
        local = _local(where, present)
        room = self._count_bytes // (8 * len(present))
        tasks: list[Task] = []
        n_slots = n_numbers = 0
        for name in sorted(rows.device, key=lambda name: rows.device[name].storage.options):
            counted = layout.columns[name]
            has_extremes = counted.bins is not None
            if n_slots + counted.n_slots + 2 * (n_numbers + has_extremes) > room:
                yield Work(tasks, start, start + n, present, local)
                tasks, n_slots, n_numbers = [], 0, 0
            number = n_numbers if has_extremes else -1
            tasks.append(Task(counted, rows.device[name], n_slots, number))
            n_slots += counted.n_slots
            n_numbers += has_extremes
        yield Work(tasks, start, start + n, present, local)

    def _count(self, cells: Cells, rows: Rows, work: Work) -> None:
        """Count and add the results to their cells."""
        device = self._device
        assert self._counts is not None
        sizes = [8 * len(work.present) * n for n in (work.n_slots, work.n_numbers, work.n_numbers)]
        places = [self._counts.address + sum(sizes[:k]) for k in range(3)]
        stream = device.current_stream()
        for place, size, value in zip(places, sizes, (0, 0xFF, 0), strict=True):
            if size:
                device.set_bytes(place, value, size, stream)
        ready = device.record(stream)
        for lane in self._lanes:
            device.wait(lane.stream, ready)
        start, turn = work.start, 0
        while start < work.stop:
            lane = self._lanes[turn % 2]
            stage = self._stage(rows, work, start, len(lane.pinned))
            if lane.done is not None:
                device.finish(lane.done)
            self._send(lane, rows, work, stage, places)
            start, turn = stage.stop, turn + 1
        for lane in self._lanes[:turn]:
            device.wait(stream, lane.done)
        results = self._results[: sum(sizes)]
        device.download(results, self._counts.address, stream)
        device.finish(device.record(stream))
        counts = results[: sizes[0]].view(np.int64).reshape(len(work.present), -1)
        keys = results[sizes[0] :].view(np.uint64).reshape(2, len(work.present), -1)
        extremes = _extremes(keys)
        for task in work.tasks:
            inside = slice(task.first_slot, task.first_slot + task.counted.n_slots)
            found = np.ascontiguousarray(counts[:, inside])
            add_counts(cells, task.counted.block, work.present, found)
            if task.number >= 0:
                ends = np.ascontiguousarray(extremes[:, :, task.number].T)
                cells.add_extremes(task.counted.block, work.present, ends)

    def _stage(self, rows: Rows, work: Work, start: int, room: int) -> Stage:
        """As many rows from `start` on as fit the staging memory."""
        stop = work.stop
        while True:
            stage = self._staged_rows(rows, work, start, stop)
            if stage.n_bytes <= room or stop - start == 1:
                return stage
            stop = start + (stop - start) // 2

    def _staged_rows(self, rows: Rows, work: Work, start: int, stop: int) -> Stage:
        n, n_sets = stop - start, work.local.shape[0]
        names = [t.counted.name for t in work.tasks if isinstance(t.column, StagedColumn)]
        plan = StagePlan(rows.host, names, start, stop) if names else None
        n_chunks = plan.n_parts if plan else 0
        for task in work.tasks:
            if isinstance(task.column, DeviceColumn):
                n_chunks += len(task.column.between(start, stop))
        shortest, longest = self._limits.stretch_rows
        blocks = BLOCKS_A_PROCESSOR * self._device.n_processors
        even = n * len(work.tasks) * n_sets // blocks
        stretch = -(-max(shortest, min(longest, even)) // 8) * 8
        n_stretches = -(-n // stretch)
        sizes = {
            "columns": COLUMN_BYTES * n_chunks,
            "pieces": _PIECE.itemsize * (n_stretches * len(work.tasks) + n_chunks),
            "ranges": 12 * n_sets * n_stretches,
            "values": plan.n_bytes if plan else 0,
            "cells": 0 if work.local.strides[1] == 0 else 4 * n_sets * n,
        }
        parts, n_bytes = {}, 0
        for part, size in sizes.items():
            parts[part] = n_bytes
            n_bytes += -(-size // 64) * 64
        return Stage(start, stop, stretch, plan, parts, n_bytes)

    def _send(self, lane: Lane, rows: Rows, work: Work, stage: Stage, places: list[int]) -> None:
        """Copy the rows of a stage to the device and count them there."""
        device, base = self._device, lane.memory.address
        n = stage.stop - stage.start

        def put(part: str, values: NDArray[Any]) -> int:
            source = np.ascontiguousarray(values).view(np.uint8).ravel()
            begin = stage.parts[part]
            lane.pinned[begin : begin + source.nbytes] = source
            return begin + source.nbytes

        chunks = self._chunks(rows, work, stage, base + stage.parts["values"])
        columns = [self._described(task, chunk) for task, chunk in chunks]
        pieces, firsts = _pieces([chunk for _, chunk in chunks], n, stage.stretch)
        local = work.local[:, stage.start - work.start : stage.stop - work.start]
        ranges = _cell_ranges(local, stage.stretch)
        put("columns", device_columns(columns))
        put("pieces", pieces)
        end = put("ranges", ranges)
        if stage.plan is not None:
            stage.plan.copy(lane.pinned[stage.parts["values"] :], self._host.threads)
            end = stage.parts["values"] + stage.plan.n_bytes
        if not ranges[:, :, 2].all() and local.strides[1]:
            end = put("cells", local)
        device.upload(base, lane.pinned[:end], lane.stream)
        begin = 0
        while begin < len(chunks):  # one launch a type
            storage = chunks[begin][0].column.storage
            stop = begin
            while stop < len(chunks) and chunks[stop][0].column.storage.options == storage.options:
                stop += 1
            widest = max(task.counted.n_slots for task, _ in chunks[begin:stop])
            n_counters = min(max(FEW_COUNTERS, widest), MOST_COUNTERS)
            n_pieces = int(firsts[stop] - firsts[begin])
            if n_pieces:
                arguments = [
                    base + stage.parts["columns"],
                    base + stage.parts["pieces"] + _PIECE.itemsize * int(firsts[begin]),
                    n_pieces,
                    base + stage.parts["cells"],
                    n,
                    base + stage.parts["ranges"],
                    ranges.shape[1],
                    ranges.shape[0],
                    work.n_slots,
                    work.n_numbers,
                    n_counters,
                    *places,
                ]
                n_blocks = min(n_pieces * ranges.shape[0], MOST_BLOCKS)
                kernel = self._kernel(storage)
                device.launch(kernel, n_blocks, 4 * n_counters, arguments, lane.stream)
            begin = stop
        lane.done = device.record(lane.stream)

    def _chunks(self, rows: Rows, work: Work, stage: Stage, base: int) -> list[tuple[Task, Chunk]]:
        """Every chunk of every column, by type, rows counted from the start of the stage."""
        found = []
        for task in work.tasks:
            if isinstance(task.column, DeviceColumn):
                found += [
                    (task, replace(chunk, first_row=chunk.first_row - stage.start))
                    for chunk in task.column.between(stage.start, stage.stop)
                ]
        of_name = {task.counted.name: task for task in work.tasks}
        for name, chunk, first, n, values, bit, validity, validity_bit in (
            stage.plan.parts(rows.host) if stage.plan else ()
        ):
            task = of_name[name]
            assert isinstance(task.column, StagedColumn)
            known = base + validity if validity >= 0 else 0
            table = task.column.tables[chunk]
            lies = Chunk(first, n, base + values, bit, known, validity_bit, chunk, table)
            found.append((task, lies))
        return sorted(found, key=lambda pair: pair[0].column.storage.options)

    def _described(self, task: Task, chunk: Chunk) -> dict[str, Any]:
        storage, counted = task.column.storage, task.counted
        described = {
            "values": chunk.values,
            "validity": chunk.validity,
            "validity_bit": chunk.validity_bit,
            "value_bit": chunk.value_bit,
            "first_row": chunk.first_row,
            "first_slot": task.first_slot,
            "n_slots": counted.n_slots,
            "number": task.number,
            "bins": counted.bins,
        }
        if counted.bins is not None:
            times = {"multiply": storage.multiply, "divide": storage.divide}
            return {
                **described,
                "is_time": storage.family == "time",
                **times,
                **self._bins(counted),
            }
        table = chunk.table
        assert table is not None
        assert table.memory is not None
        codes = {"table": table.memory.address, "n_table": len(table.slots)}
        return {**described, **codes, "lowest": table.lowest, "outside": table.outside}


def _apart(layout: Layout, device: Mapping[str, Any]) -> list[CountedColumn]:
    """Columns that the device does not count."""
    return [column for column in layout.given if column.name not in device]


def _rows(
    batch: Batch, layout: Layout, n_rows: int, names: Sequence[str], device: Mapping[str, Any]
) -> Rows:
    """Rows whose columns the device counts, or else the host."""
    there = [column for column in _apart(layout, device) if column.name in batch.names]
    return Rows(batch, n_rows, names, Filler(batch, [column.task for column in there]), device)


def _rows_by_cell(where: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Cells that rows lie in, ascending, and how many rows each has."""
    if where.shape[1] and where.strides[1] == 0:  # every row alike
        cells = np.sort(where[where[:, 0] >= 0, 0])
        return cells, np.full(len(cells), where.shape[1], dtype=np.int64)
    counts = np.bincount(where.ravel() + 1)[1:]
    cells = np.flatnonzero(counts).astype(np.int32)
    return cells, counts[cells]


def _local(where: NDArray[np.int32], present: NDArray[np.int32]) -> NDArray[np.int32]:
    """Place of each row's cell among those present, -1 for none."""
    place = np.full(int(present[-1]) + 2, -1, dtype=np.int32)
    place[present] = np.arange(len(present), dtype=np.int32)  # the last one is what -1 finds
    if where.strides[1] == 0:
        return np.broadcast_to(place[where[:, :1]], where.shape)
    return place[where]


def _cell_ranges(local: NDArray[np.int32], stretch: int) -> NDArray[np.int32]:
    """(first cell, cells, whether every row lies in the first) of every set and stretch."""
    n_sets, n = local.shape
    starts = np.arange(0, n, stretch)
    if local.strides[1] == 0:
        first = np.broadcast_to(local[:, :1], (n_sets, len(starts)))
        return np.stack([first, np.ones_like(first), np.ones_like(first)], axis=2)
    last = np.maximum.reduceat(local, starts, axis=1)
    lowest = np.minimum.reduceat(local, starts, axis=1)
    first = lowest
    if (lowest < 0).any():  # rows that are left out do not widen the range
        unsigned = np.minimum.reduceat(local.view(np.uint32), starts, axis=1)
        first = np.where(last < 0, 0, unsigned.view(np.int32))
    whole = (lowest == last) & (last >= 0)
    return np.stack([first, last - first + 1, whole.astype(np.int32)], axis=2)


def _pieces(
    chunks: Sequence[Chunk], n_rows: int, stretch: int
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Parts of chunks that lie in one stretch each, and the first one of every chunk."""
    pieces, firsts = [], [0]
    for number, chunk in enumerate(chunks):
        begin, end = max(0, chunk.first_row), min(n_rows, chunk.first_row + chunk.n_rows)
        stretches = np.arange(begin // stretch, -(-end // stretch)) if begin < end else np.empty(0)
        part = np.empty(len(stretches), dtype=_PIECE)
        part["begin"] = np.maximum(stretches * stretch, begin)
        part["end"] = np.minimum((stretches + 1) * stretch, end)
        part["column"] = number
        part["stretch"] = stretches
        pieces.append(part)
        firsts.append(firsts[-1] + len(part))
    return np.concatenate(pieces), np.array(firsts)


def _extremes(keys: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Doubles of the kernel's keys, [2, ...]: smallest and largest, infinities where none."""
    negative = keys < np.uint64(1 << 63)
    numbers = np.where(negative, ~keys, keys ^ np.uint64(1 << 63)).view(np.float64)
    numbers[0][keys[0] == np.uint64(2**64 - 1)] = np.inf
    numbers[1][keys[1] == 0] = -np.inf
    return numbers
