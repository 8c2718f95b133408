"""Derivatives of the losses by finite differences, operation by operation, while a program runs.

Each leaf gets a random direction. A tensor's *tangent* is how fast it moves when the leaf moves along that direction.
Tangents are kept per storage, in float64, so that a write through any alias is seen by every later read; the output
tangents of each operation are central differences of that one operation in float64. At a call of the autograd engine the
tangents of the roots are the derivatives that the gradients of the leaves must reproduce.

What the program itself treats as constant stays constant: what it computes without grad mode, reads through a detached
alias, or writes to a leaf (a new value of the leaf, which moves along the same direction). Only in `live` mode (a write
that autograd should have recorded, the forward of a custom Function) nothing is constant.

It is independent of autograd's formulas and records: it uses only dispatch, memory, and the values of operations.
"""

from __future__ import annotations

import contextlib
import types
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.own_mode import OwnMode
from jupyter_inplace.record.base.schema import Plan
from jupyter_inplace.record.base.torch_private import storage_id
from jupyter_inplace.rewrite.preserve import write_plan
from jupyter_inplace.rewrite.proof.difference import (
    Moving,
    NotDifferentiableError,
    Operation,
    Tangents,
    fresh,
    tensors_in,
)
from jupyter_inplace.rewrite.proof.naming import LeafNames

_LEAVES = 64  # the number of directions; beyond it leaves share them
_UNKNOWN: Any = object()


def direction(number: int, shape: Sequence[int]) -> torch.Tensor:
    """The random direction of the `number`-th leaf encountered, the same in every process."""
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


