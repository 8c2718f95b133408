"""The session that is open on each thread, and what becomes of it in a forked process. Imports no torch."""

from __future__ import annotations

import os
import threading

#: `active.session` is the session of this thread. All watches that are open on the thread share it.
active = threading.local()


def _leave_in_child() -> None:
    """A forked process goes on unwatched: nobody would read its report, and it may open a watch of its own."""
    session = getattr(active, "session", None)
    if session is not None:
        active.session = None
        session.remove()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_in_child)
