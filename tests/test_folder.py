"""A folder of Parquet files: each row counted once, whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from served import config, outcomes, predictions, reference_file, server_process, until

import tidegauge as tg
from tidegauge.journal import JournalError
from tidegauge.server import folder as door
from tidegauge.server.config import ConfigError, Folder, ModelConfig
from tidegauge.server.serve import Server


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reference_file(tmp_path_factory.mktemp("reference"))


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    path = tmp_path / "incoming"
    path.mkdir()
    return path


@contextmanager
def serving(directory: Path, reference: Path, **settings: Any) -> Iterator[Server]:
    """A server that looks into a folder."""
    folder = Folder(directory / "incoming", "flights", **{"every": "1s", **settings})
    models = {"flights": ModelConfig(reference)}
    with Server(config(directory, models=models, folders={"nightly": folder})) as running:
        yield running


def account(server: Server) -> Mapping[str, int]:
    return server.desk.models["flights"].monitor.account.to_dict()


def counts(server: Server) -> Mapping[str, int]:
    return server.doors["folders.nightly"].counts


def look_again(server: Server) -> None:
    """Wait until it has looked into the folder from now on."""
    before = counts(server)["looks"]
    until(lambda: counts(server)["looks"] >= before + 2)


def drop(path: Path, rows: pa.RecordBatch, **settings: Any) -> None:
    """Write a file elsewhere and move it in, as the rule is."""
    aside = path.with_name(f".{path.name}")
    parquet.write_table(pa.Table.from_batches([rows]), aside, **settings)
    aside.rename(path)


def test_files_are_counted_as_a_monitor_counts_them(
    tmp_path: Path, incoming: Path, reference: Path
) -> None:
    monitor = tg.Monitor(tg.Reference.load(reference), model="flights")
    for place in range(3):
        rows, labels = predictions(1000, first=1000 * place), outcomes(700, first=1000 * place)
        drop(incoming / f"predictions-{place}.parquet", rows, row_group_size=300)
        drop(incoming / f"outcomes-{place}.parquet", labels)
        monitor.log(rows)
    for place in range(3):
        monitor.label(outcomes(700, first=1000 * place))
    with serving(tmp_path, reference) as server:
        until(lambda: counts(server)["files"] == 6)
        assert account(server) == monitor.account.to_dict()
        assert server.desk.models["flights"].monitor.metrics().equals(monitor.metrics())


def test_a_file_is_read_once_and_again_when_it_changes(
    tmp_path: Path, incoming: Path, reference: Path
) -> None:
    path = incoming / "predictions.parquet"
    drop(path, predictions(100))
    for _ in range(2):
        with serving(tmp_path, reference) as server:
            look_again(server)
            assert account(server)["predictions"] == 100
    drop(path, predictions(150))
    with serving(tmp_path, reference) as server:
        until(lambda: account(server)["predictions"] == 150)
        assert account(server)["duplicate_predictions"] == 100
        path.unlink()
        until(lambda: counts(server)["files"] == 1)
        look_again(server)
        assert not server.desk.journal.marks(b"folder")


def test_a_folder_that_is_away_for_a_while_is_not_read_again(
    tmp_path: Path, incoming: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(incoming / "predictions.parquet", predictions(100))
    with serving(tmp_path, reference) as server:
        until(lambda: counts(server)["files"] == 1)
        aside = incoming.rename(tmp_path / "aside")
        look_again(server)
        aside.rename(incoming)
        look_again(server)
        asked = []
        stat = Path.stat

        def fail_once(self: Path, **settings: Any) -> Any:
            if self.name == "predictions.parquet":
                asked.append(self)
                if len(asked) == 1:
                    raise PermissionError("not now")
            return stat(self, **settings)

        monkeypatch.setattr(Path, "stat", fail_once)
        until(lambda: len(asked) > 2)
        look_again(server)
        assert counts(server)["files"] == 1
        assert account(server)["duplicate_predictions"] == 0


def test_what_is_too_large_for_the_server_is_cut(
    tmp_path: Path, incoming: Path, reference: Path
) -> None:
    storage = replace(config(tmp_path).storage, in_flight="64KiB")
    folders = {"nightly": Folder(incoming, "flights", every="1s")}
    models = {"flights": ModelConfig(reference)}
    drop(incoming / "predictions.parquet", predictions(5000))
    with Server(config(tmp_path, models=models, folders=folders, storage=storage)) as server:
        until(lambda: counts(server)["files"] == 1)
        assert (account(server)["predictions"], counts(server)["refused"]) == (5000, 0)
        assert server.desk.refused["flights", "TOO_LARGE"] > 0


def test_half_written_files_are_left_alone(tmp_path: Path, incoming: Path, reference: Path) -> None:
    drop(incoming / "predictions.parquet", predictions(100))
    whole = (incoming / "predictions.parquet").read_bytes()
    half = incoming / "predictions-half.parquet"
    half.write_bytes(whole[:-100])
    for name in (".predictions.parquet", "_predictions.parquet", "predictions.txt"):
        (incoming / name).write_bytes(whole)
    with serving(tmp_path, reference) as server:
        until(lambda: counts(server)["files"] == 1)
        assert (account(server)["predictions"], counts(server)["broken"]) == (100, 1)
        look_again(server)
        assert counts(server)["broken"] == 1
        drop(half, predictions(100, first=100))
        look_again(server)
        assert account(server)["predictions"] == 200
        assert not server.doors["folders.nightly"]._broken


def test_faulty_rows_do_not_take_others_with_them(
    tmp_path: Path, incoming: Path, reference: Path
) -> None:
    rows = predictions(1000)
    scores = rows["score"].to_pylist()
    for row in (0, 17, 400, 401, 999):
        scores[row] = 7.0
    place = rows.schema.get_field_index("score")
    drop(incoming / "predictions.parquet", rows.set_column(place, "score", pa.array(scores)))
    with serving(tmp_path, reference) as server:
        until(lambda: counts(server)["files"] == 1)
        assert (counts(server)["rows"], counts(server)["refused"]) == (995, 5)
        assert account(server)["predictions"] == 995
        assert b'"rows": 1000' in next(iter(server.desk.journal.marks(b"folder").values()))


def test_a_file_of_nothing_but_faults_is_given_up(
    tmp_path: Path, incoming: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "MAX_FAULTY", 10)
    monkeypatch.setattr(door, "MAX_ROWS", 50)
    rows = predictions(1000)
    place = rows.schema.get_field_index("score")
    faulty = rows.set_column(place, "score", pa.array([7.0] * 1000))
    drop(incoming / "predictions.parquet", faulty)
    with serving(tmp_path, reference) as server:
        until(lambda: counts(server)["files"] == 1)
        assert (counts(server)["rows"], counts(server)["refused"]) == (0, 1000)


def test_a_journal_that_cannot_be_written_is_waited_for(
    tmp_path: Path, incoming: Path, reference: Path
) -> None:
    with serving(tmp_path, reference) as server:
        server.desk.trouble = JournalError("DISK_FULL", "no space")
        drop(incoming / "predictions.parquet", predictions(100))
        until(lambda: server.desk.refused["flights", "DISK_FULL"] > 0)
        server.desk.trouble = None
        until(lambda: account(server)["predictions"] == 100)


def test_a_killed_server_goes_on_at_the_right_row(
    tmp_path: Path, incoming: Path, reference: Path
) -> None:
    """Killed again and again within one file: no row lost, none counted twice."""
    drop(incoming / "predictions.parquet", predictions(5000), row_group_size=100)
    written = tmp_path / "tidegauge.toml"
    written.write_text(
        f"""
        [storage]
        journal = "256MiB"
        min_free = "0"
        durability = "process"
        [folders.nightly]
        path = "{incoming}"
        model = "flights"
        """
    )
    points = ["commit_after_write:7", "commit_after_sync:9", "reply:5", "commit_before:11"]
    for point in points:
        flag = f"--config={written}"
        with server_process(tmp_path, flag, env={"TIDEGAUGE_FAILPOINT": point}) as process:
            assert process.wait() == -9
    with serving(tmp_path, reference_file(tmp_path)) as server:
        until(lambda: counts(server)["files"] == 1)
        found = account(server)
        assert (found["predictions"], found["duplicate_predictions"]) == (5000, 0)
        assert 0 < counts(server)["rows"] < 5000


def test_memory_is_bounded_by_a_row_group(tmp_path: Path) -> None:
    drop(tmp_path / "x.parquet", predictions(1000), row_group_size=400)
    with parquet.ParquetFile(tmp_path / "x.parquet") as file:
        for done in (0, 1, 399, 400, 401, 950, 1000):
            found = list(door._batches(file, ["id"], 150, done))
            assert all(rows.num_rows <= 150 for _, rows in found)
            ids = [id_ for _, rows in found for id_ in rows["id"].to_pylist()]
            assert ids == list(range(done, 1000))
            assert all(rows["id"][0].as_py() == first for first, rows in found)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": Path("nowhere")}, "is no folder"),
        ({"model": "none"}, "no model"),
    ],
)
def test_a_door_that_leads_nowhere_is_told(
    tmp_path: Path, incoming: Path, reference: Path, settings: dict[str, Any], message: str
) -> None:
    folder = Folder(**{"path": incoming, "model": "flights", **settings})
    models = {"flights": ModelConfig(reference)}
    given = config(tmp_path, models=models, folders={"nightly": folder})
    with pytest.raises(ConfigError, match=message):
        Server(given)
    with pytest.raises(ConfigError, match="no pattern"):
        Folder(incoming, "flights", predictions="../*")
    with Server(config(tmp_path, models=models)):
        pass
