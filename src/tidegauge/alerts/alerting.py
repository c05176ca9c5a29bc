"""Alerts as one thing to own: a watch that is kept in a store, and people told through sinks."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tidegauge.alerts.courier import Courier
from tidegauge.alerts.incidents import Incident, Incidents, Mute
from tidegauge.alerts.sinks import Sink
from tidegauge.alerts.watch import Check, Watch, in_order
from tidegauge.monitor import Monitor
from tidegauge.window import SECOND, parse_duration

if TYPE_CHECKING:
    from tidegauge.store import Store


class Alerting:
    """Checks over a monitor that survive the process, and tell people.

    One update is one transaction: the values that were judged, the changes of state, the messages
    that people are to get and the state of the watch itself. So a process that dies in the middle
    of it goes on where the one before stood, and nothing is judged or told twice. Sinks have
    threads of their own; an update never waits for one.

    Parameters
    ----------
    checks
        What is watched.
    store
        A `tidegauge.store.Store`, or what one is opened by: a path or URL. Held in memory unless
        given.
    sinks
        Whom to tell.
    name
        Whose state in the store; two that work at the same time need two names.
    upstream
        What columns come from: alerts of different sources are different incidents.
    remind
        How long after the last message people are told again of what lasts.

    Examples
    --------
    >>> with Alerting([Check(metric="psi")]) as alerting:
    ...     alerting.open
    []
    """

    def __init__(
        self,
        checks: Sequence[Check],
        *,
        store: Store | str = "sqlite://",
        sinks: Iterable[Sink] = (),
        name: str = "alerts",
        upstream: Mapping[str, str] | None = None,
        remind: str = "1d",
    ) -> None:
        from tidegauge.store import Store

        self.name, self.sinks = name, tuple(sinks)
        named = [sink.name for sink in self.sinks]
        if len(set(named)) < len(named):
            raise ValueError(f"each sink has a name of its own, got {named}")
        self._remind = timedelta(seconds=parse_duration(remind, role="remind") / SECOND)
        self._checks, self._upstream = tuple(checks), dict(upstream or {})
        self._owns_store = isinstance(store, str)
        self.store = Store(store) if isinstance(store, str) else store
        self._lock = threading.Lock()
        self._me = uuid.uuid4().hex
        self._saved: tuple[str, dict[str, Any]] | None = None
        self._writer: str | None = None
        try:
            self._load(self.store.state(self.name))
        except BaseException:
            self._close_store()
            raise
        self._couriers = [Courier(self.store, sink) for sink in self.sinks]
        for courier in self._couriers:
            courier.start()

    def __enter__(self) -> Alerting:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Send what is due, for a few seconds, and let go of the store."""
        for courier in self._couriers:
            courier.close()
        self._close_store()

    def _close_store(self) -> None:
        if self._owns_store:
            self.store.close()

    @property
    def open(self) -> list[Incident]:
        """Incidents that are open, the oldest first."""
        return sorted(self._incidents.open.values(), key=lambda each: (each.since, each.key))

    def update(self, monitor: Monitor, *, now: datetime | None = None) -> pa.Table:
        """Judge the windows that have closed since the last call; call it when one has.

        Returns
        -------
        pyarrow.Table
            The changes of state, as `values.TRANSITIONS`, in the order of their windows.

        Raises
        ------
        StoreError
            When the store cannot be reached. Nothing has changed then; the next call judges the
            same windows.
        RuntimeError
            When another process works under the same name; its state is taken over.
        """
        if now is not None and now.tzinfo is None:
            raise ValueError(f"now needs a zone, got {now.isoformat()}")
        moment = datetime.now(UTC) if now is None else now
        with self._lock:
            try:
                return self._update(monitor, moment)
            except _Overtaken:
                self._load(self.store.state(self.name))
                if (self._writer or "").startswith(self._me):  # kept, though its answer was lost
                    return self._update(monitor, moment)
                raise RuntimeError(
                    f"another process has updated the alerts named {self.name!r}; give each a name "
                    "of its own, or let only one of them update"
                ) from None
            except BaseException:
                self._load(self._saved)
                raise

    def _update(self, monitor: Monitor, now: datetime) -> pa.Table:
        from tidegauge.store import Entry

        found = list(self._watch.steps(monitor))
        changes = in_order([each.changes for each in found])
        values = [each.values for each in found if each.values.num_rows]
        self._incidents.upstream = {**_made(monitor), **self._upstream}
        self._incidents.outputs = _outputs(monitor)
        mutes = [
            Mute(each["fingerprint"], each["until"], each["reason"]) for each in self.store.mutes()
        ]
        before = set(self._incidents.open)
        messages = self._incidents.take(changes.to_pylist(), now, mutes)
        if not values and not messages:
            return changes
        writer = f"{self._me}-{uuid.uuid4().hex}"
        latest: dict[str, dict[str, Any] | None] = {
            each.incident: each.to_dict() for each in messages
        }
        latest |= dict.fromkeys(before - set(self._incidents.open))
        saved = writer, self._state()
        entry = Entry(
            name=self.name,
            writer=writer,
            before=self._writer,
            state=saved[1],
            values=values,
            changes=changes,
            messages=[each.to_dict() for each in messages],
            sinks=[sink.name for sink in self.sinks],
            incidents=latest,
        )
        if not self.store.record(entry, now=now):
            raise _Overtaken
        self._writer, self._saved = writer, saved
        for courier in self._couriers:
            courier.call()
        return changes

    def _state(self) -> dict[str, Any]:
        incidents = [each.to_dict() for each in self._incidents.open.values()]
        return {"watch": self._watch.state(), "incidents": incidents}

    def _load(self, saved: tuple[str, dict[str, Any]] | None) -> None:
        """Go on from a state, or begin."""
        self._saved = saved
        self._watch = Watch(self._checks)
        self._incidents = Incidents(upstream=self._upstream, remind=self._remind)
        self._writer = None if saved is None else saved[0]
        if saved is not None:
            self._watch.restore(saved[1]["watch"])
            opened = [Incident.from_dict(each) for each in saved[1]["incidents"]]
            self._incidents.open = {each.key: each for each in opened}


class _Overtaken(Exception):
    """Somebody else has written under the name."""


def _made(monitor: Monitor) -> dict[str, str]:
    """What derived columns are made of, where it is one column."""
    made: dict[str, str] = {}
    for name, derivation in monitor.schema.derivations.items():
        if len(derivation.inputs) == 1:
            made |= dict.fromkeys(derivation.outputs(name), derivation.inputs[0])
    return made


def _outputs(monitor: Monitor) -> frozenset[str]:
    """Columns that the model makes."""
    schema = monitor.schema
    score = schema.prediction_score
    scores = score.values() if isinstance(score, Mapping) else [score]
    return frozenset(each for each in [*scores, schema.prediction] if each is not None)
