"""From the key of a place to its `Site`: the exact expression, its lines, columns and text. Worked out after the cell."""

from __future__ import annotations

import ast
import dis
import linecache
from collections.abc import Mapping
from itertools import islice
from types import CodeType

from jupyter_inplace._syntax import source_lines
from jupyter_inplace.record.source.expressions import assigned_names
from jupyter_inplace.record.source.sites import SiteKey
from jupyter_inplace.record.source.source_text import SourceText, Span
from jupyter_inplace.report.data import Site


class SiteResolver:
    """Turns the keys of `find_site` into `Site`: lines, columns and text. Made for one watch, used after the cell.

    :param labels: what a file is called in the report, such as ``"In[7]"``; other files keep their name.
    :param cell_file: ``co_filename`` of the watched cell, None outside of a cell.
    :param cell_source: the cell as the person typed it, line 1 being the magic line.
    """

    def __init__(self, labels: Mapping[str, str], cell_file: str | None, cell_source: str | None) -> None:
        self._labels = labels
        self._cell_file = cell_file
        self._cell_lines = source_lines(cell_source or "")
        self._cut_wrongly = len(self._cell_lines) != len((cell_source or "").splitlines())
        self._texts: dict[str, SourceText] = {}
        self._sites: dict[SiteKey, Site] = {}

    def resolve(self, key: SiteKey | None) -> Site | None:
        """The site of a key; never raises, and leaves empty what cannot be had (a file without source has no text)."""
        if key is None:
            return None
        site = self._sites.get(key)
        if site is None:
            site = self._sites[key] = self._resolve(key)
        return site

    def text_of(self, filename: str) -> SourceText:
        """The source of a file by its ``co_filename``, without lines where there is none."""
        text = self._texts.get(filename)
        if text is None:
            text = self._texts[filename] = SourceText(self._lines_of(filename))
        return text

    def statement_of(self, key: SiteKey | None) -> tuple[ast.AST | None, ast.stmt | None]:
        """The syntax of a site: its expression, and the statement around it."""
        site = self.resolve(key)
        if key is None or site is None or site.column is None or site.end_line is None or site.end_column is None:
            return None, None
        text = self.text_of(self._shown(key)[0].co_filename)
        where = (site.line, site.column, site.end_line, site.end_column)
        return text.expression(*where), text.statement(*where)

    def assigned_names(self, key: SiteKey | None) -> tuple[str, ...]:
        """The variables that hold exactly the value of a site's expression: ``prob`` of ``prob = logit.sigmoid()``."""
        expression, statement = self.statement_of(key)
        return assigned_names(expression, statement)

    def _resolve(self, key: SiteKey) -> Site:
        code, lasti = self._shown(key)
        filename = code.co_filename
        source = self.text_of(filename)
        opname = opname_at(code, lasti)
        span = source.span(positions(code, lasti), opname) or Span(code.co_firstlineno, None, None, None, "")
        line_text, text = source.line(span.line), span.text
        if filename == self._cell_file:
            typed = self._typed_line(source, span.line)
            if typed is not None and typed != line_text:  # `%time x.mul_(2)` runs as a call of the magic
                line_text = text = typed
        return Site(
            file=self._labels.get(filename, filename),
            line=span.line,
            column=span.column,
            end_line=span.end_line,
            end_column=span.end_column,
            text=text,
            line_text=line_text,
            function=_function_name(code),
            cell_line=self._cell_line(key, span.line if filename == self._cell_file else None),
        )

    def _shown(self, key: SiteKey) -> tuple[CodeType, int]:
        """The frame to show: the innermost of the user's that has source, else that of the cell."""
        if len(key) == 4 and not self.text_of(key[0].code.co_filename).lines:
            return key[2].code, key[3]
        return key[0].code, key[1]

    def _cell_line(self, key: SiteKey, own: int | None) -> int | None:
        if own is not None or len(key) != 4:
            return own
        code, lasti = key[2].code, key[3]
        span = self.text_of(code.co_filename).span(positions(code, lasti), opname_at(code, lasti))
        return None if span is None else span.line

    def _lines_of(self, filename: str) -> list[str]:
        try:
            linecache.checkcache(filename)  # a module that was edited and reloaded
            lines = linecache.getlines(filename)
        except Exception:
            lines = []
        # IPython cuts a cell's lines where Python does not: then the numbers mean those of the cell as it was typed.
        if filename == self._cell_file and (not lines or self._cut_wrongly):
            lines = [line + "\n" for line in self._cell_lines]
        return lines

    def _typed_line(self, source: SourceText, number: int) -> str | None:
        """The line as it was typed, where line numbers still mean the same after the transformations of IPython."""
        if len(self._cell_lines) != len(source.lines) or not 0 < number <= len(self._cell_lines):
            return None
        return self._cell_lines[number - 1].strip()


def opname_at(code: CodeType, lasti: int) -> str:
    """The instruction at an offset, empty where there is none."""
    bytecode = code.co_code
    while 0 <= lasti < len(bytecode):
        name = dis.opname[bytecode[lasti]]
        if name != "CACHE":
            return name
        lasti -= 2  # `lasti` may stand in the inline cache of the instruction
    return ""


def _function_name(code: CodeType) -> str:
    """``Block.forward``, ``f.<locals>.g``; comprehensions belong to the function around them."""
    name = code.co_qualname
    while name.rpartition(".")[2] in _COMPREHENSIONS:
        name = name.rpartition(".")[0].removesuffix(".<locals>")
    return name or "<module>"


_COMPREHENSIONS = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})


def positions(code: CodeType, lasti: int) -> tuple[int | None, int | None, int | None, int | None]:
    """``(line, end line, column, end column)`` of one instruction; columns in bytes of UTF-8."""
    return next(islice(code.co_positions(), max(lasti, 0) // 2, None), (code.co_firstlineno, None, None, None))
