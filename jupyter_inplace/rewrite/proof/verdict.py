"""Judges one rewrite: the seven conditions of `passed`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jupyter_inplace.report.data import HARMFUL, Gradient, Mutation, ProofStatus, Report, Verification
from jupyter_inplace.rewrite.proof import agreement
from jupyter_inplace.rewrite.proof.agreement import Mismatch
from jupyter_inplace.rewrite.proof.events import Event
from jupyter_inplace.rewrite.proof.reference import Reference
from jupyter_inplace.rewrite.proof.runs import Run
from jupyter_inplace.rewrite.proof.values import compare

_CONTRADICTION = 0.05  # relative difference: more than rounding, for gradients that the proof found equal


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judgement of a rewrite.

    :param extra_bytes: by how much the peak memory exceeds that of the unchanged cell; None if not known.
    :param differing: names of objects that end with other values than in the reference.
    """

    verification: Verification
    extra_bytes: int | None = None
    differing: tuple[str, ...] = ()


def judge(report: Report, reference: Reference, candidate: Run, differences: Run | None) -> Judgement:
    """Compare the run of a rewrite with the reference.

    :param report: of the unchanged cell.
    :param candidate: the watched run of the rewrite.
    :param differences: the finite differences of the rewrite, if the reference is ``itself``.
    """
    if candidate.refusal is not None:
        return Judgement(
            Verification(status="unverified", reason=f"it {candidate.refusal}, which is not done on a copy")
        )
    if candidate.ending is None:
        status: ProofStatus = "unverified" if candidate.outcome.status in ("lost", "cancelled") else "failed"
        reason = f"the rewritten cell {candidate.outcome.in_words()}"
        return Judgement(Verification(status=status, runs=False, reason=reason))
    again = candidate.report
    if candidate.ending.error is not None or again is None:
        reason = _progress(report, again) or f"it {candidate.why_not()}"
        verdict = again.verdict if again is not None else None
        return Judgement(Verification(status="failed", runs=False, verdict=verdict, reason=reason))
    complete = candidate.stopped is None and reference.run.stopped is None and reference.horizon is None
    wrong_loss = _losses(report, reference, candidate, complete)
    wrong_gradient = _gradients(report, reference, candidate, differences, complete)
    unclean = _unclean(again)
    differing = _differing(reference, candidate)
    against = _first_reason(report, again, unclean, wrong_loss or wrong_gradient)
    if against is None and differing and reference.elsewhere:
        reason = "the cell asks for no gradient, and what it leaves cannot tell whether a new tensor is right"
        return Judgement(Verification(status="unverified", runs=True, verdict=again.verdict, reason=reason))
    if against is None and differing and reference.kind == "left":
        against = f"{_listed(differing)} {_end(differing)} with other values than the write gives"
    if against is None and again.verdict == "unknown":
        reason = "it is not known whether it harms a gradient itself"
        return Judgement(Verification(status="unverified", runs=True, verdict=again.verdict, reason=reason))
    passed = against is None
    if passed and differing:
        against = f"{_listed(differing)} {_end(differing)} with other values"
    elif passed and reference.kind == "left":
        against = "the cell asks for no gradient: compared is what it leaves"
    return Judgement(
        Verification(
            status="passed" if passed else "failed",
            covered=_covered(reference, candidate) if passed else None,
            runs=True,
            verdict=again.verdict,
            losses_equal=wrong_loss is None,
            gradients_equal=wrong_gradient is None,
            reason=against,
            gradients=_rows(report, again, reference, candidate, equal=wrong_gradient is None),
        ),
        extra_bytes=_extra_bytes(reference.control, candidate),
        differing=differing,
    )


def _end(names: Sequence[str]) -> str:
    return "end" if len(names) > 1 else "ends"


def _first_reason(before: Report, after: Report, unclean: str | None, mismatch: Mismatch | None) -> str | None:
    if unclean is not None:
        return _progress(before, after) or unclean
    return mismatch.words if mismatch is not None else None


def _losses(report: Report, reference: Reference, candidate: Run, complete: bool) -> Mismatch | None:
    if reference.kind == "itself":
        early = agreement.losses(candidate.calls, reference.control.calls, complete=False)
        if early is not None or reference.values is None:
            return early
        return agreement.losses(candidate.calls, reference.values.calls, complete=False)
    base = reference.run if reference.kind in ("preserved", "permitted", "left") else reference.control
    silenced = _silenced(report, reference)
    return agreement.losses(candidate.calls[: reference.horizon], base.calls[: reference.horizon], complete, silenced)


