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
    parts = _parts(edge, grad, names, root=True)
    if len(parts) > _MAX_PARTS:
        return [whole]
    named = sum(part.name is not None for part in parts)
    items = sum(part.name is not None and names[part.edge][1] for part in parts)
    if items > _MAX_ITEMS:
        return [whole]
    if name is not None and named < 2:
        return [whole]
    return parts if named >= 2 or (name is None and (len(parts) > 1 or named)) else [whole]


def _parts(edge: Edge, grad: torch.Tensor, names: NodeNames, root: bool = False) -> list[RootPart]:
    found = names.get(edge) if not root and scalar_output(*edge) else None
    name = found[0] if found is not None else None
    children = _addends(edge, grad)
    if not children:
        return [RootPart(edge, grad, name)]
    parts = [part for child, part_grad in children for part in _parts(child, part_grad, names)]
    if name is not None and (sum(part.name is not None for part in parts) < 2 or len(parts) > _MAX_PARTS):
        return [RootPart(edge, grad, name)]
    return parts


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
