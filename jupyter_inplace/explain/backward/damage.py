"""The damage that one backward call meets: overwritten saved tensors, the rows they make wrong, the intended gradients.

Computed right before the engine runs, while the graph is whole, and only if a saved tensor on a written storage is still
alive, or `--gradients` asks for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jupyter_inplace.explain.backward.conflicts import ConflictFinder, leave_open
from jupyter_inplace.explain.backward.facts import BackwardFacts
from jupyter_inplace.explain.backward.task_gradients import TaskGradients
from jupyter_inplace.explain.backward.task_graph import TaskGraph
from jupyter_inplace.explain.channels import checkpoints, untracked_writes
from jupyter_inplace.explain.channels.integers import lost_tasks
from jupyter_inplace.explain.graph.graph import Edge, Node
from jupyter_inplace.explain.graph.reading import BothReadings, CannotPullError
from jupyter_inplace.record.channels.checkpoints import CheckpointRegion
from jupyter_inplace.record.channels.integers import IntegerWrite
from jupyter_inplace.record.saved.saved import Saved


@dataclasses.dataclass(frozen=True)
class Suspects:
    """What may have done damage, found before any gradient is computed.

    :param touched: saved tensors whose storage was written.
    :param untracked: the graph with the writes that autograd did not record; None if there are none.
    :param integers: saved integer tensors, each with the writes that came before it was saved.
    :param regions: checkpointed functions that read something that has been written since.
    :param groups: for each edge of a mixed leaf, the version of the leaf that each sender of a gradient read.
    """

    touched: Sequence[Saved]
    untracked: untracked_writes.MeantGraph | None
    integers: Mapping[Saved, list[IntegerWrite]]
    regions: Sequence[tuple[Any, CheckpointRegion]]
    groups: Mapping[Edge, Mapping[Node, int]]


class Damage:
    """Finds the damage of one backward call and puts it into `facts`."""

    def __init__(self, tasks: TaskGraph, suspects: Suspects, facts: BackwardFacts) -> None:
        self._tasks, self._suspects, self._facts = tasks, suspects, facts
        self._reading = BothReadings(tasks.session.custom_functions.kept)
        self._reading.again = checkpoints.reads_again(tasks.graph, suspects.regions)
        self._gradients = TaskGradients(tasks, self._reading)
        self._finder = ConflictFinder(tasks, self._reading.reader)

    def run(self) -> None:
        """Walk the graph, judge what was overwritten, and fill the rows of the tasks."""
        if self._tasks.graph.recomputes:
            self._facts.note("a checkpointed region was recomputed once more for the gradients, its writes undone")
        refusals = self._gradients.pull(self._suspects.groups, self._facts)
        touched = [saved for saved in self._suspects.touched if saved in self._reading.reader]
        changed = {saved: self._reading.is_changed(saved) for saved in touched if saved.clone is not None}
        raising = self._raising(touched, changed, refusals)
        untracked = self._suspects.untracked
        if untracked is not None:
            self._gradients.pull_recorded(untracked.graph, untracked.repair, untracked.passages, self._facts)
        self._fill_rows(raising)
        self._add_conflicts(touched, changed, raising)
        if untracked is not None:
            untracked_writes.mark(untracked, self._gradients, self._facts)
        if self._reading.again:
            checkpoints.mark(self._tasks, self._suspects.regions, self._facts)
        self._facts.add_saves(self._finder.saves(set(touched)))
        self._keep_gradients()

    def _raising(
        self, touched: list[Saved], changed: dict[Saved, bool | None], refusals: dict[str, CannotPullError]
    ) -> list[Saved]:
        """The saved tensors at which the backward will raise. If none is changed silently, the run is the reference."""
        raising = [saved for saved in touched if saved.overwritten]
        silent = [saved for saved in touched if not saved.overwritten and changed.get(saved)]
        if not silent and not self._reading.again:
            self._gradients.as_run.clear()
            return raising
        for task, reason in refusals.items():
            self._facts.note(f"gradients of {task} as run are missing: {reason}")
        refusing = {reason.node for reason in refusals.values()}
        return raising + [saved for saved in silent if self._reading.reader[saved] in refusing]

    def _fill_rows(self, raising: list[Saved]) -> None:
        broken = self._finder.broken_by(raising)
        self._gradients.measure()
        for task, leaf in self._gradients.keys:
            self._facts.add_row(self._gradients.row((task, leaf), raises=leaf in broken.get(task, ())))
        if self._suspects.integers:
            lost_tasks(self._tasks, self._reading.reader, self._suspects.integers, self._facts)

    def _add_conflicts(self, touched: list[Saved], changed: dict[Saved, bool | None], raising: list[Saved]) -> None:
        corrupted = self._gradients.corrupted()
        rows = self._facts.gradients
        for saved in touched:
            if saved in raising:
                self._facts.add_conflict(self._finder.breaking(saved, changed.get(saved), rows))
            elif (found := self._finder.corrupting(saved, changed.get(saved), rows, corrupted)) is not None:
                self._facts.add_conflict(found)
            else:
                known = changed.get(saved)
                # Where it cannot be told whether it changed, the gradients as run say nothing either.
                missing = None if known is None else self._gradients.missing
                leave_open(self._finder.open_question(saved, known, missing), self._facts)

    def _keep_gradients(self) -> None:
        for key in self._gradients.keys:
            reference = None if key in self._facts.reference else self._gradients.reference(key)
            self._facts.keep(key, reference=reference)  # channels/integers may have put a counterfactual one there
        for key, gradient in self._gradients.as_run.items():
            self._facts.keep(key, as_run=gradient)
