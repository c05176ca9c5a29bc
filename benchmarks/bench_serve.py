"""Rows a second and milliseconds to an acknowledgement of a server, next to plain Arrow Flight.

    python benchmarks/bench_serve.py [--seconds 2] [--only rpcs client flights] [--durability power]

A server in a process of its own, a client in this one, both on the same cores, loopback between
them. `rpcs` sends prepared messages of 1, 1,000 and 10,000 rows of 24 columns over the two ways
that the protocol has, over the bulk lane, and over Arrow Flight's DoPut to a server that counts
the rows and does nothing else: no journal, no join, no metrics. It is what the wire costs. `client`
is `tg.Client`, packing included, and what one `log` takes from its caller. `flights` replays the
flights of the demo. Before a number is printed the account of the server is compared with what was
sent.

Latency is from handing a message to gRPC to its reply, with so many on their way at once as the
table says. The processor's time is that of the server's process and of this one; where others use
the same cores, rows a second of it, `rows/CPU s`, says more than rows a second of the clock.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
from pyarrow import flight

import tidegauge as tg
from tidegauge import demo
from tidegauge.replay import Watcher, replay
from tidegauge.server.batches import pack
from tidegauge.server.client import address_of
from tidegauge.v1 import ingest_pb2, ingest_pb2_grpc

START = np.datetime64("2024-05-01", "us").astype(np.int64)
FLOATS = [f"x{i}" for i in range(17)]
CATEGORIES = {"plan": 5, "country": 50, "device": 500, "page": 5_000}
SCHEMA = tg.Schema(
    task="binary",
    prediction_id="id",
    timestamp="time",
    features=[*FLOATS, *CATEGORIES],
    prediction_score="score",
    label="late",
)
ROWS = (1, 1_000, 10_000)
IN_FLIGHT = 4
WARM_UP = 20  # messages


def batch(n: int, first: int) -> pa.RecordBatch:
    """Rows of 24 columns whose ids begin at `first`, a thousand a second."""
    random = np.random.default_rng(first)
    ids = np.arange(first, first + n)
    columns: dict[str, Any] = {
        "id": pa.array(ids),
        "time": pa.array(START + ids * 1_000, pa.timestamp("us", tz="UTC")),
        "score": pa.array(random.random(n)),
    }
    for name in FLOATS:
        columns[name] = pa.array(random.normal(size=n).astype(np.float32))
    for name, size in CATEGORIES.items():
        codes = random.integers(0, size, n, dtype=np.int32)
        used, codes = np.unique(codes, return_inverse=True)
        values = [f"{name}/{code}" for code in used]
        columns[name] = pa.DictionaryArray.from_arrays(codes.astype(np.int32), values)
    return pa.record_batch(columns)


# -- servers ---------------------------------------------------------------------------------------


@dataclass
class Served:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    ports: dict[str, int]  # by door

    @property
    def port(self) -> int:
        """Where it takes calls."""
        return self.ports["listening"]

    @property
    def cpu(self) -> float:
        """Seconds of the processor that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(*command: str) -> Iterator[Served]:
    """Start a server that says `DOOR on port N` on stderr, last of all `listening on port N`."""
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    ports: dict[str, int] = {}
    try:
        for line in process.stderr:
            if " on port " in line:
                door, _, port = line.removeprefix("tidegauge: ").partition(" on port ")
                ports[door] = int(port)
            if "listening" in ports:
                break
        drain = threading.Thread(target=process.stderr.read, daemon=True)
        drain.start()
        yield Served(process, ports)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def tidegauge(folder: Path, reference: tg.Reference, durability: str) -> Iterator[Served]:
    """Our server, with one model."""
    directory = Path(tempfile.mkdtemp(dir=folder))
    reference.save(directory / "reference.tide")
    config = directory / "tidegauge.toml"
    config.write_text(
        f'[listen]\naddress = "127.0.0.1:0"\nmessage = "16MiB"\n'
        f'[flight]\naddress = "127.0.0.1:0"\n'
        f'[storage]\ndirectory = "data"\ndurability = "{durability}"\n'
        f'[models.job]\nreference = "reference.tide"\n'
    )
    with serving("-m", "tidegauge.cli", "serve", f"--config={config}") as served:
        yield served


