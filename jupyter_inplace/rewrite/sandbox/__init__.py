"""Runs programs on a copy of this process's state, such that nothing they do comes back but their results."""

from jupyter_inplace.rewrite.sandbox.outcome import Limits, Outcome, SandboxUnavailableError
from jupyter_inplace.rewrite.sandbox.snapshot import Snapshot

__all__ = ["Limits", "Outcome", "SandboxUnavailableError", "Snapshot"]
