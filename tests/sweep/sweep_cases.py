"""torch's own list of operators, each as a small program: forward, a write, backward; run with and without the watch."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.testing._internal.common_methods_invocations import op_db as _op_db
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from jupyter_inplace import watch

Write = Callable[[torch.Tensor], None]


class EmptyMode(TorchDispatchMode):
    """The least that a dispatch mode can do: call through."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


@dataclasses.dataclass
class Outcome:
    """What became of one run."""

    stage: str = "forward"  # where it raised, else "done"
    error: str = ""
    text: str = ""
    grads: tuple[torch.Tensor | None, ...] = ()
    values: tuple[torch.Tensor, ...] = ()
    versions: tuple[int, ...] = ()
    report: Any = None

    def raised(self) -> bool:
        return self.stage != "done"


# --- the programs ---------------------------------------------------------------------------------------------------------


class Case:
    """One operator with the first sample of its own that holds no empty tensor."""

    def __init__(self, op: Any) -> None:
        self.op = op
        self.sample = _sample(op)

    def arguments(self) -> tuple[Any, ...]:
        """Fresh copies of the sample's input, positional and named arguments."""
        s = self.sample
        return copied((s.input, tuple(s.args), dict(s.kwargs)))

    def targets(self) -> list[str]:
        """The tensors of the program by name: in0, in1, ..., out0, ..."""
        arguments = self.arguments()
        result = self._forward(arguments)
        return [f"in{i}" for i in range(len(tensors_in(arguments)))] + [
            f"out{i}" for i in range(len(tensors_in(result)))
        ]

    def plain(self, target: str | None = None, write: Write | None = None) -> Outcome:
        """Forward, `write` of the tensor called `target`, gradients of every output for fixed incoming gradients."""
        return self._run(contextlib.nullcontext(), target, write)

    def watched(self, target: str | None = None, write: Write | None = None) -> Outcome:
        """The same under the watch."""
        handle = watch(namespace={})
        outcome = self._run(handle, target, write)
        outcome.report = handle.report
        return outcome

    def empty_mode(self, target: str | None = None, write: Write | None = None) -> Outcome:
        """The same under a dispatch mode that does nothing."""
        return self._run(EmptyMode(), target, write)

    def _run(self, context: Any, target: str | None, write: Write | None) -> Outcome:
        outcome = Outcome()
        try:
            with context:
                self._program(outcome, target, write)
        except Exception as error:
            outcome.error, outcome.text = type(error).__name__, str(error)
        return outcome

    def _forward(self, arguments: tuple[Any, ...]) -> Any:
        first, args, kwargs = arguments
        torch.default_generator.manual_seed(7)
        return self.op(first, *args, **kwargs)

    def _program(self, outcome: Outcome, target: str | None, write: Write | None) -> None:
        arguments = self.arguments()
        inputs = tensors_in(arguments)
        result = self._forward(arguments)
        outputs = tensors_in(result)
        roots = [t for t in tensors_in(self.sample.output_process_fn_grad(result)) if t.requires_grad]
        roots = [t if t.layout is torch.strided else t.to_dense() for t in roots]
        incoming = [_incoming(t) for t in roots]
        if target is not None and write is not None:
            outcome.stage = "write"
            write(inputs[int(target[2:])] if target.startswith("in") else outputs[int(target[3:])])
        outcome.stage = "backward"
        leaves = [t for t in inputs if t.requires_grad]
        if roots and leaves:
            outcome.grads = torch.autograd.grad(roots, leaves, incoming, allow_unused=True)
        outcome.stage = "done"
        outcome.values = tuple(t.detach() for t in outputs)
        outcome.versions = tuple(t._version for t in inputs + outputs)


