"""What a watch costs as the work grows: writes in a loop, nodes of a graph, tasks times leaves, steps of a training loop.

    python -m benchmarks.scale [--most 1000000] [--seconds 120] [--only writes|graphs|tasks|training]

Times are CPU time on one thread, given as what the watch adds to the plain run.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks.programs import CELL_FILE, PROGRAMS
from benchmarks.targets import Target, grid, judge
from jupyter_inplace.explain.backward import task_gradients
from jupyter_inplace.explain.backward.analyst import Analyst
from jupyter_inplace.magic.warm import warm_up
from jupyter_inplace.report import Cell, Report
from jupyter_inplace.watch import watch

PER_WRITE = 10.0  # us over plain
GROWTH = 20.0  # MB of resident memory
REPORT = 1.0  # MB
PER_NODE = 3.0  # us of explaining
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def resident() -> float:
    """MB of this process in memory; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * _PAGE / 1e6 if statm.exists() else 0.0


def cpu(run: Callable[[], Any]) -> float:
    """Seconds of CPU time."""
    start = process_time()
    run()
    return process_time() - start


# --- writes in a loop --------------------------------------------------------------------------------------------------


# Each is the body of a loop, and what comes before it. A buffer of slots is made anew for each hundred.
_BUFFERS = {
    "x.mul_(1.0)": ("x = torch.ones(8)", "x.mul_(1.0)"),
    "x[i] = v": ("x, v = torch.zeros(1000, 4), torch.ones(4)", "x[i % 1000] = v"),
    "x[i] = v, recorded": (
        "v = torch.ones(4, requires_grad=True) * 2",
        "x = torch.zeros(100, 4) if i % 100 == 0 else x; x[i % 100] = v",
    ),
    # What hurts most costs most: a non-leaf that was saved, written where autograd does not see it.
    "x[i] = v, unseen": (
        "w, v = torch.ones(100, 4, requires_grad=True), torch.ones(4)",
        "x = w * 2 if i % 100 == 0 else x; y = x.sigmoid() if i % 100 == 0 else y; x.data[i % 100] = v",
    ),
}


def loop_of(name: str) -> tuple[Cell, Callable[[int], Any]]:
    """A loop as a notebook cell, and how to run it so many times."""
    before, body = _BUFFERS[name]
    cell = Cell(source=f"{before}\nfor i in range(count):\n    {body}\n")
    code = compile(cell.source, CELL_FILE, "exec")
    return cell, lambda count: exec(code, {"torch": torch, "count": count, "__name__": "__main__"})  # noqa: S102


def writes(most: int) -> list[Target]:
    """Loops of writes, each watched and unwatched."""
    rows, targets = [], []
    for name in _BUFFERS:
        cell, loop = loop_of(name)
        count = 1000
        while count <= most:
            added, plain, grown, report = _run(cell, loop, count)
            size = len(report.to_json()) / 1e6
            rows.append([name, f"{count:,}", f"{plain:.1f}", f"{added:.1f}", f"{grown:.1f}", f"{size:.3f}"])
            if count * 10 > most:
                targets += [
                    Target(f"{name}, {count:,} writes: time added to each", added, PER_WRITE, " us"),
                    Target(f"{name}, {count:,} writes: memory added", grown, GROWTH, " MB"),
                    Target(f"{name}, {count:,} writes: report", size, REPORT, " MB"),
                ]
            count *= 10
    print(grid(["writes", "number", "plain us", "added us", "added MB", "report MB"], rows), end="\n\n")
    return targets


