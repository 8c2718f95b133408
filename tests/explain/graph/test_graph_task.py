"""On one thread torch says that no backward is under way; on the others and afterwards it says what it would."""

from __future__ import annotations

import threading

import torch

from jupyter_inplace.explain.graph.graph_task import apart_from_backward


def _number():
    return torch._C._current_graph_task_id()


def test_within_a_backward_there_is_none_for_a_while():
    original, seen = torch._C._current_graph_task_id, []

    def hook(g):
        seen.append(_number())
        with apart_from_backward():
            seen.append(_number())
            with apart_from_backward():
                seen.append(_number())
            seen.append(_number())
        seen.append(_number())

    w = torch.ones(2, requires_grad=True)
    h = w * 2
    h.register_hook(hook)
    h.sum().backward()
    first, *within, last = seen
    assert first == last >= 0
    assert within == [-1] * 3
    assert torch._C._current_graph_task_id is original


def test_other_threads_are_told_what_is_so():
    original, seen = torch._C._current_graph_task_id, []
    inside, done = threading.Event(), threading.Event()

    def other():
        with apart_from_backward():
            inside.set()
            done.wait()

    def hook(g):
        thread.start()
        inside.wait()
        seen.append(_number())
        done.set()

    thread = threading.Thread(target=other)
    w = torch.ones(2, requires_grad=True)
    h = w * 2
    h.register_hook(hook)
    h.sum().backward()
    thread.join()
    assert seen[0] >= 0
    assert torch._C._current_graph_task_id is original
