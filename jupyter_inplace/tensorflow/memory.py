"""Memory that a tensor shares with numpy or, through DLPack, with another framework: compared when a gradient is taken.

TensorFlow's own operations never change a tensor. What is written through the other owner of its memory is seen by
nobody: the tape reads it when it works out the gradient.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from jupyter_inplace.record.source.sites import find_site

if TYPE_CHECKING:
    from jupyter_inplace.tensorflow.session import Session

_COMPARED = 256 * 2**20  # bytes of copies at a time


@dataclasses.dataclass(eq=False, slots=True)
class Shared:
    """A tensor over memory that others may write, with what it held when it was first used or shared."""

    view: Any  # numpy, over the same memory
    before: Any  # a copy of it
    site: Any
    order: int
    time: float
    owner: Any  # keeps the memory
    kind: str
    tensor: int
    version: int = 0
    found: bool = False

    def changed(self) -> bool:
        return not np.array_equal(self.view, self.before, equal_nan=self.before.dtype.kind in "fc")


class SharedMemory:
    """The shared tensors of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.known: dict[int, Shared] = {}  # by tensor id
        self.pending: list[Any] = []  # numpy arrays on their way into an operation
        self._bytes = 0

    def arrived(self, inputs: Any) -> int:
        """Which inputs of an operation lie over the arrays that were handed to it; their bits."""
        arrays, self.pending = self.pending, []
        mask = 0
        addresses = {a.ctypes.data: a for a in arrays}
        for t in inputs:
            array = _numpy(t)
            owner = None if array is None else addresses.get(array.ctypes.data)
            if owner is not None:
                mask |= self.add(t, array, owner, "numpy", find_site(3, self._session.cell_files))
        return mask

    def add(self, t: Any, array: Any, owner: Any, kind: str, site: Any) -> int:
        """Remember a tensor whose memory others share; returns its bit."""
        key = t._id
        if key not in self.known:
            if self._bytes + array.nbytes > _COMPARED:
                self._session.blind_spots.setdefault("memory shared with others is too large to be compared whole")
                return 0
            self._bytes += array.nbytes
            session = self._session
            session.order += 1
            self.known[key] = Shared(array, np.array(array), site, session.order, session.seconds(), owner, kind, key)
        bit = self._session.track.bit(("memory", key))
        self._session.track.masks[key] = self._session.track.masks.get(key, 0) | bit
        return bit

    def exported(self, t: Any, kind: str) -> None:
        """A tensor's memory was handed out, or came from outside."""
        array = _numpy(t)
        if array is not None:
            self.add(t, array, t, kind, find_site(3, self._session.cell_files))

    def changed(self) -> list[Shared]:
        return [shared for shared in self.known.values() if shared.changed()]


def _numpy(t: Any) -> Any:
    """The memory of a tensor as numpy sees it, None where it has none on this machine's own."""
    try:
        if t.dtype.size is None or not (t.dtype.is_floating or t.dtype.is_complex or t.dtype.is_integer):
            return None
        array = t._numpy_internal()
        return array if isinstance(array, np.ndarray) and array.size else None
    except Exception:
        return None
