"""The commands about alerts, called in process: what they print, what they refuse."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import numpy as np
import pytest

import tidegauge as tg
from tidegauge import cli
from tidegauge.alerts import Alerting, Check
from tidegauge.store import Store

pytest.importorskip("rich")

START = np.datetime64("2024-05-01", "us")


def traffic(hours: range, shift: float = 0.0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(hours.start)
    n = 200 * len(hours)
    time = START + hours.start * np.timedelta64(1, "h") + np.arange(n) * np.timedelta64(18, "s")
    return {"distance": random.normal(size=n) + shift, "time": time}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A monitor in which something happened, and the store of the alerts about it."""
    folder = tmp_path_factory.mktemp("alerts")
    schema = tg.Schema(features=["distance"], timestamp="time")
    reference = tg.Reference.fit(traffic(range(48)), schema)
    monitor = tg.Monitor(reference, window="1h", model="flights")
    with Alerting([Check(metric="psi")], store=str(folder / "alerts.db")) as alerting:
        for hours, shift in ((range(96, 120), 0.0), (range(120, 124), 2.0), (range(124, 144), 0.0)):
            monitor.log(traffic(hours, shift))
            if hours.stop < 144:
                alerting.update(monitor)
    monitor.save(folder / "monitor.tide")
    tg.Monitor(reference, window="1h").save(folder / "empty.tide")
    (folder / "text.db").write_text("not a database, and long enough to be looked at" * 50)
    return folder


@pytest.fixture
def run(files, monkeypatch, capsys):
    monkeypatch.chdir(files)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def read(run, *arguments: str):
    code, out, err = run(*arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_open_alerts_are_listed_muted_and_heard_again(run) -> None:
    (alert,) = read(run, "alerts", "list", "alerts.db")["alerts"]
    assert (alert["column"], alert["severity"], alert["mute"]) == ("distance", "critical", None)
    code, out, _ = run("alerts", "list", "alerts.db")
    assert code == 0
    assert all(each in out for each in ("distance", "psi by drift_null", "2024-05-06", "1 alerts"))
    name = alert["fingerprint"]
    code, out, _ = run("alerts", "mute", "alerts.db", name, "--for", "2h", "--reason", "known")
    assert (code, out.startswith(f"{name} is muted until 2")) == (0, True)
    (alert,) = read(run, "alerts", "list", "alerts.db")["alerts"]
    assert alert["mute"]["reason"] == "known"
    until = read(run, "alerts", "mute", "alerts.db", name, "--until", "2030-01-01T12:00")["until"]
    assert datetime.fromisoformat(until) == datetime(2030, 1, 1, 12, tzinfo=UTC)
    assert "2030-01-01 12:00" in run("alerts", "list", "alerts.db")[1]
    run("alerts", "mute", "alerts.db", name)
    assert "for good" in run("alerts", "list", "alerts.db")[1]
    assert run("alerts", "unmute", "alerts.db", name)[0] == 0
    assert read(run, "alerts", "list", "alerts.db")["alerts"][0]["mute"] is None
    assert read(run, "alerts", "list", "alerts.db", "--state", "ok")["alerts"] == []
    assert run("alerts", "list", "alerts.db", "--state", "ok")[1].strip() == "0 alerts"


def test_history_is_told_in_order(run) -> None:
    rows = read(run, "alerts", "history", "alerts.db")["transitions"]
    assert "firing" in [row["after"] for row in rows]
    assert [row["window_start"] for row in rows] == sorted(row["window_start"] for row in rows)
    code, out, _ = run("alerts", "history", "alerts.db", rows[0]["fingerprint"])
    assert code == 0
    assert "→ firing" in out
    later = read(run, "alerts", "history", "alerts.db", "--start", "2025-01-01")["transitions"]
    earlier = read(run, "alerts", "history", "alerts.db", "--end", "2025-01-01")["transitions"]
    assert (later, earlier) == ([], rows)
    assert run("alerts", "history", "alerts.db", "nobody")[1].strip() == "0 changes"


def test_a_backtest_says_when_it_would_have_fired(run) -> None:
    found = read(run, "alerts", "backtest", "monitor.tide", "--metric", "psi")
    assert (found["series"], found["alerts"]) == (1, 1)
    (episode,) = found["episodes"]
    assert episode["began"] == "2024-05-06T00:00:00+00:00"
    assert episode["ended"] > episode["began"]
    code, out, _ = run("alerts", "backtest", "monitor.tide", "--metric", "psi")
    assert code == 0
    assert re.search(r"distance .* 2024-05-06 00:00 .* critical", out)
    assert "1 alerts of 1 series in 0.286 weeks: 3.5 a week" in out
    fixed = ("--rule", "constant", "--warning", "99", "--confirm", "1,1")
    quiet = read(run, "alerts", "backtest", "monitor.tide", "--metric", "psi", *fixed)
    assert (quiet["alerts"], quiet["episodes"]) == (0, [])
    with Store("alerts.db") as store:
        rows = store.transitions().to_pylist()
    first = next(row["window_start"] for row in rows if row["after"] == "firing")
    assert datetime.fromisoformat(episode["began"]) == first


def test_a_level_is_suggested_that_keeps_to_the_rate(run) -> None:
    base = ("alerts", "backtest", "monitor.tide", "--metric", "psi", "--rule", "constant")
    base = (*base, "--confirm", "1,1", "--warning", "0.001")
    found = read(run, *base, "--suggest", "2")
    level = found["suggested_warning"]
    again = read(run, *base[:-1], str(level))
    assert found["alerts_per_week"] > 2 >= again["alerts_per_week"]
    assert "at --warning" in run(*base, "--suggest", "2")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "none.db"), "none.db: no such file"),
        (("list", "text.db"), "not a database"),
        (("list", "mysql://h/d"), "SQLite or PostgreSQL"),
        (("mute", "alerts.db", "nobody"), "no alert with the fingerprint 'nobody'"),
        (("mute", "alerts.db", "x", "--for", "soon"), "whole number and a unit"),
        (("mute", "alerts.db", "x", "--until", "soon"), "not a time"),
        (("mute", "alerts.db", "x", "--until", "0001-01-01T00:00+05:00"), "not a time"),
        (("mute", "alerts.db", "x", "--for", "3000000d"), "beyond the year 9999"),
        (("backtest", "monitor.tide", "--metric", "psi", "--confirm", "²,3"), "--confirm is N,M"),
        (("mute", "alerts.db", "x", "--for", "1h", "--until", "2030-01-01"), "not both"),
        (("unmute", "alerts.db", "nobody"), "nobody is not muted"),
        (("backtest", "monitor.tide", "--metric", "psy"), "unknown metric 'psy'"),
        (("backtest", "monitor.tide", "--metric", "psi", "--rule", "x"), "unknown rule 'x'"),
        (("backtest", "monitor.tide", "--metric", "psi", "--confirm", "2"), "--confirm is N,M"),
        (("backtest", "monitor.tide", "--metric", "psi", "--columns", "z"), "no windows of psi"),
        (("backtest", "empty.tide", "--metric", "psi"), "no windows of psi"),
        (("backtest", "text.db", "--metric", "psi"), "not a Tidegauge file"),
        (("backtest", "none.tide", "--metric", "psi"), "No such file"),
        ((), "the following arguments are required: COMMAND"),
    ],
)
def test_bad_input_is_one_line(run, arguments, said) -> None:
    code, out, err = run("alerts", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert err.startswith("tidegauge alerts")
