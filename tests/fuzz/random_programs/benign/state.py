"""State beside the graph: averages, queues, memories, second networks, statistics, codebooks."""

from __future__ import annotations

from random_programs.draft import Draft, Kind
from random_programs.graphs import begin, grow, loss, save
from random_programs.places import backward, losses


def task(d: Draft, *more: str) -> list[str]:
    """Some random values and their losses; `more` are values that the first loss is to contain."""
    grow(d, least=1, most=2)
    out = save(d, d.value())
    for other in more:
        mixed = d.name("t")
        d.add(f"{mixed} = {out} + {other}" if d.chance(0.5) else f"{mixed} = {out} * {other} + {out}")
        out = mixed
    d.values.append(out)
    return losses(d, [out])


def step(d: Draft) -> None:
    """An optimizer's step at the end of a round."""
    d.add("opt.step()")
    d.oracle(f"update({d.parameters})")
    d.add(d.pick(("opt.zero_grad()", "opt.zero_grad(set_to_none=False)")))


def optimizer(d: Draft, fused: bool = True) -> None:
    forms = [
        "SGD([{p}], lr=0.05)",
        "SGD([{p}], lr=0.05, momentum=0.9)",
        "Adam([{p}], lr=0.01)",
        "AdamW([{p}], lr=0.01)",
        "RMSprop([{p}], lr=0.01)",
        "SGD([{p}], lr=0.05, foreach=False)",
    ]
    if fused:
        forms += ["SGD([{p}], lr=0.05, fused=True)", "Adam([{p}], lr=0.01, fused=True)"]
    d.add("opt = torch.optim." + d.pick(forms).format(p=d.parameters))


def loop(d: Draft) -> str:
    return f"for r in range({d.rng.randint(2, 3)}):"


def _ema(d: Draft) -> None:
    begin(d)
    optimizer(d)
    d.add(f"params = [{d.parameters}]", "ema = [p.detach().clone() for p in params]")
    d.oracle("pin(*ema)")
    with d.block(loop(d)):
        grow(d, most=1)
        if d.chance(0.5):  # the average is a teacher
            d.add("teacher = torch.tanh(ema[0]) * 0.5")
            names = task(d, "teacher")
        else:
            names = task(d)
        backward(d, names)
        step(d)
        with d.block("with torch.no_grad():"), d.block("for e, p in zip(ema, params):"):
            d.add(
                d.pick(
                    (
                        "e.mul_(0.9).add_(p, alpha=0.1)",
                        "e.lerp_(p, 0.1)",
                        "e *= 0.9; e += 0.1 * p",
                        "e.copy_(0.9 * e + 0.1 * p)",
                        "e.data.mul_(0.9).add_(p.data, alpha=0.1)",
                    )
                )
            )
        d.oracle("pin(*ema)")


def _queue(d: Draft) -> None:
    begin(d)
    optimizer(d)
    d.add("queue = F.normalize(torch.randn(2 * R, C), dim=1)")
    with d.block(loop(d)):
        grow(d, most=2)
        d.add(
            f"z = F.normalize({d.value()} + 0.1 * {d.pick(d.leaves)}, dim=1)",
            f"near = z @ queue{d.pick(('.clone()', '.clone().detach()', '.detach().clone()'))}.t()",
        )
        d.add("contrast = torch.logsumexp(near, 1).mean() - (z * z.roll(1, 0)).sum(1).mean()")
        early = d.chance(0.5)
        if not early:
            backward(d, ["contrast"])
        with d.block("with torch.no_grad():"):
            d.add(
                *d.pick(
                    (
                        ("queue[:R] = queue[R:].clone()", "queue[R:] = z"),
                        ("queue.copy_(torch.cat([queue[R:], z]))",),
                        ("queue[(r % 2) * R:(r % 2 + 1) * R] = z",),
                    )
                )
            )
        d.oracle("pin(queue)")
        if early:
            backward(d, ["contrast"])
        step(d)


def _replay_buffer(d: Draft) -> None:
    begin(d)
    optimizer(d)
    d.add("memory = torch.zeros(6, C)")
    with d.block(f"for r in range({d.rng.randint(3, 4)}):"):
        grow(d, least=1)
        d.add(
            d.pick(
                (
                    "memory[r % 6] = ‹{v}.detach()[0]›",
                    "memory[r % 6].copy_(‹{v}.detach()[-1]›)",
                    "memory.data[r % 6] = ‹{v}.data.mean(0)›",
                )
            ).format(v=d.value())
        )
        d.add(f"batch = memory[torch.randint(0, r + 1, (R,))] + {d.pick(d.constants)}")
        backward(d, task(d, "batch"))
        step(d)


