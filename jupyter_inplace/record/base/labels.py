"""Labels for the profiler, which torch itself puts around each optimizer step and batch: operators that touch no tensor.

Two of them cost under a dispatch mode what two real operations do, so the mode is lifted around them.
"""

from __future__ import annotations

import functools
from typing import Any

from torch.autograd.profiler import record_function

from jupyter_inplace.record.base.patching import Replacement, session_here


class ProfilerLabels:
    """Lifts the mode of this thread's session where `record_function` begins and ends."""

    def __init__(self) -> None:
        self._held: list[Replacement] = []

    def install(self) -> None:
        self._held = [replacement for replacement in _REPLACEMENTS if replacement.acquire()]

    def remove(self) -> None:
        for replacement in self._held:
            replacement.release()
        self._held.clear()


def _without_mode(original: Any) -> Any:
    @functools.wraps(original)
    def method(label: Any, *args: Any) -> Any:
        session = session_here()
        place = None if session is None or session.stack.wired else session.stack.lift()
        if session is None or place is None:
            return original(label, *args)
        try:
            return original(label, *args)
        finally:
            session.stack.put_back(place)

    return method


_REPLACEMENTS = tuple(Replacement(record_function, name, _without_mode) for name in ("__enter__", "__exit__"))
