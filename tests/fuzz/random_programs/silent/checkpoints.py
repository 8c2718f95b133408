"""State that is changed before a checkpoint, or a Function, computes again what it did not save."""

from __future__ import annotations

from random_programs.draft import Draft, Kind
from random_programs.graphs import begin, grow, loss, make
from random_programs.places import backward, losses, rounds
from random_programs.silent.aliases import data, no_grad, numpy

_IMPORTS = "import numpy as np\nfrom torch.utils.checkpoint import checkpoint"


def _block(d: Draft) -> tuple[str, str, bool]:
    """A function to checkpoint that reads state: its name, the state, and whether that is a leaf."""
    kind = d.pick(("buffer", "buffer", "leaf", "module", "box"))
    if kind == "buffer":
        state = d.name("state")
        d.add(f"{state} = torch.rand(C) + 0.5")
    elif kind == "box":
        d.add("box = {'gain': torch.rand(C) + 0.5}")
        state = "box['gain']"
    elif kind == "module":
        net = d.name("cell")
        d.add(f"{net} = nn.Linear(C, C)")
        d.oracle(f"leaf({net})")
        d.modules.append(net)
        state = f"{net}.weight"
    else:
        state = d.pick(d.square)
    f = d.name("run")
    with d.block(f"def {f}(a):"):
        if d.chance(0.4):
            d.add(f"a = {d.pick(('torch.tanh(a)', 'torch.sin(a)', '0.5 * a * a'))}")
        if kind == "module":
            d.add(f"y = {net}(a)")
        elif kind == "leaf":
            d.add(f"y = a @ {state}")
        else:
            d.add(
                f"y = {d.pick(('a * {s}', 'a + a * a * {s}', 'a / (0.3 + {s})', 'torch.sin(a * {s})')).format(s=state)}"
            )
        d.add(d.pick(("return torch.tanh(y)", "return y.sigmoid()", "return y * y", "return F.softplus(y) * a")))
    return f, state, kind in ("leaf", "module")


def _write(d: Draft, state: str, leaf: bool) -> None:
    """The state is changed by a statement that is right as such."""
    if leaf:
        d.pick((data, no_grad, numpy))(d, state, True)
        return
    k, form = (
        d.number(),
        d.pick(
            (
                "{s}.mul_({k})",
                "{s}.copy_(torch.rand(C) + 2.0)",
                "{s}.fill_({k})",
                "{s}.add_(0.5)",
                "{s}[0] = 3.0",
                "{s} *= {k}",
            )
        ),
    )
    d.write(form.format(s=state, k=k))


def _apply(d: Draft, f: str) -> str:
    t = d.name("t")
    d.add(f"{t} = checkpoint({f}, {d.value()}, use_reentrant={d.pick((True, False))})")
    return t


def _checkpoint(d: Draft) -> None:
    begin(d, imports=_IMPORTS)
    if d.chance(0.15):
        _counts(d)
        return
    f, state, leaf = _block(d)
    place = d.pick(("before", "before", "between", "delayed", "late") if d.chance(0.5) else ("before", "between"))
    if place == "delayed":
        d.add("pending = None")
        with d.block(f"for r in range({d.rng.randint(2, 3)}):"):
            grow(d, most=1)
            out = _apply(d, f)
            name = loss(d, out)
            _write(d, state, leaf)
            with d.block("if pending is not None:"):
                d.add("pending.backward()")
            d.add(f"pending = {name}")
        d.add("pending.backward()")
        return
    with rounds(d):
        grow(d)
        out = _apply(d, f)
        d.values.append(out)
        grow(d, most=1)
        if place == "between":
            first, second = loss(d, d.pick([*d.leaves, *d.values[:-1]]), more=False), loss(d, out, more=False)
            d.add(f"{first}.backward(retain_graph=True)")
            _write(d, state, leaf)
            d.add(f"{second}.backward()")
        elif place == "before":
            names = losses(d, [out])
            _write(d, state, leaf)
            backward(d, names, grad=False)
        else:
            backward(d, losses(d, [out]), grad=False)
            _write(d, state, leaf)


