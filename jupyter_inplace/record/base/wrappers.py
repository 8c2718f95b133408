"""Wrapper tensors: subclasses without memory of their own, whose values lie in other tensors (DTensor, TwoTensor, masked and jagged ones).

Torch gives such a tensor a storage with a null pointer. Reading it below the class's own dispatch is a segmentation fault, so whatever
reads memory asks for the tensors inside instead, by the protocol with which torch.compile takes a wrapper apart. Classes without
that protocol keep theirs as attributes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_DEPTH = 4  # of wrappers inside of wrappers


def inner_tensors(t: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors that a wrapper holds, by their attributes; empty if it shows none. No operation is run."""
    try:
        if _takes_apart(t):
            names = t.__tensor_flatten__()[0]  # type: ignore[attr-defined]
        else:
            if hasattr(t, "fake_mode"):  # a tracer's: it stands for values that are nowhere
                return {}
            names = list(vars(t))
        found = {name: getattr(t, name) for name in names}
    except Exception:
        return {}
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor) and value is not t}


def with_inner_tensors(t: torch.Tensor, inner: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """A wrapper like `t` around other tensors; None if its class has no protocol for that."""
    if not _takes_apart(t):
        return None
    try:
        made = type(t).__tensor_unflatten__(inner, t.__tensor_flatten__()[1], t.size(), t.stride())  # type: ignore[attr-defined]
    except Exception:
        return None
    return made if isinstance(made, torch.Tensor) else None


def innermost(t: torch.Tensor, wraps: Callable[[torch.Tensor], bool], depth: int = _DEPTH) -> list[torch.Tensor]:
    """The tensors with memory that hold the values of a wrapper; empty if none are known.

    :param wraps: whether a tensor is a wrapper itself.
    """
    found: list[torch.Tensor] = []
    for value in inner_tensors(t).values():
        if not wraps(value):
            found.append(value)
        elif depth:
            found.extend(innermost(value, wraps, depth - 1))
    return found


def _takes_apart(t: Any) -> bool:
    return hasattr(type(t), "__tensor_flatten__") and hasattr(type(t), "__tensor_unflatten__")
