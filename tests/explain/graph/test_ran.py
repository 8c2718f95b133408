"""Scalars inside of a retained graph that has run are no losses that still wait for their backward."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jupyter_inplace import watch


def training():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    return net, torch.optim.SGD(net.parameters(), lr=0.1)


def halved(loss):
    half = loss / 2
    return loss, half, half


def unnamed(loss):
    return loss, None, loss * 0.5 + 1


def chained(loss):
    scaled = loss * 3
    shifted = scaled - 1
    return loss, scaled, shifted.square()


@pytest.mark.parametrize("form", [halved, unnamed, chained])
@pytest.mark.parametrize("steps", [1, 2, 6])
# Names hold the scalars: `loss` and `between` are alive when the watch ends.
@pytest.mark.parametrize("retain", [False, True])
def test_a_scalar_on_the_way_to_a_root_that_ran(form, steps, retain):
    net, optimizer = training()
    with watch() as report:
        for _ in range(steps):
            optimizer.zero_grad()
            loss, between, root = form(net(torch.randn(6, 4)).mean())
            root.backward(retain_graph=retain)
            optimizer.step()
    assert report.verdict == "harmless"


@pytest.mark.parametrize("steps", [1, 6])
def test_a_sum_of_two_whose_addends_live_on(steps):
    net, optimizer = training()
    with watch() as report:
        for _ in range(steps):
            optimizer.zero_grad()
            first, second = net(torch.randn(6, 4)).mean(), net(torch.randn(6, 4)).square().mean()
            loss = (first + second) / 2
            loss.backward(retain_graph=True)
            optimizer.step()
    assert report.verdict == "harmless"


def test_another_loss_over_the_same_graph_still_waits():
    net, optimizer = training()
    with watch() as report:
        out = net(torch.randn(6, 4))
        first, second = out.mean(), out.square().mean()
        first.backward(retain_graph=True)
        optimizer.step()
    assert report.verdict == "breaks"
    assert [m.pending for m in report.mutations if m.verdict == "breaks"] == [True]
    assert {task.name: task.status for task in report.tasks} == {"first": "ok", "second": "raises"}
