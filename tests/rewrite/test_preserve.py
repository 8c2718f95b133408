"""`preserve_saved` against the same program written out of place, in float64."""

import gc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_inplace.rewrite.preserve import preserve_saved

SIZE = 8
FUNCTIONS = [torch.sigmoid, torch.sin, torch.exp, lambda t: t * t, lambda t: t.pow(3), torch.tanh]


@pytest.fixture
def w():
    torch.manual_seed(0)
    return torch.randn(SIZE, dtype=torch.float64, requires_grad=True)


def grad(loss, leaf):
    return torch.autograd.grad(loss, leaf)[0]


def test_saved_input(w):
    with preserve_saved():
        h = w * 2
        loss = (h * h).sum()
        h.mul_(3)
        loss.backward()
    torch.testing.assert_close(w.grad, 8 * w.detach())


def test_saved_output(w):
    with preserve_saved():
        h = w.sigmoid()
        loss = h.sum()
        h.zero_()
        loss.backward()
    s = w.detach().sigmoid()
    torch.testing.assert_close(w.grad, s * (1 - s))


def test_view_at_an_offset_is_where_torch_itself_is_wrong(w):
    def program(context):
        with context():
            h = w * 1
            loss = (h * h).sum()
            h[2:].mul_(10)
            return grad(loss, w)

    right = 2 * w.detach()
    assert not torch.allclose(program(torch.autograd.graph.allow_mutation_on_saved_tensors), right)
    torch.testing.assert_close(program(preserve_saved), right)


def test_whole_saved_and_one_element_written(w):
    with preserve_saved():
        h = w * 1
        loss = (h * h).sum()
        h[1] = 7.0
        got = grad(loss, w)
    torch.testing.assert_close(got, 2 * w.detach())


def test_base_and_view_both_saved(w):
    with preserve_saved():
        h = w * 1
        loss = (h * h).sum() + (h[1:4] ** 3).sum() + (h[::2].exp()).sum()
        h.add_(5)
        got = grad(loss, w)
    v = w.detach()
    right = 2 * v
    right[1:4] += 3 * v[1:4] ** 2
    right[::2] += v[::2].exp()
    torch.testing.assert_close(got, right)


def test_out_tuple(w):
    with preserve_saved():
        values, indices = torch.empty(SIZE, dtype=torch.float64), torch.empty(SIZE, dtype=torch.long)
        torch.sort(torch.arange(SIZE, dtype=torch.float64), out=(values, indices))
        loss = (w * values).sum() + w[indices].exp().sum()
        torch.sort(-torch.arange(SIZE, dtype=torch.float64), out=(values, indices))
        got = grad(loss, w)
    torch.testing.assert_close(got, torch.arange(SIZE, dtype=torch.float64) + w.detach().exp())


@pytest.mark.parametrize(
    "write", [lambda t: t.data.mul_(5), lambda t: t.detach().fill_(3), lambda t: t.untyped_storage().fill_(0)]
)
def test_aliases_that_bump_no_version(w, write):
    with preserve_saved():
        h = w * 1
        loss = h.exp().sum() + (h * h).sum()
        write(h)
        got = grad(loss, w)
    torch.testing.assert_close(got, w.detach().exp() + 2 * w.detach())


def test_array_exported_before_and_after_the_save(w):
    factor = torch.arange(SIZE, dtype=torch.float64)
    early = np.arange(SIZE, dtype=np.float64)
    with preserve_saved():
        loss = (w * torch.from_numpy(early)).sum() + (w * factor).sum()
        early[:] = 100
        late = factor.numpy()
        late[:] = 100
        dlpack = torch.ones(SIZE, dtype=torch.float64)
        loss = loss + (w * dlpack).sum()
        torch.from_dlpack(dlpack).mul_(50)
        got = grad(loss, w)
    torch.testing.assert_close(got, 2 * torch.arange(SIZE, dtype=torch.float64) + 1)
    assert "numpy" not in torch.Tensor.__dict__


