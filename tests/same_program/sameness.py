"""Run a program unwatched and watched, each from the same random seed, and compare everything that it can see of itself.

Compared are the returned values (tensors bit for bit, with strides, versions, flags, gradients and the shape of their
graphs, which of them share memory and which are one object), the exception with its text, chain and traceback, the
warnings, and the random state at the end. What torch keeps for the whole process is checked to be as it was before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from known_differences import KNOWN, RENAMED_NODES
from torch.optim import optimizer as _optimizer
from torch.overrides import _len_torch_function_stack
from torch.utils._python_dispatch import TorchDispatchMode

import jupyter_inplace
from jupyter_inplace import watch
from jupyter_inplace.record.saved import message, reading

PACKAGE = str(Path(jupyter_inplace.__file__).parent)
SEED = 20


@dataclasses.dataclass
class Outcome:
    """What a run of a program came to, as plain data."""

    values: Any = None
    error: tuple[str, ...] = ()  # the types, the exception itself first, then what it was raised from
    text: str = ""
    frames: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()
    random: tuple[Any, ...] = ()


class EmptyMode(TorchDispatchMode):
    """A mode that does nothing, and tells torch.compile so."""

    @classmethod
    def is_infra_mode(cls):
        return True

    @classmethod
    def ignore_compile_internals(cls):
        return True

    @classmethod
    def _should_skip_dynamo(cls):
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def same(program: Callable[[], Any], *, known: str = "", blind: str = "", **options: Any) -> Any:
    """Assert that `program` does the same under `watch(**options)` as without. Returns the watch, closed.

    :param known: an entry of `known_differences.KNOWN`: the program must come out as under an empty dispatch mode, and that must differ.
    :param blind: a text that must stand in `blind_spots`. Without it no failure of the recorder may be said there.
    """
    before = installed()
    plain = run(program)
    watched, report = run_watched(program, **options)
    if plain.warned != watched.warned:  # a warning that comes once a process
        plain = run(program)
    assert installed() == before, "the watch left something behind"
    if known:
        assert known in KNOWN
        empty = run(program, EmptyMode)
        with pytest.raises(AssertionError, match="watched is not as unwatched"):
            compare(plain, empty)
        plain = empty
    compare(plain, watched)
    said = " ".join(report.blind_spots)
    if blind:
        assert blind in said
    else:
        assert "recorder failed" not in said, said
    assert "could not be worked out" not in said, said
    assert str(report)
    return report


def run(program: Callable[[], Any], around: Callable[[], Any] = contextlib.nullcontext) -> Outcome:
    """Run `program` under the context manager that `around` makes."""
    with deterministic():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value, error = None, None
            try:
                with around():
                    value = program()
            except BaseException as raised:
                error = raised
        state = (torch.get_rng_state().tolist(), random.random(), float(np.random.rand()))  # noqa: NPY002
    outcome = Outcome(warned=tuple(f"{w.category.__name__}: {w.message}" for w in caught), random=state)
    if error is not None:
        outcome.error, outcome.text, outcome.frames = _chain(error), str(error), _frames(error, program)
        error.__traceback__ = None
    outcome.values = Freezer()(value)
    return outcome


def run_watched(program: Callable[[], Any], **options: Any) -> tuple[Outcome, Any]:
    report = watch(**options)
    outcome = run(program, lambda: report)
    return outcome, report


def compare(plain: Outcome, watched: Outcome) -> None:
    different: list[str] = []
    for field in dataclasses.fields(Outcome):
        if field.name != "text":
            different += _differences(getattr(plain, field.name), getattr(watched, field.name), field.name)
    if plain.text not in watched.text:
        different.append(f"text: {plain.text!r} is not in {watched.text!r}")
    if different:
        raise AssertionError("watched is not as unwatched:\n  " + "\n  ".join(different[:20]))


def _differences(a: Any, b: Any, path: str) -> list[str]:
    if a == b:
        return []
    if isinstance(a, dict) and isinstance(b, dict):
        return [line for key in {**a, **b} for line in _differences(a.get(key), b.get(key), f"{path}.{key}")]
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)) and len(a) == len(b):
        return [line for i, (x, y) in enumerate(zip(a, b, strict=True)) for line in _differences(x, y, f"{path}[{i}]")]
    return [f"{path}: {a!r:.400} unwatched, {b!r:.400} watched"]


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002
    torch.manual_seed(SEED)
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        yield
    finally:
        torch.set_warn_always(always)


def installed() -> dict[str, Any]:
    """What is in force on this thread and in this process where a watch puts something."""
    return {
        "modes": [torch._C._get_dispatch_stack_at(i) for i in range(torch._C._len_torch_dispatch_stack())],
        "function modes": _len_torch_function_stack(),
        "hooks": torch._C._autograd._top_saved_tensors_default_hooks(True),
        "hooks allowed": torch._C._autograd._saved_tensors_hooks_is_enabled(),
        "engine": (torch.autograd._engine_run_backward, torch.autograd.graph._engine_run_backward),
        "transforms": torch.autograd.graph.disable_saved_tensors_hooks,
        "before steps": list(_optimizer._global_optimizer_pre_hooks.values()),
        "after steps": list(_optimizer._global_optimizer_post_hooks.values()),
        "tensor methods": {
            name: value for name, value in vars(torch.Tensor).items() if isinstance(value, types.FunctionType)
        },
        "functions": (
            torch.autograd.Function.__dict__["apply"],
            "saved_tensors" in vars(torch.autograd.function.BackwardCFunction),
        ),
        "module hooks": (
            dict(torch.nn.modules.module._global_forward_hooks),
            dict(torch.nn.modules.module._global_forward_pre_hooks),
        ),
        "readings": dict(reading.readings),
        "wording": message.explain,
        "grad mode": torch.is_grad_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "default dtype": torch.get_default_dtype(),
    }


def _chain(error: BaseException) -> tuple[str, ...]:
    found: list[str] = []
    link: BaseException | None = error
    while link is not None and len(found) < 20:
        found.append(f"{type(link).__module__}.{type(link).__qualname__}")
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return tuple(found)


def _frames(error: BaseException, program: Callable[[], Any]) -> tuple[str, ...]:
    """The traceback from the program's own frame inward. Lines of torch's files count, ours must not appear at all."""
    stack = traceback.extract_tb(error.__traceback__)
    if PACKAGE in "".join(traceback.format_exception(error)):  # with all that it was raised from
        raise AssertionError("our frames in the program's traceback:\n" + "".join(traceback.format_exception(error)))
    name = getattr(program, "__name__", "")
    first = next((i for i, frame in enumerate(stack) if frame.name == name), 0)
    return tuple(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in stack[first:])


class Freezer:
    """Turns what a program returned into plain data that compares by `==`."""

    def __init__(self) -> None:
        self._kept: list[Any] = []
        self._objects: dict[int, int] = {}
        self._storages: dict[int, int] = {}

    def __call__(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if value is None or isinstance(value, (bool, int, str, bytes, torch.dtype, torch.device, torch.layout)):
            return value
        if isinstance(value, (float, complex)):
            return repr(value)
        if isinstance(value, (list, tuple)):  # torch.Size and named tuples too
            return (type(value).__name__, [self(item) for item in value])
        if isinstance(value, dict):
            return (type(value).__name__, [(self(key), self(item)) for key, item in value.items()])
        if isinstance(value, np.ndarray):
            return ("ndarray", str(value.dtype), value.shape, value.tobytes())
        if isinstance(value, torch.nn.Module):
            return (
                type(value).__name__,
                value.training,
                self(dict(value.named_parameters())),
                self(dict(value.named_buffers())),
            )
        if isinstance(value, (torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, torch.amp.GradScaler)):
            return (type(value).__name__, self(value.state_dict()))
        if isinstance(value, BaseException):
            # The text may end with what the watch adds, after an empty line.
            return (_chain(value), str(value).partition("\n\nIn-place")[0])
        if isinstance(value, type) or callable(value):
            return getattr(value, "__qualname__", type(value).__name__)
        raise TypeError(f"a program returns something that this comparison does not know: {type(value)}")

    def _tensor(self, t: torch.Tensor) -> Any:
        self._kept.append(t)  # keeps ids from being given out again
        facts: dict[str, Any] = {
            "class": type(t).__name__, "object": self._objects.setdefault(id(t), len(self._objects)), "dtype": t.dtype, "layout": t.layout,
            "device": str(t.device), "requires_grad": t.requires_grad, "inference": t.is_inference(), "shape": None, "is_view": t._is_view(),
            "attributes": sorted(vars(t)) if hasattr(t, "__dict__") else [], "hooks": len(t._backward_hooks or ()),
        }  # fmt: skip
        if not t.is_inference():
            facts["version"] = t._version
        with contextlib.suppress(RuntimeError, NotImplementedError):
            storage = torch._C._storage_id(t)
            facts["storage"] = self._storages.setdefault(storage, len(self._storages))
            facts["storage size"] = t.untyped_storage().size()
        with contextlib.suppress(RuntimeError):
            facts["shape"] = [str(n) for n in t.shape]
            facts["stride"] = [str(n) for n in t.stride()]
            facts["offset"] = str(t.storage_offset())
        try:
            facts["leaf"], facts["graph"] = t.is_leaf, _graph(t.grad_fn)
            facts["output"] = t.output_nr
        except RuntimeError as error:  # a view whose base was written in a forbidden way
            facts["graph"] = str(error)
        with torch.no_grad():
            facts["bytes"] = _bytes(t)
        if t.requires_grad or not t.is_floating_point():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # .grad of a non-leaf
                facts["grad"] = None if t.grad is None else self(t.grad)
        return facts


def _graph(node: Any) -> list[str]:
    """The graph behind a tensor, breadth first: names of nodes and their wiring."""
    if node is None:
        return []
    order = {node: 0}
    queue, out = [node], []
    while queue:
        current = queue.pop(0)
        links = []
        for following, number in current.next_functions:
            if following is not None and following not in order:
                order[following] = len(order)
                queue.append(following)
            links.append(f"{order.get(following)}.{number}")
        name = current.name()
        out.append(f"{RENAMED_NODES.get(name, name)} {' '.join(links)}")
    return out


def _bytes(t: torch.Tensor) -> Any:
    from torch._subclasses import FakeTensor

    if t.device.type == "meta" or isinstance(t, FakeTensor):
        return None
    if t.is_nested:
        return [_bytes(part) for part in t.unbind()]
    if t.layout is torch.sparse_coo:
        return [t.is_coalesced(), _bytes(t._indices()), _bytes(t._values())]
    if t.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [_bytes(t.crow_indices()), _bytes(t.col_indices()), _bytes(t.values())]
    if t.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [_bytes(t.ccol_indices()), _bytes(t.row_indices()), _bytes(t.values())]
    if t.layout is torch._mkldnn:
        return _bytes(t.to_dense())
    if t.is_quantized:
        return [_bytes(t.int_repr()), repr(t.qscheme())]
    if hasattr(type(t), "__tensor_flatten__"):
        return [_bytes(getattr(t, name)) for name in t.__tensor_flatten__()[0]]
    # `inner` of a wrapper class of ours is the tensor that it wraps; torch has a method of that name.
    while type(t) not in (torch.Tensor, torch.nn.Parameter) and isinstance(getattr(t, "inner", None), torch.Tensor):
        t = t.inner
    with torch._C.DisableTorchFunctionSubclass():
        plain = torch.Tensor.detach(t).resolve_conj().resolve_neg().contiguous().cpu()
        return plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
