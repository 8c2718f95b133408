"""Writes while backward runs: by hooks of tensors and modules, by hooks on accumulated gradients, by a Function's own backward."""

from __future__ import annotations

from random_programs.draft import Draft, Kind
from random_programs.graphs import PLAIN, SAVES_RESULT, begin, grow, loss, make, save
from random_programs.places import Writer, backward, losses, rounds, saved_victim
from random_programs.silent.aliases import data, dlpack, numpy, storage

_UNSEEN: tuple[Writer, ...] = (data, data, data, numpy, storage, dlpack)


def _tensor_hook(d: Draft) -> None:
    """A hook on a value that comes after the one that is written; now and then on one that comes before it, which is too late."""
    begin(d, imports="import numpy as np")
    with rounds(d):
        grow(d)
        h, out, leaf = saved_victim(d)
        late = h if d.chance(0.12) and not leaf and not h.startswith("x") else ""
        y = out
        if d.chance(0.5):
            y = make(d, PLAIN[:4] + SAVES_RESULT[:3], a=out)
        hook = d.name("hook")
        with d.block(f"def {hook}({'*given' if not late else 'g'}):"):
            d.pick(_UNSEEN)(d, h, leaf)
        on = late or y
        how = d.pick(("tensor", "tensor", "node", "before node", "multi", "loss"))
        if how == "node" and not late:
            d.add(f"{y}.grad_fn.register_hook({hook})" if y != out else f"{y}.register_hook({hook})")
        elif how == "before node" and not late:
            d.add(f"{on}.grad_fn.register_prehook({hook})")
        elif how == "multi" and not late:
            d.add(f"torch.autograd.graph.register_multi_grad_hook(({on},), {hook})")
        elif how != "loss" or late:
            d.add(f"{on}.register_hook({hook})")
        d.values.append(y)
        grow(d, most=1)
        if d.chance(0.3):
            first, second = loss(d, y), loss(d, y)
            d.add(f"{first}.backward(retain_graph=True)", f"{second}.backward()")
        elif how == "loss" and not late:
            last = loss(d, y)
            d.add(f"{last}.register_hook({hook})", f"{last}.backward()")
        else:
            backward(d, losses(d, [y]))


def _module_hook(d: Draft) -> None:
    """The hook of a later module, or of a later leaf's accumulated gradient, writes what an earlier operation saved."""
    last = d.name("last")
    how = d.pick(("full", "full", "pre", "post", "post"))
    if how == "post":
        d.add(f"{last} = (torch.rand(C, C) * 0.5).requires_grad_()")
        d.oracle(f"leaf({last})")
    else:
        d.add(f"{last} = {d.pick(('nn.Linear(C, C)', 'nn.Sequential(nn.Linear(C, C), nn.Tanh())'))}")
        d.oracle(f"leaf({last})")
    with rounds(d):
        grow(d)
        h, out, leaf = saved_victim(d)
        if d.chance(0.4):
            out = make(d, PLAIN[:4], a=out)
        hook = d.name("hook")
        with d.block(f"def {hook}(*given):"):
            d.pick(_UNSEEN)(d, h, leaf)
        if how == "post":
            d.add(f"handle = {last}.register_post_accumulate_grad_hook({hook})")
            y = make(d, (f"{{a}} @ {last}", f"torch.tanh({{a}} @ {last})"), a=out)
        else:
            d.add(f"handle = {last}.register_full_backward_{'hook' if how == 'full' else 'pre_hook'}({hook})")
            y = make(d, (f"{last}({{a}})", f"torch.tanh({last}({{a}}))"), a=out)
        d.values.append(y)
        grow(d, most=1)
        backward(d, losses(d, [y]))
        d.add("handle.remove()")


def _own_backward(d: Draft) -> None:
    """A Function whose backward uses memory that it saved for its result, as fused kernels do; others have saved the same memory."""
    name = d.name("Reuse")
    value, factor = d.pick(
        (
            ("a * torch.sigmoid(a)", "torch.sigmoid(a) * (1 + a * (1 - torch.sigmoid(a)))"),
            ("torch.sin(a)", "torch.cos(a)"),
            ("a * a", "2.0 * a"),
        )
    )
    attribute = d.chance(0.4)
    with d.block(f"class {name}(torch.autograd.Function):"):
        d.add("@staticmethod")
        with d.block("def forward(ctx, a):"):
            d.add("ctx.a = a" if attribute else "ctx.save_for_backward(a)", f"return {value}")
        d.add("@staticmethod")
        with d.block("def backward(ctx, g):"):
            d.add("a = ctx.a" if attribute else "a, = ctx.saved_tensors", f"result = g * ({factor})")
            if d.chance(0.08):
                d.add("return result")
            else:
                way = d.pick(("data", "data", "returns", "returns", "numpy", "numpy", "detach", "no grad"))
                if way in ("data", "returns"):
                    d.write("a.data.copy_(‹result›)")
                elif way == "detach":
                    d.write(d.pick(("a.detach().copy_(‹result›)", "a.detach().zero_()")))
                elif way == "numpy":
                    d.write("np.copyto(a.detach().numpy(), ‹result.numpy()›)")
                else:
                    d.write(d.pick(("a.copy_(‹result›)", "a.mul_(0.5)", "a.zero_()")))  # grad mode is off in a backward
                d.add("return a.detach()" if way == "returns" else "return result")
    with rounds(d):
        grow(d)
        if d.chance(0.85):  # somebody else reads the memory, further on in backward
            h = make(d, SAVES_RESULT)
            others = []
        else:
            h = make(d, PLAIN[:8])
            others = [save(d, h)]
        y = d.name("y")
        d.add(f"{y} = {name}.apply({h})")
        out = make(d, PLAIN[:4], a=y)
        d.values.append(out)
        grow(d, most=1)
        backward(d, losses(d, [out, *others]))


def _backward_writer(d: Draft) -> None:
    begin(d, imports="import numpy as np")
    (_own_backward if d.chance(0.4) else _module_hook)(d)


KINDS: dict[str, Kind] = {"tensor_hook": _tensor_hook, "backward_writer": _backward_writer}
