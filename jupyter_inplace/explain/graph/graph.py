"""An autograd graph as plain lists, to ask which nodes lead to which leaves and which tasks pass through which nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from operator import attrgetter
from typing import Any

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.deep_graphs import hold_some
from jupyter_inplace.record.base.nodes import is_python_node, slot_names

Node = Any  # torch.autograd.graph.Node; each kind of C++ node has its own Python type
Edge = tuple[Node, int]  # a node, and which of its outputs

# Nodes of views, which read no value: the value is read by the readers of the view.
VIEW_NODES = frozenset(
    f"{name}Backward{n}"
    for name in (
        "T",
        "View",
        "UnsafeView",
        "ReshapeAlias",
        "Transpose",
        "Permute",
        "Expand",
        "Select",
        "Slice",
        "Unsqueeze",
        "Squeeze",
        "AsStrided",
        "Unbind",
        "Split",
        "SplitWithSizes",
        "Diagonal",
        "Narrow",
        "Alias",
        "Unfold",
        "MovedDim",
        "Swapaxes",
        "Mt",
        "Mh",
        "Detach",
        "ViewAsReal",
        "ViewAsComplex",
    )
    for n in (0, 1, 2)
)


_SLACK = 16  # of sequence numbers

_next_functions = attrgetter("next_functions")


class Graph:
    """Everything reachable from some root nodes, in an order in which each node stands before those it leads to.

    Built once per backward call, in one linear walk; the bit sets are Python integers.
    """

    def __init__(
        self, roots: Iterable[Node], rewired: Mapping[Node, tuple[tuple[Node, int], ...]] | None = None
    ) -> None:
        self.nodes: list[Node] = []
        self.position: dict[Node, int] = {}
        self.next: list[tuple[tuple[Node, int], ...]] = []
        self.links: list[list[tuple[int, int]]] = []  # the same by position, -1 for an edge that leads nowhere
        self._inputs: list[tuple[Any, ...] | None] = []
        self._rewired = rewired or {}
        self._walk([node for node in roots if node is not None])
        hold_some(self.nodes)
        # Positions by node type, so that questions are asked once per type. Several types may have the same name.
        self.kinds: dict[type, list[int]] = {}
        for i, kind in enumerate(map(type, self.nodes)):
            if kind in self.kinds:
                self.kinds[kind].append(i)
            else:
                self.kinds[kind] = [i]
        self._span: tuple[int, int] | None = None
        self._recomputes: bool | None = None
        self._parents: list[list[int]] | None = None
        self.leaves: list[int] = self.named("AccumulateGrad")

    def _walk(self, roots: list[Node]) -> None:
        seen: set[Node] = set()
        edges_at = self._edges if self._rewired else _next_functions
        nodes, edges_of = self.nodes, self.next  # what is behind a node comes first here: reversed at the end
        stack: list[tuple[Node, Any, Any]] = []
        for root in reversed(roots):
            if root in seen:
                continue
            seen.add(root)
            edges = edges_at(root)
            stack.append((root, edges, iter(edges)))
            while stack:
                node, edges, rest = stack[-1]
                for child, _ in rest:
                    if child is not None and child not in seen:
                        seen.add(child)
                        child_edges = edges_at(child)
                        stack.append((child, child_edges, iter(child_edges)))
                        break
                else:
                    nodes.append(node)
                    edges_of.append(edges)
                    stack.pop()
        nodes.reverse()
        edges_of.reverse()
        position = self.position = dict(zip(nodes, range(len(nodes)), strict=True))
        self.links = [[(-1 if child is None else position[child], nr) for child, nr in edges] for edges in edges_of]
        self._inputs = [None] * len(nodes)

    def _edges(self, node: Node) -> tuple[tuple[Node, int], ...]:
        bent = self._rewired.get(node)
        return _next_functions(node) if bent is None else bent

    def inputs(self, position: int) -> tuple[Any, ...]:
        """`inputs_of` a node, cached because it is slow."""
        known = self._inputs[position]
        if known is None:
            known = self._inputs[position] = inputs_of(self.nodes[position])
        return known

    def named(self, *names: str) -> list[int]:
        """The positions of the nodes whose type has one of these names."""
        found = [positions for kind, positions in self.kinds.items() if kind.__name__ in names]
        return found[0] if len(found) == 1 else sorted(chain.from_iterable(found))

    @property
    def python_nodes(self) -> list[int]:
        """The positions of the nodes of custom Functions."""
        return sorted(
            i for positions in self.kinds.values() if is_python_node(self.nodes[positions[0]]) for i in positions
        )

    @property
    def parents(self) -> list[list[int]]:
        """For each position, the positions of the nodes that have an edge to it, each once."""
        if self._parents is None:
            self._parents = [[] for _ in self.nodes]
            for i, links in enumerate(self.links):
                for child, _ in links:
                    if child >= 0 and (not self._parents[child] or self._parents[child][-1] != i):
                        self._parents[child].append(i)
        return self._parents

    @property
    def recomputes(self) -> bool:
        """Whether some node would run a checkpointed function to get its saved tensors."""
        if self._recomputes is None:
            self._recomputes = private.checkpoints_may_wait() and any(
                _any_fetches_again([self.nodes[i] for i in positions]) for positions in self.kinds.values()
            )
        return self._recomputes

    def bits(self, marked: dict[int, int]) -> list[int]:
        """For each node the union of the `marked` bits of itself and everything that it leads to."""
        out = [0] * (len(self.nodes) + 1)  # the last one is for edges that lead nowhere
        for i, bits in marked.items():
            out[i] = bits
        links = self.links
        for i in range(len(links) - 1, -1, -1):
            bits = out[i]
            for child, _ in links[i]:
                bits |= out[child]
            out[i] = bits
        return out

    def bits_from(self, marked: dict[int, int]) -> list[int]:
        """For each node the union of the `marked` bits of itself and everything that leads to it."""
        out = [0] * (len(self.nodes) + 1)
        for i, bits in marked.items():
            out[i] = bits
        for i, links in enumerate(self.links):
            bits = out[i]
            if bits:
                for child, _ in links:
                    out[child] |= bits
        return out

    def senders(self, roots: list[Node], useful: list[int]) -> dict[Node, int]:
        """For each node that receives gradients in a backward from `roots`, from how many edges: it runs when all have arrived.

        :param useful: by position, whether a node leads to a target.
        """
        counts: dict[Node, int] = {}
        seen: set[Node] = set()
        stack = [node for node in roots if node in self.position]
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            for child, _ in self.next[self.position[node]]:
                if child is not None and useful[self.position[child]]:
                    counts[child] = counts.get(child, 0) + 1
                    stack.append(child)
        return counts

    def may_hold(self, sequence: int) -> bool:
        """Whether something saved when the node with sequence number `sequence` was made can belong to a node of this graph.

        Judged by number alone: regenerated nodes of views and nodes inside others differ by a few from what was seen at the save.
        """
        if self._span is None:
            leaves = set(self.leaves)
            numbers = [node._sequence_nr() for i, node in enumerate(self.nodes) if i not in leaves]
            self._span = (min(numbers) - _SLACK, max(numbers) + _SLACK) if numbers else (0, -1)
        return self._span[0] <= sequence <= self._span[1]

    def readers(self, target: Node) -> list[Node]:
        """The nodes that read the value of a leaf: its consumers, where views are replaced by their own consumers."""
        found: dict[int, None] = {}
        stack = [self.position[target]]
        while stack:
            for i in self.parents[stack.pop()]:
                if i not in found:
                    found[i] = None
                    if type(self.nodes[i]).__name__ in VIEW_NODES:
                        stack.append(i)
        # A view without readers reads nothing; one with readers is represented by them.
        return [self.nodes[i] for i in sorted(found, reverse=True) if type(self.nodes[i]).__name__ not in VIEW_NODES]


def inputs_of(node: Node) -> tuple[Any, ...]:
    """Shape and type of each gradient that a node takes, None if torch does not tell."""
    try:
        return tuple(map(_shape_and_type, node._input_metadata))
    except (AttributeError, RuntimeError):
        return (None,)


def _shape_and_type(metadata: Any) -> tuple[Any, Any] | None:
    try:
        return tuple(metadata.shape), metadata.dtype
    except (AttributeError, RuntimeError):
        return None


def is_leaf_node(node: Node) -> bool:
    """Whether the node accumulates the gradient of a leaf."""
    return type(node).__name__ == "AccumulateGrad"


def runs_user_code(node: Node) -> bool:
    """Whether the node's backward may be user code; the one for a module's backward hooks only passes on what it receives."""
    return is_python_node(node) and type(node).__name__ != "BackwardHookFunctionBackward"


def saved_slots(node: Node) -> list[tuple[str, Any]]:
    """The saved variables of a node as (name, SavedTensor), without unpacking any. Empty if freed or not exposed."""
    slots: list[tuple[str, Any]] = []
    for name in slot_names(node):
        try:
            value = getattr(node, name)
        except RuntimeError:
            continue
        short = name.removeprefix("_raw_saved_")
        if isinstance(value, (list, tuple)):
            slots.extend((f"{short}[{i}]", item) for i, item in enumerate(value))
        elif value is not None:
            slots.append((short, value))
    return slots


def held_in(slot: Any) -> Any:
    """What a SavedTensor holds, without unpacking it; None if that is freed."""
    try:
        return slot.data
    except (RuntimeError, AttributeError):
        return None


def short_name(node: Node) -> str:
    """The name of a node without its namespace: `MulBackward0`."""
    return str(node.name()).rpartition("::")[2]


def node_key(node: Node) -> tuple[str, int]:
    """Identifies a node among those of its thread without holding it: its type and its sequence number."""
    return type(node).__name__, node._sequence_nr()


def _any_fetches_again(nodes: list[Node]) -> bool:
    """Whether one of these nodes, all of one type, belongs to a checkpointed function.

    All that one node saves was packed by the same pair of hooks, so the first saved tensor tells.
    """
    fetch = [(name, attrgetter(f"{name}.data")) for name in slot_names(nodes[0])]
    for node in nodes:
        for name, data_of in fetch:
            try:
                data = data_of(node)
            except AttributeError:  # nothing saved under that name, or a list
                data = _first_data(node, name)
            except RuntimeError:  # freed
                break
            if data is not None:
                if type(data).__name__ == "_Holder":
                    return True
                break
    return False


def _first_data(node: Node, name: str) -> Any:
    try:
        return next((slot.data for slot in getattr(node, name) or () if slot is not None), None)
    except (RuntimeError, AttributeError):
        return None


def scalar_output(node: Node, output_nr: int) -> bool:
    """Whether an output of the node has one element."""
    try:
        size = 1
        for n in node._input_metadata[output_nr].shape:
            size *= int(n)
    except (RuntimeError, IndexError, AttributeError, TypeError, ValueError):
        return False
    return size == 1
