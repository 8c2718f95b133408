"""The interface of a sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from jupyter_inplace.rewrite.sandbox.outcome import Limits, Outcome


class Sandbox(Protocol):
    """A copy of the state from before the cell: `Snapshot`, or `Copy` of the names that the cell reads."""

    def run(self, target: str, arguments: dict[str, Any] | None = None, limits: Limits | None = None) -> Outcome:
        """Run ``target(state, send, **arguments)`` on a copy of the state."""

    def prepare(self, modules: Sequence[str]) -> None:
        """Import modules once for all future runs."""
