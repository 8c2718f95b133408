"""Attributes of tensors that are assigned, of which torch dispatches nothing: `w.requires_grad = False`, `p.grad = None`.

`requires_grad` is replaced for the time of the session such that reading it stays as it was, in C. `.grad` is assigned once for each
parameter of each step, so that is seen only while some gradient is followed (`unread`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.patching import Replacement, StandIn, StandInProperty, session_here

if TYPE_CHECKING:
    from jupyter_inplace.record.session import Session


class Attributes:
    """Tells the session of leaves that are frozen, and of non-leaves whose gradient is asked for."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._held: list[Replacement] = []

    def install(self) -> None:
        self._held = [replacement for replacement in (_FLAG, _RETAIN) if replacement.acquire()]

    def remove(self) -> None:
        self._session.discarded_grads.stop()
        for replacement in self._held:
            replacement.release()
        self._held.clear()


def _telling(original: Any) -> Any:
    def put(tensor: Any, value: Any) -> None:
        __tracebackhide__ = True
        session = session_here() if value is False else None
        if session is not None:
            with private.Unfollowed():
                session.data_and_detach.freezing(tensor, "requires_grad =")
        original.__set__(tensor, value)

    return StandInProperty(original, original.__get__, put)


def _retaining(original: Any) -> Any:
    def retain_grad(session: Session, original: Any, tensor: Any) -> Any:
        __tracebackhide__ = True
        session.discarded_grads.retained = True
        return original(tensor)

    return StandIn(original, retain_grad)


def _following(original: Any) -> Any:
    # Not `__setattr__`: torch itself sets attributes from C++, and an interruption that comes in Python code there is lost.
    def put(tensor: Any, value: Any) -> None:
        __tracebackhide__ = True
        session = session_here()
        with private.Unfollowed():
            before = None if session is None else session.discarded_grads.before_assigned(tensor)
        original.__set__(tensor, value)
        if session is not None and before is not None:
            with private.Unfollowed():
                session.discarded_grads.assigned(tensor, before)

    return StandInProperty(original, original.__get__, put)


_FLAG = Replacement(torch.Tensor, "requires_grad", _telling)
_RETAIN = Replacement(torch.Tensor, "retain_grad", _retaining)
ASSIGNED = Replacement(torch.Tensor, "grad", _following)
