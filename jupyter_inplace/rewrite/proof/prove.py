"""`prove`: runs each candidate rewrite of a cell and judges it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from jupyter_inplace.report.data import Fix, Report, Verification
from jupyter_inplace.report.order import proof_place
from jupyter_inplace.rewrite.candidate import Candidate
from jupyter_inplace.rewrite.proof.reference import NoReferenceError, Reference, find_reference
from jupyter_inplace.rewrite.proof.runs import Run, Runner
from jupyter_inplace.rewrite.proof.trial import Trial
from jupyter_inplace.rewrite.proof.verdict import Judgement, judge
from jupyter_inplace.rewrite.sandbox.sandbox import Sandbox

_LEAST = 5.0  # seconds, the minimum for a run
_TIMES = 10  # of the time that the cell took
_WORD = re.compile(r"[^\W\d]\w*")


def prove(
    source: str,
    report: Report,
    candidates: Sequence[Candidate],
    sandbox: Sandbox | None,
    *,
    seconds: float = 30.0,
    cell_seconds: float | None = None,
    unavailable: str = "no copy of the state from before the cell was kept",
    on_fix: Callable[[Fix], None] | None = None,
) -> tuple[Fix, ...]:
    """Run each candidate on the state from before the cell and compare it with a reference of the unchanged cell.

    :param source: the cell, its magic line kept.
    :param report: of the cell as it ran.
    :param sandbox: holds the state from before the cell; None if there is none, and then `unavailable` says why.
    :param seconds: shared by all runs. A candidate for which no time is left is ``unverified``.
    :param cell_seconds: how long the cell itself took; a run gets ten times that, and at least 5 s.
    :param on_fix: called with each fix as soon as its proof is done.
    :return: a fix for each candidate, the best first: proved before unproved, those that end with the same values before
        others, then fewer edited lines, then fewer bytes. Its `id` is the index of its candidate.
    """
    prover = _Prover(source, report, sandbox, seconds, cell_seconds, unavailable)
    entries = []
    for number, candidate in enumerate(candidates):
        judgement = prover.judge(candidate)
        fix = Fix(
            id=number,
            kind=candidate.kind,
            title=candidate.title,
            source=candidate.source,
            mutations=candidate.mutations,
            diff=candidate.diff,
            extra_bytes=judgement.extra_bytes,
            reading=candidate.reading,
            verification=judgement.verification,
        )
        if on_fix is not None:
            on_fix(fix)
        entries.append((_rank(judgement, candidate, number), fix))
    return tuple(fix for _, fix in sorted(entries, key=lambda entry: entry[0]))


def _rank(judgement: Judgement, candidate: Candidate, number: int) -> tuple[int, ...]:
    return (
        proof_place(judgement.verification.status),
        len(judgement.differing) > 0,
        candidate.edited_lines,
        judgement.extra_bytes or 0,
        number,
    )


def new_names(source: str, rewritten: str) -> frozenset[str]:
    """The words that a rewrite introduces, among them its new variables."""
    return frozenset(_WORD.findall(rewritten)) - frozenset(_WORD.findall(source))


class _Prover:
    def __init__(
        self, source: str, report: Report, sandbox: Sandbox | None, seconds: float, cell_seconds: float | None, why: str
    ) -> None:
        self._source = source
        self._report = report
        self._tasks = tuple(task.name for task in report.tasks)
        self._runner: Runner | None = None
        if sandbox is not None:
            self._runner = Runner(sandbox, seconds, max(_LEAST, _TIMES * (cell_seconds or 0.0)))
        self._seconds = seconds
        self._why = why
        self._reference: Reference | None = None

    def judge(self, candidate: Candidate) -> Judgement:
        runner = self._runner
        if runner is not None and self._reference is None:
            try:
                self._reference = find_reference(self._source, self._report, runner)
            except NoReferenceError as error:
                self._why = str(error)
                self._runner = runner = None
        if runner is None or self._reference is None:
            return Judgement(Verification(status="unverified", reason=self._why))
        if runner.cancelled:
            return Judgement(Verification(status="unverified", reason="the proofs were cancelled"))
        if runner.left <= 0:
            reason = f"no time was left: all proofs of a cell share {self._seconds:g} s"
            return Judgement(Verification(status="unverified", reason=reason))
        return self._try(candidate, runner, self._reference)

    def _try(self, candidate: Candidate, runner: Runner, reference: Reference) -> Judgement:
        reference = reference.for_reading(candidate.reading)
        itself = reference.kind == "itself"
        directions = {leaf: number for call in reference.run.calls for leaf, (number, _) in call.derivatives.items()}
        run = runner.make(
            Trial(
                source=candidate.source,
                manner="watched",
                tasks=self._tasks,
                gradients=True,
                stop_after=reference.stop_after,
                stop_seconds=runner.time_for(),
                mark_at=len(reference.control.events) if itself else None,
                ignored=new_names(self._source, candidate.source),
                directions=directions,
            )
        )
        differences: Run | None = None
        if itself and run.clean and runner.left > 0:
            differences = runner.make(
                Trial(
                    source=candidate.source,
                    manner="differentiated",
                    ignored=new_names(self._source, candidate.source),
                    stop_after=len(run.events) if run.stopped is not None else None,
                    stop_seconds=runner.time_for(),
                )
            )
        return judge(self._report, reference, run, differences)
