"""The saved output in JupyterLab and Notebook 7: panel, marks, rewrites, without running anything."""

from __future__ import annotations

import re

import pytest
from lab import CURRENT, Notebook
from playwright.sync_api import expect
from server import code_cell, displayed

from jupyter_inplace.show.bundle import mimebundle

pytestmark = pytest.mark.browser


def saved(report, source=None):
    source = report.cell.source.rstrip("\n") if source is None else source
    return code_cell(source, [displayed(mimebundle(report))], report.cell.id)


@pytest.fixture
def breaks(samples):
    return samples.breaks()


@pytest.fixture(params=["lab", "notebook"])
def front_end(request):
    return request.param


def test_panel_and_marks_are_there_on_reopening(server, page, breaks, front_end):
    name = server.write(f"reopen_{front_end}.ipynb", [saved(breaks)])
    notebook = Notebook(page).open(getattr(server, front_end)(name))

    expect(notebook.panel()).to_be_visible()
    expect(notebook.panel().locator('[data-ji="verdict"]')).to_have_attribute("data-ji-verdict", "breaks")
    expect(notebook.marks("write")).to_have_text("z.mul_(0.5)")
    saves = "".join(notebook.marks("save").all_text_contents())
    assert saves == 'torch.tanh(trunk(x))heads["seg"](z)'
    expect(notebook.cell().locator(".ji-gutter-write")).to_have_count(1)
    expect(notebook.cell().locator(".ji-gutter-save")).to_have_count(2)


def test_the_panel_shows_the_numbers_of_the_report(server, lab, breaks):
    name = server.write("numbers.ipynb", [saved(breaks)])
    notebook = lab.show(name)

    cells = notebook.panel().locator('[data-ji="gradient"]')
    shown = {
        (cell.get_attribute("data-ji-task"), cell.get_attribute("data-ji-leaf")): (
            cell.get_attribute("data-ji-status"),
            float(cell.locator('[data-ji="norm"]').inner_text()),
        )
        for cell in cells.all()
    }
    expected = {(g.task, g.leaf): (g.status, float(f"{g.norm_reference:.3g}")) for g in breaks.gradients}
    assert shown == expected
    for cosine in breaks.task_cosines:
        cell = notebook.panel().locator(f'[data-ji="cosine"][data-ji-leaf="{cosine.leaf}"]')
        assert float(cell.inner_text().replace("−", "-")) == pytest.approx(cosine.reference, abs=0.005)
    fixes = notebook.panel().locator('[data-ji="fix"]')
    assert [(f.get_attribute("data-ji-kind"), f.get_attribute("data-ji-status")) for f in fixes.all()] == [
        (fix.kind, fix.verification.status) for fix in breaks.fixes
    ]


def test_apply_is_one_undoable_edit(server, page, breaks, front_end):
    name = server.write(f"apply_{front_end}.ipynb", [saved(breaks)])
    notebook = Notebook(page).open(getattr(server, front_end)(name))
    before = notebook.source()
    wanted = breaks.fixes[0].source.rstrip("\n")

    notebook.panel().locator('[data-ji="fix"][data-ji-id="0"] [data-ji="apply"]').click()
    notebook.expect_source("z = z.mul(0.5)")
    assert notebook.source() == wanted
    expect(notebook.marks("write")).to_have_count(0)
    expect(notebook.panel().locator('[data-ji="applied"]')).to_be_visible()

    page.keyboard.press("Control+z")
    notebook.expect_source("\nz.mul_(0.5)")
    assert notebook.source() == before
    expect(notebook.marks("write")).to_have_count(1)
    expect(notebook.panel().locator('[data-ji="applied"]')).to_have_count(0)


def test_apply_is_refused_after_an_edit(server, lab, breaks):
    page = lab.page
    name = server.write("edited.ipynb", [saved(breaks)])
    notebook = lab.show(name)
    expect(notebook.marks("write")).to_have_count(1)

    notebook.cell().locator(".cm-line").last.click()
    page.keyboard.press("End")
    page.keyboard.type("  # mine")
    edited = notebook.source()
    expect(notebook.marks("write")).to_have_count(0)
    expect(notebook.panel().locator('[data-ji="stale"]')).to_be_visible()

    notebook.panel().locator('[data-ji="apply"]').first.click()
    expect(notebook.panel().locator('[data-ji="outcome"]').first).to_contain_text("edited since")
    notebook.expect_notification("edited since")
    assert notebook.source() == edited


