"""What a root is called, where several names hold it: the one that a person would say."""

from __future__ import annotations

import ast
import functools
import linecache
import re
from typing import Any

import torch

from jupyter_inplace._syntax import parse
from jupyter_inplace.explain.names import Names


def root_name(root: torch.Tensor, names: Names, text: str, file: str | None) -> str | None:
    """The name of a root. `text` is the call that started from it, `file` the source in which that stands.

    An item of a container that holds several roots tells more than the loop variable does, and so does a variable that was
    assigned; of two such the one that the call itself says.
    """
    own = names.of(root)
    if own is None or own.endswith("]"):
        return own
    for item in [name for name, t in names.tensors if t is root and name.endswith("]")]:
        container = item.rpartition("[")[0]
        others = [t for name, t in names.tensors if name.rpartition("[")[0] == container and t is not root]
        if any(t.numel() == 1 and t.requires_grad for t in others):
            return item
    space = names.spaces[0] if names.spaces else {}
    aliases = [name for name, value in list(space.items()) if value is root and not name.startswith("_")]
    if len(aliases) < 2 or own not in aliases:
        return own
    assigned = [name for name in aliases if name not in _loop_variables(file)] or aliases
    said = [name for name in assigned if re.search(rf"(?<![\w.]){re.escape(name)}\b", text)]
    return (said or ([own] if own in assigned else assigned))[0]


def _loop_variables(file: str | None) -> frozenset[str]:
    return _loop_variables_in("".join(linecache.getlines(file))) if file is not None else frozenset()


@functools.lru_cache(maxsize=8)
def _loop_variables_in(source: str) -> frozenset[str]:
    """The names that some `for` of a source binds."""
    try:
        tree: Any = parse(source)
    except SyntaxError:
        return frozenset()
    targets = [node.target for node in ast.walk(tree) if isinstance(node, ast.For | ast.AsyncFor)]
    return frozenset(node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))