def _silenced(report: Report, reference: Reference) -> set[int]:
    """The backward calls whose loss a write to labels or a mask made empty, so that the loss itself is damaged."""
    ending = reference.control.ending
    if reference.kind != "replayed" or ending is None or not all(map(_of_integers, _harmful(report))):
        return set()
    by_place: dict[int, list[bool]] = {}
    for (_, _, place), (as_run, wanted) in ending.gradients.items():
        lost = (as_run is None or not as_run.norm) and wanted is not None and wanted.norm > 0
        by_place.setdefault(place, []).append(lost)
    return {place for place, lost in by_place.items() if all(lost)}


def _harmful(report: Report) -> list[Mutation]:
    return [mutation for mutation in report.mutations if mutation.verdict in HARMFUL]


def _of_integers(mutation: Mutation) -> bool:
    return mutation.dtype is not None and mutation.dtype.startswith(("int", "uint", "bool"))


def _gradients(
    report: Report, reference: Reference, candidate: Run, differences: Run | None, complete: bool
) -> Mismatch | None:
    horizon = reference.horizon
    match reference.kind:
        case "preserved":
            return (
                agreement.gradients(candidate.calls, reference.run.calls, complete)
                or agreement.steps(candidate.steps, reference.run.steps, complete)
                or (_last_gradients(reference, candidate) if complete else None)
            )
        case "differentiated":
            return agreement.slopes(candidate.calls[:horizon], reference.run.calls[:horizon], complete)
        case "permitted":
            return _leaves_lost(report, reference, candidate) or agreement.slopes(
                candidate.calls[:horizon], reference.run.calls[:horizon], complete
            )
        case "replayed":
            return _replayed(reference, candidate)
        case "left":
            return None
        case "itself":
            return _own_differences(report, reference, differences)


def _last_gradients(reference: Reference, candidate: Run) -> Mismatch | None:
    assert candidate.ending is not None
    assert reference.run.ending is not None
    return agreement.last_gradients(candidate.ending.kept, reference.run.ending.kept)


def _replayed(reference: Reference, candidate: Run) -> Mismatch | None:
    assert candidate.ending is not None
    assert reference.control.ending is not None
    found = candidate.ending.gradients
    for (task, leaf, place), (_, wanted) in reference.control.ending.gradients.items():
        if wanted is None or (reference.horizon is not None and place >= reference.horizon):
            continue
        as_run, own_reference = found.get((task, leaf, place), (None, None))
        difference = compare(as_run if as_run is not None else own_reference, wanted)
        if not difference.equal:
            return Mismatch(f"the gradient of `{leaf}` for `{task}` differs from that of the recorded write")
    return None


def _own_differences(report: Report, reference: Reference, differences: Run | None) -> Mismatch | None:
    if differences is None or not differences.clean or differences.ending is None:
        return Mismatch(f"it {differences.why_not()}" if differences is not None else "there was no time for its proof")
    if differences.ending.problem is not None:
        return Mismatch(differences.ending.problem)
    wrong = agreement.slopes(differences.calls, differences.calls, complete=False)
    if wrong is not None:
        return wrong
    return _leaves_lost(report, reference, differences)


def _leaves_lost(report: Report, reference: Reference, candidate: Run) -> Mismatch | None:
    """The first leaf that is no longer a leaf, or gets no gradient."""
    before = reference.control.ending.leaves if reference.control.ending is not None else frozenset()
    after = candidate.ending.leaves if candidate.ending is not None else frozenset()
    for leaf in sorted(before - after) if candidate.stopped is None else ():
        return Mismatch(f"`{leaf}` is no leaf any more, and has no gradient of its own")
    for leaf in dict.fromkeys(leaf for m in report.mutations if m.verdict == "rejected" for leaf in m.leaves):
        if not any(call.gradients.get(leaf) is not None for call in candidate.calls):
            return Mismatch(f"`{leaf}` gets no gradient any more")
    return None


def _unclean(again: Report) -> str | None:
    """What the watch of the rewrite found, as a reason."""
    left = _harmful(again)
    if left:
        return _still(left[0])
    for conflict in again.conflicts:
        if conflict.tasks and conflict.value_changed is False:
            return f"`{conflict.tensor}`, saved by {conflict.node}, is still written, if only with the same values"
    return None


def _still(mutation: Mutation) -> str:
    line = mutation.site.line_text if mutation.site is not None else mutation.tensor
    words = {
        "rejected": "is refused",
        "breaks": "still breaks a backward",
        "corrupts": "still corrupts a gradient",
        "cuts": "cuts a gradient path",
    }
    return f"`{line}` {words.get(mutation.verdict, mutation.verdict)}"


