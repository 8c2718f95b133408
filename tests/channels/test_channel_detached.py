"""Channel 9: `detach_`, `requires_grad_` and orders of `zero_grad` that silently lose a task's gradient."""

from __future__ import annotations

import pytest
from cell_oracle import HEAD, Cell, check

CELLS = {
    "detach_ between two reads of one root": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
h=w*3
a=h.sum()
h.detach_()
loss=a+h.pow(2).sum()
loss.backward()
""",
        verdict="cuts",
        line="h.detach_()",
        tasks="loss:wrong",
        leaves="w",
        probe=False,  # what was meant is not known: nothing of the second read is in the graph
        derivative=False,
    ),
    "two tasks, one of which is cut off": Cell(
        HEAD
        + """
enc=nn.Linear(3,4); hb=nn.Linear(4,1); x=torch.randn(5,3)
h=enc(x)
loss_a=h.mean()
h.detach_()
loss_b=hb(h).pow(2).mean()
(loss_a+loss_b).backward()
""",
        verdict="cuts",
        line="h.detach_()",
        tasks="loss_a:ok loss_b:lost",
        leaves="enc.weight enc.bias",
        probe=False,
        derivative=False,
    ),
    "a leaf frozen between two reads of one root": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True); v=torch.randn(4,requires_grad=True)
a=(w*2).sum()
w.requires_grad_(False)
b=(w.pow(2)*v).sum()
w.requires_grad_(True)
loss=a+b
loss.backward()
""",
        verdict="cuts",
        line="w.requires_grad_(False)",
        tasks="a:ok b:lost",
        leaves="w",
        probe=False,
        derivative=False,
    ),
    "a leaf frozen by assignment between two reads": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True); v=torch.randn(4,requires_grad=True)
a=(w*2).sum()
w.requires_grad=False
b=(w.pow(2)*v).sum()
w.requires_grad=True
(a+b).backward()
""",
        verdict="cuts",
        line="w.requires_grad=False",
        tasks="a:ok b:lost",
        leaves="w",
        probe=False,
        derivative=False,
    ),
    "parameters frozen by assignment in a function": Cell(
        HEAD
        + """
enc=nn.Linear(3,4); head_a=nn.Linear(4,1); head_b=nn.Linear(4,1); x=torch.randn(5,3)
def freeze(module, on):
    for p in module.parameters():
        p.requires_grad = on
loss_a=head_a(enc(x)).pow(2).mean()
freeze(enc,False)
loss_b=head_b(enc(x)).pow(2).mean()
freeze(enc,True)
(loss_a+loss_b).backward()
""",
        verdict="cuts",
        line="p.requires_grad = on",
        tasks="loss_a:ok loss_b:lost",
        leaves="enc.weight enc.bias",
        probe=False,
        derivative=False,
    ),
    "a module frozen by its own method": Cell(
        HEAD
        + """
enc=nn.Linear(3,4,bias=False); head=nn.Linear(4,1); x=torch.randn(5,3)
loss_a=enc(x).pow(2).mean()
enc.requires_grad_(False)
loss_b=head(enc(x)).mean()
(loss_a+loss_b).backward()
""",
        verdict="cuts",
        line="enc.requires_grad_(False)",
        tasks="loss_a:ok loss_b:lost",
        leaves="enc.weight",
        probe=False,
        derivative=False,
    ),
    "harmless: frozen by assignment before anything reads it": Cell(
        HEAD
        + """
enc=nn.Linear(3,4); head=nn.Linear(4,1); x=torch.randn(5,3)
opt=torch.optim.SGD(head.parameters(),lr=.1)
for p in enc.parameters(): p.requires_grad=False
for i in range(2):
    opt.zero_grad(); loss=head(enc(x)).pow(2).mean(); loss.backward(); opt.step()
for p in enc.parameters(): p.requires_grad=True
""",
        tasks="loss:ok",
    ),
    "harmless: a discriminator frozen by assignment for the generator's turn": Cell(
        HEAD
        + """
g=nn.Linear(2,3); d=nn.Linear(3,1); og=torch.optim.SGD(g.parameters(),lr=.1); od=torch.optim.SGD(d.parameters(),lr=.1)
def learn(net, flag):
    for p in net.parameters(): p.requires_grad=flag
for i in range(2):
    learn(d,True)
    fake=g(torch.randn(4,2))
    loss_d=d(torch.randn(4,3)).mean()-d(fake.detach()).mean()
    od.zero_grad(); loss_d.backward(); od.step()
    learn(d,False)
    loss_g=d(fake).mean()
    og.zero_grad(); loss_g.backward(); og.step()
""",
        tasks="loss_d:ok loss_g:ok",
    ),
    "what is read afterwards makes no node": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True); v=torch.ones(4,requires_grad=True)
h=w.exp()
loss_a=(h+v).sum()
h.detach_()
loss_b=(h.cos()*2+v).sum()
(loss_a+loss_b).backward()
""",
        verdict="cuts",
        line="h.detach_()",
        tasks="loss_a:ok loss_b:lost",
        leaves="w",
        probe=False,
        derivative=False,
    ),
    "harmless: detached for a metric, and not read by the loss again": Cell(
        HEAD
        + """
net=nn.Linear(3,1); x=torch.randn(4,3)
out=net(x); loss=out.mean()
out.detach_()
best=out.max(); total=best+out.sum()
loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: truncated backpropagation through time": Cell(
        HEAD
        + """
cell=nn.GRUCell(3,4); head=nn.Linear(4,1); opt=torch.optim.SGD([*cell.parameters(),*head.parameters()],lr=.1)
h=torch.zeros(2,4)
for t in range(4):
    h=cell(torch.randn(2,3),h)
    loss=head(h).pow(2).mean()
    opt.zero_grad(); loss.backward(); opt.step()
    h.detach_()
""",
        tasks="loss:ok",
    ),
    "harmless: a window of several steps": Cell(
        HEAD
        + """
cell=nn.RNNCell(3,4); opt=torch.optim.SGD(cell.parameters(),lr=.1); h=torch.zeros(2,4)
for window in range(2):
    h.detach_()
    loss=0.
    for t in range(3):
        h=cell(torch.randn(2,3),h); loss=loss+h.pow(2).mean()
    opt.zero_grad(); loss.backward(); opt.step()
""",
        tasks="loss:ok",
    ),
    "harmless: the discriminator frozen for the generator": Cell(
        HEAD
        + """
g=nn.Linear(2,3); d=nn.Linear(3,1); og=torch.optim.SGD(g.parameters(),lr=.1); od=torch.optim.SGD(d.parameters(),lr=.1)
for i in range(2):
    d.requires_grad_(True)
    fake=g(torch.randn(4,2))
    loss_d=d(torch.randn(4,3)).mean()-d(fake.detach()).mean()
    od.zero_grad(); loss_d.backward(); od.step()
    d.requires_grad_(False)
    loss_g=d(fake).mean()
    og.zero_grad(); loss_g.backward(); og.step()
""",
        tasks="loss_d:ok loss_g:ok",
    ),
    "harmless: a frozen encoder": Cell(
        HEAD
        + """
enc=nn.Linear(3,4); lora=nn.Linear(3,4,bias=False); head=nn.Linear(4,1); x=torch.randn(5,3)
enc.requires_grad_(False)
loss=head(enc(x)+lora(x)).pow(2).mean(); loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: a gradient used before it is cleared": Cell(
        HEAD
        + """
net=nn.Linear(3,1); opt=torch.optim.SGD(net.parameters(),lr=.1); x=torch.randn(4,3)
loss_a=net(x).pow(2).mean(); loss_a.backward()
norm_a=net.weight.grad.norm()
opt.zero_grad()
loss_b=net(x).exp().mean(); loss_b.backward(); opt.step()
""",
        tasks="loss_a:ok loss_b:ok",
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_severed(cells, name):
    check(cells, CELLS[name])
