"""Processes that the watched thread starts: said, since a watch does not reach into them."""

from __future__ import annotations

import functools
from multiprocessing.process import BaseProcess
from typing import Any

from jupyter_inplace.record.base.patching import Replacement
from jupyter_inplace.record.here import part_here
from jupyter_inplace.record.trace import Trace


class Processes:
    """Takes note of started processes. Daemonic ones (a DataLoader's workers) prepare data: they go without a word."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def install(self) -> None:
        """Begin to see processes that are started."""
        _START.acquire()

    def remove(self) -> None:
        """See them no more."""
        _START.release()

    def started(self, process: BaseProcess) -> None:
        """A process is about to start."""
        if self._trace.installed and not process.daemon:
            self._trace.blind_spots.setdefault(
                f"the process {process.name!r} was started during the watch and is not watched; "
                "a watch inside of the function that it runs sees it"
            )


def _noting(original: Any) -> Any:
    @functools.wraps(original)
    def start(self: BaseProcess) -> Any:
        __tracebackhide__ = True
        processes = part_here(Processes)
        if processes is not None:
            processes.started(self)
        return original(self)

    return start


_START = Replacement(BaseProcess, "start", _noting)
