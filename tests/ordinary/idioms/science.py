"""Graphs, kernels, differential equations and functional transforms: PyTorch Geometric, gpytorch, torchdiffeq, Pyro, torch.func, learn2learn."""

from __future__ import annotations

import copy
import itertools

import torch
import torch.nn.functional as F
from torch import nn

from idioms.program import Idioms

IDIOMS = Idioms()


@IDIOMS("PyTorch Geometric", "messages scattered into zeros, degrees normalised in place")
def pyg_gcn():
    def gcn_norm(edge_index, n):
        row, col = edge_index
        deg = torch.zeros(n).scatter_add_(0, col, torch.ones(len(col)))
        deg_inv_sqrt = deg.pow_(-0.5)
        deg_inv_sqrt.masked_fill_(deg_inv_sqrt == float("inf"), 0)
        return deg_inv_sqrt[row] * deg_inv_sqrt[col]

    class GCNConv(nn.Module):
        def __init__(self, a, b):
            super().__init__()
            self.lin, self.bias = nn.Linear(a, b, bias=False), nn.Parameter(torch.empty(b))
            nn.init.zeros_(self.bias)

        def forward(self, x, edge_index, norm):
            x = self.lin(x)
            out = norm.view(-1, 1) * x.index_select(0, edge_index[0])
            index = edge_index[1].view(-1, 1).expand_as(out)
            out = out.new_zeros(x.shape).scatter_add_(0, index, out)
            out += self.bias
            return out

    convs = nn.ModuleList([GCNConv(3, 4), GCNConv(4, 2)])
    optimizer = torch.optim.Adam(convs.parameters(), lr=0.01, weight_decay=5e-4)
    edge_index = torch.tensor([[0, 1, 1, 2, 3, 4, 0], [1, 0, 2, 1, 4, 3, 5]])
    x, y = torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 0])
    train_mask = torch.zeros(6, dtype=torch.bool)
    train_mask[:4] = True
    for _ in range(3):
        optimizer.zero_grad()
        # differences: convs
        norm = gcn_norm(edge_index, 6)
        h = F.dropout(F.relu_(convs[0](x, edge_index, norm)), 0.2)
        out = convs[1](h, edge_index, norm)
        loss = F.cross_entropy(out[train_mask], y[train_mask])
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("PyTorch Geometric", "attention by a softmax over each node's edges")
def pyg_gat():
    lin, att = nn.Linear(3, 4), nn.Parameter(torch.empty(4))
    nn.init.uniform_(att, -0.5, 0.5)
    optimizer = torch.optim.Adam([*lin.parameters(), att], lr=0.01)
    src_of, index = torch.tensor([0, 1, 1, 2, 3, 0, 2]), torch.tensor([1, 0, 2, 1, 0, 3, 3])

    def softmax(src):
        src_max = torch.full((4,), float("-inf")).scatter_reduce_(0, index, src.detach(), "amax")
        out = (src - src_max.index_select(0, index)).exp()
        out_sum = torch.zeros(4).scatter_add_(0, index, out) + 1e-16
        return out / out_sum.index_select(0, index)

    for _ in range(3):
        optimizer.zero_grad()
        x = torch.randn(4, 3)
        # differences: lin, att
        h = lin(x)
        alpha = softmax(F.leaky_relu((h[src_of] * att).sum(-1), 0.2))
        out = torch.zeros_like(h).index_add_(0, index, h[src_of] * alpha[:, None])
        loss = out.square().mean()
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("PyGAS", "embeddings of earlier batches pushed to a history and pulled from it")
def historical_embeddings():
    class History(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = torch.empty(8, 4)
            self.emb.fill_(0)

        @torch.no_grad()
        def push(self, x, n_id):
            self.emb[n_id] = x.to(self.emb.device)

    lin1, lin2, history = nn.Linear(3, 4), nn.Linear(4, 2), History()
    optimizer = torch.optim.Adam([*lin1.parameters(), *lin2.parameters()], lr=0.01)
    features, labels = torch.randn(8, 3), torch.randint(2, (8,))
    for step in range(4):
        batch = torch.arange(8)[step % 2 :: 2]
        rest = torch.arange(8)[(step + 1) % 2 :: 2]
        optimizer.zero_grad()
        # differences: lin1, lin2
        h = lin1(features[batch]).relu()
        history.push(h, batch)
        mixed = torch.cat([h, history.emb[rest]])
        out = lin2(mixed[: len(batch)] + mixed[len(batch) :])
        loss = F.cross_entropy(out, labels[batch])
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("gpytorch", "a marginal likelihood with jitter added to the diagonal, by LBFGS")
def gpytorch_exact():
    raw_lengthscale, raw_noise = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    mean = nn.Parameter(torch.zeros(1))
    params = [raw_lengthscale, raw_noise, mean]
    x = torch.linspace(0, 1, 8)
    y = torch.sin(x * 6) + 0.1 * torch.randn(8)
    optimizer = torch.optim.LBFGS(params, lr=0.1, max_iter=4, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        # differences: params
        scaled = x / F.softplus(raw_lengthscale)
        covar = (scaled[:, None] - scaled[None, :]).pow_(2).div_(-2).exp_()
        covar = covar + F.softplus(raw_noise) * torch.eye(8)
        covar.diagonal().add_(1e-4)
        chol = torch.linalg.cholesky(covar)
        diff = (y - mean).unsqueeze(-1)
        inv_quad = (diff * torch.cholesky_solve(diff, chol)).sum()
        loss = 0.5 * (inv_quad + 2 * chol.diagonal().log().sum()) / 8
        loss.backward()
        return loss

    losses = [optimizer.step(closure) for _ in range(2)]
    return locals()


@IDIOMS("torchdiffeq", "Runge-Kutta steps stored in the slots of an empty solution")
def torchdiffeq():
    func = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2))
    for m in func[::2]:
        nn.init.normal_(m.weight, mean=0, std=0.1)
        nn.init.constant_(m.bias, val=0)
    optimizer = torch.optim.RMSprop(func.parameters(), lr=0.01)

    def odeint(y0, t):
        solution = torch.empty(len(t), *y0.shape, dtype=y0.dtype)
        solution[0] = y0
        for j, (t0, t1) in enumerate(itertools.pairwise(t), 1):
            dt = t1 - t0
            k1 = func(y0)
            k2 = func(y0 + dt * k1 / 3)
            k3 = func(y0 + dt * (k2 - k1 / 3))
            k4 = func(y0 + dt * (k1 - k2 + k3))
            y0 = y0 + (k1 + 3 * (k2 + k3) + k4) * dt * 0.125
            solution[j] = y0
        return solution

    for _ in range(2):
        optimizer.zero_grad()
        # differences: func
        pred = odeint(torch.randn(3, 2), torch.linspace(0, 1, 5))
        loss = torch.mean(torch.abs(pred - 1))
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("Pyro", "a variational bound summed in place, gradients clamped")
def pyro_svi():
    loc, unconstrained = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    params = {"loc": loc, "scale": unconstrained}
    optimizer, losses = torch.optim.Adam(params.values(), lr=0.05), []
    data = torch.randn(10, 3) + 1
    for _ in range(3):
        # differences: params
        elbo = torch.zeros(())
        for _particle in range(2):
            guide = torch.distributions.Normal(loc, unconstrained.exp())
            z = guide.rsample()
            elbo += torch.distributions.Normal(0.0, 1.0).log_prob(z).sum() / 2
            elbo += torch.distributions.Normal(z, 1.0).log_prob(data).sum() / 2
            elbo -= guide.log_prob(z).sum() / 2
        loss = -elbo
        loss.backward()
        for p in params.values():
            p.grad.data.clamp_(-10, 10)
        optimizer.step()
        losses.append(loss.item())
        for p in params.values():
            p.grad = torch.zeros_like(p)
    return locals()


