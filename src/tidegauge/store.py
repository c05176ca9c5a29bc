"""Results that outlast the process: metric values, alerts and their history, sums of windows.

SQLAlchemy Core on an SQLite file, or PostgreSQL by URL. Everything is keyed by what it is about, so
that writing it again changes nothing; a value that has changed is one more revision. The order of
rows is that of their windows, times and numbers, never that in which they were written.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeVar

import pyarrow as pa

try:
    import sqlalchemy as sql
    from sqlalchemy.dialects import postgresql, sqlite
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "keeping results needs SQLAlchemy: pip install 'tidegauge[store]'"
    ) from missing

from tidegauge._core import DataError
from tidegauge.values import METRIC_TABLE, TRANSITIONS
from tidegauge.window import SECOND, parse_duration

Revision = Literal["first", "last", "all"]
T = TypeVar("T")

MAX_WAITING = 10_000  # messages to one sink; beyond, the oldest are given up
CHUNK = 1000  # rows read with one statement
ALERTING = ("firing", "recovering")
NO_TIME = datetime(1, 1, 1, tzinfo=UTC)  # of what has one window over everything
LOCK = 0x7464_6761  # of PostgreSQL, while migrating
KEPT = {"metrics": None, "sums": None, "alerts": None, "messages": "30d"}

_log = logging.getLogger(__name__)

# Each is applied once, in its order, and never changed afterwards: files of it are about.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE tidegauge_series (
            id {identity}, model TEXT NOT NULL, version TEXT NOT NULL, segment TEXT NOT NULL,
            column_name TEXT NOT NULL, metric TEXT NOT NULL,
            UNIQUE (model, version, segment, column_name, metric))""",
        """CREATE TABLE tidegauge_values (
            series BIGINT NOT NULL REFERENCES tidegauge_series (id),
            window_start {instant} NOT NULL, window_end {instant} NOT NULL,
            revision INTEGER NOT NULL,
            value {real}, lower {real}, upper {real}, noise_floor {real}, reference_value {real},
            n BIGINT, n_reference BIGINT, label_share {real}, status TEXT NOT NULL,
            recorded_at {instant} NOT NULL,
            PRIMARY KEY (series, window_start, window_end, revision))""",
        "CREATE INDEX tidegauge_values_by_window ON tidegauge_values (window_start)",
        """CREATE VIEW tidegauge_metrics AS
            SELECT s.model, s.version, v.window_start, v.window_end, s.segment, s.column_name,
                s.metric, v.value, v.lower, v.upper, v.noise_floor, v.reference_value, v.n,
                v.n_reference, v.label_share, v.status, v.revision, v.recorded_at
            FROM tidegauge_values v JOIN tidegauge_series s ON s.id = v.series
            WHERE NOT EXISTS (
                SELECT 1 FROM tidegauge_values w WHERE w.series = v.series
                AND w.window_start = v.window_start AND w.window_end = v.window_end
                AND w.revision = v.revision + 1)""",
        """CREATE TABLE tidegauge_sums (
            model TEXT NOT NULL, source TEXT NOT NULL,
            window_start {instant} NOT NULL, window_end {instant} NOT NULL,
            format INTEGER NOT NULL, body {blob} NOT NULL, recorded_at {instant} NOT NULL,
            PRIMARY KEY (model, source, window_start, window_end))""",
        """CREATE TABLE tidegauge_alerts (
            fingerprint TEXT PRIMARY KEY, check_name TEXT NOT NULL, model TEXT NOT NULL,
            version TEXT NOT NULL, segment TEXT NOT NULL, column_name TEXT NOT NULL,
            metric TEXT NOT NULL, state TEXT NOT NULL, severity TEXT NOT NULL,
            since {instant} NOT NULL, window_start {instant} NOT NULL,
            window_end {instant} NOT NULL,
            value {real}, low {real}, high {real}, n BIGINT NOT NULL)""",
        """CREATE TABLE tidegauge_transitions (
            fingerprint TEXT NOT NULL, window_start {instant} NOT NULL, number INTEGER NOT NULL,
            window_end {instant} NOT NULL, check_name TEXT NOT NULL, model TEXT NOT NULL,
            version TEXT NOT NULL, segment TEXT NOT NULL, column_name TEXT NOT NULL,
            metric TEXT NOT NULL, state_before TEXT NOT NULL, state_after TEXT NOT NULL,
            severity TEXT NOT NULL, value {real}, low {real}, high {real}, n BIGINT NOT NULL,
            late BOOLEAN NOT NULL, recorded_at {instant} NOT NULL,
            PRIMARY KEY (fingerprint, window_start, number))""",
        "CREATE INDEX tidegauge_transitions_by_window ON tidegauge_transitions (window_start)",
        """CREATE TABLE tidegauge_mutes (
            fingerprint TEXT PRIMARY KEY, until {instant}, reason TEXT NOT NULL,
            created_at {instant} NOT NULL)""",
        """CREATE TABLE tidegauge_incidents (
            name TEXT PRIMARY KEY, message TEXT NOT NULL, updated_at {instant} NOT NULL)""",
        """CREATE TABLE tidegauge_outbox (
            incident TEXT NOT NULL, number INTEGER NOT NULL, sink TEXT NOT NULL,
            message TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL,
            created_at {instant} NOT NULL, due_at {instant} NOT NULL, error TEXT NOT NULL,
            PRIMARY KEY (incident, number, sink))""",
        "CREATE INDEX tidegauge_outbox_by_due ON tidegauge_outbox (sink, state, due_at)",
        """CREATE TABLE tidegauge_states (
            name TEXT PRIMARY KEY, writer TEXT NOT NULL, body {blob} NOT NULL,
            updated_at {instant} NOT NULL)""",
    ),
)
TYPES = {
    "sqlite": {
        "identity": "INTEGER PRIMARY KEY AUTOINCREMENT",
        "instant": "TIMESTAMP",
        "real": "REAL",
        "blob": "BLOB",
    },
    "postgresql": {
        "identity": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "instant": "TIMESTAMP WITH TIME ZONE",
        "real": "DOUBLE PRECISION",
        "blob": "BYTEA",
    },
}

