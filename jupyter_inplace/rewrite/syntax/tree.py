"""The LibCST syntax tree of a source: nodes, their positions in the text, parents and children."""

from __future__ import annotations

import dataclasses
import warnings
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache, cached_property
from typing import TypeVar

import libcst as cst
from libcst.metadata import ByteSpanPositionProvider, CodeSpan, MetadataWrapper

from jupyter_inplace._syntax import parse

__all__ = ["RewriteError", "SyntaxTree"]

_COMMON = (cst.BaseExpression, cst.BaseSmallStatement, cst.BaseStatement, cst.Arg)
_UNIMPORTANT = (cst.BaseParenthesizableWhitespace, cst.TrailingWhitespace, cst.EmptyLine, cst.Comma, cst.Semicolon)
_Node = TypeVar("_Node", bound=cst.CSTNode)


class RewriteError(ValueError):
    """A cell cannot be rewritten; the message says why in one sentence."""


class SyntaxTree:
    """Parsed Python: each node with its position in the text, its ancestors and its descendants.

    :param text: Python source, top-level ``await`` allowed.
    :raises RewriteError: `text` is not Python.

    `nodes` are all nodes, in the order of the text.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the cell's warnings were shown when it ran
                self._syntax = parse(text)
            self.module = cst.parse_module(text)
            self._spans = MetadataWrapper(self.module, unsafe_skip_copy=True).resolve(ByteSpanPositionProvider)
            self.nodes = tuple(node for node in self._tree[0] if isinstance(node, _COMMON))
        except SyntaxError as error:
            line = text.split("\n")[(error.lineno or 1) - 1].strip() if text else ""
            raise RewriteError(f"Line {error.lineno} of the cell is no Python ({error.msg}): {line}") from None
        except (ValueError, RecursionError, cst.ParserSyntaxError) as error:
            reason = str(error).split("\n", maxsplit=1)[0]
            raise RewriteError(f"The cell cannot be parsed: {reason}.") from None
        self._starts = [0]
        for line in text.split("\n"):
            self._starts.append(self._starts[-1] + len(line) + 1)

    # Positions

    def span(self, node: cst.CSTNode) -> tuple[int, int]:
        """The range of `node`, without the parentheses around it."""
        found = self._spans[node]
        assert isinstance(found, CodeSpan)
        start, end = found.start, found.start + found.length
        return (start, end) if self._characters is None else (self._characters[start], self._characters[end])

    @cached_property
    def _characters(self) -> list[int] | None:
        """The character that each byte of the text belongs to; None if every character is one byte."""
        if self.text.isascii():
            return None
        found = [at for at, character in enumerate(self.text) for _ in character.encode()]
        return [*found, len(self.text)]

    def whole(self, node: cst.CSTNode) -> tuple[int, int]:
        """The range of `node`, with the parentheses around it."""
        start, end = self.span(node)
        if isinstance(node, cst.BaseExpression) and node.lpar:
            return self.span(node.lpar[0])[0], self.span(node.rpar[-1])[1]
        return start, end

    def offset(self, line: int, column: int) -> int:
        """The character at `column` (from 0) of `line` (from 1)."""
        return self._starts[line - 1] + column

    def line(self, node: cst.CSTNode) -> int:
        """The line on which `node` begins, from 1."""
        return bisect_right(self._starts, self.span(node)[0])

    # Relations

    def parent(self, node: cst.CSTNode) -> cst.CSTNode | None:
        """The parent of `node`."""
        return self._tree[2].get(node)

    def ancestors(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """The nodes around `node`, nearest first."""
        above = self.parent(node)
        while above is not None:
            yield above
            above = self.parent(above)

    def above(self, node: cst.CSTNode, kind: type[_Node] | tuple[type[_Node], ...]) -> _Node | None:
        """The nearest node of some type around `node`."""
        return next((found for found in self.ancestors(node) if isinstance(found, kind)), None)

    def within(self, outer: cst.CSTNode, kind: type[_Node]) -> Iterator[_Node]:
        """The nodes of some type at or below `outer`, in the order of the text."""
        order, parts, _ = self._tree
        first, last = parts[outer]
        for node in order[first:last]:
            if isinstance(node, kind):
                yield node

    @cached_property
    def _tree(self) -> tuple[list[cst.CSTNode], dict[cst.CSTNode, tuple[int, int]], dict[cst.CSTNode, cst.CSTNode]]:
        """All nodes in the order of the text, the part of that list at and below each node, and each node's parent.

        LibCST's own `children` and parent provider build new trees; this does not.
        """
        order: list[cst.CSTNode] = []
        parts: dict[cst.CSTNode, tuple[int, int]] = {}
        parents: dict[cst.CSTNode, cst.CSTNode] = {}

        def walk(node: cst.CSTNode) -> None:
            first = len(order)
            order.append(node)
            for child in sorted(_children(node), key=lambda child: self._spans[child].start):
                parents[child] = node
                walk(child)
            parts[node] = (first, len(order))

        walk(self.module)
        return order, parts, parents


@cache
def _fields(kind: type[cst.CSTNode]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def _children(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """The direct children of a node, without white space and punctuation."""
    for name in _fields(type(node)):
        value = getattr(node, name)
        for child in value if isinstance(value, list | tuple) else (value,):
            if isinstance(child, cst.CSTNode) and not isinstance(child, _UNIMPORTANT):
                yield child
