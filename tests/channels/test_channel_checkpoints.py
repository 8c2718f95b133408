"""Checkpointed regions that recompute on other values than their forward read."""

from __future__ import annotations

import pytest
from cell_oracle import HEAD, Cell, check

CELLS = {
    "a buffer scaled between two tasks": Cell(
        HEAD
        + """
from torch.utils.checkpoint import checkpoint
class Blk(nn.Module):
    def __init__(self):
        super().__init__(); self.lin=nn.Linear(3,4); self.register_buffer("scale",torch.ones(()))
    def forward(self,x): return torch.tanh(self.lin(x))*self.scale
b=Blk(); x=torch.randn(5,3)
l1=checkpoint(b,x,use_reentrant=False).pow(2).mean()
b.scale.mul_(0.5)
l2=b(x).pow(2).mean()
(l1+l2).backward()
""",
        verdict="corrupts",
        line="b.scale.mul_(0.5)",
        tasks="l1:wrong l2:ok",
        leaves="b.lin.bias b.lin.weight",
        repair=(("b.scale.mul_(0.5)", "b.scale=b.scale*0.5"), ("checkpoint(b,x,use_reentrant=False)", "b(x)")),
    ),
    "an optimizer's step between two tasks": Cell(
        HEAD
        + """
from torch.utils.checkpoint import checkpoint
net=nn.Linear(3,3); head=nn.Linear(3,1)
opt=torch.optim.SGD(net.parameters(),lr=.5)
x=torch.randn(4,3)
l2=net(x).pow(2).mean()
h=checkpoint(lambda t: torch.tanh(net(t)), x, use_reentrant=False)
l1=head(h).sum()
l2.backward()
opt.step()
l1.backward()
""",
        verdict="corrupts",
        line="opt.step()",
        tasks="l1:wrong l2:ok",
        leaves="net.bias net.weight",
        repair=(("checkpoint(lambda t: torch.tanh(net(t)), x, use_reentrant=False)", "torch.tanh(net(x))"),),
    ),
    "the region's input": Cell(
        HEAD
        + """
from torch.utils.checkpoint import checkpoint
lin=nn.Linear(3,4); x=torch.randn(5,3)
l1=checkpoint(lambda t: torch.tanh(lin(t)),x,use_reentrant=False).pow(2).mean()
x.add_(1)
l1.backward()
""",
        verdict="breaks",
        line="x.add_(1)",
        tasks="l1:raises",
        leaves="lin.bias lin.weight",
    ),
    "harmless: dropout": Cell(
        HEAD
        + """
from torch.utils.checkpoint import checkpoint
blk=nn.Sequential(nn.Linear(3,4),nn.Dropout(.5),nn.ReLU(),nn.Linear(4,1))
x=torch.randn(5,3)
loss=checkpoint(blk,x,use_reentrant=False).pow(2).mean(); loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: batch norm counts twice": Cell(
        HEAD
        + """
from torch.utils.checkpoint import checkpoint
blk=nn.Sequential(nn.Linear(3,4),nn.BatchNorm1d(4),nn.ReLU(),nn.Linear(4,1)); opt=torch.optim.SGD(blk.parameters(),lr=.1)
for i in range(2):
    x=torch.randn(5,3)
    loss=checkpoint(blk,x,use_reentrant=False).pow(2).mean(); opt.zero_grad(); loss.backward(); opt.step()
""",
        tasks="loss:ok",
    ),
    "harmless: a loop, re-entrant": Cell(
        HEAD
        + """
from torch.utils.checkpoint import checkpoint
blk=nn.Sequential(nn.Linear(3,4),nn.ReLU(),nn.Linear(4,1)); opt=torch.optim.SGD(blk.parameters(),lr=.1)
for i in range(2):
    x=torch.randn(5,3,requires_grad=True)
    loss=checkpoint(blk,x,use_reentrant=True).pow(2).mean(); opt.zero_grad(); loss.backward(); opt.step()
""",
        tasks="loss:ok",
        probe=False,  # torch.autograd.grad refuses re-entrant regions
    ),
    "harmless: in segments": Cell(
        HEAD
        + """
from torch.utils.checkpoint import checkpoint_sequential
blk=nn.Sequential(nn.Linear(3,4),nn.ReLU(),nn.Linear(4,4),nn.ReLU(inplace=True),nn.Linear(4,1)); opt=torch.optim.Adam(blk.parameters(),lr=.1)
for i in range(2):
    x=torch.randn(5,3)
    loss=checkpoint_sequential(blk,2,x,use_reentrant=False).pow(2).mean(); opt.zero_grad(); loss.backward(); opt.step()
""",
        tasks="loss:ok",
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_checkpoint(cells, name):
    check(cells, CELLS[name])
