"""Deep graphs are freed as ever, though a watch has seen their nodes. A stack that is full ends the process: each has its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from jupyter_inplace import watch
from jupyter_inplace.record.base import deep_graphs

START = """
import gc, sys, weakref
import torch
from jupyter_inplace import watch
from jupyter_inplace.record.base import deep_graphs

def grow(h, nodes=60_000):
    for _ in range(nodes // 2):
        h = (h * 1.0).abs()
    return h

w = torch.ones(4, requires_grad=True)
"""

PROGRAMS = {
    "inside of the watch": """
with watch() as report:
    loss = grow(w).sum()
    loss.backward()
    del loss
""",
    "after the watch": """
with watch() as report:
    h = grow(w)
    loss = h.sum()
    loss.backward()
del loss
del h
""",
    "never differentiated": """
with watch() as report:
    for _ in range(3):
        h = grow(w, 60_000)
h = None
""",
    "beside small ones": """
with watch() as report:
    h = w
    for _ in range(100):
        h = grow(h, 1000)
        (w * w).sum().backward()
    del h
""",
    "differentiated twice": """
with watch() as report:
    h = grow(w)
    for _ in range(2):
        h.sum().backward(retain_graph=True)
    h = None
""",
    "with a write that does harm": """
with watch(verify=False) as report:
    first = w.exp()
    loss = grow(first).sum()
    first.data.mul_(2)
    loss.backward()
    del loss
    del first
assert report.verdict == "corrupts"
""",
    "with a custom Function in it": """
class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx, g):
        ctx.saved_tensors
        return g * 2

with watch() as report:
    loss = grow(Double.apply(grow(w, 30_000)), 30_000).sum()
    loss.backward()
    del loss
""",
    "in two that are in each other's way": """
with watch() as report:
    a, b = w, w
    for _ in range(30_000):
        a, b = (a * 1.0).abs(), (b * 1.0).abs()
    del a
    del b
""",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_deep_graph_is_freed(program):
    end = "gc.collect(); assert not deep_graphs._held; print('freed')"
    source = f"{START}\n{PROGRAMS[program]}\nassert 'failed' not in str(report.blind_spots)\n{end}"
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "freed\n"), ran.stderr[-2000:]


def test_the_tensors_of_one_that_is_dropped_go_with_the_next_operations():
    source = f"""{START}
with watch():
    saved = []
    h = w
    for _ in range(5000):
        h = (h * 1.0).abs()
        saved.append(weakref.ref(h))
    gc.disable()
    del h
    assert not any(ref() is not None for ref in saved)  # the program's own objects
    assert deep_graphs._held or not deep_graphs._alone  # a torch whose nodes let their Python objects go needs none held
    w.exp()
    assert not deep_graphs._held
"""
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]


def test_a_first_watch_in_inference_mode_leaves_it_open():
    source = f"""{START}
with torch.inference_mode(), watch():
    pass
with watch():
    loss = grow(w).sum()
    loss.backward()
    del loss
"""
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]


@pytest.mark.usefixtures("own_record")  # what lives of the watches before could grow: then each node is counted
def test_of_ordinary_graphs_nothing_is_held(monkeypatch):
    held = []
    monkeypatch.setattr(deep_graphs, "hold", held.extend)
    net = nn.Sequential(*[layer for _ in range(6) for layer in (nn.Linear(8, 8), nn.ReLU())])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with watch():
        for _ in range(400):
            optimizer.zero_grad()
            net(torch.rand(4, 8)).sum().backward()
            optimizer.step()
    assert held == []
