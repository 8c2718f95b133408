"""Results of `torch.autograd.grad` that share memory: which of them one statement writes, and which another one reads."""

from __future__ import annotations

import ast
import dataclasses
import linecache
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch

from jupyter_inplace._syntax import parse, unparse
from jupyter_inplace.explain.backward.facts import BackwardFacts, CutFact, GradientFact
from jupyter_inplace.explain.graph import numbers
from jupyter_inplace.explain.graph.quiet import quiet
from jupyter_inplace.explain.names.names import Names
from jupyter_inplace.record.backward.call import Backward
from jupyter_inplace.record.base.geometry import View, shared_bytes, view_of
from jupyter_inplace.record.base.torch_private import storage_id
from jupyter_inplace.record.channels.grad_results import GradResult, WrittenResult
from jupyter_inplace.record.session import Session
from jupyter_inplace.record.source.expressions import is_path, written_names
from jupyter_inplace.record.source.resolver import SiteResolver, positions

#: Attributes and methods of a tensor that do not read its values.
_ABOUT = frozenset({"shape", "dtype", "device", "ndim", "size", "dim", "numel", "layout", "requires_grad", "stride"})


def after_grad(session: Session, call: Backward, names: Callable[[], Names]) -> None:
    """A `grad` call is over: remember its results that share memory. `names` is called only if some do."""
    by_storage: dict[int, list[int]] = {}
    for i, result in enumerate(call.results):
        if isinstance(result, torch.Tensor) and (storage := storage_id(result)):
            by_storage.setdefault(storage, []).append(i)
    if len(by_storage) == len(call.results) or call.facts is None or not session.grad_results.wants(call.site):
        return
    with quiet(session):
        _remember(session, call, by_storage, names)


def _remember(session: Session, call: Backward, by_storage: dict[int, list[int]], names: Callable[[], Names]) -> None:
    found: Names | None = None
    for places in by_storage.values():
        views = {i: view_of(call.results[i]) for i in places}
        alike = [i for i in places if any(i != k and _overlap(views[i], views[k]) for k in places)]
        if not alike:
            continue
        found = found or names()
        members = [(i, _name(found, call, i), view) for i in alike if (view := views[i]) is not None]
        session.grad_results.add(
            GradResult(call.site, call.facts, members, call.results[alike[0]]), call.results[alike[0]]
        )


def _overlap(a: View | None, b: View | None) -> bool:
    return a is not None and b is not None and shared_bytes(a, b) > 0


def _name(names: Names, call: Backward, i: int) -> str:
    given = call.inputs[i] if i < len(call.inputs) else None
    found = names.of_memory(given) if isinstance(given, torch.Tensor) else None
    return found or f"input{i}"


def tell(session: Session, resolver: SiteResolver) -> None:
    """Add the rows of results that were changed to the facts of the calls that returned them."""
    for shared in session.grad_results.all:
        facts, shared.facts = shared.facts, None
        if facts is not None and shared.latest is not None:
            _written_twice(shared, facts)
            _written_and_read(shared, facts, resolver)


# --- one by one, or all in one operation ---------------------------------------------------------------------------------------


def _written_twice(shared: GradResult, facts: BackwardFacts) -> None:
    """Each result was written in turn, and each write changed all of them."""
    for first, second, after in _pairs(shared):
        together = first.order == second.order
        if not together and not _for_each(second):
            continue
        meant = None if together else second.before
        hit = [m for m in shared.members if _changed(after, second.before, m)]
        for _, leaf, view in hit:
            _spoil(facts, leaf, _part(after, view), None if meant is None else _part(meant, view))
        if hit:
            leaves = [leaf for _, leaf, _ in hit]
            note = f"overwrote the gradients of {' and '.join(leaves)}, which share their memory, each time"
            facts.add_cut(_cut(facts, second, leaves, note))
            if meant is None:
                facts.note(
                    "gradients that share their memory were written in one operation: what was meant of each is not known"
                )


def _pairs(shared: GradResult) -> Iterator[tuple[WrittenResult, WrittenResult, torch.Tensor]]:
    """A place that wrote twice: all that was written in between counts as one round; also the memory after the second round."""
    writes = shared.writes
    done = 0
    for j in range(1, len(writes)):
        same = [i for i in range(j) if (writes[i].frame, writes[i].place) == (writes[j].frame, writes[j].place)]
        if not same or j < done:
            continue
        done = 2 * j - same[-1]
        after = writes[done].before if done < len(writes) else shared.latest
        if after is not None:
            yield writes[same[-1]], writes[j], after


def _for_each(write: WrittenResult) -> bool:
    """Whether the statement writes to a loop variable, so to a different result each time."""
    code, lasti = write.place[0].code, write.place[1]
    line, end, _, _ = positions(code, lasti)
    tree = _tree(code.co_filename)
    if tree is None or line is None:
        return False
    written = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and node.lineno == line
        for name in written_names(unparse(node))
        if not isinstance(node, (ast.For, ast.While, ast.If, ast.With))
    }
    loops = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.For) and n.lineno <= line and (end or line) <= (n.end_lineno or line)
    ]
    inner = max(loops, key=lambda loop: loop.lineno, default=None)
    return inner is not None and bool(written & _names(inner.target))


# --- one written, another read -------------------------------------------------------------------------------------------------


