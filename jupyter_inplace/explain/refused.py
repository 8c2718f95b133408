"""Writes that torch refused: which tensor, which leaves behind it, which tasks never came to be."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from jupyter_inplace.explain.graph import Graph
from jupyter_inplace.explain.names import Names
from jupyter_inplace.explain.rejected import find_rejected
from jupyter_inplace.record import sites
from jupyter_inplace.report import Mutation, Site

if TYPE_CHECKING:
    from jupyter_inplace.record.sites import SiteResolver


@dataclasses.dataclass
class Refusal:
    """One refused write."""

    op: str
    tensor: str
    site: Site | None
    shape: tuple[int, ...]
    dtype: str | None
    device: str | None
    version: int | None
    leaves: list[str]
    note: str
    tasks: list[str] = dataclasses.field(default_factory=list)

    def mutation(self, number: int, time: float) -> Mutation:
        return Mutation(
            id=number, op=self.op, tensor=self.tensor, shape=self.shape, dtype=self.dtype, device=self.device,
            versions=None if self.version is None else (self.version, self.version), time=max(0.0, time), site=self.site,
            verdict="rejected", value_changed=False, tasks=tuple(self.tasks), leaves=tuple(self.leaves), note=self.note, framework="torch",
        )  # fmt: skip

    def source_line(self, options: dict[str, Any]) -> int | None:
        """The line of the refused statement in the source that the tasks are looked up in."""
        if self.site is None:
            return None
        return self.site.cell_line if options["cell"] is not None else self.site.line


def find_refusal(error: BaseException, resolver: SiteResolver, names: Names) -> Refusal | None:
    """What torch refused, where `error` is one of its refusals of an in-place write."""
    found = find_rejected(error)
    if found is None:
        return None
    tensor = found.tensors[0] if found.tensors else None
    leaves: dict[str, None] = {}
    for t in found.tensors:
        for leaf in leaves_behind(t):
            leaves[names.of(leaf) or names.on_storage(leaf) or found.name or "?"] = None
    name = (names.of(tensor) if tensor is not None else None) or found.name or "?"
    version = None
    if tensor is not None and not tensor.is_inference():
        version = tensor._version
    return Refusal(
        op=found.op, tensor=name, site=resolver.resolve(found.key) if found.key is not None else None,
        shape=tuple(tensor.shape) if tensor is not None else (), dtype=str(tensor.dtype).removeprefix("torch.") if tensor is not None else None,
        device=str(tensor.device) if tensor is not None else None, version=version, leaves=list(leaves), note=str(found.reason),
    )  # fmt: skip


def leaves_behind(t: torch.Tensor) -> list[torch.Tensor]:
    """The leaves that a gradient of `t` would reach: itself, or those of its graph, or of its base where it is a view."""
    try:
        node = t.grad_fn
    except RuntimeError:  # a view whose base was written: its own node cannot be made any more
        node = None
    if node is not None:
        graph = Graph([node])
        return [graph.nodes[i].variable for i in graph.leaves]
    if t.requires_grad:
        base = t._base
        return leaves_behind(base) if base is not None else [t]
    return leaves_behind(t._base) if t._base is not None else []


def raising_key(error: BaseException, cell_files: frozenset[str]) -> Any:
    """The site of the innermost frame of the user's in an exception's traceback."""
    tb = error.__traceback__
    key = None
    cell: tuple[Any, int] | None = None
    while tb is not None:
        if sites.is_user_frame(tb.tb_frame):
            code = tb.tb_frame.f_code
            if code.co_filename in cell_files:
                cell = (code, tb.tb_lasti)
                key = sites.site_key(code, tb.tb_lasti)
            elif cell is not None:
                key = sites.site_key(code, tb.tb_lasti, *cell)
            else:
                key = sites.site_key(code, tb.tb_lasti)
        tb = tb.tb_next
    return key