@pytest.mark.parametrize("options", [{"foreach": True}, {"foreach": False}, {"fused": True}])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_optimizer_step_between_two_backwards(optimizer, options):
    torch.manual_seed(1)
    layers = [torch.randn(3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    x = torch.randn(4, 3, dtype=torch.float64)
    first, second = (layer.detach().clone().requires_grad_() for layer in layers)
    right = torch.autograd.grad((torch.tanh(x @ first) @ second).pow(2).sum(), [first, second])
    step = optimizer(layers, lr=0.1, **options)
    with preserve_saved():
        out = torch.tanh(x @ layers[0]) @ layers[1]
        loss1, loss2 = out.sum(), out.pow(2).sum()
        loss1.backward(retain_graph=True)
        step.step()
        step.zero_grad()
        loss2.backward()
    for layer, gradient in zip(layers, right, strict=True):
        torch.testing.assert_close(layer.grad, gradient)


def test_batch_norm_statistics():
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm1d(3).double()
    x, z = torch.randn(5, 3, dtype=torch.float64, requires_grad=True), torch.randn(5, 3, dtype=torch.float64) * 9
    norm.eval()
    right = grad(norm(x).pow(3).sum(), x)
    with preserve_saved():
        loss = norm(x).pow(3).sum()
        norm.train()
        norm(z)
        got = grad(loss, x)
    torch.testing.assert_close(got, right)


def test_sparse_saved_tensor():
    values = torch.tensor([1.0, 2.0])
    a = torch.sparse_coo_tensor([[0, 1], [1, 0]], values, (2, 2), is_coalesced=True, check_invariants=True)
    x = torch.eye(2, requires_grad=True)
    with preserve_saved():
        loss = torch.sparse.mm(a, x).sum()
        a._values().mul_(100)
        got = grad(loss, x)
    torch.testing.assert_close(got, torch.tensor([[2.0, 2.0], [1.0, 1.0]]))


def test_backward_that_overwrites_what_it_read(w):
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, t):
            ctx.save_for_backward(t)
            return t * t

        @staticmethod
        def backward(ctx, g):
            (t,) = ctx.saved_tensors
            return t.mul_(2) * g

    with preserve_saved():
        h = w * 1
        y = Square.apply(h).sum()
        first = torch.autograd.grad(y, w, retain_graph=True)[0]
        second = torch.autograd.grad(y, w)[0]
    torch.testing.assert_close(first, 2 * w.detach())
    torch.testing.assert_close(second, 2 * w.detach())


def test_second_derivative(w):
    with preserve_saved():
        h = w * 1
        first = torch.autograd.grad((h**4).sum(), w, create_graph=True)[0]
        h.zero_()
        got = grad(first.sum(), w)
    torch.testing.assert_close(got, 12 * w.detach() ** 2)


def test_nested_and_other_hooks_between(w):
    with preserve_saved():
        h = w * 1
        outer = (h * h).sum()
        with torch.autograd.graph.save_on_cpu(), preserve_saved():
            inner = (h**3).sum()
            h.add_(1)
        h.add_(1)
        last = (h * h).sum()
        h.add_(1)
        got = [torch.autograd.grad(loss, w, retain_graph=True)[0] for loss in (outer, inner, last)]
    v = w.detach()
    torch.testing.assert_close(got, [2 * v, 3 * v**2, 2 * (v + 2)])


def test_backward_after_the_block(w):
    with preserve_saved():
        h = w * 1
        loss = (h * h).sum()
        h.mul_(3)
    torch.testing.assert_close(grad(loss, w), 2 * w.detach())


def test_write_after_the_block_raises_as_ever(w):
    with preserve_saved():
        h = w * 1
        loss = (h * h).sum()
    h.mul_(3)
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation.*after that block"):
        loss.backward()


def test_graph_from_before_the_block_is_checked_by_torch(w):
    h = w * 1
    loss = (h * h).sum()
    with preserve_saved():
        torch._foreach_mul_([h.detach()], 2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_nothing_is_copied_that_is_not_overwritten(w):
    with preserve_saved():
        h = w.sigmoid()
        pointer = h.grad_fn._saved_result.data_ptr()
        states = torch.zeros(4, SIZE, dtype=torch.float64)
        loss = h.sum()
        for i in range(1, 4):
            loss = loss + (w * states[i - 1]).sum()
            states[i] = i
            assert loss.grad_fn is not None
        assert pointer == h.data_ptr()
        got = grad(loss, w)
    s = w.detach().sigmoid()
    torch.testing.assert_close(got, s * (1 - s) + 3)


def test_tensors_live_no_longer_than_without(w):
    class Marked(torch.Tensor):
        pass

    gc.disable()
    try:
        with preserve_saved():
            h = torch.randn(4).as_subclass(Marked).requires_grad_()
            gone = weakref.ref(h)
            out = h.sigmoid()
            gone_out = weakref.ref(out)
            out.mul_(2)
            del h, out
            assert gone() is None
            assert gone_out() is None
    finally:
        gc.enable()


def test_an_exception_takes_everything_away(w):
    with pytest.raises(ZeroDivisionError), preserve_saved():
        raise ZeroDivisionError
    assert torch._C._autograd._top_saved_tensors_default_hooks(True) is None
    assert torch._C._len_torch_dispatch_stack() == 0
    assert "numpy" not in torch.Tensor.__dict__


VIEWS = [slice(0, SIZE), slice(2, SIZE), slice(1, 4), slice(0, SIZE, 2), slice(3, 4), slice(4, 4)]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["read", "read", "scale", "assign", "data", "relu", "out"]),
        st.sampled_from(VIEWS),
        st.integers(0, len(FUNCTIONS) - 1),
        st.floats(-2, 2),
    ),
    min_size=2,
    max_size=9,
)


