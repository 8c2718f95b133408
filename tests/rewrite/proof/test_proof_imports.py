"""What a program imports before it does anything else is imported once for all of its proofs."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from jupyter_inplace import watch
from jupyter_inplace.report import Cell
from jupyter_inplace.rewrite.before import Before
from jupyter_inplace.rewrite.proof.imports import first_imports
from jupyter_inplace.rewrite.verify import verify


@pytest.fixture
def own(monkeypatch, tmp_path):
    """A module of the user's that has been imported."""
    module = ModuleType("own")
    module.__file__ = str(tmp_path / "own.py")
    monkeypatch.setitem(sys.modules, "own", module)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (
            "import os, sys\nimport torch.nn.functional as F\nfrom torch import nn",
            ["os", "sys", "torch.nn.functional", "torch"],
        ),
        (
            '"""Trains."""\nfrom __future__ import annotations\nimport torch\nx = 1\nimport json',
            ["__future__", "torch"],
        ),
        ("%%autograd_watch\nimport torch\n%matplotlib inline\nimport json", ["torch"]),
        ("import os\nos.environ['A'] = '1'\nimport torch", ["os"]),  # torch may read it
        ("import os\nimport own\nimport torch", ["os"]),  # and `own` may set something
        ("from . import own", []),
        ("import not_there_at_all\nimport torch", []),
        ("import torch\nthis is no Python", []),
    ],
)
def test_the_imports_at_the_head(source, found, own):
    assert first_imports(source) == found


SOURCE = """\
import collections
import imported_once
import torch
w = torch.ones(3, requires_grad=True)
h = torch.exp(w)
loss = h.sum()
h.data.mul_(2)
loss.backward()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forking is for Linux")
def test_each_library_is_imported_once_however_many_proofs(tmp_path, monkeypatch):
    library = tmp_path / "site-packages" / "imported_once.py"
    library.parent.mkdir()
    counted = tmp_path / "counted"
    library.write_text(
        f"import os\nos.write(os.open({str(counted)!r}, os.O_CREAT | os.O_APPEND | os.O_WRONLY), b'.')\n"
    )
    monkeypatch.syspath_prepend(str(library.parent))
    namespace: dict = {}
    before = Before.keep(namespace, SOURCE)
    try:
        with watch(cell=Cell(source=SOURCE), cell_file="once.py", namespace=lambda: namespace) as report:
            exec(compile(SOURCE, "once.py", "exec"), namespace)
        fixes = verify(SOURCE, report.report, before.sandbox)
    finally:
        before.drop()
        sys.modules.pop("imported_once", None)
    passed = [fix for fix in fixes if fix.verification.status == "passed"]
    assert len(passed) > 1
    assert torch.equal(namespace["w"].grad, 2 * torch.exp(torch.ones(3)))
    assert counted.read_text() == ".."  # here, and in the copy
