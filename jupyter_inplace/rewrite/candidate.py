"""One rewrite of a cell, before anything is proved about it."""

from __future__ import annotations

from dataclasses import dataclass, field

from jupyter_inplace.report.data import FixKind, Reading
from jupyter_inplace.rewrite.syntax.edit import Edit

__all__ = ["Candidate"]


@dataclass(frozen=True)
class Candidate:
    """A rewrite that may fix some harmful writes; the proof decides whether it does.

    :param title: shown to the user.
    :param source: the whole new cell, its magic lines kept.
    :param diff: from the cell to `source`, a unified diff.
    :param mutations: the ids of the writes that it should fix.
    :param reading: for rejected writes, ``update`` (the leaf itself changes) or ``copy`` (a new tensor is used from there on).
    :param edited_lines: how many lines a person would have to change by hand.
    :param edits: the edits of the cell without its magic lines that gave `source`.
    """

    kind: FixKind
    title: str
    source: str
    diff: str
    mutations: tuple[int, ...]
    reading: Reading | None
    edited_lines: int
    edits: tuple[Edit, ...] = field(default=(), repr=False, compare=False)
