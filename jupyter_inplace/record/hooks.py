"""The pair of saved-tensor hooks: what is saved, and torch's own version check, which hooks switch off, made again."""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any

import torch

from jupyter_inplace.record import sites
from jupyter_inplace.record import torch_private as private
from jupyter_inplace.record.message import detached_error, version_error
from jupyter_inplace.record.patching import Replacement, session_here
from jupyter_inplace.record.saved import Saved

if TYPE_CHECKING:
    from jupyter_inplace.record.session import Session

_CALL_IMPL = torch.nn.Module._call_impl.__code__
# A custom Function saves from within a frame of this code.
_APPLY = torch.autograd.Function.__dict__["apply"].__func__.__code__
_peek = private.peek_sequence_nr


class Reading:
    """Set while a gradient walk of ours reads saved tensors: it decides which value a node sees, and notes the reader."""

    def value(self, saved: Saved) -> torch.Tensor:
        raise NotImplementedError


reading: Reading | None = None


def unpack(saved: Saved) -> torch.Tensor:
    """What a node reads back. Makes the check that torch makes without hooks, and raises torch's own error.

    Also in force for graphs that outlive the watch.
    """
    if reading is not None:
        return reading.value(saved)
    t = saved.tensor
    if saved.interior and t.grad_fn is None:
        __tracebackhide__ = True
        raise detached_error()
    if saved.version is not None and t._version != saved.version:
        __tracebackhide__ = True
        raise version_error(saved)
    return t


class SavedTensorHooks:
    """Installs `pack` and `unpack` as the default hooks of this thread."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._on = False
        self._announced = False
        self._hold: Any = None
        self.others = False  # whether the program has put hooks of its own in force since
        # The session must not live as long as a graph does: graphs keep the hooks, and those only a weak way back.
        ref = weakref.ref(session)
        self._pack = _make_pack(ref)

    def install(self) -> None:
        if private.top_saved_tensors_hooks() is not None:
            # Hooks of the user's are in force already (save_on_cpu, allow_mutation_on_saved_tensors): torch makes no check
            # there and calls only the innermost pair, so ours would change the program.
            self._session.blind_spots.setdefault(
                "saved-tensor hooks of the program were in force when the watch began: saved tensors could not be watched"
            )
            return
        try:
            private.push_saved_tensors_hooks(self._pack, unpack)
        except RuntimeError:  # hooks are disabled (torch.func, export)
            self._session.blind_spots.setdefault(
                "saved-tensor hooks were disabled when the watch began: saved tensors could not be watched"
            )
            return
        self._on = True
        self._announced = _REPLACEMENT.acquire()
        self.others = False

    def remove(self) -> None:
        """Take the pair off, from under others that the program left in force if need be."""
        if not self._on:
            return
        self._on = False
        self._hold = None
        if self._announced:
            _REPLACEMENT.release()
        above = []
        while (top := private.top_saved_tensors_hooks()) is not None:
            private.pop_saved_tensors_hooks()
            if top[0] is self._pack:
                break
            above.append(top)
        for pair in reversed(above):
            private.push_saved_tensors_hooks(*pair)

    def on_top(self) -> bool:
        """Whether ours is the pair that torch would call now."""
        top = private.top_saved_tensors_hooks() if self._on else None
        return top is not None and top[0] is self._pack

    def lift(self) -> bool:
        """Take the pair off for a while where it is on top; `restore` puts it back."""
        if not self.on_top():
            return False
        private.pop_saved_tensors_hooks()
        return True

    def hold(self) -> Any:
        """Have custom Functions get back the very objects that they save, from now on."""
        if self._hold is None:
            from jupyter_inplace.record.saved_objects import Hold

            self._hold = Hold()
        return self._hold

    def restore(self) -> None:
        private.push_saved_tensors_hooks(self._pack, unpack)


def _announcing(original: Any) -> Any:
    def _push_saved_tensors_default_hooks(*args: Any, **kwargs: Any) -> Any:
        session = session_here()
        if session is not None:
            session.hooks.others = True
        return original(*args, **kwargs)

    return _push_saved_tensors_default_hooks


_REPLACEMENT = Replacement(private.autograd_bindings, "_push_saved_tensors_default_hooks", _announcing)


def _make_pack(ref: weakref.ref[Session]) -> Any:
    def pack(t: torch.Tensor) -> Saved:
        saved = Saved()
        sequence = _peek() - 1
        saved.tensor = t
        saved.version = private.version(t)
        saved.sequence = sequence
        saved.clone = saved.view = saved.home = saved.op = saved.made_by = saved.site = saved.module = None
        saved.output_nr = 0
        saved.touched = saved.never_read = saved.fingerprint = saved.interior = False
        session = ref()
        if session is None:
            saved.order = 0
            return saved
        if session.optimizers.lifted:  # a step that raised, or one whose closure nobody announced
            session.optimizers.end_step()
        try:
            node = t.grad_fn
            if node is not None and node._sequence_nr() >= sequence:
                saved.made_by = type(node)
                saved.output_nr = t.output_nr
                saved.op = session.last_op
                with private.DisableTorchDispatch():
                    saved.tensor = t.detach()
            else:
                session.fresh += 1
                if sys._getframe(1).f_code is _APPLY:
                    saved.hold = session.hooks.hold()
                saved.interior = node is not None
            session.order += 1
            saved.order = session.order
            if not session.muted:
                saved.site, module = sites.find_site_and_module(_CALL_IMPL, 1, session.cell_files)
                if module is not None:
                    saved.module = weakref.ref(module)
                session.index.add(saved)
                session.exports.saw(saved, t)
        except Exception as fault:
            session.fault(fault)
        return saved

    return pack
