"""Failures of which the watch saw only one end: a tensor saved before the watch, or written outside it.

Tensors saved before the watch do not carry our hooks; torch itself checks them.

When such a backward raises, the graph is still whole from the node that raised onward, so the node can be found: reading
a saved tensor whose version moved raises the same error again.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from jupyter_inplace.explain.backward.facts import BackwardFacts, ConflictFact, GradientFact
from jupyter_inplace.explain.graph.graph import Graph, Node, held_in, is_leaf_node, saved_slots, short_name
from jupyter_inplace.explain.names.names import Names
from jupyter_inplace.record.base.geometry import shape_of
from jupyter_inplace.record.base.memory import storages_of
from jupyter_inplace.record.saved.saved import Saved
from jupyter_inplace.record.session import Session


@dataclasses.dataclass
class _Hurt:
    """A saved tensor that fails torch's own version check; `saved` if a watch saw it being saved."""

    node: Node
    slot: str
    tensor: torch.Tensor
    saved: Saved | None


def overwritten(graph: Graph) -> list[_Hurt]:
    """The saved tensors of `graph` that would fail torch's own version check."""
    found: list[_Hurt] = []
    for node in graph.nodes:
        for name, slot in saved_slots(node):
            held = held_in(slot)
            if isinstance(held, Saved):
                if held.overwritten:
                    found.append(_Hurt(node, name, held.tensor, held))
                continue
            if not isinstance(held, torch.Tensor) or getattr(slot, "unpack_hook", None) is not None:
                continue
            attribute = name.partition("[")[0]
            try:
                getattr(node, f"_saved_{attribute}" if attribute != "tensors" else "saved_tensors")
            except RuntimeError as error:
                if "modified by an inplace operation" in str(error):
                    found.append(_Hurt(node, name, held, None))
    return found


def add_conflicts(session: Session, graph: Graph, names: Names, facts: BackwardFacts) -> None:
    """Add the conflicts of a backward that failed on a tensor that was saved or written outside the watch."""
    leaf_names = {}
    for i in graph.leaves:
        leaf_names[graph.nodes[i]] = names.of_memory(graph.nodes[i].variable) or "?"
    hit: set[str] = set()
    for hurt in overwritten(graph):
        behind = sorted({name for leaf, name in leaf_names.items() if _leads(graph, hurt.node, leaf)})
        hit.update(behind)
        saved, tensor = hurt.saved, hurt.tensor
        facts.add_conflict(
            ConflictFact(
                verdict="breaks",
                writes=_writes_to(session, tensor) or [(_unseen(session, tensor), None)],
                node=short_name(hurt.node),
                saved_as=hurt.slot,
                tensor=names.on_storage(tensor) or "",
                saved_version=None if saved is None else saved.version,
                found_version=tensor._version,
                saved_site=None if saved is None else saved.site,
                saved_order=0 if saved is None else saved.order,
                module=None,
                value_changed=None,
                tasks=list(facts.tasks),
                leaves=behind,
                before_watch=saved is None,
            )
        )
    for task in facts.tasks:
        for name in leaf_names.values():
            if facts.row(task, name) is None:
                facts.add_row(GradientFact(task, name, "raises" if name in hit else "ok"))


def _writes_to(session: Session, tensor: torch.Tensor) -> list[tuple[Any, int | None]]:
    keys = storages_of(tensor)
    writes: list[tuple[Any, int | None]] = [
        (row, None) for key in keys for row in session.table.by_storage.get(key, ())
    ]
    stepped = (row for row in session.table.rows if row.optimizer is not None)
    return writes + [(row, None) for row in stepped if _steps(row.optimizer(), tensor)]


def _unseen(session: Session, tensor: torch.Tensor) -> Any:
    """A row for a write outside the watch: in another cell, before the watch, or on another thread."""
    storage = next(iter(storages_of(tensor)), 0)
    row = session.table.row("external", None, None, 0, storage, session.seconds(), session.order)
    if not row.count:
        row.shape, row.dtype, row.device = (
            shape_of(tensor),
            str(tensor.dtype).removeprefix("torch."),
            str(tensor.device),
        )
        row.version_after = tensor._version
    row.count += 1
    return row


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
