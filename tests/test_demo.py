"""The flights of the demo: the data as they were, the stream in order, the tutorial."""

from __future__ import annotations

import re
import shlex
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

import tidegauge as tg
from tidegauge import cli, demo

TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial.md"


@pytest.fixture(scope="module")
def flights():
    return demo.load_flights()


@pytest.fixture(scope="module")
def scored(flights):
    """Held-out days and a week of live flights, scored by a champion."""
    train, held_out, live = demo.split(flights)
    champion = demo.Champion.train(train.slice(0, 20_000))
    return champion.score(held_out), champion.score(live.slice(0, 6_000))


def micros(column) -> np.ndarray:
    return column.cast(pa.int64()).to_numpy()


def test_every_flight_is_there(flights):
    assert flights.num_rows == 336_776
    assert len(pc.unique(flights["flight_id"])) == flights.num_rows
    assert flights["late"].null_count == flights["landed"].null_count == 9_430
    assert (np.diff(micros(flights["scheduled_departure"])) >= 0).all()
    assert set(demo.FEATURES) < set(flights.column_names)


@pytest.mark.parametrize(
    ("row", "departure", "landed", "weekday"),
    [
        (
            0,
            "2013-01-01 10:15",
            "2013-01-01 14:30",
            "Tue",
        ),  # EWR 5:15, on the ground in Houston 8:30
        (
            250_451,
            "2013-07-02 03:59",
            "2013-07-02 07:44",
            "Mon",
        ),  # JFK 23:59, San Juan 3:44, no DST
    ],
)
def test_times_are_utc(flights, row, departure, landed, weekday):
    one = flights.filter(pc.equal(flights["flight_id"], row)).to_pylist()[0]
    assert f"{one['scheduled_departure']:%Y-%m-%d %H:%M}" == departure
    assert f"{one['landed']:%Y-%m-%d %H:%M}" == landed
    assert one["weekday"] == weekday


def test_late_is_fifteen_minutes_after_the_schedule(flights):
    landed = flights.filter(pc.is_valid(flights["late"]))
    minutes = micros(landed["landed"]) - micros(landed["scheduled_departure"])
    delay = minutes // demo.MINUTE - landed["scheduled_minutes"].to_numpy()
    assert ((delay >= 15) == landed["late"].to_numpy()).all()
    assert (minutes > 0).all()
    assert (
        minutes < 48 * 60 * demo.MINUTE
    ).all()  # every label comes within the monitor's lateness


def test_weather_is_that_of_the_hour(flights):
    weather = demo.csv.read_csv(demo.data_folder() / "weather.csv").to_pylist()
    there = {(row["origin"], row["time_hour"]): row["temp"] for row in weather}
    for row in flights.take(list(range(0, flights.num_rows, 5_003))).to_pylist():
        hour = row["scheduled_departure"].replace(minute=0)
        assert row["temp"] == there.get((row["origin"], hour))


def test_the_reference_is_never_trained_on(flights):
    parts = demo.split(flights)
    ids = [part["flight_id"].to_pylist() for part in parts]
    assert sorted(chain.from_iterable(ids)) == list(range(flights.num_rows))
    days = [
        set((micros(part["scheduled_departure"]) // demo.MINUTE - 300) // 1440) for part in parts
    ]
    assert [len(part) for part in days] == [60, 30, 275]
    assert not days[0] & days[1] | days[1] & days[2]


def test_the_champion_is_the_same_each_time(flights):
    rows = flights.slice(0, 4_000)
    first, again = (demo.Champion.train(rows).score(rows)["p_late"].to_numpy() for _ in range(2))
    assert (first == again).all()
    assert ((first > 0) & (first < 1)).all()


def test_ticks_are_the_stream_in_order(scored):
    live = scored[1]
    predicted, labelled, last = {}, {}, 0
    for at, tick in enumerate(demo.ticks(live, minutes=30)):
        assert tick.end > last
        assert tick.end % (30 * demo.MINUTE) == 0
        for batch, seen in ((tick.predictions, predicted), (tick.labels, labelled)):
            times = micros(batch["scheduled_departure"])  # of a label: when the flight landed
            assert ((times >= tick.end - 30 * demo.MINUTE) & (times < tick.end)).all()
            seen.update(dict.fromkeys(batch["flight_id"].to_pylist(), at))
        last = tick.end
        assert "late" not in tick.predictions.schema.names
    assert len(predicted) == live.num_rows
    assert len(labelled) == live.num_rows - live["late"].null_count
    assert all(predicted[flight] <= at for flight, at in labelled.items())


def test_a_replay_finds_what_happened(scored):
    held_out, live = scored
    monitor = demo.watch_over(tg.Reference.fit(held_out, demo.schema()))
    demo.replay(monitor, live)
    account = monitor.account
    landed = live.filter(pc.is_valid(live["late"]))
    assert account.balanced
    assert (account.predictions, account.matched) == (live.num_rows, landed.num_rows)
    assert account.pending + account.expired == live["late"].null_count
    late, score = landed["late"].to_numpy(), landed["p_late"].to_numpy()
    values = {
        row["metric"]: row
        for row in monitor.metrics(
            ["accuracy", "roc_auc", "row_count"], window="1mo", segments="all"
        ).to_pylist()
    }
    assert values["row_count"]["value"] == live.num_rows
    assert values["accuracy"]["value"] == accuracy_score(late, score >= demo.THRESHOLD)
    assert values["accuracy"]["label_share"] == landed.num_rows / live.num_rows
    assert values["roc_auc"]["value"] == pytest.approx(roc_auc_score(late, score), abs=1e-4)


def test_a_server_counts_what_a_monitor_counts(scored):
    held_out, live = scored
    reference = tg.Reference.fit(held_out, demo.schema())
    monitor = demo.watch_over(reference)
    demo.replay(monitor, live)
    with demo.serving(reference) as server:
        served = server.desk.model(demo.MODEL).monitor
        target = f"127.0.0.1:{server.port}"
        with tg.Client(target, model=demo.MODEL, on_full="block") as client:
            batches = demo.replay(client, live)
            assert client.flush(60)
            stats = client.stats()
    assert stats.requests == batches
    assert stats.delivered == stats.offered == 2 * live.num_rows - live["late"].null_count
    kept = ("predictions", "matched", "matched_labels", "pending")
    assert [getattr(served.account, name) for name in kept] == [
        getattr(monitor.account, name) for name in kept
    ]
    assert served.metrics(window="1mo").equals(monitor.metrics(window="1mo"))


def test_the_demo_runs(scored, flights, monkeypatch, tmp_path, capsys):
    """The whole command, on two months instead of nine."""
    some = flights.slice(0, 130_000)
    monkeypatch.setattr(demo, "load_flights", lambda: some)
    assert cli.main(["demo", "--out", str(tmp_path / "demo" / "report.html")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    titles = ("Account", "The champion, month by month", "Drift", "Integrity", "Time")
    assert all(title in out for title in titles)
    assert "April" in out
    assert (tmp_path / "demo" / "report.html").stat().st_size < 6_000_000


def test_the_tutorial_s_commands_are_known():
    """Its Python runs with that of every other page; here its commands are read, not run."""
    blocks = re.findall(
        r"^```sh\n(.*?)^```$", TUTORIAL.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    named = [cli.parser().parse_args(line[1:]).command for line in lines if line[0] == "tidegauge"]
    assert named == ["fit", "report", "compare", "metrics"]
