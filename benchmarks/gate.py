"""Instructions a value on the hot paths, held against benchmarks/baseline.json.

    python benchmarks/gate.py            exit status 1 where a path takes 5 % more than it did
    python benchmarks/gate.py --write    make what is found the new baseline

Time says little on shared cores; the number of instructions is the same in every run. Valgrind's
callgrind counts those inside the core's entries alone, on one thread, with AVX2, which it knows.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

import tidegauge as tg

BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCE = 0.05
ROWS = 65_536
ENTRIES = ("tidegauge::Filler::add(*", "tidegauge::Join::log(*", "tidegauge::Join::label(*")
MARK = "tidegauge::use_instruction_set(*"  # called before and after what is counted

Jobs = dict[str, Callable[[], tuple[tg.Monitor, Callable[[], object]]]]


def counted(name: str) -> tuple[tg.Monitor, Callable[[], object]]:
    """A monitor that has logged one column, and the call that logs it again."""
    batch = pa.record_batch({"x": columns()[name]})
    reference = tg.Reference.fit(batch, tg.Schema(features=["x"]))
    monitor = tg.Monitor(reference, threads=1)
    monitor.log(batch)
    return monitor, lambda: monitor.log(batch)


def joined(what: str) -> tuple[tg.Monitor, Callable[[], object]]:
    """A monitor that has predictions, and the call that logs more of them or labels them."""
    random = np.random.default_rng(0)
    score = random.random(ROWS)
    time = np.datetime64("2024-01-01", "us") + np.arange(ROWS)
    schema = tg.Schema(
        task="binary", prediction_id="id", timestamp="time", prediction_score="p", label="y"
    )
    label = (score < 0.5).astype(np.float64)
    reference = tg.Reference.fit({"p": score, "time": time, "y": label}, schema)
    reference.secret = (1, 2)  # hashes are keyed, and how keys collide counts too
    monitor = tg.Monitor(reference, threads=1)
    more = [{"id": np.arange(n, n + ROWS), "p": score, "time": time} for n in (0, ROWS)]
    monitor.log(more[0])
    labels = {"id": random.permutation(ROWS), "y": label}
    return monitor, lambda: monitor.log(more[1]) if what == "log" else monitor.label(labels)


def columns() -> dict[str, pa.Array]:
    """One column of each kind."""
    random = np.random.default_rng(0)
    normal, heavy = random.normal(size=ROWS), random.lognormal(0, 2, ROWS)
    words = pa.array([f"word {i}" for i in range(200)])
    codes = pa.array(random.integers(0, 200, ROWS, dtype=np.int32))
    dictionary = pa.DictionaryArray.from_arrays(codes, words)
    return {
        "float64, equal steps": pa.array(normal),
        "float64, log steps": pa.array(heavy),
        "float32": pa.array(normal.astype(np.float32)),
        "dictionary": dictionary,
        "string": dictionary.cast(pa.string()),
    }


JOBS: Jobs = {
    **{name: (lambda name=name: counted(name)) for name in columns()},
    "join: log an id and a score": lambda: joined("log"),
    "join: label an id": lambda: joined("label"),
}


def run_jobs() -> None:
    """Run every job between two marks; what this does under callgrind."""
    for prepare in JOBS.values():
        _, job = prepare()
        assert tg._core.use_instruction_set("avx2")
        job()
        assert tg._core.use_instruction_set("avx2")


def count() -> dict[str, float]:
    """Instructions a row of every job."""
    with TemporaryDirectory() as folder:
        command = [
            *("valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out"),
            *("--collect-atstart=no", *(f"--toggle-collect={entry}" for entry in ENTRIES)),
            *(f"--dump-before={MARK}", sys.executable, __file__, "--run"),
        ]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            sys.exit(run.stderr)
        parts = sorted(Path(folder).glob("out.*"), key=lambda path: int(path.suffix[1:]))
        totals = [re.search(r"^(?:totals|summary): (\d+)", p.read_text(), re.M) for p in parts]
    found = [int(total[1]) if total else 0 for total in totals]
    if len(found) != 2 * len(JOBS) or not all(found[1::2]):
        sys.exit(f"nothing counted; are {', '.join(ENTRIES)} still what the core is entered by?")
    return {name: round(n / ROWS, 2) for name, n in zip(JOBS, found[1::2], strict=True)}


def main() -> None:
    """Count, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="make this the baseline")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        return run_jobs()
    if shutil.which("valgrind") is None:
        print("skipped: valgrind, which counts instructions, is not installed")
        return None
    found = count()
    known = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    more = [name for name, n in found.items() if n > known.get(name, 0) * (1 + TOLERANCE)]
    print("| instructions a row | found | baseline |")
    print("| --- | --: | --: |")
    for name, n in found.items():
        print(f"| {name} | {n:.2f} | {known.get(name, float('nan')):.2f} |")
    if options.write:
        BASELINE.write_text(json.dumps(found, indent=2) + "\n")
    elif more:
        sys.exit(f"more than {TOLERANCE:.0%} above the baseline: {', '.join(more)}")
    return None


if __name__ == "__main__":
    main()
