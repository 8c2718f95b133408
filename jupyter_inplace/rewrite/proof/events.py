"""What an instrumented run of a cell sends back, in program order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from jupyter_inplace.report.data import Report
from jupyter_inplace.rewrite.proof.values import Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A call of the autograd engine, or a step of an optimizer.

    :param kind: ``backward`` accumulates into `.grad`, ``grad`` is `torch.autograd.grad`, ``step`` a step of an optimizer.
    :param name: for an optimizer, its class and the first leaf that it updates; "" for engine calls.
    :param roots: the roots of an engine call, before the call; empty for steps.
    :param gradients: by leaf, None if there is none: as accumulated after a ``backward``, as returned by a ``grad``,
        as used by a ``step``.
    :param derivatives: by leaf, the number of its direction and the derivative of the roots along it, by finite
        differences; see `derivative`.
    :param along: by leaf, the component along the same direction of the gradient that this call added.
    :param time: seconds since the run began.
    """

    kind: Literal["backward", "grad", "step"]
    name: str = ""
    roots: tuple[Value | None, ...] = ()
    gradients: Mapping[str, Value | None] = field(default_factory=dict)
    derivatives: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    along: Mapping[str, float] = field(default_factory=dict)
    time: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A named object that outlives the cell.

    :param leaf: whether it is a leaf that requires grad; None if it is not a tensor.
    :param gradient: its `.grad`.
    """

    value: Value | None
    leaf: bool | None = None
    gradient: Value | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run ended, and what it left.

    :param error: the type and message of the exception that ended the cell; None without one.
    :param line: the line of the cell that this exception passed through; None if the cell did not raise.
    :param stopped: if the run was stopped on purpose, the rounds (backward to step) that it completed.
    :param marked: the number of events before the marked line was first reached; None if it was not.
    :param raised: the number of engine calls that raised; these are not events.
    :param kept: by name, what outlives the cell; empty if the run was stopped or raised.
    :param leaves: the names of the visible leaves that require grad at the end, however it ended.
    :param report: of the full watch; None if the run was not watched.
    :param gradients: the gradients that the watch computed by task, leaf and backward call: as run, and the reference.
    :param random: a digest of the state of the random number generators.
    :param peaks: the peak bytes of live tensors up to each engine call that was started.
    :param problem: why derivatives by finite differences could not be computed, if they were requested.
    :param modules: parts of torch that the run imported, worth importing once before the next run.
    :param denied: whether the operating system denied the program something.
    """

    error: tuple[str, str] | None = None
    line: int | None = None
    stopped: int | None = None
    marked: int | None = None
    raised: int = 0
    kept: Mapping[str, Kept] = field(default_factory=dict)
    leaves: frozenset[str] = frozenset()
    report: Report | None = None
    gradients: Mapping[tuple[str, str, int], tuple[Value | None, Value | None]] = field(default_factory=dict)
    random: str = ""
    problem: str | None = None
    modules: tuple[str, ...] = ()
    denied: bool = False
    seconds: float = 0.0
    peaks: tuple[int, ...] = ()
