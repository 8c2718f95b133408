"""The roots of backward calls in the source of a cell, with summed roots split into their addends."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from jupyter_inplace._syntax import is_deep, unparse
from jupyter_inplace.explain.names.bindings import Binding, path_key
from jupyter_inplace.explain.names.cell_code import CellCode, Function
from jupyter_inplace.record.source.expressions import is_path

__all__ = ["Root", "Roots"]


@dataclass(frozen=True, slots=True)
class Root:
    """What a backward call starts from: an expression in a function, and the syntax nodes that compute it."""

    name: str
    computed: tuple[ast.AST, ...]
    named: bool


class Roots:
    """Finds the roots of backward calls and splits summed ones."""

    _DEPTH = 6  # calls of functions, sums of sums

    def __init__(self, code: CellCode) -> None:
        self._code = code
        #: Names that an import gives: those of `torch.autograd` by their own name, others as "other".
        self._imported = {
            alias.asname or alias.name: alias.name if (node.module or "").endswith("autograd") else "other"
            for node in ast.walk(code.tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }

    def of(self, call: ast.Call) -> Iterator[Root]:
        """The tasks of a call; none if it is not a backward call."""
        scope = self._code.scope_of(call)
        for expression in self._expressions(call):
            yield from self._tasks_of(expression, scope, call, 0)

    # Roots of a call

    def _expressions(self, call: ast.Call) -> list[ast.expr]:
        func = call.func
        if isinstance(func, ast.Name):
            origin = self._imported.get(func.id)
            if origin == "backward" or (func.id == "backward" and origin is None and call.args and not self._own(func)):
                return _several(_argument(call, "tensors"))
            plausible = func.id == "grad" and origin is None and not self._own(func) and len(call.args) >= 2
            return _several(_argument(call, "outputs")) if origin == "grad" or plausible else []
        if not isinstance(func, ast.Attribute):
            return []
        owner = unparse(func.value)
        of_autograd = owner == "autograd" or owner.endswith(".autograd")
        if func.attr == "grad":
            return _several(_argument(call, "outputs")) if of_autograd else []
        if func.attr == "manual_backward" and call.args:
            return [call.args[0]]
        if func.attr != "backward" or owner.startswith("super("):
            return []
        if of_autograd:
            return _several(_argument(call, "tensors"))
        if call.args and _hands_on(func.value, call.args[0]):
            return [call.args[0]]
        return [func.value]

    def _own(self, func: ast.Name) -> bool:
        """Whether the cell defines its own function or variable under a name that torch uses too."""
        if any(function.name == func.id for function in self._code.functions):
            return True
        return bool(self._code.bindings(func, self._code.scope_of(func)))

    # Splitting

    def _tasks_of(self, root: ast.expr, scope: Function | None, call: ast.AST, depth: int) -> Iterator[Root]:
        for addend in self._addends(root, scope):
            if is_path(addend):
                yield from self._named(addend, scope, call, depth)
            else:
                yield from self._container(addend, scope, call, depth) or [self._unnamed(addend, call)]

    def _named(self, path: ast.expr, scope: Function | None, call: ast.AST, depth: int) -> list[Root]:
        code = self._code
        handed = self._from_callers(path, scope, depth) if isinstance(path, ast.Name) else []
        if handed:
            return handed
        bindings = code.bindings(path, scope)
        parts = self._named_parts(path, bindings, call, depth)
        if len(parts) >= 2:
            return parts
        # `loss = 0` does not count if another statement gives it its value.
        real = [binding for binding in bindings if not _is_start_value(binding)] or bindings
        return [Root(self._text(path), tuple(binding.statement for binding in real), named=True)]

    def _named_parts(self, path: ast.expr, bindings: list[Binding], call: ast.AST, depth: int) -> list[Root]:
        """The addends of a named sum that are variables themselves."""
        code, key = self._code, path_key(path)
        before = [b for b in bindings if b.exact and b.value is not None and _before(b.statement, call, code)]
        if not before or depth >= self._DEPTH:
            return []
        starts = [index for index, b in enumerate(before) if not b.augmented]
        found: dict[str, Root] = {}
        for binding in before[starts[-1] if starts else 0 :]:
            if binding.augmented and (not _adds(binding.statement) or code.in_loop(binding.statement)):
                continue
            scope = code.scope_of(binding.statement)
            assert binding.value is not None
            for addend in self._addends(binding.value, scope):
                if is_path(addend) and path_key(addend) != key and code.bindings(addend, scope):
                    for root in self._named(addend, scope, binding.statement, depth + 1):
                        found[root.name] = root
                elif not is_path(addend):
                    for root in self._container(addend, scope, binding.statement, depth + 1):
                        if root.named:
                            found[root.name] = root
        return list(found.values())

    def _from_callers(self, path: ast.Name, scope: Function | None, depth: int) -> list[Root]:
        """The roots if the root is a parameter: what the callers pass for it."""
        code = self._code
        position = code.parameter(path, scope)
        if scope is None or scope is code.top_scope or position is None or depth >= self._DEPTH:
            return []
        found: dict[str, Root] = {}
        for call in code.calls(scope):
            argument = code.argument(call, scope, position)
            if argument is None:
                continue
            for root in self._tasks_of(argument, code.scope_of(call), call, depth + 1):
                shown = root if root.named else Root(path.id, root.computed, named=True)
                found[shown.name] = shown
        return list(found.values())

    def _addends(self, node: ast.expr, scope: Function | None) -> Iterator[ast.expr]:
        """The addends of a (weighted) sum without their weights; the expression itself if it is not a sum."""
        todo = [node]
        while todo:
            node = todo.pop()
            if isinstance(node, ast.NamedExpr):
                node = node.target
            if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
                todo.append(node.operand)
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
                todo += [node.right, node.left]
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                todo.append(node.left)
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
                todo.append(self._weighed(node, scope))
            elif _is_scaled(node):
                todo.append(node.args[0])  # type: ignore[attr-defined]
            elif not isinstance(node, ast.Constant):
                yield node

    def _weighed(self, node: ast.BinOp, scope: Function | None) -> ast.expr:
        """The factor of a product that is the loss; the other one is its weight."""
        left, right = self._is_weight(node.left, scope), self._is_weight(node.right, scope)
        if left != right:
            return node.right if left else node.left
        say = ["loss" in unparse(part).lower() for part in (node.left, node.right)]
        return node.left if say == [True, False] else node.right  # weights are mostly written first

    def _is_weight(self, node: ast.expr, scope: Function | None) -> bool:
        todo = [node]
        while todo:
            part = todo.pop()
            if isinstance(part, ast.UnaryOp):
                todo.append(part.operand)
            elif isinstance(part, ast.BinOp) and not isinstance(part.op, ast.Add | ast.Sub):
                todo += [part.left, part.right]
            elif not isinstance(part, ast.Constant) and not self._holds_number(part, scope):
                return False
        return True

    def _holds_number(self, node: ast.expr, scope: Function | None) -> bool:
        if not is_path(node):
            return False
        bindings = self._code.bindings(node, scope)
        return not bindings or all(b.value is not None and self._is_number(b.value) for b in bindings)

    @staticmethod
    def _is_number(node: ast.expr) -> bool:
        return all(
            isinstance(part, ast.Constant | ast.operator | ast.unaryop | ast.expr_context | ast.BinOp | ast.UnaryOp)
            for part in ast.walk(node)
        )

    def _container(self, node: ast.expr, scope: Function | None, call: ast.AST, depth: int) -> list[Root]:
        """The items of ``sum(losses)`` or ``torch.stack(losses).mean()`` if the source shows them, else the container."""
        holder = _summed(node)
        if holder is None or depth >= self._DEPTH:
            return []
        items = holder
        if is_path(holder):
            bindings = self._code.bindings(holder, scope)
            shown = [b.value for b in bindings if b.exact and b.value is not None]
            if len(bindings) != 1 or len(shown) != 1:
                return self._named(holder, scope, call, self._DEPTH)
            items = shown[0]
        parts: list[ast.expr] = []
        if isinstance(items, ast.List | ast.Tuple | ast.Set):
            parts = items.elts
        elif isinstance(items, ast.Dict):
            parts = items.values
        if parts and all(is_path(part) for part in parts):
            return [root for part in parts for root in self._tasks_of(part, scope, call, depth + 1)]
        if is_path(holder) and parts and items is not holder:
            keys = items.keys if isinstance(items, ast.Dict) else [ast.Constant(index) for index in range(len(parts))]
            if all(isinstance(key, ast.Constant) for key in keys):
                statement = self._code.statement_of(items)
                assert statement is not None
                base = self._text(holder)
                return [Root(f"{base}[{self._text(key)}]", (statement,), named=True) for key in keys if key is not None]
        return self._named(holder, scope, call, self._DEPTH) if is_path(holder) else []

    def _unnamed(self, node: ast.expr, call: ast.AST) -> Root:
        return Root(self._text(node), (call,), named=False)

    def _text(self, node: ast.expr) -> str:
        if getattr(node, "lineno", None) is None:
            return unparse(node)
        text = ast.get_source_segment(self._code.source, node)
        return text if text is not None and "\n" not in text and not text.startswith("%") else unparse(node)


#: Objects whose ``backward`` takes the loss: accelerate, Lightning Fabric, DeepSpeed, ...
_TAKERS = frozenset(
    {"accelerator", "fabric", "engine", "model_engine", "strategy", "trainer", "amp", "booster", "scaler"}
)


def _hands_on(owner: ast.expr, argument: ast.expr) -> bool:
    """Whether ``owner.backward(argument)`` starts from the argument instead of taking it as the incoming gradient."""
    last = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    if last in _TAKERS:
        return True
    return is_path(argument) and "loss" in unparse(argument).lower() and "loss" not in last.lower()


def _is_scaled(node: ast.expr) -> bool:
    """`scaler.scale(loss)`."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "scale"
        and len(node.args) == 1
    )


