"""Loops as people write them: what the watch costs, beside an empty dispatch mode and anomaly mode, and how the cost grows.

Modes take turns in one process. Timed is the CPU time of the thread, inside of the `with` alone, the best of several rounds: what a
loader's workers, gloo's threads and other processes do meanwhile is not counted. The growth is what twice the length costs under the
watch: 2 where each round costs the same.

    python -m benchmarks.loops [--rounds N] [--only NAME] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from time import thread_time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks.loop_kinds import LOOPS
from benchmarks.loop_kinds.loop import Loop, Running
from benchmarks.modes import ANOMALY, EMPTY, PLAIN, WATCH, EmptyMode
from benchmarks.targets import Target, grid, judge
from jupyter_inplace.magic.warm import warm_up
from jupyter_inplace.watch import watch

TWICE = "watch, twice as long"
RATIO, RATIO_LARGE, GROWTH = 1.5, 1.05, 2.1
_WARM = (
    3  # rounds in each mode before the clock counts: what is done once (compiling, naming tasks) is no cost of a round
)


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """The magic's defaults, but for the copy of the state from before the cell."""
    with watch(namespace={}, verify=False) as report:
        yield
    if report.verdict not in ("harmless", "mixes"):
        raise AssertionError(f"the watch is expected to find nothing: {report}")


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    PLAIN: contextlib.nullcontext,
    WATCH: _watched,
    TWICE: _watched,
    EMPTY: EmptyMode,
    ANOMALY: lambda: torch.autograd.set_detect_anomaly(mode=True, check_nan=True),
}


def measure(loop: Loop, rounds: int) -> dict[str, float]:
    """Seconds of CPU time of the loop in each mode: the best of `rounds`."""
    torch.manual_seed(0)
    made = loop.make()
    running = made if isinstance(made, Running) else Running(made, lambda _: None, lambda: None)
    best = dict.fromkeys(MODES, float("inf"))
    names = list(MODES)
    try:
        for turn in range(rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                best[name] = min(best[name], _once(running, name, loop.count))
    finally:
        running.close()
    return best


def _once(running: Running, name: str, count: int) -> float:
    if name == TWICE:
        count *= 2
    gc.collect()
    with MODES[name]():
        running.before(_WARM)
        running.run(_WARM)
        running.before(count)
        start = thread_time()
        running.run(count)
        return thread_time() - start


def table(found: dict[Loop, dict[str, float]]) -> str:
    """A row for each loop: ratios to plain, and the growth."""
    rows = []
    for loop, best in found.items():
        ratios = [f"{best[name] / best[PLAIN]:.2f}" for name in (WATCH, EMPTY, ANOMALY)]
        growth = best[TWICE] / best[WATCH]
        plain = best[PLAIN] / loop.count * 1e6
        rows.append([loop.name, f"{loop.count}", f"{plain:,.0f}", *ratios, f"{growth:.2f}"])
    heads = ["loop", "rounds", "plain us a round", "watch", "empty mode", "anomaly", "growth for twice"]
    return grid(heads, rows)


def targets(loop: Loop, best: dict[str, float]) -> list[Target]:
    """What the loop is held against."""
    ratio = best[WATCH] / best[PLAIN]
    return [
        Target(f"{loop.name}: of plain", ratio, RATIO_LARGE if loop.large else RATIO),
        Target(f"{loop.name}: of the empty mode", ratio, round(best[EMPTY] / best[PLAIN], 3)),
        Target(f"{loop.name}: growth for twice the length", best[TWICE] / best[WATCH], GROWTH),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Print the table and whether each target is met; 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each mode; the best counts")
    parser.add_argument("--only", default="", help="loops whose name contains this")
    parser.add_argument("--json", type=Path, help="file for the seconds of each loop")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warm_up()  # as a notebook does, behind the cell that imports torch
    warnings.filterwarnings("ignore", message="Anomaly Detection")
    found = {loop: measure(loop, options.rounds) for loop in LOOPS if options.only.lower() in loop.name.lower()}
    print(table(found), end="\n\n")
    if options.json is not None:
        options.json.write_text(json.dumps({loop.name: best for loop, best in found.items()}, indent=1))
    return judge([target for loop, best in found.items() for target in targets(loop, best)])


if __name__ == "__main__":
    sys.exit(main())
