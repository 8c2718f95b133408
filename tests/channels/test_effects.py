"""What a write did that its verdict does not say is a field of its row, whatever the note says."""

from __future__ import annotations

import pytest
import torch

from jupyter_inplace import watch


def discards_gradient():
    w = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1)
    with watch() as report:
        h = w * w
        first, second = h.sum(), h.exp().sum()
        first.backward(retain_graph=True)
        optimizer.zero_grad()
        second.backward()
        optimizer.step()
    return report


def cuts_later_reads():
    w = torch.ones(3, requires_grad=True)
    with watch() as report:
        h = w.sigmoid()
        y = (h * h).sum()
        h.data.copy_((w * 3).detach())
        z = (h * 2).sum()
        (y + z).backward()
    return report


def overwrites_gradients():
    a, b = (torch.randn(3, requires_grad=True) for _ in range(2))
    with watch() as report:
        loss = (a + b).pow(2).sum()
        ga, gb = torch.autograd.grad(loss, (a, b))
        ga.mul_(0.5)
        step = (gb * 0.1).sum()
    return report


@pytest.mark.parametrize("program", [discards_gradient, cuts_later_reads, overwrites_gradients])
def test_the_effect_is_a_field(program):
    harmful = [m for m in program().mutations if m.verdict != "harmless"]
    assert [m.effects for m in harmful] == [(program.__name__,)]


def test_of_a_plain_write_there_is_none():
    w = torch.ones(3, requires_grad=True)
    with watch() as report:
        h = (w * 2).exp()
        h.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            h.sum().backward()
    assert [(m.verdict, m.effects) for m in report.mutations] == [("breaks", ())]
    assert "effects" not in report.to_dict()["mutations"][0]
