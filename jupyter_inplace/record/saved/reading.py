"""Who decides which value of a saved tensor a node sees: the program, or a gradient walk of ours."""

from __future__ import annotations

from threading import get_ident

import torch

from jupyter_inplace.record.saved.saved import Saved


class Reading:
    """Set while a gradient walk of ours reads saved tensors: it decides which value a node sees, and notes the reader."""

    def value(self, saved: Saved) -> torch.Tensor:
        raise NotImplementedError


#: One for each thread: watched threads work their gradients out at the same time.
readings: dict[int, Reading] = {}


def set_reading(reading: Reading | None) -> Reading | None:
    """Have this thread's unpacking decided by `reading` from now on; returns what decided it before."""
    thread = get_ident()
    before = readings.pop(thread, None)
    if reading is not None:
        readings[thread] = reading
    return before


def current_reading() -> Reading | None:
    """What decides this thread's unpacking, None outside of a walk of ours."""
    return readings.get(get_ident())
