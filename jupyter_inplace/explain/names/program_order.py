"""Which statements of a cell run at or after the one that stopped it, read from its source."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from jupyter_inplace.explain.names.cell_code import LOOPS, CellCode

__all__ = ["StoppedCell"]


class StoppedCell:
    """A cell that an exception stopped.

    :param lines: the cell's lines on the stack when it stopped, outermost first; or only the innermost one.
    """

    def __init__(self, code: CellCode, lines: Sequence[int]) -> None:
        self._code = code
        self._stack = self._frames(lines)

    def runs_after(self, node: ast.AST) -> bool:
        """Whether a statement runs at or after the one that stopped the cell."""
        return bool(self._stack) and self._after(node, set())

    def _frames(self, lines: Sequence[int]) -> list[ast.stmt]:
        """The active statements when the cell stopped, from the top-level one inward."""
        statements = [statement for line in lines if (statement := self._code.statement_at(line)) is not None]
        while statements and self._code.top_index(statements[0]) is None:
            outer = statements.pop(0)
            if not statements:
                return self._chain(outer)
        return statements

    def _chain(self, statement: ast.stmt) -> list[ast.stmt]:
        """How the cell first reached a statement inside a function: each calling statement, outermost first."""
        chains: list[tuple[int, list[ast.stmt]]] = []
        waiting: list[list[ast.stmt]] = [[statement]]
        seen: set[int] = set()
        while waiting:
            chain = waiting.pop(0)
            index = self._code.top_index(chain[0])
            if index is not None:
                chains.append((index, chain))
                continue
            function = self._code.scope_of(chain[0])
            if function is None or id(function) in seen:
                continue
            seen.add(id(function))
            callers = (self._code.statement_of(call) for call in self._code.calls(function))
            waiting += [[caller, *chain] for caller in callers if caller is not None]
        if chains:
            return min(chains, key=lambda entry: entry[0])[1]
        # No visible call: anything after its definition may call it.
        outer = self._code.scope_of(statement)
        while outer is not None and self._code.top_index(outer) is None:
            outer = self._code.scope_of(outer)
        return [] if outer is None else [outer, statement]

    def _after(self, node: ast.AST, seen: set[int]) -> bool:
        todo = [node]
        while todo:
            after, callers = self._after_or_called(todo.pop(), seen)
            if after:
                return True
            todo += callers
        return False

    def _after_or_called(self, node: ast.AST, seen: set[int]) -> tuple[bool, list[ast.AST]]:
        """Whether a node comes after the stop in its own function; and if not, the statements that call that function."""
        frames = self._stack
        scope = self._code.scope_of(node)
        if scope is self._code.top_scope and self._code.top_index(node) is None:
            return False, []
        under_way = {id(self._code.scope_of(frame)) for frame in frames}
        for frame in frames:
            if self._code.scope_of(frame) is scope and self._follows(node, frame):
                return True, []
        if scope is None or scope is self._code.top_scope or id(scope) in seen:
            return False, []
        seen.add(id(scope))
        callers: list[ast.AST] = []
        for call in self._code.calls(scope):
            statement = self._code.statement_of(call)
            if statement is None:
                continue
            current = id(scope) in under_way and any(statement is frame for frame in frames)
            if current and not self._code.in_loop(statement):
                continue  # this call itself was active
            callers.append(statement)
        return False, callers

    def _follows(self, node: ast.AST, stopped: ast.stmt) -> bool:
        """Whether, within one function, a statement comes at or after the stopped one."""
        left, right = self._lineage(node), self._lineage(stopped)
        depth = 0
        while depth < min(len(left), len(right)) and left[depth] is right[depth]:
            depth += 1
        if any(isinstance(shared, LOOPS) for shared in left[:depth]):
            return True  # the next iteration of the loop
        if depth in (len(left), len(right)):
            return True  # the statement itself, one around it, or one inside it
        shared = left[depth - 1]
        if isinstance(shared, ast.If | ast.Match) and _branch(shared, left[depth]) != _branch(shared, right[depth]):
            return False
        a, b = left[depth], right[depth]
        return (getattr(a, "lineno", 0), getattr(a, "col_offset", 0)) >= (b.lineno, b.col_offset)  # type: ignore[attr-defined]

    def _lineage(self, node: ast.AST) -> list[ast.AST]:
        """The statement of a node and those around it up to its function, outermost first."""
        scope = self._code.scope_of(node)
        found: list[ast.AST] = []
        current: ast.AST | None = node
        while current is not None and current is not scope:
            if isinstance(current, ast.stmt | ast.ExceptHandler | ast.match_case):
                found.insert(0, current)
            current = self._code.parent(current)
        root: ast.AST = scope if scope is not None else self._code.tree
        return [root, *found]


def _branch(node: ast.AST, child: ast.AST) -> int:
    """Which branch of an ``if`` or ``match`` a child belongs to."""
    if isinstance(node, ast.Match):
        return next((index for index, case in enumerate(node.cases) if case is child), -1)
    if isinstance(node, ast.If):
        return 0 if child in node.body else 1 if child in node.orelse else -1
    return -1
