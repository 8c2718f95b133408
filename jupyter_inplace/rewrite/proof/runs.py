"""Runs trials in a sandbox, within the time that all proofs of a cell share."""

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
_GRACE = 1.0  # seconds after its time for a run to reach an event and to send what it has


@dataclass(frozen=True, slots=True)
class Run:
    """The result of a trial."""

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
        """The steps of the optimizers."""
        return tuple(event for event in self.events if event.kind == "step")

    @property
    def clean(self) -> bool:
        """Whether it reached its end, or the place where it was stopped, without an exception."""
        return self.ending is not None and self.ending.error is None

    @property
    def stopped(self) -> int | None:
        """The number of rounds after which it was stopped on purpose."""
        return self.ending.stopped if self.ending is not None else None

    @property
    def report(self) -> Report | None:
        """The report of the watch."""
        return self.ending.report if self.ending is not None else None

    @property
    def refusal(self) -> str | None:
        """What the program attempted that a sandbox must refuse, as the end of a sentence; None if nothing."""
        if self.outcome.escapes:
            return self.outcome.escapes[0]
        if self.ending is not None and self.ending.denied:
            return "does something that needs more rights than a copy has"
        return None

    def why_not(self) -> str:
        """Why the run failed, as the end of a sentence that begins with what ran."""
        if self.ending is None:
            return self.outcome.in_words()
        if self.ending.error is not None:
            kind, text = self.ending.error
            first = text.strip().partition("\n")[0].partition(" Hint: ")[0]
            return f"raises {kind}: {textwrap.shorten(first, 240, placeholder=' …')}" if first else f"raises {kind}"
        return "ran to its end"


class Runner:
    """Runs trials one after the other until the time is used up.

    :param seconds: shared by all trials.
    :param each: the maximum for one of them.
    """

    def __init__(self, sandbox: Sandbox, seconds: float, each: float) -> None:
        self._sandbox = sandbox
        self._deadline = time.monotonic() + seconds
        self._each = each
        self.cancelled = False

    @property
    def left(self) -> float:
        """Seconds left for all remaining trials."""
        return self._deadline - time.monotonic()

    def time_for(self, share: float = 1.0) -> float:
        """Seconds available to the next trial."""
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
        """Import once for later runs what this one had to import."""
        if run.ending is not None and run.ending.modules:
            self._sandbox.prepare(run.ending.modules)
