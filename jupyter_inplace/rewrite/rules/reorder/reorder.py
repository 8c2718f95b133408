"""Move the write below the backward that needs the old values: ``opt_D.step()`` below ``G_loss.backward()``.

The write may be in a function; then its call is moved, or the statement itself is moved to the caller. If the backward
would add its own gradients to the step, ``backward(inputs=...)`` keeps them out.
"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.rewrite.syntax.callers import call_sites
from jupyter_inplace.rewrite.syntax.code import Code, Item
from jupyter_inplace.rewrite.syntax.edit import Edit
from jupyter_inplace.rewrite.syntax.move import backwards_in, is_backward, moved_below, remove, said_outside, word
from jupyter_inplace.rewrite.syntax.place import short
from jupyter_inplace.rewrite.syntax.saves import saving_nodes
from jupyter_inplace.rewrite.syntax.tensors import dotted, keyword, last_name
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax

__all__ = ["propose"]

_MOST = 4  # the most places that one statement is moved to


def propose(write: WriteSyntax) -> Iterator[Proposal]:
    """Move the write below each later backward, that of the harmed task first."""
    if write.verdict == "rejected":
        return
    seen: set[tuple[int, int]] = set()
    for depth, (item, small) in enumerate(_levels(write, write.node, 3)):
        yield from _along_the_line(write, item, small)
        for target in _later_backwards(write, item, small):
            if (id(item), id(target)) in seen:
                continue
            seen.add((id(item), id(target)))
            rank = (
                (12 if _is_step(write) else 26)
                + 2 * depth
                + (0 if _is_wanted(write, target) else 4)
                + (20 if write.verdict == "cuts" else 0)
            )
            edits = moved_below(write.code, item, small, target)
            title = f"{short(_name(write.code, item, small), 30)} below {short(_name(write.code, target, None), 30)}"
            yield Proposal("reorder", title, edits, rank)
            yield from _kept_apart(write, target, edits, title, rank + 3)
    yield from _carried_out(write)


def _is_step(write: WriteSyntax) -> bool:
    return isinstance(write.node, cst.Call) and last_name(write.node.func) == "step"


def _levels(write: WriteSyntax, node: cst.CSTNode, depth: int) -> Iterator[tuple[Item, cst.BaseSmallStatement | None]]:
    """The statements that move the write if they are moved: its own, those around it, and the calls of its function."""
    code = write.code
    items = code.items(node)
    for item in items:
        small = code.small(node) if item is items[0] else None
        yield item, small
    function = code.function(node)
    if function is not None and depth:
        for site in call_sites(code, function):
            if function not in list(code.ancestors(site.call)):
                yield from _levels(write, site.call, depth - 1)


def _along_the_line(write: WriteSyntax, item: Item, small: cst.BaseSmallStatement | None) -> Iterator[Proposal]:
    """Swap ``opt.step(); loss.backward()`` on one line."""
    code = write.code
    if small is None or not isinstance(item, cst.SimpleStatementLine):
        return
    at = next(i for i, other in enumerate(item.body) if other is small)
    if any(backwards_in(code, other) for other in item.body[at + 1 :]):
        turned = "; ".join(code.get(other) for other in (*item.body[:at], *item.body[at + 1 :], small))
        start, end = code.span(item.body[0])[0], code.span(item.body[-1])[1]
        title = f"{short(code.get(small), 30)} at the end of its line"
        yield Proposal("reorder", title, (Edit(start, end, turned),), 12)


def _later_backwards(write: WriteSyntax, item: Item, small: cst.BaseSmallStatement | None) -> list[Item]:
    """The later siblings that run a backward and do not use what the moved statement computes."""
    code = write.code
    moved = small if small is not None and isinstance(item, cst.SimpleStatementLine) else item
    if backwards_in(code, moved) or any(_covers(code, moved, code.span(node)[0]) for node, _ in saving_nodes(write)):
        return []  # the saving expression would be moved too
    uses = code.scopes.uses
    made = {use.name for use in uses if use.stores and not use.augmented and _covers(code, moved, use.start)}
    if write.name is not None and code.function(moved) is code.function(write.node):
        made.add(write.name)  # later reads need the written value
    later: list[Item] = []
    for other in code.after(item):
        if any(use.name in made and not use.stores and _covers(code, other, use.start) for use in uses):
            break
        if backwards_in(code, other):
            later.append(other)
    later.sort(key=lambda other: not _is_wanted(write, other))
    return later[:_MOST]


def _covers(code: Code, item: cst.CSTNode, offset: int) -> bool:
    start, end = code.span(item)
    return start <= offset < end


def _is_wanted(write: WriteSyntax, item: Item) -> bool:
    """Whether a statement names a task that the write harms."""
    tasks = {task for m in write.mutations for task in m.tasks} | {task for c in write.conflicts for task in c.tasks}
    text = write.code.get(item)
    return not tasks or any(word(text, task) for task in tasks)


def _name(code: Code, item: Item, small: cst.BaseSmallStatement | None) -> str:
    text = code.get(small or item)
    return text.split("\n", maxsplit=1)[0].rstrip(":")


def _kept_apart(write: WriteSyntax, target: Item, edits: tuple[Edit, ...], title: str, rank: int) -> Iterator[Proposal]:
    """The same move, where backward gives gradients only to the parameters of the optimizers stepped after it."""
    code = write.code
    if not isinstance(write.node, cst.Call) or not isinstance(write.node.func, cst.Attribute) or not _is_step(write):
        return
    own = code.get(write.node.func.value)
    steps = [c for item in code.after(target) for c in code.within(item, cst.Call) if last_name(c.func) == "step"]
    others = [dotted(c.func.value) for c in steps if isinstance(c.func, cst.Attribute)]
    names = list(dict.fromkeys(name for name in others if name and name != own))
    calls = [c for c in code.within(target, cst.Call) if last_name(c.func) == "backward" and is_backward(code, c)]
    if len(names) != 1 or len(calls) != 1 or keyword(calls[0], "inputs"):
        return
    close = code.span(calls[0])[1] - 1
    given = ("" if not calls[0].args else ", ") + f"inputs={_parameters(code, names[0])}"
    yield Proposal("reorder", f"{title}, for {names[0]}'s parameters only", (*edits, Edit(close, close, given)), rank)


def _parameters(code: Code, optimizer: str) -> str:
    """The parameters of an optimizer as the cell passed them, or else those of its groups."""
    for node in code.nodes:
        if isinstance(node, cst.Assign) and any(dotted(t.target) == optimizer for t in node.targets):
            call = node.value
            if isinstance(call, cst.Call) and call.args and not call.args[0].star:
                given = call.args[0].value
                if isinstance(given, cst.Call) and last_name(given.func) == "parameters":
                    return f"list({code.get(given)})"
    group, p = code.fresh("group"), code.fresh("p")
    return f'[{p} for {group} in {optimizer}.param_groups for {p} in {group}["params"]]'


def _carried_out(write: WriteSyntax) -> Iterator[Proposal]:
    """Move ``self.opt.step()`` out of a method, below the backward that the caller of the method runs after it."""
    code, small = write.code, write.small
    function = code.function(write.node)
    if function is None or small is None or not write.is_statement or write.verdict == "rejected":
        return
    if write.name is not None and write.local(write.name) and write.read_later(write.name):
        return  # the rest of the function reads what was written
    edits = [remove(code, small)]
    moved = False
    for site in call_sites(code, function):
        text = said_outside(code, small, function, site.arguments)
        call_item = code.item(site.call)
        if text is None or code.small(site.call) is None:
            return
        later = [item for level in code.items(site.call) for item in _later_here(write, level)]
        moved = moved or bool(later)
        edits.append(code.insert_after(later[-1] if later else call_item, text))
    if moved:
        title = f"{short(code.get(small), 30)} out of {function.name.value} and below the last backward"
        yield Proposal("reorder", title, tuple(edits), 18 if _is_step(write) else 34)


def _later_here(write: WriteSyntax, item: Item) -> list[Item]:
    return [other for other in write.code.after(item) if backwards_in(write.code, other)]
