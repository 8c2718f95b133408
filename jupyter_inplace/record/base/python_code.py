"""Whether a backward call would run Python code of anybody's: only then can a mode learn something inside of the engine.

A mode that stays has a price beyond time: torch then adds gradients out of place instead of in place, which takes memory
and leaves other version counters behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from jupyter_inplace.record.base.deep_graphs import hold_some
from jupyter_inplace.record.base.nodes import is_python_node
from jupyter_inplace.record.base.torch_private import storage_id

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_OTHER, _LEAF, _PYTHON = range(3)
_kinds: dict[type, int] = {}


def runs_python(roots: Iterable[Any], grads: Iterable[Any], held: Callable[[int], bool], accumulates: bool) -> bool:
    """Whether the graph behind `roots` holds a custom Function, a hook on a leaf, or a tensor of some class of its own.

    :param held: whether a storage holds a saved tensor. Where the engine adds into such a `.grad`, the write matters.
    :param accumulates: whether the call adds into `.grad` at all.
    """
    stack: list[Any] = []
    for root in roots:
        if isinstance(root, torch.Tensor):
            if type(root) not in _PLAIN:
                return True
            try:
                stack.append(root.grad_fn)
            except RuntimeError:  # a view whose base was written: torch refuses the call
                return False
        else:
            stack.append(root[0])
    if any(grad is not None and type(grad) not in _PLAIN for grad in grads):
        return True
    seen: dict[Any, None] = {}
    try:
        return _walk(stack, seen, held, accumulates)
    finally:
        hold_some(seen)


def _walk(stack: list[Any], seen: dict[Any, None], held: Callable[[int], bool], accumulates: bool) -> bool:
    kinds, put = _kinds, stack.append
    while stack:
        node = stack.pop()
        if node is None:
            continue
        kind = type(node)
        what = kinds.get(kind)
        if what is None:
            what = _kind_of(node)
            if what is not _PYTHON:  # the program's types are not kept alive
                kinds[kind] = what
        if what is _OTHER:
            for child, _ in node.next_functions:
                if child is not None and child not in seen:
                    seen[child] = None
                    put(child)
        elif what is _PYTHON or _acts(node.variable, held, accumulates):
            return True
    return False


def _kind_of(node: Any) -> int:
    if is_python_node(node):
        return _PYTHON
    return _LEAF if type(node).__name__ == "AccumulateGrad" else _OTHER


def _acts(leaf: torch.Tensor, held: Callable[[int], bool], accumulates: bool) -> bool:
    if type(leaf) not in _PLAIN or leaf._backward_hooks or leaf._post_accumulate_grad_hooks:
        return True
    grad = leaf.grad if accumulates else None
    return grad is not None and held(storage_id(grad))
