"""Memory that torch does not watch over: numpy arrays, DLPack, raw pointers over the storage of a saved tensor.

A saved tensor whose storage left through such an exit is copied when it is saved, or when it leaves, and compared again at each
operation and each backward. A difference that no dispatched write explains is an external write: it happened between the
expressions of the two operations around it.
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.geometry import byte_range, shape_of, view_of
from jupyter_inplace.record.base.memory import copy_of, is_gone, is_own_memory, underlying_storage, weak_storage
from jupyter_inplace.record.base.patching import Held, Replacement
from jupyter_inplace.record.channels.channel import Channel, Operation
from jupyter_inplace.record.channels.exported_nonleaves import ExportedNonleaves, same_bits
from jupyter_inplace.record.here import StandIn
from jupyter_inplace.record.saved.saved import Saved
from jupyter_inplace.record.source import sites

if TYPE_CHECKING:
    from jupyter_inplace.record.trace import Trace
    from jupyter_inplace.record.write_table import WriteRow

# Methods of a tensor through which its memory becomes reachable for others.
_EXITS = ("numpy", "__array__", "__dlpack__", "untyped_storage", "storage", "data_ptr")
_MAX_BYTES = 64 << 20  # of one saved tensor; larger ones are left out, and that is said
_MAX_PER_OP = 1 << 20  # bytes compared at each operation; more are compared at each backward only
_MAX_STORAGES = 4096
_DISTRIBUTED = torch.__file__.rpartition("__init__")[0] + "distributed"


class Bracket:
    """Where an external write happened: after the first site, before the second. Stands in a row for the write's own site."""

    __slots__ = ("after", "before", "opened_by_exit", "pointer", "size")

    def __init__(self, before: Any, after: Any, pointer: int, size: int, opened_by_exit: bool) -> None:
        self.before, self.after, self.pointer, self.size = before, after, pointer, size
        self.opened_by_exit = opened_by_exit


