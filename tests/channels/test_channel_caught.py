"""Writes that torch refuses, and whose error the program catches: nothing was written, and what runs has the gradients of what ran."""

from __future__ import annotations

import pytest
from cell_oracle import HEAD, Cell, check

CELLS = {
    "harmless: swallowed": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
try:
    w.add_(1)
except RuntimeError:
    pass
loss=w.exp().sum(); loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: another way is tried": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True); h=torch.randn(1,4).expand(3,4)
try:
    h+=w
except RuntimeError:
    h=h+w
loss=h.exp().sum(); loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: suppressed between two tasks": Cell(
        HEAD
        + """
import contextlib
enc=nn.Linear(3,4); x=torch.randn(5,3)
loss_a=enc(x).pow(2).mean()
with contextlib.suppress(RuntimeError):
    enc.weight.mul_(.5)
loss_b=enc(x).exp().mean()
(loss_a+loss_b).backward()
""",
        tasks="loss_a:ok loss_b:ok",
    ),
    "harmless: a test of the refusal": Cell(
        HEAD
        + """
import pytest
w=torch.randn(4,requires_grad=True); parts=(w*2).unbind()
with pytest.raises(RuntimeError, match="leaf Variable"):
    w.zero_()
with pytest.raises(RuntimeError, match="multiple views"):
    parts[0].mul_(2)
loss=torch.stack(parts).pow(2).sum(); loss.backward()
""",
        tasks="loss:ok",
    ),
    "caught, and followed by one that is not": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
try:
    w.add_(1)
except RuntimeError:
    pass
h=w.exp(); loss=h.sum()
h.mul_(2)
loss.backward()
""",
        verdict="breaks",
        line="h.mul_(2)",
        tasks="loss:raises",
        leaves="w",
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_caught(cells, name):
    check(cells, CELLS[name])
