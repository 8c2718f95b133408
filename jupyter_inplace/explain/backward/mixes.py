"""Leaves that one gradient reads at several values: legal, but the gradient is not that of any single value."""

from __future__ import annotations

from typing import Any

from jupyter_inplace.explain.backward.facts import MixFact
from jupyter_inplace.explain.backward.task_graph import TaskGraph
from jupyter_inplace.explain.graph.graph import Edge, Graph, Node
from jupyter_inplace.record.base.torch_private import storage_id
from jupyter_inplace.record.session import Session


def find_mixes(tasks: TaskGraph) -> tuple[list[MixFact], dict[Edge, dict[Node, int]]]:
    """Find the mixed leaves, and for each of their edges the version that each sender of a gradient read."""
    graph = tasks.graph
    facts: list[MixFact] = []
    groups: dict[Edge, dict[Node, int]] = {}
    for edge, name in tasks.targets.items():
        leaf = getattr(edge[0], "variable", None)
        if leaf is None:
            continue
        writes = _leaf_writes(tasks.session, leaf)
        moments = sorted({moment for write in writes for moment in write.sequences})
        if not moments:
            continue
        readers = graph.readers(edge[0])
        ages = {node: sum(moment <= node._sequence_nr() for moment in moments) for node in readers}
        if len(set(ages.values())) < 2:
            continue
        newest = leaf._version
        version_of = {age: max(0, newest - (len(moments) - age)) for age in set(ages.values())}
        versions: dict[str, list[int]] = {}
        for task, part in tasks.parts:
            if part.edge[0] in graph.position:
                below = _below(graph, part.edge[0])
                seen = sorted({version_of[age] for node, age in ages.items() if node in below})
                if seen:
                    versions[task] = sorted(set(versions.get(task, [])) | set(seen))
        if len({v for seen in versions.values() for v in seen}) < 2:
            continue
        low, high = min(ages.values()), max(ages.values())
        between = set(moments[low:high])
        facts.append(MixFact(name, [w for w in writes if between & set(w.sequences)], list(versions)))
        if any(len(seen) > 1 for seen in versions.values()):
            groups[edge] = _by_sender(graph, edge[0], ages, version_of)
    return facts, groups


def _leaf_writes(session: Session, leaf: Any) -> list[Any]:
    found = [write for write in session.table.by_storage.get(storage_id(leaf), ()) if write.leaf]
    for write in session.table.rows:
        if write.optimizer is not None:
            optimizer = write.optimizer()
            if optimizer is not None and any(p is leaf for group in optimizer.param_groups for p in group["params"]):
                found.append(write)
    return found


def _below(graph: Graph, start: Node) -> set[Node]:
    seen = {start}
    stack = [start]
    while stack:
        for child, _ in graph.next[graph.position[stack.pop()]]:
            if child is not None and child not in seen:
                seen.add(child)
                stack.append(child)
    return seen


def _by_sender(graph: Graph, leaf: Node, ages: dict[Node, int], version_of: dict[int, int]) -> dict[Node, int]:
    """The version read through each node that sends a gradient to the leaf: its own, or that of its reader if it is a view."""
    out: dict[Node, int] = {}
    for i in graph.parents[graph.position[leaf]]:
        node = graph.nodes[i]
        if node in ages:
            out[node] = version_of[ages[node]]
        else:  # a view: the oldest reader above it
            above = [age for reader, age in ages.items() if node in _below(graph, reader)]
            if above:
                out[node] = version_of[min(above)]
    return out
