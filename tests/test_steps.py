"""One step in so many of a long loop."""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path

import pytest
import torch

from jupyter_inplace import progress as progress_module
from jupyter_inplace import watch
from jupyter_inplace.progress import Progress


def make():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Sigmoid(), torch.nn.Linear(4, 1))
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def one_step(model, optimizer, bad):
    h = model[1](model[0](torch.ones(2, 4)))
    loss = model[2](h).sum()
    if bad:
        h.data.mul_(2)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def test_one_in_ten():
    model, optimizer = make()
    with watch(every=10) as report:
        for i in report.steps(range(95)):
            one_step(model, optimizer, bad=i >= 42)
    assert report.watched_steps == (10, 95)
    (row,) = [m for m in report.mutations if m.verdict == "corrupts"]
    assert (row.site.text, row.count, row.steps) == ("h.data.mul_(2)", 5, 5)
    assert "10 of 95 steps were watched. The first that harms is step 50." in report.summary
    wrong = {g.leaf: g.occurrence for g in report.gradients if g.status == "wrong"}
    assert "model.0.weight" in wrong
    assert set(wrong.values()) <= {50, 60, 70, 80, 90}


def test_a_watched_loop_trains_the_same():
    results = []
    for every in (None, 1, 3):
        model, optimizer = make()
        if every is None:
            for i in range(7):
                one_step(model, optimizer, bad=i == 3)
        else:
            with watch(every=every) as report:
                for i in range(7):
                    report.step()
                    one_step(model, optimizer, bad=i == 3)
            assert report.verdict == "corrupts"
        results.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_between_watched_steps_nothing_is_in_force(no_tripwires):
    from jupyter_inplace.record.base.torch_private import len_dispatch_stack, top_saved_tensors_hooks

    seen = []
    with watch(every=3) as report:
        for _ in report.steps(range(7)):
            seen.append((len_dispatch_stack(), top_saved_tensors_hooks() is not None))
        assert (len_dispatch_stack(), top_saved_tensors_hooks()) == (0, None)
    assert seen == [(1, True), (0, False), (0, False)] * 2 + [(1, True)]


def test_what_it_found_until_now_can_be_asked():
    model, optimizer = make()
    with watch(every=2) as report:
        assert report.report is None
        for i in report.steps(range(1000)):
            one_step(model, optimizer, bad=i == 4)
            if report.report is not None and report.verdict != "harmless":
                break
    assert i == 5
    assert report.watched_steps == (3, 6)


def test_an_error_in_a_watched_step_is_explained():
    model, _ = make()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"), watch(every=5) as report:
        for i in report.steps(range(20)):
            h = model[1](model[0](torch.ones(2, 4)))
            if i == 10:
                h.mul_(2)
            h.sum().backward()
    assert (report.verdict, report.watched_steps) == ("breaks", (3, 11))
    assert report.error.type == "RuntimeError"


def test_an_error_in_an_unwatched_step_is_not_called_harmless_without_a_word():
    with pytest.raises(ZeroDivisionError), watch(every=100) as report:
        for i in report.steps(range(20)):
            1 / (i - 7)
    assert report.watched_steps == (1, 8)
    assert report.error.type == "ZeroDivisionError"
    assert report.error.site.text == "1 / (i - 7)"
    assert report.summary.endswith("The ZeroDivisionError came in step 7, which was not watched.")
    assert "another cause" not in report.summary


def test_steps_without_every_are_one_watch():
    model, optimizer = make()
    with watch() as report:
        for _ in report.steps(range(3)):
            report.step()
            one_step(model, optimizer, bad=True)
    assert report.watched_steps == ()
    assert sum(m.count for m in report.mutations if m.verdict == "corrupts") == 3


