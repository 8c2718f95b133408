"""What the tasks of a cell are called, where several names hold a loss."""

from __future__ import annotations

import pytest

SETUP = "import torch\nw = torch.ones(3, requires_grad=True)\nheads = {'seg': 2.0, 'depth': 3.0}\nlosses = []\n"

CELLS = {
    "each round of a training loop keeps its loss": (
        """
for x in torch.ones(3, 3):
    loss = (w * x).exp().sum()
    losses.append(loss)
    loss.backward()
""",
        ["loss"],
    ),
    "losses in a list, each by the variable of a loop": (
        """
for k in (2.0, 3.0):
    losses.append((w * k).exp().sum())
for l in losses:
    l.backward()
""",
        ["losses[0]", "losses[1]"],
    ),
    "losses in a list, each by its number": (
        """
for k in (2.0, 3.0):
    loss = (w * k).exp().sum()
    losses.append(loss)
for i in range(2):
    loss = losses[i]
    loss.backward()
""",
        ["losses[0]", "losses[1]"],
    ),
    "losses by task, made by one variable": (
        """
losses = dict.fromkeys(heads, w.sum())
for name, k in heads.items():
    losses[name] = loss = (w * k).exp().sum()
    loss.backward(retain_graph=True)
""",
        ['losses["seg"]', 'losses["depth"]'],
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_task_names(shell, name):
    source, tasks = CELLS[name]
    shell.run(SETUP)
    shell.run("%%autograd_watch --no-verify --result watch_report\n" + source)
    assert [task.name for task in shell.ns["watch_report"].tasks] == tasks
