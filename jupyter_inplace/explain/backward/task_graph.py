"""The graph of one backward call with its tasks and leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property

from jupyter_inplace.explain.graph.graph import Edge, Graph
from jupyter_inplace.explain.graph.passages import Passages
from jupyter_inplace.explain.graph.split import RootPart
from jupyter_inplace.explain.names.names import Names
from jupyter_inplace.record.session import Session


@dataclasses.dataclass(frozen=True)
class TaskGraph:
    """What every part of the analysis of one backward call reads and none changes.

    :param parts: the tasks, each with where its backward starts. A name may appear several times.
    :param targets: what the call computes gradients of, as edge -> name.
    """

    session: Session
    graph: Graph
    parts: Sequence[tuple[str, RootPart]]
    targets: Mapping[Edge, str]
    names: Names

    @cached_property
    def passages(self) -> Passages:
        """Which tasks pass through which nodes."""
        return Passages(self.graph, [(task, part.edge[0]) for task, part in self.parts], self.targets)
