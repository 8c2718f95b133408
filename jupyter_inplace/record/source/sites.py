"""Source sites: which line of the user's is at work, at the cost of a frame walk.

`find_site` runs once per operation while the user's code runs, so it only walks frames and looks up one dict per
frame. What it returns is opaque; `SiteResolver` turns it into a `Site` with columns and text after the cell.

The user's frames are all those outside of torch, of installed libraries (``site-packages``, ``dist-packages``), of
the standard library and of this package. What is decided, is decided once per file name: hashing a code object takes
longer the longer the function is, and two equal functions in two files compare equal.
"""

from __future__ import annotations

import inspect
import os
import sys
import sysconfig
from sys import _getframe
from types import CodeType, FrameType
from typing import Any, Final

from jupyter_inplace._package import FOLDER

__all__ = [
    "CodeRef",
    "SiteKey",
    "code_ref",
    "find_frame",
    "find_site",
    "find_site_and_module",
    "is_user_code",
    "is_user_frame",
    "locals_of",
    "site_key",
]


class CodeRef:
    """A code object, compared and hashed by identity (code objects themselves compare by content)."""

    __slots__ = ("code",)

    def __init__(self, code: CodeType) -> None:
        self.code = code

    def __repr__(self) -> str:
        return f"CodeRef({self.code.co_qualname}, {self.code.co_filename!r})"


#: Opaque: the innermost frame of the user's as (code, instruction), then, where that one stands outside of the watched
#: cell, the innermost frame of the cell in the same way. Hashable; equal for the same expression.
SiteKey = tuple[CodeRef, int] | tuple[CodeRef, int, CodeRef, int]

_LIBRARY: Final = 0
_USER: Final = 1
_ASK: Final = 2  # the file name alone does not tell: generated code

_NO_FILES: Final[frozenset[str]] = frozenset()
_kinds: Final[dict[str, int]] = {}
_refs: Final[dict[int, CodeRef]] = {}
_REFS_KEPT: Final = 4096
#: Before Python 3.13 (PEP 667) reading `frame.f_locals` leaves a copy in the frame, which keeps the values alive.
_SNAPSHOTS: Final = sys.version_info < (3, 13)


def find_frame(skip: int = 1) -> FrameType | None:
    """The innermost frame of the user's, seen from the caller outward; None where there is none.

    :param skip: frames to leave out at once; 1 begins at the caller.
    """
    frame: FrameType | None = _getframe(skip)
    while True:
        try:
            while not (kind := _kinds[frame.f_code.co_filename]):  # type: ignore[union-attr]
                frame = frame.f_back  # type: ignore[union-attr]
        except (KeyError, AttributeError):
            if frame is None:
                return None
            _learn(frame.f_code.co_filename)
            continue
        if kind == _USER or is_user_frame(frame):  # type: ignore[arg-type]
            return frame
        frame = frame.f_back  # type: ignore[union-attr]


def find_site(skip: int = 1, cell_files: frozenset[str] = _NO_FILES) -> SiteKey | None:
    """The innermost frame of the user's, seen from the caller outward.

    :param skip: frames to leave out at once; 1 begins at the caller.
    :param cell_files: ``co_filename`` of the watched cell. Where the user's innermost frame stands in another file,
        the innermost frame of the cell is added to the key.
    :returns: None where no frame on the stack is the user's.
    """
    frame = find_frame(skip + 1)
    if frame is None:
        return None
    code = frame.f_code
    lasti = frame.f_lasti
    if cell_files and code.co_filename not in cell_files:
        frame = frame.f_back
        while frame is not None:
            cell_code = frame.f_code
            if cell_code.co_filename in cell_files:
                return (code_ref(code), lasti, code_ref(cell_code), frame.f_lasti)
            frame = frame.f_back
    return (_refs.get(id(code)) or code_ref(code), lasti)


def find_site_and_module(
    call_impl: CodeType,
    skip: int = 1,
    cell_files: frozenset[str] = _NO_FILES,
    outermost: CodeType | None = None,
) -> tuple[SiteKey | None, Any]:
    """`find_site` and, in the same walk, the innermost ``torch.nn.Module`` that is being called.

    :param call_impl: the code object of ``torch.nn.Module._call_impl``.
    :param outermost: code of the frame where looking for a module ends (the one that opened the watch). In a cell the
        walk ends at the cell's own statements anyway; without either the whole stack is looked at.
    :returns: the site, and the module or None.
    """
    frame: FrameType | None = _getframe(skip)
    module: Any = None
    while True:  # to the user's innermost frame
        try:
            while not (kind := _kinds[(code := frame.f_code).co_filename]):  # type: ignore[union-attr]
                if code is call_impl and module is None:
                    module = _self_of(frame)  # type: ignore[arg-type]
                frame = frame.f_back  # type: ignore[union-attr]
        except (KeyError, AttributeError):
            if frame is None:
                return None, module
            _learn(frame.f_code.co_filename)
            continue
        if kind == _USER or is_user_frame(frame):  # type: ignore[arg-type]
            break
        frame = frame.f_back  # type: ignore[union-attr]
    lasti = frame.f_lasti  # type: ignore[union-attr]
    key: SiteKey = (_refs.get(id(code)) or code_ref(code), lasti)
    in_cell = not cell_files or code.co_filename in cell_files
    if in_cell and (module is not None or (cell_files and code.co_name == "<module>")):
        return key, module
    return _outward(frame, key, module, in_cell, call_impl, cell_files, outermost)


