"""Values that are rounded, drawn or thresholded, and flows: codebooks, quantisation, spikes, Gumbel's trick, Glow, LRU memories."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from idioms.program import Idioms

IDIOMS = Idioms()


@IDIOMS("vector-quantize-pytorch", "a codebook that moves by averages inside of the forward pass")
def vector_quantize():
    class VectorQuantize(nn.Module):
        def __init__(self, dim, n):
            super().__init__()
            embed = torch.empty(n, dim)
            nn.init.kaiming_uniform_(embed)
            self.register_buffer("embed", embed)
            self.register_buffer("embed_avg", embed.clone())
            self.register_buffer("cluster_size", torch.zeros(n))
            self.register_buffer("initted", torch.Tensor([False]))

        def init_embed_(self, data):
            if self.initted:
                return
            self.embed.data.copy_(data[torch.randperm(len(data))[: len(self.embed)]])
            self.embed_avg.data.copy_(self.embed)
            self.initted.data.copy_(torch.Tensor([True]))

        def forward(self, x):
            flat = x.detach()
            self.init_embed_(flat)
            ind = (-torch.cdist(flat, self.embed)).argmax(dim=-1)
            onehot = F.one_hot(ind, len(self.embed)).type(x.dtype)
            quantize = F.embedding(ind, self.embed)
            if self.training:
                self.cluster_size.data.lerp_(onehot.sum(0), 1 - 0.8)
                self.embed_avg.data.lerp_(onehot.t() @ flat, 1 - 0.8)
                total = self.cluster_size.sum()
                size = (self.cluster_size + 1e-5) / (total + len(self.embed) * 1e-5) * total
                self.embed.data.copy_(self.embed_avg / size.unsqueeze(1))
                expired = self.cluster_size < 0.2
                self.embed.data[expired] = flat[torch.randint(len(flat), (int(expired.sum()),))]
                commit = F.mse_loss(quantize.detach(), x) * 0.25
                quantize = x + (quantize - x).detach()
            return quantize, commit

    encoder, vq, decoder = nn.Linear(6, 3), VectorQuantize(3, 4), nn.Linear(3, 6)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *decoder.parameters()], lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        images = torch.randn(8, 6)
        # differences: encoder, decoder
        quantized, commit = vq(encoder(images))
        loss = (decoder(quantized) - images).abs().mean() + commit
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("taming-transformers", "a learnt codebook with both commitment terms, perplexity on the side")
def vqgan():
    encoder, codebook, decoder = nn.Linear(6, 3), nn.Embedding(5, 3), nn.Linear(3, 6)
    codebook.weight.data.uniform_(-1.0 / 5, 1.0 / 5)
    model = nn.ModuleList([encoder, codebook, decoder])
    optimizer, usage = torch.optim.Adam(model.parameters(), lr=0.01), torch.zeros(5)
    for _ in range(3):
        x = torch.randn(8, 6)
        # differences: model
        z = encoder(x)
        d = torch.sum(z**2, dim=1, keepdim=True) + torch.sum(codebook.weight**2, dim=1) - 2 * z @ codebook.weight.t()
        indices = torch.argmin(d, dim=1)
        encodings = torch.zeros(len(indices), 5)
        encodings.scatter_(1, indices.unsqueeze(1), 1)
        z_q = codebook(indices)
        loss = torch.mean((z_q.detach() - z) ** 2) * 0.25 + torch.mean((z_q - z.detach()) ** 2)
        z_q = z + (z_q - z).detach()
        usage += encodings.sum(0)
        e_mean = encodings.mean(0)
        perplexity = torch.exp(-torch.sum(e_mean * torch.log(e_mean + 1e-10)))
        loss += F.mse_loss(decoder(z_q), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("DALLE-pytorch", "hard samples by Gumbel's trick, the temperature annealed")
def gumbel():
    encoder, codebook, decoder = nn.Linear(6, 4), nn.Embedding(4, 3), nn.Linear(3, 6)
    model = nn.ModuleList([encoder, codebook, decoder])
    optimizer, temperature = torch.optim.Adam(model.parameters(), lr=0.01), 1.0
    for step in range(3):
        images = torch.randn(5, 6)
        optimizer.zero_grad()
        # differences: model
        logits = encoder(images)
        soft = F.gumbel_softmax(logits, tau=temperature, hard=False)
        index = soft.max(-1, keepdim=True)[1]
        hard = torch.zeros_like(logits).scatter_(-1, index, 1.0)
        one_hot = hard - soft.detach() + soft
        out = decoder(one_hot @ codebook.weight)
        log_qy = F.log_softmax(logits, dim=-1)
        kl = F.kl_div(torch.full((1, 1), -math.log(4)), log_qy, None, None, "batchmean", log_target=True)
        loss = F.mse_loss(out, images) + 0.01 * kl
        loss.backward()
        optimizer.step()
        temperature = max(temperature * math.exp(-0.1 * step), 0.5)
    return locals()


@IDIOMS(
    "torch.ao",
    "fake quantisation with observers that keep minimum and maximum in place",
    no_differences="the rounding is straight through: its gradient is no derivative, by intent",
)
def fake_quantize():
    class FakeQuantize(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("min_val", torch.tensor(float("inf")))
            self.register_buffer("max_val", torch.tensor(float("-inf")))
            self.register_buffer("scale", torch.tensor([1.0]))
            self.register_buffer("zero_point", torch.tensor([0], dtype=torch.int))

        def forward(self, x):
            low, high = torch.aminmax(x.detach())
            self.min_val.copy_(torch.minimum(self.min_val, low))
            self.max_val.copy_(torch.maximum(self.max_val, high))
            scale = ((self.max_val - self.min_val) / 255).clamp(min=1e-8)
            self.scale.copy_(scale)
            self.zero_point.copy_((-self.min_val / scale).round().clamp(0, 255))
            return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, 0, 255)

    layer, weight_fake, input_fake, out_fake = nn.Linear(4, 3), FakeQuantize(), FakeQuantize(), FakeQuantize()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        x = input_fake(torch.randn(5, 4))
        out = out_fake(F.linear(x, weight_fake(layer.weight), layer.bias))
        loss = F.cross_entropy(out, torch.randint(3, (5,)))
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS(
    "brevitas",
    "a learnt step size, rounding by a Function of one's own",
    no_differences="the rounding is straight through: its gradient is no derivative, by intent",
)
def learned_step_size():
    class RoundSte(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return torch.round(x)

        @staticmethod
        def backward(ctx, grad):
            return grad

    class ClampWindow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            mask = (x.ge(-4) & x.le(3)).type(x.dtype)
            ctx.save_for_backward(mask)
            return x.clone().clamp_(-4, 3)

        @staticmethod
        def backward(ctx, grad):
            (mask,) = ctx.saved_tensors
            out = grad.clone()
            out.mul_(mask)
            return out

    linear, step = nn.Linear(4, 3), nn.Parameter(torch.tensor(1.0))
    with torch.no_grad():
        step.copy_(linear.weight.abs().mean() * 2 / math.sqrt(3))
    optimizer = torch.optim.SGD([*linear.parameters(), step], lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        g = 1.0 / math.sqrt(linear.weight.numel() * 3)
        s = (step - step * g).detach() + step * g
        w = RoundSte.apply(ClampWindow.apply(linear.weight / s)) * s
        loss = F.linear(torch.randn(5, 4), w, linear.bias).square().mean()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            step.clamp_(min=1e-4)
    return locals()


@IDIOMS(
    "snntorch",
    "spikes with a surrogate gradient, membranes reset and detached after each sequence",
    no_differences="a spike has a surrogate gradient, by intent",
)
def spiking():
    class Surrogate(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return (x > 0).to(x.dtype)

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad.clone() / (25.0 * torch.abs(x) + 1.0) ** 2

    class Leaky(nn.Module):
        def __init__(self):
            super().__init__()
            self.mem = torch.zeros(0)
            self.beta = nn.Parameter(torch.tensor(0.9))

        def forward(self, x):
            if self.mem.shape != x.shape:
                self.mem = torch.zeros_like(x)
            reset = Surrogate.apply(self.mem - 1.0).detach()
            self.mem = self.beta.clamp(0, 1) * self.mem + x - reset
            return Surrogate.apply(self.mem - 1.0)

    fc1, lif1, fc2, lif2 = nn.Linear(3, 5), Leaky(), nn.Linear(5, 2), Leaky()
    params = [p for m in (fc1, lif1, fc2, lif2) for p in m.parameters()]
    optimizer, counts = torch.optim.Adam(params, lr=0.05), torch.zeros(2)
    for _ in range(3):
        data, target = torch.rand(4, 3) * 2, torch.tensor([0, 1, 1, 0])
        spikes, loss = [], torch.zeros(1)
        for _t in range(5):
            spk = lif2(fc2(lif1(fc1(data))))
            spikes.append(spk)
            loss += F.cross_entropy(lif2.mem, target)
        counts += torch.stack(spikes).sum((0, 1)).detach()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for lif in lif1, lif2:
            lif.mem.detach_()
    return locals()


@IDIOMS("glow-pytorch", "activation norm set by its first batch, log-determinants collected in place")
def glow():
    class ActNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc, self.scale = nn.Parameter(torch.zeros(1, 4)), nn.Parameter(torch.ones(1, 4))
            self.register_buffer("initialized", torch.tensor(0, dtype=torch.uint8))

        def forward(self, x):
            if self.initialized.item() == 0:
                with torch.no_grad():
                    self.loc.data.copy_(-x.mean(0, keepdim=True))
                    self.scale.data.copy_(1 / (x.std(0, keepdim=True) + 1e-6))
                self.initialized.fill_(1)
            return self.scale * (x + self.loc), torch.sum(torch.log(torch.abs(self.scale)))

    class Coupling(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(2, 6), nn.ReLU(inplace=True), nn.Linear(6, 4))
            self.net[2].weight.data.normal_(0, 0.05)
            self.net[2].bias.data.zero_()

        def forward(self, x):
            a, b = x.chunk(2, 1)
            log_s, t = self.net(a).chunk(2, 1)
            s = torch.sigmoid(log_s + 2)
            return torch.cat([a, (b + t) * s], 1).flip(1), torch.sum(torch.log(s), 1)

    flow = nn.ModuleList([ActNorm(), Coupling(), ActNorm(), Coupling()])
    for layer in (flow[0], flow[2]):
        layer(torch.randn(16, 4))
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.01)
    for _ in range(3):
        x = torch.randn(6, 4)
        x = torch.floor(x * 32) / 32
        x += torch.rand_like(x) / 32
        # differences: flow
        logdet, z = torch.zeros(6), x
        for layer in flow:
            z, det = layer(z)
            logdet += det
        log_p = -0.5 * (z**2 + math.log(2 * math.pi)).sum(1)
        loss = -(log_p + logdet).mean() / (math.log(2) * 4)
        flow.zero_grad()
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("pytorch-ntm", "an external memory written out of place, read by content, over a sequence")
def neural_turing_machine():
    controller, read, write = nn.LSTMCell(5, 6), nn.Linear(6, 5), nn.Linear(6, 13)
    out, mem_bias = nn.Linear(6 + 4, 1), torch.empty(3, 4).uniform_(-0.5, 0.5)
    nn.init.xavier_uniform_(read.weight, gain=1.4)
    model = nn.ModuleList([controller, read, write, out])
    optimizer = torch.optim.RMSprop(model.parameters(), momentum=0.9, alpha=0.95, lr=1e-3)

    def address(memory, k, beta):
        return F.softmax(F.softplus(beta) * F.cosine_similarity(memory + 1e-16, k.unsqueeze(1) + 1e-16, dim=-1), dim=1)

    for _ in range(2):
        optimizer.zero_grad()
        sequence = torch.rand(4, 2, 1).round_()
        # differences: model
        memory, r = mem_bias.clone().repeat(2, 1, 1), torch.zeros(2, 4)
        h, c, outputs = torch.zeros(2, 6), torch.zeros(2, 6), torch.zeros(4, 2, 1)
        for i in range(4):
            h, c = controller(torch.cat([sequence[i], r], 1), (h, c))
            k, beta, e, a = write(h).split([4, 1, 4, 4], 1)
            w = address(memory, k, beta).unsqueeze(-1)
            memory = memory * (1 - w * torch.sigmoid(e).unsqueeze(1)) + w * a.unsqueeze(1)
            k, beta = read(h).split([4, 1], 1)
            r = torch.matmul(address(memory, k, beta).unsqueeze(1), memory).squeeze(1)
            outputs[i] = torch.sigmoid(out(torch.cat([h, r], 1)))
        loss = F.binary_cross_entropy(outputs, sequence)
        loss.backward()
        for p in model.parameters():
            p.grad.data.clamp_(-10, 10)
        optimizer.step()
    return locals()