def _run(cell: Cell, loop: Callable[[int], Any], count: int) -> tuple[float, float, float, Report]:
    """What the watch adds to each write, what a write costs without it (both in us), MB added, and the report."""
    loop(1000)
    gc.collect()
    turns = max(1, min(5, 20_000 // count))  # the least of several short ones: others disturb those more
    plain = min(cpu(lambda: loop(count)) for _ in range(turns))
    before = resident()
    watched = []
    for _ in range(turns):
        with watch(cell=cell, cell_file=CELL_FILE, namespace={}, verify=False) as handle:
            watched.append(cpu(lambda: loop(count)))
    gc.collect()
    report = handle.report
    return (min(watched) - plain) / count * 1e6, plain / count * 1e6, resident() - before, report


# --- graphs ------------------------------------------------------------------------------------------------------------


def graphs(most: int) -> list[Target]:
    """A chain with one overwritten saved tensor at its beginning: how long the explanation of the whole graph takes.

    Apart stands the walk that works the reference gradients out: it calls every node once, as a backward does. Judged is what
    each further node costs; what the first hundred cost is mostly the words and names of the report.
    """
    rows, targets = [], []
    nodes, before = 100, 0.0
    _explained(100, rounds=1)
    while nodes <= most:
        rounds = max(4, min(25, 50_000 // nodes))  # of the short ones the best of more: others disturb those more
        plain = _backward(nodes, rounds)
        whole, gradients = _explained(nodes, rounds)
        rest = whole - gradients
        micro = [f"{seconds / nodes * 1e6:.2f}" for seconds in (plain, whole, gradients, rest)]
        rows.append([f"{nodes:,}", f"{whole * 1e3:.1f}", *micro])
        if nodes > 100:
            further = (rest - before) / (nodes - nodes // 10) * 1e6
            name = f"a graph of {nodes:,} nodes: explaining each further one, gradients apart"
            targets.append(Target(name, further, PER_NODE, " us"))
        nodes, before = nodes * 10, rest
    header = ["nodes", "explained in ms", "plain backward us a node", "explained", "its gradients", "the rest"]
    print(grid(header, rows), end="\n\n")
    return targets


def _chain(nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A loss over so many nodes, and a saved tensor at its beginning."""
    w = torch.ones(4, requires_grad=True)
    h = first = (w * 2).exp()
    for _ in range(nodes):
        h = h * 1.0
    return h.sum(), first


def _backward(nodes: int, rounds: int) -> float:
    """Seconds of the backward without a watch: the best."""
    best = math.inf
    for _ in range(rounds):
        loss, _ = _chain(nodes)
        gc.collect()
        best = min(best, cpu(loss.backward))
        del loss
    return best


def _explained(nodes: int, rounds: int) -> tuple[float, float]:
    """Seconds that the explanation of a backward takes where a saved tensor was overwritten, and those of its gradients: the best."""
    clocks = [_Clock(Analyst, "before_backward"), _Clock(task_gradients, "pull_both")]
    best = [math.inf, math.inf]
    for harmful in (False, True) * rounds:
        with clocks[0], clocks[1], watch(namespace={}, verify=False) as report:
            loss, first = _chain(nodes)
            if harmful:
                first.data.mul_(2)
            gc.collect()
            loss.backward()
            del loss, first
        if harmful:
            assert all(clock.calls for clock in clocks), "nothing was timed"
            best = [min(old, clock.seconds) for old, clock in zip(best, clocks, strict=True)]
        assert report.verdict == ("corrupts" if harmful else "harmless"), report.verdict
    return best[0], best[1]


class _Clock:
    """Stands in for a function for a while: how often it is called, and the seconds of CPU time that it takes."""

    def __init__(self, owner: Any, name: str) -> None:
        self._owner, self._name, self._original = owner, name, getattr(owner, name)
        self.seconds, self.calls = 0.0, 0

    def __enter__(self) -> None:
        self.seconds, self.calls, original = 0.0, 0, self._original

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            start = process_time()
            try:
                return original(*args, **kwargs)
            finally:
                self.seconds += process_time() - start

        setattr(self._owner, self._name, timed)

    def __exit__(self, *_: Any) -> None:
        setattr(self._owner, self._name, self._original)


# --- tasks and leaves --------------------------------------------------------------------------------------------------


def tasks(most_tasks: int = 64, most_leaves: int = 1000) -> list[Target]:
    """Several losses over many leaves, one of them harmful: as many passes as tasks (as run and reference in one), never pairs."""
    rows, targets = [], []
    for count in (1, 8, most_tasks):
        for leaves in (10, 100, most_leaves):
            passes, seconds = _passes(count, leaves)
            rows.append([f"{count}", f"{leaves:,}", f"{passes}", f"{seconds * 1e3:.0f}"])
            targets.append(Target(f"{count} tasks x {leaves:,} leaves: passes for each task", passes / count, 1.0))
    print(grid(["tasks", "leaves", "passes", "ms in all"], rows), end="\n\n")
    return targets


def _passes(count: int, leaves: int) -> tuple[int, float]:
    """How many walks over the graph one harmful backward of `count` tasks takes, and its seconds."""
    both, one = _Clock(task_gradients, "pull_both"), _Clock(task_gradients, "pull")
    with both, one:
        ws = [torch.ones(2, requires_grad=True) for _ in range(leaves)]
        with watch(*(f"losses[{i}]" for i in range(count)), namespace={}, verify=False):
            h = torch.stack(ws).exp()
            losses = [(h * (i + 1)).sum() for i in range(count)]
            h.data.mul_(2)
            total = sum(losses)
            seconds = cpu(total.backward)  # type: ignore[union-attr]
    return both.calls + one.calls, seconds


# --- a long training loop ----------------------------------------------------------------------------------------------


def training(seconds: float) -> list[Target]:
    """A training loop for so long: the memory of its second half may not grow."""
    program = next(iter(PROGRAMS.values()))()
    marks: list[tuple[int, float]] = []
    with watch(cell=program.cell, namespace=program.namespace, verify=False) as report:
        begun = perf_counter()
        steps = 0
        while perf_counter() - begun < seconds:
            for _ in range(200):
                program.step()
            steps += 200
            gc.collect()
            marks.append((steps, resident()))
    assert report.verdict == "harmless", report.verdict
    middle, last = marks[len(marks) // 2], marks[-1]
    thousands = max(1, last[0] - middle[0]) / 1000
    size = len(report.to_json()) / 1e6
    rows = [[f"{n:,}", f"{size_:.1f}"] for n, size_ in (marks[0], middle, last)]
    print(grid(["training steps", "resident MB"], rows), end="\n\n")
    return [
        Target(f"memory from step {middle[0]:,} to {last[0]:,}", last[1] - middle[1], 1.0, " MB"),
        Target("the same for each 1,000 steps", (last[1] - middle[1]) / thousands, 0.05, " MB"),
        Target("its report", size, REPORT, " MB"),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Print the tables and whether each target is met; 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=1_000_000, help="writes of the longest loop")
    parser.add_argument("--nodes", type=int, default=100_000, help="nodes of the largest graph")
    parser.add_argument("--seconds", type=float, default=120.0, help="length of the training loop")
    parser.add_argument("--only", choices=("writes", "graphs", "tasks", "training"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warm_up()  # as a notebook does, behind the cell that imports torch
    parts: dict[str, Callable[[], list[Target]]] = {
        "writes": lambda: writes(options.most),
        "graphs": lambda: graphs(options.nodes),
        "tasks": tasks,
        "training": lambda: training(options.seconds),
    }
    targets: list[Target] = []
    for name, part in parts.items():
        if options.only in (None, name):
            targets += part()
    return judge(targets)


if __name__ == "__main__":
    sys.exit(main())
