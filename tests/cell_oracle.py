"""Cells held against torch itself, unwatched: what raises, and which gradient each task has of each leaf.

The same source is run without any watch, twice. The first run is the program as it is. The second is the program as it was meant:
repaired, or, where a write to a saved tensor is all that is wrong, under hooks that save copies. At each backward call the gradient of
every named task and leaf is asked of `torch.autograd.grad` on its own, so a row `raises` exactly where torch refuses that one.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import io
import itertools
import math
import re
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from jupyter_inplace import magic


class OneShell:
    """A shell with the extension that serves many cells, each in a namespace of its own."""

    def __init__(self) -> None:
        InteractiveShell.clear_instance()
        self.ip = InteractiveShell.instance()
        magic.load(self.ip)

    def run(self, cell: str) -> str:
        """Run a cell; returns what it printed, tracebacks included."""
        self.ip.reset(new_session=False)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            self.ip.run_cell(cell, store_history=False)
        return printed.getvalue()

    @property
    def ns(self) -> dict[str, Any]:
        return self.ip.user_ns

    def close(self) -> None:
        magic.unload(self.ip)
        atexit.unregister(self.ip.atexit_operations)
        self.ip.atexit_operations()
        InteractiveShell.clear_instance()


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Iterator[OneShell]:
    """One shell for all cells of a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        shell = OneShell()
        yield shell
        shell.close()


HARMFUL = ("rejected", "breaks", "corrupts", "cuts")
HEAD = "import torch, torch.nn as nn, torch.nn.functional as F\ntorch.manual_seed(0)\n"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A notebook cell and what is to be said of it.

    :param verdict: the worst one.
    :param line: the source line of the harmful write; several are separated by `` | ``. All of them, and no other, must be said harmful.
    :param saved: ``NodeBackward0 @ source line``: one of the conflicts.
    :param tasks: names and statuses, ``loss_a:ok loss_b:wrong``; all there are.
    :param leaves: the leaves that are hit, separated by spaces. All of them and no others.
    :param repair: what to replace in the source, and by what, such that it computes the gradients that were meant. Empty:
        the source itself, with copies of what is saved.
    :param derivative: whether the gradient that was meant is the derivative of what the tasks' values were; not where a value depends
        on a leaf also through an optimizer's step or a hook.
    :param probe: whether torch is asked for each row's gradient; not where a backward has side effects.
    """

    source: str
    verdict: str = "harmless"
    line: str = ""
    saved: str = ""
    tasks: str = ""
    leaves: str = ""
    repair: tuple[tuple[str, str], ...] = ()
    probe: bool = True
    derivative: bool = True

    @property
    def statuses(self) -> dict[str, str]:
        return dict(part.rsplit(":", 1) for part in self.tasks.split())


Rows = dict[tuple[str, str], list[Any]]  # (task, leaf) -> one entry a backward call: a gradient, None, or "raises"


def check(shell: OneShell, cell: Cell) -> dict[str, Any]:
    """Run `cell` through the magic and hold the report against `cell` and against torch. Returns the report's data."""
    report = watched(shell, cell.source)
    said = {
        "verdict": report["verdict"],
        "lines": harmful_lines(report),
        "tasks": {task["name"]: task["status"] for task in report["tasks"]},
        "leaves": sorted({row["leaf"] for row in report["gradients"] if row["status"] != "ok"}),
    }
    meant = {
        "verdict": cell.verdict,
        "lines": sorted(_squash(line) for line in cell.line.split(" | ") if line),
        "tasks": cell.statuses,
        "leaves": sorted(cell.leaves.split()),
    }
    if not cell.tasks:
        del said["tasks"], meant["tasks"]
    assert said == meant, (said, meant, report["summary"], report["blind_spots"])
    if cell.saved:
        node, _, line = cell.saved.partition(" @ ")
        conflicts = [(c["node"], _squash((c["saved_site"] or {}).get("line_text", ""))) for c in report["conflicts"]]
        assert (node, _squash(line)) in conflicts, conflicts
    assert not [
        note for note in report["blind_spots"] if "recorder failed" in note or "could not be worked out" in note
    ]
    if cell.probe and cell.tasks and cell.verdict != "rejected":
        compare(report, cell)
    return report


