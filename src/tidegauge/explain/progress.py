"""A bar for long work, on a terminal that can show one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal

PATIENCE = 2.0  # seconds without a bar


@contextmanager
def progress_bar(total: int, wanted: Literal["auto", "never"]) -> Iterator[Callable[[int], None]]:
    """Give a function that is told how many more rows are done.

    >>> with progress_bar(3, "never") as advance:
    ...     advance(3)
    """
    if wanted == "never" or not sys.stderr.isatty() or find_spec("rich") is None:
        yield lambda _: None
        return
    start, done = time.monotonic(), 0
    bar: Any = None
    task: Any = None

    def advance(rows: int) -> None:
        nonlocal done, bar, task
        done += rows
        if bar is None and time.monotonic() - start > PATIENCE:
            from rich.console import Console
            from rich.progress import Progress

            bar = Progress(console=Console(stderr=True))
            bar.start()
            task = bar.add_task("explaining rows", total=total)
        if bar is not None:
            bar.update(task, completed=done)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.stop()
