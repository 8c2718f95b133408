"""Every example runs as it stands, and what its text claims is so: `claims/NAME.py` runs as its last cell."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import pytest

from jupyter_inplace.report import Report

EXAMPLES = Path(__file__).parents[2] / "examples"
CLAIMS = Path(__file__).parent / "claims"
# The one on tapes needs TensorFlow: `tests/tensorflow` runs it, in the environment that has it.
NOTEBOOKS = [path for path in sorted(EXAMPLES.glob("[0-9]*.ipynb")) if "tensorflow" not in path.stem]

sys.path.insert(0, str(EXAMPLES))
import notebooks  # noqa: E402


def prompt(cell) -> str:
    return cell.source.splitlines()[0]


@pytest.mark.kernel
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_and_keeps_its_word(path):
    notebook = notebooks.read(path)
    for cell in notebooks.code_cells(notebook):  # what a busy machine leaves untried says nothing of the claims
        cell.source = re.sub(r"^(%%autograd_watch\b)(?!.*--verify)", r"\1 --verify-seconds 200", cell.source)
    claims = CLAIMS / f"{path.stem}.py"
    if claims.exists():
        notebook.cells.append(nbformat.v4.new_code_cell(claims.read_text(encoding="utf-8")))
    notebooks.run(notebook)
    for cell in notebooks.code_cells(notebook):
        failed = any(output.output_type == "error" for output in cell.outputs)
        assert failed == ("raises-exception" in cell.metadata.get("tags", [])), prompt(cell)
    for bundle in notebooks.bundles(notebook):
        Report.from_dict(bundle[notebooks.REPORT])
        assert bundle["text/html"]


@pytest.mark.kernel
def test_one_click_makes_the_first_cell_green():
    notebook = notebooks.read(EXAMPLES / "00_start_here.ipynb")
    notebooks.run(notebook)
    (bundle,) = notebooks.bundles(notebook)
    broken = Report.from_dict(bundle[notebooks.REPORT])
    assert broken.verdict == "breaks"
    assert notebooks.code_cells(notebook)[-1].outputs[-1].text == "None\n"
    assert {task.name: task.status for task in broken.tasks} == {"class_loss": "raises", "size_loss": "ok"}
    first = broken.fixes[0]
    assert (first.verification.status, first.verification.losses_equal) == ("passed", True)

    (cell,) = (cell for cell in notebooks.code_cells(notebook) if "raises-exception" in cell.metadata.get("tags", []))
    cell.source = first.source
    del cell.metadata["tags"]
    notebooks.run(notebook)
    (bundle,) = notebooks.bundles(notebook)
    assert Report.from_dict(bundle[notebooks.REPORT]).verdict == "harmless"
    assert "tensor(" in notebooks.code_cells(notebook)[-1].outputs[-1].text


def test_a_page_asks_the_network_for_nothing_and_leads_to_the_other_pages(tmp_path):
    notebook = notebooks.read(EXAMPLES / "00_start_here.ipynb")
    notebooks.write_page(notebook, tmp_path / "pages" / "00_start_here.html")
    html = (tmp_path / "pages" / "00_start_here.html").read_text(encoding="utf-8")
    assert "<title>Start here</title>" in html
    assert not re.search(r"<script|<link|<img|src=|@import", html)
    assert not re.search(r"url\((?!['\"]?data:)", html)
    assert "01_leaf_writes" in re.findall(r'href="(\w+)\.html"', html)
    assert ".ipynb" not in html


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_committed_clean(path):
    notebook = notebooks.read(path)
    nbformat.validate(notebook)
    cells = notebooks.code_cells(notebook)
    assert 3 <= len(cells) <= 12
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)
    assert notebook.cells[0].source.startswith("# ")


def test_the_way_through_them_names_each():
    text = "\n".join(cell.source for cell in notebooks.read(EXAMPLES / "00_start_here.ipynb").cells)
    named = re.findall(r"^\| \[(\w+)\]\(\1\.ipynb\) \|", text, re.MULTILINE)
    assert named == sorted(named)
    assert {path.stem for path in NOTEBOOKS[1:]} <= set(named)
