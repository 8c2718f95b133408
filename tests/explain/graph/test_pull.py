"""The walk of our own against torch's engine: same gradients, nothing freed, no hook run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jupyter_inplace.explain.graph.graph import Graph
from jupyter_inplace.explain.graph.pull import pull
from jupyter_inplace.explain.graph.reading import CannotPullError, ReferenceReading


class _Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * x * x * g


class _Two(torch.autograd.Function):
    """Two outputs, one of which may get no gradient."""

    @staticmethod
    def forward(ctx, x):
        return x * 2, x * 3

    @staticmethod
    def backward(ctx, a, b):
        return 2 * a + 3 * b


def _loop(w, v):
    h = w
    for _ in range(50):
        h = (h * v).tanh() + w
    return h.sum()


PROGRAMS = {
    "a chain": lambda w, v: (w.exp() * v).sin().sum(),
    "a diamond": lambda w, v: (w.sigmoid() * w.tanh() + w * v).sum(),
    "broadcast": lambda w, v: (w * v[0] + v[:, :1]).pow(2).sum(),
    "reduced twice": lambda w, v: (w + v[:1].expand(2, 3).sum(0)).prod(),
    "several outputs": lambda w, v: (w.unbind(0)[1] * v.max(1).values[0]).sum(),
    "half of a custom Function": lambda w, v: (_Two.apply(w)[1] * v).sum(),
    "custom Functions": lambda w, v: (_Cube.apply(w * v) + _Cube.apply(v)).sum(),
    "views and writes": lambda w, v: _written(w, v).sum(),
    "mixed types": lambda w, v: (w.double() * v.float().double()).sum().float(),
    "complex": lambda w, v: torch.complex(w, v).abs().sum() + torch.fft.rfft(w).real.sum(),
    "indexing": lambda w, v: (w[[0, 0, 1]] * v[:, [2, 1, 1]].index_select(0, torch.tensor([1, 0, 1]))).sum(),
    "deep": _loop,
    "an unused leaf": lambda w, v: w.sum(),
}


def _written(w, v):
    h = w * 1
    h[0] = v[1] * 2
    h[:, 1].mul_(v[:, 0])
    return h.relu_()


def _leaves():
    torch.manual_seed(3)
    return torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)


def _pull(root, leaves, **options):
    graph = Graph([root.grad_fn])
    targets = {
        (graph.nodes[i], 0): k for i in graph.leaves for k, leaf in enumerate(leaves) if graph.nodes[i].variable is leaf
    }
    return pull(
        graph, [((root.grad_fn, root.output_nr), torch.ones_like(root))], targets, ReferenceReading(), **options
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_are_those_of_the_engine(name):
    w, v = _leaves()
    root = PROGRAMS[name](w, v)
    found = _pull(root, (w, v))
    meant = torch.autograd.grad(root, (w, v), allow_unused=True)  # after the walk: nothing was freed by it
    for k, gradient in enumerate(meant):
        if gradient is None:
            assert found.get(k) is None
        else:
            assert found[k].dtype == gradient.dtype
            assert torch.allclose(found[k], gradient, rtol=1e-6, atol=1e-7), k
    assert w.grad is v.grad is None


def test_a_network_with_everything_that_trains():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 8),
        nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 4),
    )  # fmt: skip
    loss = nn.functional.cross_entropy(net(torch.randn(5, 1, 6, 6)), torch.tensor([0, 1, 2, 3, 0]))
    leaves = list(net.parameters())
    found = _pull(loss, leaves)
    for k, gradient in enumerate(torch.autograd.grad(loss, leaves)):
        assert torch.allclose(found[k], gradient, rtol=1e-5, atol=1e-7), k


def test_the_parts_by_group_add_up():
    w, v = _leaves()
    a, b = (w * v).sum(), w.exp().sum()
    root = a + 3 * b
    graph = Graph([root.grad_fn])
    leaf = next(graph.nodes[i] for i in graph.leaves if graph.nodes[i].variable is w)
    senders = {node: (0 if "Mul" in node.name() else 1) for node in graph.readers(leaf)}
    found = pull(
        graph, [((root.grad_fn, 0), torch.ones(()))], {(leaf, 0): "w"}, ReferenceReading(), groups={(leaf, 0): senders}
    )
    assert torch.allclose(found["w", 0], v)
    assert torch.allclose(found["w", 1], 3 * w.exp())
    assert torch.allclose(found["w"], v + 3 * w.exp())


def test_no_hook_runs_and_random_numbers_stay():
    w, v = _leaves()
    ran = []
    h = nn.functional.dropout(w * v, 0.5)
    h.register_hook(ran.append)
    w.register_hook(ran.append)
    root = h.sum()
    state = torch.get_rng_state()
    _pull(root, (w, v))
    assert ran == []
    assert torch.equal(torch.get_rng_state(), state)


def test_without_python_what_lies_behind_a_custom_backward_is_left_out():
    w, v = _leaves()
    root = (_Cube.apply(w) * v).sum()
    found = _pull(root, (w, v), python=False)
    assert set(found) == {1}
    assert torch.allclose(found[1], (w**3).detach())


def test_a_backward_that_raises_says_where():
    class Bad(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            raise ValueError("not today")

    w, v = _leaves()
    root = (Bad.apply(w) * v).sum()
    with pytest.raises(CannotPullError, match="Bad could not be run once more: not today") as caught:
        _pull(root, (w, v))
    assert "Bad" in caught.value.node.name()


def test_what_a_custom_backward_writes_is_taken_back():
    class Eats(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x * 2)
            return x * x

        @staticmethod
        def backward(ctx, g):
            (twice,) = ctx.saved_tensors
            return twice.mul_(g)

    w, v = _leaves()
    root = (Eats.apply(w) * v).sum()
    first, second = _pull(root, (w, v)), _pull(root, (w, v))
    assert torch.equal(first[0], second[0])
    assert torch.allclose(first[0], (2 * w * v).detach())
