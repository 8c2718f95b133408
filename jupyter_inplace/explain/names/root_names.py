"""Chooses the name of a root if several names hold it: the one that a person would use."""

from __future__ import annotations

import ast
import functools
import linecache
import re
from typing import Any

import torch

from jupyter_inplace._syntax import parse
from jupyter_inplace.explain.names.names import Names

_NUMBERED = re.compile(r"\[\d+\]$")


def root_name(root: torch.Tensor, names: Names, text: str, file: str | None) -> str | None:
    """The name of a root. `text` is the call that started from it, `file` the source that contains the call.

    An item of a container with several roots tells more than the loop variable, and so does an assigned variable; of two such
    names the one in the call is used. A variable that the value was computed for, and that is in the call, tells more than an
    index into a list to which it was appended afterwards: each iteration of a training loop may keep its loss.
    """
    own = names.of(root)
    if own is None or own.endswith("]"):
        return own
    items = [name for name, t in names.tensors if t is root and name.endswith("]")]
    if _says(text, own) and own in _made_variables(file):
        items = [name for name in items if not _NUMBERED.search(name)]
    for item in items:
        container = item.rpartition("[")[0]
        others = [t for name, t in names.tensors if name.rpartition("[")[0] == container and t is not root]
        if any(t.numel() == 1 and t.requires_grad for t in others):
            return item
    space = names.spaces[0] if names.spaces else {}
    aliases = [name for name, value in list(space.items()) if value is root and not name.startswith("_")]
    if len(aliases) < 2 or own not in aliases:
        return own
    assigned = [name for name in aliases if name not in _loop_variables(file)] or aliases
    said = [name for name in assigned if _says(text, name)]
    return (said or ([own] if own in assigned else assigned))[0]


def _says(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(name)}\b", text) is not None


def _loop_variables(file: str | None) -> frozenset[str]:
    """The names that the `for` statements of a source bind."""
    return _variables_in(_source(file))[0]


def _made_variables(file: str | None) -> frozenset[str]:
    """The names to which a source assigns a computed value, not something that already has a name; without loop variables."""
    loop, made = _variables_in(_source(file))
    return made - loop


def _source(file: str | None) -> str:
    return "".join(linecache.getlines(file)) if file is not None else ""


@functools.lru_cache(maxsize=8)
def _variables_in(source: str) -> tuple[frozenset[str], frozenset[str]]:
    try:
        tree: Any = parse(source)
    except SyntaxError:
        return frozenset(), frozenset()
    loops = [node.target for node in ast.walk(tree) if isinstance(node, ast.For | ast.AsyncFor)]
    assigned: dict[bool, list[Any]] = {False: [], True: []}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            assigned[isinstance(node.value, ast.Name | ast.Subscript | ast.Attribute)].extend(node.targets)
    return _names_in(loops), _names_in(assigned[False]) - _names_in(assigned[True])


def _names_in(targets: list[Any]) -> frozenset[str]:
    return frozenset(
        node.id
        for target in targets
        for node in ast.walk(target)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )
