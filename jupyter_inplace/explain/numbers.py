"""Norms, relative differences and cosines of gradients, in float64."""

from __future__ import annotations

import math

import torch


def _flat(g: torch.Tensor) -> torch.Tensor:
    g = g.detach()
    if g.layout is not torch.strided:
        g = g.to_dense()
    if g.is_complex():
        g = torch.view_as_real(g.resolve_conj())
    return g.reshape(-1).to(torch.float64 if g.device.type != "mps" else torch.float32)


def norm(g: torch.Tensor | None) -> float | None:
    """Euclidean norm; 0 for no gradient."""
    return 0.0 if g is None else float(_flat(g).norm())


def compare(as_run: torch.Tensor | None, reference: torch.Tensor | None) -> tuple[str, float | None, float | None]:
    """`(status, relative difference, cosine)` of a gradient against its reference.

    The status is ``ok`` within rounding of the coarser type, ``lost`` where nothing is left of a gradient that is not
    zero, else ``wrong``.
    """
    if as_run is None and reference is None:
        return "ok", 0.0, None
    like = reference if reference is not None else as_run
    assert like is not None
    a = _flat(as_run) if as_run is not None else torch.zeros_like(_flat(like))
    b = _flat(reference) if reference is not None else torch.zeros_like(a)
    if a.shape != b.shape:
        return "wrong", None, None
    if torch.equal(a, b) or bool(((a == b) | (a.isnan() & b.isnan())).all()):
        return "ok", 0.0, (1.0 if float(b.norm()) > 0 else None)
    na, nb, nd = float(a.norm()), float(b.norm()), float((a - b).norm())
    relative = nd / nb if nb > 0 else math.inf
    cosine = float(a @ b) / (na * nb) if na > 0 and nb > 0 else None
    if nb > 0 and relative <= 16 * _epsilon(like.dtype):
        return "ok", relative, cosine
    if na == 0:
        return "lost", relative, None
    return "wrong", relative, cosine


def cosine(a: torch.Tensor, b: torch.Tensor) -> float | None:
    """Cosine of the angle between two gradients of one leaf; None where one of them is zero."""
    x, y = _flat(a), _flat(b)
    if x.shape != y.shape:
        return None
    size = float(x.norm()) * float(y.norm())
    return float(x @ y) / size if size > 0 else None


def same_values(a: torch.Tensor, b: torch.Tensor) -> bool | None:
    """Whether two tensors hold the same values, NaN equal to NaN; None where it cannot be told."""
    try:
        if a.layout is not torch.strided:
            a, b = a.to_dense(), b.to_dense()
        a, b = a.detach(), b.detach()
        if a.numel() != b.numel():
            return False
        a, b = a.reshape(-1), b.reshape(-1)
        if torch.equal(a, b):
            return True
        return bool(((a == b) | ((a != a) & (b != b))).all())
    except (RuntimeError, NotImplementedError, TypeError):
        return None


def _epsilon(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps if dtype.is_floating_point or dtype.is_complex else 0.0
