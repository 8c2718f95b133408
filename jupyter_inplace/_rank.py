"""Which process of a distributed job this one is. The other processes are never asked: a watch adds no collective."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from jupyter_inplace.report.data import Report

R = TypeVar("R", bound=Report)


@dataclass(frozen=True)
class Place:
    """One process of a job.

    :param rank: its number, from 0.
    :param world: how many there are; None if unknown.
    :param restart: how often the launcher has restarted the job.
    """

    rank: int
    world: int | None = None
    restart: int = 0


def place() -> Place | None:
    """This process among those of its job; None if it is on its own.

    An initialised process group knows best, then the variables that torchrun and similar launchers set, then ipyparallel.
    """
    distributed: Any = sys.modules.get("torch.distributed")
    restart = _number("TORCHELASTIC_RESTART_COUNT") or 0
    try:
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            return Place(distributed.get_rank(), distributed.get_world_size(), restart)
    except (RuntimeError, ValueError):  # the group is being destroyed
        pass
    rank = _number("RANK")
    if rank is not None:
        return Place(rank, _number("WORLD_SIZE"), restart)
    engine = _engine()
    return None if engine is None else Place(engine)


def _engine() -> int | None:
    """The number of this ipyparallel engine."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    kernel = getattr(shell, "kernel", None)
    if kernel is None or not type(kernel).__module__.startswith("ipyparallel."):
        return None
    number = getattr(kernel, "int_id", None)
    return number if type(number) is int and number >= 0 else None


def stamped(report: R) -> R:
    """The report with the rank of this process, if it is one of several."""
    here = place()
    return report if here is None else replace(report, rank=here.rank, world=here.world)


def _number(variable: str) -> int | None:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else None
