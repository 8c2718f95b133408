"""In-place operations that break PyTorch gradients: found, explained, and cured by proved rewrites.

In a notebook: ``%load_ext jupyter_inplace``, then ``%%autograd_watch`` on top of a cell. In a script::

    from jupyter_inplace import watch

    with watch() as report:
        ...
    print(report)

Importing this package imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# At once, not on demand: a later import of the module of that name would hide the class behind it.
from jupyter_inplace.watch import watch

if TYPE_CHECKING:
    from jupyter_inplace.report.data import InplaceError, Report, load
    from jupyter_inplace.rewrite.preserve import preserve_saved

__version__ = "0.1.0"

__all__ = [
    "InplaceError",
    "Report",
    "__version__",
    "load",
    "load_ipython_extension",
    "preserve_saved",
    "unload_ipython_extension",
    "watch",
]

_HOMES = {
    "InplaceError": "jupyter_inplace.report.data",
    "Report": "jupyter_inplace.report.data",
    "load": "jupyter_inplace.report.data",
    "preserve_saved": "jupyter_inplace.rewrite.preserve",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext jupyter_inplace``: put ``%%autograd_watch`` and ``%autograd_watch`` into a shell."""
    from jupyter_inplace import magic

    magic.load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext jupyter_inplace``: take everything out again."""
    from jupyter_inplace import magic

    magic.unload(shell)
