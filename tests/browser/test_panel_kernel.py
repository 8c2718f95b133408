"""With a kernel: from the red cell to the green one."""

from __future__ import annotations

import json
import math

import pytest
from lab import CURRENT
from playwright.sync_api import expect
from server import code_cell, displayed

from jupyter_inplace.report import MIME_TYPE
from jupyter_inplace.show.bundle import mimebundle

pytestmark = [pytest.mark.browser, pytest.mark.kernel]

BROKEN = """\
import torch
from torch import nn
torch.manual_seed(3)
x = torch.randn(4, 6)
trunk = nn.Linear(6, 5); heads = nn.ModuleDict({"seg": nn.Linear(5, 2), "depth": nn.Linear(5, 1)})
z = torch.tanh(trunk(x))
seg = heads["seg"](z).pow(2).mean()
z.mul_(0.5)  # keep the activations small
depth = heads["depth"](z).abs().mean()
(seg + depth).backward()"""


def test_from_the_red_cell_to_the_green_one(server, lab):
    name = server.write("pain.ipynb", [code_cell(BROKEN)])
    notebook = lab.show(name, kernel=True)
    notebook.run()
    hint = notebook.cell().locator('[data-ji="hint"]')
    expect(hint).to_be_visible(timeout=40_000)
    expect(notebook.panel()).to_have_count(0)

    hint.locator('[data-ji="watch"]').click()
    verdict = notebook.panel().locator('[data-ji="verdict"]')
    expect(verdict).to_have_attribute("data-ji-verdict", "breaks", timeout=40_000)
    assert notebook.source() == "%%autograd_watch\n" + BROKEN
    expect(notebook.marks("write")).to_have_text("z.mul_(0.5)")
    # A cell that is watched needs no hint.
    expect(notebook.cell().locator('[data-ji="hint"]')).to_have_count(0)

    # The proofs arrive by themselves; the first one is a click away.
    best = notebook.panel().locator('[data-ji="fix"][data-ji-status="passed"]').first
    expect(best).to_be_visible(timeout=60_000)
    expect(notebook.panel().locator('[data-ji="proving"]')).to_have_count(0, timeout=60_000)
    best.locator('[data-ji="apply-run"]').click()
    expect(verdict).to_have_attribute("data-ji-verdict", "harmless", timeout=60_000)
    assert all(output["output_type"] != "error" for output in notebook.outputs())
    assert "z.mul_(0.5)" not in notebook.source() or "clone" in notebook.source()
    expect(notebook.marks("write")).to_have_count(0)


def test_apply_and_run_starts_from_the_state_before_the_cell(server, lab):
    first = code_cell("import torch\n%load_ext jupyter_inplace\nw = torch.ones(3, requires_grad=True)\nruns = 0")
    watched = code_cell(
        "%%autograd_watch\nruns += 1\nh = (w * 2).sigmoid()\nother = (w * 3).sum()\nother.backward()\n"
        "h.mul_(0.5)\nh.sum().backward()",
        identity="cell-2",
    )
    look = code_cell("print('runs', runs, 'grad', [round(g, 4) for g in w.grad.tolist()])", identity="cell-3")
    name = server.write("rewind.ipynb", [first, watched, look])
    notebook = lab.show(name, kernel=True)
    notebook.run(0)
    notebook.run(1)
    best = notebook.panel(1).locator('[data-ji="fix"][data-ji-status="passed"]').first
    expect(best).to_be_visible(timeout=60_000)
    best.locator('[data-ji="apply-run"]').click()
    verdict = notebook.panel(1).locator('[data-ji="verdict"]')
    expect(verdict).to_have_attribute("data-ji-verdict", "harmless", timeout=60_000)
    notebook.run(2)
    # d/dw of 3 w and of sigmoid(2 w) / 2 at w = 1, once: the failed run's part is gone, and so is its count.
    gradient = 3 + math.exp(-2) / (1 + math.exp(-2)) ** 2
    expect(notebook.cell(2)).to_contain_text(f"runs 1 grad [{round(gradient, 4)},", timeout=30_000)


