"""The tensors among the arguments of an operation."""

from __future__ import annotations

from typing import Any

import torch


def needs_gradient(args: Any, kwargs: Any) -> bool:
    """Whether an argument does."""
    return any(isinstance(a, torch.Tensor) and a.requires_grad for a in (*args, *kwargs.values()))


def tensors_in(values: Any) -> list[torch.Tensor]:
    """The tensors among values, lists of them included."""
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend(tensors_in(value))
    return found
