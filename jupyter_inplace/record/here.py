"""The trace in force on each thread, and functions of torch that tell it of their calls.

torch's functions belong to the process, a watch to its thread. So a replaced function asks which trace is in force on the thread that
calls it, and does nothing of its own where there is none.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable
from typing import Any, TypeVar

from torch.overrides import has_torch_function_unary

from jupyter_inplace.record.trace import Trace

Part = TypeVar("Part")


class _Here(threading.local):
    trace: Trace | None = None  # in the class: a look-up with a default takes six times as long


_here = _Here()


def trace_here() -> Trace | None:
    """The trace in force on this thread."""
    return _here.trace


def set_trace_here(trace: Trace | None) -> None:
    """Put a trace in force on this thread, or none."""
    _here.trace = trace


def part_here(kind: type[Part]) -> Part | None:
    """The part of that class that is in force on this thread."""
    trace = _here.trace
    return None if trace is None else trace.part(kind)


class StandIn:
    """Tells the trace in force of each call of a method of tensors, and passes for the method: it is equal to it, and has its names.

    Where tensor classes or function modes follow functions, torch hands them this one, which stands where torch looks the method
    up. They are asked first; told is what they call in the end.

    :param told: called with (trace, original, tensor, ...) in place of the method.
    """

    def __init__(self, original: Any, told: Callable[..., Any]) -> None:
        self._original, self._told = original, told

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        trace = _here.trace
        tensor = args[0] if args else kwargs.get("input")
        if trace is None or has_torch_function_unary(tensor):
            return self._original(*args, **kwargs)
        return self._told(trace, self._original, *args, **kwargs)

    def __get__(self, tensor: Any, owner: Any = None) -> Any:
        return self if tensor is None else types.MethodType(self, tensor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def __eq__(self, other: object) -> bool:
        return self is other or bool(self._original == other)

    def __hash__(self) -> int:
        return hash(self._original)

    def __repr__(self) -> str:
        return repr(self._original)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._original)
