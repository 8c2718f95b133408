"""Gradients cleared before anything read them: which backwards are followed for that, and the rows of those that lost some."""

from __future__ import annotations

import ast
import dataclasses
import linecache
from collections.abc import Iterator, Sequence

import torch

from jupyter_inplace._syntax import parse
from jupyter_inplace.explain.backward.facts import BackwardFacts, CutFact, GradientFact
from jupyter_inplace.explain.backward.task_graph import TaskGraph
from jupyter_inplace.explain.graph.graph import Graph, Node, is_leaf_node, node_key
from jupyter_inplace.explain.graph.split import RootPart
from jupyter_inplace.record.backward.call import Backward
from jupyter_inplace.record.base.torch_private import storage_id
from jupyter_inplace.record.channels.discarded_grads import Cleared, Given
from jupyter_inplace.record.session import Session
from jupyter_inplace.record.source.resolver import SiteResolver
from jupyter_inplace.report.words import EFFECT_WORDS

#: What programs call on a `.grad` to clear it.
_CLEARING = frozenset({"zero_", "detach_", "requires_grad_", "data", "grad_fn"})


def begins(tasks: TaskGraph, call: Backward, facts: BackwardFacts, *, often: bool) -> None:
    """A backward call is about to run: update the cleared gradients, and tell whether to follow the call's own.

    :param often: so many calls were seen at this place that it is followed only if something was lost there.
    """
    session, graph = tasks.session, tasks.graph
    discarded = session.discarded_grads
    if discarded.cleared:
        _meet(tasks, call)
    if (
        often
        or not call.accumulate
        or call.create_graph
        or call.batched
        or discarded.retained
        or session.exported_memory.policy != "exported"  # else reads of the memory from outside go unnoticed
        or session.other_hooks
        or session.engine.hooks_since()
    ):
        return
    leaves = _filled_leaves(graph, call)
    if not leaves or any(_has_reader(node.variable) for node in leaves):
        return
    if graph.named("BackwardHookFunctionBackward"):
        return
    names = {node: tasks.targets.get((node, 0), "?") for node in leaves}
    bits = graph.bits({graph.position[node]: 1 << i for i, node in enumerate(leaves)})
    given = []
    for task, part in tasks.parts:
        here = bits[graph.position[part.edge[0]]]
        given.append((task, node_key(part.edge[0]), {names[node] for i, node in enumerate(leaves) if here >> i & 1}))
    call.given = (
        Given(given, call.site, call.sequence, discarded.floor, facts),
        [(names[node], node.variable) for node in leaves],
    )


def _filled_leaves(graph: Graph, call: Backward) -> list[Node]:
    """The nodes of the leaves whose `.grad` a call fills; none if it fills others too."""
    leaves = [graph.nodes[i] for i in graph.leaves]
    if not call.inputs:
        return leaves
    if not all(isinstance(t, torch.Tensor) and t.is_leaf for t in call.inputs):
        return []
    wanted = {id(t) for t in call.inputs}
    return [node for node in leaves if id(node.variable) in wanted]


def ended(session: Session, call: Backward) -> None:
    """A backward call is over."""
    discarded = session.discarded_grads
    if call.given is not None and call.finished:
        given, leaves = call.given
        # Gradients are lost to another task of the same forward, which needs a graph that is still alive, or to an optimizer step
        # that finds none, where it has never stepped these leaves with one.
        if session.index.any_alive() or not all(id(leaf) in discarded.stepped for _, leaf in leaves):
            discarded.gave(given, leaves)
            return
    if call.accumulate and (discarded.held or discarded.cleared):
        discarded.forget()


def _meet(tasks: TaskGraph, call: Backward) -> None:
    """Take off the list the tasks that this call gives their gradients after all; note which leaves it fills again."""
    discarded, graph = tasks.session.discarded_grads, tasks.graph
    nodes = [node for node in graph.nodes if not is_leaf_node(node)]
    keys = {node_key(node) for node in nodes}
    wanted = {id(t) for t in call.inputs}
    filled = {id(leaf): storage_id(leaf) for leaf in (graph.nodes[i].variable for i in graph.leaves)}
    rest: list[Given] = []
    for given in discarded.cleared:
        given.followed = True
        # The tasks in `keys` get their gradient after all.
        given.tasks = [task for task in given.tasks if task[1] not in keys]
        if not given.tasks:
            continue
        rest.append(given)
        shared = [key for key in given.cleared if key in filled and (not wanted or key in wanted)]
        if call.accumulate and shared and _of_one_forward(given, call, nodes, tasks.parts):
            given.shared.update((key, filled[key]) for key in shared)
    discarded.cleared = rest
    discarded.watch_assignments()


