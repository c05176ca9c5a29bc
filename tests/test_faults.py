"""Faults in their short form; `make faults` runs the long one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from faults import send
from served import predictions, reference_file, until

from tidegauge.journal import COLUMNS, OUTCOMES, PREDICTIONS, Journal, JournalError, Record, Reply
from tidegauge.server import batches
from tidegauge.server.desk import Desk
from tidegauge.server.refused import Refused
from tidegauge.v1.admin_pb2 import PutModelRequest


def test_nothing_acknowledged_is_lost_or_counted_twice_by_kills() -> None:
    """200 kills: at random moments, and three at each named point; and flipped bits."""
    script = Path(__file__).parent / "faults.py"
    source = str(Path(__file__).parent.parent / "src")
    run = subprocess.run(
        [sys.executable, script, "--kills", "173", "--each", "3", "--flips", "100"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    assert "200 kills" in run.stdout


def open_desk(directory: Path, *, limit: int = 1 << 26, **settings: int) -> Desk:
    desk = Desk(Journal(directory / "data", limit=limit, durability="process"), **settings)
    asked = PutModelRequest(name="flights", reference=reference_file(directory).read_bytes())
    desk.put_model(asked).result()
    return desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    opened = open_desk(tmp_path)
    yield opened
    opened.close()


def refusal(answer) -> Refused:
    error = answer.exception(20)
    assert isinstance(error, Refused)
    return error


def test_a_commit_that_fails_counts_nothing_and_heals(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(desk, 0, PREDICTIONS).result()
    before = desk.models["flights"].monitor.account
    commit, calls = Journal.commit, []

    def fail_once(self, *group):
        calls.append(group)
        if len(calls) == 1:
            raise JournalError("JOURNAL_FAILED", "Input/output error")
        commit(self, *group)

    monkeypatch.setattr(Journal, "commit", fail_once)
    told = []
    desk.listen(lambda: told.append(desk.trouble is not None))
    error = refusal(send(desk, 1, PREDICTIONS))
    assert (error.code, error.reason) == ("UNAVAILABLE", "JOURNAL_FAILED")
    assert error.retry_after
    until(lambda: told and desk.trouble is None)
    assert desk.models["flights"].monitor.account == before
    answer = send(desk, 1, PREDICTIONS).result()
    assert (answer.accepted, answer.duplicates, answer.replayed) == (40, 0, False)
    assert told[0] is True


def test_an_error_while_counting_is_undone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    send(desk, 0, PREDICTIONS).result()
    monitor = desk.models["flights"].monitor
    label = monitor.label

    def half(batch):
        label(batch)
        raise MemoryError

    monkeypatch.setattr(monitor, "label", half)
    assert refusal(send(desk, 0, OUTCOMES)).code == "INTERNAL"
    until(lambda: desk.models["flights"].monitor is not monitor and desk.trouble is None)
    assert desk.models["flights"].monitor.account.labels == 0
    assert send(desk, 0, OUTCOMES).result().accepted == 40


def test_no_state_is_stored_of_what_was_not_committed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(desk, 0, PREDICTIONS).result()
    assert desk.checkpoint() == desk.journal.sequence

    def fail(*_: object) -> None:
        raise JournalError("JOURNAL_FAILED", "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "commit", fail)
        patch.setattr(Journal, "reopen", fail)
        assert refusal(send(desk, 1, PREDICTIONS)).reason == "JOURNAL_FAILED"
        with pytest.raises(JournalError) as caught:
            desk.checkpoint()
        assert caught.value.reason == "RECOVERING"
    until(lambda: desk.trouble is None and desk.models["flights"].monitor.account.predictions == 40)
    assert desk.checkpoint() == desk.journal.sequence
    assert send(desk, 1, PREDICTIONS).result().accepted == 40


@pytest.mark.parametrize("model_is_there", [True, False])
def test_records_that_cannot_be_counted_again_are_an_error_of_the_journal(
    tmp_path: Path, model_is_there: bool
) -> None:
    if model_is_there:
        open_desk(tmp_path).close()
    body = b"no columns" if model_is_there else batches.pack(predictions(1)).SerializeToString()
    record = Record(PREDICTIONS, COLUMNS, "flights", "", "r1", 0, 0, body)
    with Journal(tmp_path / "data", limit=1 << 26) as journal:
        journal.commit([(record, Reply(journal.sequence + 1, 0, 0, 1, 0, 0, 0))])
    for _ in range(2):  # the first one lets the directory go
        said = "not any more" if model_is_there else "the record that added the model is damaged"
        with pytest.raises(JournalError, match=f"'r1' .*{said}") as caught:
            Desk(Journal(tmp_path / "data", limit=1 << 26))
        assert caught.value.reason == "JOURNAL_FAILED"


def test_a_full_disk_refuses_with_a_reason_until_there_is_room(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(desk, 0, PREDICTIONS).result()
    monkeypatch.setattr(Journal, "free_bytes", 0)
    error = refusal(send(desk, 1, PREDICTIONS))
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "DISK_FULL")
    with pytest.raises(Refused, match="bytes left"):
        send(desk, 2, PREDICTIONS)
    assert desk.models["flights"].monitor.account.predictions == 40
    monkeypatch.undo()
    until(lambda: desk.trouble is None)
    assert send(desk, 1, PREDICTIONS).result().accepted == 40


def test_a_full_journal_empties_itself(tmp_path: Path) -> None:
    desk = open_desk(tmp_path, limit=1 << 20)
    body = batches.pack(predictions(40)).SerializeToString()
    refused, duplicates = [], 0
    for number in range(1200):  # the same rows: the journal grows, and the state does not

        def write(name: str = f"r{number}") -> Future:
            return desk.write(PREDICTIONS, "flights", name, encoding=COLUMNS, body=body)

        while (error := write().exception()) is not None:
            refused.append(error.reason)
            until(lambda: desk.trouble is None)
        duplicates += write().result().duplicates
    assert set(refused) == {"JOURNAL_FULL"}
    assert duplicates == 1199 * 40
    assert desk.models["flights"].monitor.account.predictions == 40
    desk.close()


def test_the_queue_is_bounded_by_bytes(desk: Desk) -> None:
    desk.in_flight_bytes = 20_000
    accepted, rejected = [], []
    with desk._turn:  # nothing is written meanwhile
        for number in range(60):
            try:
                accepted.append(send(desk, number, PREDICTIONS))
            except Refused as error:
                rejected.append(error)
    assert {(error.code, error.reason) for error in rejected} == {
        ("RESOURCE_EXHAUSTED", "BACK_PRESSURE")
    }
    assert all(error.retry_after for error in rejected)
    assert sum(answer.result().accepted for answer in accepted) == 40 * (60 - len(rejected))
    assert desk.refused["flights", "BACK_PRESSURE"] == len(rejected)
