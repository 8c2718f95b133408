"""More of the same: distances by `addmm_`, centres, masks of pruning, per-sample gradients, shared arrays, steps in hooks."""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from idioms.program import Idioms

IDIOMS = Idioms()


@IDIOMS("open-reid", "distances by addmm_ in place, hard triplets, centres moved through .data")
def reid():
    net, head = nn.Sequential(nn.Linear(3, 6), nn.ReLU(inplace=True), nn.Linear(6, 4)), nn.Linear(4, 2)
    centers = torch.zeros(2, 4)
    optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], lr=0.01)
    labels = torch.tensor([0, 0, 1, 1])
    for _ in range(3):
        # differences: net, head
        feat = net(torch.randn(4, 3))
        n = len(feat)
        xx = torch.pow(feat, 2).sum(1, keepdim=True).expand(n, n)
        dist = xx + xx.t()
        dist.addmm_(feat, feat.t(), beta=1, alpha=-2)
        dist = dist.clamp(min=1e-12).sqrt()
        is_pos = labels.expand(n, n).eq(labels.expand(n, n).t())
        dist_ap = torch.stack([dist[i][is_pos[i]].max() for i in range(n)])
        dist_an = torch.stack([dist[i][~is_pos[i]].min() for i in range(n)])
        loss = F.margin_ranking_loss(dist_an, dist_ap, torch.ones(n), margin=0.3)
        loss += F.cross_entropy(head(feat), labels)
        loss += 0.01 * (feat - centers[labels]).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        diff = (centers[labels] - feat).detach()
        centers.data.index_add_(0, labels, -0.5 * diff)
    return locals()


@IDIOMS("insightface", "an angular margin: one-hot scattered, logits scaled in place")
def arcface():
    backbone, weight = nn.Linear(3, 4), nn.Parameter(torch.empty(5, 4))
    nn.init.xavier_uniform_(weight)
    optimizer = torch.optim.SGD([*backbone.parameters(), weight], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        label = torch.randint(5, (6,))
        # differences: backbone, weight
        cosine = F.linear(F.normalize(backbone(torch.randn(6, 3))), F.normalize(weight))
        sine = torch.sqrt((1.0 - torch.pow(cosine, 2)).clamp(1e-6, 1))
        phi = cosine * 0.9 - sine * 0.4
        phi = torch.where(cosine > -0.9, phi, cosine - 0.2)
        one_hot = torch.zeros(cosine.size())
        one_hot.scatter_(1, label.view(-1, 1).long(), 1)
        output = (one_hot * phi) + ((1.0 - one_hot) * cosine)
        output *= 8.0
        loss = F.cross_entropy(output, label)
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("pytorch-grad-cam", "maps scaled in place after their gradients were read", says="hooks of the program")
def grad_cam():
    features = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True))
    head = nn.Linear(3, 2)
    kept, cams = {}, []

    def keep(module, inputs, output):
        kept["activation"] = output
        output.register_hook(lambda grad: kept.update(gradient=grad))

    handle = features.register_forward_hook(keep)
    for category in 0, 1:
        # differences: features, head
        score = head(features(torch.randn(1, 1, 6, 6)).mean((2, 3)))[:, category].sum()
        features.zero_grad()
        head.zero_grad()
        score.backward(retain_graph=True)
        weights = kept["gradient"].mean(dim=(2, 3), keepdim=True)
        cam = F.relu((weights * kept["activation"]).sum(1))
        cam -= cam.min()
        cam /= cam.max() + 1e-7
        cams.append(cam.detach().numpy())
    handle.remove()
    return locals()


@IDIOMS("avalanche", "importances collected in place, old weights kept, a penalty on both")
def elastic_weights():
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    importances, saved = [torch.zeros_like(p) for p in net.parameters()], None
    for _task in range(2):
        x, y = torch.randn(6, 3), torch.tensor([0, 1, 1, 0, 1, 0])
        for _ in range(2):
            optimizer.zero_grad()
            # differences: net
            loss = F.cross_entropy(net(x), y)
            if saved is not None:
                penalty = torch.tensor(0.0)
                for p, i, old in zip(net.parameters(), importances, saved, strict=True):
                    penalty += (i * (p - old).pow(2)).sum()
                loss += 10 * penalty
            loss.backward()
            optimizer.step()
        for k in range(6):
            optimizer.zero_grad()
            F.cross_entropy(net(x[k : k + 1]), y[k : k + 1]).backward()
            for p, i in zip(net.parameters(), importances, strict=True):
                i += p.grad.data.clone().pow(2)
        for i in importances:
            i /= 6.0
        saved = [p.data.clone() for p in net.parameters()]
    return locals()


