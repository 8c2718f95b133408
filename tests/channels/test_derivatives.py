"""Every silent case of the channels: its reference gradients are the derivatives of what the program computed."""

from __future__ import annotations

import importlib
import pathlib

import pytest
from cell_derivatives import check_derivative

_FILES = sorted(path.stem for path in pathlib.Path(__file__).parent.glob("test_channel_*.py"))
SILENT = {
    f"{file.removeprefix('test_channel_')}: {name}": cell
    for file in _FILES
    for name, cell in getattr(importlib.import_module(file), "CELLS", {}).items()
    if cell.verdict in ("corrupts", "cuts") and cell.derivative
}


@pytest.mark.parametrize("name", SILENT)
def test_references_are_derivatives(cells, name):
    assert check_derivative(cells, SILENT[name])
