"""Writes to a non-leaf that autograd did not record, and that is read again."""

from __future__ import annotations

import pytest
from cell_oracle import HEAD, Cell, check

CELLS = {
    "scaled under no_grad": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
h=w*2
with torch.no_grad(): h.mul_(3)
loss=h.sum(); loss.backward()
""",
        verdict="cuts",
        line="with torch.no_grad(): h.mul_(3)",
        tasks="loss:wrong",
        leaves="w",
        repair=(("with torch.no_grad(): h.mul_(3)", "h=h*3"),),
    ),
    "read before by one task and after by the other": Cell(
        HEAD
        + """
enc=nn.Linear(3,4); x=torch.randn(5,3)
h=enc(x)
loss_a=h.sum()
h.data.mul_(.1)
loss_b=h.sum()
(loss_a+loss_b).backward()
""",
        verdict="cuts",
        line="h.data.mul_(.1)",
        tasks="loss_a:ok loss_b:wrong",
        leaves="enc.weight enc.bias",
        repair=(("h.data.mul_(.1)", "h=h*.1"),),
    ),
    "through a detached alias": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True); m=torch.tensor([1.,0.,1.,0.])
h=w.exp()+0
h.detach()[1:3]*=0
loss=(h*torch.arange(4.)).sum(); loss.backward()
""",
        verdict="cuts",
        line="h.detach()[1:3]*=0",
        tasks="loss:wrong",
        leaves="w",
        repair=(("h.detach()[1:3]*=0", "h=h*torch.tensor([1.,0,0,1])"),),
    ),
    "a piece of unsafe_chunk": Cell(
        HEAD
        + """
w=torch.randn(6,requires_grad=True)
h=w*1
a,b=h.unsafe_chunk(2)
a.mul_(5)
loss=h.sum()+b.sum(); loss.backward()
""",
        verdict="cuts",
        line="a.mul_(5)",
        tasks="loss:wrong",
        leaves="w",
        repair=(("a,b=h.unsafe_chunk(2)\na.mul_(5)", "a,b=h.chunk(2)\nh=torch.cat([a*5,b])"),),
    ),
    "another parameter put in": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True); v=torch.randn(4,requires_grad=True)
h=w*2
with torch.no_grad(): h.add_(v)
loss=h.sum(); loss.backward()
""",
        verdict="cuts",
        line="with torch.no_grad(): h.add_(v)",
        tasks="loss:lost",
        leaves="v",
        repair=(("with torch.no_grad(): h.add_(v)", "h=h+v"),),
    ),
    "other memory, worked out of its own": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
h=w*2
h.data=h.data*0.5
loss=h.exp().sum(); loss.backward()
""",
        verdict="cuts",
        line="h.data=h.data*0.5",
        tasks="loss:wrong",
        leaves="w",
        repair=(("h.data=h.data*0.5", "h=h*0.5"),),
    ),
    "normalised in several steps": Cell(
        HEAD
        + """
enc=nn.Linear(3,4); x=torch.randn(5,3)
h=enc(x)
with torch.no_grad():
    size=(h.data*h.data).sum(1,keepdim=True).sqrt()
    h.copy_(h.data/(size+1))
loss=h.exp().mean(); loss.backward()
""",
        verdict="cuts",
        line="h.copy_(h.data/(size+1))",
        tasks="loss:wrong",
        leaves="enc.weight enc.bias",
        repair=(
            ("with torch.no_grad():\n", "if True:\n"),
            ("h.copy_(h.data/(size+1))", "h=h/(size+1)"),
            ("h.data*h.data", "h*h"),
        ),
    ),
    "harmless: rounded, and straight through": Cell(
        HEAD
        + """
enc=nn.Linear(3,4); dec=nn.Linear(4,1)
q=enc(torch.randn(5,3))
q.data.copy_(q.data.round())
p=enc(torch.randn(5,3))
p.data=(p.data>0).float()
r=enc(torch.randn(5,3))
r.data.sign_()
s=enc(torch.randn(5,3))
s.data.copy_(torch.round(s.detach()*4)/4)
loss=(dec(q)+dec(p)+dec(r)+dec(s)).pow(2).mean(); loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: the mask changes nothing": Cell(
        HEAD
        + """
w=torch.rand(4,requires_grad=True)
h=w*2
with torch.no_grad(): h.mul_(torch.ones(4))
loss=h.sum(); loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: a number worked out under no_grad put in": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True); v=torch.randn(4,requires_grad=True)
h=w*2
with torch.no_grad(): h.add_(v*3)
loss=h.sum(); loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: nobody reads it again": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
h=w*2
loss=h.sum()
with torch.no_grad(): h.zero_()
loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: a parameter is updated": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
for i in range(3):
    loss=w.pow(2).sum(); loss.backward()
    with torch.no_grad():
        w-=.1*w.grad; w.grad=None
""",
        tasks="loss:ok",
    ),
    "harmless: straight through": Cell(
        HEAD
        + """
enc=nn.Linear(3,4); dec=nn.Linear(4,1)
h=enc(torch.randn(5,3))
q=h+(h.round()-h).detach()
loss=dec(q).pow(2).mean(); loss.backward()
""",
        tasks="loss:ok",
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_unrecorded(cells, name):
    check(cells, CELLS[name])
