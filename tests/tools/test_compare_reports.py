"""The comparison of two checkouts: what counts as a difference between two reports, and what does not."""

from __future__ import annotations

import copy
import importlib
import itertools
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch):
    """The module that compares."""
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("report_differences")


@pytest.fixture
def script(monkeypatch):
    """The module that runs cells."""
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("compare_reports")


def report(**changes):
    """A report with two writes to one storage and one to another."""
    made = {
        "verdict": "breaks",
        "summary": "backward fails for loss.",
        "error": {"type": "RuntimeError", "message": "torch's words.\n\nours.", "site": None},
        "mutations": [
            {"id": 0, "tensor": "h", "storage": 7, "time": 0.1, "shape": [2], "verdict": "breaks", "note": None},
            {"id": 1, "tensor": "g", "storage": 4, "time": 0.2, "shape": [3], "verdict": "harmless", "note": None},
            {"id": 2, "tensor": "h", "storage": 7, "time": 0.3, "shape": [2], "verdict": "harmless", "note": "twice"},
        ],
        "timeline": [{"seq": 3, "kind": "save", "time": 0.05}, {"seq": 12, "kind": "write", "time": 0.1}],
        "fixes": [
            {"id": 1, "title": "a copy", "source": "sleep(1)", "verification": {"status": "passed", "reason": None}},
            {"id": 0, "title": "a move", "source": "pass", "verification": {"status": "failed", "reason": "raised"}},
        ],
        "blind_spots": ["hidden for 3 s", "unseen"],
    }
    return {**made, **changes}


@pytest.fixture
def between(tool):
    """The paths at which two reports differ."""
    return lambda old, new: [d.path for d in tool.compare(tool.normalise(old), tool.normalise(new))]


def test_a_report_does_not_differ_from_itself(between):
    assert between(report(), report()) == []


def test_times_storages_and_program_order_count_by_their_order_alone(between):
    other = report()
    for mutation, storage in zip(other["mutations"], (0, 9, 0), strict=True):
        mutation.update(time=5.0, storage=storage)
    other["timeline"][0].update(seq=0, time=None)
    other["blind_spots"][0] = "hidden for 12.25 s"
    assert between(report(), other) == []


def test_another_storage_is_a_difference(between):
    other = report()
    other["mutations"][2]["storage"] = 4
    assert between(report(), other) == ["mutations[2].storage"]


def test_another_program_order_is_a_difference(between):
    other = report()
    other["timeline"][0]["seq"] = 13
    assert between(report(), other) == ["timeline[0].seq", "timeline[1].seq"]


def of_names(source, *names):
    return report(
        cell={"source": source},
        summary=f"{names[0]} is what {names[1]} was.",
        gradients=[{"leaf": name} for name in names],
    )


def test_tensors_without_a_name_count_by_their_order(between):
    assert between(of_names("", "t584", "w", "t7"), of_names("", "t3", "w", "t584")) == []
    assert between(of_names("", "t1", "w", "t2"), of_names("", "t1", "w", "t1")) == ["gradients[2].leaf"]
    assert between(of_names("", "t1", "w", "t2"), of_names("", "t2", "t1", "w")) != []


def test_names_that_the_program_has_are_names(between):
    source = "t1 = torch.ones(2); t2 = t1 * 2"
    found = between(of_names(source, "t1", "w"), of_names(source, "t2", "w"))
    assert found == ["summary", "gradients[0].leaf"]


def test_seconds_in_a_program_are_the_programs(tool):
    made = tool.normalise(report(cell={"source": "wait('3 s')"}))
    assert made["cell"]["source"] == "wait('3 s')"
    assert made["blind_spots"][0] == "hidden for <seconds>"


def test_the_paths_of_the_checkouts_do_not_count(tool):
    sides = [tool.normalise(report(summary=f"see {at}/x.py, <A at {address}>"), at) for at, address in
             (("/home/old", "0x7f00aa11bb22"), ("/srv/new", "0x7f00aa11bb33"))]  # fmt: skip
    assert tool.compare(*sides) == []


@pytest.mark.parametrize("value", [None, 0, False, 2.0000000000000004, [2, 1]])
def test_every_other_value_counts(between, value):
    other = report()
    other["mutations"][0]["shape"] = value
    assert between(report(), other) == ["mutations[0].shape"]


def test_true_is_not_one(between):
    assert between(report(rank=1), report(rank=True)) == ["rank"]


def test_a_row_that_only_one_has_stands_for_itself(tool, between):
    other = report()
    row = {"id": 9, "tensor": "z", "storage": 8, "shape": [], "verdict": "cuts", "note": None}
    other["mutations"].insert(0, row)
    (found,) = tool.differences(report()["mutations"], other["mutations"], "mutations")
    assert (found.path, found.old, found.new) == ("mutations[0]", tool.NOTHING, row)
    assert not found.is_words
    assert not found.is_new_field


def test_rows_belong_together_whatever_their_sentences_say(tool):
    old, new = report()["fixes"], copy.deepcopy(report()["fixes"])
    for fix in new:
        fix["title"] = f"other words {fix['id']}"
    new[1]["verification"]["reason"] = "it raised"
    new.insert(0, {"id": 2, "title": "added", "source": "", "verification": {"status": "passed", "reason": None}})
    found = list(tool.differences(old, new, "fixes"))
    assert [d.path for d in found] == ["fixes[0]", "fixes[0].title", "fixes[1].title", "fixes[1].verification.reason"]
    assert [d.is_words for d in found] == [False, True, True, True]


