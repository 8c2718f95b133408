"""Finite differences, operation by operation, against autograd where nothing is wrong with it, and against arithmetic."""

import contextlib
import itertools
import warnings

import pytest
import torch

from jupyter_inplace.rewrite.preserve import preserve_saved
from jupyter_inplace.rewrite.proof.derivative import DerivativeMode, direction
from jupyter_inplace.rewrite.proof.naming import LeafNames


@contextlib.contextmanager
def differentiated(**leaves):
    mode = DerivativeMode(LeafNames(leaves))
    with mode, mode.custom_functions_live():
        yield mode


def check(mode, root, gradients, weights=None):
    """Each leaf's derivative is that of its gradient along the leaf's direction."""
    slopes = mode.slopes([root], weights)
    assert mode.problem is None
    for name, gradient in gradients.items():
        place, slope = slopes[name]
        assert slope == pytest.approx(float((gradient * direction(place, gradient.shape)).sum()), rel=1e-6, abs=1e-7)


@pytest.fixture
def w():
    torch.manual_seed(0)
    return torch.randn(4, dtype=torch.float64, requires_grad=True)


def test_in_place_writes_and_views_are_followed(w):
    with differentiated(w=w) as mode:
        h = w * 2
        h[1:].mul_(3)
        h[0] = w[3].exp()
        root = (h * h).sum()
        check(mode, root, {"w": torch.autograd.grad(root, w)[0]})


def test_what_is_held_constant(w):
    with differentiated(w=w) as mode:
        h = w * 1
        with torch.no_grad():
            scale = h.norm()
        root = (h / scale + h.detach() * h).sum()
        check(mode, root, {"w": torch.autograd.grad(root, w)[0]})


def test_a_leaf_moves_along_its_direction_at_every_value(w):
    with differentiated(w=w) as mode:
        first = (w * torch.arange(4.0)).sum()
        with torch.no_grad():
            w.mul_(2)
        second = (w * 5).sum()
        check(mode, first + second, {"w": torch.arange(4.0, dtype=torch.float64) + 5})


@pytest.mark.parametrize("write", [lambda h: h.data.mul_(3), lambda h: h.detach().mul_(3)])
def test_a_write_behind_autograd_counts_while_live(w, write):
    with differentiated(w=w) as mode:
        h = w * 1
        mode.enter_live()
        write(h)
        mode.leave_live()
        root = h.sum()
        check(mode, root, {"w": torch.full((4,), 3.0, dtype=torch.float64)})
    assert not torch.allclose(torch.autograd.grad(root, w)[0], torch.tensor(3.0, dtype=torch.float64))


def test_custom_function_without_mark_dirty(w):
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            x *= 2
            return x

        @staticmethod
        def backward(ctx, g):
            return 2 * g

    with differentiated(w=w) as mode:
        h = w * 1
        Double.apply(h)
        check(mode, h.sum(), {"w": torch.full((4,), 2.0, dtype=torch.float64)})


def test_second_order_and_weights(w):
    with differentiated(w=w) as mode:
        (g,) = torch.autograd.grad((w**4).sum(), w, create_graph=True)
        weights = [torch.arange(4.0)]
        check(mode, g, {"w": 12 * w.detach() ** 2 * weights[0]}, weights)


@pytest.fixture
def memory_full_of_nan():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("memory_full_of_nan")
def test_memory_that_holds_nothing_yet(w):
    with differentiated(w=w) as mode:
        mask = torch.empty_like(w).fill_(3)
        out = w.new_empty(4)
        out.copy_(w * mask)
        check(mode, out.sum(), {"w": torch.full((4,), 3.0, dtype=torch.float64)})


def test_random_numbers_are_drawn_once():
    torch.manual_seed(3)
    x = torch.ones(1000, requires_grad=True)
    plain = torch.nn.functional.dropout(x, 0.5)
    after = torch.rand(1)
    torch.manual_seed(3)
    with differentiated(x=x) as mode:
        root = torch.nn.functional.dropout(x, 0.5)
        assert torch.equal(root, plain)
        assert torch.equal(torch.rand(1), after)
        check(mode, root, {"x": root.detach().double()})


