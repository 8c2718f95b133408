"""One run: a process that isolates itself, calls the target, sends the results, and ends."""

from __future__ import annotations

import importlib
import os
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from jupyter_inplace.rewrite.sandbox.guard import Guard
from jupyter_inplace.rewrite.sandbox.outcome import Limits
from jupyter_inplace.rewrite.sandbox.pipe import GoneError, send


class Sender:
    """Called by a target to send its messages."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._process = os.getpid()

    def __call__(self, message: Any) -> None:
        """Send a message."""
        self.tell("message", message)

    def tell(self, kind: str, content: Any = None) -> None:
        """Send a message of another kind: ``escape``, ``done``."""
        if os.getpid() != self._process:
            os._exit(0)  # the program forked, and this is its child
        send(self._fd, (kind, content))

    def finish(self) -> NoReturn:
        """End the process wherever the program is: the work is done."""
        self.tell("done")
        os._exit(0)


def work(
    state: Any, target: str, arguments: dict[str, Any], limits: Limits, set_up: Callable[[], tuple[int, str]]
) -> NoReturn:
    """Run ``target(state, send, **arguments)`` in this process and end it. Never returns.

    :param target: ``"package.module:function"``.
    :param set_up: returns the pipe to write to and the private directory.
    """
    fd = -1
    try:
        os.setpgid(0, 0)
        fd, directory = set_up()
        from jupyter_inplace.rewrite.sandbox.isolate import isolate_worker  # Linux only

        sender = Sender(fd)
        isolate_worker({fd}, directory, limits.memory_bytes)
        function = resolve(target)
        Guard(directory, lambda act: sender.tell("escape", act)).install()
        function(state, sender, **arguments)
        sender.finish()
    except GoneError:
        pass
    except BaseException:  # noqa: BLE001  the target handles what the program raises: this is our own fault
        _last_words(fd)
    finally:
        os._exit(0)


def _last_words(fd: int) -> None:
    try:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        send(fd, ("fault", traceback.format_exc(limit=-3)[-2000:]))
    except BaseException:  # noqa: BLE001  nothing is left to be said
        pass


def resolve(target: str) -> Callable[..., None]:
    """The function that ``"package.module:function"`` names."""
    module, _, name = target.partition(":")
    function: Callable[..., None] = getattr(importlib.import_module(module), name)
    return function
