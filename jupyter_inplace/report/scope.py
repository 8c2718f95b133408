"""How a merged report speaks of its ranks and watched steps."""

from __future__ import annotations

from collections.abc import Collection

from jupyter_inplace.report.data import Mutation


def own_note(m: Mutation) -> str | None:
    """The note of a write without the part that an earlier merge added."""
    return m.own_note if m.ranks or m.steps is not None else m.note


def rank_note(m: Mutation, ranks: tuple[int, ...]) -> str | None:
    """``on all 4 ranks``, ``on rank 1 only``, ``3 on rank 0, 4 on rank 1``."""
    if not ranks:
        return None
    counts = {c.rank: c.count for c in m.ranks}
    if set(counts) != set(ranks):
        return f"on {ranks_named(set(counts))} only" if counts else None
    if len(set(counts.values())) == 1 or len(ranks) > 8:
        return f"on {all_ranks(ranks)}"
    return ", ".join(f"{count:,} on rank {rank}" for rank, count in counts.items())


def step_note(m: Mutation, counted: tuple[int, ...]) -> str | None:
    """``in 3 of 10 watched steps``."""
    return None if not counted or m.steps is None else f"in {m.steps:,} of {counted[0]:,} watched steps"


def all_ranks(ranks: tuple[int, ...]) -> str:
    """``both ranks``, ``all 4 ranks``."""
    return "both ranks" if len(ranks) == 2 else f"all {len(ranks)} ranks"


def ranks_named(ranks: Collection[int | None]) -> str:
    """``rank 1``, ``ranks 0 and 2``."""
    known = sorted(r for r in ranks if r is not None)
    return f"rank{'' if len(known) == 1 else 's'} {numbers(tuple(known))}" if known else "no rank"


def numbers(ranks: tuple[int, ...]) -> str:
    """``0``, ``0 and 1``, ``0 to 7``, ``0, 2 and 5``."""
    if len(ranks) > 2 and ranks[-1] - ranks[0] == len(ranks) - 1:
        return f"{ranks[0]} to {ranks[-1]}"
    texts = [str(r) for r in ranks]
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)
