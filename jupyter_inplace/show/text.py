"""A report for terminals, `print` and test failures: plain text in 100 columns, ASCII apart from the user's own names.

ASCII, because printing it must not fail with any encoding of a terminal or a log.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence

from jupyter_inplace.report import words
from jupyter_inplace.report.data import HARMFUL, Fix, Gradient, Report
from jupyter_inplace.report.order import opposition, proved_first
from jupyter_inplace.show.excerpt import Excerpt, Line, excerpt, shown_mutations

WIDTH = 100
MAX_WRITES = 5
MAX_ROWS = 24
MAX_COSINES = 12
MAX_FIXES = 6
MAX_DIFF = 16

_CODES = {"bad": "31", "good": "32", "warn": "33", "save": "34", "dim": "2", "bold": "1"}
# control characters in the user's text would act on the terminal: only our own colours are let through
_CONTROL = re.compile(r"(\033\[(?:3[1-4]|[012])m)|[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_VERDICT_STYLE = {
    "rejected": "bad",
    "breaks": "bad",
    "corrupts": "bad",
    "cuts": "bad",
    "unknown": "warn",
    "mixes": "warn",
}


def render(report: Report, *, color: bool = False, width: int = WIDTH) -> str:
    """The report as text, without a line break at the end.

    :param color: use ANSI colours.
    :param width: the number of columns; longer lines of source are cut.
    """
    lines = _Painter(color, width).report(report)
    return "\n".join(_CONTROL.sub(lambda found: found[1] or "?", line) for line in lines)


class _Painter:
    def __init__(self, color: bool, width: int) -> None:
        self.color = color
        self.width = max(width, 40)

    def paint(self, text: str, style: str) -> str:
        return f"\033[{_CODES[style]}m{text}\033[0m" if self.color and text else text

    def wrapped(self, text: str, indent: str = "  ", first: str | None = None) -> list[str]:
        return textwrap.wrap(
            text, self.width, initial_indent=indent if first is None else first, subsequent_indent=indent
        ) or [indent.rstrip()]

    def report(self, report: Report) -> Iterator[str]:
        verdict = f"{report.verdict}: "
        rank = "" if report.rank is None else f"rank {report.rank}: "
        head = self.wrapped(verdict + rank + report.summary, " " * len(verdict), "")
        style = _VERDICT_STYLE.get(report.verdict)
        if style:
            head[0] = self.paint(head[0][: len(verdict)], style) + head[0][len(verdict) :]
        yield from head
        if report.verdict != "harmless" or any(m.verdict != "harmless" for m in report.mutations):
            yield from self.wrapped(words.tally(report), " " * len(verdict))
            for part in (self.writes(report), self.gradients(report), self.cosines(report), self.fixes(report)):
                lines = list(part)
                if lines:
                    yield ""
                    yield from lines
            if report.blind_spots:
                yield ""
        for spot in report.blind_spots:
            yield from self.wrapped(spot, "            ", "  not seen: ")

    def writes(self, report: Report) -> Iterator[str]:
        shown = shown_mutations(report, MAX_WRITES)
        for i, mutation in enumerate(shown):
            if i:
                yield ""
            yield from self.block(excerpt(report, mutation))
        total = len(shown_mutations(report, len(report.mutations)))
        if total > len(shown):
            yield f"  and {words.counted(total - len(shown), 'more write')} like it"

    def block(self, block: Excerpt) -> Iterator[str]:
        mutation = block.mutation
        title = f"{words.write_expression(mutation)}: {words.deed(mutation)}"
        yield self.paint("  " + words.clip(title, self.width - 2), "bold")
        digits = max((len(str(line.number)) for line in block.lines), default=1)
        file = None
        for line in block.lines:
            if line.file != file:
                yield self.paint(f"  {' ' * digits} --> {line.file}", "dim")
            file = line.file
            yield from self.source_line(line, digits)
        for remark in block.nowhere:
            yield from self.wrapped(remark, "      ", "    - ")
        if block.hidden:
            yield f"    and {words.counted(block.hidden, 'more saved tensor')}"
        if mutation.leaves:
            yield from self.wrapped(
                f"leaves{' hit' if mutation.verdict in HARMFUL else ''}: {words.listed(mutation.leaves, 6)}", "    "
            )

    def source_line(self, line: Line, digits: int) -> Iterator[str]:
        margin = " " * (digits + 4)
        room = max(self.width - len(margin) - 2, 20)
        writes = any(mark.role == "write" for mark in line.marks)
        text = line.text.expandtabs(1)  # a tab becomes one column, so that the underline stays below its expression
        cut = text if len(text) <= room else text[: room - 3] + "..."
        yield f"  {'>' if writes else ' '} {line.number:>{digits}}| {cut}".rstrip()
        for mark in sorted(line.marks, key=lambda mark: mark.start):
            start, end = min(mark.start, room - 1), min(mark.end, room)
            rule = ("^" if mark.role == "write" else "~") * max(_columns(text[start:end]), 1)
            style = "bad" if mark.role == "write" else "save"
            head = f"{margin}| {' ' * _columns(text[:start])}"
            beside = " " + mark.remarks[0]
            fits = len(head) + len(rule) + len(beside) <= self.width
            yield head + self.paint(rule, style) + (beside if fits else "")
            for remark in mark.remarks[fits:]:
                yield from self.wrapped(remark, f"{margin}|   ")

    def gradients(self, report: Report) -> Iterator[str]:
        bad = [g for g in report.gradients if g.status != "ok"]
        rest = [g for g in report.gradients if g.status == "ok"]
        if report.tasks:
            said = (f"{t.name} {words.STATUS_WORDS.get(t.status, t.status)}" for t in report.tasks)
            yield from self.wrapped(f"tasks: {', '.join(said)}", "    ", "  ")
        if not report.gradients:
            return
        order = {t.name: i for i, t in reversed(list(enumerate(report.tasks)))}
        chosen = (bad + rest)[:MAX_ROWS]
        chosen.sort(key=lambda g: order.get(g.task, len(order)))
        rows = [("task", "leaf", "gradient", "|as run|", "|reference|", "difference", "cosine", "")]
        previous = None
        for g in chosen:
            rows.append(
                (
                    words.shorten(g.task, 16) if g.task != previous else "",
                    g.leaf,
                    words.STATUS_WORDS.get(g.status, g.status),
                    words.number(g.norm_as_run),
                    words.number(g.norm_reference),
                    words.number(g.relative_difference),
                    words.cosine(g.cosine),
                    _aside(g),
                )
            )
            previous = g.task
        yield from self.table(rows, "<<<>>>><", flexible=1)
        left = len(report.gradients) - len(chosen)
        if left:
            hidden_bad = len(bad) - sum(g.status != "ok" for g in chosen)
            yield f"  and {words.counted(left, 'more row')}, {hidden_bad or 'none'} of them hit"

    def cosines(self, report: Report) -> Iterator[str]:
        if not report.task_cosines:
            return
        rows = [("cosine between tasks at", "", "as run", "reference")]
        shown = sorted(report.task_cosines, key=opposition)[:MAX_COSINES]
        rows += [
            (
                c.leaf,
                words.clip(", ".join(c.tasks), 36),
                words.cosine(c.as_run),
                words.cosine(c.reference),
            )
            for c in shown
        ]
        yield from self.table(rows, "<<>>", flexible=0)
        if len(report.task_cosines) > len(shown):
            yield f"  and {len(report.task_cosines) - len(shown):,} more"

    def table(self, rows: Sequence[Sequence[str]], align: str, flexible: int) -> Iterator[str]:
        """Columns with a header; the `flexible` one is made narrower if the lines are too long."""
        widths = [max(len(row[i]) for row in rows) for i in range(len(align))]
        spare = self.width - sum(widths) - 2 * len(widths)
        widths[flexible] = max(widths[flexible] + min(spare, 0), 12)
        for i, row in enumerate(rows):
            cells = [f"{words.shorten(cell, w):{a}{w}}" for cell, a, w in zip(row, align, widths, strict=True)]
            line = ("  " + "  ".join(cells)).rstrip()
            line = line if len(line) <= self.width else line[: self.width - 3] + "..."
            yield self.paint(line, "dim") if i == 0 else line

    def fixes(self, report: Report) -> Iterator[str]:
        if not report.fixes:
            return
        fixes = proved_first(report.fixes)
        for line in self.wrapped("rewrites, tried on a copy of the state from before the cell"):
            yield self.paint(line, "dim")
        for fix in fixes[:MAX_FIXES]:
            yield from self.fix(fix)
        if len(fixes) > MAX_FIXES:
            yield f"  and {words.counted(len(fixes) - MAX_FIXES, 'more rewrite')}"

    def fix(self, fix: Fix) -> Iterator[str]:
        status = words.PROOF_WORDS.get(fix.verification.status, fix.verification.status)
        style = {"passed": "good", "failed": "bad"}.get(fix.verification.status, "warn")
        mark = f"  {status:<10} "
        reading = f" (reading: {fix.reading})" if fix.reading else ""
        told = "; ".join(
            filter(None, (fix.title + reading, words.proof(fix.verification), words.memory(fix.extra_bytes)))
        )
        lines = self.wrapped(told, " " * len(mark), mark)
        yield self.paint(lines[0][: len(mark)], style) + lines[0][len(mark) :]
        yield from lines[1:]
        if fix.verification.status == "failed":
            return
        changed = [line for line in words.diff_lines(fix.diff) if not line.startswith("@@")]
        for line in changed[:MAX_DIFF]:
            cut = " " * len(mark) + (
                line if len(line) <= self.width - len(mark) else line[: self.width - len(mark) - 3] + "..."
            )
            yield (
                self.paint(cut, "good")
                if line.startswith("+")
                else self.paint(cut, "bad")
                if line.startswith("-")
                else cut
            )
        if len(changed) > MAX_DIFF:
            yield f"{' ' * len(mark)}and {words.counted(len(changed) - MAX_DIFF, 'more line')}"


def _columns(text: str) -> int:
    """The width of a text on a terminal, where East Asian characters take two columns and accents none."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def _aside(gradient: Gradient) -> str:
    parts = [f"v{v.version}: {words.number(v.norm)}" for v in gradient.by_version]
    parts += [f"iteration {gradient.occurrence}"] if gradient.occurrence is not None else []
    return ", ".join(parts)
