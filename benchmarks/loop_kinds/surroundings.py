"""The same small model with what stands around a step: loaders, scalers, hooks, a compiler, a second rank."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.loop_kinds.loop import Loops, Run, Running

_loops = Loops()


def _mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


class _Arrays(Dataset[Any]):
    """Items that are views of one numpy array, as many data sets have them."""

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(0)
        self.x, self.y = rng.random((count, 32), dtype=np.float32), rng.integers(10, size=count)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[np.ndarray, Any]:
        return self.x[i], self.y[i]


def _train_on(loader: DataLoader[Any], net: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    done = 0
    while done < count:
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            done += 1
            if done == count:
                break


@_loops("MLP on a numpy-backed DataLoader", 120)
def _numpy_loader() -> Run:
    net, loader = _mlp(), DataLoader(_Arrays(512), batch_size=16, shuffle=True)
    optimizer = torch.optim.Adam(net.parameters())
    return lambda count: _train_on(loader, net, optimizer, count)


@_loops("MLP on slices of a numpy array", 150)
def _numpy_slices() -> Run:
    net, data = _mlp(), _Arrays(512)
    optimizer = torch.optim.Adam(net.parameters())

    def run(count: int) -> None:
        for i in range(count):
            part = slice(i * 16 % 512, i * 16 % 512 + 16)
            x, y = torch.from_numpy(data.x[part]), torch.from_numpy(data.y[part])
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()

    return run


@_loops("DataLoader with workers", 120)
def _workers() -> Running:
    net = _mlp()
    loader = DataLoader(_Arrays(960), batch_size=16, shuffle=True, num_workers=2, persistent_workers=True)
    optimizer = torch.optim.Adam(net.parameters())

    def run(count: int) -> None:
        _train_on(loader, net, optimizer, count)

    def close() -> None:
        workers = loader._iterator  # no public name ends persistent workers
        if workers is not None:
            workers._shutdown_workers()

    return Running(run, lambda _: None, close)


@_loops("autocast with a scaler", 80)
def _autocast() -> Run:
    net, scaler = _mlp(), torch.amp.GradScaler("cpu")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    x, y = torch.randn(16, 32), torch.randint(10, (16,))

    def run(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = F.cross_entropy(net(x), y)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()

    return run


@_loops("hooks that log", 120)
def _hooks() -> Run:
    net = _mlp()
    optimizer = torch.optim.Adam(net.parameters())
    x, y, logged = torch.randn(16, 32), torch.randint(10, (16,)), {}

    def run(count: int) -> None:
        handles = [
            layer.register_forward_hook(lambda m, _, out: logged.update({m: out.detach().abs().mean()}))
            for layer in net
        ]
        handles += [p.register_hook(lambda g: logged.update(norm=g.norm())) for p in net.parameters()]
        for _ in range(count):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        for handle in handles:
            handle.remove()

    return run


@_loops("torch.compiled step (aot_eager)", 100)
def _compiled() -> Run:
    net = _mlp()
    compiled, optimizer = torch.compile(net, backend="aot_eager"), torch.optim.Adam(net.parameters())
    x, y = torch.randn(16, 32), torch.randint(10, (16,))

    def run(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            F.cross_entropy(compiled(x), y).backward()
            optimizer.step()

    return run


# --- two ranks ---------------------------------------------------------------------------------------------------------


def _rank(rank: int, folder: str) -> Run:
    """Join the other rank; gives its loop."""
    store = torch.distributed.FileStore(os.path.join(folder, "store"), 2)  # noqa: PTH118
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.manual_seed(0)
    net = nn.parallel.DistributedDataParallel(_mlp())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    x, y = torch.randn(16, 32), torch.randint(10, (16,))

    def run(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()

    return run


def _other_rank(folder: str) -> None:
    """The second rank: as many rounds as the first one says, until it says 0."""
    torch.set_num_threads(1)
    run, count = _rank(1, folder), torch.zeros(1, dtype=torch.long)
    while True:
        torch.distributed.broadcast(count, 0)
        if not count.item():
            break
        run(int(count))
    torch.distributed.destroy_process_group()


@_loops("two ranks of DDP, the first one", 100)
def _ddp() -> Running:
    folder = tempfile.TemporaryDirectory()
    other = torch.multiprocessing.get_context("spawn").Process(target=_other_rank, args=(folder.name,), daemon=True)
    other.start()
    run = _rank(0, folder.name)

    def tell(count: int) -> None:
        torch.distributed.broadcast(torch.tensor([count]), 0)

    def close() -> None:
        tell(0)
        torch.distributed.destroy_process_group()
        other.join(30)
        folder.cleanup()

    return Running(run, tell, close)


SURROUNDINGS = tuple(_loops.found)
