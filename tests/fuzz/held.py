"""The kinds whose figure was perfect: from then on they are asserted. A kind is moved here when it was mended."""

from __future__ import annotations

from collections.abc import Mapping

from tally import DISCARDED, Count

HELD: Mapping[str, frozenset[str]] = {
    "silent": frozenset(),
    "benign": frozenset(),
    "loud": frozenset(),
    "held_out": frozenset(),
}


def failures(counts: Mapping[str, Count], family: str) -> list[str]:
    """What the watch got wrong of the kinds that are held."""
    return [
        f"{family} {kind}: {', '.join(f'{n} {fault}' for fault, n in count.faults.items() if n)}, of {count.programs} programs"
        for kind, count in counts.items()
        if kind in HELD[family] and count.wrong
    ]


def broken_rules(counts: Mapping[str, Count], family: str) -> list[str]:
    """What the generators got wrong: a benign program that is harmful, too many that were discarded."""
    lines = []
    for kind, count in counts.items():
        if family == "benign" and count.harmful + count.raised:
            lines.append(f"benign {kind}: {count.harmful + count.raised} programs are harmful")
        if count.programs >= 100 and count.discarded > DISCARDED * count.programs:
            lines.append(f"{family} {kind}: {count.discarded} of {count.programs} programs discarded")
    return lines
