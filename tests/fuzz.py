"""Feed what reads strangers' bytes with damaged ones: each is read as it is or refused by name.

`python tests/fuzz.py --each 250000` prints a line for each kind of bytes, and stops with the seed
of the first that ended in anything but a table or a refusal. A table that was read is counted by a
monitor too, so that what passes the checks has met the core. Under `make fuzz` the core is built
with sanitizers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from pyarrow import ipc
from served import SCHEMA, outcomes, predictions

import tidegauge as tg
from tidegauge.journal import COLUMNS, STREAM
from tidegauge.server import batches
from tidegauge.server.config import ConfigError, config_of
from tidegauge.server.desk import decode
from tidegauge.server.refused import Refused
from tidegauge.v1 import batch_pb2

ROWS = 12
RENEWED = 2000  # tables counted by one monitor
TOML = """
[listen]
address = "127.0.0.1:7433"
message = "4MiB"
streams = 16
[storage]
directory = "data"
durability = "process"
journal = "1GiB"
[[tokens]]
name = "ci"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
models = { flights = ["write", "read"] }
[models.flights]
reference = "flights.tide"
lateness = "48h"
retention = { "1h" = "7d" }
"""


def table() -> pa.RecordBatch:
    """Rows with every kind of column that may come over the wire."""
    rows = predictions(ROWS)
    n = np.arange(ROWS)
    more = {
        "flag": pa.array(n % 2 == 0),
        "raw": pa.array([bytes([i]) * i for i in range(ROWS)], pa.binary()),
        "text": pa.array([None if i % 5 == 0 else f"text {i}" for i in range(ROWS)]),
        "half": pa.array(n.astype(np.float16)),
        "small": pa.array(n, pa.int8()),
        "many": pa.array([None if i == 3 else i for i in range(ROWS)], pa.uint64()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(np.ones(4 * ROWS, np.float32)), 4),
    }
    return pa.record_batch({**dict(zip(rows.schema.names, rows.columns, strict=True)), **more})


def stream(batch: pa.RecordBatch) -> bytes:
    """An honest Arrow stream."""
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Flip, cut, insert, repeat and overwrite, a few times."""
    bytes_ = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        if not bytes_:
            break
        at = chance.randrange(len(bytes_))
        how = chance.randrange(7)
        if how == 0:
            bytes_[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            bytes_[at] = chance.choice((0, 1, 127, 128, 255))
        elif how == 2:
            del bytes_[at : at + chance.choice((1, 4, 8, 64))]
        elif how == 3:
            bytes_[at:at] = chance.randbytes(chance.choice((1, 4, 8)))
        elif how == 4:
            end = at + chance.choice((4, 8, 32))
            bytes_[at:at] = bytes_[at:end]
        elif how == 5:
            wide = chance.choice((4, 8))
            value = chance.choice((0, 1, -1, 2**31 - 1, -(2**31), ROWS, ROWS + 1, 1 << 24))
            bytes_[at : at + wide] = value.to_bytes(wide, "little", signed=True)
        else:
            del bytes_[at:]
    return bytes(bytes_)


def misshapen(chance: random.Random, honest: bytes) -> bytes:
    """Packed columns that are sound as a message and wrong as a table."""
    batch = batch_pb2.ColumnBatch.FromString(honest)
    for _ in range(chance.choice((1, 1, 2, 5))):
        column = chance.choice(batch.columns)
        part = chance.choice(("data", "offsets", "validity", "type", "row_count", "dictionary"))
        if part == "row_count":
            batch.row_count = chance.choice((0, 1, ROWS - 1, ROWS + 1, 1 << 20, (1 << 32) - 1))
        elif part == "type":
            column.type = chance.choice([*range(20), 1 << 30])
        elif part == "dictionary":
            del column.dictionary[chance.randrange(3) :]
            column.width = chance.choice((0, 1, 4, 5, 1 << 31))
        else:
            setattr(column, part, mutated(getattr(column, part) or bytes(8), chance))
        if chance.random() < 0.05:
            column.name = chance.choice(batch.columns).name
    return batch.SerializeToString()


class Counter:
    """Counts what was read, by a monitor that is made anew from time to time."""

    def __init__(self) -> None:
        rows = pa.Table.from_batches([predictions(3000)])
        rows = rows.append_column("late", outcomes(3000)["late"])
        self.reference = tg.Reference.fit(rows, SCHEMA, bins=64)
        self.counted = 0
        self.monitor = tg.Monitor(self.reference)

    def __call__(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Count predictions, and take what has labels for outcomes."""
        if self.counted % RENEWED == 0:
            self.monitor = tg.Monitor(self.reference)
        self.counted += 1
        count = self.monitor.label if "late" in rows.schema.names else self.monitor.log
        with contextlib.suppress(tg.SchemaError, tg.DataError):
            count(rows)


def targets() -> Iterator[tuple[str, Callable[[random.Random], None]]]:
    """What is fed, by name: a function that makes one input and feeds it."""
    count = Counter()
    rows = [table(), outcomes(ROWS)]
    packed = [batches.pack(each).SerializeToString() for each in rows]
    streams = [stream(each) for each in rows]

    def columns(chance: random.Random) -> None:
        honest = chance.choice(packed)
        made = misshapen(chance, honest) if chance.random() < 0.5 else mutated(honest, chance)
        count(decode(COLUMNS, made))

    def arrow(chance: random.Random) -> None:
        count(decode(STREAM, mutated(chance.choice(streams), chance)))

    def toml(chance: random.Random) -> None:
        config_of(mutated(TOML.encode(), chance).decode("utf-8", "replace"))

    yield "columns", columns
    yield "arrow", arrow
    yield "toml", toml


def feed(name: str, target: Callable[[random.Random], None], each: int, seed: int) -> None:
    """Feed one kind, and print what came of it."""
    began, read = time.monotonic(), 0
    for number in range(each):
        try:
            target(random.Random(f"{name} {seed} {number}"))
            read += 1
        except (Refused, ConfigError):
            pass
        except BaseException:
            sys.stderr.write(f"{name}: seed {seed}, number {number}\n")
            raise
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report = {"kind": name, "fed": each, "read": read, "refused": each - read}
    took = {"seconds": round(time.monotonic() - began, 1), "peak_mib": round(peak)}
    sys.stdout.write(json.dumps({**report, **took}) + "\n")


def main() -> None:
    """Feed all kinds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=250_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name, target in targets():
        feed(name, target, options.each, options.seed)


if __name__ == "__main__":
    main()
