"""Refuses and reports whatever would change something outside the sandbox: files, connections, programs, signals.

Python's audit events show an attempt where it happens. Landlock, if the kernel offers it, also refuses attempts of C++ code,
for which there are no audit events.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from jupyter_inplace.rewrite.sandbox import linux

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
_SHARED_MEMORY = "/dev/shm"  # noqa: S108  DataLoader workers hand their batches over there

# Audit events that change a path, with the positions of the paths among their arguments.
_CHANGING: dict[str, tuple[int, ...]] = {
    "os.remove": (0,),
    "os.rename": (0, 1),
    "os.rmdir": (0,),
    "os.mkdir": (0,),
    "os.link": (1,),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.utime": (0,),
    "os.setxattr": (0,),
    "os.removexattr": (0,),
    "shutil.rmtree": (0,),
    "shutil.move": (0, 1),
}
_PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn"}


class EscapeError(PermissionError):
    """The sandbox refused an action."""


class Guard:
    """The rules of one run.

    :param directory: the only place that may be written.
    :param kernel_too: also use Landlock, which would block the driver of a device from its files.
    :param report: called with each refused action, in words, before it is refused: the program may swallow the error.
    """

    def __init__(self, directory: str, report: Callable[[str], None], *, kernel_too: bool = True) -> None:
        self._kernel_too = kernel_too
        self._inside = (os.path.realpath(directory), _SHARED_MEMORY)
        self._report = report
        self._busy = False

    def install(self) -> None:
        """Activate the rules until the process ends."""
        sys.addaudithook(self._on_event)
        _guard_torch_save(self)
        if self._kernel_too and sys.platform.startswith("linux"):
            linux.forbid_writes([*self._inside, *_DEVICES])

    def _on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._busy:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITING:
                self.check_path(path, "writes to")
        elif event in _CHANGING:
            for place in _CHANGING[event]:
                self.check_path(arguments[place], "changes")
        elif event in _PROGRAMS:
            self.refuse(f"starts a program ({_program(event, arguments)})")
        elif event.startswith("socket."):
            self._check_socket(event, arguments)
        elif event in ("os.kill", "os.killpg"):
            self._check_kill(event, arguments[0])

    def check_path(self, path: Any, verb: str) -> None:
        """Check that `path` is inside the directory.

        :raises EscapeError: it is outside.
        """
        if isinstance(path, int) or path is None:
            return  # a descriptor: it was checked when it was opened
        self._busy = True
        try:
            name = os.path.realpath(os.fsdecode(path))
        except (TypeError, ValueError):
            return
        finally:
            self._busy = False
        if name in _DEVICES or any(name == place or name.startswith(place + os.sep) for place in self._inside):
            return
        self.refuse(f"{verb} the file {os.fsdecode(path)}")

    def _check_socket(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"):
            sock, address = arguments[0], arguments[1] if len(arguments) > 1 else None
            if getattr(sock, "family", None) == getattr(socket, "AF_UNIX", -1):
                if isinstance(address, str | bytes) and os.fsencode(address)[:1] not in (b"", b"\0"):
                    self.check_path(address, "opens the socket")
                return
            self.refuse(f"opens a network connection ({address})" if address else "opens a network connection")
        elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
            self.refuse(f"asks for the network address of {arguments[0]}")

    def _check_kill(self, event: str, process: int) -> None:
        me = os.getpid()
        ancestor: int | None = abs(process) if process not in (0, -1) else None
        if event == "os.kill" and process == 0:
            return  # the process group of this run
        self._busy = True
        try:
            while ancestor is not None and ancestor > 1:
                if ancestor == me:
                    return
                ancestor = linux.parent_of(ancestor)
        finally:
            self._busy = False
        if process in (0, -1) or linux.parent_of(abs(process)) is not None:
            self.refuse(f"sends a signal to process {process}")

    def refuse(self, act: str) -> None:
        """Report an action and refuse it.

        :raises EscapeError: always.
        """
        self._busy = True
        try:
            self._report(act)
        finally:
            self._busy = False
        raise EscapeError(f"refused while a rewrite is tried on a copy: it {act}")


def _program(event: str, arguments: tuple[Any, ...]) -> str:
    command = arguments[1] if event == "subprocess.Popen" else arguments[0]
    parts = command if isinstance(command, list | tuple) else [command]
    return " ".join(map(_text, parts))[:80]


def _text(part: Any) -> str:
    try:
        return os.fsdecode(part)
    except TypeError:
        return str(part)


def _guard_torch_save(guard: Guard) -> None:
    """Check the path in `torch.save`, which opens its file in C++."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return
    save = torch.save

    def checked(obj: Any, f: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(f, str | os.PathLike):
            guard.check_path(f, "writes to")
        return save(obj, f, *args, **kwargs)

    torch.save = torch.serialization.save = checked
