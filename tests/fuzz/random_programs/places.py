"""Where in a program a write stands: between forward and backward, between two backwards, inside one, across rounds, too late.

A scene is given a writer, ``writer(d, target, leaf)``, which adds the statements of the write to `target`, and what the oracle must know
of it if the target is a leaf (`leaf`): an update.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from random_programs.draft import Draft
from random_programs.graphs import PLAIN, SAVES_RESULT, expression, fresh, grow, loss, make, save

Writer = Callable[[Draft, str, bool], None]


@contextlib.contextmanager
def rounds(d: Draft, p: float = 0.4, step: bool = True) -> Iterator[bool]:
    """The body of a training loop, with a step at the end of each round; now and then the body alone. Yields whether it is a loop."""
    if not d.chance(p):
        yield False
        return
    how = d.pick(("sgd", "adam", "manual", "none", "none")) if step else "none"
    if how == "sgd":
        d.add(f"opt = torch.optim.SGD([{d.parameters}], lr=0.05{d.pick(('', ', momentum=0.9', ', foreach=False'))})")
    elif how == "adam":
        d.add(f"opt = torch.optim.{d.pick(('Adam', 'AdamW'))}([{d.parameters}], lr=0.01)")
    with d.block(f"for r in range({d.rng.randint(2, 3)}):"):
        yield True
        if how in ("sgd", "adam"):
            d.add("opt.step()")
            d.oracle(f"update({d.parameters})")
            d.add(d.pick(("opt.zero_grad()", "opt.zero_grad()", "opt.zero_grad(set_to_none=False)")))
        elif how == "manual":
            with (
                d.block("with torch.no_grad():"),
                d.block(f"for p in [{d.parameters}]:"),
                d.block("if p.grad is not None:"),
            ):
                d.add(d.pick(("p -= 0.05 * ‹p.grad›", "p.sub_(‹p.grad›, alpha=0.05)", "p.add_(-0.05 * ‹p.grad›)")))
                d.oracle("update(p)")
                d.add("p.grad = None")


def backward(d: Draft, losses: list[str], grad: bool = True) -> None:
    """The backward calls of a program's losses, which may share a graph; `grad`: also by `torch.autograd.grad`."""
    form = d.pick(("sum", "weighted", "each", "list", *(("grad",) * grad)))
    if form == "each" or len(losses) == 1:
        for i, name in enumerate(losses):
            d.add(f"{name}.backward({'retain_graph=True' if i < len(losses) - 1 else ''})")
    elif form == "sum":
        d.add(f"({' + '.join(losses)}).backward()")
    elif form == "weighted":
        total = d.name("total")
        d.add(f"{total} = {' + 0.5 * '.join(losses)}", f"{total}.backward()")
    elif form == "list":
        d.add(f"torch.autograd.backward([{', '.join(losses)}])")
    else:
        grads = d.name("grads")
        d.add(
            f"{grads} = torch.autograd.grad({' + '.join(losses)}, [{', '.join([*d.leaves, *d.square])}], allow_unused=True)"
        )
        d.add(f"size = sum(float(g.norm()) for g in {grads} if g is not None)")


def losses(d: Draft, outs: list[str]) -> list[str]:
    """One loss for each of some values, and now and then one more task."""
    names = [loss(d, out) for out in outs]
    if d.values and d.chance(0.3):
        names.append(loss(d, d.pick(d.values)))
    return names


# --- written after it was saved: backward reads something else than what forward wrote ---------------------------------------


def saved_victim(
    d: Draft, kinds: tuple[str, ...] = ("result", "input", "input", "leaf", "weight", "data")
) -> tuple[str, str, bool]:
    """Memory that a node saves: its name, the value that came of it, and whether it is a leaf."""
    kind = d.pick(kinds)
    if kind == "result":
        h = make(d, SAVES_RESULT)
        return h, make(d, PLAIN[:4], a=h), False
    if kind == "leaf":
        w = d.pick(d.leaves)
        return w, save(d, w), True
    if kind == "weight":
        m = d.pick(d.square)
        return m, make(d, ("{a} @ {m}", "F.linear({a}, {m})", "torch.tanh({v} @ {m})"), m=m), True
    if kind == "data":
        x = saved_data(d)
        return x, make(d, ("{v} * {x}", "{x} * {v}", "torch.addcmul({b}, {v}, {x})"), x=x), False
    h = fresh(d)
    return h, save(d, h), False


