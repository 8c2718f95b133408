"""`take`: makes the sandbox that works here."""

from __future__ import annotations

from typing import Any, Literal

from jupyter_inplace.rewrite.sandbox.copied import Copy
from jupyter_inplace.rewrite.sandbox.outcome import SandboxUnavailableError
from jupyter_inplace.rewrite.sandbox.snapshot import Snapshot

Backend = Literal["auto", "fork", "spawn"]


def take(
    state: Any, source: str, *, backend: Backend = "auto", force: bool = False, limit_bytes: int = 1 << 30
) -> Snapshot | Copy:
    """Keep the state from before a cell. Call from the main thread, right before the cell's code.

    :param state: the shell that runs the cell, or the dictionary of its names.
    :param source: of the cell; if forking is impossible, the names that it reads are copied.
    :param backend: ``fork``, ``spawn``, or ``auto``, which forks if possible.
    :param force: keep it however large it is.
    :param limit_bytes: nothing is kept if tensors and arrays need more memory than this; at most a quarter of it is copied.
    :raises SandboxUnavailableError: nothing could be kept; the message is one sentence that says why.
    """
    if backend not in ("auto", "fork", "spawn"):
        raise ValueError(f"`backend` is one of auto, fork, spawn, not {backend!r}")
    why_no_fork: SandboxUnavailableError | None = None
    if backend != "spawn":
        try:
            return Snapshot.take(state, limit_bytes=None if force else limit_bytes)
        except SandboxUnavailableError as error:
            if backend == "fork":
                raise
            why_no_fork = error
    try:
        return Copy.take(state, source, limit_bytes=1 << 60 if force else limit_bytes // 4)
    except SandboxUnavailableError as error:
        if why_no_fork is None:
            raise
        raise SandboxUnavailableError(f"{why_no_fork}, and {error}") from None
