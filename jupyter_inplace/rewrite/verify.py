"""The rewrites of a watched cell: first the candidates, then each proof when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from jupyter_inplace.frameworks.companions import rewriting
from jupyter_inplace.report.data import Fix, Report, Verification

if TYPE_CHECKING:
    from jupyter_inplace.rewrite.sandbox.sandbox import Sandbox

__all__ = ["SECONDS", "verify"]

#: Seconds shared by all proofs of a cell.
SECONDS = 30.0


def verify(
    source: str,
    report: Report,
    sandbox: Sandbox | None,
    *,
    seconds: float = SECONDS,
    cell_seconds: float | None = None,
    taken: Collection[str] = (),
    unavailable: str = "no copy of the state from before the cell was kept",
    on_change: Callable[[tuple[Fix, ...]], None] | None = None,
) -> tuple[Fix, ...]:
    """The rewrites of `source` for the harmful writes of `report`, each with its verification, the best first.

    :param source: the cell, its magic line kept.
    :param sandbox: holds the state from before the cell; without one all rewrites are ``unverified``, because of `unavailable`.
    :param cell_seconds: how long the cell took.
    :param taken: names of the namespace that the cell runs in.
    :param on_change: called with all current fixes: first with each ``pending``, then after every proof.
    :raises RewriteError: the cell is not Python once its magics are removed.
    """
    from jupyter_inplace.rewrite.candidates import candidates
    from jupyter_inplace.rewrite.proof.imports import import_once
    from jupyter_inplace.rewrite.proof.prove import prove

    found = candidates(source, report, taken)
    standing = {
        number: Fix(
            id=number,
            kind=candidate.kind,
            title=candidate.title,
            source=candidate.source,
            mutations=candidate.mutations,
            diff=candidate.diff,
            reading=candidate.reading,
            verification=Verification(pending=True),
        )
        for number, candidate in enumerate(found)
    }

    def arrived(fix: Fix) -> None:
        standing[fix.id] = fix
        if on_change is not None:
            on_change(tuple(standing.values()))

    if on_change is not None:
        on_change(tuple(standing.values()))
    if sandbox is not None and found:
        import_once(sandbox, source)
    began = time.monotonic()
    proved = prove(
        source,
        report,
        found,
        sandbox,
        seconds=seconds,
        cell_seconds=cell_seconds,
        unavailable=unavailable,
        on_fix=arrived,
    )
    for module in rewriting(report):
        proved += module.fixes(
            source,
            report,
            sandbox,
            first=len(standing),
            seconds=seconds - (time.monotonic() - began),
            taken=taken,
            unavailable=unavailable,
            told=arrived,
        )
    return proved
