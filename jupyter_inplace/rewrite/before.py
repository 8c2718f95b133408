"""The state from before a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jupyter_inplace.rewrite.sandbox.copied import Copy
    from jupyter_inplace.rewrite.sandbox.snapshot import Snapshot

__all__ = ["LIMIT_BYTES", "Before"]

#: Bytes of tensors and arrays above which no state is kept unless asked for.
LIMIT_BYTES = 1 << 30


class Before:
    """The state from before a cell, or why it could not be kept: `why_not`."""

    def __init__(self, sandbox: Snapshot | Copy | None, why_not: str = "") -> None:
        self.sandbox = sandbox
        self.why_not = why_not

    @classmethod
    def keep(cls, state: Any, source: str, *, force: bool = False) -> Before:
        """Keep the current state. Call from the main thread, right before the cell runs.

        :param state: the shell that runs the cell, or the dictionary of its names.
        :param source: of the cell.
        :param force: keep it whatever its size.
        """
        from jupyter_inplace.rewrite.sandbox.outcome import SandboxUnavailableError
        from jupyter_inplace.rewrite.sandbox.take import take

        try:
            _bring()
            return cls(take(state, source, force=force, limit_bytes=LIMIT_BYTES))
        except SandboxUnavailableError as error:
            return cls(None, str(error))
        except Exception as error:  # noqa: BLE001  said with each rewrite: the cell runs all the same
            return cls(None, repr(error))

    @classmethod
    def nothing(cls, why_not: str) -> Before:
        """Do not keep a state; `why_not` says why."""
        return cls(None, why_not)

    @property
    def untried(self) -> str:
        """What the proof of each rewrite says if no state was kept."""
        return f"not tried: {self.why_not}" if self.why_not else ""

    def drop(self) -> None:
        """Release the state."""
        sandbox, self.sandbox = self.sandbox, None
        if sandbox is not None:
            sandbox.cancel()


def _bring() -> None:
    """Do once here what every run would repeat: the imports, and excluding them from Dynamo."""
    import jupyter_inplace.explain.window
    import jupyter_inplace.rewrite.proof.trial  # noqa: F401
    from jupyter_inplace.record.base.dynamo import keep_out

    keep_out()
