"""Every code block of the README does what the text around it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from code_blocks import blocks

from jupyter_inplace.report import VERDICTS

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = [block.code for block in blocks(README, "python")]
CELLS = [block for block in BLOCKS if block.startswith("%")]
SCRIPTS = [block for block in BLOCKS if not block.startswith("%")]


def test_the_notebook(shell):
    for cell in CELLS[:-1]:
        assert shell.run(cell).result.success
    ran = shell.run(CELLS[-1].replace("%%autograd_watch", "%%autograd_watch --result report", 1))
    assert "modified by an inplace operation" in str(ran.result.error_in_exec)
    assert ran.out.rindex("overwrote what torch.sigmoid(x @ w)") > ran.out.rindex("Traceback")
    report = shell.ns["report"]
    assert {task.name: task.status for task in report.tasks} == {"class_loss": "raises", "parity_loss": "ok"}
    (write,) = (mutation for mutation in report.mutations if mutation.verdict == "breaks")
    assert write.site.text == "h.mul_(2)"


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script(script, capsys):
    exec(compile(script, "README.md", "exec"), {"__name__": "__main__"})
    assert "corrupts" in capsys.readouterr().out


def test_the_verdicts_are_those_of_the_reports():
    told = re.findall(r"^\| `(\w+)` \|", README.partition("## Verdicts")[2].partition("\n## ")[0], re.MULTILINE)
    assert tuple(told) == VERDICTS
