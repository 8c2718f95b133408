"""Which status or number outweighs which, in this one place. The order of the verdicts is that of `data.VERDICTS`."""

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

    :raises ValueError: one of them is none of `TASK_STATUSES`.
    """
    order: tuple[str, ...] = TASK_STATUSES
    return min(a, b, key=order.index)


def badness(row: Gradient) -> tuple[int, float]:
    """To compare gradient rows by: larger is worse. Of the same status, a larger relative difference is worse.

    :raises ValueError: the row's status is none of `GRADIENT_STATUSES`.
    """
    return -GRADIENT_STATUSES.index(row.status), row.relative_difference or 0.0


def proof_place(status: str) -> int:
    """To sort proofs by: passed ones first, those with a word that only later tools know last."""
    order: tuple[str, ...] = PROOF_STATUSES
    return order.index(status) if status in order else len(order)


def proved_first(fixes: Iterable[Fix]) -> list[Fix]:
    """Rewrites, those with the better proof first; of the same status in the order in which they are given."""
    return sorted(fixes, key=lambda fix: proof_place(fix.verification.status))


def opposition(cosine: TaskCosine) -> float:
    """To sort cosines by: the most opposed tasks first, what has no number last."""
    value = cosine.reference if cosine.as_run is None else cosine.as_run
    return 2.0 if value is None or math.isnan(value) else value