def watched(shell: OneShell, source: str) -> dict[str, Any]:
    """The report of `source` under the magic, as data."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        printed = shell.run("%%autograd_watch --no-verify --result watch_report\n" + source)
    assert "watch_report" in shell.ns, printed
    data: dict[str, Any] = shell.ns["watch_report"].to_dict()
    return data


def harmful_lines(report: dict[str, Any]) -> list[str]:
    """The source lines of the harmful writes, without spaces."""
    return sorted(
        {_squash((m["site"] or {}).get("line_text", "?")) for m in report["mutations"] if m["verdict"] in HARMFUL}
    )


def _squash(line: str) -> str:
    return re.sub(r"\s+", "", line.split("  #", maxsplit=1)[0])


# --- against torch ---------------------------------------------------------------------------------------------------------


def compare(report: dict[str, Any], cell: Cell) -> None:
    """Every row of the report against torch: whether it raises, both norms, the relative difference and the cosine."""
    as_run = unwatched(cell.source, cell.statuses)
    source = cell.source
    for old, new in cell.repair:
        assert old in source, old
        source = source.replace(old, new)
    meant = unwatched(source, cell.statuses, copies=not cell.repair)
    rows = {(row["task"], row["leaf"]): row for row in report["gradients"]}
    assert as_run, "no task of the cell was found in the unwatched run"
    for key, runs in as_run.items():
        found, references = rows.pop(key, None), meant.get(key, [])
        pairs = list(itertools.zip_longest(runs, references[: len(runs)]))
        statuses = [status_of(*pair) for pair in pairs]
        worst = next((s for s in ("raises", "wrong", "lost") if s in statuses), "ok")
        if found is None:  # a task that met no damage, or a leaf that it does not reach
            assert worst == "ok", key
            continue
        assert found["status"] == worst, (key, found, statuses, pairs)
        alike = [pair for pair, status in zip(pairs, statuses, strict=True) if status == worst]
        assert any(_numbers_agree(found, *pair) for pair in alike), (key, found, alike)
    assert not [key for key in rows if key[0] in cell.statuses and rows[key]["status"] != "ok"], rows


def status_of(as_run: Any, meant: Any) -> str:
    """What the row of a gradient should say."""
    if isinstance(as_run, str):
        return as_run
    a, b = _dense(as_run, meant), _dense(meant, as_run)
    if a is b is None or torch.allclose(a, b, rtol=1e-4, atol=1e-7, equal_nan=True):
        return "ok"
    return "lost" if not a.any() else "wrong"


def _numbers_agree(row: dict[str, Any], as_run: Any, meant: Any) -> bool:
    b = _dense(meant, as_run)
    if not _near(row["norm_reference"], 0.0 if b is None else float(b.norm())):
        return False
    if isinstance(as_run, str):
        return row["norm_as_run"] is None
    a = _dense(as_run, meant)
    if a is None or b is None:
        return True
    relative = float((a - b).norm() / b.norm()) if b.norm() > 0 else math.inf
    if (
        row["status"] != "ok"
        and row["relative_difference"] is not None
        and not _near(row["relative_difference"], relative)
    ):
        return False
    if (
        row["cosine"] is not None
        and abs(row["cosine"] - float((a / a.norm()).flatten() @ (b / b.norm()).flatten())) > 1e-3
    ):
        return False
    return _near(row["norm_as_run"], float(a.norm()))


def _near(a: float | None, b: float) -> bool:
    return a is not None and (a == b or math.isclose(a, b, rel_tol=2e-3, abs_tol=1e-6))


def _dense(g: Any, other: Any) -> Any:
    if g is None or isinstance(g, str):
        like = other if isinstance(other, torch.Tensor) else None
        return (
            None
            if like is None
            else torch.zeros_like(like.to_dense() if like.layout is not torch.strided else like).double()
        )
    return (g.to_dense() if g.layout is not torch.strided else g).double()


def unwatched(source: str, tasks: Any, copies: bool = False) -> Rows:
    """Run `source` in a namespace of its own and ask torch at each backward for the gradients of the named tasks."""
    space: dict[str, Any] = {"__name__": "__main__"}
    found: Rows = {}
    torch.manual_seed(0)
    hooks = (
        torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t)
        if copies
        else contextlib.nullcontext()
    )
    with (
        _asking(space, list(tasks), found),
        hooks,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            exec(compile(source, "<cell>", "exec"), space)
        except RuntimeError as error:
            if not _is_refusal(error):
                raise
    return found


def _is_refusal(error: Exception) -> bool:
    return "in-place" in str(error) or "inplace" in str(error)


@contextlib.contextmanager
def _asking(space: dict[str, Any], tasks: list[str], found: Rows) -> Iterator[None]:
    backward, grad = torch.autograd.backward, torch.autograd.grad

    def ask(roots: Any, inputs: Any) -> None:
        roots = [r for r in ([roots] if isinstance(roots, torch.Tensor) else roots) if r.grad_fn is not None]
        leaves = leaves_of(space)
        for task in tasks:
            try:
                t = eval(task, space)
            except (NameError, KeyError, IndexError, AttributeError):
                continue
            if not isinstance(t, torch.Tensor) or t.grad_fn is None or not any(_holds(r, t) for r in roots):
                continue
            weight: Any = None
            with contextlib.suppress(RuntimeError):
                weight = grad(sum(r.sum() for r in roots), t, retain_graph=True, allow_unused=True)[0]
            wanted = {name: leaf for name, leaf in leaves.items() if not inputs or any(leaf is i for i in inputs)}
            gradient = weight if weight is not None else torch.ones_like(t)
            for (name, _), g in zip(wanted.items(), _gradients(t, list(wanted.values()), gradient), strict=True):
                found.setdefault((task, name), []).append(g if g is None or isinstance(g, str) else g.detach().clone())

    def _gradients(t: torch.Tensor, wanted: list[torch.Tensor], gradient: Any) -> list[Any]:
        """All at once, since hooks see what the engine hands to several nodes; where torch refuses, each by itself."""
        try:
            return list(grad(t, wanted, gradient, retain_graph=True, allow_unused=True)) if wanted else []
        except RuntimeError as error:
            if not _is_refusal(error):
                raise
        out: list[Any] = []
        for leaf in wanted:
            try:
                out.extend(grad(t, leaf, gradient, retain_graph=True, allow_unused=True))
            except RuntimeError as error:
                if not _is_refusal(error):
                    raise
                out.append("raises")
        return out

    def new_backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        inputs = kwargs.get("inputs") or ()
        ask(tensors, [inputs] if isinstance(inputs, torch.Tensor) else inputs)
        return backward(tensors, *args, **kwargs)

    def new_grad(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        ask(outputs, [inputs] if isinstance(inputs, torch.Tensor) else list(inputs))
        return grad(outputs, inputs, *args, **kwargs)

    torch.autograd.backward, torch.autograd.grad = new_backward, new_grad
    try:
        yield
    finally:
        torch.autograd.backward, torch.autograd.grad = backward, grad


def _holds(root: torch.Tensor, t: torch.Tensor) -> bool:
    seen, stack = set(), [root.grad_fn]
    while stack:
        node = stack.pop()
        if node is t.grad_fn:
            return True
        if node is not None and node not in seen:
            seen.add(node)
            stack.extend(child for child, _ in node.next_functions)
    return False


def leaves_of(space: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The leaves that need a gradient, by the names that a person would type."""
    found: dict[str, torch.Tensor] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            with contextlib.suppress(RuntimeError):
                known = any(value is other for other in found.values())
                if value.is_leaf and value.requires_grad and value._base is None and not known:
                    found[name] = value
        elif isinstance(value, torch.nn.Module):
            for path, parameter in value.named_parameters():
                add(f"{name}.{path}", parameter)
        elif isinstance(value, dict):
            for key, item in value.items():
                add(f'{name}["{key}"]' if isinstance(key, str) else f"{name}[{key!r}]", item)
        elif isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                add(f"{name}[{i}]", item)

    names = [name for name in space if not name.startswith("_")]
    for name in sorted(
        names,
        key=lambda name: (not isinstance(space[name], torch.nn.Module), not isinstance(space[name], torch.Tensor)),
    ):
        add(name, space[name])
    return found