def after_saving(
    d: Draft,
    writer: Writer,
    kinds: tuple[str, ...] = ("result", "input", "input", "leaf", "weight", "data"),
    inside: bool = True,
) -> None:
    """A program whose write comes after the save; a few come too late to matter."""
    place = d.pick(
        ("before", "before", "between", "between", "delayed", *(("inside",) * inside), "late")
        if d.chance(0.6)
        else ("before", "between")
    )
    if place == "delayed":
        _delayed(d, writer, kinds)
        return
    with rounds(d):
        grow(d)
        h, out, leaf = saved_victim(d, kinds)
        if place == "inside":
            _inside(d, writer, h, out, leaf)
            return
        early = place == "before" and d.chance(0.5)
        if early:
            writer(d, h, leaf)
        d.values.append(out)
        grow(d, most=2)
        if place == "before":
            names = losses(d, [out])
            if not early:
                writer(d, h, leaf)
            backward(d, names)
        elif place == "between":
            first = loss(d, d.pick(d.values))
            second = loss(d, out)
            d.add(f"{first}.backward(retain_graph=True)")
            writer(d, h, leaf)
            d.add(f"{second}.backward()")
        else:
            backward(d, losses(d, [out]))
            writer(d, h, leaf)


def _inside(d: Draft, writer: Writer, h: str, out: str, leaf: bool) -> None:
    hook = d.name("hook")
    with d.block(f"def {hook}(g):"):
        writer(d, h, leaf)
    d.add(f"{out}.register_hook({hook})")
    grow(d, most=1)
    backward(d, losses(d, [out]))


def _delayed(d: Draft, writer: Writer, kinds: tuple[str, ...]) -> None:
    """Across rounds: the backward of a round runs in the next one, and the write stands between."""
    d.add("pending = None")
    shared = tuple(k for k in kinds if k in ("leaf", "weight", "data")) if d.chance(0.5) else ()
    if "data" in shared:
        shared = ("data",)
        victim = saved_data(d)
    with d.block(f"for r in range({d.rng.randint(2, 3)}):"):
        grow(d, most=2)
        if shared == ("data",):
            h, leaf = victim, False
            out = make(d, ("{v} * {x}", "torch.addcmul({b}, {v}, {x})"), x=victim)
        else:
            h, out, leaf = saved_victim(d, shared or kinds)
        d.values.append(out)
        grow(d, most=1)
        name = loss(d, out)
        if shared:
            writer(d, h, leaf)
        with d.block("if pending is not None:"):
            if not shared:
                writer(d, h if leaf else "before", leaf)
            d.add("pending.backward()")
        d.add(f"pending = {name}")
        if not shared:
            d.add(f"before = {h}")
    d.add("pending.backward()")


def saved_data(d: Draft) -> str:
    """A batch: data without a graph, which a product with a value saves."""
    x = d.name("x")
    d.add(f"{x} = torch.rand(R, C) + 0.5")
    return x


# --- written and read again: forward has the new value, and the graph does not know ------------------------------------------


def read_again(d: Draft, writer: Writer) -> None:
    """A program whose write comes before a read that autograd takes for one of the old value. To a leaf it is an update and harms nothing."""
    place = d.pick(("before", "before", "between", "across"))
    leaf = place != "across" and d.chance(0.08)
    if place == "across":
        _carried(d, writer)
        return
    with rounds(d):
        grow(d)
        h = d.pick(d.leaves) if leaf else fresh(d)
        outs = (
            [make(d, ("{a} + {b}", "{a} * 0.5", "{a}.sum(1, keepdim=True) + {c}"), a=h)]
            if d.chance(0.5) or place == "between"
            else []
        )
        if place == "between":
            first = loss(d, outs[0], more=False)
            d.add(f"{first}.backward(retain_graph=True)")
            outs = []
        writer(d, h, leaf)
        out = save(d, h) if d.chance(0.7) else make(d, ("{a} + {b}", "{a} * {v}", "{a}.cumsum(1)", "{a}.t().t()"), a=h)
        if place == "before":
            d.values.append(out)
            grow(d, most=2)
        backward(d, losses(d, [*outs, out]))


def _carried(d: Draft, writer: Writer) -> None:
    """Across rounds: a state with a graph is written at the end of a round and read in the next one."""
    state, parts = d.name("state"), d.name("parts")
    d.add(f"{state} = {expression(d, ('{a} * 0.5', '{a} + {b}', '{a} - {b}'))}", f"{parts} = []")
    with d.block(f"for r in range({d.rng.randint(2, 3)}):"):
        with d.scope():
            grow(d, most=1)
            update = expression(d, ("{a} + 0.3 * {b}", "0.7 * {a} + {b}", "{a} - 0.2 * {v}"), a=state)
            if d.chance(0.5):  # a write to a value that a product saved would be found by torch
                d.add(f"{state} = {update}")
                d.add(f"{parts}.append({expression(d, ('{a}.sum()', '({a} + {c}).mean()'), a=state)})")
                writer(d, state, False)
            else:
                writer(d, state, False)
                d.add(f"{state} = {update}")
    last = save(d, state)
    d.add(
        f"total = {expression(d, ('{a}.sum()', '{a}.pow(2).mean()', 'loss_of({a}, {c})'), a=last)} + sum({parts})",
        "total.backward()",
    )
