"""Random programs under the watch: is the verdict the oracle's, is the write's own line named, are all bits those of the unwatched run?"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import linecache
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from random_programs.oracle import Judgement, judge
from random_programs.runs import usual_settings
from random_programs.text import Program

from jupyter_inplace import watch

HARMFUL = ("rejected", "breaks", "corrupts", "cuts")
#: What can be wrong with the answer for one program, the worst first. "crash": the watch itself raised.
#: "bits": values, errors or random numbers are not those of the unwatched run; "versions": only a version counter is not.
FAULTS = ("crash", "bits", "missed", "unknown", "false alarm", "wrong verdict", "wrong line", "versions")
_numbers = itertools.count()


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of one program.

    :param faults: some of `FAULTS`; empty: all was right.
    :param said: the verdict and the lines that the report blames.
    """

    program: Program
    judgement: Judgement
    faults: tuple[str, ...] = ()
    said: str = ""


@dataclasses.dataclass
class _Outcome:
    """How a run ended: the error and its line, every tensor in reach, and the stream of random numbers."""

    error: str | None = None
    line: int | None = None
    message: str = ""
    tensors: dict[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    versions: dict[str, int] = dataclasses.field(default_factory=dict)
    rng: bytes = b""


def examine(program: Program) -> Result:
    """Ask the oracle and the watch about one program."""
    judgement = judge(program)
    if judgement.harmful is None:
        return Result(program, judgement)
    plain, _, _ = _run(program, watched=False)
    watched, report, crash = _run(program, watched=True)
    if crash is not None or report is None:
        return Result(program, judgement, ("crash",), repr(crash))
    # A row that is pending tells of a backward that the program does not make; the oracle has nothing to hold against it.
    rows = [m for m in report.mutations if not m.pending]
    lines = {m.site.line if m.site is not None else 0 for m in rows if m.verdict in HARMFUL}
    verdict = next((word for word in (*HARMFUL, "unknown") if any(m.verdict == word for m in rows)), "harmless")
    if verdict == "harmless" and report.verdict == "unknown":
        verdict = "unknown"
    faults = []
    same_error = (plain.error, plain.line) == (watched.error, watched.line) and plain.message in watched.message
    if not same_error or plain.tensors != watched.tensors or plain.rng != watched.rng:
        faults.append("bits")
    faults += _fault(judgement, verdict, lines <= program.write_lines)
    if plain.versions != watched.versions:
        faults.append("versions")
    return Result(program, judgement, tuple(faults), f"{verdict} {sorted(lines)}, not {sorted(program.write_lines)}")


def _fault(judgement: Judgement, verdict: str, own_lines: bool) -> list[str]:
    if not judgement.harmful:
        return [] if verdict == "harmless" else ["unknown" if verdict == "unknown" else "false alarm"]
    if verdict not in HARMFUL:
        return ["unknown" if verdict == "unknown" else "missed"]
    meant = {"raises": ("breaks",), "refused": ("rejected",)}.get(judgement.reason, ("breaks", "corrupts", "cuts"))
    if verdict not in meant:
        return ["wrong verdict"]
    return [] if own_lines else ["wrong line"]


def _run(program: Program, watched: bool) -> tuple[_Outcome, Any, Exception | None]:
    """The outcome, the report if it was watched, and what the watch itself raised."""
    name = f"<random program {next(_numbers)}>"
    source = program.cell
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    space: dict[str, Any] = {"__name__": "__main__"}
    outcome = _Outcome()
    report = None
    try:
        with usual_settings():
            handle = watch(verify=False, namespace=space) if watched else None
            if handle is not None:
                handle.start()
            raised = None
            try:
                exec(compile(source, name, "exec"), space)
            except Exception as error:
                raised = error
                outcome.error, outcome.message, outcome.line = type(error).__name__, str(error), _line_in(error, name)
            if handle is not None:
                report = handle.stop(raised)
        outcome.rng = torch.get_rng_state().numpy().tobytes()
        found = dict(_tensors(space))
        outcome.tensors = {path: _bits(t) for path, t in found.items()}
        outcome.versions = {path: t._version for path, t in found.items()}
    except Exception as crash:
        return outcome, None, crash
    finally:
        space.clear()
        linecache.cache.pop(name, None)
    return outcome, report, None


def _line_in(error: BaseException, name: str) -> int | None:
    line, tb = None, error.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code.co_filename == name:
            line = tb.tb_lineno
        tb = tb.tb_next
    return line


def _tensors(space: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor that the names of a program reach, and the gradients of leaves."""
    waiting = [(name, value) for name, value in space.items() if not name.startswith("__")]
    seen: set[int] = set()
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield path, value
            with contextlib.suppress(RuntimeError):  # a view that was invalidated
                if value.is_leaf and value.grad is not None:
                    yield f"{path}.grad", value.grad
        elif isinstance(value, np.ndarray):
            yield path, torch.from_numpy(value.copy())
        elif isinstance(value, torch.nn.Module):
            waiting += [(f"{path}.{n}", t) for n, t in (*value.named_parameters(), *value.named_buffers())]
        elif isinstance(value, (list, tuple, dict)) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(f"{path}[{k if isinstance(k, (str, int)) else '.'}]", item) for k, item in items]


def _bits(t: torch.Tensor) -> tuple[Any, ...]:
    return t.dtype, tuple(t.shape), t.requires_grad, t.detach().contiguous().numpy().tobytes()
