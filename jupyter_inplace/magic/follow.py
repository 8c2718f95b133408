"""What is shown and saved between the end of a watched cell and its last proof, and when."""

from __future__ import annotations

import contextlib
import contextvars
import signal
import threading
from pathlib import Path
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from jupyter_inplace.magic.output import Output, complain, save
from jupyter_inplace.report.data import Report
from jupyter_inplace.rewrite.proofs import Proofs

#: Seconds that a cell waits for proofs before it ends; later proofs arrive while the next cells run.
PATIENCE = 5.0
#: The least number of seconds between two updates of a display.
EVERY = 0.3


class Following:
    """Shows and saves the proofs of a cell as they arrive.

    :param output: where the report is shown; None if it is not.
    :param path: the file in which it is saved; None if it is not.
    """

    def __init__(self, shell: InteractiveShell, proofs: Proofs, output: Output | None, path: Path | None) -> None:
        self._shell = shell
        self._proofs = proofs
        self._output = output
        self._path = path
        self._context = contextvars.copy_context()  # in it a kernel keeps the cell to which an output belongs

    def wait(self) -> None:
        """Wait for all proofs, since nothing can be shown after the cell has ended (nbclient, a terminal)."""
        if self._output is not None and self._output.replaces:
            for report in self._proofs.changes(every=EVERY):
                self._output.show(report)
        else:
            report = self._proofs.wait()
            if self._output is not None:
                self._output.show(report)
        self._save(self._proofs.report)

    def hand_over(self) -> None:
        """Wait for the proofs of the first seconds; a thread shows the others while the next cells run."""
        for report in self._proofs.changes(PATIENCE, EVERY):
            if self._output is not None:
                self._output.show(report)
        if self._proofs.done:
            self._save(self._proofs.report)
            return
        threading.Thread(target=self._rest, name="jupyter_inplace display", daemon=True).start()
        self._cancel_on_interrupt()

    def quietly(self) -> None:
        """Show nothing; save the report once all proofs have arrived."""
        if self._path is not None:
            self._save(self._proofs.wait())

    def _rest(self) -> None:
        for report in self._proofs.changes(every=EVERY):
            if self._output is not None:
                self._context.run(self._show, report)
        self._save(self._proofs.report)

    def _show(self, report: Report) -> None:
        assert self._output is not None
        with contextlib.suppress(Exception):  # the kernel is shutting down
            self._output.show(report)

    def _save(self, report: Report) -> None:
        if self._path is not None:
            save(report, self._path)

    def _cancel_on_interrupt(self) -> None:
        """Make Ctrl+C cancel the proofs while no cell runs; a kernel ignores it then. In a cell it interrupts the cell, as always."""
        loop: Any = getattr(getattr(self._shell, "kernel", None), "io_loop", None)
        if loop is None:
            return

        def on_interrupt(*_signal: Any) -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._proofs.cancel()

        def install() -> None:
            if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and not self._proofs.done:
                signal.signal(signal.SIGINT, on_interrupt)

        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_later(0.1, install)


def conclude(shell: InteractiveShell, proofs: Proofs, output: Output | None, path: Path | None) -> None:
    """Show and save the proofs of a cell. Ctrl+C cancels the proofs that are left, and nothing else."""
    following = Following(shell, proofs, output, path)
    try:
        if output is None:
            following.quietly()
        elif output.live:
            following.hand_over()
        else:
            following.wait()
    except KeyboardInterrupt:  # while something is being displayed
        proofs.cancel()
        complain("interrupted; rewrites that were not tried by then are untried")
        if output is not None:
            output.show(proofs.report)
