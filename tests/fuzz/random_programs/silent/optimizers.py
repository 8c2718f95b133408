"""Steps at the wrong moment: fused ones, whose writes bump no version, and steps within hooks."""

from __future__ import annotations

from random_programs.draft import Draft, Kind
from random_programs.graphs import begin, grow, loss, make, save
from random_programs.places import losses, rounds

_FUSED = (
    "torch.optim.SGD([{p}], lr=0.3, fused=True)", "torch.optim.SGD([{p}], lr=0.2, momentum=0.9, fused=True)", "torch.optim.Adam([{p}], lr=0.2, fused=True)",
    "torch.optim.AdamW([{p}], lr=0.2, weight_decay=0.1, fused=True)", "torch.optim.Adagrad([{p}], lr=0.2, fused=True)",
)  # fmt: skip


def _optimizer(d: Draft) -> None:
    d.add("opt = " + d.pick(_FUSED).format(p=d.parameters))


def _step(d: Draft) -> None:
    d.write("opt.step()")
    d.oracle(f"update({d.parameters})")


def _product(d: Draft) -> str:
    """A value whose backward reads a leaf."""
    if d.modules and d.chance(0.4):
        t = d.name("t")
        d.add(f"{t} = {d.pick(d.modules)}(torch.tanh({d.value()}))")
        return t
    forms = ("{a} @ {m}", "torch.tanh({a} @ {m})", "{a} * {w}", "F.linear({a}, {m})", "({a} @ {m}) @ {m}")
    return make(d, forms, w=d.pick(d.leaves))


def _fused(d: Draft) -> None:
    begin(d)
    _optimizer(d)
    place = d.pick(
        ("between", "between", "delayed", "late", "apart") if d.chance(0.25) else ("between", "between", "delayed")
    )
    if place == "delayed":
        d.add("pending = None")
        with d.block(f"for r in range({d.rng.randint(3, 4)}):"):
            grow(d, most=1)
            d.values.append(_product(d))
            grow(d, most=1)
            name = loss(d, save(d, d.values[-1]))
            with d.block("if pending is not None:"):
                d.add("pending.backward()")
                _step(d)
                d.add("opt.zero_grad()")
            d.add(f"pending = {name}")
        d.add("pending.backward()")
        return
    with rounds(d, step=False):
        grow(d)
        shared = _product(d)
        d.values.append(shared)
        first = loss(d, save(d, shared))
        if place == "apart":
            d.add(f"{first}.backward()")
            _step(d)
            with d.scope():
                d.values.clear()
                second = loss(d, _product(d))
            d.add(f"{second}.backward()")
        else:
            grow(d, most=1)
            second = loss(d, save(d, shared))
            d.add(f"{first}.backward(retain_graph=True)")
            if place == "between":
                _step(d)
            d.add(f"{second}.backward()")
            if place == "late":
                _step(d)
        d.add("opt.zero_grad()")


def _step_in_hook(d: Draft) -> None:
    """A hook steps before the rest of backward has read the old weights; the gradients come from a backward before."""
    begin(d)
    if d.chance(0.12):
        _own_optimizers(d)
        return
    _optimizer(d)
    head = d.name("head")
    d.add(f"{head} = (torch.rand(C, C) * 0.5).requires_grad_()")
    d.oracle(f"leaf({head})")
    with rounds(d, step=False, p=0.5):
        grow(d, most=2)
        inner = _product(d)
        d.values.append(inner)
        grow(d, most=1)
        y = make(d, (f"torch.tanh({{a}} @ {head})", f"{{a}} @ {head}", f"F.softplus(F.linear({{a}}, {head}))"), a=inner)
        d.add(
            f"warm = {d.pick(('{a}.pow(2).mean()', '{a}.sum()', 'loss_of({a}, {c})')).format(a=y, c=d.pick(d.constants))}",
            "warm.backward(retain_graph=True)",
        )
        how = d.pick(("tensor", "tensor", "node", "post", "multi"))
        hook = d.name("hook")
        with d.block(f"def {hook}(*given):"):
            _step(d)
            if d.chance(0.3):
                d.add("opt.zero_grad(set_to_none=False)")
        if how == "tensor":
            d.add(f"handle = {y}.register_hook({hook})")
        elif how == "node":
            d.add(f"handle = {y}.grad_fn.register_hook({hook})")
        elif how == "multi":
            d.add(f"handle = torch.autograd.graph.register_multi_grad_hook(({y},), {hook})")
        else:
            d.add(f"handle = {head}.register_post_accumulate_grad_hook({hook})")
        d.add(f"{loss(d, y, more=False)}.backward()")
        d.add("handle.remove()", "opt.zero_grad()")


def _own_optimizers(d: Draft) -> None:
    """Harmless: each parameter is stepped when its own gradient is there, and nothing else reads it after that."""
    d.add(f"opts = {{p: torch.optim.SGD([p], lr=0.1, fused={d.pick((True, False))}) for p in [{d.parameters}]}}")
    with d.block("def step(p):"):
        d.write("opts[p].step()")
        d.oracle("update(p)")
        d.add("opts[p].zero_grad()")
    with d.block("for p in opts:"):
        d.add("p.register_post_accumulate_grad_hook(step)")
    with rounds(d, step=False, p=0.6):
        grow(d, most=2)
        d.values.append(_product(d))
        grow(d, most=1)
        names = losses(d, [d.values[-1]])
        d.add(f"({' + '.join(names)}).backward()")


KINDS: dict[str, Kind] = {"fused": _fused, "step_in_hook": _step_in_hook}
