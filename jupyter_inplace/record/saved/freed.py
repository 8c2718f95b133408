"""Memory that is taken from under a saved tensor and filled again: sharded parameters, offloaded activations.

FSDP frees the gathered weights after a forward (``untyped_storage().resize_(0)``) and gathers them again right before the
backward that reads them. Meanwhile there is nothing to read, and what comes back is no damage: such saved tensors are
neither copied nor compared.
"""

from __future__ import annotations

import functools
import weakref
from typing import Any

import torch

from jupyter_inplace.record.base.geometry import byte_range
from jupyter_inplace.record.base.patching import Replacement
from jupyter_inplace.record.here import trace_here
from jupyter_inplace.record.saved.saved import Saved
from jupyter_inplace.record.trace import Trace

_NOTE = (
    "memory of saved tensors was freed and filled again (sharded or offloaded tensors): what came back is not compared"
)


class FreedMemory:
    """Which saved tensors have lost their memory at least once."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._saved: weakref.WeakSet[Saved] = weakref.WeakSet()
        self._installed = False

    def install(self) -> None:
        """Begin to see storages that are resized."""
        self._installed = _RESIZE.acquire()

    def remove(self) -> None:
        """See them no more; what was seen is kept as long as the saved tensors live."""
        if self._installed:
            self._installed = False
            _RESIZE.release()

    def __contains__(self, saved: Saved) -> bool:
        return saved in self._saved if self._saved else False

    def shrinks(self, storage: Any, size: int) -> None:
        """A storage is about to be cut to `size` bytes."""
        trace = self._trace
        try:
            bucket = trace.index.bucket(int(storage._cdata))
            lost = [s for s in bucket.live() if s.clone is None and byte_range(s.tensor)[1] > size] if bucket else []
            if lost:
                self._saved.update(lost)
                trace.blind_spots.setdefault(_NOTE)
        except Exception as fault:
            trace.fault(fault)


def _noticing(original: Any) -> Any:
    @functools.wraps(original)
    def resize_(storage: Any, size: int) -> Any:
        __tracebackhide__ = True
        trace = trace_here()
        if trace is not None and trace.installed and not trace.muted:
            trace.part(FreedMemory).shrinks(storage, size)
        return original(storage, size)

    return resize_


_RESIZE = Replacement(torch.UntypedStorage, "resize_", _noticing)
