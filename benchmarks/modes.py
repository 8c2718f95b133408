"""What a step is run under: nothing, our watch, and what torch itself offers for looking at in-place writes and gradients."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.autograd.graph import allow_mutation_on_saved_tensors, saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.programs import CELL_FILE, Program
from jupyter_inplace.watch import watch

Mode = Callable[[Program], AbstractContextManager[Any]]

PLAIN, WATCH, HOOKS, EMPTY = "plain", "watch", "saved-tensor hooks alone", "empty TorchDispatchMode"
ANOMALY = "anomaly mode"


class EmptyMode(TorchDispatchMode):
    """Sees every operation and does nothing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _watched(program: Program) -> Iterator[None]:
    """The magic's defaults, but for the copy of the state from before the cell."""
    running = watch(cell=program.cell, cell_file=CELL_FILE, namespace=program.namespace, verify=False)
    with running as report:
        yield
    if report.verdict != "harmless" or report.blind_spots:
        raise AssertionError(f"the watch is expected to find nothing: {report}")


def _debug(program: Program) -> AbstractContextManager[Any]:  # noqa: ARG001
    from torch.utils._debug_mode import DebugMode

    mode: AbstractContextManager[Any] = DebugMode()
    return mode


MODES: dict[str, Mode] = {
    PLAIN: lambda _: contextlib.nullcontext(),
    WATCH: _watched,
    HOOKS: lambda _: saved_tensors_hooks(lambda t: t, lambda t: t),
    EMPTY: lambda _: EmptyMode(),
    f"{ANOMALY}, NaN checks off": lambda _: torch.autograd.set_detect_anomaly(mode=True, check_nan=False),
    ANOMALY: lambda _: torch.autograd.set_detect_anomaly(mode=True, check_nan=True),
    "allow_mutation_on_saved_tensors": lambda _: allow_mutation_on_saved_tensors(),
    "DebugMode": _debug,
}


def torchlens_step(program: Program) -> Callable[[], Any] | None:
    """One logged forward pass under TorchLens, which has no mode for a whole step; None where it is not installed."""
    if importlib.util.find_spec("torchlens") is None:
        return None
    import torchlens

    model, data = program.namespace["model"], program.namespace["data"]
    log = getattr(torchlens, "trace", None) or torchlens.log_forward_pass  # its name before version 2
    return lambda: log(model, data)
