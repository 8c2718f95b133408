"""From a watched cell to its proved rewrites: the snapshot, the handle that waits, apply, rewind, and what is left behind."""

from __future__ import annotations

import _thread
import contextlib
import gc
import os
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from jupyter_inplace import watch
from jupyter_inplace.report import Fix, Report, Verification
from jupyter_inplace.rewrite.rewind.rewind import RewindError
from jupyter_inplace.rewrite.sandbox import available

BROKEN = """%%autograd_watch -q -r rep
w = torch.tensor([0.5, -1.0], requires_grad=True)
h = torch.sigmoid(w)
h.mul_(2)
loss = h.sum()
loss.backward()
"""
REFUSED = """%%autograd_watch -q -r rep
shared = torch.tensor([1.0, 2.0], requires_grad=True)
loss1 = (x * shared).sum()
shared.mul_(2)
loss2 = (y * shared).sum()
(loss1 + loss2).backward()
"""


def children():
    """The processes that this one has started and not let go, other threads' too."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        # A thread may end between the listing and the reading.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.update(int(child) for child in (task / "children").read_text().split())
    return found


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def cells(shell):
    """A shell in which torch is there, with no snapshot of an earlier test's around."""
    gc.collect()
    shell.ns["torch"] = torch
    before = children()
    shell.children = lambda: children() - before
    return shell


def statuses(report):
    return {fix.verification.status for fix in report.fixes}


def reasons(report):
    return {fix.verification.reason for fix in report.fixes}


def plainly(source, **names):
    """The namespace after a cell that nobody watches."""
    namespace = {"torch": torch, **names}
    exec("\n".join(line for line in source.split("\n") if not line.startswith("%%")), namespace)
    return namespace


class TestProved:
    def test_the_fixes_of_a_broken_cell(self, cells):
        cells.run(BROKEN)
        report = Report.from_dict(cells.ns["rep"].to_dict())
        assert report.verdict == "breaks"
        assert not any(fix.verification.pending for fix in report.fixes)
        passed = [fix for fix in report.fixes if fix.verification.status == "passed"]
        assert {"clone", "out_of_place", "preserve"} <= {fix.kind for fix in passed}
        s = 1 / (1 + torch.exp(-torch.tensor([0.5, -1.0])))
        for fix in passed:
            assert torch.allclose(plainly(fix.source)["w"].grad, 2 * s * (1 - s))

    def test_the_best_one_is_the_first(self, cells):
        cells.run(BROKEN)
        order = [("passed", "unverified", "failed").index(f.verification.status) for f in cells.ns["rep"].fixes]
        assert order == sorted(order)

    def test_both_readings_of_a_refused_write(self, cells):
        names = {"x": torch.tensor([1.0, 10.0]), "y": torch.tensor([3.0, 5.0])}
        cells.ns.update(names)
        cells.run(REFUSED)
        passed = [fix for fix in cells.ns["rep"].fixes if fix.verification.status == "passed"]
        expected = {"update": names["x"] + names["y"], "copy": names["x"] + 2 * names["y"]}
        assert {fix.reading for fix in passed} == {"update", "copy"}
        for fix in passed:
            assert torch.equal(plainly(fix.source, **names)["shared"].grad, expected[fix.reading])
            assert {row.task for row in fix.verification.gradients} == {"loss1", "loss2"}

    def test_a_rewrite_that_does_not_cure_says_why(self, cells):
        cells.run(REFUSED.replace("shared.mul_(2)", "shared.mul_(2)").replace("x *", "2 *").replace("y *", "3 *"))
        failed = [fix for fix in cells.ns["rep"].fixes if fix.verification.status == "failed"]
        assert failed
        assert all(fix.verification.reason for fix in failed)

    def test_one_rewrite_for_several_writes(self, cells):
        cells.run(
            "%%autograd_watch -q -r rep\nw = torch.ones(3, requires_grad=True)\na = w.sigmoid()\na.mul_(2)\n"
            "b = w.tanh()\nb.add_(1)\nloss = (a + b).sum()\nloss.backward()"
        )
        report = cells.ns["rep"]
        both = {m.id for m in report.mutations if m.verdict == "breaks"}
        assert len(both) == 2
        passed = [fix for fix in report.fixes if fix.verification.status == "passed"]
        assert any(set(fix.mutations) == both for fix in passed)
        s, t = torch.sigmoid(torch.ones(3)), torch.tanh(torch.ones(3))
        for fix in passed:
            assert torch.allclose(plainly(fix.source)["w"].grad, 2 * s * (1 - s) + 1 - t * t)

    def test_state_from_before_the_cell_is_what_they_run_on(self, cells):
        cells.ns["calls"] = []
        cells.run(BROKEN.replace("h.mul_(2)", "calls.append(1); h.mul_(1 + len(calls))"))
        assert any(fix.verification.status == "passed" for fix in cells.ns["rep"].fixes)
        assert cells.ns["calls"] == [1]

    def test_a_cell_that_catches_the_error(self, cells):
        cells.run(BROKEN.replace("loss.backward()", "try:\n    loss.backward()\nexcept RuntimeError:\n    pass"))
        passed = [fix for fix in cells.ns["rep"].fixes if fix.verification.status == "passed"]
        s = torch.sigmoid(torch.tensor([0.5, -1.0]))
        assert passed
        for fix in passed:
            assert torch.allclose(plainly(fix.source)["w"].grad, 2 * s * (1 - s))

    @pytest.mark.parametrize("below", [True, False])
    def test_capture(self, cells, below):
        magic, _, body = BROKEN.partition("\n")
        heads = [magic, "%%capture shown"] if below else ["%%capture shown", magic]
        cells.run("\n".join([*heads, body]))
        report = cells.ns["rep"].report
        (write,) = [mutation for mutation in report.mutations if mutation.verdict == "breaks"]
        assert write.site.file == f"In[{report.cell.execution_count}]"
        assert (write.site.line, write.site.cell_line, write.site.line_text) == (5, 5, "h.mul_(2)")
        assert report.error.site.cell_line == 7
        assert "passed" in statuses(cells.ns["rep"])

    def test_the_handle_waits(self, cells):
        cells.run(BROKEN)
        handle = cells.ns["rep"]
        assert handle.report.verdict == "breaks"  # at once
        assert not any(row["verification"]["pending"] for row in handle.to_dict()["fixes"])
        assert handle.proofs.done

    def test_a_cell_that_is_no_python(self, cells):
        # A magic of its own syntax inside of the watched cell, with a harmful write beside it.
        cells.run(BROKEN.replace("h.mul_(2)", "h.mul_(2)\n%timeit -n1 -r1 -q h"))
        assert any(fix.verification.status == "passed" for fix in cells.ns["rep"].fixes)


