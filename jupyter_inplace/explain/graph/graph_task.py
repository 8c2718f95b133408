"""Keeps checkpointed functions that our walk recomputes apart from a backward of the program that is running.

A checkpoint caches what it recomputed under the id of the running backward, for the other nodes of that backward. What is
recomputed for a walk does not belong there, so the checkpoint is told that no backward is running.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from threading import get_ident
from typing import Any

from torch import _C

_lock = threading.Lock()
_apart: dict[int, int] = {}  # by thread, how many of these blocks it is in
_original: Any = None


def _number() -> int:
    return -1 if get_ident() in _apart else int(_original())


@contextlib.contextmanager
def apart_from_backward() -> Iterator[None]:
    """Inside the block, torch says on this thread that no backward is running."""
    global _original
    thread = get_ident()
    with _lock:
        if not _apart:
            _original = _C._current_graph_task_id
            _C._current_graph_task_id = _number
        _apart[thread] = _apart.get(thread, 0) + 1
    try:
        yield
    finally:
        with _lock:
            _apart[thread] -= 1
            if not _apart[thread]:
                del _apart[thread]
            if not _apart:
                _C._current_graph_task_id = _original
