"""Tensors as plain data for a pipe: small ones in full, larger ones as a sketch that can be compared.

A sketch (Charikar, Chen, Farach-Colton: Finding frequent items in data streams, 2002) sums the elements with random signs
into a fixed number of bins. It is linear, so the difference of two sketches is the sketch of the difference, and the square
of its Euclidean norm estimates that of the tensor without bias.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

_BINS = 4096
_SMALL = 4096  # elements; below this a sketch would not be smaller
_BLOCK = 256 * _BINS  # elements processed at a time

# By dtype, relative differences up to which two computations of the same number agree.
_AGREE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor.

    :param dtype: without the ``torch.``.
    :param data: all elements as float64 (complex ones as pairs), None if there is a sketch instead.
    :param sketch: of the finite elements.
    :param norm: the Euclidean norm of the finite elements.
    :param odd: how many elements are NaN or infinite.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes | None
    sketch: bytes | None
    norm: float
    odd: int = 0

    @property
    def exact(self) -> bool:
        """Whether values must be equal, not just close: integers and booleans."""
        return not self.dtype.startswith(("float", "bfloat", "complex"))

    @property
    def tolerance(self) -> float:
        """The relative difference up to which two tensors of this dtype agree."""
        if self.exact:
            return 0.0
        real = {"complex64": "float32", "complex128": "float64", "complex32": "float16"}.get(self.dtype, self.dtype)
        return _AGREE.get(getattr(torch, real), 0.1)

    def elements(self) -> torch.Tensor:
        """The elements, or the sketch of them, as a flat float64 tensor."""
        raw = self.data if self.data is not None else self.sketch
        return torch.frombuffer(bytearray(raw), dtype=torch.float64) if raw else torch.zeros(0, dtype=torch.float64)


class Packer:
    """Makes values, in full up to a budget of bytes and as sketches after that."""

    def __init__(self, budget: int) -> None:
        self._left = budget

    def pack(self, tensor: torch.Tensor | None) -> Value | None:
        """The value of a tensor; None for None, and for tensors without readable elements (meta, opaque)."""
        if tensor is None:
            return None
        try:
            flat = _flat(tensor)
        except (RuntimeError, NotImplementedError):
            return None
        size = flat.numel() * 8
        in_full = flat.numel() <= _SMALL or size <= self._left
        odd, squares = 0, 0.0
        sketching = None if in_full else _Sketching(flat.numel())
        whole = []
        for block in flat.split(_BLOCK):
            exact = block.to(torch.float64)
            finite = exact.isfinite()
            lost = int(exact.numel() - int(finite.sum()))
            calm = torch.where(finite, exact, 0.0) if lost else exact
            odd += lost
            squares += float(calm @ calm)
            if sketching is None:
                whole.append(exact.numpy().tobytes())
            else:
                sketching.add(calm)
        data = sketched = None
        if sketching is None:
            self._left -= size
            data = b"".join(whole)
        else:
            sketched = sketching.result().numpy().tobytes()
        name = str(tensor.dtype).removeprefix("torch.")
        return Value(name, tuple(tensor.shape), data, sketched, math.sqrt(squares), odd)


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """The elements as a flat tensor of the same dtype: a large one is converted block by block."""
    with torch.no_grad():
        t = tensor.detach()
        if t.layout is not torch.strided:
            t = t.to_dense()
        t = t.resolve_conj().resolve_neg().cpu()
        if t.is_complex():
            t = torch.view_as_real(t)
        if t.is_quantized:
            t = t.dequantize()
        return t.reshape(-1)


class _Sketching:
    """Builds a sketch; blocks are added in order, and the length of all but the last is a multiple of the bins."""

    def __init__(self, count: int) -> None:
        rows = math.ceil(count / _BINS)
        generator = torch.Generator().manual_seed(rows)
        self._signs = torch.randint(0, 2, (rows, 1), generator=generator, dtype=torch.float64) * 2 - 1
        self._columns = torch.randint(0, 2, (_BINS,), generator=generator, dtype=torch.float64) * 2 - 1
        self._sum = torch.zeros(_BINS, dtype=torch.float64)
        self._row = 0

    def add(self, block: torch.Tensor) -> None:
        rows = math.ceil(block.numel() / _BINS)
        if block.numel() < rows * _BINS:
            block = torch.nn.functional.pad(block, (0, rows * _BINS - block.numel()))
        signs = self._signs[self._row : self._row + rows]
        self._sum += (block.view(rows, _BINS) * signs).sum(0)
        self._row += rows

    def result(self) -> torch.Tensor:
        return self._sum * self._columns


def sketch(flat: torch.Tensor) -> torch.Tensor:
    """The sketch of a flat float64 tensor; equal tensors give the same in every process."""
    sketching = _Sketching(flat.numel())
    for block in flat.split(_BLOCK):
        sketching.add(block)
    return sketching.result()


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one tensor is from another.

    :param relative: the norm of the difference divided by that of the second; infinite if shapes differ or one is missing.
    :param cosine: of the angle between them; None if one of them is zero or absent.
    :param equal: whether the difference is only rounding.
    """

    relative: float
    cosine: float | None
    equal: bool


NONE_AT_ALL = Difference(0.0, None, equal=True)
BEYOND = Difference(math.inf, None, equal=False)


def compare(value: Value | None, reference: Value | None, scale: float = 0.0) -> Difference:
    """Compare a value with its reference.

    :param scale: both count as zero if they are smaller than this norm by six digits: rounding leaves noise where the exact
        result is zero.
    """
    if value is None and reference is None:
        return NONE_AT_ALL
    if value is None or reference is None or value.shape != reference.shape or value.odd != reference.odd:
        return BEYOND
    a, b = _alike(value, reference)
    if value.odd:
        same = ((a == b) | (a.isnan() & b.isnan())) | (a.isfinite() & b.isfinite())
        if not bool(same.all()):
            return BEYOND
        a, b = a.nan_to_num(0.0, 0.0, 0.0), b.nan_to_num(0.0, 0.0, 0.0)
    size, other = float(torch.linalg.vector_norm(a)), float(torch.linalg.vector_norm(b))
    distance = float(torch.linalg.vector_norm(a - b))
    relative = distance / other if other else (math.inf if distance else 0.0)
    cosine = max(-1.0, min(1.0, float(a @ b) / size / other)) if size and other else None
    tolerance = max(value.tolerance, reference.tolerance)
    equal = distance == 0 or (tolerance > 0 and distance <= tolerance * max(size, other) + 1e-6 * scale)
    return Difference(relative, cosine, equal)


def _alike(value: Value, reference: Value) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = value.elements(), reference.elements()
    if (value.data is None) == (reference.data is None):
        return a, b
    if value.data is not None:
        return sketch(a.nan_to_num(0.0, 0.0, 0.0)), b
    return a, sketch(b.nan_to_num(0.0, 0.0, 0.0))


def number(value: Any) -> Value | None:
    """A Python or numpy number or array as a value; None for anything else."""
    if isinstance(value, bool | int | float | complex):
        try:
            return Packer(0).pack(torch.tensor(value))
        except (RuntimeError, OverflowError, ValueError):  # an integer beyond 64 bits
            return None
    if type(value).__module__ == "numpy" and hasattr(value, "dtype"):
        import numpy as np

        try:
            return Packer(0).pack(torch.from_numpy(np.array(value)))
        except (TypeError, RuntimeError):
            return None
    return None
