"""What an expression says about the tensors it touches: the names as the person typed them.

Names alone do not tell a tensor from a list (``rows[0] += 1``), so `written_names` gives every reading, the likeliest
first; who knows the objects picks the first one that fits.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from jupyter_inplace._syntax import is_deep, parse, unparse
from jupyter_inplace.report.data import Site

__all__ = [
    "argument_names",
    "assigned_names",
    "is_path",
    "path_text",
    "receiver",
    "written_name",
    "written_names",
    "written_nodes",
]

#: Methods and attributes whose result shares memory with the tensor they belong to (some copy where they must).
VIEW_METHODS = frozenset(
    {
        "adjoint",
        "alias",
        "as_strided",
        "as_subclass",
        "chunk",
        "contiguous",
        "detach",
        "diagonal",
        "expand",
        "expand_as",
        "flatten",
        "hsplit",
        "narrow",
        "movedim",
        "moveaxis",
        "numpy",
        "permute",
        "ravel",
        "real",
        "reshape",
        "reshape_as",
        "select",
        "split",
        "squeeze",
        "swapaxes",
        "swapdims",
        "t",
        "tensor_split",
        "transpose",
        "type_as",
        "unbind",
        "unflatten",
        "unfold",
        "unsafe_chunk",
        "unsafe_split",
        "unsqueeze",
        "view",
        "view_as",
        "vsplit",
        "__getitem__",
    }
)
VIEW_ATTRIBUTES = frozenset({"data", "T", "H", "mT", "mH", "real", "imag"})
#: First names under which torch's functions (not tensors) are usually found.
_FUNCTION_ROOTS = frozenset({"torch", "F", "nn", "init", "_VF", "functional", "np", "numpy"})
_INPLACE_DUNDERS = frozenset(
    {
        "__setitem__",
        "__iadd__",
        "__isub__",
        "__imul__",
        "__itruediv__",
        "__ifloordiv__",
        "__imod__",
        "__ipow__",
        "__iand__",
        "__ior__",
        "__ixor__",
    }
)


def written_name(site: Site | str | None) -> str | None:
    """The tensor that an expression writes, as typed and without views: ``K`` of ``K.diagonal().add_(1e-2)``.

    :returns: None where the expression does not say (``model(x)``, ``opt.step()``).
    """
    return next(iter(written_names(site)), None)


def written_names(site: Site | str | None) -> tuple[str, ...]:
    """Every reading of what an expression writes, the likeliest first: ``rows`` and ``rows[0]`` of ``rows[0] += 1``."""
    statement, text = _parsed(site)
    if statement is None:
        return ()
    found: dict[str, None] = {}
    for node in [*_written(statement), *_guessed(statement)]:
        for path in _readings(node):
            found[path_text(path, text)] = None
    return tuple(found)


def argument_names(site: Site | str | None) -> tuple[str, ...]:
    """The names, attributes and items that an expression takes directly, the receiver first: ``q`` and ``self.bank``
    of ``torch.einsum("nc,ck->nk", q, self.bank)``.
    """
    statement, text = _parsed(site)
    if statement is None:
        return ()
    found: dict[str, None] = {}
    for node in _operands(_value(statement)):
        stripped = _strip(node)
        if stripped is not None and is_path(stripped):
            found[path_text(stripped, text)] = None
    return tuple(found)


def assigned_names(expression: ast.AST | None, statement: ast.stmt | None) -> tuple[str, ...]:
    """The variables that hold exactly the value of an expression, once its statement is done."""
    if expression is None or statement is None:
        return ()
    if isinstance(statement, ast.AugAssign):
        return _target_names(statement.target) if expression in (statement, statement.target) else ()
    if isinstance(expression, ast.stmt):
        return tuple(name for target in _targets(expression) for name in _target_names(target))
    for node in ast.walk(statement):
        if isinstance(node, ast.NamedExpr) and _same(node.value, expression):
            return (node.target.id, *_assigned(statement, node))
    return _assigned(statement, expression)


def written_nodes(node: ast.AST) -> list[ast.expr]:
    """The expressions for the memory that a statement or a call writes, their views still on."""
    return list(_written(ast.Expr(node) if isinstance(node, ast.expr) else node))


def is_path(node: ast.AST) -> bool:
    """A name, or attributes and items of one: what a person would call a variable."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        if isinstance(node, ast.Subscript) and not _plain_index(node.slice):
            return False
        node = node.value
    return isinstance(node, ast.Name)


