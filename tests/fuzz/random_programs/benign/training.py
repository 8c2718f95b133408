"""Ways to train: when leaves, gradients and states are written, and in what order."""

from __future__ import annotations

from random_programs.benign.state import loop, optimizer, step, task
from random_programs.draft import Draft, Kind
from random_programs.graphs import begin, expression, grow, loss, save
from random_programs.places import backward, losses


def _accumulation(d: Draft) -> None:
    begin(d)
    optimizer(d)
    with d.block(loop(d)):
        with d.block(f"for micro in range({d.rng.randint(2, 3)}):"):
            names = task(d)
            d.add(f"({' + '.join(names)}).div(2).backward()")
        if d.chance(0.4):
            with d.block(f"for p in [{d.parameters}]:"), d.block("if p.grad is not None:"):
                d.add(d.pick(("p.grad.div_(2.0)", "p.grad.mul_(0.5)", "p.grad /= 2.0", "p.grad.nan_to_num_()")))
        step(d)


def _clip(d: Draft) -> None:
    begin(d)
    optimizer(d)
    with d.block(loop(d)):
        d.add(f"({' + '.join(task(d))}).backward()")
        clips = (
            "nn.utils.clip_grad_norm_([{p}], 0.1)",
            "size = nn.utils.clip_grad_norm_([{p}], 0.5, foreach=False)",
            "nn.utils.clip_grad_value_([{p}], 0.05)",
        )
        d.add(d.pick(clips).format(p=d.parameters))
        if d.chance(0.3):
            d.add(
                f"with torch.no_grad(): noise = [p.grad.add_(0.01 * torch.randn(p.shape)) for p in [{d.parameters}] if p.grad is not None]"
            )
        step(d)


def _freezing(d: Draft) -> None:
    begin(d)
    optimizer(d)
    frozen = d.modules[0] if d.modules and d.chance(0.6) else d.pick(d.square)
    each = f"{frozen}.requires_grad_({{}})"
    with d.block(f"for r in range({d.rng.randint(2, 4)}):"):
        with d.block("if r == 1:"):
            d.add(each.format(False))
            d.oracle(f"freeze({frozen})")
        with d.block("if r == 2:"):
            d.add(each.format(True))
            d.oracle(f"thaw({frozen})")
        grow(d, least=1)
        free = d.pick(d.leaves)  # something that is not frozen is in each loss
        d.add(f"kept = {d.values[-1]} + {free}")
        d.add(f"({' + '.join(losses(d, [save(d, 'kept')]))}).backward()")
        step(d)


def _sam(d: Draft) -> None:
    begin(d)
    optimizer(d)
    with d.block("def closure():"), d.scope():
        names = task(d)
        d.add(f"return {' + '.join(names)}")
    with d.block(loop(d)):
        d.add("closure().backward()", f"params = [p for p in [{d.parameters}] if p.grad is not None]")
        with d.block("with torch.no_grad():"):
            d.add("scale = 0.05 / (sum(p.grad.pow(2).sum() for p in params).sqrt() + 1e-12)")
            way = d.pick(("eps", "old"))
            if way == "eps":
                d.add(
                    "eps = [p.grad * scale for p in params]",
                    d.pick(("for p, e in zip(params, eps): p.add_(e)", "torch._foreach_add_(params, eps)")),
                )
            else:
                d.add("old = [p.clone() for p in params]", "for p in params: p.add_(p.grad * scale)")
        d.oracle("update(*params)")
        d.add("opt.zero_grad()", "closure().backward()")
        with d.block("with torch.no_grad():"):
            if way == "eps":
                d.add(d.pick(("for p, e in zip(params, eps): p.sub_(e)", "torch._foreach_sub_(params, eps)")))
            else:
                d.add("for p, o in zip(params, old): p.copy_(o)")
        d.oracle("update(*params)")
        step(d)


def _optimizer_in_backward(d: Draft) -> None:
    begin(d)
    form = d.pick(("SGD([p], lr=0.1)", "Adam([p], lr=0.01)", "SGD([p], lr=0.1, fused=True)"))
    d.add(f"opts = {{p: torch.optim.{form} for p in [{d.parameters}]}}")
    with d.block("def on_gradient(p):"):
        d.add("opts[p].step()")
        d.oracle("update(p)")
        d.add(d.pick(("opts[p].zero_grad()", "p.grad = None")))
    d.add("for p in opts: p.register_post_accumulate_grad_hook(on_gradient)")
    with d.block(loop(d)):
        names = task(d)
        d.add(f"({' + '.join(names)}).backward()")


