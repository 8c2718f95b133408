"""Roots split into tasks: losses of any length, and sums as people and generators write them."""

from __future__ import annotations

import pytest
import torch

from jupyter_inplace import watch


def summed(h, n):
    losses = [(h * (i + 1)).sum() for i in range(n)]
    return sum(losses)


def added_up(h, n):
    loss = (h * 2).sum()
    for i in range(n):
        loss = loss + (h * i).sum()
    return loss


def added_in_front(h, n):
    loss = (h * 2).sum()
    for i in range(n):
        loss = (h * i).sum() + loss
    return loss


def scaled(h, n):
    loss = (h * h).sum()
    for _ in range(n):
        loss = loss * 1.0
    return loss


def stacked(h, n):
    return torch.stack([(h * h).sum() for _ in range(n)]).sum()


def recurrent(h, n):
    state, loss = h, 0
    for _ in range(n):
        state = torch.tanh(state * 0.5 + h)
        loss = loss + state.sum()
    return loss


FORMS = [summed, added_up, added_in_front, scaled, stacked, recurrent]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [1, 70, 1200])
def test_a_loss_of_any_length(form, n):
    """Each writes what `torch.exp` saved. The gradient that was meant is that of the program without the write."""
    meant = torch.ones(4, requires_grad=True)
    form(torch.exp(meant), n).backward()
    w = torch.ones(4, requires_grad=True)
    with watch() as report:
        h = torch.exp(w)
        loss = form(h, n)
        h.data.mul_(2)
        loss.backward()
    assert report.verdict == "corrupts"
    assert [task.name for task in report.tasks] == ["loss"]
    (row,) = report.gradients
    assert row.norm_reference == pytest.approx(float(meant.grad.norm()), rel=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_a_clean_loss_of_a_thousand_addends(form):
    w = torch.ones(4, requires_grad=True)
    with watch() as report:
        loss = form(torch.exp(w), 1200)
        loss.backward()
    assert report.verdict == "harmless"
    assert report.blind_spots == ()


def test_tasks_that_are_sums_themselves_are_told_apart():
    w = torch.ones(4, requires_grad=True)
    with watch() as report:
        h = torch.exp(w)
        first = summed(h, 100)
        second = added_up(torch.tanh(w), 100)
        h.data.mul_(2)
        (first + second).backward()
    assert {task.name: task.status for task in report.tasks} == {"first": "wrong", "second": "ok"}


def test_a_sum_of_a_few_named_sums():
    w = torch.ones(4, requires_grad=True)
    with watch() as report:
        h = torch.exp(w)
        a, b, c = (h * 2).sum(), h.sum(), torch.tanh(w).sum()
        both = a + b
        h.data.mul_(2)
        loss = both * 0.5 + c
        loss.backward()
    assert {task.name: task.status for task in report.tasks} == {"a": "wrong", "b": "wrong", "c": "ok"}


@pytest.mark.slow
def test_a_hundred_thousand_addends():
    w = torch.ones(4, requires_grad=True)
    with watch() as report:
        h = torch.exp(w)
        loss = added_up(h, 100_000)
        h.data.mul_(2)
        loss.backward()
    assert report.verdict == "corrupts"
