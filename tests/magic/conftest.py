"""A watch that only notes what it is asked."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from jupyter_inplace.report import Mutation, Report


class FakeWatch:
    """Stands in for `jupyter_inplace.watch.watch`: notes its arguments, finds what `finds` says."""

    made: list[FakeWatch]
    finds = "harmless"
    proofs = None
    fault = None

    def __init__(self, *tasks: str, **keywords: Any) -> None:
        self.tasks = tasks
        self.keywords = keywords
        self.log: list[Any] = []
        self.report: Report | None = None
        self.made.append(self)

    def start(self) -> None:
        self.log.append("start")

    def go_on_in(self, file: str, label: str) -> None:
        self.keywords["cell_file"] = file
        self.keywords["labels"][file] = label

    def stop(self, error: BaseException | None) -> Report:
        self.log.append("stop")
        self.error = error
        mutations = (Mutation(id=0, op="aten.mul_.Tensor", tensor="h", verdict=self.finds),)
        self.report = Report(
            verdict=self.finds, summary=f"a {self.finds} cell.", cell=self.keywords["cell"], mutations=mutations
        )
        return self.report


@pytest.fixture
def fake(monkeypatch) -> type[FakeWatch]:
    """The fake watch, in the place of the real one; torch counts as imported."""
    room = types.ModuleType("jupyter_inplace.watch")
    room.watch = type("watch", (FakeWatch,), {"made": [], "finds": "harmless"})
    monkeypatch.setitem(sys.modules, "jupyter_inplace.watch", room)
    monkeypatch.setitem(sys.modules, "torch", sys.modules.get("torch") or types.ModuleType("torch"))
    return room.watch
