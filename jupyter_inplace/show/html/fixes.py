"""The rewrites section: for each rewrite a small diff and its proof."""

from __future__ import annotations

from collections.abc import Iterator

from jupyter_inplace.report import words
from jupyter_inplace.report.data import Fix, Report
from jupyter_inplace.report.order import proved_first
from jupyter_inplace.show.html.markup import Markup, tag
from jupyter_inplace.show.html.section import section

OPEN_FIXES = 5
MAX_DIFF = 24
MAX_SOURCE = 20_000

_SIGNS = {"passed": "✓", "failed": "✕", "unverified": "?"}


def fixes(report: Report) -> Markup | None:
    """The section, with proved rewrites first; None if there are no rewrites."""
    if not report.fixes:
        return None
    ranked = proved_first(report.fixes)
    rest = ranked[OPEN_FIXES:]
    return section(
        "Rewrites",
        "tried on a copy of the state from before the cell",
        [_fix(fix) for fix in ranked[:OPEN_FIXES]],
        tag("details", tag("summary", words.counted(len(rest), "more rewrite")), [_fix(fix) for fix in rest])
        if rest
        else None,
        name="fixes",
    )


def _fix(fix: Fix) -> Markup:
    status = fix.verification.status
    pill = f"{_SIGNS.get(status, '?')} {words.PROOF_WORDS.get(status, status)}"
    kind = words.KIND_WORDS.get(fix.kind, fix.kind)
    told = [fix.title, words.proof(fix.verification), words.memory(fix.extra_bytes)]
    reading = f"reading: {fix.reading} · " if fix.reading else ""
    offered = status != "failed"
    return tag(
        "article",
        tag("span", pill, class_=f"ji-pill ji-{status}"),
        tag(
            "div",
            tag("pre", list(_diff(fix.diff)), class_="ji-diff"),
            tag("p", tag("b", kind), " · ", reading, " · ".join(filter(None, told))),
            tag("details", tag("summary", "The whole new cell"), tag("pre", fix.source[:MAX_SOURCE], class_="ji-cell"))
            if offered and len(fix.source) <= MAX_SOURCE
            else None,
        ),
        class_="ji-fix",
        aria_label=f"{kind}, {words.PROOF_WORDS.get(status, status)}",
        data_ji="fix",
        data_ji_id=fix.id,
        data_ji_kind=fix.kind,
        data_ji_status=status,
    )


def _diff(diff: str) -> Iterator[Markup | str]:
    """The changed lines without context, and an ellipsis between hunks."""
    lines = words.diff_lines(diff)
    changed = [line for i, line in enumerate(lines) if line[:1] in "+-" or (line.startswith("@@") and i)]
    for line in changed[:MAX_DIFF]:
        if line.startswith("@@"):
            yield "⋯\n"
        else:
            yield tag("span", f"{line[0]} {line[1:]}\n", class_="ji-add" if line[0] == "+" else "ji-del")
    if len(changed) > MAX_DIFF:
        yield f"and {words.counted(len(changed) - MAX_DIFF, 'more line')}\n"