def _truncated_bptt(d: Draft) -> None:
    begin(d)
    optimizer(d)
    d.add("state = torch.zeros(R, C)")
    with d.block(loop(d)):
        with d.block(f"for t in range({d.rng.randint(2, 3)}):"):
            d.add(
                f"state = {expression(d, ('torch.tanh({a} @ {m} + {v})', '0.5 * {a} + torch.sin({v})', 'torch.sigmoid({a} * {v} + {c})'), a='state')}"
            )
        backward(d, losses(d, [save(d, "state")]))
        step(d)
        if d.chance(0.5):
            d.add("state = ‹state.detach()›")
        else:
            d.add("state.detach_()")
            d.oracle("pin(state)")
        if d.chance(0.3):
            d.add(d.pick(("state.mul_(0.5)", "state[0].zero_()", "state *= (torch.rand(R, 1) > 0.3)")))


def _weight_clipping(d: Draft) -> None:
    begin(d)
    optimizer(d)
    with d.block(loop(d)):
        backward(d, task(d))
        step(d)
        k = d.pick(("0.5", "0.8"))
        forms = (
            f"for p in [{d.parameters}]: p.data.clamp_(-{k}, {k})", f"with torch.no_grad(): bound = [p.clamp_(-{k}, {k}) for p in [{d.parameters}]]",
            f"for p in [{d.parameters}]: p.data = p.data.clamp(-{k}, {k})", f"for p in [{d.parameters}]: p.data.div_(p.data.norm() + 1.0)",
        )  # fmt: skip
        d.add(d.pick(forms))
        d.oracle(f"update({d.parameters})")


def _gan(d: Draft) -> None:
    begin(d, modules=False)
    d.add(
        "G = nn.Sequential(nn.Linear(C, C), nn.Tanh(), nn.Linear(C, C))",
        "D = nn.Sequential(nn.Linear(C, C), nn.LeakyReLU(0.2, inplace=True), nn.Linear(C, 1))",
    )
    d.oracle("leaf(G, D)")
    d.add(
        f"g_opt = torch.optim.{d.pick(('Adam', 'RMSprop'))}(G.parameters(), lr=0.01)",
        f"d_opt = torch.optim.{d.pick(('Adam', 'SGD'))}(D.parameters(), lr=0.02)",
    )
    with d.block(loop(d)):
        d.add("fake = G(torch.randn(R, C))", "d_opt.zero_grad()")
        d.add(
            "d_loss = F.softplus(D(‹fake.detach()›)).mean() + F.softplus(-D(torch.rand(R, C))).mean()",
            "d_loss.backward()",
            "d_opt.step()",
        )
        d.oracle("update(D)")
        if d.chance(0.5):
            d.add("for p in D.parameters(): p.data.clamp_(-0.5, 0.5)")
            d.oracle("update(D)")
        d.add("g_opt.zero_grad()", "g_loss = F.softplus(-D(fake)).mean()", "g_loss.backward()", "g_opt.step()")
        d.oracle("update(G)")


def _meta(d: Draft) -> None:
    """A step of the inner loop is part of the graph."""
    begin(d, modules=False, imports="from torch.func import functional_call, grad")
    d.add("net = nn.Sequential(nn.Linear(C, C), nn.Tanh(), nn.Linear(C, C))")
    d.oracle("leaf(net)")
    d.modules.append("net")
    optimizer(d, fused=False)
    by_func = d.chance(0.6)
    a, b = d.pick(d.constants), d.constants[0]
    if by_func:
        with d.block("def inner(params, x, y):"):
            d.add("return F.mse_loss(functional_call(net, params, (x,)), y)")
    with d.block(loop(d)):
        grow(d, most=1)
        if by_func:
            d.add("fast = dict(net.named_parameters())")
            with d.block(f"for k in range({d.rng.randint(1, 2)}):"):
                d.add(f"grads = grad(inner)(fast, {a}, {b})", "fast = {n: fast[n] - 0.1 * grads[n] for n in fast}")
            d.add(f"out = functional_call(net, fast, ({d.pick(d.constants)},))")
        else:
            d.add("weight = net[0].weight")
            d.add(
                f"task = F.mse_loss(torch.tanh({a} @ weight), {b})",
                "grads = torch.autograd.grad(task, weight, create_graph=True)",
                "fast = weight - 0.1 * grads[0]",
                f"out = torch.tanh({d.pick(d.constants)} @ fast)",
            )
        d.values.append("out")
        names = losses(d, [save(d, "out")])
        d.add(f"({' + '.join(names)}).backward()")
        step(d)