def test_of_an_errors_message_only_our_part_is_words(tool, between):
    ours = report(error={"type": "RuntimeError", "message": "torch's words.\n\nnew.", "site": None})
    torchs = report(error={"type": "RuntimeError", "message": "torch's.\n\nours.", "site": None})
    assert between(report(), ours) == ["error.explanation"]
    assert between(report(), torchs) == ["error.message"]
    assert tool.Difference("error.explanation", "", "").is_words
    assert not tool.Difference("error.message", "", "").is_words


def test_a_field_that_is_new_is_told_from_a_row_that_is(tool):
    (found,) = tool.compare(tool.normalise(report()), tool.normalise(report(world=2)))
    assert found.path == "world"
    assert found.is_new_field
    (gone,) = tool.compare(tool.normalise(report(world=2)), tool.normalise(report()))
    assert not gone.is_new_field


def test_only_the_sentences_that_changed_are_listed(tool, script):
    pairs = tool.changed_sentences(tool.Difference("summary", "One. Two: two; two!", "One. Two: 2; two!"))
    assert list(pairs) == [("Two: two; two!", "Two: 2; two!")]
    assert list(tool.changed_sentences(tool.Difference("blind_spots[0]", tool.NOTHING, "new"))) == [("", "new")]
    words = script.Words()
    for cell in ("a", "b", "b"):
        words.add(cell, [tool.Difference("mutations[0].note", "x", "y")])
    assert list(words.lines()) == ["  (a and 1 more)\n    - x\n    + y"]


def runs(tool, *pairs):
    """What two checkouts give, one pair a call; a text is the reason of a failure."""
    waiting = iter([[tool.Failure(side) if isinstance(side, str) else side for side in pair] for pair in pairs])
    return lambda: tuple(next(waiting))


A, B, C = {"verdict": "breaks"}, {"verdict": "cuts"}, {"verdict": "harmless"}


@pytest.mark.parametrize(
    ("pairs", "state"),
    [
        ([(A, A)], "equal"),
        ([(A, B), (A, B)], "differs"),
        ([(A, B), (A, A)], "unstable"),
        ([(A, B), (B, C)], "unstable"),  # the one gives what the other gave before
        ([(A, B), (C, B)], "unstable"),  # the old one does not know itself
        ([(A, B), (A, C)], "differs"),
        ([({**A, "x": 1}, A), (A, {**A, "y": 1})], "unstable"),
        ([(A, {**B, "x": 1}), (A, {**B, "y": 1})], "differs"),
        ([("killed", A), ("killed", A)], "differs"),
        ([("killed", A), (A, A)], "unstable"),
        ([(A, "killed"), ("killed", "killed")], "differs"),
        ([("killed", "killed")], "not compared"),
    ],
)
def test_a_difference_has_to_come_twice(tool, script, pairs, state):
    assert script.compare_cell(runs(tool, *pairs), lambda _: True).state == state


def test_what_varies_in_one_checkout_is_marked(tool, script):
    first, second = ({"a": 1, "b": 1}, {"a": 2, "b": 2}), ({"a": 1, "b": 1}, {"a": 4, "b": 2})
    result = script.compare_cell(runs(tool, first, second), lambda _: True)
    assert (result.state, result.wavering) == ("differs", {"a"})


def test_rewrites_that_waver_hide_no_difference_elsewhere(tool, script):
    def made(verdict, status):
        return {"verdict": verdict, "fixes": [{"id": 0, "verification": {"status": status}}]}

    for old, new, state in (("cuts", "breaks", "differs"), ("cuts", "cuts", "unstable")):
        first, second = (made(old, "passed"), made(new, "failed")), (made(old, "unverified"), made(new, "failed"))
        assert script.compare_cell(runs(tool, first, second), lambda _: True).state == state


def test_the_cell_of_a_file(script, tmp_path):
    whole, labelled = tmp_path / "whole.py", tmp_path / "labelled.py"
    whole.write_text("x = 1\n")
    labelled.write_text("# outcome: benign\n# --- cell ---\nx = 1\n# --- fixed ---\nx = 2\n")
    assert script.cell_of(whole) == script.cell_of(labelled) == "x = 1\n"


# A package whose report is the value of the cell's `x`.
CHECKOUT = """
def load_ipython_extension(shell):
    def watch(line, cell):
        shell.run_cell(cell)
        shell.user_ns["watch_report"] = Report(shell.user_ns.get("x"))
    shell.register_magic_function(watch, "cell", "autograd_watch")

class Report:
    def __init__(self, x):
        self.x = x
    def to_dict(self):
        return {"verdict": "harmless", "x": self.x}
"""


@pytest.mark.slow
def test_cells_that_differ_or_kill_are_told(script, tmp_path, capsys):
    for name in ("old", "new"):
        (tmp_path / name / "jupyter_inplace").mkdir(parents=True)
        (tmp_path / name / "jupyter_inplace" / "__init__.py").write_text(CHECKOUT)
    cells = tmp_path / "cells"
    cells.mkdir()
    (cells / "a.py").write_text("import random\nx = random.random()\n")
    arguments = [str(tmp_path / "old"), str(tmp_path / "new"), str(cells)]
    assert script.main(arguments) == 0
    (cells / "b.py").write_text("import jupyter_inplace\nx = 'new' in jupyter_inplace.__file__.split('/')\n")
    (cells / "c.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    capsys.readouterr()
    assert script.main(arguments) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in itertools.islice(lines, 2)] == ["equal", "differs"]
    assert lines[2:4] == [
        "    x: false -> true",
        "not compared cells/c: " + " | ".join(["exit status -9: nothing was printed"] * 2),
    ]
