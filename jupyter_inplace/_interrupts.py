"""Ctrl+C in the midst of our own putting on and taking off would leave half of it in force: there it waits."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def uninterrupted(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `work`; a SIGINT that comes meanwhile is handled right after it, by whoever handles it otherwise.

    For short work only. On other threads than the main one nothing changes: Python runs signal handlers on that one.
    """
    handler = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    if not callable(handler):  # ignored, the system's own, or not Python's
        return work(*args, **kwargs)
    late: list[tuple[int, Any]] = []
    try:
        signal.signal(signal.SIGINT, lambda number, frame: late.append((number, frame)))
        return work(*args, **kwargs)
    finally:
        signal.signal(signal.SIGINT, handler)
        if late:
            handler(*late[-1])
