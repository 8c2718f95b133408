"""Memory changed behind autograd's back, through `.data`, numpy, DLPack, storages, pointers and custom operators."""

from __future__ import annotations

import pytest
from cell_oracle import HEAD, Cell, check

# What numpy or an address writes has no derivative that could be known: such rows are named without a reference.
CELLS = {
    ".data of what sigmoid saved": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
h=torch.sigmoid(w)
loss=h.pow(2).sum()
h.data.mul_(3)
loss.backward()
""",
        verdict="corrupts",
        line="h.data.mul_(3)",
        saved="SigmoidBackward0 @ h=torch.sigmoid(w)",
        tasks="loss:wrong",
        leaves="w",
    ),
    ".data between two tasks, one of which saved nothing": Cell(
        HEAD
        + """
enc=nn.Linear(3,4); x=torch.randn(5,3)
h=enc(x)
loss_a=h.pow(3).mean()
loss_b=h.sum()
h.data.clamp_(min=0)
(loss_a+loss_b).backward()
""",
        verdict="corrupts",
        line="h.data.clamp_(min=0)",
        tasks="loss_a:wrong loss_b:ok",
        leaves="enc.weight enc.bias",
    ),
    "other memory put under a parameter": Cell(
        HEAD
        + """
w=torch.randn(3,3,requires_grad=True); v=torch.randn(3,requires_grad=True); x=torch.randn(3)
loss=((w*v)@x).pow(2).sum()
v.data=torch.zeros(3)
loss.backward()
""",
        verdict="corrupts",
        line="v.data=torch.zeros(3)",
        tasks="loss:lost",
        leaves="w",
    ),
    "vector_to_parameters between two tasks": Cell(
        HEAD
        + """
from torch.nn.utils import parameters_to_vector, vector_to_parameters
class Gate(nn.Module):
    def __init__(self): super().__init__(); self.a=nn.Parameter(torch.randn(3)); self.b=nn.Parameter(torch.randn(3))
    def forward(self,x): return self.a*torch.tanh(self.b*x)
net=Gate(); x=torch.randn(5,3)
l1=net(x).pow(2).mean()
flat=parameters_to_vector(net.parameters()).detach()
vector_to_parameters(flat*.5,net.parameters())
l2=net(x).pow(2).mean()
(l1+l2).backward()
""",
        verdict="corrupts",
        line="vector_to_parameters(flat*.5,net.parameters())",
        tasks="l1:wrong l2:ok",
        leaves="net.b",
    ),
    "a DLPack alias": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
scale=torch.rand(4)
loss=(w*scale).sum()
alias=torch.from_dlpack(scale)
alias.fill_(9.)
loss.backward()
""",
        verdict="corrupts",
        line="alias.fill_(9.)",
        tasks="loss:wrong",
        leaves="w",
    ),
    "the array behind from_numpy, two tasks": Cell(
        HEAD
        + """
import numpy as np
buf=np.linspace(1,2,4,dtype=np.float32)
scale=torch.from_numpy(buf)
w=torch.randn(4,requires_grad=True)
loss_a=(w*scale).sum()
loss_b=w.pow(2).sum()
buf[:]=7
(loss_a+loss_b).backward()
""",
        verdict="corrupts",
        line="buf[:]=7",
        tasks="loss_a:wrong loss_b:ok",
        leaves="w",
    ),
    "a numpy alias of what exp saved": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
