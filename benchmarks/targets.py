"""What a figure is measured against, said in the same words by every benchmark."""

from __future__ import annotations

import sys
from typing import NamedTuple


class Target(NamedTuple):
    """One figure and the most that it may be, in `unit`."""

    name: str
    figure: float
    limit: float
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.figure <= self.limit

    def __str__(self) -> str:
        word = "met" if self.met else "MISSED"
        return f"{word:<7}{self.name}: {self.figure:.3g}{self.unit} (at most {self.limit:g}{self.unit})"


def judge(targets: list[Target]) -> int:
    """Print each target; 1 where one is missed."""
    for target in targets:
        print(target, file=sys.stdout if target.met else sys.stderr)
    return int(not all(target.met for target in targets))


def grid(heads: list[str], rows: list[list[str]]) -> str:
    """A table with right-aligned columns, the first left-aligned."""
    widths = [max(len(line[i]) for line in [heads, *rows]) for i in range(len(heads))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [heads, *rows]
    )
