"""Every channel: one line for each. The order is that in which they are made and asked; a channel may look up those above it.

`explained` says whether the channel has an explanation of its own, `jupyter_inplace/explain/channels/` with a module of the same name, or
whether the common one serves: it works from the rows of writes and from what they overwrote.

Some silent ways have no line here, since their writes are rows like any other: running statistics of batch norm (`base/schema.py`
knows which arguments an operator writes without saying so), fused optimizers (`backward/optimizers.py` enters each step), and writes
by another thread (`dispatch/threads.py`). Compiled regions are seen from outside, by what they save (`dispatch/other_modes.py`).
"""

from __future__ import annotations

from typing import NamedTuple

from jupyter_inplace.record.channels.alias_values import AliasValues
from jupyter_inplace.record.channels.backward_writes import BackwardWrites
from jupyter_inplace.record.channels.channel import Channel
from jupyter_inplace.record.channels.checkpoints import Checkpoints
from jupyter_inplace.record.channels.custom_functions import CustomFunctions
from jupyter_inplace.record.channels.data_and_detach import DataAndDetach
from jupyter_inplace.record.channels.detached import DetachedTensors
from jupyter_inplace.record.channels.discarded_grads import DiscardedGrads
from jupyter_inplace.record.channels.exported_memory import ExportedMemory
from jupyter_inplace.record.channels.exported_nonleaves import ExportedNonleaves
from jupyter_inplace.record.channels.grad_aliases import GradAliases
from jupyter_inplace.record.channels.grad_results import GradResults
from jupyter_inplace.record.channels.integers import IntegerWrites
from jupyter_inplace.record.channels.untracked_writes import UntrackedWrites


class Line(NamedTuple):
    """One channel."""

    channel: type[Channel]
    explained: bool = False


COMMON, OWN = False, True

CHANNELS = (
    Line(Checkpoints, OWN),
    Line(CustomFunctions, COMMON),
    Line(AliasValues, COMMON),
    Line(UntrackedWrites, OWN),
    Line(DetachedTensors, OWN),
    Line(DataAndDetach, COMMON),
    Line(ExportedNonleaves, COMMON),
    Line(ExportedMemory, OWN),
    Line(GradAliases, OWN),
    Line(GradResults, OWN),
    Line(DiscardedGrads, OWN),
    Line(IntegerWrites, OWN),
    Line(BackwardWrites, OWN),
)
