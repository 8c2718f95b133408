"""`ast.parse` from several threads: CPython 3.11 counts the depth of its recursion once for all of them, and trips over it."""

from __future__ import annotations

import ast
import threading
from typing import Any

_lock = threading.Lock()
_ATTEMPTS = 5


def parse(source: str, mode: str = "exec") -> Any:
    """The syntax tree of a source; the same exceptions as from `ast.parse`.

    The lock keeps our own threads apart. The program's may parse too, and then once more is enough: `SystemError` is what the
    miscounting raises (python/cpython#106905).
    """
    for _ in range(_ATTEMPTS):
        try:
            with _lock:
                return ast.parse(source, mode=mode)
        except SystemError:
            continue
    return ast.parse(source, mode=mode)
