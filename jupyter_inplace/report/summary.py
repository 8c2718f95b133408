"""The summary of a report: one sentence that a person can act on."""

from __future__ import annotations

from collections.abc import Sequence

from jupyter_inplace.report import words
from jupyter_inplace.report.data import Cell, Conflict, Error, Gradient, Mutation, Task, verdict_of
from jupyter_inplace.report.scope import own_note


def build_summary(
    mutations: Sequence[Mutation],
    conflicts: Sequence[Conflict] = (),
    tasks: Sequence[Task] = (),
    gradients: Sequence[Gradient] = (),
    *,
    cell: Cell | None = None,
    error: Error | None = None,
    framework_used: bool = True,
    unknown_because: Sequence[str] = (),
) -> str:
    """Say the worst thing that happened: which write, where, what it hit, and which tasks suffer.

    Example: ``backward fails for seg and depth: z.mul_(0.5) (line 7) overwrote what torch.tanh(trunk(x)) (line 5)
    and heads["seg"](z) (line 6) saved.``

    :param cell: the watched cell; lines of other cells are then told apart.
    :param framework_used: False where nothing of the framework ran, so that there was nothing to watch.
    :param unknown_because: what was left open.
    """
    verdict = verdict_of(mutations, unknown_because)
    if verdict == "harmless":
        return _harmless(mutations, tasks, error, framework_used)
    hits = [m for m in mutations if m.verdict == verdict]
    if not hits:
        return _open(unknown_because)
    # a failure that has happened says more than one that may come
    write = next((m for m in hits if not m.pending), hits[0])
    place = words.where(write.site, cell) + (f", {write.count:,} times" if write.count > 1 else "")
    subject = f"{words.write_expression(write)} ({place})"
    hit = [c for c in conflicts if c.mutation == write.id]
    sentence = {
        "rejected": lambda: _rejected(write, subject, error),
        "breaks": lambda: _breaks(write, subject, hit, cell),
        "corrupts": lambda: _corrupts(write, subject, hit, gradients, cell),
        "cuts": lambda: _cuts(write, subject, gradients),
        "unknown": lambda: _unknown(write, subject, hit, cell, unknown_because),
        "mixes": lambda: _mixes(write, subject),
    }[verdict]()
    more = len(hits) - 1
    if more and verdict == "unknown":
        return f"{sentence} Nor is it of {words.counted(more, 'more write')}."
    return sentence + (f" {words.counted(more, 'more write')} {'does' if more == 1 else 'do'} so too." if more else "")


def _for(tasks: Sequence[str], preposition: str = "for") -> str:
    return f" {preposition} {words.listed(tasks)}" if tasks else ""


def _harmless(mutations: Sequence[Mutation], tasks: Sequence[Task], error: Error | None, framework_used: bool) -> str:
    count = sum(m.count for m in mutations)
    if not count and not framework_used:
        return "nothing to watch: no torch ran here."
    said = f"{words.counted(count, 'in-place write')}; " if count else "no in-place write"
    if count:
        said += "it harms no gradient" if count == 1 else "none harms a gradient"
    if error is not None and error.other_cause:
        return f"{said}; the {error.type} has another cause."
    bad = [t.name for t in tasks if t.status in ("raises", "wrong", "lost")]
    unexplained = f"the {error.type}" if error is not None else f"what is wrong with {words.listed(bad)}" if bad else ""
    if unexplained:
        said += f", and {'it does not explain' if count == 1 else 'none explains'} " if count else " that explains "
    return f"{said}{unexplained}."


def _open(reasons: Sequence[str]) -> str:
    more = len(reasons) - 1
    rest = f" There {'is' if more == 1 else 'are'} {words.counted(more, 'more reason')}." if more else ""
    return f"it is not known whether a gradient is harmed: {reasons[0].rstrip('.')}.{rest}"


