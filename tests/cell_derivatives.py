"""References held against float64 finite differences of the cell as it runs.

The source is run statement by statement with no watch at all; a leaf is moved right after the statement that made it. What
autograd did not record is in the values all the same, so for overwritten saved tensors and unrecorded writes the difference
quotient is the gradient that was meant. It cannot be where a value depends on a leaf in a way that no gradient is meant to
follow (`Cell.derivative` is False there).
"""

from __future__ import annotations

import ast
import contextlib
import io
import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from cell_oracle import HARMFUL, Cell, OneShell, leaves_of, watched

_STEP = 1e-5


def check_derivative(shell: OneShell, cell: Cell) -> int:
    """Hold the reference norm of each row that is not ok against finite differences; returns how many rows there were."""
    with _float64():
        report = watched(shell, cell.source)
        assert report["verdict"] in HARMFUL
        rows = [row for row in report["gradients"] if row["status"] in ("wrong", "lost")]
        for row in rows:
            meant = _gradient_norm(cell.source, row["task"], row["leaf"])
            found = row["norm_reference"]
            assert found is not None, row
            assert math.isclose(found, meant, rel_tol=1e-5, abs_tol=1e-8), (row, meant)
    return len(rows)


@contextlib.contextmanager
def _float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _gradient_norm(source: str, task: str, leaf: str) -> float:
    """The Euclidean norm of the central differences of `task` by every element of `leaf`."""
    count = _value(source, task, leaf, -1, 0.0)[1]
    squares = 0.0
    for i in range(count):
        up, down = (_value(source, task, leaf, i, step)[0] for step in (_STEP, -_STEP))
        squares += ((up - down) / (2 * _STEP)) ** 2
    return math.sqrt(squares)


def _value(source: str, task: str, leaf: str, element: int, step: float) -> tuple[float, int]:
    """The value of a task at the backward call that first has it, and the number of elements of the leaf."""
    space: dict[str, Any] = {"__name__": "__main__"}
    values: list[float] = []
    backward = torch.autograd.backward

    def note(*args: Any, **kwargs: Any) -> Any:
        with contextlib.suppress(NameError, KeyError, IndexError, AttributeError):
            values.append(float(eval(task, space).detach()))
        return backward(*args, **kwargs)

    torch.manual_seed(0)
    moved: torch.Tensor | None = None
    torch.autograd.backward = note
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            for statement in ast.parse(source).body:
                exec(compile(ast.Module([statement], []), "<cell>", "exec"), space)
                if moved is None and (found := leaves_of(space).get(leaf)) is not None:
                    moved = found
                    if element >= 0:
                        with torch.no_grad():
                            moved.detach().view(-1)[element] += step
    finally:
        torch.autograd.backward = backward
    assert moved is not None, leaf
    assert values, task
    return values[0], moved.numel()
