"""The folder door: Parquet files that others put there, each read once."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from stat import S_ISREG

import pyarrow as pa
from pyarrow import parquet

from tidegauge.journal import OUTCOMES, PREDICTIONS
from tidegauge.server import batches
from tidegauge.server.batches import MAX_CELLS
from tidegauge.server.carrier import Carrier, Marks, Stopped
from tidegauge.server.config import Folder, seconds_of
from tidegauge.server.desk import Desk
from tidegauge.server.refused import Refused

log = logging.getLogger(__name__)

MAX_ROWS = 1 << 16  # written at once
MAX_FAULTY = 1000  # rows of one file that are refused singly; then the rest of it is


@dataclass(frozen=True, slots=True)
class Found:
    """A file, known by its name in the folder, its size and the time of its last change.

    >>> Found("a.parquet", 7, 1_700_000_000).digest == Found("a.parquet", 8, 1_700_000_000).digest
    False
    """

    name: str
    n_bytes: int
    changed: int

    @property
    def digest(self) -> str:
        """Stands for it in marks."""
        text = f"{self.name}\0{self.n_bytes}\0{self.changed}"
        return sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class _Progress:
    """How far a file is read, counted from the first row of a batch."""

    found: Found
    prefix: bytes
    first: int
    total: int

    def marks(self, end: int) -> Marks:
        """What is kept once the rows before one are written."""
        kept = {"rows": self.first + end, "of": self.total, "file": self.found.name}
        return {self.prefix + self.found.digest.encode(): json.dumps(kept).encode()}


class FolderDoor:
    """Reads what comes into a folder, in a thread of its own, from its construction to `close`.

    Parameters
    ----------
    desk
        Where rows go.
    name
        Of the door's table in the configuration.
    folder
        Which folder, which files, how often.
    """

    port: int | None = None

    def __init__(self, desk: Desk, name: str, folder: Folder) -> None:
        self.counts: Counter[str] = Counter()  # "looks", "files" and "rows" read, rows "refused"
        self._desk = desk
        self._folder = folder
        self._prefix = f"folder\0{name}\0".encode()
        self._stop = threading.Event()
        self._broken: set[bytes] = set()  # marks of files that could not be read, as they were
        self._carriers = {
            kind: Carrier(
                desk,
                model=folder.model,
                kind=kind,
                version=folder.version if kind == PREDICTIONS else "",
                stop=self._stop,
            )
            for kind in (PREDICTIONS, OUTCOMES)
        }
        self._thread = threading.Thread(target=self._run, name=f"tidegauge-{name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Stopped:
                return
            except Exception:
                log.exception("%s: looking for files failed; it is tried again", self._folder.path)
            if self._stop.wait(seconds_of(self._folder.every)):
                return

    def look(self) -> None:
        """Read every file that has not been read, predictions first, by their names."""
        marks = self._desk.journal.marks(self._prefix)
        there = set()
        for kind, pattern in (
            (PREDICTIONS, self._folder.predictions),
            (OUTCOMES, self._folder.outcomes),
        ):
            for found in self._files(pattern):
                mark = self._prefix + found.digest.encode()
                there.add(mark)
                done = json.loads(marks.get(mark, b'{"rows": 0, "of": null}'))
                if done["rows"] != done["of"] and mark not in self._broken:
                    self._read(found, kind, done["rows"])
                if self._stop.is_set():
                    raise Stopped
        if self._folder.path.is_dir():  # else it is the folder that is away, for a while
            self._broken &= there
            if gone := marks.keys() - there:
                self._carriers[PREDICTIONS].mark(dict.fromkeys(gone))
        self.counts["looks"] += 1

    def _files(self, pattern: str) -> Iterator[Found]:
        """Files of a pattern; what begins with a dot or an underscore is still being written."""
        for path in sorted(self._folder.path.glob(pattern)):
            try:
                about = path.stat()
            except FileNotFoundError:
                continue  # taken away in between
            if S_ISREG(about.st_mode) and not path.name.startswith((".", "_")):
                name = path.relative_to(self._folder.path).as_posix()
                yield Found(name, about.st_size, about.st_mtime_ns)

    def _read(self, found: Found, kind: int, done: int) -> None:
        """Read a file from a row on."""
        try:
            with parquet.ParquetFile(self._folder.path / found.name) as file:
                self._carry(found, kind, file, done)
        except (pa.ArrowException, OSError, Refused) as error:
            self._broken.add(self._prefix + found.digest.encode())
            self.counts["broken"] += 1
            text = str(error).split("\n")[0]
            log.error("%s: not read, until it changes: %s", found.name, text)
            return
        self.counts["files"] += 1
        log.info("%s: read", found.name)

    def _carry(self, found: Found, kind: int, file: parquet.ParquetFile, done: int) -> None:
        total = file.metadata.num_rows
        known = self._desk.model(self._folder.model).monitor.schema.columns
        names = [name for name in file.schema_arrow.names if name in known]
        batches.check_schema(pa.schema([file.schema_arrow.field(name) for name in names]))
        size = max(1, min(MAX_ROWS, MAX_CELLS // max(1, len(names))))
        faulty = 0
        for first, rows in _batches(file, names, size, done):
            progress = _Progress(found, self._prefix, first, total)
            cuts = range(1, rows.num_rows + 1)
            refused = self._carriers[kind].carry(rows, cuts, progress.marks)
            self.counts["rows"] += rows.num_rows - len(refused)
            self.counts["refused"] += len(refused)
            for row, refusal in refused[:10]:
                log.warning("%s: row %d is refused: %s", found.name, first + row, refusal)
            faulty += len(refused)
            if faulty > MAX_FAULTY:
                self.counts["refused"] += total - first - rows.num_rows
                log.error("%s: more than %d faulty rows; the rest is refused", found.name, faulty)
                break
        self._carriers[kind].mark(_Progress(found, self._prefix, 0, total).marks(total))

    def close(self) -> None:
        """Look no more, and return once the rows at hand are written."""
        self._stop.set()
        self._thread.join()


def _batches(
    file: parquet.ParquetFile, names: list[str], size: int, done: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Rows from one on, a row group in memory at most, each batch with the number of its first."""
    first = 0
    for group in range(file.metadata.num_row_groups):
        n = file.metadata.row_group(group).num_rows
        if first + n <= done:
            first += n
            continue
        for batch in file.iter_batches(size, row_groups=[group], columns=names):
            skipped = min(max(done - first, 0), batch.num_rows)
            if skipped < batch.num_rows:
                yield first + skipped, batch.slice(skipped)
            first += batch.num_rows
