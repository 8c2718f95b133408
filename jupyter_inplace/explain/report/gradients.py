"""The gradient table: the rows of all backward calls folded to one per task and leaf, and the cosines between tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from jupyter_inplace.explain.backward.facts import BackwardFacts, GradientFact, TaskLeaf
from jupyter_inplace.explain.errors.refused import Refusal
from jupyter_inplace.explain.graph import numbers
from jupyter_inplace.report.data import Gradient, GradientStatus, TaskCosine, VersionNorm
from jupyter_inplace.report.order import GRADIENT_STATUSES

#: Of several occurrences the worst is shown. A wrong and a lost gradient weigh the same: the larger difference decides.
_SEVERITY = {"raises": 3, "wrong": 2, "lost": 2, "unknown": 1, "ok": 0}
_MAX_COSINES = 4000


class GradientTable:
    """Folds the rows of a window. If a task ran several times, its row shows the worst occurrence."""

    def __init__(self, facts: Sequence[BackwardFacts]) -> None:
        best: dict[TaskLeaf, tuple[GradientFact, int]] = {}  # each with the number of its occurrence
        badness: dict[TaskLeaf, tuple[int, int, float]] = {}
        seen: dict[str, int] = {}  # by task, the number of the current occurrence
        self._reference: dict[TaskLeaf, torch.Tensor] = {}
        self._as_run: dict[TaskLeaf, torch.Tensor | None] = {}
        for fact in facts:
            for task in fact.tasks:
                seen[task] = seen.get(task, -1) + 1
            harm: dict[str, int] = {}  # by task, the severity of its worst row
            for row in fact.gradients:
                harm[row.task] = max(harm.get(row.task, 0), _SEVERITY.get(row.status, 0))
            for row in fact.gradients:
                key = (row.task, row.leaf)
                bad = _badness(row, harm[row.task])
                if key not in best or bad > badness[key]:
                    best[key], badness[key] = (row, seen.get(row.task, 0)), bad
                    reference = fact.reference.get(key)
                    if reference is not None:
                        self._reference[key] = reference
                    self._as_run[key] = None if row.status == "raises" else fact.as_run.get(key, reference)
        folded = {task for task, last in seen.items() if last > 0}
        self.rows: tuple[Gradient, ...] = tuple(
            _gradient(row, occurrence if row.task in folded else None) for row, occurrence in best.values()
        )

    def status(self, task: str) -> str:
        """The worst status of a task's rows."""
        return min((row.status for row in self.rows if row.task == task), key=GRADIENT_STATUSES.index, default="ok")

    def refused(self, refusal: Refusal) -> None:
        """Add rows for the tasks that a refused write prevents: they raise for the leaves behind the tensor."""
        keep = [row for row in self.rows if row.task not in refusal.tasks or row.leaf not in refusal.leaves]
        new = [Gradient(task=task, leaf=leaf, status="raises") for task in refusal.tasks for leaf in refusal.leaves]
        self.rows = (*keep, *new)

    def cosines(self) -> tuple[TaskCosine, ...]:
        """For each leaf that several tasks share, the cosine between their gradients, as run and of the references."""
        leaves: dict[str, list[str]] = {}
        for task, leaf in self._reference:
            leaves.setdefault(leaf, []).append(task)
        out: list[TaskCosine] = []
        for leaf, tasks in leaves.items():
            for i, first in enumerate(tasks):
                for second in tasks[i + 1 :]:
                    if len(out) >= _MAX_COSINES:
                        return tuple(out)
                    a, b = (first, leaf), (second, leaf)
                    run_a, run_b = self._as_run.get(a), self._as_run.get(b)
                    as_run = numbers.cosine(run_a, run_b) if run_a is not None and run_b is not None else None
                    out.append(
                        TaskCosine(
                            leaf=leaf,
                            tasks=(first, second),
                            as_run=as_run,
                            reference=numbers.cosine(self._reference[a], self._reference[b]),
                        )
                    )
        return tuple(out)


def _gradient(row: GradientFact, occurrence: int | None) -> Gradient:
    return Gradient(
        task=row.task,
        leaf=row.leaf,
        status=cast("GradientStatus", row.status),
        norm_as_run=row.norm_as_run,
        norm_reference=row.norm_reference,
        relative_difference=row.relative_difference,
        cosine=row.cosine,
        occurrence=occurrence,
        by_version=tuple(VersionNorm(version=v, norm=n) for v, n in row.by_version),
    )


def _badness(row: GradientFact, task: int) -> tuple[int, int, float]:
    severity = _SEVERITY.get(row.status, 0)
    # Correct rows differ only by rounding, and which iterations were analysed is arbitrary: show the one in which the task was
    # harmed elsewhere, else the first.
    return (severity, task, (row.relative_difference or 0.0) if severity else 0.0)
