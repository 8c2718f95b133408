"""Dispatch modes of others (counters, loggers, fake tensors, tracers): while one is on, saved-tensor hooks stay off.

A saved tensor that passes hooks comes back through one more `detach`, which such a mode would see: a log with lines that are
not the program's, a traced graph with other nodes. torch's own version check is at work meanwhile.
"""

from __future__ import annotations

import functools
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.patching import Held, Replacement
from jupyter_inplace.record.dispatch.mode import WatchMode
from jupyter_inplace.record.here import part_here
from jupyter_inplace.record.saved.hooks import SavedTensorHooks
from jupyter_inplace.record.trace import Trace

REASON = "mode"

# The packages of torch's whose modes are the compiler's: that one looks at what the program is, before it is run.
_COMPILER = (
    "torch._functorch.",
    "torch._subclasses.",
    "torch.fx.",
    "torch._dynamo.",
    "torch._inductor.",
    "torch._higher_order_ops.",
)
COMPILED = (
    "torch.compile or another tracer was at work: writes inside of compiled regions are not seen, what they save is"
)
# Stands around the first run of a compiled function, and looks at custom operators alone.
_ONLOOKER = "_AnalyzeCustomOpInputOutputMode"


class OtherModes:
    """Counts the modes that the program has on, beside ours."""

    def __init__(self, trace: Trace, hooks: SavedTensorHooks) -> None:
        self._trace, self._hooks = trace, hooks
        self._replaced = Held()
        self.count = 0

    def install(self) -> None:
        modes = [private.dispatch_stack_at(i) for i in range(private.len_dispatch_stack())]
        self.count = sum(not isinstance(mode, WatchMode) for mode in modes)
        self._replaced.acquire(_REPLACEMENTS)
        self._act()

    def remove(self) -> None:
        self._replaced.release()
        self.count = 0

    def changed(self, mode: Any, by: int) -> None:
        """The program put a mode on, or took one off."""
        self._trace.stack.attend()
        if not self._trace.muted and type(mode).__name__ != _ONLOOKER:
            self.count = max(0, self.count + by)
            self._act(mode)

    def _act(self, mode: Any = None) -> None:
        trace = self._trace
        if self.count:
            self._hooks.suspend(REASON)
            if type(mode).__module__.startswith(_COMPILER):
                trace.blind_spots.setdefault(COMPILED)
            else:
                trace.blind_spots.setdefault(
                    "the program's own dispatch modes see every operation: what was saved while one was on was left to torch's own check"
                )
        else:
            self._hooks.resume(REASON)


def _entering(original: Any) -> Any:
    @functools.wraps(original)
    def __enter__(mode: Any) -> Any:  # noqa: N807  (torch's own name)
        out = original(mode)
        others = part_here(OtherModes)
        if others is not None:
            others.changed(mode, 1)
        return out

    return __enter__


def _leaving(original: Any) -> Any:
    @functools.wraps(original)
    def __exit__(mode: Any, *error: Any) -> Any:  # noqa: N807
        try:
            return original(mode, *error)
        finally:
            others = part_here(OtherModes)
            if others is not None:
                others.changed(mode, -1)

    return __exit__


_REPLACEMENTS = (
    Replacement(TorchDispatchMode, "__enter__", _entering),
    Replacement(TorchDispatchMode, "__exit__", _leaving),
)
