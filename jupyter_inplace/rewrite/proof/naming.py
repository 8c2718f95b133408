"""Names leaves at each event so that a leaf has the same name in the run of the original and of a rewrite."""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch

from jupyter_inplace.explain.names.names import Names, namespaces


class LeafNames:
    """Looks leaves up in the visible namespaces, and remembers them.

    :param namespace: that of the cell.
    :param ignored: variables that may not name anything.

    A leaf that no name reaches is identified by its shape and by how many of that shape came before it.
    """

    def __init__(self, namespace: Mapping[str, Any], ignored: Collection[str] = ()) -> None:
        self._namespace = namespace
        self._ignored = ignored
        self._known: dict[int, tuple[weakref.ref[torch.Tensor], str]] = {}
        self._unnamed: dict[tuple[int, ...], int] = {}

    def of(self, leaves: Iterable[torch.Tensor], frame: types.FrameType | None = None) -> list[str]:
        """The names of some leaves.

        :param frame: the current frame of the program; its local names count too.
        """
        leaves = list(leaves)
        if not all(self._knows(leaf) for leaf in leaves):
            spaces = namespaces(frame if frame is not None else sys._getframe(1), self._namespace)
            found = Names({k: v for k, v in space.items() if k not in self._ignored} for space in spaces)
            for leaf in leaves:
                if not self._knows(leaf):
                    self._known[id(leaf)] = (weakref.ref(leaf), found.of(leaf) or self._number(leaf))
        return [self._known[id(leaf)][1] for leaf in leaves]

    def _knows(self, leaf: torch.Tensor) -> bool:
        entry = self._known.get(id(leaf))
        return entry is not None and entry[0]() is leaf

    def _number(self, leaf: torch.Tensor) -> str:
        shape = tuple(leaf.shape)
        count = self._unnamed[shape] = self._unnamed.get(shape, 0) + 1
        return f"leaf {count} of shape {list(shape)}"


def leaves_of(roots: Iterable[Any]) -> list[torch.Tensor]:
    """The leaves that a backward from `roots` reaches, in the order in which a walk finds them."""
    stack = [node for root in roots if (node := getattr(root, "grad_fn", None) or getattr(root, "node", None))]
    seen = set(stack)
    found: dict[int, torch.Tensor] = {}
    while stack:
        node = stack.pop()
        variable = getattr(node, "variable", None)
        if isinstance(variable, torch.Tensor):
            found[id(variable)] = variable
        for below, _ in node.next_functions:
            if below is not None and below not in seen:
                seen.add(below)
                stack.append(below)
    for root in roots:
        if isinstance(root, torch.Tensor) and root.grad_fn is None and root.requires_grad:
            found[id(root)] = root
    return list(found.values())
