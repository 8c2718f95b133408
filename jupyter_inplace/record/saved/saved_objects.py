"""What a custom Function saved comes back as the very object: the parameter with its attributes, not an alias of its memory.

torch gives saved inputs back as they are, unless they pass saved-tensor hooks; then `ctx.saved_tensors` gives new plain tensors.
Programs keep things on their parameters (`weight.main_grad`), so the reading is led back to the object that was saved.
"""

from __future__ import annotations

from typing import Any

import torch

from jupyter_inplace.record.base.patching import Replacement
from jupyter_inplace.record.saved.reading import current_reading
from jupyter_inplace.record.saved.saved import Saved


class Hold:
    """Keeps `saved_tensors` replaced as long as a trace, or a graph that it has seen, lives."""

    def __init__(self) -> None:
        self._held = _REPLACEMENT.acquire()

    def __del__(self) -> None:
        if self._held:
            _REPLACEMENT.release()


def _leading_back(original: Any) -> Any:
    def saved_tensors(node: Any) -> Any:
        found = original.__get__(node)
        if current_reading() is not None:  # a walk of ours, which reads copies
            return found
        try:
            slots = node._raw_saved_tensors
            return tuple(t if t is None else _object(slot, t) for slot, t in zip(slots, found, strict=True))
        except Exception:  # the values are right without; only objects differ
            return found

    return property(saved_tensors)


def _object(slot: Any, t: torch.Tensor) -> torch.Tensor:
    held = slot.data
    return held.tensor if isinstance(held, Saved) and held.made_by is None else t


_REPLACEMENT = Replacement(torch.autograd.function.BackwardCFunction, "saved_tensors", _leading_back)
