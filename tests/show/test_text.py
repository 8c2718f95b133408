"""The text of a report: what it says, that it is aligned, and that it never hurts a terminal."""

import dataclasses
import re

import pytest
import samples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyter_inplace.report import Conflict, Mutation, Report, Site
from jupyter_inplace.report.unknown import left_open
from jupyter_inplace.show import text

ALL = list(samples.SAMPLES)


@pytest.mark.parametrize("name", ALL)
def test_fits_and_is_ascii(name):
    lines = str(samples.SAMPLES[name]()).split("\n")
    assert max(map(len, lines)) <= 100
    assert all(line == line.rstrip() for line in lines)
    assert "\n".join(lines).isascii()


@pytest.mark.parametrize("width", [40, 72, 100])
@pytest.mark.parametrize("name", ["breaks", "many"])
def test_fits_the_width_asked_for(name, width):
    lines = text.render(samples.SAMPLES[name](), width=width).split("\n")
    assert max(len(line) for line in lines) <= width


@pytest.mark.parametrize("name", ["clean", "empty"])
def test_a_clean_cell_is_one_quiet_line(name):
    said = str(samples.SAMPLES[name]())
    assert said == f"harmless: {samples.SAMPLES[name]().summary}"


def test_what_could_not_be_seen_is_said_of_a_clean_cell_too():
    report = dataclasses.replace(samples.clean(), blind_spots=("one compiled region",))
    assert str(report).split("\n")[1:] == ["  not seen: one compiled region"]


def test_the_carets_stand_below_the_expression():
    lines = str(samples.breaks()).split("\n")
    for expression, rule in (
        ("z.mul_(0.5)", "^"),
        ("torch.tanh(trunk(x))", "~"),
        ('heads["seg"](z)', "~"),
    ):
        at = next(i for i, line in enumerate(lines) if re.match(r"  [> ] \d+\| ", line) and expression in line)
        start = lines[at].index(expression)
        assert lines[at + 1][start:].startswith(rule * len(expression))
        assert lines[at + 1][:start].strip() == "|"


def test_the_second_of_two_equal_expressions_on_a_line():
    cell = samples.Cell(source="%%autograd_watch\n  x.mul_(2); x.mul_(2)\n", execution_count=1)
    site = samples.at(cell, 2, "x.mul_(2)", nth=1)
    report = Report(
        verdict="breaks", cell=cell, mutations=(Mutation(id=0, op="o", tensor="x", site=site, verdict="breaks"),)
    )
    lines = str(report).split("\n")
    at = next(i for i, line in enumerate(lines) if "2|   x.mul_(2); x.mul_(2)" in line)
    assert lines[at + 1].index("^") == lines[at].rindex("x.mul_(2)")


def test_a_line_of_a_file_keeps_its_caret_without_its_indentation():
    site = Site(file="/a/m.py", line=9, column=12, text="h.mul_(2)", line_text="y = h.mul_(2)")
    report = Report(verdict="breaks", mutations=(Mutation(id=0, op="o", tensor="h", site=site, verdict="breaks"),))
    assert "  > 9| y = h.mul_(2)\n     |     ^^^^^^^^^" in str(report)


def test_an_expression_of_several_lines_is_underlined_on_its_first():
    site = Site(file="In[1]", line=3, column=0, end_line=5, text="F.relu_(\n    h\n)", line_text="F.relu_(")
    report = Report(verdict="breaks", mutations=(Mutation(id=0, op="o", tensor="h", site=site, verdict="breaks"),))
    assert "  > 3| F.relu_(\n     | ^^^^^^^^" in str(report)


def test_wide_characters_do_not_move_the_caret():
    cell = samples.Cell(source="%%autograd_watch\n張量 = 1; x.mul_(2)\n", execution_count=1)
    site = samples.at(cell, 2, "x.mul_(2)")
    report = Report(
        verdict="breaks", cell=cell, mutations=(Mutation(id=0, op="o", tensor="x", site=site, verdict="breaks"),)
    )
    lines = str(report).split("\n")
    at = next(i for i, line in enumerate(lines) if "張量" in line)
    assert lines[at + 1].index("^") == lines[at].index("x.mul_") + 2  # each of the two takes a column more


