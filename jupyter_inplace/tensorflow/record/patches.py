"""The patches of TensorFlow while a watch is open, and the callback of its operations.

A patch is process-wide and looks up the session that is active on the calling thread.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from jupyter_inplace.record.base.patching import Replacement
from jupyter_inplace.record.source.sites import find_site
from jupyter_inplace.tensorflow.record import private
from jupyter_inplace.tensorflow.record.calls import watched_call
from jupyter_inplace.tensorflow.record.functions import remember
from jupyter_inplace.tensorflow.record.handles import handle_of
from jupyter_inplace.tensorflow.record.session import TapeSession, session_here
from jupyter_inplace.tensorflow.record.trace import OptimizerStep
from jupyter_inplace.tensorflow.record.without_callbacks import REPLACEMENTS


def _fast_path(original: Any) -> Any:
    """Makes reads in C++ happen in Python, and notes the numpy arrays that are passed."""
    variable = tf.Variable

    def TFE_Py_FastPathExecute(*args: Any) -> Any:  # noqa: N802  TensorFlow's own name
        session = session_here()
        if session is None or session.off or not session.track.tapes:
            return original(*args)
        for i, arg in enumerate(args):
            if isinstance(arg, variable):
                args = (*args[:i], arg.value(), *args[i + 1 :])
            elif type(arg) is np.ndarray:
                session.memory.pending.append(arg)
        try:
            return original(*args)
        finally:
            if session.memory.pending:
                session.memory.pending = []

    return TFE_Py_FastPathExecute


def _push_tape(original: Any) -> Any:
    """Makes the C++ tape persistent, so that it can be asked again; the Python tape still enforces its own rules."""

    @functools.wraps(original)
    def wrapper(tape: Any) -> Any:
        session = session_here()
        if session is None or session.off or not tf.executing_eagerly():
            return original(tape)
        was = tape._persistent
        tape._persistent = True
        try:
            result = original(tape)
        finally:
            tape._persistent = was
        session.new_tape()
        session.track.began(tape, session.order, next(reversed(session.track.masks), 0))
        return result

    return wrapper


def _watch(original: Any) -> Any:
    """Notes a tensor that a tape watches explicitly, as a source whose results matter."""

    @functools.wraps(original)
    def wrapper(tape: Any, tensor: Any) -> Any:
        result = original(tape, tensor)
        session = session_here()
        if session is not None and not session.off and tf.executing_eagerly():
            try:
                for t in tf.nest.flatten(tensor):
                    if handle_of(t) is t and hasattr(t, "_id"):
                        masks = session.track.masks
                        masks[t._id] = masks.get(t._id, 0) | session.track.bit(("tensor", t._id))
            except Exception as fault:
                session.fault(fault)
        return result

    return wrapper


def _gradient(original: Any) -> Any:
    @functools.wraps(original)
    def gradient(tape: Any, target: Any, sources: Any, *args: Any, **options: Any) -> Any:
        session = session_here()
        if session is None or session.off or session.depth or not tf.executing_eagerly():
            return original(tape, target, sources, *args, **options)
        return watched_call(session, original, tape, target, sources, args, options)

    return gradient


def _export(original: Any) -> Any:
    def TFE_ToDlpackCapsule(tensor: Any) -> Any:  # noqa: N802  TensorFlow's own name
        result = original(tensor)
        session = session_here()
        if session is not None and not session.off:
            session.memory.exported(tensor)
        return result

    return TFE_ToDlpackCapsule


def _import(original: Any) -> Any:
    def TFE_FromDlpackCapsule(*args: Any) -> Any:  # noqa: N802  TensorFlow's own name
        result = original(*args)
        session = session_here()
        if session is not None and not session.off:
            session.memory.exported(result)
        return result

    return TFE_FromDlpackCapsule


def _step(original: Any) -> Any:
    """Makes one write event of a whole optimizer step."""

    @functools.wraps(original)
    def wrapper(optimizer: Any, *args: Any, **options: Any) -> Any:
        session = session_here()
        if session is None or session.off or session.step is not None or not tf.executing_eagerly():
            return original(optimizer, *args, **options)
        session.step = OptimizerStep(
            f"{type(optimizer).__name__}.{original.__name__}", find_site(2, session.cell_files)
        )
        try:
            return original(optimizer, *args, **options)
        finally:
            session.step = None

    return wrapper


def _call_flat(original: Any) -> Any:
    """Notes the function that is about to run: its graph tells what it reads and assigns."""

    @functools.wraps(original)
    def call_flat(function: Any, *args: Any) -> Any:
        session = session_here()
        if session is not None and not session.off and tf.executing_eagerly():
            remember(session, function)
        return original(function, *args)

    return call_flat


_BY_NAME: dict[str, Callable[[Any], Any]] = {
    "fast_path": _fast_path,
    "push_tape": _push_tape,
    "to_dlpack": _export,
    "from_dlpack": _import,
    "call_flat": _call_flat,
}
_OPTIMIZERS = (
    ("keras.src.optimizers.base_optimizer", "BaseOptimizer"),
    ("tf_keras.src.optimizers.optimizer", "Optimizer"),
)

_shared: dict[tuple[int, str], Replacement] = {}


def _replacement(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Replacement:
    """The replacement of an attribute, the same for all sessions."""
    key = (id(owner), name)
    if key not in _shared:
        _shared[key] = Replacement(owner, name, wrap)
    return _shared[key]


class Patches:
    """Everything that one session has installed."""

    def __init__(self, session: TapeSession) -> None:
        self._session = session
        self._taken: list[Replacement] = []
        self._callback: Any = None

    def install(self) -> None:
        for name, wrap in _BY_NAME.items():
            found = private.owner_of(name)
            if found is None:
                self._session.tell_missing(name)
            else:
                self._take(*found, wrap)
        if private.owner_of("imperative_grad") is None:
            self._session.tell_missing("imperative_grad")
        self._take(tf.GradientTape, "gradient", _gradient)
        self._take(tf.GradientTape, "jacobian", _gradient)
        self._take(tf.GradientTape, "batch_jacobian", _gradient)
        self._take(tf.GradientTape, "watch", _watch)
        self.optimizers()
        callbacks = private.get("op_callbacks")
        if callbacks is None:
            self._session.tell_missing("op_callbacks")
            for attribute, replace in REPLACEMENTS.items():
                owner = next((c for c in _variable_classes() if attribute in vars(c)), None)
                if owner is not None:
                    self._take(owner, attribute, replace)
            return
        self._callback = self._session.operations.seen
        callbacks(self._callback)

    def optimizers(self) -> None:
        """Patch the optimizers; called again when a tape begins, since Keras may be imported later than TensorFlow."""
        for module, name in _OPTIMIZERS:
            owner = getattr(sys.modules.get(module), name, None)
            if owner is not None:
                for attribute in ("apply", "apply_gradients"):
                    if attribute in vars(owner):
                        self._take(owner, attribute, _step)

    def remove(self) -> None:
        """Remove everything, even if something fails."""
        callback, self._callback = self._callback, None
        if callback is not None:
            module = sys.modules[private.NAMES["op_callbacks"][0]]
            try:
                module.remove_op_callback(callback)
            except KeyError:
                pass  # the program cleared all callbacks
        for replacement in reversed(self._taken):
            replacement.release()
        self._taken = []

    def _take(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        replacement = _replacement(owner, name, wrap)
        if replacement not in self._taken and replacement.acquire():
            self._taken.append(replacement)


def _variable_classes() -> list[type]:
    from tensorflow.python.ops import resource_variable_ops

    return [resource_variable_ops.ResourceVariable, resource_variable_ops.BaseResourceVariable]
