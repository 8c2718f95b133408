"""The damage that one backward call meets: overwritten saved tensors, the rows they spoil, the gradients as meant.

Runs right before the engine does, while the graph is whole, and only where a saved tensor on a written storage is still
alive (or `--gradients` asks). One walk a task gives the reference, a second one the run where some value changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from jupyter_inplace.explain import numbers
from jupyter_inplace.explain.facts import BackwardFacts, ConflictFact, CutFact, GradientFact, SaveFact
from jupyter_inplace.explain.graph import Graph, Node, is_python_node, saved_slots
from jupyter_inplace.explain.integers import lost_tasks
from jupyter_inplace.explain.names import Names
from jupyter_inplace.explain.pull import AsRunReading, CannotPullError, Edge, ReferenceReading, is_of_distributed, pull
from jupyter_inplace.explain.recomputed import holds_recomputation, judge, reads_again
from jupyter_inplace.explain.repair import Repair, WriteNode
from jupyter_inplace.explain.split import Part
from jupyter_inplace.explain.undo import undoing
from jupyter_inplace.record.geometry import shared_bytes, view_of
from jupyter_inplace.record.integers import IntegerWrite
from jupyter_inplace.record.regions import Region
from jupyter_inplace.record.saved import Saved
from jupyter_inplace.record.session import Session
from jupyter_inplace.record.torch_private import Unfollowed, storage_id, without_grad

_MAX_SAVES = 2000


@contextlib.contextmanager
def quiet(session: Session) -> Iterator[None]:
    """Our own torch operations: seen by no mode and no tensor class of anybody's, recorded by nobody."""
    before, session.muted = session.muted, True
    try:
        with _disable_current_modes(), Unfollowed(), without_grad():
            yield
    finally:
        session.muted = before


