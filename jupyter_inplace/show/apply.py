"""`report.apply`: put a rewrite into the notebook."""

from __future__ import annotations

import sys
from typing import Any

from jupyter_inplace.report.data import Fix, Report

__all__ = ["apply"]


def apply(report: Report, fix_id: int) -> str:
    """Replace the cell that calls this by a rewrite; in a script, print what it changes.

    :return: the new source.
    :raises ValueError: the report has no such fix, or its cell has been edited since.
    """
    fix = _find(report, fix_id)
    shell = _shell()
    if shell is None:
        print(fix.diff, end="")  # noqa: T201  in a script this is all that can be done
        return fix.source
    _check_unedited(report, shell)
    shell.set_next_input(fix.source, replace=True)
    return fix.source


def _find(report: Report, fix_id: object) -> Fix:
    for fix in report.fixes:
        if type(fix_id) is int and fix.id == fix_id:
            return fix
    known = sorted(fix.id for fix in report.fixes)
    if not known:
        raise ValueError(f"there is no fix {fix_id!r}: this report has no fixes")
    listed = f"they are {', '.join(map(str, known))}" if len(known) > 1 else f"the one fix is {known[0]}"
    raise ValueError(f"there is no fix {fix_id!r} in this report: {listed}")


def _shell() -> Any:
    """The shell that runs this code; None if there is none."""
    ipython = sys.modules.get("IPython.core.getipython")
    return ipython.get_ipython() if ipython is not None else None


def _check_unedited(report: Report, shell: Any) -> None:
    """Check that the cell still has the source of the report, as far as the kernel knows.

    :raises ValueError: it has been edited and run since.
    """
    magic = getattr(shell, "autograd_watch", None)
    if report.cell is None or report.cell.id is None or magic is None:
        return
    now = magic.source_of(report.cell.id)
    if now is not None and now != report.cell.source:
        number = f"In[{report.cell.execution_count}]" if report.cell.execution_count is not None else "the cell"
        raise ValueError(f"{number} was edited since this report: watch it again, then apply one of its new fixes")
