"""Build the core, and the front where gRPC's headers are; the rest is in pyproject.toml."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup

ROOT = Path(__file__).parent
SOURCES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*.cpp"))
FRONT = [path for path in SOURCES if path.startswith("csrc/front/")]
HEADERS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*.hpp"))

# Results must not depend on the machine: no fused multiply-add, no fast-math, no -march=native.
# Nothing reads traps or errno; without them the row loops vectorise, and values stay the same.
FLAGS = ["-O3", "-g0", "-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno", "-pthread"]
FLAGS += ["-Wall", "-Wextra", "-Wconversion", *os.environ.get("TIDEGAUGE_CXXFLAGS", "").split()]


def grpc_flags(what: str) -> list[str]:
    """Ask pkg-config how to compile or link with gRPC; nothing where there is none."""
    if shutil.which("pkg-config") is None:
        return []
    found = subprocess.run(
        ["pkg-config", what, "grpc++"], capture_output=True, text=True, check=False
    )
    return shlex.split(found.stdout) if found.returncode == 0 else []


ParallelCompile("NPY_NUM_BUILD_JOBS", default=os.cpu_count() or 1).install()

LINK = ["-pthread", *os.environ.get("TIDEGAUGE_LDFLAGS", "").split()]
EXTENSIONS = [
    Pybind11Extension(
        "tidegauge._core",
        [path for path in SOURCES if path not in FRONT],
        include_dirs=["csrc"],
        depends=HEADERS,
        cxx_std=20,
        extra_compile_args=FLAGS,
        extra_link_args=LINK,
    )
]
if grpc_link := grpc_flags("--libs"):
    EXTENSIONS.append(
        Pybind11Extension(
            "tidegauge._front",
            FRONT,
            include_dirs=["csrc"],
            depends=HEADERS,
            cxx_std=20,
            extra_compile_args=[*FLAGS, *grpc_flags("--cflags")],
            extra_link_args=[*LINK, *grpc_link],
            optional=True,
        )
    )

setup(ext_modules=EXTENSIONS)