def _summed(node: ast.expr) -> ast.expr | None:
    """The container that an expression sums over."""
    if is_deep(node):
        return None
    if not isinstance(node, ast.Call):
        return None
    func = node.func
    name = func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
    if name in {"sum", "fsum", "mean"} and node.args and not (isinstance(func, ast.Attribute) and _is_method(func)):
        inner = _summed(node.args[0]) if isinstance(node.args[0], ast.Call) else None
        return inner or _container_of(node.args[0])
    if name in {"sum", "mean"} and isinstance(func, ast.Attribute) and isinstance(func.value, ast.Call):
        return _summed(func.value)
    if name in {"stack", "cat", "hstack"} and node.args:
        return _container_of(node.args[0])
    return None


def _is_method(func: ast.Attribute) -> bool:
    """Whether it is a method of a variable (``losses.sum(0)``), not a function of a module (``torch.sum(losses)``)."""
    return not (isinstance(func.value, ast.Name) and func.value.id in {"torch", "math", "np", "builtins"})


def _container_of(node: ast.expr) -> ast.expr | None:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "values":
        node = node.func.value
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"list", "tuple"}
        and node.args
    ):
        return _container_of(node.args[0])
    return node if is_path(node) or isinstance(node, ast.List | ast.Tuple | ast.Dict) else None


def _argument(call: ast.Call, keyword: str) -> ast.expr | None:
    if call.args:
        return None if isinstance(call.args[0], ast.Starred) else call.args[0]
    return next((entry.value for entry in call.keywords if entry.arg == keyword), None)


def _several(node: ast.expr | None) -> list[ast.expr]:
    if node is None:
        return []
    return list(node.elts) if isinstance(node, ast.List | ast.Tuple) else [node]


def _adds(statement: ast.AST) -> bool:
    return isinstance(statement, ast.AugAssign) and isinstance(statement.op, ast.Add | ast.Sub)


def _is_start_value(binding: Binding) -> bool:
    value = binding.value
    if not binding.exact or binding.augmented or value is None:
        return False
    return isinstance(value, ast.Constant) or (
        isinstance(value, ast.List | ast.Dict) and not list(ast.iter_child_nodes(value))[:-1]
    )


def _before(statement: ast.AST, call: ast.AST, code: CellCode) -> bool:
    if code.scope_of(statement) is not code.scope_of(call):
        return True
    return (statement.lineno, statement.col_offset) <= (call.lineno, call.col_offset)  # type: ignore[attr-defined]
