"""The runs that the oracle makes of a program: a recording of it as it is, and replays in which its leaves are moved.

What the marks mean is told in `oracle`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch


@dataclasses.dataclass
class Call:
    """One backward call of the program.

    :param value: the sum of its roots.
    :param wanted: the indices of the leaves that it asks for; None: all.
    :param gradients: what reached each leaf, by index.
    """

    value: float
    wanted: frozenset[int] | None
    gradients: dict[int, torch.Tensor] = dataclasses.field(default_factory=dict)


class Run:
    """What a recording and a replay share: the leaves, and the backward calls."""

    def __init__(self) -> None:
        self.leaves: list[torch.Tensor] = []
        self.frozen: set[int] = set()
        self.calls: list[Call] = []
        self.depth = 0

    def _index(self, t: torch.Tensor) -> int:
        return next(i for i, leaf in enumerate(self.leaves) if leaf is t)

    def namespace(self) -> dict[str, Any]:
        names = ("leaf", "hold", "update", "pin", "freeze", "thaw", "copied", "keep", "used")
        return {"__name__": "__main__", **{name: getattr(self, name) for name in names}}

    def leaf(self, *things: Any) -> None:
        for t in _tensors(things):
            self.leaves.append(t)
            self._begin(len(self.leaves) - 1, t)

    def _begin(self, i: int, t: torch.Tensor) -> None:
        raise NotImplementedError

    @contextlib.contextmanager
    def patched(self) -> Iterator[None]:
        """The program's own backward calls are noted; those that torch makes within one (a checkpoint's) are not."""
        backward, grad = torch.autograd.backward, torch.autograd.grad

        def noted(call: Callable[..., Any], roots: Any, inputs: Any, args: Any, kwargs: Any) -> Any:
            if self.depth == 0:
                self.calls.append(Call(_value(roots), self._wanted(inputs)))
            self.depth += 1
            result = call(*args, **kwargs)
            self.depth -= 1  # not where it raises: that it did so in there is to be seen
            return result

        def new_backward(*args: Any, **kwargs: Any) -> Any:
            return noted(backward, args[0], kwargs.get("inputs"), args, kwargs)

        def new_grad(*args: Any, **kwargs: Any) -> Any:
            return noted(grad, args[0], args[1], args, kwargs)

        torch.autograd.backward, torch.autograd.grad = new_backward, new_grad
        try:
            yield
        finally:
            torch.autograd.backward, torch.autograd.grad = backward, grad

    def _wanted(self, inputs: Any) -> frozenset[int] | None:
        if inputs is None:
            return None
        given = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
        return frozenset(i for i, leaf in enumerate(self.leaves) if any(leaf is t for t in given))


class Recording(Run):
    """The first run: values are noted, and nothing is changed."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Any] = []
        self.kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.stale = 0.0  # how far a kept gradient that was used is from what was kept
        self.with_graph: dict[int, bool] = {}  # the copies, by their place in `values`
        self.content: dict[int, torch.Tensor] = {}  # of each leaf, as far as the marks say

    def _begin(self, i: int, t: torch.Tensor) -> None:
        self.content[i] = _copy(t)

        def arrived(g: torch.Tensor) -> None:
            got = self.calls[-1].gradients
            got[i] = got[i] + g.detach() if i in got else g.detach().clone()

        if t.requires_grad:
            t.register_hook(arrived)
        else:
            self.frozen.add(i)

    def hold(self, x: Any) -> Any:
        self.values.append(_copy(x))
        return x

    def update(self, *things: Any) -> None:
        for t in _tensors(things):
            self.values.append(_copy(t))
            for i, leaf in enumerate(self.leaves):
                if leaf is t:
                    self.content[i] = self.values[-1]

    pin = update

    def freeze(self, *things: Any) -> None:
        pass

    thaw = freeze

    def copied(self, target: torch.Tensor, source: torch.Tensor) -> None:
        self.update(target)
        self.with_graph[len(self.values) - 1] = source.grad_fn is not None
        self.values[-1] = (self.values[-1], _copy(source))

    def unmarked(self) -> bool:
        """Whether a leaf has a value that no mark tells of: the program would be judged by something else than what it means."""
        return any(not torch.equal(leaf, self.content[i]) for i, leaf in enumerate(self.leaves))

    def keep(self, *gradients: torch.Tensor) -> None:
        self.kept.extend((g, _copy(g)) for g in gradients)

    def used(self, *gradients: torch.Tensor) -> None:
        for i, g in enumerate(gradients):
            # One tensor that was kept under several names was another gradient at each.
            before = sum(other is g for other in gradients[:i])
            meant = [copy for kept, copy in self.kept if kept is g][before]
            self.stale = max(self.stale, float((g - meant).norm() / (meant.norm() + g.norm() + 1e-12)))


