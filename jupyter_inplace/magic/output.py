"""Where a report goes: below the cell, and into a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from IPython.display import display, update_display

from jupyter_inplace.report import Report


class Output:
    """The place of one report below its cell; what comes later replaces what stands there."""

    def __init__(self) -> None:
        self._id = f"jupyter-inplace-{os.urandom(16).hex()}"
        self._shown = False

    def show(self, report: Report) -> None:
        """Display a report, in place of the one that this output shows."""
        bundle: dict[str, Any] = report._repr_mimebundle_()
        (update_display if self._shown else display)(bundle, raw=True, display_id=self._id)
        self._shown = True


def save(report: Report, path: Path) -> None:
    """Write a report as JSON. That it cannot be written is said and fails no cell."""
    try:
        report.to_json(path)
    except OSError as error:
        complain(f"the report could not be saved in {str(path)!r}: {error.strerror or error}")


def complain(sentence: str) -> None:
    """One line on the error stream."""
    print(f"autograd_watch: {sentence}", file=sys.stderr)  # noqa: T201 (this is what the person sees)
