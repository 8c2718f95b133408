"""Checkpointed regions whose recomputation will read other values than their forward did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jupyter_inplace.explain.backward.facts import BackwardFacts, ConflictFact, GradientFact
from jupyter_inplace.explain.graph import numbers
from jupyter_inplace.explain.graph.graph import Graph, Node, saved_slots
from jupyter_inplace.record.channels.checkpoints import CheckpointRegion
from jupyter_inplace.record.saved.saved import Saved
from jupyter_inplace.record.session import Session

if TYPE_CHECKING:
    from jupyter_inplace.explain.backward.damage import Damage


def nodes_of(graph: Graph, region: CheckpointRegion, owner: Any) -> list[Node]:
    """The nodes of a graph that will ask for the recomputation of a region."""
    if owner in graph.position:
        return [owner]
    if region.holders is None:
        return []
    mine = {id(holder) for ref in region.holders if (holder := ref()) is not None}
    found = []
    for node in graph.nodes:
        for _, slot in saved_slots(node):
            try:
                held = slot.data
            except (RuntimeError, AttributeError):
                continue
            if id(held) in mine:
                found.append(node)
                break
    return found


def changed_reads(region: CheckpointRegion) -> list[Saved]:
    """What the region read in the forward and would read differently now."""
    return [
        s for s in region.reads if s.touched and s.clone is not None and numbers.same_values(s.clone, s.tensor) is False
    ]


def reads_again(graph: Graph, found: list[tuple[Any, CheckpointRegion]]) -> dict[Node, list[Saved]]:
    """For each node that asks for the recomputation of a region what that would read differently now."""
    out: dict[Node, list[Saved]] = {}
    for owner, region in found:
        changed = changed_reads(region)
        for node in nodes_of(graph, region, owner) if changed else ():
            out.setdefault(node, []).extend(changed)
    return out


def judge(session: Session, damage: Damage, facts: BackwardFacts, found: list[tuple[Any, CheckpointRegion]]) -> None:
    """Conflicts for regions of this graph that changed. Rows without numbers become wrong: what the recomputation gives is not known."""
    from jupyter_inplace.explain.backward.damage import culprits

    for owner, region in found:
        nodes = nodes_of(damage.graph, region, owner)
        changed = changed_reads(region) if nodes else []
        if not changed:
            continue
        tasks = list(dict.fromkeys(task for node in nodes for task in damage.passages.tasks(node)))
        behind = {leaf for node in nodes for leaf in damage.passages.behind(node)}
        own = {
            damage.names.of(s.tensor) or damage.names.on_storage(s.tensor)
            for s in region.reads
            if s.tensor.requires_grad and s.tensor.is_leaf
        }
        reentrant = owner in damage.graph.position
        rows = {(row.task, row.leaf): row for row in facts.gradients}
        for task in tasks:
            for leaf in sorted(behind | ({name for name in own if name} if reentrant else set())):
                row = rows.get((task, leaf))
                if row is None:
                    row = GradientFact(task, leaf)
                    facts.gradients.append(row)
                if row.norm_reference is None and row.status == "ok":
                    row.status, row.norm_as_run = "wrong", None
        hit = [row for row in facts.gradients if row.task in tasks and row.status in ("wrong", "lost")]
        if not hit:
            continue
        for saved in changed:
            facts.conflicts.append(
                ConflictFact(
                    verdict="corrupts",
                    writes=culprits(session, saved),
                    node=str(nodes[0].name()).rpartition("::")[2],
                    saved_as="recomputed input",
                    tensor=damage.names.of(saved.tensor) or damage.names.on_storage(saved.tensor) or "",
                    saved_version=None,
                    found_version=saved.tensor._version,
                    saved_site=region.site or saved.site,
                    saved_order=saved.order,
                    module=None,
                    value_changed=True,
                    tasks=[t for t in tasks if any(row.task == t for row in hit)],
                    leaves=sorted({row.leaf for row in hit}),
                )
            )
