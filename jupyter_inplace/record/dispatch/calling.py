"""How a mode calls the operator that it was handed, such that the operator does what it does unwatched.

torch hands an operator to a mode with all dispatch keys above the mode's own switched off, since their kernels have run by then. Two kinds
of operators come as they are, before any kernel: those of the program's own, whose body may be Python, and those that are made of other
operators, where autograd is off (inference mode, guards of the program). What these do inside of themselves has to meet the
keys that it meets without a mode: else views are no views, and in-place writes bump no version.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.arguments import tensors_in
from jupyter_inplace.record.base.schema import is_custom

_NOBODY: Any = TorchDispatchMode()


def caller_of(func: Any) -> Callable[..., Any]:
    """What to call from within a mode in place of an operator."""
    caller: Callable[..., Any] = func
    if isinstance(func, torch._ops.OpOverload):
        if is_custom(func.namespace):
            caller = functools.partial(_call_custom, func)
        elif private.has_kernel is not None and private.has_kernel(func.name(), "CompositeImplicitAutograd"):
            caller = functools.partial(_call_composite, func)
        else:
            caller = func._op  # what the call of an operator comes down to, without the frame in between
    return caller


def _call_custom(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a custom operator's body in the dispatch state it has unwatched, so that its own writes bump versions."""
    restore, below = private.RestorePythonTLSSnapshot, private.AutoDispatchBelowAutograd
    tensors = tensors_in(args) + tensors_in(kwargs.values())
    # Where other modes are in force they come next, and see the operator as they do unwatched.
    if restore is None or below is None or private.dispatch_keys is None or not tensors or private.len_dispatch_stack():
        return func(*args, **kwargs)
    keys = private.dispatch_keys(tensors[0])
    for t in tensors[1:]:
        keys = keys | private.dispatch_keys(t)
    with restore(), below():
        _forget_modes()
        return func.redispatch(keys & private.after_ADInplaceOrView_keyset, *args, **kwargs)


def _call_composite(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operator that is made of others in the dispatch state in which it was called."""
    restore = private.RestorePythonTLSSnapshot
    if restore is None or private.len_dispatch_stack():
        return func(*args, **kwargs)
    with restore():
        _forget_modes()
        return func._op(*args, **kwargs)


def _forget_modes() -> None:
    """Tell torch that no mode is left on this thread: the snapshot is of one that has a mode, and would have it looked for."""
    private.push_dispatch_mode(_NOBODY)
    private.pop_dispatch_mode(None)
