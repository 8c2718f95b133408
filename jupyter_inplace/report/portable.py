"""What a report may contain when it leaves the machine on which it was made.

A notebook keeps its outputs and is sent to other people. They may see the source of the notebook, but no absolute path
and no line of any other file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from jupyter_inplace.report import words
from jupyter_inplace.report.data import Report, Site
from jupyter_inplace.report.summary import build_summary

R = TypeVar("R", bound=Report)

# a path from the root, a drive, a share or the home directory; not the // of a URL, nor a fraction (a/b)
_PATH = re.compile(r"""(?<![\w.:/\\~])(?:~?/|[A-Za-z]:[\\/]|\\\\)[^\s'"<>:,;()\[\]]*[\\/]([^\s'"<>:,;()\[\]\\/]*)""")


def portable(report: R) -> R:
    """`report` without absolute paths and without source text from files outside of the cell."""
    foreign = _foreign_texts(report)

    def said(text: str) -> str:
        for line in foreign:
            text = text.replace(line, "...")
        return _PATH.sub(r"\1", text)

    def maybe(text: str | None) -> str | None:
        return None if text is None else said(text)

    cell = report.cell
    if cell is not None and cell.id is not None and re.search(r"[/\\]", cell.id):
        cell = replace(cell, id=None)  # some front ends use the path of the notebook as the id
    parts = replace(
        report,
        cell=cell,
        error=report.error and replace(report.error, message=said(report.error.message), site=_site(report.error.site)),
        mutations=tuple(replace(m, site=_site(m.site), note=maybe(m.note)) for m in report.mutations),
        conflicts=tuple(replace(c, saved_site=_site(c.saved_site)) for c in report.conflicts),
        tasks=tuple(replace(t, site=_site(t.site)) for t in report.tasks),
        timeline=tuple(replace(e, site=_site(e.site)) for e in report.timeline),
        fixes=tuple(
            replace(f, title=said(f.title), verification=replace(f.verification, reason=maybe(f.verification.reason)))
            for f in report.fixes
        ),
        blind_spots=tuple(map(said, report.blind_spots)),
        unknown_because=tuple(map(said, report.unknown_because)),
    )
    own = foreign and _summary(report) == report.summary
    return replace(parts, summary=_summary(parts) if own else said(report.summary))


def _summary(report: Report) -> str:
    return build_summary(
        report.mutations, report.conflicts, report.tasks, report.gradients, cell=report.cell, error=report.error,
        framework_used=not report.nothing_ran, unknown_because=report.unknown_because,
    )  # fmt: skip


def _site(site: Site | None) -> Site | None:
    if site is None or words.is_cell(site.file):
        return site
    return replace(site, file=words.base_name(site.file), text="", line_text="")


def _foreign_texts(report: Report) -> list[str]:
    """Source text from files outside of the cell, the longest first, without plain names: those are no secret."""
    sites = [m.site for m in report.mutations] + [c.saved_site for c in report.conflicts]
    sites += [t.site for t in report.tasks] + [e.site for e in report.timeline]
    sites += [report.error.site] if report.error else []
    texts = {
        text
        for site in sites
        if site is not None and not words.is_cell(site.file)
        for text in (site.text, site.line_text)
    }
    is_secret: Callable[[str], bool] = lambda text: re.fullmatch(r"[\w.]*", text) is None  # noqa: E731
    return sorted(filter(is_secret, texts), key=len, reverse=True)
