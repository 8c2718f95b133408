"""The reducer takes away what a failure does not need, and keeps the oracle's lines with the statements that they belong to."""

from __future__ import annotations

from random_programs.families import FAMILIES, HELD_OUT, program
from random_programs.oracle import judge
from random_programs.reduce import _parse, _render, reduce
from random_programs.text import Program, dump, load

TEXT = """import torch
torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
w0 = torch.randn(2, 3, requires_grad=True)
#: leaf(w0)
def helper(t):
    unused = t + 1
    return t * 2.0
for r in range(3):
    t0 = helper(w0)
    t1 = t0 + 0.5
    t1.data.mul_(3.0)  #!
    (t1 * t1).sum().backward()
    with torch.no_grad():
        w0.mul_(0.9)
    #: update(w0)
"""


def test_only_what_a_failure_needs_is_left():
    def fails(candidate):
        return judge(candidate).harmful is True and "mul_(3.0)" in candidate.cell

    whole = Program("silent", "data", 1, TEXT)
    assert fails(whole)
    small = reduce(whole, fails, seconds=60)
    assert fails(small)
    assert small.seed == 0
    assert "unused" not in small.cell
    assert "for" not in small.cell
    assert "0.9" not in small.cell
    assert "#: update" not in small.text  # it went with the block that it belonged to
    assert len(small.cell.splitlines()) <= 9


def test_programs_survive_parsing_and_their_files():
    for family, kinds in (FAMILIES | HELD_OUT).items():
        for i, kind in enumerate(kinds):
            one = program(family, i, kind)
            assert _render(_parse(one.text.splitlines())) == one.text
            assert load(dump(one)) == one
