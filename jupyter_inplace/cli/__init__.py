"""The command line: run a script under the watch, show a report, fix a script.

`command` starts, `arguments` reads the words, `program` loads and runs somebody's script as ``__main__``; `run`, `show` and
`fix` are the three commands.
"""

from importlib import import_module
from typing import Any

__all__ = ["main"]  # what the installed command calls


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.command"), name)
