"""In-place writes and constants within a forward, done right."""

from __future__ import annotations

from random_programs.benign.state import loop, optimizer, step, task
from random_programs.draft import Draft, Kind
from random_programs.graphs import begin, expression, fresh, grow, make, save
from random_programs.places import backward, losses


def _trained(d: Draft, out: str) -> None:
    """The rest of a round: more values, losses, backward, step."""
    d.values.append(out)
    grow(d, most=1)
    backward(d, losses(d, [save(d, out)]))
    step(d)


def _inplace_relu(d: Draft) -> None:
    begin(d)
    act = d.pick(
        (
            "nn.ReLU(inplace=True)",
            "nn.LeakyReLU(0.1, inplace=True)",
            "nn.ELU(inplace=True)",
            "nn.ReLU(True)",
            "nn.CELU(inplace=True)",
        )
    )
    d.add(f"act = nn.Sequential(nn.Linear(C, C), {act}, nn.Linear(C, C))")
    d.oracle("leaf(act)")
    d.modules.append("act")
    optimizer(d)
    with d.block(loop(d)):
        grow(d, most=1)
        t = fresh(d)
        form = d.pick(
            (
                "F.relu_({t})",
                "{t}.relu_()",
                "torch.relu_({t})",
                "{t} = F.leaky_relu({t}, 0.2, inplace=True)",
                "{t} = F.relu({t}, inplace=True)",
                "{t}.sigmoid_()",
                "{t}.tanh_()",
                "{t}.exp_()",
            )
        )
        d.add(form.format(t=t))
        _trained(d, t)


def _inplace_dropout(d: Draft) -> None:
    begin(d)
    d.add("drop = nn.Sequential(nn.Linear(C, C), nn.Dropout(0.3, inplace=True))")
    d.oracle("leaf(drop)")
    d.modules.append("drop")
    optimizer(d)
    with d.block(loop(d)):
        grow(d, most=1)
        t = fresh(d)
        d.add(
            d.pick(
                (
                    f"F.dropout({t}, 0.4, training=True, inplace=True)",
                    f"{t} = F.dropout({t}, 0.4, True, True)",
                    f"{t}.mul_((torch.rand(R, C) > 0.3) / 0.7)",
                    f"F.alpha_dropout({t}, 0.3, True)",
                    f"{t}.masked_fill_(torch.rand(R, C) < 0.3, 0.0)",
                )
            )
        )
        _trained(d, t)


def _straight_through(d: Draft) -> None:
    begin(d)
    own = d.chance(0.4)
    if own:
        with d.block("class Through(torch.autograd.Function):"):
            d.add("@staticmethod")
            with d.block("def forward(ctx, x):"):
                d.add(
                    d.pick(
                        (
                            "return x.round()",
                            "return (x > 0).to(x.dtype)",
                            "return torch.sign(x)",
                            "y = x.clone(); y.round_(); return y",
                        )
                    )
                )
            d.add("@staticmethod")
            with d.block("def backward(ctx, g):"):
                d.add("return g")
        # Its own backward is taken as given: for the oracle the value is the input and a constant.
        d.oracle(
            "through, Through = Through, type('Through', (), dict(apply=staticmethod(lambda x: x + hold((through.apply(x) - x).detach()))))"
        )
    optimizer(d)
    with d.block(loop(d)):
        grow(d, most=2)
        h = d.value()
        t = d.name("t")
        if own:
            d.add(f"{t} = Through.apply({h})")
        else:
            d.add(
                f"{t} = "
                + d.pick(
                    (
                        "{h} + ‹({h}.round() - {h}).detach()›",
                        "‹({h}.sign() - {h}).detach()› + {h}",
                        "{h} + ‹(torch.floor({h} * 4) / 4).detach() - {h}.detach()›",
                    )
                ).format(h=h)
            )
        _trained(d, t)


