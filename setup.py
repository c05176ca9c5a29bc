"""Build the one extension; everything else about the package is in pyproject.toml."""

from __future__ import annotations

import os
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup

ROOT = Path(__file__).parent
SOURCES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*.cpp"))
HEADERS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*.hpp"))

# Results must not depend on the machine: no fused multiply-add, no fast-math, no -march=native.
# Nothing reads traps or errno; without them the row loops vectorise, and values stay the same.
FLAGS = ["-O3", "-g0", "-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno", "-pthread"]
FLAGS += ["-Wall", "-Wextra", "-Wconversion", *os.environ.get("TIDEGAUGE_CXXFLAGS", "").split()]

ParallelCompile("NPY_NUM_BUILD_JOBS", default=os.cpu_count() or 1).install()

setup(
    ext_modules=[
        Pybind11Extension(
            "tidegauge._core",
            SOURCES,
            include_dirs=["csrc"],
            depends=HEADERS,
            cxx_std=20,
            extra_compile_args=FLAGS,
            extra_link_args=["-pthread", *os.environ.get("TIDEGAUGE_LDFLAGS", "").split()],
        )
    ]
)
