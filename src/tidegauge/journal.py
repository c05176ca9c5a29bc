"""The durable log of accepted requests: one LMDB environment, one transaction a group of requests.

Everything that must not fall apart lies in that environment: records, replies by request id, the
state that the monitors had at some record, the manifest of history files. A commit that returned is
on the disk (`durability="power"`), or survives the death of the process (`"process"`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import logging
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import google_crc32c
import lmdb

from tidegauge.failpoint import failpoint

Durability = Literal["power", "process"]

log = logging.getLogger(__name__)

FORMAT = 1  # of the environment: what this version writes, and all that it reads
PREDICTIONS, OUTCOMES, FORGET, MODEL = 1, 2, 3, 4
KINDS = {"predictions": PREDICTIONS, "outcomes": OUTCOMES}  # of rows, by their names
COLUMNS, STREAM, DOCUMENT = 1, 2, 3  # encodings of a body

NO_MARKS: Mapping[bytes, bytes | None] = MappingProxyType({})
KEPT_REPLIES = 1_000_000  # at least so many replies are remembered,
KEPT_FOR = 24 * 3600 * 1_000_000  # for at least so long, microseconds
CHUNK = 1 << 20  # bytes of a state that are one value
STEP = 4 << 20  # bytes written in one transaction where there is no hurry

_HEAD = struct.Struct("<IBBHHHqQ")  # crc, kind, encoding, lengths of three names, received, dropped
_REPLY = struct.Struct("<QIQQQQq")  # sequence, crc and length of the body, three counts, received
_NUMBER = struct.Struct(">Q")
_PLACE = struct.Struct(">QI")


class JournalError(RuntimeError):
    """The journal cannot take anything; `reason` is one word for it.

    >>> JournalError("JOURNAL_FULL", "the limit is reached").reason
    'JOURNAL_FULL'
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NoRoom(JournalError):
    """What is to be written would not find room; nothing has been tried."""


class Damaged(ValueError):
    """A stored record is not what was written."""


