"""A view that torch cannot follow because its base was written: not the use that raises is the fault, but that write."""

from __future__ import annotations

import pytest
import torch

from jupyter_inplace import watch


def halves(x):
    return (x * 2).view(2, 3)


def run(program):
    """The error without the watch, the error under it, and the report."""
    x = torch.arange(6.0, requires_grad=True)
    with pytest.raises(RuntimeError) as plain:
        program(x)
    handle = watch()
    with pytest.raises(RuntimeError) as watched, handle:
        program(x)
    assert str(plain.value) in str(watched.value)
    return handle.report


def backward_of_a_piece(x):
    h = halves(x)
    first, second = h.unbind()
    with torch.no_grad():
        h.mul_(3)
    torch.autograd.grad([first, second], [x], [torch.ones(3), torch.ones(3)])


def use_of_a_piece(x):
    h = halves(x)
    first, second = h.chunk(2)
    with torch.no_grad():
        second.mul_(3)
    (first * 2).sum().backward()


def saved_piece(x):
    h = halves(x)
    first, _ = h.split(1)
    y = first.sin()
    with torch.no_grad():
        h.mul_(3)
    y.sum().backward()


@pytest.mark.parametrize(("program", "expression"), [
    (backward_of_a_piece, "h.mul_(3)"), (use_of_a_piece, "second.mul_(3)"), (saved_piece, "h.mul_(3)"),
])  # fmt: skip
def test_the_write_breaks_it(program, expression):
    report = run(program)
    assert report.verdict == "breaks"
    harmful = [m for m in report.mutations if m.verdict != "harmless"]
    assert [m.site.text for m in harmful] == [expression]
    assert harmful[0].leaves == ("x",)
    assert not [note for note in report.blind_spots if "failed" in note]


def test_a_write_to_a_piece_itself_is_rejected():
    def program(x):
        h = halves(x)
        first, _ = h.unbind()
        first.mul_(3)

    report = run(program)
    assert report.verdict == "rejected"
    assert [m.site.text for m in report.mutations if m.verdict == "rejected"] == ["first.mul_(3)"]
