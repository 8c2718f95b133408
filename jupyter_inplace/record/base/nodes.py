"""What the type of an autograd node tells, before anything of the node itself is read."""

from __future__ import annotations

import re
from typing import Any

import torch

# By type, and of torch's own types alone: remembered, a custom Function's would live for good, with all that its code holds.
_slots: dict[type, tuple[str, ...]] = {}
_saving: dict[type, bool] = {}

# The types that torch generates from its list of derivatives (`MulBackward0`). They show all that they save; others need not.
_GENERATED = re.compile(r"Backward\d+")


def is_python_node(node: Any) -> bool:
    """Whether the node's backward is a custom Function's."""
    return isinstance(node, torch.autograd.function.BackwardCFunction)


def slot_names(node: Any) -> tuple[str, ...]:
    """The attributes under which a node shows its saved variables (`_raw_saved_self`)."""
    kind = type(node)
    names = _slots.get(kind)
    if names is None:
        names = tuple(name for name in dir(kind) if name.startswith("_raw_saved_"))
        if not is_python_node(node):
            _slots[kind] = names
    return names


def may_save(node: Any) -> bool:
    """Whether a node may hold saved tensors: those of views and sums never do."""
    kind = type(node)
    may = _saving.get(kind)
    if may is None:
        may = bool(slot_names(node)) or _GENERATED.search(kind.__name__) is None
        if not is_python_node(node):
            _saving[kind] = may
    return may
