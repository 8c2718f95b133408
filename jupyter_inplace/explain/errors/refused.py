"""Writes that torch refused: which tensor, which leaves are behind it, which tasks were never computed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from jupyter_inplace.explain.backward.facts import ConflictFact
from jupyter_inplace.explain.errors.rejected import find_rejected
from jupyter_inplace.explain.errors.wording import why_refused
from jupyter_inplace.explain.graph.graph import Graph
from jupyter_inplace.explain.names.names import Names
from jupyter_inplace.record.base.torch_private import storage_id
from jupyter_inplace.record.source import sites
from jupyter_inplace.record.source.resolver import SiteResolver
from jupyter_inplace.record.write_table import WriteRow
from jupyter_inplace.report.data import Mutation, Site


@dataclasses.dataclass(frozen=True)
class Refusal:
    """One refused write.

    :param lines: by file, the lines through which it was reached, outermost first.
    :param late: torch refused not the write but a later use of a view: it let the base be written, and then cannot
        regenerate the view's node. `node` is that node, `storages` are those of the views.
    """

    op: str
    tensor: str
    site: Site | None
    shape: tuple[int, ...]
    dtype: str | None
    device: str | None
    version: int | None
    leaves: list[str]
    note: str
    lines: dict[str, list[int]]
    tasks: Sequence[str] = ()
    late: bool = False
    node: str = ""
    storages: tuple[int, ...] = ()

    def conflict(self, rows: Mapping[int, list[WriteRow]]) -> ConflictFact | None:
        """For a late refusal, the conflict of the newest write to the memory of the view."""
        writes = [write for storage in self.storages for write in rows.get(storage, ())]
        if not writes:
            return None
        return ConflictFact(
            verdict="breaks",
            writes=[(max(writes, key=lambda write: write.last), None)],
            node=self.node,
            saved_as="view",
            tensor=self.tensor,
            saved_version=None,
            found_version=None,
            saved_site=None,
            saved_order=0,
            module=None,
            value_changed=True,
            tasks=list(self.tasks),
            leaves=list(self.leaves),
        )

    def mutation(self, number: int, time: float) -> Mutation:
        return Mutation(
            id=number,
            op=self.op,
            tensor=self.tensor,
            shape=self.shape,
            dtype=self.dtype,
            device=self.device,
            versions=None if self.version is None else (self.version, self.version),
            time=max(0.0, time),
            site=self.site,
            verdict="rejected",
            value_changed=False,
            tasks=tuple(self.tasks),
            leaves=tuple(self.leaves),
            note=self.note,
            framework="torch",
        )

    def lines_in(self, file: str | None) -> list[int]:
        """The lines of one file through which the refused statement was reached, outermost first."""
        if file in self.lines:
            return self.lines[file]
        return [self.site.cell_line] if self.site is not None and self.site.cell_line is not None else []


def find_refusal(
    error: BaseException, resolver: SiteResolver, names: Names, cell_files: frozenset[str]
) -> Refusal | None:
    """What torch refused, if `error` is one of its refusals of an in-place write."""
    found = find_rejected(error, cell_files)
    if found is None:
        return None
    late = _LATE.search(found.message)
    tensors = found.tensors
    if late is not None:
        tensors = tuple(t for t in found.tensors if _stale(t)) or tuple(t for _, t in names.tensors if _stale(t))
    tensor = tensors[0] if tensors else None
    leaves: dict[str, None] = {}
    # A refused `out=` buffer has no leaves itself: the operands have.
    for t in found.inputs if found.reason == "out_grad" else tensors:
        for leaf in leaves_behind(t):
            leaves[names.of_memory(leaf) or found.name or "?"] = None
    name = (names.of(tensor) if tensor is not None else None) or found.name or "?"
    version = None
    if tensor is not None and not tensor.is_inference():
        version = tensor._version
    return Refusal(
        op=found.op,
        tensor=name,
        site=resolver.resolve(found.key) if found.key is not None else None,
        shape=tuple(tensor.shape) if tensor is not None else (),
        dtype=str(tensor.dtype).removeprefix("torch.") if tensor is not None else None,
        device=str(tensor.device) if tensor is not None else None,
        version=version,
        leaves=list(leaves),
        note=why_refused(found.reason, name, next(iter(leaves), None)),
        lines=_by_file(found.lines),
        late=late is not None,
        node=f"{late[1]}Backward0" if late is not None else "",
        storages=tuple(dict.fromkeys(storage_id(t) for t in tensors)),
    )


_LATE = re.compile(r"Output \d+ of (\w+) is a view and its base or another view of its base has been modified inplace")


def _stale(t: torch.Tensor) -> bool:
    """Whether torch can no longer tell which node made a view, because its base was written."""
    try:
        t.grad_fn  # noqa: B018 (reading it may raise)
    except RuntimeError:
        return True
    else:
        return False


def _by_file(lines: Any) -> dict[str, list[int]]:
    out: dict[str, list[int]] = {}
    for file, line in lines:
        out.setdefault(file, []).append(line)
    return out


def leaves_behind(t: torch.Tensor) -> list[torch.Tensor]:
    """The leaves that a gradient of `t` would reach: itself, or those of its graph, or of its base if it is a view."""
    node = _node_of(t)
    if node is None and t._base is not None:  # a base is never a view
        t = t._base
        node = _node_of(t)
    if node is not None:
        graph = Graph([node])
        return [graph.nodes[i].variable for i in graph.leaves]
    return [t] if t.requires_grad else []


def _node_of(t: torch.Tensor) -> Any:
    try:
        return t.grad_fn
    except RuntimeError:  # a view whose base was written: its node can no longer be regenerated
        return None


def raising_key(error: BaseException, cell_files: frozenset[str]) -> Any:
    """The site of the innermost user frame in the traceback of an exception."""
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
