"""Whether a program is harmful: its gradients against central differences of the whole program, run unwatched.

**What is compared.** At each backward call (`backward` or `torch.autograd.grad` that the program makes itself) the gradient that
reaches each leaf, before any hook of the program's changes it, against the derivative of the root's *value* by that leaf. The value
is that of the program as it ran: every write is in it, whoever made it and whether or not autograd recorded it.

**How.** The program is run once as it is (`_Recording`), and then again and again with all leaves moved along a random direction `v` by
a step `s` (`_Replay`). ``(L(s) - L(-s)) / 2s`` is held against ``sum over leaves of <gradient, v>``. One direction serves for all leaves:
a difference in any of them shows, but for a set of directions of measure zero. A second step, twice as long, tells where the value
is not smooth, and takes the largest part of the error away.

**What the program holds constant** is held constant in the replays. Autograd's users say so in ways that differences cannot see,
so the generators mark the places (`text`), and the marks are these functions:

- ``leaf(w)``: from here on `w` (or each parameter of a module) is a leaf. Replay: it is moved. It stands before the first use.
- ``hold(x)``: `x` is a constant: ``detach()``, the result of a no_grad block, a gradient that is read. Replay: the value of the first run.
- ``update(w)``: `w`, a leaf, has been given a new value (an optimizer's step, ``w.data.mul_``). Replay: the new value of the first run, moved by
  the same step. So a leaf that has two values within a program is moved at both of them, which is the sum of the gradients at its versions.
- ``pin(b)``: the memory of `b` holds a constant (running statistics, an average, a ring buffer). Replay: the content of the first run.
- ``freeze(w)``, ``thaw(w)``: `w` needs no gradient for a while. Replay: it is not moved for that while.
- ``copied(b, x)``: `x` was written into `b` unrecorded. Like `pin`, and if `x` has a graph: were the leaves behind `x` left without any
  gradient? By differences again: a leaf is behind `x` if moving it moves `x`, a root reads `b` if moving `b` moves the root. Harmful if none
  of the roots that read `b` gives some leaf behind it a gradient.
- ``keep(g)``, ``used(g)``: `g`, the tensor of a gradient, was kept under a name, and is used. Harmful if its content has changed between the two.

Nothing else is marked, in particular no write to a value that has a graph: such a write is part of what the program computes.

**Verdicts.** A program is harmful if a backward call raises, if torch refuses the write, or if one of the comparisons fails by more than `HARM` of
the size of the numbers; it is not harmful if all of them agree to `EQUAL`. All others are discarded, as are those whose value is not
smooth at the point or not finite, and those that fail anywhere else. The rule is fixed; `Judgement.reason` says which it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from random_programs.text import Program

STEP = 2e-5
HARM = 1e-4
SMOOTH = 1e-4
EQUAL = 1e-6
SMALL = 1e-3  # slopes below this part of the value count as this: they drown in the value's rounding


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What the oracle says of a program.

    :param harmful: None: discarded.
    :param reason: ``"raises"``, ``"refused"``, ``"differs"``, ``"no path"``, ``"kept gradient"``; ``"equal"``; why it was discarded.
    :param difference: the largest relative difference.
    """

    harmful: bool | None
    reason: str
    difference: float = 0.0


@dataclasses.dataclass
class _Call:
    """One backward call of the program.

    :param value: the sum of its roots.
    :param wanted: the indices of the leaves that it asks for; None: all.
    :param gradients: what reached each leaf, by index.
    """

    value: float
    wanted: frozenset[int] | None
    gradients: dict[int, torch.Tensor] = dataclasses.field(default_factory=dict)


class _Run:
    """What a recording and a replay share: the leaves, and the backward calls."""

    def __init__(self) -> None:
        self.leaves: list[torch.Tensor] = []
        self.frozen: set[int] = set()
        self.calls: list[_Call] = []
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
                self.calls.append(_Call(_value(roots), self._wanted(inputs)))
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


class _Recording(_Run):
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


class _Replay(_Run):
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


def judge(program: Program) -> Judgement:
    """Run a program some six times and say whether it is harmful."""
    with usual_settings():
        code = compile(program.oracle_source, "<oracle>", "exec")
    first = _Recording()
    error = _execute(code, first)
    if error is not None:
        if first.depth and isinstance(error, RuntimeError):
            return Judgement(True, "raises")
        return Judgement(True, "refused") if _is_at(error, program) else Judgement(None, f"fails: {error!r}")
    if not first.calls or first.unmarked():
        return Judgement(None, "fails: a write to a leaf is not marked" if first.calls else "fails: no backward call")
    worst = _largest_difference(code, first)
    if isinstance(worst, str):
        return Judgement(None, worst)
    if worst > HARM:
        return Judgement(True, "differs", worst)
    if first.stale > HARM:
        return Judgement(True, "kept gradient", first.stale)
    if any(first.with_graph.values()) and _cut_off(code, first):
        return Judgement(True, "no path")
    largest = max(worst, first.stale)
    return Judgement(False, "equal", largest) if largest < EQUAL else Judgement(None, "close", largest)