class DerivativeMode(OwnMode):
    """Propagates tangents along with a program on the CPU.

    :param names: names the leaves in the result of `slopes`.
    :param leaves_follow: in `live` mode, treat a write to a leaf like one to any other tensor, as if later reads saw a new
        tensor made from the leaf.
    """

    def __init__(self, names: LeafNames, *, leaves_follow: bool = False) -> None:
        super().__init__()
        self._leaves_follow = leaves_follow
        self._names = names
        self._memory: dict[int, _Memory] = {}
        self._leaves: list[weakref.ref[torch.Tensor]] = []
        self._numbers: dict[Any, int] = {}
        self._plans: dict[Any, Plan | None] = {}
        self._live = 0
        #: Why nothing is known from some point on.
        self.problem: str | None = None

    def enter_live(self) -> None:
        """Treat nothing as constant from here on."""
        self._live += 1

    def leave_live(self) -> None:
        """Undo `enter_live`."""
        self._live -= 1

    @contextlib.contextmanager
    def custom_functions_live(self) -> Iterator[None]:
        """Follow the forwards of custom autograd Functions, which run without grad mode."""
        mode: DerivativeMode = self
        original: Any = vars(torch.autograd.Function)["apply"]  # the class method, not bound to the base class
        inner = private.apply_of(original)

        def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
            mode.enter_live()
            try:
                return inner(cls, *args, **kwargs)
            finally:
                mode.leave_live()

        torch.autograd.Function.apply = classmethod(apply)  # type: ignore[assignment]
        try:
            yield
        finally:
            torch.autograd.Function.apply = original  # type: ignore[method-assign]

    def slopes(
        self, roots: Sequence[Any], weights: Sequence[torch.Tensor | None] | None, frame: types.FrameType | None = None
    ) -> dict[str, tuple[int, float]]:
        """For each leaf, its number and the derivative of the weighted sum of `roots` along its direction.

        :param weights: the incoming gradients of the engine call; None means ones.
        """
        totals: dict[int, float] = {}
        with private.DisableTorchDispatch(), torch.no_grad():
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
            operation = self._before(func, plan, args, kwargs)
        except Exception as error:  # noqa: BLE001  the program goes on, without us
            self._give_up(func, error)
            return func(*args, **kwargs)
        out = func(*args, **kwargs)
        try:
            self._after(operation, out)
        except Exception as error:  # noqa: BLE001
            self._give_up(func, error)
        return out

    def _give_up(self, func: Any, error: Exception) -> None:
        text = str(error).partition("\n")[0][:120]
        self.problem = f"{func} could not be differentiated by finite differences ({text})"

    def _before(self, func: Any, plan: Plan | None, args: Any, kwargs: Any) -> Operation:
        """The operation with the tangents of its inputs, if any of them has some."""
        live = self._live > 0
        follows = live or torch.is_grad_enabled()
        moving: list[Moving] = []
        with private.DisableTorchDispatch(), torch.no_grad():
            tensors = tensors_in((args, kwargs))
            if any(map(private.is_wrapper, tensors)):
                raise NotDifferentiableError("a tensor that keeps its values in others")
            for tensor in tensors:
                self._meet(tensor)
            if follows and not (plan is None and (_only_views(func) or _only_memory(func))):
                for tensor in tensors:
                    tangents = self._tangents(tensor, live)
                    if tangents:  # a write is about to change the value
                        moving.append(Moving(tensor, tensor.clone() if plan is not None else tensor, tangents))
        random = torch.get_rng_state() if moving and torch.Tag.nondeterministic_seeded in func.tags else None
        return Operation(func, plan, args, kwargs, tuple(moving), random, follows=follows)

    def _after(self, operation: Operation, out: Any) -> None:
        plan, args, kwargs = operation.plan, operation.args, operation.kwargs
        with private.DisableTorchDispatch(), torch.no_grad():
            targets = plan.tensors(args, kwargs) if plan is not None and not plan.metadata_only else []
            moved = operation.differences(len(targets)) if operation.moving else {}
            for place, tensor in enumerate([*targets, *fresh(out, (args, kwargs))]):
                # A write without grad mode to a tensor with a history: autograd ignores the write, and so do we.
                ignored = not operation.follows and place < len(targets) and tensor.requires_grad
                if tensor.is_floating_point() and not ignored:
                    self._set(tensor, {number: parts[place] for number, parts in moved.items()})

    # --- tangents beside memory -----------------------------------------------------------------------------------

    def _meet(self, tensor: torch.Tensor) -> None:
        """Give a new leaf its direction."""
        if not (tensor.requires_grad and tensor.is_floating_point() and _is_leaf(tensor) and tensor.grad_fn is None):
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
        weakref.finalize(tensor.untyped_storage(), lambda: self._numbers.pop(key, None))
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

    def _set(self, tensor: torch.Tensor, tangents: Tangents) -> None:
        memory = self._memory.get(storage_id(tensor))
        if memory is None:
            if not any(bool(tangent.any()) for tangent in tangents.values()):
                return
            memory = self._memory_of(tensor)
            if memory is None:
                raise NotDifferentiableError("a result without memory of its own")
        if memory.leaf and not (self._leaves_follow and self._live):
            return  # the new value of a leaf moves along the leaf's own direction
        for number in set(memory.by_direction) | set(tangents):
            memory.view(number, tensor).copy_(tangents.get(number, torch.zeros((), dtype=torch.float64)))

    def _memory_of(self, tensor: torch.Tensor) -> _Memory | None:
        key = storage_id(tensor)
        if not key or tensor.layout is not torch.strided or private.is_wrapper(tensor):
            return None
        memory = self._memory.get(key)
        if memory is None:
            memory = self._memory[key] = _Memory(tensor)
            weakref.finalize(tensor.untyped_storage(), self._memory.pop, key, None)
        return memory


def _is_leaf(tensor: torch.Tensor) -> bool:
    try:
        return tensor.is_leaf and (tensor._base is None or tensor._base.is_leaf)
    except RuntimeError:  # a view of a base that was written: torch refuses to say
        return False


def _only_memory(func: Any) -> bool:
    """Whether the operation returns uninitialised memory, whose values mean nothing."""
    return str(func._schema.name).startswith(("aten::empty", "aten::new_empty"))


def _only_views(func: Any) -> bool:
    """Whether the operation returns only views of its arguments, which need no new tangents."""
    returns = func._schema.returns
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)
