"""Processes that a watched thread starts."""

from __future__ import annotations

import multiprocessing
import os
import warnings

import pytest
import torch

from jupyter_inplace import watch
from jupyter_inplace.record.base.torch_private import TRIPWIRE, key_included, len_dispatch_stack

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def in_child(function):
    """What `function` returns in a forked process, as text."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: other threads of the tests' own
        pid = os.fork()
    if pid == 0:
        try:
            os.write(write, repr(function()).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read) as pipe:
        return pipe.read()


def stacks():
    from jupyter_inplace.record.base.torch_private import len_dispatch_stack, top_saved_tensors_hooks

    return len_dispatch_stack(), top_saved_tensors_hooks() is not None


@pytest.mark.usefixtures("no_tripwires")
def test_a_forked_process_is_unwatched():
    with watch():
        assert stacks() == (1, True)
        assert in_child(stacks) == "(0, False)"
        assert stacks() == (1, True)
    assert stacks() == (0, False)


@pytest.mark.usefixtures("nothing_compiled", "tripwires")
def test_a_forked_process_has_no_tripwires():
    def own():
        x = torch.zeros(2)
        x.add_(1)
        return key_included(TRIPWIRE), len_dispatch_stack()

    with watch() as report:
        assert in_child(own) == "(False, 0)"
    assert report.mutations == ()


def test_a_forked_process_may_watch_by_itself():
    def own():
        w = torch.ones(3, requires_grad=True)
        with watch() as report:
            h = torch.exp(w)
            loss = h.sum()
            h.data.mul_(2)
            loss.backward()
        return report.verdict, stacks(), report.blind_spots

    with watch() as outer:
        assert in_child(own) == "('corrupts', (0, False), ())"
    assert outer.verdict == "harmless"


def test_what_was_saved_before_the_fork_still_raises_as_it_does_unwatched():
    def backward():
        h.mul_(2)
        try:
            loss.backward()
        except RuntimeError as error:
            return str(error).partition(":")[0]

    w = torch.ones(3, requires_grad=True)
    with watch():
        h = torch.exp(w)
        loss = h.sum()
        told = in_child(backward)
    assert "has been modified by an inplace operation" in told


def nothing():
    pass


@pytest.mark.parametrize("daemon", [False, True])
def test_a_started_process_is_said_unless_it_only_serves(daemon):
    context = multiprocessing.get_context("fork")
    with watch() as report:
        process = context.Process(target=nothing, name="trainer", daemon=daemon)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        process.join()
    said = (
        "the process 'trainer' was started during the watch and is not watched; a watch inside of the function that it runs sees it",
    )
    assert report.blind_spots == (() if daemon else said)


def test_a_loader_with_workers_gives_no_note():
    data = torch.utils.data.TensorDataset(torch.arange(4.0))
    with watch() as report, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert [b[0].item() for b in torch.utils.data.DataLoader(data, num_workers=1)] == [0.0, 1.0, 2.0, 3.0]
    assert (report.verdict, report.blind_spots) == ("harmless", ())
