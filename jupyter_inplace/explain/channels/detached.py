"""Tensors detached in place that one root reads both before and after: the gradient misses the later reads.

Autograd recorded no path through the later readers, so the intended gradient is not known, only which task and leaves it
concerns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jupyter_inplace.explain.backward.facts import BackwardFacts, CutFact, GradientFact
from jupyter_inplace.explain.backward.task_graph import TaskGraph
from jupyter_inplace.explain.graph.graph import Graph, Node, is_leaf_node, node_key
from jupyter_inplace.record.base.torch_private import storage_id
from jupyter_inplace.record.channels.detached import Detachment


@dataclasses.dataclass(frozen=True)
class DetachedReads:
    """A detached tensor that a graph reads on both sides of the detachment.

    :param producer: the node that made the tensor.
    :param after: the nodes that read its value after the detachment.
    """

    detachment: Detachment
    producer: Node
    after: Sequence[Node]


def find(graph: Graph, detachments: Sequence[Detachment]) -> list[DetachedReads]:
    """Find the detached tensors that this graph reads both before and after."""
    found: list[DetachedReads] = []
    for detachment in detachments:
        producer = _producer(graph, detachment)
        if producer is None:
            continue
        after = [node for node in graph.nodes if not is_leaf_node(node) and node._sequence_nr() in detachment.readers]
        if after:
            found.append(DetachedReads(detachment, producer, after))
    return found


def _producer(graph: Graph, detachment: Detachment) -> Node:
    """The node that made a detached tensor (of a leaf, its accumulator) if something in the graph read it before; else None."""
    identity = detachment.identity
    for node, edges in zip(graph.nodes, graph.next, strict=True):
        if is_leaf_node(node) or node._sequence_nr() >= detachment.sequence:
            continue
        for child, nr in edges:
            if child is None:
                continue
            if identity is None:
                if is_leaf_node(child) and storage_id(child.variable) == detachment.storage:
                    return child
            elif (*node_key(child), nr) == identity.key:
                return child
    return None


def mark(tasks: TaskGraph, found: Sequence[DetachedReads], facts: BackwardFacts) -> None:
    """Mark the rows of the tasks that read a detached tensor afterwards, for the leaves behind it."""
    for reads in found:
        write, producer = reads.detachment.write, reads.producer
        passing = list(dict.fromkeys(task for node in reads.after for task in tasks.passages.tasks(node)))
        own = {key for (node, _), key in tasks.targets.items() if node is producer}
        leaves = sorted(own | tasks.passages.behind(producer))
        for task in passing:
            for leaf in leaves:
                row = facts.row(task, leaf) or GradientFact(task, leaf, norm_as_run=0.0)
                if row.status != "raises":
                    row = GradientFact(
                        task,
                        leaf,
                        "wrong" if row.norm_as_run else "lost",
                        norm_as_run=row.norm_as_run,
                        by_version=row.by_version,
                    )
                facts.put_row(row)
                facts.drop_reference((task, leaf))
        if passing and leaves:
            facts.add_cut(CutFact(write, passing, leaves))
            facts.note(
                f"what {', '.join(passing)} reads after {write.op} is not in the graph: "
                "the gradient that was meant is not known"
            )
