"""torch's own messages about overwritten saved tensors, whole, against those that torch gives without the watch."""

from __future__ import annotations

import re

import pytest
import torch

from jupyter_inplace import watch
from jupyter_inplace.record.saved import message
from jupyter_inplace.record.saved.saved import Saved


def overwritten(t):
    with torch.no_grad():
        t.mul_(2) if t.dtype is not torch.bool else t.logical_not_()


def message_of(program):
    with pytest.raises(RuntimeError) as caught:
        program()
    return str(caught.value)


def assert_same_message(program):
    expected = message_of(program)

    def watched():
        with watch():
            program()

    found = message_of(watched)
    assert found.split("\n\njupyter_inplace: ")[0] == expected
    return expected


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128]
)
def test_types_of_outputs(dtype):
    def program():
        y = torch.ones(3, 2, dtype=dtype, requires_grad=True).exp()
        overwritten(y)
        y.backward(torch.ones_like(y))

    said = assert_same_message(program)
    assert "[3, 2]], which is output 0 of Exp" in said  # or of ExpBackward0, by the version of torch
    assert "is at version 1; expected version 0" in said


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_inputs(dtype):
    def program():
        h = torch.ones(3, dtype=dtype, requires_grad=True) * 1
        y = h.sin()
        overwritten(h)
        y.backward(torch.ones_like(y))

    assert "output 0 of Mul" in assert_same_message(program)


def test_leaf_inputs_name_no_node():
    def program():
        x = torch.ones(3, requires_grad=True)
        y = x.sin()
        overwritten(x)
        y.sum().backward()

    assert "which is output" not in assert_same_message(program)


def test_masks():
    def program():
        mask = torch.tensor([True, False, True])
        y = torch.ones(3, requires_grad=True).masked_fill(mask, 0.0)
        overwritten(mask)
        y.sum().backward()

    assert "[CPUBoolType [3]]" in assert_same_message(program)


def test_the_second_output_as_an_output_and_as_an_input():
    def as_output():
        values, vectors = torch.linalg.eigh(torch.eye(3, dtype=torch.float64, requires_grad=True) * 2)
        overwritten(vectors)
        values.sum().backward()

    def as_input():
        top = torch.arange(6.0, requires_grad=True).reshape(2, 3).aminmax(dim=1)[1]
        y = top.sin()
        overwritten(top)
        y.sum().backward()

    assert "output 1 of LinalgEigh" in assert_same_message(as_output)
    assert "output 0 of " in assert_same_message(as_input)  # torch keeps no number for an input


def test_a_view_written_in_place():
    def program():
        base = torch.ones(3, 3, requires_grad=True) * 1
        base[1].exp_()
        overwritten(base)
        base.sum().backward()

    # The view is gone, and with it the node that torch could name: it names the one that saved.
    assert "is at version 2; expected version 1" in message_of(program)


def test_a_view_that_is_written_and_saved():
    def program():
        h = torch.ones(2, 3, requires_grad=True) * 1
        view = h.view(-1)
        view.relu_()
        overwritten(view)
        view.sum().backward()

    assert "output 0 of Relu" in assert_same_message(program)


def test_custom_functions():
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = x * 2
            ctx.save_for_backward(x, y)
            return y

        @staticmethod
        def backward(ctx, grad):
            return grad * 2 + 0 * sum(t.sum() for t in ctx.saved_tensors)

    def output():
        y = Twice.apply(torch.ones(3, requires_grad=True))
        overwritten(y)
        y.sum().backward()

    def its_input():
        h = torch.ones(3, requires_grad=True) * 1
        y = Twice.apply(h)
        overwritten(h)
        y.sum().backward()

    assert "output 0 of Twice" in assert_same_message(output)
    assert "output 0 of Mul" in assert_same_message(its_input)


def test_a_number_in_a_name():
    def program():
        h = torch.ones(4, requires_grad=True).reshape(2, 2).sum(1)
        y = h.sin()
        overwritten(h)
        y.sum().backward()

    assert re.search("output 0 of Sum(1|Backward1),", assert_same_message(program))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse(layout):
    def program():
        x = torch.eye(3, dtype=torch.float64).to_sparse(layout=layout).requires_grad_()
        y = torch.mm(x, torch.ones(3, 3, dtype=torch.float64, requires_grad=True))
        overwritten(x)
        y.sum().backward()

    assert_same_message(program)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("sizes", [[(2,), (3,)], [(2, 10), (13, 4)], [(1, 2, 3)]])
