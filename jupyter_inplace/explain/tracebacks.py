"""Tracebacks without our own frames, so that an error looks as it does unwatched."""

from __future__ import annotations

import os
import types

_PACKAGE = __file__.rpartition("explain")[0]
_MODE = os.path.join("jupyter_inplace", "record", "mode.py")
_OPERATORS = os.path.join("torch", "_ops.py")


def hide_own_frames(error: BaseException) -> None:
    """Take our frames out of the traceback of an exception, and of those that it was raised from or holds."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        link.__traceback__ = without_own_frames(link.__traceback__)
        waiting += [link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            waiting += link.exceptions


def without_own_frames(tb: types.TracebackType | None) -> types.TracebackType | None:
    """Splice out, in place, the entries whose code is this package's; returns the first entry that stays."""
    first = _after_own(tb)
    entry = first
    while entry is not None:
        following = _after_own(entry.tb_next)
        if following is not entry.tb_next:
            entry.tb_next = following
        entry = following
    return first if first is not None else tb


def _after_own(tb: types.TracebackType | None) -> types.TracebackType | None:
    """The first entry that is not ours, nor torch's way from our mode into an operator, which is a step more than unwatched."""
    ours = False
    while tb is not None and (_own(tb) or (ours and tb.tb_frame.f_code.co_filename.endswith(_OPERATORS))):
        ours = tb.tb_frame.f_code.co_filename.endswith(_MODE)
        tb = tb.tb_next
    return tb


def _own(tb: types.TracebackType) -> bool:
    return tb.tb_frame.f_code.co_filename.startswith(_PACKAGE)
