"""torch.func transforms, which refuse to run while saved-tensor hooks are in force: the hooks are lifted around them."""

from __future__ import annotations

from typing import Any

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.patching import Held, Replacement
from jupyter_inplace.record.here import part_here
from jupyter_inplace.record.saved.hooks import SavedTensorHooks
from jupyter_inplace.record.trace import Trace

REASON = "transform"


class TransformPatch:
    """Wraps torch's switch that forbids saved-tensor hooks and allows them again: every refusal goes through it.

    Not `torch.autograd.graph.disable_saved_tensors_hooks` itself, which torch.compile recognises by identity.
    """

    def __init__(self, trace: Trace, hooks: SavedTensorHooks) -> None:
        self._trace, self._hooks = trace, hooks
        self._replaced = Held()

    def install(self) -> None:
        self._replaced.acquire(_REPLACEMENTS)

    def remove(self) -> None:
        self._replaced.release()

    def forbid(self, original: Any, args: Any, kwargs: Any) -> Any:
        # Where the program has hooks of its own in force torch refuses, with ours away as it does unwatched, and allows them again.
        self._hooks.suspend(REASON)
        self._trace.stack.attend()
        out = original(*args, **kwargs)
        self._trace.blind_spots.setdefault(
            "torch refuses saved-tensor hooks inside of transforms (torch.func): what was saved there could not be watched"
        )
        return out

    def allow(self, original: Any, args: Any, kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        finally:
            self._hooks.resume(REASON)


def _forbidding(original: Any) -> Any:
    def _saved_tensors_hooks_disable(*args: Any, **kwargs: Any) -> Any:
        transforms = part_here(TransformPatch)
        if transforms is None:
            return original(*args, **kwargs)
        return transforms.forbid(original, args, kwargs)

    return _saved_tensors_hooks_disable


def _allowing(original: Any) -> Any:
    def _saved_tensors_hooks_enable(*args: Any, **kwargs: Any) -> Any:
        transforms = part_here(TransformPatch)
        if transforms is None:
            return original(*args, **kwargs)
        return transforms.allow(original, args, kwargs)

    return _saved_tensors_hooks_enable


_REPLACEMENTS = (
    Replacement(private.autograd_bindings, "_saved_tensors_hooks_disable", _forbidding),
    Replacement(private.autograd_bindings, "_saved_tensors_hooks_enable", _allowing),
)
