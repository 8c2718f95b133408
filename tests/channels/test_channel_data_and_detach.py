"""Writes that torch makes without dispatching anything: `.data =`, `detach_()`, `requires_grad_(False)`."""

from __future__ import annotations

import pytest
from cell_oracle import HEAD, Cell, check

CELLS = {
    "other values by .data =": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
h=w*2
h.data=h.data*3
loss=h.sum(); loss.backward()
""",
        verdict="cuts",
        line="h.data=h.data*3",
        tasks="loss:wrong",
        leaves="w",
        repair=(("h.data=h.data*3", "h=h*3"),),
    ),
    "a saved leaf gets other memory by .data =": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
loss=w.pow(2).sum()
w.data=torch.ones(4)
loss.backward()
""",
        verdict="corrupts",
        line="w.data=torch.ones(4)",
        tasks="loss:wrong",
        leaves="w",
    ),
    "harmless: a parameter is initialised by .data =": Cell(
        HEAD
        + """
net=nn.Linear(3,2)
net.weight.data=torch.zeros(2,3)
loss=net(torch.randn(4,3)).sum(); loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: frozen before anybody reads it": Cell(
        HEAD
        + """
net=nn.Sequential(nn.Linear(3,3),nn.Linear(3,1))
net[0].weight.requires_grad_(False); net[0].bias.requires_grad=False
loss=net(torch.randn(4,3)).sum(); loss.backward()
""",
        tasks="loss:ok",
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_data_and_detach(cells, name):
    check(cells, CELLS[name])
