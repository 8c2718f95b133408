"""Drives a notebook in JupyterLab or Notebook 7, as a person would."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Locator, Page, expect

# Both front ends put the same application object on the window.
CURRENT = """(() => {
  const shell = window.jupyterapp.shell;
  return shell.currentWidget && shell.currentWidget.content && shell.currentWidget.content.widgets
    ? shell.currentWidget : [...shell.widgets('main')].find(w => w.content && w.content.widgets);
})()"""


class Notebook:
    """One open notebook."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def open(self, url: str, *, kernel: bool = False) -> Notebook:
        """Go there and wait until the cells are; with `kernel` until they can run."""
        self.page.goto(url)
        self.page.wait_for_function(f"window.jupyterapp && {CURRENT}?.content.widgets.length > 0", timeout=40_000)
        self.page.evaluate(f"async () => {{ await {CURRENT}.context.ready; }}")
        self.page.locator(".jp-Cell .cm-content").first.wait_for(state="attached", timeout=20_000)
        if kernel:
            self._wait_for_kernel()
        return self

    def _wait_for_kernel(self) -> None:
        self.page.evaluate(
            f"""async () => {{
              const context = {CURRENT}.sessionContext;
              await context.ready;
              await context.session.kernel.info;
            }}"""
        )

    def show(self, name: str, *, kernel: bool = False) -> Notebook:
        """Open the notebook in the JupyterLab that is on the page already; without `kernel` it gets none."""
        preference = {} if kernel else {"shouldStart": False, "canStart": False, "autoStartDefault": False}
        self.page.evaluate(
            """async ([path, kernelPreference]) => {
              const widget = await window.jupyterapp.commands.execute(
                'docmanager:open', {path, factory: 'Notebook', kernelPreference});
              await widget.context.ready;
              await widget.revealed;
            }""",
            [name, preference],
        )
        self.page.wait_for_function(
            f"name => {CURRENT}?.context.path === name && {CURRENT}.content.widgets.length > 0", arg=name
        )
        self.cell().locator(".cm-content").first.wait_for(state="attached")
        if kernel:
            self._wait_for_kernel()
        return self

    def leave(self) -> None:
        """Close every notebook unsaved, end its kernel, and be in the light again."""
        self.page.evaluate(
            """async () => {
              const app = window.jupyterapp;
              for (const widget of [...app.shell.widgets('main')]) {
                if (widget.context) widget.context.model.dirty = false;
                widget.close();
              }
              await app.serviceManager.sessions.shutdownAll();
              document.querySelectorAll('.jp-toastContainer .jp-Notification-Toast-Close, .Toastify__close-button')
                .forEach(button => button.click());
              await app.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'});
            }"""
        )

    def cell(self, index: int = 0) -> Locator:
        return self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell").nth(index)

    def panel(self, index: int = 0) -> Locator:
        return self.cell(index).locator('[data-ji="panel"]')

    def source(self, index: int = 0) -> str:
        return self.page.evaluate(f"i => {CURRENT}.content.widgets[i].model.sharedModel.getSource()", index)

    def outputs(self, index: int = 0) -> list[dict[str, Any]]:
        return self.page.evaluate(f"i => {CURRENT}.content.widgets[i].model.outputs.toJSON()", index)

    def execution_count(self, index: int = 0) -> int | None:
        return self.page.evaluate(f"i => {CURRENT}.content.widgets[i].model.executionCount", index)

    def run(self, index: int = 0) -> None:
        """Run the cell by Shift+Enter in its editor."""
        self.cell(index).locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")

    def wait_idle(self, index: int = 0, timeout: float = 60_000) -> None:
        """Until the cell's prompt has a number and the kernel rests."""
        self.page.wait_for_function(
            f"""i => {{
              const panel = {CURRENT};
              const cell = panel.content.widgets[i];
              return cell.model.executionState !== 'running' && cell.model.executionCount !== null
                && panel.sessionContext.session?.kernel?.status === 'idle';
            }}""",
            arg=index,
            timeout=timeout,
        )

    def command(self, name: str) -> Any:
        return self.page.evaluate("name => window.jupyterapp.commands.execute(name)", name)

    def marks(self, kind: str, index: int = 0) -> Locator:
        return self.cell(index).locator(f".ji-mark-{kind}")

    def expect_source(self, text: str, index: int = 0) -> None:
        self.page.wait_for_function(
            f"([i, text]) => {CURRENT}.content.widgets[i].model.sharedModel.getSource().includes(text)",
            arg=[index, text],
        )

    def notification(self) -> Locator:
        return self.page.locator(".Toastify__toast, .jp-toastContainer .Toastify__toast-body").first

    def expect_notification(self, text: str) -> None:
        expect(self.notification()).to_contain_text(text)
