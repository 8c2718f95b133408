"""Call a function right after a module has been imported for the first time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class OnArrival:
    """Calls `then` once, right after the module `name` has been imported for the first time on this thread.

    Looking for the name in the source would not do: a cell may use torch through a module of its own that imports it.
    """

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self._name = name
        self._then = then
        self._thread = threading.get_ident()
        self._searching = False

    def install(self) -> None:
        """Start to wait."""
        sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Stop waiting."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that the other finders give, with a loader that tells us when the module is loaded."""
        if fullname != self._name or self._searching or threading.get_ident() != self._thread:
            return None
        self._searching = True
        try:
            spec = find_spec(fullname)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            self.remove()
            spec.loader = _Telling(spec.loader, self._then)  # type: ignore[assignment]  # duck-typed: importlib.abc is slow
        return spec


class _Telling:
    """The real loader, with a call afterwards. The module itself only sees the real loader."""

    def __init__(self, real: Any, then: Callable[[], None]) -> None:
        self._real = real
        self._then = then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as the real loader does."""
        made: ModuleType | None = self._real.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """Run the module as the real loader does, then make the call."""
        module.__loader__ = self._real
        if module.__spec__ is not None:
            module.__spec__.loader = self._real
        self._real.exec_module(module)
        self._then()
