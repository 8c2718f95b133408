"""Many programs: in several processes, counted by kind, failures reduced and written out."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import gc
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from against import FAULTS, Result, examine
from random_programs.families import FAMILIES, HELD_OUT, program
from random_programs.reduce import reduce
from random_programs.text import Program, dump

#: At most this part of a kind's programs may be discarded.
DISCARDED = 0.05
_CHUNK = 50


@dataclasses.dataclass
class Count:
    """What came of the programs of one kind.

    :ivar harmful: by the oracle, other than by an error.
    :ivar raised: harmful because torch raises.
    """

    programs: int = 0
    discarded: int = 0
    harmful: int = 0
    raised: int = 0
    faults: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(FAULTS, 0))

    @property
    def wrong(self) -> int:
        """How many answers about harm were wrong."""
        return sum(count for fault, count in self.faults.items() if fault != "versions")

    def add(self, result: Result) -> None:
        self.programs += 1
        self.discarded += result.judgement.harmful is None
        by_error = result.judgement.reason in ("raises", "refused")
        self.raised += by_error
        self.harmful += bool(result.judgement.harmful) and not by_error
        for fault in result.faults:
            self.faults[fault] += 1


def examine_many(family: str, first: int, count: int, kinds: Sequence[str] = (), jobs: int = 1) -> Iterator[Result]:
    """The results of the programs `first` to ``first + count - 1`` of a family, in this order for one job."""
    chunks = [(family, at, min(_CHUNK, first + count - at), tuple(kinds)) for at in range(first, first + count, _CHUNK)]
    if jobs == 1:
        for chunk in chunks:
            yield from _examine_chunk(*chunk)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, context, initializer=_start) as pool:
        for results in pool.map(_examine_chunk, *zip(*chunks, strict=True)):
            yield from results


def _start() -> None:
    torch.set_num_threads(1)
    gc.freeze()


def _examine_chunk(family: str, first: int, count: int, kinds: tuple[str, ...]) -> list[Result]:
    results = []
    for number in range(first, first + count):
        kind = kinds[number % len(kinds)] if kinds else None
        results.append(examine(program(family, number, kind)))
    gc.collect()  # a program's functions, hooks and graphs are cycles
    return results


def counted(results: Sequence[Result], family: str) -> dict[str, Count]:
    """The counts of each kind, in the family's order."""
    counts = {kind: Count() for kind in (FAMILIES | HELD_OUT)[family]}
    for result in results:
        counts[result.program.kind].add(result)
    return {kind: count for kind, count in counts.items() if count.programs}


def table(counts: dict[str, Count]) -> str:
    """A table in Markdown, the sum below."""
    heads = ("kind", "programs", "discarded", "harmful by differences", "harmful, raises", *FAULTS)
    total = Count()
    rows = []
    for kind, count in counts.items():
        rows.append((kind, count))
        for field in ("programs", "discarded", "harmful", "raised"):
            setattr(total, field, getattr(total, field) + getattr(count, field))
        for fault in FAULTS:
            total.faults[fault] += count.faults[fault]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" + "---:|" * (len(heads) - 1)]
    for kind, count in [*rows, ("all", total)]:
        numbers = (count.programs, count.discarded, count.harmful, count.raised, *count.faults.values())
        lines.append(f"| {kind} | " + " | ".join(map(str, numbers)) + " |")
    return "\n".join(lines)


def write_out(results: Sequence[Result], folder: Path, seconds: float = 20.0, each: int = 2) -> list[Path]:
    """Reduce failing programs, so many of each kind and fault, and write them into a folder. Returns the files."""
    done: dict[tuple[str, str], int] = {}
    files = []
    for result in results:
        for fault in result.faults:
            key = (result.program.kind, fault)
            done[key] = done.get(key, 0) + 1
            if done[key] <= each:
                folder.mkdir(parents=True, exist_ok=True)
                files.append(_write_one(result, fault, folder, seconds))
    return files


def _write_one(result: Result, fault: str, folder: Path, seconds: float) -> Path:
    harmful, reason = result.judgement.harmful, result.judgement.reason

    def fails(candidate: Program) -> bool:
        if fault != "versions" and not candidate.write_lines and result.program.write_lines:
            return False
        again = examine(candidate)
        return again.judgement.harmful == harmful and again.judgement.reason == reason and fault in again.faults

    smallest = reduce(result.program, fails, seconds) if fault != "crash" or fails(result.program) else result.program
    kind = f"{smallest.family}-{smallest.kind}-{fault.replace(' ', '-')}-{result.program.seed}"
    file = folder / f"{kind}.txt"
    file.write_text(dump(smallest), encoding="utf-8")
    return file


def jobs_wanted() -> int:
    return int(os.environ.get("JOBS", "1"))
