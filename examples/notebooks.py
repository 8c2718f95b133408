"""Runs the example notebooks in a kernel of this very environment, and makes pages of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

REPORT = "application/vnd.jupyter-inplace.v1+json"
FOLDER = Path(__file__).parent


def read(path: Path) -> Any:
    """The notebook in a file, without outputs."""
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    """Its cells of code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run(
    notebook: Any,
    start: Callable[[Any], None] = lambda _: None,
    finish: Callable[[], None] = lambda: None,
) -> None:
    """Run all cells; the outputs stand in the notebook afterwards.

    :param start: called with each cell of code before it runs.
    :param finish: called after each.
    :raises CellExecutionError: a cell failed that is not tagged `raises-exception`.
    """
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # a kernel of the same name in the home directory has none of ours
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],
        timeout=300,
        on_cell_execute=lambda cell, **_: start(cell) if cell.cell_type == "code" else None,
        on_cell_executed=lambda **_: finish(),
    )
    client.execute()


def bundles(notebook: Any) -> list[dict[str, Any]]:
    """What was displayed for each report, by MIME type, in the order of the cells."""
    found = [output.data for cell in code_cells(notebook) for output in cell.outputs if "data" in output]
    return [data for data in found if REPORT in data]


def write_page(notebook: Any, path: Path) -> None:
    """The notebook with its outputs as one HTML file, which asks the network for nothing.

    nbconvert's scripts are for formulas and diagrams, of which there are none. Links lead from page to page.
    """
    title = notebook.cells[0].source.splitlines()[0].removeprefix("# ")
    html = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": title}})[0]
    html = re.sub(r"<script\b.*?</script>", "", html, flags=re.DOTALL)
    html = re.sub(r'href="(\w+)\.ipynb"', r'href="\1.html"', html)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")
