"""Derivatives of the losses by finite differences, operation by operation, while a program runs.

Each leaf gets a random direction. A tensor's *tangent* is how fast it moves when the leaf moves along that direction.
Tangents are kept beside the memory of the tensors, in float64, so that a write through any alias is seen by every later
read; each operation's output tangents are central differences of that one operation in float64. At a call of the
autograd engine the roots' tangents are the derivatives that the leaves' gradients must reproduce.

What the program itself holds constant stays constant: what it computes without grad mode, reads through a detached
alias, or writes to a leaf (a new value of the leaf, which moves along the same direction). Only under `live` (a write
that autograd should have recorded, the forward of a custom Function) nothing is held constant.

Independent of autograd's formulas and records: it leans on dispatch, on memory, and on the operations' values alone.
"""

from __future__ import annotations

import contextlib
import math
import types
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jupyter_inplace.record.schema import Plan
from jupyter_inplace.record.torch_private import storage_id
from jupyter_inplace.rewrite.preserve import write_plan
from jupyter_inplace.rewrite.proof.naming import LeafNames

_STEP = 1e-6
_LEAVES = 64  # directions; more leaves share them
_UNKNOWN: Any = object()

Tangents = dict[int, torch.Tensor]  # by direction


class NotDifferentiableError(Exception):
    """The program does something here that cannot be followed."""


def direction(number: int, shape: Sequence[int]) -> torch.Tensor:
    """The random direction of the leaf that was met as the `number`-th, the same in every process."""
    generator = torch.Generator().manual_seed(1_000_003 * (number + 1))
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float64)


class _Memory:
    """The tangents of one storage, element by element."""

    __slots__ = ("by_direction", "count", "itemsize", "leaf")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.itemsize = tensor.element_size()
        self.count = tensor.untyped_storage().nbytes() // self.itemsize
        self.by_direction: Tangents = {}
        self.leaf = False

    def view(self, number: int, tensor: torch.Tensor) -> torch.Tensor:
        flat = self.by_direction.get(number)
        if flat is None:
            flat = self.by_direction[number] = torch.zeros(self.count, dtype=torch.float64)
        return flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


