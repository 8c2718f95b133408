"""Restores variables and shared memory to the values of the forward while a tape is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from jupyter_inplace.tensorflow.explain.pulls import CannotAskError
from jupyter_inplace.tensorflow.record.calls import Suspicion
from jupyter_inplace.tensorflow.record.trace import TapeTrace


@contextlib.contextmanager
def as_before(trace: TapeTrace, suspicion: Suspicion) -> Iterator[None]:
    """Inside the block variables and shared memory hold the values of the forward. Use within `quiet`.

    :raises CannotAskError: a value was too large to hold, or its memory cannot be written.
    """
    undo: list[Any] = []
    try:
        for handle, (before, _) in suspicion.again.items():
            resource = trace.variables[handle].resource()
            if resource is None or before.value is None or not before.whole:
                raise CannotAskError("the value that the forward read was not held")
            now = tf.raw_ops.ReadVariableOp(resource=resource, dtype=before.value.dtype)
            undo.append(lambda resource=resource, now=now: tf.raw_ops.AssignVariableOp(resource=resource, value=now))
            tf.raw_ops.AssignVariableOp(resource=resource, value=before.value)
        for shared in suspicion.memory:
            view = _writable(shared.view)
            now_ = np.array(view)
            undo.append(lambda view=view, now_=now_: np.copyto(view, now_))
            np.copyto(view, shared.before)
        yield
    finally:
        for step in reversed(undo):
            step()


def _writable(view: Any) -> Any:
    """The same memory as a writable array: the one that a tensor gives is read-only."""
    if view.flags.writeable:
        return view
    import ctypes

    buffer = (ctypes.c_char * view.nbytes).from_address(view.ctypes.data)
    return np.frombuffer(buffer, dtype=view.dtype).reshape(view.shape)
