"""Runs programs on a copy of this process's state, such that nothing they do comes back but their results."""

from jupyter_inplace.rewrite.sandbox.copied import Copy
from jupyter_inplace.rewrite.sandbox.outcome import Limits, Outcome, SandboxUnavailableError
from jupyter_inplace.rewrite.sandbox.snapshot import Snapshot
from jupyter_inplace.rewrite.sandbox.take import take

__all__ = ["Copy", "Limits", "Outcome", "SandboxUnavailableError", "Snapshot", "take"]
