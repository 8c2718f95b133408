"""One call of `tape.gradient`: run as it is, then looked at, where there is something to look at."""

from __future__ import annotations

import sys
from typing import Any

import tensorflow as tf

from jupyter_inplace.record.source.sites import find_site
from jupyter_inplace.tensorflow.events import Read, Write
from jupyter_inplace.tensorflow.facts import Call
from jupyter_inplace.tensorflow.memory import Shared
from jupyter_inplace.tensorflow.pulls import handle_of
from jupyter_inplace.tensorflow.session import Session
from jupyter_inplace.tensorflow.track import GRADIENT

_NAMED_CALLS = 3  # calls at one place that are looked at where nothing harmful is suspected


class Request:
    """What was asked of a tape, with what the recorder kept that may matter to the answer."""

    def __init__(self, session: Session, tape: Any, target: Any, sources: Any, output: Any) -> None:
        track = session.track
        self.inner = tape._tape
        self.start = track.start_of(tape)
        self.targets = tf.nest.flatten(target)
        self.sources = tf.nest.flatten(sources)
        self.outputs = [None] * len(self.targets) if output is None else tf.nest.flatten(output)
        self.first_order = session.order
        self.jacobian = False
        self.reads: list[Read] = [read for read in track.reads if read.order > self.start]
        self.writes: list[Write] = [write for write in track.writes if write.order > self.start]
        self.direct = [self._mask(session, t) for t in self.targets]
        self.closure, self.reached = self._reach(session)

    @staticmethod
    def _mask(session: Session, target: Any) -> int:
        """The versions that a target was computed from; those of a variable are its own."""
        handle = handle_of(target)
        if handle is not target:
            known = session.variables.get(getattr(handle, "_id", -1))
            return 0 if known is None else session.track.bit((known.handle, known.version))
        return session.track.masks.get(getattr(target, "_id", -1), 0)

    def _reach(self, session: Session) -> tuple[int, list[Write]]:
        """What the targets depend on, through assigns too; and those assigns."""
        bits = session.track.bits
        closure = 0
        for mask in self.direct:
            closure |= mask
        reached: list[Write] = []
        for write in reversed(self.writes):
            bit = bits.get((write.handle, write.after), 0)
            if bit & closure:
                reached.append(write)
                closure |= write.mask
                if write.op_type != "AssignVariableOp":
                    closure |= session.track.bit((write.handle, write.before))
        return closure, reached

    def versions_read(self, session: Session, handle: int) -> list[int]:
        """The versions of a variable that some target depends on directly."""
        bits, direct = session.track.bits, 0
        for mask in self.direct:
            direct |= mask
        found = {r.version for r in self.reads if r.handle == handle and bits.get((handle, r.version), 0) & direct}
        return sorted(found)


class Suspicion:
    """Why a call is worth a closer look."""

    def __init__(self, session: Session, request: Request, again: list[Read]) -> None:
        bits = session.track.bits
        handles = [getattr(handle_of(s), "_id", -1) for s in request.sources]
        self.cuts = [w for w in request.reached if w.mask & ~GRADIENT and not w.update]
        self.mixed = [h for h in handles if len(request.versions_read(session, h)) > 1]
        self.stale: list[int] = []
        for handle in handles:
            known, versions = session.variables.get(handle), request.versions_read(session, handle)
            if known is not None and len(versions) == 1 and versions[0] != known.version:
                self.stale.append(handle)
        # A variable that the gradient itself read, at another version than the forward.
        self.again: dict[int, tuple[Read, Read]] = {}
        for read in again:
            before = [r for r in request.reads if r.handle == read.handle and not r.inside]
            if before and read.version not in {r.version for r in before}:
                self.again[read.handle] = (before[0], read)
        self.memory: list[Shared] = [
            shared
            for shared in session.memory.changed()
            if bits.get(("memory", shared.tensor), 0) & request.closure or _handed_out(session, shared, request)
        ]

    @property
    def harm(self) -> bool:
        return bool(self.cuts or self.mixed or self.again or self.memory)


def _handed_out(session: Session, shared: Shared, request: Request) -> bool:
    """A tensor whose memory was handed out after it had been used: what was computed from it does not bear its bit."""
    own = session.track.bits.get(("memory", shared.tensor), 0)
    mask = session.track.masks.get(shared.tensor, 0) & ~own
    return shared.kind == "DLPack" and (not mask or bool(mask & request.closure))


def watched_call(
    session: Session,
    original: Any,
    tape: Any,
    target: Any,
    sources: Any,
    args: tuple[Any, ...],
    options: dict[str, Any],
) -> Any:
    """Run the call as the program asked for it; what is found stays in `session.calls`."""
    request: Request | None = None
    call = Call(session.order, session.seconds(), find_site(3, session.cell_files))
    try:
        output = args[0] if args else options.get("output_gradients")
        jacobian = original.__name__ != "gradient"
        request = Request(session, tape, target, sources, None if jacobian else output)
        request.jacobian = jacobian
    except Exception as fault:
        session.fault(fault)
    session.order += 1
    call.order = session.order
    session.depth += 1
    try:
        result = original(tape, target, sources, *args, **options)
    except BaseException as error:
        call.error = f"{type(error).__name__}: {error}"
        session.calls.append(call)
        raise
    finally:
        session.depth -= 1
    try:
        if request is not None:
            _look(session, request, call, result)
    except Exception as fault:
        session.fault(fault)
    finally:
        if getattr(tape, "_tape", None) is None:
            session.track.ended(id(tape))
    return result


def _look(session: Session, request: Request, call: Call, result: Any) -> None:
    track = session.track
    flat = tf.nest.flatten(result)
    for gradient in flat:
        if isinstance(gradient, tf.Tensor):
            track.masks[gradient._id] = track.masks.get(gradient._id, 0) | GRADIENT
        elif isinstance(gradient, tf.IndexedSlices):
            values = gradient.values._id
            track.masks[values] = track.masks.get(values, 0) | GRADIENT
    again = [read for read in track.reads if read.order > call.order and read.inside]
    suspicion = Suspicion(session, request, again)
    earlier = sum(1 for other in session.calls if other.site == call.site)
    if not suspicion.harm and not (suspicion.stale and earlier < _NAMED_CALLS) and session.gradients is not True:
        if earlier < _NAMED_CALLS:
            session.calls.append(call)
        return
    session.calls.append(call)
    if session.on_gradient is not None:
        session.on_gradient(session, request, call, flat, suspicion, sys._getframe(3))
