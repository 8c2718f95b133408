"""The command line: run a script under the watch, show a report, fix a script.

`command` is the entry point, `arguments` reads the command line, `program` loads and runs a script as ``__main__``; `run`, `show`
and `fix` are the three commands.
"""

from importlib import import_module
from typing import Any

__all__ = ["main"]  # the installed command calls it


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.command"), name)
