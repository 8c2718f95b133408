"""The graph as it would be if autograd had recorded every write: stale reads pass through the derivative of the write.

A cut leaves nodes that read the new value but still lead to the node of the old one. Each of their edges is redirected to our
own node for the write: called with a gradient of the new value it returns those of the old value and of the operands of the
write, computed by replaying the write on copies with grad mode on. Views in between are duplicated if readers of both the old
and the new value pass through them.
"""

from __future__ import annotations

from typing import Any

import torch

from jupyter_inplace.explain.graph import numbers
from jupyter_inplace.explain.graph.graph import VIEW_NODES, Edge, Graph, Node, node_key
from jupyter_inplace.explain.graph.reading import CannotPullError
from jupyter_inplace.record.channels import untracked_writes as unrecorded
from jupyter_inplace.record.channels.alias_values import AliasPart
from jupyter_inplace.record.channels.untracked_writes import Cut
from jupyter_inplace.record.saved.reading import set_reading


class WriteNode:
    """A node for one unrecorded write. After a walk, `changed` tells whether it made any difference."""

    def __init__(self, cut: Cut, old: Edge, metadata: Any) -> None:
        self.cut = cut
        self._input_metadata = (metadata,)  # of the written tensor: the walk reduces incoming gradients to it
        self.operands = sorted(cut.edges, key=str)
        self.next_functions = (old, *(cut.edges[place] for place in self.operands))
        self.changed = False

    def name(self) -> str:
        return f"unrecorded {self.cut.write.op}"

    def _sequence_nr(self) -> int:
        return self.cut.sequence

    def __call__(self, grad: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        if grad is None:
            return (None,) * len(self.next_functions)
        if self.cut.write.bracket is not None:
            raise CannotPullError("what was written from outside of torch has no derivative that could be known")
        if not self.cut.replayable:
            raise CannotPullError(
                f"the write {self.cut.write.op} is too large or too special to be replayed with its derivative"
            )
        out = _replay(self.cut, grad, self.operands)
        first = out[0]
        if first is None or numbers.same_values(first, grad) is not True or any(numbers.norm(g) for g in out[1:]):
            self.changed = True
        return out


class ViewNode:
    """A duplicate of a view node, for readers of another value."""

    def __init__(self, node: Node, edges: tuple[Edge, ...]) -> None:
        self.node = node
        self.next_functions = edges
        self._input_metadata = node._input_metadata

    def name(self) -> str:
        return str(self.node.name())

    def _sequence_nr(self) -> int:
        return int(self.node._sequence_nr())

    def __call__(self, *grads: torch.Tensor | None) -> Any:
        return self.node(*grads)


class Repair:
    """Finds the stale reads of a graph, and builds the graph without them.

    :param roots: the nodes that a walk may start from.
    :param now: the sequence number of the next node: what is written before the backward of a root counts for the root too.
    """

    def __init__(self, graph: Graph, cuts: list[Cut], roots: list[Node], now: int) -> None:
        self.writes: list[WriteNode] = []
        self._graph = graph
        self._cuts: dict[tuple[str, int, int], list[Cut]] = {}
        for cut in sorted(cuts, key=lambda cut: cut.order):
            self._cuts.setdefault(cut.identity.key, []).append(cut)
        producers = {}
        wanted = {(kind, sequence) for kind, sequence, _ in self._cuts}
        for i in graph.named(*{kind for kind, _ in wanted}):
            node = graph.nodes[i]
            key = node_key(node)
            if key in wanted:
                producers[key] = node
        self._rewired: dict[Node, tuple[Edge, ...]] = {}
        self._memo: dict[Any, Edge] = {}
        for (kind, sequence, nr), chain in self._cuts.items():
            if (kind, sequence) in producers:
                self._bend(producers[(kind, sequence)], nr, chain, roots, now)

    @property
    def needed(self) -> bool:
        return bool(self.writes)

    def graph(self, roots: list[Node]) -> Graph:
        """The repaired graph."""
        return Graph(roots, self._rewired)

    def start(self, edge: Edge) -> Edge:
        """Where a walk from `edge` starts in the repaired graph: at the write, if the root itself was written."""
        return self._memo.get(("root", edge), edge)

    def _bend(self, producer: Node, nr: int, chain: list[Cut], roots: list[Node], now: int) -> None:
        aliases = self._aliases(producer)
        graph = self._graph
        readers = {i for alias in aliases for i in graph.parents[graph.position[alias]]}
        for i in sorted(readers):
            node = graph.nodes[i]
            if node in aliases:
                continue
            edges = self._rewired.get(node, graph.next[i])
            age = sum(cut.sequence <= node._sequence_nr() for cut in chain)
            if not age:
                continue
            if type(node).__name__ == "CopySlices" and any(cut.sequence == node._sequence_nr() for cut in chain):
                age -= 1  # the write's own node
                if not age:
                    continue
            self._rewired[node] = tuple(
                self._aged(producer, nr, chain, age, (child, n)) if child in aliases else (child, n)
                for child, n in edges
            )
        for root in roots:
            if root in aliases:
                age = sum(cut.sequence <= now for cut in chain)
                for n in range(max(1, len(root._input_metadata))):
                    edge = self._aged(producer, nr, chain, age, (root, n)) if age else (root, n)
                    if edge != (root, n):
                        self._memo[("root", (root, n))] = edge

    def _aliases(self, producer: Node) -> set[Node]:
        """The producer and the view nodes through which it is read."""
        graph = self._graph
        found, stack = {producer}, [producer]
        while stack:
            for i in graph.parents[graph.position[stack.pop()]]:
                node = graph.nodes[i]
                if type(node).__name__ in VIEW_NODES and node not in found:
                    found.add(node)
                    stack.append(node)
        return found

    def _aged(self, producer: Node, nr: int, chain: list[Cut], age: int, edge: Edge) -> Edge:
        """The edge as it is with the first `age` writes of the chain recorded and the views on the way duplicated."""
        todo = [(age, edge)]
        while todo:
            now, at = todo[-1]
            key = (producer, nr, now, at)
            if key not in self._memo:
                needed = self._needs(producer, nr, now, at)
                missing = [(n, e) for n, e in needed if (producer, nr, n, e) not in self._memo]
                if missing:
                    todo += missing
                    continue
                self._memo[key] = self._made(producer, nr, chain, now, at)
            todo.pop()
        return self._memo[producer, nr, age, edge]

    @staticmethod
    def _needs(producer: Node, nr: int, age: int, edge: Edge) -> list[tuple[int, Edge]]:
        """What must exist before an edge can be made: the previous write, or what the view is a view of."""
        node, output = edge
        if node is producer:
            return [(age - 1, edge)] if output == nr and age > 1 else []
        return [(age, (child, n)) for child, n in node.next_functions if child is not None]

    def _made(self, producer: Node, nr: int, chain: list[Cut], age: int, edge: Edge) -> Edge:
        node, output = edge
        if node is not producer:
            inner = tuple(
                (child, n) if child is None else self._memo[producer, nr, age, (child, n)]
                for child, n in node.next_functions
            )
            return ViewNode(node, inner), output
        if output != nr:
            return edge
        old = self._memo[producer, nr, age - 1, edge] if age > 1 else edge
        write = WriteNode(chain[age - 1], old, producer._input_metadata[nr])
        self.writes.append(write)
        return write, 0


def _replay(cut: Cut, grad: torch.Tensor, operands: list[Any]) -> tuple[torch.Tensor | None, ...]:
    """Vector-Jacobian product of the write, from the gradient of the written memory to that of the memory before."""
    assert cut.before is not None and cut.view is not None
    whole, part = cut.identity.view, cut.view
    if whole.itemsize != part.itemsize or grad.dtype != cut.before.dtype:
        raise CannotPullError(f"the write {cut.write.op} went through a view of another type")
    ends = [view.byte_range[1] // view.itemsize for view in (whole, part)]
    size, device = max(ends), grad.device
    reading = set_reading(None)
    try:
        with torch.enable_grad():
            old = torch.zeros(whole.shape, dtype=grad.dtype, device=device, requires_grad=True)
            constant = torch.zeros(size, dtype=grad.dtype, device=device)
            constant.as_strided(part.shape, part.stride, part.offset).copy_(cut.before)
            memory = constant + torch.zeros_like(constant).as_strided_scatter(
                old, whole.shape, whole.stride, whole.offset
            )
            target = memory.as_strided(part.shape, part.stride, part.offset)
            leaves: dict[Any, torch.Tensor] = {}
            unchanged = memory.clone()

            def replayed(value: Any) -> Any:
                """An operand of the write, recomputed from the memory as it was before."""
                if isinstance(value, AliasPart):
                    if value.step is not None:
                        step = value.step
                        return step.func(
                            *map(replayed, step.args), **{name: replayed(item) for name, item in step.kwargs.items()}
                        )
                    if value.storage == cut.storage and value.view.itemsize == part.itemsize:
                        return unchanged.as_strided(value.view.shape, value.view.stride, value.view.offset)
                    return value.value
                return [replayed(item) for item in value] if isinstance(value, (list, tuple)) else value

            def put(value: Any, place: Any) -> Any:
                if isinstance(value, AliasPart):
                    return replayed(value)
                if value is unrecorded._TARGET:
                    return target
                if isinstance(value, unrecorded._Place):
                    return unchanged.as_strided(value.view.shape, value.view.stride, value.view.offset)
                if place in cut.edges:
                    leaves[place] = value.detach().clone().requires_grad_()
                    return leaves[place]
                if isinstance(value, (list, tuple)):
                    return type(value)(put(item, (place, i)) for i, item in enumerate(value))
                return value

            args = [put(a, i) for i, a in enumerate(cut.args)]
            kwargs = {name: put(a, name) for name, a in cut.kwargs.items()}
            cut.func(*args, **kwargs)
            new = memory.as_strided(whole.shape, whole.stride, whole.offset)
            wanted = [old, *(leaves[place] for place in operands)]
            if not new.requires_grad:
                return (torch.zeros_like(grad), *(None for _ in operands))
            return torch.autograd.grad(new, wanted, grad, allow_unused=True)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        raise CannotPullError(
            f"the write {cut.write.op} could not be replayed with its derivative: {str(error).splitlines()[0]}"
        ) from None
    finally:
        set_reading(reading)
