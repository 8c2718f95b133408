"""Requests to a sandbox and their outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["finished", "crashed", "exited", "timeout", "too_large", "lost", "cancelled"]


class SandboxUnavailableError(Exception):
    """No copy of the state can be kept here. The message is one sentence that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one run.

    :param seconds: of wall-clock time.
    :param memory_bytes: beyond what the process holds at the start.
    :param result_bytes: of messages sent back.
    """

    seconds: float = 30.0
    memory_bytes: int = 4 << 30
    result_bytes: int = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of one run.

    :param status: ``finished``, or how the process ended before its work was done.
    :param detail: a few words about it: the signal, the exit status, the error.
    :param messages: what the run sent before it ended, in order.
    :param escapes: attempts to change something outside the sandbox, in words. They were refused.
    :param seconds: wall-clock time, the fork included.
    """

    status: Status
    detail: str = ""
    messages: tuple[Any, ...] = ()
    escapes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether the run reached its end."""
        return self.status == "finished"

    def in_words(self) -> str:
        """How the run ended, as the end of a sentence that begins with what ran."""
        match self.status:
            case "finished":
                return "ran to its end"
            case "crashed":
                return f"crashed with {self.detail}"
            case "exited":
                return f"ended the process with exit status {self.detail}"
            case "timeout":
                return f"did not end within {self.detail}"
            case "too_large":
                return f"gave more results than {self.detail}"
            case "cancelled":
                return "was cancelled"
            case _:
                last = self.detail.strip().rpartition("\n")[2]  # of a traceback, the exception
                return f"was lost: {last}"
