"""Which arguments an operator writes to: from its schema, and a small table where the schema hides it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_OpOverload = torch._ops.OpOverload


class Plan:
    """What to do around one operator that writes.

    `places` are the written arguments as (position, name); `bumps` is whether versions move (fused optimizers and batch
    norm statistics do not), `foreach` that torch forgets to bump them under a mode (lists of tensors), `custom` that its body is Python,
    `hidden` that autograd does not count the write as in-place, `repeatable` that a call may be made again on copies, `ordinary`
    that it writes to the values of its own tensors, one by one, and does nothing else out of the way.
    """

    __slots__ = (
        "bumps",
        "custom",
        "foreach",
        "hidden",
        "metadata_only",
        "name",
        "ordinary",
        "places",
        "repeatable",
        "sole",
        "when",
    )

    def __init__(
        self, func: Any, places: list[tuple[int, str]], when: Callable[[Any, Any], bool] | None = None
    ) -> None:
        self.name = str(func)
        self.places = places
        self.when = when
        self.sole = places[0][0] if len(places) == 1 and when is None else None  # where it writes one argument
        namespace = func.namespace
        operator = func._schema.name.partition("::")[2]
        # An operator that writes an input besides giving its result (`rrelu_with_noise`, `_native_batch_norm_legit`) saves
        # that input before it writes it, and torch bumps no version: its own write is part of its forward.
        self.hidden = when is not None or (namespace == "aten" and not operator.endswith("_") and not _gives_out(func))
        # Two list operators go by the memory alone, with and without a mode: fused optimizers and a GradScaler's unscaling.
        unversioned = operator.startswith(("_fused_", "_amp_"))
        self.foreach = namespace == "aten" and not unversioned and any(_is_list(func, i) for i, _ in places)
        collective = namespace == _COLLECTIVES
        self.bumps = not self.hidden and not collective and not unversioned
        self.custom = namespace not in ("aten", "prims", "prim", _COLLECTIVES)
        self.repeatable = not collective  # one more collective on one rank would leave the others waiting
        self.metadata_only = torch.Tag.inplace_view in func.tags
        self.ordinary = namespace == "aten" and not (self.foreach or self.metadata_only or unversioned)

    def tensors(self, args: Any, kwargs: Any) -> list[torch.Tensor]:
        """The tensors that a call with these arguments writes to."""
        if self.sole is not None and self.sole < len(args):
            value = args[self.sole]
            if isinstance(value, torch.Tensor):
                return [value]
        found: list[torch.Tensor] = []
        if self.when is not None and not self.when(args, kwargs):
            return found
        for position, name in self.places:
            value = args[position] if position < len(args) else kwargs.get(name)
            if isinstance(value, torch.Tensor):
                found.append(value)
            elif isinstance(value, (list, tuple)):
                found.extend(_flat(value))
        return found


def _flat(values: Any) -> list[torch.Tensor]:
    """The tensors of a list, or of a list of lists (`all_gather`)."""
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend(_flat(value))
    return found


def is_custom(namespace: str) -> bool:
    """Whether operators of a namespace may have a body in Python. Of torch's own many do not, which is as well."""
    return namespace not in ("aten", "prims", "prim", "profiler")


ALIAS: Any = object()  # the plan of an operator that writes nothing itself


def _is_list(func: Any, position: int) -> bool:
    return isinstance(func._schema.arguments[position].type, torch.ListType)


def _gives_out(func: Any) -> bool:
    return any(argument.is_out for argument in func._schema.arguments)


def _argument(position: int, name: str) -> Callable[[Any, Any], bool]:
    return lambda args, kwargs: bool(args[position] if position < len(args) else kwargs.get(name))


# Kernels that update running statistics which their schema shows as read only: written arguments, and when they are.
_HIDDEN: dict[str, tuple[list[tuple[int, str]], Callable[[Any, Any], bool]]] = {
    # In inference mode the composite operators reach a mode as they are.
    "aten::batch_norm": ([(3, "running_mean"), (4, "running_var")], _argument(5, "training")),
    "aten::_batch_norm_impl_index": ([(3, "running_mean"), (4, "running_var")], _argument(5, "training")),
    "aten::instance_norm": ([(3, "running_mean"), (4, "running_var")], _argument(5, "use_input_stats")),
    "aten::native_batch_norm": ([(3, "running_mean"), (4, "running_var")], _argument(5, "training")),
    "aten::cudnn_batch_norm": ([(3, "running_mean"), (4, "running_var")], _argument(5, "training")),
    "aten::miopen_batch_norm": ([(3, "running_mean"), (4, "running_var")], _argument(5, "training")),
    "aten::batch_norm_update_stats": ([(1, "running_mean"), (2, "running_var")], lambda args, kwargs: True),
    "aten::batch_norm_gather_stats": ([(3, "running_mean"), (4, "running_var")], lambda args, kwargs: True),
    "aten::batch_norm_gather_stats_with_counts": ([(3, "running_mean"), (4, "running_var")], lambda args, kwargs: True),
}

# torch.distributed's collectives (all_reduce, broadcast ...) write to their first argument, which no schema says and which
# bumps no version; a buffer that DistributedDataParallel keeps in step is written so.
_COLLECTIVES = "c10d"

# Marked as writes by their schema, yet no value and no shape changes.
_NO_WRITES = {"aten::record_stream", "aten::retain_grad", "aten::requires_grad_", "aten::_assert_tensor_metadata"}


# Operators whose output is an alias that autograd does not connect with its input: `.data`, `detach()`, `unsafe_chunk`.
_ALIASES = {"aten::detach", "aten::unsafe_split", "aten::unsafe_split_with_sizes", "aten::unsafe_chunk"}


def may_need_a_plan(schema: Any) -> bool:
    """Whether `make_plan` could give anything but None for an operator of this schema."""
    name = schema.name
    if name in _NO_WRITES:
        return False
    return (
        schema.is_mutable
        or name in _HIDDEN
        or name in _ALIASES
        or (name.startswith(_COLLECTIVES + "::") and name.endswith("_"))
    )


def make_plan(func: Any) -> Plan | None:
    """The plan of an operator, None where it writes to nothing, `ALIAS` where it makes an alias to look out for."""
    if not isinstance(func, _OpOverload):
        return None
    name = func._schema.name
    if name in _NO_WRITES:
        return None
    hidden = _HIDDEN.get(name)
    places = [
        (position, argument.name)
        for position, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    if places:
        return Plan(func, places)
    if hidden is not None:
        return Plan(func, *hidden)
    if func.namespace == _COLLECTIVES and name.endswith("_") and "barrier" not in name:
        return Plan(func, [(0, func._schema.arguments[0].name)])
    return ALIAS if name in _ALIASES else None