def test_nested(sizes):
    def program():
        x = torch.nested.nested_tensor([torch.ones(size) for size in sizes], requires_grad=True)
        h = x * 1
        y = h.sin()
        overwritten(h)
        y.to_padded_tensor(0.0).sum().backward()

    assert_same_message(program)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled:UserWarning")
@pytest.mark.filterwarnings("ignore:Error detected in:UserWarning")
def test_the_hint_of_anomaly_mode():
    def program():
        with torch.autograd.set_detect_anomaly(True, check_nan=False):
            y = torch.ones(3, requires_grad=True).exp()
            overwritten(y)
            y.sum().backward()

    assert assert_same_message(program).endswith("Good luck!")


@pytest.mark.parametrize("write_too", [False, True])
def test_a_saved_tensor_that_was_detached_in_place(write_too):
    def program():
        h = torch.ones(3, requires_grad=True) * 1
        y = h.sin()
        h.detach_()
        if write_too:
            h.mul_(2)
        y.sum().backward()

    assert "detached in-place" in assert_same_message(program)


def test_an_output_may_be_detached_in_place():
    x = torch.ones(3, requires_grad=True)
    with watch():
        y = x.exp()
        z = y * 1
        y.detach_()
        z.sum().backward()
    assert torch.equal(x.grad, torch.ones(3).exp())


def test_a_tensor_class_with_its_own_dispatch():
    from torch.testing._internal.two_tensor import TwoTensor

    a = torch.ones(3, 2, requires_grad=True)
    y = TwoTensor(a * 1, a * 2).exp()
    saved = Saved()
    saved.tensor, saved.version, saved.made_by, saved.output_nr = y.detach(), 0, type(y.grad_fn), 0
    overwritten(y)
    assert message.torch_text(saved) == message_of(lambda: y.sum().backward())


@pytest.mark.parametrize("way", ["no_grad", "inference_mode", "default device", "hooks"])
def test_where_something_of_the_program_is_active(way):
    def program():
        y = torch.ones(3, requires_grad=True).exp()
        overwritten(y)
        y = y.sum()
        with {
            "no_grad": torch.no_grad(),
            "inference_mode": torch.inference_mode(),
            "default device": torch.device("meta"),
            "hooks": torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t),
        }[way]:
            y.backward(torch.ones((), device="cpu"))

    assert "output 0 of Exp" in assert_same_message(program)


def test_many_writes():
    def program():
        y = torch.ones(3, requires_grad=True).exp()
        for _ in range(12):
            overwritten(y)
        z = y.sin()
        for _ in range(1000):
            overwritten(y)
        z.sum().backward()

    assert "is at version 1012; expected version 12 " in assert_same_message(program)


def test_where_torch_cannot_be_asked(monkeypatch):
    """No thread can be started, as when Python ends: the error is raised all the same."""

    def refuse(*_):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    def program():
        with watch():
            y = torch.ones(3, requires_grad=True).exp()
            overwritten(y)
            y.sum().backward()

    monkeypatch.setattr(message._thread, "start_new_thread", refuse)
    assert (
        "has been modified by an inplace operation: [torch.float32] is at version 1; expected version 0"
        in message_of(program)
    )


def test_what_is_added_stands_below_torchs_own_words():
    def program():
        with watch():
            y = torch.ones(3, requires_grad=True).exp()
            overwritten(y)
            y.sum().backward()

    lines = message_of(program).split("\n")
    assert lines[0].startswith("one of the variables needed for gradient computation has been modified")
    assert lines[1] == ""
    assert lines[2].startswith("jupyter_inplace: t.mul_(2) ")
    assert "overwrote the result that ExpBackward0 saved at " in lines[2]


def test_the_output_of_an_operation_on_a_view_whose_base_was_written():
    """The view's node is made anew while the operation's own is: it is the operation that torch names all the same."""

    def program():
        w = torch.randn(2, 3, requires_grad=True)
        base = w * 1.0
        view = base.t().t()
        base.mul_(0.5)
        out = view.sigmoid()
        out.mul_(0.5)
        out.sum().backward()

    with pytest.raises(RuntimeError) as alone:
        program()
    with pytest.raises(RuntimeError) as watched, watch(verify=False):
        program()
    assert "output 0 of Sigmoid" in str(alone.value)
    assert str(alone.value) in str(watched.value)
