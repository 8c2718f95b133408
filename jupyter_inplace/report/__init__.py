"""The report as data, the ground that all other parts stand on: nothing in this package imports anything else of ours.

All parts of a report can be imported from here. `jupyter_inplace/__init__.py` puts three names more here, and `Report` in
place of the bare data: `Report`, `InplaceError` and `load` of `jupyter_inplace.show.report`. `__init__.pyi` says so to type
checkers.
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