# The tables of the last migration, as statements name them.


class Instant(sql.TypeDecorator[datetime]):  # type: ignore[misc]
    """A time in UTC, of which SQLite keeps the text."""

    impl = sql.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Write a time."""
        if value is None:
            return None
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Read a time."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_KINDS = {
    "text": sql.Text(),
    "integer": sql.BigInteger(),
    "real": sql.Double(),
    "blob": sql.LargeBinary(),
    "instant": Instant(),
    "yes": sql.Boolean(),
}
_WORDS = {  # that SQL has a meaning of its own for
    "check": "check_name",
    "column": "column_name",
    "before": "state_before",
    "after": "state_after",
}
_METADATA = sql.MetaData()


def _define(name: str, key: str, **kinds: str) -> Any:
    """Name a table's key and its columns, by kind."""
    columns = [
        sql.Column(
            _WORDS.get(column, column), _KINDS[kind], key=column, primary_key=column in key.split()
        )
        for kind, columns in kinds.items()
        for column in columns.split()
    ]
    return sql.Table(f"tidegauge_{name}", _METADATA, *columns)


_SERIES = _define("series", "id", integer="id", text="model version segment column metric")
_VALUES = _define(
    "values",
    "series window_start window_end revision",
    integer="series revision n n_reference",
    instant="window_start window_end recorded_at",
    real="value lower upper noise_floor reference_value label_share",
    text="status",
)
_SUMS = _define(
    "sums",
    "model source window_start window_end",
    text="model source",
    instant="window_start window_end recorded_at",
    integer="format",
    blob="body",
)
_ALERTS = _define(
    "alerts",
    "fingerprint",
    text="fingerprint check model version segment column metric state severity",
    instant="since window_start window_end",
    real="value low high",
    integer="n",
)
_TRANSITIONS = _define(
    "transitions",
    "fingerprint window_start number",
    text="fingerprint check model version segment column metric before after severity",
    instant="window_start window_end recorded_at",
    real="value low high",
    integer="number n",
    yes="late",
)
_MUTES = _define("mutes", "fingerprint", text="fingerprint reason", instant="until created_at")
_INCIDENTS = _define("incidents", "name", text="name message", instant="updated_at")
_OUTBOX = _define(
    "outbox",
    "incident number sink",
    text="incident sink message state error",
    integer="number attempts",
    instant="created_at due_at",
)
_STATES = _define("states", "name", text="name writer", blob="body", instant="updated_at")

_PLACE = ("model", "version", "segment", "column", "metric")
_MEASURED = tuple(METRIC_TABLE.names[METRIC_TABLE.names.index("value") :])
_JUDGED = ("value", "low", "high", "n")


class StoreError(OSError):
    """The store cannot be reached, or is not one of ours."""


