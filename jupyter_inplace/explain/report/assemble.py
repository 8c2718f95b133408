"""From the record and its facts to a Report, when the watch is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from jupyter_inplace._version import __version__
from jupyter_inplace.explain.backward.damage import quiet
from jupyter_inplace.explain.backward.facts import BackwardFacts
from jupyter_inplace.explain.channels import discarded_grads as unread
from jupyter_inplace.explain.channels import grad_aliases as kept_gradients
from jupyter_inplace.explain.channels import grad_results as shared_results
from jupyter_inplace.explain.errors.refused import Refusal, find_refusal
from jupyter_inplace.explain.names.names import Names
from jupyter_inplace.explain.names.source import BlockSource, static_tasks, tasks_after, with_block_source
from jupyter_inplace.explain.report.gradients import GradientTable
from jupyter_inplace.explain.report.rows import Rows
from jupyter_inplace.explain.report.timeline import build_timeline
from jupyter_inplace.report.data import Error, Report, Task, TaskStatus, worst
from jupyter_inplace.report.order import worse_status
from jupyter_inplace.report.summary import build_summary

if TYPE_CHECKING:
    from jupyter_inplace.explain.window import Window


class Assembly:
    """Builds the report of one window."""

    def __init__(self, window: Window, end: int, error: BaseException | None, names: Names) -> None:
        self.window, self.end, self.error, self.names = window, end, error, names
        self.session, self.analyst = window.session, window.analyst
        assert self.analyst.wording is not None
        self.resolver = self.analyst.wording.resolver
        self.notes: dict[str, None] = {}

    def report(self) -> Report:
        session, options = self.session, self.window.options
        with quiet(session):
            facts = self._facts()
            refusal = (
                find_refusal(self.error, self.resolver, self.names, session.cell_files)
                if self.error is not None
                else None
            )
            if refusal is not None:
                refusal.tasks = self._refused_tasks(refusal)
                late = refusal.conflict(session.table.by_storage) if refusal.late else None
                if late is not None:
                    facts.append(BackwardFacts([], self.end, None, session.seconds(), conflicts=[late]))
            table = GradientTable(facts)
            rows = Rows(
                session,
                self.window.start,
                self.end,
                facts,
                self.names,
                self.resolver,
                options["cell"].source if options["cell"] is not None else None,
            )
            if refusal is not None:
                table.refused(refusal)
            if refusal is not None and not refusal.late:
                rows.add_refusal(refusal, session.seconds() - self.window.started)
            tasks = self._tasks(facts, table, refusal)
            mutations, conflicts = rows.mutations(self.window.started), rows.conflicts
            timeline = build_timeline(facts, rows, self.window)
        blind = self._blind_spots(facts, tasks)
        used = bool(session.backwards or rows.seen or session.last_op is not None or facts)
        error = self._error()
        summary = build_summary(
            mutations, conflicts, tasks, table.rows, cell=options["cell"], error=error, framework_used=used
        )
        return Report(
            tool=__version__,
            framework="torch",
            framework_version=str(torch.__version__),
            verdict=worst(m.verdict for m in mutations),
            summary=summary,
            cell=options["cell"],
            error=error,
            mutations=mutations,
            conflicts=conflicts,
            tasks=tasks,
            gradients=table.rows,
            task_cosines=table.cosines(),
            timeline=timeline,
            blind_spots=blind,
            nothing_ran=not used,
        )

    # --- parts -----------------------------------------------------------------------------------------------------------

    def _facts(self) -> list[BackwardFacts]:
        unread.tell(self.session, self.resolver)
        shared_results.tell(self.session, self.resolver)
        inside = [call for call in self.session.backwards if self.window.start <= call.order <= self.end]
        facts = [call.facts for call in inside if call.facts is not None]
        if self.session.index.touched_live() or self.session.untracked_writes.cuts:
            for name, root in self.names.roots():
                pending = self.analyst.pending(self.session, name, root, self.names)
                if pending is not None:
                    facts.append(pending)
        kept = kept_gradients.facts(self.session, self.resolver, self.end, self.session.seconds())
        if kept is not None:
            facts.append(kept)
        for call in inside:
            if call.error is not None and call.facts is not None and not call.facts.conflicts:
                call.facts.notes.append(
                    f"the backward of {', '.join(call.facts.tasks) or 'a task'} raised {call.error}"
                )
        return facts

    def _source(self) -> str | BlockSource | None:
        cell = self.window.options["cell"]
        if cell is not None:
            return str(cell.source)
        place = self.window.options["frame"]
        return with_block_source(*place) if place is not None else None

    def _refused_tasks(self, refusal: Refusal) -> list[str]:
        source = self._source()
        if source is None:
            return []
        file = source.file if isinstance(source, BlockSource) else self.window.options["cell_file"]
        lines = refusal.lines_in(file)
        return list(tasks_after(source, static_tasks(source), lines)) if lines else []

    def _tasks(self, facts: list[BackwardFacts], table: GradientTable, refusal: Refusal | None) -> tuple[Task, ...]:
        status: dict[str, str] = {}
        sites: dict[str, Any] = {}
        for fact in facts:
            for name in fact.tasks:
                sites.setdefault(name, fact.site)
                status[name] = worse_status(status.get(name, "ok"), table.status(name))
        for call in self.session.backwards:
            if call.error is None or call.facts is None or not self.window.start <= call.order <= self.end:
                continue
            if not any(table.status(name) == "raises" for name in call.facts.tasks):
                status.update(dict.fromkeys(call.facts.tasks, "raises"))
        if refusal is not None:
            for name in refusal.tasks:
                status[name] = "raises"
        source = self._source() if self.error is not None else None
        if source is not None:
            for static in static_tasks(source):
                # What was computed before a refused write is whole, and only waits for its backward.
                status.setdefault(static.name, "not_run" if refusal is None else "ok")
        if self.analyst.wanted:
            status = {
                name: s
                for name, s in status.items()
                if name in self.analyst.wanted or name not in sites or table.status(name) != "ok"
            }
        return tuple(
            Task(
                name=name,
                status=cast("TaskStatus", s),
                site=self.resolver.resolve(sites[name]) if sites.get(name) else None,
            )
            for name, s in status.items()
        )

    def _blind_spots(self, facts: list[BackwardFacts], tasks: tuple[Task, ...]) -> tuple[str, ...]:
        notes: dict[str, None] = dict(self.session.blind_spots)
        for fact in facts:
            notes.update(dict.fromkeys(fact.notes))
        known = {task.name for task in tasks}
        for name in self.analyst.wanted:
            if name not in known:
                others = ", ".join(sorted(known)) or "none"
                notes[f"task {name!r} was not found; the tasks there are: {others}"] = None
        return tuple(notes)

    def _error(self) -> Error | None:
        if self.error is None:
            return None
        from jupyter_inplace.explain.errors.refused import raising_key

        key = raising_key(self.error, self.session.cell_files)
        return Error(
            type=type(self.error).__name__,
            message=str(self.error),
            site=self.resolver.resolve(key) if key is not None else None,
        )
