"""Which names of a cell are bound in which functions, according to the syntax alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Scope", "Scopes", "Use"]

ScopeKind = Literal["module", "function", "class", "lambda", "comprehension"]
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(eq=False)
class Scope:
    """A cell, function, class body, lambda or comprehension, and the names that it binds."""

    kind: ScopeKind
    name: str
    start: int
    end: int
    parent: Scope | None
    parameters: list[str] = field(default_factory=list)
    bound: set[str] = field(default_factory=set)
    declared: dict[str, Literal["global", "nonlocal"]] = field(default_factory=dict)

    def around(self) -> Iterator[Scope]:
        """This scope and those around it, innermost first."""
        step: Scope | None = self
        while step is not None:
            yield step
            step = step.parent


@dataclass(frozen=True, eq=False)
class Use:
    """An occurrence of a name from character `start` to `end`, read or bound there (both by ``+=``)."""

    name: str
    start: int
    end: int
    stores: bool
    scope: Scope
    augmented: bool = False


class Scopes:
    """The scopes of a cell and the uses of its names, in the order of the text."""

    def __init__(self, tree: ast.Module, text: str) -> None:
        self._starts = [0]
        self._lines = text.split("\n")
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line) + 1)
        self.module = Scope("module", "", 0, len(text), None)
        self.all: list[Scope] = [self.module]
        self.uses: list[Use] = []
        self._modules: dict[str, str] = {}
        self._visit_all(tree.body, self.module)
        # Before Python 3.12 the places of names inside f-strings are sometimes wrong; such uses are left out.
        self.uses = sorted((use for use in self.uses if text[use.start : use.end] == use.name), key=lambda u: u.start)

    def at(self, offset: int) -> Scope:
        """The innermost scope around a character."""
        around = [scope for scope in reversed(self.all) if scope.start <= offset < scope.end]
        return min(around, key=lambda scope: scope.end - scope.start, default=self.module)

    def function(self, offset: int) -> Scope:
        """The innermost function or the cell around a character, where an assignment statement binds."""
        for scope in self.at(offset).around():
            if scope.kind in {"function", "module", "class"}:
                return scope
        return self.module

    def binder(self, name: str, scope: Scope) -> Scope:
        """The scope that owns the variable `name` when it is used in `scope`."""
        step: Scope | None = scope
        while step is not None:
            declared = step.declared.get(name)
            if declared == "global":
                return self.module
            visible = step.kind != "class" or step is scope
            if visible and declared is None and name in step.bound:
                return step
            step = step.parent
        return self.module

    def of(self, name: str, binder: Scope) -> list[Use]:
        """All uses of the variable `name` of one scope, in the order of the text."""
        return [use for use in self.uses if use.name == name and self.binder(name, use.scope) is binder]

    def imported(self, module: str) -> str | None:
        """The name under which the cell imports `module` itself."""
        return self._modules.get(module)

    def is_module(self, name: str) -> bool:
        """Whether the cell imports something as `name`."""
        return name in self._modules.values()

    def _offset(self, line: int, column: int) -> int:
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode(errors="ignore"))

    def _span(self, node: ast.expr | ast.stmt | ast.arg) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._offset(node.lineno, node.col_offset), self._offset(node.end_lineno, node.end_col_offset)

    def _visit_all(self, nodes: list[ast.stmt], scope: Scope) -> None:
        for node in nodes:
            self._visit(node, scope)

    def _visit(self, node: ast.AST, scope: Scope) -> None:
        if isinstance(node, ast.Name):
            stores = not isinstance(node.ctx, ast.Load)
            if stores:
                _binding(node, scope).bound.add(node.id)
            self.uses.append(Use(node.id, *self._span(node), stores, scope))
        elif isinstance(node, (*_FUNCTIONS, ast.Lambda)):
            self._function(node, scope)
        elif isinstance(node, ast.ClassDef):
            scope.bound.add(node.name)
            for part in (*node.decorator_list, *node.bases, *node.keywords):
                self._visit(part, scope)
            self._visit_all(node.body, self._open("class", node.name, node, scope))
        elif isinstance(node, _COMPREHENSIONS):
            inner = self._open("comprehension", "", node, scope)
            for part in ast.iter_child_nodes(node):
                self._visit(part, inner)
        elif isinstance(node, ast.NamedExpr):
            target = next(s for s in scope.around() if s.kind != "comprehension")
            target.bound.add(node.target.id)
            self.uses.append(Use(node.target.id, *self._span(node.target), True, target))
            self._visit(node.value, scope)
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            _binding(node.target, scope).bound.add(node.target.id)
            self.uses.append(Use(node.target.id, *self._span(node.target), True, scope, augmented=True))
            self._visit(node.value, scope)
        else:
            self._simple(node, scope)
            for part in ast.iter_child_nodes(node):
                self._visit(part, scope)

    def _simple(self, node: ast.AST, scope: Scope) -> None:
        """The names that a statement binds or declares without an `ast.Name`."""
        if isinstance(node, ast.Global):
            scope.declared.update(dict.fromkeys(node.names, "global"))
        elif isinstance(node, ast.Nonlocal):
            scope.declared.update(dict.fromkeys(node.names, "nonlocal"))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for name in node.names:
                bound = name.asname or name.name.partition(".")[0]
                scope.bound.add(bound)
                origin = f"{node.module}.{name.name}" if isinstance(node, ast.ImportFrom) else name.name
                self._modules.setdefault(origin if name.asname or isinstance(node, ast.ImportFrom) else bound, bound)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            scope.bound.add(node.name)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, scope: Scope) -> None:
        arguments = node.args
        for default in (*arguments.defaults, *(d for d in arguments.kw_defaults if d)):
            self._visit(default, scope)
        if isinstance(node, ast.Lambda):
            inner = self._open("lambda", "", node, scope)
        else:
            scope.bound.add(node.name)
            for part in node.decorator_list:
                self._visit(part, scope)
            inner = self._open("function", node.name, node, scope)
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        inner.parameters = [argument.arg for argument in every]
        every += [extra for extra in (arguments.vararg, arguments.kwarg) if extra]
        inner.bound.update(argument.arg for argument in every)
        if isinstance(node, ast.Lambda):
            self._visit(node.body, inner)
        else:
            self._visit_all(node.body, inner)

    def _open(self, kind: ScopeKind, name: str, node: ast.expr | ast.stmt, parent: Scope) -> Scope:
        scope = Scope(kind, name, *self._span(node), parent)
        self.all.append(scope)
        return scope


def _binding(node: ast.Name, scope: Scope) -> Scope:
    """The scope in which an assigned name is bound: not one that declares it global or nonlocal."""
    if scope.declared.get(node.id) == "global":
        return next(s for s in scope.around() if s.kind == "module")
    return scope
