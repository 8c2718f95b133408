"""Saved tensors found again by the bytes that a write covers: against going through all of them."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_inplace import watch
from jupyter_inplace.record.saved import copies
from jupyter_inplace.record.saved.saved import Bucket, Intervals, Saved

SPANS = st.tuples(st.integers(0, 200), st.integers(0, 40)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def saved_tensor(order):
    saved = Saved()
    saved.tensor, saved.order = torch.zeros(1), order
    return saved


@settings(deadline=None, max_examples=200)
@given(st.lists(SPANS, max_size=30), st.lists(SPANS, max_size=8), st.sets(st.integers(0, 29)))
def test_a_write_takes_what_it_overlaps_and_leaves_the_rest(spans, writes, dead):
    intervals, alive = Intervals(), {}
    for order, (lo, hi) in enumerate(spans):
        saved = saved_tensor(order)
        intervals.add(saved, lo, hi)
        if order not in dead:
            alive[order] = (saved, lo, hi)
        del saved
    for lo, hi in writes:
        met = {order for order, (_, a, b) in alive.items() if a < hi and lo < b and a < b and lo < hi}
        if lo < hi:
            assert {saved.order for saved in intervals.take(lo, hi)} == met
        for order in met:
            del alive[order]


def test_dead_saved_tensors_are_forgotten_by_whoever_asks():
    bucket = Bucket()
    kept = [saved_tensor(i) for i in range(5)]
    for saved in kept:
        bucket.add(weakref.ref(saved), never_read=False)
    assert bucket.any_alive()
    del saved
    kept.clear()
    gc.collect()
    assert not bucket.any_alive()
    assert bucket.saved == []


@pytest.mark.parametrize("order", [1, -1])
def test_each_slot_of_a_buffer_is_copied_by_the_write_that_meets_it(order):
    base = torch.zeros(6, requires_grad=True)
    with watch() as report:
        buffer = base + torch.arange(6.0)
        squares = [buffer[i].exp() for i in range(6)]  # an output: overwriting the buffer hurts nobody
        products = [buffer[i] * base[0] for i in range(6)]
        with torch.no_grad():
            for i in range(6)[::order]:
                buffer[i] = 100.0
        loss = torch.stack(squares + products).sum()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
    assert report.verdict == "breaks"
    rows = {row.task: row.norm_reference for row in report.gradients if row.task.startswith("products")}
    reference = torch.zeros(6, requires_grad=True)
    plain = reference + torch.arange(6.0)
    expected = [
        torch.autograd.grad(plain[i] * reference[0], reference, retain_graph=True)[0].norm().item() for i in range(6)
    ]
    assert [rows[f"products[{i}]"] for i in range(6)] == pytest.approx(expected)


def test_running_statistics_are_copied_once_somebody_else_writes_them():
    norm = torch.nn.BatchNorm1d(3).eval()
    x = torch.randn(8, 3, requires_grad=True)
    with watch() as report:
        loss = norm(x).square().sum()
        norm.train()
        norm(torch.randn(8, 3))
        loss.backward()
    assert report.verdict == "corrupts"


def test_copies_are_counted_while_they_live(monkeypatch):
    monkeypatch.setattr(copies, "_BUDGET", 10_000)
    w = torch.ones(1000, requires_grad=True)
    with watch() as report:
        for _ in range(10):  # each graph's copy dies before the next one is made
            h = w * 2
            loss = h.exp()
            h.data.add_(1)
            (loss * h).sum()
            del h, loss
    assert not [note for note in report.blind_spots if "budget" in note]
    with watch() as report:
        kept = []
        for _ in range(10):
            h = w * 2
            kept.append((h * h).sum())
            with torch.no_grad():
                h.add_(1)
    assert [note for note in report.blind_spots if "budget" in note]
