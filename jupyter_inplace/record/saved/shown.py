"""Saved tensors as a node shows them to Python: `_saved_self`, `_raw_saved_self` and its methods, as if no hooks of ours were there.

torch gives a saved input back as the object that it is, unless it passed saved-tensor hooks; and takes hooks of the program for one
saved tensor unless it has some. So what reads one, and what registers hooks for one, is led past ours for as long as a trace or a
graph that it has seen lives.
"""

from __future__ import annotations

import functools
from typing import Any

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.patching import Held, Replacement
from jupyter_inplace.record.base.static_types import StaticReplacement
from jupyter_inplace.record.here import trace_here
from jupyter_inplace.record.saved.message import modified_by_pack_error
from jupyter_inplace.record.saved.reading import current_reading
from jupyter_inplace.record.saved.saved import Repacked, Saved
from jupyter_inplace.record.saved.saved_objects import object_of

_NOTE = "hooks of the program keep single saved tensors: those could not be watched"


class Shown:
    """Keeps this in force as long as it lives: a trace holds it, and at the end of a watch what the graphs still there have saved."""

    def __init__(self) -> None:
        self._replaced = Held()
        self._replaced.acquire(_REPLACEMENTS)

    def __del__(self) -> None:
        self._replaced.release()


def _reading(original: Any) -> Any:
    get, raw = original.__get__, f"_raw{original.__name__}"

    def saved(node: Any) -> Any:
        __tracebackhide__ = True
        found = get(node)
        if found is None or current_reading() is not None:  # a walk of ours reads copies
            return found
        slots = getattr(node, raw)
        if isinstance(found, (list, tuple)):
            return type(found)(object_of(slot, t) for slot, t in zip(slots, found, strict=True))
        return object_of(slots, found)

    return property(saved, doc=original.__doc__)


def _registering(original: Any) -> Any:
    @functools.wraps(original)
    def register_hooks(slot: Any, *pair: Any) -> None:
        __tracebackhide__ = True
        saved = private.held_by(slot)
        if type(saved) is not Saved or len(pair) != 2 or not all(map(callable, pair)):
            original(slot, *pair)
            return
        pack, unpack = pair
        trace = trace_here()
        if trace is not None:
            trace.blind_spots.setdefault(_NOTE)
        t = saved.tensor
        with private.without_grad():
            given = t.detach() if saved.made_by is None else t
            version = private.version(t)
            saved.be_packed(unpack)
            saved.hold.packed = pack(given)
            if private.version(t) != version:
                raise modified_by_pack_error()

    return register_hooks


def _showing_data(original: Any) -> Any:
    def data(slot: Any) -> Any:
        __tracebackhide__ = True
        held = original.__get__(slot)
        return held.packed if isinstance(held, Repacked) else held.tensor if isinstance(held, Saved) else held

    return property(data, doc=original.__doc__)


def _showing_hook(original: Any) -> Any:
    def unpack_hook(slot: Any) -> Any:
        __tracebackhide__ = True
        held = private.held_by(slot)
        return held.hook if isinstance(held, Repacked) else None if isinstance(held, Saved) else original.__get__(slot)

    return property(unpack_hook, doc=original.__doc__)


def _unpacking(original: Any) -> Any:
    @functools.wraps(original)
    def unpack(slot: Any) -> Any:
        __tracebackhide__ = True
        return object_of(slot, original(slot))

    return unpack


_SLOT = private.SavedTensor
_REPLACEMENTS: tuple[Any, ...] = (
    StaticReplacement(private.autograd_nodes, "_saved_", _reading),
    *(
        Replacement(_SLOT, name, wrap)
        for name, wrap in (
            ("register_hooks", _registering),
            ("data", _showing_data),
            ("unpack_hook", _showing_hook),
            ("unpack", _unpacking),
        )
        if _SLOT is not None
    ),
)