class TestCopied:
    """Where a device is visible no process can be forked: the names that the cell reads are copied."""

    def test_tried_all_the_same(self, cells, monkeypatch):
        monkeypatch.setattr(available, "visible_device", lambda: "a CUDA device")
        cells.ns["scale"] = torch.tensor(3.0)
        cells.run(BROKEN.replace("h.mul_(2)", "h.mul_(scale)"))
        passed = [fix for fix in cells.ns["rep"].fixes if fix.verification.status == "passed"]
        s = torch.sigmoid(torch.tensor([0.5, -1.0]))
        assert passed
        for fix in passed:
            assert torch.allclose(plainly(fix.source, scale=3.0)["w"].grad, 3 * s * (1 - s))
        with pytest.raises(RewindError, match="put back from a fork only"):
            cells.ns["rep"].rewind()


class TestUntried:
    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("--no-verify", "--no-verify was given"),
            ("--verify-seconds 1e-6", "no time was left: all proofs of a cell share 1e-06 s"),
        ],
    )
    def test_because_of_the_line(self, cells, line, said):
        cells.run(BROKEN.replace("-q", f"-q {line}"))
        assert statuses(cells.ns["rep"]) == {"unverified"}
        assert all(said in reason for reason in reasons(cells.ns["rep"]))

    def test_while_all_cells_are_watched(self, cells):
        cells.run("%autograd_watch on")
        ran = cells.run(BROKEN.partition("\n")[2])
        assert "%autograd_watch on" in ran.out
        assert cells.children() == set()
        cells.run(BROKEN)  # a cell of its own is tried
        assert "passed" in statuses(cells.ns["rep"])

    def test_because_of_the_size_unless_forced(self, cells, monkeypatch):
        monkeypatch.setattr("jupyter_inplace.rewrite.before.LIMIT_BYTES", 1 << 20)
        cells.ns["large"] = torch.ones(1 << 19)
        cells.run(BROKEN.replace("h.mul_(2)", "h.mul_(2 * large[0])"))
        (reason,) = reasons(cells.ns["rep"])
        assert "2 MiB" in reason
        assert cells.children() == set()
        cells.run(BROKEN.replace("-q", "-q --verify"))
        assert "passed" in statuses(cells.ns["rep"])

    def test_where_nothing_can_be_forked_or_copied(self, cells, monkeypatch):
        monkeypatch.setattr(available, "visible_device", lambda: "a CUDA device")
        cells.ns["lock"] = threading.Lock()
        cells.run(BROKEN.replace("h.mul_(2)", "lock.acquire(); h.mul_(2)"))
        assert statuses(cells.ns["rep"]) == {"unverified"}
        assert all("a CUDA device" in reason and "lock" in reason for reason in reasons(cells.ns["rep"]))

    def test_interrupted(self, cells):
        slow = BROKEN.replace("h.mul_(2)", "import time; time.sleep(0.7); h.mul_(2)").replace("-q", "-q")
        cells.run(slow)
        threading.Timer(0.3, _thread.interrupt_main).start()
        began = time.monotonic()
        fixes = cells.ns["rep"].fixes  # Ctrl+C ends the waiting and is seen nowhere else
        assert time.monotonic() - began < 5
        assert "the proofs were cancelled" in {fix.verification.reason for fix in fixes}
        assert not any(fix.verification.pending for fix in fixes)
        assert cells.ns["rep"].verdict == "breaks"

    def test_a_fault_of_ours_is_said_and_fails_nothing(self, cells, monkeypatch):
        def fail(*arguments):
            raise ZeroDivisionError("a fault")

        monkeypatch.setattr("jupyter_inplace.rewrite.candidates.candidates", fail)
        cells.run(BROKEN)
        assert cells.ns["rep"].fixes == ()
        assert any("ZeroDivisionError: a fault" in note for note in cells.ns["rep"].blind_spots)


