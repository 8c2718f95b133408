"""Source sites: which line of the user's is at work, at the cost of a frame walk.

`find_site` runs once per operation while the user's code runs, so it only walks frames and looks up one dict per
frame. What it returns is opaque; `SiteResolver` turns it into a `Site` with columns and text after the cell.

The user's frames are all those outside of torch, of installed libraries (``site-packages``, ``dist-packages``), of
the standard library and of this package. What is decided, is decided once per file name: hashing a code object takes
longer the longer the function is, and two equal functions in two files compare equal.
"""

from __future__ import annotations

import ast
import dis
import inspect
import linecache
import os
import sys
import sysconfig
from collections.abc import Mapping
from itertools import islice
from sys import _getframe
from types import CodeType, FrameType
from typing import Any, Final

from jupyter_inplace._package import FOLDER
from jupyter_inplace.record.source.expressions import argument_names, assigned_names, written_name
from jupyter_inplace.record.source.source_text import SourceText, Span
from jupyter_inplace.report.data import Site

__all__ = [
    "CodeRef",
    "SiteKey",
    "SiteResolver",
    "argument_names",
    "assigned_names",
    "code_ref",
    "find_frame",
    "find_site",
    "find_site_and_module",
    "is_user_code",
    "is_user_frame",
    "locals_of",
    "opname_at",
    "positions",
    "site_key",
    "written_name",
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


def positions(code: CodeType, lasti: int) -> tuple[int | None, int | None, int | None, int | None]:
    """``(line, end line, column, end column)`` of one instruction; columns in bytes of UTF-8."""
    return next(islice(code.co_positions(), max(lasti, 0) // 2, None), (code.co_firstlineno, None, None, None))


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


class SiteResolver:
    """Turns the keys of `find_site` into `Site`: lines, columns and text. Made for one watch, used after the cell.

    :param labels: what a file is called in the report, such as ``"In[7]"``; other files keep their name.
    :param cell_file: ``co_filename`` of the watched cell, None outside of a cell.
    :param cell_source: the cell as the person typed it, line 1 being the magic line.
    """

    def __init__(self, labels: Mapping[str, str], cell_file: str | None, cell_source: str | None) -> None:
        self._labels = labels
        self._cell_file = cell_file
        self._cell_lines = (cell_source or "").splitlines()
        self._texts: dict[str, SourceText] = {}
        self._sites: dict[SiteKey, Site] = {}

    def resolve(self, key: SiteKey | None) -> Site | None:
        """The site of a key; never raises, and leaves empty what cannot be had (a file without source has no text)."""
        if key is None:
            return None
        site = self._sites.get(key)
        if site is None:
            site = self._sites[key] = self._resolve(key)
        return site

    def text_of(self, filename: str) -> SourceText:
        """The source of a file by its ``co_filename``, without lines where there is none."""
        text = self._texts.get(filename)
        if text is None:
            text = self._texts[filename] = SourceText(self._lines_of(filename))
        return text

    def statement_of(self, key: SiteKey | None) -> tuple[ast.AST | None, ast.stmt | None]:
        """The syntax of a site: its expression, and the statement around it."""
        site = self.resolve(key)
        if key is None or site is None or site.column is None or site.end_line is None or site.end_column is None:
            return None, None
        text = self.text_of(self._shown(key)[0].co_filename)
        where = (site.line, site.column, site.end_line, site.end_column)
        return text.expression(*where), text.statement(*where)

    def assigned_names(self, key: SiteKey | None) -> tuple[str, ...]:
        """The variables that hold exactly the value of a site's expression: ``prob`` of ``prob = logit.sigmoid()``."""
        expression, statement = self.statement_of(key)
        return assigned_names(expression, statement)

    def _resolve(self, key: SiteKey) -> Site:
        code, lasti = self._shown(key)
        filename = code.co_filename
        source = self.text_of(filename)
        opname = opname_at(code, lasti)
        span = source.span(positions(code, lasti), opname) or Span(code.co_firstlineno, None, None, None, "")
        line_text, text = source.line(span.line), span.text
        if filename == self._cell_file:
            typed = self._typed_line(source, span.line)
            if typed is not None and typed != line_text:  # `%time x.mul_(2)` runs as a call of the magic
                line_text = text = typed
        return Site(
            file=self._labels.get(filename, filename),
            line=span.line,
            column=span.column,
            end_line=span.end_line,
            end_column=span.end_column,
            text=text,
            line_text=line_text,
            function=_function_name(code),
            cell_line=self._cell_line(key, span.line if filename == self._cell_file else None),
        )

    def _shown(self, key: SiteKey) -> tuple[CodeType, int]:
        """The frame to show: the innermost of the user's that has source, else that of the cell."""
        if len(key) == 4 and not self.text_of(key[0].code.co_filename).lines:
            return key[2].code, key[3]
        return key[0].code, key[1]

    def _cell_line(self, key: SiteKey, own: int | None) -> int | None:
        if own is not None or len(key) != 4:
            return own
        code, lasti = key[2].code, key[3]
        span = self.text_of(code.co_filename).span(positions(code, lasti), opname_at(code, lasti))
        return None if span is None else span.line

    def _lines_of(self, filename: str) -> list[str]:
        try:
            linecache.checkcache(filename)  # a module that was edited and reloaded
            lines = linecache.getlines(filename)
        except Exception:
            lines = []
        if not lines and filename == self._cell_file:
            lines = [line + "\n" for line in self._cell_lines]
        return lines

    def _typed_line(self, source: SourceText, number: int) -> str | None:
        """The line as it was typed, where line numbers still mean the same after the transformations of IPython."""
        if len(self._cell_lines) != len(source.lines) or not 0 < number <= len(self._cell_lines):
            return None
        return self._cell_lines[number - 1].strip()


def opname_at(code: CodeType, lasti: int) -> str:
    """The instruction at an offset, empty where there is none."""
    bytecode = code.co_code
    while 0 <= lasti < len(bytecode):
        name = dis.opname[bytecode[lasti]]
        if name != "CACHE":
            return name
        lasti -= 2  # `lasti` may stand in the inline cache of the instruction
    return ""


def _function_name(code: CodeType) -> str:
    """``Block.forward``, ``f.<locals>.g``; comprehensions belong to the function around them."""
    name = code.co_qualname
    while name.rpartition(".")[2] in _COMPREHENSIONS:
        name = name.rpartition(".")[0].removesuffix(".<locals>")
    return name or "<module>"


_COMPREHENSIONS = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})
