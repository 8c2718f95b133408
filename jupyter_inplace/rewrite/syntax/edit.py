"""Text edits of a source, and their unified diff."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Edit", "EditConflictError", "apply_edits", "edited_lines", "unified_diff"]


@dataclass(frozen=True, order=True)
class Edit:
    """Replace the characters from `start` to `end` of a source with `text`; an insertion if both are equal."""

    start: int
    end: int
    text: str


class EditConflictError(ValueError):
    """Two edits overlap."""


def apply_edits(source: str, edits: Iterable[Edit]) -> str:
    """`source` with all `edits` applied; their positions refer to the text before any of them.

    Equal edits count once; several insertions at one position keep their order.

    :raises EditConflictError: two edits overlap.
    """
    unique = list(dict.fromkeys(edits))
    ordered = sorted(unique, key=lambda edit: (edit.start, edit.end))
    out: list[str] = []
    at = 0
    for edit in ordered:
        if edit.start < at:
            raise EditConflictError(f"edits overlap at character {edit.start}")
        out += [source[at : edit.start], edit.text]
        at = edit.end
    return "".join([*out, source[at:]])


def unified_diff(before: str, after: str) -> str:
    """The difference as a unified diff of whole lines with three lines of context; empty if there is none."""
    lines = difflib.unified_diff(_lines(before), _lines(after), "before", "after", n=3)
    return "".join(lines)


def edited_lines(before: str, after: str) -> int:
    """How many lines a person would have to change: those that the diff adds or removes, a changed line once."""
    matcher = difflib.SequenceMatcher(None, _lines(before), _lines(after), autojunk=False)
    return sum(max(i2 - i1, j2 - j1) for tag, i1, i2, j1, j2 in matcher.get_opcodes() if tag != "equal")


def _lines(text: str) -> list[str]:
    return [line + "\n" for line in text.removesuffix("\n").split("\n")]
