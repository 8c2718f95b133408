"""The part of the record that one watch covers."""

from __future__ import annotations

import dataclasses

from jupyter_inplace.report.data import Cell


@dataclasses.dataclass(frozen=True)
class WatchSpan:
    """A range of program order in the record, and the source that ran in it.

    :param started: seconds on the record's clock when the watch began.
    :param cell: the watched cell, None outside a notebook; `cell_file` is the file name of its code.
    :param block: outside a cell, the file and line of the statement that opened the watch.
    """

    start: int
    end: int
    started: float
    cell: Cell | None = None
    cell_file: str | None = None
    block: tuple[str, int] | None = None

    def __contains__(self, order: int) -> bool:
        return self.start <= order <= self.end

    @property
    def cell_source(self) -> str | None:
        return None if self.cell is None else self.cell.source
