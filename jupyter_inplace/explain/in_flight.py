"""Gradients that the engine hands to several nodes at once, and writes to them by hooks and custom backwards.

`a + b` hands one gradient tensor to both branches. A hook on one of them that changes it in place changes what the other
branch is still to get. Before the engine runs, a walk finds which nodes share a tensor; when one of those tensors is
written, the nodes that have not run yet get the difference, followed to the leaves by a second walk.
"""

from __future__ import annotations

from typing import Any

import torch

from jupyter_inplace.explain import numbers
from jupyter_inplace.explain.damage import quiet
from jupyter_inplace.explain.facts import BackwardFacts, CutFact, GradientFact
from jupyter_inplace.explain.graph import Graph, Node
from jupyter_inplace.explain.pull import CannotPullError, Edge, ReferenceReading, pull
from jupyter_inplace.explain.split import Part
from jupyter_inplace.record.geometry import view_of
from jupyter_inplace.record.session import Session
from jupyter_inplace.record.torch_private import storage_id


class _Shared:
    """One gradient tensor and the edges that it stands on; its value per task."""

    def __init__(self, edges: list[Edge], values: dict[str, torch.Tensor]) -> None:
        self.edges, self.values = edges, values

    def total(self) -> torch.Tensor:
        parts = list(self.values.values())
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total


class InFlight:
    """The shared gradients of one backward call."""

    def __init__(
        self,
        session: Session,
        graph: Graph,
        parts: list[tuple[str, Part]],
        targets: dict[Edge, str],
        facts: BackwardFacts,
    ) -> None:
        self._session, self._graph, self._targets, self._facts = session, graph, targets, facts
        self._shared: list[_Shared] = []
        self._reference: dict[tuple[str, str], torch.Tensor | None] = {}
        self._as_run: dict[tuple[str, str], torch.Tensor | None] = {}
        self._reading = ReferenceReading(session.python.kept)
        self._find(parts)

    @property
    def any(self) -> bool:
        return bool(self._shared)

    def _find(self, parts: list[tuple[str, Part]]) -> None:
        groups: dict[tuple[Edge, ...], dict[str, torch.Tensor]] = {}
        for task, part in parts:
            seen: dict[tuple[int, int, tuple[int, ...]], list[tuple[Edge, torch.Tensor]]] = {}

            def look(node: Node, incoming: list[torch.Tensor | None], seen: Any = seen) -> None:
                for nr, grad in enumerate(incoming):
                    if grad is not None and grad.layout is torch.strided:
                        seen.setdefault((storage_id(grad), grad.storage_offset(), tuple(grad.shape)), []).append(
                            ((node, nr), grad)
                        )

            try:
                found = pull(
                    self._graph, [(part.edge, part.grad)], self._targets, self._reading, observe=look, python=False
                )
            except CannotPullError as reason:
                self._facts.notes.append(f"writes to gradients in flight were not followed: {reason}")
                return
            for key in self._targets.values():
                value = found.get(key)
                if value is not None:
                    old = self._reference.get((task, key))
                    self._reference[(task, key)] = value if old is None else old + value
            for entries in seen.values():
                if len(entries) > 1:
                    values = groups.setdefault(tuple(edge for edge, _ in entries), {})
                    values[task] = entries[0][1] if task not in values else values[task] + entries[0][1]
        self._shared = [_Shared(list(edges), values) for edges, values in groups.items()]

    def wrote(self, write: Any, t: torch.Tensor, before: torch.Tensor, func: Any, args: Any, kwargs: Any) -> None:
        """A hook or a custom backward changed `t`, whose whole storage held `before` (flat)."""
        self._session.python.wrote = True
        known = len(self._facts.cuts)
        with quiet(self._session):
            self._wrote(write, t, before, func, args, kwargs)
            if len(self._facts.cuts) > known:
                self._rows_for_all()

    def _wrote(self, write: Any, t: torch.Tensor, before: torch.Tensor, func: Any, args: Any, kwargs: Any) -> None:
        view = view_of(t)
        if view is None:
            return
        for shared in self._shared:
            total = shared.total()
            if total.numel() != before.numel() or total.dtype != before.dtype:
                continue
            if not torch.allclose(total.reshape(-1), before, rtol=1e-4, atol=0.0, equal_nan=True):
                continue
            victims = self._victims(shared)
            changes: dict[str, torch.Tensor] = {}
            for task, value in shared.values.items():
                memory = value.contiguous().clone()
                target = memory.view(-1).as_strided(view.shape, view.stride, view.offset)
                try:
                    func(
                        *(target if a is t else a for a in args),
                        **{k: target if a is t else a for k, a in kwargs.items()},
                    )
                except (RuntimeError, TypeError):
                    continue
                changes[task] = memory - value
                shared.values[task] = memory
            for task, change in changes.items():
                if victims and bool(change.any()):
                    self._follow(write, task, victims, change)
            return

    def _victims(self, shared: _Shared) -> list[Edge]:
        """The edges of a shared gradient whose node is still to run when the write happens: the engine runs the highest number first."""
        keys = self._session.python.keys_on_stack()
        current = self._session.python.current_node()
        own = [edge for edge in shared.edges if edge[0] is current or _key(edge) in keys]
        if not own:
            own = [max(shared.edges, key=lambda edge: edge[0]._sequence_nr())]
        at = max(edge[0]._sequence_nr() for edge in own)
        return [edge for edge in shared.edges if edge not in own and edge[0]._sequence_nr() < at]

    def _follow(self, write: Any, task: str, victims: list[Edge], change: torch.Tensor) -> None:
        try:
            found = pull(self._graph, [(edge, change) for edge in victims], self._targets, self._reading)
        except CannotPullError as reason:
            self._facts.notes.append(f"a write to a gradient in flight was not followed: {reason}")
            return
        hit: list[str] = []
        for leaf, difference in found.items():
            if difference is None or not bool(difference.any()):
                continue
            key = (task, leaf)
            reference = self._reference.get(key)
            old = self._as_run.get(key, reference)
            self._as_run[key] = difference if old is None else old + difference
            self._mark(task, leaf, self._as_run[key], reference)
            hit.append(leaf)
        if hit:
            self._facts.cuts.append(CutFact(write, [task], sorted(hit), verdict="corrupts"))

    def _mark(self, task: str, leaf: str, as_run: torch.Tensor | None, reference: torch.Tensor | None) -> None:
        rows = [row for row in self._facts.gradients if (row.task, row.leaf) == (task, leaf)]
        if not rows:
            rows = [GradientFact(task, leaf)]
            self._facts.gradients.extend(rows)
        row = rows[0]
        if row.status == "raises":
            return
        row.status, row.relative_difference, row.cosine = numbers.compare(as_run, reference)
        row.norm_as_run, row.norm_reference = numbers.norm(as_run), numbers.norm(reference)

    def _rows_for_all(self) -> None:
        """Rows for every task and leaf, once one of them is hit: a table with gaps says less."""
        known = {(row.task, row.leaf) for row in self._facts.gradients}
        if not known:
            return
        for (task, leaf), reference in self._reference.items():
            if (task, leaf) not in known:
                size = numbers.norm(reference)
                self._facts.gradients.append(GradientFact(task, leaf, "ok", size, size, 0.0, 1.0 if size else None))
            if reference is not None:
                self._facts.reference.setdefault((task, leaf), reference)


def _key(edge: Edge) -> tuple[str, int, int]:
    node, nr = edge
    variable = getattr(node, "variable", None)
    if variable is not None:
        return ("AccumulateGrad", id(variable), 0)
    return (type(node).__name__, node._sequence_nr(), nr)