def _counts(d: Draft) -> None:
    """The checkpointed function itself changes its state each time that it runs."""
    d.add("count = torch.ones(C)")
    with d.block("def run(a):"):
        d.write(
            d.pick(
                ("count.add_(0.5)", "count.mul_(1.5)", "torch.add(count, 1.0, out=count)", "count[0] = count[0] * 2.0")
            )
        )
        d.add(d.pick(("return torch.tanh(a * count)", "return a * a / count", "return torch.sin(a) * count + a")))
    with rounds(d):
        grow(d)
        out = _apply(d, "run")
        d.values.append(out)
        grow(d, most=1)
        backward(d, losses(d, [out]), grad=False)


# --- read again while backward runs ------------------------------------------------------------------------------------------


def _recomputing_function(d: Draft) -> str:
    """A Function that saves its input alone and reads the weight anew in backward."""
    name = d.name("Again")
    body = d.pick(("torch.tanh(a @ w)", "torch.sin(a @ w)", "a @ w * a", "F.softplus(a @ w)"))
    with d.block(f"class {name}(torch.autograd.Function):"):
        d.add("@staticmethod")
        with d.block("def forward(ctx, a, w):"):
            d.add("ctx.save_for_backward(a)", "ctx.w = w", f"return {body}")
        d.add("@staticmethod")
        with d.block("def backward(ctx, g):"):
            d.add("a, = ctx.saved_tensors")
            with d.block("with torch.enable_grad():"):
                d.add("a = a.detach().requires_grad_()", "w = ctx.w.detach().requires_grad_()", f"y = {body}")
            d.add("return torch.autograd.grad(y, (a, w), g)")
    return name


def _recompute(d: Draft) -> None:
    """What a hook writes while backward runs is read by what is computed again further on."""
    begin(d, imports=_IMPORTS)
    by_function = d.chance(0.45)
    if by_function:
        again, state, leaf = _recomputing_function(d), d.pick(d.square), True
    else:
        f, state, leaf = _block(d)
    head = d.name("head")
    d.add(f"{head} = (torch.rand(C, C) * 0.5).requires_grad_()")
    d.oracle(f"leaf({head})")
    with rounds(d, step=False, p=0.3):
        grow(d)
        if by_function:
            out = d.name("t")
            d.add(f"{out} = {again}.apply({d.value()}, {state})")
        else:
            out = _apply(d, f)
        y = make(d, (f"{{a}} @ {head}", f"torch.tanh({{a}} @ {head})"), a=out)
        hook = d.name("hook")
        how = d.pick(
            ("tensor", "tensor", "first", "post", "post", "late") if d.chance(0.5) else ("tensor", "first", "post")
        )
        with d.block(f"def {hook}({'p' if how == 'post' else 'g'}):"):
            _in_hook(d, state, leaf)
        # "post": the head's gradient is there before the block is computed again, in one order of the engine.
        before = d.pick([*d.leaves, *d.values])
        if how == "post":
            d.add(f"{head}.register_post_accumulate_grad_hook({hook})")
        elif how == "late":
            lone = d.name("t")
            d.add(f"{lone} = {before} * 1.0", f"{lone}.register_hook({hook})")
            d.values.append(lone)
        else:
            d.add(f"{y if how == 'tensor' else out}.register_hook({hook})")
        d.values.append(y)
        grow(d, most=1)
        backward(d, losses(d, [y]), grad=False)


def _in_hook(d: Draft, state: str, leaf: bool) -> None:
    k = d.number()
    if leaf:
        form = d.pick(
            (
                "with torch.no_grad(): {s}.mul_({k})",
                "{s}.data.mul_({k})",
                "{s}.data[0] = {k}",
                "{s}.data.clamp_(-0.1, 0.1)",
                "with torch.no_grad(): {s}.copy_(torch.rand(C, C))",
            )
        )
        d.write(form.format(s=state, k=k))
        d.oracle(f"update({state})")
    else:
        d.write(d.pick(("{s}.mul_({k})", "{s}.fill_({k})", "{s}[0] = 3.0", "{s}.add_(0.7)")).format(s=state, k=k))


KINDS: dict[str, Kind] = {"checkpoint": _checkpoint, "recompute": _recompute}
