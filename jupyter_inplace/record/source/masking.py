"""IPython's own lines (``%magic``, ``!command``, ``name?``) put out of the way of a Python parser."""

from __future__ import annotations

import ast
import re

from jupyter_inplace._syntax import parse

__all__ = ["masked", "parsed"]

_MAGIC = re.compile(r"(?P<indent>\s*)(?:%%?|!!?|\?{1,2}|[,;/](?=\S))(?P<rest>.*)")
_HELP = re.compile(r"(?P<indent>\s*)[%\w.*\[\]'\"]+\?{1,2}\s*(?:#.*)?")
_ASSIGNED = re.compile(r"(?P<target>\s*[^=!%]+=\s*)[%!](?P<rest>.*)")
#: Magics that run the Python code behind them, once, in the user's namespace; with their options.
_RUNS_CODE = re.compile(r"(?:time|prun)\s+(?:-\w+\s+)*(?P<code>\S.*)")


def masked(source: str) -> str:
    """A cell's source with its IPython lines replaced by Python of the same line numbers.

    ``%time x.mul_(2)`` becomes ``x.mul_(2)``, other magics ``pass``. Source that is no Python even so is returned as
    far as it got.
    """
    return _attempt(source)[0]


def parsed(source: str) -> ast.Module | None:
    """The syntax tree of a cell with IPython's lines masked, None where it does not parse."""
    return _attempt(source)[1]


def _attempt(source: str) -> tuple[str, ast.Module | None]:
    lines = source.split("\n")
    for _ in range(len(lines) + 1):  # each round takes one line away
        text = "\n".join(lines)
        try:
            return text, parse(text)
        except SyntaxError as error:
            if error.lineno is None or not _mask(lines, error.lineno - 1):
                break
        except (ValueError, RecursionError, MemoryError):  # null bytes, too deep
            break
    return "\n".join(lines), None


def _mask(lines: list[str], index: int) -> bool:
    """Mask the line where the parser stopped, with its continuation lines; False where it is none of IPython's."""
    if not 0 <= index < len(lines):
        return False
    line = lines[index]
    if match := _MAGIC.fullmatch(line):
        code = _RUNS_CODE.fullmatch(match["rest"].strip())
        new = match["indent"] + (code["code"] if code and _is_python(code["code"]) else "pass")
    elif match := _HELP.fullmatch(line):
        new = match["indent"] + "pass"
    elif match := _ASSIGNED.fullmatch(line):
        code = _RUNS_CODE.fullmatch(match["rest"].strip())
        new = match["target"] + (code["code"] if code and _is_python(code["code"]) else "None")
    else:
        return False
    while lines[index].endswith("\\") and index + 1 < len(lines):
        lines[index], index = new, index + 1
        new = ""
    lines[index] = new
    return True


def _is_python(code: str) -> bool:
    try:
        parse(code)
    except (SyntaxError, ValueError):
        return False
    return True
