"""The panel as a widget: for front ends without the JupyterLab extension, and for people who compose ipywidgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from jupyter_inplace.report import Report
from jupyter_inplace.show.bundle import data, mimebundle

__all__ = ["Panel", "bundle"]

# Built from labextension/ by npm; wheels carry it.
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

    :param report: the report to show; assign another one to show that.

    `selected` says what the person selected, and can be set: a dict with the keys `mutation` and `fix` (their ids),
    `conflict` and `event` (positions in the report's lists), `task` and `leaf` (names); None or absent where nothing of
    the kind is selected.
    Raises `FileNotFoundError` where the front end has not been built.
    """

    report = traitlets.Instance(Report).tag(sync=True, to_json=lambda report, _widget: data(report.portable()))
    selected = traitlets.Dict().tag(sync=True)

    def __init__(self, report: Report, **traits: Any) -> None:
        super().__init__(report=report, _esm=_module(), **traits)
        self.on_msg(_answer)


def _answer(panel: Panel, content: object, _buffers: object) -> None:
    """Put a rewritten cell into the next input, where the front end could not copy it."""
    if not isinstance(content, dict) or content.get("action") != "next_input":
        return
    wanted = content.get("fix")
    source = next((fix.source for fix in panel.report.fixes if fix.id == wanted), None)
    if source is None:
        return
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is not None:
        # Not in place of the cell: this arrives with the next cell that runs, which may be any other.
        shell.set_next_input(source, replace=False)


def bundle(report: Report, panel: Panel | None = None) -> dict[str, Any]:
    """The report's display bundle with the widget in it: data, HTML and text stand beside it for front ends without.

    :param panel: the widget that shows an earlier report of the same run: it shows this one and keeps its selection.
    """
    if panel is None:
        panel = Panel(report)
    else:
        panel.report = report
    shown = panel._repr_mimebundle_()
    views = shown[0] if isinstance(shown, tuple) else shown
    view = {name: value for name, value in (views or {}).items() if name != "text/plain"}
    return {**mimebundle(report), **view}
