"""What a loop is to the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

Run = Callable[[int], object]


class Running(NamedTuple):
    """A loop with more to it than a function.

    :param run: so many rounds.
    :param before: what must be done before so many rounds, off the clock.
    :param close: called at the end.
    """

    run: Run
    before: Run
    close: Callable[[], object]


@dataclass(frozen=True)
class Loop:
    """A loop: its name, how many rounds of it the clock sees, and what makes it.

    :param large: its kernels are large: the time of an operation is not that of launching it.
    """

    name: str
    count: int
    make: Callable[[], Run | Running]
    large: bool = False


@dataclass
class Loops:
    """The loops of a file, collected by a decorator."""

    found: list[Loop] = field(default_factory=list)

    def __call__(self, name: str, count: int, *, large: bool = False) -> Callable[[Callable[[], Run | Running]], None]:
        def add(make: Callable[[], Run | Running]) -> None:
            self.found.append(Loop(name, count, make, large))

        return add
