"""Parquet history: everything accepted, exactly once, for other readers too."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from faults import send
from served import predictions, reference_file

from tidegauge.history import Rules
from tidegauge.journal import COLUMNS, FORGET, OUTCOMES, PREDICTIONS, Journal, JournalError
from tidegauge.server import batches
from tidegauge.server.desk import Desk
from tidegauge.v1.admin_pb2 import PutModelRequest


def open_desk(directory: Path, *, kept: bool = True, **rules: Any) -> Desk:
    desk = Desk(Journal(directory / "data", limit=1 << 28, durability="process"))
    if kept:
        desk.open_history(directory / "history", Rules(**rules))
    if "flights" not in desk.models:
        asked = PutModelRequest(name="flights", reference=reference_file(directory).read_bytes())
        desk.put_model(asked).result()
    return desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    opened = open_desk(tmp_path)
    yield opened
    opened.close()


def write(desk: Desk, request_id: str, rows: pa.RecordBatch, kind: int = PREDICTIONS) -> int:
    body = batches.pack(rows).SerializeToString()
    return desk.write(kind, "flights", request_id, encoding=COLUMNS, body=body).result().accepted


def rows_of(directory: Path, kind: str = "predictions") -> pl.DataFrame:
    files = directory / "history" / "**" / f"kind={kind}" / "**" / "*.parquet"
    return pl.read_parquet(files, hive_partitioning=True)


def test_files_hold_the_rows_as_they_came(desk: Desk, tmp_path: Path) -> None:
    for number in range(60):
        send(desk, number, PREDICTIONS).result()
        send(desk, number, OUTCOMES).result()
    assert desk.seal() == 2 * 60 * 40
    found = rows_of(tmp_path).sort("id")
    sent = predictions(60 * 40)
    for name in ("id", "age", "plan", "score", "version"):
        assert found[name].to_list() == sent[name].to_pylist()
    assert found["date"].to_list() == [moment.date() for moment in sent["time"].to_pylist()]
    assert len(set(found["date"])) > 1
    files = f"{tmp_path}/history/*/*/*/*.parquet"
    counts = duckdb.sql(
        f"select kind, count(*), count(distinct id) from read_parquet('{files}', "
        "hive_partitioning=true, union_by_name=true) group by kind order by kind"
    ).fetchall()
    assert counts == [("outcomes", 2400, 2400), ("predictions", 2400, 2400)]


def test_nothing_is_sealed_twice(desk: Desk, tmp_path: Path) -> None:
    send(desk, 0, PREDICTIONS).result()
    assert (desk.seal(), desk.seal()) == (40, 0)
    desk.checkpoint()
    assert list(desk.journal.records(desk.journal.sealed)) == []
    send(desk, 1, PREDICTIONS).result()
    desk.close()
    again = open_desk(tmp_path)
    assert again.seal() == 40
    assert sorted(rows_of(tmp_path)["id"]) == list(range(80))
    again.close()


def test_what_was_never_finished_is_deleted_at_the_start(desk: Desk, tmp_path: Path) -> None:
    send(desk, 0, PREDICTIONS).result()
    desk.seal()
    (path,) = (tmp_path / "history").rglob("*.parquet")
    stray = path.with_name("stray.parquet")
    stray.write_bytes(path.read_bytes())
    desk.close()
    open_desk(tmp_path).close()
    assert path.exists()
    assert not stray.exists()


def test_a_file_that_is_there_is_never_written_over(desk: Desk, tmp_path: Path) -> None:
    send(desk, 0, PREDICTIONS).result()
    day = predictions(1)["time"][0].as_py().date()
    folder = tmp_path / "history" / "model=flights" / "kind=predictions" / f"date={day}"
    folder.mkdir(parents=True)
    taken = folder / f"{1:012}-{2:012}-0.parquet"
    taken.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        desk.seal()
    assert taken.read_bytes() == b"mine"
    taken.unlink()
    assert desk.seal() == 40


def test_forgotten_ids_leave_the_files_too(desk: Desk, tmp_path: Path) -> None:
    send(desk, 0, PREDICTIONS).result()
    send(desk, 0, OUTCOMES).result()
    desk.seal()
    send(desk, 1, PREDICTIONS).result()
    rows = pa.record_batch({"id": pa.array([3, 41], pa.int64())})
    assert write(desk, "d1", rows, FORGET) == 2
    assert write(desk, "again", predictions(1, first=3)) == 1  # anew: this row is another one
    desk.seal()
    assert sorted(rows_of(tmp_path)["id"]) == sorted({*range(80)} - {41})
    assert sorted(rows_of(tmp_path, "outcomes")["id"]) == [i for i in range(40) if i != 3]
    known = {file["path"] for file in desk.journal.files()}
    there = (tmp_path / "history").rglob("*.parquet")
    assert {path.relative_to(tmp_path / "history").as_posix() for path in there} == known


@pytest.mark.parametrize("method", ["seal", "replace_files"])
def test_a_seal_that_fails_leaves_no_row_twice(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    send(desk, 0, PREDICTIONS).result()
    desk.seal()
    send(desk, 1, PREDICTIONS).result()
    write(desk, "d1", pa.record_batch({"id": pa.array([3, 41], pa.int64())}), FORGET)

    def fail(*_: object) -> None:
        raise JournalError("JOURNAL_FAILED", "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, method, fail)
        with pytest.raises(JournalError):
            desk.seal()
    assert set(rows_of(tmp_path)["id"]) >= {*range(40)} - {3}
    assert rows_of(tmp_path)["id"].is_unique().all()
    send(desk, 2, PREDICTIONS).result()
    desk.seal()
    assert sorted(rows_of(tmp_path)["id"]) == sorted({*range(120)} - {3, 41})


def test_ids_of_another_type_are_forgotten_where_they_are_the_same(
    desk: Desk, tmp_path: Path
) -> None:
    rows = predictions(40)
    narrow = rows.set_column(0, "id", rows["id"].cast(pa.int32()))
    write(desk, "narrow", narrow)
    write(desk, "d1", pa.record_batch({"id": pa.array([3, 5_000_000_000], pa.int64())}), FORGET)
    desk.seal()
    assert sorted(rows_of(tmp_path)["id"]) == sorted({*range(40)} - {3})


def test_old_files_go_by_age_and_by_bytes(tmp_path: Path) -> None:
    desk = open_desk(tmp_path, keep_for=1e9)
    send(desk, 0, PREDICTIONS).result()
    send(desk, 600, PREDICTIONS).result()  # a day later
    desk.seal()
    files = desk.journal.files()
    dates = sorted(file["date"] for file in files)
    assert date.fromisoformat(dates[1]) - date.fromisoformat(dates[0]) == timedelta(days=1)
    desk.close()
    desk = open_desk(tmp_path, keep_bytes=max(file["bytes"] for file in files) + 10)
    desk.seal()
    assert [file["date"] for file in desk.journal.files()] == dates[1:]
    desk.close()
    desk = open_desk(tmp_path, keep_for=86_400.0)
    desk.seal()
    assert desk.journal.files() == []
    assert not list((tmp_path / "history").rglob("*.parquet"))
    desk.close()


def test_a_history_can_begin_later(tmp_path: Path) -> None:
    desk = open_desk(tmp_path, kept=False)
    send(desk, 0, PREDICTIONS).result()
    desk.close()  # stores the state; its records go
    desk = open_desk(tmp_path)
    send(desk, 1, PREDICTIONS).result()
    desk.seal()
    assert sorted(rows_of(tmp_path)["id"]) == list(range(40, 80))
    assert desk.journal.n_quarantined == 0
    desk.close()


def test_rows_of_several_shapes_go_to_several_files(desk: Desk) -> None:
    send(desk, 0, PREDICTIONS).result()
    assert write(desk, "x", predictions(5, first=100).drop_columns(["plan"])) == 5
    assert desk.seal() == 45
    assert sorted(file["rows"] for file in desk.journal.files()) == [5, 40]
