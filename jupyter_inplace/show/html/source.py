"""The source section: for each harmful write its line, its expression underlined, and the lines of the savers that it hit."""

from __future__ import annotations

import itertools

from jupyter_inplace.report import words
from jupyter_inplace.report.data import HARMFUL, Mutation, Report
from jupyter_inplace.show.excerpt import Excerpt, Line, Mark, excerpt, shown_mutations
from jupyter_inplace.show.html.markup import Markup, tag
from jupyter_inplace.show.html.section import section

MAX_WRITES = 6
MAX_LINE = 400


def shown(report: Report) -> list[Mutation]:
    """The writes in this section."""
    return shown_mutations(report, MAX_WRITES)


def writes(report: Report) -> Markup | None:
    """The section; None if no write needs attention."""
    mutations = shown(report)
    if not mutations:
        return None
    blocks = [_block(excerpt(report, mutation, "→"), report) for mutation in mutations]
    title = "The write" if len(blocks) == 1 else "The writes"
    return section(title, None, blocks, name="writes")


def _block(block: Excerpt, report: Report) -> Markup:
    mutation = block.mutation
    rows: list[Markup] = []
    file = None
    for line in block.lines:
        if line.file != file and not (words.is_cell(line.file) and _here(line.file, report)):
            rows.append(tag("div", line.file, class_="ji-file"))
        file = line.file
        rows.append(_line(line))
    rows += [tag("div", remark, class_="ji-file") for remark in block.nowhere]
    leaves = (
        f"Leaves{' hit' if mutation.verdict in HARMFUL else ''}: {words.listed(mutation.leaves, 6)}"
        if mutation.leaves
        else ""
    )
    more = f"{words.counted(block.hidden, 'more saved tensor')} overwritten. " if block.hidden else ""
    return tag(
        "div",
        tag("p", tag("code", words.write_expression(mutation)), f": {words.deed(mutation)}", class_="ji-note"),
        tag("div", rows, class_="ji-source"),
        tag("p", more + leaves, class_="ji-note") if more or leaves else None,
        data_ji="mutation",
        data_ji_id=mutation.id,
        data_ji_verdict=mutation.verdict,
    )


def _here(file: str, report: Report) -> bool:
    return report.cell is not None and file == f"In[{report.cell.execution_count}]"


def _line(line: Line) -> Markup:
    hot = any(mark.role == "write" for mark in line.marks)
    remarks = [remark for mark in line.marks for remark in mark.remarks]
    return tag(
        "div",
        tag("pre", tag("span", f"{line.number} ", class_="ji-no"), _underlined(line)),
        tag("span", [[tag("br") if i else None, remark] for i, remark in enumerate(remarks)], class_="ji-note"),
        class_="ji-row ji-hot" if hot else "ji-row",
    )


def _underlined(line: Line) -> list[Markup | str]:
    """The text in pieces, cut where marks begin and end; where marks overlap, a piece gets the shortest one."""
    text = line.text if len(line.text) <= MAX_LINE else line.text[:MAX_LINE] + "..."
    cuts = sorted({0, len(text)} | {min(at, len(text)) for mark in line.marks for at in (mark.start, mark.end)})
    pieces: list[Markup | str] = []
    for start, end in itertools.pairwise(cuts):
        over = [mark for mark in line.marks if mark.start <= start and end <= mark.end]
        pieces.append(_piece(text[start:end], min(over, key=lambda m: (m.end - m.start, m.role), default=None)))
    return pieces


def _piece(text: str, mark: Mark | None) -> Markup | str:
    if mark is None:
        return text
    return tag("u", text, class_="ji-w" if mark.role == "write" else "ji-v", title="; ".join(mark.remarks))
