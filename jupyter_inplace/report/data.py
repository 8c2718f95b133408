"""What one watched cell or block did, as plain data.

A `Report` is frozen and needs no torch and no notebook. `jupyter_inplace.report.files` reads and writes it as JSON (format
``jupyter-inplace/report``, version 1), `jupyter_inplace.show.report` adds the methods that people call. JSON fields have the
names of the attributes; JSON lists are tuples here. A number that could not be computed is ``None``. Numbers that JSON cannot
hold (NaN and the infinities) are written as the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, which JavaScript's
``Number`` reads back.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "HARMFUL",
    "MIME_TYPE",
    "VERDICTS",
    "Cell",
    "Conflict",
    "Error",
    "Fix",
    "Gradient",
    "Mutation",
    "RankCount",
    "Report",
    "Site",
    "Task",
    "TaskCosine",
    "TimelineEvent",
    "Verdict",
    "Verification",
    "VersionNorm",
    "reaches",
    "verdict_of",
    "worst",
]

FORMAT = "jupyter-inplace/report"
VERSION = 1
MIME_TYPE = "application/vnd.jupyter-inplace.v1+json"

Verdict = Literal["rejected", "breaks", "corrupts", "cuts", "unknown", "mixes", "harmless"]
TaskStatus = Literal["ok", "raises", "wrong", "lost", "not_run", "unknown"]
GradientStatus = Literal["ok", "raises", "wrong", "lost", "unknown"]
EventKind = Literal["save", "write", "backward", "read"]
FixKind = Literal["clone", "out_of_place", "no_grad", "reorder", "preserve"]
Reading = Literal["update", "copy"]
Effect = Literal["discards_gradient", "cuts_later_reads", "overwrites_gradients"]
ProofStatus = Literal["passed", "failed", "unverified"]

#: All verdicts, the worst one first.
VERDICTS: tuple[Verdict, ...] = typing.get_args(Verdict)
#: The verdicts of a program whose gradients are not what it wrote down.
HARMFUL: tuple[Verdict, ...] = VERDICTS[: VERDICTS.index("cuts") + 1]


def worst(verdicts: Iterable[str]) -> Verdict:
    """The worst of some verdicts; ``"harmless"`` if there are none.

    :raises ValueError: a verdict is not one of `VERDICTS`.
    """
    return VERDICTS[min(map(_place_of, verdicts), default=len(VERDICTS) - 1)]


def verdict_of(mutations: Iterable[Mutation], unknown_because: Iterable[str] = ()) -> Verdict:
    """The verdict of a report: the worst of its writes', or ``"unknown"`` where something was left open and nothing is worse.

    :param unknown_because: what was left open, each in one sentence.
    """
    verdicts: list[str] = [mutation.verdict for mutation in mutations]
    return worst([*verdicts, "unknown"] if any(True for _ in unknown_because) else verdicts)


def reaches(verdict: str, level: str) -> bool:
    """Whether `verdict` is `level` or worse.

    :raises ValueError: one of the two is not one of `VERDICTS`.
    """
    return _place_of(verdict) <= _place_of(level)


def _place_of(verdict: str) -> int:
    try:
        return VERDICTS.index(typing.cast("Verdict", verdict))
    except ValueError:
        raise ValueError(f"`{verdict}` is no verdict; the verdicts are {', '.join(VERDICTS)}.") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A place in the user's source: lines count from 1, columns from 0 in characters.

    :param text: the exact expression.
    :param line_text: its whole source line, stripped.
    :param cell_line: where the cell itself stands (line 1 is the magic line); None outside a cell.
    """

    file: str
    line: int
    column: int | None = None
    end_line: int | None = None
    end_column: int | None = None
    text: str = ""
    line_text: str = ""
    function: str | None = None
    cell_line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The watched notebook cell."""

    source: str
    id: str | None = None
    execution_count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """The exception that ended the watched cell.

    :param other_cause: it is known to be none that torch raises over an in-place write.
    """

    type: str
    message: str
    site: Site | None = None
    other_cause: bool = field(default=False, metadata={"absent_if_empty": True})


@dataclass(frozen=True, slots=True)
class RankCount:
    """How many writes one rank made."""

    rank: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """An in-place write, or `count` writes at one place, as in a loop.

    :param shape: shape of the tensor written (of the view, if it is one) before the op.
    :param versions: the version counter before and after; equal if torch did not bump it, None for inference tensors.
    :param time: seconds from the start of the watch to the first write of this row.
    :param tensors: the names of all tensors that one optimizer step wrote.
    :param note: what else a person should know, in a few words without a full stop.
    :param effects: what the write did besides its verdict; `note` says it in words. ``"discards_gradient"``: it cleared a
        gradient that nothing had read. ``"cuts_later_reads"``: it breaks or corrupts a backward, and for what read the tensor
        afterwards it is a cut. ``"overwrites_gradients"``: it overwrote gradients that share their memory.
    :param own_note: in a merged report, `note` without the part about ranks and steps.
    :param ranks: in a merged report, how many of the writes each rank made; ranks that made none are left out.
    :param steps: in a report of watched steps, in how many of them the write was made.
    """

    id: int
    op: str
    tensor: str
    shape: tuple[int, ...] = ()
    dtype: str | None = None
    device: str | None = None
    storage: int | None = None
    versions: tuple[int, int] | None = None
    time: float | None = None
    count: int = 1
    site: Site | None = None
    verdict: Verdict = "harmless"
    pending: bool = False
    value_changed: bool | None = None
    tasks: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    module: str | None = None
    note: str | None = None
    framework: str | None = None
    ranks: tuple[RankCount, ...] = field(default=(), metadata={"absent_if_empty": True})
    steps: int | None = field(default=None, metadata={"absent_if_empty": True})
    effects: tuple[Effect, ...] = field(default=(), metadata={"absent_if_empty": True})
    own_note: str | None = field(default=None, metadata={"absent_if_empty": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A tensor that an autograd node had saved and that a write changed.

    :param mutation: the `id` of the write.
    :param saved_before_watch: the saving expression ran before the watch began.
    :param pending: no backward has read the saved tensor yet.
    """

    mutation: int
    node: str
    saved_as: str | None = None
    tensor: str
    saved_version: int | None = None
    found_version: int | None = None
    bytes_overlapping: int | None = None
    saved_site: Site | None = None
    module: str | None = None
    tasks: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    value_changed: bool | None = None
    saved_before_watch: bool = False
    pending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A root of the graph, such as a loss, that was or would be differentiated."""

    name: str
    status: TaskStatus = "ok"
    site: Site | None = None


@dataclass(frozen=True, slots=True)
class VersionNorm:
    """The norm of the part of a gradient that belongs to one version of its leaf."""

    version: int
    norm: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient:
    """The gradient of one task at one leaf: what the program gets, and the reference.

    :param relative_difference: ``|as_run - reference| / |reference|``, Euclidean norms.
    :param occurrence: for a loop in one row, the iteration with these numbers (the worst one).
    :param by_version: the parts of the gradient, if the leaf was read at several versions; absent from the JSON if empty.
    """

    task: str
    leaf: str
    status: GradientStatus = "ok"
    norm_as_run: float | None = None
    norm_reference: float | None = None
    relative_difference: float | None = None
    cosine: float | None = None
    occurrence: int | None = None
    by_version: tuple[VersionNorm, ...] = field(default=(), metadata={"absent_if_empty": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCosine:
    """The cosine between two tasks' gradients at one shared leaf."""

    leaf: str
    tasks: tuple[str, ...]
    as_run: float | None = None
    reference: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEvent:
    """A write, a save, a backward or a read by it, in program order; `count` of them if a loop was folded into one."""

    seq: int
    kind: EventKind
    time: float | None = None
    tensor: str | None = None
    version: int | None = None
    site: Site | None = None
    task: str | None = None
    mutation: int | None = None
    conflict: int | None = None
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The result of running a rewrite on a copy of the state from before the cell.

    :param covered: how many rounds (backward to step) were proved, if the cell was not run to its end.
    :param pending: the proof is still running.
    """

    status: ProofStatus = "unverified"
    covered: int | None = None
    runs: bool | None = None
    verdict: Verdict | None = None
    losses_equal: bool | None = None
    gradients_equal: bool | None = None
    reason: str | None = None
    gradients: tuple[Gradient, ...] = ()
    pending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """A rewrite of the cell and its proof.

    :param mutations: the `id` of each write that it fixes.
    :param source: the whole new cell.
    :param diff: a unified diff from the cell to `source`.
    :param reading: of a rejected write: ``"update"`` if the leaf itself changes, ``"copy"`` if the program continues with a new
        tensor.
    """

    id: int
    kind: FixKind
    title: str
    source: str
    mutations: tuple[int, ...] = ()
    diff: str = ""
    extra_bytes: int | None = None
    reading: Reading | None = None
    verification: Verification = Verification()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Report:
    """What a watch found.

    :param rank: which process of a job it is of; `world` is how many there are.
    :param ranks: of a merged report, the ranks that it is of.
    :param watched_steps: of a report of watched steps, how many were watched, and how many there were.
    :param nothing_ran: no operation of a framework was seen, so that there was nothing to watch.
    :param unknown_because: what could not be worked out, or was seen and not compared, and may hide a harmful write. Each
        stands in `blind_spots` too. Where there is any, the verdict is ``"unknown"`` or worse.
    """

    format: str = FORMAT
    version: int = VERSION
    tool: str = ""
    framework: str = "torch"
    framework_version: str | None = None
    rank: int | None = None
    verdict: Verdict = "harmless"
    summary: str = ""
    cell: Cell | None = None
    error: Error | None = None
    mutations: tuple[Mutation, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    tasks: tuple[Task, ...] = ()
    gradients: tuple[Gradient, ...] = ()
    task_cosines: tuple[TaskCosine, ...] = ()
    timeline: tuple[TimelineEvent, ...] = ()
    fixes: tuple[Fix, ...] = ()
    blind_spots: tuple[str, ...] = ()
    world: int | None = field(default=None, metadata={"absent_if_empty": True})
    ranks: tuple[int, ...] = field(default=(), metadata={"absent_if_empty": True})
    watched_steps: tuple[int, ...] = field(default=(), metadata={"absent_if_empty": True})
    nothing_ran: bool = field(default=False, metadata={"absent_if_empty": True})
    unknown_because: tuple[str, ...] = field(default=(), metadata={"absent_if_empty": True})

    def __repr__(self) -> str:
        return f"<Report {self.verdict}: {self.summary}>"
