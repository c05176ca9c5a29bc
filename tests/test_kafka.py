"""Topics of Kafka, on librdkafka's own mock of a cluster: each message counted once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka
import pyarrow as pa
import pytest
from served import (
    config,
    outcomes,
    predictions,
    reference_file,
    server_process,
    until,
    write_predictions,
)

import tidegauge as tg
from tidegauge.journal import Journal, JournalError
from tidegauge.server import batches, kafka
from tidegauge.server.config import ConfigError, Kafka, ModelConfig
from tidegauge.server.kafka import KafkaDoor
from tidegauge.server.serve import Server


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reference_file(tmp_path_factory.mktemp("reference"))


class Cluster:
    """Brokers in this process, and a producer for them."""

    def __init__(self) -> None:
        self.producer = confluent_kafka.Producer(
            {"test.mock.num.brokers": 1, "bootstrap.servers": "", "log_level": 0}
        )
        brokers = self.producer.list_topics(timeout=10).brokers.values()
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def put(self, topic: str, *values: bytes | None, partition: int = 0) -> None:
        """Send messages, and wait until they are there."""
        for value in values:
            self.producer.produce(topic, value, partition=partition)
        assert self.producer.flush(20) == 0


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


OPTIONS = {
    "sess" + "ion.timeout.ms": "6000",
    "topic.metadata.refresh.interval.ms": "500",
    "fetch.wait.max.ms": "20",
    "heartbeat.interval.ms": "200",
}


@contextmanager
def serving(
    directory: Path, reference: Path, cluster: Cluster, **settings: Any
) -> Iterator[Server]:
    """A server that reads both topics; partitions 0 and 1 unless a group shares them."""
    topics = {"predictions": "made", "outcomes": "known", "partitions": (0, 1)}
    given = {**topics, "options": OPTIONS, **settings}
    kafka = {"flights": Kafka(cluster.servers, "flights", **given)}
    models = {"flights": ModelConfig(reference)}
    with Server(config(directory, models=models, kafka=kafka)) as running:
        yield running


def account(server: Server) -> Mapping[str, int]:
    return server.desk.models["flights"].monitor.account.to_dict()


def counts(server: Server) -> Mapping[str, int]:
    return server.doors["kafka.flights"].counts


def as_json(batch: pa.RecordBatch) -> list[bytes]:
    """A message a row."""
    rows = batch.to_pylist()
    for row in rows:
        if "time" in row:
            row["time"] = row["time"].isoformat()
    return [json.dumps(row).encode() for row in rows]


def as_arrow(batch: pa.RecordBatch) -> list[bytes]:
    return [batches.stream_of([batch], batch.schema)]


def as_protobuf(batch: pa.RecordBatch) -> list[bytes]:
    return [write_predictions(batch).SerializeToString()]  # same fields in both kinds of request


FORMATS = {"json": as_json, "arrow": as_arrow}


@pytest.mark.parametrize("form", list(FORMATS))
def test_messages_are_counted_as_a_monitor_counts_them(
    tmp_path: Path, reference: Path, cluster: Cluster, form: str
) -> None:
    monitor = tg.Monitor(tg.Reference.load(reference), model="flights")
    for place in range(4):
        rows, labels = predictions(50, first=50 * place), outcomes(30, first=50 * place)
        cluster.put("made", *FORMATS[form](rows), partition=place % 2)
        cluster.put("known", *FORMATS[form](labels), partition=place % 2)
        monitor.log(rows)
    for place in range(4):
        monitor.label(outcomes(30, first=50 * place))
    with serving(tmp_path, reference, cluster, format=form) as server:
        until(lambda: counts(server)["rows"] == 320)
        found, wanted = account(server), monitor.account.to_dict()
        for name in ("predictions", "labels", "pending", "matched"):  # labels may come early
            assert found[name] == wanted[name]


def test_requests_of_the_protocol_are_understood(
    tmp_path: Path, reference: Path, cluster: Cluster
) -> None:
    sent = write_predictions(predictions(100, version=None), model_version="v9")
    cluster.put("made", sent.SerializeToString(), b"\xff\xff", b"")
    with serving(tmp_path, reference, cluster, format="protobuf", outcomes="") as server:
        until(lambda: counts(server)["refused"] == 2)
        until(lambda: account(server)["predictions"] == 100)
        windows = server.desk.models["flights"].monitor.windows()
        assert set(windows["version"].to_pylist()) == {"v9"}


def test_a_message_that_cannot_be_read_stops_nobody(
    tmp_path: Path, reference: Path, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    good = as_json(predictions(20))
    faulty = json.loads(good[5])
    faulty |= {"score": 7.0, "id": 1000}
    poison = [b"{", None, b"[]", json.dumps(faulty).encode(), b'{"unknown": 1}']
    cluster.put("made", *good[:10], *poison, *good[10:], b"\xff")
    with serving(tmp_path, reference, cluster) as server:
        until(lambda: counts(server)["refused"] == 6)
        until(lambda: account(server)["predictions"] == 20)
        assert server.desk.journal.marks(b"kafka") == {b"kafka\0flights\0made\x000": b"26"}
        cluster.put("made", *as_json(predictions(1, first=20)))
        until(lambda: account(server)["predictions"] == 21)
        assert server.desk.models["flights"].dropped == 6
        told = [record.getMessage() for record in caplog.records if "refused" in record.message]
        assert [offset for offset in range(26) if f"offset {offset} is" in " ".join(told)] == [
            *range(10, 15),
            25,
        ]


def test_a_refused_message_is_counted_once(
    tmp_path: Path, reference: Path, cluster: Cluster
) -> None:
    """By the door what it cannot read, by the desk what cannot be counted."""
    faulty = {"id": 1, "score": 7.0, "time": "2024-05-01T00:00:00Z", "age": 3, "plan": "pro"}
    cluster.put("made", b"{")
    cluster.put("made", json.dumps(faulty).encode(), partition=1)
    with serving(tmp_path, reference, cluster) as server:
        until(lambda: counts(server)["refused"] == 2)
        found = server.desk.refused
        assert found == {("flights", "NOT_JSON"): 1, ("flights", "INVALID_ROWS"): 1}


def test_offsets_are_those_of_the_journal(
    tmp_path: Path, reference: Path, cluster: Cluster
) -> None:
    """Whatever the brokers remember: the group's offsets go back to the start in between."""
    cluster.put("made", *as_json(predictions(40)))
    with serving(tmp_path, reference, cluster, partitions=()) as server:
        until(lambda: account(server)["predictions"] == 40)
    settings = {"bootstrap.servers": cluster.servers, "group.id": "tidegauge", **OPTIONS}
    consumer = confluent_kafka.Consumer(settings)
    consumer.subscribe(["made"])
    until(lambda: consumer.poll(0.1) or consumer.assignment())
    place = confluent_kafka.TopicPartition("made", 0, 3)
    consumer.commit(offsets=[place], asynchronous=False)
    consumer.close()
    cluster.put("made", *as_json(predictions(20, first=40)))
    with serving(tmp_path, reference, cluster, partitions=()) as server:
        until(lambda: counts(server)["rows"] == 20)
        found = account(server)
        assert (found["predictions"], found["duplicate_predictions"]) == (60, 0)