class ExportedMemory(Channel):
    """The fingerprints of one trace. `policy` is the magic's `--fingerprint`: exported, all or off."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._policy = "exported"
        # Whether tensors are looked at that need a gradient or that the program itself computed.
        self.asks = False
        # A weak reference keeps the address of a freed storage from being given to the next one.
        self._storages: dict[int, StorageWeakRef] = {}
        self._held: list[weakref.ref[Saved]] = []
        self._bytes = 0
        self._last_site: Any = None
        self._replaced = Held()
        self.busy = False
        self._opened_by_exit = False
        self._nonleaves = trace.part(ExportedNonleaves)

    @property
    def policy(self) -> str:
        return self._policy

    @policy.setter
    def policy(self, policy: str) -> None:
        self._policy = policy
        self.asks = bool(self._storages) or policy == "all"

    # --- installed for the time of the trace -----------------------------------------------------------------------------

    def install(self) -> None:
        self._replaced.acquire(_REPLACEMENTS)

    def remove(self) -> None:
        self._replaced.release()
        self._held.clear()
        self._nonleaves.clear()
        self._storages.clear()
        self.asks = self._policy == "all"
        self._last_site = None

    def has_left(self, storage: int) -> bool:
        """Whether the memory became reachable for others during the trace."""
        return storage in self._storages

    def leaving(self, tensor: Any) -> None:
        """The memory of `tensor` is about to become reachable for others."""
        if not self.busy and self.policy == "exported" and not self._trace.muted:
            self._left(tensor)

    def _left(self, tensor: Any) -> None:
        try:
            self.busy = True
            storage = private.storage_id(tensor)
            if not storage:
                return
            self._nonleaves.left(tensor, storage)
            if self._nonleaves:
                self._trace.attend(self)
            if storage in self._storages:
                return
            if len(self._storages) >= _MAX_STORAGES:
                self._forget_freed()
            self._storages[storage] = weak_storage(tensor)
            self.asks = True
            # Whoever asks for the address may write in the same statement (ctypes): that statement opens the bracket.
            self._last_site = sites.find_site(4, self._trace.cell_files)
            self._opened_by_exit = True
            bucket = self._trace.index.bucket(storage)
            for saved in bucket.live() if bucket is not None else ():
                self.hold(saved)
        except Exception as fault:
            self._trace.fault(fault)
        finally:
            self.busy = False

    def _forget_freed(self) -> None:
        self._storages = {storage: ref for storage, ref in self._storages.items() if not ref.expired()}
        while len(self._storages) >= _MAX_STORAGES:
            del self._storages[next(iter(self._storages))]

    # --- saved tensors --------------------------------------------------------------------------------------------------------

    def saw(self, saved: Saved, t: torch.Tensor) -> None:
        """A tensor was just saved: keep what it holds where somebody outside of torch could change it."""
        if self.policy == "off":
            return
        if self.policy == "all" or self._is_exported(t):
            self.hold(saved)

    def _is_exported(self, t: torch.Tensor) -> bool:
        if self._storages and private.storage_id(t) in self._storages:
            return True
        # What came in from outside before the watch: asked for plain inputs only, since outputs are torch's own memory.
        if t.requires_grad or not t.is_cpu or t.layout is not torch.strided:
            return False
        return not is_own_memory(t)

    def hold(self, saved: Saved) -> None:
        t = saved.tensor
        if saved.clone is not None or t.layout is not torch.strided or is_gone(t) or not private.has_data(t):
            return
        if t.nbytes > _MAX_BYTES:
            self._trace.blind_spots.setdefault(
                "a saved tensor over memory shared with numpy is too large to be watched for outside writes"
            )
            return
        saved.clone = copy_of(t)
        if saved.clone is None:
            return
        saved.view = view_of(t)
        saved.fingerprint = True
        self._held.append(weakref.ref(saved))
        self._trace.attend(self)
        self._bytes += t.nbytes

    @property
    def reads(self) -> bool:
        return bool(self._held or self._nonleaves)

    def read(self, operation: Operation) -> None:  # noqa: ARG002
        """Compare before an operation runs. Cheap or not at all."""
        if self._trace.muted:
            return
        if self._bytes + self._nonleaves.bytes <= _MAX_PER_OP:
            site = sites.find_site(2, self._trace.cell_files)
            self.compare(site)
            self._last_site = site
            self._opened_by_exit = False
            self._nonleaves.since = private.peek_sequence_nr()
        else:
            self._nonleaves.since = None

    def compare(self, site: Any) -> None:
        """Find the saved tensors that changed although no write was dispatched, and enter an external write for each."""
        still: list[weakref.ref[Saved]] = []
        total = 0
        changed: list[Saved] = []
        for ref in self._held:
            saved = ref()
            if saved is None or saved.touched or saved.never_read or saved.clone is None or is_gone(saved.tensor):
                continue
            if saved.tensor.shape == saved.clone.shape and same_bits(saved.tensor, saved.clone):
                still.append(ref)
                total += saved.tensor.nbytes
            else:
                changed.append(saved)
        self._held, self._bytes = still, total
        rows: dict[int, WriteRow] = {}
        for saved in changed:
            trace, t = self._trace, saved.tensor
            row = rows[private.storage_id(t)] = self._enter(t, site)
            bucket = trace.index.bucket(row.storage)
            if bucket is not None:
                bucket.log(row, trace.order, *byte_range(t), view_of(t))
                for other in bucket.live():
                    trace.index.touch(other)
            trace.index.touch(saved)
        for part, before in self._nonleaves.changed():
            memory = part.memory()
            if memory is not None:
                self._nonleaves.enter(part, before, rows.get(part.storage) or self._enter(memory, site))

    def _enter(self, t: torch.Tensor, site: Any) -> WriteRow:
        """The row of an external write to the memory of `t`, seen for the first time by the operation at `site`."""
        trace = self._trace
        memory = underlying_storage(t)
        bracket = Bracket(self._last_site, site, memory.data_ptr(), memory.nbytes(), self._opened_by_exit)
        trace.order += 1
        key = (self._last_site, site)
        row = trace.row("external", key, None, private.storage_id(t), key=0)
        version = private.version(t)
        if not row.count:
            row.bracket = bracket
            row.describe(t, shape_of(t), version)
        row.happened(trace.order, version, bumps=False)
        return row


def _exit(original: Any) -> Any:
    def leave(trace: Trace, original: Any, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if not sys._getframe(2).f_code.co_filename.startswith(_DISTRIBUTED):  # FSDP frees and fills its own memory
            trace.part(ExportedMemory).leaving(tensor)
        return original(tensor, *args, **kwargs)

    return StandIn(original, leave)


_REPLACEMENTS = tuple(Replacement(torch.Tensor, name, _exit) for name in _EXITS)
