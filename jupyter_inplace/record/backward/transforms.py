"""torch.func transforms, which refuse to run while saved-tensor hooks are in force: the hooks are lifted around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.patching import Replacement, session_here

if TYPE_CHECKING:
    from jupyter_inplace.record.session import Session

REASON = "transform"


class TransformPatch:
    """Wraps torch's switch that forbids saved-tensor hooks and allows them again: every refusal goes through it.

    Not `torch.autograd.graph.disable_saved_tensors_hooks` itself, which torch.compile recognises by identity.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._held: list[Replacement] = []

    def install(self) -> None:
        self._held = [replacement for replacement in _REPLACEMENTS if replacement.acquire()]

    def remove(self) -> None:
        for replacement in self._held:
            replacement.release()
        self._held.clear()

    def forbid(self, original: Any, args: Any, kwargs: Any) -> Any:
        # Where the program has hooks of its own in force torch refuses, with ours away as it does unwatched, and allows them again.
        self._session.hooks.suspend(REASON)
        self._session.stack.attend()
        out = original(*args, **kwargs)
        self._session.blind_spots.setdefault(
            "torch refuses saved-tensor hooks inside of transforms (torch.func): what was saved there could not be watched"
        )
        return out

    def allow(self, original: Any, args: Any, kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        finally:
            self._session.hooks.resume(REASON)


def _forbidding(original: Any) -> Any:
    def _saved_tensors_hooks_disable(*args: Any, **kwargs: Any) -> Any:
        session = session_here()
        if session is None:
            return original(*args, **kwargs)
        return session.transforms.forbid(original, args, kwargs)

    return _saved_tensors_hooks_disable


def _allowing(original: Any) -> Any:
    def _saved_tensors_hooks_enable(*args: Any, **kwargs: Any) -> Any:
        session = session_here()
        if session is None:
            return original(*args, **kwargs)
        return session.transforms.allow(original, args, kwargs)

    return _saved_tensors_hooks_enable


_REPLACEMENTS = (
    Replacement(private.autograd_bindings, "_saved_tensors_hooks_disable", _forbidding),
    Replacement(private.autograd_bindings, "_saved_tensors_hooks_enable", _allowing),
)
