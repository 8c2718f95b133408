"""Autograd graphs as plain lists, against what torch itself says of them."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from jupyter_inplace import watch
from jupyter_inplace.explain.graph.graph import Graph, saved_slots, scalar_output


def _all_nodes(root):
    """By recursion over `next_functions`, the oracle."""
    found = []

    def visit(node):
        if node is not None and node not in found:
            found.append(node)
            for child, _ in node.next_functions:
                visit(child)

    visit(root)
    return found


def _program():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Sigmoid())
    h = net[0](torch.randn(5, 3))
    return net, (net[1](h) + net[3](net[2](h))).sum()


def test_each_node_stands_before_those_it_leads_to():
    _, loss = _program()
    graph = Graph([loss.grad_fn])
    assert set(graph.nodes) == set(_all_nodes(loss.grad_fn))
    assert len(graph.nodes) == len(set(graph.nodes))
    for node in graph.nodes:
        for child, _ in node.next_functions:
            assert child is None or graph.position[node] < graph.position[child]


def test_several_roots_share_what_is_common():
    w = torch.randn(3, requires_grad=True)
    h = w.exp()
    a, b = h.sum(), (h * 2).sum()
    graph = Graph([a.grad_fn, b.grad_fn, a.grad_fn])
    assert set(graph.nodes) == {*_all_nodes(a.grad_fn), *_all_nodes(b.grad_fn)}
    assert [graph.nodes[i].variable is w for i in graph.leaves] == [True]


def test_a_graph_deeper_than_python_s_stack():
    h = w = torch.ones(1, requires_grad=True)
    for _ in range(5000):
        h = h + 1
    graph = Graph([h.grad_fn])
    assert len(graph.nodes) == 5001
    assert graph.nodes[graph.leaves[0]].variable is w


def test_bits_tell_which_leaves_a_node_leads_to():
    """Against `torch.autograd.grad`: a leaf is led to exactly where its gradient is not None."""
    net, loss = _program()
    graph = Graph([loss.grad_fn])
    bits = graph.bits({position: 1 << k for k, position in enumerate(graph.leaves)})
    leaves = [graph.nodes[i].variable for i in graph.leaves]
    for out in (loss, *(p * 1 for p in net.parameters())):
        node = out.grad_fn
        if node not in graph.position:
            continue
        found = torch.autograd.grad(out, leaves, allow_unused=True, retain_graph=True)
        assert [bool(bits[graph.position[node]] >> k & 1) for k in range(len(leaves))] == [g is not None for g in found]


def test_bits_of_every_pair_of_nodes():
    _, loss = _program()
    graph = Graph([loss.grad_fn])
    for a, b in itertools.product(graph.nodes, repeat=2):
        assert bool(graph.bits({graph.position[b]: 1})[graph.position[a]]) == (b in _all_nodes(a))


def test_readers_of_a_leaf_stand_for_those_of_its_views():
    w = torch.randn(4, 3, requires_grad=True)
    x = torch.randn(2, 3)
    product, square = x @ w.t(), w.pow(2)
    loss = product.sum() + square.sum() + w.view(-1)[0:3].exp().sum()
    graph = Graph([loss.grad_fn])
    readers = graph.readers(graph.nodes[graph.leaves[0]])
    assert {type(node).__name__ for node in readers} == {"MmBackward0", "PowBackward0", "ExpBackward0"}


def test_edges_can_be_bent():
    w = torch.randn(3, requires_grad=True)
    middle = w.exp()
    loss = middle.sin().sum()
    sine = loss.grad_fn.next_functions[0][0]
    (leaf, nr) = middle.grad_fn.next_functions[0]
    graph = Graph([loss.grad_fn], {sine: ((leaf, nr),)})
    assert middle.grad_fn not in graph.position
    assert sine.next_functions[0][0] is middle.grad_fn  # torch's own graph is as it was


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda w: w.exp(), {"result"}),
        (lambda w: w * w.detach(), {"other"}),
        (lambda w: torch.stack([w, w]), set()),
        (lambda w: nn.functional.layer_norm(w, (3,)), {"input", "result1", "result2"}),
    ],
)
def test_saved_slots_are_those_that_torch_shows(make, names):
    w = torch.randn(3, requires_grad=True)
    node = make(w).grad_fn
    assert {name for name, slot in saved_slots(node) if slot.data is not None} == names


def test_a_freed_graph_has_no_slots():
    w = torch.randn(3, requires_grad=True)
    loss = w.exp().sum()
    node = loss.grad_fn.next_functions[0][0]
    assert saved_slots(node)
    loss.backward()
    assert [slot for _, slot in saved_slots(node) if _readable(slot)] == []


def _readable(slot):
    try:
        return slot.data is not None
    except RuntimeError:
        return False


def test_one_element_is_a_scalar():
    w = torch.randn(3, requires_grad=True)
    assert scalar_output(w.sum().grad_fn, 0)
    assert scalar_output(w.sum(0, keepdim=True).grad_fn, 0)
    assert not scalar_output(w.exp().grad_fn, 0)


@pytest.mark.filterwarnings("ignore:.*in-place writes")
def test_a_graph_left_over_costs_the_next_one_nothing():
    """A broken graph that a traceback keeps alive does not make custom backwards of later graphs run once more."""
    runs = []

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            runs.append(g)
            return g * 2

    w = torch.randn(3, requires_grad=True)
    with watch() as outer:
        broken = w.tanh()
        kept = broken.sum()
        broken.mul_(2)
        for _ in range(20):  # somewhere else in the program
            w * 2
        loss = Doubled.apply(w).sum()
        loss.backward()
    assert len(runs) == 1
    assert outer.verdict == "breaks"  # the graph that is left over would raise
    assert kept.requires_grad


def test_parents_and_what_comes_from_above():
    _, loss = _program()
    graph = Graph([loss.grad_fn])
    for i, node in enumerate(graph.nodes):
        above = [k for k, parent in enumerate(graph.nodes) if any(child is node for child, _ in parent.next_functions)]
        assert sorted(graph.parents[i]) == above
    bits = graph.bits_from({i: 1 << i for i in range(len(graph.nodes))})
    for i, node in enumerate(graph.nodes):
        leading = {k for k, other in enumerate(graph.nodes) if node in _all_nodes(other)}
        assert {k for k in range(len(graph.nodes)) if bits[i] >> k & 1} == leading


def test_nodes_by_the_name_of_their_kind():
    _, loss = _program()
    graph = Graph([loss.grad_fn])
    for names in (("TanhBackward0",), ("TBackward0", "SigmoidBackward0"), ("AccumulateGrad",), ("Nobody",), ()):
        assert graph.named(*names) == [i for i, node in enumerate(graph.nodes) if type(node).__name__ in names]


def test_functions_of_one_name_are_all_python_nodes():
    def function():
        class Double(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2

            @staticmethod
            def backward(ctx, g):
                return g * 2

        return Double.apply

    h = function()(function()(torch.ones(2, requires_grad=True)).exp())
    graph = Graph([h.grad_fn])
    assert [type(graph.nodes[i]).__name__ for i in graph.python_nodes] == ["DoubleBackward"] * 2


def test_a_graph_with_a_checkpointed_function_recomputes():
    w = torch.ones(2, requires_grad=True)
    assert not Graph([w.exp().sum().grad_fn]).recomputes
    assert not Graph([(w * 2).grad_fn]).recomputes
    inner = checkpoint(lambda x: torch.stack([x, x]).exp().prod(), w, use_reentrant=False)
    assert Graph([(inner * 2).grad_fn]).recomputes
