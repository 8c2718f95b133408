"""The cost of a training step under the watch and under torch's own tools, as ratios of the plain step.

Modes take turns in one process, block by block, so that a machine that slows down slows them all. Timed is the CPU time of
single steps on one thread, and the 10th percentile is given: what the step costs where nothing else disturbs it.

    python -m benchmarks.overhead [--rounds N] [--only mlp] [--modes plain,watch] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from time import process_time_ns

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks.modes import ANOMALY, EMPTY, MODES, PLAIN, WATCH, torchlens_step
from benchmarks.programs import PROGRAMS, Program
from jupyter_inplace.magic.warm import warm_up

TARGETS = {"MLP": 1.40, "transformer": 1.04, "ResNet-18": 1.04}
_WARM = 3  # steps of a block before the clock counts: a watch names the tasks of its first backward calls


def percentile(values: list[int], part: float) -> float:
    """The value below which `part` of them lie."""
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]


def time_steps(step: Callable[[], object], count: int, into: list[int]) -> None:
    """Nanoseconds of CPU time of each of `count` calls."""
    for _ in range(count):
        start = process_time_ns()
        step()
        into.append(process_time_ns() - start)


def measure(program: Program, modes: list[str], rounds: int) -> dict[str, float]:
    """Nanoseconds of a step in each mode, 10th percentile."""
    times: dict[str, list[int]] = {name: [] for name in modes}
    logged = torchlens_step(program)
    for _ in range(_WARM):
        program.step()
    for turn in range(rounds):
        for name in modes[turn % len(modes) :] + modes[: turn % len(modes)]:
            gc.collect()
            with MODES[name](program):
                for _ in range(_WARM):
                    program.step()
                time_steps(program.step, program.block, times[name])
    if logged is not None:
        times["TorchLens (forward alone)"] = []
        time_steps(logged, max(3, program.steps // 20), times["TorchLens (forward alone)"])
    return {name: percentile(taken, 0.1) for name, taken in times.items()}


def table(columns: dict[str, dict[str, float]]) -> str:
    """Ratios against plain, a row per mode, a column per program; our share of anomaly mode's extra cost below."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    width = max(len(name) for name in names) + 2
    lines = [" " * width + "".join(f"{head.partition(',')[0]:>22}" for head in columns)]
    for name in names:
        row = [
            f"{column[name] / column[PLAIN]:>22.3f}" if name in column else f"{'-':>22}" for column in columns.values()
        ]
        lines.append(f"{name:<{width}}" + "".join(row))
    shares = []
    for column in columns.values():
        extra = column.get(ANOMALY, 0.0) - column[PLAIN]
        shares.append(
            f"{(column[WATCH] - column[PLAIN]) / extra:>22.2f}" if extra > 0 and WATCH in column else f"{'-':>22}"
        )
    lines.append(f"{'share of anomaly':<{width}}" + "".join(shares))
    lines.append(
        f"{'plain step, us':<{width}}" + "".join(f"{column[PLAIN] / 1e3:>22.0f}" for column in columns.values())
    )
    return "\n".join(lines)


def misses(columns: dict[str, dict[str, float]]) -> list[str]:
    """The targets that this run did not meet, each as a sentence."""
    found = []
    for head, column in columns.items():
        word = head.partition(",")[0].partition(" ")[0]
        ratio = column[WATCH] / column[PLAIN]
        if ratio > TARGETS[word]:
            found.append(f"{word}: the watch costs {ratio:.3f} of the plain step, more than {TARGETS[word]:.2f}")
        if word != "MLP":
            continue
        if EMPTY in column and column[WATCH] > column[EMPTY]:
            found.append("MLP: the watch costs more than an empty dispatch mode")
        if ANOMALY in column and column[WATCH] - column[PLAIN] > 0.2 * (column[ANOMALY] - column[PLAIN]):
            found.append("MLP: the watch costs more than 0.2 of what anomaly mode adds")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=float, default=1.0, help="multiple of the ordinary number of steps")
    parser.add_argument("--only", default="", help="programs whose name contains this")
    parser.add_argument("--modes", default="", help="comma-separated beginnings of the modes' names; all without")
    parser.add_argument("--json", type=Path, help="file for the nanoseconds of each step")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warm_up()  # as a notebook does, behind the cell that imports torch
    warnings.filterwarnings("ignore", message="Anomaly Detection")
    wanted = [word.lower() for word in options.modes.split(",") if word]
    modes = [name for name in MODES if not wanted or any(name.lower().startswith(word) for word in wanted)]
    if PLAIN not in modes:
        modes.insert(0, PLAIN)
    columns: dict[str, dict[str, float]] = {}
    for name, make in PROGRAMS.items():
        if options.only.lower() in name.lower():
            program = make()
            rounds = max(1, math.ceil(options.rounds * program.steps / program.block))
            columns[name] = measure(program, modes, rounds)
    print(table(columns))
    if options.json is not None:
        options.json.write_text(json.dumps(columns, indent=1))
    missed = misses(columns) if WATCH in modes else []
    if not options.only and find_spec("tensorflow") is not None:
        from benchmarks import overhead_tensorflow

        missed += overhead_tensorflow.report()
    for sentence in missed:
        print(f"target missed. {sentence}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
