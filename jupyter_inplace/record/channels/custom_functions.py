"""Custom Functions: tensors kept on `ctx` as plain attributes, captured or global are saved tensors of which torch knows nothing.

They enter the index of saved tensors when the Function is applied, without a version check.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable
from typing import Any

import torch

from jupyter_inplace.record.backward.call import Backward
from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.deep_graphs import hold_some
from jupyter_inplace.record.base.memory import aliases_of
from jupyter_inplace.record.base.nodes import is_python_node
from jupyter_inplace.record.base.patching import Held, Replacement
from jupyter_inplace.record.base.reachable import reachable_tensors
from jupyter_inplace.record.channels.channel import Channel
from jupyter_inplace.record.channels.checkpoints import Checkpoints
from jupyter_inplace.record.here import part_here
from jupyter_inplace.record.saved.saved import Saved
from jupyter_inplace.record.source import sites
from jupyter_inplace.record.trace import CALL_IMPL, Trace


class CustomFunctions(Channel):
    """Wraps `Function.apply` while a watch is open."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._checkpoints = trace.part(Checkpoints)
        self.kept: weakref.WeakKeyDictionary[Any, list[Saved]] = weakref.WeakKeyDictionary()
        self._replaced = Held()

    def install(self) -> None:
        self._replaced.acquire(_REPLACEMENTS)

    def remove(self) -> None:
        self._replaced.release()

    def apply_checkpoint(self, inner: Any, cls: Any, args: Any, kwargs: Any) -> Any:
        __tracebackhide__ = True
        regions = self._checkpoints
        outer = regions.begin()
        out = None
        try:
            out = inner(cls, *args, **kwargs)
            return out
        finally:
            regions.end(outer, _node_of(out))

    def backward_ended(self, call: Backward) -> None:
        """If the call freed its graph, nobody will read what those custom Functions can reach."""
        if call.finished and not call.retain and self.kept:
            self._forget(call.roots)

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
        trace = self._trace
        if trace.muted or not trace.installed:
            return
        try:
            node = _node_of(out)
            if node is None or node in self.kept:
                return
            own, named = reachable_tensors(node)
            # What only a name holds may be let go: of that the memory is kept, as long as the graph lives. Of what was computed
            # too, which may lead back to this node and keep it alive.
            held = [t for t in own if _is_input(t)]
            for t in (*(t for t in own if not _is_input(t)), *named):
                held.extend(aliases_of(t))
            found = [self._saved(t, node) for t in held]
            if found:
                self.kept[node] = found
        except Exception as fault:
            trace.fault(fault)

    def _saved(self, t: torch.Tensor, node: Any) -> Saved:
        trace = self._trace
        saved = Saved()
        saved.tensor = t
        # No version: torch makes no check here.
        saved.sequence = node._sequence_nr()
        trace.order += 1
        saved.order = trace.order
        saved.site, module = sites.find_site_and_module(CALL_IMPL, 2, trace.cell_files)
        saved.module = weakref.ref(module) if module is not None else None
        trace.index.add(saved)
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
    inner = private.apply_of(original)

    @functools.wraps(inner)
    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        channel = part_here(CustomFunctions)
        if channel is None:
            return inner(cls, *args, **kwargs)
        if cls.__name__ == "CheckpointFunction":
            return channel.apply_checkpoint(inner, cls, args, kwargs)
        out = inner(cls, *args, **kwargs)
        channel.applied(out)
        return out

    return classmethod(apply)


_REPLACEMENTS = (Replacement(torch.autograd.Function, "apply", _noting_applications),)
