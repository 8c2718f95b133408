"""``jupyter-inplace fix``: rewrites of a script, each run on a copy of the state from before the script."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from types import CodeType

from jupyter_inplace.cli.arguments import BadInputError, Options
from jupyter_inplace.cli.program import Program, conclude, status_of
from jupyter_inplace.cli.source_file import SourceFile
from jupyter_inplace.report.data import HARMFUL, Cell, Fix, Report

TO_DO = 1
NOT_KNOWN = 4


def main(options: Options) -> int:
    """Run the script once as it is, make rewrites and prove them; with `--apply`, write the best one."""
    path = options.script or ""
    program = Program.script(path, options.arguments)
    if Path(path).is_dir():
        raise BadInputError(f"`{path}` is a folder; name the script in it.")
    file = SourceFile(path)
    program.prepare()
    program.enter()
    try:
        code = compile(file.text, program.file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        conclude(error)
        return 1
    report, raised = _run(program, code, file.text, options)
    conclude(raised)
    print(report, flush=True)
    if report.verdict not in HARMFUL:
        return status_of(raised) or (NOT_KNOWN if report.verdict == "unknown" else 0)
    chosen = _best(report, options.reading)
    if not options.apply:
        _say_what_next(path, chosen)
        return TO_DO
    if chosen is None:
        raise BadInputError(f"nothing was written to `{path}`: {_why_none(report)}")
    backup = file.replace(chosen.source)
    print(
        f"\n{path}: {chosen.title}"
        + ("" if backup is None else f" (the old text is not in git: it is kept in {backup.name})")
    )
    left = {m.id for m in report.mutations if m.verdict in HARMFUL} - set(chosen.mutations)
    if left:
        print("other harmful writes are left; run it again")
    return TO_DO if left else 0


def _run(program: Program, code: CodeType, source: str, options: Options) -> tuple[Report, BaseException | None]:
    from jupyter_inplace.rewrite.before import Before
    from jupyter_inplace.rewrite.verify import verify
    from jupyter_inplace.watch import watch

    before = Before.keep(program.namespace, source)
    try:
        watching = watch(
            *options.tasks,
            fingerprint=options.fingerprint,
            gradients=options.gradients,
            cell=Cell(source=source),
            cell_file=program.file,
            namespace=lambda: program.namespace,
        )
        error: BaseException | None = None
        began = time.monotonic()
        watching.start()
        try:
            exec(code, program.namespace)  # noqa: S102  this is how the script runs
        except BaseException as raised:  # noqa: BLE001  the script's own error; it is printed as Python prints it
            error = raised
        report = watching.stop(error)
        seconds = time.monotonic() - began
        if report.verdict not in HARMFUL:
            return report, error
        print("making and proving rewrites ...", file=sys.stderr, flush=True)
        fixes = verify(
            source,
            report,
            before.sandbox,
            seconds=options.seconds,
            cell_seconds=seconds,
            taken=program.namespace.keys(),
            unavailable=before.untried,
        )
        return replace(report, fixes=fixes), error
    finally:
        before.drop()


def _best(report: Report, reading: str | None) -> Fix | None:
    """The best proved rewrite; None if both readings of a refused write are proved: the person has to choose."""
    proved = [fix for fix in report.fixes if fix.verification.status == "passed"]
    if reading is not None:
        proved = [fix for fix in proved if fix.reading in (None, reading)]
    if len({fix.reading for fix in proved if fix.reading is not None}) > 1:
        return None
    return proved[0] if proved else None


def _why_none(report: Report) -> str:
    if sum(fix.verification.status == "passed" for fix in report.fixes):
        return "two readings of the refused write are proved; say which is meant: --reading update or --reading copy."
    return "no rewrite is proved." if report.fixes else "there is no rewrite for it."


def _say_what_next(path: str, chosen: Fix | None) -> None:
    if chosen is not None:
        print(f"\nto write the best one into {path}: jupyter-inplace fix --apply {path}", file=sys.stderr)
