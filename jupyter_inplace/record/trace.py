"""What the watches of one thread have seen so far, and the state that the parts of the recorder share.

Every part gets the trace and imports nothing of the other parts but those that it is given as arguments; only `session` imports all of
them. Everything here is plain data or dies with the user's own graph.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from jupyter_inplace import _faults
from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.channels.channel import Channel, Operation
from jupyter_inplace.record.saved.saved import SavedIndex
from jupyter_inplace.record.source import sites
from jupyter_inplace.record.write_table import WriteRow, WriteTable

if TYPE_CHECKING:
    from jupyter_inplace.record.backward.call import Backward

Part = TypeVar("Part")

#: The frame in which a module is called, which tells a module's own writes from those of its caller.
CALL_IMPL = torch.nn.Module._call_impl.__code__


class Dispatching(Protocol):
    """How operations of the thread are seen: by the dispatch mode, or by the tripwires that stand in for it."""

    @property
    def wired(self) -> bool:
        """Whether tripwires stand in for the mode."""

    @property
    def bare(self) -> bool:
        """Whether what runs now is seen by tripwires alone."""

    def attend(self) -> None:
        """Have the mode see every operation from now on."""

    def lift(self) -> Any:
        """Take the mode off for a while; returns its place for `put_back`, None if it is not on top."""

    def put_back(self, place: Any, *, wire: bool = False) -> None:
        """Put the mode where it was."""

    def with_mode(self, call: Any, args: Any, kwargs: Any) -> Any:
        """Run one operation under the mode."""


class Trace:
    """The record of one thread."""

    stack: Dispatching

    def __init__(self) -> None:
        self.index = SavedIndex()
        self.table = WriteTable()
        self.backwards: list[Backward] = []
        self.last_backward = -1  # place in program order of the newest call
        self.depth = 0  # how many backward calls are running, one inside the other
        self.blind_spots: dict[str, None] = {}
        self.unknown_because: dict[str, None] = {}  # what was seen and not compared, or could not be worked out
        self.faults: list[str] = []  # the tracebacks of the first few of our own
        self.cell_files: frozenset[str] = frozenset()
        self.order = 0  # the current moment of program order
        self.muted = False  # whether what runs is ours
        self.installed = False
        self.started = time.perf_counter()
        self.thread = threading.get_ident()
        self.windows = 0
        # The operation to be dispatched next: one cell, shared by the inputs that it saves.
        self.cell: list[Any] = [None]
        self.fresh = False  # whether an input holds that cell
        self.last_op: Any = None
        # Where the node with number `place_of` saves: its site, and a weak reference to the module that is called there.
        self.place_of = -1
        self.place: tuple[Any, Any] = (None, None)
        self.written_at: tuple[Any, Any] = (None, None)  # the same of the last write on the fast path
        self.midway: tuple[int, int, int] | None = None  # the operation during which the mode came back
        self.leaf_storages: set[int] = set()
        self.last_leaf_write = -1  # the number of the next node when a leaf was last written
        self.rewritten = False  # whether a tensor that needs a gradient was ever written: its views get new nodes
        self.first_sequence = -1
        self.graph_floor = -1  # nodes with a lower number belong to graphs that were used up
        self.deep_from = -1  # nodes with a higher number may stand in deep graphs
        self.other_hooks = False  # whether the program has installed saved-tensor hooks of its own since
        self.unfinished: Callable[[], None] | None = None  # ends an optimizer step whose end nobody announced
        # Every part by its class, and the channels among them in the order in which they are asked.
        self.parts: dict[type, Any] = {}
        self.channels: tuple[Channel, ...] = ()
        self._at_end: tuple[Channel, ...] = ()  # those that have something to do when a backward call is over
        self._at_freeing: tuple[Channel, ...] = ()  # and when a graph was used up
        # The channels that follow some memory now, and those that want to see each operation. Both are nearly always empty.
        self.asked: tuple[
            Channel, ...
        ] = ()  # before a write on the long path: those that always are, and those that follow
        self.following: tuple[Channel, ...] = ()
        self.reading: tuple[Channel, ...] = ()
        self.attentive = False  # whether operations that write nothing have to be looked at
        # What explain does around backward calls: right before the engine runs where a saved tensor may have been overwritten, where it
        # raised (the graph is still there), and after it.
        self.before_backward: Callable[[Any, Backward], None] | None = None
        self.after_failure: Callable[[Any, Backward, BaseException], None] | None = None
        self.after_backward: Callable[[Any, Backward], None] | None = None
        self.analyst: Any = None  # explain's, kept with the record that it explains

    # --- parts ------------------------------------------------------------------------------------------------------

    def add_channels(self, kinds: Iterable[type[Channel]]) -> None:
        """Make the channels, in the order in which they are asked. Each may look up those before it."""
        self.channels = tuple(self.add_part(kind(self)) for kind in kinds)  # type: ignore[call-arg]
        self._set_following([])
        self._at_end = tuple(c for c in self.channels if type(c).backward_ended is not Channel.backward_ended)
        self._at_freeing = tuple(c for c in self.channels if type(c).graph_freed is not Channel.graph_freed)

    def part(self, kind: type[Part]) -> Part:
        """The part of that class.

        :raises KeyError: it was not made yet: its line in the registry must stand above that of the part which asks.
        """
        found: Part = self.parts[kind]
        return found

    def add_part(self, part: Part) -> Part:
        """Enter a part under its class."""
        self.parts[type(part)] = part
        return part

    # --- our own faults ---------------------------------------------------------------------------------------------

    def fault(self, error: BaseException) -> None:
        """Note a fault of our own; the user's program goes on as if nothing were there."""
        _faults.keep(self.faults, error)
        self.leave_open(f"the recorder failed on an operation and left it out: {type(error).__name__}: {error}")

    def leave_open(self, reason: str) -> None:
        """Something may have harmed a gradient, and nobody can tell: the report says `unknown`, for this reason."""
        self.blind_spots.setdefault(reason)
        self.unknown_because.setdefault(reason)

    def seconds(self) -> float:
        """Seconds since the record began."""
        return time.perf_counter() - self.started

    # --- writes -----------------------------------------------------------------------------------------------------

    def row(self, op: str, site: Any, module: Any, storage: int, *, key: int | None = None) -> WriteRow:
        """The row of a write at this moment, made if it is the first of its kind. `key` stands for the module's identity."""
        weak = None if module is None else weakref.ref(module)
        return self.table.row(op, site, weak, id(module) if key is None else key, storage, self.seconds(), self.order)

    # --- saved tensors ----------------------------------------------------------------------------------------------

    def note_place(self, sequence: int) -> tuple[Any, Any]:
        """Where the program stands that is saving a tensor; kept for the rest of what node `sequence` saves."""
        index = self.index
        if len(index.pending) > index.prune_pending_at:
            index.prune()
        site, module = sites.find_site_and_module(CALL_IMPL, 2, self.cell_files)
        self.place = (site, None if module is None else weakref.ref(module))
        self.place_of = -1 if self.depth else sequence
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

    def is_midway(self, frame: Any) -> bool:
        """Whether an operation dispatched from `frame` is a part of one that began before the mode came back."""
        inside = self.midway == (private.peek_sequence_nr() - 1, id(frame), frame.f_lasti)
        if not inside:
            self.midway = None
        return inside

    # --- channels ---------------------------------------------------------------------------------------------------

    def follow(self, channel: Channel) -> None:
        """The channel follows some memory from now on: it is asked before each write."""
        if channel not in self.following:
            self._set_following([c for c in self.channels if c is channel or c in self.following])

    def _set_following(self, following: list[Channel]) -> None:
        self.following = tuple(following)
        self.asked = tuple(c for c in self.channels if c.standing or c in following)

    def settle(self) -> None:
        """Ask no channel any more that follows nothing."""
        if self.following:
            self._set_following([channel for channel in self.following if channel.follows])

    def attend(self, channel: Channel) -> None:
        """The channel wants to see each operation from now on, also those that write nothing."""
        if channel not in self.reading:
            self.reading = tuple(c for c in self.channels if c is channel or c in self.reading)
        self.attentive = True
        self.stack.attend()

    @property
    def has_to_look(self) -> bool:
        """Whether any channel has to see operations that write nothing."""
        return any(channel.reads for channel in self.reading)

    def look(self, operation: Operation) -> list[tuple[Channel, Any]]:
        """Show the channels an operation that is about to run; returns those that want its result, each with what it noted."""
        noted: list[tuple[Channel, Any]] = []
        idle = False
        for channel in self.reading:
            if not channel.reads:
                idle = True
                continue
            try:
                token = channel.read(operation)
                if token is not None:
                    noted.append((channel, token))
            except Exception as fault:
                self.fault(fault)
        if idle:
            self.reading = tuple(channel for channel in self.reading if channel.reads)
            self.attentive = bool(self.reading)
        return noted

    def gave(self, out: Any, noted: list[tuple[Channel, Any]]) -> None:
        """The operation gave `out`."""
        for channel, token in noted:
            try:
                channel.gave(out, token)
            except Exception as fault:
                self.fault(fault)

    def backward_ended(self, call: Backward) -> None:
        """An outermost backward call is over."""
        for channel in self._at_end:
            try:
                channel.backward_ended(call)
            except Exception as fault:
                self.fault(fault)
        if self.following:
            self.settle()

    def graph_freed(self, sequence: int) -> None:
        """A graph was used up: nodes with a lower number will not be read again."""
        for channel in self._at_freeing:
            try:
                channel.graph_freed(sequence)
            except Exception as fault:
                self.fault(fault)

    # --- windows ----------------------------------------------------------------------------------------------------

    def open_window(self) -> int:
        """Begin a watch: from here on rows are new ones. Returns its place in program order."""
        self.windows += 1
        self.table.new_epoch()
        self.order += 1
        return self.order

    def close_window(self) -> int:
        """End a watch. Returns its place in program order."""
        self.windows -= 1
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
        self.unknown_because.clear()
        self.faults.clear()
        self.last_op = None
        for channel in self.channels:
            channel.clear()
        self.settle()
