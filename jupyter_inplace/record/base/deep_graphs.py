"""Graphs so deep that torch could not free them once Python has seen their nodes.

Torch frees a graph in a loop. But a node that was seen from Python (`grad_fn`, `next_functions`) keeps its Python object, and
nodes with such objects free each other one inside of the other: some ten thousand in a row, and the stack of the thread is full.
A recorder looks at all nodes. So of a deep graph it holds some, a few hundred apart: where the program lets the graph go, torch stops
at the first of them, and each further piece is let go from here, once nothing else holds it.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Collection, Iterable
from sys import getrefcount
from typing import Any

import torch

from jupyter_inplace.record.base import torch_private as private

SHALLOW = 2000  # nodes in a row that any stack can bear
_EVERY = 499

_lock = threading.Lock()
_held: dict[Any, None] = {}
_seen = 0
# The references to a node that nothing but `_held` holds; 0 where the object of a node dies before it does, None if not known yet.
_alone: int | None = None


def prepare() -> None:
    """Find out, where no operation is under way, whether nodes keep their Python objects in this torch."""
    global _alone
    if _alone is None and not torch.is_inference_mode_enabled():
        with private.DisableTorchDispatch(), private.Unfollowed(), torch.enable_grad():
            t = torch.ones(1, requires_grad=True).clone()
        nodes = [t.grad_fn]
        owned = _references(nodes)
        del t
        alone = _references(nodes)
        _alone = alone if owned == alone + 1 else 0


def note(node: Any) -> None:
    """One more node was seen, of graphs that may be deep by now."""
    global _seen
    _seen += 1
    if not _seen % _EVERY:
        hold((node,))
    elif _held and _alone:
        try:
            references = getrefcount(next(reversed(_held)))
        except (RuntimeError, StopIteration):  # a collection came between
            return
        if references <= _alone:
            let_go()


def hold_some(nodes: Collection[Any]) -> None:
    """Hold some of all nodes of a graph, if it is deep; given are they such that each stands before those that it leads to."""
    if len(nodes) > SHALLOW:
        hold(list(nodes)[::-_EVERY])


def hold(nodes: Iterable[Any]) -> None:
    """Hold these; the one that is freed first comes last."""
    if _alone:
        if _at_collection not in gc.callbacks:
            gc.callbacks.append(_at_collection)  # the program may let go of a graph long after the watch
        _held.update(dict.fromkeys(nodes))


def let_go() -> None:
    """Free what nobody else holds any more, piece by piece."""
    if not _held or not _lock.acquire(blocking=False):
        return
    try:
        before = -1
        while len(_held) != before:
            before = len(_held)
            nodes = list(_held)
            _held.clear()
            kept = []
            while nodes:
                if _references(nodes) > (_alone or 0):
                    kept.append(nodes.pop())
                else:
                    nodes.pop()
            _held.update(dict.fromkeys(reversed(kept)))
            kept.clear()
    finally:
        _lock.release()


def _references(nodes: list[Any]) -> int:
    """To the last of a list."""
    return getrefcount(nodes[-1])


def _at_collection(phase: str, _: dict[str, int]) -> None:
    if phase == "stop":
        let_go()