@dataclass(frozen=True, slots=True)
class Record:
    """One accepted request.

    Parameters
    ----------
    kind
        PREDICTIONS, OUTCOMES, FORGET or MODEL.
    encoding
        COLUMNS, STREAM or DOCUMENT: how the body is to be read.
    model, version, request_id
        As the request named them.
    received
        When it came, microseconds since 1970.
    dropped
        Rows that the client says it let go before.
    body
        The rows, verbatim.

    >>> record = Record(PREDICTIONS, COLUMNS, "flights", "", "r1", 0, 0, b"rows")
    >>> Record.from_bytes(record.to_bytes()) == record
    True
    """

    kind: int
    encoding: int
    model: str
    version: str
    request_id: str
    received: int
    dropped: int
    body: bytes

    def to_bytes(self) -> bytes:
        """Write it, with a check sum over everything."""
        names = [name.encode() for name in (self.model, self.version, self.request_id)]
        head = _HEAD.pack(
            0, self.kind, self.encoding, *map(len, names), self.received, self.dropped
        )
        rest = b"".join([head[4:], *names])
        crc = google_crc32c.extend(google_crc32c.value(rest), self.body)
        return b"".join([struct.pack("<I", crc), rest, self.body])

    @classmethod
    def from_bytes(cls, data: bytes) -> Record:
        """Read it back.

        Raises
        ------
        Damaged
            When a single bit differs.
        """
        if len(data) < _HEAD.size:
            raise Damaged(f"a record of {len(data)} bytes is too short")
        crc, kind, encoding, *lengths, received, dropped = _HEAD.unpack_from(data)
        if google_crc32c.value(data[4:]) != crc:
            raise Damaged("the check sum of a record does not fit")
        names = []
        place = _HEAD.size
        for length in lengths:
            names.append(data[place : place + length].decode())
            place += length
        return cls(kind, encoding, names[0], names[1], names[2], received, dropped, data[place:])


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a request; kept to be given once more.

    >>> Reply(1, 0, 0, accepted=5, duplicates=0, rejected=0, received=0).accepted
    5
    """

    sequence: int
    crc: int
    length: int
    accepted: int
    duplicates: int
    rejected: int
    received: int

    def is_of(self, crc: int, length: int) -> bool:
        """Whether a body with this check sum and length is the one that was answered."""
        return (self.crc, self.length) == (crc, length)


class Journal:
    """The environment of a directory.

    Parameters
    ----------
    directory
        Where it lies; made if it is not there. One process at a time.
    limit
        Bytes of requests and state that it may hold.
    min_free
        Bytes that stay free on its disk.
    durability
        "power": a commit is on the disk when it returns. "process": it survives `kill -9`, and
        `sync` makes it survive more.

    Raises
    ------
    JournalError
        When another process has it, it was written by a later version, or cannot be opened.

    >>> import tempfile
    >>> with Journal(tempfile.mkdtemp(), limit=1 << 24) as journal:
    ...     record = Record(PREDICTIONS, COLUMNS, "flights", "", "r1", 0, 0, b"rows")
    ...     journal.commit([(record, Reply(1, 0, 4, 5, 0, 0, 0))])
    ...     journal.find("flights", "r1").accepted
    5
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        limit: int,
        min_free: int = 0,
        durability: Durability = "power",
    ) -> None:
        self.directory = Path(directory)
        self.limit = limit
        self.min_free = min_free
        self.durability = durability
        self._env: Any = None
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = (self.directory / "lock").open("a+")
        except OSError as error:
            raise JournalError("JOURNAL_UNUSABLE", f"{self.directory}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise JournalError(
                "JOURNAL_IN_USE", f"{self.directory}: another server has this directory open"
            ) from None
        try:
            self.open()
        except BaseException:
            self.close()
            raise

    def open(self) -> None:
        """Open the environment, anew after a failure."""
        with _failures():
            self._env = lmdb.open(
                str(self.directory / "journal"),
                map_size=2 * self.limit,  # so that there is always room to delete and to seal
                max_dbs=8,
                max_readers=64,
                sync=self.durability == "power",
                metasync=self.durability == "power",
                readahead=False,
                meminit=False,
            )
            names = ("log", "replies", "order", "state", "meta", "manifest", "quarantine", "marks")
            self._dbs = {name: self._env.open_db(name.encode()) for name in names}
            with self._env.begin() as txn:
                found = self._get(txn, "format")
            if found is None:
                with self._env.begin(write=True) as txn:
                    self._put(txn, "format", FORMAT)
                    self._put(txn, "sequence", 0)
            elif found != FORMAT:
                raise JournalError(
                    "JOURNAL_FORMAT",
                    f"{self.directory}: written in format {found}, this version reads {FORMAT}; "
                    "start the version that wrote it",
                )
            with self._env.begin() as txn:
                self.sequence = int(self._get(txn, "sequence"))

    def close(self) -> None:
        """Close the environment and let others have the directory."""
        if self._env is not None:
            with contextlib.suppress(lmdb.Error):
                self._env.sync(True)
            self._env.close()
            self._env = None
        self._lock.close()

    def reopen(self) -> None:
        """Close the environment and open it again: nothing of a failed write is trusted."""
        self._env.close()
        self.open()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- small values ------------------------------------------------------------------------------

    def _get(self, txn: Any, name: str) -> Any:
        data = txn.get(name.encode(), db=self._dbs["meta"])
        return None if data is None else json.loads(data)

    def _put(self, txn: Any, name: str, value: Any) -> None:
        txn.put(name.encode(), json.dumps(value).encode(), db=self._dbs["meta"])

    def get(self, name: str) -> Any:
        """Read a small value, None where there is none."""
        with _failures(), self._env.begin() as txn:
            return self._get(txn, name)

    # -- requests ----------------------------------------------------------------------------------

    def find(self, model: str, request_id: str) -> Reply | None:
        """Reply that was given to a request, None where it is not known."""
        with _failures(), self._env.begin(db=self._dbs["replies"]) as txn:
            data = txn.get(_request_key(model, request_id))
        return None if data is None else Reply(*_REPLY.unpack(data))

    def commit(
        self, group: Sequence[tuple[Record, Reply]], marks: Mapping[bytes, bytes | None] = NO_MARKS
    ) -> None:
        """Write records and their replies in one transaction; all of them are there, or none.

        Parameters
        ----------
        group
            Records, each with its reply, in the order of their numbers.
        marks
            Small values to be kept by name, None to strike one out; what a door must not forget.

        Raises
        ------
        JournalError
            When the transaction failed; nothing of it is there.
        """
        with _failures():
            with self._env.begin(write=True) as txn:
                last = self.sequence
                for record, reply in group:
                    if reply.sequence != last + 1:
                        raise ValueError(f"record {reply.sequence} after record {last}")
                    last = reply.sequence
                    key = _NUMBER.pack(last)
                    txn.put(key, record.to_bytes(), db=self._dbs["log"], append=True)
                    if record.request_id:
                        name = _request_key(record.model, record.request_id)
                        packed = _REPLY.pack(
                            reply.sequence,
                            reply.crc,
                            reply.length,
                            reply.accepted,
                            reply.duplicates,
                            reply.rejected,
                            reply.received,
                        )
                        txn.put(name, packed, db=self._dbs["replies"])
                        txn.put(key, name, db=self._dbs["order"], append=True)
                for mark, value in marks.items():
                    if value is None:
                        txn.delete(mark, db=self._dbs["marks"])
                    else:
                        txn.put(mark, value, db=self._dbs["marks"])
                self._put(txn, "sequence", last)
                self._expire_replies(txn, 2 * len(group))
                failpoint("commit_after_write")
            failpoint("commit_after_sync")
            self.sequence = last

    def marks(self, prefix: bytes) -> dict[bytes, bytes]:
        """Marks whose names begin so, by name."""
        found: dict[bytes, bytes] = {}
        with _failures(), self._env.begin(db=self._dbs["marks"]) as txn, txn.cursor() as cursor:
            more = cursor.set_range(prefix)
            while more and cursor.key().startswith(prefix):
                found[cursor.key()] = cursor.value()
                more = cursor.next()
        return found

    def _expire_replies(self, txn: Any, most: int) -> None:
        """Forget the oldest replies beyond KEPT_REPLIES that are older than KEPT_FOR."""
        order, replies = self._dbs["order"], self._dbs["replies"]
        spare = min(txn.stat(order)["entries"] - KEPT_REPLIES, most)
        if spare <= 0:
            return
        oldest = int(time.time() * 1e6) - KEPT_FOR
        with txn.cursor(db=order) as cursor:
            more = cursor.first()
            while more and spare > 0:
                name = cursor.value()
                data = txn.get(name, db=replies)
                if data is not None and _REPLY.unpack(data)[-1] > oldest:
                    break
                if data is not None:
                    txn.delete(name, db=replies)
                more = cursor.delete() and cursor.key() != b""
                spare -= 1

    def records(self, after: int, until: int | None = None) -> Iterator[tuple[int, Record | None]]:
        """Records with numbers in (after, until], in order; None for one that is damaged.

        Damaged ones are moved into quarantine when they are met.
        """
        last = self.sequence if until is None else until
        at = after + 1
        while at <= last:
            found: list[tuple[int, bytes]] = []
            size = 0
            with _failures(), self._env.begin(db=self._dbs["log"]) as txn, txn.cursor() as cursor:
                more = cursor.set_range(_NUMBER.pack(at))
                while more and size < STEP:
                    number = _NUMBER.unpack(cursor.key())[0]
                    if number > last:
                        break
                    found.append((number, cursor.value()))
                    size += len(found[-1][1])
                    more = cursor.next()
            if not found:
                found = [(last + 1, b"")]
            for number, data in found:
                for lost in range(at, min(number, last + 1)):
                    self._quarantine(lost, b"", "is not there")
                    yield lost, None
                at = number + 1
                if number > last:
                    break
                try:
                    yield number, Record.from_bytes(data)
                except Damaged as error:
                    self._quarantine(number, data, str(error))
                    yield number, None

    def _quarantine(self, number: int, data: bytes, why: str) -> None:
        log.error("record %d of %s: %s; it is quarantined", number, self.directory, why)
        with contextlib.suppress(lmdb.Error), self._env.begin(write=True) as txn:
            txn.put(_NUMBER.pack(number), data, db=self._dbs["quarantine"])

    @property
    def n_quarantined(self) -> int:
        """Records that were found damaged."""
        with _failures(), self._env.begin() as txn:
            return int(txn.stat(self._dbs["quarantine"])["entries"])

    def delete_records(self, until: int) -> None:
        """Delete records up to a number."""
        with _failures():
            self._delete("log", _NUMBER.pack(until + 1))

    def _delete(self, name: str, end: bytes) -> None:
        """Delete the values whose keys come before an end, a few megabytes a transaction."""
        more = True
        while more:
            size = 0
            with self._env.begin(write=True) as txn, txn.cursor(db=self._dbs[name]) as cursor:
                more = cursor.first() and cursor.key() < end
                while more and size < 16 * STEP:
                    size += len(cursor.value())
                    more = cursor.delete() and b"" < cursor.key() < end

    # -- state -------------------------------------------------------------------------------------

    def write_state(self, about: dict[str, Any], write: Callable[[StateFile], None]) -> None:
        """Store the state that the monitors had at record `about["sequence"]`.

        `write` is handed a file to write it to. It comes to lie beside the old state, in small
        transactions, and takes its place in one.
        """
        with _failures():
            with self._env.begin(write=True) as txn:
                number = int(self._get(txn, "state_number") or 0) + 1
                self._put(txn, "state_number", number)
            file = StateFile(self._env, self._dbs["state"], number)
            write(file)
            n_chunks = file.finish()
            failpoint("checkpoint_after_write")
            with self._env.begin(write=True) as txn:
                self._put(txn, "checkpoint", {**about, "number": number, "chunks": n_chunks})
            failpoint("checkpoint_after_sync")
            # older ones, and ones that were never finished: those have lower numbers too
            self._delete("state", _PLACE.pack(number, 0))
        log.info("state at record %s stored", about["sequence"])

    def read_state(self) -> tuple[dict[str, Any], bytes] | None:
        """Read the stored state, None before the first.

        Raises
        ------
        Damaged
            When it is not what was written.
        """
        with _failures(), self._env.begin(db=self._dbs["state"]) as txn:
            about = self._get(txn, "checkpoint")
            if about is None:
                return None
            parts = []
            for place in range(about["chunks"]):
                data = txn.get(_PLACE.pack(about["number"], place))
                if data is None or google_crc32c.value(data[4:]) != int.from_bytes(
                    data[:4], "little"
                ):
                    raise Damaged(f"the stored state is damaged in part {place}")
                parts.append(data[4:])
        return about, b"".join(parts)

    @property
    def checkpointed(self) -> int:
        """Number of the last record in the stored state."""
        about = self.get("checkpoint")
        return 0 if about is None else int(about["sequence"])

    # -- the manifest of history files -------------------------------------------------------------

    @property
    def sealed(self) -> int:
        """Number of the last record that is in history files."""
        return int(self.get("sealed") or 0)

    def begin_history(self) -> None:
        """Let the history go on after records that were deleted while none was kept."""
        with (
            _failures(),
            self._env.begin(write=True) as txn,
            txn.cursor(db=self._dbs["log"]) as cursor,
        ):
            first = _NUMBER.unpack(cursor.key())[0] if cursor.first() else self.sequence + 1
            sealed = int(self._get(txn, "sealed") or 0)
            about = self._get(txn, "checkpoint")
            if about is not None and sealed < first - 1 <= about["sequence"]:
                log.warning("records %d to %d are in no history file", sealed + 1, first - 1)
                self._put(txn, "sealed", first - 1)

    def seal(self, until: int, files: Sequence[dict[str, Any]]) -> None:
        """Say that records up to a number are in these files."""
        with _failures(), self._env.begin(write=True) as txn:
            self._add_files(txn, files)
            self._put(txn, "sealed", until)
            failpoint("seal_after_manifest")

    def files(self) -> list[dict[str, Any]]:
        """History files, by path."""
        with _failures(), self._env.begin(db=self._dbs["manifest"]) as txn, txn.cursor() as cursor:
            return [json.loads(value) for value in cursor.iternext(keys=False, values=True)]

    def replace_files(self, removed: Sequence[str], added: Sequence[dict[str, Any]] = ()) -> None:
        """Strike history files from the manifest, others taking their place."""
        with _failures(), self._env.begin(write=True, db=self._dbs["manifest"]) as txn:
            for path in removed:
                txn.delete(path.encode())
            self._add_files(txn, added)

    def _add_files(self, txn: Any, files: Sequence[dict[str, Any]]) -> None:
        for file in files:
            txn.put(file["path"].encode(), json.dumps(file).encode(), db=self._dbs["manifest"])

    # -- room --------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Bring everything committed to the disk."""
        with _failures():
            self._env.sync(True)

    def probe(self) -> None:
        """Try a small write, as `commit` would do it.

        Raises
        ------
        JournalError
            When it fails.
        """
        with _failures():
            with self._env.begin(write=True) as txn:
                self._put(txn, "probe", time.time())
            self._env.sync(True)

    @property
    def n_bytes(self) -> int:
        """Bytes that are in use; the file keeps pages that are free again."""
        with _failures(), self._env.begin() as txn:
            stats = [txn.stat(db) for db in self._dbs.values()]
        pages = sum(
            stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] for stat in stats
        )
        return int(pages * self._env.stat()["psize"])

    def check_room(self, size: int) -> None:
        """Refuse what would not find room.

        Raises
        ------
        NoRoom
            When the limit or the end of the disk is too near.
        """
        if self.n_bytes + size > self.limit:
            raise NoRoom("JOURNAL_FULL", f"the journal has reached its limit of {self.limit} bytes")
        if self.free_bytes < self.min_free + size:
            raise NoRoom("DISK_FULL", f"the journal's disk has only {self.free_bytes} bytes left")

    @property
    def free_bytes(self) -> int:
        """Bytes that the disk has left."""
        return shutil.disk_usage(self.directory).free


