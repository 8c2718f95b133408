"""Models trained step by step."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.loop_kinds.loop import Loops, Run

_loops = Loops()


@_loops("EMA teacher, clip_grad_norm_", 150)
def _teacher() -> Run:
    student = nn.Sequential(nn.Linear(32, 64), nn.ReLU(inplace=True), nn.Linear(64, 10))
    teacher = copy.deepcopy(student).requires_grad_(False)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9)
    x = torch.randn(32, 32)

    def run(count: int) -> None:
        for _ in range(count):
            with torch.no_grad():
                target = teacher(x)
            loss = F.mse_loss(student(x + 0.1), target)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                for mean, p in zip(teacher.parameters(), student.parameters(), strict=True):
                    mean.mul_(0.99).add_(p, alpha=0.01)

    return run


@_loops("GAN with detach()", 80)
def _gan() -> Run:
    g = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(True), nn.Linear(32, 16))
    d = nn.Sequential(nn.Linear(16, 32), nn.LeakyReLU(0.2, inplace=True), nn.Linear(32, 1))
    opt_g, opt_d = torch.optim.Adam(g.parameters(), 2e-4), torch.optim.Adam(d.parameters(), 2e-4)
    bce, real, ones, zeros = nn.BCEWithLogitsLoss(), torch.randn(16, 16), torch.ones(16, 1), torch.zeros(16, 1)

    def run(count: int) -> None:
        for _ in range(count):
            fake = g(torch.randn(16, 8))
            opt_d.zero_grad()
            loss_d = bce(d(real), ones) + bce(d(fake.detach()), zeros)
            loss_d.backward()
            opt_d.step()
            opt_g.zero_grad()
            loss_g = bce(d(fake), ones)
            loss_g.backward()
            opt_g.step()

    return run


@_loops("gradient accumulation with dropout", 250)
def _accumulation() -> Run:
    net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(net.parameters())
    x, y = torch.randn(16, 32), torch.randint(10, (16,))

    def run(count: int) -> None:
        for step in range(count):
            loss = F.cross_entropy(net(x), y) / 4
            loss.backward()
            if step % 4 == 3:
                optimizer.step()
                optimizer.zero_grad()

    return run


@_loops("attention layer, AdamW", 60)
def _attention() -> Run:
    layer, head = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), nn.Linear(64, 10)
    optimizer = torch.optim.AdamW([*layer.parameters(), *head.parameters()], lr=1e-4)
    x, y = torch.randn(8, 16, 64), torch.randint(10, (8,))

    def run(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            F.cross_entropy(head(layer(x).mean(1)), y).backward()
            optimizer.step()

    return run


@_loops("variational autoencoder", 100)
def _vae() -> Run:
    encoder, mean, spread = nn.Linear(64, 32), nn.Linear(32, 8), nn.Linear(32, 8)
    decoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64))
    model = nn.ModuleList([encoder, mean, spread, decoder])
    optimizer, x = torch.optim.Adam(model.parameters(), lr=1e-3), torch.rand(32, 64)

    def run(count: int) -> None:
        total = 0.0
        for _ in range(count):
            optimizer.zero_grad()
            h = F.relu(encoder(x))
            mu, logvar = mean(h), spread(h)
            z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
            recon = F.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
            loss = recon - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
            loss.backward()
            total += loss.item()
            optimizer.step()

    return run


@_loops("diffusion step on a small network", 80)
def _diffusion() -> Run:
    net = nn.Sequential(nn.Linear(17, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 16))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    alphas, data = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 100), 0), torch.randn(32, 16)
    shadow = [p.detach().clone() for p in net.parameters()]

    def run(count: int) -> None:
        for _ in range(count):
            t, noise = torch.randint(100, (32,)), torch.randn_like(data)
            a = alphas[t, None]
            noisy = a.sqrt() * data + (1 - a).sqrt() * noise
            loss = F.mse_loss(net(torch.cat([noisy, t[:, None] / 100], 1)), noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(shadow, list(net.parameters()), 0.01)

    return run


@_loops("convolutions on pictures", 6, large=True)
def _convolutions() -> Run:
    net = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(64, 10)),
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.randn(8, 3, 64, 64), torch.randint(10, (8,))

    def run(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()

    return run


MODELS = tuple(_loops.found)
