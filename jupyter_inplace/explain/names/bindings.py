"""The statements that give the variables of a cell their values, read from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jupyter_inplace._syntax import unparse

__all__ = ["Binding", "find_bindings", "parts_of", "path_key", "prefixes", "root_of", "statement_of"]

_ADDING_METHODS = frozenset({"append", "extend", "insert", "update", "setdefault", "add", "appendleft"})


@dataclass(frozen=True, slots=True)
class Binding:
    """A statement that gives a variable (or something in it) a value; `value` is None if it is not a single expression.

    :param exact: the path itself is bound, not a container that it goes through.
    """

    statement: ast.AST
    value: ast.expr | None
    exact: bool
    augmented: bool = False


def find_bindings(parents: Mapping[ast.AST, ast.AST]) -> Iterator[tuple[str, Binding]]:
    """What the nodes of a syntax tree bind, by path.

    :param parents: the parent of each node.
    """
    for node in parents:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from _bound(target, node.value, node)
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            yield from _bound(node.target, node.value, node)
        elif isinstance(node, ast.AugAssign):
            yield path_key(node.target), Binding(node, node.value, exact=True, augmented=True)
        elif isinstance(node, ast.For | ast.AsyncFor):
            for part in parts_of(node.target):
                yield path_key(part), Binding(node, None, exact=True)
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            for part in parts_of(node.optional_vars):
                yield path_key(part), Binding(parents[node], None, exact=True)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in _ADDING_METHODS
            and (statement := statement_of(node, parents)) is not None
        ):
            yield path_key(node.func.value), Binding(statement, None, exact=False)


def statement_of(node: ast.AST, parents: Mapping[ast.AST, ast.AST]) -> ast.stmt | None:
    """The innermost statement around a node."""
    current: ast.AST | None = node
    while current is not None and not isinstance(current, ast.stmt):
        current = parents.get(current)
    return current


def path_key(node: ast.expr) -> str:
    """The path of a variable in a normal form, whatever its quotes and spaces."""
    return unparse(node)


def _bound(target: ast.expr, value: ast.expr, statement: ast.AST) -> Iterator[tuple[str, Binding]]:
    if isinstance(target, ast.Tuple | ast.List):
        values: Sequence[ast.expr | None] = [None] * len(target.elts)
        if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts):
            values = value.elts
        for part, item in zip(target.elts, values, strict=True):
            inner = part.value if isinstance(part, ast.Starred) else part
            if item is None:
                yield from ((path_key(name), Binding(statement, None, exact=True)) for name in parts_of(inner))
            else:
                yield from _bound(inner, item, statement)
        return
    yield path_key(target), Binding(statement, value, exact=True)
    if isinstance(target, ast.Subscript):
        yield path_key(target.value), Binding(statement, value, exact=False)


def parts_of(target: ast.expr) -> Iterator[ast.expr]:
    """The targets of an assignment, with tuples unpacked."""
    if isinstance(target, ast.Tuple | ast.List):
        for part in target.elts:
            yield from parts_of(part)
    else:
        yield target.value if isinstance(target, ast.Starred) else target


def prefixes(path: ast.expr) -> Iterator[str]:
    """The containers and objects that a path goes through, nearest first, without `self`."""
    while isinstance(path, ast.Attribute | ast.Subscript):
        path = path.value
        if not (isinstance(path, ast.Name) and path.id == "self"):
            yield path_key(path)


def root_of(path: ast.expr) -> str | None:
    """The variable that a path begins with, if any."""
    while isinstance(path, ast.Attribute | ast.Subscript):
        path = path.value
    return path.id if isinstance(path, ast.Name) else None
