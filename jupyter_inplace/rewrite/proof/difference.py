"""Central differences of one operation, in float64, at the values and with the random numbers of its run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from jupyter_inplace.record.base.schema import Plan
from jupyter_inplace.record.base.torch_private import storage_id

_STEP = 1e-6

Tangents = dict[int, torch.Tensor]  # by direction


class NotDifferentiableError(Exception):
    """The derivative cannot be followed through this operation."""


@dataclass(frozen=True, slots=True)
class Moving:
    """An argument with tangents: its value before the operation, and the tangents."""

    tensor: torch.Tensor
    value: torch.Tensor
    tangents: Tangents


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of an operator.

    :param follows: whether derivatives pass through it: it runs in grad mode, or in `live` mode.
    :param random: the state of the generator before it, if it draws random numbers.
    """

    func: Any
    plan: Plan | None
    args: Any
    kwargs: Any
    moving: tuple[Moving, ...]
    random: torch.Tensor | None
    follows: bool

    def differences(self, targets: int) -> dict[int, list[torch.Tensor]]:
        """For each direction, the tangents of what the operation wrote to and then of its new outputs.

        :param targets: how many tensors it wrote to.
        :raises NotDifferentiableError: a derivative is infinite or undefined.
        """
        random_after = torch.get_rng_state() if self.random is not None else None
        found: dict[int, list[torch.Tensor]] = {}
        try:
            for number in sorted({n for moving in self.moving for n in moving.tangents}):
                found[number] = self._difference(number, targets)
        finally:
            if random_after is not None:
                torch.set_rng_state(random_after)
        return found

    def _difference(self, number: int, targets: int) -> list[torch.Tensor]:
        tangents = {id(m.tensor): m.tangents[number] for m in self.moving if number in m.tangents}
        size = max(float(tangent.abs().max()) for tangent in tangents.values())
        values = (_largest(m.value) for m in self.moving if number in m.tangents)
        step = _STEP * max(1.0, *values) / size
        ahead = self._evaluate(tangents, step, targets)
        behind = self._evaluate(tangents, -step, targets)
        # Constant infinities (a mask of -inf) have no difference.
        slopes = [torch.where(a == b, 0.0, (a - b) / (2 * step)) for a, b in zip(ahead, behind, strict=True)]
        if not all(math.isfinite(float(slope.sum())) for slope in slopes):
            raise NotDifferentiableError("infinite or undefined values")
        return slopes

    def _evaluate(self, tangents: Mapping[int, torch.Tensor], step: float, targets: int) -> list[torch.Tensor]:
        values = {id(m.tensor): m.value for m in self.moving}
        made: dict[int, torch.Tensor] = {}

        def convert(tensor: torch.Tensor) -> torch.Tensor:
            if id(tensor) not in made:
                value = values.get(id(tensor), tensor).detach()
                value = value.to(torch.float64).clone() if value.is_floating_point() else value.clone()
                if id(tensor) in tangents:
                    value = value + step * tangents[id(tensor)]
                made[id(tensor)] = value
            return made[id(tensor)]

        if self.random is not None:
            torch.set_rng_state(self.random)
        args, kwargs = _map((self.args, self.kwargs), convert)
        out = self.func(*args, **kwargs)
        written = self.plan.tensors(args, kwargs) if self.plan is not None else []
        results = [*written[:targets], *fresh(out, (args, kwargs))]
        if any(t.is_complex() for t in results):
            raise NotDifferentiableError("complex numbers")
        return [t.to(torch.float64) for t in results]


def _largest(value: torch.Tensor) -> float:
    return float(value.abs().nan_to_num(0.0, 0.0, 0.0).max())


def tensors_in(value: Any) -> list[torch.Tensor]:
    """The tensors in arguments or results."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in tensors_in(item)]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in tensors_in(item)]
    return []


def fresh(out: Any, arguments: Any) -> list[torch.Tensor]:
    """The results that do not share memory with an argument."""
    inputs = {storage_id(tensor) for tensor in tensors_in(arguments)}
    return [tensor for tensor in tensors_in(out) if storage_id(tensor) not in inputs]


def _map(value: Any, convert: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return convert(value)
    if isinstance(value, torch.dtype):
        return torch.float64 if value.is_floating_point else value
    if isinstance(value, tuple | list):
        return type(value)(_map(item, convert) for item in value)
    if isinstance(value, dict):
        return {key: _map(item, convert) for key, item in value.items()}
    return value
