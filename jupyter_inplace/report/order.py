"""The orders of statuses and rows, from bad to good or back. The order of the verdicts is `data.VERDICTS`."""

from __future__ import annotations

import math
from collections.abc import Iterable

from jupyter_inplace.report.data import Fix, Gradient, GradientStatus, ProofStatus, TaskCosine, TaskStatus

#: The worst one first.
TASK_STATUSES: tuple[TaskStatus, ...] = ("raises", "wrong", "lost", "unknown", "not_run", "ok")
GRADIENT_STATUSES: tuple[GradientStatus, ...] = ("raises", "wrong", "lost", "unknown", "ok")
#: The best one first.
PROOF_STATUSES: tuple[ProofStatus, ...] = ("passed", "unverified", "failed")


def worse_status(a: str, b: str) -> str:
    """The worse of two statuses of a task.

    :raises ValueError: one of them is not one of `TASK_STATUSES`.
    """
    order: tuple[str, ...] = TASK_STATUSES
    return min(a, b, key=order.index)


def badness(row: Gradient) -> tuple[int, float]:
    """A sort key for gradient rows: larger is worse. Within a status, a larger relative difference is worse.

    :raises ValueError: the row's status is not one of `GRADIENT_STATUSES`.
    """
    return -GRADIENT_STATUSES.index(row.status), row.relative_difference or 0.0


def proof_place(status: str) -> int:
    """A sort key for the statuses of proofs: passed ones first, unknown ones (of a later version) last."""
    order: tuple[str, ...] = PROOF_STATUSES
    return order.index(status) if status in order else len(order)


def proved_first(fixes: Iterable[Fix]) -> list[Fix]:
    """Rewrites sorted by their proofs, the best first; the given order is kept within a status."""
    return sorted(fixes, key=lambda fix: proof_place(fix.verification.status))


def opposition(cosine: TaskCosine) -> float:
    """A sort key for cosines: the most opposed tasks first, those without a number last."""
    value = cosine.reference if cosine.as_run is None else cosine.as_run
    return 2.0 if value is None or math.isnan(value) else value
