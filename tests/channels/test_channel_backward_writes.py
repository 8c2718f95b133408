"""Hooks that change in place a gradient which somebody else is still to get."""

from __future__ import annotations

import pytest
import torch
from cell_oracle import HEAD, Cell, check

from jupyter_inplace import watch

CELLS = {
    "the other branch of a sum": Cell(
        HEAD
        + """
a=nn.Linear(3,2,bias=False); b=nn.Linear(3,2,bias=False); x=torch.randn(4,3)
u=a(x); v=b(x)
v.register_hook(lambda g: g.mul_(.1))
loss=((u+v)**2).sum()
loss.backward()
""",
        verdict="corrupts",
        line="v.register_hook(lambda g: g.mul_(.1))",
        tasks="loss:wrong",
        leaves="a.weight",
        repair=(("g.mul_(.1)", "g.mul(.1)"),),
    ),
    "two tasks, a skip connection": Cell(
        HEAD
        + """
enc=nn.Linear(3,3); blk=nn.Linear(3,3); ha=nn.Linear(3,1); hb=nn.Linear(3,1); x=torch.randn(4,3)
h=enc(x)
r=blk(h)
r.register_hook(lambda g: g.mul_(.1))
loss_a=(ha(h+r)**2).sum()
loss_b=hb(torch.tanh(h.detach())).abs().sum()
(loss_a+loss_b).backward()
""",
        verdict="corrupts",
        line="r.register_hook(lambda g: g.mul_(.1))",
        tasks="loss_a:wrong loss_b:ok",
        leaves="enc.weight enc.bias",
        repair=(("g.mul_(.1)", "g.mul(.1)"),),
        derivative=False,  # the hook scales its own branch, as meant
    ),
    "a leaf's hook, and another leaf": Cell(
        HEAD
        + """
a=torch.randn(3,requires_grad=True); b=torch.randn(3,requires_grad=True)
a.register_hook(lambda g: g.mul_(0))
loss=((a+b)**2).sum()
loss.backward()
""",
        verdict="corrupts",
        line="a.register_hook(lambda g: g.mul_(0))",
        tasks="loss:lost",
        leaves="b",
        repair=(("g.mul_(0)", "g.mul(0)"),),
    ),
    "one hook on both leaves": Cell(
        HEAD
        + """
a=torch.randn(3,requires_grad=True); b=torch.randn(3,requires_grad=True)
for p in (a,b): p.register_hook(lambda g: g.mul_(.5))
loss=((a+b)**2).sum()
loss.backward()
""",
        verdict="corrupts",
        line="for p in (a,b): p.register_hook(lambda g: g.mul_(.5))",
        tasks="loss:wrong",
        leaves="b",
        derivative=False,  # each leaf's own hook counts
        probe=False,  # autograd.grad hands out what it gave the hook: there a would be hit too
    ),
    "a hook on the node": Cell(
        HEAD
        + """
a=nn.Linear(3,2,bias=False); b=nn.Linear(3,2,bias=False); x=torch.randn(4,3)
u=a(x); v=b(x)
s=u+v
def scale(go): go[0].mul_(.1)
v.grad_fn.register_prehook(scale)
loss=(s*s).sum()
loss.backward()
""",
        verdict="corrupts",
        line="def scale(go): go[0].mul_(.1)",
        tasks="loss:wrong",
        leaves="a.weight",
        repair=(("go[0].mul_(.1)", "return (go[0].mul(.1),)"),),
    ),
    "a module's hook holds on to what came in": Cell(
        HEAD
        + """
l1=nn.Linear(3,3); l2=nn.Linear(3,3); x=torch.randn(4,3)
h=l1(x)
def scale(m,gi,go): go[0].mul_(.1)
l2.register_full_backward_hook(scale)
out=h+l2(h)
loss=(out**2).sum()
loss.backward()
""",
        verdict="corrupts",
        line="def scale(m,gi,go): go[0].mul_(.1)",
        tasks="loss:wrong",
        leaves="l1.weight l1.bias",
        repair=(("go[0].mul_(.1)", "go[0].mul(.1)"),),
    ),
    "harmless: a copy is scaled": Cell(
        HEAD
        + """
a=nn.Linear(3,2,bias=False); b=nn.Linear(3,2,bias=False); x=torch.randn(4,3)
u=a(x); v=b(x)
v.register_hook(lambda g: g.clone().mul_(.1))
loss=((u+v)**2).sum()
loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: nobody else waits for it": Cell(
        HEAD
        + """
l1=nn.Linear(3,3); l2=nn.Linear(3,3); x=torch.randn(4,3)
h=l1(x)
h.register_hook(lambda g: g.mul_(.1))
out=h+l2(h)
loss=(out**2).sum()
loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: gradients clipped by hooks on the parameters": Cell(
        HEAD
        + """
lstm=nn.LSTM(3,4); opt=torch.optim.SGD(lstm.parameters(),lr=.1)
for p in lstm.parameters(): p.register_hook(lambda g: g.clamp_(-1,1))
for i in range(2):
    out,_=lstm(torch.randn(5,2,3)); loss=out.pow(2).mean(); opt.zero_grad(); loss.backward(); opt.step()
""",
        tasks="loss:ok",
    ),
    "harmless: the accumulated gradient is torch's copy": Cell(
        HEAD
        + """
a=torch.randn(3,requires_grad=True); b=torch.randn(3,requires_grad=True)
def halve(p): p.grad.mul_(.5)
a.register_post_accumulate_grad_hook(halve)
loss=((a+b)**2).sum()
loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: the optimizer steps in a hook": Cell(
        HEAD
        + """
net=nn.Sequential(nn.Linear(3,4),nn.ReLU(),nn.Linear(4,1))
opts={p:torch.optim.SGD([p],lr=.1) for p in net.parameters()}
def step(p):
    opts[p].step(); opts[p].zero_grad()
for p in net.parameters(): p.register_post_accumulate_grad_hook(step)
for i in range(2):
    loss=net(torch.randn(4,3)).pow(2).mean(); loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: one weight used twice": Cell(
        HEAD
        + """
emb=nn.Embedding(5,3); out=nn.Linear(3,5,bias=False); out.weight=emb.weight
emb.weight.register_hook(lambda g: g.mul_(.5))
ids=torch.tensor([0,1,2])
loss=F.cross_entropy(out(emb(ids)),ids); loss.backward()
""",
        tasks="loss:ok",
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_hooks(cells, name):
    check(cells, CELLS[name])


def test_a_hook_s_own_effect_counts_where_every_gradient_is_asked_for():
    """The table is then there before the hook runs, and what the hook does to its own branch has to reach it."""

    def run(scale):
        torch.manual_seed(0)
        a, b = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
        p, q = a * 2, b * 2
        q.register_hook(scale)
        loss = ((p + q) * 2).sum()
        loss.backward()
        return {"a": float(a.grad.double().norm()), "b": float(b.grad.double().norm())}

    as_run, meant = run(lambda g: g.mul_(0.1)), run(lambda g: g * 0.1)
    with watch(gradients=True) as report:
        run(lambda g: g.mul_(0.1))
    rows = {row.leaf: row for row in report.gradients}
    assert {leaf: row.norm_as_run for leaf, row in rows.items()} == pytest.approx(as_run)
    assert {leaf: row.norm_reference for leaf, row in rows.items()} == pytest.approx(meant)
    assert {leaf: row.status for leaf, row in rows.items()} == {"a": "wrong", "b": "ok"}


@pytest.mark.parametrize(
    ("hook", "said"),
    [(lambda g: g * 0.1, True), (lambda g: g.mul_(0.1), True), (None, False)],
    ids=["new", "own", "none"],
)
def test_what_an_unshared_hook_does_is_said_to_be_missing_from_the_norms(hook, said):
    """Also for one that was there before the watch began."""
    a = torch.randn(3, requires_grad=True)
    if hook is not None:
        a.register_hook(hook)
    with watch(gradients=True) as report:
        loss = (a * 2).exp().sum()
        loss.backward()
    assert report.gradients
    assert any("hooks of the program" in note for note in report.blind_spots) is said
