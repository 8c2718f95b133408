"""What a snapshot and its process have agreed on."""

from __future__ import annotations

#: The target of a request that asks for imports instead of a run.
PREPARE = ":prepare"


def directory_prefix(keeper: int) -> str:
    """How the names of the private directories begin that a snapshot process makes."""
    return f"jupyter_inplace-{keeper}-"