def test_only_the_cell_around_the_panel_changes(server, lab, breaks):
    # Two open notebooks with the same cells and the same cell ids, as a copy of a notebook has.
    first = server.write("twin_a.ipynb", [saved(breaks)])
    second = server.write("twin_b.ipynb", [saved(breaks)])
    page = lab.page
    notebook = lab.show(first)
    lab.show(second)
    page.locator('.jp-NotebookPanel:not(.lm-mod-hidden) [data-ji="apply"]').first.click()
    notebook.expect_source("z = z.mul(0.5)")
    sources = page.evaluate(
        """() => [...window.jupyterapp.shell.widgets('main')].filter(w => w.content?.widgets)
             .map(w => [w.context.path, w.content.widgets[0].model.sharedModel.getSource()])"""
    )
    assert {path: "z = z.mul(0.5)" in source for path, source in sources} == {first: False, second: True}


def test_a_selection_travels_between_panel_and_editor(server, lab, breaks):
    name = server.write("selection.ipynb", [saved(breaks)])
    notebook = lab.show(name)
    panel = notebook.panel()
    expect(notebook.marks("save")).not_to_have_count(0)

    panel.locator('[data-ji="conflict"][data-ji-id="1"]').click()
    active = notebook.cell().locator(".ji-mark-save.ji-mark-active")
    expect(active.first).to_be_visible()
    assert "".join(active.all_text_contents()) == 'heads["seg"](z)'
    selected = panel.locator('[data-ji="gradient"][data-ji-selected="true"]')
    leaves = {cell.get_attribute("data-ji-leaf") for cell in selected.all()}
    assert leaves == set(breaks.conflicts[1].leaves)
    assert {cell.get_attribute("data-ji-task") for cell in selected.all()} == set(breaks.conflicts[1].tasks)

    notebook.marks("save").first.click()
    expect(panel.locator('[data-ji="conflict"][data-ji-id="0"]')).to_have_attribute("aria-pressed", "true")


def test_the_panel_works_by_keyboard_alone(server, lab, breaks):
    page = lab.page
    name = server.write("keyboard.ipynb", [saved(breaks)])
    notebook = lab.show(name)
    panel = notebook.panel()
    stop = panel.locator('[data-ji="event"][tabindex="0"]')
    expect(stop).to_have_count(1)
    stop.focus()
    seen = []
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
        focused = page.locator('[data-ji="event"]:focus')
        expect(focused).to_have_count(1)
        seen.append(focused.get_attribute("aria-label"))
    assert "saved for backward" in seen[0]
    assert "writes z" in seen[2]
    assert seen[3] != seen[2]

    page.keyboard.press("Enter")
    expect(page.locator('[data-ji="event"]:focus')).to_have_count(1)
    # Letters are commands of the notebook elsewhere: "x" would cut the cell.
    page.keyboard.press("x")
    assert page.evaluate(f"() => {CURRENT}.content.widgets.length") == 1

    panel.locator('[data-ji="apply"]').first.focus()
    page.keyboard.press("Enter")
    notebook.expect_source("z = z.mul(0.5)")


def test_hovering_a_mark_explains_it(server, lab, breaks):
    page = lab.page
    name = server.write("hover.ipynb", [saved(breaks)])
    notebook = lab.show(name)
    notebook.marks("write").hover()
    expect(page.locator(".ji-hover")).to_contain_text("breaks: writes z")
    expect(page.locator(".ji-hover")).to_contain_text("hits seg, depth")