class Damage:
    """Analysis of the tasks `parts` over one graph."""

    def __init__(
        self,
        session: Session,
        graph: Graph,
        parts: list[tuple[str, Part]],
        targets: dict[Edge, str],
        names: Names,
        repair: Repair | None = None,
        meant: Graph | None = None,
    ) -> None:
        self.session, self.graph, self.parts, self.targets, self.names = session, graph, parts, targets, names
        self.repair, self.meant = repair, meant or graph
        self.integers: dict[Saved, list[IntegerWrite]] = {}
        self.regions: list[tuple[Any, Region]] = []
        self.reading = ReferenceReading(session.python.kept)
        # Gradients by (task, leaf): with saved tensors as the forward wrote them, with them as they are now, and with every
        # write recorded as well.
        self.untouched: dict[tuple[str, str], torch.Tensor | None] = {}
        self.as_run: dict[tuple[str, str], torch.Tensor | None] = {}
        self.recorded: dict[tuple[str, str], torch.Tensor | None] = {}
        self.versions: dict[tuple[str, str], list[tuple[int, float]]] = {}
        self.missing: set[str] = set()
        self.unrepaired: set[str] = set()
        self._refusing: set[Node] = set()
        self._again: dict[Node, list[Saved]] = {}
        self._scale: dict[str, float] = {}
        self._leaf_bits: list[int] | None = None

    def run(self, facts: BackwardFacts, touched: list[Saved], groups: dict[Edge, dict[Node, int]]) -> None:
        self._again = reads_again(self.graph, self.regions)
        self.reading.again = self._again
        if holds_recomputation(self.graph):
            facts.notes.append("a checkpointed region was recomputed once more for the gradients, its writes undone")
            with undoing():
                self._pull_untouched(facts, groups)
        else:
            self._pull_untouched(facts, groups)
        touched = [saved for saved in touched if saved in self.reading.reader]
        raising = [saved for saved in touched if saved.overwritten]
        changed: dict[Saved, bool | None] = {
            s: numbers.same_values(s.value, s.tensor) is False for s in touched if s.clone is not None
        }
        silent = [saved for saved in touched if not saved.overwritten and changed.get(saved)]
        if silent or self._again:
            with undoing() if self._again else contextlib.nullcontext():
                self._pull_as_run(facts)
            raising += [saved for saved in silent if self.reading.reader[saved] in self._refusing]
        cuts: list[WriteNode] = []
        if self.repair is not None:
            with undoing() if self._again else contextlib.nullcontext():
                self._pull_recorded(facts)
            cuts = [write for write in self.repair.writes if write.changed or not write.cut.replayable]
        broken = self._bits_of(raising)
        keys = dict.fromkeys((*self.untouched, *self.recorded))
        self._scale.update(dict.fromkeys((leaf for _, leaf in keys), 0.0))
        for (_, leaf), g in self.untouched.items():
            self._scale[leaf] = max(self._scale[leaf], numbers.norm(g) or 0.0)
        facts.gradients.extend(self._row(task, leaf, broken) for task, leaf in keys)
        if self.integers:
            lost_tasks(self, facts, self.integers)
        corrupted = {key for key in keys if key in self.as_run and self._differ(self.as_run, self.untouched, key)}
        for saved in touched:
            fact = self._conflict(saved, saved in raising, changed.get(saved), facts.gradients, corrupted)
            if fact is not None:
                facts.conflicts.append(fact)
        for write in cuts:
            self._cut(write, facts)
        if self._again:
            judge(self.session, self, facts, self.regions)
        self._saves(facts, set(touched))
        found = {key: g for key in keys if (g := self._reference(key)) is not None}
        facts.reference = {**found, **facts.reference}  # a counterfactual one goes before
        facts.as_run.update({key: g for key, g in self.as_run.items() if g is not None})

    def without_numbers(self, facts: BackwardFacts, touched: list[Saved]) -> None:
        """The conflicts alone, where no gradient may be worked out: by what the nodes hold."""
        self._note_readers()
        touched = [saved for saved in touched if saved in self.reading.reader]
        raising = [saved for saved in touched if saved.overwritten]
        broken = self._bits_of(raising)
        bits = self._target_bits()
        for task, part in self.parts:
            here = bits[self.graph.position[part.edge[0]]] if part.edge[0] in self.graph.position else 0
            for i, leaf in enumerate(self.targets.values()):
                if here >> i & 1:
                    facts.gradients.append(GradientFact(task, leaf, "raises" if leaf in broken.get(task, ()) else "ok"))
        for saved in raising:
            changed = numbers.same_values(saved.value, saved.tensor) is False if saved.clone is not None else False
            fact = self._conflict(saved, True, changed, facts.gradients, set())
            if fact is not None:
                facts.conflicts.append(fact)

    # --- gradients -------------------------------------------------------------------------------------------------------

    def _pull_untouched(self, facts: BackwardFacts, groups: dict[Edge, dict[Node, int]]) -> None:
        python = [node for node in self.graph.nodes if is_python_node(node) and not is_of_distributed(node)]
        for task, part in self.parts:
            reached = self._reached(self.graph, part.edge)
            try:
                found = pull(self.graph, [(part.edge, part.grad)], reached, self.reading, groups)
            except CannotPullError as reason:
                self.missing.add(task)
                facts.notes.append(f"gradients of {task} are missing: {reason}")
                found = {}
                self._note_readers()
            for key in reached.values():
                self._add(self.untouched, (task, key), found.get(key))
            for key, value in found.items():
                if isinstance(key, tuple) and len(key) == 2 and isinstance(key[1], int):
                    self.versions.setdefault((task, key[0]), []).append((key[1], numbers.norm(value) or 0.0))
        if python and self.parts:
            names = sorted({type(node).__name__.removesuffix("Backward") for node in python})
            facts.notes.append(
                f"the backward of {', '.join(names)} was run once more for the reference gradients, its writes undone"
            )

    def _pull_as_run(self, facts: BackwardFacts) -> None:
        for task, part in self.parts:
            if task in self.missing:
                continue
            reached = self._reached(self.graph, part.edge)
            try:
                found = pull(self.graph, [(part.edge, part.grad)], reached, AsRunReading(self.session.python.kept))
            except CannotPullError as reason:
                # With the values of the forward it ran: the engine will meet the same error.
                self._refusing.add(reason.node)
                facts.notes.append(f"gradients of {task} as run are missing: {reason}")
                continue
            for key in reached.values():
                self._add(self.as_run, (task, key), found.get(key))

    def _pull_recorded(self, facts: BackwardFacts) -> None:
        assert self.repair is not None
        reading = ReferenceReading(self.session.python.kept)
        reading.again = self._again
        for task, part in self.parts:
            if task in self.missing:
                continue
            start = self.repair.start(part.edge)
            reached = self._reached(self.meant, start)
            try:
                found = pull(self.meant, [(start, part.grad)], reached, reading)
            except CannotPullError as reason:
                self.unrepaired.add(task)
                facts.notes.append(f"gradients of {task} with every write recorded are missing: {reason}")
                continue
            for key in reached.values():
                self._add(self.recorded, (task, key), found.get(key))

    def _reached(self, graph: Graph, start: Edge) -> dict[Edge, str]:
        if start[0] not in graph.position:
            return {}
        here = (self._target_bits() if graph is self.graph else self._bits_in(graph))[graph.position[start[0]]]
        return {edge: key for i, (edge, key) in enumerate(self.targets.items()) if here >> i & 1}

    def _reference(self, key: tuple[str, str]) -> torch.Tensor | None:
        """What the gradient should be: with every write recorded, unless the run differs from the untouched one alone."""
        if not self._recorded(key):
            return self.untouched.get(key)
        if (
            key in self.as_run
            and self._differ(self.as_run, self.untouched, key)
            and not self._differ(self.as_run, self.recorded, key)
        ):
            return self.untouched.get(key)
        return self.recorded.get(key)

    def _recorded(self, key: tuple[str, str]) -> bool:
        return self.repair is not None and key[0] not in self.unrepaired and key[0] not in self.missing

    def _differ(
        self,
        a: dict[tuple[str, str], torch.Tensor | None],
        b: dict[tuple[str, str], torch.Tensor | None],
        key: tuple[str, str],
    ) -> bool:
        return numbers.compare(a.get(key), b.get(key), self._scale.get(key[1], 0.0))[0] != "ok"

    @staticmethod
    def _add(
        table: dict[tuple[str, str], torch.Tensor | None], key: tuple[str, str], value: torch.Tensor | None
    ) -> None:
        old = table.get(key)
        table[key] = value if old is None else (old if value is None else old + value)

    def _note_readers(self) -> None:
        """Without a walk: which saved tensors the nodes hold, from the nodes themselves."""
        for node in self.graph.nodes:
            for _, slot in saved_slots(node):
                held = _held(slot)
                if isinstance(held, Saved):
                    self.reading.reader.setdefault(held, node)

    def _row(self, task: str, leaf: str, broken: dict[str, set[str]]) -> GradientFact:
        row = GradientFact(task, leaf)
        key = (task, leaf)
        known = task not in self.missing
        gradient = self._reference(key)
        row.norm_reference = numbers.norm(gradient) if known else None
        by_version = self.versions.get(key, [])
        row.by_version = sorted(by_version) if len(by_version) > 1 else []
        if leaf in broken.get(task, ()):
            row.status = "raises"
            return row
        if not known:
            return row
        actual = self.as_run[key] if key in self.as_run else self.untouched.get(key)
        row.status, row.relative_difference, row.cosine = numbers.compare(actual, gradient, self._scale.get(leaf, 0.0))
        row.norm_as_run = numbers.norm(actual)
        return row

    # --- who passes where ---------------------------------------------------------------------------------------------------

    def _target_bits(self) -> list[int]:
        if self._leaf_bits is None:
            self._leaf_bits = self._bits_in(self.graph)
        return self._leaf_bits

    def _bits_in(self, graph: Graph) -> list[int]:
        marks: dict[int, int] = {}
        for i, (node, _) in enumerate(self.targets):
            if node in graph.position:
                marks[graph.position[node]] = marks.get(graph.position[node], 0) | 1 << i
        return graph.bits(marks)

    def _cut(self, write: WriteNode, facts: BackwardFacts) -> None:
        """The rows that an unrecorded write makes wrong: those of the tasks that read it."""
        assert self.repair is not None
        bits = self.meant.bits({self.meant.position[write]: 1}) if write in self.meant.position else []
        starts = [(task, self.repair.start(part.edge)[0]) for task, part in self.parts]
        tasks = [t for t, node in starts if node in self.meant.position and bits and bits[self.meant.position[node]]]
        if not write.cut.replayable:
            behind = self._bits_in(self.meant)[self.meant.position[write]] if bits else 0
            leaves = {key for i, key in enumerate(self.targets.values()) if behind >> i & 1}
            for row in facts.gradients:
                if row.task in tasks and row.task in self.unrepaired and row.leaf in leaves and row.status != "raises":
                    row.status = "wrong"
                    row.norm_reference = row.relative_difference = row.cosine = None
        rows = [
            row
            for row in facts.gradients
            if row.task in tasks
            and row.status in ("wrong", "lost")
            and (row.task in self.unrepaired or self._differ(self.untouched, self.recorded, (row.task, row.leaf)))
        ]
        if rows:
            hit = [task for task in dict.fromkeys(tasks) if any(row.task == task for row in rows)]
            facts.cuts.append(CutFact(write.cut.write, hit, sorted({row.leaf for row in rows})))

    def behind(self, node: Node) -> set[str]:
        """The targets that a gradient through `node` reaches."""
        bits = 0
        for child, _ in self.graph.next[self.graph.position[node]]:
            if child is not None:
                bits |= self._target_bits()[self.graph.position[child]]
        return {key for i, key in enumerate(self.targets.values()) if bits >> i & 1}

    def tasks_through(self, node: Node) -> list[str]:
        bits = self.graph.bits({self.graph.position[node]: 1})
        return list(
            dict.fromkeys(
                t for t, p in self.parts if p.edge[0] in self.graph.position and bits[self.graph.position[p.edge[0]]]
            )
        )

    def _bits_of(self, raising: list[Saved]) -> dict[str, set[str]]:
        """Per task the leaves whose path passes a node that would raise."""
        nodes = list(dict.fromkeys(self.reading.reader[saved] for saved in raising))
        if not nodes:
            return {}
        bits = self.graph.bits({self.graph.position[node]: 1 << i for i, node in enumerate(nodes)})
        behind = [self.behind(node) for node in nodes]
        out: dict[str, set[str]] = {}
        for task, part in self.parts:
            if part.edge[0] in self.graph.position:
                here = bits[self.graph.position[part.edge[0]]]
                for i in range(len(nodes)):
                    if here >> i & 1:
                        out.setdefault(task, set()).update(behind[i])
        return out

    # --- conflicts -------------------------------------------------------------------------------------------------------------

    def _conflict(
        self,
        saved: Saved,
        raises: bool,
        changed: bool | None,
        rows: list[GradientFact],
        corrupted: set[tuple[str, str]],
    ) -> ConflictFact | None:
        node = self.reading.reader[saved]
        tasks, behind = self.tasks_through(node), self.behind(node)
        if raises:
            verdict = "breaks"
            leaves = sorted({r.leaf for r in rows if r.task in tasks and r.leaf in behind})
        else:
            hit = [r for r in rows if r.task in tasks and r.leaf in behind and (r.task, r.leaf) in corrupted]
            if not changed or not hit:
                return None
            verdict = "corrupts"
            tasks = [t for t in tasks if any(r.task == t for r in hit)]
            leaves = sorted({r.leaf for r in hit})
        view = saved.view or view_of(saved.tensor)
        name, slot = node_and_slot(node, saved)
        return ConflictFact(
            verdict=verdict,
            writes=culprits(self.session, saved),
            node=name,
            saved_as=slot,
            tensor=self._tensor_name(saved),
            saved_version=saved.version,
            found_version=saved.tensor._version,
            saved_site=saved.site,
            saved_order=saved.order,
            module=self._module(saved),
            value_changed=bool(changed) if saved.clone is not None else False,
            tasks=tasks,
            leaves=leaves,
            size=None if view is None else view.itemsize,
        )

    def _tensor_name(self, saved: Saved) -> str:
        return (
            (self.names.of(saved.tensor) if saved.made_by is None else None)
            or self.names.on_storage(saved.tensor)
            or ""
        )

    def _module(self, saved: Saved) -> str | None:
        return module_name(saved.module, self.names)

    def _saves(self, facts: BackwardFacts, touched: set[Saved]) -> None:
        for saved in sorted(self.reading.reader, key=lambda s: (s not in touched, s.order))[:_MAX_SAVES]:
            name = self._tensor_name(saved)
            if name or saved in touched:
                facts.saves.append(SaveFact(saved.order, name, saved.version, saved.site, saved in touched))
        facts.saves.sort(key=lambda save: save.order)


