"""What rewrites are compared with: made once for a cell, from runs of the unchanged cell."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from jupyter_inplace.explain.errors.rejected import reason_of
from jupyter_inplace.report.data import HARMFUL, Reading, Report
from jupyter_inplace.rewrite.proof import agreement
from jupyter_inplace.rewrite.proof.runs import Run, Runner
from jupyter_inplace.rewrite.proof.trial import Trial

#: ``preserved``: gradients of the values that the forward used. ``differentiated``: finite differences of the cell as
#: run. ``replayed``: the gradients of the watch, with every write recorded. ``permitted``: finite differences of the cell
#: with its refused writes permitted, one run for each reading. ``left``: if such a cell computes no gradient, the values that
#: it leaves. ``itself``: finite differences of the rewritten cell, if that run is impossible.
ReferenceKind = Literal["preserved", "differentiated", "replayed", "permitted", "left", "itself"]

_REFUSALS = 8  # the most lines with refused writes that are looked for
_DIGITS = 1e-3  # relative difference between the numbers of the report and those of the control run
_NOISE = 1e-6  # relative to the largest gradient of the task: rounding


class NoReferenceError(Exception):
    """Nothing can be proved. The message is one sentence that says why."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The runs of the unchanged cell.

    :param control: the watched run of the unchanged cell.
    :param run: the run that gradients are compared with; `control` for ``itself``.
    :param copying: for refused writes, the run in which they make new tensors; in `run` they update.
    :param values: for a refused write, the losses of the cell without grad mode.
    :param horizon: how many engine calls can be compared; later ones depend on an optimizer step with a wrong gradient.
    :param elsewhere: the rewrite puts its result into a new tensor on purpose, so other values at the end prove nothing.
    :param stop_after: if the runs were stopped, the number of events after which candidates are stopped too.
    """

    kind: ReferenceKind
    control: Run
    run: Run
    copying: Run | None = None
    values: Run | None = None
    horizon: int | None = None
    stop_after: int | None = None
    elsewhere: bool = False

    def for_reading(self, reading: Reading | None) -> Reference:
        """The reference for one reading of a refused write."""
        if self.kind == "left":
            return replace(self, elsewhere=reading == "copy")
        if self.kind != "permitted" or self.copying is None:
            return self
        run = self.run if reading == "update" else self.copying
        return replace(self, run=run, horizon=_horizon(run))

    @property
    def in_words(self) -> str:
        """What the gradients were compared with, in words."""
        return {
            "preserved": "the gradients of the values that the forward used",
            "differentiated": "finite differences of the cell as it ran",
            "replayed": "the gradients with the writes recorded",
            "permitted": "finite differences of the cell with its writes permitted",
            "left": "what the cell leaves with its writes permitted",
            "itself": "finite differences of the rewritten cell",
        }[self.kind]


def find_reference(source: str, report: Report, runner: Runner) -> Reference:
    """Make the control run and the reference that fits the verdicts of `report`.

    :raises NoReferenceError: the control run differs from the report, or no reference shows its damage.
    """
    lines = harmful_lines(report)
    control = runner.make(
        Trial(
            source=source,
            manner="watched",
            tasks=tuple(task.name for task in report.tasks),
            marks=lines,
            stop_seconds=runner.time_for(0.4),
        )
    )
    runner.prepare(control)
    check_control(control, report)
    verdicts = {mutation.verdict for mutation in report.mutations} & set(HARMFUL)
    stop_after = len(control.events) if control.stopped is not None else None
    if "rejected" in verdicts:
        return _permitted(source, report, runner, control)
    preserved = runner.make(
        Trial(
            source=source,
            manner="preserved",
            marks=lines,
            stop_after=stop_after,
            stop_seconds=runner.time_for(0.3),
        )
    )
    if preserved.stopped is not None:
        stop_after = len(preserved.events)
    check_repeats(control, preserved)
    cut = "cuts" in verdicts or any("cuts_later_reads" in mutation.effects for mutation in report.mutations)
    if not cut and preserved.clean and _shows_damage(preserved, control):
        return Reference("preserved", control, preserved, stop_after=stop_after)
    return _behind_autograd(source, report, runner, control, preserved, stop_after)


def _permitted(source: str, report: Report, runner: Runner, control: Run) -> Reference:
    """The cell with its refused writes permitted: each reading of them is a separate program, with its own gradients."""
    updating = _updating(source, report, runner)
    copying = runner.make(
        Trial(
            source=source,
            manner="copying",
            marks=updating.trial.marks,
            stop_after=len(updating.events) if updating.stopped is not None else None,
            stop_seconds=runner.time_for(0.3),
        )
    )
    runs = [updating, copying]
    fit = [run for run in runs if run.clean and run.calls and run.ending is not None and run.ending.problem is None]
    if len(fit) == len(runs):
        stop_after = len(updating.events) if updating.stopped is not None else None
        return Reference("permitted", control, updating, copying=copying, stop_after=stop_after)
    if all(run.clean and run.stopped is None and not run.events for run in runs):
        return Reference("left", control, updating)
    values = runner.make(Trial(source=source, manner="valued", stop_seconds=runner.time_for(0.2)))
    return Reference("itself", control, control, values=values)


def _updating(source: str, report: Report, runner: Runner) -> Run:
    """The cell with its refused writes permitted. It ended at the first one, so the next is found once that is permitted."""
    lines = harmful_lines(report)
    while True:
        run = runner.make(Trial(source=source, manner="updating", marks=lines, stop_seconds=runner.time_for(0.3)))
        ending = run.ending
        if ending is None or ending.error is None or ending.line is None or ending.line in lines:
            return run
        if reason_of(RuntimeError(ending.error[1])) is None or len(lines) >= _REFUSALS or runner.left <= 0:
            return run
        lines = (*lines, ending.line)


def _behind_autograd(
    source: str, report: Report, runner: Runner, control: Run, preserved: Run, stop_after: int | None
) -> Reference:
    """Whether saved tensors do not show the damage: a write that autograd did not record, or state kept by a node itself."""
    differences = runner.make(
        Trial(
            source=source,
            manner="differentiated",
            marks=harmful_lines(report),
            stop_after=stop_after,
            stop_seconds=runner.time_for(0.4),
        )
    )
    if not differences.clean:
        raise NoReferenceError(f"the unchanged cell {differences.why_not()}, so there is no reference to compare with")
    problem = differences.ending.problem if differences.ending is not None else None
    if problem is None:
        problem = _why_unfit(differences, report)
    if problem is None:
        return Reference("differentiated", control, differences, horizon=_horizon(differences), stop_after=stop_after)
    if control.ending is not None and any(reference is not None for _, reference in control.ending.gradients.values()):
        return Reference("replayed", control, control, horizon=_horizon_of_report(control), stop_after=stop_after)
    if preserved.clean and _shows_damage(preserved, control):
        return Reference("preserved", control, preserved, stop_after=stop_after)
    raise NoReferenceError(f"no reference shows the damage: {problem}")


def harmful_lines(report: Report) -> tuple[int, ...]:
    """The lines of the cell with harmful writes, or with the calls that lead to them."""
    sites = [m.site for m in report.mutations if m.verdict in HARMFUL and m.site is not None]
    return tuple(sorted({site.cell_line or site.line for site in sites}))


def check_control(control: Run, report: Report) -> None:
    """Check that the unchanged cell did in the sandbox what it did before.

    :raises NoReferenceError: it did not, or could not.
    """
    if control.refusal is not None:
        raise NoReferenceError(f"the cell {control.refusal}, which is not done on a copy")
    if control.ending is None:
        raise NoReferenceError(f"the unchanged cell {control.outcome.in_words()} in the sandbox")
    again = control.report
    error = control.ending.error
    was = report.error.type if report.error is not None else None
    if control.stopped is None and (error[0] if error else None) != was:
        now = control.why_not()
        raise NoReferenceError(f"the unchanged cell {now} in the sandbox, unlike before")
    if again is None or again.verdict not in HARMFUL or (control.stopped is None and again.verdict != report.verdict):
        found = again.verdict if again is not None else "nothing"
        raise NoReferenceError(f"the unchanged cell was {report.verdict}, and {found} when run again")
    before = {(row.task, row.leaf): row for row in report.gradients}
    # If the exact gradient is zero, a run leaves rounding noise, which is small beside the other gradients of its task.
    scale: dict[str, float] = {}
    for row in report.gradients:
        for norm in (row.norm_as_run, row.norm_reference):
            if norm is not None and math.isfinite(norm):
                scale[row.task] = max(scale.get(row.task, 0.0), norm)
    for row in again.gradients if control.stopped is None else ():
        old = before.get((row.task, row.leaf))
        if old is not None and old.occurrence != row.occurrence:
            continue  # of another iteration
        if old is not None and not (
            _near(row.norm_as_run, old.norm_as_run, scale.get(row.task, 0.0))
            and _near(row.norm_reference, old.norm_reference, scale.get(row.task, 0.0))
        ):
            raise NoReferenceError(f"the gradient of `{row.leaf}` for `{row.task}` comes out differently each time")


def check_repeats(control: Run, other: Run) -> None:
    """Check that both runs of the cell began alike.

    :raises NoReferenceError: they did not: the cell computes something else in each run.
    """
    if control.ending is not None and control.ending.raised:
        return  # it caught the error and took another path
    if control.calls and other.calls and agreement.losses(control.calls[:1], other.calls[:1], complete=False):
        raise NoReferenceError("the losses of the cell come out differently each time it runs")


def _near(a: float | None, b: float | None, scale: float) -> bool:
    if a is None or b is None or a == b or (math.isnan(a) and math.isnan(b)):
        return True
    if not (math.isfinite(a) and math.isfinite(b)):
        return False
    return abs(a - b) <= _DIGITS * max(abs(a), abs(b)) + _NOISE * scale + 1e-9


def _shows_damage(reference: Run, control: Run) -> bool:
    """Whether the reference differs from the control run: otherwise it would accept the unchanged cell."""
    if not control.clean:
        return True
    if control.stopped is None and len(control.calls) < len(reference.calls):
        return True  # a call raised, and the program caught it
    return (
        agreement.gradients(control.calls, reference.calls, complete=False) is not None
        or agreement.steps(control.steps, reference.steps, complete=False) is not None
    )


def _why_unfit(differences: Run, report: Report) -> str | None:
    """Why finite differences cannot serve as the reference for this cell; None if they can."""
    wrong = {row.leaf for row in report.gradients if row.status != "ok"}
    damaged = False
    for call in differences.calls:
        for leaf, (_, slope) in call.derivatives.items():
            if not agreement.agrees(call, leaf, slope):
                if leaf not in wrong:
                    return f"finite differences do not agree with the gradient of `{leaf}`, which nothing damaged"
                damaged = True
    return None if damaged else "finite differences agree with the cell's own gradients"


def _horizon(differences: Run) -> int | None:
    """The number of engine calls up to the first optimizer step that used a gradient which finite differences contradict."""
    calls, wrong = 0, False
    for event in differences.events:
        if event.kind == "step":
            if wrong:
                return calls
            continue
        calls += 1
        wrong = wrong or any(not agreement.agrees(event, leaf, slope) for leaf, (_, slope) in event.derivatives.items())
    return None


def _horizon_of_report(control: Run) -> int | None:
    calls, steps = 0, 0
    for event in control.events:
        if event.kind == "step":
            steps += 1
            if calls:
                return calls
        else:
            calls += 1
    return None if not steps else calls
