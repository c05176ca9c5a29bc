"""Where the row work runs: chosen once, at construction, never in silence."""

from __future__ import annotations

import os

DEVICES = ("cpu", "auto")


def resolve_device(device: str) -> str:
    """Return the device that the row work will run on.

    Raises
    ------
    ValueError
        When the device is unknown or its engine is not part of this build.

    >>> resolve_device("auto")
    'cpu'
    """
    if device not in DEVICES:
        raise ValueError(
            f"device {device!r} has no engine in this build; allowed: {', '.join(DEVICES)}"
        )
    return "cpu"


def resolve_threads(threads: int | None) -> int:
    """Return the number of threads: as asked, or one a core that this process may use, 8 at most.

    >>> resolve_threads(2)
    2
    """
    if threads is None:
        return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    if threads < 1:
        raise ValueError(f"threads is a positive number or None, got {threads}")
    return threads
