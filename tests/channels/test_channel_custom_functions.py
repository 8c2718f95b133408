"""Custom Functions that keep tensors on `ctx`, in names, or write to what others still need."""

from __future__ import annotations

import pytest
from cell_oracle import HEAD, Cell, check

CELLS = {
    "a list on ctx, two tasks": Cell(
        HEAD
        + """
class Mul(torch.autograd.Function):
    @staticmethod
    def forward(ctx,a,b):
        ctx.ins=[a,b]; return a*b
    @staticmethod
    def backward(ctx,g):
        a,b=ctx.ins; return g*b,g*a
w=torch.randn(3,requires_grad=True); s=torch.ones(3)
y1=Mul.apply(w,s).sum()
s.mul_(3)
y2=Mul.apply(w,s).sum()
(y1+y2).backward()
""",
        verdict="corrupts",
        line="s.mul_(3)",
        tasks="y1:wrong y2:ok",
        leaves="w",
        repair=(("s.mul_(3)", "s=s*3"),),
    ),
    "a dictionary on ctx, two tasks": Cell(
        HEAD
        + """
class Mul(torch.autograd.Function):
    @staticmethod
    def forward(ctx,a,b):
        ctx.cache={"a":a,"b":b}; return a*b
    @staticmethod
    def backward(ctx,g):
        return g*ctx.cache["b"],g*ctx.cache["a"]
w=torch.randn(3,requires_grad=True); s=torch.ones(3)
y1=Mul.apply(w,s).sum()
s.mul_(3)
y2=Mul.apply(w,s).sum()
(y1+y2).backward()
""",
        verdict="corrupts",
        line="s.mul_(3)",
        tasks="y1:wrong y2:ok",
        leaves="w",
        repair=(("s.mul_(3)", "s=s*3"),),
    ),
    "a global tensor that backward reads": Cell(
        HEAD
        + """
scale=torch.ones(3)
class Mul(torch.autograd.Function):
    @staticmethod
    def forward(ctx,a):
        return a*scale
    @staticmethod
    def backward(ctx,g):
        return g*scale
w=torch.randn(3,requires_grad=True)
y1=Mul.apply(w).sum()
scale.mul_(3)
y1.backward()
""",
        verdict="corrupts",
        line="scale.mul_(3)",
        tasks="y1:wrong",
        leaves="w",
        repair=(("scale.mul_(3)", "scale=scale*1"),),
    ),
    "a gradient worked out in the forward, handed out as it is": Cell(
        HEAD
        + """
class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx,x):
        ctx.slope=2*x.detach(); return x.pow(2).sum()
    @staticmethod
    def backward(ctx,g): return ctx.slope
w=torch.randn(3,requires_grad=True)
y=Square.apply(w)
y.grad_fn.slope.mul_(5)
y.backward()
""",
        verdict="corrupts",
        line="y.grad_fn.slope.mul_(5)",
        tasks="y:wrong",
        leaves="w",
        repair=(("y.grad_fn.slope.mul_(5)", ""),),
    ),
    "a module on ctx": Cell(
        HEAD
        + """
class Lin(torch.autograd.Function):
    @staticmethod
    def forward(ctx,x,mod):
        ctx.mod=mod; return x*mod.weight.detach()
    @staticmethod
    def backward(ctx,g):
        return g*ctx.mod.weight.detach(),None
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.weight=nn.Parameter(torch.ones(3))
m=M(); x=torch.randn(3,requires_grad=True)
y=Lin.apply(x,m).sum()
with torch.no_grad(): m.weight.mul_(2)
y.backward()
""",
        verdict="corrupts",
        line="with torch.no_grad(): m.weight.mul_(2)",
        tasks="y:wrong",
        leaves="x",
        repair=(("with torch.no_grad(): m.weight.mul_(2)", ""),),
    ),
    "declared in place, over what tanh saved": Cell(
        HEAD
        + """
class Half_(torch.autograd.Function):
    @staticmethod
    def forward(ctx,x):
        ctx.mark_dirty(x); return x.mul_(.5)
    @staticmethod
    def backward(ctx,g): return g*.5
lin=nn.Linear(3,4)
h=torch.tanh(lin(torch.randn(5,3)))
h=Half_.apply(h)
loss=h.sum(); loss.backward()
""",
        verdict="breaks",
        line="ctx.mark_dirty(x); return x.mul_(.5)",
        saved="TanhBackward0 @ h=torch.tanh(lin(torch.randn(5,3)))",
        tasks="loss:raises",
        leaves="lin.bias lin.weight",
    ),
    "a loss that overwrites its caller's logits": Cell(
        HEAD
        + """
class CE(torch.autograd.Function):
    @staticmethod
    def forward(ctx,logits,y):
        p=logits.detach().softmax(1)
        loss=-p[torch.arange(len(y)),y].log().mean()
        p[torch.arange(len(y)),y]-=1
        logits.data.copy_(p/len(y))
        ctx.save_for_backward(logits.detach())
        return loss
    @staticmethod
    def backward(ctx,g):
        d,=ctx.saved_tensors; return d*g,None
net=nn.Linear(3,4); x=torch.randn(5,3); y=torch.tensor([0,1,2,3,0])
logits=net(x)
aux=logits.pow(2).mean()
ce=CE.apply(logits,y)
(ce+aux).backward()
""",
        verdict="corrupts",
        line="logits.data.copy_(p/len(y))",
        tasks="ce:ok aux:wrong",
        leaves="net.bias net.weight",
        probe=False,
    ),
    "a backward that overwrites the incoming gradient": Cell(
        HEAD
        + """
class Rev(torch.autograd.Function):
    @staticmethod
    def forward(ctx,x): return x.clone()
    @staticmethod
    def backward(ctx,g): return g.neg_()
a=nn.Linear(3,4,bias=False); b=nn.Linear(3,4,bias=False); x=torch.randn(5,3)
u=a(x); v=b(x)
s=(u+Rev.apply(v)).mul(2.)
ld=s.sum()
ld.backward()
""",
        verdict="corrupts",
        line="def backward(ctx,g): return g.neg_()",
        tasks="ld:wrong",
        leaves="a.weight",
        probe=False,
    ),
    "harmless: declared in place": Cell(
        HEAD
        + """
class Relu_(torch.autograd.Function):
    @staticmethod
    def forward(ctx,x):
        x.clamp_(min=0); ctx.mark_dirty(x); ctx.save_for_backward(x); return x
    @staticmethod
    def backward(ctx,g):
        x,=ctx.saved_tensors; return g*(x>0)
lin=nn.Linear(3,4)
h=lin(torch.randn(5,3))
h=Relu_.apply(h)
loss=h.pow(2).sum(); loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: undeclared, and only the result is read": Cell(
        HEAD
        + """
class Half_(torch.autograd.Function):
    @staticmethod
    def forward(ctx,x):
        x.mul_(.5); return x
    @staticmethod
    def backward(ctx,g): return g*.5
lin=nn.Linear(3,4)
h=lin(torch.randn(5,3))
y=Half_.apply(h)
loss=y.sum(); loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: saved by the forward after all writes": Cell(
        HEAD
        + """
class F1(torch.autograd.Function):
    @staticmethod
    def forward(ctx,x):
        e=x.exp(); ctx.save_for_backward(e)
        e.add_(1.)
        return e.log()
    @staticmethod
    def backward(ctx,g):
        e,=ctx.saved_tensors; return g*(e-1)/e
w=torch.randn(3,requires_grad=True)
loss=F1.apply(w).sum(); loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: gradient reversal": Cell(
        HEAD
        + """
class Rev(torch.autograd.Function):
    @staticmethod
    def forward(ctx,x,l): ctx.l=l; return x.view_as(x)
    @staticmethod
    def backward(ctx,g): return -ctx.l*g,None
f=nn.Linear(3,4); c=nn.Linear(4,2); d=nn.Linear(4,2)
h=torch.tanh(f(torch.randn(5,3)))
lc=F.cross_entropy(c(h),torch.zeros(5,dtype=torch.long)); ld=F.cross_entropy(d(Rev.apply(h,0.5)),torch.ones(5,dtype=torch.long))
(lc+ld).backward()
""",
        tasks="lc:ok ld:ok",
    ),
    "harmless: nobody else has the incoming gradient": Cell(
        HEAD
        + """
class Rev(torch.autograd.Function):
    @staticmethod
    def forward(ctx,x): return x.view_as(x)
    @staticmethod
    def backward(ctx,g): return g.neg_()
f=nn.Linear(3,4); d=nn.Linear(4,2)
h=f(torch.randn(5,3))
ld=d(Rev.apply(torch.tanh(h))).pow(2).mean()
ld.backward()
""",
        tasks="ld:ok",
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_functions(cells, name):
    check(cells, CELLS[name])
