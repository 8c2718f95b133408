"""Writes that custom Functions hide: memory kept on `ctx` beside what is saved, and a forward that writes its input unsaid."""

from __future__ import annotations

from random_programs.draft import Draft, Kind
from random_programs.graphs import PLAIN, begin, fresh, grow, loss, make, save
from random_programs.places import backward, losses, rounds
from random_programs.silent.aliases import data, dlpack, no_grad, numpy

# forward's result and backward's factor, from the tensor that is kept.
_OF_INPUT = (
    ("torch.sin({x})", "torch.cos({x})"),
    ("{x} * {x}", "2.0 * {x}"),
    ("torch.exp(0.5 * {x})", "0.5 * torch.exp(0.5 * {x})"),
    ("torch.tanh({x})", "1 - torch.tanh({x}) ** 2"),
)
_OF_RESULT = (
    ("torch.exp(0.5 * {x})", "0.5 * {x}"),
    ("torch.sigmoid({x})", "{x} * (1 - {x})"),
    ("torch.tanh({x})", "1 - {x} * {x}"),
)
# How it is kept, and how it is found again.
_KEPT = (
    ("ctx.x = {x}", "ctx.x"), ("ctx.parts = [{x}, 1.0]", "ctx.parts[0]"), ("ctx.parts = dict(x={x})", "ctx.parts['x']"), ("ctx.pair = ({x}.shape, {x})", "ctx.pair[1]"),
    ("ctx.x = {x}.detach()", "ctx.x"), ("ctx.flat = {x}.view(-1)", "ctx.flat.view(R, C)"), ("ctx.again = lambda: {x}", "ctx.again()"),
)  # fmt: skip


def _function(d: Draft, kept: str, again: str, of_result: bool) -> str:
    name = d.name("Keep")
    forward, factor = d.pick(_OF_RESULT if of_result else _OF_INPUT)
    with d.block(f"class {name}(torch.autograd.Function):"):
        d.add("@staticmethod")
        with d.block("def forward(ctx, a):"):
            d.add(f"y = {forward.format(x='a')}", kept.format(x="y" if of_result else "a"), "return y")
        d.add("@staticmethod")
        with d.block("def backward(ctx, g):"):
            d.add(f"x = {again}", f"return g * ({factor.format(x='x')})")
    return name


def _recorded(d: Draft, target: str, leaf: bool) -> None:
    """A write that autograd records and takes for right: it does not know of the other reader."""
    k = d.number()
    forms = (
        "{t}.mul_({k})",
        "{t} *= {k}",
        "{t}[0] = {k}",
        "{t}.add_({c})",
        "{t}[:, 1].zero_()",
        "{t}.tanh_()",
        "{t}.copy_({c})",
    )
    d.write(d.pick(forms).format(t=target, k=k, c=d.pick(d.constants)))


def _ctx(d: Draft) -> None:
    begin(d, imports="import numpy as np")
    of_result = d.chance(0.35)
    copied = d.chance(0.05)
    kept, again = ("ctx.x = {x}.clone()", "ctx.x") if copied else d.pick(_KEPT)
    keep = _function(d, kept, again, of_result)
    with rounds(d):
        grow(d)
        h = fresh(d)
        y = d.name("y")
        d.add(f"{y} = {keep}.apply({h})")
        out = make(d, PLAIN[:4], a=y)
        target = y if of_result else h
        place = d.pick(("before", "before", "between", "late") if d.chance(0.2) else ("before", "between"))
        # In between two backwards the second one reads nothing of the written value but through the Function.
        writer = d.pick((_recorded, _recorded, data, no_grad, numpy, dlpack))
        if place == "between":
            first, second = loss(d, out), loss(d, out)
            d.add(f"{first}.backward(retain_graph=True)")
            writer(d, target, False)
            d.add(f"{second}.backward()")
            return
        d.values.append(out)
        grow(d, most=1)
        if place == "late":
            backward(d, losses(d, [out]))
            writer(d, target, False)
            return
        writer(d, target, False)
        outs = [out]
        if writer is _recorded and d.chance(0.5):
            outs.append(save(d, target))
        backward(d, losses(d, outs))


def _no_mark_dirty(d: Draft) -> None:
    """The Function's own backward is right; what is wrong is what others read in its input's memory."""
    begin(d)
    name = d.name("Scale")
    k = d.number()
    write, factor = d.pick(
        (
            ("a.mul_({k})", "{k}"),
            ("a.neg_()", "-1.0"),
            ("a *= {k}", "{k}"),
            ("torch.mul(a, {k}, out=a)", "{k}"),
            ("a[0].mul_({k})", "weight"),
        )
    )
    returned = d.pick(("a", "a.clone()", "a + 0.5"))
    with d.block(f"class {name}(torch.autograd.Function):"):
        d.add("@staticmethod")
        with d.block("def forward(ctx, a):"):
            d.write(write.format(k=k))
            d.add(f"return {returned}")
        d.add("@staticmethod")
        with d.block("def backward(ctx, g):"):
            if factor == "weight":
                d.add("g = g.clone()", f"g[0] = g[0] * {k}", "return g")
            else:
                d.add(f"return g * {factor.format(k=k)}")
    with rounds(d):
        grow(d)
        h = fresh(d)
        y = d.name("y")
        outs = [make(d, ("{a} + {b}", "{a} * 0.5"), a=h)] if d.chance(0.4) else []
        d.add(f"{y} = {name}.apply({h})")
        if d.chance(0.9):
            again = save(d, h) if d.chance(0.7) else make(d, PLAIN[:4], a=h)
            d.values.append(again)
            outs.append(again)
        if d.chance(0.6) or not outs:
            d.values.append(y)
            outs.append(make(d, PLAIN[:4], a=y))
        grow(d, most=1)
        backward(d, losses(d, outs))


KINDS: dict[str, Kind] = {"ctx": _ctx, "no_mark_dirty": _no_mark_dirty}
