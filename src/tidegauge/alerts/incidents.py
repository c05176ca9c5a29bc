"""From alerts to what people are told: one incident a cause, told once, again when it gets worse.

Alerts that begin in the same window of the same segment are one incident; so is an alert of a
column about which there is an incident already. The alert furthest upstream is its root. People
hear of an incident when it begins, when it gets worse, once a day while it lasts, and when it is
over. Those that are muted they don't hear of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from tidegauge import metrics as registry
from tidegauge.alerts.watch import ALERTING, CRITICAL, OK, SEVERITIES, WARNING

Kind = Literal["firing", "worse", "reminder", "resolved"]

_CODES = {word: code for code, word in SEVERITIES.items()}
_UPSTREAM = {"integrity": 0, "drift": 1}  # families; everything else follows from these


@dataclass(frozen=True)
class Mute:
    """A fingerprint of which nobody wants to hear, for a while or for good.

    Parameters
    ----------
    fingerprint
        Of an alert; that of a root mutes its incident.
    until
        When people hear of it again if it still fires; never unless given.
    reason
        Why, for those who wonder.

    >>> Mute("4d0f0e3a11c20b77", reason="known, ticket 512").holds(datetime(2026, 5, 1))
    True
    """

    fingerprint: str
    until: datetime | None = None
    reason: str = ""

    def holds(self, now: datetime) -> bool:
        """Whether it is still in force."""
        return self.until is None or now < self.until


@dataclass(frozen=True)
class Member:
    """An alert of an incident, as it was last judged beyond its limits."""

    fingerprint: str
    check: str
    column: str | None
    metric: str
    severity: int
    value: float | None
    low: float | None
    high: float | None
    n: int

    @property
    def excess(self) -> float:
        """How far beyond its limit, as a share of it."""
        for limit, sign in ((self.high, 1), (self.low, -1)):
            if limit is not None and self.value is not None and sign * (self.value - limit) > 0:
                return abs(self.value - limit) / (abs(limit) or 1.0)
        return 0.0


@dataclass
class Incident:
    """Open alerts of one cause, and what people have been told of them.

    `since` is when its first window began, event time; `told` the severity that people know of.
    """

    key: str
    model: str
    version: str
    segment: str
    since: datetime
    until: datetime  # end of the latest window that was beyond the limits
    root: Member
    members: dict[str, Member] = field(default_factory=dict)  # that are open, by fingerprint
    told: int = OK
    told_at: datetime | None = None
    messages: int = 0

    def severity(self, muted: frozenset[str]) -> int:
        """Severity of what people want to hear of; OK where the root is muted."""
        if self.root.fingerprint in muted:
            return OK
        return max((m.severity for f, m in self.members.items() if f not in muted), default=OK)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        instants = {name: _written(getattr(self, name)) for name in ("since", "until", "told_at")}
        return asdict(self) | instants

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Incident:
        """Read such a document."""
        instants = {name: _instant(stored[name]) for name in ("since", "until", "told_at")}
        members = {each: Member(**member) for each, member in stored["members"].items()}
        return cls(**{**stored, **instants, "root": Member(**stored["root"]), "members": members})


@dataclass(frozen=True)
class Message:
    """What people are told of an incident; `number` counts its messages from 1.

    `more` are the other alerts of the incident, the most severe first.
    """

    incident: str
    number: int
    kind: Kind
    severity: str
    model: str
    version: str
    segment: str
    since: datetime
    until: datetime
    root: Member
    more: tuple[Member, ...]
    at: datetime

    @property
    def title(self) -> str:
        """One line that says it.

        >>> sample().title
        'CRITICAL flights: psi of distance is 0.41, over 0.05 (and 2 more)'
        """
        one = self.root
        what = f"{one.metric} of {one.column}" if one.column else one.metric
        where = "" if self.segment == "all" else f" in {self.segment}"
        said = f"{self.model}{'@' * bool(self.version)}{self.version}: {what}{where}"
        more = f" (and {len(self.more)} more)" if self.more else ""
        if self.kind == "resolved":
            return f"RESOLVED {said} is back within its limits{more}"
        again = {"worse": ", worse", "reminder": ", still"}.get(self.kind, "")
        return f"{self.severity.upper()}{again} {said} is {_beyond(one)}{more}"

    @property
    def text(self) -> str:
        """A few lines more: the rows, the time, the other alerts."""
        lines = [
            f"since {self.since:%Y-%m-%d %H:%M} UTC, last in the window to "
            f"{self.until:%Y-%m-%d %H:%M}; {self.root.n:,} rows, {self.root.check}",
            *(
                f"{SEVERITIES[m.severity]}: {m.metric}{f' of {m.column}' if m.column else ''} "
                f"is {_beyond(m)}"
                for m in self.more[:LISTED]
            ),
        ]
        if len(self.more) > LISTED:
            lines.append(f"and {len(self.more) - LISTED:,} more")
        return "\n".join([*lines, f"fingerprint {self.root.fingerprint}"])

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        document = asdict(self)
        for name in ("since", "until", "at"):
            document[name] = _written(document[name])
        for member in (document["root"], *document["more"]):
            member["severity"] = SEVERITIES[member["severity"]]
        return {"title": self.title, **document}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Message:
        """Read such a document."""
        fields = {name: value for name, value in stored.items() if name != "title"}
        for name in ("since", "until", "at"):
            fields[name] = _instant(stored[name])

        def member(document: Mapping[str, Any]) -> Member:
            return Member(**{**document, "severity": _CODES[document["severity"]]})

        more = tuple(map(member, stored["more"]))
        return cls(**{**fields, "root": member(stored["root"]), "more": more})


LISTED = 10  # other alerts that a text names


@dataclass
class Incidents:
    """The incidents that are open.

    Parameters
    ----------
    upstream
        What a column comes from: another column, a feed, a table. Alerts of columns that come from
        different sources are different incidents even when they begin together.
    outputs
        Columns that the model makes of the others: downstream of all of them.
    remind
        How long after the last message people are told again of what lasts.
    """

    upstream: Mapping[str, str] = field(default_factory=dict)
    outputs: frozenset[str] = frozenset()
    remind: timedelta = timedelta(days=1)
    open: dict[str, Incident] = field(default_factory=dict)

    def take(
        self, changes: Sequence[Mapping[str, Any]], now: datetime, mutes: Sequence[Mute] = ()
    ) -> list[Message]:
        """Take in changes of state, as rows of `TRANSITIONS` in their order; what to tell now.

        Of what has begun and ended since the last call nobody is told; the history has it.
        """
        windows: dict[datetime, list[Mapping[str, Any]]] = defaultdict(list)
        for row in changes:
            if not row["late"]:
                windows[row["window_start"]].append(row)
        for rows in windows.values():
            self._window(rows)
        muted = frozenset(mute.fingerprint for mute in mutes if mute.holds(now))
        messages = []
        for key, incident in list(self.open.items()):
            kind = self._news(incident, now, muted)
            if kind:
                messages.append(_message(incident, kind, now, muted))
                incident.told = incident.severity(muted)
                incident.told_at, incident.messages = now, incident.messages + 1
            if not incident.members:
                del self.open[key]
        return messages

    def _news(self, incident: Incident, now: datetime, muted: frozenset[str]) -> Kind | None:
        if not incident.members:
            return "resolved" if incident.told > OK else None
        severity = incident.severity(muted)
        if severity == OK:
            return None
        if incident.told_at is None or incident.told == OK:
            return "firing"
        if severity > incident.told:
            return "worse"
        return "reminder" if now - incident.told_at >= self.remind else None

    def _window(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take in the changes of one window."""
        homes = {f: incident for incident in self.open.values() for f in incident.members}
        strangers = []
        for row in rows:
            home = homes.get(row["fingerprint"])
            if row["after"] == "firing":
                if home is None:
                    strangers.append(row)
                else:
                    home.members[row["fingerprint"]] = _member(row)
                    home.until = row["window_end"]
            elif row["after"] not in ALERTING and home is not None:
                del home.members[row["fingerprint"]]
        for row in list(strangers):
            home = self._about(row)
            if home is not None:
                home.members[row["fingerprint"]] = _member(row)
                home.until = row["window_end"]
                strangers.remove(row)
        for group in self._causes(strangers):
            root = min(group, key=self._order)
            key = f"{root['fingerprint']}-{root['window_start']:%Y%m%dT%H%M%S}"
            self.open[key] = Incident(
                key=key,
                **{name: root[name] for name in ("model", "version", "segment")},
                since=root["window_start"],
                until=root["window_end"],
                root=_member(root),
                members={row["fingerprint"]: _member(row) for row in group},
            )

    def _about(self, row: Mapping[str, Any]) -> Incident | None:
        """Find the open incident of the same place about what this alert's column comes from."""
        source = self._source(row["column"])
        for incident in self.open.values():
            same = all(getattr(incident, part) == row[part] for part in _PLACE)
            if same and incident.members and source is not None:
                sources = {self._source(each.column) for each in incident.members.values()}
                if source in sources:
                    return incident
        return None

    def _causes(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
        """Divide alerts of one window by what may have caused them."""
        places: dict[tuple[str, ...], dict[str | None, list[Any]]] = defaultdict(dict)
        for row in rows:
            column = row["column"]
            declared = self._source(column) if column in self.upstream else None
            place = places[tuple(row[part] for part in _PLACE)]
            place.setdefault(declared, []).append(row)
        for place in places.values():
            # What has no declared source goes with most of the others.
            unknown = place.pop(None, [])
            groups = sorted(place.values(), key=len, reverse=True) or [[]]
            groups[0].extend(unknown)
            yield from groups

    def _source(self, column: str | None) -> str | None:
        """Follow a column to where it comes from; itself where that is not known."""
        met = {column}
        while column is not None and (column := self.upstream.get(column, column)) not in met:
            met.add(column)
        return column

    def _depth(self, column: str | None) -> int:
        """Steps between a column and where it comes from."""
        met = {column}
        while column is not None and (column := self.upstream.get(column)) not in met:
            met.add(column)
        return len(met)

    def _order(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """Upstream first, then the most severe, then the furthest beyond its limit."""
        column = row["column"]
        member = _member(row)
        return (
            column is None or column in self.outputs,
            _UPSTREAM.get(registry.get(row["metric"]).family, len(_UPSTREAM)),
            self._depth(column),
            -member.severity,
            -member.excess,
            (column or "", row["check"]),
        )


_PLACE = ("model", "version", "segment")


def _member(row: Mapping[str, Any]) -> Member:
    names = ("fingerprint", "check", "column", "metric", "value", "low", "high", "n")
    return Member(**{name: row[name] for name in names}, severity=_CODES[row["severity"]])


def _message(incident: Incident, kind: Kind, now: datetime, muted: frozenset[str]) -> Message:
    others = [
        member
        for each, member in incident.members.items()
        if each != incident.root.fingerprint and each not in muted
    ]
    root = incident.members.get(incident.root.fingerprint, incident.root)
    return Message(
        incident=incident.key,
        number=incident.messages + 1,
        kind=kind,
        severity=SEVERITIES[incident.told if kind == "resolved" else incident.severity(muted)],
        **{part: getattr(incident, part) for part in (*_PLACE, "since", "until")},
        root=root,
        more=tuple(sorted(others, key=lambda each: (-each.severity, -each.excess, each.check))),
        at=now,
    )


def sample(kind: Kind = "firing") -> Message:
    """Make a message to look at: what a template or a new sink is tried on.

    >>> sample("resolved").title
    'RESOLVED flights: psi of distance is back within its limits'
    """
    one = Member(
        fingerprint="4d0f0e3a11c20b77",
        check="psi by drift_null",
        column="distance",
        metric="psi",
        severity=CRITICAL,
        value=0.41,
        low=None,
        high=0.05,
        n=4210,
    )
    others = (
        replace(one, column="air_time", fingerprint="5d0f0e3a11c20b77"),
        replace(one, column="dest", fingerprint="6d0f0e3a11c20b77", severity=WARNING),
    )
    start = datetime.fromisoformat("2026-05-01T10:00:00+00:00")
    return Message(
        incident="4d0f0e3a11c20b77-20260501T100000",
        number=1,
        kind=kind,
        severity="critical",
        model="flights",
        version="",
        segment="all",
        since=start,
        until=start + timedelta(hours=1),
        root=one,
        more=() if kind == "resolved" else others,
        at=start + timedelta(hours=1, minutes=2),
    )


def _beyond(member: Member) -> str:
    """Say a value beside the limit it is beyond."""
    value = "unknown" if member.value is None else f"{member.value:.3g}"
    if member.value is not None and member.high is not None and member.value > member.high:
        return f"{value}, over {member.high:.3g}"
    if member.value is not None and member.low is not None and member.value < member.low:
        return f"{value}, under {member.low:.3g}"
    return value


def _written(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
