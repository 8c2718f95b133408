"""Puts other values into memory for a while: those that a forward read, while it is read again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

from jupyter_inplace.record.base.torch_private import storage_id


@contextlib.contextmanager
def holding(values: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[set[int]]:
    """Inside the block each tensor holds the given value. Versions stay as they are. Yields the storages."""
    swapped: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        for t, value in values:
            alias = t.detach()
            now = alias.clone()
            with _unsafe_preserve_version_counter(alias):
                alias.copy_(value)
            swapped.append((alias, now))
        yield {storage_id(alias) for alias, _ in swapped}
    finally:
        for alias, now in reversed(swapped):
            with _unsafe_preserve_version_counter(alias):
                alias.copy_(now)


def apart_from(result: Any, storages: set[int]) -> Any:
    """`result` with copies of its tensors on `storages`, whose values are about to change."""
    if not storages:
        return result
    if isinstance(result, (list, tuple)):
        return tuple(apart_from(item, storages) for item in result)
    if isinstance(result, torch.Tensor) and storage_id(result) in storages:
        return result.detach().clone()
    return result
