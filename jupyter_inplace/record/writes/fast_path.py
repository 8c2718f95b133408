"""A write that is like one before it in all that a report tells: the ordinary write of a loop, entered with as little work as can be.

Between two large kernels nothing of Python's is in the processor's caches, and each object that is touched costs several times
what it costs in a benchmark of small operations.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.arguments import needs_gradient
from jupyter_inplace.record.source import sites
from jupyter_inplace.record.trace import CALL_IMPL, Trace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jupyter_inplace.record.base.schema import Plan
    from jupyter_inplace.record.write_table import WriteRow


def repeated(trace: Trace, plan: Plan, args: Any, kwargs: Any) -> list[tuple[WriteRow, int, int]] | None:
    """`_rows`; None if a fault of ours comes between, which never surfaces inside of the program's operation."""
    try:
        return _rows(trace, plan, args, kwargs)
    except Exception as fault:
        trace.fault(fault)
        return None


def _rows(trace: Trace, plan: Plan, args: Any, kwargs: Any) -> list[tuple[WriteRow, int, int]] | None:
    """The rows that the writes of an operation, about to happen, have already, each with the storage and the version before it.

    None if one is the first of its kind, or if it concerns anything that is followed: what was saved or is about to be,
    leaves, what autograd will not record, memory that a channel follows.
    """
    if trace.muted or trace.depth:
        return None
    found: list[tuple[WriteRow, int, int]] = []
    site: Any = None
    module: Any = None
    for t in plan.tensors(args, kwargs):
        storage = _of_no_concern(trace, plan, t, args, kwargs)
        if not storage:
            return None
        if site is None:
            site, module = sites.find_site_and_module(CALL_IMPL, 3, trace.cell_files)
        row = trace.table.find(plan.name, site, id(module), storage)
        if row is None:
            row = trace.table.shared(plan.name, site, id(module), storage)
        if row is None or row.version_before is None:
            return None
        trace.rewritten = trace.rewritten or t.requires_grad
        found.append((row, storage, t._version))
    trace.order += 1
    trace.written_at = (site, None if module is None else weakref.ref(module))
    return found


def enter(trace: Trace, plan: Plan, found: list[tuple[WriteRow, int, int]], order: int) -> None:
    """Enter them, now that they have happened. `order` is the moment at which they were about to."""
    try:
        for row, _, version in found:
            row.last = order
            row.count += 1
            row.version_after = version + 1 if plan.bumps else version
        if plan.hidden:
            # What such an operation saves of its running statistics it never reads back.
            written = {storage for _, storage, _ in found}
            for saved in trace.index.newer_than(order):
                if private.storage_id(saved.tensor) in written:
                    saved.never_read = True
    except Exception as fault:
        trace.fault(fault)


def _of_no_concern(trace: Trace, plan: Plan, t: Any, args: Any, kwargs: Any) -> int:
    """The storage of a tensor whose values nobody follows; 0 for any other."""
    if type(t) is not torch.Tensor:
        return 0
    if not t.is_floating_point() and t.numel() != 1:  # of labels and masks copies are kept
        return 0
    base = t._base
    if base is not None and base.requires_grad:
        # A slot of a buffer: recorded for all of it, if at all.
        if base.is_leaf or not torch.is_grad_enabled() or not (t.requires_grad or needs_gradient(args, kwargs)):
            return 0
    elif t.requires_grad and (base is not None or t.is_leaf or not torch.is_grad_enabled()):
        return 0
    storage = private.storage_id(t)
    if not storage or t.is_inference() or storage in trace.leaf_storages:
        return 0
    for channel in trace.following:
        if channel.concerns(storage):
            return 0
    if (
        trace.index.bucket(storage) is not None
        # The operation itself may save what it writes, under another name.
        or not (plan.hidden or len(args) == 1 or _apart(t, storage, args))
        or (kwargs and not _apart(t, storage, kwargs.values()))
    ):
        return 0
    return storage


def _apart(t: torch.Tensor, storage: int, values: Iterable[Any]) -> bool:
    """Whether `t` itself, once, is all that lies there."""
    met = False
    for value in values:
        if isinstance(value, torch.Tensor):
            if value is t and not met:
                met = True
            elif private.storage_id(value) == storage:
                return False
        elif isinstance(value, (list, tuple)) and not _apart(t, storage, value):
            return False
    return True
