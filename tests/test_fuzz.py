"""Damaged messages in their short form; `make fuzz` feeds more than a million, with sanitizers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import tidegauge as tg


def test_damaged_bytes_are_read_as_they_are_or_refused() -> None:
    script = Path(__file__).parent / "fuzz.py"
    source = str(Path(tg.__file__).parent.parent)
    run = subprocess.run(
        [sys.executable, script, "--each", "3000", "--seed", "1"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    reports = [json.loads(line) for line in run.stdout.splitlines()]
    assert {report["kind"] for report in reports} == {"columns", "arrow", "toml"}
    for report in reports:
        assert report["fed"] == 3000
        assert report["read"] > 50, "nearly nothing gets through: the mutations are too rough"
        assert report["refused"] > 1000, "nearly everything gets through: they are too fine"
