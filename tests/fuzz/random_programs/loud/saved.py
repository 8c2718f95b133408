"""Writes to saved tensors that bump the version: backward raises if it reads the tensor. Some of them are never read."""

from __future__ import annotations

from random_programs.draft import Draft, Kind
from random_programs.graphs import begin, grow, loss, make, save
from random_programs.places import Writer, after_saving, backward, losses, rounds
from random_programs.silent.aliases import detach, no_grad

_RECORDED = (
    "{t}.mul_({k})", "{t}.add_({c})", "{t} *= {k}", "{t} += {c}", "{t}[0] = {k}", "{t}[:, 1].zero_()", "{t}.relu_()", "{t}.view(-1)[2:4].mul_({k})", "{t}.copy_({c})", "{t}.neg_()",
    "{t}.t()[0].add_({k})", "torch._foreach_mul_([{t}], {k})", "F.relu_({t})", "{t}.masked_fill_({c} > 1.0, 0.0)", "{t}.index_fill_(1, torch.tensor([0]), {k})", "{t}.clamp_(-0.1, 0.1)", "{t}[{c} > 1.0] = {k}",
    "F.dropout({t}, 0.5, True, True)", "{t}.lerp_({c}, 0.5)", "{t}.sub_({c}).div_({k})", "nn.ReLU(inplace=True)({t})", "{t}.addcmul_({c}, {c})",
)  # fmt: skip


def _recorded(d: Draft, target: str, leaf: bool) -> None:
    form = d.pick(_RECORDED).format(t=target, k=d.number(), c=d.pick(d.constants))
    if d.chance(0.3) and " = " not in form and "= " not in form:
        f = d.name("write")
        with d.block(f"def {f}({target}):"):
            d.write(form)
        d.add(f"{f}({target})")
    else:
        d.write(form)


def _no_grad(d: Draft, target: str, leaf: bool) -> None:
    (no_grad if d.chance(0.6) else detach)(d, target, leaf)


def _after(writer: Writer, kinds: tuple[str, ...]) -> Kind:
    def program(d: Draft) -> None:
        begin(d)
        after_saving(d, writer, kinds=kinds, inside=False)

    return program


def _slots(d: Draft) -> None:
    """A buffer whose slots are written in a loop that also reads it: torch counts versions for the whole of it."""
    begin(d)
    with rounds(d, p=0.3):
        grow(d, most=1)
        n = d.rng.randint(3, 4)
        d.add(f"out = torch.zeros({n}, R, C)", f"out[0] = {d.value()}")
        with d.block(f"for t in range(1, {n}):"):
            read = d.pick(
                (
                    "torch.tanh(out[t - 1]) * {v}",
                    "out[t - 1] * {v}",
                    "out[t - 1] @ {m}",
                    "out[t - 1].pow(2) + {v}",
                    "out[t - 1] + {v}",
                    "out[t - 1].clone() * {v}",
                )
            )
            d.write(f"out[t] = {read.format(v=d.value(), m=d.pick(d.square))}")
        d.add("y = out.sum(0)")
        d.values.append("y")
        grow(d, most=1)
        backward(d, losses(d, ["y"]))


def _step_between(d: Draft) -> None:
    """An optimizer's step between two backwards of one graph."""
    begin(d)
    d.add(
        "opt = torch.optim."
        + d.pick(
            (
                "SGD([{p}], lr=0.1)",
                "Adam([{p}], lr=0.1)",
                "AdamW([{p}], lr=0.1)",
                "SGD([{p}], lr=0.1, foreach=False)",
                "Adam([{p}], lr=0.1, foreach=True)",
            )
        ).format(p=d.parameters)
    )
    with rounds(d, p=0.3, step=False):
        grow(d)
        shared = make(d, ("{a} @ {m}", "{a} * {w}", "torch.tanh({a} @ {m})", "{a} + {w}"), w=d.pick(d.leaves))
        d.values.append(shared)
        first, second = loss(d, save(d, shared)), loss(d, save(d, shared))
        late = d.chance(0.15)
        d.add(f"{first}.backward(retain_graph=True)")
        if not late:
            d.write("opt.step()")
            d.oracle(f"update({d.parameters})")
        d.add(f"{second}.backward()")
        if late:
            d.write("opt.step()")
            d.oracle(f"update({d.parameters})")
        d.add("opt.zero_grad()")


KINDS: dict[str, Kind] = {
    "recorded": _after(_recorded, ("result", "input", "data")),
    "unrecorded": _after(_no_grad, ("result", "input", "leaf", "weight", "data")),
    "slots": _slots,
    "step_between": _step_between,
}
