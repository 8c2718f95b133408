"""Ordinary training: nothing is said, and every number is the one that the program has unwatched."""

from __future__ import annotations

import contextlib
import io
import warnings

import pytest
import torch
from cell_oracle import HEAD, watched

LOOPS = {
    "CNN with batch norm and in-place ReLU": """
net=nn.Sequential(nn.Conv2d(1,4,3),nn.BatchNorm2d(4),nn.ReLU(inplace=True),nn.MaxPool2d(2),nn.Flatten(),nn.Linear(36,3))
opt=torch.optim.SGD(net.parameters(),lr=.1,momentum=.9)
for i in range(3):
    x=torch.randn(4,1,8,8); y=torch.tensor([0,1,2,0])
    opt.zero_grad(); loss=F.cross_entropy(net(x),y); loss.backward(); opt.step()
net.eval()
with torch.no_grad(): acc=(net(x).argmax(1)==y).float().mean()
""",
    "ResNet blocks": """
class Block(nn.Module):
    def __init__(self,c):
        super().__init__(); self.c1=nn.Conv2d(c,c,3,padding=1,bias=False); self.b1=nn.BatchNorm2d(c)
        self.c2=nn.Conv2d(c,c,3,padding=1,bias=False); self.b2=nn.BatchNorm2d(c); self.relu=nn.ReLU(inplace=True)
    def forward(self,x):
        out=self.relu(self.b1(self.c1(x))); out=self.b2(self.c2(out)); out+=x
        return self.relu(out)
net=nn.Sequential(nn.Conv2d(1,3,3),Block(3),Block(3),nn.AdaptiveAvgPool2d(1),nn.Flatten(),nn.Linear(3,2))
opt=torch.optim.AdamW(net.parameters(),lr=.01); sched=torch.optim.lr_scheduler.CosineAnnealingLR(opt,4)
for i in range(2):
    loss=F.cross_entropy(net(torch.randn(4,1,6,6)),torch.tensor([0,1,1,0])); opt.zero_grad(); loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(),1.); opt.step(); sched.step()
""",
    "transformer with dropout": """
net=nn.TransformerEncoder(nn.TransformerEncoderLayer(8,2,16,dropout=.2,batch_first=True),2,enable_nested_tensor=False)
emb=nn.Embedding(10,8); head=nn.Linear(8,10)
opt=torch.optim.Adam([*emb.parameters(),*net.parameters(),*head.parameters()],lr=.01)
for i in range(2):
    ids=torch.randint(10,(2,5)); mask=nn.Transformer.generate_square_subsequent_mask(5)
    loss=F.cross_entropy(head(net(emb(ids),mask)).view(-1,10),ids.roll(-1,1).view(-1)); opt.zero_grad(); loss.backward(); opt.step()
""",
    "LSTM, truncated": """
lstm=nn.LSTM(3,4,2,dropout=.1); head=nn.Linear(4,1); opt=torch.optim.RMSprop([*lstm.parameters(),*head.parameters()],lr=.01)
state=None
for i in range(3):
    out,state=lstm(torch.randn(5,2,3),state); state=tuple(s.detach_() for s in state)
    loss=head(out).pow(2).mean(); opt.zero_grad(); loss.backward(); opt.step()
""",
    "GRU cell by hand": """
cell=nn.GRUCell(3,4); opt=torch.optim.Adagrad(cell.parameters(),lr=.1)
for i in range(2):
    h=torch.zeros(2,4); loss=0.
    for t in range(4):
        h=cell(torch.randn(2,3),h); loss=loss+h.pow(2).mean()
    opt.zero_grad(); loss.backward(); opt.step()
""",
    "GAN done right": """
g=nn.Sequential(nn.Linear(2,4),nn.BatchNorm1d(4),nn.ReLU(True),nn.Linear(4,3)); d=nn.Sequential(nn.Linear(3,4),nn.LeakyReLU(.2,True),nn.Linear(4,1))
og=torch.optim.Adam(g.parameters()); od=torch.optim.Adam(d.parameters()); bce=nn.BCEWithLogitsLoss()
for i in range(2):
    fake=g(torch.randn(4,2))
    od.zero_grad(); loss_real=bce(d(torch.randn(4,3)),torch.ones(4,1)); loss_real.backward()
    loss_fake=bce(d(fake.detach()),torch.zeros(4,1)); loss_fake.backward(); od.step()
    og.zero_grad(); loss_g=bce(d(fake),torch.ones(4,1)); loss_g.backward(); og.step()
""",
    "Wasserstein GAN with clipped weights": """
g=nn.Linear(2,3); d=nn.Linear(3,1); og=torch.optim.RMSprop(g.parameters(),lr=.01); od=torch.optim.RMSprop(d.parameters(),lr=.01)
for i in range(2):
    loss_d=d(g(torch.randn(4,2)).detach()).mean()-d(torch.randn(4,3)).mean()
    od.zero_grad(); loss_d.backward(); od.step()
    for p in d.parameters(): p.data.clamp_(-.01,.01)
    loss_g=-d(g(torch.randn(4,2))).mean(); og.zero_grad(); loss_g.backward(); og.step()
""",
    "gradient accumulation": """
net=nn.Linear(3,1); opt=torch.optim.SGD(net.parameters(),lr=.1)
for i in range(4):
    loss=net(torch.randn(4,3)).pow(2).mean()/2; loss.backward()
    if i%2: opt.step(); opt.zero_grad()
""",
    "exponential moving average": """
import copy
net=nn.Sequential(nn.Linear(3,4),nn.BatchNorm1d(4),nn.Linear(4,1)); ema=copy.deepcopy(net); opt=torch.optim.SGD(net.parameters(),lr=.1)
for p in ema.parameters(): p.requires_grad_(False)
for i in range(2):
    x=torch.randn(4,3); target=ema(x)
    loss=F.mse_loss(net(x),target); opt.zero_grad(); loss.backward(); opt.step()
    with torch.no_grad():
        for p,q in zip(ema.parameters(),net.parameters()): p.mul_(.9).add_(q,alpha=.1)
        for p,q in zip(ema.buffers(),net.buffers()): p.copy_(q)
""",
    "AMP on the CPU": """
net=nn.Sequential(nn.Linear(3,4),nn.ReLU(True),nn.Linear(4,1)); opt=torch.optim.SGD(net.parameters(),lr=.1); scaler=torch.amp.GradScaler("cpu")
for i in range(2):
    with torch.autocast("cpu",dtype=torch.bfloat16): loss=net(torch.randn(4,3)).float().pow(2).mean()
    opt.zero_grad(); scaler.scale(loss).backward(); scaler.unscale_(opt); nn.utils.clip_grad_norm_(net.parameters(),1.)
    scaler.step(opt); scaler.update()
""",
    "LBFGS with a closure": """
w=torch.randn(3,requires_grad=True); opt=torch.optim.LBFGS([w],max_iter=3)
def closure():
    opt.zero_grad(); loss=(w-1).pow(2).sum(); loss.backward(); return loss
for i in range(2): opt.step(closure)
""",
    "two tasks, one sum": """
enc=nn.Sequential(nn.Linear(3,4),nn.ReLU(True)); ha=nn.Linear(4,1); hb=nn.Linear(4,2)
opt=torch.optim.Adam([*enc.parameters(),*ha.parameters(),*hb.parameters()])
for i in range(2):
    h=enc(torch.randn(5,3)); loss_a=ha(h).pow(2).mean(); loss_b=F.cross_entropy(hb(h),torch.tensor([0,1,0,1,0]))
    opt.zero_grad(); (loss_a+.5*loss_b).backward(); opt.step()
""",
    "LoRA on a frozen layer": """
base=nn.Linear(4,4).requires_grad_(False); a=nn.Parameter(torch.randn(4,2)*.1); b=nn.Parameter(torch.zeros(2,4)); opt=torch.optim.AdamW([a,b],lr=.1)
for i in range(2):
    x=torch.randn(3,4); loss=(base(x)+x@a@b).pow(2).mean(); opt.zero_grad(); loss.backward(); opt.step()
""",
    "straight-through estimator": """
enc=nn.Linear(3,4); dec=nn.Linear(4,3); opt=torch.optim.SGD([*enc.parameters(),*dec.parameters()],lr=.1)
for i in range(2):
    x=torch.randn(5,3); z=enc(x); q=z+(torch.sign(z)-z).detach()
    loss=F.mse_loss(dec(q),x); opt.zero_grad(); loss.backward(); opt.step()
""",
    "codebook updated by moving averages": """
enc=nn.Linear(3,4); dec=nn.Linear(4,3); book=torch.randn(6,4); counts=torch.ones(6); opt=torch.optim.SGD([*enc.parameters(),*dec.parameters()],lr=.1)
for i in range(2):
    x=torch.randn(5,3); z=enc(x); ids=torch.cdist(z.detach(),book).argmin(1); e=book[ids]
    q=z+(e-z).detach(); loss=F.mse_loss(dec(q),x)+.25*F.mse_loss(z,e)
    opt.zero_grad(); loss.backward(); opt.step()
    with torch.no_grad():
        counts.mul_(.9).add_(torch.bincount(ids,minlength=6),alpha=.1)
        book.index_add_(0,ids,(z.detach()-e)*.1)
""",
    "target network": """
q=nn.Linear(3,2); target=nn.Linear(3,2); target.load_state_dict(q.state_dict()); opt=torch.optim.Adam(q.parameters())
for i in range(2):
    s,s2,r=torch.randn(4,3),torch.randn(4,3),torch.randn(4)
    with torch.no_grad(): y=r+.9*target(s2).max(1).values
    loss=F.smooth_l1_loss(q(s).gather(1,torch.zeros(4,1,dtype=torch.long)).squeeze(1),y); opt.zero_grad(); loss.backward(); opt.step()
    for p,t in zip(q.parameters(),target.parameters()): t.data.mul_(.99).add_(p.data,alpha=.01)
""",
    "features cached under no_grad": """
backbone=nn.Linear(3,4); head=nn.Linear(4,2); cache=torch.zeros(6,4); data=torch.randn(6,3); opt=torch.optim.SGD(head.parameters(),lr=.1)
with torch.no_grad():
    for i in range(3): cache[2*i:2*i+2]=backbone(data[2*i:2*i+2])
for i in range(2):
    loss=F.cross_entropy(head(cache),torch.tensor([0,1,0,1,0,1])); opt.zero_grad(); loss.backward(); opt.step()
""",
    "spectral norm": """
net=nn.Sequential(nn.utils.spectral_norm(nn.Linear(3,4)),nn.ReLU(),nn.utils.parametrizations.spectral_norm(nn.Linear(4,1))); opt=torch.optim.SGD(net.parameters(),lr=.1)
for i in range(2):
    loss=net(torch.randn(4,3)).pow(2).mean(); opt.zero_grad(); loss.backward(); opt.step()
""",
    "metrics kept on the side": """
net=nn.Linear(3,2); opt=torch.optim.SGD(net.parameters(),lr=.1); total=torch.zeros(()); confusion=torch.zeros(2,2,dtype=torch.long); history=[]
for i in range(3):
    x,y=torch.randn(4,3),torch.tensor([0,1,1,0]); out=net(x); loss=F.cross_entropy(out,y)
    opt.zero_grad(); loss.backward(); opt.step()
    total+=loss.detach(); confusion[y,out.argmax(1)]+=1; history.append(loss.item())
""",
    "gradient penalty": """
d=nn.Sequential(nn.Linear(3,4),nn.Tanh(),nn.Linear(4,1)); opt=torch.optim.Adam(d.parameters())
for i in range(2):
    x=torch.randn(4,3,requires_grad=True); out=d(x)
    g,=torch.autograd.grad(out.sum(),x,create_graph=True); loss=out.mean()+10*(g.norm(dim=1)-1).pow(2).mean()
    opt.zero_grad(); loss.backward(); opt.step()
""",
    "sparse embeddings": """
emb=nn.EmbeddingBag(10,3,sparse=True); opt=torch.optim.SparseAdam(list(emb.parameters()))
for i in range(2):
    loss=emb(torch.randint(10,(2,4))).pow(2).mean(); opt.zero_grad(); loss.backward(); opt.step()
""",
    "weights initialised in place": """
net=nn.Sequential(nn.Linear(3,4),nn.Linear(4,1))
for m in net: nn.init.kaiming_uniform_(m.weight); m.bias.data.fill_(.1)
with torch.no_grad(): net[0].weight[0]=0
loss=net(torch.randn(4,3)).mean(); loss.backward()
""",
    "stochastic weight averaging": """
from torch.optim.swa_utils import AveragedModel, update_bn
net=nn.Sequential(nn.Linear(3,4),nn.BatchNorm1d(4),nn.Linear(4,1)); swa=AveragedModel(net); opt=torch.optim.SGD(net.parameters(),lr=.1)
for i in range(2):
    loss=net(torch.randn(4,3)).pow(2).mean(); opt.zero_grad(); loss.backward(); opt.step(); swa.update_parameters(net)
update_bn([torch.randn(4,3)],swa)
""",
    "gradients of each task kept as clones": """
enc=nn.Linear(3,4); x=torch.randn(5,3); h=enc(x); losses=[h.pow(2).mean(),h.abs().mean()]; grads=[]
for loss in losses:
    enc.zero_grad(); loss.backward(retain_graph=True); grads.append(torch.cat([p.grad.flatten() for p in enc.parameters()]).clone())
cos=F.cosine_similarity(grads[0],grads[1],dim=0)
""",
}


