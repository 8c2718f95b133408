"""For a TensorFlow without op callbacks: patches the public methods of variables while a watch is open."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from jupyter_inplace.record.source.sites import find_site
from jupyter_inplace.tensorflow.record.session import session_here

_OPS = {
    "assign": "AssignVariableOp",
    "assign_add": "AssignAddVariableOp",
    "assign_sub": "AssignSubVariableOp",
}


def _writing(op_type: str) -> Callable[[Any], Any]:
    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        def wrapper(variable: Any, value: Any, *args: Any, **options: Any) -> Any:
            session = session_here()
            if session is None or session.off or not tf.executing_eagerly():
                return original(variable, value, *args, **options)
            site = find_site(2, session.cell_files)
            result = original(variable, value, *args, **options)
            try:
                session.used = True
                held = (value,) if isinstance(value, tf.Tensor) else ()
                session.wrote(session.variable(variable.handle), op_type, held, (), site)
            except Exception as fault:
                session.fault(fault)
            return result

        return wrapper

    return wrap


def _reading(original: Any) -> Any:
    @functools.wraps(original)
    def wrapper(variable: Any, *args: Any, **options: Any) -> Any:
        result = original(variable, *args, **options)
        session = session_here()
        if session is not None and not session.off and tf.executing_eagerly():
            try:
                session.used = True
                session.read("ReadVariableOp", variable.handle, (result,), find_site(2, session.cell_files))
            except Exception as fault:
                session.fault(fault)
        return result

    return wrapper


REPLACEMENTS: dict[str, Callable[[Any], Any]] = {
    **{name: _writing(op_type) for name, op_type in _OPS.items()},
    **{
        name: _writing("Resource" + "".join(word.capitalize() for word in name.split("_")))
        for name in ("scatter_add", "scatter_sub", "scatter_update", "scatter_mul", "scatter_div")
    },
    "_read_variable_op": _reading,
}
