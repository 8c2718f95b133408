"""As the work grows, what is done for it grows with it and no faster."""

import contextlib

import pytest
import torch
from counting import own_calls, session_now

from jupyter_inplace import watch
from jupyter_inplace.explain.backward import task_gradients
from jupyter_inplace.explain.graph import numbers
from jupyter_inplace.record.saved.copies import Copies

pytestmark = pytest.mark.usefixtures("own_record")


@pytest.mark.parametrize("slots", [20, 80])
def test_each_saved_slot_is_copied_once(slots):
    w = torch.ones(slots, requires_grad=True)
    with watch():
        buffer = w * 2
        before = session_now().part(Copies).made
        total = sum(buffer[i] * buffer[i].detach() for i in range(slots))
        for i in range(slots):
            buffer.data[i] = 0.0
        assert session_now().part(Copies).made - before == slots
        total.backward()


def test_nothing_is_copied_where_writes_and_saved_tensors_lie_apart():
    w = torch.ones(8, requires_grad=True)
    with watch():
        buffer = w * 2
        before = session_now().part(Copies).made
        loss = buffer[:4].exp().sum() + (buffer[:4] * w[:4]).sum()
        buffer.data[4:].zero_()
        assert session_now().part(Copies).made == before
        loss.backward()


@pytest.mark.parametrize(("tasks", "leaves"), [(1, 4), (4, 4), (8, 4), (4, 16)])
def test_one_pass_for_each_task_and_a_few_norms_for_each_row(tasks, leaves, monkeypatch):
    passes, norms = [], []
    norm = numbers.norm
    for name in ("pull", "pull_both"):
        original = getattr(task_gradients, name)
        monkeypatch.setattr(
            task_gradients, name, lambda *args, _of=original, **kwargs: (passes.append(1), _of(*args, **kwargs))[1]
        )
    monkeypatch.setattr(numbers, "norm", lambda *args: (norms.append(1), norm(*args))[1])
    ws = [torch.ones(2, requires_grad=True) for _ in range(leaves)]
    with watch() as report:
        h = torch.stack(ws).exp()
        losses = [(h * (i + 1)).sum() for i in range(tasks)]
        h.data.mul_(2)
        sum(losses).backward()
    assert report.verdict == "corrupts"
    assert len(report.gradients) == tasks * leaves
    assert len(passes) == tasks
    assert len(norms) <= 4 * tasks * leaves


def test_the_explanation_grows_with_the_rows_of_gradients():
    def calls(leaves):
        ws = [torch.ones(2, requires_grad=True) for _ in range(leaves)]
        with own_calls() as called:
            with watch() as report:
                h = torch.stack(ws).exp()
                losses = [(h * (i + 1)).sum() for i in range(8)]
                h.data.mul_(2)
                sum(losses).backward()
            assert len(report.gradients) == 8 * leaves
        return len(called)

    calls(4)  # the first time makes more: plans of operators, kinds of nodes
    few, many = calls(16), calls(64)
    assert many < 4.2 * few, (few, many)


def _counting(calls):
    class Count(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, name):
            ctx.name = name
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            calls.append(ctx.name)
            return g, None

    return Count.apply


def test_a_node_runs_twice_only_behind_what_was_changed():
    calls = []
    count = _counting(calls)
    w = torch.ones(3, requires_grad=True)
    with watch() as report:
        h = count(w, "behind").exp()
        beside = count(w, "beside").sin()
        loss = (count(h, "before") + beside).sum()
        h.data.mul_(2)
        loss.backward()
    assert report.verdict == "corrupts"
    # The engine's own run is one of them.
    assert sorted(calls) == ["before"] * 2 + ["behind"] * 3 + ["beside"] * 2


def test_nothing_runs_twice_where_a_write_left_the_values_as_they_were():
    calls = []
    count = _counting(calls)
    w = torch.ones(3, requires_grad=True)
    with watch() as report:
        h = count(w, "behind").exp()
        loss = count(h, "before").sum()
        h.data.mul_(1)
        loss.backward()
    assert report.verdict == "harmless"
    assert sorted(calls) == ["before"] * 2 + ["behind"] * 2


@pytest.mark.parametrize(("verdict", "hurt"), [("corrupts", lambda h: h.data.mul_(2)), ("breaks", lambda h: h.mul_(2))])
def test_the_explanation_grows_with_the_saved_tensors_that_are_hurt(verdict, hurt):
    def calls(count):
        w = torch.ones(3, requires_grad=True)
        with own_calls() as called, watch(verify=False) as report:
            hs, h = [], w
            for _ in range(count):
                h = h.exp().tanh()
                hs.append(h)
            for h in hs:
                hurt(h)
            with contextlib.suppress(RuntimeError):
                sum(hs).sum().backward()
        assert report.verdict == verdict
        assert len(report.conflicts) >= 1
        return len(called)

    calls(4)
    few, many = calls(16), calls(64)
    assert many < 4.4 * few, (few, many)


def test_rows_and_report_do_not_grow_with_the_number_of_writes():
    sizes = []
    for count in (300, 3000):
        with watch() as report:
            x = torch.zeros(100, 2)
            for i in range(count):
                x[i % 100] = 1.0
        (write,) = report.mutations
        assert write.count == count
        sizes.append(len(report.to_json()))
    assert sizes[1] - sizes[0] < 20
