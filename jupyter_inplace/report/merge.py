"""Merge several reports: those of the ranks of a job, of watched steps, or of several runs of a program.

Writes at the same place in the source become one row: counts are added, the worst verdict wins, and the numbers shown are the
worst ones. A `Merger` keeps one row for each place, however many reports it is given, so its memory does not grow with the
length of a loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Generic, TypeVar

from jupyter_inplace.report.data import (
    HARMFUL,
    VERDICTS,
    Conflict,
    Error,
    Fix,
    Gradient,
    Mutation,
    RankCount,
    Report,
    Site,
    Task,
    TaskCosine,
    TimelineEvent,
    verdict_of,
    worst,
)
from jupyter_inplace.report.order import badness, opposition, worse_status
from jupyter_inplace.report.scope import all_ranks, numbers, own_note, rank_note, ranks_named, step_note
from jupyter_inplace.report.summary import build_summary

__all__ = ["Merger", "merge"]

R = TypeVar("R", bound=Report)
T = TypeVar("T")

_ROWS = 4000  # of one kind; a program that names its tasks after the step must not fill the memory
_SPOTS = 100
_FIXES = 40


def merge(reports: Iterable[R]) -> R:
    """Merge several reports into one, of the class of the first one.

    :param reports: those of the ranks of one job (distinguished by their `rank`), or of several runs or steps.
    :raises ValueError: there are none, or they come from jobs of different sizes; the text begins with their number.
    """
    given = list(reports)
    if not given:
        raise ValueError("no report; there is nothing to merge.")
    if len(given) == 1:
        return given[0]
    worlds = sorted({r.world for r in given if r.world is not None})
    if len(worlds) > 1:
        sizes = " and ".join(str(w) for w in worlds)
        raise ValueError(f"{len(given)} reports of jobs with {sizes} ranks; name those of one job.")
    merger = Merger[R]()
    for report in given:
        merger.add(report)
    return merger.report()


class Merger(Generic[R]):
    """Merges reports one by one; `report` returns the merged one at any time."""

    def __init__(self) -> None:
        self._first: R | None = None
        self._worst: R | None = None  # its timeline is shown: program orders cannot be merged
        self._worst_ids: dict[int, int] = {}
        self._rows: dict[Any, Mutation] = {}
        self._ids: dict[Any, int] = {}
        self._conflicts: dict[Any, Conflict] = {}
        self._tasks: dict[str, Task] = {}
        self._gradients: dict[tuple[str, str], Gradient] = {}
        self._cosines: dict[Any, TaskCosine] = {}
        self._fixes: dict[str, Fix] = {}
        self._spots: dict[str, set[int | None]] = {}
        self._open: dict[str, set[int | None]] = {}
        self._errors: dict[Error, set[int | None]] = {}
        self._error_verdicts: dict[Error, int] = {}
        self._ranks: set[int | None] = set()
        self._watched = self._steps = 0
        self._full = self._ran = False
        #: The first watched step with a harmful write.
        self.first_harm: int | None = None

    def add(self, report: R, step: int | None = None) -> None:
        """Add one more report.

        :param step: the number of the watched step that it comes from.
        """
        rank = report.rank
        self._ranks.update(report.ranks or (rank,))
        self._ran |= not report.nothing_ran
        if step is not None:
            self._watched += 1
            if self.first_harm is None and report.verdict in HARMFUL:
                self.first_harm = step
        elif report.watched_steps:
            self._watched, self._steps = self._watched + report.watched_steps[0], self._steps + report.watched_steps[1]
        if self._first is None:
            self._first = replace(report, mutations=(), conflicts=(), timeline=(), fixes=(), gradients=())
        ids = self._add_mutations(report, step)
        if self._worst is None or _order(report.verdict) < _order(self._worst.verdict):
            self._worst, self._worst_ids = report, ids
        self._add_conflicts(report, ids)
        self._add_rows(report, step)
        for fix in report.fixes:
            if len(self._fixes) < _FIXES and fix.source not in self._fixes:
                self._fixes[fix.source] = replace(
                    fix, id=len(self._fixes), mutations=tuple(ids[m] for m in fix.mutations if m in ids)
                )
        reasons = report.unknown_because
        if report.verdict == "unknown" and not reasons and all(m.verdict != "unknown" for m in report.mutations):
            reasons = ("a report of the verdict `unknown` names no reason",)
        for found, sentences in ((self._spots, report.blind_spots), (self._open, reasons)):
            for sentence in sentences:
                if sentence in found or len(found) < _SPOTS:
                    found.setdefault(sentence, set()).add(rank)
        if report.error is not None and (report.error in self._errors or len(self._errors) < _SPOTS):
            self._errors.setdefault(report.error, set()).add(rank)
            known = self._error_verdicts.get(report.error, len(VERDICTS))
            self._error_verdicts[report.error] = min(known, _order(report.verdict))

    # --- rows -------------------------------------------------------------------------------------------------------

    def _add_mutations(self, report: Report, step: int | None) -> dict[int, int]:
        """Add the writes; returns, by the `id` of each, its `id` in the merged report."""
        ids: dict[int, int] = {}
        met: set[int] = set()
        for m in report.mutations:
            m = replace(m, note=own_note(m), own_note=None)
            # Within one report, rows of the same place differ by storage. Across processes and steps the storage says nothing.
            # The name of the tensor is the same on all ranks, but may differ from step to step (`losses[17]`).
            name = m.tensor if step is None or m.site is None else None
            key = (m.op, _key(m.site), m.module, m.framework, name)
            found = self._rows.get(key)
            if found is None:
                if len(self._rows) >= _ROWS:
                    self._full = True
                    continue
                self._ids[key] = len(self._ids)
            ids[m.id] = self._ids[key]
            counts = m.ranks or (() if report.rank is None else (RankCount(report.rank, m.count),))
            steps = m.steps if step is None else int(ids[m.id] not in met)
            met.add(ids[m.id])
            if found is None:
                self._rows[key] = replace(m, id=ids[m.id], ranks=counts, steps=steps)
            else:
                self._rows[key] = _both(found, m, counts, steps)
        return ids

    def _add_conflicts(self, report: Report, ids: dict[int, int]) -> None:
        for c in report.conflicts:
            if c.mutation not in ids:
                continue
            c = replace(c, mutation=ids[c.mutation])
            key = (c.mutation, c.node, c.saved_as, _key(c.saved_site), c.module)
            found = self._conflicts.get(key)
            if found is None:
                if len(self._conflicts) < _ROWS:
                    self._conflicts[key] = c
                continue
            base = found if not found.pending or c.pending else c
            self._conflicts[key] = replace(
                base,
                tasks=_union(found.tasks, c.tasks),
                leaves=_union(found.leaves, c.leaves),
                value_changed=found.value_changed or c.value_changed,
            )

    def _add_rows(self, report: Report, step: int | None) -> None:
        for task in report.tasks:
            old = self._tasks.get(task.name)
            if old is None and len(self._tasks) >= _ROWS:
                self._full = True
            elif old is None or worse_status(task.status, old.status) != old.status:
                self._tasks[task.name] = task
        for g in report.gradients:
            row = self._gradients.get((g.task, g.leaf))
            if row is None and len(self._gradients) >= _ROWS:
                self._full = True
            elif row is None or badness(g) > badness(row):
                at = step if step is not None and g.occurrence is None and g.status != "ok" else g.occurrence
                self._gradients[g.task, g.leaf] = replace(g, occurrence=at)
        for cosine in report.task_cosines:
            before = self._cosines.get((cosine.leaf, cosine.tasks))
            if before is None and len(self._cosines) >= _ROWS:
                continue
            if before is None or opposition(cosine) < opposition(before):
                self._cosines[cosine.leaf, cosine.tasks] = cosine

    # --- the merged report --------------------------------------------------------------------------------------------

    @property
    def verdict(self) -> str:
        """The worst verdict so far."""
        return "harmless" if self._worst is None else self._worst.verdict

    def report(self, steps: int | None = None, error_unseen: str | None = None) -> R:
        """The merged report.

        :param steps: how many steps there were, watched or not.
        :param error_unseen: if the error was raised in an unwatched step: a clause that says so.
        """
        first = self._first
        if first is None:
            raise ValueError("no report; there is nothing to merge.")
        counted: tuple[int, ...] = ()
        if steps is not None or self._watched:
            counted = (self._watched, self._steps if steps is None else steps)
        ranks = tuple(sorted(r for r in self._ranks if r is not None))
        several = len(ranks) > 1
        mutations = tuple(self._noted(m, ranks if several else (), counted) for m in self._rows.values())
        error, spots = self._error(several), list(self._blind_spots(several, first.world, ranks))
        conflicts, tasks = tuple(self._conflicts.values()), tuple(self._tasks.values())
        gradients = tuple(self._gradients.values())
        left_open = tuple(self._by_rank(self._open, several))
        summary = build_summary(
            mutations, conflicts, tasks, gradients, cell=first.cell, error=None if error_unseen else error,
            framework_used=self._ran, unknown_because=left_open,
        )  # fmt: skip
        if error_unseen is not None:
            spots.append(error_unseen)
        return replace(
            first,
            rank=None if several else first.rank,
            ranks=ranks if several else (),
            watched_steps=counted,
            verdict=worst((verdict_of(mutations, left_open), self.verdict)),
            summary=" ".join((summary, *self._scope(several, ranks, counted, error_unseen))),
            error=error,
            mutations=mutations,
            conflicts=conflicts,
            tasks=tasks,
            gradients=gradients,
            task_cosines=tuple(self._cosines.values()),
            timeline=self._timeline(),
            fixes=tuple(self._fixes.values()),
            blind_spots=tuple(spots),
            nothing_ran=not self._ran,
            unknown_because=left_open,
        )

    def _noted(self, m: Mutation, ranks: tuple[int, ...], counted: tuple[int, ...]) -> Mutation:
        added = list(filter(None, (rank_note(m, ranks), step_note(m, counted))))
        if added:
            m = replace(m, own_note=m.note, note=", ".join(filter(None, (m.note, *added))))
        return replace(m, ranks=m.ranks if ranks else ())

    def _error(self, several: bool) -> Error | None:
        if not self._errors:
            return None
        error = self._first_error()
        where = f" ({ranks_named(self._errors[error])})" if several else ""
        return replace(error, message=f"{error.message}{where}")

    def _first_error(self) -> Error:
        """The error of the worst report: when one rank dies, the others only report a closed connection."""
        return min(self._errors, key=lambda error: self._error_verdicts[error])

    def _blind_spots(self, several: bool, world: int | None, ranks: tuple[int, ...]) -> Iterable[str]:
        yield from self._by_rank(self._spots, several)
        told = self._first_error() if self._errors else None
        for error, seen in self._errors.items():
            if error is told:
                continue
            where = f", {ranks_named(seen)}" if several else ""
            yield f"another error{where}: {error.type}: {error.message.partition(chr(10))[0]}"
        if several and None in self._ranks:
            yield "a report without a rank was merged with those of ranks: it is of another run"
        if several and world is not None and (missing := sorted(set(range(world)) - set(ranks))):
            yield f"no report of {ranks_named(set(missing))} of {world}"
        if self._full:
            yield f"more than {_ROWS:,} different rows: the later ones are left out"

    def _by_rank(self, sentences: dict[str, set[int | None]], several: bool) -> Iterable[str]:
        for sentence, seen in sentences.items():
            yield sentence if not several or seen >= self._ranks else f"{ranks_named(seen)}: {sentence}"

    def _scope(
        self, several: bool, ranks: tuple[int, ...], counted: tuple[int, ...], error_unseen: str | None
    ) -> Iterable[str]:
        if several:
            bad = [m for m in self._rows.values() if m.verdict in HARMFUL]
            hit = sorted({c.rank for m in bad for c in m.ranks})
            if not bad:
                yield f"Ranks {numbers(ranks)}."
            elif len(hit) < len(ranks):
                yield f"Only on {ranks_named(set(hit))}, of {len(ranks)} ranks."
            else:
                yield f"On {all_ranks(ranks)}."
        if counted:
            yield f"{counted[0]:,} of {counted[1]:,} steps were watched."
            if self.first_harm is not None:
                yield f"The first that harms is step {self.first_harm:,}."
        if error_unseen is not None:
            yield f"{error_unseen[:1].upper()}{error_unseen[1:]}."

    def _timeline(self) -> tuple[TimelineEvent, ...]:
        """The timeline of the worst report, with the positions that its conflicts have in the merged list."""
        report, ids = self._worst, self._worst_ids
        if report is None:
            return ()
        places = {key: place for place, key in enumerate(self._conflicts)}
        moved: dict[int, int] = {}
        for place, c in enumerate(report.conflicts):
            key = (ids.get(c.mutation), c.node, c.saved_as, _key(c.saved_site), c.module)
            if key in places:
                moved[place] = places[key]
        return tuple(
            replace(
                event,
                mutation=None if event.mutation is None else ids.get(event.mutation),
                conflict=None if event.conflict is None else moved.get(event.conflict),
            )
            for event in report.timeline
        )


def _both(a: Mutation, b: Mutation, counts: tuple[RankCount, ...], steps: int | None) -> Mutation:
    """Two rows of the same place as one: the details of the worse one, the counts of both."""
    worse = b if (_order(b.verdict), b.pending) < (_order(a.verdict), a.pending) else a
    per_rank = {c.rank: c.count for c in a.ranks}
    for c in counts:
        per_rank[c.rank] = per_rank.get(c.rank, 0) + c.count
    times = [m.time for m in (a, b) if m.time is not None]
    changed = [m.value_changed for m in (a, b) if m.value_changed is not None]
    return replace(
        worse,
        id=a.id,
        count=a.count + b.count,
        time=min(times, default=None),
        value_changed=any(changed) if changed else None,
        tasks=_union(a.tasks, b.tasks),
        leaves=_union(a.leaves, b.leaves),
        effects=_union(a.effects, b.effects),
        tensors=_union(a.tensors, b.tensors),
        ranks=tuple(RankCount(rank, count) for rank, count in sorted(per_rank.items())),
        steps=None if a.steps is None and steps is None else (a.steps or 0) + (steps or 0),
    )


def _key(site: Site | None) -> Any:
    return None if site is None else (site.file, site.line, site.column, site.end_line, site.end_column, site.cell_line)


def _union(a: tuple[T, ...], b: tuple[T, ...]) -> tuple[T, ...]:
    return a if a == b else tuple(dict.fromkeys((*a, *b)))[:_ROWS]


def _order(verdict: Any) -> int:
    return VERDICTS.index(verdict)  # an unknown verdict must raise: how bad it is cannot be known
