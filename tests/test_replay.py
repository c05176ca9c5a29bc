"""Replay: recorded traffic in the order and at the pace of its own time, and nothing lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import SCHEMA, Caller, config, outcomes, predictions, reference_file

import tidegauge as tg
from tidegauge import cli
from tidegauge.replay import TICK, Recording, record, replay, speed_of
from tidegauge.server.config import ModelConfig
from tidegauge.server.serve import Server

SECOND = 1_000_000


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reference_file(tmp_path_factory.mktemp("reference"))


@pytest.fixture
def server(tmp_path: Path, reference: Path) -> Iterator[Server]:
    with Server(config(tmp_path, models={"flights": ModelConfig(reference)})) as running:
        yield running


def traffic(n: int) -> pa.Table:
    """Predictions with their labels, every tenth without; known some hours later."""
    rows = pa.Table.from_batches([predictions(n)])
    late = outcomes(n)["late"].to_numpy()
    rows = rows.append_column("late", pa.array(late, mask=np.arange(n) % 10 == 0))
    known = rows["time"].cast(pa.int64()).to_numpy() + np.arange(n) * 37 % 7 * 3600 * SECOND
    return rows.append_column("known", pa.array(known, pa.timestamp("us", tz="UTC")))


def plain(table: pa.Table) -> pa.Table:
    """The values of a table, however its dictionaries are cut."""
    texts = [pa.types.is_dictionary(field.type) for field in table.schema]
    columns = [
        column.cast(pa.string()) if text else column
        for column, text in zip(table.columns, texts, strict=True)
    ]
    return pa.table(columns, names=table.column_names)


def test_a_replay_counts_what_a_monitor_counts(server, reference):
    table = traffic(5_000)
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    heard: list[int] = []
    found = replay(
        shuffled,
        f"localhost:{server.port}",
        model="flights",
        label_time="known",
        batch_rows=500,
        tell=heard.append,
    )
    labelled = table.filter(pc.is_valid(table["late"]))
    monitor = tg.Monitor(tg.Reference.load(reference), model="flights")
    monitor.log(table.drop_columns(["late", "known"]))
    labels = labelled.select(["id", "late", "known"]).rename_columns(["id", "late", "time"])
    monitor.label(labels)
    assert found.lost == found.extra == 0
    assert found.account["predictions"] == found.predictions == 5_000
    assert found.account["matched_labels"] == found.labels == labelled.num_rows
    assert found.client.balanced
    assert found.client.delivered == 5_000 + labelled.num_rows
    assert heard[-1] == 5_000 + labelled.num_rows
    assert 0 < found.requests < found.client.requests  # the warm-up is not measured
    assert 0 < found.latency_ms["p50"] <= found.latency_ms["p99"] <= found.latency_ms["max"]
    names = ["psi", "roc_auc", "row_count"]
    served = Caller(f"127.0.0.1:{server.port}").metrics(*names)
    assert plain(served).equals(plain(monitor.metrics(names)))


def test_what_was_sent_before_is_lost_to_nobody(server):
    table = traffic(1_000)
    place = f"grpc://localhost:{server.port}"
    for _ in range(2):
        found = replay(table, place, model="flights", label_time="known", warm_up=0)
        assert found.lost == found.extra == 0
    assert found.account["duplicate_predictions"] == 1_000
    assert found.client.duplicates == 1_000 + found.account["duplicate"]


def test_a_pace_is_kept(server):
    table = traffic(1_000)  # an hour
    found = replay(table, f"localhost:{server.port}", model="flights", speed="7200x", warm_up=0)
    assert found.seconds >= 0.4
    assert found.lost == found.extra == 0
    assert found.behind >= 0


recordings = st.tuples(
    st.lists(st.integers(0, 50 * SECOND), min_size=1, max_size=40),
    st.lists(st.integers(0, 50 * SECOND), max_size=40),
)


@given(recordings, st.integers(1, 7), st.sampled_from([1.0, 10.0, 1000.0]))
def test_steps_are_the_recording_in_order(times, batch_rows, speed):
    made, known = (np.sort(np.array(each, np.int64)) for each in times)
    recording = Recording(pa.table({"t": made}), pa.table({"t": known}), made, known)
    for paced in (False, True):
        steps = list(recording.paced_steps(speed) if paced else recording.steps(batch_rows))
        for kind, whole in (("predictions", made), ("labels", known)):
            parts = [getattr(step, kind)["t"].to_numpy() for step in steps]
            assert np.concatenate(parts).tolist() == whole.tolist()
        first = min(times[0] + times[1])
        for step, after in zip(steps, [*steps[1:], None], strict=True):
            both = [*step.predictions["t"].to_pylist(), *step.labels["t"].to_pylist()]
            assert both
            if paced:  # all of a step have happened when it leaves, none long before
                assert all(
                    0 <= step.due - (t - first) / SECOND / speed <= TICK + 1e-9 for t in both
                )
            elif after is not None:  # a label leaves before whatever happened after it
                assert len(step.predictions) == batch_rows
                if step.labels.num_rows:
                    assert step.labels["t"][-1].as_py() <= after.predictions["t"][0].as_py()


def test_labels_may_be_a_table_of_their_own():
    table = traffic(100)
    labels = table.select(["id", "late", "known"]).filter(pc.is_valid(table["late"]))
    alone = record(table.drop_columns(["late", "known"]), SCHEMA, labels=labels, label_time="known")
    together = record(table, SCHEMA, label_time="known")
    assert alone.labels.equals(together.labels)
    assert alone.predictions.equals(together.predictions)


def test_the_time_of_labels_may_be_named_like_that_of_predictions():
    table = traffic(100)
    labels = table.select(["id", "late", "time"]).filter(pc.is_valid(table["late"]))
    taken = record(table.drop_columns(["late", "known"]), SCHEMA, labels=labels, label_time="time")
    assert "time" in taken.predictions.column_names
    assert taken.prediction_times[0] > 0
    with pytest.raises(tg.SchemaError, match="column 'time' is not there"):
        record(table, SCHEMA, labels=labels.drop_columns("time"))


@pytest.mark.parametrize(
    ("times", "problem"),
    [
        (pa.array([1, 2]), "holds int64"),
        (pa.array(["a", "b"]), "holds string"),
        (pa.nulls(2), "holds null"),
        (pa.array([None, 5], pa.timestamp("us", tz="UTC")), "1 rows without a time"),
        (pa.array([1_001, 5], pa.timestamp("ns", tz="UTC")), None),
        (pa.array([19_000, 19_001], pa.date32()), None),
    ],
)
def test_times_are_those_that_a_monitor_reads(times, problem):
    table = pa.table({"id": [1, 2], "time": times, "age": [1.0, 2.0], "late": [0, 1]})
    if problem is None:
        assert len(record(table, SCHEMA).predictions) == 2
        return
    with pytest.raises(tg.SchemaError, match=problem):
        record(table, SCHEMA)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"label_time": "landed"}, "column 'landed' is not there; there are: id, time"),
        ({"speed": "fast"}, "speed is 'max', or a number and an x"),
        ({"speed": "0x"}, "speed is 'max', or a number and an x"),
        ({"model": "trains"}, "no model 'trains'; it has: flights"),
        ({"warm_up": 1.0}, "warm_up is a share"),
        ({"schema": replace(SCHEMA, timestamp=None), "speed": "1x"}, "a pace goes by event time"),
    ],
)
def test_wrong_settings_are_refused(server, settings, problem):
    with pytest.raises(ValueError, match=problem):
        replay(traffic(10), f"localhost:{server.port}", **{"model": "flights", **settings})


def test_speeds_are_read():
    assert [speed_of(text) for text in ("max", "1x", "0.5x")] == [None, 1.0, 0.5]


def test_the_command(server, tmp_path, capsys):
    path = tmp_path / "traffic.parquet"
    pq.write_table(traffic(2_000), path)
    where = ["--target", f"grpc://localhost:{server.port}", "--model", "flights"]
    command = ["replay", str(path), *where, "--label-time", "known"]
    assert cli.main([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["predictions"], said["lost"], said["extra"]) == (2_000, 0, 0)
    assert said["client"]["delivered"] == said["predictions"] + said["labels"]
    assert cli.main([*command, "--batch-rows", "100"]) == 0
    shown = capsys.readouterr().out
    assert "rows/s" in shown
    assert "nothing lost" in shown
    assert cli.main(["replay", str(path), "--target", "localhost:1", "--model", "flights"]) == 2
    assert "UNAVAILABLE" in capsys.readouterr().err
