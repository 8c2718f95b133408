"""Tasks: the roots of a backward call, with summed roots split into their addends."""

from __future__ import annotations

from typing import Any

import torch

from jupyter_inplace.explain.graph.graph import Edge, Node, inputs_of, scalar_output
from jupyter_inplace.explain.graph.pull import fit
from jupyter_inplace.record.base.torch_private import without_grad

# Linear in each scalar input: calling the node on the incoming gradient gives the weight of each addend.
_SUMS = frozenset(
    f"{name}Backward{n}"
    for name in (
        "Add",
        "Sub",
        "Rsub",
        "Neg",
        "Sum",
        "Mean",
        "Stack",
        "Cat",
        "View",
        "ReshapeAlias",
        "UnsafeView",
        "Unsqueeze",
        "Squeeze",
        "ToCopy",
    )
    for n in (0, 1, 2)
)
_SCALINGS = frozenset(f"{name}Backward{n}" for name in ("Mul", "Div") for n in (0, 1, 2))
_MAX_PARTS = 64
_MAX_ITEMS = 16  # more scalars than this are a sequence (time steps), not a set of tasks

NodeNames = dict[tuple[Node, int], tuple[str, bool]]


class RootPart:
    """One task of one backward call: where its walk starts and with which incoming gradient."""

    __slots__ = ("edge", "grad", "name")

    def __init__(self, edge: Edge, grad: torch.Tensor | None, name: str | None) -> None:
        self.edge, self.grad, self.name = edge, grad, name


def split(edge: Edge, grad: torch.Tensor | None, name: str | None, names: NodeNames) -> list[RootPart]:
    """The tasks of one root. A named root stays whole unless two or more of its addends are named too."""
    whole = RootPart(edge, grad, name)
    if grad is None or not scalar_output(*edge):
        return [whole]
    parts = _parts(edge, grad, names)
    if parts is None or len(parts) > _MAX_PARTS:
        return [whole]
    named = sum(part.name is not None for part in parts)
    items = sum(part.name is not None and names[part.edge][1] for part in parts)
    if items > _MAX_ITEMS:
        return [whole]
    if name is not None and named < 2:
        return [whole]
    return parts if named >= 2 or (name is None and (len(parts) > 1 or named)) else [whole]


class _Sum:
    """A sum whose addends are being split. `before` counts the parts that are certainly outside it, to its left and right."""

    __slots__ = ("before", "edge", "grad", "name", "parts", "todo")

    def __init__(
        self, edge: Edge, grad: torch.Tensor, name: str | None, addends: list[tuple[Edge, torch.Tensor]], before: int
    ) -> None:
        self.edge, self.grad, self.name, self.before = edge, grad, name, before
        self.todo = addends[::-1]
        self.parts: list[RootPart] = []

    @property
    def whole(self) -> RootPart:
        return RootPart(self.edge, self.grad, self.name)


def _parts(edge: Edge, grad: torch.Tensor, names: NodeNames) -> list[RootPart] | None:
    """The addends of a root, None if there are too many. A named sum among them stays whole unless two of its own are named.

    A loop may add to a loss in each iteration, so the graph may be very deep: nothing here recurses. A sum that certainly has more
    than `_MAX_PARTS` addends, counting each one still to be split as one, is given up at once.
    """
    addends = _addends(edge, grad)
    if not addends:
        return [RootPart(edge, grad, None)]
    sums = [_Sum(edge, grad, None, addends, 0)]
    named = [0]  # the places in `sums` of the root and of the named ones above the innermost
    while True:
        top = sums[-1]
        if top.todo:
            child, child_grad = top.todo.pop()
            found = names.get(child) if scalar_output(*child) else None
            name = found[0] if found is not None else None
            addends = _addends(child, child_grad)
            if not addends or (name is not None and len(addends) > _MAX_PARTS):
                top.parts.append(RootPart(child, child_grad, name))
                continue
            if name is not None:
                named.append(len(sums))
            sums.append(_Sum(child, child_grad, name, addends, top.before + len(top.parts) + len(top.todo)))
            if sums[-1].before - sums[named[-1]].before + len(addends) > _MAX_PARTS:
                if len(named) == 1:
                    return None
                whole = sums[named[-1]].whole
                del sums[named.pop() :]
                sums[-1].parts.append(whole)
            continue
        sums.pop()
        if not sums:
            return top.parts
        if top.name is not None:
            named.pop()
            if sum(part.name is not None for part in top.parts) < 2:
                top.parts = [top.whole]
        sums[-1].parts.extend(top.parts)


def _addends(edge: Edge, grad: torch.Tensor) -> list[tuple[Edge, torch.Tensor]]:
    node, _ = edge
    kind = type(node).__name__
    edges = [(child, nr) for child, nr in node.next_functions if child is not None]
    if kind in _SCALINGS:
        if len(edges) != 1:  # a product of two factors that both need a gradient is not a weighted sum
            return []
    elif kind not in _SUMS:
        return []
    if not edges or any(type(child).__name__ == "AccumulateGrad" for child, _ in edges):
        return []
    if not all(scalar_output(*e) or _stacks_scalars(e[0]) for e in edges):
        return []
    try:
        with without_grad():
            results: Any = node(grad)
    except (RuntimeError, TypeError):
        return []
    if not isinstance(results, tuple):
        results = (results,)
    pairs = []
    for (child, nr), result in zip(node.next_functions, results, strict=False):
        if child is not None:
            if result is None:
                return []
            pairs.append(((child, nr), fit(result, inputs_of(child), nr)))
    return pairs


def _stacks_scalars(node: Node) -> bool:
    """Whether a node joins scalars into the vector that a sum or mean then reduces (`torch.stack(losses).sum()`)."""
    if type(node).__name__ not in ("StackBackward0", "CatBackward0"):
        return False
    edges = [e for e in node.next_functions if e[0] is not None]
    return bool(edges) and all(scalar_output(*e) for e in edges)