def test_partitions_are_shared_and_handed_over(
    tmp_path: Path, reference: Path, cluster: Cluster
) -> None:
    """Two servers of one group; the second begins where the first had told the brokers it was."""
    for partition in range(4):
        cluster.put("made", *as_json(predictions(25, first=25 * partition)), partition=partition)
    with serving(tmp_path / "a", reference, cluster, partitions=()) as first:
        until(lambda: account(first)["predictions"] == 100)
        with serving(tmp_path / "b", reference, cluster, partitions=()) as second:
            sent = 100
            while not account(second)["predictions"]:
                for partition in range(4):
                    row = as_json(predictions(1, first=1000 + sent))
                    cluster.put("made", *row, partition=partition)
                    sent += 1
                until(lambda sent=sent: both(first, second, "predictions") >= sent)
            # No more than the last message of a partition comes to both of them.
            assert sent <= both(first, second, "predictions") <= sent + 4
            assert both(first, second, "duplicate_predictions") == 0


def both(first: Server, second: Server, name: str) -> int:
    """What two servers have counted."""
    return account(first)[name] + account(second)[name]


def test_a_journal_that_cannot_be_written_is_waited_for(
    tmp_path: Path, reference: Path, cluster: Cluster
) -> None:
    with serving(tmp_path, reference, cluster) as server:
        server.desk.trouble = JournalError("DISK_FULL", "no space")
        cluster.put("made", *as_json(predictions(10)))
        until(lambda: server.desk.refused["flights", "DISK_FULL"] > 0)
        server.desk.trouble = None
        until(lambda: account(server)["predictions"] == 10)


