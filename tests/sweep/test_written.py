"""Every in-place and `out=` variant of torch's operators: the watch sees the write, its tensor, its versions, its operator.

The oracle is torch without the watch: the tensors whose version moved, and by how much.
"""

from __future__ import annotations

import contextlib
import itertools

import pytest
import torch
from sweep_cases import _OPERATORS, EmptyMode, copied, operators, same_tensors, sample_of, tensors_in

from jupyter_inplace import watch

pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # many operators warn of their own; what they warn of is not asked here

INPLACE = [name for name, op in operators() if op.inplace_variant is not None]
OUT = [name for name, op in operators() if op.supports_out and not name.startswith("empty")]

# `out=` variants whose buffers an *empty* dispatch mode changes as well, so that no tool which watches by one can leave
# them as they are: (operator, sized). `test_an_empty_mode_does_the_same` proves each.
LEFT_UNWRITTEN = {"linalg_matrix_rank", "linalg_matrix_rank_hermitian"}  # the buffer of a result that never arrives
RESIZED_TWICE = {  # an empty buffer that is resized counts that as a write of its own
    "quantile", "nanquantile", "kron", "inner", "tensordot", "norm_nuc", "linalg_vecdot", "linalg_cond", "linalg_matrix_power",
    "linalg_multi_dot", "linalg_norm", "linalg_norm_subgradients_at_zero", "linalg_matrix_norm", "linalg_tensorinv",
    "linalg_tensorsolve", "special_ndtr",
}  # fmt: skip
OTHER_DIGITS = {"linalg_cond"}  # computed in another order
BY_PROCESSOR = {"norm_nuc"}  # the same, but on some processors only: no test can prove it on all of them
EMPTY_MODE_CHANGES = {
    *((name, sized) for name in LEFT_UNWRITTEN | OTHER_DIGITS for sized in (True, False)),
    *((name, False) for name in RESIZED_TWICE),
}
# Written inside through an alias with a version counter of its own: the buffer's does not move.
OWN_COUNTER = {"kron"}

# In-place variants whose samples leave tensor and version as they are.
MOVES_NOTHING = {"resize_as_", "nn_functional_feature_alpha_dropout_without_train"}
# Those that give the tensor another shape.
SHAPES = {"squeeze_", "unsqueeze_", "t_", "transpose_", "swapaxes_", "swapdims_", "resize_", "as_strided_"}


def inplace_sample(name):
    """A sample that the in-place variant takes: nothing is broadcast to a larger result."""
    op = _OPERATORS[name]

    def fits(sample):
        if sample.broadcasts_input or not isinstance(sample.input, torch.Tensor):
            return False
        first, args, kwargs = copied((sample.input, tuple(sample.args), dict(sample.kwargs)))
        try:
            op.inplace_variant(first, *args, **kwargs)
        except RuntimeError:
            return False
        return first._version > 0

    return sample_of(op, False, fits)


def moved(tensors, before):
    """Which tensors were written, by their version counters: position -> (before, after)."""
    return {i: (old, t._version) for i, (t, old) in enumerate(zip(tensors, before, strict=True)) if t._version != old}


def named_writes(report, names):
    """The mutations of tensors that the program names: name -> mutations."""
    found = {}
    for m in report.mutations:
        if m.tensor in names:
            found.setdefault(m.tensor, []).append(m)
    return found


def in_place(call, sample):
    first, args, kwargs = copied((sample.input, tuple(sample.args), dict(sample.kwargs)))
    others = [t for t in tensors_in((args, kwargs)) if t is not first]
    before = [t._version for t in (first, *others)]
    torch.default_generator.manual_seed(7)
    call(first, *args, **kwargs)
    return first, others, moved([first, *others], before)


