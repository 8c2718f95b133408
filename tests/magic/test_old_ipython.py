"""The versions that Google Colab pins: IPython 7.34, ipykernel 6.17, ipywidgets 7.7. The Makefile puts them beside the others."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from kernels import Kernel

OLD = Path(sys.prefix) / "ipython-7.34"
VIEW = "application/vnd.jupyter.widget-view+json"
DATA = "application/vnd.jupyter-inplace.v1+json"
BROKEN = """%%autograd_watch --result rep
import torch
w = torch.ones(2, requires_grad=True)
h = torch.sigmoid(w)
h.mul_(2)
loss = h.sum()
loss.backward()"""
COLAB = "import sys, types; sys.modules['google.colab'] = types.ModuleType('google.colab')"


@pytest.fixture(scope="module")
def kernel():
    assert OLD.is_dir(), f"{OLD} is missing: `make python-test` installs the old versions there"
    kernel = Kernel({**os.environ, "PYTHONPATH": os.pathsep.join([str(OLD), os.environ.get("PYTHONPATH", "")])})
    yield kernel
    kernel.stop()


def test_a_broken_cell(kernel):
    asked = "import IPython, ipykernel, ipywidgets; IPython.__version__, ipykernel.__version__, ipywidgets.__version__"
    assert kernel.run(asked).value == "('7.34.0', '6.17.1', '7.7.1')"
    assert kernel.run("%load_ext jupyter_inplace").status == "ok"
    ran = kernel.run(BROKEN, stop_on_error=False)
    assert ran.status == "error"
    assert "modified by an inplace operation" in ran.traceback
    assert "h.mul_(2)" in ran.traceback
    assert {DATA, "text/html", "text/plain"} <= set(ran.shown[0])
    assert VIEW not in ran.shown[0]  # nobody is there who could draw it
    assert kernel.run("rep.verdict, rep.fixes[0].verification.status").value == "('breaks', 'passed')"


def test_colab_gets_the_widget_though_it_names_no_cell(kernel):
    assert kernel.run(COLAB).status == "ok"
    ran = kernel.run(BROKEN, stop_on_error=False)
    assert {VIEW, DATA, "text/html", "text/plain"} <= set(ran.shown[0])


def test_the_next_cells_are_watched_too(kernel):
    assert kernel.run("%autograd_watch on").status == "ok"
    assert (
        "h.mul_(2)"
        in kernel.run("h = torch.sigmoid(w)\nh.mul_(2)\nh.sum().backward()", stop_on_error=False).shown[0]["text/plain"]
    )
    assert kernel.run("%autograd_watch off").status == "ok"
