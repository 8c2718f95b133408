"""Which operators have a tripwire, and what a wired operation is."""

from __future__ import annotations

import pytest
import torch
import tripwired

from jupyter_inplace import watch
from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.schema import make_plan, may_need_a_plan
from jupyter_inplace.record.dispatch import tripwires
from jupyter_inplace.record.here import trace_here

pytestmark = tripwired.needed


def overloads():
    for full in private.operator_names():
        base, _, overload = full.partition(".")
        namespace, _, name = base.partition("::")
        packet = getattr(getattr(torch.ops, namespace), name)
        yield full, base, overload, getattr(packet, overload or "default")


def test_every_operator_that_acts_has_one():
    registered = 0
    assert tripwires.ready()
    for full, base, overload, func in overloads():
        if private.has_kernel(full, "CompositeImplicitAutograd") or base == "aten::detach":
            continue
        has = private.has_kernel(full, private.tripwire_name)
        assert has == (may_need_a_plan(private.schema_of(base, overload)) or full in tripwires.defined_in_python()), (
            full
        )
        if make_plan(func) is not None:
            assert has, full
            registered += 1
    assert registered > 1000


def test_a_plain_operator_has_none():
    for name in ("aten::mul.Tensor", "aten::addmm", "aten::relu", "aten::detach", "aten::empty.memory_format"):
        assert not private.has_kernel(name, private.tripwire_name)


@pytest.mark.usefixtures("nothing_compiled", "tripwires")
class TestWired:
    def test_plain_operations_have_no_mode(self):
        x = torch.ones(3)
        with watch():
            assert trace_here().stack.wired
            assert private.len_dispatch_stack() == 0
            assert (x * 2).sum() == 6
            assert private.key_included(private.TRIPWIRE)
        assert not private.key_included(private.TRIPWIRE)

    def test_a_write_comes_with_the_mode_and_leaves_without(self):
        x = torch.zeros(3)
        with watch() as report:
            assert x.add_(1) is x
            assert private.len_dispatch_stack() == 0
            torch.mul(x, 2, out=x)
            x[1] = 7
        assert x.tolist() == [2, 7, 2]
        assert [m.op for m in report.mutations] == ["aten.add_.Tensor", "aten.mul.out", "aten.copy_.default"]

    def test_what_an_operator_writes_inside_of_itself_is_no_row(self):
        with watch() as report:
            torch.zeros(3)
            torch.randperm(4)
            torch.arange(5).clone()
            torch.randn(3, 3).contiguous().to(torch.float64)
        assert report.mutations == ()

    def test_an_error_is_the_program_s_own(self):
        w = torch.ones(3, requires_grad=True)
        with pytest.raises(RuntimeError) as plain:
            w.add_(1)
        with pytest.raises(RuntimeError) as watched, watch():
            w.add_(1)
        assert str(plain.value) == str(watched.value)
        assert not private.key_included(private.TRIPWIRE)

    def test_versions_are_those_of_the_unwatched_program(self):
        def versions():
            ts = [torch.zeros(2) for _ in range(3)]
            ts[0].add_(1)
            torch._foreach_add_(ts, 1)
            torch.add(ts[0], 1, out=ts[1])
            ts[2].resize_(4)
            norm = torch.nn.BatchNorm1d(2)
            norm(torch.randn(4, 2))
            return [t._version for t in (*ts, norm.running_mean, norm.num_batches_tracked)]

        plain = versions()
        with watch():
            assert versions() == plain

    def test_parameters_and_subclasses_are_made_as_ever(self):
        class Own(torch.Tensor):
            pass

        with watch():
            p = torch.nn.Parameter(torch.ones(2))
            own = torch.ones(2).as_subclass(Own)
            own.mul_(2)
            again = torch.Tensor._make_subclass(Own, torch.zeros(2))
        assert type(p) is torch.nn.Parameter
        assert type(own) is type(again) is Own

    @pytest.mark.parametrize("alias", ["h.data", "h.detach()", "torch.detach(h)", "h.unsafe_chunk(1)[0]"])
    def test_aliases_bring_the_mode_back(self, alias):
        w = torch.ones(3, requires_grad=True)
        with watch(namespace=locals()) as report:
            h = w * 3
            eval(alias, {"h": h, "torch": torch}).mul_(2)
            loss = (h * w).sum()
            loss.backward()
        assert report.verdict in ("cuts", "corrupts")
