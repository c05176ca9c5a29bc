"""The GPU benchmark on a device that is none: what it compares, prints and writes."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu.device import CpuDevice, CudaArray

import tidegauge as tg
from tidegauge import cuda

FILE = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu() -> Any:
    spec = importlib.util.spec_from_file_location("gpu", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class CpuCard:
    """Time is that of the host, and arrays are NumPy's."""

    miscounts = False

    def describe(self) -> dict[str, Any]:
        return {"card": "no card (at all)", "memory_gib": 0}

    def put(self, values: Any) -> object:
        return CudaArray(values)

    def fetch(self, values: Any) -> Any:
        return values

    def seconds(self, work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    def kernel_seconds(self, device: CpuDevice, work: Callable[[], object]) -> float:
        before = device.launches
        took = self.seconds(work)
        assert device.launches > before
        return took

    def copy(self, n_bytes: int) -> Callable[[], object]:
        return np.zeros(n_bytes, np.uint8).copy

    upload = copy

    def peers(self, values: Any) -> dict[str, Callable[[], Any]]:
        counts = np.histogram(values._values, 50, (-4, 4))[0] + self.miscounts * 10_000
        return {"peer": lambda: counts}

    def network(self, first: Any, last: Any) -> Callable[[Any], Any]:
        return lambda given: given.map(
            lambda x: 1 / (1 + np.exp(-(np.maximum(x @ first, 0) @ last)))
        )

    def product(self, n: int) -> Callable[[], object]:
        return lambda: np.ones((n, 8)).T @ np.ones((n, 8))

    def explainers(self, model: Any, background: Any) -> dict[str, Callable[[Any], Any]]:
        explainer = tg.KernelExplainer(model, background, device="cuda", seed=5)
        return {"another": lambda rows: explainer.attribute(rows, 2_000).values}


def test_every_line_is_printed_and_written(
    gpu: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "open_device", CpuDevice)
    monkeypatch.setattr(gpu, "TRUTH_PAIRS", 1_000)
    monkeypatch.setattr(gpu, "BUDGETS", (1_000, 8_000))
    monkeypatch.setattr(gpu, "CHECKED_EXPLANATIONS", 2)
    assert gpu.main(["--rows", "4000", "--runs", "1", "--out", str(tmp_path)], CpuCard()) == 0
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("gpu-no-card-at-all-20")
    written = json.loads(path.read_text())
    assert {"card", "tidegauge", "numpy", "date", "seed"} <= written.keys()
    names = [line["name"] for line in written["lines"]]
    assert len(names) == len(set(names)) == 2 + 5 * 5 + 1 + 3
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
    counted = {line["name"]: line["bytes"] for line in written["lines"]}
    assert counted["float32, device memory, counting"] == 4 * 4000
    assert counted["24 columns, device memory, counting"] == 500 * (20 * 8 + 4 * 4)
    errors = [line["error"] for line in written["lines"] if "error" in line]
    assert 0.3 > errors[0] > errors[1] > 0


def test_a_peer_that_counts_differently_stops_it(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "open_device", CpuDevice)
    card = CpuCard()
    card.miscounts = True
    with pytest.raises(SystemExit, match="peer counts differently"):
        gpu.main(["--rows", "1000", "--runs", "1", "--out", str(tmp_path)], card)
    assert not list(tmp_path.iterdir())


def test_without_a_device_it_says_so_in_one_line(
    gpu: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert gpu.main([]) == 1
    told = capsys.readouterr().err
    assert told.startswith("gpu.py: device 'cuda' needs CuPy")
    assert told.count("\n") == 1
    with pytest.raises(SystemExit):
        gpu.main(["--runs", "0"])