def _incoming(t: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(t.numel())
    return torch.randn(t.shape, dtype=t.dtype, generator=generator)


def overwrite(t: torch.Tensor) -> None:
    """A write that any type permits and that keeps an index within its range."""
    if t.is_floating_point() or t.is_complex():
        t.mul_(1.5)
    else:
        t.zero_()


def under_no_grad(t: torch.Tensor) -> None:
    with torch.no_grad():
        overwrite(t)


def through_data(t: torch.Tensor) -> None:
    overwrite(t.data)


# --- the operators --------------------------------------------------------------------------------------------------------

# Names with an underscore are left alone when the watch looks for the names of tensors: these lists are long.
_OPERATORS = {op.formatted_name: op for op in _op_db}
_DTYPES = (torch.float64, torch.float32, torch.complex128, torch.complex64)

# Operators whose sample is for an accelerator alone.
_NO_SAMPLE = {
    "torch_ops_aten__flash_attention_forward",
    "torch_ops_aten__efficient_attention_forward",
    "nn_functional_batch_norm_without_cudnn",
}


def operator_names(differentiable: bool = False) -> list[str]:
    """Every operator of torch's list that has a sample on the CPU."""
    return [n for n, op in _OPERATORS.items() if n not in _NO_SAMPLE and (op.supports_autograd or not differentiable)]


def operators() -> Iterable[tuple[str, Any]]:
    return ((name, _OPERATORS[name]) for name in operator_names())


@functools.cache
def case(name: str) -> Case:
    return Case(_OPERATORS[name])


def dtype_of(op: Any) -> torch.dtype:
    """float64 where the operator has gradients in it, else the nearest to it that it knows."""
    supported = op.supported_dtypes("cpu")
    differentiable = op.supported_backward_dtypes("cpu") if op.supports_autograd else set()
    found = [d for d in _DTYPES if d in (differentiable or supported)]
    return found[0] if found else min(supported, key=str)


def sample_of(op: Any, requires_grad: bool, wanted: Callable[[Any], bool] = lambda sample: True) -> Any:
    """The first sample of the operator's own that is `wanted` and holds no empty tensor; the very first where all have some."""
    # The samples come from the global generator: each operator gets the same ones whatever ran before.
    torch.manual_seed(3)
    first = None
    # Not `op.sample_inputs`, which looks for the name of the test on the stack, at 90 % of the sweep's time.
    for sample in op.sample_inputs_func(op, "cpu", dtype_of(op), requires_grad):
        if not wanted(sample):
            continue
        if all(t.numel() for t in tensors_in((sample.input, sample.args, sample.kwargs))):
            return sample
        first = first or sample
    return first


def _sample(op: Any) -> Any:
    dtype = dtype_of(op)
    return sample_of(op, op.supports_autograd and (dtype.is_floating_point or dtype.is_complex))


# --- tensors --------------------------------------------------------------------------------------------------------------


def copied(tree: Any) -> Any:
    """The same arguments in fresh memory; a tensor that stands in two places stays one tensor."""
    memo: dict[int, torch.Tensor] = {}

    def one(t: torch.Tensor) -> torch.Tensor:
        if id(t) not in memo:
            memo[id(t)] = t.detach().clone().requires_grad_(t.requires_grad)
        return memo[id(t)]

    return pytree.tree_map_only(torch.Tensor, one, tree)


def tensors_in(tree: Any) -> list[torch.Tensor]:
    found: dict[int, torch.Tensor] = {}
    pytree.tree_map_only(torch.Tensor, lambda t: found.setdefault(id(t), t), tree)
    return list(found.values())


def same_tensors(a: Iterable[torch.Tensor | None], b: Iterable[torch.Tensor | None]) -> bool:
    """Bit-equal, NaN equal to NaN."""
    a, b = list(a), list(b)
    return len(a) == len(b) and all(
        (x is None) == (y is None) and (x is None or y is None or _same(x, y)) for x, y in zip(a, b, strict=True)
    )


def _same(x: torch.Tensor, y: torch.Tensor) -> bool:
    if x.layout is not torch.strided:
        x, y = x.to_dense(), y.to_dense()
    if x.dtype != y.dtype or x.shape != y.shape:
        return False
    if x.dtype is torch.complex32:  # which torch cannot compare
        x, y = x.to(torch.complex64), y.to(torch.complex64)
    return torch.equal(x, y) or bool(((x == y) | ((x != x) & (y != y))).all())


def difference(a: Iterable[torch.Tensor | None], b: Iterable[torch.Tensor | None]) -> float:
    """The greatest relative difference of two lists of gradients, greatest element against greatest element."""
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        like = x if x is not None else y
        if like is None:
            continue
        p = (torch.zeros_like(like) if x is None else x).to_dense().to(torch.complex128).reshape(-1)
        q = (torch.zeros_like(like) if y is None else y).to_dense().to(torch.complex128).reshape(-1)
        same = (p == q) | (p.isnan() & q.isnan())
        gap = (p - q).abs().masked_fill(same, 0.0)
        if not bool(gap.isfinite().all()):
            return float("inf")
        size = float(q.abs().nan_to_num(0.0, 0.0).max()) if q.numel() else 0.0
        most = float(gap.max()) if gap.numel() else 0.0
        worst = max(worst, most / size if size else (float("inf") if most else 0.0))
    return worst