def test_float32_training_step():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.GELU(), torch.nn.Linear(8, 2))
    optimizer = torch.optim.Adam(net.parameters())
    x, y = torch.randn(16, 3), torch.randint(0, 2, (16,))
    with differentiated(net=net) as mode, preserve_saved():
        for _ in range(2):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(x), y)
            slopes = mode.slopes([loss], None)
            loss.backward()
            for name, parameter in net.named_parameters():
                place, slope = slopes[f"net.{name}"]
                along = float((parameter.grad.double() * direction(place, parameter.shape)).sum())
                assert slope == pytest.approx(along, rel=1e-3, abs=1e-4)
            optimizer.step()
    assert mode.problem is None


def test_what_cannot_be_followed_is_said(w):
    with differentiated(w=w) as mode:
        torch.fft.rfft(w).abs().sum()
    assert "complex numbers" in mode.problem


# Where torch's own gradient follows another convention (symmetric matrices, duplicate indices, reparametrised sampling),
# or the operation is not smooth at the sample.
OTHERWISE = {
    "as_strided_scatter", "cholesky", "linalg.cholesky", "linalg.cholesky_ex", "linalg.eigh", "linalg.eigvalsh", "linalg.pinv",
    "masked.log_softmax", "nn.functional.ctc_loss", "nn.functional.max_unpool1d", "nn.functional.max_unpool2d",
    "nn.functional.max_unpool3d", "normal",
}  # fmt: skip


@pytest.mark.parametrize("part", [pytest.param(0), *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 2))])
def test_operators_of_torch(part):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db

        wrong, followed = set(), 0
        for op in op_db[part::3]:
            if op.supports_autograd and torch.float64 in op.supported_dtypes("cpu"):
                for sample in itertools.islice(op.sample_inputs("cpu", torch.float64, requires_grad=True), 1):
                    agrees = _agrees(op, sample)
                    followed += agrees is not None
                    if agrees is False:
                        wrong.add(op.name)
    assert wrong <= OTHERWISE
    assert followed > 120


def _agrees(op, sample):
    leaves = [
        t for t in _tensors([sample.input, sample.args, list(sample.kwargs.values())]) if t.requires_grad and t.is_leaf
    ]
    names = {f"leaf{i}": leaf for i, leaf in enumerate(leaves)}
    with differentiated(**names) as mode:
        roots = [
            t
            for t in _tensors(op(sample.input, *sample.args, **sample.kwargs))
            if t.requires_grad and not t.is_complex()
        ]
        if not roots:
            return None
        weights = [torch.linspace(0.5, 1.5, t.numel(), dtype=t.dtype).reshape(t.shape) for t in roots]
        slopes = mode.slopes(roots, weights)
    if mode.problem is not None:
        return None
    gradients = torch.autograd.grad(roots, leaves, weights, allow_unused=True)
    for (name, leaf), gradient in zip(names.items(), gradients, strict=True):
        if name in slopes:
            place, slope = slopes[name]
            wanted = 0.0 if gradient is None else float((gradient.to_dense() * direction(place, leaf.shape)).sum())
            if abs(wanted - slope) > 1e-5 * max(1.0, abs(wanted), 0.0 if gradient is None else float(gradient.norm())):
                return False
    return True


def _tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for item in value for t in _tensors(item)] if isinstance(value, list | tuple) else []


def test_custom_functions_are_as_before_afterwards():
    before = vars(torch.autograd.Function)["apply"]
    mode = DerivativeMode(LeafNames({}))
    with mode, mode.custom_functions_live():
        assert vars(torch.autograd.Function)["apply"] is not before
    assert vars(torch.autograd.Function)["apply"] is before
