"""torch.compile must not compile us: our functions are marked such that Dynamo runs them as they are.

Its frame hook sees every Python function that runs while a compiled region does, ours among them: it would trace our wrapper
of `register_hook`, emit a call of `register_hook`, meet the wrapper again, and so on.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

from jupyter_inplace._package import FOLDER
from jupyter_inplace.record.base import torch_private as private

_PACKAGE = __name__.partition(".")[0] + "."
_marked: set[str] = set()


def keep_out() -> None:
    """Mark the functions of all modules of this package that have been imported since the last call. Imports no Dynamo."""
    if private.skip_in_dynamo is None:
        return
    for name in [name for name in sys.modules if name.startswith(_PACKAGE) and name not in _marked]:
        _marked.add(name)
        for code in _codes_of(vars(sys.modules[name])):
            private.skip_in_dynamo(code)


def _codes_of(namespace: Any) -> Iterator[types.CodeType]:
    for value in list(namespace.values()):
        if isinstance(value, type) and value.__module__.startswith(_PACKAGE):
            yield from _codes_of(vars(value))
            continue
        if isinstance(value, property):
            functions: tuple[Any, ...] = (value.fget, value.fset, value.fdel)
        else:
            functions = (getattr(value, "__func__", value),)
        for function in functions:
            if isinstance(function, types.FunctionType) and function.__module__.startswith(_PACKAGE):
                # A decorated function shares its outer code with everybody's: `contextlib.contextmanager` has one helper for all.
                for code in (function.__code__, getattr(getattr(function, "__wrapped__", None), "__code__", None)):
                    if code is not None and code.co_filename.startswith(FOLDER):
                        yield from _nested(code)


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)