def path_text(node: ast.AST, text: str) -> str:
    """A node as it was typed."""
    segment = ast.get_source_segment(text, node)
    return segment if segment is not None and "\n" not in segment else unparse(node)


def receiver(call: ast.Call) -> ast.expr | None:
    """The tensor whose method a call is; None for a function of torch or a plain function."""
    func = call.func
    if not isinstance(func, ast.Attribute) or _is_function(func):
        return None
    return func.value


def _parsed(site: Site | str | None) -> tuple[ast.stmt | None, str]:
    text = site.text if isinstance(site, Site) else (site or "")
    text = text.strip()
    try:
        body = parse(text).body
    except (SyntaxError, ValueError, RecursionError):
        return None, text
    return (body[0] if len(body) == 1 else None), text


def _value(statement: ast.stmt) -> ast.AST:
    value = getattr(statement, "value", None)
    return value if isinstance(value, ast.expr) else statement


def _written(statement: ast.AST) -> Iterator[ast.expr]:
    """The expressions for the memory that a statement writes; its views still on."""
    if isinstance(statement, ast.AugAssign):
        yield statement.target
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.Delete):
        stores = [target for target in _targets(statement) if isinstance(target, ast.Subscript | ast.Attribute)]
        if stores:
            # A flag of the tensor's is the tensor.
            yield from (s.value if isinstance(s, ast.Attribute) and s.attr == "requires_grad" else s for s in stores)
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            yield from _written_by_call(statement.value)
    elif isinstance(statement, ast.Expr):
        yield from _written_by_call(statement.value)


def _written_by_call(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Await | ast.NamedExpr):
        node = node.value
    if not isinstance(node, ast.Call):
        return
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    out = keywords.get("out")
    if out is not None:
        yield from out.elts if isinstance(out, ast.Tuple | ast.List) else [out]
        return
    first = next((arg for arg in node.args if not isinstance(arg, ast.Starred)), None) or keywords.get("input")
    func = node.func
    name = func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
    if _is_inplace_name(name) and not name.startswith("clip_grad"):
        tensor = receiver(node)
        if tensor is not None:
            yield tensor
        elif first is not None:
            yield first
    elif first is not None and (_says_inplace(node) or (isinstance(func, ast.Call) and _says_inplace(func))):
        yield first


def _guessed(statement: ast.AST) -> Iterator[ast.expr]:
    """``nnf.relu_(h)``: what looks like a method may be a function of a module under a name that we do not know."""
    call = getattr(statement, "value", None)
    if isinstance(call, ast.Call) and call.args and isinstance(receiver(call), ast.Name):
        func = call.func
        if (
            isinstance(func, ast.Attribute)
            and _is_inplace_name(func.attr)
            and not isinstance(call.args[0], ast.Starred)
        ):
            yield call.args[0]


def _says_inplace(call: ast.Call) -> bool:
    """``inplace=True``; or a bare True at the end of a functional's positional arguments."""
    for keyword in call.keywords:
        if keyword.arg == "inplace":
            return not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)
    last = call.args[-1] if len(call.args) > 1 else None
    return isinstance(last, ast.Constant) and last.value is True and _is_function(call.func)


