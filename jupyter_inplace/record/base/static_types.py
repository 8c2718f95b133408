"""Attributes of types that are written in C and belong to no heap: the nodes of torch's autograd graphs.

Python lets nobody set them. Their dictionary can be reached all the same, and the interpreter told of the change; where it cannot, nothing
is replaced.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import Any

from jupyter_inplace.record.base.patching import lock


class StaticReplacement:
    """The attributes of all types in `module` that start with `prefix`, replaced by `wrap(original)` while somebody needs it.

    Only those of which there is a raw one as well (`_saved_self` and `_raw_saved_self`). The types are looked through once.
    """

    def __init__(self, module: Any, prefix: str, wrap: Callable[[Any], Any]) -> None:
        self._module, self._prefix, self._wrap = module, prefix, wrap
        self._users = 0
        self._known: list[tuple[type, dict[str, Any], dict[str, Any], dict[str, Any]]] | None = None

    def acquire(self) -> bool:
        """Put the replacements in; False if that cannot be done here."""
        with lock:
            if self._known is None:
                self._known = self._look()
            if self._users == 0:
                for kind, attributes, _, wrappers in self._known:
                    _update(kind, attributes, wrappers)
            self._users += 1
            return bool(self._known)

    def release(self) -> None:
        with lock:
            self._users -= 1
            if self._users == 0:
                for kind, attributes, originals, _ in self._known or ():
                    _update(kind, attributes, originals)

    def _look(self) -> list[tuple[type, dict[str, Any], dict[str, Any], dict[str, Any]]]:
        found = []
        for kind in list(vars(self._module).values()):
            attributes = _attributes_of(kind) if isinstance(kind, type) else None
            if attributes is None:
                continue
            originals = {
                name: value
                for name, value in attributes.items()
                if name.startswith(self._prefix) and f"_raw{name}" in attributes
            }
            if originals:
                wrappers = {name: self._wrap(value) for name, value in originals.items()}
                found.append((kind, attributes, originals, wrappers))
        return found


def _attributes_of(kind: type) -> dict[str, Any] | None:
    """The dictionary behind `vars(kind)`; None if this Python keeps it elsewhere."""
    view = vars(kind)
    held = gc.get_referents(view)
    return held[0] if len(held) == 1 and type(held[0]) is dict and held[0] == view else None


def _update(kind: type, attributes: dict[str, Any], values: dict[str, Any]) -> None:
    attributes.update(values)
    _modified(kind)


_modified = ctypes.pythonapi.PyType_Modified  # caches of attributes are of no use any more
_modified.argtypes, _modified.restype = [ctypes.py_object], None
