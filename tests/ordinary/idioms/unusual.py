"""Writes that look dangerous and are not: after the last read, through an alias that nobody reads, of gradients that were used."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from idioms.program import Idioms

IDIOMS = Idioms()


@IDIOMS("RevTorch", "a reversible block: nothing saved but the output, inputs found again in backward")
def reversible():
    class Reversible(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, f, g):
            ctx.f, ctx.g = f, g
            with torch.no_grad():
                x1, x2 = x.chunk(2, 1)
                y1 = x1 + f(x2)
                y2 = x2 + g(y1)
            ctx.y = torch.cat([y1, y2], 1)
            return ctx.y.clone()

        @staticmethod
        def backward(ctx, dy):
            y1, y2 = ctx.y.chunk(2, 1)
            del ctx.y
            dy1, dy2 = dy.chunk(2, 1)
            with torch.enable_grad():
                y1 = y1.clone().requires_grad_(True)
                gy1 = ctx.g(y1)
                torch.autograd.backward(gy1, dy2)
            with torch.no_grad():
                x2 = y2 - gy1
                dx1 = dy1 + y1.grad
                y1.grad = None
            with torch.enable_grad():
                x2.requires_grad_(True)
                fx2 = ctx.f(x2)
                torch.autograd.backward(fx2, dx1)
            dx2 = dy2 + x2.grad
            x2.grad = None
            return torch.cat([dx1, dx2], 1), None, None

    f, g, head = nn.Sequential(nn.Linear(2, 2), nn.Tanh()), nn.Sequential(nn.Linear(2, 2), nn.Tanh()), nn.Linear(4, 1)
    stem = nn.Linear(3, 4)
    model = nn.ModuleList([stem, f, g, head])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        # differences: stem, head
        loss = head(Reversible.apply(stem(torch.randn(5, 3)), f, g)).square().mean()
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("inplace_abn", "an activation in place whose backward inverts it")
def inplace_activation():
    class LeakyInPlace(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, slope):
            ctx.slope = slope
            x.mul_(torch.where(x < 0, slope, 1.0))
            ctx.mark_dirty(x)
            ctx.save_for_backward(x)
            return x

        @staticmethod
        def backward(ctx, grad):
            (y,) = ctx.saved_tensors
            grad = grad.clone()
            grad[y < 0] *= ctx.slope
            return grad, None

    conv, bn, head = nn.Conv2d(1, 3, 2, bias=False), nn.BatchNorm2d(3), nn.Linear(3, 2)
    model = nn.ModuleList([conv, bn, head])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        # differences: model
        out = LeakyInPlace.apply(bn(conv(torch.randn(4, 1, 4, 4))), 0.01)
        loss = F.cross_entropy(head(out.mean((2, 3))), torch.tensor([0, 1, 1, 0]))
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("TRPO", "curvature products on a graph that is kept, parameters set from a vector")
def trpo():
    policy = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    obs, adv = torch.randn(6, 3), torch.randn(6)
    acts = torch.randint(2, (6,))

    def flat(tensors):
        return torch.cat([t.reshape(-1) for t in tensors])

    for _ in range(2):
        params = [*policy.parameters()]
        old = policy(obs).log_softmax(1).detach()
        # differences: policy
        logp = policy(obs).log_softmax(1)
        surrogate = (torch.exp(logp - old)[torch.arange(6), acts] * adv).mean()
        g = flat(torch.autograd.grad(surrogate, params, retain_graph=True))
        kl = (old.exp() * (old - logp)).sum(1).mean()
        grads = flat(torch.autograd.grad(kl, params, create_graph=True))
        x, r = torch.zeros_like(g), g.clone()
        p, rdotr = r.clone(), r.dot(r)
        for _cg in range(3):
            z = flat(torch.autograd.grad((grads * p).sum(), params, retain_graph=True)) + 0.1 * p
            alpha = rdotr / p.dot(z)
            x += alpha * p
            r -= alpha * z
            new = r.dot(r)
            p = r + new / rdotr * p
            rdotr = new
        before = nn.utils.parameters_to_vector(params).detach()
        for fraction in 1.0, 0.5, 0.25:
            nn.utils.vector_to_parameters(before + fraction * 0.1 * x, params)
            with torch.no_grad():
                now = policy(obs).log_softmax(1)
            if (old.exp() * (old - now)).sum(1).mean() < 0.01:
                break
    return locals()


@IDIOMS("AdaHessian", "gradients with a graph, their products with random signs, a step, then cleared")
def adahessian():
    net = nn.Sequential(nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 1))
    params, state = [*net.parameters()], {}
    for _ in range(3):
        # differences: net
        loss = net(torch.randn(6, 3)).square().mean()
        grads = torch.autograd.grad(loss, params, create_graph=True)
        signs = [torch.randint_like(p, high=2) * 2 - 1 for p in params]
        products = torch.autograd.grad(grads, params, grad_outputs=signs, retain_graph=False)
        with torch.no_grad():
            for p, g, h, z in zip(params, grads, products, signs, strict=True):
                mean, square = state.setdefault(p, (torch.zeros_like(p), torch.zeros_like(p)))
                mean.mul_(0.9).add_(g, alpha=0.1)
                square.mul_(0.99).addcmul_(h * z, h * z, value=0.01)
                p.addcdiv_(mean, square.sqrt().add_(1e-2), value=-0.01)
    return locals()


@IDIOMS("DARTS", "weights shaken by finite differences, an architecture's gradient copied in")
def darts():
    ops = nn.ModuleList([nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=False))])
    alphas = (1e-3 * torch.randn(2)).requires_grad_(True)
    weights = [*ops.parameters()]
    w_opt, a_opt = torch.optim.SGD(weights, 0.05, momentum=0.9), torch.optim.Adam([alphas], lr=0.01)

    def loss_of(x, y):
        mix = F.softmax(alphas, dim=-1)
        return F.mse_loss(sum(a * op(x) for a, op in zip(mix, ops, strict=True)), y)

    for _ in range(2):
        train, valid = (torch.randn(4, 3), torch.randn(4, 3)), (torch.randn(4, 3), torch.randn(4, 3))
        a_opt.zero_grad()
        for p in weights:
            p.grad = None
        loss_of(*valid).backward()
        vector = [p.grad.data.clone() for p in weights]
        eps = 0.01 / torch.cat([v.view(-1) for v in vector]).norm()
        for p, v in zip(weights, vector, strict=True):
            p.data.add_(v, alpha=eps.item())
        grads_p = torch.autograd.grad(loss_of(*train), alphas)
        for p, v in zip(weights, vector, strict=True):
            p.data.sub_(v, alpha=2 * eps.item())
        grads_n = torch.autograd.grad(loss_of(*train), alphas)
        for p, v in zip(weights, vector, strict=True):
            p.data.add_(v, alpha=eps.item())
        implicit = (grads_p[0] - grads_n[0]).div_(2 * eps)
        alphas.grad.data.sub_(implicit.data, alpha=0.05)
        a_opt.step()
        w_opt.zero_grad()
        # differences: weights
        loss = loss_of(*train)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 5.0)
        w_opt.step()
    return locals()


@IDIOMS("gaussian-splatting", "points cloned and pruned between the steps, statistics of their gradients in place")
def gaussian_splatting():
    xyz = nn.Parameter(torch.rand(6, 2).requires_grad_(True))
    opacity = nn.Parameter(torch.zeros(6, 1).requires_grad_(True))
    groups = [{"params": [xyz], "lr": 0.05, "name": "xyz"}, {"params": [opacity], "lr": 0.05, "name": "opacity"}]
    optimizer = torch.optim.Adam(groups, lr=0.0, eps=1e-15)
    accum, denom, target = torch.zeros(6, 1), torch.zeros(6, 1), torch.rand(4, 4)
    grid = torch.stack(torch.meshgrid(torch.linspace(0, 1, 4), torch.linspace(0, 1, 4), indexing="ij"), -1)
    for iteration in range(4):
        # differences: xyz, opacity
        screen = torch.zeros_like(xyz, requires_grad=True) + 0
        screen.retain_grad()
        d2 = (grid[:, :, None] - (xyz + screen)).square().sum(-1)
        image = (torch.exp(-d2 * 8) * torch.sigmoid(opacity).squeeze(1)).sum(-1)
        loss = (image - target).abs().mean()
        loss.backward()
        with torch.no_grad():
            seen = screen.grad.norm(dim=-1) > 0
            accum[seen] += torch.norm(screen.grad[seen], dim=-1, keepdim=True)
            denom[seen] += 1
            if iteration == 1:
                chosen = (accum / denom).squeeze(1) > (accum / denom).median()
                for group in optimizer.param_groups:
                    old = group["params"][0]
                    stored = optimizer.state.pop(old, None)
                    new = nn.Parameter(torch.cat((old, old[chosen]), dim=0).requires_grad_(True))
                    if stored is not None:
                        for key in "exp_avg", "exp_avg_sq":
                            stored[key] = torch.cat((stored[key], torch.zeros_like(old[chosen])), dim=0)
                        optimizer.state[new] = stored
                    group["params"][0] = new
                xyz, opacity = (group["params"][0] for group in optimizer.param_groups)
                accum, denom = torch.zeros(len(xyz), 1), torch.zeros(len(xyz), 1)
            else:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if iteration == 2:
                opacity.data.clamp_(max=-1.0)
    return locals()


@IDIOMS("free adversarial training", "noise that shares its memory with a global tensor, moved after each backward")
def free_adversarial():
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 2))
    optimizer, global_noise = torch.optim.SGD(net.parameters(), lr=0.1), torch.zeros(8, 4)
    for _ in range(2):
        inputs, target = torch.rand(5, 4), torch.tensor([0, 1, 1, 0, 1])
        for _replay in range(3):
            # differences: net
            noise_batch = global_noise[: inputs.size(0)].detach().requires_grad_(True)
            in1 = inputs + noise_batch
            in1.clamp_(0, 1.0)
            in1.sub_(0.5).div_(0.25)
            loss = F.cross_entropy(net(in1), target)
            loss.backward()
            pert = 0.01 * torch.sign(noise_batch.grad)
            global_noise[: inputs.size(0)] += pert.data
            global_noise.clamp_(-0.03, 0.03)
            optimizer.step()
            optimizer.zero_grad()
    return locals()


@IDIOMS("pytorch tutorials", "a picture optimised by LBFGS, clamped in the closure")
def style_transfer():
    conv = nn.Conv2d(1, 3, 3).requires_grad_(False)
    picture = torch.rand(1, 1, 5, 5)
    goal = conv(torch.rand(1, 1, 5, 5)).detach()
    picture.requires_grad_(True)
    optimizer, run = torch.optim.LBFGS([picture], max_iter=3), [0]

    def gram(x):
        flat = x.view(3, -1)
        return (flat @ flat.t()).div(flat.numel())

    while run[0] <= 4:

        def closure():
            with torch.no_grad():
                picture.clamp_(0, 1)
            optimizer.zero_grad()
            # differences: picture
            features = conv(picture)
            style, content = F.mse_loss(gram(features), gram(goal)), F.mse_loss(features, goal)
            loss = style * 100 + content
            loss.backward()
            run[0] += 1
            return style + content

        optimizer.step(closure)
    with torch.no_grad():
        picture.clamp_(0, 1)
    return locals()


@IDIOMS(
    "pytorch examples",
    "a validation loss without no_grad, named until after the next step",
    false_alarm="`breaks`, pending: nobody runs the backward of a loss that is only looked at",
)
def validation_in_grad_mode():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer, history = torch.optim.Adam(net.parameters(), lr=0.01), []
    for _ in range(3):
        val_loss = F.l1_loss(net(torch.randn(4, 3)), torch.ones(4, 1))
        history.append(val_loss.item())
        optimizer.zero_grad()
        # differences: net
        loss = F.mse_loss(net(torch.randn(4, 3)), torch.ones(4, 1))
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS(
    "pytorch-optimizer",
    "the norm of gradients that have a graph, logged, then the step",
    false_alarm="`breaks`, pending: nobody runs the backward of a norm that is only looked at",
)
def logged_gradient_norm():
    net, norms = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), []
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        # differences: net
        loss = net(torch.randn(4, 3)).pow(2).mean()
        loss.backward(create_graph=True)
        grad_norm = sum(p.grad.norm() ** 2 for p in net.parameters()) ** 0.5
        norms.append(float(grad_norm))
        optimizer.step()
        for p in net.parameters():
            p.grad = None
    return locals()
