"""Gives each hook, and each backward of a custom Function, its own copy of the gradient.

The engine passes one gradient to several receivers. If one changes it in place, the others get the changed values; here it
changes its own copy, and the changed copy counts as its result.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from jupyter_inplace.rewrite.sandbox.reach import walk


@contextlib.contextmanager
def private_gradients(namespace: Mapping[str, Any]) -> Iterator[None]:
    """Applies to hooks registered inside the block, and to those of the tensors and modules that `namespace` reaches now."""
    undo: list[Callable[[], None]] = []

    def patch(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        original = owner.__dict__.get(name)
        setattr(owner, name, make(getattr(owner, name)))

        def put_back() -> None:
            if original is None:
                delattr(owner, name)
            else:
                setattr(owner, name, original)

        undo.append(put_back)

    try:
        patch(torch.Tensor, "register_hook", lambda register: lambda self, hook: register(self, own_copy(hook)))
        from torch.autograd.function import BackwardCFunction

        patch(BackwardCFunction, "apply", _with_copies)
        for _, value in walk(namespace):
            if isinstance(value, torch.Tensor):
                hooks = getattr(value, "_backward_hooks", None) or {}
                for key in list(hooks):
                    hooks[key] = own_copy(hooks[key])
        yield
    finally:
        for put_back in reversed(undo):
            put_back()


def own_copy(hook: Callable[[torch.Tensor], Any]) -> Callable[[torch.Tensor], Any]:
    """The hook, called with a copy of the gradient; if it changes the copy in place, the copy is the result."""

    @functools.wraps(hook, assigned=(), updated=())
    def on_copy(gradient: torch.Tensor) -> Any:
        with torch.no_grad():
            copy = gradient.clone() if not gradient.requires_grad else gradient
        version = copy._version
        result = hook(copy)
        return copy if result is None and copy._version != version else result

    return on_copy


def _with_copies(apply: Callable[..., Any]) -> Callable[..., Any]:
    def on_copies(self: Any, *gradients: Any) -> Any:
        own = [g.clone() if isinstance(g, torch.Tensor) and not g.requires_grad else g for g in gradients]
        return apply(self, *own)

    return on_copies
