"""Gradients kept under a name, while `.grad` goes on in the same memory."""

from __future__ import annotations

from random_programs.draft import Draft, Kind
from random_programs.graphs import begin, grow, loss, save

_USES = (
    "size = float({g}.norm())", "angle = F.cosine_similarity({g}.flatten(), {w}.grad.flatten(), 0)", "conflict = ({g} * {w}.grad).sum()", "both = {g} + {w}.grad", "largest = {g}.abs().max()",
    "share = {g} / ({w}.grad.norm() + {g}.norm() + 1.0)",
)  # fmt: skip


def _kept_grad(d: Draft) -> None:
    begin(d)
    (_listed if d.chance(0.4) else _named)(d)


def _two_losses(d: Draft, w: str) -> tuple[str, str]:
    grow(d)
    d.values.append(save(d, w))
    shared = d.values[-1]
    grow(d, most=1)
    return loss(d, shared), loss(d, save(d, shared), more=False)


def _named(d: Draft) -> None:
    """One gradient under one name."""
    w = d.pick(d.leaves)
    first, second = _two_losses(d, w)
    g = d.name("g")
    how = d.pick(
        ("backward", "backward", "zero", "zero one", "scaled", "clipped")
        if d.chance(0.92)
        else ("cloned", "none", "unused", "read before")
    )
    d.add(f"{first}.backward(retain_graph=True)")
    d.add(f"{g} = {w}.grad{'.clone()' if how == 'cloned' else ''}")
    d.oracle(f"keep({g})")
    if how == "read before":
        d.add(f"size = float({g}.norm())")
    if how == "zero":
        optimizer = f"torch.optim.SGD([{', '.join(d.leaves)}], lr=0.1)"
        d.add(f"opt = {optimizer}")
        d.write("opt.zero_grad(set_to_none=False)")
    elif how == "zero one":
        d.write(
            d.pick(
                (
                    "{w}.grad.zero_()",
                    "{w}.grad.detach().zero_()",
                    "{w}.grad.fill_(0.0)",
                    "torch._foreach_zero_([{w}.grad])",
                )
            ).format(w=w)
        )
    elif how == "scaled":
        d.write(
            d.pick(
                (
                    "{w}.grad.mul_(0.5)",
                    "{w}.grad.div_(4.0)",
                    "{w}.grad.clamp_(-0.01, 0.01)",
                    "{w}.grad /= {w}.grad.norm() * 3.0",
                )
            ).format(w=w)
        )
    elif how == "clipped":
        d.write(
            d.pick(
                (
                    f"nn.utils.clip_grad_norm_([{', '.join(d.leaves)}], 0.001)",
                    f"nn.utils.clip_grad_value_([{w}], 0.001)",
                )
            )
        )
    elif how == "none":
        d.add(f"{w}.grad = None")
    if how in ("zero", "zero one", "scaled", "clipped") and d.chance(0.4):
        d.add(d.pick(_USES[:1] + _USES[4:5]).format(g=g, w=w))
        d.oracle(f"used({g})")
        d.add(f"{second}.backward()")
        return
    d.write(f"{second}.backward()")
    if how not in ("unused", "read before"):
        d.add(d.pick(_USES).format(g=g, w=w))
        d.oracle(f"used({g})")
    else:
        d.add(f"whole = float({w}.grad.norm())")


def _listed(d: Draft) -> None:
    """The gradients of several tasks or rounds in a list."""
    w = d.pick(d.leaves)
    copied = d.chance(0.06)
    each = ".clone()" if copied else ""
    how = d.pick(("tasks", "rounds", "dictionary"))
    d.add("history = {}" if how == "dictionary" else "history = []")
    if how == "rounds":
        clear = d.pick(("none", "none", "zero", "zero", "zero", "all"))
        with d.block(f"for r in range({d.rng.randint(2, 3)}):"):
            if clear == "zero":
                with d.block(f"if {w}.grad is not None:"):
                    d.write(f"{w}.grad.zero_()")
            elif clear == "all":  # harmless: each round has a gradient in memory of its own
                d.add(f"{w}.grad = None")
            grow(d, most=2)
            d.values.append(save(d, w))
            name = loss(d, d.values[-1])
            d.write(f"{name}.backward()")
            d.add(f"history.append({w}.grad{each})")
            d.oracle("keep(history[-1])")
            with d.block("with torch.no_grad():"):
                d.add(f"{w} -= 0.05 * ‹{w}.grad›")
                d.oracle(f"update({w})")
        kept = "history"
    else:
        first, second = _two_losses(d, w)
        d.add(f"tasks = {{'first': {first}, 'second': {second}}}")
        with d.block("for name, task in tasks.items():"):
            d.write("task.backward(retain_graph=True)")
            if how == "dictionary":
                d.add(f"history[name] = {w}.grad{each}")
                d.oracle("keep(history[name])")
            else:
                d.add(f"history.append({w}.grad{each})")
                d.oracle("keep(history[-1])")
        kept = "history.values()" if how == "dictionary" else "history"
    d.add(
        d.pick(
            (
                "sizes = [float(g.norm()) for g in {h}]",
                "mean = sum({h}) / len(history)",
                "stacked = torch.stack(list({h})).mean(0)",
                "angle = (list({h})[0] * list({h})[1]).sum()",
            )
        ).format(h=kept)
    )
    d.oracle(f"used(*list({kept})[:2])")


KINDS: dict[str, Kind] = {"kept_grad": _kept_grad}