@IDIOMS(
    "torch.func",
    "an ensemble by vmap, per-sample gradients clipped",
    says="torch.func",
    no_differences="the gradients are those of a transform",
)
def func_per_sample():
    from torch.func import functional_call, grad, stack_module_state, vmap

    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    params = {k: v.detach() for k, v in net.named_parameters()}

    def loss_of(p, x, y):
        return F.cross_entropy(functional_call(net, p, (x[None],)), y[None])

    x, y = torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
    for _ in range(2):
        per_sample = vmap(grad(loss_of), in_dims=(None, 0, 0))(params, x, y)
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in per_sample.values()]).norm(dim=0)
        factor = (1.0 / (norms + 1e-6)).clamp_(max=1.0)
        for name, g in per_sample.items():
            g.mul_(factor.view(-1, *[1] * (g.dim() - 1)))
            params[name].sub_(g.mean(0), alpha=0.1)
    stacked, buffers = stack_module_state([copy.deepcopy(net) for _ in range(2)])
    base = copy.deepcopy(net).to("meta")
    out = vmap(lambda p, b: functional_call(base, (p, b), (torch.ones(1, 3),)))(stacked, buffers)
    out.sum().backward()
    return locals()


@IDIOMS("torch.func", "model-agnostic meta-learning with functional calls", says="torch.func")
def func_maml():
    from torch.func import functional_call, grad

    net = nn.Sequential(nn.Linear(1, 6), nn.ReLU(), nn.Linear(6, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        # differences: net
        params, losses = dict(net.named_parameters()), []
        for _task in range(2):
            amplitude, x = torch.rand(1) + 0.5, torch.rand(5, 1)

            def inner(p, x=x, amplitude=amplitude):
                return F.mse_loss(functional_call(net, p, (x,)), amplitude * torch.sin(x))

            grads = grad(inner)(params)
            adapted = {k: v - 0.1 * grads[k] for k, v in params.items()}
            losses.append(inner(adapted, torch.rand(5, 1)))
        loss = sum(losses) / 2
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("learn2learn", "modules cloned and updated with their graph")
def learn2learn():
    net = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)

    def clone_module(module):
        clone = module.__new__(type(module))
        clone.__dict__ = module.__dict__.copy()
        clone._parameters = {k: None if p is None else p.clone() for k, p in module._parameters.items()}
        clone._modules = {k: clone_module(m) for k, m in module._modules.items()}
        return clone

    def update(module, updates):
        for key, p in module._parameters.items():
            if p is not None:
                module._parameters[key] = p - 0.1 * next(updates)
        for child in module._modules.values():
            update(child, updates)

    def parameters(module):
        own = [p for p in module._parameters.values() if p is not None]
        return own + [p for child in module._modules.values() for p in parameters(child)]

    for _ in range(2):
        optimizer.zero_grad()
        # differences: net
        for _task in range(2):
            learner = clone_module(net)
            x, y = torch.randn(4, 2), torch.randn(4, 1)
            for _adapt in range(2):
                error = F.mse_loss(learner(x), y)
                update(learner, iter(torch.autograd.grad(error, parameters(learner), create_graph=True)))
            F.mse_loss(learner(torch.randn(4, 2)), torch.randn(4, 1)).backward()
        for p in net.parameters():
            p.grad.data.mul_(1.0 / 2)
        optimizer.step()
    return locals()


@IDIOMS("supervised-reptile", "weights moved towards those that a copy has learnt")
def reptile():
    net = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1))
    for _ in range(2):
        before = copy.deepcopy(net.state_dict())
        for _inner in range(3):
            x = torch.rand(4, 1)
            net.zero_grad()
            # differences: net
            loss = (net(x) - torch.sin(x)).pow(2).mean()
            loss.backward()
            for param in net.parameters():
                param.data -= 0.1 * param.grad.data
        after = net.state_dict()
        net.load_state_dict({k: before[k] + (after[k] - before[k]) * 0.5 for k in before})
    return locals()


@IDIOMS("PINNs", "residuals of a differential equation, boundary values pinned in a slot")
def pinn():
    u = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(u.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        points = torch.rand(6, 1)
        points[0], points[-1] = 0.0, 1.0
        # differences: u
        x = points.clone().requires_grad_(True)
        y = u(x)
        (dy,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)
        (d2y,) = torch.autograd.grad(dy, x, torch.ones_like(dy), create_graph=True)
        residual = d2y + y
        residual[[0, -1]] = y[[0, -1]] - x[[0, -1]]
        loss = residual.square().mean()
        loss.backward()
        optimizer.step()
    return locals()