h=torch.exp(w)
a=h.detach().numpy()
loss=(h*2).sum()
a*=0.
loss.backward()
""",
        verdict="corrupts",
        line="a*=0.",
        saved="ExpBackward0 @ h=torch.exp(w)",
        tasks="loss:lost",
        leaves="w",
    ),
    "the untyped storage": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
h=torch.tanh(w)
loss=h.sum()
h.untyped_storage().fill_(0)
loss.backward()
""",
        verdict="corrupts",
        line="h.untyped_storage().fill_(0)",
        tasks="loss:wrong",
        leaves="w",
    ),
    "ctypes through data_ptr": Cell(
        HEAD
        + """
import ctypes
w=torch.randn(4,requires_grad=True)
scale=torch.rand(4)
loss=(w*scale).sum()
ctypes.memset(scale.data_ptr(),0,scale.nbytes)
loss.backward()
""",
        verdict="corrupts",
        line="ctypes.memset(scale.data_ptr(),0,scale.nbytes)",
        tasks="loss:lost",
        leaves="w",
    ),
    "a custom operator that declares nothing": Cell(
        HEAD
        + """
@torch.library.custom_op("ji_channels::undeclared", mutates_args=())
def undeclared(t: torch.Tensor) -> torch.Tensor:
    t.numpy()[:]=0
    return t.sum()
w=torch.randn(4,requires_grad=True)
scale=torch.rand(4)
loss=(w*scale).sum()
total=undeclared(scale)
loss.backward()
""",
        verdict="corrupts",
        line="t.numpy()[:]=0",
        tasks="loss:lost",
        leaves="w",
    ),
    "an activation standardised through numpy before the loss reads it": Cell(
        HEAD
        + """
enc=nn.Linear(3,2); head=nn.Linear(2,1); x=torch.randn(5,3)
feats=enc(x)
a=feats.detach().numpy()
a-=a.mean(axis=0)
loss=head(feats).pow(2).mean()
loss.backward()
""",
        verdict="cuts",
        line="a-=a.mean(axis=0)",
        tasks="loss:wrong",
        leaves="enc.weight enc.bias",
        probe=False,
        derivative=False,
    ),
    "an activation overwritten through its address": Cell(
        HEAD
        + """
import ctypes
w=torch.randn(4,requires_grad=True)
h=w*2
ctypes.memset(h.data_ptr(),0,8)
loss=h.exp().sum()
other_loss=w.sum()
(loss+other_loss).backward()
""",
        verdict="cuts",
        line="ctypes.memset(h.data_ptr(),0,8)",
        tasks="loss:wrong other_loss:ok",
        leaves="w",
        probe=False,
        derivative=False,
    ),
    "an environment that changes the array it has given out": Cell(
        HEAD
        + """
import numpy as np
class Env:
    def __init__(self):
        self.state=np.array([.1,-.2,.3],dtype=np.float32)
    def step(self,action):
        self.state+=.5*(action-.5)
        return self.state
policy=nn.Sequential(nn.Linear(3,4),nn.Tanh(),nn.Linear(4,2))
env=Env(); obs=env.state
logps=[]
for t in range(3):
    logps.append(policy(torch.from_numpy(obs)).log_softmax(-1)[0])
    obs=env.step(t)
loss=-(torch.stack(logps)*torch.tensor([1.,2.,3.])).sum()
loss.backward()
""",
        verdict="corrupts",
        line="self.state+=.5*(action-.5)",
        tasks="loss:wrong",
        leaves="policy.0.weight",
        derivative=False,
    ),
    "an array of an activation changed in each round of a loop": Cell(
        HEAD
        + """
net=nn.Linear(3,4); opt=torch.optim.SGD(net.parameters(),lr=.1)
kept=[]
for x in torch.randn(3,5,3):
    out=torch.sigmoid(net(x))
    loss=out.pow(2).mean()
    kept.append(loss)
    probs=out.detach().numpy()
    probs*=2.
    opt.zero_grad(); loss.backward(); opt.step()
""",
        verdict="corrupts",
        line="probs*=2.",
        tasks="loss:wrong",
        leaves="net.weight net.bias",
        derivative=False,
    ),
    "an array of the first activation, changed when others were written by torch": Cell(
        HEAD
        + """
net=nn.Linear(3,4); out=[]
for x in torch.randn(6,5,3):
    h=net(x); h.neg_(); out.append(h)
    if len(out)==1: first=h.detach().numpy()
first*=0.
loss=sum(h.pow(2).sum() for h in out)
loss.backward()
""",
        verdict="cuts",
        line="first*=0.",
        tasks="loss:wrong",
        leaves="net.weight net.bias",
        probe=False,
        derivative=False,
    ),
    "an array of a later activation, changed when others were written by torch": Cell(
        HEAD
        + """
net=nn.Linear(3,4); out=[]
for x in torch.randn(6,5,3):
    h=net(x); h.neg_(); out.append(h)
    if len(out)==3: third=h.detach().numpy()
third*=0.
loss=sum(h.pow(2).sum() for h in out)
loss.backward()
""",
        verdict="cuts",
        line="third*=0.",
        tasks="loss:wrong",
        leaves="net.weight net.bias",
        probe=False,
        derivative=False,
    ),
    "harmless: an array of an activation changed after its last reader": Cell(
        HEAD
        + """
net=nn.Linear(3,4); opt=torch.optim.SGD(net.parameters(),lr=.1)
losses=[]
for x in torch.randn(3,5,3):
    out=net(x)
    loss=out.mean()
    losses.append(loss.detach().numpy())
    probs=out.detach().numpy()
    probs-=probs.max()
    hit=(probs.argmax(1)==0).mean()
    opt.zero_grad(); loss.backward(); opt.step()
""",
        tasks="loss:ok",
    ),
    "harmless: an activation looked at through numpy, then written by torch": Cell(
        HEAD
        + """
net=nn.Linear(3,4); x=torch.randn(5,3)
out=net(x)
seen=out.detach().numpy()
out.mul_(2)
total=seen.sum()
loss=out.pow(2).mean()
loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: written before it is saved": Cell(
        HEAD
        + """
import numpy as np
w=torch.randn(4,requires_grad=True); x=torch.rand(4)
x.numpy()[:]=1
x.data.mul_(2)
loss=(w*x).sum(); loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: a batch buffer refilled after each backward": Cell(
        HEAD
        + """
import numpy as np
buf=np.zeros((4,3),dtype=np.float32); x=torch.from_numpy(buf)
net=nn.Linear(3,1); opt=torch.optim.SGD(net.parameters(),lr=.1)
for i in range(3):
    buf[:]=np.random.default_rng(i).normal(size=(4,3))
    loss=net(x).pow(2).mean(); opt.zero_grad(); loss.backward(); opt.step()
""",
        tasks="loss:ok",
    ),
    "harmless: the same values": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
h=torch.relu(w)
loss=h.sum()
h.data.clamp_(min=0)
loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: a copy goes to numpy": Cell(
        HEAD
        + """
w=torch.randn(4,requires_grad=True)
h=torch.exp(w)
a=h.detach().numpy().copy()
loss=h.sum()
a*=0.
loss.backward()
""",
        tasks="loss:ok",
    ),
    "harmless: weights from a vector before any forward": Cell(
        HEAD
        + """
from torch.nn.utils import parameters_to_vector, vector_to_parameters
net=nn.Linear(3,2)
vector_to_parameters(parameters_to_vector(net.parameters()).detach()*.5,net.parameters())
loss=net(torch.randn(4,3)).pow(2).mean(); loss.backward()
""",
        tasks="loss:ok",
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_aliases(cells, name):
    check(cells, CELLS[name])
