"""The text of one source file, and which expression of it an instruction stands for."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

from jupyter_inplace._syntax import source_lines
from jupyter_inplace.record.source.masking import parsed

__all__ = ["SourceText", "Span", "joined"]

_COMPOUND = (
    ast.With,
    ast.AsyncWith,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.If,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Try,
    ast.TryStar,
    ast.Match,
)

_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")

#: Line, end line, column, end column, as `CodeType.co_positions` gives them: columns in bytes.
Position = tuple[int | None, int | None, int | None, int | None]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of source; lines count from 1, columns from 0 in characters."""

    line: int
    column: int | None
    end_line: int | None
    end_column: int | None
    text: str


class SourceText:
    """The lines of one file, parsed when first needed. Source that cannot be parsed has lines all the same."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self._tree: ast.Module | None = None
        self._broken = False

    @property
    def tree(self) -> ast.Module | None:
        """The syntax tree, IPython's lines masked; None where the source does not parse."""
        if self._tree is None and not self._broken:
            self._tree = parsed("".join(line if line.endswith("\n") else line + "\n" for line in self.lines))
            self._broken = self._tree is None
        return self._tree

    def line(self, number: int) -> str:
        """One line without its surrounding space, empty where there is no such line."""
        return self.lines[number - 1].strip() if 0 < number <= len(self.lines) else ""

    def span(self, position: Position, opname: str) -> Span | None:
        """The expression or statement that an instruction at `position` works for; None without a line number."""
        line, end_line, column, end_column = position
        if line is None:
            return None
        if end_line is None or column is None or end_column is None:  # python -X no_debug_ranges
            chain = list(self._around((line, 0), (line, 0), lines_only=True))
            statements = [node for node in chain if isinstance(node, ast.stmt)]
            return self._node_span(statements[-1]) if statements else Span(line, None, None, None, self.line(line))
        chain = list(self._around((line, column), (end_line, end_column)))
        node = _meant(chain, opname)
        if node is not None:
            return self._node_span(node)
        return self._raw_span(line, column, end_line, end_column)

    def node(self, position: Position, opname: str) -> ast.expr | ast.stmt | None:
        """The syntax of what `span` shows."""
        line, end_line, column, end_column = position
        if line is None or end_line is None or column is None or end_column is None:
            return None
        return _meant(list(self._around((line, column), (end_line, end_column))), opname)

    def statement(self, line: int, column: int, end_line: int, end_column: int) -> ast.stmt | None:
        """The innermost statement around a span in characters."""
        start, end = (line, self._bytes(line, column)), (end_line, self._bytes(end_line, end_column))
        statements = [node for node in self._around(start, end) if isinstance(node, ast.stmt)]
        return statements[-1] if statements else None

    def expression(self, line: int, column: int, end_line: int, end_column: int) -> ast.AST | None:
        """The innermost expression or statement around a span in characters."""
        start, end = (line, self._bytes(line, column)), (end_line, self._bytes(end_line, end_column))
        chain = [node for node in self._around(start, end) if isinstance(node, ast.expr | ast.stmt)]
        return chain[-1] if chain else None

    def _around(self, start: tuple[int, int], end: tuple[int, int], *, lines_only: bool = False) -> Iterator[ast.AST]:
        """The nodes that contain a range, outermost first."""
        node: ast.AST | None = self.tree
        while node is not None:
            yield node
            node = _child_around(node, start, end, lines_only=lines_only)

    def _node_span(self, node: ast.expr | ast.stmt) -> Span:
        line, column, end_line, end_column = node.lineno, node.col_offset, node.end_lineno, node.end_col_offset
        if isinstance(node, _COMPOUND):
            return self._header_span(node)
        if end_line is None or end_column is None:
            return Span(line, None, None, None, self.line(line))
        return self._raw_span(line, column, end_line, end_column)

    def _header_span(self, node: ast.stmt) -> Span:
        """``for x in xs`` without its block: from the keyword to the colon."""
        depth = 0
        lines = iter(self.lines[node.lineno - 1 : node.end_lineno])
        try:
            for token in tokenize.generate_tokens(lambda: next(lines, "")):
                if token.type != tokenize.OP:
                    continue
                depth += (token.string in _OPENING) - (token.string in _CLOSING)
                if token.string == ":" and depth == 0:
                    end_line, end = node.lineno + token.start[0] - 1, token.start[1]
                    return self._raw_span(node.lineno, node.col_offset, end_line, self._bytes(end_line, end))
        except (tokenize.TokenError, SyntaxError):
            pass
        return self._raw_span(node.lineno, node.col_offset, node.lineno, len(self.lines[node.lineno - 1].encode()))

    def _raw_span(self, line: int, column: int, end_line: int, end_column: int) -> Span:
        first, last = self._characters(line, column), self._characters(end_line, end_column)
        picked = self.lines[line - 1 : end_line]
        if not picked:
            return Span(line, first, end_line, last, "")
        picked[-1] = picked[-1][:last]
        picked[0] = picked[0][first:]
        return Span(line, first, end_line, last, joined("".join(picked)))

    def _characters(self, line: int, column: int) -> int:
        if not 0 < line <= len(self.lines):
            return column
        return len(self.lines[line - 1].encode()[:column].decode(errors="replace"))

    def _bytes(self, line: int, column: int) -> int:
        return len(self.lines[line - 1][:column].encode()) if 0 < line <= len(self.lines) else column


