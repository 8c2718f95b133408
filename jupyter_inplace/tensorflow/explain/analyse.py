"""The facts of one suspicious call of `tape.gradient`: gradients cut by an assign, mixed versions, changed values."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from jupyter_inplace.explain.names.names import namespaces
from jupyter_inplace.record.source.resolver import SiteResolver
from jupyter_inplace.report.data import Gradient, VersionNorm
from jupyter_inplace.report.order import worse_status
from jupyter_inplace.tensorflow.explain.names import TapeNames
from jupyter_inplace.tensorflow.explain.pulls import CannotAskError, Tape, Through, plus, quiet, vector
from jupyter_inplace.tensorflow.explain.restore import as_before
from jupyter_inplace.tensorflow.explain.tasks import TapeTask, leaf_names, tasks_of
from jupyter_inplace.tensorflow.explain.wording import number
from jupyter_inplace.tensorflow.record.calls import Request, Suspicion
from jupyter_inplace.tensorflow.record.events import AssignEvent
from jupyter_inplace.tensorflow.record.facts import AssignEffect, ReadFact, Reread, TapeCall
from jupyter_inplace.tensorflow.record.handles import handle_of, number_of
from jupyter_inplace.tensorflow.record.session import TapeSession

_ROUNDING = 1e-5  # relative: float32 sums may be in another order


class TapeAnalyst:
    """Analyses the calls of one window."""

    def __init__(self, resolver: Callable[[], SiteResolver], namespace: Callable[[], Mapping[str, Any]]) -> None:
        self._resolver = resolver
        self._namespace = namespace

    def __call__(
        self,
        session: TapeSession,
        request: Request,
        call: TapeCall,
        result: list[Any],
        suspicion: Suspicion,
        frame: types.FrameType | None,
    ) -> None:
        with quiet(session):
            names = TapeNames(namespaces(frame, self._namespace()))
            _Look(session, request, call, result, suspicion, names, self._resolver()).run()


@dataclasses.dataclass
class _Found:
    """The gradients of one task by source: as run, and the reference."""

    task: str
    through: Through | None
    as_run: list[Any]
    reference: list[Any]

    def parts(self, handle: int) -> list[tuple[int, Any]]:
        """The gradient of one variable by version, without versions that do not contribute."""
        if self.through is None:
            return []
        parts = [(version, vector(g)) for (h, version), g in self.through.parts.items() if h == handle]
        return sorted(((v, part) for v, part in parts if part is not None and np.any(part)), key=lambda pair: pair[0])


class _Look:
    def __init__(
        self,
        session: TapeSession,
        request: Request,
        call: TapeCall,
        result: list[Any],
        suspicion: Suspicion,
        names: TapeNames,
        resolver: SiteResolver,
    ) -> None:
        self.session, self.request, self.call, self.result = session, request, call, result
        self.suspicion, self.names, self.resolver = suspicion, names, resolver
        self.tape = Tape(request.inner)
        site = resolver.resolve(call.site)
        self.handles = [number_of(source) for source in request.sources]
        self.leaves = leaf_names(request, names, site)
        self.tasks = tasks_of(session, request, names, site)

    def run(self) -> None:
        call = self.call
        call.tasks = {name: "ok" for name, _, _ in self.tasks}
        if self.request.jacobian:
            self.session.blind_spots.setdefault("a jacobian's numbers are those of the gradient of its target's sum")
        found: list[_Found] = []
        for handle in (*self.handles, *(w.handle for w in self.request.writes)):
            name = self.names.of(handle)
            if name is not None:  # the local names of a function are gone at the end
                self.session.known_names.setdefault(handle, name)
        for task in self.tasks:
            if self.session.gradients is True:
                value = task[1].value() if handle_of(task[1]) is not task[1] else task[1]
                call.losses[task[0]] = vector(value)
            call.reads.extend(read_facts(self.session, self.request, call, task[0]))
            try:
                found.append(self._task(task))
            except CannotAskError as error:
                self.session.blind_spots.setdefault(f"numbers of {task[0]} could not be had: {error}")
                self._without_numbers(task[0])
        mixed = self._mixes(found)
        for one in found:
            for i, leaf in enumerate(self.leaves):
                parts = one.parts(self.handles[i]) if self.handles[i] in mixed else []
                self._row(one.task, leaf, one.as_run[i], one.reference[i], parts)
        self._stale()

    # --- one task -------------------------------------------------------------------------------------------------------

    def _task(self, task: TapeTask) -> _Found:
        name, target, output = task
        alone = len(self.tasks) == 1 and not self.request.jacobian
        got = self.result if alone else self.tape.pull(target, self.request.sources, output)
        as_run = [vector(g) for g in got]
        through = self._through(target, output)
        reference = list(as_run)
        if self.suspicion.again or self.suspicion.memory:
            with as_before(self.session, self.suspicion):
                reference = [vector(g) for g in self.tape.pull(target, self.request.sources, output)]
            self._reread(name, as_run, reference)
        if through is not None:
            self._cuts(name, through, reference)
        return _Found(name, through, as_run, reference)

    def _through(self, target: Any, output: Any) -> Through | None:
        suspicion, request = self.suspicion, self.request
        if not suspicion.cuts and not suspicion.mixed:
            return None
        bits, closure = self.session.track.bits, request.closure
        reads = [r for r in request.reads if bits.get((r.handle, r.version), 0) & closure and r.order < self.call.order]
        if any(r.value is None or not r.whole for r in reads):
            self.session.blind_spots.setdefault(
                "variables that are too large to be held, or read by rows: their gradients are not split by version"
            )
        tensors = [request.sources[i] for i in self._tensor_places()]
        through = Through(self.tape, reads, request.reached, tensors)
        handle = handle_of(target)
        if handle is not target:
            known = self.session.variables.get(handle._id)
            if known is None:
                return None
            value = tf.ones(known.shape, known.dtype) if output is None else output
            through.start(target, value, (known.handle, known.version))
        else:
            through.start(target, output, None)
        through.run(frozenset(self.handles))
        return through

    def _tensor_places(self) -> list[int]:
        """The indices of the sources that are plain tensors."""
        pairs = enumerate(zip(self.request.sources, self.handles, strict=True))
        return [i for i, (source, number_) in pairs if handle_of(source) is source and number_ >= 0]

    def _cuts(self, task: str, through: Through, reference: list[Any]) -> None:
        """Find what each assign cut off from the sources, and add it to the reference."""
        tensors = self._tensor_places()
        for write, kept in through.kept.items():
            hit: list[str] = []
            for i, handle in enumerate(self.handles):
                key: Any = ("tensor", tensors.index(i)) if i in tensors else handle
                gradient = kept.get(key)
                if gradient is None or handle == write.handle or not np.any(vector(gradient)):
                    continue
                reference[i] = plus(reference[i], vector(gradient))
                hit.append(self.leaves[i])
            if hit:
                assert self.call.tasks is not None
                self.call.effects.append(AssignEffect("cuts", write.row, [task], hit))

    def _mixes(self, found: list[_Found]) -> set[int]:
        """Find the sources that the targets read at several versions with different values, each with its writes."""
        mixed: set[int] = set()
        for i, handle in enumerate(self.handles):
            tasks = [one for one in found if one.as_run[i] is not None and one.parts(handle)]
            versions = sorted({version for one in tasks for version, _ in one.parts(handle)})
            if len(versions) < 2 or not self._values_differ(handle, versions):
                continue
            if not all(_close(sum(part for _, part in one.parts(handle)), one.as_run[i]) for one in tasks):
                self.session.blind_spots.setdefault(
                    f"the gradient of {self.leaves[i]} by version does not add up to the tape's own: "
                    "it was read out of sight too"
                )
                continue
            mixed.add(handle)
            for write in self._between(handle, versions[0], versions[-1]):
                note = self._total(tasks[0], handle, write) if len(tasks) == 1 else None
                names = [one.task for one in tasks]
                self.call.effects.append(AssignEffect("mixes", write.row, names, [self.leaves[i]], note, True))
        return mixed

    def _total(self, one: _Found, handle: int, write: AssignEvent) -> str | None:
        """The derivative through an assign that was computed from the variable itself."""
        assert one.through is not None
        parts = one.parts(handle)
        kept = one.through.kept.get(write, {}).get(handle)
        whole = one.through.adjoint.get((handle, parts[0][0]))
        if kept is None or whole is None:
            return None
        texts = " + ".join(number(part) for _, part in parts)
        return (
            f"the tape adds up {texts} over the versions of {self.leaves[self.handles.index(handle)]}; through the "
            f"assign too, which it does not record, the derivative would be {number(vector(whole))}"
        )

    def _between(self, handle: int, first: int, last: int) -> list[AssignEvent]:
        rows: dict[Any, AssignEvent] = {}
        for write in self.request.writes:
            if write.handle == handle and first < write.after <= last:
                rows.setdefault(write.row, write)
        return list(rows.values())

    def _values_differ(self, handle: int, versions: list[int]) -> bool:
        values: dict[int, Any] = {}
        for read in self.request.reads:
            if read.handle == handle and read.version in versions and read.value is not None and read.whole:
                values.setdefault(read.version, read.value.numpy())
        if len(values) < len(versions):
            return True
        first = values[versions[0]]
        return any(not np.array_equal(first, values[v], equal_nan=True) for v in versions[1:])

    def _reread(self, task: str, as_run: list[Any], reference: list[Any]) -> None:
        hit = [leaf for leaf, a, b in zip(self.leaves, as_run, reference, strict=True) if not _same(a, b)]
        verdict = "corrupts" if hit else "harmless"
        for handle, (before, after) in self.suspicion.again.items():
            known = self.session.variables[handle]
            name = self.names.of(handle) or "a variable"
            for write in self._between(handle, before.version, after.version)[:1]:
                fact = Reread(write.row, None, "recomputed", name, before.version, after.version, known.bytes,
                              before.site, [task], hit, verdict)  # fmt: skip
                self.call.rereads.append(fact)
        for shared in self.suspicion.memory:
            name = self.names.of(shared.tensor) or self._owner(shared) or f"memory {shared.through.node}"
            fact = Reread(None, shared, shared.through.node, name, 0, 1, int(shared.view.nbytes),
                          shared.site, [task], hit, verdict)  # fmt: skip
            self.call.rereads.append(fact)

    def _owner(self, shared: Any) -> str | None:
        """The name of the numpy array."""
        for space in reversed(self.names.spaces):
            for name, value in list(space.items()):
                if value is shared.owner and isinstance(name, str) and not name.startswith("_"):
                    return name
        return None

    def _row(self, task: str, leaf: str, as_run: Any, reference: Any, parts: list[tuple[int, Any]]) -> None:
        if as_run is None and reference is None:
            return
        status = "ok"
        if not _same(as_run, reference):
            status = "lost" if as_run is None or not np.any(as_run) else "wrong"
        norm = None if as_run is None else float(np.linalg.norm(as_run))
        meant = None if reference is None else float(np.linalg.norm(reference))
        relative = cosine = None
        if as_run is not None and reference is not None and meant:
            relative = float(np.linalg.norm(as_run - reference)) / meant
            cosine = float(np.real(np.vdot(as_run, reference))) / (norm * meant) if norm else None
        by_version = tuple(VersionNorm(version, float(np.linalg.norm(part))) for version, part in parts)
        assert self.call.tasks is not None
        self.call.tasks[task] = worse_status(self.call.tasks[task], status)
        self.call.vectors[task, leaf] = (as_run, reference)
        self.call.gradients.append(
            Gradient(
                task=task,
                leaf=leaf,
                status=status,  # type: ignore[arg-type]
                norm_as_run=norm,
                norm_reference=meant,
                relative_difference=relative,
                cosine=cosine,
                by_version=by_version,
            )
        )

    # --- notes ----------------------------------------------------------------------------------------------------------

    def _stale(self) -> None:
        """Note gradients taken after a write, of what was read before it: they are correct."""
        for handle in dict.fromkeys(self.suspicion.stale):
            versions = self.request.versions_read(self.session, handle)
            known = self.session.variables[handle]
            i = self.handles.index(handle)
            if any(leaf in hit.leaves for hit in self.call.effects for leaf in (self.leaves[i],)):
                continue
            for task, _, _ in self.tasks:
                pair = self.call.vectors.get((task, self.leaves[i]))
                if pair is None or pair[0] is None:
                    continue
                for write in self._between(handle, versions[-1], known.version)[:1]:
                    self.call.effects.append(
                        AssignEffect("harmless", write.row, [], [], self._stale_note(task, i, write, pair[0]))
                    )

    def _stale_note(self, task: str, i: int, write: AssignEvent, value: Any) -> str:
        """The note on a gradient at a value that the variable no longer has."""
        size = f"its gradient {number(value)}" if value.size == 1 else "its gradient"
        return f"{task} read {self.leaves[i]} before this {write.row.op.rpartition('.')[2]}: {size} is correct, at that value"

    def _without_numbers(self, task: str) -> None:
        """Record what is known if the tape cannot be asked."""
        for i, handle in enumerate(self.handles):
            if handle in self.suspicion.mixed:
                versions = self.request.versions_read(self.session, handle)
                for write in self._between(handle, versions[0], versions[-1]):
                    self.call.effects.append(AssignEffect("mixes", write.row, [task], [self.leaves[i]]))


def read_facts(session: TapeSession, request: Request, call: TapeCall, task: str) -> list[ReadFact]:
    """The reads that a call depends on, one for each place and version."""
    found: dict[Any, ReadFact] = {}
    for read in request.reads:
        if session.track.bits.get((read.handle, read.version), 0) & request.closure and read.order < call.order:
            key = (read.site, read.handle, read.version)
            found.setdefault(key, ReadFact(read.order, call.time, read.handle, read.version, read.site, task))
    return list(found.values())


def _close(a: Any, b: Any) -> bool:
    scale = float(np.linalg.norm(b))
    return bool(np.linalg.norm(a - b) <= _ROUNDING * max(scale, 1e-30) or np.array_equal(a, b, equal_nan=True))


def _same(a: Any, b: Any) -> bool:
    if a is None or b is None:
        other = b if a is None else a
        return other is None or not np.any(other)
    return a.shape == b.shape and _close(a, b)
