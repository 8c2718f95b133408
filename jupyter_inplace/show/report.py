"""The public report: the data of `jupyter_inplace.report.data` with the methods that people call.

`import jupyter_inplace` imports this module, so everything but the data is imported only when a method needs it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from jupyter_inplace._version import __version__
from jupyter_inplace.report import data

if TYPE_CHECKING:
    from pathlib import Path

    from jupyter_inplace.show.panel import Panel

__all__ = ["InplaceError", "Report", "load"]


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Report(data.Report):
    """What a watch found. `print` it, show it in a notebook, save it, or assert on it.

    ```python
    with watch("loss1", "loss2") as report:
        ...
    report.raise_for_verdict("cuts")  # InplaceError where a gradient was harmed
    ```

    :param rank: the process of a job that it comes from; `world` is how many processes the job has.
    :param ranks: in a merged report, the ranks that it comes from.
    :param watched_steps: in a report of watched steps, how many were watched, and how many there were.
    """

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON data."""
        from jupyter_inplace.report.files import to_data

        return to_data(self)

    @classmethod
    def from_dict(cls, data: Any) -> Report:
        """Read back what `to_dict` returned. Fields that only later versions know are skipped.

        :raises ValueError: `data` is not a report, or has another format version.
        """
        from jupyter_inplace.report.files import from_data

        return from_data(cls, data)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """The report as JSON text; also written to `path` if one is given, completely or not at all."""
        from jupyter_inplace.report.files import to_text

        return to_text(self, path)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """The report as one self-contained HTML fragment without scripts.

        If `path` is given, a page with the fragment is written there, completely or not at all.
        """
        from jupyter_inplace.report.files import write_whole
        from jupyter_inplace.show.html import page as html

        fragment = html.render(self)
        if path is not None:
            write_whole(path, html.page(fragment, title=f"In-place writes: {self.verdict}"))
        return fragment

    def portable(self) -> Report:
        """The same report without absolute paths, and without source text from files outside of the cell.

        The display bundle, which notebooks save, is made from it.
        """
        from jupyter_inplace.report.portable import portable

        return portable(self)

    def apply(self, fix_id: int) -> str:
        """Replace the cell that calls this by the fix with this `id`; in a script, print what it changes.

        :return: the new source of the watched cell.
        :raises ValueError: there is no such fix, or the watched cell has been edited since.
        """
        from jupyter_inplace.show.apply import apply

        return apply(self, fix_id)

    def panel(self) -> Panel:
        """The panel as a widget, to show on its own or together with other ipywidgets.

        :raises ImportError: ipywidgets and anywidget are not installed.
        """
        from jupyter_inplace.show.panel import Panel

        return Panel(self)

    def raise_for_verdict(self, at: data.Verdict = "corrupts") -> None:
        """Do nothing if the verdict is better than `at`, and known.

        :param at: ``"cuts"`` is the mildest verdict that harms a gradient.
        :raises InplaceError: the verdict is `at` or worse, or it is ``"unknown"``: then nobody can tell whether it is.
        :raises ValueError: `at` is no verdict.
        """
        if data.reaches(self.verdict, at) or self.verdict == "unknown":
            raise InplaceError(self)

    def __str__(self) -> str:
        from jupyter_inplace.show import text

        return text.render(self)

    def _repr_mimebundle_(self, **_wanted: Any) -> dict[str, Any]:
        from jupyter_inplace.show.bundle import mimebundle

        return mimebundle(self)


def public(report: data.Report) -> Report:
    """The public report with the same data; a public report is returned as it is."""
    if isinstance(report, Report):
        return report
    return Report(**{f.name: getattr(report, f.name) for f in fields(report)})


def nothing_ran(cell: data.Cell | None = None) -> Report:
    """The report of a program, or of a `cell`, that used no framework."""
    from jupyter_inplace.report.summary import build_summary

    return Report(tool=__version__, cell=cell, summary=build_summary((), framework_used=False), nothing_ran=True)


class InplaceError(Exception):
    """In-place writes broke gradients, or it is not known that none did. Its text is the report's; `report` is the report."""

    def __init__(self, report: Report) -> None:
        super().__init__(report)  # as its argument, since exceptions are pickled by their arguments
        self.report = report

    def __str__(self) -> str:
        return str(self.report)


def load(path: str | os.PathLike[str]) -> Report:
    """Read a report that `Report.to_json` wrote; several are merged (see `jupyter_inplace.merge.merge`).

    :param path: a file, a folder of reports, or a pattern such as ``"reports/*.json"``.
    :raises FileNotFoundError: nothing is there.
    :raises ValueError: a file is truncated, is not a report, or has another version; or the reports do not belong together.
    """
    from jupyter_inplace.report.files import find_files

    found = [_load_one(file) for file in find_files(path)]
    if len(found) == 1:
        return found[0]
    from jupyter_inplace.report.merge import merge

    try:
        return merge(found)
    except ValueError as error:
        raise ValueError(f"`{os.fspath(path)}` matches {error}") from None


def _load_one(file: Path) -> Report:
    from jupyter_inplace.report.files import read_file

    content = read_file(file)
    try:
        return Report.from_dict(content)
    except ValueError as error:
        raise ValueError(f"`{file}` is {error}") from None
