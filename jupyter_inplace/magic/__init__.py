"""``%%autograd_watch`` and ``%autograd_watch``: one of the callers of `jupyter_inplace.watch`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["load", "unload"]


def load(shell: InteractiveShell) -> None:
    """Install the magics, once."""
    from jupyter_inplace.magic.transform import ENTRANCE
    from jupyter_inplace.magic.watcher import Watcher

    if not hasattr(shell, ENTRANCE):
        Watcher(shell).install()


def unload(shell: InteractiveShell) -> None:
    """Remove all that `load` installed, and end a watch that is under way."""
    from jupyter_inplace.magic.transform import ENTRANCE

    watcher = getattr(shell, ENTRANCE, None)
    if watcher is not None:
        watcher.uninstall()
