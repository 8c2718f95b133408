"""The tasks that pass through each node of a graph, and the targets behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from jupyter_inplace.explain.graph.graph import Edge, Graph, Node


class Passages:
    """For tasks that start at `starts`, with `targets` (edge -> name). One pass answers each question for all nodes."""

    def __init__(self, graph: Graph, starts: Sequence[tuple[str, Node]], targets: Mapping[Edge, str]) -> None:
        self._graph, self._starts, self._targets = graph, starts, targets
        self._behind: dict[int, set[str]] = {}

    @cached_property
    def useful(self) -> list[int]:
        """By position, a bit for each target at the node or behind it."""
        return self._graph.bits(self._marks(node for node, _ in self._targets))

    @cached_property
    def _tasks(self) -> list[int]:
        return self._graph.bits_from(self._marks(node for _, node in self._starts))

    def _marks(self, nodes: Iterable[Node]) -> dict[int, int]:
        marks: dict[int, int] = {}
        for i, node in enumerate(nodes):
            position = self._graph.position.get(node)
            if position is not None:
                marks[position] = marks.get(position, 0) | 1 << i
        return marks

    def reached(self, node: Node) -> dict[Edge, str]:
        """The targets at a node and behind it; none for a node of another graph."""
        position = self._graph.position.get(node)
        here = 0 if position is None else self.useful[position]
        return {edge: name for i, (edge, name) in enumerate(self._targets.items()) if here >> i & 1}

    def behind(self, node: Node) -> set[str]:
        """The targets that a gradient through `node` reaches."""
        position = self._graph.position[node]
        if position not in self._behind:
            bits = 0
            for child, _ in self._graph.links[position]:
                bits |= self.useful[child]
            self._behind[position] = {name for i, name in enumerate(self._targets.values()) if bits >> i & 1}
        return self._behind[position]

    def tasks(self, node: Node) -> list[str]:
        """The tasks whose backward passes through `node`, in the order of the starts; none for a node of another graph."""
        position = self._graph.position.get(node)
        here = 0 if position is None else self._tasks[position]
        return list(dict.fromkeys(task for i, (task, _) in enumerate(self._starts) if here >> i & 1))
