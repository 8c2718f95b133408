"""Run by torchrun: programs over wrapped models, each one unwatched, watched, and watched on one rank alone.

Usage: wrapped.py FOLDER; each rank leaves ``FOLDER/rankN.json``: for each program what came of it in each way.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from jupyter_inplace import watch

warnings.simplefilter("ignore")
dist.init_process_group("gloo")
RANK = dist.get_rank()


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Sigmoid(), torch.nn.Linear(8, 1)
    )


def batch(i):
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(10 * i + RANK))


def ordinary(**options):
    model = DistributedDataParallel(network(), **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for i in range(3):
        optimizer.zero_grad()
        model(batch(i)).sum().backward()
        optimizer.step()
    return model


def bucket_views():
    return ordinary(gradient_as_bucket_view=True)


def static_graph():
    return ordinary(static_graph=True)


def twice():
    """Forward twice with batch norm and buffers kept in step (pytorch#22095)."""
    model = DistributedDataParallel(network())
    first, second = model(batch(0)), model(batch(1))
    (first.sum() + second.square().sum()).backward()
    return model


def eval_then_train():
    """The same where the first forward read the running statistics that the second one changes."""
    model = DistributedDataParallel(network())
    model.eval()
    first = model(batch(0)).sum()
    model.train()
    second = model(batch(1)).square().sum()
    (first + second).backward()
    return model


class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.register_buffer("scale", torch.ones(4))

    def forward(self, x):
        return self.linear(x) * self.scale


def hidden_sync():
    """The buffer of rank 0 reaches rank 1 in the second forward, and no version moves (pytorch#175851)."""
    torch.manual_seed(0)
    model = DistributedDataParallel(Scaled())
    first = model(batch(0)).sum()
    if RANK == 0:
        model.module.scale.data.fill_(3.0)
    second = model(batch(1)).sum()
    (first + second).backward()
    return model


def no_sync():
    model = DistributedDataParallel(network(), gradient_as_bucket_view=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for i in range(2):
        with model.no_sync():
            model(batch(i)).sum().backward()
        model(batch(i + 5)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def step_in_hooks():
    model = DistributedDataParallel(network())
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}

    def hook(p):
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(hook)
    for i in range(2):
        model(batch(i)).sum().backward()
    return model


def own_communication():
    def hook(state, bucket):
        return dist.all_reduce(bucket.buffer().div_(2), async_op=True).get_future().then(lambda f: f.value()[0])

    model = DistributedDataParallel(network())
    model.register_comm_hook(None, hook)
    for i in range(2):
        model(batch(i)).sum().backward()
    return model


def reduced_in_hooks():
    model = network()
    for p in model.parameters():
        p.register_hook(lambda g: dist.all_reduce(g) and None)
    model(batch(0)).sum().backward()
    return model


def reduced_what_was_saved():
    model = network()
    h = model[0](batch(0)).sigmoid()
    loss = h.sum()
    dist.all_reduce(h.data)
    loss.backward()
    return model


def logged():
    model = DistributedDataParallel(network())
    loss = model(batch(0)).sum()
    loss.backward()
    shown = loss.detach()
    dist.all_reduce(shown)
    return model


def one_rank_only():
    model = DistributedDataParallel(network())
    out = model(batch(0)).sigmoid()
    loss = out.sum()
    if RANK == 1:
        out.data.mul_(2)
    loss.backward()
    return model


def sharded(bad=False, deep=True):
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(3 if deep else 1)))
    mesh = init_device_mesh("cpu", (2,))
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for i in range(2):
        h = model(batch(i)).sigmoid()
        loss = h.sum()
        if bad and RANK == 1:
            h.data.mul_(2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def sharded_one_rank_bad():
    return sharded(bad=True)


def sharded_flat_bad():
    return sharded(bad=True, deep=False)


PROGRAMS = [
    ordinary, bucket_views, static_graph, twice, eval_then_train, hidden_sync, no_sync, step_in_hooks, own_communication,
    reduced_in_hooks, reduced_what_was_saved, logged, one_rank_only, sharded, sharded_one_rank_bad, sharded_flat_bad,
]  # fmt: skip


def plain(t):
    return (t.to_local() if hasattr(t, "to_local") else t).detach().clone()


def values(model):
    """Everything that a run leaves: parameters, buffers, gradients, versions."""
    tensors = [plain(t) for t in model.state_dict().values()]
    tensors += [plain(p.grad) for p in model.parameters() if p.grad is not None]
    return tensors, [b._version for b in model.buffers()]


def equal(a, b):
    return a[1] == b[1] and len(a[0]) == len(b[0]) and all(map(torch.equal, a[0], b[0]))


results = {}
for program in PROGRAMS:
    alone = values(program())
    with watch() as report:
        model = program()
    both = values(model)
    if RANK == 1:
        with watch(gradients=True) as one:  # and every gradient once more, on this rank alone
            model = program()
    else:
        model = program()
    dist.barrier()
    results[program.__name__] = {
        "same": equal(alone, both) and equal(alone, values(model)),
        "verdict": report.verdict,
        "summary": report.summary,
        "sites": [m.site.text for m in report.mutations if m.verdict != "harmless"],
        "missing": list(report.blind_spots),
        "rank": report.rank,
    }
Path(sys.argv[1], f"rank{RANK}.json").write_text(json.dumps(results))
dist.barrier()
# gloo's threads live as long as its groups, which models whose hooks hold them keep to the very end. A thread that lets go
# of a tensor while Python shuts down ends the process by SIGABRT (pytorch#190489): the shutdown is left out.
sys.stdout.flush()
os._exit(0)