def _unknown(
    write: Mutation, subject: str, conflicts: Sequence[Conflict], cell: Cell | None, reasons: Sequence[str]
) -> str:
    gradient = f"the gradient{_for(write.tasks, 'of')}" if write.tasks else "a gradient"
    said = f"it is not known whether {subject} harms {gradient}"
    said += f": it {_overwrote(write, conflicts, cell)}" if conflicts else ""
    return f"{said}. {reasons[0][:1].upper()}{reasons[0][1:].rstrip('.')}." if reasons else f"{said}."


def _rejected(write: Mutation, subject: str, error: Error | None) -> str:
    reason = write.note
    if not reason and error is not None and error.site is not None and write.site is not None:
        same = (error.site.file, error.site.line) == (write.site.file, write.site.line)
        reason = words.clip(error.message, 120).rstrip(". ") if same else None
    return f"torch refuses {subject}: {reason or f'nothing was written to {write.tensor}'}."


def _overwrote(write: Mutation, conflicts: Sequence[Conflict], cell: Cell | None) -> str:
    note = own_note(write)
    if "overwrites_gradients" in write.effects and note:
        return note
    savers: dict[str, None] = {}
    for c in conflicts:
        if c.saved_site is None:
            savers[c.node] = None
        else:
            savers[f"{words.expression(c.saved_site, c.node)} ({words.where(c.saved_site, cell)})"] = None
    early = " before the watch began" if conflicts and all(c.saved_before_watch for c in conflicts) else ""
    return f"overwrote {f'what {words.listed(list(savers))} saved{early}' if savers else f'the saved {write.tensor}'}"


def _breaks(write: Mutation, subject: str, conflicts: Sequence[Conflict], cell: Cell | None) -> str:
    start = f"a backward{_for(write.tasks)} would fail" if write.pending else f"backward fails{_for(write.tasks)}"
    equal = ", with equal values: torch looks at the version only" if write.value_changed is False else ""
    return f"{start}: {subject} {_overwrote(write, conflicts, cell)}{equal}."


def _corrupts(
    write: Mutation, subject: str, conflicts: Sequence[Conflict], gradients: Sequence[Gradient], cell: Cell | None
) -> str:
    start = "the gradient would be wrong" if write.pending else "the gradient is wrong"
    return (
        f"{start}{_for(write.tasks)} and nothing raises: {subject} {_overwrote(write, conflicts, cell)}"
        f"{_damage(write, gradients)}."
    )


def _cuts(write: Mutation, subject: str, gradients: Sequence[Gradient]) -> str:
    if "discards_gradient" in write.effects:
        cleared = words.EFFECT_WORDS["discards_gradient"]
        return f"the gradient{_for(write.tasks, 'of')} is lost: {write.tensor} was {cleared}, by {subject}{_damage(write, gradients)}."
    return f"the gradient{_for(write.tasks, 'of')} does not see {subject}{_damage(write, gradients)}."


def _damage(write: Mutation, gradients: Sequence[Gradient]) -> str:
    """The leaf that is hit worst: ``; w gets no gradient``, ``; the gradient of w is off by 50 %``."""
    rows = [g for g in gradients if g.leaf in write.leaves and (not write.tasks or g.task in write.tasks)]
    lost = list(dict.fromkeys(g.leaf for g in rows if g.status == "lost"))
    if lost:
        return f"; {words.listed(lost)} {'gets' if len(lost) == 1 else 'get'} no gradient"
    off = [(g.relative_difference, g.leaf) for g in rows if g.status == "wrong" and g.relative_difference is not None]
    if off:
        most, leaf = max(off)
        return f"; the gradient of {leaf} is off by {words.percent(most)}"
    return (
        f"; {words.listed(write.leaves)} {'pays' if len(write.leaves) == 1 else 'pay'} for it" if write.leaves else ""
    )


def _mixes(write: Mutation, subject: str) -> str:
    names = words.listed(write.leaves) or write.tensor
    between = f" between {words.listed(write.tasks)}" if len(write.tasks) > 1 else ""
    verb, own = (
        ("has two values", "its own value") if len(write.leaves) < 2 else ("have two values", "their own values")
    )
    did = f"stands{between}" if between else "came in between"
    return f"{names} {verb} within one accumulated gradient: {subject} {did}; each part is right at {own}."
