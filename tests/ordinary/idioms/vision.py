"""Image models: timm, torchvision's references, detectron2, DETR, YOLO, Swin."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from idioms.program import Idioms

IDIOMS = Idioms()


@IDIOMS("timm", "averaged weights and buffers, drop path, layer scale")
def timm_ema():
    def drop_path(x, rate):
        keep = 1 - rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        if keep > 0:
            mask.div_(keep)
        return x * mask

    class Block(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.norm, self.fc1, self.fc2 = nn.LayerNorm(dim), nn.Linear(dim, 8), nn.Linear(8, dim)
            self.gamma = nn.Parameter(1e-1 * torch.ones(dim))

        def forward(self, x):
            return x + drop_path(self.gamma * self.fc2(F.gelu(self.fc1(self.norm(x)))), 0.2)

    model = nn.Sequential(nn.Conv2d(1, 4, 2, 2), nn.BatchNorm2d(4), nn.Flatten(), Block(16), nn.Linear(16, 3))
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        x, y = torch.randn(4, 1, 4, 4), torch.randint(3, (4,))
        # differences: model
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for mean, now in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                mean.copy_(0.9 * mean + 0.1 * now if mean.is_floating_point() else now)
        losses.append(loss.item())
    return locals()


@IDIOMS("timm", "mixup in place on the batch, soft targets")
def timm_mixup():
    def one_hot(y, on, off):
        return torch.full((len(y), 3), off).scatter_(1, y.view(-1, 1), on)

    def mixup(x, y, lam):
        flipped = x.flip(0).mul_(1.0 - lam)
        x.mul_(lam).add_(flipped)
        return x, one_hot(y, 0.9, 0.05) * lam + one_hot(y.flip(0), 0.9, 0.05) * (1.0 - lam)

    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.SiLU(inplace=True), nn.Flatten(), nn.Linear(12, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(3):
        optimizer.zero_grad()
        x, target = mixup(torch.randn(4, 1, 4, 4), torch.randint(3, (4,)), 0.3)
        # differences: net
        loss = torch.sum(-target * F.log_softmax(net(x), dim=-1), dim=-1).mean()
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("timm", "adaptive gradient clipping")
def timm_agc():
    def unitwise(x):
        return x.norm(2.0) if x.ndim <= 1 else x.norm(2.0, dim=tuple(range(1, x.ndim)), keepdim=True)

    net = nn.Sequential(nn.Linear(3, 5), nn.Hardswish(inplace=True), nn.Linear(5, 2))
    optimizer = torch.optim.RMSprop(net.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        # differences: net
        loss = net(torch.randn(6, 3)).square().mean()
        loss.backward()
        for p in net.parameters():
            data, grad = p.detach(), p.grad.detach()
            largest = unitwise(data).clamp_(min=1e-3).mul_(0.01)
            norm = unitwise(grad)
            clipped = grad * (largest / norm.clamp(min=1e-6))
            p.grad.detach().copy_(torch.where(norm < largest, grad, clipped))
        optimizer.step()
    return locals()


@IDIOMS("torchvision references", "a classification epoch with a scaler and its meters")
def torchvision_classification():
    class SmoothedValue:
        def __init__(self):
            self.total, self.count = torch.zeros(()), 0

        def update(self, value, n=1):
            self.total += value * n
            self.count += n

    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(inplace=True), nn.Flatten(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=1)
    rest = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, rest], milestones=[1])
    scaler, meters = torch.amp.GradScaler("cpu"), {"loss": SmoothedValue(), "acc1": SmoothedValue()}
    for _ in range(3):
        images, target = torch.randn(4, 1, 4, 4), torch.randint(3, (4,))
        # differences: net
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = net(images)
            loss = F.cross_entropy(output, target, label_smoothing=0.1)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        meters["loss"].update(loss.detach(), 4)
        meters["acc1"].update((output.argmax(1) == target).float().mean() * 100, 4)
    return locals()


@IDIOMS("torchvision references", "boxes decoded into the slots of an empty tensor, a dictionary of losses")
def torchvision_detection():
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True))
    scores, deltas = nn.Conv2d(4, 1, 1), nn.Conv2d(4, 4, 1)
    modules = nn.ModuleList([backbone, scores, deltas])
    optimizer = torch.optim.SGD(modules.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        images = [torch.rand(3, 4, 5), torch.rand(3, 5, 4)]
        batch = images[0].new_full((2, 3, 5, 5), 0)
        for image, slot in zip(images, batch, strict=True):
            slot[:, : image.shape[1], : image.shape[2]].copy_(image)
        # differences: modules
        features = backbone(batch.sub_(0.5).div_(0.25))
        anchors = torch.rand(50, 4).cumsum_(1)
        d = deltas(features).permute(0, 2, 3, 1).reshape(-1, 4)
        widths, heights = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
        x, y = d[:, 0] * widths + anchors[:, 0], d[:, 1] * heights + anchors[:, 1]
        w, h = torch.exp(d[:, 2].clamp(max=4.0)) * widths, torch.exp(d[:, 3].clamp(max=4.0)) * heights
        boxes = torch.zeros_like(d)
        boxes[:, 0::4] = (x - 0.5 * w)[:, None]
        boxes[:, 1::4] = (y - 0.5 * h)[:, None]
        boxes[:, 2::4] = (x + 0.5 * w)[:, None]
        boxes[:, 3::4] = (y + 0.5 * h)[:, None]
        labels = torch.zeros(50)
        labels[torch.rand(50) > 0.5] = 1.0
        loss_dict = {
            "objectness": F.binary_cross_entropy_with_logits(scores(features).flatten(), labels),
            "box": F.smooth_l1_loss(boxes[labels == 1], anchors[labels == 1]),
        }
        losses = sum(loss for loss in loss_dict.values())
        losses.backward()
        optimizer.step()
    return locals()


@IDIOMS("torchvision", "dense blocks that recompute their bottlenecks")
def torchvision_densenet():
    class Layer(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.norm, self.relu = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
            self.conv = nn.Conv2d(channels, 2, 1, bias=False)

        def forward(self, features):
            def closure(*inputs):
                return self.conv(self.relu(self.norm(torch.cat(inputs, 1))))

            return checkpoint(closure, *features, use_reentrant=False)

    layers = nn.ModuleList([Layer(2), Layer(4), Layer(6)])
    head = nn.Linear(8, 2)
    optimizer = torch.optim.SGD([*layers.parameters(), *head.parameters()], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        # differences: layers, head
        features = [torch.randn(3, 2, 4, 4)]
        for layer in layers:
            features.append(layer(features))
        loss = F.cross_entropy(head(torch.cat(features, 1).mean((2, 3))), torch.tensor([0, 1, 0]))
        loss.backward()
        optimizer.step()
    return locals()


@IDIOMS("detectron2", "frozen batch norm, losses kept in a storage, a hook that steps the rate")
def detectron2_trainer():
    class FrozenBatchNorm2d(nn.Module):
        def __init__(self, n):
            super().__init__()
            for name, value in ("weight", 1.0), ("bias", 0.0), ("running_mean", 0.1), ("running_var", 0.9):
                self.register_buffer(name, torch.full((n,), value))

        def forward(self, x):
            scale = self.weight * (self.running_var + 1e-5).rsqrt()
            return x * scale.reshape(1, -1, 1, 1) + (self.bias - self.running_mean * scale).reshape(1, -1, 1, 1)

    stem = nn.Sequential(nn.Conv2d(1, 4, 3), FrozenBatchNorm2d(4), nn.ReLU(inplace=True))
    for p in stem.parameters():
        p.requires_grad_(False)
    body = nn.Sequential(nn.Conv2d(4, 4, 3), FrozenBatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten())
    cls_score, bbox_pred = nn.Linear(16, 3), nn.Linear(16, 4)
    nn.init.normal_(cls_score.weight, std=0.1)
    nn.init.constant_(bbox_pred.bias, 0)
    params = [*body.parameters(), *cls_score.parameters(), *bbox_pred.parameters()]
    optimizer, storage = torch.optim.SGD(params, lr=0.1, momentum=0.9), []
    for iteration in range(3):
        # differences: params
        features = body(stem(torch.randn(4, 1, 6, 6)))
        loss_dict = {
            "loss_cls": F.cross_entropy(cls_score(features), torch.randint(3, (4,))),
            "loss_box_reg": F.smooth_l1_loss(bbox_pred(features), torch.randn(4, 4), reduction="sum") / 4,
        }
        losses = sum(loss_dict.values())
        optimizer.zero_grad()
        losses.backward()
        storage.append({k: v.detach().cpu().item() for k, v in loss_dict.items()})
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * 0.5 ** (iteration + 1)
    return locals()


@IDIOMS("DETR", "matching under no_grad, auxiliary losses of every decoder layer")
def detr_set_criterion():
    decoder = nn.ModuleList([nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True) for _ in range(2)])
    query, class_embed, bbox_embed = nn.Embedding(5, 8), nn.Linear(8, 4), nn.Linear(8, 4)
    nn.init.uniform_(query.weight)
    modules = nn.ModuleList([decoder, query, class_embed, bbox_embed])
    optimizer = torch.optim.AdamW(modules.parameters(), lr=1e-2)
    empty_weight = torch.ones(4)
    empty_weight[-1] = 0.1
    for _ in range(2):
        optimizer.zero_grad()
        mask = torch.ones(2, 3, 3, dtype=torch.bool)
        for slot in mask:
            slot[:2, :3] = False
        rows = (~mask).cumsum(1, dtype=torch.float32)
        memory = torch.randn(2, 9, 8) + (rows / (rows[:, -1:, :] + 1e-6)).flatten(1)[..., None]
        goal = torch.rand(2, 4)
        # differences: modules
        hs, out, losses = query.weight.expand(2, -1, -1), [], {}
        for layer in decoder:
            hs = layer(hs, memory, memory_key_padding_mask=mask.flatten(1))
            out.append((class_embed(hs), bbox_embed(hs).sigmoid()))
        for i, (logits, boxes) in enumerate(out):
            with torch.no_grad():
                cost = torch.cdist(boxes, goal[:, None], p=1).squeeze(-1) - logits.softmax(-1)[..., 1]
                match = cost.argmin(1)
            classes = torch.full(logits.shape[:2], 3)
            classes[torch.arange(2), match] = 1
            losses[f"ce_{i}"] = F.cross_entropy(logits.transpose(1, 2), classes, empty_weight)
            losses[f"bbox_{i}"] = 5 * F.l1_loss(boxes[torch.arange(2), match], goal)
        total = sum(losses.values())
        total.backward()
        nn.utils.clip_grad_norm_(modules.parameters(), 0.1)
        optimizer.step()
    return locals()


@IDIOMS("YOLOv5", "objectness targets in slots, one scalar that collects each scale's loss")
def yolo_loss():
    heads = nn.ModuleList([nn.Conv2d(3, 7, 1), nn.Conv2d(3, 7, 1)])
    for head in heads:
        b = head.bias.view(1, -1)
        b.data[:, 4] += math.log(8 / 64)
        head.bias = nn.Parameter(b.view(-1), requires_grad=True)
    optimizer = torch.optim.SGD(heads.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    bce = nn.BCEWithLogitsLoss()
    for _ in range(2):
        optimizer.zero_grad()
        image = torch.rand(2, 3, 4, 4)
        # differences: heads
        lbox, lobj, lcls = torch.zeros(1), torch.zeros(1), torch.zeros(1)
        for head, size in zip(heads, (4, 2), strict=True):
            p = head(F.adaptive_avg_pool2d(image, size)).permute(0, 2, 3, 1)
            tobj = torch.zeros_like(p[..., 0])
            b, gj, gi = torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([1, 0])
            pxy, pwh, _, pcls = p[b, gj, gi].split((2, 2, 1, 2), 1)
            pxy, pwh = pxy.sigmoid() * 2 - 0.5, (pwh.sigmoid() * 2) ** 2
            iou = torch.exp(-(torch.cat((pxy, pwh), 1) - 0.5).square().sum(1))
            lbox += (1.0 - iou).mean()
            tobj[b, gj, gi] = iou.detach().clamp(0).type(tobj.dtype)
            t = torch.full_like(pcls, 0.05)
            t[range(2), torch.tensor([1, 0])] = 0.95
            lcls += bce(pcls, t)
            lobj += bce(p[..., 4], tobj)
        lbox *= 0.05
        lobj *= 1.0
        lcls *= 0.5
        loss = (lbox + lobj + lcls) * 2
        loss.backward()
        optimizer.step()
    items = torch.cat((lbox, lobj, lcls)).detach()
    return locals()


@IDIOMS("Swin", "shifted windows with a mask in slots, relative positions from a table")
def swin_block():
    table = nn.Parameter(torch.zeros(9, 1))
    nn.init.trunc_normal_(table, std=0.02)
    qkv, proj, norm = nn.Linear(4, 12), nn.Linear(4, 4), nn.LayerNorm(4)
    parts = nn.ModuleList([qkv, proj, norm])
    optimizer = torch.optim.AdamW([table, *parts.parameters()], lr=0.01)
    coords = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
    relative = (coords[:, :, None] - coords[:, None, :]).permute(1, 2, 0).contiguous()
    relative[:, :, 0] += 1
    relative[:, :, 1] += 1
    relative[:, :, 0] *= 3
    index = relative.sum(-1)

    def windows(x):
        return x.view(-1, 2, 2, 2, 2, x.shape[-1]).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, x.shape[-1])

    img_mask = torch.zeros((1, 4, 4, 1))
    for count, (h, w) in enumerate((h, w) for h in (slice(0, 3), slice(3, 4)) for w in (slice(0, 3), slice(3, 4))):
        img_mask[:, h, w, :] = count
    ids = windows(img_mask).squeeze(-1)
    attn_mask = ids.unsqueeze(1) - ids.unsqueeze(2)
    attn_mask = attn_mask.masked_fill(attn_mask != 0, -100.0).masked_fill(attn_mask == 0, 0.0)
    for _ in range(2):
        optimizer.zero_grad()
        x = torch.randn(1, 4, 4, 4)
        # differences: table, parts
        shifted = windows(torch.roll(norm(x), (-1, -1), (1, 2)))
        q, k, v = qkv(shifted).chunk(3, -1)
        q = q * 0.5
        attn = q @ k.transpose(-2, -1) + table[index.view(-1)].view(4, 4)
        attn = attn + attn_mask
        out = proj(attn.softmax(-1) @ v)
        x = x + torch.roll(out.view(1, 2, 2, 2, 2, 4).permute(0, 1, 3, 2, 4, 5).reshape(1, 4, 4, 4), (1, 1), (1, 2))
        loss = x.square().mean()
        loss.backward()
        optimizer.step()
    return locals()
