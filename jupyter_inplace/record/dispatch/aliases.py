"""`x.detach()` while tripwires stand in for the mode: an alias that autograd does not connect with `x`, made without a kernel of ours.

While the mode is active it sees the operation itself; `x.data` is seen with the writes that torch does not dispatch.
"""

from __future__ import annotations

from typing import Any

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.patching import Held, Replacement
from jupyter_inplace.record.channels.untracked_writes import UntrackedWrites
from jupyter_inplace.record.here import StandIn, trace_here


class Aliases:
    """Replaces `Tensor.detach` and `torch.detach` while tripwires stand in for the mode."""

    def __init__(self) -> None:
        self._replaced = Held()

    def see(self) -> None:
        """Take note of aliases from now on."""
        if not self._replaced:
            self._replaced.acquire(_REPLACEMENTS)

    def leave(self) -> None:
        """The mode sees them, or nobody has to."""
        self._replaced.release()


def note_alias(t: Any) -> None:
    """Somebody is about to make an alias of `t` that autograd does not know of."""
    trace = trace_here()
    if trace is not None and trace.stack.wired and not private.dispatch_is_off():
        with private.Unfollowed():
            trace.part(UntrackedWrites).note_alias(t)


def _noting(original: Any) -> Any:
    def detach(_: Any, original: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        note_alias(args[0] if args else kwargs.get("input"))
        return original(*args, **kwargs)

    return StandIn(original, detach)


_REPLACEMENTS = (Replacement(torch.Tensor, "detach", _noting), Replacement(torch, "detach", _noting))
