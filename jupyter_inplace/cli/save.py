"""Where the report of a run is saved: one file for each run, or for each rank."""

from __future__ import annotations

import re
from pathlib import Path

from jupyter_inplace._rank import Place
from jupyter_inplace.cli.arguments import BadInputError
from jupyter_inplace.report.data import Report
from jupyter_inplace.report.files import to_text


def file_name(program: str, place: Place | None) -> str:
    """``train.json``, or for a rank ``train.rank0-of-2.json``.

    The number of ranks is part of the name, so that files of an earlier, larger job are not taken for part of this one. So is
    the number of the restart by the launcher, so that it does not overwrite the report of the attempt that failed.
    """
    stem = re.sub(r"[^\w.-]+", "-", program).strip("-.") or "report"
    if place is None:
        return f"{stem}.json"
    of = "" if place.world is None else f"-of-{place.world}"
    again = f".restart{place.restart}" if place.restart else ""
    return f"{stem}.rank{place.rank}{of}{again}.json"


def make_folder(folder: Path) -> None:
    """Make the folder now: that it cannot be made should be known before the program runs, not hours later.

    :raises BadInputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"`{folder}` cannot be made a folder for reports ({error.strerror}).") from None


def save(report: Report, folder: Path, program: str, place: Place | None) -> Path:
    """Write the report, completely or not at all.

    :raises OSError: it cannot be written.
    """
    path = folder / file_name(program, place)
    to_text(report, path)
    return path
