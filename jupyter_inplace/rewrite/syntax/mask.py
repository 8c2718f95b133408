"""Masks lines that only IPython understands, so that a cell can be rewritten, and restores them afterwards.

``%magic``, ``!command``, ``help?`` and ``name = !command`` lines become ``pass`` with a comment that identifies the line, so
every other line keeps its number and columns. The statement of ``%time x.mul_(2)`` stays visible.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from jupyter_inplace._syntax import parse

__all__ = ["Masked", "mask"]

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_MAGIC = re.compile(r"%%?[A-Za-z_]|!|\?")  # how a magic, a command or a help line begins
_ASSIGNED = re.compile(r"[\w.,\[\]\"'\s]+?=\s*[!%](?!=)")  # files = !ls
_HELP = re.compile(r"[%!\w.*\[\]\"']+\?{1,2}\s*;?\s*$")  # torch.nn.ReLU?
_TIMED = re.compile(r"(%(?:time|timeit|prun|memit)\s+)([^-\s].*)$")  # magics whose argument is a statement


@dataclass(frozen=True)
class Masked:
    """A cell as plain Python, with its masked lines."""

    text: str
    _mark: str
    _lines: tuple[str, ...]

    def unmask(self, text: str) -> str:
        """Restore the masked lines in an edited `text`, wherever they are now and however indented."""
        if not self._lines:
            return text
        whole = re.compile(rf"^([ \t]*)(?:pass  )?# {self._mark}(\d+)$", re.MULTILINE)
        text = whole.sub(lambda found: found[1] + self._lines[int(found[2])], text)
        timed = re.compile(rf"^([ \t]*)(.*?)  # {self._mark}(\d+)$", re.MULTILINE)
        return timed.sub(lambda found: found[1] + self._lines[int(found[3])] + found[2], text)


def mask(source: str) -> Masked:
    """Replace the lines of a cell that are not Python."""
    mark = "masked_"
    while mark in source:
        mark += "_"
    kept: list[str] = []
    out: list[str] = []
    continued = False  # the line before was masked and ends with a backslash
    for line, fresh in _logical_starts(source):
        body, ending = line.rstrip("\r\n"), line[len(line.rstrip("\r\n")) :]
        indent = body[: len(body) - len(body.lstrip())]
        if continued:
            out.append(f"{indent}# {mark}{len(kept)}{ending}")
            kept.append(body.lstrip())
            continued = body.endswith("\\")
        elif fresh and _is_magic(body.strip()):
            timed = _TIMED.match(body.lstrip())
            if body.startswith("%%"):  # a comment: ``from __future__`` imports may still follow
                out.append(f"# {mark}{len(kept)}{ending}")
                kept.append(body)
                continued = body.endswith("\\")
            elif timed and _is_python(timed[2]):
                out.append(f"{indent}{timed[2].rstrip()}  # {mark}{len(kept)}{ending}")
                kept.append(timed[1])
            else:
                out.append(f"{indent}pass  # {mark}{len(kept)}{ending}")
                kept.append(body.lstrip())
                continued = body.endswith("\\")
        else:
            out.append(line)
    return Masked("".join(out), mark, tuple(kept))


def _is_magic(line: str) -> bool:
    return bool(_MAGIC.match(line) or _ASSIGNED.match(line) or _HELP.match(line))


def _is_python(statement: str) -> bool:
    try:
        parse(statement)
    except SyntaxError:
        return False
    return "#" not in statement  # a comment would hide the mark


def _logical_starts(source: str) -> Iterator[tuple[str, bool]]:
    """Each physical line, and whether a statement can begin there (no open bracket, string or backslash)."""
    depth, quote, joined = 0, "", False
    for line in _LINE.findall(source):
        fresh = not depth and not quote and not joined
        yield line, fresh
        if fresh and _is_magic(line.strip()):
            continue
        depth, quote = _scan(line, depth, quote)
        joined = line.rstrip("\r\n").endswith("\\") and not quote


_TOKEN = re.compile(r"#.*|'''|\"\"\"|'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"|\\.|[()\[\]{}]", re.DOTALL)


def _scan(line: str, depth: int, quote: str) -> tuple[int, str]:
    """Bracket depth and open triple quote at the end of `line`, given those at its start."""
    at = 0
    while at < len(line):
        if quote:
            end = re.compile(rf"\\.|{quote}", re.DOTALL).search(line, at)
            if end is None:
                return depth, quote
            quote = "" if end[0] == quote else quote
            at = end.end()
            continue
        token = _TOKEN.search(line, at)
        if token is None:
            return depth, quote
        at = token.end()
        if token[0] in {"'''", '"""'}:
            quote = token[0]
        elif token[0] in "([{":
            depth += 1
        elif token[0] in ")]}":
            depth = max(0, depth - 1)
    return depth, quote
