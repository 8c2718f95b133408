"""The process behind `Copy`: loads the names again for each run."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import random
import sys
import traceback
from typing import Any, BinaryIO, NoReturn

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.rewrite.sandbox.guard import Guard
from jupyter_inplace.rewrite.sandbox.outcome import Limits
from jupyter_inplace.rewrite.sandbox.payload import Payload
from jupyter_inplace.rewrite.sandbox.pipe import frame
from jupyter_inplace.rewrite.sandbox.private import use_directory
from jupyter_inplace.rewrite.sandbox.worker import resolve


class PipeSender:
    """Called by a target to send its messages."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe
        self._process = os.getpid()

    def __call__(self, message: Any) -> None:
        """Send a message."""
        self.tell("message", message)

    def tell(self, kind: str, content: Any = None) -> None:
        """Send a message of another kind: ``escape``, ``done``."""
        if os.getpid() != self._process:
            os._exit(0)  # the program forked, and this is its child
        self._pipe.write(frame((kind, content)))
        self._pipe.flush()

    def finish(self) -> NoReturn:
        """End the run wherever the program is; the process cannot be reused."""
        self.tell("left")
        os._exit(0)


def main(directory: str) -> None:
    """Serve requests until the parent closes its end."""
    commands = os.fdopen(os.dup(0), "rb")
    sender = PipeSender(os.fdopen(os.dup(1), "wb"))
    _cut_off(directory)
    payload: Payload = _read(commands)
    sys.path[:] = payload.path
    import torch

    sys.dont_write_bytecode = True
    for module in payload.modules:
        with contextlib.suppress(Exception):  # then the run imports it, or fails
            importlib.import_module(module)
    Guard(directory, lambda act: sender.tell("escape", act), kernel_too=not _has_device(torch)).install()
    sender.tell("ready")
    while True:
        try:
            target, arguments, limits = _read(commands)
        except EOFError:
            return
        _limit_memory(limits)
        try:
            state = payload.load()
            function = resolve(target)
            sender.tell("begun")
            function(_in_shell(state) if payload.in_shell else state, sender, **arguments)
        except BaseException:  # noqa: BLE001  the target handles what the program raises: this is our own fault
            sender.tell("fault", traceback.format_exc(limit=-3)[-2000:])
            os._exit(1)
        sender.tell("done" if _in_order(torch) else "left")


def _cut_off(directory: str) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    use_directory(directory)


def _limit_memory(limits: Limits) -> None:
    if sys.platform.startswith("linux"):
        from jupyter_inplace.rewrite.sandbox.isolate import limit_memory

        limit_memory(limits.memory_bytes)


def _read(pipe: BinaryIO) -> Any:
    header = pipe.read(8)
    if len(header) < 8:
        raise EOFError
    return pickle.loads(pipe.read(int.from_bytes(header, sys.byteorder)))  # noqa: S301  the asking process wrote it


def _has_device(torch: Any) -> bool:
    return bool(
        torch.cuda.is_available() or (getattr(torch.backends, "mps", None) and torch.backends.mps.is_available())
    )


def _in_shell(namespace: dict[str, Any]) -> Any:
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    configuration = Config()
    configuration.HistoryManager.enabled = False
    InteractiveShell.clear_instance()
    state = random.getstate()
    shell = InteractiveShell.instance(config=configuration, user_ns=namespace)
    random.setstate(state)
    return shell


def _in_order(torch: Any) -> bool:
    """Whether the program left the settings of the process unchanged."""
    with contextlib.suppress(AttributeError):
        if private.len_dispatch_stack() or private.top_saved_tensors_hooks() is not None:
            return False
    return bool(torch.is_grad_enabled() and torch.get_default_dtype() is torch.float32)


if __name__ == "__main__":
    main(sys.argv[1])
