"""The recorder of one thread: every eager read and write of a variable, in force while a watch is open.

It runs inside of the program's operations, so it keeps to what cannot be had later: numbers, sites and, while a tape
lives, the tensors that were read and written, which are immutable.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from jupyter_inplace.record.source.sites import find_site
from jupyter_inplace.tensorflow import events, private
from jupyter_inplace.tensorflow.events import Read, Row, Variable, Write
from jupyter_inplace.tensorflow.memory import SharedMemory
from jupyter_inplace.tensorflow.track import GRADIENT, Track

if TYPE_CHECKING:
    from jupyter_inplace.tensorflow.facts import Call
    from jupyter_inplace.tensorflow.patches import Patches

_here = threading.local()

_NOTHING, _READ, _WRITE, _MAKE, _FUNCTION, _STOP = range(6)


def session_here() -> Session | None:
    """The session in force on this thread."""
    session: Session | None = getattr(_here, "session", None)
    return session


def _leave_in_child() -> None:
    """A forked process goes on unwatched: nobody would read its report."""
    session = session_here()
    if session is not None:
        _here.session = None
        session.off += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_in_child)


@dataclasses.dataclass(slots=True)
class Step:
    """An optimizer step under way: one row of the report, one write each time."""

    op: str
    site: Any
    counted: bool = False


class Session:
    """What happened to variables on this thread since the first watch was opened."""

    def __init__(self) -> None:
        self.variables: dict[int, Variable] = {}
        self.rows: dict[Any, Row] = {}
        self.calls: list[Call] = []
        self.track = Track()
        self.memory = SharedMemory(self)
        self.blind_spots: dict[str, None] = {}
        self.cell_files: frozenset[str] = frozenset()
        self.order = 0
        self.used = False
        self.started = time.perf_counter()
        self.windows = 0
        #: More than zero: the work is ours.
        self.off = 0
        #: More than zero: a gradient is being worked out.
        self.depth = 0
        #: The optimizer step under way.
        self.step: Step | None = None
        self.on_gradient: Callable[..., None] | None = None
        #: True: every gradient is looked at; False: none.
        self.gradients: bool | None = None
        #: Names of variables that were in view when they mattered, by handle.
        self.known_names: dict[int, str] = {}
        #: What each traced function does to variables, by its name.
        self.functions: dict[str, Any] = {}
        self._kinds: dict[Any, int] = dict.fromkeys(events.READS, _READ) | dict.fromkeys(events.WRITES, _WRITE)
        self._kinds |= {"VarHandleOp": _MAKE, "StopGradient": _STOP}
        self._fresh: set[int] = set()
        self._patches: Patches | None = None

    # --- in force ---------------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Put everything in force on this thread; once for all windows."""
        from jupyter_inplace.tensorflow.patches import Patches

        self.windows += 1
        if self.windows > 1:
            return
        _here.session = self
        self._patches = Patches(self)
        self._patches.install()

    def remove(self) -> None:
        """Take everything out of force with the last window."""
        self.windows -= 1
        if self.windows:
            return
        _here.session = None
        patches, self._patches = self._patches, None
        if patches is not None:
            patches.remove()
        self.track.tapes.clear()
        self.track.clear()

    def new_tape(self) -> None:
        """A tape begins: what was imported meanwhile is taken in."""
        if self._patches is not None:
            self._patches.optimizers()

    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def fault(self, fault: BaseException) -> None:
        """A fault of ours: said in the report, and nowhere else."""
        self.blind_spots.setdefault(f"a fault of the recorder: {type(fault).__name__}: {fault}")

    # --- operations ---------------------------------------------------------------------------------------------------

    def seen(self, op_type: Any, inputs: Any, attrs: Any, outputs: Any, op_name: Any = None, graph: Any = None) -> None:
        """The callback of every operation on this thread."""
        if graph is not None or self.off:
            return
        try:
            kind = self._kinds.get(op_type)
            if kind is None:
                kind = self._learn(op_type)
            if kind != _NOTHING:
                self._resource(kind, op_type, inputs, attrs, outputs)
            elif self.track.tapes:
                masks = self.track.masks
                mask = 0
                for t in inputs:
                    mask |= masks.get(t._id, 0)
                if self.memory.pending:
                    mask |= self.memory.arrived(inputs)
                if mask:
                    for t in outputs:
                        masks[t._id] = mask
                    if op_type == "AddV2":
                        self.track.sums[outputs[0]._id] = (inputs[0]._id, inputs[1]._id)
            self.used = True
        except Exception as fault:
            self.fault(fault)

    def _learn(self, op_type: Any) -> int:
        name = op_type.decode() if isinstance(op_type, bytes) else str(op_type)
        kind = self._kinds.get(name, _NOTHING)
        if name.startswith(events.APPLY):
            kind = _WRITE
        elif name.startswith(("__inference_", "__forward_", "__backward_")) or "PartitionedCall" in name:
            kind = _FUNCTION
        self._kinds[op_type] = kind
        return kind

    def _resource(self, kind: int, op_type: Any, inputs: Any, attrs: Any, outputs: Any) -> None:
        if kind == _READ:
            if self.track.tapes:
                self.read(op_type, inputs[0], outputs, find_site(3, self.cell_files))
        elif kind == _WRITE:
            name = op_type.decode() if isinstance(op_type, bytes) else op_type
            self._write(name, inputs, attrs)
        elif kind == _MAKE:
            self._fresh.add(outputs[0]._id)
        elif kind == _FUNCTION:
            self._function(op_type, inputs, outputs)

    def _function(self, op_type: Any, inputs: Any, outputs: Any) -> None:
        from jupyter_inplace.tensorflow.functions import called

        called(self, op_type, inputs, outputs)

    def variable(self, handle: Any) -> Variable:
        """What is known of the variable with this handle."""
        known = self.variables.get(handle._id)
        if known is None:
            known = self.variables[handle._id] = _describe(handle)
        return known

    def read(self, op_type: Any, handle: Any, outputs: Any, site: Any) -> None:
        """A read of a variable while a tape lives."""
        variable = self.variable(handle)
        if not variable.floating:
            return
        if not self.track.tapes:
            return
        value = outputs[0]
        whole = op_type == "ReadVariableOp"
        held = value if self.track.hold(variable.bytes) else None
        self.order += 1
        key = (variable.handle, variable.version)
        self.track.reads.append(
            Read(
                self.order,
                variable.handle,
                variable.version,
                site,
                held,
                whole,
                self.depth > 0,
            )
        )
        self.track.masks[value._id] = self.track.bit(key)

    def _write(self, op_type: str, inputs: Any, attrs: Any) -> None:
        handle = inputs[0]
        if handle._id in self._fresh:
            self._fresh.discard(handle._id)  # its first value is no change
            self.variable(handle)
            return
        site = None if self.step is not None else find_site(4, self.cell_files)
        self.wrote(self.variable(handle), op_type, tuple(inputs[1:]), attrs, site)

    def wrote(self, variable: Variable, op_type: str, inputs: tuple[Any, ...], attrs: Any, site: Any) -> None:
        """A write to a variable: a new version of it."""
        self.order += 1
        before = variable.version
        variable.version = before + 1
        variable.written = self.order
        row = self._row(variable, op_type, site, before)
        row.after = variable.version
        if self.step is None:
            row.count += 1
        elif not self.step.counted:
            row.count += 1
            self.step.counted = True
        track = self.track
        if track.tapes and variable.floating:
            mask = track.mask_of(inputs)
            held = inputs if track.hold(variable.bytes) else ()
            track.writes.append(
                Write(
                    row,
                    self.order,
                    variable.handle,
                    op_type,
                    held,
                    attrs,
                    before,
                    variable.version,
                    mask & ~GRADIENT,
                    self.step is not None,
                    bool(mask & GRADIENT),
                )
            )
            track.prune()

    def _row(self, variable: Variable, op_type: str, site: Any, before: int) -> Row:
        if self.step is not None:
            op, site = self.step.op, self.step.site
            key: Any = (op, site)
        else:
            op = events.WRITES.get(op_type, op_type)
            key = (op, site, variable.handle)
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = Row(
                op,
                site,
                variable.handle,
                variable.shape,
                variable.dtype,
                variable.device,
                self.order,
                self.seconds(),
                before,
                before + 1,
            )
        row.handles[variable.handle] = None
        return row


def _describe(handle: Any) -> Variable:
    shape: tuple[int, ...] = ()
    dtype = tf.float32
    data = getattr(handle, "_handle_data", None)
    if data is not None and data.shape_and_type:
        first = data.shape_and_type[0]
        shape = tuple(dim.size for dim in first.shape.dim)
        dtype = tf.as_dtype(first.dtype)
    size = dtype.size or 1
    for n in shape:
        size *= max(n, 0)
    device = str(getattr(handle, "device", "") or "").rpartition("device:")[2].lower()
    return Variable(
        handle._id,
        shape,
        dtype.name,
        "cpu" if device.startswith("cpu") else device,
        dtype.is_floating or dtype.is_complex,
        size,
        weakref.ref(handle),
    )


def tell_missing(session: Session, name: str) -> None:
    """Say that a private name of TensorFlow is missing, and what is out of sight for it."""
    session.blind_spots.setdefault(f"this TensorFlow has no {private.NAMES[name][1]}: {private.missing(name)}")