class DerivativeMode(TorchDispatchMode):
    """Carries tangents along with a program on the CPU.

    :param names: for the leaves in what `slopes` gives.
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __init__(self, names: LeafNames) -> None:
        super().__init__()
        self._names = names
        self._memory: dict[int, _Memory] = {}
        self._leaves: list[weakref.ref[torch.Tensor]] = []
        self._numbers: dict[tuple[int, int, tuple[int, ...]], int] = {}
        self._plans: dict[Any, Plan | None] = {}
        self._live = 0
        self.problem: str | None = None

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Hold nothing constant in here."""
        self.enter_live()
        try:
            yield
        finally:
            self.leave_live()

    def enter_live(self) -> None:
        """Begin to hold nothing constant."""
        self._live += 1

    def leave_live(self) -> None:
        """The end of what `enter_live` began."""
        self._live -= 1

    @contextlib.contextmanager
    def custom_functions_live(self) -> Iterator[None]:
        """Follow the forwards of custom autograd Functions, which run without grad mode."""
        mode, original = self, torch.autograd.Function.apply

        def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
            with mode.live():
                return original.__func__(cls, *args, **kwargs)  # type: ignore[attr-defined]

        torch.autograd.Function.apply = classmethod(apply)  # type: ignore[assignment, method-assign]
        try:
            yield
        finally:
            torch.autograd.Function.apply = original  # type: ignore[method-assign]

    def slopes(
        self, roots: Sequence[Any], weights: Sequence[torch.Tensor | None] | None, frame: types.FrameType | None = None
    ) -> dict[str, tuple[int, float]]:
        """By leaf, its number and the derivative of the weighted sum of `roots` along its direction.

        :param weights: the gradients that the engine starts from; None stands for ones.
        """
        totals: dict[int, float] = {}
        with torch._C._DisableTorchDispatch(), torch.no_grad():
            for place, root in enumerate(roots):
                if not isinstance(root, torch.Tensor):
                    self.problem = self.problem or "a backward call began at a graph edge"
                    continue
                weight = weights[place] if weights is not None and place < len(weights) else None
                for number, tangent in self._tangents(root, live=False).items():
                    part = tangent if weight is None else tangent * weight.to(torch.float64)
                    totals[number] = totals.get(number, 0.0) + float(part.sum())
        alive = [(n, leaf) for n, ref in enumerate(self._leaves) if (leaf := ref()) is not None]
        names = self._names.of([leaf for _, leaf in alive], frame)
        return {name: (n, totals.get(n % _LEAVES, 0.0)) for name, (n, _) in zip(names, alive, strict=True)}

    # --- one operation --------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.problem is not None:
            return func(*args, **kwargs)
        plan = self._plans.get(func, _UNKNOWN)
        if plan is _UNKNOWN:
            plan = self._plans[func] = write_plan(func)
        try:
            work = self._before(func, plan, args, kwargs)
        except Exception as error:  # noqa: BLE001  the program goes on, without us
            self._give_up(func, error)
            return func(*args, **kwargs)
        random_before = torch.get_rng_state() if work and _is_random(func) else None
        out = func(*args, **kwargs)
        try:
            self._after(func, plan, args, kwargs, out, work, random_before)
        except Exception as error:  # noqa: BLE001
            self._give_up(func, error)
        return out

    def _give_up(self, func: Any, error: Exception) -> None:
        text = str(error).partition("\n")[0][:120]
        self.problem = f"{func} could not be differentiated by finite differences ({text})"

    def _before(self, func: Any, plan: Plan | None, args: Any, kwargs: Any) -> list[tuple[Any, Any, Tangents]]:
        """The tensors that the operation reads, with copies of their values and their tangents, if any moves."""
        live = self._live > 0
        follows = live or torch.is_grad_enabled()
        read: list[tuple[Any, Any, Tangents]] = []
        with torch._C._DisableTorchDispatch(), torch.no_grad():
            for tensor in _tensors((args, kwargs)):
                self._meet(tensor)
            if not follows:
                return []
            for tensor in _tensors((args, kwargs)):
                tangents = self._tangents(tensor, live)
                if tangents:
                    read.append((tensor, None, tangents))
            if not read or (plan is None and _only_views(func)):
                return []
            if plan is not None:  # the values are about to change
                read = [(tensor, tensor.clone(), tangents) for tensor, _, tangents in read]
        return read

    def _meet(self, tensor: torch.Tensor) -> None:
        if not (tensor.requires_grad and tensor.is_floating_point()) or tensor.grad_fn is not None or not _is_leaf(tensor):
            return
        key = (storage_id(tensor), tensor.storage_offset(), tuple(tensor.shape))
        if not key[0] or key in self._numbers:
            return
        memory = self._memory_of(tensor)
        if memory is None:
            raise NotDifferentiableError("a leaf without memory of its own")
        if memory.by_direction and not memory.leaf:
            raise NotDifferentiableError("a leaf over the memory of another result")
        number = self._numbers[key] = len(self._leaves)
        self._leaves.append(weakref.ref(tensor))
        weakref.finalize(tensor.untyped_storage(), self._numbers.pop, key, None)
        memory.leaf = True
        memory.view(number % _LEAVES, tensor).copy_(direction(number, tensor.shape))

    def _tangents(self, tensor: torch.Tensor, live: bool) -> Tangents:
        if not tensor.is_floating_point() or not (live or tensor.requires_grad):
            return {}
        memory = self._memory.get(storage_id(tensor))
        if memory is None or not memory.by_direction:
            return {}
        if tensor.layout is not torch.strided or tensor.element_size() != memory.itemsize:
            raise NotDifferentiableError("memory read as another type")
        found = {n: memory.view(n, tensor).clone() for n in memory.by_direction}
        return {n: tangent for n, tangent in found.items() if bool(tangent.any())}

    def _memory_of(self, tensor: torch.Tensor) -> _Memory | None:
        key = storage_id(tensor)
        if not key or tensor.layout is not torch.strided:
            return None
        memory = self._memory.get(key)
        if memory is None:
            memory = self._memory[key] = _Memory(tensor)
            weakref.finalize(tensor.untyped_storage(), self._memory.pop, key, None)
        return memory

    def _after(
        self, func: Any, plan: Plan | None, args: Any, kwargs: Any, out: Any, read: list[tuple[Any, Any, Tangents]],
        random_before: torch.Tensor | None,
    ) -> None:  # fmt: skip
        with torch._C._DisableTorchDispatch(), torch.no_grad():
            targets = plan.tensors(args, kwargs) if plan is not None and not plan.metadata_only else []
            inputs = {storage_id(tensor) for tensor in _tensors((args, kwargs))}
            fresh = [t for t in _tensors(out) if storage_id(t) not in inputs]
            moved = self._differences(func, plan, args, kwargs, read, random_before, len(targets)) if read else {}
            results = [*targets, *fresh]
            for place, tensor in enumerate(results):
                if tensor.is_floating_point():
                    self._set(tensor, {n: parts[place] for n, parts in moved.items()})

    def _set(self, tensor: torch.Tensor, tangents: Tangents) -> None:
        memory = self._memory.get(storage_id(tensor))
        if memory is None:
            if not any(bool(tangent.any()) for tangent in tangents.values()):
                return
            memory = self._memory_of(tensor)
            if memory is None:
                raise NotDifferentiableError("a result without memory of its own")
        if memory.leaf:
            return  # a leaf's new value moves along the leaf's own direction
        for number in set(memory.by_direction) | set(tangents):
            memory.view(number, tensor).copy_(tangents.get(number, torch.zeros((), dtype=torch.float64)))

    def _differences(
        self, func: Any, plan: Plan | None, args: Any, kwargs: Any, read: list[tuple[Any, Any, Tangents]],
        random_before: torch.Tensor | None, targets: int,
    ) -> dict[int, list[torch.Tensor]]:  # fmt: skip
        """By direction, the tangents of the written arguments and then of the new outputs."""
        values = {id(tensor): (tensor if before is None else before) for tensor, before, _ in read}
        numbers = sorted({n for _, _, tangents in read for n in tangents})
        random_after = torch.get_rng_state() if random_before is not None else None
        found: dict[int, list[torch.Tensor]] = {}
        try:
            for number in numbers:
                moving = {id(tensor): tangents[number] for tensor, _, tangents in read if number in tangents}
                size = max(float(t.abs().max()) for t in moving.values())
                scale = max(1.0, *(float(values[i].abs().max()) for i in moving))
                step = _STEP * scale / size
                ahead, behind = (
                    self._evaluate(func, plan, args, kwargs, values, moving, sign * step, random_before, targets)
                    for sign in (1, -1)
                )
                found[number] = [(a - b) / (2 * step) for a, b in zip(ahead, behind, strict=True)]
                if not all(math.isfinite(float(t.sum())) for t in found[number]):
                    raise NotDifferentiableError("infinite or undefined values")
        finally:
            if random_after is not None:
                torch.set_rng_state(random_after)
        return found

    def _evaluate(
        self, func: Any, plan: Plan | None, args: Any, kwargs: Any, values: Mapping[int, torch.Tensor],
        moving: Mapping[int, torch.Tensor], step: float, random_before: torch.Tensor | None, targets: int,
    ) -> list[torch.Tensor]:  # fmt: skip
        made: dict[int, torch.Tensor] = {}

        def convert(tensor: torch.Tensor) -> torch.Tensor:
            if id(tensor) not in made:
                value = values.get(id(tensor), tensor).detach()
                value = value.to(torch.float64).clone() if value.is_floating_point() else value.clone()
                if id(tensor) in moving:
                    value = value + step * moving[id(tensor)]
                made[id(tensor)] = value
            return made[id(tensor)]

        if random_before is not None:
            torch.set_rng_state(random_before)
        new_args, new_kwargs = _map((args, kwargs), convert)
        out = func(*new_args, **new_kwargs)
        written = plan.tensors(new_args, new_kwargs) if plan is not None else []
        inputs = {storage_id(tensor) for tensor in _tensors((new_args, new_kwargs))}
        fresh = [t for t in _tensors(out) if storage_id(t) not in inputs]
        return [t.to(torch.float64) for t in [*written[:targets], *fresh]]


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


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in _tensors(item)]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in _tensors(item)]
    return []


def _is_leaf(tensor: torch.Tensor) -> bool:
    try:
        return tensor.is_leaf and (tensor._base is None or tensor._base.is_leaf)
    except RuntimeError:
        return False


def _is_random(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in func.tags


def _only_views(func: Any) -> bool:
    """Whether all that the operation returns is over the memory of its arguments: tangents need no care then."""
    returns = func._schema.returns
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)