def module_name(ref: Any, names: Names) -> str | None:
    """The path of a weakly held module, its type's name where nothing in view holds it."""
    module = ref() if ref is not None else None
    if module is None:
        return None
    return names.module(module) or type(module).__name__


def culprits(session: Session, saved: Saved) -> list[tuple[Any, int | None]]:
    """The rows that wrote to what `saved` holds since it was saved, with the bytes in common.

    Where no write overlaps (another slot of the same storage) the version counter is all that moved: then those rows
    that moved it, with 0 bytes.
    """
    bucket = session.index.bucket_of(saved)
    view = saved.view or view_of(saved.tensor)
    later = [hit for hit in (bucket.hits if bucket is not None else ()) if hit.last > saved.order]
    if saved.never_read:
        later = [hit for hit in later if not hit.write.hidden]
    found: dict[Any, int | None] = {}
    for hit in later:
        if view is not None and hit.view is not None:
            common: int | None = shared_bytes(view, hit.view)
        else:
            lo, hi = view.byte_range if view is not None else (0, 0)
            common = max(0, min(hi, hit.hi) - max(lo, hit.lo)) if view is not None else None
        if common is None or common > 0:
            found[hit.write] = max(common or 0, found.get(hit.write) or 0) if common is not None else None
    if not found and saved.overwritten:
        found = dict.fromkeys((hit.write for hit in later if hit.write.version_before != hit.write.version_after), 0)
    return list(found.items())


