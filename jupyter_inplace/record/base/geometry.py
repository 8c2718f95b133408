"""Which bytes of a storage a strided view covers, and how many of them two views share."""

from __future__ import annotations

from typing import NamedTuple

import torch

from jupyter_inplace.record.base.torch_private import is_wrapper

# Above this many bytes of common range the exact count is not worth its mask: the range itself is given.
_EXACT_LIMIT = 1 << 26


class View(NamedTuple):
    """The geometry of a strided tensor on its storage. Offsets and strides count elements of `itemsize` bytes."""

    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    itemsize: int

    @property
    def byte_range(self) -> tuple[int, int]:
        """First byte and the byte after the last, (0, 0) where the view is empty."""
        if 0 in self.shape:
            return (0, 0)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        return (self.offset * self.itemsize, (last + 1) * self.itemsize)


WHOLE = (
    0,
    1 << 62,
)  # a tensor whose bytes cannot be told apart (sparse components, wrapper, opaque): overlaps everything


def shape_of(t: torch.Tensor) -> tuple[int, ...]:
    """The shape of `t`, with -1 for what has no one length: the dimensions inside of a nested tensor."""
    try:
        shape = t.shape
    except RuntimeError:  # of a nested tensor only the first is told
        return (t.size(0), *(-1 for _ in range(t.dim() - 1)))
    return tuple(n if type(n) is int else -1 for n in shape) if t.is_nested else shape


def view_of(t: torch.Tensor) -> View | None:
    """The geometry of `t` in its memory, or None where it is not strided, or has no memory of its own."""
    if t.layout is not torch.strided or is_wrapper(t):  # both name strides too, of a storage that they have not
        return None
    try:
        return View(int(t.storage_offset()), tuple(t.shape), t.stride(), t.element_size())
    except (RuntimeError, NotImplementedError):
        return None


def byte_range(t: torch.Tensor) -> tuple[int, int]:
    """The smallest byte range of its storage that holds `t`; `WHOLE` where it is not strided, or has no memory of its own."""
    if t.layout is not torch.strided or is_wrapper(t):
        return WHOLE
    try:
        if t.is_contiguous():
            start = t.storage_offset() * t.element_size()
            return (int(start), int(start + t.nbytes))
    except (RuntimeError, NotImplementedError):
        return WHOLE
    view = view_of(t)
    return WHOLE if view is None else view.byte_range


def shared_bytes(a: View, b: View) -> int:
    """How many bytes of the storage both views cover. Exact up to 64 MiB of common range, else the range's length.

    The method is brute force on a mask of the common range, made by the strided writes of torch itself. It is only
    asked for pairs that a report names.
    """
    (a_lo, a_hi), (b_lo, b_hi) = a.byte_range, b.byte_range
    lo, hi = max(a_lo, b_lo), min(a_hi, b_hi)
    if hi <= lo:
        return 0
    if max(a_hi, b_hi) - min(a_lo, b_lo) > _EXACT_LIMIT:
        return hi - lo
    start = min(a_lo, b_lo)
    unit = (
        a.itemsize
        if a.itemsize == b.itemsize and (a_lo - start) % a.itemsize == 0 == (b_lo - start) % a.itemsize
        else 1
    )
    masks = []
    for view in (a, b):
        mask = torch.zeros((max(a_hi, b_hi) - start) // unit, dtype=torch.bool, device="cpu")
        per = view.itemsize // unit
        first = (view.offset * view.itemsize - start) // unit
        mask.as_strided((*view.shape, per), (*(s * per for s in view.stride), 1), first).fill_(True)
        masks.append(mask)
    return int((masks[0] & masks[1]).sum()) * unit
