"""Assembly: makes the parts of a record of TensorFlow, installs them, and removes them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Protocol

from jupyter_inplace.tensorflow.record.memory import SharedMemory
from jupyter_inplace.tensorflow.record.operations import Operations
from jupyter_inplace.tensorflow.record.trace import TapeTrace

_here = threading.local()


class _Installed(Protocol):
    def install(self) -> None: ...

    def remove(self) -> None: ...

    def optimizers(self) -> None: ...


def session_here() -> TapeSession | None:
    """The active session of this thread."""
    session: TapeSession | None = getattr(_here, "session", None)
    return session


def _leave_in_child() -> None:
    """A forked process runs without the watch: its report would not be read."""
    session = session_here()
    if session is not None:
        _here.session = None
        session.off += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_in_child)


class TapeSession(TapeTrace):
    """The record of one thread, with the parts that fill it."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = SharedMemory(self)
        self.operations = Operations(self, self.memory)
        self.windows = 0
        self._patches: _Installed | None = None

    def install(self, patches: Callable[[TapeSession], _Installed]) -> None:
        """Install everything on this thread, once for all windows.

        :param patches: makes the patches of TensorFlow.
        """
        self.windows += 1
        if self.windows > 1:
            return
        _here.session = self
        self._patches = patches(self)
        self._patches.install()

    def remove(self) -> None:
        """Remove everything with the last window."""
        self.windows -= 1
        if self.windows:
            return
        _here.session = None
        patches, self._patches = self._patches, None
        if patches is not None:
            patches.remove()
        self.track.tapes.clear()
        self.track.clear()

    def new_tape(self) -> None:
        """A tape begins: also patch what was imported meanwhile."""
        if self._patches is not None:
            self._patches.optimizers()
