"""The functions that ``%load_ext jupyter_inplace`` and the JupyterLab extension call."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["load", "rewind_for_panel", "unload"]


def load(shell: InteractiveShell) -> None:
    """Install the magics, once."""
    from jupyter_inplace.magic.transform import ENTRANCE
    from jupyter_inplace.magic.watcher import Watcher

    if not hasattr(shell, ENTRANCE):
        Watcher(shell).install()


def unload(shell: InteractiveShell) -> None:
    """Remove everything that `load` installed, and end a running watch."""
    from jupyter_inplace.magic.transform import ENTRANCE

    watcher = getattr(shell, ENTRANCE, None)
    if watcher is not None:
        watcher.uninstall()


def rewind_for_panel(cell_id: str) -> str:
    """Restore what the watched run of a cell changed, for "Apply and run" in the panel.

    :param cell_id: the front end's id of the cell.
    :return: JSON with ``restored``, a list of names, ``not_restored``, a list of objects with `name` and `reason`, and
        ``reason``: why nothing at all was restored, else null.
    """
    from IPython.core.getipython import get_ipython

    from jupyter_inplace.magic.transform import ENTRANCE
    from jupyter_inplace.rewrite.rewind.rewind import RewindError

    watcher = getattr(get_ipython(), ENTRANCE, None)
    if watcher is None:
        return json.dumps({"restored": [], "not_restored": [], "reason": "the magic is not loaded in this kernel"})
    try:
        rewound = watcher.rewind(cell_id)
    except RewindError as error:
        return json.dumps({"restored": [], "not_restored": [], "reason": str(error)})
    left = [{"name": item.name, "reason": item.reason} for item in rewound.not_restored]
    return json.dumps({"restored": list(rewound.restored), "not_restored": left, "reason": None})
