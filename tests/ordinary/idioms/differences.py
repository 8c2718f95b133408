"""Whether the gradients of a program are those of its losses: central differences in float64, of the program as it runs, unwatched.

All leaves are moved at once, in a random direction, at a mark in the source; the value is the sum of what backward is called on between
there and the next optimizer step. What the program cuts off by `detach()` or `item()` is a constant of its derivative, so it is given what
it was in the run where nothing was moved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from idioms.program import MARK, run_source

_STEP = 1e-5
_DIRECTIONS = 2


def check(source: str) -> int:
    """Hold each mark's last occurrence against differences; returns how many marks there were."""
    marks = MARK.findall(source)
    count = iter(range(len(marks)))
    moving = MARK.sub(lambda found: f"moved_({next(count)}, {found[1]})", source)
    with _float64():
        base = _Run(moving)
        assert set(base.visits) == set(range(len(marks))), "a mark was never reached"
        for mark in range(len(marks)):
            assert base.values.get(mark), f"no backward after the mark `{marks[mark]}`"
            slope = sum(g.abs().sum() for g in base.gradients[mark] if g is not None)
            assert slope > 0, f"`{marks[mark]}` gets no gradient"
            for number in range(_DIRECTIONS):
                meant, found = base.quotient(moving, mark, number)
                assert abs(meant - found) <= 1e-6 + 1e-5 * abs(meant), (marks[mark], meant, found)
    return len(marks)


@contextlib.contextmanager
def _float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class _Run:
    """One run of a program: at each mark the values that backward was called on, and the gradients that came of it.

    :param at: the mark, and which of its visits, where the leaves are moved; None: nowhere.
    :param constants: what `detach` and `item` gave in the run in which nothing was moved.
    """

    def __init__(
        self, source: str, at: tuple[int, int] | None = None, constants: _Constants | None = None, **move: Any
    ) -> None:
        self.at, self.move = at, move
        self.visits: dict[int, int] = {}
        self.values: dict[int, list[float]] = {}
        self.gradients: dict[int, list[Any]] = {}
        self.shapes: dict[int, list[torch.Size]] = {}
        self.open: int | None = None
        self.inside = False
        self.leaves: list[torch.Tensor] = []
        self.constants = _Constants(constants)
        hook = register_optimizer_step_pre_hook(self._close)
        try:
            with self.constants.in_force(), self._listening():
                run_source(source, moved_=self._moved)
        finally:
            hook.remove()

    def quotient(self, source: str, mark: int, number: int) -> tuple[float, float]:
        """The derivative along a direction by central differences, and by the program's own gradients."""
        visit, gradients = self.visits[mark], self.gradients[mark]
        ends = [
            sum(_Run(source, (mark, visit), self.constants, step=step, number=number).values[mark])
            for step in (_STEP, -_STEP)
        ]
        directions = _directions(self.shapes[mark], number)
        own = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True) if g is not None)
        return (ends[0] - ends[1]) / (2 * _STEP), own

    def _moved(self, mark: int, *held: Any) -> None:
        self.visits[mark] = self.visits.get(mark, 0) + 1
        self.open, self.leaves = mark, _leaves(held)
        assert self.leaves, "the mark names no leaf"
        self.shapes[mark] = [p.shape for p in self.leaves]
        self.values[mark], self.gradients[mark] = [], [None] * len(self.leaves)
        if self.at == (mark, self.visits[mark]):
            directions = _directions(self.shapes[mark], self.move["number"])
            for leaf, direction in zip(self.leaves, directions, strict=True):
                leaf.data.add_(direction, alpha=self.move["step"])

    def _close(self, *_: Any) -> None:
        self.open = None

    def _note(self, roots: Any, weights: Any, gradients: list[Any]) -> None:
        assert self.open is not None
        roots = [roots] if isinstance(roots, torch.Tensor) else list(roots)
        weights = [weights] * len(roots) if weights is None or isinstance(weights, torch.Tensor) else list(weights)
        pairs = zip(roots, weights, strict=True)
        self.values[self.open].append(sum(float((r if w is None else r * w).data.sum()) for r, w in pairs))
        sums = self.gradients[self.open]
        for i, g in enumerate(gradients):
            if g is not None:
                sums[i] = g if sums[i] is None else sums[i] + g

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        backward, grad = torch.autograd.backward, torch.autograd.grad

        def new_backward(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any) -> Any:
            if self.open is None or self.inside:
                return backward(tensors, grad_tensors, *args, **kwargs)
            before = [None if p.grad is None else p.grad.data.clone() for p in self.leaves]
            self.inside = True  # what a backward of the program's calls is a part of this one
            try:
                out = backward(tensors, grad_tensors, *args, **kwargs)
            finally:
                self.inside = False
            after = [p.grad for p in self.leaves]
            self._note(tensors, grad_tensors, [_less(b, a) for a, b in zip(before, after, strict=True)])
            return out

        def new_grad(outputs: Any, inputs: Any, grad_outputs: Any = None, *args: Any, **kwargs: Any) -> Any:
            out = grad(outputs, inputs, grad_outputs, *args, **kwargs)
            wanted = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
            found = [next((g for i, g in zip(wanted, out, strict=True) if i is p), None) for p in self.leaves]
            if (
                self.open is not None
                and not self.inside
                and any(g is not None for g in found)
                and not kwargs.get("create_graph")
            ):
                self._note(outputs, grad_outputs, [None if g is None else g.data.clone() for g in found])
            return out

        torch.autograd.backward, torch.autograd.grad = new_backward, new_grad
        try:
            yield
        finally:
            torch.autograd.backward, torch.autograd.grad = backward, grad


def _less(after: Any, before: Any) -> Any:
    if after is None:
        return None
    after = after.to_dense() if after.layout is not torch.strided else after.data
    return after.clone() if before is None else after - before


def _leaves(held: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for value in held:
        if isinstance(value, torch.nn.Module):
            found += [p for p in value.parameters() if p.requires_grad]
        elif isinstance(value, torch.Tensor):
            found.append(value)
        else:
            found += _leaves(value.values() if isinstance(value, dict) else value)
    return found


def _directions(shapes: list[torch.Size], number: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(number)
    return [torch.randn(shape, generator=generator) for shape in shapes]


class _Constants:
    """What `detach` and `item` give, in order; where they were given before and it is not the same now: what they gave then."""

    def __init__(self, before: _Constants | None = None) -> None:
        self._given: list[Any] = []
        self._before = None if before is None else iter(before._given)

    def _constant(self, now: Any) -> Any:
        if self._before is None:
            self._given.append(now.clone() if isinstance(now, torch.Tensor) else now)
            return now
        then = next(self._before, now)
        same = torch.equal(then, now) if isinstance(now, torch.Tensor) else then == now
        return now if same else then

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        detach, item = torch.Tensor.detach, torch.Tensor.item
        depth = [0]

        def outermost(original: Any) -> Any:
            def given(t: torch.Tensor) -> Any:
                if depth[0]:
                    return original(t)
                depth[0] += 1
                try:
                    return self._constant(original(t))
                finally:
                    depth[0] -= 1

            return given

        torch.Tensor.detach, torch.Tensor.item = outermost(detach), outermost(item)
        try:
            yield
        finally:
            torch.Tensor.detach, torch.Tensor.item = detach, item
