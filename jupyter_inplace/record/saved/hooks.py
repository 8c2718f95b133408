"""The pair of saved-tensor hooks: what is saved, and torch's own version check, which hooks switch off, made again."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from sys import _getframe
from threading import get_ident
from typing import Any

import torch
from torch.overrides import has_torch_function_unary as _followed

from jupyter_inplace.record.base import deep_graphs
from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.memory import is_own_memory
from jupyter_inplace.record.base.nodes import may_save
from jupyter_inplace.record.base.patching import Held, Replacement
from jupyter_inplace.record.channels.exported_memory import ExportedMemory
from jupyter_inplace.record.here import trace_here
from jupyter_inplace.record.saved.message import detached_error, version_error
from jupyter_inplace.record.saved.reading import readings
from jupyter_inplace.record.saved.saved import Saved
from jupyter_inplace.record.saved.saved_objects import Hold
from jupyter_inplace.record.trace import Trace

_APPLY = private.APPLY_CODE
_UNNUMBERED = 2**64 - 1  # the number of nodes that stand for a derivative which nobody wrote
_weak = weakref.ref
_peek = private.peek_sequence_nr
_DisableTorchDispatch = private.DisableTorchDispatch
_detach: Callable[[torch.Tensor], torch.Tensor] = torch._C.TensorBase.detach


def unpack(saved: Saved) -> torch.Tensor:
    """What a node reads back. Makes the check that torch makes without hooks, and raises torch's own error.

    Also in force for graphs that outlive the watch.
    """
    if readings and (reading := readings.get(get_ident())) is not None:
        return reading.value(saved)
    t = saved.tensor
    if saved.interior and t.is_leaf:
        __tracebackhide__ = True
        raise detached_error()
    if saved.version is not None and t._version != saved.version:
        __tracebackhide__ = True
        raise version_error(saved)
    return t


class SavedTensorHooks:
    """Installs `pack` and `unpack` as the default hooks of this thread."""

    def __init__(self, trace: Trace, exported: ExportedMemory) -> None:
        self.trace, self.exported = trace, exported
        self._on = False
        self._replaced = Held()
        self._off: set[str] = set()  # why the pair is out of force for a while
        self._depth = 0  # how many pairs lie under ours
        self._hold: Any = None
        # The trace must not live as long as a graph does: graphs keep the hooks, and those only a weak way back.
        self._pack = _make_pack(weakref.ref(self))

    def install(self) -> None:
        if private.top_saved_tensors_hooks() is not None:
            # Hooks of the user's are in force already (save_on_cpu, allow_mutation_on_saved_tensors): torch makes no check
            # there and calls only the innermost pair, so ours would change the program.
            self.trace.blind_spots.setdefault(
                "saved-tensor hooks of the program were in force when the watch began: saved tensors could not be watched"
            )
            return
        try:
            private.push_saved_tensors_hooks(self._pack, unpack)
        except RuntimeError:  # hooks are disabled (torch.func, export)
            self.trace.blind_spots.setdefault(
                "saved-tensor hooks were disabled when the watch began: saved tensors could not be watched"
            )
            return
        self._on = True
        self._replaced.acquire(_REPLACEMENTS)
        self.trace.other_hooks = False

    def remove(self) -> None:
        """Take the pair off, from under others that the program left in force if need be."""
        if not self._on:
            return
        self._on = False
        self._hold = None
        self._replaced.release()
        if not self._off:
            self._take_off()
        self._off.clear()

    def suspend(self, reason: str) -> None:
        """Take the pair out of force, from under others if need be, until `resume` was called for every reason."""
        if self._on and not self._off:
            self._depth = self._take_off()
        if self._on:
            self._off.add(reason)

    def resume(self, reason: str) -> None:
        """Put the pair back where it was, once no reason is left."""
        if reason not in self._off:
            return
        self._off.remove(reason)
        if self._on and not self._off:
            above = self._pop_all()
            pairs = above[: len(above) - self._depth] if self._depth <= len(above) else []
            for pair in reversed(above[len(pairs) :]):
                private.push_saved_tensors_hooks(*pair)
            private.push_saved_tensors_hooks(self._pack, unpack)
            for pair in reversed(pairs):
                private.push_saved_tensors_hooks(*pair)

    @property
    def suspended(self) -> bool:
        """Whether the pair is out of force for a while."""
        return bool(self._off)

    def _take_off(self) -> int:
        """Take the pair from the stack; returns how many pairs lay under it."""
        pairs = self._pop_all()
        mine = next((i for i, pair in enumerate(pairs) if pair[0] is self._pack), len(pairs))
        kept = pairs[:mine] + pairs[mine + 1 :]
        for pair in reversed(kept):
            private.push_saved_tensors_hooks(*pair)
        return len(kept) - mine

    @staticmethod
    def _pop_all() -> list[Any]:
        """Empty the stack; the pairs come innermost first."""
        pairs = []
        while (top := private.top_saved_tensors_hooks()) is not None:
            private.pop_saved_tensors_hooks()
            pairs.append(top)
        return pairs

    def saw(self, saved: Saved, t: torch.Tensor, sequence: int, frame: Any) -> None:
        """An operation of `frame` just saved `t` for node `sequence`: what the memory holds is kept if others may change it.

        Then the mode comes back, in the middle of that operation: what it does inside of itself is its own.
        """
        stack = self.trace.stack
        bare = stack.bare
        self.exported.saw(saved, t)
        if bare and not stack.wired:
            self.trace.midway = (sequence, id(frame), frame.f_lasti)

    def hold(self) -> Any:
        """Have custom Functions get back the very objects that they save, from now on."""
        if self._hold is None:
            self._hold = Hold()
        return self._hold


def _announcing(original: Any) -> Any:
    def _push_saved_tensors_default_hooks(*args: Any, **kwargs: Any) -> Any:
        trace = trace_here()
        if trace is not None:
            trace.other_hooks = True
        return original(*args, **kwargs)

    return _push_saved_tensors_default_hooks


def _hiding(original: Any) -> Any:
    # Checkpoints ask whether hooks of the program are in force, and warn or pack what they keep if so. Ours are not, and none lie under.
    def _top_saved_tensors_default_hooks(*args: Any, **kwargs: Any) -> Any:
        pair = original(*args, **kwargs)
        return None if pair is not None and pair[1] is unpack else pair

    return _top_saved_tensors_default_hooks


_REPLACEMENTS = (
    Replacement(private.autograd_bindings, "_push_saved_tensors_default_hooks", _announcing),
    Replacement(private.autograd_bindings, "_top_saved_tensors_default_hooks", _hiding),
)


def _alias(trace: Trace, t: torch.Tensor) -> torch.Tensor:
    """What torch keeps of an output: an alias without its node."""
    if type(t) is torch.Tensor or not private.is_python_tensor(t):
        if trace.stack.bare:  # nobody sees it
            return _detach(t)
        with _DisableTorchDispatch():
            return _detach(t)
    # A tensor class makes its own aliases, and is asked for one unwatched too.
    before, trace.muted = trace.muted, True
    try:
        return t.detach()
    finally:
        trace.muted = before


def _is_late_output(node: Any, sequence: int) -> bool:
    """Whether `node` is being made right now although a newer one is there.

    A view whose base was written gets its own node made anew when it is read, after the reader took its number: the newest node is then
    one that the reader leads to.
    """
    if not may_save(node):
        return False
    for child, _ in node.next_functions:  # noqa: SIM110 - a generator would cost each saved tensor of the program
        if child is not None and child._sequence_nr() == sequence:
            return True
    return False


def _make_pack(ref: weakref.ref[SavedTensorHooks]) -> Any:
    def pack(t: torch.Tensor) -> Saved:
        saved = Saved()
        saved.tensor = t
        guard = None
        try:
            if _followed(t):  # nobody who follows functions is to see what is read here
                guard = private.Unfollowed()
                guard.__enter__()
            saved.sequence = sequence = _peek() - 1
            try:
                saved.version = t._version
            except RuntimeError:  # an inference tensor has none
                saved.version = None
            hooks = ref()
            if hooks is None:
                return saved
            trace, exported = hooks.trace, hooks.exported
            try:
                if trace.unfinished is not None:  # a step that raised, or one whose closure nobody announced
                    trace.unfinished()
                caller = _getframe(1)
                custom = caller.f_code is _APPLY
                node = t.grad_fn
                if node is None or (
                    not sequence <= node._sequence_nr() < _UNNUMBERED
                    and not (trace.rewritten and _is_late_output(node, sequence))
                ):
                    saved.interior = node is not None
                    saved.cell = trace.cell
                    trace.fresh = True
                    if custom:
                        saved.hold = hooks.hold()
                else:
                    saved.interior = False
                    saved.made_by = type(node)
                    saved.output_nr = t.output_nr
                    saved.cell = [trace.last_op]
                    saved.tensor = _alias(trace, t)
                if node is not None and sequence > trace.deep_from:
                    deep_graphs.note(node)
                trace.order = saved.order = trace.order + 1
                if not trace.muted:
                    # What one node saves, one expression saves: the frames are looked at once. Functions and the engine run
                    # others meanwhile. The index takes its share of the work with each node.
                    if trace.place_of == sequence and not custom:
                        saved.site, saved.module = trace.place
                    else:
                        saved.site, saved.module = trace.note_place(sequence if not custom else -1)
                    trace.index.pending.append(_weak(saved))
                    if exported.asks or (node is None and not t.requires_grad and not is_own_memory(t)):
                        hooks.saw(saved, t, sequence, caller)
            except Exception as fault:
                trace.fault(fault)
            return saved
        finally:
            if guard is not None:
                guard.__exit__(None, None, None)

    return pack
