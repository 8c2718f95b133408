"""Names that a cell binds before anything in it reads them: their earlier values do not matter to its next run."""

from __future__ import annotations

import ast
import warnings

from jupyter_inplace._syntax import parse
from jupyter_inplace.rewrite.syntax.mask import mask

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def rebound_names(source: str) -> frozenset[str]:
    """The names that the top level of a cell certainly binds before it reads them; none if it is not Python.

    Only unconditional statements count: assignments, definitions and imports that are not indented. A name that a function of
    the cell mentions counts as read where the function is defined.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the cell's warnings were shown when it ran
            tree = parse(mask(source).text)
    except SyntaxError:
        return frozenset()
    bound: set[str] = set()
    read: set[str] = set()
    for statement in tree.body:
        read |= _read(statement) - bound
        bound |= _bound(statement) - read
    return frozenset(bound)


def _read(statement: ast.stmt) -> set[str]:
    names = {
        node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store)
    }
    if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
        names.add(statement.target.id)
    return names


def _bound(statement: ast.stmt) -> set[str]:
    if isinstance(statement, _DEFINITIONS):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets = [statement.target]
    elif isinstance(statement, ast.With):
        targets = [item.optional_vars for item in statement.items if item.optional_vars is not None]
    return {
        node.id
        for target in targets
        for node in ast.walk(target)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