def node_and_slot(node: Node, saved: Saved) -> tuple[str, str]:
    """The name of the node that reads `saved`, and as what it saved it."""
    for slot, held in saved_slots(node):
        if _held(held) is saved:
            return _plain(node), slot
    if type(node).__name__ == "CopySlices" and saved.op is not None:
        # The node inside of a CopySlices cannot be asked; the operation that was dispatched names it.
        operator = str(saved.op._schema.name).partition("::")[2].strip("_")
        camel = "".join(word[:1].upper() + word[1:] for word in operator.split("_"))
        return f"{camel}Backward0", "result" if saved.made_by is not None else "self"
    return _plain(node), "result" if saved.made_by is not None else "self"


def _plain(node: Node) -> str:
    return str(node.name()).rpartition("::")[2]


def _held(slot: Any) -> Any:
    try:
        return slot.data
    except (RuntimeError, AttributeError):
        return None


def leaf_targets(graph: Graph, inputs: Iterable[Any], names: Names) -> dict[Edge, str]:
    """What a backward call computes gradients of, as edge -> name: its `inputs`, else every leaf it reaches."""
    leaves = [graph.nodes[i] for i in graph.leaves]
    found: list[tuple[Edge, str]] = []
    given = list(inputs)
    for i, item in enumerate(given):
        if not isinstance(item, torch.Tensor):
            found.append(((item[0], item[1]), f"input{i}"))
            continue
        # Not by get_gradient_edge, which makes a view of a leaf: some layouts have none.
        node = item.grad_fn or next((node for node in leaves if node.variable is item), None)
        if node is not None:
            found.append(((node, item.output_nr), names.of(item) or names.on_storage(item) or f"input{i}"))
    if not given:
        for node in leaves:
            leaf = node.variable
            found.append(((node, 0), names.of(leaf) or names.on_storage(leaf) or f"t{storage_id(leaf) % 1000}"))
    targets: dict[Edge, str] = {}
    used: set[str] = set()
    for edge, name in found:
        if edge not in targets:
            while name in used:
                name += "'"
            used.add(name)
            targets[edge] = name
    return targets
