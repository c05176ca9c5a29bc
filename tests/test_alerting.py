"""Alerts that survive the process: judged once, told once, whatever fails."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

import tidegauge as tg
from tidegauge.alerts import Alerting, Check, Message
from tidegauge.alerts.sinks import Undelivered
from tidegauge.store import Store, StoreError

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
START = np.datetime64("2024-05-01", "us")
CHECKS = [Check(metric="psi"), Check(metric="missing_rate", rule="constant", warning=0.2)]


def traffic(hours: slice, shift: float = 0.0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(hours.start)
    n = 200 * (hours.stop - hours.start)
    time = START + hours.start * np.timedelta64(1, "h") + np.arange(n) * np.timedelta64(18, "s")
    x, y = random.normal(size=(2, n)) + shift
    return {"x": x, "y": y, "score": random.uniform(size=n) ** (1 + shift), "time": time}


@pytest.fixture
def monitor() -> tg.Monitor:
    schema = tg.Schema(
        task="binary", features=["x", "y"], timestamp="time", prediction_score="score"
    )
    reference = tg.Reference.fit(traffic(slice(0, 48)), schema)
    return tg.Monitor(reference, window="1h", model="m")


@pytest.fixture
def url(tmp_path) -> str:
    return str(tmp_path / "alerts.db")


class Kept:
    """A sink that keeps what it gets, once it may."""

    def __init__(self, name: str = "kept") -> None:
        self.name, self.messages, self.open = name, [], threading.Event()
        self.open.set()

    def send(self, message: Message) -> None:
        if not self.open.is_set():
            raise Undelivered("closed")
        self.messages.append(message)

    @property
    def said(self) -> list[tuple[str, str | None, int]]:
        return [(m.kind, m.root.column, len(m.more)) for m in self.messages]


def test_from_traffic_to_people_and_back(monitor: tg.Monitor, url: str) -> None:
    sink = Kept()
    with Alerting(CHECKS, store=url, sinks=[sink]) as alerting:
        monitor.log(traffic(slice(100, 110)))
        assert alerting.update(monitor, now=NOON).num_rows == 0
        monitor.log(traffic(slice(110, 113), shift=2.0))
        changes = alerting.update(monitor, now=NOON)
        assert {row["column"] for row in changes.to_pylist()} == {"x", "y", "score"}
        (incident,) = alerting.open
        assert len(incident.members) == 3
        assert incident.root.column in {"x", "y"}  # the score is made of them
        monitor.log(traffic(slice(113, 120)))
        after = alerting.update(monitor, now=NOON + timedelta(hours=7))
        assert alerting.open == []
    assert [(kind, more) for kind, _, more in sink.said] == [("firing", 2), ("resolved", 0)]
    with Store(url) as store:
        assert store.alerts() == []
        assert [m["state"] for m in store.messages()] == ["sent", "sent"]
        assert store.transitions().num_rows == changes.num_rows + after.num_rows
        psi = store.metrics(metric="psi", column="x")
        assert psi.num_rows == 19  # the last window is open
        assert store.metrics(revision="all").num_rows == store.metrics().num_rows


def test_a_moment_without_a_zone_is_refused_before_it_is_kept(monitor, url: str) -> None:
    with Alerting(CHECKS, store=url) as alerting:
        with pytest.raises(ValueError, match="now needs a zone"):
            alerting.update(monitor, now=NOON.replace(tzinfo=None))
        alerting.update(monitor, now=NOON)


def test_another_process_goes_on_where_one_stopped(monitor: tg.Monitor, url: str) -> None:
    sink = Kept()
    parts = [traffic(slice(h, h + 1), 2.0 * (h in (106, 107, 108))) for h in range(100, 116)]
    for part in parts:
        monitor.log(part)
        with Alerting(CHECKS, store=url, sinks=[sink]) as alerting:
            alerting.update(monitor, now=NOON)
            assert alerting.update(monitor, now=NOON).num_rows == 0
    assert [kind for kind, *_ in sink.said] == ["firing", "resolved"]


def test_what_fails_leaves_nothing_behind(monitor: tg.Monitor, url: str, monkeypatch) -> None:
    sink = Kept()
    with Alerting(CHECKS, store=url, sinks=[sink]) as alerting:
        monitor.log(traffic(slice(100, 106)))
        monitor.log(traffic(slice(106, 109), shift=2.0))
        record = alerting.store.record

        def gone(*_, **__):
            raise StoreError("away")

        monkeypatch.setattr(alerting.store, "record", gone)
        for _ in range(2):
            with pytest.raises(StoreError, match="away"):
                alerting.update(monitor, now=NOON)
            assert alerting.open == []
        monkeypatch.setattr(alerting.store, "record", record)
        assert alerting.update(monitor, now=NOON).num_rows == 3
        assert len(alerting.open) == 1
    assert [kind for kind, *_ in sink.said] == ["firing"]


def test_a_store_that_is_gone_altogether_is_waited_out(monitor, url: str, monkeypatch) -> None:
    with Alerting(CHECKS, store=url) as alerting:
        monitor.log(traffic(slice(100, 106)))
        alerting.update(monitor, now=NOON)
        monitor.log(traffic(slice(106, 109), shift=2.0))

        def gone(*_, **__):
            raise StoreError("away")

        with monkeypatch.context() as away:
            for name in ("read", "write"):
                away.setattr(alerting.store, name, gone)
            with pytest.raises(StoreError):
                alerting.update(monitor, now=NOON)
        assert alerting.update(monitor, now=NOON).num_rows == 3


def test_a_commit_of_which_the_answer_was_lost_counts(monitor, url: str, monkeypatch) -> None:
    sink = Kept()
    with Alerting(CHECKS, store=url, sinks=[sink]) as alerting:
        monitor.log(traffic(slice(100, 106)))
        monitor.log(traffic(slice(106, 109), shift=2.0))
        record = alerting.store.record

        def kept_and_gone(*arguments, **options):
            assert record(*arguments, **options)
            raise StoreError("away")

        with monkeypatch.context() as away:
            away.setattr(alerting.store, "record", kept_and_gone)
            with pytest.raises(StoreError):
                alerting.update(monitor, now=NOON)
        monitor.log(traffic(slice(109, 112), shift=2.0))
        alerting.update(monitor, now=NOON)
        assert len(alerting.open) == 1
    assert [kind for kind, *_ in sink.said] == ["firing"]
    with Store(url) as store:
        assert store.metrics(revision="all").num_rows == store.metrics().num_rows


def test_two_under_one_name_find_out(monitor: tg.Monitor, url: str) -> None:
    monitor.log(traffic(slice(100, 103)))
    with Alerting(CHECKS, store=url) as one, Alerting(CHECKS, store=url) as two:
        one.update(monitor, now=NOON)
        with pytest.raises(RuntimeError, match="a name of its own"):
            two.update(monitor, now=NOON)
        assert two.update(monitor, now=NOON).num_rows == 0  # it has taken over
    with Alerting(CHECKS, store=url, name="other") as other:
        other.update(monitor, now=NOON)
        assert other.store.metrics(revision="all").num_rows == other.store.metrics().num_rows


def test_what_is_muted_is_judged_and_not_told(monitor: tg.Monitor, url: str) -> None:
    sink = Kept()
    with Alerting(CHECKS, store=url, sinks=[sink]) as alerting:
        monitor.log(traffic(slice(100, 106)))
        monitor.log(traffic(slice(106, 109), shift=2.0))
        alerting.update(monitor, now=NOON)
        (incident,) = alerting.open
        alerting.store.mute(incident.root.fingerprint, until=NOON + timedelta(days=2))
        assert alerting.update(monitor, now=NOON + timedelta(days=1)).num_rows == 0
        alerting.update(monitor, now=NOON + timedelta(days=2))
    assert [kind for kind, *_ in sink.said] == ["firing", "reminder"]


def test_late_data_keep_the_first_verdict_and_the_first_value(monitor, url: str) -> None:
    with Alerting([Check(metric="psi", columns=("x",))], store=url) as alerting:
        monitor.log(traffic(slice(100, 106)))
        alerting.update(monitor, now=NOON)
        monitor.log(traffic(slice(102, 103), shift=8.0))
        late = alerting.update(monitor, now=NOON).to_pylist()
        assert [(row["late"], row["severity"]) for row in late] == [(True, "critical")]
        assert alerting.open == []
        window = {"start": late[0]["window_start"], "end": late[0]["window_end"], "column": "x"}
        first, last = (
            alerting.store.metrics(metric="psi", revision=each, **window)["value"].to_pylist()
            for each in ("first", "last")
        )
        assert last[0] > 10 * first[0]
        assert alerting.store.transitions()["late"].to_pylist() == [True]


def test_a_sink_that_fails_holds_nothing_up(monitor: tg.Monitor, url: str, caplog) -> None:
    sink = Kept()
    sink.open.clear()
    with Alerting(CHECKS, store=url, sinks=[sink]) as alerting:
        monitor.log(traffic(slice(100, 106)))
        monitor.log(traffic(slice(106, 109), shift=2.0))
        alerting.update(monitor)
    assert sink.messages == []
    with Store(url) as store:
        (message,) = store.messages()
        assert message["state"] == "waiting"
        assert json.loads(json.dumps(message["message"])) == message["message"]
    assert [r.levelno for r in caplog.records if "closed" in r.message] == [logging.WARNING]


def test_what_columns_are_made_of_is_known(url: str) -> None:
    rows = traffic(slice(0, 48))
    schema = tg.Schema(
        features={"x": tg.numeric(), "double": tg.derived(lambda x: 2 * x, ["x"])},
        timestamp="time",
    )
    monitor = tg.Monitor(tg.Reference.fit(rows, schema), window="1h")
    sink = Kept()
    with Alerting(CHECKS, store=url, sinks=[sink]) as alerting:
        monitor.log(traffic(slice(100, 103), shift=2.0))
        alerting.update(monitor, now=NOON)
    assert sink.said == [("firing", "x", 1)]


def test_names_of_sinks_are_their_own() -> None:
    with pytest.raises(ValueError, match="a name of its own"):
        Alerting(CHECKS, sinks=[Kept(), Kept()])


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    assert not [t for t in threading.enumerate() if t.name.startswith("tidegauge-")]
