"""The tasks of a cell according to its source, for cells that stopped before their backward calls could be observed.

A task is a root of ``backward()`` or ``autograd.grad()``. A root that is a sum is split as its graph would be: an unnamed
sum into its addends, a named one only if two or more of its addends are variables of the cell too.
"""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from jupyter_inplace.explain.names.cell_code import CellCode
from jupyter_inplace.explain.names.program_order import StoppedCell
from jupyter_inplace.explain.names.roots import Roots
from jupyter_inplace.record.source.masking import parsed

__all__ = ["BlockSource", "StaticTask", "static_tasks", "tasks_after", "with_block_source"]


@dataclass(frozen=True, slots=True)
class StaticTask:
    """A task found in the source.

    :param name: the variable as typed, or the expression if no variable holds it.
    :param lines: the lines of the top-level statements during which its value is computed.
    :param statements: the indices of these statements.
    :param assigned_lines: the lines that assign it, also inside functions.
    :param backward_lines: the lines of the calls of which it is a root.
    """

    name: str
    lines: tuple[int, ...]
    statements: tuple[int, ...]
    assigned_lines: tuple[int, ...]
    backward_lines: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BlockSource:
    """The body of a ``with`` block: the whole file's source, and the first and last line of the body in it."""

    file: str
    source: str
    lines: tuple[int, int]


def static_tasks(source: str | BlockSource) -> tuple[StaticTask, ...]:
    """The tasks of a cell (or ``with`` block) in the order of their backward calls; none if it is not Python."""
    return tuple(task.public for task in _read(*_split(source))[1])


def tasks_after(source: str | BlockSource, tasks: Sequence[StaticTask], line: int | Sequence[int]) -> tuple[str, ...]:
    """The names of the tasks that the cell computes at or after the statement where it stopped.

    In a loop, the lines above run again and count; in straight-line code, also of a function, they do not.

    :param line: the line where the cell stopped; or the lines of all its frames on the stack, outermost first, which
        distinguishes two calls of one function.
    """
    code, found = _read(*_split(source))
    if code is None:
        return ()
    lines = (line,) if isinstance(line, int) else tuple(line)
    stopped = StoppedCell(code, lines)
    late = {task.public.name for task in found if any(map(stopped.runs_after, task.computed))}
    return tuple(task.name for task in tasks if task.name in late)


def with_block_source(file: str, line: int) -> BlockSource | None:
    """The ``with`` block that the statement at a line opens, None if its source cannot be read."""
    source = "".join(linecache.getlines(file))
    tree = parsed(source)
    if tree is None:
        return None
    best: ast.With | ast.AsyncWith | None = None
    for node in ast.walk(tree):
        if isinstance(node, ast.With | ast.AsyncWith):
            header_end = max(item.context_expr.end_lineno or 0 for item in node.items)
            if node.lineno <= line <= header_end and (best is None or node.lineno >= best.lineno):
                best = node
    if best is None:
        return None
    return BlockSource(file, source, (best.body[0].lineno, best.body[-1].end_lineno or best.body[-1].lineno))


@dataclass(frozen=True, slots=True)
class _Task:
    public: StaticTask
    computed: tuple[ast.AST, ...]


def _split(source: str | BlockSource) -> tuple[str, tuple[int, int] | None]:
    return (source, None) if isinstance(source, str) else (source.source, source.lines)


@lru_cache(maxsize=4)
def _read(source: str, block: tuple[int, int] | None) -> tuple[CellCode | None, tuple[_Task, ...]]:
    if "backward" not in source and "grad" not in source:
        return None, ()
    code = CellCode.read(source, block)
    return code, () if code is None else tuple(_tasks(code))


def _tasks(code: CellCode) -> Iterator[_Task]:
    computed: dict[str, dict[int, ast.AST]] = {}
    backward: dict[str, list[int]] = {}
    names: dict[str, str] = {}
    roots = Roots(code)
    calls = [node for node in ast.walk(code.tree) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda node: (node.end_lineno or 0, node.end_col_offset or 0)):
        if not _runs(code, call):
            continue
        for root in roots.of(call):
            key = root.name.replace('"', "'")
            names.setdefault(key, root.name)
            computed.setdefault(key, {}).update({id(node): node for node in root.computed})
            backward.setdefault(key, []).append(call.lineno)
    for key, name in names.items():
        nodes = tuple(computed[key].values())
        statements = sorted({index for node in nodes for index in code.top_indices(node)})
        lines = {
            line
            for node in nodes
            for line in (
                [_line(node)]
                if code.top_index(node) is not None
                else [code.top[index].lineno for index in code.top_indices(node)]
            )
        }
        assigned = sorted({_line(node) for node in nodes})
        public = StaticTask(
            name, tuple(sorted(lines)), tuple(statements), tuple(assigned), tuple(dict.fromkeys(backward[key]))
        )
        yield _Task(public, nodes)


def _runs(code: CellCode, call: ast.Call) -> bool:
    """Whether the cell may reach a call: in its top-level statements, methods, or functions that something refers to."""
    scope = code.scope_of(call)
    if scope is code.top_scope:
        return code.top_index(call) is not None
    if code.top_indices(call):
        return True
    return scope is not None and code.class_of(scope) is not None and _asked_for(code, scope.name)


def _asked_for(code: CellCode, method: str, seen: frozenset[str] = frozenset()) -> bool:
    """Whether the cell (or the block) names a method, or Python and torch call it by themselves."""
    if method == "forward" or (method.startswith("__") and method.endswith("__")):
        return True
    for node in ast.walk(code.tree):
        if not isinstance(node, ast.Attribute) or node.attr != method:
            continue
        if code.top_index(node) is not None or code.top_indices(node):
            return True
        owner = code.scope_of(node)
        if owner is None or owner.name in seen or code.class_of(owner) is None:
            continue
        if _asked_for(code, owner.name, seen | {method, owner.name}):
            return True
    return False


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0))
