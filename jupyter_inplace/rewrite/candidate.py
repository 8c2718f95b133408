"""One rewrite of a cell, before anything is proved about it."""

from __future__ import annotations

from dataclasses import dataclass, field

from jupyter_inplace.report.data import FixKind, Reading
from jupyter_inplace.rewrite.syntax.edit import Edit

__all__ = ["Candidate"]


@dataclass(frozen=True)
class Candidate:
    """A rewrite that may cure some harmful writes; whether it does is for the proof to say.

    :param title: what a person reads.
    :param source: the whole new cell, its magic lines kept.
    :param diff: from the cell to `source`, a unified diff.
    :param mutations: the ids of the writes that it is meant to cure.
    :param reading: for rejected writes, ``update`` (the leaf itself changes) or ``copy`` (a new tensor goes on).
    :param edited_lines: lines that a person would have to change by hand.
    :param edits: of the cell without its magic lines, which gave `source`.
    """

    kind: FixKind
    title: str
    source: str
    diff: str
    mutations: tuple[int, ...]
    reading: Reading | None
    edited_lines: int
    edits: tuple[Edit, ...] = field(default=(), repr=False, compare=False)
