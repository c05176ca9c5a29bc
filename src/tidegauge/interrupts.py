"""Ctrl-C held back while a batch is counted, so that no interrupt leaves half of it counted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back() -> Iterator[None]:
    """Let the handler of Ctrl-C run after the block instead of within it.

    Only the main thread runs handlers of signals, so nothing is done in others.

    >>> before = signal.signal(signal.SIGINT, lambda *event: print("interrupted"))
    >>> with held_back():
    ...     signal.raise_signal(signal.SIGINT)
    ...     print("counted")
    counted
    interrupted
    >>> _ = signal.signal(signal.SIGINT, before)
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    held = []
    signal.signal(signal.SIGINT, lambda *event: held.append(event))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if held:
            handler(*held[-1])