def test_misuse():
    for wrong in (0, -1, 2.0, True, "3"):
        with pytest.raises(ValueError, match=f"`every` is a number of steps, 1 or more, not {wrong!r}"):
            watch(every=wrong)
    with pytest.raises(RuntimeError, match="belongs inside of"):
        watch(every=3).step()
    with pytest.raises(RuntimeError, match="belongs inside of"):
        watch(every=3).steps([])
    with watch(every=3) as report:
        one_step(*make(), bad=False)
    assert report.watched_steps == (0, 0)
    assert "no step was begun" in report.summary


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
def test_a_hundred_thousand_steps_in_flat_memory():
    w = torch.ones(1000, requires_grad=True)
    marks = []
    with watch(every=250) as report:
        for i in range(100_000):
            report.step()
            if i % 250 < 2:  # the watched step and one more do the work, the others only pass
                h = torch.exp(w)
                losses = {f"step{i}": h.sum()}
                if i % 1000 == 0:
                    h.data.mul_(0.5)
                losses[f"step{i}"].backward()
                w.grad = None
            if i in (20_000, 99_999):
                marks.append(resident_bytes())
    assert report.watched_steps == (400, 100_000)
    assert [m.count for m in report.mutations if m.verdict == "corrupts"] == [100]
    assert marks[1] - marks[0] < 20 << 20


# --- progress ----------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    fake = Clock()
    monkeypatch.setattr(progress_module, "time", fake)
    return fake


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_a_line_on_a_terminal_that_is_taken_away_again(clock):
    screen = Screen()
    progress = Progress(None, screen)
    progress.over(range(500))
    progress.update(1, 0, "harmless")
    assert screen.getvalue() == ""  # what is over soon needs no line
    clock.now += 4
    progress.update(100, 2, "harmless")
    clock.now += 0.1
    progress.update(103, 2, "harmless")
    clock.now += 1
    progress.update(120, 2, "cuts")
    progress.close()
    lines = screen.getvalue().split("\r\033[K")
    assert lines == [
        "",
        "autograd watch: step 100 of 500, 25.0/s, 2 watched: harmless",
        "autograd watch: step 120 of 500, 23.5/s, 2 watched: cuts",
        "",
    ]


@pytest.mark.parametrize("why", ["unwanted", "no terminal", "rank 1"])
def test_silent_where_nobody_looks(clock, monkeypatch, why):
    if why == "rank 1":
        monkeypatch.setenv("RANK", "1")
    stream = io.StringIO() if why == "no terminal" else Screen()
    progress = Progress(False if why == "unwanted" else None, stream)
    clock.now += 10
    progress.update(100, 2, "harmless")
    progress.close()
    assert stream.getvalue() == ""


def test_the_programs_own_bar_is_used(clock):
    class Bar(list):
        told = ()

        def set_postfix_str(self, text, refresh):
            self.told += ((text, refresh),)

    screen, bar = Screen(), Bar([1, 2])
    progress = Progress(None, screen)
    progress.over(bar)
    clock.now += 10
    progress.update(7, 3, "cuts")
    progress.close()
    assert bar.told == (("3 watched: cuts", False),)
    assert screen.getvalue() == ""


@pytest.mark.parametrize("installed", [True, False])
def test_a_bar_in_a_notebook_that_has_tqdm(clock, monkeypatch, installed):
    bars = []

    class Bar:
        def __init__(self, **words):
            self.words, self.n, self.open = words, 0, True
            bars.append(self)

        def set_postfix_str(self, text, refresh):
            self.text = text

        def close(self):
            self.open = False

    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "tqdm", types.ModuleType("tqdm"))
    monkeypatch.setitem(sys.modules, "tqdm.notebook", types.SimpleNamespace(tqdm=Bar) if installed else None)
    screen = Screen()
    progress = Progress(None, screen)
    progress.over(range(50))
    clock.now += 10
    progress.update(20, 3, "harmless")
    progress.close()
    assert screen.getvalue() == ""
    assert [(b.words["total"], b.n, b.text, b.open) for b in bars] == [
        (50, 20, "3 watched: harmless", False)
    ] * installed
