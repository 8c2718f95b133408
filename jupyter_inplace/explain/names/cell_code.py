"""The order of a cell's code, read from its source: who calls what, and what comes after a statement."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jupyter_inplace.record.source.masking import masked, parsed

__all__ = ["CellCode", "Function", "path_key"]

#: A function or method; None stands for the cell's own statements.
Function = ast.FunctionDef | ast.AsyncFunctionDef
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_ADDING_METHODS = frozenset({"append", "extend", "insert", "update", "setdefault", "add", "appendleft"})


@dataclass(frozen=True, slots=True)
class Binding:
    """A statement that gives a variable (or something in it) a value; `value` is None where it is not one expression.

    :param exact: the path itself is bound, not the container around it.
    """

    statement: ast.AST
    value: ast.expr | None
    exact: bool
    augmented: bool = False


class CellCode:
    """The statements, functions and calls of a cell, or of a ``with`` block inside of a file.

    :param block: the first and last line of the ``with`` block's body; None where all of `source` is the cell.
    """

    def __init__(self, tree: ast.Module, source: str, block: tuple[int, int] | None = None) -> None:
        self.source = source
        self.tree = tree
        self._parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        self.top, self.top_scope = self._find_top(block)
        self._top_index = {id(statement): index for index, statement in enumerate(self.top)}
        self.functions = [node for node in self._parents if isinstance(node, Function)]
        self._calls: dict[int, list[ast.AST]] = {}
        self._loads = self._find_loads()
        self._bindings: dict[str, list[Binding]] = {}
        for target, binding in self._find_bindings():
            self._bindings.setdefault(target, []).append(binding)

    @classmethod
    def read(cls, source: str, block: tuple[int, int] | None = None) -> CellCode | None:
        """None where the source is no Python."""
        tree = parsed(source)
        return None if tree is None else cls(tree, masked(source), block)

    # Where things stand

    def scope_of(self, node: ast.AST) -> Function | None:
        """The function whose body a node belongs to."""
        child, parent = node, self._parents.get(node)
        while parent is not None:
            if isinstance(parent, Function) and child in parent.body:
                return parent
            child, parent = parent, self._parents.get(parent)
        return None

    def class_of(self, function: Function) -> ast.ClassDef | None:
        """The class that a function is a method of."""
        parent = self._parents.get(function)
        return parent if isinstance(parent, ast.ClassDef) else None

    def statement_of(self, node: ast.AST) -> ast.stmt | None:
        """The innermost statement around a node."""
        current: ast.AST | None = node
        while current is not None and not isinstance(current, ast.stmt):
            current = self._parents.get(current)
        return current

    def statement_at(self, line: int) -> ast.stmt | None:
        """The innermost statement that covers a line."""
        found: ast.stmt | None = None
        for node in ast.walk(self.tree):
            if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno):
                size = (node.end_lineno or node.lineno) - node.lineno
                if found is None or size <= (found.end_lineno or found.lineno) - found.lineno:
                    found = node
        return found

    def top_index(self, node: ast.AST) -> int | None:
        """Which of the cell's own statements a node stands in; None for the body of a function."""
        if self.scope_of(node) is not self.top_scope:
            return None
        current: ast.AST | None = node
        while current is not None and id(current) not in self._top_index:
            current = self._parents.get(current)
        return None if current is None else self._top_index[id(current)]

    def top_indices(self, node: ast.AST) -> set[int]:
        """The cell's own statements during which a node runs: its own, or those that call the functions around it."""
        found: set[int] = set()
        seen: set[int] = set()
        waiting: list[ast.AST] = [node]
        while waiting:
            current = waiting.pop()
            index = self.top_index(current)
            function = self.scope_of(current)
            if index is not None:
                found.add(index)
            elif function is not None and id(function) not in seen:
                seen.add(id(function))
                waiting += self.calls(function)
        return found

    def in_loop(self, node: ast.AST) -> bool:
        """Whether a loop of the same function goes round a node."""
        scope, current = self.scope_of(node), self._parents.get(node)
        while current is not None and current is not scope:
            if isinstance(current, _LOOPS):
                return True
            current = self._parents.get(current)
        return False

    def calls(self, function: Function) -> list[ast.AST]:
        """Where a function is called, or handed on to be called."""
        found = self._calls.get(id(function))
        if found is None:
            found = self._calls[id(function)] = list(self._find_calls(function))
        return found

    # Variables

    def bindings(self, path: ast.expr, scope: Function | None) -> list[Binding]:
        """What gives a variable its value, in program order; where only its container is bound, that."""
        key = path_key(path)
        home = self.home_of(path, scope)
        owner = self.class_of(scope) if scope is not None and key.startswith("self.") else None

        def visible(binding: Binding) -> bool:
            where = self.scope_of(binding.statement)
            if where is home:
                return where is not self.top_scope or self.top_index(binding.statement) is not None
            return owner is not None and where is not None and self.class_of(where) is owner

        own = [binding for binding in self._bindings.get(key, ()) if visible(binding)]
        if own:
            return own
        return [binding for prefix in _prefixes(path) for binding in self._bindings.get(prefix, ()) if visible(binding)]

    def parameter(self, path: ast.expr, scope: Function | None) -> int | None:
        """The position of the parameter that a path begins with, None where it is no parameter."""
        name = _root(path)
        if scope is None or name is None or self._binds(scope, name):
            return None
        names = [arg.arg for arg in (*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs)]
        return names.index(name) if name in names else None

    def argument(self, call: ast.AST, function: Function, position: int) -> ast.expr | None:
        """What a call hands to a parameter."""
        node = self._parents.get(call)
        if not isinstance(node, ast.Call) or node.func is not call:
            return None
        names = [arg.arg for arg in (*function.args.posonlyargs, *function.args.args)]
        for keyword in node.keywords:
            if position < len(names) and keyword.arg == names[position]:
                return keyword.value
        static = any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in function.decorator_list)
        bound = self.class_of(function) is not None and not static
        index = position - 1 if bound else position
        if not 0 <= index < len(node.args) or any(isinstance(arg, ast.Starred) for arg in node.args[: index + 1]):
            return None
        return node.args[index]

    def home_of(self, path: ast.expr, scope: Function | None) -> Function | None:
        """The function whose variable a path begins with; the cell's own scope where no function binds it."""
        name = _root(path)
        while scope is not None and scope is not self.top_scope and name is not None:
            if self._binds(scope, name) or self.parameter(path, scope) is not None:
                return scope
            scope = self.scope_of(scope)
        return self.top_scope

    def _binds(self, scope: Function, name: str) -> bool:
        """Whether a function makes a variable its own."""
        own = (b for b in self._bindings.get(name, ()) if b.exact and self.scope_of(b.statement) is scope)
        if next(own, None) is None:
            return False
        outside = (node for node in ast.walk(scope) if isinstance(node, ast.Global | ast.Nonlocal))
        return not any(name in node.names and self.scope_of(node) is scope for node in outside)

    # Order

    def runs_after(self, node: ast.AST, lines: Sequence[int]) -> bool:
        """Whether a statement runs at or after the one that stopped the cell.

        :param lines: the lines of the cell on the stack when it stopped, outermost first; or only the innermost one.
        """
        frames = self._frames(lines)
        return bool(frames) and self._after(node, frames, set())

    def _frames(self, lines: Sequence[int]) -> list[ast.stmt]:
        """The statements under way when the cell stopped, from one of the cell's own inward."""
        statements = [statement for line in lines if (statement := self.statement_at(line)) is not None]
        while statements and self.top_index(statements[0]) is None:
            outer = statements.pop(0)
            if not statements:
                return self._chain(outer)
        return statements

    def _chain(self, statement: ast.stmt) -> list[ast.stmt]:
        """How the cell first came to a statement inside of a function: each calling statement, outermost first."""
        chains: list[tuple[int, list[ast.stmt]]] = []
        waiting: list[list[ast.stmt]] = [[statement]]
        seen: set[int] = set()
        while waiting:
            chain = waiting.pop(0)
            index = self.top_index(chain[0])
            if index is not None:
                chains.append((index, chain))
                continue
            function = self.scope_of(chain[0])
            if function is None or id(function) in seen:
                continue
            seen.add(id(function))
            callers = (self.statement_of(call) for call in self.calls(function))
            waiting += [[caller, *chain] for caller in callers if caller is not None]
        if chains:
            return min(chains, key=lambda entry: entry[0])[1]
        # Nobody seen to call it: anything after its definition may.
        outer = self.scope_of(statement)
        while outer is not None and self.top_index(outer) is None:
            outer = self.scope_of(outer)
        return [] if outer is None else [outer, statement]

    def _after(self, node: ast.AST, frames: list[ast.stmt], seen: set[int]) -> bool:
        scope = self.scope_of(node)
        if scope is self.top_scope and self.top_index(node) is None:
            return False
        under_way = {id(self.scope_of(frame)) for frame in frames}
        for frame in frames:
            if self.scope_of(frame) is scope and self._follows(node, frame):
                return True
        if scope is None or scope is self.top_scope or id(scope) in seen:
            return False
        seen.add(id(scope))
        for call in self.calls(scope):
            statement = self.statement_of(call)
            if statement is None:
                continue
            current = id(scope) in under_way and any(statement is frame for frame in frames)
            if current and not self.in_loop(statement):
                continue  # the very call that was under way
            if self._after(statement, frames, seen):
                return True
        return False

    def _follows(self, node: ast.AST, stopped: ast.stmt) -> bool:
        """Whether, within one function, a statement comes at or after the stopped one."""
        left, right = self._lineage(node), self._lineage(stopped)
        depth = 0
        while depth < min(len(left), len(right)) and left[depth] is right[depth]:
            depth += 1
        if any(isinstance(shared, _LOOPS) for shared in left[:depth]):
            return True  # the loop comes round again
        if depth in (len(left), len(right)):
            return True  # the statement itself, one around it, or one inside of it
        shared = left[depth - 1]
        if isinstance(shared, ast.If | ast.Match) and _branch(shared, left[depth]) != _branch(shared, right[depth]):
            return False
        a, b = left[depth], right[depth]
        return (getattr(a, "lineno", 0), getattr(a, "col_offset", 0)) >= (b.lineno, b.col_offset)  # type: ignore[attr-defined]

    def _lineage(self, node: ast.AST) -> list[ast.AST]:
        """A node's statement and those around it up to its function, outermost first."""
        scope = self.scope_of(node)
        found: list[ast.AST] = []
        current: ast.AST | None = node
        while current is not None and current is not scope:
            if isinstance(current, ast.stmt | ast.ExceptHandler | ast.match_case):
                found.insert(0, current)
            current = self._parents.get(current)
        root: ast.AST = scope if scope is not None else self.tree
        return [root, *found]

    # Gathering

    def _find_top(self, block: tuple[int, int] | None) -> tuple[list[ast.stmt], Function | None]:
        if block is None:
            return self.tree.body, None
        for node in ast.walk(self.tree):
            if isinstance(node, ast.With | ast.AsyncWith):
                last = node.body[-1].end_lineno
                if (node.body[0].lineno, last) == block:
                    return node.body, self.scope_of(node)
        return [], None

    def _find_loads(self) -> dict[str, list[ast.expr]]:
        """Every name and attribute that is read, by its last name; what is called, under ``()``."""
        found: dict[str, list[ast.expr]] = {}
        for node, parent in self._parents.items():
            if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.setdefault(node.id if isinstance(node, ast.Name) else node.attr, []).append(node)
            if isinstance(parent, ast.Call) and parent.func is node and isinstance(node, ast.expr):
                found.setdefault("()", []).append(node)
        return found

    def _find_calls(self, function: Function) -> Iterator[ast.AST]:
        owner = self.class_of(function)
        found: list[ast.expr] = []
        if owner is None:
            found += (node for node in self._loads.get(function.name, ()) if isinstance(node, ast.Name))
        elif function.name == "__init__":
            found += (node for node in self._loads.get(owner.name, ()) if isinstance(node, ast.Name))
        else:
            for name in (function.name, *_APPLIED.get(function.name, ())):
                found += (node for node in self._loads.get(name, ()) if isinstance(node, ast.Attribute))
        if owner is not None and function.name in {"forward", "__call__"}:
            holders = self._instances_of(owner)
            for node in self._loads.get("()", ()):
                made_here = isinstance(node, ast.Call) and owner.name in _names_in(node)  # `Block()(x)`
                if made_here or (
                    isinstance(node, ast.Name | ast.Attribute | ast.Subscript) and path_key(node) in holders
                ):
                    found.append(node)
        for node in found:
            if not self._inside(node, function) and self._reachable(node):
                yield node

    def _reachable(self, node: ast.AST) -> bool:
        """Not among the statements of the file that stand outside of the watched block."""
        return self.scope_of(node) is not self.top_scope or self.top_index(node) is not None

    def _inside(self, node: ast.AST, function: Function) -> bool:
        current: ast.AST | None = node
        while current is not None and current is not function:
            current = self._parents.get(current)
        return current is function

    def _instances_of(self, owner: ast.ClassDef) -> set[str]:
        """Variables that hold an instance of a class, or something built around one (``nn.Sequential(Block())``)."""
        names, found = {owner.name}, set[str]()
        for _ in range(3):  # a model in a model in a model
            before = len(names)
            for node in self._parents:
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call | ast.Tuple | ast.List):
                    if names & _names_in(node.value):
                        found |= {path_key(part) for target in node.targets for part in _parts(target)}
                elif isinstance(node, ast.ClassDef) and node is not owner and names & _names_in(node):
                    names = names | {node.name}
            names = names | {name for name in found if name.isidentifier()}
            if len(names) == before:
                break
        return found

    def _find_bindings(self) -> Iterator[tuple[str, Binding]]:
        for node in self._parents:
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    yield from _bound(target, node.value, node)
            elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
                yield from _bound(node.target, node.value, node)
            elif isinstance(node, ast.AugAssign):
                yield path_key(node.target), Binding(node, node.value, exact=True, augmented=True)
            elif isinstance(node, ast.For | ast.AsyncFor):
                for part in _parts(node.target):
                    yield path_key(part), Binding(node, None, exact=True)
            elif isinstance(node, ast.withitem) and node.optional_vars is not None:
                for part in _parts(node.optional_vars):
                    yield path_key(part), Binding(self._parents[node], None, exact=True)
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in _ADDING_METHODS
                and (statement := self.statement_of(node)) is not None
            ):
                yield path_key(node.func.value), Binding(statement, None, exact=False)


