"""What runs where a watch does not reach: compiled regions, other threads, a loader's workers, other processes.

These programs are right: they stay green, with their line in `blind_spots`, and compute what they compute unwatched. The faulty ones are
in test_out_of_sight_faulty.py.
"""

from __future__ import annotations

import os
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from elsewhere import in_process
from idioms.program import numbers, quiet, seed, unequal
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from jupyter_inplace import watch

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.usefixtures("own_compiled_code"),
]

COMPILED = "torch.compile"


def train(net, optimizer, batches):
    """A plain loop; gives the losses."""
    losses = []
    for x, y in batches:
        optimizer.zero_grad()
        loss = F.mse_loss(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def batches(count=3):
    return [(torch.randn(4, 3), torch.randn(4, 1)) for _ in range(count)]


def mlp():
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(inplace=True), nn.Linear(5, 1))


def compiled_by_eager(pool):
    net = mlp()
    losses = train(torch.compile(net, backend="eager"), torch.optim.SGD(net.parameters(), lr=0.1), batches())
    return locals()


def compiled_by_aot_eager(pool):
    net = mlp()
    losses = train(torch.compile(net, backend="aot_eager"), torch.optim.AdamW(net.parameters(), lr=0.1), batches())
    return locals()


def compiled_with_a_break(pool):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin, self.out = nn.Linear(3, 5), nn.Linear(5, 1)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            h = self.lin(x).relu_()
            self.seen.add_(len(x))
            torch._dynamo.graph_break()
            return self.out(h).mul_(2)

    net = Counting()
    losses = train(torch.compile(net, backend="eager"), torch.optim.SGD(net.parameters(), lr=0.1), batches())
    return locals()


def compiled_optimizer(pool):
    net = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    step, losses = torch.compile(optimizer.step, backend="eager"), []
    for x, y in batches():
        optimizer.zero_grad()
        loss = F.mse_loss(net(x), y)
        loss.backward()
        step()
        losses.append(loss.item())
    return locals()


def thread_that_prefetches(pool):
    ready = queue.Queue(maxsize=1)
    data = batches()

    def produce():
        for x, y in data:
            ready.put((x.clone().mul_(0.5).add_(0.1), y))
        ready.put(None)

    thread = threading.Thread(target=produce)
    thread.start()
    net = mlp()
    losses = train(net, torch.optim.SGD(net.parameters(), lr=0.1), iter(ready.get, None))
    thread.join()
    return {"net": net, "losses": losses}


def thread_that_saves(pool):
    net, kept = mlp(), {}

    def save(state):
        for name, value in state.items():
            kept[name] = torch.empty_like(value).copy_(value)

    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    for x, y in batches():
        losses = train(net, optimizer, [(x, y)])
        saver = threading.Thread(target=save, args=({k: v.clone() for k, v in net.state_dict().items()},))
        saver.start()
    saver.join()
    return {"net": net, "losses": losses}


def threads_that_augment(pool):
    net = mlp()

    def augment(batch):
        x = batch[0].clone()
        x[x > 1] = 1.0
        return x.sub_(x.mean()), batch[1]

    data = list(pool.map(augment, batches()))
    with ThreadPoolExecutor(2) as own:
        data += own.map(augment, batches())
    losses = train(net, torch.optim.SGD(net.parameters(), lr=0.1), data)
    return {"net": net, "losses": losses}


def threads_that_act(pool):
    policy, storage = nn.Linear(3, 2), torch.zeros(4, 5, 3)
    actions = torch.zeros(4, 5, dtype=torch.long)

    @torch.no_grad()
    def act(i):
        for t in range(5):
            storage[i, t] = torch.sin(torch.arange(3.0) + i + t)
            actions[i, t] = policy(storage[i, t]).argmax()

    for _ in range(2):
        actors = [threading.Thread(target=act, args=(i,)) for i in range(4)]
        for actor in actors:
            actor.start()
        for actor in actors:
            actor.join()
        loss = F.cross_entropy(policy(storage.view(20, 3)), 1 - actions.view(20))
        policy.zero_grad()
        loss.backward()
        for p in policy.parameters():
            p.data.sub_(p.grad, alpha=0.5)
    return {"policy": policy, "loss": loss.item(), "storage": storage, "actions": actions}


class Noisy(Dataset):
    """Items that are changed in place in the worker."""

    def __init__(self):
        self.x = torch.randn(8, 3)

    def __len__(self):
        return 8

    def __getitem__(self, i):
        x = self.x[i]
        x.mul_(0.5)
        return x.clone().add_(0.1), x.sum().view(1)


def loader_with_workers(pool):
    net = mlp()
    optimizer, losses = torch.optim.SGD(net.parameters(), lr=0.1), []
    loader = DataLoader(Noisy(), batch_size=4, num_workers=2, persistent_workers=True)
    for _epoch in range(2):
        losses += train(net, optimizer, loader)
    return {"net": net, "losses": losses}


def loader_of_tensors(pool):
    net = mlp()
    loader = DataLoader(TensorDataset(torch.randn(8, 3), torch.randn(8, 1)), batch_size=4, shuffle=True, num_workers=1)
    losses = train(net, torch.optim.SGD(net.parameters(), lr=0.1), loader)
    return {"net": net, "losses": losses}


def process_that_evaluates(pool):
    net, score = mlp().share_memory(), torch.zeros(1).share_memory_()
    losses = train(net, torch.optim.SGD(net.parameters(), lr=0.1), batches())

    def evaluate():
        with torch.no_grad():
            score.copy_(net.eval()(torch.ones(1, 3)).view(1))

    in_process(evaluate)
    return {"net": net, "losses": losses, "score": score}


CLEAN = {
    compiled_by_eager: COMPILED,
    compiled_by_aot_eager: COMPILED,
    compiled_with_a_break: COMPILED,
    compiled_optimizer: COMPILED,
    thread_that_prefetches: "",
    thread_that_saves: "",
    threads_that_augment: "",
    threads_that_act: "",
    loader_with_workers: "",
    loader_of_tensors: "",
    process_that_evaluates: "was started during the watch",
}


@pytest.mark.parametrize("program", CLEAN, ids=lambda f: f.__name__)
def test_clean(program, pool):
    with quiet():
        seed()
        alone = numbers(program(pool))
        torch._dynamo.reset()
        seed()
        with watch() as report:
            space = program(pool)
        found = numbers(space)
    assert unequal(alone, found) == []
    assert report.verdict == "harmless", report.summary
    says = CLEAN[program]
    assert bool(report.blind_spots) == bool(says), report.blind_spots
    assert any(says in note for note in report.blind_spots) or not says, report.blind_spots
