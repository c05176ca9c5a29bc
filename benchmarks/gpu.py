"""What a GPU reaches: bytes counted a second beside what its memory can copy, and peers.

    python benchmarks/gpu.py [--rows 67108864] [--runs 10] [--out benchmarks/results]

Counts are compared with the CPU's before anything is timed. Times of the device are between CUDA
events, medians, kernels compiled beforehand; what goes over the bus has lines of its own. Without a
device the program says so and stops.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import tidegauge as tg
from tidegauge.engine import DeviceError

SEED = 0
CHECKED_ROWS = 200_000
WIDE = 8  # jobs of many columns have this fraction of the rows
PEER_BINS, PEER_RANGE = 50, (-4.0, 4.0)
WIDTH, HIDDEN, N_BACKGROUND = 20, 64, 100  # of the network that is explained
BUDGETS = (
    16_384,
    204_800,
)  # evaluations a row: the background split, and 1,024 pairs over all of it
TRUTH_PAIRS = 131_072  # of 524,287
CHECKED_EXPLANATIONS = 8
GIB = 1 << 30
Columns = dict[str, NDArray[Any]]


class Card(Protocol):
    """What the benchmark wants of a device; a test gives one that is none."""

    def describe(self) -> dict[str, Any]:
        """Name, memory and versions."""

    def put(self, values: NDArray[Any]) -> object:
        """An array of the device."""

    def seconds(self, work: Callable[[], object]) -> float:
        """Time of the device until all that was given to it is done."""

    def kernel_seconds(self, device: Any, work: Callable[[], object]) -> float:
        """Time of the kernels alone that an engine's device launches."""

    def copy(self, n_bytes: int) -> Callable[[], object]:
        """Copies bytes within the device."""

    def upload(self, n_bytes: int) -> Callable[[], object]:
        """Copies bytes from pinned memory."""

    def peers(self, values: Any) -> dict[str, Callable[[], Any]]:
        """Uniform histograms by others, PEER_BINS over PEER_RANGE."""

    def fetch(self, values: Any) -> NDArray[Any]:
        """Copy a result to the host."""

    def network(self, first: NDArray[Any], last: NDArray[Any]) -> Callable[[Any], Any]:
        """Probabilities of a network, from rows on the device."""

    def product(self, n: int) -> Callable[[], object]:
        """Multiplies two square float32 matrices."""

    def explainers(
        self, model: Callable[[Any], Any], background: NDArray[Any]
    ) -> dict[str, Callable[[Any], Any]]:
        """Explanations of the model by others, from rows of the host to values."""