class Replay(Run):
    """A later run: leaves are moved, constants are those of the first run.

    :param moves: how far each leaf is moved, by index.
    :param disturbed: the copy, by its place among the values, whose memory is moved.
    """

    def __init__(self, values: Sequence[Any], moves: dict[int, torch.Tensor], disturbed: int | None = None) -> None:
        super().__init__()
        self.values = values
        self.moves = moves
        self.disturbed = disturbed
        self.at = 0
        self.moved_sources: set[int] = set()

    def _next(self) -> Any:
        self.at += 1
        return self.values[self.at - 1]

    def _begin(self, i: int, t: torch.Tensor) -> None:
        if not t.requires_grad:
            self.frozen.add(i)
        elif i in self.moves:
            t.data.add_(self.moves[i])

    def hold(self, x: Any) -> Any:
        return _copy(self._next())

    def update(self, *things: Any) -> None:
        for t in _tensors(things):
            self._put(t, self._next())

    def _put(self, t: torch.Tensor, value: torch.Tensor) -> None:
        i = next((i for i, leaf in enumerate(self.leaves) if leaf is t), None)
        moved = i is not None and i not in self.frozen and i in self.moves
        t.data.copy_(value + self.moves[i] if moved else value)  # type: ignore[index]

    def pin(self, *things: Any) -> None:
        for t in _tensors(things):
            t.data.copy_(self._next())

    def freeze(self, *things: Any) -> None:
        for t in _tensors(things):
            i = self._index(t)
            if i not in self.frozen and i in self.moves:
                t.data.sub_(self.moves[i])
            self.frozen.add(i)

    def thaw(self, *things: Any) -> None:
        for t in _tensors(things):
            i = self._index(t)
            if i in self.frozen and i in self.moves:
                t.data.add_(self.moves[i])
            self.frozen.discard(i)

    def copied(self, target: torch.Tensor, source: torch.Tensor) -> None:
        place = self.at
        value, was = self._next()
        if not torch.equal(source.detach(), was):
            self.moved_sources.add(place)
        self._put(target, value)
        if place == self.disturbed:
            target.data.add_(1e-3)

    def keep(self, *gradients: torch.Tensor) -> None:
        pass

    used = keep


@contextlib.contextmanager
def usual_settings() -> Iterator[None]:
    """Programs set the default dtype, may warn, and start from a seed: nothing of it outlives them."""
    dtype, enabled = torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(enabled)


def _value(roots: Any) -> float:
    given = [roots] if isinstance(roots, torch.Tensor) else list(roots)
    return float(sum(float(root.detach().sum()) for root in given))


def _tensors(things: Sequence[Any]) -> Iterator[torch.Tensor]:
    for thing in things:
        if isinstance(thing, torch.nn.Module):
            yield from thing.parameters()
        elif isinstance(thing, torch.Tensor):
            yield thing
        else:
            yield from _tensors(list(thing))


def _copy(x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        return x.detach().clone()
    if isinstance(x, (list, tuple)):
        return type(x)(_copy(item) for item in x)
    if isinstance(x, dict):
        return {key: _copy(item) for key, item in x.items()}
    return x
