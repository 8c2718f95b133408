"""Running statistics that an eval forward saved and a train forward updates; no schema tells."""

from __future__ import annotations

import pytest
from cell_oracle import HEAD, Cell, check

CELLS = {
    "eval, then train, then the backward of eval": Cell(
        HEAD
        + """
bn=nn.BatchNorm1d(3); x=torch.randn(6,3)*3+1
bn.eval()
loss=bn(x).pow(3).mean()
bn.train()
bn(x)
loss.backward()
""",
        verdict="corrupts",
        line="bn(x)",
        tasks="loss:wrong",
        leaves="bn.weight",
    ),
    "two tasks through one encoder": Cell(
        HEAD
        + """
enc=nn.Sequential(nn.Conv2d(2,3,1),nn.BatchNorm2d(3)); x=torch.randn(4,2,3,3)*2
enc.eval()
loss_old=enc(x).pow(2).mean()
enc.train()
loss_new=enc(x).pow(2).mean()
(loss_old+loss_new).backward()
""",
        verdict="corrupts",
        line="loss_new=enc(x).pow(2).mean()",
        tasks="loss_old:wrong loss_new:ok",
        leaves="enc.0.weight enc.0.bias enc.1.weight",
    ),
    "the functional form": Cell(
        HEAD
        + """
w=torch.randn(5,3,requires_grad=True); mean=torch.zeros(3); var=torch.ones(3)
loss=F.batch_norm(w,mean,var).pow(2).sum()
F.batch_norm(torch.randn(5,3)*4,mean,var,training=True,momentum=.9)
loss.backward()
""",
        verdict="corrupts",
        line="F.batch_norm(torch.randn(5,3)*4,mean,var,training=True,momentum=.9)",
        tasks="loss:wrong",
        leaves="w",
    ),
    "harmless: instance norm repeats its statistics": Cell(
        HEAD
        + """
norm=nn.InstanceNorm1d(3,affine=True,track_running_stats=True); x=torch.randn(2,3,5)*3+1
norm.eval()
loss=norm(x).pow(3).mean()
norm.train()
norm(x)
loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: two train forwards, one backward": Cell(
        HEAD
        + """
net=nn.Sequential(nn.Linear(3,4),nn.BatchNorm1d(4),nn.ReLU(),nn.Linear(4,1))
a=net(torch.randn(5,3)).pow(2).mean()
b=net(torch.randn(5,3)).pow(2).mean()
(a+b).backward()
""",
        tasks="a:ok b:ok",
    ),
    "harmless: train, then eval for a metric, then the backward": Cell(
        HEAD
        + """
net=nn.Sequential(nn.Linear(3,4),nn.BatchNorm1d(4),nn.Linear(4,1)); x=torch.randn(5,3)
loss=net(x).pow(2).mean()
net.eval()
with torch.no_grad(): acc=net(x).mean()
net.train()
loss.backward()
""",
        tasks="loss:ok",
    ),
    "statistics whose memory a copy of the state asked for": Cell(
        HEAD
        + """
import copy
net=nn.Sequential(nn.Linear(3,4),nn.BatchNorm1d(4),nn.Tanh(),nn.Linear(4,1)); x=torch.randn(5,3)
best=copy.deepcopy(net.state_dict())
loss=net(x).pow(2).mean()
net.load_state_dict(best)
loss.backward()
""",
        verdict="breaks",
        line="net.load_state_dict(best)",
        tasks="loss:raises",
        leaves="net.0.weight net.0.bias net.1.weight net.1.bias net.3.weight net.3.bias",
    ),
    "harmless: a frozen eval forward used up before training goes on": Cell(
        HEAD
        + """
bn=nn.BatchNorm1d(3); x=torch.randn(6,3)
bn.eval()
loss=bn(x).pow(2).mean(); loss.backward()
bn.train()
loss2=bn(x).pow(2).mean(); loss2.backward()
""",
        tasks="loss:ok loss2:ok",
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_batch_norm(cells, name):
    check(cells, CELLS[name])