def _readings(node: ast.expr) -> Iterator[ast.expr]:
    """A written expression less its views; an index that may also be a list's or a dict's is left on in a later one."""
    current: ast.expr | None = node
    ambiguous: list[ast.expr] = []
    while current is not None:
        current = _strip(current)
        if current is None or not isinstance(current, ast.Subscript):
            break
        ambiguous.append(current)
        if isinstance(current.slice, ast.Constant) and isinstance(current.slice.value, str):
            break  # a dict's item: tensors have no string index
        current = current.value
    if current is not None and is_path(current) and current not in ambiguous:
        store = isinstance(getattr(node, "ctx", None), ast.Store)
        # `out[i] = v` writes `out`; `rows[i].mul_(2)` writes what a person calls `rows[i]`.
        found = [current, *reversed(ambiguous)] if store else [*ambiguous, current]
    else:
        found = list(ambiguous)
    yield from (part for part in found if is_path(part))


def _strip(node: ast.expr) -> ast.expr | None:
    """Takes views, in-place results and slices off: what is left is a path with plain indices, or None."""
    while True:
        if isinstance(node, ast.NamedExpr):
            return node.target
        if isinstance(node, ast.Attribute):
            if node.attr not in VIEW_ATTRIBUTES:
                return node
            node = node.value
        elif isinstance(node, ast.Subscript):
            if _plain_index(node.slice):
                return node
            node = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = node.func.attr
            if name not in VIEW_METHODS and not _is_inplace_name(name):
                return None
            if not _is_function(node.func):
                node = node.func.value
            elif node.args:
                node = node.args[0]
            else:
                return None
        else:
            return node if isinstance(node, ast.Name) else None


def _plain_index(index: ast.expr) -> bool:
    """An index that a list or a dict takes too: a constant, a name, or arithmetic of these; no slice, no tuple."""
    if isinstance(index, ast.Constant):
        return isinstance(index.value, int | str) and not isinstance(index.value, bool)
    if isinstance(index, ast.UnaryOp | ast.BinOp):
        return not is_deep(index) and all(
            _plain_index(part) for part in ast.iter_child_nodes(index) if isinstance(part, ast.expr)
        )
    return is_path(index)


def _is_function(func: ast.expr) -> bool:
    """Whether what is called is a function of torch's (``F.relu_``) rather than a tensor's method."""
    if isinstance(func, ast.Name):
        return True
    while isinstance(func, ast.Attribute):
        func = func.value
        if isinstance(func, ast.Name):
            return func.id in _FUNCTION_ROOTS
    return False


def _is_inplace_name(name: str) -> bool:
    return name in _INPLACE_DUNDERS or (name.endswith("_") and not name.endswith("__"))


def _operands(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Call):
        tensor = receiver(node)
        if tensor is not None:
            yield tensor
        for arg in [*node.args, *(keyword.value for keyword in node.keywords)]:
            yield from arg.elts if isinstance(arg, ast.List | ast.Tuple) else [arg]
    elif isinstance(node, ast.AugAssign):
        yield from (node.target, node.value)
    else:
        yield from (child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr))


def _targets(statement: ast.AST) -> list[ast.expr]:
    if isinstance(statement, ast.Assign | ast.Delete):
        flat: list[ast.expr] = []
        for target in statement.targets:
            flat.extend(target.elts if isinstance(target, ast.Tuple | ast.List) else [target])
        return flat
    if isinstance(statement, ast.AnnAssign | ast.AugAssign):
        return [statement.target]
    return []


def _target_names(target: ast.expr) -> tuple[str, ...]:
    if isinstance(target, ast.Tuple | ast.List):
        return tuple(name for part in target.elts for name in _target_names(part))
    return (unparse(target),) if is_path(target) else ()


def _assigned(statement: ast.stmt, expression: ast.AST) -> tuple[str, ...]:
    if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
        return ()
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    if _same(statement.value, expression):
        return tuple(name for target in targets for name in _target_names(target))
    names: list[str] = []
    for target in targets:  # `a, b = f(x), g(x)`
        if isinstance(target, ast.Tuple | ast.List) and isinstance(statement.value, ast.Tuple | ast.List):
            pairs = zip(target.elts, statement.value.elts, strict=False)
            names.extend(name for part, value in pairs if _same(value, expression) for name in _target_names(part))
    return tuple(names)


def _same(node: ast.AST, other: ast.AST) -> bool:
    return node is other