@pytest.mark.parametrize("name", INPLACE)
def test_in_place(name):
    op = _OPERATORS[name]
    sample = inplace_sample(name)
    assert (sample is None) == (name in MOVES_NOTHING)
    if sample is None:
        return
    plain, _, expected = in_place(op.inplace_variant, sample)
    with watch(namespace={}) as report:
        first, others, found = in_place(op.inplace_variant, sample)
    assert found == expected
    assert same_tensors([first], [plain])
    assert report.verdict == "harmless"
    written = named_writes(report, {"first"} | {f"others[{i}]" for i in range(len(others))})
    own = f"{getattr(op.inplace_variant, '__name__', '').strip('_')}_"
    if first.shape != sample.input.shape or own in SHAPES:
        # The name of a tensor is looked up by memory and shape: of the new shape nothing was written.
        assert [(m.op.split(".")[1], m.shape) for m in report.mutations] == [(own, tuple(sample.input.shape))]
        return
    assert set(written) == {"first" if i == 0 else f"others[{i - 1}]" for i in expected}
    mutations = written["first"]
    assert {m.shape for m in mutations} == {tuple(sample.input.shape)}
    assert {m.dtype for m in mutations} == {str(first.dtype).removeprefix("torch.")}
    history = [m.versions for m in report.mutations if m.storage == mutations[0].storage]
    assert (history[0][0], history[-1][1]) == expected[0]
    assert all(before[1] == after[0] for before, after in itertools.pairwise(history))
    if _is_whole(own):
        assert [m.op.split(".")[1] for m in mutations] == [own]


_KERNELS = sorted(name for name in torch._C._dispatch_get_all_op_names() if name.startswith("aten::"))


def _is_whole(name):
    """Whether torch hands the operator of this name to a dispatch mode as it is, and not those that it is composed of."""
    kernels = [kernel for kernel in _KERNELS if kernel.partition(".")[0] == f"aten::{name}"]
    composed = (torch._C._dispatch_has_kernel_for_dispatch_key(k, "CompositeImplicitAutograd") for k in kernels)
    return bool(kernels) and not any(composed)


# --- out= -----------------------------------------------------------------------------------------------------------------


def buffers_for(name, sample, sized):
    """`out=` buffers of the result's size, or empty ones that torch resizes."""
    first, args, kwargs = copied((sample.input, tuple(sample.args), dict(sample.kwargs)))
    result = _OPERATORS[name](first, *args, **kwargs)
    shapes = [(t, t.shape if sized else (0,)) for t in tensors_in(result)]
    return [torch.full(shape, 1, dtype=t.dtype) for t, shape in shapes], isinstance(result, torch.Tensor)


def run_into(name, sample, sized, context):
    """Run with `out=`: the buffers, their versions before and after by position, the error's text."""
    first, args, kwargs = copied((sample.input, tuple(sample.args), dict(sample.kwargs)))
    buffers, single = buffers_for(name, sample, sized)
    out = buffers[0] if single else tuple(buffers)
    before = [t._version for t in buffers]
    torch.default_generator.manual_seed(7)
    text = ""
    try:
        with context:
            _OPERATORS[name](first, *args, **kwargs, out=out)
    except (RuntimeError, TypeError) as error:
        text = str(error)
    return buffers, moved(buffers, before), text


@pytest.mark.parametrize("sized", [True, False], ids=["sized", "empty"])
@pytest.mark.parametrize("name", OUT)
def test_out(name, sized, way):
    sample = sample_of(_OPERATORS[name], False)
    plain, expected, text = run_into(name, sample, sized, contextlib.nullcontext())
    handle = watch(namespace={})
    buffers, found, watched_text = run_into(name, sample, sized, handle)
    report = handle.report
    if ((name, sized) in EMPTY_MODE_CHANGES or name in BY_PROCESSOR) and way == "by the mode":
        plain, expected, text = run_into(name, sample, sized, EmptyMode())
    assert watched_text == text
    assert found == expected
    assert same_tensors(buffers, plain) or (name in LEFT_UNWRITTEN and not sized)
    assert report.verdict == "harmless"
    rows = [m for m in report.mutations if m.tensor.startswith(("out", "buffers"))]
    assert sum(m.count for m in rows) >= len(expected)
    if not sized or name in OWN_COUNTER:  # buffers that torch resizes have no name by their old shape
        return
    # An operator that is composed of others writes to memory of its own at the same place as well.
    histories = {}
    for m in report.mutations:
        histories.setdefault(m.storage, []).append(m.versions)
    seen = []
    for m in {m.storage: m for m in rows}.values():
        counts = [n for pair in histories[m.storage] for n in pair]
        seen.append((min(counts), max(counts), m.dtype))
    for i, versions in expected.items():
        seen.remove((*versions, str(buffers[i].dtype).removeprefix("torch.")))


@pytest.mark.parametrize(("name", "sized"), sorted(EMPTY_MODE_CHANGES))
def test_an_empty_mode_does_the_same(name, sized):
    sample = sample_of(_OPERATORS[name], False)
    plain = run_into(name, sample, sized, contextlib.nullcontext())
    empty = run_into(name, sample, sized, EmptyMode())
    assert plain[1:] != empty[1:] or not same_tensors(plain[0], empty[0])
