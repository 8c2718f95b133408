"""In-place operations that break PyTorch gradients: found, explained, and fixed by proved rewrites.

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

# Now, not on first access: importing the module of the same name later would hide the class behind the module.
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

# `jupyter_inplace.report.Report` is the class of the reports that people get. The package cannot import it by itself: the
# class is defined in `jupyter_inplace.show`, which is built on the package.
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
    """``%load_ext jupyter_inplace``: install ``%%autograd_watch`` and ``%autograd_watch`` in a shell."""
    from jupyter_inplace import magic

    magic.load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext jupyter_inplace``: remove everything again."""
    from jupyter_inplace import magic

    magic.unload(shell)
