"""Rewritten cells that run: their gradients are those of a cell written without any in-place operation."""

import contextlib
import warnings

import pytest
from rules_helper import cell_of, report

from jupyter_inplace.rewrite.candidates import candidates

torch = pytest.importorskip("torch")

HEAD = "import torch, torch.nn as nn\ntorch.manual_seed(0)\n"


def gradients(cell, leaves):
    """The gradients of named leaves after a cell was run on its own."""
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(cell, "<cell>", "exec"), names)
        return [eval(leaf, names).grad for leaf in leaves]


def outcomes(before, without, leaves, write):
    """The candidates of a cell, each with whether its gradients are those of the cell `without` in-place writes."""
    before, without = HEAD + cell_of(before), HEAD + cell_of(without)
    wanted = gradients(without, leaves)
    assert all(gradient is not None for gradient in wanted)
    with contextlib.suppress(RuntimeError):  # torch raises, or is silently wrong
        assert not all(map(torch.allclose, gradients(before, leaves), wanted)), "this cell needs no rewrite"
    found = []
    for candidate in candidates(before, report(before, write)):
        try:
            got = gradients(candidate.source, leaves)
        except Exception:
            got = [None]
        right = None not in got and all(torch.allclose(a, b, atol=1e-6) for a, b in zip(got, wanted, strict=True))
        found.append((candidate, right))
    return found


