"""Candidates for the harmful TensorFlow writes of a report, each run in the sandbox and compared with a reference.

The reference is the run of the unchanged cell, with gradients through the recorded assigns (for `cuts`) or at the values
that the forward read (for `corrupts`). What the sandbox refuses stays ``unverified``, with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jupyter_inplace.report.data import HARMFUL, Fix, Mutation, Report, Verification
from jupyter_inplace.report.order import proof_place
from jupyter_inplace.rewrite.candidates import distinct
from jupyter_inplace.rewrite.sandbox.outcome import Limits
from jupyter_inplace.rewrite.sandbox.sandbox import Sandbox
from jupyter_inplace.rewrite.syntax.code import Code
from jupyter_inplace.rewrite.syntax.mask import mask
from jupyter_inplace.rewrite.syntax.write import Proposal
from jupyter_inplace.tensorflow.rewrite.rules import asked_twice, proposals, was_asked_twice

_TARGET = "jupyter_inplace.tensorflow.rewrite.trial:run"
_ROUNDING = 1e-4
_LEAST = 20.0  # seconds, the minimum for a run: a new process first imports TensorFlow
_MEMORY = 16 << 30  # TensorFlow reserves much more than it uses

Told = Callable[[Fix], None]


def wanted(report: Report) -> bool:
    """Whether there may be something to rewrite."""
    return bool(_harmful(report)) or was_asked_twice(report)


def fixes(
    source: str,
    report: Report,
    sandbox: Sandbox | None,
    *,
    first: int,
    seconds: float,
    taken: Collection[str],
    unavailable: str,
    told: Told,
) -> tuple[Fix, ...]:
    """The rewrites of `source`, each with its verification, the best first.

    :param first: the `id` of the first one.
    :param told: called with each of them while pending, and again when verified.
    """
    masked = mask(source)
    code = Code(masked.text, taken, source)
    harmful = _harmful(report)
    found: list[tuple[Proposal, tuple[int, ...]]] = [(p, ()) for p in asked_twice(code, report)]
    each = [(m, proposals(code, report, m)) for m in harmful]
    if len(each) > 1 and all(options for _, options in each):
        found.append((_together([options[0] for _, options in each]), tuple(m.id for m in harmful)))
    for mutation, options in each:
        found += [(proposal, (mutation.id,)) for proposal in options]
    made = [
        Fix(
            id=first + number,
            kind=candidate.kind,
            title=candidate.title,
            source=candidate.source,
            mutations=candidate.mutations,
            diff=candidate.diff,
            verification=Verification(pending=True),
        )
        for number, candidate in enumerate(distinct(source, masked, code, found))
    ]
    for fix in made:
        told(fix)
    return _proved(source, report, made, sandbox, seconds, unavailable, told)


def _harmful(report: Report) -> list[Mutation]:
    return [m for m in report.mutations if m.framework == "tensorflow" and m.verdict in HARMFUL]


def _together(chosen: Sequence[Proposal]) -> Proposal:
    edits = tuple(dict.fromkeys(edit for p in chosen for edit in p.edits))
    titles = "; ".join(dict.fromkeys(p.title for p in chosen))
    return Proposal(chosen[0].kind, f"all {len(chosen)} writes: {titles}", edits, 0)


# --- proofs ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """The result of a run: the data that it sent, or why there is none."""

    data: dict[str, Any] | None
    why_not: str = ""
    escaped: bool = False


def _proved(
    source: str,
    report: Report,
    made: list[Fix],
    sandbox: Sandbox | None,
    seconds: float,
    unavailable: str,
    told: Told,
) -> tuple[Fix, ...]:
    deadline = time.monotonic() + seconds
    control: dict[str, Any] | None = None
    why, tried = unavailable, False  # why there is no control, and whether it was run
    out: list[Fix] = []
    if sandbox is not None and made:
        sandbox.prepare(["tensorflow"])  # its import probes a port, which must not be blamed on the cell
    for fix in made:
        if sandbox is not None and not tried:
            tried = True
            control, why = _control(source, report, sandbox, deadline)
        if sandbox is None or control is None:
            verification = Verification(status="unverified", reason=why)
        elif deadline - time.monotonic() <= 0:
            verification = Verification(
                status="unverified", reason=f"no time was left: all proofs of a cell share {seconds:g} s"
            )
        else:
            verification = _judge(control, _run(sandbox, fix.source, deadline), _written(report, fix))
        done = replace(fix, verification=verification)
        out.append(done)
        told(done)
    return tuple(
        sorted(out, key=lambda f: (proof_place(f.verification.status), f.verification.reason is not None, f.id))
    )


def _run(sandbox: Sandbox, source: str, deadline: float) -> _Run:
    limits = Limits(seconds=max(_LEAST, deadline - time.monotonic()), memory_bytes=_MEMORY)
    outcome = sandbox.run(_TARGET, {"source": source}, limits)
    if outcome.escapes:
        return _Run(None, outcome.escapes[0], escaped=True)
    data = next((message for message in outcome.messages if isinstance(message, dict)), None)
    return _Run(data, outcome.in_words())


def _control(source: str, report: Report, sandbox: Sandbox, deadline: float) -> tuple[dict[str, Any] | None, str]:
    """Run the unchanged cell in the sandbox: it must do what the cell did."""
    run = _run(sandbox, source, deadline)
    if run.data is None:
        return None, f"the unchanged cell, run on a copy, {run.why_not}"
    error = None if report.error is None else report.error.type
    got = None if run.data["error"] is None else run.data["error"][0]
    if got != error or run.data["verdict"] != report.verdict:
        told = f"raised {got}" if got != error and got is not None else f"came out as {run.data['verdict']}"
        return None, f"the unchanged cell, run on a copy, {told}: it does not repeat itself"
    norms = {(g.task, g.leaf): g.norm_as_run for g in report.gradients if g.occurrence is None}
    for call in run.data["calls"]:
        for key, (as_run, _) in call["gradients"].items():
            before = norms.pop(key, None)
            if before is not None and as_run is not None and not _near(float(np.linalg.norm(as_run)), before):
                return None, f"the unchanged cell, run on a copy, gives {key[1]} another gradient"
    return run.data, ""


def _written(report: Report, fix: Fix) -> frozenset[str]:
    """The variables whose writes a rewrite removes: they need not get a gradient any more."""
    return frozenset(m.tensor for m in report.mutations if m.id in fix.mutations)


def _judge(control: dict[str, Any], run: _Run, written: frozenset[str]) -> Verification:
    """Compare the run of the rewritten cell with the references of the control run."""
    data = run.data
    if data is None:
        status = "unverified" if run.escaped else "failed"
        return Verification(status=status, runs=None if run.escaped else False, reason=run.why_not)  # type: ignore[arg-type]
    if data["error"] is not None:
        kind, text = data["error"]
        return Verification(
            status="failed", runs=False, reason=f"raises {kind}: {text.strip().partition(chr(10))[0][:200]}"
        )
    clean = data["verdict"] not in HARMFUL
    losses, gradients, ended = _compare(control, data, written)
    notes = []
    if not clean:
        notes.append(f"its own verdict is {data['verdict']}")
    if not losses:
        notes.append("a loss has another value")
    if not gradients:
        notes.append("a gradient is not the reference")
    passed = clean and losses and gradients
    unknown = data["verdict"] == "unknown"
    if unknown:
        notes.append("it is not known whether it harms a gradient itself")
    if passed:
        notes += _end(control, data, ended)
    return Verification(
        status="failed" if not passed else "unverified" if unknown else "passed",
        runs=True,
        verdict=data["verdict"],
        losses_equal=losses,
        gradients_equal=gradients,
        reason="; ".join(notes) or None,
    )


def _compare(control: dict[str, Any], data: dict[str, Any], written: frozenset[str]) -> tuple[bool, bool, list[str]]:
    """Whether losses and gradients are equal call by call, and the variables that no longer get a gradient."""
    losses = gradients = True
    ended: list[str] = []
    calls = [call for call in control["calls"] if call["error"] is None]
    if len(data["calls"]) < len(calls):
        return False, False, []
    for before, after in zip(calls, data["calls"], strict=False):
        values = list(after["losses"].values())
        losses &= len(values) == len(before["losses"])
        losses &= all(_equal(a, b) for a, b in zip(before["losses"].values(), values, strict=False))
        tasks = dict(zip(before["losses"], after["losses"], strict=False))
        for (task, leaf), (_, reference) in before["gradients"].items():
            got = after["gradients"].get((tasks.get(task, task), leaf), (None, None))[0]
            if got is None and leaf in written:
                ended.append(leaf)
            else:
                gradients &= _equal(reference, got)
    return bool(losses), bool(gradients), list(dict.fromkeys(ended))


def _end(control: dict[str, Any], data: dict[str, Any], ended: list[str]) -> list[str]:
    """Notes on what differs after the cell, which is not a failure."""
    notes = [f"{leaf} itself gets no gradient any more" for leaf in ended]
    for name, value in control["variables"].items():
        now = data["variables"].get(name)
        if now is None:
            notes.append(f"{name} is no variable any more")
        elif not _equal(value, now):
            notes.append(f"{name} keeps another value")
    return notes


def _equal(a: Any, b: Any) -> bool:
    if a is None or b is None:
        other = b if a is None else a
        return other is None or not np.any(other)
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=_ROUNDING, atol=1e-7, equal_nan=True))


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= _ROUNDING * max(abs(a), abs(b), 1e-12)