def joined(text: str) -> str:
    """An expression over several lines put on one, without its comments; text on one line stays as it is."""
    text = text.strip()
    if "\n" not in text:
        return text
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(f"({text}\n)").readline))[1:]
    except (tokenize.TokenError, SyntaxError, IndentationError):
        return " ".join(part.strip() for part in source_lines(text))
    out: list[str] = []
    previous: tokenize.TokenInfo | None = None
    for token in tokens:
        if token.type in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER):
            continue
        if previous is not None:
            if token.start[0] == previous.end[0]:
                out.append(" " * (token.start[1] - previous.end[1]))
            elif previous.string not in {"(", "[", "{", "."} and token.string not in {")", "]", "}", ",", "."}:
                out.append(" ")
        out.append(token.string)
        previous = token
    return "".join(out[:-1]).strip()  # the last token is our own bracket


def _meant(chain: list[ast.AST], opname: str) -> ast.expr | ast.stmt | None:
    """Of the nodes around an instruction, outermost first, the one that a person would point at."""
    nodes = [node for node in chain if isinstance(node, ast.expr | ast.stmt)]
    if not nodes:
        return None
    node = nodes[-1]
    above = nodes[-2] if len(nodes) > 1 else None
    if opname in {"GET_ITER", "FOR_ITER"} and isinstance(above, ast.For) and above.iter is node:
        return above
    stores = opname.startswith(("STORE_", "DELETE_", "UNPACK_", "BINARY_OP"))
    if stores and isinstance(getattr(node, "ctx", None), ast.Store | ast.Del):
        # The target of an assignment: what happens there is the assignment.
        statement = next(part for part in reversed(nodes) if isinstance(part, ast.stmt))
        if not isinstance(statement, _COMPOUND):
            return statement
        loop = next((part for part in reversed(nodes) if isinstance(part, ast.For | ast.AsyncFor)), None)
        return loop or node
    return node


def _child_around(node: ast.AST, start: tuple[int, int], end: tuple[int, int], *, lines_only: bool) -> ast.AST | None:
    """The child (or, through nodes without a position, the descendant) that contains a range."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr_context | ast.operator | ast.boolop | ast.unaryop | ast.cmpop):
            continue
        line = getattr(child, "lineno", None)
        end_line, end_column = getattr(child, "end_lineno", None), getattr(child, "end_col_offset", None)
        if line is None or end_line is None or end_column is None:
            inside = _child_around(child, start, end, lines_only=lines_only)
            if inside is not None:
                return inside
        elif lines_only:
            first = min([line, *(part.lineno for part in getattr(child, "decorator_list", ()))])
            if first <= start[0] and end[0] <= end_line:
                return child
        elif (line, child.col_offset) <= start and end <= (end_line, end_column):  # type: ignore[attr-defined]
            return child
        else:
            for part in getattr(child, "decorator_list", ()):  # a decorator stands before its function
                if (part.lineno, part.col_offset) <= start and end <= (part.end_lineno, part.end_col_offset):
                    return part  # type: ignore[no-any-return]
    return None
