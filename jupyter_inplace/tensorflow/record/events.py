"""What the recorder stores: reads and writes of variables, the rows into which loops fold them, and shared memory."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import numpy as np

#: Operations that write a variable, with what people call them. What is not listed and has a resource as its first
#: input is a read or none of our business.
WRITES: dict[str, str] = {
    "AssignVariableOp": "assign",
    "AssignAddVariableOp": "assign_add",
    "AssignSubVariableOp": "assign_sub",
    "ResourceStridedSliceAssign": "slice assign",
    "ResourceScatterAdd": "scatter_add",
    "ResourceScatterSub": "scatter_sub",
    "ResourceScatterMul": "scatter_mul",
    "ResourceScatterDiv": "scatter_div",
    "ResourceScatterMin": "scatter_min",
    "ResourceScatterMax": "scatter_max",
    "ResourceScatterUpdate": "scatter_update",
    "ResourceScatterNdAdd": "scatter_nd_add",
    "ResourceScatterNdSub": "scatter_nd_sub",
    "ResourceScatterNdMin": "scatter_nd_min",
    "ResourceScatterNdMax": "scatter_nd_max",
    "ResourceScatterNdUpdate": "scatter_nd_update",
}
#: ResourceApplyAdam, ResourceSparseApplyAdagrad, ...: the kernels of the older optimizers.
APPLY = ("ResourceApply", "ResourceSparseApply")
#: Operations that read a variable. The gathering ones read rows of it.
READS = frozenset({"ReadVariableOp", "ResourceGather", "ResourceGatherNd"})


@dataclasses.dataclass(eq=False, slots=True)
class AssignRow:
    """The writes at one place to one variable (for an optimizer step, to all its variables): one mutation of the report."""

    op: str
    site: Any
    handle: int
    shape: tuple[int, ...]
    dtype: str
    device: str
    order: int
    time: float
    before: int
    after: int
    count: int = 0
    handles: dict[int, None] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(eq=False, slots=True)
class AssignEvent:
    """One write, kept while a tape is alive for which it may matter."""

    row: AssignRow
    order: int
    handle: int
    op_type: str
    inputs: tuple[Any, ...]  # without the handle; tensors, immutable
    attrs: Any
    before: int
    after: int
    mask: int  # what the written value was computed from
    update: bool  # made by an optimizer
    from_gradient: bool = False


@dataclasses.dataclass(eq=False, slots=True)
class ReadEvent:
    """One read of a variable, kept while a tape is alive that may have recorded it."""

    order: int
    handle: int
    version: int
    site: Any
    value: Any  # the tensor read, None if it was too large to hold
    whole: bool  # False: rows of the variable (a gather)
    inside: bool  # read while a gradient was computed


@dataclasses.dataclass(eq=False, slots=True)
class KnownVariable:
    """What is known about a variable, by the number of its handle."""

    handle: int
    shape: tuple[int, ...]
    dtype: str
    device: str
    floating: bool
    bytes: int
    resource: Any  # a weak reference to the handle
    version: int = 0
    written: int = 0  # the order of the last write


class SharedThrough(enum.StrEnum):
    """Who else may write the memory of a tensor."""

    NUMPY = "numpy"
    DLPACK = "DLPack"

    @property
    def node(self) -> str:
        """The `node` of a conflict about such memory."""
        return f"shared through {self}"


@dataclasses.dataclass(eq=False, slots=True)
class SharedTensor:
    """A tensor whose memory others may write, with its values from when it was first used or shared."""

    view: Any  # numpy, over the same memory
    before: Any  # a copy of it
    site: Any
    order: int
    time: float
    owner: Any  # keeps the memory
    through: SharedThrough
    tensor: int
    version: int = 0
    found: bool = False

    def changed(self) -> bool:
        return not np.array_equal(self.view, self.before, equal_nan=self.before.dtype.kind in "fc")
