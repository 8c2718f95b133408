"""Which backwards are followed until their gradients are read, and the rows of those whose gradients were cleared unread."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator

import torch

from jupyter_inplace._syntax import parse
from jupyter_inplace.explain.backward.facts import BackwardFacts, CutFact, GradientFact
from jupyter_inplace.explain.graph.graph import Graph, Node, is_leaf_node
from jupyter_inplace.explain.graph.pull import Edge
from jupyter_inplace.explain.graph.split import RootPart
from jupyter_inplace.record.backward.call import Backward
from jupyter_inplace.record.base.torch_private import storage_id
from jupyter_inplace.record.channels.discarded_grads import Cleared, Given
from jupyter_inplace.record.session import Session
from jupyter_inplace.record.source.sites import SiteResolver
from jupyter_inplace.report.words import EFFECT_WORDS

#: What is done with a `.grad` on the way to clearing it.
_CLEARING = frozenset({"zero_", "detach_", "requires_grad_", "data", "grad_fn"})


def begins(
    session: Session,
    call: Backward,
    graph: Graph,
    parts: list[tuple[str, RootPart]],
    targets: dict[Edge, str],
    facts: BackwardFacts,
    often: bool,
) -> None:
    """A backward call is about to run: what it means for the gradients that were cleared, and whether its own are followed.

    :param often: the call's place has been seen so often that it is followed only if something was lost there.
    """
    unread = session.discarded_grads
    if unread.cleared:
        _meet(session, call, graph, parts)
    if (
        often
        or not call.accumulate
        or call.create_graph
        or call.batched
        or unread.retained
        or session.exported_memory.policy != "exported"  # else nobody knows what reads memory from outside
        or session.other_hooks
        or session.engine.hooks_since()
    ):
        return
    leaves = [graph.nodes[i] for i in graph.leaves]
    if call.inputs:
        if not all(isinstance(t, torch.Tensor) and t.is_leaf for t in call.inputs):
            return
        wanted = {id(t) for t in call.inputs}
        leaves = [node for node in leaves if id(node.variable) in wanted]
    if not leaves or any(_has_reader(node.variable) for node in leaves):
        return
    if graph.named("BackwardHookFunctionBackward"):
        return
    names = {node: targets.get((node, 0), "?") for node in leaves}
    bits = graph.bits({graph.position[node]: 1 << i for i, node in enumerate(leaves)})
    tasks = []
    for task, part in parts:
        here = bits[graph.position[part.edge[0]]]
        tasks.append((task, _key(part.edge[0]), {names[node] for i, node in enumerate(leaves) if here >> i & 1}))
    call.given = (
        Given(tasks, call.site, call.sequence, unread.floor, facts),
        [(names[node], node.variable) for node in leaves],
    )


def ended(session: Session, call: Backward) -> None:
    """A backward call is over."""
    unread = session.discarded_grads
    if call.given is not None and call.finished:
        given, leaves = call.given
        # Another task of the same forward needs a graph that is still alive; a step without gradients, leaves that never had any there.
        if session.index.any_alive() or not all(id(leaf) in unread.stepped for _, leaf in leaves):
            unread.gave(given, leaves)
            return
    if call.accumulate and (unread.held or unread.cleared):
        unread.forget()


def _meet(session: Session, call: Backward, graph: Graph, parts: list[tuple[str, RootPart]]) -> None:
    unread = session.discarded_grads
    nodes = [node for node in graph.nodes if not is_leaf_node(node)]
    keys = {_key(node) for node in nodes}
    wanted = {id(t) for t in call.inputs}
    filled = {id(leaf): storage_id(leaf) for leaf in (graph.nodes[i].variable for i in graph.leaves)}
    rest: list[Given] = []
    for given in unread.cleared:
        given.followed = True
        given.tasks = [task for task in given.tasks if task[1] not in keys]  # the others get their gradient after all
        if not given.tasks:
            continue
        rest.append(given)
        shared = [key for key in given.cleared if key in filled and (not wanted or key in wanted)]
        if call.accumulate and shared and _of_one_forward(given, call, nodes, parts):
            given.shared.update((key, filled[key]) for key in shared)
    unread.cleared = rest
    unread.watch_assignments()


def _of_one_forward(given: Given, call: Backward, nodes: list[Node], parts: list[tuple[str, RootPart]]) -> bool:
    """Whether a task of this call was there before the cleared one's backward, or reads what that one's forward made.

    In a loop around one call only the former counts: what a round reads may have been made once, before the loop.
    """
    if any(not is_leaf_node(part.edge[0]) and part.edge[0]._sequence_nr() < given.sequence for _, part in parts):
        return True
    return call.site != given.site and any(given.floor <= node._sequence_nr() < given.sequence for node in nodes)


def _key(node: Node) -> tuple[str, int]:
    return type(node).__name__, node._sequence_nr()


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
            facts.cuts.append(_cut(given, items))


def _cut(given: Given, items: list[Cleared]) -> CutFact:
    leaves = sorted({item.leaf for item in items})
    tasks = [task for task, _, names in given.tasks if names & set(leaves)]
    note = EFFECT_WORDS["discards_gradient"]
    return CutFact(items[0].write, tasks, leaves, note=note, effects=("discards_gradient",))


def _lose(facts: BackwardFacts, task: str, leaf: str, norm: float | None) -> None:
    row = next((row for row in facts.gradients if (row.task, row.leaf) == (task, leaf)), None)
    if row is None:
        row = GradientFact(task, leaf, norm_reference=norm)
        facts.gradients.append(row)
        if norm is None:
            facts.notes.append(
                "gradients of several tasks had been added up when they were cleared: how large each was is not known"
            )
    row.status, row.norm_as_run, row.cosine = "lost", 0.0, None
    row.relative_difference = 1.0 if row.norm_reference else None


def _mentioned_between(given: Given, resolver: SiteResolver) -> bool:
    """Whether the source reads `.grad` of something between the backward and the clearing: nobody sees `w.grad.tolist()`."""
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
        if end.line < start.line:  # the next round of a loop
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
    """The lines that look at `.grad` of something for more than clearing it."""
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