def test_dark_theme_is_followed(server, lab, breaks):
    page = lab.page
    name = server.write("dark.ipynb", [saved(breaks)])
    notebook = lab.show(name)
    expect(notebook.panel()).to_have_attribute("data-ji-theme", "light")
    page.evaluate("() => window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    expect(notebook.panel()).to_have_attribute("data-ji-theme", "dark")
    text = notebook.panel().locator('[data-ji="verdict"]').evaluate("e => getComputedStyle(e).color")
    assert min(map(int, re.findall(r"\d+", text)[:3])) > 150, "text on dark ground is light"


def test_a_hostile_notebook_shows_its_text_and_runs_nothing(server, lab, samples):
    page = lab.page
    report = samples.hostile(samples.breaks())
    name = server.write("hostile.ipynb", [code_cell("x = 1", [displayed(mimebundle(report))])])
    dialogs = []

    def note(dialog):
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", note)
    notebook = lab.show(name)
    expect(notebook.panel()).to_be_visible()
    expect(notebook.panel()).to_contain_text("<script>")
    assert notebook.panel().locator("script, img, iframe, object, embed, a[href]").count() == 0
    assert notebook.panel().locator('[data-ji="apply-run"]').count() == 0
    for button in notebook.panel().locator("button").all()[:6]:
        if button.is_visible():
            button.click()
    page.remove_listener("dialog", note)
    assert dialogs == []


def test_the_clean_cell_is_one_line(server, lab, samples):
    report = samples.clean()
    name = server.write("clean.ipynb", [saved(report)])
    notebook = lab.show(name)
    line = notebook.panel().locator('[data-ji="verdict"]')
    expect(line).to_have_attribute("data-ji-verdict", "harmless")
    assert notebook.panel().bounding_box()["height"] < 40
    expect(notebook.marks("write")).to_have_count(0)
    line.locator("button").click()
    expect(notebook.panel().locator('[data-ji="timeline"]')).to_be_visible()


def test_commands_and_toolbar(server, lab, breaks):
    page = lab.page
    name = server.write("commands.ipynb", [saved(breaks)])
    notebook = lab.show(name)
    ids = page.evaluate(
        "() => window.jupyterapp.commands.listCommands().filter(id => id.startsWith('jupyter-inplace:'))"
    )
    assert set(ids) == {
        f"jupyter-inplace:{verb}"
        for verb in ("watch-cell", "watch-all", "apply-first-fix", "next-mutation", "previous-mutation", "clear-marks")
    }
    expect(notebook.marks("write")).to_have_count(1)
    notebook.command("jupyter-inplace:clear-marks")
    expect(notebook.marks("write")).to_have_count(0)
    notebook.command("jupyter-inplace:clear-marks")
    expect(notebook.marks("write")).to_have_count(1)

    before = notebook.source()
    notebook.cell().locator(".cm-line").last.click()
    notebook.cell().locator('[data-command="jupyter-inplace:watch-cell"]').click()
    page.wait_for_function(f"() => !{CURRENT}.content.widgets[0].model.sharedModel.getSource().startsWith('%%')")
    notebook.cell().locator('[data-command="jupyter-inplace:watch-cell"]').click()
    notebook.expect_source("%%autograd_watch\n")
    assert notebook.source() == before

    notebook.command("jupyter-inplace:apply-first-fix")
    notebook.expect_source("z = z.mul(0.5)")


def test_settings_switch_marks_and_toolbar_off(server, page, breaks):
    name = server.write("settings.ipynb", [saved(breaks)])
    save = "text => window.jupyterapp.serviceManager.settings.save('jupyter-inplace:plugin', text)"
    notebook = Notebook(page).open(server.lab(name))
    expect(notebook.marks("write")).to_have_count(1)
    page.evaluate(save, '{"marks": false, "toolbar": false}')
    try:
        notebook.open(server.lab(name))
        expect(notebook.panel()).to_be_visible()
        expect(notebook.cell().locator('[data-command="notebook:duplicate-below"]')).to_be_visible()
        expect(notebook.cell().locator('[data-command="jupyter-inplace:watch-cell"]')).not_to_be_visible()
        expect(notebook.marks("write")).to_have_count(0)
    finally:
        page.evaluate(save, "{}")


def test_axe_finds_nothing_serious(server, lab, breaks, samples):
    page = lab.page
    for report, label in ((breaks, "breaks"), (samples.rejected(), "rejected")):
        name = server.write(f"axe_{label}.ipynb", [saved(report)])
        notebook = lab.show(name)
        expect(notebook.panel()).to_be_visible()
        for theme in ("JupyterLab Light", "JupyterLab Dark"):
            page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
            expect(notebook.panel()).to_have_attribute("data-ji-theme", theme.split()[1].lower())
            page.wait_for_timeout(300)
            page.add_script_tag(path=str(server.axe))
            found = page.evaluate("() => axe.run('[data-ji=panel]', {resultTypes: ['violations']})")
            serious = [
                (v["id"], v["help"], [n["html"][:150] for n in v["nodes"][:3]], v["nodes"][0].get("failureSummary"))
                for v in found["violations"]
                if v["impact"] in ("serious", "critical")
            ]
            assert serious == [], f"{label}, {theme}"
