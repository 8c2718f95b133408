"""A shell with the extension, and a watch that only notes what it is asked."""

from __future__ import annotations

import atexit
import io
import sys
import types
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import pytest
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell

from jupyter_inplace import magic
from jupyter_inplace.report import Mutation, Report


class FakeWatch:
    """Stands in for `jupyter_inplace.watch.watch`: notes its arguments, finds what `finds` says."""

    made: list[FakeWatch]
    finds = "harmless"

    def __init__(self, *tasks: str, **keywords: Any) -> None:
        self.tasks = tasks
        self.keywords = keywords
        self.log: list[Any] = []
        self.report: Report | None = None
        self.made.append(self)

    def start(self) -> None:
        self.log.append("start")

    def stop(self, error: BaseException | None) -> Report:
        self.log.append("stop")
        self.error = error
        mutations = (Mutation(id=0, op="aten.mul_.Tensor", tensor="h", verdict=self.finds),)
        self.report = Report(
            verdict=self.finds, summary=f"a {self.finds} cell.", cell=self.keywords["cell"], mutations=mutations
        )
        return self.report


@dataclass
class Ran:
    """What came of a cell."""

    result: ExecutionResult
    out: str
    err: str


class Shell:
    """A plain InteractiveShell, driven as a front end drives it."""

    def __init__(self) -> None:
        self.ip = InteractiveShell.instance()

    def run(self, cell: str, **keywords: Any) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            result = self.ip.run_cell(cell, **{"store_history": True, **keywords})
        return Ran(result, out.getvalue(), err.getvalue())

    @property
    def ns(self) -> dict[str, Any]:
        return self.ip.user_ns


@pytest.fixture
def bare(tmp_path, monkeypatch) -> Iterator[Shell]:
    """A shell without the extension."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    InteractiveShell.clear_instance()
    shell = Shell()
    shell.ip.run_line_magic("colors", "nocolor")
    yield shell
    atexit.unregister(shell.ip.atexit_operations)
    shell.ip.atexit_operations()
    InteractiveShell.clear_instance()


@pytest.fixture
def shell(bare) -> Iterator[Shell]:
    """A shell with the extension."""
    magic.load(bare.ip)
    yield bare
    magic.unload(bare.ip)


@pytest.fixture
def fake(monkeypatch) -> type[FakeWatch]:
    """The fake watch, in the place of the real one; torch counts as imported."""
    room = types.ModuleType("jupyter_inplace.watch")
    room.watch = type("watch", (FakeWatch,), {"made": [], "finds": "harmless"})
    monkeypatch.setitem(sys.modules, "jupyter_inplace.watch", room)
    monkeypatch.setitem(sys.modules, "torch", sys.modules.get("torch") or types.ModuleType("torch"))
    return room.watch
