"""The benchmarks judge what they measure; their figures are nobody's business here."""

import pytest

from benchmarks import loops
from benchmarks.loop_kinds import LOOPS
from benchmarks.loop_kinds.loop import Loop, Running
from benchmarks.overhead import misses, table
from benchmarks.programs import PROGRAMS
from benchmarks.scale import loop_of, writes
from benchmarks.targets import Target, judge
from jupyter_inplace.watch import watch


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


ALONE = [loop for loop in LOOPS if "ranks" not in loop.name]


@pytest.mark.filterwarnings("ignore")  # torch.compile's, and forks beside threads
@pytest.mark.parametrize("loop", ALONE, ids=lambda loop: loop.name)
def test_each_loop_as_people_write_them_is_harmless(loop):
    made = loop.make()
    running = made if isinstance(made, Running) else Running(made, lambda _: None, lambda: None)
    with watch(namespace={}) as report:
        running.run(2)
    running.close()
    assert report.verdict in ("harmless", "mixes"), report.summary


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_a_loop_is_run_in_each_mode_and_held_against_its_targets():
    counts = []
    loop = Loop("counts", 5, lambda: counts.append)
    best = loops.measure(loop, rounds=2)
    assert set(best) == set(loops.MODES)
    assert counts.count(10) == 2
    assert counts.count(5) == 2 * (len(loops.MODES) - 1)
    assert "counts" in loops.table({loop: best})
    cheap = {"plain": 1.0, loops.WATCH: 1.2, loops.TWICE: 2.4, loops.EMPTY: 2.0, loops.ANOMALY: 3.0}
    assert all(target.met for target in loops.targets(loop, cheap))
    dear = {"plain": 1.0, loops.WATCH: 3.0, loops.TWICE: 9.0, loops.EMPTY: 2.0, loops.ANOMALY: 3.0}
    assert not any(target.met for target in loops.targets(loop, dear))