def _outward(
    frame: FrameType | None,
    key: SiteKey,
    module: Any,
    in_cell: bool,
    call_impl: CodeType,
    cell_files: frozenset[str],
    outermost: CodeType | None,
) -> tuple[SiteKey, Any]:
    """The rest of the walk, from the user's innermost frame to the cell's own statements."""
    while frame is not None:
        code = frame.f_code
        if code is call_impl:
            if module is None:
                module = _self_of(frame)
                if in_cell:
                    break
        elif code.co_filename in cell_files:
            if not in_cell:
                key, in_cell = (key[0], key[1], _refs.get(id(code)) or code_ref(code), frame.f_lasti), True
            if module is not None or code.co_name == "<module>":
                break
        elif code is outermost or (code.co_name == "<module>" and in_cell and is_user_code(code.co_filename)):
            break
        frame = frame.f_back
    return key, module


def _self_of(frame: FrameType) -> Any:
    """The module that a frame of ``Module._call_impl`` calls."""
    outer = frame.f_back
    if outer is not None and outer.f_code.co_name == "_wrapped_call_impl":
        frame = outer  # it has the same `self` and fewer variables, which are copied to be read
    snapshot = frame.f_locals
    module = snapshot.get("self")
    if _SNAPSHOTS:
        snapshot.clear()  # torch never asks this frame for its locals()
    return module


def code_ref(code: CodeType) -> CodeRef:
    """The one `CodeRef` of a code object."""
    ref = _refs.get(id(code))
    if ref is None:
        if len(_refs) >= _REFS_KEPT:  # keys in use keep their own reference; only old code is let go
            _refs.clear()
        ref = _refs.setdefault(id(code), CodeRef(code))
    return ref


def site_key(code: CodeType, lasti: int, cell_code: CodeType | None = None, cell_lasti: int = 0) -> SiteKey:
    """The key of a place known from a traceback instead of a running frame."""
    if cell_code is None or cell_code is code:
        return (code_ref(code), lasti)
    return (code_ref(code), lasti, code_ref(cell_code), cell_lasti)


def is_user_code(filename: str) -> bool:
    """Whether code of this ``co_filename`` is the user's (generated code of unknown origin counts as the user's)."""
    kind = _kinds.get(filename)
    return bool(_learn(filename) if kind is None else kind)


def is_user_frame(frame: FrameType) -> bool:
    """Whether a frame is the user's; also told apart for code that a library generated as ``<string>``."""
    code = frame.f_code
    if not is_user_code(code.co_filename):
        return False
    if _kinds[code.co_filename] != _ASK:
        return True
    if code.co_qualname.startswith("__create_fn__."):  # dataclasses
        return False
    name = frame.f_globals.get("__name__")
    if not isinstance(name, str) or name == "__main__":
        return True
    if name.startswith("namedtuple_"):
        return False
    origin = getattr(sys.modules.get(name), "__file__", None)
    return not isinstance(origin, str) or is_user_code(origin)


def locals_of(frame: FrameType) -> dict[str, Any]:
    """A frame's variables, read without leaving a copy of them in the frame (they would outlive their ``del``)."""
    variables = frame.f_locals
    copy = dict(variables)
    # Three references: the frame's, ours, the call's. More: the program called locals() here and keeps what it got.
    if _SNAPSHOTS and frame.f_code.co_flags & inspect.CO_OPTIMIZED and sys.getrefcount(variables) <= 3:
        variables.clear()
    return copy


def _learn(filename: str) -> int:
    kind = _kinds[filename] = _kind_of(filename)
    return kind


#: Code that libraries generate and that stands in no file.
_GENERATED = (
    "<frozen ",
    "<eval_with_key>",
    "<attrs generated",
    "<decorator-gen",
    "<__array_function__",
    "<torch_package",
)


def _kind_of(filename: str) -> int:
    if filename == "<string>":
        return _ASK
    if filename.startswith("<"):
        return _LIBRARY if filename.startswith(_GENERATED) else _USER
    path = os.path.normcase(os.path.abspath(filename))
    parts = path.replace(os.sep, "/").split("/")
    if "site-packages" in parts or "dist-packages" in parts:
        return _LIBRARY
    real = os.path.realpath(path)
    roots = _library_roots()
    return _LIBRARY if any(path.startswith(root) or real.startswith(root) for root in roots) else _USER


def _library_roots() -> list[str]:
    """Folders, with a separator at the end, of the standard library, this package, and torch as a source checkout."""
    folders = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), os.path.dirname(os.__file__)]
    folders.append(os.path.dirname(FOLDER))
    folders += list(getattr(sys.modules.get("torch"), "__path__", ()))
    # `/` as a folder would make everything a library.
    real = {os.path.normcase(os.path.realpath(folder)) for folder in folders if folder}
    plain = {os.path.normcase(os.path.abspath(folder)) for folder in folders if folder}
    return [folder + os.sep for folder in real | plain if len(folder) > 1]
