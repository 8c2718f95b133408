"""The statements, functions, calls and variables of a cell, read from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from jupyter_inplace.explain.names.bindings import (
    Binding,
    find_bindings,
    parts_of,
    path_key,
    prefixes,
    root_of,
    statement_of,
)
from jupyter_inplace.record.source.masking import masked, parsed

__all__ = ["LOOPS", "CellCode", "Function"]

#: A function or method; None for the cell's top-level statements.
Function = ast.FunctionDef | ast.AsyncFunctionDef
LOOPS = (ast.For, ast.AsyncFor, ast.While)


class CellCode:
    """The statements, functions and calls of a cell, or of a ``with`` block in a file.

    :param block: the first and last line of the body of the ``with`` block; None if all of `source` is the cell.
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
        for target, binding in find_bindings(self._parents):
            self._bindings.setdefault(target, []).append(binding)

    @classmethod
    def read(cls, source: str, block: tuple[int, int] | None = None) -> CellCode | None:
        """Parse a source; None if it is not Python."""
        tree = parsed(source)
        return None if tree is None else cls(tree, masked(source), block)

    # Places

    def scope_of(self, node: ast.AST) -> Function | None:
        """The function whose body contains a node."""
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

    def parent(self, node: ast.AST) -> ast.AST | None:
        """The parent of a node."""
        return self._parents.get(node)

    def statement_of(self, node: ast.AST) -> ast.stmt | None:
        """The innermost statement around a node."""
        return statement_of(node, self._parents)

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
        """The index of the top-level statement that contains a node; None in the body of a function."""
        if self.scope_of(node) is not self.top_scope:
            return None
        current: ast.AST | None = node
        while current is not None and id(current) not in self._top_index:
            current = self._parents.get(current)
        return None if current is None else self._top_index[id(current)]

    def top_indices(self, node: ast.AST) -> set[int]:
        """The indices of the top-level statements during which a node runs: its own, or those that call the functions around it."""
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
        """Whether a node is inside a loop of its function."""
        scope, current = self.scope_of(node), self._parents.get(node)
        while current is not None and current is not scope:
            if isinstance(current, LOOPS):
                return True
            current = self._parents.get(current)
        return False

    def calls(self, function: Function) -> list[ast.AST]:
        """Where a function is called, or passed on to be called."""
        found = self._calls.get(id(function))
        if found is None:
            found = self._calls[id(function)] = list(self._find_calls(function))
        return found

    # Variables

    def bindings(self, path: ast.expr, scope: Function | None) -> list[Binding]:
        """What gives a variable its value, in program order; if only its container is bound, the bindings of that."""
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
        return [binding for prefix in prefixes(path) for binding in self._bindings.get(prefix, ()) if visible(binding)]

    def parameter(self, path: ast.expr, scope: Function | None) -> int | None:
        """The position of the parameter that a path begins with, None if it is not a parameter."""
        name = root_of(path)
        if scope is None or name is None or self._binds(scope, name):
            return None
        names = [arg.arg for arg in (*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs)]
        return names.index(name) if name in names else None

    def argument(self, call: ast.AST, function: Function, position: int) -> ast.expr | None:
        """What a call passes for a parameter."""
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
        """The function that owns the variable that a path begins with; the cell's scope if no function binds it."""
        name = root_of(path)
        while scope is not None and scope is not self.top_scope and name is not None:
            if self._binds(scope, name) or self.parameter(path, scope) is not None:
                return scope
            scope = self.scope_of(scope)
        return self.top_scope

    def _binds(self, scope: Function, name: str) -> bool:
        """Whether a variable is local to a function."""
        own = (b for b in self._bindings.get(name, ()) if b.exact and self.scope_of(b.statement) is scope)
        if next(own, None) is None:
            return False
        outside = (node for node in ast.walk(scope) if isinstance(node, ast.Global | ast.Nonlocal))
        return not any(name in node.names and self.scope_of(node) is scope for node in outside)

    # Collecting

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
        """Collect every name and attribute that is read, by its last part; calls are under ``()``."""
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
        """Whether a node is not one of the file's statements outside the watched block."""
        return self.scope_of(node) is not self.top_scope or self.top_index(node) is not None

    def _inside(self, node: ast.AST, function: Function) -> bool:
        current: ast.AST | None = node
        while current is not None and current is not function:
            current = self._parents.get(current)
        return current is function

    def _instances_of(self, owner: ast.ClassDef) -> set[str]:
        """Variables that hold an instance of a class, or something built around one (``nn.Sequential(Block())``)."""
        names, found = {owner.name}, set[str]()
        for _ in range(3):  # models may be nested
            before = len(names)
            for node in self._parents:
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call | ast.Tuple | ast.List):
                    if names & _names_in(node.value):
                        found |= {path_key(part) for target in node.targets for part in parts_of(target)}
                elif isinstance(node, ast.ClassDef) and node is not owner and names & _names_in(node):
                    names = names | {node.name}
            names = names | {name for name in found if name.isidentifier()}
            if len(names) == before:
                break
        return found


#: Names under which a method may be called: `Function.forward` runs by `apply`.
_APPLIED = {"forward": ("apply",)}


def _names_in(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
