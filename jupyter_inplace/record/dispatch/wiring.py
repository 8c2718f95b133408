"""When tripwires may stand in for the dispatch mode of a trace, and what ends that.

They do from the start of a watch, where they were made before (making them takes longer than most cells), else from the second
backward call on that needed no look at its operations. Both are places where no guard of torch's is open that would put
the dispatch keys back behind us. Whatever makes plain operations worth a look, or asks torch what keys are in force,
brings the mode back, until the next such backward call.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.patching import Held, Replacement
from jupyter_inplace.record.dispatch import tripwires
from jupyter_inplace.record.dispatch.other_modes import OtherModes
from jupyter_inplace.record.here import part_here, trace_here
from jupyter_inplace.record.saved.hooks import SavedTensorHooks
from jupyter_inplace.record.trace import Trace


class Wiring:
    """Decides for one trace; replaces the few functions of torch's that tripwires cannot live with by ones that say so first."""

    #: How many backward calls see the mode before tripwires may stand in for it.
    backwards = 1

    def __init__(self, trace: Trace, hooks: SavedTensorHooks, other_modes: OtherModes) -> None:
        self._trace, self._hooks, self._other_modes = trace, hooks, other_modes
        self._replaced = Held()
        self._complete = False  # whether all of what would end them can be seen
        self._loaded: tuple[int, ...] = ()  # how much there was when operators were looked through last
        self._known = False
        self._guards = 0  # how many guards are open that put all keys back when they end
        self._calls = 0

    def install(self) -> None:
        """Begin to see what would end the tripwires. A watch that begins in inference mode has none."""
        if private.TRIPWIRE is not None and not torch.is_inference_mode_enabled():
            self._complete = self._replaced.acquire(_REPLACEMENTS)
            tripwires.acquire()
        self._calls = self._guards = 0

    def remove(self) -> None:
        """See it no more."""
        if self._replaced:
            self._replaced.release()
            tripwires.release()
        self._complete = False

    @property
    def at_once(self) -> bool:
        """Whether tripwires may be in force as soon as the watch is: not where they would have to be made first."""
        return tripwires.made()

    def guard(self, by: int) -> None:
        """A guard that keeps all keys in force, to put them back, is about to open or was closed."""
        self._trace.stack.attend()
        self._guards = max(0, self._guards + by)

    def looked_up(self, packet: str) -> None:
        """The program asks torch for an operator. One that came since the last look has no tripwire yet."""
        if not tripwires.knows(packet):
            self._loaded = ()
            self._trace.stack.attend()

    def counted(self) -> bool:
        """One more backward call ran without the mode; whether that is enough."""
        self._calls += 1
        return self._calls > self.backwards

    def allowed(self) -> bool:
        """Whether nothing in this program needs the mode to see plain operations."""
        trace = self._trace
        return (
            self._complete
            and not trace.has_to_look
            and not trace.depth
            and not self._other_modes.count
            and not self._hooks.suspended
            and not private.in_transform()
            and not self._guards
            and not _compiled()
            and self._knows_operators()
        )

    def _knows_operators(self) -> bool:
        """Whether each operator that writes, or that is defined in Python, has its tripwire."""
        loaded = (private.count_defined_in_python(), len(sys.modules), len(torch.ops.loaded_libraries))
        if loaded != self._loaded:
            self._loaded = loaded
            self._known = tripwires.ready()
        return self._known


def _compiled() -> bool:
    """Whether anything was handed to torch.compile: its guards look at the dispatch keys that are in force."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    backends = getattr(dynamo, "cached_backends", None) if dynamo is not None else {}
    return backends is None or any(backend is not None for backend in backends.values())


def _announcing(original: Any) -> Any:
    @functools.wraps(original)
    def announced(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        trace = trace_here()
        if trace is not None:
            trace.stack.attend()
        return original(*args, **kwargs)

    return announced


def _defining(original: Any) -> Any:
    @functools.wraps(original)
    def define(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        trace = trace_here()
        if trace is not None:
            trace.stack.attend()
        with tripwires.defining():
            return original(*args, **kwargs)

    return define


def _opening(original: Any) -> Any:
    @functools.wraps(original)
    def __enter__(guard: Any) -> Any:  # noqa: N807  (torch's own name)
        wiring = part_here(Wiring)
        if wiring is not None:
            wiring.guard(1)
        return original(guard)

    return __enter__


def _closing(original: Any) -> Any:
    @functools.wraps(original)
    def __exit__(guard: Any, *error: Any) -> Any:  # noqa: N807
        try:
            return original(guard, *error)
        finally:
            wiring = part_here(Wiring)
            if wiring is not None:
                wiring.guard(-1)

    return __exit__


def _looking_up(original: Any) -> Any:
    @functools.wraps(original)
    def __getattr__(namespace: Any, name: str) -> Any:  # noqa: N807
        found = original(namespace, name)
        trace = trace_here()
        if trace is not None and trace.stack.wired:
            trace.part(Wiring).looked_up(f"{namespace.name}::{name}")
        return found

    return __getattr__


# A guard that keeps all keys and puts them back when it ends; the compiler; new operators; operators of operators, which
# know the keys for which they have a rule; operators of a library of C++ that was just loaded.
_REPLACEMENTS = (
    Replacement(torch.inference_mode, "__enter__", _opening),
    Replacement(torch.inference_mode, "__exit__", _closing),
    Replacement(torch, "compile", _announcing),
    Replacement(torch.library.Library, "define", _defining),
    Replacement(torch._ops.HigherOrderOperator, "__call__", _announcing),
    Replacement(torch._ops._OpNamespace, "__getattr__", _looking_up),
)
