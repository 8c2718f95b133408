"""Where a report goes: below the cell, and into a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from IPython.display import display, update_display

from jupyter_inplace.report import Report


class Output:
    """The place of one report below its cell; what comes later replaces what stands there.

    :param live: the front end can hold widgets. Where a kernel is alone (nbclient) a widget would be saved and never be
        drawn again.
    """

    def __init__(self, *, live: bool = False) -> None:
        self._id = f"jupyter-inplace-{os.urandom(16).hex()}"
        self._live = live
        self._shown = False

    def show(self, report: Report) -> None:
        """Display a report, in place of the one that this output shows."""
        # A clean cell's one line needs no widget.
        bundle = _live_bundle(report) if self._live and report.verdict != "harmless" else report._repr_mimebundle_()
        (update_display if self._shown else display)(bundle, raw=True, display_id=self._id)
        self._shown = True


def _live_bundle(report: Report) -> dict[str, Any]:
    try:
        from jupyter_inplace.show.panel import bundle

        return bundle(report)
    except Exception as error:  # noqa: BLE001 (the panel is not built, widgets do not work here: the HTML always does)
        complain(f"the report is shown without its panel: {error}")
        return report._repr_mimebundle_()


def can_hold_widgets(cell_id: str | None) -> bool:
    """Whether somebody sees this cell: front ends say which cell runs, all but Colab."""
    return cell_id is not None or "google.colab" in sys.modules


def save(report: Report, path: Path) -> None:
    """Write a report as JSON. That it cannot be written is said and fails no cell."""
    try:
        report.to_json(path)
    except OSError as error:
        complain(f"the report could not be saved in {str(path)!r}: {error.strerror or error}")


def complain(sentence: str) -> None:
    """One line on the error stream."""
    print(f"autograd_watch: {sentence}", file=sys.stderr)  # noqa: T201 (this is what the person sees)
