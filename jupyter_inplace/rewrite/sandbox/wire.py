"""Conventions between a snapshot and its process."""

from __future__ import annotations

#: The target of a request that asks for imports instead of a run.
PREPARE = ":prepare"


def directory_prefix(keeper: int) -> str:
    """The prefix of the names of the private directories that a snapshot process makes."""
    return f"jupyter_inplace-{keeper}-"
