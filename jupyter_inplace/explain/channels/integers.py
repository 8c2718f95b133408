"""Tasks whose gradient is zero because an integer tensor (labels, a mask) was written before they saved it.

The gradient is right for the values that the loss used; the bug is the write. The test is a counterfactual: with the values
from before the write, the same graph gives a gradient that is not zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from jupyter_inplace.explain.backward.facts import BackwardFacts, CutFact, GradientFact
from jupyter_inplace.explain.backward.task_graph import TaskGraph
from jupyter_inplace.explain.graph import numbers
from jupyter_inplace.explain.graph.graph import Node
from jupyter_inplace.explain.graph.pull import pull
from jupyter_inplace.explain.graph.reading import CannotPullError, ReferenceReading
from jupyter_inplace.record.base.geometry import View, view_of
from jupyter_inplace.record.base.memory import storages_of
from jupyter_inplace.record.channels.integers import IntegerWrite
from jupyter_inplace.record.saved.saved import Saved
from jupyter_inplace.record.session import Session
from jupyter_inplace.record.write_table import WriteRow


class _Instead(ReferenceReading):
    """Saved tensors as the forward wrote them, with some of them replaced."""

    def __init__(self, instead: dict[Saved, torch.Tensor]) -> None:
        super().__init__()
        self._instead = instead

    def value(self, saved: Saved) -> torch.Tensor:
        return self._instead.get(saved) if saved in self._instead else super().value(saved)  # type: ignore[return-value]


def candidates(session: Session) -> dict[Saved, list[IntegerWrite]]:
    """Live saved integer tensors, each with the writes that came before it was saved, the latest first."""
    found: dict[Saved, list[IntegerWrite]] = {}
    for storage, writes in session.integers.by_storage.items():
        bucket = session.index.bucket(storage)
        for saved in bucket.live() if bucket is not None else ():
            earlier = [kept for kept in writes if kept.order < saved.order]
            if earlier:
                found[saved] = earlier[::-1]
    return found


def lost_tasks(
    tasks: TaskGraph,
    reader: Mapping[Saved, Node],
    found: Mapping[Saved, list[IntegerWrite]],
    facts: BackwardFacts,
) -> None:
    """Mark as lost the rows of tasks that an integer write silenced, with the gradient that they would have had.

    :param reader: the node that reads each saved tensor.
    :param found: the result of `candidates`.
    """
    for task, part in tasks.parts:
        rows = [row for row in facts.gradients if row.task == task]
        if not rows or any(row.norm_reference or row.status != "ok" for row in rows):
            continue
        targets = {edge: key for edge, key in tasks.targets.items() if any(row.leaf == key for row in rows)}
        read = [saved for saved in found if saved in reader and task in tasks.passages.tasks(reader[saved])]
        suspects = [(s, place) for s in read for place in _suspects(found[s], tasks.session)]
        for saved, place in suspects:
            instead = _without(saved, found[saved][: place + 1])
            if instead is None:
                continue
            try:
                gradients = pull(tasks.graph, [(part.edge, part.grad)], targets, _Instead({saved: instead}))
            except CannotPullError:
                continue
            if any(g is not None and bool(g.any()) for g in gradients.values()):
                _lose(task, rows, gradients, found[saved][place].write, facts)
                return


def _lose(
    task: str,
    rows: list[GradientFact],
    gradients: Mapping[str, torch.Tensor | None],
    write: WriteRow,
    facts: BackwardFacts,
) -> None:
    leaves: list[str] = []
    for row in rows:
        gradient = gradients.get(row.leaf)
        status, relative, cosine = numbers.compare(None, gradient)
        facts.put_row(
            GradientFact(task, row.leaf, status, 0.0, numbers.norm(gradient), relative, cosine, row.by_version)
        )
        facts.keep((task, row.leaf), reference=gradient)
        if status != "ok":
            leaves.append(row.leaf)
    facts.add_cut(CutFact(write, [task], sorted(leaves)))


def _suspects(writes: list[IntegerWrite], session: Session) -> list[int]:
    """The indices of the writes, given latest first, that may have silenced a task of the current backward call.

    What was written before the last backward call was for another task: it is tried before the task's own writes.
    """
    return sorted(range(len(writes)), key=lambda place: writes[place].order > session.last_backward)


def _without(saved: Saved, writes: list[IntegerWrite]) -> torch.Tensor | None:
    """What `saved` would hold if the last of `writes` (the earliest, since they come latest first) had not happened."""
    view: View | None = saved.view or view_of(saved.tensor)
    if view is None or any(view.itemsize != kept.view.itemsize for kept in writes) or not storages_of(saved.tensor):
        return None
    size = max(v.byte_range[1] // v.itemsize for v in (view, *(kept.view for kept in writes)))
    memory = torch.zeros(size, dtype=saved.value.dtype, device=saved.value.device)
    memory.as_strided(view.shape, view.stride, view.offset).copy_(saved.value)
    states = [memory]  # backwards in time: as before each of the writes
    for kept in writes:
        memory = memory.clone()
        memory.as_strided(kept.view.shape, kept.view.stride, kept.view.offset).copy_(kept.before)
        states.append(memory)
    for after, before in zip(states[-3::-1], states[-2::-1], strict=False):
        memory = torch.where(after != before, after, memory)  # the later writes happen all the same
    return memory.as_strided(view.shape, view.stride, view.offset)