@IDIOMS("lottery tickets", "masks on weights and gradients, rewound to where they began, torch's own pruning")
def lottery():
    from torch.nn.utils import prune

    net, extra = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 2)), nn.Linear(4, 2)
    prune.l1_unstructured(extra, "weight", amount=0.4)
    start = copy.deepcopy(net.state_dict())
    masks = {n: torch.ones_like(p) for n, p in net.named_parameters() if "weight" in n}
    optimizer = torch.optim.SGD([*net.parameters(), *extra.parameters()], lr=0.1, momentum=0.9)
    for round_ in range(2):
        for _ in range(2):
            optimizer.zero_grad()
            x = torch.randn(5, 4)
            # differences: net, extra
            loss = F.cross_entropy(net(x) + extra(x), torch.tensor([0, 1, 1, 0, 1]))
            loss.backward()
            for n, p in net.named_parameters():
                if n in masks:
                    p.grad.data.mul_(masks[n])
            optimizer.step()
            for n, p in net.named_parameters():
                if n in masks:
                    p.data.mul_(masks[n])
        for n, p in net.named_parameters():
            if n in masks:
                threshold = np.percentile(p.data.abs().numpy(), 20 * (round_ + 1))
                masks[n].mul_((p.data.abs() > threshold).to(p.dtype))
                p.data.copy_(start[n] * masks[n])
    prune.remove(extra, "weight")
    return locals()


@IDIOMS("opacus", "activations kept by hooks, per-sample gradients from them, clipped and noised")
def private_sgd():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

    def capture(module, inputs, output):
        module.kept = inputs[0].detach()

    def sample(module, grad_input, grad_output):
        backprops = grad_output[0].detach() * len(module.kept)
        module.weight.grad_sample = torch.einsum("ni,nj->nij", backprops, module.kept)
        module.bias.grad_sample = backprops
        del module.kept

    for layer in (net[0], net[2]):
        layer.register_forward_hook(capture)
        layer.register_full_backward_hook(sample)
    params = [*net.parameters()]
    optimizer = torch.optim.SGD(params, lr=0.1)
    for _ in range(2):
        # differences: net
        loss = F.cross_entropy(net(torch.randn(5, 3)), torch.tensor([0, 1, 1, 0, 1]))
        loss.backward()
        norms = torch.stack([p.grad_sample.flatten(1).norm(2, dim=-1) for p in params], dim=1).norm(2, dim=1)
        factor = (1.0 / (norms + 1e-6)).clamp(max=1.0)
        for p in params:
            p.grad = torch.einsum("i,i...", factor, p.grad_sample)
            p.grad += 0.1 * torch.randn_like(p)
            p.grad /= 5
            p.grad_sample = None
        optimizer.step()
        optimizer.zero_grad()
    return locals()


@IDIOMS(
    "torchtune",
    "each optimizer steps in the hook of its parameter, while backward still runs",
    no_differences="no gradient is left to be held against one",
)
def optimizer_in_backward():
    net = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 1))
    optimizers = {p: torch.optim.AdamW([p], lr=0.01) for p in net.parameters()}

    def step(param):
        optimizers[param].step()
        optimizers[param].zero_grad()

    for p in net.parameters():
        p.register_post_accumulate_grad_hook(step)
    losses = []
    for _ in range(3):
        loss = net(torch.randn(5, 3)).square().mean()
        loss.backward()
        losses.append(loss.item())
    return locals()