def _gradient_penalty(d: Draft) -> None:
    begin(d)
    optimizer(d)
    with d.block(loop(d)):
        d.add("x = torch.rand(R, C, requires_grad=True)")
        d.oracle("leaf(x)")
        with d.scope():
            grow(d, most=1)
            d.add(f"score = {expression(d, ('torch.tanh(x @ {m}) * {v}', 'x * {v} * x', 'torch.sin(x @ {m})'))}")
            d.add(
                "slope, = torch.autograd.grad(score.sum(), x, create_graph=True)",
                "penalty = (slope.norm(dim=1) - 1.0).pow(2).mean()",
            )
            name = loss(d, "score")
        d.add(f"({name} + penalty).backward()")
        step(d)


def _lbfgs(d: Draft) -> None:
    begin(d, modules=False)
    leaves = ", ".join([*d.leaves, *d.square])
    d.add(f"opt = torch.optim.LBFGS([{leaves}], lr=0.1, max_iter=3{d.pick(('', ', history_size=2'))})")
    with d.block("def closure():"), d.scope():
        d.oracle(f"update({leaves})")
        d.add("opt.zero_grad()")
        names = task(d)
        d.add(f"total = {' + '.join(names)}", "total.backward()", "return total")
    d.add("opt.step(closure)")
    d.oracle(f"update({leaves})")
    d.add("opt.step(closure)")


def _averaging(d: Draft) -> None:
    """Lookahead and stochastic weight averaging: slow weights are mixed in after steps."""
    begin(d)
    optimizer(d)
    d.add(f"fast = [{d.parameters}]", "slow = [p.detach().clone() for p in fast]")
    with d.block(f"for r in range({d.rng.randint(3, 4)}):"):
        backward(d, task(d))
        step(d)
        with d.block("if r % 2 == 1:"), d.block("with torch.no_grad():"), d.block("for s, p in zip(slow, fast):"):
            d.add(
                *d.pick(
                    (
                        ("s.add_(p - s, alpha=0.5)", "p.copy_(s)"),
                        ("s.lerp_(p, 0.5)", "p.data.copy_(s)"),
                        ("s += 0.5 * (p - s)", "p.data = s.clone()"),
                    )
                )
            )
        d.oracle("update(*fast)")


def _initialised(d: Draft) -> None:
    """Leaves and data are written before anything reads them."""
    begin(d)
    for w in d.rng.sample([*d.leaves, *d.square], 2):
        d.add(
            d.pick(
                (
                    "nn.init.normal_({w}, std=0.5)",
                    "with torch.no_grad(): {w}.mul_(0.5)",
                    "{w}.data.uniform_(-1, 1)",
                    "{w}.data.copy_(torch.randn({w}.shape))",
                    "with torch.no_grad(): {w}[0] = 0.3",
                )
            ).format(w=w)
        )
        d.oracle(f"update({w})")
    optimizer(d)
    d.add("batch = torch.zeros(R, C)")
    with d.block(loop(d)):
        d.add(
            "batch.copy_(torch.rand(R, C))",
            d.pick(
                (
                    "batch.add_(0.1 * torch.randn(R, C)).clamp_(0.0, 1.0)",
                    "batch.sub_(batch.mean()).div_(batch.std())",
                    "batch[:, 0] = 1.0",
                    "batch *= (torch.rand(R, C) > 0.2)",
                    "batch.numpy()[0] += 0.5",
                )
            ),
        )
        backward(d, task(d, "batch"))
        step(d)


KINDS: dict[str, Kind] = {
    "accumulation": _accumulation,
    "clip": _clip,
    "freezing": _freezing,
    "sam": _sam,
    "optimizer_in_backward": _optimizer_in_backward,
    "truncated_bptt": _truncated_bptt,
    "weight_clipping": _weight_clipping,
    "gan": _gan,
    "meta": _meta,
    "gradient_penalty": _gradient_penalty,
    "lbfgs": _lbfgs,
    "averaging": _averaging,
    "initialised": _initialised,
}
