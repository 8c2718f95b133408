"""Makes TensorFlow's Report of one window from the record and the facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from jupyter_inplace.record.source.resolver import SiteResolver
from jupyter_inplace.report.data import (
    VERDICTS,
    Cell,
    Conflict,
    Gradient,
    Mutation,
    Report,
    Site,
    Task,
    TaskCosine,
    TimelineEvent,
    verdict_of,
)
from jupyter_inplace.report.order import badness, worse_status
from jupyter_inplace.tensorflow.explain import asked
from jupyter_inplace.tensorflow.explain.names import TapeNames
from jupyter_inplace.tensorflow.record.events import AssignRow
from jupyter_inplace.tensorflow.record.facts import AssignEffect, Reread, TapeCall
from jupyter_inplace.tensorflow.record.trace import TapeTrace


class _Out:
    """A mutation of the report while it is being made."""

    def __init__(self, row: AssignRow | None, order: int, mutation: Mutation) -> None:
        self.row, self.order, self.mutation = row, order, mutation
        self.verdict = "harmless"
        self.tasks: dict[str, None] = {}
        self.leaves: dict[str, None] = {}
        self.notes: dict[str, None] = {}
        self.changed: bool | None = None

    def hit(self, hit: AssignEffect | Reread) -> None:
        if VERDICTS.index(hit.verdict) < VERDICTS.index(self.verdict):
            self.verdict = hit.verdict
        if hit.verdict != "harmless":
            self.tasks.update(dict.fromkeys(hit.tasks))
            self.leaves.update(dict.fromkeys(hit.leaves))


@dataclass(frozen=True)
class TapeSpan:
    """The part of the record that one watch covers.

    :param start: the place in program order after which the watch begins.
    :param started: seconds on the record's clock when the watch began.
    :param tasks: the names of tasks given by the user.
    :param labels: the displayed names of files, by file name.
    """

    start: int
    started: float
    cell: Cell | None
    cell_file: str | None
    tasks: Sequence[str]
    labels: Mapping[str, str]


class TapeAssembly:
    """Builds the report of one watch."""

    def __init__(
        self,
        trace: TapeTrace,
        span: TapeSpan,
        rows: Sequence[tuple[AssignRow, int]],
        names: TapeNames,
        resolver: SiteResolver,
    ) -> None:
        self._trace, self._span, self._rows, self._names, self._resolver = trace, span, rows, names, resolver
        self._calls = [call for call in trace.calls if call.order > span.start]
        self._storages: dict[int, int] = {}

    def report(self, used: bool) -> Report:
        """The report; `used` says whether TensorFlow did anything."""
        out = self._lines()
        conflicts = self._conflicts(out)
        mutations = tuple(self._finished(i, line) for i, line in enumerate(out))
        tasks = self._tasks()
        gradients = self._gradients()
        return Report(
            framework="tensorflow",
            framework_version=str(tf.__version__),
            verdict=verdict_of(mutations, self._trace.unknown_because),
            cell=self._span.cell,
            mutations=mutations,
            conflicts=conflicts,
            tasks=tasks,
            gradients=gradients,
            task_cosines=self._cosines(),
            timeline=self._timeline(out),
            blind_spots=self._blind_spots() if used or self._trace.unknown_because else (),
            unknown_because=tuple(self._trace.unknown_because),
        )

    # --- writes ---------------------------------------------------------------------------------------------------------

    def _lines(self) -> list[_Out]:
        found: dict[Any, _Out] = {}
        for row, count in self._rows:
            found[row] = _Out(row, row.order, self._mutation(row, count))
        for call in self._calls:
            for hit in call.effects:
                line = found.get(hit.row)
                if line is None:
                    continue
                line.hit(hit)
                if hit.note is not None:
                    line.notes[hit.note] = None
                if hit.value_changed is not None:
                    line.changed = hit.value_changed
            for fact in call.rereads:
                key: Any = fact.row if fact.row is not None else fact.shared
                if key not in found:
                    assert fact.shared is not None
                    found[key] = _Out(None, fact.shared.order, self._external(fact))
                found[key].hit(fact)
                if fact.verdict == "harmless":
                    found[key].notes["what it changed had no part in the gradient"] = None
        return sorted(found.values(), key=lambda line: line.order)

    def _mutation(self, row: AssignRow, count: int) -> Mutation:
        names = [self._name(handle, row) for handle in row.handles]
        if len(names) > 1:  # nobody names the variables of an optimizer
            names = [name for name, handle in zip(names, row.handles, strict=True) if self._known(handle)] or names
        return Mutation(
            id=0,
            op=row.op,
            tensor=names[0],
            shape=row.shape,
            dtype=row.dtype,
            device=row.device or None,
            storage=self._storages.setdefault(row.handle, len(self._storages)),
            versions=(row.before, row.after) if len(row.handles) == 1 else None,
            time=max(0.0, row.time - self._span.started),
            count=count,
            site=self._site(row.site),
            tensors=tuple(names) if len(names) > 1 else (),
            framework="tensorflow",
        )

    def _site(self, key: Any) -> Site | None:
        """The site of a key; for an operation in a graph only its line is known."""
        if not isinstance(key, tuple) or key[0] != "graph":
            return self._resolver.resolve(key)
        if key[1] is None:
            return None
        file, line, text, function = key[1]
        own = file == self._span.cell_file
        return Site(
            file=self._span.labels.get(file, file),
            line=line,
            text=text,
            line_text=text,
            function=function,
            cell_line=line if own else None,
        )

    def _external(self, fact: Reread) -> Mutation:
        shared = fact.shared
        assert shared is not None
        return Mutation(
            id=0,
            op="external",
            tensor=fact.tensor,
            shape=tuple(shared.view.shape),
            dtype=str(shared.view.dtype),
            device="cpu",
            storage=self._storages.setdefault(-shared.tensor, len(self._storages)),
            versions=(0, 0),
            time=max(0.0, shared.time - self._span.started),
            site=None,
            value_changed=True,
            note=f"written through memory shared by {shared.through}, which TensorFlow does not see",
            framework="tensorflow",
        )

    def _finished(self, number: int, line: _Out) -> Mutation:
        m = line.mutation
        notes = [m.note, *list(line.notes)[:3]]
        return replace(
            m,
            id=number,
            verdict=line.verdict,  # type: ignore[arg-type]
            tasks=tuple(line.tasks),
            leaves=tuple(line.leaves),
            value_changed=m.value_changed if line.changed is None else line.changed,
            note="; ".join(n for n in notes if n) or None,
        )

    def _conflicts(self, out: list[_Out]) -> tuple[Conflict, ...]:
        places = {id(line.row): i for i, line in enumerate(out) if line.row is not None}
        external = {line.mutation.tensor: i for i, line in enumerate(out) if line.row is None}
        found: dict[Any, Conflict] = {}
        for call in self._calls:
            for fact in call.rereads:
                place = external.get(fact.tensor) if fact.row is None else places.get(id(fact.row))
                if place is None:
                    continue
                conflict = Conflict(
                    mutation=place,
                    node=fact.node,
                    tensor=fact.tensor,
                    saved_version=fact.saved_version,
                    found_version=fact.found_version,
                    bytes_overlapping=fact.bytes,
                    saved_site=self._resolver.resolve(fact.saved_site),
                    tasks=tuple(fact.tasks),
                    leaves=tuple(fact.leaves),
                    value_changed=True,
                )
                found.setdefault((place, fact.saved_site, tuple(fact.tasks)), conflict)
        return tuple(found.values())

    def _known(self, handle: int) -> bool:
        return self._names.of(handle) is not None or handle in self._trace.known_names

    def _name(self, handle: int, row: AssignRow | None = None) -> str:
        """The name at the end of the watch, else the one at the time of the call, else the text of the write."""
        name = self._names.of(handle) or self._trace.known_names.get(handle)
        if name is None and row is not None and len(row.handles) == 1:
            name = asked.written_text(self._site(row.site))
        return name or f"t{self._storages.setdefault(handle, len(self._storages))}"

    # --- tasks and numbers --------------------------------------------------------------------------------------------

    def _tasks_of(self, call: TapeCall) -> dict[str, str]:
        if call.tasks is not None:
            return call.tasks
        texts = asked.target_texts(self._resolver.resolve(call.site)) or ("target",)
        return dict.fromkeys(texts, "raises" if call.error is not None else "ok")

    def _tasks(self) -> tuple[Task, ...]:
        status: dict[str, str] = {}
        sites: dict[str, Any] = {}
        for call in self._calls:
            for name, own in self._tasks_of(call).items():
                status[name] = worse_status(status.get(name, "ok"), own)
                sites.setdefault(name, call.site)
        wanted = self._span.tasks
        return tuple(
            Task(name=name, status=own, site=self._resolver.resolve(sites[name]))  # type: ignore[arg-type]
            for name, own in status.items()
            if not wanted or name in wanted or own != "ok"
        )

    def _gradients(self) -> tuple[Gradient, ...]:
        """One row per task and leaf: the worst one, with its occurrence if there were several."""
        found: dict[Any, list[Gradient]] = {}
        for call in self._calls:
            for row in call.gradients:
                found.setdefault((row.task, row.leaf), []).append(row)
        rows = []
        for same in found.values():
            worst_at = max(range(len(same)), key=lambda i: (*badness(same[i]), -i))
            row = same[worst_at]
            rows.append(replace(row, occurrence=worst_at) if len(same) > 1 and row.status != "ok" else row)
        return tuple(rows)

    def _cosines(self) -> tuple[TaskCosine, ...]:
        vectors: dict[str, dict[str, tuple[Any, Any]]] = {}
        for call in self._calls:
            for (task, leaf), pair in call.vectors.items():
                vectors.setdefault(leaf, {}).setdefault(task, pair)
        found = []
        for leaf, by_task in vectors.items():
            tasks = list(by_task)
            for i, a in enumerate(tasks):
                for b in tasks[i + 1 :]:
                    as_run = _cosine(by_task[a][0], by_task[b][0])
                    reference = _cosine(by_task[a][1], by_task[b][1])
                    found.append(TaskCosine(leaf=leaf, tasks=(a, b), as_run=as_run, reference=reference))
        return tuple(found)

    def _timeline(self, out: list[_Out]) -> tuple[TimelineEvent, ...]:
        started = self._span.started
        events: list[tuple[int, dict[str, Any]]] = []
        for i, line in enumerate(out):
            m = line.mutation
            version = None if m.versions is None else m.versions[1]
            events.append(
                (line.order, {"kind": "write", "tensor": m.tensor, "version": version, "site": m.site, "mutation": i,
                              "count": m.count, "time": m.time})
            )  # fmt: skip
        for call in self._calls:
            time = max(0.0, call.time - started)
            site = self._resolver.resolve(call.site)
            for name in self._tasks_of(call):
                events.append((call.order, {"kind": "backward", "site": site, "task": name, "time": time}))
            for read in call.reads:
                events.append(
                    (read.order, {"kind": "read", "tensor": self._name(read.handle), "version": read.version,
                                  "site": self._resolver.resolve(read.site), "task": read.task, "time": None})
                )  # fmt: skip
        events.sort(key=lambda event: event[0])
        return tuple(TimelineEvent(seq=i, **fields) for i, (_, fields) in enumerate(events[:10_000]))

    def _blind_spots(self) -> tuple[str, ...]:
        notes = dict(self._trace.blind_spots)
        if self._trace.track.full:
            notes["more versions of variables than can be told apart: later ones are not split"] = None
        return tuple(notes)


def _cosine(a: Any, b: Any) -> float | None:
    if a is None or b is None or a.shape != b.shape:
        return None
    norms = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(np.real(np.vdot(a, b))) / norms if norms else None
