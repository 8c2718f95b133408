"""Functions of torch's that are replaced while a watch is open, and the session in force on each thread.

torch's functions belong to the process, a watch to its thread. So a replacement asks which session is in force on the
thread that calls it, and does nothing of its own where there is none. Several threads may be watched at once and end in any
order, and somebody else may wrap a wrapper of ours meanwhile: each is put in when the first session needs it, steps aside
when the last one is over, and is taken out only where it still stands on top.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch.overrides import has_torch_function_unary

if TYPE_CHECKING:
    from jupyter_inplace.record.session import Session

_lock = threading.RLock()


class _Here(threading.local):
    session: Session | None = None  # in the class: a look-up with a default takes six times as long


_here = _Here()


def session_here() -> Session | None:
    """The session in force on this thread."""
    return _here.session


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


class StandIn:
    """Tells the session in force of each call of a method of tensors, and passes for the method: it is equal to it, and has its names.

    Where tensor classes or function modes follow functions, torch hands them this one, which stands where torch looks the method
    up. They are asked first; told is what they call at last.

    :param told: called with (session, original, tensor, ...) in place of the method.
    """

    def __init__(self, original: Any, told: Callable[..., Any]) -> None:
        self._original, self._told = original, told

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        session = session_here()
        tensor = args[0] if args else kwargs.get("input")
        if session is None or has_torch_function_unary(tensor):
            return self._original(*args, **kwargs)
        return self._told(session, self._original, *args, **kwargs)

    def __get__(self, tensor: Any, owner: Any = None) -> Any:
        return self if tensor is None else types.MethodType(self, tensor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def __eq__(self, other: object) -> bool:
        return self is other or bool(self._original == other)

    def __hash__(self) -> int:
        return hash(self._original)

    def __repr__(self) -> str:
        return repr(self._original)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._original)


class StandInProperty(property):
    """A property of tensors that gives its original away where somebody asks for `Tensor.data.__get__`, as torch itself does."""

    def __init__(self, original: Any, get: Any, put: Any) -> None:
        super().__init__(get, put, original.__delete__, doc=original.__doc__)
        accessors = {name: getattr(original, name) for name in ("__get__", "__set__", "__delete__")}
        self.__dict__.update(accessors, __name__=original.__name__)