class TestShown:
    def test_below_the_cell_with_their_proof(self, cells):
        ran = cells.run(BROKEN.replace("-q ", ""))
        assert "h = h * 2" in ran.out or "h.mul(2)" in ran.out
        assert ran.out.count("proved") >= 1

    def test_the_handle_itself(self, cells):
        cells.run(BROKEN)
        ran = cells.run("from IPython.display import display\ndisplay(rep)")
        assert ran.result.success
        assert "h.mul_(2)" in ran.out

    def test_saved(self, cells, tmp_path):
        cells.run(BROKEN.replace("-q", f"-q --save {tmp_path}/report.json"))
        from jupyter_inplace.report import load

        assert "passed" in statuses(load(tmp_path / "report.json"))

    def test_in_a_widget_as_they_arrive(self, cells):
        cells.run(BROKEN)
        panel = cells.ns["rep"].panel()
        fixes = cells.ns["rep"].fixes  # waits for every proof
        deadline = time.monotonic() + 10  # the widget hears of the last one right after
        while panel.report.fixes != fixes and time.monotonic() < deadline:
            time.sleep(0.01)
        assert panel.report.fixes == fixes
        assert "passed" in statuses(panel.report)

    def test_no_widget_before_there_is_a_report(self):
        with watch() as report, pytest.raises(RuntimeError, match=r"^the watch has no panel yet: "):
            report.panel()


class TestApplied:
    @pytest.fixture
    def report(self):
        fix = Fix(id=3, kind="clone", title="a copy", source="new", diff="-old\n+new\n", verification=Verification())
        return Report(fixes=(fix,))

    def test_in_a_script_the_diff_is_printed(self, report, capsys, monkeypatch):
        monkeypatch.setattr("jupyter_inplace.show.apply._shell", lambda: None)
        assert report.apply(3) == "new"
        assert capsys.readouterr().out == "-old\n+new\n"

    def test_in_a_shell_the_next_input_is_set(self, cells):
        cells.run(BROKEN)
        fix = cells.ns["rep"].fixes[0]
        assert cells.run(f"rep.apply({fix.id})").result.result == fix.source
        assert cells.ip.rl_next_input == fix.source

    @pytest.mark.parametrize("wrong", [7, "3", True, None])
    def test_no_such_fix(self, report, wrong):
        with pytest.raises(ValueError, match=r"^there is no fix ") as raised:
            report.apply(wrong)
        assert repr(wrong) in str(raised.value)

    def test_nothing_to_apply(self):
        with pytest.raises(ValueError, match=r"this report has no fixes$"):
            Report().apply(0)


