"""A queue on disk for requests that memory has no room for, while the server is away.

A file is a row of records: length and CRC-32 of what follows, each four bytes, little-endian; then
the request. It is locked by the process that writes it, so that the next one to start adopts what
is left behind and nobody reads twice what is still being written. Records are not synced: they
outlive the process, not the machine. A request keeps its id, so one that is sent twice is counted
once.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from uuid import uuid4

_HEADER = struct.Struct("<II")
_SUFFIX = ".spill"


class Spill:
    """Records in the order in which they came, `max_bytes` of them at most.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     spill = Spill(Path(folder), max_bytes=1 << 20)
    ...     spill.append(b"first"), spill.append(b"second")
    ...     spill.take(), spill.take(), spill.take()
    ...     spill.close()
    (True, True)
    (b'first', b'second', None)
    """

    def __init__(self, folder: Path, *, max_bytes: int, segment_bytes: int = 16 << 20) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._writer: FileIO | None = None
        self._segments: deque[FileIO] = deque()  # the oldest first; the last may be written to
        self._held: list[FileIO] = []  # read to their end, and not yet known to be kept
        self.bytes = 0
        for path in sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime_ns):
            self._adopt(path)

    def _adopt(self, path: Path) -> None:
        """Take over a file whose process has gone."""
        try:
            file = path.open("rb+", buffering=0)
        except FileNotFoundError:
            return  # another process was first, and is through with it
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return
        if not path.exists():  # deleted between the two
            file.close()
            return
        self._segments.append(file)
        self.bytes += os.fstat(file.fileno()).st_size

    def append(self, record: bytes) -> bool:
        """Write a record behind all others; False, and nothing written, where there is no room."""
        size = _HEADER.size + len(record)
        if self.bytes + size > self._max_bytes:
            return False
        writer = self._writer
        if writer is None or os.fstat(writer.fileno()).st_size >= self._segment_bytes:
            path = self._folder / f"{os.getpid()}-{uuid4().hex}{_SUFFIX}"
            self._writer = writer = path.open("xb+", buffering=0)
            fcntl.flock(writer, fcntl.LOCK_EX)
            self._segments.append(writer)
        whole = _HEADER.pack(len(record), zlib.crc32(record)) + record
        end = os.fstat(writer.fileno()).st_size
        try:
            written = os.pwrite(writer.fileno(), whole, end)
        except OSError:
            written = 0
        if written < len(whole):  # the disk is full: what stands there of it is taken away again
            os.ftruncate(writer.fileno(), end)
            return False
        self.bytes += size
        return True

    def __len__(self) -> int:
        """Files with something to read."""
        return sum(1 for file in self._segments if self._left(file))

    @property
    def n_held(self) -> int:
        """Files that were read to their end and not yet forgotten."""
        return len(self._held)

    @staticmethod
    def _left(file: FileIO) -> int:
        return os.fstat(file.fileno()).st_size - file.tell()

    def take(self) -> bytes | None:
        """The oldest record that was not taken yet; its file stays until `forget`.

        A file ends where a record is torn or damaged.
        """
        while self._segments:
            file = self._segments[0]
            for record in self._read(file):
                self.bytes -= _HEADER.size + len(record)
                return record
            self._segments.popleft()
            if file is self._writer:
                self._writer = None
            self.bytes -= max(self._left(file), 0)
            self._held.append(file)
        return None

    @staticmethod
    def _read(file: FileIO) -> Iterator[bytes]:
        start = file.tell()
        header = file.read(_HEADER.size)
        if len(header) == _HEADER.size:
            length, check = _HEADER.unpack(header)
            record = file.read(length)
            if len(record) == length and zlib.crc32(record) == check:
                yield record
                return
        file.seek(start)

    def forget(self) -> None:
        """Delete the files that were read to their end: every record taken from them is kept."""
        for file in self._held:
            Path(file.name).unlink(missing_ok=True)
            file.close()
        self._held.clear()

    def close(self) -> None:
        """Let go of the files; what was not forgotten is there for the next process."""
        for file in (*self._segments, *self._held):
            file.close()
        self._segments.clear()
        self._held.clear()
        self._writer = None
