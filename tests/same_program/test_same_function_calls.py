"""Whoever follows functions of torch's, by a tensor class or a mode, is told of the same ones, by torch's own names for them."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
import torch
from sameness import same
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint

from jupyter_inplace import watch

seen: list[Any] = []


def own_name(func: Any) -> tuple[str, ...]:
    """What a function is: torch's own has another name than one that stands in for it."""
    of = getattr(func, "__self__", None)
    return (
        func.__class__.__name__,
        type(of).__name__,
        getattr(of, "__name__", ""),
        str(getattr(func, "__qualname__", func)),
    )


class Followed(torch.Tensor):
    """A class that is told of each function."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        seen.append(own_name(func))
        return super().__torch_function__(func, types, args, kwargs or {})


class Following(TorchFunctionMode):
    """A mode that is told of each function."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        seen.append(own_name(func))
        return func(*args, **(kwargs or {}))


def by_class(*shape):
    return torch.rand(*shape).as_subclass(Followed)


def flags_and_memory(make):
    x = make(3).requires_grad_(True)
    x.requires_grad_(False)
    x.requires_grad = True
    x.requires_grad = False
    x.requires_grad_()
    y = x * 2
    y.retain_grad()
    y.data.mul_(2)
    y.data = make(3)
    d = y.detach()
    d.numpy()
    d.untyped_storage()
    torch.detach(y)
    e = x * 1
    e.detach_()
    return x.requires_grad, y.requires_grad, d, e


def writes(make):
    w = make(3, 3).requires_grad_()
    h = (w @ make(3, 3)).sigmoid()
    kept = h.exp()
    h[0] = 0.5
    h.add_(0.1)
    with torch.no_grad():
        w.mul_(0.9)
        w[1].zero_()
    torch.add(w.detach(), 1, out=make(3, 3))
    return w, h, kept


def wrong_gradients(make):
    w = make(3, 3).requires_grad_()
    h = torch.sigmoid(w)
    loss = h.pow(2).sum()
    other = (h * w).sum()
    h.data.mul_(2)
    loss.backward(retain_graph=True)
    torch.autograd.backward([other])
    return w, w.grad


def refused(make):
    w = make(3, 3).requires_grad_()
    h = torch.sigmoid(w)
    loss = h.pow(2).sum()
    h.mul_(2)
    try:
        loss.backward()
    except RuntimeError:
        return w, torch.autograd.grad(w.sum(), [w])
    return w


def steps(make):
    w, b = make(3, 3).requires_grad_(), make(3).requires_grad_()
    optimizer = torch.optim.Adam([w, b], lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        loss = ((make(2, 3) @ w + b).tanh() ** 2).mean()
        loss.backward()
        nn.utils.clip_grad_norm_([w, b], 1.0)
        optimizer.step()
    return w, b, w.grad, optimizer.state_dict()


def frozen_for_one_task(make):
    w = make(3).requires_grad_()
    first, second = (w * 2).exp().sum(), (w * 3).exp().sum()
    kept = copy.deepcopy(w)
    first.backward()
    w.grad.zero_()
    w.requires_grad_(False)
    again = (w * 3).exp().sum()
    w.requires_grad_(True)
    second.backward()
    return w, kept, again


def checkpointed(make):
    w = make(3).requires_grad_()
    checkpoint.checkpoint(lambda t: t.exp().sin(), w, use_reentrant=False).sum().backward()
    return w, w.grad


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, t):
        ctx.kept = t
        ctx.save_for_backward(t)
        return t * 2

    @staticmethod
    def backward(ctx, g):
        (t,) = ctx.saved_tensors
        return g * 2 + 0 * t + 0 * ctx.kept


def python_in_backward(make):
    w = make(3).requires_grad_()
    h = w.exp()
    h.register_hook(lambda g: g.mul_(1))
    w.register_hook(lambda g: g * 2)
    w.register_post_accumulate_grad_hook(lambda t: t.grad.mul_(0.5))
    out = Doubled.apply(h)
    (out * h).sum().backward(retain_graph=True)
    torch.autograd.grad([out.sum()], [w])
    return w, w.grad


def arrays(make):
    w = make(3).requires_grad_()
    h = w.exp()
    array = h.detach().numpy()
    other = torch.from_numpy(array)
    loss = h.pow(2).sum()
    array[0] = 2
    loss.backward()
    torch.zeros(3).numpy()[:] = 1
    return w.grad, other


def in_a_device(make):
    with torch.device("meta"):
        shape = torch.zeros(2)
        w = make(3).requires_grad_()
        h = w.sigmoid()
        loss = h.sum()
        h.data.mul_(2)
        loss.backward()
    return shape.device.type, w.device.type


PROGRAMS = (
    flags_and_memory,
    writes,
    wrong_gradients,
    refused,
    steps,
    frozen_for_one_task,
    checkpointed,
    python_in_backward,
    arrays,
    in_a_device,
)


@pytest.mark.parametrize("part", PROGRAMS, ids=lambda part: part.__name__)
def test_a_class_that_follows_functions(part):
    def program():
        seen.clear()
        out = part(by_class)
        return out, list(seen)

    same(program)


@pytest.mark.parametrize("part", PROGRAMS, ids=lambda part: part.__name__)
def test_a_mode_that_follows_functions(part):
    def program():
        seen.clear()
        with Following():
            out = part(torch.rand)
        return out, list(seen)

    same(program)


def test_in_a_device():
    """Our own tensors are no part of a program that makes all of its tensors elsewhere."""
    w = torch.rand(3, requires_grad=True)
    with watch() as report, torch.device("meta"):
        h = w.sigmoid()
        loss = h.sum()
        h.data.mul_(2)
        loss.backward()
    assert (report.verdict, [row.status for row in report.gradients]) == ("corrupts", ["wrong"])


@pytest.mark.parametrize("around", [Following, contextlib.nullcontext])
def test_arrays_are_seen(around):
    w = torch.rand(3, requires_grad=True)
    with watch() as report, around():
        h = w.sigmoid()
        loss = h.sum()
        h.detach().numpy()[:] = 2
        loss.backward()
    assert report.verdict == "corrupts"
