"""Candidate rewrites of a cell for the harmful writes of its report, the most likely one first."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence

from jupyter_inplace.report.data import FixKind, Report
from jupyter_inplace.rewrite.candidate import Candidate
from jupyter_inplace.rewrite.rules.preserve import preserve
from jupyter_inplace.rewrite.rules.registry import RULES
from jupyter_inplace.rewrite.syntax.code import Code
from jupyter_inplace.rewrite.syntax.edit import EditConflictError, apply_edits, edited_lines, unified_diff
from jupyter_inplace.rewrite.syntax.locate import writes_of
from jupyter_inplace.rewrite.syntax.mask import Masked, mask
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax

__all__ = ["candidates", "combine", "distinct"]

_MOST_COMBINATIONS = 12


def candidates(source: str, report: Report, taken: Collection[str] = ()) -> tuple[Candidate, ...]:
    """The rewrites of `source` for the harmful writes of `report`.

    :param source: the cell as the user sees it, magics included; line 1 is the report's line 1.
    :param taken: names of the namespace that the cell runs in; new variables avoid them.
    :raises RewriteError: the cell is not Python once its magics are removed.
    """
    masked = mask(source)
    code = Code(masked.text, taken, source)
    writes = writes_of(code, report)
    per_write = [sorted(_proposals(write), key=lambda p: p.rank) for write in writes]
    found: list[tuple[Proposal, tuple[int, ...]]] = []
    if len(writes) > 1:
        ids = tuple(sorted(m.id for write in writes for m in write.mutations))
        found += [(proposal, ids) for proposal in _together(writes, per_write)]
    for write, proposals in zip(writes, per_write, strict=True):
        ids = tuple(m.id for m in write.mutations)
        found += [(proposal, ids) for proposal in proposals]
    return distinct(source, masked, code, found)


def combine(source: str, parts: Sequence[Candidate]) -> Candidate | None:
    """One candidate with the edits of several candidates for the same `source`; None if two of them edit the same text."""
    masked = mask(source)
    joined = _joined([Proposal(p.kind, p.title, p.edits, 0, p.reading) for p in parts])
    ids = tuple(sorted({mutation for part in parts for mutation in part.mutations}))
    made = distinct(source, masked, Code(masked.text), [(joined, ids)])
    return made[0] if made else None


def _proposals(write: WriteSyntax) -> Iterator[Proposal]:
    for rule in RULES:
        yield from rule(write)


def _together(writes: Sequence[WriteSyntax], per_write: Sequence[Sequence[Proposal]]) -> Iterator[Proposal]:
    """Proposals that fix every harmful write at once.

    First the most likely of each write, then the most likely of one kind, then the next choices of one write with the first
    choices of the others.
    """
    if all(per_write):
        first = [proposals[0] for proposals in per_write]
        choices = [first]
        for kind in ("out_of_place", "clone", "no_grad", "reorder"):
            same = [next((p for p in proposals if p.kind == kind), None) for proposals in per_write]
            if any(same):
                choices.append([p or q for p, q in zip(same, first, strict=True)])
        for depth in range(1, _MOST_COMBINATIONS):
            for at, proposals in enumerate(per_write):
                if depth < len(proposals) and len(choices) < _MOST_COMBINATIONS:
                    choices.append([*first[:at], proposals[depth], *first[at + 1 :]])
        yield from map(_joined, choices)
    yield from preserve.propose_all(writes)


def _joined(chosen: Sequence[Proposal]) -> Proposal:
    kinds = {p.kind for p in chosen}
    readings = {p.reading for p in chosen if p.reading}
    edits = tuple(dict.fromkeys(edit for p in chosen for edit in p.edits))
    titles = list(dict.fromkeys(p.title for p in chosen))
    title = titles[0] if len(titles) == 1 else f"all {len(chosen)} writes: " + "; ".join(titles)
    kind: FixKind = chosen[0].kind if len(kinds) == 1 else "out_of_place"
    return Proposal(kind, title, edits, 0, readings.pop() if len(readings) == 1 else None)


def distinct(
    source: str, masked: Masked, code: Code, found: Iterable[tuple[Proposal, tuple[int, ...]]]
) -> tuple[Candidate, ...]:
    """The candidates of those proposals that can be applied and give Python; equal sources once."""
    made: dict[str, Candidate] = {}
    for proposal, ids in found:
        edits = (*code.imports(proposal.edits), *proposal.edits)
        try:
            text = apply_edits(masked.text, edits)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compile(text, "<rewrite>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        except (EditConflictError, SyntaxError, ValueError):
            continue  # not applicable here
        new = masked.unmask(text)
        if text == masked.text or new in made:
            continue
        made[new] = Candidate(
            kind=proposal.kind,
            title=proposal.title,
            source=new,
            diff=unified_diff(source, new),
            mutations=ids,
            reading=proposal.reading,
            edited_lines=edited_lines(source, new),
            edits=edits,
        )
    return tuple(made.values())