#: Names under which a method may be called: `Function.forward` runs by `apply`.
_APPLIED = {"forward": ("apply",)}


def path_key(node: ast.expr) -> str:
    """A variable's path in one spelling, whatever its quotes and spaces."""
    return ast.unparse(node)


def _bound(target: ast.expr, value: ast.expr, statement: ast.AST) -> Iterator[tuple[str, Binding]]:
    if isinstance(target, ast.Tuple | ast.List):
        values: Sequence[ast.expr | None] = [None] * len(target.elts)
        if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts):
            values = value.elts
        for part, item in zip(target.elts, values, strict=True):
            inner = part.value if isinstance(part, ast.Starred) else part
            if item is None:
                yield from ((path_key(name), Binding(statement, None, exact=True)) for name in _parts(inner))
            else:
                yield from _bound(inner, item, statement)
        return
    yield path_key(target), Binding(statement, value, exact=True)
    if isinstance(target, ast.Subscript):
        yield path_key(target.value), Binding(statement, value, exact=False)


def _parts(target: ast.expr) -> Iterator[ast.expr]:
    if isinstance(target, ast.Tuple | ast.List):
        for part in target.elts:
            yield from _parts(part)
    else:
        yield target.value if isinstance(target, ast.Starred) else target


def _prefixes(path: ast.expr) -> Iterator[str]:
    while isinstance(path, ast.Attribute | ast.Subscript):
        path = path.value
        if not (isinstance(path, ast.Name) and path.id == "self"):
            yield path_key(path)


def _root(path: ast.expr) -> str | None:
    while isinstance(path, ast.Attribute | ast.Subscript):
        path = path.value
    return path.id if isinstance(path, ast.Name) else None


def _names_in(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _branch(node: ast.AST, child: ast.AST) -> int:
    """Which of the alternatives of an ``if`` or ``match`` a child belongs to."""
    if isinstance(node, ast.Match):
        return next((index for index, case in enumerate(node.cases) if case is child), -1)
    if isinstance(node, ast.If):
        return 0 if child in node.body else 1 if child in node.orelse else -1
    return -1
