"""One call of `tape.gradient`: run unchanged, then analysed if something is suspicious."""

from __future__ import annotations

import sys
from typing import Any

import tensorflow as tf

from jupyter_inplace.record.source.sites import find_site
from jupyter_inplace.tensorflow.record.events import AssignEvent, ReadEvent, SharedTensor, SharedThrough
from jupyter_inplace.tensorflow.record.facts import TapeCall
from jupyter_inplace.tensorflow.record.handles import handle_of
from jupyter_inplace.tensorflow.record.session import TapeSession
from jupyter_inplace.tensorflow.record.trace import TapeTrace
from jupyter_inplace.tensorflow.record.track import GRADIENT

_NAMED_CALLS = 3  # calls at one place that are analysed if nothing harmful is suspected


class Request:
    """A call of `tape.gradient`, with the recorded events that may matter to its result."""

    def __init__(self, trace: TapeTrace, tape: Any, target: Any, sources: Any, output: Any) -> None:
        track = trace.track
        self.inner = tape._tape
        self.start = track.start_of(tape)
        self.targets = tf.nest.flatten(target)
        self.sources = tf.nest.flatten(sources)
        self.outputs = [None] * len(self.targets) if output is None else tf.nest.flatten(output)
        self.first_order = trace.order
        self.jacobian = False
        self.reads: list[ReadEvent] = [read for read in track.reads if read.order > self.start]
        self.writes: list[AssignEvent] = [write for write in track.writes if write.order > self.start]
        self.direct = [self._mask(trace, t) for t in self.targets]
        self.closure, self.reached = self._reach(trace)

    @staticmethod
    def _mask(trace: TapeTrace, target: Any) -> int:
        """The versions that a target was computed from; for a variable, its own version."""
        handle = handle_of(target)
        if handle is not target:
            known = trace.variables.get(getattr(handle, "_id", -1))
            return 0 if known is None else trace.track.bit((known.handle, known.version))
        return trace.track.masks.get(getattr(target, "_id", -1), 0)

    def _reach(self, trace: TapeTrace) -> tuple[int, list[AssignEvent]]:
        """What the targets depend on, including through assigns, and those assigns."""
        bits = trace.track.bits
        closure = 0
        for mask in self.direct:
            closure |= mask
        reached: list[AssignEvent] = []
        for write in reversed(self.writes):
            bit = bits.get((write.handle, write.after), 0)
            if bit & closure:
                reached.append(write)
                closure |= write.mask
                if write.op_type != "AssignVariableOp":
                    closure |= trace.track.bit((write.handle, write.before))
        return closure, reached

    def versions_read(self, trace: TapeTrace, handle: int) -> list[int]:
        """The versions of a variable that some target depends on directly."""
        bits, direct = trace.track.bits, 0
        for mask in self.direct:
            direct |= mask
        found = {r.version for r in self.reads if r.handle == handle and bits.get((handle, r.version), 0) & direct}
        return sorted(found)


class Suspicion:
    """What makes a call suspicious."""

    def __init__(self, session: TapeSession, request: Request, again: list[ReadEvent]) -> None:
        bits = session.track.bits
        handles = [getattr(handle_of(s), "_id", -1) for s in request.sources]
        self.cuts = [w for w in request.reached if w.mask & ~GRADIENT and not w.update]
        self.mixed = [h for h in handles if len(request.versions_read(session, h)) > 1]
        self.stale: list[int] = []
        for handle in handles:
            known, versions = session.variables.get(handle), request.versions_read(session, handle)
            if known is not None and len(versions) == 1 and versions[0] != known.version:
                self.stale.append(handle)
        # A variable that the gradient computation read at another version than the forward.
        self.again: dict[int, tuple[ReadEvent, ReadEvent]] = {}
        for read in again:
            before = [r for r in request.reads if r.handle == read.handle and not r.inside]
            if before and read.version not in {r.version for r in before}:
                self.again[read.handle] = (before[0], read)
        self.memory: list[SharedTensor] = [
            shared
            for shared in session.memory.changed()
            if bits.get(("memory", shared.tensor), 0) & request.closure or _handed_out(session, shared, request)
        ]

    @property
    def harm(self) -> bool:
        return bool(self.cuts or self.mixed or self.again or self.memory)


def _handed_out(trace: TapeTrace, shared: SharedTensor, request: Request) -> bool:
    """Whether a tensor's memory was exported after the tensor had been used: what was computed from it lacks its bit."""
    own = trace.track.bits.get(("memory", shared.tensor), 0)
    mask = trace.track.masks.get(shared.tensor, 0) & ~own
    return shared.through is SharedThrough.DLPACK and (not mask or bool(mask & request.closure))


def watched_call(
    session: TapeSession,
    original: Any,
    tape: Any,
    target: Any,
    sources: Any,
    args: tuple[Any, ...],
    options: dict[str, Any],
) -> Any:
    """Run the call unchanged; the findings are added to `session.calls`."""
    request: Request | None = None
    call = TapeCall(session.order, session.seconds(), find_site(3, session.cell_files))
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


def _look(session: TapeSession, request: Request, call: TapeCall, result: Any) -> None:
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
