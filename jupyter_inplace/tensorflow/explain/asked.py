"""Reads the source of a call: `tape.gradient(loss1 + loss2, [w, b])` has the tasks loss1 and loss2 and the leaves w and b."""

from __future__ import annotations

import ast

from jupyter_inplace._syntax import parse, unparse
from jupyter_inplace.record.source.expressions import is_path, path_text
from jupyter_inplace.report.data import Site

_LONG = 60


def target_texts(site: Site | None) -> tuple[str, ...]:
    """The targets as typed, with lists and unnamed sums split into their parts; empty if the source cannot be read."""
    call = _call(site)
    if call is None:
        return ()
    node = _argument(call, 0, "target")
    if node is None or isinstance(node, ast.Starred):
        return ()
    if isinstance(node, ast.List | ast.Tuple):
        return tuple(_text(item) for item in node.elts)
    return tuple(_text(item) for item in addends(node))


def is_sum(site: Site | None) -> bool:
    """Whether the only target is an unnamed sum."""
    call = _call(site)
    node = None if call is None else _argument(call, 0, "target")
    return node is not None and len(addends(node)) > 1


def source_texts(site: Site | None) -> tuple[str, ...]:
    """The sources as typed, if they are written out."""
    call = _call(site)
    node = None if call is None else _argument(call, 1, "sources")
    if node is None:
        return ()
    if isinstance(node, ast.List | ast.Tuple):
        return tuple(_text(item) for item in node.elts)
    return (_text(node),)


def written_text(site: Site | None) -> str | None:
    """The variable that an assign writes, as typed: `w` of `w.assign(3 * x)`, `m` of `m[0].assign(row)`."""
    if site is None:
        return None
    try:
        node = parse(site.text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return None
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return None
    if not node.func.attr.startswith(("assign", "scatter")):
        return None
    owner: ast.expr = node.func.value
    while isinstance(owner, ast.Subscript) and not is_path(owner):
        owner = owner.value
    return path_text(owner, site.text.strip()) if is_path(owner) else None


def addends(node: ast.expr) -> list[ast.expr]:
    """The addends of a sum; the expression itself if it is not a sum."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*addends(node.left), *addends(node.right)]
    return [node]


def _call(site: Site | None) -> ast.Call | None:
    if site is None:
        return None
    try:
        node = parse(site.text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return None
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return None
    return node if node.func.attr in ("gradient", "jacobian", "batch_jacobian") else None


def _argument(call: ast.Call, place: int, name: str) -> ast.expr | None:
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    return call.args[place] if len(call.args) > place else None


def _text(node: ast.expr) -> str:
    text = unparse(node).replace("'", '"')
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"