def test_other_errors_get_no_hint(server, lab):
    page = lab.page
    name = server.write("other.ipynb", [code_cell("1 / 0")])
    notebook = lab.show(name, kernel=True)
    notebook.run()
    expect(notebook.cell()).to_contain_text("ZeroDivisionError", timeout=30_000)
    page.wait_for_timeout(200)
    expect(notebook.cell().locator('[data-ji="hint"]')).to_have_count(0)


def test_apply_and_run_gets_to_green(server, lab, samples):
    page = lab.page
    # The saved report of the cell, in a fresh kernel that has loaded nothing.
    report = samples.breaks()
    cell = code_cell(report.cell.source.rstrip("\n"), [displayed(mimebundle(report))], "cell-2")
    name = server.write("green.ipynb", [code_cell("import torch\nfrom torch import nn"), cell])
    notebook = lab.show(name, kernel=True)
    expect(notebook.panel(1).locator('[data-ji="apply-run"]')).to_have_count(0)  # not trusted: nothing is run from it
    notebook.run(0)
    notebook.wait_idle(0)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:trust'); }")
    page.locator(".jp-Dialog .jp-mod-accept").click()
    button = notebook.panel(1).locator('[data-ji="fix"][data-ji-id="0"] [data-ji="apply-run"]')
    button.click()
    expect(notebook.panel(1).locator('[data-ji="verdict"]')).to_have_attribute(
        "data-ji-verdict", "harmless", timeout=40_000
    )
    assert "z = z.mul(0.5)" in notebook.source(1)
    assert all(output["output_type"] != "error" for output in notebook.outputs(1))
    expect(notebook.marks("write", 1)).to_have_count(0)


def test_apply_works_while_the_kernel_is_busy(server, lab, samples):
    page = lab.page
    report = samples.breaks()
    busy = code_cell("import time\nprint('at', 'work', flush=True)\ntime.sleep(30)")
    cell = code_cell(report.cell.source.rstrip("\n"), [displayed(mimebundle(report))], "cell-2")
    name = server.write("busy.ipynb", [busy, cell])
    notebook = lab.show(name, kernel=True)
    notebook.run(0)
    # Not the kernel's status: requests of other people's make it busy, and idle again, beside the cell.
    expect(notebook.cell(0)).to_contain_text("at work", timeout=40_000)
    expect(notebook.cell(0).locator(".jp-InputPrompt")).to_have_text("[*]:")
    notebook.panel(1).locator('[data-ji="apply"]').first.click()
    notebook.expect_source("z = z.mul(0.5)", 1)
    expect(notebook.cell(0).locator(".jp-InputPrompt")).to_have_text("[*]:")
    page.evaluate(f"() => {CURRENT}.sessionContext.session.kernel.interrupt()")


def test_proofs_update_the_display_in_place(server, lab, samples, tmp_path):
    bundle = mimebundle(samples.breaks())
    pending = json.loads(json.dumps(bundle))
    for fix in pending[MIME_TYPE]["fixes"]:
        fix["verification"]["pending"] = True
    (server.notebooks / "bundles.json").write_text(json.dumps([pending, bundle]))
    source = "import json\nfrom IPython.display import display\nlater = display(json.load(open('bundles.json'))[0], raw=True, display_id=True)"
    update = "later.update(json.load(open('bundles.json'))[1], raw=True)"
    name = server.write("proofs.ipynb", [code_cell(source), code_cell(update, identity="cell-2")])
    notebook = lab.show(name, kernel=True)
    notebook.run(0)
    panel = notebook.panel(0)
    expect(panel.locator('[data-ji="proving"]')).to_contain_text("0 of 4", timeout=30_000)
    panel.locator('[data-ji="gradient"][data-ji-task="depth"][data-ji-leaf="trunk.bias"] button').click()
    panel.evaluate("element => { element.marked = true; }")

    notebook.run(1)
    expect(panel.locator('[data-ji="apply"]')).to_have_count(2, timeout=30_000)
    expect(panel.locator('[data-ji="proving"]')).to_have_count(0)
    assert panel.evaluate("element => element.marked") is True
    expect(panel.locator('[data-ji="gradient-detail"]')).to_contain_text("trunk.bias")


