"""Assembly: makes the parts of a record, installs them, and removes them.

One session records for every watch that is open on its thread. Watches nest and follow each other (`%autograd_watch on`): each is a
window of program order in the one record, so both an inner and an outer watch see the damage, and a tensor saved in one cell is
still known when the next one writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from jupyter_inplace.record.backward.engine import EnginePatch
from jupyter_inplace.record.backward.optimizers import OptimizerHooks
from jupyter_inplace.record.backward.transforms import TransformPatch
from jupyter_inplace.record.base import deep_graphs
from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.dynamo import keep_out
from jupyter_inplace.record.channels.alias_values import AliasValues
from jupyter_inplace.record.channels.backward_writes import BackwardWrites
from jupyter_inplace.record.channels.checkpoints import Checkpoints
from jupyter_inplace.record.channels.custom_functions import CustomFunctions
from jupyter_inplace.record.channels.detached import DetachedTensors
from jupyter_inplace.record.channels.discarded_grads import DiscardedGrads
from jupyter_inplace.record.channels.exported_memory import ExportedMemory
from jupyter_inplace.record.channels.grad_aliases import GradAliases
from jupyter_inplace.record.channels.grad_results import GradResults
from jupyter_inplace.record.channels.integers import IntegerWrites
from jupyter_inplace.record.channels.registry import CHANNELS
from jupyter_inplace.record.channels.untracked_writes import UntrackedWrites
from jupyter_inplace.record.dispatch.labels import ProfilerLabels
from jupyter_inplace.record.dispatch.mode import WatchMode
from jupyter_inplace.record.dispatch.other_modes import OtherModes
from jupyter_inplace.record.dispatch.processes import Processes
from jupyter_inplace.record.dispatch.stack import ModeStack
from jupyter_inplace.record.dispatch.threads import Threads
from jupyter_inplace.record.dispatch.wiring import Wiring
from jupyter_inplace.record.here import set_trace_here
from jupyter_inplace.record.saved.copies import Copies
from jupyter_inplace.record.saved.freed import FreedMemory
from jupyter_inplace.record.saved.hooks import SavedTensorHooks
from jupyter_inplace.record.trace import Trace
from jupyter_inplace.record.writes.write_entry import WriteEntry


class _Installed(Protocol):
    def install(self) -> None: ...

    def remove(self) -> None: ...


class Session(Trace):
    """The record of one thread, with the parts that fill it."""

    def __init__(self) -> None:
        super().__init__()
        freed = self.add_part(FreedMemory(self))
        copies = self.add_part(Copies(self, freed))
        entry = self.add_part(WriteEntry(self, copies))
        self.add_channels(line.channel for line in CHANNELS)
        # What explain asks by name.
        self.exported_memory = self.part(ExportedMemory)
        self.integers = self.part(IntegerWrites)
        self.untracked_writes = untracked = self.part(UntrackedWrites)
        self.alias_values = self.part(AliasValues)
        self.detached = self.part(DetachedTensors)
        self.discarded_grads = self.part(DiscardedGrads)
        self.grad_aliases = self.part(GradAliases)
        self.grad_results = self.part(GradResults)
        self.checkpoints = self.part(Checkpoints)
        self.custom_functions = self.part(CustomFunctions)
        self.backward_writes = self.part(BackwardWrites)
        hooks = self.add_part(SavedTensorHooks(self, self.part(ExportedMemory)))
        others = self.add_part(OtherModes(self, hooks))
        wiring = self.add_part(Wiring(self, hooks, others))
        self.wires_at_once = lambda: wiring.at_once
        self.stack: ModeStack = ModeStack(WatchMode(self, entry, untracked), wiring.allowed)
        self.engine = self.add_part(EnginePatch(self, wiring))
        # In the order in which they are installed. The engine comes last: it counts the hooks that others register from then on.
        self._installed: Sequence[_Installed] = (
            freed,
            self.add_part(Processes(self)),
            self.add_part(Threads(self, copies, entry, untracked)),
            self.add_part(OptimizerHooks(self, copies, self.part(DiscardedGrads))),
            self.add_part(TransformPatch(self, hooks)),
            *self.channels,
            hooks,
            others,
            wiring,
            self.add_part(ProfilerLabels()),
            self.engine,
        )

    def install(self) -> None:
        """Activate everything on this thread, all or nothing."""
        if self.installed:
            return
        keep_out()
        done: list[Callable[[], Any]] = []
        try:
            deep_graphs.prepare()
            self.first_sequence = private.peek_sequence_nr()
            self.deep_from = self.first_sequence + deep_graphs.SHALLOW
            for part in self._installed:
                part.install()
                done.append(part.remove)
            self.stack.put_on(wire=self.wires_at_once())
            self.installed = True
            set_trace_here(self)
        except BaseException:
            for undo in reversed(done):
                undo()
            raise

    def remove(self) -> None:
        """Undo `install`, whatever state an exception left the parts in."""
        if not self.installed:
            return
        self.installed = False
        set_trace_here(None)
        self.stack.take_off()
        for part in reversed(self._installed):
            try:
                part.remove()
            except Exception as fault:  # the others have to go all the same
                self.fault(fault)
