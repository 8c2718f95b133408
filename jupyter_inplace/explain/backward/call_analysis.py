"""The analysis of one backward call, right before the engine runs: its tasks, the damage, and what to follow while it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from jupyter_inplace.explain.backward.conflicts import without_numbers
from jupyter_inplace.explain.backward.damage import Damage, Suspects
from jupyter_inplace.explain.backward.facts import BackwardFacts
from jupyter_inplace.explain.backward.mixes import find_mixes
from jupyter_inplace.explain.backward.options import AnalysisOptions
from jupyter_inplace.explain.backward.task_graph import TaskGraph
from jupyter_inplace.explain.backward.tasks import starts_of, tasks_of, wanted_tasks
from jupyter_inplace.explain.channels import checkpoints, detached, discarded_grads, grad_aliases, untracked_writes
from jupyter_inplace.explain.channels.backward_writes import GradientsInFlight
from jupyter_inplace.explain.graph.graph import Graph, node_key
from jupyter_inplace.explain.graph.leaves import leaf_targets
from jupyter_inplace.explain.graph.reading import ReferenceReading
from jupyter_inplace.explain.graph.split import RootPart
from jupyter_inplace.explain.names.names import Names
from jupyter_inplace.record.backward.call import Backward
from jupyter_inplace.record.channels.integers import IntegerWrite
from jupyter_inplace.record.dispatch.other_modes import COMPILED
from jupyter_inplace.record.saved.reading import set_reading
from jupyter_inplace.record.saved.saved import Saved
from jupyter_inplace.record.session import Session


@dataclasses.dataclass(frozen=True)
class Reasons:
    """Why a backward call is looked at, known before its graph is walked.

    :param touched: live saved tensors whose storage was written.
    :param mixed: a leaf was written that a graph still alive may read.
    :param integers: saved integer tensors, each with the writes that came before it was saved.
    :param often: so many calls were seen at this place that gradients are followed only if some were lost there before.
    """

    touched: Sequence[Saved]
    mixed: bool = False
    integers: Mapping[Saved, list[IntegerWrite]] = dataclasses.field(default_factory=dict)
    often: bool = False


class CallAnalysis:
    """Analyses one backward call.

    :param root_is: the name of the single root of a call that has not been made; None for a call about to run.
    """

    def __init__(
        self,
        session: Session,
        call: Backward,
        names: Names,
        options: AnalysisOptions,
        reasons: Reasons,
        root_is: str | None = None,
    ) -> None:
        self._session, self._call, self._options, self._reasons = session, call, options, reasons
        self._starts = starts_of(call)
        self._runs = root_is is None
        graph = Graph(start.edge[0] for start in self._starts)
        # Saved tensors of another graph (of a cell that raised, for example) do not matter to this call.
        self._touched = [saved for saved in reasons.touched if graph.may_hold(saved.sequence)]
        parts = self._parts(graph, names, root_is)
        self._untracked = untracked_writes.find(
            session, graph, [start.edge[0] for start in self._starts], parts, call.sequence
        )
        meant = graph if self._untracked is None else self._untracked[0]
        self._tasks = TaskGraph(session, graph, parts, leaf_targets(meant, call.inputs, names), names)
        self._lost = detached.find(graph, session.detached.all()) if session.detached.reads else []
        self.facts = BackwardFacts(list(dict.fromkeys(task for task, _ in parts)), call.order, call.site, call.time)

    @property
    def roots(self) -> set[tuple[str, int]]:
        """The keys of the nodes that the call and its tasks start from."""
        starts = (start.edge[0] for start in self._starts)
        return {node_key(node) for node in (*starts, *(part.edge[0] for _, part in self._tasks.parts))}

    def run(self) -> BackwardFacts:
        """Do the analysis."""
        suspects = self._suspects()
        if self._wants_numbers(suspects):
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()  # the walk runs on this stream, whatever stream the forward used
            Damage(self._tasks, suspects, self.facts).run()
            detached.mark(self._tasks, self._lost, self.facts)
        else:
            self._without_numbers(suspects)
        if self._runs:
            self._follow_gradients()
        self._look_in_flight()
        self._add_notes()
        if self._touched or self.facts.mixes or self._options.always or self._untracked is not None or self._lost:
            self.facts.add_names(self._tasks.names.storage_names())
        return self.facts

    # --- steps --------------------------------------------------------------------------------------------------------------

    def _parts(self, graph: Graph, names: Names, root_is: str | None) -> list[tuple[str, RootPart]]:
        reading = set_reading(ReferenceReading())
        try:
            wanted = self._options.wanted
            parts = wanted_tasks(wanted, graph, self._starts, names) if wanted else []
            frame = self._call.frame
            file = frame.f_code.co_filename if frame is not None else None
            return parts or tasks_of(self._starts, names, self._options.text_at(self._call.site), file, root_is)
        finally:
            set_reading(reading)

    def _suspects(self) -> Suspects:
        groups: Mapping[Any, Any] = {}
        if self._reasons.mixed or self._options.always:
            mixes, groups = find_mixes(self._tasks)
            self.facts.add_mixes(mixes)
        regions = self._session.checkpoints
        return Suspects(
            touched=self._touched,
            untracked=untracked_writes.meant_graph(self._untracked, self._tasks.parts, self._tasks.targets),
            integers=self._reasons.integers,
            regions=regions.touched() if regions.by_owner else (),
            groups=groups,
        )

    def _wants_numbers(self, suspects: Suspects) -> bool:
        if self._options.never or self._call.batched:
            return False
        # If gradients were cleared before anything read them, `.grad` may be the sum over several tasks: split it here.
        cleared = self._call.site in self._session.discarded_grads.sites and not self._reasons.often
        return bool(
            self._touched
            or self._options.always
            or cleared
            or suspects.groups
            or suspects.untracked
            or suspects.integers
            or self._lost
        )

    def _without_numbers(self, suspects: Suspects) -> None:
        """What can be said where no gradient may be worked out; the rest stays open."""
        if self._touched:
            without_numbers(self._tasks, self._touched, self.facts)
        if suspects.untracked is not None:
            untracked_writes.leave_open(suspects.untracked, self.facts)
        if checkpoints.reads_again(self._tasks.graph, suspects.regions):
            checkpoints.mark(self._tasks, suspects.regions, self.facts)
        detached.mark(self._tasks, self._lost, self.facts)

    def _follow_gradients(self) -> None:
        """Follow the gradients that this call leaves in `.grad`."""
        tasks, call = self._tasks, self._call
        if self._session.grad_aliases.wanted:
            grad_aliases.before_backward(tasks, call)
            leaves = [tasks.graph.nodes[i] for i in tasks.graph.leaves]
            call.leaves = [(tasks.targets.get((node, 0), "?"), node.variable) for node in leaves]
        discarded_grads.begins(tasks, call, self.facts, often=self._reasons.often)

    def _look_in_flight(self) -> None:
        """If the engine will run the user's Python code: find the gradients that this code could change for other nodes."""
        session, call, graph = self._session, self._call, self._tasks.graph
        session.backward_writes.tell(None)
        if not call.python or self._options.never or call.frame is None or call.batched:
            return
        if not graph.python_nodes and not session.engine.hooks_since():
            return
        found = GradientsInFlight(self._tasks, [(start.edge, start.grad) for start in self._starts], self.facts)
        if found.any:
            session.backward_writes.tell(found.wrote)

    def _add_notes(self) -> None:
        graph = self._tasks.graph
        if graph.named("CompiledFunctionBackward"):
            self.facts.note(COMPILED)
        hooked = self.facts.gradients and (self._session.engine.hooks_since() or _has_hooks(graph, self._tasks.names))
        if hooked:
            self.facts.note(
                "hooks of the program may change gradients: what they do is in the norms only where they wrote to a shared one"
            )


def _has_hooks(graph: Graph, names: Names) -> bool:
    """Whether a leaf of the graph, or a named tensor of it, carries a hook."""
    tensors = [*(graph.nodes[i].variable for i in graph.leaves), *(t for _, t in names.tensors)]
    for t in tensors:
        try:
            if t._backward_hooks and (t.grad_fn is None or t.grad_fn in graph.position):
                return True
        except RuntimeError:  # a view whose base was written
            continue
    return False
