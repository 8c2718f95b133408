"""Which values a node reads in a walk: programs in which the ways to a value meet, against the same programs without the write."""

from __future__ import annotations

import pytest
import torch

from jupyter_inplace import watch


class _ReadsTwice(torch.autograd.Function):
    """One tensor, saved as torch asks and kept as an attribute besides."""

    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x)
        ctx.kept = y
        return x * y

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * ctx.kept, g * x


class _ReadsSaved(_ReadsTwice):
    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 2, g * x


class _ReadsAttribute(_ReadsTwice):
    @staticmethod
    def backward(ctx, g):
        ctx.saved_tensors
        return g * ctx.kept, g * 3


def _grads(function, harm):
    w, v = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([3.0, 4.0], requires_grad=True)
    h = w * 2
    t = h * 1
    loss = (function.apply(t, t) * v).sum()
    harm(t)
    return w, v, loss


@pytest.mark.parametrize("function", [_ReadsTwice, _ReadsSaved, _ReadsAttribute])
@pytest.mark.parametrize("harm", [lambda t: t.data.mul_(5), lambda t: t.data.mul_(1), lambda t: None])
def test_against_the_program_with_and_without_the_write(function, harm):
    w, v, loss = _grads(function, lambda t: None)
    loss.backward()
    meant = {"w": w.grad, "v": v.grad}
    w, v, loss = _grads(function, harm)
    loss.backward()
    actual = {"w": w.grad, "v": v.grad}
    with watch(namespace={}) as report:
        w, v, loss = _grads(function, harm)
        loss.backward()
    assert torch.equal(w.grad, actual["w"])
    wrong = not torch.equal(meant["w"], actual["w"])
    assert report.verdict == ("corrupts" if wrong else "harmless")
    if wrong:
        found = sorted((row.norm_as_run, row.norm_reference) for row in report.gradients)
        expected = sorted((float(actual[k].norm()), float(meant[k].norm())) for k in ("w", "v"))
        assert [x for pair in found for x in pair] == pytest.approx([x for pair in expected for x in pair])
