"""Writes on a gradient path that autograd did not record: the intended gradient, and the rows that differ from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from jupyter_inplace.explain.backward.facts import BackwardFacts, CutFact, GradientFact
from jupyter_inplace.explain.backward.task_gradients import TaskGradients
from jupyter_inplace.explain.graph.graph import Edge, Graph, Node
from jupyter_inplace.explain.graph.passages import Passages
from jupyter_inplace.explain.graph.repair import Repair, WriteNode
from jupyter_inplace.explain.graph.split import RootPart
from jupyter_inplace.record.session import Session


@dataclasses.dataclass(frozen=True)
class MeantGraph:
    """The graph of a backward call with every write recorded, and which tasks pass through which of its nodes."""

    graph: Graph
    repair: Repair
    passages: Passages


def find(
    session: Session, graph: Graph, roots: list[Node], parts: Sequence[tuple[str, RootPart]], now: int
) -> tuple[Graph, Repair] | None:
    """The intended graph of a call; None if every write that it reads was recorded.

    :param now: the sequence number that the next node would get.
    """
    if not session.untracked_writes.cuts:
        return None
    repair = Repair(graph, session.untracked_writes.cuts, [*roots, *(part.edge[0] for _, part in parts)], now)
    if not repair.needed:
        return None
    return repair.graph([*roots, *(repair.start(part.edge)[0] for _, part in parts)]), repair


def meant_graph(
    found: tuple[Graph, Repair] | None, parts: Sequence[tuple[str, RootPart]], targets: Mapping[Edge, str]
) -> MeantGraph | None:
    """The result of `find` with passages, once it is known what the call computes gradients of."""
    if found is None:
        return None
    graph, repair = found
    starts = [(task, repair.start(part.edge)[0]) for task, part in parts]
    return MeantGraph(graph, repair, Passages(graph, starts, targets))


def mark(meant: MeantGraph, gradients: TaskGradients, facts: BackwardFacts) -> None:
    """Add the writes that the gradient of some task misses. Call when the gradients are computed."""
    for write in meant.repair.writes:
        if write.changed or not write.cut.replayable:
            _cut(write, meant.passages, gradients, facts)
        if write.cut.replayable:
            _leave_open(write, meant.passages, facts, gradients.unrepaired | gradients.missing)


def leave_open(meant: MeantGraph, facts: BackwardFacts) -> None:
    """Add the writes that the gradient of some task may not see, where no gradient is to be worked out."""
    for write in meant.repair.writes:
        _leave_open(write, meant.passages, facts, None)


def _leave_open(write: WriteNode, passages: Passages, facts: BackwardFacts, unknown: Collection[str] | None) -> None:
    """A write that autograd did not record, and of which nobody can tell whether it matters to some tasks.

    :param unknown: those without gradients; None for all.
    """
    leaves = sorted(set(passages.reached(write).values()))
    rows = [
        facts.row(task, leaf) or GradientFact(task, leaf)
        for task in passages.tasks(write)
        for leaf in leaves
        if unknown is None or task in unknown
    ]
    rows = [row for row in rows if row.status == "ok"]
    if not rows:
        return
    for row in rows:
        facts.put_row(
            dataclasses.replace(row, status="unknown", norm_reference=None, relative_difference=None, cosine=None)
        )
    tasks = list(dict.fromkeys(row.task for row in rows))
    facts.add_cut(CutFact(write.cut.write, tasks, sorted({row.leaf for row in rows}), verdict="unknown"))
    facts.leave_open("what the gradients would be with a write that autograd did not record was not worked out")


def _cut(write: WriteNode, passages: Passages, gradients: TaskGradients, facts: BackwardFacts) -> None:
    """Mark the rows that an unrecorded write makes wrong: those of the tasks that read it."""
    tasks = passages.tasks(write)
    if not write.cut.replayable:
        leaves = set(passages.reached(write).values())
        for row in list(facts.gradients):
            unknown = row.task in tasks and row.task in gradients.unrepaired and row.leaf in leaves
            if unknown and row.status != "raises":
                facts.put_row(
                    dataclasses.replace(row, status="wrong", norm_reference=None, relative_difference=None, cosine=None)
                )
    rows = [
        row
        for row in facts.gradients
        if row.task in tasks
        and row.status in ("wrong", "lost")
        and (row.task in gradients.unrepaired or gradients.changed_by_recording((row.task, row.leaf)))
    ]
    if rows:
        hit = [task for task in dict.fromkeys(tasks) if any(row.task == task for row in rows)]
        facts.add_cut(CutFact(write.cut.write, hit, sorted({row.leaf for row in rows})))
