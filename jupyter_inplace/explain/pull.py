"""Gradients by a walk of our own over the user's graph, node by node.

A C++ node called from Python runs no hook, frees nothing and touches no `.grad`, so this is the least intrusive way to a
second gradient. The walk does as the engine does: incoming gradients summed, each gradient reduced and
cast to what the next node's forward produced. Which value a saved tensor has is decided by a `Reading`: the copy from
before the write gives the reference, the memory as it is gives the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch

from jupyter_inplace.explain.graph import Graph, Node, is_python_node, runs_user_code
from jupyter_inplace.explain.held import apart_from, holding
from jupyter_inplace.explain.undo import undoing
from jupyter_inplace.record import hooks
from jupyter_inplace.record.freed import is_gone
from jupyter_inplace.record.saved import Saved
from jupyter_inplace.record.torch_private import without_grad

Edge = tuple[Node, int]


class CannotPullError(Exception):
    """A gradient cannot be had by the walk; the message says why, for `blind_spots`. `node` is where it stopped."""

    node: Node = None


class ReferenceReading(hooks.Reading):
    """Saved tensors as the forward wrote them; also notes which node read which."""

    def __init__(self, kept: Mapping[Any, list[Any]] | None = None) -> None:
        self.node: Node = None
        self.kept = kept
        self.again: dict[Node, list[Saved]] = {}  # what a node's checkpointed region reads again
        self.reader: dict[Saved, Node] = {}

    def value(self, saved: Saved) -> torch.Tensor:
        if self.node is not None:
            self.reader.setdefault(saved, self.node)
        return _present(saved.value)

    def memory(self, node: Node) -> contextlib.AbstractContextManager[set[int]]:
        """While a node runs, let what Python can read there besides saved tensors hold what `value` says."""
        known = self.again.get(node, [])
        if self.kept is not None and is_python_node(node):
            known = [*known, *self.kept.get(node, ())]
        values = [(saved.tensor, self.value(saved)) for saved in known]
        return holding((t, value) for t, value in values if value is not t)


class AsRunReading(ReferenceReading):
    """Saved tensors as the memory is now."""

    def value(self, saved: Saved) -> torch.Tensor:
        return _present(saved.tensor)


def _present(t: torch.Tensor) -> torch.Tensor:
    if is_gone(t):
        raise CannotPullError("a saved tensor's memory is freed until the backward itself fetches it again")
    return t


def pull(
    graph: Graph,
    starts: list[tuple[Edge, torch.Tensor | None]],
    targets: dict[Edge, Any],
    reading: ReferenceReading,
    groups: dict[Edge, dict[Node, int]] | None = None,
    received: Callable[[Edge, torch.Tensor, Node | None], None] | None = None,
    python: bool = True,
) -> dict[Any, Any]:
    """Gradients of `targets` (edge -> key) for the incoming gradients `starts`; `{key: tensor or None}`.

    `groups` asks for the parts of one target by the group of the node that sends them: those come as
    `{(key, group): tensor}` beside the sum. `received` is told of each gradient that one node hands to another. Raises
    `CannotPullError` where a node cannot be called. Without `python` the program's own backwards are not run, and the targets that
    lie behind one are left out.
    """
    walk = _Walk(graph, targets, reading, groups or {}, received, python)
    before = hooks.set_reading(reading)
    try:
        with without_grad():
            walk.run(starts)
    finally:
        hooks.set_reading(before)
        reading.node = None
    for key in targets.values():
        walk.out.setdefault(key, None)
    if walk.stopped:
        _leave_out(graph, walk.stopped, targets, walk.out)
    return walk.out


class _Walk:
    """One walk: the gradients that wait at each node.

    In the order of the graph each node stands behind all that send it gradients, so it runs when its turn comes.
    """

    def __init__(
        self,
        graph: Graph,
        targets: dict[Edge, Any],
        reading: ReferenceReading,
        groups: dict[Edge, dict[Node, int]],
        received: Callable[[Edge, torch.Tensor, Node | None], None] | None,
        python: bool,
    ) -> None:
        self._graph, self._targets, self._reading = graph, targets, reading
        self._groups, self._received, self._python = groups, received, python
        self._useful = graph.bits({graph.position[node]: 1 for node, _ in targets if node in graph.position})
        self._waiting: list[list[torch.Tensor | None] | None] = [None] * len(graph.nodes)
        self._wanted: dict[int, list[tuple[int, Any]]] = {}
        for (node, nr), key in targets.items():
            if node in graph.position:
                self._wanted.setdefault(graph.position[node], []).append((nr, key))
        self._leaves = set(graph.leaves)
        self.out: dict[Any, Any] = {}
        self.stopped: dict[int, int] = {}

    def run(self, starts: list[tuple[Edge, torch.Tensor | None]]) -> None:
        for (node, nr), grad in starts:
            position = self._graph.position.get(node)
            if position is not None and self._useful[position]:
                self._receive(position, nr, grad, None)
        waiting = self._waiting
        for position, incoming in enumerate(waiting):
            if incoming is not None:
                waiting[position] = None
                self._visit(position, incoming)

    def _receive(self, position: int, nr: int, grad: torch.Tensor | None, sender: Node | None) -> None:
        buffer = self._waiting[position]
        if buffer is None:
            buffer = self._waiting[position] = [None] * max(nr + 1, len(self._graph.inputs(position)))
        if grad is None:
            return
        grad = fit(grad, self._graph.inputs(position), nr)
        known = buffer[nr]
        buffer[nr] = grad if known is None else known + grad
        if self._received is None and not self._groups:
            return
        edge = (self._graph.nodes[position], nr)
        if self._received is not None:
            self._received(edge, grad, sender)
        if edge in self._groups and sender is not None:
            key = (self._targets[edge], self._groups[edge].get(sender, 0))
            self.out[key] = grad if self.out.get(key) is None else self.out[key] + grad

    def _visit(self, position: int, incoming: list[torch.Tensor | None]) -> None:
        for nr, key in self._wanted.get(position, ()):
            self.out[key] = incoming[nr] if nr < len(incoming) else None
        if position in self._leaves:
            return
        node = self._reading.node = self._graph.nodes[position]
        useful = self._useful
        for (child, nr), grad in zip(
            self._graph.links[position], self._results(position, node, incoming), strict=False
        ):
            if useful[child]:
                self._receive(child, nr, grad, node)

    def _results(
        self, position: int, node: Node, incoming: list[torch.Tensor | None]
    ) -> tuple[torch.Tensor | None, ...]:
        if not self._python and (runs_user_code(node) or all(grad is None for grad in incoming)):
            if runs_user_code(node):
                self.stopped[position] = 1
            return (None,) * len(self._graph.next[position])
        try:
            return _call(node, incoming, self._reading)
        except CannotPullError as reason:
            reason.node = node
            raise


def _leave_out(graph: Graph, stopped: dict[int, int], targets: dict[Edge, Any], out: dict[Any, Any]) -> None:
    """Drop the targets behind the nodes that were not run: their gradients lack a part."""
    for (node, _), key in targets.items():
        if node in graph.position:
            leads = graph.bits({graph.position[node]: 1})
            if any(leads[position] for position in stopped):
                out.pop(key, None)


def fit(grad: torch.Tensor, inputs: tuple[Any, ...], nr: int) -> torch.Tensor:
    """What the engine does to a gradient before the next node sees it: reduce broadcast dimensions, cast the type."""
    if nr >= len(inputs) or inputs[nr] is None:
        return grad
    shape, dtype = inputs[nr]
    if grad.shape != shape and grad.layout is torch.strided and not grad.is_nested:
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
        if reading.again and node in reading.again:
            with reading.memory(node) as held:
                result = apart_from(node(*incoming), held)
        else:
            result = node(*incoming)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise CannotPullError(f"{node.name()} could not be run once more: {str(error).splitlines()[0]}") from None
    return result if isinstance(result, tuple) else (result,)


def is_of_distributed(node: Node) -> bool:
    """Whether a Python node is torch.distributed's own (FSDP): running it once more on one rank would leave the others behind."""
    function = getattr(type(node), "_forward_cls", type(node))
    return str(getattr(function, "__module__", "")).startswith("torch.distributed.")


def _call_python(
    node: Node, incoming: list[torch.Tensor | None], reading: ReferenceReading
) -> tuple[torch.Tensor | None, ...]:
    """Run a custom Function's backward once more; whatever it writes is put back."""
    name = type(node).__name__
    if name.startswith("Checkpoint"):
        raise CannotPullError("a checkpointed region would have to be recomputed, which has side effects")
    if is_of_distributed(node):
        raise CannotPullError(
            "a node of torch.distributed may start a collective, for which the other ranks do not wait"
        )
    filled = list(incoming)
    if getattr(node, "_materialize_non_diff_grads", True) is not None:
        for i, meta in enumerate(node._input_metadata):
            if i < len(filled) and filled[i] is None:
                filled[i] = torch.zeros(meta.shape, dtype=meta.dtype, device=meta.device)
    try:
        with reading.memory(node) as held, undoing() as undo:
            result = apart_from(undo.keep(node.apply(*filled)), held)
    except Exception as error:  # the user's own backward: anything may come
        raise CannotPullError(
            f"the backward of {name.removesuffix('Backward')} could not be run once more: {error}"
        ) from None
    return result if isinstance(result, tuple) else (result,)
