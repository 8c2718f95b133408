"""What is done to gradients and weights between backward and the next step: SAM, Lookahead, PCGrad, GradNorm, fastai, Lightning, DeepSpeed."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from idioms.program import Idioms

IDIOMS = Idioms()


@IDIOMS("sam", "weights moved to the sharpest place near, and back")
def sam():
    class SAM(torch.optim.Optimizer):
        def __init__(self, params, base, rho, **kwargs):
            super().__init__(params, {"rho": rho, **kwargs})
            self.base_optimizer = base(self.param_groups, **kwargs)
            self.param_groups = self.base_optimizer.param_groups

        @torch.no_grad()
        def first_step(self):
            norms = [p.grad.norm(p=2) for g in self.param_groups for p in g["params"]]
            norm = torch.norm(torch.stack(norms), p=2)
            for group in self.param_groups:
                for p in group["params"]:
                    self.state[p]["old_p"] = p.data.clone()
                    p.add_(p.grad * (group["rho"] / (norm + 1e-12)))
            self.zero_grad()

        @torch.no_grad()
        def second_step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data = self.state[p]["old_p"]
            self.base_optimizer.step()
            self.zero_grad()

    net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(inplace=True), nn.Linear(5, 2))
    optimizer = SAM(net.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)
    for _ in range(3):
        x, y = torch.randn(6, 3), torch.tensor([0, 1, 1, 0, 1, 0])
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.first_step()
        net[1].momentum = 0.0
        # differences: net
        F.cross_entropy(net(x), y).backward()
        optimizer.second_step()
        net[1].momentum = 0.1
    return locals()


@IDIOMS("lookahead", "slow weights that follow the fast ones, and overwrite them")
def lookahead():
    class Lookahead:
        def __init__(self, optimizer, k=2, alpha=0.5):
            self.optimizer, self.k, self.alpha, self.count = optimizer, k, alpha, 0
            self.slow = [[p.clone().detach() for p in g["params"]] for g in optimizer.param_groups]

        def step(self):
            self.optimizer.step()
            self.count += 1
            if self.count % self.k == 0:
                for group, slow in zip(self.optimizer.param_groups, self.slow, strict=True):
                    for fast, q in zip(group["params"], slow, strict=True):
                        q.add_(fast.data - q, alpha=self.alpha)
                        fast.data.copy_(q)

    net = nn.Sequential(nn.Linear(3, 5), nn.ELU(inplace=True), nn.Linear(5, 1))
    optimizer = Lookahead(torch.optim.RAdam(net.parameters(), lr=0.05))
    for _ in range(4):
        optimizer.optimizer.zero_grad()
        # differences: net
        loss = (net(torch.randn(5, 3)) - 1).abs().mean()
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("PCGrad", "conflicting gradients projected in place on copies, then written back")
def pcgrad():
    encoder, heads = nn.Sequential(nn.Linear(3, 5), nn.ReLU(True)), nn.ModuleList([nn.Linear(5, 1), nn.Linear(5, 2)])
    params = [*encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.Adam(params, lr=0.01)
    for _ in range(3):
        x = torch.randn(6, 3)
        # differences: params
        h = encoder(x)
        losses = [heads[0](h).pow(2).mean(), F.cross_entropy(heads[1](h), torch.tensor([0, 1, 1, 0, 1, 0]))]
        grads, shapes = [], [p.shape for p in params]
        for loss in losses:
            optimizer.zero_grad(set_to_none=True)
            loss.backward(retain_graph=True)
            grads.append(
                torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in params])
            )
        projected = copy.deepcopy(grads)
        for g_i in projected:
            for g_j in grads:
                dot = torch.dot(g_i, g_j)
                if dot < 0:
                    g_i -= dot * g_j / (g_j.norm() ** 2)
        merged = torch.stack(projected).mean(dim=0)
        optimizer.zero_grad(set_to_none=True)
        for p, g, shape in zip(params, merged.split([p.numel() for p in params]), shapes, strict=True):
            p.grad = g.view(shape)
        optimizer.step()
    return locals()


@IDIOMS("GradNorm", "loss weights with gradients of their own, renormalised through .data")
def gradnorm():
    shared, towers = nn.Linear(3, 4), nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)])
    weights = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([*shared.parameters(), *towers.parameters()], lr=0.01)
    weight_optimizer, initial = torch.optim.Adam([weights], lr=0.05), None
    for _ in range(3):
        optimizer.zero_grad()
        # differences: shared, towers
        h = torch.tanh(shared(torch.randn(6, 3)))
        losses = torch.stack([tower(h).sub(k).pow(2).mean() for k, tower in enumerate(towers)])
        if initial is None:
            initial = losses.detach()
        (weights * losses).sum().backward(retain_graph=True)
        weights.grad.zero_()
        norms = torch.stack(
            [
                torch.norm(torch.autograd.grad(weights[k] * losses[k], shared.weight, create_graph=True)[0])
                for k in range(2)
            ]
        )
        rate = losses.detach() / initial
        target = (norms.mean() * (rate / rate.mean()) ** 0.12).detach()
        weights.grad = torch.autograd.grad((norms - target).abs().sum(), weights)[0]
        weight_optimizer.step()
        optimizer.step()
        weights.data = weights.data / weights.data.sum() * 2
    return locals()


@IDIOMS("fastai", "layer groups frozen and thawed, one cycle, activations kept by hooks")
def fastai_fine_tune():
    body = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(inplace=True))
    head = nn.Sequential(nn.Dropout(0.2), nn.Linear(5, 2))
    model = nn.Sequential(body, head)
    stats, losses = [], []

    def keep(module, inputs, output):
        stats.append((output.detach().mean(), output.detach().std()))

    handle = body.register_forward_hook(keep)
    groups = [{"params": [*body.parameters()], "lr": 1e-3}, {"params": [*head.parameters()], "lr": 1e-2}]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [1e-2, 1e-1], total_steps=4)
    smooth = torch.tensor(0.0)
    for phase in "frozen", "thawed":
        for p in body.parameters():
            p.requires_grad_(phase == "thawed")
        for _ in range(2):
            xb, yb = torch.randn(6, 3), torch.tensor([0, 1, 1, 0, 1, 0])
            # differences: model
            loss = F.cross_entropy(model(xb), yb)
            loss.backward()
            smooth.lerp_(loss.detach(), 0.02)
            losses.append(loss.detach().clone())
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    handle.remove()
    return locals()


@IDIOMS("Lightning", "manual optimisation with toggled optimizers and metrics that count in place")
def lightning_manual():
    class Accuracy(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("correct", torch.tensor(0))
            self.register_buffer("total", torch.tensor(0))

        def update(self, preds, target):
            self.correct += torch.sum((preds > 0) == target)
            self.total += target.numel()

        def compute(self):
            return self.correct.float() / self.total

        def reset(self):
            self.correct.zero_()
            self.total.zero_()

    g, d, accuracy = nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 4), nn.SELU(inplace=True), nn.Linear(4, 1)), Accuracy()
    opt_g, opt_d, logged = torch.optim.Adam(g.parameters()), torch.optim.Adam(d.parameters()), {}

    def toggle(on, off):
        for p in off.parameters():
            p.requires_grad = False
        for p in on.parameters():
            p.requires_grad = True

    for _epoch in range(2):
        for _batch in range(2):
            real, z = torch.randn(4, 3), torch.randn(4, 2)
            toggle(g, d)
            # differences: g
            g_loss = F.binary_cross_entropy_with_logits(d(g(z)), torch.ones(4, 1))
            opt_g.zero_grad()
            g_loss.backward()
            opt_g.step()
            toggle(d, g)
            # differences: d
            scores = torch.cat([d(real), d(g(z).detach())])
            target = torch.cat([torch.ones(4, 1), torch.zeros(4, 1)])
            d_loss = F.binary_cross_entropy_with_logits(scores, target)
            opt_d.zero_grad()
            d_loss.backward()
            opt_d.step()
            accuracy.update(scores, target.bool())
            logged["g_loss"], logged["d_loss"] = g_loss.detach(), d_loss.detach()
        logged["accuracy"] = accuracy.compute()
        accuracy.reset()
    return locals()


@IDIOMS("DeepSpeed", "gradients flattened, averaged and copied back, master weights in higher precision")
def deepspeed_flat():
    from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    masters = [p.detach().clone().double().requires_grad_(True) for p in net.parameters()]
    optimizer = torch.optim.Adam(masters, lr=0.01)
    for _ in range(3):
        # differences: net
        loss = net(torch.randn(5, 3)).square().mean() * 128.0
        loss.backward()
        grads = [p.grad.data for p in net.parameters()]
        flat = _flatten_dense_tensors(grads)
        flat.div_(128.0)
        for grad, synced in zip(grads, _unflatten_dense_tensors(flat, grads), strict=True):
            grad.copy_(synced)
        for master, p in zip(masters, net.parameters(), strict=True):
            if master.grad is None:
                master.grad = torch.empty_like(master)
            master.grad.copy_(p.grad)
        optimizer.step()
        for master, p in zip(masters, net.parameters(), strict=True):
            p.data.copy_(master.data)
            p.grad = None
    return locals()


@IDIOMS("lion-pytorch", "an optimizer of one's own that writes .data and its state in place")
def lion():
    class Lion(torch.optim.Optimizer):
        def __init__(self, params, lr=1e-2, wd=0.1):
            super().__init__(params, {"lr": lr, "wd": wd})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    state = self.state[p]
                    if not state:
                        state["exp_avg"] = torch.zeros_like(p)
                    p.data.mul_(1.0 - group["lr"] * group["wd"])
                    update = state["exp_avg"].clone().mul_(0.9).add(p.grad, alpha=0.1).sign_()
                    p.add_(update, alpha=-group["lr"])
                    state["exp_avg"].mul_(0.99).add_(p.grad, alpha=0.01)

    net = nn.Sequential(nn.Linear(3, 4), nn.CELU(inplace=True), nn.Linear(4, 2))
    optimizer = Lion(net.parameters())
    for _ in range(3):
        # differences: net
        loss = F.cross_entropy(net(torch.randn(4, 3)), torch.tensor([0, 1, 1, 0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("torch.optim.swa_utils", "an exponential average by foreach, its batch norm filled again, a rate annealed")
def swa():
    from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn

    net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(inplace=True), nn.Linear(5, 1))
    averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    rate = SWALR(optimizer, swa_lr=0.05, anneal_epochs=2)
    batches = [torch.randn(4, 3) for _ in range(3)]
    for batch in batches:
        optimizer.zero_grad()
        # differences: net
        loss = F.huber_loss(net(batch), torch.ones(4, 1))
        loss.backward()
        optimizer.step()
        averaged.update_parameters(net)
        rate.step()
    update_bn(batches, averaged)
    return locals()
