"""Gradients by a walk of our own over the user's graph, node by node.

A C++ node called from Python runs no hook, frees nothing and touches no `.grad`, so this is the least intrusive way to a
second gradient. The walk follows the engine: dependencies counted, incoming gradients summed, each gradient reduced and
cast to what the next node's forward produced. Which value a saved tensor has is decided by a `Reading`: the copy from
before the write gives the reference, the memory as it is gives the run.
"""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from jupyter_inplace.explain.graph import Graph, Node, is_leaf_node, is_python_node
from jupyter_inplace.explain.undo import undoing
from jupyter_inplace.record import hooks
from jupyter_inplace.record.saved import Saved

Edge = tuple[Node, int]


class CannotPull(Exception):
    """A gradient cannot be had by the walk; the message says why, for `blind_spots`. `node` is where it stopped."""

    node: Node = None


class ReferenceReading(hooks.Reading):
    """Saved tensors as the forward wrote them; also notes which node read which."""

    def __init__(self, kept: Mapping[Any, list[Any]] | None = None) -> None:
        self.node: Node = None
        self.kept = kept
        self.reader: dict[Saved, Node] = {}

    def value(self, saved: Saved) -> torch.Tensor:
        if self.node is not None:
            self.reader.setdefault(saved, self.node)
        return saved.value

    @contextlib.contextmanager
    def attributes(self, node: Node) -> Iterator[None]:
        """For the time of a custom backward, let the tensors that `ctx` keeps as plain attributes read as `value` says."""
        kept = self.kept.get(node, []) if self.kept is not None else []
        own: dict[str, Any] = node.__dict__ if kept else {}
        before = {name: own[name] for name, _, _ in kept if name in own}
        try:
            for name, index, saved in kept:
                value = self.value(saved)
                if name not in own or value is saved.tensor:
                    continue
                if index is None:
                    own[name] = value
                else:
                    items = list(own[name])
                    items[index] = value
                    own[name] = type(before[name])(items)
            yield
        finally:
            own.update(before)


class AsRunReading(ReferenceReading):
    """Saved tensors as the memory is now."""

    def value(self, saved: Saved) -> torch.Tensor:
        return saved.tensor


def pull(
    graph: Graph,
    starts: list[tuple[Edge, torch.Tensor | None]],
    targets: dict[Edge, Any],
    reading: ReferenceReading,
    groups: dict[Edge, dict[Node, int]] | None = None,
    observe: Callable[[Node, list[torch.Tensor | None]], None] | None = None,
    python: bool = True,
) -> dict[Any, Any]:
    """Gradients of `targets` (edge -> key) for the incoming gradients `starts`; `{key: tensor or None}`.

    `groups` asks for the parts of one target by the group of the node that sends them: those come as
    `{(key, group): tensor}` beside the sum. Raises `CannotPull` where a node cannot be called. Without `python` the program's
    own backwards are not run, and the targets that lie behind one are left out.
    """
    marks = {graph.position[node]: 1 for node, _ in targets if node in graph.position}
    useful = graph.bits(marks)
    pending: dict[Node, list[torch.Tensor | None]] = {}
    out: dict[Any, Any] = {}
    dependencies = _dependencies(graph, [node for (node, _), _ in starts], useful)
    by_node: dict[Node, list[tuple[int, Any]]] = {}
    for (node, nr), key in targets.items():
        by_node.setdefault(node, []).append((nr, key))
    heap: list[int] = []
    stopped: dict[int, int] = {}

    def receive(edge: Edge, grad: torch.Tensor | None, sender: Node | None) -> None:
        node, nr = edge
        buffer = pending.get(node)
        if buffer is None:
            buffer = pending[node] = [None] * max(nr + 1, _inputs(node))
        if grad is not None:
            grad = _fit(grad, node, nr)
            buffer[nr] = grad if buffer[nr] is None else buffer[nr] + grad  # type: ignore[operator]
            if groups is not None and edge in groups and sender is not None:
                key = (targets[edge], groups[edge].get(sender, 0))
                out[key] = grad if out.get(key) is None else out[key] + grad

    hooks.reading, before = reading, hooks.reading
    try:
        with torch.no_grad():
            for edge, grad in starts:
                if edge[0] in graph.position and useful[graph.position[edge[0]]]:
                    receive(edge, grad, None)
            for node in pending:
                if dependencies.get(node, 0) == 0:
                    heapq.heappush(heap, graph.position[node])
            while heap:
                position = heapq.heappop(heap)
                node = graph.nodes[position]
                incoming = pending.pop(node)
                for nr, key in by_node.get(node, ()):
                    out[key] = incoming[nr] if nr < len(incoming) else None
                if observe is not None:
                    observe(node, incoming)
                if is_leaf_node(node):
                    continue
                reading.node = node
                results: tuple[torch.Tensor | None, ...]
                if not python and (is_python_node(node) or all(grad is None for grad in incoming)):
                    results = (None,) * len(graph.next[position])
                    if is_python_node(node):
                        stopped[position] = 1
                else:
                    try:
                        results = _call(node, incoming, reading)
                    except CannotPull as reason:
                        reason.node = node
                        raise
                for (child, nr), grad in zip(graph.next[position], results, strict=False):
                    if child is None or not useful[graph.position[child]]:
                        continue
                    receive((child, nr), grad, node)
                    dependencies[child] -= 1
                    if dependencies[child] == 0:
                        heapq.heappush(heap, graph.position[child])
    finally:
        hooks.reading = before
        reading.node = None
    for key in targets.values():
        out.setdefault(key, None)
    if stopped:
        _leave_out(graph, stopped, targets, out)
    return out


