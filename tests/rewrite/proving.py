"""Runs a cell under a watch with a snapshot from before it, and proves hand-written rewrites of it."""

import dataclasses
import linecache
import time
from typing import Literal

from jupyter_inplace.report import Cell
from jupyter_inplace.rewrite.proof.prove import prove
from jupyter_inplace.rewrite.sandbox.snapshot import Snapshot
from jupyter_inplace.watch import watch

FILE = "<cell>"


@dataclasses.dataclass(frozen=True)
class Rewrite:
    """A candidate as the rules make them."""

    source: str
    kind: str = "clone"
    title: str = "a rewrite"
    diff: str = ""
    mutations: tuple[int, ...] = (0,)
    reading: Literal["update", "copy"] | None = None
    edited_lines: int = 1


def observe(cell, _names, take=Snapshot.take):
    """Run `cell` watched in a namespace; give the report and the snapshot from before it."""
    # The underscore hides the dictionary: the watch would name tensors by way of this function's locals.
    snapshot = take(_names)
    linecache.cache[FILE] = (len(cell), None, cell.splitlines(keepends=True), FILE)
    watching = watch(cell=Cell(source=cell), cell_file=FILE, namespace=lambda: _names)
    watching.start()
    raised = None
    try:
        exec(compile(cell, FILE, "exec"), _names)
    except Exception as error:
        raised = error
    return watching.stop(raised), snapshot


def attempt(cell, *rewrites, before="", take=Snapshot.take, **options):
    """The verification of each rewrite, given as an `(old, new)` replacement or as a whole source."""
    _names = {"__name__": "__main__"}
    exec(before, _names)
    began = time.perf_counter()
    report, snapshot = observe(cell, _names, take)
    options.setdefault("cell_seconds", time.perf_counter() - began)
    candidates = []
    for rewrite in rewrites:
        if isinstance(rewrite, tuple):
            old, new = rewrite
            assert old in cell
            rewrite = Rewrite(cell.replace(old, new))
        elif isinstance(rewrite, str):
            rewrite = Rewrite(rewrite)
        candidates.append(rewrite)
    with snapshot:
        fixes = prove(cell, report, candidates, snapshot, **options)
    by_number = sorted(fixes, key=lambda fix: fix.id)
    return [fix.verification for fix in by_number]
