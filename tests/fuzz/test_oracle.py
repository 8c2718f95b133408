"""The oracle against programs whose answer is known by hand, and the generators against their own rules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from random_programs.families import FAMILIES, HELD_OUT, program
from random_programs.oracle import judge, record, run_plain
from random_programs.text import Program

HEAD = """import torch
import torch.nn.functional as F
torch.set_default_dtype(torch.float64)
torch.manual_seed(3)
w = torch.rand(3, requires_grad=True)
#: leaf(w)
v = torch.rand(3, requires_grad=True)
#: leaf(v)
c = torch.rand(3) + 0.5
"""
KNOWN = {
    "nothing is written": ("h = w * v\n(h * h).sum().backward()", "equal"),
    "a saved result is written": ("h = w.sigmoid()\nh.data.mul_(2.0)  #!\nh.sum().backward()", "differs"),
    "a saved input is written after its backward": (
        "h = w + 1\n(h * h).sum().backward()\nh.data.mul_(2.0)  #!",
        "equal",
    ),
    "read again": ("h = w + 1\nh.data.mul_(2.0)  #!\nh.sum().backward()", "differs"),
    "read again, and what was added is a constant": ("h = w + 1\nh.data.add_(c)  #!\nh.sum().backward()", "equal"),
    "overwritten by a constant": ("h = w + 1\nwith torch.no_grad(): h[0] = 2.0  #!\nh.sum().backward()", "differs"),
    "a leaf is written between forward and backward": (
        "loss = (w * v).sum()\nw.data.mul_(2.0)  #!\n#: update(w)\nloss.backward()",
        "differs",
    ),
    "a leaf is updated between two rounds": (
        "for r in range(3):\n    (w * v).exp().sum().backward()\n    with torch.no_grad(): w.sub_(0.1 * ‹w.grad›)  #!\n    #: update(w)",
        "equal",
    ),
    "a leaf has two values in one root, each read right": (
        "a = (w * v.detach()).sum()\nwith torch.no_grad(): w.mul_(2.0)  #!\n#: update(w)\n(a + (w * w).sum()).backward()".replace(
            "v.detach()", "‹v.detach()›"
        ),
        "equal",
    ),
    "a leaf written without a mark": ("(w * v).sum().backward()\nw.data.mul_(2.0)  #!", "fails"),
    "detached": ("h = w.exp()\n(h * ‹h.detach()›).sum().backward()", "equal"),
    "detached, and the mark forgotten": ("h = w.exp()\n(h * h.detach()).sum().backward()", "differs"),
    "an average that is read": (
        "ema = torch.zeros(3)\nfor r in range(2):\n    h = w * v\n    ((h + ema) ** 2).sum().backward()\n    with torch.no_grad(): ema.lerp_(h, 0.5)\n    #: pin(ema)",
        "equal",
    ),
    "frozen for a while": (
        "v.requires_grad_(False)\n#: freeze(v)\n(w * v).sum().backward()\nv.requires_grad_(True)\n#: thaw(v)\n(w * v * v).sum().backward()",
        "equal",
    ),
    "only one leaf is asked for": ("g, = torch.autograd.grad((w * v).exp().sum(), [w])", "equal"),
    "only one leaf is asked for, and that one is wrong": (
        "h = w * 2\nloss = (h * v).sum()\nh.data.zero_()  #!\ng, = torch.autograd.grad(loss, [v])",
        "differs",
    ),
    "the other one is asked for": (
        "h = w * 2\nloss = (h * v).sum()\nh.data.zero_()  #!\ng, = torch.autograd.grad(loss, [w])",
        "equal",
    ),
    "a copied value whose leaf gets nothing": (
        "slot = torch.zeros(3)\nh = w * 2\nslot.data.copy_(h)  #!\n#: copied(slot, h)\n(slot * v).sum().backward()",
        "no path",
    ),
    "a copied value whose leaf has another path": (
        "slot = torch.zeros(3)\nh = w * 2\nslot.data.copy_(h)  #!\n#: copied(slot, h)\n(slot * v + h).sum().backward()",
        "equal",
    ),
    "a copied value that no root reads": (
        "slot = torch.zeros(3)\nh = w * 2\nslot.data.copy_(h)  #!\n#: copied(slot, h)\n(v * v).sum().backward()",
        "equal",
    ),
    "a copied value whose leaf gets something from a root that does not read the copy": (
        "slot = torch.zeros(3)\nh = w * 2\nslot.data.copy_(h)  #!\n#: copied(slot, h)\n(slot * v).sum().backward()\nh.sum().backward()",
        "no path",
    ),
    "a queue: read in the next round, whose own value reaches the leaf": (
        "slot = torch.zeros(3)\nfor r in range(3):\n    h = w * v\n    (h * slot + h).sum().backward()\n    slot.data.copy_(h)  #!\n    #: copied(slot, h)",
        "equal",
    ),
    "a kept gradient that another backward adds to": (
        "(w * v).sum().backward()\ng = w.grad\n#: keep(g)\n(w * w).sum().backward()  #!\nsize = g.norm()\n#: used(g)",
        "kept gradient",
    ),
    "a kept gradient that is not used": (
        "(w * v).sum().backward()\ng = w.grad\n#: keep(g)\n(w * w).sum().backward()  #!",
        "equal",
    ),
    "the same tensor kept twice, each time for what it was": (
        "h = []\nfor r in range(2):\n    (w * v).sum().backward()  #!\n    h.append(w.grad)\n    #: keep(h[-1])\n#: used(*h)",
        "kept gradient",
    ),
    "a hook writes what backward still reads": (
        "h = w * v\ny = h * 2\ndef hook(g):\n    v.data.zero_()  #!\n    #: update(v)\ny.register_hook(hook)\ny.sum().backward()",
        "differs",
    ),
    "a hook's own change of the gradient is its own": (
        "h = w * v\nw.register_hook(lambda g: g * 0.5)\nh.sum().backward()",
        "equal",
    ),
    "backward raises": ("h = w.exp()\nh.mul_(2.0)  #!\nh.sum().backward()", "raises"),
    "backward raises with and without the write": (
        "h = w.exp()\nh.mul_(2.0)\nc.mul_(2.0)  #!\nh.sum().backward()",
        "fails",
    ),
    "refused": ("w.mul_(2.0)  #!\nw.sum().backward()", "refused"),
    "the program itself is wrong": ("w.mul(nothing)  #!\nw.sum().backward()", "fails"),
    "nobody asks for a gradient": ("w.mul(2.0)", "fails"),
    "at a kink": ("(w - ‹w.detach()›).relu().sum().backward()", "not smooth"),
    "wrong by next to nothing": ("h = w * 2\nh.data.mul_(1.00005)  #!\nh.sum().backward()", "close"),
    "a custom step of the inner loop is part of the graph": (
        "inner = (w * w * c).sum()\ng, = torch.autograd.grad(inner, [w], create_graph=True)\n((w - 0.1 * g) * v).exp().sum().backward()",
        "equal",
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_answers(name):
    text, reason = KNOWN[name]
    judgement = judge(Program("silent", "known", 0, f"{HEAD}{text}\n"))
    assert judgement.reason.partition(":")[0] == reason, judgement
    harmless = judgement.reason == "equal"
    assert judgement.harmful is (None if reason in ("fails", "close", "not smooth") else not harmless)


def test_the_difference_is_that_of_the_gradients():
    """loss = sum of 3 (2 w): the gradient is 2, the derivative 6."""
    text = HEAD + "h = w * 2\nh.data.mul_(3.0)  #!\nh.sum().backward()\n"
    stream = torch.Generator().manual_seed(20)
    direction = torch.randn(3, generator=stream, dtype=torch.float64) * 0.5 + 1.0
    size = max(abs(6 * direction.sum()), torch.full((3,), 2.0, dtype=torch.float64).norm() * direction.norm())
    found = judge(Program("silent", "known", 0, text)).difference
    assert found == pytest.approx(float(4 * direction.sum().abs() / size), rel=1e-6)


@pytest.mark.parametrize(("family", "kind"), [(f, k) for f, kinds in (FAMILIES | HELD_OUT).items() for k in kinds])
def test_a_recording_changes_nothing(family, kind):
    """The gradients of the run that the oracle looks at are bit by bit those of the cell."""
    for number in range(4):
        one = program(family, number, kind)
        try:
            plain = run_plain(one)
        except RuntimeError as error:
            assert type(record(one)[1]) is type(error)
            continue
        recording, error = record(one)
        assert error is None
        found = [t for t in plain.values() if isinstance(t, torch.Tensor) and _has_gradient(t)]
        theirs = [(leaf.detach(), leaf.grad) for leaf in recording.leaves]
        for t in found:
            assert any(torch.equal(t.detach(), w) and g is not None and torch.equal(t.grad, g) for w, g in theirs), (
                one.text
            )


def _has_gradient(t):
    try:
        return t.is_leaf and t.grad is not None
    except RuntimeError:  # a view that was invalidated
        return False


@pytest.mark.parametrize("family", [*FAMILIES, *HELD_OUT])
def test_a_number_is_a_program(family):
    for number in range(40):
        one = program(family, number)
        assert one == program(family, number)
        assert one != program(family, number + 1)
        compile(one.cell, "<cell>", "exec")
        assert not {"‹", "›", "#!", "#:"} & set(one.cell)
        marked = [
            line.removesuffix("  #!").replace("‹", "").replace("›", "")
            for line in one.text.splitlines()
            if line.endswith("#!")
        ]
        assert [one.cell.splitlines()[i - 1] for i in sorted(one.write_lines)] == marked
        assert bool(marked) == (family != "benign") or one.kind == "known"


def test_generators_and_oracle_know_nothing_of_the_package():
    code = "import sys, random_programs.families, random_programs.oracle, random_programs.reduce; print([m for m in sys.modules if m.startswith('jupyter_inplace')])"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"


def test_there_are_enough_kinds_of_silent_write():
    assert len(FAMILIES["silent"]) >= 16
    assert not set(HELD_OUT["held_out"]) & set(FAMILIES["silent"])
