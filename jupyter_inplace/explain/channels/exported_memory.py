"""Finds the statement that made an external write, between the two expressions that bracket it."""

from __future__ import annotations

import ast
import dataclasses
import linecache
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import torch

from jupyter_inplace._syntax import parse, source_lines
from jupyter_inplace.record.source.resolver import SiteResolver
from jupyter_inplace.report.data import Site


@dataclasses.dataclass
class ExternalSite:
    """Where an external write happened, as closely as is known.

    `name` is that of the outside object, if one was found; `exact` says whether `site` is the statement itself.
    """

    site: Site | None
    name: str | None
    note: str
    exact: bool = False


def locate(
    write: Any, resolver: SiteResolver, spaces: Iterable[Mapping[str, Any]], cell_source: str | None
) -> ExternalSite:
    """The statement of the write if exactly one between the brackets can have made it, else the bracket in words."""
    before = resolver.resolve(write.bracket.before) if write.bracket.before is not None else None
    after = resolver.resolve(write.bracket.after) if write.bracket.after is not None else None
    aliases = dict(_aliases(spaces, write.bracket.pointer, write.bracket.size))
    between = _between(before, after)
    anchor = before or after
    candidates: list[tuple[ast.stmt, str]] = []
    brackets = (None if write.bracket.opened_by_exit else before, after)
    if anchor is not None:
        code = write.bracket.before or write.bracket.after
        tree = _tree(code, anchor, cell_source)
        low = before.line if before is not None else 1
        high = after.line if after is not None else 1 << 30
        if (
            before is not None
            and after is not None
            and (before.file != after.file or before.function != after.function or low > high)
        ):
            low, high = _loop_lines(tree, before) or _function_lines(tree, before)
        between_them = [
            s for s in _simple_statements(tree) if low <= s.lineno <= high and not _is_one_of(s, brackets, low, high)
        ]
        # The first that assigns into the memory did so, whatever the others did. In a loop, the lines above run again.
        loop = _loop_lines(tree, before) if before is not None and low == high else None
        around = [s for s in _simple_statements(tree) if loop is not None and loop[0] <= s.lineno <= loop[1]]
        candidates = (
            _named(between_them, aliases, _stores_into)[:1]
            or _named(around, aliases, _stores_into)[:1]
            or _within_functions(tree, aliases)
            or _named(between_them, aliases, _writes_to)
        )
        if not candidates and not aliases:
            candidates = [
                (s, "")
                for s in _simple_statements(tree)
                if low <= s.lineno <= high
                and not _is_one_of(s, brackets, low, high)
                and isinstance(s, (ast.Assign, ast.AugAssign, ast.Expr))
                and not isinstance(getattr(s, "value", None), ast.Constant)
            ]
    if len(candidates) == 1:
        statement, written = candidates[0]
        return ExternalSite(_site_of(statement, anchor, code, cell_source), written or None, between, exact=True)
    return ExternalSite(before or after, next(iter(aliases), None), between)


def _between(before: Site | None, after: Site | None) -> str:
    first = f"after {before.text} (line {before.line})" if before is not None else "after the watch began"
    last = f"before {after.text} (line {after.line})" if after is not None else "before the watch ended"
    return f"written from outside of torch, {first} and {last}"


