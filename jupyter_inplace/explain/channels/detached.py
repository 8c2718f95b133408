"""Tensors taken off their graph in place that one root reads both before and after: the gradient misses what came after.

Autograd kept nothing of the readers that came after, so the gradient that was meant is not known; which task and leaves it misses is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jupyter_inplace.explain.backward.facts import BackwardFacts, CutFact, GradientFact
from jupyter_inplace.explain.graph.graph import Graph, Node, is_leaf_node
from jupyter_inplace.record.base.torch_private import storage_id
from jupyter_inplace.record.channels.detached import Detachment

if TYPE_CHECKING:
    from jupyter_inplace.explain.backward.damage import Damage

Found = tuple[Detachment, Node, list[Node]]  # the producer of the tensor, and the nodes that read its value after


def find(graph: Graph, severances: list[Detachment]) -> list[Found]:
    """The severed tensors that this graph reads on both sides."""
    found: list[Found] = []
    for severance in severances:
        producer = _producer(graph, severance)
        if producer is None:
            continue
        after = [node for node in graph.nodes if not is_leaf_node(node) and node._sequence_nr() in severance.readers]
        if after:
            found.append((severance, producer, after))
    return found


def _producer(graph: Graph, severance: Detachment) -> Node:
    """The node that made a severed tensor, or a leaf's own, where something in the graph read it before; else None."""
    identity = severance.identity
    for node, edges in zip(graph.nodes, graph.next, strict=True):
        if is_leaf_node(node) or node._sequence_nr() >= severance.sequence:
            continue
        for child, nr in edges:
            if child is None:
                continue
            if identity is None:
                if is_leaf_node(child) and storage_id(child.variable) == severance.storage:
                    return child
            elif (type(child).__name__, child._sequence_nr(), nr) == identity.key:
                return child
    return None


def mark(damage: Damage, facts: BackwardFacts, found: list[Found]) -> None:
    """Spoil the rows of the tasks that read a severed tensor afterwards, for the leaves behind it."""
    for severance, producer, after in found:
        tasks = list(dict.fromkeys(task for node in after for task in damage.passages.tasks(node)))
        leaves = {key for (node, _), key in damage.targets.items() if node is producer} | damage.passages.behind(
            producer
        )
        rows = {(row.task, row.leaf): row for row in facts.gradients}
        for task in tasks:
            for leaf in sorted(leaves):
                row = rows.get((task, leaf))
                if row is None:
                    row = GradientFact(task, leaf, norm_as_run=0.0)
                    facts.gradients.append(row)
                if row.status != "raises":
                    row.status = "wrong" if row.norm_as_run else "lost"
                    row.norm_reference = row.relative_difference = row.cosine = None
                facts.reference.pop((task, leaf), None)
        if tasks and leaves:
            facts.cuts.append(CutFact(severance.write, tasks, sorted(leaves)))
            facts.notes.append(
                f"what {', '.join(tasks)} reads after {severance.write.op} is not in the graph: the gradient that was meant is not known"
            )
