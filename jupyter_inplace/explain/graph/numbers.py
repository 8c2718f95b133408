"""Norms, relative differences and cosines of gradients, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from jupyter_inplace.record.base.torch_private import holders, is_wrapper


def _flat(g: torch.Tensor) -> torch.Tensor:
    g = g.detach() if not is_wrapper(g) else g
    parts = [part for part in _parts(g) if part.dtype == g.dtype]  # offsets and masks are not its values
    if parts:
        return torch.cat([_flat(part) for part in parts])
    if g.layout is not torch.strided:
        g = g.to_dense()
    if g.is_complex():
        g = torch.view_as_real(g.resolve_conj())
    return g.reshape(-1).to(torch.float64 if g.device.type != "mps" else torch.float32)


def _parts(t: torch.Tensor) -> Sequence[torch.Tensor]:
    """The plain tensors that a wrapper or a nested tensor consists of.

    Operations on the class of a wrapper may be collectives, for which the other ranks do not wait.
    """
    if is_wrapper(t):
        return holders(t)
    return t.unbind() if t.is_nested else ()


# Norms between these were computed without overflow or relevant underflow, in float32 too.
_SMALL, _LARGE = 1e-12, 1e12


def _is_plain(*sizes: float) -> bool:
    """Whether norms are of ordinary size, which implies that all values are finite."""
    return all(_SMALL < size < _LARGE for size in sizes)


def _size(x: torch.Tensor) -> float:
    """Euclidean norm, scaled so that squares of very large and very small numbers neither overflow nor underflow."""
    size = float(torch.linalg.vector_norm(x))
    if _is_plain(size):
        return size
    top = float(x.abs().max()) if x.numel() else 0.0
    return top * float((x / top).norm()) if 0.0 < top < math.inf else top


def norm(g: torch.Tensor | None) -> float | None:
    """Euclidean norm; 0 for no gradient."""
    return 0.0 if g is None else _size(_flat(g))


def compare(
    as_run: torch.Tensor | None, reference: torch.Tensor | None, scale: float = 0.0
) -> tuple[str, float | None, float | None]:
    """The `(status, relative difference, cosine)` of a gradient compared with its reference.

    The status is ``ok`` within rounding of the coarser type, ``lost`` if the gradient is zero or missing and the reference is
    not zero, else ``wrong``. NaN equals NaN, an infinity itself. `scale` is the norm of a gradient to which this one is
    added: what gets lost in the rounding of the sum is not a difference.
    """
    if as_run is reference:
        return "ok", 0.0, (1.0 if norm(reference) else None)
    like = reference if reference is not None else as_run
    assert like is not None
    a = _flat(as_run) if as_run is not None else torch.zeros_like(_flat(like))
    b = _flat(reference) if reference is not None else torch.zeros_like(a)
    if a.shape != b.shape:
        return "wrong", None, None
    if torch.equal(a, b):
        return "ok", 0.0, (1.0 if _size(b) > 0 else None)
    na, nb, nd = (float(torch.linalg.vector_norm(x)) for x in (a, b, a - b))
    if _is_plain(na, nb, nd):
        return _judged(a, b, na, nb, nd, scale, _epsilon(like.dtype))
    same = (a == b) | (a.isnan() & b.isnan())
    if bool(same.all()):
        return "ok", 0.0, (1.0 if _size(b) > 0 else None)
    zero = torch.zeros_like(a)
    na, nb = _size(a.where(a.isfinite(), zero)), _size(b.where(b.isfinite(), zero))
    nd = _size(zero.where(same, a - b))
    return _judged(a, b, na, nb, nd, scale, _epsilon(like.dtype))


def _judged(
    a: torch.Tensor, b: torch.Tensor, na: float, nb: float, nd: float, scale: float, epsilon: float
) -> tuple[str, float | None, float | None]:
    """`compare` for gradients that are not identical, with their norms and that of the difference."""
    relative = nd / nb if nb > 0 else math.inf
    if math.isfinite(nd) and (nd <= 16 * epsilon * nb or nd <= epsilon * scale):
        return "ok", relative, _cosine(a, b, na, nb)
    if na == 0 and bool(a.isfinite().all()):
        return "lost", relative, None
    return "wrong", relative if not math.isnan(relative) else None, _cosine(a, b, na, nb)


def _cosine(a: torch.Tensor, b: torch.Tensor, na: float, nb: float) -> float | None:
    if not (0 < na < math.inf and 0 < nb < math.inf):
        return None
    product = float((a / na) @ (b / nb))
    return (
        max(-1.0, min(1.0, product)) if math.isfinite(product) else None
    )  # not finite if either has an infinity or NaN


def cosine(a: torch.Tensor, b: torch.Tensor) -> float | None:
    """Cosine of the angle between two gradients of one leaf; None if one of them is zero."""
    x, y = _flat(a), _flat(b)
    if x.shape != y.shape:
        return None
    return _cosine(x, y, _size(x), _size(y))


def same_values(a: torch.Tensor, b: torch.Tensor) -> bool | None:
    """Whether two tensors hold the same values, NaN equal to NaN; None if it cannot be told."""
    try:
        if is_wrapper(a) or is_wrapper(b) or (a.is_nested and b.is_nested):
            return _same_parts(_parts(a), _parts(b))
        if a.layout is not torch.strided:
            a, b = a.to_dense(), b.to_dense()
        a, b = a.detach(), b.detach()
        if a.numel() != b.numel():
            return False
        a, b = a.reshape(-1), b.reshape(-1)
        if a.dtype is torch.complex32:  # which torch cannot compare
            a, b = a.to(torch.complex64), b.to(torch.complex64)
        if torch.equal(a, b):
            return True
        return bool(((a == b) | (a.isnan() & b.isnan())).all())
    except (RuntimeError, NotImplementedError, TypeError):
        return None


def _same_parts(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> bool | None:
    if not a or len(a) != len(b):
        return None
    same = [same_values(x, y) for x, y in zip(a, b, strict=True)]
    return False if False in same else None if None in same else True


def _epsilon(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps if dtype.is_floating_point or dtype.is_complex else 0.0
