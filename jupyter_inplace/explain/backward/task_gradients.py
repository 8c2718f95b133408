"""The gradients of each task of a backward call at each leaf: reference, as run, and with every write recorded.

One walk per task gives the reference, and the as-run gradient if some value changed; another walks the repaired graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from jupyter_inplace.explain.backward.conflicts import readers_of
from jupyter_inplace.explain.backward.facts import BackwardFacts, GradientFact, TaskLeaf
from jupyter_inplace.explain.backward.task_graph import TaskGraph
from jupyter_inplace.explain.graph import numbers
from jupyter_inplace.explain.graph.graph import Edge, Graph, Node
from jupyter_inplace.explain.graph.passages import Passages
from jupyter_inplace.explain.graph.pull import is_of_distributed, pull, pull_both
from jupyter_inplace.explain.graph.reading import BothReadings, CannotPullError, ReferenceReading
from jupyter_inplace.explain.graph.repair import Repair

Table = dict[TaskLeaf, torch.Tensor | None]


class TaskGradients:
    """The gradients of the tasks of one backward call.

    :param reading: supplies the values of the saved tensors, and remembers which node read which.
    """

    def __init__(self, tasks: TaskGraph, reading: BothReadings) -> None:
        self._graph, self._parts, self._passages = tasks.graph, tasks.parts, tasks.passages
        self._reading = reading
        #: With saved tensors as they are now; empty if that gives the reference.
        self.as_run: Table = {}
        # With saved tensors as the forward wrote them, and with every write recorded as well.
        self._untouched: Table = {}
        self._recorded: Table = {}
        #: The tasks whose gradients could not be computed, and those for which the ones with every write recorded could not.
        self.missing: set[str] = set()
        self.unrepaired: set[str] = set()
        self._repaired = False
        self._by_version: dict[TaskLeaf, list[tuple[int, float]]] = {}
        self._scale: dict[str, float] = {}  # by leaf, the norm of the largest gradient of a task
        self._compared: dict[tuple[int, int], tuple[Any, ...]] = {}
        self._norms: dict[int, float] = {}

    @property
    def keys(self) -> dict[TaskLeaf, None]:
        """Each task and leaf that has a gradient."""
        return dict.fromkeys((*self._untouched, *self._recorded))

    # --- walks --------------------------------------------------------------------------------------------------------------

    def pull(self, groups: Mapping[Edge, Mapping[Node, int]], facts: BackwardFacts) -> dict[str, CannotPullError]:
        """Compute the gradients with saved tensors as the forward wrote them, and as run.

        :param groups: for each edge of a mixed leaf, the version of the leaf that each sender of a gradient read.
        :return: the tasks whose run raises, each with the error.
        """
        python = [node for i in self._graph.python_nodes if not is_of_distributed(node := self._graph.nodes[i])]
        refusals: dict[str, CannotPullError] = {}
        for task, part in self._parts:
            reached = self._passages.reached(part.edge[0])
            found: dict[Any, Any] = {}
            as_run: dict[Any, Any] | CannotPullError | None = None
            try:
                found, as_run = pull_both(
                    self._graph, [(part.edge, part.grad)], reached, self._reading, groups, self._passages.useful
                )
            except CannotPullError as reason:
                self.missing.add(task)
                facts.note(f"gradients of {task} are missing: {reason}")
                for saved, node in readers_of(self._graph).items():
                    self._reading.reader.setdefault(saved, node)
            if isinstance(as_run, CannotPullError):
                # It ran with the values of the forward: the engine will meet the same error.
                refusals[task] = as_run
            for key in reached.values():
                _add(self._untouched, (task, key), found.get(key))
                if isinstance(as_run, dict):
                    _add(self.as_run, (task, key), as_run[key])
            for key, value in found.items():
                if isinstance(key, tuple) and len(key) == 2 and isinstance(key[1], int):
                    self._by_version.setdefault((task, key[0]), []).append((key[1], numbers.norm(value) or 0.0))
        if python and self._parts:
            names = sorted({type(node).__name__.removesuffix("Backward") for node in python})
            facts.note(
                f"the backward of {', '.join(names)} was run once more for the reference gradients, its writes undone"
            )
        return refusals

    def pull_recorded(self, meant: Graph, repair: Repair, passages: Passages, facts: BackwardFacts) -> None:
        """Compute the gradients of the graph in which every write is recorded.

        :param meant: that graph, made by `repair`, with passages of its own.
        """
        self._repaired = True
        reading = ReferenceReading(self._reading.kept)
        reading.again = self._reading.again
        for task, part in self._parts:
            if task in self.missing:
                continue
            start = repair.start(part.edge)
            reached = passages.reached(start[0])
            try:
                found = pull(meant, [(start, part.grad)], reached, reading, useful=passages.useful)
            except CannotPullError as reason:
                self.unrepaired.add(task)
                facts.note(f"gradients of {task} with every write recorded are missing: {reason}")
                continue
            for key in reached.values():
                _add(self._recorded, (task, key), found.get(key))

    # --- results -------------------------------------------------------------------------------------------------------------

    def measure(self) -> None:
        """Note how large the gradients are at each leaf. Call when all walks are over."""
        self._scale.update(dict.fromkeys((leaf for _, leaf in self.keys), 0.0))
        for (_, leaf), g in self._untouched.items():
            self._scale[leaf] = max(self._scale[leaf], self._norm(g))

    def reference(self, key: TaskLeaf) -> torch.Tensor | None:
        """What the gradient should be: with every write recorded, unless the run differs from the unrepaired reference only."""
        if not self._is_recorded(key):
            return self._untouched.get(key)
        if (
            key in self.as_run
            and self._differ(self.as_run, self._untouched, key)
            and not self._differ(self.as_run, self._recorded, key)
        ):
            return self._untouched.get(key)
        return self._recorded.get(key)

    def _is_recorded(self, key: TaskLeaf) -> bool:
        return self._repaired and key[0] not in self.unrepaired and key[0] not in self.missing

    def _differ(self, a: Table, b: Table, key: TaskLeaf) -> bool:
        """Whether the gradients of a task at a leaf differ between two tables, beyond rounding."""
        x, y = a.get(key), b.get(key)
        return x is not y and self._compare(x, y, key[1])[0] != "ok"

    def corrupted(self) -> set[TaskLeaf]:
        """Where the as-run gradient differs from that of the values that the forward used."""
        return {key for key in self.keys if key in self.as_run and self._differ(self.as_run, self._untouched, key)}

    def changed_by_recording(self, key: TaskLeaf) -> bool:
        """Whether the gradient differs once every write is recorded."""
        return self._differ(self._untouched, self._recorded, key)

    def row(self, key: TaskLeaf, *, raises: bool) -> GradientFact:
        """The row of a task and a leaf."""
        task, leaf = key
        known = task not in self.missing
        gradient = self.reference(key)
        norm = self._norm(gradient) if known else None
        by_version = self._by_version.get(key, [])
        versions = sorted(by_version) if len(by_version) > 1 else []
        if raises:
            return GradientFact(task, leaf, "raises", norm_reference=norm, by_version=versions)
        if not known:
            return GradientFact(task, leaf, by_version=versions)
        actual = self.as_run[key] if key in self.as_run else self._untouched.get(key)
        status, relative, cosine = self._compare(actual, gradient, leaf)
        return GradientFact(task, leaf, status, self._norm(actual), norm, relative, cosine, versions)

    def _compare(self, x: torch.Tensor | None, y: torch.Tensor | None, leaf: str) -> tuple[Any, ...]:
        """`numbers.compare`, computed once for each pair of gradients. The tables keep them alive, so their ids identify them."""
        key = (id(x), id(y))
        if key not in self._compared:
            self._compared[key] = numbers.compare(x, y, self._scale.get(leaf, 0.0))
        return self._compared[key]

    def _norm(self, g: torch.Tensor | None) -> float:
        if id(g) not in self._norms:
            self._norms[id(g)] = numbers.norm(g) or 0.0
        return self._norms[id(g)]


def _add(table: Table, key: TaskLeaf, value: torch.Tensor | None) -> None:
    old = table.get(key)
    table[key] = value if old is None else (old if value is None else old + value)
