"""`Snapshot`: the client side of the forked sandbox."""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jupyter_inplace.rewrite.sandbox import pipe
from jupyter_inplace.rewrite.sandbox.available import check_fork, check_size
from jupyter_inplace.rewrite.sandbox.outcome import Limits, Outcome, SandboxUnavailableError, Status
from jupyter_inplace.rewrite.sandbox.wire import PREPARE, directory_prefix

_GRACE = 5.0  # seconds for the snapshot process to clean up after a worker


class Snapshot:
    """The state of this process at one moment, held by a forked process that runs programs on copies of it.

    Made by `take`, released by `close` or at the end of a ``with`` block. Each `run` is a separate process, so runs neither see
    each other nor touch this process, however they end.
    """

    def __init__(self, process: int, requests: int, replies: int) -> None:
        self._process = process
        self._requests = requests
        self._replies = replies
        self._inbox = pipe.Receiver(replies)
        self._lock = threading.Lock()
        self._closed = False
        self._cancelled = False

    @classmethod
    def take(cls, state: Any, *, limit_bytes: int | None = 1 << 30) -> Snapshot:
        """Fork the snapshot process. Call from the main thread.

        :param state: what runs work on: a dictionary of names, or an object with one as ``user_ns``. It is not copied; the
            fork is the copy.
        :param limit_bytes: refuse if the tensors and arrays of `state` need more memory than this; None: never.
        :raises SandboxUnavailableError: it is impossible here; the message says why.
        """
        check_fork()
        check_size(state, limit_bytes)
        from jupyter_inplace.rewrite.sandbox.keeper import keep  # before the fork; Linux only

        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        parent, randomness = os.getpid(), random.getstate()
        try:
            with warnings.catch_warnings():
                # Python 3.12 and later warn about other threads, but the snapshot process uses no lock that they may hold.
                warnings.simplefilter("ignore", DeprecationWarning)
                process = os.fork()
        except OSError as error:
            for fd in (theirs_in, ours_out, ours_in, theirs_out):
                os.close(fd)
            raise SandboxUnavailableError(f"no process could be forked ({error.strerror})") from None
        if process == 0:
            os.close(ours_out)
            os.close(ours_in)
            keep(theirs_in, theirs_out, parent, state, randomness, limit_bytes or 1 << 40)
        os.close(theirs_in)
        os.close(theirs_out)
        return cls(process, ours_out, ours_in)

    def run(self, target: str, arguments: dict[str, Any] | None = None, limits: Limits | None = None) -> Outcome:
        """Run ``target(state, send, **arguments)`` on a copy of the state and wait for its end. May be called from any thread.

        :param target: ``"package.module:function"``; what it passes to ``send`` becomes a message of the outcome.
        :return: how it ended. Exceptions of the program are not raised here.
        """
        limits = limits or Limits()
        began = time.monotonic()
        with self._lock:
            if self._closed:
                return Outcome(status="cancelled")
            deadline = began + limits.seconds + _GRACE
            try:
                pipe.send(self._requests, (target, arguments or {}, limits))
                return self._collect(began, deadline)
            except (pipe.GoneError, TimeoutError):
                self._end(patience=0.0)
                if self._cancelled:
                    return Outcome(status="cancelled", seconds=time.monotonic() - began)
                return Outcome(status="lost", detail="the snapshot process has ended", seconds=time.monotonic() - began)

    def _collect(self, began: float, deadline: float) -> Outcome:
        worker = pipe.Receiver()
        messages: list[Any] = []
        escapes: dict[str, None] = {}
        done = False
        fault = ""
        while True:
            reply = self._inbox.receive(deadline)
            if reply[0] == "data":
                worker.feed(reply[1])
                for kind, content in worker.whole():
                    if kind == "message":
                        messages.append(content)
                    elif kind == "escape":
                        escapes[content] = None
                    elif kind == "done":
                        done = True
                    else:
                        fault = content
            elif reply[0] == "end":
                status: Status = "finished" if done else "lost" if fault else reply[1]
                detail = "" if done else fault or reply[2]
                return Outcome(
                    status=status,
                    detail=detail,
                    messages=tuple(messages),
                    escapes=tuple(escapes),
                    seconds=time.monotonic() - began,
                )

    def prepare(self, modules: Sequence[str]) -> None:
        """Import library modules into the snapshot once for all runs; they must not be modules of the program."""
        if modules:
            self.run(PREPARE, {"modules": tuple(modules)})

    def interrupt(self) -> None:
        """End a run that is active in another thread; it returns ``cancelled``. The snapshot stays usable."""
        if self._lock.acquire(blocking=False):
            self._lock.release()  # nothing is running
            return
        with contextlib.suppress(ProcessLookupError):
            if not self._closed:
                os.kill(self._process, signal.SIGUSR1)

    def cancel(self) -> None:
        """Release the snapshot and end a run that is active in another thread; it returns ``cancelled``."""
        self._cancelled = True
        with contextlib.suppress(ProcessLookupError):
            if not self._closed:
                os.kill(self._process, signal.SIGTERM)
        self.close()

    def close(self) -> None:
        """Release the snapshot and its memory. Does nothing the second time."""
        with self._lock:
            self._end(patience=_GRACE)

    def _end(self, patience: float) -> None:
        if self._closed:
            return
        self._closed = True
        os.close(self._requests)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGTERM)
        _reap(self._process, patience)
        os.close(self._replies)
        for left in Path(tempfile.gettempdir()).glob(directory_prefix(self._process) + "*"):
            shutil.rmtree(left, ignore_errors=True)  # it was killed before it could clean up

    @property
    def closed(self) -> bool:
        """Whether it was released or lost."""
        return self._closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._end(patience=0.0)


def _reap(process: int, patience: float) -> None:
    """Wait for a process to end, then kill it."""
    try:
        handle = os.pidfd_open(process)
    except OSError:
        handle = -1
    if handle >= 0:
        ended = select.select([handle], [], [], patience)[0]
        os.close(handle)
        if not ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):  # the program has already waited for all of its children
        os.waitpid(process, 0)
