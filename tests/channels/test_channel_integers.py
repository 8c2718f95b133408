"""Labels, indices and masks that are written: they decide which gradients there are at all."""

from __future__ import annotations

import pytest
from cell_oracle import HEAD, Cell, check

CELLS = {
    "labels shifted after the loss saved them": Cell(
        HEAD
        + """
w=torch.randn(5,3,requires_grad=True); y=torch.tensor([0,1,2,0,1])
loss=F.cross_entropy(w*1,y)
y.data.add_(1).remainder_(3)
loss.backward()
""",
        verdict="corrupts",
        line="y.data.add_(1).remainder_(3)",
        tasks="loss:wrong",
        leaves="w",
    ),
    "harmless: labels made in place before the loss": Cell(
        HEAD
        + """
w=torch.randn(5,3,requires_grad=True); y=torch.tensor([0,1,2,0,4])
y.remainder_(3)
loss=F.cross_entropy(w*1,y); loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: a counter": Cell(
        HEAD
        + """
w=torch.randn(5,requires_grad=True); n=torch.zeros((),dtype=torch.long)
for i in range(3):
    n.add_(1)
    loss=w.exp().sum(); loss.backward()
""",
        tasks="loss:ok",
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_integers(cells, name):
    check(cells, CELLS[name])
