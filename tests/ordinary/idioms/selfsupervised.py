"""Teachers, queues and centres: MoCo, BYOL, DINO, SwAV, SimCLR, VICReg, mean teachers."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from idioms.program import Idioms

IDIOMS = Idioms()


@IDIOMS("MoCo", "a momentum encoder and a queue of keys written in place")
def moco():
    class MoCo(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder_q, self.encoder_k = nn.Linear(3, 4), nn.Linear(3, 4)
            for q, k in zip(self.encoder_q.parameters(), self.encoder_k.parameters(), strict=True):
                k.data.copy_(q.data)
                k.requires_grad = False
            self.register_buffer("queue", F.normalize(torch.randn(4, 8), dim=0))
            self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

        @torch.no_grad()
        def update(self):
            for q, k in zip(self.encoder_q.parameters(), self.encoder_k.parameters(), strict=True):
                k.data = k.data * 0.9 + q.data * 0.1

        @torch.no_grad()
        def enqueue(self, keys):
            ptr = int(self.queue_ptr)
            self.queue[:, ptr : ptr + len(keys)] = keys.T
            self.queue_ptr[0] = (ptr + len(keys)) % 8

        def forward(self, im_q, im_k):
            q = F.normalize(self.encoder_q(im_q), dim=1)
            with torch.no_grad():
                k = F.normalize(self.encoder_k(im_k), dim=1)
            l_pos = torch.einsum("nc,nc->n", q, k).unsqueeze(-1)
            l_neg = torch.einsum("nc,ck->nk", q, self.queue.clone().detach())
            logits = torch.cat([l_pos, l_neg], dim=1)
            logits /= 0.07
            self.enqueue(k)
            return logits, torch.zeros(len(logits), dtype=torch.long)

    model = MoCo()
    optimizer = torch.optim.SGD(model.encoder_q.parameters(), lr=0.03, momentum=0.9)
    for _ in range(3):
        model.update()
        # differences: model.encoder_q
        output, target = model(torch.randn(4, 3), torch.randn(4, 3))
        loss = F.cross_entropy(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("lightly", "BYOL: two momentum copies, symmetric losses, targets cut off")
def byol():
    backbone = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True))
    projection, prediction = nn.Linear(6, 4), nn.Linear(4, 4)
    backbone_m, projection_m = copy.deepcopy(backbone), copy.deepcopy(projection)
    for p in [*backbone_m.parameters(), *projection_m.parameters()]:
        p.requires_grad = False
    online = nn.ModuleList([backbone, projection, prediction])
    optimizer = torch.optim.SGD(online.parameters(), lr=0.06)

    def update_momentum(model, model_ema, m):
        for ema, p in zip(model_ema.parameters(), model.parameters(), strict=True):
            ema.data = ema.data * m + p.data * (1.0 - m)

    total_loss = 0
    for step in range(3):
        momentum = 1 - (1 - 0.9) * (math.cos(math.pi * step / 3) + 1) / 2
        update_momentum(backbone, backbone_m, momentum)
        update_momentum(projection, projection_m, momentum)
        x0, x1 = torch.randn(5, 3), torch.randn(5, 3)
        # differences: online
        p0, p1 = (prediction(projection(backbone(x))) for x in (x0, x1))
        z0, z1 = (projection_m(backbone_m(x)).detach() for x in (x0, x1))
        loss = 0.5 * (-F.cosine_similarity(p0, z1).mean() - F.cosine_similarity(p1, z0).mean())
        total_loss += loss.detach()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return locals()


@IDIOMS("DINO", "a centre of the teacher's outputs, the last layer's gradients cancelled")
def dino():
    student = nn.Sequential(
        nn.Linear(3, 6), nn.GELU(), nn.utils.parametrizations.weight_norm(nn.Linear(6, 4, bias=False))
    )
    student[2].parametrizations.weight.original0.data.fill_(1)
    teacher = copy.deepcopy(student)
    for p in teacher.parameters():
        p.requires_grad = False
    optimizer, center = torch.optim.AdamW(student.parameters(), lr=0.01), torch.zeros(1, 4)
    for epoch in range(3):
        crops = [torch.randn(4, 3) for _ in range(3)]
        # differences: student
        teacher_output, student_output = teacher(torch.cat(crops[:2])), student(torch.cat(crops))
        teacher_out = F.softmax((teacher_output - center) / 0.04, dim=-1).detach().chunk(2)
        total_loss, terms = 0, 0
        for iq, q in enumerate(teacher_out):
            for iv, v in enumerate((student_output / 0.1).chunk(3)):
                if iv != iq:
                    loss = torch.sum(-q * F.log_softmax(v, dim=-1), dim=-1)
                    total_loss += loss.mean()
                    terms += 1
        total_loss /= terms
        with torch.no_grad():
            center = center * 0.9 + teacher_output.mean(0, keepdim=True) * 0.1
        optimizer.zero_grad()
        total_loss.backward()
        for p in student.parameters():
            p.grad.data.mul_((1.0 / (p.grad.data.norm(2) + 1e-6)).clamp(max=1))
        if epoch < 1:
            for n, p in student.named_parameters():
                if n.startswith("2."):
                    p.grad = None
        optimizer.step()
        with torch.no_grad():
            for q, k in zip(student.parameters(), teacher.parameters(), strict=True):
                k.data.mul_(0.9).add_(0.1 * q.detach().data)
    return locals()


@IDIOMS("SwAV", "prototypes normalised in place, assignments by Sinkhorn in place, a queue shifted")
def swav():
    trunk, prototypes = nn.Linear(3, 4), nn.Linear(4, 5, bias=False)
    optimizer = torch.optim.SGD([*trunk.parameters(), *prototypes.parameters()], lr=0.1, momentum=0.9)
    queue = torch.zeros(6, 4)

    @torch.no_grad()
    def sinkhorn(out):
        q = torch.exp(out / 0.5).t()
        q /= torch.sum(q)
        for _ in range(3):
            q /= torch.sum(q, dim=1, keepdim=True)
            q /= 5
            q /= torch.sum(q, dim=0, keepdim=True)
            q /= q.shape[1]
        q *= q.shape[1]
        return q.t()

    for _ in range(3):
        with torch.no_grad():
            w = prototypes.weight.data.clone()
            w = F.normalize(w, dim=1, p=2)
            prototypes.weight.copy_(w)
        x = torch.randn(4, 3)
        # differences: trunk, prototypes
        embedding = F.normalize(trunk(x), dim=1)
        output = prototypes(embedding)
        kept, loss = embedding.detach(), 0
        for crop in range(2):
            with torch.no_grad():
                out = output[2 * crop : 2 * (crop + 1)].detach()
                out = torch.cat((torch.mm(queue, prototypes.weight.detach().t()), out))
                queue[2:] = queue[:-2].clone()
                queue[:2] = kept[crop * 2 : (crop + 1) * 2]
                q = sinkhorn(out)[-2:]
            other = output[2 * (1 - crop) : 2 * (2 - crop)] / 0.1
            loss -= torch.mean(torch.sum(q * F.log_softmax(other, dim=1), dim=1))
        loss /= 2
        optimizer.zero_grad()
        loss.backward()
        prototypes.weight.grad[:1] = 0
        optimizer.step()
    return locals()


@IDIOMS("SimCLR", "similarities with their diagonal filled in place")
def simclr():
    net = nn.Sequential(nn.Linear(3, 6), nn.ReLU(inplace=True), nn.Linear(6, 4))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        views = torch.randn(8, 3)
        # differences: net
        z = F.normalize(net(views), dim=1)
        similarity = z @ z.T
        self_mask = torch.eye(8, dtype=torch.bool)
        similarity.masked_fill_(self_mask, -9e15)
        pos_mask = self_mask.roll(shifts=4, dims=0)
        similarity = similarity / 0.5
        nll = -similarity[pos_mask] + torch.logsumexp(similarity, dim=-1)
        nll = nll.mean()
        with torch.no_grad():
            comb = torch.cat([similarity[pos_mask][:, None], similarity.masked_fill(pos_mask, -9e15)], dim=-1)
            accuracy = (comb.argsort(dim=-1, descending=True).argmin(dim=-1) == 0).float().mean()
        nll.backward()
        optimizer.step()
    return locals()


@IDIOMS("VICReg", "variances, covariances and their off-diagonal view")
def vicreg():
    def off_diagonal(x):
        return x.flatten()[:-1].view(len(x) - 1, len(x) + 1)[:, 1:].flatten()

    expander = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(True), nn.Linear(5, 4, bias=False))
    optimizer = torch.optim.SGD(expander.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        a, b = torch.randn(6, 3), torch.randn(6, 3)
        # differences: expander
        x, y = expander(a), expander(b)
        repr_loss = F.mse_loss(x, y)
        x, y = x - x.mean(dim=0), y - y.mean(dim=0)
        std_loss = sum(torch.mean(F.relu(1 - torch.sqrt(t.var(dim=0) + 1e-4))) / 2 for t in (x, y))
        cov_loss = sum(off_diagonal((t.T @ t) / 5).pow_(2).sum().div(4) for t in (x, y))
        loss = 25 * repr_loss + 25 * std_loss + cov_loss
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("mean-teacher", "a consistency loss against an averaged teacher, ramped up")
def mean_teacher():
    student = nn.Sequential(
        nn.Linear(3, 5), nn.Dropout(0.2, inplace=True), nn.LeakyReLU(0.1, inplace=True), nn.Linear(5, 2)
    )
    teacher = copy.deepcopy(student)
    for p in teacher.parameters():
        p.detach_()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    for global_step in range(3):
        x, y = torch.randn(6, 3), torch.tensor([0, 1, -1, -1, 1, -1])
        # differences: student
        s, t = student(x + 0.1 * torch.randn_like(x)), teacher(x + 0.1 * torch.randn_like(x)).detach()
        class_loss = F.cross_entropy(s, y, ignore_index=-1, reduction="sum") / len(x)
        consistency = F.mse_loss(s.softmax(1), t.softmax(1), reduction="sum") / len(x)
        loss = class_loss + math.exp(-5 * (1 - global_step / 3) ** 2) * consistency
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        alpha = min(1 - 1 / (global_step + 2), 0.99)
        for ema, p in zip(teacher.parameters(), student.parameters(), strict=True):
            ema.data.mul_(alpha).add_(p.data, alpha=1 - alpha)
    return locals()
