"""The progress of a long watched loop: a line in a terminal, a tqdm bar in a notebook."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

_PATIENCE = 2.0  # seconds before anything is shown
_REFRESH = 0.5  # seconds between two updates


class Progress:
    """Shown only where somebody may be looking: in rank 0 of a job, in a terminal or a notebook.

    :param wanted: False to show nothing; None and True show it if there is a place for it.
    """

    def __init__(self, wanted: bool | None = None, stream: TextIO | None = None) -> None:
        self._wanted = wanted is not False
        self._stream = sys.stderr if stream is None else stream
        self._began = time.monotonic()
        self._next = self._began + _PATIENCE
        self._total: int | None = None
        self._theirs: Any = None  # the tqdm bar of the program
        self._bar: Any = None
        self._chosen = False
        self._line = False

    def over(self, iterable: Any) -> None:
        """Learn the length of the loop from what it iterates over, and whether that is a progress bar itself."""
        if hasattr(iterable, "set_postfix_str"):
            self._theirs = iterable
        try:
            self._total = len(iterable)
        except (TypeError, NotImplementedError):
            self._total = None

    def update(self, steps: int, watched: int, verdict: str) -> None:
        """`steps` steps have begun; `watched` of them were watched to their end, and `verdict` is the worst of those."""
        now = time.monotonic()
        if now < self._next or not self._wanted:
            return
        self._next = now + _REFRESH
        if self._theirs is not None:
            self._theirs.set_postfix_str(f"{watched:,} watched: {verdict}", refresh=False)
            return
        if not self._chosen:
            self._choose()
        if self._bar is not None:
            self._bar.n = steps
            self._bar.set_postfix_str(f"{watched:,} watched: {verdict}", refresh=True)
        elif self._line:
            of = "" if self._total is None else f" of {self._total:,}"
            rate = steps / (now - self._began)
            self._write(f"\r\033[Kautograd watch: step {steps:,}{of}, {rate:,.1f}/s, {watched:,} watched: {verdict}")

    def close(self) -> None:
        """Erase the line, close the bar."""
        if self._line:
            self._write("\r\033[K")
            self._line = False
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _choose(self) -> None:
        from jupyter_inplace._rank import place

        self._chosen = True
        here = place()
        if here is not None and here.rank != 0:
            return
        if _in_notebook():
            self._bar = _notebook_bar(self._total)
        else:
            self._line = _is_terminal(self._stream)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone; the loop goes on
            self._line = False


def _in_notebook() -> bool:
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def _notebook_bar(total: int | None) -> Any:
    """A tqdm bar; None if tqdm or the widgets that it needs are not installed."""
    try:
        from tqdm.notebook import tqdm

        return tqdm(total=total, desc="autograd watch", unit="step", leave=False)
    except Exception:  # noqa: BLE001  (without a bar the loop runs just as well)
        return None


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False
