"""Processes that the watched thread starts: said, since a watch does not reach into them."""

from __future__ import annotations

import functools
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from jupyter_inplace.record.base.patching import Replacement, session_here

if TYPE_CHECKING:
    from jupyter_inplace.record.session import Session


class Processes:
    """Takes note of started processes. Daemonic ones (a DataLoader's workers) prepare data: they go without a word."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def install(self) -> None:
        """Begin to see processes that are started."""
        _START.acquire()

    def remove(self) -> None:
        """See them no more."""
        _START.release()

    def started(self, process: BaseProcess) -> None:
        """A process is about to start."""
        if not process.daemon:
            self._session.blind_spots.setdefault(
                f"the process {process.name!r} was started during the watch and is not watched; "
                "a watch inside of the function that it runs sees it"
            )


def _noting(original: Any) -> Any:
    @functools.wraps(original)
    def start(self: BaseProcess) -> Any:
        __tracebackhide__ = True
        session = session_here()
        if session is not None and session.installed:
            session.processes.started(self)
        return original(self)

    return start


_START = Replacement(BaseProcess, "start", _noting)
