"""Functions of torch's that are replaced while a watch is open, and the session in force on each thread.

torch's functions belong to the process, a watch to its thread. So a replacement asks which session is in force on the
thread that calls it, and does nothing of its own where there is none. Several threads may be watched at once and end in any
order, and somebody else may wrap a wrapper of ours meanwhile: each is put in when the first session needs it, steps aside
when the last one is over, and is taken out only where it still stands on top.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jupyter_inplace.record.session import Session

_lock = threading.RLock()
_here = threading.local()


def session_here() -> Session | None:
    """The session in force on this thread."""
    session: Session | None = getattr(_here, "session", None)
    return session


def set_session_here(session: Session | None) -> None:
    """Put a session in force on this thread, or none."""
    _here.session = session


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
