"""A repeated write is entered by a short way; the report is the one that the long way makes."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn

from jupyter_inplace import watch
from jupyter_inplace.record.dispatch import mode, tripwires
from jupyter_inplace.record.writes import fast_path

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


def batch_norm_in_a_training_loop():
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        net(torch.rand(3, 4)).square().sum().backward()
        optimizer.step()
    first, second = net(torch.rand(3, 4)).sum(), net(torch.rand(3, 4)).square().sum()
    (first + second).backward()
    net.eval()
    loss = net(torch.rand(3, 4)).square().sum()
    net.train()
    net(torch.rand(3, 4))
    loss.backward()


def batch_norm_of_data_that_is_written():
    norm, x = nn.BatchNorm1d(4), torch.rand(3, 4)
    for i in range(4):
        loss = norm(x).square().sum()
        if i == 3:
            x.mul_(2)
        loss.backward()


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


def activations():
    w = torch.ones(4, requires_grad=True)
    for _ in range(4):
        h = (w * 2).sin()
        h.neg_()
        h += w
        h.mul_(3).sigmoid_().sum().backward()


def activations_of_no_backward():
    w = torch.ones(4, requires_grad=True)
    for _ in range(4):
        h = (w * 2).sin()
        h.neg_()
        h += w
    return h


def overwritten_after_its_save():
    w = torch.ones(4, requires_grad=True)
    kept = []  # each round has memory of its own
    for i in range(4):
        h = w * 2
        kept.append(h)
        h.exp_()
        if i == 3:
            h.exp_().add_(1)
        loss = h.sum()
        loss.backward()


def multiplied_by_itself():
    w = torch.ones(4, requires_grad=True)
    kept = []  # each round has memory of its own
    for i in range(4):
        h, other = w * 2, w * 3
        kept.append(h)
        h.mul_(h if i == 3 else other)
        loss = h.sum()
        loss.backward()


def multiplied_by_a_view_of_itself():
    w, x = torch.ones(4, requires_grad=True), torch.ones(4)
    kept = []  # each round has memory of its own
    for i in range(4):
        h, other = w * 2, w * 3
        kept.append(h)
        h.mul_(h.detach().view(2, 2).view(4) if i == 3 else other.detach())
        loss = (h * x).sum()
        loss.backward()


def masked():
    w = torch.ones(4, requires_grad=True)
    kept = []  # each round has memory of its own
    for _ in range(3):
        h = w * 2
        kept.append(h)
        h[torch.tensor([True, False, True, False])] = 0
        h.index_put_((torch.tensor([1]),), w[:1])
        h.masked_fill_(h > 3, 0.0).sum().backward()


def under_no_grad_in_the_last_round():
    w = torch.ones(4, requires_grad=True)
    kept = []  # each round has memory of its own
    for i in range(4):
        h = w * 2
        kept.append(h)
        with torch.set_grad_enabled(i != 3):
            h.mul_(2)
        (h * h).sum().backward()


def slots_of_a_recorded_buffer():
    w = torch.ones(4, requires_grad=True)
    for _ in range(3):
        x, v = torch.zeros(6, 4), w * 2
        for i in range(6):
            x[i] = v
        (x * x).sum().backward()


def a_slot_written_after_its_save():
    w = torch.ones(4, requires_grad=True)
    x = torch.zeros(6, 4)
    for i in range(6):
        x[i] = w * 2
        x[i].exp_()
    loss = x[0].exp().sum() + (x * x).sum()
    for i in range(6):
        x[i] = w
    loss.backward()


def a_slot_written_under_no_grad():
    w = torch.ones(4, requires_grad=True)
    x = torch.zeros(6, 4)
    for i in range(6):
        with torch.set_grad_enabled(i != 4):
            x[i] = w * 2
    (x * x).sum().backward()


def a_slot_written_behind_an_alias():
    w = torch.ones(4, requires_grad=True)
    x = torch.zeros(6, 4)
    for i in range(6):
        y = x.detach() if i == 4 else x
        y[i] = w * 2
    for i in range(6):
        x[i] = w * 3
    (x * x).sum().backward()


def slots_of_slots():
    w = torch.ones(3, requires_grad=True)
    x = torch.zeros(4, 2, 3)
    for _ in range(2):
        for row in x:
            for cell in row:
                cell.add_(w)
    x.sin().sum().backward()


def masks():
    torch.manual_seed(0)
    w, drop = torch.ones(8, requires_grad=True), nn.Dropout(0.5)
    for _ in range(12):
        drop(w * 2).sum().backward()


def a_temporary_written_after_its_save():
    w = torch.ones(4, requires_grad=True)
    kept = []  # each round has memory of its own
    for i in range(14):
        kept.append(torch.zeros(4))
        kept[-1].add_(i)
        loss = (w * kept[-1]).sum()
        if i == 12:
            kept[-1].mul_(2)
        if i == 13:
            kept[3].add_(1)
        loss.backward()


def more_memories_than_rows():
    kept = []
    for _ in range(600):
        kept.append(torch.zeros(1).add_(1))


def saved_after_a_write_that_makes_no_node():
    x, w = torch.zeros(2), torch.ones(2, requires_grad=True)
    for _ in range(5):
        x.add_(1)
    h = w.exp()
    h.mul_(2)
    h.sum().backward()


def saved_after_a_refused_write():
    x, w = torch.zeros(2), torch.ones(2, requires_grad=True)
    for size in (2, 2, 2, 3):
        with contextlib.suppress(RuntimeError):
            x.add_(torch.ones(size))
    h = w.exp()
    h.mul_(2)
    h.sum().backward()


def saved_by_the_write_itself():
    w = torch.ones(2, requires_grad=True)
    for _ in range(12):
        h = w * 2
        torch.relu_(h)
    h.data.mul_(-3)
    h.sum().backward()


PROGRAMS = (
    activations,
    activations_of_no_backward,
    overwritten_after_its_save,
    multiplied_by_itself,
    multiplied_by_a_view_of_itself,
    masked,
    slots_of_a_recorded_buffer,
    a_slot_written_after_its_save,
    a_slot_written_under_no_grad,
    a_slot_written_behind_an_alias,
    slots_of_slots,
    masks,
    a_temporary_written_after_its_save,
    under_no_grad_in_the_last_round,
    more_memories_than_rows,
    nothing_follows,
    slots,
    saved_in_the_last_round,
    saved_and_let_go,
    a_detached_alias_made_late,
    no_gradient_needed_until_the_last_round,
    parameters,
    labels,
    counters_of_batch_norm,
    batch_norm_in_a_training_loop,
    batch_norm_of_data_that_is_written,
    in_inference_mode,
    a_gradient_kept,
    lists,
    outputs,
    refused,
    saved_after_a_write_that_makes_no_node,
    saved_after_a_refused_write,
    saved_by_the_write_itself,
)


def told(program: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    with contextlib.suppress(RuntimeError), watch() as report:
        program()
    data: dict[str, Any] = report.report.to_dict()
    assert "recorder failed" not in str(data["blind_spots"])
    # Rows are apart by memory, which is given out again: writes of one line are in one row or in two, as it comes.
    times: Counter[Any] = Counter()
    for row in data["mutations"]:
        times[row["op"], row["site"]["line"]] += row.pop("count")
        for name in ("id", "time", "versions", "storage"):
            del row[name]
        if row["verdict"] == "harmless":
            del row["tensor"]
    writes = times, {json.dumps(row) for row in data["mutations"]}
    conflicts = [{name: value for name, value in row.items() if name != "mutation"} for row in data["conflicts"]]
    rest = {name: data[name] for name in ("verdict", "tasks", "gradients", "blind_spots")}
    return {**rest, "writes": writes, "conflicts": conflicts}


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_the_same_report(program, monkeypatch):
    short = told(program)
    for module in (mode, tripwires):
        monkeypatch.setattr(module, "repeated", lambda *_: None)
    assert told(program) == short


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("program", "times"),
    [(nothing_follows, 4), (activations_of_no_backward, 0), (slots_of_a_recorded_buffer, 0), (masks, 0)],
)
def test_it_is_taken(program, times, monkeypatch):
    entered = []
    for module in (mode, tripwires):
        monkeypatch.setattr(module, "enter", lambda *args: (entered.append(args), fast_path.enter(*args)))
    with watch() as report:
        program()
    if times:
        assert len(entered) == times
        (row,) = [row for row in report.mutations if row.op == "aten.add_.Tensor"]
        assert (row.count, row.versions) == (5, (0, 5))
    else:
        assert len(entered) >= 3


@pytest.mark.faulty
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("part", ["_rows", "_of_no_concern"])
def test_a_fault_of_ours_never_surfaces_in_the_program(part, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("injected")

    monkeypatch.setattr(fast_path, part, fail)
    with watch() as report:
        nothing_follows()
    (row,) = [row for row in report.mutations if row.op == "aten.add_.Tensor"]
    assert row.count == 5
    assert "ZeroDivisionError" in str(report.blind_spots)