@IDIOMS("gymnasium", "observations in one numpy array that the environment writes after each update")
def shared_observations():
    class Env:
        def __init__(self):
            self.buffer = np.zeros((4, 3), np.float32)

        def step(self, actions):
            self.buffer *= 0.9
            self.buffer[:, 0] += actions
            return self.buffer

    env, policy = Env(), nn.Linear(3, 2)
    optimizer, baseline = torch.optim.Adam(policy.parameters(), lr=0.05), torch.zeros(1)
    obs = torch.from_numpy(env.buffer)
    for _ in range(4):
        # differences: policy
        dist = torch.distributions.Categorical(logits=policy(obs.to(policy.weight.dtype)))
        action = dist.sample()
        reward = (action == 1).to(policy.weight.dtype)
        baseline.lerp_(reward.mean(), 0.1)
        loss = -(dist.log_prob(action) * (reward - baseline)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        env.step(action.numpy())
    return locals()


@IDIOMS("CUDA graphs", "static inputs that each batch is copied into, outputs cloned")
def static_inputs():
    net = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    static_input, static_target = torch.empty(5, 3), torch.empty(5, dtype=torch.long)
    kept = []
    for _ in range(3):
        static_input.copy_(torch.randn(5, 3))
        static_target.copy_(torch.randint(2, (5,)))
        optimizer.zero_grad(set_to_none=False)
        # differences: net
        static_output = net(static_input)
        static_loss = F.cross_entropy(static_output, static_target)
        static_loss.backward()
        optimizer.step()
        kept.append(static_output.detach().clone())
    return locals()


@IDIOMS(
    "pykeen",
    "embeddings normalised at each batch, looked up with a norm that none exceeds",
    false_alarm="the look-up's renormalisation changes no element: the leaf has one value, and `mixes` says two",
)
def translation_embeddings():
    entities, relations = nn.Embedding(8, 4, max_norm=1.0), nn.Embedding(3, 4)
    for emb in entities, relations:
        nn.init.xavier_uniform_(emb.weight.data)
    with torch.no_grad():
        relations.weight /= relations.weight.norm(dim=1, keepdim=True)
    optimizer = torch.optim.SGD([*entities.parameters(), *relations.parameters()], lr=0.1)
    triples = torch.stack([torch.randint(8, (10,)), torch.randint(3, (10,)), torch.randint(8, (10,))], 1)
    corrupted = torch.empty_like(triples)
    for _ in range(3):
        entities.weight.data.copy_(F.normalize(entities.weight.data, dim=1) * 0.9)
        corrupted.copy_(triples)
        corrupted[:, 2].random_(0, 8)
        optimizer.zero_grad()
        # differences: entities, relations
        scores = [
            -(entities(t[:, 0]) + relations(t[:, 1]) - entities(t[:, 2])).norm(dim=1) for t in (triples, corrupted)
        ]
        loss = F.margin_ranking_loss(*scores, torch.ones(10), margin=1.0)
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS(
    "word2vec",
    "one table looked up twice, and cut to its norm in between",
    verdict="mixes",
    no_differences="the cut is no part of the gradient, by torch's intent",
)
def renormalised_table():
    table = nn.Embedding(4, 3, max_norm=0.5)
    optimizer = torch.optim.SGD(table.parameters(), lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        word, context = torch.tensor([0, 1]), torch.tensor([2, 3])
        loss = F.softplus(-(table(word) * table(context)).sum(1)).mean()
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("nerf-pytorch", "rays in chunks, transmittances by a running product, the rate decayed by hand")
def nerf():
    coarse, fine = nn.Linear(3, 4), nn.Linear(3, 4)
    modules = nn.ModuleList([coarse, fine])
    optimizer, psnrs = torch.optim.Adam(modules.parameters(), lr=0.01), []

    def render(net, points, z):
        raw = net(points)
        dists = torch.cat([z[..., 1:] - z[..., :-1], torch.full_like(z[..., :1], 1e10)], -1)
        noise = torch.randn(raw[..., 3].shape) * 0.1
        alpha = 1.0 - torch.exp(-F.relu(raw[..., 3] + noise) * dists)
        ones = torch.ones((len(alpha), 1))
        weights = alpha * torch.cumprod(torch.cat([ones, 1.0 - alpha + 1e-10], -1), -1)[:, :-1]
        return (weights[..., None] * torch.sigmoid(raw[..., :3])).sum(-2), weights

    for step in range(2):
        rays_o, rays_d, goal = torch.rand(6, 3), torch.randn(6, 3), torch.rand(6, 3)
        rays_d /= rays_d.norm(dim=-1, keepdim=True)
        z = torch.linspace(0.1, 1, 4).expand(6, 4).clone()
        z[:, 1:-1] += 0.05 * torch.rand(6, 2)
        # differences: modules
        collected = {}
        for i in range(0, 6, 3):
            part = slice(i, i + 3)
            rgb0, weights = render(coarse, rays_o[part, None] + rays_d[part, None] * z[part, :, None], z[part])
            finer = z[part] + 0.01 * weights.detach()
            finer, _ = torch.sort(finer, -1)
            rgb, _ = render(fine, rays_o[part, None] + rays_d[part, None] * finer[..., None], finer)
            for key, value in ("rgb0", rgb0), ("rgb", rgb):
                collected.setdefault(key, []).append(value)
        out = {key: torch.cat(value, 0) for key, value in collected.items()}
        optimizer.zero_grad()
        loss = F.mse_loss(out["rgb"], goal)
        psnr = -10.0 * torch.log10(loss)
        loss = loss + F.mse_loss(out["rgb0"], goal)
        loss.backward()
        optimizer.step()
        psnrs.append(psnr.item())
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * 0.1 ** (step / 100)
    return locals()
