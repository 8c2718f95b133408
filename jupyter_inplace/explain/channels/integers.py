"""Tasks whose gradient is zero because an integer tensor (labels, a mask) was written before they saved it.

Torch is right about the values that the loss used; the bug is the write. The test is a counterfactual: with the values from
before the write in its place the same graph gives a gradient that is not zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from jupyter_inplace.explain.backward.facts import BackwardFacts, CutFact
from jupyter_inplace.explain.graph import numbers
from jupyter_inplace.explain.graph.pull import pull
from jupyter_inplace.explain.graph.reading import CannotPullError, ReferenceReading
from jupyter_inplace.record.base.geometry import View, view_of
from jupyter_inplace.record.base.memory import storages_of
from jupyter_inplace.record.channels.integers import IntegerWrite
from jupyter_inplace.record.saved.saved import Saved
from jupyter_inplace.record.session import Session

if TYPE_CHECKING:
    from jupyter_inplace.explain.backward.damage import Damage


class _Instead(ReferenceReading):
    """Saved tensors as the forward wrote them, but for some."""

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


def lost_tasks(damage: Damage, facts: BackwardFacts, found: dict[Saved, list[IntegerWrite]]) -> None:
    """Mark the rows of tasks that an integer write silenced as lost, with the gradient that they would have had."""
    for task, part in damage.parts:
        rows = [row for row in facts.gradients if row.task == task]
        if not rows or any(row.norm_reference or row.status != "ok" for row in rows):
            continue
        read = [
            saved
            for saved in found
            if saved in damage.reading.reader and task in damage.passages.tasks(damage.reading.reader[saved])
        ]
        for saved in read:
            for place in _suspects(found[saved], damage.session):
                kept = found[saved][place]
                instead = _without(saved, found[saved][: place + 1])
                if instead is None:
                    continue
                targets = {edge: key for edge, key in damage.targets.items() if any(row.leaf == key for row in rows)}
                try:
                    gradients = pull(damage.graph, [(part.edge, part.grad)], targets, _Instead({saved: instead}))
                except CannotPullError:
                    continue
                if not any(g is not None and bool(g.any()) for g in gradients.values()):
                    continue
                for row in rows:
                    row.norm_reference = numbers.norm(gradients.get(row.leaf))
                    row.status, row.relative_difference, row.cosine = numbers.compare(None, gradients.get(row.leaf))
                    row.norm_as_run = 0.0
                    if (gradient := gradients.get(row.leaf)) is not None:
                        facts.reference[task, row.leaf] = gradient
                facts.cuts.append(CutFact(kept.write, [task], sorted(row.leaf for row in rows if row.status != "ok")))
                return


def _suspects(writes: list[IntegerWrite], session: Session) -> list[int]:
    """The places of the writes, given the latest first, that may have silenced a task of the backward call at hand.

    What was written before the last backward call served another task: it is asked before the task's own.
    """
    return sorted(range(len(writes)), key=lambda place: writes[place].order > session.last_backward)


def _without(saved: Saved, writes: list[IntegerWrite]) -> torch.Tensor | None:
    """What `saved` would hold had the last of `writes` (the earliest: they come the latest first) not happened."""
    view: View | None = saved.view or view_of(saved.tensor)
    if view is None or any(view.itemsize != kept.view.itemsize for kept in writes) or not storages_of(saved.tensor):
        return None
    size = max(v.byte_range[1] // v.itemsize for v in (view, *(kept.view for kept in writes)))
    memory = torch.zeros(size, dtype=saved.value.dtype, device=saved.value.device)
    memory.as_strided(view.shape, view.stride, view.offset).copy_(saved.value)
    states = [memory]  # backwards in time: before each of the writes
    for kept in writes:
        memory = memory.clone()
        memory.as_strided(kept.view.shape, kept.view.stride, kept.view.offset).copy_(kept.before)
        states.append(memory)
    for after, before in zip(states[-3::-1], states[-2::-1], strict=False):
        memory = torch.where(after != before, after, memory)  # the later writes happen all the same
    return memory.as_strided(view.shape, view.stride, view.offset)
