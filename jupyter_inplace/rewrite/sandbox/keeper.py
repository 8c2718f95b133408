"""The snapshot process: it holds the state from before the cell, and forks a worker for each run."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import random
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from typing import Any, NoReturn

from jupyter_inplace.rewrite.sandbox import linux
from jupyter_inplace.rewrite.sandbox.isolate import isolate_snapshot
from jupyter_inplace.rewrite.sandbox.outcome import Limits, Status
from jupyter_inplace.rewrite.sandbox.pipe import GoneError, Receiver, send
from jupyter_inplace.rewrite.sandbox.wire import PREPARE, directory_prefix
from jupyter_inplace.rewrite.sandbox.worker import work

_CHUNK = 1 << 20
_PATIENCE = 0.05  # seconds after which an interruption is noticed


def keep(requests: int, replies: int, parent: int, state: Any, randomness: Any, shared_limit: int) -> NoReturn:
    """Answer requests until the parent closes its end or dies. Never returns.

    :param requests: the pipe to read from: ``(target, arguments, limits)``.
    :param replies: the pipe to write to: ``("data", bytes)`` as the worker sends it, then ``("end", status, detail)``.
        Whether the work was finished before the process ended is told by the last message of the worker itself.
    :param state: what runs work on, in its current state.
    :param randomness: the state of Python's random generator before the fork, which reseeds it.
    :param shared_limit: bytes of shared memory that may be copied.
    """
    status = 1
    try:
        linux.die_with_parent(parent)
        linux.adopt_orphans()
        _take_signals()
        collecting = gc.isenabled()
        gc.disable()  # a collection here would only touch, and so copy, memory shared with the parent
        isolate_snapshot({requests, replies}, shared_limit)
        Keeper(requests, replies, state, randomness, collecting=collecting).serve()
        status = 0
    except BaseException:  # noqa: BLE001  nothing may run on into the user's frames above
        status = 1
    finally:
        os._exit(status)


def _import_all(modules: tuple[str, ...]) -> None:
    for module in modules:
        with contextlib.suppress(Exception):  # then each worker tries it itself
            importlib.import_module(module)


def _take_signals() -> None:
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    with contextlib.suppress(AttributeError, ValueError):
        signal.set_wakeup_fd(-1)


class Keeper:
    """Serves one request at a time."""

    def __init__(self, requests: int, replies: int, state: Any, randomness: Any, *, collecting: bool) -> None:
        self._requests = requests
        self._replies = replies
        self._state = state
        self._collecting = collecting
        self._inbox = Receiver(requests)
        self._random = randomness
        self._worker = 0
        self._directory = ""
        self._interrupted = False
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGUSR1, self._interrupt)

    def serve(self) -> None:
        """Answer requests until the other side closes."""
        send(self._replies, ("ready",))
        while True:
            try:
                target, arguments, limits = self._inbox.receive()
            except GoneError:
                return
            if target == PREPARE:
                _import_all(**arguments)
                send(self._replies, ("end", "exited", "0"))
            else:
                self._run(target, arguments, limits)

    def _stop(self, *_signal: Any) -> None:
        self._clean()
        os._exit(0)

    def _interrupt(self, *_signal: Any) -> None:
        self._interrupted = True  # an exception might truncate a message

    def _run(self, target: str, arguments: dict[str, Any], limits: Limits) -> None:
        self._directory = tempfile.mkdtemp(prefix=directory_prefix(os.getpid()))
        results, to_us = os.pipe()
        me = os.getpid()
        self._worker = os.fork()
        if self._worker == 0:
            work(self._state, target, arguments, limits, self._worker_setup(me, to_us, results))
        os.close(to_us)
        try:
            self._interrupted = False
            status, detail = self._relay(results, limits)
        finally:
            os.close(results)
            self._clean()
        send(self._replies, ("end", status, detail))

    def _worker_setup(self, me: int, to_us: int, results: int) -> Callable[[], tuple[int, str]]:
        def set_up() -> tuple[int, str]:
            linux.die_with_parent(me)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
            for fd in (results, self._requests, self._replies):
                os.close(fd)
            random.setstate(self._random)
            if self._collecting:
                gc.freeze()  # keeps the collector from touching, and so copying, older objects page by page
                gc.enable()
            return to_us, self._directory

        return set_up

    def _relay(self, results: int, limits: Limits) -> tuple[Status, str]:
        """Forward what the worker sends until it has ended, or must be killed."""
        deadline = time.monotonic() + limits.seconds
        received = 0
        ended = os.pidfd_open(self._worker)
        try:
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    return "timeout", f"{limits.seconds:.3g} s"
                ready = select.select([results, ended, self._requests], [], [], min(left, _PATIENCE))[0]
                if self._interrupted:
                    return "cancelled", ""
                if self._requests in ready and not self._inbox_alive():
                    self._stop()
                if results in ready:
                    data = os.read(results, _CHUNK)
                    received += len(data)
                    if received > limits.result_bytes:
                        return "too_large", f"{limits.result_bytes >> 20} MiB"
                    if data:
                        self._forward(data)
                        continue
                if ended in ready or results in ready:
                    return self._how_it_ended(deadline)
        finally:
            os.close(ended)

    def _inbox_alive(self) -> bool:
        # Requests come one at a time, so whatever is readable now is the end of the pipe.
        return bool(os.read(self._requests, 1))

    def _forward(self, data: bytes) -> None:
        send(self._replies, ("data", data))

    def _how_it_ended(self, deadline: float) -> tuple[Status, str]:
        while True:
            process, status = os.waitpid(self._worker, os.WNOHANG)
            if process:
                break
            if time.monotonic() > deadline:
                return "timeout", "its time after closing its pipe"
            time.sleep(0.001)
        self._worker = 0
        code = os.waitstatus_to_exitcode(status)
        return ("exited", str(code)) if code >= 0 else ("crashed", signal.Signals(-code).name)

    def _clean(self) -> None:
        """Kill the worker and all its descendants, even detached ones, and reap them."""
        if self._worker:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._worker, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._worker, signal.SIGKILL)
        patience = time.monotonic() + 5
        while time.monotonic() < patience:
            try:
                process, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not process:
                for child in linux.children_of(os.getpid()):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                time.sleep(0.001)
        self._worker = 0
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = ""
