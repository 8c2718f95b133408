"""Gradients kept under a name, overwritten through `.grad`, and read afterwards."""

from __future__ import annotations

import ast
import linecache
import re
from collections.abc import Callable
from typing import Any

import torch

from jupyter_inplace._syntax import parse
from jupyter_inplace.explain.backward.facts import BackwardFacts, CutFact, GradientFact
from jupyter_inplace.explain.backward.task_graph import TaskGraph
from jupyter_inplace.explain.graph import numbers
from jupyter_inplace.explain.names.names import Names
from jupyter_inplace.record.backward.call import Backward
from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.channels.grad_aliases import GradAlias, KnownGrad
from jupyter_inplace.record.session import Session
from jupyter_inplace.record.source.resolver import SiteResolver
from jupyter_inplace.report.data import Site

_MENTION = re.compile(r"\.grad\b(?!\s*\()")


def mentions_grad(source: str | None) -> bool:
    """Whether a source mentions `.grad`, as every program that keeps a gradient does."""
    return source is not None and _MENTION.search(source) is not None


def before_backward(tasks: TaskGraph, call: Backward) -> None:
    """A backward is about to add to the `.grad` of its leaves in place: copy the gradients that a name holds."""
    if not call.accumulate or call.create_graph:  # with create_graph the sum is a new tensor
        return
    session, graph, names = tasks.session, tasks.graph, tasks.names
    leaves = [graph.nodes[i].variable for i in graph.leaves]
    for leaf in leaves:
        grad = leaf.grad
        if grad is None or grad.layout is not torch.strided:
            continue
        if private.is_wrapper(grad):
            if names.bound_to(grad):
                session.blind_spots.setdefault(
                    f"gradients of the class {type(grad).__name__} that a name holds are not followed"
                )
            continue
        _say_if_exported(session, grad, names.of(leaf) or "a leaf")
        bound = names.bound_to(grad)
        if bound:
            row = session.table.row(
                "AccumulateGrad", call.site, None, id(leaf), private.storage_id(grad), session.seconds(), call.order
            )
            if not row.count:
                row.shape, row.dtype, row.device = (
                    tuple(grad.shape),
                    str(grad.dtype).removeprefix("torch."),
                    str(grad.device),
                )
                row.version_before, row.version_after = grad._version, grad._version + 1
            row.count += 1
            _keep(session, grad, bound, row, names.of_memory(leaf) or "?")


def after_backward(session: Session, leaves: list[tuple[str, Any]], tasks: list[str]) -> None:
    """Remember which storage now holds the gradient of which leaf and tasks."""
    gradients = session.grad_aliases
    for name, leaf in leaves:
        grad = leaf.grad
        if grad is not None and not private.is_wrapper(grad):
            storage = private.storage_id(grad)
            before = gradients.held(storage)
            earlier = before.tasks if before is not None else []
            gradients.know(storage, KnownGrad(name, list(dict.fromkeys([*earlier, *tasks])), grad))


def after_write(
    session: Session, t: torch.Tensor, write: Any, names: Callable[[], Names], before: torch.Tensor
) -> None:
    """A dispatched write changed a known gradient: note it if a name holds it."""
    known = session.grad_aliases.held(private.storage_id(t))
    if known is None:  # the write replaced the memory of `t`
        return
    _say_if_exported(session, t, known.leaf)
    bound = names().bound_to(t)
    if bound:
        _keep(session, t, bound, write, known.leaf, before)


def _say_if_exported(session: Session, grad: torch.Tensor, leaf: str) -> None:
    """Note that an array over a gradient's memory changes with it: reads of the array cannot be observed."""
    if session.exported_memory.has_left(private.storage_id(grad)):
        session.blind_spots.setdefault(
            f"the memory of {leaf}.grad was handed out (numpy, DLPack ...) and overwritten since: what reads it there is not seen"
        )


def _keep(
    session: Session, grad: torch.Tensor, bound: list[str], write: Any, leaf: str, before: torch.Tensor | None = None
) -> None:
    storage = private.storage_id(grad)
    if any(
        kept.storage == storage and set(bound) <= set(kept.names) and not kept.reads
        for kept in session.grad_aliases.kept
    ):
        return  # the first value after the binding is the intended one
    known = session.grad_aliases.held(storage)
    tasks = known.tasks if known is not None else []
    value = before if before is not None else grad.detach().clone()
    session.grad_aliases.add(GradAlias(storage, leaf, list(tasks), bound, value, session.order, write))


