"""Gradients in flight that are written, in graphs with checkpointed functions: followed, and nothing of the program changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from jupyter_inplace import watch


def _doubled_in_place(g):
    return g.mul_(2)


def _doubled(g):
    return g * 2


class _Program:
    """Two branches get one gradient; a hook on the one changes what the other, a checkpointed function, is still to get."""

    def __init__(self):
        torch.manual_seed(0)
        self.bn, self.lin, self.runs = nn.BatchNorm1d(3), nn.Linear(3, 3), torch.zeros(1)

    def region(self, x):
        self.runs.add_(1)
        return self.bn(self.lin(x)).tanh()

    def loss(self, hook):
        x = torch.randn(5, 3)
        a = checkpoint(self.region, x, use_reentrant=False) + self.lin(x)
        h = a * 1
        b = a * 1  # the later one runs first
        b.register_hook(hook)
        return ((h + b) * torch.arange(1.0, 4)).sum()

    def grads(self):
        return {f"{m}.{n}": p.grad.clone() for m in ("bn", "lin") for n, p in getattr(self, m).named_parameters()}


def _run(hook):
    program = _Program()
    program.loss(hook).backward()
    return program


@pytest.mark.parametrize("hook", [_doubled, _doubled_in_place])
def test_what_a_watch_recomputes_for_itself_is_no_part_of_the_program(hook):
    plain, program = _run(hook), _Program()
    with watch(namespace={}):
        program.loss(hook).backward()
    assert torch.equal(program.runs, plain.runs)
    for a, b in zip(program.bn.buffers(), plain.bn.buffers(), strict=True):
        assert torch.equal(a, b)
    for name, grad in plain.grads().items():
        assert torch.equal(program.grads()[name], grad), name


def test_the_harm_behind_a_checkpoint_has_its_numbers():
    as_run, meant = _run(_doubled_in_place).grads(), _run(_doubled).grads()
    assert any(not torch.allclose(as_run[name], meant[name]) for name in meant)
    program = _Program()
    with watch(namespace=vars(program)) as report:
        program.loss(_doubled_in_place).backward()
    assert report.verdict == "corrupts"
    assert not any("not followed" in note for note in report.blind_spots)
    rows = {row.leaf: row for row in report.gradients}
    assert set(rows) == set(meant)
    for name, row in rows.items():
        assert row.norm_as_run == pytest.approx(float(as_run[name].norm()), rel=1e-4), name
        assert row.norm_reference == pytest.approx(float(meant[name].norm()), rel=1e-4), name
