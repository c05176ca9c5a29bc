"""Parquet files of everything that was accepted, by model and date, sealed exactly once.

Records of the journal become files that DuckDB, Polars and Spark read as they stand: a new name is
linked to a finished file, then one transaction of the journal says that it is there and how far
it reaches. What a crash leaves between the two is not in the manifest and is deleted at the start.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import compute, parquet

from tidegauge.failpoint import failpoint
from tidegauge.journal import FORGET, MODEL, OUTCOMES, PREDICTIONS, Journal, Record
from tidegauge.schema import Schema

log = logging.getLogger(__name__)

KINDS = {PREDICTIONS: "predictions", OUTCOMES: "outcomes"}
SEQUENCE, RECEIVED = "tidegauge_sequence", "tidegauge_received"  # columns beside those that came
MAX_BYTES = 128 << 20  # of requests that are sealed together, whatever their rows
MAX_DATES = 512  # files of one model in one seal; rows of further dates go by the day they came


@dataclass(frozen=True, slots=True)
class Rules:
    """When files are written and how long they stay.

    Parameters
    ----------
    rows
        Rows of requests that are sealed together.
    keep_for
        Seconds that files stay, by the date of their events; for ever if None.
    keep_bytes
        Bytes that all files may take; the oldest dates go first. Any number if None.

    >>> Rules().rows
    1000000
    """

    rows: int = 1_000_000
    keep_for: float | None = None
    keep_bytes: int | None = None


class History:
    """The files of a directory, and the journal that they are made from.

    Parameters
    ----------
    journal
        Whose records are sealed, and which has the manifest.
    directory
        Where the files lie: `model=NAME/kind=predictions/date=2024-05-01/FIRST-LAST-N.parquet`.
    rules
        When and how long.
    read
        Reads the rows of a record.
    schema_of
        Schema of a model.
    """

    def __init__(
        self,
        journal: Journal,
        directory: Path,
        rules: Rules,
        *,
        read: Callable[[Record], pa.Table],
        schema_of: Callable[[str], Schema],
    ) -> None:
        self.journal = journal
        self.directory = directory
        self.rules = rules
        self._read = read
        self._schema_of = schema_of
        self._touched: set[Path] = set()  # made or replaced by a seal that is not over
        self.directory.mkdir(parents=True, exist_ok=True)
        self.journal.begin_history()
        self._clean()

    def _clean(self) -> None:
        """Delete what the manifest does not know; say what it knows and is not there."""
        known = {file["path"] for file in self.journal.files()}
        there = set()
        for path in self.directory.rglob("*.parquet*"):
            name = path.relative_to(self.directory).as_posix()
            if name in known:
                there.add(name)
            else:
                log.warning("history: %s was never finished; deleted", name)
                path.unlink()
        for name in sorted(known - there):
            log.error("history: %s is missing", name)

    # -- sealing -----------------------------------------------------------------------------------

    def seal(self) -> int:
        """Turn records into files, up to the rows of the rules; number of rows sealed."""
        try:
            return self._seal()
        finally:
            self._settle()

    def _settle(self) -> None:
        """Delete what a seal made or replaced and the manifest does not know: it would count twice.

        Where that fails too, it is tried again after the next seal.
        """
        if not self._touched:
            return
        known = {self.directory / file["path"] for file in self.journal.files()}
        for path in sorted(self._touched):
            if path not in known:
                path.unlink(missing_ok=True)
            self._touched.remove(path)

    def _seal(self) -> int:
        after = self.journal.sealed
        parts: dict[tuple[str, int], list[pa.Table]] = defaultdict(list)
        forgotten: list[tuple[int, Record]] = []
        rows = size = 0
        until = after
        for sequence, record in self.journal.records(after):
            until = sequence
            if record is None or record.kind == MODEL:
                continue
            if record.kind == FORGET:
                forgotten.append((sequence, record))
                continue
            table = _stamped(self._read(record), sequence, record.received)
            parts[record.model, record.kind].append(table)
            rows += table.num_rows
            size += len(record.body)
            if rows >= self.rules.rows or size >= MAX_BYTES:
                break
        if until == after:
            return 0
        for sequence, record in forgotten:
            self._forget(sequence, record, parts)
        files = [
            self._write(model, kind, day, f"{after + 1:012}-{until:012}-{number}", table)
            for (model, kind), tables in parts.items()
            for number, (day, table) in enumerate(self._by_day(model, tables))
        ]
        self.journal.seal(until, files)
        log.info("history: records up to %d sealed, %d rows in %d files", until, rows, len(files))
        return rows

    def _by_day(self, model: str, tables: Sequence[pa.Table]) -> Iterator[tuple[date, pa.Table]]:
        """Tables of one shape and day; the day is that of the event where the rows name one."""
        shapes: dict[str, list[pa.Table]] = defaultdict(list)
        for table in tables:
            shapes[str(table.schema)].append(table)
        for alike in shapes.values():
            table = pa.concat_tables(alike)
            days = _days(table, self._schema_of(model).timestamp)
            found = compute.value_counts(days).to_pylist()
            if len(found) > MAX_DATES:
                days = _days(table, None)
                found = compute.value_counts(days).to_pylist()
            for day in sorted(entry["values"] for entry in found):
                yield day, table.filter(compute.equal(days, day))

    def _write(
        self, model: str, kind: int, day: date, name: str, table: pa.Table
    ) -> dict[str, Any]:
        """Write a file and give it its name; what the manifest says of it."""
        place = Path(f"model={model}") / f"kind={KINDS[kind]}" / f"date={day}"
        folder = self.directory / place
        folder.mkdir(parents=True, exist_ok=True)
        final = folder / f"{name}.parquet"
        temporary = folder / f".{name}.parquet.tmp"
        try:
            with temporary.open("wb") as file:
                parquet.write_table(table, file, compression="zstd", compression_level=1)
                file.flush()
                os.fsync(file.fileno())
            failpoint("seal_after_write")
            os.link(temporary, final)  # never over a file that is there
            self._touched.add(final)
        finally:
            temporary.unlink(missing_ok=True)
        for parent in (folder, *(self.directory / each for each in place.parents)):
            _sync_directory(parent)
        failpoint("seal_after_link")
        return {
            "path": (place / final.name).as_posix(),
            "model": model,
            "kind": kind,
            "date": day.isoformat(),
            "rows": table.num_rows,
            "bytes": final.stat().st_size,
        }

    # -- forgetting --------------------------------------------------------------------------------

    def _forget(
        self, sequence: int, record: Record, parts: dict[tuple[str, int], list[pa.Table]]
    ) -> None:
        """Take the rows of ids out of tables to be written, and out of files that are there."""
        name = self._schema_of(record.model).prediction_id
        if name is None:
            return
        ids = self._read(record).column(name).combine_chunks()

        def stays(table: pa.Table) -> pa.ChunkedArray | None:
            if name not in table.column_names:
                return None
            column = table[name]
            gone = compute.is_in(_texts(column), value_set=_texts(ids))
            return compute.invert(compute.and_(gone, compute.less(table[SEQUENCE], sequence)))

        for kind in KINDS:
            key = record.model, kind
            for place, table in enumerate(parts.get(key, ())):
                parts[key][place] = table if (kept := stays(table)) is None else table.filter(kept)
        for file in self.journal.files():
            path = self.directory / file["path"]
            if file["model"] != record.model or not path.exists():
                continue
            found = parquet.ParquetFile(path)
            wanted = [each for each in (name, SEQUENCE) if each in found.schema_arrow.names]
            kept = stays(found.read(wanted))
            if kept is None or compute.all(kept).as_py():
                continue
            rest = found.read().filter(kept)
            made = []
            if rest.num_rows:
                stem = f"{path.name.partition('.')[0]}.{sequence:012}"
                day = date.fromisoformat(file["date"])
                made = [self._write(record.model, file["kind"], day, stem, rest)]
            self._touched.add(path)
            self.journal.replace_files([file["path"]], made)
            path.unlink()

    # -- retention ---------------------------------------------------------------------------------

    def expire(self) -> int:
        """Delete the files that the rules keep no longer; their number."""
        files = sorted(self.journal.files(), key=lambda file: (file["date"], file["path"]))
        gone = []
        if self.rules.keep_for is not None:
            oldest = datetime.now(UTC) - timedelta(seconds=self.rules.keep_for)
            last = (oldest.date() - timedelta(days=1)).isoformat()
            gone = [file for file in files if file["date"] <= last]
        if self.rules.keep_bytes is not None:
            rest = files[len(gone) :]
            size = sum(file["bytes"] for file in rest)
            for file in rest:
                if size <= self.rules.keep_bytes:
                    break
                size -= file["bytes"]
                gone.append(file)
        if gone:
            self.journal.replace_files([file["path"] for file in gone])
            for file in gone:
                (self.directory / file["path"]).unlink(missing_ok=True)
            log.info("history: %d files are kept no longer", len(gone))
        return len(gone)


def _stamped(table: pa.Table, sequence: int, received: int) -> pa.Table:
    """Rows with dictionaries as text, and which request they came by."""
    columns = {}
    for name in table.column_names:
        values = table[name]
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        columns[name] = values
    n = table.num_rows
    columns[SEQUENCE] = pa.repeat(pa.scalar(sequence, pa.int64()), n)
    columns[RECEIVED] = pa.repeat(pa.scalar(received, pa.timestamp("us", tz="UTC")), n)
    return pa.table(columns)


def _texts(ids: Any) -> Any:
    """Ids as text, to be compared with ids of any other type."""
    return ids.cast(pa.string(), safe=False)  # bytes need not be UTF-8


def _days(table: pa.Table, timestamp: str | None) -> pa.ChunkedArray:
    """Day of every row, UTC."""
    if timestamp in table.column_names:
        moments = table[timestamp]
        if pa.types.is_timestamp(moments.type) or pa.types.is_date(moments.type):
            days = moments.cast(pa.timestamp("us"), safe=False).cast(pa.date32(), safe=False)
            return compute.coalesce(days, _days(table, None))
    return table[RECEIVED].cast(pa.timestamp("us")).cast(pa.date32(), safe=False)


def _sync_directory(path: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
