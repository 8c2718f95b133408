"""What the command line adds to a program: the report, its file, the exit status."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from jupyter_inplace import load
from jupyter_inplace._rank import Place
from jupyter_inplace.cli import main
from jupyter_inplace.cli.arguments import LEVELS, parse
from jupyter_inplace.cli.save import file_name
from jupyter_inplace.report import VERDICTS, Report

SILENT = """\
from pathlib import Path
import os
import sys

assert "torch" not in sys.modules, "torch came before the script asked for it"
os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # what has to be set before the import still counts
import torch

w = torch.ones(3, requires_grad=True)
h = torch.exp(w)
loss = h.sum()
h.data.mul_(2)
loss.backward()
print("grad", w.grad.tolist())
"""

RAISING = """\
import argparse
import torch

def train(steps):
    w = torch.ones(3, requires_grad=True)
    for step in range(steps):
        h = torch.exp(w)
        seg = h.sum()
        depth = (w * 3).sum()
        h.mul_(2)
        (seg + depth).backward()

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int)
    train(parser.parse_args().steps)
"""


def test_a_silent_bug(terminal):
    terminal.script(SILENT)
    ended = terminal.watched("--save", "reports", "--fail-on", "cuts", "train.py")
    assert ended.status == 3
    assert ended.out == f"grad {[2 * 2.7182817459106445] * 3}\n"  # the program's own output and nothing else
    assert ended.err.startswith(
        "\ncorrupts: the gradient is wrong for loss and nothing raises: h.data.mul_(2) (train.py:12)"
    )
    assert ended.err.rstrip().endswith(f"report: {Path('reports') / 'train.json'}")
    report = load(terminal.folder / "reports" / "train.json")
    assert (report.verdict, report.rank, report.cell, report.error) == ("corrupts", None, None, None)
    (mutation,) = [m for m in report.mutations if m.verdict == "corrupts"]
    assert (mutation.site.line, mutation.site.text, mutation.tensor) == (12, "h.data.mul_(2)", "h")
    assert [p.name for p in (terminal.folder / "reports").iterdir()] == ["train.json"]


def test_a_program_that_raises(terminal):
    terminal.script(RAISING)
    ended = terminal.watched("--save", "reports", "--task", "seg", "--task", "depth", "train.py", "--steps", "2")
    assert ended.status == 1
    assert ended.out == ""
    trace, _, text = ended.err.partition("\n\nbreaks: ")
    assert trace.startswith("Traceback (most recent call last):\n")
    assert "RuntimeError: one of the variables needed for gradient computation" in trace
    assert "jupyter_inplace/" not in trace.partition("RuntimeError")[0]  # none of our frames
    assert text.startswith("backward fails for seg: h.mul_(2) (train.py:10)")
    report = load(terminal.folder / "reports" / "*.json")
    assert report.error.type == "RuntimeError"
    assert report.error.site.line == 11
    assert {t.name: t.status for t in report.tasks} == {"seg": "raises", "depth": "ok"}


def test_a_forked_child_leaves_the_report_to_its_parent(terminal):
    terminal.script(
        "import os, sys, torch\n"
        "w = torch.ones(3, requires_grad=True)\n"
        "h = torch.exp(w)\n"
        "h.data.mul_(2)\n"
        "child = os.fork()\n"
        "h.sum().backward()\n"
        "if child == 0:\n"
        "    sys.exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    ended = terminal.watched("--save", "reports", "train.py")
    assert ended.out == "7\n"
    assert ended.err.count("corrupts: ") == 1
    assert ended.status == 0
    assert [p.name for p in (terminal.folder / "reports").iterdir()] == ["train.json"]


def test_its_own_status_stays_where_it_asked_for_one(terminal):
    terminal.script(SILENT + "sys.exit(5)\n")
    assert terminal.watched("-q", "--fail-on", "corrupts", "train.py").status == 5


def test_a_rank_that_is_terminated_saves_what_it_saw(terminal):
    terminal.script(SILENT + "import signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)\n")
    ended = terminal.watched("--save", "reports", "train.py", RANK="1", WORLD_SIZE="4")
    assert ended.status == -signal.SIGTERM
    report = load(terminal.folder / "reports" / "train.rank1-of-4.json")
    assert (report.verdict, report.rank, report.world) == ("corrupts", 1, 4)
    assert any("terminated" in spot for spot in report.blind_spots)


# --- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere.py"], "no script at `nowhere.py`."),
        (["-m", "no_such_module_at_all"], "no module named `no_such_module_at_all` to run."),
        (["-m", "no.such"], "no module named `no.such` to run."),
        (["empty"], "`empty` holds no `__main__.py` to run."),
        (["--save", "file/reports", "x.py"], "`file/reports` cannot be made a folder for reports"),
    ],
)
def test_bad_input_is_one_line_and_status_2(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "x.py").write_text("raise SystemExit('ran')")
    monkeypatch.setattr("sys.argv", ["jupyter-inplace"])
    monkeypatch.setattr("sys.path", ["here"])
    monkeypatch.setitem(__import__("sys").modules, "__main__", __import__("sys").modules["__main__"])
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jupyter-inplace: ")
    assert told in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [[], ["--task", "a"], ["-m"], ["--fail-on", "never", "x.py"], ["--fingerprint", "some", "x.py"], ["show"], ["fix"]],
)
def test_wrong_words_are_status_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_words_after_the_program_are_its_own():
    options = parse(["--task", "a", "--task", "b", "--fail-on", "mixes", "x.py", "--task", "c", "-m", "--", "y"])
    assert (options.script, options.module) == ("x.py", None)
    assert (options.tasks, options.fail_on) == (("a", "b"), "mixes")
    assert options.arguments == ("--task", "c", "-m", "--", "y")
    options = parse(["--no-gradients", "-m", "tool", "--save", "x"])
    assert (options.script, options.module, options.arguments) == (None, "tool", ("--save", "x"))
    assert (options.gradients, options.save) == (False, None)


def test_fail_on_knows_every_verdict_but_harmless():
    assert set(LEVELS) == set(VERDICTS) - {"harmless"}


OPEN = """\
import sys
import torch
w = torch.ones(3, requires_grad=True)
h = torch.exp(w)
loss = h.sum()
h.data.mul_(2)
loss.backward()
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("words", "own", "status"),
    [
        ([], 0, 0),
        (["--fail-on", "cuts"], 0, 4),
        (["--fail-on", "cuts"], 5, 5),
        (["--fail-on", "unknown"], 0, 3),
    ],
)
def test_status_where_it_is_not_known(terminal, words, own, status):
    ended = terminal.watched("--no-gradients", *words, terminal.script(OPEN), str(own))
    assert ended.status == status
    assert ended.err.lstrip().startswith("unknown: it is not known whether h.data.mul_(2) (train.py:6) harms")


