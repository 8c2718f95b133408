"""Memory that holds other values for a while: what a forward read, for the time in which it is read once more."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch.autograd.grad_mode import _unsafe_preserve_version_counter


@contextlib.contextmanager
def holding(values: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[None]:
    """For the time of the block each tensor holds the given value. Versions stay as they are."""
    swapped: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        for t, value in values:
            alias = t.detach()
            now = alias.clone()
            with _unsafe_preserve_version_counter(alias):
                alias.copy_(value)
            swapped.append((alias, now))
        yield
    finally:
        for alias, now in reversed(swapped):
            with _unsafe_preserve_version_counter(alias):
                alias.copy_(now)
