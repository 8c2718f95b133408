"""A write that is like one before it in all that a report tells: the ordinary write of a loop, entered with as little work as can be."""

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


def repeated(session: Session, plan: Plan, t: Any) -> tuple[Write, int] | None:
    """The row that a write to `t`, about to happen, has already, and the version that `t` has before it.

    None where it is the first of its kind, or where it concerns anything that is followed: what was saved, leaves, tensors that need
    a gradient, their aliases, gradients that are unread or kept.
    """
    if (
        session.muted
        or session.engine.depth
        or session.unrecorded.any
        or session.unread.held
        or session.kept_gradients.known
        or session.shared_results.known
        or not isinstance(t, torch.Tensor)
        or t.requires_grad
        or ((base := t._base) is not None and base.requires_grad)
        or (not t.is_floating_point() and t.numel() != 1)  # what labels and masks held is copied
    ):
        return None
    storage, version = private.storage_id(t), private.version(t)
    if not storage or version is None or storage in session.leaf_storages or session.index.bucket(storage) is not None:
        return None
    site, module = sites.find_site_and_module(_CALL_IMPL, 2, session.cell_files)
    row = session.table.find(plan.name, site, id(module), storage)
    return None if row is None or not row.count else (row, version)


def enter(session: Session, plan: Plan, row: Write, version: int) -> None:
    """Enter it, now that it has happened."""
    session.order = row.last = session.order + 1
    row.count += 1
    row.version_after = version + 1 if plan.bumps else version
