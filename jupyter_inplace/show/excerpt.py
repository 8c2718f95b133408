"""The source lines of a write and of the savers that it hit, with the parts to underline."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from jupyter_inplace._syntax import source_lines
from jupyter_inplace.report import words
from jupyter_inplace.report.data import HARMFUL, VERDICTS, Cell, Mutation, Report, Site

MAX_SAVERS = 6


@dataclass(slots=True)
class Mark:
    """The part of a line from `start` up to `end`, and the remarks about it."""

    start: int
    end: int
    role: Literal["write", "save"]
    remarks: list[str]


@dataclass(slots=True)
class Line:
    """One line of source; indented in `text` if the source of the cell is available."""

    file: str
    number: int
    text: str
    marks: list[Mark] = field(default_factory=list)


@dataclass(slots=True)
class Excerpt:
    """The lines of a write and of the savers that it hit, sorted by place; `hidden` more savers are left out."""

    mutation: Mutation
    lines: list[Line]
    hidden: int = 0
    nowhere: list[str] = field(default_factory=list)  # remarks about something that has no line of Python


def shown_mutations(report: Report, limit: int) -> list[Mutation]:
    """The writes that a person must look at, worst first: the harmful and the unknown ones, `mixes` where nothing is worse.

    A loop that makes a new tensor each time has a row for each of them. Rows that look the same become one row with a count.
    """
    told = (*HARMFUL, "unknown")
    bad = [m for m in report.mutations if m.verdict in told] or [m for m in report.mutations if m.verdict == "mixes"]
    alike: dict[object, Mutation] = {}
    for m in sorted(bad, key=lambda m: (VERDICTS.index(m.verdict), m.pending)):
        key = replace(m, id=0, count=1, storage=None, time=None)
        first = alike.get(key)
        alike[key] = m if first is None else replace(first, count=first.count + m.count)
    return list(alike.values())[:limit]


def excerpt(report: Report, mutation: Mutation, arrow: str = "->") -> Excerpt:
    """Gather the lines of `mutation` and of the savers whose tensors it overwrote.

    :param arrow: what stands between two versions.
    """
    result = Excerpt(mutation, [])
    lines: dict[tuple[str, int], Line] = {}
    conflicts = [c for c in report.conflicts if c.mutation == mutation.id]
    result.hidden = max(len(conflicts) - MAX_SAVERS, 0)
    for conflict in conflicts[:MAX_SAVERS]:
        _mark(result, lines, conflict.saved_site, report.cell, "save", words.saver(conflict, mutation.tensor))
    _mark(result, lines, mutation.site, report.cell, "write", about(mutation, arrow))
    result.lines = sorted(lines.values(), key=lambda line: (line.file, line.number))
    return result


def about(mutation: Mutation, arrow: str = "->") -> str:
    """What a write did: ``z (4, 5) float32, version 0 -> 1``."""
    shape = f"({', '.join(map(str, mutation.shape))}{',' if len(mutation.shape) == 1 else ''})"
    parts = [" ".join(filter(None, (mutation.tensor, shape, mutation.dtype)))]
    parts.append("nothing was written" if mutation.verdict == "rejected" else words.versions(mutation, arrow))
    if mutation.count > 1:
        parts.append(f"{mutation.count:,} times")
    if mutation.value_changed is False and mutation.verdict != "rejected":
        parts.append("values unchanged")
    if mutation.module:
        parts.append(f"in {mutation.module}")
    if mutation.note:
        parts.append(mutation.note)
    return ", ".join(parts)


def _mark(
    result: Excerpt,
    lines: dict[tuple[str, int], Line],
    site: Site | None,
    cell: Cell | None,
    role: Literal["write", "save"],
    remark: str,
) -> None:
    if site is None or not (site.line_text or site.text):
        result.nowhere.append(remark if site is None else f"{words.where(site, cell)}: {remark}")
        return
    text, start, end = _place(site, cell)
    line = lines.setdefault((site.file, site.line), Line(site.file, site.line, text))
    for mark in line.marks:
        if (mark.start, mark.end, mark.role) == (start, end, role):
            mark.remarks += [] if remark in mark.remarks else [remark]
            return
    line.marks.append(Mark(start, end, role, [remark]))


def _place(site: Site, cell: Cell | None) -> tuple[str, int, int]:
    """The line of a site, and the columns at which the expression begins and ends in it."""
    first = site.text.strip().split("\n", 1)[0].rstrip()
    line = site.line_text or first
    if cell is not None and words.is_cell(site.file) and site.cell_line == site.line:
        source = source_lines(cell.source)
        whole = source[site.line - 1] if 0 < site.line <= len(source) else ""
        if whole.strip() == line.strip():
            line = whole.rstrip()
    start = -1
    # In a stripped line this column is off by the indentation: then the text is searched for.
    if site.column is not None:
        start = line.find(first, site.column) if line[site.column :].startswith(first) else -1
    start = max(start if start >= 0 else line.find(first), 0)
    return line, start, min(start + len(first), len(line)) if first else len(line)
