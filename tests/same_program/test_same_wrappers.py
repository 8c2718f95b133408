"""Tensors without memory of their own: subclasses whose values lie in other tensors. Reading below their class is a segmentation fault."""

from __future__ import annotations

import threading
import warnings

import pytest
import torch
import torch.distributed as dist
from sameness import same
from torch import nn
from torch.distributed.tensor import Replicate, distribute_tensor, init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint


class Around(torch.Tensor):
    """A wrapper without a protocol to take it apart, as torch's own LoggingTensor."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), dtype=inner.dtype, device=inner.device, requires_grad=inner.requires_grad
        )  # fmt: skip
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        def unwrap(x):
            return x.inner if isinstance(x, Around) else x

        def wrap(x):
            return Around(x) if isinstance(x, torch.Tensor) and not isinstance(x, Around) else x

        out = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs or {}))
        return args[0] if func._schema.is_mutable else tree_map(wrap, out)


class Hidden(Around):
    """The same, and nobody finds what it wraps."""

    held: dict[int, torch.Tensor] = {}  # noqa: RUF012

    @staticmethod
    def __new__(cls, inner):
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), dtype=inner.dtype, device=inner.device, requires_grad=inner.requires_grad
        )  # fmt: skip
        Hidden.held[id(made)] = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        def unwrap(x):
            return Hidden.held[id(x)] if isinstance(x, Hidden) else x

        def wrap(x):
            return Hidden(x) if isinstance(x, torch.Tensor) and not isinstance(x, Hidden) else x

        out = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs or {}))
        return args[0] if func._schema.is_mutable else tree_map(wrap, out)


@pytest.fixture(scope="module")
def one_rank():
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.fixture(params=["two", "two of two", "around", "hidden", "distributed"])
def wrap(request):
    """Makes a wrapper of a plain tensor."""
    if request.param == "distributed":
        mesh = request.getfixturevalue("one_rank")
        return lambda t: distribute_tensor(t, mesh, [Replicate()])
    return {
        "two": lambda t: TwoTensor(t, t.clone()),
        "two of two": lambda t: TwoTensor(TwoTensor(t, t.clone()), TwoTensor(t.clone(), t.clone())),
        "around": Around,
        "hidden": Hidden,
    }[request.param]


def plain(t):
    """The values of a wrapper, as a plain tensor."""
    if isinstance(t, Hidden):
        return Hidden.held[id(t)]
    if isinstance(t, Around):
        return t.inner
    if isinstance(t, TwoTensor):
        return plain(t.a)
    return t._local_tensor if hasattr(t, "_local_tensor") else t


class Scale(torch.autograd.Function):
    """Reads a wrapper on its `ctx`, and one that it names."""

    factor = None

    @staticmethod
    def forward(ctx, x):
        ctx.x = x
        ctx.twice = x * 2
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2 * (ctx.x == ctx.x) * (ctx.twice == ctx.twice)


def of_integers(wrap):
    x = wrap(torch.arange(6))
    x.add_(1)
    x[0] = 7
    return plain(x)


def of_masks(wrap):
    return plain(wrap(torch.ones(3)).eq(wrap(torch.ones(3))).logical_not_())


def saved_and_written(wrap):
    x = wrap(torch.randn(3)).requires_grad_()
    h = x.exp()
    loss = h.sum()
    h.mul_(2)
    loss.backward()


def saved_and_written_through_an_alias(wrap):
    x = wrap(torch.randn(3)).requires_grad_()
    h = x.exp()
    loss = h.sum()
    h.detach().mul_(2)
    loss.backward()


def saved_and_written_inside(wrap):
    x = wrap(torch.randn(3)).requires_grad_()
    h = x.exp()
    loss = h.sum()
    plain(h).mul_(2)
    loss.backward()
    return plain(x.grad)


def gradients_of_leaves(wrap):
    x = wrap(torch.randn(3)).requires_grad_()
    for _ in range(3):
        (x * 2).sum().backward()
        kept = x.grad
        x.grad.mul_(0.5)
    x.grad.zero_()
    return plain(kept), plain(x.grad)


def gradients_of_nonleaves(wrap):
    x = wrap(torch.randn(3)).requires_grad_()
    h = x * 2
    first, second = torch.autograd.grad(h + x, (h, x), grad_outputs=wrap(torch.ones(3)))
    first.mul_(2)
    return plain(first), plain(second)


def training(wrap):
    w = nn.Parameter(wrap(torch.randn(4)))
    optimizer = torch.optim.SGD([w], lr=0.1, momentum=0.9)
    average = w.detach().clone()
    for _ in range(3):
        (w * w).sum().backward()
        nn.utils.clip_grad_norm_([w], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        with torch.no_grad():
            average.mul_(0.9).add_(w, alpha=0.1)
    return plain(w), plain(average)


def frozen_and_detached(wrap):
    w = wrap(torch.randn(3)).requires_grad_()
    h = w * 2
    h.detach_()
    h.mul_(3)
    w.requires_grad_(False)
    w.add_(1)
    w.data = wrap(torch.zeros(3))
    return plain(h), plain(w)


def functions_and_checkpoints(wrap):
    x = wrap(torch.randn(3)).requires_grad_()
    y = Scale.apply(x)
    y = checkpoint(lambda t: t.exp() * x, y, use_reentrant=False)
    y.sum().backward()
    return plain(x.grad)


def hooks_that_write(wrap):
    x = wrap(torch.randn(3)).requires_grad_()
    h = x * 2
    h.register_hook(lambda g: g.mul_(2))
    (h + x).sum().backward()
    return plain(x.grad)


def other_threads(wrap):
    x = wrap(torch.randn(3)).requires_grad_()
    h = x.exp()
    loss = h.sum()
    thread = threading.Thread(target=lambda: h.detach().mul_(1))
    thread.start()
    thread.join()
    return plain(loss.detach())


PROGRAMS = [
    of_integers, of_masks, saved_and_written, saved_and_written_through_an_alias, saved_and_written_inside, gradients_of_leaves,
    gradients_of_nonleaves, training, frozen_and_detached, functions_and_checkpoints, hooks_that_write, other_threads,
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=[program.__name__ for program in PROGRAMS])
def test_programs_with_wrappers(program, wrap):
    def once():
        Hidden.held.clear()
        return program(wrap)

    same(once)


@pytest.mark.parametrize("program", [saved_and_written, saved_and_written_through_an_alias])
def test_a_write_to_a_wrapper_is_found_by_what_it_holds(program):
    def once():
        program(lambda t: TwoTensor(t, t.clone()))

    report = same(once)
    assert report.verdict == "breaks"
    assert report.mutations[0].versions == (0, 1)


@pytest.mark.parametrize("make", [lambda t: TwoTensor(t, t.clone()), Around, Hidden])
def test_a_silent_write_below_a_wrapper_is_said(make):
    def once():
        return saved_and_written_inside(make)

    report = same(once)
    # What nobody can find is not found to be written: the class keeps it from everybody, and is said where it is written itself.
    assert any("overwritten" in line for line in report.blind_spots) or make is Hidden


def jagged():
    values = torch.randn(5, 2, requires_grad=True)
    return values, torch.nested.nested_tensor_from_jagged(values, torch.tensor([0, 2, 5]))


def test_jagged_tensors_have_numbers():
    found = []

    def once():
        values, nested = jagged()
        h = nested.exp()
        loss = h.values().sum()
        found.append(values.detach().exp())
        h._values.data.mul_(2)
        loss.backward()
        return values.grad

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = same(once)
    assert report.verdict == "corrupts"
    (row,) = report.gradients
    assert row.norm_reference == pytest.approx(float(found[0].norm()), rel=1e-5)
    assert row.relative_difference == pytest.approx(1.0, rel=1e-5)


def test_a_write_to_a_jagged_tensor_is_seen():
    def once():
        values, nested = jagged()
        h = nested.exp()
        loss = h.values().sum()
        h.mul_(2)
        loss.backward()
        return values.grad

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = same(once)
    assert report.verdict == "breaks"


def test_masked_tensors():
    def program():
        data, mask = torch.randn(4), torch.tensor([True, False, True, True])
        x = torch.masked.masked_tensor(data, mask, requires_grad=True)
        h = x * 2
        h.sum().backward()
        x.grad.mul_(2)
        return x.grad.to_tensor(0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(program)
