"""Settings that every test shares: reproducible examples, and the engines to run on."""

from __future__ import annotations

import os
import random

import pytest
from cuda_on_cpu.device import CpuDevice
from hypothesis import HealthCheck, settings

import tidegauge as tg
from tidegauge import cuda, reference
from tidegauge.cuda.launcher import Limits

settings.register_profile(
    "default",
    deadline=None,  # two shared cores: time says nothing
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    max_examples=40,
)
settings.register_profile(
    "ci", settings.get_profile("default"), derandomize=True, database=None, print_blob=True
)
settings.register_profile(
    "sanitize",
    settings.get_profile("ci"),
    max_examples=10,  # the checked build is slow
)
# Which rows a sample keeps follows from a reference's key; what fails with one shall fail again.
KEYS = random.Random(0)
reference._new_secret = lambda: (KEYS.getrandbits(64), KEYS.getrandbits(64))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


SMALL = Limits(count_bytes=1 << 20, lane_bytes=1 << 18, stretch_rows=(256, 4096))


@pytest.fixture(params=["cpu", "cuda"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every device that the same test body must pass on; it is the default while the test runs.

    The CUDA engine runs its kernels on the CPU, with little memory.
    """
    name = str(request.param)
    monkeypatch.setattr(cuda, "open_engine", lambda host: cuda.CudaEngine(CpuDevice(), host, SMALL))
    for function in (tg.Monitor.__init__, tg.Monitor.load.__func__, tg.compare):
        monkeypatch.setitem(function.__kwdefaults__, "device", name)
    return name
