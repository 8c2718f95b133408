"""One watched cell, from its first statement to its report."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jupyter_inplace.frameworks.companions import FRAMEWORKS
from jupyter_inplace.frameworks.import_hook import OnArrival
from jupyter_inplace.magic.options import Options
from jupyter_inplace.magic.output import complain
from jupyter_inplace.report.data import Cell
from jupyter_inplace.report.unknown import left_open, not_watched
from jupyter_inplace.show.report import Report, nothing_ran

if TYPE_CHECKING:
    from jupyter_inplace.rewrite.before import Before
    from jupyter_inplace.rewrite.proofs import Proofs
    from jupyter_inplace.watch import watch as Watch


class Session:
    """Watches one cell. If no framework is imported yet, the watch begins when one is.

    :param cell: the cell as the front end has it.
    :param file: the file name under which the cell's code was compiled.
    :param labels: names such as ``In[7]`` by the file names of cells; may grow while the cell runs.
    :param shell: runs the cell; its ``user_ns`` holds the user's variables.
    :param no_proof: why no rewrite of this cell is tried unless ``--verify`` asks for it; None if rewrites are tried.
    """

    def __init__(
        self,
        options: Options,
        cell: Cell,
        file: str,
        labels: Mapping[str, str],
        shell: Any,
        no_proof: str | None = None,
    ) -> None:
        self.options = options
        self.cell = cell
        self._file = file
        self._labels = labels
        self._shell = shell
        self._no_proof = no_proof
        self._watch: Watch | None = None
        self._arrivals: list[OnArrival] = []
        self._report: Report | None = None
        self._reason: str | None = None  # why the cell is not watched
        #: What ended a part of the cell that is a cell to IPython.
        self.swallowed: BaseException | None = None

    def go_on_in(self, file: str, label: str) -> None:
        """From now on the code of the cell comes from another file."""
        self._file = file
        self._labels = {**self._labels, file: label}
        if self._watch is not None:
            self._watch.go_on_in(file, label)

    def begin(self, *, expected: bool) -> None:
        """Start to watch.

        :param expected: the cell names a framework: begin now, which imports torch, rather than wait for the import.
        """
        if expected or any(name in sys.modules for name in FRAMEWORKS):
            self._start()
            return
        self._bind(nothing_ran(self.cell))
        self._arrivals = [OnArrival(name, self._start_late) for name in FRAMEWORKS]
        for arrival in self._arrivals:
            arrival.install()

    def end(self, error: BaseException | None) -> Report:
        """Remove everything and return the report. A `KeyboardInterrupt` is passed on; then, too, nothing stays installed.

        :param error: the exception that the cell raised.
        """
        self._stop_waiting()
        if self._report is None:
            self._report = self._unwatched() if self._watch is None else self._watch.stop(error or self.swallowed)
        return self._report

    def _unwatched(self) -> Report:
        came = [name for name in FRAMEWORKS if name in sys.modules]
        if not came:
            return nothing_ran(self.cell)
        reason = self._reason or f"{came[0]} was imported on another thread"
        return left_open(Report(cell=self.cell), f"not watched: {reason}")

    def _start(self) -> None:
        from jupyter_inplace.watch import watch

        self._watch = watch(
            *self.options.tasks,
            fingerprint=self.options.fingerprint,
            gradients=self.options.gradients,
            cell=self.cell,
            labels=self._labels,
            cell_file=self._file,
            namespace=lambda: self._shell.user_ns,
            verify=self._before(),
            verify_seconds=self.options.verify_seconds,
            run_eagerly=self.options.run_eagerly,
        )
        self._bind(self._watch)
        self._watch.start()
        if self._watch.fault is not None:
            complain(not_watched(self._watch.fault))

    def _before(self) -> Before:
        """Keep the state from before the cell; this is the last moment before its code runs."""
        from jupyter_inplace.rewrite.before import Before

        if self.options.verify is False:
            return Before.nothing("--no-verify was given")
        if self._no_proof is not None and not self.options.verify:
            return Before.nothing(self._no_proof)
        return Before.keep(self._shell, self.cell.source, force=bool(self.options.verify))

    @property
    def proofs(self) -> Proofs | None:
        """The rewrites of the cell, while they are made and proved."""
        return self._watch.proofs if self._watch is not None else None

    def _stop_waiting(self) -> None:
        for arrival in self._arrivals:
            arrival.remove()

    def _start_late(self) -> None:
        self._stop_waiting()
        try:
            self._start()
        except Exception as error:  # noqa: BLE001 (the person's own import of torch is on the stack)
            self._watch, self._reason = None, repr(error)
            complain(f"this cell is not watched: {error!r}")

    def _bind(self, handle: Any) -> None:
        if self.options.result is not None:
            self._shell.user_ns[self.options.result] = handle
