"""A gradient kept under a name, while `.grad` goes on in the same memory."""

from __future__ import annotations

import pytest
import torch
from cell_oracle import HEAD, Cell, check, watched

from jupyter_inplace import watch

NET = """
enc=nn.Linear(3,2,bias=False); x=torch.randn(4,3)
h=enc(x)
loss_a=h.pow(2).mean(); loss_b=h.exp().mean()
loss_a.backward(retain_graph=True)
"""
# The rows are of `.grad`'s memory by then, not of a backward: torch is asked by the tests below, not row by row.
CELLS = {
    "the second backward adds to it": Cell(
        HEAD
        + NET
        + """
g1=enc.weight.grad
loss_b.backward()
conflict=(g1*enc.weight.grad).sum()
""",
        verdict="corrupts",
        line="loss_b.backward()",
        leaves="enc.weight",
        tasks="loss_a:wrong loss_b:ok",
        probe=False,
    ),
    "a dictionary of gradients per task": Cell(
        HEAD
        + """
enc=nn.Linear(3,2,bias=False); x=torch.randn(4,3)
h=enc(x)
losses={"a":h.pow(2).mean(),"b":h.exp().mean()}
per_task={}
for name,loss in losses.items():
    loss.backward(retain_graph=True)
    per_task[name]=enc.weight.grad
cos=F.cosine_similarity(per_task["a"].flatten(),per_task["b"].flatten(),dim=0)
""",
        verdict="corrupts",
        line="loss.backward(retain_graph=True)",
        leaves="enc.weight",
        tasks='losses["a"]:wrong losses["b"]:ok',
        probe=False,
        derivative=False,
    ),
    "cleared by zero_grad": Cell(
        HEAD
        + NET
        + """
g1=enc.weight.grad
enc.zero_grad(set_to_none=False)
norm=g1.norm()
loss_b.backward()
""",
        verdict="corrupts",
        line="enc.zero_grad(set_to_none=False)",
        leaves="enc.weight",
        tasks="loss_a:lost loss_b:ok",
        probe=False,
    ),
    "clipped": Cell(
        HEAD
        + NET
        + """
grads=[p.grad for p in enc.parameters()]
torch.nn.utils.clip_grad_norm_(enc.parameters(),1e-3)
size=sum(g.pow(2).sum() for g in grads)
loss_b.backward()
""",
        verdict="corrupts",
        line="torch.nn.utils.clip_grad_norm_(enc.parameters(),1e-3)",
        leaves="enc.weight",
        tasks="loss_a:wrong loss_b:ok",
        probe=False,
    ),
    "harmless: a clone is kept": Cell(
        HEAD
        + NET
        + """
g1=enc.weight.grad.clone()
loss_b.backward()
conflict=(g1*enc.weight.grad).sum()
""",
        tasks="loss_a:ok loss_b:ok",
    ),
    "harmless: kept and never read": Cell(
        HEAD
        + NET
        + """
g1=enc.weight.grad
loss_b.backward()
total=enc.weight.grad.norm()
""",
        tasks="loss_a:ok loss_b:ok",
    ),
    "harmless: read before it changes": Cell(
        HEAD
        + NET
        + """
g1=enc.weight.grad
norm=g1.norm()
enc.zero_grad(set_to_none=True)
loss_b.backward()
conflict=(g1*enc.weight.grad).sum()
""",
        tasks="loss_a:ok loss_b:ok",
    ),
    "harmless: the ordinary loop": Cell(
        HEAD
        + """
net=nn.Linear(3,1); opt=torch.optim.SGD(net.parameters(),lr=.1)
for i in range(3):
    opt.zero_grad(set_to_none=False)
    loss=net(torch.randn(4,3)).pow(2).mean(); loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(),.1)
    norms=[p.grad.norm() for p in net.parameters()]
    opt.step()
""",
        tasks="loss:ok",
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_gradient_aliases(cells, name):
    check(cells, CELLS[name])


def test_both_norms_are_those_of_the_kept_memory(cells):
    """As run is what the name holds when it is read, the reference what it held when it was bound."""
    report = watched(cells, CELLS["the second backward adds to it"].source)
    enc = cells.ns["enc"]
    total = enc.weight.grad.norm().item()
    enc.zero_grad()
    cells.ns["enc"](cells.ns["x"]).pow(2).mean().backward()
    row = next(row for row in report["gradients"] if row["status"] == "wrong")
    assert row["norm_as_run"] == pytest.approx(total)
    assert row["norm_reference"] == pytest.approx(enc.weight.grad.norm().item())


@pytest.mark.parametrize(
    ("keep", "said"),
    [("enc.weight.grad.numpy()", True), ("enc.weight.grad.numpy().copy()", True), ("enc.weight.grad.tolist()", False)],
)
def test_a_numpy_array_over_an_overwritten_gradient_is_a_blind_spot_that_is_said(cells, keep, said):
    """Nobody sees who reads an array: the report must not look as though somebody had looked."""
    report = watched(cells, HEAD + NET + f"g1={keep}\nloss_b.backward()\ntotal=sum(map(sum,g1))\n")
    assert any("enc.weight.grad was handed out" in note for note in report["blind_spots"]) is said


def test_memory_that_a_gradient_had_is_no_gradient_any_more():
    """`zero_grad` lets the memory of `.grad` go, and a tensor made next may get it."""
    w = torch.ones(1000, requires_grad=True)
    with watch() as report:
        for _ in range(20):
            (w * w).sum().backward()
            assert w.grad is not None  # the source speaks of .grad, so gradients are followed
            w.grad = None
            h = torch.ones(1000)
            h.mul_(2)
            k = h + 1
            h.mul_(3)
            k = h + k
    assert report.verdict == "harmless", report
    assert not [note for note in report.blind_spots if "recorder failed" in note]


def test_memory_that_left_and_was_freed_is_not_that_of_later_gradients():
    """Torch gives the address of a freed storage to the next one: a gradient there was never handed out."""
    lin = torch.nn.Linear(4, 4)
    with watch() as report:
        for _ in range(50):
            torch.rand(8).numpy()
            lin(torch.randn(3, 4)).sum().backward()
            torch.nn.utils.clip_grad_norm_(lin.parameters(), 0.1)
            lin.zero_grad()
    assert report.verdict == "harmless"
    assert report.blind_spots == ()
