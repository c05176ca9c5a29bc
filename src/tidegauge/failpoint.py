"""Named points at which a test makes the process die, as a power cut would."""

from __future__ import annotations

import os
import signal

_NAME, _, _COUNT = os.environ.get("TIDEGAUGE_FAILPOINT", "").partition(":")
_left = int(_COUNT or 1)


def failpoint(name: str) -> None:
    """Die here if TIDEGAUGE_FAILPOINT says so: "name", or "name:3" for the third time.

    >>> failpoint("nowhere")
    """
    global _left  # noqa: PLW0603 - counts down to the death of the process
    if name != _NAME:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
