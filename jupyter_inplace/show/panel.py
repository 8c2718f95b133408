"""The panel as a widget: for front ends without the JupyterLab extension, and to combine with other ipywidgets."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from jupyter_inplace.report.data import Report
from jupyter_inplace.report.portable import portable
from jupyter_inplace.report.words import base_name, is_cell
from jupyter_inplace.show.bundle import data, mimebundle

__all__ = ["Panel", "bundle"]

# Built by npm from labextension/; wheels contain it.
MODULE = Path(__file__).parent.parent / "static" / "panel.js"


def _module() -> str:
    try:
        return MODULE.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"the panel is not built: run `npm ci && npm run build` in labextension/ (it makes {MODULE.name})"
        ) from None


class Panel(anywidget.AnyWidget):
    """A report as a live widget.

    ```python
    panel = report.panel()
    panel.observe(lambda change: print(change["new"]), "selected")
    ipywidgets.HBox([panel, chart])
    ```

    :param report: the report to show; assign another one to show that one.

    `selected` is what the person has selected, and can be set: a dict with the keys `mutation` and `fix` (their ids),
    `conflict` and `event` (positions in the lists of the report), `task` and `leaf` (names); a key is None or absent if nothing
    of its kind is selected.
    Raises `FileNotFoundError` if the front end has not been built.
    """

    report = traitlets.Instance(Report).tag(sync=True, to_json=lambda report, _widget: data(portable(report)))
    selected = traitlets.Dict().tag(sync=True)

    def __init__(self, report: Report, **traits: Any) -> None:
        super().__init__(report=report, _esm=_module(), **traits)
        self.on_msg(_answer)


def _answer(panel: Panel, content: object, _buffers: object) -> None:
    """Answer a message of the panel: it asks for what only the kernel can do."""
    if not isinstance(content, dict):
        return
    if content.get("action") == "sources":
        panel.send({"sources": _sources(panel.report)})
    if content.get("action") == "next_input":
        _set_next_input(panel, content)


def _set_next_input(panel: Panel, content: dict[str, Any]) -> None:
    """Put a rewritten cell into a new cell, for a front end that could not copy it."""
    wanted = content.get("fix")
    source = next((fix.source for fix in panel.report.fixes if fix.id == wanted), None)
    if source is None:
        return
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is not None:
        # Not in place of a cell: the new input is delivered with the next cell that runs, whichever that is.
        shell.set_next_input(source, replace=False)


def _sources(report: Report) -> dict[str, dict[str, str]]:
    """The lines of files outside of the cell, which a saved report leaves out, by `FILE:LINE` as in the report."""
    sites = [mutation.site for mutation in report.mutations] + [conflict.saved_site for conflict in report.conflicts]
    return {
        f"{base_name(site.file)}:{site.line}": {"text": site.text, "line_text": site.line_text}
        for site in sites
        if site is not None and site.text and not is_cell(site.file)
    }


# The newest report of each cell, for panels that ask for source lines. Not all: only as many as may be on the screen.
_KEPT = 32
_newest: OrderedDict[str, Report] = OrderedDict()


def sources_for_panel(cell_id: str) -> str:
    """As JSON, the lines of other files that the newest report of a cell names. The JupyterLab extension calls this."""
    report = _newest.get(cell_id)
    return json.dumps({} if report is None else _sources(report))


def bundle(report: Report, panel: Panel | None = None) -> dict[str, Any]:
    """The display bundle of the report, with the widget; front ends without widgets use its data, HTML or text.

    :param panel: the widget that shows an earlier report of the same run. It then shows this one, and keeps its selection.
    """
    if report.cell is not None and report.cell.id is not None:
        _newest[report.cell.id] = report
        _newest.move_to_end(report.cell.id)
        while len(_newest) > _KEPT:
            _newest.popitem(last=False)
    if panel is None:
        panel = Panel(report)
    else:
        panel.report = report
    shown = panel._repr_mimebundle_()
    views = shown[0] if isinstance(shown, tuple) else shown
    view = {name: value for name, value in (views or {}).items() if name != "text/plain"}
    return {**mimebundle(report), **view}
