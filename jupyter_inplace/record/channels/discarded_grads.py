"""Gradients that a backward left in `.grad` and that nobody has read yet, until somebody does, or clears them.

Clearing gradients is what every training loop does, and a gradient that goes unused is nothing wrong by itself: the generator's turn
fills the discriminator, a warm-up is thrown away. So a backward is followed only as long as *all* that it gave is unread. An operation
that takes one of its gradients, a step of an optimizer that holds one, memory that a name still holds, or that left torch: each settles
it, and it is forgotten. What is left are backwards whose every gradient was cleared unread. They are kept until the next step tells
what came of it:

- the step uses the gradients of another backward over the same leaves and the same forward: that task alone is in the step, the cleared
  one is not. A backward that goes through the cleared task's root again gives its gradient back, and takes it off the list.
- the step finds no gradient at all, and no step of that optimizer ever does: it comes right after the clearing, each time.

Nothing here holds a tensor of the program's; operations are looked at only between such a backward and whatever settles it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.geometry import shape_of
from jupyter_inplace.record.base.memory import weak_storage
from jupyter_inplace.record.base.patching import Held, Replacement, StandInProperty
from jupyter_inplace.record.channels.channel import Channel, Operation
from jupyter_inplace.record.channels.exported_memory import ExportedMemory
from jupyter_inplace.record.here import StandIn, part_here
from jupyter_inplace.record.source import sites
from jupyter_inplace.record.trace import Trace
from jupyter_inplace.record.write_table import WriteRow
from jupyter_inplace.record.writes.pending import PendingWrite

_KEPT = 64
_MAX_LOOKS = 20_000  # operations that are looked at while a gradient is unread; past them it counts as read
_ZEROING = frozenset((torch.ops.aten.zero_.default, torch.ops.aten._foreach_zero_.default))
# `p.grad.data` and `p.grad.detach()` read nothing yet.
_PASSING = _ZEROING | {torch.ops.aten.detach.default, torch.ops.aten.alias.default}
_GRAD: Any = torch._C.TensorBase.__dict__["grad"]


class Cleared:
    """A gradient that is gone: by which write, and how large it was."""

    __slots__ = ("leaf", "norm", "write")

    def __init__(self, leaf: str, norm: float, write: WriteRow) -> None:
        self.leaf, self.norm, self.write = leaf, norm, write


class Given:
    """One backward call all of whose gradients are unread.

    :param tasks: the name of each task, the node that it starts from, and the names of its leaves.
    :param sequence: the number of the first node after the call began; nodes with lower numbers were there before.
    :param floor: the number of the first node after the step before it.
    :param facts: what explain made of the call.
    """

    __slots__ = ("alone", "cleared", "facts", "floor", "followed", "left", "sequence", "shared", "site", "tasks")

    def __init__(
        self, tasks: list[tuple[str, tuple[str, int], set[str]]], site: Any, sequence: int, floor: int, facts: Any
    ) -> None:
        self.tasks, self.site, self.sequence, self.floor, self.facts = tasks, site, sequence, floor, facts
        self.left: dict[int, tuple[str, int]] = {}  # by the leaf's id: its name, and the storage of its gradient
        self.cleared: dict[int, Cleared] = {}
        # The leaves that another backward of the same forward has filled again, with their storages.
        self.shared: dict[int, int] = {}
        self.followed = False  # whether any backward came after the clearing
        self.alone = True  # whether its gradients were added to no others


class DiscardedGrads(Channel):
    """The backwards of a trace whose gradients are unread, those cleared unread, and what was lost by that."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._exported = trace.part(ExportedMemory)
        self._replaced = Held()
        self.held: dict[int, list[Given]] = {}  # by the storage of a gradient
        self._memory: dict[int, StorageWeakRef] = {}
        self.cleared: list[Given] = []
        self.lost: list[Given] = []
        self.empty: dict[int, list[Given]] = {}  # by the optimizer's id: what its steps did not find
        self.stepped: set[int] = set()  # the leaves of optimizers that stepped with gradients
        self._effective: set[int] = set()  # those optimizers
        self.sites: set[Any] = set()  # of the calls that were lost: these are followed however often they run
        self._zeros: set[int] = set()
        self._rows: dict[Any, tuple[WriteRow, set[int]]] = {}  # by site, with the leaves of the newest clearing
        self.floor = -1  # the first node number after the newest step
        self._assignments = False
        self._looks = 0
        self.retained = False  # whether a gradient of a non-leaf was asked for: its reader is not known here

    def install(self) -> None:
        self._replaced.acquire((_RETAIN,))

    def remove(self) -> None:
        self.stop()
        self._replaced.release()

    @property
    def follows(self) -> bool:
        return bool(self.held or self.cleared)

    @property
    def reads(self) -> bool:
        return bool(self.held)

    def concerns(self, storage: int) -> bool:
        return storage in self.held

    def watch_assignments(self) -> None:
        """Have assignments to `.grad` seen exactly as long as they matter."""
        wanted = bool(self.held or self.cleared)
        if wanted != self._assignments:
            self._assignments = wanted
            if wanted:
                _ASSIGNED.acquire()
            else:
                _ASSIGNED.release()

    def stop(self) -> None:
        """Follow nothing any more; what was lost stays known."""
        self.cleared.clear()
        self.forget()

    def clear(self) -> None:
        self.stop()
        self.lost.clear()
        self.empty.clear()
        self.stepped.clear()
        self._effective.clear()
        self._rows.clear()
        self.sites.clear()
        self.floor = -1
        self.retained = False

    def forget(self) -> None:
        """Whatever was unread counts as read."""
        self.held.clear()
        self._memory.clear()
        self._zeros.clear()
        self.watch_assignments()

    # --- a backward ---------------------------------------------------------------------------------------------------------

    def gave(self, given: Given, leaves: list[tuple[str, Any]]) -> None:
        """A backward call is over that added to the `.grad` of `leaves`."""
        self._zeros.clear()
        self._looks = 0
        old = {leaf: other for others in self.held.values() for other in others for leaf in other.left}
        found: list[tuple[int, str, torch.Tensor]] = []
        for name, leaf in leaves:
            grad = leaf.grad
            if grad is None or grad.layout is not torch.strided or not private.storage_id(grad):
                self.forget()  # what its reader would be cannot be told
                return
            found.append((id(leaf), name, grad))
        if len({private.storage_id(grad) for _, _, grad in found}) < len(found):
            self.forget()  # buckets: one write may be to several gradients
            return
        for key, name, grad in found:
            storage = private.storage_id(grad)
            earlier = old.get(key)
            if earlier is not None:
                given.alone = earlier.alone = False
                if earlier.left[key][1] != storage:  # added out of place
                    self.forget()
                    return
            given.left[key] = (name, storage)
            self.held.setdefault(storage, []).append(given)
            self._memory[storage] = weak_storage(grad)
        self._trace.follow(self)
        self._trace.attend(self)
        self.watch_assignments()

    # --- read ---------------------------------------------------------------------------------------------------------------

    def read(self, operation: Operation) -> None:
        """What the operation takes is read."""
        if not self._trace.muted and not self._trace.depth:
            self._read(operation.args)

    def _read(self, args: Any) -> None:
        self._looks += 1
        if self._looks > _MAX_LOOKS:
            self.forget()
            return
        if self._trace.last_op in _PASSING:
            return
        for value in args:
            if isinstance(value, torch.Tensor):
                storage = private.storage_id(value)
                if storage in self.held:
                    self.settle(storage)
            elif isinstance(value, (list, tuple)) and value:
                self._read(value)

    def settle(self, storage: int) -> None:
        """A gradient was read: the backwards that it came from did not run in vain."""
        for given in list(self.held.get(storage, ())):
            for _, other in given.left.values():
                rest = [g for g in self.held.get(other, ()) if g is not given]
                if rest:
                    self.held[other] = rest
                else:
                    self.held.pop(other, None)
                    self._memory.pop(other, None)
        self.watch_assignments()

    # --- cleared ------------------------------------------------------------------------------------------------------------

    def before_assigned(self, leaf: Any) -> Any:
        """`leaf.grad` is about to be assigned. Returns what `assigned` has to know, None where it is no concern."""
        trace = self._trace
        if trace.muted or not trace.installed or trace.depth:
            return None
        try:
            grad = _GRAD.__get__(leaf)
            if grad is None:
                return None
            storage = private.storage_id(grad)
            for given in self.cleared:
                given.shared.pop(id(leaf), None)
            if storage not in self.held:
                return None
            if self._exported.has_left(storage):
                self.settle(storage)
                return None
            return storage, self._norm(grad), _described(grad)
        except Exception as fault:
            trace.fault(fault)
            return None

    def assigned(self, leaf: Any, before: Any) -> None:
        """`leaf.grad` was assigned: is the memory of the gradient gone, or does somebody keep it?"""
        trace = self._trace
        try:
            storage, norm, described = before
            memory = self._memory.get(storage)
            if memory is None or not memory.expired():
                self.settle(storage)
                return
            trace.order += 1
            site = sites.find_site(2, trace.cell_files)
            row, leaves = self._rows.get(site) or (None, set())
            if row is None:
                row = WriteRow(".grad =", site, None, 0, trace.seconds(), trace.order)
                row.shape, row.dtype, row.device, row.version_before = described
                row.version_after = row.version_before
                self._rows[site] = row, leaves
            if not leaves or id(leaf) in leaves:  # all leaves of one clearing count once
                leaves.clear()
                row.count += 1
            leaves.add(id(leaf))
            row.last = trace.order
            self._clear(storage, norm, row, zeros=False)
        except Exception as fault:
            trace.fault(fault)

    def before_write(self, write: PendingWrite) -> float | None:
        """The norm of an unread gradient that is about to be filled with zeros; None for anything else."""
        if not self.held:
            return None
        t = write.tensor
        storage = private.storage_id(t)
        if self._trace.last_op not in _ZEROING or storage not in self.held or self._trace.depth:
            return None
        if self._exported.has_left(storage):
            self.settle(storage)
            return None
        return self._norm(t)

    def after_write(self, kept: float, write: PendingWrite, row: WriteRow) -> None:
        """A gradient was filled with zeros."""
        self._clear(write.storage, kept, row, zeros=True)

    def _clear(self, storage: int, norm: float, row: WriteRow, *, zeros: bool) -> None:
        for given in self.held.pop(storage, ()):
            for key, (name, other) in list(given.left.items()):
                if other == storage:
                    del given.left[key]
                    given.cleared[key] = Cleared(name, norm, row)
                    if zeros:
                        self._zeros.add(key)
            if not given.left:
                norms = [item.norm for item in given.cleared.values()]
                # A loss that is no number is left out on purpose; a gradient of zeros is no loss.
                if all(n < float("inf") for n in norms) and any(norms):
                    self.cleared.append(given)
                    del self.cleared[:-_KEPT]
        self._memory.pop(storage, None)
        self.watch_assignments()

    @staticmethod
    def _norm(grad: torch.Tensor) -> float:
        with private.DisableTorchDispatch(), private.without_grad():
            return float(grad.detach().norm()) if private.has_data(grad) else float("nan")

    # --- a step -------------------------------------------------------------------------------------------------------------

    def stepping(self, optimizer: Any) -> None:
        """An optimizer is about to step, without a closure."""
        self.floor = private.peek_sequence_nr()
        if not (self.held or self.cleared or self.empty) and id(optimizer) in self._effective:
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        filled = [p for p in parameters if p.grad is not None and id(p) not in self._zeros]
        keys = {id(p) for p in parameters}
        if not filled:
            found = [given for given in self.cleared if not given.followed and given.cleared.keys() & keys]
            if found:
                self.empty.setdefault(id(optimizer), []).extend(found)
                del self.empty[id(optimizer)][:-_KEPT]
                self.sites.update(given.site for given in found)
                self.cleared = [given for given in self.cleared if given not in found]
                self.watch_assignments()
            return
        self._effective.add(id(optimizer))
        self.stepped |= keys
        for p in filled:
            self.settle(private.storage_id(p.grad))
        rest: list[Given] = []
        for given in self.cleared:
            if any(id(p) in given.shared and self._norm(p.grad) for p in filled):
                self.lost.append(given)
                self.sites.add(given.site)
            elif not given.cleared.keys() & keys:
                rest.append(given)
        self.cleared = rest
        self.watch_assignments()
        del self.lost[:-_KEPT]

    def leaf_written(self, storage: int) -> None:
        """A leaf was written outside of an optimizer: by what has been read of the gradients since, if anything has."""
        if self.held or not self.cleared:
            return
        found = [given for given in self.cleared if storage in given.shared.values()]
        self.lost.extend(found)
        self.sites.update(given.site for given in found)
        self.cleared = [given for given in self.cleared if given not in found]
        self.watch_assignments()

    def all_lost(self) -> list[Given]:
        """The backwards whose task is missing from the steps."""
        never = [given for key, found in self.empty.items() if key not in self._effective for given in found]
        return [*self.lost, *never]


def _described(grad: torch.Tensor) -> tuple[tuple[int, ...], str, str, int | None]:
    return shape_of(grad), str(grad.dtype).removeprefix("torch."), str(grad.device), private.version(grad)


def _retaining(original: Any) -> Any:
    def retain_grad(trace: Trace, original: Any, tensor: Any) -> Any:
        __tracebackhide__ = True
        trace.part(DiscardedGrads).retained = True
        return original(tensor)

    return StandIn(original, retain_grad)


def _following(original: Any) -> Any:
    # Not `__setattr__`: torch itself sets attributes from C++, and an interruption that comes in Python code there is lost.
    def put(tensor: Any, value: Any) -> None:
        __tracebackhide__ = True
        channel = part_here(DiscardedGrads)
        with private.Unfollowed():
            before = None if channel is None else channel.before_assigned(tensor)
        original.__set__(tensor, value)
        if channel is not None and before is not None:
            with private.Unfollowed():
                channel.assigned(tensor, before)

    return StandInProperty(original, original.__get__, put)


_RETAIN = Replacement(torch.Tensor, "retain_grad", _retaining)
# `.grad` is assigned once for each parameter of each step: that is seen only while some gradient is followed.
_ASSIGNED = Replacement(torch.Tensor, "grad", _following)
