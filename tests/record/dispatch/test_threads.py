"""Threads that a watched thread starts."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from jupyter_inplace import watch


def in_thread(target, *arguments):
    thread = threading.Thread(target=target, args=arguments, name="helper")
    thread.start()
    thread.join()
    return thread


def silently(h):
    h.data.mul_(2)


def openly(h):
    with torch.no_grad():
        h.mul_(2)


def test_a_silent_write_to_what_the_watched_thread_saved():
    w = torch.ones(3, requires_grad=True)
    with watch() as report:
        h = torch.exp(w)
        loss = h.sum()
        in_thread(silently, h)
        loss.backward()
    (row,) = [m for m in report.mutations if m.verdict != "harmless"]
    assert (row.verdict, row.site.function, row.site.text) == ("corrupts", "silently", "h.data.mul_(2)")
    assert row.note == "by the thread 'helper'"
    (gradient,) = report.gradients
    assert gradient.norm_reference == pytest.approx(3**0.5 * torch.e)  # d/dw sum(exp(w)) at 1
    assert gradient.norm_as_run == pytest.approx(2 * 3**0.5 * torch.e)
    assert w.grad.tolist() == pytest.approx([2 * torch.e] * 3)


def test_a_write_that_makes_backward_raise():
    w = torch.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"), watch() as report:
        h = torch.exp(w)
        loss = h.sum()
        in_thread(openly, h)
        loss.backward()
    (row,) = [m for m in report.mutations if m.verdict != "harmless"]
    assert (row.verdict, row.site.text, row.versions) == ("breaks", "h.mul_(2)", (0, 1))


def test_writes_to_other_memory_are_not_its_business():
    w = torch.ones(3, requires_grad=True)
    with watch() as report:
        loss = torch.exp(w).sum()
        in_thread(silently, torch.ones(3))
        loss.backward()
    assert report.verdict == "harmless"
    assert report.mutations == ()
    assert report.blind_spots == ()


def test_a_pool_whose_threads_start_during_the_watch():
    w = torch.ones(4, requires_grad=True)
    with watch() as report:
        h = torch.exp(w)
        loss = h.sum()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda i: h.data[i].mul_(2), range(4)))
        loss.backward()
    assert report.verdict == "corrupts"
    assert sum(m.count for m in report.mutations) == 4


def test_graphs_that_a_thread_builds_are_a_blind_spot_that_is_said():
    def own():
        v = torch.ones(3, requires_grad=True)
        v.exp().sum().backward()
        assert v.grad is not None

    with watch() as report:
        in_thread(own)
    assert report.blind_spots == ("the thread 'helper' built graphs of its own: what they saved is not watched",)


def test_versions_move_in_threads_as_they_do_unwatched():
    def bump(a, b):
        torch._foreach_add_([a, b], 1.0)
        a.add_(1)

    versions = []
    for watched in (False, True):
        a, b = torch.ones(2), torch.ones(2)
        if watched:
            with watch():
                in_thread(bump, a, b)
        else:
            in_thread(bump, a, b)
        versions.append((a._version, b._version))
    assert versions[0] == versions[1]


def test_threads_see_nothing_of_it(monkeypatch):
    class Own(threading.Thread):
        def run(self):
            self.seen = dict(vars(self))
            raise ValueError("in the thread")

    told = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    start = threading.Thread.start
    with watch():
        assert threading.Thread.start is not start
        thread = Own()
        before = set(vars(thread))
        thread.start()
        thread.join()
        given = threading.Thread(target=lambda: None)
        given.run = lambda: told.append("own")
        given.start()
        given.join()
        with pytest.raises(RuntimeError, match="threads can only be started once"):
            thread.start()
        assert "run" not in vars(thread)
    assert threading.Thread.start is start
    assert "run" not in thread.seen
    assert before <= set(thread.seen)
    assert told[1] == "own"
    frames, tb = [], told[0].exc_traceback
    while tb is not None:
        frames.append(tb.tb_frame.f_code.co_filename)
        tb = tb.tb_next
    assert not [f for f in frames if "jupyter_inplace/" in f.replace("\\", "/") and "tests/" not in f]


def test_a_thread_that_outlives_the_watch():
    go, done = threading.Event(), threading.Event()
    h = torch.ones(3)

    def late():
        go.wait(10)
        h.mul_(2)
        done.set()

    with watch() as report:
        thread = threading.Thread(target=late)
        thread.start()
    go.set()
    thread.join()
    assert done.is_set()
    assert h.tolist() == [2.0] * 3
    assert report.mutations == ()


def test_two_threads_watch_at_once():
    barrier = threading.Barrier(2, timeout=20)
    reports = {}

    def work(name, bad):
        w = torch.ones(3, requires_grad=True)
        with watch() as report:
            h = torch.exp(w)
            loss = h.sum()
            barrier.wait()
            if bad:
                h.data.mul_(2)
            barrier.wait()
            loss.backward()
        barrier.wait()
        reports[name] = report

    threads = [threading.Thread(target=work, args=(str(bad), bad)) for bad in (False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: r.verdict for name, r in reports.items()} == {"False": "harmless", "True": "corrupts"}