class CupyCard:
    """CuPy's current device."""

    def __init__(self) -> None:
        from tidegauge.cuda import open_device

        open_device()  # says what is missing
        import cupy

        self._cupy = cupy

    def describe(self) -> dict[str, Any]:
        cupy = self._cupy
        found = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
        return {
            "card": found["name"].decode(),
            "memory_gib": round(found["totalGlobalMem"] / GIB, 1),
            "driver": cupy.cuda.runtime.driverGetVersion(),
            "cuda": cupy.cuda.runtime.runtimeGetVersion(),
            "cupy": cupy.__version__,
        }

    def put(self, values: NDArray[Any]) -> object:
        return self._cupy.asarray(values)

    def seconds(self, work: Callable[[], object]) -> float:
        first, last = (self._cupy.cuda.Event() for _ in range(2))
        first.record()
        work()
        last.record()
        last.synchronize()
        return float(self._cupy.cuda.get_elapsed_time(first, last)) / 1000

    def kernel_seconds(self, device: Any, work: Callable[[], object]) -> float:
        launch, pairs = device.launch, []

        def timed(*arguments: Any) -> None:
            pair = [self._cupy.cuda.Event() for _ in range(2)]
            stream = arguments[-1]
            pair[0].record(stream)
            launch(*arguments)
            pair[1].record(stream)
            pairs.append(pair)

        device.launch = timed
        try:
            work()
        finally:
            del device.launch
        elapsed = self._cupy.cuda.get_elapsed_time
        return sum(float(elapsed(*pair)) for pair in pairs) / 1000

    def copy(self, n_bytes: int) -> Callable[[], object]:
        source, target = (self._cupy.zeros(n_bytes, self._cupy.uint8) for _ in range(2))
        return lambda: target.data.copy_from_device_async(source.data, n_bytes)

    def upload(self, n_bytes: int) -> Callable[[], object]:
        memory = self._cupy.cuda.alloc_pinned_memory(n_bytes)
        target = self._cupy.empty(n_bytes, self._cupy.uint8)
        stream = self._cupy.cuda.get_current_stream()
        return lambda: target.data.copy_from_host_async(memory.ptr, n_bytes, stream)

    def peers(self, values: Any) -> dict[str, Callable[[], Any]]:
        cupy = self._cupy

        def histogram(*accelerators: str) -> Any:
            cupy._core.set_routine_accelerators(list(accelerators))
            return cupy.histogram(values, bins=PEER_BINS, range=PEER_RANGE)[0]

        return {"cupy.histogram": histogram, "CUB through CuPy": lambda: histogram("cub")}

    def fetch(self, values: Any) -> NDArray[Any]:
        return self._cupy.asnumpy(values)

    def network(self, first: NDArray[Any], last: NDArray[Any]) -> Callable[[Any], Any]:
        cupy = self._cupy
        inner, outer = cupy.asarray(first), cupy.asarray(last)
        return lambda x: 1 / (1 + cupy.exp(-(cupy.maximum(x @ inner, 0) @ outer)))

    def product(self, n: int) -> Callable[[], object]:
        left, right = (self._cupy.ones((n, n), self._cupy.float32) for _ in range(2))
        return lambda: left @ right

    def explainers(
        self, model: Callable[[Any], Any], background: NDArray[Any]
    ) -> dict[str, Callable[[Any], Any]]:
        try:
            from cuml.explainer import KernelExplainer
        except ImportError:
            print("cuML is not installed")
            return {}
        theirs = KernelExplainer(
            model=model, data=self._cupy.asarray(background), nsamples=2_048, random_state=SEED
        )
        return {"cuML KernelExplainer, 204,800": theirs.shap_values}


