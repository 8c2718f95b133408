"""Saved tensors as a program can see them: the attributes of nodes, hooks on single saved tensors, what lives how long."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from sameness import same
from torch import nn

from jupyter_inplace import watch


def leaf(*shape):
    return torch.randn(*shape or (3,), requires_grad=True)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y):
        out = x * y
        ctx.save_for_backward(x, None, out)
        return out

    @staticmethod
    def backward(ctx, g):
        x, _, out = ctx.saved_tensors
        return g * x, g * out


def nodes(root):
    """All nodes behind a tensor, and the attributes of each that show saved tensors."""
    found, seen, waiting = [], set(), [root.grad_fn]
    while waiting:
        node = waiting.pop(0)
        if node is None or node in seen:
            continue
        seen.add(node)
        found.append((node, [name for name in dir(node) if name.startswith("_saved_")]))
        waiting += [child for child, _ in node.next_functions]
    return found


def shown(root, known):
    """What each node shows, and which of the known tensors it is."""
    out = []
    for node, names in nodes(root):
        for name in names:
            value = getattr(node, name)
            for item in value if isinstance(value, (list, tuple)) else [value]:
                place = next((i for i, t in enumerate(known) if t is item), None)
                out.append((name, place, item if place is None else None))
    return out


GRAPHS = {
    "leaves": lambda: (known := [leaf(), leaf()], known[0] * known[1]),
    "one twice": lambda: (known := [leaf()], known[0] * known[0]),
    "intermediates": lambda: (known := [leaf().exp(), leaf().sin()], known[0] * known[1]),
    "constants": lambda: (known := [torch.randn(3), leaf()], known[0] * known[1]),
    "numbers": lambda: (known := [leaf()], (known[0] * 2) ** 3),
    "outputs": lambda: (known := [leaf()], known[0].exp().sigmoid()),
    "a matrix": lambda: (known := [leaf(2, 3), leaf(3, 2)], known[0] @ known[1]),
    "an index": lambda: (known := [leaf(), torch.tensor([0, 2])], known[0][known[1]]),
    "a list": lambda: (known := [leaf(), torch.tensor([0, 1]), None], leaf(2, 2)[known[1], :]),
    "a module": lambda: (net := nn.Linear(3, 2), known := [net.weight, net.bias], net(torch.randn(4, 3)))[1:],
    "batch norm": lambda: (net := nn.BatchNorm1d(3), known := [net.weight, net.running_mean], net(leaf(4, 3)))[1:],
    "a parameter of a class": lambda: (known := [nn.Parameter(torch.randn(3))], known[0].tanh() * known[0]),
    "written in place": lambda: (known := [leaf()], (known[0] * 1).sigmoid_().exp_()),
    "a custom function": lambda: (known := [leaf(), leaf()], Square.apply(*known)),
    "an embedding": lambda: (known := [torch.tensor([0, 1])], nn.functional.embedding(known[0], leaf(3, 2))),
    "a loss": lambda: (known := [leaf(2, 3), torch.tensor([0, 2])], nn.functional.cross_entropy(*known)),
}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.usefixtures("way")
def test_nodes_show_the_objects_that_they_saved(name):
    def program():
        known, out = GRAPHS[name]()[-2:]
        first = shown(out, known)
        out.sum().backward(retain_graph=True)
        return first, shown(out, known)

    same(program)


def test_they_do_so_when_the_watch_is_over():
    a = leaf()
    with watch():
        b = a * a
    assert b.grad_fn._saved_self is a
    del b
    with watch():
        pass
    assert type(vars(type((a * a).grad_fn))["_saved_self"]).__name__ == "getset_descriptor"


def test_a_graph_that_is_used_up_says_so():
    def program():
        y = leaf().exp()
        node = y.grad_fn
        y.sum().backward()
        return node._saved_result

    same(program)


def test_an_overwritten_one_says_so():
    def program():
        a = leaf() * 1
        y = a * a
        node = y.grad_fn
        a.add_(1)
        return node._saved_self

    same(program)


# --- hooks on single saved tensors --------------------------------------------------------------------------------------------


def of_an_output(pack, unpack):
    a = leaf()
    y = a.exp()
    slot = y.grad_fn._raw_saved_result
    slot.register_hooks(pack, unpack)
    y.sum().backward()
    return a.grad


def of_inputs(pack, unpack):
    a, b = leaf(), leaf() * 2
    y = a * b
    y.grad_fn._raw_saved_self.register_hooks(pack, unpack)
    y.grad_fn._raw_saved_other.register_hooks(pack, unpack)
    z, _ = y.grad_fn, y.grad_fn._saved_self
    y.sum().backward()
    return a.grad, z is y.grad_fn


def of_a_function(pack, unpack):
    a, b = leaf(), leaf()
    y = Square.apply(a, b)
    y.grad_fn._raw_saved_tensors[0].register_hooks(pack, unpack)
    y.sum().backward()
    return a.grad, b.grad


HOOKS = {
    "nothing": (lambda t: t, lambda t: t),
    "doubled": (lambda t: t * 2, lambda t: t / 2),
    "another value": (lambda t: t, lambda t: t * 0 + 5),
    "numbers": (lambda t: t.tolist(), lambda values: torch.tensor(values)),
    "a copy": (lambda t: t.detach().clone(), lambda t: t),
    "written by pack": (lambda t: t.add_(1), lambda t: t),
    "written by unpack": (lambda t: t.clone(), lambda t: t.add_(1)),
    "no tensor": (lambda t: t, lambda t: "no tensor"),
    "none": (lambda t: None, lambda t: t),
    "raising": (lambda t: t, lambda t: 1 / 0),
    "too few arguments": (lambda: 1, lambda t: t),
}


@pytest.mark.parametrize("of", [of_an_output, of_inputs, of_a_function])
@pytest.mark.parametrize("name", HOOKS)
def test_hooks_on_one_saved_tensor(of, name):
    same(lambda: of(*HOOKS[name]))


@pytest.mark.parametrize("hooks", [(1, lambda t: t), (lambda t: t, None), ()])
def test_what_is_no_pair_of_hooks(hooks):
    def program():
        slot = leaf().exp().grad_fn
        try:
            slot._raw_saved_result.register_hooks(*hooks)
        except TypeError as error:
            return str(error).partition("Invoked with")[0]  # then come addresses
        return None

    same(program)


@pytest.mark.parametrize("way", ["twice", "after use", "what is seen", "of a leaf in grad mode"])
def test_registering(way):
    def program():
        calls = []

        def pack(t):
            calls.append((t.requires_grad, t.grad_fn is None, torch.is_grad_enabled()))
            return t

        a = leaf()
        y = a * a
        slot = y.grad_fn._raw_saved_self
        if way == "after use":
            y.sum().backward()
        before = None if way == "after use" else (slot.data is a, slot.unpack_hook, slot.unpack() is a)
        slot.register_hooks(pack, unpack := lambda t: t)
        after = (slot.data is a, slot.unpack_hook is unpack, slot.unpack() is a)
        if way == "twice":
            slot.register_hooks(pack, unpack)
        return before, after, calls, y.grad_fn._saved_self is a

    same(program)


def test_what_is_packed_is_let_go():
    def program():
        gc.collect()
        a = leaf()
        y = a.exp()
        y.grad_fn._raw_saved_result.register_hooks(lambda t: t.tolist(), torch.tensor)
        memory = weakref.ref(y.untyped_storage())
        loss = y.sum()
        del y
        gone = memory() is None
        loss.backward()
        return gone, a.grad

    same(program)


def test_hooks_that_outlive_the_watch():
    a = leaf()
    with watch():
        y = a.exp()
        y.grad_fn._raw_saved_result.register_hooks(lambda t: t * 2, lambda t: t)
    y.sum().backward()
    assert torch.equal(a.grad, (a * 1).exp().detach() * 2)


def test_hooks_registered_after_the_watch():
    a = leaf()
    with watch():
        y = a.exp()
    y.grad_fn._raw_saved_result.register_hooks(lambda t: t * 2, lambda t: t)
    y.sum().backward()
    assert torch.equal(a.grad, a.detach().exp() * 2)


def test_the_tool_says_that_such_tensors_are_not_watched():
    def program():
        a = leaf()
        y = a.exp()
        y.grad_fn._raw_saved_result.register_hooks(lambda t: t, lambda t: t)
        y.mul_(2)
        y.sum().backward()
        return a.grad

    report = same(program)
    assert any("hooks of the program" in line for line in report.blind_spots)
