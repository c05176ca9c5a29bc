"""Single-row calls a second: the compiled front beside the port of Python, and beside no service.

The load is a C++ program with many unary calls in flight, so that the client costs little; it is
built here, which takes gRPC's C++ headers (Debian: libgrpc++-dev). Every call is a row of 24
columns with an id of its own, journalled and counted before the reply. The account is compared
with what was sent before anything is printed. Server and client share the machine's cores.

    python benchmarks/bench_front.py [--calls 20000] [--durability process]
"""

from __future__ import annotations

import argparse
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc
import numpy as np
import pyarrow as pa

import tidegauge as tg
from tidegauge.server import batches
from tidegauge.v1 import ingest_pb2, query_pb2, query_pb2_grpc

HERE = Path(__file__).parent
METHOD = "/tidegauge.v1.IngestService/WritePredictions"
NUMBERS = [f"x{i}" for i in range(19)]
ID = "0" * 16


def rows(n: int) -> pa.RecordBatch:
    """Rows of 24 columns: id, time, score, 19 numbers, 2 categories."""
    random = np.random.default_rng(0)
    columns: dict[str, object] = {
        "id": pa.array(np.arange(n)),
        "time": pa.array(np.full(n, 1_700_000_000_000_000), pa.timestamp("us", tz="UTC")),
        "score": random.random(n),
        **{name: random.normal(size=n).astype(np.float32) for name in NUMBERS},
        "plan": pa.array(random.choice(["basic", "plus", "pro"], n)).dictionary_encode(),
        "site": pa.array(random.choice(["a", "b"], n)).dictionary_encode(),
    }
    return pa.record_batch({name: pa.array(values) for name, values in columns.items()})


def build(folder: Path) -> Path:
    """Compile the load."""
    program = folder / "unary_load"
    flags = subprocess.check_output(["pkg-config", "--cflags", "--libs", "grpc++"], text=True)
    source = str(HERE / "unary_load.cpp")
    subprocess.run(
        ["g++", "-std=c++20", "-O2", source, "-o", str(program), *shlex.split(flags)], check=True
    )
    return program


def start(folder: Path, durability: str) -> tuple[subprocess.Popen[str], int, int]:
    """Start a server; its process and both ports."""
    schema = tg.Schema(
        task="binary", prediction_id="id", timestamp="time", prediction_score="score", label="late",
        features=[*NUMBERS, "plan", "site"],
    )  # fmt: skip
    table = pa.Table.from_batches([rows(5000)])
    table = table.append_column("late", pa.array(np.arange(5000) % 2))
    tg.Reference.fit(table, schema).save(folder / "reference.tide")
    ports = [free_port(), free_port()]
    (folder / "tidegauge.toml").write_text(
        f"""[listen]
address = "127.0.0.1:{ports[0]}"
[front]
address = "127.0.0.1:{ports[1]}"
[storage]
directory = "data"
journal = "4GiB"
durability = "{durability}"
[models.flights]
reference = "reference.tide"
"""
    )
    command = [sys.executable, "-m", "tidegauge.cli", "serve", "--config"]
    server = subprocess.Popen(
        [*command, str(folder / "tidegauge.toml")], stderr=subprocess.PIPE, text=True
    )
    for line in server.stderr:
        if "listening on port" in line:
            return server, *ports
    raise RuntimeError("the server did not start")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def processor(process: int) -> float:
    """Seconds of processor that a process has used."""
    after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def predictions(port: int) -> int:
    """Requests' rows that the server has counted, repeats of the one id included."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = query_pb2_grpc.QueryServiceStub(channel)
        events = stub.GetAccount(query_pb2.GetAccountRequest(model="flights")).events
        return int(events["predictions"] + events["duplicate_predictions"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--durability", choices=["power", "process"], default="power")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        load = build(folder)
        request = ingest_pb2.WritePredictionsRequest(
            model="flights", request_id=ID, columns=batches.pack(rows(1))
        )
        message = request.SerializeToString()
        (folder / "message").write_bytes(message)
        server, python, front = start(folder, options.durability)
        print(f"{options.durability}: {len(message)} bytes a call, load {os.getloadavg()[0]:.1f}")
        print(
            "| port | in flight | calls a second | ms p50 / p99 | server's processor, µs a call |"
        )
        print("| --- | --: | --: | --: | --: |")
        sent = 0
        try:
            for name, port in [("front", front), ("Python", python)]:
                for in_flight in (1, 32, 128):
                    calls = options.calls if in_flight > 1 else options.calls // 10
                    # ids of their own for each run: the first digits say which
                    marked = message.replace(ID.encode(), f"{sent:08d}{'0' * 8}".encode())
                    (folder / "message").write_bytes(marked)
                    at = message.index(ID.encode()) + 8
                    before = processor(server.pid)
                    words = [f"127.0.0.1:{port}", METHOD, str(folder / "message"), str(at), "8"]
                    said = subprocess.check_output(
                        [str(load), *words, str(calls), str(in_flight)], text=True
                    )
                    cost = processor(server.pid) - before
                    took, _, p50, p99, failed = map(float, said.split())
                    sent += calls
                    assert failed == 0, f"{failed:.0f} calls failed"
                    assert predictions(python) == sent, "the account differs from what was sent"
                    print(
                        f"| {name} | {in_flight} | {calls / took:,.0f} "
                        f"| {p50 / 1e3:.2f} / {p99 / 1e3:.2f} | {cost / calls * 1e6:.0f} |"
                    )
        finally:
            server.terminate()
            server.wait(30)


if __name__ == "__main__":
    main()
