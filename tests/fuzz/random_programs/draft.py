"""A program while it is written: its lines, the names in scope, and the stream that decides."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from random_programs.text import ORACLE_ONLY, WRITE

Item = TypeVar("Item")


class Draft:
    """Lines of marked text, added one after the other.

    All values that are combined with each other have one shape, `rows` by `columns`, so that any may stand for any.

    :ivar values: names of values that have a graph, the newest last.
    :ivar leaves: names of leaves of that shape.
    :ivar square: names of leaves of shape columns by columns.
    :ivar modules: names of modules that map the shape to itself.
    :ivar functions: names of functions of two values.
    :ivar constants: names of tensors of that shape without a graph, none of them near zero.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.lines: list[str] = []
        self.rows = self.rng.randint(2, 4)
        self.columns = self.rng.randint(3, 4)
        self.values: list[str] = []
        self.leaves: list[str] = []
        self.square: list[str] = []
        self.modules: list[str] = []
        self.functions: list[str] = []
        self.constants: list[str] = []
        self._indent = 0
        self._counts: dict[str, int] = {}

    @property
    def text(self) -> str:
        return "".join(line + "\n" for line in self.lines)

    def add(self, *lines: str) -> None:
        """Add statements at the current indentation. A line that ends in ``#!`` is one of the write's."""
        for line in lines:
            self.lines.append("    " * self._indent + line)

    def add_early(self, target: str, line: str, p: float = 0.35) -> None:
        """Add a statement that needs `target` alone: here, or now and then right where `target` was bound, if that is in this block."""
        place = len(self.lines)
        indent = "    " * self._indent
        if self.chance(p):
            for i in range(len(self.lines) - 1, -1, -1):
                if not self.lines[i].startswith(indent):
                    break
                if self.lines[i].startswith(f"{indent}{target} = "):
                    place = i + 1
                    while place < len(self.lines) and self.lines[place].lstrip().startswith(ORACLE_ONLY):
                        place += 1
                    break
        self.lines.insert(place, indent + line)

    def write(self, line: str) -> None:
        """Add a statement that is the write."""
        self.add(line + WRITE)

    def oracle(self, line: str) -> None:
        """Add a statement for the oracle alone."""
        self.add(ORACLE_ONLY + line)

    @contextlib.contextmanager
    def block(self, head: str | None) -> Iterator[None]:
        """An indented block; none where `head` is None."""
        if head is None:
            yield
            return
        self.add(head)
        self._indent += 1
        yield
        self._indent -= 1

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """What is made within is not in scope after it."""
        before = list(self.values)
        yield
        self.values = before

    def name(self, prefix: str) -> str:
        """A name that nothing has."""
        count = self._counts.get(prefix, 0)
        self._counts[prefix] = count + 1
        return f"{prefix}{count}"

    def pick(self, choices: Sequence[Item]) -> Item:
        return self.rng.choice(choices)

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def number(self, *choices: float) -> str:
        """A factor that is not near one."""
        return repr(self.rng.choice(choices or (0.25, 0.5, 1.5, 2.0, 3.0)))

    def value(self) -> str:
        """A value with a graph, or a leaf."""
        return self.pick([*self.values, *self.leaves])

    @property
    def parameters(self) -> str:
        """The expressions of all leaves, as the items of a list."""
        return ", ".join([*self.leaves, *self.square, *(f"*{module}.parameters()" for module in self.modules)])


#: What writes the programs of one kind.
Kind = Callable[[Draft], None]
