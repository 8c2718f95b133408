"""Saved tensors that were overwritten: by which writes, at which node, and for which tasks and leaves it matters."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from jupyter_inplace.explain.backward.facts import BackwardFacts, ConflictFact, GradientFact, SaveFact, TaskLeaf
from jupyter_inplace.explain.backward.task_graph import TaskGraph
from jupyter_inplace.explain.graph import numbers
from jupyter_inplace.explain.graph.graph import Graph, Node, held_in, saved_slots, short_name
from jupyter_inplace.explain.names.names import Names
from jupyter_inplace.record.base.geometry import shared_bytes, view_of
from jupyter_inplace.record.base.memory import is_gone
from jupyter_inplace.record.saved.saved import Saved
from jupyter_inplace.record.session import Session

_MAX_SAVES = 2000


class ConflictFinder:
    """Joins the overwritten saved tensors of one backward call to writes, nodes, tasks and leaves.

    :param reader: the node that reads each saved tensor.
    """

    def __init__(self, tasks: TaskGraph, reader: Mapping[Saved, Node]) -> None:
        self._session, self._names, self._passages = tasks.session, tasks.names, tasks.passages
        self._reader = reader

    def broken_by(self, raising: Iterable[Saved]) -> dict[str, set[str]]:
        """For each task, the leaves whose path passes a node that would raise."""
        out: dict[str, set[str]] = {}
        for node in dict.fromkeys(self._reader[saved] for saved in raising):
            for task in self._passages.tasks(node):
                out.setdefault(task, set()).update(self._passages.behind(node))
        return out

    def breaking(self, saved: Saved, changed: bool | None, rows: Iterable[GradientFact]) -> ConflictFact:
        """The conflict of a saved tensor that torch refuses to read."""
        node = self._reader[saved]
        tasks, behind = self._passages.tasks(node), self._passages.behind(node)
        leaves = sorted({row.leaf for row in rows if row.task in tasks and row.leaf in behind})
        return self._conflict(saved, "breaks", changed, tasks, leaves)

    def corrupting(
        self, saved: Saved, changed: bool | None, rows: Iterable[GradientFact], corrupted: Collection[TaskLeaf]
    ) -> ConflictFact | None:
        """The conflict of a saved tensor that torch reads as it is now; None if that changes no gradient.

        :param corrupted: the gradients of the run that differ from those of the values that the forward used.
        """
        node = self._reader[saved]
        tasks, behind = self._passages.tasks(node), self._passages.behind(node)
        hit = [r for r in rows if r.task in tasks and r.leaf in behind and (r.task, r.leaf) in corrupted]
        if not changed or not hit:
            return None
        tasks = [t for t in tasks if any(r.task == t for r in hit)]
        return self._conflict(saved, "corrupts", changed, tasks, sorted({r.leaf for r in hit}))

    def open_question(
        self, saved: Saved, changed: bool | None, tasks: Collection[str] | None = None
    ) -> ConflictFact | None:
        """The conflict of a saved tensor that torch reads as it is now, where nobody can tell what that does to some gradient.

        :param changed: whether it holds other values, None where that cannot be told either.
        :param tasks: those of which there are no gradients; None for all.
        :return: None where the question is not open: the values are the same, or every gradient is known.
        """
        if saved.clone is None and not saved.uncopied:
            return None
        node = self._reader[saved]
        passing = self._passages.tasks(node)
        left = passing if tasks is None or saved.uncopied else [task for task in passing if task in tasks]
        if (changed is False and not saved.uncopied) or not left:
            return None
        return self._conflict(saved, "unknown", changed, left, sorted(self._passages.behind(node)))

    def _conflict(
        self, saved: Saved, verdict: str, changed: bool | None, tasks: list[str], leaves: list[str]
    ) -> ConflictFact:
        name, slot = node_and_slot(self._reader[saved], saved)
        return ConflictFact(
            verdict=verdict,
            writes=culprits(self._session, saved),
            node=name,
            saved_as=slot,
            tensor=self._tensor_name(saved),
            saved_version=saved.version,
            found_version=saved.tensor._version,
            saved_site=saved.site,
            saved_order=saved.order,
            module=module_name(saved.module, self._names),
            value_changed=bool(changed) if saved.clone is not None else False,
            tasks=tasks,
            leaves=leaves,
        )

    def _tensor_name(self, saved: Saved) -> str:
        return (
            (self._names.of(saved.tensor) if saved.made_by is None else None)
            or self._names.on_storage(saved.tensor)
            or ""
        )

    def saves(self, touched: Collection[Saved]) -> Iterator[SaveFact]:
        """The saved tensors of the call for the timeline, those that were written to first."""
        for saved in sorted(self._reader, key=lambda s: (s not in touched, s.order))[:_MAX_SAVES]:
            name = self._tensor_name(saved)
            if name or saved in touched:
                yield SaveFact(saved.order, name, saved.version, saved.site)


def without_numbers(tasks: TaskGraph, touched: Iterable[Saved], facts: BackwardFacts) -> None:
    """The conflicts alone, for when no gradient may be computed: found by what the nodes hold."""
    reader = readers_of(tasks.graph)
    finder = ConflictFinder(tasks, reader)
    raising = [saved for saved in touched if saved in reader and saved.overwritten]
    broken = finder.broken_by(raising)
    for task, part in tasks.parts:
        for leaf in tasks.passages.reached(part.edge[0]).values():
            facts.add_row(GradientFact(task, leaf, "raises" if leaf in broken.get(task, ()) else "ok"))
    for saved in raising:
        changed = numbers.same_values(saved.value, saved.tensor) is False if saved.clone is not None else False
        facts.add_conflict(finder.breaking(saved, changed, facts.gradients))
    for saved in touched:
        if saved in reader and saved not in raising:
            same = (
                None if saved.clone is None or is_gone(saved.tensor) else numbers.same_values(saved.clone, saved.tensor)
            )
            leave_open(finder.open_question(saved, None if same is None else not same), facts)


def leave_open(conflict: ConflictFact | None, facts: BackwardFacts) -> None:
    """Add a question that stays open, if there is one, with the rows of which it makes nobody know."""
    if conflict is None:
        return
    facts.add_conflict(conflict)
    for task in conflict.tasks:
        for leaf in conflict.leaves:
            row = facts.row(task, leaf) or GradientFact(task, leaf)
            if row.status == "ok":
                facts.put_row(
                    dataclasses.replace(
                        row, status="unknown", norm_reference=None, relative_difference=None, cosine=None
                    )
                )
    facts.leave_open("what an overwritten saved tensor does to the gradients was not worked out")


def readers_of(graph: Graph) -> dict[Saved, Node]:
    """The node that holds each saved tensor, asked of the nodes themselves."""
    found: dict[Saved, Node] = {}
    for node in graph.nodes:
        for _, slot in saved_slots(node):
            held = held_in(slot)
            if isinstance(held, Saved):
                found.setdefault(held, node)
    return found


def module_name(ref: Any, names: Names) -> str | None:
    """The path of a module that is held by a weak reference; the name of its type if nothing in view holds it."""
    module = ref() if ref is not None else None
    if module is None:
        return None
    return names.module(module) or type(module).__name__


def culprits(session: Session, saved: Saved) -> list[tuple[Any, int | None]]:
    """The rows that have written to the memory of `saved` since it was saved, with the bytes they share.

    If no write overlaps it (another part of the same storage was written), only the version counter moved: then the
    rows that moved it, with 0 bytes.
    """
    bucket = session.index.bucket_of(saved)
    view = saved.view or view_of(saved.tensor)
    later = [hit for hit in (bucket.hits if bucket is not None else ()) if hit.last > saved.order]
    if saved.never_read:
        later = [hit for hit in later if not hit.write.hidden]
    found: dict[Any, int | None] = {}
    for hit in later:
        if view is not None and hit.view is not None:
            common: int | None = shared_bytes(view, hit.view)
        else:
            lo, hi = view.byte_range if view is not None else (0, 0)
            common = max(0, min(hi, hit.hi) - max(lo, hit.lo)) if view is not None else None
        if common is None or common > 0:
            found[hit.write] = max(common or 0, found.get(hit.write) or 0) if common is not None else None
    if not found and saved.overwritten:
        found = dict.fromkeys((hit.write for hit in later if hit.write.version_before != hit.write.version_after), 0)
    return list(found.items())


def node_and_slot(node: Node, saved: Saved) -> tuple[str, str]:
    """The name of the node that reads `saved`, and the name of the slot that it is saved in."""
    for slot, held in saved_slots(node):
        if held_in(held) is saved:
            return short_name(node), slot
    if type(node).__name__ == "CopySlices" and saved.op is not None:
        # The node inside a CopySlices cannot be inspected; the dispatched operation names it.
        operator = str(saved.op._schema.name).partition("::")[2].strip("_")
        camel = "".join(word[:1].upper() + word[1:] for word in operator.split("_"))
        return f"{camel}Backward0", "result" if saved.made_by is not None else "self"
    return short_name(node), "result" if saved.made_by is not None else "self"