def _progress(before: Report, after: Report | None) -> str | None:
    """Which tasks are fixed and which are not: "`depth` is cured, `seg` still raises"; None if none is fixed."""
    if after is None:
        return None
    now = {task.name: task.status for task in after.tasks}
    ill = [task for task in before.tasks if task.status not in ("ok", "not_run", "unknown")]
    cured = [task.name for task in ill if now.get(task.name) == "ok"]
    still = [(task.name, now[task.name]) for task in ill if now.get(task.name) not in (None, "ok", "not_run")]
    if not cured or not still:
        return None
    words = {"raises": "raises", "wrong": "gets a wrong gradient", "lost": "gets no gradient"}
    name, status = still[0]
    return f"{_listed(cured)} {'are' if len(cured) > 1 else 'is'} cured, `{name}` still {words.get(status, status)}"


def _differing(reference: Reference, candidate: Run) -> tuple[str, ...]:
    if reference.kind in ("itself", "permitted") or reference.horizon is not None or candidate.ending is None:
        return ()
    base = reference.run if reference.kind in ("preserved", "left") else reference.control
    if base.ending is None or not base.ending.kept or not candidate.ending.kept:
        return ()
    return agreement.endings(candidate.ending.kept, base.ending.kept)


def _covered(reference: Reference, candidate: Run) -> int | None:
    """The rounds (backward to step) that were compared, if not the whole run."""
    if reference.horizon is not None:
        return reference.horizon
    stopped = [run for run in (candidate, reference.run) if run.stopped is not None]
    if not stopped:
        return None
    compared = min((candidate, reference.run), key=lambda run: len(run.events)).events
    return _rounds(compared)


def _rounds(events: Sequence[Event]) -> int:
    steps = sum(event.kind == "step" for event in events)
    return steps or len(events)


def _rows(before: Report, again: Report, reference: Reference, candidate: Run, *, equal: bool) -> tuple[Gradient, ...]:
    """The gradient table of the rewrite, with the norms of the reference.

    :param equal: whether the engine's gradients equal those of the reference. The watch computes its numbers node by node and
        does not see what hooks that return another gradient do to them: numbers that contradict the engine are left out.
    """
    wanted = {(row.task, row.leaf): row for row in before.gradients}
    rows = []
    for row in again.gradients:
        old = wanted.get((row.task, row.leaf))
        norm = row.norm_reference
        if old is not None and old.norm_reference is not None and reference.kind not in ("itself", "permitted", "left"):
            norm = old.norm_reference
        relative, cosine = _against(reference, candidate, row.task, row.leaf)
        if equal and row.status == "ok" and relative is not None and relative > _CONTRADICTION:
            row = replace(row, norm_as_run=None, relative_difference=None, cosine=None)
            relative = cosine = None
        rows.append(
            Gradient(
                task=row.task,
                leaf=row.leaf,
                status=row.status,
                norm_as_run=row.norm_as_run,
                norm_reference=norm,
                relative_difference=relative if relative is not None else row.relative_difference,
                cosine=cosine if cosine is not None else row.cosine,
                occurrence=row.occurrence,
                by_version=row.by_version,
            )
        )
    return tuple(rows)


def _against(reference: Reference, candidate: Run, task: str, leaf: str) -> tuple[float | None, float | None]:
    """The relative difference and cosine between the gradients of one task in the rewrite and in the unchanged cell."""
    if (
        reference.kind in ("itself", "permitted", "left")
        or candidate.ending is None
        or reference.control.ending is None
    ):
        return None, None
    for (name, other, place), (as_run, own) in candidate.ending.gradients.items():
        if (name, other) == (task, leaf):
            wanted = reference.control.ending.gradients.get((task, leaf, place), (None, None))[1]
            value = as_run if as_run is not None else own
            if wanted is not None and value is not None:
                difference = compare(value, wanted)
                return difference.relative, difference.cosine
    return None, None


def _extra_bytes(control: Run, candidate: Run) -> int | None:
    """How many more bytes of tensors the rewrite holds at its peak, up to the last engine call that both started."""
    if control.ending is None or candidate.ending is None:
        return None
    both = min(len(control.ending.peaks), len(candidate.ending.peaks))
    if not both:
        return None
    return max(0, candidate.ending.peaks[both - 1] - control.ending.peaks[both - 1])


def _listed(names: Sequence[str]) -> str:
    shown = [f"`{name}`" for name in names[:3]]
    if len(names) > 3:
        return ", ".join(shown) + f" and {len(names) - 3} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]