class CountingFlight(flight.FlightServerBase):
    """Takes batches, counts their rows and says so: what a bulk wire does without a journal."""

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        rows = 0
        for chunk in reader:
            rows += chunk.data.num_rows
            writer.write(pa.py_buffer(rows.to_bytes(8, "little")))


# -- lanes: send prepared messages, note when each was answered ------------------------------------


@dataclass(frozen=True)
class Sent:
    """What a lane has done in its time."""

    rows: int
    seconds: float
    latencies: list[float]
    server_cpu: float
    client_cpu: float

    def line(self, lane: str, n: int, in_flight: int) -> list[str]:
        p50, p99 = np.percentile(self.latencies, [50, 99]) * 1e3
        messages = len(self.latencies)
        return [
            lane,
            f"{n:,}",
            str(in_flight),
            f"{messages / self.seconds:,.0f}",
            f"{self.rows / self.seconds:,.0f}",
            f"{p50:.2f}",
            f"{p99:.2f}",
            f"{self.server_cpu / messages * 1e6:,.0f}",
            f"{self.client_cpu / messages * 1e6:,.0f}",
            f"{self.rows / (self.server_cpu + self.client_cpu):,.0f}",
        ]


@dataclass(frozen=True)
class Lane:
    """A way to a server: what is sent, how, and the seconds until the next answer."""

    served: Served
    in_flight: int
    messages: Iterator[Any]
    send: Callable[[Any], None]
    answer: Callable[[], float]


HEAD = ["lane", "rows", "in flight", "messages/s", "rows/s", "p50 ms", "p99 ms"]
HEAD += ["server us/msg", "client us/msg", "rows/CPU s"]


class Ids:
    """Ids that no other message has."""

    def __init__(self) -> None:
        self.next = 0

    def take(self, n: int) -> int:
        first, self.next = self.next, self.next + n
        return first


def requests(n: int, ids: Ids) -> Iterator[ingest_pb2.WritePredictionsRequest]:
    """Requests of so many rows; the ids are new, the features those of a few prepared ones."""
    made = [pack(batch(n, at)) for at in range(8)]
    for at in iter(int, 1):
        columns = made[at % len(made)]
        first = ids.take(n)
        numbers = np.arange(first, first + n)
        columns.columns[0].data = numbers.tobytes()
        columns.columns[1].data = (START + numbers * 1_000).tobytes()
        yield ingest_pb2.WritePredictionsRequest(
            model="job", request_id=uuid.uuid4().hex, columns=columns
        )


def unary(served: Served, n: int, in_flight: int, seconds: float, ids: Ids) -> Sent:
    """WritePredictions, so many calls at once."""
    with grpc.insecure_channel(f"localhost:{served.port}") as channel:
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        answered: SimpleQueue[tuple[float, Any]] = SimpleQueue()

        def send(request: Any) -> None:
            began = time.perf_counter()
            call = stub.WritePredictions.future(request)
            call.add_done_callback(lambda call: answered.put((time.perf_counter() - began, call)))

        def answer() -> float:
            latency, call = answered.get()
            assert call.result().outcome.accepted == n
            return latency

        return run(Lane(served, in_flight, requests(n, ids), send, answer), n, seconds)


def stream(served: Served, n: int, in_flight: int, seconds: float, ids: Ids) -> Sent:
    """StreamWrite, so many requests unanswered."""
    with grpc.insecure_channel(f"localhost:{served.port}") as channel:
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        outgoing: SimpleQueue[Any] = SimpleQueue()
        began: SimpleQueue[float] = SimpleQueue()
        replies = stub.StreamWrite(iter(outgoing.get, None))

        def send(request: Any) -> None:
            began.put(time.perf_counter())
            outgoing.put(ingest_pb2.StreamWriteRequest(predictions=request))

        def answer() -> float:
            reply = next(replies)
            assert reply.outcome.accepted == n, reply
            return time.perf_counter() - began.get()

        sent = run(Lane(served, in_flight, requests(n, ids), send, answer), n, seconds)
        outgoing.put(None)
        return sent


