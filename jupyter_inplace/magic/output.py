"""Where a report is put: below the cell, and into a file."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.display import display, update_display

from jupyter_inplace.report.data import Report
from jupyter_inplace.report.files import to_text
from jupyter_inplace.show.bundle import mimebundle

if TYPE_CHECKING:
    from jupyter_inplace.show.panel import Panel


class Output:
    """The display of one report below its cell; a newer report replaces the one shown.

    :param live: the front end can show widgets. Without a front end (nbclient) a widget would be saved and never be drawn.
    :param replaces: a display can be replaced; a terminal prints the newer report below the older one.
    """

    def __init__(self, *, live: bool = False, replaces: bool = True) -> None:
        self._id = f"jupyter-inplace-{os.urandom(16).hex()}"
        self.live = live
        self.replaces = replaces
        self._shown = False
        self._panel: Panel | None = None
        self._lock = threading.Lock()

    def show(self, report: Report) -> None:
        """Display a report in place of the one that is shown. May be called from any thread."""
        with self._lock:
            # The one line of a clean cell needs no widget.
            live = self.live and report.verdict != "harmless"
            bundle = self._live_bundle(report) if live else mimebundle(report)
            (update_display if self._shown else display)(bundle, raw=True, display_id=self._id)
            self._shown = True

    def _live_bundle(self, report: Report) -> dict[str, Any]:
        try:
            from jupyter_inplace.show.panel import Panel, bundle

            if self._panel is None:
                self._panel = Panel(report)
            return bundle(report, self._panel)
        except Exception as error:  # noqa: BLE001 (the panel is not built, or widgets do not work here: HTML is shown instead)
            if not self._shown:
                complain(f"the report is shown without its panel: {error}")
            return mimebundle(report)


def can_hold_widgets(cell_id: str | None) -> bool:
    """Whether a front end shows this cell: all front ends but Colab send the id of the cell that runs."""
    return cell_id is not None or "google.colab" in sys.modules


def save(report: Report, path: Path) -> None:
    """Write a report as JSON. If that fails, the person is told; the cell does not fail."""
    try:
        to_text(report, path)
    except OSError as error:
        complain(f"the report could not be saved in {str(path)!r}: {error.strerror or error}")


def complain(sentence: str) -> None:
    """Print one line on the error stream."""
    print(f"autograd_watch: {sentence}", file=sys.stderr)  # noqa: T201 (this is what the person sees)