@pytest.mark.parametrize("name", LOOPS)
def test_nothing_is_said(cells, name):
    report = watched(cells, HEAD + LOOPS[name])
    assert report["error"] is None
    assert report["verdict"] in ("harmless", "mixes"), report["summary"]
    assert {task["status"] for task in report["tasks"]} <= {"ok"}, report["summary"]
    assert not [note for note in report["blind_spots"] if "recorder failed" in note or "could not be" in note]
    alone = _alone(HEAD + LOOPS[name])
    with_watch = _numbers(cells.ns)
    assert alone
    assert set(alone) <= set(with_watch)
    for key, value in alone.items():
        assert torch.equal(value, with_watch[key]), key


def _alone(source):
    space = {"__name__": "__main__"}
    torch.manual_seed(0)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        exec(compile(source, "<cell>", "exec"), space)
    return _numbers(space)


def _numbers(space):
    """Every tensor, parameter, buffer and gradient that a name holds."""
    found = {}
    for name, value in list(space.items()):
        if name.startswith("_"):
            continue
        if isinstance(value, torch.nn.Module):
            found |= {f"{name}.{path}": t for path, t in value.state_dict().items() if isinstance(t, torch.Tensor)}
            found |= {f"{name}.{path}.grad": p.grad for path, p in value.named_parameters() if p.grad is not None}
        elif isinstance(value, torch.Tensor):
            found[name] = value
    return {
        key: (t.to_dense() if t.layout is not torch.strided else t).detach().clone()
        for key, t in found.items()
        if isinstance(t, torch.Tensor)
    }
