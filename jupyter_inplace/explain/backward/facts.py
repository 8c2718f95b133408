"""Plain data between the analysis of one backward call and the report: names and numbers, hardly any tensor."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from jupyter_inplace.report.data import Effect


@dataclasses.dataclass
class GradientFact:
    """One task x leaf of one backward call."""

    task: str
    leaf: str
    status: str = "ok"
    norm_as_run: float | None = None
    norm_reference: float | None = None
    relative_difference: float | None = None
    cosine: float | None = None
    by_version: list[tuple[int, float]] = dataclasses.field(default_factory=list)
    occurrence: int | None = None


@dataclasses.dataclass
class ConflictFact:
    """One saved tensor that was written before backward could read it, joined to the rows of writes that did."""

    verdict: str
    writes: list[tuple[Any, int | None]]  # (Write, bytes overlapping)
    node: str
    saved_as: str
    tensor: str
    saved_version: int | None
    found_version: int | None
    saved_site: Any
    saved_order: int
    module: str | None
    value_changed: bool | None
    tasks: list[str]
    leaves: list[str]
    before_watch: bool = False
    pending: bool = False
    size: int | None = None


@dataclasses.dataclass
class CutFact:
    """A write on a gradient path that the gradient takes no notice of."""

    write: Any
    tasks: list[str]
    leaves: list[str]
    pending: bool = False
    verdict: str = "cuts"
    note: str | None = None
    effects: tuple[Effect, ...] = ()


@dataclasses.dataclass
class MixFact:
    """A leaf that one accumulated gradient reads at several values."""

    leaf: str
    writes: list[Any]
    tasks: list[str]
    versions: dict[str, list[int]]


@dataclasses.dataclass
class SaveFact:
    """One saved tensor for the timeline."""

    order: int
    tensor: str
    version: int | None
    site: Any
    read: bool = False


@dataclasses.dataclass
class BackwardFacts:
    """What explain made of one backward call, or of `count` calls of a loop that are all alike."""

    tasks: list[str]
    order: int
    site: Any
    time: float
    gradients: list[GradientFact] = dataclasses.field(default_factory=list)
    conflicts: list[ConflictFact] = dataclasses.field(default_factory=list)
    mixes: list[MixFact] = dataclasses.field(default_factory=list)
    cuts: list[CutFact] = dataclasses.field(default_factory=list)
    saves: list[SaveFact] = dataclasses.field(default_factory=list)
    reference: dict[tuple[str, str], torch.Tensor] = dataclasses.field(default_factory=dict)
    as_run: dict[tuple[str, str], torch.Tensor] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    pending: bool = False
    count: int = 1
    root_keys: set[tuple[str, int]] = dataclasses.field(default_factory=set)
    names: dict[int, str] = dataclasses.field(default_factory=dict)  # storage -> name, for rows of writes
