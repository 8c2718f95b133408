"""`Copy`: the sandbox for processes that cannot be forked. It keeps a copy of the names that the cell reads."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from jupyter_inplace.rewrite.sandbox.outcome import Limits, Outcome, Status
from jupyter_inplace.rewrite.sandbox.payload import Payload, pack
from jupyter_inplace.rewrite.sandbox.pipe import frame

_START = 120.0  # seconds for a new process to import torch, even on a busy machine


class Copy:
    """A copy of the names that a cell reads, and a process that runs programs on further copies of them.

    Works on every platform and device. Unlike `Snapshot` it needs names that can be pickled, and its process is reused for the
    next run if the last one left it in order.
    """

    def __init__(self, payload: Payload) -> None:
        self._payload = payload
        self._process: _Process | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._cancelled = False

    @classmethod
    def take(cls, state: Any, source: str, *, limit_bytes: int = 256 << 20) -> Copy:
        """Copy the names of `state` that `source` reads; no process is started before the first run.

        :param limit_bytes: of tensors and arrays.
        :raises SandboxUnavailableError: they are too large, or one of the names cannot be copied.
        """
        return cls(pack(state, source, limit_bytes))

    def run(self, target: str, arguments: dict[str, Any] | None = None, limits: Limits | None = None) -> Outcome:
        """Run ``target(state, send, **arguments)`` on a copy of the names; see `Snapshot.run`."""
        limits = limits or Limits()
        with self._lock:
            if self._closed:
                return Outcome(status="cancelled")
            if self._process is None or not self._process.alive:
                self._process = _Process(self._payload)
                self._process.wait_until_ready()
            began = time.monotonic()
            outcome = self._process.run(target, arguments or {}, limits, began)
            interrupted = self._process.interrupted
            if not self._process.in_order:
                self._process.end()
                self._process = None
            return Outcome(status="cancelled") if self._cancelled or interrupted else outcome

    def prepare(self, modules: Sequence[str]) -> None:
        """Import these modules in every process that is started from now on."""
        self._payload = replace(self._payload, modules=(*self._payload.modules, *modules))

    def interrupt(self) -> None:
        """End a run that is active in another thread; it returns ``cancelled``. The copy stays usable."""
        if self._lock.acquire(blocking=False):
            self._lock.release()  # nothing is running
            return
        process = self._process
        if process is not None:
            process.interrupted = True
            process.kill()

    def cancel(self) -> None:
        """Release the copy and end a run that is active in another thread; it returns ``cancelled``."""
        self._cancelled = True
        while not self._lock.acquire(timeout=0.05):
            process = self._process
            if process is not None:
                process.kill()
        self._lock.release()
        self.close()

    def close(self) -> None:
        """Release the copy and its process."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.end()
                self._process = None

    @property
    def closed(self) -> bool:
        """Whether it was released."""
        return self._closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class _Process:
    """A spawned process, and a thread that reads its messages."""

    def __init__(self, payload: Payload) -> None:
        self._directory = tempfile.mkdtemp(prefix="jupyter_inplace-")
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "jupyter_inplace.rewrite.sandbox.spawned", self._directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=os.name == "posix",
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join(_importable())},
        )
        self._said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        self._tell(payload)
        #: Whether it may be used for another run.
        self.in_order = False
        self.interrupted = False

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def wait_until_ready(self) -> None:
        """Wait until it has imported torch and loaded the copy."""
        with contextlib.suppress(queue.Empty):
            self.in_order = self._hear(time.monotonic() + _START) == ("ready", None)

    def run(self, target: str, arguments: dict[str, Any], limits: Limits, began: float) -> Outcome:
        deadline = time.monotonic() + _START
        messages: list[Any] = []
        escapes: dict[str, None] = {}
        status: Status = "lost"
        detail = ""
        if not self.in_order:
            return Outcome(status="lost", detail="a new process could not be started")
        self._tell((target, arguments, limits))
        while True:
            try:
                kind, content = self._hear(deadline)
            except queue.Empty:
                status, detail = "timeout", f"{limits.seconds:.3g} s"
                break
            if kind == "begun":  # the names are loaded
                deadline = time.monotonic() + limits.seconds
            elif kind == "message":
                messages.append(content)
            elif kind == "escape":
                escapes[content] = None
            elif kind in ("done", "left"):
                status = "finished"
                break
            elif kind == "fault":
                detail = content
                break
            elif kind == "gone":
                status, detail = self._how_it_ended()
                break
        self.in_order = kind == "done" and status == "finished"
        return Outcome(
            status=status,
            detail=detail,
            messages=tuple(messages),
            escapes=tuple(escapes),
            seconds=time.monotonic() - began,
        )

    def _tell(self, message: Any) -> None:
        assert self._popen.stdin is not None
        with contextlib.suppress(OSError):
            self._popen.stdin.write(frame(message))
            self._popen.stdin.flush()

    def _hear(self, deadline: float) -> Any:
        return self._said.get(timeout=max(0.0, deadline - time.monotonic()))

    def _listen(self) -> None:
        assert self._popen.stdout is not None
        with contextlib.suppress(EOFError, OSError, ValueError, pickle.UnpicklingError):
            while True:
                header = self._popen.stdout.read(8)
                if len(header) < 8:
                    break
                self._said.put(pickle.loads(self._popen.stdout.read(int.from_bytes(header, sys.byteorder))))  # noqa: S301
        self._said.put(("gone", None))

    def _how_it_ended(self) -> tuple[Status, str]:
        try:
            code = self._popen.wait(5)
        except subprocess.TimeoutExpired:
            return "lost", "it closed its pipe"
        if code < 0:
            return "crashed", signal.Signals(-code).name
        return "exited", str(code)

    def kill(self) -> None:
        """Kill it with all its descendants."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "posix":
                os.killpg(self._popen.pid, signal.SIGKILL)
            else:
                self._popen.kill()

    def end(self) -> None:
        """End it and remove what it left behind."""
        self.kill()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def _importable() -> list[str]:
    """The path on which the new process finds this package, however it was imported here."""
    package = __file__.rpartition("jupyter_inplace")[0]
    return [os.path.normpath(package), *filter(None, [os.environ.get("PYTHONPATH")])]
