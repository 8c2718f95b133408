"""The two examples that started this, with what torch really does: outcomes by torch itself, gradients by hand."""

from __future__ import annotations

import pytest
import torch
from cell_oracle import harmful_lines, watched

HEAD = "import torch\n"
SHARED = """
shared_param = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
x = torch.tensor([0.5, -1.0, 2.0]); y = torch.tensor([1.0, 4.0, -2.0])
task1 = (shared_param * x).sum()
{write}
task2 = (shared_param * y).sum()
{backward}
"""
X, Y = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([1.0, 4.0, -2.0])


def test_a_leaf_is_not_written(cells):
    """`x.add_(1)` raises at the write, and x is as it was: nothing fires during it."""
    report = watched(
        cells,
        HEAD + "x = torch.randn(10, requires_grad=True)\nbefore = x.detach().clone()\nx.add_(1)\nx.sum().backward()",
    )
    assert report["verdict"] == "rejected"
    assert harmful_lines(report) == ["x.add_(1)"]
    assert report["mutations"][-1]["leaves"] == ["x"]
    assert report["error"]["type"] == "RuntimeError"
    assert "a leaf Variable that requires grad is being used in an in-place operation" in report["error"]["message"]
    assert torch.equal(cells.ns["x"], cells.ns["before"])
    assert cells.ns["x"]._version == 0


def test_a_shared_parameter_is_not_written_either(cells):
    report = watched(cells, HEAD + SHARED.format(write="shared_param.mul_(2)", backward="(task1 + task2).backward()"))
    assert report["verdict"] == "rejected"
    assert harmful_lines(report) == ["shared_param.mul_(2)"]
    assert {task["name"]: task["status"] for task in report["tasks"]} == {"task1": "ok", "task2": "raises"}
    assert torch.equal(cells.ns["shared_param"].detach(), torch.tensor([1.0, 2.0, 3.0]))


@pytest.mark.parametrize(
    "backward",
    ["(task1 + task2).backward()", "task1.backward(retain_graph=True)\ntask2.backward()"],
    ids=["one backward", "two backwards"],
)
def test_the_update_is_legal_and_the_gradient_is_x_plus_y(cells, backward):
    """Under `no_grad` the leaf takes a new value: each task's part is right at the value that it read."""
    write = "with torch.no_grad(): shared_param.mul_(2)"
    report = watched(cells, HEAD + SHARED.format(write=write, backward=backward))
    assert report["verdict"] in ("mixes", "harmless")
    assert report["error"] is None
    assert all(task["status"] == "ok" for task in report["tasks"])
    assert torch.allclose(cells.ns["shared_param"].grad, X + Y)


def test_the_copy_is_legal_and_the_gradient_is_x_plus_two_y(cells):
    """Out of place it is other mathematics: the second task's gradient goes through the factor."""
    source = SHARED.format(write="scaled = shared_param * 2", backward="(task1 + task2).backward()")
    report = watched(cells, HEAD + source.replace("(shared_param * y)", "(scaled * y)"))
    assert report["verdict"] == "harmless"
    assert torch.allclose(cells.ns["shared_param"].grad, X + 2 * Y)


def test_a_saved_shared_parameter_breaks_the_first_task(cells):
    """With a task that saves the parameter itself, the same update makes backward fail, for that task alone."""
    source = SHARED.format(write="with torch.no_grad(): shared_param.mul_(2)", backward="(task1 + task2).backward()")
    report = watched(cells, HEAD + source.replace("(shared_param * x)", "(shared_param ** 3)"))
    assert report["verdict"] == "breaks"
    assert {task["name"]: task["status"] for task in report["tasks"]} == {"task1": "raises", "task2": "ok"}
    rows = {row["task"]: row for row in report["gradients"]}
    assert rows["task1"]["norm_reference"] == pytest.approx(float((3 * torch.tensor([1.0, 4.0, 9.0])).norm()))
    assert rows["task2"]["norm_reference"] == pytest.approx(float(Y.norm()))


def test_halved_before_use_is_fine(cells):
    report = watched(
        cells,
        HEAD
        + "x = torch.tensor(2., requires_grad=True)\nwith torch.no_grad(): x.mul_(0.5)\ny = x * 2\nz = y + 3\nz.backward()",
    )
    assert report["verdict"] == "harmless"
    assert cells.ns["x"].grad.item() == 2.0


def test_both_readings_of_a_refused_write_are_offered_with_their_own_gradients(cells):
    """An update (x + y) and a copy (x + 2y) are both proved, and neither is picked for the person."""
    source = HEAD + SHARED.format(write="shared_param.mul_(2)", backward="(task1 + task2).backward()")
    cells.run("%%autograd_watch --result watch_report\n" + source)
    fixes = {fix.reading: fix for fix in cells.ns["watch_report"].fixes if fix.verification.status == "passed"}
    assert set(fixes) == {"update", "copy"}
    meant = {"update": X + Y, "copy": X + 2 * Y}
    for reading, fix in fixes.items():
        space = {}
        exec(fix.source.partition("\n")[2] if fix.source.startswith("%%") else fix.source, space)
        leaf = space["shared_param"]
        assert leaf.is_leaf
        assert torch.allclose(leaf.grad, meant[reading]), (reading, fix.source)
        norms = {row.task: row.norm_as_run for row in fix.verification.gradients}
        task2 = Y if reading == "update" else 2 * Y
        assert norms == {"task1": pytest.approx(float(X.norm())), "task2": pytest.approx(float(task2.norm()))}
