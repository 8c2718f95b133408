"""Generative models: torch's own examples, StyleGAN2, BigGAN, CycleGAN, diffusers, k-diffusion, vector quantisation, Glow."""

from __future__ import annotations

import copy
import itertools

import torch
import torch.nn.functional as F
from torch import nn

from idioms.program import Idioms

IDIOMS = Idioms()


@IDIOMS("pytorch examples", "DCGAN: labels filled in place, two backwards into the discriminator")
def dcgan():
    net_g = nn.Sequential(nn.ConvTranspose2d(4, 3, 2, bias=False), nn.BatchNorm2d(3), nn.ReLU(True), nn.Flatten())
    net_d = nn.Sequential(
        nn.Linear(12, 6), nn.LeakyReLU(0.2, inplace=True), nn.Linear(6, 1), nn.Sigmoid(), nn.Flatten(0)
    )
    for m in net_g.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.weight, 1.0, 0.02)
            nn.init.zeros_(m.bias)
    opt_d, opt_g = (torch.optim.Adam(net.parameters(), lr=0.01, betas=(0.5, 0.999)) for net in (net_d, net_g))
    label = torch.full((4,), 1.0)
    for _ in range(3):
        net_d.zero_grad()
        label.fill_(1.0)
        noise, real = torch.randn(4, 4, 1, 1), torch.randn(4, 12)
        # differences: net_d
        err_real = F.binary_cross_entropy(net_d(real), label)
        err_real.backward()
        fake = net_g(noise)
        label.fill_(0.0)
        err_fake = F.binary_cross_entropy(net_d(fake.detach()), label)
        err_fake.backward()
        opt_d.step()
        net_g.zero_grad()
        label.fill_(1.0)
        # differences: net_d
        err_g = F.binary_cross_entropy(net_d(fake), label)
        err_g.backward()
        opt_g.step()
    return locals()


@IDIOMS("pytorch examples", "a variational autoencoder with in-place arithmetic on the divergence")
def vae():
    fc1, fc21, fc22, fc3 = nn.Linear(6, 5), nn.Linear(5, 2), nn.Linear(5, 2), nn.Linear(2, 6)
    model = nn.ModuleList([fc1, fc21, fc22, fc3])
    optimizer, train_loss = torch.optim.Adam(model.parameters(), lr=0.01), 0
    for _ in range(3):
        data = torch.rand(4, 6)
        optimizer.zero_grad()
        # differences: model
        h = F.relu(fc1(data))
        mu, logvar = fc21(h), fc22(h)
        std = torch.exp(0.5 * logvar)
        recon = torch.sigmoid(fc3(mu + torch.randn_like(std) * std))
        kld_element = mu.pow(2).add_(logvar.exp()).mul_(-1).add_(1).add_(logvar)
        loss = F.binary_cross_entropy(recon, data, reduction="sum") + torch.sum(kld_element).mul_(-0.5)
        loss.backward()
        train_loss += loss.item()
        optimizer.step()
    return locals()


@IDIOMS("StyleGAN2", "path lengths against a running mean, lazy penalties, an averaged generator")
def stylegan2():
    g, d = nn.Sequential(nn.Linear(3, 5), nn.LeakyReLU(0.2), nn.Linear(5, 4)), nn.Linear(4, 1)
    with torch.no_grad():
        for m in (g[0], g[2]):
            m.weight.div_(m.weight.norm(dim=1, keepdim=True))
    g_ema = copy.deepcopy(g).eval()
    opt_g, opt_d = torch.optim.Adam(g.parameters(), lr=0.01), torch.optim.Adam(d.parameters(), lr=0.01)
    mean_path_length = torch.zeros(())

    def requires_grad(model, flag):
        for p in model.parameters():
            p.requires_grad = flag

    for i in range(3):
        requires_grad(g, False)
        requires_grad(d, True)
        fake, real = g(torch.randn(4, 3)), torch.randn(4, 4)
        # differences: d
        d_loss = F.softplus(d(fake)).mean() + F.softplus(-d(real)).mean()
        d.zero_grad()
        d_loss.backward()
        opt_d.step()
        if i % 2 == 0:
            real.requires_grad = True
            # differences: d
            (grad_real,) = torch.autograd.grad(F.softplus(d(real)).sum(), real, create_graph=True)
            r1 = grad_real.pow(2).reshape(4, -1).sum(1).mean()
            d.zero_grad()
            (5 * r1 + 0 * d(real)[0]).backward(torch.ones(1))
            opt_d.step()
        requires_grad(g, True)
        requires_grad(d, False)
        latents = torch.randn(4, 3, requires_grad=True)
        image = g(latents)
        g_loss = F.softplus(-d(image)).mean()
        noise = torch.randn_like(image) / 2
        (grad,) = torch.autograd.grad((image * noise).sum(), latents, create_graph=True)
        lengths = grad.pow(2).sum(1).sqrt()
        path_mean = mean_path_length + 0.01 * (lengths.mean() - mean_path_length)
        path_loss = (lengths - path_mean).pow(2).mean()
        mean_path_length = path_mean.detach()
        g.zero_grad()
        (g_loss + 2 * path_loss).backward()
        opt_g.step()
        averaged = dict(g_ema.named_parameters())
        for k, p in g.named_parameters():
            averaged[k].data.mul_(0.9).add_(p.data, alpha=0.1)
    return locals()


