"""Programs whose saved or input tensors are overwritten where a watch does not reach, so that a gradient is wrong.

Never green: the write is named, or the verdict is `unknown`. Each gives the gradient that it got, and by the formula that of the loss it
computed; exp saves its result, a product both factors.
"""

from __future__ import annotations

import _thread
import os
import threading

import numpy as np
import pytest
import torch
from elsewhere import in_process, in_thread
from idioms.program import quiet, seed
from torch import nn
from torch.utils.data import DataLoader, Dataset

from jupyter_inplace import watch

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.usefixtures("own_compiled_code"),
]

FAULT_SAID = ("breaks", "corrupts", "cuts", "unknown")


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

    in_process(hogwild)
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
    assert report.verdict in FAULT_SAID, (report.summary, report.blind_spots)


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
