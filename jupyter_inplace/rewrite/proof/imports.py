"""Imports the libraries that each run of a program would import again once, into the state from before it."""

from __future__ import annotations

import ast
import sys

from jupyter_inplace._syntax import parse
from jupyter_inplace.record.source.sites import is_user_code
from jupyter_inplace.rewrite.sandbox.sandbox import Sandbox
from jupyter_inplace.rewrite.sandbox.snapshot import Snapshot
from jupyter_inplace.rewrite.syntax.mask import mask

__all__ = ["first_imports", "import_once"]

#: What torch imports at the first optimizer step, which takes a second or two.
_LATE = "torch._dynamo"


def import_once(sandbox: Sandbox, source: str) -> None:
    """Make `sandbox` import what `source`, which has run here, imports before it does anything else.

    Settings made before an import may change the library, so imports after the first other statement are left to each run.
    """
    modules = first_imports(source)
    if _LATE in sys.modules and isinstance(sandbox, Snapshot):  # a fork shares what was imported already
        modules.append(_LATE)
    if modules:
        sandbox.prepare(modules)


def first_imports(source: str) -> list[str]:
    """The libraries imported at the top of a program, in order, up to the first of its own modules."""
    try:
        body = parse(mask(source).text).body
    except (SyntaxError, ValueError):
        return []
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        del body[0]  # the docstring
    found: list[str] = []
    for statement in body:
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            names = [statement.module]
        else:
            break
        if not all(map(_is_library, names)):
            break
        found += names
    return found


def _is_library(name: str) -> bool:
    """Whether a module that was imported here belongs to an installed package."""
    if name not in sys.modules:
        return False
    root = name.partition(".")[0]
    origin = getattr(sys.modules.get(root), "__file__", None)
    return root in sys.stdlib_module_names or (isinstance(origin, str) and not is_user_code(origin))
