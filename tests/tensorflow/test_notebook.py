"""The notebook says what happens."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "09_tensorflow_tape.ipynb"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        for cell in notebook.cells:  # each proof starts a process: test_rewrites has them
            cell.source = cell.source.replace("%%autograd_watch", "%%autograd_watch --no-verify", 1)
        more = """\
import json
names = ["in_torch", "in_tensorflow", "founding", "cut", "named", "partial", "recomputed"]
print(json.dumps({name: globals()[name].verdict for name in names}))
"""
        notebook.cells.append(nbformat.v4.new_code_cell(more))
        NotebookClient(notebook, timeout=120).execute()
    return notebook


def values(notebook):
    return [
        output["data"]["text/plain"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output["output_type"] == "execute_result"
    ]


def test_verdicts(ran):
    import json

    assert json.loads(ran.cells[-1].outputs[0]["text"]) == {
        "in_torch": "breaks",
        "in_tensorflow": "mixes",
        "founding": "harmless",
        "cut": "cuts",
        "named": "harmless",
        "partial": "cuts",
        "recomputed": "corrupts",
    }


def test_numbers(ran):
    found = values(ran)
    assert found[0] == "np.float32(7.0)"
    assert "[(0, 4.0), (1, 3.0)]" in found[1]
    assert "5.5" in found[1]
    assert found[2:] == [
        "np.float32(2.0)",
        "np.float32(36.0)",
        "np.float32(6.0)",
        "('wrong', 6.0, 12.0)",
        "np.float32(100.0)",
        "[(100.0, 9.0)]",
    ]


def test_no_outputs_are_kept():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
