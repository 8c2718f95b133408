"""Ctrl+C while the watch is being installed or removed would leave it half installed: it is held back until that is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def uninterrupted(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `work`. A SIGINT that arrives meanwhile goes to the usual handler right after `work`.

    For short work only. On threads other than the main one this is a plain call: Python runs signal handlers on the main thread.
    """
    handler = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    if not callable(handler):  # SIGINT is ignored, or its handler is not a Python function
        return work(*args, **kwargs)
    late: list[tuple[int, Any]] = []
    try:
        signal.signal(signal.SIGINT, lambda number, frame: late.append((number, frame)))
        return work(*args, **kwargs)
    finally:
        signal.signal(signal.SIGINT, handler)
        if late:
            handler(*late[-1])
