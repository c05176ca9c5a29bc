"""Kernels as one text each: NVRTC and CuPy's cache see no included file, so headers are pasted."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent / "source"


def kernel_source(file: str, root: Path = ROOT) -> str:
    """Return a source file with its headers in front; errors still name file and line.

    >>> kernel_source("portable.hpp").splitlines()[0]
    '#line 1 "portable.hpp"'
    """
    return "\n".join(_pasted(file, root, set())) + "\n"


def _pasted(file: str, root: Path, seen: set[str]) -> list[str]:
    if file in seen:
        return []
    seen.add(file)
    lines = [f'#line 1 "{file}"']
    for number, line in enumerate((root / file).read_text(encoding="utf-8").splitlines(), 1):
        if included := re.match(r'#include "(.+)"', line):
            lines += [*_pasted(included[1], root, seen), f'#line {number + 1} "{file}"']
        else:
            lines.append("" if line == "#pragma once" else line)
    return lines
