"""Tracebacks without our own frames, so that an error looks as it does unwatched."""

from __future__ import annotations

import types

_PACKAGE = __file__.rpartition("explain")[0]


def without_own_frames(tb: types.TracebackType | None) -> types.TracebackType | None:
    """Splice out, in place, the entries whose code is this package's; returns the first entry that stays."""
    first = tb
    while first is not None and _own(first):
        first = first.tb_next
    entry = first
    while entry is not None:
        following = entry.tb_next
        while following is not None and _own(following):
            following = following.tb_next
        if following is not entry.tb_next:
            entry.tb_next = following
        entry = following
    return first if first is not None else tb


def _own(tb: types.TracebackType) -> bool:
    return tb.tb_frame.f_code.co_filename.startswith(_PACKAGE)
