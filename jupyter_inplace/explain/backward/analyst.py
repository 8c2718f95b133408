"""The analysis that happens while the program runs: the names of tasks at each backward call, and the damage if there may be any.

Verdicts and the report are made later, when the cell is over, from the facts kept here.
"""

from __future__ import annotations

from typing import Any

import torch

from jupyter_inplace.explain.backward import earlier
from jupyter_inplace.explain.backward.call_analysis import CallAnalysis, Reasons
from jupyter_inplace.explain.backward.facts import BackwardFacts
from jupyter_inplace.explain.backward.options import AnalysisOptions
from jupyter_inplace.explain.backward.tasks import starts_of
from jupyter_inplace.explain.channels import discarded_grads, grad_aliases, grad_results, integers
from jupyter_inplace.explain.graph.graph import Graph, node_key
from jupyter_inplace.explain.graph.quiet import quiet
from jupyter_inplace.explain.graph.ran import RanScalars
from jupyter_inplace.explain.names.names import Names, namespaces, user_frame
from jupyter_inplace.record.backward.call import Backward
from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.saved.saved import Saved
from jupyter_inplace.record.session import Session

# Calls at one site whose tasks are looked up in full; later ones keep the names, unless there is damage.
_NAMED_CALLS = 3
_LOST_CALLS = 32  # the same for calls whose gradients were cleared before anything read them


class Analyst:
    """Analyses the backward calls of one session, according to the `options` of the innermost watch."""

    def __init__(self) -> None:
        self.options = AnalysisOptions()
        self.labels: dict[str, str] = {}
        self._sites: dict[Any, tuple[int, Any]] = {}  # by site, the calls there and the tasks of the newest
        self._folded: dict[Any, BackwardFacts] = {}
        self._done: set[tuple[str, int]] = set()  # the keys of the roots of all calls
        self._ran = RanScalars()
        self._current: BackwardFacts | None = None

    def new_window(self) -> None:
        self._sites.clear()
        self._folded.clear()

    def forget_current(self) -> None:
        """Stop explaining error messages."""
        self._current = None

    # --- called by the recorder -----------------------------------------------------------------------------------------------

    def before_backward(self, session: Session, call: Backward) -> None:
        """Right before the engine runs."""
        if call.nested or call.transformed:
            call.facts = BackwardFacts([], call.order, call.site, call.time)
            return
        if call.retain:
            self._ran.add(start.edge for start in starts_of(call))
        if session.exported_memory.reads:
            with quiet(session):
                session.exported_memory.compare(call.site)
        calls, names = self._sites.get(call.site, (0, []))
        reasons = self._reasons(session, call, calls)
        if not self._is_suspect(session, call, reasons, calls):
            self._fold(call, names)
            return
        with quiet(session):
            facts = self._analyse(CallAnalysis(session, call, self._names_at(call), self.options, reasons))
        self._sites[call.site] = (calls + 1, facts.tasks)
        call.facts = self._current = facts

    @staticmethod
    def _reasons(session: Session, call: Backward, calls: int) -> Reasons:
        touched = session.index.touched_live()
        return Reasons(
            touched=touched,
            mixed=session.last_leaf_write > session.graph_floor and session.last_leaf_write > session.first_sequence,
            integers=integers.candidates(session) if session.integers.by_storage else {},
            often=calls >= (_LOST_CALLS if call.site in session.discarded_grads.sites else _NAMED_CALLS),
        )

    def _is_suspect(self, session: Session, call: Backward, reasons: Reasons, calls: int) -> bool:
        """Whether a call has to be analysed, and does not just repeat an earlier one."""
        return bool(
            reasons.touched
            or session.untracked_writes.cuts
            or reasons.integers
            or session.detached.all()
            or session.discarded_grads.cleared
            or not reasons.often
            or reasons.mixed
            or (call.python and (calls < _NAMED_CALLS or session.backward_writes.wrote))
            or session.grad_aliases.wanted
            or self.options.always
        )

    def _fold(self, call: Backward, names: Any) -> None:
        """Fold an uneventful call of a loop into the earlier ones: a training loop of any length leaves one set of facts."""
        facts = self._folded.get(call.site)
        call.folded = facts is not None and facts.tasks is names
        if facts is None or not call.folded:
            facts = self._folded[call.site] = BackwardFacts(names, call.order, call.site, call.time, count=0)
        facts.count_again()
        call.facts = facts

    def after_backward(self, session: Session, call: Backward) -> None:
        if call.leaves and call.accumulate and call.facts is not None:
            grad_aliases.after_backward(session, call.leaves, call.facts.tasks)
        discarded_grads.ended(session, call)
        if len(call.results) > 1:
            grad_results.after_grad(session, call, lambda: self._names_at(call))

    def gradient_overwritten(self, session: Session, t: torch.Tensor, write: Any, before: torch.Tensor) -> None:
        frame = user_frame()
        with quiet(session):
            spaces = namespaces(frame, self.options.space)
            grad_aliases.after_write(session, t, write, lambda: Names(spaces), before)

    def after_failure(self, session: Session, call: Backward, error: BaseException) -> None:
        """Torch itself raised: look for tensors saved before the watch, which do not carry our hooks."""
        if call.facts is None or "modified by an inplace operation" not in str(error) or call.facts.conflicts:
            return
        graph = Graph(start.edge[0] for start in starts_of(call))
        with quiet(session):
            earlier.add_conflicts(session, graph, self._names_at(call), call.facts)
        self._current = facts = call.facts
        if facts.conflicts and self.options.wording is not None and error.args and isinstance(error.args[0], str):
            first = facts.conflicts[0]
            seen = [write for write, _ in first.writes if write.site is not None]
            more = self.options.wording.sentence(seen, first.node, first.saved_as, first.saved_site)
            if more and more not in error.args[0]:  # already added by a call nested in this one
                error.args = (f"{error.args[0]}\n\n{more}", *error.args[1:])

    def word(self, saved: Saved) -> str:
        """The text to add to torch's message about `saved`, from the analysis made right before the engine ran."""
        if self.options.wording is None:
            return ""
        for conflict in self._current.conflicts if self._current is not None else ():
            if conflict.saved_order == saved.order:
                return self.options.wording.sentence(
                    [w for w, _ in conflict.writes], conflict.node, conflict.saved_as, conflict.saved_site
                )
        return ""

    # --- called when the watch is over ----------------------------------------------------------------------------------------

    def pending(self, session: Session, name: str, root: torch.Tensor, spaces: Names) -> BackwardFacts | None:
        """What a backward of `root`, still alive at the end of the cell, would meet; None if nothing it saved was written."""
        node = root.grad_fn
        if node is None or node_key(node) in self._done or node_key(node) in self._ran:
            return None
        touched = session.index.touched_live()
        if not touched and not session.untracked_writes.cuts:
            return None
        call = Backward(session.order, session.seconds(), None)
        call.roots, call.grads = (root,), (torch.ones_like(root),)
        call.sequence = private.peek_sequence_nr()
        with quiet(session):
            facts = self._analyse(CallAnalysis(session, call, spaces, self.options, Reasons(touched), root_is=name))
        facts.set_pending()
        return facts if facts.conflicts or facts.cuts else None

    def _analyse(self, analysis: CallAnalysis) -> BackwardFacts:
        self._done |= analysis.roots
        return analysis.run()

    def _names_at(self, call: Backward) -> Names:
        return Names(namespaces(call.frame, self.options.space))
