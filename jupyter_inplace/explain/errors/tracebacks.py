"""Removes our own frames from tracebacks, so that an error looks as it does without a watch."""

from __future__ import annotations

import os
import types

from jupyter_inplace._package import FOLDER

# The torch frame between our handler and an operator, which is not there without a watch.
_OPERATORS = os.path.join("torch", "_ops.py")
# The torch frame around a handler that is excluded from compilation.
_AROUND = (os.path.join("torch", "_compile.py"), os.path.join("torch", "_dynamo", "eval_frame.py"))


def hide_own_frames(error: BaseException | None) -> None:
    """Remove our frames from the traceback of an exception, and of those that it was raised from or contains."""
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
    """Remove, in place, the entries whose code is this package's, and the torch frames that belong to them.

    :return: the first entry that stays. If none would, all stay: a fault of our own must be seen whole.
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
    """Whether an entry is there only because of one of ours next to it."""
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
