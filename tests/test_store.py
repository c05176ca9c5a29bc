"""One contract for both databases: nothing twice, nothing lost, the first verdict stays."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import postgres
import psycopg
import pyarrow as pa
import pytest
import sqlalchemy as sql

import tidegauge as tg
from tidegauge import store as module
from tidegauge.store import Entry, Store, StoreError
from tidegauge.values import METRIC_TABLE, TRANSITIONS

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    binaries = postgres.find()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: no initdb on the path or in /usr/lib/postgresql")
    with tempfile.TemporaryDirectory(prefix="tidegauge") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server's user has to pass through
        server = postgres.Server(folder, binaries)
        server.start()
        yield server
        server.kill()


@pytest.fixture(params=["memory", "file", "postgresql"])
def url(request, tmp_path) -> Iterator[str]:
    """An empty database; PostgreSQL's is a schema of its own."""
    if request.param != "postgresql":
        yield {"memory": "sqlite://", "file": str(tmp_path / "results.db")}[request.param]
        return
    server = request.getfixturevalue("server")
    name = f"test_{abs(hash(request.node.name)):x}"
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
        yield f"{server.url}?options=-csearch_path%3D{name}"
        connection.execute(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture
def store(url) -> Iterator[Store]:
    with Store(url, patience=20) as store:
        yield store


def values(*, windows=3, columns=("a", None), shift=0.0, **fixed) -> pa.Table:
    rows = [
        {
            "model": "m",
            "version": "v1",
            "window_start": NOON + hour * HOUR,
            "window_end": NOON + (hour + 1) * HOUR,
            "segment": "all",
            "column": column,
            "metric": "psi",
            "value": 0.1 * hour + shift,
            "n": 500 + hour,
            "n_reference": 10_000,
            "status": "ok",
        }
        | fixed
        for hour in range(windows)
        for column in columns
    ]
    return pa.Table.from_pylist(rows, schema=METRIC_TABLE)


def changes(*rows: dict) -> pa.Table:
    usual = {
        "fingerprint": "f1",
        "check": "psi by drift_null",
        "model": "m",
        "version": "",
        "segment": "all",
        "column": "a",
        "metric": "psi",
        "before": "ok",
        "after": "firing",
        "severity": "warning",
        "value": 0.4,
        "high": 0.1,
        "n": 500,
        "late": False,
    }
    full = []
    for row in rows:
        start = NOON + row.pop("hour", 0) * HOUR
        full.append(usual | {"window_start": start, "window_end": start + HOUR} | row)
    return pa.Table.from_pylist(full, schema=TRANSITIONS)


def said(table: pa.Table) -> list[dict]:
    return sorted(table.to_pylist(), key=lambda row: str((row["window_start"], row["column"])))


def test_what_is_written_is_read(store: Store) -> None:
    table = values()
    assert store.put_metrics(table) == 6
    back = store.metrics()
    assert back.schema == METRIC_TABLE
    assert said(back) == said(table)
    assert store.metrics(column="a").num_rows == 3
    assert store.metrics(column="").num_rows == 3
    assert store.metrics(start=NOON + HOUR, end=NOON + 2 * HOUR).num_rows == 2
    assert store.metrics(model="other").num_rows == 0
    whole = values(windows=1, window_start=None, window_end=None)
    store.put_metrics(whole)
    assert store.metrics().slice(0, 2)["window_start"].null_count == 2


def test_writing_again_changes_nothing_and_a_change_is_a_revision(store: Store) -> None:
    first = values()
    store.put_metrics(first)
    assert store.put_metrics(first) == 0
    assert store.metrics(revision="all").num_rows == 6
    assert store.put_metrics(values(windows=2, columns=("a",), shift=1.0)) == 2
    assert store.put_metrics(values(windows=2, columns=("a",), shift=2.0)) == 2
    assert said(store.metrics(revision="first")) == said(first)
    last = store.metrics(column="a")["value"].to_pylist()
    assert last == pytest.approx([2.0, 2.1, 0.2])
    history = store.metrics(column="a", end=NOON + HOUR, revision="all")["value"].to_pylist()
    assert history == [0.0, 1.0, 2.0]


def test_the_view_for_other_tools_shows_the_latest_values(store: Store) -> None:
    store.put_metrics(values())
    store.put_metrics(values(shift=1.0))
    query = sql.text("SELECT column_name, value FROM tidegauge_metrics ORDER BY value")
    rows = store.read(lambda connection: connection.execute(query).all())
    assert [value for _, value in rows] == pytest.approx([1.0, 1.0, 1.1, 1.1, 1.2, 1.2])


def test_alerts_stand_where_their_history_left_them(store: Store) -> None:
    first = changes({}, {"fingerprint": "f2", "column": None, "severity": "critical"})
    assert store.put_transitions(first) == 2
    assert store.put_transitions(first) == 0
    assert [row["fingerprint"] for row in store.alerts()] == ["f2", "f1"]
    worse = changes({"hour": 2, "before": "firing", "severity": "critical"})
    late = changes({"severity": "ok", "before": "firing", "late": True})
    store.put_transitions(pa.concat_tables([worse, late]))
    one = next(row for row in store.alerts() if row["fingerprint"] == "f1")
    assert (one["since"], one["window_start"]) == (NOON, NOON + 2 * HOUR)
    assert one["column"] == "a"
    history = store.transitions("f1").to_pylist()
    assert [(r["window_start"], r["late"]) for r in history] == [
        (NOON, False),
        (NOON, True),
        (NOON + 2 * HOUR, False),
    ]
    store.put_transitions(changes({"hour": 4, "before": "firing", "after": "ok"}))
    assert [row["fingerprint"] for row in store.alerts()] == ["f2"]
    assert [row["fingerprint"] for row in store.alerts(states=["ok"])] == ["f1"]


def test_a_mute_is_of_an_alert_that_has_been(store: Store) -> None:
    store.put_transitions(changes({}))
    store.mute("f1", until=NOON + HOUR, reason="known", now=NOON)
    store.mute("f1", reason="for good", now=NOON)
    assert store.mutes() == [
        {"fingerprint": "f1", "until": None, "reason": "for good", "created_at": NOON}
    ]
    store.unmute("f1")
    assert store.mutes() == []
    with pytest.raises(ValueError, match="no alert with the fingerprint 'nope'"):
        store.mute("nope")
    with pytest.raises(ValueError, match="zone"):
        store.mute("f1", until=NOON.replace(tzinfo=None))


def entry(writer: str, before: str | None, **more) -> Entry:
    message = {"incident": "i1", "number": more.pop("number", 1), "title": "psi is high"}
    usual = {
        "name": "desk",
        "state": {"seen": writer},
        "values": [values()],
        "changes": changes({}),
        "messages": [message],
        "sinks": ["log", "hook"],
        "incidents": {"i1": message},
    }
    return Entry(writer=writer, before=before, **(usual | more))


def test_an_entry_is_kept_whole_and_once(store: Store) -> None:
    assert store.state("desk") is None
    assert store.record(entry("w1", None), now=NOON)
    assert store.record(entry("w1", None), now=NOON)  # again, the commit's answer was lost
    assert store.state("desk") == ("w1", {"seen": "w1"})
    assert len(store.messages()) == 2
    assert store.incidents() == [{"incident": "i1", "number": 1, "title": "psi is high"}]
    assert not store.record(entry("w3", "w0", number=2), now=NOON)  # another desk came in between
    assert store.state("desk") == ("w1", {"seen": "w1"})
    assert len(store.messages()) == 2
    broken = entry("w2", "w1", messages=[{"incident": "i2", "number": 1, "of": object()}])
    with pytest.raises(TypeError):
        store.record(broken)
    assert store.state("desk") == ("w1", {"seen": "w1"})
    assert store.record(entry("w2", "w1", number=2, incidents={"i1": None}), now=NOON)
    assert store.incidents() == []


def test_messages_wait_in_their_order_and_are_sent_by_one(store: Store) -> None:
    store.record(entry("w1", None), now=NOON)
    store.record(entry("w2", "w1", number=2), now=NOON + HOUR)
    (one,) = store.waiting("hook", now=NOON + HOUR)  # the second waits for the first
    assert (one.number, one.message["title"], one.attempts) == (1, "psi is high", 0)
    soon = NOON + timedelta(minutes=1)
    assert store.claim("hook", one, until=soon)
    assert not store.claim("hook", one, until=soon)
    assert store.waiting("hook", now=NOON) == []
    (again,) = store.waiting("hook", now=soon)  # its sender has died
    assert store.claim("hook", again, until=soon + HOUR)
    store.settle("hook", again, error="503", again=soon + 2 * HOUR)
    assert store.waiting("hook", now=soon + HOUR) == []
    (third,) = store.waiting("hook", now=soon + 2 * HOUR)
    assert third.attempts == 2
    store.claim("hook", third, until=soon + 3 * HOUR)
    store.settle("hook", third)
    (second,) = store.waiting("hook", now=soon + 2 * HOUR)
    assert second.number == 2
    store.claim("hook", second, until=soon + 3 * HOUR)
    store.settle("hook", second, error="410 gone")
    states = [(m["sink"], m["number"], m["state"], m["error"]) for m in store.messages()]
    assert states == [
        ("hook", 1, "sent", ""),
        ("log", 1, "waiting", ""),
        ("hook", 2, "failed", "410 gone"),
        ("log", 2, "waiting", ""),
    ]


def test_a_dead_sink_holds_a_bounded_number_of_messages(store: Store, monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    for k in range(6):
        one = entry(f"w{k}", f"w{k - 1}" if k else None, number=k + 1)
        assert store.record(one, now=NOON + k * HOUR)
    left = [m["number"] for m in store.messages() if m["sink"] == "log" and m["state"] == "waiting"]
    assert left == [4, 5, 6]


def test_of_messages_written_together_only_those_too_many_are_given_up(
    store: Store, monkeypatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    together = [{"incident": "i1", "number": k, "title": "psi is high"} for k in range(1, 6)]
    assert store.record(entry("w1", None, messages=together), now=NOON)
    left = [m["number"] for m in store.messages() if m["sink"] == "log" and m["state"] == "waiting"]
    assert left == [3, 4, 5]


def test_the_old_goes_and_the_open_stays(store: Store) -> None:
    store.put_metrics(values(windows=30))
    store.put_sums(b"old", model="m", window=(NOON, NOON + HOUR))
    store.record(entry("w1", None, values=[]), now=NOON)
    store.put_transitions(changes({"fingerprint": "f2", "after": "pending"}))
    (one,) = store.waiting("log", now=NOON)
    store.claim("log", one, until=NOON)
    store.settle("log", one)
    now = NOON + timedelta(days=40)
    gone = store.prune({"metrics": "39d", "sums": "30d", "alerts": "30d"}, now=now)
    assert gone == {"metrics": 46, "sums": 1, "alerts": 2, "messages": 1}
    assert store.metrics().num_rows == 14
    assert [row["fingerprint"] for row in store.alerts()] == ["f1"]
    assert store.transitions().num_rows == 1
    assert [m["sink"] for m in store.messages()] == ["hook"]  # it has not been sent
    with pytest.raises(ValueError, match="known: metrics, sums, alerts, messages"):
        store.prune({"rows": "1d"})


def test_sums_of_windows_add_up_to_the_monitor(store: Store) -> None:
    random = np.random.default_rng(0)
    n = 4000
    rows = {
        "id": np.arange(n),
        "x": random.normal(size=n),
        "origin": random.choice(["EWR", "JFK"], size=n),
        "score": random.uniform(size=n),
        "time": np.datetime64("2026-05-01", "us") + np.arange(n) * np.timedelta64(9, "s"),
    }
    schema = tg.Schema(
        task="binary",
        prediction_id="id",
        timestamp="time",
        features=["x"],
        prediction_score="score",
        label="late",
        segments=["origin"],
    )
    labels = {
        "id": rows["id"],
        "late": random.integers(0, 2, n),
        "time": rows["time"] + np.timedelta64(1, "h"),
    }
    reference = tg.Reference.fit({**rows, "late": labels["late"]}, schema)
    whole = tg.Monitor(reference, window="1h")
    halves = [tg.Monitor(reference, window="1h") for _ in range(2)]
    for k, part in enumerate(halves):
        own = {name: column[k::2] for name, column in rows.items()}
        for monitor in (part, whole):
            monitor.log(own)
    for monitor in (*halves, whole):
        monitor.label(labels)
    start = datetime(2026, 5, 1, tzinfo=UTC)
    for k, part in enumerate(halves):
        for hour in range(10):
            window = (start + hour * HOUR, start + (hour + 1) * HOUR)
            store.put_sums(b"spoilt", model="m", window=window, source=str(k))
            store.put_sums(part.window_sums(*window), model="m", window=window, source=str(k))
    again = tg.Monitor(reference, window="1h")
    for body in store.sums("m", start=start):
        again.add_window_sums(body)
    found, expected = (
        [row for row in said(each.metrics()) if row["metric"] != "expected_label_share"]
        for each in (again, whole)  # which labels are due by now only a monitor at work knows
    )
    assert found == expected
    assert len(store.sums("m", start=start, end=start + 2 * HOUR)) == 4
    other = tg.Monitor(tg.Reference.fit({**rows, "late": labels["late"]}, schema), window="1h")
    with pytest.raises(tg.SchemaError, match="same reference"):
        other.add_window_sums(store.sums("m")[0])
    with pytest.raises(tg.DataError, match="damaged"):
        again.add_window_sums(b"nothing")


def test_writers_do_not_get_in_each_others_way(url) -> None:
    """Threads of one process, and for files and servers stores of their own, write the same."""
    stores = [Store(url)] * 4 if url == "sqlite://" else [Store(url) for _ in range(4)]
    errors: list[BaseException] = []

    def work(store: Store, shift: float) -> None:
        try:
            for windows in range(1, 8):
                store.put_metrics(values(windows=windows))
                store.put_transitions(changes({"hour": windows}))
                store.put_metrics(values(windows=1, columns=(f"own {shift}",)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(store, k)) for k, store in enumerate(stores)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert errors == []
    assert stores[0].metrics(revision="all").num_rows == 14 + 4
    assert stores[0].transitions().num_rows == 7
    for each in set(stores):
        each.close()


KILLED = """
import sys
sys.path[:0] = {paths!r}
from test_store import entry, values
from tidegauge.store import Store

store = Store({url!r})
for k in range(10_000):
    store.record(entry(f"w{{k}}", f"w{{k - 1}}" if k else None, number=k + 1))
    print(k, flush=True)
"""


def test_a_killed_process_leaves_whole_entries(tmp_path) -> None:
    url = str(tmp_path / "results.db")
    script = KILLED.format(paths=sys.path, url=url)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(20):
        last = int(process.stdout.readline())
    process.kill()
    process.wait()
    said_last = [int(line) for line in process.stdout.read().split()[:-1]]
    process.stdout.close()
    last = max([last, *said_last])
    with Store(url) as store:
        found = store.state("desk")
        assert found is not None
        number = int(found[0][1:])
        assert number >= last
        assert len(store.messages()) == 2 * (number + 1)


def test_a_server_that_is_killed_and_comes_back_is_survived(server) -> None:
    name = "killed"
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    store = Store(f"{server.url}?options=-csearch_path%3D{name}", patience=60)
    store.put_metrics(values())
    server.kill()
    with pytest.raises(StoreError, match=r"postgresql\+psycopg://tide@127.0.0.1"):
        Store(server.url, patience=0.1)
    back = threading.Timer(0.5, server.start)
    back.start()
    assert store.put_metrics(values(windows=4)) == 2  # asked while it was away
    back.join()
    assert store.metrics().num_rows == 8
    store.close()


def test_a_password_is_in_no_message() -> None:
    with pytest.raises(StoreError) as caught:
        Store("postgresql://tide:hunter2@127.0.0.1:1/none", patience=0)
    assert "hunter2" not in str(caught.value)
    assert "***" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [("mysql://u:p@h/d", "SQLite or PostgreSQL, not in 'mysql'"), ("://", "not a database")],
)
def test_other_databases_are_refused(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Store(url)


def test_tables_are_what_statements_take_them_for(store: Store) -> None:
    for name in ("_SERIES", "_VALUES", "_SUMS", "_ALERTS", "_TRANSITIONS", "_MUTES"):
        table = getattr(module, name)
        assert store.read(lambda connection, t=table: connection.execute(sql.select(t)).all()) == []
    with Store(store.url) as second:
        assert second.metrics().num_rows == 0  # it finds everything in place


def test_migrations_go_on_from_where_a_store_stands(tmp_path, monkeypatch) -> None:
    path = str(tmp_path / "results.db")
    with Store(path) as store:
        store.put_metrics(values())
    later = (*module.MIGRATIONS, ("ALTER TABLE tidegauge_mutes ADD COLUMN author {blob}",))
    monkeypatch.setattr(module, "MIGRATIONS", later)
    with Store(path) as store:
        assert store.metrics().num_rows == 6
    with sqlite3.connect(path) as connection:
        assert "author" in [
            row[1] for row in connection.execute("PRAGMA table_info(tidegauge_mutes)")
        ]
        versions = connection.execute("SELECT version FROM tidegauge_schema").fetchall()
    connection.close()
    assert versions == [(number + 1,) for number in range(len(later))]
    monkeypatch.setattr(module, "MIGRATIONS", later[:-1])
    with pytest.raises(tg.DataError, match="written by a later Tidegauge"):
        Store(path)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("store-*.sql")), ids=lambda path: path.stem)
def test_stores_of_every_release_are_read(path: Path, tmp_path) -> None:
    """Dumps of `sqlite3 results.db .dump`, as each release wrote them."""
    with sqlite3.connect(tmp_path / "old.db") as connection:
        connection.executescript(path.read_text())
    connection.close()
    with Store(str(tmp_path / "old.db")) as store:
        assert said(store.metrics(revision="first")) == said(values())
        assert store.metrics(column="a")["value"].to_pylist() == pytest.approx([1.0, 1.1, 1.2])
        assert [row["fingerprint"] for row in store.alerts()] == ["f1"]
        assert store.transitions().num_rows == 1
        assert store.mutes()[0]["reason"] == "known"
        assert store.state("desk") == ("w1", {"seen": "w1"})
        assert [m["state"] for m in store.messages()] == ["waiting", "waiting"]
        assert store.sums("m") == [b"sums"]


def test_without_sqlalchemy_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    monkeypatch.delitem(sys.modules, "tidegauge.store")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tidegauge\[store\]'"):
        import tidegauge.store  # noqa: F401


def test_a_busy_file_is_waited_for(tmp_path) -> None:
    path = str(tmp_path / "results.db")
    with Store(path) as store:
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        done = threading.Timer(0.3, lambda: None)
        started = time.monotonic()
        done.start()

        def let_go() -> None:
            done.join()
            other.rollback()

        waiter = threading.Thread(target=let_go)
        waiter.start()
        assert store.put_metrics(values()) == 6
        assert time.monotonic() - started >= 0.3
        waiter.join()
        other.close()
