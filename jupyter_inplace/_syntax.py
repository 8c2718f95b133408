"""Python's syntax trees, of sources as people and their generators write them.

CPython 3.11 counts the depth of `ast.parse`'s recursion once for all threads, and trips over it. `ast.unparse` and most of what one
writes over a tree recurse, and a sum of a thousand terms is a tree a thousand deep.
"""

from __future__ import annotations

import ast
import re
import threading
from typing import Any

_lock = threading.Lock()
_ATTEMPTS = 5


def parse(source: str, mode: str = "exec") -> Any:
    """The syntax tree of a source; the same exceptions as from `ast.parse`.

    The lock keeps our own threads apart. The program's may parse too, and then once more is enough: `SystemError` is what the
    miscounting raises (python/cpython#106905).
    """
    for _ in range(_ATTEMPTS):
        try:
            with _lock:
                return ast.parse(source, mode=mode)
        except SystemError:
            continue
    return ast.parse(source, mode=mode)


_DEEP = 100
#: The text of an expression that is too deep for anybody to have typed it as a name.
TOO_DEEP = "..."


def is_deep(node: ast.AST, limit: int = _DEEP) -> bool:
    """Whether a tree is deeper than `limit`: what recurses over trees leaves it alone."""
    level = [node]
    for _ in range(limit):
        level = [child for parent in level for child in ast.iter_child_nodes(parent)]
        if not level:
            return False
    return True


def unparse(node: ast.AST) -> str:
    """The source of a tree as `ast.unparse` writes it, `TOO_DEEP` for one that it cannot write."""
    return TOO_DEEP if is_deep(node) else ast.unparse(node)


_LINE_END = re.compile(r"\r\n|\n|\r")


def source_lines(source: str, *, keepends: bool = False) -> list[str]:
    """The lines of a source as Python counts them: they end at LF, CR LF and CR alone.

    `str.splitlines` also ends them at form feeds, U+2028, U+0085 and others, which may stand in strings and between statements.
    """
    lines = []
    start = 0
    for end in _LINE_END.finditer(source):
        lines.append(source[start : end.end() if keepends else end.start()])
        start = end.end()
    if start < len(source):
        lines.append(source[start:])
    return lines
