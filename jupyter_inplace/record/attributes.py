"""Attributes of tensors that are assigned: `w.requires_grad = False` and `p.grad = None`, of which torch dispatches nothing.

Assigning goes through `Tensor.__setattr__`, which is replaced for the time of the session. Reading an attribute goes the way it
always did, and costs what it always did.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

from jupyter_inplace.record.patching import Replacement, session_here

if TYPE_CHECKING:
    from jupyter_inplace.record.session import Session


class Attributes:
    """Tells the session of a leaf that is frozen."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._installed = False

    def install(self) -> None:
        self._installed = _SET.acquire()

    def remove(self) -> None:
        if self._installed:
            self._installed = False
            _SET.release()


def _telling(original: Any) -> Any:
    @functools.wraps(original)
    def assign(tensor: Any, name: str, value: Any) -> None:
        __tracebackhide__ = True
        if name == "requires_grad" and value is False:
            session = session_here()
            if session is not None:
                session.undispatched.freezing(tensor, "requires_grad =")
        original(tensor, name, value)

    return assign


_SET = Replacement(torch.Tensor, "__setattr__", _telling)
