"""Finds the syntax of the cell for the sites of a report."""

from __future__ import annotations

import re
from collections.abc import Iterable

import libcst as cst

from jupyter_inplace.report.data import HARMFUL, Conflict, Mutation, Report, Site
from jupyter_inplace.rewrite.syntax.code import Code
from jupyter_inplace.rewrite.syntax.tensors import is_inplace_name, last_name
from jupyter_inplace.rewrite.syntax.write import WriteSyntax, form_of, target_of

__all__ = ["find", "in_cell", "statement_at", "writes_of"]


def in_cell(code: Code, site: Site, report: Report) -> bool:
    """Whether the line of the site is in the cell, not in an imported file or an earlier cell."""
    if not 1 <= site.line <= len(code.typed):
        return False
    if report.cell is not None:
        number, shown = report.cell.execution_count, re.fullmatch(r"In\[(\d+)\]", site.file)
        if site.cell_line != site.line or (number is not None and shown and int(shown[1]) != number):
            return False
    return not site.line_text or _squash(code.typed[site.line - 1]) == _squash(site.line_text)


def find(code: Code, site: Site | None, report: Report) -> tuple[cst.CSTNode | None, bool]:
    """The node of a site, and whether it is at the site itself (else it is the node of the cell that led there)."""
    if site is None:
        return None, False
    if in_cell(code, site, report):
        node = _at_columns(code, site) or _by_text(code, site.line, site.text)
        return node or statement_at(code, site.line), True
    if site.cell_line is None:
        return None, False
    return _by_text(code, site.cell_line, site.text) or statement_at(code, site.cell_line), False


def statement_at(code: Code, line: int) -> cst.CSTNode | None:
    """The first small statement on a line; else what the header of the compound statement there computes."""
    start = code.offset(line, 0)
    end = start + len(code.typed[line - 1])
    touching = [n for n in code.nodes if code.span(n)[0] < end and code.span(n)[1] > start]
    for node in touching:
        if isinstance(node, cst.BaseSmallStatement):
            return node
    for node in reversed(touching):
        if isinstance(node, cst.For):
            return node.iter
        if isinstance(node, cst.If | cst.While):
            return node.test
        if isinstance(node, cst.With):
            return node.items[0].item
    return next((n for n in touching if isinstance(n, cst.BaseCompoundStatement)), None)


def writes_of(code: Code, report: Report) -> list[WriteSyntax]:
    """The harmful writes of a report as syntax, in the order of the text; those of one construct together."""
    groups: dict[int, tuple[cst.CSTNode, bool, list[Mutation]]] = {}
    for mutation in report.mutations:
        if mutation.verdict not in HARMFUL or mutation.framework == "tensorflow":
            continue
        if "discards_gradient" in mutation.effects:
            continue  # the gradients of each backward are correct as they are: no reference tells which order was intended
        node, inside = find(code, mutation.site, report)
        if node is None:
            continue
        node = _construct(code, node, mutation)
        groups.setdefault(id(node), (node, inside, []))[2].append(mutation)
    found = []
    for node, inside, mutations in groups.values():
        ids = {m.id for m in mutations}
        conflicts: tuple[Conflict, ...] = tuple(c for c in report.conflicts if c.mutation in ids)
        found.append(WriteSyntax(code, report, tuple(mutations), conflicts, node, form_of(node), inside))
    return sorted(found, key=lambda write: write.start)


def _at_columns(code: Code, site: Site) -> cst.CSTNode | None:
    """The smallest expression or statement around the columns of the site, if its text is that of the site."""
    if site.column is None or site.end_line is None or site.end_column is None:
        return None
    lines = code.text.count("\n") + 1
    if site.end_line > lines:
        return None
    start, end = code.offset(site.line, site.column), code.offset(site.end_line, site.end_column)
    if site.text and _squash(code.text[start:end]) != _squash(site.text):
        return None
    return _smallest(code, start, end)


def _by_text(code: Code, line: int, text: str) -> cst.CSTNode | None:
    """The first node on a line with this text."""
    if not text:
        return None
    wanted = _squash(text)
    for node in code.nodes:
        if code.line(node) == line and _squash(code.text[slice(*code.span(node))]) == wanted:
            return node.value if isinstance(node, cst.Expr) else node
    return None


def _smallest(code: Code, start: int, end: int) -> cst.CSTNode | None:
    around = [n for n in code.nodes if code.span(n)[0] <= start and end <= code.span(n)[1]]
    around = [n for n in around if not isinstance(n, cst.Expr | cst.SimpleStatementLine | cst.Arg)]
    return min(around, key=lambda n: code.span(n)[1] - code.span(n)[0], default=None)


def _construct(code: Code, node: cst.CSTNode, mutation: Mutation) -> cst.CSTNode:
    """The whole writing construct around a located node: the end of a chain, the assignment of a target."""
    for step in (node, *code.ancestors(node)):
        if isinstance(step, cst.AugAssign | cst.Assign | cst.AnnAssign):
            target = target_of(step, form_of(step))
            plain = not isinstance(step, cst.AugAssign) and not isinstance(target, cst.Subscript | cst.Attribute)
            if step is node and plain:
                break  # a plain `y = f(x)`: the write is in the value
            if step is node or (target is not None and _is_within(code, node, target)):
                return step
        if isinstance(step, cst.BaseStatement | cst.Lambda):
            break
    calls = [c for c in code.within(node, cst.Call) if form_of(c) != "call"]
    if isinstance(node, cst.Call):
        calls = [node]
    elif isinstance(node, cst.BaseCompoundStatement):
        calls = []
    node = _likeliest(calls, mutation) or _any_call(code, node) or node
    while form_of(node) == "method":
        attribute = code.parent(node)
        call = code.parent(attribute) if isinstance(attribute, cst.Attribute) else None
        if not (isinstance(call, cst.Call) and call.func is attribute and is_inplace_name(last_name(call.func))):
            break
        node = call
    return node


def _likeliest(calls: Iterable[cst.Call], mutation: Mutation) -> cst.Call | None:
    """The call named like the op (``aten.mul_.Tensor``: ``mul_``), else the first one."""
    calls = list(calls)
    op = mutation.op.split(".")
    named = (call for call in calls if last_name(call.func) in op)
    return next(named, calls[0] if calls else None)


def _any_call(code: Code, node: cst.CSTNode) -> cst.Call | None:
    """The outermost call of a small statement."""
    if isinstance(node, cst.BaseCompoundStatement):
        return None
    return next(code.within(node, cst.Call), None)


def _is_within(code: Code, inner: cst.CSTNode, outer: cst.CSTNode) -> bool:
    s, e = code.span(inner)
    first, last = code.span(outer)
    return first <= s and e <= last


def _squash(text: str) -> str:
    return re.sub(r"\s+", "", text.split("  #", maxsplit=1)[0])