def bulk(served: Served, n: int, in_flight: int, seconds: float, ids: Ids) -> Sent:
    """The bulk lane, so many batches unacknowledged."""
    path = ("job", "predictions", uuid.uuid4().hex)
    return put(served, n, in_flight, seconds, ids, path=path, door="flight")


def put(
    served: Served,
    n: int,
    in_flight: int,
    seconds: float,
    ids: Ids,
    *,
    path: tuple[str, ...] = ("job",),
    door: str = "listening",
) -> Sent:
    """Flight's DoPut, so many batches unacknowledged."""
    made = [batch(n, at) for at in range(8)]
    with flight.connect(f"grpc://localhost:{served.ports[door]}") as client:
        descriptor = flight.FlightDescriptor.for_path(*path)
        writer, reader = client.do_put(descriptor, made[0].schema)
        began: SimpleQueue[float] = SimpleQueue()

        def messages() -> Iterator[pa.RecordBatch]:
            for at in iter(int, 1):
                first = ids.take(n)
                fresh = pa.array(np.arange(first, first + n))
                yield made[at % len(made)].set_column(0, "id", fresh)

        def send(message: pa.RecordBatch) -> None:
            began.put(time.perf_counter())
            writer.write_batch(message)

        def answer() -> float:
            assert reader.read() is not None
            return time.perf_counter() - began.get()

        sent = run(Lane(served, in_flight, messages(), send, answer), n, seconds)
        writer.done_writing()
        writer.close()
        return sent


def run(lane: Lane, n: int, seconds: float) -> Sent:
    """Keep messages on their way for so long, after some that are not measured."""
    for _ in range(WARM_UP):
        lane.send(next(lane.messages))
        lane.answer()
    latencies: list[float] = []
    waiting = 0
    began, cpu, own = time.perf_counter(), lane.served.cpu, time.process_time()
    while time.perf_counter() < began + seconds:
        lane.send(next(lane.messages))
        waiting += 1
        if waiting == lane.in_flight:
            latencies.append(lane.answer())
            waiting -= 1
    latencies += [lane.answer() for _ in range(waiting)]
    elapsed, used = time.perf_counter() - began, lane.served.cpu - cpu
    return Sent(len(latencies) * n, elapsed, latencies, used, time.process_time() - own)


def check(served: Served, sent: int) -> None:
    """The server has counted what was sent, and nothing twice."""
    account = Watcher(address_of(f"localhost:{served.port}"), "job").account()
    assert account["predictions"] == sent, (account, sent)
    assert account["duplicate_predictions"] == 0, account


# -- the parts -------------------------------------------------------------------------------------


def reference_of_job() -> tg.Reference:
    table = pa.Table.from_batches([batch(20_000, 0)])
    late = np.arange(20_000) % 3 == 0
    return tg.Reference.fit(table.append_column("late", pa.array(late)), SCHEMA)


def bench_rpcs(options: argparse.Namespace, folder: Path) -> None:
    print(f"\nprepared messages of 24 columns, durability {options.durability}")
    lines = []
    for n in ROWS:
        deep = 16 if n == 1 else IN_FLIGHT
        for lane, in_flight in ((unary, deep), (stream, 4 * deep), (bulk, 16)):
            with tidegauge(folder, reference_of_job(), options.durability) as served:
                ids = Ids()
                sent = lane(served, n, in_flight, options.seconds, ids)
                check(served, ids.next)
            lines.append(sent.line(lane.__name__, n, in_flight))
        with serving(__file__, "--serve-flight") as served:
            sent = put(served, n, 16, options.seconds, Ids())
        lines.append(sent.line("Flight, no journal", n, 16))
    show(HEAD, lines)


