"""Permits writes that autograd refuses, to see the cell as it was intended."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_AUGMENTED = {
    f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift")
}  # fmt: skip


class Permit(TorchFunctionMode):
    """Makes each in-place call without grad mode, where torch refuses none."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not writes(func, args, kwargs):
            return func(*args, **kwargs)
        with torch.no_grad():
            return func(*args, **kwargs)


def writes(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether a call of a torch function writes in place: by its name, an `inplace` flag, or `out=`."""
    name = getattr(func, "__name__", "")
    if name == "__setitem__" or name in _AUGMENTED or (name.endswith("_") and not name.endswith("__")):
        return True
    if kwargs.get("out") is not None or kwargs.get("inplace") is True:
        return True
    if getattr(func, "__module__", None) != "torch.nn.functional" or len(args) < 2:
        return False
    try:
        return inspect.signature(func).bind_partial(*args, **kwargs).arguments.get("inplace") is True
    except (TypeError, ValueError):
        return False
