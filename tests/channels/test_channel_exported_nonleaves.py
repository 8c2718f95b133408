"""Memory of activations that was handed out: whoever has it may change them, and no node knows."""

from __future__ import annotations

import pytest
from cell_oracle import HEAD, Cell, check

CELLS = {
    "an activation changed through numpy before the loss reads it": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
h=w*2
a=h.detach().numpy()
a[:]=a*3
loss=h.sum(); loss.backward()
""",
        verdict="cuts",
        line="a[:]=a*3",
        tasks="loss:wrong",
        leaves="w",
        probe=False,  # its rows have no reference numbers
        derivative=False,
    ),
    "harmless: only read": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
h=w*2
a=h.detach().numpy().mean()
loss=h.sum(); loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: written when the graph was used up": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
h=w*2
a=h.detach().numpy()
loss=h.sum(); loss.backward()
a[:]=0
""",
        tasks="loss:ok",
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_exported_nonleaves(cells, name):
    check(cells, CELLS[name])
