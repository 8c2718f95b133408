"""One program as marked text: the cell that is watched, the lines of its writes, and the source that the oracle runs.

The text is Python with three marks. They stand for what the program's author means and torch cannot see:

- ``‹expression›``: a value that the program holds constant, such as ``x.detach()`` or ``w.grad``. The cell has the expression
  alone, the oracle's source ``hold(expression)``.
- a line ``#: statement``: run by the oracle and absent from the cell. It belongs to the line above it.
- ``  #!`` at the end of a line: the line is one of the write that the program is about.
"""

from __future__ import annotations

import dataclasses
import functools
import re

_HELD = re.compile("‹([^‹›]*)›")
ORACLE_ONLY = "#: "
WRITE = "  #!"


@dataclasses.dataclass(frozen=True)
class Program:
    """A random program.

    :param family: ``"silent"``, ``"benign"`` or ``"loud"``.
    :param kind: the way of writing, or the idiom.
    :param seed: what the generator was given; 0 for a program that was reduced or written by hand.
    :param text: the marked text.
    """

    family: str
    kind: str
    seed: int
    text: str

    @functools.cached_property
    def cell(self) -> str:
        """The program as a person writes it."""
        lines = [line for line in self.text.splitlines() if not line.lstrip().startswith(ORACLE_ONLY)]
        return "".join(_without_held(line.removesuffix(WRITE)) + "\n" for line in lines)

    @functools.cached_property
    def write_lines(self) -> frozenset[int]:
        """The lines of `cell`, counted from 1, that the writes stand on."""
        lines = [line for line in self.text.splitlines() if not line.lstrip().startswith(ORACLE_ONLY)]
        return frozenset(i for i, line in enumerate(lines, 1) if line.endswith(WRITE))

    @functools.cached_property
    def oracle_source(self) -> str:
        """The program as the oracle runs it."""
        out = []
        for line in self.text.splitlines():
            line = line.removesuffix(WRITE).replace(ORACLE_ONLY, "", 1)
            while "‹" in line:  # held values stand in one another: the innermost first
                line = _HELD.sub(r"hold(\1)", line)
            out.append(line + "\n")
        return "".join(out)

    @functools.cached_property
    def oracle_write_lines(self) -> frozenset[int]:
        """The lines of `oracle_source` that the writes stand on."""
        return frozenset(i for i, line in enumerate(self.text.splitlines(), 1) if line.endswith(WRITE))

    def with_text(self, text: str) -> Program:
        return dataclasses.replace(self, text=text, seed=0)


def _without_held(line: str) -> str:
    return line.replace("‹", "").replace("›", "")


def dump(program: Program) -> str:
    """The file of a program that is kept."""
    return f"# {program.family} / {program.kind} / {program.seed}\n{program.text}"


def load(file_text: str) -> Program:
    """What `dump` wrote."""
    head, _, text = file_text.partition("\n")
    family, kind, seed = head.removeprefix("# ").split(" / ")
    return Program(family, kind, int(seed), text)
