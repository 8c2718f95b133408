"""Compares two runs of a cell, event by event in program order."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from jupyter_inplace.rewrite.proof.events import Event, Kept
from jupyter_inplace.rewrite.proof.values import Value, compare

_SLOPE = {"float64": 1e-5, "float32": 2e-3, "float16": 5e-2, "bfloat16": 1e-1}


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first place at which two runs differ.

    :param words: as the end of a sentence, such as "the gradient of `w` differs by 0.5 at backward call 2".
    """

    words: str


def losses(
    calls: Sequence[Event], reference: Sequence[Event], complete: bool, skip: Container[int] = ()
) -> Mismatch | None:
    """Compare the roots that the engine started from, call by call.

    :param complete: both runs reached their end, so that the number of calls must be equal too.
    :param skip: indices of calls whose roots were themselves damaged.
    """
    for place, (call, other) in enumerate(zip(calls, reference, strict=False), 1):
        if place - 1 in skip:
            continue
        if len(call.roots) != len(other.roots):
            return Mismatch(
                f"backward call {place} starts from {len(call.roots)} tensors instead of {len(other.roots)}"
            )
        for value, wanted in zip(call.roots, other.roots, strict=True):
            difference = compare(value, wanted)
            if not difference.equal:
                return Mismatch(f"the loss of backward call {place} differs{_by(difference.relative)}")
    return _count(calls, reference, complete)


def gradients(calls: Sequence[Event], reference: Sequence[Event], complete: bool) -> Mismatch | None:
    """Compare gradients after each engine call."""
    for place, (call, other) in enumerate(zip(calls, reference, strict=False), 1):
        found = _gradients(call.gradients, other.gradients)
        if found:
            return Mismatch(f"{found} at backward call {place}")
    return _count(calls, reference, complete)


def steps(taken: Sequence[Event], reference: Sequence[Event], complete: bool) -> Mismatch | None:
    """Compare the gradients that each optimizer used, step by step."""
    for name in dict.fromkeys(event.name for event in reference):
        ours = [event for event in taken if event.name == name]
        theirs = [event for event in reference if event.name == name]
        for place, (step, other) in enumerate(zip(ours, theirs, strict=False), 1):
            found = _gradients(step.gradients, other.gradients)
            if found:
                return Mismatch(f"{found} at step {place} of {name}")
        if complete and len(ours) != len(theirs):
            return Mismatch(f"{name} makes {len(ours)} steps instead of {len(theirs)}")
    return None


def slopes(calls: Sequence[Event], reference: Sequence[Event], complete: bool) -> Mismatch | None:
    """Compare gradients with derivatives by finite differences, each along the direction of its leaf."""
    for place, (call, other) in enumerate(zip(calls, reference, strict=False), 1):
        for leaf, (_, slope) in other.derivatives.items():
            if not agrees(call, leaf, slope):
                return Mismatch(f"the gradient of `{leaf}` differs from finite differences at backward call {place}")
    return _count(calls, reference, complete)


def agrees(call: Event, leaf: str, slope: float) -> bool:
    """Whether the gradient that a call gave a leaf has this component along the leaf's direction."""
    value = call.gradients.get(leaf)
    norm = value.norm if value is not None else 0.0
    tolerance = _SLOPE.get(value.dtype, 2e-3) if value is not None else 2e-3
    if value is None and call.kind == "grad":
        return True  # not requested
    return abs(call.along.get(leaf, 0.0) - slope) <= tolerance * max(norm, abs(slope)) + 1e-7


def endings(kept: Mapping[str, Kept], reference: Mapping[str, Kept]) -> tuple[str, ...]:
    """The names of what outlives the cell with other values than in the reference."""
    differing = []
    for name, wanted in reference.items():
        found = kept.get(name)
        same = found is not None and found.leaf == wanted.leaf and compare(found.value, wanted.value).equal
        if not same:
            differing.append(name)
    return tuple(differing)


def last_gradients(kept: Mapping[str, Kept], reference: Mapping[str, Kept]) -> Mismatch | None:
    """Compare the `.grad` of each leaf at the end of the cell."""
    wanted = {name: entry.gradient for name, entry in reference.items() if entry.leaf is not None}
    found = _gradients({name: entry.gradient for name, entry in kept.items()}, wanted)
    return Mismatch(f"{found} when the cell is over") if found else None


def _gradients(found: Mapping[str, Value | None], wanted: Mapping[str, Value | None]) -> str | None:
    scale = max((value.norm for value in wanted.values() if value is not None), default=0.0)
    for leaf, reference in wanted.items():
        if leaf not in found and reference is None:
            continue
        difference = compare(found.get(leaf), reference, scale)
        if not difference.equal:
            if found.get(leaf) is None:
                return f"`{leaf}` has no gradient"
            if reference is None:
                return f"`{leaf}` has a gradient where there should be none"
            return f"the gradient of `{leaf}` differs{_by(difference.relative)}"
    return None


def _by(relative: float) -> str:
    return f" by {relative:.2g}" if math.isfinite(relative) else ""


def _count(calls: Sequence[Event], reference: Sequence[Event], complete: bool) -> Mismatch | None:
    if complete and len(calls) != len(reference):
        return Mismatch(f"it makes {len(calls)} backward calls instead of {len(reference)}")
    return None
