"""Trials made in a sandbox, within the time that all proofs of a cell share."""

from __future__ import annotations

import textwrap
import time
from dataclasses import dataclass

from jupyter_inplace.report.data import Report
from jupyter_inplace.rewrite.proof.events import Ending, Event
from jupyter_inplace.rewrite.proof.trial import Trial
from jupyter_inplace.rewrite.sandbox.outcome import Limits, Outcome
from jupyter_inplace.rewrite.sandbox.sandbox import Sandbox

_TARGET = "jupyter_inplace.rewrite.proof.trial:run"
_GRACE = 1.0  # seconds that a run gets to come to an event, and to send what it has, after its time


@dataclass(frozen=True, slots=True)
class Run:
    """What became of a trial."""

    trial: Trial
    outcome: Outcome
    events: tuple[Event, ...]
    ending: Ending | None

    @property
    def calls(self) -> tuple[Event, ...]:
        """The calls of the autograd engine."""
        return tuple(event for event in self.events if event.kind != "step")

    @property
    def steps(self) -> tuple[Event, ...]:
        """The optimizers' steps."""
        return tuple(event for event in self.events if event.kind == "step")

    @property
    def clean(self) -> bool:
        """Whether it came to its end, or to where it was stopped, and raised nothing."""
        return self.ending is not None and self.ending.error is None

    @property
    def stopped(self) -> int | None:
        """The rounds after which it was stopped on purpose."""
        return self.ending.stopped if self.ending is not None else None

    @property
    def report(self) -> Report | None:
        """The watch's report."""
        return self.ending.report if self.ending is not None else None

    @property
    def refusal(self) -> str | None:
        """What the program attempted that a sandbox cannot hold, as the end of a sentence; None without any."""
        if self.outcome.escapes:
            return self.outcome.escapes[0]
        if self.ending is not None and self.ending.denied:
            return "does something that needs more rights than a copy has"
        return None

    def why_not(self) -> str:
        """Why the run did not end well, as the end of a sentence that begins with what ran."""
        if self.ending is None:
            return self.outcome.in_words()
        if self.ending.error is not None:
            kind, text = self.ending.error
            first = text.strip().partition("\n")[0].partition(" Hint: ")[0]
            return f"raises {kind}: {textwrap.shorten(first, 240, placeholder=' …')}" if first else f"raises {kind}"
        return "ran to its end"


class Runner:
    """Makes trials one after the other until the time is used up.

    :param seconds: that all trials share.
    :param each: the most that one of them gets.
    """

    def __init__(self, sandbox: Sandbox, seconds: float, each: float) -> None:
        self._sandbox = sandbox
        self._deadline = time.monotonic() + seconds
        self._each = each
        self.cancelled = False

    @property
    def left(self) -> float:
        """Seconds left for all that is still to be tried."""
        return self._deadline - time.monotonic()

    def time_for(self, share: float = 1.0) -> float:
        """Seconds that the next trial may take."""
        return max(0.2, min(self._each, self.left * share))

    def make(self, trial: Trial) -> Run:
        """Run a trial."""
        limits = Limits(seconds=trial.stop_seconds + _GRACE)
        outcome = self._sandbox.run(_TARGET, {"trial": trial}, limits)
        self.cancelled = self.cancelled or outcome.status == "cancelled"
        events = tuple(message for message in outcome.messages if isinstance(message, Event))
        ending = next((message for message in outcome.messages if isinstance(message, Ending)), None)
        return Run(trial, outcome, events, ending)

    def prepare(self, run: Run) -> None:
        """Spare later runs what this one had to import."""
        if run.ending is not None and run.ending.modules:
            self._sandbox.prepare(run.ending.modules)