@pytest.mark.faulty
def test_status_where_nothing_is_watched(terminal):
    script = terminal.script(
        "import sys\nsys.modules['jupyter_inplace.explain.window'] = None\nimport torch\nprint('done')\n"
    )
    ended = terminal.watched("--fail-on", "cuts", script)
    assert (ended.status, ended.out) == (4, "done\n")
    assert ended.err.lstrip().startswith("unknown: it is not known whether a gradient is harmed: not watched: ")


@pytest.mark.parametrize(
    ("program", "place", "name"),
    [
        ("train", None, "train.json"),
        ("train", Place(0, 2), "train.rank0-of-2.json"),
        ("train", Place(3), "train.rank3.json"),
        ("train", Place(1, 2, restart=2), "train.rank1-of-2.restart2.json"),
        ("pkg.tool", None, "pkg.tool.json"),
        ("my train/x", None, "my-train-x.json"),
        ("", None, "report.json"),
    ],
)
def test_names_of_reports(program, place, name):
    assert file_name(program, place) == name


# --- show --------------------------------------------------------------------------------------------------------------


def test_show_prints_one_report_and_merges_several(tmp_path, capsys):
    for rank in (0, 1):
        Report(rank=rank, world=2, summary="no in-place write.").to_json(tmp_path / f"r{rank}.json")
    assert main(["show", str(tmp_path / "r0.json")]) == 0
    assert capsys.readouterr().out == str(load(tmp_path / "r0.json")) + "\n"
    for words in ([str(tmp_path)], [str(tmp_path / "*.json")], [str(tmp_path / "r0.json"), str(tmp_path / "r1.json")]):
        assert main(["show", *words]) == 0
        assert "Ranks 0 and 1." in capsys.readouterr().out


def test_show_writes_a_page(tmp_path, capsys):
    report = Report(verdict="breaks", summary="what <happened>.")
    report.to_json(tmp_path / "a.json")
    assert main(["show", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html")]) == 0
    page = (tmp_path / "a.html").read_text()
    assert page.startswith("<!")
    assert report.to_html() in page
    assert main(["show", str(tmp_path / "a.json"), "--html", str(tmp_path / "none" / "a.html")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_show_says_what_is_wrong_with_a_file(tmp_path, capsys):
    whole = Report(summary="s").to_json()
    (tmp_path / "empty").mkdir()
    cases = {
        "truncated.json": (whole[: len(whole) // 2], "truncated or no JSON"),
        "later.json": (whole.replace('"version": 1', '"version": 2'), "version 2; this tool reads version 1"),
        "other.json": (json.dumps({"cells": []}), "not a report of jupyter_inplace"),
        "missing.json": (None, "no report at"),
        "empty": (None, "no report in the folder"),
    }
    for name, (text, told) in cases.items():
        if text is not None:
            (tmp_path / name).write_text(text)
        assert main(["show", str(tmp_path / name)]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert told in err
        assert str(tmp_path / name) in err
