"""Labels for the profiler, which torch itself puts around each optimizer step and batch: operators that touch no tensor.

Two of them cost under a dispatch mode what two real operations do, so the mode is lifted around them.
"""

from __future__ import annotations

import functools
from typing import Any

from torch.autograd.profiler import record_function

from jupyter_inplace.record.base.patching import Held, Replacement
from jupyter_inplace.record.here import trace_here


class ProfilerLabels:
    """Lifts the mode of this thread's trace where `record_function` begins and ends."""

    def __init__(self) -> None:
        self._replaced = Held()

    def install(self) -> None:
        self._replaced.acquire(_REPLACEMENTS)

    def remove(self) -> None:
        self._replaced.release()


def _without_mode(original: Any) -> Any:
    @functools.wraps(original)
    def method(label: Any, *args: Any) -> Any:
        trace = trace_here()
        place = None if trace is None or trace.stack.wired else trace.stack.lift()
        if trace is None or place is None:
            return original(label, *args)
        try:
            return original(label, *args)
        finally:
            trace.stack.put_back(place)

    return method


_REPLACEMENTS = tuple(Replacement(record_function, name, _without_mode) for name in ("__enter__", "__exit__"))
