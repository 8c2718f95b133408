"""What is worked out while the program runs: names of tasks at each backward call, and the damage where there may be some.

Everything later (verdicts, the report) is made from the facts left here, when the cell is over.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

import torch

from jupyter_inplace._syntax import parse
from jupyter_inplace.explain.backward import earlier
from jupyter_inplace.explain.backward.damage import Damage, leaf_targets, quiet
from jupyter_inplace.explain.backward.facts import BackwardFacts
from jupyter_inplace.explain.backward.in_flight import InFlight
from jupyter_inplace.explain.backward.mixes import find_mixes
from jupyter_inplace.explain.channels import detached as severed
from jupyter_inplace.explain.channels import discarded_grads as unread
from jupyter_inplace.explain.channels import grad_aliases as kept_gradients
from jupyter_inplace.explain.channels import grad_results as shared_results
from jupyter_inplace.explain.channels.integers import candidates
from jupyter_inplace.explain.errors.wording import ErrorWording
from jupyter_inplace.explain.graph.graph import Graph, Node
from jupyter_inplace.explain.graph.pull import Edge, pull
from jupyter_inplace.explain.graph.reading import CannotPullError, ReferenceReading
from jupyter_inplace.explain.graph.repair import Repair
from jupyter_inplace.explain.graph.split import RootPart, split
from jupyter_inplace.explain.names.names import Names, namespaces, user_frame
from jupyter_inplace.explain.names.root_names import root_name
from jupyter_inplace.record.backward.call import Backward
from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.channels.integers import IntegerWrite
from jupyter_inplace.record.dispatch.other_modes import COMPILED
from jupyter_inplace.record.saved.reading import set_reading
from jupyter_inplace.record.saved.saved import Saved
from jupyter_inplace.record.session import Session

_NAMED_CALLS = (
    3  # calls at one site whose tasks are looked up in full; later ones keep the names, unless there is damage
)
_LOST_CALLS = 32  # the same where gradients were cleared unread


class Analyst:
    """Serves the backward calls of one session. `wanted` are task names given by the user, `namespace` the cell's own."""

    def __init__(self) -> None:
        self.wanted: tuple[str, ...] = ()
        self.found_wanted: set[str] = set()
        self.namespace: Callable[[], Mapping[str, Any]] | None = None
        self.always = False
        self.never = False
        self.wording: ErrorWording | None = None
        self.labels: dict[str, str] = {}
        self.known_files: dict[str, str] = {}
        self._sites: dict[Any, tuple[int, list[str]]] = {}
        self._folded: dict[Any, BackwardFacts] = {}
        self.done: set[tuple[str, int]] = set()
        self.current: BackwardFacts | None = None

    def new_window(self) -> None:
        self._sites.clear()
        self._folded.clear()

    def before_backward(self, session: Session, call: Backward) -> None:
        """The callback of the recorder: right before the engine runs."""
        if call.nested or call.transformed:
            call.facts = BackwardFacts([], call.order, call.site, call.time)
            return
        if session.exported_memory.reads:
            with quiet(session):
                session.exported_memory.compare(call.site)
        touched = session.index.touched_live()
        mixed = session.last_leaf_write > session.graph_floor and session.last_leaf_write > session.first_sequence
        calls, names = self._sites.get(call.site, (0, []))
        integers = candidates(session) if session.integers.by_storage else {}
        suspect = bool(touched or session.untracked_writes.cuts or integers or session.detached.all())
        often = calls >= (_LOST_CALLS if call.site in session.discarded_grads.sites else _NAMED_CALLS)
        suspect = suspect or bool(session.discarded_grads.cleared) or not often
        gradients = session.grad_aliases.wanted
        python = call.python and (calls < _NAMED_CALLS or session.backward_writes.wrote)
        if not suspect and not mixed and not python and not gradients and not self.always:
            self._fold(call, names)
            return
        with quiet(session):
            facts = self._analyse(session, call, touched, mixed, integers=integers, often=often)
        self._sites[call.site] = (calls + 1, facts.tasks)
        call.facts = self.current = facts

    def _fold(self, call: Backward, names: list[str]) -> None:
        """One call of a loop in which nothing happens: a training loop of any length leaves one set of facts."""
        facts = self._folded.get(call.site)
        call.folded = facts is not None and facts.tasks is names
        if facts is None or not call.folded:
            facts = self._folded[call.site] = BackwardFacts(names, call.order, call.site, call.time, count=0)
        facts.count += 1
        call.facts = facts

    def after_backward(self, session: Session, call: Backward) -> None:
        if call.leaves and call.accumulate and call.facts is not None:
            kept_gradients.after_backward(session, call.leaves, call.facts.tasks)
        unread.ended(session, call)
        if len(call.results) > 1:
            shared_results.after_grad(session, call, lambda: self._names_at(call))

    def _names_at(self, call: Backward) -> Names:
        return Names(namespaces(call.frame, self.namespace() if self.namespace is not None else None))

    def gradient_overwritten(self, session: Session, t: torch.Tensor, write: Any, before: torch.Tensor) -> None:
        frame = user_frame()
        with quiet(session):
            spaces = namespaces(frame, self.namespace() if self.namespace is not None else None)
            kept_gradients.after_write(session, t, write, lambda: Names(spaces), before)

    def pending(self, session: Session, name: str, root: torch.Tensor, spaces: Names) -> BackwardFacts | None:
        """What a backward of `root`, still alive at the end of the cell, would meet; None where nothing was touched."""
        node = root.grad_fn
        if node is None or (type(node).__name__, node._sequence_nr()) in self.done:
            return None
        touched = session.index.touched_live()
        if not touched and not session.untracked_writes.cuts:
            return None
        call = Backward(session.order, session.seconds(), None)
        call.roots, call.grads = (root,), (torch.ones_like(root),)
        call.sequence = private.peek_sequence_nr()
        with quiet(session):
            facts = self._analyse(session, call, touched, False, spaces, {name: root})
        facts.pending = True
        for conflict in facts.conflicts:
            conflict.pending = True
        for cut in facts.cuts:
            cut.pending = True
        return facts if facts.conflicts or facts.cuts else None

    # --- one call -----------------------------------------------------------------------------------------------------------

    def _analyse(
        self,
        session: Session,
        call: Backward,
        touched: list[Saved],
        mixed: bool,
        names: Names | None = None,
        given: dict[str, torch.Tensor] | None = None,
        integers: dict[Saved, list[IntegerWrite]] | None = None,
        often: bool = False,
    ) -> BackwardFacts:
        if names is None:
            names = self._names_at(call)
        starts = _starts(call)
        graph = Graph(node for (node, _), _, _ in starts)
        # What another graph holds (that of a cell that raised, say) is none of this call's concern.
        touched = [saved for saved in touched if graph.may_hold(saved.sequence)]
        reading = set_reading(ReferenceReading())
        try:
            parts = self._parts(graph, starts, names, call, given)
        finally:
            set_reading(reading)
        facts = BackwardFacts(list(dict.fromkeys(task for task, _ in parts)), call.order, call.site, call.time)
        for (node, _), _, _ in starts:
            facts.root_keys.add((type(node).__name__, node._sequence_nr()))
        facts.root_keys.update((type(p.edge[0]).__name__, p.edge[0]._sequence_nr()) for _, p in parts)
        if not call.retain or given is None:
            self.done |= facts.root_keys
        repair, meant = None, graph
        regions = session.checkpoints.touched() if session.checkpoints.by_owner else []
        if session.untracked_writes.cuts:
            nodes = [node for (node, _), _, _ in starts]
            found = Repair(
                graph, session.untracked_writes.cuts, [*nodes, *(p.edge[0] for _, p in parts)], call.sequence
            )
            if found.needed:
                repair = found
                meant = found.graph([*nodes, *(found.start(p.edge)[0] for _, p in parts)])
        targets = leaf_targets(meant, call.inputs, names)
        groups: dict[Edge, dict[Node, int]] = {}
        if mixed or self.always:
            facts.mixes, groups = find_mixes(session, graph, parts, targets)
        lost = severed.find(graph, session.detached.all()) if session.detached.reads else []
        # Where gradients were cleared unread before, those of several tasks are a sum: here it is taken apart.
        wanted = self.always or (call.site in session.discarded_grads.sites and not often)
        if not self.never and (touched or wanted or groups or repair or integers or lost) and not call.batched:
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()  # the walk runs on this stream, whatever stream the forward used
            damage = Damage(session, graph, parts, targets, names, repair, meant)
            damage.integers = integers or {}
            damage.regions = regions
            damage.run(facts, touched, groups)
            severed.mark(damage, facts, lost)
        elif touched:
            damage = Damage(session, graph, parts, targets, names)
            damage.missing.update(facts.tasks)
            damage.without_numbers(facts, touched)
        if given is None:
            self._follow(session, call, graph, parts, targets, facts, names, often)
        self._look_in_flight(session, call, graph, parts, targets, facts)
        if graph.named("CompiledFunctionBackward"):
            facts.notes.append(COMPILED)
        if facts.gradients and (session.engine.hooks_since() or _has_hooks(graph, names)):
            facts.notes.append(
                "hooks of the program may change gradients: what they do is in the norms only where they wrote to a shared one"
            )
        if touched or facts.mixes or self.always or repair or lost:
            facts.names.update(names.storage_names())
        return facts

    @staticmethod
    def _follow(
        session: Session,
        call: Backward,
        graph: Graph,
        parts: list[tuple[str, RootPart]],
        targets: dict[Edge, str],
        facts: BackwardFacts,
        names: Names,
        often: bool,
    ) -> None:
        """What becomes of the gradients that this call leaves in `.grad`."""
        if session.grad_aliases.wanted:
            kept_gradients.before_backward(session, call, graph, lambda: names)
            call.leaves = [(targets.get((graph.nodes[i], 0), "?"), graph.nodes[i].variable) for i in graph.leaves]
        unread.begins(session, call, graph, parts, targets, facts, often)

    def _look_in_flight(
        self,
        session: Session,
        call: Backward,
        graph: Graph,
        parts: list[tuple[str, RootPart]],
        targets: dict[Edge, str],
        facts: BackwardFacts,
    ) -> None:
        """Where the engine will run Python of the user's: find the gradients that it could change for others."""
        session.backward_writes.tell(None)
        if not call.python or self.never or call.frame is None or call.batched:
            return
        if not graph.python_nodes and not session.engine.hooks_since():
            return
        starts = [(edge, grad) for edge, grad, _ in _starts(call)]
        found = InFlight(session, graph, starts, parts, targets, facts)
        if found.any:
            session.backward_writes.tell(found.wrote)

    def _parts(
        self,
        graph: Graph,
        starts: list[tuple[Edge, torch.Tensor | None, torch.Tensor | None]],
        names: Names,
        call: Backward,
        given: dict[str, torch.Tensor] | None,
    ) -> list[tuple[str, RootPart]]:
        by_node = names.by_node()
        if self.wanted:
            parts = self._wanted_parts(graph, starts, names)
            if parts:
                return parts
        out: list[tuple[str, RootPart]] = []
        for i, (edge, grad, root) in enumerate(starts):
            name = None
            if given is not None:
                name = next(iter(given))
            elif root is not None:
                file = call.frame.f_code.co_filename if call.frame is not None else None
                name = root_name(root, names, self._text(call), file)
            parts_of_root = split(edge, grad, name, by_node)
            unnamed = sum(part.name is None for part in parts_of_root)
            texts: list[str] = []
            if unnamed:
                texts = self._texts(call, len(parts_of_root))
            label = "loss"
            for k, part in enumerate(parts_of_root):
                text = texts[k] if k < len(texts) else None
                fallback = (
                    label if len(parts_of_root) * len(starts) == 1 else f"{label}[{k if len(starts) == 1 else i}]"
                )
                out.append((part.name or text or fallback, part))
        return out

    def _texts(self, call: Backward, count: int) -> list[str]:
        texts = addend_texts(self._text(call))
        return texts if len(texts) == count else []

    def _text(self, call: Backward) -> str:
        """The source of the call itself."""
        site = self.wording.resolver.resolve(call.site) if self.wording is not None and call.site is not None else None
        return site.text if site is not None else ""

    def word(self, saved: Saved) -> str:
        """What to add to torch's message about `saved`, from the analysis that ran right before the engine did."""
        if self.wording is None:
            return ""
        for conflict in self.current.conflicts if self.current is not None else ():
            if conflict.saved_order == saved.order:
                return self.wording.sentence(
                    [w for w, _ in conflict.writes], conflict.node, conflict.saved_as, conflict.saved_site
                )
        return ""

    def after_failure(self, session: Session, call: Backward, error: BaseException) -> None:
        """Torch itself refused: look for saved tensors from before the watch, which carry no hooks of ours."""
        if call.facts is None or "modified by an inplace operation" not in str(error) or call.facts.conflicts:
            return
        graph = Graph(node for (node, _), _, _ in _starts(call))
        with quiet(session):
            names = self._names_at(call)
            found = earlier.conflicts(session, graph, names, call.facts)
        call.facts.conflicts.extend(found)
        self.current = call.facts
        if found and self.wording is not None and error.args and isinstance(error.args[0], str):
            first = found[0]
            seen = [write for write, _ in first.writes if write.site is not None]
            more = self.wording.sentence(seen, first.node, first.saved_as, first.saved_site)
            if more and more not in error.args[0]:
                error.args = (f"{error.args[0]}\n\n{more}", *error.args[1:])

    def _wanted_parts(self, graph: Graph, starts: Any, names: Names) -> list[tuple[str, RootPart]]:
        """The tasks that the user named, each with the gradient that reaches it from the roots of this call."""
        by_name = dict(reversed(names.tensors))
        out: list[tuple[str, RootPart]] = []
        for wanted in self.wanted:
            tensor = by_name.get(wanted)
            node = tensor.grad_fn if isinstance(tensor, torch.Tensor) else None
            if tensor is None or node is None or node not in graph.position:
                continue
            edge = (node, tensor.output_nr)
            try:
                found = pull(graph, [(e, grad) for e, grad, _ in starts], {edge: "it"}, ReferenceReading())
            except CannotPullError:
                continue
            self.found_wanted.add(wanted)
            out.append((wanted, RootPart(edge, found["it"], wanted)))
        return out


