"""Computes gradients by our own walk over the user's graph, node by node.

A C++ node called from Python runs no hook, frees nothing and touches no `.grad`, so this is the least intrusive way to get a
second gradient. The walk does what the engine does: incoming gradients are summed, and each gradient is reduced and cast to
the shape and type that the next node's forward produced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from jupyter_inplace.explain.graph.graph import Edge, Graph, Node, runs_user_code
from jupyter_inplace.explain.graph.graph_task import apart_from_backward
from jupyter_inplace.explain.graph.held import apart_from
from jupyter_inplace.explain.graph.reading import BothReadings, CannotPullError, ReferenceReading
from jupyter_inplace.explain.graph.undo import undoing
from jupyter_inplace.record.base.nodes import is_python_node
from jupyter_inplace.record.base.torch_private import without_grad
from jupyter_inplace.record.saved.reading import set_reading


def pull(
    graph: Graph,
    starts: Sequence[tuple[Edge, torch.Tensor | None]],
    targets: Mapping[Edge, Any],
    reading: ReferenceReading,
    groups: Mapping[Edge, Mapping[Node, int]] | None = None,
    received: Callable[[Edge, torch.Tensor, Node | None], None] | None = None,
    python: bool = True,
    useful: list[int] | None = None,
) -> dict[Any, Any]:
    """Gradients of `targets` (edge -> key) for the incoming gradients `starts`; `{key: tensor or None}`.

    `groups` splits the gradient of a target by the group of the node that sends each part: the parts are added as
    `{(key, group): tensor}` beside the sum. `received` is called for each gradient that one node passes to another. Raises
    `CannotPullError` if a node cannot be called. Without `python`, custom Functions are not run, and the targets behind them are
    left out. `useful` (by position, whether a node leads to a target) is computed if not given.
    """
    walk = _Walk(graph, targets, reading, groups or {}, received, python, useful)
    _run(walk, starts)
    if walk.stopped:
        _leave_out(graph, walk.stopped, targets, walk.out)
    return walk.out


def pull_both(
    graph: Graph,
    starts: Sequence[tuple[Edge, torch.Tensor | None]],
    targets: Mapping[Edge, Any],
    reading: BothReadings,
    groups: Mapping[Edge, Mapping[Node, int]] | None = None,
    useful: list[int] | None = None,
) -> tuple[dict[Any, Any], dict[Any, Any] | CannotPullError]:
    """`pull` in one walk with saved tensors as the forward wrote them (reference) and as they are now (as-run).

    A node runs twice only if the two differ: it reads what was changed, or is behind a node that does. If they are equal,
    both results are the same tensor. The second result is an error instead of gradients if a node refuses to read its value.
    """
    walk = _Walk(graph, targets, reading, groups or {}, None, True, useful)
    walk.both = reading
    _run(walk, starts)
    return walk.out, walk.refused or {key: walk.as_run.get(key, walk.out[key]) for key in targets.values()}


def _run(walk: _Walk, starts: Sequence[tuple[Edge, torch.Tensor | None]]) -> None:
    before = set_reading(walk.reading)
    try:
        with without_grad():
            walk.run(starts)
    finally:
        set_reading(before)
        walk.reading.node = None


Incoming = list[torch.Tensor | None]  # the gradients that wait at a node, by input


class _Walk:
    """One walk: the gradients that wait at each node.

    In the order of the graph each node comes after all that send it gradients, so its inputs are complete at its turn.
    """

    def __init__(
        self,
        graph: Graph,
        targets: Mapping[Edge, Any],
        reading: ReferenceReading,
        groups: Mapping[Edge, Mapping[Node, int]],
        received: Callable[[Edge, torch.Tensor, Node | None], None] | None,
        python: bool,
        useful: list[int] | None,
    ) -> None:
        self.reading = reading
        self.both: BothReadings | None = None
        self._graph, self._targets, self._recomputes = graph, targets, graph.recomputes
        self._groups, self._received, self._python = groups, received, python
        self._useful = useful or graph.bits({graph.position[node]: 1 for node, _ in targets if node in graph.position})
        self._waiting: list[Incoming | None] = [None] * len(graph.nodes)
        self._as_run: dict[int, Incoming] = {}  # the as-run gradients, where they differ
        self._wanted: dict[int, list[tuple[int, Any]]] = {}
        for (node, nr), key in targets.items():
            if node in graph.position:
                self._wanted.setdefault(graph.position[node], []).append((nr, key))
        self._leaves = set(graph.leaves)
        self.out: dict[Any, Any] = {}
        self.as_run: dict[Any, Any] = {}
        self.refused: CannotPullError | None = None
        self.stopped: dict[int, int] = {}

    def run(self, starts: Sequence[tuple[Edge, torch.Tensor | None]]) -> None:
        for (node, nr), grad in starts:
            position = self._graph.position.get(node)
            if position is not None and self._useful[position]:
                self._receive(position, nr, grad, None)
        waiting, as_run = self._waiting, self._as_run
        for position, incoming in enumerate(waiting):
            if incoming is not None:
                waiting[position] = None
                self._visit(position, incoming, as_run.pop(position, None) if as_run else None)
        for key in self._targets.values():
            self.out.setdefault(key, None)

    def _receive(self, position: int, nr: int, grad: torch.Tensor | None, sender: Node | None) -> None:
        inputs = self._graph.inputs(position)
        buffer = self._waiting[position]
        if buffer is None:
            buffer = self._waiting[position] = [None] * max(nr + 1, len(inputs))
        if grad is None:
            return
        grad = fit(grad, inputs, nr)
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

    def _receive_as_run(self, position: int, nr: int, grad: torch.Tensor | None, *, other: bool) -> None:
        """Accumulate the as-run gradient. `other` says that it differs from the reference. Call before `_receive`."""
        buffer = self._as_run.get(position)
        inputs = self._graph.inputs(position)
        if buffer is None:
            if not other:
                return
            buffer = list(self._waiting[position] or [None] * max(nr + 1, len(inputs)))
            self._as_run[position] = buffer
        if grad is not None:
            grad = fit(grad, inputs, nr)
            known = buffer[nr]
            buffer[nr] = grad if known is None else known + grad

    def _visit(self, position: int, incoming: Incoming, as_run: Incoming | None) -> None:
        if position in self._wanted:
            for nr, key in self._wanted[position]:
                self.out[key] = incoming[nr] if nr < len(incoming) else None
                if as_run is not None:
                    self.as_run[key] = as_run[nr] if nr < len(as_run) else None
        if position in self._leaves:
            return
        node = self.reading.node = self._graph.nodes[position]
        useful = self._useful
        results = self._call(node, incoming) if self._python else self._unless_python(position, node, incoming)
        others = self._results_as_run(node, incoming, as_run) if self.both is not None else None
        if others is None and not self._as_run:
            for (child, nr), grad in zip(self._graph.links[position], results, strict=False):
                if useful[child]:
                    self._receive(child, nr, grad, node)
            return
        for i, ((child, nr), grad) in enumerate(zip(self._graph.links[position], results, strict=False)):
            if useful[child]:
                if others is not None and i < len(others):
                    self._receive_as_run(child, nr, others[i], other=True)
                else:
                    self._receive_as_run(child, nr, grad, other=False)
                self._receive(child, nr, grad, node)

    def _unless_python(self, position: int, node: Node, incoming: Incoming) -> tuple[torch.Tensor | None, ...]:
        stops = runs_user_code(node)
        if stops:
            self.stopped[position] = 1
        if stops or all(grad is None for grad in incoming):
            return (None,) * len(self._graph.next[position])
        return self._call(node, incoming)

    def _results_as_run(
        self, node: Node, incoming: Incoming, as_run: Incoming | None
    ) -> tuple[torch.Tensor | None, ...] | None:
        """The as-run results of a node; None if they are those of the reference."""
        reading = self.both
        assert reading is not None
        if (not reading.differed() and as_run is None) or self.refused is not None:
            return None
        reading.as_run = True
        try:
            return self._call(node, incoming if as_run is None else as_run)
        except CannotPullError as reason:
            self.refused = reason
            self._as_run.clear()
            return None
        finally:
            reading.as_run = False

    def _call(self, node: Node, incoming: Incoming) -> tuple[torch.Tensor | None, ...]:
        """Run a node. What Python code writes meanwhile (a custom backward, the recomputation of a checkpoint) is undone."""
        try:
            if is_python_node(node):
                return _call_python(node, incoming, self.reading)
            if self._recomputes:
                with self.reading.memory(node) as held, undoing() as undo, apart_from_backward():
                    result = apart_from(undo.keep(node(*incoming)), held)
            else:
                result = node(*incoming)
        except (RuntimeError, TypeError, NotImplementedError) as error:
            reason = CannotPullError(f"{node.name()} could not be run once more: {str(error).splitlines()[0]}")
            reason.node = node
            raise reason from None
        except CannotPullError as reason:
            reason.node = node
            raise
        return result if type(result) is tuple else (result,)


def _leave_out(graph: Graph, stopped: dict[int, int], targets: Mapping[Edge, Any], out: dict[Any, Any]) -> None:
    """Drop the targets behind nodes that were not run: their gradients are incomplete."""
    at: dict[int, int] = {}
    for i, (node, _) in enumerate(targets):
        if node in graph.position:
            at[graph.position[node]] = at.get(graph.position[node], 0) | 1 << i
    bits = graph.bits(at)
    behind = 0
    for position in stopped:
        behind |= bits[position]
    for i, key in enumerate(targets.values()):
        if behind >> i & 1:
            out.pop(key, None)


def fit(grad: torch.Tensor, inputs: tuple[Any, ...], nr: int) -> torch.Tensor:
    """Do what the engine does to a gradient before the next node receives it: reduce broadcast dimensions, cast the type."""
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


def is_of_distributed(node: Node) -> bool:
    """Whether a Python node belongs to torch.distributed (FSDP): running it again on one rank would desynchronise the others."""
    function = getattr(type(node), "_forward_cls", type(node))
    return str(getattr(function, "__module__", "")).startswith("torch.distributed.")


def _call_python(node: Node, incoming: Incoming, reading: ReferenceReading) -> tuple[torch.Tensor | None, ...]:
    """Run the backward of a custom Function again; whatever it writes is restored."""
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
    except Exception as error:  # user code: anything may be raised
        raise CannotPullError(
            f"the backward of {name.removesuffix('Backward')} could not be run once more: {error}"
        ) from None
    return result if isinstance(result, tuple) else (result,)
