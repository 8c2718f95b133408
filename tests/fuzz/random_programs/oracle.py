"""Whether a program is harmful: its gradients against central differences of the whole program, run unwatched.

**What is compared.** At each backward call (`backward` or `torch.autograd.grad` that the program makes itself) the gradient that
reaches each leaf, before any hook of the program's changes it, against the derivative of the root's *value* by that leaf. The value
is that of the program as it ran: every write is in it, whoever made it and whether or not autograd recorded it.

**How.** The program is run once as it is (`Recording`), and then again and again with all leaves moved along a random direction `v` by
a step `s` (`Replay`). ``(L(s) - L(-s)) / 2s`` is held against ``sum over leaves of <gradient, v>``. One direction serves for all leaves:
a difference in any of them shows, but for a set of directions of measure zero; a second direction, less like the first one than by
chance, is there for those that come near it. A second step, twice as long, and the differences to either side tell where the value is
not smooth, and take the largest part of the error away.

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

**Verdicts.** A program is harmful if a backward call raises (and would not without the write), if torch refuses the write, or if one of
the comparisons fails by more than `HARM` of the size of the numbers; it is not harmful if all of them agree to `EQUAL`. All others are
discarded, as are those whose value is not smooth at the point or not finite, those that write a leaf without a mark, and those that
fail anywhere else. The rule is fixed; `Judgement.reason` says which it was.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Sequence
from typing import Any

import torch

from random_programs.runs import Call, Recording, Replay, Run, usual_settings
from random_programs.text import Program

STEP = 2e-5
HARM = 1e-4
SMOOTH = 1e-4
BEND = 1e-2
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


def record(program: Program) -> tuple[Recording, Exception | None]:
    """The first run, and what ended it."""
    run = Recording()
    return run, _execute(_code(program.oracle_source), run)


def judge(program: Program) -> Judgement:
    """Run a program some six times and say whether it is harmful."""
    code = _code(program.oracle_source)
    first, error = record(program)
    if error is not None:
        if first.depth and isinstance(error, RuntimeError):
            return Judgement(None, "fails: " + repr(error)) if _raises_anyway(program) else Judgement(True, "raises")
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


def _code(source: str) -> types.CodeType:
    with usual_settings():
        return compile(source, "<oracle>", "exec")


def _execute(code: types.CodeType, run: Run) -> Exception | None:
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


def _raises_anyway(program: Program) -> bool:
    """Whether a backward raises without the write as well."""
    lines = program.oracle_source.splitlines()
    for i in program.oracle_write_lines:
        lines[i - 1] = lines[i - 1][: len(lines[i - 1]) - len(lines[i - 1].lstrip())] + "pass"
    without = Recording()
    error = _execute(_code("\n".join(lines)), without)
    return without.depth > 0 and isinstance(error, RuntimeError)


def _largest_difference(code: types.CodeType, first: Recording) -> float | str:
    """The largest relative difference between a gradient and the derivative, over all backward calls; or why it cannot be told."""
    worst = 0.0
    for directions in (_directions(first.leaves, 1.0), _directions(first.leaves, 0.0)):
        for wanted in dict.fromkeys(call.wanted for call in first.calls):
            moved = {i: v for i, v in enumerate(directions) if wanted is None or i in wanted}
            near, far = (_slopes(code, first, moved, step) for step in (STEP, 2 * STEP))
            if isinstance(near, str) or isinstance(far, str):
                return near if isinstance(near, str) else str(far)
            for call, here, there in zip(first.calls, near, far, strict=True):
                if call.wanted != wanted:
                    continue
                difference = _difference(call, moved, here, there)
                if isinstance(difference, str):
                    return difference
                worst = max(worst, difference)
    return worst


def _difference(
    call: Call, moved: dict[int, torch.Tensor], here: tuple[float, float], there: tuple[float, float]
) -> float | str:
    """The relative difference of one backward call along one direction."""
    (slope, bend), (other, _) = here, there
    got = sum(float((g * moved[i]).sum()) for i, g in call.gradients.items() if i in moved)
    size = sum(float(g.norm() * moved[i].norm()) for i, g in call.gradients.items() if i in moved)
    size = max(size, abs(slope), SMALL * max(1.0, abs(call.value)))
    if not math.isfinite(got + slope + other):
        return "not finite"
    if abs(slope - other) > SMOOTH * size or bend > BEND * size:
        return "not smooth"
    return abs(got - (4 * slope - other) / 3) / size  # Richardson: without the term of the step squared


def _slopes(
    code: types.CodeType, first: Recording, directions: dict[int, torch.Tensor], step: float
) -> list[tuple[float, float]] | str:
    """For each backward call's root the central difference quotient, and how far those of the two sides are from it."""
    values = []
    for sign in (1.0, -1.0):
        replay = Replay(first.values, {i: v * (sign * step) for i, v in directions.items()})
        error = _execute(code, replay)
        if error is not None or len(replay.calls) != len(first.calls) or replay.at != len(first.values):
            return f"replay: {error!r}"
        values.append([call.value for call in replay.calls])
    middle = [call.value for call in first.calls]
    return [
        ((up - down) / (2 * step), abs(up + down - 2 * at) / (2 * step))
        for up, down, at in zip(*values, middle, strict=True)
    ]


def _cut_off(code: types.CodeType, first: Recording) -> bool:
    """Whether a leaf behind a copied value gets a gradient from none of the roots that read the copy."""
    directions = _directions(first.leaves, 1.0)
    behind: dict[int, list[int]] = {}  # leaf -> copies
    for i, v in enumerate(directions):
        replay = Replay(first.values, {i: v * 1e-3})
        _execute(code, replay)
        behind[i] = [copy for copy in replay.moved_sources if first.with_graph[copy]]
    for copy in {copy for copies in behind.values() for copy in copies}:
        replay = Replay(first.values, {}, disturbed=copy)
        _execute(code, replay)
        reading = [call for call, other in zip(first.calls, replay.calls, strict=False) if call.value != other.value]
        for i, copies in behind.items():
            if copy in copies and reading and not any(i in c.gradients and bool(c.gradients[i].any()) for c in reading):
                return True
    return False


def _directions(leaves: Sequence[torch.Tensor], mean: float) -> list[torch.Tensor]:
    """The same for each run: they are drawn from a stream of their own, so the program's own numbers stay what they are."""
    stream = torch.Generator().manual_seed(20)
    return [torch.randn(leaf.shape, generator=stream, dtype=leaf.dtype) * 0.5 + mean for leaf in leaves]
