"""Runs our own torch operations unseen."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

from torch.utils._python_dispatch import _disable_current_modes

from jupyter_inplace.record.base.torch_private import Unfollowed, without_grad
from jupyter_inplace.record.session import Session


@contextlib.contextmanager
def quiet(session: Session) -> Iterator[None]:
    """Inside the block, no dispatch mode and no tensor subclass sees torch operations, and nothing records them.

    Python's garbage collector is off meanwhile: lists of all nodes would make it scan everything and find nothing.
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