def _of_one_forward(given: Given, call: Backward, nodes: Sequence[Node], parts: Sequence[tuple[str, RootPart]]) -> bool:
    """Whether a task of this call was computed before the cleared one's backward, or shares part of its forward.

    In a loop around one call only the former counts: what an iteration reads may have been computed once, before the loop.
    """
    if any(not is_leaf_node(part.edge[0]) and part.edge[0]._sequence_nr() < given.sequence for _, part in parts):
        return True
    return call.site != given.site and any(given.floor <= node._sequence_nr() < given.sequence for node in nodes)


def _has_reader(leaf: torch.Tensor) -> bool:
    return bool(leaf._backward_hooks or leaf._post_accumulate_grad_hooks)


# --- the rows --------------------------------------------------------------------------------------------------------------


def tell(session: Session, resolver: SiteResolver) -> None:
    """Add the rows of what was lost to the facts of the calls that had given it."""
    for given in session.discarded_grads.all_lost():
        facts, given.facts = given.facts, None
        if facts is None or _mentioned_between(given, resolver):
            continue
        single = len(given.tasks) == 1
        for task, _, leaves in given.tasks:
            for item in given.cleared.values():
                if item.leaf in leaves:
                    alone = given.alone and (single or sum(item.leaf in names for _, _, names in given.tasks) == 1)
                    _lose(facts, task, item.leaf, item.norm if alone else None)
        for write in dict.fromkeys(item.write for item in given.cleared.values()):
            items = [item for item in given.cleared.values() if item.write is write]
            write.name = f"{items[0].leaf}.grad"
            facts.add_cut(_cut(given, items))


def _cut(given: Given, items: list[Cleared]) -> CutFact:
    leaves = sorted({item.leaf for item in items})
    tasks = [task for task, _, names in given.tasks if names & set(leaves)]
    note = EFFECT_WORDS["discards_gradient"]
    return CutFact(items[0].write, tasks, leaves, note=note, effects=("discards_gradient",))


def _lose(facts: BackwardFacts, task: str, leaf: str, norm: float | None) -> None:
    row = facts.row(task, leaf)
    if row is None:
        row = GradientFact(task, leaf, norm_reference=norm)
        if norm is None:
            facts.note(
                "gradients of several tasks had been added up when they were cleared: how large each was is not known"
            )
    relative = 1.0 if row.norm_reference else None
    facts.put_row(dataclasses.replace(row, status="lost", norm_as_run=0.0, cosine=None, relative_difference=relative))


def _mentioned_between(given: Given, resolver: SiteResolver) -> bool:
    """Whether the source reads a `.grad` between the backward and the clearing: `w.grad.tolist()` cannot be observed."""
    start = resolver.resolve(given.site)
    for write in {item.write for item in given.cleared.values()}:
        end = resolver.resolve(write.site)
        if start is None or end is None or start.file != end.file:
            continue
        lines = linecache.getlines(given.site[0].code.co_filename)
        try:
            tree = parse("".join(lines))
        except SyntaxError:
            continue
        low, high = start.line, end.end_line or end.line
        if end.line < start.line:  # the next iteration of a loop
            loops = [
                n for n in ast.walk(tree) if isinstance(n, (ast.For, ast.While)) and _holds(n, low) and _holds(n, high)
            ]
            low, high = (
                (max(n.lineno for n in loops), min(n.end_lineno or low for n in loops)) if loops else (1, len(lines))
            )
        if any(low <= line <= high for line in _gradients_read(tree)):
            return True
    return False


def _holds(loop: ast.For | ast.While, line: int) -> bool:
    return loop.lineno <= line <= (loop.end_lineno or loop.lineno)


def _gradients_read(tree: ast.AST) -> Iterator[int]:
    """The lines that use a `.grad` for more than clearing it."""
    guards = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and any(_clears(part) for statement in node.body for part in ast.walk(statement))
        for part in ast.walk(node.test)
    }
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if not (isinstance(child, ast.Attribute) and child.attr == "grad" and isinstance(child.ctx, ast.Load)):
                continue
            called = isinstance(node, ast.Call) and node.func is child  # torch.autograd.grad
            if not (called or id(child) in guards or (isinstance(node, ast.Attribute) and node.attr in _CLEARING)):
                yield child.lineno


def _clears(node: ast.AST) -> bool:
    """Whether this is the `p.grad` of `p.grad = None`, or `p.grad.zero_`."""
    if isinstance(node, ast.Attribute) and node.attr == "zero_":
        return True
    return isinstance(node, ast.Attribute) and node.attr == "grad" and isinstance(node.ctx, ast.Store)
