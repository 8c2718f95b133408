"""What an instrumented run of a cell sends back, in program order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from jupyter_inplace.report.data import Report
from jupyter_inplace.rewrite.proof.values import Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A call of the autograd engine, or an optimizer's step.

    :param kind: ``backward`` accumulates into `.grad`, ``grad`` is `torch.autograd.grad`, ``step`` an optimizer's.
    :param name: of the optimizer: its class and the first leaf that it updates; "" for engine calls.
    :param roots: what the engine started from, before the call; for steps nothing.
    :param gradients: by leaf, None where there is none: as accumulated after a ``backward``, as returned by a ``grad``,
        as met by a ``step``.
    :param derivatives: by leaf, the number of its direction and the derivative of the roots along it, by finite
        differences; see `derivative`.
    :param along: by leaf, the component of the gradient that this one call added, along the same direction.
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
    """Something that outlives the cell, under its name.

    :param leaf: whether it is a leaf that requires a gradient; None where it is no tensor.
    :param gradient: what stands in its `.grad`.
    """

    value: Value | None
    leaf: bool | None = None
    gradient: Value | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run ended, and what it left.

    :param error: the type and the text of the exception that ended the cell; None without one.
    :param line: of the cell, where that exception came through; None where the cell did not raise.
    :param stopped: where the run was stopped on purpose, the rounds (backward to step) that it came through.
    :param marked: the number of events before the marked line was first reached; None where it was not.
    :param raised: the number of engine calls that raised, and are no events.
    :param kept: by name, what outlives the cell; empty where the run was stopped or raised.
    :param leaves: the names of leaves that require a gradient, in view at the end, whatever the end was.
    :param report: the full watch's; None where the run was not watched.
    :param gradients: the watch's own gradients by task, leaf and backward call: as run, and the reference.
    :param random: a digest of the state of the random number generators.
    :param peaks: the most bytes of tensors alive at once, up to each engine call that was begun.
    :param problem: why derivatives by finite differences could not be had, where they were asked for.
    :param modules: parts of torch that the run imported: worth importing once, before the next run.
    :param denied: the operating system refused the program something.
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
