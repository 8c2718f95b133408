"""Makes a Report from the record and its facts, when the watch is over."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import torch

from jupyter_inplace._version import __version__
from jupyter_inplace.explain.backward.analyst import Analyst
from jupyter_inplace.explain.backward.facts import BackwardFacts
from jupyter_inplace.explain.channels import discarded_grads, grad_aliases, grad_results
from jupyter_inplace.explain.errors.refused import Refusal, find_refusal, raising_key
from jupyter_inplace.explain.graph.quiet import quiet
from jupyter_inplace.explain.names.names import Names
from jupyter_inplace.explain.names.source import BlockSource, static_tasks, tasks_after, with_block_source
from jupyter_inplace.explain.report.gradients import GradientTable
from jupyter_inplace.explain.report.rows import Rows
from jupyter_inplace.explain.report.span import WatchSpan
from jupyter_inplace.explain.report.timeline import build_timeline
from jupyter_inplace.record.session import Session
from jupyter_inplace.report.data import Error, Report, Task, TaskStatus, verdict_of
from jupyter_inplace.report.order import worse_status
from jupyter_inplace.report.summary import build_summary


class Assembly:
    """Builds the report of one watch."""

    def __init__(
        self, session: Session, analyst: Analyst, span: WatchSpan, error: BaseException | None, names: Names
    ) -> None:
        self._session, self._analyst, self._span, self._error, self._names = session, analyst, span, error, names
        assert analyst.options.wording is not None
        self._wanted = analyst.options.wanted
        self._resolver = analyst.options.wording.resolver

    def report(self) -> Report:
        session, span = self._session, self._span
        with quiet(session):
            facts = self._facts()
            refusal = self._refusal()
            late = refusal.conflict(session.table.by_storage) if refusal is not None and refusal.late else None
            if late is not None:
                of_late = BackwardFacts([], span.end, None, session.seconds())
                of_late.add_conflict(late)
                facts.append(of_late)
            table = GradientTable(facts)
            rows = Rows(session, span, facts, self._names, self._resolver)
            if refusal is not None:
                table.refused(refusal)
                if not refusal.late:
                    rows.add_refusal(refusal, session.seconds() - span.started)
            tasks = self._tasks(facts, table, refusal)
            mutations, conflicts = rows.mutations(), rows.conflicts
            timeline = build_timeline(facts, rows, span)
        used = bool(session.backwards or rows.seen or session.last_op is not None or facts)
        error = self._error_entry()
        left_open = self._unknown_because(facts)
        summary = build_summary(
            mutations, conflicts, tasks, table.rows, cell=span.cell, error=error, framework_used=used,
            unknown_because=left_open,
        )  # fmt: skip
        return Report(
            tool=__version__,
            framework="torch",
            framework_version=str(torch.__version__),
            verdict=verdict_of(mutations, left_open),
            summary=summary,
            cell=span.cell,
            error=error,
            mutations=mutations,
            conflicts=conflicts,
            tasks=tasks,
            gradients=table.rows,
            task_cosines=table.cosines(),
            timeline=timeline,
            blind_spots=self._blind_spots(facts),
            nothing_ran=not used,
            unknown_because=left_open,
        )

    # --- parts -----------------------------------------------------------------------------------------------------------

    def _facts(self) -> list[BackwardFacts]:
        session = self._session
        discarded_grads.tell(session, self._resolver)
        grad_results.tell(session, self._resolver)
        inside = [call for call in session.backwards if call.order in self._span]
        facts = [call.facts for call in inside if call.facts is not None]
        if session.index.touched_live() or session.untracked_writes.cuts:
            for name, root in self._names.roots():
                pending = self._analyst.pending(session, name, root, self._names)
                if pending is not None:
                    facts.append(pending)
        kept = grad_aliases.facts(session, self._resolver, self._span.end, session.seconds())
        if kept is not None:
            facts.append(kept)
        for call in inside:
            if call.error is not None and call.facts is not None and not call.facts.conflicts:
                call.facts.note(f"the backward of {', '.join(call.facts.tasks) or 'a task'} raised {call.error}")
        return facts

    def _source(self) -> str | BlockSource | None:
        if self._span.cell is not None:
            return self._span.cell.source
        return with_block_source(*self._span.block) if self._span.block is not None else None

    def _refusal(self) -> Refusal | None:
        """The refused write that ended the cell, with the tasks that it kept from being computed."""
        if self._error is None:
            return None
        refusal = find_refusal(self._error, self._resolver, self._names, self._session.cell_files)
        return None if refusal is None else dataclasses.replace(refusal, tasks=self._refused_tasks(refusal))

    def _refused_tasks(self, refusal: Refusal) -> tuple[str, ...]:
        source = self._source()
        if source is None:
            return ()
        file = source.file if isinstance(source, BlockSource) else self._span.cell_file
        lines = refusal.lines_in(file)
        return tasks_after(source, static_tasks(source), lines) if lines else ()

    def _tasks(self, facts: list[BackwardFacts], table: GradientTable, refusal: Refusal | None) -> tuple[Task, ...]:
        status: dict[str, str] = {}
        sites: dict[str, Any] = {}
        for fact in facts:
            for name in fact.tasks:
                sites.setdefault(name, fact.site)
                status[name] = worse_status(status.get(name, "ok"), table.status(name))
        for call in self._session.backwards:
            if call.error is None or call.facts is None or call.order not in self._span:
                continue
            if not any(table.status(name) == "raises" for name in call.facts.tasks):
                status.update(dict.fromkeys(call.facts.tasks, "raises"))
        if refusal is not None:
            for name in refusal.tasks:
                status[name] = "raises"
        source = self._source() if self._error is not None else None
        if source is not None:
            for static in static_tasks(source):
                # What was computed before a refused write is intact and only lacks its backward.
                status.setdefault(static.name, "not_run" if refusal is None else "ok")
        if self._wanted:
            status = {
                name: s
                for name, s in status.items()
                if name in self._wanted or name not in sites or table.status(name) != "ok"
            }
        return tuple(
            Task(
                name=name,
                status=cast("TaskStatus", s),
                site=self._resolver.resolve(sites[name]) if sites.get(name) else None,
            )
            for name, s in status.items()
        )

    def _blind_spots(self, facts: list[BackwardFacts]) -> tuple[str, ...]:
        notes: dict[str, None] = dict(self._session.blind_spots)
        for fact in facts:
            notes.update(dict.fromkeys(fact.notes))
        return tuple(notes)

    def _unknown_because(self, facts: list[BackwardFacts]) -> tuple[str, ...]:
        reasons: dict[str, None] = dict(self._session.unknown_because)
        for fact in facts:
            reasons.update(dict.fromkeys(fact.unknown_because))
        return tuple(reasons)

    def _error_entry(self) -> Error | None:
        if self._error is None:
            return None
        key = raising_key(self._error, self._session.cell_files)
        return Error(
            type=type(self._error).__name__,
            message=str(self._error),
            site=self._resolver.resolve(key) if key is not None else None,
            other_cause=not isinstance(self._error, RuntimeError),  # which all of torch's refusals are
        )


def with_missing_tasks(report: Report, wanted: Sequence[str]) -> Report:
    """The report with a note for each task that the user named and no framework computed."""
    known = {task.name for task in report.tasks}
    others = ", ".join(sorted(known)) or "none"
    notes = (f"task {name!r} was not found; the tasks there are: {others}" for name in wanted if name not in known)
    return dataclasses.replace(report, blind_spots=tuple(dict.fromkeys((*report.blind_spots, *notes))))