def in_place(w, steps):
    h, total = w * 1, torch.zeros((), dtype=w.dtype)
    for kind, part, function, c in steps:
        view = h[part]
        if kind == "read":
            out = FUNCTIONS[function](view)
            total = total + (out * (c + 1)).sum()
            out.mul_(3)
        elif kind == "scale":
            view.mul_(c)
        elif kind == "assign":
            h[part] = FUNCTIONS[function](w[part])
        elif kind == "data":
            view.data.add_(c)
        elif kind == "relu":
            torch.nn.functional.relu(view, inplace=True)
        else:
            with torch.no_grad():
                torch.mul(view, c, out=view)
    return total + h.pow(2).sum()


def out_of_place(w, steps):
    h, total = w * 1, torch.zeros((), dtype=w.dtype)
    for kind, part, function, c in steps:
        view = h[part]
        if kind == "read":
            total = total + (FUNCTIONS[function](view) * (c + 1)).sum()
            continue
        if kind == "scale":
            new = view * c
        elif kind == "assign":
            new = FUNCTIONS[function](w[part])
        elif kind == "data":
            new = view + c  # the value moves, the gradient is that of the identity
        elif kind == "relu":
            new = view.relu()
        else:
            new = (view * c).detach() + (view - view.detach())
        h = torch.slice_scatter(h, new, 0, part.start, part.stop, part.step or 1)
    return total + h.pow(2).sum()


@settings(max_examples=150, deadline=None)
@given(STEPS, st.integers(0, 2**16))
def test_random_programs(steps, seed):
    torch.manual_seed(seed)
    w = torch.randn(SIZE, dtype=torch.float64, requires_grad=True)
    right = grad(out_of_place(w, steps), w)
    with preserve_saved():
        loss = in_place(w, steps)
        got = grad(loss, w)
    torch.testing.assert_close(got, right)
    with preserve_saved():
        loss = in_place(w, steps)
    torch.testing.assert_close(grad(loss, w), right)