class Waiting(NamedTuple):
    """A message that a sink has not had yet."""

    incident: str
    number: int
    message: dict[str, Any]
    attempts: int
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one update of alerts has found, and the state they are in afterwards.

    `writer` is of this entry alone, `before` the writer of the entry that it goes on from: so that
    of two processes that share a name one finds out.
    """

    name: str
    writer: str
    before: str | None
    state: Mapping[str, Any]
    values: Sequence[pa.Table]  # as `METRIC_TABLE`
    changes: pa.Table  # as `TRANSITIONS`
    messages: Sequence[Mapping[str, Any]]
    sinks: Sequence[str]
    incidents: Mapping[str, Mapping[str, Any] | None]  # latest message; None of one that is over


class Store:
    """Where results are kept.

    Parameters
    ----------
    url
        Path of an SQLite file, or an SQLAlchemy URL: "postgresql://user@host/database". Held in
        memory, and gone with the process, unless given.
    patience
        Seconds for which an unreachable database is tried again before an error is raised.

    Examples
    --------
    >>> store = Store()
    >>> store.metrics().num_rows
    0
    """

    def __init__(self, url: str = "sqlite://", *, patience: float = 30.0) -> None:
        self.url = url if "://" in url else f"sqlite:///{url}"
        self.patience = patience
        self._lock = threading.RLock()  # SQLite has one writer
        self._engine = _engine(self.url, patience)
        try:
            self.write(_migrate)
        except BaseException:
            self._engine.dispose()
            raise

    def __repr__(self) -> str:
        return f"Store({self._engine.url.render_as_string(hide_password=True)!r})"

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- transactions --------------------------------------------------------------------------

    def write(self, work: Callable[[Any], T]) -> T:
        """Do some work in one transaction, again from its start if the database goes away.

        Whether a commit came through before the connection broke is not known, so the work has to
        be such that doing it twice is the same as once.
        """
        return self._run(work, writes=True)

    def read(self, work: Callable[[Any], T]) -> T:
        """Ask something, in one transaction."""
        return self._run(work, writes=False)

    def _run(self, work: Callable[[Any], T], *, writes: bool) -> T:
        alone = self._engine.dialect.name == "sqlite"
        engine = self._engine.execution_options(writes=writes)
        give_up = time.monotonic() + self.patience
        for attempt in range(1_000_000):
            try:
                if not alone:
                    with engine.begin() as connection:
                        return work(connection)
                with self._lock, engine.begin() as connection:
                    return work(connection)
            except sql.exc.DBAPIError as error:
                left = give_up - time.monotonic()
                if not _passes(error) or left <= 0:
                    raise StoreError(f"{self!r}: {_said(error)}") from None
                _log.warning("%r cannot be reached (%s); trying again", self, _said(error))
                time.sleep(min(left, random.uniform(0.5, 1.0) * min(0.1 * 2**attempt, 5.0)))
        raise AssertionError

    def record(self, entry: Entry, *, now: datetime | None = None) -> bool:
        """Keep everything that one update has found, all of it or nothing.

        Returns
        -------
        bool
            False where another process has recorded something under this name in the meantime.
        """
        moment = now or _now()

        def work(connection: Any) -> bool:
            if not put_state(connection, entry, moment):
                return False
            for table in entry.values:
                put_metrics(connection, table, moment)
            put_transitions(connection, entry.changes, moment)
            put_messages(connection, entry.messages, entry.sinks, moment)
            put_incidents(connection, entry.incidents, moment)
            return True

        return self.write(work)

    def state(self, name: str) -> tuple[str, dict[str, Any]] | None:
        """What the last entry under this name left: its writer and its state."""
        query = sql.select(_STATES.c.writer, _STATES.c.body).where(_STATES.c.name == name)
        row = self.read(lambda connection: connection.execute(query).first())
        return None if row is None else (row[0], json.loads(zlib.decompress(bytes(row[1]))))

    # -- metric values -------------------------------------------------------------------------

    def put_metrics(self, table: pa.Table, *, now: datetime | None = None) -> int:
        """Keep metric values, as `METRIC_TABLE`; how many were new.

        A value that is there already is not written again; one that differs becomes the next
        revision of it, and the first stays.
        """
        return self.write(lambda connection: put_metrics(connection, table, now or _now()))

    def metrics(
        self,
        *,
        model: str | None = None,
        version: str | None = None,
        segment: str | None = None,
        column: str | None = None,
        metric: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        revision: Revision = "last",
    ) -> pa.Table:
        """Metric _VALUES, as `METRIC_TABLE`, in the order of their windows.

        Parameters
        ----------
        model, version, segment, column, metric
            Only these; all unless given. A column of "" is that of metrics of the whole model.
        start, end
            Windows that begin at or after `start` and before `end`.
        revision
            "last", "first" (as it was when the window was first judged) or "all".
        """
        query = sql.select(
            *(_SERIES.c[name] for name in _PLACE),
            *(_VALUES.c[name] for name in ("window_start", "window_end", *_MEASURED)),
        ).join_from(_VALUES, _SERIES, _VALUES.c.series == _SERIES.c.id)
        place = dict(zip(_PLACE, (model, version, segment, column, metric), strict=True))
        query = query.where(*(_SERIES.c[k] == v for k, v in place.items() if v is not None))
        query = query.where(*_between(_VALUES.c.window_start, start, end))
        if revision == "first":
            query = query.where(_VALUES.c.revision == 0)
        elif revision == "last":
            query = query.where(~_superseded(_VALUES))
        order = ("window_start", "window_end")
        query = query.order_by(
            *(_VALUES.c[name] for name in order),
            *(_SERIES.c[name] for name in _PLACE),
            _VALUES.c.revision,
        )
        rows = self.read(lambda connection: connection.execute(query).mappings().all())
        return _table(METRIC_TABLE, rows)

    # -- sums ----------------------------------------------------------------------------------

    def put_sums(
        self,
        body: bytes,
        *,
        model: str,
        window: tuple[datetime, datetime],
        source: str = "",
        format: int = 1,
        now: datetime | None = None,
    ) -> None:
        """Keep the sums of a window, as `Monitor.window_sums` says them, in place of earlier ones.

        `source` tells apart the processes that each have seen a part of the traffic.
        """
        row = {
            "model": model,
            "source": source,
            "window_start": window[0],
            "window_end": window[1],
            "format": format,
            "body": body,
            "recorded_at": now or _now(),
        }
        self.write(lambda connection: _upsert(connection, _SUMS, [row]))

    def sums(
        self, model: str, *, start: datetime | None = None, end: datetime | None = None
    ) -> list[bytes]:
        """Sums of a model's windows, every source's; `Monitor.add_window_sums` adds them up."""
        query = sql.select(_SUMS.c.body).where(
            _SUMS.c.model == model, *_between(_SUMS.c.window_start, start, end)
        )
        query = query.order_by(_SUMS.c.window_start, _SUMS.c.window_end, _SUMS.c.source)
        return [bytes(body) for (body,) in self.read(lambda c: c.execute(query).all())]

    # -- alerts --------------------------------------------------------------------------------

    def put_transitions(self, table: pa.Table, *, now: datetime | None = None) -> int:
        """Keep changes of state, as `TRANSITIONS`, and where alerts stand; how many were new."""
        return self.write(lambda connection: put_transitions(connection, table, now or _now()))

    def transitions(
        self,
        fingerprint: str | None = None,
        *,
        model: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> pa.Table:
        """History of alerts, as `TRANSITIONS`, in the order of their windows."""
        query = sql.select(*(_TRANSITIONS.c[name] for name in TRANSITIONS.names))
        given = {"fingerprint": fingerprint, "model": model}
        query = query.where(*(_TRANSITIONS.c[k] == v for k, v in given.items() if v is not None))
        query = query.where(*_between(_TRANSITIONS.c.window_start, start, end)).order_by(
            _TRANSITIONS.c.window_start,
            _TRANSITIONS.c.late,
            _TRANSITIONS.c.fingerprint,
            _TRANSITIONS.c.number,
        )
        return _table(TRANSITIONS, self.read(lambda c: c.execute(query).mappings().all()))

    def alerts(self, *, states: Sequence[str] = ALERTING) -> list[dict[str, Any]]:
        """Alerts in these states, the most severe and then the oldest first."""
        query = sql.select(*(column.label(column.key) for column in _ALERTS.c))
        query = query.where(_ALERTS.c.state.in_(states))
        rows = [dict(row) for row in self.read(lambda c: c.execute(query).mappings().all())]
        rank = ("critical", "warning")
        for row in rows:
            row["column"] = row["column"] or None
        return sorted(
            rows,
            key=lambda row: (
                rank.index(row["severity"]) if row["severity"] in rank else len(rank),
                row["since"],
                row["fingerprint"],
            ),
        )

    def mute(
        self,
        fingerprint: str,
        *,
        until: datetime | None = None,
        reason: str = "",
        now: datetime | None = None,
    ) -> None:
        """Silence an alert, or with the fingerprint of a root its incident; for good unless given.

        Raises
        ------
        ValueError
            When no alert has ever had such a fingerprint, or `until` has no zone.
        """
        if until is not None and until.tzinfo is None:
            raise ValueError(f"until needs a zone, got {until.isoformat()}")
        row = {
            "fingerprint": fingerprint,
            "until": until,
            "reason": reason,
            "created_at": now or _now(),
        }

        def work(connection: Any) -> bool:
            query = sql.select(_ALERTS.c.fingerprint).where(_ALERTS.c.fingerprint == fingerprint)
            if connection.execute(query).first() is None:
                return False
            _upsert(connection, _MUTES, [row])
            return True

        if not self.write(work):
            raise ValueError(f"there is no alert with the fingerprint {fingerprint!r}")

    def unmute(self, fingerprint: str) -> None:
        """Let an alert be heard again."""
        query = sql.delete(_MUTES).where(_MUTES.c.fingerprint == fingerprint)
        self.write(lambda connection: connection.execute(query))

    def mutes(self) -> list[dict[str, Any]]:
        """Silenced alerts, with `until`, `reason` and `created_at`."""
        query = sql.select(_MUTES).order_by(_MUTES.c.fingerprint)
        return [dict(row) for row in self.read(lambda c: c.execute(query).mappings().all())]

    # -- messages ------------------------------------------------------------------------------

    def waiting(self, sink: str, *, now: datetime, limit: int = 100) -> list[Waiting]:
        """Messages that are due, the oldest first; of an incident, only its next one."""
        earlier = _OUTBOX.alias()
        pending = sql.exists().where(
            earlier.c.incident == _OUTBOX.c.incident,
            earlier.c.sink == _OUTBOX.c.sink,
            earlier.c.number < _OUTBOX.c.number,
            earlier.c.state == "waiting",
        )
        query = (
            sql.select(*(_OUTBOX.c[name] for name in Waiting._fields))
            .where(
                _OUTBOX.c.sink == sink,
                _OUTBOX.c.state == "waiting",
                _OUTBOX.c.due_at <= now,
                ~pending,
            )
            .order_by(_OUTBOX.c.created_at, _OUTBOX.c.incident, _OUTBOX.c.number)
            .limit(limit)
        )
        rows = self.read(lambda connection: connection.execute(query).all())
        return [Waiting(*row)._replace(message=json.loads(row.message)) for row in rows]

    def claim(self, sink: str, waiting: Waiting, *, until: datetime) -> bool:
        """Take a message to send it; False where another process has taken it.

        Unless it is settled it is due again at `until`: its sender has died.
        """
        return self._settle(sink, waiting, {"attempts": waiting.attempts + 1, "due_at": until})

    def settle(
        self, sink: str, waiting: Waiting, *, error: str = "", again: datetime | None = None
    ) -> None:
        """Say how a claimed message went: sent, failed, or to be tried again at some time."""
        state = "waiting" if again else "failed" if error else "sent"
        values = {"state": state, "error": error} | ({"due_at": again} if again else {})
        self._settle(sink, waiting._replace(attempts=waiting.attempts + 1), values)

    def _settle(self, sink: str, waiting: Waiting, values: Mapping[str, Any]) -> bool:
        query = sql.update(_OUTBOX).values(**values)
        query = query.where(
            _OUTBOX.c.incident == waiting.incident,
            _OUTBOX.c.number == waiting.number,
            _OUTBOX.c.sink == sink,
            _OUTBOX.c.state == "waiting",
            _OUTBOX.c.attempts == waiting.attempts,
        )
        return bool(self.write(lambda connection: connection.execute(query).rowcount))

    def messages(self) -> list[dict[str, Any]]:
        """Every message to every sink, with its state: waiting, sent or failed."""
        query = sql.select(_OUTBOX).order_by(
            _OUTBOX.c.created_at, _OUTBOX.c.incident, _OUTBOX.c.number, _OUTBOX.c.sink
        )
        rows = self.read(lambda connection: connection.execute(query).mappings().all())
        return [{**row, "message": json.loads(row["message"])} for row in rows]

    def incidents(self) -> list[dict[str, Any]]:
        """The latest message of every incident that is open."""
        query = sql.select(_INCIDENTS.c.message).order_by(_INCIDENTS.c.name)
        rows = self.read(lambda connection: connection.execute(query).all())
        return [json.loads(message) for (message,) in rows]

    # -- retention -----------------------------------------------------------------------------

    def prune(
        self, kept: Mapping[str, str | None] | None = None, *, now: datetime | None = None
    ) -> dict[str, int]:
        """Drop what is too old; how many rows of each.

        Parameters
        ----------
        kept
            How long "metrics", "sums", "alerts" (their history) and "messages" are kept, such as
            "400d"; None is for ever. Messages 30 days and the rest for ever unless given. Age is
            that of the window, of messages that of their making; nothing that is still open goes.
        """
        unknown = set(kept or {}) - set(KEPT)
        if unknown:
            raise ValueError(f"unknown kind of results {sorted(unknown)}; known: {', '.join(KEPT)}")
        still = sql.select(_ALERTS.c.fingerprint).where(_ALERTS.c.state.in_(ALERTING))
        old: dict[str, Callable[[datetime], list[Any]]] = {
            "metrics": lambda t: [sql.delete(_VALUES).where(_VALUES.c.window_end < t)],
            "sums": lambda t: [sql.delete(_SUMS).where(_SUMS.c.window_end < t)],
            "alerts": lambda t: [
                sql.delete(_TRANSITIONS).where(
                    _TRANSITIONS.c.window_end < t, _TRANSITIONS.c.fingerprint.not_in(still)
                ),
                sql.delete(_ALERTS).where(
                    _ALERTS.c.window_end < t, _ALERTS.c.state.not_in(ALERTING)
                ),
            ],
            "messages": lambda t: [
                sql.delete(_OUTBOX).where(_OUTBOX.c.created_at < t, _OUTBOX.c.state != "waiting")
            ],
        }
        moment = now or _now()

        def work(connection: Any) -> dict[str, int]:
            dropped = {}
            for kind, age in {**KEPT, **(kept or {})}.items():
                if age is not None:
                    before = moment - timedelta(
                        seconds=parse_duration(age, role=f"age of {kind}") / SECOND
                    )
                    dropped[kind] = sum(connection.execute(q).rowcount for q in old[kind](before))
            return dropped

        return self.write(work)


# What a transaction is made of; each takes the connection.


def put_metrics(connection: Any, table: pa.Table, now: datetime) -> int:
    """Write metric values, within a transaction; how many were new."""
    if not table.num_rows:
        return 0
    rows = table.select(METRIC_TABLE.names).to_pylist()
    for row in rows:
        row["column"] = row["column"] or ""
        row["window_start"] = row["window_start"] or NO_TIME
        row["window_end"] = row["window_end"] or NO_TIME
    places = dict.fromkeys(tuple(row[name] for name in _PLACE) for row in rows)
    _insert(connection, _SERIES, [dict(zip(_PLACE, place, strict=True)) for place in places])
    models = sql.select(_SERIES).where(_SERIES.c.model.in_({place[0] for place in places}))
    ids = {
        tuple(row[name] for name in _PLACE): row["id"]
        for row in connection.execute(models).mappings()
    }
    keys = [
        (ids[tuple(row[name] for name in _PLACE)], row["window_start"], row["window_end"])
        for row in rows
    ]
    known: dict[Any, Mapping[str, Any]] = {}
    starts = sorted({key[1] for key in keys})
    for at in range(0, len(starts), CHUNK):
        found = sql.select(_VALUES).where(
            _VALUES.c.window_start.in_(starts[at : at + CHUNK]), ~_superseded(_VALUES)
        )
        if len(places) <= CHUNK:
            found = found.where(_VALUES.c.series.in_({key[0] for key in keys}))
        for row in connection.execute(found).mappings():
            known[row["series"], row["window_start"], row["window_end"]] = row
    new = {}
    for key, row in zip(keys, rows, strict=True):
        latest = known.get(key)
        if latest is None or any(latest[name] != row[name] for name in _MEASURED):
            new[key] = {
                "series": key[0],
                "revision": 0 if latest is None else latest["revision"] + 1,
                "recorded_at": now,
                **{name: row[name] for name in ("window_start", "window_end", *_MEASURED)},
            }
    return _insert(connection, _VALUES, list(new.values()))


def put_transitions(connection: Any, table: pa.Table, now: datetime) -> int:
    """Write changes of state, within a transaction, and where alerts stand; how many were new."""
    rows = table.select(TRANSITIONS.names).to_pylist()
    if not rows:
        return 0
    there: dict[tuple[str, datetime], list[tuple[Any, ...]]] = defaultdict(list)
    same = [name for name in TRANSITIONS.names if name not in ("fingerprint", "window_start")]
    prints = sorted({row["fingerprint"] for row in rows})
    for at in range(0, len(prints), CHUNK):
        query = sql.select(_TRANSITIONS).where(
            _TRANSITIONS.c.fingerprint.in_(prints[at : at + CHUNK]),
            _TRANSITIONS.c.window_start >= min(row["window_start"] for row in rows),
        )
        for row in connection.execute(query.order_by(_TRANSITIONS.c.number)).mappings():
            there[row["fingerprint"], row["window_start"]].append(tuple(row[k] for k in same))
    new, alerts = [], {}
    for row in rows:
        row["column"] = row["column"] or ""
        earlier = there[row["fingerprint"], row["window_start"]]
        facts = tuple(row[name] for name in same)
        if facts in earlier[-1:]:
            continue
        new.append({**row, "number": len(earlier), "recorded_at": now})
        earlier.append(facts)
        if not row["late"]:
            alerts[row["fingerprint"]] = {
                "state": row["after"],
                "since": row["window_start"],
                **{name: row[name] for name in ("fingerprint", "check", *_PLACE, "severity")},
                **{name: row[name] for name in ("window_start", "window_end", *_JUDGED)},
            }
    prints = sorted(alerts)
    for at in range(0, len(prints), CHUNK):
        query = sql.select(_ALERTS).where(_ALERTS.c.fingerprint.in_(prints[at : at + CHUNK]))
        for row in connection.execute(query).mappings():
            alert = alerts[row["fingerprint"]]
            if {row["state"], alert["state"]} <= set(ALERTING):
                alert["since"] = row["since"]
    _upsert(connection, _ALERTS, list(alerts.values()))
    return _insert(connection, _TRANSITIONS, new)


def put_messages(
    connection: Any, messages: Sequence[Mapping[str, Any]], sinks: Iterable[str], now: datetime
) -> None:
    """Write messages to every sink's outbox, within a transaction."""
    for sink in sinks:
        rows = [
            {
                "incident": message["incident"],
                "number": message["number"],
                "sink": sink,
                "message": json.dumps(message),
                "state": "waiting",
                "attempts": 0,
                "created_at": now,
                "due_at": now,
                "error": "",
            }
            for message in messages
        ]
        _insert(connection, _OUTBOX, rows)
        mine = (_OUTBOX.c.sink == sink, _OUTBOX.c.state == "waiting")
        count = connection.execute(sql.select(sql.func.count()).where(*mine)).scalar_one()
        if count > MAX_WAITING:
            _log.error(
                "sink %s: more than %d messages wait; the oldest are given up", sink, MAX_WAITING
            )
            key = (_OUTBOX.c.incident, _OUTBOX.c.number)
            oldest = sql.select(*key).where(*mine).order_by(_OUTBOX.c.created_at, *key)
            gone = connection.execute(oldest.limit(count - MAX_WAITING)).all()
            query = sql.update(_OUTBOX).values(state="failed", error="too many messages waited")
            for incident, number in gone:
                named = (key[0] == incident, key[1] == number)
                connection.execute(query.where(*mine, *named))