@IDIOMS(
    "BigGAN",
    "spectral norm by hand, orthogonal regularisation added to the gradients",
    no_differences="u and v follow the weights, and are constants to autograd by intent",
)
def biggan():
    class SN(nn.Linear):
        def __init__(self, *size):
            super().__init__(*size)
            self.register_buffer("u", torch.randn(1, self.out_features))
            self.register_buffer("sv", torch.ones(1))

        def forward(self, x):
            with torch.no_grad():
                v = F.normalize(self.u @ self.weight)
                u = F.normalize(v @ self.weight.t())
                if self.training:
                    self.u[:] = u
            sigma = torch.squeeze(v @ self.weight.t() @ u.t())
            if self.training:
                with torch.no_grad():
                    self.sv[:] = sigma
            return F.linear(x, self.weight / sigma, self.bias)

    d = nn.Sequential(SN(4, 6), nn.ReLU(inplace=True), SN(6, 1))
    for m in d[::2]:
        nn.init.orthogonal_(m.weight)
    optimizer = torch.optim.Adam(d.parameters(), lr=0.01, betas=(0.0, 0.999), eps=1e-6)
    for _ in range(3):
        optimizer.zero_grad()
        for _accumulation in range(2):
            real, fake = d(torch.randn(3, 4)), d(torch.randn(3, 4))
            loss = (F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()) / 2
            loss.backward()
        with torch.no_grad():
            for p in d.parameters():
                if len(p.shape) >= 2:
                    w = p.view(p.shape[0], -1)
                    grad = 2 * (w @ w.t() * (1.0 - torch.eye(len(w)))) @ w
                    p.grad.data += 1e-4 * grad.view(p.shape)
        optimizer.step()
    return locals()


@IDIOMS("CycleGAN", "a pool of earlier images, networks frozen by turns")
def cyclegan():
    class ImagePool:
        def __init__(self):
            self.images = []

        def query(self, images):
            out = []
            for image in images.data.unsqueeze(1):
                if len(self.images) < 3:
                    self.images.append(image)
                    out.append(image)
                elif torch.rand(1) > 0.5:
                    i = int(torch.randint(3, (1,)))
                    old, self.images[i] = self.images[i].clone(), image
                    out.append(old)
                else:
                    out.append(image)
            return torch.cat(out, 0)

    g_a, g_b, d_a = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)
    opt_g = torch.optim.Adam([*g_a.parameters(), *g_b.parameters()], lr=0.01)
    opt_d, pool = torch.optim.Adam(d_a.parameters(), lr=0.01), ImagePool()
    for _ in range(3):
        real_a, real_b = torch.randn(2, 3), torch.randn(2, 3)
        for p in d_a.parameters():
            p.requires_grad = False
        opt_g.zero_grad()
        # differences: g_a, g_b
        fake_b = g_a(real_a)
        rec_a = g_b(fake_b)
        loss_g = (
            F.mse_loss(d_a(fake_b), torch.ones(2, 1))
            + 10 * F.l1_loss(rec_a, real_a)
            + 5 * F.l1_loss(g_a(real_b), real_b)
        )
        loss_g.backward()
        opt_g.step()
        for p in d_a.parameters():
            p.requires_grad = True
        opt_d.zero_grad()
        # differences: d_a
        pred_fake = d_a(pool.query(fake_b).detach())
        loss_d = (F.mse_loss(d_a(real_b), torch.ones(2, 1)) + F.mse_loss(pred_fake, torch.zeros(2, 1))) * 0.5
        loss_d.backward()
        opt_d.step()
    return locals()


