"""Functions of torch that are replaced while a watch is open.

Several threads may be watched at once and end in any order, and somebody else may wrap a wrapper of ours meanwhile: each is put in when
the first trace needs it, steps aside when the last one is over, and is taken out only where it still stands on top.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

_lock = threading.RLock()


class Replacement:
    """One attribute `name` of `owner`, replaced by `wrap(original)` from the first `acquire` to the last `release`."""

    def __init__(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        self._owner, self._name, self._wrap = owner, name, wrap
        self._users = 0
        self._original: Any = None
        self._inherited = False
        self._wrapper: Any = None

    def acquire(self) -> bool:
        """Put the replacement in; False where torch has no such attribute."""
        with _lock:
            original = vars(self._owner).get(self._name, getattr(self._owner, self._name, None))
            if original is None:
                return False
            if self._users == 0:
                self._inherited = isinstance(self._owner, type) and self._name not in vars(self._owner)
                self._original, self._wrapper = original, self._wrap(original)
                setattr(self._owner, self._name, self._wrapper)
            self._users += 1
            return True

    def release(self) -> None:
        with _lock:
            self._users -= 1
            if self._users == 0:
                if vars(self._owner).get(self._name) is not self._wrapper:
                    pass  # somebody wrapped it, and holds it
                elif self._inherited:
                    delattr(self._owner, self._name)
                else:
                    setattr(self._owner, self._name, self._original)
                self._original = self._wrapper = None


class Held:
    """The replacements that one part has put in."""

    def __init__(self) -> None:
        self._all: list[Replacement] = []

    def acquire(self, replacements: Iterable[Replacement]) -> bool:
        """Put them in; False if torch lacks what one of them replaces."""
        wanted = list(replacements)
        self._all = [replacement for replacement in wanted if replacement.acquire()]
        return len(self._all) == len(wanted)

    def release(self) -> None:
        """Take them out."""
        held, self._all = self._all, []
        for replacement in held:
            replacement.release()

    def __bool__(self) -> bool:
        return bool(self._all)


class StandInProperty(property):
    """A property of tensors that gives its original away where somebody asks for `Tensor.data.__get__`, as torch itself does."""

    def __init__(self, original: Any, get: Any, put: Any) -> None:
        super().__init__(get, put, original.__delete__, doc=original.__doc__)
        accessors = {name: getattr(original, name) for name in ("__get__", "__set__", "__delete__")}
        self.__dict__.update(accessors, __name__=original.__name__)