def main(arguments: list[str] | None = None, card: Card | None = None) -> int:
    """Check, time, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1 << 26)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    if options.rows < WIDE or options.runs < 1:
        parser.error(f"--rows is {WIDE} or more and --runs 1 or more")
    try:
        card = card or CupyCard()
    except DeviceError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 1
    machine = card.describe() | versions()
    print("\n".join(f"{name:<12} {value}" for name, value in machine.items()), "\n")
    lines = list(measure(card, options.rows, options.runs))
    options.out.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "-", f"gpu-{machine['card']}-{machine['date']}".lower())
    path = options.out / f"{name}.json"
    path.write_text(json.dumps({**machine, "seed": SEED, "lines": lines}, indent=1) + "\n")
    print(f"\n{path}")
    return 0


def versions() -> dict[str, Any]:
    """What else a number depends on."""
    return {
        "tidegauge": tg.__version__,
        "numpy": metadata.version("numpy"),
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def measure(card: Card, n_rows: int, runs: int) -> Iterator[dict[str, Any]]:
    """Each line: what was done, rows, bytes, seconds, and the share of the copy's bandwidth."""
    n_bytes = min(GIB, 8 * n_rows)
    copy = median(card.seconds, card.copy(n_bytes), runs)
    limit = 2 * n_bytes / copy  # a copy reads and writes
    yield line("copy within the device", n_bytes // 8, 2 * n_bytes, copy, limit)
    bus = median(card.seconds, card.upload(n_bytes), runs)
    yield line("copy from pinned memory", n_bytes // 8, n_bytes, bus, limit)
    for name, (columns, schema) in jobs(n_rows).items():
        reference = tg.Reference.fit(head(columns), schema)
        check(card, reference, columns)
        roles = set(reference.schema.role_columns)
        counted = sum(v.nbytes for k, v in columns.items() if k in reference.layout.columns)
        n = len(next(iter(columns.values())))
        resident = {k: v if k in roles else card.put(v) for k, v in columns.items()}
        for source, table in (("device", resident), ("host", columns)):
            device, fill = fill_of(reference, table, n)
            log = tg.Monitor(reference, device="cuda").log
            took = median(card.seconds, fill, runs)  # the first run, which compiles, is dropped
            if source == "device":
                kernels = median(lambda work: card.kernel_seconds(device, work), fill, runs)  # noqa: B023
                yield line(f"{name}, kernels", n, counted, kernels, limit)
            yield line(f"{name}, {source} memory, counting", n, counted, took, limit)
            started = time.perf_counter()
            log(table)
            took = time.perf_counter() - started
            yield line(f"{name}, {source} memory, Monitor.log, wall", n, counted, took, limit)
    yield from measure_peers(card, n_rows, runs, limit)
    yield from measure_explanations(card, n_rows, runs, limit)


def measure_peers(card: Card, n_rows: int, runs: int, limit: float) -> Iterator[dict[str, Any]]:
    """Uniform histograms of one float32 column, the counts compared with NumPy's."""
    values = np.random.default_rng(SEED).normal(size=n_rows).astype(np.float32)
    expected = np.histogram(values, PEER_BINS, PEER_RANGE)[0]
    for name, histogram in card.peers(card.put(values)).items():
        found = card.fetch(histogram())
        # Values within a rounding of an edge: float32 edges are not those of NumPy's doubles.
        if np.abs(found - expected).sum() > 1e-4 * n_rows:
            raise SystemExit(f"{name} counts differently")
        took = median(card.seconds, histogram, runs)
        yield line(f"{name}, {PEER_BINS} uniform bins", n_rows, values.nbytes, took, limit)


def measure_explanations(
    card: Card, n_rows: int, runs: int, limit: float
) -> Iterator[dict[str, Any]]:
    """Rows of a network explained a second, beside what bytes and operations alone would take.

    Bytes: every masked value written and read, every answer written and read. Operations: those of
    the network's first layer, beside a product of large matrices.
    """
    random = np.random.default_rng(SEED)
    first = (random.normal(size=(WIDTH, HIDDEN)) / 4).astype(np.float32)
    last = (random.normal(size=HIDDEN) / 2).astype(np.float32)
    background, rows = (
        random.normal(size=(n, WIDTH)).astype(np.float32) for n in (N_BACKGROUND, n_rows)
    )
    model, side = card.network(first, last), 4_096
    side = min(side, n_rows)
    peak = 2 * side**3 / median(card.seconds, card.product(side), runs)
    exact = tg.KernelExplainer(model, background, device="cuda", method="wls", seed=SEED + 1)
    rows = rows[: max(CHECKED_EXPLANATIONS, n_rows >> 13)]
    few = rows[:CHECKED_EXPLANATIONS]
    truth = exact.attribute(few, 2 * TRUTH_PAIRS * N_BACKGROUND).values

    def told(
        name: str, budget: int, explain: Callable[[Any], Any], asked: NDArray[Any]
    ) -> dict[str, Any]:
        error = float(np.sqrt(((explain(few) - truth) ** 2).sum() / (truth**2).sum()))
        took = median(card.seconds, lambda: explain(asked), runs)
        n_bytes = len(asked) * budget * 2 * 4 * (WIDTH + 1)
        found = line(name, len(asked), n_bytes, took, limit)
        share = len(asked) * budget * 2 * WIDTH * HIDDEN / took / peak
        speed = len(asked) / took
        print(f"{'':<10}{speed:,.0f} rows/s, error {error:.4f}, {share:.1%} of a product's speed")
        return {**found, "rows_a_second": speed, "error": error, "share_of_product": share}

    ours = tg.KernelExplainer(model, background, device="cuda", seed=SEED)
    for budget in BUDGETS:
        explain = lambda asked, b=budget: ours.attribute(asked, b).values  # noqa: E731
        yield told(f"Kernel SHAP, {budget:,} evaluations", budget, explain, rows)
    for name, explain in card.explainers(model, background).items():
        yield told(name, BUDGETS[-1], lambda asked, e=explain: card.fetch(e(asked)), few)


def jobs(n_rows: int) -> dict[str, tuple[Columns, tg.Schema]]:
    """Columns and how they are counted; jobs of many columns have fewer rows."""
    random = np.random.default_rng(SEED)
    normal = random.normal(size=n_rows)
    codes = (random.zipf(1.9, n_rows) % 500).astype(np.int32)
    n = n_rows // WIDE
    wide: Columns = {f"number_{i}": normal[i * n // 20 :][:n] + i for i in range(20)}
    wide |= {f"code_{i}": codes[i * n // 20 :][:n] for i in range(4)}
    kinds = {name: tg.categorical() if "code" in name else tg.numeric() for name in wide}
    moments = np.datetime64("2024-01-01", "us") + np.arange(n) * np.timedelta64(
        2 * 86_400_000_000 // n, "us"
    )
    roles: Columns = {"time": moments, "group": (np.arange(n) // 1000 % 5).astype(np.int32)}
    return {
        "float32": ({"x": normal.astype(np.float32)}, tg.Schema(features=["x"])),
        "float64": ({"x": normal}, tg.Schema(features=["x"])),
        "codes": ({"c": codes}, tg.Schema(features={"c": tg.categorical()})),
        "24 columns": (wide, tg.Schema(features=kinds)),
        "24 columns, hours and 5 segments": (
            wide | roles,
            tg.Schema(features=kinds, timestamp="time", segments=["group"]),
        ),
    }


def head(columns: Columns, n: int = CHECKED_ROWS) -> Columns:
    """First rows."""
    return {name: values[:n] for name, values in columns.items()}


def check(card: Card, reference: tg.Reference, columns: Columns) -> None:
    """Stop unless host and device count the same."""
    part = head(columns)
    wanted, found = (tg.Monitor(reference, device=device) for device in ("cpu", "cuda"))
    wanted.log(part)
    roles = set(reference.schema.role_columns)
    found.log({k: v if k in roles else card.put(v) for k, v in part.items()})
    arrays, others = wanted.state()[1], found.state()[1]
    if any(arrays[name].tobytes() != others[name].tobytes() for name in arrays):
        raise SystemExit("host and device count differently")


def fill_of(reference: tg.Reference, table: Columns, n: int) -> tuple[Any, Callable[[], None]]:
    """Counting alone, until counts are with the host: the batch is open, its cells are known."""
    monitor = tg.Monitor(reference, device="cuda")
    engine, state = monitor._engine, monitor._table
    rows = engine.open(table, state.layout)
    part = monitor._read(rows.host, 0, n)
    groups = state.groups(rows.host, 0, n)
    where = state.locate(part.times, groups)
    fill = lambda: engine.fill(state.cells, rows, (0, n), where, state.layout)  # noqa: E731
    return engine._device, fill


def median(
    seconds: Callable[[Callable[[], object]], float], work: Callable[[], object], runs: int
) -> float:
    """Median seconds of the device, after one run that does not count."""
    work()
    return statistics.median(seconds(work) for _ in range(runs))


def line(name: str, n_rows: int, n_bytes: int, seconds: float, limit: float) -> dict[str, Any]:
    """Print a result and return it."""
    reached = n_bytes / seconds
    print(
        f"{name:<58} {seconds * 1e3:>10.3f} ms {reached / 1e9:>8.1f} GB/s {reached / limit:>7.1%}"
    )
    return {
        "name": name,
        "rows": n_rows,
        "bytes": n_bytes,
        "seconds": seconds,
        "share_of_copy": reached / limit,
    }


if __name__ == "__main__":
    sys.exit(main())
