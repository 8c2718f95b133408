"""Writes that torch dispatches and does not count: fused optimizers, `_unsafe_preserve_version_counter`."""

from __future__ import annotations

import pytest
from cell_oracle import HEAD, Cell, check

TWO_TASKS = """
enc=nn.Linear(3,4); head=nn.Linear(4,2); x=torch.randn(5,3)
opt=torch.optim.{name}([*enc.parameters(),*head.parameters()],lr=.5,fused=True)
out=head(torch.tanh(enc(x)))
loss_a=out[:,0].pow(2).mean(); loss_b=out[:,1].exp().mean()+out[:,0].mean()
loss_a.backward(retain_graph=True)
opt.step()
loss_b.backward()
"""


def _optimizer(name: str) -> Cell:
    return Cell(
        HEAD + TWO_TASKS.format(name=name),
        verdict="corrupts",
        line="opt.step()",
        tasks="loss_a:ok loss_b:wrong",
        leaves="enc.weight enc.bias",
    )


CELLS = {
    **{f"a fused {name} steps between two backwards": _optimizer(name) for name in ("SGD", "Adam", "AdamW", "Adagrad")},
    "a preserved counter, two tasks": Cell(
        HEAD
        + """
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
w=torch.randn(4,requires_grad=True); scale=torch.rand(4)
loss_a=(w*scale).sum()
with _unsafe_preserve_version_counter(scale):
    scale.mul_(3)
loss_b=(w*scale).pow(2).sum()
(loss_a+loss_b).backward()
""",
        verdict="corrupts",
        line="scale.mul_(3)",
        tasks="loss_a:wrong loss_b:ok",
        leaves="w",
    ),
    "a preserved counter on what sigmoid saved": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
h=torch.sigmoid(w)
loss=h.sum()
with torch.autograd._unsafe_preserve_version_counter(h), torch.no_grad():
    h.zero_()
loss.backward()
""",
        verdict="corrupts",
        line="h.zero_()",
        saved="SigmoidBackward0 @ h=torch.sigmoid(w)",
        tasks="loss:lost",
        leaves="w",
    ),
    "harmless: a fused optimizer in an ordinary loop": Cell(
        HEAD
        + """
net=nn.Sequential(nn.Linear(3,4),nn.Tanh(),nn.Linear(4,1)); opt=torch.optim.AdamW(net.parameters(),lr=.1,fused=True)
for i in range(3):
    loss=net(torch.randn(5,3)).pow(2).mean(); opt.zero_grad(); loss.backward(); opt.step()
""",
        tasks="loss:ok",
    ),
    "harmless: buffers synchronised under a preserved counter": Cell(
        HEAD
        + """
net=nn.Sequential(nn.Linear(3,4),nn.BatchNorm1d(4),nn.Linear(4,1)); opt=torch.optim.SGD(net.parameters(),lr=.1)
for i in range(2):
    loss=net(torch.randn(5,3)).pow(2).mean()
    with torch.autograd._unsafe_preserve_version_counter(tuple(net.buffers())), torch.no_grad():
        for b in net.buffers(): b.copy_(b.clone())
    opt.zero_grad(); loss.backward(); opt.step()
""",
        tasks="loss:ok",
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_unversioned(cells, name):
    check(cells, CELLS[name])
