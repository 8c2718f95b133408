"""Language models: transformers, accelerate, nanoGPT, fairseq, peft, lucidrains' repositories, the word language model, AWD-LSTM."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from idioms.program import Idioms

IDIOMS = Idioms()


@IDIOMS("transformers", "label smoothing that fills its padding in place")
def hf_label_smoother():
    embed, body, head = nn.Embedding(7, 6), nn.Linear(6, 6), nn.Linear(6, 7, bias=False)
    head.weight = embed.weight
    model = nn.ModuleList([embed, body, head])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        input_ids = torch.randint(1, 7, (2, 5))
        labels = input_ids.clone()
        labels[:, 3:][input_ids[:, 3:] < 4] = -100
        # differences: model
        logits = head(torch.tanh(body(embed(input_ids))))[:, :-1]
        labels = labels[:, 1:].unsqueeze(-1)
        log_probs = -F.log_softmax(logits, dim=-1)
        padding = labels.eq(-100)
        labels = torch.clamp(labels, min=0)
        nll = log_probs.gather(dim=-1, index=labels)
        smoothed = log_probs.sum(dim=-1, keepdim=True)
        nll.masked_fill_(padding, 0.0)
        smoothed.masked_fill_(padding, 0.0)
        active = padding.numel() - padding.long().sum()
        loss = 0.9 * nll.sum() / active + 0.1 * smoothed.sum() / (active * 7)
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("transformers", "a causal mask made in place, attention, a padded batch")
def hf_causal_attention():
    def causal_mask(n):
        mask = torch.full((n, n), torch.finfo(torch.get_default_dtype()).min)
        condition = torch.arange(n)
        mask.masked_fill_(condition < (condition + 1).view(n, 1), 0)
        return mask

    c_attn, c_proj, ln = nn.Linear(8, 24), nn.Linear(8, 8), nn.LayerNorm(8)
    model = nn.ModuleList([c_attn, c_proj, ln])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        hidden, attention_mask = torch.randn(2, 4, 8), torch.ones(2, 4)
        attention_mask[1, 3:] = 0
        # differences: model
        q, k, v = (t.view(2, 4, 2, 4).transpose(1, 2) for t in c_attn(ln(hidden)).split(8, 2))
        weights = q @ k.transpose(-1, -2)
        weights = weights / math.sqrt(4) + causal_mask(4)
        padding = (1.0 - attention_mask[:, None, None, :]) * torch.finfo(weights.dtype).min
        weights = F.softmax(torch.max(weights + padding, torch.tensor(torch.finfo(weights.dtype).min)), dim=-1)
        hidden = hidden + c_proj((weights @ v).transpose(1, 2).reshape(2, 4, 8))
        loss = (hidden.square() * attention_mask[..., None]).sum() / attention_mask.sum()
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("transformers", "text generated with a static key-value cache between the steps")
def hf_static_cache():
    embed, qkv, head = nn.Embedding(9, 4), nn.Linear(4, 12), nn.Linear(4, 9)
    model = nn.ModuleList([embed, qkv, head])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    k_cache, v_cache = torch.zeros(1, 6, 4), torch.zeros(1, 6, 4)

    @torch.no_grad()
    def generate(ids, steps):
        model.eval()
        k_cache.zero_()
        v_cache.zero_()
        for position in range(steps):
            q, k, v = qkv(embed(ids[:, position : position + 1])).chunk(3, -1)
            k_cache.index_copy_(1, torch.tensor([position]), k)
            v_cache[:, position : position + 1] = v
            scores = q @ k_cache[:, : position + 1].transpose(1, 2)
            out = scores.softmax(-1) @ v_cache[:, : position + 1]
            ids = torch.cat([ids, head(out[:, -1]).argmax(-1, keepdim=True)], 1)
        model.train()
        return ids

    for _ in range(2):
        optimizer.zero_grad()
        samples = generate(torch.randint(9, (1, 1)), 5)
        # differences: model
        q, k, v = qkv(embed(samples)).chunk(3, -1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        loss = F.cross_entropy(head(out[:, :-1]).flatten(0, 1), torch.randint(9, (5,)))
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("transformers", "gradient checkpointing in each layer, gradients accumulated")
def hf_gradient_checkpointing():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.up, self.down = nn.LayerNorm(6), nn.Linear(6, 12), nn.Linear(12, 6)

        def forward(self, x):
            return x + F.dropout(self.down(F.gelu(self.up(self.norm(x)))), 0.1, self.training)

    layers, head = nn.ModuleList(Layer() for _ in range(3)), nn.Linear(6, 2)
    optimizer = torch.optim.AdamW([*layers.parameters(), *head.parameters()], lr=0.01)
    for step in range(4):
        # differences: layers, head
        hidden = torch.randn(3, 6)
        for layer in layers:
            hidden = checkpoint(layer.__call__, hidden, use_reentrant=False)
        loss = F.cross_entropy(head(hidden), torch.tensor([0, 1, 1])) / 2
        loss.backward()
        if (step + 1) % 2 == 0:
            nn.utils.clip_grad_norm_(layers.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return locals()


@IDIOMS("accelerate", "a loop that accumulates, clips, steps its schedule, and gathers losses")
def accelerate_loop():
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1, inplace=True), nn.ReLU(inplace=True), nn.Linear(8, 2))
    decay = [p for n, p in model.named_parameters() if "bias" not in n]
    plain = [p for n, p in model.named_parameters() if "bias" in n]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / 4))
    data = torch.utils.data.TensorDataset(torch.randn(12, 4), torch.randint(2, (12,)))
    loader = torch.utils.data.DataLoader(data, batch_size=3, shuffle=True)
    total_loss, gathered, completed = 0, torch.zeros(4), 0
    for step, (x, y) in enumerate(loader):
        # differences: model
        loss = F.cross_entropy(model(x), y)
        total_loss += loss.detach().float()
        gathered[step] = loss.detach()
        loss = loss / 2
        loss.backward()
        if step % 2 == 1 or step == len(loader) - 1:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            completed += 1
    return locals()


@IDIOMS("nanoGPT", "micro-steps, the rate set by hand, losses estimated into slots")
def nanogpt_train():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn, self.proj, self.ln = nn.Linear(8, 24, bias=False), nn.Linear(8, 8), nn.LayerNorm(8)
            self.register_buffer("bias", torch.tril(torch.ones(4, 4)).view(1, 4, 4))

        def forward(self, x):
            q, k, v = self.attn(self.ln(x)).split(8, dim=2)
            att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(8))
            att = att.masked_fill(self.bias[:, : x.size(1), : x.size(1)] == 0, float("-inf"))
            return x + self.proj(F.softmax(att, dim=-1) @ v)

    wte, wpe, lm_head = nn.Embedding(11, 8), nn.Embedding(4, 8), nn.Linear(8, 11, bias=False)
    model = nn.ModuleDict({"wte": wte, "wpe": wpe, "block": Block(), "lm_head": lm_head})
    wte.weight = lm_head.weight
    for name, p in model.named_parameters():
        if name.endswith("proj.weight"):
            nn.init.normal_(p, mean=0.0, std=0.02 / math.sqrt(2))

    def forward(idx, targets):
        x = model["block"](wte(idx) + wpe(torch.arange(idx.size(1))))
        return F.cross_entropy(lm_head(x).view(-1, 11), targets.view(-1), ignore_index=-1)

    data = torch.randint(11, (64,))

    def batch():
        ix = torch.randint(len(data) - 4, (2,))
        return torch.stack([data[i : i + 4] for i in ix]), torch.stack([data[i + 1 : i + 5] for i in ix])

    @torch.no_grad()
    def estimate_loss():
        model.eval()
        losses = torch.zeros(3)
        for k in range(3):
            losses[k] = forward(*batch()).item()
        model.train()
        return losses.mean()

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95))
    for it in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (it + 1) / 3
        estimated = estimate_loss()
        for _ in range(2):
            # differences: model
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = forward(*batch()) / 2
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return locals()


@IDIOMS(
    "fairseq",
    "summed losses, gradients multiplied in place, padding of both smoothed losses filled",
    false_alarm="the program's own backward is run once more for reference gradients, though no write harms",
)
def fairseq_trainer():
    class GradMultiply(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, scale):
            ctx.scale = scale
            return x.new(x)

        @staticmethod
        def backward(ctx, grad):
            return grad * ctx.scale, None

    mask_emb = nn.Parameter(torch.empty(6).uniform_())
    encoder, decoder = nn.GRU(6, 6, batch_first=True), nn.Linear(6, 5)
    params = [mask_emb, *encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adagrad(params, lr=0.05)
    pad = 0
    for _ in range(3):
        optimizer.zero_grad()
        features, target = torch.randn(2, 4, 6), torch.randint(1, 5, (2, 4))
        target[1, 3:] = pad
        mask = torch.zeros(2, 4, dtype=torch.bool)
        mask[0, 1:3] = True
        # differences: [mask_emb, decoder.weight]
        x = torch.where(mask[..., None], torch.zeros(()), features)
        x[mask] = mask_emb
        out, _ = encoder(x)
        out = GradMultiply.apply(out, 1.0)
        lprobs = F.log_softmax(decoder(out), dim=-1).view(-1, 5)
        flat = target.view(-1, 1)
        nll_loss, smooth_loss = -lprobs.gather(-1, flat), -lprobs.sum(-1, keepdim=True)
        pad_mask = flat.eq(pad)
        nll_loss.masked_fill_(pad_mask, 0.0)
        smooth_loss.masked_fill_(pad_mask, 0.0)
        loss = 0.9 * nll_loss.sum() + 0.1 / 4 * smooth_loss.sum()
        loss.backward()
        sample_size = (~pad_mask).sum()
        for p in params:
            p.grad.data.mul_(1 / sample_size)
        norm = torch.norm(torch.stack([p.grad.norm() for p in params]))
        coefficient = (1.0 / (norm + 1e-6)).clamp_(max=1)
        for p in params:
            p.grad.mul_(coefficient)
        optimizer.step()
    return locals()


@IDIOMS("peft", "low-rank adapters merged for evaluation and taken out again")
def peft_lora():
    class Linear(nn.Linear):
        def __init__(self):
            super().__init__(6, 6)
            self.weight.requires_grad = False
            self.bias.requires_grad = False
            self.lora_A, self.lora_B = nn.Linear(6, 2, bias=False), nn.Linear(2, 6, bias=False)
            nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
            nn.init.normal_(self.lora_B.weight, std=0.1)
            self.merged = False

        def delta(self):
            return self.lora_B.weight @ self.lora_A.weight * 2.0

        def merge(self):
            self.weight.data += self.delta()
            self.merged = True

        def unmerge(self):
            self.weight.data -= self.delta()
            self.merged = False

        def forward(self, x):
            result = F.linear(x, self.weight, self.bias)
            return result if self.merged else result + self.lora_B(self.lora_A(F.dropout(x, 0.1, self.training))) * 2.0

    layers = nn.Sequential(Linear(), nn.GELU(), Linear())
    trained = [p for p in layers.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        # differences: trained
        loss = layers(torch.randn(4, 6)).square().mean()
        loss.backward()
        optimizer.step()
        layers.eval()
        with torch.no_grad():
            for layer in layers[::2]:
                layer.merge()
            evaluated = layers(torch.ones(1, 6))
            for layer in layers[::2]:
                layer.unmerge()
        layers.train()
    return locals()


@IDIOMS("lucidrains", "rotary positions, scores masked in place, a queue of memories")
def lucidrains_attention():
    to_qkv, to_out = nn.Linear(8, 24, bias=False), nn.Linear(8, 8)
    model = nn.ModuleList([to_qkv, to_out])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    inv_freq = 1.0 / (10000 ** (torch.arange(0, 8, 2).float() / 8))

    def rotate_half(x):
        a, b = x.chunk(2, dim=-1)
        return torch.cat((-b, a), dim=-1)

    mems = torch.zeros(2, 3, 8)
    for _ in range(3):
        optimizer.zero_grad()
        x = torch.randn(2, 4, 8)
        # differences: model
        q, k, v = to_qkv(torch.cat((mems, x), 1)).chunk(3, dim=-1)
        freqs = torch.einsum("i,j->ij", torch.arange(7).to(inv_freq), inv_freq)
        pos = torch.cat((freqs, freqs), -1)
        q, k = (t * pos.cos() + rotate_half(t) * pos.sin() for t in (q, k))
        sim = torch.einsum("bid,bjd->bij", q[:, 3:], k) * 8**-0.5
        causal = torch.ones(4, 7, dtype=torch.bool).triu_(4)
        sim.masked_fill_(causal, -torch.finfo(sim.dtype).max)
        out = x + to_out(torch.einsum("bij,bjd->bid", sim.softmax(dim=-1), v))
        loss = (out[:, :-1] - x[:, 1:]).square().mean()
        loss.backward()
        optimizer.step()
        mems = torch.cat((mems, out), 1)[:, -3:].detach()
    return locals()


@IDIOMS("word_language_model", "the hidden state repackaged, parameters moved by hand")
def word_language_model():
    encoder, rnn, decoder = nn.Embedding(9, 6), nn.LSTM(6, 6, 2, dropout=0.1), nn.Linear(6, 9)
    nn.init.uniform_(encoder.weight, -0.1, 0.1)
    nn.init.zeros_(decoder.bias)
    model = nn.ModuleList([encoder, rnn, decoder])

    def repackage(h):
        return h.detach() if isinstance(h, torch.Tensor) else tuple(repackage(v) for v in h)

    corpus, total_loss = torch.randint(9, (13, 2)), 0.0
    hidden = (torch.zeros(2, 2, 6), torch.zeros(2, 2, 6))
    for i in range(0, 12, 4):
        data, targets = corpus[i : i + 4], corpus[i + 1 : i + 5].reshape(-1)
        model.zero_grad()
        hidden = repackage(hidden)
        # differences: model
        output, hidden = rnn(encoder(data), hidden)
        loss = F.nll_loss(F.log_softmax(decoder(output).view(-1, 9), dim=1), targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        for p in model.parameters():
            p.data.add_(p.grad, alpha=-0.5)
        total_loss += loss.item()
    return locals()


@IDIOMS("AWD-LSTM", "weights dropped for each batch, activation regularisation, averaged at the end")
def awd_lstm():
    cell, head = nn.LSTMCell(4, 4), nn.Linear(4, 3)
    raw = nn.Parameter(cell.weight_hh.detach().clone())
    del cell._parameters["weight_hh"]
    params = [raw, cell.weight_ih, cell.bias_ih, cell.bias_hh, *head.parameters()]
    optimizer = torch.optim.ASGD(params, lr=0.1, t0=0, lambd=0.0)
    for _ in range(2):
        optimizer.zero_grad()
        # differences: params
        cell.weight_hh = F.dropout(raw, p=0.3, training=True)
        mask = torch.empty(1, 4).bernoulli_(0.7).div_(0.7)
        h, c, outs = torch.zeros(2, 4), torch.zeros(2, 4), []
        for _t in range(4):
            h, c = cell(torch.randn(2, 4), (h, c))
            outs.append(h * mask)
        out = torch.stack(outs)
        loss = F.cross_entropy(head(out).view(-1, 3), torch.randint(3, (8,)))
        loss = loss + 2.0 * out.pow(2).mean() + 1.0 * (out[1:] - out[:-1]).pow(2).mean()
        loss.backward()
        optimizer.step()
    kept = {}
    for p in params:
        kept[p] = p.data.clone()
        p.data.copy_(optimizer.state[p]["ax"])
    for p in params:
        p.data.copy_(kept[p])
    return locals()
