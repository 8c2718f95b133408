"""The anywidget in a bare host page: what VS Code, Colab and marimo show."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from pathlib import Path

import pytest
from playwright.sync_api import expect
from server import ROOT

from jupyter_inplace.show.bundle import data
from jupyter_inplace.show.panel import Panel, _answer

pytestmark = pytest.mark.browser

PANEL = ROOT / "jupyter_inplace" / "static" / "panel.js"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def host(tmp_path):
    """Serves the host page with a report; gives a function from a report to the address."""
    shutil.copy(PANEL, tmp_path / "panel.js")
    shutil.copy(Path(__file__).with_name("host.html"), tmp_path / "host.html")
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()

    def address(report: dict) -> str:
        (tmp_path / "report.json").write_text(json.dumps(report))
        return f"http://127.0.0.1:{web.server_port}/host.html"

    yield address
    web.shutdown()
    web.server_close()
    thread.join()


def test_the_module_is_small_and_asks_for_nothing():
    code = PANEL.read_text(encoding="utf-8")
    assert len(code.encode()) < 120_000
    for word in ("import(", "fetch(", "XMLHttpRequest", "eval(", "new Function", "http://", "https://"):
        assert word not in code.replace("http://www.w3.org/", ""), word


def test_selection_goes_to_python_and_back(host, page, samples):
    report = samples.breaks()
    page.goto(host(report.to_dict()))
    panel = page.locator('[data-ji="panel"]')
    expect(panel).to_be_visible()
    panel.locator('[data-ji="gradient"][data-ji-task="depth"][data-ji-leaf="trunk.bias"] button').click()
    page.wait_for_function("() => window.model.saved > 0")
    selected = page.evaluate("() => window.model.get('selected')")
    assert (selected["task"], selected["leaf"], selected["mutation"]) == ("depth", "trunk.bias", 0)

    page.evaluate("() => window.model.receive('selected', {mutation: 0, conflict: 1})")
    expect(panel.locator('[data-ji="conflict"][data-ji-id="1"]')).to_have_attribute("aria-pressed", "true")


def test_proofs_arrive_without_a_new_panel(host, page, samples):
    report = samples.breaks().to_dict()
    for fix in report["fixes"]:
        fix["verification"]["pending"] = True
    page.goto(host(report))
    expect(page.locator('[data-ji="proving"]')).to_contain_text("0 of 4")
    expect(page.locator('[data-ji="apply"]')).to_have_count(0)
    page.evaluate("report => window.model.receive('report', report)", samples.breaks().to_dict())
    expect(page.locator('[data-ji="proving"]')).to_have_count(0)
    expect(page.locator('[data-ji="apply"]')).to_have_count(2)


def test_apply_copies_where_no_extension_answers(host, page, samples):
    report = samples.breaks()
    page.goto(host(report.to_dict()))
    page.evaluate(
        "() => { navigator.clipboard.writeText = text => { window.copied = text; return Promise.resolve(); } }"
    )
    page.locator('[data-ji="apply"]').first.click()
    expect(page.locator('[data-ji="outcome"]').first).to_contain_text("Copied")
    assert page.evaluate("() => window.copied") == report.fixes[0].source

    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')) }")
    page.locator('[data-ji="apply"]').first.click()
    page.wait_for_function("() => window.model.sent.length === 1")
    assert page.evaluate("() => window.model.sent[0]") == {"action": "next_input", "fix": 0}


def test_lines_of_other_files_come_from_the_kernel(host, page, samples):
    report = samples.corrupts()
    carried = data(report.portable())
    write = report.mutations[0].site
    assert write.line_text not in json.dumps(carried), "a saved report carries no line of another file"
    page.goto(host(carried))
    assert write.text not in page.locator('[data-ji="source"]').inner_text()
    page.locator('[data-ji="ask-source"]').click()
    page.wait_for_function("() => window.model.sent.length === 1")
    assert page.evaluate("() => window.model.sent[0]") == {"action": "sources"}

    widget = Panel(report)
    told = []
    widget.send = told.append
    _answer(widget, {"action": "sources"}, [])
    page.evaluate("content => window.model.message(content)", told[0])
    expect(page.locator('[data-ji="source"]')).to_contain_text(write.line_text)
    expect(page.locator(".ji-under-write")).to_have_text(write.text)


def test_the_widget_leaves_nothing_behind(host, page, samples):
    page.goto(host(samples.breaks().to_dict()))
    expect(page.locator('[data-ji="panel"]')).to_be_visible()
    assert page.evaluate("() => window.model.listening()") == 2
    page.evaluate("() => window.end()")
    assert page.evaluate("() => window.model.listening()") == 0
    assert page.locator('[data-ji="panel"]').count() == 0


@pytest.mark.parametrize("width", [360, 860, 1800])
def test_no_width_overflows(host, page, samples, width):
    page.set_viewport_size({"width": width, "height": 900})
    for report in (samples.breaks(), samples.corrupts(), samples.many(events=300, leaves=40)):
        page.goto(host(report.to_dict()))
        expect(page.locator('[data-ji="panel"]')).to_be_visible()
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        outside = page.evaluate(
            """width => [...document.querySelectorAll('[data-ji=panel] button')]
                 .filter(b => !b.closest('.ji-scroll') && b.getBoundingClientRect().right > width).map(b => b.outerHTML)""",
            width,
        )
        assert outside == []


def test_dark_pages_get_a_dark_panel(host, page, samples):
    page.goto(host(samples.breaks().to_dict()))
    panel = page.locator('[data-ji="panel"]')
    expect(panel).to_have_attribute("data-ji-theme", "light")
    page.evaluate("() => { document.body.style.background = '#111'; document.body.className = 'vscode-dark'; }")
    expect(panel).to_have_attribute("data-ji-theme", "dark")


def test_a_huge_report_draws_and_pans_smoothly(host, page, samples):
    # What a notebook carries of 10,000 events, 500 leaves by 8 tasks. The best of a few, since other work shares the machine.
    report = samples.many()
    carried = data(report.portable())
    assert len(json.dumps(carried)) < 1_000_000
    for shown, label in ((carried, "as displayed"), (report.to_dict(), "whole")):
        drawn = []
        for _ in range(4):
            page.goto(host(shown))
            page.wait_for_function("() => window.drawn")
            drawn.append(page.evaluate("() => window.drawn"))
            if drawn[-1] < 500:
                break
        assert min(drawn) < 500, label

    longest = []
    for _ in range(4):
        longest.append(page.evaluate(PAN))
        if longest[-1] < 50:
            break
    assert min(longest) < 50
    assert page.locator('[data-ji="event"]').count() < 600


# Zooms in, then drags for 40 frames: the longest task of them, in milliseconds.
PAN = """async () => {
  const frame = () => new Promise(done => requestAnimationFrame(done));
  for (let i = 0; i < 3; i += 1) { document.querySelectorAll('.ji-tool')[1].click(); await frame(); }
  await new Promise(done => setTimeout(done, 300));
  let longest = 0;
  const observer = new PerformanceObserver(list => {
    for (const entry of list.getEntries()) longest = Math.max(longest, entry.duration);
  });
  observer.observe({ entryTypes: ['longtask'] });
  const plot = document.querySelector('.ji-tl-plot');
  const { left, top } = plot.getBoundingClientRect();
  const at = x => ({ clientX: left + x, clientY: top + 20, button: 0, buttons: 1, bubbles: true });
  plot.dispatchEvent(new PointerEvent('pointerdown', at(500)));
  for (let i = 0; i < 40; i += 1) {
    window.dispatchEvent(new PointerEvent('pointermove', at(500 - i * 5)));
    await frame();
  }
  window.dispatchEvent(new PointerEvent('pointerup'));
  await new Promise(done => setTimeout(done, 100));
  observer.disconnect();
  return longest;
}"""
