"""Random programs of each family under the watch, other ones each time. See README.md here.

The seed is printed; `FUZZ_SEED` repeats a run, `FUZZ_PROGRAMS` says how many of each family (300). What fails is reduced and written to
`build/fuzz`: once it is mended, the file is moved to `kept` and is a test of its own.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest
from held import HELD, broken_rules, failures
from random_programs.families import FAMILIES
from tally import counted, examine_many, table, write_out

_PROGRAMS = int(os.environ.get("FUZZ_PROGRAMS", "300"))
_OUTPUT = Path(__file__).parents[2] / "build" / "fuzz"


@pytest.mark.parametrize("family", FAMILIES)
def test_random_family(family, capsys):
    seed = int(os.environ.get("FUZZ_SEED") or secrets.randbelow(10**9))
    results = list(examine_many(family, seed, _PROGRAMS))
    counts = counted(results, family)
    with capsys.disabled():
        print(f"\n{family}: {_PROGRAMS} programs, FUZZ_SEED={seed}\n{table(counts)}")
    wrong = failures(counts, family)
    files = []
    if wrong:
        files = write_out([result for result in results if result.program.kind in HELD[family]], _OUTPUT)
    assert not wrong + broken_rules(counts, family), (seed, wrong, broken_rules(counts, family), files)
