"""The client: `log` and `label` put events in a queue, a thread behind it sends them.

Nothing here waits for the network, raises because of it, or holds up the service that logs. What
cannot be sent is counted, by cause, and the server is told.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import inspect
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from ipaddress import ip_address
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, get_args
from uuid import uuid4
from weakref import WeakSet

import numpy as np
import pyarrow as pa

from tidegauge._core import DataError
from tidegauge.ingest import as_table
from tidegauge.server.row import ROW_BYTES, VALUE_BYTES, examine, is_row, weigh
from tidegauge.server.waiting import Limits, OnFull, Pile, Request, Waiting

if TYPE_CHECKING:
    from types import TracebackType

    from tidegauge.server.sender import Sender
    from tidegauge.server.transport import Address

logger = logging.getLogger("tidegauge.client")

P = ParamSpec("P")
R = TypeVar("R")

AT_EXIT = 5.0  # seconds that a process waits at its end for what is still to be sent
SPILL_BYTES = 1 << 30
TABLE_BYTES = 1 << 20  # of a request that a table is cut into,
TABLE_CELLS = 1 << 18  # and its values
PORT = 7433


@dataclass(frozen=True, slots=True)
class ClientStats:
    """What became of the rows handed to a client, so far.

    offered = delivered + waiting + queue_full + expired + refused + late

    Parameters
    ----------
    offered
        Rows handed to `log` and `label`, and those that an earlier process left in the spill.
    delivered
        Rows that the server has acknowledged: they are on its disk.
    waiting
        Rows in memory or in the spill.
    queue_full, expired, refused
        Rows dropped: there was no room; they waited for too long; the server, or the packing of
        them, refused them for good.
    late
        Rows handed over after `close`.
    duplicates, rejected
        Of those delivered, rows that the server knew already, and rows that it counts as integrity
        failures.
    requests, retries, replayed
        Requests that were acknowledged; how often one was sent again; how many of them had been
        taken before.
    bytes
        Memory that waiting rows take, by estimate, and waiting requests, exactly.
    """

    offered: int
    delivered: int
    waiting: int
    queue_full: int
    expired: int
    refused: int
    late: int
    duplicates: int
    rejected: int
    requests: int
    retries: int
    replayed: int
    bytes: int

    @property
    def dropped(self) -> int:
        """Rows that the server will never see.

        >>> ClientStats(9, 5, 1, 2, 1, 0, 0, 0, 0, 1, 0, 0, 0).dropped
        3
        """
        return self.queue_full + self.expired + self.refused + self.late

    @property
    def balanced(self) -> bool:
        """Whether every row is accounted for; always true.

        >>> ClientStats(9, 5, 1, 2, 1, 0, 0, 0, 0, 1, 0, 0, 0).balanced
        True
        """
        return self.offered == self.delivered + self.waiting + self.dropped


class Client:
    """Sends predictions and labels of a model to a server, behind the back of the service.

    Parameters
    ----------
    target
        Where the server is: "host:port", "grpc://host:port", "grpcs://host:port" for TLS.
    model
        Name of the model.
    version
        Version of the model, for rows that name none themselves.
    token
        Bearer token, if the server asks for one.
    ca, certificate, key
        Files in PEM: who vouches for the server, the system's own unless given; and who we are,
        where the server asks for it. Any of them means TLS.
    insecure
        Allow a server elsewhere to be spoken to without TLS.
    timestamp
        Column that gets the time of the call where a row or table lacks it.
    on_full
        What happens to a row for which there is no room: "drop_newest" counts it and lets it go,
        "block" waits for room, "spill" keeps older requests in files.
    block_timeout
        Seconds that "block" waits before it drops, for ever if None.
    spill
        Folder of those files, one for each model. What a process leaves there the next one sends.
    spill_bytes
        Most that lies there.
    batch_rows, linger
        A request is sent when so many rows wait, or the first of them has waited so many seconds.
    max_rows, max_bytes
        Most that waits in memory: rows of either kind, and bytes of everything.
    time_to_live
        Seconds after which rows that could not be sent are dropped; those in a spill never are.

    Notes
    -----
    A call takes about two microseconds for a row of twenty values and never waits for the network.
    Calls may come from any thread, from coroutines and from signal handlers. Before a fork the
    sending thread comes to rest; the child begins with nothing, the parent goes on. At the end of
    the process five seconds are given to what is still to be sent.

    >>> import tidegauge as tg
    >>> client = tg.Client("localhost:7433", model="flights", timestamp="departure")
    >>> client.log({"flight_id": 17, "carrier": "UA", "p_late": 0.31})
    1
    >>> client.label({"flight_id": 17, "late": False})
    1
    >>> client.stats().offered
    2
    >>> client.close(timeout=0)  # nobody listens there
    False
    """

    def __init__(
        self,
        target: str,
        *,
        model: str,
        version: str | None = None,
        token: str | None = None,
        ca: str | Path | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        insecure: bool = False,
        timestamp: str | None = None,
        on_full: OnFull = "drop_newest",
        block_timeout: float | None = 30.0,
        spill: str | Path | None = None,
        spill_bytes: int = SPILL_BYTES,
        batch_rows: int = 1000,
        linger: float = 0.2,
        max_rows: int = 100_000,
        max_bytes: int = 64 << 20,
        time_to_live: float = 300.0,
    ) -> None:
        if on_full not in get_args(OnFull):
            allowed = ", ".join(map(repr, get_args(OnFull)))
            raise ValueError(f"on_full is one of {allowed}, got {on_full!r}")
        if (on_full == "spill") != (spill is not None):
            raise ValueError("on_full='spill' and a folder, spill='...', go together")
        if min(batch_rows, max_rows, max_bytes) < 1:
            raise ValueError("batch_rows, max_rows and max_bytes are 1 or more")
        if not isinstance(model, str) or not model:
            raise ValueError(f"model is the name of a model, got {model!r}")
        self.model = model
        self.version = version
        self.timestamp = timestamp
        self.address = address_of(
            target, token=token, ca=ca, certificate=certificate, key=key, insecure=insecure
        )
        self._limits = Limits(
            batch_rows=batch_rows,
            linger=linger,
            max_rows=max_rows,
            max_bytes=max_bytes,
            time_to_live=time_to_live,
            on_full=on_full,
            block_timeout=block_timeout,
        )
        self._spill = None if spill is None else Path(spill)
        self._spill_bytes = spill_bytes
        self.begin()
        with FORKING:
            CLIENTS.add(self)

    def begin(self) -> None:
        """Begin with nothing: at first, and in the child of a fork."""
        self._waiting = Waiting(self._limits)
        self._predictions = self._waiting.piles["predictions"]
        self._outcomes = self._waiting.piles["outcomes"]
        self._sender: Sender | None = None
        self._starting = threading.RLock()
        self._pid = os.getpid()
        self._closed = False
        self._late = 0

    def __repr__(self) -> str:
        return f"<Client {self.model!r} at {self.address!r}>"

    # -- events ------------------------------------------------------------------------------------

    def log(self, data: object) -> int:
        """Hand over predictions: one row, or a table of them.

        Parameters
        ----------
        data
            A row is a dict of column to value: numbers, booleans, text, bytes, datetimes with a
            zone, vectors, None. Vectors are copied, and so is the dict. A table is anything with
            the Arrow PyCapsule protocol, or a dict of arrays.

        Returns
        -------
        int
            Rows taken: fewer than there are, where there was no room for all.

        Raises
        ------
        DataError
            When a value cannot be sent, whatever the state of the network; nothing is taken then.
        """
        return self._take(self._predictions, data)

    def label(self, data: object) -> int:
        """Hand over outcomes, as `log` takes predictions: the id, the label and perhaps its time.

        Labels are sent in the order in which they were handed over, so that of two for one id the
        later one holds.
        """
        return self._take(self._outcomes, data)

    def _take(self, pile: Pile, data: object) -> int:
        if isinstance(data, dict):
            row = data.copy()
        elif isinstance(data, Mapping):
            row = dict(data)
        else:
            return self._take_table(pile, data)
        size = weigh(row)
        if size < 0:
            if not is_row(row):
                return self._take_table(pile, row)
            size = examine(row)
        if self.timestamp is not None and self.timestamp not in row:
            row[self.timestamp] = datetime.now(UTC)
        if self._closed or not row:
            return self._take_nothing(row)
        size += ROW_BYTES + row.__sizeof__() + VALUE_BYTES * len(row)
        n = self._waiting.put(pile, row, size)
        if (n <= 1 or n % self._limits.batch_rows == 0) and not self._wake():
            return self._take(self._waiting.piles[pile.lane], data)
        return 1 if n else 0

    def _take_nothing(self, row: Mapping[str, Any]) -> int:
        if not self._closed:
            raise DataError("a row without columns; give a dict of column name to value")
        with self._waiting.lock:
            self._late += 1
            self._waiting.counts.offered += 1
        return 0

    def _take_table(self, pile: Pile, data: object) -> int:
        """Pack a table here and now: no row of it is looked at one by one."""
        table = as_table(data)
        if self.timestamp is not None and self.timestamp not in table.column_names:
            now = np.full(table.num_rows, np.datetime64(datetime.now(UTC).replace(tzinfo=None)))
            table = table.append_column(self.timestamp, pa.array(now))
        if self._closed:
            with self._waiting.lock:
                self._late += table.num_rows
                self._waiting.counts.offered += table.num_rows
            return 0
        requests = self._requests(pile, table)
        first = next(requests, None)  # what cannot be packed is refused before any of it is taken
        if first is None:
            return 0
        self._wake()
        taken = self._waiting.put_packed([first])
        return taken + self._waiting.put_packed(requests)

    def _requests(self, pile: Pile, table: pa.Table) -> Iterator[Request]:
        from tidegauge.server.batches import pack
        from tidegauge.server.refused import Refused

        sender = self._live_sender()
        row_bytes = table.nbytes / max(table.num_rows, 1)
        rows = min(TABLE_BYTES / max(row_bytes, 1), TABLE_CELLS / max(table.num_columns, 1))
        for batch in table.to_batches(max_chunksize=max(int(rows), 1)):
            if batch.num_rows:
                try:
                    yield from sender.cutter.cut(pile.lane, pack(batch), monotonic())
                except Refused as error:
                    raise DataError(str(error)) from None

    def watch(
        self, *, prediction: str | None = None, prediction_id: str | None = None
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Log what goes into a function and what comes out of it.

        Parameters
        ----------
        prediction
            Column of what the function returns, where that is not a dict of columns itself.
        prediction_id
            Column of an id that is made for rows that have none.

        Returns
        -------
        callable
            A decorator, of functions and of coroutine functions, whose first argument is a row or
            a table. Trouble with logging is reported by `logging`, once, and never raised.

        >>> client = Client("localhost:7433", model="flights")
        >>> @client.watch(prediction="p_late")
        ... def predict(row):
        ...     return 0.31
        >>> predict({"flight_id": 17, "carrier": "UA"})
        0.31
        >>> client.stats().offered
        1
        >>> client.close(timeout=0)
        False
        """

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            note = functools.partial(self._note, prediction, prediction_id, set())
            if inspect.iscoroutinefunction(function):

                @functools.wraps(function)
                async def wait(*args: P.args, **kwargs: P.kwargs) -> Any:
                    result = await function(*args, **kwargs)
                    note(args[0] if args else next(iter(kwargs.values())), result)
                    return result

                return cast("Callable[P, R]", wait)

            @functools.wraps(function)
            def call(*args: P.args, **kwargs: P.kwargs) -> R:
                result = function(*args, **kwargs)
                note(args[0] if args else next(iter(kwargs.values())), result)
                return result

            return call

        return decorate

    def _note(
        self,
        prediction: str | None,
        prediction_id: str | None,
        said: set[str],
        given: object,
        result: object,
    ) -> None:
        try:
            self.log(observation(given, result, prediction, prediction_id))
        except Exception as error:
            if str(error) not in said and not said:
                said.add(str(error))
                logger.warning("a prediction could not be logged: %s", error)

    # -- the sending thread ------------------------------------------------------------------------

    def _live_sender(self) -> Sender:
        """Make the sender on the first event of a process: nothing of gRPC is there before."""
        sender = self._sender
        if sender is None:
            with self._starting:
                sender = self._sender
                if sender is None:
                    sender = self._sender = self._new_sender()
        return sender

    def _new_sender(self) -> Sender:
        from tidegauge.server.sender import Cutter, Sender
        from tidegauge.server.spill import Spill

        spill = None
        if self._spill is not None:
            spill = Spill(self._spill, max_bytes=self._spill_bytes)
        cutter = Cutter(self.model, self.version or "")
        return Sender(self._waiting, self.address, cutter, spill)

    def _wake(self) -> bool:
        """Tell the sender; False, beginning anew, after a fork that Python was not told of."""
        if self._pid != os.getpid():
            self.begin()
            return False
        sender = self._sender
        if sender is None or not sender.running:
            with self._starting:
                sender = self._live_sender()
                if not sender.running and not self._closed:
                    sender.start()
                    close_with_the_process()
        self._waiting.mailbox.put(None)
        return True

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until what became of every row handed over so far is known.

        Parameters
        ----------
        timeout
            Seconds to wait, for ever if None.

        Returns
        -------
        bool
            Whether it is known; what it is, `stats` says.
        """
        waiting = self._waiting
        with waiting.lock:
            if self._closed or not waiting.rows:  # what a spill has kept, the next process sends
                return not waiting.rows
            waiting.flushes += 1
            mine = waiting.flushes
        self._wake()
        with waiting.lock:
            return waiting.changed.wait_for(lambda: waiting.flushed >= mine, timeout)

    async def aflush(self, timeout: float | None = None) -> bool:
        """Wait as `flush` does, while other coroutines run."""
        return await asyncio.to_thread(self.flush, timeout)

    def close(self, timeout: float | None = AT_EXIT) -> bool:
        """Send what is left and stop; what has not left after the timeout is dropped, or spilled.

        Returns
        -------
        bool
            Whether everything has left.
        """
        if self._closed:
            return True
        sent = self.flush(timeout)
        self._closed = True
        sender = self._sender
        if sender is not None:
            sender.pause()
            lost = sender.abandon()
            if lost:
                logger.warning("%d rows were not delivered to %r", lost, self.address)
        return sent

    def stats(self) -> ClientStats:
        """Count what became of every row handed over so far."""
        waiting = self._waiting
        with waiting.lock:
            counts = waiting.counts
            return ClientStats(
                offered=counts.offered,
                delivered=counts.delivered,
                waiting=waiting.rows,
                **counts.dropped,
                late=self._late,
                duplicates=counts.duplicates,
                rejected=counts.rejected,
                requests=counts.requests,
                retries=counts.retries,
                replayed=counts.replayed,
                bytes=waiting.bytes,
            )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.close)

    def observe(self, listener: Callable[[Request, float], None]) -> None:
        """Call a function with every request that is acknowledged and the seconds that it took.

        In the sending thread, which waits for it.
        """
        self._live_sender().on_kept = listener

    def rest(self) -> bool:
        """Bring the sending thread to rest, and let nobody start it until `resume`."""
        self._starting.acquire()
        ran = self._sender is not None and self._sender.running
        if ran and self._sender is not None:
            self._sender.pause()
        return ran

    def resume(self, *, ran: bool) -> None:
        """Go on after `rest`."""
        if ran and self._sender is not None:
            self._sender.start()
        self._starting.release()


def observation(
    given: object, result: object, prediction: str | None, prediction_id: str | None
) -> dict[str, Any]:
    """Put together what went into a function and what came out, as `Client.watch` logs it.

    >>> observation({"id": 1, "x": 0.5}, 0.25, "score", None)
    {'id': 1, 'x': 0.5, 'score': 0.25}
    """
    if isinstance(given, Mapping):
        seen = dict(given)
    else:
        table = as_table(given)
        seen = {name: table[name].combine_chunks() for name in table.column_names}
    if isinstance(result, Mapping):
        seen |= result
    elif prediction is not None:
        seen[prediction] = result
    else:
        raise DataError("the function returns no dict of columns: say prediction='column'")
    if prediction_id is not None and prediction_id not in seen:
        if is_row(seen):
            seen[prediction_id] = uuid4().hex
        else:
            n = len(next(iter(seen.values())))
            seen[prediction_id] = [uuid4().hex for _ in range(n)]
    return seen


def address_of(
    target: str,
    *,
    token: str | None = None,
    ca: str | Path | None = None,
    certificate: str | Path | None = None,
    key: str | Path | None = None,
    insecure: bool = False,
) -> Address:
    """Read where a server is; without TLS it must be on this machine, unless `insecure` says so.

    >>> address_of("localhost")
    grpc://localhost:7433
    >>> address_of("monitor.example.org:443")
    Traceback (most recent call last):
    ValueError: monitor.example.org:443 is another machine: ask for TLS ('grpcs://...' or ...
    """
    try:
        transport = import_module("tidegauge.server.transport")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is needed here and not installed: pip install 'tidegauge[client]'"
        ) from None
    scheme, place = "", target
    if not target.startswith(("unix:", "unix-abstract:")):
        scheme, _, place = target.rpartition("://")
        if scheme not in ("", "grpc", "grpcs"):
            raise ValueError(f"target is host:port, grpc://... or grpcs://..., got {target!r}")
        host, colon, port = place.rpartition(":")
        if not (colon and host and port.isdigit()) or (":" in host and not host.endswith("]")):
            host, port = place, str(PORT)
        place = f"{host}:{port}"
    if (certificate is None) != (key is None):
        raise ValueError("certificate and key go together")
    files = [None if path is None else Path(path).read_bytes() for path in (ca, certificate, key)]
    tls = scheme == "grpcs" or any(files)
    if not (tls or insecure or _is_local(place)):
        raise ValueError(
            f"{place} is another machine: ask for TLS ('grpcs://...' or ca=...), or say insecure="
            "True if everything, tokens too, may be read on the way"
        )
    address: Address = transport.Address(place, tls, *files, token)
    return address


def _is_local(place: str) -> bool:
    if place.startswith("unix"):
        return True
    host = place.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


# -- forks and the end of the process --------------------------------------------------------------

CLIENTS: WeakSet[Client] = WeakSet()
FORKING = threading.RLock()
_resting: list[tuple[Client, bool]] = []
_finalizer_of = 0  # process whose multiprocessing closes its clients


def _before_fork() -> None:
    FORKING.acquire()
    for client in list(CLIENTS):
        _resting.append((client, client.rest()))


def _after_in_parent() -> None:
    for client, ran in _resting:
        client.resume(ran=ran)
    _resting.clear()
    FORKING.release()


def _after_in_child() -> None:
    global FORKING  # noqa: PLW0603
    FORKING = threading.RLock()
    for client, _ in _resting:
        client.begin()
    _resting.clear()


def close_all() -> None:
    """Close every client of the process, within `AT_EXIT` seconds in all."""
    until = monotonic() + AT_EXIT
    for client in list(CLIENTS):
        client.close(max(until - monotonic(), 0.0))


def close_with_the_process() -> None:
    """Close the clients of a child of multiprocessing too, which ends without `atexit`."""
    global _finalizer_of  # noqa: PLW0603
    process = sys.modules.get("multiprocessing.process")
    if process is None or process.parent_process() is None or _finalizer_of == os.getpid():
        return
    _finalizer_of = os.getpid()
    import_module("multiprocessing.util").Finalize(None, close_all, exitpriority=100)


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
atexit.register(close_all)
