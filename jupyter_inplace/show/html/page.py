"""The report as static HTML: one fragment without scripts that loads nothing, with all text of the user escaped.

Some front ends strip the style sheet and the picture. It must be readable without them: the order and the words carry the
meaning, and the style sheet comes last.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from jupyter_inplace.report import words
from jupyter_inplace.report.data import HARMFUL, Mutation, Report
from jupyter_inplace.show.html import fixes as html_fixes
from jupyter_inplace.show.html import source as html_source
from jupyter_inplace.show.html import style
from jupyter_inplace.show.html import tables as html_tables
from jupyter_inplace.show.html import timeline as html_timeline
from jupyter_inplace.show.html.markup import Markup, join, tag
from jupyter_inplace.show.html.section import Tasks, section

MAX_OTHER_ROWS = 30
MAX_SPOTS = 20
MAX_QUIET = 11_500  # characters of a quiet line, with everything that unfolds from it

_SIGNS = {"rejected": "✕", "breaks": "✕", "corrupts": "⚠", "cuts": "⚠", "unknown": "?", "mixes": "◐", "harmless": "✓"}


def render(report: Report) -> Markup:
    """The fragment. A harmless report is one quiet line, which can be unfolded."""
    tasks = Tasks(report)
    if report.verdict == "harmless":
        return _quiet(report, tasks)
    return tag(
        "div",
        tag(
            "div",
            tag(
                "p",
                tag("span", f"{_SIGNS.get(report.verdict, '•')} {report.verdict}: ", class_="ji-word"),
                tag("strong", _sentence(report)),
            ),
            tag("p", _rank(report), words.tally(report, " · "), class_="ji-tally"),
            class_=f"ji-head ji-{report.verdict}",
            data_ji="verdict",
            data_ji_verdict=report.verdict,
        ),
        html_timeline.timeline(report, tasks),
        html_source.writes(report),
        html_tables.gradients(report, tasks),
        html_tables.cosines(report),
        html_fixes.fixes(report),
        _blind_spots(report),
        _other_writes(report),
        style.sheet(quiet=False),
        class_="ji-panel" + (" ji-mixed" if report.verdict in ("unknown", "mixes") else ""),
        role="region",
        aria_label=f"In-place writes: {report.verdict}",
        data_ji="panel",
    )


def page(fragment: str, title: str) -> str:
    """A whole HTML page around a fragment."""
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
    ]
    body = tag("body", Markup(fragment), style="margin:12px")
    return f"<!DOCTYPE html>\n{tag('html', tag('head', head), body, lang='en')}\n"


def _quiet(report: Report, tasks: Tasks) -> Markup:
    """The quiet line, with as many details to unfold as fit into `MAX_QUIET`."""
    for rows, drawn in ((16, True), (16, False), (6, False)):
        folded = _folded(report, tasks, rows, drawn)
        if len(folded) <= MAX_QUIET:
            break
    return folded


def _folded(report: Report, tasks: Tasks, rows: int, drawn: bool) -> Markup:
    spots = len(report.blind_spots)
    unseen = f" {words.counted(spots, 'thing')} could not be seen." if spots else ""
    parts = [
        html_tables.writes(report, report.mutations[:rows]) if report.mutations else None,
        html_timeline.timeline(report, tasks, columns=8, lanes=4, listed=0) if drawn else None,
        html_tables.gradients(report, tasks) if drawn else None,
        _blind_spots(report, MAX_SPOTS if drawn else 3),
    ]
    return tag(
        "details",
        tag(
            "summary",
            tag("span", "✓ ", class_="ji-word"),
            _rank(report),
            words.clip(report.summary, 400),
            unseen,
            data_ji="verdict",
            data_ji_verdict=report.verdict,
        ),
        parts if any(parts) else tag("p", "Nothing to unfold: the watch saw no write.", class_="ji-part ji-note"),
        style.sheet(quiet=True),
        class_="ji-panel ji-quiet",
        data_ji="panel",
    )


def _rank(report: Report) -> str | None:
    return None if report.rank is None else f"rank {report.rank}: "


def _sentence(report: Report) -> Markup:
    """The summary, with its expressions and names marked up as code."""
    names = {words.write_expression(m) for m in report.mutations if m.verdict != "harmless"}
    names |= {words.expression(c.saved_site, c.node) for c in report.conflicts}
    names |= {t.name for t in report.tasks} | {f for m in report.mutations for f in m.leaves[:3]}
    if not any(names):
        return join(report.summary)
    longest_first = sorted(filter(None, names), key=len, reverse=True)
    pattern = rf"(?<!\w)({'|'.join(map(re.escape, longest_first))})(?!\w)"
    pieces = re.split(pattern, report.summary)
    return join(tag("code", piece) if i % 2 else piece for i, piece in enumerate(pieces))


def _blind_spots(report: Report, limit: int = MAX_SPOTS) -> Markup | None:
    if not report.blind_spots:
        return None
    left = len(report.blind_spots) - limit
    items = [tag("li", words.clip(spot, 300)) for spot in report.blind_spots[:limit]]
    items += [tag("li", f"and {left} more")] if left > 0 else []
    return section("Not seen", None, tag("ul", items), name="blind-spots")


def _other_writes(report: Report) -> Markup | None:
    """The writes that the source section does not show."""
    above = {m.id for m in html_source.shown(report)}
    rest: Sequence[Mutation] = [m for m in report.mutations if m.id not in above]
    if not rest:
        return None
    rest = sorted(rest, key=lambda m: m.verdict not in HARMFUL)
    table = html_tables.writes(report, rest[:MAX_OTHER_ROWS], len(rest))
    count = words.counted(sum(m.count for m in rest), "other write")
    return tag("details", tag("summary", f"{count}"), table, class_="ji-part")