def _quantisation(d: Draft) -> None:
    begin(d)
    optimizer(d)
    d.add("low, high = torch.zeros(()), torch.ones(())")
    with d.block(loop(d)):
        grow(d, most=2)
        h = d.value()
        with d.block("with torch.no_grad():"):
            d.add(
                *d.pick(
                    (
                        (f"low.copy_(torch.minimum(low, {h}.min()))", f"high.copy_(torch.maximum(high, {h}.max()))"),
                        (f"low.mul_(0.9).add_(0.1 * {h}.min())", f"high.lerp_({h}.max(), 0.1)"),
                    )
                )
            )
        d.oracle("pin(low, high)")
        d.add("scale = (high - low) / 15")
        t = d.name("t")
        d.add(f"{t} = {h} + ‹(((({h} - low) / scale).round() * scale + low) - {h}).detach()›")
        _trained(d, t)


def _weight_norm(d: Draft) -> None:
    begin(d)
    how = d.pick(("weight_norm", "orthogonal", "own"))
    if how == "own":
        with d.block("class Unit(nn.Module):"), d.block("def forward(self, w):"):
            d.add("return w / w.norm(dim=1, keepdim=True)")
        d.add("wn = nn.Linear(C, C)", "nn.utils.parametrize.register_parametrization(wn, 'weight', Unit())")
    elif how == "weight_norm":
        d.add("wn = nn.utils.parametrizations.weight_norm(nn.Linear(C, C))")
    else:
        d.add("wn = nn.utils.parametrizations.weight_norm(nn.Linear(C, C), dim=None)")
    d.oracle("leaf(wn)")
    d.modules.append("wn")
    optimizer(d)
    with d.block(loop(d)):
        grow(d, most=1)
        d.add(f"y = wn({d.value()})")
        _trained(d, "y")


def _masks(d: Draft) -> None:
    begin(d)
    optimizer(d)
    d.add("causal = torch.ones(R, R).tril() == 0")
    with d.block(loop(d)):
        grow(d, most=1)
        q, k, v = d.value(), d.value(), d.value()
        d.add(
            f"scores = {q} @ {k}.t()",
            d.pick(("scores /= 1.7", "scores.div_(1.7)", "scores.mul_(0.6)", "scores = scores * 0.6")),
        )
        d.add(
            d.pick(
                (
                    "scores.masked_fill_(causal, -1e9)",
                    "scores[causal] = -1e9",
                    "scores += torch.where(causal, -1e9, 0.0)",
                )
            ),
            f"y = scores.softmax(1) @ {v}",
        )
        if d.chance(0.5):
            d.add(d.pick(("y += 0.3", f"y.add_({d.value()})", f"y += {d.pick(d.constants)}")))
        _trained(d, "y")


def _slots(d: Draft) -> None:
    """An output that is filled step by step and read at the end."""
    begin(d)
    optimizer(d)
    with d.block(loop(d)):
        grow(d, most=1)
        n = d.rng.randint(2, 3)
        shape, slot = d.pick(((f"{n}, R, C", "out[t]"), (f"R, {n}, C", "out[:, t]")))
        d.add(f"out = torch.{d.pick(('zeros', 'empty'))}({shape})", f"state = {d.value()}")
        with d.block(f"for t in range({n}):"):
            d.add(
                f"state = {expression(d, ('torch.tanh({a} @ {m} + {v})', 'torch.sin({a}) * {v}', '{a}.sigmoid() + {v}'), a='state')}"
            )
            d.add(d.pick((f"{slot} = state", f"{slot}.copy_(state)", f"{slot} = state * 0.5")))
        d.add(f"y = out.{'mean(0)' if slot == 'out[t]' else 'mean(1)'}")
        _trained(d, "y")


def _checkpoint(d: Draft) -> None:
    begin(d, imports="from torch.utils.checkpoint import checkpoint")
    with d.block("def run(a):"):
        d.add(f"y = {expression(d, ('torch.tanh({a} @ {m})', '{a} * {v}', 'torch.sin({a}) * {c}'), a='a')}")
        d.add(
            d.pick(
                (
                    "return y",
                    "return F.dropout(y, 0.3)",
                    "y = y + 1.0; y.mul_(0.5); return y",
                    "z = torch.zeros(R, C); z[0] = y[0]; return z + a",
                )
            )
        )
    optimizer(d)
    with d.block(loop(d)):
        grow(d, most=1)
        d.add(f"y = checkpoint(run, {d.value()}, use_reentrant={d.pick((True, False))})")
        d.values.append("y")
        grow(d, most=1)
        names = losses(d, [save(d, "y")])
        d.add(f"({' + '.join(names)}).backward()")
        step(d)


