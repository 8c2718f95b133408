"""``%%autograd_watch`` and ``%autograd_watch``: one of the callers of `jupyter_inplace.watch`."""

from importlib import import_module
from typing import Any

__all__ = ["load", "rewind_for_panel", "unload"]  # the JupyterLab extension calls rewind_for_panel


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.extension"), name)