def _target_network(d: Draft) -> None:
    begin(d, imports="import copy")
    if not d.modules:
        d.add("net = nn.Sequential(nn.Linear(C, C), nn.Tanh(), nn.Linear(C, C))")
        d.oracle("leaf(net)")
        d.modules.append("net")
    net = d.modules[0]
    optimizer(d)
    d.add(f"target = copy.deepcopy({net})")
    d.oracle("pin(target)")
    d.add("for p in target.parameters(): p.requires_grad_(False)")
    with d.block(loop(d)):
        grow(d, most=1)
        with d.block("with torch.no_grad():"):
            d.add(f"goal = {d.pick(d.constants)} + 0.9 * target({d.pick([*d.values, *d.leaves])})")
        d.oracle("goal = hold(goal)")
        d.add(f"td = F.mse_loss({net}({d.value()}), goal)")
        backward(d, ["td"])
        step(d)
        with d.block("if r % 2 == 0:" if d.chance(0.5) else None):
            if d.chance(0.4):
                d.add(f"target.load_state_dict({net}.state_dict())")
            else:
                with (
                    d.block("with torch.no_grad():"),
                    d.block(f"for p, q in zip(target.parameters(), {net}.parameters()):"),
                ):
                    d.add(
                        d.pick(
                            (
                                "p.mul_(0.95).add_(q, alpha=0.05)",
                                "p.copy_(0.9 * p + 0.1 * q)",
                                "p.lerp_(q, 0.05)",
                                "p.data.mul_(0.9).add_(0.1 * q.data)",
                            )
                        )
                    )
            d.oracle("pin(target)")


def _metrics(d: Draft) -> None:
    begin(d)
    optimizer(d)
    d.add("total, seen, running, table = 0.0, torch.zeros(()), torch.zeros(()), torch.zeros(C)")
    with d.block(loop(d)):
        grow(d, least=1)
        names = task(d)
        shown = d.pick(d.values)
        forms = (
            f"total += {names[0]}.item()", f"running.mul_(0.9).add_({names[0]}.detach(), alpha=0.1)", f"seen += ({shown} > 0).sum()", f"table.index_add_(0, {shown}.argmax(1), torch.ones(R))",
            f"running += {names[0]}.detach()", f"with torch.no_grad(): table.add_({shown}.mean(0))", f"table.copy_(torch.maximum(table, {shown}.detach().amax(0)))", f"total += float({shown}.detach().numpy().mean())",
        )  # fmt: skip
        d.add(*d.rng.sample(forms, 2))
        backward(d, names)
        d.add(d.rng.choice(forms))
        step(d)


def _codebook(d: Draft) -> None:
    begin(d)
    optimizer(d)
    d.add("book, counts = torch.randn(5, C), torch.ones(5)")
    with d.block(loop(d)):
        grow(d, most=2)
        d.add(f"z = {d.value()} + 0.2 * {d.pick(d.leaves)}")
        with d.block("with torch.no_grad():"):
            d.add("nearest = torch.cdist(z, book).argmin(1)")
        d.oracle("nearest = hold(nearest)")
        d.add("zq = z + ‹(book[nearest] - z).detach()›", "commit = 0.25 * F.mse_loss(z, ‹book[nearest].detach()›)")
        d.values.append("zq")
        update = d.pick(
            (
                (
                    "counts.mul_(0.9).index_add_(0, nearest, torch.full((R,), 0.1))",
                    "book.mul_(0.9).index_add_(0, nearest, 0.1 * z)",
                ),
                ("book.index_copy_(0, nearest[:1], z[:1])",),
                ("for k in nearest.unique(): book[k].lerp_(z[nearest == k].mean(0), 0.1)",),
                ("book.data.copy_(book * 0.95 + 0.05 * z.mean(0))",),
            )
        )
        late = d.chance(0.5)
        if late:
            name = loss(d, save(d, "zq"), more=False)
            d.add(f"({name} + commit).backward()")
        with d.block("with torch.no_grad():"):
            d.add(*update)
        d.oracle("pin(book)")
        if not late:
            name = loss(d, save(d, "zq"), more=False)
            d.add(f"({name} + commit).backward()")
        step(d)


