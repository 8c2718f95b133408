"""Gradients that are cleared before anything read them, and whose task is missing from the step that follows."""

from __future__ import annotations

import pytest
import torch
from cell_oracle import HEAD, Cell, check, watched

START = (
    HEAD
    + """
net=nn.Linear(3,2); opt=torch.optim.SGD(net.parameters(),lr=.1); x=torch.randn(4,3)
"""
)
READERS = (
    START
    + """
def norm(): return float(net.weight.grad.norm())
def gradients(): return [p.grad for p in net.parameters()]
def copies(): return {name: p.grad.clone() for name, p in net.named_parameters()}
def array(): return net.bias.grad.numpy()
"""
)
GAN = (
    HEAD
    + """
g=nn.Linear(2,3); d=nn.Linear(3,1)
og=torch.optim.SGD(g.parameters(),lr=.1); od=torch.optim.SGD(d.parameters(),lr=.1)
"""
)


def lost(source: str, line: str, tasks: str, leaves: str = "net.weight net.bias") -> Cell:
    """A cell that loses whole tasks. There is no other program to hold it against: the gradients were right when they came."""
    return Cell(source, "cuts", line, tasks=tasks, leaves=leaves, probe=False, derivative=False)


def fine(source: str, tasks: str = "") -> Cell:
    return Cell(source, tasks=tasks, probe=False)


