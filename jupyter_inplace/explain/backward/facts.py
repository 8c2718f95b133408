"""Plain data between the analysis of one backward call and the report: names and numbers, hardly any tensor."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from jupyter_inplace.report.data import Effect

TaskLeaf = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class GradientFact:
    """The gradient of one task at one leaf, of one backward call."""

    task: str
    leaf: str
    status: str = "ok"
    norm_as_run: float | None = None
    norm_reference: float | None = None
    relative_difference: float | None = None
    cosine: float | None = None
    by_version: Sequence[tuple[int, float]] = ()


@dataclasses.dataclass(frozen=True)
class ConflictFact:
    """One saved tensor that was written before backward could read it, with the rows of the writes that did so.

    :param writes: the rows (`WriteRow`), each with the bytes that it shares with the saved tensor.
    """

    verdict: str
    writes: list[tuple[Any, int | None]]
    node: str
    saved_as: str
    tensor: str
    saved_version: int | None
    found_version: int | None
    saved_site: Any
    saved_order: int
    module: str | None
    value_changed: bool | None
    tasks: list[str]
    leaves: list[str]
    before_watch: bool = False
    pending: bool = False


@dataclasses.dataclass(frozen=True)
class CutFact:
    """A write on a gradient path that autograd did not record."""

    write: Any
    tasks: list[str]
    leaves: list[str]
    pending: bool = False
    verdict: str = "cuts"
    note: str | None = None
    effects: tuple[Effect, ...] = ()


@dataclasses.dataclass(frozen=True)
class MixFact:
    """A leaf that one accumulated gradient reads at several values."""

    leaf: str
    writes: list[Any]
    tasks: list[str]


@dataclasses.dataclass(frozen=True)
class SaveFact:
    """One saved tensor for the timeline."""

    order: int
    tensor: str
    version: int | None
    site: Any


class BackwardFacts:
    """What was found about one backward call, or about `count` calls of a loop that are all alike.

    Other modules may read it, but change it only through its methods.
    """

    def __init__(self, tasks: Sequence[str], order: int, site: Any, time: float, *, count: int = 1) -> None:
        self.tasks, self.order, self.site, self.time = tasks, order, site, time
        self.count = count
        self.pending = False
        self._gradients: list[GradientFact] = []
        self._places: dict[TaskLeaf, int] = {}  # of the rows in that list
        self._conflicts: list[ConflictFact] = []
        self._mixes: list[MixFact] = []
        self._cuts: list[CutFact] = []
        self._saves: list[SaveFact] = []
        self._reference: dict[TaskLeaf, torch.Tensor] = {}
        self._as_run: dict[TaskLeaf, torch.Tensor] = {}
        self._notes: list[str] = []
        self._unknown_because: list[str] = []
        self._names: dict[int, str] = {}

    # --- read -------------------------------------------------------------------------------------------------------------

    @property
    def gradients(self) -> Sequence[GradientFact]:
        return self._gradients

    @property
    def conflicts(self) -> Sequence[ConflictFact]:
        return self._conflicts

    @property
    def mixes(self) -> Sequence[MixFact]:
        return self._mixes

    @property
    def cuts(self) -> Sequence[CutFact]:
        return self._cuts

    @property
    def saves(self) -> Sequence[SaveFact]:
        """In program order."""
        return self._saves

    @property
    def reference(self) -> Mapping[TaskLeaf, torch.Tensor]:
        return self._reference

    @property
    def as_run(self) -> Mapping[TaskLeaf, torch.Tensor]:
        """The gradients of the run that differ from the reference."""
        return self._as_run

    @property
    def notes(self) -> Sequence[str]:
        return self._notes

    @property
    def unknown_because(self) -> Sequence[str]:
        """What was left open, and may hide harm."""
        return self._unknown_because

    @property
    def names(self) -> Mapping[int, str]:
        """The names of the tensors in view, by storage: for the rows of writes."""
        return self._names

    def row(self, task: str, leaf: str) -> GradientFact | None:
        """The row of a task and a leaf, None if there is none."""
        place = self._places.get((task, leaf))
        return None if place is None else self._gradients[place]

    # --- written by the parts of explain ----------------------------------------------------------------------------------

    def add_row(self, row: GradientFact) -> None:
        """Add a row, even if the same task and leaf have one already: the report shows the worst."""
        self._places.setdefault((row.task, row.leaf), len(self._gradients))
        self._gradients.append(row)

    def put_row(self, row: GradientFact) -> None:
        """Replace the row of the same task and leaf, or append it if there is none."""
        place = self._places.get((row.task, row.leaf))
        if place is None:
            self.add_row(row)
        else:
            self._gradients[place] = row

    def keep(self, key: TaskLeaf, *, reference: torch.Tensor | None = None, as_run: torch.Tensor | None = None) -> None:
        """Keep the gradients of a task at a leaf, those that are given."""
        if reference is not None:
            self._reference[key] = reference
        if as_run is not None:
            self._as_run[key] = as_run

    def drop_reference(self, key: TaskLeaf) -> None:
        """Forget a reference: the intended gradient is not known after all."""
        self._reference.pop(key, None)

    def note(self, text: str) -> None:
        """Add a note to the blind spots of the report."""
        self._notes.append(text)

    def leave_open(self, reason: str) -> None:
        """Something may have harmed a gradient, and nobody can tell: the report says `unknown`, for this reason."""
        self._notes.append(reason)
        self._unknown_because.append(reason)

    def add_conflict(self, conflict: ConflictFact) -> None:
        self._conflicts.append(conflict)

    def add_cut(self, cut: CutFact) -> None:
        self._cuts.append(cut)

    def add_mixes(self, mixes: Iterable[MixFact]) -> None:
        self._mixes.extend(mixes)

    def add_saves(self, saves: Iterable[SaveFact]) -> None:
        self._saves = sorted((*self._saves, *saves), key=lambda save: save.order)

    def add_names(self, names: Mapping[int, str]) -> None:
        self._names.update(names)

    def count_again(self) -> None:
        """Count one more call like the others."""
        self.count += 1

    def set_pending(self) -> None:
        """Mark that no backward has run: these are the facts of one that could."""
        self.pending = True
        self._conflicts = [dataclasses.replace(conflict, pending=True) for conflict in self._conflicts]
        self._cuts = [dataclasses.replace(cut, pending=True) for cut in self._cuts]
