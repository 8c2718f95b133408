"""Checks whether a snapshot can be forked here."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from jupyter_inplace.rewrite.sandbox.outcome import SandboxUnavailableError
from jupyter_inplace.rewrite.sandbox.reach import bytes_held


def check_fork() -> None:
    """Check that this process can be forked and that the copy can run backward.

    :raises SandboxUnavailableError: it cannot.
    """
    if not sys.platform.startswith("linux") or not hasattr(os, "pidfd_open"):
        raise SandboxUnavailableError("a snapshot of the process is kept on Linux only")
    if threading.current_thread() is not threading.main_thread():
        raise SandboxUnavailableError("the cell does not run in the main thread")
    if "tensorflow" in sys.modules:
        # Its threads hold locks on which the copy would hang.
        raise SandboxUnavailableError("a process with TensorFlow in it cannot be copied as it stands")
    device = visible_device()
    if device:
        # The first backward starts a thread for each visible device, and a backward in a fork would hang waiting for them.
        raise SandboxUnavailableError(f"a process that sees {device} cannot be copied")


def visible_device() -> str | None:
    """The name of an accelerator that torch sees; None if there is none, or without torch."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return None
    for name, built in (
        ("cuda", torch.version.cuda or torch.version.hip),
        ("xpu", getattr(torch.version, "xpu", None)),
    ):
        module = getattr(torch, name)
        if built and (module.is_initialized() or module.device_count() > 0):
            return "a CUDA device" if name == "cuda" else "an XPU device"
    return None


def check_size(state: Any, limit_bytes: int | None) -> None:
    """Check that the tensors and arrays that `state` reaches are small enough to be copied page by page.

    :raises SandboxUnavailableError: they are not.
    """
    if limit_bytes is None:
        return
    size = bytes_held(state)
    if size > limit_bytes:
        raise SandboxUnavailableError(
            f"the tensors from before the cell hold {_text(size)}, "
            f"more than the {_text(limit_bytes)} up to which a copy is kept"
        )


def _text(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"
