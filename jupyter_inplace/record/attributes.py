"""Attributes of tensors that are assigned, of which torch dispatches nothing: `w.requires_grad = False`, `p.grad = None`.

`requires_grad` is replaced for the time of the session such that reading it stays as it was, in C. `.grad` is assigned once for each
parameter of each step, so that is seen only while some gradient is followed (`unread`).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

from jupyter_inplace.record.patching import Replacement, session_here

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
        self._session.unread.stop()
        for replacement in self._held:
            replacement.release()
        self._held.clear()


class _Flag(property):
    """A property that gives its original away where somebody asks for `Tensor.requires_grad.__get__`, as torch itself does."""

    def __init__(self, original: Any, put: Any) -> None:
        super().__init__(original.__get__, put, original.__delete__, doc=original.__doc__)
        self.__dict__.update(__get__=original.__get__, __set__=original.__set__, __name__=original.__name__)


def _telling(original: Any) -> Any:
    def put(tensor: Any, value: Any) -> None:
        __tracebackhide__ = True
        session = session_here() if value is False else None
        if session is not None:
            session.undispatched.freezing(tensor, "requires_grad =")
        original.__set__(tensor, value)

    return _Flag(original, put)


def _noting(original: Any) -> Any:
    @functools.wraps(original)
    def retain_grad(tensor: Any) -> Any:
        __tracebackhide__ = True
        session = session_here()
        if session is not None:
            session.unread.retained = True
        return original(tensor)

    return retain_grad


def _following(original: Any) -> Any:
    # Not `__setattr__`: torch itself sets attributes from C++, and an interruption that comes in Python code there is lost.
    def put(tensor: Any, value: Any) -> None:
        __tracebackhide__ = True
        session = session_here()
        before = None if session is None else session.unread.before_assigned(tensor)
        original.__set__(tensor, value)
        if session is not None and before is not None:
            session.unread.assigned(tensor, before)

    return _Flag(original, put)


_FLAG = Replacement(torch.Tensor, "requires_grad", _telling)
_RETAIN = Replacement(torch.Tensor, "retain_grad", _noting)
ASSIGNED = Replacement(torch.Tensor, "grad", _following)
