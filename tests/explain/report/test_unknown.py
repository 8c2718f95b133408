"""What was seen and could not be compared is never harmless: the verdict is `unknown`, with the write or the reason."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jupyter_inplace import InplaceError, watch
from jupyter_inplace.explain.report.assemble import Assembly
from jupyter_inplace.record.saved import copies
from jupyter_inplace.record.session import Session

NOT_WORKED_OUT = "what an overwritten saved tensor does to the gradients was not worked out"
NOT_RECORDED = "what the gradients would be with a write that autograd did not record was not worked out"


def overwritten_in_silence():
    w = torch.linspace(0.1, 1, 4).requires_grad_()
    h = torch.exp(w)
    loss = h.sum()
    h.data.mul_(2)
    loss.backward()


def training():
    net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(inplace=True), nn.Linear(5, 1))
    optimizer = torch.optim.Adam(net.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.ones(4, 3)).sum().backward()
        optimizer.step()


def check(report, *reasons, write=None):
    assert report.verdict == "unknown", report.summary
    assert report.unknown_because == reasons
    assert set(reasons) <= set(report.blind_spots)
    assert [m.site.text for m in report.mutations if m.verdict == "unknown"] == ([] if write is None else [write])
    assert report.summary.startswith("it is not known whether ")
    with pytest.raises(InplaceError):
        report.raise_for_verdict("rejected")


def test_no_gradients_wanted():
    with watch(gradients=False) as report:
        overwritten_in_silence()
    check(report, NOT_WORKED_OUT, write="h.data.mul_(2)")
    assert [task.status for task in report.tasks] == [row.status for row in report.gradients] == ["unknown"]
    assert [c.node for c in report.conflicts] == ["ExpBackward0"]


def test_no_gradients_wanted_and_a_write_that_is_not_recorded():
    with watch(gradients=False) as report:
        w = torch.ones(3, requires_grad=True)
        h = torch.exp(w) * 1
        with torch.no_grad():
            h.mul_(3)
        (h * 2).sum().backward()
    check(report, NOT_RECORDED, write="h.mul_(3)")


@pytest.mark.parametrize("gradients", [None, False])
def test_clean_training_stays_harmless(gradients):
    with watch(gradients=gradients) as report:
        training()
    assert (report.verdict, report.unknown_because) == ("harmless", ())


def test_the_same_values_written_in_silence_are_known_to_be_harmless():
    with watch(gradients=False) as report:
        w = torch.ones(3, requires_grad=True)
        h = torch.exp(w)
        loss = h.sum()
        h.data.copy_(h.detach().clone())
        loss.backward()
    assert report.verdict == "harmless"


def test_batched_backward():
    with watch() as report:
        w = torch.linspace(0.1, 1, 4).requires_grad_()
        h = torch.exp(w)
        h.data.mul_(2)
        torch.autograd.grad(h, w, torch.eye(4), is_grads_batched=True)
    check(report, NOT_WORKED_OUT, write="h.data.mul_(2)")


class Once(torch.autograd.Function):
    """Its backward cannot be run once more."""

    calls = 0

    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, grad):
        Once.calls += 1
        if Once.calls == 1:
            raise RuntimeError("not now")
        return grad


def test_a_gradient_that_cannot_be_worked_out():
    Once.calls = 0
    with watch() as report:
        w = torch.ones(3, requires_grad=True)
        h = torch.exp(Once.apply(w))
        loss = h.sum()
        h.data.mul_(2)
        loss.backward()
    check(report, NOT_WORKED_OUT, write="h.data.mul_(2)")


def test_a_gradient_that_cannot_be_worked_out_where_nothing_was_overwritten():
    Once.calls = 0
    with watch(gradients=True) as report:
        w = torch.ones(3, requires_grad=True)
        torch.exp(Once.apply(w)).sum().backward()
    assert report.verdict == "harmless"
    assert any("could not be run once more" in spot for spot in report.blind_spots)


def test_no_room_for_a_copy(monkeypatch):
    monkeypatch.setattr(copies, "_BUDGET", 8)
    with watch() as report:
        overwritten_in_silence()
    check(report, NOT_WORKED_OUT, write="h.data.mul_(2)")
    with watch() as report:
        training()
    assert report.verdict == "harmless"


@pytest.mark.faulty
def test_a_fault_of_the_recorder():
    def fault():
        raise ValueError("ours")

    with watch() as report:
        from jupyter_inplace.record.active import active

        session: Session = active.session
        try:
            fault()
        except ValueError as error:
            session.fault(error)
        training()
    check(report, "the recorder failed on an operation and left it out: ValueError: ours")


@pytest.mark.faulty
def test_a_fault_of_the_report(monkeypatch):
    def report(self):
        raise ValueError("ours")

    with watch() as handle:
        training()
        monkeypatch.setattr(Assembly, "report", report)
    check(handle, "the report could not be worked out: ValueError: ours")


@pytest.mark.faulty
def test_a_fault_while_the_watch_is_removed(monkeypatch):
    from jupyter_inplace.record.saved.freed import FreedMemory

    remove = FreedMemory.remove

    def failing(self):
        remove(self)
        raise ValueError("ours")

    monkeypatch.setattr(FreedMemory, "remove", failing)
    with watch() as report:
        training()
    check(report, "the recorder failed on an operation and left it out: ValueError: ours")


@pytest.mark.faulty
def test_a_watch_that_cannot_begin(monkeypatch, capsys):
    def install(self):
        raise ValueError("a torch\nof another kind")

    monkeypatch.setattr(Session, "install", install)
    with watch() as report:
        training()
    check(report, "not watched: ValueError: a torch of another kind")
    assert capsys.readouterr().err == "jupyter_inplace: not watched: ValueError: a torch of another kind\n"
    with watch(every=2) as report:
        for _ in report.steps(range(3)):
            training()
    check(report, "not watched: ValueError: a torch of another kind")
    monkeypatch.undo()
    with watch() as report:
        training()
    assert report.verdict == "harmless"
