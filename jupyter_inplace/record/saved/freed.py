"""Memory that is taken from under a saved tensor and filled again: sharded parameters, offloaded activations.

FSDP frees the gathered weights after a forward (``untyped_storage().resize_(0)``) and gathers them again right before the
backward that reads them. Meanwhile there is nothing to read, and what comes back is no damage: such saved tensors are
neither copied nor compared.
"""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any

import torch

from jupyter_inplace.record.base.geometry import byte_range
from jupyter_inplace.record.base.patching import Replacement, session_here
from jupyter_inplace.record.saved.saved import Saved

if TYPE_CHECKING:
    from jupyter_inplace.record.session import Session

# The method under `Tensor.untyped_storage`, which is replaced meanwhile by one that takes note of whoever asks.
underlying_storage = torch._C.TensorBase.untyped_storage
_NOTE = (
    "memory of saved tensors was freed and filled again (sharded or offloaded tensors): what came back is not compared"
)


class FreedMemory:
    """Which saved tensors have lost their memory at least once."""

    def __init__(self, session: Session) -> None:
        self._session = session
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
        session = self._session
        try:
            bucket = session.index.bucket(int(storage._cdata))
            lost = [s for s in bucket.live() if s.clone is None and byte_range(s.tensor)[1] > size] if bucket else []
            if lost:
                self._saved.update(lost)
                session.blind_spots.setdefault(_NOTE)
        except Exception as fault:
            session.fault(fault)


def is_own_memory(t: torch.Tensor) -> bool:
    """Whether torch made the memory of a tensor, as far as can be told: what came in from outside cannot be resized."""
    try:
        return not t.is_cpu or bool(underlying_storage(t).resizable())
    except RuntimeError:  # it has no storage
        return True


def is_gone(t: torch.Tensor) -> bool:
    """Whether the memory of a tensor is not there: its storage is too small for it."""
    if t.layout is not torch.strided:
        return False
    try:
        return underlying_storage(t).nbytes() < byte_range(t)[1]
    except (RuntimeError, NotImplementedError):
        return False


def _noticing(original: Any) -> Any:
    @functools.wraps(original)
    def resize_(storage: Any, size: int) -> Any:
        __tracebackhide__ = True
        session = session_here()
        if session is not None and session.installed and not session.muted:
            session.freed.shrinks(storage, size)
        return original(storage, size)

    return resize_


_RESIZE = Replacement(torch.UntypedStorage, "resize_", _noticing)
