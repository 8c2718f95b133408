"""Asks a tape again for gradients of any recorded tensor, unseen by the program's tapes and by our recorder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from jupyter_inplace.tensorflow.record import private
from jupyter_inplace.tensorflow.record.events import AssignEvent, ReadEvent
from jupyter_inplace.tensorflow.record.handles import handle_of
from jupyter_inplace.tensorflow.record.trace import TapeTrace

Version = tuple[int, int]  # (handle, number)


class CannotAskError(Exception):
    """The tape cannot be asked, or the derivative of an operation is not known here."""


@contextlib.contextmanager
def quiet(trace: TapeTrace) -> Iterator[None]:
    """Hide the operations inside the block from the program's tapes and from our recorder.

    TensorFlow's switch that stops all recording would also stop the tapes that a gradient function opens to recompute, so the
    recording tapes are removed one by one.
    """
    trace.off += 1
    stopped: list[Any] = []
    try:
        for tape in reversed(trace.track.recording()):
            tape._pop_tape()
            stopped.append(tape)
        yield
    finally:
        for tape in reversed(stopped):
            tape._push_tape()
        trace.off -= 1


class Tape:
    """The C++ tape of one call. Ask it within `quiet`."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._ask = private.get("imperative_grad")

    def pull(self, target: Any, sources: Sequence[Any], output: Any = None) -> list[Any]:
        """The gradient of `target` with respect to each source, dense; None if there is none.

        :param output: the gradient of the target; None means ones.
        :raises CannotAskError: this version of TensorFlow or this tape gives no answer.
        """
        if self._ask is None or self._inner is None:
            raise CannotAskError("the tape cannot be asked again")
        if not sources:
            return []
        try:
            found = self._ask(
                self._inner,
                [target],
                [handle_of(s) for s in sources],
                output_gradients=None if output is None else [output],
            )
        except Exception as error:
            raise CannotAskError(f"{type(error).__name__}: {error}") from None
        return [dense(g) for g in found]


def dense(gradient: Any) -> Any:
    """A gradient as one tensor: that of gathered rows is given as slices."""
    return gradient if gradient is None else tf.convert_to_tensor(gradient)


def vector(gradient: Any) -> Any:
    """A gradient as a flat float64 (complex128) array; None stays None."""
    if gradient is None:
        return None
    array = np.asarray(dense(gradient).numpy())
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64).ravel()


def plus(a: Any, b: Any) -> Any:
    """The sum of two gradients, either of which may be None."""
    return b if a is None else a if b is None else a + b


class Through:
    """The gradient through the assigns that the tape does not record.

    Walks the writes backwards: the adjoint of a version goes to the assigned value, and from there, through the tape, to what
    that was computed from; if a write kept part of the old value, also to the version before.

    :param parts: the adjoint of each version by the tape's own reads.
    """

    def __init__(
        self, tape: Tape, reads: Sequence[ReadEvent], writes: Sequence[AssignEvent], tensors: Sequence[Any]
    ) -> None:
        self._tape = tape
        self._reads = [read for read in reads if read.value is not None and read.whole]
        self._writes = sorted(writes, key=lambda write: -write.order)
        self._tensors = list(tensors)
        self.parts: dict[Version, Any] = {}
        self.adjoint: dict[Version, Any] = {}
        #: What each write cuts off from a tensor source (by its index) or a variable (by its handle).
        self.kept: dict[AssignEvent, dict[Any, Any]] = {}

    def start(self, target: Any, output: Any, version: Version | None) -> None:
        """Begin at a target; if it is a variable, at its version."""
        if version is not None:
            value = tf.ones([]) if output is None else output
            self.parts[version] = self.adjoint[version] = value
            return
        for read, gradient in zip(
            self._reads, self._tape.pull(target, [read.value for read in self._reads], output), strict=True
        ):
            key = (read.handle, read.version)
            self.parts[key] = plus(self.parts.get(key), gradient)
        self.adjoint = dict(self.parts)

    def run(self, updates: frozenset[int] = frozenset()) -> None:
        """Walk. `updates` are the handles of variables whose writes by gradients are updates, not paths."""
        for write in self._writes:
            adjoint = self.adjoint.get((write.handle, write.after))
            if adjoint is None:
                continue
            old, value = backwards(write, adjoint)
            before = (write.handle, write.before)
            self.adjoint[before] = plus(self.adjoint.get(before), old)
            if write.update or not write.mask or value is None or not write.inputs:
                continue
            if write.from_gradient and write.handle in updates:
                continue
            reads = [read for read in self._reads if read.order < write.order]
            sources = [*self._tensors, *(read.value for read in reads)]
            found = self._tape.pull(value_of(write), sources, tf.cast(value, value_of(write).dtype))
            kept: dict[Any, Any] = {}
            for place, gradient in enumerate(found[: len(self._tensors)]):
                if gradient is not None:
                    kept["tensor", place] = gradient
            for read, gradient in zip(reads, found[len(self._tensors) :], strict=True):
                key = (read.handle, read.version)
                self.adjoint[key] = plus(self.adjoint.get(key), gradient)
                if gradient is not None:
                    kept[read.handle] = plus(kept.get(read.handle), gradient)
            self.kept[write] = kept


def value_of(write: AssignEvent) -> Any:
    """The assigned tensor: the last input of every operation that writes."""
    return write.inputs[-1]


def backwards(write: AssignEvent, adjoint: Any) -> tuple[Any, Any]:
    """The adjoints of the version before a write and of the written value.

    :raises CannotAskError: for a kind of write whose derivative is not known here.
    """
    op = write.op_type
    if op == "AssignVariableOp":
        return None, adjoint
    if op == "AssignAddVariableOp":
        return adjoint, adjoint
    if op == "AssignSubVariableOp":
        return adjoint, -adjoint
    if write.update:
        return adjoint, None
    if not write.inputs:
        raise CannotAskError("a value too large to hold was written")
    shape, value = tf.shape(adjoint), value_of(write)
    replay = _replay(write)
    with tf.GradientTape(persistent=True) as tape:
        old = tf.zeros(shape, adjoint.dtype)
        tape.watch([old, value])
        new = replay(old, value)
    return tape.gradient(new, old, adjoint), tape.gradient(new, value, adjoint)


def _replay(write: AssignEvent) -> Any:
    """A write to part of a variable as a function of the old value and the written value."""
    op, inputs = write.op_type, write.inputs
    if op == "ResourceStridedSliceAssign":
        names = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
        attrs = dict(zip(write.attrs[::2], write.attrs[1::2], strict=True))
        masks = {name: int(attrs.get(name, 0)) for name in names}
        begin, end, strides = inputs[:3]
        return lambda old, value: tf.raw_ops.TensorStridedSliceUpdate(
            input=old, begin=begin, end=end, strides=strides, value=value, **masks
        )
    replays = {
        "Update": tf.tensor_scatter_nd_update,
        "Add": tf.tensor_scatter_nd_add,
        "Sub": tf.tensor_scatter_nd_sub,
    }
    kind = op.removeprefix("ResourceScatter").removeprefix("Nd")
    if not op.startswith("ResourceScatter") or kind not in replays:
        raise CannotAskError(f"the derivative of {op} is not worked out")
    indices = inputs[0] if op.startswith("ResourceScatterNd") else tf.expand_dims(inputs[0], -1)
    return lambda old, value: replays[kind](old, indices, value)
