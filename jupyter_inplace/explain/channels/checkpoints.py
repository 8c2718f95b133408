"""Checkpointed functions whose recomputation will read different values than their forward did."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jupyter_inplace.explain.backward.conflicts import culprits
from jupyter_inplace.explain.backward.facts import BackwardFacts, ConflictFact, GradientFact
from jupyter_inplace.explain.backward.task_graph import TaskGraph
from jupyter_inplace.explain.graph import numbers
from jupyter_inplace.explain.graph.graph import Graph, Node, held_in, saved_slots, short_name
from jupyter_inplace.record.channels.checkpoints import CheckpointRegion
from jupyter_inplace.record.saved.saved import Saved

Regions = Sequence[tuple[Any, CheckpointRegion]]  # each with the node that owns it, if there is one


def nodes_of(graph: Graph, region: CheckpointRegion, owner: Any) -> list[Node]:
    """The nodes of a graph that will trigger the recomputation of a region."""
    if owner in graph.position:
        return [owner]
    if region.holders is None:
        return []
    mine = {id(holder) for ref in region.holders if (holder := ref()) is not None}
    return [node for node in graph.nodes if any(id(held_in(slot)) in mine for _, slot in saved_slots(node))]


def changed_reads(region: CheckpointRegion) -> list[Saved]:
    """The tensors that the region read in the forward and whose values have changed since."""
    return [
        s for s in region.reads if s.touched and s.clone is not None and numbers.same_values(s.clone, s.tensor) is False
    ]


def reads_again(graph: Graph, found: Regions) -> dict[Node, list[Saved]]:
    """For each node that triggers the recomputation of a region, the tensors that it would read with other values now."""
    out: dict[Node, list[Saved]] = {}
    for owner, region in found:
        changed = changed_reads(region)
        for node in nodes_of(graph, region, owner) if changed else ():
            out.setdefault(node, []).extend(changed)
    return out


def mark(tasks: TaskGraph, found: Regions, facts: BackwardFacts) -> None:
    """Add the conflicts of the regions of this graph that changed.

    Their rows become "wrong" without numbers, since the result of the recomputation is not known.
    """
    for owner, region in found:
        nodes = nodes_of(tasks.graph, region, owner)
        changed = changed_reads(region) if nodes else []
        if not changed:
            continue
        passing = list(dict.fromkeys(task for node in nodes for task in tasks.passages.tasks(node)))
        behind = {leaf for node in nodes for leaf in tasks.passages.behind(node)}
        if owner in tasks.graph.position:  # a reentrant one: the leaves that it reads are behind it
            behind |= _own_leaves(tasks, region)
        for task in passing:
            for leaf in sorted(behind):
                row = facts.row(task, leaf) or GradientFact(task, leaf)
                if row.norm_reference is None and row.status == "ok":
                    row = dataclasses.replace(row, status="wrong", norm_as_run=None)
                facts.put_row(row)
        hit = [row for row in facts.gradients if row.task in passing and row.status in ("wrong", "lost")]
        if hit:
            for saved in changed:
                facts.add_conflict(_conflict(tasks, region, saved, nodes[0], passing, hit))


def _own_leaves(tasks: TaskGraph, region: CheckpointRegion) -> set[str]:
    leaves = (s.tensor for s in region.reads if s.tensor.requires_grad and s.tensor.is_leaf)
    return {name for leaf in leaves if (name := tasks.names.of_memory(leaf))}


def _conflict(
    tasks: TaskGraph, region: CheckpointRegion, saved: Saved, node: Node, passing: list[str], hit: list[GradientFact]
) -> ConflictFact:
    return ConflictFact(
        verdict="corrupts",
        writes=culprits(tasks.session, saved),
        node=short_name(node),
        saved_as="recomputed input",
        tensor=tasks.names.of_memory(saved.tensor) or "",
        saved_version=None,
        found_version=saved.tensor._version,
        saved_site=region.site or saved.site,
        saved_order=saved.order,
        module=None,
        value_changed=True,
        tasks=[task for task in passing if any(row.task == task for row in hit)],
        leaves=sorted({row.leaf for row in hit}),
    )
