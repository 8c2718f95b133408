"""The state from before a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jupyter_inplace.rewrite.sandbox.copied import Copy
    from jupyter_inplace.rewrite.sandbox.snapshot import Snapshot

__all__ = ["LIMIT_BYTES", "Before"]

#: Bytes of tensors and arrays above which no state is kept, unless somebody asks for it.
LIMIT_BYTES = 1 << 30


class Before:
    """The state from before a cell, or why it could not be kept.

    :param why_not: what is said with each rewrite that is not tried for want of the state.
    :param reason: the same as a clause, to be put into another sentence; `why_not` where it is not given.
    """

    def __init__(self, sandbox: Snapshot | Copy | None, why_not: str = "", reason: str | None = None) -> None:
        self.sandbox = sandbox
        self.why_not = why_not
        self.reason = why_not if reason is None else reason

    @classmethod
    def keep(cls, state: Any, source: str, *, force: bool = False) -> Before:
        """Keep the state as it is now. Call from the main thread, right before the cell runs.

        :param state: the shell that runs the cell, or the dictionary of its names.
        :param source: of the cell.
        :param force: whatever its size.
        """
        from jupyter_inplace.rewrite.sandbox.outcome import SandboxUnavailableError
        from jupyter_inplace.rewrite.sandbox.take import take

        try:
            _bring()
            return cls(take(state, source, force=force, limit_bytes=LIMIT_BYTES))
        except SandboxUnavailableError as error:
            return cls.untried(str(error))
        except Exception as error:  # noqa: BLE001  said with each rewrite: the cell runs all the same
            return cls.untried(repr(error))

    @classmethod
    def nothing(cls, why_not: str) -> Before:
        """No state is kept; `why_not` says why."""
        return cls(None, why_not)

    @classmethod
    def untried(cls, reason: str) -> Before:
        """No state is kept, so that no rewrite is tried."""
        return cls(None, f"not tried: {reason}", reason)

    def drop(self) -> None:
        """Let the state go."""
        sandbox, self.sandbox = self.sandbox, None
        if sandbox is not None:
            sandbox.cancel()


def _bring() -> None:
    """Do here, once, what every run would do again: the imports, and the marks that keep Dynamo out of them."""
    import jupyter_inplace.explain.window
    import jupyter_inplace.rewrite.proof.trial  # noqa: F401
    from jupyter_inplace.record.base.dynamo import keep_out

    keep_out()
