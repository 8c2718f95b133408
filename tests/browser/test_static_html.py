"""Where no extension and no widget is: the static HTML that nbconvert makes of a saved notebook."""

from __future__ import annotations

import json

import nbformat
import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import expect
from server import code_cell, displayed

from jupyter_inplace.show.bundle import mimebundle

pytestmark = pytest.mark.browser


def test_nbconvert_shows_the_report_without_script(page, samples, tmp_path):
    report = samples.breaks()
    cell = code_cell(report.cell.source, [displayed(mimebundle(report))], report.cell.id)
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    html, _ = HTMLExporter().from_notebook_node(nbformat.reads(json.dumps(notebook), as_version=4))
    (tmp_path / "page.html").write_text(html)
    page.route("**/*", lambda route: route.continue_() if route.request.url.startswith("file:") else route.abort())
    page.goto((tmp_path / "page.html").as_uri())
    output = page.locator(".jp-OutputArea-output")
    expect(output).to_contain_text("z.mul_(0.5)")
    expect(output).to_contain_text("trunk.weight")
    assert output.locator("script").count() == 0
    assert output.locator("svg").count() >= 1


def test_each_name_stands_at_its_lane(page, samples, tmp_path):
    """A page's own rule for pictures (JupyterLab and nbconvert have one) does not shrink the timeline beside its names."""
    report = samples.breaks()
    cell = code_cell(report.cell.source, [displayed(mimebundle(report))], report.cell.id)
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    html, _ = HTMLExporter().from_notebook_node(nbformat.reads(json.dumps(notebook), as_version=4))
    (tmp_path / "page.html").write_text(html)
    page.route("**/*", lambda route: route.continue_() if route.request.url.startswith("file:") else route.abort())
    page.set_viewport_size({"width": 480, "height": 900})
    page.goto((tmp_path / "page.html").as_uri())
    middle = "e => { const box = e.getBoundingClientRect(); return (box.top + box.bottom) / 2; }"
    rails = page.locator(".ji-svg .ji-rail").evaluate_all(f"list => list.map({middle})")
    tops = page.locator(".ji-names > div").evaluate_all("list => list.map(e => e.getBoundingClientRect().top + 16)")
    assert len(rails) > 1
    assert tops == pytest.approx(rails, abs=1.5)
