"""``with jupyter_inplace.preserve_saved():`` around what saves and what writes: saved tensors are copied when written.

Nothing else in the program changes. It is the rewrite for source that cannot be edited, and otherwise the last one offered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import libcst as cst

from jupyter_inplace.rewrite.syntax.code import Code, Item
from jupyter_inplace.rewrite.syntax.edit import Edit
from jupyter_inplace.rewrite.syntax.locate import find, statement_at
from jupyter_inplace.rewrite.syntax.move import backwards_in, top_items
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax

__all__ = ["propose", "propose_all"]

_PACKAGE = "jupyter_inplace"


def propose(write: WriteSyntax) -> Iterator[Proposal]:
    """Blocks around save and write: the smallest, then one of top-level statements, then one up to the last backward."""
    yield from propose_all([write])


def propose_all(writes: Sequence[WriteSyntax]) -> Iterator[Proposal]:
    """The same for several writes at once."""
    writes = [write for write in writes if write.verdict in {"breaks", "corrupts"}]
    if not writes:
        return
    code = writes[0].code
    found = [list(_anchors(write)) for write in writes]
    if any(len(anchors) < 2 for anchors in found):
        return  # what was saved before the cell, or not by an expression of it, cannot be inside the block
    anchors = [anchor for group in found for anchor in group]
    ranges = [_common(code, anchors), _at_top(code, writes, anchors)]
    if ranges[1] is not None:
        first, last = ranges[1]
        later = [item for item in (last, *code.after(last)) if backwards_in(code, item)]
        ranges.append((first, later[-1]) if later else None)
    for rank, (first, last) in enumerate(dict.fromkeys(r for r in ranges if r is not None)):
        lines = f"lines {code.line(first)} to {_end_line(code, last)}"
        edits = _under(code, first, last)
        yield Proposal("preserve", f"keep what was saved: preserve_saved() around {lines}", tuple(edits), 90 + rank)


def _anchors(write: WriteSyntax) -> Iterator[cst.CSTNode]:
    """The nodes where the tensors were saved, and where they are written."""
    yield write.node
    for conflict in write.conflicts:
        node, _ = find(write.code, conflict.saved_site, write.report)
        if node is not None:
            yield node


def _common(code: Code, anchors: list[cst.CSTNode]) -> tuple[Item, Item] | None:
    """The first and last statement that the anchors touch in the innermost block around all of them."""
    chains = [[*reversed([n for n in (a, *code.ancestors(a)) if _is_item(n)])] for a in anchors]
    blocks = [[id(code.parent(item)) for item in chain] for chain in chains]
    depth = 0
    while all(len(b) > depth for b in blocks) and len({b[depth] for b in blocks}) == 1:
        depth += 1
    if not depth:
        return None
    items = [chain[depth - 1] for chain in chains]
    if any(isinstance(item, cst.FunctionDef | cst.ClassDef) for item in items):
        return None
    return _extent(code, items)


def _at_top(code: Code, writes: Sequence[WriteSyntax], anchors: list[cst.CSTNode]) -> tuple[Item, Item] | None:
    """The same among the top-level statements of the cell, following calls of functions."""
    items = [item for anchor in anchors for item in top_items(code, anchor)]
    sites = [m.site for w in writes for m in w.mutations] + [c.saved_site for w in writes for c in w.conflicts]
    for site in sites:
        if site is not None and site.cell_line is not None and 1 <= site.cell_line <= code.text.count("\n") + 1:
            node = statement_at(code, site.cell_line)
            items += list(top_items(code, node)) if node is not None else []
    if any(not list(top_items(code, anchor)) for anchor in anchors):  # hooks and backwards are called by autograd
        items += [item for item in code.module.body if _is_item(item) and backwards_in(code, item)]
    items = [item for item in items if not isinstance(item, cst.FunctionDef | cst.ClassDef)]
    return _extent(code, items) if items else None


def _extent(code: Code, items: Sequence[cst.CSTNode]) -> tuple[Item, Item]:
    ordered = sorted((item for item in items if _is_item(item)), key=lambda item: code.span(item)[0])
    first, last = ordered[0], ordered[-1]
    assert isinstance(first, cst.SimpleStatementLine | cst.BaseCompoundStatement)
    assert isinstance(last, cst.SimpleStatementLine | cst.BaseCompoundStatement)
    return first, last


def _under(code: Code, first: Item, last: Item) -> Iterator[Edit]:
    """A ``with`` line, insertions that indent the statements, and the import if it is missing."""
    alias = code.scopes.imported(_PACKAGE)
    if alias is None and _PACKAGE not in code.known:
        yield code.top(f"import {_PACKAGE}")
    unit = code.module.default_indent
    start, end = code.lines(first, last)
    yield Edit(start, start, f"{code.indent(first)}with {alias or _PACKAGE}.preserve_saved():\n")
    inside = code.string_lines(start, end)
    at = start
    while at < end:
        stop = code.text.find("\n", at)
        stop = end if stop < 0 else stop + 1
        if at not in inside and code.text[at:stop].strip():
            yield Edit(at, at, unit)
        at = stop
    yield from _displayed(code, last)


def _displayed(code: Code, last: Item) -> Iterator[Edit]:
    """The last expression of a cell is displayed: compute it inside the block and repeat its name below."""
    if not isinstance(last, cst.SimpleStatementLine) or not code.module.body or last is not code.module.body[-1]:
        return
    shown = last.body[-1]
    text = code.text[code.span(shown)[0] : code.last_line(last)].strip()
    if isinstance(shown, cst.Expr) and isinstance(shown.value, cst.Call) and backwards_in(code, last):
        return  # backward() displays nothing
    if isinstance(shown, cst.Expr) and not text.endswith(";"):
        name = code.fresh("shown")
        start = code.span(shown)[0]
        yield Edit(start, start, f"{name} = ")
        yield code.insert_after(last, name)


def _end_line(code: Code, item: Item) -> int:
    return code.text.count("\n", 0, code.span(item)[1]) + 1


def _is_item(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.SimpleStatementLine | cst.BaseCompoundStatement)
