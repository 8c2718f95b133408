"""What runs where a watch does not reach: compiled regions, other threads, a loader's workers, other processes.

The clean ones stay green, with their line in `blind_spots`. The faulty ones have a wrong gradient, held against the formula, and are
never green: a write is named, or the verdict is `unknown`.
"""

from __future__ import annotations

import _thread
import os
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from idioms.program import numbers, quiet, seed, unequal
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from jupyter_inplace import watch

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

COMPILED = "torch.compile"
FAULTS_FOUND = ("breaks", "corrupts", "cuts", "unknown")


@pytest.fixture(autouse=True)
def own_graphs():
    """No compiled code is left for other tests."""
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def pool():
    """A thread from before the watch."""
    with ThreadPoolExecutor(1) as one:
        one.submit(int).result()
        yield one


def fork(target):
    """Run it in another process, to its end."""
    process = mp.get_context("fork").Process(target=target)
    process.start()
    process.join()
    assert process.exitcode == 0


# --- clean -------------------------------------------------------------------------------------------------------------


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

    fork(evaluate)
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


# --- faulty ------------------------------------------------------------------------------------------------------------
# Each gives the gradient that it got, and the one of the loss that it computed. exp saves its result, a product both factors.


def leaf():
    return torch.linspace(0.1, 1, 4).requires_grad_(True)


def saved_by_exp():
    w = leaf()
    h = torch.exp(w)
    return w, h, h.sum()


def region_writes_what_was_saved(pool):
    w, h, loss = saved_by_exp()
    torch.compile(lambda a: a.mul_(2), backend="eager")(h.data)
    loss.backward()
    return w.grad, torch.exp(w)


def region_writes_by_aot(pool):
    w, h, loss = saved_by_exp()
    torch.compile(lambda a: a.mul_(2), backend="aot_eager")(torch.from_numpy(h.detach().numpy()))
    loss.backward()
    return w.grad, torch.exp(w)


def region_writes_its_own_save(pool):
    def body(w):
        h = torch.exp(w)
        loss = h.sum()
        h.data.mul_(2)
        return loss

    w = leaf()
    torch.compile(body, backend="aot_eager")(w).backward()
    return w.grad, torch.exp(w)


def region_input_overwritten_by_numpy(pool):
    w, array = leaf(), np.ones(4, np.float32)
    loss = torch.compile(lambda w, x: (w * x).sum(), backend="aot_eager")(w, torch.from_numpy(array))
    array *= 3
    loss.backward()
    return w.grad, torch.ones(4)


def thread_from_before_the_watch(pool):
    w, h, loss = saved_by_exp()
    pool.submit(lambda: h.data.mul_(2)).result()
    loss.backward()
    return w.grad, torch.exp(w)


def thread_below_threading(pool):
    w, h, loss = saved_by_exp()
    done = threading.Event()

    def work():
        h.data.mul_(2)
        done.set()

    _thread.start_new_thread(work, ())
    assert done.wait(20)
    loss.backward()
    return w.grad, torch.exp(w)


def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def thread_writes_by_numpy(pool):
    w, h, loss = saved_by_exp()

    def work():
        array = h.detach().numpy()
        array *= 2

    in_thread(work)
    loss.backward()
    return w.grad, torch.exp(w)


def thread_saves_and_main_overwrites(pool):
    made = []
    in_thread(lambda: made.extend(saved_by_exp()))
    w, h, loss = made
    h.data.mul_(2)
    loss.backward()
    return w.grad, torch.exp(w)


def thread_runs_backward(pool):
    w, h, loss = saved_by_exp()
    h.data.mul_(2)
    in_thread(loss.backward)
    return w.grad, torch.exp(w)


def thread_does_it_all(pool):
    made = []

    def work():
        w, h, loss = saved_by_exp()
        h.data.mul_(2)
        loss.backward()
        made.append(w)

    in_thread(work)
    return made[0].grad, torch.exp(made[0])


def loader_worker_writes_shared_memory(pool):
    w, x = leaf(), torch.ones(4).share_memory_()

    class Careless(Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, i):
            x.mul_(5)
            return torch.zeros(1)

    loss = (w * x).sum()
    assert len(list(DataLoader(Careless(), num_workers=1))) == 1
    loss.backward()
    return w.grad, torch.ones(4)


def process_trains_a_shared_model(pool):
    inputs, net = leaf(), nn.Linear(4, 1, bias=False).share_memory()
    before = net.weight.detach().clone()
    loss = net(inputs).sum()

    def hogwild():
        with torch.no_grad():
            net.weight.mul_(3)

    fork(hogwild)
    loss.backward()
    return inputs.grad, before[0]


GRAPH = "a graph that another thread builds or runs is not compared"
UNSEEN = "a thread that was not started through `threading` during the watch writes unseen"
FAULTY = {
    region_writes_what_was_saved: "",
    region_writes_by_aot: "",
    region_writes_its_own_save: "what a compiled region does to what it saves itself is not seen",
    region_input_overwritten_by_numpy: "",
    thread_from_before_the_watch: UNSEEN,
    thread_below_threading: UNSEEN,
    thread_writes_by_numpy: "memory that a started thread hands out is not compared",
    thread_saves_and_main_overwrites: GRAPH,
    thread_runs_backward: GRAPH,
    thread_does_it_all: GRAPH,
    loader_worker_writes_shared_memory: "",
    process_trains_a_shared_model: "",
}


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(program, marks=pytest.mark.xfail(reason=why, strict=True) if why else (), id=program.__name__)
        for program, why in FAULTY.items()
    ],
)
def test_faulty(program, pool):
    with quiet():
        with watch() as report:
            program(pool)
    assert report.verdict in FAULTS_FOUND, (report.summary, report.blind_spots)


@pytest.mark.parametrize("program", FAULTY, ids=lambda f: f.__name__)
def test_a_faulty_one_is_as_wrong_watched_as_unwatched(program, pool):
    with quiet():
        seed()
        alone, meant = program(pool)
        torch._dynamo.reset()
        seed()
        with watch():
            watched, _ = program(pool)
    assert not torch.allclose(alone, meant.detach())
    assert torch.equal(alone, watched)
