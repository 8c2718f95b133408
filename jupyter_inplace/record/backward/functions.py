"""Python inside of backward: custom Functions and hooks, which may write to what the engine hands around.

Both make the engine run the user's code, so the dispatch mode must stay in force there, and gradients in flight must be looked at.
Tensors kept on `ctx` as plain attributes, captured or global are saved tensors of which torch knows nothing; they are noted here as such.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.deep_graphs import hold_some
from jupyter_inplace.record.base.nodes import is_python_node
from jupyter_inplace.record.base.patching import Replacement, session_here
from jupyter_inplace.record.base.reachable import reachable_tensors
from jupyter_inplace.record.saved.saved import Saved
from jupyter_inplace.record.source import sites

if TYPE_CHECKING:
    from jupyter_inplace.record.session import Session

_CALL_IMPL = torch.nn.Module._call_impl.__code__


class PythonInBackward:
    """Wraps `Function.apply` for the time of the session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.wrote = False  # whether such Python ever wrote to a tensor while the engine ran it
        self.kept: weakref.WeakKeyDictionary[Any, list[Saved]] = weakref.WeakKeyDictionary()
        # Storages made by the hook or custom backward that runs at present: writes to those hurt nobody.
        self._made: set[int] = set()
        self._maker: Any = None
        self._held: list[Replacement] = []

    def install(self) -> None:
        self._held = [replacement for replacement in _REPLACEMENTS if replacement.acquire()]

    def remove(self) -> None:
        for replacement in self._held:
            replacement.release()
        self._held.clear()

    def apply_checkpoint(self, inner: Any, cls: Any, args: Any, kwargs: Any) -> Any:
        __tracebackhide__ = True
        regions = self._session.checkpoints
        outer = regions.begin()
        out = None
        try:
            out = inner(cls, *args, **kwargs)
            return out
        finally:
            regions.end(outer, _node_of(out))

    def made(self, out: Any, args: Any) -> None:
        """An operation gave `out` while the engine runs: note it where it was Python that the engine runs which made it."""
        try:
            if not self._session.engine.depth or self._session.engine.made_by_engine():
                return
            node = private.current_autograd_node()
            if node is not self._maker:
                self._maker = node
                self._made.clear()
            given = {private.storage_id(a) for a in args if isinstance(a, torch.Tensor)}
            for t in out if isinstance(out, (list, tuple)) else (out,):
                if isinstance(t, torch.Tensor) and private.storage_id(t) not in given:
                    self._made.add(private.storage_id(t))
        except Exception as fault:
            self._session.fault(fault)

    def made_here(self, t: torch.Tensor) -> bool:
        """Whether the Python that runs right now made the memory of `t` itself."""
        return private.current_autograd_node() is self._maker and private.storage_id(t) in self._made

    def backward_ended(self, roots: Iterable[Any], freed: bool) -> None:
        """A backward call is over; where it freed its graph, nobody will read what those custom Functions can reach."""
        self._maker = None
        self._made.clear()
        if freed and self.kept:
            try:
                self._forget(roots)
            except Exception as fault:
                self._session.fault(fault)

    def _forget(self, roots: Iterable[Any]) -> None:
        seen: dict[Any, None] = {}
        stack = [root.grad_fn if isinstance(root, torch.Tensor) else root[0] for root in roots]
        while stack:
            node = stack.pop()
            if node is not None and node not in seen:
                seen[node] = None
                if is_python_node(node):
                    self.kept.pop(node, None)
                stack.extend(child for child, _ in node.next_functions)
        hold_some(seen)

    def applied(self, out: Any) -> None:
        """Take what the backward of a Function that was just applied can read into the index of saved tensors."""
        session = self._session
        if session.muted or not session.installed:
            return
        try:
            node = _node_of(out)
            if node is None or node in self.kept:
                return
            own, named = reachable_tensors(node)
            with private.DisableTorchDispatch():
                # What only a name holds may be let go: of that the memory is kept, as long as the graph lives. Of what was computed
                # too, which may lead back to this node and keep it alive.
                held = [t if _is_input(t) else t.detach() for t in own] + [t.detach() for t in named]
            found = [self._saved(t, node) for t in held]
            if found:
                self.kept[node] = found
        except Exception as fault:
            session.fault(fault)

    def _saved(self, t: torch.Tensor, node: Any) -> Saved:
        session = self._session
        saved = Saved()
        saved.tensor = t
        # No version: torch makes no check here.
        saved.sequence = node._sequence_nr()
        session.order += 1
        saved.order = session.order
        saved.site, module = sites.find_site_and_module(_CALL_IMPL, 2, session.cell_files)
        saved.module = weakref.ref(module) if module is not None else None
        session.index.add(saved)
        return saved


def _is_input(t: torch.Tensor) -> bool:
    try:
        return t.grad_fn is None
    except RuntimeError:  # a view whose base was written
        return False


def _node_of(out: Any) -> Any:
    """The Python node of a Function's output; None where nothing of it needs a gradient."""
    outputs = out if isinstance(out, (tuple, list)) else (out,)
    first = next((t for t in outputs if isinstance(t, torch.Tensor) and t.requires_grad), None)
    node: Any = first.grad_fn if first is not None else None
    return node if is_python_node(node) else None


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


_REPLACEMENTS = (Replacement(torch.autograd.Function, "apply", _noting_applications),)
