"""Values keep what two tensors need to be compared, in full or as a sketch."""

import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from jupyter_inplace.rewrite.proof import values
from jupyter_inplace.rewrite.proof.values import Packer, compare, number


def pack(tensor, budget=1 << 30):
    return Packer(budget).pack(tensor)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64]
)
def test_equal_tensors_are_equal_after_the_pipe(dtype):
    tensor = (torch.rand(3, 4) * 5).to(dtype)
    again = pickle.loads(pickle.dumps(pack(tensor)))
    difference = compare(again, pack(tensor.clone()))
    assert difference.equal
    assert difference.relative == 0


@given(st.floats(0.001, 10), st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_relative_difference_and_cosine_in_full_and_as_sketch(size, seed):
    generator = torch.Generator().manual_seed(seed)
    b = torch.randn(50_000, generator=generator, dtype=torch.float64)
    a = b + size * torch.randn(50_000, generator=generator, dtype=torch.float64)
    relative = float((a - b).norm() / b.norm())
    cosine = float(torch.nn.functional.cosine_similarity(a, b, dim=0))
    full = compare(pack(a), pack(b))
    assert full.relative == pytest.approx(relative)
    assert full.cosine == pytest.approx(cosine)
    for left, right in ((0, 0), (0, 1 << 30), (1 << 30, 0)):
        sketched = compare(pack(a, left), pack(b, right))
        assert sketched.relative == pytest.approx(relative, rel=0.1)
        assert sketched.cosine == pytest.approx(cosine, abs=0.1)
        assert not sketched.equal


def test_rounding_is_no_difference_and_a_change_is_one():
    a = torch.randn(100)
    assert compare(pack(a * (1 + 1e-6)), pack(a)).equal
    assert not compare(pack(a * 1.01), pack(a)).equal
    assert compare(pack(a.bfloat16() * 1.01), pack(a.bfloat16())).equal
    assert not compare(pack(torch.tensor([1, 2])), pack(torch.tensor([1, 3]))).equal


def test_noise_beside_a_large_gradient_counts_as_zero():
    assert not compare(pack(torch.tensor([1e-9])), pack(torch.tensor([-1e-9]))).equal
    assert compare(pack(torch.tensor([1e-9])), pack(torch.tensor([-1e-9])), scale=1.0).equal


def test_presence_shape_and_odd_numbers_count():
    nan, inf = torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.inf])
    assert compare(None, None).equal
    assert not compare(None, pack(nan)).equal
    assert not compare(pack(torch.zeros(2)), pack(torch.zeros(2, 1))).equal
    assert compare(pack(nan), pack(nan.clone())).equal
    assert not compare(pack(nan), pack(inf)).equal
    assert not compare(pack(inf), pack(torch.tensor([2.0, math.inf]))).equal
    big = torch.ones(10_000)
    big[3] = math.inf
    assert compare(pack(big, 0), pack(big)).equal


def test_kinds_of_tensors_and_numbers():
    sparse = torch.eye(3).to_sparse()
    assert compare(pack(sparse), pack(torch.eye(3))).equal
    assert pack(torch.empty(2, device="meta")) is None
    assert compare(number(3), number(3)).equal
    assert not compare(number(3), number(4)).equal
    assert number("text") is None
    assert number(10**400) is None
    assert compare(number(torch.arange(3).numpy()), pack(torch.arange(3))).equal


def test_a_large_tensor_is_looked_at_block_by_block():
    """An exact copy of it whole would take twice its memory, in a process that may take little."""
    count = 3 * values._BLOCK + 17
    tensor = torch.randn(count, generator=torch.Generator().manual_seed(0))
    tensor[5] = float("nan")
    made = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.dtype == torch.float64:
                made.append(out.numel())
            return out

    with Sizes():
        packed = Packer(0).pack(tensor)
    assert max(made) <= values._BLOCK
    assert (packed.odd, packed.data) == (1, None)
    finite = tensor.nan_to_num(0.0).double()
    assert packed.norm == pytest.approx(float(finite.norm()), rel=1e-12)
    rows = finite.new_zeros(-(-count // values._BINS) * values._BINS)
    rows[:count] = finite
    generator = torch.Generator().manual_seed(len(rows) // values._BINS)
    draw = {"generator": generator, "dtype": torch.float64}
    signs = torch.randint(0, 2, (len(rows) // values._BINS, 1), **draw) * 2 - 1
    columns = torch.randint(0, 2, (values._BINS,), **draw) * 2 - 1
    expected = (rows.view(-1, values._BINS) * signs).sum(0) * columns
    torch.testing.assert_close(packed.elements(), expected)
    assert not compare(packed, Packer(0).pack(tensor * 1.001)).equal
    assert compare(packed, Packer(0).pack(tensor.clone())).equal
