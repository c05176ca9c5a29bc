"""The journal alone: what it keeps, what it refuses, what it does when it is damaged or full."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegauge import journal as journal_module
from tidegauge.journal import (
    COLUMNS,
    PREDICTIONS,
    Damaged,
    Journal,
    JournalError,
    NoRoom,
    Record,
    Reply,
)


def record(name: str, body: bytes = b"rows") -> Record:
    return Record(PREDICTIONS, COLUMNS, "flights", "v1", name, 5, 0, body)


def reply(sequence: int, received: int = 5) -> Reply:
    return Reply(sequence, 1, 4, 10, 2, 1, received)


def group(first: int, n: int, body: bytes = b"rows") -> list[tuple[Record, Reply]]:
    return [(record(f"r{i}", body), reply(i)) for i in range(first, first + n)]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path, limit=1 << 24, durability="process") as opened:
        yield opened


def test_what_is_committed_is_read_back(journal: Journal, tmp_path: Path) -> None:
    journal.commit(group(1, 3))
    journal.close()
    with Journal(tmp_path, limit=1 << 24) as again:
        assert again.sequence == 3
        assert [found.request_id for _, found in again.records(0) if found] == ["r1", "r2", "r3"]
        assert [number for number, _ in again.records(1)] == [2, 3]
        assert again.find("flights", "r2") == reply(2)
        assert again.find("trains", "r2") is None


@given(st.integers(0, 100_000), st.integers(0, 7))
def test_a_record_with_any_bit_flipped_is_damaged(place: int, bit: int) -> None:
    data = bytearray(record("r1", bytes(range(256))).to_bytes())
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(Damaged):
        Record.from_bytes(bytes(data))


@pytest.mark.parametrize("length", range(0, 40, 3))
def test_a_torn_record_is_damaged(length: int) -> None:
    with pytest.raises(Damaged):
        Record.from_bytes(record("r1").to_bytes()[:length])


def test_damaged_and_missing_records_are_quarantined(journal: Journal) -> None:
    journal.commit(group(1, 5))
    with journal._env.begin(write=True, db=journal._dbs["log"]) as txn:
        key = (2).to_bytes(8, "big")
        txn.put(key, txn.get(key)[:-1] + b"?")
        txn.delete((4).to_bytes(8, "big"))
        txn.delete((5).to_bytes(8, "big"))
    found = list(journal.records(0))
    assert [number for number, _ in found] == [1, 2, 3, 4, 5]
    assert [number for number, entry in found if entry is None] == [2, 4, 5]
    assert journal.n_quarantined == 3


def test_sequences_are_never_used_again(journal: Journal, tmp_path: Path) -> None:
    journal.commit(group(1, 3))
    journal.delete_records(3)
    with pytest.raises(ValueError, match="record 1 after record 3"):
        journal.commit(group(1, 1))
    journal.close()
    with Journal(tmp_path, limit=1 << 24) as again:
        assert again.sequence == 3
        again.commit(group(4, 1))


def test_one_process_at_a_time(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="another server"):
        Journal(tmp_path, limit=1 << 24)
    code = f"from tidegauge.journal import Journal; Journal({str(tmp_path)!r}, limit=1 << 24)"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert "another server" in other.stderr


def test_a_later_format_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "FORMAT", 99)
        Journal(tmp_path, limit=1 << 24).close()
    with pytest.raises(JournalError, match="written in format 99, this version reads 1") as caught:
        Journal(tmp_path, limit=1 << 24)
    assert caught.value.reason == "JOURNAL_FORMAT"
    assert "\n" not in str(caught.value)


def test_a_full_journal_says_so_and_has_room_to_be_emptied(tmp_path: Path) -> None:
    with Journal(tmp_path, limit=1 << 20, durability="process") as journal:
        body = bytes(100_000)
        n = 8
        for number in range(1, n + 1):
            journal.check_room(len(body))
            journal.commit(group(number, 1, body))
        with pytest.raises(NoRoom, match="limit") as caught:
            journal.check_room(3 * len(body))
        assert caught.value.reason == "JOURNAL_FULL"
        journal.write_state({"sequence": n}, lambda file: file.write(bytes(200_000)))
        journal.delete_records(n)
        journal.check_room(len(body))
        assert journal.checkpointed == n


def test_a_map_that_is_full_fails_the_whole_group(tmp_path: Path) -> None:
    with Journal(tmp_path, limit=1 << 19, durability="process") as journal:
        with pytest.raises(JournalError) as caught:
            journal.commit(group(1, 64, bytes(100_000)))
        assert caught.value.reason == "JOURNAL_FULL"
        assert (journal.sequence, list(journal.records(0))) == (0, [])
        journal.commit(group(1, 1))


def test_a_state_takes_the_place_of_the_one_before(journal: Journal) -> None:
    assert journal.read_state() is None
    for size in (5_000_000, 3, 9_000_000):
        data = bytes([size % 251]) * size
        journal.write_state({"sequence": size}, lambda file, data=data: file.write(data))
        stored = journal.read_state()
        assert stored is not None
        assert (stored[0]["sequence"], stored[1] == data) == (size, True)
    with journal._env.begin() as txn:
        assert txn.stat(journal._dbs["state"])["entries"] == stored[0]["chunks"]


def test_a_damaged_state_is_not_believed(journal: Journal) -> None:
    journal.write_state({"sequence": 1}, lambda file: file.write(b"state"))
    with journal._env.begin(write=True, db=journal._dbs["state"]) as txn:
        key, value = next(iter(txn.cursor()))
        txn.put(key, value[:-1] + b"?")
    with pytest.raises(Damaged):
        journal.read_state()


def test_replies_are_forgotten_by_number_and_age(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "KEPT_REPLIES", 10)
    for first in range(1, 60, 3):
        journal.commit(group(first, 3))  # received in 1970
    assert journal.find("flights", "r1") is None
    assert journal.find("flights", "r60") == reply(60)
    with journal._env.begin() as txn:
        assert txn.stat(journal._dbs["replies"])["entries"] == 10
    late = 4_000_000_000_000_000
    for first in range(61, 120, 3):
        journal.commit([(record(f"s{i}"), reply(i, late)) for i in range(first, first + 3)])
    assert journal.find("flights", "r60") is None
    assert journal.find("flights", "s61") == reply(61, late)


def test_errors_of_the_disk_have_names() -> None:
    for error, reason in (
        (lmdb.MapFullError("full"), "JOURNAL_FULL"),
        (lmdb.DiskError("full"), "DISK_FULL"),
        (lmdb.Error("mdb_txn_commit: Input/output error"), "JOURNAL_FAILED"),
        (lmdb.CorruptedError("page"), "JOURNAL_DAMAGED"),
    ):
        assert journal_module._failure(error).reason == reason


def test_marks_fail_in_the_words_of_the_journal(journal: Journal) -> None:
    journal.commit([], {b"a\0x": b"1", b"b\0x": b"2"})
    assert journal.marks(b"a") == {b"a\0x": b"1"}
    journal._env.close()
    with pytest.raises(JournalError):
        journal.marks(b"a")
