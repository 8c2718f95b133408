"""One session records for every watch that is open on this thread: it installs the mode and the hooks, and removes them.

Watches nest and follow each other (`%autograd_watch on`): each is a window of program order in the one record, so both
an inner and an outer watch see the damage, and a tensor saved in one cell is still known when the next one writes it.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch

from jupyter_inplace.record.backward.engine import Backward, EnginePatch
from jupyter_inplace.record.backward.functions import PythonInBackward
from jupyter_inplace.record.backward.optimizers import OptimizerHooks
from jupyter_inplace.record.backward.transforms import TransformPatch
from jupyter_inplace.record.base import deep_graphs
from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.dynamo import keep_out
from jupyter_inplace.record.base.labels import ProfilerLabels
from jupyter_inplace.record.base.patching import set_session_here
from jupyter_inplace.record.base.processes import Processes
from jupyter_inplace.record.channels.attributes import Attributes
from jupyter_inplace.record.channels.data_and_detach import DataAndDetach
from jupyter_inplace.record.channels.detached import DetachedTensors
from jupyter_inplace.record.channels.discarded_grads import DiscardedGrads
from jupyter_inplace.record.channels.exported_memory import ExportedMemory
from jupyter_inplace.record.channels.grad_aliases import GradAliases
from jupyter_inplace.record.channels.grad_results import GradResults
from jupyter_inplace.record.channels.integers import IntegerWrites
from jupyter_inplace.record.channels.untracked_writes import UntrackedWrites
from jupyter_inplace.record.dispatch.mode import WatchMode
from jupyter_inplace.record.dispatch.other_modes import OtherModes
from jupyter_inplace.record.dispatch.stack import ModeStack
from jupyter_inplace.record.dispatch.threads import Threads
from jupyter_inplace.record.dispatch.wiring import Wiring
from jupyter_inplace.record.saved.checkpoints import Checkpoints
from jupyter_inplace.record.saved.copies import Copies
from jupyter_inplace.record.saved.freed import FreedMemory
from jupyter_inplace.record.saved.hooks import SavedTensorHooks
from jupyter_inplace.record.saved.saved import SavedIndex
from jupyter_inplace.record.source import sites
from jupyter_inplace.record.write_table import WriteRow, WriteTable
from jupyter_inplace.record.writes.write_entry import WriteEntry

_CALL_IMPL = torch.nn.Module._call_impl.__code__


class Session:
    """The record of one thread. Everything is plain data or dies with the user's own graph."""

    def __init__(self) -> None:
        self.index = SavedIndex()
        self.table = WriteTable()
        self.untracked_writes = UntrackedWrites()
        self.backwards: list[Backward] = []
        self.last_backward = -1  # place in program order of the newest call
        self.blind_spots: dict[str, None] = {}
        self.cell_files: frozenset[str] = frozenset()
        self.order = 0
        self.cell: list[Any] = [None]  # the operation to be dispatched next, shared by the inputs that it saves
        self.fresh = False  # whether an input holds that cell
        self.last_op: Any = None
        # Where the node with number `place_of` saves: its site, and a weak reference to the module that is called there.
        self.place_of = -1
        self.place: tuple[Any, Any] = (None, None)
        self.written_at: tuple[Any, Any] = (None, None)  # the same of the last write that was like one before it
        # Whether operations have to be looked at that write to nothing: `attend` says so, `look` takes it back.
        self.attentive = False
        self.midway: tuple[int, int, int] | None = None
        self.muted = False
        self.installed = False
        self.started = time.perf_counter()
        self.thread = threading.get_ident()
        self.leaf_storages: set[int] = set()
        self.last_leaf_write = -1
        self.graph_floor = -1
        self.deep_from = -1  # nodes with a higher number may stand in deep graphs
        self.windows = 0
        self.first_sequence = -1
        # Called with (session, backward) right before the engine runs where a saved tensor may have been overwritten.
        self.before_backward: Callable[[Session, Backward], None] | None = None
        # Called with (session, backward, error) where the engine raised, while the graph is still there.
        self.after_failure: Callable[[Session, Backward, BaseException], None] | None = None
        self.analyst: Any = None  # explain's, kept with the record that it explains
        self.exported_memory = ExportedMemory(self)
        self.checkpoints = Checkpoints(self)
        self.data_and_detach = DataAndDetach(self)
        self.attributes = Attributes(self)
        self.detached = DetachedTensors()
        self.rewritten = (
            False  # whether a tensor that needs a gradient was ever written: its views get their nodes made anew
        )
        self.carried: tuple[Any, ...] = ()  # the severed tensors whose values the operation under way hands on
        self.grad_aliases = GradAliases(self)
        self.discarded_grads = DiscardedGrads(self)
        self.grad_results = GradResults(self)
        # Called with (tensor, write, value before) for a dispatched write to a tensor known to be some leaf's `.grad`.
        self.gradient_overwritten: Callable[[torch.Tensor, WriteRow, torch.Tensor], None] | None = None
        self.after_backward: Callable[[Session, Backward], None] | None = None
        self.python = PythonInBackward(self)
        # Called with (write, tensor, flat storage before, func, args, kwargs) for a write by Python that the engine runs.
        self.gradient_written: Callable[..., None] | None = None
        self.integers = IntegerWrites()
        self.mode = WatchMode(self)
        self.wiring = Wiring(self)
        self.stack = ModeStack(self.mode, self.wiring.allowed)
        self.hooks = SavedTensorHooks(self)
        self.other_modes = OtherModes(self)
        self.engine = EnginePatch(self)
        self.optimizers = OptimizerHooks(self)
        self.transforms = TransformPatch(self)
        self.threads = Threads(self)
        self.freed = FreedMemory(self)
        self.copies = Copies(self)
        self.write_entry = WriteEntry(self)
        self.labels = ProfilerLabels()
        self.processes = Processes(self)

    # --- in force -------------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Put the mode and the hooks in force on this thread. All or nothing."""
        if self.installed:
            return
        keep_out()
        done: list[Callable[[], None]] = []
        try:
            deep_graphs.prepare()
            self.first_sequence = private.peek_sequence_nr()
            self.deep_from = self.first_sequence + deep_graphs.SHALLOW
            # The engine last: it counts the hooks that others make from here on.
            for part in (
                self.freed,
                self.processes,
                self.threads,
                self.optimizers,
                self.transforms,
                self.exported_memory,
                self.python,
                self.data_and_detach,
                self.attributes,
                self.checkpoints,
                self.hooks,
                self.other_modes,
                self.wiring,
                self.labels,
                self.engine,
            ):
                part.install()
                done.append(part.remove)
            self.stack.put_on(wire=self.wiring.at_once)
            self.installed = True
            set_session_here(self)
        except BaseException:
            for undo in reversed(done):
                undo()
            raise

    def remove(self) -> None:
        """Take everything out of force, whatever state an exception left it in."""
        if not self.installed:
            return
        self.installed = False
        set_session_here(None)
        self.stack.take_off()
        for part in (
            self.labels,
            self.wiring,
            self.other_modes,
            self.hooks,
            self.checkpoints,
            self.attributes,
            self.data_and_detach,
            self.python,
            self.exported_memory,
            self.transforms,
            self.optimizers,
            self.engine,
            self.threads,
            self.processes,
            self.freed,
        ):
            part.remove()

    def fault(self, error: Exception) -> None:
        """Note a failure of our own; the user's program goes on as if nothing were there."""
        self.blind_spots.setdefault(
            f"the recorder failed on an operation and left it out: {type(error).__name__}: {error}"
        )

    def seconds(self) -> float:
        return time.perf_counter() - self.started

    # --- saved tensors ----------------------------------------------------------------------------------------------

    def note_place(self, sequence: int) -> tuple[Any, Any]:
        """Where the program stands that is saving a tensor, remembered for the rest of what node `sequence` saves."""
        index = self.index
        if len(index.pending) > index.prune_pending_at:
            index.prune()
        site, module = sites.find_site_and_module(_CALL_IMPL, 2, self.cell_files)
        self.place = (site, None if module is None else weakref.ref(module))
        self.place_of = -1 if self.engine.depth else sequence
        return self.place

    def drop_fresh(self) -> None:
        """Whatever was packed last belongs to no operation that is still to come."""
        self.cell = [None]
        self.fresh = False

    def packed_by(self, func: Any) -> None:
        """Whatever was packed since `drop_fresh` belongs to this operation."""
        if self.fresh:
            self.cell[0] = func
            self.drop_fresh()

    def attend(self) -> None:
        """Have every operation looked at from now on, also those that write to nothing."""
        self.attentive = True
        self.stack.attend()

    def saw(self, saved: Any, t: torch.Tensor, sequence: int, frame: Any) -> None:
        """An operation of `frame` just saved `t` for node `sequence`: what the memory holds is kept if others may change it.

        Then the mode comes back, in the middle of that operation: what it does inside of itself is its own.
        """
        bare = self.stack.bare
        self.exported_memory.saw(saved, t)
        if bare and not self.stack.wired:
            self.midway = (sequence, id(frame), frame.f_lasti)

    def is_midway(self, frame: Any) -> bool:
        """Whether an operation that is dispatched from `frame` is a part of one that began before the mode came back."""
        inside = self.midway == (private.peek_sequence_nr() - 1, id(frame), frame.f_lasti)
        if not inside:
            self.midway = None
        return inside

    @property
    def has_to_look(self) -> bool:
        """Whether there is anything to look out for in operations that write to nothing."""
        return (
            self.checkpoints.current is not None
            or self.untracked_writes.alias_values.any
            or self._reads_matter
            or self.exported_memory.any
            or self.gradient_written is not None
        )

    @property
    def _reads_matter(self) -> bool:
        return self.grad_aliases.any or self.detached.any or self.discarded_grads.any or self.grad_results.any

    def look(self, args: Any) -> bool:
        """Look at an operation that is about to run; returns whether it has to be dispatched with care."""
        careful = self.checkpoints.current is not None or self.untracked_writes.alias_values.any
        reads, exports = self._reads_matter, self.exported_memory.any
        self.attentive = careful or reads or exports or self.gradient_written is not None
        if (reads or exports) and not self.muted:
            with private.Unfollowed():
                if reads and not self.engine.depth:
                    self.read_kept(args)
                if exports:
                    self.compare_exports()
        return careful or bool(self.carried)

    # --- writes -------------------------------------------------------------------------------------------------------

    def compare_exports(self) -> None:
        try:
            self.exported_memory.at_operation()
        except Exception as fault:
            self.fault(fault)

    def read_kept(self, args: Any) -> None:
        try:
            if self.detached.any:
                self.carried = self.detached.read(args)
            if self.grad_aliases.any:
                self.grad_aliases.read(args)
            if self.discarded_grads.any:
                self.discarded_grads.read(args)
            if self.grad_results.any:
                self.grad_results.read(args)
        except Exception as fault:
            self.fault(fault)

    def note_alias(self, args: Any) -> None:
        if self.muted:
            return
        try:
            if self.untracked_writes.note_alias(args[0]):
                self.attend()
        except Exception as fault:
            self.fault(fault)

    # --- windows --------------------------------------------------------------------------------------------------------

    def open_window(self) -> int:
        """Begin a watch: from here on rows are new ones. Returns its place in program order."""
        self.windows += 1
        self.table.new_epoch()
        self.order += 1
        return self.order

    def tidy(self) -> None:
        """Between watches: forget everything but the saved tensors still alive and the rows of writes to their storages."""
        keep: set[WriteRow] = set()
        for saved in self.index:
            bucket = self.index.bucket_of(saved)
            if bucket is not None:
                keep.update(hit.write for hit in bucket.hits)
        self.table.keep(keep)
        self.backwards.clear()
        self.last_backward = -1
        self.blind_spots.clear()
        self.last_op = None
        self.untracked_writes.clear()
        self.integers.by_storage.clear()
        self.grad_aliases.clear()
        self.discarded_grads.clear()
        self.grad_results.clear()
        self.detached.clear()

    def close_window(self) -> int:
        self.windows -= 1
        self.table.new_epoch()
        self.order += 1
        return self.order
