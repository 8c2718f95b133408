"""Turns the line of the magic into an ordinary first statement of the cell.

A cell magic that runs its body by `run_cell` makes a second cell inside of the first: line numbers, labels and tracebacks are
wrong, `await` fails, and "Run All" does not stop at an error. An input transformer has none of these faults: the cell stays one
cell, and only its first line is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from IPython.core.inputtransformer2 import cell_magic

from jupyter_inplace.magic.options import asks_for_help

#: The attribute of the shell that this first statement calls.
ENTRANCE = "autograd_watch"

_MAGIC_LINE = re.compile(r"([ \t]*)%%autograd_watch(?:[ \t]+(.*?))?[ \t]*\r?\n?\Z")
#: Magics that transform their body and run it themselves, under a file name of their own.
_TIMERS = re.compile(r"[ \t]*%%(time|timeit|prun)\b")


class MagicLine:
    """An entry of IPython's `input_transformers_cleanup`.

    :param running: returns the source of the cell that is running, or None.
    :param watches_all: returns whether cells without our line are watched too.
    """

    #: IPython leaves us out when it checks whether a cell is complete; so a blank line ends the cell, as with any cell magic.
    has_side_effects = True

    def __init__(self, running: Callable[[], str | None], watches_all: Callable[[], bool] = lambda: False) -> None:
        self._running = running
        self._watches_all = watches_all

    def __call__(self, lines: list[str]) -> list[str]:
        """The lines of the cell with the magic line replaced; a cell that is not watched is unchanged."""
        top = _first(lines)
        match = _MAGIC_LINE.match(lines[top]) if top < len(lines) else None
        if match is None:
            return self._placed([], lines[top:], top) if self._watches_all() else lines
        indent, words = match.group(1), match.group(2) or ""
        statement = f"{indent}get_ipython().{ENTRANCE}({repr(words) if words else ''})\n"
        if asks_for_help(words):
            return [statement]
        body = lines[top + 1 :]
        inner = _first(body)
        if inner == len(body):
            return lines  # IPython calls the registered magic, which says that there is no cell below it
        if _TIMERS.match(body[inner]):  # the code that the timer runs is watched: its line goes first
            return _cell_magic([body[inner], *lines[: top + 1], *body[inner + 1 :]])
        if body[inner].lstrip().startswith("%%"):
            return [f"{indent}#\n"] * top + [statement, *body[:inner], *_cell_magic(body[inner:])]
        return self._placed([statement], body, top)

    def _placed(self, head: list[str], body: list[str], blank: int) -> list[str]:
        """Head and body, with comment lines above so that the body has the line numbers of the cell in the notebook.

        IPython drops blank lines at the top of a cell, and numbers the body of ``%%time`` from 1.

        :param blank: how many blank lines there are at the top.
        """
        lines = head + body
        if not lines or lines[0].lstrip().startswith("%%"):
            return lines
        running, end = (self._running() or "").rstrip(), "".join(body).rstrip()
        above = running[: len(running) - len(end)] if running.endswith(end) else ""
        count = above.count("\n") - len(head) if above.endswith("\n") else blank
        indent = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
        return [f"{indent}#\n"] * count + lines


def _cell_magic(lines: list[str]) -> list[str]:
    """The lines as IPython transforms a cell whose first line is a cell magic."""
    transformed: list[str] = cell_magic(lines)
    return transformed


def _first(lines: list[str]) -> int:
    """The index of the first line that is not blank."""
    return next((i for i, line in enumerate(lines) if not line.isspace()), len(lines))