def _aliases(spaces: Iterable[Mapping[str, Any]], pointer: int, size: int) -> Iterator[tuple[str, Any]]:
    """Names of numpy arrays over the memory."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return
    for space in spaces:
        for name, value in list(space.items()):
            for path, item in _items(name, value):
                if isinstance(item, numpy.ndarray) and item.nbytes:
                    low, high = (
                        numpy.lib.array_utils.byte_bounds(item)
                        if hasattr(numpy.lib, "array_utils")
                        else numpy.byte_bounds(item)
                    )
                    if low < pointer + size and pointer < high:
                        yield path, item


def _items(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    yield name, value
    if hasattr(value, "__dict__") and not isinstance(value, (type, ModuleType, torch.nn.Module)):
        for key, item in list(vars(value).items())[:200]:
            yield f"{name}.{key}", item
    if isinstance(value, dict):
        for key, item in list(value.items())[:200]:
            yield f"{name}[{key!r}]", item
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value[:200]):
            yield f"{name}[{i}]", item


def _lines(code: Any, cell_source: str | None, anchor: Site) -> list[str]:
    lines = linecache.getlines(code[0].code.co_filename)
    if not lines and cell_source is not None and anchor.cell_line is not None:
        lines = source_lines(cell_source, keepends=True)
    return lines


def _tree(code: Any, anchor: Site, cell_source: str | None) -> ast.Module:
    try:
        tree: ast.Module = parse("".join(_lines(code, cell_source, anchor)))
        return tree
    except SyntaxError:
        return ast.Module([], [])


def _simple_statements(tree: ast.AST) -> list[ast.stmt]:
    found = [node for node in ast.walk(tree) if isinstance(node, (ast.Assign, ast.AugAssign, ast.Expr, ast.AnnAssign))]
    return sorted(found, key=lambda node: (node.lineno, node.col_offset))


def _function_lines(tree: ast.Module, before: Site) -> tuple[int, int]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.lineno <= before.line <= (
            node.end_lineno or 0
        ):
            return node.lineno, node.end_lineno or node.lineno
    return 1, 1 << 30


def _is_one_of(statement: ast.stmt, sites: Iterable[Site | None], low: int, high: int) -> bool:
    """Whether the statement is one of the brackets, which were torch operations."""
    end = statement.end_lineno or statement.lineno
    return any(site is not None and statement.lineno <= site.line <= end and low != high for site in sites)


def _named(
    statements: Iterable[ast.stmt],
    aliases: Mapping[str, Any],
    name_of: Callable[[ast.stmt, Mapping[str, Any]], str | None],
) -> list[tuple[ast.stmt, str]]:
    return [(statement, name) for statement in statements if (name := name_of(statement, aliases)) is not None]


def _loop_lines(tree: ast.Module, before: Site) -> tuple[int, int] | None:
    """The lines of the innermost loop around a place."""
    loops = [
        (node.lineno, node.end_lineno or node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, (ast.For, ast.AsyncFor, ast.While)) and node.lineno <= before.line <= (node.end_lineno or 0)
    ]
    return max(loops, default=None)


def _writes_to(statement: ast.stmt, aliases: Mapping[str, Any]) -> str | None:
    """The name through which a statement may write to the memory, as it is spelled there."""
    stored = _stores_into(statement, aliases)
    if stored is not None:
        return stored
    value = getattr(statement, "value", None)
    if not isinstance(value, ast.Call):
        return None
    targets = [value.func.value] if isinstance(value.func, ast.Attribute) else []
    targets += [*value.args, *(keyword.value for keyword in value.keywords if keyword.arg in ("out", "dst"))]
    roots = _roots(aliases)
    return next((n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name) and n.id in roots), None)


def _stores_into(statement: ast.stmt, aliases: Mapping[str, Any]) -> str | None:
    """The same, if the statement is an assignment into the memory: `a[i] = v`, `a += v`, `self.a += v`."""
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = [t for t in statement.targets if isinstance(t, (ast.Subscript, ast.Attribute))]
    elif isinstance(statement, ast.AugAssign):
        targets = [statement.target]
    roots = _roots(aliases)
    attributes = {path.rpartition(".")[2]: path for path in aliases if "." in path}
    for target in targets:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and node.id in roots:
                return node.id
            # `self.a = v` binds another array; `self.a[i] = v` and `self.a += v` change this one.
            bound = node is target and isinstance(statement, ast.Assign)
            if isinstance(node, ast.Attribute) and node.attr in attributes and not bound:
                return attributes[node.attr]
    return None


def _within_functions(tree: ast.Module, aliases: Mapping[str, Any]) -> list[tuple[ast.stmt, str]]:
    """The statements in functions and methods that assign into the memory: a call between the brackets may run them."""
    attributes = {path: value for path, value in aliases.items() if "." in path}
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    inside = dict.fromkeys(statement for function in functions for statement in _simple_statements(function))
    found = _named(inside, attributes, _stores_into)
    return found if len(found) == 1 else []


def _roots(aliases: Mapping[str, Any]) -> set[str]:
    return {re.split(r"[.\[]", name, maxsplit=1)[0] for name in aliases if "." not in name}


def _around(tree: ast.Module, statement: ast.stmt) -> str | None:
    """The qualified name of the function around a statement; None outside functions."""
    path: list[str] = []
    function = None
    scopes = [
        node
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        and node.lineno <= statement.lineno <= (node.end_lineno or 0)
    ]
    for scope in sorted(scopes, key=lambda node: node.lineno):
        path.append(scope.name)
        if not isinstance(scope, ast.ClassDef):
            function = ".".join(path)
            path.append("<locals>")
    return function


def _site_of(statement: ast.stmt, anchor: Site | None, code: Any, cell_source: str | None) -> Site | None:
    if anchor is None:
        return None
    lines = _lines(code, cell_source, anchor)
    text = ast.get_source_segment("".join(lines), statement) or ""
    line_text = lines[statement.lineno - 1].strip() if statement.lineno <= len(lines) else text
    around = _around(parse("".join(lines)), statement)
    return dataclasses.replace(
        anchor,
        function=around if around is not None else anchor.function,
        line=statement.lineno,
        column=statement.col_offset,
        end_line=statement.end_lineno,
        end_column=statement.end_col_offset,
        text=text,
        line_text=line_text,
        cell_line=statement.lineno if anchor.cell_line is not None else None,
    )