def test_the_toolbar_loads_what_the_magic_needs(server, lab):
    name = server.write("toolbar.ipynb", [code_cell("import torch\ntorch.zeros(2).add_(1)")])
    notebook = lab.show(name, kernel=True)
    notebook.cell().locator(".cm-line").last.click()
    notebook.cell().locator('[data-command="jupyter-inplace:watch-cell"]').click()
    notebook.expect_source("%%autograd_watch\n")
    notebook.run()
    expect(notebook.panel().locator('[data-ji="verdict"]')).to_have_attribute(
        "data-ji-verdict", "harmless", timeout=40_000
    )


def test_a_fresh_kernel_without_the_magic_offers_to_load_it(server, lab):
    page = lab.page
    name = server.write("fresh.ipynb", [code_cell("%%autograd_watch\nimport torch\ntorch.zeros(2).add_(1)")])
    notebook = lab.show(name, kernel=True)
    notebook.run()
    button = page.get_by_role("button", name="Load it and run the cell")
    button.click(timeout=30_000)
    expect(notebook.panel().locator('[data-ji="verdict"]')).to_have_attribute(
        "data-ji-verdict", "harmless", timeout=40_000
    )


def test_lines_of_other_files_are_shown_on_demand(server, lab):
    (server.notebooks / "helper_block.py").write_text(
        "def gate(h):\n    y = h.sigmoid()\n    y.mul_(2)  # gain\n    return y\n"
    )
    source = (
        "%%autograd_watch\nimport torch\nfrom helper_block import gate\nw = torch.ones(3, requires_grad=True)\n"
        "loss = gate(w * 2).sum()\ntry:\n    loss.backward()\nexcept RuntimeError:\n    pass"
    )
    name = server.write("files.ipynb", [code_cell("%load_ext jupyter_inplace"), code_cell(source, identity="cell-2")])
    notebook = lab.show(name, kernel=True)
    notebook.run(0)
    notebook.run(1)
    panel = notebook.panel(1)
    expect(panel.locator('[data-ji="verdict"]')).to_have_attribute("data-ji-verdict", "breaks", timeout=40_000)
    expect(panel.locator('[data-ji="source"]')).to_contain_text("helper_block.py:3")
    assert "y.mul_(2)" not in json.dumps(notebook.outputs(1)), "the notebook carries no line of another file"
    panel.locator('[data-ji="ask-source"]').click()
    expect(panel.locator('[data-ji="source"]')).to_contain_text("y.mul_(2)  # gain", timeout=20_000)


def test_a_composed_widget_changes_the_watched_cell(server, lab, samples):
    report = samples.breaks()
    (server.notebooks / "report.json").write_text(json.dumps(report.to_dict()))
    watched = code_cell(report.cell.source.rstrip("\n"), [displayed(mimebundle(report))], report.cell.id)
    compose = code_cell(
        "import ipywidgets, jupyter_inplace\npanel = jupyter_inplace.load('report.json').panel()\n"
        "ipywidgets.VBox([panel, ipywidgets.Label('beside')])",
        identity="cell-2",
    )
    show = code_cell("print(panel.selected)", identity="cell-3")
    name = server.write("composed.ipynb", [watched, compose, show])
    notebook = lab.show(name, kernel=True)
    notebook.run(1)
    panel = notebook.panel(1)
    expect(panel).to_be_visible(timeout=30_000)
    expect(notebook.cell(1)).to_contain_text("beside")
    panel.locator('[data-ji="gradient"][data-ji-task="depth"][data-ji-leaf="trunk.bias"] button').click()
    notebook.run(2)
    expect(notebook.cell(2)).to_contain_text("'leaf': 'trunk.bias'", timeout=20_000)

    panel.locator('[data-ji="apply"]').first.click()
    notebook.expect_source("z = z.mul(0.5)", 0)
    assert "z.mul(0.5)" not in notebook.source(1)
