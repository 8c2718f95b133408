"""Plain data between the analysis of one `tape.gradient` and the report."""

from __future__ import annotations

import dataclasses
from typing import Any

from jupyter_inplace.report.data import Gradient
from jupyter_inplace.tensorflow.record.events import AssignRow, SharedTensor


@dataclasses.dataclass
class AssignEffect:
    """A write and its effect on the gradients of one call."""

    verdict: str
    row: AssignRow
    tasks: list[str]
    leaves: list[str]
    note: str | None = None
    value_changed: bool | None = None


@dataclasses.dataclass
class Reread:
    """A variable or shared memory that the gradient computation read with other values than the forward."""

    row: AssignRow | None  # None: memory that was written from outside
    shared: SharedTensor | None
    node: str
    tensor: str
    saved_version: int
    found_version: int
    bytes: int
    saved_site: Any
    tasks: list[str]
    leaves: list[str]
    verdict: str = "corrupts"


@dataclasses.dataclass
class ReadFact:
    """A read for the timeline."""

    order: int
    time: float
    handle: int
    version: int
    site: Any
    task: str


@dataclasses.dataclass
class TapeCall:
    """One call of `tape.gradient` or `tape.jacobian`.

    :param tasks: the names of its targets and their statuses; None if they are read from the source later.
    """

    order: int
    time: float
    site: Any
    tasks: dict[str, str] | None = None
    gradients: list[Gradient] = dataclasses.field(default_factory=list)
    effects: list[AssignEffect] = dataclasses.field(default_factory=list)
    rereads: list[Reread] = dataclasses.field(default_factory=list)
    reads: list[ReadFact] = dataclasses.field(default_factory=list)
    losses: dict[str, Any] = dataclasses.field(default_factory=dict)
    vectors: dict[tuple[str, str], tuple[Any, Any]] = dataclasses.field(default_factory=dict)
    error: str | None = None
    count: int = 1
