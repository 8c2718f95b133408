"""What can be checked around compiled regions, and that the rest is said."""

from __future__ import annotations

import pytest
from cell_oracle import HEAD, Cell, check, watched

CELLS = {
    "an input overwritten after the region": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True); x=torch.rand(4)
f=torch.compile(lambda w,x: (w*x).sum(),backend="aot_eager")
loss=f(w,x)
x.data.mul_(3)
loss.backward()
""",
        verdict="corrupts",
        line="x.data.mul_(3)",
        tasks="loss:wrong",
        leaves="w",
    ),
    "two tasks, one of them compiled": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True); x=torch.rand(4)
f=torch.compile(lambda w,x: (w*x).sum(),backend="aot_eager")
loss_a=f(w,x)
loss_b=w.pow(2).sum()
x.data.zero_()
(loss_a+loss_b).backward()
""",
        verdict="corrupts",
        line="x.data.zero_()",
        tasks="loss_a:lost loss_b:ok",
        leaves="w",
    ),
    "torch refuses it": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True); x=torch.rand(4)
f=torch.compile(lambda w,x: (w*x).sum(),backend="aot_eager")
loss=f(w,x)
x.mul_(3)
loss.backward()
""",
        verdict="breaks",
        line="x.mul_(3)",
        tasks="loss:raises",
        leaves="w",
    ),
    "harmless: an ordinary loop": Cell(
        HEAD
        + """
net=nn.Sequential(nn.Linear(3,4),nn.ReLU(inplace=True),nn.Linear(4,1)); opt=torch.optim.SGD(net.parameters(),lr=.1)
f=torch.compile(net,backend="aot_eager")
for i in range(2):
    loss=f(torch.randn(4,3)).pow(2).mean(); opt.zero_grad(); loss.backward(); opt.step()
""",
        tasks="loss:ok",
        probe=False,  # a compiled backward runs once only
    ),
    "harmless: an input overwritten after the backward": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True); x=torch.rand(4)
f=torch.compile(lambda w,x: (w*x).sum(),backend="aot_eager")
loss=f(w,x); loss.backward()
x.mul_(3)
""",
        tasks="loss:ok",
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_compiled(cells, name):
    check(cells, CELLS[name])


def test_compiled_regions_are_a_blind_spot_that_is_said(cells):
    report = watched(cells, CELLS["harmless: an ordinary loop"].source)
    assert any("compile" in note for note in report["blind_spots"]), report["blind_spots"]