def put_incidents(
    connection: Any, latest: Mapping[str, Mapping[str, Any] | None], now: datetime
) -> None:
    """Write the latest message of incidents, None where one is no longer open."""
    rows = [
        {"name": key, "message": json.dumps(message), "updated_at": now}
        for key, message in latest.items()
        if message is not None
    ]
    _upsert(connection, _INCIDENTS, rows)
    closed = [key for key, message in latest.items() if message is None]
    for at in range(0, len(closed), CHUNK):
        query = sql.delete(_INCIDENTS).where(_INCIDENTS.c.name.in_(closed[at : at + CHUNK]))
        connection.execute(query)


def put_state(connection: Any, entry: Entry, now: datetime) -> bool:
    """Write the state of alerts in place of the one it went on from, within a transaction."""
    query = sql.select(_STATES.c.writer).where(_STATES.c.name == entry.name)
    if connection.dialect.name == "postgresql":
        query = query.with_for_update()
    if connection.execute(query).scalar_one_or_none() not in (entry.before, entry.writer):
        return False
    body = zlib.compress(json.dumps(entry.state).encode(), 1)
    row = {"name": entry.name, "writer": entry.writer, "body": body, "updated_at": now}
    _upsert(connection, _STATES, [row])
    return True


# The database.


def _now() -> datetime:
    return datetime.now(UTC)