def _batch_norm(d: Draft) -> None:
    d.rows += 3
    begin(d)
    d.add(f"bn = nn.BatchNorm1d(C{d.pick(('', ', momentum=0.3', ', affine=False'))})")
    if "affine" not in d.lines[-1]:
        d.oracle("leaf(bn)")
    optimizer(d)
    with d.block(loop(d)):
        grow(d, most=1)
        d.add(f"y = bn({d.value()} + 0.5 * {d.pick(d.leaves)})")
        d.oracle("pin(bn.running_mean, bn.running_var)")
        d.values.append("y")
        if d.chance(0.3):
            d.add(f"y2 = torch.tanh(bn({d.value()} * 1.5))")
            d.oracle("pin(bn.running_mean, bn.running_var)")
            d.values.append("y2")
        grow(d, most=1)
        backward(d, losses(d, [save(d, "y")]))
        step(d)
        if d.chance(0.4):
            d.add("bn.eval()", f"with torch.no_grad(): score = float(bn({d.pick(d.constants)}).mean())", "bn.train()")


def _spectral_norm(d: Draft) -> None:
    begin(d)
    with d.block("class Spectral(nn.Module):"):
        with d.block("def __init__(self):"):
            d.add(
                "super().__init__()",
                "self.weight = nn.Parameter(torch.randn(C, C))",
                "self.register_buffer('u', F.normalize(torch.randn(C), dim=0))",
            )
        with d.block("def forward(self, x):"):
            with d.block("with torch.no_grad():"):
                d.add(
                    "v = F.normalize(self.weight.t() @ self.u, dim=0)",
                    d.pick(
                        (
                            "self.u.copy_(F.normalize(self.weight @ v, dim=0))",
                            "self.u[:] = F.normalize(self.weight @ v, dim=0)",
                        )
                    ),
                )
            d.oracle("v = hold(v)")
            d.oracle("pin(self.u)")
            d.add(
                f"sigma = self.u{d.pick(('.clone()', '.clone().detach()'))} @ self.weight @ v",
                "return x @ (self.weight / sigma).t()",
            )
    d.add("sn = Spectral()")
    d.oracle("leaf(sn)")
    d.modules.append("sn")
    optimizer(d)
    with d.block(loop(d)):
        grow(d, most=1)
        d.add(f"y = sn({d.value()})")
        d.values.append("y")
        grow(d, most=1)
        backward(d, losses(d, [save(d, "y")]))
        step(d)


def _ppo(d: Draft) -> None:
    begin(d, modules=False)
    d.add("policy, critic = nn.Linear(C, 3), nn.Linear(C, 1)")
    d.oracle("leaf(policy, critic)")
    d.modules += ["policy", "critic"]
    optimizer(d)
    d.add(
        "states, actions, old, returns, adv = torch.zeros(4, C), torch.zeros(4, dtype=torch.long), torch.zeros(4), torch.zeros(4), torch.zeros(4)"
    )
    with d.block("for r in range(2):"):
        with d.block("with torch.no_grad():"):
            with d.block("for i in range(4):"):
                d.add(
                    "states[i] = torch.randn(C)",
                    "logits = policy(states[i])",
                    "actions[i] = torch.randint(0, 3, ())",
                    d.pick(
                        (
                            "old[i] = logits.log_softmax(0)[actions[i]]",
                            "old[i].copy_(logits.log_softmax(0)[actions[i]])",
                        )
                    ),
                )
                d.add("returns[i] = torch.rand(()) + 0.3 * critic(states[i])[0]")
            d.add(
                "adv.copy_(returns - critic(states)[:, 0])",
                d.pick(("adv.sub_(adv.mean()).div_(adv.std() + 1e-8)", "adv -= adv.mean(); adv /= adv.std() + 1e-8")),
            )
        d.oracle("pin(old, returns, adv)")
        with d.block("for epoch in range(2):"):
            d.add(
                f"rows = torch.randperm(4)[:{d.rng.randint(2, 4)}]",
                "now = policy(states[rows]).log_softmax(1).gather(1, actions[rows, None])[:, 0]",
                "ratio = (now - old[rows]).exp()",
            )
            d.add(
                "gain = torch.min(ratio * adv[rows], ratio.clamp(0.8, 1.2) * adv[rows]).mean()",
                "fit = F.mse_loss(critic(states[rows])[:, 0], returns[rows])",
            )
            d.add("(0.5 * fit - gain).backward()", "nn.utils.clip_grad_norm_(policy.parameters(), 0.5)")
            step(d)


KINDS: dict[str, Kind] = {
    "ema": _ema,
    "queue": _queue,
    "replay_buffer": _replay_buffer,
    "target_network": _target_network,
    "metrics": _metrics,
    "codebook": _codebook,
    "batch_norm": _batch_norm,
    "spectral_norm": _spectral_norm,
    "ppo": _ppo,
}