def facts(session: Session, resolver: SiteResolver, order: int, time: float) -> BackwardFacts | None:
    """The rows of kept gradients that were read after they had changed; None if there are none."""
    read = [kept for kept in session.grad_aliases.kept if kept.current is not None and _was_read(kept, resolver)]
    changed = [(kept, found) for kept in read if (found := numbers.compare(kept.current, kept.before))[0] != "ok"]
    if not changed:
        return None
    out = BackwardFacts(list(dict.fromkeys(task for kept, _ in changed for task in _tasks(kept))), order, None, time)
    for kept, (status, relative, cosine) in changed:
        sizes = numbers.norm(kept.current), numbers.norm(kept.before)
        for task in _tasks(kept):
            out.add_row(GradientFact(task, kept.leaf, status, *sizes, relative, cosine))
        out.add_cut(CutFact(kept.write, _tasks(kept), [kept.leaf], verdict="corrupts"))
        out.note(f"{kept.names[0]} shares its memory with {kept.leaf}.grad and was read after that had changed")
    return out


def _tasks(kept: GradAlias) -> list[str]:
    """The tasks of a kept gradient; if they are not known, the name that holds it stands in for them."""
    return kept.tasks or [kept.names[0]]


def _was_read(kept: GradAlias, resolver: SiteResolver) -> bool:
    write_site = resolver.resolve(kept.write.site)
    roots = {re.split(r"[.\[]", name)[0] for name in kept.names}
    for frames in kept.reads:
        for depth, (key, local) in enumerate(frames):
            site = resolver.resolve(key)
            if site is None or (
                write_site is not None and (site.file, site.line) == (write_site.file, write_site.line)
            ):
                continue
            words = _names_read(site.line_text)
            hit = words & (set(local) | (roots if depth == len(frames) - 1 else set()))
            if any(not _bound_again(name, site, write_site, key) for name in hit):
                return True
    return False


def _names_read(text: str) -> set[str]:
    """The names that a line reads; attributes and assignment targets do not count."""
    try:
        is_header = text.startswith(("for ", "if ", "while ", "with "))
        tree = parse(f"{text} pass" if is_header else text.rstrip(":"))
    except SyntaxError:
        return set(re.findall(r"\b[A-Za-z_]\w*\b", text))
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def _bound_again(name: str, read: Site, write: Site | None, key: Any) -> bool:
    """Whether the name was rebound between the write and the read, as far as the order of lines and loops tells."""
    if write is None or write.file != read.file:
        return False
    lines = linecache.getlines(key[0].code.co_filename)
    try:
        tree = parse("".join(lines))
    except SyntaxError:
        return False
    bindings = [
        (node.lineno, node)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.For))
        and any(
            isinstance(t, ast.Name) and t.id == name
            for target in _targets(node)
            for t in ast.walk(target)
            if isinstance(getattr(t, "ctx", None), ast.Store)
        )
    ]
    before = [line for line, _ in bindings if line < read.line]
    if not before:
        return False
    last = max(before)
    if write.line < last:
        # Bound below the write: in the same loop, that binding follows each write.
        return (
            _loop_of(tree, last) == _loop_of(tree, write.line)
            or _loop_of(tree, last) is None
            or _encloses(tree, write.line, last)
        )
    if _loop_of(tree, last) is not None and _loop_of(tree, last) == _loop_of(tree, read.line):
        return write.line > read.line  # written at the end of an iteration, rebound at the beginning of the next
    return False


def _targets(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.Assign):
        return list(node.targets)
    return [node.target] if isinstance(node, (ast.AnnAssign, ast.For)) else []


def _loops(tree: ast.AST, line: int) -> list[ast.AST]:
    return [
        n
        for n in ast.walk(tree)
        if isinstance(n, (ast.For, ast.While)) and n.lineno <= line <= (n.end_lineno or n.lineno)
    ]


def _loop_of(tree: ast.AST, line: int) -> int | None:
    loops = _loops(tree, line)
    return max(loop.lineno for loop in loops) if loops else None  # type: ignore[attr-defined]


def _encloses(tree: ast.AST, inner: int, outer: int) -> bool:
    """Whether all loops around line `outer` also contain line `inner`."""
    return {id(n) for n in _loops(tree, outer)} <= {id(n) for n in _loops(tree, inner)}
