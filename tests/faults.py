"""Kill a writing desk again and again, and count: nothing acknowledged is lost or counted twice.

`python tests/faults.py --kills 200` prints one line of figures; it exits with 1 when one is wrong.
The desk runs in forks of this process, which has loaded everything already, so that a kill costs
a fraction of a second. Every fork sends again some of what was acknowledged before.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import signal
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet
from served import outcomes, predictions, reference_file

import tidegauge as tg
from tidegauge import failpoint
from tidegauge.history import Rules
from tidegauge.journal import COLUMNS, OUTCOMES, PREDICTIONS, Journal, JournalError
from tidegauge.server import batches
from tidegauge.server.desk import Desk
from tidegauge.v1.admin_pb2 import PutModelRequest

ROWS = 40
IN_FLIGHT = 4  # batches that are sent before the first of them must be acknowledged
POINTS = (
    "commit_before",
    "commit_after_write",
    "commit_after_sync",
    "reply",
    "checkpoint_after_write",
    "checkpoint_after_sync",
    "seal_after_write",
    "seal_after_link",
    "seal_after_manifest",
)


def open_desk(directory: Path) -> Desk:
    journal = Journal(directory / "data", limit=1 << 28, durability="process")
    desk = Desk(journal)
    desk.open_history(directory / "history", Rules(rows=20 * ROWS))
    if "flights" not in desk.models:
        asked = PutModelRequest(name="flights", reference=reference_file(directory).read_bytes())
        desk.put_model(asked).result()
    return desk


def send(desk: Desk, number: int, kind: int) -> object:
    """Write batch `number` of predictions or outcomes under the id that is its own for ever."""
    make, letter = (predictions, "p") if kind == PREDICTIONS else (outcomes, "o")
    rows = make(ROWS, first=number * ROWS)
    body = batches.pack(rows).SerializeToString()
    return desk.write(kind, "flights", f"{letter}{number}", encoding=COLUMNS, body=body)


def work(directory: Path, first: int, acks: int, seed: int) -> None:
    """Write on until killed; a line per acknowledged batch."""
    draw = random.Random(seed)
    desk = open_desk(directory)
    for number in range(max(0, first - 9), first):
        for kind in (PREDICTIONS, OUTCOMES):
            answer = send(desk, number, kind).result()
            if not answer.replayed or answer.accepted != ROWS:
                os.write(acks, f"lost {number}\n".encode())
    waiting: deque[tuple[int, list[object]]] = deque()
    for number in range(first, first + 1_000_000):
        waiting.append((number, [send(desk, number, kind) for kind in (PREDICTIONS, OUTCOMES)]))
        if len(waiting) == IN_FLIGHT:
            done, answers = waiting.popleft()
            for answer in answers:
                answer.result()
            os.write(acks, f"{done}\n".encode())
        if draw.random() < 0.1:
            desk.checkpoint()
        if draw.random() < 0.1:
            desk.seal()


def one_life(directory: Path, first: int, seed: int, *, point: str, seconds: float) -> list[str]:
    """Fork, let it work, kill it; what it said."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        failpoint.arm(point)
        try:
            work(directory, first, writing, seed)
        except BaseException as error:
            os.write(writing, f"failed {type(error).__name__}: {error}\n".encode())
        os._exit(3)
    os.close(writing)
    said = bytearray()
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        ready, _, _ = select.select([reading], [], [], left)
        if ready:
            part = os.read(reading, 65536)
            if not part:
                break
            said += part
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while part := os.read(reading, 65536):
        said += part
    os.close(reading)
    return [line for line in said.decode().split("\n")[:-1] if line]


