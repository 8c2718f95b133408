"""A repeated write is entered by a short way; the report is the one that the long way makes."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import nn

from jupyter_inplace import watch
from jupyter_inplace.record import mode

pytestmark = pytest.mark.usefixtures("own_record")


def nothing_follows():
    x = torch.zeros(4)
    for _ in range(5):
        x.add_(1)


def slots():
    x, v = torch.zeros(6, 2), torch.ones(2)
    for i in range(6):
        x[i] = v
    return x


def saved_in_the_last_round():
    w, x = torch.ones(4, requires_grad=True), torch.ones(4)
    for i in range(4):
        if i == 3:
            loss = (w * x).sum()
        x.add_(1)
    loss.backward()


def saved_and_let_go():
    w, x = torch.ones(4, requires_grad=True), torch.ones(4)
    for i in range(5):
        if i == 2:
            loss = (w * x).sum()
            loss.backward()
        x.add_(1)


def a_detached_alias_made_late():
    w = torch.ones(4, requires_grad=True)
    x = torch.ones(4)
    for i in range(4):
        t = (w * 2).detach() if i == 3 else x
        t.mul_(2)


def no_gradient_needed_until_the_last_round():
    w, x = torch.ones(4, requires_grad=True), torch.zeros(4)
    for i in range(4):
        x.add_(w if i == 3 else 1)
    (x * x).sum().backward()


def parameters():
    w = torch.ones(4, requires_grad=True)
    for _ in range(3):
        loss = (w * w).sum()
        with torch.no_grad():
            w.mul_(0.5)
    loss.backward()


def labels():
    w, y = torch.ones(3, 4, requires_grad=True), torch.tensor([0, 1, 2])
    for _ in range(3):
        y.sub_(1).clamp_(min=0)
    loss = nn.functional.cross_entropy(w, y)
    y.add_(1)
    loss.backward()


def counters_of_batch_norm():
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    for _ in range(4):
        net(torch.rand(3, 4)).sum().backward()


def in_inference_mode():
    with torch.inference_mode():
        x = torch.ones(3)
        for _ in range(3):
            x.add_(1)


def a_gradient_kept():
    w = torch.ones(4, requires_grad=True)
    kept = None
    for _ in range(3):
        (w * 2).sum().backward()
        kept = w.grad if kept is None else kept
        w.grad.mul_(2)
    return kept.sum()


def lists():
    x = [torch.ones(3), torch.ones(3)]
    for _ in range(3):
        torch._foreach_add_(x, 1)


def outputs():
    x = torch.empty(3)
    for i in range(3):
        torch.add(torch.ones(3), i, out=x)


def refused():
    x = torch.ones(1).expand(3)
    for _ in range(3):
        try:
            x.add_(1)
        except RuntimeError:
            continue


PROGRAMS = (
    nothing_follows,
    slots,
    saved_in_the_last_round,
    saved_and_let_go,
    a_detached_alias_made_late,
    no_gradient_needed_until_the_last_round,
    parameters,
    labels,
    counters_of_batch_norm,
    in_inference_mode,
    a_gradient_kept,
    lists,
    outputs,
    refused,
)


def told(program: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    with contextlib.suppress(RuntimeError), watch() as report:
        program()
    data: dict[str, Any] = report.report.to_dict()
    assert "recorder failed" not in str(data["blind_spots"])
    for row in data["mutations"]:
        del row["time"]
    return {name: data[name] for name in ("verdict", "mutations", "conflicts", "tasks", "gradients", "blind_spots")}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_the_same_report(program, monkeypatch):
    short = told(program)
    monkeypatch.setattr(mode, "repeated", lambda *_: None)
    assert told(program) == short


def test_it_is_taken(monkeypatch):
    entered = []
    enter = mode.enter
    monkeypatch.setattr(mode, "enter", lambda *args: (entered.append(args), enter(*args)))
    with watch() as report:
        nothing_follows()
    assert len(entered) == 4
    (row,) = [row for row in report.mutations if row.op == "aten.add_.Tensor"]
    assert (row.count, row.versions) == (5, (0, 5))
