"""Named points at which a test makes the process die, as a power cut would."""

from __future__ import annotations

import os
import signal


def arm(text: str) -> None:
    """Choose where to die: "name", or "name:3" for the third time; nowhere if empty.

    >>> arm("")
    """
    name, _, count = text.partition(":")
    _armed.clear()
    _armed[name] = int(count or 1)


def failpoint(name: str) -> None:
    """Die here if TIDEGAUGE_FAILPOINT, or `arm`, says so.

    >>> failpoint("nowhere")
    """
    if name not in _armed:
        return
    _armed[name] -= 1
    if _armed[name] <= 0:
        os.kill(os.getpid(), signal.SIGKILL)


_armed: dict[str, int] = {}
arm(os.environ.get("TIDEGAUGE_FAILPOINT", ""))
