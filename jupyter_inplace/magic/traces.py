"""Our frames do not stand in the user's traceback."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

_OURS = str(Path(__file__).resolve().parents[1])
#: What stands around a dispatch mode's handler: frames that exist only because somebody watches.
_CARRIERS = tuple(
    str(Path("torch", *parts)) for parts in [("_ops.py",), ("_compile.py",), ("_dynamo", "eval_frame.py")]
)


class TraceFilter:
    """For the time of a watch, a shell shows tracebacks without our frames."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._before: Any = None

    def install(self) -> None:
        """Hook the shell's `showtraceback`, once."""
        if self._before is not None:
            return
        show = self._before = self._shell.showtraceback

        def showtraceback(exc_tuple: Any = None, *args: Any, **keywords: Any) -> Any:
            hide_own_frames(exc_tuple[1] if exc_tuple else sys.exc_info()[1])
            return show(exc_tuple, *args, **keywords)

        self._ours = self._shell.showtraceback = showtraceback

    def remove(self) -> None:
        """Put back what was there, unless somebody else has put another hook in its place since."""
        before, self._before = self._before, None
        if before is None or vars(self._shell).get("showtraceback") is not self._ours:
            return
        del self._shell.showtraceback
        if self._shell.showtraceback != before:
            self._shell.showtraceback = before


def hide_own_frames(error: BaseException | None) -> None:
    """Take our frames out of an exception's traceback, and out of those of its causes."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        error = waiting.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        error.__traceback__ = _without_own(error.__traceback__)
        waiting += [error.__cause__, error.__context__]
        if isinstance(error, BaseExceptionGroup):
            waiting += error.exceptions


def _without_own(trace: TracebackType | None) -> TracebackType | None:
    entries = []
    while trace is not None:
        entries.append(trace)
        trace = trace.tb_next
    ours = [_is_file_in(entry, _OURS) for entry in entries]
    kept = [entry for i, entry in enumerate(entries) if not ours[i] and not _carries(entries, ours, i)]
    if not kept or len(kept) == len(entries):
        return entries[0] if entries else None  # all ours: a fault of our own, to be seen whole
    for entry, following in zip(kept, [*kept[1:], None], strict=True):
        entry.tb_next = following
    return kept[0]


def _is_file_in(entry: TracebackType, folder: str) -> bool:
    return entry.tb_frame.f_code.co_filename.startswith(folder)


def _carries(entries: list[TracebackType], ours: list[bool], i: int) -> bool:
    """Whether entry `i` is torch's carrier next to a frame of ours."""
    if not entries[i].tb_frame.f_code.co_filename.endswith(_CARRIERS):
        return False
    return (i > 0 and ours[i - 1]) or (i + 1 < len(ours) and ours[i + 1])
