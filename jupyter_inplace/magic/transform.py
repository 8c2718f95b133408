"""From the magic's line to an ordinary first statement.

A cell magic that runs its body by `run_cell` is a second cell inside of the first: lines, labels and tracebacks are
off, `await` fails, and "Run All" does not stop at an error. An input transformer has none of these faults: the cell
stays one cell, of which only the first line reads differently.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from IPython.core.inputtransformer2 import cell_magic

from jupyter_inplace.magic.options import asks_for_help

#: The attribute of the shell that the first statement calls.
ENTRANCE = "autograd_watch"

_MAGIC_LINE = re.compile(r"([ \t]*)%%autograd_watch(?:[ \t]+(.*?))?[ \t]*\r?\n?\Z")


class MagicLine:
    """An entry of IPython's `input_transformers_cleanup`.

    :param running: gives the source of the cell that is running now, or None.
    """

    #: IPython skips us when it asks whether a cell is complete: as for any cell magic, a blank line ends it.
    has_side_effects = True

    def __init__(self, running: Callable[[], str | None]) -> None:
        self._running = running

    def __call__(self, lines: list[str]) -> list[str]:
        """The cell's lines, the magic line replaced; other cells as they stand."""
        top = next((i for i, line in enumerate(lines) if not line.isspace()), len(lines))
        match = _MAGIC_LINE.match(lines[top]) if top < len(lines) else None
        if match is None:
            return lines
        indent, words = match.group(1), match.group(2) or ""
        statement = f"{indent}get_ipython().{ENTRANCE}({words!r})\n"
        if asks_for_help(words):
            return [statement]
        body = lines[top + 1 :]
        if all(line.isspace() for line in body):
            return lines  # then the registered magic is called, and says so
        # IPython drops blank lines above: as comments they stay, and lines count as the editor counts them.
        above = [f"{indent}#\n"] * (self._lines_above(lines) + top)
        return [*above, statement, *_inner_magic(body)]

    def _lines_above(self, lines: list[str]) -> int:
        """How many lines of the running cell stand above these: 1 below ``%%time``."""
        running, part = self._running(), "".join(lines).rstrip()
        if running is None or not running.rstrip().endswith(part):
            return 0
        return running.rstrip()[: -len(part)].count("\n")


def _inner_magic(body: list[str]) -> list[str]:
    """Below our line another cell magic may stand, such as ``%%time``."""
    top = next(i for i, line in enumerate(body) if not line.isspace())
    below: list[str] = cell_magic(body[top:])
    return body[:top] + below