@IDIOMS("diffusers", "noise added by a schedule, conditions dropped, averaged weights stored and restored")
def diffusers_train():
    class EMA:
        def __init__(self, parameters):
            self.shadow, self.step, self.stored = [p.clone().detach() for p in parameters], 0, None

        @torch.no_grad()
        def update(self, parameters):
            self.step += 1
            decay = min((1 + self.step) / (10 + self.step), 0.999)
            for s, p in zip(self.shadow, parameters, strict=True):
                s.sub_((1 - decay) * (s - p))

        def store(self, parameters):
            self.stored = [p.detach().cpu().clone() for p in parameters]

        def copy_to(self, parameters, source):
            for s, p in zip(source, parameters, strict=True):
                p.data.copy_(s.to(p.device).data)

    unet, time = nn.Sequential(nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 4)), nn.Embedding(10, 4)
    model = nn.ModuleList([unet, time])
    ema, optimizer = EMA(model.parameters()), torch.optim.AdamW(model.parameters(), lr=0.01)
    alphas = torch.cumprod(1.0 - torch.linspace(1e-2, 0.2, 10), dim=0)
    empty = torch.zeros(1, 4)
    for _ in range(3):
        latents, cond = torch.randn(5, 4) * 0.18, torch.randn(5, 4)
        noise, t = torch.randn_like(latents), torch.randint(0, 10, (5,))
        noise += 0.1 * torch.randn(5, 1)
        a, sigma = alphas[t, None] ** 0.5, (1 - alphas[t, None]) ** 0.5
        noisy = a * latents + sigma * noise
        drop = torch.rand(5, 1) < 0.2
        cond = torch.where(drop, empty, cond)
        # differences: model
        prediction = unet(torch.cat([noisy, cond + time(t)], 1))
        snr = alphas[t] / (1 - alphas[t])
        weights = torch.stack([snr, 5 * torch.ones_like(snr)], dim=1).min(dim=1)[0] / snr
        loss = (F.mse_loss(prediction, noise, reduction="none").mean(1) * weights).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.update(model.parameters())
        ema.store(model.parameters())
        ema.copy_to(model.parameters(), ema.shadow)
        with torch.no_grad():
            sample = unet(torch.cat([noisy, cond], 1))
        ema.copy_to(model.parameters(), ema.stored)
    return locals()


@IDIOMS("k-diffusion", "preconditioned denoising, an average with a warm-up, samples by Heun's method in place")
def k_diffusion():
    inner = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.BatchNorm1d(8), nn.Linear(8, 2))
    average = copy.deepcopy(inner).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(inner.parameters(), lr=0.01)

    def denoise(net, x, sigma):
        c_skip, c_out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / (sigma**2 + 0.25).sqrt()
        c_in = 1 / (sigma**2 + 0.25).sqrt()
        return net(torch.cat([x * c_in, sigma.log() / 4], 1)) * c_out + x * c_skip

    @torch.no_grad()
    def ema_update(model, averaged, decay):
        params, means = dict(model.named_parameters()), dict(averaged.named_parameters())
        for name, param in params.items():
            means[name].lerp_(param, 1 - decay)
        for mean, buffer in zip(averaged.buffers(), model.buffers(), strict=True):
            mean.copy_(buffer)

    for step in range(3):
        reals = torch.randn(6, 2)
        sigma = torch.randn(6, 1).mul_(1.2).sub_(1.2).exp_()
        # differences: inner
        noised = reals + torch.randn_like(reals) * sigma
        weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
        losses = ((denoise(inner, noised, sigma) - reals) ** 2 * weight).flatten(1).mean(1)
        losses.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        ema_update(inner, average, 1 - (1 + step) ** (-2 / 3))
    with torch.no_grad():
        x, sigmas = torch.randn(4, 2), torch.tensor([2.0, 1.0, 0.2])
        for now, then in itertools.pairwise(sigmas):
            d = (x - denoise(average, x, now.expand(4, 1))) / now
            x.add_(d * (then - now))
    return locals()