def _own_function(d: Draft) -> None:
    """A Function that says what it writes, and saves what it needs."""
    begin(d)
    with d.block("class Scale(torch.autograd.Function):"):
        d.add("@staticmethod")
        with d.block("def forward(ctx, a):"):
            d.add(
                *d.pick(
                    (
                        ("ctx.mark_dirty(a)", "a.mul_(1.5)", "return a"),
                        ("b = a.clone()", "b.mul_(1.5)", "return b"),
                        ("ctx.mark_dirty(a)", "return a.mul_(1.5)"),
                    )
                )
            )
        d.add("@staticmethod")
        with d.block("def backward(ctx, g):"):
            d.add(d.pick(("return g * 1.5", "g = g.clone(); g.mul_(1.5); return g")))
    optimizer(d)
    with d.block(loop(d)):
        grow(d, most=1)
        t = fresh(d)
        d.add(f"y = Scale.apply({t})")
        _trained(d, "y")


def _watching_hooks(d: Draft) -> None:
    """Hooks that look and write nothing of the program's."""
    begin(d)
    d.add("log, sizes = [], torch.zeros(3)")
    optimizer(d)
    with d.block(loop(d)):
        grow(d, most=1)
        h = make(d, ("{a} * {v}", "torch.tanh({a})"))
        hooks = (
            "lambda g: log.append(float(g.norm()))",
            "lambda g: sizes[0].add_(g.norm()) and None",
            "lambda g: log.append(g.numpy().copy())",
            "lambda g: log.append(g.clone().mul_(0.5))",
        )
        d.add(f"{h}.register_hook({d.pick(hooks)})")
        if d.modules and d.chance(0.5):
            d.add(f"handle = {d.modules[0]}.register_full_backward_hook(lambda m, gi, go: log.append(len(go)))")
            d.add(f"y = {d.modules[0]}({h})", "handle.remove()")
            d.values.append("y")
        d.add(
            d.pick(
                (
                    "log.append({h}.detach().numpy().copy())",
                    "log.append(float({h}.detach().numpy().sum()))",
                    "log.append({h}.detach().cpu().clone())",
                    "size = {h}.data.norm()",
                )
            ).format(h=h)
        )
        _trained(d, h)


def _fresh_copies(d: Draft) -> None:
    """Aliases of copies are written, and aliases of what nobody will read any more."""
    begin(d, imports="import numpy as np")
    optimizer(d)
    with d.block(loop(d)):
        names = task(d)
        h = d.pick(d.values)
        forms = (
            "n = {h}.detach().numpy().copy(); n *= 2", "a = {h}.detach().clone(); a.mul_(0.5)", "a = {h}.data + 0; a.zero_()", "a = {h}.detach().to(torch.float32); a.mul_(3)", "n = np.array({h}.detach()); n[0] = 0.0",
            "a = torch.tensor({h}.tolist()); a.neg_()", "a = {h}.detach().repeat(2, 1); a[0] = 5.0", "a = torch.empty_like({h}).copy_({h}.detach()); a.tanh_()",
        )  # fmt: skip
        d.add(d.pick(forms).format(h=h))
        backward(d, names)
        d.add(
            d.pick(
                (
                    "{h}.data.zero_()",
                    "{h}.detach().mul_(0.5)",
                    "n = {h}.detach().numpy(); n[:] = 0.0",
                    "with torch.no_grad(): {h}.fill_(1.0)",
                )
            ).format(h=h)
            if h not in d.leaves
            else "pass"
        )
        step(d)


KINDS: dict[str, Kind] = {
    "inplace_relu": _inplace_relu,
    "inplace_dropout": _inplace_dropout,
    "straight_through": _straight_through,
    "quantisation": _quantisation,
    "weight_norm": _weight_norm,
    "masks": _masks,
    "slots": _slots,
    "checkpoint": _checkpoint,
    "own_function": _own_function,
    "watching_hooks": _watching_hooks,
    "fresh_copies": _fresh_copies,
}
