"""Faults of our own: kept with their tracebacks, and printed where somebody looks for them.

A fault of ours never surfaces inside of the user's program. `JUPYTER_INPLACE_DEBUG=1` in the environment prints each on stderr.
"""

from __future__ import annotations

import os
import sys
import traceback

_KEPT = 16

#: The environment variable that has faults printed.
VARIABLE = "JUPYTER_INPLACE_DEBUG"


def keep(faults: list[BaseException], error: BaseException) -> None:
    """Keep a fault, of the first few its traceback too, without the user's frames and tensors."""
    if os.environ.get(VARIABLE, "") not in ("", "0"):
        sys.stderr.write("jupyter_inplace failed; the program goes on:\n" + "".join(traceback.format_exception(error)))
    if len(faults) < _KEPT:
        faults.append(error)
