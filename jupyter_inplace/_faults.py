"""Faults of our own: each keeps its traceback, and is shown where somebody looks for it.

A fault of ours never surfaces inside of the user's program; the report says `unknown`, or names what is missing. With
`JUPYTER_INPLACE_DEBUG=1` in the environment each is printed on stderr; any other value is a file to which they are appended.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback

_KEPT = 16

#: The environment variable that has faults shown.
VARIABLE = "JUPYTER_INPLACE_DEBUG"


def keep(faults: list[str], error: BaseException) -> None:
    """Keep the traceback of a fault among the first few, as text: frames would keep the user's tensors alive. Show it if asked for."""
    text = "".join(traceback.format_exception(error))
    if len(faults) < _KEPT:
        faults.append(text)
    _show(text)


def show(error: BaseException) -> None:
    """Show a fault that is told in words elsewhere."""
    if os.environ.get(VARIABLE, "") not in ("", "0"):
        _show("".join(traceback.format_exception(error)))


def _show(text: str) -> None:
    wanted = os.environ.get(VARIABLE, "")
    if wanted in ("", "0"):
        return
    with contextlib.suppress(Exception):  # a full disk or a closed stream is no reason to disturb the program
        text = f"jupyter_inplace failed; the program goes on:\n{text}"
        if wanted == "1":
            sys.stderr.write(text)
        else:
            with open(wanted, "a", encoding="utf-8") as file:  # noqa: PTH123
                file.write(text)
