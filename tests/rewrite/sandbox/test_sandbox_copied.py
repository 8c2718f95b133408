"""The sandbox of copied names, in a spawned process, on the CPU by force."""

import threading
import time

import pytest
import torch
from proving import Rewrite, attempt
from sandbox_targets import _Numbers

from jupyter_inplace.rewrite.sandbox.copied import Copy
from jupyter_inplace.rewrite.sandbox.outcome import Limits, SandboxUnavailableError
from jupyter_inplace.rewrite.sandbox.snapshot import Snapshot
from jupyter_inplace.rewrite.sandbox.take import take

BEFORE = """\
import torch
torch.manual_seed(0)
net = torch.nn.Linear(3, 2)
tied = net.weight
opt = torch.optim.Adam(net.parameters())
base = torch.arange(6.0)
view = base[2:]
def forward(x):
    return net(x)
class Scale:
    def __init__(self): self.k = 2.0
    def __call__(self, x): return x * self.k
scale = Scale()
net(torch.ones(1, 3)).sum().backward()
opt.step()
torch.randn(5)
unused = lambda: open
"""

CELL = """\
x = torch.randn(4, 3)
view.mul_(2)
k = int(base[3])
h = scale(forward(x)).sigmoid()
loss = (h * k).sum()
h.mul_(2)
loss.backward()
opt.step()
"""


def copied(state):
    return Copy.take(state, CELL)


def test_proofs_are_those_of_the_fork():
    rewrites = [
        Rewrite(CELL.replace("h.mul_(2)", "h = h * 2")),
        Rewrite(CELL.replace("h.mul_(2)", "h.data.mul_(2)")),
        Rewrite(CELL.replace("h.mul_(2)", "import os; os._exit(3)")),
        Rewrite(CELL.replace("h.mul_(2)", "h = h.clone().mul_(2)")),
    ]
    forked = attempt(CELL, *rewrites, before=BEFORE)
    spawned = attempt(CELL, *rewrites, before=BEFORE, take=copied, seconds=60)
    assert [v.status for v in spawned] == ["passed", "failed", "failed", "passed"]
    assert [v.status for v in forked] == [v.status for v in spawned]
    assert [v.reason for v in forked] == [v.reason for v in spawned]
    for one, other in zip(forked, spawned, strict=True):
        assert [row.norm_as_run for row in other.gradients] == pytest.approx([row.norm_as_run for row in one.gradients])


def test_ends_of_the_process_and_limits(tmp_path):
    x = torch.arange(3.0)
    with Copy.take({"x": x}, "x") as copy:
        x.add_(100)
        run = lambda target, limits=None, **arguments: copy.run(f"sandbox_targets:{target}", arguments, limits)  # noqa: E731
        assert run("add_one").messages == ([1.0, 2.0, 3.0],)
        first = copy._process
        assert run("add_one").messages == ([1.0, 2.0, 3.0],)
        assert copy._process is first
        outcome = run("segfault")
        assert (outcome.status, outcome.detail, outcome.messages) == ("crashed", "SIGSEGV", ("before",))
        outcome = run("hang", Limits(seconds=1))
        assert (outcome.status, outcome.messages) == ("timeout", ("before",))
        outcome = run("write_file", path=str(tmp_path / "file"))
        assert outcome.messages[0] == "EscapeError"
        assert str(tmp_path) in outcome.escapes[0]
        assert not list(tmp_path.iterdir())
        outcome = run("raise_out")
        assert outcome.status == "lost"
        assert "a fault of the target" in outcome.detail
    assert x.tolist() == [100, 101, 102]


def test_cancelled_from_another_thread():
    copy = Copy.take({"x": torch.arange(3.0)}, "x")
    timer = threading.Timer(3, copy.interrupt)
    timer.start()
    assert copy.run("sandbox_targets:wait", {"seconds": 60}).status == "cancelled"
    timer.join()
    assert copy.run("sandbox_targets:add_one").messages == ([1.0, 2.0, 3.0],)
    timer = threading.Timer(3, copy.cancel)
    timer.start()
    began = time.monotonic()
    assert copy.run("sandbox_targets:wait", {"seconds": 60}).status == "cancelled"
    assert time.monotonic() - began < 30
    timer.join()
    assert copy.run("sandbox_targets:wait", {"seconds": 60}).status == "cancelled"


def test_what_cannot_be_copied_is_named():
    lock = threading.Lock()
    with pytest.raises(SandboxUnavailableError, match="`lock` cannot be copied"):
        Copy.take({"lock": lock, "x": 1}, "with lock: x")
    w = torch.ones(2, requires_grad=True)
    with pytest.raises(SandboxUnavailableError, match="`h` belongs to an autograd graph"):
        Copy.take({"h": w * 2}, "h")
    with pytest.raises(SandboxUnavailableError, match="holds 4 MiB, more than the 1 MiB"):
        Copy.take({"big": torch.empty(1 << 20)}, "big", limit_bytes=1 << 20)
    with pytest.raises(SandboxUnavailableError, match="no Python"):
        Copy.take({}, "x = = 1")
    Copy.take({"lock": lock, "x": 1}, "x").close()  # only what the cell reads


def test_take_chooses():
    state = {"x": torch.ones(3)}
    with take(state, "x") as chosen:
        assert isinstance(chosen, Snapshot)
    with take(state, "x", backend="spawn") as chosen:
        assert isinstance(chosen, Copy)
    big = {"x": torch.empty(1 << 20)}
    with pytest.raises(SandboxUnavailableError, match=r"more than the 1 MiB up to which .*, and what the cell reads"):
        take(big, "x", limit_bytes=1 << 20)
    with take(big, "x", limit_bytes=1 << 20, force=True) as chosen:
        assert isinstance(chosen, Snapshot)
    with pytest.raises(ValueError, match="not 'thread'"):
        take(state, "x", backend="thread")


def test_cells_with_magics_and_data_loaders(shell):
    shell.run("import torch\nw = torch.ones(3, requires_grad=True)")
    shell.ns["data"] = _Numbers()
    with take(shell.ip, "%time w\ndata", backend="spawn") as copy:
        outcome = copy.run("sandbox_targets:run_cell", {"source": "%time total = (w * 2).sum().item()\ntotal"})
        assert outcome.messages == (6.0,)
        assert copy.run("sandbox_targets:load_data").messages == (84.0,)
