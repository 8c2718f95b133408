"""The value of a saved tensor in our walks: the copy from before the write for the reference, the current memory as run."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch

from jupyter_inplace.explain.graph import numbers
from jupyter_inplace.explain.graph.graph import Node
from jupyter_inplace.explain.graph.held import holding
from jupyter_inplace.record.base.memory import is_gone
from jupyter_inplace.record.base.nodes import is_python_node
from jupyter_inplace.record.saved.reading import Reading
from jupyter_inplace.record.saved.saved import Saved


class CannotPullError(Exception):
    """The walk cannot compute a gradient; the message says why, for `blind_spots`. `node` is where it stopped."""

    node: Node = None


class ReferenceReading(Reading):
    """Saved tensors as the forward wrote them; also remembers which node read which."""

    def __init__(self, kept: Mapping[Any, list[Any]] | None = None) -> None:
        self.node: Node = None
        self.kept = kept
        self.again: dict[Node, list[Saved]] = {}  # what the checkpointed region of a node reads again
        self.reader: dict[Saved, Node] = {}

    def value(self, saved: Saved) -> torch.Tensor:
        self._note(saved)
        return _present(saved.value)

    def memory(self, node: Node) -> contextlib.AbstractContextManager[set[int]]:
        """While a node runs, tensors that its Python code may read besides saved tensors hold what the forward read."""
        values = [(saved.tensor, _present(saved.value)) for saved in self._besides(node)]
        return holding((t, value) for t, value in values if value is not t)

    def _besides(self, node: Node) -> list[Saved]:
        known = self.again.get(node, [])
        if self.kept is not None and is_python_node(node):
            known = [*known, *self.kept.get(node, ())]
        for saved in known:
            self._note(saved)
        return known

    def _note(self, saved: Saved) -> None:
        if self.node is not None:
            self.reader.setdefault(saved, self.node)


class BothReadings(ReferenceReading):
    """Saved tensors as the forward wrote them; after a node it tells whether they differ now, to be read again `as_run`.

    What torch refuses to read has no as-run value: the reference is used instead.
    """

    def __init__(self, kept: Mapping[Any, list[Any]] | None = None) -> None:
        super().__init__(kept)
        self.as_run = False
        self.changed: dict[Saved, bool | None] = {}  # None if it cannot be told
        # What was read since the last call of `differed` and has a copy.
        self._copied: list[Saved] = []

    def value(self, saved: Saved) -> torch.Tensor:
        if saved.clone is None:
            return super().value(saved)
        refused = saved.overwritten
        if self.as_run and not refused:
            return _present(saved.tensor)
        if not self.as_run and not refused:
            self._copied.append(saved)
        return super().value(saved)

    def memory(self, node: Node) -> contextlib.AbstractContextManager[set[int]]:
        if self.as_run:
            return holding(())
        self._copied += self._besides(node)
        return super().memory(node)

    def differed(self) -> bool:
        """Whether something that was read since the last call holds other values now. Call when `memory` is over."""
        copied, self._copied = self._copied, []
        return any(self.is_changed(saved) is not False for saved in copied)

    def is_changed(self, saved: Saved) -> bool | None:
        """Whether the memory holds other values than the forward saved; None if that cannot be told."""
        if saved.clone is None:
            return False
        if saved not in self.changed:
            same = None if is_gone(saved.tensor) else numbers.same_values(saved.clone, saved.tensor)
            self.changed[saved] = None if same is None else not same
        return self.changed[saved]


def _present(t: torch.Tensor) -> torch.Tensor:
    if is_gone(t):
        raise CannotPullError("a saved tensor's memory is freed until the backward itself fetches it again")
    return t
