"""Reports of what could not be worked out: never `harmless`, with the reason."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from jupyter_inplace._version import __version__
from jupyter_inplace.report.data import Cell, Report, verdict_of
from jupyter_inplace.report.summary import build_summary

R = TypeVar("R", bound=Report)


def left_open(report: R, reason: str, cell: Cell | None = None) -> R:
    """The report with one more reason for which a harmful write may be missing in it. Its verdict is `unknown` at least.

    :param report: one that has its writes; its sentence is worded anew.
    :param cell: the watched cell, where the report does not have it yet.
    """
    reasons = tuple(dict.fromkeys((*report.unknown_because, reason)))
    cell = report.cell or cell
    return replace(
        report,
        tool=report.tool or __version__,
        cell=cell,
        verdict=verdict_of(report.mutations, reasons),
        summary=build_summary(
            report.mutations,
            report.conflicts,
            report.tasks,
            report.gradients,
            cell=cell,
            error=report.error,
            unknown_because=reasons,
        ),
        blind_spots=tuple(dict.fromkeys((*report.blind_spots, reason))),
        unknown_because=reasons,
        nothing_ran=False,
    )


def not_watched(fault: BaseException) -> str:
    """Why nothing is watched, in one line."""
    return f"not watched: {type(fault).__name__}: {' '.join(str(fault).split())}"