def _said(error: Exception) -> str:
    """The database's own words, of which the first line says what is wrong."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]


def _passes(error: Any) -> bool:
    """Whether an error may be over soon: no server, a restart, a deadlock, a busy file."""
    if error.connection_invalidated:
        return True
    text = _said(error)
    if not isinstance(error, sql.exc.OperationalError | sql.exc.InterfaceError):
        return False
    if "sqlite" in type(error.orig).__module__:
        return "locked" in text
    # What no waiting mends: who may enter, and where to.
    lasting = ("password authentication", "does not exist", "no pg_hba.conf entry")
    return not any(words in text for words in lasting)


def _engine(url: str, patience: float) -> Any:
    """Connect to SQLite or PostgreSQL, each with the settings that keep what is committed."""
    try:
        parsed = sql.make_url(url)
    except sql.exc.ArgumentError:
        raise ValueError(f"not a database: {url.partition('://')[0]}://...") from None
    backend = parsed.get_backend_name()
    if backend in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
        try:
            return sql.create_engine(parsed, pool_pre_ping=True, connect_args=_PATIENT)
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "PostgreSQL needs psycopg: pip install 'tidegauge[postgres]'"
            ) from None
    if backend != "sqlite":
        raise ValueError(f"results are kept in SQLite or PostgreSQL, not in {backend!r}")
    memory = parsed.database in (None, "", ":memory:")
    engine = sql.create_engine(
        parsed,
        connect_args={"check_same_thread": False, "timeout": patience},
        **({"poolclass": sql.pool.StaticPool} if memory else {}),
    )

    def connected(connection: Any, _: object) -> None:
        connection.isolation_level = None  # transactions begin where we say so
        for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {setting}")

    def began(connection: Any) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    sql.event.listen(engine, "connect", connected)
    sql.event.listen(engine, "begin", began)
    return engine


_PATIENT = {"connect_timeout": 5, "keepalives_idle": 30, "keepalives_interval": 10}


def _migrate(connection: Any) -> None:
    """Bring the tables to this version's, step by step."""
    backend = connection.dialect.name
    if backend == "postgresql":
        connection.execute(sql.text(f"SELECT pg_advisory_xact_lock({LOCK})"))
    connection.execute(
        sql.text("CREATE TABLE IF NOT EXISTS tidegauge_schema (version INTEGER PRIMARY KEY)")
    )
    newest = sql.text("SELECT COALESCE(MAX(version), 0) FROM tidegauge_schema")
    version = connection.execute(newest).scalar_one()
    if version > len(MIGRATIONS):
        raise DataError(
            f"the store is of version {version}, written by a later Tidegauge; this one knows "
            f"version {len(MIGRATIONS)}: install that one, or take another store"
        )
    for number, statements in enumerate(MIGRATIONS[version:], version + 1):
        for statement in statements:
            connection.execute(sql.text(statement.format(**TYPES[backend])))
        connection.execute(
            sql.text("INSERT INTO tidegauge_schema (version) VALUES (:version)"),
            {"version": number},
        )


