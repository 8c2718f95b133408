"""``python -m jupyter_inplace script.py``: run a program under the watch, then print its report."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from types import FrameType
from typing import Any

from jupyter_inplace._rank import Place, place
from jupyter_inplace.cli.arguments import Options
from jupyter_inplace.cli.program import Program, conclude, die_of_interrupt, status_of
from jupyter_inplace.cli.save import make_folder, save
from jupyter_inplace.report.data import Report, reaches
from jupyter_inplace.watch import watch
from jupyter_inplace.watch_on_arrival import WatchOnArrival

FAILED_ON = 3
NOT_KNOWN = 4


def main(options: Options) -> int:
    """Run the program; return the exit status."""
    if options.module is not None:
        program = Program.module(options.module, options.arguments)
    else:
        program = Program.script(options.script or "", options.arguments)
    if options.save is not None:
        make_folder(options.save)
        options = replace(options, save=options.save.absolute())  # the program may change the working directory
    program.prepare()
    program.find()
    return ScriptRun(program, options).run()


class ScriptRun:
    """One run of a program under the watch."""

    def __init__(self, program: Program, options: Options) -> None:
        self._program = program
        self._options = options
        self._process = os.getpid()
        self._place: Place | None = place()
        self._watch = WatchOnArrival(
            watch(
                *options.tasks,
                fingerprint=options.fingerprint,
                gradients=options.gradients,
                namespace=lambda: program.namespace,
            )
        )

    def run(self) -> int:
        """Run the program to its end, print and save its report, return the exit status."""
        self._save_when_terminated()
        self._watch.begin()
        error: BaseException | None = None
        try:
            self._program.run()
        except BaseException as raised:  # noqa: BLE001  the program's own error; it is printed below as Python prints it
            error = raised
        self._place = place() or self._place
        if os.getpid() != self._process:  # a process that the program forked has returned to here: it has no report
            conclude(error)
            return status_of(error)
        report = self._watch.end(error)
        conclude(error)
        self._tell(report)
        if isinstance(error, KeyboardInterrupt):
            die_of_interrupt()
        return self._status(report, error)

    def _tell(self, report: Report) -> None:
        options = self._options
        if not options.quiet:
            text = _text(report)
            print(f"\n{text}", file=sys.stderr, flush=True)
        if options.save is not None:
            try:
                path = save(report, options.save, self._program.name, self._place)
            except OSError as fault:
                reason = fault.strerror or fault
                print(f"jupyter-inplace: no report was saved in `{options.save}`: {reason}", file=sys.stderr)
            else:
                if not options.quiet:
                    print(f"report: {_relative(str(path))}", file=sys.stderr)

    def _status(self, report: Report, error: BaseException | None) -> int:
        status = status_of(error)
        level = self._options.fail_on
        met = level is not None and reaches(report.verdict, level)
        if met and not (isinstance(error, SystemExit) and status):
            return FAILED_ON
        unknown = report.verdict == "unknown" or bool(report.unknown_because)
        return NOT_KNOWN if level is not None and not status and unknown else status

    # --- a rank that its launcher ends ------------------------------------------------------------------------------

    def _save_when_terminated(self) -> None:
        """Save the report when the process is terminated, as launchers do with all other ranks once one has died.

        Only if reports of ranks are saved, and only if the program has set no handler of its own.
        """
        if self._options.save is None or self._place is None or not hasattr(signal, "SIGTERM"):
            return
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._terminated)

    def _terminated(self, number: int, _frame: FrameType | None) -> None:
        """Save, then end by the signal, as the program would have ended: none of its code runs any more."""
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() == self._process:
            report = self._watch.end(None)
            note = "the process was terminated from outside before its end"
            self._tell(replace(report, blind_spots=(*report.blind_spots, note)))
        os.kill(os.getpid(), number)


def _text(report: Report) -> str:
    from jupyter_inplace.show import text

    stream: Any = sys.stderr
    colour = bool(getattr(stream, "isatty", bool)()) and "NO_COLOR" not in os.environ
    return text.render(report, color=colour)


def _relative(path: str) -> str:
    try:
        return min(os.path.relpath(path), path, key=len)
    except ValueError:  # on another drive
        return path
