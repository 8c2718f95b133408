"""What the watches of one thread have seen of TensorFlow so far, and the state shared by the parts of its recorder.

It is filled inside the program's operations, so it stores only what is not available later: numbers, sites and, while a
tape is alive, the tensors that were read and written, which are immutable.
"""

from __future__ import annotations

import dataclasses
import time
import weakref
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from jupyter_inplace import _faults
from jupyter_inplace.tensorflow.record import events, private
from jupyter_inplace.tensorflow.record.events import AssignEvent, AssignRow, KnownVariable, ReadEvent
from jupyter_inplace.tensorflow.record.facts import TapeCall
from jupyter_inplace.tensorflow.record.track import GRADIENT, Track


@dataclasses.dataclass(slots=True)
class OptimizerStep:
    """An active optimizer step: one row of the report, one write each time."""

    op: str
    site: Any
    counted: bool = False


class TapeTrace:
    """What happened to variables on this thread since the first watch was opened."""

    def __init__(self) -> None:
        self.variables: dict[int, KnownVariable] = {}
        self.rows: dict[Any, AssignRow] = {}
        self.calls: list[TapeCall] = []
        self.track = Track()
        self.blind_spots: dict[str, None] = {}
        self.unknown_because: dict[str, None] = {}  # what could not be worked out
        self.cell_files: frozenset[str] = frozenset()
        self.order = 0
        self.used = False
        self.started = time.perf_counter()
        #: More than zero while our own operations run.
        self.off = 0
        #: More than zero while a gradient is computed.
        self.depth = 0
        #: The active optimizer step.
        self.step: OptimizerStep | None = None
        self.on_gradient: Callable[..., None] | None = None
        #: True: analyse every gradient; False: none.
        self.gradients: bool | None = None
        #: Names that variables had when they mattered, by handle.
        self.known_names: dict[int, str] = {}
        #: What each traced function does to variables, by its name.
        self.functions: dict[str, Any] = {}

    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def fault(self, fault: BaseException) -> None:
        """Note a fault of our own, which is only mentioned in the report."""
        _faults.show(fault)
        self.leave_open(f"a fault of the recorder: {type(fault).__name__}: {fault}")

    def leave_open(self, reason: str) -> None:
        """Something may have harmed a gradient, and nobody can tell: the report says `unknown`, for this reason."""
        self.blind_spots.setdefault(reason)
        self.unknown_because.setdefault(reason)

    def tell_missing(self, name: str) -> None:
        """Note that a private name of TensorFlow is missing, and what is not seen without it."""
        self.blind_spots.setdefault(f"this TensorFlow has no {private.NAMES[name][1]}: {private.missing(name)}")

    # --- reads and writes ---------------------------------------------------------------------------------------------

    def variable(self, handle: Any) -> KnownVariable:
        """What is known about the variable with this handle."""
        known = self.variables.get(handle._id)
        if known is None:
            known = self.variables[handle._id] = _describe(handle)
        return known

    def read(self, op_type: Any, handle: Any, outputs: Any, site: Any) -> None:
        """Record a read of a variable while a tape is alive."""
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
            ReadEvent(
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

    def wrote(self, variable: KnownVariable, op_type: str, inputs: tuple[Any, ...], attrs: Any, site: Any) -> None:
        """Record a write to a variable, which makes a new version."""
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
                AssignEvent(
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

    def _row(self, variable: KnownVariable, op_type: str, site: Any, before: int) -> AssignRow:
        if self.step is not None:
            op, site = self.step.op, self.step.site
            key: Any = (op, site)
        else:
            op = events.WRITES.get(op_type, op_type)
            key = (op, site, variable.handle)
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = AssignRow(
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


def _describe(handle: Any) -> KnownVariable:
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
    return KnownVariable(
        handle._id,
        shape,
        dtype.name,
        "cpu" if device.startswith("cpu") else device,
        dtype.is_floating or dtype.is_complex,
        size,
        weakref.ref(handle),
    )