class StateFile(io.RawIOBase):
    """A file whose bytes become values of the environment, a few megabytes a transaction."""

    def __init__(self, env: Any, db: Any, number: int) -> None:
        super().__init__()
        self._env = env
        self._db = db
        self._number = number
        self._count = 0
        self._waiting = bytearray()
        self.n_bytes = 0

    def writable(self) -> bool:
        """Whether it can be written to; it can."""
        return True

    def tell(self) -> int:
        """Not known: whoever writes takes it for a pipe."""
        raise io.UnsupportedOperation("tell")

    def write(self, data: Any) -> int:
        """Take bytes."""
        n = memoryview(data).nbytes
        self._waiting += data
        self.n_bytes += n
        if len(self._waiting) >= STEP:
            self._store()
        return n

    def finish(self) -> int:
        """Store what is left; the number of values."""
        self._store()
        return self._count

    def _store(self) -> None:
        with self._env.begin(write=True, db=self._db) as txn:
            for at in range(0, len(self._waiting), CHUNK):
                chunk = bytes(self._waiting[at : at + CHUNK])
                crc = struct.pack("<I", google_crc32c.value(chunk))
                txn.put(_PLACE.pack(self._number, self._count), crc + chunk)
                self._count += 1
        self._waiting.clear()


def _request_key(model: str, request_id: str) -> bytes:
    return f"{model}\0{request_id}".encode()


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Tell what LMDB says in our words."""
    try:
        yield
    except lmdb.Error as error:
        raise _failure(error) from None


def _failure(error: lmdb.Error) -> JournalError:
    text = str(error)
    if isinstance(error, lmdb.MapFullError):
        return JournalError("JOURNAL_FULL", "the journal has reached its limit")
    if isinstance(error, lmdb.CorruptedError | lmdb.PageNotFoundError | lmdb.InvalidError):
        return JournalError("JOURNAL_DAMAGED", f"the journal is damaged: {text}")
    if isinstance(error, lmdb.DiskError) or os.strerror(errno.ENOSPC) in text:
        return JournalError("DISK_FULL", "no space is left on the journal's disk")
    return JournalError("JOURNAL_FAILED", f"the journal cannot be written: {text}")
