"""An ordinary training step: how much of ours runs in it, what it leaves behind, and what it holds."""

import gc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from counting import own_calls, peak_bytes, session_now
from torch import nn

from jupyter_inplace import watch
from jupyter_inplace.explain.graph.graph import Graph
from jupyter_inplace.record.saved.copies import Copies

LAYERS = 4

pytestmark = pytest.mark.usefixtures("own_record")


class Training:
    """A small model, its optimizer, and one step."""

    def __init__(self, width=16):
        torch.manual_seed(0)
        layers = [layer for _ in range(LAYERS) for layer in (nn.Linear(width, width), nn.ReLU())]
        self.model = nn.Sequential(*layers, nn.Linear(width, 4))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.data, self.labels = torch.randn(8, width), torch.randint(0, 4, (8,))

    def step(self):
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(self.data), self.labels)
        loss.backward()
        self.optimizer.step()


def test_calls_of_ours_in_a_step():
    training = Training()
    with watch() as report:
        for _ in range(5):
            training.step()
        with own_calls() as called:
            training.step()
    assert report.verdict == "harmless"
    dispatched = 2 * (LAYERS + 1) + LAYERS + 2  # t and addmm; relu; log_softmax and nll_loss
    saved = 2 * (LAYERS + 1) + LAYERS + 3
    nodes = LAYERS + 1 + LAYERS + 2
    # The first layer's input needs no gradient: its weight is not saved.
    assert called.count("WatchMode.__torch_dispatch__") <= dispatched + 1  # and the root's gradient
    assert called.count("_make_pack.<locals>.pack") <= saved
    assert called.count("unpack") == called.count("_make_pack.<locals>.pack")
    assert called.count("Session.note_place") <= nodes
    # A backward call and an optimizer step, whatever the model.
    rest = len(called) - dispatched - 2 * saved - 4 * nodes - 2 * LAYERS
    assert rest < 160, sorted({name: called.count(name) for name in called}.items(), key=lambda pair: -pair[1])


def test_a_plain_operation_costs_one_call_of_ours_or_none(way):
    x = torch.ones(3)
    with watch():
        torch.relu(x)
        with own_calls() as called:
            for _ in range(10):
                torch.relu(x)
    assert called == ["WatchMode.__torch_dispatch__"] * (10 if way == "by the mode" else 0)


@pytest.mark.usefixtures("way")
def test_a_write_costs_few_calls_of_ours_however_often():
    def writes():
        x = torch.zeros(50, 2)
        with watch():
            x[0] = 1.0
            counts = []
            for n in (2, 10, 40):  # the first time finds out what stands on this line
                with own_calls() as called:
                    for i in range(n):
                        x[i] = 1.0
                counts.append(len(called) / n)
        return counts, Counter(called)

    # Outside of a cell all callers are looked at: a thread has none that depend on how the tests are run.
    with ThreadPoolExecutor(1) as thread:
        counts, called = thread.submit(writes).result()
    assert counts[2] <= counts[1] <= 19, (counts, called)


def test_a_quiet_loop_visits_no_graph_and_leaves_nothing_behind(monkeypatch):
    visited = []
    walk = Graph.__init__
    monkeypatch.setattr(Graph, "__init__", lambda self, *args: (visited.append(1), walk(self, *args))[1])
    training = Training()
    with watch() as report:
        for _ in range(10):
            training.step()
        session = session_now()
        copies = session.part(Copies).made
        calls, walks, rows = len(session.backwards), len(visited), len(session.table.rows)
        gc.collect()
        objects = len(gc.get_objects())
        for _ in range(40):
            training.step()
        gc.collect()
        assert len(session.backwards) == calls <= 4
        assert len(visited) == walks
        assert len(session.table.rows) == rows
        assert len(session.index.pending) < 100
        assert len(gc.get_objects()) - objects < 40
        assert session.part(Copies).made == copies
    (backward,) = [event for event in report.timeline if event.kind == "backward"]
    assert backward.count == 50


def test_a_failing_call_in_a_quiet_loop_is_told():
    w = torch.ones(3, requires_grad=True)
    with watch() as report:
        for i in range(8):
            loss = (w * w).sum()
            if i == 6:
                with torch.no_grad():
                    w.add_(1)
            if i < 7:
                try:
                    loss.backward()
                except RuntimeError as error:
                    assert "inplace" in str(error)
    assert report.verdict == "breaks"
    assert {task.name: task.status for task in report.tasks} == {"loss": "raises"}


def test_a_call_that_torch_refuses_in_a_quiet_loop_is_told():
    w = torch.ones(3, requires_grad=True)
    with watch() as report:
        for i in range(8):
            loss = (w * 2).sum()
            for _ in range(1 + (i == 7)):
                loss_again = loss
                if i < 7:
                    loss_again.backward()
                    continue
                try:
                    loss_again.backward()
                except RuntimeError as error:
                    assert "second time" in str(error)
    assert any("raised RuntimeError" in note for note in report.blind_spots)


@pytest.mark.parametrize("width", [16, 64])
def test_a_harmless_step_holds_what_it_holds_unwatched(width):
    def steps():
        training = Training(width)
        for _ in range(5):
            training.step()

    def watched():
        with watch() as report:
            steps()
        assert report.verdict == "harmless"

    steps()
    assert peak_bytes(watched) <= 1.01 * peak_bytes(steps)


def test_an_overwritten_tensor_is_held_once_more():
    size = 4 * 100_000

    def program():
        w = torch.ones(100_000, requires_grad=True)
        h = (w * 2).exp()
        loss = h.sum()
        h.data.mul_(2)
        return h, loss

    plain = peak_bytes(program)
    with watch():
        watched = peak_bytes(program)
    assert plain + size <= watched <= 1.01 * plain + size + 1000


def test_operations_after_a_backward_without_a_step_are_looked_at_for_a_while_only(monkeypatch):
    monkeypatch.setattr("jupyter_inplace.record.channels.discarded_grads._MAX_LOOKS", 50)
    w, x = torch.ones(3, requires_grad=True), torch.ones(3)
    with watch():
        (w * w).sum().backward()
        for _ in range(60):
            torch.relu(x)
        with own_calls() as called:
            for _ in range(10):
                torch.relu(x)
    assert called == ["WatchMode.__torch_dispatch__"] * 10


def test_a_loop_that_clears_what_nobody_read_leaves_little_behind():
    training = Training()

    def step():
        nn.functional.cross_entropy(training.model(training.data), training.labels).backward()
        training.optimizer.zero_grad()
        training.optimizer.step()

    with watch() as report:
        for _ in range(60):
            step()
        session = session_now()
        calls, rows = len(session.backwards), len(session.table.rows)
        gc.collect()
        objects = len(gc.get_objects())
        for _ in range(40):
            step()
        gc.collect()
        assert (len(session.backwards), len(session.table.rows)) == (calls, rows)
        assert len(gc.get_objects()) - objects < 40
    assert report.verdict == "cuts"
