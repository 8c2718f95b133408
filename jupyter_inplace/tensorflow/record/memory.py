"""Memory that a tensor shares with numpy or, through DLPack, with another framework: compared when a gradient is computed.

TensorFlow's own operations never change a tensor. Writes through the other owner of its memory are invisible to TensorFlow,
and the tape reads the new values when it computes the gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jupyter_inplace.record.source.sites import find_site
from jupyter_inplace.tensorflow.record.events import SharedTensor, SharedThrough
from jupyter_inplace.tensorflow.record.trace import TapeTrace

_COMPARED = 256 * 2**20  # bytes of all copies together


class SharedMemory:
    """The shared tensors of one session."""

    def __init__(self, trace: TapeTrace) -> None:
        self._trace = trace
        self.known: dict[int, SharedTensor] = {}  # by tensor id
        self.pending: list[Any] = []  # numpy arrays passed to the next operation
        self._bytes = 0

    def arrived(self, inputs: Any) -> int:
        """The bits of the inputs of an operation that share memory with the arrays passed to it."""
        arrays, self.pending = self.pending, []
        mask = 0
        addresses = {a.ctypes.data: a for a in arrays}
        for t in inputs:
            array = _numpy(t)
            owner = None if array is None else addresses.get(array.ctypes.data)
            if owner is not None:
                mask |= self.add(t, array, owner, SharedThrough.NUMPY, find_site(3, self._trace.cell_files))
        return mask

    def add(self, t: Any, array: Any, owner: Any, through: SharedThrough, site: Any) -> int:
        """Remember a tensor whose memory others share, and return its bit."""
        key = t._id
        if key not in self.known:
            if self._bytes + array.nbytes > _COMPARED:
                self._trace.blind_spots.setdefault("memory shared with others is too large to be compared whole")
                return 0
            self._bytes += array.nbytes
            trace = self._trace
            trace.order += 1
            self.known[key] = SharedTensor(
                array, np.array(array), site, trace.order, trace.seconds(), owner, through, key
            )
        bit = self._trace.track.bit(("memory", key))
        self._trace.track.masks[key] = self._trace.track.masks.get(key, 0) | bit
        return bit

    def exported(self, t: Any) -> None:
        """The memory of a tensor was exported or imported through DLPack."""
        array = _numpy(t)
        if array is not None:
            self.add(t, array, t, SharedThrough.DLPACK, find_site(3, self._trace.cell_files))

    def changed(self) -> list[SharedTensor]:
        return [shared for shared in self.known.values() if shared.changed()]


def _numpy(t: Any) -> Any:
    """The memory of a tensor as a numpy array, None if it is not on the CPU."""
    try:
        if t.dtype.size is None or not (t.dtype.is_floating or t.dtype.is_complex or t.dtype.is_integer):
            return None
        array = t._numpy_internal()
        return array if isinstance(array, np.ndarray) and array.size else None
    except Exception:
        return None
