"""A write that is like one before it in all that a report tells: the ordinary write of a loop, entered with as little work as can be.

Between two large kernels nothing of Python's is in the processor's caches, and each object that is touched costs several times
what it costs in a benchmark of small operations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from jupyter_inplace.record import sites
from jupyter_inplace.record import torch_private as private

if TYPE_CHECKING:
    from jupyter_inplace.record.schema import Plan
    from jupyter_inplace.record.session import Session
    from jupyter_inplace.record.writes import Write

_CALL_IMPL = torch.nn.Module._call_impl.__code__


def repeated(session: Session, plan: Plan, place: int, args: Any, kwargs: Any) -> tuple[Write, int, int] | None:
    """The row that a write to `args[place]`, about to happen, has already, with the version before it and its place in program order.

    None where it is the first of its kind, or where it concerns anything that is followed: what was saved or is about to be,
    leaves, what autograd will not record, aliases, gradients that are unread or kept.
    """
    t = args[place]
    if (
        session.muted
        or type(t) is not torch.Tensor
        or session.engine.depth
        or session.unrecorded.derived.any
        or session.shared_results.known
        or (not t.is_floating_point() and t.numel() != 1)  # what labels and masks held is copied
    ):
        return None
    base, needs = t._base, t.requires_grad
    if needs and (base is not None or t.is_leaf or not torch.is_grad_enabled()):
        return None
    if base is not None and base.requires_grad:
        return None
    storage, version = private.storage_id(t), private.version(t)
    if (
        not storage
        or version is None
        or storage in session.leaf_storages
        or storage in session.unread.held
        or storage in session.kept_gradients.known
        or (session.unrecorded.any and session.unrecorded.knows(storage))
        or session.index.bucket(storage) is not None
        # The operation itself may save what it writes, under another name.
        or not (len(args) == 1 or _apart(args, place, storage))
        or (kwargs and not _apart(kwargs.values(), -1, storage))
    ):
        return None
    site, module = sites.find_site_and_module(_CALL_IMPL, 2, session.cell_files)
    row = session.table.find(plan.name, site, id(module), storage)
    if row is None:
        # Activations lie elsewhere in each round.
        row = session.table.shared(plan.name, site, id(module), storage) if needs else None
        if row is None:
            return None
    session.rewritten = session.rewritten or needs
    session.order = order = session.order + 1
    return row, version, order


def enter(plan: Plan, row: Write, version: int, order: int) -> None:
    """Enter it, now that it has happened."""
    row.last = order
    row.count += 1
    row.version_after = version + 1 if plan.bumps else version


def _apart(values: Any, place: int, storage: int) -> bool:
    for i, value in enumerate(values):
        if i == place:
            continue
        if isinstance(value, torch.Tensor):
            if private.storage_id(value) == storage:
                return False
        elif isinstance(value, (list, tuple)) and not _apart(value, -1, storage):
            return False
    return True
