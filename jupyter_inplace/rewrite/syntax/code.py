"""A parsed cell: its statements and scopes, and the edits that can be made to it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property

import libcst as cst

from jupyter_inplace._syntax import parse
from jupyter_inplace.rewrite.syntax.edit import Edit
from jupyter_inplace.rewrite.syntax.scope import Scopes
from jupyter_inplace.rewrite.syntax.tree import SyntaxTree

__all__ = ["Code", "Item", "enclosed"]

#: An item of a block: a line of small statements, or a compound statement.
Item = cst.SimpleStatementLine | cst.BaseCompoundStatement
_ATOMS = (cst.Name, cst.Attribute, cst.Call, cst.Subscript, cst.Integer, cst.Float, cst.List, cst.Dict, cst.Set)


class Code(SyntaxTree):
    """A cell without its magics, parsed.

    :param text: Python source, top-level ``await`` allowed.
    :param taken: names that new variables must not have, in addition to those in `text`.
    :param typed: the cell as the user typed it, magics included; its lines correspond to those of `text`.
    :raises RewriteError: `text` is not Python.
    """

    def __init__(self, text: str, taken: Collection[str] = (), typed: str | None = None) -> None:
        super().__init__(text)
        self.typed = (typed or text).split("\n")
        self.known = frozenset(taken)
        self._taken = set(taken) | set(re.findall(r"\w+", text))

    # Text

    def get(self, node: cst.CSTNode) -> str:
        """The text of `node` with the parentheses around it, for places where it stands alone."""
        start, end = self.whole(node)
        return self.text[start:end]

    def operand(self, node: cst.BaseExpression) -> str:
        """The text of `node`, with parentheses if it needs them as an operand."""
        alone = bool(node.lpar) or isinstance(node, _ATOMS)
        return self.get(node) if alone else f"({self.get(node)})"

    def receiver(self, node: cst.BaseExpression) -> str:
        """The text of `node`, with parentheses if it needs them before a dot."""
        return f"({self.get(node)})" if isinstance(node, cst.Integer) else self.operand(node)

    def alone(self, node: cst.BaseExpression) -> str:
        """The text of `node`, with parentheses if it contains a line break outside brackets."""
        return enclosed(self.get(node))

    # Statements

    @cached_property
    def scopes(self) -> Scopes:
        """The scopes, with the names that they bind."""
        return Scopes(self._syntax, self.text)

    def small(self, node: cst.CSTNode) -> cst.BaseSmallStatement | None:
        """The small statement that is or contains `node`; None in the header of a compound one."""
        for found in (node, *self.ancestors(node)):
            if isinstance(found, cst.BaseSmallStatement):
                return found
            if isinstance(found, cst.BaseCompoundStatement | cst.BaseSuite):
                return None
        return None

    def item(self, node: cst.CSTNode) -> Item:
        """The nearest item of a block that is or contains `node`."""
        for found in (node, *self.ancestors(node)):
            if isinstance(found, cst.SimpleStatementLine | cst.BaseCompoundStatement):
                return found
        raise ValueError("this node stands in no statement")

    def items(self, node: cst.CSTNode) -> list[Item]:
        """The items around `node` from the innermost outward, up to the function (or cell) that contains it."""
        found: list[Item] = []
        for step in (node, *self.ancestors(node)):
            if isinstance(step, cst.FunctionDef | cst.ClassDef) and step is not node:
                break
            if isinstance(step, cst.SimpleStatementLine | cst.BaseCompoundStatement):
                found.append(step)
        return found

    def block(self, item: Item) -> Sequence[cst.BaseStatement]:
        """The items of the block that contains `item`."""
        owner = self.parent(item)
        return owner.body if isinstance(owner, cst.Module | cst.IndentedBlock) else [item]

    def after(self, item: Item) -> list[Item]:
        """The items below `item` in its block."""
        block = list(self.block(item))
        rest = block[next(i for i, found in enumerate(block) if found is item) + 1 :]
        return [found for found in rest if isinstance(found, cst.SimpleStatementLine | cst.BaseCompoundStatement)]

    def before(self, item: Item) -> list[Item]:
        """The items above `item` in its block, nearest first."""
        block = list(self.block(item))
        rest = block[: next(i for i, found in enumerate(block) if found is item)]
        return [
            found for found in reversed(rest) if isinstance(found, cst.SimpleStatementLine | cst.BaseCompoundStatement)
        ]

    def function(self, node: cst.CSTNode) -> cst.FunctionDef | None:
        """The nearest ``def`` around `node`."""
        return self.above(node, cst.FunctionDef)

    # New text

    def indent(self, item: cst.CSTNode) -> str:
        """The white space before the first line of an item."""
        start = self._starts[self.line(item) - 1]
        found = re.match(r"[ \t]*", self.text[start:])
        return found[0] if found else ""

    def fresh(self, wish: str) -> str:
        """An unused name like `wish`."""
        name, count = wish, 2
        while name in self._taken:
            name, count = f"{wish}{count}", count + 1
        return name

    def first_line(self, item: Item) -> int:
        """The character at which the first line of `item` (its first decorator) begins."""
        top: cst.CSTNode = item
        if isinstance(item, cst.FunctionDef | cst.ClassDef) and item.decorators:
            top = item.decorators[0]
        return self._starts[self.line(top) - 1]

    def last_line(self, item: cst.CSTNode) -> int:
        """The character after the last line of `item`, including its comment and line break."""
        end = self.text.find("\n", self.span(item)[1])
        return len(self.text) if end < 0 else end + 1

    def replace(self, node: cst.CSTNode, text: str) -> Edit:
        """Replace `node` with `text`; parentheses around it stay."""
        return Edit(*self.span(node), text)

    def append(self, node: cst.BaseExpression, suffix: str) -> list[Edit]:
        """Insert `suffix` (``.clone()``) after an expression, with parentheses if it needs them."""
        start, end = self.whole(node)
        if self.receiver(node) == self.get(node):
            return [Edit(end, end, suffix)]
        return [Edit(start, start, "("), Edit(end, end, f"){suffix}")]

    def insert_before(self, item: Item, *lines: str) -> Edit:
        """Insert lines above `item`, indented like it."""
        at = self.first_line(item)
        return Edit(at, at, "".join(f"{self.indent(item)}{line}\n" for line in lines))

    def insert_after(self, item: Item, *lines: str) -> Edit:
        """Insert lines below `item`, indented like it."""
        at = self.last_line(item)
        new = "".join(f"{self.indent(item)}{line}\n" for line in lines)
        if self.text[at - 1 : at] != "\n":
            new = "\n" + new.removesuffix("\n")
        return Edit(at, at, new)

    def replace_small(self, small: cst.BaseSmallStatement, *statements: str) -> Edit:
        """Replace a statement with new ones, on one line if it shares its line with others."""
        owner = self.parent(small)
        shares = not isinstance(owner, cst.SimpleStatementLine) or len(owner.body) > 1
        joint = "; " if shares else "\n" + self.indent(small)
        return self.replace(small, joint.join(statements))

    def nest(self, small: cst.BaseSmallStatement, header: str, statement: str | None = None) -> Edit:
        """Put one small statement (or `statement` in its place) under its own ``with`` header."""
        owner = self.parent(small)
        assert isinstance(owner, cst.SimpleStatementLine | cst.SimpleStatementSuite)
        unit = self.module.default_indent
        indent = self.indent(owner) + (unit if isinstance(owner, cst.SimpleStatementSuite) else "")
        at = next(i for i, found in enumerate(owner.body) if found is small)
        start, end = self.span(small)
        rest = self.text.find("\n", start, end) + 1 or end
        text = statement or self.text[start:rest] + self.reindent(rest, end, self.indent(owner), indent + unit)
        parts = [
            "; ".join(self.get(other) for other in owner.body[:at]),
            f"{header}\n{indent}{unit}{text}",
            "; ".join(self.get(other) for other in owner.body[at + 1 :]),
        ]
        start, end = self.span(owner.body[0])[0], self.span(owner.body[-1])[1]
        new = f"\n{indent}".join(part for part in parts if part)
        if isinstance(owner, cst.SimpleStatementSuite):
            start = len(self.text[:start].rstrip(" \t"))
            new = f"\n{indent}{new}"
        return Edit(start, end, new)

    def top(self, *lines: str) -> Edit:
        """Insert lines at the top of the cell, below its magics, docstring and ``from __future__`` imports."""
        magics = [number for number, line in enumerate(self.typed, 1) if line.startswith("%%")]
        at = min(self._starts[magics[-1]], len(self.text)) if magics else 0
        for item in self.module.body:
            if not _stays_first(item):
                break
            at = self.last_line(item)
        if at and self.text[at - 1] != "\n":
            return Edit(at, at, "".join(f"\n{line}" for line in lines))
        return Edit(at, at, "".join(f"{line}\n" for line in lines))

    @cached_property
    def torch(self) -> str:
        """The name under which the cell imports torch."""
        return self.scopes.imported("torch") or "torch"

    def imports(self, edits: Iterable[Edit]) -> list[Edit]:
        """The edit that imports torch if `edits` use it and neither the cell nor its namespace has it."""
        known = self.scopes.imported("torch") or "torch" in self.known or re.search(r"\btorch\.", self.text)
        used = any(re.search(rf"\b{self.torch}\.", edit.text) for edit in edits)
        return [self.top("import torch")] if used and not known else []

    def lines(self, first: Item, last: Item) -> tuple[int, int]:
        """The range of characters of the whole lines from `first` to `last`."""
        return self.first_line(first), self.last_line(last)

    def string_lines(self, start: int, end: int) -> set[int]:
        """The starts of the lines between two characters that begin inside a string and must not be indented."""
        inside: set[int] = set()
        for node in self.nodes:
            if isinstance(node, cst.SimpleString | cst.FormattedString):
                s, e = self.span(node)
                inside.update(at for at in self._starts if s < at <= e and start <= at < end)
        return inside

    def reindent(self, start: int, end: int, old: str, new: str) -> str:
        """The lines from `start` to `end` with indentation `new` instead of `old`; lines inside strings stay."""
        inside = self.string_lines(start, end)
        out: list[str] = []
        at = start
        for line in re.findall(r"[^\n]*\n|[^\n]+", self.text[start:end]):
            movable = at not in inside and line.strip() and line.startswith(old)
            out.append(new + line[len(old) :] if movable else line)
            at += len(line)
        return "".join(out)


def enclosed(text: str) -> str:
    """An expression, with parentheses if its line breaks would end it."""
    if "\n" not in text:
        return text
    try:
        parse(text.strip(), mode="eval")
    except SyntaxError:
        return f"({text})"
    return text


def _stays_first(item: cst.CSTNode) -> bool:
    """Whether it is a docstring or a ``__future__`` import."""
    if not isinstance(item, cst.SimpleStatementLine) or len(item.body) != 1:
        return False
    only = item.body[0]
    if isinstance(only, cst.Expr):
        return isinstance(only.value, cst.SimpleString)
    return isinstance(only, cst.ImportFrom) and isinstance(only.module, cst.Name) and only.module.value == "__future__"
