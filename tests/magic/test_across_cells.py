"""Saved in one cell, written in another, read in a third."""

import pytest

START = "import torch\ntorch.manual_seed(0)\nw = torch.randn(3, requires_grad=True)\nh = w.sigmoid()\nloss = h.sum()"


@pytest.mark.parametrize("together", [True, False], ids=["on", "each"])
def test_both_ends_are_known_each_with_its_own_number(shell, together):
    magic = "" if together else "%%autograd_watch -r report\n"
    if together:
        shell.run("%autograd_watch on")
    shell.run(magic + START)
    shell.run(magic + "h.detach().mul_(2)")
    ran = shell.run("%%autograd_watch -r report\nloss.backward()")
    assert "modified by an inplace operation" in str(ran.result.error_in_exec)
    report = shell.ns["report"].report
    (conflict,) = report.conflicts
    write = report.mutations[conflict.mutation]
    first = shell.ip.execution_count - 3
    assert (conflict.node, conflict.saved_site.file, conflict.saved_site.text) == (
        "SigmoidBackward0",
        f"In[{first - 0}]",
        "w.sigmoid()",
    )
    assert (write.site.file, write.site.text) == (f"In[{first + 1}]", "h.detach().mul_(2)")
    assert report.cell.execution_count == first + 2
    assert not conflict.saved_before_watch


def test_saved_in_a_cell_that_nobody_watched(shell):
    shell.run(START)
    ran = shell.run("%%autograd_watch -r report\nh.detach().mul_(2)\nloss.backward()")
    assert "saved before the watch began" in str(ran.result.error_in_exec)
    report = shell.ns["report"].report
    assert (report.verdict, report.conflicts[0].saved_before_watch, report.conflicts[0].leaves) == (
        "breaks",
        True,
        ("w",),
    )
    assert report.mutations[report.conflicts[0].mutation].site.cell_line == 2


def test_written_in_a_cell_that_nobody_watched(shell):
    shell.run("%%autograd_watch -r report\n" + START)
    shell.run("h.detach().mul_(2)")
    ran = shell.run("%%autograd_watch -r report\nloss.backward()")
    assert "modified by an inplace operation" in str(ran.result.error_in_exec)
    report = shell.ns["report"].report
    assert report.verdict == "breaks"
    assert {task.name: task.status for task in report.tasks} == {"loss": "raises"}
    assert report.conflicts[0].saved_site.text == "w.sigmoid()"
