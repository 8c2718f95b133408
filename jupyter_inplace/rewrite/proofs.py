"""Makes and proves the rewrites of one watched cell in a thread of its own."""

from __future__ import annotations

import atexit
import contextlib
import math
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jupyter_inplace.frameworks.companions import rewriting
from jupyter_inplace.report.data import HARMFUL, Fix, Report, Verification
from jupyter_inplace.rewrite.before import Before
from jupyter_inplace.rewrite.verify import verify

if TYPE_CHECKING:
    from jupyter_inplace.rewrite.rewind.rewind import Rewound
    from jupyter_inplace.rewrite.sandbox.outcome import Limits, Outcome

__all__ = ["Proofs"]

_LEAVE = 2.0  # seconds for a thread to end when the interpreter exits


class Proofs:
    """The rewrites of one watched cell while they are made and proved in another thread.

    :param report: of the cell as it ran.
    :param before: the state from before it.
    :param seconds: shared by all proofs.
    :param cell_seconds: how long the cell took.
    :param taken: names of the namespace that the cell runs in.
    """

    def __init__(
        self, report: Report, before: Before, *, seconds: float, cell_seconds: float | None, taken: Collection[str]
    ) -> None:
        assert report.cell is not None
        self._cell = report.cell.source
        self._report = report
        self._before = before
        self._seconds, self._cell_seconds, self._taken = seconds, cell_seconds, frozenset(taken)
        self._changed = threading.Condition()
        self._version = 0
        self._done = False
        #: Set when the remaining proofs are not needed any more.
        self.stopped = False
        self._released = False
        self._followers: list[Callable[[Report], None]] = []
        self._thread = threading.Thread(target=self._work, name="jupyter_inplace proofs", daemon=True)

    @classmethod
    def wanted(cls, report: Report) -> bool:
        """Whether there is something to rewrite."""
        harmful = any(mutation.verdict in HARMFUL for mutation in report.mutations)
        return report.cell is not None and (harmful or bool(rewriting(report)))

    def start(self) -> None:
        """Start. From then on `report` contains the rewrites found so far."""
        atexit.register(self._leave)
        self._thread.start()

    @property
    def report(self) -> Report:
        """The report with the rewrites and proofs so far."""
        return self._report

    @property
    def done(self) -> bool:
        """Whether all proofs are done."""
        return self._done

    def wait(self) -> Report:
        """Wait for every proof. Ctrl+C only cancels the remaining proofs."""
        for _ in self.changes():
            pass
        return self._report

    def changes(self, seconds: float | None = None, every: float = 0.0) -> Iterator[Report]:
        """Yield the report each time it has changed, until every proof is done; Ctrl+C cancels the remaining ones.

        :param seconds: end after this time in any case.
        :param every: minimum of seconds between two reports, except before the last one.
        """
        seen, deadline = 0, math.inf if seconds is None else time.monotonic() + seconds
        while True:
            try:
                self._await(seen, deadline)
                if every:
                    self._await(None, min(deadline, time.monotonic() + every))
            except KeyboardInterrupt:
                self.cancel()
            done = self._done
            if self._version > seen:
                seen = self._version
                yield self._report
            if done or time.monotonic() >= deadline:
                return

    def _await(self, seen: int | None, deadline: float) -> None:
        """Wait for the end, or for a change after `seen`."""
        with self._changed:
            while not self._done and (seen is None or self._version <= seen):
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                self._changed.wait(None if left == math.inf else left)

    def follow(self, follower: Callable[[Report], None]) -> None:
        """Call `follower` in another thread with each future report, or at once if there will be none."""
        with self._changed:
            self._followers.append(follower)
            done = self._done
        if done:
            follower(self._report)

    def cancel(self) -> None:
        """Cancel the remaining proofs."""
        with self._changed:
            self.stopped = True
            if self._done or not self._version:
                return  # if it has not begun it ends by itself, with unverified rewrites
            self._end(tuple(map(_cancelled, self._report.fixes)))
            sandbox = self._before.sandbox
        if sandbox is not None:
            sandbox.interrupt()
        self._tell()

    def release(self) -> None:
        """Release the state from before the cell as soon as the proofs no longer need it."""
        with self._changed:
            self._released = True
            done = self._done
        if done:
            self._before.drop()

    def rewind(self, namespace: dict[str, Any]) -> Rewound:
        """Restore what the cell changed; see `jupyter_inplace.rewrite.rewind.rewind`. Cancels the remaining proofs.

        :raises RewindError: nothing was restored; the message says why.
        """
        from jupyter_inplace.rewrite.rewind.rebound import rebound_names
        from jupyter_inplace.rewrite.rewind.rewind import RewindError, rewind
        from jupyter_inplace.rewrite.sandbox.copied import Copy

        self.cancel()
        sandbox = self._before.sandbox
        if sandbox is None:
            raise RewindError(
                self._before.why_not
                or "the copy of the state from before the cell was let go: another cell was watched"
            )
        if isinstance(sandbox, Copy):
            raise RewindError("the names that the cell reads were copied: what it changed is put back from a fork only")
        done = rewind(sandbox, namespace)
        # Names that the cell rebinds before it reads them need not be restored for its next run: `loss` with its graph.
        rebound = rebound_names(self._cell)
        lost = tuple(item for item in done.not_restored if re.split(r"\W", item.name, maxsplit=1)[0] not in rebound)
        return replace(done, not_restored=lost)

    def _leave(self) -> None:
        self.cancel()
        self._before.drop()
        self._thread.join(_LEAVE)

    def _work(self) -> None:
        note = None
        fixes: tuple[Fix, ...] = ()
        try:
            fixes = verify(
                self._cell,
                self._report,
                _Stoppable(self) if self._before.sandbox is not None else None,
                seconds=self._seconds,
                cell_seconds=self._cell_seconds,
                taken=self._taken,
                unavailable=self._before.untried,
                on_change=self._set,
            )
        except _CancelledError:
            fixes = tuple(map(_cancelled, self._report.fixes))
        except Exception as error:  # noqa: BLE001  said in the report: a fault here is not to fail the person's cell
            from jupyter_inplace.rewrite.syntax.tree import RewriteError

            told = str(error) if isinstance(error, RewriteError) else f"{type(error).__name__}: {error}"
            note = f"no rewrite could be made: {told}"
            fixes = tuple(fix for fix in self._report.fixes if not fix.verification.pending)
        with self._changed:
            if not self._done:
                self._end(fixes, note)
        self._tell()
        atexit.unregister(self._leave)

    def _set(self, fixes: tuple[Fix, ...]) -> None:
        with self._changed:
            if self._done:
                return
            self._report = replace(self._report, fixes=fixes)
        self._tell()

    def _end(self, fixes: tuple[Fix, ...], note: str | None = None) -> None:
        """Mark the end. Call with the lock held."""
        notes = () if note is None else (note,)
        self._report = replace(self._report, fixes=fixes, blind_spots=(*self._report.blind_spots, *notes))
        self._done = True
        if self._released:
            self._before.drop()

    def _tell(self) -> None:
        with self._changed:
            self._version += 1
            self._changed.notify_all()
            followers = list(self._followers)
        for follower in followers:
            with contextlib.suppress(Exception):  # a follower that raises must not end the proofs
                follower(self._report)


class _CancelledError(Exception):
    """The proofs were cancelled."""


class _Stoppable:
    """The sandbox of some proofs until they are cancelled."""

    def __init__(self, proofs: Proofs) -> None:
        self._proofs = proofs

    def run(self, target: str, arguments: dict[str, Any] | None = None, limits: Limits | None = None) -> Outcome:
        sandbox = self._proofs._before.sandbox
        if self._proofs.stopped or sandbox is None:
            raise _CancelledError
        return sandbox.run(target, arguments, limits)

    def prepare(self, modules: Sequence[str]) -> None:
        sandbox = self._proofs._before.sandbox
        if sandbox is not None and not self._proofs.stopped:
            sandbox.prepare(modules)


def _cancelled(fix: Fix) -> Fix:
    if not fix.verification.pending:
        return fix
    return replace(fix, verification=Verification(status="unverified", reason="the proofs were cancelled"))