def _insert(connection: Any, table: Any, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert rows; those whose key is there already stay as they are."""
    if rows:
        statement = _dialect(connection).insert(table).on_conflict_do_nothing()
        connection.execute(statement, list(rows))
    return len(rows)


def _upsert(connection: Any, table: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, in place of those with the same key."""
    if rows:
        statement = _dialect(connection).insert(table)
        keys = list(table.primary_key)
        fresh = {c.key: statement.excluded[c.key] for c in table.c if c not in keys}
        connection.execute(
            statement.on_conflict_do_update(index_elements=keys, set_=fresh), list(rows)
        )


def _dialect(connection: Any) -> Any:
    return postgresql if connection.dialect.name == "postgresql" else sqlite


def _superseded(values: Any) -> Any:
    """Whether a value has a later revision."""
    later = values.alias()
    return sql.exists().where(
        later.c.series == values.c.series,
        later.c.window_start == values.c.window_start,
        later.c.window_end == values.c.window_end,
        later.c.revision == values.c.revision + 1,
    )


def _between(column: Any, start: datetime | None, end: datetime | None) -> list[Any]:
    found = [] if start is None else [column >= start]
    return found if end is None else [*found, column < end]


def _table(schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of ours."""

    def read(name: str, value: Any) -> Any:
        if name == "column":
            return value or None
        return None if name.startswith("window_") and value == NO_TIME else value

    arrays = []
    for field in schema:
        values = [read(field.name, row[field.name]) for row in rows]
        if pa.types.is_dictionary(field.type):
            arrays.append(pa.array(values, pa.string()).dictionary_encode().cast(field.type))
        else:
            arrays.append(pa.array(values, field.type))
    return pa.table(arrays, schema=schema)
