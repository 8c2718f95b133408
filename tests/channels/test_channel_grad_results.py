"""Results of one `torch.autograd.grad` call that lie in the same memory, one of which is overwritten."""

from __future__ import annotations

import pytest
import torch
from cell_oracle import HEAD, Cell, check, watched

START = (
    HEAD
    + """
a=torch.randn(3,requires_grad=True); b=torch.randn(3,requires_grad=True); c=torch.randn(3,requires_grad=True)
"""
)


def wrong(source: str, line: str, tasks: str, leaves: str) -> Cell:
    return Cell(source, "corrupts", line, tasks=tasks, leaves=leaves, probe=False, derivative=False)


def fine(source: str, tasks: str = "loss:ok") -> Cell:
    return Cell(source, tasks=tasks, probe=False)


CELLS = {
    "one is scaled, the other read": wrong(
        START
        + """
loss=(a+b).pow(2).sum()
ga, gb = torch.autograd.grad(loss,(a,b))
ga.mul_(0.5)
step=(gb*0.1).sum()
""",
        "ga.mul_(0.5)",
        "loss:wrong",
        "b",
    ),
    "an item of the tuple": wrong(
        START
        + """
loss=((a+b)*c).exp().sum()
grads=torch.autograd.grad(loss,(a,b,c))
grads[1].clamp_(-.1,.1)
total=grads[0].norm()+grads[2].norm()
""",
        "grads[1].clamp_(-.1,.1)",
        "loss:wrong",
        "a",
    ),
    "read in a loop over all of them": wrong(
        START
        + """
loss=(a+b).pow(2).sum()
grads=torch.autograd.grad(loss,(a,b))
grads[0].add_(1.)
for p, g in zip((a,b),grads):
    with torch.no_grad():
        p -= .1*g
""",
        "grads[0].add_(1.)",
        "loss:wrong",
        "b",
    ),
    "each scaled in turn, so that both are scaled twice": wrong(
        START
        + """
loss=(a+b).pow(2).sum()
grads=torch.autograd.grad(loss,(a,b))
for g in grads:
    g.mul_(0.5)
""",
        "g.mul_(0.5)",
        "loss:wrong",
        "a b",
    ),
    "two statements for each in turn": wrong(
        START
        + """
loss=(a+b).pow(2).sum()
for g in torch.autograd.grad(loss,(a,b)):
    g.mul_(0.5)
    g.add_(1.)
""",
        "g.mul_(0.5)",
        "loss:wrong",
        "a b",
    ),
    "two tasks, one of which adds": wrong(
        START
        + """
loss_mul=(a*b).exp().sum(); loss_add=(a+b).exp().sum()
mul=torch.autograd.grad(loss_mul,(a,b)); add=torch.autograd.grad(loss_add,(a,b))
for gs in (mul, add):
    for g in gs: g.div_(g.norm())
    for g in gs: g.mul_(2.)
""",
        "for g in gs: g.mul_(2.)",
        "loss_mul:ok loss_add:wrong",
        "a b",
    ),
    "clipped as .grad": wrong(
        START
        + """
loss=(a+b).pow(2).sum()
opt=torch.optim.SGD([a,b],lr=.1)
a.grad, b.grad = torch.autograd.grad(loss,(a,b))
torch.nn.utils.clip_grad_norm_([a,b],.1)
opt.step()
""",
        "torch.nn.utils.clip_grad_norm_([a,b],.1)",
        "loss:wrong",
        "a b",
    ),
    "both in one list of a foreach": wrong(
        START
        + """
loss=(a+b).exp().sum()
grads=list(torch.autograd.grad(loss,(a,b)))
torch._foreach_mul_(grads,3.)
""",
        "torch._foreach_mul_(grads,3.)",
        "loss:wrong",
        "a b",
    ),
    "read by a function that is given it": wrong(
        START
        + """
def update(p, g):
    with torch.no_grad(): p.sub_(g,alpha=.1)
def train():
    loss=(a+b).pow(2).sum()
    ga, gb = torch.autograd.grad(loss,[a,b])
    ga.neg_()
    update(a, ga); update(b, gb)
train()
""",
        "ga.neg_()",
        "loss:wrong",
        "b",
    ),
    "harmless: only the one that was written is read": fine(
        START
        + """
loss=(a+b).pow(2).sum()
ga, gb = torch.autograd.grad(loss,(a,b))
ga.mul_(0.5); ga.mul_(0.5)
print(ga, gb.shape)
"""
    ),
    "harmless: the same one written in a loop": fine(
        START
        + """
loss=(a+b).pow(2).sum()
ga, gb = torch.autograd.grad(loss,(a,b))
before=gb.sum()
for i in range(3): ga.mul_(0.5)
total=ga.sum()
"""
    ),
    "harmless: results in memory of their own": fine(
        START
        + """
loss=(a*b).pow(2).sum()
grads=torch.autograd.grad(loss,(a,b))
for g in grads: g.mul_(0.5)
grads[0].add_(1); total=grads[1].sum()
"""
    ),
    "harmless: side by side in one storage": fine(
        START
        + """
loss=torch.cat([a,b]).pow(2).sum()
ga, gb = torch.autograd.grad(loss,(a,b))
ga.mul_(0.5)
total=gb.sum()
"""
    ),
    "harmless: scaled out of place": fine(
        START
        + """
loss=(a+b).pow(2).sum()
ga, gb = torch.autograd.grad(loss,(a,b))
ga=ga*0.5
ga.mul_(2.)
total=(ga+gb).sum()
"""
    ),
    "harmless: the other one bound anew": fine(
        START
        + """
loss=(a+b).pow(2).sum()
ga, gb = torch.autograd.grad(loss,(a,b))
gb=gb.clone()
ga.mul_(0.5)
total=(ga+gb).sum()
"""
    ),
    "harmless: a norm that is small enough": fine(
        START
        + """
loss=(a+b).pow(2).sum()
opt=torch.optim.SGD([a,b],lr=.1)
a.grad, b.grad = torch.autograd.grad(loss,(a,b))
torch.nn.utils.clip_grad_norm_([a,b],1e6)
opt.step()
"""
    ),
    "harmless: backward gives each its own": fine(
        START
        + """
loss=(a+b).pow(2).sum(); loss.backward()
for p in (a,b): p.grad.mul_(0.5)
total=a.grad.sum()+b.grad.sum()
"""
    ),
    "harmless: a loop of an inner optimizer": fine(
        START
        + """
for step in range(3):
    loss=(a+b).pow(2).sum()
    grads=torch.autograd.grad(loss,(a,b))
    with torch.no_grad():
        for p, g in zip((a,b),grads): p.sub_(g,alpha=.1)
"""
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_shared_results(cells, name):
    check(cells, CELLS[name])


def test_the_numbers_are_those_of_results_of_their_own(cells):
    report = watched(cells, CELLS["each scaled in turn, so that both are scaled twice"].source)
    torch.manual_seed(0)
    a, b = (torch.randn(3, requires_grad=True) for _ in range(2))
    meant = [0.5 * g for g in torch.autograd.grad((a + b).pow(2).sum(), (a, b))]
    for row, g in zip(report["gradients"], meant, strict=True):
        assert row["norm_reference"] == pytest.approx(float(g.norm()), rel=1e-5)
        assert row["norm_as_run"] == pytest.approx(0.5 * float(g.norm()), rel=1e-5)
        assert row["relative_difference"] == pytest.approx(0.5, rel=1e-5)