CELLS = {
    "a slot that reads its neighbour": (
        """
        w = torch.randn(3, requires_grad=True)
        x = torch.ones(4, 3)
        for i in range(1, 4):
            x[i] = torch.tanh(x[i - 1] * w)
        x.sum().backward()
        """,
        """
        w = torch.randn(3, requires_grad=True)
        a = torch.ones(3)
        b = torch.tanh(a * w)
        c = torch.tanh(b * w)
        (b + c + torch.tanh(c * w)).sum().backward()
        """,
        ["w"],
        {"text": "x[i]", "tensor": "x", "saved": "x[i - 1] * w"},
        {"clone", "out_of_place", "preserve"},
    ),
    "a residual that reads itself": (
        """
        w = torch.randn(3, requires_grad=True)
        h = w * 1.0
        h.add_(h.sigmoid() * h)
        h.sum().backward()
        """,
        """
        w = torch.randn(3, requires_grad=True)
        (w + w.sigmoid() * w).sum().backward()
        """,
        ["w"],
        {"text": "h.add_(h.sigmoid() * h)", "saved": "h.sigmoid() * h"},
        {"clone", "out_of_place", "preserve"},
    ),
    "rows of an unbound tensor": (
        """
        w = torch.randn(3, 2, requires_grad=True)
        x = w.exp()
        for k, row in enumerate(x):
            row.mul_(k)
        x.pow(2).sum().backward()
        """,
        """
        w = torch.randn(3, 2, requires_grad=True)
        (w.exp() * torch.arange(3.0)[:, None]).pow(2).sum().backward()
        """,
        ["w"],
        {"text": "row.mul_(k)", "tensor": "row", "verdict": "rejected", "leaves": ("w",)},
        {"out_of_place", "clone"},
    ),
    "a step between two backwards": (
        """
        net, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), torch.randn(5, 3, requires_grad=True)
        opt = torch.optim.SGD(net.parameters(), lr=0.5)
        y = net(x)
        a, b = y.pow(2).mean(), y.sin().mean()
        a.backward(retain_graph=True)
        opt.step()
        b.backward()
        """,
        """
        net, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), torch.randn(5, 3, requires_grad=True)
        y = net(x)
        (y.pow(2).mean() + y.sin().mean()).backward()
        """,
        ["x", "net[0].weight", "net[2].weight"],
        {"text": "opt.step()", "tensor": "net.2.weight", "saved": "net(x)", "op": "SGD.step", "tasks": ("b",)},
        {"reorder", "clone", "preserve"},
    ),
    "one buffer of noise for two samples": (
        """
        w = torch.ones(3, requires_grad=True)
        noise = torch.empty(3)
        def sample():
            noise.normal_()
            return (noise * w).pow(2).sum()
        (sample() + sample()).backward()
        """,
        """
        w = torch.ones(3, requires_grad=True)
        ((torch.randn(3) * w).pow(2).sum() + (torch.randn(3) * w).pow(2).sum()).backward()
        """,
        ["w"],
        {"text": "noise.normal_()", "tensor": "noise", "saved": "noise * w"},
        {"out_of_place", "clone", "preserve"},
    ),
    "evaluation, then training, of one batch norm": (
        """
        bn, s = nn.BatchNorm1d(2), torch.tensor(1.5, requires_grad=True)
        x, y = torch.randn(4, 2), torch.randn(8, 2) * 5
        bn.eval()
        a = bn(s * x).pow(2).mean()
        bn.train()
        b = bn(y).pow(3).mean()
        (a + b).backward()
        """,
        """
        bn, s = nn.BatchNorm1d(2), torch.tensor(1.5, requires_grad=True)
        x, y = torch.randn(4, 2), torch.randn(8, 2) * 5
        a = (s * x / (1 + 1e-5) ** 0.5).pow(2).mean()
        a.backward()
        """,
        ["s"],
        {"text": "bn(y)", "tensor": "bn.running_mean", "op": "aten.native_batch_norm.default", "saved": "bn(s * x)",
         "saved_as": "running_mean", "verdict": "corrupts", "tasks": ("a",)},
        {"reorder", "clone", "preserve"},
    ),
    "a checkpointed function that counts": (
        """
        from torch.utils.checkpoint import checkpoint
        w, count = torch.ones(3, requires_grad=True), torch.ones(3)
        def block(h):
            count.add_(1)
            return torch.tanh(h * count)
        checkpoint(block, w * 1.0, use_reentrant=False).sum().backward()
        """,
        """
        w = torch.ones(3, requires_grad=True)
        torch.tanh(w * 2).sum().backward()
        """,
        ["w"],
        {"text": "count.add_(1)", "tensor": "count", "verdict": "corrupts"},
        {"reorder"},
    ),
    "a detached activation that is read again": (
        """
        w = torch.randn(3, requires_grad=True)
        h = w * 2
        a = h.detach()
        a.clamp_(-0.5, 0.5)
        h.pow(2).sum().backward()
        """,
        """
        w = torch.randn(3, requires_grad=True)
        (w * 2).clamp(-0.5, 0.5).pow(2).sum().backward()
        """,
        ["w"],
        {"text": "a.clamp_(-0.5, 0.5)", "tensor": "h", "verdict": "cuts"},
        {"out_of_place"},
    ),
    "a method whose step goes out to its caller": (
        """
        class Two:
            def __init__(self):
                self.net = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 1))
                self.opt = torch.optim.SGD(self.net.parameters(), lr=1.0)
                self.y = self.net(torch.ones(3, 2))
            def first(self):
                self.y.mean().backward(retain_graph=True)
                self.opt.step()
            def second(self):
                self.y.pow(2).mean().backward()
        two = Two()
        two.first()
        two.second()
        """,
        """
        class Two:
            net = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 1))
        two = Two()
        y = two.net(torch.ones(3, 2))
        (y.mean() + y.pow(2).mean()).backward()
        """,
        ["two.net[0].weight"],
        {"text": "self.opt.step()", "tensor": "two.net.2.weight", "saved": "self.net(torch.ones(3, 2))", "op": "SGD.step"},
        {"reorder", "clone", "preserve"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("before", "without", "leaves", "write", "kinds"), CELLS.values(), ids=CELLS)
def test_a_candidate_of_each_kind_is_right(before, without, leaves, write, kinds):
    found = outcomes(before, without, leaves, write)
    right = {candidate.kind for candidate, is_right in found if is_right}
    assert kinds <= right, [(candidate.kind, candidate.title, is_right) for candidate, is_right in found]


def test_the_two_readings_of_a_rejected_write():
    """The update gives x + y, the copy x + 2y."""
    cell = HEAD + cell_of(
        """
        x, y = torch.randn(3, 5), torch.randn(3, 5)
        w = torch.randn(5, requires_grad=True)
        a = (x @ w).sum()
        w.mul_(2)
        b = (y @ w).sum()
        (a + b).backward()
        """
    )
    torch.manual_seed(0)
    x, y = torch.randn(3, 5).sum(0), torch.randn(3, 5).sum(0)
    found = candidates(
        cell, report(cell, {"text": "w.mul_(2)", "tensor": "w", "leaves": ("w",), "verdict": "rejected"})
    )
    first = {reading: next(c for c in found if c.reading == reading) for reading in ("update", "copy")}
    torch.testing.assert_close(gradients(first["update"].source, ["w"])[0], x + y)
    torch.testing.assert_close(gradients(first["copy"].source, ["w"])[0], x + 2 * y)