class TestRewound:
    def test_what_the_cell_changed(self, cells):
        cells.run("model = torch.nn.Linear(2, 1)\nopt = torch.optim.Adam(model.parameters())\nx = torch.ones(4, 2)")
        weight = cells.ns["model"].weight
        before, numbers = weight.detach().clone(), torch.get_rng_state()
        cells.run(
            "%%autograd_watch -q -r rep\nout = model(x + torch.rand(4, 2))\nloss = out.sigmoid().mean()\n"
            "loss.backward(retain_graph=True)\nopt.step()\nh = (model.weight * 2).exp()\nh.zero_()\nh.sum().backward()"
        )
        assert cells.ns["rep"].verdict == "breaks"
        assert not torch.equal(weight, before)
        done = cells.ns["rep"].rewind()
        assert cells.ns["model"].weight is weight
        assert torch.equal(weight, before)
        assert weight.grad is None
        assert not cells.ns["opt"].state
        assert torch.equal(torch.get_rng_state(), numbers)
        assert "model.weight" in done.restored

    def test_what_the_cell_binds_anew_is_no_loss(self, cells):
        cells.run("w = torch.ones(3, requires_grad=True)\nh = w.exp()\nkept = w.exp()")
        cells.run(
            "%%autograd_watch -q -r rep\nh = w.sigmoid()\nkept.add_(h)\nh.mul_(2)\nloss = h.sum()\nloss.backward()"
        )
        assert cells.ns["rep"].verdict == "breaks"
        left = cells.ns["rep"].rewind().left
        assert [path for path in left if path.startswith("h")] == []
        assert [path for path in left if path.startswith("kept")] == ["kept (its autograd graph, from an earlier cell)"]

    def test_nothing_is_kept_of_a_clean_cell(self, cells):
        cells.run("%%autograd_watch -q -r rep\nx = torch.ones(2).mul_(2)")
        with pytest.raises(RewindError, match="no harmful write was found"):
            cells.ns["rep"].rewind()

    def test_nor_without_a_copy(self, cells):
        cells.run(BROKEN.replace("-q", "-q --no-verify"))
        with pytest.raises(RewindError, match="--no-verify was given"):
            cells.ns["rep"].rewind()

    def test_nor_once_another_cell_is_watched(self, cells):
        cells.run(BROKEN)
        earlier = cells.ns["rep"]
        assert earlier.fixes
        cells.run("%%autograd_watch -q\nx = 1")
        with pytest.raises(RewindError, match="another cell was watched"):
            earlier.rewind()


class TestLeavesNothing:
    def test_a_clean_cell_holds_no_copy(self, cells):
        cells.run("seen = None")
        cells.ns["children"] = cells.children
        cells.run("%%autograd_watch -q\nx = torch.ones(2).mul_(2)\nseen = children()")
        assert len(cells.ns["seen"]) == 1  # held while the cell runs
        assert cells.children() == set()

    def test_a_harmful_cell_holds_one_until_the_next(self, cells):
        cells.run(BROKEN)
        cells.ns["rep"].fixes
        assert len(cells.children()) == 1
        cells.run("%%autograd_watch -q\nx = 1")
        assert cells.children() == set()

    def test_unloading_lets_it_go(self, cells):
        from jupyter_inplace import magic

        cells.run(BROKEN)
        cells.ns["rep"].fixes
        magic.unload(cells.ip)
        assert cells.children() == set()

    @pytest.mark.slow
    def test_a_hundred_cells(self, cells):
        clean = "%%autograd_watch -q -r rep\nx = torch.ones(1000).mul_(2)"
        quick = BROKEN.replace("-q", "-q --verify-seconds 0.05")

        def some(count):
            for number in range(count):
                cells.run(quick if number % 5 == 0 else clean)
                if number % 5 == 0:
                    cells.ns["rep"].to_dict()
            cells.run(clean)
            gc.collect()

        some(10)
        opened, threads, size = descriptors(), threading.active_count(), resident()
        some(100)
        assert cells.children() == set()
        assert descriptors() <= opened
        assert threading.active_count() <= threads
        assert resident() - size < 20 << 20


def resident():
    """Bytes of memory of this process's own."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_run_has_nothing_left_to_mark_for_dynamo():
    """Marking is work for every function of ours: done before the copy is made, no run pays for it again."""
    from jupyter_inplace.record.base import dynamo
    from jupyter_inplace.rewrite.before import Before

    dynamo._marked.clear()
    before = Before.keep({}, "")
    before.drop()
    ours = {name for name in sys.modules if name.startswith(("jupyter_inplace.record.", "jupyter_inplace.explain."))}
    assert len(ours) > 40
    assert ours <= dynamo._marked