def _leave_out(graph: Graph, stopped: dict[int, int], targets: dict[Edge, Any], out: dict[Any, Any]) -> None:
    """Drop the targets behind the nodes that were not run: their gradients lack a part."""
    for (node, _), key in targets.items():
        if node in graph.position:
            leads = graph.bits({graph.position[node]: 1})
            if any(leads[position] for position in stopped):
                out.pop(key, None)


def _dependencies(graph: Graph, roots: list[Node], useful: list[int]) -> dict[Node, int]:
    counts: dict[Node, int] = {}
    seen: set[Node] = set()
    stack = [node for node in roots if node in graph.position]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        for child, _ in graph.next[graph.position[node]]:
            if child is not None and useful[graph.position[child]]:
                counts[child] = counts.get(child, 0) + 1
                stack.append(child)
    return counts


def _inputs(node: Node) -> int:
    try:
        return len(node._input_metadata)
    except (AttributeError, RuntimeError):
        return 1


def _fit(grad: torch.Tensor, node: Node, nr: int) -> torch.Tensor:
    """What the engine does to a gradient before the next node sees it: reduce broadcast dimensions, cast the type."""
    try:
        meta = node._input_metadata[nr]
        shape, dtype = meta.shape, meta.dtype
    except (AttributeError, IndexError, RuntimeError):
        return grad
    if grad.layout is torch.strided and not grad.is_nested and tuple(grad.shape) != tuple(shape):
        grad = grad.sum_to_size(shape)
    if grad.dtype != dtype:
        if grad.is_complex() and not dtype.is_complex:
            grad = torch.real(grad)
        grad = grad.to(dtype)
    return grad


def _call(
    node: Node, incoming: list[torch.Tensor | None], reading: ReferenceReading
) -> tuple[torch.Tensor | None, ...]:
    if is_python_node(node):
        return _call_python(node, incoming, reading)
    try:
        result = node(*incoming)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise CannotPull(f"{node.name()} could not be run once more: {str(error).splitlines()[0]}") from None
    return result if isinstance(result, tuple) else (result,)


def _call_python(
    node: Node, incoming: list[torch.Tensor | None], reading: ReferenceReading
) -> tuple[torch.Tensor | None, ...]:
    """Run a custom Function's backward once more; whatever it writes is put back."""
    name = type(node).__name__
    if name.startswith("Checkpoint"):
        raise CannotPull("a checkpointed region would have to be recomputed, which has side effects")
    filled = list(incoming)
    if getattr(node, "_materialize_non_diff_grads", True) is not None:
        for i, meta in enumerate(node._input_metadata):
            if i < len(filled) and filled[i] is None:
                filled[i] = torch.zeros(meta.shape, dtype=meta.dtype, device=meta.device)
    try:
        with reading.attributes(node), undoing():
            result = node.apply(*filled)
    except Exception as error:  # the user's own backward: anything may come
        raise CannotPull(
            f"the backward of {name.removesuffix('Backward')} could not be run once more: {error}"
        ) from None
    return result if isinstance(result, tuple) else (result,)
