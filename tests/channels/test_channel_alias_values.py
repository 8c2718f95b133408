"""Values worked out from a non-leaf through an alias that autograd does not connect, and written back over it."""

from __future__ import annotations

import pytest
from cell_oracle import HEAD, Cell, check

CELLS = {
    "scaled by its own norm": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
h=w*2
h.data.copy_(h.data/h.data.norm())
loss=(h*torch.arange(4.)).sum(); loss.backward()
""",
        verdict="cuts",
        line="h.data.copy_(h.data/h.data.norm())",
        tasks="loss:wrong",
        leaves="w",
        repair=(("h.data.copy_(h.data/h.data.norm())", "h=h/h.norm()"),),
    ),
    "harmless: rounded, straight through": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
h=w*2
h.data.copy_(h.data.round())
loss=(h*torch.arange(4.)).sum(); loss.backward()
""",
        tasks="loss:ok",
        derivative=False,
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_alias_values(cells, name):
    check(cells, CELLS[name])