def run_plain(program: Program) -> dict[str, Any]:
    """The namespace that the cell leaves behind, unwatched and without the oracle's marks. What it raises passes through."""
    space: dict[str, Any] = {"__name__": "__main__"}
    with usual_settings():
        exec(compile(program.cell, "<fuzz>", "exec"), space)
    return space


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


def _execute(code: types.CodeType, run: _Run) -> Exception | None:
    space = run.namespace()
    try:
        with usual_settings(), run.patched():
            exec(code, space)
    except Exception as error:
        return error
    finally:
        space.clear()  # its functions hold it in a cycle, and with it whole graphs
    return None


def _is_at(error: BaseException, program: Program) -> bool:
    """Whether torch itself refused one of the program's writes."""
    lines, tb = [], error.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code.co_filename == "<oracle>":
            lines.append(tb.tb_lineno)
        tb = tb.tb_next
    return isinstance(error, RuntimeError) and bool(lines) and lines[-1] in program.oracle_write_lines


def _largest_difference(code: types.CodeType, first: _Recording) -> float | str:
    """The largest relative difference between a gradient and the derivative, over all backward calls; or why it cannot be told."""
    directions = _directions(first.leaves)
    everywhere = frozenset(range(len(first.leaves)))
    worst = 0.0
    for wanted in {call.wanted if call.wanted is not None else everywhere for call in first.calls}:
        if not wanted:
            continue
        near, far = (_slopes(code, first, {i: directions[i] for i in wanted}, step) for step in (STEP, 2 * STEP))
        if isinstance(near, str) or isinstance(far, str):
            return near if isinstance(near, str) else str(far)
        for call, slope, other in zip(first.calls, near, far, strict=True):
            if (call.wanted if call.wanted is not None else everywhere) != wanted:
                continue
            got = sum(float((g * directions[i]).sum()) for i, g in call.gradients.items() if i in wanted)
            size = sum(float(g.norm() * directions[i].norm()) for i, g in call.gradients.items() if i in wanted)
            size = max(size, abs(slope), SMALL * max(1.0, abs(call.value)))
            if not math.isfinite(got + slope + other):
                return "not finite"
            if abs(slope - other) > SMOOTH * size:
                return "not smooth"
            worst = max(
                worst, abs(got - (4 * slope - other) / 3) / size
            )  # Richardson: without the term of the step squared
    return worst


def _slopes(
    code: types.CodeType, first: _Recording, directions: dict[int, torch.Tensor], step: float
) -> list[float] | str:
    """The central difference quotient of each backward call's root."""
    values = []
    for sign in (1.0, -1.0):
        replay = _Replay(first.values, {i: v * (sign * step) for i, v in directions.items()})
        error = _execute(code, replay)
        if error is not None or len(replay.calls) != len(first.calls) or replay.at != len(first.values):
            return f"replay: {error!r}"
        values.append([call.value for call in replay.calls])
    return [(up - down) / (2 * step) for up, down in zip(*values, strict=True)]


def _cut_off(code: types.CodeType, first: _Recording) -> bool:
    """Whether a leaf behind a copied value gets a gradient from none of the roots that read the copy."""
    directions = _directions(first.leaves)
    behind: dict[int, list[int]] = {}  # leaf -> copies
    for i, v in enumerate(directions):
        replay = _Replay(first.values, {i: v * 1e-3})
        _execute(code, replay)
        behind[i] = [copy for copy in replay.moved_sources if first.with_graph[copy]]
    for copy in {copy for copies in behind.values() for copy in copies}:
        replay = _Replay(first.values, {}, disturbed=copy)
        _execute(code, replay)
        reading = [call for call, other in zip(first.calls, replay.calls, strict=False) if call.value != other.value]
        for i, copies in behind.items():
            if copy in copies and reading and not any(i in c.gradients and bool(c.gradients[i].any()) for c in reading):
                return True
    return False


def _directions(leaves: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The same for each run: they are drawn from a stream of their own, so the program's own numbers stay what they are."""
    stream = torch.Generator().manual_seed(20)
    return [torch.randn(leaf.shape, generator=stream, dtype=leaf.dtype) for leaf in leaves]


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
