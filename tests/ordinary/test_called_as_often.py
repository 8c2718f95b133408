"""Functions of the program's that backward calls: as often as unwatched, where no write harms."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from jupyter_inplace import watch

# Graphs of other tests may be alive, with what was overwritten in them.
pytestmark = pytest.mark.usefixtures("own_record")

AGAIN = "the graph is walked once more for reference gradients, though no write harms"


class Counted(torch.autograd.Function):
    calls = 0

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        Counted.calls += 1
        return grad * 2


def gru():
    out, _ = nn.GRU(3, 3, batch_first=True)(torch.randn(2, 4, 3))
    return out


def masked_slots():
    mask = torch.zeros(4, 3, dtype=torch.bool)
    mask[1, 1:] = True
    return nn.Linear(3, 3)(torch.randn(4, 3))[mask]


def lstm_cell():
    h, _ = nn.LSTMCell(3, 3)(torch.randn(2, 3))
    return h


def in_place_relu():
    return nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Linear(3, 3))(torch.randn(2, 3))


@pytest.mark.parametrize(
    "before",
    [
        in_place_relu,
        pytest.param(lstm_cell, marks=pytest.mark.xfail(reason=AGAIN, strict=True)),
        pytest.param(gru, marks=pytest.mark.xfail(reason=AGAIN, strict=True)),
        pytest.param(masked_slots, marks=pytest.mark.xfail(reason=AGAIN, strict=True)),
    ],
)
def test_a_custom_backward(before):
    Counted.calls = 0
    with watch() as report:
        Counted.apply(before()).square().sum().backward()
    assert (report.verdict, Counted.calls) == ("harmless", 1)
    assert report.blind_spots == ()


@pytest.mark.xfail(reason=AGAIN, strict=True)
def test_a_checkpointed_function_beside_an_older_graph():
    def two_losses():
        encoder, head = nn.Linear(3, 4), nn.Linear(4, 1)
        optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()])
        loss = head(encoder(torch.randn(4, 3)).tanh()).mean()
        loss.backward(retain_graph=True)
        optimizer.step()
        return loss

    with watch() as report:
        older = two_losses()
    assert report.verdict == "harmless"
    block, calls = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Tanh()), []
    block[0].register_forward_pre_hook(lambda *_: calls.append(1))
    with watch() as report:
        checkpoint(block, torch.randn(4, 3), use_reentrant=False).square().mean().backward()
    assert (report.verdict, len(calls)) == ("harmless", 2)
    assert older.grad_fn is not None