def _has_hooks(graph: Graph, names: Names) -> bool:
    """Whether a leaf of the graph, or a tensor of it that a name holds, carries a hook."""
    tensors = [*(graph.nodes[i].variable for i in graph.leaves), *(t for _, t in names.tensors)]
    for t in tensors:
        try:
            if t._backward_hooks and (t.grad_fn is None or t.grad_fn in graph.position):
                return True
        except RuntimeError:  # a view whose base was written
            continue
    return False


def addend_texts(expression: str) -> list[str]:
    """The source of each addend of `(a(x) + 0.5 * b(x)).backward()`; empty where it is no sum."""
    try:
        call = parse(expression.strip(), mode="eval").body
    except SyntaxError:
        return []
    root = call.func.value if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) else None
    if root is None:
        return []
    found: list[str] = []

    def collect(node: ast.expr) -> None:
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
            collect(node.left)
            collect(node.right)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and isinstance(node.left, ast.Constant):
            collect(node.right)
        else:
            found.append(ast.unparse(node))

    collect(root)
    return found


def _starts(call: Backward) -> list[tuple[Edge, torch.Tensor | None, torch.Tensor | None]]:
    starts: list[tuple[Edge, torch.Tensor | None, torch.Tensor | None]] = []
    for i, root in enumerate(call.roots):
        grad = call.grads[i] if i < len(call.grads) else None
        if not isinstance(root, torch.Tensor):
            starts.append(((root[0], root[1]), grad, None))
        else:
            try:
                node = root.grad_fn
            except RuntimeError:  # a view whose base was written: torch refuses the call
                continue
            if node is not None:
                if grad is None and root.numel() == 1:
                    grad = torch.ones_like(root)
                starts.append(((node, root.output_nr), grad, root))
    return starts