def check(directory: Path, n_batches: int) -> list[str]:
    """Send everything once more; what differs from a single pass over it."""
    wrong = []
    desk = open_desk(directory)
    for number in range(n_batches):
        for kind in (PREDICTIONS, OUTCOMES):
            send(desk, number, kind).result()
    desk.seal()
    single = tg.Monitor(tg.Reference.load(reference_file(directory)), model="flights")
    for number in range(n_batches):
        single.log(predictions(ROWS, first=number * ROWS))
        single.label(outcomes(ROWS, first=number * ROWS))
    monitor = desk.models["flights"].monitor
    counts = {"early": 0}  # whether a label waited for its prediction depends on the groups
    if monitor.account.to_dict() | counts != single.account.to_dict() | counts:
        wrong.append(f"account {monitor.account} instead of {single.account}")
    if not monitor.metrics().equals(single.metrics()):
        wrong.append("metrics differ")
    files = [directory / "history" / file["path"] for file in desk.journal.files()]
    there = sorted((directory / "history").rglob("*.parquet*"))
    if sorted(files) != there:
        wrong.append(f"{len(there)} history files instead of {len(files)}")
    table = pa.concat_tables(
        parquet.ParquetFile(path).read().select(["id"])
        for path in there
        if "predictions" in str(path)
    )
    ids = table["id"].to_pylist()
    if sorted(ids) != list(range(n_batches * ROWS)):
        wrong.append(f"{len(ids)} rows in the history instead of {n_batches * ROWS}")
    desk.close()
    return wrong


def flip(directory: Path, n_flips: int, seed: int) -> tuple[dict[str, int], list[str]]:
    """Flip a bit of the journal's file, start, count; how the starts ended, and what was wrong."""
    draw = random.Random(seed)
    desk = open_desk(directory)
    for number in range(30):
        for kind in (PREDICTIONS, OUTCOMES):
            send(desk, number, kind).result()
        if number == 15:
            desk.checkpoint()
    right = desk.models["flights"].monitor.account
    desk._since_checkpoint = 0  # the later half stays to be replayed
    desk.close()
    path = directory / "data" / "journal" / "data.mdb"
    whole = path.read_bytes()
    ends: dict[str, int] = {"right": 0, "reported": 0, "refused": 0}
    wrong = []
    for _ in range(n_flips):
        place = draw.randrange(len(whole))
        changed = bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            try:
                os.write(writing, start_and_count(directory, right).encode())
            except BaseException as error:
                os.write(writing, f"failed {type(error).__name__}: {error}".encode())
            os._exit(0)
        os.close(writing)
        said = os.read(reading, 65536).decode()
        os.close(reading)
        _, status = os.waitpid(child, 0)
        if status or said not in ends:
            wrong.append(f"byte {place}: status {status}, {said!r}")
        else:
            ends[said] += 1
    path.write_bytes(whole)
    return ends, wrong


def start_and_count(directory: Path, right: tg.Account) -> str:
    """Open what may be damaged; how that went."""
    try:
        journal = Journal(directory / "data", limit=1 << 28, durability="process")
        desk = Desk(journal)
        watched = desk.models.get("flights")
        reported = journal.n_quarantined
    except JournalError:
        return "refused"
    if watched is not None and watched.monitor.account == right:
        return "right"
    return "reported" if reported else f"wrong: {watched and watched.monitor.account}"


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="at random moments")
    parser.add_argument("--each", type=int, default=3, help="kills at each named point")
    parser.add_argument("--flips", type=int, default=200, help="bits of the journal's file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    failed = False
    if options.flips:
        with tempfile.TemporaryDirectory() as name:
            ends, found = flip(Path(name), options.flips, options.seed)
        figures = ", ".join(f"{count} {end}" for end, count in ends.items())
        sys.stdout.write(f"{options.flips} flipped bits: {figures}, {len(found)} wrong\n")
        sys.stdout.writelines(f"  {line}\n" for line in found[:20])
        failed = bool(found)
    lives = [""] * options.kills + [*POINTS] * options.each
    draw.shuffle(lives)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        reference_file(directory)
        acked = 0
        for number, point in enumerate(lives):
            seconds = 20.0 if point else draw.uniform(0.0, 0.25)
            said = one_life(directory, acked, number, point=point, seconds=seconds)
            wrong += [line for line in said if not line.isdigit()]
            acked = max([acked, *(int(line) + 1 for line in said if line.isdigit())])
        wrong += check(directory, acked + IN_FLIGHT)  # what was under way may be there, or not
    sys.stdout.write(
        f"{len(lives)} kills: {acked * ROWS} acknowledged predictions and as many outcomes, "
        f"{len(wrong)} things wrong\n"
    )
    for line in wrong[:20]:
        sys.stdout.write(f"  {line}\n")
    return 1 if wrong or failed else 0


if __name__ == "__main__":
    sys.exit(main())
