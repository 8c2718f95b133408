"""Gradients that the engine hands to several nodes at once, and writes to them by hooks and custom backwards.

`a + b` hands one gradient tensor to both branches. A hook on one of them that changes it in place also changes what the other
branch has yet to receive. Before the engine runs, a walk finds which tensors wait at several edges; when one of those is
written, a second walk follows the difference to the leaves from the edges where it still waits for other nodes.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from jupyter_inplace.explain.backward.facts import BackwardFacts, CutFact, GradientFact, TaskLeaf
from jupyter_inplace.explain.backward.task_graph import TaskGraph
from jupyter_inplace.explain.graph import numbers
from jupyter_inplace.explain.graph.engine_order import run_order
from jupyter_inplace.explain.graph.graph import Edge, Node
from jupyter_inplace.explain.graph.pull import pull
from jupyter_inplace.explain.graph.quiet import quiet
from jupyter_inplace.explain.graph.reading import CannotPullError, ReferenceReading
from jupyter_inplace.explain.graph.split import RootPart
from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.geometry import View, view_of
from jupyter_inplace.record.base.nodes import is_python_node
from jupyter_inplace.record.base.torch_private import storage_id

Deposit = tuple[Edge, Node]  # where a gradient waits, and the node that sent it (None: the gradient of a root)


class _Shared:
    """One gradient tensor that waits at several edges, and its value per task."""

    def __init__(self, deposits: list[Deposit], values: dict[str, torch.Tensor]) -> None:
        self.deposits, self.values = deposits, values

    def at(self, node: Node) -> bool:
        """Whether the tensor is sent to or by a node."""
        return any(edge[0] is node or sender is node for edge, sender in self.deposits)

    def total(self) -> torch.Tensor:
        parts = list(self.values.values())
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total


class GradientsInFlight:
    """The shared gradients of one backward call.

    :param starts: the edges that the call starts from, each with its incoming gradient.
    """

    def __init__(
        self, tasks: TaskGraph, starts: Sequence[tuple[Edge, torch.Tensor | None]], facts: BackwardFacts
    ) -> None:
        self._session, self._graph, self._targets, self._facts = tasks.session, tasks.graph, tasks.targets, facts
        self._shared: list[_Shared] = []
        self._senders: dict[Edge, list[Node]] = {}
        self._turns: dict[Node, int] = {}
        self._reference: dict[TaskLeaf, torch.Tensor | None] = {}
        self._as_run: dict[TaskLeaf, torch.Tensor | None] = {}
        self._reading = ReferenceReading(self._session.custom_functions.kept)
        self._as_before = private.dispatch_as_now()
        try:
            self._find(starts, tasks.parts)
        except CannotPullError as reason:
            self._facts.note(f"writes to gradients in flight were not followed: {reason}")
            self._shared = []
        # Start from the rows as the damage to saved tensors left them.
        self._reference.update(facts.reference)
        self._as_run.update(facts.as_run)

    @property
    def any(self) -> bool:
        return bool(self._shared)

    def _find(self, starts: Sequence[tuple[Edge, torch.Tensor | None]], parts: Sequence[tuple[str, RootPart]]) -> None:
        whole = self._deposits(starts)[0]
        memory: dict[Any, list[Deposit]] = {}
        for deposit, grad in whole:
            self._senders.setdefault(deposit[0], []).append(deposit[1])
            if grad.layout is torch.strided:
                memory.setdefault((storage_id(grad), grad.storage_offset(), tuple(grad.shape)), []).append(deposit)
        groups = [deposits for deposits in memory.values() if len(deposits) > 1]
        if not groups:
            return
        self._turns = run_order(self._graph, [edge[0] for edge, _ in starts], [node for node, _ in self._targets])
        values: list[dict[str, torch.Tensor]] = [{} for _ in groups]
        for task, part in parts:
            handed, found = self._deposits([(part.edge, part.grad)])
            own = dict(handed)
            for key in self._targets.values():
                self._add(self._reference, (task, key), found.get(key))
            for i, deposits in enumerate(groups):
                for deposit in deposits:
                    # The start of a part has no sender; in the whole walk it has one.
                    mine = own.get(deposit, own.get((deposit[0], None)))
                    if mine is not None:
                        values[i][task] = values[i][task] + mine if task in values[i] else mine
                        break
        self._shared = [_Shared(deposits, v) for deposits, v in zip(groups, values, strict=True) if v]

    def _deposits(
        self, starts: Sequence[tuple[Edge, torch.Tensor | None]]
    ) -> tuple[list[tuple[Deposit, torch.Tensor]], dict[Any, Any]]:
        """Every gradient that a walk passes from one node to another, and those of the targets."""
        seen: list[tuple[Deposit, torch.Tensor]] = []

        def received(edge: Edge, grad: torch.Tensor, sender: Node | None) -> None:
            seen.append(((edge, sender), grad))

        found = pull(self._graph, starts, self._targets, self._reading, received=received, python=False)
        return seen, found

    @staticmethod
    def _add(table: dict[TaskLeaf, torch.Tensor | None], key: TaskLeaf, value: Any) -> None:
        if value is not None:
            old = table.get(key)
            table[key] = value if old is None else old + value

    def wrote(self, write: Any, t: torch.Tensor, before: torch.Tensor, func: Any, args: Any, kwargs: Any) -> None:
        """A hook or a custom backward changed `t`, whose whole storage held `before` (flat)."""
        self._session.backward_writes.wrote = True
        known = len(self._facts.cuts)
        # Writes are seen below autograd here, but a checkpointed function that is recomputed on the way must be recorded as usual.
        with quiet(self._session), self._as_before():
            self._wrote(write, t, before, func, args, kwargs)
            if len(self._facts.cuts) > known:
                self._rows_for_all()

    def _wrote(self, write: Any, t: torch.Tensor, before: torch.Tensor, func: Any, args: Any, kwargs: Any) -> None:
        view = view_of(t)
        current = private.current_autograd_node()
        if view is None or current not in self._turns or self._session.backward_writes.made_here(t):
            return
        variable = getattr(current, "variable", None)
        if variable is not None and variable.grad is not None and storage_id(variable.grad) == storage_id(t):
            return  # already accumulated: torch copies a gradient that another node waits for
        for shared in sorted(self._shared, key=lambda shared: not shared.at(current)):
            total = shared.total()
            if total.numel() != before.numel() or total.dtype != before.dtype:
                continue
            if not torch.allclose(total.reshape(-1), before, rtol=1e-4, atol=1e-12, equal_nan=True):
                continue
            if not shared.at(current) and bool((before == before[0]).all()):
                continue  # a hook may have kept an earlier gradient; tensors of ones or zeros look alike
            changes = self._changes(shared, t, view, func, args, kwargs)
            own = [edge for edge, _ in shared.deposits if edge[0] is current]
            victims = self._victims(shared, current)
            for task, change in changes.items():
                if bool(change.any()):
                    if own and not is_python_node(current):
                        self._follow_own(task, own, change)
                    if victims:
                        self._follow(write, task, victims, change)
            return

    @staticmethod
    def _changes(
        shared: _Shared, t: torch.Tensor, view: View, func: Any, args: Any, kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """What the write does to each task's part of the gradient."""
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
        return changes

    def _victims(self, shared: _Shared, current: Node) -> list[Edge]:
        """Where this same tensor waits for another node while `current` runs: sent before, not summed with others, not yet taken."""
        now = self._turns[current]
        found: list[Edge] = []
        for edge, sender in shared.deposits:
            if self._turns.get(edge[0], -1) <= now or self._sent(sender) >= now:
                continue
            if sum(self._sent(other) < now for other in self._senders[edge]) == 1:
                found.append(edge)
        return found

    def _sent(self, sender: Node) -> int:
        return -1 if sender is None else self._turns.get(sender, -1)

    def _follow_own(self, task: str, own: list[Edge], change: torch.Tensor) -> None:
        """Apply the write where it was intended: both the as-run and the reference gradients have it."""
        with contextlib.suppress(CannotPullError):
            found = pull(self._graph, [(edge, change) for edge in own], self._targets, self._reading, python=False)
            for leaf, difference in found.items():
                key = (task, leaf)
                if difference is not None and key in self._reference:
                    if key in self._as_run:
                        self._add(self._as_run, key, difference)
                    self._add(self._reference, key, difference)
                    if self._facts.row(*key) is not None:
                        self._mark(key)

    def _follow(self, write: Any, task: str, victims: list[Edge], change: torch.Tensor) -> None:
        try:
            found = pull(self._graph, [(edge, change) for edge in victims], self._targets, self._reading)
        except CannotPullError as reason:
            self._facts.note(f"a write to a gradient in flight was not followed: {reason}")
            return
        hit: list[str] = []
        for leaf, difference in found.items():
            if difference is None or not bool(difference.any()):
                continue
            key = (task, leaf)
            reference = self._reference.get(key)
            old = self._as_run.get(key, reference)
            self._as_run[key] = difference if old is None else old + difference
            self._mark(key)
            hit.append(leaf)
        if hit:
            self._facts.add_cut(CutFact(write, [task], sorted(hit), verdict="corrupts"))

    def _mark(self, key: TaskLeaf) -> None:
        """Recompute the row of a task and a leaf."""
        row = self._facts.row(*key) or GradientFact(*key)
        if row.status == "raises":
            return
        reference = self._reference.get(key)
        as_run = self._as_run.get(key, reference)
        status, relative, cosine = numbers.compare(as_run, reference)
        self._facts.put_row(
            dataclasses.replace(
                row,
                status=status,
                norm_as_run=numbers.norm(as_run),
                norm_reference=numbers.norm(reference),
                relative_difference=relative,
                cosine=cosine,
            )
        )
        self._facts.keep(key, reference=reference, as_run=as_run)

    def _rows_for_all(self) -> None:
        """Add rows for every task and leaf once one of them is affected, so that the table has no gaps."""
        if not self._facts.gradients:
            return
        for (task, leaf), reference in self._reference.items():
            if self._facts.row(task, leaf) is None:
                size = numbers.norm(reference)
                self._facts.put_row(GradientFact(task, leaf, "ok", size, size, 0.0, 1.0 if size else None))
            if (task, leaf) not in self._facts.reference:
                self._facts.keep((task, leaf), reference=reference)
