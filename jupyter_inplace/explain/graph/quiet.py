"""Torch operations of our own, which nobody is to see."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

from torch.utils._python_dispatch import _disable_current_modes

from jupyter_inplace.record.base.torch_private import Unfollowed, without_grad
from jupyter_inplace.record.session import Session


@contextlib.contextmanager
def quiet(session: Session) -> Iterator[None]:
    """Run our own torch operations: no dispatch mode and no tensor subclass sees them, and nothing records them.

    Python's garbage collector is off meanwhile: lists of all nodes would make it look through everything, and find nothing.
    """
    before, session.muted = session.muted, True
    collecting = gc.isenabled()
    gc.disable()
    try:
        with _disable_current_modes(), Unfollowed(), without_grad():
            yield
    finally:
        session.muted = before
        if collecting:
            gc.enable()
