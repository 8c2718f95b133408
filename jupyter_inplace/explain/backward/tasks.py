"""The tasks of a backward call: its roots, summed roots split into their addends, and the names of them."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import NamedTuple

import torch

from jupyter_inplace._syntax import parse, unparse
from jupyter_inplace.explain.graph.graph import Edge, Graph
from jupyter_inplace.explain.graph.pull import pull
from jupyter_inplace.explain.graph.reading import CannotPullError, ReferenceReading
from jupyter_inplace.explain.graph.split import RootPart, split
from jupyter_inplace.explain.names.names import Names
from jupyter_inplace.explain.names.root_names import root_name
from jupyter_inplace.record.backward.call import Backward


class Start(NamedTuple):
    """A root of a backward call: its edge, its incoming gradient, and the tensor if it was given as one."""

    edge: Edge
    grad: torch.Tensor | None
    root: torch.Tensor | None


def starts_of(call: Backward) -> list[Start]:
    """The roots of a call that have a grad_fn."""
    starts: list[Start] = []
    for i, root in enumerate(call.roots):
        grad = call.grads[i] if i < len(call.grads) else None
        if not isinstance(root, torch.Tensor):
            starts.append(Start((root[0], root[1]), grad, None))
            continue
        try:
            node = root.grad_fn
        except RuntimeError:  # a view whose base was written: torch will refuse the call
            continue
        if node is not None:
            if grad is None and root.numel() == 1:
                grad = torch.ones_like(root)
            starts.append(Start((node, root.output_nr), grad, root))
    return starts


def wanted_tasks(
    wanted: Sequence[str], graph: Graph, starts: Sequence[Start], names: Names
) -> list[tuple[str, RootPart]]:
    """The tasks that the user named, each with the gradient that reaches it from the roots of the call."""
    by_name = dict(reversed(names.tensors))
    out: list[tuple[str, RootPart]] = []
    for name in wanted:
        tensor = by_name.get(name)
        node = tensor.grad_fn if isinstance(tensor, torch.Tensor) else None
        if tensor is None or node is None or node not in graph.position:
            continue
        edge = (node, tensor.output_nr)
        try:
            found = pull(graph, [(start.edge, start.grad) for start in starts], {edge: "it"}, ReferenceReading())
        except CannotPullError:
            continue
        out.append((name, RootPart(edge, found["it"], name)))
    return out


def tasks_of(
    starts: Sequence[Start], names: Names, text: str, file: str | None, root_is: str | None = None
) -> list[tuple[str, RootPart]]:
    """Each root of a call, or the addends of its sum, with its name.

    :param text: the source of the call itself, and `file` the file that contains it.
    :param root_is: the name of the only root, if it is known.
    """
    by_node = names.by_node()
    out: list[tuple[str, RootPart]] = []
    for i, start in enumerate(starts):
        name = root_is
        if name is None and start.root is not None:
            name = root_name(start.root, names, text, file)
        parts = split(start.edge, start.grad, name, by_node)
        texts = addend_texts(text) if any(part.name is None for part in parts) else []
        if len(texts) != len(parts):
            texts = []
        for k, part in enumerate(parts):
            fallback = "loss" if len(parts) * len(starts) == 1 else f"loss[{k if len(starts) == 1 else i}]"
            out.append((part.name or (texts[k] if texts else None) or fallback, part))
    return out


def addend_texts(expression: str) -> list[str]:
    """The source of each addend of `(a(x) + 0.5 * b(x)).backward()`; empty if it is not a sum."""
    try:
        call = parse(expression.strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError):  # deeper than Python itself reads
        return []
    root = call.func.value if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) else None
    if root is None:
        return []
    found: list[str] = []
    todo = [root]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
            todo += [node.right, node.left]
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and isinstance(node.left, ast.Constant):
            todo.append(node.right)
        else:
            found.append(unparse(node))
    return found
