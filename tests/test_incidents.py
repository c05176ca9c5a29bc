"""What people are told: one incident a cause, once, again when it gets worse or lasts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tidegauge.alerts.incidents import Incident, Incidents, Message, Mute, sample
from tidegauge.alerts.series import Name
from tidegauge.alerts.watch import fingerprint

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def change(column, after="firing", *, hour=0, severity="warning", before=None, **more):
    metric, segment = more.get("metric", "psi"), more.get("segment", "all")
    start = NOON + hour * HOUR
    return {
        "fingerprint": fingerprint(metric, Name("m", "", segment, column, metric)),
        "check": f"{metric} by rule",
        "model": "m",
        "version": "",
        "segment": segment,
        "column": column,
        "metric": metric,
        "window_start": start,
        "window_end": start + HOUR,
        "before": before or "ok",
        "after": after,
        "severity": severity,
        "value": more.get("value", 0.4),
        "low": None,
        "high": 0.1,
        "n": 500,
        "late": more.get("late", False),
    }


def told(messages) -> list[tuple[str, str | None, int]]:
    return [(each.kind, each.root.column, len(each.more)) for each in messages]


def test_alerts_of_one_window_and_segment_are_one_incident_under_the_furthest_upstream() -> None:
    incidents = Incidents(outputs=frozenset({"score"}))
    rows = [
        change("score", severity="critical"),
        change("b", value=0.9),
        change("a"),
        change("a", metric="missing_rate"),
        change(None, metric="accuracy", severity="critical"),
        change("a", segment="origin=EWR"),
    ]
    messages = incidents.take(rows, NOON)
    assert told(messages) == [("firing", "a", 4), ("firing", "a", 0)]
    assert messages[0].root.metric == "missing_rate"
    assert messages[0].severity == "critical"
    assert messages[1].segment == "origin=EWR"


def test_declared_sources_divide_what_begins_together() -> None:
    incidents = Incidents(upstream={"a": "feed", "b": "a", "c": "other"})
    rows = [change("b", severity="critical"), change("a"), change("c"), change(None, metric="mae")]
    assert told(incidents.take(rows, NOON)) == [("firing", "a", 2), ("firing", "c", 0)]


def test_a_later_alert_of_a_column_joins_the_incident_about_it() -> None:
    incidents = Incidents()
    first = incidents.take([change("a", metric="missing_rate")], NOON)
    assert told(first) == [("firing", "a", 0)]
    assert incidents.take([change("a", hour=1)], NOON + HOUR) == []
    assert told(incidents.take([change("b", hour=2)], NOON)) == [("firing", "b", 0)]
    assert len(incidents.open) == 2
    worse = incidents.take([change("a", hour=3, severity="critical")], NOON + 3 * HOUR)
    assert told(worse) == [("worse", "a", 1)]
    assert worse[0].incident == first[0].incident
    assert (worse[0].number, worse[0].severity) == (2, "critical")


def test_what_lasts_is_told_again_after_a_day_and_its_end_once() -> None:
    incidents = Incidents()
    incidents.take([change("a"), change("b")], NOON)
    assert incidents.take([], NOON + 23 * HOUR) == []
    assert told(incidents.take([], NOON + 24 * HOUR)) == [("reminder", "a", 1)]
    assert incidents.take([], NOON + 25 * HOUR) == []
    assert incidents.take([change("a", "recovering", hour=1, before="firing")], NOON) == []
    assert incidents.take([change("a", "ok", hour=2, before="recovering")], NOON) == []
    over = incidents.take([change("b", "ok", hour=2, before="recovering")], NOON)
    assert told(over) == [("resolved", "a", 0)]
    assert over[0].severity == "warning"
    assert incidents.open == {}


def test_of_what_begins_and_ends_unseen_nobody_is_told() -> None:
    incidents = Incidents()
    rows = [change("a"), change("a", "ok", hour=4, before="recovering")]
    assert incidents.take(rows, NOON) == []
    assert incidents.open == {}
    assert incidents.take([change("a", late=True)], NOON) == []


def test_a_muted_root_mutes_its_incident_and_a_snooze_ends() -> None:
    incidents = Incidents()
    row = change("a")
    snooze = Mute(row["fingerprint"], until=NOON + HOUR, reason="deploying")
    assert incidents.take([row, change("b")], NOON, [snooze]) == []
    assert told(incidents.take([], NOON + HOUR, [snooze])) == [("firing", "a", 1)]
    other = Mute(change("b")["fingerprint"])
    rise = [change("b", hour=1, severity="critical", before="firing")]
    assert incidents.take(rise, NOON + HOUR, [other]) == []
    assert told(incidents.take([], NOON + HOUR)) == [("worse", "a", 1)]
    ends = [change(each, "ok", hour=2, before="firing") for each in "ab"]
    muted = Mute(row["fingerprint"])
    assert told(incidents.take(ends, NOON + HOUR, [muted])) == [("resolved", "a", 0)]


def test_open_incidents_go_on_where_they_were() -> None:
    whole, part = Incidents(), Incidents()
    for incidents in (whole, part):
        incidents.take([change("a"), change("b")], NOON)
    stored = {key: Incident.from_dict(each.to_dict()) for key, each in part.open.items()}
    again = Incidents(open=stored)
    rows = [change("a", hour=1, severity="critical", before="firing")]
    assert again.take(rows, NOON) == whole.take(rows, NOON)
    assert again.open == whole.open


@pytest.mark.parametrize("kind", ["firing", "worse", "reminder", "resolved"])
def test_messages_say_what_and_where_and_come_back_from_json(kind: str) -> None:
    message = sample(kind)
    assert Message.from_dict(message.to_dict()) == message
    assert "psi of distance" in message.title
    assert ("0.41, over 0.05" in message.title) == (kind != "resolved")
    assert message.root.fingerprint in message.text
    assert ("psi of dest" in message.text) == (kind != "resolved")
