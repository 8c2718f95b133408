"""Python inside of backward: custom Functions and hooks, which may write to what the engine hands around.

Both make the engine run the user's code, so the dispatch mode must stay in force there, and gradients in flight must be looked at.
Tensors kept on `ctx` as plain attributes are saved tensors of which torch knows nothing; they are noted here as such.
"""

from __future__ import annotations

import functools
import types
import weakref
from typing import TYPE_CHECKING, Any

import torch

from jupyter_inplace.record import sites
from jupyter_inplace.record import torch_private as private
from jupyter_inplace.record.patching import Replacement, session_here
from jupyter_inplace.record.saved import Saved

if TYPE_CHECKING:
    from jupyter_inplace.record.session import Session

_CALL_IMPL = torch.nn.Module._call_impl.__code__
_MAX_HOOKS = 4096

Kept = tuple[str, int | None, Saved]  # attribute of ctx, index where it is a list, and the tensor


class PythonInBackward:
    """Wraps `Function.apply` and `Tensor.register_hook` for the time of the session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.functions_seen = False
        self.hooks_seen = False
        self.wrote = False  # whether such Python ever wrote to a tensor while the engine ran it
        self.kept: weakref.WeakKeyDictionary[Any, list[Kept]] = weakref.WeakKeyDictionary()
        self.hooked: dict[types.CodeType, list[tuple[str, int, int]]] = {}
        self._held: list[Replacement] = []

    @property
    def seen(self) -> bool:
        """Whether the engine may run Python in this session's graphs."""
        return self.functions_seen or self.hooks_seen

    def install(self) -> None:
        self._held = [replacement for replacement in _REPLACEMENTS if replacement.acquire()]

    def remove(self) -> None:
        for replacement in self._held:
            replacement.release()
        self._held.clear()

    def applied(self, out: Any) -> None:
        self.functions_seen = True
        self._note(out)

    def apply_checkpoint(self, inner: Any, cls: Any, args: Any, kwargs: Any) -> Any:
        __tracebackhide__ = True
        regions = self._session.regions
        outer = regions.begin()
        out = None
        try:
            out = inner(cls, *args, **kwargs)
            return out
        finally:
            self.functions_seen = True
            regions.end(outer, _node_of(out))

    def registered(self, tensor: Any, hook: Any) -> None:
        self.hooks_seen = True
        self._note_hook(tensor, hook)

    def _note_hook(self, tensor: Any, hook: Any) -> None:
        try:
            while isinstance(hook, functools.partial):
                hook = hook.func
            function = hook if hasattr(hook, "__code__") else getattr(hook, "__func__", type(hook).__dict__.get("__call__"))
            code = getattr(function, "__code__", None)
            if code is None or len(self.hooked) >= _MAX_HOOKS:
                return
            node = tensor.grad_fn
            key = (
                (type(node).__name__, node._sequence_nr(), tensor.output_nr)
                if node is not None
                else ("AccumulateGrad", id(tensor), 0)
            )
            self.hooked.setdefault(code, []).append(key)
        except Exception as fault:
            self._session.fault(fault)

    def _note(self, out: Any) -> None:
        """Take the tensors on the `ctx` of a Function that was just applied into the index of saved tensors."""
        session = self._session
        if session.muted or not session.installed:
            return
        try:
            node = _node_of(out)
            if node is None or node in self.kept:
                return
            found: list[Kept] = []
            for name, value in list(vars(node).items()):
                if isinstance(value, torch.Tensor):
                    found.append((name, None, self._saved(value, node)))
                elif isinstance(value, (list, tuple)):
                    found.extend(
                        (name, i, self._saved(v, node)) for i, v in enumerate(value) if isinstance(v, torch.Tensor)
                    )
            if found:
                self.kept[node] = found
        except Exception as fault:
            session.fault(fault)

    def _saved(self, t: torch.Tensor, node: Any) -> Saved:
        session = self._session
        saved = Saved()
        saved.tensor = t.detach() if t.grad_fn is node else t
        # No version: torch makes no check here.
        saved.sequence = node._sequence_nr()
        session.order += 1
        saved.order = session.order
        saved.site, module = sites.find_site_and_module(_CALL_IMPL, 2, session.cell_files)
        saved.module = weakref.ref(module) if module is not None else None
        session.index.add(saved)
        return saved

    def keys_on_stack(self) -> list[tuple[str, int, int]]:
        """The tensors on which the hooks that run right now were registered."""
        if not self.hooked:
            return []
        import sys

        frame: types.FrameType | None = sys._getframe(1)
        found: list[tuple[str, int, int]] = []
        while frame is not None:
            found.extend(self.hooked.get(frame.f_code, ()))
            frame = frame.f_back
        return found

    @staticmethod
    def current_node() -> Any:
        """The Python node whose backward runs right now, or None."""
        node = private.current_autograd_node()
        return node if isinstance(node, torch.autograd.function.BackwardCFunction) else None


def _node_of(out: Any) -> Any:
    """The Python node of a Function's output; None where nothing of it needs a gradient."""
    outputs = out if isinstance(out, (tuple, list)) else (out,)
    first = next((t for t in outputs if isinstance(t, torch.Tensor) and t.requires_grad), None)
    node: Any = first.grad_fn if first is not None else None
    return node if isinstance(node, torch.autograd.function.BackwardCFunction) else None


def _noting_applications(original: Any) -> Any:
    inner = original.__func__

    @functools.wraps(inner)
    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        session = session_here()
        if session is None:
            return inner(cls, *args, **kwargs)
        if cls.__name__ == "CheckpointFunction":
            return session.python.apply_checkpoint(inner, cls, args, kwargs)
        out = inner(cls, *args, **kwargs)
        session.python.applied(out)
        return out

    return classmethod(apply)


def _noting_hooks(original: Any) -> Any:
    @functools.wraps(original)
    def register(tensor: Any, hook: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        handle = original(tensor, hook, *args, **kwargs)
        session = session_here()
        if session is not None:
            session.python.registered(tensor, hook)
        return handle

    return register


_REPLACEMENTS = (
    Replacement(torch.autograd.Function, "apply", _noting_applications),
    Replacement(torch.Tensor, "register_hook", _noting_hooks),
    Replacement(torch.Tensor, "register_post_accumulate_grad_hook", _noting_hooks),
)
