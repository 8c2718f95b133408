"""The rows of writes and their conflicts, with names and verdicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jupyter_inplace.explain.backward.conflicts import module_name
from jupyter_inplace.explain.backward.facts import BackwardFacts, ConflictFact, CutFact, MixFact
from jupyter_inplace.explain.channels.exported_memory import ExternalSite, locate
from jupyter_inplace.explain.errors.refused import Refusal
from jupyter_inplace.explain.names.names import Names
from jupyter_inplace.explain.report.span import WatchSpan
from jupyter_inplace.record.session import Session
from jupyter_inplace.record.source.expressions import written_names
from jupyter_inplace.record.source.resolver import SiteResolver
from jupyter_inplace.record.write_table import WriteRow
from jupyter_inplace.report.data import HARMFUL, VERDICTS, Conflict, Effect, Mutation, Site, worst
from jupyter_inplace.report.words import EFFECT_WORDS


@dataclasses.dataclass
class _Row:
    write: WriteRow
    site: Site | None
    name: str
    verdict: str = "harmless"
    pending: bool = True
    value_changed: bool | None = None
    tasks: dict[str, None] = dataclasses.field(default_factory=dict)
    leaves: dict[str, None] = dataclasses.field(default_factory=dict)
    bumped: bool | None = None
    tensors: tuple[str, ...] = ()
    hurts: list[str] = dataclasses.field(default_factory=list)
    note: str | None = None
    effects: dict[Effect, None] = dataclasses.field(default_factory=dict)


class Rows:
    """The mutations of a window: its own writes, and earlier ones that affected a backward of this window."""

    def __init__(
        self,
        session: Session,
        span: WatchSpan,
        facts: Sequence[BackwardFacts],
        names: Names,
        resolver: SiteResolver,
    ) -> None:
        self._span, self._resolver, self._names = span, resolver, names
        self._storage_names: dict[int, str] = {}
        for fact in facts:
            self._storage_names.update(fact.names)
        self._sites: dict[Any, Site | None] = {}
        self._rows: dict[WriteRow, _Row] = {}
        self._storage_numbers: dict[int, int] = {}
        self._conflict_index: dict[int, int] = {}
        self._refusals: list[tuple[Refusal, float]] = []
        self._statements: dict[Any, ExternalSite] = {}  # of external writes, by the expressions around them
        self.conflicts: tuple[Conflict, ...] = ()
        self.ids: dict[WriteRow, int] = {}
        for write in session.table.rows:
            if write.first in span:
                self._row_of(write)
        self._conflict_facts = [conflict for fact in facts for conflict in fact.conflicts]
        for conflict in self._conflict_facts:
            for write, _ in conflict.writes:
                self._judge(self._row_of(write), conflict)
        for fact in facts:
            for cut in fact.cuts:
                self._cut(self._row_of(cut.write), cut)
        for fact in facts:  # after all harmful writes are known
            for mix in fact.mixes:
                for write in mix.writes:
                    if write in self._rows:
                        self._mix(self._rows[write], mix)
        self._share_statements()
        self.seen = sum(row.write.count for row in self._rows.values())

    def _row_of(self, write: WriteRow) -> _Row:
        if write not in self._rows:
            self._rows[write] = self._name(write)
        return self._rows[write]

    def site(self, key: Any) -> Site | None:
        if key is None:
            return None
        if key not in self._sites:
            self._sites[key] = self._resolver.resolve(key)
        return self._sites[key]

    def row(self, write: WriteRow) -> _Row:
        return self._rows[write]

    def conflict_numbers(self) -> dict[int, int]:
        """For each saved tensor that was overwritten, by its place in program order, the index of its conflict in the report."""
        return self._conflict_index

    def add_refusal(self, refusal: Refusal, time: float) -> None:
        self._refusals.append((refusal, time))

    # --- the lists of the report ---------------------------------------------------------------------------------------------

    def mutations(self) -> tuple[Mutation, ...]:
        """All rows in program order, with similar harmless ones merged. Also fills `ids` and `conflicts`."""
        merged: dict[Any, list[_Row]] = {}
        for row in sorted(self._rows.values(), key=lambda row: row.write.first):
            quiet = row.verdict == "harmless"
            key = (row.write.op, row.write.site, row.name, row.write.hidden) if quiet else id(row.write)
            merged.setdefault(key, []).append(row)
        out: list[Mutation] = []
        for group in merged.values():
            for row in group:
                self.ids[row.write] = len(out)
            out.append(self._mutation(len(out), group))
        for refusal, time in self._refusals:
            out.append(refusal.mutation(len(out), time))
        self.conflicts = self._build_conflicts()
        return tuple(out)

    def _mutation(self, number: int, group: list[_Row]) -> Mutation:
        row, last = group[0], group[-1].write
        write = row.write
        versions = None
        if write.version_before is not None and write.version_after is not None:
            after = last.version_after if last.version_after is not None and len(group) > 1 else write.version_after
            versions = (
                write.version_before,
                write.version_before if row.bumped is False else max(after, write.version_before),
            )
        return Mutation(
            id=number,
            op=write.op,
            tensor=row.name,
            shape=write.shape,
            dtype=write.dtype or None,
            device=write.device or None,
            storage=self._storage_number(write.storage),
            versions=versions,
            time=max(0.0, write.time - self._span.started),
            count=sum(r.write.count for r in group),
            site=row.site,
            verdict=row.verdict,  # type: ignore[arg-type]
            pending=row.pending and row.verdict not in ("harmless", "mixes"),
            value_changed=row.value_changed,
            tasks=tuple(row.tasks),
            leaves=tuple(row.leaves),
            tensors=row.tensors,
            module=module_name(write.module, self._names),
            note=row.note,
            framework="torch",
            effects=tuple(row.effects),
        )

    def _storage_number(self, storage: int) -> int | None:
        """A small number for a storage, in order of appearance: addresses differ from run to run."""
        return self._storage_numbers.setdefault(storage, len(self._storage_numbers)) if storage > 0 else None

    def _build_conflicts(self) -> tuple[Conflict, ...]:
        out: list[Conflict] = []
        places: dict[Any, int] = {}
        for fact in self._conflict_facts:
            saved_site = self.site(fact.saved_site)
            for write, overlap in fact.writes:
                # A loop saves at one place many times: one conflict represents all of them.
                key = (self.ids[write], fact.node, fact.saved_as, fact.saved_site, fact.module)
                if key not in places:
                    places[key] = len(out)
                    out.append(self._conflict(fact, write, overlap, saved_site))
                self._conflict_index.setdefault(fact.saved_order, places[key])
        return tuple(out)

    def _conflict(self, fact: ConflictFact, write: WriteRow, overlap: int | None, saved_site: Site | None) -> Conflict:
        return Conflict(
            mutation=self.ids[write],
            node=fact.node,
            saved_as=fact.saved_as,
            tensor=fact.tensor or self._rows[write].name,
            saved_version=fact.saved_version,
            found_version=fact.found_version,
            bytes_overlapping=overlap,
            saved_site=saved_site,
            module=fact.module,
            tasks=tuple(fact.tasks),
            leaves=tuple(fact.leaves),
            value_changed=fact.value_changed,
            saved_before_watch=fact.before_watch,
            pending=fact.pending,
        )

    # --- judging ---------------------------------------------------------------------------------------------------------------

    def _judge(self, row: _Row, conflict: ConflictFact) -> None:
        if VERDICTS.index(conflict.verdict) < VERDICTS.index(row.verdict):
            row.verdict = conflict.verdict
        row.pending = row.pending and conflict.pending
        if conflict.value_changed is not None:
            row.value_changed = bool(row.value_changed) or conflict.value_changed
        row.tasks.update(dict.fromkeys(conflict.tasks))
        row.leaves.update(dict.fromkeys(conflict.leaves))
        if conflict.saved_version is not None:
            row.bumped = bool(row.bumped) or conflict.saved_version != conflict.found_version
        if conflict.tensor and conflict.tensor not in row.hurts:
            row.hurts.append(conflict.tensor)
            if row.write.optimizer is not None:
                row.name = row.hurts[0]

    @staticmethod
    def _cut(row: _Row, cut: CutFact) -> None:
        if cut.verdict == "cuts" and row.verdict in ("breaks", "corrupts") and "cuts_later_reads" not in row.effects:
            row.effects["cuts_later_reads"] = None
            row.note = "; ".join(filter(None, (row.note, EFFECT_WORDS["cuts_later_reads"])))
        row.effects.update(dict.fromkeys(cut.effects))
        row.verdict = worst((row.verdict, cut.verdict))
        row.pending = row.pending and cut.pending
        row.value_changed = True
        row.tasks.update(dict.fromkeys(cut.tasks))
        row.leaves.update(dict.fromkeys(cut.leaves))
        row.note = cut.note or row.note

    @staticmethod
    def _mix(row: _Row, mix: MixFact) -> None:
        if row.verdict in HARMFUL:
            return  # a harmful write lists only the tasks and leaves that it harms
        row.verdict = "mixes"
        row.pending = False
        row.tasks.update(dict.fromkeys(mix.tasks))
        row.leaves[mix.leaf] = None

    def _name(self, write: WriteRow) -> _Row:
        if write.bracket is not None:
            return self._external(write)
        if write.op == "external":
            name = (
                self._storage_names.get(write.storage)
                or self._names.fitting(write.storage, write.shape)
                or f"t{write.number}"
            )
            return _Row(
                write, None, name, note="written where nobody watched: in another cell, or before the watch began"
            )
        site = self.site(write.site)
        if write.optimizer is not None:
            optimizer = write.optimizer()
            tensors: list[str] = []
            if optimizer is not None:
                for group in optimizer.param_groups:
                    tensors.extend(found for p in group["params"] if (found := self._names.of(p)))
            return _Row(write, site, tensors[0] if tensors else write.op.partition(".")[0], tensors=tuple(tensors))
        if write.name is not None:
            return _Row(write, site, write.name)
        readings = written_names(site) if site is not None else ()
        # `rows[0] += 1` writes to `rows` or, if that is a list, to its first item: the visible objects decide.
        typed = next((name for name in readings if name in self._names.known), readings[0] if readings else None)
        known = self._storage_names.get(write.storage) or self._names.fitting(write.storage, write.shape)
        if typed is not None and known is not None and known.startswith(f"{typed}["):
            typed = known  # `op(x, out=pair)` writes to pair[0] and pair[1]
        local = site is not None and site.function not in (None, "<module>")
        if typed is not None and (typed.isidentifier() or known is None) and not typed.startswith("self."):
            name = (
                known
                if known is not None and typed.isidentifier() and not local and self._is_alias(typed, known)
                else typed
            )
        else:
            name = known or typed or f"t{write.number}"
        row = _Row(write, site, name, note=None if write.thread is None else f"by the thread {write.thread!r}")
        if write.hidden or (site is not None and ".data" in site.text):
            row.bumped = False
        return row

    def _external(self, write: WriteRow) -> _Row:
        found = locate(write, self._resolver, self._names.spaces, self._span.cell_source)
        if found.exact:
            self._statements[write.site] = found
        name = (
            found.name
            or self._storage_names.get(write.storage)
            or self._names.fitting(write.storage, write.shape)
            or f"t{write.number}"
        )
        row = _Row(write, found.site, name, bumped=False)
        row.note = found.note
        return row

    def _share_statements(self) -> None:
        """Give all rows of a loop the statement of the last iteration: only its array still has a name."""
        for write, row in self._rows.items():
            known = self._statements.get(write.site) if write.bracket is not None else None
            if known is not None:
                row.site = known.site
                if known.name is not None:
                    row.name = known.name

    @staticmethod
    def _is_alias(typed: str, known: str) -> bool:
        """A loop variable over parameters (`for p in net.parameters()`) says less than the parameter's path."""
        return "." in known and typed != known