def test_a_journal_that_cannot_be_read_is_waited_for(
    tmp_path: Path, reference: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks, take, failed = Journal.marks, KafkaDoor.take, []

    def fail_once(where: str, then: Any, *given: Any) -> Any:
        if where not in failed:
            failed.append(where)
            raise JournalError("JOURNAL_FAILED", "Input/output error")
        return then(*given)

    with serving(tmp_path, reference, cluster) as server:
        monkeypatch.setattr(kafka, "AGAIN", 0.05)
        monkeypatch.setattr(Journal, "marks", lambda *a: fail_once("marks", marks, *a))
        monkeypatch.setattr(KafkaDoor, "take", lambda *a: fail_once("take", take, *a))
        cluster.put("made", *as_json(predictions(10)))
        until(lambda: account(server)["predictions"] == 10)
        assert failed == ["take", "marks"]


def test_a_killed_server_goes_on_at_the_right_message(tmp_path: Path, cluster: Cluster) -> None:
    written = tmp_path / "tidegauge.toml"
    written.write_text(
        f"""
        [storage]
        journal = "256MiB"
        min_free = "0"
        durability = "process"
        [kafka.flights]
        servers = "{cluster.servers}"
        model = "flights"
        predictions = "made"
        partitions = [0, 1]
        """
    )
    first = 0
    for point in ("commit_after_write:2", "commit_after_sync:2", "reply:2", "commit_before:1"):
        flag = f"--config={written}"
        with server_process(tmp_path, flag, env={"TIDEGAUGE_FAILPOINT": point}) as process:
            while process.process.poll() is None:
                cluster.put("made", *as_json(predictions(7, first=first)), partition=first % 2)
                first += 7
            assert process.wait() == -9
    with serving(tmp_path, reference_file(tmp_path), cluster, outcomes="") as server:
        until(lambda: account(server)["predictions"] == first)
        assert account(server)["duplicate_predictions"] == 0
        assert counts(server)["rows"] < first


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "none"}, "no model"),
        ({"options": {"no.such.option": "1"}}, "no.such.option"),
    ],
)
def test_a_door_that_leads_nowhere_is_told(
    tmp_path: Path, reference: Path, settings: dict[str, Any], message: str
) -> None:
    named = {"servers": "localhost:1", "model": "flights", "predictions": "made", **settings}
    models = {"flights": ModelConfig(reference)}
    given = config(tmp_path, models=models, kafka={"flights": Kafka(**named)})
    with pytest.raises(ConfigError, match=message):
        Server(given)


@pytest.mark.parametrize(
    "settings",
    [{}, {"predictions": "a", "outcomes": "a"}, {"outcomes": "a", "options": {"group.id": "x"}}],
)
def test_a_table_that_contradicts_itself_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Kafka("localhost:1", "flights", **settings)
