"""`rewind` puts back what a cell changed: the same objects on the same memory, and names the rest."""

import random
import sys

import numpy as np
import pytest
import torch

from jupyter_inplace.rewrite.rewind.rewind import RewindError, rewind
from jupyter_inplace.rewrite.sandbox.snapshot import Snapshot

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forking is for Linux")


def run(before, cell):
    """Run `cell` after `before`, rewind; the namespace, what rewind says, and the identities from before the cell."""
    namespace = {"torch": torch, "np": np, "random": random}
    exec(before, namespace)
    identities = {name: id(value) for name, value in namespace.items()}
    with Snapshot.take(namespace) as snapshot:
        exec(cell, namespace)
        return namespace, rewind(snapshot, namespace), identities


def test_tensors_written_in_place():
    names, rewound, identities = run(
        "x = torch.arange(4.0); v = x[1:]; w = torch.ones(2, requires_grad=True); k = torch.tensor([1, 2])\np = x.data_ptr()",
        "v.mul_(5)\nw.data.add_(1)\nk[0] = 7",
    )
    assert names["x"].tolist() == [0, 1, 2, 3]
    assert names["v"].tolist() == [1, 2, 3]
    assert names["w"].tolist() == [1, 1]
    assert names["k"].tolist() == [1, 2]
    assert names["x"].data_ptr() == names["p"]
    assert {n: id(v) for n, v in names.items()} == identities
    assert set(rewound.restored) == {"x", "v", "w", "k"}
    assert rewound.left == ()


def test_nothing_changed():
    _, rewound, _ = run("x = torch.arange(4.0); n = 3; l = [x, 1]", "y = x * 2")
    assert rewound.restored == ()
    assert str(rewound) == "nothing had changed"


def test_training_step():
    before = """\
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(), torch.nn.Linear(4, 1))
opt = torch.optim.Adam(net.parameters(), lr=0.1)
sched = torch.optim.lr_scheduler.StepLR(opt, 1)
x = torch.randn(8, 3)
def step():
    opt.zero_grad()
    net(x).pow(2).mean().backward()
    opt.step()
    sched.step()
    return net(x).detach().clone()
if WARM: step()
net.eval()
"""
    cell = "net.train()\nfor _ in range(3): last = step()"
    for warm in ("True", "False"):
        names, rewound, identities = run(before.replace("WARM", warm), cell)
        assert rewound.left == ()
        assert not names["net"].training
        assert names["opt"].param_groups[0]["lr"] == pytest.approx(0.01 if warm == "True" else 0.1)
        assert len(names["opt"].state) == (6 if warm == "True" else 0)
        assert id(names["net"][0].weight) == id(names["opt"].param_groups[0]["params"][0])
        assert (names["net"][0].weight.grad is None) == (warm == "False")
        assert id(names["opt"]) == identities["opt"]
        first = names["last"]
        exec(cell, names)
        assert torch.equal(names["last"], first)  # the same state and the same random numbers as the first time


def test_random_generators():
    names, _, _ = run(
        "g = torch.Generator().manual_seed(1); n = np.random.default_rng(1)\nrandom.seed(1); np.random.seed(1); torch.manual_seed(1)",
        "def draw(): return (random.random(), float(np.random.rand()), float(torch.rand(())),"
        " float(torch.rand((), generator=g)), float(n.random()))\nfirst = draw()",
    )
    assert names["draw"]() == names["first"]


def test_rebound_and_deleted_names():
    names, rewound, _ = run(
        "x = torch.arange(3.0, requires_grad=True); n = 5; text = 'a'; l = [1, 2]; p = torch.nn.Parameter(torch.ones(2)); d = {'k': n}",
        "x = x * 2\nn += 1\ntext = 'b'\nl = l + [3]\ndel p\nd['k'] = 9\nd['new'] = x",
    )
    assert names["x"].tolist() == [0, 1, 2]
    assert names["x"].is_leaf
    assert names["x"].requires_grad
    assert (names["n"], names["text"], names["l"], names["d"]) == (5, "a", [1, 2], {"k": 5})
    assert isinstance(names["p"], torch.nn.Parameter)
    assert rewound.left == ()


def test_flags_geometry_and_replaced_memory():
    names, rewound, identities = run(
        "a = torch.ones(2, 3); b = torch.ones(3, requires_grad=True); c = torch.zeros(3); e = torch.arange(3.0)",
        "a.unsqueeze_(0)\nb.requires_grad_(False)\nc.data = torch.ones(5)\ne.requires_grad_()\ne.grad = torch.ones(3)",
    )
    assert names["a"].shape == (2, 3)
    assert names["b"].requires_grad
    assert names["c"].tolist() == [0, 0, 0]
    assert not names["e"].requires_grad
    assert {n: id(v) for n, v in names.items()} == identities
    assert rewound.left == ()


def test_objects_and_arrays():
    before = """\
class State: pass
s = State(); s.epoch = 0; s.best = None; s.w = torch.zeros(2); s.history = []
arr = np.arange(4.0)
t = torch.from_numpy(arr)
counts = {1, 2}
"""
    names, rewound, identities = run(
        before, "s.epoch = 3; s.best = 0.5; s.w += 1; s.history.append(1.0); arr[0] = 9; counts.add(5); s.extra = 1"
    )
    s = names["s"]
    assert (s.epoch, s.best, s.w.tolist(), s.history) == (0, None, [0, 0], [])
    assert not hasattr(s, "extra")
    assert names["arr"].tolist() == [0, 1, 2, 3]
    assert names["t"].data_ptr() == names["arr"].__array_interface__["data"][0]
    assert names["counts"] == {1, 2}
    assert id(s) == identities["s"]
    assert rewound.left == ()


def test_what_cannot_be_put_back_is_named():
    names, rewound, _ = run(
        "w = torch.ones(2, requires_grad=True); loss = (w * w).sum()\nclass Log:\n    pass\nlog = Log()",
        "loss.backward()\nlog = Log()",
    )
    assert names["w"].grad is None
    assert any(text.startswith("loss ") and "graph" in text for text in rewound.left)
    assert any(text.startswith("log ") for text in rewound.left)
    assert "put back" in str(rewound)


def test_graphs_that_saved_a_tensor_know_that_it_was_written():
    names, _, _ = run("x = torch.ones(3)", "w = torch.ones(3, requires_grad=True)\nx.mul_(2)\nloss = (w * x).sum()")
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        names["loss"].backward()


def test_a_snapshot_that_is_gone():
    snapshot = Snapshot.take({})
    snapshot.close()
    with pytest.raises(RewindError, match="was cancelled"):
        rewind(snapshot, {})