def _written_and_read(shared: GradResult, facts: BackwardFacts, resolver: SiteResolver) -> None:
    paths, container = _bound(shared, resolver)
    if not paths:
        return
    written: dict[int, WrittenResult] = {}
    for number, write in enumerate(shared.writes):
        site = resolver.resolve(write.row.site)
        said = set(written_names(site)) if site is not None else set()
        hit = [i for i, path in paths.items() if path in said]
        if len(hit) == 1:
            written.setdefault(hit[0], write)
        for place, other in list(written.items()):
            later = [frames for count, frames in shared.reads if count > number]
            read = _read(later, paths, container, resolver, write)
            for member in shared.members:
                if member[0] != place and member[0] in read and other is write:
                    _report(shared, facts, write, member)


def _report(shared: GradResult, facts: BackwardFacts, write: WrittenResult, member: tuple[int, str, View]) -> None:
    at = shared.writes.index(write) + 1
    after = shared.writes[at].before if at < len(shared.writes) else shared.latest
    if after is not None and _changed(after, write.before, member):
        _spoil(facts, member[1], _part(after, member[2]), _part(shared.writes[0].before, member[2]))
        note = f"overwrote the gradient of {member[1]} too, which shares its memory and was read after that"
        facts.add_cut(_cut(facts, write, [member[1]], note))


def _bound(shared: GradResult, resolver: SiteResolver) -> tuple[dict[int, str], str | None]:
    """What the statement of the call binds each result to, by position, and the variable that holds them all, if any."""
    expression, statement = resolver.statement_of(shared.site)
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1 or expression is None:
        return {}, None
    target, value = statement.targets[0], statement.value
    whole = value is expression or (
        isinstance(value, ast.Call) and len(value.args) == 1 and value.args[0] is expression
    )
    if not whole:
        return {}, None
    if isinstance(target, ast.Name):
        return {i: f"{target.id}[{i}]" for i, _, _ in shared.members}, target.id
    if isinstance(target, (ast.Tuple, ast.List)) and all(is_path(part) for part in target.elts):
        return {i: unparse(target.elts[i]) for i, _, _ in shared.members if i < len(target.elts)}, None
    return {}, None


def _read(
    reads: list[list[tuple[Any, tuple[str, ...]]]],
    paths: dict[int, str],
    container: str | None,
    resolver: SiteResolver,
    write: WrittenResult,
) -> set[int]:
    """The positions of the results that these expressions read."""
    found: set[int] = set()
    for frames in reads:
        for key, holding in frames:
            site = resolver.resolve(key)
            if site is None or key == write.row.site:
                continue
            text = _parsed(site.text)
            if text is None:
                continue
            if container is not None and _whole(text, container, _tree(key[0].code.co_filename), site.line):
                found.update(paths)
            said = {unparse(node) for node in _values(text)}
            found.update(i for i, path in paths.items() if path in said and _root(path) in holding)
    return found


def _root(path: str) -> str:
    return re.split(r"[.\[]", path, maxsplit=1)[0]


def _values(tree: ast.AST) -> Iterator[ast.AST]:
    """The names, attributes and items whose values an expression reads."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.Name, ast.Attribute, ast.Subscript)) and isinstance(child.ctx, ast.Load):
                asked = isinstance(node, ast.Attribute) and node.attr in _ABOUT
                if not asked:
                    yield child


def _whole(text: ast.AST, container: str, tree: ast.AST | None, line: int) -> bool:
    """Whether an expression reads all items of a container, or the variable of a loop over it."""
    for node in ast.walk(text):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Name) and child.id == container and not isinstance(node, ast.Subscript):
                return not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len")
    names = _names(text)
    for loop in ast.walk(tree) if tree is not None else ():
        over = isinstance(loop, ast.For) and loop.lineno <= line <= (loop.end_lineno or line)
        if over and names & _names(loop.target) and container in _names(loop.iter):  # type: ignore[attr-defined]
            return True
    return False


# --- rows ----------------------------------------------------------------------------------------------------------------------


def _part(flat: torch.Tensor, view: View) -> torch.Tensor:
    return flat.as_strided(view.shape, view.stride, view.offset)


def _changed(after: torch.Tensor, before: torch.Tensor, member: tuple[int, str, View]) -> bool:
    return numbers.compare(_part(after, member[2]), _part(before, member[2]))[0] != "ok"


def _spoil(facts: BackwardFacts, leaf: str, as_run: torch.Tensor, meant: torch.Tensor | None) -> None:
    status, relative, cosine = ("wrong", None, None) if meant is None else numbers.compare(as_run, meant)
    for task in facts.tasks:
        row = facts.row(task, leaf) or GradientFact(task, leaf)
        facts.put_row(
            dataclasses.replace(
                row,
                status=status if status != "ok" else row.status,
                norm_as_run=numbers.norm(as_run),
                norm_reference=None if meant is None else numbers.norm(meant),
                relative_difference=relative,
                cosine=cosine,
            )
        )


def _cut(facts: BackwardFacts, write: WrittenResult, leaves: list[str], note: str) -> CutFact:
    return CutFact(
        write.row, list(facts.tasks), leaves, verdict="corrupts", note=note, effects=("overwrites_gradients",)
    )


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _tree(file: str) -> ast.AST | None:
    return _parsed("".join(linecache.getlines(file)))


def _parsed(text: str) -> ast.AST | None:
    try:
        tree: ast.AST = parse(text)
    except SyntaxError:
        return None
    return tree
