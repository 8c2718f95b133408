"""Run by torchrun: one site on both ranks, one on rank 1 alone, then rank 1 dies of an in-place write."""

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
w = torch.ones(3, requires_grad=True)


def silent(times):
    h = w.exp()
    loss = h.sum()
    for _ in range(times):
        h.data.mul_(2)  # on both
    loss.backward()


silent(1 + rank)
if rank == 1:
    h = w.exp()
    seg = h.sum()
    h.data.mul_(3)  # on rank 1
    seg.backward()
    dead = h.exp()
    dead.mul_(2)
    dead.sum().backward()
dist.barrier()