def test_every_number_of_the_gradient_table_is_the_reports():
    report = samples.breaks()
    rows = {}
    task = None
    for line in str(report).split("\n"):
        found = re.match(r"  (\w*) +([\w.]+) +(raises|equal) +(\S+) +(\S+) +(\S+) +(\S+)$", line)
        if found:
            task = found[1] or task
            rows[task, found[2]] = found.groups()[2:]
    assert len(rows) == len(report.gradients) == 8
    for g in report.gradients:
        status, *numbers = rows[g.task, g.leaf]
        assert status == {"raises": "raises", "ok": "equal"}[g.status]
        for shown, value in zip(
            numbers, (g.norm_as_run, g.norm_reference, g.relative_difference, g.cosine), strict=True
        ):
            assert (shown == "-") == (value is None)
            assert value is None or float(shown) == pytest.approx(value, rel=5e-3)


def test_says_what_matters():
    said = str(samples.corrupts())
    for part in ("/home/ada/models/block.py", "wrong        0.750         1.50       0.500    0.88  iteration 3",
                 "leaves hit: model.proj.weight and model.proj.bias", "version 1, version counter not bumped, 12 times",
                 "tasks: loss wrong", "not seen: torch.compile"):  # fmt: skip
        assert part in said
    said = str(samples.breaks())
    for part in ("version 0 -> 1", "proved     multiply out of place; same losses, 8 of 8 gradients equal the reference",
                 "-z.mul_(0.5)", "+z = z.mul(0.5)", "fails      clone at the save; still breaks, depth is cured",
                 "trunk.bias               seg, depth"):  # fmt: skip
        assert part in said
    assert "(reading: update)" in str(samples.rejected())
    assert "v0: 1.25" in str(samples.mixes())
    assert "rank 3: " in str(dataclasses.replace(samples.breaks(), rank=3))


def test_many_harmful_writes_and_savers_are_counted():
    site = Site(file="In[1]", line=3, text="h.exp_()", line_text="h.exp_()")
    mutations = tuple(Mutation(id=i, op="o", tensor=f"h{i}", site=site, verdict="breaks") for i in range(9))
    conflicts = tuple(Conflict(mutation=0, node=f"N{i}", tensor="h") for i in range(9))
    said = str(Report(verdict="breaks", mutations=mutations, conflicts=conflicts))
    assert "and 4 more writes like it" in said
    assert "and 3 more saved tensors" in said


def test_colour_changes_nothing_but_colour():
    for make in samples.SAMPLES.values():
        report = make()
        assert re.sub(r"\033\[\d+m", "", text.render(report, color=True)) == str(report)
    assert "\033" not in str(samples.breaks())


@pytest.mark.parametrize("color", [False, True])
def test_no_control_character_of_a_saved_report_reaches_the_terminal(color):
    evil = "a\033[2Jb\nc\rd\u202ee\x9bf"
    said = text.render(samples.hostile(samples.breaks(), evil), color=color)
    said = re.sub(r"\033\[(?:3[1-4]|[012])m", "", said)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", said)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.builds(Report), st.sampled_from([40, 100]))
def test_any_report_has_a_text(report, width):
    said = text.render(report, width=width)
    assert said
    assert "\033" not in said


def test_rows_of_a_loop_that_look_alike_are_one_block():
    report = samples.corrupts()
    (write,) = [m for m in report.mutations if m.verdict == "corrupts"]
    more = tuple(dataclasses.replace(write, id=100 + i, storage=50 + i, time=1.0 + i) for i in range(4))
    other = dataclasses.replace(write, id=200, shape=(7,))
    text = str(dataclasses.replace(report, mutations=(*report.mutations, *more, other)))
    blocks = [line for line in text.splitlines() if line.startswith(f"  {write.site.text}: corrupts")]
    assert len(blocks) == 2
    assert text.count(f"{5 * write.count} times") == 1


def test_what_is_not_known():
    report = left_open(samples.clean(), "the recorder failed")
    said = text.render(report, color=True)
    assert said.startswith("\033[33munknown: \033[0mit is not known whether a gradient is harmed: the recorder failed.")
    assert "not seen: the recorder failed" in said
    broken = samples.breaks()
    writes = tuple(
        dataclasses.replace(m, verdict="unknown" if m.verdict == "breaks" else m.verdict) for m in broken.mutations
    )
    said = text.render(dataclasses.replace(broken, verdict="unknown", mutations=writes))
    assert "z.mul_(0.5): not known whether it harms seg and depth" in said
    assert "0 harmful of" in said
    assert ", 1 unknown" in said
