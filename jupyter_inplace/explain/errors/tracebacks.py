"""Tracebacks without our own frames, so that an error looks as it does unwatched."""

from __future__ import annotations

import os
import types

from jupyter_inplace._package import FOLDER

# torch's way from a handler of ours into an operator: a step more than unwatched.
_OPERATORS = os.path.join("torch", "_ops.py")
# What torch puts around a handler that it keeps from being compiled.
_AROUND = (os.path.join("torch", "_compile.py"), os.path.join("torch", "_dynamo", "eval_frame.py"))


def hide_own_frames(error: BaseException | None) -> None:
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
    """Splice out, in place, the entries whose code is this package's, and torch's carriers of them.

    :return: the first entry that stays; the first of all where none would: a fault of our own is to be seen whole.
    """
    entries: list[types.TracebackType] = []
    entry = tb
    while entry is not None:
        entries.append(entry)
        entry = entry.tb_next
    ours = [_file(entry).startswith(FOLDER) for entry in entries]
    kept = [entry for place, entry in enumerate(entries) if not ours[place] and not _carries(entries, ours, place)]
    if not kept:
        return tb
    for entry, following in zip(kept, [*kept[1:], None], strict=True):
        if entry.tb_next is not following:
            entry.tb_next = following
    return kept[0]


def _carries(entries: list[types.TracebackType], ours: list[bool], place: int) -> bool:
    """Whether an entry exists only because of one of ours beside it."""
    file = _file(entries[place])
    if file.endswith(_OPERATORS):
        return place > 0 and ours[place - 1]
    if not file.endswith(_AROUND):
        return False
    while place < len(entries) and _file(entries[place]).endswith(_AROUND):
        place += 1
    return place < len(entries) and ours[place]


def _file(entry: types.TracebackType) -> str:
    return entry.tb_frame.f_code.co_filename
