"""The damage that one backward call meets: overwritten saved tensors, the rows they spoil, the gradients as meant.

Runs right before the engine does, while the graph is whole, and only where a saved tensor on a written storage is still
alive (or `--gradients` asks). One walk a task gives the reference, and the run where some value changed.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from jupyter_inplace.explain.backward.facts import BackwardFacts, ConflictFact, CutFact, GradientFact, SaveFact
from jupyter_inplace.explain.backward.recomputed import judge, reads_again
from jupyter_inplace.explain.channels.integers import lost_tasks
from jupyter_inplace.explain.graph import numbers
from jupyter_inplace.explain.graph.graph import Graph, Node, saved_slots
from jupyter_inplace.explain.graph.passages import Passages
from jupyter_inplace.explain.graph.pull import Edge, is_of_distributed, pull, pull_both
from jupyter_inplace.explain.graph.reading import BothReadings, CannotPullError, ReferenceReading
from jupyter_inplace.explain.graph.repair import Repair, WriteNode
from jupyter_inplace.explain.graph.split import RootPart
from jupyter_inplace.explain.names.names import Names
from jupyter_inplace.record.base.geometry import shared_bytes, view_of
from jupyter_inplace.record.base.torch_private import Unfollowed, storage_id, without_grad
from jupyter_inplace.record.channels.checkpoints import CheckpointRegion
from jupyter_inplace.record.channels.integers import IntegerWrite
from jupyter_inplace.record.saved.saved import Saved
from jupyter_inplace.record.session import Session

_MAX_SAVES = 2000


@contextlib.contextmanager
def quiet(session: Session) -> Iterator[None]:
    """Our own torch operations: seen by no mode and no tensor class of anybody's, recorded by nobody.

    Python's collector of cycles rests meanwhile: lists of all nodes make it look through everything, and find nothing.
    """
    before, session.muted = session.muted, True
    collecting = gc.isenabled()
    gc.disable()
    try:
        with _disable_current_modes(), Unfollowed(), without_grad():
            yield
    finally:
        session.muted = before
        if collecting:
            gc.enable()


class Damage:
    """Analysis of the tasks `parts` over one graph."""

    def __init__(
        self,
        session: Session,
        graph: Graph,
        parts: list[tuple[str, RootPart]],
        targets: dict[Edge, str],
        names: Names,
        repair: Repair | None = None,
        meant: Graph | None = None,
    ) -> None:
        self.session, self.graph, self.parts, self.targets, self.names = session, graph, parts, targets, names
        self.repair, self.meant = repair, meant or graph
        self.integers: dict[Saved, list[IntegerWrite]] = {}
        self.regions: list[tuple[Any, CheckpointRegion]] = []
        self.reading = BothReadings(session.custom_functions.kept)
        # Gradients by (task, leaf): with saved tensors as the forward wrote them, with them as they are now, and with every
        # write recorded as well.
        self.untouched: dict[tuple[str, str], torch.Tensor | None] = {}
        self.as_run: dict[tuple[str, str], torch.Tensor | None] = {}
        self.recorded: dict[tuple[str, str], torch.Tensor | None] = {}
        self.versions: dict[tuple[str, str], list[tuple[int, float]]] = {}
        self.missing: set[str] = set()
        self.unrepaired: set[str] = set()
        self._again: dict[Node, list[Saved]] = {}
        self._scale: dict[str, float] = {}
        self._compared: dict[tuple[int, int], tuple[Any, ...]] = {}
        self._norms: dict[int, float] = {}
        self.passages = Passages(graph, [(task, part.edge[0]) for task, part in parts], targets)
        self.meant_passages = self.passages
        if repair is not None:
            starts = [(task, repair.start(part.edge)[0]) for task, part in parts]
            self.meant_passages = Passages(self.meant, starts, targets)

    def run(self, facts: BackwardFacts, touched: list[Saved], groups: dict[Edge, dict[Node, int]]) -> None:
        self._again = reads_again(self.graph, self.regions)
        self.reading.again = self._again
        if self.graph.recomputes:
            facts.notes.append("a checkpointed region was recomputed once more for the gradients, its writes undone")
        refusals = self._pull(groups, facts)
        touched = [saved for saved in touched if saved in self.reading.reader]
        raising = [saved for saved in touched if saved.overwritten]
        changed = {saved: self.reading.is_changed(saved) for saved in touched if saved.clone is not None}
        silent = [saved for saved in touched if not saved.overwritten and changed.get(saved)]
        if silent or self._again:
            for task, reason in refusals.items():
                facts.notes.append(f"gradients of {task} as run are missing: {reason}")
            refusing = {reason.node for reason in refusals.values()}
            raising += [saved for saved in silent if self.reading.reader[saved] in refusing]
        else:
            self.as_run.clear()
        cuts: list[WriteNode] = []
        if self.repair is not None:
            self._pull_recorded(facts)
            cuts = [write for write in self.repair.writes if write.changed or not write.cut.replayable]
        broken = self._broken_by(raising)
        keys = dict.fromkeys((*self.untouched, *self.recorded))
        self._scale.update(dict.fromkeys((leaf for _, leaf in keys), 0.0))
        for (_, leaf), g in self.untouched.items():
            self._scale[leaf] = max(self._scale[leaf], self._norm(g))
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
        broken = self._broken_by(raising)
        for task, part in self.parts:
            for leaf in self.passages.reached(part.edge[0]).values():
                facts.gradients.append(GradientFact(task, leaf, "raises" if leaf in broken.get(task, ()) else "ok"))
        for saved in raising:
            changed = numbers.same_values(saved.value, saved.tensor) is False if saved.clone is not None else False
            fact = self._conflict(saved, True, changed, facts.gradients, set())
            if fact is not None:
                facts.conflicts.append(fact)

    # --- gradients -------------------------------------------------------------------------------------------------------

    def _pull(self, groups: dict[Edge, dict[Node, int]], facts: BackwardFacts) -> dict[str, CannotPullError]:
        """Gradients with saved tensors as the forward wrote them, and as run. Gives the tasks of which the run refuses something."""
        python = [node for i in self.graph.python_nodes if not is_of_distributed(node := self.graph.nodes[i])]
        refusals: dict[str, CannotPullError] = {}
        for task, part in self.parts:
            reached = self.passages.reached(part.edge[0])
            found: dict[Any, Any] = {}
            as_run: dict[Any, Any] | CannotPullError | None = None
            try:
                found, as_run = pull_both(
                    self.graph, [(part.edge, part.grad)], reached, self.reading, groups, self.passages.useful
                )
            except CannotPullError as reason:
                self.missing.add(task)
                facts.notes.append(f"gradients of {task} are missing: {reason}")
                self._note_readers()
            if isinstance(as_run, CannotPullError):
                # With the values of the forward it ran: the engine will meet the same error.
                refusals[task] = as_run
            for key in reached.values():
                self._add(self.untouched, (task, key), found.get(key))
                if isinstance(as_run, dict):
                    self._add(self.as_run, (task, key), as_run[key])
            for key, value in found.items():
                if isinstance(key, tuple) and len(key) == 2 and isinstance(key[1], int):
                    self.versions.setdefault((task, key[0]), []).append((key[1], numbers.norm(value) or 0.0))
        if python and self.parts:
            names = sorted({type(node).__name__.removesuffix("Backward") for node in python})
            facts.notes.append(
                f"the backward of {', '.join(names)} was run once more for the reference gradients, its writes undone"
            )
        return refusals

    def _pull_recorded(self, facts: BackwardFacts) -> None:
        assert self.repair is not None
        reading = ReferenceReading(self.session.custom_functions.kept)
        reading.again = self._again
        for task, part in self.parts:
            if task in self.missing:
                continue
            start = self.repair.start(part.edge)
            reached = self.meant_passages.reached(start[0])
            try:
                found = pull(self.meant, [(start, part.grad)], reached, reading, useful=self.meant_passages.useful)
            except CannotPullError as reason:
                self.unrepaired.add(task)
                facts.notes.append(f"gradients of {task} with every write recorded are missing: {reason}")
                continue
            for key in reached.values():
                self._add(self.recorded, (task, key), found.get(key))

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
        x, y = a.get(key), b.get(key)
        return x is not y and self._compare(x, y, key[1])[0] != "ok"

    def _compare(self, x: torch.Tensor | None, y: torch.Tensor | None, leaf: str) -> tuple[Any, ...]:
        """As `numbers.compare`, once for two gradients. They stand in our tables: what has their id is them."""
        key = (id(x), id(y))
        if key not in self._compared:
            self._compared[key] = numbers.compare(x, y, self._scale.get(leaf, 0.0))
        return self._compared[key]

    def _norm(self, g: torch.Tensor | None) -> float:
        if id(g) not in self._norms:
            self._norms[id(g)] = numbers.norm(g) or 0.0
        return self._norms[id(g)]

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
        row.norm_reference = self._norm(gradient) if known else None
        by_version = self.versions.get(key, [])
        row.by_version = sorted(by_version) if len(by_version) > 1 else []
        if leaf in broken.get(task, ()):
            row.status = "raises"
            return row
        if not known:
            return row
        actual = self.as_run[key] if key in self.as_run else self.untouched.get(key)
        row.status, row.relative_difference, row.cosine = self._compare(actual, gradient, leaf)
        row.norm_as_run = self._norm(actual)
        return row

    # --- who passes where ---------------------------------------------------------------------------------------------------

    def _cut(self, write: WriteNode, facts: BackwardFacts) -> None:
        """The rows that an unrecorded write makes wrong: those of the tasks that read it."""
        assert self.repair is not None
        tasks = self.meant_passages.tasks(write)
        if not write.cut.replayable:
            leaves = set(self.meant_passages.reached(write).values())
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

    def _broken_by(self, raising: list[Saved]) -> dict[str, set[str]]:
        """Per task the leaves whose path passes a node that would raise."""
        out: dict[str, set[str]] = {}
        for node in dict.fromkeys(self.reading.reader[saved] for saved in raising):
            for task in self.passages.tasks(node):
                out.setdefault(task, set()).update(self.passages.behind(node))
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
        tasks, behind = self.passages.tasks(node), self.passages.behind(node)
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
