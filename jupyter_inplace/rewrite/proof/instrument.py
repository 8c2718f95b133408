"""Records losses and gradients event by event, while a cell runs in a worker."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.rewrite.proof.derivative import DerivativeMode, direction
from jupyter_inplace.rewrite.proof.events import Event
from jupyter_inplace.rewrite.proof.memory import LiveBytes
from jupyter_inplace.rewrite.proof.naming import LeafNames, leaves_of
from jupyter_inplace.rewrite.proof.values import Packer, Value
from jupyter_inplace.rewrite.sandbox.reach import grad_of

_ROUNDS = 3  # backward to step, after the marked line
_QUICK = 1.0  # seconds: shorter runs are not cut short


class Instrument:
    """Sees every call of the autograd engine and every optimizer step of one run.

    :param names: names the leaves.
    :param emit: called with each event.
    :param stop: called when the run has shown enough; does not return.
    :param stop_after: the number of events that are enough.
    :param stop_seconds: the time after which the run stops at its next event.
    :param mark_at: count rounds from this many events on, as if a marked line had been reached there.
    :param only_values: run no backward; end at the first optimizer step, which would have no gradients.
    """

    def __init__(
        self,
        names: LeafNames,
        emit: Callable[[Event], None],
        stop: Callable[[], None],
        *,
        stop_after: int | None,
        stop_seconds: float,
        mark_at: int | None,
        only_values: bool,
        budget: int,
    ) -> None:
        self._emit = emit
        self._stop = stop
        self._stop_after = stop_after
        self._stop_seconds = stop_seconds
        self._mark_at = mark_at
        self._only_values = only_values
        self._names = names
        self._packer = Packer(budget)
        self._began = time.perf_counter()
        self._depth = 0
        self._undo: list[Callable[[], None]] = []
        self.memory = LiveBytes()
        self.derivatives: DerivativeMode | None = None
        self.directions: Mapping[str, int] = {}
        self.peaks: list[int] = []
        self.events = 0
        self.backwards = 0
        self.raised = 0
        self.steps = 0
        self.marked: int | None = None
        self._marked_at = (0, 0)

    def install(self) -> None:
        """Start to record."""
        for module in (torch.autograd, torch.autograd.graph):
            self._patch(module, "_engine_run_backward")
        hook = register_optimizer_step_pre_hook(self._on_step)
        self._undo.append(hook.remove)

    def remove(self) -> None:
        """Stop recording."""
        while self._undo:
            self._undo.pop()()

    def mark(self) -> None:
        """The program has reached the marked line."""
        if self.marked is None:
            self.marked = self.events
            self._marked_at = (self.backwards, self.steps)

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._began

    @property
    def rounds(self) -> int:
        """Rounds since the marked line, if there is one: optimizer steps, or backward calls if there are no steps."""
        steps = self.steps - self._marked_at[1]
        return steps or self.backwards - self._marked_at[0]

    def _patch(self, module: Any, name: str) -> None:
        original = getattr(module, name)

        @functools.wraps(original)
        def run_backward(outputs: Any, *args: Any, **kwargs: Any) -> Any:
            if self._depth:
                return original(outputs, *args, **kwargs)
            self._depth += 1
            try:
                return self._on_backward(original, outputs, args, kwargs)
            finally:
                self._depth -= 1

        setattr(module, name, run_backward)
        self._undo.append(lambda: setattr(module, name, original))

    def _on_backward(self, original: Any, outputs: Any, args: Any, kwargs: Any) -> Any:
        roots = (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)
        inputs = tuple(args[3]) if len(args) > 3 and args[3] else ()
        accumulates = bool(kwargs.get("accumulate_grad"))
        wanted = [leaf for leaf in inputs if isinstance(leaf, torch.Tensor)] or leaves_of(roots)
        names = self._names.of(wanted, sys._getframe(2))
        self.peaks.append(self.memory.peak)
        values = tuple(self._pack(root) if isinstance(root, torch.Tensor) else None for root in roots)
        if self._only_values:
            self._record(Event(kind="backward" if accumulates else "grad", roots=values, time=self.seconds))
            if not accumulates:
                self._stop()
            return ()
        slopes = self._slopes(roots, args[0] if args else None)
        numbers = self.directions or {name: number for name, (number, _) in slopes.items()}
        before = self._along(names, [leaf.grad for leaf in wanted] if accumulates else (), numbers)
        try:
            result = original(outputs, *args, **kwargs)
        except Exception:
            self.raised += 1
            raise
        found = [leaf.grad for leaf in wanted] if accumulates else list(result)
        gradients = {name: self._pack(g) for name, g in zip(names, found, strict=False)}
        after = self._along(names, found, numbers)
        self.backwards += 1
        self._record(
            Event(
                kind="backward" if accumulates else "grad",
                roots=values,
                gradients=gradients,
                derivatives=slopes,
                along={name: part - before.get(name, 0.0) for name, part in after.items()},
                time=self.seconds,
            )
        )
        return result

    def _slopes(self, roots: Any, weights: Any) -> dict[str, tuple[int, float]]:
        if self.derivatives is None or self.derivatives.problem:
            return {}
        return self.derivatives.slopes(roots, weights, sys._getframe(2))

    @staticmethod
    def _along(names: Sequence[str], gradients: Sequence[Any], numbers: Mapping[str, int]) -> dict[str, float]:
        """The components of some gradients along the directions of their leaves."""
        found: dict[str, float] = {}
        with private.DisableTorchDispatch(), torch.no_grad():
            for name, gradient in zip(names, gradients, strict=False):
                if (
                    name in numbers
                    and gradient is not None
                    and not gradient.is_complex()
                    and not private.is_wrapper(gradient)
                ):
                    dense = gradient.to_dense() if gradient.layout is not torch.strided else gradient
                    found[name] = float((dense.to(torch.float64) * direction(numbers[name], dense.shape)).sum())
        return found

    def _on_step(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        if self._only_values:
            self._stop()
        leaves = [leaf for group in optimizer.param_groups for leaf in group["params"]]
        names = self._names.of(leaves, sys._getframe(1))
        gradients = {name: self._pack(grad_of(leaf)) for name, leaf in zip(names, leaves, strict=True)}
        first = names[0] if names else ""
        self.steps += 1
        self._record(
            Event(
                kind="step",
                name=f"{type(optimizer).__name__} of {first}",
                gradients=gradients,
                time=self.seconds,
            )
        )

    def _record(self, event: Event) -> None:
        self._emit(event)
        self.events += 1
        if self._mark_at is not None and self.events >= self._mark_at:
            self.mark()
        if self._enough():
            self._stop()

    def _enough(self) -> bool:
        if self._stop_after is not None:
            return self.events >= self._stop_after or self.seconds > self._stop_seconds
        if self.seconds > self._stop_seconds:
            return True
        return self.marked is not None and self.seconds > _QUICK and self.rounds >= _ROUNDS

    def _pack(self, tensor: torch.Tensor | None) -> Value | None:
        if type(tensor) in (torch.Tensor, torch.nn.Parameter):
            with private.DisableTorchDispatch():  # hidden from the watch
                return self._packer.pack(tensor)
        return self._packer.pack(tensor)
