"""Runs user code again and undoes its writes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jupyter_inplace.explain.graph.held import apart_from
from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.schema import Plan, make_plan
from jupyter_inplace.record.base.torch_private import storage_id


class _Undo(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __init__(self) -> None:
        super().__init__()
        self.plans: dict[Any, Plan | None] = {}
        self.kept: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, int | None]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in self.plans:
            self.plans[func] = make_plan(func)
        plan = self.plans[func]
        if isinstance(plan, Plan):
            for t in plan.tensors(args, kwargs):
                alias = t.detach()
                # An alias made below autograd has its own version counter, so the tensor itself is kept for that.
                self.kept.append((t, alias, alias.clone(), None if t.is_inference() else t._version))
        return func(*args, **kwargs)

    def keep(self, result: Any) -> Any:
        """`result` with copies of its tensors over memory that is about to be restored."""
        return apart_from(result, {storage_id(alias) for _, alias, _, _ in self.kept})

    def restore(self) -> None:
        for t, alias, value, version in reversed(self.kept):
            alias.copy_(value)
            if version is not None:
                private.set_version(t, version)
        self.kept.clear()


@contextlib.contextmanager
def undoing() -> Iterator[_Undo]:
    """Undo at the end of the block every write through the dispatcher, with version counters and random number generators.

    What leaves the block and shares written memory must go through `keep` first.
    """
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    undo = _Undo()
    try:
        with undo:
            yield undo
    finally:
        with private.without_grad():
            undo.restore()
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
