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

from jupyter_inplace import report as _report
from jupyter_inplace._version import __version__
from jupyter_inplace.show.report import InplaceError, Report, load

# At once, not on demand: a later import of the module of that name would hide the class behind it.
from jupyter_inplace.watch import watch

if TYPE_CHECKING:
    from jupyter_inplace.rewrite.preserve import preserve_saved

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

# What people import from `jupyter_inplace.report` is the report that they get. The package itself cannot say so: it stands
# below `jupyter_inplace.show`, and imports nothing of it.
vars(_report).update(InplaceError=InplaceError, Report=Report, load=load)
_report.__all__ += ["InplaceError", "load"]

_HOMES = {"preserve_saved": "jupyter_inplace.rewrite.preserve"}


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
