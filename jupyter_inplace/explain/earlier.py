"""Graphs made before the watch began: their saved tensors carry no hooks of ours, torch itself checks them.

Where torch refuses such a backward the graph is still whole from the node that refused onward, and the node tells: reading
a saved tensor whose version moved raises the same error once more.
"""

from __future__ import annotations

from typing import Any

import torch

from jupyter_inplace.explain.facts import BackwardFacts, ConflictFact, GradientFact
from jupyter_inplace.explain.graph import Graph, Node, is_leaf_node, saved_slots
from jupyter_inplace.explain.names import Names
from jupyter_inplace.record.geometry import byte_range
from jupyter_inplace.record.saved import Saved, storages_of
from jupyter_inplace.record.session import Session


def overwritten(graph: Graph) -> list[tuple[Node, str, torch.Tensor]]:
    """The saved tensors of `graph` that torch's own check would refuse: (node, saved as, the tensor as it is now)."""
    found: list[tuple[Node, str, torch.Tensor]] = []
    for node in graph.nodes:
        for name, slot in saved_slots(node):
            held = _held(slot)
            if isinstance(held, Saved) or not isinstance(held, torch.Tensor):
                continue
            attribute = name.partition("[")[0]
            try:
                getattr(node, f"_saved_{attribute}" if attribute != "tensors" else "saved_tensors")
            except RuntimeError as error:
                if "modified by an inplace operation" in str(error):
                    found.append((node, name, held))
    return found


def conflicts(session: Session, graph: Graph, names: Names, facts: BackwardFacts) -> list[ConflictFact]:
    """The conflicts of a failed backward with tensors saved before the watch, joined to the writes of this record."""
    hurt = overwritten(graph)
    out: list[ConflictFact] = []
    leaf_names = {}
    for i in graph.leaves:
        leaf = graph.nodes[i].variable
        leaf_names[graph.nodes[i]] = names.of(leaf) or names.on_storage(leaf) or "?"
    hit: set[str] = set()
    for node, slot, tensor in hurt:
        behind = sorted({name for leaf, name in leaf_names.items() if _leads(graph, node, leaf)})
        hit.update(behind)
        keys = set(storages_of(tensor))
        lo, hi = byte_range(tensor)
        writes: list[tuple[Any, int | None]] = [
            (row, None) for key in keys for row in session.table.by_storage.get(key, ())
        ]
        writes += [
            (row, None) for row in session.table.rows if row.optimizer is not None and _steps(row.optimizer(), tensor)
        ]
        out.append(
            ConflictFact(
                verdict="breaks",
                writes=writes,
                node=str(node.name()).rpartition("::")[2],
                saved_as=slot,
                tensor=names.on_storage(tensor) or "",
                saved_version=None,
                found_version=tensor._version,
                saved_site=None,
                saved_order=0,
                module=None,
                value_changed=None,
                tasks=list(facts.tasks),
                leaves=behind,
                before_watch=True,
                size=hi - lo,
            )
        )
    known = {(row.task, row.leaf) for row in facts.gradients}
    for task in facts.tasks:
        for name in leaf_names.values():
            if (task, name) not in known:
                facts.gradients.append(GradientFact(task, name, "raises" if name in hit else "ok"))
    return out


def _steps(optimizer: Any, tensor: torch.Tensor) -> bool:
    keys = set(storages_of(tensor))
    return optimizer is not None and any(
        keys & set(storages_of(p)) for group in optimizer.param_groups for p in group["params"]
    )


def _leads(graph: Graph, start: Node, leaf: Node) -> bool:
    if not is_leaf_node(leaf):
        return False
    bits = graph.bits({graph.position[leaf]: 1})
    return any(child is not None and bits[graph.position[child]] for child, _ in graph.next[graph.position[start]])


def _held(slot: Any) -> Any:
    try:
        return slot.data
    except (RuntimeError, AttributeError):
        return None