def bench_client(options: argparse.Namespace, folder: Path) -> None:
    print("\ntg.Client, packing included")
    lines = []
    reference = reference_of_job()
    for title, n in (("log(row)", 1), ("log(table)", 1_000), ("log(table)", 10_000)):
        with tidegauge(folder, reference, options.durability) as served:
            ids = Ids()
            latencies: list[float] = []
            made = [batch(max(n, 1_000), at) for at in range(4)]
            rows = made[0].to_pylist()
            with tg.Client(
                f"localhost:{served.port}", model="job", on_full="block", block_timeout=None
            ) as client:
                client.log(batch(1, ids.take(1)))
                client.flush()
                client.observe(lambda request, seconds, note=latencies: note.append(seconds))
                began, cpu, own = time.perf_counter(), served.cpu, time.process_time()
                end = began + options.seconds
                while time.perf_counter() < end:
                    if n == 1:
                        for row in rows:
                            row["id"] = ids.take(1)
                            client.log(row)
                    else:
                        first = ids.take(n)
                        fresh = pa.array(np.arange(first, first + n))
                        client.log(made[first // n % 4].set_column(0, "id", fresh))
                client.flush()
                elapsed, used = time.perf_counter() - began, served.cpu - cpu
                own = time.process_time() - own
                assert client.stats().delivered == ids.next
            check(served, ids.next)
        lines.append(Sent(ids.next, elapsed, latencies, used, own).line(title, n, IN_FLIGHT))
    show(HEAD, lines)
    costs = [cost_of_log(columns) for columns in (batch(1, 0), batch(1, 0).select(["id", *FLOATS]))]
    shown = ", ".join(
        f"{cost * 1e6:.2f} us for {n} values" for cost, n in zip(costs, (24, 18), strict=True)
    )
    print(f"one log(row) takes from its caller, CPU time: {shown}")


def cost_of_log(row: pa.RecordBatch) -> float:
    """Seconds of the caller's thread, nobody else running."""
    values = row.to_pylist()[0]
    client = tg.Client(
        "localhost:1",
        model="job",
        max_rows=1 << 40,
        max_bytes=1 << 50,
        linger=1e9,
        batch_rows=1 << 40,
    )
    rows = client._waiting.piles["predictions"].rows
    client.log(values)
    times = []
    for _ in range(200):
        began = time.thread_time()
        for _ in range(1_000):
            client.log(values)
        times.append((time.thread_time() - began) / 1_000)
        del rows[1:]  # as the sender takes them; the first one keeps it asleep
    client.close(timeout=0)
    return statistics.median(times)


def bench_flights(options: argparse.Namespace, folder: Path) -> None:
    print("\na replay of the flights of April to December, labels when they landed")
    train, held_out, live = demo.split(demo.load_flights())
    champion = demo.Champion.train(train.slice(0, 20_000))
    held_out, live = champion.score(held_out), champion.score(live)
    reference = tg.Reference.fit(held_out, demo.schema())
    lines = []
    for rows in (100, 1_000, 10_000):
        with tidegauge(folder, reference, options.durability) as served:
            found = replay(
                live,
                f"localhost:{served.port}",
                model="job",
                label_time="landed",
                batch_rows=rows,
            )
        assert found.lost == found.extra == 0
        latency = found.latency_ms
        lines.append(
            [
                f"{rows:,}",
                f"{found.rows_per_second:,.0f}",
                f"{latency['p50']:.2f}",
                f"{latency['p99']:.2f}",
                f"{found.account['matched']:,} of {found.predictions:,}",
            ]
        )
    show(["batch rows", "rows/s", "p50 ms", "p99 ms", "matched"], lines)


def show(head: list[str], lines: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    for line in (head, *lines):
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each line")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--durability", choices=["power", "process"], default="power")
    parser.add_argument("--serve-flight", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_flight:
        server = CountingFlight("grpc://127.0.0.1:0")
        print(f"listening on port {server.port}", file=sys.stderr, flush=True)
        server.serve()
        return
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores for both, load "
        f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}, grpcio "
        f"{metadata.version('grpcio')}, pyarrow {pa.__version__}, lmdb {metadata.version('lmdb')}"
    )
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for part in options.only:
            PARTS[part](options, Path(folder))


PARTS: dict[str, Callable[[argparse.Namespace, Path], None]] = {
    "rpcs": bench_rpcs,
    "client": bench_client,
    "flights": bench_flights,
}

if __name__ == "__main__":
    main()
