"""The report as plain data. Every other part of the package is built on this one, which imports none of them.

All parts of a report can be imported from here. `jupyter_inplace/__init__.py` adds `InplaceError` and `load`, and replaces the
`Report` of this package by its subclass, all three from `jupyter_inplace.show.report`. `__init__.pyi` tells type checkers.
"""

from jupyter_inplace.report.data import (
    HARMFUL,
    MIME_TYPE,
    VERDICTS,
    Cell,
    Conflict,
    Error,
    Fix,
    Gradient,
    Mutation,
    RankCount,
    Report,
    Site,
    Task,
    TaskCosine,
    TimelineEvent,
    Verification,
    VersionNorm,
    verdict_of,
    worst,
)

__all__ = [
    "HARMFUL",
    "MIME_TYPE",
    "VERDICTS",
    "Cell",
    "Conflict",
    "Error",
    "Fix",
    "Gradient",
    "Mutation",
    "RankCount",
    "Report",
    "Site",
    "Task",
    "TaskCosine",
    "TimelineEvent",
    "Verification",
    "VersionNorm",
    "verdict_of",
    "worst",
]
