"""What the type of a node tells: held against the nodes that torch makes, and the programs' own."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from jupyter_inplace import watch
from jupyter_inplace.record.base.nodes import is_python_node, may_save, slot_names

W = torch.rand(3, 4, requires_grad=True)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2


def written_slice():
    base = W.clone()
    base[0].exp_()
    return base


NOTHING = {
    "view": lambda: W.view(12),
    "transpose": lambda: W.t(),
    "sum": lambda: W.sum(),
    "add": lambda: W + 1,
    "clone": lambda: W.clone(),
}
SOMETHING = {
    "exp": lambda: W.exp(),
    "mul": lambda: W * W,
    "matrix product": lambda: W @ W.t(),
    "a Function that saves nothing yet": lambda: Doubled.apply(W),
    "a write to a slice": lambda: written_slice(),
}


@pytest.mark.parametrize("make", NOTHING.values(), ids=NOTHING.keys())
def test_nodes_that_save_nothing(make):
    node = make().grad_fn
    assert slot_names(node) == ()
    assert not may_save(node)


@pytest.mark.parametrize("make", SOMETHING.values(), ids=SOMETHING.keys())
def test_nodes_that_may_save(make):
    assert may_save(make().grad_fn)


def test_a_type_that_shows_nothing_may_save_all_the_same():
    """The node of a leaf is not generated, like those of C++ extensions."""
    leaf = W.view_as(W).grad_fn.next_functions[0][0]
    assert slot_names(leaf) == ()
    assert may_save(leaf)


def test_a_functions_node_is_python():
    assert is_python_node(Doubled.apply(W).grad_fn)
    assert not is_python_node(W.exp().grad_fn)


@pytest.mark.parametrize("rounds", [1, 3])
def test_no_class_of_the_programs_is_kept_alive(rounds):
    """A cell that is run again defines its Functions anew; what they hold goes with them, after a watch too."""

    def program():
        class Own(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2

            @staticmethod
            def backward(ctx, g):
                return g * 2

        w = torch.ones(3, requires_grad=True)
        for _ in range(rounds):
            h = w * 1
            h.add_(1)  # what is saved from here on may be an output that comes late
            y = Own.apply(h)
            (y * 1.5).exp().sum().backward()
            (Own.apply(w) * w).sum().backward()
        return weakref.ref(type(y.grad_fn)), weakref.ref(Own)

    alone = program()
    gc.collect()
    assert [ref() for ref in alone] == [None, None]
    with watch(verify=False) as report:
        watched = program()
    assert report.verdict == "harmless"
    gc.collect()
    assert [ref() for ref in watched] == [None, None]
