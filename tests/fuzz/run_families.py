"""``python tests/fuzz/run_families.py``: many random programs of each family against the watch; see README.md here.

Prints the seed, a table a family, and the files of failing programs, reduced to the smallest. Exits with 1 where a kind that `held`
lists failed, or where the generators themselves broke their own rules.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from pathlib import Path

import torch
from held import broken_rules, failures
from random_programs.families import FAMILIES, HELD_OUT
from tally import counted, examine_many, table, write_out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--programs", type=int, default=5000, help="of each family")
    parser.add_argument("--seed", type=int, default=None, help="the number of the first program (default: drawn)")
    parser.add_argument("--family", action="append", choices=[*FAMILIES, *HELD_OUT], help="default: all but held_out")
    parser.add_argument("--kind", action="append", default=[], help="only these kinds")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("build/fuzz"), help="where failing programs are written")
    parser.add_argument("--reduce-seconds", type=float, default=20.0, help="for each failing program; 0: do not reduce")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seed = options.seed if options.seed is not None else secrets.randbelow(10**9)
    wrong = []
    for family in options.family or FAMILIES:
        began = time.monotonic()
        results = list(examine_many(family, seed, options.programs, options.kind, options.jobs))
        counts = counted(results, family)
        print(f"== {family}: {options.programs} programs from --seed {seed}, {time.monotonic() - began:.0f} s\n")
        print(table(counts), flush=True)
        for file in write_out(results, options.output, options.reduce_seconds, each=1):
            print(f"written: {file}", flush=True)
        wrong += broken_rules(counts, family) + failures(counts, family)
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