CELLS = {
    "zero_grad between two backwards, before any step": lost(
        START
        + """
out=net(x)
loss_a=out.pow(2).mean(); loss_b=out.exp().mean()
loss_a.backward(retain_graph=True)
opt.zero_grad()
loss_b.backward()
opt.step()
""",
        "opt.zero_grad()",
        "loss_a:lost loss_b:ok",
    ),
    "the second task is computed after the clearing, from the same features": lost(
        START
        + """
out=net(x)
loss_a=out.pow(2).mean()
loss_a.backward(retain_graph=True)
net.zero_grad()
loss_b=out.exp().mean()
loss_b.backward()
torch.nn.utils.clip_grad_norm_(net.parameters(),1.)
opt.step()
""",
        "net.zero_grad()",
        "loss_a:lost loss_b:ok",
    ),
    "a loop over the tasks that clears each time": lost(
        START
        + """
head=nn.Linear(2,1)
opt.add_param_group({"params": head.parameters()})
for step in range(2):
    out=head(net(x))
    losses={"seg": out.pow(2).mean(), "depth": out.exp().mean(), "flow": out.abs().mean()}
    for loss in losses.values():
        opt.zero_grad()
        loss.backward(retain_graph=True)
    opt.step()
""",
        "opt.zero_grad()",
        'losses["seg"]:lost losses["depth"]:lost losses["flow"]:ok',
        "net.weight net.bias head.weight head.bias",
    ),
    "cleared by hand": lost(
        START
        + """
out=net(x)
loss_a=out.pow(2).mean(); loss_b=out.exp().mean()
loss_a.backward(retain_graph=True)
for p in net.parameters():
    p.grad = None
loss_b.backward()
opt.step()
""",
        "p.grad = None",
        "loss_a:lost loss_b:ok",
    ),
    "filled with zeros by hand": lost(
        START
        + """
out=net(x)
loss_a=out.pow(2).mean(); loss_b=out.exp().mean()
loss_a.backward(retain_graph=True)
for p in net.parameters():
    if p.grad is not None:
        p.grad.zero_()
loss_b.backward()
opt.step()
""",
        "p.grad.zero_()",
        "loss_a:lost loss_b:ok",
    ),
    "filled with zeros by the optimizer": lost(
        START
        + """
out=net(x)
loss_a=out.pow(2).mean(); loss_b=out.exp().mean(); loss_c=out.abs().mean()
(loss_a+loss_b).backward(retain_graph=True)
opt.zero_grad(set_to_none=False)
loss_c.backward()
opt.step()
""",
        "opt.zero_grad(set_to_none=False)",
        "loss_a:lost loss_b:lost loss_c:ok",
    ),
    "zero_grad between backward and step": lost(
        START
        + """
for step in range(4):
    loss=net(x).pow(2).mean()
    loss.backward()
    opt.zero_grad()
    opt.step()
""",
        "opt.zero_grad()",
        "loss:lost",
    ),
    "zeros between the backward of two tasks and the step": lost(
        START
        + """
opt=torch.optim.Adam(net.parameters(),lr=.1)
def train_step():
    out=net(x)
    loss_a=out.pow(2).mean(); loss_b=out.exp().mean()
    (loss_a+loss_b).backward()
    net.zero_grad(set_to_none=False)
    opt.step()
for step in range(2): train_step()
""",
        "net.zero_grad(set_to_none=False)",
        "loss_a:lost loss_b:lost",
    ),
    "one of two optimizers, always without a gradient": lost(
        START
        + """
other=nn.Linear(3,2); opt_other=torch.optim.Adam(other.parameters(),lr=.1)
for step in range(3):
    opt.zero_grad()
    loss=net(x).pow(2).mean(); loss.backward(); opt.step()
    loss_other=other(x).exp().mean(); loss_other.backward()
    opt_other.zero_grad()
    opt_other.step()
""",
        "opt_other.zero_grad()",
        "loss:ok loss_other:lost",
        "other.weight other.bias",
    ),
    "updated by hand": lost(
        START
        + """
out=net(x)
loss_a=out.pow(2).mean(); loss_b=out.exp().mean()
loss_a.backward(retain_graph=True)
net.zero_grad()
loss_b.backward()
with torch.no_grad():
    for p in net.parameters():
        p -= .1*p.grad
""",
        "net.zero_grad()",
        "loss_a:lost loss_b:ok",
    ),
    "updated through .data": lost(
        START
        + """
out=net(x)
losses=[out.pow(2).mean(), out.exp().mean()]
for loss in losses:
    net.zero_grad()
    loss.backward(retain_graph=True)
for p in net.parameters():
    p.data.add_(p.grad,alpha=-.1)
""",
        "net.zero_grad()",
        "losses[0]:lost losses[1]:ok",
    ),
    "harmless: weights clamped while one task's gradient waits": fine(
        START
        + """
out=net(x); loss_a=out.pow(2).mean(); loss_b=out.exp().mean()
loss_a.backward(retain_graph=True)
opt.zero_grad()
loss_b.backward(retain_graph=True)
with torch.no_grad():
    for p in net.parameters(): p.mul_(.9)
opt.zero_grad()
"""
    ),
    "harmless: a test that each task reaches the layer": fine(
        START
        + """
out=net(x); loss_a=out.pow(2).mean(); loss_b=out.exp().mean()
loss_a.backward(retain_graph=True)
assert net.weight.grad is not None
net.zero_grad()
loss_b.backward()
assert net.weight.grad is not None
opt.step()
"""
    ),
    "harmless: an encoder, a decoder and a discriminator, each with its optimizer": fine(
        HEAD
        + """
nets=[nn.Linear(3,3) for _ in range(3)]; opts=[torch.optim.SGD(n.parameters(),lr=.1) for n in nets]
for step in range(2):
    h=nets[0](torch.randn(4,3)); y=nets[1](h); s=nets[2](y)
    losses=[h.pow(2).mean()+s.mean(), y.exp().mean()+s.mean(), -s.mean()]
    for opt, loss in zip(opts,losses):
        opt.zero_grad(); loss.backward(retain_graph=True)
    for opt in opts: opt.step()
"""
    ),
    "harmless: sharpness-aware, two passes": fine(
        START
        + """
for step in range(2):
    net(x).pow(2).mean().backward()
    with torch.no_grad():
        for p in net.parameters(): p.old=p.clone(); p.add_(p.grad,alpha=.05)
    opt.zero_grad()
    net(x).pow(2).mean().backward()
    with torch.no_grad():
        for p in net.parameters(): p.copy_(p.old)
    opt.step(); opt.zero_grad()
"""
    ),
    "harmless: parts that are trained in turns, from one forward": fine(
        START
        + """
head=nn.Linear(2,1); opt_head=torch.optim.SGD(head.parameters(),lr=.1)
for step in range(4):
    h=net(x); loss=head(h).pow(2).mean()+h.exp().mean()
    opt.zero_grad(); opt_head.zero_grad()
    loss.backward()
    (opt if step % 2 else opt_head).step()
""",
        "loss:ok",
    ),
    "harmless: an ordinary loop": fine(
        START
        + """
for step in range(3):
    opt.zero_grad(); loss=net(x).pow(2).mean(); loss.backward(); opt.step()
""",
        "loss:ok",
    ),
    "harmless: cleared after the step, with zeros": fine(
        START
        + """
for step in range(3):
    loss=net(x).pow(2).mean(); loss.backward(); opt.step(); opt.zero_grad(set_to_none=False)
""",
        "loss:ok",
    ),
    "harmless: several tasks, gradients accumulated": fine(
        START
        + """
for step in range(2):
    opt.zero_grad()
    for part in x.split(2):
        out=net(part); loss_a=out.pow(2).mean(); loss_b=out.exp().mean()
        loss_a.backward(retain_graph=True); loss_b.backward()
    opt.step()
""",
        "loss_a:ok loss_b:ok",
    ),
    "harmless: the generator's turn fills the discriminator": fine(
        GAN
        + """
for step in range(2):
    fake=g(torch.randn(4,2))
    od.zero_grad(); loss_d=d(torch.randn(4,3)).mean()-d(fake.detach()).mean(); loss_d.backward(); od.step()
    og.zero_grad(); loss_g=-d(fake).mean(); loss_g.backward(); og.step()
""",
        "loss_d:ok loss_g:ok",
    ),
    "harmless: the generator's turn first, both losses of one forward": fine(
        GAN
        + """
for step in range(2):
    fake=g(torch.randn(4,2)); scores=d(fake)
    loss_g=-scores.mean(); loss_d=scores.exp().mean()-d(torch.randn(4,3)).mean()
    og.zero_grad(); od.zero_grad()
    loss_g.backward(retain_graph=True)
    od.zero_grad()
    loss_d.backward(inputs=list(d.parameters()))
    og.step(); od.step()
""",
        "loss_g:ok loss_d:ok",
    ),
    "harmless: actor and critic": fine(
        HEAD
        + """
pi=nn.Linear(3,2); q=nn.Linear(5,1)
opt_pi=torch.optim.Adam(pi.parameters()); opt_q=torch.optim.Adam(q.parameters())
for step in range(3):
    s=torch.randn(4,3); a=torch.randn(4,2)
    loss_q=(q(torch.cat([s,a],1))-1).pow(2).mean()
    opt_q.zero_grad(); loss_q.backward(); opt_q.step()
    loss_pi=-q(torch.cat([s,pi(s)],1)).mean()
    opt_pi.zero_grad(); loss_pi.backward(); opt_pi.step()
""",
        "loss_q:ok loss_pi:ok",
    ),
    "harmless: the same loss once more": fine(
        START
        + """
import time
out=net(x); loss_a=out.pow(2).mean(); loss_b=out.exp().mean(); spent={}
for name, loss in (("a",loss_a),("b",loss_b)):
    began=time.perf_counter(); loss.backward(retain_graph=True); spent[name]=time.perf_counter()-began
    opt.zero_grad()
(loss_a+loss_b).backward()
opt.step()
"""
    ),
    "harmless: a backward to warm up, on a forward of its own": fine(
        START
        + """
loss=net(x).sum(); loss.backward(); opt.zero_grad()
for step in range(2):
    loss=net(x).pow(2).mean(); loss.backward(); opt.step(); opt.zero_grad()
""",
        "loss:ok",
    ),
    "harmless: norms of each task's gradient": fine(
        READERS
        + """
out=net(x); losses={"a": out.pow(2).mean(), "b": out.exp().mean()}; norms={}
for name, loss in losses.items():
    opt.zero_grad(); loss.backward(retain_graph=True); norms[name]=norm()
opt.step()
"""
    ),
    "harmless: clipped to measure": fine(
        START
        + """
out=net(x); losses=[out.pow(2).mean(), out.exp().mean()]
for loss in losses:
    opt.zero_grad(); loss.backward(retain_graph=True); print(torch.nn.utils.clip_grad_norm_(net.parameters(),1.))
opt.step()
"""
    ),
    "harmless: kept under a name": fine(
        READERS
        + """
out=net(x); losses=[out.pow(2).mean(), out.exp().mean()]; kept=[]
for loss in losses:
    opt.zero_grad(); loss.backward(retain_graph=True); kept.append(gradients())
opt.step()
"""
    ),
    "harmless: read as a list of numbers": fine(
        START
        + """
out=net(x); loss_a=out.pow(2).mean(); loss_b=out.exp().mean()
loss_a.backward(retain_graph=True)
print(net.bias.grad.tolist())
opt.zero_grad()
loss_b.backward(); opt.step()
"""
    ),
    "harmless: read as an array": fine(
        READERS
        + """
out=net(x); loss_a=out.pow(2).mean(); loss_b=out.exp().mean()
loss_a.backward(retain_graph=True)
total=array().sum()
opt.zero_grad()
loss_b.backward(); opt.step()
"""
    ),
    "harmless: copied to a dict": fine(
        READERS
        + """
out=net(x); losses=[out.pow(2).mean(), out.exp().mean()]; kept={}
for i, loss in enumerate(losses):
    net.zero_grad(set_to_none=False); loss.backward(retain_graph=True); kept[i]=copies()
opt.step()
"""
    ),
    "harmless: looked at by a hook of a module": fine(
        START
        + """
seen=[]
inner=nn.Sequential(nn.Linear(2,2)); opt.add_param_group({"params": inner.parameters()})
inner.register_full_backward_hook(lambda module, grads, _: seen.append(1))
out=inner(net(x)); loss_a=out.pow(2).mean(); loss_b=out.exp().mean()
loss_a.backward(retain_graph=True); opt.zero_grad()
loss_b.backward(); opt.step()
"""
    ),
    "harmless: looked at by a hook": fine(
        START
        + """
seen=[]
net.weight.register_hook(lambda grad: seen.append(grad.norm()))
out=net(x); loss_a=out.pow(2).mean(); loss_b=out.exp().mean()
loss_a.backward(retain_graph=True); opt.zero_grad()
loss_b.backward(); opt.step()
"""
    ),
    "harmless: a retained gradient is what was wanted": fine(
        START
        + """
def saliency(h): return h.grad.abs().sum()
out=net(x); out.retain_grad(); loss_a=out.pow(2).mean(); loss_b=out.exp().mean()
loss_a.backward(retain_graph=True); found=saliency(out); opt.zero_grad()
loss_b.backward(); opt.step()
"""
    ),
    "harmless: the gradient of the input is what was wanted": fine(
        START
        + """
def saliency(h): return h.grad.abs().sum()
image=x.clone().requires_grad_(); out=net(image); loss_a=out.pow(2).mean(); loss_b=out.exp().mean()
loss_a.backward(retain_graph=True); found=saliency(image); opt.zero_grad()
loss_b.backward(); opt.step()
"""
    ),
    "harmless: an adversarial example": fine(
        START
        + """
for step in range(2):
    image=x.clone().requires_grad_(); loss=net(image).pow(2).mean(); loss.backward()
    bad=(image+.1*image.grad.sign()).detach()
    opt.zero_grad(); loss_bad=net(bad).pow(2).mean(); loss_bad.backward(); opt.step()
""",
        "loss:ok loss_bad:ok",
    ),
    "harmless: batches whose loss is no number are left out": fine(
        START
        + """
for step in range(4):
    loss=net(x*(float("inf") if step in (0, 2) else 1)).pow(2).mean()
    loss.backward()
    if not torch.isfinite(loss):
        opt.zero_grad(); continue
    opt.step(); opt.zero_grad()
"""
    ),
    "harmless: steps without effect where the loss is no number": fine(
        START
        + """
for step in range(2):
    loss=net(x*float("nan")).pow(2).mean()
    loss.backward()
    if not torch.isfinite(loss):
        opt.zero_grad()
    opt.step()
"""
    ),
    "harmless: steps without effect for a while": fine(
        START
        + """
for step in range(4):
    opt.zero_grad(); loss=net(x).pow(2).mean(); loss.backward()
    if step < 2:
        opt.zero_grad()
    opt.step()
"""
    ),
    "harmless: a step skipped by the scaler": fine(
        START
        + """
scaler=torch.amp.GradScaler("cpu",init_scale=2.)
for step in range(3):
    opt.zero_grad(); loss=net(x*(float("inf") if step==0 else 1)).pow(2).mean()
    scaler.scale(loss).backward(); scaler.step(opt); scaler.update()
"""
    ),
    "harmless: an early end": fine(
        START
        + """
out=net(x)
for loss in (out.pow(2).mean(), out.exp().mean()):
    opt.zero_grad()
    loss.backward(retain_graph=True)
    if loss > 0: break
opt.step()
"""
    ),
    "harmless: a closure": fine(
        START
        + """
opt=torch.optim.LBFGS(net.parameters(),max_iter=3)
def closure():
    opt.zero_grad(); loss=net(x).pow(2).mean(); loss.backward(); return loss
for step in range(2): opt.step(closure)
"""
    ),
    "harmless: a step inside of the backward": fine(
        START
        + """
for p in net.parameters():
    one=torch.optim.SGD([p],lr=.1)
    def apply(p, one=one):
        one.step(); one.zero_grad()
    p.register_post_accumulate_grad_hook(apply)
out=net(x); loss_a=out.pow(2).mean(); loss_b=out.exp().mean()
loss_a.backward(retain_graph=True); loss_b.backward()
"""
    ),
    "harmless: an update by hand": fine(
        START
        + """
out=net(x); losses=[out.pow(2).mean(), out.exp().mean()]
grads=torch.autograd.grad(losses[0],net.parameters(),retain_graph=True)
for step in range(2):
    loss=net(x).pow(2).mean(); loss.backward()
    with torch.no_grad():
        for p in net.parameters(): p -= .1*p.grad
    net.zero_grad()
"""
    ),
    "harmless: surgery writes the gradients": fine(
        START
        + """
out=net(x); losses=[out.pow(2).mean(), out.exp().mean()]; parts=[]
for loss in losses:
    opt.zero_grad(); loss.backward(retain_graph=True); parts.append([p.grad.clone() for p in net.parameters()])
for p, a, b in zip(net.parameters(), *parts): p.grad=a+b
opt.step()
"""
    ),
    "harmless: gradients of no size": fine(
        START
        + """
out=net(x); loss_a=(out*0).sum(); loss_b=out.exp().mean()
loss_a.backward(retain_graph=True); opt.zero_grad()
loss_b.backward(); opt.step()
"""
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_cleared(cells, name):
    check(cells, CELLS[name])


def test_the_rows_say_how_large_the_lost_gradients_were(cells):
    report = watched(cells, CELLS["zero_grad between two backwards, before any step"].source)
    rows = {(row["task"], row["leaf"]): row for row in report["gradients"]}
    torch.manual_seed(0)
    net, x = torch.nn.Linear(3, 2), torch.randn(4, 3)
    net(x).pow(2).mean().backward()
    for leaf, p in net.named_parameters():
        row = rows["loss_a", f"net.{leaf}"]
        assert row["norm_as_run"] == 0
        assert row["norm_reference"] == pytest.approx(float(p.grad.norm()), rel=1e-5)


def test_in_a_loop_the_tasks_of_a_sum_are_told_apart(cells):
    report = watched(cells, CELLS["zeros between the backward of two tasks and the step"].source)
    rows = {(row["task"], row["leaf"]): row for row in report["gradients"]}
    torch.manual_seed(0)
    net, x = torch.nn.Linear(3, 2), torch.randn(4, 3)
    out = net(x)  # the weights never change
    for task, loss in (("loss_a", out.pow(2).mean()), ("loss_b", out.exp().mean())):
        for leaf, g in zip(
            ("net.weight", "net.bias"), torch.autograd.grad(loss, net.parameters(), retain_graph=True), strict=True
        ):
            assert rows[task, leaf]["status"] == "lost"
            assert rows[task, leaf]["norm_reference"] == pytest.approx(float(g.norm()), rel=1e-5)


def test_no_rewrite_is_offered(cells):
    cells.run("%%autograd_watch --result watch_report\n" + CELLS["zero_grad between backward and step"].source)
    (row,) = [m for m in cells.ns["watch_report"].mutations if m.verdict == "cuts"]
    assert (row.op, row.tensor, row.count, row.site.text) == (".grad =", "net.weight.grad", 4, "opt.zero_grad()")
    assert cells.ns["watch_report"].fixes == ()


def test_what_an_earlier_cell_left_is_no_concern(cells):
    cells.run(
        START + "out=net(x); loss_a=out.pow(2).mean(); loss_b=out.exp().mean(); loss_a.backward(retain_graph=True)"
    )
    cells.ip.run_cell(
        "%%autograd_watch --no-verify -r watch_report\nopt.zero_grad(); loss_b.backward(); opt.step()",
        store_history=False,
    )
    assert cells.ns["watch_report"].verdict == "harmless"
