"""Every optimizer, in every implementation, with and without closure, and what is around a step."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from sameness import same
from torch import nn, optim

OPTIMIZERS = {
    "SGD": (optim.SGD, {"lr": 0.1}),
    "SGD, momentum": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "Adam": (optim.Adam, {"lr": 0.1}),
    "Adam, amsgrad": (optim.Adam, {"lr": 0.1, "amsgrad": True, "maximize": True}),
    "AdamW": (optim.AdamW, {"lr": 0.1}),
    "RMSprop": (optim.RMSprop, {"lr": 0.1, "centered": True, "momentum": 0.5}),
    "Adagrad": (optim.Adagrad, {"lr": 0.1}),
    "Adadelta": (optim.Adadelta, {"lr": 0.1}),
    "Adamax": (optim.Adamax, {"lr": 0.1}),
    "NAdam": (optim.NAdam, {"lr": 0.1}),
    "RAdam": (optim.RAdam, {"lr": 0.1}),
    "ASGD": (optim.ASGD, {"lr": 0.1}),
    "Rprop": (optim.Rprop, {"lr": 0.1}),
}
FUSED = ("SGD", "SGD, momentum", "Adam", "Adam, amsgrad", "AdamW", "Adagrad")


def model():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def train(make, steps=3):
    net = model()
    optimizer = make(net.parameters())
    x, y = torch.randn(6, 4), torch.randn(6, 2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss)
    return net, optimizer, losses


WAYS = {"for-loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}, "default": {}}
EACH = [(name, way) for name in OPTIMIZERS for way in WAYS if way != "fused" or name in FUSED]


@pytest.mark.parametrize(("name", "way"), EACH)
def test_steps(name, way):
    kind, options = OPTIMIZERS[name]

    def program():
        return train(lambda parameters: kind(parameters, **options, **WAYS[way]))

    same(program)


@pytest.mark.parametrize("name", ["SGD", "SGD, momentum", "Adam", "RMSprop"])
def test_differentiable_steps(name):
    kind, options = OPTIMIZERS[name]

    def program():
        rate = torch.tensor(0.3, requires_grad=True)
        w = torch.randn(4, requires_grad=True)
        inner = (w * rate).exp()
        p = inner.clone()
        optimizer = kind([nn.Parameter(torch.zeros(4))], **options, differentiable=True)
        optimizer.param_groups[0]["params"][0] = p
        p.grad = inner.square()
        optimizer.step()
        p.square().sum().backward()
        return p, w, rate

    same(program)


def test_lbfgs():
    def program():
        net = model()
        x, y = torch.randn(6, 4), torch.randn(6, 2)
        optimizer = optim.LBFGS(net.parameters(), lr=0.5, max_iter=5, history_size=3, line_search_fn="strong_wolfe")
        calls = []

        def closure():
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(net(x), y)
            loss.backward()
            calls.append(float(loss.detach()))
            return loss

        for _ in range(2):
            optimizer.step(closure)
        return net, calls

    same(program)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_a_closure(name):
    kind, options = OPTIMIZERS[name]

    def program():
        net = model()
        optimizer = kind(net.parameters(), **options)
        x = torch.randn(6, 4)

        def closure():
            optimizer.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            return loss

        first = optimizer.step(closure)
        second = optimizer.step(closure=closure)
        return net, first, second

    same(program)


def test_sparse_adam():
    def program():
        embedding = nn.Embedding(10, 3, sparse=True)
        optimizer = optim.SparseAdam(embedding.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            embedding(torch.tensor([1, 3, 3])).square().sum().backward()
            optimizer.step()
        return embedding, optimizer

    same(program)


def test_sparse_gradients_of_sgd_and_adagrad():
    def program():
        out = []
        for kind in (optim.SGD, optim.Adagrad):
            embedding = nn.EmbeddingBag(10, 3, sparse=True, mode="sum")
            optimizer = kind(embedding.parameters(), lr=0.1)
            for _ in range(2):
                optimizer.zero_grad()
                embedding(torch.tensor([[1, 3], [3, 3]])).square().sum().backward()
                optimizer.step()
            out.append(embedding)
        return out

    same(program)


def test_a_step_between_two_backwards_raises_as_ever():
    for kind, options in OPTIMIZERS.values():
        for extra in ({}, {"foreach": False}, {"foreach": True}):

            def program(kind=kind, options=options, extra=extra):
                net = model()
                optimizer = kind(net.parameters(), **options, **extra)
                x = torch.randn(6, 4)
                h = net(x)
                a, b = h.square().mean(), h.abs().mean()
                a.backward(retain_graph=True)
                optimizer.step()
                b.backward()
                return net

            same(program)


def test_a_fused_step_between_two_backwards_raises_as_ever():
    for name in FUSED:
        kind, options = OPTIMIZERS[name]

        def program(kind=kind, options=options):
            net = model()
            optimizer = kind(net.parameters(), **options, fused=True)
            h = net(torch.randn(6, 4))
            h.square().mean().backward(retain_graph=True)
            optimizer.step()
            h.abs().mean().backward()
            return net

        same(program)


def test_schedulers_and_step_hooks():
    def program():
        net = model()
        optimizer = optim.SGD(net.parameters(), lr=0.1)
        log = []
        optimizer.register_step_pre_hook(lambda o, args, kwargs: log.append(("before", o.param_groups[0]["lr"])))
        optimizer.register_step_post_hook(
            lambda o, args, kwargs: log.append(("after", o.param_groups[0]["params"][0]._version))
        )
        scheduler = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=5)
        averaged = optim.swa_utils.AveragedModel(net, multi_avg_fn=optim.swa_utils.get_ema_multi_avg_fn(0.9))
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.randn(5, 4)).square().mean().backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            nn.utils.clip_grad_value_(net.parameters(), 0.1)
            optimizer.step()
            scheduler.step()
            averaged.update_parameters(net)
        return net, averaged.module, averaged.n_averaged, log, scheduler.get_last_lr()

    same(program)


def test_an_optimizer_and_scheduler_from_before_the_watch():
    made = []

    def fresh():
        torch.manual_seed(1)
        net = model()
        optimizer = optim.Adam(net.parameters(), lr=0.1)
        return net, optimizer, optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    made = [fresh(), fresh()]

    def program():
        net, optimizer, scheduler = made.pop()
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.randn(5, 4)).square().mean().backward()
            optimizer.step()
            scheduler.step()
        return net, optimizer, scheduler

    same(program)


def test_an_optimizer_of_the_programs_own():
    class Sign(optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        @torch.no_grad()
        def step(self, closure=None):
            loss = closure() if closure is not None else None
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        state = self.state[p]
                        state.setdefault("mean", torch.zeros_like(p)).mul_(0.9).add_(p.grad, alpha=0.1)
                        p.add_(state["mean"].sign(), alpha=-group["lr"])
            return loss

    def program():
        return train(lambda parameters: Sign(parameters, 0.1))

    same(program)


def test_a_step_that_raises():
    class Refuses(optim.SGD):
        def step(self, closure=None):
            super().step()
            raise ArithmeticError("no step today")

    def program():
        net = model()
        optimizer = Refuses(net.parameters(), lr=0.1)
        net(torch.randn(5, 4)).square().mean().backward()
        optimizer.step()

    same(program)


def test_a_step_that_raises_and_a_program_that_goes_on():
    class Refuses(optim.Adam):
        @torch.no_grad()
        def step(self, closure=None):
            super().step()
            raise ArithmeticError("no step today")

    def program():
        net = model()
        optimizer = Refuses(net.parameters(), lr=0.1)
        for _ in range(3):
            x = torch.randn(5, 4)
            loss = net(x).square().mean()
            loss.backward()
            try:
                optimizer.step()
            except ArithmeticError:
                with torch.no_grad():
                    for p in net.parameters():
                        p.mul_(0.5)
        h = torch.randn(4, requires_grad=True).exp()
        h.mul_(2)
        try:
            h.sum().backward()
        except RuntimeError as error:
            return net, optimizer, str(error).partition("\n\n")[0]

    same(program)


def test_a_step_that_raises_between_modes_of_the_program():
    from sameness import EmptyMode

    class Refuses(optim.SGD):
        def step(self, closure=None):
            raise ArithmeticError

    def program():
        net = model()
        optimizer = Refuses(net.parameters(), lr=0.1)
        net(torch.randn(5, 4)).square().mean().backward()
        try:
            optimizer.step()
        except ArithmeticError:
            pass
        with EmptyMode():
            x = torch.randn(3, requires_grad=True)
            x.exp().sum().backward()
        return x, torch._C._len_torch_dispatch_stack() <= 1

    same(program)


def test_zero_grad_in_place():
    def program():
        net = model()
        optimizer = optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            net(torch.randn(5, 4)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
        return net

    same(program)


def test_accumulation_in_one_gradient():
    def program():
        net = model()
        kept = []
        for i in range(3):
            net(torch.randn(5, 4)).square().mean().backward()
            kept.append(net[0].weight.grad)
            if i == 1:
                net.zero_grad()
        return net, kept

    same(program)


def test_state_is_saved_and_loaded():
    def program():
        net, optimizer, losses = train(lambda parameters: optim.Adam(parameters, lr=0.1))
        other = model()
        other.load_state_dict(net.state_dict())
        second = optim.Adam(other.parameters(), lr=0.1)
        second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        other(torch.randn(5, 4)).square().mean().backward()
        second.step()
        return net, other, second, losses

    same(program)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    def program():
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.LayerNorm(8), nn.Linear(8, 2))
        optimizer = optim.AdamW(net.parameters(), lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=dtype):
                out = net(torch.randn(5, 4))
                loss = nn.functional.cross_entropy(out, torch.tensor([0, 1, 0, 1, 1]))
            loss.backward()
            optimizer.step()
        return net, out, loss

    same(program)


def test_autocast_keeps_its_cache_of_weights():
    """One cast weight for two uses: the second use finds the first one's, watched too."""

    def program():
        w = torch.randn(4, 4, requires_grad=True)
        x = torch.randn(4, 4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            a = x @ w
            b = x @ w
        shared = a.grad_fn.next_functions[1][0] is b.grad_fn.next_functions[1][0]
        (a + b).float().sum().backward()
        return w, shared

    same(program)


@pytest.mark.parametrize("scale", [2.0**10, math.inf])
def test_gradient_scaler(scale):
    def program():
        net = model()
        optimizer = optim.SGD(net.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        for factor in (1.0, scale, 1.0):
            optimizer.zero_grad()
            loss = net(torch.randn(5, 4)).square().mean() * factor
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
        return net, scaler.get_scale(), scaler

    same(program)


def test_foreach_operations():
    def program():
        xs = [torch.randn(3, requires_grad=True) for _ in range(3)]
        hs = [x * 1 for x in xs]
        torch._foreach_mul_(hs, 2.0)
        sum(h.sum() for h in hs).backward()
        plain = [torch.randn(3) for _ in range(2)]
        torch._foreach_add_(plain, plain, alpha=2)
        torch._foreach_addcmul_(plain, [torch.ones(3)] * 2, [torch.ones(3)] * 2)
        torch._foreach_zero_(plain[:1])
        torch._foreach_copy_(plain, [torch.ones(3), torch.zeros(3)])
        torch._foreach_add_([plain[0], plain[0]], 1.0)
        with torch.no_grad():
            torch._foreach_lerp_(xs, [torch.zeros(3)] * 3, 0.5)
        with torch.inference_mode():
            inferred = [torch.ones(2), torch.ones(3)]
            torch._foreach_mul_(inferred, 3)
        return xs, hs, plain, inferred, torch._foreach_norm(plain)

    same(program)


def test_foreach_operations_refused():
    def program():
        xs = [torch.randn(3, requires_grad=True) for _ in range(3)]
        torch._foreach_mul_(xs, 2.0)

    same(program)


def test_foreach_write_of_saved_tensors():
    def program():
        w = [torch.randn(3, requires_grad=True) for _ in range(2)]
        loss = sum((x * x.exp()).sum() for x in w)
        with torch.no_grad():
            torch._foreach_mul_(w, 2.0)
        loss.backward()

    same(program)


def test_maml():
    def program():
        w = torch.randn(4, 2, requires_grad=True)
        x = torch.randn(8, 4)
        inner = (x @ w).square().mean()
        (g,) = torch.autograd.grad(inner, w, create_graph=True)
        fast = w - 0.1 * g
        (x @ fast).abs().mean().backward()
        return w

    same(program)


def test_gan():
    def program():
        generator, critic = model(), nn.Linear(2, 1)
        og, oc = optim.Adam(generator.parameters()), optim.Adam(critic.parameters())
        for _ in range(2):
            fake = generator(torch.randn(5, 4))
            oc.zero_grad()
            (critic(fake.detach()).mean() - critic(torch.randn(5, 2)).mean()).backward()
            oc.step()
            og.zero_grad()
            (-critic(fake).mean()).backward()
            og.step()
        return generator, critic

    same(program)


@pytest.mark.parametrize("to_none", [True, False])
def test_gradients_cleared_unread(to_none):
    def program():
        net = model()
        optimizer = optim.Adam(net.parameters(), lr=0.1)
        for _ in range(4):
            out = net(torch.randn(6, 4))
            for loss in (out.square().mean(), out.exp().mean()):
                optimizer.zero_grad(set_to_none=to_none)
                loss.backward(retain_graph=True)
            optimizer.step()
            kept = [p.grad for p in net.parameters()]
            for p in net.parameters():
                p.grad = None
            assert all(p.grad is None for p in net.parameters())
        return net, optimizer, kept

    same(program)


def test_results_that_share_their_memory():
    def program():
        a, b = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
        results = []
        for _ in range(6):
            grads = torch.autograd.grad((a + b).square().sum(), (a, b))
            for g in grads:
                g.mul_(0.5)
            results += [*grads, grads[0] is grads[1], grads[0]._version]
        a.grad, b.grad = torch.autograd.grad((a + b).exp().sum(), (a, b))
        results.append(nn.utils.clip_grad_norm_([a, b], 0.1))
        return a, b, results

    same(program)
