"""The first example in JupyterLab, by somebody who reads nothing but its cells: run, see it fail, one click, green."""

from __future__ import annotations

import json

import pytest
from lab import Notebook
from playwright.sync_api import expect
from server import ROOT, JupyterServer

pytestmark = pytest.mark.browser


def test_start_here(lab: Notebook, server: JupyterServer):
    cells = json.loads((ROOT / "examples" / "00_start_here.ipynb").read_text(encoding="utf-8"))["cells"]
    load, broken, last = (index for index, cell in enumerate(cells) if cell["cell_type"] == "code")
    lab.show(server.write("00_start_here.ipynb", cells), kernel=True)

    lab.run(load)
    lab.run(broken)
    panel = lab.panel(broken)
    expect(panel.locator('[data-ji="verdict"]')).to_have_attribute("data-ji-verdict", "breaks", timeout=60_000)
    first = panel.locator('[data-ji="fix"]').first
    expect(first).to_have_attribute("data-ji-status", "passed", timeout=60_000)
    label = first.locator('[data-ji="apply-run"]')
    assert label.inner_text().strip() in "".join(cells[broken + 1]["source"])  # the text says what the button says

    label.click()
    lab.wait_idle(broken)
    expect(lab.cell(broken).locator('[data-mime-type="application/vnd.jupyter.stderr"]')).to_have_count(0)
    expect(lab.panel(broken).locator('[data-ji="verdict"]')).to_have_attribute("data-ji-verdict", "harmless")
    lab.run(last)
    expect(lab.cell(last).locator(".jp-OutputArea-output")).to_contain_text("tensor(")
