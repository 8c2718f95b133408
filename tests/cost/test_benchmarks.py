"""The benchmarks judge what they measure; their figures are nobody's business here."""

import pytest

from benchmarks.overhead import misses, table
from benchmarks.programs import PROGRAMS
from benchmarks.scale import loop_of, writes
from benchmarks.targets import Target, judge


def test_each_program_is_held_against_its_target():
    cheap = {name: {"plain": 100.0, "watch": 103.0} for name in PROGRAMS}
    dear = {name: {"plain": 100.0, "watch": 150.0} for name in PROGRAMS}
    assert misses(cheap) == []
    assert len(misses(dear)) == len(PROGRAMS)
    assert "1.500" in table(dear)


def test_a_missed_target_says_so_and_fails(capsys):
    assert judge([Target("one", 1.0, 2.0, " us")]) == 0
    assert judge([Target("one", 1.0, 2.0, " us"), Target("two", 3.0, 2.0, " us")]) == 1
    out, err = capsys.readouterr()
    assert "met    one: 1 us (at most 2 us)" in out
    assert "MISSED two: 3 us (at most 2 us)" in err


@pytest.mark.parametrize("name", ["x.mul_(1.0)", "x[i] = v, unseen"])
def test_the_loops_run_as_cells(name):
    cell, loop = loop_of(name)
    loop(3)
    assert "for i in range(count)" in cell.source


def test_each_loop_of_writes_is_told(capsys):
    targets = writes(1000)
    assert len(targets) == 12
    assert capsys.readouterr().out.count("1,000") == 4
