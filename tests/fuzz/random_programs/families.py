"""The table of all kinds, and programs by number."""

from __future__ import annotations

from random_programs.benign import forward, state, training
from random_programs.draft import Draft, Kind
from random_programs.loud import refused, saved
from random_programs.silent import (
    aliases,
    checkpoints,
    copies,
    functions,
    held_out,
    hooks,
    kept,
    norms,
    optimizers,
    overlap,
)
from random_programs.text import Program

FAMILIES: dict[str, dict[str, Kind]] = {
    "silent": {
        **aliases.KINDS,
        **functions.KINDS,
        **checkpoints.KINDS,
        **optimizers.KINDS,
        **norms.KINDS,
        **hooks.KINDS,
        **overlap.KINDS,
        **copies.KINDS,
        **kept.KINDS,
    },
    "benign": {**state.KINDS, **training.KINDS, **forward.KINDS},
    "loud": {**saved.KINDS, **refused.KINDS},
}
#: Kept aside until the detectors are finished: no default run makes them.
HELD_OUT: dict[str, dict[str, Kind]] = {"held_out": held_out.KINDS}


def program(family: str, number: int, kind: str | None = None) -> Program:
    """The program of a number. The kinds of a family take turns, so that each gets its share."""
    kinds = (FAMILIES | HELD_OUT)[family]
    name = kind or list(kinds)[number % len(kinds)]
    draft = Draft(number)
    kinds[name](draft)
    return Program(family, name, number, draft.text)
